"""`python -m bench`: runs the benchmarks one after the other, each in a fresh process, and keeps a dated record.

`make bench` calls it. Lines go to stdout, progress to stderr, the record to docs/measurements/. A benchmark that misses
its aim is a result like any other; only one that cannot run makes the exit code 1.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from bench._measure import ROOT, Line, say

RECORDS = ROOT / "docs" / "measurements"
PACKAGES = ("grpcio", "protobuf", "numpy", "onnxruntime", "opencv-python-headless", "simplejpeg", "uvloop")

# Each by the name in its line, with the module and the function that measure it.
BENCHMARKS = {
    "rpc_small": ("rpc", "small"),
    "rpc_200k": ("rpc", "large"),
    "end_to_end_cpu": ("end_to_end_cpu", "run"),
    "overload": ("overload", "run"),
    "streams": ("streams", "run"),
    "ten_cameras": ("ten_cameras", "run"),
    "late_claim": ("late_claim", "run"),
    "lane_ring": ("lane_ring", "run"),
    "wire_read": ("wire", "read"),
    "wire_result": ("wire", "result"),
    "pixels": ("pixels", "run"),
    "nms": ("nms", "run"),
    "decode": ("decode", "run"),
    "decode_worst": ("decode_worst", "run"),
    "client_send": ("client_send", "run"),
    "reconnect": ("reconnect", "run"),
    "load_self": ("load_self", "run"),
    "switch": ("switch", "run"),
    "load_beside": ("load_beside", "run"),
}
CHILD = """
import importlib, inspect, json, sys
run = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
quick = {"quick": True} if "--quick" in sys.argv and "quick" in inspect.signature(run).parameters else {}
print(json.dumps(run(**quick)))
"""


def measure(name: str, *, quick: bool) -> Line | None:
    """Run one benchmark in a process of its own; None where it could not be run."""
    module, function = BENCHMARKS[name]
    command = [sys.executable, "-c", CHILD, f"bench.{module}", function, *(["--quick"] if quick else [])]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return None
    line: Line = json.loads(done.stdout.splitlines()[-1])
    return line


def machine() -> dict[str, Any]:
    """What the figures depend on, apart from the code."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in PACKAGES},
    }


def cpu_model() -> str:
    """The processor's name, with the widest vectors it has."""
    facts: dict[str, str] = {}
    for row in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = row.partition(":")
        facts.setdefault(key.strip(), value.strip())
    flags = facts.get("flags", "").split()
    vectors = [name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags][:1]
    return ", ".join([facts.get("model name", platform.machine()), *vectors])


def commit() -> str:
    """The commit that was measured, with a `+` where the working tree differs from it."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()


def record(path: Path, lines: list[Line]) -> None:
    """Write the day's record: what is measured now replaces the lines of the same name, the others stay."""
    old: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    measured = commit()
    found = {line["benchmark"]: line for line in old.get("lines", [])}
    found |= {line["benchmark"]: {**line, "commit": measured} for line in lines}
    order = list(BENCHMARKS)
    kept = sorted(found.values(), key=lambda line: (order.index(line["benchmark"]), line["benchmark"]))
    whole = {"date": path.stem, "machine": machine(), "commit": measured, "lines": kept}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(whole, indent=1) + "\n")
    part.replace(path)


def verdict(line: Line) -> str:
    """One line's outcome for a reader of the progress."""
    met = {True: "aim met", False: "aim missed", None: "no aim"}[line["met"]]
    return f"{line['ours']} against {line['baseline']} {line['unit']}, ratio {line['ratio']}: {met} ({line['aim']})"


def main() -> int:
    """Run what was asked for."""
    names = ", ".join(BENCHMARKS)
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Run the benchmarks, each in a fresh process and against its baseline in turns.",
        epilog=f"Benchmarks: {names}. Example: make bench ONLY=rpc_small. All together take about ten minutes; "
        "leave the machine alone meanwhile.",
    )
    parser.add_argument("--only", metavar="NAME", choices=BENCHMARKS, help="run this one and keep the day's others")
    parser.add_argument("--quick", action="store_true", help="short rounds, rough figures, no record")
    options = parser.parse_args()
    path = RECORDS / f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}.json"
    failed = []
    begin_s = time.monotonic()
    for name in [options.only] if options.only else BENCHMARKS:
        say(f"{name} ...")
        line = measure(name, quick=options.quick)
        if line is None:
            failed.append(name)
            say(f"{name}: could not be run, see above")
            continue
        print(json.dumps(line), flush=True)
        say(f"{name}: {verdict(line)}")
        if not options.quick:
            record(path, [line])
    kept = "nothing recorded" if options.quick else f"recorded in {path.relative_to(ROOT)}"
    say(f"{kept}, after {time.monotonic() - begin_s:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
