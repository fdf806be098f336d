"""A model as streams see it, without an engine."""

from __future__ import annotations

from headworks_server.core.admission import AdmissionPool
from headworks_server.core.model import ModelFacts, ServedModel
from support.lanes import CountingLane


def model_facts(name: str = "players") -> ModelFacts:
    return ModelFacts(
        name=name,
        version="3",
        generation=1,
        digest="ab" * 32,
        labels=("player", "ball"),
        backend="onnxruntime-cpu",
        input_width=640,
        input_height=384,
        score_threshold=0.25,
        max_detections=300,
    )


def served_model(name: str = "players", *, lane: CountingLane | None = None) -> ServedModel:
    """A model whose lane only counts."""
    pool = AdmissionPool([lane if lane is not None else CountingLane(target=1, decoders=1)])
    return ServedModel(facts=model_facts(name), pool=pool, queue=pool.add_model())
