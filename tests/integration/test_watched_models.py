"""A folder of models that is watched: models come, change and go while cameras stream."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import headworks
from support.models import Form, oracle_detector, save_model
from support.server import Server

PICTURE = cv2.imencode(".png", np.full((32, 32, 3), 200, np.uint8))[1].tobytes()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    save_model(folder, "first", oracle_detector())
    return folder


@pytest.fixture
def server(models: Path) -> Iterator[Server]:
    with Server(models, watch_seconds=0.1, lanes=1) as server:
        yield server


def put(models: Path, name: str, form: Form) -> None:
    """Put a model in the place of that name at once, as a careful user does."""
    aside = models.parent / "aside"
    aside.mkdir(exist_ok=True)
    file = save_model(aside, name, oracle_detector(form))
    (models / name).mkdir(exist_ok=True)
    file.replace(models / name / "model.onnx")


def event(server: Server, name: str, model: str, *, after: int = 0) -> dict[str, object]:
    """Wait for a log line of that event and model."""
    return server.wait_line(
        lambda line: line.get("event") == name and line.get("model") == model and line.get("generation", 1) > after
    )


def generation(stream: headworks.FrameStream) -> int:
    """Send a frame; the generation of the model that answered it."""
    stream.send(PICTURE, encoding="png")
    result = next(iter(stream))
    assert isinstance(result, headworks.Result)
    return result.outputs[0].generation


def test_a_model_that_appears_is_served(server: Server, models: Path) -> None:
    """Without a restart, beside the others, and health knows its name."""
    put(models, "second", Form())
    event(server, "model_published", "second")
    with headworks.Client(server.target) as client, client.stream("second") as stream:
        assert stream.opened.models[0].name == "second"
        assert generation(stream) == 1


def test_a_model_that_changes_is_loaded_beside_the_old_one_and_its_streams_move(server: Server, models: Path) -> None:
    """Rule 11. What served before is kept in mind for a way back, and what served before that is forgotten."""
    with headworks.Client(server.target) as client, client.stream("first") as old:
        assert generation(old) == 1
        put(models, "first", Form(batch=2))
        event(server, "model_published", "first", after=1)
        with client.stream("first") as new:
            assert generation(new) == 2
            assert generation(old) == 2
        assert server.count("model_freed") == 0
        put(models, "first", Form(batch=3))
        freed = event(server, "model_freed", "first")
        assert freed["generation"] == 1
        assert generation(old) == 3
    metrics = server.metrics()
    assert metrics['headworks_frames_received_total{model="first"}'] == 4
    assert metrics['headworks_model_swaps_total{model="first",outcome="done"}'] == 2


def test_a_model_that_disappears_takes_no_new_streams(server: Server, models: Path) -> None:
    """Open streams keep it to their end."""
    put(models, "second", Form())
    event(server, "model_published", "second")
    with headworks.Client(server.target) as client, client.stream("first") as stream:
        shutil.rmtree(models / "first")
        event(server, "model_withdrawn", "first")
        with pytest.raises(headworks.StreamRefusedError, match="no model 'first': this server has second"):
            client.stream("first").__enter__()
        assert generation(stream) == 1


def test_a_file_that_cannot_be_served_leaves_the_old_one_in_its_place(server: Server, models: Path) -> None:
    """What is wrong is told in the log, once, and streams open as before. The old file in its place again is no
    change, and another good one is served."""
    (models / "first" / "model.onnx").write_bytes(b"half a model")
    refused = event(server, "model_refused", "first")
    assert refused["serving"] is True
    assert "model.onnx: expected an ONNX model" in str(refused["detail"])
    with headworks.Client(server.target) as client:
        with client.stream("first") as stream:
            assert generation(stream) == 1
        put(models, "first", Form())
        put(models, "second", Form())
        event(server, "model_published", "second")
        with client.stream("first") as stream:
            assert generation(stream) == 1
        put(models, "first", Form(batch=2))
        event(server, "model_published", "first", after=1)
        with client.stream("first") as stream:
            assert generation(stream) == 2
    assert server.count("model_refused") == 1


def test_half_of_a_file_is_left_alone_until_it_is_whole(server: Server, models: Path) -> None:
    """A file that grows from look to look is being copied; it is loaded when it has stood still."""
    whole = save_model(models.parent, "whole", oracle_detector()).read_bytes()
    target = models / "slow" / "model.onnx"
    target.parent.mkdir()
    with target.open("wb") as file:
        until_s = time.monotonic() + 0.8
        sent = 0
        while time.monotonic() < until_s:
            file.write(whole[sent : sent + 1])
            file.flush()
            sent += 1
            time.sleep(0.02)  # slower than a disk, faster than the looks
        file.write(whole[sent:])
    event(server, "model_published", "slow")
    assert server.count("model_refused") == 0
