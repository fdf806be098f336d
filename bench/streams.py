"""What many quiet streams cost: server CPU per frame with 1,000 streams over that with 10, 1,000 frames/s in both.

Null engine, frames of 2 KB, eight connections. The line also tells by how much memory 1,000 opened streams that have
sent nothing make the server grow; the first rounds have warmed it by then.
"""

from __future__ import annotations

import statistics
from typing import Any

from bench._load import Load, check_complete, run_load
from bench._measure import ROUNDS, Line, ServerProcess, headworks, print_lines, ratio_line, say

MANY, FEW = 1000, 10
FRAMES_S = 1000.0
CONNECTIONS, FRAME_BYTES = 8, 2000
AIM, AIM_KB = 1.25, 64


def run(*, quick: bool = False) -> Line:
    """Few and many streams in alternating rounds, on one server."""
    rounds, opening = [], []
    with headworks("--backend", "null") as server:
        for number in range(ROUNDS):
            many, few = (measure(server, streams, seconds=1.0 if quick else 3.0) for streams in (MANY, FEW))
            rounds.append((many["server_us"], few["server_us"]))
            opening.append(many["kb_opening"] / MANY)
            say(f"streams: round {number + 1}: {rounds[-1][0]:.0f} and {rounds[-1][1]:.0f} us, {opening[-1]:.1f} KB")
    kb = max(opening)
    aim = f"ratio at most {AIM}, kb_a_stream at most {AIM_KB}"
    line = ratio_line("streams", rounds, unit="us of server CPU a frame", aim=aim, at_most=AIM)
    line["met"] = line["met"] and kb <= AIM_KB
    return line | {"kb_a_stream": round(kb, 1), "kb_a_stream_later": round(statistics.median(opening), 1)}


def measure(server: ServerProcess, streams: int, *, seconds: float) -> dict[str, Any]:
    """One load of that many streams."""
    load = Load(
        streams=streams,
        connections=CONNECTIONS,
        fps=FRAMES_S / streams,
        frame_bytes=FRAME_BYTES,
        warm_s=1.2,  # every stream has sent a frame by then
        seconds=seconds,
    )
    figures = run_load(server, load)
    check_complete(figures)
    return figures


if __name__ == "__main__":
    print_lines(run)
