"""A server that cannot start says why in one sentence, and exits 2; nobody has to read a traceback."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from support.models import Form, oracle_detector, save_model, with_metadata
from support.server import refusal_to_start as refusal


@pytest.fixture
def busy_port() -> int:
    """A port that somebody listens on until the end of the test."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def test_a_busy_port(busy_port: int) -> None:
    """The sentence names the address and the way out."""
    said = refusal(None, "--port", str(busy_port), backend="null")
    assert f"127.0.0.1:{busy_port}" in said
    assert "--port" in said


def test_a_busy_metrics_port(busy_port: int) -> None:
    """The same for /metrics."""
    said = refusal(None, "--metrics-port", str(busy_port), backend="null")
    assert f"127.0.0.1:{busy_port}" in said
    assert "metrics_port" in said


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """File, expectation."""
    said = refusal(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in said
    assert "expected" in said


def test_a_folder_without_models(tmp_path: Path) -> None:
    """File, expectation."""
    said = refusal(tmp_path)
    assert str(tmp_path) in said
    assert "model.onnx" in said


def test_a_corrupt_model(tmp_path: Path) -> None:
    """A file that is no ONNX model: file, expectation, fact."""
    path = save_model(tmp_path, "broken", oracle_detector())
    path.write_bytes(path.read_bytes()[:100])
    said = refusal(tmp_path)
    assert str(path) in said
    assert "expected" in said


def test_a_model_that_is_not_what_it_says(tmp_path: Path) -> None:
    """The exporter's metadata say what a model is for."""
    path = save_model(tmp_path, "classifier", with_metadata(oracle_detector(), Form(), task="classify"))
    said = refusal(tmp_path)
    assert str(path) in said
    assert "expected" in said
    assert "classification" in said


def test_a_wrong_setting() -> None:
    """Where it came from, its name, what was expected, what was found."""
    said = refusal(None, backend="null", max_streams="many")
    assert "HEADWORKS_MAX_STREAMS" in said
    assert "'many'" in said


def test_a_host_that_others_reach() -> None:
    """Rule 17: loopback unless told otherwise."""
    assert "insecure" in refusal(None, "--host", "0.0.0.0", backend="null")  # noqa: S104
