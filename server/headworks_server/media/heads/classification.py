"""Classification: the best classes of a picture, with their scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from headworks.v1 import frame_pb2 as pb
from headworks_server.errors import ModelError
from headworks_server.media.geometry import Geometry
from headworks_server.media.heads.base import CLASSIFICATIONS, Array, agrees, require, require_floats
from headworks_server.media.specs import Model, Tensor

Scores = npt.NDArray[np.float32]


def softmax(logits: Scores) -> Scores:
    """Scores that add up to 1, over the logits that are finite; the others stay as they are."""
    finite = np.isfinite(logits)
    if not finite.any():
        return logits
    powers = np.exp(logits - logits.max(where=finite, initial=-np.inf), where=finite, out=logits.copy())
    scores: Scores = np.divide(powers, powers.sum(where=finite), where=finite, out=powers)
    return scores


def sigmoid(logits: Scores) -> Scores:
    """Each score by itself, 0 to 1; what is not finite stays as it is."""
    # By the hyperbolic tangent, which overflows nowhere.
    return np.where(np.isfinite(logits), np.float32(0.5) + np.float32(0.5) * np.tanh(logits * np.float32(0.5)), logits)


ACTIVATIONS: Final[dict[str, Callable[[Scores], Scores]]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "none": lambda scores: scores,
}


class ClassificationHead:
    """One score for each class, in an output of any float type whose other axes are 1.

    A score that is not finite is left out, and so is one that is not above the threshold, where there is one.

    Attributes:
        score_threshold: 0 tells all scores.
        top_k: the most classes of a frame, where it does not say otherwise.
    """

    form = CLASSIFICATIONS

    def __init__(self, model: Model) -> None:
        """Make the head of a model.

        Raises:
            ModelError: the model has no labels, or an activation that is not known.
        """
        self.score_threshold = model.postprocess.score_threshold
        self.top_k = model.postprocess.top_k
        self._classes = len(model.labels)
        self._index = model.output.index
        if not model.labels:
            raise ModelError("head classification: expected a label for each class, got none")
        if model.output.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ModelError(f"head classification: expected activation {known}, got {model.output.activation!r}")
        self._activate = ACTIVATIONS[model.output.activation]

    def check(self, tensors: Sequence[Tensor]) -> None:
        """See `Head`."""
        tensor = tensors[self._index]
        require_floats(tensor)
        if tensor.shape is None:
            return
        long = [axis for axis in tensor.shape if axis != 1] or [1]
        open_axes = len(long) - 1 <= sum(axis is None for axis in long)  # all but one may turn out to be 1
        fits = open_axes and any(agrees(axis, self._classes) for axis in long)
        require(fits, tensor, f"[{self._classes}] (a score for each of {self._classes} labels)")

    def postprocess(
        self,
        outputs: Sequence[Array],
        index: int,
        geometry: Geometry,  # noqa: ARG002  (a class has no place)
        *,
        score_threshold: float,
        max_detections: int,
    ) -> tuple[bytes, bytes]:
        """See `Head`; raises ValueError on a number of classes that `check` could not foresee."""
        scores = self._activate(outputs[self._index][index].reshape(-1).astype(np.float32))
        if len(scores) != self._classes:
            raise ValueError(f"expected a score for each of {self._classes} labels, got {len(scores)}")
        threshold = score_threshold or self.score_threshold
        told = np.isfinite(scores)
        if threshold > 0:
            told &= scores > np.float32(threshold)
        classes = np.flatnonzero(told)
        best = classes[np.argsort(-scores[classes], kind="stable")][: max_detections or self.top_k]
        value = pb.Classifications(
            classifications=[pb.Classification(class_id=int(c), score=float(scores[c])) for c in best]
        )
        return b"", pb.Output(classifications=value).SerializeToString()
