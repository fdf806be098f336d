"""`headworks stream` with cameras that die, several at once, policies and recordings, against a scripted server."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from headworks import cli
from headworks.v1 import frame_pb2 as pb
from support.fake_server import FakeServer, answer_every_frame
from support.http_camera import HttpCamera

PICTURE = np.full((48, 64, 3), 90, np.uint8)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.main, ["stream", *arguments])
    return result.exit_code, result.stdout, result.stderr


def clip(folder: Path, frames: int) -> Path:
    folder.mkdir()
    for number in range(frames):
        cv2.imwrite(str(folder / f"{number:03}.jpg"), PICTURE)
    return folder


def test_a_camera_that_dies_is_tried_again() -> None:
    """Each time it comes back its frames go on in the same stream, and what happened is told."""
    jpeg = cv2.imencode(".jpg", PICTURE)[1].tobytes()
    with HttpCamera(jpeg, frames=30) as camera, FakeServer(answer_every_frame) as server:
        code, out, err = run(camera.url, "--server", server.target, "--json", "--seconds", "4")
        assert camera.connections >= 2
        assert len(server.streams) == 1
        ids = [frame.frame_id for frame in server.streams[0].frames]
    assert code == 0
    assert ids == sorted(set(ids))
    assert len(ids) > 20
    assert "main.mjpg: " in err
    assert "trying again in 0.5 s" in err
    *_, last = out.splitlines()
    assert json.loads(last)["account"]["lost"] == 0


def test_a_camera_that_is_not_there_holds_up_no_other(tmp_path: Path) -> None:
    """The clip is streamed to its end while the dead camera is tried again and again."""
    with FakeServer(answer_every_frame) as server:
        code, out, err = run(
            str(clip(tmp_path / "clip", 5)), "http://127.0.0.1:9/gate", "--server", server.target, "--seconds", "1.5"
        )
    assert code == 0
    assert "clip: 5 frames: " in out
    assert "gate: http://127.0.0.1:9/gate: OpenCV cannot open it as a video; trying again in 0.5 s" in err


def test_a_password_in_a_url_is_not_told() -> None:
    """Logs travel further than cameras."""
    with FakeServer(answer_every_frame) as server:
        _, out, err = run("http://user:secret@127.0.0.1:9/gate", "--server", server.target, "--seconds", "0.3")
    assert "secret" not in out + err
    assert "http://***@127.0.0.1:9/gate" in err


def test_cameras_of_a_file_stream_as_they_are_told(tmp_path: Path) -> None:
    """Names, models, policies, weights and limits reach the server."""
    clip(tmp_path / "clip", 3)
    (tmp_path / "cameras.toml").write_text(
        """
        [[camera]]
        source = "clip"
        [[camera]]
        name = "goal"
        source = "clip"
        model = "football"
        policy = "bounded:4:newest"
        weight = 2
        max_fps = 12.5
        deadline_ms = 80
        """
    )
    with FakeServer(answer_every_frame) as server:
        code, out, _ = run(str(tmp_path / "cameras.toml"), "--server", server.target, "--policy", "every-frame")
        openings = {stream.opening.stream_name: stream.opening for stream in server.streams if stream.opening}
    assert code == 0
    assert openings["clip"].drop_policy.WhichOneof("policy") == "every_frame"
    goal = openings["goal"]
    assert (goal.models[0].name, goal.weight, goal.max_fps, goal.deadline_ms) == ("football", 2, 12.5, 80)
    assert (goal.drop_policy.bounded.depth, goal.drop_policy.bounded.drop) == (4, pb.BoundedPolicy.DROP_SIDE_NEWEST)
    assert {line.split(":")[0] for line in out.splitlines()} == {"clip", "goal"}


def test_every_frame_sends_a_file_whole_and_as_fast_as_it_is_answered(tmp_path: Path) -> None:
    """A hundred pictures of a folder take three seconds at 30 fps; here nobody waits for a clock."""
    with FakeServer(answer_every_frame) as server:
        code, out, _ = run(
            str(clip(tmp_path / "clip", 100)), "--server", server.target, "--policy", "every-frame", "--json"
        )
        assert [frame.frame_id for frame in server.streams[0].frames] == list(range(1, 101))
    assert code == 0
    account = json.loads(out.splitlines()[-1])["account"]
    assert (account["offered"], account["results"], account["replaced"]) == (100, 100, 0)


def test_the_same_source_twice_has_two_names(tmp_path: Path) -> None:
    """So that their lines can be told apart."""
    folder = str(clip(tmp_path / "clip", 2))
    with FakeServer(answer_every_frame) as server:
        _, out, _ = run(folder, folder, "--server", server.target, "--policy", "every-frame")
    assert {line.split(":")[0] for line in out.splitlines()} == {"clip", "clip-2"}


def test_save_writes_every_frame_with_the_boxes_of_those_that_got_some(tmp_path: Path) -> None:
    """The video runs at the camera's pace; the box of the scripted server is drawn."""
    path = tmp_path / "out.mp4"
    with FakeServer(answer_every_frame) as server:
        code, _, err = run(
            str(clip(tmp_path / "clip", 6)), "--server", server.target, "--policy", "every-frame", "--save", str(path)
        )
    assert code == 0
    assert f"{path}: 6 frames of clip" in err
    video = cv2.VideoCapture(str(path))
    frames = [pixels for more, pixels in iter(video.read, (False, None)) if more]
    assert len(frames) == 6
    assert all(frame.shape == PICTURE.shape for frame in frames)
    assert all(int(frame.astype(int).std()) > 3 for frame in frames)  # a flat picture, had nothing been drawn


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["clip", "clip", "--save", "out.mp4"], "expected {name} in it, since there are 2 cameras"),
        (["clip", "--policy", "bounded"], "expected a depth of 1 to 64"),
        (["clip", "--policy", "every-frame", "--deadline", "50"], "drops no frame for being late"),
        (["ftp://10.0.0.7/main"], "expected a URL of rtsp, "),
        (["clip", "--tls-cert", "me.pem"], "expected both cert and key"),
        (["clip", "--tls-ca", "missing.pem"], "missing.pem"),
        (["clip", "--token-file", "missing"], "missing"),
        (["cameras.toml"], "cameras.toml: expected a readable file"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    """Before anything is streamed, with place, expectation and fact."""
    clip(tmp_path / "clip", 1)
    monkeypatch.chdir(tmp_path)
    with FakeServer(answer_every_frame) as server:
        code, out, err = run(*arguments, "--server", server.target)
        assert server.streams == []
    assert code == 1
    assert out == ""
    assert expected in err
