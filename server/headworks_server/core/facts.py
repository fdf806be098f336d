"""What a client is told of a model: made by the host from its files, encoded by rpc."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a client is told of a model.

    Attributes:
        name: the model's folder.
        version: its version.
        generation: a number for each thing that has served under this name.
        digest: sha256 of the file, in hex.
        labels: class names by class id.
        backend: what runs it.
        input_width: of the network, in pixels.
        input_height: of the network, in pixels.
        score_threshold: where a stream asks for none.
        max_detections: where a stream asks for none; also the most it may ask for.
        top_k: classes of a classification where a stream asks for none.
        forms: the forms of results it serves, as numbers of `ResultOptions.Form`; the first where a stream asks none.
    """

    name: str
    version: str
    generation: int
    digest: str
    labels: tuple[str, ...]
    backend: str
    input_width: int
    input_height: int
    score_threshold: float
    max_detections: int
    top_k: int = 5
    forms: tuple[int, ...] = (1,)
