"""The samples made from bare stubs tell the same as the Python client: `make test-clients` builds and runs them.

They know nothing of credit, mailboxes or reconnecting: the proto alone is enough to stream frames and to account for
each of them. Not part of a plain run: Go and Node are needed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import headworks
from headworks.v1 import frame_pb2 as pb
from support.raw_camera import RawCamera, open_request
from support.server import Server

ROOT = Path(__file__).resolve().parents[2]
GO = ROOT / "clients" / "go"
NODE = ROOT / "clients" / "node" / "samples" / "basic"
CLIP = ROOT / "examples" / "football" / "clip"
FRAMES = sorted(CLIP.glob("*.jpg"))
SAMPLES = {"go": [str(ROOT / "build" / "clients" / "go-basic")], "node": ["node", str(NODE / "basic.js")]}
PATIENCE_S = 60
Outcome = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One model is enough, and sooner there than all of the example's."""
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(ROOT / "examples" / "football" / "models" / "players", models / "players")
    with Server(models, lanes=1) as running:
        yield running


@pytest.fixture(scope="module")
def expected(server: Server) -> list[Outcome]:
    """What the Python client is told of the clip's frames, in the words of the samples."""
    told = []
    with headworks.Client(server.target) as client, client.stream("players") as stream:
        outcomes = iter(stream)
        for file in FRAMES:
            stream.send(file.read_bytes())
            result = next(outcomes)
            assert isinstance(result, headworks.Result)
            boxes = [box._asdict() for box in result.detections]
            told.append({"frame_id": result.frame_id, "outcome": "result", "detections": boxes})
    assert sum(len(outcome["detections"]) for outcome in told) > 10 * len(FRAMES)
    return told


def run_sample(name: str, server: Server, *, fps: float, model: str = "players") -> subprocess.CompletedProcess[str]:
    options = {"server": server.target, "model": model, "fps": str(fps)}
    flags = [text for option, value in options.items() for text in (f"--{option}", value)]
    return subprocess.run([*SAMPLES[name], *flags, str(CLIP)], capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_tells_what_the_python_client_tells(name: str, server: Server, expected: list[Outcome]) -> None:
    """Frame by frame, each answered before the next is sent: the same boxes, scores and labels to the last digit."""
    ran = run_sample(name, server, fps=0)
    assert ran.returncode == 0, ran.stderr
    assert [json.loads(line) for line in ran.stdout.splitlines()] == expected


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_that_ignores_credit_accounts_for_every_frame(
    name: str, server: Server, expected: list[Outcome]
) -> None:
    """1,000 frames a second for a model of less: what is served is right, and what is replaced is told."""
    ran = run_sample(name, server, fps=1000)
    assert ran.returncode == 0, ran.stderr
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    frames = []
    for outcome in told:
        frames += range(outcome["frame_id"], outcome.get("last_frame_id", outcome["frame_id"]) + 1)
    assert frames == list(range(1, len(FRAMES) + 1))
    results = [outcome for outcome in told if outcome["outcome"] == "result"]
    assert results
    assert all(outcome == expected[outcome["frame_id"] - 1] for outcome in results)


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_tells_why_its_stream_is_refused(name: str, server: Server) -> None:
    """A model that is not there ends the program with the server's own sentence."""
    with RawCamera(server.target, open_request("goalposts")) as camera:
        _, sentence = camera.status()
    ran = run_sample(name, server, fps=0, model="goalposts")
    assert ran.returncode != 0
    assert sentence in ran.stderr
    assert ran.stdout == ""


def test_go_stubs_are_in_step_with_the_protos(tmp_path: Path) -> None:
    """`make proto` was run after the last change of a proto."""
    protos = sorted(path.relative_to(ROOT / "proto").as_posix() for path in (ROOT / "proto").rglob("*.proto"))
    module = "headworks/clients/go"
    options = ",".join([f"module={module}", *(f"M{proto}={module}/headworks/v1;headworksv1" for proto in protos)])
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iproto"]
    for plugin in ("go", "go-grpc"):
        tool = ["go", "tool", "-n", f"protoc-gen-{plugin}"]
        path = subprocess.run(tool, cwd=GO / "tools", check=True, capture_output=True, text=True).stdout.strip()
        command += [f"--plugin=protoc-gen-{plugin}={path}", f"--{plugin}_out={tmp_path}", f"--{plugin}_opt={options}"]
    subprocess.run([*command, *protos], cwd=ROOT, check=True)
    fresh = {path.name: path.read_text() for path in (tmp_path / "headworks" / "v1").iterdir()}
    assert fresh == {path.name: path.read_text() for path in (GO / "headworks" / "v1").glob("*.go")}


def test_node_reads_the_proto_that_the_server_speaks() -> None:
    """The Node sample makes its stubs when it starts; every event of the protocol has a name there."""
    script = (
        "import { loadSync } from '@grpc/proto-loader';"
        "const all = loadSync('headworks/v1/frame.proto', { includeDirs: [process.argv[1]], keepCase: true });"
        "console.log(JSON.stringify(all['headworks.v1.ServerEvent'].type.field.map((field) => field.name)));"
    )
    command = ["node", "--input-type=module", "-e", script, str(ROOT / "proto")]
    ran = subprocess.run(command, cwd=NODE, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    assert json.loads(ran.stdout) == [field.name for field in pb.ServerEvent.DESCRIPTOR.fields]


def test_lock_file_names_no_registry() -> None:
    """A lock pins what is installed by its checksum, not from where."""
    locked = json.loads((NODE / "package-lock.json").read_text())["packages"]
    packages = {name: package for name, package in locked.items() if name}
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert not [name for name, package in packages.items() if "resolved" in package]
