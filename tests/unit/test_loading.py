"""Loading a model: from its prepared file, from its own, and whatever the store of prepared files does."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
from structlog.testing import capture_logs

from headworks_native.lane import CompletionRing
from headworks_server.config import Settings
from headworks_server.engine.base import ModelSpec
from headworks_server.engine.curve import Curve
from headworks_server.engine.onnxruntime import OnnxRuntimeEngine
from headworks_server.engine.plans import PlanStore
from headworks_server.errors import EngineError, PlanError
from headworks_server.hosting.loading import ModelLoader
from headworks_server.models import load_model
from headworks_server.runtime.cpu import CpuLanes
from support.models import Form, oracle_detector, save_model

CHAIN = ("onnxruntime-cpu",)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    save_model(tmp_path / "models", "tiny", oracle_detector())
    return Settings(models=tmp_path / "models", plans=tmp_path / "plans", max_batch=1, lanes=2)


@pytest.fixture
def spec(settings: Settings) -> ModelSpec:
    return load_model(settings, "tiny")


@pytest.fixture
def loader(settings: Settings, spec: ModelSpec) -> ModelLoader:
    loader = ModelLoader(settings, CpuLanes(2, CompletionRing(4)))
    loader.survey(spec)
    loader.prepare(spec)
    return loader


def fail(*_: object) -> NoReturn:
    raise PlanError("the disk is full")


@pytest.mark.parametrize("act", ["find", "facts", "remember"])
def test_a_store_that_fails_costs_no_model(
    loader: ModelLoader, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """It is told, and the model is loaded and surveyed all the same."""
    monkeypatch.setattr(PlanStore, act, fail)
    with capture_logs() as lines:
        loader.survey(spec)
        loaded = loader.load(spec, CHAIN, None)
    assert len(loaded.seats) == 2
    assert {line["detail"] for line in lines if line["event"] == "plans_failed"} == {"the disk is full"}


@pytest.mark.parametrize("true", [True, False])
def test_the_curve_is_remembered_beside_the_prepared_file(
    loader: ModelLoader, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, true: bool
) -> None:
    """The next load checks it instead of measuring; one that is not true any more is measured anew."""
    first = loader.load(spec, CHAIN, None).curve
    checked: list[Curve] = []
    anew = Curve(((1, 1000.0),))

    def check(_: OnnxRuntimeEngine, curve: Curve) -> bool:
        checked.append(curve)
        return true

    monkeypatch.setattr(OnnxRuntimeEngine, "check", check)
    monkeypatch.setattr(OnnxRuntimeEngine, "measure", lambda _: anew)
    assert loader.load(spec, CHAIN, None).curve == (first if true else anew)
    assert checked == [first]


def test_bytes_are_those_that_were_measured_when_it_was_prepared(loader: ModelLoader, spec: ModelSpec) -> None:
    """Of both lanes; and the survey of a model that was loaded before says the same."""
    assert loader.load(spec, CHAIN, None).size_bytes == loader.survey(spec)


def test_a_file_that_has_changed_is_not_loaded(settings: Settings, spec: ModelSpec, tmp_path: Path) -> None:
    """Its time alone changes nothing: then its bytes are looked at."""
    loader = ModelLoader(settings.model_copy(update={"plans": None}), CpuLanes(1, CompletionRing(4)))
    loader.survey(spec)
    content = spec.path.read_bytes()
    spec.path.write_bytes(content)
    assert loader.load(spec, CHAIN, None).spec is spec
    save_model(tmp_path / "models", "tiny", oracle_detector(Form(boxes=9)))
    with pytest.raises(EngineError, match="expected the file that was read before"):
        loader.load(spec, CHAIN, None)
