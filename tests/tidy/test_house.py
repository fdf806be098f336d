"""The rules of the house, read from the sources: who may import whom, sizes, left-overs, generated files in step."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from headworks.v1 import frame_pb2 as pb
from headworks_server.core import outcomes

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "server" / "headworks_server"
STUBS = ROOT / "clients" / "python" / "headworks" / "v1"
HOUSE = {"core", "config", "errors", "clock"}
ROOMS = {"rpc", "media", "engine", "runtime", "telemetry"}
ROOT_MODULES = {"app", "models", "cli", "demo"}  # wire rooms together
GENERATED = {STUBS / name for name in ("frame_pb2.py", "model_pb2.py", "frame_pb2_grpc.py", "model_pb2_grpc.py")}


def sources(*folders: str) -> list[Path]:
    """Every hand-written Python or native source under the folders, repository-relative order."""
    kinds = ("*.py", "*.pyx", "*.pxd", "*.pyi", "*.hpp", "*.cpp")
    return sorted(
        path
        for folder in folders
        for kind in kinds
        for path in (ROOT / folder).rglob(kind)
        if STUBS not in path.parents and "build" not in path.parts
    )


def imported(path: Path) -> set[str]:
    """Names of the modules that a file imports, wherever the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def rooms_of(names: set[str]) -> set[str]:
    """First part below headworks_server of each imported module of the server."""
    return {name.split(".")[1] for name in names if name.startswith("headworks_server.")}


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_room_imports_only_the_house_and_itself(room: str) -> None:
    """rpc, media, engine, runtime and telemetry know core, config, errors and clock, not each other."""
    foreign = {
        (path.name, other)
        for path in (SERVER / room).rglob("*.py")
        for other in rooms_of(imported(path)) - HOUSE - {room, "__version__"}
    }
    assert foreign == set()


def test_core_imports_only_the_standard_library() -> None:
    """The rules of the contract can be read, and tested, without anything else."""
    allowed = set(sys.stdlib_module_names)
    foreign = {
        (path.name, name)
        for path in (SERVER / "core").rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] not in allowed and not name.startswith("headworks_server.core")
    }
    assert foreign == set()


def test_only_rpc_imports_grpc() -> None:
    """A room that can be tested without a socket stays so; `app` builds the server through rpc."""
    users = {
        path.parent.name for path in SERVER.rglob("*.py") if any(n.split(".")[0] == "grpc" for n in imported(path))
    }
    assert users <= {"rpc"}


def test_nothing_imports_app_but_the_commands() -> None:
    """`app` is the composition root."""
    users = {path.name for path in SERVER.rglob("*.py") if "app" in rooms_of(imported(path))}
    assert users <= {"cli.py"}


def test_native_imports_nothing_of_the_server() -> None:
    """headworks_native is the lower floor."""
    text = "".join(path.read_text() for path in sources("ext"))
    assert "headworks_server" not in text


def test_files_are_one_noun() -> None:
    """A file reads in one sitting: at most 450 lines."""
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources("server", "ext", "clients", "tests", "bench", "examples")
        if (lines := len(path.read_text().splitlines())) > 450
    }
    assert long == {}


def test_no_left_overs() -> None:
    """Nothing stands in for a feature, and no test is switched off."""
    words = ["TO" + "DO", "FIX" + "ME", "X" * 3, "NotImplemented" + "Error", "pytest." + "skip", "x" + "fail"]
    found = {
        (str(path.relative_to(ROOT)), word)
        for path in sources("server", "ext", "clients", "tests", "bench", "examples")
        for word in words
        if word in path.read_text()
    }
    assert found == set()


def test_every_module_says_what_it_is_for() -> None:
    """A file opens with a paragraph."""
    silent = [
        str(path.relative_to(ROOT))
        for path in sources("server", "clients", "bench", "tests", "examples")
        if path.suffix == ".py" and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_generated_stubs_are_in_step_with_the_protos(tmp_path: Path) -> None:
    """`make proto` was run after the last change of a proto."""
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "proto").rglob("*.proto"))
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iproto", *outputs, *protos]
    subprocess.run(command, cwd=ROOT, check=True)
    fresh = {path.name: path.read_text() for path in (tmp_path / "headworks" / "v1").iterdir()}
    kept = {path.name: path.read_text() for path in STUBS.glob("*_pb2*.py*")}
    assert kept == fresh


@pytest.mark.parametrize(
    ("ours", "wire", "prefix"),
    [
        (outcomes.DropReason, pb.DropReason, "DROP_REASON_"),
        (outcomes.DropStage, pb.DropStage, "DROP_STAGE_"),
        (outcomes.FrameErrorCode, pb.FrameErrorCode, "FRAME_ERROR_CODE_"),
        (outcomes.CloseReason, pb.CloseReason, "CLOSE_REASON_"),
    ],
)
def test_lists_of_core_equal_the_wire(ours: type[outcomes.DropReason], wire: EnumTypeWrapper, prefix: str) -> None:
    """core knows no protobuf, so its closed lists are held equal here."""
    assert {member.name: int(member) for member in ours} == {
        name.removeprefix(prefix): number for name, number in wire.items() if number
    }
