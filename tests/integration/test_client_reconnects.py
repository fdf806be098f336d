"""The SDK when servers break, restart, drain and refuse: what an application sees of it, over gRPC."""

from __future__ import annotations

import math
import threading

import pytest

import headworks
from support.fake_server import (
    Events,
    FakeServer,
    FakeStream,
    answer_every_frame,
    answer_two_then_break,
    drain_when_told,
    no_room,
    refuse,
    silent_after_opened,
)
from support.waiting import JPEG, send_one_by_one, wait_for


class Told:
    """What an application was told."""

    def __init__(self) -> None:
        self.results: list[int] = []
        self.lost: list[headworks.Lost] = []
        self.drops: list[headworks.Dropped] = []
        self.events: list[headworks.ConnectionEvent] = []

    def stream(self, client: headworks.Client, **options: object) -> headworks.FrameStream:
        return client.stream(
            name="gate",
            on_result=lambda result: self.results.append(result.frame_id),
            on_lost=self.lost.append,
            on_drop=self.drops.append,
            on_connection=self.events.append,
            **options,  # type: ignore[arg-type]
        )

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events if not isinstance(event, headworks.ReconnectFailed)]


def test_break_in_mid_stream_is_a_new_open() -> None:
    """Frames go on with their numbers; what was unanswered is told as lost; the account is the sum of both."""
    told = Told()
    with (
        FakeServer(answer_two_then_break, answer_every_frame) as server,
        headworks.Client(server.target) as client,
    ):
        with told.stream(client) as stream:
            send_one_by_one(stream, 4)
            wait_for(lambda: told.kinds == ["ConnectionOpened", "ConnectionLost", "ConnectionOpened"])
            stream.send(JPEG)
            wait_for(lambda: told.results == [1, 2, 5])
        first, second = server.streams
        assert [frame.frame_id for frame in second.frames] == [5]
        assert first.opening == second.opening
        assert told.lost == [headworks.Lost(3, 4, 2)]
        account = stream.account
        account.check()
        assert (account.sent, account.received, account.lost, account.close_reason) == (5, 3, 2, "END")


def test_every_frame_sends_again_and_is_told_once() -> None:
    """The server gets doubles; the application gets each frame once, in order, and nothing is lost."""
    told = Told()
    with (
        FakeServer(answer_two_then_break, answer_two_then_break, answer_every_frame) as server,
        headworks.Client(server.target) as client,
    ):
        with told.stream(client, policy="every_frame") as stream:
            for _ in range(20):
                stream.send(JPEG)
        assert told.results == list(range(1, 21))
        assert told.lost == []
        read = [frame.frame_id for served in server.streams for frame in served.frames]
        assert len(read) > len(set(read)) == 20
        account = stream.account
        account.check()
        assert (account.sent, account.replaced, account.received, account.lost) == (20, 0, 20, 0)
        assert account.resent == sum(ledger.sent for ledger in account.connections) - 20 >= 2
        assert server.streams[0].opening is not None
        assert server.streams[0].opening.drop_policy.HasField("every_frame")


@pytest.mark.parametrize("policy", ["latest", "every_frame"])
def test_server_that_restarts_on_its_port(policy: str) -> None:
    """The stream is there again by itself; every frame is in one of the named classes."""
    told = Told()
    with FakeServer(answer_every_frame) as first, headworks.Client(first.target) as client:
        with told.stream(client, policy=policy) as stream:
            send_one_by_one(stream, 3)
            first.die()
            wait_for(lambda: "ConnectionLost" in told.kinds)
            with FakeServer(answer_every_frame, port=first.port) as second:
                wait_for(lambda: told.kinds[-1] == "ConnectionOpened")
                stream.send(JPEG)
                stream.close()
                assert second.streams[-1].frames[-1].frame_id == 4
        account = stream.account
        account.check()
        assert account.results + account.lost == account.sent == 4
        assert account.lost == sum(lost.total for lost in told.lost)
        assert policy == "latest" or told.results == [1, 2, 3, 4]


def test_ten_cameras_survive_a_restart() -> None:
    """They share a connection, and each comes back with its own account."""
    cameras = [Told() for _ in range(10)]
    with FakeServer(answer_every_frame) as first, headworks.Client(first.target) as client:
        streams = [told.stream(client).__enter__() for told in cameras]
        for stream in streams:
            stream.send(JPEG)
        first.die()
        with FakeServer(answer_every_frame, port=first.port):
            for told in cameras:
                wait_for(lambda: told.kinds[-2:] == ["ConnectionLost", "ConnectionOpened"])  # noqa: B023
            for stream in streams:
                stream.send(JPEG)
                stream.close()
                stream.account.check()
                assert stream.account.sent == 2


@pytest.mark.parametrize("policy", ["latest", "bounded", "every_frame"])
def test_drain_moves_to_the_second_server_and_loses_nothing(policy: str) -> None:
    """The new stream opens first; the old one ends with an exact ledger; order is kept over both."""
    told = Told()
    options = {"depth": 100} if policy == "bounded" else {}
    with (
        FakeServer(drain_when_told) as first,
        FakeServer(answer_every_frame) as second,
        headworks.Client([first.target, second.target]) as client,
    ):
        with told.stream(client, policy=policy, **options) as stream:
            send_one_by_one(stream, 3)
            first.hold.set()
            while len(told.kinds) < 2:
                stream.send(JPEG)
            stream.send(JPEG)
            wait_for(lambda: second.streams[0].frames)
        assert first.streams[0].ledger.received == len(first.streams[0].frames)
        account = stream.account
        account.check()
        assert account.lost == 0
        assert [ledger.close_reason for ledger in account.connections] == ["END", "END"]
        assert [ledger.target for ledger in account.connections] == [first.target, second.target]
        assert told.results == sorted(set(told.results))
        assert told.kinds == ["ConnectionOpened", "ConnectionOpened"]
        if policy == "every_frame":
            assert told.drops == []
            assert told.results == list(range(1, account.offered + 1))


def test_drain_of_the_only_server_is_left_at_once() -> None:
    """It refuses the new stream; End goes out all the same, and the stream comes back when the server does."""
    told = Told()
    with FakeServer(drain_when_told, no_room, answer_every_frame) as server, headworks.Client(server.target) as client:
        with told.stream(client) as stream:
            server.hold.set()
            stream.send(JPEG)
            wait_for(lambda: len(server.streams) == 3)
            wait_for(lambda: told.kinds == ["ConnectionOpened", "ConnectionOpened"])
            stream.send(JPEG)
        stream.account.check()
        assert stream.account.lost == 0
        assert server.streams[0].peer != server.streams[1].peer, "a new channel may lead elsewhere"


def test_refusal_for_good_ends_the_stream_in_mid_life() -> None:
    """The model has gone from the server: send and leaving say so."""
    told = Told()
    with FakeServer(answer_two_then_break, refuse) as server, headworks.Client(server.target) as client:
        stream = told.stream(client)
        with pytest.raises(headworks.StreamRefusedError, match="NOT_FOUND: no model 'tennis'"), stream:  # noqa: PT012
            send_one_by_one(stream, 4)
            for outcome in stream:
                pytest.fail(f"{outcome} has a callback")
        with pytest.raises(headworks.StreamRefusedError):
            stream.send(JPEG)
        stream.account.check()
        assert len(server.streams) == 2


def test_refusal_for_now_is_tried_again() -> None:
    """A server without room gets asked later."""
    told = Told()
    with (
        FakeServer(answer_two_then_break, no_room, no_room, answer_every_frame) as server,
        headworks.Client(server.target) as client,
        told.stream(client) as stream,
    ):
        send_one_by_one(stream, 4)
        wait_for(lambda: len(server.streams) == 4)
    failed = [event for event in told.events if isinstance(event, headworks.ReconnectFailed)]
    assert [event.attempt for event in failed] == [2, 3], "the loss was the first"
    assert "RESOURCE_EXHAUSTED" in str(failed[0])


def test_camera_that_boots_before_its_server() -> None:
    """Entering waits, where that was asked for, and says so meanwhile."""
    told = Told()
    with FakeServer(answer_every_frame) as server:
        port = server.port
    with headworks.Client(f"127.0.0.1:{port}") as client:
        stream = told.stream(client, open_retry_s=math.inf)
        entering = threading.Thread(target=stream.__enter__)
        entering.start()
        wait_for(lambda: any(isinstance(event, headworks.ReconnectFailed) for event in told.events))
        with FakeServer(answer_every_frame, port=port):
            entering.join()
            stream.send(JPEG)
            stream.close()
        assert told.results == [1]


def test_first_open_goes_to_the_server_that_answers() -> None:
    """A list of targets is tried in order, each once."""
    with (
        FakeServer(no_room) as full,
        FakeServer(answer_every_frame) as free,
        headworks.Client([full.target, free.target]) as client,
        client.stream(on_result=lambda _: None) as stream,
    ):
        stream.send(JPEG)
    assert stream.account.connections[0].target == free.target


def test_leaving_by_an_exception_while_away_does_not_wait() -> None:
    """There is nobody to wait for."""
    told = Told()
    with FakeServer(silent_after_opened) as server, headworks.Client(server.target) as client:
        with pytest.raises(KeyError), told.stream(client) as stream:  # noqa: PT012
            stream.send(JPEG)
            wait_for(lambda: stream.account.sent == 1)
            server.die()
            wait_for(lambda: "ConnectionLost" in told.kinds)
            raise KeyError("the application's own")
        assert stream.account.lost == 1
        stream.account.check()


def test_closing_the_client_ends_streams_that_are_away() -> None:
    """They connect no more."""
    told = Told()
    with FakeServer(silent_after_opened) as server:
        with headworks.Client(server.target) as client:
            stream = told.stream(client).__enter__()
            server.die()
            wait_for(lambda: "ConnectionLost" in told.kinds)
        with pytest.raises(headworks.StreamBrokenError, match="the client was closed"):
            stream.close()


def test_send_waits_for_room_under_every_frame() -> None:
    """One frame waits here; the next is taken when that one has gone, or not in time."""

    def grant_when_told(stream: FakeStream) -> Events:
        stream.read()
        yield stream.opened(frames_allowed=0)
        stream.server.hold.wait()
        yield stream.credit(10)
        for request in stream:
            if request.HasField("frame"):
                yield stream.result(request.frame)
            else:
                yield stream.closed()

    told = Told()
    with FakeServer(grant_when_told) as server, headworks.Client(server.target) as client:
        with told.stream(client, policy="every_frame") as stream:
            stream.send(JPEG)
            with pytest.raises(TimeoutError, match=r"no room for another frame within 0\.01 s"):
                stream.send(JPEG, timeout=0.01)
            assert stream.account.offered == 1
            server.hold.set()
            assert stream.send(JPEG) == 2
        assert told.results == [1, 2]


def test_send_that_would_wait_for_ever_is_refused() -> None:
    """In a callback, which holds up the very stream it waits for."""
    caught: list[headworks.HeadworksError] = []

    def flood(_: headworks.Result) -> None:
        try:
            for _ in range(100):
                stream.send(JPEG)
        except headworks.HeadworksError as error:
            caught.append(error)

    with (
        FakeServer(answer_every_frame) as server,
        headworks.Client(server.target) as client,
        client.stream(policy="every_frame", on_result=flood) as stream,
    ):
        stream.send(JPEG)
        wait_for(lambda: caught)
    assert "would wait for ever in a callback" in str(caught[0])


def test_every_frame_keeps_all_outcomes_for_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """None falls out: whoever sends waits for the reader, and is told where there is none."""
    monkeypatch.setattr("headworks.delivery.UNREAD_OUTCOMES", 3)
    with FakeServer(answer_every_frame) as server, headworks.Client(server.target) as client:
        with client.stream(policy="every_frame") as stream:
            with pytest.raises(headworks.HeadworksError, match="outcomes are unread: give callbacks, or loop"):  # noqa: PT012
                for _ in range(100):
                    stream.send(JPEG)
            read: list[headworks.Outcome] = []
            reader = threading.Thread(target=lambda: read.extend(stream))
            reader.start()
            wait_for(lambda: len(read) >= 3)
            for _ in range(50):
                stream.send(JPEG)
        reader.join()
        assert len(read) == stream.account.offered == stream.account.results


def test_streams_that_reconnect_leave_no_threads_behind() -> None:
    """Neither breaks nor drains cost anything for good."""

    def threads() -> int:
        return sum("ThreadPool" not in thread.name for thread in threading.enumerate())

    with FakeServer(answer_two_then_break, answer_every_frame) as server, headworks.Client(server.target) as client:
        with client.stream(on_result=lambda _: None) as stream:
            idle = threads() - 2  # without this stream's reader and gRPC's writer
            send_one_by_one(stream, 4)
            wait_for(lambda: len(server.streams) == 2)
        wait_for(lambda: threads() <= idle)
