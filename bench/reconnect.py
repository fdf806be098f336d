"""How soon a camera has results again after its server was killed and started anew; beside it, a client that is new.

Each round kills the server under a camera of the client library, starts another on the same port, and measures from the
moment it listens to the first result. The baseline is a new client of the same server: connection, Open, first frame.
What lies between is the camera's wait between two attempts, which grows with the time that the server is away: so the
aim is that half of the restarts cost at most as long again.
"""

from __future__ import annotations

import socket
import statistics
import sys
import threading
import time
from types import TracebackType

from bench._measure import HOST, Line, ServerProcess, print_lines, say, spread
from headworks import Client, Result

RESTARTS = 10
PERIOD_S = 1 / 30
PAYLOAD = bytes(2000)
GIVE_UP_S = 60.0


class Camera:
    """A camera of 30 frames a second on a connection of its own, until it is left."""

    def __init__(self, target: str) -> None:
        self._client = Client(target)
        self._stream = self._client.stream(
            on_result=self._hear, on_drop=_nothing, on_lost=_nothing, on_connection=_nothing
        )
        self._heard = threading.Condition()
        self._last_s = 0.0
        self._over = threading.Event()
        self._feeder = threading.Thread(target=self._feed, daemon=True)

    def __enter__(self) -> Camera:
        self._stream.__enter__()
        self._feeder.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._feeder.join()
        self._client.close()

    def wait_result(self, after_s: float) -> float:
        """Wait for the first result after a moment, and return when it came.

        Raises:
            TimeoutError: there was none.
        """
        with self._heard:
            if not self._heard.wait_for(lambda: self._last_s > after_s, GIVE_UP_S):
                raise TimeoutError(f"no result within {GIVE_UP_S:g} s")
            return self._last_s

    def _hear(self, _result: Result) -> None:
        with self._heard:
            self._last_s = time.monotonic()
            self._heard.notify_all()

    def _feed(self) -> None:
        while not self._over.is_set():
            self._stream.send(PAYLOAD)
            self._over.wait(PERIOD_S)


def _nothing(_event: object) -> None:
    """Bear it in silence."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def server_at(port: int) -> ServerProcess:
    """Our server without an engine, on that port."""
    serve = [sys.executable, "-m", "headworks", "serve", "--backend", "null"]
    return ServerProcess([*serve, "--port", str(port), "--metrics-port", "-1", "--log-level", "warning"])


def wait_listening(port: int) -> float:
    """Wait until somebody listens there, and return when that was, to a millisecond."""
    while True:
        try:
            socket.create_connection((HOST, port)).close()
        except ConnectionRefusedError:
            time.sleep(0.001)
        else:
            return time.monotonic()


def restart(camera: Camera, old: ServerProcess, port: int) -> tuple[ServerProcess, float, float]:
    """Kill a server and start the next; returns it, for how long there was none, and how long a result took then."""
    killed_s = time.monotonic()
    old.kill()
    server = server_at(port)
    starting = threading.Thread(target=server.__enter__)
    starting.start()
    listening_s = wait_listening(port)
    result_s = camera.wait_result(listening_s)
    starting.join()
    return server, listening_s - killed_s, result_s - listening_s


def first_result(port: int) -> float:
    """How long a new client takes to its first result."""
    begin_s = time.monotonic()
    with Camera(f"{HOST}:{port}") as camera:
        return camera.wait_result(begin_s) - begin_s


def run(*, quick: bool = False) -> Line:
    """Restarts, one after the other, under one camera."""
    port = free_port()
    server = server_at(port).__enter__()
    ours, fresh, away = [], [], []
    try:
        with Camera(f"{HOST}:{port}") as camera:
            camera.wait_result(0.0)
            for number in range(3 if quick else RESTARTS):
                server, away_s, again_s = restart(camera, server, port)
                away.append(away_s)
                ours.append(again_s)
                fresh.append(first_result(port))
                say(f"reconnect: restart {number + 1}: {away_s:.2f} s away, {again_s:.3f} s and {fresh[-1]:.3f} s")
    finally:
        server.stop()
    shares = [again_s / away_s for again_s, away_s in zip(ours, away, strict=True)]
    return {
        "benchmark": "reconnect",
        "ours": round(statistics.median(ours), 3),
        "baseline": round(statistics.median(fresh), 3),
        "unit": "s to the first result",
        "ratio": round(statistics.median(ours) / statistics.median(fresh), 1),
        "spread": round(spread(ours), 2),
        "aim": "share_of_away at most 1",
        "met": statistics.median(shares) <= 1.0,
        "away_s": round(statistics.median(away), 2),
        "slowest_s": round(max(ours), 3),
        "share_of_away": round(statistics.median(shares), 2),
        "largest_share": round(max(shares), 2),
    }


if __name__ == "__main__":
    print_lines(run)
