"""CPU of a client process per frame: the SDK on synchronous gRPC, against a bare client on one grpc.aio loop.

Ten cameras at 30 fps send 150 KB frames to a raw-bytes grpc.aio server in a process of its own, which answers each
with a Result of 25 detections. Both clients are fresh processes, interleaved; the time is the process's own CPU
time from the first frame to the last answer. It decided for synchronous gRPC (see clients/python/headworks/client.py).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "clients" / "python"))

import headworks
from headworks import codec
from headworks.client import STREAM_FRAMES
from headworks.v1 import frame_pb2 as pb

STREAMS, FPS, FRAME_BYTES, DETECTIONS = 10, 30, 150_000, 25
PAYLOAD = os.urandom(FRAME_BYTES)
OPTIONS = [("grpc.max_send_message_length", 32 << 20), ("grpc.max_receive_message_length", 32 << 20)]


def pace(send: Callable[[int], None], seconds: float) -> None:
    """Call send(camera) at the cameras' rate, spread over the frame period, as the demo does."""
    start = time.monotonic()
    for number in range(int(FPS * seconds)):
        for camera in range(STREAMS):
            time.sleep(max(0.0, start + (number + camera / STREAMS) / FPS - time.monotonic()))
            send(camera)


def measure_sdk(target: str, seconds: float) -> tuple[float, int]:
    """Run the SDK; return (CPU seconds, results)."""
    seen = [0] * STREAMS
    with headworks.Client(target) as client:

        def count(camera: int) -> Callable[[headworks.Result], None]:
            def on_result(result: headworks.Result) -> None:
                seen[camera] += len(result.detections) == DETECTIONS

            return on_result

        streams = [client.stream(on_result=count(camera)) for camera in range(STREAMS)]
        for stream in streams:
            stream.__enter__()
        before = time.process_time()
        pace(lambda camera: streams[camera].send(PAYLOAD), seconds)
        for stream in streams:
            stream.end()
        for stream in streams:
            stream.close()
        return time.process_time() - before, sum(seen)


def measure_aio(target: str, seconds: float) -> tuple[float, int]:
    """Run the bare client: one loop in a thread, a mailbox a camera, no account; return (CPU seconds, results)."""
    mailbox: list[bytes | None] = [None] * STREAMS
    seen = [0] * STREAMS
    ended = False
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    wake = [asyncio.Event() for _ in range(STREAMS)]

    async def read(camera: int, call: Any) -> None:
        async for message in call:
            for event in pb.StreamFramesResponse.FromString(message).events:
                if event.WhichOneof("event") == "result":
                    result = codec.result(event.result, labels=((),), age_s=0.0, round_trip_s=0.0)
                    seen[camera] += len(result.detections) == DETECTIONS

    async def run_camera(camera: int, call: Any) -> None:
        await call.write(pb.StreamFramesRequest(open=pb.Open()).SerializeToString())
        reader = asyncio.ensure_future(read(camera, call))
        number = 0
        while not ended or mailbox[camera] is not None:
            await wake[camera].wait()
            wake[camera].clear()
            data, mailbox[camera] = mailbox[camera], None
            if data is not None:
                number += 1
                stamp = time.time_ns()
                await call.write(
                    codec.frame_request(data, frame_id=number, capture_time_ns=stamp, encoding=1, width=0, height=0)
                )
        await call.write(codec.end_request())
        await call.done_writing()
        await reader

    async def run() -> None:
        async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
            call = channel.stream_stream(STREAM_FRAMES)
            cameras = [asyncio.ensure_future(run_camera(camera, call())) for camera in range(STREAMS)]
            ready.set()
            await asyncio.gather(*cameras)

    def send(camera: int) -> None:
        mailbox[camera] = PAYLOAD
        loop.call_soon_threadsafe(wake[camera].set)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    ready.wait()
    before = time.process_time()
    pace(send, seconds)
    ended = True
    for event in wake:
        loop.call_soon_threadsafe(event.set)
    thread.join()
    return time.process_time() - before, sum(seen)


async def serve() -> None:
    """Answer every frame with the same Result but for its number; print the port."""
    box = pb.Detection(x1=1.5, y1=2.5, x2=3.5, y2=4.5, score=0.5, class_id=1)
    outputs = [pb.Output(model="m", version="1", backend="b", detections=pb.Detections(detections=[box] * DETECTIONS))]

    def one(**event: Any) -> pb.ServerEvent:
        return pb.ServerEvent(**event)

    async def stream(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        received = 0
        async for raw in requests:
            if len(raw) > 1000:
                received += 1
                result = pb.Result(frame_id=received, batch_size=1, outputs=outputs)
                events = [one(result=result), one(credit=pb.Credit(frames_allowed=received + 4))]
            elif pb.StreamFramesRequest.FromString(raw).WhichOneof("message") == "open":
                events = [one(opened=pb.Opened(frames_allowed=4))]
            else:
                ledger = pb.Ledger(received=received, results=received)
                events = [one(closed=pb.Closed(ledger=ledger, reason=pb.CLOSE_REASON_END))]
            await context.write(pb.StreamFramesResponse(events=events).SerializeToString())

    server = grpc.aio.server(options=OPTIONS)
    handlers = {"StreamFrames": grpc.stream_stream_rpc_method_handler(stream)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("headworks.v1.FrameService", handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


def run_child(mode: str, *arguments: str) -> list[str]:
    """Run one measurement in a process of its own; return the words it printed."""
    command = [sys.executable, __file__, mode, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def main() -> None:
    """What a child does, or the whole."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("mode", nargs="?", default="all", choices=["all", "serve", "sdk", "aio"])
    parser.add_argument("target", nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    if options.mode == "serve":
        import uvloop

        uvloop.run(serve())
    elif options.mode != "all":
        cpu, results = {"sdk": measure_sdk, "aio": measure_aio}[options.mode](options.target, options.seconds)
        print(cpu, results)
    else:
        print(json.dumps(run(rounds=options.rounds, seconds=options.seconds)))


def run(*, rounds: int = 5, seconds: float = 4.0) -> dict[str, Any]:
    """Both clients in alternating rounds; milliseconds of CPU per frame."""
    server = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    target = f"127.0.0.1:{server.stdout.readline().strip()}"
    figures: dict[str, list[float]] = {"sdk": [], "aio": []}
    for _ in range(rounds):
        for mode, per_frame in figures.items():
            cpu, results = run_child(mode, target, "--seconds", str(seconds))
            per_frame.append(float(cpu) * 1e3 / int(results))
    server.terminate()
    server.wait()
    ours, baseline = (statistics.median(figures[mode]) for mode in ("sdk", "aio"))
    ratios = [mine / theirs for mine, theirs in zip(figures["sdk"], figures["aio"], strict=True)]
    ratio = statistics.median(ratios)
    return {
        "benchmark": "client_send",
        "ours": round(ours, 4),
        "baseline": round(baseline, 4),
        "unit": "ms of client CPU per frame",
        "ratio": round(ratio, 3),
        "spread": round((max(ratios) - min(ratios)) / ratio, 3),
        "aim": "ratio at most 1.25",
        "met": ratio <= 1.25,
    }


if __name__ == "__main__":
    main()
