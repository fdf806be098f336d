"""The folder of models, DIR/<name>/[<version>/]model.onnx, and the facts each file tells about itself.

`models` asks it at start, and for one model again when that changed. It owns the rules of names and of links (a
name never reaches the file system unchecked, nothing outside the folder is opened) and reads a file through an ONNX
Runtime session, so that serving needs no `onnx` package. What facts mean is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime

from headworks_server.core.names import name_fault
from headworks_server.engine.graph import GraphFacts, read_graph
from headworks_server.engine.onnxruntime import PROVIDERS, one_line
from headworks_server.errors import ModelError

MODEL_FILE = "model.onnx"
DESCRIPTION_FILE = "model.toml"
ONLY_VERSION = "1"  # of a model whose file lies in the model's own folder
LAYOUT = f"<name>/{MODEL_FILE}"
NUMBER_PATTERN = re.compile(r"[0-9]+")


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

    def __str__(self) -> str:
        """Name, type and shape, for an error."""
        return f"{self.name!r} of {self.dtype} [{', '.join('?' if axis is None else str(axis) for axis in self.shape)}]"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What one model file says, unjudged.

    Attributes:
        name: the folder's name.
        version: the version folder's name, or "1".
        versions: all versions that lie there, the newest last.
        path: the file.
        digest: SHA-256 of the file's bytes and of its external weights' after them, hex.
        inputs: those that must be given, in the graph's order.
        outputs: in the graph's order.
        metadata: the custom metadata an exporter wrote.
        graph: what the graph says beside them.
        descriptions: the files model.toml that describe it: the model's before the version's.
    """

    name: str
    version: str
    versions: tuple[str, ...]
    path: Path
    digest: str
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    metadata: dict[str, str]
    graph: GraphFacts = field(default_factory=GraphFacts)
    descriptions: tuple[Path, ...] = ()


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

    def folders(self) -> tuple[str, ...]:
        """The folders' names, sorted; whether they hold models is not looked at.

        Raises:
            ModelError: there is none.
        """
        names = tuple(entry.name for entry in _folders(self.path))
        if not names:
            stray = ", ".join(sorted(entry.name for entry in self.path.glob("*.onnx"))) or "no model"
            raise ModelError(f"{self.path}: expected at least one {LAYOUT} in it, got {stray}")
        return names

    def names(self) -> tuple[str, ...]:
        """The models' names, sorted.

        Raises:
            ModelError: the folder is empty, a name is not allowed, or a folder holds no model.
        """
        names = self.folders()
        for name in names:
            self.file_path(name)
        return names

    def versions(self, name: str) -> tuple[str, ...]:
        """The versions of a model, the newest last: the highest number, else the last name in natural order.

        Raises:
            ModelError: a name is not allowed, there is no such model, or a numbered folder holds no model file.
        """
        folder = self._folder(name)
        found = []
        for entry in _folders(folder):
            if (entry / MODEL_FILE).is_file():
                _check_name("model version", entry.name)
                found.append(entry.name)
            elif NUMBER_PATTERN.fullmatch(entry.name):
                raise ModelError(f"{entry / MODEL_FILE}: expected a model file, got {_contents(entry)}")
        if (folder / MODEL_FILE).is_file():
            if found:
                raise ModelError(f"{folder}: expected {MODEL_FILE} or folders of versions, got both")
            return (ONLY_VERSION,)
        if not found:
            raise ModelError(f"{folder / MODEL_FILE}: expected a model file, got {_contents(folder)}")
        return tuple(sorted(found, key=_age))

    def file_path(self, name: str, version: str | None = None) -> Path:
        """Where a model's file lies; the names may come from anywhere. No version is the newest.

        Raises:
            ModelError: as `versions` does, there is no such version, or a link leads out of the repository.
        """
        versions = self.versions(name)
        folder = self.path / name
        if version is None:
            version = versions[-1]
        elif version not in versions:
            _check_name("model version", version)
            raise ModelError(f"{folder}: expected one of the versions {', '.join(versions)}, got {version!r}")
        own = folder / MODEL_FILE
        return self._inside(own if own.is_file() else folder / version / MODEL_FILE)

    def read(self, name: str, version: str | None = None) -> ModelFile:
        """Read one model's facts; no version is the newest.

        Raises:
            ModelError: as `file_path` does, or the file cannot be read, or is no ONNX model.
        """
        path = self.file_path(name, version)
        graph = read_graph(path)
        weights = [self._weights(path, location) for location in graph.external]
        digest = file_digest(path, *weights)
        session = _open(path)
        folder = self.path / name
        places = [folder] if path.parent == folder else [folder, path.parent]
        return ModelFile(
            name=name,
            version=ONLY_VERSION if path.parent == folder else path.parent.name,
            versions=self.versions(name),
            path=path,
            digest=digest,
            inputs=tuple(_facts(argument) for argument in session.get_inputs()),
            outputs=tuple(_facts(argument) for argument in session.get_outputs()),
            metadata=dict(session.get_modelmeta().custom_metadata_map),
            graph=graph,
            descriptions=tuple(
                self._inside(place / DESCRIPTION_FILE) for place in places if (place / DESCRIPTION_FILE).is_file()
            ),
        )

    def read_all(self) -> tuple[ModelFile, ...]:
        """Read the newest version of every model, by name; raises as `names` and `read` do."""
        return tuple(self.read(name) for name in self.names())

    def _folder(self, name: str) -> Path:
        _check_name("model name", name)
        folder = self.path / name
        if not folder.is_dir():
            raise ModelError(f"{folder / MODEL_FILE}: expected a model file, got no such folder")
        return folder

    def _weights(self, model: Path, location: str) -> Path:
        path = model.parent / location
        if not location or Path(location).is_absolute() or ".." in Path(location).parts:
            raise ModelError(f"{model}: expected external weights beside it, got {location!r}")
        if not path.is_file():
            raise ModelError(f"{model}: expected its external weights {location!r} beside it, got no such file")
        return self._inside(path)

    def _inside(self, path: Path) -> Path:
        """The path, if what it leads to lies in the repository: the folder is what an operator allowed."""
        real = path.resolve()
        if not real.is_relative_to(self.path.resolve()):
            raise ModelError(f"{path}: expected a file in {self.path}, got a link to {real}")
        return path


def _check_name(what: str, name: str) -> None:
    if fault := name_fault(what, name):
        raise ModelError(fault)


def _age(version: str) -> tuple[Any, ...]:
    """Orders versions: numbers after names, and numbers inside names by their value."""
    pieces = re.split(r"([0-9]+)", version)
    natural = [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces]
    return (NUMBER_PATTERN.fullmatch(version) is not None, natural)


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _contents(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"a folder with {listed}" if names else "an empty folder"


def file_digest(*paths: Path) -> str:
    """SHA-256 of the files' bytes, one after the other, in hex; raises ModelError where one cannot be read."""
    total = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    total.update(piece)
        except OSError as error:
            raise ModelError(f"{path}: expected a readable model file, got {error.strerror}") from error
    return total.hexdigest()


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
    return TensorFacts(name=argument.name, dtype=dtype, shape=tuple(argument.shape or ()))
