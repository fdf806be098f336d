"""A model as streams see it, without an engine."""

from __future__ import annotations

from headworks_server.core.admission import AdmissionPool
from headworks_server.core.facts import ModelFacts
from headworks_server.core.model import ServedModel
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


class Names(dict[str, ServedModel]):
    """What a client may name, for tests: models by name, and those that serve beside the current ones."""

    def __init__(self, models: dict[str, ServedModel], *, beside: tuple[ServedModel, ...] = ()) -> None:
        super().__init__(models)
        self.models = models
        self._beside = {(model.facts.name, model.facts.version): model for model in beside}

    def version(self, name: str, version: str) -> ServedModel | None:
        return self._beside.get((name, version))
