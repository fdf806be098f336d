"""The process that prepares one model: `python -m headworks_server.engine.prepare`, started by `preparation` alone.

One JSON object comes in on stdin; lines of JSON go out on stdout: {"stage", "fraction"} on the way, then {"facts"} or
{"failure"}. The optimised model is written to the path asked for, opened again as serving will open it, held against
the original's results, warmed and measured.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import shutil
import signal
import statistics
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
import onnxruntime

from headworks_server.engine.base import Array, InputSpec, ModelSpec, OutputSpec, TensorSpec
from headworks_server.engine.graph import read_graph
from headworks_server.engine.onnxruntime import (
    OnnxRuntimeExecutor,
    doubling_sizes,
    one_line,
    open_session,
    session_options,
)
from headworks_server.engine.repository import file_digest
from headworks_server.errors import EngineError, ModelError, ServerError

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
# Both sessions run the same kernels, so next to nothing may differ; a wrong one differs by far more.
TOLERANCE: Final = 1e-3


class Telling:
    """The protocol's end of stdout. Whatever else is printed, by whatever library, goes to stderr from now on."""

    def __init__(self) -> None:
        """Take stdout away from everybody else."""
        self._file: TextIO = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def stage(self, name: str, fraction: float) -> None:
        """What is done now, and how much of all is behind."""
        self._tell({"stage": name, "fraction": fraction})

    def facts(self, facts: dict[str, Any]) -> None:
        """It is done."""
        self._tell({"facts": facts})

    def failure(self, words: str) -> None:
        """It cannot be done."""
        self._tell({"failure": words})

    def _tell(self, message: dict[str, Any]) -> None:
        self._file.write(json.dumps(message) + "\n")
        self._file.flush()


def main() -> int:
    """Prepare what stdin asks for; the exit status is 0 when it is done."""
    telling = Telling()
    request = json.load(sys.stdin)
    _die_with(request["parent"])
    try:
        spec, target = read_spec(request["spec"]), Path(request["target"])
        telling.facts(prepare(spec, target, threads=request["threads"], telling=telling))
    except MemoryError:
        telling.failure("no memory left")
    except Exception as error:  # whatever it is, the parent shall hear it
        telling.failure(
            one_line(error) if isinstance(error, ServerError) else f"{type(error).__name__}: {one_line(error)}"
        )
    else:
        return 0
    return 1


def read_spec(fields: dict[str, Any]) -> ModelSpec:
    """The model, as far as running it needs."""
    tensors = tuple(
        TensorSpec(**tensor | {"shape": None if tensor["shape"] is None else tuple(tensor["shape"])})
        for tensor in fields["tensors"]
    )
    return ModelSpec(
        name=fields["name"],
        digest=fields["digest"],
        path=Path(fields["path"]),
        input=InputSpec(**fields["input"]),
        output=OutputSpec(head="raw", tensors=tensors, batch_axis=fields["batch_axis"]),
        fixed_batch=fields["fixed_batch"],
        max_batch=fields["max_batch"],
        batch_sizes=tuple(fields["batch_sizes"]),
    )


def prepare(spec: ModelSpec, target: Path, *, threads: int, telling: Telling) -> dict[str, Any]:
    """Write the optimised model and return its facts.

    Raises:
        ServerError: the model cannot be read, optimised or run, is another one than asked for, or the optimised one
            does not compute what the original does.
    """
    telling.stage("optimising", 0.0)
    sample = _sample(spec)
    expected = _write_optimised(spec, target, sample, threads=threads)
    telling.stage("comparing", 0.4)
    options = session_options(threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    _compare(spec, expected, _outputs(spec, open_session(target, options), sample))
    telling.stage("measuring", 0.6)
    facts = _measure(spec, target, options)
    telling.stage("done", 1.0)
    return facts


def _write_optimised(spec: ModelSpec, target: Path, sample: Array, *, threads: int) -> list[Array] | None:
    """Let the runtime optimise and write the model; return what the original makes of the sample."""
    options = session_options(threads)
    options.optimized_model_filepath = str(target)
    try:
        session = open_session(spec.path, options)
    except EngineError as error:
        # The runtime does not say that a disk is full, nor which.
        free = shutil.disk_usage(target.parent).free
        if free < spec.path.stat().st_size:
            raise EngineError(f"{target.parent}: expected room for {spec.path.name}, got {free} bytes free") from error
        raise
    # Only now, so that a file exchanged before it was opened is seen.
    files = [spec.path, *(spec.path.parent / location for location in read_graph(spec.path).external)]
    if (digest := file_digest(*files)) != spec.digest:
        raise ModelError(f"{spec.path}: expected the SHA-256 {spec.digest}, got {digest}: it changed meanwhile")
    return _outputs(spec, session, sample)


def _measure(spec: ModelSpec, target: Path, options: Any) -> dict[str, Any]:
    """What one session of the optimised model costs: opened, and warmed at a size and at 1, as a lane's is."""
    resident, opened_ns = [], []
    for size in doubling_sizes(spec):
        memory = np.empty(spec.input.shape(size), spec.input.dtype)
        memory.fill(0)  # the buffer is the lane's: it is here before anything is counted
        _release_freed_memory()
        before = _private_bytes()
        started_ns = time.process_time_ns()
        session = open_session(target, options)
        opened_ns.append(time.process_time_ns() - started_ns)
        executor = OnnxRuntimeExecutor(spec, session, memory, sizes=(1,))
        resident.append([size, max(0, _private_bytes() - before)])
        executor.close()
        del session
    return {"resident_bytes": resident, "open_cpu_ms": round(statistics.median(opened_ns) / 1e6, 3)}


def _sample(spec: ModelSpec) -> Array:
    """The smallest batch, of noise: on a blank picture many a difference is multiplied by zero."""
    noise = np.random.default_rng(0).random(spec.input.shape(doubling_sizes(spec)[0]), np.float32)
    return noise.astype(spec.input.dtype) if spec.input.dtype != "uint8" else (noise * 255).astype(np.uint8)


def _outputs(spec: ModelSpec, session: Any, sample: Array) -> list[Array] | None:
    """What a session makes of the sample; None where it fails, since a model need not bear noise."""
    with suppress(Exception):
        return list(session.run(list(spec.output.names), {spec.input.name: sample}))
    return None


def _compare(spec: ModelSpec, expected: list[Array] | None, got: list[Array] | None) -> None:
    if expected is None:
        return
    for name, one, other in zip(spec.output.names, expected, got or [], strict=True):
        scale = float(np.max(np.abs(one[np.isfinite(one)]), initial=1e-6)) if one.dtype.kind == "f" else 0.0
        if one.shape != other.shape or not np.allclose(
            one, other, rtol=TOLERANCE, atol=TOLERANCE * scale, equal_nan=True
        ):
            raise ModelError(f"{spec.path}: expected the optimised model to yield the same {name!r}, got another")


def _die_with(parent: int) -> None:
    """A server that is killed leaves nobody behind. The kernel watches the thread that started this process."""
    with suppress(OSError, AttributeError):  # Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _release_freed_memory() -> None:
    """Give back what the first session left in the allocator: a later one would take it, and seem to cost nothing."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc
        ctypes.CDLL(None).malloc_trim(0)


def _private_bytes() -> int:
    """Memory that is this process's own; code and mapped files are shared, and come with the first session."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    sys.exit(main())
