"""Hundreds of cameras of bare stubs that come, go, cancel, stall, vanish and misbehave, from a process of their own.

Used by the soak, as a program: `fleet.py TARGET CAMERAS FOLDER SEED`. It runs a flood for each line it reads (its
seconds; 0 ends the program), in which every camera makes visit after visit, and writes a line with what came of it when
the last visit is over. A few residents stay from the first flood to the end. Every visit is held to the laws of a
stream; of each tenth the history goes to FOLDER, for whoever has the server's half.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import grpc

from headworks.v1 import frame_pb2 as pb
from support import laws
from support.fed_camera import POLICIES
from support.history import History
from support.raw_camera import STREAM_FRAMES, open_request

PAYLOAD = bytes(range(250)) * 2
PERIOD_S = 0.15  # between two frames of a camera
CAMERAS_A_CONNECTION = 16
RESIDENTS = len(POLICIES)
SAMPLED = 10  # of so many visits one leaves its history
OVER_AT_LAST_S = 20.0
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
NO_MESSAGE = b"\xff\xff\xff\xff"
FAILED_WRITE = "Internal error from Core"  # what grpc.aio puts over the status of a call that ended during a write


class Visit:
    """One stream of one camera, from Open to the end of its call."""

    def __init__(self, channel: grpc.aio.Channel, policy: str, name: str) -> None:
        self.history = History()
        self.policy = policy
        self._allowed = self._sent = 0
        self._reading = asyncio.Event()
        self._reading.set()
        self._news = asyncio.Event()
        self._call: Any = channel.stream_stream(STREAM_FRAMES)()
        self._opening = open_request(stream_name=name, drop_policy=POLICIES[policy])
        self._listener = asyncio.create_task(self._listen())

    @property
    def is_over(self) -> bool:
        """Whether the call has ended."""
        return self._listener.done()

    async def open(self) -> None:
        """Open the stream, without waiting for its grant."""
        await self._say(pb.StreamFramesRequest(open=self._opening))

    async def granted(self) -> None:
        """Wait until the stream is open, or over."""
        while not self._allowed and not self.is_over:
            self._news.clear()
            await self._news.wait()

    async def feed(self, seconds: float, *, ignores_credit: bool = False, period_s: float = PERIOD_S) -> None:
        """Send frames for that long, as credit allows."""
        give_up = asyncio.get_running_loop().time() + seconds
        while not self.is_over and (left := give_up - asyncio.get_running_loop().time()) > 0:
            if ignores_credit or self._sent < self._allowed:
                self._sent += 1
                await self._say(pb.StreamFramesRequest(frame=pb.Frame(frame_id=self._sent, data=PAYLOAD)))
                await asyncio.sleep(min(period_s, left))
            else:
                self._news.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), left)

    async def end(self) -> None:
        """Say that no frame follows."""
        await self._say(pb.StreamFramesRequest(end=pb.End()))

    async def half_close(self) -> None:
        """Close the sending direction without a word."""
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.done_writing()

    async def say_nonsense(self) -> None:
        """Send bytes that are no message."""
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.write(NO_MESSAGE)

    def listen(self, listening: bool) -> None:
        """Go on reading what the server says, or stop."""
        (self._reading.set if listening else self._reading.clear)()

    def cancel(self) -> None:
        """Cancel the call."""
        self._call.cancel()

    async def over(self) -> None:
        """Wait for the end of the call."""
        self.listen(True)
        await asyncio.wait_for(self._listener, OVER_AT_LAST_S)

    async def _say(self, request: pb.StreamFramesRequest) -> None:
        self.history.did_request(request)
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
            await self._call.write(request.SerializeToString())

    async def _listen(self) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            while (message := await self._call.read()) is not grpc.aio.EOF:
                for event in pb.StreamFramesResponse.FromString(message).events:
                    self.history.heard_event(event)
                    allowed = event.opened.frames_allowed or event.credit.frames_allowed
                    self._allowed = max(self._allowed, allowed)
                self._news.set()
                await self._reading.wait()
        code, detail = (await self._call.code()).name, await self._call.details() or ""
        self.history.ended("UNKNOWN" if detail == FAILED_WRITE else code, detail)
        self._news.set()


# What a camera may do on a visit. Each lasts two seconds or little more.


async def stays(visit: Visit, random: random.Random) -> None:
    await visit.feed(random.uniform(0.5, 2.0))
    await visit.end()


async def half_closes(visit: Visit, random: random.Random) -> None:
    await visit.feed(random.uniform(0.0, 0.5))
    await visit.half_close()


async def cancels_at_once(visit: Visit, random: random.Random) -> None:
    await visit.feed(random.choice((0.0, 0.02)), period_s=0.01)
    visit.cancel()


async def cancels(visit: Visit, random: random.Random) -> None:
    await visit.granted()
    await visit.feed(random.uniform(0.0, 0.3), period_s=0.01)
    visit.cancel()


async def cancels_after_end(visit: Visit, random: random.Random) -> None:
    await visit.granted()
    await visit.feed(random.uniform(0.0, 0.3))
    await visit.end()
    visit.cancel()


async def stalls(visit: Visit, random: random.Random) -> None:
    visit.listen(False)
    await visit.feed(random.uniform(0.2, 1.0), ignores_credit=visit.policy == "latest", period_s=0.02)
    visit.listen(True)
    await visit.end()


async def falls_silent(visit: Visit, random: random.Random) -> None:
    await visit.feed(random.uniform(0.0, 0.3))  # and the server closes the stream for idleness


async def is_rude(visit: Visit, random: random.Random) -> None:
    await visit.feed(random.uniform(0.02, 0.1), ignores_credit=True, period_s=0.0)
    await visit.end()


async def talks_nonsense(visit: Visit, random: random.Random) -> None:
    await visit.feed(random.uniform(0.0, 0.2))
    await visit.say_nonsense()


Manners = Callable[[Visit, random.Random], Awaitable[None]]
VISITS: dict[Manners, int] = {
    stays: 6,
    half_closes: 1,
    cancels_at_once: 1,
    cancels: 3,
    cancels_after_end: 1,
    stalls: 2,
    falls_silent: 1,
    is_rude: 1,
    talks_nonsense: 1,
}
VANISHING = 0.1  # of all visits, on a connection of their own that goes with them


class Fleet:
    """The cameras and what they have been through."""

    def __init__(self, target: str, cameras: int, folder: Path, seed: int) -> None:
        self._target, self._folder = target, folder
        self._randoms = [random.Random(seed * 1_000_003 + number) for number in range(cameras)]
        shared = -(-cameras // CAMERAS_A_CONNECTION)
        self._channels = [grpc.aio.insecure_channel(target, options=OPTIONS) for _ in range(shared)]
        self._visits = 0
        self._tally: Counter[str] = Counter()
        self._violations: list[str] = []
        self._residents: list[asyncio.Task[None]] = []
        self._leaving = False

    def settle(self) -> None:
        """Let the residents in."""
        for number, policy in enumerate(POLICIES):
            channel = self._channels[number % len(self._channels)]
            self._residents.append(asyncio.create_task(self._reside(channel, policy)))

    async def flood(self, seconds: float) -> dict[str, Any]:
        """Visits by every camera for that long; returns what came of them when the last one is over."""
        until_s = asyncio.get_running_loop().time() + seconds
        await asyncio.gather(*(self._camera(number, until_s) for number in range(len(self._randoms))))
        tally, self._tally = self._tally, Counter()
        violations, self._violations = self._violations, []
        return {"tally": tally, "violations": violations}

    async def leave(self) -> dict[str, Any]:
        """Let the residents end their streams."""
        self._leaving = True
        await asyncio.gather(*self._residents)
        for channel in self._channels:
            await channel.close()
        return {"tally": self._tally, "violations": self._violations}

    async def _camera(self, number: int, until_s: float) -> None:
        random, loop = self._randoms[number], asyncio.get_running_loop()
        await asyncio.sleep(random.uniform(0.0, 0.5))
        while loop.time() < until_s:
            manners = random.choices(list(VISITS), list(VISITS.values()))[0]
            policy = random.choice(list(POLICIES))
            if random.random() < VANISHING:
                await self._vanish(policy, random)
                continue
            visit = Visit(self._channels[number % len(self._channels)], policy, f"visit {number}")
            await visit.open()
            await manners(visit, random)
            await visit.over()
            self._judge(visit, manners.__name__)

    async def _reside(self, channel: grpc.aio.Channel, policy: str) -> None:
        while not self._leaving:
            visit = Visit(channel, policy, f"resident {policy}")
            await visit.open()
            # On a machine that is too busy it may be taken for idle: then it comes again.
            while not self._leaving and not visit.is_over:
                await visit.feed(0.3)
            await visit.end()
            await visit.over()
            self._judge(visit, "resident", sampled=True)

    async def _vanish(self, policy: str, random: random.Random) -> None:
        async with grpc.aio.insecure_channel(self._target, options=OPTIONS) as channel:
            visit = Visit(channel, policy, "vanishes")
            await visit.open()
            await visit.granted()
            await visit.feed(random.uniform(0.0, 0.5))
        await visit.over()
        self._judge(visit, "vanishes")

    def _judge(self, visit: Visit, manners: str, *, sampled: bool = False) -> None:
        self._visits += 1
        history = visit.history.events
        self._tally[manners] += 1
        self._tally["frames"] += laws.sent_count(history)
        self._violations += [f"{manners}, {visit.policy}: {sentence}" for sentence in laws.stream(history)]
        stream_id = laws.stream_id(history)
        if stream_id is not None and (sampled or self._visits % SAMPLED == 0):
            (self._folder / f"{stream_id}.json").write_text(json.dumps(history))


class FleetProcess:
    """The fleet's process. Made by `start_fleet`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start_flood(self, seconds: float) -> None:
        """Let the cameras visit for that long; 0 lets the residents leave, and ends the program."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()

    def wait(self) -> dict[str, Any]:
        """Wait for the last visit of the flood; returns `tally` and `violations`."""
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


@contextmanager
def start_fleet(target: str, cameras: int, folder: Path, *, seed: int) -> Iterator[FleetProcess]:
    """A fleet until the end of the block."""
    command = [sys.executable, __file__, target, str(cameras), str(folder), str(seed)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield FleetProcess(process)
        finally:
            process.kill()


async def main(target: str, cameras: str, folder: str, seed: str) -> None:
    """A flood for each line."""
    fleet = Fleet(target, int(cameras), Path(folder), int(seed))
    fleet.settle()
    loop = asyncio.get_running_loop()
    while (seconds := float(await loop.run_in_executor(None, sys.stdin.readline) or 0)) > 0:
        print(json.dumps(await fleet.flood(seconds)), flush=True)
    print(json.dumps(await fleet.leave()), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
