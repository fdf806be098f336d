"""Every frame accounted for: what the client was told, what Closed says, the log line and /metrics agree."""

from __future__ import annotations

from collections import Counter

import grpc

from headworks.v1 import frame_pb2 as pb
from support.colours import raw_bgr
from support.pictures import jpeg, scene
from support.raw_camera import RawCamera, line_counts, open_request
from support.server import Server

GOOD = jpeg(scene(64, 48))


def hold_line_to_closed(server: Server, camera: RawCamera, closed: pb.Closed) -> None:
    """The log line of the stream's end tells the same ledger."""
    line = server.wait_closed(camera.opened.stream_id)
    assert line["reason"] == pb.CloseReason.Name(closed.reason).removeprefix("CLOSE_REASON_")
    assert line["received"] == closed.ledger.received
    assert line_counts(line) == camera.counts()


def test_a_client_that_ignores_credit_works_under_latest(slow: Server) -> None:
    """Rules 1, 3, 6, 10: the surplus is replaced by newer frames and told in ranges; the newest frame is served."""
    with RawCamera(slow.target, open_request()) as camera:
        assert camera.opened
        for number in range(500):
            camera.send_frame(bytes([number % 256, 1]))
        closed = camera.close()
        assert closed.ledger.received == 500
        assert closed.ledger.drops[0].reason == pb.DROP_REASON_REPLACED_BY_NEWER
        assert len(closed.ledger.drops) == 1
        # Two in flight, one waiting: the frame that was sent last is among them.
        assert camera.all("result")[-1].frame_id == 500
        # Neighbouring drops are one range, so the camera is not flooded.
        assert len(camera.all("dropped")) < 100
        hold_line_to_closed(slow, camera, closed)


def test_good_bad_and_replaced_frames_add_up(serving: Server) -> None:
    """Rule 1: each frame has exactly one outcome, in frame order, whatever gaps and bad frames there are."""
    with RawCamera(serving.target, open_request("oracle", stream_name="mixed")) as camera:
        for number in range(1, 301):
            match number % 4:
                case 0:
                    camera.send_frame(b"no picture", frame_id=3 * number)
                case 1:
                    pixels = raw_bgr((number % 256, 9, 9))
                    camera.send_frame(pixels, pb.ENCODING_BGR24, width=64, height=48, frame_id=3 * number)
                case _:
                    camera.send_frame(GOOD, frame_id=3 * number)
            if number % 50 == 0:
                camera.wait(lambda: camera.outcome(camera.last_frame_id))
        closed = camera.close()
        assert closed.ledger.received == 300
        hold_line_to_closed(serving, camera, closed)


def test_a_camera_within_its_credit_loses_nothing_of_a_fast_server(sleeping: Server) -> None:
    """Rule 6: credit is absolute and grows as frames leave the mailbox; a camera that waits for it is not blocked."""
    with RawCamera(sleeping.target, open_request()) as camera:
        allowed = camera.opened.frames_allowed
        for sent in range(100):
            camera.wait(lambda: max([allowed, *(credit.frames_allowed for credit in camera.all("credit"))]) > sent)  # noqa: B023
            camera.send_frame(bytes([sent, 0]))
        assert camera.close().ledger.received == 100
        told = [credit.frames_allowed for credit in camera.all("credit")]
        assert told == sorted(set(told))


def test_end_waits_for_every_frame_before_it(slow: Server) -> None:
    """Rule 1: End is ordered behind the frames; all before it get their outcome, then Closed, then OK."""
    with RawCamera(slow.target, open_request()) as camera:
        assert camera.opened
        for _ in range(3):
            camera.send_frame(b"late")
        closed = camera.close()
        assert closed.reason == pb.CLOSE_REASON_END
        assert camera.counts() + Counter() == camera.counts()
        assert sum(camera.counts().values()) == 3


def test_half_close_means_end(slow: Server) -> None:
    """A client that half-closes without End has said the same."""
    with RawCamera(slow.target, open_request()) as camera:
        camera.send_frame(b"last")
        camera.half_close()
        assert camera.status()[0] is grpc.StatusCode.OK
        closed = camera.check()
        assert closed.reason == pb.CLOSE_REASON_END
        assert closed.ledger.results == 1
        hold_line_to_closed(slow, camera, closed)


def test_half_close_after_end_changes_nothing(slow: Server) -> None:
    """End, then half-close, while a frame is in flight: one Closed, and OK."""
    with RawCamera(slow.target, open_request()) as camera:
        camera.send_frame(b"last")
        camera.end()
        camera.half_close()
        assert camera.status()[0] is grpc.StatusCode.OK
        assert camera.check().ledger.results == 1


def test_half_close_without_a_word(serving: Server) -> None:
    """A call on which nothing was ever said ends as a protocol error, and leaves nothing behind."""
    with RawCamera(serving.target) as camera:
        camera.half_close()
        assert camera.status()[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_a_stream_without_frames_closes_with_an_empty_ledger(serving: Server) -> None:
    """Opened, Closed, OK."""
    with RawCamera(serving.target, open_request("oracle")) as camera:
        assert camera.close() == pb.Closed(ledger=pb.Ledger(), reason=pb.CLOSE_REASON_END)
        assert [event.WhichOneof("event") for event in camera.events] == ["opened", "closed"]


def test_late_frames_are_dropped_before_work(slow: Server) -> None:
    """Rule 13: what cannot be served within its budget is dropped DEADLINE, before it is decoded, and told."""
    cameras = [RawCamera(slow.target, open_request(deadline_ms=150, max_in_flight=1)) for _ in range(12)]
    try:
        # One good batch first: the lane's time is known by measuring.
        cameras[0].ask_result(b"measure")
        for _ in range(3):
            for camera in cameras:
                camera.send_frame(b"hurry")
        counts = Counter[str]()
        for camera in cameras:
            camera.close()
            counts += camera.counts()
            for dropped in camera.all("dropped"):
                for drop in dropped.counts:
                    if drop.reason == pb.DROP_REASON_DEADLINE:
                        assert drop.stage == pb.DROP_STAGE_BEFORE_DECODE
        # 12 cameras of 40 ms a frame: no more than a few of the last ones can be served within 150 ms.
        assert counts["DEADLINE"] > 0
        assert counts["results"] > 1
        assert set(counts) <= {"results", "DEADLINE", "REPLACED_BY_NEWER"}
    finally:
        for camera in cameras:
            camera.__exit__(None, None, None)


def test_without_a_deadline_nothing_is_late(slow: Server) -> None:
    """Rule 9: the default is no deadline, however long a frame waits."""
    cameras = [RawCamera(slow.target, open_request(max_in_flight=1)) for _ in range(8)]
    try:
        for camera in cameras:
            assert camera.opened
            camera.send_frame(b"patient")
        for camera in cameras:
            assert camera.close().ledger.results == 1
            assert not camera.all("result")[0].deadline_missed
    finally:
        for camera in cameras:
            camera.__exit__(None, None, None)


def test_metrics_agree_with_the_ledgers(serving: Server) -> None:
    """/metrics counts the same frames as the ledgers, by outcome and reason, and the batches that held the results."""
    before = serving.metrics()
    with RawCamera(serving.target, open_request("pairs")) as camera:
        for number in range(200):
            camera.send_frame(b"no picture" if number % 9 == 0 else GOOD)
        closed = camera.close()
        counts = camera.counts()
    serving.wait_closed(camera.opened.stream_id)
    after = serving.metrics()

    def grown(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    def outcome(kind: str, reason: str = "", stage: str = "") -> float:
        return grown(f'headworks_frames_total{{model="pairs",outcome="{kind}",reason="{reason}",stage="{stage}"}}')

    assert grown('headworks_frames_received_total{model="pairs"}') == closed.ledger.received == 200
    assert outcome("result") == counts["results"]
    assert outcome("error") == counts["errors"]
    drops = sum(outcome("drop", "replaced_by_newer", stage) for stage in ("ingress", "before_decode", "before_batch"))
    assert drops == counts["REPLACED_BY_NEWER"]
    assert grown('headworks_frame_errors_total{code="undecodable",model="pairs"}') == counts["errors"]
    batched = sum(size * grown(f'headworks_batches_total{{model="pairs",size="{size}"}}') for size in range(1, 9))
    assert batched == counts["results"]
    assert grown('headworks_stage_seconds_count{model="pairs",stage="executed"}') == counts["results"]
    assert after['headworks_model_healthy{model="pairs"}'] == 1
    assert grown("headworks_streams_opened_total") == 1
    assert grown('headworks_streams_closed_total{reason="end"}') == 1
