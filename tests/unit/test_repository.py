"""A folder of models: which names, versions and links are taken, what a file says, what is said of a bad one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from headworks_server.engine.graph import read_graph
from headworks_server.engine.repository import ModelRepository, TensorFacts
from headworks_server.errors import ModelError
from support.model_zoo import noisy, save_external, text_model, zoo_model
from support.models import Form, convolving_detector, oracle_detector, save_model


def test_read_tells_the_facts_of_a_model(tmp_path: Path) -> None:
    """Name, version, digest, inputs, outputs and the exporter's metadata."""
    path = save_model(tmp_path, "football", oracle_detector(Form(batch=None)))

    (file,) = ModelRepository(tmp_path).read_all()

    assert (file.name, file.version, file.versions, file.path) == ("football", "1", ("1",), path)
    assert file.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.inputs == (TensorFacts("images", "float", ("batch", 3, 48, 64)),)
    assert file.outputs == (TensorFacts("output0", "float", ("batch", 7, 4)),)
    assert (file.metadata["imgsz"], file.descriptions) == ("[48, 64]", ())


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
    """A name, or a version, may come from a client."""
    save_model(tmp_path, "secret", oracle_detector())
    save_model(tmp_path / "models", "good", oracle_detector())
    for call in (("read", name), ("read", "good", name), ("versions", name), ("file_path", name)):
        with pytest.raises(ModelError, match=r"model (name|version) .*: expected 1 to 64 letters"):
            getattr(ModelRepository(tmp_path / "models"), call[0])(*call[1:])


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


# Versions.


@pytest.mark.parametrize(
    ("versions", "newest"),
    [
        (("1", "2", "10"), "10"),
        (("1", "nightly"), "1"),
        (("v1.9", "v1.10"), "v1.10"),
        (("2024-05-01", "2024-11-01"), "2024-11-01"),
    ],
)
def test_the_newest_version_is_read(tmp_path: Path, versions: tuple[str, ...], newest: str) -> None:
    """The highest number before any name; names by the numbers in them. All are listed, any can be asked for."""
    for version in versions:
        save_model(tmp_path / "football", version, oracle_detector(Form(width=64 + 32 * len(version))))
    repository = ModelRepository(tmp_path)
    file = repository.read("football")
    assert (file.version, file.versions[-1], set(file.versions)) == (newest, newest, set(versions))
    assert file.path == tmp_path / "football" / newest / "model.onnx"
    assert repository.read("football", versions[0]).version == versions[0]
    with pytest.raises(ModelError, match=r"football: expected one of the versions .*, got '7'"):
        repository.read("football", "7")


def test_descriptions_of_model_and_version_are_found(tmp_path: Path) -> None:
    """The version's comes last, so that it wins; other folders beside are nobody's business."""
    for version in ("1", "2"):
        save_model(tmp_path / "football", version, oracle_detector())
    (tmp_path / "football" / "docs").mkdir()
    outer, inner = tmp_path / "football" / "model.toml", tmp_path / "football" / "2" / "model.toml"
    outer.write_text("")
    inner.write_text("")
    repository = ModelRepository(tmp_path)
    assert repository.read("football").descriptions == (outer, inner)
    assert repository.read("football", "1").descriptions == (outer,)


def test_half_of_a_version_is_refused(tmp_path: Path) -> None:
    """Serving the one before in silence would surprise whoever put it there."""
    save_model(tmp_path / "football", "1", oracle_detector())
    (tmp_path / "football" / "2").mkdir()
    with pytest.raises(ModelError, match=r"football/2/model\.onnx: expected a model file, got an empty folder"):
        ModelRepository(tmp_path).read("football")


def test_a_model_beside_its_versions_is_refused(tmp_path: Path) -> None:
    """Which of them is newer cannot be told."""
    save_model(tmp_path, "football", oracle_detector())
    save_model(tmp_path / "football", "1", oracle_detector())
    with pytest.raises(ModelError, match=r"football: expected model\.onnx or folders of versions, got both"):
        ModelRepository(tmp_path).read("football")


# Links and weights.


@pytest.mark.parametrize("what", ["football", "football/model.onnx", "football/model.toml"])
def test_links_out_of_the_folder_are_refused(tmp_path: Path, what: str) -> None:
    """The folder is what an operator allowed; a link inside it is fine."""
    outside = save_model(tmp_path / "outside", "football", oracle_detector()).parent
    (outside / "model.toml").write_text("")
    inside = save_model(tmp_path / "models", "other", oracle_detector()).parent
    (inside / "model.toml").write_text("")
    link = tmp_path / "models" / what
    if what != "football":
        save_model(tmp_path / "models", "football", oracle_detector())
        link.unlink(missing_ok=True)
    link.symlink_to(outside / link.name if what != "football" else outside)
    repository = ModelRepository(tmp_path / "models")
    with pytest.raises(ModelError, match=r"expected a file in .*, got a link to"):
        repository.read("football")
    link.unlink()
    link.symlink_to(inside / link.name if what != "football" else inside)
    assert repository.read("football").name == "football"


def test_external_weights_belong_to_the_digest(tmp_path: Path) -> None:
    """A model whose weights changed is another model."""
    path = save_external(tmp_path, "a", convolving_detector())
    repository = ModelRepository(tmp_path)
    first = repository.read("a")
    assert first.graph.external == ("model.onnx.data",)
    weights = path.parent / "model.onnx.data"
    assert first.digest == hashlib.sha256(path.read_bytes() + weights.read_bytes()).hexdigest()
    changed = bytearray(weights.read_bytes())
    changed[100] ^= 1
    weights.write_bytes(changed)
    assert repository.read("a").digest != first.digest
    weights.unlink()
    with pytest.raises(ModelError, match=r"expected its external weights 'model\.onnx\.data' beside it, got no such"):
        repository.read("a")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "a/../../secret.bin", ""])
def test_external_weights_lie_beside_the_model(tmp_path: Path, location: str) -> None:
    """A model file is from strangers: it names no file of the machine."""
    (tmp_path / "secret.bin").write_bytes(bytes(1 << 20))
    path = save_external(tmp_path, "a", convolving_detector())
    model = onnx.load(path, load_external_data=False)
    for weight in model.graph.initializer:
        for entry in weight.external_data:
            entry.value = location if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="expected external weights beside it, got"):
        ModelRepository(tmp_path).read("a")


def test_external_weights_behind_a_link_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    """As the model itself."""
    path = save_external(tmp_path / "models", "a", convolving_detector())
    weights = path.parent / "model.onnx.data"
    weights.rename(tmp_path / "weights")
    weights.symlink_to(tmp_path / "weights")
    with pytest.raises(ModelError, match="got a link to"):
        ModelRepository(tmp_path / "models").read("a")


def test_weights_of_inner_graphs_are_found(tmp_path: Path) -> None:
    """Constants may lie in branches, too."""
    inner = zoo_model({"y": ("float", ("batch", 3))}).graph
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="deep.bin")
    inner.initializer.append(tensor)
    model = zoo_model({"y": ("float", ("batch", 3))})
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("then_branch", inner))
    path = save_model(tmp_path, "a", model)
    assert read_graph(path).external == ("deep.bin",)


def test_the_operator_that_ends_an_output_is_seen_through_casts(tmp_path: Path) -> None:
    """It tells whether scores are scores yet."""
    model = text_model(
        "(float[batch,8] x) => (float16[batch,8] y, float[batch,8] z, float[batch,8] w)"
        " { s = Softmax(x) i = Identity(s) y = Cast<to=10>(i) z = Relu(x) w = Identity(x) }"
    )
    assert read_graph(save_model(tmp_path, "a", model)).makers == {"y": "Softmax", "z": "Relu", "w": ""}


# Files that will not do.


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected an ONNX model, got an empty file"),
        (b"a picture of a model, not a model", "expected an ONNX model, got"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "expected an ONNX model, got"),
        (bytes(1000), "expected an ONNX model, got"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "expected an ONNX model, got"),
    ],
)
def test_files_that_are_no_models_are_refused_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    """The file, what was expected, what came."""
    path = save_model(tmp_path, "a", oracle_detector())
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"^{path}: {words}") as caught:
        ModelRepository(tmp_path).read("a")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_truncated_models_are_refused(tmp_path: Path, share: float) -> None:
    """A copy that was broken off, wherever."""
    path = save_model(tmp_path, "a", oracle_detector())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match="expected an ONNX model, got"):
        ModelRepository(tmp_path).read("a")


def test_damaged_models_are_walked_without_harm(tmp_path: Path) -> None:
    """The walk is ours, so every damage ends in facts or in a refusal; nothing else is raised."""
    path = save_model(tmp_path, "a", oracle_detector())
    content = np.frombuffer(path.read_bytes(), np.uint8)
    random = np.random.default_rng(1)
    refused = 0
    for _ in range(300):
        damaged = content.copy()
        damaged[random.integers(0, len(content), 3)] = random.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            read_graph(path)
        except ModelError:
            refused += 1
    assert 0 < refused < 300


def test_unknown_operators_are_told_in_the_runtimes_words(tmp_path: Path) -> None:
    """They are of a newer exporter, or of somebody's own."""
    model = oracle_detector()
    model.graph.node[0].op_type = "Dreaming"
    path = save_model(tmp_path, "a", model)
    with pytest.raises(ModelError, match=rf"{path}: expected an ONNX model, got: .*Dreaming"):
        ModelRepository(tmp_path).read("a")


def test_unreadable_file_is_told(tmp_path: Path) -> None:
    """A link that leads in a circle stands for every file the system will not open, root or not."""
    (tmp_path / "loop").mkdir()
    os.symlink("model.onnx", tmp_path / "loop" / "model.onnx")
    with pytest.raises(ModelError, match=r"loop/model\.onnx: expected a model file, got a folder with model\.onnx"):
        ModelRepository(tmp_path).read("loop")


def test_reading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The runtime's complaints are raised, and its warnings are for `headworks models check`."""
    save_model(tmp_path, "a", noisy(oracle_detector()))
    ModelRepository(tmp_path).read("a")
    save_model(tmp_path, "b", oracle_detector()).write_bytes(bytes([8, 9, 18, 2, 97, 98]))
    with pytest.raises(ModelError):
        ModelRepository(tmp_path).read("b")
    assert capfd.readouterr() == ("", "")
