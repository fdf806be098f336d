"""What the load generator itself costs: CPU of `headworks load` per frame, against the benchmarks' own bare cameras.

Ten cameras at 30 fps send the football clip to a server without an engine, whose results hold 25 detections. The bare
cameras keep no account, parse no answer and know one policy; the difference is what an honest report costs.
"""

from __future__ import annotations

import json
import subprocess
import sys

from bench._load import Load, check_complete, run_load
from bench._measure import ROOT, ROUNDS, Line, ServerProcess, headworks, print_lines, ratio_line, say

CAMERAS, FPS = 10, 30.0
CLIP = "examples/football/clip"
AIM = 2.0


def run(*, quick: bool = False) -> Line:
    """Both generators in alternating rounds, on one server."""
    seconds = 1.5 if quick else 4.0
    rounds = []
    with headworks("--backend", "null") as server:
        for number in range(ROUNDS):
            rounds.append((measure_ours(server, seconds), measure_bare(server, seconds)))
            say(f"load_self: round {number + 1}: {rounds[-1][0]:.0f} and {rounds[-1][1]:.0f} us a frame")
    return ratio_line("load_self", rounds, unit="us of generator CPU a frame", aim=f"ratio at most {AIM}", at_most=AIM)


def measure_ours(server: ServerProcess, seconds: float) -> float:
    """Microseconds of CPU a frame, as `headworks load` tells them of itself."""
    command = [sys.executable, "-m", "headworks", "load", "--json", "--server", server.target, "--frames", CLIP]
    command += ["--cameras", str(CAMERAS), "--fps", str(FPS), "--seconds", str(seconds)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    summary = json.loads(done.stdout)
    assert summary["total"]["unaccounted"] == 0, summary["total"]
    return float(summary["generator"]["cpu_ms_per_frame"]) * 1e3


def measure_bare(server: ServerProcess, seconds: float) -> float:
    """The same of the bare cameras."""
    load = Load(streams=CAMERAS, connections=CAMERAS, fps=FPS, outstanding=2, clip=CLIP, warm_s=1.0, seconds=seconds)
    figures = run_load(server, load)
    check_complete(figures)
    return float(figures["client_us"])


if __name__ == "__main__":
    print_lines(run)
