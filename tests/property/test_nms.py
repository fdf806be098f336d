"""Native post-processing of yolov8 equals its plain twin to the last bit, in crowds and on outputs gone wild."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headworks_native import nms
from support.plain_nms import CANDIDATES_AT_MOST, DETECTION, Floats, Frame, Model, plain_detections, plain_iou

NETWORK: Model = {"width": 640, "height": 640, "iou_threshold": 0.5}
SAME_SIZE: Frame = {
    "score_threshold": 0.25,
    "max_detections": 300,
    "left": 0.0,
    "top": 0.0,
    "scale_x": 1.0,
    "scale_y": 1.0,
    "source_width": 640,
    "source_height": 640,
}
LETTERBOX_1080P = SAME_SIZE | Frame(top=140.0, scale_x=1 / 3, scale_y=1 / 3, source_width=1920, source_height=1080)


def native(output: Floats, frame: Frame = SAME_SIZE, **changed: object) -> npt.NDArray[np.void]:
    """Run the native head, whose model is NETWORK with some changes."""
    head = nms.Postprocessor("yolov8", classes=len(output) - 4, **{**NETWORK, **changed})
    return np.frombuffer(head.detections(output, **frame), DETECTION)


def detect(output: Floats, frame: Frame = SAME_SIZE, **changed: object) -> npt.NDArray[np.void]:
    """Run the native head and hold it equal to the plain twin."""
    found = native(output, frame, **changed)
    expected = plain_detections("yolov8", output, {**NETWORK, **changed}, frame)
    assert expected.tolist() == found.tolist()
    assert expected.tobytes() == found.tobytes()
    return found


def output_of(*boxes: tuple[float, ...], classes: int = 2) -> Floats:
    """Return an output with one column per box: x1, y1, x2, y2, then a score for each class."""
    output = np.zeros((4 + classes, len(boxes)), np.float32)
    for column, (x1, y1, x2, y2, *scores) in enumerate(boxes):
        output[:, column] = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, *scores]
    return output


def crowd(seed: int, *, boxes: int, classes: int, people: int) -> Floats:
    """Return an output in which `boxes` columns huddle around `people` places, as a detector's do before NMS."""
    random = np.random.default_rng(seed)
    output = np.empty((4 + classes, boxes), np.float32)
    which = random.integers(0, people, boxes)
    places, sizes = random.uniform(0, 640, (people, 2)), random.uniform(8, 160, (people, 2))
    output[0:2] = (places[which] + random.normal(0, 4, (boxes, 2))).T
    output[2:4] = (sizes[which] * random.uniform(0.8, 1.2, (boxes, 2))).T
    output[4:] = random.uniform(0, 0.3, (classes, boxes))
    output[4 + which % classes, np.arange(boxes)] = random.uniform(0.2, 1, boxes)
    return output


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Draw what is constant for a model, with thresholds that coarse overlaps hit exactly."""
    return Model(
        width=draw(st.sampled_from([1, 640])),
        height=draw(st.sampled_from([1, 480])),
        iou_threshold=draw(st.sampled_from([0.0, 0.25, 0.5, 0.7, 1.0])),
        agnostic=draw(st.booleans()),
        multi_label=draw(st.booleans()),
        boxes=draw(st.sampled_from(["cxcywh", "xyxy", "yxyx"])),
        normalized=draw(st.booleans()),
    )


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Draw thresholds that coarse scores hit exactly, and any place in the input, cut or padded, stretched or not."""
    return Frame(
        score_threshold=draw(st.sampled_from([0.0, 0.25, 0.5, 1.0])),
        max_detections=draw(st.integers(1, 40)),
        left=draw(st.sampled_from([0.0, 3.0, 140.0, -87.0])),
        top=draw(st.sampled_from([0.0, 1.0, 140.0, -1.0])),
        scale_x=draw(st.floats(1 / 128, 16, width=32)),
        scale_y=draw(st.floats(1 / 128, 16, width=32)),
        source_width=draw(st.integers(1, 4000)),
        source_height=draw(st.integers(1, 4000)),
    )


@given(
    output=hnp.arrays(
        np.float32,
        st.tuples(st.integers(5, 8), st.integers(0, 40)),
        elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 2.0, 4.0, 6.0]),
    ),
    model=models(),
    frame=frames(),
)
def test_ties_and_exact_thresholds(output: Floats, model: Model, frame: Frame) -> None:
    """Coarse numbers make equal scores, equal boxes and overlaps of exactly the threshold: all as the plain twin."""
    detect(output, frame, **model)


@given(
    output=hnp.arrays(
        np.float32, st.tuples(st.integers(5, 7), st.integers(0, 30)), elements=st.floats(width=32, allow_nan=True)
    ),
    model=models(),
    frame=frames(),
)
def test_any_float_at_all(output: Floats, model: Model, frame: Frame) -> None:
    """NaN, infinities, denormals and overflowing boxes give finite detections, equal to the plain twin's."""
    found = detect(output, frame, **model)
    for name in ("x1", "y1", "x2", "y2", "score"):
        assert np.isfinite(found[name]).all()


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_crowded_scene(seed: int, agnostic: bool) -> None:
    """Several hundred overlapping boxes of three classes: the same ones are kept, in the same order."""
    found = detect(
        crowd(seed, boxes=8400, classes=3, people=400),
        LETTERBOX_1080P | Frame(max_detections=1000),
        agnostic=agnostic,
        iou_threshold=0.45,
    )
    assert len(found) > 200
    boxes = np.stack([found[name] for name in ("x1", "y1", "x2", "y2")], axis=1)
    inside = np.all((boxes > 0) & (boxes < [1920, 1080, 1920, 1080]), axis=1)
    for index in np.flatnonzero(inside)[:50]:
        rivals = inside & (np.arange(len(found)) < index)
        if not agnostic:
            rivals &= found["class_id"] == found["class_id"][index]
        assert np.all(plain_iou(boxes[index], boxes[rivals]) < 0.4501)


def test_many_classes_over_several_tiles() -> None:
    """A full-size output of 80 classes is read to its last column."""
    output = crowd(9, boxes=8400, classes=80, people=60)
    output[:, -1] = output_of((10, 10, 20, 20, *[0.0] * 79, 1.0), classes=80)[:, 0]
    assert detect(output, LETTERBOX_1080P)["class_id"][0] == 79


def test_a_box_of_two_classes_counts_twice_with_multi_label() -> None:
    """Each class above the threshold is a detection of its own; one of them may be suppressed and the other not."""
    output = output_of((0, 0, 10, 10, 0.9, 0.6), (0, 0, 10, 10, 0.2, 0.7), (50, 0, 60, 10, 0.25, 0.1))
    found = detect(output, multi_label=True)
    assert [(row["score"], row["class_id"]) for row in found] == [(np.float32(0.9), 0), (np.float32(0.7), 1)]


def test_score_must_be_above_its_threshold() -> None:
    """A score equal to the threshold does not pass; the next float above it does."""
    above = float(np.nextafter(np.float32(0.25), np.float32(1)))
    found = detect(output_of((0, 0, 10, 10, 0.25, 0.0), (50, 50, 60, 60, above, 0.0)))
    assert found["score"].tolist() == [above]


def test_overlap_must_be_above_its_threshold() -> None:
    """Two boxes that overlap by exactly the threshold are both kept; a hair less of it, and one goes."""
    output = output_of((0, 0, 30, 10, 0.9, 0.0), (10, 0, 40, 10, 0.8, 0.0))
    assert len(detect(output, iou_threshold=0.5)) == 2
    assert len(detect(output, iou_threshold=0.4999)) == 1


def test_classes_do_not_suppress_each_other_unless_agnostic() -> None:
    """A referee in front of a player stays, unless boxes are to be distinct whatever their class."""
    output = output_of((0, 0, 10, 10, 0.9, 0.1), (0, 0, 10, 10, 0.2, 0.8))
    assert detect(output)["class_id"].tolist() == [0, 1]
    assert detect(output, agnostic=True)["class_id"].tolist() == [0]


def test_equal_scores_keep_the_order_of_columns_and_classes() -> None:
    """Of equal boxes the first column wins, of equal class scores the first class."""
    output = output_of((0, 0, 10, 10, 0.5, 0.5), (100, 0, 110, 10, 0.5, 0.0), (1, 0, 11, 10, 0.5, 0.0))
    found = detect(output)
    assert [(row["x1"], row["class_id"]) for row in found] == [(0, 0), (100, 0)]


def test_best_detections_are_kept() -> None:
    """max_detections keeps the best, best first."""
    output = output_of(*[(20 * i, 0, 20 * i + 10, 10, 0.3 + 0.01 * i, 0.0) for i in range(30)])
    found = detect(output, SAME_SIZE | Frame(max_detections=3))
    assert found["x1"].tolist() == [580, 560, 540]


def test_at_most_thirty_thousand_candidates() -> None:
    """Beyond the cap the lowest scores take no part, so that a model gone wild bounds its own work."""
    count = CANDIDATES_AT_MOST + 10
    output = np.zeros((5, count), np.float32)
    output[0], output[1], output[2], output[3] = np.arange(count) * 2.0 + 1, 1, 2, 2
    output[4] = np.linspace(0.3, 0.9, count, dtype=np.float32)
    wide = SAME_SIZE | Frame(max_detections=count, source_width=4 * count)
    # Not through detect(): the plain twin compares 30,000 boxes one by one.
    found = native(output, wide)
    assert len(found) == CANDIDATES_AT_MOST
    assert found["x2"].min() == 22


def test_boxes_come_back_in_source_pixels() -> None:
    """The letterbox is undone: pads are subtracted, the scale divided out."""
    found = detect(output_of((100, 200, 200, 300, 0.9, 0.0)), LETTERBOX_1080P)
    corners = [float(found[name][0]) for name in ("x1", "y1", "x2", "y2")]
    assert corners == pytest.approx([300, 180, 600, 480], rel=1e-6)


def test_boxes_are_clipped_to_the_picture_and_kept() -> None:
    """A box beyond the edge ends at it; one that lies in the pad alone is empty, and still reported."""
    found = detect(output_of((-20, 130, 100, 200, 0.9, 0.0), (300, 20, 400, 100, 0.8, 0.0)), LETTERBOX_1080P)
    assert (found["x1"][0], found["y1"][0]) == (0, 0)
    assert found["y1"][1] == found["y2"][1] == 0


@pytest.mark.parametrize("wild", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", range(5))
def test_a_box_that_is_not_finite_hides_no_other(wild: float, row: int) -> None:
    """One broken column neither crashes nor suppresses the sound detection beside it."""
    output = output_of((0, 0, 10, 10, 0.95, 0.1), (0, 0, 10, 10, 0.9, 0.1))
    output[row, 0] = wild
    assert detect(output)["score"].tolist() == [np.float32(0.9)]


def test_a_class_score_that_is_nan_never_wins() -> None:
    """A box counts with the best of the scores that are numbers."""
    found = detect(output_of((0, 0, 10, 10, np.nan, 0.4, np.nan), classes=3))
    assert found["class_id"].tolist() == [1]


@given(halves=hnp.arrays(np.uint16, st.tuples(st.just(6), st.integers(0, 40))), frame=frames())
def test_an_output_of_halves_is_read_as_their_floats(halves: npt.NDArray[np.uint16], frame: Frame) -> None:
    """Every half is a float32: numbers, denormals, infinities and NaN give what NumPy's conversion gives."""
    output = halves.view(np.float16)
    expected = detect(output.astype(np.float32), frame)
    assert expected.tobytes() == native(output, frame).tobytes()


def test_output_without_boxes() -> None:
    """No columns, or none that passes, is an empty answer."""
    assert len(detect(np.zeros((6, 0), np.float32))) == 0
    assert len(detect(np.zeros((6, 100), np.float32))) == 0


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        (np.zeros((6, 10), np.float64), TypeError, "is float32 or float16, got format 'd'"),
        (np.zeros((6, 10), np.int16), TypeError, "is float32 or float16, got format 'h'"),
        (np.zeros((4, 10), np.float32), ValueError, r"got \(4, 10\)"),
        (np.zeros((1, 6, 10), np.float32), ValueError, r"got \(1, 6, 10\)"),
        (np.zeros((10, 6), np.float32).T, ValueError, "contiguous"),
        (b"bytes", TypeError, "is float32"),
        (None, TypeError, "bytes-like"),
    ],
)
def test_refuses_an_output_that_is_none(output: object, error: type[Exception], message: str) -> None:
    """Another type, rank or layout is refused with what was expected and what came."""
    with pytest.raises(error, match=message):
        nms.Postprocessor("yolov8", classes=2, **NETWORK).detections(output, **SAME_SIZE)


@pytest.mark.parametrize(
    "changed",
    [
        {"score_threshold": -0.1},
        {"score_threshold": float("nan")},
        {"max_detections": 0},
        {"scale_x": 0.0},
        {"scale_y": float("inf")},
        {"left": float("nan")},
        {"source_width": 0},
        {"source_height": -1},
    ],
)
def test_refuses_a_frame_out_of_range(changed: Frame) -> None:
    """Thresholds, counts and geometry are checked before an output is read."""
    with pytest.raises(ValueError, match="got"):
        native(np.zeros((6, 10), np.float32), SAME_SIZE | changed)


@pytest.mark.parametrize(
    "changed",
    [{"iou_threshold": 1.5}, {"iou_threshold": float("nan")}, {"width": 0}, {"boxes": "xywh"}, {"classes": 0}],
)
def test_refuses_a_model_out_of_range(changed: dict[str, object]) -> None:
    """What is constant for a model is checked once, when it is made."""
    with pytest.raises(ValueError, match="got"):
        nms.Postprocessor("yolov8", **{"classes": 2, **NETWORK, **changed})
    with pytest.raises(ValueError, match="layout must be one of yolov8, yolov5, yolox, yolo_end2end, got 'yolov3'"):
        nms.Postprocessor("yolov3", classes=2, **NETWORK)
