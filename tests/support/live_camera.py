"""Cameras of bare stubs that stream on their own, and what they must have been told of their model.

Used where something happens to the models while frames flow. Each keeps to its credit, as the client library does, and
is held to the contract at its end, together with the server's log line.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from headworks.v1 import frame_pb2 as pb
from support import laws
from support.raw_camera import RawCamera
from support.server import Server


class LiveCamera:
    """One camera; it streams from the beginning, and may be finished once.

    Arguments:
        server: where to.
        opening: its Open.
        frames: what it sends, in turn.
        encoding: of those.
        period_s: between two frames.
    """

    def __init__(
        self, server: Server, opening: pb.Open, frames: Sequence[bytes], encoding: int, *, period_s: float = 0.01
    ) -> None:
        self.camera = RawCamera(server.target, opening)
        self._server = server
        self._frames, self._encoding, self._period_s = frames, encoding, period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="live-camera", daemon=True)
        self._thread.start()

    def _feed(self) -> None:
        camera = self.camera
        assert camera.opened
        while not self._stop.wait(self._period_s):
            if camera.last_frame_id < camera.frames_allowed:
                camera.send_frame(self._frames[camera.last_frame_id % len(self._frames)], self._encoding)

    def changes(self) -> list[pb.Notice]:
        """What it was told of other models that serve it."""
        return [notice for notice in self.camera.all("notice") if notice.kind == pb.Notice.KIND_MODEL_CHANGED]

    def wait_generation(self, generation: int) -> None:
        """Wait until its newest result is of a generation."""

        def newest() -> bool:
            results = self.camera.all("result")
            return bool(results) and results[-1].outputs[0].generation == generation

        self.camera.wait(newest)

    def wait_results(self, more: int) -> None:
        """Wait for that many results from now on."""
        seen = len(self.camera.all("result"))
        self.camera.wait(lambda: len(self.camera.all("result")) >= seen + more)

    def stop(self) -> None:
        """Send nothing more; what was sent is answered."""
        self._stop.set()
        self._thread.join()

    def finish(self) -> pb.Closed:
        """End the stream, and hold it to the laws, its log line to its ledger, and its results to their notices."""
        self.stop()
        closed = self.camera.close()
        events = self.camera.history.events
        line = self._server.wait_closed(self.camera.opened.stream_id)
        assert list(laws.agreement(events, line)) == []
        assert generation_faults(self.camera) == []
        return closed


def generation_faults(camera: RawCamera) -> list[str]:
    """Rule 11: what breaks it. Each result is of the model that was told last for its frame, and by no other."""
    served = [(0, camera.opened.models[0])]
    faults = []
    for notice in camera.all("notice"):
        if notice.kind == pb.Notice.KIND_MODEL_CHANGED:
            served.append((notice.first_frame_id, notice.model_info))
            if notice.generation != notice.model_info.generation or notice.model != notice.model_info.name:
                faults.append(f"the notice says two things: {notice}")
    if [first for first, _ in served] != sorted(first for first, _ in served):
        faults.append(f"notices out of order: {served}")
    for result in camera.all("result"):
        model = [info for first, info in served if first <= result.frame_id][-1]
        if (got := _identity(result.outputs[0], "model")) != (told := _identity(model, "name")):
            faults.append(f"frame {result.frame_id}: told was {told}, got {got}")
    return faults


def _identity(said: Any, name: str) -> tuple[str, str, int]:
    return getattr(said, name), said.version, said.generation
