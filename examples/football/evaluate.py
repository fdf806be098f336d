"""Measures the detector on held-out matches with nothing but NumPy, OpenCV and ONNX Runtime.

A command for people, and an oracle for the server, whose code it shares nothing with. It owns the
plain version of decoding, letterboxing, reading output0, suppression and average precision. Boxes
are x1, y1, x2, y2; those it compares are in source pixels.

    python evaluate.py --seeds 9000-9019 --scenes 6
    python evaluate.py --clip clip
    python evaluate.py --latency 500
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

HERE = Path(__file__).parent
DECODE_FLAGS = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
PAD_VALUE = 114
MAX_CANDIDATES, MAX_DETECTIONS = 30_000, 300
LOWEST_SCORE = 0.001  # the whole precision-recall curve is wanted, not one working point
NMS_IOU, MATCH_IOU = 0.45, 0.5


@dataclass(frozen=True)
class Letterbox:
    """How a picture was laid into the network's input: x' = x * scale + left."""

    scale: float
    left: int
    top: int


@dataclass(frozen=True)
class Sample:
    """One JPEG and what is in it: `boxes` (n, 4) source pixels, `classes` (n,)."""

    jpeg: bytes
    boxes: np.ndarray
    classes: np.ndarray


class Model:
    """The ONNX file on one thread, with names and sizes read from its metadata."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.height, self.width = json.loads(metadata["imgsz"])
        names = metadata["names"].strip("{}").split(", ")
        self.names = [name.split(": ")[1].strip("'") for name in names]

    def detect(self, jpeg: bytes, decode_divisor: int, lowest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return boxes (n, 4) in source pixels, scores (n,) and classes (n,), best first."""
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), DECODE_FLAGS[decode_divisor])
        canvas, place = letterbox(image, self.height, self.width)
        tensor = canvas[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255
        output = self.session.run(["output0"], {"images": tensor})[0][0]
        boxes, scores, classes = suppress(*candidates(output, lowest))
        height, width = image.shape[:2]
        boxes = (boxes - [place.left, place.top] * 2) / place.scale
        return np.clip(boxes, 0, [width, height] * 2) * decode_divisor, scores, classes


def letterbox(image: np.ndarray, height: int, width: int) -> tuple[np.ndarray, Letterbox]:
    """Return (height, width, 3) uint8: the picture scaled bilinearly, centred on grey 114."""
    scale = min(height / image.shape[0], width / image.shape[1])
    inner_width, inner_height = round(image.shape[1] * scale), round(image.shape[0] * scale)
    left = round((width - inner_width) / 2 - 0.1)
    top = round((height - inner_height) / 2 - 0.1)
    canvas = np.full((height, width, 3), PAD_VALUE, np.uint8)
    resized = cv2.resize(image, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR)
    canvas[top : top + inner_height, left : left + inner_width] = resized
    return canvas, Letterbox(scale, left, top)


def candidates(output: np.ndarray, lowest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read (4 + classes, N): the best class of each column whose score is above `lowest`."""
    classes = output[4:].argmax(0)
    scores = output[4:].max(0)
    kept = np.flatnonzero(scores > lowest)
    kept = kept[np.argsort(-scores[kept], kind="stable")][:MAX_CANDIDATES]
    centre, half = output[0:2, kept].T, output[2:4, kept].T / 2
    return np.concatenate((centre - half, centre + half), 1), scores[kept], classes[kept]


def suppress(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Greedy class-aware non-maximum suppression of boxes sorted by falling score."""
    apart = boxes + classes[:, None] * 7680.0
    alive = np.ones(len(boxes), bool)
    kept = []
    for index in range(len(boxes)):
        if alive[index]:
            kept.append(index)
            alive[index + 1 :] &= overlaps(apart[index : index + 1], apart[index + 1 :])[0] <= NMS_IOU
    kept = kept[:MAX_DETECTIONS]
    return boxes[kept], scores[kept], classes[kept]


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return intersection over union, (n, m), of (n, 4) with (m, 4)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), -1)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], -1) for boxes in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None, :] - shared, 1e-9)


def average_precision(scores: np.ndarray, hits: np.ndarray, truths: int) -> float:
    """Return the area under the all-points precision-recall curve."""
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(hits[order])
    recall = np.concatenate(([0.0], found / max(truths, 1), [1.0]))
    precision = np.concatenate(([1.0], found / np.arange(1, len(found) + 1), [0.0]))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * precision[1:]))


def hits_of(boxes: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Return (n,) bool: each box, best first, takes the truth it overlaps most if that is free."""
    hits = np.zeros(len(boxes), bool)
    free = np.ones(len(truths), bool)
    if len(truths):
        table = overlaps(boxes, truths)
        for index, row in enumerate(table):
            best = int(np.argmax(np.where(free, row, -1.0)))
            if free[best] and row[best] >= MATCH_IOU:
                hits[index], free[best] = True, False
    return hits


def measure(model: Model, samples: list[Sample], decode_divisor: int) -> list[tuple[float, int]]:
    """Return average precision at IoU 0.5 and the number of truths, class by class."""
    found = [model.detect(sample.jpeg, decode_divisor, LOWEST_SCORE) for sample in samples]
    results = []
    for kind in range(len(model.names)):
        truths = [sample.boxes[sample.classes == kind] for sample in samples]
        hits = [hits_of(b[c == kind], t) for (b, _, c), t in zip(found, truths, strict=True)]
        scores = np.concatenate([s[c == kind] for _, s, c in found])
        count = sum(map(len, truths))
        results.append((average_precision(scores, np.concatenate(hits), count), count))
    return results


def rendered(seeds: range, scenes: int, quality: int) -> Iterator[Sample]:
    """Render `scenes` frames of each held-out match, 1920x1080, as 4:2:0 JPEG."""
    from render import Stadium

    for seed in seeds:
        stadium = Stadium(seed)
        for scene in range(scenes):
            picture, truths = stadium.frame(stadium.play(scene), 0.1 + 0.23 * scene)
            jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            yield Sample(jpeg, np.array([t.box for t in truths], float).reshape(-1, 4),
                         np.array([t.kind for t in truths], int))  # fmt: skip


def recorded(folder: Path) -> Iterator[Sample]:
    """Read the frames of a clip that render.py wrote."""
    for entry in json.loads((folder / "ground_truth.json").read_text())["frames"]:
        boxes = np.array([o["box"] for o in entry["objects"]], float).reshape(-1, 4)
        yield Sample(
            (folder / entry["file"]).read_bytes(), boxes, np.array([o["class"] for o in entry["objects"]], int)
        )


def print_latency(model: Model, runs: int) -> None:
    """Print what one picture costs on one thread, processor time and wall time in milliseconds."""
    images = np.random.default_rng(0).random((1, 3, model.height, model.width), np.float32)
    for _ in range(20):
        model.session.run(["output0"], {"images": images})
    processor, wall = np.empty(runs), np.empty(runs)
    for index in range(runs):
        started, used = time.perf_counter(), time.process_time()
        model.session.run(["output0"], {"images": images})
        processor[index], wall[index] = time.process_time() - used, time.perf_counter() - started
    for name, seconds in (("processor", processor), ("wall", wall)):
        median, high = np.percentile(seconds, (50, 99)) * 1e3
        print(f"{name} time, {runs} runs: median {median:.2f} ms, p99 {high:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure mAP@0.5 of the players model.")
    parser.add_argument("--model", type=Path, default=HERE / "models/players/model.onnx")
    parser.add_argument("--seeds", default="9000-9019", help="first-last, both included")
    parser.add_argument("--scenes", type=int, default=10, help="frames of each match")
    parser.add_argument("--quality", type=int, default=75, help="of the JPEG frames")
    parser.add_argument("--clip", type=Path, help="measure this clip instead of rendering")
    parser.add_argument("--latency", type=int, metavar="RUNS", help="time the network alone instead")
    options = parser.parse_args()
    if options.latency:
        print_latency(Model(options.model), options.latency)
        return
    first, last = map(int, options.seeds.split("-"))
    model = Model(options.model)
    source = (
        recorded(options.clip) if options.clip else rendered(range(first, last + 1), options.scenes, options.quality)
    )
    samples = list(source)
    sizes = np.concatenate([s.boxes[s.classes == 2] for s in samples])
    scale = min(model.height / 1080, model.width / 1920)
    print(
        f"{len(samples)} frames; ball {np.median(sizes[:, 2] - sizes[:, 0]) * scale:.1f} network pixels across (median)"
    )
    print("decode  " + "".join(f"{name:>10}" for name in model.names) + "      mean")
    for divisor in DECODE_FLAGS:
        results = measure(model, samples, divisor)
        values = [value for value, _ in results]
        print(f"1/{divisor}     " + "".join(f"{value:10.4f}" for value in [*values, float(np.mean(values))]))
    print("truths  " + "".join(f"{count:10d}" for _, count in results))


if __name__ == "__main__":
    main()
