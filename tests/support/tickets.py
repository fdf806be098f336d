"""Tickets for tests of the lanes: made as a loop makes them, drained as a loop drains them."""

from __future__ import annotations

import select
import struct

from headworks_native.lane import CompletionRing, Ticket

BEFORE_DECODE, BEFORE_BATCH = 2, 3
UNDECODABLE, ENGINE_FAILED = 1, 4


class Frame:
    """What a loop hangs on a ticket; weakly referable."""


def ticket(payload: bytes = b"picture", **options: object) -> Ticket:
    return Ticket(Frame(), payload, 0, len(payload), **options)


def expected_detection(payload: bytes, position_bytes: int = 1024) -> bytes:
    head = payload[:position_bytes].ljust(position_bytes, b"\0")
    x, y = sum(head) % 65536, int.from_bytes(head[:2], "little")
    return struct.pack("<5fI", x, y, x + 1, y + 1, 0.5, head[0])


def drain(ring: CompletionRing, count: int) -> list[Ticket]:
    """Drain as a loop does, only when woken, until `count` tickets are back."""
    back: list[Ticket] = []
    while len(back) < count:
        assert select.select([ring], [], [], 30)[0], f"a wake-up was lost with {len(back)} of {count} back"
        back += ring.drain()
    return back
