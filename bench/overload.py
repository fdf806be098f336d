"""Three times too much work: results/s over what the engine can do, the age of the results, and the memory.

The engine sleeps 40 ms for any batch of at most 8, which makes 200 frames/s; eight decoders sleep 5 ms. Twenty cameras
of 30 fps, LATEST, go through everything that real frames go through. A frame that is served waited for at most a newer
one of its camera, a running batch and its own, so its age has a bound, which is computed here from the same figures
and from the round trip of a lone camera. The server's memory is read after each round.
"""

from __future__ import annotations

import statistics
from typing import Any

from bench._load import Load, run_load
from bench._measure import ROUNDS, Line, headworks, print_lines, say, spread

BATCH, BATCH_MS, DECODE_MS = 8, 40.0, 5.0
CAPACITY = BATCH * 1e3 / BATCH_MS
CAMERAS, FPS = 20, 30.0
FRAME_BYTES = 20_000
AT_LEAST = 0.97
FLAT_KB = 1024  # what the server may grow by in a round: 0.3 % of the bytes that came in
SLEEPING = {
    "ENGINE_BASE_MS": BATCH_MS,
    "ENGINE_FRAME_MS": 0,
    "MAX_BATCH": BATCH,
    "TARGET": BATCH,
    "DECODERS": 8,
    "DECODE_MS": DECODE_MS,
}


def run(*, quick: bool = False) -> Line:
    """Rounds on one server."""
    environment = {f"HEADWORKS_SLEEPING__{name}": str(value) for name, value in SLEEPING.items()}
    crowd = Load(streams=CAMERAS, fps=FPS, frame_bytes=FRAME_BYTES, warm_s=1.0, seconds=2.0 if quick else 8.0)
    with headworks("--backend", "sleeping", environment=environment) as server:
        alone = run_load(server, Load(streams=1, fps=10.0, frame_bytes=FRAME_BYTES, seconds=2.0))
        rounds = []
        for number in range(ROUNDS):
            rounds.append(run_load(server, crowd))
            result = rounds[-1]
            say(f"overload: round {number + 1}: {result['results_s']:.1f}/s, age p99 {result['age_ms']['p99']:.0f} ms")
    return line_of(alone, rounds)


def line_of(alone: dict[str, Any], rounds: list[dict[str, Any]]) -> Line:
    """The line: medians over the rounds, and the slope of the memory over all but the first."""
    ratios = [result["results_s"] / CAPACITY for result in rounds]
    round_trip_ms = max(alone["age_ms"]["p50"] - DECODE_MS - BATCH_MS, 0.0)
    bound_ms = 1e3 / FPS + round_trip_ms + DECODE_MS + 2 * BATCH_MS
    age_p99_ms = statistics.median(result["age_ms"]["p99"] for result in rounds)
    memory_kb = [result["rss_kb"] for result in rounds[1:]]
    slope_kb = statistics.linear_regression(range(len(memory_kb)), memory_kb).slope
    ratio = statistics.median(ratios)
    return {
        "benchmark": "overload",
        "ours": round(statistics.median(result["results_s"] for result in rounds), 1),
        "baseline": CAPACITY,
        "unit": "results/s",
        "ratio": round(ratio, 3),
        "spread": round(spread(ratios), 3),
        "aim": f"ratio at least {AT_LEAST}, age_p99_ms at most age_bound_ms, memory_kb_per_round at most {FLAT_KB}",
        "met": ratio >= AT_LEAST and age_p99_ms <= bound_ms and slope_kb <= FLAT_KB,
        "age_p50_ms": round(statistics.median(result["age_ms"]["p50"] for result in rounds), 1),
        "age_p99_ms": round(age_p99_ms, 1),
        "age_bound_ms": round(bound_ms, 1),
        "round_trip_ms": round(round_trip_ms, 1),
        "memory_kb_per_round": round(slope_kb, 1),
        "server_us": round(statistics.median(result["server_us"] for result in rounds), 1),
    }


if __name__ == "__main__":
    print_lines(run)
