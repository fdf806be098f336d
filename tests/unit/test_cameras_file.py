"""cameras.toml and the spelling of policies: what is taken, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from headworks.commands.cameras import CameraError, CameraSpec, parse_policy, read_cameras
from headworks.policy import Policy

DEFAULTS = CameraSpec(fps=10, policy="bounded:2", weight=3)


def write(folder: Path, text: str) -> Path:
    path = folder / "cameras.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latest", Policy("latest")),
        ("bounded:4", Policy("bounded", 4)),
        ("bounded:64:newest", Policy("bounded", 64, "newest")),
        ("every-frame", Policy("every_frame")),
        ("every_frame", Policy("every_frame")),
    ],
)
def test_policies_are_spelled_in_one_word(text: str, expected: Policy) -> None:
    assert parse_policy(text) == expected


@pytest.mark.parametrize("text", ["", "newest", "bounded", "bounded:0", "bounded:65", "latest:3", "bounded:4:middle"])
def test_a_policy_that_is_none_names_those_there_are(text: str) -> None:
    with pytest.raises(CameraError, match="expected"):
        parse_policy(text)


def test_what_a_camera_leaves_out_is_as_the_flags_say(tmp_path: Path) -> None:
    """A path is meant from the file's folder; the rest of the sources stay as they are."""
    (tmp_path / "clip").mkdir()
    path = write(
        tmp_path,
        """
        [[camera]]
        name = "goal"
        source = "clip"
        fps = 25
        [[camera]]
        source = "rtsp://10.0.0.7/main"
        policy = "latest"
        [[camera]]
        source = 0
        """,
    )
    goal, gate, built_in = read_cameras(path, DEFAULTS)
    assert goal == CameraSpec(source=str(tmp_path / "clip"), name="goal", fps=25, policy="bounded:2", weight=3)
    assert (gate.source, gate.policy, gate.fps, gate.title) == ("rtsp://10.0.0.7/main", "latest", 10, "main")
    assert built_in.source == "0"


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    """With the file, the camera, the key, the expectation and the fact."""
    path = write(
        tmp_path,
        """
        server = "x"
        [[camera]]
        nam = "goal"
        [[camera]]
        source = "clip"
        weight = 17
        fps = "fast"
        policy = "bounded"
        loop = true
        """,
    )
    with pytest.raises(CameraError) as caught:
        read_cameras(path, DEFAULTS)
    assert str(caught.value).splitlines() == [
        f"{path}: unknown key 'server': expected [[camera]] tables only",
        f"{path}: camera 1: source: expected a path, a camera's number or a URL, got none",
        f"{path}: camera 1: unknown key 'nam'; did you mean 'name'?",
        f"{path}: camera 2: weight: expected 1 to 16, got 17",
        f"{path}: camera 2: fps: expected a number, got 'fast'",
        f"{path}: camera 2: policy: expected a depth of 1 to 64 in bounded:DEPTH, got 'bounded'",
        f"{path}: camera 2: unknown key 'loop'",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "expected at least one"), ("camera = 3", "expected at least one"), ("[[camera", "expected TOML, got: ")],
)
def test_a_file_without_cameras_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(CameraError, match=r"cameras\.toml: ") as caught:
        read_cameras(write(tmp_path, text), DEFAULTS)
    assert expected in str(caught.value)


def test_a_missing_file_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="expected a readable file, got: No such file"):
        read_cameras(tmp_path / "cameras.toml", DEFAULTS)
