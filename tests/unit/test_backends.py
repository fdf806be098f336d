"""Backends by name: the chain of a model, what each name makes, how `failing` fails, and when a curve still holds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from headworks.cli import main
from headworks_server.config import FailingSettings, Settings
from headworks_server.engine import backends, failing
from headworks_server.engine.backends import CPU, CUDA, FAILING, chain_of, make_engine
from headworks_server.engine.base import Engine, Executor, ModelSpec
from headworks_server.engine.curve import Curve
from headworks_server.engine.onnxruntime import CPU_PROVIDER, OnnxRuntimeEngine
from headworks_server.errors import ConfigError, EngineError, ModelError
from headworks_server.models import load_model
from support.models import oracle_detector, save_model

CUDA_PROVIDER = "CUDAExecutionProvider"


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    save_model(tmp_path, "tiny", oracle_detector())
    return load_model(Settings(models=tmp_path, max_batch=4), "tiny")


def settings(**values: Any) -> Settings:
    return Settings(models=Path("models"), **values)


def run_of(engine: Engine) -> Executor:
    spec = engine.spec
    return engine.executor(np.zeros(spec.input.shape(1), spec.input.dtype))


def have(monkeypatch: pytest.MonkeyPatch, *providers: str) -> None:
    """A machine whose ONNX Runtime has these."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(providers))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Sessions on providers that are not here: they run on the CPU, and say that they run on what `starts` names."""

    def fake(*, starts: tuple[str, ...]) -> list[list[str]]:
        asked: list[list[str]] = []
        real = onnxruntime.InferenceSession

        class Session(real):  # type: ignore[misc, valid-type]
            def __init__(self, path: str, options: object, *, providers: list[str]) -> None:
                asked.append(providers)
                super().__init__(path, options, providers=[CPU_PROVIDER])

            def get_providers(self) -> list[str]:
                return list(starts)

        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        return asked

    return fake


@pytest.mark.parametrize(
    ("model", "server", "expected"),
    [
        ((), (), (CUDA, CPU)),
        ((), (CPU,), (CPU,)),
        ((CPU, CUDA), (CUDA,), (CPU, CUDA)),
        ((), (FAILING, CPU), (FAILING, CPU)),
    ],
    ids=["nobody says", "the server says", "the model says", "failing"],
)
def test_a_chain_is_the_models_else_the_servers(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, model: tuple[str, ...], server: tuple[str, ...], expected: object
) -> None:
    """In the order that was named; where nobody names one, CUDA before the CPU."""
    have(monkeypatch, CUDA_PROVIDER, CPU_PROVIDER)
    chosen = settings(backend_chain=server, failing=FailingSettings(load=True))
    assert chain_of(replace(spec, backends=model), chosen) == expected


def test_a_backend_that_the_machine_lacks_is_passed_over(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of the log says so where it was asked for, however often it is looked up; none where nobody asked."""
    have(monkeypatch, CPU_PROVIDER)
    backends._tell_missing.cache_clear()
    with capture_logs() as logs:
        assert chain_of(spec, settings()) == (CPU,)
    assert logs == []
    with capture_logs() as logs:
        for _ in range(2):
            assert chain_of(spec, settings(backend_chain=(CUDA, CPU))) == (CPU,)
    assert [(line["event"], line["missing"]) for line in logs] == [("backends_missing", [CUDA])]


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (("tensorrt", CPU), f"at most once of {CUDA}, {CPU}, got tensorrt"),
        ((CPU, CPU), f"at most once of {CUDA}, {CPU}, got {CPU}, {CPU}"),
        ((FAILING, CPU), f"at most once of {CUDA}, {CPU}, got {FAILING}"),
        ((CUDA,), f"one that ONNX Runtime has here, {CPU}, got {CUDA}"),
    ],
    ids=["unknown", "doubled", "failing, not configured", "alone and missing"],
)
def test_a_chain_that_cannot_be_is_refused(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, named: tuple[str, ...], words: str
) -> None:
    """The refusal names who asked, what there is and what was found."""
    have(monkeypatch, CPU_PROVIDER)
    with pytest.raises(ConfigError, match=f"^backend_chain: expected .*{words}$"):
        chain_of(spec, settings(backend_chain=named))
    with pytest.raises(ConfigError, match=f"^tiny: backends: expected .*{words}$"):
        chain_of(replace(spec, backends=named), settings())


def test_cuda_shares_one_session_among_executors(spec: ModelSpec, opened: Callable[..., list[list[str]]]) -> None:
    """The CPU stands behind CUDA for what it has no kernels for; the weights are on the device once."""
    asked = opened(starts=(CUDA_PROVIDER, CPU_PROVIDER))
    engine = make_engine(CUDA, spec, settings=settings(), threads=1)
    for _ in range(2):
        run_of(engine).run(1)
    assert asked == [[CUDA_PROVIDER, CPU_PROVIDER]]


def test_a_provider_that_does_not_start_is_an_error(spec: ModelSpec, opened: Callable[..., list[list[str]]]) -> None:
    """ONNX Runtime would go on with the CPU, and results would claim CUDA."""
    opened(starts=(CPU_PROVIDER,))
    with pytest.raises(EngineError, match=f"expected {CUDA_PROVIDER} to start, got only {CPU_PROVIDER}"):
        run_of(make_engine(CUDA, spec, settings=settings(), threads=1))


def test_a_plan_is_for_the_cpu_alone(spec: ModelSpec, opened: Callable[..., list[list[str]]], tmp_path: Path) -> None:
    """It was optimised for this processor: CUDA opens the model itself, and an engine refuses to mix the two."""
    asked = opened(starts=(CUDA_PROVIDER, CPU_PROVIDER))
    missing = tmp_path / "missing.onnx"
    run_of(make_engine(CUDA, spec, settings=settings(), threads=1, plan=missing)).run(1)
    assert len(asked) == 1
    with pytest.raises(EngineError, match=r"missing\.onnx"):
        run_of(make_engine(CPU, spec, settings=settings(), threads=1, plan=missing))
    with pytest.raises(ValueError, match=f"plan: expected none for {CUDA_PROVIDER}"):
        OnnxRuntimeEngine(spec, provider=CUDA_PROVIDER, plan=missing)


@pytest.mark.parametrize(("loads", "outcomes"), [(0, "ffff"), (2, "ff..")], ids=["all", "the first two"])
def test_failing_loads(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, loads: int, outcomes: str) -> None:
    """All of them fail, or so many from the first on."""
    monkeypatch.setattr(failing, "_loads", count(1))
    chosen = settings(failing=FailingSettings(load=True, loads=loads))
    for number, outcome in enumerate(outcomes, 1):
        fails = pytest.raises(EngineError, match=f"^tiny: load {number} fails, as it was told to$")
        with fails if outcome == "f" else nullcontext():
            make_engine(FAILING, spec, settings=chosen, threads=1).close()


def test_failing_batches(spec: ModelSpec) -> None:
    """Counted over the executors of a load, without its measuring; the next load begins anew."""
    chosen = settings(failing=FailingSettings(from_batch=3))
    for _ in range(2):
        engine = make_engine(FAILING, spec, settings=chosen, threads=1)
        engine.check(engine.measure())
        one, two = run_of(engine), run_of(engine)
        assert one.sizes == (1,)
        one.run(1)
        two.run(1)
        for executor in (one, two):
            with pytest.raises(EngineError, match=r"batch [34] fails, as it was told to"):
                executor.run(1)
            executor.close()
        engine.close()


@pytest.mark.parametrize(
    ("factor", "true"), [(1.0, True), (1.45, True), (1.55, False), (1 / 1.45, True), (1 / 1.55, False)]
)
def test_a_remembered_curve_holds_within_half(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, factor: float, true: bool
) -> None:
    """A batch of the target that costs more or less than that by half is another machine's: it is measured anew."""
    ticks = count(step=int(1e6 * factor))
    monkeypatch.setattr(OnnxRuntimeEngine, "_clock", property(lambda _: lambda: next(ticks)))
    assert OnnxRuntimeEngine(spec).check(Curve(((1, 0.001),))) is true


def test_the_check_runs_only_the_target(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times, besides the executor's warm-up; a size that the model no longer has is not run at all."""
    made = []
    executor = OnnxRuntimeEngine.executor
    monkeypatch.setattr(
        OnnxRuntimeEngine, "executor", lambda *args, **named: made.append(executor(*args, **named)) or made[-1]
    )
    engine = OnnxRuntimeEngine(spec)
    assert not engine.check(Curve(((1, 1.0), (2, 1.0))))  # far slower than it is
    assert [each.runs for each in made] == [{2: 4}]
    assert not engine.check(Curve(((1, 1.0), (64, 1.0))))
    assert len(made) == 1


def test_model_toml_names_chain_and_pace(tmp_path: Path) -> None:
    """Without `[serving]` both are left to the server; `headworks models check` shows where they came from."""
    save_model(tmp_path, "tiny", oracle_detector())
    toml = tmp_path / "tiny" / "model.toml"
    assert load_model(Settings(models=tmp_path), "tiny").backends == ()
    toml.write_text(f'[serving]\nbackends = ["{CUDA}", "{CPU}"]\nmax_frame_ms = 12\n')
    spec = load_model(Settings(models=tmp_path), "tiny")
    assert (spec.backends, spec.max_frame_ms) == ((CUDA, CPU), 12.0)
    checked = CliRunner().invoke(main, ["models", "check", str(tmp_path)])
    assert checked.exit_code == 0
    lines = [line.split("#") for line in checked.output.splitlines()]
    told = {line[0].split(" =")[0]: line[1].strip() for line in lines if len(line) == 2}
    assert told["backends"] == told["max_frame_ms"] == "tiny/model.toml"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('backends = ["tensorrt"]', r"serving\.backends\.0: expected 'onnxruntime-cuda', .*, got 'tensorrt'"),
        ("backends = []", r"serving\.backends: expected at least one, got \[\]"),
        ("max_frame_ms = 0", r"serving\.max_frame_ms: .*, got 0"),
        ("max_ms = 3", r"serving\.max_ms: expected a known key, got 'max_ms'; did you mean serving\.max_frame_ms\?"),
    ],
)
def test_a_wrong_serving_table_is_refused(tmp_path: Path, line: str, words: str) -> None:
    """With file, key, expectation and fact."""
    save_model(tmp_path, "tiny", oracle_detector())
    (tmp_path / "tiny" / "model.toml").write_text(f"[serving]\n{line}\n")
    with pytest.raises(ModelError, match=words):
        load_model(Settings(models=tmp_path), "tiny")
