"""Peers without manners: one that never reads, and those that ignore their credit. The server counts all the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest

from headworks.v1 import frame_pb2 as pb
from support import laws
from support.fed_camera import POLICIES, hold_to_law
from support.raw_camera import RawCamera, open_request
from support.server import Server
from support.stand_ins import SLOW
from support.waiting import wait_for

CODES = grpc.StatusCode
OVER_CREDIT = 64  # rule 6: so many more than allowed are borne
BURST, BURSTS, GROWN_MB = 300, 5, 2.0


@pytest.fixture(scope="module")
def slow() -> Iterator[Server]:
    """A server that the tests share; at its end every stream has closed, and the ledgers are what the counters say."""
    with Server(**SLOW) as server:
        yield server
        server.wait_count("stream_close", server.count("stream_open"))
        assert list(laws.whole_server(server.lines, server.metrics())) == []


@pytest.fixture
def every_frame() -> pb.Open:
    return open_request(drop_policy=POLICIES["every_frame"], max_in_flight=2)


@dataclass
class Deaf:
    """A camera that does not read, its server, and what the server had allocated after each burst of its frames."""

    server: Server
    camera: RawCamera
    allocated: list[int]


@pytest.fixture(scope="module")
def deaf() -> Iterator[Deaf]:
    """It has sent BURSTS times BURST frames, and is silent from now on."""
    # Results of 60 KB: the connection takes but a few of them.
    with (
        Server(backend="null", null_detections=2000, idle_timeout_seconds=1, probed=True) as server,
        RawCamera(server.target, open_request(stream_name="deaf"), reading=False) as camera,
    ):
        allocated = []
        for number in range(1, BURSTS + 1):
            for _ in range(BURST):
                camera.send_frame(b"unread")
            wait_for(lambda: laws.total(server.metrics(), "headworks_frames_received_total") == number * BURST)  # noqa: B023
            allocated.append(server.memory()["allocated_bytes"])
        yield Deaf(server, camera, allocated)


def test_outcomes_that_nobody_reads_take_a_bounded_place(deaf: Deaf) -> None:
    """Rule 7: 64 outcomes of 60 KB are there after the first burst already; later ones add none."""
    assert max(deaf.allocated) - deaf.allocated[0] < GROWN_MB * 1e6, deaf.allocated


@pytest.mark.parametrize("policy", ["latest", "bounded"])
def test_a_peer_that_ignores_its_credit_is_served(slow: Server, policy: str) -> None:
    """Rule 6: a client made from bare stubs simply works where frames may be dropped, be they far over the credit."""
    frames = 1_000
    with RawCamera(slow.target, open_request(drop_policy=POLICIES[policy])) as camera:
        for number in range(frames):
            camera.send_frame(b"%d" % number)
        camera.close()
        line = hold_to_law(camera.history.events, slow)
        assert (line["received"], line["errors"]) == (frames, 0)
        assert line["results"] >= 2, "the first, and the last"
        assert camera.outcome(frames).HasField("result"), "the newest is never replaced"


def test_frames_over_the_credit_of_every_frame_are_errors(slow: Server, every_frame: pb.Open) -> None:
    """Rules 4 and 6: they are told OVER_CREDIT, those within it have results, and the stream goes on."""
    with RawCamera(slow.target, every_frame) as camera:
        allowed = camera.opened.frames_allowed
        for number in range(allowed + OVER_CREDIT // 2):
            camera.send_frame(b"%d" % number)
        camera.close()
        line = hold_to_law(camera.history.events, slow)
        assert line["results"] >= allowed
        assert line["errors"] >= 1
        assert {error.code for error in camera.all("frame_error")} == {pb.FRAME_ERROR_CODE_OVER_CREDIT}


def test_far_over_the_credit_of_every_frame_the_stream_ends(slow: Server, every_frame: pb.Open) -> None:
    """Rule 6: more than 64 over: Closed with the ledger, then RESOURCE_EXHAUSTED; other streams do not notice."""
    with RawCamera(slow.target, every_frame) as camera, RawCamera(slow.target, open_request()) as other:
        for number in range(2_000):
            camera.send_frame(b"%d" % number)
        assert camera.status()[0] is CODES.RESOURCE_EXHAUSTED
        camera.check()
        line = hold_to_law(camera.history.events, slow)
        assert line["reason"] == "PROTOCOL_ERROR"
        assert line["errors"] >= OVER_CREDIT - 1
        other.ask_result(b"alive")
        other.close()


def test_a_reader_that_never_reads_ends_by_the_rules(deaf: Deaf) -> None:
    """Rule 16: silent at last, it is given up, though its Closed cannot be written; the ledger knows every frame."""
    line = deaf.server.wait_line(lambda line: line.get("event") == "stream_close")
    assert (line["received"], line["reason"]) == (BURSTS * BURST, "CANCELLED")
    assert line["drops"]["OUTBOX_OVERFLOW"] + line["drops"].get("REPLACED_BY_NEWER", 0) > (BURSTS - 1) * BURST
    deaf.camera.read()
    assert deaf.camera.status()[0] is CODES.DEADLINE_EXCEEDED
    hold_to_law(deaf.camera.history.events, deaf.server)
