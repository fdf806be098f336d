"""A folder of models: which names are taken, what a file says, what is said of a folder or a file that will not do."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from headworks_server.engine.repository import ModelRepository, TensorFacts
from headworks_server.errors import ModelError
from support.models import Form, oracle_detector, save_model


def test_read_tells_the_facts_of_a_model(tmp_path: Path) -> None:
    """Name, version, digest, inputs, outputs and the exporter's metadata."""
    path = save_model(tmp_path, "football", oracle_detector(Form(batch=None)))

    (file,) = ModelRepository(tmp_path).read_all()

    assert (file.name, file.version, file.path) == ("football", "1", path)
    assert file.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.inputs == (TensorFacts("images", "float", ("batch", 3, 48, 64)),)
    assert file.outputs == (TensorFacts("output0", "float", ("batch", 7, 4)),)
    assert file.metadata["imgsz"] == "[48, 64]"


def test_names_are_sorted_and_pass_over_files_and_hidden_folders(tmp_path: Path) -> None:
    """A README or a `.git` beside the models is nobody's mistake."""
    for name in ("b", "a-2.1_x", ".git"):
        save_model(tmp_path, name, oracle_detector())
    (tmp_path / "README.md").write_text("models")
    assert ModelRepository(tmp_path).names() == ("a-2.1_x", "b")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../secret", "a/b", "/etc", ".hidden", "a b", "a\n", "a\0b", "\u00e4", "x" * 65]
)
def test_names_never_reach_the_file_system_unchecked(tmp_path: Path, name: str) -> None:
    """A name may come from a client."""
    save_model(tmp_path, "secret", oracle_detector())
    (tmp_path / "models").mkdir()
    with pytest.raises(ModelError, match="expected 1 to 64 letters"):
        ModelRepository(tmp_path / "models").read(name)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    """The message says what was looked for."""
    with pytest.raises(
        ModelError, match=r"nowhere: expected a folder with <name>/model\.onnx in it, got nothing there"
    ):
        ModelRepository(tmp_path / "nowhere")


def test_model_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    """`headworks serve yolo.onnx` is a natural first try."""
    path = save_model(tmp_path, "a", oracle_detector())
    with pytest.raises(ModelError, match=r"expected a folder .*, got a file"):
        ModelRepository(path)


def test_empty_folder_tells_the_layout(tmp_path: Path) -> None:
    """And names a model that lies in the wrong place."""
    with pytest.raises(ModelError, match=r"expected at least one <name>/model\.onnx in it, got no model"):
        ModelRepository(tmp_path).names()
    (tmp_path / "yolo11n.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match=r"got yolo11n\.onnx"):
        ModelRepository(tmp_path).names()


def test_folder_without_a_model_says_what_it_holds(tmp_path: Path) -> None:
    """A misspelt file is found at once."""
    (tmp_path / "football").mkdir()
    with pytest.raises(ModelError, match=r"football/model\.onnx: expected a model file, got an empty folder"):
        ModelRepository(tmp_path).names()
    (tmp_path / "football" / "best.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match=r"got a folder with best\.onnx"):
        ModelRepository(tmp_path).names()


@pytest.mark.parametrize("spoil", [lambda _: b"", lambda _: b"not a model", lambda data: data[: len(data) // 2]])
def test_corrupt_file_is_told_in_the_words_of_onnx_runtime(tmp_path: Path, spoil: object) -> None:
    """One line, the file first."""
    assert callable(spoil)
    path = save_model(tmp_path, "broken", oracle_detector())
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ModelError, match=r"model\.onnx: expected an ONNX model, got: .*ONNXRuntimeError") as caught:
        ModelRepository(tmp_path).read("broken")
    assert "\n" not in str(caught.value)


def test_unreadable_file_is_told(tmp_path: Path) -> None:
    """A link that leads in a circle stands for every file the system will not open, root or not."""
    (tmp_path / "loop").mkdir()
    os.symlink("model.onnx", tmp_path / "loop" / "model.onnx")
    with pytest.raises(ModelError, match=r"loop/model\.onnx: expected a model file, got a folder with model\.onnx"):
        ModelRepository(tmp_path).read("loop")
