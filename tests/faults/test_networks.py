"""What networks do to streams: delay, throttle, freeze, half-close, cut, corrupt, over plaintext and over TLS.

Whatever happens, each stream is held to every law by its camera's record and its server's line; only where plaintext is
corrupted may a camera hear anything, and then the server's ledgers alone are exact. No fault costs another stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

import headworks
from support import laws
from support.certificates import Authority
from support.fed_camera import FedCamera, all_of, hold_to_law
from support.library_camera import LibraryCamera, hold_to_account, wait_lines
from support.proxy import Proxy
from support.raw_camera import RawCamera, open_request
from support.server import Server
from support.stand_ins import QUICK
from support.waiting import wait_for

CODES = grpc.StatusCode
WIRES = ("plaintext", "tls")
CORRUPTIONS = 8  # rounds, each of other bytes


POLICIES = ("latest", "bounded", "every_frame")


class Wire:
    """A server and a way to it that can fail."""

    def __init__(self, server: Server, proxy: Proxy, authority: Authority | None) -> None:
        self.server, self.proxy = server, proxy
        self.credentials = authority and grpc.ssl_channel_credentials(authority.path.read_bytes())
        self.tls = authority and headworks.TlsOptions(ca=authority.path)

    @contextmanager
    def cameras(self) -> Iterator[list[FedCamera]]:
        """A camera of each policy, and one that ignores its credit, each on its own connection, all with results."""
        options = {"credentials": self.credentials}
        cameras = [FedCamera(self.proxy.target, policy, policy=policy, **options) for policy in POLICIES]
        cameras.append(FedCamera(self.proxy.target, "rude", polite=False, fps=400, **options))
        with all_of(cameras):
            for camera in cameras:
                camera.wait_results(5)
            yield cameras


@pytest.fixture(scope="module", params=WIRES)
def serving(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Authority | None]]:
    """A server of each kind. At its end every stream has closed once, no connection is left, every ledger is exact."""
    settings: dict[str, Path] = {}
    authority = None
    if request.param == "tls":
        authority = Authority(tmp_path_factory.mktemp("certificates"))
        pair = authority.server()
        settings = {"tls_cert": pair.cert, "tls_key": pair.key}
    with Server(idle_timeout_seconds=3, **QUICK, **settings) as server:
        server.metrics()
        before = server.resources()["descriptors"]
        yield server, authority
        server.wait_count("stream_close", server.count("stream_open"))
        wait_for(lambda: server.resources()["descriptors"] <= before)
        assert list(laws.whole_server(server.lines, server.metrics())) == []


@pytest.fixture
def wire(serving: tuple[Server, Authority | None]) -> Iterator[Wire]:
    """A proxy before the server. After the test another camera is served."""
    server, authority = serving
    with Proxy(server.target) as proxy:
        wire = Wire(server, proxy, authority)
        yield wire
    with RawCamera(server.target, open_request(), credentials=wire.credentials) as camera:
        camera.ask_result(b"alive")
        camera.close()


def test_a_slow_network_costs_frames_and_no_law(wire: Wire) -> None:
    """Delay and a narrow way: fewer frames get through, and each stream ends as if nothing were."""
    with wire.cameras() as cameras:
        wire.proxy.up.delay_s = wire.proxy.down.delay_s = 0.1
        wire.proxy.up.bytes_s = 50_000
        for camera in cameras:
            camera.wait_results(len(camera.all("result")) + 3)
        for camera in cameras:
            camera.rest()
        wire.proxy.up.bytes_s = 0
        for camera in cameras:
            camera.close()
            line = hold_to_law(camera.history.events, wire.server)
            assert (line["reason"], line["received"]) == ("END", laws.sent_count(camera.history.events))


def test_a_network_that_stands_still_ends_a_stream_by_idleness(wire: Wire) -> None:
    """Rule 16: the server hears nothing, says Closed with the ledger, and that arrives when the way is free again."""
    with wire.cameras() as cameras:
        wire.proxy.freeze()
        for camera in cameras:
            assert wire.server.wait_closed(camera.opened.stream_id)["reason"] == "IDLE_TIMEOUT"
        wire.proxy.thaw()
        for camera in cameras:
            assert camera.status()[0] is CODES.DEADLINE_EXCEEDED
            camera.rest()
            camera.check()
            hold_to_law(camera.history.events, wire.server)


def test_a_network_that_stands_still_for_a_moment_costs_nothing(wire: Wire) -> None:
    """Less than the idle time: what has gathered arrives, in order, and the streams go on."""
    with wire.cameras() as cameras:
        results = [len(camera.all("result")) for camera in cameras]
        wire.proxy.freeze()
        wait_for(lambda: all(laws.sent_count(camera.history.events) > 40 for camera in cameras[-1:]))
        wire.proxy.thaw()
        for camera, number in zip(cameras, results, strict=True):
            camera.wait_results(number + 5)
        for camera in cameras:
            camera.close()
            assert hold_to_law(camera.history.events, wire.server)["reason"] == "END"


BREAKS: dict[str, Callable[[Proxy], None]] = {
    "reset": lambda proxy: proxy.cut(reset=True),
    "closed": lambda proxy: proxy.cut(reset=False),
    "half-closed towards the server": lambda proxy: proxy.half_close(towards_server=True),
    "half-closed towards the camera": lambda proxy: proxy.half_close(towards_server=False),
}


@pytest.mark.parametrize("way", BREAKS)
def test_a_connection_that_breaks_is_the_end_of_its_streams(wire: Wire, way: str) -> None:
    """The camera hears UNAVAILABLE; every frame the server had read is in its ledger, and what was told is so too."""
    with wire.cameras() as cameras:
        BREAKS[way](wire.proxy)
        for camera in cameras:
            assert camera.status()[0] is CODES.UNAVAILABLE
            camera.rest()
            line = hold_to_law(camera.history.events, wire.server)
            assert (line["reason"], camera.all("closed")) == ("CANCELLED", [])


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_network_that_corrupts(wire: Wire, direction: str) -> None:
    """TLS turns a changed byte into a broken connection. Without it the server keeps its ledgers and its feet.

    A changed length turns it into silence first, until either side has had enough of that.
    """
    way = getattr(wire.proxy, direction)
    for _ in range(CORRUPTIONS):
        with wire.cameras() as cameras:
            spoilt, way.corrupt_every = way.spoilt, 200
            wait_for(lambda: way.spoilt > spoilt)  # noqa: B023
            if wire.credentials is not None:
                for camera in cameras:
                    wire.server.wait_closed(camera.opened.stream_id)
                wire.proxy.cut()  # where it is the camera that still waits for the rest of a record
                for camera in cameras:
                    assert camera.status()[0] is not CODES.OK
                    camera.rest()
                    hold_to_law(camera.history.events, wire.server)
        way.corrupt_every = 0
    wire.server.wait_count("stream_close", wire.server.count("stream_open"))


def test_a_connection_that_is_corrupt_from_the_start(wire: Wire) -> None:
    """No handshake, no preface, no Open is safe: whatever becomes of the camera, the server stays as it was."""
    for _ in range(CORRUPTIONS):
        spoilt, wire.proxy.up.corrupt_every = wire.proxy.up.spoilt, 50
        with FedCamera(wire.proxy.target, "corrupt", polite=False, credentials=wire.credentials):
            wait_for(lambda: wire.proxy.up.spoilt > spoilt)  # noqa: B023
        wire.proxy.up.corrupt_every = 0
    wire.server.wait_count("stream_close", wire.server.count("stream_open"))


def test_the_library_outlives_its_network(wire: Wire) -> None:
    """Rule 8: after each break its streams go on; what was lost is told, and under EVERY_FRAME nothing is."""
    with ExitStack() as stack:
        cameras = [
            stack.enter_context(LibraryCamera(wire.proxy.target, f"library {policy}", policy=policy, tls=wire.tls))
            for policy in POLICIES
        ]
        for number, fault in enumerate(BREAKS.values(), start=1):
            for camera in cameras:
                camera.wait_results(camera.stream.account.results + 5)
            fault(wire.proxy)
            for camera in cameras:
                camera.wait_connections(number + 1)
        if wire.tls is not None:
            troubles = {camera: camera.troubles for camera in cameras}
            wire.proxy.down.corrupt_every = 200
            wait_for(lambda: all(camera.troubles > before for camera, before in troubles.items()))
            wire.proxy.down.corrupt_every = 0
            for camera in cameras:
                camera.wait_connections(len(BREAKS) + 2)
        for camera in cameras:
            camera.wait_results(camera.stream.account.results + 5)
            camera.finish()
            hold_to_account(camera, wait_lines(camera, wire.server))
