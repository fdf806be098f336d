"""One model's description, laid together from the graph's facts, model.toml, the metadata and the settings.

`load_models` calls it for each file, `headworks models check` prints what it found. What no layer says is asked for,
all at once and with a model.toml to paste; what two heads or two layouts could explain is never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headworks_server.engine.base import ModelSpec, PostprocessSpec
from headworks_server.engine.repository import ModelFile
from headworks_server.models.inputs import find_input, merge_input, merge_preprocess
from headworks_server.models.layers import Layers
from headworks_server.models.metadata import read_metadata
from headworks_server.models.outputs import merge_output
from headworks_server.models.values import SETTINGS, Layer, Value


@dataclass(frozen=True, slots=True)
class Merged:
    """A model as it will be served, and where each of its values came from.

    Attributes:
        spec: the model.
        values: by key of model.toml.
    """

    spec: ModelSpec
    values: dict[str, Value]


def merge(file: ModelFile, *, stated: Layer, settings: Layer, max_batch: int) -> Merged:
    """Lay the layers of one model together.

    Args:
        file: what the file says.
        stated: what its model.toml says.
        settings: what holds where neither says anything.
        max_batch: the largest batch where the graph takes any.

    Raises:
        ModelError: something cannot be served, two layers contradict each other, or something has to be asked for.
    """
    layers = Layers(file, stated=stated, metadata=read_metadata(file.metadata), settings=settings)
    tensor, fixed_batch = find_input(layers)
    output, labels = merge_output(layers, fixed_batch)
    picture = merge_input(layers, tensor)
    preprocess = merge_preprocess(layers, picture.dtype, output.head)
    default = PostprocessSpec()
    postprocess = PostprocessSpec(
        **{key: layers.say(f"postprocess.{key}", default=getattr(default, key)) for key in PostprocessSpec.__slots__}
    )
    largest, sizes = _batch(layers, fixed_batch, max_batch)
    backends, max_frame_ms = (_stated(layers, f"serving.{key}") for key in ("backends", "max_frame_ms"))
    layers.check()
    spec = ModelSpec(
        name=file.name,
        version=file.version,
        digest=file.digest,
        path=file.path,
        labels=labels,
        input=picture,
        preprocess=preprocess,
        output=output,
        postprocess=postprocess,
        fixed_batch=fixed_batch,
        max_batch=largest,
        batch_sizes=sizes,
        backends=tuple(backends or ()),
        max_frame_ms=max_frame_ms,
    )
    return Merged(spec, layers.values)


def _stated(layers: Layers, key: str) -> Any:
    """What model.toml says of a key that nobody else knows of; None where it says nothing."""
    value = layers.stated.get(key)
    return layers.put(key, value) if value is not None else None


def _batch(layers: Layers, fixed_batch: int | None, max_batch: int) -> tuple[int, tuple[int, ...]]:
    """The largest batch, and the only sizes where they are stated."""
    largest, sizes = layers.stated.get("batch.max"), layers.stated.get("batch.sizes")
    if fixed_batch is not None:
        if sizes is not None and sizes.value != [fixed_batch]:
            layers.contradict("batch.sizes", sizes, f"a batch of {fixed_batch} in the graph")
        layers.fact("batch.max", fixed_batch)
        return fixed_batch, ()
    if sizes is not None:
        layers.put("batch.sizes", sizes)
        largest = Value(sizes.value[-1], sizes.origin)
    largest = largest or Value(max_batch, SETTINGS)
    layers.put("batch.max", largest)
    return largest.value, tuple(sizes.value) if sizes else ()
