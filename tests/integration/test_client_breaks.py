"""The SDK against servers that refuse, drain, die, fall silent or break the contract: what an application is told."""

from __future__ import annotations

import pytest

import headworks
from headworks import client as client_module
from headworks.session import DEAD_AFTER_NS, PING_AFTER_NS
from headworks.v1 import frame_pb2 as pb
from support.fake_server import (
    Events,
    FakeServer,
    FakeStream,
    answer_every_frame,
    drain_after_first_frame,
    refuse,
    silent_after_opened,
    silent_from_the_start,
)
from support.waiting import JPEG, send_one_by_one, wait_for


class ManualClock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def fast_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams look at their (manual) clock a hundred times a second."""
    monkeypatch.setattr(client_module, "WATCH_INTERVAL_S", 0.01)


def test_nobody_listens() -> None:
    """The message says where, what, and how to start a server."""
    with FakeServer(answer_every_frame) as server:
        target = server.target
    with (
        headworks.Client(target) as client,
        pytest.raises(headworks.ConnectionFailedError, match=rf"cannot reach {target}: .* headworks serve DIR"),
        client.stream(),
    ):
        pass


def test_server_does_not_answer_open() -> None:
    """Waiting for the grant is bounded."""
    with (
        FakeServer(silent_from_the_start) as server,
        headworks.Client(server.target, open_timeout_s=0.05) as client,
        pytest.raises(headworks.ConnectionFailedError, match=r"no answer to Open in 0\.05 s"),
        client.stream(),
    ):
        pass


def test_refused_stream_gives_the_servers_reason() -> None:
    """The body of the `with` is never entered."""
    with (
        FakeServer(refuse) as server,
        headworks.Client(server.target) as client,
        pytest.raises(
            headworks.StreamRefusedError, match="NOT_FOUND: no model 'tennis'; there are: football"
        ) as caught,
        client.stream("tennis"),
    ):
        pass
    assert caught.value.code == "NOT_FOUND"


def test_drain_is_told_before_the_stream_breaks() -> None:
    """Notice, then Closed with an exact ledger, then the status: rule 15."""
    notices: list[headworks.Notice] = []
    with FakeServer(drain_after_first_frame) as server, headworks.Client(server.target) as client:
        with (
            pytest.raises(headworks.StreamBrokenError, match="UNAVAILABLE: the server drained") as caught,
            client.stream(reconnect=False, on_result=lambda _: None, on_notice=notices.append) as stream,
        ):
            stream.send(JPEG)
        assert [(notice.kind, notice.grace_ms) for notice in notices] == [("DRAINING", 5000)]
        assert caught.value.closed is not None
        assert caught.value.closed.reason == "DRAINED"
        account = stream.account
        account.check()
        assert (account.received, account.results, account.lost, account.close_reason) == (1, 1, 0, "DRAINED")


def test_dying_server_breaks_the_stream_and_frames_are_counted_lost() -> None:
    """No Closed: what was sent and not answered is lost, and send says that the stream is gone."""
    with FakeServer(silent_after_opened) as server, headworks.Client(server.target) as client:
        stream = client.stream(name="gate", reconnect=False)
        stream.__enter__()
        send_one_by_one(stream, 3)
        server.die()
        with pytest.raises(headworks.StreamBrokenError):
            list(stream)
        with pytest.raises(headworks.StreamBrokenError):
            stream.send(JPEG)
        with pytest.raises(headworks.StreamBrokenError) as caught:
            stream.close()
        assert caught.value.closed is None
        account = stream.account
        assert (account.sent, account.received, account.lost, account.unaccounted) == (3, None, 3, None)
        account.check()


@pytest.mark.usefixtures("fast_watch")
def test_idle_camera_pings_and_the_answer_keeps_it_alive() -> None:
    """Two seconds without a frame: a Ping goes out by itself, and the server is not given up."""
    clock = ManualClock()
    told: list[headworks.Result] = []
    with (
        FakeServer(answer_every_frame) as server,
        headworks.Client(server.target, now_ns=clock) as client,
        client.stream(on_result=told.append) as stream,
    ):
        for number in (1, 2, 3, 4):
            clock.now += PING_AFTER_NS
            wait_for(lambda: server.streams[0].pings == list(range(1, number + 1)))  # noqa: B023 - called at once
            # The Pong stands before this frame's result: when that is here, the Pong has been heard.
            stream.send(JPEG)
            wait_for(lambda: len(told) == number)  # noqa: B023 - called at once
        assert clock.now > DEAD_AFTER_NS


@pytest.mark.usefixtures("fast_watch")
def test_silent_server_is_given_up() -> None:
    """Six seconds without a word: the stream breaks, though the connection looks alive."""
    clock = ManualClock()
    with FakeServer(silent_after_opened) as server, headworks.Client(server.target, now_ns=clock) as client:
        stream = client.stream(reconnect=False)
        stream.__enter__()
        clock.now += DEAD_AFTER_NS
        with pytest.raises(headworks.StreamBrokenError, match=rf"nothing heard from {server.target} for 6 s"):
            list(stream)


def test_no_closed_after_end() -> None:
    """Leaving is bounded as well."""
    with (
        FakeServer(silent_after_opened) as server,
        headworks.Client(server.target, close_timeout_s=0.05) as client,
        pytest.raises(headworks.StreamBrokenError, match=r"no Closed within 0\.05 s of End"),
        client.stream(),
    ):
        pass


def test_call_that_ends_without_closed_is_broken() -> None:
    """OK alone is not enough: without the ledger nobody knows what was read."""

    def forget_closed(stream: FakeStream) -> Events:
        stream.read()
        yield stream.opened()

    with (
        FakeServer(forget_closed) as server,
        headworks.Client(server.target) as client,
        pytest.raises(headworks.StreamBrokenError, match="without Closed"),
        client.stream(reconnect=False),
    ):
        pass


@pytest.mark.parametrize(
    "nonsense", [b"\xff\xff", pb.StreamFramesResponse(events=[pb.ServerEvent(opened=pb.Opened())])]
)
def test_server_that_breaks_the_contract(nonsense: bytes | pb.StreamFramesResponse) -> None:
    """No message at all, or one that the contract does not allow there."""

    def talk_nonsense(stream: FakeStream) -> Events:
        stream.read()
        yield stream.opened()
        frame = stream.read().frame
        yield stream.result(frame)
        yield nonsense if isinstance(nonsense, bytes) else list(nonsense.events)
        stream.server.hold.wait()

    told: list[int] = []
    with FakeServer(talk_nonsense) as server, headworks.Client(server.target) as client:
        stream = client.stream(on_result=lambda result: told.append(result.frame_id))
        stream.__enter__()
        stream.send(JPEG)
        with pytest.raises(headworks.ProtocolError):
            list(stream)
        assert told == [1]


def test_exception_in_the_body_is_not_held_up() -> None:
    """The stream is cut, not ended: a Ctrl-C does not wait half a minute for a dead server."""
    with FakeServer(silent_after_opened) as server, headworks.Client(server.target) as client:
        with pytest.raises(KeyError), client.stream():
            raise KeyError("the application's own")
        wait_for(lambda: not server.streams[0].context.is_active())


def test_stream_that_was_never_opened_closes_at_once() -> None:
    """There is nothing to wait for."""
    with headworks.Client("127.0.0.1:1") as client:
        stream = client.stream()
        stream.close()
        assert stream.account.offered == 0
