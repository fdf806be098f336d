"""The asyncio twin of the SDK: the same core cases, and that it leaves nothing behind when its task is cancelled."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import pytest

import headworks
from headworks import aio
from headworks.aio import stream as stream_module
from headworks.session import DEAD_AFTER_NS, PING_AFTER_NS
from headworks.v1 import frame_pb2 as pb
from support.fake_server import (
    Events,
    FakeServer,
    FakeStream,
    answer_every_frame,
    answer_two_then_break,
    drain_after_first_frame,
    drain_when_told,
    drop_then_fail_then_answer,
    no_room,
    refuse,
    silent_after_opened,
    silent_from_the_start,
    talk_nonsense,
)
from support.waiting import JPEG


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another task or thread does; the suite's own timeout is the limit."""
    while not condition():
        await asyncio.sleep(0.001)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end, and see that no task is left."""

    async def whole() -> None:
        await main
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert {task for task in left if "headworks" in task.get_name()} == set()

    asyncio.run(whole())


async def send_one_by_one(stream: aio.FrameStream, count: int) -> None:
    """Send so that none is replaced here."""
    for number in range(1, count + 1):
        await stream.send(JPEG)
        await until(lambda: stream.account.sent == number)  # noqa: B023


def test_loop_over_the_stream_yields_typed_results() -> None:
    """send, end, loop: the shortest program there is."""

    async def main() -> None:
        async with aio.Client(server.target) as client:
            async with client.stream("football", name="gate 1") as stream:
                assert stream.opened.models[0].labels == ("player", "referee", "ball")
                assert await stream.send(JPEG, capture_time_ns=1_700_000_000_123_456_789) == 1
                stream.end()
                (result,) = [outcome async for outcome in stream]
            assert isinstance(result, headworks.Result)
            assert result.detections == (headworks.Detection(1, 2, 3, 4, 0.5, 2, "ball"),)
            assert stream.closed is not None
            assert stream.closed.reason == "END"
            stream.account.check()

    with FakeServer(answer_every_frame) as server:
        run(main())
        assert server.streams[0].frames[0].data == JPEG


def test_callbacks_may_be_coroutines() -> None:
    """One at a time, in order; the fault of one costs nothing but itself."""
    told: list[int] = []

    async def on_result(result: headworks.Result) -> None:
        await asyncio.sleep(0)
        told.append(result.frame_id)
        if result.frame_id == 3:
            raise RuntimeError("a fault of the application")

    async def main() -> None:
        errors: list[headworks.FrameError] = []
        drops: list[headworks.Dropped] = []
        async with (
            aio.Client(server.target) as client,
            client.stream(on_result=on_result, on_error=errors.append, on_drop=drops.append) as stream,
        ):
            await send_one_by_one(stream, 9)
        assert told == [3, 6, 9]
        assert [error.frame_id for error in errors] == [2, 5, 8]
        assert [drop.first_frame_id for drop in drops] == [1, 4, 7]
        stream.account.check()

    with FakeServer(drop_then_fail_then_answer) as server:
        run(main())


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        (refuse, headworks.StreamRefusedError, "NOT_FOUND: no model 'tennis'"),
        (silent_from_the_start, headworks.ConnectionFailedError, r"no answer to Open in 0\.05 s"),
        (silent_after_opened, headworks.StreamBrokenError, r"no Closed within 0\.05 s of End"),
        (talk_nonsense, headworks.ProtocolError, "said opened while the stream was open"),
    ],
)
def test_servers_that_do_not_do_their_part(script: Any, error: type[Exception], words: str) -> None:
    """The same errors as the synchronous client raises."""

    async def main() -> None:
        async with aio.Client(server.target, open_timeout_s=0.05, close_timeout_s=0.05) as client:
            with pytest.raises(error, match=words):  # noqa: PT012
                async with client.stream(on_result=lambda _: None) as stream:
                    await stream.send(JPEG)
                    if script is talk_nonsense:
                        assert [outcome async for outcome in stream] == []

    with FakeServer(script) as server:
        run(main())


def test_nobody_listens() -> None:
    """One sentence."""

    async def main() -> None:
        async with aio.Client("127.0.0.1:1") as client:
            with pytest.raises(headworks.ConnectionFailedError, match=r"cannot reach 127\.0\.0\.1:1"):
                await client.stream().__aenter__()

    run(main())


def test_without_reconnect_a_break_is_the_end() -> None:
    """Notice, Closed, then the status; and a break without a Closed."""

    async def main() -> None:
        notices: list[headworks.Notice] = []
        async with aio.Client(server.target) as client:
            with pytest.raises(headworks.StreamBrokenError, match="UNAVAILABLE: the server drained") as caught:
                async with client.stream(reconnect=False, on_result=lambda _: None, on_notice=notices.append) as stream:
                    await stream.send(JPEG)
            assert [notice.kind for notice in notices] == ["DRAINING"]
            assert caught.value.closed is not None
            stream.account.check()

    with FakeServer(drain_after_first_frame) as server:
        run(main())


def test_status_of_the_server_survives_a_write_that_came_too_late() -> None:
    """What it says decides whether the stream is opened again: it must not be replaced by an error of the write."""

    def refuse_in_mid_stream(stream: FakeStream) -> Events:
        stream.read()
        yield stream.opened(frames_allowed=1000)
        stream.read()
        stream.context.abort(grpc.StatusCode.PERMISSION_DENIED, "not any more")

    async def main() -> None:
        async with aio.Client(server.target) as client:
            for _ in range(20):
                with pytest.raises(headworks.StreamBrokenError, match="PERMISSION_DENIED: not any more"):  # noqa: PT012
                    async with client.stream(on_lost=lambda _: None) as stream:
                        while True:
                            await stream.send(bytes(100_000))

    with FakeServer(refuse_in_mid_stream) as server:
        run(main())


@pytest.mark.parametrize("policy", ["latest", "every_frame"])
def test_break_in_mid_stream_is_a_new_open(policy: str) -> None:
    """Live frames are told as lost, those of a file are sent again, told once, and in order."""

    async def main() -> None:
        results: list[int] = []
        lost: list[headworks.Lost] = []
        events: list[headworks.ConnectionEvent] = []
        async with aio.Client(server.target) as client:
            async with client.stream(
                policy=policy,
                on_result=lambda result: results.append(result.frame_id),
                on_lost=lost.append,
                on_connection=events.append,
            ) as stream:
                await send_one_by_one(stream, 4)
                await until(lambda: len(events) == 3)
                await stream.send(JPEG)
            account = stream.account
            account.check()
            assert [type(event) for event in events] == [
                headworks.ConnectionOpened,
                headworks.ConnectionLost,
                headworks.ConnectionOpened,
            ]
            if policy == "latest":
                assert (results, lost) == ([1, 2, 5], [headworks.Lost(3, 4, 2)])
            else:
                assert (results, lost) == ([1, 2, 3, 4, 5], [])
                assert (account.sent, account.resent) == (5, 2)

    with FakeServer(answer_two_then_break, answer_every_frame) as server:
        run(main())


@pytest.mark.parametrize("policy", ["latest", "bounded", "every_frame"])
def test_drain_moves_to_the_second_server_and_loses_nothing(policy: str) -> None:
    """The new stream opens first; the old one ends with an exact ledger."""

    async def main() -> None:
        results: list[int] = []
        async with aio.Client([first.target, second.target]) as client:
            async with client.stream(
                policy=policy, on_result=lambda result: results.append(result.frame_id), on_drop=lambda _: None
            ) as stream:
                await send_one_by_one(stream, 3)
                first.hold.set()
                while not second.streams:
                    await stream.send(JPEG)
                await stream.send(JPEG)
            account = stream.account
            account.check()
            assert account.lost == 0
            assert [ledger.close_reason for ledger in account.connections] == ["END", "END"]
            assert results == sorted(set(results))
            if policy == "every_frame":
                assert results == list(range(1, account.offered + 1))

    with FakeServer(drain_when_told) as first, FakeServer(answer_every_frame) as second:
        run(main())


def test_camera_that_boots_before_its_server() -> None:
    """Entering waits, where that was asked for."""

    async def main() -> None:
        events: list[headworks.ConnectionEvent] = []
        async with aio.Client(f"127.0.0.1:{port}") as client:
            stream = client.stream(open_retry_s=math.inf, on_result=lambda _: None, on_connection=events.append)
            entering = asyncio.create_task(stream.__aenter__())
            await until(lambda: events)
            with FakeServer(answer_every_frame, port=port):
                await entering
                await stream.send(JPEG)
                await stream.close()
            assert stream.account.results == 1

    with FakeServer(answer_every_frame) as server:
        port = server.port
    run(main())


def test_list_of_servers_is_tried_in_order() -> None:
    """The one without room first."""

    async def main() -> None:
        async with (
            aio.Client([full.target, free.target]) as client,
            client.stream(on_result=lambda _: None) as stream,
        ):
            await stream.send(JPEG)
        assert stream.account.connections[0].target == free.target

    with FakeServer(no_room) as full, FakeServer(answer_every_frame) as free:
        run(main())


def test_idle_camera_pings_and_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is looked at by a task of the stream."""
    monkeypatch.setattr(stream_module, "WATCH_INTERVAL_S", 0.01)
    now = 0

    async def main() -> None:
        nonlocal now
        async with aio.Client(server.target, now_ns=lambda: now) as client:
            async with client.stream(on_result=lambda _: None) as stream:
                now += PING_AFTER_NS
                await until(lambda: server.streams[0].pings)
                await stream.send(JPEG)
                await until(lambda: stream.account.results == 1)
            with pytest.raises(headworks.StreamBrokenError, match="nothing heard from"):  # noqa: PT012
                async with client.stream(reconnect=False) as stream:
                    now += DEAD_AFTER_NS
                    async for _ in stream:
                        pass

    with FakeServer(answer_every_frame, silent_after_opened) as server:
        run(main())


def test_cancelled_task_leaves_nothing_behind() -> None:
    """Wherever it waits: for the grant, for room, for outcomes, for Closed."""

    async def use(client: aio.Client, policy: str, seen: list[aio.FrameStream]) -> None:
        stream = client.stream(policy=policy)
        seen.append(stream)
        async with stream:
            if policy == "bounded":
                return  # waits for Closed
            for _ in range(100 if policy == "every_frame" else 1):
                await stream.send(JPEG)
            async for _ in stream:
                pass

    async def main() -> None:
        async with aio.Client(server.target) as client:
            for policy in ("latest", "bounded", "every_frame"):
                for opens in (False, True):
                    server.hold.clear()
                    seen: list[aio.FrameStream] = []
                    count = len(server.streams)
                    task = asyncio.create_task(use(client, policy, seen))
                    await until(lambda: len(server.streams) > count)  # noqa: B023
                    if opens:
                        await until(lambda: seen[0].account.sent or policy == "bounded")  # noqa: B023
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    served = server.streams[-1].context
                    await until(lambda: not served.is_active())  # noqa: B023
                    left = {one for one in asyncio.all_tasks() if "headworks" in one.get_name()}
                    assert left == set()

    with FakeServer(silent_after_opened) as server:
        run(main())


def test_closing_the_client_ends_its_streams() -> None:
    """They connect no more."""

    async def main() -> None:
        async with aio.Client(server.target) as client:
            stream = await client.stream().__aenter__()
        with pytest.raises(headworks.StreamBrokenError, match="the client was closed"):
            await stream.close()

    with FakeServer(silent_after_opened) as server:
        run(main())


def test_send_waits_for_room_under_every_frame() -> None:
    """Not in time is an error of its own, and the frame was not offered."""

    async def main() -> None:
        async with aio.Client(server.target, close_timeout_s=0.05) as client:
            with pytest.raises(headworks.StreamBrokenError, match="no Closed"):  # noqa: PT012
                async with client.stream(policy="every_frame", on_result=lambda _: None) as stream:
                    for _ in range(5):  # the server grants four and takes none
                        await stream.send(JPEG)
                    with pytest.raises(TimeoutError, match="no room"):
                        await stream.send(JPEG, timeout=0.01)
                    assert stream.account.offered == 5

    with FakeServer(silent_after_opened) as server:
        run(main())


def test_infer_returns_one_result() -> None:
    """One picture, one answer."""

    async def main() -> None:
        async with aio.Client(server.target) as client:
            result = await client.infer(JPEG, model="football")
            assert result.detections[0].label == "2"

    def answer(request: pb.InferFrameRequest, _: object) -> pb.InferFrameResponse:
        box = pb.Detections(detections=[pb.Detection(class_id=2)])
        return pb.InferFrameResponse(
            result=pb.Result(frame_id=request.frame.frame_id, outputs=[pb.Output(detections=box)])
        )

    with FakeServer(answer_every_frame, infer=answer) as server:
        run(main())
