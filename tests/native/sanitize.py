"""`make sanitize`: the lanes' stress under ThreadSanitizer and AddressSanitizer, and the lanes' tests on a TSan build.

    python tests/native/sanitize.py [SECONDS]       seconds for each stress run, default 60

Prints each run's outcome, and a failing run's seed with its report; exits 1 if any run was not as it must be.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.sanitizers import FOUND, run_lane_tests, run_stress


def main(seconds: float) -> int:
    failures = 0
    runs = [
        ("stress, ThreadSanitizer", lambda: run_stress("thread", seconds=seconds), 0),
        ("stress, AddressSanitizer and UBSan", lambda: run_stress("address", seconds=seconds), 0),
        ("stress, planted race (must be found)", lambda: run_stress("planted", seconds=2), FOUND),
        ("lane tests, ThreadSanitizer", run_lane_tests, 0),
        ("lane tests, planted race (must be found)", lambda: run_lane_tests(planted=True), FOUND),
    ]
    for name, start, expected in runs:
        result: subprocess.CompletedProcess[str] = start()
        clean = result.returncode == expected and (expected != 0 or "Sanitizer" not in result.stderr + result.stdout)
        last = result.stdout.strip().splitlines()[-1:] or [""]
        print(f"{'ok    ' if clean else 'FAILED'} {name}: exit {result.returncode}; {last[0]}", flush=True)
        if not clean:
            failures += 1
            print(result.stdout[-4000:], result.stderr[-20000:], sep="\n", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0))
