"""The README is executed: its client runs, its commands and settings exist, its links lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headworks_server.config import Settings
from support.server import Server

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
CLIENT_README = (ROOT / "clients" / "python" / "README.md").read_text()


def first_python(text: str) -> str:
    """The first Python block of a page."""
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("page", [README, CLIENT_README], ids=["repository", "client"])
def test_the_client_of_the_page_gets_a_result(page: str, tmp_path: Path) -> None:
    """What a stranger copies first works as it stands, but for the port."""
    code = first_python(page)
    assert "127.0.0.1:50051" in code
    shutil.copy(ROOT / "examples" / "football" / "clip" / "0000.jpg", tmp_path / "frame.jpg")
    shutil.copytree(ROOT / "examples" / "football" / "models" / "players", tmp_path / "models" / "players")
    with Server(tmp_path / "models") as server:
        command = [sys.executable, "-c", code.replace("127.0.0.1:50051", server.target)]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "label='player'" in ran.stdout


def test_the_client_takes_ten_lines() -> None:
    """The README says so."""
    assert len([line for line in first_python(README).splitlines() if line.strip()]) <= 10


def test_every_target_named_in_the_readme_is_in_the_makefile() -> None:
    """`make NAME` in the text, or in the list at its end."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", README)) <= targets


def test_every_setting_in_the_table_of_limits_exists() -> None:
    """The last column names settings of the server, or fields of Open."""
    table = README.split("## Limits and defaults")[1].split("## ")[0]
    named = {name for row in table.splitlines() if "of Open" not in row for name in re.findall(r"`([a-z_]+)`", row)}
    assert named <= set(Settings.model_fields)
    assert len(named) > 10


def test_every_link_leads_somewhere() -> None:
    """Relative links and pictures."""
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert len(links) > 5
