"""demo-out/annotated.mp4: the first camera's frames with the boxes that came back for them. Drawn after the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

import headworks
from headworks_server.demo.cameras import Camera

MAX_WIDTH, MAX_HEIGHT = 960, 540
# Blue, green, red; by class_id.
COLOURS = ((80, 220, 60), (40, 200, 255), (255, 255, 255), (255, 120, 60), (200, 80, 220))


def write_video(path: Path, camera: Camera, *, fps: float) -> int:
    """Write the video and return its number of frames, those with a result; the boxes are scaled with the picture.

    Raises:
        OSError: OpenCV cannot write it.
    """
    pictures: dict[bytes, tuple[Any, float]] = {}  # a clip repeats: each picture is decoded once
    writer: cv2.VideoWriter | None = None
    written = 0
    for frame_id, boxes in sorted(camera.boxes.items()):
        jpeg = camera.picture(frame_id)
        if jpeg not in pictures:
            pictures[jpeg] = _decode_small(jpeg)
        small, scale = pictures[jpeg]
        if writer is None:
            height, width = small.shape[:2]
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
            if not writer.isOpened():
                raise OSError(f"{path}: OpenCV cannot write this video")
        writer.write(_draw(small.copy(), boxes, scale))
        written += 1
    if writer is not None:
        writer.release()
    return written


def _decode_small(jpeg: bytes) -> tuple[Any, float]:
    """Decode and shrink to the size of the video; returns (picture, scale), even sides for the codec's sake."""
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise OSError("OpenCV cannot decode a frame of the clip")
    height, width = picture.shape[:2]
    scale = min(1.0, MAX_WIDTH / width, MAX_HEIGHT / height)
    size = (max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA), size[0] / width


def _draw(picture: Any, boxes: tuple[headworks.Detection, ...], scale: float) -> Any:
    for box in boxes:
        colour = COLOURS[box.class_id % len(COLOURS)]
        left, top = round(box.x1 * scale), round(box.y1 * scale)
        cv2.rectangle(picture, (left, top), (round(box.x2 * scale), round(box.y2 * scale)), colour, 1)
        text = f"{box.label} {box.score:.2f}"
        cv2.putText(picture, text, (left, max(8, top - 2)), cv2.FONT_HERSHEY_SIMPLEX, 0.3, colour, 1, cv2.LINE_AA)
    return picture
