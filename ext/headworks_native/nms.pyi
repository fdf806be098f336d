from typing_extensions import Buffer

def yolov8(
    output: Buffer,
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
) -> bytes:
    """Return the detections of one picture, best first: 24 bytes each, float32 x1, y1, x2, y2, score, uint32 class_id.

    `output` is C-contiguous float32 [4 + classes, n]: centre x, centre y, width, height in network pixels, then the
    scores. Kept are boxes whose best class scores more than `score_threshold`, less those that overlap a better one
    of their class (of any class where `agnostic`) by more than `iou_threshold`, at most `max_detections`. `left` and
    `top` are the letterbox's pads in network pixels, `scale` its network pixels per source pixel. Boxes are half-open,
    in source pixels, clipped to the picture; one that clipping leaves empty is kept. A box that is not finite is left
    out. Raises TypeError or ValueError on an output of another type or shape and on values out of their range.
    """
