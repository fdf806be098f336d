"""The input of a model and what a picture goes through on its way there; part of `merge`."""

from __future__ import annotations

from typing import Any, Final

from headworks_server.engine.base import Color, HeadName, InputSpec, Layout, PixelType, PreprocessSpec
from headworks_server.engine.repository import TensorFacts
from headworks_server.models.layers import Layers
from headworks_server.models.values import GRAPH, METADATA, Value

PIXEL_TYPES: Final[dict[str, PixelType]] = {"float": "float32", "float16": "float16", "uint8": "uint8"}
# Proposed, never assumed.
IMAGENET_MEAN: Final = [0.485, 0.456, 0.406]
IMAGENET_STD: Final = [0.229, 0.224, 0.225]


def find_input(layers: Layers) -> tuple[TensorFacts, int | None]:
    """The one input, and the batch that the graph fixes, or None."""
    inputs = layers.file.inputs
    if len(inputs) != 1:
        layers.refuse("one input, of pictures", " and ".join(map(str, inputs)) or "none")
    (tensor,) = inputs
    if len(tensor.shape) != 4:
        layers.refuse(f"input {tensor.name!r} with axes for batch, channels, height and width", str(tensor))
    return tensor, known(tensor.shape[0])


def merge_input(layers: Layers, tensor: TensorFacts) -> InputSpec:
    """The input; the head is known by now, since its family may tell the colour."""
    dtype = PIXEL_TYPES.get(tensor.dtype)
    if dtype is None:
        layers.refuse(f"input {tensor.name!r} of float, float16 or uint8", tensor.dtype)
    layers.fact("input.name", tensor.name)
    layers.fact("input.dtype", dtype)
    layout = _layout(layers, tensor)
    color = _color(layers, known(tensor.shape[1 if layout == "nchw" else 3]))
    width, height = _size(layers, tensor, layout)
    return InputSpec(name=tensor.name, dtype=dtype, layout=layout, color=color, width=width, height=height)


def _layout(layers: Layers, tensor: TensorFacts) -> Layout:
    planes, pixels = known(tensor.shape[1]), known(tensor.shape[3])
    possible: list[Layout] = []
    if planes in (1, 3) or (planes is None and pixels not in (1, 3)):
        possible.append("nchw")
    if pixels in (1, 3) or (pixels is None and planes not in (1, 3)):
        possible.append("nhwc")
    if not possible:
        layers.refuse(f"input {tensor.name!r} with 3 channels or 1, at axis 1 or axis 3", str(tensor))
    told = layers.stated.get("input.layout") if len(possible) == 1 else layers.find("input.layout")
    if told is not None and told.value not in possible:
        layers.contradict("input.layout", told, str(tensor))
    if told is None and len(possible) == 2:
        layers.question("input.layout", f"could be nchw or nhwc: the input is {tensor}", "nchw", "or nhwc")
        return "nchw"
    layout: Layout = layers.put("input.layout", told or Value(possible[0], GRAPH))
    return layout


def _size(layers: Layers, tensor: TensorFacts, layout: Layout) -> tuple[int, int]:
    height, width = map(known, tensor.shape[2:4] if layout == "nchw" else tensor.shape[1:3])
    told = layers.find("input.size")
    if told is None and (width is None or height is None):
        shown = {"width": width or 640, "height": height or 640}
        layers.question("input.size", f"is stated nowhere: the input is {tensor}", shown, "pixels")
        return shown["width"], shown["height"]
    if told is None or (width is not None and height is not None):
        fact = {"width": width, "height": height}
        if told is not None and told.value != fact:
            layers.contradict("input.size", told, str(tensor))
        told = Value(fact, GRAPH)
    elif width not in (None, told.value["width"]) or height not in (None, told.value["height"]):
        layers.contradict("input.size", told, str(tensor))
    elif (stride := _stride(layers, told)) and (told.value["width"] % stride or told.value["height"] % stride):
        layers.contradict("input.size", told, f"a stride of {stride} in the metadata")
    layers.put("input.size", told)
    return told.value["width"], told.value["height"]


def _stride(layers: Layers, told: Value) -> int | None:
    """The stride that a size has to be a multiple of; the exporter knew its own."""
    return None if told.origin == METADATA else layers.metadata.stride


def _color(layers: Layers, channels: int | None) -> Color:
    told = layers.find("input.color")
    if told is None and channels == 1:
        told = Value("gray", GRAPH)
    if told is None:
        layers.question("input.color", "expected the order of the channels, rgb or bgr", "rgb", "or bgr")
        return "rgb"
    if channels is not None and (channels == 1) != (told.value == "gray"):
        layers.contradict("input.color", told, f"{channels} channel{'s' * (channels > 1)} in the graph")
    color: Color = layers.put("input.color", told)
    return color


def merge_preprocess(layers: Layers, dtype: PixelType, head: HeadName) -> PreprocessSpec:
    """From source pixels to the input's values; `head` is asked for before, since families differ."""
    if dtype == "uint8":
        _take_bytes(layers)
    elif layers.find("preprocess.scale") is None:
        text = "expected the range: value = (pixel * scale - mean) / std, with pixels of 0 to 255"
        layers.question("preprocess.scale", text, "1/255", "or 1 for values up to 255")
    if layers.find("preprocess.resize") is None:
        text = "expected letterbox, stretch, center_crop or fit_shorter"
        usual = "center_crop" if head == "classification" else "stretch"
        layers.question("preprocess.resize", text, usual, "how a picture meets the input's size")
    if head == "classification" and dtype != "uint8":
        for key, usual_values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            if layers.find(f"preprocess.{key}") is None:
                text = f"expected the {key} of each channel, after the scale"
                layers.question(f"preprocess.{key}", text, usual_values, "0 and 1 where nothing is normalised")
    default = PreprocessSpec()
    values: dict[str, Any] = {
        key: layers.say(f"preprocess.{key}", default=getattr(default, key)) for key in PreprocessSpec.__slots__
    }
    return PreprocessSpec(**values)


def _take_bytes(layers: Layers) -> None:
    """A uint8 input takes pixels unchanged. The plain 1/255 of the model's float twin is in the graph then."""
    for key, plain in (("scale", 1.0), ("mean", (0.0,) * 3), ("std", (1.0,) * 3)):
        told = layers.find(f"preprocess.{key}")
        twin = key == "scale" and told is not None and abs(told.value - 1 / 255) < 1e-9
        if told is not None and told.value != plain and not twin:
            layers.contradict(f"preprocess.{key}", told, "a uint8 input, which takes pixels as they are")
        layers.put(f"preprocess.{key}", Value(plain, f"{GRAPH}, uint8"))


def known(axis: int | str | None) -> int | None:
    """An axis' length where the graph fixes it."""
    return axis if isinstance(axis, int) and axis > 0 else None
