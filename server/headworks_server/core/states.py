"""The states of a stream and the inputs that move it, with the words for what is out of place.

`session.py` holds the table of transitions; this file only names its rows and columns.
"""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """Where a stream stands."""

    AWAITING_OPEN = 0  # nothing read yet
    OPEN = 1  # frames come and go
    ENDING = 2  # the client's End was read; the frames before it get their outcomes
    DRAINING = 3  # the server shuts down; admitted frames finish, others are turned away, until End or grace
    DRAINED = 4  # the grace is over; admitted frames finish, others are turned away
    CLOSING = 5  # a fault or idleness; admitted frames finish, nothing is taken any more
    CLOSED = 6  # Closed was handed out
    GONE = 7  # the peer is gone; frames in flight come back to a ledger that nobody is told


class Input(IntEnum):
    """What happens to a stream."""

    OPEN = 0
    FRAME = 1
    REJECTED = 2
    PING = 3
    END = 4
    FAULT = 5
    PEER_GONE = 6
    NOTICE = 7
    DRAIN = 8
    GRACE_OVER = 9
    IDLE = 10


_MESSAGE = {
    Input.OPEN: "Open",
    Input.FRAME: "Frame",
    Input.REJECTED: "Frame",
    Input.PING: "Ping",
    Input.END: "End",
}

_WHEN = {
    State.AWAITING_OPEN: "before Open",
    State.OPEN: "on an open stream",
    State.ENDING: "after End",
    State.DRAINING: "on a draining stream",
    State.DRAINED: "on a draining stream",
}


def out_of_place(state: State, message: Input) -> str:
    """Say which message came when it may not, such as "Frame after End"."""
    return f"{_MESSAGE[message]} {_WHEN[state]}"
