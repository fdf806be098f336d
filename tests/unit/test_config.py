"""Settings: which source wins, what is refused, and that a refusal names the place, the expectation and the fact."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from headworks_server.config import METRICS_OFF, Settings, SleepingSettings, is_loopback, load_settings, usable_cores
from headworks_server.errors import ConfigError


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


def test_defaults_are_those_of_the_contract() -> None:
    """The table in the README says the same."""
    settings = load_settings(None, {"models": Path("models")})
    assert (settings.host, settings.port, settings.metrics_port) == ("127.0.0.1", 50051, 9464)
    assert (settings.max_frame_bytes, settings.waiting_bytes) == (16_000_000, 1 << 30)
    assert (settings.max_streams, settings.idle_timeout_seconds, settings.drain_grace_seconds) == (1024, 15.0, 10.0)
    assert settings.max_frame_pixels == 7680 * 4320


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


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "camera-hub"])  # noqa: S104
def test_host_that_others_reach_is_refused_unless_insecure(host: str) -> None:
    """There is no TLS yet."""
    assert "--host: host: expected a loopback address, or insecure = true" in refusal(host=host)
    assert load_settings(None, {"models": "m", "host": host, "insecure": True}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback_hosts_are_taken(host: str) -> None:
    """Every way to write it."""
    assert is_loopback(host)
    assert load_settings(None, {"models": "m", "host": host}).host == host


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "127.0.0.1:7"), ("::1", "[::1]:7"), ("[::1]", "[::1]:7")],
)
def test_address_is_what_grpc_takes(host: str, address: str) -> None:
    """IPv6 in brackets."""
    assert Settings(backend="null", host=host, port=7).address == address


def test_nested_settings_that_are_no_json_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group as a whole is written as JSON in a variable."""
    monkeypatch.setenv("HEADWORKS_SLEEPING", '{"seed": 5}')
    assert load_settings(None, {"models": "m"}).sleeping.seed == 5
    monkeypatch.setenv("HEADWORKS_SLEEPING", "seed=5")
    assert 'environment: error parsing value for field "sleeping"' in refusal()


def test_models_are_needed_only_to_run_models() -> None:
    """The stand-ins have none."""
    with pytest.raises(ConfigError, match=r"^models: expected a folder of models, got none$"):
        load_settings()
    assert load_settings(None, {"backend": "sleeping"}).models is None
    assert load_settings(None, {"backend": "null", "metrics_port": METRICS_OFF}).null_detections == 25


def test_settings_that_contradict_each_other_are_refused() -> None:
    """A target beyond the batch; a budget in which no frame fits."""
    text = refusal(sleeping={"target": 9, "max_batch": 8})
    assert text == "--sleeping: target: expected at most max_batch = 8, got 9"
    assert "waiting_bytes: expected at least max_frame_bytes = 16000000, got 5" in refusal(waiting_bytes=5)


def test_settings_cannot_be_changed() -> None:
    """What the server runs with is what was read."""
    settings = Settings(backend="null")
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


def test_direct_construction_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that tests and `app` mean what they write."""
    monkeypatch.setenv("HEADWORKS_PORT", "2")
    assert Settings(backend="null").port == 50051


def test_values_as_a_person_writes_them() -> None:
    """Levels in capitals, the scale as a number."""
    settings = load_settings(None, {"models": "m", "log_level": "INFO", "decode_scale": 1})
    assert (settings.log_level, settings.decode_scale) == ("info", "1")


@pytest.mark.parametrize("model", [Settings, SleepingSettings])
def test_every_setting_is_described(model: type[Settings] | type[SleepingSettings]) -> None:
    """`--help` prints it."""
    assert [name for name, field in model.model_fields.items() if not (field.description or "").endswith(".")] == []


def test_hint_resolves_lanes_and_threads() -> None:
    """Throughput: a lane a core, a thread each; latency: one lane with all threads."""
    cores = usable_cores()
    throughput, latency = Settings(backend="null"), Settings(backend="null", hint="latency")
    assert (throughput.lane_count, throughput.lane_threads) == (cores, 1)
    assert (latency.lane_count, latency.lane_threads) == (1, cores)
    assert Settings(backend="null", lanes=3).lane_count == 3


@pytest.mark.parametrize(("text", "most"), [("50000 100000", 1), ("max 100000", 4096), ("", 4096), ("nonsense", 4096)])
def test_a_containers_quota_counts(tmp_path: Path, text: str, most: int) -> None:
    """A lane for every core of the host would starve in a container."""
    (tmp_path / "cpu.max").write_text(text)
    assert usable_cores(tmp_path / "cpu.max") == min(most, usable_cores(tmp_path / "nowhere"))
