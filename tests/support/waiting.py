"""Waiting for what another thread does; the suite's own timeout is the limit."""

from __future__ import annotations

import time
from collections.abc import Callable

import headworks

JPEG = b"\xff\xd8 a picture \xff\xd9"


def wait_for(condition: Callable[[], object]) -> None:
    """Wait for something another thread does; the suite's own timeout is the limit."""
    while not condition():
        time.sleep(0.001)


def send_one_by_one(stream: headworks.FrameStream, count: int) -> None:
    """Send so that none is replaced here."""
    for number in range(1, count + 1):
        stream.send(JPEG)
        wait_for(lambda: stream.account.sent == number)  # noqa: B023 - called at once
