"""What `headworks stream` is asked to do for each camera: from the command line, or from a cameras.toml.

A file holds one `[[camera]]` table for each camera; what a table leaves out is as the flags say.

    [[camera]]
    name = "north goal"
    source = "rtsp://10.0.0.7/main"
    model = "players"
    policy = "bounded:4:newest"
    weight = 2
"""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from headworks.policy import Policy

MAX_DEPTH = 64
_POLICY = re.compile(r"(?P<name>latest|bounded|every[-_]frame)(:(?P<depth>\d+))?(:(?P<drop>oldest|newest))?")


class CameraError(ValueError):
    """A camera is described wrongly; the message names file, camera, key, expectation and fact."""


def parse_policy(text: str) -> Policy:
    """Read "latest", "bounded:DEPTH", "bounded:DEPTH:newest" or "every-frame".

    Raises:
        CameraError: it is none of these.
    """
    match = _POLICY.fullmatch(text)
    expected = f"policy: expected latest, bounded:DEPTH[:oldest|newest] or every-frame, got {text!r}"
    if match is None:
        raise CameraError(expected)
    name = match["name"].replace("-", "_")
    if name != "bounded":
        if match["depth"] or match["drop"]:
            raise CameraError(expected)
        return Policy(name)
    depth = int(match["depth"] or 0)
    if not 1 <= depth <= MAX_DEPTH:
        raise CameraError(f"policy: expected a depth of 1 to {MAX_DEPTH} in bounded:DEPTH, got {text!r}")
    return Policy("bounded", depth, match["drop"] or "oldest")


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSpec:
    """One camera.

    Attributes:
        source: what `open_source` takes.
        name: of its stream, in tables and logs; empty is the source's.
        model: empty is the server's only one.
        fps: frames a second; 0 is the source's own rate.
        policy: as `parse_policy` reads it.
        deadline_ms: from receipt at the server to the result, 0 for none.
        weight: share in the round robin, 1 to 16.
        max_fps: what the server takes at most, 0 for any.
        score: boxes and classes above this, 0 for the model's own.
    """

    source: str = ""
    name: str = ""
    model: str = ""
    fps: float = 0.0
    policy: str = "latest"
    deadline_ms: int = 0
    weight: int = 1
    max_fps: float = 0.0
    score: float = 0.0

    @property
    def title(self) -> str:
        """What the stream is called, at most 64 characters."""
        return (self.name or Path(self.source).name or self.source)[:64]


_BOUNDS = {"fps": (0, 1000), "deadline_ms": (0, 60_000), "weight": (1, 16), "max_fps": (0, 1000), "score": (0, 1)}


def read_cameras(path: Path, defaults: CameraSpec) -> list[CameraSpec]:
    """Read a cameras.toml.

    Raises:
        CameraError: a line for everything that is wrong with it.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CameraError(f"{path}: expected a readable file, got: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CameraError(f"{path}: expected TOML, got: {error}") from error
    tables = content.pop("camera", None)
    faults = [f"{path}: unknown key {key!r}: expected [[camera]] tables only" for key in content]
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise CameraError("\n".join([*faults, f"{path}: expected at least one [[camera]] table"]))
    cameras = []
    for number, table in enumerate(tables, 1):
        wrong = [f"{path}: camera {number}: {fault}" for fault in _faults(table)]
        faults += wrong
        if not wrong:
            cameras.append(replace(defaults, **_from_folder(table, path.parent)))
    if faults:
        raise CameraError("\n".join(faults))
    return cameras


def _faults(table: dict[str, Any]) -> list[str]:
    """What is wrong with one table."""
    kinds = {field.name: type(field.default) for field in fields(CameraSpec)}
    found = [] if "source" in table else ["source: expected a path, a camera's number or a URL, got none"]
    for key, value in table.items():
        if key not in kinds:
            close = difflib.get_close_matches(key, kinds, n=1)
            found.append(f"unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
            continue
        kind = kinds[key]
        # A camera's number may be written as one.
        fits = isinstance(value, (int, float) if kind is float else (str, int) if key == "source" else kind)
        if isinstance(value, bool) or not fits:
            found.append(f"{key}: expected {'text' if kind is str else 'a number'}, got {value!r}")
        elif key in _BOUNDS and not _BOUNDS[key][0] <= value <= _BOUNDS[key][1]:
            found.append(f"{key}: expected {_BOUNDS[key][0]} to {_BOUNDS[key][1]}, got {value!r}")
        elif key == "policy":
            try:
                parse_policy(value)
            except CameraError as error:
                found.append(str(error))
    return found


def _from_folder(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A path in the file is meant from the file's folder."""
    source = str(table["source"])
    beside = folder / source
    return {**table, "source": str(beside) if "://" not in source and beside.exists() else source}
