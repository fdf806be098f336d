"""Servers that the integration tests share, one of each kind a session; after each test its log must be clean."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.models import Form, failing_detector, oracle_detector, save_model
from support.server import Server


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny detectors of every form: `oracle`, `bytes` (uint8, channels last), `pairs` (batches of 2), `fragile`."""
    folder = tmp_path_factory.mktemp("models")
    save_model(folder, "oracle", oracle_detector())
    save_model(folder, "bytes", oracle_detector(Form(dtype="uint8", layout="nhwc")))
    save_model(folder, "pairs", oracle_detector(Form(batch=2)))
    save_model(folder, "fragile", failing_detector())
    return folder


@pytest.fixture(scope="session")
def serving_process(model_folder: Path) -> Iterator[Server]:
    with Server(model_folder, lanes=2) as server:
        yield server


@pytest.fixture
def serving(serving_process: Server) -> Iterator[Server]:
    """ONNX Runtime on two lanes, with the models of `model_folder`."""
    yield serving_process
    serving_process.check()


@pytest.fixture(scope="session")
def sleeping_process() -> Iterator[Server]:
    times = {"decode_ms": 1, "engine_base_ms": 1, "engine_frame_ms": 0.1, "decoders": 4, "max_batch": 8, "target": 4}
    with Server(backend="sleeping", **{f"sleeping__{name}": value for name, value in times.items()}) as server:
        yield server


@pytest.fixture
def sleeping(sleeping_process: Server) -> Iterator[Server]:
    """The device form of the lanes, fast: four decoders of 1 ms, an engine of 1 ms."""
    yield sleeping_process
    sleeping_process.check()


@pytest.fixture(scope="session")
def slow_process() -> Iterator[Server]:
    times = {"decode_ms": 0, "engine_base_ms": 40, "engine_frame_ms": 0, "decoders": 1, "max_batch": 1, "target": 1}
    with Server(backend="sleeping", **{f"sleeping__{name}": value for name, value in times.items()}) as server:
        yield server


@pytest.fixture
def slow(slow_process: Server) -> Iterator[Server]:
    """A device lane of 25 frames a second, one at a time."""
    yield slow_process
    slow_process.check()


@pytest.fixture(scope="session")
def impatient_process() -> Iterator[Server]:
    # Results of 60 KB: a client that does not read them holds up its writer at once.
    with Server(backend="null", null_detections=2000, idle_timeout_seconds=0.5, max_streams=3) as server:
        yield server


@pytest.fixture
def impatient(impatient_process: Server) -> Iterator[Server]:
    """No work at all, large results, an idle timeout of half a second, at most three streams."""
    yield impatient_process
    impatient_process.check()
