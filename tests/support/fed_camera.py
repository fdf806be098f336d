"""A camera of bare stubs that feeds itself: frames at a pace, from a thread of its own, until it is told to end.

Used by the fault tests, in their own process or, executed, as a process to be killed or stopped:
`fed_camera.py TARGET HISTORY NAME POLICY` records to a file, says "running" when it has results, ends at its next line
of input, and says its status.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from headworks.v1 import frame_pb2 as pb
from support import laws
from support.history import Event, History, read_history
from support.raw_camera import RawCamera, open_request
from support.server import Server

POLICIES = {
    "latest": pb.DropPolicy(latest={}),
    "bounded": pb.DropPolicy(bounded={"depth": 4}),
    "every_frame": pb.DropPolicy(every_frame={}),
}
PAYLOAD = bytes(range(250)) * 8


class FedCamera(RawCamera):
    """A raw camera with a frame every `1 / fps` seconds. Where it has no credit, it leaves the frame's number out.

    Arguments:
        target: "host:port".
        name: of the stream.
        policy: "latest", "bounded", "every_frame".
        fps: frames a second.
        polite: whether it keeps to its credit.
        options: of `RawCamera`.
    """

    def __init__(
        self,
        target: str,
        name: str,
        *,
        policy: str = "latest",
        fps: float = 100.0,
        polite: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(target, open_request(stream_name=name, drop_policy=POLICIES[policy]), **options)
        self.name = name
        self._sent = 0
        self._period_s = 1 / fps
        self._polite = polite
        self._fed_up = threading.Event()
        self._feeder = threading.Thread(target=self._feed, name="feeder", daemon=True)
        self._feeder.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.rest()
        super().__exit__(kind, value, traceback)

    def rest(self) -> None:
        """Make no frames any more."""
        self._fed_up.set()
        self._feeder.join()

    def end(self) -> None:
        """Say that no frame follows, and make none."""
        self.rest()
        super().end()

    def wait_results(self, number: int) -> None:
        """Wait for that many results in all."""
        self.wait_event("result", number)

    def _feed(self) -> None:
        number = 0
        while not self._fed_up.wait(self._period_s) and not self._ended:
            number += 1
            if not self._polite or self._sent < self.frames_allowed:
                self._sent += 1
                self.send_frame(PAYLOAD, frame_id=number)


class CameraProcess:
    """A fed camera in a process of its own. Made by `camera_process`.

    Attributes:
        process: of the camera.
    """

    def __init__(self, process: subprocess.Popen[str], path: Path) -> None:
        self.process = process
        self._path = path

    @property
    def history(self) -> list[Event]:
        """What it has recorded so far."""
        return read_history(self._path)

    def wait_running(self) -> None:
        """Wait until it has had results."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "running\n"

    def end(self) -> str:
        """Let it end its stream; returns its status."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("end\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextmanager
def camera_process(target: str, folder: Path, name: str, *, policy: str = "latest") -> Iterator[CameraProcess]:
    """A camera until the end of the block, which kills it, if nothing has before."""
    path = folder / f"{name}.jsonl"
    path.touch()
    command = [sys.executable, __file__, target, str(path), name, policy]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield CameraProcess(process, path)
        finally:
            process.kill()


@contextmanager
def all_of(cameras: Sequence[RawCamera]) -> Iterator[None]:
    """Leave every one of the cameras at the end of the block."""
    with ExitStack() as stack:
        for camera in cameras:
            stack.enter_context(camera)
        yield


def hold_to_law(history: Sequence[Event], server: Server) -> dict[str, Any]:
    """Hold a stream that is over to every law, by its camera's record and its server's; returns the server's line."""
    assert laws.stream(history) == []
    stream_id = laws.stream_id(history)
    assert stream_id is not None, history
    line = server.wait_closed(stream_id)
    assert list(laws.agreement(history, line)) == []
    return line


def main(target: str, path: str, name: str, policy: str) -> None:
    """Be a camera."""
    with FedCamera(target, name, policy=policy, history=History(Path(path))) as camera:
        camera.wait_results(5)
        print("running", flush=True)
        sys.stdin.readline()
        camera.end()
        print(camera.status()[0].name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
