"""The outputs of a model, the head that reads one of them, and the labels; part of `merge`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from headworks_server.engine.base import Activation, HeadName, OutputSpec, TensorSpec
from headworks_server.engine.repository import TensorFacts
from headworks_server.models import heads
from headworks_server.models.inputs import known
from headworks_server.models.layers import Layers
from headworks_server.models.values import GRAPH, METADATA, Value

TENSOR_TYPES: Final = {
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float": "float32",
    "float16": "float16",
    "double": "float64",
    "bool": "bool",
}
SCORE_TYPES: Final = ("float32", "float16")
YOLO: Final = ("yolov5", "yolov8", "yolox", "yolo_end2end")
# What the makers of a family feed their networks; the colour and the range are asked for all the same.
FAMILIES: Final[dict[HeadName, dict[str, Any]]] = {
    "yolov5": {"preprocess.resize": "letterbox"},
    "yolov8": {"preprocess.resize": "letterbox"},
    "yolox": {"preprocess.resize": "letterbox", "preprocess.anchor": "top_left", "preprocess.rounding": "floor"},
    "yolo_end2end": {"preprocess.resize": "letterbox", "output.boxes": "xyxy"},
    # Classes are limited by top_k: the setting is of boxes, and would hide the best class of a doubtful picture.
    "classification": {"postprocess.score_threshold": 0.0},
}
# The operator that ends a graph tells what its scores still need.
ACTIVATIONS: Final[dict[str, Activation]] = {
    "Softmax": "none",
    "Sigmoid": "none",
    "HardSigmoid": "none",
    "LogSoftmax": "softmax",
}


def merge_output(layers: Layers, fixed_batch: int | None) -> tuple[OutputSpec, tuple[str, ...]]:
    """The outputs with their head, and the labels."""
    if not layers.file.outputs:
        layers.refuse("at least one output", "none")
    batch_axis = _batch_axis(layers, fixed_batch)
    tensors = tuple(_tensor(layers, facts, batch_axis) for facts in layers.file.outputs)
    told = layers.find("labels")
    head, index = _head(layers, tensors, len(told.value) if told else 0)
    tensor = tensors[index]
    if head != "raw" and tensor.dtype not in SCORE_TYPES:
        layers.refuse(f"output {tensor.name!r} of float or float16 for the head {head}", tensor.dtype)
    layers.family = FAMILIES.get(head, {})
    layers.metadata.layer.update(layers.metadata.of_head.get(head, {}))
    labels = _labels(layers, told, head, tensor)
    for key, of in (("boxes", YOLO), ("normalized", YOLO), ("activation", ("classification",))):
        if f"output.{key}" in layers.stated and head not in of:
            layers.contradict(f"output.{key}", layers.stated[f"output.{key}"], f"the head {head}, which has none")
    spec = OutputSpec(
        head=head,
        tensors=tuple(
            replace(each, shape=heads.settle(head, each.shape, len(labels))) if each is tensor else each
            for each in tensors
        ),
        index=index,
        boxes=layers.say("output.boxes", default="cxcywh") if head in YOLO else "cxcywh",
        normalized=layers.say("output.normalized", default=False) if head in YOLO else False,
        activation=_activation(layers, tensor.name) if head == "classification" else "none",
        batch_axis=batch_axis,
    )
    return spec, labels


def _batch_axis(layers: Layers, fixed_batch: int | None) -> bool:
    """Whether axis 0 of every output is the batch, as it must be. What a run then yields is checked by the engine."""
    told = layers.find("output.batch_axis")
    if told is not None and not told.value:
        if fixed_batch != 1:
            layers.contradict("output.batch_axis", told, f"a batch of {fixed_batch or 'any size'} in the graph")
        layers.put("output.batch_axis", told)
        return False
    for facts in layers.file.outputs:
        axis = known(facts.shape[0]) if facts.shape else None
        # Editing an input's batch often leaves a 1 behind in the shape that an output declares.
        if axis in (None, fixed_batch) or (fixed_batch is None and axis == 1):
            continue
        if fixed_batch == 1 and told is None:
            text = f"output {facts} has no axis of 1 for the batch; false serves the outputs as they are"
            layers.question("output.batch_axis", text, False)
            return False
        layers.refuse(f"output {facts.name!r} with the batch of {fixed_batch or 'any size'} as axis 0", str(facts))
    layers.put("output.batch_axis", told or Value(True, GRAPH))
    return True


def _tensor(layers: Layers, facts: TensorFacts, batch_axis: bool) -> TensorSpec:
    dtype = TENSOR_TYPES.get(facts.dtype)
    if dtype is None:
        layers.refuse(f"output {facts.name!r} of numbers", facts.dtype)
    # ONNX Runtime tells no axes both where there are none and where none are known.
    shape = tuple(map(known, facts.shape[1 if batch_axis else 0 :])) if facts.shape else None
    return TensorSpec(name=facts.name, dtype=dtype, shape=shape)


def _head(layers: Layers, tensors: tuple[TensorSpec, ...], classes: int) -> tuple[HeadName, int]:
    """The head, and the index of the output that it reads."""
    told, name = layers.stated.get("output.head"), layers.stated.get("output.name")
    indices = [index for index, tensor in enumerate(tensors) if name is None or tensor.name == name.value]
    if name is not None:
        if not indices:
            layers.contradict("output.name", name, f"outputs {', '.join(tensor.name for tensor in tensors)}")
        layers.put("output.name", name)
    if told is not None and told.value == "raw":
        return layers.put("output.head", told), indices[0]
    possible: tuple[HeadName, ...] = (told.value,) if told else layers.metadata.heads or ()
    if told is None and layers.metadata.heads is None and classes:
        possible = tuple(heads.HEADS)  # with the labels known, a shape may leave only one
    pairs = [(head, index) for head in possible for index in indices]
    marks = [heads.fits(head, tensors[index].shape, classes) for head, index in pairs]
    found = [pair for pair, mark in zip(pairs, marks, strict=True) if mark and mark == max(marks)]
    if len(found) != 1:
        return _ask_head(layers, tensors, indices, found=found, possible=possible, classes=classes)
    head, index = found[0]
    layers.put("output.head", told or Value(head, METADATA if layers.metadata.heads else f"{GRAPH} and labels"))
    if len(tensors) > 1 and name is None:
        layers.put("output.name", Value(tensors[index].name, GRAPH))
    return head, index


def _ask_head(
    layers: Layers,
    tensors: tuple[TensorSpec, ...],
    indices: list[int],
    *,
    found: list[tuple[HeadName, int]],
    possible: tuple[HeadName, ...],
    classes: int,
) -> tuple[HeadName, int]:
    """Nothing fits, or too much does. Returns the answer that is proposed, so that what it needs is asked for too."""
    shapes = " and ".join(_shape(tensors[index]) for index in indices)
    told = layers.stated.get("output.head")
    if not found and (told is not None or layers.metadata.heads):
        head = possible[0]
        by = f" that {told.origin} states" if told else ""
        layers.refuse(f"an output of {heads.HEADS[head].form(classes)} for each frame, for the head {head}{by}", shapes)
    names = list(dict.fromkeys(head for head, _ in found))
    if len(names) == 1:
        outputs = [tensors[index].name for _, index in found]
        layers.question("output.name", f"could be {' or '.join(outputs)}: the head reads one", outputs[0])
        return found[0]
    if not found and layers.metadata.heads is None and not classes:
        names = list(heads.plausible(tensors[indices[0]].shape))
    if names:
        text = f"could be {' or '.join([*names, 'raw'])}: the output is {shapes}; say which"
    elif layers.metadata.heads == ():
        text = f"the metadata say task {layers.metadata.task!r}, for which there is no head; raw gives the tensors"
    else:
        those = f" with {classes} label{'s' * (classes > 1)}" if classes else ""
        text = f"no head reads an output of {shapes}{those}; raw gives the tensors"
    proposal, *others = [*names, "raw"]
    layers.question("output.head", text, proposal, f"or {' or '.join(others)}" if others else "")
    return proposal, found[0][1] if found else indices[0]


def _labels(layers: Layers, told: Value | None, head: HeadName, tensor: TensorSpec) -> tuple[str, ...]:
    if told is None and head == "raw":
        return ()
    if told is None and (room := heads.class_count(head, tensor.shape)):
        told = Value(tuple(f"class-{number}" for number in range(room)), f"{GRAPH}, numbered")
    if told is None:
        text = f"are told nowhere, and the output of {_shape(tensor)} does not tell how many there are"
        layers.question("labels", text, ["first class", "second class"], "or a file with a name in each line")
        return ()
    labels: tuple[str, ...] = layers.put("labels", told)
    return labels


def _activation(layers: Layers, output: str) -> Activation:
    told = layers.find("output.activation")
    maker = layers.file.graph.makers.get(output, "")
    if told is None and maker in ACTIVATIONS:
        told = Value(ACTIVATIONS[maker], f"{GRAPH}, ends in {maker}")
    if told is None:
        text = f"expected softmax, sigmoid or none: the graph ends in {maker or 'no known operator'}"
        layers.question("output.activation", text, "softmax", "or sigmoid, or none where the graph has done it")
        return "none"
    activation: Activation = layers.put("output.activation", told)
    return activation


def _shape(tensor: TensorSpec) -> str:
    if tensor.shape is None:
        return "unknown shape"
    return "[" + ", ".join("?" if axis is None else str(axis) for axis in tensor.shape) + "]"
