"""What exporters write into an ONNX file, read as a layer of the model's description: nobody is asked for it again.

Four kinds of writers are known: Ultralytics (a task and much else), YOLOv5 (names and stride), OpenVINO's Model API
(keys that begin with `model_info`) and timm or Hugging Face (a configuration as JSON, or its keys one by one). An entry
that cannot be read is a fault, and only told where model.toml does not say it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from headworks_server.engine.base import HeadName
from headworks_server.models.description import MAX_LABELS, MAX_SIDE
from headworks_server.models.values import METADATA, Value

_MAX_TEXT: Final = 1 << 20  # metadata are read from files of strangers
_LETTERBOX: Final = {"resize": "letterbox", "anchor": "center", "rounding": "round", "pad_value": 114}
# resize_type of the Model API: `crop` cuts to the input's aspect, then scales: the same picture as `fit_shorter`.
_MODEL_API_RESIZE: Final[dict[str, dict[str, Any]]] = {
    "standard": {"resize": "stretch"},
    "crop": {"resize": "fit_shorter"},
    "fit_to_window": {"resize": "letterbox", "anchor": "top_left"},
    "fit_to_window_letterbox": {"resize": "letterbox", "anchor": "center"},
}
_PILLOW: Final = {0: "nearest", 2: "bilinear", 3: "bicubic"}


@dataclass(slots=True)
class Metadata:
    """What the metadata say.

    Attributes:
        layer: values by key of model.toml.
        of_head: values that hold where the model turns out to have that head.
        heads: the heads that the exporter's words leave possible; None where they say nothing of it.
        task: the exporter's word for what the model does.
        stride: the largest step of the network's grids, in pixels, where it is told.
        faults: by key of model.toml, what is wrong with the entry that should say it.
    """

    layer: dict[str, Value] = field(default_factory=dict)
    of_head: dict[HeadName, dict[str, Value]] = field(default_factory=dict)
    heads: tuple[HeadName, ...] | None = None
    task: str = ""
    stride: int | None = None
    faults: dict[str, str] = field(default_factory=dict)

    def put(self, key: str, read: Callable[[], Any]) -> None:
        """Take in one entry, or the fault with which it is read; None is not there."""
        try:
            value = read()
        except _FaultError as fault:
            self.faults[key] = str(fault)
            return
        if value is not None:
            self.layer[key] = Value(value, METADATA)


class _FaultError(Exception):
    """An entry cannot be read."""


def read_metadata(entries: Mapping[str, str]) -> Metadata:
    """Read the custom metadata of an ONNX file, whoever wrote them."""
    found = Metadata()
    if "task" in entries and "stride" in entries:
        _ultralytics(found, entries)
    elif "names" in entries and "stride" in entries:
        _yolov5(found, entries)
    _model_api(found, {key.split()[-1]: text for key, text in entries.items() if key.split()[:1] == ["model_info"]})
    _classifier(found, entries)
    return found


def _ultralytics(found: Metadata, entries: Mapping[str, str]) -> None:
    found.task = entries["task"]
    found.put("labels", lambda: _names(entries, "names"))
    found.put("input.size", lambda: _imgsz(entries))
    found.put("input.color", lambda: _color(entries))
    values: dict[str, Any] = {"input.layout": "nchw", "preprocess.scale": 1 / 255}
    if found.task == "classify":
        found.heads = ("classification",)
        # The graph ends in a softmax; pictures are fitted by Pillow.
        values |= {"output.activation": "none", "preprocess.resize": "fit_shorter", "preprocess.antialias": True}
        values |= {"preprocess.mean": (0.0,) * 3, "preprocess.std": (1.0,) * 3}
    else:
        values |= {f"preprocess.{key}": value for key, value in _LETTERBOX.items()}
        found.heads = _detectors(entries) if found.task == "detect" else ()
    found.layer |= {key: Value(value, METADATA) for key, value in values.items()}
    found.stride = _stride(entries)


def _detectors(entries: Mapping[str, str]) -> tuple[HeadName, ...]:
    if "'nms': True" in entries.get("args", ""):
        return ("yolo_end2end",)
    told: dict[str, tuple[HeadName, ...]] = {"true": ("yolo_end2end",), "false": ("yolov8",)}
    return told.get(entries.get("end2end", "").lower(), ("yolov8", "yolo_end2end"))


def _yolov5(found: Metadata, entries: Mapping[str, str]) -> None:
    """Its exporter writes no more for a classifier or with masks; those have other outputs, and are asked for."""
    found.put("labels", lambda: _names(entries, "names"))
    found.stride = _stride(entries)
    found.heads = ("yolov5",)
    values = {"input.color": "rgb", "preprocess.scale": 1 / 255}
    values |= {f"preprocess.{key}": value for key, value in _LETTERBOX.items()}
    found.of_head["yolov5"] = {key: Value(value, METADATA) for key, value in values.items()}


def _model_api(found: Metadata, entries: Mapping[str, str]) -> None:
    """`reverse_input_channels` is left alone: it is relative to what a program feeds, so the colour is asked for."""
    if not entries:
        return
    found.put("labels", lambda: tuple(entries["labels"].split()) or None if "labels" in entries else None)
    for key, name in (("mean", "mean_values"), ("std", "scale_values")):
        found.put(f"preprocess.{key}", lambda name=name: _numbers(entries, name))  # type: ignore[misc]
    if {"mean_values", "scale_values"} & entries.keys():
        found.layer["preprocess.scale"] = Value(1.0, METADATA)  # means and scales are of pixels from 0 to 255
    for key, value in _MODEL_API_RESIZE.get(entries.get("resize_type", ""), {}).items():
        found.layer[f"preprocess.{key}"] = Value(value, METADATA)
    found.put("preprocess.pad_value", lambda: _whole(entries, "pad_value", 0, 255))
    found.put("postprocess.score_threshold", lambda: _share(entries, "confidence_threshold"))
    found.put("postprocess.iou_threshold", lambda: _share(entries, "iou_threshold"))
    found.task = found.task or entries.get("task_type", "")
    if entries.get("model_type") == "Classification":
        found.heads = ("classification",)


def _classifier(found: Metadata, entries: Mapping[str, str]) -> None:
    """timm's `pretrained_cfg` and the image processor's configuration of Hugging Face; both read RGB through Pillow."""
    config: dict[str, Any] = {}
    for key in ("pretrained_cfg", "preprocessor_config"):
        if key in entries:
            try:
                config |= _mapping(entries, key)
            except _FaultError as fault:
                found.faults["preprocess.mean"] = str(fault)
    for key in ("mean", "std", "interpolation", "crop_pct", "crop_mode", "label_names"):
        if key in entries:
            try:
                config[key] = _literal(entries, key)
            except _FaultError:
                config[key] = entries[key]  # a bare word
    mean, std = config.get("mean", config.get("image_mean")), config.get("std", config.get("image_std"))
    if not isinstance(mean, Sequence) or not isinstance(std, Sequence) or not _are_norms(mean, std):
        return
    values: dict[str, Any] = {"input.color": "rgb", "preprocess.antialias": True}
    values |= {"preprocess.mean": tuple(map(float, mean)), "preprocess.std": tuple(map(float, std))}
    values["preprocess.scale"] = _number(config.get("rescale_factor"), 1 / 255)
    values |= _fitting(config)
    names = config.get("label_names")
    if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
        values["labels"] = tuple(names)
    found.layer |= {key: Value(value, METADATA) for key, value in values.items() if value is not None}


def _fitting(config: Mapping[str, Any]) -> dict[str, Any]:
    interpolation = config.get("interpolation", _PILLOW.get(config.get("resample", -1)))
    values: dict[str, Any] = {
        "preprocess.interpolation": interpolation if interpolation in ("bilinear", "bicubic", "nearest") else None
    }
    share = _number(config.get("crop_pct"), 0.0)
    short = config.get("size", {}).get("shortest_edge") if isinstance(config.get("size"), Mapping) else None
    crop = config.get("crop_size")
    if isinstance(crop, Mapping) and short and config.get("do_center_crop", True):
        share = _number(crop.get("height"), 0.0) / short
    if 0 < share <= 1 and config.get("crop_mode", "center") == "center":
        values |= {"preprocess.resize": "center_crop", "preprocess.crop_pct": share}
    elif config.get("crop_mode") == "squash" or ("image_mean" in config and short is None):
        values["preprocess.resize"] = "stretch"
    return values


def _names(entries: Mapping[str, str], key: str) -> tuple[str, ...] | None:
    """The labels by class id, from a list or from a mapping of ids 0, 1, 2, ..."""
    if key not in entries:
        return None
    names = _literal(entries, key)
    if isinstance(names, Mapping) and sorted(map(str, names)) == sorted(map(str, range(len(names)))):
        by_id = {int(number): name for number, name in names.items()}
        names = [by_id[index] for index in range(len(by_id))]
    if (
        not isinstance(names, (list, tuple))
        or not 1 <= len(names) <= MAX_LABELS
        or not all(isinstance(name, str) for name in names)
    ):
        raise _FaultError(f"expected names for class ids from 0 on in the metadata, got {str(names)[:60]}")
    return tuple(names)


def _imgsz(entries: Mapping[str, str]) -> dict[str, int] | None:
    """Height and width; one number stands for both."""
    if "imgsz" not in entries:
        return None
    sides = _literal(entries, "imgsz")
    sides = [sides, sides] if isinstance(sides, int) else sides
    if isinstance(sides, (list, tuple)) and len(sides) == 2 and all(_is_whole(side, 1, MAX_SIDE) for side in sides):
        return {"width": sides[1], "height": sides[0]}
    raise _FaultError(f"expected imgsz as [height, width] in the metadata, got {str(sides)[:60]}")


def _color(entries: Mapping[str, str]) -> str:
    told = {"3": "rgb", "1": "gray"}.get(entries.get("channels", "3"))
    if told is None:
        raise _FaultError(f"expected 3 channels or 1 in the metadata, got {entries['channels'][:20]}")
    return told


def _stride(entries: Mapping[str, str]) -> int | None:
    try:
        stride = _literal(entries, "stride")
    except _FaultError:
        return None  # it only helps to check a size
    return stride if _is_whole(stride, 1, MAX_SIDE) else None


def _literal(entries: Mapping[str, str], key: str) -> Any:
    """Evaluate one entry as a Python literal, which is how most are written."""
    text = entries[key]
    if len(text) > _MAX_TEXT:
        raise _FaultError(f"expected at most {_MAX_TEXT:,} characters of {key} in the metadata, got {len(text):,}")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise _FaultError(f"expected {key} as a Python literal in the metadata, got {text[:60]!r}") from None


def _mapping(entries: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(entries[key][:_MAX_TEXT])
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _FaultError(f"expected {key} as a JSON object in the metadata, got {entries[key][:60]!r}")
    return value


def _numbers(entries: Mapping[str, str], key: str) -> tuple[float, float, float] | None:
    if key not in entries:
        return None
    try:
        numbers = tuple(float(part) for part in entries[key].replace(",", " ").strip(" []").split())
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3) or (key == "scale_values" and min(numbers) <= 0):
        raise _FaultError(f"expected {key} as one number or three in the metadata, got {entries[key][:60]!r}")
    return (numbers * 3)[:3]  # type: ignore[return-value]


def _share(entries: Mapping[str, str], key: str) -> float | None:
    if key not in entries:
        return None
    share = _number(entries[key], -1.0)
    if not 0 <= share <= 1:
        raise _FaultError(f"expected {key} from 0 to 1 in the metadata, got {entries[key][:60]!r}")
    return share


def _whole(entries: Mapping[str, str], key: str, low: int, high: int) -> int | None:
    if key not in entries:
        return None
    number = _number(entries[key], -1.0)
    if number != int(number) or not low <= number <= high:
        raise _FaultError(f"expected {key} from {low} to {high} in the metadata, got {entries[key][:60]!r}")
    return int(number)


def _number(value: object, otherwise: float) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return otherwise
    return number if abs(number) < 1e9 else otherwise  # an infinity or no number is nothing to calculate with


def _are_norms(mean: Sequence[object], std: Sequence[object]) -> bool:
    if len(mean) != 3 or len(std) != 3:
        return False
    return all(_number(part, 1e9) < 1e9 for part in mean) and all(_number(part, 0) > 0 for part in std)


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
