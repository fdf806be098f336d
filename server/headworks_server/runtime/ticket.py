"""Makes the native ticket of an admitted frame: where the Python half of a frame's way ends."""

from __future__ import annotations

from headworks_native.lane import Ticket
from headworks_server.core.frame import Frame


def ticket_of(frame: Frame) -> Ticket:
    """Make the ticket of an admitted frame. Its payload stays where gRPC put it."""
    message, stream = frame.payload, frame.stream
    ticket = Ticket(
        frame,
        message.message,
        message.data_offset,
        message.data_length,
        encoding=message.encoding,
        width=message.width,
        height=message.height,
        deadline_ns=frame.deadline_ns,
        score_threshold=stream.score_threshold,
        max_detections=stream.max_detections,
        form=stream.form,
        seat=getattr(stream, "model", None) or stream.model_name,
    )
    frame.ticket = ticket
    return ticket
