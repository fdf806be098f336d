"""The lanes under sanitizers, briefly: clean as they are, and a planted race is found. `make sanitize` runs longer."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.sanitizers import FOUND, compile_stress, run_stress


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """All three at once: a first run compiles for half a minute."""
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(compile_stress, ["thread", "address", "planted"]))


def told(result: subprocess.CompletedProcess[str]) -> str:
    return result.stdout + result.stderr[-6000:]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["thread", "address"])
def test_stress_is_clean(kind: str) -> None:
    """Many decoders, slow engine, cancellation and shutdown in every state: no report, every ticket once."""
    result = run_stress(kind, seconds=2)
    assert result.returncode == 0, told(result)
    assert "Sanitizer" not in result.stderr, told(result)
    assert "tickets" in result.stdout


@pytest.mark.timeout(300)
def test_a_planted_race_is_found_in_our_lines() -> None:
    """Without the release in publish the same run must fail, or it proves nothing."""
    result = run_stress("planted", seconds=2)
    assert result.returncode == FOUND, told(result)
    assert "data race" in result.stderr
    assert "lane_ring.hpp" in result.stderr
