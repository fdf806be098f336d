"""Fairness among cameras, in virtual time: real sessions, real admission, an engine that is a number.

A discrete-event simulation: frames arrive, the pool admits, the lane launches whatever it holds, 3.33 ms a frame at
any batch size, and outcomes come back. Nothing sleeps, and a seed makes every run the same.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

from headworks_server.core.admission import AdmissionPool, Share
from headworks_server.core.events import Replace, ResultOutcome
from headworks_server.core.frame import Frame
from headworks_server.core.grant import Grant
from headworks_server.core.outcomes import DropReason
from headworks_server.core.session import StreamSession
from support.streams import MS, make_frame, open_session

S = 1_000 * MS
FRAME_NS = 3_333_333
CAPACITY = S / FRAME_NS  # 300 frames/s


class ManualClock:
    """Virtual time: the next event is now."""

    def __init__(self) -> None:
        self.now_ns = 1
        self._order = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []

    def at(self, time_ns: int, event: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (time_ns, self._order, event))

    def run_until(self, end_ns: int) -> None:
        while self._events and self._events[0][0] <= end_ns:
            self.now_ns, _, event = heapq.heappop(self._events)
            event()


class SleepingLane:
    """An engine that takes a fixed time for each frame and runs what has come, at most `max_batch` at once."""

    def __init__(self, clock: ManualClock, server: Server, *, target: int, decoders: int, max_batch: int) -> None:
        self.target = target
        self.decoders = decoders
        self._max_batch = max_batch
        self._clock = clock
        self._server = server
        self._decoded: list[Frame] = []
        self._running: list[Frame] = []

    def ahead(self) -> int:
        return len(self._decoded)

    def submit(self, frame: Frame) -> None:
        self._decoded.append(frame)
        if not self._running:
            # Frames admitted in the same pump go together.
            self._clock.at(self._clock.now_ns, self._launch)

    def _launch(self) -> None:
        if self._running or not self._decoded:
            return
        self._running, self._decoded = self._decoded[: self._max_batch], self._decoded[self._max_batch :]
        self._clock.at(self._clock.now_ns + FRAME_NS * len(self._running), self._finish)
        self._server.pump()

    def _finish(self) -> None:
        done, self._running = self._running, []
        self._launch()
        self._server.finish(done)


class Camera:
    """Sends at a fixed rate with a little jitter, whatever its credit."""

    def __init__(self, server: Server, session: StreamSession, share: Share, *, fps: float, phase: float) -> None:
        self.server, self.session, self.share = server, session, share
        self.period_ns = S / fps
        self.start_ns = round(phase * self.period_ns)
        self.sent = 0


class Server:
    """What the rpc room does between sessions, admission and lane."""

    def __init__(self, *, target: int, decoders: int, max_batch: int, seed: int) -> None:
        self.clock = ManualClock()
        self.random = random.Random(seed)
        self.lane = SleepingLane(self.clock, self, target=target, decoders=decoders, max_batch=max_batch)
        self.pool = AdmissionPool([self.lane])
        self.cameras: list[Camera] = []

    def add_camera(self, *, fps: float, weight: int = 1) -> Camera:
        session = open_session(Grant(weight=weight))
        camera = Camera(self, session, self.pool.join(session), fps=fps, phase=self.random.random())
        self.cameras.append(camera)
        self._schedule(camera)
        return camera

    def run(self, seconds: int) -> None:
        self.clock.run_until(seconds * S)

    def results(self) -> int:
        return sum(camera.session.ledger.results for camera in self.cameras)

    def _schedule(self, camera: Camera) -> None:
        jitter = self.random.uniform(-0.05, 0.05)
        at = camera.start_ns + round((camera.sent + 1 + jitter) * camera.period_ns)
        self.clock.at(at, lambda: self._arrive(camera))

    def _arrive(self, camera: Camera) -> None:
        now_ns = self.clock.now_ns
        camera.sent += 1
        frame = make_frame(camera.sent, received_ns=now_ns)
        frame.stream = camera
        assert not isinstance(camera.session.receive_frame(frame, now_ns), Replace) or camera.session.waiting is frame
        self.pool.offer(camera.share)
        self.pump()
        camera.session.poll(now_ns)
        self._schedule(camera)

    def pump(self) -> None:
        for frame in self.pool.pump(self.clock.now_ns):
            frame.stream.session.poll(self.clock.now_ns)

    def finish(self, frames: list[Frame]) -> None:
        now_ns = self.clock.now_ns
        for frame in frames:
            camera = frame.stream
            camera.session.complete(frame, ResultOutcome(b""), now_ns)
            camera.session.poll(now_ns)
            self.pool.offer(camera.share)
        self.pool.estimates[0].returned(len(frames))
        self.pump()


def lost(camera: Camera) -> int:
    return sum(camera.session.ledger.drops.values())


def test_one_greedy_camera_costs_the_slow_ones_nothing() -> None:
    """Rule 12: one camera at 1,000 fps beside nineteen at 10 fps, an engine of 300 frames/s: the slow ones together
    lose at most one frame in 1,000, and the engine is busy."""
    server = Server(target=1, decoders=4, max_batch=8, seed=3)
    greedy = server.add_camera(fps=1_000)
    slow = [server.add_camera(fps=10) for _ in range(19)]
    server.run(60)
    sent = sum(camera.sent for camera in slow)
    assert sent > 19 * 590
    assert sum(lost(camera) for camera in slow) <= sent / 1_000
    assert server.results() >= 0.95 * CAPACITY * 60
    assert greedy.session.ledger.drops_by_reason().keys() == {DropReason.REPLACED_BY_NEWER.name}


def test_equal_cameras_share_an_overloaded_engine_equally() -> None:
    """Rule 12: round robin, so nobody is served twice before everybody is served once."""
    server = Server(target=1, decoders=2, max_batch=4, seed=5)
    cameras = [server.add_camera(fps=30) for _ in range(20)]
    server.run(30)
    served = [camera.session.ledger.results for camera in cameras]
    assert max(served) - min(served) <= 0.02 * max(served)
    assert sum(served) >= 0.95 * CAPACITY * 30


def test_weights_divide_an_overloaded_engine() -> None:
    """Rule 12: integer weights; a camera of weight 3 is served three times as often while all have frames waiting."""
    server = Server(target=1, decoders=1, max_batch=2, seed=7)
    heavy = server.add_camera(fps=1_000, weight=3)
    # Enough others that two frames in flight can carry three shares of what the engine holds at a time.
    light = [server.add_camera(fps=1_000) for _ in range(11)]
    server.run(30)
    for camera in light:
        ratio = heavy.session.ledger.results / camera.session.ledger.results
        assert 2.7 <= ratio <= 3.3


def test_a_lone_camera_is_served_whole() -> None:
    """Below capacity nothing is dropped, however few streams there are."""
    server = Server(target=1, decoders=1, max_batch=8, seed=11)
    camera = server.add_camera(fps=150)
    server.run(20)
    assert lost(camera) == 0
    assert camera.session.ledger.results >= 20 * 150 - 3
