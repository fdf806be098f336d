"""`headworks serve` as a person meets it: --help under headings, --print-config with origins."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from headworks_server.cli import FLAG_GROUPS, serve
from headworks_server.config import FailingSettings, Settings, SleepingSettings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting leaks in from the machine."""
    for name in list(os.environ):
        if name.startswith("HEADWORKS_"):
            monkeypatch.delenv(name)


def run(*arguments: str) -> str:
    """What the command prints."""
    result = CliRunner().invoke(serve, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_every_flag_stands_once_under_a_heading() -> None:
    """A new setting that nobody filed would not be in --help."""
    filed = [name for names in FLAG_GROUPS.values() for name in names]
    flags = {param.opts[-1].removeprefix("--").replace("-", "_") for param in serve.get_params(click.Context(serve))}
    assert sorted(filed) == sorted(flags - {"models"})
    assert set(Settings.model_fields) - {"models", "sleeping", "failing"} <= set(filed)


def test_help_has_headings_in_order() -> None:
    """With the defaults that a person would change."""
    text = run("--help")
    places = [text.index(f"\n{title}:\n") for title in FLAG_GROUPS]
    assert places == sorted(places)
    assert "[default: 50051]" in text
    assert "HEADWORKS_PORT=50051" in text


def test_print_config_shows_values_and_origins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line a setting, groups opened."""
    file = tmp_path / "server.toml"
    file.write_text('tls_cert = "server.pem"\ntls_key = "server.key"\n')
    monkeypatch.setenv("HEADWORKS_MAX_STREAMS", "7")
    lines = [
        line.split() for line in run("models", "--config", str(file), "--port", "3", "--print-config").splitlines()
    ]
    table = {line[0]: line[1:] for line in lines}
    groups = [SleepingSettings.model_fields, FailingSettings.model_fields]
    assert len(table) == len(lines) == len(Settings.model_fields) - len(groups) + sum(map(len, groups))
    assert table["models"] == ["models", "flag", "MODELS"]
    assert table["port"] == ["3", "flag", "--port"]
    assert table["max_streams"] == ["7", "environment", "HEADWORKS_MAX_STREAMS"]
    assert table["tls_cert"] == [str(tmp_path / "server.pem"), "file", str(file)]
    assert table["host"] == ["127.0.0.1", "default"]
    assert table["lanes"] == ["default"]
    assert table["admins"] == ["default"]
    assert table["sleeping.seed"] == ["1", "default"]


def test_print_config_for_machines() -> None:
    """The same facts as JSON, with the values' types."""
    shown = json.loads(run("models", "--port", "3", "--print-config", "--json"))
    assert shown["port"] == {"value": 3, "origin": "flag --port"}
    assert shown["models"] == {"value": "models", "origin": "flag MODELS"}
    assert shown["lanes"] == {"value": None, "origin": "default"}
    assert shown["insecure"] == {"value": False, "origin": "default"}


def test_print_config_prints_no_secret(tmp_path: Path) -> None:
    """Paths of secret files are shown, never what is in them."""
    tokens = tmp_path / "tokens"
    tokens.write_text("north:abc-1\n")
    text = run("models", "--tokens-file", str(tokens), "--print-config")
    assert str(tokens) in text
    assert "abc-1" not in text


def test_print_config_refuses_what_serving_would_refuse() -> None:
    """One sentence, exit status 2."""
    result = CliRunner().invoke(serve, ["models", "--port", "70000", "--print-config"])
    assert result.exit_code == 2
    assert result.output.startswith("headworks serve: --port: port: expected less than or equal to 65535, got '70000'")


def test_json_alone_is_refused() -> None:
    """It says what it belongs to."""
    result = CliRunner().invoke(serve, ["models", "--json"])
    assert result.exit_code == 2
    assert "--json: expected together with --print-config" in result.output
