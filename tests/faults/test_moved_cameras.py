"""Cameras whose server goes away: it is restarted, or another takes its place.

However that happens, every frame of the client library's cameras ends in one of the named classes, by its account and
by both servers' lines; and what cameras of bare stubs were told is lawful.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest

from support import laws
from support.fed_camera import POLICIES, FedCamera, hold_to_law
from support.library_camera import LibraryCamera, hold_to_account
from support.server import LogLine, Server
from support.stand_ins import QUICK

TEN = ("latest",) * 4 + ("bounded",) * 3 + ("every_frame",) * 3


def ten_cameras(stack: ExitStack, *targets: str) -> list[LibraryCamera]:
    """Ten cameras, each with a connection of its own and some results."""
    cameras = [
        stack.enter_context(LibraryCamera(targets, f"{policy} {number}", policy=policy, fps=50))
        for number, policy in enumerate(TEN)
    ]
    for camera in cameras:
        camera.wait_results(5)
    return cameras


def closing_lines(*servers: Server) -> list[LogLine]:
    """The lines of all streams that have closed, with the server's address in each; their ledgers are exact."""
    lines = [
        line | {"target": server.target}
        for server in servers
        for line in server.lines
        if line.get("event") == "stream_close"
    ]
    assert [sentence for line in lines for sentence in laws.ledger(line)] == []
    return lines


def raw_cameras(stack: ExitStack, server: Server) -> list[FedCamera]:
    """A camera of bare stubs for each policy, with some results."""
    cameras = [stack.enter_context(FedCamera(server.target, f"raw {policy}", policy=policy)) for policy in POLICIES]
    for camera in cameras:
        camera.wait_results(5)
    return cameras


def hold_to_break(camera: FedCamera, server: Server, end: str) -> None:
    """Hold a raw camera, whose server is gone, to what it was told: with Closed where there was a drain."""
    assert camera.status()[0] is grpc.StatusCode.UNAVAILABLE
    camera.rest()
    if end == "drained":
        camera.check()
        assert hold_to_law(camera.history.events, server)["reason"] == "DRAINED"
        return
    assert laws.stream(camera.history.events) == []
    assert camera.all("closed") == []


@pytest.mark.parametrize("end", ["killed", "drained"])
def test_a_server_is_restarted_under_its_cameras(end: str) -> None:
    """Rules 8 and 15: streams go on at the next server. What was lost is told; under EVERY_FRAME nothing is."""
    with ExitStack() as stack:
        first = stack.enter_context(Server(**QUICK, drain_grace_seconds=1))
        raw, cameras = raw_cameras(stack, first), ten_cameras(stack, first.target)
        if end == "killed":
            first.kill()
            first.forgive()
        else:
            first.stop()
        for fed in raw:
            hold_to_break(fed, first, end)
        second = stack.enter_context(Server(**QUICK, port=first.port))
        for fed in raw_cameras(stack, second):
            fed.close()
            assert hold_to_law(fed.history.events, second)["reason"] == "END"
        for camera in cameras:
            camera.wait_connections(2)
            camera.wait_results(camera.stream.account.results + 5)
        for camera in cameras:
            camera.finish()
        second.wait_count("stream_close", second.count("stream_open"))
        last = {line["stream"]: line for line in closing_lines(second)}
        for camera in cameras:
            hold_to_account(camera, [])  # no lines: both servers have one address, and number their streams alike
            part, line = camera.stream.account.connections[-1], last[camera.stream.name]
            assert (line["reason"], line["received"]) == ("END", part.sent)
        assert list(laws.whole_server(second.lines, second.metrics())) == []


def test_cameras_move_to_another_server_while_theirs_drains() -> None:
    """Rule 15: each opens the new stream first, and ends the old one: under load nothing is lost, under any policy."""
    with ExitStack() as stack:
        with ThreadPoolExecutor() as pool:
            servers = list(pool.map(lambda grace_s: Server(**QUICK, drain_grace_seconds=grace_s), (20, 20)))
        first, second = (stack.enter_context(server) for server in servers)
        cameras = ten_cameras(stack, first.target, second.target)
        first.stop()  # within the grace, because every stream has been ended by its client
        for camera in cameras:
            camera.wait_connections(2)
            camera.wait_results(camera.stream.account.results + 5)
        for camera in cameras:
            account = camera.finish()
            assert account.lost == 0, account
            assert [part.close_reason for part in account.connections] == ["END", "END"]
        second.wait_count("stream_close", len(cameras))
        lines = closing_lines(first, second)
        assert Counter(line["reason"] for line in lines) == {"END": 20}
        for camera in cameras:
            hold_to_account(camera, lines)
        assert list(laws.whole_server(second.lines, second.metrics())) == []
