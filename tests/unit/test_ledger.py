"""The account of one stream: received = results + drops + errors, and the forms in which it is told."""

from __future__ import annotations

import pytest

from headworks_server.core.events import OVERFLOWED, QUEUE_FULL, REPLACED, DropOutcome
from headworks_server.core.ledger import ConservationError, Ledger
from headworks_server.core.outcomes import DropReason, DropStage


def ledger(*, received: int, results: int = 0, errors: int = 0, **drops: int) -> Ledger:
    account = Ledger()
    account.received, account.results, account.errors = received, results, errors
    for name, count in drops.items():
        account.drop({"replaced": REPLACED, "queue_full": QUEUE_FULL, "overflowed": OVERFLOWED}[name], count)
    return account


def test_every_received_frame_has_one_outcome() -> None:
    """Rule 1: conservation; frames on their way count as outstanding."""
    account = ledger(received=10, results=4, errors=1, replaced=3)
    assert account.settled == 8
    account.check(2)


@pytest.mark.parametrize("outstanding", [1, 3])
def test_a_frame_too_many_or_too_few_is_a_defect(outstanding: int) -> None:
    """A lost frame and a doubled one are told alike, with the numbers."""
    account = ledger(received=10, results=4, errors=1, replaced=3)
    with pytest.raises(ConservationError) as raised:
        account.check(outstanding)
    assert str(raised.value) == (
        "Ledger(received=10, results=4, drops={'REPLACED_BY_NEWER': 3}, errors=1) "
        f"with {outstanding} frames outstanding"
    )


def test_drops_are_told_by_reason_and_stage_in_their_order() -> None:
    """Rule 3: Closed tells each reason with the stage that paid, in the order of the closed lists."""
    account = ledger(received=9, overflowed=1, queue_full=2, replaced=3)
    assert account.triples() == [
        (DropReason.REPLACED_BY_NEWER, DropStage.BEFORE_DECODE, 3),
        (DropReason.QUEUE_FULL, DropStage.INGRESS, 2),
        (DropReason.OUTBOX_OVERFLOW, DropStage.AFTER_INFER, 1),
    ]


def test_a_log_line_counts_drops_by_reason_over_all_stages() -> None:
    """One key for each reason, whatever the stage."""
    account = ledger(received=0)
    for stage, count in ((DropStage.BEFORE_BATCH, 2), (DropStage.BEFORE_DECODE, 5)):
        account.drop(DropOutcome(DropReason.DEADLINE, stage), count)
    assert account.drops_by_reason() == {"DEADLINE": 7}


def test_ledgers_add_up_over_streams() -> None:
    """The metrics' counters are the sum of all ledgers; what was added keeps its own numbers."""
    total = ledger(received=5, results=2, replaced=3)
    other = ledger(received=4, errors=1, replaced=1, queue_full=2)
    total.add(other)
    assert (total.received, total.results, total.errors) == (9, 2, 1)
    assert total.drops == {REPLACED: 4, QUEUE_FULL: 2}
    assert other.drops == {REPLACED: 1, QUEUE_FULL: 2}
    total.check(0)
