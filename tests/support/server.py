"""A real server for tests: `headworks serve` as a child process, its log lines, its end.

Used by the integration and the fault tests. A server that is left behind a `with` must have drained, exited with 0
and logged no defect; a test that ends it otherwise says `forgive`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

LogLine = dict[str, Any]
PROBED_SERVER = Path(__file__).with_name("probed_server.py")
PATIENCE_S = 20.0
"""How long a test waits for what must happen; long, because it only ends a test that has failed anyway."""


def server_environment(settings: Mapping[str, object]) -> dict[str, str]:
    """A server's environment with those settings: `sleeping__decode_ms=1` is HEADWORKS_SLEEPING__DECODE_MS.

    What this process wants of gRPC's core is not handed on: a server is to keep its log clean by itself.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HEADWORKS_", "GRPC_"))}
    return clean | {f"HEADWORKS_{name.upper()}": str(value) for name, value in settings.items()}


def server_command(models: Path | None, *flags: str, probed: bool = False) -> list[str]:
    """The command line of a server of those models."""
    program = [str(PROBED_SERVER)] if probed else ["-m", "headworks"]
    return [sys.executable, *program, "serve", *([str(models)] if models is not None else []), *flags]


def refusal_to_start(models: Path | None, *flags: str, several_lines: bool = False, **settings: object) -> str:
    """Start a server that refuses to start, exit status 2; return the one sentence with which it does, or its lines."""
    run = subprocess.run(
        server_command(models, "--port", "0", "--metrics-port", "-1", *flags),
        env=server_environment(settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    # Log lines may come before it; they are JSON.
    said = [line for line in run.stderr.splitlines() if not line.startswith("{")]
    assert said, run.stderr
    assert len(said) == 1 or several_lines, run.stderr
    assert run.stdout == ""
    return "\n".join(said)


class Server:
    """A running server; use it in a `with`.

    Arguments:
        models: the folder of models; None for a backend that has none.
        port: of gRPC; a free one by default.
        probed: run it with the probe of support/probed_server.py, for `memory`.
        settings: any setting of the server, by its name.

    Attributes:
        target: "127.0.0.1:port".
        lines: what it has logged so far, an object a line; a line that is no JSON is {"text": line}.
    """

    def __init__(self, models: Path | None = None, *, port: int = 0, probed: bool = False, **settings: object) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="headworks-")
        ready = Path(self._folder.name, "ready.json")
        flags = ["--port", str(port), "--metrics-port", "0", "--ready-file", str(ready)]
        self.lines: list[LogLine] = []
        self._changed = threading.Condition()
        self._ended = False
        self._seen = 0
        self._forgiven = False
        self.process = subprocess.Popen(
            server_command(models, *flags, probed=probed),
            env=server_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, name="server-log", daemon=True)
        self._reader.start()
        self.wait_line(lambda line: line.get("event") == "serving")
        ports = json.loads(ready.read_text())
        self.port, self.metrics_port = ports["port"], ports["metrics_port"]
        self.target = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._forgiven:
                self.stop()
        finally:
            self.kill()
            self._folder.cleanup()

    @property
    def pid(self) -> int:
        """The server's process."""
        return self.process.pid

    # Its life.

    def terminate(self) -> None:
        """Send SIGTERM, which drains."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for the end of the process and of its log; return the exit status."""
        status = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return status

    def stop(self) -> None:
        """Drain and hold the server to a clean end: exit status 0, no defect in its log."""
        if self.process.poll() is None:
            self.terminate()
        status = self.wait()
        self.check()
        assert status == 0, f"exit status {status}: {self.lines[-3:]}"

    def forgive(self) -> None:
        """Let the block end without holding the server to a clean end: the test has ended it otherwise."""
        self._forgiven = True

    def kill(self) -> None:
        """End the process at once; nothing is checked."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE_S)
        if self.process.stderr is not None:
            self.process.stderr.close()

    # Its log.

    def check(self) -> None:
        """Hold the log lines that came since the last check to be free of defects."""
        lines, self._seen = self.lines[self._seen :], len(self.lines)
        _hold_clean(lines)

    def take_lines(self) -> list[LogLine]:
        """Hand over the lines so far, which are free of defects; those that follow are counted afresh."""
        with self._changed:
            lines, self.lines[:] = list(self.lines), []
            unchecked, self._seen = lines[self._seen :], 0
        _hold_clean(unchecked)
        return lines

    def wait_line(self, matches: Callable[[LogLine], bool]) -> LogLine:
        """Wait for a log line that matches, and return the first."""
        deadline = time.monotonic() + PATIENCE_S
        looked = 0
        with self._changed:
            while True:
                for line in self.lines[looked:]:
                    if matches(line):
                        return line
                looked = len(self.lines)
                left = deadline - time.monotonic()
                assert not self._ended, f"the server has ended without that line: {self.lines[-5:]}"
                assert left > 0, f"no such line within {PATIENCE_S:g} s: {self.lines[-5:]}"
                self._changed.wait(left)

    def wait_closed(self, stream_id: int) -> LogLine:
        """Wait for the line that tells of a stream's end, with its ledger."""
        return self.wait_line(lambda line: line.get("event") == "stream_close" and line["stream_id"] == stream_id)

    def count(self, event: str) -> int:
        """How many lines of that event there are."""
        return sum(line.get("event") == event for line in list(self.lines))

    def wait_count(self, event: str, number: int) -> None:
        """Wait until there are that many lines of an event."""
        with self._changed:
            done = self._changed.wait_for(lambda: self.count(event) >= number or self._ended, PATIENCE_S)
        assert done, f"{self.count(event)} lines {event!r}, expected {number}"
        assert self.count(event) >= number, f"the server has ended: {self.lines[-3:]}"

    def _read(self) -> None:
        assert self.process.stderr is not None
        for raw in self.process.stderr:
            try:
                line = json.loads(raw)
            except ValueError:
                line = {"text": raw.decode(errors="replace").rstrip()}
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    # Its numbers.

    def metrics(self) -> dict[str, float]:
        """What /metrics says: "name{labels}" to value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=PATIENCE_S) as response:
            text = response.read().decode()
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def resources(self) -> Counter[str]:
        """What the process holds now: `threads`, `descriptors`, and `rss_kib` of memory."""
        status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        facts = dict(line.split(":", 1) for line in status if ":" in line)
        return Counter(
            threads=int(facts["Threads"]),
            descriptors=len(os.listdir(f"/proc/{self.pid}/fd")),
            rss_kib=int(facts["VmRSS"].split()[0]),
        )

    def memory(self) -> Counter[str]:
        """What a probed server has allocated now: `allocated_bytes` by malloc, and Python's `objects`."""
        number = self.count("memory") + 1
        self.process.send_signal(signal.SIGUSR1)
        self.wait_count("memory", number)
        line = [line for line in self.lines if line.get("event") == "memory"][-1]
        return Counter(allocated_bytes=line["allocated_bytes"], objects=line["objects"])


def _hold_clean(lines: list[LogLine]) -> None:
    defects = [line for line in lines if _is_defect(line)]
    assert not defects, json.dumps(defects, indent=1)


def _is_defect(line: LogLine) -> bool:
    return "text" in line or "exception" in line or line.get("level") in ("error", "critical")
