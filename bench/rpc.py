"""What serving costs over gRPC itself: server CPU per frame without a model, against a bare grpc.aio handler.

Ours runs its null backend: reader, session, admission, a native lane that computes nothing, 25 detections a result,
ordered completion, credit. The bare handler reads the same frames and answers each with as many bytes. Eight streams
of 100 frames/s from the same client, each server in its own process, rounds alternate. `rpc_small` has frames of 100
bytes, `rpc_200k` of 200 KB.
"""

from __future__ import annotations

from bench._load import Load, check_complete, run_load
from bench._measure import ROUNDS, Line, echo, headworks, print_lines, ratio_line, say

DETECTIONS = 25
STREAMS, FPS = 8, 100.0


def small(*, quick: bool = False) -> Line:
    """Frames of 100 bytes."""
    return compare("rpc_small", 100, at_most=2.0, quick=quick)


def large(*, quick: bool = False) -> Line:
    """Frames of 200 KB."""
    return compare("rpc_200k", 200_000, at_most=1.4, quick=quick)


def compare(name: str, frame_bytes: int, *, at_most: float, quick: bool) -> Line:
    """Both servers in alternating rounds of at least 2,000 frames."""
    load = Load(streams=STREAMS, fps=FPS, frame_bytes=frame_bytes, seconds=1.0 if quick else 3.0)
    rounds, seen = [], []
    null = headworks("--backend", "null", "--null-detections", str(DETECTIONS))
    with null as ours, echo(detections=DETECTIONS) as bare:
        for number in range(ROUNDS):
            pair = [run_load(server, load) for server in (ours, bare)]
            for figures in pair:
                check_complete(figures)
            rounds.append((pair[0]["server_us"], pair[1]["server_us"]))
            seen.append(pair)
            say(f"{name}: round {number + 1}: {rounds[-1][0]:.0f} and {rounds[-1][1]:.0f} us")
    answer_bytes = [round(figures["answer_bytes"]) for figures in seen[-1]]
    assert answer_bytes[1] == answer_bytes[0] or abs(answer_bytes[1] / answer_bytes[0] - 1) < 0.05, answer_bytes
    line = ratio_line(name, rounds, unit="us of server CPU a frame", aim=f"ratio at most {at_most}", at_most=at_most)
    return line | {"frames_s": [round(figures["results_s"]) for figures in seen[-1]], "answer_bytes": answer_bytes}


def run(*, quick: bool = False) -> list[Line]:
    """Both sizes."""
    return [small(quick=quick), large(quick=quick)]


if __name__ == "__main__":
    print_lines(run)
