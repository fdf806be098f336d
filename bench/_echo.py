"""The baseline of the RPC benchmarks: a bare grpc.aio server of raw bytes on uvloop, with our server's gRPC options.

It reads what our server would read and answers each frame with the bytes of a Result of ours, and knows nothing
else: no session, no credit, no order, no lanes. The first request is the Open.
"""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path

import grpc
import grpc.aio
import uvloop
from google.protobuf.timestamp_pb2 import Timestamp

from bench._measure import HOST
from headworks.v1 import frame_pb2 as pb
from headworks_native import wire
from headworks_server.rpc.server import server_options
from headworks_server.rpc.service import FRAME_SERVICE
from headworks_server.runtime.allocator import raise_malloc_thresholds

MAX_FRAME_BYTES = 16_000_000
BOX = struct.pack("<5fI", 1.5, 2.5, 3.5, 4.5, 0.5, 1)
OPENED = pb.StreamFramesResponse(events=[pb.ServerEvent(opened=pb.Opened(frames_allowed=1 << 40))]).SerializeToString()


def answer(detections: int) -> bytes:
    """What our server writes for a frame in the steady state: its Result and, in the same message, Credit."""
    facts = pb.Output(model="stand-in", version="1", generation=1, backend="null")
    result = wire.encode_result(
        frame_id=1000,
        capture_time=Timestamp(seconds=1_800_000_000, nanos=500_000_000).SerializeToString(),
        source_width=0,
        source_height=0,
        output_prefix=facts.SerializeToString(),
        detections=BOX * detections,
        batch_size=1,
        deadline_missed=False,
        waited_us=200,
        decoded_us=20,
        batched_us=20,
        executed_us=20,
        postprocessed_us=200,
    )
    return result + wire.encode_credit(1000)


async def serve(ready_file: Path, *, detections: int) -> None:
    """Serve until the process is ended."""
    reply = answer(detections)

    async def stream(_requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await context.read()
        await context.write(OPENED)
        while await context.read() is not grpc.aio.EOF:
            await context.write(reply)

    server = grpc.aio.server(options=server_options(max_frame_bytes=MAX_FRAME_BYTES, max_streams=1024))
    method = grpc.stream_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(FRAME_SERVICE, {"StreamFrames": method}),))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    part = ready_file.with_suffix(".part")
    part.write_text(json.dumps({"port": port}))
    part.replace(ready_file)
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ready-file", type=Path, required=True)
    parser.add_argument("--detections", type=int, required=True)
    options = parser.parse_args()
    raise_malloc_thresholds()
    uvloop.run(serve(options.ready_file, detections=options.detections))


if __name__ == "__main__":
    main()
