"""What a fresh machine may lack is told in one sentence, before anything is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def make_environment(tmp_path: Path, *, python: Path | str, path: str) -> subprocess.CompletedProcess[str]:
    """Ask for a virtual environment in an empty folder."""
    make = shutil.which("make")
    assert make is not None
    target = tmp_path / "environment"
    return subprocess.run(
        [make, "--no-print-directory", f"{target}/bin/python", f"VENV={target}", f"PYTHON={python}"],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_old_python_is_told_with_what_is_needed(tmp_path: Path) -> None:
    """A Python that says it is 3.9."""
    old = tmp_path / "python3"
    code = "import sys; sys.version_info = (3, 9, 1, 'final', 0); "
    old.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} -c "{code}$2"\nexit 1\n')
    old.chmod(0o755)
    ran = make_environment(tmp_path, python=old, path=os.environ["PATH"])
    assert ran.returncode != 0
    assert "needs Python 3.11 or newer" in ran.stderr
    assert "is 3.9" in ran.stderr


def test_missing_python_is_told(tmp_path: Path) -> None:
    """No such command."""
    ran = make_environment(tmp_path, python="python-that-is-not-there", path=os.environ["PATH"])
    assert ran.returncode != 0
    assert "no python-that-is-not-there on PATH" in ran.stdout


def test_missing_compiler_is_told(tmp_path: Path) -> None:
    """A PATH with a shell and little else."""
    for tool in ("bash", "sh"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    ran = make_environment(tmp_path, python=sys.executable, path=str(tmp_path))
    assert ran.returncode != 0
    assert "no C++ compiler on PATH" in ran.stdout


def test_help_lists_every_target_with_a_comment() -> None:
    """`make help` is made from the comments behind the targets."""
    ran = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = {line.split()[1] for line in ran.stdout.splitlines()}
    assert listed >= {"demo", "serve", "test", "check", "proto", "bench", "fuzz", "sanitize", "help"}
