"""Cameras that vanish in every state: each frame the server had read is in the ledger of its log line, as CANCELLED.

The server sees only that the connection broke; its log line is the one account of such a stream.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from headworks.v1 import frame_pb2 as pb
from support import laws
from support.doomed_camera import doomed_camera
from support.fed_camera import POLICIES, camera_process, hold_to_law
from support.raw_camera import RawCamera, line_counts, open_request
from support.server import Server
from support.stand_ins import stand_in
from support.torn_camera import TornCamera
from support.waiting import wait_for

# One frame at a time and half a second each: frames in hand stay in hand while a test does its work.
SLOW = stand_in(decoders=1, decode_ms=0, engine_base_ms=500, engine_frame_ms=0, max_batch=1, target=1)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A slow server; at its end it must have closed every stream it opened, and exit 0."""
    with Server(**SLOW) as server:
        yield server
        server.wait_count("stream_close", server.count("stream_open"))


@pytest.fixture(scope="module")
def quick() -> Iterator[Server]:
    """A quick server; at its end every stream has closed, and the ledgers are what the counters say."""
    with Server(backend="null") as server:
        yield server
        server.wait_count("stream_close", server.count("stream_open"))
        assert list(laws.whole_server(server.lines, server.metrics())) == []


def last_closed(server: Server, number: int) -> dict[str, Any]:
    """The number-th line of a stream's end, held to the ledger's identity."""
    server.wait_count("stream_close", number)
    line = [line for line in server.lines if line.get("event") == "stream_close"][number - 1]
    assert line["received"] == sum(line_counts(line).values()), line
    return line


def received(server: Server) -> float:
    """Frames the server has read, over all streams."""
    return server.metrics()['headworks_frames_received_total{model="stand-in"}']


def hold_to_service(server: Server) -> None:
    """The server still serves, and no lane is held by the dead."""
    with RawCamera(server.target, open_request()) as camera:
        camera.ask_result(b"alive")
        camera.close()
    server.wait_closed(camera.opened.stream_id)  # so that the next test counts from here


def test_killed_with_frames_in_hand(server: Server) -> None:
    """SIGKILL with frames in flight and waiting: all are CANCELLED, apart from those a newer one replaced."""
    closed, read = server.count("stream_close"), received(server)
    with doomed_camera(server.target, "frames", frames=5) as process:
        wait_for(lambda: received(server) == read + 5)
        process.send_signal(signal.SIGKILL)
        line = last_closed(server, closed + 1)
    assert (line["stream"], line["reason"], line["received"], line["errors"]) == ("doomed", "CANCELLED", 5, 0)
    # Two in flight and one waiting, unless the first has got its result in time.
    assert line["drops"]["CANCELLED"] >= 2
    assert set(line["drops"]) <= {"CANCELLED", "REPLACED_BY_NEWER"}
    hold_to_service(server)


def test_killed_under_load(quick: Server, tmp_path: Path) -> None:
    """SIGKILL while frames and outcomes fly: what the camera had recorded and what the server says agree."""
    with ExitStack() as stack:
        cameras = [
            stack.enter_context(camera_process(quick.target, tmp_path, f"{policy}-{number}", policy=policy))
            for policy in POLICIES
            for number in range(2)
        ]
        for camera in cameras:
            camera.wait_running()
        for camera in cameras:
            camera.process.send_signal(signal.SIGKILL)
        for camera in cameras:
            camera.process.wait()
            line = hold_to_law(camera.history, quick)
            assert line["reason"] == "CANCELLED"
            assert line["results"] >= 5
    hold_to_service(quick)


def test_killed_while_open_and_idle(server: Server) -> None:
    """A stream without frames ends with an empty ledger."""
    closed = server.count("stream_close")
    with doomed_camera(server.target, "open", frames=0) as process:
        process.send_signal(signal.SIGKILL)
        line = last_closed(server, closed + 1)
    assert (line["reason"], line["received"]) == ("CANCELLED", 0)


def test_killed_between_end_and_closed(server: Server) -> None:
    """End was read, the frames before it are in flight: there is nobody to tell their outcome."""
    closed, read = server.count("stream_close"), received(server)
    with doomed_camera(server.target, "ended", frames=3) as process:
        wait_for(lambda: received(server) == read + 3)
        process.send_signal(signal.SIGKILL)
        line = last_closed(server, closed + 1)
    assert (line["reason"], line["received"]) == ("CANCELLED", 3)
    assert line["drops"]["CANCELLED"] >= 1
    hold_to_service(server)


def test_killed_before_open(server: Server) -> None:
    """A call that never opened leaves no stream and no line, and takes no place among the streams."""
    lines = server.count("stream_open")
    with doomed_camera(server.target, "connected", frames=0) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    hold_to_service(server)
    assert server.count("stream_open") == lines + 1


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("frames", [0, 2])
def test_connection_torn_in_the_middle_of_a_frame(server: Server, frames: int, reset: bool) -> None:
    """Half a message is no frame: the ledger counts those before it, which are CANCELLED."""
    closed, read = server.count("stream_close"), received(server)
    camera = TornCamera(server.target)
    camera.send(pb.StreamFramesRequest(open=open_request(stream_name="torn")))
    for frame_id in range(1, frames + 1):
        camera.send(pb.StreamFramesRequest(frame=pb.Frame(frame_id=frame_id, data=b"whole")))
    camera.send(pb.StreamFramesRequest(frame=pb.Frame(frame_id=9, data=bytes(5_000))), missing=1_000)
    server.wait_count("stream_open", closed + 1)
    wait_for(lambda: received(server) == read + frames)
    camera.tear(reset=reset)
    line = last_closed(server, closed + 1)
    assert (line["stream"], line["reason"], line["received"]) == ("torn", "CANCELLED", frames)
    hold_to_service(server)


@pytest.mark.parametrize("whole", [True, False])
def test_connection_torn_before_open(server: Server, whole: bool) -> None:
    """Nothing but a call, or half an Open: no stream, no line, the server goes on."""
    lines = server.count("stream_open")
    camera = TornCamera(server.target)
    if not whole:
        camera.send(pb.StreamFramesRequest(open=open_request(stream_name="half")), missing=3)
    camera.tear(reset=True)
    hold_to_service(server)
    assert server.count("stream_open") == lines + 1


def test_cancelled_calls_leave_the_lane_to_others(server: Server) -> None:
    """Rule 12: the frames of a call that was cancelled do not run ahead of a living camera's for long."""
    closed = server.count("stream_close")
    with RawCamera(server.target, open_request(stream_name="gone", max_in_flight=8)) as gone:
        assert gone.opened
        for _ in range(20):
            gone.send_frame(b"for nothing")
        gone.wait_event("result")
        gone.cancel()
        line = last_closed(server, closed + 1)
    assert line["reason"] == "CANCELLED"
    assert line["drops"]["CANCELLED"] >= 1
    hold_to_service(server)
