"""What memory there is: free on the machine and in its container, and held by this process.

The budget of the engine cache starts from the first; loads and evictions are measured by the second.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from headworks_server.runtime.allocator import trim_heaps

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
# Controllers as /proc/self/cgroup names them, the folder, limit and use, and the key of memory.stat.
VERSIONS: Final = (
    ("", "", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory_bytes() -> int:
    """The least of what the kernel calls available and what the limit of each surrounding cgroup leaves."""
    return min([_available_bytes(), *_left_bytes()])


def private_bytes() -> int:
    """Memory that is this process's own; code and mapped files are shared."""
    own = _field(PROC / "self" / "status", "RssAnon:")
    return own << 10 if own is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def release_freed_memory() -> None:
    """Give back to the kernel what the allocator keeps of freed memory.

    Nothing is collected before: engines are in no reference cycles, and a collection holds the interpreter's lock for
    its 15 ms and more. On a thread of low priority beside busy lanes that made 100 ms of them, for the event loop, too.
    """
    trim_heaps()


def _available_bytes() -> int:
    available = _field(PROC / "meminfo", "MemAvailable:")
    return available << 10 if available is not None else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _left_bytes() -> Iterator[int]:
    """What each limit leaves: a cgroup's holds for those inside it, so all from the process's own up to the root."""
    for controllers, folder, limit, used, inactive in VERSIONS:
        root = CGROUPS / folder
        own = root / _own_path(controllers)
        for group in (own, *own.parents):
            if not group.is_relative_to(root):
                break
            with suppress(OSError, ValueError):  # no such group here, no limit, or "max"
                most, held = int((group / limit).read_text()), int((group / used).read_text())
                # Pages of files that were read once are dropped before anything is refused.
                yield max(0, most - held + (_field(group / "memory.stat", inactive) or 0))


def _own_path(controllers: str) -> str:
    """The process's cgroup in one hierarchy, relative to its root. A container may show it as the root itself."""
    with suppress(OSError):
        for line in (PROC / "self" / "cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            if controllers in names.split(","):
                return path.lstrip("/")
    return ""


def _field(file: Path, name: str) -> int | None:
    """The number that follows a name in one of the kernel's tables; None where it is not there."""
    with suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            words = line.split()
            if words and words[0] == name:
                return int(words[1])
    return None
