"""The process-wide budget of bytes that wait, and the mailboxes that take from it."""

from __future__ import annotations

from headworks_server.core.budget import WaitingBytes
from headworks_server.core.mailbox import BoundedMailbox, EveryFrameMailbox, LatestMailbox
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


# BOUNDED.


def test_a_full_queue_lets_its_oldest_go() -> None:
    """Rule 4: and what is left comes out in order, oldest first."""
    budget = WaitingBytes(100)
    mailbox = BoundedMailbox(budget, depth=2, drop_newest=False)
    frames = [make_frame(frame_id, size_bytes=10 * frame_id) for frame_id in range(1, 4)]
    assert [mailbox.offer(frame) for frame in frames] == [None, None, frames[0]]
    assert budget.used == 50
    assert mailbox.waiting is frames[1]
    assert [mailbox.take(), mailbox.take(), mailbox.take()] == [frames[1], frames[2], None]
    assert (budget.used, mailbox.waiting) == (0, None)


def test_a_full_queue_may_turn_the_newest_away_instead() -> None:
    """Rule 4: what waits keeps its place, and the budget holds nothing of the other."""
    budget = WaitingBytes(100)
    mailbox = BoundedMailbox(budget, depth=2, drop_newest=True)
    frames = [make_frame(frame_id, size_bytes=10) for frame_id in range(1, 4)]
    assert [mailbox.offer(frame) for frame in frames] == [None, None, frames[2]]
    assert budget.used == 20
    assert mailbox.take() is frames[0]
    assert mailbox.offer(frames[2]) is None


def test_in_a_full_budget_a_queue_replaces_its_oldest_or_turns_the_arrival_away() -> None:
    """Rule 4: unless replacing the stream's own waiting frame makes room. One that drops the newest replaces none."""
    budget = WaitingBytes(100)
    oldest, newest = (BoundedMailbox(budget, depth=9, drop_newest=newest) for newest in (False, True))
    first, second = make_frame(1, size_bytes=60), make_frame(1, size_bytes=40)
    assert (oldest.offer(first), newest.offer(second)) == (None, None)
    for mailbox, size in ((newest, 1), (oldest, 61)):
        turned_away = make_frame(2, size_bytes=size)
        assert mailbox.offer(turned_away) is turned_away
    assert oldest.offer(make_frame(3, size_bytes=60)) is first
    assert (budget.used, newest.waiting) == (100, second)
    empty = BoundedMailbox(budget, depth=9, drop_newest=False)
    assert empty.offer(first) is first, "it has nothing to replace"


# EVERY_FRAME.


def test_every_frame_that_was_promised_a_place_has_one() -> None:
    """Rule 4: the budget is overdrawn rather than a frame lost, and is full for everybody until they have gone."""
    budget = WaitingBytes(100)
    mailbox, latest = EveryFrameMailbox(budget), LatestMailbox(budget)
    frames = [make_frame(frame_id, size_bytes=60) for frame_id in range(1, 4)]
    assert not budget.full
    assert [mailbox.offer(frame) for frame in frames] == [None, None, None]
    assert (budget.used, budget.full) == (180, True)
    assert latest.offer(frames[0]) is frames[0]
    assert [mailbox.take() for _ in range(4)] == [*frames, None]
    assert (budget.used, budget.full) == (0, False)
