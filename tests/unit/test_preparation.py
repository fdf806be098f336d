"""Preparing a model in a process of its own: the same results sooner, and a child that can do no harm."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from headworks_server.config import Settings
from headworks_server.engine import preparation
from headworks_server.engine.base import Array, ModelSpec
from headworks_server.engine.onnxruntime import OnnxRuntimeEngine
from headworks_server.engine.plans import PlanStore
from headworks_server.engine.preparation import estimate_bytes, measured_bytes, plan_key, prepare
from headworks_server.errors import EngineError, PreparationError
from headworks_server.models import load_model
from support.model_zoo import boxes_after_nms, noisy, quantize, save_external, text_model, zoo_model
from support.models import Form, convolving_detector, failing_detector, oracle_detector, save_model

FACTS = '{"facts": {"resident_bytes": [[1, 1000]], "open_cpu_ms": 1.5}}'


def load(tmp_path: Path, *, max_batch: int = 2) -> ModelSpec:
    """The spec of the model that lies there, as a server would have it."""
    return load_model(Settings(models=tmp_path / "models", max_batch=max_batch), "tiny")


def make(tmp_path: Path, model: ModelProto | None = None, toml: str = "", *, max_batch: int = 2) -> ModelSpec:
    """The spec of a model, saved."""
    save_model(tmp_path / "models", "tiny", model or convolving_detector())
    if toml:
        (tmp_path / "models" / "tiny" / "model.toml").write_text(toml)
    return load(tmp_path, max_batch=max_batch)


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    """An empty one."""
    return PlanStore(tmp_path / "plans")


def pretend(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Let the child be this program; `request` is what it was asked for."""
    start = "import json, os, sys, time; request = json.load(sys.stdin)\n"
    monkeypatch.setattr(preparation, "COMMAND", (sys.executable, "-c", start + body))


def say(*lines: str) -> str:
    """A program that builds a plan and says these lines."""
    return "open(request['target'], 'w').write('plan')\n" + "\n".join(f"print({line!r}, flush=True)" for line in lines)


def outputs(engine: OnnxRuntimeEngine) -> list[Array]:
    """What an engine makes of noise."""
    memory = np.random.default_rng(3).random(engine.spec.input.shape(engine.spec.max_batch), np.float32)
    if engine.spec.input.dtype == "uint8":
        memory = (memory * 255).astype(np.uint8)
    return engine.executor(memory, sizes=(1,)).run(engine.spec.max_batch)


def left(store: PlanStore) -> list[str]:
    """What lies in the store."""
    return [path.name for path in store.folder.iterdir() if path.name != ".lock"]


def test_prepared_model_computes_the_same_and_is_found_again(
    tmp_path: Path, store: PlanStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And needs neither the original file nor another child."""
    spec = make(tmp_path)
    stages: list[tuple[str, float]] = []
    plan = prepare(spec, store=store, progress=lambda stage, fraction: stages.append((stage, fraction)))

    assert [stage for stage, _ in stages] == ["optimising", "comparing", "measuring", "done"]
    fractions = [fraction for _, fraction in stages]
    assert (fractions[0], fractions[-1], fractions) == (0, 1, sorted(fractions))
    assert [size for size, _ in plan.facts["resident_bytes"]] == [1, 2]
    assert plan.facts["open_cpu_ms"] > 0

    expected = outputs(OnnxRuntimeEngine(spec))
    monkeypatch.setattr(preparation, "COMMAND", ("/nothing",))
    spec.path.unlink()
    assert prepare(spec, store=store) == plan
    for got, one in zip(outputs(OnnxRuntimeEngine(spec, plan=plan.path)), expected, strict=True):
        np.testing.assert_allclose(got, one, rtol=1e-5, atol=1e-6)


def test_external_weights_are_inside_the_plan(tmp_path: Path, store: PlanStore) -> None:
    """It is one file, wherever it lies."""
    save_external(tmp_path / "models", "tiny", convolving_detector())
    spec = load(tmp_path)
    expected = outputs(OnnxRuntimeEngine(spec))
    plan = prepare(spec, store=store)
    assert plan.size > sum(file.stat().st_size for file in spec.path.parent.iterdir()) * 0.9
    (spec.path.parent / "model.onnx.data").unlink()
    np.testing.assert_allclose(outputs(OnnxRuntimeEngine(spec, plan=plan.path))[0], expected[0], rtol=1e-5, atol=1e-6)


def test_model_of_more_than_two_gigabytes_is_served_as_it_is(
    tmp_path: Path, store: PlanStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An optimised model is one protobuf; its external weights count."""
    save_external(tmp_path / "models", "tiny", convolving_detector())
    spec = load(tmp_path)
    size = sum(file.stat().st_size for file in spec.path.parent.iterdir())
    monkeypatch.setattr(preparation, "MAX_MODEL_BYTES", size - 1)
    with pytest.raises(PreparationError, match=f"expected at most {size - 1} bytes .*, got {size}") as caught:
        prepare(spec, store=store)
    assert caught.value.reason == "too_large"


MODELS: dict[str, tuple[ModelProto, str]] = {
    "noisy, that does not bear noise": (noisy(failing_detector()), ""),
    "boxes after an NMS": (boxes_after_nms(), 'labels = ["a"]\n[preprocess]\nscale = 1\nresize = "stretch"\n'),
    "bytes": (
        zoo_model({"output0": ("float", (4, 7, 63))}, shape=(4, 3, 48, 64), dtype="uint8"),
        '[output]\nhead = "raw"\n[input]\ncolor = "rgb"\n[preprocess]\nresize = "stretch"\n',
    ),
    "half floats": (
        zoo_model({"output0": ("float16", ("batch", 7))}, dtype="float16"),
        '[output]\nhead = "raw"\n[input]\ncolor = "rgb"\n[preprocess]\nscale = 1\nresize = "stretch"\n',
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_models_of_every_kind_are_prepared(
    tmp_path: Path, store: PlanStore, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever they take, print or fail on; the server's own output stays clean."""
    spec = make(tmp_path, *MODELS[kind])
    plan = prepare(spec, store=store)
    assert OnnxRuntimeEngine(spec, plan=plan.path).measure().sizes[-1] == spec.max_batch
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("how", ["dynamic", "qdq", "operators", "uint8"])
def test_quantized_models_compute_the_same_when_prepared(tmp_path: Path, store: PlanStore, how: str) -> None:
    """Their fusions depend on the processor most of all."""
    source = save_model(tmp_path, "source", convolving_detector(Form(width=128, height=96)))
    make(tmp_path, convolving_detector(Form(width=128, height=96)))
    quantize(source, tmp_path / "models" / "tiny" / "model.onnx", how, (1, 3, 96, 128))
    spec = load(tmp_path)
    plan = prepare(spec, store=store)
    expected = outputs(OnnxRuntimeEngine(spec))
    np.testing.assert_array_equal(outputs(OnnxRuntimeEngine(spec, plan=plan.path)), expected)


def test_model_that_cannot_run_says_why(tmp_path: Path, store: PlanStore) -> None:
    """In the runtime's words."""
    spec = make(tmp_path, failing_detector(always=True))
    with pytest.raises(PreparationError, match=r"model\.onnx: expected to be prepared, got .*Gather") as caught:
        prepare(spec, store=store)
    assert caught.value.reason == "failed"
    assert left(store) == []


def test_file_exchanged_since_it_was_described_is_not_prepared(tmp_path: Path, store: PlanStore) -> None:
    """Its plan would be found for the other one."""
    spec = make(tmp_path)
    make(tmp_path, oracle_detector())
    with pytest.raises(PreparationError, match=f"expected the SHA-256 {spec.digest}, got .*: it changed meanwhile"):
        prepare(spec, store=store)
    assert left(store) == []


def test_plan_the_runtime_does_not_take_is_told_by_its_name(tmp_path: Path) -> None:
    """So that it can be discarded."""
    spec = make(tmp_path)
    (tmp_path / "x.plan").write_bytes(b"no model")
    with pytest.raises(EngineError, match=r"x\.plan: "):
        OnnxRuntimeEngine(spec, plan=tmp_path / "x.plan").measure()


def test_key_holds_everything_that_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another model, size, thread, runtime or processor has a plan of its own; a name has not."""
    spec = make(tmp_path)
    keys = [
        plan_key(spec),
        plan_key(replace(spec, digest="f" * 64)),
        plan_key(replace(spec, max_batch=4)),
        plan_key(replace(spec, input=replace(spec.input, dtype="uint8"))),
        plan_key(spec, threads=2),
    ]
    monkeypatch.setattr("onnxruntime.__version__", "9.9.9")
    keys.append(plan_key(spec))
    monkeypatch.setattr(preparation, "_processor", lambda: {"machine": "z80"})
    keys.append(plan_key(spec))
    assert len({json.dumps(key) for key in keys}) == len(keys)
    assert plan_key(replace(spec, name="other")) == keys[-1]


def test_bytes_are_estimated_before_and_measured_after(tmp_path: Path, store: PlanStore) -> None:
    """By batch size: the next larger one that was measured, the largest at most."""
    spec = make(tmp_path, convolving_detector(channels=(32, 64, 256, 1024)), max_batch=4)
    plan = prepare(spec, store=store)
    measured = [measured_bytes(plan.facts, batch=batch) for batch in (1, 2, 3, 4, 9)]
    assert measured[2:] == [measured[3]] * 3
    for batch in (1, 4):
        assert 0.4 < estimate_bytes(spec, batch=batch) / measured_bytes(plan.facts, batch=batch) < 2.5


GARBAGE = {
    "nothing": say(),
    "no JSON": say("hello"),
    "not UTF-8": "sys.stdout.buffer.write(bytes(range(128, 256)) + b'\\n')",
    "another word": say('{"hello": 1}'),
    "a list": say("[1]"),
    "a number": say("7"),
    "a stage of nothing": say('{"stage": "x", "fraction": "much"}'),
    "deep": say("[" * 50_000),
    "no numbers": say('{"facts": {"resident_bytes": [["a", "b"]], "open_cpu_ms": 1}}'),
    "no sizes": say('{"facts": {"resident_bytes": [], "open_cpu_ms": 1}}'),
    "a half line": say(FACTS) + "\nprint('{\"sta', end='')",
    "a line without end": "while True: print('x' * 1000, end='')",
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_from_the_child_is_an_error(
    tmp_path: Path, store: PlanStore, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Nothing it says is believed, and its plan is not kept."""
    spec = make(tmp_path)
    pretend(monkeypatch, GARBAGE[kind])
    with pytest.raises(PreparationError, match=r"model\.onnx: expected to be prepared, got ") as caught:
        prepare(spec, store=store)
    assert caught.value.reason == "garbled"
    assert len(str(caught.value)) < 900
    assert left(store) == []


@pytest.mark.parametrize(
    ("end", "fact"),
    [("sys.exit(3)", "exit 3"), ("os.kill(os.getpid(), 11)", "a process killed by SIGSEGV"), ("1 / 0", "exit 1")],
)
def test_child_that_dies_is_told_with_its_last_words(
    tmp_path: Path, store: PlanStore, monkeypatch: pytest.MonkeyPatch, end: str, fact: str
) -> None:
    """The end of what it wrote to stderr, however much that was, in one line; though it said that it was done."""
    spec = make(tmp_path)
    words = (
        "for _ in range(100_000): print('noise', file=sys.stderr)\nprint('a\\nb\\0c', file=sys.stderr, flush=True)\n"
    )
    pretend(monkeypatch, f"{say(FACTS)}\n{words}{end}")
    with pytest.raises(PreparationError, match=rf"got {fact}; its last words: .*a b c") as caught:
        prepare(spec, store=store)
    assert caught.value.reason == "died"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900
    assert left(store) == []


def test_child_that_cannot_be_started_is_told(
    tmp_path: Path, store: PlanStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine may have no process left."""
    spec = make(tmp_path)
    monkeypatch.setattr(preparation, "COMMAND", ("/nothing",))
    with pytest.raises(PreparationError, match="got no process: No such file"):
        prepare(spec, store=store)
    assert left(store) == []


def test_child_that_claims_a_plan_it_did_not_write_is_not_believed(
    tmp_path: Path, store: PlanStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Facts alone are no plan."""
    spec = make(tmp_path)
    pretend(monkeypatch, f"print({FACTS!r})")
    with pytest.raises(Exception, match="expected a plan to be built, got an empty file"):
        prepare(spec, store=store)


def test_child_takes_only_what_nobody_else_wants(
    tmp_path: Path, store: PlanStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lowest priority, the first to go where memory ends, a bound on what it may hold."""
    spec = make(tmp_path)
    pretend(
        monkeypatch,
        "import resource; oom = int(open('/proc/self/oom_score_adj').read())\n"
        "said = [os.getpriority(0, 0), oom, resource.getrlimit(resource.RLIMIT_DATA)[0]]\n"
        "facts = {'resident_bytes': [[1, 1]], 'open_cpu_ms': 1, 'said': said}\n"
        + say()
        + "\nprint(json.dumps({'facts': facts}))",
    )
    assert prepare(spec, store=store, memory_bytes=1 << 30).facts["said"] == [19, 1000, 1 << 30]


def test_child_that_needs_too_much_memory_fails_alone(tmp_path: Path, store: PlanStore) -> None:
    """The runtime's allocation fails in the child, and says so."""
    huge = text_model(
        "(float[batch,3,48,64] images) => (float[batch,7,n] output0) <int64[3] shape = {1, 7, 200000000}> {"
        " mean = ReduceMean<axes=[2,3]>(images) first = ReduceMax<axes=[1]>(mean) output0 = Expand(first, shape) }"
    )
    spec = make(
        tmp_path, huge, '[output]\nhead = "raw"\n[input]\ncolor = "rgb"\n[preprocess]\nscale = 1\nresize = "stretch"\n'
    )
    with pytest.raises(PreparationError, match="llocat") as caught:
        prepare(spec, store=store, memory_bytes=1 << 30)
    assert caught.value.reason == "failed"
    assert left(store) == []


def test_error_of_the_caller_ends_the_child(tmp_path: Path, store: PlanStore) -> None:
    """It is the caller's, and nothing is left behind."""
    spec = make(tmp_path)

    def progress(stage: str, _: float) -> None:
        raise LookupError(stage)

    with pytest.raises(Exception, match="optimising"):
        prepare(spec, store=store, progress=progress)
    assert left(store) == []


@pytest.mark.parametrize("when", ["before", "while"])
def test_cancel_ends_the_child(tmp_path: Path, store: PlanStore, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Also one that says nothing any more, and has closed its ears."""
    spec = make(tmp_path)
    stage = json.dumps({"stage": "x", "fraction": 0.5})
    pretend(monkeypatch, say(stage) + "\nos.close(1); os.close(2); time.sleep(600)")
    cancel = threading.Event()
    if when == "before":
        cancel.set()
    said: list[Any] = []

    def progress(stage: str, fraction: float) -> None:
        said.append((stage, fraction))
        cancel.set()

    with pytest.raises(PreparationError, match="got a cancel") as caught:
        prepare(spec, store=store, cancel=cancel, progress=progress)
    assert caught.value.reason == "cancelled"
    assert said == ([("x", 0.5)] if when == "while" else [])
    assert left(store) == []
