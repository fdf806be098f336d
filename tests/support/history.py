"""What one camera did and heard, in order, as plain facts: the client's half of what `support/laws.py` judges.

Written by the cameras of the integration and the fault tests. A history can write itself through to a file, a JSON
line an event, so that a camera that is killed leaves all of it behind. The server's half is its log.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headworks.v1 import frame_pb2 as pb

OUTCOMES = frozenset({"result", "dropped", "frame_error"})
Event = dict[str, Any]
Facts = Mapping[str, Any]


class History:
    """One camera's events. An event is {"did": what, ...} or {"heard": what, ...}.

    Arguments:
        path: where to write it through to, if anywhere.

    Attributes:
        events: all so far. A frame is there before it is handed to the transport, an outcome when it was read.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.events: list[Event] = []
        self._lock = threading.Lock()
        self._file = path.open("a", buffering=1) if path is not None else None

    def did(self, what: str, **facts: Any) -> None:
        """The camera is about to do something: `open`, `frame`, `ping`, `end`."""
        self._add({"did": what, **facts})

    def heard(self, what: str, **facts: Any) -> None:
        """The camera was told something."""
        self._add({"heard": what, **facts})

    def did_request(self, request: pb.StreamFramesRequest) -> None:
        """The camera is about to send a message."""
        kind = request.WhichOneof("message")
        if kind == "frame":
            self.did("frame", frame_id=request.frame.frame_id)
        elif kind == "open":
            self.did("open", policy=request.open.drop_policy.WhichOneof("policy") or "latest")
        elif kind is not None:
            self.did(kind)

    def heard_event(self, event: pb.ServerEvent) -> None:
        """The server said that."""
        kind = event.WhichOneof("event")
        if kind is not None:
            self.heard(kind, **_FACTS[kind](getattr(event, kind)))

    def ended(self, code: str, detail: str = "") -> None:
        """The call has ended with that status."""
        self.heard("status", code=code, detail=detail)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _add(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)
            if self._file is not None:
                self._file.write(json.dumps(event) + "\n")


def read_history(path: Path) -> list[Event]:
    """The events of a history's file; a last line that was cut short by the writer's death is left out."""
    whole, _, _ = path.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def drop_counts(counts: Any) -> dict[str, int]:
    """Dropped frames by the reason's name."""
    drops: Counter[str] = Counter()
    for count in counts:
        drops[pb.DropReason.Name(count.reason).removeprefix("DROP_REASON_")] += count.count
    return dict(drops)


def _closed_facts(closed: pb.Closed) -> Facts:
    ledger = closed.ledger
    return {
        "reason": pb.CloseReason.Name(closed.reason).removeprefix("CLOSE_REASON_"),
        "received": ledger.received,
        "results": ledger.results,
        "errors": ledger.errors,
        "drops": drop_counts(ledger.drops),
    }


_FACTS = {
    "opened": lambda opened: {"stream_id": opened.stream_id, "frames_allowed": opened.frames_allowed},
    "result": lambda result: {"first": result.frame_id, "last": result.frame_id},
    "dropped": lambda dropped: {
        "first": dropped.first_frame_id,
        "last": dropped.last_frame_id,
        "drops": drop_counts(dropped.counts),
    },
    "frame_error": lambda error: {
        "first": error.frame_id,
        "last": error.frame_id,
        "code": pb.FrameErrorCode.Name(error.code).removeprefix("FRAME_ERROR_CODE_"),
    },
    "credit": lambda credit: {"frames_allowed": credit.frames_allowed},
    "notice": lambda notice: {"kind": pb.Notice.Kind.Name(notice.kind).removeprefix("KIND_")},
    "pong": lambda pong: {"nonce": pong.nonce},
    "closed": _closed_facts,
}
