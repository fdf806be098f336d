"""The plain twin of headworks_native.nms: a yolov8 output to detections, in NumPy and float32, one box at a time.

Used by the property tests as the oracle. Every operation stands alone, so that each is rounded as the header says.
"""

import numpy as np
import numpy.typing as npt

DETECTION = np.dtype(
    [("x1", "<f4"), ("y1", "<f4"), ("x2", "<f4"), ("y2", "<f4"), ("score", "<f4"), ("class_id", "<u4")]
)
CANDIDATES_AT_MOST = 30_000

Floats = npt.NDArray[np.float32]


def plain_iou(box: Floats, others: Floats) -> Floats:
    """Return the intersection over union of x1, y1, x2, y2 with each row of `others`."""
    width = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    height = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    intersection = np.maximum(width, np.float32(0)) * np.maximum(height, np.float32(0))
    area = (box[2] - box[0]) * (box[3] - box[1])
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    overlap: Floats = intersection / ((areas + area) - intersection)
    return overlap


def plain_yolov8(
    output: Floats,
    *,
    score_threshold: float,
    iou_threshold: float,
    max_detections: int,
    agnostic: bool = False,
    left: float,
    top: float,
    scale: float,
    source_width: int,
    source_height: int,
) -> npt.NDArray[np.void]:
    """Return the detections of one picture as an array of DETECTION, best first."""
    with np.errstate(all="ignore"):
        half = output[2:4] * np.float32(0.5)
        corners = np.concatenate([output[:2] - half, output[:2] + half]).T
        scores = np.where(np.isnan(output[4:]), np.float32(-np.inf), output[4:])
        classes, best = scores.argmax(axis=0), scores.max(axis=0)
        usable = (best > np.float32(score_threshold)) & np.isfinite(best) & np.isfinite(corners).all(axis=1)
        passing = np.flatnonzero(usable)
        order = passing[np.argsort(-best[passing], kind="stable")][:CANDIDATES_AT_MOST]

        kept: list[int] = []
        for index in order:
            rivals = kept if agnostic else [other for other in kept if classes[other] == classes[index]]
            if not np.any(plain_iou(corners[index], corners[rivals]) > np.float32(iou_threshold)):
                kept.append(int(index))
            if len(kept) == max_detections:
                break

        pads = np.array([left, top, left, top], np.float32)
        limits = np.array([source_width, source_height, source_width, source_height], np.float32)
        boxes = np.clip((corners[kept] - pads) / np.float32(scale), np.float32(0), limits) + np.float32(0)

    detections = np.zeros(len(kept), DETECTION)
    for column, name in enumerate(("x1", "y1", "x2", "y2")):
        detections[name] = boxes[:, column]
    detections["score"], detections["class_id"] = best[kept], classes[kept]
    return detections
