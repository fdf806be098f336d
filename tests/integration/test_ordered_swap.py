"""The football players, FP32, INT8 and FP32 again, by an administrator's orders, under ten cameras and one that stays.

Contract, rule 11. Refused orders leave their line in the log, and nothing else.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from headworks.administration import Administration, AdministrationFailedError
from headworks.transport import Access
from headworks.v1 import frame_pb2 as pb
from support import laws
from support.live_camera import LiveCamera
from support.model_zoo import quantize
from support.models import failing_detector, save_model
from support.raw_camera import open_request
from support.server import Server

FOOTBALL = Path(__file__).resolve().parents[2] / "examples" / "football"
FRAMES = [(FOOTBALL / "clip" / f"{number:04d}.jpg").read_bytes() for number in (3, 9)]
LATEST = pb.DropPolicy(latest=pb.LatestPolicy())
BOUNDED = pb.DropPolicy(bounded=pb.BoundedPolicy(depth=3))
EVERY_FRAME = pb.DropPolicy(every_frame=pb.EveryFramePolicy())
POLICIES = [LATEST] * 8 + [BOUNDED, EVERY_FRAME]


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The players' detector quantized by ONNX Runtime, calibrated on two frames of the clip."""
    frames = []
    for number in (0, 24):
        picture = cv2.cvtColor(cv2.imread(str(FOOTBALL / "clip" / f"{number:04d}.jpg")), cv2.COLOR_BGR2RGB)
        canvas = np.full((224, 384, 3), 114, np.uint8)
        canvas[4:-4] = cv2.resize(picture, (384, 216))
        frames.append((canvas / np.float32(255)).transpose(2, 0, 1)[None])
    file = tmp_path_factory.mktemp("int8") / "model.onnx"
    original = FOOTBALL / "models" / "players" / "model.onnx"
    quantize(original, file, "qdq", frames[0].shape, frames=frames, operators=["Conv"])
    return file


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Version 1 of the players, FP32."""
    version = tmp_path / "models" / "players" / "1"
    version.mkdir(parents=True)
    shutil.copy(FOOTBALL / "models" / "players" / "model.onnx", version)
    return tmp_path / "models"


@pytest.fixture
def server(models: Path) -> Iterator[Server]:
    with Server(models, max_batch=2, admin=True) as server:
        yield server


@pytest.fixture
def administration(server: Server) -> Iterator[Administration]:
    with Administration(Access(server.target, tls=None, token=None, insecure=False)) as administration:
        yield administration


def add_version(models: Path, number: int, file: Path) -> None:
    """Put a version beside those that are there."""
    folder = models / "players" / str(number)
    folder.mkdir()
    shutil.copy(file, folder / "model.onnx")


def held_to_the_end(server: Server, cameras: list[LiveCamera]) -> None:
    """No error, no frame dropped for a load, and no frame unaccounted for, in the streams and in the counters."""
    for camera in cameras:
        camera.stop()
    for camera in cameras:
        ledger = camera.finish().ledger
        assert ledger.errors == 0
        assert pb.DROP_REASON_MODEL_LOADING not in {drop.reason for drop in ledger.drops}
    assert list(laws.whole_server(server.lines, server.metrics())) == []


def test_ten_cameras_follow_the_orders_and_one_keeps_its_version(
    server: Server, administration: Administration, models: Path, int8: Path
) -> None:
    """FP32 is version 1, INT8 version 2: swapped to, and back. Who asked for version 1 hears of nothing."""
    cameras = [
        LiveCamera(server, open_request("players", drop_policy=policy), FRAMES, pb.ENCODING_JPEG, period_s=0.05)
        for policy in POLICIES
    ]
    asked = pb.Open(models=[pb.ModelSelector(name="players", version="1")])
    steady = LiveCamera(server, asked, FRAMES, pb.ENCODING_JPEG, period_s=0.1)
    for camera in [*cameras, steady]:
        camera.wait_generation(1)
    digests = [cameras[0].camera.opened.models[0].digest]

    add_version(models, 2, int8)
    digests.append(administration.swap("players").info.digest)
    for camera in cameras:
        camera.wait_generation(2)
    steady.wait_results(2)
    assert administration.swap("players", back=True).info.digest == digests[0]
    for camera in cameras:
        camera.wait_generation(1)
    steady.wait_results(2)

    held_to_the_end(server, [*cameras, steady])
    assert digests[0] != digests[1]
    for camera in cameras:
        changed = [notice.model_info for notice in camera.changes()]
        assert [(info.version, info.digest) for info in changed] == [("2", digests[1]), ("1", digests[0])]
        assert all(info.labels == camera.camera.opened.models[0].labels for info in changed)
    assert not cameras[-1].camera.events[-1].closed.ledger.drops, "EVERY_FRAME loses nothing"
    assert not steady.camera.all("notice")
    moved = [line for line in server.lines if line.get("event") == "model_moved"]
    assert [(line["before"], line["now"], line["streams"]) for line in moved] == [
        ("players/1", "players/2", 10),
        ("players/2", "players/1", 10),
    ]


def test_a_refused_order_leaves_a_line_in_the_log_and_nothing_else(
    server: Server, administration: Administration, models: Path, int8: Path
) -> None:
    """A version that opens, and fails when it is warmed; one that is slower than it may be; and one that is not there.
    The first two are forgotten again, with their bytes."""
    cameras = [
        LiveCamera(server, open_request("players", drop_policy=policy), FRAMES, pb.ENCODING_JPEG, period_s=0.05)
        for policy in (LATEST, BOUNDED, EVERY_FRAME)
    ]
    for camera in cameras:
        camera.wait_generation(1)
    held = administration.models().memory.used_bytes
    save_model(models / "players", "2", failing_detector(always=True))
    add_version(models, 3, int8)
    (models / "players" / "3" / "model.toml").write_text("[serving]\nmax_frame_ms = 0.001\n")
    expected = [
        ("2", "FAILED_PRECONDITION", "players/2 cannot be loaded: "),
        ("3", "FAILED_PRECONDITION", "players/3: expected at most 0.001 ms a frame, got "),
        ("4", "NOT_FOUND", "expected one of the versions 1, 2, 3, got '4'"),
    ]
    for version, code, why in expected:
        with pytest.raises(AdministrationFailedError) as error:
            administration.swap("players", version)
        assert error.value.code == code
        assert why in error.value.detail
        for camera in cameras:
            camera.wait_results(2)
    refused = [line for line in server.lines if line.get("event") == "model_refused"]
    assert [line["serving"] for line in refused] == [True] * 3
    assert all(why in line["detail"] for line, (_, _, why) in zip(refused, expected, strict=True))
    server.wait_count("model_freed", 2)
    assert administration.models().memory.used_bytes == held
    held_to_the_end(server, cameras)
    assert not any(camera.camera.all("notice") for camera in cameras)
    metrics = server.metrics()
    assert metrics['headworks_model_swaps_total{model="players",outcome="failed"}'] == 2
    assert metrics['headworks_model_swaps_total{model="players",outcome="refused"}'] == 1
