"""A picture in, its detections out: every encoding, size and form of model, over gRPC."""

from __future__ import annotations

import pytest

from headworks.v1 import frame_pb2 as pb
from support.colours import CLASS_BLUES, plain, raw_bgr, sees
from support.pictures import jpeg, png
from support.raw_camera import RawCamera, open_request
from support.server import Server

ORANGE = (200, 120, 0)
# A JPEG of one colour comes back within two levels.
JPEG_LEVELS = 2 / 255


def test_first_frame_is_answered_in_each_encoding(serving: Server) -> None:
    """A JPEG, a PNG and raw pixels of the same picture find the same player."""
    with RawCamera(serving.target, open_request("oracle")) as camera:
        from_jpeg = camera.ask_result(jpeg(plain(ORANGE, 320, 240)))
        from_png = camera.ask_result(png(plain(ORANGE, 320, 240)), pb.ENCODING_PNG)
        from_raw = camera.ask_result(raw_bgr(ORANGE, 320, 240), pb.ENCODING_BGR24, width=320, height=240)
        for result, tolerance in ((from_jpeg, 320 * JPEG_LEVELS), (from_png, 0.01), (from_raw, 0.01)):
            assert (result.source_width, result.source_height) == (320, 240)
            assert sees(result, ORANGE, tolerance=tolerance)
        assert camera.close().ledger.results == 3


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
    with RawCamera(serving.target, open_request("oracle")) as camera:
        for turn in range(12):
            width, height = ((96, 200), (300, 40), (64, 48), (33, 71))[turn % 4]
            colour = (90 + 10 * turn, 160 - 5 * turn, CLASS_BLUES[turn % 3])
            picture = plain(colour, width, height)
            match turn % 3:
                case 0:
                    result = camera.ask_result(jpeg(picture, quality=98))
                case 1:
                    result = camera.ask_result(png(picture), pb.ENCODING_PNG)
                case _:
                    data = raw_bgr(colour, width, height)
                    result = camera.ask_result(data, pb.ENCODING_BGR24, width=width, height=height)
            assert (result.source_width, result.source_height) == (width, height)
            assert sees(result, colour, tolerance=2 * max(width, height) * JPEG_LEVELS)
        camera.close()


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
