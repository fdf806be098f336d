"""Prepared models: made once in a process of their own, opened by the next start, and never trusted blindly."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

import headworks
from support.finders import Finder, bright_png
from support.server import Server, refusal_to_start

BOX = (8, 6, 24, 18)


Answer = list[tuple[float, ...]]


def serve(models: Path, plans: Path) -> tuple[Answer, Server]:
    """Serve a folder of one detector, ask about one picture, and stop."""
    with Server(models, plans=plans, lanes=1) as server, headworks.Client(server.target) as client:
        answer = client.infer(bright_png(BOX), encoding="png")
        return [tuple(box[:5]) for box in answer.detections], server


@pytest.fixture(scope="module")
def served_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """A folder with `models` and the `plans` that a first start has left, and what that answered."""
    folder = tmp_path_factory.mktemp("once")
    Finder().save(folder / "models", "finder")
    answer, _ = serve(folder / "models", folder / "plans")
    assert len(answer) >= 1
    return folder, answer


def only(plans: Path, kind: str) -> Path:
    """The one file of a kind."""
    (path,) = plans.glob(f"*.{kind}")
    return path


def test_a_model_is_prepared_once_and_opened_prepared_from_then_on(served_once: tuple[Path, Answer]) -> None:
    """The second start finds the plan and makes none; what it answers is the same."""
    folder, answer = served_once
    inode = only(folder / "plans", "plan").stat().st_ino
    assert serve(folder / "models", folder / "plans")[0] == answer
    assert only(folder / "plans", "plan").stat().st_ino == inode


def test_a_damaged_plan_is_made_anew(served_once: tuple[Path, Answer], tmp_path: Path) -> None:
    """A truncated file is removed, told in the log, and never opened."""
    folder, answer = served_once
    plans = shutil.copytree(folder / "plans", tmp_path / "plans")
    plan = only(plans, "plan")
    whole = plan.read_bytes()
    plan.write_bytes(whole[: len(whole) // 2])
    again, server = serve(folder / "models", plans)
    assert again == answer
    assert server.count("plan_rejected") == 1
    assert only(plans, "plan").stat().st_size == len(whole)


def test_a_whole_plan_that_the_runtime_refuses_gives_way_to_the_original(
    served_once: tuple[Path, Answer], tmp_path: Path
) -> None:
    """Its sum is right and its content is none: the model is served from its own file all the same."""
    folder, answer = served_once
    plans = shutil.copytree(folder / "plans", tmp_path / "plans")
    sidecar, forged = only(plans, "json"), b"no model"
    facts = json.loads(sidecar.read_text()) | {"size": len(forged), "sha256": hashlib.sha256(forged).hexdigest()}
    only(plans, "plan").write_bytes(forged)
    sidecar.write_text(json.dumps(facts))
    again, server = serve(folder / "models", plans)
    assert again == answer
    assert server.count("plan_refused") == 1
    assert list(plans.glob("*.plan")) == []


def test_a_file_where_the_folder_should_be_is_told_at_start(tmp_path: Path) -> None:
    """A wrong setting is one sentence."""
    Finder().save(tmp_path / "models", "finder")
    (tmp_path / "plans").write_text("no folder")
    said = refusal_to_start(tmp_path / "models", plans=tmp_path / "plans")
    assert str(tmp_path / "plans") in said
    assert "expected" in said
