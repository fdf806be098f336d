"""Whether a model's engine can take frames now, as its streams see it."""

from __future__ import annotations

from enum import IntEnum


class Readiness(IntEnum):
    """Where the engine of a model stands."""

    READY = 0  # resident
    LOADING = 1  # not resident: being loaded, or loaded again with the next frame
    FAILED = 2  # its last load came to nothing
