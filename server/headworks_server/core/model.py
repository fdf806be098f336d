"""A model as streams see it while it serves: its facts, its queue, its health.

The composition root makes one per model; the rpc room reads the facts and joins the queue; whoever takes
batches back reports each to `health`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from headworks_server.core.admission import AdmissionPool
from headworks_server.core.events import NoticeKind
from headworks_server.core.roundrobin import ModelQueue

FAILURES_UNTIL_DEGRADED = 3  # one bad batch is a bad frame's fault more often than the engine's


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a client is told of a model.

    Attributes:
        name: the model's folder.
        version: its version.
        generation: counts the engines that have served under this name and version.
        digest: sha256 of the file, in hex.
        labels: class names by class id.
        backend: what runs it.
        input_width: of the network, in pixels.
        input_height: of the network, in pixels.
        score_threshold: where a stream asks for none.
        max_detections: where a stream asks for none; also the most it may ask for.
        top_k: classes of a classification where a stream asks for none.
        forms: the forms of results it serves, as numbers of `ResultOptions.Form`; the first where a stream asks none.
    """

    name: str
    version: str
    generation: int
    digest: str
    labels: tuple[str, ...]
    backend: str
    input_width: int
    input_height: int
    score_threshold: float
    max_detections: int
    top_k: int = 5
    forms: tuple[int, ...] = (1,)


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
        """Take in a failed batch; the notice to send, if the health changed."""
        self.detail = detail
        self._failures += 1
        if self._failures < FAILURES_UNTIL_DEGRADED or not self.serving:
            return None
        self.serving = False
        return NoticeKind.DEGRADED


@dataclass(slots=True, kw_only=True, eq=False)
class ServedModel:
    """A model that serves: what is told of it, its streams' queue, and the pool of lanes the queue belongs to.

    Two generations of one name are two of these; a stream keeps the one it was opened with.
    """

    facts: ModelFacts
    pool: AdmissionPool
    queue: ModelQueue
    health: ModelHealth = field(default_factory=ModelHealth)
