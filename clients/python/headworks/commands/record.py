"""`--save`: one camera's frames as a video, with the boxes of those that got a result. Needs OpenCV.

Frames are kept compressed until the outcome of them, or of a later one, is known, and written in their order: those
without a result stand without boxes, so that the video runs at the camera's own pace.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import headworks
from headworks.sources import Picture, SourceError

KEPT_FRAMES = 512
"""Frames whose outcome is awaited: more are written without boxes, so that memory is bounded."""


class Recorder:
    """Writes one video."""

    def __init__(self, path: Path, *, fps: float) -> None:
        try:
            import cv2
            import numpy as np
        except ImportError as error:
            raise SourceError(f"--save {path}: this needs OpenCV; pip install 'headworks[images]'") from error
        self.path = path
        self.written = 0
        self._cv2, self._np = cv2, np
        self._fps = fps
        self._lock = threading.Lock()
        self._waiting: OrderedDict[int, Picture] = OrderedDict()
        self._writer: Any = None
        self._size = (0, 0)

    def sending(self, frame_id: int, picture: Picture) -> None:
        """Keep a frame until its outcome."""
        with self._lock:
            self._waiting[frame_id] = picture
            if len(self._waiting) > KEPT_FRAMES:
                self._write(self._waiting.popitem(last=False)[1], None)

    def outcome(self, outcome: headworks.Outcome) -> None:
        """Write what is known up to this outcome."""
        result = outcome if isinstance(outcome, headworks.Result) else None
        last = outcome.last_frame_id if isinstance(outcome, headworks.Dropped | headworks.Lost) else outcome.frame_id
        with self._lock:
            while self._waiting and next(iter(self._waiting)) <= last:
                frame_id, picture = self._waiting.popitem(last=False)
                self._write(picture, result if frame_id == last else None)

    def close(self) -> None:
        """Write the rest, and finish the file."""
        with self._lock:
            while self._waiting:
                self._write(self._waiting.popitem(last=False)[1], None)
            if self._writer is not None:
                self._writer.release()

    def _write(self, picture: Picture, result: headworks.Result | None) -> None:
        cv2 = self._cv2
        pixels = cv2.imdecode(self._np.frombuffer(picture.data, self._np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            return  # the server has said so too
        if result is not None:
            self._draw(pixels, result)
        if self._writer is None:
            height, width = pixels.shape[:2]
            self._size = (width // 2 * 2, height // 2 * 2)  # the codec wants even sides
            self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, self._size)
            if not self._writer.isOpened():
                raise SourceError(f"--save {self.path}: OpenCV cannot write this video")
        if pixels.shape[1::-1] != self._size:
            pixels = cv2.resize(pixels, self._size)  # a camera may change its size
        self._writer.write(pixels)
        self.written += 1

    def _draw(self, pixels: Any, result: headworks.Result) -> None:
        cv2 = self._cv2
        (output,) = result.outputs
        thick = max(1, pixels.shape[0] // 400)
        for box in output.detections:
            colour = _colour(box.label)
            left, top = round(box.x1), round(box.y1)
            cv2.rectangle(pixels, (left, top), (round(box.x2), round(box.y2)), colour, thick)
            text = f"{box.label} {box.score:.2f}"
            place = (left, max(12 * thick, top - 3))
            cv2.putText(pixels, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4 * thick, colour, thick, cv2.LINE_AA)
        for row, found in enumerate(output.classifications):
            place = (8, 20 * thick * (row + 1))
            text = f"{found.label} {found.score:.2f}"
            cv2.putText(pixels, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6 * thick, _colour(found.label), thick)


def _colour(label: str) -> tuple[int, int, int]:
    """A bright colour that a label keeps from run to run."""
    number = zlib.crc32(label.encode())
    return (80 + number % 176, 80 + number // 176 % 176, 80 + number // 30976 % 176)
