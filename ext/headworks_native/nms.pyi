from typing_extensions import Buffer

class Postprocessor:
    """Reads the outputs of one detector: threshold, best class, non-maximum suppression, back to source pixels.

    `layout` says what an output is for one picture, float32 or float16 and C-contiguous: "yolov8" [4 + classes, boxes];
    "yolov5" and "yolox" [boxes, 5 + classes], with an objectness, boxes of the latter relative to the cells of its
    grids; "yolo_end2end" [boxes, 6], suppressed by the model. `boxes` and `normalized` say what a box's numbers are.
    Kept are boxes whose best class (with `multi_label` each class) scores more than the threshold, less those that
    overlap a better one of their class (of any class where `agnostic`) by more than `iou_threshold`. A box that is not
    finite is left out. Raises ValueError on values out of their range.
    """

    layout: str
    def __init__(
        self,
        layout: str,
        *,
        classes: int,
        width: int,
        height: int,
        iou_threshold: float = 0.45,
        agnostic: bool = False,
        multi_label: bool = False,
        boxes: str = "cxcywh",
        normalized: bool = False,
    ) -> None: ...
    def detections(
        self,
        output: Buffer,
        *,
        score_threshold: float,
        max_detections: int,
        left: float,
        top: float,
        scale_x: float,
        scale_y: float,
        source_width: int,
        source_height: int,
    ) -> bytes:
        """Return the detections of one picture, best first.

        Each is 24 bytes: float32 x1, y1, x2, y2, score, uint32 class_id.

        `left` and `top` are the network pixels before the picture (negative where it was cut), `scale_x` and `scale_y`
        its network pixels per source pixel. Boxes are half-open, in source pixels, clipped to the picture; one that
        clipping leaves empty is kept. Raises TypeError or ValueError on an output of another type or shape and on
        values out of their range.
        """

def yolox_rows(width: int, height: int) -> int:
    """Return how many boxes a yolox network of this input size has."""
