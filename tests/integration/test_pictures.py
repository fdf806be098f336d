"""A picture in, its detections out: every encoding, size and form of model, over gRPC."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from headworks.v1 import frame_pb2 as pb
from support.colours import CLASS_BLUES, plain, raw_bgr, sees
from support.pictures import Pixels, i420, jpeg, nv12, png, webp
from support.raw_camera import RawCamera, open_request
from support.server import Server

ORANGE = (200, 120, 0)
# A JPEG of one colour, and one that went through YUV, comes back within two levels.
LEVELS = 2 / 255
EXACT = (pb.ENCODING_PNG, pb.ENCODING_BGR24, pb.ENCODING_WEBP, pb.ENCODING_RGB24, pb.ENCODING_GRAY8)
FOOTBALL = Path(__file__).resolve().parents[2] / "examples" / "football"


def in_every_encoding(rgb: Pixels) -> dict[int, bytes]:
    """The same picture, of even sides, in each encoding of the protocol; JPEG loses least."""
    return {
        pb.ENCODING_JPEG: jpeg(rgb, quality=98),
        pb.ENCODING_PNG: png(rgb),
        pb.ENCODING_BGR24: rgb[..., ::-1].tobytes(),
        pb.ENCODING_WEBP: webp(rgb),
        pb.ENCODING_RGB24: rgb.tobytes(),
        pb.ENCODING_GRAY8: rgb[..., 1].tobytes(),
        pb.ENCODING_NV12: nv12(rgb),
        pb.ENCODING_I420: i420(rgb),
    }


def ask_picture(camera: RawCamera, encoding: int, data: bytes, rgb: Pixels) -> pb.Result:
    """Send a picture with its size, which only raw encodings need, and wait for its result."""
    height, width = rgb.shape[:2]
    result = camera.ask_result(data, encoding, width=width, height=height)
    assert (result.source_width, result.source_height) == (width, height)
    return result


def test_first_frame_is_answered_in_each_encoding(serving: Server) -> None:
    """The same picture finds the same player in every encoding; a grey one where its one level says."""
    rgb = plain(ORANGE, 320, 240)
    grey = (ORANGE[1],) * 3
    with RawCamera(serving.target, open_request("oracle")) as camera:
        for encoding, data in in_every_encoding(rgb).items():
            result = ask_picture(camera, encoding, data, rgb)
            tolerance = 0.01 if encoding in EXACT else 320 * LEVELS
            assert sees(result, grey if encoding == pb.ENCODING_GRAY8 else ORANGE, tolerance=tolerance)
        assert camera.close().ledger.results == 8


@pytest.mark.parametrize(
    ("width", "height"), [(64, 48), (640, 240), (120, 360), (1280, 720), (7, 5)], ids=lambda side: str(side)
)
def test_boxes_are_in_source_pixels(serving: Server, width: int, height: int) -> None:
    """Result boxes refer to the picture as sent, whatever its shape; they are clipped to it."""
    with RawCamera(serving.target, open_request("oracle")) as camera:
        for colour in ((130, 120, 0), (100, 140, 255), (150, 110, 128)):
            result = camera.ask_result(png(plain(colour, width, height)), pb.ENCODING_PNG)
            assert (result.source_width, result.source_height) == (width, height)
            assert sees(result, colour, tolerance=0.01 * max(width, height))


def test_encoding_and_size_may_change_in_mid_stream(serving: Server) -> None:
    """Each Frame states its own encoding and size; nothing of the last one remains in a batch position."""
    sizes = ((96, 200), (300, 40), (64, 48), (34, 72), (126, 22))
    with RawCamera(serving.target, open_request("oracle")) as camera:
        for turn in range(40):
            width, height = sizes[turn % 5]
            level = 90 + 3 * turn
            # Every encoding can tell grey, of which the oracle makes the place of its box.
            rgb = plain((level, level, level), width, height)
            encoding, data = list(in_every_encoding(rgb).items())[turn % 8]
            result = ask_picture(camera, encoding, data, rgb)
            assert sees(result, (level, level, level), tolerance=2 * max(width, height) * LEVELS)
        camera.close()


@pytest.fixture(scope="module")
def football(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The example's detector of players alone."""
    models = tmp_path_factory.mktemp("football")
    shutil.copytree(FOOTBALL / "models" / "players", models / "players")
    with Server(models, lanes=1) as server:
        yield server


def test_a_match_looks_the_same_in_every_encoding(football: Server) -> None:
    """Frames of the clip: lossless encodings give the PNG's very detections, the others find the same players."""
    with RawCamera(football.target, open_request("players")) as camera:
        for name in ("0000.jpg", "0024.jpg"):
            stored = cv2.imread(str(FOOTBALL / "clip" / name))
            assert stored is not None
            rgb = np.ascontiguousarray(stored[..., ::-1])
            pictures = in_every_encoding(rgb)
            expected = detections(ask_picture(camera, pb.ENCODING_PNG, pictures.pop(pb.ENCODING_PNG), rgb))
            assert len(expected) >= 15
            of_grey = png(np.repeat(rgb[..., 1:2], 3, axis=2))
            expected_grey = detections(ask_picture(camera, pb.ENCODING_PNG, of_grey, rgb))
            for encoding, data in pictures.items():
                found = detections(ask_picture(camera, encoding, data, rgb))
                if encoding == pb.ENCODING_GRAY8:
                    assert found == expected_grey
                elif encoding in EXACT:
                    assert found == expected
                else:
                    assert share_found(expected, found) >= 0.9, pb.Encoding.Name(encoding)
                    assert share_found(found, expected) >= 0.9, pb.Encoding.Name(encoding)
        camera.close()


def detections(result: pb.Result) -> list[tuple[float, ...]]:
    """Edges, score and class of each detection, best first."""
    found = result.outputs[0].detections.detections
    return [(box.x1, box.y1, box.x2, box.y2, box.score, box.class_id) for box in found]


def share_found(wanted: list[tuple[float, ...]], found: list[tuple[float, ...]]) -> float:
    """How many of the wanted boxes with a score of a half and more are found: same class, edges within 5 pixels."""
    sure = [box for box in wanted if box[4] >= 0.5]
    hits = sum(any(box[5] == other[5] and np.allclose(box[:4], other[:4], atol=5) for other in found) for box in sure)
    return hits / len(sure)


@pytest.mark.parametrize("model", ["oracle", "bytes", "pairs"])
def test_each_form_of_model_is_served(serving: Server, model: str) -> None:
    """float32 and uint8 inputs, batches of any size and of a fixed one: the same boxes."""
    with RawCamera(serving.target, open_request(model)) as camera:
        (info,) = camera.opened.models
        assert (info.name, info.backend) == (model, "onnxruntime-cpu")
        assert list(info.labels) == ["player", "referee", "ball"]
        assert (info.input_width, info.input_height) == (64, 48)
        for red in range(60, 200, 10):
            colour = (red, 255 - red, CLASS_BLUES[red // 10 % 3])
            result = camera.ask_result(raw_bgr(colour), pb.ENCODING_BGR24, width=64, height=48)
            assert result.outputs[0].model == model
            assert sees(result, colour, tolerance=0.01)
        camera.close()


def test_result_echoes_what_belongs_to_the_frame(serving: Server) -> None:
    """Result (contract 3): frame_id and capture_time as sent, batch size, timings, the model that answered."""
    with RawCamera(serving.target, open_request("oracle", stream_name="gate")) as camera:
        frame = pb.Frame(frame_id=77, encoding=pb.ENCODING_PNG, data=png(plain(ORANGE)))
        frame.capture_time.FromNanoseconds(1_700_000_000_123_456_789)
        camera.send(frame=frame)
        result = camera.wait_event("result")
        assert result.frame_id == 77
        assert result.capture_time.ToNanoseconds() == 1_700_000_000_123_456_789
        assert result.batch_size == 1
        assert not result.deadline_missed
        assert result.timings.executed_us > 0
        assert (result.outputs[0].model, result.outputs[0].generation) == ("oracle", 1)
        assert result.outputs[0].backend == "onnxruntime-cpu"
        camera.send_frame(png(plain(ORANGE)), pb.ENCODING_PNG, frame_id=78)
        assert not camera.wait_event("result", 2).HasField("capture_time")


def test_a_capture_clock_may_jump(serving: Server) -> None:
    """Rule 9: capture time is the camera's business; one that runs backwards is echoed, never fatal."""
    with RawCamera(serving.target, open_request("oracle")) as camera:
        for number, seconds in enumerate((1_700_000_000, 5, 1_900_000_000, 0), start=1):
            frame = pb.Frame(frame_id=number, encoding=pb.ENCODING_PNG, data=png(plain(ORANGE)))
            frame.capture_time.seconds = seconds
            camera.send(frame=frame)
            assert camera.wait_event("result", number).capture_time.seconds == seconds
        camera.close()


def test_score_threshold_and_number_of_detections_are_the_streams_own(serving: Server) -> None:
    """Open chooses the result form: a threshold above the oracle's 0.95 leaves nothing."""
    strict = open_request("oracle", result=pb.ResultOptions(score_threshold=0.97))
    with RawCamera(serving.target, strict) as camera, RawCamera(serving.target, open_request("oracle")) as usual:
        assert not camera.ask_result(png(plain(ORANGE)), pb.ENCODING_PNG).outputs[0].detections.detections
        assert usual.ask_result(png(plain(ORANGE)), pb.ENCODING_PNG).outputs[0].detections.detections
