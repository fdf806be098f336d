"""Which head an output can be read by, told from its shape and the number of classes; pure, called by `merge`.

A shape alone never decides: [84, 8400] may be boxes of 80 classes, or of 48 with mask coefficients. With the
labels known each head wants one exact number of rows, and where only one head fits, nobody has to be asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from headworks_server.engine.base import HeadName

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class HeadShape:
    """What one head reads.

    Attributes:
        form: the shape of one frame in words, of a model with so many classes.
        classes: how many classes a frame's shape has room for: a number, 0 where it does not tell, None where this
            head cannot read it.
        axis: of a shape that this head can read, the axis that says so; None where the graph leaves it open.
    """

    form: Callable[[int], str]
    classes: Callable[[Shape], int | None]
    axis: Callable[[Shape], int | None] = lambda shape: shape[-1]


def _columns(before: int) -> Callable[[Shape], int | None]:
    """[boxes, before + classes]."""

    def classes(shape: Shape) -> int | None:
        if len(shape) != 2:
            return None
        return 0 if shape[1] is None else _positive(shape[1] - before)

    return classes


def _rows(shape: Shape) -> int | None:
    if len(shape) != 2:
        return None
    return 0 if shape[0] is None else _positive(shape[0] - 4)


def _six(shape: Shape) -> int | None:
    return 0 if len(shape) == 2 and shape[1] in (6, None) else None


def _scores(shape: Shape) -> int | None:
    """[classes], with any axes of 1 around it."""
    long = [axis for axis in shape if axis != 1]
    if len(long) != 1:
        return None
    return 0 if long[0] is None else long[0]


def _open_or_not(shape: Shape) -> int | None:
    return _scores(shape) or None


def _positive(number: int) -> int | None:
    return number if number > 0 else None


HEADS: Final[dict[HeadName, HeadShape]] = {
    "yolov5": HeadShape(lambda n: f"[boxes, {5 + n}] (5 + {n} classes)", _columns(5)),
    "yolov8": HeadShape(lambda n: f"[{4 + n}, boxes] (4 + {n} classes, without NMS)", _rows, lambda shape: shape[0]),
    "yolox": HeadShape(lambda n: f"[boxes, {5 + n}] (5 + {n} classes)", _columns(5)),
    "yolo_end2end": HeadShape(lambda _: "[boxes, 6] (a box, a score, a class)", _six),
    "classification": HeadShape(lambda n: f"[{n}] (one score for each class)", _scores, _open_or_not),
}


def fits(head: HeadName, shape: Shape | None, classes: int) -> int:
    """How well a head reads an output of that shape: 2 where the axis that matters is right, 1 where it is open, 0 not.

    `classes` is 0 where their number is not known: then any will do.
    """
    if head == "raw":
        return 2
    if shape is None:
        return 1
    found, axis = HEADS[head].classes(shape), HEADS[head].axis(shape)
    if found is None or (classes and found not in (0, classes)):
        return 0
    return 1 if axis is None else 2


def class_count(head: HeadName, shape: Shape | None) -> int:
    """How many classes an output has room for; 0 where its shape does not tell."""
    return 0 if head == "raw" or shape is None else HEADS[head].classes(shape) or 0


def plausible(shape: Shape | None) -> tuple[HeadName, ...]:
    """The heads to name in a question about an output of unknown classes; there are more boxes than classes."""
    heads = [head for head in HEADS if fits(head, shape, 0)]
    if shape is not None and len(shape) == 2:
        rows, columns = (axis or 0 for axis in shape)
        wide = {"yolov5", "yolox"} if rows and columns > rows else {"yolov8"} if columns and rows > columns else set()
        heads = [head for head in heads if head not in wide] or heads
    return tuple(heads)


def settle(head: HeadName, shape: Shape | None, classes: int) -> Shape | None:
    """The shape with the axis closed that the labels settle, so that an engine can hold the first run to it."""
    wanted: dict[HeadName, Shape] = {
        "yolov5": (None, 5 + classes),
        "yolov8": (4 + classes, None),
        "yolox": (None, 5 + classes),
        "yolo_end2end": (None, 6),
    }
    if head not in wanted or not classes:
        return shape
    return tuple(want if fact is None else fact for fact, want in zip(shape or (None, None), wanted[head], strict=True))
