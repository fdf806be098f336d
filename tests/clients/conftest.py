"""Keeps the tests of this folder, which need Go and Node, out of a plain run: `make test-clients` names the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Collect only where a path of the command line lies in this folder."""
    asked = (Path(config.invocation_params.dir, argument.partition("::")[0]) for argument in config.args)
    return None if any(path.resolve().is_relative_to(HERE) for path in asked) else True
