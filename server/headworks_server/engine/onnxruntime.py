"""The default backend: ONNX Runtime on the CPU. The composition root makes one engine a model, each lane one executor.

A lane runs its frames on its own thread, so its session has one intra-op thread and never spins; lanes times threads
stays the number of cores. The executor binds the lane's buffer and its own output arrays once for each batch size, and
only those sizes are ever executed: ONNX Runtime's arena grows with every new size and never shrinks.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import structlog

from headworks_server.clock import NS_PER_S, Clock
from headworks_server.engine.base import Array, ModelSpec, TensorSpec
from headworks_server.engine.curve import MIN_REPEATS, Curve, measure_curve, timed_runs
from headworks_server.errors import EngineError

Hint = Literal["throughput", "latency"]
CPU_PROVIDER = "CPUExecutionProvider"
PROVIDERS = [CPU_PROVIDER]
# Of the checks of an unchanged model, 99 in 100 come within a quarter of its curve, beside other load too. Twice that
# is told apart from noise; a check that fails without need costs one measuring, and nothing else.
MUCH_THE_SAME = 1.5

log = structlog.get_logger("headworks.engine")


class OnnxRuntimeEngine:
    """A model on ONNX Runtime."""

    def __init__(
        self,
        spec: ModelSpec,
        *,
        hint: Hint = "throughput",
        threads: int = 1,
        share_session: bool = False,
        provider: str = CPU_PROVIDER,
        plan: Path | None = None,
    ) -> None:
        """Make an engine; the file is opened when the first executor is asked for.

        Arguments:
            spec: the model.
            hint: `throughput` gives every session one thread, `latency` gives it `threads`.
            threads: the threads of one session under `latency`, usually the cores divided by the lanes.
            share_session: all executors run one session, so that the weights are in memory once.
            provider: ONNX Runtime's execution provider; what it has no kernels for runs on the CPU.
            plan: the model as `preparation` left it, opened as it is instead of `spec.path`; for the CPU alone.

        Raises:
            ValueError: a plan for another provider than the CPU, for which it was not optimised.
        """
        if plan is not None and provider != CPU_PROVIDER:
            raise ValueError(f"plan: expected none for {provider}, got {plan}")
        self._spec = spec
        self._plan = plan
        self._threads = 1 if hint == "throughput" else threads
        self._share = share_session
        self._provider = provider
        self._lock = threading.Lock()  # lanes may ask for their executors at the same time
        self._shared: Any = None
        self._warm_ns: dict[int, list[int]] = {}  # what the last run of each executor's warm-up cost, by size

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
        try:
            return measure_curve(executor.run, executor.sizes, clock=self._clock)
        finally:
            executor.close()

    def check(self, curve: Curve) -> bool:
        """Compare what warming executors of the target cost; see `Engine.check`.

        Where there are none yet, or that is too far off, run the target three times and compare the median.
        """
        target = curve.target()
        if target not in doubling_sizes(self._spec):
            return False
        warm_ns = self._warm_ns.get(target)
        if warm_ns and _is_much_the_same(min(warm_ns) / NS_PER_S, curve.seconds(target)):
            return True
        executor = self.executor(np.zeros(self._spec.input.shape(target), self._spec.input.dtype))
        try:
            cost = statistics.median(timed_runs(executor.run, target, MIN_REPEATS, clock=self._clock)) / NS_PER_S
        finally:
            executor.close()
        return _is_much_the_same(cost, curve.seconds(target))

    @property
    def _clock(self) -> Clock:
        """CPU time of the calling thread does not see a pool's work; wall time also sees the neighbours'."""
        alone = self._threads == 1 and self._provider == CPU_PROVIDER
        return time.thread_time_ns if alone else time.perf_counter_ns

    def executor(self, memory: Array, *, sizes: Iterable[int] = ()) -> OnnxRuntimeExecutor:
        """Make a warmed executor over one batch buffer; see `Engine.executor`."""
        executor = OnnxRuntimeExecutor(self._spec, self._session(), memory, sizes=sizes, clock=self._clock)
        for size, spent_ns in executor.warm_ns.items():
            self._warm_ns.setdefault(size, []).append(spent_ns)
        return executor

    def close(self) -> None:
        """Forget the shared session, where there is one."""
        self._shared = None

    def _session(self) -> Any:
        if not self._share:
            return self._open()
        with self._lock:
            if self._shared is None:
                self._shared = self._open()
            return self._shared

    def _open(self) -> Any:
        options = session_options(self._threads)
        if self._plan is None:
            return open_session(self._spec.path, options, provider=self._provider)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it has been done
        return open_session(self._plan, options)


class OnnxRuntimeExecutor:
    """One session over one batch buffer; see `Executor`. ONNX Runtime releases the GIL while it runs.

    A run of a size that is not prepared executes the next larger one: the positions behind are whatever the buffer
    holds, and their results are not returned.

    Outputs are bound to arrays made once. An output whose shape changes from run to run (boxes after an NMS in the
    graph), or is not what the graph declares, cannot be: from the first run that differs on, all outputs are allocated
    and copied by each run instead, at 15 us and some 55 us a megabyte.

    Attributes:
        runs: how often each size was executed, warm-up included; read by tests and metrics.
        warm_ns: what each size cost in the warm-up, after the first run of all.
        copies: outputs are copied, since their shape is known only after a run.
    """

    def __init__(
        self,
        spec: ModelSpec,
        session: Any,
        memory: Array,
        *,
        sizes: Iterable[int] = (),
        clock: Clock = time.perf_counter_ns,
    ) -> None:
        """Bind and warm every size; raises as `Engine.executor` does."""
        self._spec = spec
        self._session = session
        self._sizes = _checked_sizes(spec, memory, sizes)
        self._memory: Array | None = memory
        self.runs = dict.fromkeys(self._sizes, 0)
        self.warm_ns: dict[int, int] = {}
        try:
            self._outputs = [np.zeros(output.shape, output.dtype) for output in self._run_copying(len(memory))]
            # Nothing to write to is nothing to bind: a blank picture without boxes.
            self.copies = any(output.size == 0 for output in self._outputs)
            self._bindings = {} if self.copies else {size: self._bind(size, memory) for size in self._sizes}
            for size in reversed(self._sizes):  # the largest first, so that the arena is as large as it gets
                (self.warm_ns[size],) = timed_runs(self.run, size, 1, clock=clock)
        except EngineError as error:
            raise self._refusal(error) from error

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes that are ever executed, ascending."""
        return self._sizes

    def run(self, size: int) -> list[Array]:
        """Execute the first `size` positions; see `Executor.run`."""
        bound = self._bound(size)
        outputs = self._run_copying(bound) if self.copies else self._run_bound(bound)
        self.runs[bound] += 1
        return [output[:size] for output in outputs]

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

    def _bind(self, size: int, memory: Array) -> Any:
        """Bind one size. A smaller batch is a prefix of the same memory, so all sizes share buffer and outputs."""
        binding = self._session.io_binding()
        shape = (size, *memory.shape[1:])
        binding.bind_input(self._spec.input.name, "cpu", 0, memory.dtype.type, shape, memory.ctypes.data)
        for name, array in zip(self._spec.output.names, self._outputs, strict=True):
            shape = (size, *array.shape[1:]) if self._spec.output.batch_axis else array.shape[1:]
            binding.bind_output(name, "cpu", 0, array.dtype.type, shape, array.ctypes.data)
        return binding

    def _run_bound(self, size: int) -> list[Array]:
        try:
            self._session.run_with_iobinding(self._bindings[size])
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            return self._retry_copying(size, error)
        return self._outputs

    def _retry_copying(self, size: int, error: Exception) -> list[Array]:
        """After a failure of a bound run: find out whether the outputs' shape was to blame, and go on if so."""
        first = EngineError(f"{self._spec.name}: {one_line(error)}")
        try:
            outputs = self._run_copying(size)
        except EngineError:
            raise first from error
        self.copies = True
        log.info("outputs_copied", model=self._spec.name, shapes=[list(output.shape) for output in outputs])
        return outputs

    def _run_copying(self, size: int) -> list[Array]:
        assert self._memory is not None
        try:
            outputs = self._session.run(list(self._spec.output.names), {self._spec.input.name: self._memory[:size]})
        except Exception as error:
            raise EngineError(f"{self._spec.name}: {one_line(error)}") from error
        if not self._spec.output.batch_axis:
            outputs = [np.asarray(output)[None] for output in outputs]
        for tensor, output in zip(self._spec.output.tensors, outputs, strict=True):
            _check_output(self._spec, tensor, output, size)
        return list(outputs)

    def _refusal(self, error: EngineError) -> EngineError:
        """The failure of a model's file, and the sizes that are spared: a lane would meet the others one day."""
        words = str(error).removeprefix(f"{self._spec.name}: ")
        ran = [size for size in self._sizes if self._runs(size)]
        if ran and len(ran) < len(self._sizes):
            sizes = f"expected batches of {_listed(self._sizes)} to run, got only {_listed(ran)}"
            words = f"{sizes}: {words} (batch.sizes = {ran} in model.toml serves those)"
        elif not words.startswith("expected"):  # the runtime's own
            words = f"expected a blank picture to run, got: {words}"
        return EngineError(f"{self._spec.path}: {words}")

    def _runs(self, size: int) -> bool:
        try:
            self._run_copying(size)
        except EngineError:
            return False
        return True


def _is_much_the_same(cost: float, before: float) -> bool:
    return 1 / MUCH_THE_SAME <= cost / before <= MUCH_THE_SAME


def _checked_sizes(spec: ModelSpec, memory: Array, sizes: Iterable[int]) -> tuple[int, ...]:
    """The sizes to prepare: those asked for that the model allows, and the whole buffer."""
    positions = len(memory)
    if memory.shape != spec.input.shape(positions) or memory.dtype != spec.input.dtype:
        expected = f"{list(spec.input.shape(spec.max_batch))} {spec.input.dtype}"
        raise ValueError(f"batch buffer: expected {expected}, got {list(memory.shape)} {memory.dtype}")
    if not memory.flags.c_contiguous:
        raise ValueError("batch buffer: expected C-contiguous memory")
    allowed = (spec.fixed_batch,) if spec.fixed_batch else spec.batch_sizes
    if allowed and positions not in allowed:
        raise ValueError(f"batch buffer: expected {_listed(allowed)} positions, got {positions}")
    wanted = {size for size in sizes if not allowed or size in allowed} | {positions}
    if min(wanted) < 1 or max(wanted) > positions:
        raise ValueError(f"batch sizes: expected 1 to {positions}, got {sorted(wanted)}")
    return tuple(sorted(wanted))


def _check_output(spec: ModelSpec, tensor: TensorSpec, output: Array, size: int) -> None:
    """Hold a run's output to the spec: whoever reads it takes its shape for granted."""
    axes = tensor.shape if tensor.shape is not None else output.shape[1:]
    wanted = (size, *axes)
    pairs = zip(wanted, output.shape, strict=False)
    fits = output.ndim == len(wanted) and all(axis in (None, length) for axis, length in pairs)
    if fits and output.dtype == tensor.dtype:
        return
    shape = ", ".join("?" if axis is None else str(axis) for axis in wanted)
    hint = ""
    if output.shape[:1] != (size,):
        declared = ", which output.batch_axis = false in model.toml declares" if spec.fixed_batch == 1 else ""
        hint = f": axis 0 does not follow the batch{declared}"
    got = f"{output.dtype} {list(output.shape)}{hint}"
    raise EngineError(f"{spec.name}: expected {tensor.dtype} [{shape}] from {tensor.name!r}, got {got}")


def _listed(sizes: Iterable[int]) -> str:
    return ", ".join(map(str, sizes))


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
    """The batch sizes worth measuring: 1, 2, 4, ... and the largest; a fixed batch alone, or those allowed."""
    if spec.fixed_batch is not None:
        return (spec.fixed_batch,)
    if spec.batch_sizes:
        return spec.batch_sizes
    powers = (1 << exponent for exponent in range(spec.max_batch.bit_length()))
    return tuple(sorted({*powers, spec.max_batch}))


def one_line(error: BaseException) -> str:
    """An exception's own words, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def open_session(path: Path, options: Any, *, provider: str = CPU_PROVIDER) -> Any:
    """A session of one file on one provider; raises EngineError with the runtime's words."""
    providers = [provider] if provider == CPU_PROVIDER else [provider, CPU_PROVIDER]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise EngineError(f"{path}: {one_line(error)}") from error
    # Where a provider cannot start, ONNX Runtime takes the CPU without a word: then that is not what runs it.
    if provider not in session.get_providers():
        raise EngineError(f"{path}: expected {provider} to start, got only {', '.join(session.get_providers())}")
    return session
