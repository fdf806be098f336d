"""Writes the trained detector as ONNX in the layout of Ultralytics' yolov8 exports.

`train.py` calls `export` at its end. It owns the file's shape: input `images`, output `output0`
(B, 7, N) of cx, cy, w, h in network-input pixels and sigmoided class scores, batch norm folded into
the convolutions, and the metadata that a reader of such exports looks for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from network import (
    CELL,
    CLASS_NAMES,
    INPUT_HEIGHT,
    INPUT_WIDTH,
    PRIOR_HEIGHT,
    PRIOR_WIDTH,
    SLOTS,
    VALUES,
    Detector,
    Layer,
)
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
METADATA = {
    "description": "Headworks football example: players, referees and ball, trained on rendered footage",
    "author": "Headworks",
    "date": "2026-11-24",
    "version": "1.0.0",
    "license": "Apache-2.0",
    "docs": "examples/football/MODEL_CARD.md",
    "stride": "16",
    "task": "detect",
    "batch": "1",
    "imgsz": f"[{INPUT_HEIGHT}, {INPUT_WIDTH}]",
    "names": str(dict(enumerate(CLASS_NAMES))),
    "args": "{'batch': 1, 'half': False, 'dynamic': True, 'simplify': True, 'opset': 17, 'nms': False}",
    "channels": "3",
    "end2end": "False",
}


class Graph:
    """Collects nodes and weights; the value of a layer carries the layer's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output


def export(detector: Detector, path: Path) -> None:
    """Write `detector`, in its evaluation state, to `path`."""
    detector.eval()
    graph = Graph()
    for layer in detector.layers:
        if layer.kind == "conv":
            _convolution(graph, layer, *folded_weights(detector, layer))
        elif layer.kind == "add":
            graph.node("Add", list(layer.sources), layer.name)
        else:
            scales = graph.constant(f"{layer.name}.scales", np.array([1, 1, 2, 2], np.float32))
            graph.node("Resize", [layer.sources[0], "", scales], layer.name, mode="nearest",
                       nearest_mode="floor", coordinate_transformation_mode="asymmetric")  # fmt: skip
    _decode(graph, detector.centres.numpy())
    model = helper.make_model(
        helper.make_graph(graph.nodes, "players", [_tensor("images", ["batch", 3, INPUT_HEIGHT, INPUT_WIDTH])],
                          [_tensor("output0", ["batch", VALUES, detector.centres.shape[-1]])], graph.weights),
        producer_name="headworks", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8,
    )  # fmt: skip
    helper.set_model_props(model, METADATA)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def folded_weights(detector: Detector, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Return weight (out, in / groups, k, k) and bias (out,) with batch norm multiplied in."""
    block = detector.blocks[layer.name]
    weight = block[0].weight.detach().double().numpy()
    if layer.name == "head":
        bias = block[0].bias.detach().double().numpy().copy()
        # decode() scales the centre by the cell and the size by the prior: both fit into the head.
        scale = np.ones(SLOTS * VALUES)
        scale[: 2 * SLOTS] = CELL
        shift = np.repeat([0, 0, np.log(PRIOR_WIDTH), np.log(PRIOR_HEIGHT)], SLOTS)
        bias *= scale
        bias[: 4 * SLOTS] += shift
    else:
        norm = block[1]
        scale = (norm.weight / torch_sqrt(norm)).detach().double().numpy()
        bias = (norm.bias - norm.running_mean * norm.weight / torch_sqrt(norm)).detach().double().numpy()
    return (weight * scale[:, None, None, None]).astype(np.float32), bias.astype(np.float32)


def torch_sqrt(norm: Any) -> Any:
    """Return the standard deviation (channels,) that a batch norm divides by."""
    return (norm.running_var.double() + norm.eps).sqrt()


def _convolution(graph: Graph, layer: Layer, weight: np.ndarray, bias: np.ndarray) -> None:
    inputs = [layer.sources[0], graph.constant(f"{layer.name}.weight", weight),
              graph.constant(f"{layer.name}.bias", bias)]  # fmt: skip
    output = f"{layer.name}.linear" if layer.relu else layer.name
    graph.node("Conv", inputs, output, kernel_shape=[layer.kernel] * 2, strides=[layer.stride] * 2,
               pads=[layer.padding] * 4, group=layer.groups)  # fmt: skip
    if layer.relu:
        graph.node("Relu", [output], layer.name)


def _decode(graph: Graph, centres: np.ndarray) -> None:
    """Turn the head (B, SLOTS * 7, 28, 48) into output0 (B, 7, N)."""
    shape = graph.constant("flat.shape", np.array([0, VALUES, centres.shape[-1]], np.int64))
    parts = graph.constant("split.sizes", np.array([2, 2, len(CLASS_NAMES)], np.int64))
    graph.node("Reshape", ["head", shape], "flat")
    graph.nodes.append(helper.make_node("Split", ["flat", parts], ["offset", "log_size", "logits"], axis=1))
    graph.node("Add", ["offset", graph.constant("centres", centres.astype(np.float32))], "centre")
    graph.node("Exp", ["log_size"], "size")
    graph.node("Sigmoid", ["logits"], "scores")
    graph.node("Concat", ["centre", "size", "scores"], "output0", axis=1)


def _tensor(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
