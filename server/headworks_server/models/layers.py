"""The layers of one model's description over one another, and what is asked where none has a value.

`merge` makes one for each model. From above: model.toml, the metadata, the family of the head, the settings, a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from headworks_server.engine.repository import DESCRIPTION_FILE, ModelFile
from headworks_server.errors import ModelError
from headworks_server.models.metadata import Metadata
from headworks_server.models.text import place, toml_text
from headworks_server.models.values import DEFAULT, GRAPH, HEAD, Layer, Value


@dataclass(frozen=True, slots=True)
class Question:
    """What the file leaves open.

    Attributes:
        key: of model.toml.
        text: why it is asked, or what may be answered.
        proposal: a value to paste; the reader confirms or changes it.
        note: a word beside it, in the snippet.
    """

    key: str
    text: str
    proposal: Any
    note: str = ""


class Layers:
    """One model's layers.

    Attributes:
        file: the model's file.
        metadata: what its exporter said.
        stated: the layer of its model.toml.
        family: what the makers of the head's family feed it, by key.
        values: what was settled, by key, in the order in which it was.
        questions: what was not.
    """

    def __init__(self, file: ModelFile, *, stated: Layer, metadata: Metadata, settings: Layer) -> None:
        self.file = file
        self.metadata = metadata
        self.stated = stated
        self.family: Mapping[str, Any] = {}
        self.values: dict[str, Value] = {}
        self.questions: list[Question] = []
        self._settings = settings

    def find(self, key: str) -> Value | None:
        """The highest layer's value of a key, above settings and defaults.

        Raises:
            ModelError: the metadata have an entry for it that cannot be read, and model.toml says nothing.
        """
        if key in self.stated:
            return self.stated[key]
        if key in self.metadata.faults:
            raise ModelError(f"{self.file.path}: {self.metadata.faults[key]}; {key} in {self.beside} overrides it")
        if key in self.metadata.layer:
            return self.metadata.layer[key]
        return Value(self.family[key], HEAD) if key in self.family else None

    def say(self, key: str, *, default: Any) -> Any:
        """Settle a key that need not be asked for."""
        if key in self.values:
            return self.values[key].value
        return self.put(key, self.find(key) or self._settings.get(key) or Value(default, DEFAULT))

    def put(self, key: str, value: Value) -> Any:
        """Settle a key."""
        self.values[key] = value
        return value.value

    def fact(self, key: str, fact: Any) -> None:
        """Settle a key by the graph; model.toml may repeat it, but not change it."""
        told = self.stated.get(key)
        if told is not None and told.value != fact:
            self.contradict(key, told, f"{fact} in the graph")
        self.put(key, Value(fact, GRAPH))

    def question(self, key: str, text: str, proposal: Any, note: str = "") -> None:
        """Ask for a key."""
        self.questions.append(Question(key, text, proposal, note))

    def check(self) -> None:
        """Raise `ModelError` with every question, and a model.toml to paste, if there is any."""
        if not self.questions:
            return
        questions = sorted(self.questions, key=lambda question: place(question.key))
        rows = {question.key: (question.proposal, question.note) for question in questions}
        head = f"{self.file.path}: expected what the file does not say, in {self.beside}:"
        lines = [f"  {question.key}: {question.text}" for question in questions]
        raise ModelError("\n".join([head, *lines, f"check these lines and put them there:\n\n{toml_text(rows)}"]))

    @property
    def beside(self) -> str:
        """The model.toml that is asked to say more."""
        files = self.file.descriptions
        return str(files[-1] if files else self.file.path.parent / DESCRIPTION_FILE)

    def contradict(self, key: str, told: Value, fact: str) -> NoReturn:
        """Raise `ModelError`: one layer says what another, or the graph, excludes."""
        shown = f"{told.value['width']}x{told.value['height']}" if key == "input.size" else told.value
        raise ModelError(f"{self.file.path}: {key}: expected {shown}, as {told.origin} says, got {fact}")

    def refuse(self, expected: str, fact: str) -> NoReturn:
        """Raise `ModelError`: the model cannot be served."""
        raise ModelError(f"{self.file.path}: expected {expected}, got {fact}")
