"""What serving adds to the work itself: server CPU per frame, 1080p JPEG to detections with the example detector.

Ours is the server under closed-loop load: eight cameras with one frame on the way each keep every lane busy, and no
frame is dropped. The baseline is the best plain loop without a network, made of the server's own parts, a thread a
core (`bench/_plain.py`), plus what the bare grpc.aio handler costs for the same frames at the same rate.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from bench._load import Load, check_complete, run_load
from bench._measure import ROOT, ROUNDS, Line, echo, headworks, print_lines, ratio_line, say

MODELS, CLIP = "examples/football/models", "examples/football/clip"
MODEL = "players"
STREAMS, DETECTIONS = 8, 25
BATCHES = ("1", "4")  # the plain loop takes the better one
AIM = 1.10


def run(*, quick: bool = False) -> Line:
    """Server, plain loop and bare handler in alternating rounds."""
    seconds = 1.5 if quick else 4.0
    rounds, plain, bare_us, batch = [], [], [], ""
    with headworks(MODELS) as ours, echo(detections=DETECTIONS) as bare:
        for number in range(ROUNDS):
            served = run_load(ours, Load(streams=STREAMS, clip=CLIP, model=MODEL, seconds=seconds))
            check_complete(served)
            loop = plain_loop(seconds / 2)
            batch = min(loop, key=lambda size: loop[size])
            rate = served["results_s"] / STREAMS
            echoed = run_load(bare, Load(streams=STREAMS, clip=CLIP, fps=rate, seconds=seconds / 2))
            plain.append(loop[batch])
            bare_us.append(echoed["server_us"])
            rounds.append((served["server_us"], loop[batch] + echoed["server_us"]))
            say(f"end_to_end_cpu: round {number + 1}: {rounds[-1][0]:.0f} us and {loop} + {bare_us[-1]:.0f} us")
    line = ratio_line(
        "end_to_end_cpu", rounds, unit="us of server CPU a frame", aim=f"ratio at most {AIM}", at_most=AIM
    )
    return line | {
        "plain_us": round(statistics.median(plain)),
        "plain_batch": int(batch),
        "bare_us": round(statistics.median(bare_us)),
        "frames_s": round(served["results_s"], 1),
    }


def plain_loop(seconds: float) -> dict[str, float]:
    """CPU microseconds of a frame in the plain loop, by batch size."""
    command = [sys.executable, "-m", "bench._plain", MODELS, MODEL, CLIP, str(seconds), *BATCHES]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    print_lines(run)
