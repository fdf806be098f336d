"""What cancelled streams leave allocated, to the byte: finds a leak that resident memory, which wavers, would hide.

grpc.aio keeps the operations of a call for ever where its handler returns from a cancelled call instead of raising
CancelledError on (grpc#43360): some 200 bytes and a twentieth of a dozen objects a stream, on the average.
"""

from __future__ import annotations

from collections import Counter

from support.crowd import start_crowd
from support.raw_camera import RawCamera, open_request
from support.server import Server

ROUNDS = 6
WARM_UP = 3  # rounds in which allocators and pools reach their size
STREAMS = 360  # a sixth of them in each state
BYTES_A_STREAM = 130  # gRPC itself keeps some 60 bytes of each call, careful or not
OBJECTS = 150  # of 66,000
QUICK = {"decoders": 2, "decode_ms": 1, "engine_base_ms": 2, "engine_frame_ms": 0.1, "max_batch": 8, "target": 4}


def settled_memory(server: Server) -> Counter[str]:
    """What the server has allocated once every stream of the round has ended, and its loop has had a turn since."""
    server.wait_count("stream_close", server.count("stream_open"))
    with RawCamera(server.target, open_request()) as camera:
        camera.ask_result(b"alive")
        camera.close()
    return server.memory()


def test_cancelled_streams_leave_nothing_allocated() -> None:
    """From round to round neither malloc's bytes nor Python's objects grow by what a stream consists of."""
    options = {f"sleeping__{name}": value for name, value in QUICK.items()}
    with Server(backend="sleeping", probed=True, **options) as server, start_crowd(server.target, STREAMS) as crowd:
        held = []
        for _ in range(ROUNDS):
            crowd.run_round()
            held.append(settled_memory(server))
        warm, last = held[WARM_UP - 1], held[-1]
        streams = STREAMS * (ROUNDS - WARM_UP)
        assert last["allocated_bytes"] - warm["allocated_bytes"] < BYTES_A_STREAM * streams, held
        assert last["objects"] - warm["objects"] < OBJECTS, held
