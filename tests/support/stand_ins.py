"""Settings of servers whose engine is the stand-in that sleeps. Used by the fault tests and the soak."""

from __future__ import annotations


def stand_in(**times: float) -> dict[str, object]:
    """The settings of `Server` for the stand-in with those options, such as `decode_ms=1`."""
    return {"backend": "sleeping", **{f"sleeping__{name}": value for name, value in times.items()}}


QUICK = stand_in(decoders=4, decode_ms=1, engine_base_ms=2, engine_frame_ms=0.1, max_batch=8, target=4)
"""Some two thousand frames a second, several at a time."""
SLOW = stand_in(decoders=1, decode_ms=0, engine_base_ms=20, engine_frame_ms=0, max_batch=1, target=1)
"""Fifty frames a second, one at a time: what comes faster has to wait, or go."""
