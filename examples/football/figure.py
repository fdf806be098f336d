"""Paints one articulated person, or the ball, as a small picture with alpha.

`render.py` calls it for everything that gets a box. It owns the body's proportions. A sprite is
premultiplied BGRA, (h, w, 4) float32 in 0..255, and the pixel of the frame its corner lies on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from scene import Colour, Person

FINE = 2  # a sprite is painted this many times larger and shrunk, which smooths its edges
THIGH, SHIN, ARM, FOREARM, FOOT = 0.245, 0.245, 0.17, 0.15, 0.075  # lengths, in body heights
NECK, HIP = 0.83, 0.5  # heights above the sole, standing


@dataclass(frozen=True)
class Sprite:
    """`image` is premultiplied BGRA; `left` and `top` place it in the frame (pixels)."""

    image: np.ndarray
    left: int
    top: int


class Pen:
    """Strokes in body units (x right, y up, 1 is the body height) onto a fine BGRA canvas."""

    def __init__(self, width: int, height: int, origin: tuple[float, float], unit: float) -> None:
        self.canvas = np.zeros((height * FINE, width * FINE, 4), np.uint8)
        self.origin, self.unit = origin, unit

    def pixel(self, point: tuple[float, float]) -> tuple[int, int]:
        """Return the fine-canvas position with four fractional bits."""
        x = (self.origin[0] + point[0] * self.unit) * FINE
        y = (self.origin[1] - point[1] * self.unit) * FINE
        return round(x * 16), round(y * 16)

    def limb(self, start: tuple[float, float], end: tuple[float, float], thickness: float, colour: Colour) -> None:
        width = max(1, round(thickness * self.unit * FINE))
        cv2.line(self.canvas, self.pixel(start), self.pixel(end), (*colour, 255), width, cv2.LINE_8, 4)

    def shape(self, points: list[tuple[float, float]], colour: Colour) -> None:
        corners = np.array([self.pixel(p) for p in points], np.int32)
        cv2.fillConvexPoly(self.canvas, corners, (*colour, 255), cv2.LINE_8, 4)

    def disc(self, centre: tuple[float, float], radius: float, colour: Colour) -> None:
        cv2.circle(
            self.canvas, self.pixel(centre), round(radius * self.unit * FINE * 16), (*colour, 255), -1, cv2.LINE_8, 4
        )

    def finish(self, light: float) -> np.ndarray:
        """Shrink to frame pixels and shade from left to right by `light` (-1..1)."""
        height, width = self.canvas.shape[0] // FINE, self.canvas.shape[1] // FINE
        image = cv2.resize(self.canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
        image[..., :3] *= (1 + 0.18 * light * np.linspace(-1, 1, width, dtype=np.float32))[None, :, None]
        return np.minimum(image, 255.0)


def person_sprite(person: Person, foot: tuple[float, float], pixels: float, bearing: float, pace: float,
                  light: float, cycle: float) -> Sprite:  # fmt: skip
    """Paint a person whose soles meet at `foot` (x, y) and who is `pixels` tall.

    `bearing` is the direction of movement in the picture (radians, 0 to the right, pi/2 away from
    the camera), `pace` how fully it strides (0..1), `cycle` the angle of its stride.
    """
    half, up, down = math.ceil(pixels * 0.62) + 2, math.ceil(pixels * 1.3) + 2, math.ceil(pixels * 0.12) + 2
    left, top = math.floor(foot[0]) - half, math.floor(foot[1]) - up
    pen = Pen(2 * half, up + down, (foot[0] - left, foot[1] - top), pixels)
    side, depth = math.cos(bearing), abs(math.sin(bearing))
    swing = (0.1 + 0.65 * pace) * math.sin(cycle)
    knees = [0.1 + 1.1 * pace * max(0.0, math.cos(cycle)), 0.1 + 1.1 * pace * max(0.0, -math.cos(cycle))]
    legs = [_leg(angle, bend, side) for angle, bend in zip((swing, -swing), knees, strict=True)]
    lift = -min(leg[2][1] for leg in legs)  # the lower sole touches the ground
    lean = person.lean + 0.12 * pace * side
    shoulder = (lean * 0.35, lift + NECK - HIP)
    spread = 0.02 + 0.045 * depth
    order = (1, 0) if side >= 0 else (0, 1)
    _paint_arm(pen, person, shoulder, (-1 if order[0] else 1) * spread * 2.1, -swing if order[0] else swing, side)
    for index in order:
        _paint_leg(pen, person, legs[index], (spread if index else -spread), lift)
    _paint_trunk(pen, person, (0.0, lift), shoulder, depth)
    _paint_arm(pen, person, shoulder, (1 if order[0] else -1) * spread * 2.1, swing if order[0] else -swing, side)
    _paint_head(pen, person, shoulder, side, bearing)
    return Sprite(pen.finish(light), left, top)


def ball_sprite(centre: tuple[float, float], pixels: float, spin: float) -> Sprite:
    """Paint the ball, `pixels` across, at `centre` (x, y)."""
    half = math.ceil(pixels) + 2
    left, top = math.floor(centre[0]) - half, math.floor(centre[1]) - half
    pen = Pen(2 * half, 2 * half, (centre[0] - left, centre[1] - top), pixels)
    pen.disc((0, 0), 0.5, (245, 245, 245))
    for index in range(3):
        angle = spin + index * 2.1
        pen.disc((0.27 * math.cos(angle), 0.27 * math.sin(angle)), 0.11, (70, 70, 70))
    return Sprite(pen.finish(0.3), left, top)


def smeared(sprite: Sprite, motion: tuple[float, float]) -> Sprite:
    """Blur a sprite along `motion` (pixels during the exposure); under a pixel nothing is done."""
    across, along = round(abs(motion[0])), round(abs(motion[1]))
    if max(across, along) < 2:
        return sprite
    return Sprite(cv2.blur(sprite.image, (max(1, across), max(1, along))), sprite.left, sprite.top)


def _leg(angle: float, bend: float, side: float) -> list[tuple[float, float]]:
    """Return knee, ankle and toe relative to the hip, for a thigh `angle` and a knee `bend`."""
    knee = (math.sin(angle) * THIGH * side, -math.cos(angle) * THIGH)
    shin = angle - bend
    ankle = (knee[0] + math.sin(shin) * SHIN * side, knee[1] - math.cos(shin) * SHIN)
    return [knee, ankle, (ankle[0] + FOOT * side, ankle[1] - 0.01)]


def _paint_leg(pen: Pen, person: Person, leg: list[tuple[float, float]], offset: float, lift: float) -> None:
    hip = (offset, lift)
    knee, ankle, toe = ((x + offset, y + lift) for x, y in leg)
    middle = ((hip[0] + knee[0]) / 2, (hip[1] + knee[1]) / 2)
    pen.limb(hip, knee, 0.085, person.skin)
    pen.limb(knee, ankle, 0.062, person.kit.socks)
    pen.limb(hip, (knee[0] * 0.7 + middle[0] * 0.3, knee[1] * 0.7 + middle[1] * 0.3), 0.115, person.kit.shorts)
    pen.limb(ankle, toe, 0.045, (40, 40, 40))


def _paint_arm(
    pen: Pen, person: Person, shoulder: tuple[float, float], offset: float, swing: float, side: float
) -> None:
    """Paint sleeve and forearm; `offset` is the shoulder's distance from the neck."""
    sleeve = person.kit.second if person.kit.pattern == "sleeves" else person.kit.shirt
    start = (shoulder[0] + offset, shoulder[1] - 0.03)
    angle = swing * 0.9 + (2.7 if person.arms_up else 0.0)
    out = math.copysign(0.05, offset)
    elbow = (start[0] + math.sin(angle) * ARM * side + out, start[1] - math.cos(angle) * ARM)
    turn = angle + 0.7
    hand = (elbow[0] + math.sin(turn) * FOREARM * side + out * 0.4, elbow[1] - math.cos(turn) * FOREARM)
    pen.limb(elbow, hand, 0.045, person.skin)
    pen.limb(start, elbow, 0.065, sleeve)


def _paint_trunk(
    pen: Pen, person: Person, hip: tuple[float, float], shoulder: tuple[float, float], depth: float
) -> None:
    """Paint shirt and shorts; `depth` is 1 for a chest or back and 0 for a side view."""
    kit = person.kit
    wide, waist = 0.075 + 0.05 * depth, 0.065 + 0.035 * depth
    low = (hip[0], hip[1] - 0.02)
    pen.shape([(low[0] - waist, low[1] - 0.04), (low[0] + waist, low[1] - 0.04), (low[0] + waist, low[1] + 0.07),
               (low[0] - waist, low[1] + 0.07)], kit.shorts)  # fmt: skip
    body = [
        (shoulder[0] - wide, shoulder[1] - 0.02),
        (shoulder[0] - wide * 0.5, shoulder[1]),
        (shoulder[0] + wide * 0.5, shoulder[1]),
        (shoulder[0] + wide, shoulder[1] - 0.02),
        (low[0] + waist, low[1] + 0.05),
        (low[0] - waist, low[1] + 0.05),
    ]
    pen.shape(body, kit.shirt)
    if kit.pattern == "stripes":
        for share in (-0.6, 0.0, 0.6):
            pen.limb(
                (shoulder[0] + share * wide, shoulder[1] - 0.03),
                (low[0] + share * waist, low[1] + 0.06),
                0.02,
                kit.second,
            )
    elif kit.pattern == "hoops":
        for share in (0.2, 0.5, 0.8):
            y = low[1] + 0.05 + share * (shoulder[1] - low[1] - 0.06)
            pen.limb((low[0] - waist, y), (low[0] + waist, y), 0.03, kit.second)


def _paint_head(pen: Pen, person: Person, shoulder: tuple[float, float], side: float, bearing: float) -> None:
    """Paint neck, face and hair; who walks away from the camera shows hair only."""
    centre = (shoulder[0] + 0.015 * side, shoulder[1] + 0.1)
    pen.limb((shoulder[0], shoulder[1] - 0.01), centre, 0.055, person.skin)
    away = math.sin(bearing) > 0.5
    pen.disc(centre, 0.065, person.hair if away else person.skin)
    pen.disc((centre[0] - 0.015 * side, centre[1] + 0.022), 0.055, person.hair)
    if not away:
        pen.disc((centre[0] + 0.02 * side, centre[1] - 0.015), 0.045, person.skin)
