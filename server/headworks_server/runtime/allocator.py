"""Keeps glibc from giving every picture's memory back to the kernel and asking for it again.

A fresh 6 MB picture costs thousands of page faults; with the thresholds raised the heap keeps it.
`app` calls this once, before any thread starts; benchmarks call it on both sides.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEEP_BYTES = 64 * 1024 * 1024  # above the largest picture a lane decodes at once: 33 Mpx are rare, 6 Mpx are daily


def raise_malloc_thresholds() -> bool:
    """Raise glibc's trim and mmap thresholds to 64 MiB. False where the C library has no mallopt."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, 4 * _KEEP_BYTES))
