"""What may be given to `send`, what goes out for it, and what comes back: encodings, sizes, forms of results."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from headworks import codec
from headworks.errors import ProtocolError
from headworks.options import make_plan
from headworks.outcomes import Classification, Output
from headworks.picture import as_picture
from headworks.policy import Policy
from headworks.v1 import frame_pb2 as pb


def read(data: object, encoding: str | None = None, width: int = 0, height: int = 0) -> tuple[int, int, int, bytes]:
    picture = as_picture(data, encoding=encoding, width=width, height=height)
    return picture.encoding, picture.width, picture.height, picture.payload


@pytest.mark.parametrize(
    ("shape", "encoding", "expected"),
    [
        ((4, 6, 3), None, (pb.ENCODING_BGR24, 6, 4)),
        ((4, 6, 3), "rgb24", (pb.ENCODING_RGB24, 6, 4)),
        ((5, 7), None, (pb.ENCODING_GRAY8, 7, 5)),
        ((5, 7, 1), None, (pb.ENCODING_GRAY8, 7, 5)),
        ((6, 6), "nv12", (pb.ENCODING_NV12, 6, 4)),
        ((6, 6), "i420", (pb.ENCODING_I420, 6, 4)),
    ],
)
def test_array_tells_its_size(shape: tuple[int, ...], encoding: str | None, expected: tuple[int, int, int]) -> None:
    """Colour arrays are blue first unless told otherwise; nv12 and i420 lie as OpenCV lays them."""
    data = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    assert read(data, encoding) == (*expected, data.tobytes())


@pytest.mark.parametrize(
    ("encoding", "size"), [("bgr24", 72), ("rgb24", 72), ("gray8", 24), ("nv12", 36), ("i420", 36)]
)
def test_raw_bytes_have_the_size_they_claim(encoding: str, size: int) -> None:
    """One byte more or less is refused here, before a server says so for every frame."""
    assert read(bytes(size), encoding, 6, 4)[1:3] == (6, 4)
    for wrong in (size - 1, size + 1, 0):
        with pytest.raises(ValueError, match=f"6x4 {encoding}: expected {size} bytes; got {wrong}"):
            read(bytes(wrong), encoding, 6, 4)
    with pytest.raises(ValueError, match=f"0x0 {encoding}: expected"):
        read(bytes(size), encoding)


@pytest.mark.parametrize("encoding", ["nv12", "i420"])
@pytest.mark.parametrize(("width", "height"), [(5, 4), (6, 3)])
def test_halved_chroma_needs_an_even_size(encoding: str, width: int, height: int) -> None:
    """Half of an odd number of pixels is none."""
    with pytest.raises(ValueError, match=f"{width}x{height} {encoding}: expected an even width and height"):
        read(bytes(width * height * 3 // 2), encoding, width, height)


@pytest.mark.parametrize("encoding", ["jpeg", "png", "webp"])
def test_files_go_out_as_they_are(encoding: str) -> None:
    """They tell their size themselves."""
    assert read(b"a file", encoding) == (codec.ENCODINGS[encoding], 0, 0, b"a file")
    assert read(bytearray(b"a file")) == (pb.ENCODING_JPEG, 0, 0, b"a file")


@pytest.mark.parametrize(
    ("shape", "encoding", "words"),
    [
        ((4, 6, 3), "jpeg", "expected encoding bgr24 or rgb24, got 'jpeg'"),
        ((4, 6), "rgb24", "expected encoding gray8 or nv12 or i420, got 'rgb24'"),
        ((4, 6, 4), None, r"expected uint8 \[height, width, 3\]"),
        ((1, 4, 6, 3), None, r"expected uint8 \[height, width, 3\]"),
    ],
)
def test_array_that_does_not_fit_its_encoding(shape: tuple[int, ...], encoding: str | None, words: str) -> None:
    """Place, expectation and fact."""
    with pytest.raises(ValueError, match=words):
        read(np.zeros(shape, np.uint8), encoding)


def test_frame_that_would_end_the_call_is_refused() -> None:
    """Up to twice the server's limit it says so itself, for that frame only; gRPC ends the call for more."""
    assert as_picture(bytes(1500), encoding=None, width=0, height=0, max_frame_bytes=2000)
    with pytest.raises(ValueError, match="at most 2,976 fit into a message"):
        as_picture(bytes(3000), encoding=None, width=0, height=0, max_frame_bytes=2000)


def open_of(**options: object) -> pb.Open:
    plan, _ = make_plan(("a:1",), "football", open_timeout_s=10, **options)  # type: ignore[arg-type]
    return pb.StreamFramesRequest.FromString(plan.open_request).open


def test_options_travel_in_open() -> None:
    """Each as the proto names it."""
    opening = open_of(
        policy="bounded", depth=5, drop="newest", max_fps=12.5, weight=3, form="raw_tensors", top_k=7, max_in_flight=4
    )
    assert opening.drop_policy.bounded == pb.BoundedPolicy(depth=5, drop=pb.BoundedPolicy.DROP_SIDE_NEWEST)
    assert (opening.max_fps, opening.weight, opening.max_in_flight) == (12.5, 3, 4)
    assert (opening.result.form, opening.result.top_k) == (pb.ResultOptions.FORM_RAW_TENSORS, 7)
    assert open_of().drop_policy.HasField("latest")
    assert open_of(policy="every_frame").drop_policy.HasField("every_frame")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"form": "boxes"}, "form 'boxes': expected one of detections, classifications, raw_tensors"),
        ({"policy": "every_frame", "deadline_ms": 50}, "expected no deadline, got 50"),
        ({"name": "x" * 65}, "name of 65 characters: at most 64"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], words: str) -> None:
    """The server would refuse them; the caller hears of it earlier."""
    with pytest.raises(ValueError, match=words):
        open_of(**options)


def test_granted_policy_is_told() -> None:
    """It may be less than what was asked for."""
    bounded = pb.DropPolicy(bounded=pb.BoundedPolicy(depth=4, drop=pb.BoundedPolicy.DROP_SIDE_NEWEST))
    assert codec.opened(pb.Opened(drop_policy=bounded)).policy == Policy("bounded", 4, "newest")
    assert codec.opened(pb.Opened()).policy == Policy()


def output(**value: object) -> Output:
    message = pb.Result(outputs=[pb.Output(model="m", **value)])  # type: ignore[arg-type]
    (told,) = codec.result(message, labels={("m", 0): ("red", "blue")}, age_s=0, round_trip_s=0).outputs
    return told


def test_classes_carry_their_labels() -> None:
    """Best score first, as the server sends them."""
    classes = [pb.Classification(class_id=1, score=0.75), pb.Classification(class_id=9, score=0.25)]
    told = output(classifications=pb.Classifications(classifications=classes))
    assert told.classifications == (Classification(1, "blue", 0.75), Classification(9, "9", 0.25))
    assert (told.detections, told.tensors) == ((), ())


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [("FP32", "<f4"), ("FP16", "<f2"), ("INT64", "<i8"), ("UINT8", "u1"), ("BOOL", "?"), ("INT8", "i1")],
)
def test_tensors_are_numpy_arrays(datatype: str, dtype: str) -> None:
    """A view of what came, in the shape that the model gave it."""
    expected = np.arange(6).astype(dtype).reshape(2, 3)
    raw = pb.RawTensor(name="boxes", datatype=datatype, shape=[2, 3], data=expected.tobytes())
    (tensor,) = output(raw_tensors=pb.RawTensors(tensors=[raw])).tensors
    assert (tensor.name, tensor.datatype, tensor.shape) == ("boxes", datatype, (2, 3))
    assert tensor.data.dtype == expected.dtype
    np.testing.assert_array_equal(tensor.data, expected)


def test_tensors_of_types_that_numpy_has_not_are_bytes() -> None:
    """So is every tensor where numpy is not installed."""
    raw = pb.RawTensor(name="x", datatype="BF16", shape=[2], data=b"abcd")
    assert output(raw_tensors=pb.RawTensors(tensors=[raw])).tensors[0].data == b"abcd"


def test_tensors_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy stays an extra."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    codec._numpy.cache_clear()
    raw = pb.RawTensor(name="x", datatype="FP32", shape=[1], data=b"abcd")
    assert output(raw_tensors=pb.RawTensors(tensors=[raw])).tensors[0].data == b"abcd"
    codec._numpy.cache_clear()


def test_tensor_of_the_wrong_size_is_a_protocol_error() -> None:
    """The server contradicts itself."""
    raw = pb.RawTensor(name="x", datatype="FP32", shape=[2, 2], data=b"abcd")
    with pytest.raises(ProtocolError, match=r"tensor 'x': expected FP32 of shape \[2, 2\], got 4 bytes"):
        output(raw_tensors=pb.RawTensors(tensors=[raw]))
