"""Processes that stand still for ten seconds: less than the server's patience of 15 s, more than a client's of 6 s.

All cases stand still at the same time, once; each test then looks at its own cameras.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

import headworks
from support import laws
from support.fed_camera import CameraProcess, FedCamera, camera_process, hold_to_law
from support.history import Event
from support.library_camera import LibraryCamera, hold_to_account, wait_lines
from support.server import Server
from support.stand_ins import QUICK

STILL_S = 10.0
IMPATIENCE_S = 3.0
POLICIES = ("latest", "bounded", "every_frame")


@dataclass(kw_only=True)
class After:
    """What is there when everything goes on again.

    Attributes:
        stopped: the server that stood still; its cameras did not.
        patient: a server whose cameras stood still, except for one.
        impatient: the same, with an idle time of IMPATIENCE_S.
        raw: cameras of bare stubs at the stopped server, by policy, and how many results each had.
        library: a camera of the client library at the stopped server, which does not reconnect.
        patient_library: others, which do, by policy.
        still: the camera that stood still, at the patient and at the impatient server, by the server's name.
        awake: the other camera of the patient server, and its results before and after.
    """

    stopped: Server
    patient: Server
    impatient: Server
    raw: list[FedCamera]
    results: list[int] = field(default_factory=list)
    library: LibraryCamera
    patient_library: list[LibraryCamera]
    still: dict[str, CameraProcess]
    awake: FedCamera
    awake_results: tuple[int, int] = (0, 0)


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Iterator[After]:
    """Start everything, stop what is to stop, and let it go on after ten seconds."""
    folder = tmp_path_factory.mktemp("histories")
    with ExitStack() as stack:
        settings = (QUICK, QUICK, QUICK | {"idle_timeout_seconds": IMPATIENCE_S})
        with ThreadPoolExecutor() as pool:
            started = list(pool.map(lambda one: Server(**one), settings))
        stopped, patient, impatient = (stack.enter_context(server) for server in started)
        everything = After(
            stopped=stopped,
            patient=patient,
            impatient=impatient,
            raw=[stack.enter_context(FedCamera(stopped.target, policy, policy=policy)) for policy in POLICIES],
            library=stack.enter_context(LibraryCamera(stopped.target, "library", reconnect=False)),
            patient_library=[
                stack.enter_context(LibraryCamera(stopped.target, f"library {policy}", policy=policy))
                for policy in POLICIES
            ],
            still={
                name: stack.enter_context(camera_process(server.target, folder, name))
                for name, server in (("patient", patient), ("impatient", impatient))
            },
            awake=stack.enter_context(FedCamera(patient.target, "awake")),
        )
        for fed in (*everything.raw, everything.awake):
            fed.wait_results(5)
        for process in everything.still.values():
            process.wait_running()
        for camera in (everything.library, *everything.patient_library):
            camera.wait_results(5)
        stand_still(everything)
        yield everything
        for server in (stopped, patient, impatient):
            server.wait_count("stream_close", server.count("stream_open"))
            assert list(laws.whole_server(server.lines, server.metrics())) == []


def stand_still(after: After) -> None:
    """Stop one server and the cameras of the others for ten seconds."""
    processes = [after.stopped.process, *(camera.process for camera in after.still.values())]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    before = len(after.awake.all("result"))
    time.sleep(STILL_S)  # the rule that is tested is one of time
    after.awake_results = before, len(after.awake.all("result"))
    after.results = [len(camera.all("result")) for camera in after.raw]
    for process in processes:
        process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("index", range(len(POLICIES)), ids=POLICIES)
def test_a_server_that_stood_still_goes_on(after: After, index: int) -> None:
    """Cameras of bare stubs have no patience to lose: their streams go on, and end as if nothing had been."""
    camera = after.raw[index]
    camera.wait_results(after.results[index] + 5)
    camera.close()
    assert hold_to_law(camera.history.events, after.stopped)["reason"] == "END"


def test_the_library_gives_up_a_server_that_stands_still(after: After) -> None:
    """Rule 16: silent for 6 s is dead for the client; what it was told stands, and the rest is lost."""
    with pytest.raises(headworks.StreamBrokenError, match="nothing heard"):
        after.library.finish()
    account = after.library.stream.account
    assert laws.library(after.library.history.events, account, reconnects=False) == []
    assert account.lost == account.sent - account.told
    line = after.stopped.wait_line(lambda line: line.get("event") == "stream_close" and line["stream"] == "library")
    assert line["reason"] == "CANCELLED"
    assert account.told <= line["received"] <= account.sent


@pytest.mark.parametrize("index", range(len(POLICIES)), ids=POLICIES)
def test_the_library_comes_back_to_a_server_that_stood_still(after: After, index: int) -> None:
    """Rule 8: it goes on trying, and when the server answers again, the stream goes on; EVERY_FRAME loses nothing."""
    camera = after.patient_library[index]
    camera.wait_connections(2)
    camera.wait_results(camera.stream.account.results + 5)
    camera.finish()
    hold_to_account(camera, wait_lines(camera, after.stopped))


def test_a_camera_that_stood_still_goes_on(after: After) -> None:
    """Ten seconds are within the server's patience: the stream goes on, and no frame is without an outcome."""
    camera = after.still["patient"]
    assert camera.end() == "OK"
    line = hold_to_law(camera.history, after.patient)
    assert (line["reason"], line["received"]) == ("END", laws.sent_count(camera.history))


def test_a_camera_that_stood_still_too_long_hears_of_its_end(after: After) -> None:
    """Rule 16: the server gave it up meanwhile, and what it said then is still there to be read."""
    camera = after.still["impatient"]
    assert camera.end() == "DEADLINE_EXCEEDED"
    history: list[Event] = camera.history
    line = hold_to_law(history, after.impatient)
    assert line["reason"] == "IDLE_TIMEOUT"
    assert IMPATIENCE_S < line["seconds"] < STILL_S
    assert any(event.get("heard") == "closed" for event in history)


def test_the_others_go_on_meanwhile(after: After) -> None:
    """A camera that stands still costs the others nothing."""
    before, later = after.awake_results
    assert later - before > STILL_S * 10, "of a hundred frames a second"
    after.awake.close()
    hold_to_law(after.awake.history.events, after.patient)
