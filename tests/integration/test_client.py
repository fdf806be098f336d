"""The SDK against a scripted server, over gRPC: what an application sees, on good days and on bad ones."""

from __future__ import annotations

import logging
import threading

import grpc
import numpy as np
import pytest

import headworks
from headworks.v1 import frame_pb2 as pb
from support.fake_server import (
    Events,
    FakeServer,
    FakeStream,
    answer_every_frame,
    drop_then_fail_then_answer,
)
from support.waiting import JPEG, send_one_by_one, wait_for


def test_loop_over_the_stream_yields_typed_results() -> None:
    """send, end, loop: the shortest program there is."""
    with FakeServer(answer_every_frame) as server, headworks.Client(server.target) as client:
        with client.stream("football", name="gate 1", score_threshold=0.25, max_detections=9) as stream:
            assert stream.opened.models[0].labels == ("player", "referee", "ball")
            assert stream.send(JPEG, capture_time_ns=1_700_000_000_123_456_789) == 1
            stream.end()
            (result,) = stream
        assert isinstance(result, headworks.Result)
        assert result.detections == (headworks.Detection(1, 2, 3, 4, 0.5, 2, "ball"),)
        assert (result.source_width, result.source_height, result.batch_size) == (640, 480, 2)
        assert result.capture_time_ns == 1_700_000_000_123_456_789
        assert result.timings == headworks.Timings(1, 2, 3, 4, 5)
        assert 0 < result.round_trip_s < result.age_s
        assert stream.closed is not None
        assert stream.closed.reason == "END"
        (served,) = server.streams
        assert served.opening is not None
        assert (served.opening.stream_name, served.opening.models[0].name) == ("gate 1", "football")
        assert served.opening.drop_policy.HasField("latest")
        assert (served.opening.result.score_threshold, served.opening.result.max_detections) == (0.25, 9)
        assert (served.frames[0].data, served.frames[0].encoding) == (JPEG, pb.ENCODING_JPEG)


def test_each_kind_of_outcome_reaches_its_callback() -> None:
    """With callbacks there is nothing to read in a loop, and all are done when the stream is left."""
    results: list[headworks.Result] = []
    drops: list[headworks.Dropped] = []
    errors: list[headworks.FrameError] = []
    with FakeServer(drop_then_fail_then_answer) as server, headworks.Client(server.target) as client:
        with client.stream(on_result=results.append, on_drop=drops.append, on_error=errors.append) as stream:
            send_one_by_one(stream, 9)
        assert [result.frame_id for result in results] == [3, 6, 9]
        assert [drop.first_frame_id for drop in drops] == [1, 4, 7]
        assert drops[0].counts == (headworks.DropCount("REPLACED_BY_NEWER", "BEFORE_DECODE", 1),)
        assert errors[0] == headworks.FrameError(2, "UNDECODABLE", "no JPEG")
        account = stream.account
        account.check()
        assert (account.results, account.drops, account.errors) == (3, {"REPLACED_BY_NEWER": 3}, 3)
        assert (account.received, account.lost, account.unaccounted) == (9, 0, 0)
        assert list(stream) == []


def test_without_callbacks_drops_and_errors_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Loud by default: an application that never asked still hears that frames went missing."""
    with (
        caplog.at_level(logging.WARNING, "headworks"),
        FakeServer(drop_then_fail_then_answer) as server,
        headworks.Client(server.target) as client,
        client.stream(name="gate", on_result=lambda _: None) as stream,
    ):
        send_one_by_one(stream, 9)
    said = " ".join(record.message for record in caplog.records)
    assert "stream 'gate': 1 dropped REPLACED_BY_NEWER" in said
    assert "failed UNDECODABLE" in said
    assert len(caplog.records) == 2  # the first at once, the rest together at the end


def test_send_never_waits_and_newer_frames_replace_older_ones() -> None:
    """Without credit nothing is sent; the mailbox holds one frame, the newest."""
    told: list[int] = []
    release = threading.Event()

    def withhold_credit(stream: FakeStream) -> Events:
        stream.read()
        yield stream.opened(frames_allowed=0)
        release.wait()
        yield stream.credit(1)
        yield stream.result(stream.read().frame)
        stream.read()
        yield stream.closed()

    with FakeServer(withhold_credit) as server, headworks.Client(server.target) as client:
        with client.stream(on_result=lambda result: told.append(result.frame_id)) as stream:
            for _ in range(50):
                stream.send(JPEG)
            account = stream.account
            assert (account.offered, account.replaced, account.waiting, account.sent) == (50, 49, 1, 0)
            release.set()
        assert told == [50]
        stream.account.check()


def test_arrays_go_out_as_bgr24_with_their_size() -> None:
    """Anything with uint8 [height, width, 3] in it; a crop of a picture, whose rows are not adjacent, as well."""
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    with FakeServer(answer_every_frame) as server, headworks.Client(server.target) as client:
        with client.stream(on_result=lambda _: None) as stream:
            stream.send(picture[:, 1:4])
        (frame,) = server.streams[0].frames
        assert (frame.encoding, frame.width, frame.height) == (pb.ENCODING_BGR24, 3, 4)
        assert frame.data == picture[:, 1:4].tobytes()


def test_buffer_may_be_reused_right_after_send() -> None:
    """A camera writes its next picture into the same memory: the one that was sent must not change."""
    release = threading.Event()

    def grant_late(stream: FakeStream) -> Events:
        stream.read()
        yield stream.opened(frames_allowed=0)
        release.wait()
        yield stream.credit(1)
        yield stream.result(stream.read().frame)
        stream.read()
        yield stream.closed()

    with FakeServer(grant_late) as server, headworks.Client(server.target) as client:
        with client.stream(on_result=lambda _: None) as stream:
            buffer = bytearray(JPEG)
            stream.send(buffer)
            buffer[:] = bytes(len(buffer))
            release.set()
        assert server.streams[0].frames[0].data == JPEG


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        (JPEG, {"encoding": "gif"}, "encoding 'gif': expected one of jpeg, png, bgr24"),
        (bytes(10), {"encoding": "bgr24", "width": 2, "height": 2}, "2x2 bgr24: expected 12 bytes"),
        (np.zeros((2, 2, 4), np.uint8), {}, r"expected uint8 \[height, width, 3\]"),
        (np.zeros((2, 2, 3), np.float32), {}, r"expected uint8 \[height, width, 3\]"),
        (bytes(33 << 20), {}, "at most 33,553,408 fit into a message"),
        (JPEG, {"frame_id": 0}, "frame_id 0: expected more than 0"),
    ],
)
def test_send_refuses_what_makes_no_sense(data: object, options: dict[str, object], expected: str) -> None:
    """The caller hears of it at the call; the stream goes on."""
    with (
        FakeServer(answer_every_frame) as server,
        headworks.Client(server.target) as client,
        client.stream(on_result=lambda _: None) as stream,
    ):
        with pytest.raises(ValueError, match=expected):
            stream.send(data, **options)  # type: ignore[arg-type]
        stream.send(JPEG)


def test_failing_callback_is_logged_and_the_stream_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """The fault of one callback costs neither the next outcome nor the stream."""
    told: list[int] = []

    def fail_on_first(result: headworks.Result) -> None:
        told.append(result.frame_id)
        if result.frame_id == 1:
            raise RuntimeError("a fault of the application")

    with FakeServer(answer_every_frame) as server, headworks.Client(server.target) as client:
        with client.stream(on_result=fail_on_first) as stream:
            send_one_by_one(stream, 2)
        assert told == [1, 2]
        assert "the callback for Result failed" in caplog.text
        assert "a fault of the application" in caplog.text


def test_callback_may_send_and_end() -> None:
    """Callbacks run outside the stream's lock."""
    with FakeServer(answer_every_frame) as server, headworks.Client(server.target) as client:

        def answer(result: headworks.Result) -> None:
            if result.frame_id < 3:
                stream.send(JPEG)
            else:
                stream.close()

        with client.stream(on_result=answer) as stream:
            stream.send(JPEG)
            assert list(stream) == []
        assert stream.account.results == 3


def test_opened_before_the_with_is_an_error() -> None:
    """The message says what to do."""
    with headworks.Client("127.0.0.1:1") as client, pytest.raises(headworks.HeadworksError, match="`with` statement"):
        _ = client.stream().opened


def test_outcomes_nobody_reads_fall_out_and_are_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The buffer for a loop is bounded: the newest outcomes stay."""
    monkeypatch.setattr("headworks.delivery.UNREAD_OUTCOMES", 3)
    with FakeServer(answer_every_frame) as server, headworks.Client(server.target) as client:
        with client.stream() as stream:
            send_one_by_one(stream, 5)
        assert [outcome.frame_id for outcome in stream if isinstance(outcome, headworks.Result)] == [3, 4, 5]
        assert "outcomes not read in time" in caplog.text


def test_streams_leave_no_threads_behind() -> None:
    """Threads do not grow from round to round, whether streams end or are cut."""

    def threads() -> int:
        return sum("ThreadPool" not in thread.name for thread in threading.enumerate())

    with FakeServer(answer_every_frame) as server, headworks.Client(server.target) as client:
        with client.stream(on_result=lambda _: None) as stream:
            idle = threads() - 2  # without this stream's reader and gRPC's writer
        for _ in range(3):
            for _ in range(10):
                with client.stream(on_result=lambda _: None) as stream:
                    stream.send(JPEG)
                with pytest.raises(KeyError), client.stream():
                    raise KeyError
            wait_for(lambda: threads() <= idle)


def test_many_streams_share_one_client() -> None:
    """Ten cameras on one connection: each gets its own answers."""
    told: dict[str, list[int]] = {f"camera {number}": [] for number in range(10)}
    with FakeServer(answer_every_frame) as server, headworks.Client(server.target) as client:

        def run(name: str) -> None:
            with client.stream(name=name, on_result=lambda result: told[name].append(result.frame_id)) as stream:
                send_one_by_one(stream, 20)
            stream.account.check()

        threads = [threading.Thread(target=run, args=(name,)) for name in told]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(map(tuple, told.values())) == {tuple(range(1, 21))}


def test_bare_stub_and_sdk_read_the_same_service() -> None:
    """The raw-bytes call of the SDK is the call that the generated stubs make."""
    from headworks.v1.frame_pb2_grpc import FrameServiceStub

    with FakeServer(answer_every_frame) as server, grpc.insecure_channel(server.target) as channel:
        requests = [
            pb.StreamFramesRequest(open=pb.Open()),
            pb.StreamFramesRequest(frame=pb.Frame(frame_id=1, data=JPEG)),
            pb.StreamFramesRequest(end=pb.End()),
        ]
        events = [
            event.WhichOneof("event")
            for response in FrameServiceStub(channel).StreamFrames(iter(requests))
            for event in response.events
        ]
        assert events == ["opened", "result", "credit", "closed"]
