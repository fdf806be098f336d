"""Mutated wire messages against protobuf, in a process of their own, so that a crash is a failure and not the end.

HEADWORKS_FUZZ_SECONDS sets how long (`make fuzz`), HEADWORKS_FUZZ_SEED where to begin: a failure names its seed, and
one seed always makes the same batch of messages.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from headworks.v1.frame_pb2 import Frame, Open, Ping, StreamFramesRequest
from headworks_native import wire
from support import plain_wire

BATCH = 500  # messages a seed makes
INTERESTING = (0x00, 0x01, 0x7F, 0x80, 0xFF, 0x08, 0x0A, 0x0B, 0x0C, 0x10, 0x12, 0x18, 0x1A, 0x20, 0x22, 0x28, 0x32)


def test_mutated_messages_neither_crash_nor_differ_from_protobuf() -> None:
    """Whatever arrives: reader and protobuf yield equal values or a DecodeError, and the process lives."""
    seconds = float(os.environ.get("HEADWORKS_FUZZ_SECONDS", "3"))
    seed = os.environ.get("HEADWORKS_FUZZ_SEED", str(time.time_ns() % 2**40))
    finished = subprocess.run(
        [sys.executable, __file__, seed, str(seconds)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    last_seed = finished.stdout.rsplit("seed ", 1)[-1].strip()
    assert finished.returncode == 0, f"HEADWORKS_FUZZ_SEED={last_seed}: exit {finished.returncode}\n{finished.stderr}"


def fuzz(seed: int, seconds: float) -> None:
    """Check batches of messages until the time is over, at least one; each batch says its seed first."""
    end = time.monotonic() + seconds
    while True:
        print("seed", seed, flush=True)
        chance = random.Random(seed)
        for _ in range(BATCH):
            message = mutated(some_message(chance), chance)
            try:
                check(message)
            except Exception as error:
                raise AssertionError(f"seed {seed}: {message.hex()}") from error
        seed += 1
        if time.monotonic() >= end:
            return


def check(message: bytes) -> None:
    """Hold reader, its twin and protobuf together on one message."""
    read = wire.parse_request(message)
    plain = plain_wire.parse_request(message)
    assert (read is None) == (plain is None)
    try:
        request = StreamFramesRequest.FromString(message)
    except DecodeError:
        assert read is None
        return
    if request.WhichOneof("message") != "frame":
        assert read is None
        return
    parsed = wire.frame_message(request.frame)
    if read is not None and plain is not None:
        for name in ("frame_id", "capture_time", "has_capture_time", "encoding", "width", "height", "data"):
            assert getattr(parsed, name) == getattr(read, name) == getattr(plain, name), name
    assert parsed.capture_time == canonical_time(request.frame)


def canonical_time(frame: Frame) -> bytes:
    """The capture time of a frame as a serialiser emits it."""
    return Timestamp(seconds=frame.capture_time.seconds, nanos=frame.capture_time.nanos).SerializeToString()


def some_message(chance: random.Random) -> bytes:
    """A message as a client sends it; mostly a frame, each field there or not, one time in four out of order."""
    if chance.random() < 0.1:
        nonce = Ping(nonce=chance.getrandbits(64))
        return chance.choice(
            (StreamFramesRequest(open=Open(stream_name="gate")), StreamFramesRequest(ping=nonce))
        ).SerializeToString()
    time = Timestamp(
        seconds=chance.getrandbits(chance.randint(1, 63)) * chance.choice((1, 1, 0, -1)),
        nanos=chance.getrandbits(chance.randint(1, 31)) * chance.choice((1, 1, 0, -1)),
    )
    fields = [
        Frame(frame_id=chance.getrandbits(chance.randint(1, 64))),
        Frame(capture_time=time),
        Frame(encoding=chance.choice((1, 2, 3, 0, -1, 2**31 - 1))),
        Frame(width=chance.getrandbits(chance.randint(1, 32))),
        Frame(height=chance.getrandbits(11)),
        Frame(data=chance.randbytes(chance.choice((0, 1, 20, 127, 128, 300)))),
    ]
    pieces = [field.SerializeToString() for field in fields if chance.random() < 0.75]
    if chance.random() < 0.25:
        pieces += chance.choices((*pieces, b"\x3a\x01x", b"\x78\x05", b"\x7b\x7c", b"\x7d1234"), k=2)
        chance.shuffle(pieces)
    return plain_wire.submessage(2, b"".join(pieces))


def mutated(message: bytes, chance: random.Random) -> bytes:
    """The message with up to four mutations, one time in four with none; mostly wrapped again in a right length."""
    wrap = message[:1] == b"\x12" and chance.random() < 0.6
    body = bytearray(plain_wire.read_bytes(message, 1)[0] if wrap else message)
    for _ in range(chance.choice((0, 0, 1, 1, 1, 1, 2, 4))):
        at, end = sorted(chance.randint(0, len(body)) for _ in range(2))
        match chance.randrange(8):
            case 0 if at < len(body):
                body[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(body):
                body[at] = chance.choice(INTERESTING)
            case 2:
                body[at:at] = bytes([chance.choice(INTERESTING)])
            case 3:
                del body[at : min(end, at + chance.randint(1, 4))]
            case 4:
                del body[at:]
            case 5:
                body[at:at] = body[at : min(end, at + 30)]  # doubles a run of bytes, sometimes just a field
            case 6:
                body[at:at] = plain_wire.varint(chance.getrandbits(chance.randint(1, 66)))
            case 7 if at < len(body):
                body[at : at + 1] = bytes([body[at] | 0x80, 0x80 * chance.randrange(2), 0x00])  # a longer varint
    return plain_wire.submessage(2, bytes(body)) if wrap else bytes(body)


if __name__ == "__main__":
    fuzz(int(sys.argv[1]), float(sys.argv[2]))
