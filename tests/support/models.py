"""Makers of tiny ONNX detectors for the tests, with the metadata that Ultralytics writes.

All have the `yolov8` layout, [batch, 4 + classes, boxes]. The oracle is checkable: its one box says what colour the
middle pixel of the picture had, so a test that sends coloured pictures can tell whose result it holds (`oracle_box`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

LABELS = ("player", "referee", "ball")
ORACLE_SCORE = 0.95
RED_THAT_FAILS = 0.9


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a tiny detector looks like from outside; `batch` and `size` None leave those axes open in the graph."""

    labels: tuple[str, ...] = LABELS
    width: int = 64
    height: int = 48
    dtype: Literal["float32", "uint8"] = "float32"
    layout: Literal["nchw", "nhwc"] = "nchw"
    batch: int | None = None
    open_size: bool = False
    boxes: int = 4

    @property
    def input_text(self) -> str:
        """The input's type in ONNX's text form."""
        height, width = ("h", "w") if self.open_size else (self.height, self.width)
        picture = f"3,{height},{width}" if self.layout == "nchw" else f"{height},{width},3"
        return f"{'float' if self.dtype == 'float32' else 'uint8'}[{self.batch or 'batch'},{picture}]"

    @property
    def rows(self) -> int:
        """Rows of the output."""
        return 4 + len(self.labels)


def oracle_detector(form: Form | None = None, *, fail_above: float | None = None) -> ModelProto:
    """A detector whose box 0 tells the middle pixel (r, g, b in 0 to 1); its other boxes are zero.

    The box is centred at (r * width, g * height) and a quarter of the picture wide and high; the class nearest to
    b * (classes - 1) has the score 0.95. With `fail_above` a batch fails in which any frame has r above it.
    """
    form = form or Form()
    count = len(form.labels)
    guard, guard_values = "whole = Identity (row)", ""
    if fail_above is not None:
        guard_values = f", float fail_above = {{{fail_above}}}, float[1] table = {{1}}"
        # The index is 1 where the batch shall fail, and the table has one entry.
        guard = """
            peak = ReduceMax <keepdims = 0> (r)
            hot = Greater (peak, fail_above)
            index = Cast <to = 7> (hot)
            one = Gather (table, index)
            whole = Mul (row, one)"""
    text = f"""
        <ir_version: 9, opset_import: ["" : 17]>
        oracle ({form.input_text} images) => (float[{form.batch or "batch"},{form.rows},{form.boxes}] output0)
        <
            float unit = {{{1 if form.dtype == "float32" else 1 / 255}}},
            int64[2] middle = {{{form.height // 2}, {form.width // 2}}},
            int64[2] after = {{{form.height // 2 + 1}, {form.width // 2 + 1}}},
            int64[2] axes = {{2, 3}},
            int64[3] flat = {{0, 3, 1}},
            int64[3] ones = {{1, 1, 1}},
            float width = {{{form.width}}},
            float height = {{{form.height}}},
            float zero = {{0}},
            float quarter_width = {{{form.width / 4}}},
            float quarter_height = {{{form.height / 4}}},
            float last = {{{count - 1}}},
            float[1,{count},1] ids = {{{", ".join(map(str, range(count)))}}},
            float score = {{{ORACLE_SCORE}}},
            float[1,1,{form.boxes}] mask = {{{", ".join(["1"] + ["0"] * (form.boxes - 1))}}}
            {guard_values}
        >
        {{
            real = Cast <to = 1> (images)
            scaled = Mul (real, unit)
            planes = {"Identity" if form.layout == "nchw" else "Transpose <perm = [0, 3, 1, 2]>"} (scaled)
            pixel = Slice (planes, middle, after, axes)
            column = Reshape (pixel, flat)
            r, g, b = Split <axis = 1> (column, ones)
            cx = Mul (r, width)
            cy = Mul (g, height)
            nothing = Mul (r, zero)
            w = Add (nothing, quarter_width)
            h = Add (nothing, quarter_height)
            place = Mul (b, last)
            gap = Sub (place, ids)
            distance = Abs (gap)
            raw = Sub (score, distance)
            scores = Max (raw, zero)
            row = Concat <axis = 1> (cx, cy, w, h, scores)
            {guard}
            output0 = Mul (whole, mask)
        }}
    """
    return with_metadata(onnx.parser.parse_model(text), form)


def failing_detector(form: Form | None = None, *, always: bool = False) -> ModelProto:
    """The oracle, but a batch with a red frame (middle r above 0.9) fails; with `always` every batch does."""
    return oracle_detector(form, fail_above=-1.0 if always else RED_THAT_FAILS)


def null_detector(form: Form | None = None) -> ModelProto:
    """A detector that finds nothing and costs next to nothing."""
    form = form or Form()
    text = f"""
        <ir_version: 9, opset_import: ["" : 17]>
        nothing ({form.input_text} images) => (float[{form.batch or "batch"},{form.rows},{form.boxes}] output0)
        <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[2] tail = {{{form.rows}, {form.boxes}}}, float none = {{0}}>
        {{
            whole = Shape (images)
            batch = Slice (whole, zero, one)
            shape = Concat <axis = 0> (batch, tail)
            output0 = Expand (none, shape)
        }}
    """
    return with_metadata(onnx.parser.parse_model(text), form)


def convolving_detector(
    form: Form | None = None, *, channels: tuple[int, ...] = (16, 32, 64, 96), seed: int = 1
) -> ModelProto:
    """A detector that computes like a real one, with random weights: what it finds means nothing."""
    form = form or Form(width=128, height=96)
    random = np.random.default_rng(seed)
    nodes, weights, last, depth = [], [], "images", 3
    for index, width in enumerate((*channels, form.rows)):
        head = index == len(channels)
        kernel, stride, pad = (1, 1, 0) if head else (3, 2, 1)
        weight = random.normal(0, (2 / (depth * kernel**2)) ** 0.5, (width, depth, kernel, kernel)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], strides=[stride] * 2, pads=[pad] * 4))
        nodes.append(helper.make_node("Sigmoid" if head else "Relu", [f"c{index}"], [f"a{index}"]))
        last, depth = f"a{index}", width
    weights.append(numpy_helper.from_array(np.array([0, form.rows, -1], np.int64), "shape"))
    nodes.append(helper.make_node("Reshape", [last, "shape"], ["output0"]))
    graph = helper.make_graph(
        nodes,
        "convolving",
        [
            helper.make_tensor_value_info(
                "images", TensorProto.FLOAT, [form.batch or "batch", 3, form.height, form.width]
            )
        ],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [form.batch or "batch", form.rows, "boxes"])],
        weights,
    )
    return with_metadata(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), form)


def with_metadata(model: ModelProto, form: Form, **changes: str | None) -> ModelProto:
    """Put Ultralytics metadata into the model; a change to None leaves that key out."""
    metadata: dict[str, str | None] = {
        "description": "Tiny detector of the tests",
        "task": "detect",
        "stride": "32",
        "batch": str(form.batch or 1),
        "imgsz": str([form.height, form.width]),
        "names": str(dict(enumerate(form.labels))),
        "channels": "3",
    }
    helper.set_model_props(model, {key: value for key, value in (metadata | changes).items() if value is not None})
    return model


def save_model(models: Path, name: str, model: ModelProto) -> Path:
    """Put a model where the repository looks for it: `models`/`name`/model.onnx."""
    folder = models / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def oracle_box(pixel: tuple[float, float, float], form: Form | None = None) -> np.ndarray:
    """Box 0 of the oracle for a middle pixel (r, g, b in 0 to 1): cx, cy, w, h, then a score a class, float32."""
    form = form or Form()
    red, green, blue = pixel
    gaps = np.abs(blue * (len(form.labels) - 1) - np.arange(len(form.labels)))
    box = [red * form.width, green * form.height, form.width / 4, form.height / 4]
    return np.array([*box, *np.maximum(ORACLE_SCORE - gaps, 0)], np.float32)
