"""A model as streams see it while it serves: its facts, its queue, its health.

The composition root makes one per model; the rpc room reads the facts and joins the queue; whoever takes
batches back reports each to `health`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from headworks_server.core.admission import AdmissionPool
from headworks_server.core.events import NoticeKind
from headworks_server.core.facts import ModelFacts
from headworks_server.core.readiness import Readiness
from headworks_server.core.roundrobin import ModelQueue

FAILURES_UNTIL_DEGRADED = 3  # one bad batch is a bad frame's fault more often than the engine's


class ModelHealth:
    """Counts failed batches in a row.

    Attributes:
        serving: False from the third failed batch in a row until the next good one.
        detail: what the last failed batch said.
    """

    __slots__ = ("_failures", "detail", "serving")

    def __init__(self) -> None:
        self.serving = True
        self.detail = ""
        self._failures = 0

    def batch_done(self) -> NoticeKind | None:
        """Take in a good batch; the notice to send, if the health changed."""
        self._failures = 0
        if self.serving:
            return None
        self.serving = True
        return NoticeKind.RESTORED

    def batch_failed(self, detail: str) -> NoticeKind | None:
        """Take in a failed batch; the notice to send, if the third in a row has failed."""
        self.detail = detail
        self._failures += 1
        if self._failures != FAILURES_UNTIL_DEGRADED:
            return None
        self.serving = False
        return NoticeKind.DEGRADED

    def engine_replaced(self) -> None:
        """Give a new engine three batches of its own. The health changes with its first good one."""
        self._failures = 0


@dataclass(slots=True, kw_only=True, eq=False)
class ServedModel:
    """A model that serves: what is told of it, its streams' queue, and the pool of lanes the queue belongs to.

    Two generations of one name are two of these; a swap moves the streams that follow the name from one to the other.

    Attributes:
        facts: as they are now: a fall to another backend changes them.
        pool: admission onto its lanes.
        queue: its streams; in the pool while the engine is resident.
        health: of its engine.
        readiness: of its engine.
        detail: why, where it is FAILED.
        executed_ns: engine time since the start.
    """

    facts: ModelFacts
    pool: AdmissionPool
    queue: ModelQueue
    health: ModelHealth = field(default_factory=ModelHealth)
    readiness: Readiness = Readiness.READY
    detail: str = ""
    executed_ns: int = 0
