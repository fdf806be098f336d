"""A model's health: three failed batches in a row are the engine's fault, one good batch clears it."""

from __future__ import annotations

from headworks_server.core.events import NoticeKind
from headworks_server.core.model import ModelHealth


def test_three_failed_batches_in_a_row_make_a_model_unhealthy() -> None:
    """Rule 14: told once, at the third; one bad batch is a bad frame's fault more often."""
    health = ModelHealth()
    assert [health.batch_failed(f"failure {number}") for number in range(1, 6)] == [
        None,
        None,
        NoticeKind.DEGRADED,
        None,
        None,
    ]
    assert not health.serving
    assert health.detail == "failure 5"


def test_a_good_batch_between_failures_starts_the_count_again() -> None:
    """Rule 14: in a row."""
    health = ModelHealth()
    for _ in range(10):
        assert health.batch_failed("x") is None
        assert health.batch_failed("x") is None
        assert health.batch_done() is None
    assert health.serving


def test_the_first_good_batch_restores_a_model() -> None:
    """Told once; from then on it takes three failures again."""
    health = ModelHealth()
    for _ in range(4):
        health.batch_failed("x")
    assert health.batch_done() is NoticeKind.RESTORED
    assert health.batch_done() is None
    assert health.serving
    assert [health.batch_failed("x") for _ in range(3)] == [None, None, NoticeKind.DEGRADED]
