"""Settings: their defaults, what is refused, and that a refusal names the place, the expectation and the fact."""

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


def refusal(**overrides: object) -> str:
    """The text with which settings are refused."""
    with pytest.raises(ConfigError) as caught:
        load_settings(None, {"models": "models", **overrides})
    return str(caught.value)


def test_defaults_are_those_of_the_contract() -> None:
    """The table in the README says the same."""
    settings = load_settings(None, {"models": Path("models")})
    assert (settings.host, settings.port, settings.metrics_port) == ("127.0.0.1", 50051, 9464)
    assert (settings.metrics_host, settings.watch_seconds) == ("127.0.0.1", 0.0)
    assert (settings.max_frame_bytes, settings.waiting_bytes) == (16_000_000, 1 << 30)
    assert (settings.max_streams, settings.idle_timeout_seconds, settings.drain_grace_seconds) == (1024, 15.0, 10.0)
    assert settings.max_frame_pixels == 7680 * 4320


TLS = {"tls_cert": "server.pem", "tls_key": "server.key"}
TOKENS = {"tokens_file": "tokens"}
ELSEWHERE = ["0.0.0.0", "::", "192.168.1.7", "camera-hub"]  # noqa: S104


@pytest.mark.parametrize("host", ELSEWHERE)
def test_host_that_others_reach_is_refused_without_tls(host: str) -> None:
    """The sentence names the ways out."""
    ways = "expected a loopback address, TLS (tls_cert and tls_key), or insecure = true"
    assert refusal(host=host) == f"--host: host: {ways}, got {host!r}"
    why = "since tokens in plain text are read by everybody on the way"
    assert refusal(host=host, **TOKENS) == f"--host: host: {ways}, {why}, got {host!r}"


@pytest.mark.parametrize(
    "guard", [TLS, TLS | TOKENS, TLS | {"tls_client_ca": "ca.pem"}, {"insecure": True}, {"insecure": True} | TOKENS]
)
def test_host_that_others_reach_is_taken_with_a_guard(guard: dict[str, object]) -> None:
    """The table in config's opening paragraph, row by row."""
    for host in ELSEWHERE:
        assert load_settings(None, {"models": "m", "host": host, **guard}).host == host


def test_metrics_host_has_a_rule_of_its_own() -> None:
    """It stays on this machine when gRPC goes elsewhere, and gRPC's TLS does not guard it."""
    assert load_settings(None, {"models": "m", "host": "0.0.0.0", **TLS}).metrics_host == "127.0.0.1"  # noqa: S104
    ways = "expected a loopback address, or metrics_insecure = true (/metrics has no TLS)"
    assert refusal(metrics_host="10.0.0.7", **TLS) == f"--metrics-host: metrics_host: {ways}, got '10.0.0.7'"
    for consent in ("metrics_insecure", "insecure"):
        settings = load_settings(None, {"models": "m", "metrics_host": "10.0.0.7", consent: True})
        assert settings.metrics_host == "10.0.0.7"
    assert "--host: host:" in refusal(host="10.0.0.7", metrics_insecure=True)


@pytest.mark.parametrize("guard", [TLS, {"insecure": True}, TLS | {"insecure": True}])
def test_administration_by_anybody_is_refused(guard: dict[str, object]) -> None:
    """On a host that others reach, `insecure` or not: who may unload models must be known."""
    for host in ELSEWHERE:
        ways = f"expected tokens_file or tls_client_ca with a host that others reach ({host!r}), also under insecure"
        assert refusal(host=host, admin=True, **guard) == f"--admin: admin: {ways}, got True"
        for known in (TOKENS, TLS | {"tls_client_ca": "ca.pem"}):
            assert load_settings(None, {"models": "m", "host": host, "admin": True, **guard, **known}).admin


def test_administration_is_off_unless_asked_for() -> None:
    """On this machine alone it needs no guard; a host that is refused is told once, not twice."""
    assert not Settings(backend="null").admin
    assert load_settings(None, {"models": "m", "admin": True}).admin
    assert "admin" not in refusal(host="10.0.0.7", admin=True)
    stand_in = "admin: expected the backend onnxruntime, since stand-ins stay, got 'sleeping'"
    assert refusal(backend="sleeping", admin=True) == stand_in


def test_admins_are_names_from_each_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list in a file, commas in a flag or a variable."""
    file = tmp_path / "server.toml"
    file.write_text('models = "m"\ntokens_file = "tokens"\nadmins = ["ops", "night shift"]\n')
    assert load_settings(file).admins == ("ops", "night shift")
    monkeypatch.setenv("HEADWORKS_ADMINS", "ops, night shift,")
    assert load_settings(file).admins == ("ops", "night shift")
    assert load_settings(file, {"admins": "lead"}).admins == ("lead",)


def test_admins_need_clients_with_names() -> None:
    """Else nobody could administer."""
    text = "admins: expected tokens_file or tls_client_ca, which names clients, got neither"
    assert refusal(admins="ops") == text
    assert refusal(admins="ops", **TLS) == text
    assert load_settings(None, {"models": "m", "admins": "ops", **TLS, "tls_client_ca": "ca.pem"}).admins == ("ops",)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"tls_cert": "a"}, "tls_key: expected a file, since tls_cert is set, got none"),
        ({"tls_key": "a"}, "tls_cert: expected a file, since tls_key is set, got none"),
        ({"tls_client_ca": "a"}, "tls_cert: expected a file, since tls_client_ca is set, got none"),
    ],
)
def test_half_of_tls_is_refused(given: dict[str, object], text: str) -> None:
    """The missing half is named."""
    assert refusal(**given) == text


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
