"""The file model.toml: what it may say, and how a mistake in it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headworks_server.errors import ModelError
from headworks_server.models.description import read_description
from headworks_server.models.text import toml_text

WHOLE = """
labels = ["player", "ball"]

[input]
name = "images"
dtype = "float32"
layout = "nchw"
color = "bgr"
size = { width = 640, height = 384 }

[preprocess]
resize = "letterbox"
interpolation = "bicubic"
antialias = true
anchor = "top_left"
rounding = "floor"
scale_up = false
pad_value = 0
scale = "1/255"
mean = [0.485, 0.456, 0.406]
std = 0.5
crop_pct = 0.875
decode_scale = 1

[output]
name = "output0"
head = "yolov8"
boxes = "xyxy"
normalized = true
batch_axis = false

[postprocess]
score_threshold = 0.3
iou_threshold = 0.5
agnostic = true
multi_label = true
max_detections = 64
top_k = 3

[batch]
sizes = [1, 4]
max = 4
"""


def read(tmp_path: Path, text: str) -> dict[str, Any]:
    """Key and value of each line."""
    (tmp_path / "model.toml").write_text(text)
    return {key: value.value for key, value in read_description(tmp_path / "model.toml", root=tmp_path).items()}


def refusal(tmp_path: Path, text: str) -> list[str]:
    """The lines with which it is refused, without the file's name, which each begins with."""
    with pytest.raises(ModelError) as caught:
        read(tmp_path, text)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{tmp_path / 'model.toml'}: ") for line in lines)
    return [line.removeprefix(f"{tmp_path / 'model.toml'}: ") for line in lines]


def test_every_key_is_read(tmp_path: Path) -> None:
    """One screen, standard words; nothing has to be there."""
    values = read(tmp_path, WHOLE)
    assert len(values) == 32 - 1  # activation is of classifications
    assert values["preprocess.scale"] == 1 / 255
    assert (values["preprocess.mean"], values["preprocess.std"]) == ((0.485, 0.456, 0.406), (0.5, 0.5, 0.5))
    assert (values["input.size"], values["preprocess.decode_scale"]) == ({"width": 640, "height": 384}, "1")
    assert values["batch.sizes"] == [1, 4]
    assert read(tmp_path, "") == {}
    assert read(tmp_path, "[input]\nsize = 640")["input.size"] == {"width": 640, "height": 640}


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    """`headworks models check` prints a model.toml."""
    values = read(tmp_path, WHOLE)
    assert read(tmp_path, toml_text({key: (value, "where from") for key, value in values.items()})) == values


@pytest.mark.parametrize(
    "text",
    ['labels = ["a", "\\u00e4"]', 'labels = { 0 = "a", 1 = "\\u00e4" }', '[labels]\n1 = "\\u00e4"\n0 = "a"'],
)
def test_labels_are_a_list_or_a_table(tmp_path: Path, text: str) -> None:
    """By class id."""
    assert read(tmp_path, text)["labels"] == ("a", "\u00e4")


def test_labels_may_lie_in_a_file(tmp_path: Path) -> None:
    """One a line; an empty end is no class."""
    (tmp_path / "labels.txt").write_text("a\r\n b \u00e4 \n\n", encoding="utf-8")
    assert read(tmp_path, 'labels = "labels.txt"')["labels"] == ("a", "b \u00e4")


@pytest.mark.parametrize("name", ["../labels.txt", "/etc/passwd", "x/labels.txt", "none.txt", "", "a\\u0000b"])
def test_labels_lie_beside_it_or_nowhere(tmp_path: Path, name: str) -> None:
    """A description reads no other files."""
    (tmp_path / "labels.txt").write_text("secret")
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelError, match="labels: expected a file beside it, got"):
        read(tmp_path / "model", f'labels = "{name}"')


def test_labels_behind_a_link_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    """As the model's own file would be."""
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "labels.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ModelError, match="expected a file beside it"):
        read(tmp_path / "model", 'labels = "labels.txt"')


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\n\nb\n", "expected a class name in each line, got none in line 2"),
        (b"\xff\xfe", "expected class names in UTF-8"),
        (b"\n", "expected 1 to 100,000 class names, got 0"),
        (b"a" * ((4 << 20) + 1), "expected at most 4,194,304 bytes of class names"),
    ],
)
def test_a_file_of_labels_is_checked(tmp_path: Path, content: bytes, words: str) -> None:
    """The message names that file."""
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(ModelError, match=rf"labels\.txt: {words}"):
        read(tmp_path, 'labels = "labels.txt"')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[preproces]", "preproces: expected a known key, got 'preproces'; did you mean [preprocess]?"),
        ("[input]\nlayuot = 'x'", "input.layuot: expected a known key, got 'layuot'; did you mean input.layout?"),
        ("[input]\nimgsz = 640", "input.imgsz: expected a known key, got 'imgsz'; did you mean input.size?"),
        ("conf = 1", "conf: expected a known key, got 'conf'; did you mean postprocess.score_threshold?"),
        ("names = ['a']", "names: expected a known key, got 'names'; did you mean labels?"),
        ("[output]\ncolor = 'rgb'", "output.color: expected a known key, got 'color'; did you mean input.color?"),
        ("[batch]\nqqq = 1", "batch.qqq: expected a known key, got 'qqq'; known here: sizes, max"),
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(tmp_path: Path, text: str, words: str) -> None:
    """The near miss, another program's word, or the right word in the wrong table."""
    assert refusal(tmp_path, text) == [words]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[input]\ncolor = 'grb'", "input.color: expected 'rgb', 'bgr' or 'gray', got 'grb'"),
        (
            "[input]\nsize = [640, 384]",
            "input.size: expected a number of pixels for a square, or { width = 640, height = 384 }, got [640, 384]",
        ),
        ("[input]\nsize = { width = 0, height = 1 }", "input.size.width: expected at least 1, got 0"),
        ("[input]\nsize = { width = 1 }", "input.size.height: expected a number of pixels, got none"),
        ("[preprocess]\nstd = [0, 1, 1]", "preprocess.std: expected numbers above 0, got [0, 1, 1]"),
        ("[preprocess]\nmean = [1, 2]", "preprocess.mean: expected one number, or one for each channel, got [1, 2]"),
        ("[preprocess]\nscale = '1/0'", "preprocess.scale: expected a number, got '1/0'"),
        ("[preprocess]\nantialias = 1", "preprocess.antialias: expected true or false, got 1"),
        ("[postprocess]\nscore_threshold = 2", "postprocess.score_threshold: expected at most 1, got 2"),
        ("[postprocess]\nmax_detections = 1.5", "postprocess.max_detections: expected a whole number, got 1.5"),
        ("[batch]\nsizes = [4, 1]", "batch.sizes: expected ascending numbers, got [4, 1]"),
        ("[batch]\nsizes = []", "batch.sizes: expected at least one, got []"),
        ("[batch]\nsizes = [1, 4]\nmax = 8", "batch.max: expected the largest of sizes, 4, got 8"),
        (
            "labels = [1]",
            "labels: expected a list or a table of class names, or the name of a file with one in each line, got [1]",
        ),
        ("labels = { 1 = 'a' }", "labels: expected a table of class ids from 0 on, none left out, got {'1': 'a'}"),
        ("cascade = []", "cascade: expected a single model; one model feeding another is not served yet"),
        ("[input", "expected TOML, got: Expected ']' at the end of a table declaration (at end of document)"),
    ],
)
def test_a_wrong_value_is_told_with_expectation_and_fact(tmp_path: Path, text: str, words: str) -> None:
    """File, key, what was expected, what was found."""
    assert refusal(tmp_path, text) == [words]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """Nobody corrects a file ten times."""
    lines = refusal(tmp_path, "conf = 1\n[input]\ncolor = 'x'\n[preprocess]\nscale = -1\nmean = 'x'")
    assert [line.split(":")[0] for line in lines] == ["input.color", "preprocess.scale", "preprocess.mean", "conf"]
