"""annotated.mp4: boxes in their team's colour, and crops beside their class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

import headworks
from headworks_server.demo.cameras import Camera, make_cameras
from headworks_server.demo.teams import Teams, cut
from headworks_server.demo.video import write_video


def jpeg(width: int, height: int) -> bytes:
    """A black picture."""
    return cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes()


def first_frame(path: Path) -> Any:
    video = cv2.VideoCapture(str(path))
    read, picture = video.read()
    video.release()
    assert read
    return picture


def camera_of(picture: bytes) -> Camera:
    return make_cameras(1, [picture])[0]


def test_player_is_drawn_in_the_colour_of_the_shirt(tmp_path: Path) -> None:
    """Two boxes of one class in two colours; a third, of whose shirt nothing is known, in that of its class."""
    camera = camera_of(jpeg(640, 360))
    boxes = tuple(headworks.Detection(x, 100, x + 60, 300, 0.9, 0, "player") for x in (100.0, 300.0, 500.0))
    camera.boxes[1] = boxes
    teams = Teams({(camera.picture(1), boxes): ["red", "blue", None]})
    assert write_video(tmp_path / "out.mp4", camera, fps=30, teams=teams) == 1
    picture = first_frame(tmp_path / "out.mp4")
    edges = [picture[150:250, x - 1 : x + 2].reshape(-1, 3).max(0).argmax() for x in (100, 300, 500)]
    assert [("blue", "green", "red")[channel] for channel in edges] == ["red", "blue", "green"]


def test_crop_is_enlarged_beside_its_classes(tmp_path: Path) -> None:
    """Crops of all sizes make a video of one."""
    camera = make_cameras(1, [jpeg(40, 80), jpeg(31, 55)])[0]
    for frame_id in (1, 2):
        camera.boxes[frame_id] = ()
        camera.classes[frame_id] = (headworks.Classification(3, "sky", 0.9),)
    assert write_video(tmp_path / "out.mp4", camera, fps=30) == 2
    assert first_frame(tmp_path / "out.mp4").shape == (540, 540, 3)


def test_crops_are_whole_pixels_inside_the_picture() -> None:
    """A box that reaches out is cut off, one without a pixel gets one."""
    crops = cut(jpeg(640, 360), [(-5.0, 10.4, 20.0, 50.6), (639.8, 359.9, 640.0, 360.0)])
    shapes = [cv2.imdecode(np.frombuffer(crop, np.uint8), cv2.IMREAD_COLOR).shape for crop in crops]
    assert shapes == [(41, 20, 3), (1, 1, 3)]
