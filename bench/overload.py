"""Three times too many frames: what is served, how old the answers are, and whether memory grows.

The engine sleeps 40 ms for any batch of at most 8, so 200 frames/s is all there is; twenty LATEST cameras offer 600.
`ours` is results/s, `baseline` the capacity. The age of a result runs from the moment its frame was due. A frame may
wait for the next of its camera, travel, be decoded, and see two batches: the one that runs and its own.
"""

from __future__ import annotations

import statistics

from bench._load import Load, run_load
from bench._measure import ROUNDS, Line, headworks, print_lines, say, spread

CAMERAS, FPS = 20, 30.0
BATCH, BATCH_MS, DECODERS, DECODE_MS = 8, 40.0, 8, 5.0
CAPACITY_S = BATCH / BATCH_MS * 1e3
AIM = 0.97
SETTINGS = {
    "decoders": DECODERS,
    "decode_ms": DECODE_MS,
    "engine_base_ms": BATCH_MS,
    "engine_frame_ms": 0,
    "max_batch": BATCH,
    "target": BATCH,
}


def run(*, quick: bool = False) -> Line:
    """Five loads on one server, whose memory is read at the end of each."""
    load = Load(streams=CAMERAS, fps=FPS, frame_bytes=20_000, outstanding=0, warm_s=1.0, seconds=2.0 if quick else 5.0)
    environment = {f"HEADWORKS_SLEEPING__{name.upper()}": str(value) for name, value in SETTINGS.items()}
    rounds = []
    with headworks("--backend", "sleeping", environment=environment) as server:
        idle = run_load(server, Load(streams=1, fps=5.0, frame_bytes=20_000, seconds=1.0 if quick else 3.0))
        for number in range(ROUNDS):
            rounds.append(run_load(server, load))
            say(f"overload: round {number + 1}: {rounds[-1]['results_s']:.1f}/s, age {rounds[-1]['age_ms']}")
    rates = [one["results_s"] for one in rounds]
    age_p99 = statistics.median(one["age_ms"]["p99"] for one in rounds)
    # A lone frame travels, is decoded, and runs in a batch of its own.
    round_trip_ms = max(0.0, idle["age_ms"]["p50"] - DECODE_MS - BATCH_MS)
    limit_ms = 1e3 / FPS + round_trip_ms + DECODE_MS + 2 * BATCH_MS
    ratio = statistics.median(rates) / CAPACITY_S
    frames = sum(one["total"]["results"] for one in rounds[1:])
    growth_kb = rounds[-1]["rss_kb"] - rounds[0]["rss_kb"]
    return {
        "benchmark": "overload",
        "ours": round(statistics.median(rates), 1),
        "baseline": CAPACITY_S,
        "unit": "results/s",
        "ratio": round(ratio, 4),
        "spread": round(spread(rates), 4),
        "aim": f"ratio at least {AIM}, age_p99_ms at most {limit_ms:.1f}",
        "met": ratio >= AIM and age_p99 <= limit_ms,
        "age_p50_ms": round(statistics.median(one["age_ms"]["p50"] for one in rounds), 1),
        "age_p99_ms": round(age_p99, 1),
        "round_trip_ms": round(round_trip_ms, 2),
        "offered_s": CAMERAS * FPS,
        "rss_kb": [one["rss_kb"] for one in rounds],
        "rss_bytes_a_result": round(growth_kb * 1024 / frames, 1),
    }


if __name__ == "__main__":
    print_lines(run)
