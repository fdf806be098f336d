"""What the benchmarks share: server processes, their CPU time and memory, and the line that a benchmark prints.

CPU time is read from the process's own clock, which counts user and system time of all its threads in nanoseconds.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
READY_S = 120.0
ROUNDS = 5
Line = dict[str, Any]

_CPU_CLOCK_OF_PROCESS = 2  # clock_gettime(2): the clock of process p is (~p << 3) | 2


def process_cpu_s(pid: int) -> float:
    """CPU seconds, user and system, that all threads of a process have used so far."""
    return time.clock_gettime((~pid << 3) | _CPU_CLOCK_OF_PROCESS)


def process_rss_kb(pid: int) -> int:
    """Kilobytes of a process that are in memory now."""
    for row in Path(f"/proc/{pid}/status").read_text().splitlines():
        if row.startswith("VmRSS:"):
            return int(row.split()[1])
    raise ValueError(f"process {pid} has no VmRSS")


class ServerProcess:
    """A server in a process of its own, started on entering and stopped on leaving; its warnings go to stderr.

    Attributes:
        pid: of the process.
        target: where it listens, as host:port.
    """

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
        self._command = list(command)
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = 0
        self.target = ""

    def __enter__(self) -> ServerProcess:
        with tempfile.TemporaryDirectory(prefix="headworks-bench-") as folder:
            ready = Path(folder) / "ready.json"
            command = [*self._command, "--ready-file", str(ready)]
            self._process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=sys.stderr)
            self.pid = self._process.pid
            give_up = time.monotonic() + READY_S
            while not ready.exists():
                if self._process.poll() is not None or time.monotonic() > give_up:
                    self.stop()
                    raise RuntimeError(f"the server did not start: {' '.join(command[1:])}")
                time.sleep(0.02)
            self.target = f"{HOST}:{json.loads(ready.read_text())['port']}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask it to end, and see that it has."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


def headworks(*arguments: str, environment: Mapping[str, str] | None = None) -> ServerProcess:
    """Our server, on a free port and without metrics, so that nothing else takes part."""
    serve = [sys.executable, "-m", "headworks", "serve", *arguments]
    quiet = ["--port", "0", "--metrics-port", "-1", "--log-level", "warning"]
    return ServerProcess([*serve, *quiet], environment=environment)


def echo(*, detections: int) -> ServerProcess:
    """The bare server that the RPC benchmarks compare with."""
    return ServerProcess([sys.executable, "-m", "bench._echo", "--detections", str(detections)])


def spread(values: Sequence[float]) -> float:
    """The range of the values over their median."""
    return (max(values) - min(values)) / statistics.median(values)


def ratio_line(name: str, rounds: Sequence[tuple[float, float]], *, unit: str, aim: str, at_most: float) -> Line:
    """The line of a benchmark whose rounds are (ours, baseline), and whose ratio is to be small."""
    ratios = [ours / baseline for ours, baseline in rounds]
    ratio = statistics.median(ratios)
    return {
        "benchmark": name,
        "ours": round(statistics.median(ours for ours, _ in rounds), 4),
        "baseline": round(statistics.median(baseline for _, baseline in rounds), 4),
        "unit": unit,
        "ratio": round(ratio, 3),
        "spread": round(spread(ratios), 3),
        "aim": aim,
        "met": ratio <= at_most,
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of values in any order."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def say(text: str) -> None:
    """Tell progress, beside the lines on stdout."""
    print(text, file=sys.stderr, flush=True)


def print_lines(run: Callable[..., Line | list[Line]]) -> None:
    """Run a benchmark and print its line, or its lines; `--quick` shortens it. What a module does when executed."""
    measured = run(quick="--quick" in sys.argv[1:])
    for line in measured if isinstance(measured, list) else [measured]:
        print(json.dumps(line), flush=True)
