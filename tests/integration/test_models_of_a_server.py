"""`headworks models` against a running server: the table, the orders, the errors in one line."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from headworks_server.core.administration import AdministrationError
from headworks_server.models_command import models as models_group
from headworks_server.models_command.asking import waiting
from headworks_server.rpc.auth import TokenFile
from support.fake_administration import AdministeredServer, FakeAdministration


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The server's log lines come from this process, too."""
    with capture_logs():
        yield


@pytest.fixture
def models() -> FakeAdministration:
    return FakeAdministration()


@pytest.fixture
def server(models: FakeAdministration) -> Iterator[AdministeredServer]:
    with AdministeredServer(models) as server:
        yield server


def run(server: AdministeredServer | str, *arguments: object) -> Result:
    """Run the command in this process."""
    target = server if isinstance(server, str) else server.target
    given = [*map(str, arguments), "--server", target]
    return CliRunner().invoke(models_group, given, catch_exceptions=False)


def fault(server: AdministeredServer | str, *arguments: object) -> str:
    """The one line with which it fails."""
    result = run(server, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    return line


def test_list_shows_models_and_memory(server: AdministeredServer) -> None:
    """A line each, why one is not well, the memory, and what it is too small for."""
    result = run(server, "list")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "model    version          state    memory  used by  pinned  hits  loads  evicted  batch ms",
        "ball     1                failed   0.0 MB        0  no         0      0        0",
        "players  1                ready   12.3 MB        3  yes        7      2        1  1: 4, 4*: 13.5",
        "players  2 (not current)  cold     0.0 MB        0  no         1      1        0",
        "ball 1 is failed: no such operator",
        "memory: 412.3 MB of 400.0 MB, over by 12.3 MB; too little for ball, players: evicted and loaded over and over",
    ]


def test_list_for_machines(server: AdministeredServer) -> None:
    """A line for each model, the last for the memory."""
    ball, players, cold, memory = map(json.loads, run(server, "list", "--json").stdout.splitlines())
    assert (ball["model"], ball["state"], ball["detail"]) == ("ball", "failed", "no such operator")
    assert (cold["version"], cold["current"], cold["state"]) == ("2", False, "cold")
    assert players["curve"] == {"1": 0.004, "4": 0.0135}
    assert (players["resident_bytes"], players["leases"], players["target_batch"]) == (12_300_000, 3, 4)
    assert players["residency"]["reloads"] == 4
    assert memory["memory"]["thrashing"] == ["ball", "players"]


@pytest.mark.parametrize(
    ("order", "line"),
    [
        ("load", "players: version 2, ready, 0.0 MB, onnxruntime-cpu, not current"),
        ("unload", "players: version 2, cold, 0.0 MB, onnxruntime-cpu, not current"),
        ("pin", "players: version 2, cold, 0.0 MB, onnxruntime-cpu, not current, pinned"),
        ("unpin", "players: version 2, cold, 0.0 MB, onnxruntime-cpu, not current"),
        ("swap", "players: version 2, cold, 0.0 MB, onnxruntime-cpu, not current"),
    ],
)
def test_order_tells_the_model_as_it_is_now(
    server: AdministeredServer, models: FakeAdministration, order: str, line: str
) -> None:
    """One line, or one object."""
    result = run(server, order, "players", "--version", "2")
    assert (result.exit_code, result.output) == (0, line + "\n")
    assert models.asked[0] == (order, "players", "2")
    assert json.loads(run(server, order, "players", "--json").stdout)["version"] == "1"


def test_swap_back(server: AdministeredServer, models: FakeAdministration) -> None:
    """Back is a place of its own, not a version."""
    assert run(server, "swap", "players", "--back").exit_code == 0
    assert models.asked[0] == ("swap back", "players", "")
    result = run(server, "swap", "players", "--back", "--version", "1")
    assert (result.exit_code, "--back: expected it without --version, got both" in result.stderr) == (2, True)


def test_stats_tell_frames_batches_and_residency(server: AdministeredServer) -> None:
    """Of one model, or of all."""
    assert run(server, "stats", "players").stdout.splitlines() == [
        "players: version 1, generation 1",
        "  frames: 30 received, 25 results, dropped: 1 MODEL_LOADING, 3 REPLACED_BY_NEWER, 1 errors",
        "  batches: 5 of 1, 20 of 4; 1.250 s in the engine",
        "  residency: 8 hits, 3 loads, 1 failures, 1 evictions, 1 falls, 4 reloads; last load 0.500 s",
    ]
    ball, players = map(json.loads, run(server, "stats", "--json").stdout.splitlines())
    assert (ball["model"], ball["received"], ball["batch_sizes"]) == ("ball", 0, {})
    assert players["drops"] == {"MODEL_LOADING": 1, "REPLACED_BY_NEWER": 3}
    assert (players["batch_sizes"], players["executed_seconds"]) == ({"1": 5, "4": 20}, 1.25)


def test_refusal_is_one_line(server: AdministeredServer, models: FakeAdministration) -> None:
    """Server, status, reason; the exit code says that it was not done."""
    models.refusal = AdministrationError("resource_exhausted", "players needs 20 MB, 4 MB are free")
    expected = f"Error: {server.target}: RESOURCE_EXHAUSTED: players needs 20 MB, 4 MB are free"
    assert fault(server, "load", "players") == expected
    assert "INVALID_ARGUMENT: model '../x': expected 1 to 64 letters" in fault(server, "unload", "../x")


def test_server_without_administration_is_explained() -> None:
    """It says what to do."""
    with AdministeredServer(None) as server:
        for command in (["list"], ["stats"], ["load", "players"]):
            assert fault(server, *command) == (
                f"Error: {server.target}: this server does not let itself be administered: start it with --admin"
            )


def test_no_server_is_explained() -> None:
    """It says what to do."""
    line = fault("127.0.0.1:1", "list")
    assert line.startswith("Error: 127.0.0.1:1: unavailable: ")
    assert line.endswith("is the server running? Start one with: headworks serve DIR --admin")


def test_several_servers_are_refused(server: AdministeredServer) -> None:
    """An order goes to one server, and it is clear to which."""
    assert fault(server, "list", "--server", "127.0.0.1:1") == "Error: expected one server to administer, got 2"


def test_token_is_shown(models: FakeAdministration, tmp_path: Path) -> None:
    """The flags are those of the other commands."""
    for name, text in (("tokens", "ops:abc-2\n"), ("mine", "abc-2\n"), ("other", "abc-3\n")):
        path = tmp_path / name
        path.touch(mode=0o600)
        path.write_text(text)
    with AdministeredServer(models, admins=["ops"], tokens=TokenFile(tmp_path / "tokens")) as server:
        assert run(server, "unpin", "players", "--token-file", tmp_path / "mine").exit_code == 0
        assert "UNAUTHENTICATED: expected a token" in fault(server, "list", "--token-file", tmp_path / "other")
        gone = tmp_path / "gone"
        assert fault(server, "list", "--token-file", gone) == f"Error: token file {gone}: No such file or directory"


def test_a_terminal_sees_what_is_being_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """On standard error; elsewhere nothing is written."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    for stream, seen in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with waiting("loading players ..."):
            pass
        assert ("loading players ..." in stream.getvalue()) == seen
