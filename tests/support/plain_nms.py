"""The plain twin of headworks_native.nms: detector outputs to detections, in NumPy and float32, one box at a time.

Used by the property tests as the oracle. Every operation stands alone, so that each is rounded as the headers say.
"""

from typing import TypedDict

import numpy as np
import numpy.typing as npt

DETECTION = np.dtype(
    [("x1", "<f4"), ("y1", "<f4"), ("x2", "<f4"), ("y2", "<f4"), ("score", "<f4"), ("class_id", "<u4")]
)
CANDIDATES_AT_MOST = 30_000
STRIDES = (8, 16, 32)

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]


class Model(TypedDict, total=False):
    """The keyword arguments of `Postprocessor`, without its classes."""

    width: int
    height: int
    iou_threshold: float
    agnostic: bool
    multi_label: bool
    boxes: str
    normalized: bool


class Frame(TypedDict, total=False):
    """The keyword arguments of `Postprocessor.detections`."""

    score_threshold: float
    max_detections: int
    left: float
    top: float
    scale_x: float
    scale_y: float
    source_width: int
    source_height: int


def plain_iou(box: Floats, others: Floats) -> Floats:
    """Return the intersection over union of x1, y1, x2, y2 with each row of `others`."""
    width = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    height = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    intersection = np.maximum(width, np.float32(0)) * np.maximum(height, np.float32(0))
    area = (box[2] - box[0]) * (box[3] - box[1])
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    overlap: Floats = intersection / ((areas + area) - intersection)
    return overlap


def plain_detections(layout: str, output: Floats, model: Model, frame: Frame) -> npt.NDArray[np.void]:
    """Return the detections of one picture as an array of DETECTION, best first."""
    threshold = np.float32(frame["score_threshold"])
    with np.errstate(all="ignore"):
        corners, scores = _read(layout, output, model, threshold)
        boxes, classes = _candidates(scores, threshold, multi_label=model.get("multi_label", False))
        best = scores[boxes, classes]
        usable = np.isfinite(best) & np.isfinite(corners[boxes]).all(axis=1)
        boxes, classes, best = boxes[usable], classes[usable], best[usable]
        order = np.argsort(-best, kind="stable")[:CANDIDATES_AT_MOST]
        corners, classes, best = corners[boxes[order]], classes[order], best[order]
        if layout == "yolo_end2end":
            kept = np.arange(min(len(best), frame["max_detections"]))
        else:
            kept = _suppress(corners, classes, model, frame["max_detections"])
        placed = _place(corners[kept], frame)
    detections = np.zeros(len(kept), DETECTION)
    for column, name in enumerate(("x1", "y1", "x2", "y2")):
        detections[name] = placed[:, column]
    detections["score"], detections["class_id"] = best[kept], classes[kept]
    return detections


def _read(layout: str, output: Floats, model: Model, threshold: np.float32) -> tuple[Floats, Floats]:
    """Return the corners of all boxes, [n, 4] in network pixels, and their scores, [n, classes]."""
    if layout == "yolov8":
        return _corners(output[:4].T, model), output[4:].T
    boxes = output[:, :4]
    if layout == "yolo_end2end":
        count = 1 + int(np.nan_to_num(output[:, 5], posinf=0).max(initial=0))
        scores = np.zeros((len(output), count), np.float32)
        for row, (score, class_id) in enumerate(output[:, 4:]):
            if class_id >= 0 and class_id == np.floor(class_id) and np.isfinite(class_id):
                scores[row, int(class_id)] = score
        return _corners(boxes, model), scores
    if layout == "yolox":
        boxes = _from_grids(boxes, model["width"], model["height"])
    objectness = np.where(output[:, 4:5] > threshold, output[:, 4:5], np.float32(0))
    return _corners(boxes, model), objectness * output[:, 5:]


def _corners(boxes: Floats, model: Model) -> Floats:
    if model.get("normalized", False):
        sides = [model["width"], model["height"]]
        units = np.array(sides[::-1] * 2 if model["boxes"] == "yxyx" else sides * 2, np.float32)
        boxes = boxes * units
    if model.get("boxes") == "yxyx":
        return boxes[:, [1, 0, 3, 2]]
    if model.get("boxes") == "xyxy":
        return boxes
    half = boxes[:, 2:] * np.float32(0.5)
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _from_grids(boxes: Floats, width: int, height: int) -> Floats:
    """Undo the grids of yolox: cell by cell, row by row, the finest stride first."""
    cells = [(x, y, stride) for stride in STRIDES for y in range(height // stride) for x in range(width // stride)]
    grid = np.array(cells, np.float32).reshape(-1, 3)
    centres = (boxes[:, :2] + grid[:, :2]) * grid[:, 2:]
    sizes = np.exp(boxes[:, 2:].astype(np.float64)).astype(np.float32) * grid[:, 2:]
    return np.concatenate([centres, sizes], axis=1)


def _candidates(scores: Floats, threshold: np.float32, *, multi_label: bool) -> tuple[Ints, Ints]:
    """Return the box and the class of each candidate, in the order of the boxes, then of the classes."""
    if multi_label:
        boxes, classes = np.nonzero(scores > threshold)
        return boxes, classes
    known = np.where(np.isnan(scores), np.float32(-np.inf), scores)
    boxes = np.flatnonzero(known.max(axis=1, initial=-np.inf) > threshold)
    return boxes, known[boxes].argmax(axis=1) if len(boxes) else boxes


def _suppress(corners: Floats, classes: Ints, model: Model, max_detections: int) -> Ints:
    kept: list[int] = []
    for index in range(len(corners)):
        rivals = kept if model.get("agnostic") else [other for other in kept if classes[other] == classes[index]]
        if not np.any(plain_iou(corners[index], corners[rivals]) > np.float32(model["iou_threshold"])):
            kept.append(index)
        if len(kept) == max_detections:
            break
    return np.array(kept, np.intp)


def _place(corners: Floats, frame: Frame) -> Floats:
    pads = np.array([frame["left"], frame["top"]] * 2, np.float32)
    scales = np.array([frame["scale_x"], frame["scale_y"]] * 2, np.float32)
    limits = np.array([frame["source_width"], frame["source_height"]] * 2, np.float32)
    placed: Floats = np.clip((corners - pads) / scales, np.float32(0), limits) + np.float32(0)
    return placed
