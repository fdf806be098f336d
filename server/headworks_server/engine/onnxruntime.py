"""The default backend: ONNX Runtime on the CPU. `app.py` makes one engine a model, each lane one executor of it.

A lane runs its frames on its own thread, so its session has one intra-op thread and never spins; lanes times threads
stays the number of cores. The executor binds the lane's buffer and its own output arrays once for each batch size, and
only those sizes are ever executed: ONNX Runtime's arena grows with every new size and never shrinks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import onnxruntime

from headworks_server.engine.base import Array, ModelSpec
from headworks_server.engine.curve import Curve, measure_curve
from headworks_server.errors import EngineError

Hint = Literal["throughput", "latency"]
PROVIDERS = ["CPUExecutionProvider"]


class OnnxRuntimeEngine:
    """A model on ONNX Runtime."""

    def __init__(
        self, spec: ModelSpec, *, hint: Hint = "throughput", threads: int = 1, share_session: bool = False
    ) -> None:
        """Make an engine; the file is opened when the first executor is asked for.

        Arguments:
            spec: the model.
            hint: `throughput` gives every session one thread, `latency` gives it `threads`.
            threads: the threads of one session under `latency`, usually the cores divided by the lanes.
            share_session: all executors run one session, so that the weights are in memory once.
        """
        self._spec = spec
        self._threads = 1 if hint == "throughput" else threads
        self._share = share_session
        self._lock = threading.Lock()  # lanes may ask for their executors at the same time
        self._shared: Any = None

    @property
    def spec(self) -> ModelSpec:
        """The model."""
        return self._spec

    @property
    def threads(self) -> int:
        """Threads that one run occupies, the caller's included."""
        return self._threads

    def measure(self) -> Curve:
        """Measure 1, 2, 4, ... up to the largest batch, or the fixed batch alone; see `Engine.measure`."""
        sizes = doubling_sizes(self._spec)
        memory = np.zeros(self._spec.input.shape(sizes[-1]), self._spec.input.dtype)
        executor = self.executor(memory, sizes=sizes)
        # CPU time of the calling thread does not see a pool's work; wall time also sees the neighbours'.
        clock = time.thread_time_ns if self._threads == 1 else time.perf_counter_ns
        try:
            return measure_curve(executor.run, executor.sizes, clock=clock)
        finally:
            executor.close()

    def executor(self, memory: Array, *, sizes: Iterable[int] = ()) -> OnnxRuntimeExecutor:
        """Make a warmed executor over one batch buffer; see `Engine.executor`."""
        return OnnxRuntimeExecutor(self._spec, self._session(), memory, sizes=sizes)

    def close(self) -> None:
        """Forget the shared session, where there is one."""
        self._shared = None

    def _session(self) -> Any:
        if not self._share:
            return _open(self._spec, self._threads)
        with self._lock:
            if self._shared is None:
                self._shared = _open(self._spec, self._threads)
            return self._shared


class OnnxRuntimeExecutor:
    """One session bound to one batch buffer; see `Executor`. ONNX Runtime releases the GIL while it runs.

    A run of a size that is not bound executes the next larger one: the positions behind are whatever the buffer holds,
    and their results are not returned.

    Attributes:
        runs: how often each bound size was executed, warm-up included; read by tests and metrics.
    """

    def __init__(self, spec: ModelSpec, session: Any, memory: Array, *, sizes: Iterable[int] = ()) -> None:
        """Bind and warm every size; raises as `Engine.executor` does."""
        positions = len(memory)
        if memory.shape != spec.input.shape(positions) or memory.dtype != spec.input.dtype:
            expected = f"{list(spec.input.shape(spec.max_batch))} {spec.input.dtype}"
            raise ValueError(f"batch buffer: expected {expected}, got {list(memory.shape)} {memory.dtype}")
        if not memory.flags.c_contiguous:
            raise ValueError("batch buffer: expected C-contiguous memory")
        if spec.fixed_batch not in (None, positions):
            raise ValueError(f"batch buffer: expected the model's {spec.fixed_batch} positions, got {positions}")
        wanted = {positions} if spec.fixed_batch else {*sizes, positions}
        if min(wanted) < 1 or max(wanted) > positions:
            raise ValueError(f"batch sizes: expected 1 to {positions}, got {sorted(wanted)}")
        self._spec = spec
        self._session = session
        self._memory: Array | None = memory  # the bindings know only its address
        self._sizes = tuple(sorted(wanted))
        self._outputs = [self._probe(memory)]
        self._bindings = {size: self._bind(size, memory) for size in self._sizes}
        self.runs = dict.fromkeys(self._sizes, 0)
        for size in reversed(self._sizes):  # the largest first, so that the arena is as large as it gets
            self.run(size)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes that are ever executed, ascending."""
        return self._sizes

    def run(self, size: int) -> list[Array]:
        """Execute the first `size` positions; see `Executor.run`."""
        bound = self._bound(size)
        try:
            self._session.run_with_iobinding(self._bindings[bound])
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise EngineError(f"{self._spec.name}: {one_line(error)}") from error
        self.runs[bound] += 1
        return [output[:size] for output in self._outputs]

    def close(self) -> None:
        """Drop the session and forget the buffer; a later run raises EngineError."""
        self._sizes, self._bindings, self._session, self._memory = (), {}, None, None

    def _bound(self, size: int) -> int:
        if size >= 1:
            for bound in self._sizes:
                if bound >= size:
                    return bound
        if not self._sizes:
            raise EngineError(f"{self._spec.name}: the executor is closed")
        raise ValueError(f"batch size: expected 1 to {self._sizes[-1]}, got {size}")

    def _probe(self, memory: Array) -> Array:
        """Make the output array by running once unbound: a graph need not tell its output's shape."""
        positions = len(memory)
        try:
            (output,) = self._session.run([self._spec.output], {self._spec.input.name: memory})
        except Exception as error:
            raise EngineError(f"{self._spec.name}: {one_line(error)}") from error
        rows = self._spec.rows
        if output.ndim != 3 or output.shape[:2] != (positions, rows) or output.dtype != np.float32:
            expected = f"float32 [{positions}, {rows}, boxes] from {self._spec.output!r}"
            raise EngineError(f"{self._spec.name}: expected {expected}, got {output.dtype} {list(output.shape)}")
        return np.zeros(output.shape, np.float32)

    def _bind(self, size: int, memory: Array) -> Any:
        binding = self._session.io_binding()
        # A smaller batch is a prefix of the same memory, so all sizes share the buffer and the outputs.
        for name, array, bind in (
            (self._spec.input.name, memory, binding.bind_input),
            (self._spec.output, self._outputs[0], binding.bind_output),
        ):
            bind(name, "cpu", 0, array.dtype.type, (size, *array.shape[1:]), array.ctypes.data)
        return binding


def session_options(threads: int) -> Any:
    """The options of every session; benchmarks give their baseline the same.

    Arguments:
        threads: intra-op threads, the calling one included.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_cpu_mem_arena = True  # without it a batch costs up to twice the time
    # A spinning thread takes the core from the decoder beside it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 4  # its complaints are raised in full, and would only be printed once more
    return options


def doubling_sizes(spec: ModelSpec) -> tuple[int, ...]:
    """The batch sizes worth measuring: 1, 2, 4, ... and the largest; a fixed batch alone."""
    if spec.fixed_batch is not None:
        return (spec.fixed_batch,)
    powers = (1 << exponent for exponent in range(spec.max_batch.bit_length()))
    return tuple(sorted({*powers, spec.max_batch}))


def one_line(error: BaseException) -> str:
    """An exception's own words, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _open(spec: ModelSpec, threads: int) -> Any:
    try:
        return onnxruntime.InferenceSession(str(spec.path), session_options(threads), providers=PROVIDERS)
    except Exception as error:
        raise EngineError(f"{spec.path}: {one_line(error)}") from error
