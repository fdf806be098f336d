"""InferFrame: one image, one answer, in turn with the cameras of its model and in the same ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import grpc
import pytest

from headworks.v1 import frame_pb2 as pb
from support.colours import plain
from support.pictures import jpeg, png, scene
from support.raw_camera import RawCamera, open_request
from support.raw_infer import RawCaller, infer_request, result_of, status_of
from support.server import Server
from support.waiting import wait_for

GOOD = jpeg(scene(64, 48))
CODES = grpc.StatusCode
# One frame at a time, each for 200 ms: what is sent together waits for each other.
SLOW = {"decoders": 1, "decode_ms": 0, "engine_base_ms": 200, "engine_frame_ms": 0, "max_batch": 1, "target": 1}


@pytest.fixture
def five_a_second() -> Iterator[Server]:
    """A device lane of five frames a second, for at most two calls at one time."""
    options = {f"sleeping__{name}": value for name, value in SLOW.items()}
    with Server(backend="sleeping", drain_grace_seconds=30, max_streams=2, **options) as server:
        yield server


def frames(server: Server, model: str = "stand-in") -> Counter[str]:
    """What /metrics says of a model's frames: `received`, and by outcome or by a drop's reason."""
    counts: Counter[str] = Counter()
    for name, value in server.metrics().items():
        if name == f'headworks_frames_received_total{{model="{model}"}}':
            counts["received"] += int(value)
        elif name.startswith("headworks_frames_total{") and f'model="{model}"' in name:
            labels = dict(label.split("=") for label in name.partition("{")[2].rstrip("}").split(","))
            counts[labels["reason"].strip('"') or labels["outcome"].strip('"')] += int(value)
    return counts


def hold_account(counts: Counter[str]) -> None:
    """Conservation over the process: each frame that was read has one outcome."""
    assert counts["received"] == counts.total() - counts["received"], counts


def test_one_image_gets_the_answer_that_a_camera_gets(serving: Server) -> None:
    """The same detections, with the echo of the frame and the times of each stage."""
    with RawCamera(serving.target, open_request("oracle")) as camera:
        expected = camera.ask_result(GOOD, frame_id=7)
        camera.close()
    request = infer_request(GOOD, "oracle", frame_id=7)
    request.frame.capture_time.seconds = 1_700_000_000
    with RawCaller(serving.target) as caller:
        result = caller.ask(request)
    assert result.outputs == expected.outputs
    assert result.capture_time.seconds == 1_700_000_000
    assert (result.frame_id, result.source_width, result.source_height, result.batch_size) == (7, 64, 48, 1)
    assert result.timings.executed_us > 0


def test_options_of_the_result_hold_for_one_image(serving: Server) -> None:
    """No box scores above 1."""
    with RawCaller(serving.target) as caller:
        request = infer_request(GOOD, "oracle", result=pb.ResultOptions(score_threshold=1.0))
        assert caller.ask(request).outputs[0].detections == pb.Detections()


REFUSED = {
    "no picture": (infer_request(b"no picture", "oracle"), CODES.INVALID_ARGUMENT, ["frame 0", "JPEG"]),
    "an unknown encoding": (infer_request(GOOD, "oracle", 99), CODES.INVALID_ARGUMENT, ["99"]),
    "too many bytes": (infer_request(bytes(16_000_001), "oracle"), CODES.INVALID_ARGUMENT, ["16,000,000 bytes"]),
    "a failed batch": (infer_request(png(plain((255, 0, 0))), "fragile", pb.ENCODING_PNG), CODES.INTERNAL, ["frame 0"]),
    "an unknown model": (infer_request(GOOD, "tennis"), CODES.NOT_FOUND, ["tennis"]),
    "no model where there are several": (infer_request(GOOD), CODES.INVALID_ARGUMENT, ["InferFrame", "oracle"]),
    "a form that is not served": (
        infer_request(GOOD, "oracle", result=pb.ResultOptions(form=pb.ResultOptions.FORM_CLASSIFICATIONS)),
        CODES.INVALID_ARGUMENT,
        ["FORM_DETECTIONS", "FORM_CLASSIFICATIONS"],
    ),
    "no frame": (pb.InferFrameRequest(), CODES.INVALID_ARGUMENT, ["expected a frame"]),
    "no protobuf": (b"\xff\xff\xff", CODES.INVALID_ARGUMENT, ["InferFrameRequest", "3 bytes"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_answered_ends_with_a_status(serving: Server, name: str) -> None:
    """A FrameError of a stream is a status here; the next call is served."""
    request, expected, facts = REFUSED[name]
    with RawCaller(serving.target) as caller:
        code, detail = caller.refused(request)
        assert code is expected, detail
        for fact in facts:
            assert fact in detail
        assert caller.ask(infer_request(GOOD, "oracle")).outputs


def test_single_images_are_in_the_account_of_their_model(serving: Server) -> None:
    """Results and errors count in the same ledger as those of cameras, and only for what was read as a frame."""
    before = frames(serving, "pairs")
    with RawCaller(serving.target) as caller:
        for _ in range(3):
            caller.ask(infer_request(GOOD, "pairs"))
        caller.refused(infer_request(b"no picture", "pairs"))
        caller.refused(infer_request(b"", "pairs", result=pb.ResultOptions(score_threshold=2.0)))
    wait_for(lambda: frames(serving, "pairs")["received"] == before["received"] + 4)
    after = frames(serving, "pairs")
    assert after - before == Counter(received=4, result=3, error=1)
    hold_account(after)


def test_an_image_has_its_turn_beside_a_camera_that_floods(slow: Server) -> None:
    """Rule 12: round robin over the streams that have a frame waiting; one image is one of them."""
    with RawCamera(slow.target, open_request(max_in_flight=8)) as camera, RawCaller(slow.target) as caller:
        assert camera.opened
        for _ in range(50):
            camera.send_frame(b"flood")
        call = caller.start(infer_request(b"one"))
        while not call.done():
            camera.send_frame(b"flood")
            camera.wait(lambda: camera.outcome(camera.last_frame_id - 10))
        assert result_of(call).outputs
        camera.close()


def test_an_image_whose_deadline_passes_is_cancelled_and_counted(five_a_second: Server) -> None:
    """The deadline of the call is that of the frame: it is dropped before work, or its ticket is cancelled."""
    with RawCaller(five_a_second.target) as caller:
        caller.ask(infer_request(b"measure"))
        ahead = caller.start(infer_request(b"ahead"))
        wait_for(lambda: frames(five_a_second)["received"] == 2)
        code, _ = caller.refused(infer_request(b"hurry"), timeout=0.25)
        assert code is CODES.DEADLINE_EXCEEDED
        assert result_of(ahead).outputs
        wait_for(lambda: frames(five_a_second).total() == 6)
        counts = frames(five_a_second)
        assert counts["result"] == 2
        assert counts["deadline"] + counts["cancelled"] == 1
        hold_account(counts)


def test_calls_that_end_at_any_moment_are_accounted_for_without_a_word(sleeping: Server) -> None:
    """Deadlines and cancellations around the moment of the answer: no error in the log, one outcome for each frame."""
    before = frames(sleeping)
    codes: Counter[grpc.StatusCode] = Counter()
    with RawCaller(sleeping.target) as caller:
        for round_ in range(6):
            timeouts = [0.001 * (1 + (round_ + 7 * number) % 60) for number in range(100)]
            calls = [caller.start(infer_request(b"hurry"), timeout=timeout) for timeout in timeouts]
            for call in calls[::9]:
                call.cancel()
            codes.update(call.code() for call in calls)
        assert caller.ask(infer_request(b"in time")).outputs
    assert set(codes) <= {CODES.OK, CODES.DEADLINE_EXCEEDED, CODES.CANCELLED}

    def grown() -> Counter[str]:
        return frames(sleeping) - before

    wait_for(lambda: grown()["received"] * 2 == grown().total())
    assert grown()["result"] > codes[CODES.OK], "and the last one"


def test_a_caller_that_goes_away_cancels_its_image(five_a_second: Server) -> None:
    """In flight or waiting: the frame is CANCELLED, and its place is free again."""
    with RawCaller(five_a_second.target) as caller:
        calls = [caller.start(infer_request(b"gone")) for _ in range(2)]
        wait_for(lambda: frames(five_a_second)["received"] == 2)
        for call in calls:
            call.cancel()
        wait_for(lambda: frames(five_a_second)["cancelled"] == 2)
        assert caller.ask(infer_request(b"here")).outputs
        hold_account(frames(five_a_second))


def test_more_calls_than_streams_allowed_are_refused(five_a_second: Server) -> None:
    """max_streams bounds the calls of InferFrame at one time, beside as many streams."""
    with (
        RawCaller(five_a_second.target) as caller,
        RawCamera(five_a_second.target, open_request()) as first,
        RawCamera(five_a_second.target, open_request()) as second,
    ):
        assert first.opened
        assert second.opened
        calls = [caller.start(infer_request(b"in time")) for _ in range(2)]
        wait_for(lambda: frames(five_a_second)["received"] == 2)
        code, detail = caller.refused(infer_request(b"one too many"))
        assert code is CODES.RESOURCE_EXHAUSTED
        assert "at most 2 calls of InferFrame" in detail
        assert [len(result_of(call).outputs) for call in calls] == [1, 1]
        assert caller.ask(infer_request(b"later")).outputs


def test_images_finish_or_are_told_when_the_server_drains(five_a_second: Server) -> None:
    """Rule 15: what is admitted finishes; what waits, and what comes later, is UNAVAILABLE."""
    with RawCaller(five_a_second.target) as caller, RawCamera(five_a_second.target, open_request()) as camera:
        camera.send_frame(b"keeps the server up")
        calls = [caller.start(infer_request(b"before")) for _ in range(2)]
        wait_for(lambda: frames(five_a_second)["received"] == 3)
        five_a_second.terminate()
        camera.wait_event("notice")
        code, detail = caller.refused(infer_request(b"after"))
        assert code is CODES.UNAVAILABLE, detail
        for call in calls:
            code, detail = status_of(call)
            assert code in (CODES.OK, CODES.UNAVAILABLE), detail
        camera.close()
    assert five_a_second.wait() == 0
