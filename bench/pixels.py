"""CPU time of the fused pixel kernel against the usual ways in Python: `make bench ONLY=pixels`.

All turn a BGR picture of the network's size into scaled float32 RGB planes on one thread; the kernel and NumPy write
into an array that is there, `cv2.dnn.blobFromImage` returns a new one each time. The baseline is the faster of the
two; the line also carries each of them, and all three at the example model's 384x224. Rounds alternate, each is the
mean of many calls; `spread` is the range of the ratio over its median.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np

from headworks_native import pixels

ROUNDS = 9
CALLS = 50
SCALE = 1 / 255
AIM_MS = 0.2


def ways(*, height: int, width: int) -> dict[str, Callable[[], object]]:
    """Return the three ways from one random picture to one network input."""
    picture = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    position = np.zeros((1, 3, height, width), np.float32)
    canvas = pixels.Canvas(position, positions=1, height=height, width=width, form="f32_chw", scale=SCALE)

    def fused() -> None:
        canvas.paint(0, picture, left=0, top=0, swap=True)

    def blob() -> np.ndarray:
        return cv2.dnn.blobFromImage(picture, SCALE, swapRB=True)

    def plain() -> None:
        np.multiply(picture[..., ::-1].transpose(2, 0, 1), np.float32(SCALE), out=position[0])

    fused()
    assert np.allclose(position, blob(), atol=1e-6)
    return {"fused": fused, "blob": blob, "numpy": plain}


def measure(ways: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Return the CPU milliseconds of a call in each round, for each way."""
    rounds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.thread_time_ns()
            for _ in range(CALLS):
                way()
            rounds[name].append((time.thread_time_ns() - start) / CALLS / 1e6)
    return rounds


def run() -> dict[str, object]:
    """Measure both sizes and return the benchmark's line; its headline is 640x640."""
    cv2.setNumThreads(1)
    rounds = measure(ways(height=640, width=640))
    large = medians(rounds)
    baseline = min(("blob", "numpy"), key=lambda name: large[name])
    ratios = [ours / theirs for ours, theirs in zip(rounds["fused"], rounds[baseline], strict=True)]
    return {
        "benchmark": "pixels",
        "ours": large["fused"],
        "baseline": large[baseline],
        "unit": "CPU ms a picture of 640x640",
        "ratio": round(statistics.median(ratios), 3),
        "spread": round((max(ratios) - min(ratios)) / statistics.median(ratios), 3),
        "aim": f"ours at most {AIM_MS}",
        "met": large["fused"] <= AIM_MS,
        "variant": pixels.variants()[0],
        "at_640x640": large,
        "at_384x224": medians(measure(ways(height=224, width=384))),
    }


def medians(rounds: dict[str, list[float]]) -> dict[str, float]:
    """Return the median of each way's rounds."""
    return {name: round(statistics.median(values), 4) for name, values in rounds.items()}


if __name__ == "__main__":
    print(json.dumps(run()))
