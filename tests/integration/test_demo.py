"""`headworks demo` from the command line to the summary, against a server whose behaviour the test chooses."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from headworks_server.demo import child
from headworks_server.demo.command import demo
from headworks_server.demo.teams import load_crops

FAKE_SERVE = Path(__file__).resolve().parent.parent / "support" / "fake_serve.py"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Five different frames of 1280x720."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(5):
        cv2.imwrite(str(folder / f"{number:04}.jpg"), np.full((720, 1280, 3), 40 * number, np.uint8))
    return folder


class Demo:
    """Runs the demo with two cameras for half a second."""

    def __init__(self, tmp_path: Path, clip: Path) -> None:
        self.out = tmp_path / "out"
        self.models = tmp_path
        self._clip = clip

    def run(self, behaviour: str, *more: str) -> Result:
        models = self.models / behaviour
        models.mkdir(exist_ok=True)
        arguments = ["--cameras", "2", "--seconds", "0.5", "--out", str(self.out), "--clip", str(self._clip)]
        return CliRunner().invoke(demo, [*arguments, "--model-dir", str(models), *more])

    def summary(self) -> dict[str, Any]:
        return json.loads((self.out / "summary.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture
def football(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> Demo:
    monkeypatch.setattr(child, "SERVE", [sys.executable, str(FAKE_SERVE)])
    return Demo(tmp_path, clip)


def test_demo_accounts_for_every_frame(football: Demo) -> None:
    """Exit code 0, and a summary in which every sum is right."""
    result = football.run("answers")
    assert result.exit_code == 0, result.output
    summary = football.summary()
    assert (summary["model"], summary["backend"]) == ("football", "fake")
    assert [camera["name"] for camera in summary["cameras"]] == ["camera 1", "camera 2"]
    for row in [*summary["cameras"], summary["total"]]:
        assert row["offered"] == row["replaced"] + row["sent"] + row["waiting"]
        assert row["sent"] == row["received"] + row["lost"]
        assert row["received"] == row["results"] + sum(row["drops"].values()) + row["errors"]
        assert (row["unaccounted"], row["lost"]) == (0, 0)
        assert row["detections"] == row["results"] > 0
        for figure in ("age_ms", "round_trip_ms"):
            assert 0 < row[figure]["p50"] <= row[figure]["p95"] <= row[figure]["p99"] <= row[figure]["max"]
    assert summary["total"]["offered"] == 2 * 15
    # Each of its results says that two frames ran together.
    assert summary["batch_sizes"] == {"2": round(summary["total"]["results"] / 2)}
    assert summary["server_cpu_ms_per_frame"] > 0
    assert summary["client_cpu_ms_per_frame"] > 0
    assert "serve" in result.output
    assert "stream YOUR.mp4 --server 127.0.0.1:50051" in result.output


def test_video_shows_the_first_cameras_frames(football: Demo) -> None:
    """One frame for each result, at most 960x540."""
    football.run("answers")
    video = cv2.VideoCapture(str(football.out / "annotated.mp4"))
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (960, 540)
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == football.summary()["cameras"][0]["results"]
    video.release()


def test_first_cameras_players_are_told_by_team(football: Demo) -> None:
    """A folder with `players` and `teams`: each of the clip's five pictures is asked about once, after the cameras."""
    for name in ("players", "teams"):
        (football.models / "teams" / name).mkdir(parents=True)
    result = football.run("teams")
    assert result.exit_code == 0, result.output
    teams = football.summary()["teams"]
    assert teams == {"sent": 5, "results": 5, "players": {"red": 5}}
    assert "teams of camera 1: 5 players in 5 pictures: 5 red" in result.output


def test_teams_model_is_shown_the_players_of_the_clip(football: Demo, clip: Path) -> None:
    """Frames are crops by the clip's ground truth; the video shows each beside its class."""
    boxes = [{"class": 0, "box": [10, 20, 50, 100]}, {"class": 1, "box": [700, 300, 730, 380]}]
    ball = {"class": 2, "box": [600, 300, 612, 312]}
    frames = [{"file": f"{number:04}.jpg", "objects": [*boxes, ball]} for number in range(5)]
    (clip / "ground_truth.json").write_text(json.dumps({"classes": ["player", "referee", "ball"], "frames": frames}))
    assert [cv2.imdecode(np.frombuffer(crop, np.uint8), 1).shape for crop in load_crops(clip)] == [
        (80, 40, 3),
        (80, 30, 3),
    ] * 5
    (football.models / "teams" / "teams").mkdir(parents=True)
    result = football.run("teams", "--model", "teams")
    assert result.exit_code == 0, result.output
    total = football.summary()["total"]
    assert total["detections"] == total["results"] > 0
    assert football.summary()["teams"] is None
    video = cv2.VideoCapture(str(football.out / "annotated.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == football.summary()["cameras"][0]["results"]
    video.release()


def test_teams_model_needs_to_know_where_the_players_are(football: Demo) -> None:
    """A clip without ground truth is named."""
    result = football.run("teams", "--model", "teams")
    assert result.exit_code == 2
    assert "ground_truth.json: no such file; teams is shown players, whose boxes it holds" in result.output


def test_missing_result_fails_the_demo(football: Demo) -> None:
    """A message that went missing shows as unaccounted, and the exit code says so."""
    result = football.run("forgets")
    assert result.exit_code == 1
    assert "1 frames unaccounted for" in result.output
    assert football.summary()["total"]["unaccounted"] == 2


def test_stream_without_closed_fails_the_demo(football: Demo) -> None:
    """Without the server's ledger nobody knows: received and unaccounted are null."""
    result = football.run("dies")
    assert result.exit_code == 1
    assert "the server never said Closed" in result.output
    total = football.summary()["total"]
    assert (total["received"], total["unaccounted"]) == (None, None)
    assert total["sent"] == total["lost"] + total["results"]


def test_results_without_detections_fail_the_demo(football: Demo) -> None:
    """A detector that sees no player in a football match is broken."""
    result = football.run("blind")
    assert result.exit_code == 1
    assert "camera 2: results, but no detections in them" in result.output


def test_server_that_does_not_start_is_quoted(football: Demo) -> None:
    """Its own last line, not a traceback of ours."""
    result = football.run("broken")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == (
        "headworks demo: the server ended with code 1: headworks serve: broken/model.onnx: no such model"
    )


def test_busy_port_is_one_sentence(football: Demo) -> None:
    """Exit code 2, and what to do."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = football.run("answers", "--port", str(port))
    assert result.exit_code == 2
    assert result.output == (
        f"headworks demo: port {port} of 127.0.0.1 is taken by another process; choose another with --port\n"
    )


def test_outside_the_clone_the_demo_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults are paths in the repository."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(demo, [])
    assert result.exit_code == 2
    assert "examples/football/models: no such folder; run this in the clone of the repository" in result.output


def test_clip_without_pictures(football: Demo, tmp_path: Path) -> None:
    """An empty folder is named."""
    (tmp_path / "empty").mkdir()
    result = football.run("answers", "--clip", str(tmp_path / "empty"))
    assert result.exit_code == 2
    assert "empty: expected frames named *.jpg, found none" in result.output
