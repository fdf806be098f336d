"""`headworks load` against a scripted server: clocks, accounts, summary, search and report."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from headworks import cli
from headworks.commands.load import Milliseconds
from support.fake_server import Events, FakeServer, FakeStream, answer_every_frame, drop_then_fail_then_answer, refuse

SMALL = ("--frames", "64x48:gray8", "--warm-up", "0.2")


def run(server: FakeServer, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.main, ["load", "--server", server.target, *SMALL, *arguments])
    return result.exit_code, result.stdout + result.stderr


def summary_of(server: FakeServer, *arguments: str) -> dict[str, Any]:
    code, output = run(server, "--json", *arguments)
    assert code == 0, output
    summary: dict[str, Any] = json.loads(output)
    return summary


def test_every_scheduled_frame_is_accounted_for() -> None:
    """Three cameras of 20 fps for 1.2 s: each offers 24 frames, and the sums are right."""
    with FakeServer(answer_every_frame) as server:
        summary = summary_of(server, "--cameras", "3", "--fps", "20", "--seconds", "1")
        assert len(server.streams) == 3
        assert {stream.opening.stream_name for stream in server.streams if stream.opening} == {
            "load 1",
            "load 2",
            "load 3",
        }
        sent = sum(len(stream.frames) for stream in server.streams)
    total = summary["total"]
    assert total["offered"] == 72
    assert total["sent"] == sent == total["offered"] - total["replaced"]
    assert (total["results"], total["lost"], total["unaccounted"], total["errors"]) == (sent, 0, 0, 0)
    assert summary["scheduled"] == 60
    assert summary["failures"] == []
    assert summary["generator"]["cpu_ms_per_frame"] > 0
    assert summary["generator"]["late_ms"]["p50"] is not None
    assert set(summary["server_stages_ms"]) == {"waited", "decoded", "batched", "executed", "postprocessed"}


def answer_late(stream: FakeStream) -> Events:
    """Grants four frames, and answers nothing for a while: the credit runs out."""
    stream.read()
    yield stream.opened()
    stall = threading.Timer(0.7, stream.server.hold.set)
    stall.start()
    for request in stream:
        match request.WhichOneof("message"):
            case "frame":
                stream.server.hold.wait()
                yield [stream.result(request.frame), stream.credit(4 + stream.ledger.received)]
            case "end":
                yield stream.closed()


def test_a_server_that_stalls_cannot_hide_it() -> None:
    """Frames that could not even be sent age from when they were due: no coordinated omission."""
    with FakeServer(answer_late) as server:
        summary = summary_of(
            server, "--cameras", "1", "--fps", "50", "--seconds", "1", "--policy", "every-frame", "--warm-up", "0"
        )
    total = summary["total"]
    assert total["offered"] == total["results"] == 50
    assert total["age_ms"]["max"] > 500
    # Half of all frames were due while the server stood still: a closed loop would have seen four.
    assert total["age_ms"]["p50"] > 100


def test_a_closed_loop_sends_as_fast_as_it_is_answered() -> None:
    """So many on the way, never more; nothing is scheduled."""
    with FakeServer(answer_every_frame) as server:
        summary = summary_of(server, "--cameras", "2", "--closed", "2", "--seconds", "0.5")
        assert all(stream.opening and stream.opening.drop_policy.HasField("every_frame") for stream in server.streams)
    assert summary["mode"] == "closed loop, 2 on the way"
    assert summary["scheduled"] is None
    assert summary["total"]["results"] > 20
    assert summary["total"]["unaccounted"] == 0


def test_drops_and_errors_are_told_by_name() -> None:
    """In the totals and for each camera."""
    with FakeServer(drop_then_fail_then_answer) as server:
        summary = summary_of(server, "--cameras", "1", "--fps", "60", "--seconds", "0.5")
    total = summary["total"]
    assert total["drops"]["REPLACED_BY_NEWER"] >= 3
    assert total["errors"] >= 3
    assert total["received"] == total["results"] + total["errors"] + sum(total["drops"].values())


def test_a_refused_stream_is_a_failure_and_the_exit_code() -> None:
    """Its reason is told once for each camera."""
    with FakeServer(refuse) as server:
        code, output = run(server, "--cameras", "2", "--seconds", "0.2")
    assert code == 1
    assert output.count("NOT_FOUND: no model 'tennis'") == 2


def test_the_search_shows_its_steps() -> None:
    """Each run is a line, and the answer the last."""
    with FakeServer(answer_every_frame) as server:
        code, output = run(
            server, "--find-max", "--fps", "10", "--seconds", "0.3", "--p99", "10s", "--limit", "6", "--cameras", "2"
        )
        lines = output.splitlines()
    assert code == 0, output
    assert lines[0].startswith("    2 cameras: ")
    assert ": holds" in lines[0]
    assert " cameras hold: age p99 within 10000 ms, 99.0% of frames answered" in lines[-1]


def test_the_report_is_one_file_that_needs_no_other(tmp_path: Path) -> None:
    """Plots, the table of cameras and the JSON; the script is in the file."""
    path = tmp_path / "load.html"
    with FakeServer(answer_every_frame) as server:
        code, output = run(server, "--cameras", "2", "--fps", "20", "--seconds", "1", "--report", str(path))
    assert code == 0
    assert f"{path}: written" in output
    text = path.read_text()
    assert text.count("Plotly.newPlot(") == 3
    assert "load 2" in text
    assert "<script src=" not in text
    assert "results a second" in text


def test_a_report_that_cannot_be_drawn_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody wants to hear it after an hour."""
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with FakeServer(answer_every_frame) as server:
        code, output = run(server, "--report", str(tmp_path / "load.html"))
        assert server.streams == []
    assert code == 1
    assert "pip install 'headworks[report]'" in output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--frames", "15x16"], "expected even sides from 16x16 to 7680x4320"),
        (["--frames", "64x48:h264"], "expected one of jpeg, png, webp, bgr24"),
        (["--frames", "nowhere"], "no such file or folder"),
        (["--find-max", "--closed", "2"], "leave --closed out"),
        (["--p99", "soon"], "expected a time such as 100ms"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(arguments: list[str], expected: str) -> None:
    """Before anything is sent."""
    with FakeServer(answer_every_frame) as server:
        code, output = run(server, *arguments)
        assert server.streams == []
    assert code != 0
    assert expected in output


@pytest.mark.parametrize(("text", "expected"), [("100ms", 100.0), ("1.5s", 1500.0), ("80", 80.0), (" 2 S", 2000.0)])
def test_times_are_read_with_their_unit(text: str, expected: float) -> None:
    """A bare number is milliseconds."""
    assert Milliseconds().convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["0ms", "-1s", "nan", "ms", "1h", "1e9s"])
def test_times_that_are_none_are_refused(text: str) -> None:
    """With what was given."""
    with pytest.raises(click.BadParameter, match="expected a time"):
        Milliseconds().convert(text, None, None)
