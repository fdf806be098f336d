"""Print the development requirements of pyproject.toml, one a line: pip before 25.1 knows no dependency groups."""

import tomllib
from pathlib import Path

print("\n".join(tomllib.loads(Path("pyproject.toml").read_text())["dependency-groups"]["dev"]))
