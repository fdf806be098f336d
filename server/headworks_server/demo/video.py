"""demo-out/annotated.mp4: the first camera's frames with what came back for them. Drawn after the run.

Frames of a detector carry their boxes, in the colour of the team where that is known; a crop that was classified is
enlarged, with its classes beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from headworks_server.demo.cameras import Boxes, Camera, Classes
from headworks_server.demo.teams import Teams

MAX_WIDTH, MAX_HEIGHT = 960, 540
CROP_SPACE = 270
Colour = tuple[int, int, int]  # blue, green, red
COLOURS: tuple[Colour, ...] = ((80, 220, 60), (40, 200, 255), (255, 255, 255), (255, 120, 60), (200, 80, 220))
"""By class_id, for labels that are no colour."""
# Lighter than the shirts: lines of one pixel are to be seen on grass.
NAMED: dict[str, Colour] = {
    "red": (60, 60, 240),
    "blue": (255, 140, 60),
    "white": (255, 255, 255),
    "sky": (250, 200, 110),
    "orange": (30, 140, 255),
    "purple": (220, 90, 200),
    "green": (90, 200, 40),
    "maroon": (90, 50, 190),
    "pink": (190, 110, 240),
    "teal": (200, 190, 40),
    "aqua": (210, 230, 130),
    "goalkeeper": (100, 255, 180),
    "referee": (40, 220, 255),
    "ball": (255, 255, 255),
}


def write_video(path: Path, camera: Camera, *, fps: float, teams: Teams | None = None) -> int:
    """Write the video and return its number of frames, those with a result; the boxes are scaled with the picture.

    Raises:
        OSError: OpenCV cannot write it.
    """
    writer: cv2.VideoWriter | None = None
    written = 0
    for picture in _pictures(camera, teams or Teams()):
        if writer is None:
            height, width = picture.shape[:2]
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
            if not writer.isOpened():
                raise OSError(f"{path}: OpenCV cannot write this video")
        writer.write(picture)
        written += 1
    if writer is not None:
        writer.release()
    return written


def _pictures(camera: Camera, teams: Teams) -> Iterator[Any]:
    """The frames of the video, all of one size."""
    small: dict[bytes, tuple[Any, float]] = {}  # a clip repeats: each picture is decoded once
    for frame_id, boxes in sorted(camera.boxes.items()):
        jpeg = camera.picture(frame_id)
        if frame_id in camera.classes:
            yield _card(_decode(jpeg), camera.classes[frame_id])
            continue
        if jpeg not in small:
            small[jpeg] = _shrink(_decode(jpeg))
        picture, scale = small[jpeg]
        yield _draw(picture.copy(), boxes, scale, teams.of(jpeg, boxes))


def _decode(jpeg: bytes) -> Any:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise OSError("OpenCV cannot decode a frame of the clip")
    return picture


def _shrink(picture: Any) -> tuple[Any, float]:
    """Shrink to the size of the video; returns (picture, scale), even sides for the codec's sake."""
    height, width = picture.shape[:2]
    scale = min(1.0, MAX_WIDTH / width, MAX_HEIGHT / height)
    size = (max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA), size[0] / width


def _draw(picture: Any, boxes: Boxes, scale: float, labels: list[str | None]) -> Any:
    for box, team in zip(boxes, labels, strict=True):
        colour = _colour(team or box.label, box.class_id)
        left, top = round(box.x1 * scale), round(box.y1 * scale)
        cv2.rectangle(picture, (left, top), (round(box.x2 * scale), round(box.y2 * scale)), colour, 1)
        text = team or f"{box.label} {box.score:.2f}"
        cv2.putText(picture, text, (left, max(8, top - 2)), cv2.FONT_HERSHEY_SIMPLEX, 0.3, colour, 1, cv2.LINE_AA)
    return picture


def _card(crop: Any, classes: Classes) -> Any:
    """The crop on the left, as large as it fits, and its classes with their scores on the right."""
    card = np.full((MAX_HEIGHT, 2 * CROP_SPACE, 3), 40, np.uint8)
    height, width = crop.shape[:2]
    scale = min(CROP_SPACE / width, MAX_HEIGHT / height)
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    left, top = (CROP_SPACE - size[0]) // 2, (MAX_HEIGHT - size[1]) // 2
    card[top : top + size[1], left : left + size[0]] = cv2.resize(crop, size, interpolation=cv2.INTER_CUBIC)
    for line, one in enumerate(classes[:8]):
        place = (CROP_SPACE + 20, 60 + 40 * line)
        colour = _colour(one.label, one.class_id)
        text = f"{one.label} {one.score:.2f}"
        cv2.putText(card, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.8, colour, 2, cv2.LINE_AA)
    return card


def _colour(label: str, class_id: int) -> Colour:
    return NAMED.get(label, COLOURS[class_id % len(COLOURS)])
