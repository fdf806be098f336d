"""BOUNDED, EVERY_FRAME and a maximum rate over real gRPC: what waits, what goes, and what credit is worth."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import grpc
import pytest

from headworks.v1 import frame_pb2 as pb
from support.raw_camera import RawCamera, open_request
from support.server import Server

CODES = grpc.StatusCode
OLDEST, NEWEST = pb.BoundedPolicy.DROP_SIDE_OLDEST, pb.BoundedPolicy.DROP_SIDE_NEWEST
EVERY_FRAME = pb.DropPolicy(every_frame=pb.EveryFramePolicy())


def bounded(depth: int, drop: pb.BoundedPolicy.DropSide = OLDEST) -> pb.DropPolicy:
    return pb.DropPolicy(bounded=pb.BoundedPolicy(depth=depth, drop=drop))


def send_within_credit(camera: RawCamera, count: int, data: bytes = b"frame") -> None:
    """Send frames as a client does that waits for credit."""
    assert camera.opened
    for _ in range(count):
        camera.wait(lambda: camera.frames_allowed > camera.last_frame_id)
        camera.send_frame(data)


def result_ids(camera: RawCamera) -> list[int]:
    return [result.frame_id for result in camera.all("result")]


def reasons_and_stages(closed: pb.Closed) -> set[tuple[int, int]]:
    return {(drop.reason, drop.stage) for drop in closed.ledger.drops}


# Opening.


@pytest.mark.parametrize(
    ("asked", "told", "window"),
    [
        ({}, pb.DropPolicy(latest=pb.LatestPolicy()), 4),
        ({"drop_policy": bounded(5, NEWEST)}, bounded(5, NEWEST), 8),
        ({"drop_policy": pb.DropPolicy(bounded=pb.BoundedPolicy(depth=10**6))}, bounded(32), 35),
        ({"drop_policy": EVERY_FRAME}, EVERY_FRAME, 17),
        ({"drop_policy": EVERY_FRAME, "max_in_flight": 10**6}, EVERY_FRAME, 17),
    ],
)
def test_opened_tells_the_policy_in_force_and_its_window(
    sleeping: Server, asked: dict[str, Any], told: pb.DropPolicy, window: int
) -> None:
    """A depth is clamped and told; the window is in flight + waiting + 1 (rules 4 and 6)."""
    with RawCamera(sleeping.target, open_request(**asked)) as camera:
        assert camera.opened.drop_policy == told
        assert camera.opened.frames_allowed == window
        camera.close()


# BOUNDED.


def test_a_full_queue_keeps_the_newest_frames(slow: Server) -> None:
    """Rule 4: a client that ignores credit loses the oldest, replaced by newer ones; what still waits is served."""
    with RawCamera(slow.target, open_request(drop_policy=bounded(5))) as camera:
        assert camera.opened
        for _ in range(200):
            camera.send_frame(b"burst")
        closed = camera.close()
        assert closed.ledger.received == 200
        assert reasons_and_stages(closed) == {(pb.DROP_REASON_REPLACED_BY_NEWER, pb.DROP_STAGE_BEFORE_DECODE)}
        assert result_ids(camera)[-5:] == [196, 197, 198, 199, 200]


def test_a_full_queue_may_keep_the_oldest_frames(slow: Server) -> None:
    """Rule 4: the surplus is turned away on arrival; what came first is served first, without a gap."""
    with RawCamera(slow.target, open_request(drop_policy=bounded(5, NEWEST))) as camera:
        assert camera.opened
        for _ in range(200):
            camera.send_frame(b"burst")
        closed = camera.close()
        assert closed.ledger.received == 200
        assert reasons_and_stages(closed) == {(pb.DROP_REASON_QUEUE_FULL, pb.DROP_STAGE_INGRESS)}
        assert result_ids(camera)[:7] == [1, 2, 3, 4, 5, 6, 7]


def test_a_queue_bridges_a_burst(slow: Server) -> None:
    """Rule 4: frames that fit into the queue are all served, in order."""
    with RawCamera(slow.target, open_request(drop_policy=bounded(12))) as camera:
        assert camera.opened
        for _ in range(12):
            camera.send_frame(b"burst")
        assert camera.close().ledger.results == 12


def test_waiting_frames_that_are_late_go_one_by_one(slow: Server) -> None:
    """Rules 4, 13: a deadline drops each frame of a queue when its turn comes; the queue moves on."""
    with RawCamera(slow.target, open_request(drop_policy=bounded(32), deadline_ms=200)) as camera:
        camera.ask_result(b"measure")
        for _ in range(30):
            camera.send_frame(b"burst")
        camera.close()
        counts = camera.counts()
        # 40 ms a frame: of thirty that came together, the last cannot be served within 200 ms.
        assert counts["DEADLINE"] > 10
        assert counts["results"] > 1
        assert set(counts) == {"results", "DEADLINE"}


# EVERY_FRAME.


def test_a_client_that_obeys_credit_gets_every_frame(sleeping: Server, slow: Server) -> None:
    """Rule 4: nothing is dropped, whether the lane is fast or slow; the order is that of sending."""
    for server, count in ((sleeping, 300), (slow, 40)):
        with RawCamera(server.target, open_request(drop_policy=EVERY_FRAME)) as camera:
            send_within_credit(camera, count)
            assert camera.close().ledger.results == count
            assert result_ids(camera) == list(range(1, count + 1))


def test_a_client_that_ignores_credit_is_told_and_goes_on(slow: Server) -> None:
    """Rule 6: what was sent without credit is answered OVER_CREDIT, and counted; the stream serves what it allowed."""
    errors = 'headworks_frame_errors_total{code="over_credit",model="stand-in"}'
    before = slow.metrics().get(errors, 0)
    with RawCamera(slow.target, open_request(drop_policy=EVERY_FRAME)) as camera:
        assert camera.opened
        for _ in range(60):
            camera.send_frame(b"burst")
        camera.wait(lambda: sum(camera.counts().values()) == 60)
        told = camera.all("frame_error")
        assert {error.code for error in told} == {pb.FRAME_ERROR_CODE_OVER_CREDIT}
        assert result_ids(camera)[:17] == list(range(1, 18))
        camera.ask_result(b"within credit again")
        closed = camera.close()
        assert (closed.ledger.received, closed.ledger.errors) == (61, len(told))
        assert not closed.ledger.drops
    assert slow.metrics()[errors] == before + len(told)


def test_more_than_64_frames_over_credit_end_the_stream(slow: Server) -> None:
    """Rule 6: RESOURCE_EXHAUSTED after Closed with a true ledger; frames already admitted are served."""
    with RawCamera(slow.target, open_request(drop_policy=EVERY_FRAME)) as camera:
        assert camera.opened
        for _ in range(300):
            camera.send_frame(b"flood")
        code, detail = camera.status()
        assert code is CODES.RESOURCE_EXHAUSTED
        assert "over the credit" in detail
        closed = camera.check()
        assert closed.reason == pb.CLOSE_REASON_PROTOCOL_ERROR
        assert closed.ledger.errors >= 64
        assert closed.ledger.results > 0


def test_a_client_that_does_not_read_loses_nothing_under_every_frame(impatient: Server) -> None:
    """Rules 4, 7: with large results and nothing read, credit stops, and no result is merged away."""
    with RawCamera(impatient.target, open_request(drop_policy=EVERY_FRAME), reading=False) as camera:
        for _ in range(17):
            camera.send_frame(b"unread")
        camera.send(ping=pb.Ping(nonce=1))
        camera.read()
        camera.wait_event("pong")
        send_within_credit(camera, 40)
        closed = camera.close()
        assert (closed.ledger.received, closed.ledger.results) == (57, 57)


def test_a_full_server_makes_every_frame_wait_and_turns_the_others_away() -> None:
    """Rule 4: the budget of waiting bytes withholds credit from EVERY_FRAME, which still gets everything."""
    options = {"decoders": 1, "decode_ms": 0, "engine_base_ms": 5, "engine_frame_ms": 0, "max_batch": 1, "target": 1}
    settings = {f"sleeping__{name}": value for name, value in options.items()}
    with (
        Server(backend="sleeping", waiting_bytes=5_000, max_frame_bytes=5_000, **settings) as server,
        RawCamera(server.target, open_request(drop_policy=EVERY_FRAME)) as file,
        RawCamera(server.target, open_request(drop_policy=EVERY_FRAME)) as other,
        RawCamera(server.target, open_request()) as live,
    ):
        assert live.opened
        for _ in range(4):
            send_within_credit(file, 25, bytes(2_000))
            send_within_credit(other, 25, bytes(2_000))
            live.send_frame(bytes(2_000))
        for camera in (file, other):
            closed = camera.close()
            assert (closed.ledger.received, closed.ledger.results) == (100, 100)
        live.close()
        assert set(live.counts()) <= {"results", "QUEUE_FULL", "REPLACED_BY_NEWER"}


def test_a_drain_drops_what_waits_under_every_frame() -> None:
    """Rules 4, 15: DRAINING is one of the two reasons there; what is admitted is served."""
    options = {"decoders": 1, "decode_ms": 0, "engine_base_ms": 100, "engine_frame_ms": 0, "max_batch": 1, "target": 1}
    settings = {f"sleeping__{name}": value for name, value in options.items()}
    with Server(backend="sleeping", drain_grace_seconds=30, **settings) as server:
        with RawCamera(server.target, open_request(drop_policy=EVERY_FRAME)) as camera:
            send_within_credit(camera, 17)
            camera.send(ping=pb.Ping(nonce=1))
            camera.wait_event("pong")
            server.terminate()
            camera.wait_event("notice")
            closed = camera.close()
            counts = camera.counts()
            assert closed.ledger.received == 17
            assert counts == Counter(results=counts["results"], DRAINING=17 - counts["results"])
            assert 0 < counts["results"] < 17
        assert server.wait() == 0


# The maximum rate.


@pytest.mark.parametrize("policy", [pb.DropPolicy(), bounded(5, NEWEST)], ids=["LATEST", "BOUNDED"])
def test_a_camera_over_its_maximum_rate_is_cut_down_on_arrival(sleeping: Server, policy: pb.DropPolicy) -> None:
    """Rule 3: RATE_LIMIT at ingress; the frames within the rate are served."""
    with RawCamera(sleeping.target, open_request(drop_policy=policy, max_fps=0.01)) as camera:
        camera.ask_result(b"in time")
        for _ in range(50):
            camera.send_frame(b"too fast")
        closed = camera.close()
        assert (closed.ledger.received, closed.ledger.results) == (51, 1)
        assert reasons_and_stages(closed) == {(pb.DROP_REASON_RATE_LIMIT, pb.DROP_STAGE_INGRESS)}


def test_every_frame_waits_for_its_maximum_rate(sleeping: Server) -> None:
    """Rule 4: nothing is dropped; the server wakes by itself when the time of the next frame has come."""
    with RawCamera(sleeping.target, open_request(drop_policy=EVERY_FRAME, max_fps=50)) as camera:
        assert camera.opened
        began = time.monotonic()
        send_within_credit(camera, 30)
        closed = camera.close()
        assert (closed.ledger.received, closed.ledger.results) == (30, 30)
        # Six go ahead of the rate; a slow machine only takes longer.
        assert time.monotonic() - began >= 24 / 50


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -1.0])
def test_a_rate_that_is_none_is_refused(sleeping: Server, rate: float) -> None:
    """It must not pass for no limit."""
    with RawCamera(sleeping.target, open_request(max_fps=rate)) as camera:
        code, detail = camera.status()
        assert code is CODES.INVALID_ARGUMENT
        assert "max_fps" in detail
