"""Renders the training pictures once and keeps them, at network size, in a folder of shards.

`train.py` reads them with `load`; the command makes them. It owns the ways a picture may reach the
network: the server decodes a JPEG at full, half or quarter size and then scales bilinearly, so each
frame is kept in two of those ways (or shrunk by area averaging), and the model learns all of them.
Boxes are cx, cy, w, h in network-input pixels.

    python dataset.py --cache CACHE --seeds 0-249
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from evaluate import DECODE_FLAGS, letterbox
from render import LOOP_SECONDS, Stadium, Truth

HEIGHT, WIDTH = 224, 384
SCENES = 20  # of each match
WAYS = (1, 1, 2, 4, 0)  # decode divisors, full size more often; 0 is area averaging
VARIANTS = 2
SMALLEST = 0.8  # network pixels; what is narrower is no longer in the picture


def make_shard(seed: int) -> dict[str, np.ndarray]:
    """Return `images` (n, 224, 384, 3) uint8 RGB and `objects` (m, 6): image, class, box."""
    rng = np.random.default_rng([seed, 6])
    stadium = Stadium(seed)
    images, objects = [], []
    for scene in range(SCENES):
        picture, truths = stadium.frame(stadium.play(scene), rng.uniform(0, LOOP_SECONDS))
        quality = int(rng.integers(40, 93))
        jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        for way in rng.choice(WAYS, VARIANTS, replace=False):
            objects.append(_rows(len(images), truths))
            images.append(_network_picture(jpeg, int(way)))
    return {"images": np.stack(images), "objects": np.concatenate(objects)}


def load(cache: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return all images (n, 224, 384, 3) and, for each, its objects (m, 5): class, box."""
    shards = [np.load(path) for path in sorted(cache.glob("*.npz"))]
    images = np.concatenate([shard["images"] for shard in shards])
    objects = []
    for shard in shards:
        rows = shard["objects"]
        objects += [rows[rows[:, 0] == index, 1:] for index in range(len(shard["images"]))]
    return images, objects


def _network_picture(jpeg: np.ndarray, way: int) -> np.ndarray:
    image = cv2.imdecode(jpeg, DECODE_FLAGS[way or 1])
    if way == 0:
        image = cv2.resize(image, (WIDTH, image.shape[0] * WIDTH // image.shape[1]), interpolation=cv2.INTER_AREA)
    return letterbox(image, HEIGHT, WIDTH)[0][..., ::-1]


def _rows(image: int, truths: list[Truth]) -> np.ndarray:
    """Return (m, 6) float32: image, class, cx, cy, w, h of 1080p boxes laid into the network's input."""
    rows = []
    for truth in truths:
        x1, y1, x2, y2 = (value * 0.2 for value in truth.box)
        if min(x2 - x1, y2 - y1) >= SMALLEST:
            rows.append((image, truth.kind, (x1 + x2) / 2, (y1 + y2) / 2 + 4, x2 - x1, y2 - y1))
    return np.array(rows, np.float32).reshape(-1, 6)


def main() -> None:
    parser = argparse.ArgumentParser(description="Render training shards, one per match.")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", default="0-249", help="first-last, both included")
    options = parser.parse_args()
    first, last = map(int, options.seeds.split("-"))
    options.cache.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    for seed in range(first, last + 1):
        path = options.cache / f"{seed:05d}.npz"
        if not path.exists():
            np.savez(path, **make_shard(seed))


if __name__ == "__main__":
    main()
