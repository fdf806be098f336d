"""What a model file holds that ONNX Runtime does not tell: the files of its weights, and what makes each output.

`repository` asks before ONNX Runtime opens the file. The protobuf is walked in place, so that a file of any size costs
little memory and serving needs no `onnx` package; only the few fields named below are read, the rest is stepped over.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from headworks_server.errors import ModelError

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_FUNCTION_NODE = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_OUTPUT = 1, 5, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP_TYPE, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_EXTERNAL_DATA = 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VALUE_INFO_NAME = 1

_MAX_DEPTH: Final = 16  # of graphs inside attributes
# Nodes that change a score's type or shape, not its meaning.
_PASSING: Final = frozenset(
    ("Identity", "Cast", "QuantizeLinear", "DequantizeLinear", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
)


@dataclass(slots=True)
class GraphFacts:
    """What the file says beside inputs, outputs and metadata.

    Attributes:
        external: the locations of external weights, as written in the file; sorted, each once.
        makers: for each output of the graph, the operator that computed it, seen through casts, reshapes and
            quantization; "" where nothing does.
    """

    external: tuple[str, ...] = ()
    makers: dict[str, str] = field(default_factory=dict)


def read_graph(path: Path) -> GraphFacts:
    """Walk a model file.

    Raises:
        ModelError: the file cannot be read, or is no protobuf.
    """
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) == 0:
                raise ModelError(f"{path}: expected an ONNX model, got an empty file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Walk(data).facts()
    except OSError as error:
        raise ModelError(f"{path}: expected a readable model file, got {error.strerror}") from error
    except (IndexError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: expected an ONNX model, got bytes that are none, or not all of one") from error


Span = tuple[int, int]


class _Walk:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._external: set[str] = set()
        self._nodes: dict[str, tuple[str, str]] = {}  # output: operator, first input
        self._outputs: list[str] = []

    def facts(self) -> GraphFacts:
        for number, span in self._fields((0, len(self._data))):
            if number == _MODEL_GRAPH:
                self._graph(span, depth=0)
            elif number == _MODEL_FUNCTIONS:
                for inner, node in self._fields(span):
                    if inner == _FUNCTION_NODE:
                        self._node(node, depth=1)
        return GraphFacts(tuple(sorted(self._external)), {name: self._maker(name) for name in self._outputs})

    def _graph(self, graph: Span, *, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise ValueError("graphs in graphs without end")
        for number, span in self._fields(graph):
            if number == _GRAPH_NODE:
                self._node(span, depth=depth)
            elif number == _GRAPH_INITIALIZER:
                self._tensor(span)
            elif number == _GRAPH_OUTPUT and depth == 0:
                self._outputs += [self._text(name) for inner, name in self._fields(span) if inner == _VALUE_INFO_NAME]

    def _node(self, node: Span, *, depth: int) -> None:
        operator, inputs, outputs = "", [], []
        for number, span in self._fields(node):
            if number == _NODE_OP_TYPE:
                operator = self._text(span)
            elif number == _NODE_INPUT:
                inputs.append(self._text(span))
            elif number == _NODE_OUTPUT:
                outputs.append(self._text(span))
            elif number == _NODE_ATTRIBUTE:
                self._attribute(span, depth=depth)
        if depth == 0:
            self._nodes |= dict.fromkeys(outputs, (operator, inputs[0] if inputs else ""))

    def _attribute(self, attribute: Span, *, depth: int) -> None:
        for number, span in self._fields(attribute):
            if number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                self._tensor(span)
            elif number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                self._graph(span, depth=depth + 1)

    def _tensor(self, tensor: Span) -> None:
        for number, entry in self._fields(tensor):
            if number == _TENSOR_EXTERNAL_DATA:
                pair = {inner: self._text(span) for inner, span in self._fields(entry)}
                if pair.get(_ENTRY_KEY) == "location":
                    self._external.add(pair.get(_ENTRY_VALUE, ""))

    def _maker(self, name: str) -> str:
        for _ in range(len(self._nodes)):
            operator, source = self._nodes.get(name, ("", ""))
            if operator not in _PASSING:
                return operator.removeprefix("QLinear")
            name = source
        return ""

    def _text(self, span: Span) -> str:
        return self._data[slice(*span)].decode()

    def _fields(self, span: Span) -> Iterator[tuple[int, Span]]:
        """The length-delimited fields of a message: number and where its content lies."""
        at, end = span
        while at < end:
            tag, at = self._varint(at)
            kind = tag & 7
            if kind == 2:
                length, at = self._varint(at)
                if at + length > end:
                    raise ValueError("a field reaches beyond its message")
                yield tag >> 3, (at, at + length)
                at += length
            elif kind == 0:
                _, at = self._varint(at)
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            else:
                raise ValueError(f"wire type {kind}")
        if at != end:
            raise ValueError("a field reaches beyond its message")

    def _varint(self, at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = self._data[at]
            value |= (byte & 0x7F) << shift
            at += 1
            if byte < 0x80:
                return value, at
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than ten bytes")
