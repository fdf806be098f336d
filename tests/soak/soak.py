"""`make soak MINUTES=n`: hundreds of cameras come and go before one server, and nothing may be left of them.

Used by `make soak`, as a program (`soak.py MINUTES`), and in short by test_soak.py. The load comes in tides: a flood of
visits (support/fleet.py), then an ebb in which only residents are left and the server's holdings are looked at, so that
what grows from ebb to ebb is a leak and nothing else. Some residents are cameras of the client library, whose
connections are cut all the time. Every ledger must be exact, and every law hold.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import laws
from support.fleet import RESIDENTS, FleetProcess, start_fleet
from support.library_camera import LibraryCamera
from support.proxy import Proxy
from support.server import PATIENCE_S, LogLine, Server
from support.slopes import median_slope
from support.stand_ins import QUICK

IDLE_S = 3
LIBRARY = {"latest": 3, "bounded": 1, "every_frame": 1}  # cameras of the client library, by policy
CUT_EVERY_S = 1.5
# A tide is a flood and an ebb, which lasts as long as the longest visit: the server's idle timeout.
FLOOD_S = 10.0 - IDLE_S
WARM_UP = 2  # tides in which allocators and pools reach their size

# What may be left of each stream, and what the whole may waver by. Measured on two busy cores: over 19,000 streams 27
# bytes a stream by malloc, over 6,000 with more cancellations 42, which is what gRPC itself keeps of a cancelled call;
# no object, thread or descriptor; from ebb to ebb 0.3 MB by malloc and 3 MB resident, up and down.
BOUNDS = {
    "allocated_bytes": (90.0, 1.0e6),
    "objects": (0.05, 1_000.0),
    "rss_kib": (0.5, 12_000.0),
    "threads": (0.0, 2.0),
    "descriptors": (0.0, 4.0),
}


@dataclass
class Books:
    """The server's lines so far: who is in, and whether each ledger is exact.

    Attributes:
        streams: opened so far.
        inside: those open now, by number.
        received: frames of the closed ones.
        closed: their lines since the last look at the samples.
        violations: what broke a law.
    """

    streams: int = 0
    inside: set[int] = field(default_factory=set)
    received: int = 0
    closed: dict[int, LogLine] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def take(self, lines: list[LogLine]) -> None:
        """Enter the server's new lines."""
        for line in lines:
            if line.get("event") == "stream_open":
                self.streams += 1
                self.inside.add(line["stream_id"])
            elif line.get("event") == "stream_close":
                self.violations += [f"stream {line['stream_id']}: {sentence}" for sentence in laws.ledger(line)]
                if line["stream_id"] not in self.inside:
                    self.violations.append(f"stream {line['stream_id']} closed, but it was not open")
                self.inside.discard(line["stream_id"])
                self.received += line["received"]
                self.reasons[line["reason"]] += 1
                self.closed[line["stream_id"]] = line

    def hold_samples(self, folder: Path) -> int:
        """Hold the histories that the fleet has left against the lines of their streams; returns how many."""
        samples = list(folder.glob("*.json"))
        for path in samples:
            line = self.closed[int(path.stem)]
            self.violations += laws.agreement(json.loads(path.read_text()), line)
            path.unlink()
        self.closed.clear()
        return len(samples)


class Soak:
    """One run.

    Arguments:
        cameras: of the fleet; residents come on top.
        flood_s: seconds of visits a tide.
        seed: of everything random.
        say: takes a line of progress for each tide.

    Attributes:
        held: what the server held at each ebb, with `streams` so far.
        tally: visits and frames by what they were.
    """

    def __init__(self, *, cameras: int, flood_s: float, seed: int, say: Callable[[str], None]) -> None:
        self.cameras = cameras
        self.held: list[Counter[str]] = []
        self.tally: Counter[str] = Counter()
        self.sampled = 0
        self.books = Books()
        self._flood_s = flood_s
        self._seed = seed
        self._random = random.Random(seed)
        self._say = say

    def run(self, seconds: float) -> list[str]:
        """Run for that long; returns what was wrong, a sentence each."""
        begin_s = time.monotonic()
        with ExitStack() as stack:
            server = stack.enter_context(Server(probed=True, idle_timeout_seconds=IDLE_S, **QUICK))
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headworks-soak-")))
            proxy = stack.enter_context(Proxy(server.target, seed=self._seed))
            fleet = stack.enter_context(start_fleet(server.target, self.cameras, folder, seed=self._seed))
            library = [
                stack.enter_context(LibraryCamera(proxy.target, f"library {policy} {number}", policy=policy, fps=10))
                for policy, cameras in LIBRARY.items()
                for number in range(cameras)
            ]
            while time.monotonic() - begin_s < seconds or len(self.held) < WARM_UP + 2:
                peak = self._flood(server, fleet, proxy)
                self._ebb(server, folder, RESIDENTS + len(library))
                self._report(time.monotonic() - begin_s, seconds, peak)
            self._leave(server, fleet, folder, library)
        return self.books.violations + list(self.leaks())

    def leaks(self) -> Iterator[str]:
        """What grew from ebb to ebb, beyond what may."""
        for what, (a_stream, at_most) in BOUNDS.items():
            slope, streams = self.growth(what)
            if slope * streams > a_stream * streams + at_most:
                yield f"{what}: {slope * streams:,.0f} more after {streams:,} streams, {slope:.3g} for each"

    def growth(self, what: str) -> tuple[float, int]:
        """Growth for each stream since the warm-up, and how many there were."""
        warm = self.held[WARM_UP:]
        slope = median_slope([(held["streams"], held[what]) for held in warm])
        return slope, warm[-1]["streams"] - warm[0]["streams"]

    def _flood(self, server: Server, fleet: FleetProcess, proxy: Proxy) -> Counter[str]:
        """Visits, and cuts for the library's cameras; returns what the server holds towards the end of it."""
        fleet.start_flood(self._flood_s)
        until_s = time.monotonic() + self._flood_s
        while (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, self._random.uniform(0.5, 1.5) * CUT_EVERY_S))
            if left_s > CUT_EVERY_S:
                proxy.cut(reset=self._random.random() < 0.5)
        peak = server.resources()
        self._note(fleet.wait())
        return peak

    def _ebb(self, server: Server, folder: Path, residents: int) -> None:
        """Wait until only residents are left, and look at what the server holds."""
        give_up_s = time.monotonic() + PATIENCE_S
        self.books.take(server.take_lines())
        while len(self.books.inside) != residents:
            assert time.monotonic() < give_up_s, f"{len(self.books.inside)} streams at ebb, expected {residents}"
            time.sleep(0.02)
            self.books.take(server.take_lines())
        self.sampled += self.books.hold_samples(folder)
        self.held.append(server.memory() + server.resources() + Counter(streams=self.books.streams))

    def _leave(self, server: Server, fleet: FleetProcess, folder: Path, library: list[LibraryCamera]) -> None:
        """Let the residents end, and hold the whole to account."""
        for camera in library:
            account, history = camera.finish(), camera.history.events
            self.books.violations += [*laws.library(history, account), *laws.all_accounted(account)]
            self.tally["cut"] += len(laws.connections(history)) - 1
            self.tally["lost"] += account.lost
        fleet.start_flood(0)
        self._note(fleet.wait())
        self._ebb(server, folder, 0)
        self.held.pop()  # of another kind than those with residents
        metrics = server.metrics()
        counted = laws.total(metrics, "headworks_frames_received_total")
        if counted != self.books.received:
            self.books.violations.append(f"the lines tell of {self.books.received} frames, the counter of {counted:g}")
        for name in ("headworks_streams_active", "headworks_waiting_bytes"):
            if laws.total(metrics, name):
                self.books.violations.append(f"{name} is {laws.total(metrics, name):g} with no stream left")

    def _note(self, came: dict[str, Any]) -> None:
        self.tally.update(came["tally"])
        self.books.violations += came["violations"]

    def _report(self, passed_s: float, seconds: float, peak: Counter[str]) -> None:
        held = self.held[-1]
        self._say(
            f"{_clock(passed_s)} of {_clock(seconds)}: {self.books.streams:,} streams, {self.sampled:,} compared, "
            f"{self.tally['frames']:,} frames; at ebb {held['allocated_bytes'] / 1e6:.2f} MB allocated, "
            f"{held['rss_kib'] / 1024:.1f} MB resident, {held['threads']} threads, {held['descriptors']} descriptors; "
            f"at flood {peak['rss_kib'] / 1024:.1f} MB, {peak['threads']}, {peak['descriptors']}; "
            f"{len(self.books.violations)} violations"
        )

    def summary(self) -> Iterator[str]:
        """What it came to, a line each."""
        visits = {what: count for what, count in sorted(self.tally.items()) if what not in ("frames", "lost")}
        yield f"{self.books.streams:,} streams ({', '.join(f'{what} {count:,}' for what, count in visits.items())})"
        yield f"ended as {dict(self.books.reasons)}"
        yield f"{self.books.received:,} frames in the server's ledgers, each exact; {self.sampled:,} streams compared"
        for what, (a_stream, at_most) in BOUNDS.items():
            slope, streams = self.growth(what)
            yield f"{what}: {slope:+.3g} a stream, {slope * streams:+,.0f} in all (may {a_stream:g} and {at_most:,.0f})"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(prog="make soak", description="A server under cameras that come and go.")
    parser.add_argument("minutes", type=float, nargs="?", default=5.0)
    parser.add_argument("--cameras", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    logging.getLogger("headworks").setLevel(logging.ERROR)  # its streams are cut all the time, and say so
    say = lambda line: print(f"soak {line}", flush=True)  # noqa: E731
    say(f"with seed {options.seed}, {options.cameras} cameras")
    soak = Soak(cameras=options.cameras, flood_s=FLOOD_S, seed=options.seed, say=say)
    wrong = soak.run(options.minutes * 60)
    for line in (*soak.summary(), *(f"WRONG: {sentence}" for sentence in wrong[:50])):
        say(line)
    say("found nothing wrong" if not wrong else f"found {len(wrong)} things wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
