"""Prepared models on disk: found only as they were written, kept whole or not at all, bounded, swept."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headworks_server.engine import plans
from headworks_server.engine.plans import Facts, PlanStore
from headworks_server.errors import PlanError

KEY = {"model": "a" * 64, "shapes": [[1, 3, 48, 64]], "options": {"threads": 1, "optimization": "all"}}
OTHER = KEY | {"model": "b" * 64}
CONTENT = b"prepared" * 100


def building(content: bytes = CONTENT, **facts: Any) -> Callable[[Path], Facts]:
    """A build that writes these bytes."""

    def build(path: Path) -> Facts:
        path.write_bytes(content)
        return facts

    return build


def names(store: PlanStore) -> set[str]:
    """What lies in the folder, but the lock."""
    return {path.name for path in store.folder.iterdir()} - {".lock"}


def test_plan_is_found_with_its_facts_by_its_key_alone(tmp_path: Path) -> None:
    """The order of a key's parts says nothing, every value does."""
    store = PlanStore(tmp_path / "deep" / "plans")
    assert store.find(KEY) is None
    written = store.write(KEY, building(bytes=7))
    found = PlanStore(store.folder).find(dict(reversed(KEY.items())) | {"shapes": ((1, 3, 48, 64),)})
    assert found == written
    assert (found.path.read_bytes(), found.size, found.facts) == (CONTENT, len(CONTENT), {"bytes": 7})
    for part in (OTHER, KEY | {"shapes": [[1, 3, 64, 48]]}, KEY | {"options": {"threads": 2}}, {}):
        assert store.find(part) is None
    assert store.rejected == 0


def test_sidecar_says_in_clear_what_the_plan_is(tmp_path: Path) -> None:
    """An operator reads it."""
    store = PlanStore(tmp_path, clock=lambda: 1_700_000_000 * 10**9)
    path = store.write(KEY, building(bytes=7)).path
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert (sidecar["key"], sidecar["size"], sidecar["facts"]) == (KEY, len(CONTENT), {"bytes": 7})
    assert sidecar["created"] == "2023-11-14T22:13:20+00:00"
    assert names(store) == {path.name, f"{path.stem}.json"}


def change(path: Path, **fields: Any) -> None:
    """Change the sidecar of a plan."""
    sidecar = path.with_suffix(".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | fields))


def swap(path: Path) -> None:
    """Put another key's whole pair in its place."""
    other = PlanStore(path.parent).write(OTHER, building()).path
    for kind in (".plan", ".json"):
        os.replace(other.with_suffix(kind), path.with_suffix(kind))


def link(path: Path) -> None:
    """Put a link to the very same bytes in its place."""
    os.replace(path, path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


def pipe(path: Path) -> None:
    """Put a pipe in its place, which would be waited for."""
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "one byte": lambda path: path.write_bytes(CONTENT[:-1] + b"D"),
    "truncated": lambda path: os.truncate(path, 11),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(CONTENT + b"!"),
    "gone": lambda path: path.unlink(),
    "a link": link,
    "a pipe": pipe,
    "no sidecar": lambda path: path.with_suffix(".json").unlink(),
    "empty sidecar": lambda path: os.truncate(path.with_suffix(".json"), 0),
    "cut sidecar": lambda path: os.truncate(path.with_suffix(".json"), 50),
    "sidecar of bytes": lambda path: path.with_suffix(".json").write_bytes(bytes(range(256))),
    "sidecar of another kind": lambda path: path.with_suffix(".json").write_text("[1, 2]"),
    "deep sidecar": lambda path: path.with_suffix(".json").write_text("[" * 100_000),
    "another format": lambda path: change(path, format=2),
    "another key": lambda path: change(path, key=OTHER),
    "no facts": lambda path: change(path, facts=None),
    "swapped": swap,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_plan_that_is_not_what_was_written_is_made_again(tmp_path: Path, damage: str) -> None:
    """Never trusted: removed, counted, and there is room for a new one."""
    store = PlanStore(tmp_path)
    DAMAGES[damage](store.write(KEY, building()).path)
    assert store.find(KEY) is None
    assert store.rejected == 1
    assert names(store) <= {"elsewhere"}
    assert store.write(KEY, building(b"new")).path.read_bytes() == b"new"
    assert store.find(KEY) is not None
    assert store.rejected == 1


def test_plan_replaced_while_its_predecessor_was_judged_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has made it anew meanwhile."""
    store, other = PlanStore(tmp_path), PlanStore(tmp_path)
    os.truncate(store.write(KEY, building()).path, 9)
    judge = plans._Pair.verified

    def judge_late(pair: Any, text: str) -> Any:
        monkeypatch.setattr(plans._Pair, "verified", judge)
        other.write(KEY, building())
        return judge(pair, text)

    monkeypatch.setattr(plans._Pair, "verified", judge_late)
    assert store.find(KEY) is None
    assert store.rejected == 0
    assert store.find(KEY) is not None


def no_space(*_: object) -> None:
    """What the kernel says when a disk is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize(
    ("build", "fact"),
    [
        (lambda path: no_space(path.write_bytes(b"half")), "No space left on device"),
        (lambda path: {}[path.name], "to be built, got .*tmp"),
        (lambda _: {}, "got an empty file"),
        (lambda path: path.unlink() or {}, "No such file"),
        (building(bytes=object()), "not JSON serializable"),
        (building(share=float("nan")), "JSON"),
    ],
)
def test_build_that_fails_leaves_nothing_behind(tmp_path: Path, build: Any, fact: str, earlier: bool) -> None:
    """And the error says which plan, what was expected, and why; an earlier plan of the key goes on."""
    store = PlanStore(tmp_path)
    before = store.write(KEY, building(b"earlier")) if earlier else None
    with pytest.raises(PlanError, match=rf"{tmp_path}/[0-9a-f]{{64}}\.plan: expected .*{fact}"):
        store.write(KEY, build)
    assert store.find(KEY) == before
    assert len(names(store)) == (2 if earlier else 0)


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("call", [1, 2])
def test_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, earlier: bool
) -> None:
    """Whether the kernel tells it for the plan or for its sidecar; an earlier plan of the key goes on."""
    store = PlanStore(tmp_path)
    before = store.write(KEY, building(b"earlier")) if earlier else None
    calls: list[int] = []

    def sync(number: int) -> None:
        calls.append(number)
        if len(calls) == call:
            no_space()

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(PlanError, match="expected room and leave to keep a plan, got No space left on device"):
        store.write(KEY, building())
    assert len(names(store)) == (2 if earlier else 0)
    assert store.find(KEY) == before
    store.write(KEY, building())
    assert store.find(KEY) is not None


def test_facts_are_remembered_beside_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Added or replaced, whole or not at all; read without the plan itself."""
    store = PlanStore(tmp_path)
    assert not store.remember(KEY, {"curve": []})
    assert store.facts(KEY) is None
    plan = store.write(KEY, building(bytes=7, open_ms=1))
    assert store.remember(KEY, {"bytes": 9, "curve": [[1, 0.5]]})
    facts = {"bytes": 9, "open_ms": 1, "curve": [[1, 0.5]]}
    assert store.facts(KEY) == facts
    found = store.find(KEY)
    assert found is not None
    assert (found.facts, found.size) == (facts, plan.size)
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(PlanError, match=r"\.json: expected facts to be kept, got No space"):
        store.remember(KEY, {"bytes": 0})
    assert store.facts(KEY) == facts
    assert len(names(store)) == 2
    plan.path.unlink()
    assert store.facts(KEY) is None
    assert not store.remember(KEY, {"bytes": 0})


def test_least_recently_used_plans_make_room(tmp_path: Path) -> None:
    """A find is a use; remembering is none."""
    now_ns = 10**18

    def clock() -> int:
        nonlocal now_ns
        now_ns += 10**9
        return now_ns

    keys = [{"model": number} for number in range(4)]
    size = 1000
    store = PlanStore(tmp_path, max_bytes=3 * size + 1500, clock=clock)
    for key in keys[:3]:
        store.write(key, building(b"x" * size))
        assert store.find(key) is not None
    assert store.find(keys[0]) is not None
    store.remember(keys[1], {"bytes": 1})
    store.write(keys[3], building(b"x" * size))
    assert [store.find(key) is not None for key in keys] == [True, False, True, True]
    assert store.used_bytes <= 3 * size + 1500
    store.discard(keys[0])
    store.discard(keys[0])
    assert store.find(keys[0]) is None
    assert store.rejected == 0


def test_plan_larger_than_all_may_be_is_refused(tmp_path: Path) -> None:
    """The others stay."""
    store = PlanStore(tmp_path, max_bytes=2000)
    store.write(OTHER, building())
    with pytest.raises(PlanError, match="expected a plan of at most 2000 bytes, got 2001"):
        store.write(KEY, building(b"x" * 2001))
    assert store.find(OTHER) is not None
    assert store.find(KEY) is None


def test_left_overs_are_swept_and_strangers_are_not(tmp_path: Path) -> None:
    """What a killed process was building, and half a pair; not what is being built now, nor a stranger's file."""
    store = PlanStore(tmp_path)
    left = [f".{'c' * 64}.x.tmp", f"{'d' * 64}.plan", f"{'e' * 64}.json"]
    for name in (*left, "notes.txt", "short.plan"):
        (tmp_path / name).write_bytes(b"?")

    def build(path: Path) -> Facts:
        PlanStore(tmp_path)
        assert names(store) == {"notes.txt", "short.plan", path.name}
        return building()(path)

    path = PlanStore(tmp_path).write(KEY, build).path
    assert names(store) == {"notes.txt", "short.plan", path.name, f"{path.stem}.json"}


def test_folder_that_cannot_hold_plans_is_refused(tmp_path: Path) -> None:
    """A plan is a program: a folder that everybody may write is nobody's."""
    (tmp_path / "file").touch()
    with pytest.raises(PlanError, match=r"file: expected a folder for prepared models, got"):
        PlanStore(tmp_path / "file")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(PlanError, match="open: expected a folder not everybody may write, got mode 777"):
        PlanStore(tmp_path / "open")


def test_process_that_stopped_while_it_held_the_folder_does_not_stop_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told."""
    store = PlanStore(tmp_path)
    monkeypatch.setattr(plans, "LOCK_S", 0.02)
    with (tmp_path / ".lock").open() as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(PlanError, match=r"\.lock: expected to be held for moments, got 0\.02 s"):
            store.find(KEY)
    assert store.find(KEY) is None
