"""One frame as the server holds it between its receipt and its outcome.

The rpc room makes a Frame from each frame message and hands it to the stream's session; admission hands it to a lane.
It owns its payload until the outcome is told. `core` never looks inside `stream`, `payload` or `ticket`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headworks_server.core.outbox import Entry


class Frame:
    """A frame that was read.

    Attributes:
        frame_id: the client's number, strictly increasing within a stream.
        payload: the compressed or raw picture, opaque here.
        size_bytes: what it counts in the budget of waiting bytes.
        received_ns: monotonic time of its receipt.
        stream: whoever must be told of the outcome, opaque here.
        capture_time: the client's timestamp as it came, or None.
        deadline_ns: monotonic time after which its result is worthless, 0 for none; set by the session.
        admitted_ns: monotonic time of its admission, 0 while it waits or where it was dropped; set by the session.
        ticket: the lane's form of an admitted frame, opaque here.
        held: outcomes of later frames that wait for this one; the outbox's own.
    """

    __slots__ = (
        "admitted_ns",
        "capture_time",
        "deadline_ns",
        "frame_id",
        "held",
        "payload",
        "received_ns",
        "size_bytes",
        "stream",
        "ticket",
    )

    def __init__(
        self,
        frame_id: int,
        payload: Any,
        size_bytes: int,
        received_ns: int,
        *,
        stream: Any = None,
        capture_time: bytes | None = None,
    ) -> None:
        self.frame_id = frame_id
        self.payload = payload
        self.size_bytes = size_bytes
        self.received_ns = received_ns
        self.stream = stream
        self.capture_time = capture_time
        self.deadline_ns = 0
        self.admitted_ns = 0
        self.ticket: Any = None
        self.held: list[Entry] | None = None

    def __repr__(self) -> str:
        return f"Frame(frame_id={self.frame_id}, size_bytes={self.size_bytes})"
