"""A crowd of cameras that open streams and cancel them, in rounds, from a process of its own.

Used by the fault tests, as a program: `crowd.py TARGET STREAMS` runs a round for each line it reads, on a connection of
that round, and writes a line with the number of streams that got their Opened. A sixth of the streams each is cancelled
before Open is read, after Opened, with frames in hand, after a result, after End, and in the middle of a burst.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import grpc

from headworks.v1 import frame_pb2 as pb

METHOD = "/headworks.v1.FrameService/StreamFrames"
OPEN = pb.StreamFramesRequest(open=pb.Open(stream_name="crowd"))
END = pb.StreamFramesRequest(end=pb.End())
PAYLOAD = bytes(range(250)) * 8


class Crowd:
    """The crowd's process. Made by `start_crowd`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run_round(self) -> int:
        """Run one round to its end; returns how many streams got their Opened."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def start_crowd(target: str, streams: int) -> Iterator[Crowd]:
    """A crowd until the end of the block."""
    command = [sys.executable, __file__, target, str(streams)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Crowd(process)
        finally:
            process.kill()


def frame(frame_id: int) -> pb.StreamFramesRequest:
    """A frame of two kilobytes."""
    return pb.StreamFramesRequest(frame=pb.Frame(frame_id=frame_id, data=PAYLOAD))


async def visit(channel: grpc.aio.Channel, state: int) -> bool:
    """One stream, cancelled in that state; whether it got its Opened."""
    stub: Any = channel.stream_stream(
        METHOD, pb.StreamFramesRequest.SerializeToString, pb.StreamFramesResponse.FromString
    )
    call = stub()
    await call.write(OPEN)
    opened = False
    if state > 0:
        opened = (await call.read()).events[0].HasField("opened")
    if state > 1:
        await call.write(frame(1))
        await call.write(frame(2))
    if state == 3:
        await call.read()
    if state == 4:
        await call.write(END)
    if state == 5:
        for frame_id in range(3, 12):
            await call.write(frame(frame_id))
    call.cancel()
    with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
        await call.code()
    return opened


async def run_round(target: str, streams: int) -> int:
    """All streams of one round, at once, on one connection."""
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        opened = await asyncio.gather(*(visit(channel, index % 6) for index in range(streams)))
    return sum(opened)


async def main(target: str, streams: int) -> None:
    """A round for each line."""
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(await run_round(target, streams), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
