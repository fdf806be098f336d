"""What many streams cost: server CPU per frame at 1,000 streams against 10, with 1,000 frames/s in all in both.

Null engine, 2 KB frames, 8 connections; one server takes both loads in turn, each from a fresh client with fresh
streams. The line also carries what a stream that was only opened adds to the server's memory.
"""

from __future__ import annotations

import statistics

from bench._load import Load, check_complete, run_load
from bench._measure import ROUNDS, Line, ServerProcess, headworks, print_lines, ratio_line, say

FEW, MANY = 10, 1000
FRAMES_S = 1000.0
AT_MOST, KB_AT_MOST = 1.25, 64.0


def load(streams: int, *, seconds: float) -> Load:
    """All frames of a second, spread over so many streams."""
    # Every stream has had its first frame before the measurement begins.
    return Load(
        streams=streams,
        connections=8,
        fps=FRAMES_S / streams,
        frame_bytes=2000,
        warm_s=1.2 * streams / FRAMES_S + 0.5,
        seconds=seconds,
    )


def memory_per_stream_kb(server: ServerProcess) -> float:
    """Kilobytes that each of 1,000 streams adds when it is opened, on a server that has served streams before."""
    return float(run_load(server, load(MANY, seconds=1.0))["kb_opening"]) / MANY


def run(*, quick: bool = False) -> Line:
    """Both loads in alternating rounds."""
    seconds = 1.0 if quick else 4.0
    rounds, kb = [], []
    for _ in range(3):
        with headworks("--backend", "null") as server:
            run_load(server, load(FEW, seconds=1.0))
            kb.append(memory_per_stream_kb(server))
    with headworks("--backend", "null") as server:
        for number in range(ROUNDS):
            many, few = (run_load(server, load(streams, seconds=seconds)) for streams in (MANY, FEW))
            check_complete(many)
            check_complete(few)
            rounds.append((many["server_us"], few["server_us"]))
            say(f"streams: round {number + 1}: {rounds[-1][0]:.0f} and {rounds[-1][1]:.0f} us")
    idle_kb = statistics.median(kb)
    aim = f"ratio at most {AT_MOST}, idle_stream_kb at most {KB_AT_MOST:.0f}"
    line = ratio_line("streams", rounds, unit="us of server CPU a frame", aim=aim, at_most=AT_MOST)
    line["met"] = line["met"] and idle_kb <= KB_AT_MOST
    return line | {"idle_stream_kb": round(idle_kb, 1)}


if __name__ == "__main__":
    print_lines(run)
