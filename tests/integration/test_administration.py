"""ModelService over gRPC: what it tells, what it refuses, who may ask, what the log says. No engine runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from headworks.v1 import frame_pb2 as fpb
from headworks.v1 import model_pb2 as pb
from headworks.v1 import model_pb2_grpc
from headworks_server.core.administration import AdministrationError
from headworks_server.rpc.auth import TokenFile
from support.fake_administration import AdministeredServer, FakeAdministration
from support.server import PATIENCE_S
from support.waiting import wait_for

ORDERS = ("Load", "Unload", "Pin", "Unpin", "Swap")


class Caller:
    """Calls ModelService."""

    def __init__(self, server: AdministeredServer, token: str = "") -> None:
        self.channel = grpc.insecure_channel(server.target)
        self._stub = model_pb2_grpc.ModelServiceStub(self.channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def start(self, method: str, name: str = "", version: str = "", **fields: Any) -> Any:
        """Begin a call about one model."""
        if name or version:
            fields["model"] = fpb.ModelSelector(name=name, version=version)
        request = getattr(pb, f"{method}Request")(**fields)
        return getattr(self._stub, method).future(request, timeout=PATIENCE_S, metadata=self._metadata)

    def ask(self, method: str, name: str = "", version: str = "", **fields: Any) -> Any:
        """Make a call to its end."""
        return self.start(method, name, version, **fields).result()

    def refused(self, method: str, name: str = "", version: str = "", **fields: Any) -> tuple[str, str]:
        """The status that a call ends with."""
        with pytest.raises(grpc.RpcError) as caught:
            self.ask(method, name, version, **fields)
        return caught.value.code().name, caught.value.details()


@pytest.fixture
def models() -> FakeAdministration:
    return FakeAdministration()


@pytest.fixture
def caller(models: FakeAdministration) -> Iterator[Caller]:
    with AdministeredServer(models) as server:
        caller = Caller(server)
        with caller.channel:
            yield caller


def test_list_tells_all_models_and_their_memory(caller: Caller) -> None:
    """Resident or not, every field of each."""
    answer = caller.ask("ListModels")
    assert [(one.info.name, one.info.version, one.current) for one in answer.models] == [
        ("ball", "1", True),
        ("players", "1", True),
        ("players", "2", False),
    ]
    ball, players, _ = answer.models
    assert (ball.state, ball.detail) == (pb.MODEL_STATE_FAILED, "no such operator")
    assert (players.state, players.resident_bytes, players.leases, players.pinned) == (
        pb.MODEL_STATE_READY,
        12_300_000,
        3,
        True,
    )
    assert list(players.backends) == ["onnxruntime-cuda", "onnxruntime-cpu"]
    assert [(point.batch_size, point.seconds) for point in players.curve] == [(1, 0.004), (4, 0.0135)]
    assert (players.target_batch, players.info.generation, list(players.info.labels)) == (4, 1, ["player", "ball"])
    assert players.residency == pb.ResidencyCounters(
        hits=7, loads=2, failures=1, evictions=1, falls=1, reloads=4, last_load_seconds=0.5
    )
    assert answer.memory == pb.ModelMemory(
        budget_bytes=400_000_000, used_bytes=412_300_000, over_bytes=12_300_000, thrashing=["ball", "players"]
    )


def test_get_tells_one_model(caller: Caller) -> None:
    """The current version, or the one that is named."""
    assert caller.ask("GetModel", "players").model.info.version == "1"
    assert caller.ask("GetModel", "players", "2").model.state == pb.MODEL_STATE_COLD
    assert caller.refused("GetModel", "tennis") == (
        "NOT_FOUND",
        "no model 'tennis': this server has ball, players",
    )


@pytest.mark.parametrize("order", ORDERS)
def test_order_is_done_and_answered_with_the_model(caller: Caller, models: FakeAdministration, order: str) -> None:
    """Name and version go through as they were sent."""
    assert caller.ask(f"{order}Model", "players", "2").model.info.version == "2"
    assert (order.lower(), "players", "2") in models.asked


def test_swap_back(caller: Caller, models: FakeAdministration) -> None:
    """It has no version of its own."""
    caller.ask("SwapModel", "players", back=True)
    assert models.asked[0] == ("swap back", "players", "")
    code, detail = caller.refused("SwapModel", "players", "2", back=True)
    assert (code, detail) == ("INVALID_ARGUMENT", "players: expected no version on the way back, got '2'")


@pytest.mark.parametrize("kind", ["not_found", "failed_precondition", "resource_exhausted", "unavailable"])
def test_refusal_of_the_host_becomes_a_status(caller: Caller, models: FakeAdministration, kind: Any) -> None:
    """With its detail; the log says the same."""
    models.refusal = AdministrationError(kind, "needs 20,000,000 bytes")
    with capture_logs() as logs:
        assert caller.refused("LoadModel", "players") == (kind.upper(), "needs 20,000,000 bytes")
    (line,) = [line for line in logs if line["event"] == "administration"]
    assert (line["outcome"], line["detail"]) == (kind.upper(), "needs 20,000,000 bytes")


def test_defect_of_the_host_ends_its_call_alone(caller: Caller, models: FakeAdministration) -> None:
    """INTERNAL, and the next call is served."""
    models.refusal = RuntimeError("boom")
    with capture_logs() as logs:
        assert caller.refused("PinModel", "players") == ("INTERNAL", "a defect of the server: RuntimeError('boom')")
    assert [line["log_level"] for line in logs if line["event"] == "administration"] == ["error"]
    models.refusal = None
    assert caller.ask("PinModel", "players").model.pinned


@pytest.mark.parametrize("name", ["", "..", ".hidden", "../players", "a/b", "a\\b", "players\n", "a" * 65, "é", "\0"])
def test_names_are_checked_before_anything_sees_them(caller: Caller, models: FakeAdministration, name: str) -> None:
    """Every method, names and versions alike."""
    for method in ("GetModel", *(f"{order}Model" for order in ORDERS)):
        code, detail = caller.refused(method, name, model=fpb.ModelSelector(name=name))
        assert (code, detail.startswith("model ")) == ("INVALID_ARGUMENT", True)
        if name:
            assert caller.refused(method, "players", name)[0] == "INVALID_ARGUMENT"
    assert caller.refused("GetModelStatistics", models=[fpb.ModelSelector(name=name)])[0] == "INVALID_ARGUMENT"
    assert models.asked == []


def test_wrong_name_of_any_length_is_told_in_short(caller: Caller) -> None:
    """A status has little room; a log line, too."""
    with capture_logs() as logs:
        code, detail = caller.refused("GetModel", "a" * 1_000_000)
    assert (code, len(detail) < 300) == ("INVALID_ARGUMENT", True)
    assert len(str(logs)) < 1000


def test_statistics_are_by_name(caller: Caller) -> None:
    """Over all versions that serve under it; the ledger balances."""
    ball, players = caller.ask("GetModelStatistics").models
    assert (ball.info.name, dict(ball.batch_sizes), ball.ledger.received) == ("ball", {}, 0)
    assert (dict(players.batch_sizes), players.executed_seconds) == ({1: 5, 4: 20}, 1.25)
    ledger = players.ledger
    assert ledger.received == ledger.results + ledger.errors + sum(drop.count for drop in ledger.drops) == 30
    assert players.residency == pb.ResidencyCounters(
        hits=8, loads=3, failures=1, evictions=1, falls=1, reloads=4, last_load_seconds=0.5
    )


def test_statistics_of_some(caller: Caller) -> None:
    """Each once, by name; an unknown one and a version are refused."""
    asked = [fpb.ModelSelector(name=name) for name in ("players", "ball", "players")]
    assert [each.info.name for each in caller.ask("GetModelStatistics", models=asked).models] == ["ball", "players"]
    unknown = [fpb.ModelSelector(name="tennis")]
    assert caller.refused("GetModelStatistics", models=unknown)[0] == "NOT_FOUND"
    versioned = [fpb.ModelSelector(name="players", version="1")]
    code, detail = caller.refused("GetModelStatistics", models=versioned)
    assert (code, "expected no version" in detail) == ("INVALID_ARGUMENT", True)


def test_swap_goes_on_when_its_client_leaves(models: FakeAdministration) -> None:
    """Half a swap would be worse than one that nobody waits for; the log tells how it ended."""
    with AdministeredServer(models) as server, capture_logs() as logs:
        models.hold = asyncio.Event()
        caller = Caller(server)
        with caller.channel:
            call = caller.start("SwapModel", "players", "2")
            wait_for(lambda: ("swap", "players", "2") in models.asked)
            call.cancel()
            assert caller.ask("GetModel", "ball").model.info.name == "ball"
            server.loop.call_soon_threadsafe(models.hold.set)
            wait_for(lambda: any(line.get("method") == "SwapModel" for line in logs))
        assert ("swapped", "players", "2") in models.asked
        assert [line["outcome"] for line in logs if line.get("method") == "SwapModel"] == ["OK"]


# Who may.


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    """A camera and the operator."""
    path = tmp_path / "tokens"
    path.touch(mode=0o600)
    path.write_text("north:abc-1\nops:abc-2\n")
    return TokenFile(path)


def test_only_admins_administer(models: FakeAdministration, tokens: TokenFile) -> None:
    """Others are refused before their names are looked at; whoever has no token is not let in at all."""
    with AdministeredServer(models, admins=["ops"], tokens=tokens) as server, capture_logs() as logs:
        camera, operator, nobody = (Caller(server, token) for token in ("abc-1", "abc-2", ""))
        with camera.channel, operator.channel, nobody.channel:
            denied = ("PERMISSION_DENIED", "expected one of the server's admins, got 'north'")
            assert camera.refused("ListModels") == denied
            assert camera.refused("UnloadModel", "../x") == denied
            assert nobody.refused("ListModels")[0] == "UNAUTHENTICATED"
            assert models.asked == []
            assert operator.ask("UnloadModel", "players").model.state == pb.MODEL_STATE_COLD
    lines = [line for line in logs if line["event"] == "administration"]
    assert [(line["method"], line["principal"], line["models"], line["outcome"]) for line in lines] == [
        ("ListModels", "north", [], "PERMISSION_DENIED"),
        ("UnloadModel", "north", ["../x"], "PERMISSION_DENIED"),
        ("UnloadModel", "ops", ["players"], "OK"),
    ]
    assert all(line["peer"].startswith("ipv4:127.0.0.1:") for line in lines)


def test_without_admins_everyone_who_is_let_in_is_one(models: FakeAdministration, tokens: TokenFile) -> None:
    """The tokens still guard it."""
    with AdministeredServer(models, tokens=tokens) as server:
        camera, nobody = Caller(server, "abc-1"), Caller(server)
        with camera.channel, nobody.channel:
            assert len(camera.ask("ListModels").models) == 3
            assert nobody.refused("ListModels")[0] == "UNAUTHENTICATED"


def test_client_without_a_name_is_no_admin(models: FakeAdministration) -> None:
    """Where names are asked for and the server knows none."""
    with AdministeredServer(models, admins=["ops"]) as server:
        caller = Caller(server)
        with caller.channel:
            code, detail = caller.refused("ListModels")
    assert (code, detail.endswith("got a client without a name")) == ("PERMISSION_DENIED", True)
