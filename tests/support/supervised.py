"""A client's stream without a transport: tests say what its servers say, and when."""

from __future__ import annotations

from headworks.errors import ConnectionFailedError, StreamBrokenError
from headworks.outcomes import ConnectionOpened
from headworks.policy import Policy
from headworks.reconnect import StreamPlan, StreamSupervisor, Told
from headworks.session import ClientSession
from support.client_events import OPEN, S, frame, opened, sent_id

AWAY = ConnectionFailedError("a:1", "refused")
CUT = StreamBrokenError("gate", "UNAVAILABLE", "socket closed")
EVERY_FRAME = Policy("every_frame")


def supervise(
    *targets: str, policy: Policy | None = None, reconnect: bool = True, open_retry_s: float = 0
) -> StreamSupervisor:
    """A stream that has been told to open, whose delays are the longest that chance may choose."""
    plan = StreamPlan(
        name="gate",
        open_request=OPEN,
        policy=policy if policy is not None else Policy(),
        targets=targets or ("a:1",),
        reconnect=reconnect,
        open_retry_ns=int(open_retry_s * S),
        open_timeout_ns=10 * S,
    )
    supervisor = StreamSupervisor(plan, uniform=lambda _, longest: longest)
    supervisor.begin(0)
    return supervisor


def connect(supervisor: StreamSupervisor, now_ns: int = 0, *, frames_allowed: int = 10) -> ClientSession:
    """Open the connection that is due."""
    assert supervisor.next_connect_ns is not None
    assert supervisor.next_connect_ns <= now_ns
    session = supervisor.connect(now_ns)
    assert session.poll(now_ns) == OPEN
    assert isinstance(supervisor.receive(session, opened(frames_allowed), now_ns), ConnectionOpened)
    return session


def send(supervisor: StreamSupervisor, session: ClientSession, *frame_ids: int, now_ns: int = 0) -> None:
    """Offer frames, and write each at once."""
    for frame_id in frame_ids:
        supervisor.mailbox.offer(frame(frame_id))
        assert sent_id(session, now_ns) == frame_id


def finish(supervisor: StreamSupervisor) -> list[Told]:
    """What is told when nothing follows."""
    assert supervisor.idle
    return supervisor.finish()
