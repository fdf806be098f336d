"""A model's description as the text of a model.toml, for questions and for `headworks models check`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

TABLES = ("", "input", "preprocess", "output", "postprocess", "batch", "serving")  # in this order


def place(key: str) -> int:
    """Where a dotted key stands in a model.toml."""
    return TABLES.index(key.rpartition(".")[0])


def toml_value(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(inner) for inner in value) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def toml_text(rows: Mapping[str, tuple[Any, str]]) -> str:
    """A model.toml: for each dotted key its value and a comment, which may be empty. In the order of the tables."""
    tables: dict[str, list[tuple[str, str]]] = {}
    for key, (value, comment) in rows.items():
        table, _, name = key.rpartition(".")
        tables.setdefault(table, []).append((f"{name} = {toml_value(value)}", comment))
    lines: list[str] = []
    for table in sorted(tables, key=TABLES.index):
        lines += ["", f"[{table}]"] if table else []
        width = min(40, max(len(text) for text, _ in tables[table]))
        lines += [f"{text:<{width}}  # {comment}" if comment else text for text, comment in tables[table]]
    return "\n".join(lines).lstrip("\n")
