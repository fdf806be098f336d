"""From file to spec: what is read from graph and metadata, what is asked for, what is refused in which words."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from headworks.v1 import frame_pb2
from headworks_server.config import Settings
from headworks_server.engine import base
from headworks_server.engine.base import InputSpec, ModelSpec
from headworks_server.errors import ConfigError, ModelError
from headworks_server.models import load_model, load_models, stand_in_model
from support.model_zoo import PICTURE, boxes_after_nms, bright_pixels, text_model, ultralytics, zoo_model
from support.models import Form, null_detector, oracle_detector, save_model, with_metadata

LABELS = 'labels = ["a", "b", "c"]\n'
PIXELS = '[input]\ncolor = "rgb"\n[preprocess]\nscale = "1/255"\nresize = "stretch"\n'


def load(tmp_path: Path, model: ModelProto, toml: str = "", **settings: Any) -> ModelSpec:
    """The spec of one model in a folder of its own."""
    save_model(tmp_path, "tiny", model)
    (tmp_path / "tiny" / "model.toml").write_text(toml)
    (spec,) = load_models(Settings(models=tmp_path, **settings))
    return spec


def refusal(tmp_path: Path, model: ModelProto, toml: str = "") -> str:
    """The words with which it is refused."""
    with pytest.raises(ModelError) as caught:
        load(tmp_path, model, toml)
    return str(caught.value)


def detector(*dims: int | str, metadata: dict[str, str] | None = None, **form: Any) -> ModelProto:
    """A model of one output of these dimensions behind the batch."""
    batch = form.get("shape", PICTURE)[0]
    return zoo_model({"output0": ("float", (batch, *dims))}, metadata=metadata, **form)


@pytest.mark.parametrize(
    ("form", "pixel_form", "position_bytes"),
    [
        (Form(), "f32_chw", 64 * 48 * 3 * 4),
        (Form(layout="nhwc"), "f32_hwc", 64 * 48 * 3 * 4),
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
    assert (spec.labels, spec.output.head, spec.output.names) == (form.labels, "yolov8", ("output0",))
    assert spec.output.tensors[0].shape == (4 + len(form.labels), 4)
    assert (spec.preprocess.resize, spec.preprocess.scale) == ("letterbox", 1 / 255 if form.dtype == "float32" else 1)


@pytest.mark.parametrize("dtype", ["float", "float16", "uint8"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_every_input_is_taken(tmp_path: Path, dtype: str, layout: str, channels: int, batch: int | str) -> None:
    """Types, layouts, gray and coloured, fixed batches and any."""
    shape = (batch, channels, 48, 64) if layout == "nchw" else (batch, 48, 64, channels)
    toml = LABELS + '[output]\nhead = "yolov8"\n[preprocess]\nscale = "1/255"\n'
    toml += '[input]\ncolor = "bgr"' if channels == 3 else ""
    spec = load(tmp_path, detector(7, 8400, shape=shape, dtype=dtype), toml)
    short = {"float": "f32", "float16": "f16", "uint8": "u8"}[dtype]
    assert (spec.input.form, spec.input.channels) == (f"{short}_{layout[1:]}", channels)
    assert (spec.input.color, spec.input.shape(2)) == ("bgr" if channels == 3 else "gray", (2, *shape[1:]))
    assert spec.fixed_batch == (batch if batch != "batch" else None)
    assert spec.max_batch == (8 if batch == "batch" else batch)


def test_batch_is_the_graphs_the_files_or_the_settings(tmp_path: Path) -> None:
    """A fixed batch leaves no choice, and contradicting it is an error."""
    assert load(tmp_path, oracle_detector(Form()), max_batch=6).max_batch == 6
    assert load(tmp_path, oracle_detector(Form()), "[batch]\nmax = 5").max_batch == 5
    sized = load(tmp_path, oracle_detector(Form()), "[batch]\nsizes = [1, 3]")
    assert (sized.max_batch, sized.batch_sizes) == (3, (1, 3))
    fixed = load(tmp_path, oracle_detector(Form(batch=3)), max_batch=6)
    assert (fixed.fixed_batch, fixed.max_batch) == (3, 3)
    words = refusal(tmp_path, oracle_detector(Form(batch=3)), "[batch]\nmax = 5")
    assert "batch.max: expected 5, as tiny/model.toml says, got 3 in the graph" in words


def test_layers_lie_over_one_another(tmp_path: Path) -> None:
    """model.toml over metadata over settings over the contract's defaults."""
    model = with_metadata(oracle_detector(), Form())
    spec = load(tmp_path, model, "[postprocess]\niou_threshold = 0.6\n[input]\ncolor = 'bgr'", score_threshold=0.4)
    assert (spec.postprocess.score_threshold, spec.postprocess.iou_threshold) == (0.4, 0.6)
    assert (spec.postprocess.max_detections, spec.postprocess.top_k, spec.input.color) == (300, 5, "bgr")
    assert load(tmp_path, model, decode_scale="1").preprocess.decode_scale == "1"


def test_all_models_are_loaded_by_name(tmp_path: Path) -> None:
    """One folder, many models; one alone when it changed."""
    for name in ("b", "a"):
        save_model(tmp_path, name, null_detector())
    settings = Settings(models=tmp_path)
    assert [spec.name for spec in load_models(settings)] == ["a", "b"]
    assert load_model(settings, "b") == load_models(settings)[1]
    with pytest.raises(ModelError, match="no such folder"):
        load_model(settings, "c")


def test_stand_in_needs_no_file() -> None:
    """The sleeping backend has a class for each byte, and no folder of models."""
    spec = stand_in_model(max_batch=32)
    assert (spec.class_count, spec.max_batch, spec.fixed_batch, spec.forms) == (256, 32, None, (1, 3))
    with pytest.raises(ConfigError, match="expected a folder of models"):
        load_models(Settings(backend="sleeping"))


def test_forms_are_numbered_as_on_the_wire() -> None:
    """The engine knows no protobuf."""
    form = frame_pb2.ResultOptions.Form
    assert form.Value("FORM_DETECTIONS") == base.DETECTIONS
    assert form.Value("FORM_CLASSIFICATIONS") == base.CLASSIFICATIONS
    assert form.Value("FORM_RAW_TENSORS") == base.RAW_TENSORS


# Heads.


@pytest.mark.parametrize(
    ("dims", "metadata", "head"),
    [
        ((7, 63), ultralytics(), "yolov8"),
        ((7, "boxes"), ultralytics(), "yolov8"),
        ((7, 63), ultralytics(end2end="False"), "yolov8"),
        ((300, 6), ultralytics(), "yolo_end2end"),
        ((300, 6), ultralytics(end2end="True"), "yolo_end2end"),
        ((300, 6), ultralytics(args="{'nms': True}"), "yolo_end2end"),
        ((252, 8), {"names": "['a', 'b', 'c']", "stride": "32"}, "yolov5"),
        ((3,), ultralytics("classify"), "classification"),
    ],
)
def test_heads_are_read_from_metadata(tmp_path: Path, dims: tuple[Any, ...], metadata: Any, head: str) -> None:
    """What the exporter wrote is not asked for."""
    spec = load(tmp_path, detector(*dims, metadata=metadata))
    assert (spec.output.head, spec.labels, spec.input.color) == (head, ("a", "b", "c"), "rgb")
    assert spec.output.boxes == ("xyxy" if head == "yolo_end2end" else "cxcywh")
    assert spec.forms == ((2, 3) if head == "classification" else (1, 3))
    assert spec.preprocess.resize == ("fit_shorter" if head == "classification" else "letterbox")


@pytest.mark.parametrize(
    ("dims", "head"), [((7, 8400), "yolov8"), ((300, 6), "yolo_end2end"), ((3,), "classification"), ((3, 1, 1), None)]
)
def test_labels_may_settle_the_head(tmp_path: Path, dims: tuple[int, ...], head: str | None) -> None:
    """Where one head alone has room for exactly these classes, nobody is asked."""
    toml = LABELS + PIXELS + 'mean = 0\nstd = 1\n[output]\nactivation = "softmax"' * (len(dims) != 2)
    assert load(tmp_path, detector(*dims), toml).output.head == (head or "classification")


@pytest.mark.parametrize(
    ("dims", "toml", "words"),
    [
        ((84, 8400), "", "could be yolov8 or raw: the output is [84, 8400]; say which"),
        ((25200, 85), "", "could be yolov5 or yolox or raw: the output is [25200, 85]; say which"),
        ((25200, 8), LABELS, "could be yolov5 or yolox or raw: the output is [25200, 8]; say which"),
        ((300, 6), 'labels = ["ball"]', "could be yolov5 or yolox or yolo_end2end or raw"),
        ((1000,), "", "could be classification or raw: the output is [1000]; say which"),
        ((7, 9), 'labels = ["a"]', "no head reads an output of [7, 9] with 1 label; raw gives the tensors"),
        ((32, 160, 160), LABELS, "no head reads an output of [32, 160, 160] with 3 labels"),
    ],
)
def test_an_output_of_several_heads_is_asked_for(tmp_path: Path, dims: tuple[int, ...], toml: str, words: str) -> None:
    """By the name of the key, with what it could be; never guessed."""
    assert f"  output.head: {words}" in refusal(tmp_path, detector(*dims), toml)


def test_everything_missing_is_told_at_once_and_can_be_pasted(tmp_path: Path) -> None:
    """The questions end in a model.toml; with it the model is served."""
    model = detector(1000, shape=("batch", 3, "h", "w"))
    words = refusal(tmp_path, model)
    for key in (
        "input.color",
        "input.size: is stated nowhere: the input is 'images' of float [batch, 3, h, w]",
        "output.head: could be classification or raw",
        "output.activation: expected softmax, sigmoid or none: the graph ends in Expand",
        "preprocess.scale",
        "preprocess.resize",
        "preprocess.mean",
        "preprocess.std",
    ):
        assert f"  {key}" in words
    snippet = words.split("\n\n", 1)[1]
    spec = load(tmp_path, model, snippet)
    assert (spec.output.head, spec.class_count, spec.output.activation) == ("classification", 1000, "softmax")
    assert spec.postprocess.score_threshold == 0  # the setting is of boxes
    assert (spec.input.width, spec.preprocess.scale, spec.preprocess.mean) == (640, 1 / 255, (0.485, 0.456, 0.406))
    assert tomllib.loads(snippet)["output"] == {"head": "classification", "activation": "softmax"}


def test_a_stated_head_needs_no_labels(tmp_path: Path) -> None:
    """Their number follows from the shape; they are numbered."""
    spec = load(tmp_path, detector(25200, 85), '[output]\nhead = "yolox"\n' + PIXELS.replace('resize = "stretch"', ""))
    assert (spec.class_count, spec.labels[79]) == (80, "class-79")
    assert (spec.preprocess.anchor, spec.preprocess.rounding) == ("top_left", "floor")
    words = refusal(tmp_path, detector(300, 6), '[output]\nhead = "yolo_end2end"\n' + PIXELS)
    assert "  labels: are told nowhere, and the output of [300, 6] does not tell how many there are" in words


@pytest.mark.parametrize(
    ("ends", "activation"), [("Softmax", "none"), ("Sigmoid", "none"), ("LogSoftmax", "softmax"), ("Relu", None)]
)
def test_activation_is_seen_in_the_graph_or_asked_for(tmp_path: Path, ends: str, activation: str | None) -> None:
    """Through the cast that ends it; scores that are none yet are never told as such."""
    toml = LABELS + PIXELS + "mean = 0\nstd = 1"
    if activation is None:
        assert "output.activation: expected softmax, sigmoid or none: the graph ends in Relu" in refusal(
            tmp_path, detector(3, ends=ends), toml
        )
    else:
        assert load(tmp_path, detector(3, ends=ends), toml).output.activation == activation


def test_several_outputs(tmp_path: Path) -> None:
    """The head reads the one that fits; raw gives all, of any type; two that fit are asked for by name."""
    outputs = {"masks": ("float16", ("batch", 32, 12, 16)), "boxes": ("float", ("batch", 7, 63))}
    spec = load(tmp_path, zoo_model(outputs), LABELS + PIXELS)
    assert (spec.output.head, spec.output.index, spec.output.names) == ("yolov8", 1, ("masks", "boxes"))
    assert spec.output.tensors[0] == base.TensorSpec(name="masks", dtype="float16", shape=(32, 12, 16))
    raw = load(tmp_path, zoo_model(outputs), PIXELS + '[output]\nhead = "raw"')
    assert (raw.forms, raw.labels, len(raw.output.tensors)) == ((3,), (), 2)
    twins = {"one": ("float", ("batch", 7, 63)), "two": ("float", ("batch", 7, 63))}
    assert "  output.name: could be one or two" in refusal(tmp_path, zoo_model(twins), LABELS + PIXELS)
    assert load(tmp_path, zoo_model(twins), LABELS + PIXELS + '[output]\nname = "two"').output.index == 1


def test_outputs_without_a_batch_axis_are_declared(tmp_path: Path) -> None:
    """Only where the batch is fixed at 1; otherwise frames could not be told apart."""
    model = zoo_model({"output0": ("float", (7, 63))}, shape=(1, 3, 48, 64))
    assert "  output.batch_axis: output 'output0' of float [7, 63] has no axis of 1" in refusal(tmp_path, model)
    spec = load(tmp_path, model, LABELS + PIXELS + "[output]\nbatch_axis = false")
    assert (spec.output.head, spec.output.batch_axis, spec.output.tensors[0].shape) == ("yolov8", False, (7, 63))
    words = refusal(tmp_path, oracle_detector(), "[output]\nbatch_axis = false")
    assert "output.batch_axis: expected False, as tiny/model.toml says, got a batch of any size in the graph" in words
    assert "with the batch of 4 as axis 0, got 'output0' of float [7, 63]" in refusal(
        tmp_path, zoo_model({"output0": ("float", (7, 63))}, shape=(4, 3, 48, 64))
    )
    assert "as axis 0, got 'output0' of float [300, 7]" in refusal(
        tmp_path, zoo_model({"output0": ("float", (300, 7))})
    )
    assert load(tmp_path, bright_pixels(), PIXELS + '[output]\nhead = "raw"\nbatch_axis = false').fixed_batch == 1
    assert load(tmp_path, boxes_after_nms()).output.tensors[0].shape == (None, 6)


# Other exporters.


def test_model_api_metadata_are_read(tmp_path: Path) -> None:
    """Means and scales are of pixels up to 255; the colour is relative there, so it is asked for."""
    metadata = {
        "model_info labels": "cat dog small_bird",
        "model_info mean_values": "123.675 116.28 103.53",
        "model_info scale_values": "58.395 57.12 57.375",
        "model_info resize_type": "fit_to_window",
        "model_info pad_value": "0",
        "model_info confidence_threshold": "0.35",
        "model_info reverse_input_channels": "True",
    }
    words = refusal(tmp_path, detector(7, 63, metadata=metadata))
    assert [line for line in words.splitlines() if line.startswith("  ")] == [
        "  input.color: expected the order of the channels, rgb or bgr"
    ]
    spec = load(tmp_path, detector(7, 63, metadata=metadata), '[input]\ncolor = "rgb"')
    assert (spec.labels[2], spec.preprocess.scale, spec.preprocess.mean[0]) == ("small_bird", 1.0, 123.675)
    assert (spec.preprocess.anchor, spec.preprocess.pad_value) == ("top_left", 0)
    assert spec.postprocess.score_threshold == 0.35


@pytest.mark.parametrize(
    "metadata",
    [
        {"mean": "(0.5, 0.5, 0.5)", "std": "(0.5, 0.5, 0.5)", "interpolation": "bicubic", "crop_pct": "0.875"},
        {
            "pretrained_cfg": '{"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", '
            '"crop_pct": 0.875}'
        },
        {
            "preprocessor_config": '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 3, '
            '"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}'
        },
    ],
    ids=["timm", "timm in one", "Hugging Face"],
)
def test_classifier_metadata_are_read(tmp_path: Path, metadata: dict[str, str]) -> None:
    """Interpolation, crop and normalisation, as their libraries write them."""
    spec = load(tmp_path, detector(3, ends="Softmax", metadata=metadata), LABELS)
    assert (spec.output.head, spec.input.color) == ("classification", "rgb")
    assert (spec.preprocess.mean, spec.preprocess.std) == ((0.5,) * 3, (0.5,) * 3)
    assert (spec.preprocess.interpolation, spec.preprocess.antialias) == ("bicubic", True)
    assert (spec.preprocess.resize, spec.preprocess.crop_pct) == ("center_crop", 0.875)


# What is refused.


def _renamed(model: ModelProto) -> ModelProto:
    model.graph.input.append(model.graph.input[0])
    model.graph.input[-1].name = "images2"
    return model


WRONG: dict[str, tuple[ModelProto, str, str]] = {
    "segmentation": (
        detector(39, 63, metadata=ultralytics("segment")),
        "",
        "output.head: the metadata say task 'segment', for which there is no head; raw gives the tensors",
    ),
    "more labels than rows": (
        detector(7, 63, metadata=ultralytics(names="['a', 'b']")),
        "",
        "an output of [6, boxes] (4 + 2 classes, without NMS) for each frame, for the head yolov8, got [7, 63]",
    ),
    "a head that does not fit": (
        detector(7, 63, metadata=ultralytics()),
        '[output]\nhead = "yolov5"',
        "for the head yolov5 that tiny/model.toml states, got [7, 63]",
    ),
    "another size in the metadata": (
        detector(7, 63, metadata=ultralytics(imgsz="[64, 64]")),
        "",
        "input.size: expected 64x64, as metadata says, got 'images' of float [batch, 3, 48, 64]",
    ),
    "another size in model.toml": (
        detector(7, 63, metadata=ultralytics()),
        "[input]\nsize = 64",
        "input.size: expected 64x64, as tiny/model.toml says, got 'images' of float [batch, 3, 48, 64]",
    ),
    "a size off the stride": (
        detector(7, 63, metadata=ultralytics(), shape=("batch", 3, "h", "w")),
        "[input]\nsize = 100",
        "input.size: expected 100x100, as tiny/model.toml says, got a stride of 16 in the metadata",
    ),
    "names that are no names": (
        detector(7, 63, metadata=ultralytics(names="{0: 'a', 5: 'b'}")),
        "",
        "expected names for class ids from 0 on in the metadata, got {0: 'a', 5: 'b'}; labels in",
    ),
    "code in the metadata": (
        detector(7, 63, metadata=ultralytics(imgsz="__import__('os').getcwd()")),
        "",
        "expected imgsz as a Python literal in the metadata, got \"__import__('os').getcwd()\"",
    ),
    "doubles": (detector(7, 63, dtype="double"), "", "expected input 'images' of float, float16 or uint8, got double"),
    "no picture": (
        text_model("(float[batch,16] images) => (float[batch,16] y) { y = Identity(images) }"),
        "",
        "with axes for batch, channels, height and width, got 'images' of float [batch, 16]",
    ),
    "four channels": (
        detector(7, 63, shape=("batch", 4, 48, 64)),
        "",
        "with 3 channels or 1, at axis 1 or axis 3, got 'images' of float [batch, 4, 48, 64]",
    ),
    "two layouts": (
        detector(7, 63, shape=("batch", 3, 48, 3)),
        "",
        "input.layout: could be nchw or nhwc: the input is 'images' of float [batch, 3, 48, 3]",
    ),
    "two inputs": (
        _renamed(detector(7, 63)),
        "",
        "expected one input, of pictures, got 'images' of float [batch, 3, 48, 64] and 'images2' of float",
    ),
    "bytes to be normalised": (
        detector(7, 63, dtype="uint8", metadata=ultralytics()),
        "[preprocess]\nmean = 0.5",
        "preprocess.mean: expected (0.5, 0.5, 0.5), as tiny/model.toml says, got a uint8 input",
    ),
    "gray for colours": (
        detector(7, 63, metadata=ultralytics()),
        '[input]\ncolor = "gray"',
        "input.color: expected gray, as tiny/model.toml says, got 3 channels in the graph",
    ),
    "boxes of whole numbers": (
        zoo_model({"output0": ("int32", ("batch", 7, 63))}, metadata=ultralytics()),
        "",
        "expected output 'output0' of float or float16 for the head yolov8, got int32",
    ),
    "text": (
        text_model("(float[batch,3,48,64] images) => (string[batch,3,48,64] y) { y = Cast<to=8>(images) }"),
        "",
        "expected output 'y' of numbers, got string",
    ),
    "an activation of boxes": (
        detector(7, 63, metadata=ultralytics()),
        '[output]\nactivation = "sigmoid"',
        "output.activation: expected sigmoid, as tiny/model.toml says, got the head yolov8, which has none",
    ),
    "an output that is not there": (
        detector(7, 63, metadata=ultralytics()),
        '[output]\nname = "boxes"',
        "output.name: expected boxes, as tiny/model.toml says, got outputs output0",
    ),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_other_models_are_refused_in_words(tmp_path: Path, case: str) -> None:
    """The file, what was expected, what was found."""
    model, toml, words = WRONG[case]
    said = refusal(tmp_path, model, toml)
    assert said.startswith(str(tmp_path / "tiny" / "model.onnx"))
    assert words in said


def test_an_input_with_a_default_need_not_be_given(tmp_path: Path) -> None:
    """It is a constant that somebody may override."""
    model = text_model(
        "(float[batch,3,48,64] images, float[1] gain) => (float[batch,3,48,64] y) <float[1] gain = {2}>"
        " { y = Mul(images, gain) }"
    )
    assert load(tmp_path, model, PIXELS + '[output]\nhead = "raw"').input.name == "images"


def test_a_fault_of_the_metadata_can_be_overridden(tmp_path: Path) -> None:
    """What model.toml says is not looked for elsewhere."""
    model = detector(7, 63, metadata=ultralytics(names="nonsense"))
    assert load(tmp_path, model, LABELS).labels == ("a", "b", "c")
