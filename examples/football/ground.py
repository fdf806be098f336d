"""Paints everything without a box: grass, lines, boards, stands and goals.

`render.py` makes one `Ground` per match and calls `paint` for every frame. It owns the textures,
which are flat pictures laid on planes of the world (metres, see `scene.py`) and warped into view.
"""

from __future__ import annotations

import cv2
import numpy as np
from scene import PITCH_LENGTH, PITCH_WIDTH, Camera, Match

SCALE = 16  # texture pixels a metre on the ground
WEST, EAST, SOUTH, NORTH = -16.0, PITCH_LENGTH + 16, -12.0, PITCH_WIDTH + 10
BOARD_HEIGHT = 0.95
LINE = (225, 232, 228)
GOAL_HALF, GOAL_TOP = 3.66, 2.44

Point = tuple[float, float, float]


class Ground:
    """The textures of one match, and the painter that lays them under the camera."""

    def __init__(self, match: Match) -> None:
        rng = np.random.default_rng([match.seed, 3])
        self.grass = grass_texture(rng)
        self.boards = board_texture(rng)
        self.stand = stand_texture(rng)
        self.sky = int(rng.integers(30, 110))

    def paint(self, frame: np.ndarray, camera: Camera) -> None:
        """Fill `frame`, (h, w, 3) uint8 BGR, with the empty stadium."""
        frame[:] = self.sky
        west, east, north = WEST + 9, EAST - 9, NORTH - 4
        stands = (((west - 2, SOUTH), (west - 2, north + 2)), ((west - 2, north + 2), (east + 2, north + 2)),
                  ((east + 2, north + 2), (east + 2, SOUTH)))  # fmt: skip
        fences = (((west, SOUTH), (west, north)), ((west, north), (east, north)), ((east, north), (east, SOUTH)))
        for (x0, y0), (x1, y1) in stands:
            back = ((x0 + x1 - 2 * 52.5) * 0.25, 22.0 if y0 == y1 else 0.0)  # rows climb away from the pitch
            lay(
                frame,
                self.stand,
                camera,
                (x0 + back[0], y0 + back[1], 14.0),
                (x1 + back[0], y1 + back[1], 14.0),
                (x0, y0, 1.2),
            )
        lay(frame, self.grass, camera, (WEST, NORTH, 0), (EAST, NORTH, 0), (WEST, SOUTH, 0))
        for (x0, y0), (x1, y1) in fences:
            lay(frame, self.boards, camera, (x0, y0, BOARD_HEIGHT), (x1, y1, BOARD_HEIGHT), (x0, y0, 0))
        for x, behind in ((0.0, -2.0), (PITCH_LENGTH, 2.0)):
            _paint_goal(frame, camera, x, behind)


def lay(frame: np.ndarray, texture: np.ndarray, camera: Camera, corner: Point, right: Point, below: Point) -> None:
    """Warp a texture onto the parallelogram whose top left, top right and bottom left are given."""
    origin, across, down = (np.asarray(p, float) for p in (corner, right, below))
    height, width = texture.shape[:2]
    depths = [camera.rows[2] @ (p - camera.eye) for p in (origin, across, down, across + down - origin)]
    if max(depths) <= 1.0 or (min(depths) <= 1.0 and texture.shape[0] < 1000):
        return  # behind the camera, which never looks back
    columns = np.stack(((across - origin) / width, (down - origin) / height, origin - camera.eye), axis=1)
    matrix = camera.matrix() @ columns
    size = (frame.shape[1], frame.shape[0])
    if min(depths) > 1.0:
        corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], float) @ matrix.T
        points = corners[:, :2] / corners[:, 2:]
        low = np.clip(np.floor(points.min(0)), 0, size).astype(int)
        high = np.clip(np.ceil(points.max(0)) + 1, 0, size).astype(int)
    else:
        low, high = np.zeros(2, int), np.array(size)
    if (high - low).min() < 2:
        return
    shift = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1]], float)
    part = frame[low[1] : high[1], low[0] : high[0]]
    warped = np.ascontiguousarray(part)
    cv2.warpPerspective(texture, shift @ matrix, (part.shape[1], part.shape[0]), dst=warped,
                        flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_TRANSPARENT)  # fmt: skip
    part[:] = warped


def grass_texture(rng: np.random.Generator) -> np.ndarray:
    """Return the ground from above, (h, w, 3) uint8 BGR, north at the top."""
    width, height = round((EAST - WEST) * SCALE), round((NORTH - SOUTH) * SCALE)
    base = np.array([rng.uniform(45, 75), rng.uniform(115, 150), rng.uniform(60, 100)], np.float32)
    x = WEST + (np.arange(width, dtype=np.float32) + 0.5) / SCALE
    y = NORTH - (np.arange(height, dtype=np.float32) + 0.5) / SCALE
    step = float(rng.choice([5.25, 7.5, 10.5]))
    stripes = np.sign(np.sin(np.pi * x / step))[None, :]
    if rng.random() < 0.3:
        stripes = stripes * np.sign(np.sin(np.pi * y / step))[:, None]
    mottle = cv2.resize(
        rng.normal(0, 1, (height // 40, width // 40)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    blades = np.resize(rng.normal(0, 1, 400_009).astype(np.float32), (height, width))
    tone = 1 + rng.uniform(0.02, 0.09) * stripes + rng.uniform(0.01, 0.04) * mottle + rng.uniform(0.02, 0.05) * blades
    grass = tone[..., None] * base
    outside = (x[None, :] < -4) | (x[None, :] > PITCH_LENGTH + 4) | (y[:, None] < -4) | (y[:, None] > PITCH_WIDTH + 3)
    if rng.random() < 0.5:  # a running track or plain concrete beside the grass
        track = np.array([(80, 85, 150), (120, 120, 120)][int(rng.integers(2))], np.float32)
        grass = np.where(outside[..., None], track * (1 + 0.03 * blades)[..., None], grass)
    grass = np.clip(grass, 0, 255).astype(np.uint8)
    _mark_lines(grass)
    return grass


def board_texture(rng: np.random.Generator) -> np.ndarray:
    """Return a strip of advertising boards, (48, 3072, 3) uint8."""
    strip = np.zeros((48, 3072, 3), np.uint8)
    left = 0
    while left < strip.shape[1]:
        right = left + int(rng.integers(120, 360))
        strip[:, left:right] = rng.integers(0, 256, 3)
        word = "".join(chr(c) for c in rng.integers(65, 91, int(rng.integers(3, 9))))
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        cv2.putText(strip, word, (left + 8, 37), cv2.FONT_HERSHEY_DUPLEX, 1.1, colour, 3)
        left = right
    return strip


def stand_texture(rng: np.random.Generator) -> np.ndarray:
    """Return rows of spectators, (220, 2400, 3) uint8: heads above clothes of all colours."""
    stand = np.full((220, 2400, 3), int(rng.integers(40, 100)), np.uint8)
    fullness = rng.uniform(0.3, 0.95)
    for row in range(12, 220, 14):
        stand[row + 3 : row + 5] = int(rng.integers(90, 150))
        for x in np.flatnonzero(rng.random(2400 // 10) < fullness) * 10 + 5:
            place = (int(x + rng.integers(-2, 3)), row + int(rng.integers(-2, 2)))
            cloth = tuple(int(0.45 * c + 0.3 * rng.integers(20, 230)) for c in rng.integers(20, 230, 3))
            skin = int(rng.integers(60, 220))
            cv2.ellipse(stand, place, (4, 6), 0, 0, 360, cloth, -1)
            cv2.circle(stand, (place[0], place[1] - 7), 2, (int(skin * 0.7), int(skin * 0.85), skin), -1)
    return stand


def _mark_lines(grass: np.ndarray) -> None:
    """Draw the lines of the pitch into the ground texture."""

    def at(x: float, y: float) -> tuple[int, int]:
        return round((x - WEST) * SCALE), round((NORTH - y) * SCALE)

    def box(x0: float, y0: float, x1: float, y1: float) -> None:
        cv2.rectangle(grass, at(x0, y0), at(x1, y1), LINE, 2, cv2.LINE_AA)

    middle = PITCH_WIDTH / 2
    box(0, 0, PITCH_LENGTH, PITCH_WIDTH)
    cv2.line(grass, at(PITCH_LENGTH / 2, 0), at(PITCH_LENGTH / 2, PITCH_WIDTH), LINE, 2, cv2.LINE_AA)
    cv2.circle(grass, at(PITCH_LENGTH / 2, middle), round(9.15 * SCALE), LINE, 2, cv2.LINE_AA)
    cv2.circle(grass, at(PITCH_LENGTH / 2, middle), 3, LINE, -1, cv2.LINE_AA)
    for goal, inward in ((0.0, 1.0), (PITCH_LENGTH, -1.0)):
        box(goal, middle - 20.16, goal + 16.5 * inward, middle + 20.16)
        box(goal, middle - 9.16, goal + 5.5 * inward, middle + 9.16)
        spot = at(goal + 11 * inward, middle)
        cv2.circle(grass, spot, 2, LINE, -1, cv2.LINE_AA)
        start = 0 if inward > 0 else 180
        cv2.ellipse(grass, spot, (round(9.15 * SCALE),) * 2, 0, start - 53, start + 53, LINE, 2, cv2.LINE_AA)


def _paint_goal(frame: np.ndarray, camera: Camera, x: float, behind: float) -> None:
    """Draw posts, bar and a coarse net; `behind` is the net's depth (m, signed)."""
    low, high = PITCH_WIDTH / 2 - GOAL_HALF, PITCH_WIDTH / 2 + GOAL_HALF
    nets = [((x + behind, y, 0.0), (x + behind * 0.4, y, GOAL_TOP)) for y in np.linspace(low, high, 13)]
    nets += [
        ((x + behind * (1 - 0.6 * z), low, z * GOAL_TOP), (x + behind * (1 - 0.6 * z), high, z * GOAL_TOP))
        for z in np.linspace(0, 1, 6)
    ]
    for start, end in nets:
        _stroke(frame, camera, start, end, 0.02, (170, 180, 175))
    posts: tuple[tuple[Point, Point], ...] = (
        ((x, low, 0), (x, low, GOAL_TOP)),
        ((x, high, 0), (x, high, GOAL_TOP)),
        ((x, low, GOAL_TOP), (x, high, GOAL_TOP)),
    )
    for start, end in posts:
        _stroke(frame, camera, start, end, 0.12, (240, 240, 240))


def _stroke(
    frame: np.ndarray, camera: Camera, start: Point, end: Point, metres: float, colour: tuple[int, int, int]
) -> None:
    x0, y0, near = camera.project(start)
    x1, y1, far = camera.project(end)
    if near <= 1.0 or far <= 1.0 or max(abs(x0), abs(y0), abs(x1), abs(y1)) > 20_000:
        return
    width = max(1, round(metres * camera.focal / near))
    cv2.line(frame, (round(x0 * 16), round(y0 * 16)), (round(x1 * 16), round(y1 * 16)), colour, width, cv2.LINE_AA, 4)
