"""From a model's description to its heads, by the form of a result they make; the one door for whoever builds lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from headworks_server.errors import ModelError
from headworks_server.media.heads.base import Head
from headworks_server.media.heads.classification import ClassificationHead
from headworks_server.media.heads.detectors import YoloEnd2EndHead, Yolov5Head, Yolov8Head, YoloxHead
from headworks_server.media.heads.raw import RawHead
from headworks_server.media.specs import Model

HEADS: Final[dict[str, Callable[[Model], Head]]] = {
    "yolov5": Yolov5Head,
    "yolov8": Yolov8Head,
    "yolox": YoloxHead,
    "yolo_end2end": YoloEnd2EndHead,
    "classification": ClassificationHead,
    "raw": RawHead,
}


def make_heads(model: Model) -> dict[int, Head]:
    """Make the heads of a model, each under the number of its ResultOptions.Form; raw tensors are always served.

    Raises:
        ModelError: there is no such head, or the outputs do not fit it; the message names the model's file.
    """
    output = model.output
    if output.head not in HEADS:
        raise ModelError(f"{model.path}: expected a head of {', '.join(HEADS)}, got {output.head!r}")
    try:
        heads = (HEADS[output.head](model), RawHead(model))
        for head in heads:
            head.check(output.tensors)
    except ModelError as error:
        raise ModelError(f"{model.path}: {error}") from error
    return {head.form: head for head in heads}
