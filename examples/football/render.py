"""Renders match footage with exact ground truth; a library for the scripts here and a command.

`dataset.py` and `evaluate.py` call `Stadium.frame`; the command writes JPEG frames and
ground_truth.json. It owns the order of painting and the rules of the boxes. Boxes are half-open
pixel rectangles x1, y1, x2, y2 about the whole figure, hidden parts included, clipped to the
picture. An object has a box when at least VISIBLE_SHARE of its pixels in the picture are in sight
and at least INSIDE_SHARE of its width and of its height lie in the picture; others have none.

    python render.py --seed 9103 --scene 2 --frames 48 --output clip
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from figure import Sprite, ball_sprite, person_sprite, smeared
from ground import Ground
from scene import BALL, BALL_DIAMETER, LOOP_SECONDS, Camera, Light, Match, Person, Play, make_match, make_play

CLASS_NAMES = ("player", "referee", "ball")
VISIBLE_SHARE = 0.3
INSIDE_SHARE = 0.35
FRAMES_PER_SECOND = 30
NOISE_TILE = (1400, 2400)


@dataclass(frozen=True)
class Truth:
    """One object: `box` is x1, y1, x2, y2, half-open pixels; `visible` the share in sight; `shirt` a kit's name.

    The ball's `shirt` is empty.
    """

    kind: int
    box: tuple[int, int, int, int]
    visible: float
    shirt: str


class Stadium:
    """One match ready to be filmed: `frame` renders any scene of it at any time."""

    def __init__(self, seed: int) -> None:
        self.match: Match = make_match(seed)
        self.ground = Ground(self.match)
        self.tones = _tone_tables(self.match.light)
        self.grain = _grain(seed)

    def play(self, number: int) -> Play:
        return make_play(self.match, number)

    def frame(
        self, play: Play, time: float, *, width: int = 1920, height: int = 1080
    ) -> tuple[np.ndarray, list[Truth]]:
        """Return the picture (height, width, 3) uint8 BGR at `time` (s) and its ground truth."""
        camera = play.camera(time, width, height)
        exposure = 1 / (120 + 40 * (self.match.seed % 6))
        later = play.camera(time + exposure, width, height)
        picture = np.empty((height, width, 3), np.uint8)
        self.ground.paint(picture, camera)
        picture = _panned(picture, camera, later, play)
        _paint_shadows(picture, play, camera, time, self.match.light)
        truths = _paint_objects(picture, play, camera, later, time, exposure)
        return self._expose(picture, time), truths

    def _expose(self, picture: np.ndarray, time: float) -> np.ndarray:
        """Apply lens blur, the light's colour and the sensor's noise."""
        sigma = self.match.light.blur * picture.shape[0] / 1080
        if sigma > 0.3:
            picture = cv2.GaussianBlur(picture, (5, 5), sigma)
        picture = cv2.LUT(picture, self.tones)
        rng = np.random.default_rng([self.match.seed, 4, round(time * 1000)])
        rows, columns = picture.shape[:2]
        top = int(rng.integers(0, max(1, self.grain.shape[0] - rows)))
        left = int(rng.integers(0, max(1, self.grain.shape[1] - columns)))
        return cv2.add(picture, self.grain[top : top + rows, left : left + columns], dtype=cv2.CV_8U)


def _tone_tables(light: Light) -> np.ndarray:
    """Return the (1, 256, 3) table that maps a scene colour to the exposed one."""
    level = np.arange(256, dtype=np.float32)[:, None] / 255
    tint = np.array(light.tint, np.float32)[None, :]
    return np.clip(255 * np.power(level, light.gamma) * light.gain * tint, 0, 255).astype(np.uint8)[None]


def _grain(seed: int) -> np.ndarray:
    """Return int16 noise, larger than a frame, that each frame takes another window of."""
    rng = np.random.default_rng([seed, 5])
    sigma = make_match(seed).light.noise
    grey = rng.standard_normal(NOISE_TILE, np.float32)
    return np.repeat(np.rint(grey * sigma).astype(np.int16)[..., None], 3, axis=2)


def _panned(picture: np.ndarray, camera: Camera, later: Camera, play: Play) -> np.ndarray:
    """Blur the still world by the camera's own movement during the exposure."""
    point = (*play.target, 0.0)
    before, after = camera.project(point), later.project(point)
    across, along = round(abs(after[0] - before[0])), round(abs(after[1] - before[1]))
    return cv2.blur(picture, (max(1, across), max(1, along))) if max(across, along) >= 2 else picture


def _paint_shadows(picture: np.ndarray, play: Play, camera: Camera, time: float, light: Light) -> None:
    """Darken the grass under everybody and, for each light, along their shadow."""
    for person in play.people:
        x, y = person.place(time)
        foot = camera.project((x, y, 0.0))
        pixels = camera.focal / foot[2]  # a metre, at that distance
        if foot[2] <= 1.0 or not (-300 < foot[0] < picture.shape[1] + 300):
            continue
        for dx, dy in light.sun or ((0.0, 0.0),):
            tip = camera.project((x + dx * person.height, y + dy * person.height, 0.0))
            _darken(picture, foot[:2], tip[:2], pixels * 0.34, light.shadow)


def _darken(
    picture: np.ndarray, start: tuple[float, float], end: tuple[float, float], width: float, strength: float
) -> None:
    """Multiply a thick soft stroke of the picture by 1 - strength."""
    reach = math.ceil(width) + 2
    left, right = math.floor(min(start[0], end[0])) - reach, math.ceil(max(start[0], end[0])) + reach
    top, bottom = math.floor(min(start[1], end[1])) - reach, math.ceil(max(start[1], end[1])) + reach
    left, right = max(left, 0), min(right, picture.shape[1])
    top, bottom = max(top, 0), min(bottom, picture.shape[0])
    if right - left < 2 or bottom - top < 2:
        return
    mask = np.zeros((bottom - top, right - left), np.uint8)
    ends = [(round((p[0] - left) * 16), round((p[1] - top) * 16)) for p in (start, end)]
    cv2.line(mask, ends[0], ends[1], 255, max(1, round(width * 0.55)), cv2.LINE_AA, 4)
    foot = (start[0] - left, start[1] - top)
    cv2.ellipse(mask, (foot, (width * 1.5, width * 0.6), 0.0), 255, -1)
    shade = 1 - (strength / 255) * cv2.blur(mask, (3, 3)).astype(np.float32)
    part = picture[top:bottom, left:right]
    part[:] = part * shade[..., None]


def _paint_objects(
    picture: np.ndarray, play: Play, camera: Camera, later: Camera, time: float, exposure: float
) -> list[Truth]:
    """Paint people and ball from far to near and return the boxes of those in sight."""
    side_light = math.copysign(1.0, play.match.light.sun[0][0]) if play.match.light.sun else 0.0
    queue = []
    for person in play.people:
        x, y = person.place(time)
        queue.append((camera.project((x, y, 0.0))[2], person))
    ball_depth = camera.project(play.ball_place(time))[2]
    queue.append((ball_depth - 0.05, None))
    owners = np.zeros(picture.shape[:2], np.uint8)
    drawn: list[tuple[int, str, Sprite]] = []
    for _, person in sorted(queue, key=lambda entry: -entry[0]):
        kind, sprite, motion = (
            _film_ball(play, camera, later, time, exposure) if person is None
            else _film_person(person, camera, later, time, exposure, side_light)
        )  # fmt: skip
        if sprite is not None and _blend(picture, smeared(sprite, motion)):
            _claim(owners, sprite, len(drawn) + 1)
            drawn.append((kind, person.kit.name if person else "", sprite))
    truths = [_truth(owners, number, *facts) for number, facts in enumerate(drawn, 1)]
    return [truth for truth in truths if truth is not None]


def _film_person(person: Person, camera: Camera, later: Camera, time: float, exposure: float,
                 light: float) -> tuple[int, Sprite | None, tuple[float, float]]:  # fmt: skip
    x, y = person.place(time)
    foot, crown = camera.project((x, y, 0.0)), camera.project((x, y, person.height))
    pixels = foot[1] - crown[1]
    if foot[2] <= 1.0 or not 4 < pixels < 600 or not -pixels < foot[0] < camera.width + pixels:
        return person.kind, None, (0.0, 0.0)
    moved = later.project((*person.place(time + exposure), 0.0))
    vx, vy = person.velocity(time)
    pace = min(1.0, math.hypot(vx, vy) / 4.5)
    heading = math.atan2(vy, vx) if pace > 0.08 else person.phase
    cycle = person.phase + 2 * math.pi * person.strides * time / LOOP_SECONDS
    sprite = person_sprite(person, foot[:2], pixels, heading, pace, light, cycle)
    return person.kind, sprite, (moved[0] - foot[0], moved[1] - foot[1])


def _film_ball(
    play: Play, camera: Camera, later: Camera, time: float, exposure: float
) -> tuple[int, Sprite | None, tuple[float, float]]:
    place = camera.project(play.ball_place(time))
    moved = later.project(play.ball_place(time + exposure))
    pixels = BALL_DIAMETER * camera.focal / place[2]
    if place[2] <= 1.0 or not 0 <= place[0] < camera.width or not 0 <= place[1] < camera.height:
        return BALL, None, (0.0, 0.0)
    spin = 2 * math.pi * time / LOOP_SECONDS
    return BALL, ball_sprite(place[:2], pixels, spin), (moved[0] - place[0], moved[1] - place[1])


def _overlap(sprite: Sprite, rows: int, columns: int) -> tuple[slice, slice, slice, slice] | None:
    """Return the frame's and the sprite's rows and columns that coincide, or None."""
    top, left = max(sprite.top, 0), max(sprite.left, 0)
    bottom, right = min(sprite.top + sprite.image.shape[0], rows), min(sprite.left + sprite.image.shape[1], columns)
    if bottom <= top or right <= left:
        return None
    own = slice(top - sprite.top, bottom - sprite.top), slice(left - sprite.left, right - sprite.left)
    return slice(top, bottom), slice(left, right), own[0], own[1]


def _blend(picture: np.ndarray, sprite: Sprite) -> bool:
    """Lay a premultiplied sprite over the picture; False when it lies outside."""
    shared = _overlap(sprite, *picture.shape[:2])
    if shared is None:
        return False
    rows, columns, own_rows, own_columns = shared
    image = sprite.image[own_rows, own_columns]
    part = picture[rows, columns]
    part[:] = np.minimum(part * (1 - image[..., 3:] / 255) + image[..., :3], 255)
    return True


def _claim(owners: np.ndarray, sprite: Sprite, number: int) -> None:
    """Write an object's number wherever it covers at least half a pixel."""
    shared = _overlap(sprite, *owners.shape)
    if shared is not None:
        rows, columns, own_rows, own_columns = shared
        owners[rows, columns][sprite.image[own_rows, own_columns, 3] >= 128] = number


def _truth(owners: np.ndarray, number: int, kind: int, shirt: str, sprite: Sprite) -> Truth | None:
    """Return the object's clipped box, or None where the rules of this file give it none."""
    body = sprite.image[..., 3] >= 128
    ys, xs = np.flatnonzero(body.any(1)), np.flatnonzero(body.any(0))
    shared = _overlap(sprite, *owners.shape)
    if shared is None or not len(ys):
        return None
    full = (
        int(xs[0]) + sprite.left,
        int(ys[0]) + sprite.top,
        int(xs[-1]) + 1 + sprite.left,
        int(ys[-1]) + 1 + sprite.top,
    )
    height, width = owners.shape
    box = (max(full[0], 0), max(full[1], 0), min(full[2], width), min(full[3], height))
    inside = min((box[2] - box[0]) / (full[2] - full[0]), (box[3] - box[1]) / (full[3] - full[1]))
    rows, columns, own_rows, own_columns = shared
    cover = body[own_rows, own_columns]
    visible = float((owners[rows, columns][cover] == number).mean()) if cover.any() else 0.0
    if inside < INSIDE_SHARE or visible < VISIBLE_SHARE:
        return None
    return Truth(kind, box, round(visible, 3), shirt)


def write_clip(output: Path, seed: int, scene: int, *, frames: int, width: int, height: int, quality: int) -> None:
    """Write 0000.jpg and so on, 4:2:0, with ground_truth.json beside them."""
    output.mkdir(parents=True, exist_ok=True)
    stadium = Stadium(seed)
    play = stadium.play(scene)
    entries = []
    for index in range(frames):
        picture, truths = stadium.frame(play, index / FRAMES_PER_SECOND, width=width, height=height)
        name = f"{index:04d}.jpg"
        settings = [
            cv2.IMWRITE_JPEG_QUALITY,
            quality,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
        ]
        cv2.imwrite(str(output / name), picture, settings)
        objects = [
            {"class": t.kind, "box": list(t.box), "visible": t.visible} | ({"shirt": t.shirt} if t.shirt else {})
            for t in truths
        ]
        entries.append({"file": name, "objects": objects})
    record = {
        "seed": seed,
        "scene": scene,
        "width": width,
        "height": height,
        "frames_per_second": FRAMES_PER_SECOND,
        "classes": list(CLASS_NAMES),
        "box": "x1, y1, x2, y2 in pixels, half-open",
        "frames": entries,
    }
    (output / "ground_truth.json").write_text(json.dumps(record, separators=(",", ":")) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Render match footage with ground truth.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=9103)
    parser.add_argument("--scene", type=int, default=2)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--quality", type=int, default=60)
    options = parser.parse_args()
    write_clip(options.output, options.seed, options.scene, frames=options.frames, width=options.width,
               height=options.height, quality=options.quality)  # fmt: skip


if __name__ == "__main__":
    main()
