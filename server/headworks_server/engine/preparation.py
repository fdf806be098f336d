"""Prepares a model in a process of its own, so that neither a crash nor a runaway there can touch serving.

The composition root calls `prepare` on a thread that may wait. It finds the plan, or starts `engine.prepare` at the
lowest priority, follows what that tells, and lets the plan store keep the outcome. This file owns the child's life and
the key: whatever of a prepared model would not fit another model, runtime, machine or setting is part of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final

import onnxruntime

from headworks_server.engine.base import ModelSpec
from headworks_server.engine.graph import read_graph
from headworks_server.engine.onnxruntime import PROVIDERS, doubling_sizes
from headworks_server.engine.plans import Facts, Plan, PlanStore
from headworks_server.errors import PreparationError

Progress = Callable[[str, float], None]

# -P: what happens to lie in the working folder is not imported.
COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "headworks_server.engine.prepare")
TIMEOUT_S: Final = 600.0  # of one model; minutes are normal for the largest on one core that others use
POLL_S: Final = 0.05  # until a cancel is seen
NICENESS: Final = 19
# An optimised model is one protobuf, external weights included, which ends at 2 GiB; the graph takes a little of it.
MAX_MODEL_BYTES: Final = (2 << 30) - (32 << 20)
MAX_LINE_BYTES: Final = 1 << 16
LAST_WORDS_BYTES: Final = 400

# What a warm session holds, in the middle of what was measured: of its weights 1.0 to 1.6 times their file (some lie
# there once more, packed for the kernels), of activations 2 to 12 times the input in floats, and a little of its own.
WEIGHTS_FACTOR: Final = 1.5
ACTIVATIONS_FACTOR: Final = 8.0
SESSION_BYTES: Final = 1 << 20


def plan_key(spec: ModelSpec, *, threads: int = 1) -> dict[str, Any]:
    """What a prepared model is made from, and for.

    Full optimisation lays weights out for the vector width at hand (NCHWc) and fuses what this processor is fast at,
    so the processor belongs to it; sizes and threads do because the facts were measured with them.
    """
    sizes = doubling_sizes(spec)
    return {
        "artefact": "optimised ONNX",
        "model": spec.digest,
        "precision": "as exported",
        "input": {"name": spec.input.name, "dtype": spec.input.dtype},
        "shapes": [list(spec.input.shape(size)) for size in sizes],
        "runtime": {"name": "onnxruntime", "version": onnxruntime.__version__, "build": onnxruntime.get_build_info()},
        "device": {"providers": list(PROVIDERS), **_processor()},
        "options": {"optimization": "all", "threads": threads},
    }


def estimate_bytes(spec: ModelSpec, *, batch: int) -> int:
    """Bytes that one session of a model will hold when it runs batches of this size; for one that was never measured.

    Raises:
        ServerError: the model's file cannot be read.
    """
    pixels = batch * spec.input.channels * spec.input.height * spec.input.width
    return int(WEIGHTS_FACTOR * _model_bytes(spec.path) + ACTIVATIONS_FACTOR * 4 * pixels) + SESSION_BYTES


def measured_bytes(facts: Facts, *, batch: int) -> int:
    """Bytes that one session was measured to hold when it runs batches of this size: a plan's facts say."""
    sizes = facts["resident_bytes"]
    return int(next((held for size, held in sizes if size >= batch), sizes[-1][1]))


def prepare(
    spec: ModelSpec,
    *,
    store: PlanStore,
    threads: int = 1,
    cancel: threading.Event | None = None,
    progress: Progress = lambda _stage, _fraction: None,
    timeout_s: float = TIMEOUT_S,
    memory_bytes: int | None = None,
    niceness: int = NICENESS,
) -> Plan:
    """Find the plan of a model, or make it; on the calling thread, which waits for the child.

    The plan's facts are `resident_bytes` (pairs of a batch size and what one session that runs it added to a process;
    read them with `measured_bytes`), `open_cpu_ms` (CPU time of opening it), and whatever was remembered since.

    Arguments:
        spec: the model.
        store: where plans lie.
        threads: of one session, as it will be served.
        cancel: ends the child soon after it is set.
        progress: is told (stage, fraction done) on the calling thread, the fraction ascending from 0 to 1.
        timeout_s: the child is killed after this long.
        memory_bytes: the most private memory the child may hold; none leaves it to the kernel, which takes the child
            before the server.

        niceness: how much lower the child's priority is than this process's; 0 where nobody is served yet.

    Raises:
        PreparationError: cancelled, or the child did not come to a usable end; its `reason` says which.
        PlanError: the outcome could not be kept.
    """
    key = plan_key(spec, threads=threads)
    plan = store.find(key)
    if plan is not None:
        return plan
    size = _model_bytes(spec.path)
    if size > MAX_MODEL_BYTES:
        detail = f"{spec.path}: expected at most {MAX_MODEL_BYTES} bytes with its external weights, got {size}"
        raise PreparationError("too_large", f"{detail}: it is served as it is")

    def build(target: Path) -> Facts:
        child = _Child(spec, target, threads=threads, memory_bytes=memory_bytes, niceness=niceness)
        return child.follow(progress, cancel or threading.Event(), timeout_s)

    return store.write(key, build)


class _Child:
    """The process that prepares one model; it is gone when `follow` has returned or raised."""

    def __init__(self, spec: ModelSpec, target: Path, *, threads: int, memory_bytes: int | None, niceness: int) -> None:
        self._place = spec.path
        self._facts: Facts | None = None
        self._failure = ""
        self._line = b""
        self._errors = b""
        pipe = subprocess.PIPE
        # Of the same session, so that its niceness counts against this process, but of a group of its own, so that an
        # interrupt at the terminal reaches the server alone, which then cancels.
        try:
            process = subprocess.Popen(  # noqa: S603 - this very interpreter
                COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, process_group=0, env=_environment()
            )
        except OSError as error:
            raise self._error("died", f"no process: {error.strerror}") from error
        self._process = process
        _restrain(process.pid, memory_bytes, niceness)
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(_request(spec, target, threads))  # less than a pipe holds

    def follow(self, progress: Progress, cancel: threading.Event, timeout_s: float) -> Facts:
        """Pass on what the child tells, until it has ended, and return the facts it found."""
        deadline = time.monotonic() + timeout_s
        process = self._process
        assert process.stdout is not None and process.stderr is not None  # noqa: PT018
        try:
            with process.stdout, process.stderr, selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ, lambda data: self._read(data, progress))
                selector.register(process.stderr, selectors.EVENT_READ, self._keep)
                while selector.get_map() or process.poll() is None:
                    if cancel.is_set():
                        raise self._error("cancelled", "a cancel")
                    if time.monotonic() > deadline:
                        raise self._error("timeout", f"no end after {timeout_s:g} s")
                    for ready, _ in selector.select(POLL_S):
                        data = os.read(ready.fd, MAX_LINE_BYTES)
                        ready.data(data)
                        if not data:
                            selector.unregister(ready.fileobj)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
        return self._outcome(process.returncode)

    def _outcome(self, status: int) -> Facts:
        if self._failure:
            raise self._error("failed", self._failure.removeprefix(f"{self._place}: "))
        if status != 0:
            raise self._error("died", f"a process killed by {_signal(status)}" if status < 0 else f"exit {status}")
        if self._facts is None or self._line:
            raise self._error("garbled", "a process that ended without a word")
        return self._facts

    def _read(self, data: bytes, progress: Progress) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        if len(self._line) > MAX_LINE_BYTES:
            raise self._error("garbled", f"a line without end: {_printable(self._line[:60])}")
        for line in lines:
            try:
                self._take(json.loads(line), progress)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise self._error("garbled", f"the line {_printable(line[:60])}") from error

    def _take(self, message: Any, progress: Progress) -> None:
        if "stage" in message:
            stage, fraction = str(message["stage"]), min(1.0, max(0.0, float(message["fraction"])))
            progress(stage, fraction)
        elif "failure" in message:
            self._failure = str(message["failure"])
        else:
            facts = message["facts"]
            numbers = [facts["open_cpu_ms"], *(number for pair in facts["resident_bytes"] for number in pair)]
            if len(numbers) < 3 or not all(isinstance(number, int | float) and number >= 0 for number in numbers):
                raise ValueError("facts that are no numbers")
            self._facts = dict(facts)

    def _keep(self, data: bytes) -> None:
        self._errors = (self._errors + data)[-LAST_WORDS_BYTES:]

    def _error(self, reason: str, fact: str) -> PreparationError:
        words = _printable(self._errors)
        last = f"; its last words: {words}" if words and reason not in ("failed", "cancelled") else ""
        return PreparationError(reason, f"{self._place}: expected to be prepared, got {fact}{last}")


def _request(spec: ModelSpec, target: Path, threads: int) -> bytes:
    """What the child needs to know, as `prepare.read_request` reads it."""
    output = asdict(spec.output)
    request = {
        "parent": os.getpid(),
        "target": str(target),
        "threads": threads,
        "spec": {
            "name": spec.name,
            "digest": spec.digest,
            "path": str(spec.path),
            "input": asdict(spec.input),
            "tensors": output["tensors"],
            "batch_axis": output["batch_axis"],
            "fixed_batch": spec.fixed_batch,
            "max_batch": spec.max_batch,
            "batch_sizes": spec.batch_sizes,
        },
    }
    return json.dumps(request).encode()


def _environment() -> dict[str, str]:
    """The server's, but no pool of threads for the arithmetic around the model."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _restrain(pid: int, memory_bytes: int | None, niceness: int) -> None:
    """Let the child have what nobody else wants. It may have ended already; then all of this is moot."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, min(NICENESS, os.getpriority(os.PRIO_PROCESS, 0) + niceness))
    with suppress(OSError):  # where memory ends, it goes first; anybody may raise this of their own
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
    with suppress(OSError):
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        if memory_bytes is not None:
            resource.prlimit(pid, resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _model_bytes(path: Path) -> int:
    """Bytes of a model's file and its external weights."""
    try:
        return sum(file.stat().st_size for file in (path, *(path.parent / name for name in read_graph(path).external)))
    except OSError as error:
        raise PreparationError("failed", f"{path}: expected a readable model, got {error.strerror}") from error


@cache
def _processor() -> dict[str, str]:
    """What this machine computes with: its name, and all it says it can."""
    name, features = platform.processor(), ""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            label, _, value = line.partition(":")
            if label.strip() == "model name":
                name = value.strip()
            elif label.strip() in ("flags", "Features"):  # x86, ARM
                features = " ".join(sorted(value.split()))
    digest = hashlib.sha256(features.encode()).hexdigest()[:16]  # a hundred words say no more
    return {"machine": platform.machine(), "processor": name, "features": digest}


def _signal(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _printable(data: bytes) -> str:
    """Bytes that may be anything, in one line."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in data.decode(errors="replace")).split())
