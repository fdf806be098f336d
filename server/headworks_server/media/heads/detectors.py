"""Detectors: boxes of one output, in source pixels. The arithmetic is native, see `headworks_native.nms`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from headworks_native.nms import Postprocessor, yolox_rows
from headworks_server.errors import ModelError
from headworks_server.media.geometry import Geometry
from headworks_server.media.heads.base import DETECTIONS, Array, agrees, require, require_floats
from headworks_server.media.specs import Model, Shape, Tensor


class DetectorHead(ABC):
    """Reads one output of any float type; another than float32 is turned into that once.

    Attributes:
        layout: of the output, as `headworks_native.nms` names it.
        score_threshold: boxes must score more than this, where a frame does not say otherwise.
        max_detections: the most boxes of a frame, where it does not say otherwise.
    """

    form = DETECTIONS
    layout: ClassVar[str]

    def __init__(self, model: Model) -> None:
        """Make the head of a model.

        Raises:
            ModelError: the head cannot be as the model's description has it.
        """
        output, postprocess = model.output, model.postprocess
        self.score_threshold = postprocess.score_threshold
        self.max_detections = postprocess.max_detections
        self._classes = len(model.labels)
        self._size = (model.input.width, model.input.height)
        self._index = output.index
        try:
            self._native = Postprocessor(
                self.layout,
                classes=self._classes,
                width=model.input.width,
                height=model.input.height,
                iou_threshold=postprocess.iou_threshold,
                agnostic=postprocess.agnostic,
                multi_label=postprocess.multi_label,
                boxes=output.boxes,
                normalized=output.normalized,
            )
        except ValueError as error:
            raise ModelError(f"head {self.layout}: {error}") from error

    def check(self, tensors: Sequence[Tensor]) -> None:
        """See `Head`."""
        tensor = tensors[self._index]
        require_floats(tensor)
        shape = tensor.shape
        require(shape is None or (len(shape) == 2 and self._fits(shape)), tensor, self._expected())

    def postprocess(
        self, outputs: Sequence[Array], index: int, geometry: Geometry, *, score_threshold: float, max_detections: int
    ) -> tuple[bytes, bytes]:
        """See `Head`."""
        output = outputs[self._index][index]
        if output.dtype not in (np.float32, np.float16) or not output.flags.c_contiguous:
            output = np.ascontiguousarray(output, np.float32)
        detections = self._native.detections(
            output.data,  # NumPy's stubs call an array a buffer only from Python 3.12 on
            score_threshold=score_threshold or self.score_threshold,
            max_detections=max_detections or self.max_detections,
            left=geometry.left,
            top=geometry.top,
            scale_x=geometry.scale_x,
            scale_y=geometry.scale_y,
            source_width=geometry.source_width,
            source_height=geometry.source_height,
        )
        return detections, b""

    @abstractmethod
    def _fits(self, shape: Shape) -> bool:
        """Whether a shape of two axes is the layout's."""

    @abstractmethod
    def _expected(self) -> str:
        """The layout's shape in words."""


class Yolov8Head(DetectorHead):
    """[4 + classes, boxes], scores that are already probabilities, no objectness: YOLOv8, 9, 11 and 12."""

    layout = "yolov8"

    def _fits(self, shape: Shape) -> bool:
        return agrees(shape[0], 4 + self._classes)

    def _expected(self) -> str:
        return f"[{4 + self._classes}, boxes] (4 + {self._classes} classes, without NMS)"


class Yolov5Head(DetectorHead):
    """[boxes, 5 + classes], the fifth the objectness: YOLOv5 and 7, and YOLOX exported with its boxes decoded."""

    layout = "yolov5"

    def _fits(self, shape: Shape) -> bool:
        return agrees(shape[1], 5 + self._classes)

    def _expected(self) -> str:
        return f"[boxes, {5 + self._classes}] (4 + objectness + {self._classes} classes, without NMS)"


class YoloxHead(DetectorHead):
    """[boxes, 5 + classes], boxes relative to the cells of the grids of strides 8, 16 and 32."""

    layout = "yolox"

    def _fits(self, shape: Shape) -> bool:
        return agrees(shape[0], yolox_rows(*self._size)) and agrees(shape[1], 5 + self._classes)

    def _expected(self) -> str:
        width, height = self._size
        return (
            f"[{yolox_rows(width, height)}, {5 + self._classes}] (the cells of strides 8, 16 and 32 in "
            f"{width}x{height}; 4 + objectness + {self._classes} classes)"
        )


class YoloEnd2EndHead(DetectorHead):
    """[boxes, 6]: box, score, class, suppressed in the graph: YOLOv10, 26, and exports with NMS."""

    layout = "yolo_end2end"

    def _fits(self, shape: Shape) -> bool:
        return agrees(shape[1], 6)

    def _expected(self) -> str:
        return "[boxes, 6] (4 + score + class, suppressed in the graph)"
