"""`headworks serve` with a probe: on SIGUSR1 it logs what memory is in use. Run as a program by support/server.py.

The kernel's count of resident pages wavers by megabytes with the allocator's mood; what is allocated does not, so a
leak of a hundred bytes a stream shows after a thousand streams.
"""

from __future__ import annotations

import ctypes
import gc
import json
import signal
import sys

FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class MallocInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


def report(*_signal: object) -> None:
    """Log the bytes allocated by malloc and the objects that Python tracks, garbage collected."""
    gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = MallocInfo
    info = mallinfo()
    line = {"event": "memory", "allocated_bytes": info.uordblks + info.hblkhd, "objects": len(gc.get_objects())}
    print(json.dumps(line), file=sys.stderr, flush=True)


if __name__ == "__main__":
    from headworks.__main__ import main

    signal.signal(signal.SIGUSR1, report)
    main()
