"""The yolov8 head: what exporters say of a model, and boxes in source pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headworks_server.errors import ModelError
from headworks_server.media.heads import DetectorMetadata, Yolov8Head, read_ultralytics
from headworks_server.media.letterbox import Letterbox

PATH = Path("models/match/model.onnx")
GOOD = {"task": "detect", "names": "{0: 'player', 1: 'referee', 2: 'ball'}", "imgsz": "[224, 384]", "stride": "32"}
DETECTION = np.dtype(
    [("x1", "<f4"), ("y1", "<f4"), ("x2", "<f4"), ("y2", "<f4"), ("score", "<f4"), ("class_id", "<u4")]
)


def read(**changes: str) -> DetectorMetadata:
    return read_ultralytics({**GOOD, **changes}, path=PATH)


def test_metadata_of_an_export() -> None:
    """imgsz is height, then width; names come by class id, in any order, or as a list."""
    expected = DetectorMetadata(("player", "referee", "ball"), width=384, height=224, stride=32)
    assert read() == expected
    assert read(names="{2: 'ball', 0: 'player', 1: 'referee'}") == expected
    assert read(names="{'0': 'player', '1': 'referee', '2': 'ball'}") == expected
    assert read(names="['player', 'referee', 'ball']") == expected
    assert (read(imgsz="640").width, read(imgsz="640").height) == (640, 640)
    assert read(end2end="False", args="{'nms': False}") == expected


@pytest.mark.parametrize("task", ["segment", "pose", "obb", "classify"])
def test_other_tasks_are_refused_by_name(task: str) -> None:
    """A model that answers another question is not served as a detector."""
    with pytest.raises(ModelError) as caught:
        read(task=task)
    assert str(caught.value) == f"{PATH}: expected a model of task 'detect', got task '{task}'"


@pytest.mark.parametrize("extra", [{"end2end": "True"}, {"args": "{'batch': 1, 'nms': True}"}])
def test_models_with_nms_inside_are_refused(extra: dict[str, str]) -> None:
    """Their output has another layout."""
    with pytest.raises(ModelError, match="expected a model without NMS"):
        read(**extra)


@pytest.mark.parametrize("key", ["task", "names", "imgsz", "stride"])
def test_missing_metadata_names_the_file_and_what_is_needed(key: str) -> None:
    """A file of another exporter is told what is expected of it."""
    metadata = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(ModelError) as caught:
        read_ultralytics(metadata, path=PATH)
    assert str(caught.value).startswith(f"{PATH}: expected the metadata task, names, imgsz and stride, as Ultralytics")
    with pytest.raises(ModelError, match="got none"):
        read_ultralytics({}, path=PATH)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("names", "{0: 'player', 2: 'ball'}"),
        ("names", "{}"),
        ("names", "[1, 2]"),
        ("names", "__import__('os').getcwd()"),
        ("names", "(" * 5000),
        ("imgsz", "[640]"),
        ("imgsz", "[0, 640]"),
        ("imgsz", "'640'"),
        ("imgsz", "[640, 99999]"),
        ("stride", "-32"),
        ("stride", "True"),
        ("stride", "2 ** 99"),
    ],
)
def test_unreadable_metadata_are_refused(key: str, value: str) -> None:
    """Metadata are read as literals, never run, and must make sense."""
    with pytest.raises(ModelError, match=f"^{PATH}: expected .*{key}"):
        read(**{key: value})


def test_output_shape_is_checked() -> None:
    """[batch, 4 + classes, boxes], in which the batch and the boxes may vary."""
    head = Yolov8Head(["player", "referee", "ball"])
    head.check([1, 7, 1764])
    head.check(["batch", 7, None])
    for shape in ([1, 1764, 7], [1, 300, 6], [7, 1764], [1, 84, 8400]):
        with pytest.raises(ModelError, match="7, boxes"):
            head.check(shape)


def candidates(*boxes: tuple[float, float, float, float, int, float]) -> np.ndarray:
    """Make an output [4 + 3, n] of boxes given as centre x, centre y, width, height, class and score."""
    output = np.zeros((7, len(boxes)), np.float32)
    for column, (x, y, width, height, class_id, score) in enumerate(boxes):
        output[:4, column] = x, y, width, height
        output[4 + class_id, column] = score
    return output


def test_boxes_come_back_in_source_pixels() -> None:
    """Pads are taken off, the scale undone, boxes clipped to the source; best first."""
    letterbox = Letterbox.of(1920, 1080, width=640, height=640)
    output = candidates((320, 320, 64, 36, 2, 0.5), (0, 140, 40, 40, 0, 0.75))
    detections = np.frombuffer(Yolov8Head("abc").postprocess(output, letterbox), DETECTION)
    assert detections["class_id"].tolist() == [0, 2]
    assert detections["score"].tolist() == [0.75, 0.5]
    boxes = detections[["x1", "y1", "x2", "y2"]].tolist()
    assert boxes[0] == pytest.approx((0, 0, 60, 60), abs=1e-3)
    assert boxes[1] == pytest.approx((864, 486, 1056, 594), abs=1e-3)


def test_options_of_a_frame_override_those_of_the_head() -> None:
    """0 is the head's own; a threshold is strict; a frame may ask for fewer or for more."""
    letterbox = Letterbox.of(640, 640, width=640, height=640)
    output = candidates(*[(20 + 60 * index, 100, 20, 20, 0, 0.125 * (index + 1)) for index in range(6)])
    head = Yolov8Head("abc", score_threshold=0.25, max_detections=3)

    def scores(*, score_threshold: float = 0, max_detections: int = 0) -> list[float]:
        packed = head.postprocess(output, letterbox, score_threshold=score_threshold, max_detections=max_detections)
        return np.frombuffer(packed, DETECTION)["score"].tolist()

    assert scores() == [0.75, 0.625, 0.5]
    assert scores(max_detections=6) == [0.75, 0.625, 0.5, 0.375]
    assert scores(score_threshold=0.625) == [0.75]
    assert scores(score_threshold=0.1, max_detections=6) == [0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
