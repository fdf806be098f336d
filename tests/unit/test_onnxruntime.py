"""ONNX Runtime behind a lane: results belong to their positions, only bound sizes run, failures are told."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from onnx import ModelProto

from headworks_server.config import Settings
from headworks_server.engine.base import Array, InputSpec, ModelSpec, OutputSpec, TensorSpec
from headworks_server.engine.onnxruntime import OnnxRuntimeEngine, doubling_sizes, session_options
from headworks_server.errors import EngineError
from headworks_server.models import load_model
from support.model_zoo import (
    boxes_after_nms,
    bright_pixels,
    failing_above,
    noisy,
    not_following,
    text_model,
    zoo_model,
)
from support.models import Form, convolving_detector, failing_detector, oracle_box, oracle_detector, save_model

FORMS = [
    Form(),
    Form(batch=4),
    Form(dtype="uint8"),
    Form(layout="nhwc"),
    Form(dtype="uint8", layout="nhwc", batch=4),
    Form(open_size=True, labels=("a",)),
]


def make_spec(tmp_path: Path, form: Form, model: object = None, *, max_batch: int = 4) -> ModelSpec:
    """The spec of a tiny detector that lies in `tmp_path`."""
    path = save_model(tmp_path, "tiny", model or oracle_detector(form))
    return ModelSpec(
        name="tiny",
        path=path,
        labels=form.labels,
        input=InputSpec(name="images", dtype=form.dtype, layout=form.layout, width=form.width, height=form.height),
        output=OutputSpec(tensors=(TensorSpec(name="output0", shape=(4 + len(form.labels), None)),)),
        fixed_batch=form.batch,
        max_batch=form.batch or max_batch,
    )


def load(tmp_path: Path, model: ModelProto, toml: str = "", *, max_batch: int = 4) -> ModelSpec:
    """The spec of a model of the zoo, as a server would have it; its three labels and colour are stated."""
    save_model(tmp_path, "tiny", model)
    text = 'labels = ["a", "b", "c"]\n[preprocess]\nscale = 1\nresize = "stretch"\n'
    if 3 in [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]:
        text += '[input]\ncolor = "rgb"\n'
    (tmp_path / "tiny" / "model.toml").write_text(text + toml)
    return load_model(Settings(models=tmp_path, max_batch=max_batch), "tiny")


def make_memory(spec: ModelSpec) -> Array:
    """A lane's batch buffer, blank."""
    return np.zeros(spec.input.shape(spec.max_batch), spec.input.dtype)


def paint(memory: Array, position: int, pixel: tuple[float, float, float], form: Form) -> None:
    """Fill one position with one colour, r, g, b in 0 to 1."""
    colour = np.array(pixel) * (1 if form.dtype == "float32" else 255)
    memory[position] = colour[:, None, None] if form.layout == "nchw" else colour


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_result_belongs_to_its_position(tmp_path: Path, form: Form) -> None:
    """Every size, bound or not, and every kind of input: row i of the output is of position i."""
    spec = make_spec(tmp_path, form)
    memory = make_memory(spec)
    executor = OnnxRuntimeEngine(spec).executor(memory, sizes=(1, 2))
    for size in (4, 1, 3, 2):
        pixels = [(0.2 * (index + 1), 0.1 * size, 1.0) for index in range(size)]
        for index, pixel in enumerate(pixels):
            paint(memory, index, pixel, form)
        (output,) = executor.run(size)
        assert output.shape == (size, 4 + spec.class_count, 4)
        expected = np.stack([oracle_box(pixel, form) for pixel in pixels])
        np.testing.assert_allclose(output[:, :, 0], expected, atol=0.6 if form.dtype == "uint8" else 1e-4)


def test_lane_memory_is_read_in_place(tmp_path: Path) -> None:
    """The engine sees what is painted into the lane's own region; nothing is copied at binding."""
    form = Form()
    spec = make_spec(tmp_path, form)
    region = bytearray(spec.input.position_bytes * spec.max_batch)
    memory = spec.input.view(region, spec.max_batch)
    executor = OnnxRuntimeEngine(spec).executor(memory)
    spec.input.view(region, spec.max_batch)[3] = 0.5
    np.testing.assert_allclose(executor.run(4)[0][3, :, 0], oracle_box((0.5, 0.5, 0.5), form), atol=1e-4)


def test_only_bound_sizes_are_ever_run(tmp_path: Path) -> None:
    """The arena grows with every new size, so any batch is padded to a bound one."""
    spec = make_spec(tmp_path, Form(), max_batch=8)
    executor = OnnxRuntimeEngine(spec).executor(make_memory(spec), sizes=(1, 4))
    assert executor.sizes == (1, 4, 8)
    for size in (3, 8, 1, 5, 2, 7, 4, 6):
        assert len(executor.run(size)[0]) == size
    assert executor.runs == {1: 1 + 1, 4: 1 + 3, 8: 1 + 4}  # the first of each is the warm-up


def test_fixed_batch_always_runs_whole(tmp_path: Path) -> None:
    """A graph exported for four frames takes four, whatever a lane has."""
    spec = make_spec(tmp_path, Form(batch=4))
    executor = OnnxRuntimeEngine(spec).executor(make_memory(spec), sizes=(1, 2))
    assert executor.sizes == (4,)
    assert len(executor.run(1)[0]) == 1
    assert executor.runs == {4: 2}


def test_memory_does_not_grow_with_changing_batches(tmp_path: Path) -> None:
    """After one round through all sizes, ten more rounds add next to nothing."""
    spec = make_spec(tmp_path, Form(width=128, height=96), convolving_detector(), max_batch=8)
    executor = OnnxRuntimeEngine(spec).executor(make_memory(spec), sizes=(1, 4))
    sizes = np.random.default_rng(1).integers(1, 9, 20).tolist()

    def settle() -> int:
        for size in sizes:
            executor.run(size)
        return int(psutil.Process().memory_info().rss)

    before = settle()
    after = [settle() for _ in range(10)][-1]
    assert after - before < 2 << 20


def test_outputs_are_one_memory(tmp_path: Path) -> None:
    """What a run returns is a view that the next run overwrites: a lane reads it before."""
    spec = make_spec(tmp_path, Form())
    executor = OnnxRuntimeEngine(spec).executor(make_memory(spec), sizes=(1,))
    assert np.shares_memory(executor.run(1)[0], executor.run(4)[0])


def test_failed_batch_is_told_in_one_line_and_the_next_one_runs(tmp_path: Path) -> None:
    """The failure's scope is the batch."""
    form = Form()
    spec = make_spec(tmp_path, form, failing_detector(form))
    memory = make_memory(spec)
    executor = OnnxRuntimeEngine(spec).executor(memory)
    paint(memory, 1, (1.0, 0.0, 0.0), form)
    with pytest.raises(EngineError, match=r"^tiny: .*Gather.*out of data bounds") as caught:
        executor.run(2)
    assert "\n" not in str(caught.value)
    paint(memory, 1, (0.5, 0.5, 0.5), form)
    np.testing.assert_allclose(executor.run(2)[0][1, :, 0], oracle_box((0.5, 0.5, 0.5), form), atol=1e-4)


def test_model_that_cannot_run_is_refused_at_warm_up(tmp_path: Path) -> None:
    """Not by the first camera."""
    spec = make_spec(tmp_path, Form(), failing_detector(always=True))
    engine = OnnxRuntimeEngine(spec)
    with pytest.raises(EngineError, match=r"model\.onnx: expected a blank picture to run, got: .*Gather"):
        engine.executor(make_memory(spec))
    with pytest.raises(EngineError, match="Gather"):
        engine.measure()


def test_output_unlike_the_labels_is_refused(tmp_path: Path) -> None:
    """A graph may leave its output's shape open; the warm-up sees it."""
    spec = make_spec(tmp_path, Form(labels=("a", "b")), oracle_detector(Form(labels=("a", "b", "c"))))
    with pytest.raises(EngineError, match=r"expected float32 \[4, 6, \?\] from 'output0', got float32 \[4, 7, 4\]"):
        OnnxRuntimeEngine(spec).executor(make_memory(spec))


def test_file_gone_between_reading_and_serving_is_told(tmp_path: Path) -> None:
    """ONNX Runtime names the file."""
    spec = make_spec(tmp_path, Form())
    spec.path.unlink()
    with pytest.raises(EngineError, match=r"model\.onnx"):
        OnnxRuntimeEngine(spec).measure()


@pytest.mark.parametrize("size", [0, -1, 5])
def test_size_outside_the_buffer_is_refused(tmp_path: Path, size: int) -> None:
    """It would read a neighbour's memory."""
    spec = make_spec(tmp_path, Form())
    executor = OnnxRuntimeEngine(spec).executor(make_memory(spec))
    with pytest.raises(ValueError, match="expected 1 to 4, got"):
        executor.run(size)


def test_wrong_buffer_is_refused(tmp_path: Path) -> None:
    """Binding takes an address: shape, type and contiguity are checked before."""
    spec = make_spec(tmp_path, Form(batch=4))
    engine = OnnxRuntimeEngine(spec)
    good = make_memory(spec)
    for bad in (good.astype(np.float64), good[:, :, :, :32], good[:3], good[:, :, :, ::-1]):
        with pytest.raises(ValueError, match="batch buffer: expected"):
            engine.executor(bad)


def test_closed_executor_says_so(tmp_path: Path) -> None:
    """It no longer knows the buffer."""
    spec = make_spec(tmp_path, Form())
    executor = OnnxRuntimeEngine(spec).executor(make_memory(spec))
    executor.close()
    executor.close()
    with pytest.raises(EngineError, match="closed"):
        executor.run(1)


@pytest.mark.parametrize("share", [False, True])
def test_lanes_run_side_by_side_without_mixing(tmp_path: Path, share: bool) -> None:
    """Each lane has its own binding and outputs, also over one session."""
    form = Form()
    spec = make_spec(tmp_path, form, max_batch=2)
    engine = OnnxRuntimeEngine(spec, share_session=share)
    wrong: list[str] = []

    def lane(number: int) -> None:
        memory = make_memory(spec)
        executor = engine.executor(memory, sizes=(1,))
        for turn in range(200):
            pixel = (number / 4, (turn % 10) / 10, 0.0)
            paint(memory, 0, pixel, form)
            if not np.allclose(executor.run(1)[0][0, :, 0], oracle_box(pixel, form), atol=1e-4):
                wrong.append(f"lane {number} turn {turn}")

    threads = [threading.Thread(target=lane, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_measure_covers_the_doubling_sizes(tmp_path: Path) -> None:
    """And a fixed batch has one size."""
    curve = OnnxRuntimeEngine(make_spec(tmp_path, Form(), max_batch=6)).measure()
    assert curve.sizes == (1, 2, 4, 6)
    assert curve.target() in curve.sizes
    fixed = make_spec(tmp_path, Form(batch=4))
    assert doubling_sizes(fixed) == (4,)
    assert OnnxRuntimeEngine(fixed, hint="latency", threads=2).measure().target() == 4


def test_hint_chooses_the_threads_of_a_session(tmp_path: Path) -> None:
    """Throughput: one thread a lane, whatever is given; latency: all of them."""
    spec = make_spec(tmp_path, Form())
    assert OnnxRuntimeEngine(spec, threads=8).threads == 1
    assert OnnxRuntimeEngine(spec, hint="latency", threads=8).threads == 8


def test_sessions_do_not_spin() -> None:
    """A spinning thread would take the core from the decoder beside it."""
    options = session_options(1)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.enable_cpu_mem_arena


# Outputs of every kind.


def test_outputs_of_every_type_are_bound(tmp_path: Path) -> None:
    """Several at once, in the graph's order, each row of its own frame."""
    kinds = ["float", "float16", "double", "int8", "uint8", "int32", "int64", "uint64", "bool"]
    outputs = {f"of_{kind}": (kind, ("batch", 2, 3)) for kind in kinds}
    spec = load(tmp_path, zoo_model(outputs | {"flat": ("float", ("batch",))}), '[output]\nhead = "raw"')
    memory = make_memory(spec)
    executor = OnnxRuntimeEngine(spec).executor(memory, sizes=(1, 2))
    memory[:] = np.arange(4)[:, None, None, None]
    for size in (4, 2, 1, 3):
        results = executor.run(size)
        assert [result.dtype for result in results] == [tensor.dtype for tensor in spec.output.tensors]
        assert [result.shape for result in results] == [(size, 2, 3)] * len(kinds) + [(size,)]
        for result in results:
            np.testing.assert_array_equal(result.reshape(size, -1)[:, 0], np.arange(size).astype(result.dtype))
    assert not executor.copies


@pytest.mark.parametrize("dtype", ["float16", "uint8", "float"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_inputs_of_every_kind_are_bound(
    tmp_path: Path, dtype: str, channels: int, layout: str, batch: int | str
) -> None:
    """Half floats, bytes, gray, either layout, one frame at a time or four: padded up, sliced."""
    shape = (batch, channels, 48, 64) if layout == "nchw" else (batch, 48, 64, channels)
    model = zoo_model({"output0": ("float", (batch, 7, 63))}, shape=shape, dtype=dtype)
    spec = load(tmp_path, model)
    if channels == 1:
        assert spec.input.color == "gray"
    memory = make_memory(spec)
    executor = OnnxRuntimeEngine(spec).executor(memory, sizes=(1,))
    memory[:] = np.arange(len(memory))[:, None, None, None]
    assert executor.run(1)[0].shape == (1, 7, 63)
    np.testing.assert_array_equal(executor.run(len(memory))[0][:, 0, 0], np.arange(len(memory)))


def test_output_known_only_after_a_run_is_copied(tmp_path: Path) -> None:
    """Boxes after an NMS: none on a blank picture, then some; and no batch axis where that is declared."""
    spec = load(tmp_path, boxes_after_nms())
    memory = make_memory(spec)
    executor = OnnxRuntimeEngine(spec).executor(memory)
    assert executor.run(1)[0].shape == (1, 0, 6)
    memory[0, 0, 3, :5] = 1
    assert executor.run(1)[0].shape == (1, 5, 6)
    memory[0, 1, 3, :2] = 1
    assert executor.run(1)[0].shape == (1, 7, 6)

    raw = load(tmp_path, bright_pixels(), '[output]\nhead = "raw"\nbatch_axis = false')
    memory = make_memory(raw)
    executor = OnnxRuntimeEngine(raw).executor(memory)
    memory[0, 2, 7, 9] = 1
    np.testing.assert_array_equal(executor.run(1)[0], [[[0, 2, 7, 9]]])
    assert executor.copies


def test_output_that_changes_its_shape_later_is_copied_from_then_on(tmp_path: Path) -> None:
    """It was bound, since blank frames had all the same shape; no batch is lost by it."""
    model = text_model(
        "(float[batch,3,48,64] images) => (float[batch,7,n] output0) <int64[1] one = {1}, int64[1] seven = {7},"
        " int64[3] flat = {-1, 1, 1}, float half = {0.5}> {"
        " top = ReduceMax<keepdims=0>(images) hot = Greater(top, half) extra = Cast<to=7>(hot) wide = Add(one, extra)"
        " whole = Shape<end=1>(images) shape = Concat<axis=0>(whole, seven, wide)"
        " mean = ReduceMean<axes=[1,2,3]>(images) column = Reshape(mean, flat) output0 = Expand(column, shape) }"
    )
    spec = load(tmp_path, model)
    memory = make_memory(spec)
    executor = OnnxRuntimeEngine(spec).executor(memory, sizes=(1,))
    assert (executor.run(4)[0].shape, executor.copies) == ((4, 7, 1), False)
    memory[1] = 1
    results = executor.run(3)[0]
    assert (results.shape, executor.copies) == ((3, 7, 2), True)
    np.testing.assert_array_equal(results[:, 0, 0], [0, 1, 0])
    memory[1] = 0
    assert executor.run(4)[0].shape == (4, 7, 1)


# Models that do not work.


def test_model_that_fails_at_some_sizes_is_refused(tmp_path: Path) -> None:
    """In the runtime's words, with the sizes that do run, and how to serve those."""
    spec = load(tmp_path, failing_above(2), max_batch=8)
    with pytest.raises(EngineError) as caught:
        OnnxRuntimeEngine(spec).measure()
    words = str(caught.value)
    assert words.startswith(f"{spec.path}: expected batches of 1, 2, 4, 8 to run, got only 1, 2: ")
    assert "Gather" in words
    assert words.endswith("(batch.sizes = [1, 2] in model.toml serves those)")

    spec = load(tmp_path, failing_above(2), "[batch]\nsizes = [1, 2]")
    assert OnnxRuntimeEngine(spec).measure().sizes == (1, 2)


def test_only_allowed_sizes_are_run(tmp_path: Path) -> None:
    """Whatever a lane asks for; what is in between is padded."""
    spec = load(tmp_path, oracle_detector(), "[batch]\nsizes = [2, 4]")
    engine = OnnxRuntimeEngine(spec)
    assert engine.measure().sizes == (2, 4)
    executor = engine.executor(make_memory(spec), sizes=(1, 4))
    assert executor.sizes == (4,)
    assert len(executor.run(1)[0]) == 1
    with pytest.raises(ValueError, match="expected 2, 4 positions, got 3"):
        engine.executor(make_memory(spec)[:3])


def test_output_whose_batch_axis_does_not_follow_is_refused(tmp_path: Path) -> None:
    """Frames could not be told apart, though the graph declares a batch."""
    spec = load(tmp_path, not_following())
    with pytest.raises(EngineError, match=r"got float32 \[1, 7, 16\]: axis 0 does not follow the batch"):
        OnnxRuntimeEngine(spec).measure()
    model = bright_pixels()
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "anything"
    single = load(tmp_path, model, '[output]\nhead = "raw"')
    memory = np.ones(single.input.shape(1), np.float32)
    with pytest.raises(EngineError, match=r"which output\.batch_axis = false in model\.toml declares"):
        OnnxRuntimeEngine(single).executor(memory)


def test_declared_batch_of_one_left_behind_is_no_fault(tmp_path: Path) -> None:
    """Tools that open a graph's batch forget its outputs; a run tells the truth."""
    model = zoo_model({"output0": ("float", ("batch", 7, 63))})
    model.graph.output[0].type.tensor_type.shape.dim[0].Clear()
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    assert OnnxRuntimeEngine(load(tmp_path, model)).measure().sizes == (1, 2, 4)


def test_a_noisy_model_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither when it is opened nor when it runs; a failure is raised, and not printed as well."""
    spec = load(tmp_path, noisy(zoo_model({"output0": ("float", ("batch", 7, 63))})))
    OnnxRuntimeEngine(spec).measure()
    with pytest.raises(EngineError):
        OnnxRuntimeEngine(make_spec(tmp_path, Form(), noisy(failing_detector(always=True)))).measure()
    assert capfd.readouterr() == ("", "")
