"""What can happen to a preparation from outside: killed, running away, a full disk, two servers at one folder."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from onnx import ModelProto

from headworks_server.config import Settings
from headworks_server.engine.base import ModelSpec
from headworks_server.engine.onnxruntime import OnnxRuntimeEngine
from headworks_server.engine.plans import Facts, PlanStore
from headworks_server.engine.preparation import plan_key, prepare
from headworks_server.errors import PlanError, PreparationError
from headworks_server.models import load_model
from support.model_zoo import text_model
from support.models import convolving_detector, save_model
from support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
RAW = '[output]\nhead = "raw"\n[input]\ncolor = "rgb"\n[preprocess]\nscale = 1\nresize = "stretch"\n'


def endless() -> ModelProto:
    """A model that opens, and then runs for longer than anybody waits."""
    return text_model(
        "(float[batch,3,48,64] images) => (float[batch,3] output0)"
        " <int64 count = {4611686018427387904}, bool go = {1}> {"
        " start = ReduceMean<axes=[2,3], keepdims=0>(images)"
        " output0 = Loop (count, go, start) <body = turn (int64 i, bool g, float[batch,3] x) =>"
        " (bool g_out, float[batch,3] x_out) { g_out = Identity(g) x_out = Mul(x, x) }> }"
    )


def make(folder: Path, model: ModelProto, toml: str = "") -> ModelSpec:
    """The spec of a model, saved below the folder."""
    path = save_model(folder / "models", "tiny", model)
    (path.parent / "model.toml").write_text(toml)
    return load_model(Settings(models=folder / "models", max_batch=2), "tiny")


def left(folder: Path) -> list[str]:
    """What lies in a store's folder."""
    return [path.name for path in folder.iterdir() if path.name != ".lock"]


def only_child() -> psutil.Process:
    """The process that prepares."""
    (child,) = psutil.Process().children()
    return child


def test_killed_child_is_an_error_and_the_next_one_prepares(tmp_path: Path) -> None:
    """kill -9, as the kernel does it where memory ends."""
    spec = make(tmp_path, convolving_detector())
    store = PlanStore(tmp_path / "plans")
    with pytest.raises(PreparationError, match="got a process killed by SIGKILL") as caught:
        prepare(spec, store=store, progress=lambda *_: only_child().kill())
    assert caught.value.reason == "died"
    assert left(store.folder) == []
    plan = prepare(spec, store=store)
    assert store.find(plan_key(spec)) == plan
    assert OnnxRuntimeEngine(spec, plan=plan.path).measure().sizes == (1, 2)


@pytest.mark.parametrize("end", ["cancel", "timeout"])
def test_child_that_runs_away_is_ended(tmp_path: Path, end: str) -> None:
    """Deep in the runtime's own code, where it hears of nothing."""
    spec = make(tmp_path, endless(), RAW)
    store = PlanStore(tmp_path / "plans")
    cancel = threading.Event()
    children: list[psutil.Process] = []

    def progress(*_: object) -> None:
        children.append(only_child())
        if end == "cancel":
            cancel.set()

    timeout_s = 600.0 if end == "cancel" else 2.0
    with pytest.raises(PreparationError) as caught:
        prepare(spec, store=store, cancel=cancel, progress=progress, timeout_s=timeout_s)
    assert caught.value.reason == ("cancelled" if end == "cancel" else "timeout")
    assert end == "timeout" or children
    assert not any(child.is_running() for child in children)
    assert psutil.Process().children() == []
    assert left(store.folder) == []


def test_killed_server_takes_its_child_along_and_the_next_one_sweeps(tmp_path: Path) -> None:
    """Nothing goes on preparing for nobody."""
    make(tmp_path, endless(), RAW)
    program = (
        "import sys; from pathlib import Path\n"
        "from headworks_server.config import Settings; from headworks_server.models import load_model\n"
        "from headworks_server.engine.plans import PlanStore\n"
        "from headworks_server.engine.preparation import prepare\n"
        "folder = Path(sys.argv[1]); spec = load_model(Settings(models=folder / 'models', max_batch=2), 'tiny')\n"
        "prepare(spec, store=PlanStore(folder / 'plans'), progress=lambda *_: print('on', flush=True))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"on\n"
        (child,) = psutil.Process(server.pid).children()
        assert len(left(tmp_path / "plans")) == 1
        PlanStore(tmp_path / "plans")
        assert len(left(tmp_path / "plans")) == 1
        server.kill()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    assert left(PlanStore(tmp_path / "plans").folder) == []


def may_mount(folder: Path) -> bool:
    """Mount a small disk there, where that is allowed."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(folder)]
    return shutil.which("mount") is not None and subprocess.run(mount, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with room for 256 KiB; where nothing may be mounted, the kernel's answer is put in its place."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if may_mount(folder):
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
        return

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    yield folder


def test_full_disk_leaves_nothing_and_the_model_is_served_as_it_is(tmp_path: Path, small_disk: Path) -> None:
    """Whether the runtime in the child hears it, or the store."""
    spec = make(tmp_path, convolving_detector(channels=(16, 32, 64, 256)))
    assert spec.path.stat().st_size > 256 << 10
    store = PlanStore(small_disk / "plans")
    with pytest.raises(PlanError, match=rf"{store.folder}.* expected room .*, got (\d+ bytes free|No space left)"):
        prepare(spec, store=store)
    assert left(store.folder) == []

    def build(path: Path) -> Facts:
        path.write_bytes(bytes(1 << 20))
        return {}

    with pytest.raises(PlanError, match=r"\.plan: expected room and leave to keep a plan, got No space left on device"):
        store.write(plan_key(spec), build)
    assert left(store.folder) == []
    assert OnnxRuntimeEngine(spec).measure().sizes == (1, 2)


def test_plan_damaged_on_the_disk_is_prepared_again(tmp_path: Path) -> None:
    """One bit anywhere, or an end cut off: found out before the runtime sees it."""
    spec = make(tmp_path, convolving_detector())
    store = PlanStore(tmp_path / "plans")
    whole = prepare(spec, store=store)
    content = whole.path.read_bytes()
    chance = random.Random(5)
    for turn in range(40):
        damaged = bytearray(content)
        if turn % 2:
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        else:
            del damaged[chance.randrange(len(damaged)) :]
        whole.path.write_bytes(damaged)
        assert store.find(plan_key(spec)) is None
        assert store.rejected == turn + 1

        def again(path: Path) -> Facts:
            path.write_bytes(content)
            return whole.facts

        store.write(plan_key(spec), again)
    assert prepare(spec, store=store) == whole


SHARER = """
import random, sys
from pathlib import Path
from headworks_server.engine.plans import PlanStore
number, folder = int(sys.argv[1]), Path(sys.argv[2])
chance, found = random.Random(number), 0
store = PlanStore(folder, max_bytes=2_500_000)
print("ready", flush=True)
sys.stdin.readline()
for turn in range(60):
    part = chance.randrange(4)
    content = bytes([part]) * 700_000 + f"{number} {turn}".encode()  # as two builds of one plan differ
    if chance.random() < 0.4:
        store.write({"part": part}, lambda path: path.write_bytes(content) and {"writer": number})
    elif chance.random() < 0.2:
        store.remember({"part": part}, {"seen": turn})
    else:
        plan = store.find({"part": part})
        if plan is not None:
            found += 1
            assert plan.facts["writer"] in (0, 1, 2), plan
            assert 700_000 < plan.size < 700_010, plan
assert store.rejected == 0, store.rejected
assert found > 0
print(found)
"""


def test_servers_that_share_a_folder_agree(tmp_path: Path) -> None:
    """They write, find, remember and make room for the same plans at once; none sees another's as damaged."""
    folder = tmp_path / "plans"
    pipe = subprocess.PIPE
    sharers = [
        subprocess.Popen([sys.executable, "-c", SHARER, str(number), str(folder)], cwd=ROOT, stdin=pipe, stdout=pipe)
        for number in range(3)
    ]
    for sharer in sharers:
        assert sharer.stdout is not None
        assert sharer.stdout.readline() == b"ready\n"
    ends = [sharer.communicate(b"go\n") for sharer in sharers]
    assert [sharer.returncode for sharer in sharers] == [0, 0, 0], ends
    store = PlanStore(folder)
    assert 0 < store.used_bytes <= 2_500_000
    assert len(left(folder)) % 2 == 0
    assert all(name.endswith((".plan", ".json")) for name in left(folder))


def test_servers_that_prepare_the_same_model_at_once_both_get_it(tmp_path: Path) -> None:
    """Each builds its own; the last one's stays, whole."""
    spec = make(tmp_path, convolving_detector())
    stores = [PlanStore(tmp_path / "plans") for _ in range(2)]
    meeting = threading.Barrier(2)
    plans = []

    def server(store: PlanStore) -> None:
        plans.append(prepare(spec, store=store, progress=lambda stage, _: stage == "measuring" and meeting.wait()))

    threads = [threading.Thread(target=server, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(plans) == 2
    assert plans[0].path == plans[1].path
    assert stores[0].find(plan_key(spec)) is not None
    assert [store.rejected for store in stores] == [0, 0]
    assert len(left(tmp_path / "plans")) == 2
