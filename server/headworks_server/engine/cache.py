"""Which engines are resident within a budget of bytes: only the policy. Its owner, on one event loop, loads and evicts.

An engine is ABSENT, LOADING, RESIDENT or LEAVING, and all but the absent ones hold their size in bytes: estimated until
it is loaded, then as measured, which is also what the next load reserves. The rules:

1. One load at a time for each engine, however many ask: the first is told `Load`, the others `Loading`.
2. `Load` reserves the bytes and names what to evict first: the least recently used idle engines, no more than needed.
   An engine is idle while it is resident and neither leased nor pinned. Serving, and the end of a lease, are uses.
3. Preferred engines are evicted last among the idle ones, but at once if memory is needed.
4. Bytes of a leaving engine count until it is `evicted`. Who needs them is told `Wait`, and asks again then.
5. Where all idle and leaving engines together would not make room, the request is `Refused`, changes nothing, and is
   told of everything that holds bytes and is not idle.
6. An engine may turn out larger than estimated, or grow. Idle engines then leave, the one just loaded last of all.
   Leased and pinned ones never do: the cache is over its budget by `over_bytes` until they are idle and it is trimmed.
7. Leases and pins belong to the engine in every state: one taken while it loads protects it from the moment it is
   resident. None stops an engine that is leaving: who needs that one waits, and loads it again.
8. Eviction that keeps taking what is wanted back soon is thrashing, told with the names.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Literal

# A return is a load that starts this soon after the engine was chosen for eviction: within the 30 s for which a stream
# that sends frames would have leased it, so it was in use in all but name.
RETURN_NS = 30_000_000_000
# An engine thrashes when it returned this often within a minute: once is chance, twice is a camera that hops there and
# back, and three times says that more engines are in turn than the budget holds.
THRASHING_RETURNS = 3
THRASHING_WINDOW_NS = 60_000_000_000


class EngineState(StrEnum):
    """Where an engine is; see the rules above."""

    ABSENT = "absent"
    LOADING = "loading"
    RESIDENT = "resident"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class Resident:
    """It can serve now."""


@dataclass(frozen=True, slots=True)
class Loading:
    """Someone else's load is under way."""


@dataclass(frozen=True, slots=True)
class Load:
    """Evict these, then start the one load, and tell `loaded` or `failed`.

    Attributes:
        evict: engines that are leaving from now on, least recently used first; tell `evicted` of each.
    """

    evict: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Bytes that are on their way out are needed first: ask again after the next `evicted`.

    Attributes:
        leaving: the engines on their way out; the one asked for may be among them.
    """

    leaving: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes that no eviction can free now.

    Attributes:
        why: what holds them; an engine that is pinned and leased is told as pinned.
    """

    key: str
    size_bytes: int
    why: Literal["leased", "pinned", "loading", "leaving"]


@dataclass(frozen=True, slots=True)
class Refused:
    """There is no room, and none is on its way.

    Attributes:
        needed_bytes: what the engine asked for takes.
        free_bytes: what is left of the budget beside the held ones, with every idle engine gone; at least 0.
        held: in the order in which they were added.
    """

    needed_bytes: int
    free_bytes: int
    budget_bytes: int
    held: tuple[Held, ...]


Answer = Resident | Loading | Load | Wait | Refused


@dataclass(frozen=True, slots=True)
class Stats:
    """What the cache knows of one engine.

    Attributes:
        size_bytes: held now; while absent, what its next load reserves.
        leases: taken and not released.
        hits: requests that found it resident.
        loads: loads that came to an end well.
        evictions: times it had to make room; unloading by an administrator is none.
        failures: loads that came to nothing.
        last_used_ns: 0 where it never was.
    """

    state: EngineState
    size_bytes: int
    leases: int
    pinned: bool
    hits: int
    loads: int
    evictions: int
    failures: int
    last_used_ns: int


@dataclass(slots=True)
class _Engine:
    size_bytes: int
    state: EngineState = EngineState.ABSENT
    leases: int = 0
    pinned: bool = False
    hits: int = 0
    loads: int = 0
    evictions: int = 0
    failures: int = 0
    last_used_ns: int = 0
    preferred_until_ns: int = 0
    evicted_ns: int | None = None  # when it last had to make room, until a load is held against that
    returns_ns: deque[int] = field(default_factory=lambda: deque(maxlen=THRASHING_RETURNS))

    @property
    def idle(self) -> bool:
        return self.state is EngineState.RESIDENT and not self.leases and not self.pinned


class EngineCache:
    """The engines that share a budget. An engine that is unknown, or not in the state a method needs, is a ValueError.

    Attributes:
        budget_bytes: what the engines may hold together.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = _checked("budget", budget_bytes)
        self._engines: dict[str, _Engine] = {}

    def add(self, key: str, *, estimate_bytes: int) -> None:
        """Make an engine known, absent, with the size that its first load reserves."""
        if key in self._engines:
            raise ValueError(f'engine "{key}": expected a new one, was added before')
        self._engines[key] = _Engine(_checked(key, estimate_bytes))

    def discard(self, key: str) -> None:
        """Forget an engine that is absent and not leased."""
        if leases := self._engine(key, EngineState.ABSENT).leases:
            raise ValueError(f'engine "{key}": expected no lease, has {leases}')
        del self._engines[key]

    def request(self, key: str, now_ns: int) -> Answer:
        """Ask for an engine; being found resident is a use."""
        engine = self._engine(key)
        if engine.state is EngineState.RESIDENT:
            engine.hits += 1
            engine.last_used_ns = now_ns
            return Resident()
        if engine.state is EngineState.LOADING:
            return Loading()
        if engine.state is EngineState.LEAVING:
            return Wait((key,))
        excess = self.used_bytes - self._leaving_bytes + engine.size_bytes - self.budget_bytes
        evict = self._enough(excess, self.evictable(now_ns))
        freed = self._sum(evict)
        if freed < excess:
            return self._refused(engine.size_bytes)
        if freed < excess + self._leaving_bytes:
            return Wait(tuple(key for key, other in self._engines.items() if other.state is EngineState.LEAVING))
        self._make_leave(evict, now_ns)
        engine.state = EngineState.LOADING
        if engine.evicted_ns is not None and now_ns - engine.evicted_ns <= RETURN_NS:
            engine.returns_ns.append(now_ns)
        engine.evicted_ns = None
        return Load(evict)

    def loaded(self, key: str, *, size_bytes: int, now_ns: int) -> tuple[str, ...]:
        """Count a load that came to be, and is this large.

        Returns the engines that are leaving from now on because of that. The engine itself is among them, and last,
        where only leased and pinned ones are left beside it and it is neither.
        """
        engine = self._engine(key, EngineState.LOADING)
        engine.size_bytes = _checked(key, size_bytes)
        engine.state = EngineState.RESIDENT
        engine.loads += 1
        engine.last_used_ns = now_ns
        return self._trim(sorted(self.evictable(now_ns), key=lambda other: other == key), now_ns)

    def failed(self, key: str) -> None:
        """Count a load that came to nothing; its reservation is gone."""
        engine = self._engine(key, EngineState.LOADING)
        engine.state = EngineState.ABSENT
        engine.failures += 1

    def evicted(self, key: str) -> None:
        """Free the bytes of an engine that was leaving and has left."""
        self._engine(key, EngineState.LEAVING).state = EngineState.ABSENT

    def reload(self, key: str) -> None:
        """Let an engine, leased or not, be loaded anew in its own place; tell `loaded` or `failed`."""
        self._engine(key, EngineState.RESIDENT).state = EngineState.LOADING

    def resized(self, key: str, size_bytes: int) -> None:
        """Correct the size of an engine in any state, as it grew or was measured again; `trim` after that."""
        self._engine(key).size_bytes = _checked(key, size_bytes)

    def trim(self, now_ns: int) -> tuple[str, ...]:
        """Return the engines that are leaving from now on because the cache is over its budget.

        To be called after `resized`, `release` and `unpin`: what is idle now may be what was too much before.
        """
        return self._trim(self.evictable(now_ns), now_ns)

    def unload(self, key: str) -> bool:
        """Whether the engine was idle, and is leaving from now on."""
        engine = self._engine(key)
        if not engine.idle:
            return False
        engine.state = EngineState.LEAVING
        return True

    def use(self, key: str, now_ns: int) -> None:
        """Note that a frame was served."""
        self._engine(key).last_used_ns = now_ns

    def lease(self, key: str) -> None:
        """Keep an engine from being evicted until as many leases are released as were taken."""
        self._engine(key).leases += 1

    def release(self, key: str, now_ns: int) -> None:
        """Give back one lease; the engine was in use until now."""
        engine = self._engine(key)
        if not engine.leases:
            raise ValueError(f'engine "{key}": expected a lease to release, has none')
        engine.leases -= 1
        engine.last_used_ns = now_ns

    def pin(self, key: str) -> None:
        """Keep an engine from being evicted until it is unpinned. Idempotent."""
        self._engine(key).pinned = True

    def unpin(self, key: str) -> None:
        """Let an engine be evicted again. Idempotent."""
        self._engine(key).pinned = False

    def prefer(self, key: str, until_ns: int) -> None:
        """Evict an engine last among the idle ones, until then."""
        self._engine(key).preferred_until_ns = until_ns

    def evictable(self, now_ns: int) -> tuple[str, ...]:
        """Return the idle engines in the order in which they are evicted."""
        idle = ((key, engine) for key, engine in self._engines.items() if engine.idle)
        return tuple(key for key, _ in sorted(idle, key=lambda item: _rank(item[1], now_ns)))

    def thrashing(self, now_ns: int) -> tuple[str, ...]:
        """Return the engines that were evicted and loaded again too often of late, in the order of adding."""
        since_ns = now_ns - THRASHING_WINDOW_NS
        return tuple(
            key
            for key, engine in self._engines.items()
            if len(engine.returns_ns) == THRASHING_RETURNS and engine.returns_ns[0] >= since_ns
        )

    def stats(self, key: str) -> Stats:
        """Return what is known of one engine."""
        engine = self._engine(key)
        return Stats(**{of.name: getattr(engine, of.name) for of in fields(Stats)})

    def keys(self) -> tuple[str, ...]:
        """Return every known engine, in the order of adding."""
        return tuple(self._engines)

    @property
    def used_bytes(self) -> int:
        """What loading, resident and leaving engines hold. Over the budget while a load waits for what it evicts."""
        return self._sum(key for key, engine in self._engines.items() if engine.state is not EngineState.ABSENT)

    @property
    def over_bytes(self) -> int:
        """What loading and resident engines hold beyond the budget, 0 where they are within it."""
        return max(0, self.used_bytes - self._leaving_bytes - self.budget_bytes)

    @property
    def _leaving_bytes(self) -> int:
        return self._sum(key for key, engine in self._engines.items() if engine.state is EngineState.LEAVING)

    def _engine(self, key: str, state: EngineState | None = None) -> _Engine:
        """Return a known engine that is in that state, if one is named."""
        engine = self._engines.get(key)
        if engine is None:
            raise ValueError(f'engine "{key}": expected one that was added, is unknown')
        if state is not None and engine.state is not state:
            raise ValueError(f'engine "{key}": expected it to be {state}, is {engine.state}')
        return engine

    def _sum(self, keys: Iterable[str]) -> int:
        return sum(self._engines[key].size_bytes for key in keys)

    def _enough(self, excess_bytes: int, keys: Iterable[str]) -> tuple[str, ...]:
        """Return the first of these that hold that much together, or all of them where they do not."""
        enough: list[str] = []
        for key in keys:
            if excess_bytes <= 0:
                break
            enough.append(key)
            excess_bytes -= self._engines[key].size_bytes
        return tuple(enough)

    def _trim(self, keys: Iterable[str], now_ns: int) -> tuple[str, ...]:
        evict = self._enough(self.over_bytes, keys)
        self._make_leave(evict, now_ns)
        return evict

    def _make_leave(self, keys: tuple[str, ...], now_ns: int) -> None:
        for key in keys:
            engine = self._engines[key]
            engine.state = EngineState.LEAVING
            engine.evictions += 1
            engine.evicted_ns = now_ns

    def _refused(self, needed_bytes: int) -> Refused:
        held = tuple(
            Held(key, engine.size_bytes, _why(engine))
            for key, engine in self._engines.items()
            if engine.state is not EngineState.ABSENT and not engine.idle
        )
        free_bytes = max(0, self.budget_bytes - sum(one.size_bytes for one in held))
        return Refused(needed_bytes, free_bytes, self.budget_bytes, held)


def _rank(engine: _Engine, now_ns: int) -> tuple[bool, int]:
    """The smallest is evicted first."""
    return engine.preferred_until_ns > now_ns, engine.last_used_ns


def _why(engine: _Engine) -> Literal["leased", "pinned", "loading", "leaving"]:
    """What keeps the bytes of an engine that is neither absent nor idle."""
    if engine.state is EngineState.LOADING:
        return "loading"
    if engine.state is EngineState.LEAVING:
        return "leaving"
    return "pinned" if engine.pinned else "leased"


def _checked(name: str, size_bytes: int) -> int:
    if size_bytes < 0:
        raise ValueError(f'"{name}": expected a size of at least 0 bytes, got {size_bytes:,}')
    return size_bytes
