"""CPU time of native post-processing against NumPy with `cv2.dnn.NMSBoxesBatched`: `make bench ONLY=nms`.

The output is that of a yolov8 model of 80 classes at 640x640 (84 x 8400). The headline is a crowd: 2,000 boxes of
three classes above the threshold. The line also carries a sparse scene (100 boxes) and the worst case, in which every
column passes. The baseline picks its candidates with NumPy; OpenCV then compares all of them, having no way to stop
at the 300th kept. Rounds alternate, each is the mean of many calls; `spread` is the range of the ratio over its median.
"""

from __future__ import annotations

import json
import statistics
import time

import cv2
import numpy as np

from headworks_native import nms

ROUNDS = 9
CALLS = 5
BOXES, CLASSES = 8400, 80
SCORE, IOU, KEEP = 0.25, 0.45, 300
AIM_MS = 0.5
HEAD = nms.Postprocessor("yolov8", classes=CLASSES, width=640, height=640, iou_threshold=IOU)


def scene(*, passing: int, classes: int) -> np.ndarray:
    """Return an output in which `passing` columns score above the threshold, in the first `classes` classes."""
    random = np.random.default_rng(passing)
    output = np.empty((4 + CLASSES, BOXES), np.float32)
    output[0:2] = random.uniform(0, 640, (2, BOXES))
    output[2:4] = random.uniform(10, 120, (2, BOXES))
    output[4:] = random.uniform(0, 0.05, (CLASSES, BOXES))
    columns = random.choice(BOXES, passing, replace=False)
    output[4 + random.integers(0, classes, passing), columns] = random.uniform(0.3, 1, passing)
    return output


def native(output: np.ndarray) -> int:
    """Return how many detections the native head finds in a 1080p picture."""
    packed = HEAD.detections(
        output,
        score_threshold=SCORE,
        max_detections=KEEP,
        left=0,
        top=140,
        scale_x=1 / 3,
        scale_y=1 / 3,
        source_width=1920,
        source_height=1080,
    )
    return len(packed) // 24


def opencv(output: np.ndarray) -> int:
    """Return how many the usual NumPy and OpenCV code finds: threshold, best class, NMS per class, un-letterbox."""
    best = output[4:].max(axis=0)
    columns = np.flatnonzero(best > SCORE)
    classes = output[4:, columns].argmax(axis=0).astype(np.int32)
    boxes = output[:4, columns].T.copy()
    boxes[:, :2] -= boxes[:, 2:] / 2
    kept = cv2.dnn.NMSBoxesBatched(boxes, best[columns], classes, SCORE, IOU)[:KEEP]
    boxes[:, 2:] += boxes[:, :2]
    source = (boxes[kept] - [0, 140, 0, 140]) * 3
    return len(np.clip(source, 0, [1920, 1080, 1920, 1080]))


def measure(output: np.ndarray) -> tuple[list[float], list[float]]:
    """Return the CPU milliseconds of a call in each round, of ours and of the baseline."""
    ours, baseline = [], []
    assert abs(native(output) - opencv(output)) <= 0.02 * KEEP
    for _ in range(ROUNDS):
        for way, times in ((native, ours), (opencv, baseline)):
            start = time.thread_time_ns()
            for _ in range(CALLS):
                way(output)
            times.append((time.thread_time_ns() - start) / CALLS / 1e6)
    return ours, baseline


def run() -> dict[str, object]:
    """Measure the three scenes and return the benchmark's line."""
    cv2.setNumThreads(1)
    ours, baseline = measure(scene(passing=2000, classes=3))
    ratios = [mine / theirs for mine, theirs in zip(ours, baseline, strict=True)]
    line: dict[str, object] = {
        "benchmark": "nms",
        "ours": round(statistics.median(ours), 4),
        "baseline": round(statistics.median(baseline), 4),
        "unit": "CPU ms a crowded 84x8400 output",
        "ratio": round(statistics.median(ratios), 4),
        "spread": round((max(ratios) - min(ratios)) / statistics.median(ratios), 3),
        "aim": f"ours at most {AIM_MS}",
        "met": statistics.median(ours) <= AIM_MS,
    }
    for name, passing, classes in (("sparse", 100, CLASSES), ("every_box", BOXES, CLASSES)):
        ours, baseline = measure(scene(passing=passing, classes=classes))
        line[name] = {"ours": round(statistics.median(ours), 4), "baseline": round(statistics.median(baseline), 4)}
    return line


if __name__ == "__main__":
    print(json.dumps(run()))
