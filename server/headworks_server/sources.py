"""Where settings come from: flags, environment, a TOML file; `config.load_settings` merges them through this module.

It knows which source won for each setting, and turns a wrong value into a line that names the source, the setting,
what was expected and what was found.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource
from pydantic_settings.exceptions import SettingsError

from headworks_server.errors import ConfigError

ENV_PREFIX = "HEADWORKS_"


@dataclass(frozen=True, slots=True)
class Source:
    """One place in which settings stand.

    Attributes:
        kind: which sort of place.
        values: the settings found there, groups as nested mappings.
        file: the TOML file, where it is one.
    """

    kind: Literal["flag", "environment", "file"]
    values: Mapping[str, Any]
    file: Path | None = None

    def has(self, path: Sequence[str]) -> bool:
        """Whether the setting at that path, such as ("sleeping", "seed"), stands here."""
        found: Any = self.values
        for part in path:
            found = found.get(part) if isinstance(found, Mapping) else None
        return found is not None

    def spell(self, path: Sequence[str]) -> str:
        """The setting as it is written here: a flag, a variable, or the file that holds it."""
        if self.kind == "file":
            return str(self.file)
        if self.kind == "flag":
            return "MODELS" if list(path) == ["models"] else "--" + "-".join(path).replace("_", "-")
        variable = ENV_PREFIX + "__".join(path).upper()
        group = ENV_PREFIX + path[0].upper()  # HEADWORKS_SLEEPING='{"seed": 5}' sets the whole group
        return group if variable not in os.environ and group in os.environ else variable


class Sources:
    """All sources of one start, the strongest first."""

    def __init__(self, model: type[BaseSettings], *, file: Path | None, flags: Mapping[str, Any]) -> None:
        """Read them; a flag that is None was not given.

        Raises:
            ConfigError: the file cannot be read, or a variable is misspelt.
        """
        self._model = model
        given = {key: value for key, value in flags.items() if value is not None}
        self._sources = [Source("flag", given), Source("environment", _read_environment(model))]
        if file is not None:
            self._sources.append(Source("file", _read_file(model, file), file))

    def merged(self) -> dict[str, Any]:
        """The settings that were given, each as its strongest source says."""
        merged: dict[str, Any] = {}
        for source in reversed(self._sources):
            merged = _merge(merged, source.values)
        return merged

    def origin(self, path: Sequence[str]) -> str:
        """Where a setting's value comes from: "flag --port", "environment HEADWORKS_PORT", "file x.toml", "default"."""
        source = self._find(path)
        return "default" if source is None else f"{source.kind} {source.spell(path)}"

    def explain(self, error: ValidationError) -> Iterator[str]:
        """A line for each wrong setting."""
        for problem in error.errors(include_url=False):
            path = [str(part) for part in problem["loc"]]
            key = ".".join(path)
            source = self._find(path) if path else None
            place = f"{source.spell(path)}: " if source is not None else ""
            if problem["type"] == "extra_forbidden":
                yield f"{place}{key}: expected a known setting, got {path[-1]!r}{self._suggestion(path)}"
                continue
            text = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1)
            # A rule over several settings has no value of its own to show; its message names the setting.
            whole = not path or isinstance(problem["input"], Mapping)
            yield f"{place}{text}" if whole else f"{place}{key}: {text}, got {problem['input']!r}"

    def _find(self, path: Sequence[str]) -> Source | None:
        return next((source for source in self._sources if source.has(path)), None)

    def _suggestion(self, path: Sequence[str]) -> str:
        fields: Any = self._model.model_fields
        for part in path[:-1]:
            fields = fields[part].annotation.model_fields
        close = difflib.get_close_matches(path[-1], fields, n=1)
        return f"; did you mean {close[0]!r}?" if close else ""


def leaves(values: BaseModel, *above: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each single setting of a model with its path, groups opened, in the order of their declaration."""
    for name in type(values).model_fields:
        value = getattr(values, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, *above, name)
        else:
            yield (*above, name), value


def _read_file(model: type[BaseSettings], file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: expected a readable TOML file, got {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: expected TOML, got: {error}") from error
    for name, field in model.model_fields.items():
        # The file works from any working directory: its relative paths are meant from its folder.
        if field.annotation == Path | None and isinstance(values.get(name), str):
            values[name] = str(file.parent / values[name])
    return values


def _read_environment(model: type[BaseSettings]) -> dict[str, Any]:
    names = [name.removeprefix(ENV_PREFIX).lower() for name in os.environ if name.startswith(ENV_PREFIX)]
    for name in names:
        # Other tools of the project have variables too (HEADWORKS_ONLY), so only a near miss is taken for a mistake.
        top = name.split("__")[0]
        close = [] if top in model.model_fields else difflib.get_close_matches(top, model.model_fields, cutoff=0.8)
        if close:
            variable = ENV_PREFIX + name.upper()
            raise ConfigError(f"{variable}: expected a known setting, got {top!r}; did you mean {close[0]!r}?")
    try:
        values = EnvSettingsSource(model)()
    except SettingsError as error:
        raise ConfigError(f"environment: {error}") from error
    # A Kubernetes service called "headworks" puts HEADWORKS_PORT=tcp://... into every pod beside it.
    return {key: value for key, value in values.items() if not str(value).startswith("tcp://")}


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
