"""The ring's invariants, as a stateful model that drives the native ring and its plain twin together."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headworks_native.lane import PENDING, CompletionRing, Ticket, TicketQueue
from headworks_native.ring import LaneRing
from support.plain_ring import PlainRing, PlainTicket

POSITION_BYTES = 24
POISON = 0xDD


class Pair:
    """One frame in both worlds, with the bytes that its decoder writes."""

    def __init__(self, number: int, *, deadline_ns: int) -> None:
        self.native = Ticket(self, b"", 0, 0, deadline_ns=deadline_ns)
        self.plain = PlainTicket(deadline_ns=deadline_ns)
        self.picture = number.to_bytes(8, "little") * (POSITION_BYTES // 8)

    def cancel(self) -> None:
        self.native.cancelled = self.plain.cancelled = True


class RingModel(RuleBasedStateMachine):
    """Claims, publishes and the dispatcher's steps in any order that is allowed, and some that are not."""

    @initialize(buffers=st.integers(1, 4), max_batch=st.integers(1, 5))
    def start(self, buffers: int, max_batch: int) -> None:
        self.native = LaneRing(buffers=buffers, max_batch=max_batch, position_bytes=POSITION_BYTES)
        self.plain = PlainRing(buffers=buffers, max_batch=max_batch)
        self.queue, self.completions = TicketQueue(), CompletionRing(4096)
        self.memory = [self.native.buffer_memory(b) for b in range(buffers)]
        self.now_ns = 1_000
        self.made = 0
        self.decoded: list[Pair] = []  # wait for a position
        self.claimed: dict[int, Pair] = {}  # position -> claimed, not published
        self.seated: dict[int, Pair] = {}  # position -> claimed, until its buffer is released
        self.out = 0  # in neither list: back through the completion ring

    # --- decoders ---

    @rule(budget_ns=st.one_of(st.just(0), st.integers(1, 40)), cancelled=st.booleans())
    def admit(self, budget_ns: int, cancelled: bool) -> None:
        """A ticket passes the queue, and is decoded if it is still wanted."""
        pair = Pair(self.made, deadline_ns=self.now_ns + budget_ns - 1 if budget_ns else 0)
        self.made += 1
        if cancelled:
            pair.cancel()
        self.plain.admit(pair.plain)
        self.queue.push(pair.native)
        assert self.queue.take(1) == [pair.native]
        wanted = pair.plain.begin_decode(self.now_ns)
        assert pair.native.begin_decode(now_ns=self.now_ns) == wanted
        if wanted:
            self.decoded.append(pair)
        else:
            self.give_back(pair)

    @precondition(lambda self: self.decoded)
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        """A decoder claims: the same position in both, or none for the same reason."""
        pair = self.decoded.pop(data.draw(st.integers(0, len(self.decoded) - 1)))
        position = self.plain.claim(pair.plain, self.now_ns)
        assert self.native.claim(pair.native, now_ns=self.now_ns) == position
        if position >= 0:
            assert position not in self.seated, "one position, two tickets"
            self.claimed[position] = self.seated[position] = pair
        elif pair.plain.status == PENDING:
            self.decoded.append(pair)
        else:
            self.give_back(pair)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        """Any decoder that holds a position writes and publishes it, in any order."""
        position = data.draw(st.sampled_from(sorted(self.claimed)))
        pair = self.claimed.pop(position)
        self.bytes_of(position)[:] = pair.picture
        self.native.publish(position, now_ns=self.now_ns)
        self.plain.publish(position, self.now_ns)

    # --- the loop ---

    @rule(ns=st.integers(1, 30))
    def time_passes(self, ns: int) -> None:
        self.now_ns += ns

    @precondition(lambda self: self.decoded or self.seated)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """The loop cancels a frame that a lane holds, wherever it is."""
        data.draw(st.sampled_from([*self.decoded, *self.seated.values()])).cancel()

    # --- the dispatcher ---

    @rule()
    def seal(self) -> None:
        assert self.native.seal() == self.plain.seal()

    @rule(data=st.data())
    def run(self, data: st.DataObject) -> None:
        """A settled batch is judged, and launched if anybody still wants it; it holds exactly its frames."""
        ready = [b for b in self.in_state("closed") if self.plain.settled(b)]
        if not ready:
            return
        buffer = data.draw(st.sampled_from(ready))
        wanted = self.plain.judge(buffer, self.now_ns)
        assert self.native.judge(buffer, now_ns=self.now_ns) == wanted
        assert self.native.tickets(buffer) == [pair.native for pair in self.pairs_in(buffer)]
        held = b"".join(pair.picture for pair in self.pairs_in(buffer))
        assert bytes(self.memory[buffer][: len(held)]) == held, "a launched position is not its ticket's frame"
        if wanted:
            self.native.launch(buffer, now_ns=self.now_ns)
            self.plain.launch(buffer, self.now_ns)
        else:
            self.release(buffer)

    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        if running := self.in_state("running"):
            buffer = data.draw(st.sampled_from(running))
            self.native.drained(buffer, now_ns=self.now_ns)
            self.plain.drained(buffer, self.now_ns)

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        if draining := self.in_state("draining"):
            buffer = data.draw(st.sampled_from(draining))
            for pair in self.pairs_in(buffer):
                if pair.native.status == PENDING:
                    pair.native.finish(pair.picture)
                    pair.plain.status = pair.native.status
            self.release(buffer)

    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        """A step out of turn raises, and (see the invariants) changes nothing."""
        buffer = data.draw(st.integers(0, len(self.plain.buffers) - 1))
        state = self.plain.buffers[buffer].state
        steps = {"launch": "closed", "drained": "running", "judge": "closed"}
        step = data.draw(st.sampled_from([name for name, allowed in steps.items() if allowed != state]))
        with pytest.raises(RuntimeError):
            getattr(self.native, step)(buffer)
        if state in ("free", "open", "running"):
            with pytest.raises(RuntimeError):
                self.native.release(buffer)
        position = data.draw(st.integers(0, len(self.plain.buffers) * self.plain.max_batch - 1))
        if position not in self.claimed:
            with pytest.raises(RuntimeError):
                self.native.publish(position)

    # --- what always holds ---

    @invariant()
    def twins_agree(self) -> None:
        """Same states, same counts, same open buffer, same number ahead."""
        for index, buffer in enumerate(self.plain.buffers):
            assert self.native.state(index) == buffer.state
            if buffer.state != "free":
                assert self.native.claimed(index) == len(buffer.tickets)
                assert self.native.published(index) == len(buffer.published)
        assert self.native.open_buffer == self.plain.open_buffer
        assert self.queue.ahead() == self.plain.ahead

    @invariant()
    def no_frame_is_lost(self) -> None:
        """Each ticket is in exactly one place, and says the same in both worlds."""
        assert self.made == self.out + len(self.decoded) + len(self.seated)
        for pair in [*self.decoded, *self.seated.values()]:
            self.same(pair)

    @invariant()
    def some_buffer_opens(self) -> None:
        """Claims are refused for good only while every other buffer is on its way round."""
        if self.plain.open_buffer < 0:
            assert not self.in_state("free")

    def teardown(self) -> None:
        """Whatever was reached, the dispatcher can bring every claimed frame out."""
        if not hasattr(self, "native"):
            return
        for position in sorted(self.claimed):
            self.bytes_of(position)[:] = self.claimed.pop(position).picture
            self.native.publish(position, now_ns=self.now_ns)
            self.plain.publish(position, self.now_ns)
        while self.native.seal() >= 0:
            assert self.plain.seal() >= 0
            self.bring_out()
        self.bring_out()
        assert not self.seated
        assert [self.native.state(b) for b in range(self.native.buffers)].count("free") == self.native.buffers - 1

    def bring_out(self) -> None:
        for buffer in [*self.in_state("closed"), *self.in_state("running"), *self.in_state("draining")]:
            if self.native.state(buffer) == "closed":
                self.native.launch(buffer, now_ns=self.now_ns)
                self.plain.launch(buffer, self.now_ns)
            if self.native.state(buffer) == "running":
                self.native.drained(buffer, now_ns=self.now_ns)
                self.plain.drained(buffer, self.now_ns)
            for pair in self.pairs_in(buffer):
                if pair.native.status == PENDING:
                    pair.native.finish(b"")
                    pair.plain.status = pair.native.status
            self.release(buffer)

    # --- helpers ---

    def in_state(self, state: str) -> list[int]:
        return [index for index, buffer in enumerate(self.plain.buffers) if buffer.state == state]

    def pairs_in(self, buffer: int) -> list[Pair]:
        first = buffer * self.plain.max_batch
        return [self.seated[p] for p in range(first, first + self.plain.max_batch) if p in self.seated]

    def bytes_of(self, position: int) -> memoryview:
        buffer, index = divmod(position, self.plain.max_batch)
        return self.memory[buffer][index * POSITION_BYTES : (index + 1) * POSITION_BYTES]

    def release(self, buffer: int) -> None:
        first = buffer * self.plain.max_batch
        seats = [p for p in range(first, first + self.plain.max_batch) if p in self.seated]
        for position in seats:
            self.bytes_of(position)[:] = bytes([POISON]) * POSITION_BYTES
        self.native.release(buffer)
        self.plain.release(buffer)
        for position in seats:
            self.give_back(self.seated.pop(position))

    def give_back(self, pair: Pair) -> None:
        self.same(pair)
        self.plain.conclude(pair.plain)
        self.completions.push(pair.native)
        assert self.completions.drain() == [pair.native]
        self.out += 1

    @staticmethod
    def same(pair: Pair) -> None:
        names = ("status", "stage", "batch_size", "decode_started_ns", "published_ns", "launched_ns", "executed_ns")
        assert [getattr(pair.native, name) for name in names] == [getattr(pair.plain, name) for name in names]


TestRing = RingModel.TestCase
TestRing.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
