"""Ten 1080p30 cameras on this machine's cores, client included: results over frames offered, as `make demo` does it.

Each round is one `headworks demo` with its own server and the example clip and detector. Frames that were replaced in
the client's mailbox for want of credit, or dropped by the server, are what the ratio lacks of 1.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from bench._measure import ROOT, ROUNDS, Line, print_lines, say, spread

CAMERAS, FPS = 10, 30


def demo(folder: Path, *, seconds: float) -> dict[str, Any]:
    """Run the demo and return its summary, with `engine_ms` as the server measured it at start.

    Raises:
        RuntimeError: a frame was not accounted for, or the demo could not run.
    """
    command = [sys.executable, "-m", "headworks", "demo", "--cameras", str(CAMERAS), "--fps", str(FPS)]
    command += ["--seconds", str(seconds), "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"the demo ended with code {done.returncode}:\n{done.stdout[-2000:]}")
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    log = (json.loads(row) for row in (folder / "server.log").read_text().splitlines() if row.startswith("{"))
    wanted = {"event": "model_ready", "model": summary["model"]}
    ready = next(entry for entry in log if wanted.items() <= entry.items())
    return summary | {"engine_ms": ready["ms"], "target": ready["target"]}


def run(*, quick: bool = False) -> Line:
    """Rounds of the whole demo."""
    summaries = []
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="headworks-bench-") as folder:
            summary = demo(Path(folder), seconds=3.0 if quick else 12.0)
        summaries.append(summary)
        total = summary["total"]
        say(f"ten_cameras: round {number + 1}: {total['results']} results of {total['offered']} frames")
    return line_of(summaries)


def line_of(summaries: list[dict[str, Any]]) -> Line:
    """The line: medians over the rounds, losses summed over all of them."""

    def median(name: str, *inside: str) -> float:
        values = []
        for summary in summaries:
            value = summary[name]
            for key in inside:
                value = value[key]
            values.append(value)
        return round(float(statistics.median(values)), 2)

    ratios = [summary["total"]["results"] / summary["total"]["offered"] for summary in summaries]
    ratio = statistics.median(ratios)
    drops: Counter[str] = Counter()
    for summary in summaries:
        drops.update(summary["total"]["drops"])
    return {
        "benchmark": "ten_cameras",
        "ours": round(statistics.median(s["total"]["results"] / s["seconds"] for s in summaries), 1),
        "baseline": round(statistics.median(s["total"]["offered"] / s["seconds"] for s in summaries), 1),
        "unit": "results/s of frames/s",
        "ratio": round(ratio, 4),
        "spread": round(spread(ratios), 3),
        "aim": "ratio 1.0",
        "met": ratio >= 0.9995,
        "server_cpu_ms": median("server_cpu_ms_per_frame"),
        "client_cpu_ms": median("client_cpu_ms_per_frame"),
        "engine_ms": summaries[-1]["engine_ms"],
        "target": summaries[-1]["target"],
        "age_p50_ms": median("total", "age_ms", "p50"),
        "age_p99_ms": median("total", "age_ms", "p99"),
        "replaced": sum(summary["total"]["replaced"] for summary in summaries),
        "drops": dict(sorted(drops.items())),
        "offered": sum(summary["total"]["offered"] for summary in summaries),
    }


if __name__ == "__main__":
    print_lines(run)
