"""A detector of some 20 MB, for the benchmarks that load and unload models: it computes like a real one, and finds
nothing that means anything.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LABELS = ("player", "referee", "ball")
CHANNELS = (32, 64, 128, 256, 512, 832)
WIDTH, HEIGHT = 320, 192


def save_detector(
    path: Path,
    *,
    channels: tuple[int, ...] = CHANNELS,
    width: int = WIDTH,
    height: int = HEIGHT,
    batch: int | None = None,
) -> None:
    """Write a detector of convolutions, in the layout and with the metadata of Ultralytics; the same bytes each time.

    Arguments:
        path: of the file, in a folder that need not be there.
        channels: of the convolutions, each of which halves the picture.
        width: of its input.
        height: of its input.
        batch: fixed in the graph; None leaves it open.
    """
    random = np.random.default_rng(1)
    rows = 4 + len(LABELS)
    nodes, weights, last, depth = [], [], "images", 3
    for index, count in enumerate((*channels, rows)):
        head = index == len(channels)
        kernel, stride, pad = (1, 1, 0) if head else (3, 2, 1)
        weight = random.normal(0, (2 / (depth * kernel**2)) ** 0.5, (count, depth, kernel, kernel))
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"w{index}"))
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], strides=[stride] * 2, pads=[pad] * 4))
        nodes.append(helper.make_node("Sigmoid" if head else "Relu", [f"c{index}"], [f"a{index}"]))
        last, depth = f"a{index}", count
    weights.append(numpy_helper.from_array(np.array([0, rows, -1], np.int64), "shape"))
    nodes.append(helper.make_node("Reshape", [last, "shape"], ["output0"]))
    axis = batch or "batch"
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, [axis, 3, height, width])
    found = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [axis, rows, "boxes"])
    graph = helper.make_graph(nodes, "detector", [given], [found], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    metadata = {"task": "detect", "stride": "32", "batch": str(batch or 1), "imgsz": str([height, width])}
    helper.set_model_props(model, metadata | {"names": str(dict(enumerate(LABELS)))})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


def save_variant(path: Path, target: Path, mark: str) -> None:
    """Write the same model with another digest: a mark in its metadata. Nothing that was kept of the one fits it."""
    model = onnx.load(str(path))
    entry = model.metadata_props.add()
    entry.key, entry.value = "mark", mark
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(target))
