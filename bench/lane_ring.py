"""The native ring per frame, claim to release, against its plain Python twin.

`ours` is CPU time of the calling thread a frame through claim, publish, seal, judge, launch, drained and release, in
batches of 8, the loop itself native; `baseline` is the same sequence on tests/support/plain_ring.py. `python_ns` is a
frame through a CPU lane's calls from Python at batch 1: queue, claim to release, finish, completion ring and drain.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from headworks_native.lane import CompletionRing, Ticket, TicketQueue
from headworks_native.ring import LaneRing

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.plain_ring import PlainRing, PlainTicket

BATCH, BUFFERS = 8, 3


def cpu_ns(work: Callable[[], int]) -> float:
    """Thread CPU time of `work` for each of the frames that it says it did."""
    start = time.thread_time_ns()
    frames = work()
    return (time.thread_time_ns() - start) / frames


def native(rounds: int) -> int:
    ring = LaneRing(buffers=BUFFERS, max_batch=BATCH, position_bytes=64)
    ring.cycle([Ticket(None, b"", 0, 0) for _ in range(BATCH)], rounds)
    return rounds * BATCH


def twin(rounds: int) -> int:
    ring = PlainRing(buffers=BUFFERS, max_batch=BATCH)
    tickets = [PlainTicket() for _ in range(BATCH)]
    for _ in range(rounds):
        for ticket in tickets:
            ring.publish(ring.claim(ticket, time.monotonic_ns()), time.monotonic_ns())
        buffer = ring.seal()
        ring.judge(buffer, time.monotonic_ns())
        ring.launch(buffer, time.monotonic_ns())
        ring.drained(buffer, time.monotonic_ns())
        ring.release(buffer)
    return rounds * BATCH


def from_python(frames: int) -> int:
    queue, completions = TicketQueue(), CompletionRing(4)
    ring = LaneRing(buffers=1, max_batch=1, position_bytes=64)
    for _ in range(frames):
        queue.push(Ticket(None, b"payload", 0, 7))
        (ticket,) = queue.take(1)
        ticket.begin_decode()
        ring.publish(ring.claim(ticket))
        buffer, _count = ring.close()
        ring.launch(buffer)
        ring.drained(buffer)
        ticket.finish(b"")
        ring.release(buffer)
        completions.push(ticket)
        completions.drain()
    return frames


def run(*, rounds: int = 7) -> dict[str, object]:
    """Interleaved rounds of all three; medians."""
    ours, baseline, python = [], [], []
    for _ in range(rounds):
        ours.append(cpu_ns(lambda: native(20_000)))
        baseline.append(cpu_ns(lambda: twin(500)))
        python.append(cpu_ns(lambda: from_python(5_000)))
    per_frame = statistics.median(ours)
    return {
        "benchmark": "lane_ring",
        "ours": round(per_frame, 1),
        "baseline": round(statistics.median(baseline), 1),
        "unit": "ns CPU/frame",
        "ratio": round(per_frame / statistics.median(baseline), 4),
        "spread": round((max(ours) - min(ours)) / per_frame, 3),
        "aim": "ours < 1,000 ns",
        "met": per_frame < 1000,
        "python_ns": round(statistics.median(python), 1),
    }


if __name__ == "__main__":
    print(json.dumps(run()))
