"""From file to spec: which detectors are taken as they are, and with which words the others are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import ModelProto

from headworks_server.config import Settings
from headworks_server.engine.base import InputSpec, ModelSpec
from headworks_server.errors import ConfigError, ModelError
from headworks_server.models import load_models, stand_in_model
from support.models import Form, null_detector, oracle_detector, save_model, with_metadata


def load(tmp_path: Path, model: ModelProto) -> ModelSpec:
    """The spec of one model in a folder of its own."""
    save_model(tmp_path, "tiny", model)
    (spec,) = load_models(Settings(models=tmp_path, max_batch=6, score_threshold=0.4, decode_scale="1"))
    return spec


@pytest.mark.parametrize(
    ("form", "pixel_form", "position_bytes"),
    [
        (Form(), "f32_chw", 64 * 48 * 3 * 4),
        (Form(dtype="uint8"), "u8_chw", 64 * 48 * 3),
        (Form(dtype="uint8", layout="nhwc"), "u8_hwc", 64 * 48 * 3),
        (Form(dtype="uint8", layout="nhwc", open_size=True), "u8_hwc", 64 * 48 * 3),
        (Form(open_size=True, labels=("ball",)), "f32_chw", 64 * 48 * 3 * 4),
    ],
    ids=str,
)
def test_detectors_are_taken_as_exported(tmp_path: Path, form: Form, pixel_form: str, position_bytes: int) -> None:
    """Type, layout and size come from the graph, or the size from imgsz; the labels from names."""
    spec = load(tmp_path, oracle_detector(form))
    assert spec.input == InputSpec(name="images", dtype=form.dtype, layout=form.layout, width=64, height=48)
    assert (spec.input.form, spec.input.position_bytes) == (pixel_form, position_bytes)
    assert (spec.labels, spec.class_count, spec.output) == (form.labels, len(form.labels), "output0")


def test_batch_is_the_graphs_or_the_settings(tmp_path: Path) -> None:
    """A fixed batch leaves no choice."""
    dynamic = load(tmp_path, oracle_detector(Form()))
    assert (dynamic.fixed_batch, dynamic.max_batch) == (None, 6)
    fixed = load(tmp_path, oracle_detector(Form(batch=3)))
    assert (fixed.fixed_batch, fixed.max_batch) == (3, 3)


def test_settings_reach_the_spec(tmp_path: Path) -> None:
    """Thresholds and the scale of decoding; what is not set has the contract's default."""
    spec = load(tmp_path, oracle_detector())
    assert (spec.score_threshold, spec.iou_threshold, spec.max_detections) == (0.4, 0.45, 300)
    assert (spec.decode_scale, spec.head, spec.version) == ("1", "yolov8", "1")


def test_all_models_are_loaded_by_name(tmp_path: Path) -> None:
    """One folder, many models."""
    for name in ("b", "a"):
        save_model(tmp_path, name, null_detector())
    assert [spec.name for spec in load_models(Settings(models=tmp_path))] == ["a", "b"]


def test_stand_in_needs_no_file() -> None:
    """The sleeping backend has a class for each byte, and no folder of models."""
    spec = stand_in_model(max_batch=32)
    assert (spec.class_count, spec.max_batch, spec.fixed_batch) == (256, 32, None)
    with pytest.raises(ConfigError, match="expected a folder of models"):
        load_models(Settings(backend="sleeping"))


def _input_type(model: ModelProto, element: int) -> ModelProto:
    model.graph.input[0].type.tensor_type.elem_type = element
    return model


def _twice(model: ModelProto, what: str) -> ModelProto:
    values = getattr(model.graph, what)
    values.append(values[0])
    values[-1].name = "scaled" if what == "output" else "images2"
    return model


WRONG = {
    "no metadata": (
        lambda: with_metadata(oracle_detector(), Form(), task=None),
        r"expected the metadata task, names, imgsz and stride, .*, got",
    ),
    "segmentation": (
        lambda: with_metadata(oracle_detector(), Form(), task="segment"),
        r"expected a model of task 'detect', got task 'segment'",
    ),
    "more labels than rows": (
        lambda: with_metadata(oracle_detector(), Form(), names="['a', 'b']"),
        r"expected an output of \[batch, 6, boxes\] .*, got \[batch, 7, 4\]",
    ),
    "another size": (
        lambda: with_metadata(oracle_detector(), Form(), imgsz="[64, 64]"),
        r"expected input 'images' of 64x64 pixels, as imgsz in the metadata says, got \[batch, 3, 48, 64\]",
    ),
    "half precision": (
        lambda: _input_type(oracle_detector(), 10),
        r"expected input 'images' of float or uint8, got float16",
    ),
    "float in nhwc": (
        lambda: oracle_detector(Form(layout="nhwc")),
        r"expected input 'images' of \[batch, 3, height, width\], got \[batch, 48, 64, 3\]",
    ),
    "two inputs": (lambda: _twice(oracle_detector(), "input"), r"expected one input and one output, got 2 and 1"),
    "two outputs": (lambda: _twice(oracle_detector(), "output"), r"expected one input and one output, got 1 and 2"),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_other_models_are_refused_in_words(tmp_path: Path, case: str) -> None:
    """The file, what was expected, what was found."""
    make, words = WRONG[case]
    path = save_model(tmp_path, "tiny", make())
    with pytest.raises(ModelError, match=words) as caught:
        load_models(Settings(models=tmp_path))
    assert str(caught.value).startswith(f"{path}: expected ")
    assert "\n" not in str(caught.value)
