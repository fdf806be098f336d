"""The folder of models: DIR/<name>/model.onnx, and the facts each file tells about itself.

`models.py` asks it once at start. It owns the rule of names (they never reach the file system unchecked) and reads a
file through an ONNX Runtime session, so that serving needs no `onnx` package. What facts mean is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from headworks_server.engine.onnxruntime import PROVIDERS, one_line
from headworks_server.errors import ModelError

MODEL_FILE = "model.onnx"
ONLY_VERSION = "1"
NAME_PATTERN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
LAYOUT = f"<name>/{MODEL_FILE}"


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """One input or output of a graph.

    Attributes:
        name: as in the graph.
        dtype: as ONNX Runtime says it, without `tensor(...)`: "float" is 32 bits.
        shape: a number where the graph fixes it, the axis' name or None where it does not.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What one model file says, unjudged.

    Attributes:
        name: the folder's name.
        version: always "1".
        path: the file.
        digest: SHA-256 of the file's bytes, hex.
        inputs: in the graph's order.
        outputs: in the graph's order.
        metadata: the custom metadata an exporter wrote.
    """

    name: str
    version: str
    path: Path
    digest: str
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    metadata: dict[str, str]


class ModelRepository:
    """A folder of models. Hidden entries and plain files are passed over; every other folder must hold a model."""

    def __init__(self, path: Path) -> None:
        """Take the folder.

        Raises:
            ModelError: the path is not a folder.
        """
        if not path.is_dir():
            fact = "a file" if path.is_file() else "nothing there"
            raise ModelError(f"{path}: expected a folder with {LAYOUT} in it, got {fact}")
        self.path = path

    def names(self) -> tuple[str, ...]:
        """The models' names, sorted.

        Raises:
            ModelError: the folder is empty, a name is not allowed, or a folder holds no model.
        """
        names = sorted(entry.name for entry in self.path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if not names:
            stray = ", ".join(sorted(entry.name for entry in self.path.glob("*.onnx"))) or "no model"
            raise ModelError(f"{self.path}: expected at least one {LAYOUT} in it, got {stray}")
        for name in names:
            self.file_path(name)
        return tuple(names)

    def file_path(self, name: str) -> Path:
        """Where the model of that name lies; `name` may come from anywhere.

        Raises:
            ModelError: the name is not allowed, or there is no such model.
        """
        if NAME_PATTERN.fullmatch(name) is None:
            raise ModelError(
                f"model name {name!r}: expected 1 to 64 letters, digits, '.', '_' and '-', not starting with '.'"
            )
        path = self.path / name / MODEL_FILE
        if not path.is_file():
            raise ModelError(f"{path}: expected a model file, got {_contents(path.parent)}")
        return path

    def read(self, name: str) -> ModelFile:
        """Read one model's facts.

        Raises:
            ModelError: the name is not allowed, or the file cannot be read, or is no ONNX model.
        """
        path = self.file_path(name)
        digest = _digest(path)
        session = _open(path)
        return ModelFile(
            name=name,
            version=ONLY_VERSION,
            path=path,
            digest=digest,
            inputs=tuple(_facts(argument) for argument in session.get_inputs()),
            outputs=tuple(_facts(argument) for argument in session.get_outputs()),
            metadata=dict(session.get_modelmeta().custom_metadata_map),
        )

    def read_all(self) -> tuple[ModelFile, ...]:
        """Read every model's facts, by name; raises as `names` and `read` do."""
        return tuple(self.read(name) for name in self.names())


def _contents(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    names = sorted(entry.name for entry in folder.iterdir())
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"a folder with {listed}" if names else "an empty folder"


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: expected a readable model file, got {error.strerror}") from error


def _open(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    # Only asked for its facts: no optimisation, no threads, and its complaint is raised, not also printed.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=PROVIDERS)
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise ModelError(f"{path}: expected an ONNX model, got: {one_line(error)}") from error


def _facts(argument: Any) -> TensorFacts:
    dtype = str(argument.type).removeprefix("tensor(").removesuffix(")")
    return TensorFacts(name=argument.name, dtype=dtype, shape=tuple(argument.shape))
