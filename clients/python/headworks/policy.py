"""How frames of a stream wait when they come faster than they are served. The application chooses, the server is told.

The same rule holds in the client's mailbox and in the server's queue.
"""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("latest", "bounded", "every_frame")
SIDES = ("oldest", "newest")


@dataclass(frozen=True, slots=True)
class Policy:
    """How frames wait when they come faster than they are served.

    Attributes:
        kind: "latest" (one waits, a newer one replaces it), "bounded" (up to `depth` wait) or "every_frame"
            (nothing is replaced: who offers waits for room).
        depth: frames that may wait.
        drop: which frame gives way in a full "bounded" mailbox: the "oldest", or the "newest", which is the arriving.

    Raises:
        ValueError: the parts make no sense together.
    """

    kind: str = "latest"
    depth: int = 1
    drop: str = "oldest"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"policy {self.kind!r}: expected one of {', '.join(KINDS)}")
        if self.drop not in SIDES:
            raise ValueError(f"drop {self.drop!r}: expected one of {', '.join(SIDES)}")
        if self.depth < 1:
            raise ValueError(f"policy {self.kind!r}: expected a depth of at least 1, got {self.depth}")
        if self.kind != "bounded" and (self.depth, self.drop) != (1, "oldest"):
            raise ValueError(f"policy {self.kind!r}: depth and drop belong to 'bounded'")


LATEST = Policy()
