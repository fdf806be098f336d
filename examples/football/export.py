"""Writes trained networks as ONNX in the layouts of Ultralytics' exports.

`train.py` and `train_teams.py` call it. It owns the files' shape: input `images`, output `output0`, which
is (B, 4 + classes, N) of cx, cy, w, h in network-input pixels and sigmoided class scores from a detector
and (B, classes) after softmax from the classifier, batch norm folded into the convolutions, and the
metadata that a reader of such exports looks for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from dataset import CROP_HEIGHT, CROP_WIDTH
from detectors import CELL, Detector
from network import Layer, Table
from onnx import TensorProto, helper, numpy_helper
from shirts import SHIRT_CLASSES
from teams import Classifier

OPSET = 17


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

    def table(self, table: Table, scale: dict[str, np.ndarray], shift: dict[str, np.ndarray]) -> None:
        """Add every layer; outputs of those named in `scale` and `shift` are multiplied, then moved, per channel."""
        for layer in table.layers:
            if layer.kind == "conv":
                weight, bias = table.folded(layer)
                factor = scale.get(layer.name, np.ones(layer.channels))
                weight = weight * factor[:, None, None, None]
                bias = bias * factor + shift.get(layer.name, np.zeros(layer.channels))
                self._convolution(layer, weight.astype(np.float32), bias.astype(np.float32))
            elif layer.kind == "add":
                self.node("Add", list(layer.sources), layer.name)
            else:
                scales = self.constant(f"{layer.name}.scales", np.array([1, 1, 2, 2], np.float32))
                self.node("Resize", [layer.sources[0], "", scales], layer.name, mode="nearest",
                          nearest_mode="floor", coordinate_transformation_mode="asymmetric")  # fmt: skip

    def _convolution(self, layer: Layer, weight: np.ndarray, bias: np.ndarray) -> None:
        inputs = [layer.sources[0], self.constant(f"{layer.name}.weight", weight),
                  self.constant(f"{layer.name}.bias", bias)]  # fmt: skip
        output = f"{layer.name}.linear" if layer.relu else layer.name
        self.node("Conv", inputs, output, kernel_shape=[layer.kernel] * 2, strides=[layer.stride] * 2,
                  pads=[layer.padding] * 4, group=layer.groups)  # fmt: skip
        if layer.relu:
            self.node("Relu", [output], layer.name)


def export_detector(detector: Detector, path: Path, *, description: str) -> None:
    """Write `detector`, in its evaluation state, to `path`."""
    plan = detector.plan
    detector.eval()
    graph = Graph()
    # decode() scales the centre by the cell and the size by the prior: both fit into the head.
    scale = np.ones(plan.slots * plan.values)
    scale[: 2 * plan.slots] = CELL
    shift = np.zeros(plan.slots * plan.values)
    shift[: 4 * plan.slots] = np.repeat([0, 0, *np.log(plan.prior)], plan.slots)
    graph.table(detector.table, {"head": scale}, {"head": shift})
    centres = plan.grid(plan.height, plan.width).centres().numpy()
    shape = graph.constant("flat.shape", np.array([0, plan.values, centres.shape[-1]], np.int64))
    parts = graph.constant("split.sizes", np.array([2, 2, len(plan.names)], np.int64))
    graph.node("Reshape", ["head", shape], "flat")
    graph.nodes.append(helper.make_node("Split", ["flat", parts], ["offset", "log_size", "logits"], axis=1))
    graph.node("Add", ["offset", graph.constant("centres", centres.astype(np.float32))], "centre")
    graph.node("Exp", ["log_size"], "size")
    graph.node("Sigmoid", ["logits"], "scores")
    graph.node("Concat", ["centre", "size", "scores"], "output0", axis=1)
    metadata = _metadata("detect", description, plan.names, plan.height, plan.width) | {
        "stride": "16",
        "args": f"{{'batch': 1, 'half': False, 'dynamic': True, 'simplify': True, 'opset': {OPSET}, 'nms': False}}",
        "end2end": "False",
    }
    _save(graph, path, (plan.height, plan.width), [plan.values, centres.shape[-1]], metadata)


def export_classifier(classifier: Classifier, path: Path, *, description: str) -> None:
    """Write `classifier`, in its evaluation state, to `path`."""
    classifier.eval()
    graph = Graph()
    graph.table(classifier.table, {}, {})
    graph.node("Flatten", [classifier.table.layers[-1].name], "features")
    matrix = [graph.constant(f"matrix.{name}", value.detach().numpy())
              for name, value in classifier.matrix.named_parameters()]  # fmt: skip
    graph.node("Gemm", ["features", *matrix], "logits", transB=1)
    graph.node("Softmax", ["logits"], "output0", axis=1)
    metadata = _metadata("classify", description, SHIRT_CLASSES, CROP_HEIGHT, CROP_WIDTH) | {
        "stride": "1",
        "args": f"{{'batch': 1, 'half': False, 'dynamic': True, 'simplify': True, 'opset': {OPSET}}}",
    }
    _save(graph, path, (CROP_HEIGHT, CROP_WIDTH), [len(SHIRT_CLASSES)], metadata)


def _metadata(task: str, description: str, names: tuple[str, ...], height: int, width: int) -> dict[str, str]:
    return {
        "description": description,
        "author": "Headworks",
        "date": "2026-11-24",
        "version": "1.0.0",
        "license": "Apache-2.0",
        "docs": "examples/football/MODEL_CARD.md",
        "task": task,
        "batch": "1",
        "imgsz": f"[{height}, {width}]",
        "names": str(dict(enumerate(names))),
        "channels": "3",
    }


def _save(graph: Graph, path: Path, size: tuple[int, int], output: list[int], metadata: dict[str, str]) -> None:
    model = helper.make_model(
        helper.make_graph(graph.nodes, path.parent.name, [_tensor("images", ["batch", 3, *size])],
                          [_tensor("output0", ["batch", *output])], graph.weights),
        producer_name="headworks", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8,
    )  # fmt: skip
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def _tensor(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
