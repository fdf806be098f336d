"""A chain whose first backend fails, at load or while it serves: the next takes over, and everybody is told.

The backend `failing` runs a model as ONNX Runtime does, until it fails as it was told to.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from headworks.v1 import frame_pb2 as pb
from support.health import health_of
from support.models import oracle_detector, save_model
from support.raw_camera import RawCamera, open_request
from support.server import Server, refusal_to_start

PICTURE = cv2.imencode(".png", np.full((48, 64, 3), 200, np.uint8))[1].tobytes()
CHAIN = {"backend_chain": "failing,onnxruntime-cpu", "lanes": 1, "max_batch": 1}
FALLS = 'headworks_model_backend_falls_total{model="oracle",version="1"}'
RELOADS = 'headworks_model_reloads_total{model="oracle",version="1"}'


@pytest.fixture
def models(tmp_path: Path) -> Path:
    save_model(tmp_path, "oracle", oracle_detector())
    return tmp_path


def ask(camera: RawCamera) -> str:
    """Send a frame; the backend that served it, or "" where it failed, or "loading" where it was dropped for that."""
    event = camera.ask(PICTURE, pb.ENCODING_PNG)
    if event.HasField("result"):
        return event.result.outputs[0].backend
    if event.HasField("dropped"):
        assert {each.reason for each in event.dropped.counts} == {pb.DROP_REASON_MODEL_LOADING}
        return "loading"
    assert event.frame_error.code == pb.FRAME_ERROR_CODE_ENGINE_FAILED
    return ""


def test_a_backend_that_cannot_load_leaves_the_model_to_the_next(models: Path) -> None:
    """Before any stream is open: the log has the cause, the metric the fall, every result the backend."""
    with Server(models, failing__load=True, **CHAIN) as server:
        fell = server.wait_line(lambda line: line.get("event") == "backend_fell")
        assert (fell["model"], fell["backend"], fell["to"]) == ("oracle", "failing", "onnxruntime-cpu")
        assert "fails, as it was told to" in fell["cause"]
        with RawCamera(server.target, open_request("oracle")) as camera:
            assert camera.opened.models[0].backend == "onnxruntime-cpu"
            assert ask(camera) == "onnxruntime-cpu"
        assert server.metrics()[FALLS] == 1
        assert health_of(server.target, "model/oracle") == "SERVING"


def test_a_backend_that_fails_while_it_serves_is_loaded_again_and_then_left(models: Path) -> None:
    """Rule 14: three failed batches in a row, and it is loaded again; three more, and the next backend takes over.

    Each frame has exactly one outcome, and the stream hears of all of it in the order in which it happened.
    """
    with (
        Server(models, failing__from_batch=20, **CHAIN) as server,
        RawCamera(server.target, open_request("oracle")) as camera,
    ):
        assert camera.opened.models[0].backend == "failing"
        heard: list[str] = []
        while not heard or heard[-1] != "onnxruntime-cpu":
            heard.append(ask(camera))
            assert len(heard) < 2000
        assert heard[0] == "failing"
        assert heard.count("") == 6
        assert ask(camera) == "onnxruntime-cpu"
        kinds = [notice.kind for notice in camera.all("notice")]
        changed = next(notice for notice in camera.all("notice") if notice.kind == pb.Notice.KIND_MODEL_CHANGED)
        assert changed.model_info.backend == "onnxruntime-cpu"
        assert changed.generation == changed.model_info.generation > camera.opened.models[0].generation
        fell = [notice.detail for notice in camera.all("notice") if "has taken over" in notice.detail]
        assert len(fell) == 1
        assert fell[0].startswith("failing failed, onnxruntime-cpu has taken over: ")
        assert kinds.count(pb.Notice.KIND_DEGRADED) >= 2
        closed = camera.close()
        ledger = closed.ledger
        assert ledger.received == len(heard) + 1
        assert ledger.errors == 6
        assert ledger.results == sum(backend.startswith(("failing", "onnx")) for backend in heard) + 1
        assert ledger.received == ledger.results + ledger.errors + sum(drop.count for drop in ledger.drops)
        assert camera.all("notice")[-1].kind == pb.Notice.KIND_RESTORED
        metrics = server.metrics()
        assert (metrics[FALLS], metrics[RELOADS]) == (1, 1)
        assert server.count("backend_fell") == 1
        assert health_of(server.target, "model/oracle") == "SERVING"


def test_where_no_backend_can_load_a_model_the_server_says_so(models: Path) -> None:
    """With each backend's own words."""
    said = refusal_to_start(models, failing__load=True, backend_chain="failing")
    assert "oracle: load 1 fails" in said
    assert "fails, as it was told to" in said


@pytest.mark.parametrize(
    ("chain", "fact"),
    [
        ("tensorrt", "got tensorrt"),
        ("onnxruntime-cpu,onnxruntime-cpu", "got onnxruntime-cpu, onnxruntime-cpu"),
        ("failing", "got failing"),
        ("onnxruntime-cuda", "got onnxruntime-cuda"),
    ],
)
def test_a_chain_that_cannot_be_is_refused(models: Path, chain: str, fact: str) -> None:
    """An unknown backend, one named twice, the tests' own, and one that this machine has not."""
    said = refusal_to_start(models, backend_chain=chain)
    assert "backend_chain: expected" in said
    assert fact in said
    assert "onnxruntime-cpu" in said


def test_a_model_may_have_a_chain_of_its_own(models: Path) -> None:
    """`[serving] backends` of its model.toml stands above the server's."""
    (models / "oracle" / "model.toml").write_text('[serving]\nbackends = ["onnxruntime-cpu"]\n')
    with (
        Server(models, failing__load=True, **CHAIN) as server,
        RawCamera(server.target, open_request("oracle")) as camera,
    ):
        assert ask(camera) == "onnxruntime-cpu"
        assert server.count("backend_fell") == 0
