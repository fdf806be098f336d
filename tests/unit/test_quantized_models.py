"""A quantized file in place of the original: same folder, same description, nearly the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from headworks_server.config import Settings
from headworks_server.engine.base import Array, ModelSpec
from headworks_server.engine.onnxruntime import OnnxRuntimeEngine
from headworks_server.models import load_model
from support.model_zoo import quantize
from support.models import Form, convolving_detector, save_model

FORM = Form(width=128, height=96)


def run(spec: ModelSpec, pixels: Array) -> Array:
    """The output for pictures of 0 to 255."""
    memory = np.ascontiguousarray(pixels * spec.preprocess.scale, spec.input.dtype)
    executor = OnnxRuntimeEngine(spec).executor(memory)
    (output,) = executor.run(len(pixels))
    return output.copy()


@pytest.mark.parametrize("how", ["dynamic", "qdq", "operators", "uint8"])
@pytest.mark.parametrize("described", [False, True], ids=["as exported", "with model.toml"])
def test_a_quantized_file_takes_the_place_of_the_original(tmp_path: Path, how: str, described: bool) -> None:
    """QDQ, dynamic, with com.microsoft operators, and with a uint8 input; metadata or model.toml stay as they are."""
    model = convolving_detector(FORM)
    path = save_model(tmp_path, "tiny", model)
    if described:
        del model.metadata_props[:]
        path.write_bytes(model.SerializeToString())
        (path.parent / "model.toml").write_text(
            'labels = ["player", "referee", "ball"]\n[input]\ncolor = "rgb"\n[preprocess]\nscale = "1/255"\n'
            '[output]\nhead = "yolov8"\n'
        )
    settings = Settings(models=tmp_path)
    original = load_model(settings, "tiny")
    pixels = np.random.default_rng(2).integers(0, 256, (2, 3, 96, 128))
    expected = run(original, pixels)

    quantize(path, tmp_path / "small.onnx", how, (2, 3, 96, 128))
    (tmp_path / "small.onnx").replace(path)

    spec = load_model(settings, "tiny")
    assert spec.digest != original.digest
    assert spec.input.dtype == ("uint8" if how == "uint8" else "float32")
    assert (spec.labels, spec.output, spec.postprocess) == (original.labels, original.output, original.postprocess)
    got = run(spec, pixels)
    assert got.shape == expected.shape
    assert np.abs(got - expected).mean() < 0.03 * np.abs(expected).mean() + 0.01


def test_operators_of_the_runtime_are_there(tmp_path: Path) -> None:
    """The parametrization above does what it says."""
    path = save_model(tmp_path, "tiny", convolving_detector(FORM))
    quantize(path, tmp_path / "small.onnx", "operators", (2, 3, 96, 128))
    assert "com.microsoft" in {node.domain for node in onnx.load(tmp_path / "small.onnx").graph.node}
