"""The backends that can run a model, by name, and the chain of them in which a model tries its luck.

The composition root asks for a model's chain when it is read, and for an engine of one of its backends when it is
loaded. A chain is explicit: the model's own (model.toml), else the server's (`backend_chain`), else CUDA where ONNX
Runtime has it, then the CPU.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import onnxruntime
import structlog

from headworks_server.config import Settings
from headworks_server.engine.base import Engine, ModelSpec
from headworks_server.engine.failing import FailingEngine
from headworks_server.engine.onnxruntime import OnnxRuntimeEngine
from headworks_server.errors import ConfigError

CPU: Final = "onnxruntime-cpu"
CUDA: Final = "onnxruntime-cuda"
FAILING: Final = "failing"
BACKENDS: Final = (CUDA, CPU, FAILING)
_PROVIDERS: Final = {CPU: "CPUExecutionProvider", CUDA: "CUDAExecutionProvider"}

log = structlog.get_logger("headworks.models")


def chain_of(spec: ModelSpec, settings: Settings) -> tuple[str, ...]:
    """The backends of a model, in the order in which they are tried; at least one, all of them to be had here.

    Raises:
        ConfigError: one of them is unknown, named twice, or the only one and not to be had.
    """
    named = spec.backends or settings.backend_chain
    place = f"{spec.name}: backends" if spec.backends else "backend_chain"
    wrong = [name for name in named if name not in BACKENDS or (name == FAILING and not settings.failing.chained)]
    if wrong or len(set(named)) < len(named):
        fact = ", ".join(wrong or named)
        raise ConfigError(f"{place}: expected each at most once of {CUDA}, {CPU}, got {fact}")
    available = set(onnxruntime.get_available_providers())
    chain = tuple(name for name in named or (CUDA, CPU) if _PROVIDERS.get(name, "CPUExecutionProvider") in available)
    if not chain:
        raise ConfigError(f"{place}: expected one that ONNX Runtime has here, {CPU}, got {', '.join(named)}")
    if named and chain != tuple(named):
        _tell_missing(place, tuple(name for name in named if name not in chain), chain)
    return chain


@cache  # a chain is asked for whenever its model is read or loaded: once is enough
def _tell_missing(place: str, missing: tuple[str, ...], chain: tuple[str, ...]) -> None:
    log.info("backends_missing", place=place, missing=list(missing), chain=list(chain))


def make_engine(name: str, spec: ModelSpec, *, settings: Settings, threads: int, plan: Path | None = None) -> Engine:
    """An engine of one backend; `plan` is a prepared file, which only the CPU has.

    Raises:
        EngineError: the backend cannot load the model.
    """
    if name == FAILING:
        return FailingEngine(OnnxRuntimeEngine(spec, hint=settings.hint, threads=threads), settings.failing)
    return OnnxRuntimeEngine(
        spec,
        hint=settings.hint,
        threads=threads,
        provider=_PROVIDERS[name],
        share_session=name == CUDA,  # the weights are on the device once
        plan=plan if name == CPU else None,
    )
