"""The process-wide budget of bytes that wait, and the mailbox that takes from it."""

from __future__ import annotations

from headworks_server.core.budget import WaitingBytes
from headworks_server.core.mailbox import LatestMailbox
from support.streams import make_frame


def test_the_budget_is_filled_to_the_last_byte_and_no_further() -> None:
    """What does not fit is not taken at all."""
    budget = WaitingBytes(100)
    assert budget.take(60)
    assert not budget.take(41)
    assert budget.used == 60
    assert budget.take(40)
    budget.give_back(60)
    assert budget.used == 40


def test_a_smaller_frame_always_fits_in_the_place_of_a_larger_one() -> None:
    """Replacing must be able to relieve a budget, even one that is overdrawn."""
    budget = WaitingBytes(100)
    budget.used = 150
    assert budget.take(-30)
    assert budget.used == 120
    assert not budget.take(1)


def test_a_mailbox_holds_the_bytes_of_the_frame_that_waits() -> None:
    """Offered, replaced, taken: the budget follows, and an empty mailbox holds nothing."""
    budget = WaitingBytes(100)
    mailbox = LatestMailbox(budget)
    first, second = make_frame(1, size_bytes=30), make_frame(2, size_bytes=70)
    assert mailbox.offer(first) is None
    assert budget.used == 30
    assert mailbox.offer(second) is first
    assert budget.used == 70
    assert mailbox.take() is second
    assert mailbox.take() is None
    assert budget.used == 0


def test_replacing_makes_room_and_an_arrival_that_still_does_not_fit_is_turned_away() -> None:
    """Rule 4: only the difference must fit; otherwise the older frame keeps its place."""
    budget = WaitingBytes(100)
    mailbox, other = LatestMailbox(budget), LatestMailbox(budget)
    other.offer(make_frame(1, size_bytes=50))
    old = make_frame(1, size_bytes=40)
    assert mailbox.offer(old) is None
    too_large = make_frame(2, size_bytes=51)
    assert mailbox.offer(too_large) is too_large
    assert mailbox.waiting is old
    assert mailbox.offer(make_frame(3, size_bytes=50)) is old
    assert budget.used == 100
    other.take()
    assert mailbox.offer(too_large) is not too_large


def test_one_stream_full_of_bytes_turns_the_others_away_until_it_moves() -> None:
    """The budget is shared by all mailboxes and given back at admission."""
    budget = WaitingBytes(100)
    large, small = LatestMailbox(budget), LatestMailbox(budget)
    large.offer(make_frame(1, size_bytes=100))
    frame = make_frame(1, size_bytes=1)
    assert small.offer(frame) is frame
    large.take()
    assert small.offer(frame) is None
