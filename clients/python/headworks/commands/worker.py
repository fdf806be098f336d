"""One camera of `headworks stream`: reads its source at its pace, sends, and begins again when the source dies.

Each worker has a thread of its own, which a slow or dead source holds up without harm to the others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Protocol

import headworks
from headworks.commands.cameras import CameraSpec, parse_policy
from headworks.commands.record import Recorder
from headworks.sources import Picture, Source, SourceError

FIRST_WAIT_S = 0.5
MAX_WAIT_S = 30.0


class Show(Protocol):
    """Whoever shows what happens; called from several threads."""

    def opened(self, camera: CameraWorker) -> None:
        """Its stream has been opened."""
        ...

    def outcome(self, camera: CameraWorker, outcome: headworks.Outcome) -> None:
        """A frame, or a run of frames, has its outcome."""
        ...

    def trouble(self, camera: CameraWorker, what: str) -> None:
        """Something went wrong, or right again."""
        ...


class CameraWorker:
    """One camera.

    Attributes:
        spec: what was asked for.
        title: what it is called.
        stream: its stream, once opened.
        failure: why it ended, where it did not end well.
        offered: frames read and offered so far.
        recorder: where its frames are saved, if anywhere.

    Raises:
        ValueError: what was asked for makes no sense together.
    """

    def __init__(
        self,
        spec: CameraSpec,
        source: Source,
        client: headworks.Client,
        show: Show,
        *,
        loop: bool,
        wait_s: float,
        stop: threading.Event,
    ) -> None:
        self.spec = spec
        self.title = spec.title
        self.stream: headworks.FrameStream | None = None
        self.failure: Exception | None = None
        self.offered = 0
        self.recorder: Recorder | None = None
        self._source = source
        self._client = client
        self._show = show
        self._loop = loop
        self._stop = stop
        self._policy = parse_policy(spec.policy)
        self._opening = client.stream(
            spec.model or None,
            name=self.title,
            policy=self._policy.kind,
            depth=self._policy.depth,
            drop=self._policy.drop,
            deadline_ms=spec.deadline_ms,
            weight=spec.weight,
            max_fps=spec.max_fps,
            score_threshold=spec.score,
            open_retry_s=wait_s,
            on_result=self._outcome,
            on_drop=self._outcome,
            on_error=self._outcome,
            on_lost=self._outcome,
            on_notice=self._noticed,
            on_connection=self._connection_changed,
        )
        self._thread = threading.Thread(target=self._run, name=f"camera {self.title}", daemon=True)

    def start(self) -> None:
        """Begin, in a thread."""
        self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for its end; whether it has come."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with self._opening as stream:
                self.stream = stream
                self._show.opened(self)
                self._send_all(stream)
        except Exception as error:  # whatever it is must end this camera only, and be told
            self.failure = error
            self._show.trouble(self, str(error))

    def _outcome(self, outcome: headworks.Outcome) -> None:
        self._show.outcome(self, outcome)
        if self.recorder is not None:
            self.recorder.outcome(outcome)

    def _connection_changed(self, event: headworks.ConnectionEvent) -> None:
        if not (isinstance(event, headworks.ConnectionOpened) and event.number == 1):
            self._show.trouble(self, str(event))

    def _noticed(self, notice: headworks.Notice) -> None:
        self._show.trouble(self, str(notice))

    def _send_all(self, stream: headworks.FrameStream) -> None:
        """Send the source once, or again and again; a live source that dies is tried again, ever more seldom."""
        wait_s = FIRST_WAIT_S
        while not self._stop.is_set():
            before = self.offered
            try:
                for picture in self._paced():
                    self.offered += 1
                    if self.recorder is not None:
                        self.recorder.sending(self.offered, picture)
                    stream.send(picture.data, encoding=picture.encoding, frame_id=self.offered)
            except SourceError as error:
                if not self._source.live:
                    raise
                if self.offered > before:
                    wait_s = FIRST_WAIT_S
                self._show.trouble(self, f"{error}; trying again in {wait_s:g} s")
                self._stop.wait(wait_s)
                wait_s = min(2 * wait_s, MAX_WAIT_S)
            else:
                if not self._loop or self.offered == before:
                    return

    def _paced(self) -> Iterator[Picture]:
        """The source's frames, each when it is due; those of a live source that come too soon are left out."""
        source, fps = self._source, self.spec.fps
        start, taken = time.monotonic(), 0
        frames = source.frames()
        try:
            for picture in frames:
                if self._stop.is_set():
                    return
                # Where nothing may be dropped, a file goes as fast as its frames are answered.
                rate = fps or (0.0 if source.live or self._policy.kind == "every_frame" else source.fps)
                if rate:
                    ahead_s = start + taken / rate - time.monotonic()
                    if source.live and ahead_s > 0:
                        continue
                    if source.live and ahead_s < -1 / rate:  # the camera is slower than asked for: nothing to catch up
                        start, taken = time.monotonic(), 0
                    elif self._stop.wait(max(0.0, ahead_s)):
                        return
                taken += 1
                yield picture
        finally:
            close = getattr(frames, "close", None)
            if close is not None:
                close()
