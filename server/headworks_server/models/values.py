"""One value of a model's description and its origin; layers are made of these.

A layer is a flat mapping from a dotted key of model.toml ("input.color") to a `Value`. `description` makes the layer of
model.toml, `metadata` the exporter's; `layers` lays them over one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Origins, as `headworks models check` prints them; a model.toml is named by its path.
GRAPH = "graph"
METADATA = "metadata"
HEAD = "the head's family"
SETTINGS = "settings"
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Value:
    """A value and where it came from.

    Attributes:
        value: as in the dataclasses of `engine.base`.
        origin: one of the constants above, with a word more, or the name of a model.toml.
    """

    value: Any
    origin: str


Layer = Mapping[str, Value]
