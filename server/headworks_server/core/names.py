"""How models and their versions may be called. The repository holds folders against it, `rpc` what clients send."""

from __future__ import annotations

import re

NAME_PATTERN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
SHOWN = 80  # characters of a wrong name that are told: it may be as long as a message


def name_fault(what: str, name: str) -> str:
    """What is wrong with a name, as a sentence that begins with what it names; "" where nothing is."""
    if NAME_PATTERN.fullmatch(name) is not None:
        return ""
    shown = name if len(name) <= SHOWN else name[:SHOWN] + "..."
    return f"{what} {shown!r}: expected 1 to 64 letters, digits, '.', '_' and '-', not starting with '.'"
