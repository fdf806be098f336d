"""Measures the three models on held-out matches with nothing but NumPy, OpenCV and ONNX Runtime.

A command for people, and an oracle for the server, whose code it shares nothing with. It owns the
plain version of decoding, letterboxing, reading output0, suppression and average precision, and of
cutting and classifying crops. Boxes are x1, y1, x2, y2; those it compares are in source pixels.

    python evaluate.py --model players --seeds 9000-9019 --scenes 6
    python evaluate.py --model ball --clip clip
    python evaluate.py --model teams --boxes players
    python evaluate.py --model ball --latency 500
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from scene import BALL
from shirts import shirt_class

HERE = Path(__file__).parent
DECODE_FLAGS = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
PAD_VALUE = 114
MAX_CANDIDATES, MAX_DETECTIONS = 30_000, 300
LOWEST_SCORE = 0.001  # the whole precision-recall curve is wanted, not one working point
NMS_IOU, MATCH_IOU = 0.45, 0.5
CLASS_NAMES = ("player", "referee", "ball")  # of the ground truth
PERSON_SCORE = 0.25  # of the players model, where its boxes are what is classified


@dataclass(frozen=True)
class Letterbox:
    """How a picture was laid into the network's input: x' = x * scale + left."""

    scale: float
    left: int
    top: int


@dataclass(frozen=True)
class Sample:
    """One JPEG and what is in it: `boxes` (n, 4) source pixels, `classes`, `visible` shares and `shirts` (n,)."""

    jpeg: bytes
    boxes: np.ndarray
    classes: np.ndarray
    visible: np.ndarray
    shirts: list[str]


@dataclass(frozen=True)
class Crop:
    """One person to classify: `picture` is BGR, `label` the class, `visible` the share of the figure in sight."""

    picture: np.ndarray
    label: str
    visible: float


class Network:
    """An ONNX file on one thread, with names and sizes read from its metadata."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.task = metadata["task"]
        self.height, self.width = json.loads(metadata["imgsz"])
        names = metadata["names"].strip("{}").split(", ")
        self.names = [name.split(": ")[1].strip("'") for name in names]

    def run(self, picture: np.ndarray) -> np.ndarray:
        """Return output0 of one picture (height, width, 3) uint8 BGR, without the batch axis."""
        tensor = picture[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255
        return self.session.run(["output0"], {"images": tensor})[0][0]


class Classifier(Network):
    """The teams model."""

    def classify(self, picture: np.ndarray) -> np.ndarray:
        """Return the scores, (classes,), of a crop of any size, uint8 BGR."""
        return self.run(cv2.resize(picture, (self.width, self.height), interpolation=cv2.INTER_LINEAR))


class Model(Network):
    """A detector."""

    def detect(self, jpeg: bytes, decode_divisor: int, lowest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return boxes (n, 4) in source pixels, scores (n,) and classes (n,), best first."""
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), DECODE_FLAGS[decode_divisor])
        canvas, place = letterbox(image, self.height, self.width)
        boxes, scores, classes = suppress(*candidates(self.run(canvas), lowest))
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


def cut(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the part of the picture that the box's whole pixels cover, at least one."""
    rows, columns = image.shape[:2]
    x1, y1 = (int(v) for v in np.clip(np.rint(box[:2]), 0, [columns - 1, rows - 1]))
    x2, y2 = (int(v) for v in np.clip(np.rint(box[2:]), [x1 + 1, y1 + 1], [columns, rows]))
    return image[y1:y2, x1:x2]


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
    kept: list[int] = []
    for index in range(len(boxes)):
        if len(kept) == MAX_DETECTIONS:
            break
        if alive[index]:
            kept.append(index)
            alive[index + 1 :] &= overlaps(apart[index : index + 1], apart[index + 1 :])[0] <= NMS_IOU
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
    for kind, name in enumerate(model.names):
        truths = [sample.boxes[sample.classes == CLASS_NAMES.index(name)] for sample in samples]
        hits = [hits_of(b[c == kind], t) for (b, _, c), t in zip(found, truths, strict=True)]
        scores = np.concatenate([s[c == kind] for _, s, c in found])
        count = sum(map(len, truths))
        results.append((average_precision(scores, np.concatenate(hits), count), count))
    return results


def crops(sample: Sample, detector: Model | None) -> Iterator[Crop]:
    """Cut out everybody, by the ground truth or by the boxes of `detector` that match it."""
    image = cv2.imdecode(np.frombuffer(sample.jpeg, np.uint8), cv2.IMREAD_COLOR)
    people = sample.classes != BALL
    boxes, places = sample.boxes[people], np.flatnonzero(people)
    if detector is not None:
        found, _, kinds = detector.detect(sample.jpeg, 1, PERSON_SCORE)
        found = found[kinds != BALL]
        table = overlaps(boxes, found) if len(found) else np.zeros((len(boxes), 1))
        matched = table.max(1) >= MATCH_IOU
        boxes, places = found[table.argmax(1)[matched]], places[matched]
    for box, place in zip(boxes, places, strict=True):
        yield Crop(cut(image, box), shirt_class(sample.shirts[place]), float(sample.visible[place]))


def rendered(seeds: range, scenes: int, quality: int) -> Iterator[Sample]:
    """Render `scenes` frames of each held-out match, 1920x1080, as 4:2:0 JPEG."""
    from render import Stadium

    for seed in seeds:
        stadium = Stadium(seed)
        for scene in range(scenes):
            picture, truths = stadium.frame(stadium.play(scene), 0.1 + 0.23 * scene)
            jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            yield _sample(jpeg, [(t.kind, t.box, t.visible, t.shirt) for t in truths])


def recorded(folder: Path) -> Iterator[Sample]:
    """Read the frames of a clip that render.py wrote."""
    for entry in json.loads((folder / "ground_truth.json").read_text())["frames"]:
        rows = [(o["class"], o["box"], o["visible"], o.get("shirt", "")) for o in entry["objects"]]
        yield _sample((folder / entry["file"]).read_bytes(), rows)


def _sample(jpeg: bytes, rows: list[tuple[int, Sequence[int], float, str]]) -> Sample:
    return Sample(
        jpeg,
        np.array([box for _, box, _, _ in rows], float).reshape(-1, 4),
        np.array([kind for kind, _, _, _ in rows], int),
        np.array([visible for _, _, visible, _ in rows], float),
        [shirt for _, _, _, shirt in rows],
    )


def print_detection(model: Model, samples: list[Sample]) -> None:
    """Print mAP@0.5, class by class, at every way of decoding."""
    balls = np.concatenate([s.boxes[s.classes == BALL] for s in samples])
    scale = min(model.height / 1080, model.width / 1920)
    across = np.median(balls[:, 2] - balls[:, 0]) * scale
    print(f"{len(samples)} frames; ball {across:.1f} network pixels across (median)")
    print("decode  " + "".join(f"{name:>10}" for name in model.names) + "      mean")
    for divisor in DECODE_FLAGS:
        results = measure(model, samples, divisor)
        values = [value for value, _ in results]
        print(f"1/{divisor}     " + "".join(f"{value:10.4f}" for value in [*values, float(np.mean(values))]))
    print("truths  " + "".join(f"{count:10d}" for _, count in results))


def print_classification(model: Classifier, samples: list[Sample], detector: Model | None) -> None:
    """Print the accuracy over all crops and by the share in sight, and which classes are taken for which."""
    people = [crop for sample in samples for crop in crops(sample, detector)]
    answers = [model.names[int(model.classify(crop.picture).argmax())] for crop in people]
    right = np.array([answer == crop.label for answer, crop in zip(answers, people, strict=True)])
    visible = np.array([crop.visible for crop in people])
    print(f"{len(samples)} frames, {len(people)} crops: accuracy {right.mean():.4f}")
    for low, high in ((0.0, 0.6), (0.6, 0.9), (0.9, 1.01)):
        part = right[(visible >= low) & (visible < high)]
        print(f"  {100 * low:.0f} to {min(100, 100 * high):.0f} % in sight: {part.sum()} of {len(part)}")
    table = Counter((crop.label, answer) for answer, crop in zip(answers, people, strict=True))
    width = max(map(len, model.names)) + 1
    print("true\\told".ljust(width) + "".join(name[:7].rjust(8) for name in model.names))
    for label in model.names:
        print(label.ljust(width) + "".join(str(table[label, name] or ".").rjust(8) for name in model.names))


def print_latency(model: Network, runs: int) -> None:
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
    parser = argparse.ArgumentParser(description="Measure mAP@0.5 of a detector, or the accuracy of the classifier.")
    parser.add_argument("--model", default="players", help="players, ball or teams, or a file")
    parser.add_argument("--seeds", default="9000-9019", help="first-last, both included")
    parser.add_argument("--scenes", type=int, default=10, help="frames of each match")
    parser.add_argument("--quality", type=int, default=75, help="of the JPEG frames")
    parser.add_argument("--clip", type=Path, help="measure this clip instead of rendering")
    parser.add_argument("--boxes", metavar="MODEL", help="classify within this detector's boxes, not the true ones")
    parser.add_argument("--latency", type=int, metavar="RUNS", help="time the network alone instead")
    options = parser.parse_args()
    path = model_path(options.model)
    if options.latency:
        print_latency(Network(path), options.latency)
        return
    first, last = map(int, options.seeds.split("-"))
    seeds = range(first, last + 1)
    samples = list(recorded(options.clip) if options.clip else rendered(seeds, options.scenes, options.quality))
    if Network(path).task == "classify":
        print_classification(Classifier(path), samples, Model(model_path(options.boxes)) if options.boxes else None)
    else:
        print_detection(Model(path), samples)


def model_path(name: str) -> Path:
    """Return the file of a model of this folder, or `name` itself where that is a path."""
    own = HERE / "models" / name / "model.onnx"
    return own if own.exists() else Path(name)


if __name__ == "__main__":
    main()
