"""What a detector's output means: labels and sizes from the exporter's metadata, and boxes from the output tensor.

`models` reads the metadata once when a model is loaded; a lane's thread calls `Yolov8Head.postprocess` for each frame.
The head serves the whole family whose output is [4 + classes, n] in network pixels (YOLOv8, 9, 11 and 12).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from headworks_native import nms
from headworks_server.errors import ModelError
from headworks_server.media.letterbox import Letterbox

_NEEDED: Final = "task, names, imgsz and stride, as Ultralytics writes them at export"
_BOX_ROWS: Final = 4  # centre x, centre y, width, height
# Metadata are read from files of strangers: bounds on what is parsed.
_MAX_TEXT: Final = 1 << 20
_MAX_SIDE: Final = 16_384


@dataclass(frozen=True, slots=True)
class DetectorMetadata:
    """What an exporter says of a detector.

    Attributes:
        labels: the name of each class, by class id.
        width: of the network's input, in pixels.
        height: of the network's input, in pixels.
        stride: the largest step of the network's grids, in pixels.
    """

    labels: tuple[str, ...]
    width: int
    height: int
    stride: int


class Yolov8Head:
    """Turns one frame's output [4 + classes, n] into packed detections in source pixels."""

    def __init__(
        self,
        labels: Sequence[str],
        *,
        score_threshold: float = 0.25,
        iou_threshold: float = 0.45,
        max_detections: int = 300,
    ) -> None:
        """Make a head.

        Args:
            labels: the name of each class, by class id.
            score_threshold: boxes must score more than this, where a frame does not say otherwise.
            iou_threshold: of two boxes of a class that overlap more than this, the better one stays.
            max_detections: the most boxes of a frame, where it does not say otherwise.
        """
        self.labels = tuple(labels)
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.max_detections = max_detections

    def check(self, output_shape: Sequence[int | str | None]) -> None:
        """Raise `ModelError` unless the output is [batch, 4 + classes, n]; an axis that is no number may be any."""
        rows = _BOX_ROWS + len(self.labels)
        if len(output_shape) == 3 and (not isinstance(output_shape[1], int) or output_shape[1] == rows):
            return
        shape = ", ".join("?" if axis is None else str(axis) for axis in output_shape)
        raise ModelError(
            f"expected an output of [batch, {rows}, boxes] (4 + {len(self.labels)} classes, without NMS), got [{shape}]"
        )

    def postprocess(
        self,
        output: npt.NDArray[np.float32],
        letterbox: Letterbox,
        *,
        score_threshold: float = 0.0,
        max_detections: int = 0,
    ) -> bytes:
        """Return the detections of one frame, best first, in structs of 24 bytes (see `headworks_native.nms`).

        Args:
            output: float32 [4 + classes, n], C-contiguous, in network pixels.
            letterbox: how the frame was laid into the network's input.
            score_threshold: boxes must score more than this; 0 is the head's own.
            max_detections: the most boxes; 0 is the head's own.
        """
        return nms.yolov8(
            output.data,  # NumPy's stubs call an array a buffer only from Python 3.12 on
            score_threshold=score_threshold or self.score_threshold,
            iou_threshold=self.iou_threshold,
            max_detections=max_detections or self.max_detections,
            left=letterbox.left,
            top=letterbox.top,
            scale=letterbox.scale,
            source_width=letterbox.source_width,
            source_height=letterbox.source_height,
        )


def read_ultralytics(metadata: Mapping[str, str], *, path: Path) -> DetectorMetadata:
    """Read the custom metadata of an ONNX file that Ultralytics exported.

    Args:
        metadata: the file's custom metadata.
        path: the file, named in errors.

    Raises:
        ModelError: something is missing or unreadable, or the model is no detector without NMS.
    """
    task = metadata.get("task")
    if task is None:
        raise ModelError(f"{path}: expected the metadata {_NEEDED}, got {', '.join(sorted(metadata)) or 'none'}")
    if task != "detect":
        raise ModelError(f"{path}: expected a model of task 'detect', got task {task!r}")
    if metadata.get("end2end", "").lower() == "true" or "'nms': True" in metadata.get("args", ""):
        raise ModelError(f"{path}: expected a model without NMS, got one exported end to end or with nms=True")
    height, width = _read_size(_literal(metadata, "imgsz", path), path)
    stride = _literal(metadata, "stride", path)
    if not _is_side(stride):
        raise ModelError(f"{path}: expected a stride in pixels in the metadata, got {stride!r}")
    return DetectorMetadata(_read_names(_literal(metadata, "names", path), path), width, height, stride)


def _literal(metadata: Mapping[str, str], key: str, path: Path) -> Any:
    """Evaluate one entry as a Python literal, which is how they are written."""
    text = metadata.get(key)
    if text is None:
        raise ModelError(f"{path}: expected the metadata {_NEEDED}, got no {key}")
    if len(text) > _MAX_TEXT:
        raise ModelError(f"{path}: expected at most {_MAX_TEXT:,} characters of {key}, got {len(text):,}")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ModelError(f"{path}: expected {key} as a Python literal, got {text[:60]!r}") from None


def _read_names(names: object, path: Path) -> tuple[str, ...]:
    """Return the labels by class id, from a list or from a mapping of ids 0, 1, 2, ..."""
    if isinstance(names, Mapping) and sorted(map(str, names)) == sorted(map(str, range(len(names)))):
        by_id = {int(key): name for key, name in names.items()}
        names = [by_id[index] for index in range(len(by_id))]
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise ModelError(f"{path}: expected names for class ids from 0 on in the metadata, got {str(names)[:60]}")
    return tuple(names)


def _read_size(imgsz: object, path: Path) -> tuple[int, int]:
    """Return height and width; one number stands for both."""
    sides = [imgsz, imgsz] if isinstance(imgsz, int) else imgsz
    if isinstance(sides, (list, tuple)) and len(sides) == 2 and all(_is_side(side) for side in sides):
        return sides[0], sides[1]
    raise ModelError(f"{path}: expected imgsz as [height, width] in the metadata, got {str(imgsz)[:60]}")


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_SIDE
