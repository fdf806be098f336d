"""The engine cache against a plain record of what its owner was told, while engines come, grow, are held and let go.

The record knows what is in memory: a load takes its bytes once all that it evicts is gone. What the cache may answer is
decided from the record alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headworks_server.engine.cache import EngineCache, EngineState, Load, Loading, Refused, Resident, Wait

BUDGET = 12  # small, so that sizes often fit to the byte
KEYS = "abcde"
KEY = st.sampled_from(KEYS)
SIZE = st.sampled_from([1, 2, 3, 3, 4, 4, 5, 6, BUDGET, BUDGET + 1])


@dataclass
class Record:
    """What the owner knows of one engine."""

    size: int
    state: EngineState = EngineState.ABSENT
    leases: int = 0
    pinned: bool = False
    used: int = 0
    preferred: int = 0
    waits_for: set[str] = field(default_factory=set)  # evicted for the load, and not gone
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(["hits", "loads", "evictions", "failures"], 0))

    @property
    def idle(self) -> bool:
        return self.state is EngineState.RESIDENT and not self.leases and not self.pinned


class EngineCacheMachine(RuleBasedStateMachine):
    """An owner that does what it is told, in its own time."""

    @initialize(sizes=st.lists(SIZE, min_size=len(KEYS), max_size=len(KEYS)), exact=st.booleans())
    def build(self, sizes: list[int], exact: bool) -> None:
        self.cache = EngineCache(BUDGET)
        self.exact = exact  # estimates are right, and nothing grows
        self.now = 0
        self.records = {key: Record(size) for key, size in zip(KEYS, sizes, strict=True)}
        for key, size in zip(KEYS, sizes, strict=True):
            self.cache.add(key, estimate_bytes=size)

    # The plain record.

    def tick(self) -> int:
        self.now += 1
        return self.now

    def held(self, *states: EngineState) -> int:
        return sum(record.size for record in self.records.values() if record.state in states)

    def order(self) -> list[str]:
        """The idle engines as they are to leave."""
        idle = [key for key, record in self.records.items() if record.idle]
        return sorted(idle, key=lambda key: (self.records[key].preferred > self.now, self.records[key].used))

    def leaving(self) -> list[str]:
        return [key for key, record in self.records.items() if record.state is EngineState.LEAVING]

    def leave(self, keys: tuple[str, ...]) -> None:
        """Check that only idle engines leave, and note that they do."""
        for key in keys:
            assert self.records[key].idle, "a lease or a pin was evicted"
            self.records[key].state = EngineState.LEAVING
            self.records[key].counts["evictions"] += 1

    def trimmed(self, keys: tuple[str, ...], order: list[str]) -> None:
        """Check what leaves because the cache was over its budget: the first in order, and no more than needed."""
        excess = self.held(EngineState.LOADING, EngineState.RESIDENT) - BUDGET
        assert list(keys) == order[: len(keys)]
        assert not keys or sum(self.records[key].size for key in keys[:-1]) < excess
        self.leave(keys)
        assert self.cache.over_bytes == 0 or not any(record.idle for record in self.records.values())

    # What is asked.

    @rule(keys=st.lists(KEY, min_size=1, max_size=4), more=st.sampled_from([0, 0, 1, 3]))
    def serve_each_at_once(self, keys: list[str], more: int) -> None:
        """What a load evicts is gone at once, and what is loaded, loaded."""
        for key in keys:
            self.request(key)
            for other in sorted(self.records[key].waits_for):
                self.gone(other)
            if key in self.started():
                self.loaded(key, self.records[key].size + (0 if self.exact else more))

    @rule(key=KEY)
    def request(self, key: str) -> None:
        answer = self.cache.request(key, self.tick())
        record = self.records[key]
        if record.state is EngineState.RESIDENT:
            assert answer == Resident()
            record.used = self.now
            record.counts["hits"] += 1
        elif record.state is EngineState.LOADING:
            assert answer == Loading(), "one load at a time"
        elif record.state is EngineState.LEAVING:
            assert answer == Wait((key,))
        else:
            self.check_answer_for_absent(record, answer)

    def check_answer_for_absent(self, record: Record, answer: object) -> None:
        idle = self.order()
        idle_bytes = sum(self.records[key].size for key in idle)
        staying = self.held(EngineState.LOADING, EngineState.RESIDENT) - idle_bytes
        if staying + record.size > BUDGET:
            self.check_refusal(record, answer)
            return
        if isinstance(answer, Wait):
            assert answer.leaving == tuple(self.leaving())
            assert self.leaving(), "there is something to wait for"
            assert self.cache.used_bytes + record.size > BUDGET, "nobody waits for what is not needed"
            return
        assert isinstance(answer, Load), "what idle engines can make room for is not refused"
        assert list(answer.evict) == idle[: len(answer.evict)], "the least recently used go first"
        freed = sum(self.records[key].size for key in answer.evict)
        used = self.cache.used_bytes - record.size  # with the reservation
        assert used - freed + record.size <= BUDGET, "a load never waits for others than those it evicts"
        if answer.evict:
            kept = self.records[answer.evict[-1]].size
            assert staying + idle_bytes - freed + kept + record.size > BUDGET, "no more go than needed"
        self.leave(answer.evict)
        record.state = EngineState.LOADING
        record.waits_for = set(answer.evict)

    def check_refusal(self, record: Record, answer: object) -> None:
        assert isinstance(answer, Refused)
        holders = {key for key, other in self.records.items() if other.state is not EngineState.ABSENT}
        holders -= set(self.order())
        assert {held.key for held in answer.held} == holders, "a refusal names exactly who holds"
        for held in answer.held:
            holder = self.records[held.key]
            assert held.size_bytes == holder.size
            reasons = {
                "loading": holder.state is EngineState.LOADING,
                "leaving": holder.state is EngineState.LEAVING,
                "pinned": holder.pinned,
                "leased": holder.leases > 0,
            }
            assert reasons[held.why]
        assert answer.needed_bytes == record.size > answer.free_bytes
        assert answer.free_bytes == max(0, BUDGET - sum(held.size_bytes for held in answer.held))

    @rule(key=KEY)
    def unload(self, key: str) -> None:
        record = self.records[key]
        assert self.cache.unload(key) == record.idle
        if record.idle:
            record.state = EngineState.LEAVING

    @precondition(lambda self: any(record.state is EngineState.RESIDENT for record in self.records.values()))
    @rule(data=st.data())
    def reload(self, data: st.DataObject) -> None:
        """An engine is loaded anew in its own place, leased or not: its bytes are nobody else's meanwhile."""
        resident = [key for key, record in self.records.items() if record.state is EngineState.RESIDENT]
        key = data.draw(st.sampled_from(resident))
        used = self.cache.used_bytes
        self.cache.reload(key)
        assert self.cache.used_bytes == used
        self.records[key].state = EngineState.LOADING
        self.records[key].waits_for = set()

    # What comes of it.

    def started(self) -> list[str]:
        """Loads that have begun: all that they evict is gone."""
        loading = [key for key, record in self.records.items() if record.state is EngineState.LOADING]
        return [key for key in loading if not self.records[key].waits_for]

    @precondition(lambda self: self.started())
    @rule(data=st.data(), size=SIZE)
    def load_ends(self, data: st.DataObject, size: int) -> None:
        key = data.draw(st.sampled_from(self.started()))
        self.loaded(key, self.records[key].size if self.exact else size)

    def loaded(self, key: str, size: int) -> None:
        record = self.records[key]
        record.size = size
        record.state = EngineState.RESIDENT
        record.used = self.tick()
        record.counts["loads"] += 1
        order = self.order()
        if record.idle:
            order.remove(key)
            order.append(key)
        self.trimmed(self.cache.loaded(key, size_bytes=record.size, now_ns=self.now), order)

    @precondition(lambda self: self.started())
    @rule(data=st.data())
    def load_fails(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.started()))
        self.cache.failed(key)
        self.records[key].state = EngineState.ABSENT
        self.records[key].counts["failures"] += 1

    @precondition(lambda self: self.leaving())
    @rule(data=st.data())
    def engine_is_gone(self, data: st.DataObject) -> None:
        self.gone(data.draw(st.sampled_from(self.leaving())))

    def gone(self, key: str) -> None:
        self.cache.evicted(key)
        self.records[key].state = EngineState.ABSENT
        for record in self.records.values():
            record.waits_for.discard(key)

    @precondition(lambda self: not self.exact)
    @rule(key=KEY, size=SIZE)
    def grow(self, key: str, size: int) -> None:
        self.cache.resized(key, size)
        self.records[key].size = size
        self.trim()

    # Who uses it.

    @rule(key=KEY)
    def serve(self, key: str) -> None:
        self.cache.use(key, self.tick())
        self.records[key].used = self.now

    @precondition(lambda self: sum(record.leases for record in self.records.values()) < 3)
    @rule(key=KEY)
    def lease(self, key: str) -> None:
        self.cache.lease(key)
        self.records[key].leases += 1

    @precondition(lambda self: any(record.leases for record in self.records.values()))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from([key for key, record in self.records.items() if record.leases]))
        self.cache.release(key, self.tick())
        self.records[key].leases -= 1
        self.records[key].used = self.now
        self.trim()

    @precondition(lambda self: not any(record.pinned for record in self.records.values()))
    @rule(key=KEY)
    def pin(self, key: str) -> None:
        self.cache.pin(key)
        self.records[key].pinned = True

    @precondition(lambda self: any(record.pinned for record in self.records.values()))
    @rule()
    def unpin(self) -> None:
        (key,) = (key for key, record in self.records.items() if record.pinned)
        self.cache.unpin(key)
        self.records[key].pinned = False
        self.trim()

    @rule(key=KEY, duration=st.integers(0, 20))
    def prefer(self, key: str, duration: int) -> None:
        self.cache.prefer(key, self.now + duration)
        self.records[key].preferred = self.now + duration

    def trim(self) -> None:
        order = self.order()
        self.trimmed(self.cache.trim(self.now), order)

    # What always holds.

    @invariant()
    def within_the_budget(self) -> None:
        """Over it only where what is leased, pinned or loading is; in memory never, as long as sizes are as told."""
        idle = sum(self.records[key].size for key in self.order())
        staying = self.held(EngineState.LOADING, EngineState.RESIDENT) - idle
        assert self.cache.over_bytes == max(0, staying + idle - BUDGET)
        assert staying + idle <= BUDGET or not idle
        if self.exact:
            in_memory = self.held(EngineState.RESIDENT, EngineState.LEAVING)
            assert in_memory + sum(self.records[key].size for key in self.started()) <= BUDGET
            assert self.cache.over_bytes == 0

    @invariant()
    def figures_agree(self) -> None:
        present = (EngineState.LOADING, EngineState.RESIDENT, EngineState.LEAVING)
        assert self.cache.used_bytes == self.held(*present)
        assert list(self.cache.evictable(self.now)) == self.order()
        for key, record in self.records.items():
            stats = self.cache.stats(key)
            assert (stats.state, stats.size_bytes, stats.leases, stats.pinned, stats.last_used_ns) == (
                record.state,
                record.size,
                record.leases,
                record.pinned,
                record.used,
            )
            assert {name: getattr(stats, name) for name in record.counts} == record.counts


EngineCacheMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestEngineCacheMachine = EngineCacheMachine.TestCase
