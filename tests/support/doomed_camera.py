"""A camera to be killed: a process of its own that goes to a state, says so, and waits for its end.

Used by the fault tests, as a program: `doomed_camera.py TARGET STATE FRAMES`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.raw_camera import RawCamera, open_request

STATES = ("connected", "open", "frames", "ended")


@contextmanager
def doomed_camera(target: str, state: str, *, frames: int) -> Iterator[subprocess.Popen[str]]:
    """A camera in that state; it is killed by SIGKILL at the end of the block, if not before."""
    command = [sys.executable, __file__, target, state, str(frames)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{state}\n"
            yield process
        finally:
            process.kill()


def go_through(camera: RawCamera, frames: int) -> Iterator[str]:
    """Take a camera from state to state; each is named when the camera is in it."""
    yield "connected"
    camera.send(open=open_request(stream_name="doomed", max_in_flight=2))
    assert camera.opened
    yield "open"
    for number in range(frames):
        camera.send_frame(b"frame %d" % number)
    yield "frames"
    camera.end()
    yield "ended"


def main(target: str, last_state: str, frames: int) -> None:
    """Go to the state, and stay there."""
    with RawCamera(target) as camera:
        for state in go_through(camera, frames):
            if state == last_state:
                print(state, flush=True)
                sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
