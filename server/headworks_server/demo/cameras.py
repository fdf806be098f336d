"""Real-time cameras made of one clip, and what each was told. `command` starts them, `table` and `summary` read them.

One thread paces all cameras, so that their rates are exact and cost little. Each camera starts at its own place in
the clip and at its own part of the frame period, as cameras on a network do.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter
from pathlib import Path

import headworks
from headworks_server.errors import ConfigError

KEPT_FRAMES = 1800
"""Frames of one camera whose results are kept for the video: a minute at 30 fps."""
Boxes = tuple[headworks.Detection, ...]
Classes = tuple[headworks.Classification, ...]


def load_clip(folder: Path) -> list[bytes]:
    """Return the JPEG files of a folder, in order of their names.

    Raises:
        ConfigError: there is no such folder, or no JPEG in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; run this in the clone of the repository, or give --clip FOLDER")
    frames = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    if not frames:
        raise ConfigError(f"{folder}: expected frames named *.jpg, found none")
    return frames


class Camera:
    """One camera: its frames, its stream, and everything the application was told about it.

    The counts are taken in the callbacks, not from the stream's own account, so that a message that went missing
    shows. Callbacks run on the stream's reader thread; others only read.
    """

    def __init__(self, number: int, clip: list[bytes], *, offset: int, keep_results: bool) -> None:
        self.name = f"camera {number + 1}"
        self._clip = clip
        self._offset = offset
        self._keep_results = keep_results
        self.stream: headworks.FrameStream | None = None
        self.failure: str | None = None
        self.offered = 0
        self.results = 0
        self.errors = 0
        # Boxes; of a classifier, frames that were told a class.
        self.detections = 0
        self.drops: Counter[str] = Counter()
        self.ages_ms = array("d")
        self.round_trips_ms = array("d")
        self.executed_ms = array("d")
        self.waited_ms = array("d")
        # A batch of b frames is seen b times, by whichever cameras: each sighting counts 1/b.
        self.batches: Counter[int] = Counter()
        self.boxes: dict[int, Boxes] = {}
        self.classes: dict[int, Classes] = {}

    def open(self, client: headworks.Client, model: str | None) -> None:
        """Open the stream; raises HeadworksError."""
        stream = client.stream(
            model, name=self.name, on_result=self._on_result, on_drop=self._on_drop, on_error=self._on_error
        )
        self.stream = stream.__enter__()

    def picture(self, frame_id: int) -> bytes:
        """The JPEG that was, or will be, sent as this frame."""
        return self._clip[(self._offset + frame_id - 1) % len(self._clip)]

    def send(self, capture_time_ns: int) -> None:
        """Offer the next frame; a stream that broke is noted once, and left alone from then on."""
        if self.stream is None or self.failure is not None:
            return
        try:
            self.stream.send(self.picture(self.offered + 1), capture_time_ns=capture_time_ns)
            self.offered += 1
        except headworks.HeadworksError as error:
            self.failure = str(error)

    def end(self) -> None:
        """Say that no frame follows."""
        if self.stream is not None:
            self.stream.end()

    def close(self) -> None:
        """Wait for Closed; a failure is noted."""
        if self.stream is None:
            return
        try:
            self.stream.close()
        except headworks.HeadworksError as error:
            self.failure = str(error)

    def _on_result(self, result: headworks.Result) -> None:
        self.results += 1
        self.detections += len(result.detections) or bool(result.classifications)
        self.ages_ms.append(result.age_s * 1e3)
        self.round_trips_ms.append(result.round_trip_s * 1e3)
        self.executed_ms.append(result.timings.executed_us / 1e3)
        self.waited_ms.append(result.timings.waited_us / 1e3)
        self.batches[result.batch_size] += 1
        if self._keep_results and result.frame_id <= KEPT_FRAMES:
            self.boxes[result.frame_id] = result.detections
            if result.classifications:
                self.classes[result.frame_id] = result.classifications

    def _on_drop(self, dropped: headworks.Dropped) -> None:
        for drop in dropped.counts:
            self.drops[drop.reason] += drop.count

    def _on_error(self, error: headworks.FrameError) -> None:  # noqa: ARG002 - only their number is shown
        self.errors += 1


def make_cameras(count: int, clip: list[bytes]) -> list[Camera]:
    """Return cameras spread evenly over the clip; the first one keeps its results for the video."""
    return [
        Camera(number, clip, offset=number * len(clip) // count, keep_results=number == 0) for number in range(count)
    ]


class Pacer:
    """The thread that sends every camera's frames when they are due."""

    def __init__(self, cameras: list[Camera], *, fps: float, seconds: float) -> None:
        self._cameras = cameras
        self._fps = fps
        self._frames = max(1, round(fps * seconds))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cameras", daemon=True)
        self.started_s = 0.0

    def start(self) -> None:
        """Start the clock."""
        self.started_s = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Stop before the time is up."""
        self._stop.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the last frame was offered, at most so long; True when it was."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        epoch_ns = time.time_ns() - time.monotonic_ns()
        for number in range(self._frames):
            for place, camera in enumerate(self._cameras):
                due_s = self.started_s + (number + place / len(self._cameras)) / self._fps
                if self._stop.wait(max(0.0, due_s - time.monotonic())):
                    return
                # The picture was taken when it was due: a late pacer must not make answers look young.
                camera.send(capture_time_ns=epoch_ns + int(due_s * 1e9))
