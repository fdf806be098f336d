"""`headworks stream` against a scripted server: what a person, or a program behind a pipe, gets to read.

Sources that die and come back, and several cameras at once, are in test_stream_cameras.py.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from headworks import cli
from support.fake_server import (
    FakeServer,
    answer_every_frame,
    drop_then_fail_then_answer,
    refuse,
    swap_before_the_first_result,
)

PICTURE = np.zeros((48, 64, 3), np.uint8)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.main, list(arguments))
    return result.exit_code, result.output


@pytest.fixture
def jpeg(tmp_path: Path) -> Path:
    path = tmp_path / "frame.jpg"
    cv2.imwrite(str(path), PICTURE)
    return path


def test_picture_gives_one_line_and_the_account(jpeg: Path) -> None:
    """The JPEG goes out as it lies there."""
    with FakeServer(answer_every_frame) as server:
        code, output = run("stream", str(jpeg), "--server", server.target)
        assert server.streams[0].frames[0].data == jpeg.read_bytes()
    assert code == 0
    first, last = output.splitlines()
    assert first.startswith("frame 1: ")
    assert first.endswith(" ms: ball 0.50")
    assert last == "1 frames: 0 replaced here, 1 sent; of these 1 results, dropped: 0, 0 errors, 0 lost"


def test_json_lines_tell_every_kind_of_outcome(tmp_path: Path) -> None:
    """One object a line for each outcome; the account last."""
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), PICTURE)
    with FakeServer(drop_then_fail_then_answer) as server:
        code, output = run("stream", str(tmp_path), "--server", server.target, "--json", "--fps", "50")
        assert {frame.encoding for frame in server.streams[0].frames} == {2}
    assert code == 0
    dropped, failed, served, account = (json.loads(line) for line in output.splitlines())
    assert {line["source"] for line in (dropped, failed, served, account)} == {tmp_path.name}
    assert (dropped["outcome"], dropped["frame_id"], dropped["last_frame_id"]) == ("dropped", 1, 1)
    assert dropped["counts"] == [{"reason": "REPLACED_BY_NEWER", "stage": "BEFORE_DECODE", "count": 1}]
    assert (failed["outcome"], failed["frame_id"], failed["code"]) == ("error", 2, "UNDECODABLE")
    assert failed["detail"] == "no JPEG"
    assert (served["outcome"], served["frame_id"]) == ("result", 3)
    (box,) = served["detections"]
    assert (box["x1"], box["label"]) == (3.0, "ball")
    assert set(served["timings"]) >= {"waited_us", "executed_us"}
    assert account["account"]["unaccounted"] == 0


def test_model_change_is_one_line(tmp_path: Path) -> None:
    """On standard error; and each result is named by the model that made it, the old one's last results too."""
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), PICTURE)
    with FakeServer(swap_before_the_first_result) as server:
        code, output = run("stream", str(tmp_path), "--server", server.target, "--policy", "every-frame")
    assert code == 0
    change, old, new, _ = output.splitlines()
    assert change == (
        f"{tmp_path.name}: the server says MODEL_CHANGED to football version 2 (generation 2) from frame 2 on"
    )
    assert old.startswith("frame 1: ")
    assert old.endswith(" ms: ball 0.50")
    assert new.startswith("frame 2: ")
    assert new.endswith(" ms: new ball 0.50")


def test_video_is_sent_frame_by_frame(tmp_path: Path) -> None:
    """A file that is no picture is opened as a video, and its frames go out as JPEG."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 50, (64, 48))
    for _ in range(3):
        writer.write(PICTURE)
    writer.release()
    with FakeServer(answer_every_frame) as server:
        code, output = run("stream", str(path), "--server", server.target)
        assert all(frame.data.startswith(b"\xff\xd8") for frame in server.streams[0].frames)
    assert code == 0
    assert "3 frames: " in output


def test_video_without_opencv_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The edge device without OpenCV gets a sentence, not a traceback."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"video")
    monkeypatch.setitem(sys.modules, "cv2", None)
    code, output = run("stream", str(path))
    assert code == 1
    assert "pip install 'headworks[images]'" in output


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing.jpg", "no such file or folder"),
        ("", "no pictures in this folder"),
        ("text.mp4", "cannot open it as a video"),
    ],
)
def test_source_that_cannot_be_read(tmp_path: Path, name: str, expected: str) -> None:
    """One sentence with the path."""
    (tmp_path / "text.mp4").write_text("no video")
    code, output = run("stream", str(tmp_path / name))
    assert code == 1
    assert f"{tmp_path / name}: " in output
    assert expected in output


def test_refusal_is_one_sentence(jpeg: Path) -> None:
    """The server's own reason reaches the person."""
    with FakeServer(refuse) as server:
        code, output = run("stream", str(jpeg), "--server", server.target, "--model", "tennis")
    assert code == 1
    reason = "NOT_FOUND: no model 'tennis'; there are: football"
    assert output == f"frame.jpg: {server.target} refused the stream: {reason}\n"


def test_other_distributions_add_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point of the group becomes a command; the help lists it."""
    entry = EntryPoint(name="greet", value=f"{__name__}:greet", group=cli.GROUP)
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry] if group == cli.GROUP else [])
    monkeypatch.setattr(EntryPoint, "load", lambda _: greet)
    assert "greet" in run("--help")[1]
    assert run("greet") == (0, "good day\n")
    assert run("absent")[0] == 2


@click.command()
def greet() -> None:
    """Says good day."""
    click.echo("good day")
