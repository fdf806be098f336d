"""Classifications and raw tensors: what is told, as protobuf reads it, held against plain NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headworks.v1 import frame_pb2 as pb
from headworks_server.engine.base import InputSpec, ModelSpec, OutputSpec, PostprocessSpec, PreprocessSpec, TensorSpec
from headworks_server.errors import ModelError
from headworks_server.media.geometry import Resize
from headworks_server.media.heads import Head, make_heads

SQUARE = InputSpec(name="images", dtype="float32", layout="nchw", width=224, height=224)
GEOMETRY = Resize.of(SQUARE, PreprocessSpec()).place(640, 480)
LABELS = ("red", "blue", "referee", "keeper")
ALL = PostprocessSpec(score_threshold=0.0)


def model(
    head: str,
    *tensors: TensorSpec,
    labels: tuple[str, ...] = LABELS,
    postprocess: PostprocessSpec = ALL,
    activation: str = "none",
) -> ModelSpec:
    return ModelSpec(
        name="teams",
        path=Path("models/teams/model.onnx"),
        labels=labels,
        input=SQUARE,
        output=OutputSpec(head=head, tensors=tensors or (TensorSpec(name="scores"),), activation=activation),
        postprocess=postprocess,
    )


def value_of(head: Head, *outputs: np.ndarray, index: int = 1, **asked: Any) -> pb.Output:
    """What a client reads of one frame of a batch."""
    asked = {"score_threshold": 0.0, "max_detections": 0} | asked
    detections, value = head.postprocess(outputs, index, GEOMETRY, **asked)
    assert detections == b""
    output = pb.Output.FromString(value)
    assert output.SerializeToString() == value
    return output


def classes(logits: list[float], *, asked: dict[str, float] | None = None, **options: Any) -> list[tuple[int, float]]:
    """Class ids and scores of the second frame of two."""
    head = make_heads(model("classification", **options))[2]
    scores = np.array([[9.0] * len(logits), logits], np.float32)
    output = value_of(head, scores, **(asked or {}))
    assert output.WhichOneof("value") == "classifications"
    return [(each.class_id, each.score) for each in output.classifications.classifications]


def test_scores_are_told_best_first() -> None:
    """An output that is probabilities already is told as it is; equals in the order of their classes."""
    assert classes([0.25, 0.5, 0.125, 0.125]) == [(1, 0.5), (0, 0.25), (2, 0.125), (3, 0.125)]


def test_softmax_equals_its_definition() -> None:
    """exp(x) / sum(exp(x)), also where exp(x) by itself would overflow."""
    for logits in ([1.0, 2.0, 0.5, -3.0], [1000.0, 999.0, 0.0, -1000.0], [0.0] * 4):
        powers = np.exp(np.array(logits, np.float64) - max(logits))
        told = dict(classes(logits, activation="softmax"))
        assert [told[index] for index in range(4)] == pytest.approx(list(powers / powers.sum()), abs=1e-6)


def test_sigmoid_equals_its_definition() -> None:
    """1 / (1 + exp(-x)), each class by itself."""
    logits = [0.0, 3.0, -90.0, 1000.0]
    told = dict(classes(logits, activation="sigmoid"))
    expected = [1 / (1 + np.exp(-np.float64(x))) for x in logits]
    assert [told[index] for index in range(4)] == pytest.approx(expected, abs=1e-6)


def test_the_model_or_the_stream_says_how_many_and_above_which_score() -> None:
    """top_k and the threshold of the model, unless the stream asks; the threshold is strict, and 0 leaves all in."""
    scores = [0.25, 0.5, 0.125, -0.125]
    assert [class_id for class_id, _ in classes(scores)] == [1, 0, 2, 3]
    assert [class_id for class_id, _ in classes(scores, asked={"max_detections": 2})] == [1, 0]
    assert [class_id for class_id, _ in classes(scores, asked={"score_threshold": 0.125})] == [1, 0]
    own = PostprocessSpec(score_threshold=0.25, top_k=3)
    assert [class_id for class_id, _ in classes(scores, postprocess=own)] == [1]
    assert len(classes(scores, postprocess=PostprocessSpec(score_threshold=0.0, top_k=3))) == 3


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize("wild", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_left_out(activation: str, wild: float) -> None:
    """The others are told as if it were not there; of nothing but such, nothing is told."""
    told = classes([0.5, wild, 0.25, 0.125], activation=activation)
    assert [class_id for class_id, _ in told] == [0, 2, 3]
    if activation == "softmax":
        assert sum(score for _, score in told) == pytest.approx(1)
    assert classes([wild] * 4, activation=activation) == []


def test_an_empty_classification_is_an_answer() -> None:
    """The oneof is set, so a client knows what it holds."""
    assert classes([0.0] * 4, asked={"score_threshold": 0.5}) == []


@pytest.mark.parametrize("shape", [(4,), (4, 1, 1), (1, 4), (None,), (None, 1, 1), None])
def test_classes_may_lie_along_any_axis(shape: tuple[int | None, ...] | None) -> None:
    """Exporters leave axes of 1 behind; what is not known is accepted."""
    head = make_heads(model("classification", TensorSpec(name="scores", shape=shape, dtype="float16")))[2]
    actual = tuple(axis or 4 for axis in shape or (4,))
    scores = np.linspace(0, 1, 8, dtype=np.float16).reshape(2, *actual)
    assert [each.class_id for each in value_of(head, scores).classifications.classifications] == [3, 2, 1, 0]


@pytest.mark.parametrize("shape", [(1000,), (3,), (4, 2), (7, 8400)])
def test_more_classes_than_labels_is_refused(shape: tuple[int, ...]) -> None:
    """A class without a name, or a name without a class, is a fault of the description."""
    with pytest.raises(ModelError) as caught:
        make_heads(model("classification", TensorSpec(name="scores", shape=shape)))
    got = "[" + ", ".join(map(str, shape)) + "]"
    assert str(caught.value) == (
        f"models/teams/model.onnx: output 'scores': expected [4] (a score for each of 4 labels), got {got}"
    )


def test_other_faults_of_a_classifier_are_refused() -> None:
    """No labels, an activation that nobody knows, whole numbers, and what only a run shows."""
    with pytest.raises(ModelError, match="head classification: expected a label for each class, got none"):
        make_heads(model("classification", labels=()))
    with pytest.raises(ModelError, match="expected activation softmax, sigmoid, none, got 'relu'"):
        make_heads(model("classification", activation="relu"))
    with pytest.raises(ModelError, match="output 'scores': expected float16, float32, float64, got int64"):
        make_heads(model("classification", TensorSpec(name="scores", dtype="int64")))
    with pytest.raises(ValueError, match="a score for each of 4 labels, got 5"):
        classes([0.0] * 5)


DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}


def test_raw_tensors_are_the_models_own_outputs() -> None:
    """Every output in the model's order, under its name, with type and shape, byte for byte; of the one frame."""
    random = np.random.default_rng(1)
    shapes = [(3, 2, 5, index + 1) for index in range(len(DATATYPES))]
    outputs = [
        random.integers(0, 2, shape).astype(dtype) for shape, dtype in zip(shapes, DATATYPES.values(), strict=True)
    ]
    tensors = [TensorSpec(name=f"out {dtype}", dtype=dtype) for dtype in DATATYPES.values()]
    heads = make_heads(model("raw", *tensors, labels=()))
    assert sorted(heads) == [3]
    output = value_of(heads[3], *outputs, index=2)
    assert output.WhichOneof("value") == "raw_tensors"
    for tensor, datatype, array in zip(output.raw_tensors.tensors, DATATYPES, outputs, strict=True):
        assert (tensor.name, tensor.datatype) == (f"out {array.dtype}", datatype)
        assert np.array_equal(np.frombuffer(tensor.data, array.dtype).reshape(tensor.shape), array[2])


@pytest.mark.parametrize("shape", [(2,), (2, 0), (2, 0, 6), (2, 300, 200)])
def test_raw_tensors_of_any_size(shape: tuple[int, ...]) -> None:
    """A number without axes, nothing at all, and more bytes than a length of one byte tells."""
    head = make_heads(model("raw", TensorSpec(name="x"), labels=()))[3]
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    (tensor,) = value_of(head, array).raw_tensors.tensors
    assert tuple(tensor.shape) == shape[1:]
    assert tensor.data == array[1].tobytes()


def test_raw_tensors_of_text_are_refused() -> None:
    """There is no such tensor on the wire."""
    with pytest.raises(ModelError, match="output 'names': expected numbers or booleans, got object"):
        make_heads(model("raw", TensorSpec(name="names", dtype="object"), labels=()))
