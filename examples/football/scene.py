"""What is where: the match, its people, its ball and its camera, without any pixels.

`render.py` asks it for a moment; `figure.py` and `ground.py` paint what it says. It owns the world:
metres, x along the pitch (0..105), y across it (0 is the touch line below the camera, 68 the far
one), z up. Everything follows from integer seeds, and every movement has the period LOOP_SECONDS,
so a clip of that length joins its own beginning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

PITCH_LENGTH, PITCH_WIDTH = 105.0, 68.0
LOOP_SECONDS = 1.6
PLAYER, REFEREE, BALL = 0, 1, 2
BALL_DIAMETER = 0.22

Colour = tuple[int, int, int]  # blue, green, red

# Shirts by name: two teams that meet never wear the same one, nor two that are hard to tell apart.
TEAM_COLOURS: dict[str, Colour] = {
    "red": (40, 40, 200), "blue": (190, 60, 30), "white": (235, 235, 235), "sky": (225, 170, 90),
    "orange": (30, 120, 235), "purple": (120, 30, 110), "green": (60, 130, 20), "maroon": (50, 30, 120),
    "pink": (170, 90, 200), "teal": (160, 150, 20), "navy": (135, 50, 20), "aqua": (200, 215, 130),
}  # fmt: skip
GOALKEEPER_SHIRT, REFEREE_SHIRT = "goalkeeper", "referee"
KEEPER_COLOURS: tuple[Colour, ...] = ((90, 210, 90), (20, 140, 250), (200, 90, 200), (150, 150, 150), (220, 200, 60))
# No team wears these, so that a referee can be told from the picture alone.
REFEREE_COLOURS: tuple[Colour, ...] = ((28, 26, 26), (40, 235, 235))
BLACK: Colour = (26, 24, 24)
SKIN_COLOURS: tuple[Colour, ...] = ((150, 180, 225), (120, 155, 205), (80, 115, 165), (50, 75, 115), (35, 50, 80))
HAIR_COLOURS: tuple[Colour, ...] = ((25, 25, 30), (35, 55, 85), (90, 160, 205), (70, 90, 130))
PATTERNS = ("plain", "plain", "plain", "stripes", "hoops", "sleeves")


@dataclass(frozen=True)
class Kit:
    """What a team wears; `name` tells the shirt, `second` is the colour of stripes, hoops or sleeves."""

    name: str
    shirt: Colour
    second: Colour
    shorts: Colour
    socks: Colour
    pattern: str


@dataclass(frozen=True)
class Light:
    """`sun` is the shadow's ground offset for one metre of height, one entry per light source."""

    gain: float
    tint: tuple[float, float, float]  # blue, green, red
    gamma: float
    sun: tuple[tuple[float, float], ...]
    shadow: float  # 0 none, 1 black
    noise: float  # standard deviation in grey levels
    blur: float  # lens blur in 1080p pixels, a Gaussian's sigma


@dataclass(frozen=True)
class Person:
    """One figure's fixed facts: `orbit` is the radii along x and y (m) and the phase of its movement about `base`."""

    kind: int
    kit: Kit
    skin: Colour
    hair: Colour
    height: float
    base: tuple[float, float]
    orbit: tuple[float, float, float]
    strides: int  # running cycles in a loop
    phase: float
    lean: float
    arms_up: bool

    def place(self, time: float) -> tuple[float, float]:
        """Return the ground point (x, y) in metres under the person."""
        angle = 2 * math.pi * time / LOOP_SECONDS + self.orbit[2]
        return self.base[0] + self.orbit[0] * math.cos(angle), self.base[1] + self.orbit[1] * math.sin(angle)

    def velocity(self, time: float) -> tuple[float, float]:
        """Return (x, y) in metres per second."""
        rate = 2 * math.pi / LOOP_SECONDS
        angle = rate * time + self.orbit[2]
        return -rate * self.orbit[0] * math.sin(angle), rate * self.orbit[1] * math.cos(angle)


@dataclass(frozen=True)
class Camera:
    """A pinhole at `eye` (m): `rows` are its right, down and forward axes; `focal` is in pixels."""

    eye: np.ndarray
    rows: np.ndarray
    focal: float
    width: int
    height: int

    def matrix(self) -> np.ndarray:
        """Return the (3, 3) matrix that takes eye-relative metres to homogeneous pixels."""
        lens = np.array([[self.focal, 0, self.width / 2], [0, self.focal, self.height / 2], [0, 0, 1]])
        return lens @ self.rows

    def project(self, point: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return pixel x, pixel y and the distance (m) along the viewing direction."""
        x, y, depth = self.matrix() @ (np.asarray(point) - self.eye)
        depth = max(depth, 0.1)
        return float(x / depth), float(y / depth), float(depth)


@dataclass(frozen=True)
class Match:
    """What stays the same for a seed: kits, light, grass and where the camera stands."""

    seed: int
    kits: tuple[Kit, Kit]
    keepers: tuple[Kit, Kit]
    referee: Kit
    light: Light
    eye: tuple[float, float, float]


@dataclass(frozen=True)
class Play:
    """One scene of a match, a function of time: people, the ball's two ends, the camera's sweep."""

    match: Match
    people: tuple[Person, ...]
    ball: tuple[tuple[float, float], tuple[float, float], float]  # from, to, top of its arc (m)
    target: tuple[float, float]
    sweep: tuple[float, float]  # metres the view pans to each side, share it zooms
    player_pixels: float  # a 1.8 m player's height at the target, at 1080 rows

    def ball_place(self, time: float) -> tuple[float, float, float]:
        """Return the ball's centre (m); it goes there and back once a loop."""
        share = (1 - math.cos(2 * math.pi * time / LOOP_SECONDS)) / 2
        (x0, y0), (x1, y1), top = self.ball
        return x0 + share * (x1 - x0), y0 + share * (y1 - y0), BALL_DIAMETER / 2 + top * 4 * share * (1 - share)

    def camera(self, time: float, width: int, height: int) -> Camera:
        """Return the camera at `time` for a picture of that size."""
        swing = math.sin(2 * math.pi * time / LOOP_SECONDS)
        look = np.array([self.target[0] + self.sweep[0] * swing, self.target[1], 1.0])
        eye = np.array(self.match.eye)
        distance = float(np.linalg.norm(look - eye))
        forward = (look - eye) / distance
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        rows = np.stack((right, np.cross(forward, right), forward))
        rest = float(np.linalg.norm(np.array([*self.target, 1.0]) - eye))
        focal = self.player_pixels * height / 1080 * rest / 1.8 * (1 + self.sweep[1] * swing)
        return Camera(eye, rows, focal, width, height)


def make_match(seed: int) -> Match:
    """Return the match of `seed`."""
    rng = np.random.default_rng([seed, 1])
    kits = _kits(rng)
    chosen = rng.choice(len(KEEPER_COLOURS), 2, replace=False)
    keepers = tuple(_plain_kit(GOALKEEPER_SHIRT, KEEPER_COLOURS[i]) for i in chosen)
    shirt = REFEREE_COLOURS[int(rng.integers(len(REFEREE_COLOURS)))]
    referee = Kit(REFEREE_SHIRT, shirt, shirt, BLACK, BLACK, "plain")
    eye = (PITCH_LENGTH / 2 + rng.normal(0, 4), rng.uniform(-34, -24), rng.uniform(12, 22))
    return Match(seed, kits, (keepers[0], keepers[1]), referee, _light(rng), eye)


def make_play(match: Match, number: int) -> Play:
    """Return scene `number` of `match`: open play, or a crowd before a goal one time in five."""
    rng = np.random.default_rng([match.seed, 2, number])
    crowd = rng.random() < 0.2
    focus = np.array([rng.choice([9.0, 96.0]), 34.0]) if crowd else np.array([rng.uniform(12, 93), rng.uniform(14, 54)])
    people = [*_team(match, 0, focus, crowd, rng), *_team(match, 1, focus, crowd, rng), *_referees(match, focus, rng)]
    ball_from = focus + rng.normal(0, 4, 2)
    ball_to = ball_from + rng.normal(0, 6, 2)
    top = 0.0 if rng.random() < 0.6 else float(rng.uniform(0.5, 6))
    target = (
        float(np.clip(focus[0] + rng.normal(0, 4), 8, 97)),
        float(np.clip(focus[1] - 4 + rng.normal(0, 4), 8, 52)),
    )
    sweep = (float(rng.uniform(0, 2.5) * rng.choice([-1, 1])), float(rng.uniform(0, 0.06)))
    near = (target[1] - match.eye[1]) / 62  # a far target gets a longer lens, but not all of it
    size = float(np.clip(rng.uniform(70, 112) / near**0.4, 60, 125))
    ball = (tuple(ball_from.tolist()), tuple(ball_to.tolist()), top)
    return Play(match, tuple(people), ball, target, sweep, size)


def _kits(rng: np.random.Generator) -> tuple[Kit, Kit]:
    """Return two kits whose shirts differ clearly."""
    while True:
        first, second = (list(TEAM_COLOURS)[i] for i in rng.choice(len(TEAM_COLOURS), 2, replace=False))
        if sum(abs(a - b) for a, b in zip(TEAM_COLOURS[first], TEAM_COLOURS[second], strict=True)) > 150:
            return _team_kit(first, rng), _team_kit(second, rng)


def _team_kit(name: str, rng: np.random.Generator) -> Kit:
    shirt = TEAM_COLOURS[name]
    white: Colour = (235, 235, 235)
    dark: Colour = tuple(int(c * 0.5) for c in shirt)  # type: ignore[assignment]
    options = [white, dark, shirt]
    second = white if sum(shirt) < 500 else dark
    pattern = PATTERNS[int(rng.integers(len(PATTERNS)))]
    return Kit(name, shirt, second, options[int(rng.integers(3))], options[int(rng.integers(3))], pattern)


def _plain_kit(name: str, colour: Colour) -> Kit:
    return Kit(name, colour, colour, colour, colour, "plain")


def _light(rng: np.random.Generator) -> Light:
    """Return daylight with one long shadow, an overcast sky, or floodlights with four faint ones."""
    sky = rng.choice(["sun", "overcast", "floodlights"])
    if sky == "sun":
        angle, length = rng.uniform(0, 2 * math.pi), rng.uniform(0.4, 1.8)
        sun: tuple[tuple[float, float], ...] = ((length * math.cos(angle), length * math.sin(angle)),)
        shadow = rng.uniform(0.3, 0.55)
    elif sky == "floodlights":
        sun, shadow = ((0.6, 0.5), (-0.6, 0.5), (0.6, -0.5), (-0.6, -0.5)), rng.uniform(0.1, 0.25)
    else:
        sun, shadow = (), 0.25
    warm = rng.uniform(-0.07, 0.07)
    return Light(rng.uniform(0.75, 1.15), (1 - warm, 1.0, 1 + warm), rng.uniform(0.85, 1.2), sun, float(shadow),
                 rng.uniform(1.0, 6.0), rng.uniform(0.0, 1.3))  # fmt: skip


def _team(match: Match, side: int, focus: np.ndarray, crowd: bool, rng: np.random.Generator) -> list[Person]:
    """Return eleven players in a loose 4-4-2 drawn towards `focus`, or most of them about it."""
    away = side == 1
    people = [
        _person(match.keepers[side], PLAYER, _mirrored((4 + rng.uniform(0, 8), 34 + rng.normal(0, 3)), away), rng)
    ]
    for line, count in ((0.0, 4), (14.0, 4), (27.0, 2)):
        for index in range(count):
            home = np.array([22 + line, 34 + (index - (count - 1) / 2) * 44 / count])
            spot = np.array(_mirrored((home[0], home[1]), away))
            spot[0] += 0.75 * (focus[0] - (36.0 if not away else 69.0))
            spot[1] += 0.35 * (focus[1] - 34)
            if crowd and rng.random() < 0.75:
                spot = focus + rng.normal(0, (3.5, 6))
            elif rng.random() < 0.3:
                spot += 0.6 * (focus - spot)
            spot += rng.normal(0, 3, 2)
            people.append(_person(match.kits[side], PLAYER, (float(spot[0]), float(spot[1])), rng))
    return people


def _mirrored(spot: tuple[float, float], away: bool) -> tuple[float, float]:
    return (PITCH_LENGTH - spot[0], spot[1]) if away else spot


def _referees(match: Match, focus: np.ndarray, rng: np.random.Generator) -> list[Person]:
    """Return the referee, some metres from play, and the two assistants on their touch lines."""
    angle = rng.uniform(0, 2 * math.pi)
    spot = focus + rng.uniform(5, 14) * np.array([math.cos(angle), math.sin(angle)])
    near = (float(np.clip(focus[0] + rng.normal(8, 6), 52, 105)), -0.8)
    far = (float(np.clip(focus[0] - rng.normal(8, 6), 0, 53)), PITCH_WIDTH + 0.8)
    return [_person(match.referee, REFEREE, (float(x), float(y)), rng) for x, y in (spot, near, far)]


def _person(kit: Kit, kind: int, base: tuple[float, float], rng: np.random.Generator) -> Person:
    pace = float(rng.choice([0.05, 0.4, 1.0]))
    radii = np.abs(rng.normal(0.6, 0.5, 2)) * pace
    spot = (float(np.clip(base[0], -2, 107)), float(np.clip(base[1], -1.2, 69.2)))
    return Person(
        kind=kind,
        kit=kit,
        skin=SKIN_COLOURS[int(rng.integers(len(SKIN_COLOURS)))],
        hair=HAIR_COLOURS[int(rng.integers(len(HAIR_COLOURS)))],
        height=float(rng.normal(1.81, 0.06)),
        base=spot,
        orbit=(float(radii[0]), float(radii[1]), float(rng.uniform(0, 6.28))),
        strides=int(rng.integers(1, 4)),
        phase=float(rng.uniform(0, 6.28)),
        lean=float(rng.normal(0, 0.08)),
        arms_up=bool(rng.random() < 0.05),
    )
