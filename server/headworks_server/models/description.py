"""The file model.toml: what a model file does not say of itself, in one screen; read, checked and explained here.

`merge` gets it as a layer. An unknown key is refused with the one that was probably meant, a wrong value with what was
expected and what was found; every fault of a file is told at once.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from headworks_server.engine.base import (
    Activation,
    Anchor,
    BoxForm,
    Color,
    HeadName,
    Interpolation,
    Layout,
    PixelType,
    Resize,
    Rounding,
)
from headworks_server.errors import ModelError
from headworks_server.models.values import Value

MAX_SIDE = 16_384
MAX_LABELS = 100_000
MAX_TEXT = 4 << 20  # of a file of labels

# What other programs call the same thing.
_SYNONYMS = {
    "conf": "score_threshold",
    "confidence": "score_threshold",
    "iou": "iou_threshold",
    "nms": "iou_threshold",
    "max_det": "max_detections",
    "topk": "top_k",
    "imgsz": "size",
    "shape": "size",
    "type": "dtype",
    "colour": "color",
    "order": "layout",
    "names": "labels",
    "classes": "labels",
    "normalize": "scale",
    "width": "size",
    "height": "size",
    "pad": "pad_value",
    "model_type": "head",
}

_WORDS = (
    ("Input should be a valid integer", "expected a whole number"),
    ("Input should be a valid boolean", "expected true or false"),
    ("Input should be a valid", "expected a"),
    ("Input should be less than or equal to", "expected at most"),
    ("Input should be greater than or equal to", "expected at least"),
    ("Input should be", "expected"),
    ("List should have at least 1 item after validation, not 0", "expected at least one"),
)


def _fraction(value: object) -> object:
    """ "1/255" says what 0.00392156862745098 hides."""
    if isinstance(value, str):
        above, slash, below = value.partition("/")
        try:
            return float(above) / float(below) if slash else float(above)
        except (ValueError, ZeroDivisionError):
            pass
    return value


def _size(value: object) -> object:
    """A number is a square. A pair is refused: half the world writes height first."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"width": value, "height": value}
    if isinstance(value, Mapping):
        return value
    raise ValueError("expected a number of pixels for a square, or { width = 640, height = 384 }")


def _triple(value: object) -> object:
    """One number stands for all channels."""
    parts = value if isinstance(value, list) else [value]
    if len(parts) not in (1, 3) or any(isinstance(part, bool) or not isinstance(part, (int, float)) for part in parts):
        raise ValueError("expected one number, or one for each channel")
    return tuple(map(float, parts)) * (3 // len(parts))


def _divides(std: tuple[float, float, float]) -> tuple[float, float, float]:
    if min(std) <= 0:
        raise ValueError("expected numbers above 0")
    return std


def _labels(value: object) -> object:
    if isinstance(value, Mapping):
        ids = sorted(value, key=lambda key: (len(key), key))
        if ids != [str(number) for number in range(len(ids))]:
            raise ValueError("expected a table of class ids from 0 on, none left out")
        value = [value[key] for key in ids]
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(name, str) and name for name in value):
        return tuple(value)
    raise ValueError("expected a list or a table of class names, or the name of a file with one in each line")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class Size(_Table):
    """Of the network's input."""

    width: int = Field(ge=1, le=MAX_SIDE)
    height: int = Field(ge=1, le=MAX_SIDE)


Triple = Annotated[tuple[float, float, float], BeforeValidator(_triple)]
Number = Annotated[float, BeforeValidator(_fraction), Field(gt=0)]


class Input(_Table):
    """`[input]`; see `InputSpec`."""

    name: str | None = None
    dtype: PixelType | None = None
    layout: Layout | None = None
    color: Color | None = None
    size: Annotated[Size, BeforeValidator(_size)] | None = None


class Preprocess(_Table):
    """`[preprocess]`; see `PreprocessSpec`."""

    resize: Resize | None = None
    interpolation: Interpolation | None = None
    antialias: bool | None = None
    anchor: Anchor | None = None
    rounding: Rounding | None = None
    scale_up: bool | None = None
    pad_value: int | None = Field(default=None, ge=0, le=255)
    scale: Number | None = None
    mean: Triple | None = None
    std: Annotated[Triple, AfterValidator(_divides)] | None = None
    crop_pct: float | None = Field(default=None, gt=0, le=1)
    decode_scale: Annotated[Literal["auto", "1"], BeforeValidator(lambda v: "1" if v == 1 else v)] | None = None


class Output(_Table):
    """`[output]`; see `OutputSpec`."""

    name: str | None = None
    head: HeadName | None = None
    boxes: BoxForm | None = None
    normalized: bool | None = None
    activation: Activation | None = None
    batch_axis: bool | None = None


class Postprocess(_Table):
    """`[postprocess]`; see `PostprocessSpec`."""

    score_threshold: float | None = Field(default=None, ge=0, le=1)
    iou_threshold: float | None = Field(default=None, ge=0, le=1)
    agnostic: bool | None = None
    multi_label: bool | None = None
    max_detections: int | None = Field(default=None, ge=1, le=30_000)
    top_k: int | None = Field(default=None, ge=1, le=MAX_LABELS)


class Batch(_Table):
    """`[batch]`: the largest batch, or the only sizes that are run."""

    sizes: list[Annotated[int, Field(ge=1, le=256)]] | None = Field(default=None, min_length=1)
    max: int | None = Field(default=None, ge=1, le=256)

    @model_validator(mode="after")
    def _sizes_ascend(self) -> Batch:
        if self.sizes is not None:
            if self.sizes != sorted(set(self.sizes)):
                raise ValueError(f"sizes: expected ascending numbers, got {self.sizes}")
            if self.max not in (None, self.sizes[-1]):
                raise ValueError(f"max: expected the largest of sizes, {self.sizes[-1]}, got {self.max}")
        return self


class Serving(_Table):
    """`[serving]`: what runs the model, and how fast that has to be."""

    backends: list[Literal["onnxruntime-cuda", "onnxruntime-cpu", "failing"]] | None = Field(default=None, min_length=1)
    max_frame_ms: float | None = Field(default=None, gt=0)


class Description(_Table):
    """A whole model.toml."""

    labels: Annotated[str | tuple[str, ...], BeforeValidator(_labels)] | None = None
    input: Input = Input()
    preprocess: Preprocess = Preprocess()
    output: Output = Output()
    postprocess: Postprocess = Postprocess()
    batch: Batch = Batch()
    serving: Serving = Serving()


TABLES = {name: field.annotation for name, field in Description.model_fields.items() if name != "labels"}


def read_description(file: Path, *, root: Path) -> dict[str, Value]:
    """Read one model.toml as a layer; its origin is the file's path below `root`.

    Args:
        file: the model.toml. A file of labels lies beside it.
        root: the repository. Nothing outside it is read.

    Raises:
        ModelError: the file is no TOML, or a key or a value is wrong: a line for each, with file, key, expectation
            and fact.
    """
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{file}: expected a readable TOML file, got {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{file}: expected TOML, got: {error}") from error
    if "cascade" in tree:
        raise ModelError(f"{file}: cascade: expected a single model; one model feeding another is not served yet")
    try:
        description = Description(**tree)
    except ValidationError as error:
        raise ModelError("\n".join(f"{file}: {line}" for line in _explain(error))) from error
    origin = str(file.relative_to(root)) if file.is_relative_to(root) else str(file)
    layer = {
        f"{table}.{key}": Value(value, origin)
        for table in TABLES
        for key, value in getattr(description, table).model_dump(exclude_none=True).items()
    }
    labels = description.labels
    if isinstance(labels, str):
        layer["labels"] = Value(_read_labels(file, labels, root), origin)
    elif labels is not None:
        layer["labels"] = Value(labels, origin)
    return layer


def _read_labels(file: Path, name: str, root: Path) -> tuple[str, ...]:
    path = file.parent / name
    if Path(name).name != name or "\0" in name or not path.resolve().is_relative_to(root.resolve()):
        raise ModelError(f"{file}: labels: expected a file beside it, got {name!r}")
    try:
        if path.stat().st_size > MAX_TEXT:
            raise ModelError(f"{path}: expected at most {MAX_TEXT:,} bytes of class names, got {path.stat().st_size:,}")
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ModelError(f"{file}: labels: expected a file beside it, got {name!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: expected class names in UTF-8, got: {error}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ModelError(f"{path}: expected a class name in each line, got none in line {number}")
    if not 1 <= len(lines) <= MAX_LABELS:
        raise ModelError(f"{path}: expected 1 to {MAX_LABELS:,} class names, got {len(lines):,}")
    return tuple(line.strip() for line in lines)


def _explain(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        path = [str(part) for part in problem["loc"] if isinstance(part, (int, str)) and "[" not in str(part)]
        key = ".".join(path)
        if problem["type"] == "extra_forbidden":
            yield f"{key}: expected a known key, got {path[-1]!r}{_suggestion(path)}"
            continue
        if problem["type"] == "missing":
            yield f"{key}: expected a number of pixels, got none"
            continue
        text = problem["msg"].removeprefix("Value error, ")
        for pydantics, ours in _WORDS:
            text = text.replace(pydantics, ours, 1)
        if problem["type"] == "value_error" and not text.startswith("expected"):
            yield f"{key}.{text}"  # a rule over several keys of a table: it names the key and tells the fact
        else:
            yield f"{key}: {text}, got {problem['input']!r}"


def _suggestion(path: list[str]) -> str:
    """What was probably meant: the same word in another table, another program's word, or a near miss."""
    word = path[-1]
    known = {name: [*table.model_fields] for name, table in TABLES.items() if table is not None}
    places = {key: f"{table}.{key}" for table, keys in known.items() for key in keys if key not in ("name", "max")}
    places |= {"labels": "labels"} | {table: f"[{table}]" for table in known}
    here = {key: f"{path[0]}.{key}" for key in known.get(path[0], ())} if len(path) > 1 else {}
    candidates = places | here
    meant = word if word in candidates else _SYNONYMS.get(word)
    if meant is None or meant not in candidates:
        close = difflib.get_close_matches(word, [*here], n=1) or difflib.get_close_matches(word, [*candidates], n=1)
        meant = close[0] if close else None
    return f"; did you mean {candidates[meant]}?" if meant else f"; known here: {', '.join(here or known)}"
