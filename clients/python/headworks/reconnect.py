"""What a stream does next: connect, connect again, move from a draining server, give up. No I/O, no clock, no threads.

`StreamSupervisor` owns the stream's mailbox and makes a `ClientSession` for each connection. A transport (threads, or
an event loop) owns the calls: it asks `next_connect_ns` when to connect, passes on what servers say and how calls
end, hands what comes back to the application, and calls `finish` once `idle`. Time comes in as `now_ns`, monotonic.
`clients/CONTRACT.md` describes the same rules for every language.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from headworks.account import Account, ConnectionAccount, merge, total
from headworks.errors import HeadworksError, StreamBrokenError, is_permanent
from headworks.mailbox import Mailbox
from headworks.outcomes import (
    Closed,
    ConnectionEvent,
    ConnectionLost,
    ConnectionOpened,
    Lost,
    Notice,
    Opened,
    Outcome,
    ReconnectFailed,
)
from headworks.policy import Policy
from headworks.session import ClientSession
from headworks.v1 import frame_pb2

MIN_RETRY_NS = 100_000_000
MAX_RETRY_NS = 5_000_000_000
"""Bounds of the time to the next attempt; also how long a connection must last to count as a success by itself."""
KEPT_LEDGERS = 64
"""Connections whose ledgers are kept apart; older ones are one sum."""

Told: TypeAlias = Outcome | Notice | ConnectionEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """What a stream is to be.

    Attributes:
        name: for errors and logs.
        open_request: the first request of each connection.
        policy: how frames wait.
        targets: servers, tried in turn.
        reconnect: whether a connection that broke is followed by another one.
        open_retry_ns: how long the first connection may be tried for; 0 for each target once.
        open_timeout_ns: for one Opened.
    """

    name: str
    open_request: bytes
    policy: Policy
    targets: tuple[str, ...]
    reconnect: bool
    open_retry_ns: int
    open_timeout_ns: int


class StreamSupervisor:
    """One stream, over as many connections as it takes.

    Attributes:
        mailbox: the frames that wait; the application offers to it.
        next_connect_ns: when the transport is to call `connect`; None for not now.
        attempts: connections that were tried.
        opened: the last grant.
        closed: the last server's last word.
        failure: why the stream broke; None while it has not.
        finished: whether the stream is over.
    """

    def __init__(self, plan: StreamPlan, *, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self.mailbox = Mailbox(plan.policy)
        self.next_connect_ns: int | None = None
        self.attempts = 0
        self.opened: Opened | None = None
        self.closed: Closed | None = None
        self.failure: HeadworksError | None = None
        self.finished = False
        self._plan = plan
        self._resends = plan.reconnect and plan.policy.kind == "every_frame"
        self._uniform = uniform
        self._target = 0  # index of the next to be tried
        self._begun_ns = 0
        self._failures = 0  # in succession
        self._connections = 0  # that opened
        self._lost_ns: int | None = None
        self._last_failure: HeadworksError | None = None
        self._last_left = 0  # frames that the last connection took along
        self._current: ClientSession | None = None
        self._draining: list[ClientSession] = []  # another connection has, or will have, their place
        self._older: ConnectionAccount | None = None
        self._ledgers: deque[ConnectionAccount] = deque()

    # --- the application

    def begin(self, now_ns: int) -> None:
        """Open the stream."""
        self._begun_ns = self.next_connect_ns = now_ns

    def end(self) -> None:
        """No frame follows. What waits is still sent where there is a connection; "every_frame" makes one for it."""
        self.mailbox.ended = True
        if self.next_connect_ns is not None and self._connections and not self._worth_reconnecting():
            self._give_up(self._last_failure)
            for session in self._draining:
                session.retire()

    def cut(self, failure: HeadworksError) -> None:
        """Connect no more. The transport cancels the calls."""
        if not self.finished and self.failure is None:
            self.failure = failure
        self.next_connect_ns = None

    # --- the transport

    @property
    def idle(self) -> bool:
        """Whether nothing will happen any more: there is no connection, and none is due."""
        return self._current is None and not self._draining and self.next_connect_ns is None

    def connect(self, now_ns: int) -> ClientSession:  # noqa: ARG002 - the session counts from its first poll
        """Begin the connection that is due, to the `target` of the session returned."""
        assert self._current is None
        self.next_connect_ns = None
        self.attempts += 1
        session = ClientSession(
            self._plan.open_request,
            self.mailbox,
            target=self._plan.targets[self._target],
            keep=self._resends,
            open_timeout_ns=self._plan.open_timeout_ns,
        )
        # The last outcomes of the draining server come before newer ones, and so do the frames it leaves unserved.
        session.holding = bool(self._draining)
        self._current = session
        return session

    def receive(self, session: ClientSession, event: frame_pb2.ServerEvent, now_ns: int) -> Told | None:
        """Take one event of a connection; return what the application is to be told, if anything.

        Raises:
            ProtocolError: see `ClientSession.receive`.
        """
        item = session.receive(event, now_ns)
        if isinstance(item, Opened):
            return self._open(session, item, now_ns)
        if isinstance(item, Closed):
            self.closed = item
            return None
        if isinstance(item, Notice) and item.kind == "DRAINING":
            self._drain(session, now_ns)
        if isinstance(item, Notice) and session is self._current and session.opened is not None:
            self.opened = session.opened  # its models may have changed; those of a server that drains matter no more
        return item

    def ended(self, session: ClientSession, failure: HeadworksError | None, now_ns: int) -> list[Told]:
        """The call of a connection has ended, with `failure` unless its status is OK; return what is to be told."""
        session.disconnect()
        told: list[Told] = []
        lost, unfinished = session.lost(), session.unfinished()
        self.mailbox.put_back(unfinished)
        if self._plan.reconnect and not self._resends and lost is not None:
            told.append(lost)
        if session.opened is not None:
            self._archive(session.ledger())
        if session is self._current:
            self._current = None
            self._last_left = len(unfinished) if self._resends else lost.total if lost is not None else 0
            event = self._decide(session, failure, now_ns)
            if event is not None:
                told.append(event)
        else:
            self._draining.remove(session)
            if self._current is not None and not self._draining:
                self._current.holding = False
        return told

    def finish(self) -> list[Told]:
        """End the stream, once `idle`; return what is to be told last."""
        assert self.idle
        self.finished = True
        frames = self.mailbox.again
        return [Lost(frames[0].frame_id, frames[-1].frame_id, len(frames))] if frames else []

    def account(self) -> Account:
        """Return where every frame has gone so far."""
        older = [self._older] if self._older is not None else []
        live = [*self._draining, *([self._current] if self._current is not None else [])]
        ledgers = [*older, *self._ledgers, *(session.ledger() for session in live if session.opened is not None)]
        return total(self.mailbox, ledgers, resends=self._resends, finished=self.finished)

    # --- rules

    def _open(self, session: ClientSession, opened: Opened, now_ns: int) -> ConnectionOpened:
        self.opened = opened
        self._connections += 1
        self._retire_draining()
        away_s = 0.0 if self._lost_ns is None else (now_ns - self._lost_ns) / 1e9
        self._lost_ns = None
        return ConnectionOpened(self._connections, session.target, opened, away_s)

    def _drain(self, session: ClientSession, now_ns: int) -> None:
        """Open the new connection first. A stream that has been ended needs none: End goes out at once."""
        if not self._plan.reconnect or session is not self._current or self.mailbox.ended or self.failure is not None:
            return
        session.holding = True
        self._draining.append(session)
        self._current = None
        self._next_target()
        self.next_connect_ns = now_ns

    def _retire_draining(self) -> None:
        for session in self._draining:
            session.retire()

    def _decide(self, session: ClientSession, failure: HeadworksError | None, now_ns: int) -> ConnectionEvent | None:
        """Say what follows the connection that was the stream's only one, or the newest."""
        if self.failure is not None:  # cut
            return None
        if failure is None:
            if not self._plan.reconnect or (self.mailbox.ended and not self._worth_reconnecting()):
                return None
            reason = session.closed.reason if session.closed is not None else "nothing"
            failure = StreamBrokenError(
                self._plan.name, "OK", f"the server closed the stream: {reason}", session.closed
            )
        # It was the way out of a drain; the old server need not be kept waiting for a better one.
        self._retire_draining()
        self._last_failure = failure
        if is_permanent(failure):
            self._give_up(failure, always=True)
            return None
        if not self._connections:
            return self._retry_first(session, failure, now_ns)
        if not self._plan.reconnect:
            self._give_up(failure, always=True)
            return None
        if self.mailbox.ended and not self._worth_reconnecting():
            self._give_up(failure)
            return None
        return self._retry(session, failure, now_ns)

    def _worth_reconnecting(self) -> bool:
        """Whether an ended stream has frames for which to connect again: a live camera's are stale by then."""
        return self._resends and len(self.mailbox) > 0

    def _give_up(self, failure: HeadworksError | None, *, always: bool = False) -> None:
        """Connect no more. A stream that was ended, and whose frames all have an outcome, has not broken."""
        self.next_connect_ns = None
        if always or self._last_left or len(self.mailbox):
            self.failure = failure

    def _retry_first(self, session: ClientSession, failure: HeadworksError, now_ns: int) -> ConnectionEvent | None:
        """Try each target once, at once; then for as long as was asked for, which may be not at all."""
        self._failures += 1
        round_is_over = self._failures % len(self._plan.targets) == 0
        delay_ns = self._delay_ns(self._failures // len(self._plan.targets)) if round_is_over else 0
        if round_is_over and now_ns + delay_ns - self._begun_ns > self._plan.open_retry_ns:
            self._give_up(failure, always=True)
            return None
        return self._failed(session, failure, delay_ns, now_ns)

    def _retry(self, session: ClientSession, failure: HeadworksError, now_ns: int) -> ConnectionEvent:
        if self._lost_ns is None:
            self._lost_ns = now_ns
        if session.opened is None:
            self._failures += 1
            return self._failed(session, failure, self._delay_ns(self._failures), now_ns)
        # One that opens and breaks at once, again and again, is no success.
        lasted = session.told > 0 or now_ns - session.opened_ns >= MAX_RETRY_NS
        self._failures = 1 if lasted else self._failures + 1
        delay_ns = self._delay_ns(self._failures)
        self._next_target()
        self.next_connect_ns = now_ns + delay_ns
        return ConnectionLost(
            self._connections, session.target, failure, self._last_left, self._next_name(), delay_ns / 1e9
        )

    def _failed(self, session: ClientSession, failure: HeadworksError, delay_ns: int, now_ns: int) -> ReconnectFailed:
        self._next_target()
        self.next_connect_ns = now_ns + delay_ns
        return ReconnectFailed(session.target, failure, self._failures, self._next_name(), delay_ns / 1e9)

    def _delay_ns(self, failures: int) -> int:
        """Return a time that doubles with each failure, its upper half left to chance lest all cameras come at once."""
        longest = min(MAX_RETRY_NS, MIN_RETRY_NS << min(failures, 16))
        return int(self._uniform(longest / 2, longest))

    def _next_target(self) -> None:
        self._target = (self._target + 1) % len(self._plan.targets)

    def _next_name(self) -> str:
        return self._plan.targets[self._target]

    def _archive(self, ledger: ConnectionAccount) -> None:
        self._ledgers.append(ledger)
        if len(self._ledgers) > KEPT_LEDGERS:
            oldest = self._ledgers.popleft()
            self._older = oldest if self._older is None else merge(self._older, oldest)
