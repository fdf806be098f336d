"""Which team a player is of: crops of players for the `teams` model, and what it says of the recorded camera's boxes.

The demo asks for `load_crops` where it streams crops, and for `tell_teams` where it streamed whole frames to a
detector of players: a second stream, after the cameras, so that it costs them nothing. Pictures that repeat, as those
of a clip do, are asked about once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import headworks
from headworks_server.demo.cameras import Boxes, Camera
from headworks_server.errors import ConfigError

TEAMS = "teams"
"""The model of this name is a classifier of players."""
PEOPLE = frozenset({"player", "referee"})
MAX_PICTURES = 300
"""Different pictures that are asked about; a detector's boxes keep their own class beyond these."""
CROP_QUALITY = 95


@dataclass(slots=True)
class Teams:
    """What the second stream said: for the boxes of a picture, the label of each, None where there is none."""

    labels: dict[tuple[bytes, Boxes], list[str | None]] = field(default_factory=dict)
    sent: int = 0
    results: int = 0

    def of(self, picture: bytes, boxes: Boxes) -> list[str | None]:
        """The label of each box."""
        return self.labels.get((picture, boxes), [None] * len(boxes))

    @property
    def seen(self) -> Counter[str]:
        """How many boxes have each label."""
        return Counter(label for labels in self.labels.values() for label in labels if label is not None)


def load_crops(folder: Path) -> list[bytes]:
    """Return every person of a clip as a JPEG of its own, frame by frame, by the boxes of its ground_truth.json.

    Raises:
        ConfigError: the folder has no ground truth, or it does not fit the pictures.
    """
    path = folder / "ground_truth.json"
    try:
        truth = json.loads(path.read_text())
        people = {number for number, name in enumerate(truth["classes"]) if name in PEOPLE}
        crops = [
            crop
            for entry in truth["frames"]
            for crop in cut((folder / entry["file"]).read_bytes(), _boxes(entry["objects"], people))
        ]
    except FileNotFoundError as error:
        raise ConfigError(f"{error.filename}: no such file; {TEAMS} is shown players, whose boxes it holds") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: expected the ground truth of render.py, got {error!r}") from error
    if not crops:
        raise ConfigError(f"{path}: expected boxes of players, found none")
    return crops


def cut(jpeg: bytes, boxes: Iterable[tuple[float, float, float, float]]) -> list[bytes]:
    """Return the parts of a picture that the boxes' whole pixels cover, at least one, each as a JPEG.

    Raises:
        ValueError: OpenCV cannot decode the picture.
    """
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError("a picture that OpenCV cannot decode")
    height, width = picture.shape[:2]
    crops = []
    for x1, y1, x2, y2 in boxes:
        left, top = min(max(0, round(x1)), width - 1), min(max(0, round(y1)), height - 1)
        right, bottom = min(max(left + 1, round(x2)), width), min(max(top + 1, round(y2)), height)
        done, crop = cv2.imencode(".jpg", picture[top:bottom, left:right], [cv2.IMWRITE_JPEG_QUALITY, CROP_QUALITY])
        assert done
        crops.append(crop.tobytes())
    return crops


def tell_teams(client: headworks.Client, camera: Camera) -> Teams:
    """Ask the `teams` model about every person in the boxes that a camera kept.

    Raises:
        HeadworksError: the stream was refused or broke.
        ValueError: OpenCV cannot decode a picture of the camera.
    """
    teams = Teams()
    places: dict[int, tuple[tuple[bytes, Boxes], int]] = {}

    def note(result: headworks.Result) -> None:
        key, number = places.pop(result.frame_id)
        teams.labels[key][number] = result.classifications[0].label if result.classifications else None

    stream = client.stream(TEAMS, name=f"{camera.name}, teams", policy="every_frame", top_k=1, on_result=note)
    with stream:
        frame_id = 0
        for picture, boxes in _asked(camera):
            key = picture, boxes
            teams.labels[key] = [None] * len(boxes)
            people = [number for number, box in enumerate(boxes) if box.label in PEOPLE]
            for number, crop in zip(people, cut(picture, [boxes[number][:4] for number in people]), strict=True):
                frame_id += 1
                places[frame_id] = key, number  # before it is sent: the answer may be there at once
                stream.send(crop, frame_id=frame_id)
    teams.sent, teams.results = stream.account.sent, stream.account.results
    return teams


def _asked(camera: Camera) -> list[tuple[bytes, Boxes]]:
    """The different pictures with their boxes, in the order of their frames."""
    found = {(camera.picture(frame_id), boxes): None for frame_id, boxes in sorted(camera.boxes.items())}
    return list(found)[:MAX_PICTURES]


def _boxes(objects: list[Mapping[str, Any]], kinds: set[int]) -> list[tuple[float, float, float, float]]:
    return [tuple(one["box"]) for one in objects if one["class"] in kinds]
