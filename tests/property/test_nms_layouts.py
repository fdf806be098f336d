"""The other layouts of detectors equal the plain twin to the last bit: objectness, grids, suppressed boxes."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headworks_native import nms
from support.plain_nms import DETECTION, STRIDES, Floats, Frame, Model, plain_detections

NETWORK: Model = {"width": 64, "height": 48, "iou_threshold": 0.5}
YOLOX_ROWS = sum((64 // stride) * (48 // stride) for stride in STRIDES)
COARSE = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 2.0, 4.0, 6.0])
ANY = st.floats(width=32, allow_nan=True)
FRAME: Frame = {
    "score_threshold": 0.25,
    "max_detections": 300,
    "left": 0.0,
    "top": 0.0,
    "scale_x": 1.0,
    "scale_y": 1.0,
    "source_width": 64,
    "source_height": 48,
}


def detect(
    layout: str, output: Floats, frame: Frame = FRAME, *, classes: int, **changed: object
) -> npt.NDArray[np.void]:
    """Run the native head and hold it equal to the plain twin."""
    model = {**NETWORK, **changed}
    found = np.frombuffer(nms.Postprocessor(layout, classes=classes, **model).detections(output, **frame), DETECTION)
    expected = plain_detections(layout, output, model, frame)
    assert expected.tolist() == found.tolist()
    assert expected.tobytes() == found.tobytes()
    return found


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Draw thresholds that coarse scores hit exactly, and any place in the input."""
    return FRAME | Frame(
        score_threshold=draw(st.sampled_from([0.0, 0.25, 0.5])),
        max_detections=draw(st.integers(1, 40)),
        left=draw(st.sampled_from([0.0, 3.0, -8.0])),
        scale_x=draw(st.floats(1 / 128, 16, width=32)),
        scale_y=draw(st.floats(1 / 128, 16, width=32)),
    )


options = st.fixed_dictionaries({"agnostic": st.booleans(), "multi_label": st.booleans()})


@given(
    output=st.one_of(
        hnp.arrays(np.float32, st.tuples(st.integers(0, 30), st.integers(6, 8)), elements=elements)
        for elements in (COARSE, ANY)
    ),
    frame=frames(),
    options=options,
    boxes=st.sampled_from(["cxcywh", "xyxy", "yxyx"]),
    normalized=st.booleans(),
)
def test_yolov5_equals_its_twin(
    output: Floats, frame: Frame, options: dict[str, bool], boxes: str, normalized: bool
) -> None:
    """Ties, exact thresholds, NaN and infinities, in boxes, objectness and classes."""
    detect("yolov5", output, frame, classes=output.shape[1] - 5, boxes=boxes, normalized=normalized, **options)


@given(
    output=st.one_of(
        hnp.arrays(np.float32, st.tuples(st.just(YOLOX_ROWS), st.integers(6, 7)), elements=elements)
        for elements in (COARSE, ANY)
    ),
    frame=frames(),
    options=options,
)
def test_yolox_equals_its_twin(output: Floats, frame: Frame, options: dict[str, bool]) -> None:
    """Every cell of the three grids, and logarithms that overflow."""
    detect("yolox", output, frame, classes=output.shape[1] - 5, **options)


@given(
    output=st.one_of(
        hnp.arrays(np.float32, st.tuples(st.integers(0, 30), st.just(6)), elements=elements)
        for elements in (COARSE, ANY.filter(lambda value: not value > 1000))
    ),
    frame=frames(),
    boxes=st.sampled_from(["xyxy", "cxcywh", "yxyx"]),
    normalized=st.booleans(),
)
def test_end_to_end_equals_its_twin(output: Floats, frame: Frame, boxes: str, normalized: bool) -> None:
    """Nothing is suppressed; classes that are no whole number of a class are padding."""
    detect("yolo_end2end", output, frame, classes=1001, boxes=boxes, normalized=normalized)


def test_score_is_objectness_times_class() -> None:
    """A box scores the product, and none passes whose objectness alone does not."""
    output = np.array(
        [[10, 10, 4, 4, 0.5, 0.25, 0.75], [30, 10, 4, 4, 0.25, 4, 0], [50, 10, 4, 4, 0.5, 0.5, 0.25]], np.float32
    )
    found = detect("yolov5", output, classes=2)
    assert found[["x1", "y1", "x2", "y2", "score", "class_id"]].tolist() == [(8, 8, 12, 12, 0.375, 1)]


def test_class_of_a_product_is_the_first_of_equal_products() -> None:
    """Products of a tiny objectness are denormal and round to equals: then the first class wins, as in YOLOv5."""
    tiny = np.float32(2**-149)
    output = np.array([[10, 10, 4, 4, tiny, 1.0, 1.2]], np.float32)
    found = detect("yolov5", output, FRAME | Frame(score_threshold=0.0), classes=2)
    assert found["class_id"].tolist() == [0]


@pytest.mark.parametrize(
    ("row", "x", "y", "stride"),
    [(0, 0, 0, 8), (9, 1, 1, 8), (47, 7, 5, 8), (48, 0, 0, 16), (53, 1, 1, 16), (60, 0, 0, 32), (61, 1, 0, 32)],
)
def test_yolox_boxes_lie_in_their_cells(row: int, x: int, y: int, stride: int) -> None:
    """A row is a cell: grids from the finest, row by row; centre = (offset + cell) * stride, size = exp * stride."""
    output = np.zeros((YOLOX_ROWS, 6), np.float32)
    output[row] = 0.5, 0.25, math.log(0.5), math.log(0.25), 1.0, 0.75
    (box,) = detect(
        "yolox", output, FRAME | Frame(source_width=1000, source_height=1000, left=-100, top=-100), classes=1
    )
    centre, half = ((x + 0.5) * stride + 100, (y + 0.25) * stride + 100), (0.25 * stride, 0.125 * stride)
    expected = (centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1])
    assert [float(box[name]) for name in ("x1", "y1", "x2", "y2")] == pytest.approx(expected, rel=1e-6)


def test_yolox_rows_of_the_usual_sizes() -> None:
    """8400 at 640x640; a network smaller than a stride has no cells of it."""
    assert nms.yolox_rows(640, 640) == 8400
    assert nms.yolox_rows(416, 416) == 3549
    assert (nms.yolox_rows(31, 16), nms.yolox_rows(7, 7)) == (6 + 1, 0)


def test_end_to_end_boxes_are_sorted_and_never_suppressed() -> None:
    """Best first, whatever the graph's order; equal boxes of one class both stay."""
    output = np.array([[0, 0, 9, 9, 0.5, 1], [0, 0, 9, 9, 0.75, 1], [0, 0, 9, 9, 0.25, 0]], np.float32)
    found = detect("yolo_end2end", output, classes=2, boxes="xyxy")
    assert found["score"].tolist() == [0.75, 0.5]
    assert len(detect("yolo_end2end", output, FRAME | Frame(max_detections=1), classes=2, boxes="xyxy")) == 1


@pytest.mark.parametrize("class_id", [-1, 2, 0.5, np.nan, np.inf, -np.inf, 1e30])
def test_end_to_end_rows_of_no_class_are_padding(class_id: float) -> None:
    """What fills up the 300 rows of an export is not told."""
    output = np.array([[0, 0, 9, 9, 0.5, class_id]], np.float32)
    head = nms.Postprocessor("yolo_end2end", classes=2, boxes="xyxy", **NETWORK)
    assert head.detections(output, **FRAME) == b""


@pytest.mark.parametrize(
    ("layout", "shape", "message"),
    [
        ("yolov5", (10, 6), r"yolov5 head is \[boxes, 7\] for one picture, got \(10, 6\)"),
        ("yolox", (10, 7), r"yolox head is \[62, 7\] for one picture, got \(10, 7\)"),
        ("yolox", (62, 8), r"yolox head is \[62, 7\] for one picture, got \(62, 8\)"),
        ("yolo_end2end", (300, 7), r"yolo_end2end head is \[boxes, 6\] for one picture, got \(300, 7\)"),
        ("yolov8", (5, 10), r"yolov8 head is \[6, boxes\] for one picture, got \(5, 10\)"),
    ],
)
def test_an_output_of_another_layout_is_refused(layout: str, shape: tuple[int, int], message: str) -> None:
    """Nothing is read beyond what an output has."""
    with pytest.raises(ValueError, match=message):
        nms.Postprocessor(layout, classes=2, **NETWORK).detections(np.zeros(shape, np.float32), **FRAME)


def test_yolox_has_boxes_of_one_form() -> None:
    """Its grids are part of the form."""
    with pytest.raises(ValueError, match="the boxes of yolox are cxcywh in pixels"):
        nms.Postprocessor("yolox", classes=2, boxes="xyxy", **NETWORK)
