"""The demo's own server: a child process, its address, its CPU time, and its end."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from headworks_server.errors import ConfigError, ServerError

HOST = "127.0.0.1"
SERVE = [sys.executable, "-m", "headworks", "serve"]
READY_TIMEOUT_S = 120.0
"""Loading and measuring a model takes seconds on a slow machine, not minutes."""
STOP_TIMEOUT_S = 15.0


def check_port(port: int) -> None:
    """Raise ConfigError where another process listens on the port; 0 stands for any free one."""
    with socket.socket() as probe:
        # As servers do: a port that is only in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConfigError(f"port {port} of {HOST}: {error.strerror}") from error
            raise ConfigError(
                f"port {port} of {HOST} is taken by another process; choose another with --port"
            ) from error


class ServerProcess:
    """A server in a process of its own, started on entering and stopped on leaving.

    Its log goes to a file; where it fails to start, the end of that file is the message.
    """

    def __init__(self, model_dir: Path, *, port: int, log_path: Path) -> None:
        self._model_dir = model_dir
        self._port = port
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self.target = ""

    def __enter__(self) -> ServerProcess:
        """Start the server and wait until it serves.

        Raises:
            ServerError: it ended, or was not ready in time.
        """
        with tempfile.TemporaryDirectory(prefix="headworks-") as folder, self._log_path.open("wb") as log:
            ready_file = Path(folder) / "ready.json"
            command = [*SERVE, str(self._model_dir), "--port", str(self._port), "--metrics-port", "0"]
            command += ["--ready-file", str(ready_file)]
            # A session of its own: Ctrl-C is for the demo, which then stops the server in its turn.
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                self._wait_until_ready(ready_file)
            except BaseException:
                self._stop()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the server."""
        self._stop()

    def cpu_s(self) -> float | None:
        """CPU seconds the server has used so far; None on systems without /proc."""
        if self._process is None:
            return None
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return None
        # The name in parentheses may hold spaces; utime and stime are the 12th and 13th fields after it.
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _wait_until_ready(self, ready_file: Path) -> None:
        assert self._process is not None
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not ready_file.exists():
            if self._process.poll() is not None:
                raise ServerError(f"the server ended with code {self._process.returncode}: {self._last_words()}")
            if time.monotonic() > deadline_s:
                raise ServerError(f"the server was not ready in {READY_TIMEOUT_S:g} s: {self._last_words()}")
            time.sleep(0.02)
        self.target = f"{HOST}:{json.loads(ready_file.read_text())['port']}"

    def _last_words(self) -> str:
        lines = self._log_path.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it said nothing (see {self._log_path})"

    def _stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
