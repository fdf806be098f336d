"""Rule 15: what a server does when it is told to stop, as its streams see it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import grpc
import pytest

from headworks.v1 import frame_pb2 as pb
from support.health import health_of, watch_health
from support.raw_camera import RawCamera, open_request
from support.server import Server

CODES = grpc.StatusCode
# Long enough for frames to be in flight when the signal comes.
SLOW = {"decoders": 1, "decode_ms": 0, "engine_base_ms": 200, "engine_frame_ms": 0, "max_batch": 1, "target": 1}


def slow_server(*, grace_s: float) -> Server:
    """A device lane of five frames a second."""
    options = {f"sleeping__{name}": value for name, value in SLOW.items()}
    return Server(backend="sleeping", drain_grace_seconds=grace_s, **options)


@pytest.fixture
def server() -> Iterator[Server]:
    """A slow server that is patient with streams that do not end."""
    with slow_server(grace_s=30) as server:
        yield server


def test_a_client_that_ends_leaves_in_peace(server: Server) -> None:
    """Notice{DRAINING} in band, admitted frames finish, the waiting one is dropped; after the client's End: OK."""
    with RawCamera(server.target, open_request()) as camera, RawCamera(server.target) as unopened:
        assert camera.opened
        for _ in range(3):
            camera.send_frame(b"before")
        camera.send(ping=pb.Ping(nonce=1))
        camera.wait_event("pong")  # so all three have been read
        watched = watch_health(server.target, "")
        assert next(watched) == "SERVING"
        server.terminate()
        notice = camera.wait_event("notice")
        assert notice.kind == pb.Notice.KIND_DRAINING
        assert notice.grace_ms == 30_000
        # Health tells balancers, and new calls are turned away, while this stream lives on.
        assert next(watched) == "NOT_SERVING"
        for name in ("headworks.v1.FrameService", "model/stand-in"):
            assert health_of(server.target, name) == "NOT_SERVING"
        with RawCamera(server.target, open_request()) as late:
            assert late.status()[0] is CODES.UNAVAILABLE
        # A call that never opened has nothing to finish.
        assert unopened.status()[0] is CODES.UNAVAILABLE
        assert unopened.all("closed")[0].reason == pb.CLOSE_REASON_DRAINED
        # Later frames are dropped, the limit of 64 over credit does not apply, and nothing grants more credit.
        credit = len(camera.all("credit"))
        for _ in range(150):
            camera.send_frame(b"after")
        closed = camera.close()
        assert closed.reason == pb.CLOSE_REASON_END
        assert closed.ledger.received == 153
        assert closed.ledger.results >= 1
        assert camera.counts()["DRAINING"] >= 150
        assert len(camera.all("credit")) == credit
    assert server.wait() == 0


def test_a_client_that_does_not_end_is_closed_after_the_grace() -> None:
    """After the grace: Closed(DRAINED) with the ledger, then UNAVAILABLE; frames until then are dropped DRAINING."""
    with slow_server(grace_s=0.5) as server:
        with RawCamera(server.target, open_request()) as camera, RawCamera(server.target, open_request()) as idle:
            assert idle.opened
            camera.send_frame(b"in flight")
            camera.send(ping=pb.Ping(nonce=1))
            camera.wait_event("pong")
            server.terminate()
            camera.wait_event("notice")
            camera.send_frame(b"too late")
            for stream, received in ((camera, 2), (idle, 0)):
                code, detail = stream.status()
                assert code is CODES.UNAVAILABLE
                assert "shutting down" in detail
                closed = stream.check()
                assert closed.reason == pb.CLOSE_REASON_DRAINED
                assert closed.ledger.received == received
            assert camera.counts() == {"results": 1, "DRAINING": 1}
            assert server.wait_closed(camera.opened.stream_id)["reason"] == "DRAINED"
        assert server.wait() == 0


def test_a_server_without_streams_stops_at_once(server: Server) -> None:
    """An interrupt from the keyboard drains too; with no stream open the grace is not waited for."""
    server.process.send_signal(signal.SIGINT)
    assert server.wait() == 0


def test_a_second_signal_ends_the_process_at_once(server: Server) -> None:
    """Whoever asks twice does not want to wait for the grace."""
    with RawCamera(server.target, open_request()) as camera:
        assert camera.opened
        server.terminate()
        camera.wait_event("notice")
        server.terminate()
        assert server.wait() == 130
        assert camera.status()[0] is CODES.UNAVAILABLE
        assert not camera.all("closed")
    server.forgive()


def test_a_client_that_reads_nothing_does_not_hold_up_the_drain() -> None:
    """The server ends within grace and a few seconds, though a stream's writer is stuck; its ledger is exact."""
    with (
        Server(backend="null", null_detections=2000, drain_grace_seconds=0.2) as server,
        RawCamera(server.target, open_request(), reading=False) as camera,
    ):
        for _ in range(100):
            camera.send_frame(b"unread")
        server.wait_count("stream_open", 1)
        server.terminate()
        assert server.wait() == 0
        line = next(line for line in server.lines if line.get("event") == "stream_close")
        assert line["received"] == line["results"] + line["errors"] + sum(line["drops"].values())
        camera.read()
        camera.status()
