"""Models as people bring them: every type, layout and batch, several outputs, quantized ones, noisy and broken ones.

What they compute is simple and checkable: each output of a frame repeats the mean of that frame's input values, unless
a maker says otherwise. `support.models` has the detectors whose boxes mean something.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime import quantization

Dims = tuple[int | str, ...]
OPSET = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
PICTURE: Dims = ("batch", 3, 48, 64)


def zoo_model(
    outputs: Mapping[str, tuple[str, Dims]],
    *,
    shape: Dims = PICTURE,
    dtype: str = "float",
    ends: str = "Identity",
    metadata: Mapping[str, str] | None = None,
) -> ModelProto:
    """A model with these outputs, each (type, shape); types are named as ONNX Runtime does.

    An output whose first axis is the input's gets a row for each frame; any other repeats the mean of the whole batch.
    `ends` is the operator before the cast that ends each output: `Softmax`, `Sigmoid`, ...
    """
    nodes = [helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT)]
    weights = []
    for name, (kind, dims) in outputs.items():
        batched = len(dims) > 0 and dims[0] == shape[0]
        rest = [axis if isinstance(axis, int) else 4 for axis in (dims[1:] if batched else dims)]
        weights += [
            numpy_helper.from_array(
                np.array([-1] + [1] * len(rest) if batched else [1] * len(rest), np.int64), f"{name}_one"
            ),
            numpy_helper.from_array(np.array([1, *rest] if batched else rest, np.int64), f"{name}_all"),
        ]
        nodes += [
            helper.make_node("ReduceMean", ["real"], [f"{name}_mean"], axes=[1, 2, 3] if batched else [0, 1, 2, 3]),
            helper.make_node("Reshape", [f"{name}_mean", f"{name}_one"], [f"{name}_flat"]),
            helper.make_node("Expand", [f"{name}_flat", f"{name}_all"], [f"{name}_wide"]),
            helper.make_node(ends, [f"{name}_wide"], [f"{name}_end"]),
            helper.make_node("Cast", [f"{name}_end"], [name], to=_element(kind)),
        ]
    graph = helper.make_graph(
        nodes,
        "zoo",
        [helper.make_tensor_value_info("images", _element(dtype), shape)],
        [helper.make_tensor_value_info(name, _element(kind), dims) for name, (kind, dims) in outputs.items()],
        weights,
    )
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=9)
    helper.set_model_props(model, dict(metadata or {}))
    return model


def text_model(text: str, **metadata: str) -> ModelProto:
    """A model in ONNX's text form, from its signature on."""
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> zoo {text}')
    helper.set_model_props(model, metadata)
    return model


def ultralytics(task: str = "detect", *, labels: tuple[str, ...] = ("a", "b", "c"), **changes: str) -> dict[str, str]:
    """Metadata as Ultralytics writes them, for a picture of 64x48."""
    names = str(dict(enumerate(labels)))
    return {"task": task, "names": names, "imgsz": "[48, 64]", "stride": "16", "batch": "1", "channels": "3"} | changes


def bright_pixels(*, batch: int | str = 1) -> ModelProto:
    """Output [n, 4] without a batch axis: where the input is above one half. Its length is known only after a run."""
    return text_model(
        f"(float[{batch},3,48,64] images) => (int64[n,4] pixels) <float half = {{0.5}}> {{"
        " bright = Greater(images, half) places = NonZero(bright) pixels = Transpose<perm=[1,0]>(places) }"
    )


def boxes_after_nms() -> ModelProto:
    """Output [1, n, 6]: a row for each bright pixel, as an NMS in the graph leaves boxes; a fixed batch of 1."""
    return text_model(
        "(float[1,3,48,64] images) => (float[1,n,6] output0)"
        " <float half = {0.5}, int64[1] zero = {0}, int64[1] two = {2}, int64[1] one = {1}> {"
        " bright = Greater(images, half) places = NonZero(bright) rows = Transpose<perm=[1,0]>(places)"
        " reals = Cast<to=1>(rows) pair = Slice(reals, zero, two, one) six = Concat<axis=1>(reals, pair)"
        " output0 = Unsqueeze(six, zero) }",
        **ultralytics(end2end="True"),
    )


def failing_above(size: int) -> ModelProto:
    """A `yolov8` detector of three classes that fails in batches of more than `size` frames."""
    table = ", ".join(["1"] * size)
    return text_model(
        f"(float[batch,3,48,64] images) => (float[batch,7,4] output0) <float[{size}] table = {{{table}}},"
        " int64 one = {1}, int64[1] first = {0}, int64[1] second = {1}, int64[3] flat = {-1, 1, 1},"
        " int64[3] all = {1, 7, 4}> {"
        " whole = Shape(images) batch = Slice(whole, first, second) index = Sub(batch, one)"
        " token = Gather(table, index)"
        " mean = ReduceMean<axes=[1,2,3]>(images) column = Reshape(mean, flat) wide = Expand(column, all)"
        " output0 = Mul(wide, token) }",
        **ultralytics(),
    )


def not_following() -> ModelProto:
    """A detector whose output gathers all frames of a batch in one row, though it declares a batch."""
    return text_model(
        "(float[batch,3,48,64] images) => (float[batch,7,n] output0) <int64[3] flat = {1, 7, -1},"
        " int64[3] all = {1, 7, 4},"
        " int64[3] column = {-1, 1, 1}> {"
        " mean = ReduceMean<axes=[1,2,3]>(images) rows = Reshape(mean, column) wide = Expand(rows, all)"
        " output0 = Reshape(wide, flat) }",
        **ultralytics(),
    )


def noisy(model: ModelProto, count: int = 20) -> ModelProto:
    """The same model, for which ONNX Runtime prints a warning for each of `count` left-over weights."""
    for index in range(count):
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), f"unused{index}"))
    return model


def save_external(models: Path, name: str, model: ModelProto, *, location: str = "model.onnx.data") -> Path:
    """Save a model with its larger weights in a file beside it."""
    folder = models / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location=location, size_threshold=256)
    return path


def quantize(
    source: Path,
    target: Path,
    how: str,
    shape: tuple[int, ...],
    *,
    frames: Iterable[Any] = (),
    operators: Sequence[str] | None = None,
) -> None:
    """Quantize a file: `dynamic`, `qdq` (static), `operators` (static, with com.microsoft ones) or `uint8` (qdq, whose
    input takes pixels as they are).

    Inputs to calibrate with are white, which fixes the range from 0 to 1, and `frames`, or noise where there are none,
    each of that shape. `operators` are the only types of nodes to quantize.
    """
    white, noise = np.ones(shape, np.float32), np.random.default_rng(1).random(shape, np.float32)

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter([*(list(frames) or [noise]), white])

        def get_next(self) -> dict[str, Any]:
            frame = next(self._left, None)
            return None if frame is None else {"images": frame}  # type: ignore[return-value]

    with _quiet():
        if how == "dynamic":
            quantization.quantize_dynamic(source, target, weight_type=quantization.QuantType.QUInt8)
            return
        form = quantization.QuantFormat.QOperator if how == "operators" else quantization.QuantFormat.QDQ
        quantization.quantize_static(
            source,
            target,
            Reader(),
            quant_format=form,
            activation_type=quantization.QuantType.QUInt8,
            op_types_to_quantize=operators,
        )
    if how == "uint8":
        onnx.save(_bytes_in(onnx.load(target)), target)


def _bytes_in(model: ModelProto) -> ModelProto:
    """Take off the node that quantizes the input, so that whoever feeds the model does it."""
    (first,) = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "images"]
    for node in model.graph.node:
        node.input[:] = ["images" if name == first.output[0] else name for name in node.input]
    model.graph.node.remove(first)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer advises preparations that a tiny network does not need."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _element(kind: str) -> int:
    names = {"float": "FLOAT", "double": "DOUBLE"}
    return int(TensorProto.DataType.Value(names.get(kind, kind.upper())))
