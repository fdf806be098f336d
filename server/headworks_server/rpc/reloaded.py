"""What files say, read again when they are replaced: for certificates and tokens, which change under a running server.

Made at start by `rpc/security.py`; asked by gRPC's threads at each handshake and by the event loop at each call. Such
a question costs a stat of each file. Files that have become wrong change nothing: what they said last stays in force.
"""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger("headworks.security")

T = TypeVar("T")


class Reloaded(Generic[T]):
    """The value of some files.

    Attributes:
        kind: what the files are, for the log and the metrics.
        failures: how often they were found changed, and wrong.
    """

    def __init__(self, kind: str, paths: tuple[Path, ...], read: Callable[[], T]) -> None:
        """Read the files; what `read` raises is raised here, and only here."""
        self.kind = kind
        self.failures = 0
        self._paths = paths
        self._read = read
        self._reading = threading.Lock()
        # Looked at before it is read: what changes meanwhile is read again.
        self._seen = _stamps(paths)
        self._value = read()

    def value(self) -> T:
        """What the files say now, or said when they last were right. Never raises, never waits for another thread."""
        if _stamps(self._paths) != self._seen and self._reading.acquire(blocking=False):
            try:
                self._reload()
            finally:
                self._reading.release()
        return self._value

    def _reload(self) -> None:
        self._seen = _stamps(self._paths)
        try:
            self._value = self._read()
        except Exception as error:  # gRPC would write a line of its own, and a call would end with a defect
            self.failures += 1
            log.warning("reload_refused", kind=self.kind, detail=str(error), consequence="the last good ones stay")
        else:
            log.info("reloaded", kind=self.kind)


def warn_if_readable(setting: str, path: Path) -> None:
    """Write a line when every user of this machine may read a file that should be secret."""
    if path.stat().st_mode & stat.S_IROTH:
        log.warning("secret_readable_by_all", setting=setting, file=str(path), advice=f"chmod o-r {path}")


def _stamps(paths: tuple[Path, ...]) -> list[tuple[int, ...] | None]:
    """What changes when a file is replaced or rewritten; None for a file that is not there."""
    return [_stamp(path) for path in paths]


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    # A pipe, as of a shell's <(...), gives its content once, and would block the second time.
    return (status.st_ino, status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else ()
