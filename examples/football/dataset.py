"""Renders the training pictures once and keeps what the three models see of them in a folder of shards.

`train.py` and `train_teams.py` read them with the `load_` functions; the command makes them. It owns the
ways a picture may reach a network: the server decodes a JPEG at full, half or quarter size and then
scales bilinearly, so the players' pictures are kept in two of those ways (or shrunk by area averaging),
the ball's at full or half size, and the models learn all of them. Detectors' boxes are cx, cy, w, h in
network-input pixels.

    python dataset.py --cache CACHE --seeds 0-199
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from evaluate import DECODE_FLAGS, cut, letterbox
from render import LOOP_SECONDS, Stadium, Truth
from scene import BALL
from shirts import SHIRT_CLASSES, SHIRTS, shirt_class

SCENES = 20  # of each match
PLAYERS_HEIGHT, PLAYERS_WIDTH, PLAYERS_SCALE = 224, 384, 0.2
WAYS = (1, 1, 2, 4, 0)  # decode divisors, full size more often; 0 is area averaging
VARIANTS = 2
SMALLEST = 0.8  # network pixels; what is narrower is no longer in the picture
BALL_HEIGHT, BALL_WIDTH, BALL_SCALE = 544, 960, 0.5
BALL_WAYS = (1, 2, 2)  # half a 1080p JPEG is exactly the network's size
CROP_HEIGHT, CROP_WIDTH = 64, 32
BOX_ERROR = 0.05  # of a box's side, as a detector makes it: the crops' standard deviation


def frames(seed: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, list[Truth]]]:
    """Yield one JPEG, 1920x1080 and 4:2:0, of every scene of a match with its ground truth."""
    stadium = Stadium(seed)
    for scene in range(SCENES):
        picture, truths = stadium.frame(stadium.play(scene), rng.uniform(0, LOOP_SECONDS))
        quality = int(rng.integers(40, 93))
        yield cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], truths


def write_shards(cache: Path, seed: int) -> None:
    """Write the three shards of a match; what the players' holds does not depend on the others."""
    rng, other = np.random.default_rng([seed, 6]), np.random.default_rng([seed, 7])
    images, objects, pictures, balls, crops, labels = [], [], [], [], [], []
    for scene, (jpeg, truths) in enumerate(frames(seed, rng)):
        for way in rng.choice(WAYS, VARIANTS, replace=False):
            objects.append(_rows(len(images), truths, PLAYERS_SCALE))
            images.append(_network_picture(jpeg, int(way), PLAYERS_HEIGHT, PLAYERS_WIDTH))
        way = int(other.choice(BALL_WAYS))
        pictures.append(_network_picture(jpeg, way, BALL_HEIGHT, BALL_WIDTH))
        balls.append(_rows(scene, [t for t in truths if t.kind == BALL], BALL_SCALE))
        people = [truth for truth in truths if truth.kind != BALL]
        crops += _crops(jpeg, people, other)
        labels += [SHIRTS.index(truth.shirt) for truth in people]
    for name in ("players", "ball", "teams"):
        (cache / name).mkdir(parents=True, exist_ok=True)
    # The ball's pictures are many and large: as a plain array they need not be read into memory.
    np.save(cache / f"ball/{seed:05d}.npy", np.stack(pictures))
    np.savez(cache / f"ball/{seed:05d}.npz", objects=np.concatenate(balls))
    np.savez(cache / f"teams/{seed:05d}.npz", crops=np.stack(crops), labels=np.array(labels))
    np.savez(cache / f"players/{seed:05d}.npz", images=np.stack(images), objects=np.concatenate(objects))


def load_players(cache: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return pictures (224, 384, 3) uint8 RGB and, for each, its objects (m, 5): class, box."""
    images, objects = [], []
    for path in sorted((cache / "players").glob("*.npz")):
        shard = np.load(path)
        images += list(shard["images"])
        objects += _by_image(shard["objects"], 2 * SCENES)
    return images, objects


def load_ball(cache: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return pictures (544, 960, 3) uint8 RGB, left on disk, and, for each, its objects (m, 5): class 0, box."""
    images, objects = [], []
    for path in sorted((cache / "ball").glob("*.npz")):
        images += list(np.load(path.with_suffix(".npy"), mmap_mode="r"))
        objects += _by_image(np.load(path)["objects"], SCENES)
    for rows in objects:
        rows[:, 0] = 0
    return images, objects


def load_crops(cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return crops (n, 64, 32, 3) uint8 RGB and classes (n,)."""
    shards = [np.load(path) for path in sorted((cache / "teams").glob("*.npz"))]
    classes = np.array([SHIRT_CLASSES.index(shirt_class(shirt)) for shirt in SHIRTS])
    return np.concatenate([s["crops"] for s in shards]), classes[np.concatenate([s["labels"] for s in shards])]


def _by_image(rows: np.ndarray, count: int) -> list[np.ndarray]:
    return [rows[rows[:, 0] == index, 1:] for index in range(count)]


def _network_picture(jpeg: np.ndarray, way: int, height: int, width: int) -> np.ndarray:
    image = cv2.imdecode(jpeg, DECODE_FLAGS[way or 1])
    if way == 0:
        image = cv2.resize(image, (width, image.shape[0] * width // image.shape[1]), interpolation=cv2.INTER_AREA)
    return letterbox(image, height, width)[0][..., ::-1]


def _rows(image: int, truths: list[Truth], scale: float) -> np.ndarray:
    """Return (m, 6) float32: image, class, cx, cy, w, h of 1080p boxes laid into the network's input."""
    top = {PLAYERS_SCALE: 4, BALL_SCALE: 2}[scale]
    rows = []
    for truth in truths:
        x1, y1, x2, y2 = (value * scale for value in truth.box)
        if min(x2 - x1, y2 - y1) >= SMALLEST:
            rows.append((image, truth.kind, (x1 + x2) / 2, (y1 + y2) / 2 + top, x2 - x1, y2 - y1))
    return np.array(rows, np.float32).reshape(-1, 6)


def _crops(jpeg: np.ndarray, people: list[Truth], rng: np.random.Generator) -> list[np.ndarray]:
    """Return (64, 32, 3) RGB of everybody, cut with the error that a detector's boxes have."""
    image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    crops = []
    for truth in people:
        x1, y1, x2, y2 = truth.box
        error = rng.normal(0, BOX_ERROR, 4) * np.array([x2 - x1, y2 - y1] * 2)
        crop = cut(image, np.array(truth.box) + error)
        crops.append(cv2.resize(crop, (CROP_WIDTH, CROP_HEIGHT), interpolation=cv2.INTER_LINEAR)[..., ::-1])
    return crops


def main() -> None:
    parser = argparse.ArgumentParser(description="Render training shards, three per match.")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", default="0-199", help="first-last, both included")
    options = parser.parse_args()
    first, last = map(int, options.seeds.split("-"))
    cv2.setNumThreads(1)
    for seed in range(first, last + 1):
        if not (options.cache / f"players/{seed:05d}.npz").exists():  # the last of the three
            write_shards(options.cache, seed)


if __name__ == "__main__":
    main()
