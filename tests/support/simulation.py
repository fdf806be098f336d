"""Cameras, admission and a lane in virtual time: real sessions, real admission, an engine that is a number.

A discrete-event simulation: frames arrive, the pool admits, the lane launches whatever it holds of one model, a fixed
time for each frame, and outcomes come back. Nothing sleeps, and a seed makes every run the same.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

from headworks_server.core.admission import AdmissionPool
from headworks_server.core.events import Replace, ResultOutcome
from headworks_server.core.frame import Frame
from headworks_server.core.grant import Grant
from headworks_server.core.roundrobin import ModelQueue, Share
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


class SimulatedLane:
    """An engine that takes a fixed time for each frame of a model, and runs what has come of one model at once."""

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
        size, first = 0, self._decoded[0].stream.share.queue
        while size < min(self._max_batch, len(self._decoded)) and self._decoded[size].stream.share.queue is first:
            size += 1
        self._running, self._decoded = self._decoded[:size], self._decoded[size:]
        self._clock.at(self._clock.now_ns + self._server.costs[first] * size, self._finish)
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
        self.lane = SimulatedLane(self.clock, self, target=target, decoders=decoders, max_batch=max_batch)
        self.pool = AdmissionPool([self.lane])
        self.costs: dict[ModelQueue, int] = {}
        self.cameras: list[Camera] = []

    def add_model(self, frame_ns: int = FRAME_NS) -> ModelQueue:
        """A model whose frames cost so much; what admission believes of it at first is wrong."""
        queue = self.pool.add_model(frame_ns=1 * MS)
        self.costs[queue] = frame_ns
        return queue

    def add_camera(self, *, fps: float, weight: int = 1, queue: ModelQueue | None = None) -> Camera:
        """A camera of that model, or of the only one."""
        session = open_session(Grant(weight=weight))
        queue = queue or (self.pool.queues or [self.add_model()])[0]
        camera = Camera(self, session, queue.join(session), fps=fps, phase=self.random.random())
        self.cameras.append(camera)
        self._schedule(camera)
        return camera

    def lane_time_of(self, cameras: list[Camera]) -> int:
        """Lane time that these cameras' results took, in ns."""
        return sum(camera.session.ledger.results * self.costs[camera.share.queue] for camera in cameras)

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
        queue = frames[0].stream.share.queue
        queue.times.add(decode_ns=0, batch_ns=self.costs[queue] * len(frames), size=len(frames))
        self.pump()
