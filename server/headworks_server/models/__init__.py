"""From a model's file to the model as it is served: one `ModelSpec` for each, or an error that says what to do.

`app` calls `load_models` at start, and `load_model` for one whose files changed. A model that cannot be served is
refused with the file, the expectation and the fact; one that leaves something open is asked for it by name.
"""

from __future__ import annotations

from headworks_server.config import Settings
from headworks_server.engine.base import InputSpec, ModelSpec, PostprocessSpec
from headworks_server.engine.repository import ModelFile, ModelRepository
from headworks_server.errors import ConfigError
from headworks_server.models.description import read_description
from headworks_server.models.merge import Merged, merge
from headworks_server.models.values import SETTINGS, Value

__all__ = ["Merged", "describe", "load_model", "load_models", "open_repository", "stand_in_model"]

_BENEATH = {
    "score_threshold": "postprocess.score_threshold",
    "iou_threshold": "postprocess.iou_threshold",
    "max_detections": "postprocess.max_detections",
    "decode_scale": "preprocess.decode_scale",
}


def open_repository(settings: Settings) -> ModelRepository:
    """The folder of `settings.models`.

    Raises:
        ConfigError: no folder is set.
        ModelError: it is no folder.
    """
    if settings.models is None:
        raise ConfigError("models: expected a folder of models, got none")
    return ModelRepository(settings.models)


def load_models(settings: Settings) -> tuple[ModelSpec, ...]:
    """The newest version of every model of `settings.models`, by name.

    Raises:
        ConfigError: no folder is set.
        ModelError: the folder or a model in it cannot be served.
    """
    repository = open_repository(settings)
    return tuple(describe(file, settings).spec for file in repository.read_all())


def load_model(settings: Settings, name: str, version: str | None = None) -> ModelSpec:
    """One model of `settings.models`; no version is the newest.

    Raises:
        ConfigError: no folder is set.
        ModelError: there is no such model, or it cannot be served.
    """
    return describe(open_repository(settings).read(name, version), settings).spec


def describe(file: ModelFile, settings: Settings) -> Merged:
    """One model as it will be served, and where each of its values came from.

    Raises:
        ModelError: it cannot be served, or something has to be asked for.
    """
    stated: dict[str, Value] = {}
    for description in file.descriptions:  # the version's after the model's, so that it wins
        layer = read_description(description, root=settings.models or description.parent)
        if {"batch.max", "batch.sizes"} & layer.keys():  # two ways to say one thing
            stated = {key: value for key, value in stated.items() if not key.startswith("batch.")}
        stated |= layer
    beneath = {key: Value(getattr(settings, name), SETTINGS) for name, key in _BENEATH.items()}
    return merge(file, stated=stated, settings=beneath, max_batch=settings.max_batch)


def stand_in_model(name: str = "stand-in", *, max_batch: int, max_detections: int = 300) -> ModelSpec:
    """The model that the backends `sleeping` and `null` claim to serve; there is no file."""
    return ModelSpec(
        name=name,
        labels=tuple(f"class-{number}" for number in range(256)),  # the class is a byte of the frame
        input=InputSpec(name="images", dtype="uint8", layout="nhwc", width=64, height=64),
        postprocess=PostprocessSpec(max_detections=max_detections),
        max_batch=max_batch,
    )
