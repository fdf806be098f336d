"""Where settings come from: which source wins, its name in errors and in what --print-config shows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headworks_server.config import Settings, load_settings
from headworks_server.errors import ConfigError
from headworks_server.sources import Sources, leaves


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting leaks in from the machine."""
    for name in list(os.environ):
        if name.startswith("HEADWORKS_"):
            monkeypatch.delenv(name)


def write(tmp_path: Path, text: str) -> Path:
    """A configuration file."""
    path = tmp_path / "server.toml"
    path.write_text(text)
    return path


def refusal(file: Path | None = None, **overrides: object) -> str:
    """The text with which settings are refused."""
    with pytest.raises(ConfigError) as caught:
        load_settings(file, {"models": "models", **overrides})
    return str(caught.value)


def test_flags_beat_environment_beats_file_beats_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a flag that was not given is None."""
    file = write(tmp_path, "port = 1\nmax_streams = 1\nmax_batch = 1\n[sleeping]\nseed = 1\ndecoders = 1\n")
    monkeypatch.setenv("HEADWORKS_PORT", "2")
    monkeypatch.setenv("HEADWORKS_MAX_STREAMS", "2")
    monkeypatch.setenv("HEADWORKS_SLEEPING__SEED", "2")
    settings = load_settings(file, {"models": "m", "port": 3, "max_streams": None, "lanes": None})
    assert (settings.port, settings.max_streams, settings.max_batch, settings.lanes) == (3, 2, 1, None)
    assert (settings.sleeping.seed, settings.sleeping.decoders) == (2, 1)


def test_models_in_a_file_are_meant_from_the_file(tmp_path: Path) -> None:
    """The file works from any working directory; a flag is meant from the working directory."""
    file = write(tmp_path, 'models = "models"')
    assert load_settings(file).models == tmp_path / "models"
    assert load_settings(file, {"models": "mine"}).models == Path("mine")


def test_misspelt_key_in_a_file_gets_a_suggestion(tmp_path: Path) -> None:
    """Silence would serve with a default the operator believes overridden."""
    text = refusal(write(tmp_path, "max_stream = 7\n[sleeping]\ndecoder = 3\n"))
    place = tmp_path / "server.toml"
    assert text.splitlines() == [
        f"{place}: sleeping.decoder: expected a known setting, got 'decoder'; did you mean 'decoders'?",
        f"{place}: max_stream: expected a known setting, got 'max_stream'; did you mean 'max_streams'?",
    ]


def test_misspelt_variable_gets_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of other tools of the project are left alone."""
    monkeypatch.setenv("HEADWORKS_ONLY", "wire")
    assert load_settings(None, {"models": "m"}).port == 50051
    monkeypatch.setenv("HEADWORKS_MAX_STREAM", "7")
    expected = "HEADWORKS_MAX_STREAM: expected a known setting, got 'max_stream'; did you mean 'max_streams'?"
    assert refusal() == expected


def test_misspelt_nested_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part behind the double underscore counts, too."""
    monkeypatch.setenv("HEADWORKS_SLEEPING__DECODER", "7")
    assert "HEADWORKS_SLEEPING__DECODER: sleeping.decoder: expected a known setting" in refusal()


def test_wrong_value_names_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, variable or flag; all mistakes at once."""
    monkeypatch.setenv("HEADWORKS_MAX_BATCH", "many")
    lines = refusal(write(tmp_path, "port = 70000\n"), score_threshold=1.5).splitlines()
    place = tmp_path / "server.toml"
    assert sorted(lines) == [
        "--score-threshold: score_threshold: expected less than or equal to 1, got 1.5",
        f"{place}: port: expected less than or equal to 65535, got 70000",
        "HEADWORKS_MAX_BATCH: max_batch: expected a valid integer, unable to parse string as an integer, got 'many'",
    ]


def test_file_that_is_missing_or_no_toml_is_named(tmp_path: Path) -> None:
    """With the parser's line and column."""
    assert "nowhere.toml: expected a readable TOML file, got No such file" in refusal(tmp_path / "nowhere.toml")
    assert "server.toml: expected TOML, got: " in refusal(write(tmp_path, "port = \n"))
    binary = tmp_path / "server.toml"
    binary.write_bytes(b"\xff\xfe")
    assert "server.toml: expected TOML, got: " in refusal(binary)


def test_port_of_a_kubernetes_service_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service called `headworks` puts this variable into every pod beside it."""
    monkeypatch.setenv("HEADWORKS_PORT", "tcp://10.0.0.7:50051")
    monkeypatch.setenv("HEADWORKS_PORT_50051_TCP", "tcp://10.0.0.7:50051")
    monkeypatch.setenv("HEADWORKS_PORT_50051_TCP_PORT", "50051")
    monkeypatch.setenv("HEADWORKS_SERVICE_HOST", "10.0.0.7")
    monkeypatch.setenv("HEADWORKS_SERVICE_PORT", "50051")
    assert load_settings(None, {"models": "m"}).port == 50051


def test_nested_settings_that_are_no_json_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group as a whole is written as JSON in a variable."""
    monkeypatch.setenv("HEADWORKS_SLEEPING", '{"seed": 5}')
    assert load_settings(None, {"models": "m"}).sleeping.seed == 5
    monkeypatch.setenv("HEADWORKS_SLEEPING", "seed=5")
    assert 'environment: error parsing value for field "sleeping"' in refusal()


def test_paths_in_a_file_are_meant_from_the_file(tmp_path: Path) -> None:
    """All of them; an absolute one stays."""
    file = write(tmp_path, 'models = "m"\ntls_cert = "tls/server.pem"\ntls_key = "/etc/key"\ntokens_file = "tokens"\n')
    settings = load_settings(file)
    assert (settings.tls_cert, settings.tls_key) == (tmp_path / "tls" / "server.pem", Path("/etc/key"))
    assert settings.tokens_file == tmp_path / "tokens"


def test_every_setting_tells_its_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is written there, so that a person finds it."""
    file = write(tmp_path, "port = 1\nlanes = 3\n[sleeping]\nseed = 1\ndecoders = 1\n")
    monkeypatch.setenv("HEADWORKS_PORT", "2")
    monkeypatch.setenv("HEADWORKS_SLEEPING__SEED", "2")
    sources = Sources(Settings, file=file, flags={"models": "m", "max_batch": 4, "hint": None})
    assert sources.origin(["models"]) == "flag MODELS"
    assert sources.origin(["max_batch"]) == "flag --max-batch"
    assert sources.origin(["port"]) == "environment HEADWORKS_PORT"
    assert sources.origin(["sleeping", "seed"]) == "environment HEADWORKS_SLEEPING__SEED"
    assert sources.origin(["sleeping", "decoders"]) == f"file {file}"
    assert sources.origin(["lanes"]) == f"file {file}"
    assert (sources.origin(["hint"]), sources.origin(["sleeping", "target"])) == ("default", "default")


def test_a_group_in_one_variable_is_its_settings_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """HEADWORKS_SLEEPING holds JSON."""
    monkeypatch.setenv("HEADWORKS_SLEEPING", '{"seed": 5}')
    sources = Sources(Settings, file=None, flags={})
    assert sources.origin(["sleeping", "seed"]) == "environment HEADWORKS_SLEEPING"


def test_leaves_are_all_settings_in_order() -> None:
    """Groups opened, none left out."""
    paths = [path for path, _ in leaves(Settings(backend="null"))]
    assert {path[0] for path in paths} == set(Settings.model_fields)
    assert ("sleeping", "seed") in paths
    assert ("sleeping",) not in paths
