"""What a model's outputs mean: one class for each head, made from the model's description by `make_heads`.

A lane's thread calls `postprocess` of the head whose form the stream asked for, once for each frame.
"""

from headworks_server.media.heads.base import Head
from headworks_server.media.heads.classification import ClassificationHead
from headworks_server.media.heads.detectors import YoloEnd2EndHead, Yolov5Head, Yolov8Head, YoloxHead
from headworks_server.media.heads.making import make_heads
from headworks_server.media.heads.raw import RawHead

__all__ = [
    "ClassificationHead",
    "Head",
    "RawHead",
    "YoloEnd2EndHead",
    "Yolov5Head",
    "Yolov8Head",
    "YoloxHead",
    "make_heads",
]
