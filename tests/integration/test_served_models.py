"""Models as they come, through a running server: every head, type, layout, colour and batch answers as it should.

One server has a folder of models that find a bright rectangle (support/finders.py), so that a stream's answer tells
whether its pictures were scaled, placed, coloured, batched and read back rightly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest

import headworks
from support.finders import Box, Finder, bright_picture, bright_png
from support.model_zoo import boxes_after_nms, bright_pixels, ultralytics
from support.models import Form, oracle_detector, save_model
from support.pictures import Pixels, png
from support.server import Server

# Multiples of four: halves and quarters of them are whole pixels, so that scaling leaves edges sharp.
BOXES: tuple[Box, ...] = ((20, 16, 44, 40), (64, 8, 84, 60), (4, 4, 12, 8), (40, 32, 56, 64))
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

DETECTORS = {
    "yolov8": Finder(),
    "yolov5": Finder(head="yolov5"),
    "yolox": Finder(head="yolox", color="bgr", scale=1),
    "end2end": Finder(head="yolo_end2end"),
    "half": Finder(dtype="float16"),
    "half-nhwc": Finder(head="yolov5", dtype="float16", layout="nhwc", color="bgr"),
    "bytes": Finder(dtype="uint8"),
    "bytes-nhwc": Finder(head="yolo_end2end", dtype="uint8", layout="nhwc", color="bgr"),
    "gray": Finder(color="gray"),
    "gray-nhwc": Finder(dtype="uint8", layout="nhwc", color="gray"),
    "bgr": Finder(color="bgr"),
    "one": Finder(batch=1),
    "four": Finder(head="yolov5", dtype="uint8", batch=4),
    "pairs": Finder(sizes=(2,)),
    "sized": Finder(open_size=True),
    "narrow": Finder(width=32, height=36, resize="stretch"),
}
CLASSIFIERS = {
    "softmax": Finder(head="classification", activation="softmax", resize="fit_shorter", **IMAGENET),
    "sigmoid": Finder(head="classification", activation="sigmoid", dtype="float16", resize="stretch"),
    "scores": Finder(head="classification", dtype="uint8", layout="nhwc", color="bgr", resize="center_crop"),
}
RAW = Finder(head="raw", layout="nhwc", color="bgr")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder: each finder with its model.toml, and a few that say everything themselves."""
    folder = tmp_path_factory.mktemp("served")
    for name, finder in {**DETECTORS, **CLASSIFIERS, "raw": RAW}.items():
        finder.save(folder, name)
    metadata = ultralytics(labels=Finder().labels, end2end="False")
    save_model(folder, "metadata", Finder().model(**metadata))
    save_model(folder, "nms", boxes_after_nms())
    save_model(folder, "pixels", bright_pixels()).with_name("model.toml").write_text(
        '[input]\ncolor = "rgb"\n[preprocess]\nscale = "1/255"\nresize = "stretch"\n'
        '[output]\nhead = "raw"\nbatch_axis = false\n'
    )
    save_model(folder / "versions", "9", oracle_detector(Form(labels=("old",))))
    save_model(folder / "versions", "10", oracle_detector())
    return folder


@pytest.fixture(scope="module")
def process(models: Path) -> Iterator[Server]:
    with Server(models, lanes=1, max_batch=2) as server:
        yield server


@pytest.fixture
def client(process: Server) -> Iterator[headworks.Client]:
    with headworks.Client(process.target) as client:
        yield client
    process.check()


def ask(client: headworks.Client, model: str, pictures: Sequence[bytes], **options: Any) -> list[headworks.Result]:
    """The result of each picture, all sent at once in one stream."""
    with client.stream(model, policy="every_frame", max_in_flight=len(pictures), **options) as stream:
        frames = [stream.send(picture, encoding="png") for picture in pictures]
        told = {}
        for outcome in stream:
            assert isinstance(outcome, headworks.Result), outcome
            told[outcome.frame_id] = outcome
            if len(told) == len(pictures):
                break
    return [told[frame] for frame in frames]


def expected_boxes(finder: Finder, box: Box) -> list[tuple[Box, float, str]]:
    """What a detector is to tell of a picture: box in source pixels, score and label, best first."""
    best = int(finder.scores().argmax())
    score, label = float(finder.scores()[best]), finder.labels[best]
    x1, y1, x2, y2 = box
    beside = ((x2, y1, x2 + x2 - x1, y2), score / 2, label)
    # What a graph has suppressed itself is told as it is.
    again = [(box, score * 0.8, label)] if finder.head == "yolo_end2end" else []
    return [(box, score, label), *again, beside]


@pytest.mark.parametrize("name", [*DETECTORS, "metadata"])
def test_a_detector_tells_where_and_what(client: headworks.Client, name: str) -> None:
    """Contract rule 12: boxes are in pixels of the picture that was sent. Whatever the file's head, type, layout,
    colour, batch and size, box, score and label are those of the rectangle, frame by frame."""
    finder = DETECTORS.get(name, Finder())
    results = ask(client, name, [bright_png(box) for box in BOXES])
    for box, result in zip(BOXES, results, strict=True):
        expected = expected_boxes(finder, box)
        assert [one.label for one in result.detections] == [label for _, _, label in expected]
        got = np.array([one[:5] for one in result.detections])
        np.testing.assert_allclose(got, [[*where, score] for where, score, _ in expected], atol=2e-3)
        assert (result.source_width, result.source_height) == (128, 72)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_tells_its_classes(client: headworks.Client, name: str) -> None:
    """Softmax and sigmoid are computed where the graph has not; all classes come, however doubtful, best first."""
    finder = CLASSIFIERS[name]
    logits = 4 * finder.scores()
    scores = {
        "softmax": np.exp(logits) / np.exp(logits).sum(),
        "sigmoid": 1 / (1 + np.exp(-logits)),
        "none": finder.scores(),
    }[finder.activation]
    (result,) = ask(client, name, [bright_png((40, 16, 88, 56))])
    assert [one.label for one in result.classifications] == ["red", "green", "blue"]
    by_label = dict(zip(finder.labels, scores, strict=True))
    for one in result.classifications:
        assert one.score == pytest.approx(by_label[one.label], abs=2e-3)
        assert finder.labels[one.class_id] == one.label
    assert not result.detections
    assert not result.tensors


def prepared(finder: Finder, picture: Pixels) -> np.ndarray:
    """A picture of the network's own size as the file takes it, by NumPy alone."""
    pixels = picture if finder.color == "rgb" else picture[..., ::-1]
    if finder.color == "gray":
        pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    if finder.layout == "nchw":
        pixels = pixels.transpose(2, 0, 1)
    if finder.dtype == "uint8":
        return pixels
    norms = [np.reshape(each[: finder.channels], (-1, 1, 1)) for each in (finder.mean, finder.std)]
    mean, std = norms if finder.layout == "nchw" else [norm.reshape(-1) for norm in norms]
    return ((pixels * np.float64(finder.scale) - mean) / std).astype(finder.dtype)


def run_directly(models: Path, name: str, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """What the file itself yields for one frame, by output."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(models / name / "model.onnx"), options)
    batch = session.get_inputs()[0].shape[0]
    fed = np.stack([inputs] * (batch if isinstance(batch, int) else 1))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": fed}), strict=True))


@pytest.mark.parametrize("name", ["yolov8", "yolox", "half-nhwc", "four", "gray", "gray-nhwc", "softmax", "raw"])
def test_raw_tensors_are_those_of_the_file(client: headworks.Client, models: Path, name: str) -> None:
    """Any model gives its outputs untouched, where asked for: each by name, type and shape, and in the file's order."""
    finder = {**DETECTORS, **CLASSIFIERS, "raw": RAW}[name]
    picture = bright_picture((8, 12, 36, 32), width=finder.width, height=finder.height)
    direct = run_directly(models, name, prepared(finder, picture))
    (result,) = ask(client, name, [png(picture)], form="raw_tensors")
    assert [tensor.name for tensor in result.tensors] == list(direct)
    for tensor, (_, expected) in zip(result.tensors, direct.items(), strict=True):
        assert tensor.data.dtype == expected.dtype
        assert tensor.shape == expected.shape[1:]
        tolerance = 2e-3 if expected.dtype == np.float16 else 1e-4
        np.testing.assert_allclose(tensor.data, expected[0], atol=tolerance, rtol=tolerance)
    assert not result.detections
    assert not result.classifications


def test_raw_is_the_form_of_a_model_that_no_head_reads(client: headworks.Client) -> None:
    """Several outputs of several types, without being asked for."""
    (result,) = ask(client, "raw", [bright_png((20, 16, 44, 40))])
    told = {tensor.name: (tensor.datatype, tensor.data.tolist()) for tensor in result.tensors}
    marks = np.float16(np.array([60, 200, 250]) / 255).tolist()
    assert told["box"] == ("INT64", [10, 14, 22, 26])  # of the network: half the size, 6 rows further down
    assert told["marks"] == ("FP16", pytest.approx(marks, abs=1e-3))
    assert told["found"] == ("BOOL", [True])
    assert told["inked_area"] == ("FP64", [[144.0]])


def test_an_output_without_a_batch_is_served_where_it_is_declared(client: headworks.Client) -> None:
    """`batch_axis = false`: each frame has its own number of rows, which only its run tells."""
    results = ask(client, "pixels", [bright_png(box) for box in BOXES])
    for (x1, y1, x2, y2), result in zip(BOXES, results, strict=True):
        (tensor,) = result.tensors
        channel, rows, columns = tensor.data[:, 1:].T
        assert set(channel) == {0, 1}  # red and green are above one half
        assert (columns.min(), columns.max() + 1) == (x1 / 2, x2 / 2)
        assert rows.min() == pytest.approx(y1 * 2 / 3, abs=1)
        assert rows.max() + 1 == pytest.approx(y2 * 2 / 3, abs=1)


def test_each_frame_has_as_many_boxes_as_its_own_run(client: headworks.Client) -> None:
    """An NMS in the graph leaves another number of boxes for each frame, or none; a row is six numbers."""
    bright = np.full((48, 64, 3), 255, np.uint8)
    dark, spot = np.zeros_like(bright), np.zeros_like(bright)
    spot[10, 20] = 255
    results = ask(client, "nms", [png(picture) for picture in (dark, spot, bright, dark)], form="raw_tensors")
    assert [result.tensors[0].shape for result in results] == [(0, 6), (3, 6), (bright.size, 6), (0, 6)]
    assert results[1].tensors[0].data[:, :4].tolist() == [[0, channel, 10, 20] for channel in range(3)]


def test_the_newest_version_is_served(client: headworks.Client) -> None:
    """models/<name>/<version>/model.onnx: 10 is newer than 9."""
    with client.stream("versions") as stream:
        (info,) = stream.opened.models
        assert (info.version, info.labels) == ("10", ("player", "referee", "ball"))


def test_a_stream_has_its_own_limits(client: headworks.Client) -> None:
    """`score_threshold`, `max_detections` and `top_k` are of one stream; the model's own hold for the others."""
    picture = [bright_png((20, 16, 44, 40))]
    assert len(ask(client, "end2end", picture)[0].detections) == 3
    assert [one.score for one in ask(client, "end2end", picture, max_detections=2)[0].detections] == pytest.approx(
        [250 / 255, 200 / 255], abs=1e-3
    )
    assert len(ask(client, "yolov8", picture, score_threshold=0.6)[0].detections) == 1
    (sure,) = ask(client, "sigmoid", picture, score_threshold=0.75)
    assert [one.label for one in sure.classifications] == ["red", "green"]
    (best,) = ask(client, "softmax", picture, top_k=1)
    assert [one.label for one in best.classifications] == ["red"]


@pytest.mark.parametrize(
    ("model", "form", "served"),
    [
        ("softmax", "detections", ("CLASSIFICATIONS", "RAW_TENSORS")),
        ("yolov8", "classifications", ("DETECTIONS", "RAW_TENSORS")),
        ("raw", "detections", ("RAW_TENSORS",)),
    ],
)
def test_a_form_that_is_not_served_is_refused(
    client: headworks.Client, model: str, form: str, served: tuple[str, ...]
) -> None:
    """INVALID_ARGUMENT, with the forms that there are; a stream and a single picture alike."""
    with pytest.raises(headworks.StreamRefusedError) as refused:
        client.stream(model, form=form).__enter__()
    with pytest.raises(headworks.InferFailedError) as failed:
        client.infer(bright_png(BOXES[0]), encoding="png", model=model, form=form)
    for error in (refused.value, failed.value):
        assert error.code == "INVALID_ARGUMENT"
        expected, got = error.detail.split(", got ")
        assert re.findall("FORM_([A-Z_]+)", expected) == [*served]
        assert got == f"FORM_{form.upper()}"


def test_one_picture_is_answered_in_the_models_form(client: headworks.Client) -> None:
    """InferFrame, without a stream: detections, classes or tensors, as a stream gets them."""
    picture = bright_png((20, 16, 44, 40))
    assert client.infer(picture, encoding="png", model="yolov5").detections[0][:4] == pytest.approx((20, 16, 44, 40))
    assert client.infer(picture, encoding="png", model="scores").classifications[0].class_id == 2
    assert [one.name for one in client.infer(picture, encoding="png", model="raw").tensors][:2] == ["box", "marks"]


def test_batches_keep_to_what_the_graph_takes(client: headworks.Client, process: Server) -> None:
    """A fixed batch is padded up and cut; no more frames run together than it has places."""
    for name, most in (("one", 1), ("four", 4), ("pairs", 2)):
        results = ask(client, name, [bright_png(box) for box in BOXES])
        assert {result.batch_size for result in results} <= set(range(1, most + 1))
    for line in process.lines:
        if line.get("event") == "model_ready" and line["model"] in ("one", "four", "pairs"):
            assert [*map(int, line["ms"])] == {"one": [1], "four": [4], "pairs": [2]}[line["model"]]
