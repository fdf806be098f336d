"""Rule 16 and rule 7 at the edge of the network: pings, silence, and clients that do not read."""

from __future__ import annotations

import grpc

from headworks.v1 import frame_pb2 as pb
from support.raw_camera import RawCamera, line_counts, open_request
from support.server import Server


def test_ping_is_answered(serving: Server) -> None:
    """Rule 16: the server answers each Ping with its nonce, at any time before End."""
    with RawCamera(serving.target, open_request("oracle")) as camera:
        for number, nonce in enumerate((7, 2**64 - 1, 0), start=1):
            camera.send(ping=pb.Ping(nonce=nonce))
            assert camera.wait_event("pong", number).nonce == nonce
        camera.close()


def test_a_silent_stream_is_closed(impatient: Server) -> None:
    """Rule 16: nothing read for the idle time: Closed(IDLE_TIMEOUT) with the ledger, then DEADLINE_EXCEEDED."""
    with RawCamera(impatient.target, open_request()) as camera:
        camera.ask_result(b"one")
        code, detail = camera.status()
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "0.5 s" in detail
        closed = camera.check()
        assert closed.reason == pb.CLOSE_REASON_IDLE_TIMEOUT
        assert closed.ledger.results == 1
    assert impatient.wait_closed(camera.opened.stream_id)["reason"] == "IDLE_TIMEOUT"


def test_a_call_that_never_opens_is_closed(impatient: Server) -> None:
    """Rule 16 holds before Open too."""
    with RawCamera(impatient.target) as camera:
        assert camera.status()[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        assert camera.all("closed")[0].reason == pb.CLOSE_REASON_IDLE_TIMEOUT


def test_pings_keep_a_stream_alive(impatient: Server) -> None:
    """Rule 16: a Ping counts as life: a stream that pings outlives one that is silent."""
    with RawCamera(impatient.target, open_request()) as camera, RawCamera(impatient.target, open_request()) as silent:
        assert camera.opened
        pings = 0
        while not silent.all("closed"):
            pings += 1
            camera.send(ping=pb.Ping(nonce=pings))
            camera.wait_event("pong", pings)
        assert silent.status()[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        camera.ask_result(b"still here")
        camera.close()


def test_outcomes_of_a_client_that_does_not_read_are_merged(impatient: Server) -> None:
    """Rule 7: at most 64 outcomes are held; older results become OUTBOX_OVERFLOW, told once the client reads again."""
    read = 'headworks_frames_received_total{model="stand-in"}'
    before = impatient.metrics()[read]
    with RawCamera(impatient.target, open_request(), reading=False) as camera:
        sent = 0
        while not impatient.metrics().get(
            'headworks_frames_total{model="stand-in",outcome="drop",reason="outbox_overflow",stage="after_infer"}'
        ):
            for _ in range(50):
                camera.send_frame(b"unread")
            sent += 50
        camera.read()
        closed = camera.close()
        assert closed.ledger.received == sent
        counts = camera.counts()
        assert counts["OUTBOX_OVERFLOW"] > 0
        assert set(counts) <= {"results", "OUTBOX_OVERFLOW", "REPLACED_BY_NEWER"}
    line = impatient.wait_closed(camera.opened.stream_id)
    assert line_counts(line) == counts
    assert impatient.metrics()[read] - before == sent


def test_clients_that_never_read_do_not_keep_their_place(impatient: Server) -> None:
    """Rule 16, though the writer is stuck: silent, after End, or after a fault, the call ends with an exact ledger."""
    names = ("silent", "ended", "rude")
    cameras = [RawCamera(impatient.target, open_request(stream_name=name), reading=False) for name in names]
    try:
        for camera in cameras:
            for _ in range(100):
                camera.send_frame(b"unread")
        cameras[1].end()
        cameras[2].send_raw(b"\xff\xff\xff\xff")
        for camera, name in zip(cameras, names, strict=True):
            line = impatient.wait_line(lambda line: line.get("event") == "stream_close" and line["stream"] == name)  # noqa: B023
            assert line["received"] == sum(line_counts(line).values()) == 100
            camera.read()
            assert camera.status()[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        for camera in cameras:
            camera.__exit__(None, None, None)
