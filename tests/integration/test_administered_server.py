"""A whole server that lets itself be administered, by the commands; and one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
from click.testing import CliRunner
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from headworks_server.models_command import models
from support.models import oracle_detector, save_model
from support.server import PATIENCE_S, Server

MODEL_SERVICE = "headworks.v1.ModelService"


def services(server: Server) -> set[str]:
    """What reflection lists."""
    with grpc.insecure_channel(server.target) as channel:
        ask = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(ask, timeout=PATIENCE_S)
        (listed,) = call
    return {service.name for service in listed.list_services_response.service}


def run(server: Server, *arguments: str) -> tuple[int, str]:
    """A command's exit code and what it printed."""
    result = CliRunner().invoke(models, [*arguments, "--server", server.target], catch_exceptions=False)
    return result.exit_code, result.output


def test_models_are_moved_by_the_commands(tmp_path: Path) -> None:
    """Pinned, refused to go, let go, gone, and back; each with its line in the server's log."""
    save_model(tmp_path, "football", oracle_detector())
    with Server(tmp_path, admin=True, lanes=1, max_batch=1) as server:
        assert MODEL_SERVICE in services(server)
        steps = [
            ("pin", 0, "pinned"),
            ("unload", 1, "FAILED_PRECONDITION"),
            ("unpin", 0, "ready"),
            ("unload", 0, "cold"),
            ("load", 0, "ready"),
        ]
        for order, code, word in steps:
            ended, said = run(server, order, "football")
            assert (ended, word in said) == (code, True), (order, said)
        code, said = run(server, "list", "--json")
        model, memory = map(json.loads, said.splitlines())
        assert (code, model["state"], model["pinned"], model["residency"]["loads"]) == (0, "ready", False, 2)
        assert 0 < model["resident_bytes"] <= memory["memory"]["used_bytes"] <= memory["memory"]["budget_bytes"]
        lines = [line for line in server.lines if line.get("event") == "administration"]
        outcomes = [(line["method"], line["outcome"]) for line in lines]
        assert outcomes == [
            ("PinModel", "OK"),
            ("UnloadModel", "FAILED_PRECONDITION"),
            ("UnpinModel", "OK"),
            ("UnloadModel", "OK"),
            ("LoadModel", "OK"),
            ("ListModels", "OK"),
        ]


def test_nobody_administers_unless_the_server_was_asked(tmp_path: Path) -> None:
    """The service is not there at all."""
    save_model(tmp_path, "football", oracle_detector())
    with Server(tmp_path, lanes=1, max_batch=1) as server:
        assert MODEL_SERVICE not in services(server)
        code, said = run(server, "list")
        assert (code, "start it with --admin" in said) == (1, True)
