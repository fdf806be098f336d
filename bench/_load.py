"""Cameras as raw bytes: the load of every benchmark that goes over gRPC, in a process of its own.

One grpc.aio loop drives all cameras. Each keeps to its credit and to `outstanding` frames on the way; a paced camera
offers a frame when it is due and holds the newest while it may not send, an unpaced one sends when it was answered.
Answers are walked, not parsed.
CPU times, frames and ages are those between the end of the warm-up and the end of the run. A benchmark calls
`run_load`; this module, executed, takes the load as JSON and prints what came of it as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import grpc
import grpc.aio
import uvloop

from bench._measure import ROOT, ServerProcess, percentile, process_cpu_s, process_rss_kb
from headworks import codec
from headworks.client import STREAM_FRAMES
from headworks.v1 import frame_pb2 as pb
from headworks_server.runtime.allocator import raise_malloc_thresholds

OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a channel is a connection of its own
]
OPENED, RESULT, DROPPED, FRAME_ERROR, CREDIT, CLOSED = 1, 2, 3, 4, 5, 8


@dataclass(frozen=True, kw_only=True)
class Load:
    """What to send.

    Attributes:
        streams: cameras.
        connections: that they share, evenly.
        fps: frames a second of each camera; 0 for as fast as they are answered.
        outstanding: most frames of a camera that are on the way at a time; 0 leaves it to the credit. Of a camera
            with one on the way the server never has a newer frame to drop it for.
        frame_bytes: size of each frame, which then holds no picture; or
        clip: a folder of JPEG files, relative to the repository, which the cameras repeat from different places.
        model: what runs them; may be left out where the server has one.
        warm_s: before the measurement.
        seconds: of the measurement.
    """

    streams: int
    connections: int = 1
    fps: float = 0.0
    outstanding: int = 1
    frame_bytes: int = 0
    clip: str = ""
    model: str = ""
    warm_s: float = 0.7
    seconds: float = 3.0


@dataclass(kw_only=True)
class Answers:
    """What cameras were told, in all: events, and seconds from the moment a frame was due, and sent, to its result."""

    results: int = 0
    dropped: int = 0
    errors: int = 0
    closed: int = 0
    bytes: int = 0
    sent: int = 0
    replaced: int = 0  # by the camera itself, for want of credit


class Camera:
    """One stream: a writer that sends what is offered as credit allows, a reader that counts the answers."""

    def __init__(self, call: Any, payloads: list[bytes], answers: Answers, ages: list[float], load: Load) -> None:
        self._call = call
        self._payloads = payloads
        self._answers = answers
        self._ages = ages
        models = [pb.ModelSelector(name=load.model)] if load.model else []
        self._open = pb.StreamFramesRequest(open=pb.Open(models=models)).SerializeToString()
        self._closed_loop = not load.fps
        self._outstanding = load.outstanding or 1 << 30
        self._offered: deque[float] = deque(maxlen=load.outstanding if self._closed_loop else 1)
        self._due: dict[int, float] = {}
        self._allowed = 0
        self._sent = 0
        self._ending = False
        self._wake = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the stream; returns when the server has said Opened."""
        await self._call.write(self._open)
        opened = pb.StreamFramesResponse.FromString(await self._call.read())
        self._allowed = opened.events[0].opened.frames_allowed
        self._reader = asyncio.create_task(self._read())
        self._writer = asyncio.create_task(self._write())

    def offer(self, due_s: float) -> None:
        """Offer the frame that was due then."""
        if len(self._offered) == self._offered.maxlen:
            self._answers.replaced += 1
        self._offered.append(due_s)
        self._wake.set()

    async def close(self) -> None:
        """Say that no frame follows, and read to the end."""
        self._ending = True
        self._wake.set()
        assert self._writer is not None
        assert self._reader is not None
        await self._writer
        await self._reader

    async def _write(self) -> None:
        while not self._ending:
            while self._offered and self._sent < self._allowed and len(self._due) < self._outstanding:
                due_s = self._offered.popleft()
                self._sent += 1
                self._due[self._sent] = due_s
                self._answers.sent += 1
                payload = self._payloads[self._sent % len(self._payloads)]
                stamp = time.time_ns()
                await self._call.write(
                    codec.frame_request(
                        payload, frame_id=self._sent, capture_time_ns=stamp, encoding=1, width=0, height=0
                    )
                )
            await self._wake.wait()
            self._wake.clear()
        await self._call.done_writing()

    async def _read(self) -> None:
        while (message := await self._call.read()) is not grpc.aio.EOF:
            now_s = time.monotonic()
            self._answers.bytes += len(message)
            for event, start in walk(message):
                if event == RESULT:
                    self._answers.results += 1
                    frame_id, _ = varint(message, start + 1)  # frame_id is a Result's first field
                    self._take(frame_id, now_s)
                elif event == CREDIT:
                    allowed, _ = varint(message, start + 1)
                    self._allowed = max(self._allowed, allowed)
                    self._wake.set()
                else:
                    self._take_rare(event, message)

    def _take(self, frame_id: int, now_s: float) -> None:
        # The bare server answers every frame with the same bytes: then it is the oldest that is answered.
        due_s = self._due.pop(frame_id, None)
        if due_s is None:
            due_s = self._due.pop(next(iter(self._due)))
        self._ages.append(now_s - due_s)
        self._wake.set()
        if self._closed_loop and not self._ending:
            self.offer(now_s)

    def _take_rare(self, event: int, message: bytes) -> None:
        if event == DROPPED:
            for one in pb.StreamFramesResponse.FromString(message).events:
                dropped = one.dropped
                self._answers.dropped += sum(drop.count for drop in dropped.counts)
                for frame_id in range(dropped.first_frame_id, dropped.last_frame_id + 1):
                    self._due.pop(frame_id, None)
        self._answers.errors += event == FRAME_ERROR
        self._answers.closed += event == CLOSED


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a varint; returns it and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def walk(message: bytes) -> Iterator[tuple[int, int]]:
    """The events of a StreamFramesResponse: the number of the event's field, and where the event's own fields begin."""
    at = 0
    while at < len(message):
        length, entry = varint(message, at + 1)
        _, start = varint(message, entry + 1)
        yield message[entry] >> 3, start
        at = entry + length


async def drive(load: Load, target: str, server_pid: int) -> dict[str, Any]:
    """Run the load; returns the figures of the measured part."""
    payloads = [path.read_bytes() for path in sorted((ROOT / load.clip).glob("*.jpg"))] if load.clip else []
    payloads = payloads or [os.urandom(load.frame_bytes)]
    answers = Answers()
    ages: list[float] = []
    channels = [grpc.aio.insecure_channel(target, options=OPTIONS) for _ in range(load.connections)]
    calls = [channel.stream_stream(STREAM_FRAMES) for channel in channels]
    cameras = []
    for number in range(load.streams):
        first = number * len(payloads) // load.streams
        clip = payloads[first:] + payloads[:first]
        cameras.append(Camera(calls[number % load.connections](), clip, answers, ages, load))
    before_kb = process_rss_kb(server_pid)
    for camera in cameras:
        await camera.open()
    opened_kb = process_rss_kb(server_pid)
    feeder = asyncio.create_task(pace(cameras, load.fps) if load.fps else fill(cameras, load.outstanding))
    await asyncio.sleep(load.warm_s)
    start = snapshot(answers, ages, server_pid)
    await asyncio.sleep(load.seconds)
    end = snapshot(answers, ages, server_pid)
    feeder.cancel()
    await asyncio.gather(*(camera.close() for camera in cameras))
    for channel in channels:
        await channel.close()
    return figures(start, end, ages) | {"total": asdict(answers), "kb_opening": opened_kb - before_kb}


async def pace(cameras: list[Camera], fps: float) -> None:
    """Offer each camera's frames when they are due; the cameras are evenly out of phase."""
    period_s = 1 / (fps * len(cameras))
    start_s = time.monotonic()
    number = 0
    while True:
        while (due_s := start_s + number * period_s) <= time.monotonic():
            cameras[number % len(cameras)].offer(due_s)
            number += 1
        await asyncio.sleep(due_s - time.monotonic())


async def fill(cameras: list[Camera], outstanding: int) -> None:
    """Give each camera its first frames; every answer then brings the next."""
    for camera in cameras:
        for _ in range(outstanding):
            camera.offer(time.monotonic())


def snapshot(answers: Answers, ages: list[float], server_pid: int) -> dict[str, float]:
    """Where everything stands now."""
    return {
        "server_s": process_cpu_s(server_pid),
        "client_s": time.process_time(),
        "rss_kb": process_rss_kb(server_pid),
        "at_s": time.monotonic(),
        "results": answers.results,
        "bytes": answers.bytes,
        "ages": len(ages),
    }


def figures(start: dict[str, float], end: dict[str, float], ages: list[float]) -> dict[str, Any]:
    """What the measured part came to."""
    passed = {name: end[name] - start[name] for name in start}
    results = int(passed["results"])
    measured = ages[int(start["ages"]) : int(end["ages"])]
    return {
        "results": results,
        "results_s": results / passed["at_s"],
        "server_us": passed["server_s"] / results * 1e6,
        "client_us": passed["client_s"] / results * 1e6,
        "answer_bytes": passed["bytes"] / results,
        "rss_kb": end["rss_kb"],
        "age_ms": {name: percentile(measured, share) * 1e3 for name, share in (("p50", 0.5), ("p99", 0.99))},
    }


def run_load(server: ServerProcess, load: Load) -> dict[str, Any]:
    """Put a load on a server, from a process of its own, and return its figures.

    Raises:
        RuntimeError: the load could not be run.
    """
    command = [sys.executable, "-m", "bench._load", json.dumps(asdict(load)), server.target, str(server.pid)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"the load ended with code {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check_complete(figures: dict[str, Any]) -> None:
    """See that every frame that was sent was answered with a result."""
    total = figures["total"]
    assert total["dropped"] == total["errors"] == 0, total
    assert total["results"] == total["sent"], total


def main() -> None:
    load, target, pid = sys.argv[1:]
    raise_malloc_thresholds()
    print(json.dumps(uvloop.run(drive(Load(**json.loads(load)), target, int(pid)))))


if __name__ == "__main__":
    main()
