"""The states of a stream, the inputs that move it, and the table that says how; the words for what is out of place.

`session.py` looks the methods up that the table names, and runs them.
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
    ENGINE = 11


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


# (state, input) -> (method of the session, next state). A message of the client that is absent is a protocol error; the
# server's own inputs (NOTICE, ENGINE, DRAIN, GRACE_OVER, IDLE) are absent where they mean nothing.
TRANSITIONS: dict[tuple[State, Input], tuple[str, State]] = {
    (State.AWAITING_OPEN, Input.OPEN): ("_open", State.OPEN),
    (State.AWAITING_OPEN, Input.FAULT): ("_fault", State.CLOSING),
    (State.AWAITING_OPEN, Input.PEER_GONE): ("_abandon", State.GONE),
    (State.AWAITING_OPEN, Input.DRAIN): ("_drain_unopened", State.CLOSING),
    (State.AWAITING_OPEN, Input.IDLE): ("_idle", State.CLOSING),
    (State.OPEN, Input.FRAME): ("_accept", State.OPEN),
    (State.OPEN, Input.REJECTED): ("_reject", State.OPEN),
    (State.OPEN, Input.PING): ("_pong", State.OPEN),
    (State.OPEN, Input.END): ("_end", State.ENDING),
    (State.OPEN, Input.FAULT): ("_fault", State.CLOSING),
    (State.OPEN, Input.PEER_GONE): ("_abandon", State.GONE),
    (State.OPEN, Input.NOTICE): ("_tell", State.OPEN),
    (State.OPEN, Input.ENGINE): ("_engine", State.OPEN),
    (State.OPEN, Input.DRAIN): ("_drain", State.DRAINING),
    (State.OPEN, Input.IDLE): ("_idle", State.CLOSING),
    (State.ENDING, Input.PING): ("_pong", State.ENDING),
    (State.ENDING, Input.FAULT): ("_fault", State.CLOSING),
    (State.ENDING, Input.PEER_GONE): ("_abandon", State.GONE),
    (State.ENDING, Input.NOTICE): ("_tell", State.ENDING),
    (State.ENDING, Input.ENGINE): ("_engine", State.ENDING),
    (State.ENDING, Input.DRAIN): ("_drain_ending", State.ENDING),
    (State.DRAINING, Input.FRAME): ("_turn_away", State.DRAINING),
    (State.DRAINING, Input.REJECTED): ("_turn_away_rejected", State.DRAINING),
    (State.DRAINING, Input.PING): ("_pong", State.DRAINING),
    (State.DRAINING, Input.END): ("_end", State.ENDING),
    (State.DRAINING, Input.FAULT): ("_fault", State.CLOSING),
    (State.DRAINING, Input.PEER_GONE): ("_abandon", State.GONE),
    (State.DRAINING, Input.NOTICE): ("_tell", State.DRAINING),
    (State.DRAINING, Input.GRACE_OVER): ("_ignore", State.DRAINED),
    (State.DRAINED, Input.FRAME): ("_turn_away", State.DRAINED),
    (State.DRAINED, Input.REJECTED): ("_turn_away_rejected", State.DRAINED),
    (State.DRAINED, Input.PING): ("_pong", State.DRAINED),
    (State.DRAINED, Input.END): ("_end", State.ENDING),
    (State.DRAINED, Input.FAULT): ("_fault", State.CLOSING),
    (State.DRAINED, Input.PEER_GONE): ("_abandon", State.GONE),
    # Nothing is taken any more; Closed is on its way, or there is nobody to tell.
    **{
        (state, message): ("_ignore", state)
        for state in (State.CLOSING, State.CLOSED, State.GONE)
        for message in (Input.OPEN, Input.FRAME, Input.REJECTED, Input.PING, Input.END, Input.FAULT, Input.PEER_GONE)
    },
    (State.CLOSING, Input.PEER_GONE): ("_abandon", State.GONE),
}

# States in which Closed goes out as soon as no frame is without an outcome.
CLOSING_STATES = frozenset({State.ENDING, State.DRAINED, State.CLOSING})
