"""What glibc's allocator keeps of freed memory: pictures, which come again, and not engines, which are gone.

A fresh 6 MB picture costs thousands of page faults; with the thresholds raised the heap keeps it. `app` raises them
once, before any thread starts; benchmarks do so on both sides. `memory` trims after a load and an eviction.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_TOUCH_BYTES = 128 * 1024  # freeing less than 64 KB does not look at the top of a heap
_KEEP_BYTES = 64 * 1024 * 1024  # above the largest picture a lane decodes at once: 33 Mpx are rare, 6 Mpx are daily


def raise_malloc_thresholds() -> bool:
    """Raise glibc's trim and mmap thresholds to 64 MiB. False where the C library has no mallopt."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, 4 * _KEEP_BYTES))


def trim_heaps() -> None:
    """Give back to the kernel what the allocator keeps of memory that was freed, above all by the calling thread.

    `malloc_trim` leaves the top of every heap but the first thread's, where most of what a load took and freed lies:
    that goes when the thread itself frees something while the threshold is low. Nothing where there is no glibc.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt, malloc, free, malloc_trim = libc.mallopt, libc.malloc, libc.free, libc.malloc_trim
    except (AttributeError, OSError):
        return
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, (ctypes.c_size_t,), (ctypes.c_void_p,)
    mallopt(_M_TRIM_THRESHOLD, 0)
    free(malloc(_TOUCH_BYTES))
    mallopt(_M_TRIM_THRESHOLD, 4 * _KEEP_BYTES)
    malloc_trim(0)
