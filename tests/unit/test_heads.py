"""The detectors' heads: the outputs they accept, and boxes in source pixels, held against plain NumPy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headworks_server.engine.base import InputSpec, ModelSpec, OutputSpec, PostprocessSpec, PreprocessSpec, TensorSpec
from headworks_server.errors import ModelError
from headworks_server.media.geometry import Geometry, Resize
from headworks_server.media.heads import Head, make_heads
from support.plain_nms import DETECTION

LABELS = ("player", "referee", "ball")
SQUARE = InputSpec(name="images", dtype="float32", layout="nchw", width=640, height=640)
SHAPES = {"yolov8": (7, 8400), "yolov5": (25200, 8), "yolox": (8400, 8), "yolo_end2end": (300, 6)}
Box = tuple[float, float, float, float]


def model(
    head: str, *, labels: tuple[str, ...] = LABELS, postprocess: PostprocessSpec | None = None, **output: Any
) -> ModelSpec:
    """A model of one output; `output` is as in OutputSpec, or `shape` and `dtype` of the tensor."""
    tensor = TensorSpec(name="output0", shape=output.pop("shape", None), dtype=output.pop("dtype", "float32"))
    if head == "yolo_end2end":
        output.setdefault("boxes", "xyxy")
    return ModelSpec(
        name="match",
        path=Path("models/match/model.onnx"),
        labels=labels,
        input=SQUARE,
        output=OutputSpec(head=head, tensors=(tensor,), **output),
        postprocess=postprocess or PostprocessSpec(),
    )


def head_of(head: str, **options: Any) -> Head:
    return make_heads(model(head, **options))[1]


def place(width: int = 640, height: int = 640, **resize: Any) -> Geometry:
    return Resize.of(SQUARE, PreprocessSpec(**resize)).place(width, height)


def output_of(head: str, *boxes: tuple[Box, int, float]) -> np.ndarray:
    """The output in which boxes of x1, y1, x2, y2 in network pixels have a class and a score, for a batch of two."""
    count = max(len(boxes), 2)
    corners, classes, scores = np.zeros((count, 4)), np.zeros(count, int), np.zeros(count)
    for row, (box, class_id, score) in enumerate(boxes):
        corners[row], classes[row], scores[row] = box, class_id, score
    centres = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
    one_hot = np.eye(len(LABELS))[classes]
    if head == "yolov8":
        frame = np.concatenate([centres, one_hot * scores[:, None]], axis=1).T
    elif head == "yolov5":
        frame = np.concatenate([centres, scores[:, None], one_hot], axis=1)
    elif head == "yolo_end2end":
        frame = np.stack([*corners.T, scores, classes], axis=1)
    else:
        frame = np.zeros((8400, 8))
        for row, (x, y, width, height) in enumerate(centres[: len(boxes)]):
            # Cell (row, 0) of the finest grid, whose offsets may be of any size.
            frame[row] = x / 8 - row, y / 8, np.log(width / 8), np.log(height / 8), scores[row], *one_hot[row]
    return np.stack([np.zeros_like(frame), frame]).astype(np.float32)


def detect(head: Head, output: np.ndarray, geometry: Geometry, **asked: Any) -> np.ndarray:
    """Postprocess the second frame of a batch."""
    asked = {"score_threshold": 0.0, "max_detections": 0} | asked
    detections, value = head.postprocess([output], 1, geometry, **asked)
    assert value == b""
    return np.frombuffer(detections, DETECTION)


def corners(detections: np.ndarray) -> list[list[float]]:
    return [[float(row[name]) for name in ("x1", "y1", "x2", "y2")] for row in detections]


@pytest.mark.parametrize("head", SHAPES)
def test_boxes_come_back_in_source_pixels(head: str) -> None:
    """Pads are taken off, the scale undone, boxes clipped to the source; best first, each with its class."""
    output = output_of(head, ((288, 302, 352, 338), 2, 0.5), ((-20, 120, 20, 160), 0, 0.75))
    found = detect(head_of(head), output, place(1920, 1080))
    assert found["class_id"].tolist() == [0, 2]
    assert found["score"].tolist() == [0.75, 0.5]
    assert corners(found) == [pytest.approx((0, 0, 60, 60), abs=1e-2), pytest.approx((864, 486, 1056, 594), abs=1e-2)]


@pytest.mark.parametrize("head", SHAPES)
@pytest.mark.parametrize(
    ("resize", "source"),
    [
        ({"resize": "stretch"}, (1920, 1080)),
        ({"resize": "center_crop", "crop_pct": 0.875}, (1920, 1080)),
        ({"resize": "fit_shorter"}, (360, 1280)),
        ({"anchor": "top_left", "rounding": "floor"}, (1001, 777)),
        ({"scale_up": False}, (320, 180)),
    ],
)
def test_every_way_of_resizing_is_undone(head: str, resize: dict[str, Any], source: tuple[int, int]) -> None:
    """A box drawn in the source comes back where it was drawn, however the picture was laid into the input."""
    geometry = place(*source, **resize)
    drawn = np.array([0.45, 0.45, 0.55, 0.6]) * [*source, *source]
    scales, corner = (geometry.scale_x, geometry.scale_y), (geometry.left, geometry.top)
    network = drawn * np.tile(scales, 2) + np.tile(corner, 2)
    found = detect(head_of(head), output_of(head, (tuple(network), 1, 0.5)), geometry)
    assert corners(found) == [pytest.approx(tuple(drawn), rel=1e-4)]


@pytest.mark.parametrize("head", SHAPES)
def test_a_better_box_suppresses_its_like(head: str) -> None:
    """Of two boxes of a class that overlap by more than the threshold one stays; end to end the graph has done it."""
    boxes = [((100, 100, 200, 200), 0, 0.5), ((110, 100, 210, 200), 0, 0.75), ((110, 100, 210, 200), 1, 0.25)]
    postprocess = PostprocessSpec(score_threshold=0.1, iou_threshold=0.5)
    found = detect(head_of(head, postprocess=postprocess), output_of(head, *boxes), place())
    kept = [0.75, 0.5, 0.25] if head == "yolo_end2end" else [0.75, 0.25]
    assert found["score"].tolist() == kept
    if head != "yolo_end2end":
        agnostic = replace(postprocess, agnostic=True)
        assert len(detect(head_of(head, postprocess=agnostic), output_of(head, *boxes), place())) == 1


def test_a_box_counts_for_each_class_with_multi_label() -> None:
    """Two classes above the threshold are two detections."""
    output = output_of("yolov8", ((100, 100, 200, 200), 0, 0.5))
    output[1, 5, 0] = 0.75
    found = detect(head_of("yolov8", postprocess=PostprocessSpec(multi_label=True)), output, place())
    assert found["class_id"].tolist() == [1, 0]


@pytest.mark.parametrize("head", ["yolov8", "yolov5", "yolo_end2end"])
def test_boxes_may_be_written_in_other_ways(head: str) -> None:
    """Corners, corners that begin with y, and fractions of the network's sides."""
    output = output_of(head, ((64, 128, 320, 384), 1, 0.5))
    where = (1, slice(0, 4), 0) if head == "yolov8" else (1, 0, slice(0, 4))
    forms = {"xyxy": (64, 128, 320, 384), "yxyx": (128, 64, 384, 320), "cxcywh": (192, 256, 256, 256)}
    for boxes, numbers in forms.items():
        for normalized in (False, True):
            output[where] = np.array(numbers) / (640 if normalized else 1)
            found = detect(head_of(head, boxes=boxes, normalized=normalized), output, place())
            assert corners(found) == [pytest.approx((64, 128, 320, 384))], (boxes, normalized)


@pytest.mark.parametrize("head", SHAPES)
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats_are_turned_into_float32_once(head: str, dtype: str) -> None:
    """A model that ends in halves answers as its float32 would, as far as halves go."""
    output = output_of(head, ((64, 128, 320, 384), 1, 0.5))
    found = detect(head_of(head, dtype=dtype), output.astype(dtype), place())
    assert found["score"].tolist() == [0.5]
    assert corners(found) == [pytest.approx((64, 128, 320, 384), rel=1e-2)]


def test_options_of_a_frame_override_those_of_the_model() -> None:
    """0 is the model's own; a threshold is strict; a frame may ask for fewer or for more."""
    boxes = [((60 * index, 100, 60 * index + 20, 120), 0, 0.125 * (index + 1)) for index in range(6)]
    head, output = head_of("yolov8", postprocess=PostprocessSpec(max_detections=3)), output_of("yolov8", *boxes)

    def scores(**asked: float) -> list[float]:
        return detect(head, output, place(), **asked)["score"].tolist()

    assert scores() == [0.75, 0.625, 0.5]
    assert scores(max_detections=6) == [0.75, 0.625, 0.5, 0.375]
    assert scores(score_threshold=0.625) == [0.75]
    assert scores(score_threshold=0.1, max_detections=6) == [0.75, 0.625, 0.5, 0.375, 0.25, 0.125]


@pytest.mark.parametrize("head", SHAPES)
def test_an_output_that_fits_is_accepted(head: str) -> None:
    """Also where an axis, or all of it, is not known before a run."""
    for shape in (SHAPES[head], (None, None), (SHAPES[head][0], None), (None, SHAPES[head][1]), None):
        assert sorted(make_heads(model(head, shape=shape))) == [1, 3]


@pytest.mark.parametrize(
    ("head", "shape", "expected"),
    [
        ("yolov8", (1764, 7), "[7, boxes] (4 + 3 classes, without NMS), got [1764, 7]"),
        ("yolov8", (39, 8400), "[7, boxes] (4 + 3 classes, without NMS), got [39, 8400]"),
        ("yolov5", (25200, 85), "[boxes, 8] (4 + objectness + 3 classes, without NMS), got [25200, 85]"),
        ("yolov5", (3, 80, 80, 8), "[boxes, 8] (4 + objectness + 3 classes, without NMS), got [3, 80, 80, 8]"),
        (
            "yolox",
            (3549, 8),
            "[8400, 8] (the cells of strides 8, 16 and 32 in 640x640; 4 + objectness + 3 classes), got [3549, 8]",
        ),
        ("yolo_end2end", (300, 38), "[boxes, 6] (4 + score + class, suppressed in the graph), got [300, 38]"),
    ],
)
def test_an_output_that_does_not_fit_is_refused(head: str, shape: tuple[int, ...], expected: str) -> None:
    """With the file, the output, what the head reads and what came."""
    with pytest.raises(ModelError) as caught:
        make_heads(model(head, shape=shape))
    assert str(caught.value) == f"models/match/model.onnx: output 'output0': expected {expected}"


def test_other_faults_of_a_description_are_refused() -> None:
    """Whole numbers for scores, no classes, boxes that a head does not have, a head that nobody knows."""
    faults = {
        "output 'output0': expected float16, float32, float64, got uint8": model("yolov8", dtype="uint8"),
        "head yolov8: a detector has at least one class": model("yolov8", labels=()),
        "head yolox: the boxes of yolox are cxcywh": model("yolox", boxes="xyxy"),
        "expected a head of yolov5, yolov8, yolox, yolo_end2end, classification, raw, got 'ssd'": model("ssd"),
    }
    for expected, spec in faults.items():
        with pytest.raises(ModelError, match=f"^models/match/model.onnx: {expected}"):
            make_heads(spec)


def test_the_head_reads_the_output_that_the_description_names() -> None:
    """YOLOv5 exports may end in several outputs."""
    spec = model("yolov8")
    tensors = (TensorSpec(name="p3", shape=(3, 80, 80, 8)), TensorSpec(name="out", shape=(7, 8400)))
    head = make_heads(replace(spec, output=OutputSpec(head="yolov8", tensors=tensors, index=1)))[1]
    output = output_of("yolov8", ((64, 128, 320, 384), 1, 0.5))
    detections, _ = head.postprocess([np.zeros((2, 1)), output], 1, place(), score_threshold=0, max_detections=0)
    assert len(detections) == 24
