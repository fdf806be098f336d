"""Which engines stay, go, wait and are refused within a budget of bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headworks_server.engine.cache import (
    RETURN_NS,
    THRASHING_RETURNS,
    THRASHING_WINDOW_NS,
    EngineCache,
    EngineState,
    Held,
    Load,
    Loading,
    Refused,
    Resident,
    Wait,
)

SECOND_NS = 1_000_000_000


def cache_of(*resident: str, budget_bytes: int = 100, size_bytes: int = 40) -> EngineCache:
    """A cache that knows the engines a to e, of one size; the named ones were loaded in that order."""
    cache = EngineCache(budget_bytes)
    for key in "abcde":
        cache.add(key, estimate_bytes=size_bytes)
    for now_ns, key in enumerate(resident, 1):
        assert cache.request(key, now_ns) == Load(())
        assert cache.loaded(key, size_bytes=size_bytes, now_ns=now_ns) == ()
    return cache


def states(cache: EngineCache) -> str:
    """The first letters of the states, leaving as "-"."""
    letters = {EngineState.ABSENT: ".", EngineState.LOADING: "l", EngineState.RESIDENT: "r", EngineState.LEAVING: "-"}
    return "".join(letters[stats.state] for stats in map(cache.stats, cache.keys()))


def test_however_many_ask_there_is_one_load() -> None:
    """The first is told to load, the others that it loads, and all that it is resident once it is."""
    cache = cache_of()
    assert cache.request("a", 1) == Load(())
    assert cache.request("a", 2) == cache.request("a", 3) == Loading()
    assert cache.loaded("a", size_bytes=40, now_ns=4) == ()
    assert cache.request("a", 5) == Resident()


def test_the_least_recently_used_engine_makes_room() -> None:
    """Being loaded, asked for, served and released are uses; being listed is none."""
    cache = cache_of("a", "b", "c", budget_bytes=120)
    assert cache.evictable(4) == ("a", "b", "c")
    cache.use("a", 5)
    assert cache.request("b", 6) == Resident()
    cache.stats("c")
    assert cache.evictable(7) == ("c", "a", "b")
    cache.lease("c")
    cache.release("c", 8)
    assert cache.evictable(9) == ("a", "b", "c")
    assert cache.request("d", 10) == Load(("a",))


def test_no_more_is_evicted_than_needed() -> None:
    """Several small ones go for a large one, in order, and the rest stays."""
    cache = cache_of("a", "b", "c", "d", budget_bytes=100, size_bytes=25)
    cache.add("large", estimate_bytes=50)
    assert cache.request("large", 9) == Load(("a", "b"))
    assert states(cache) == "--rr.l"


def test_a_leaving_engine_holds_its_bytes_until_it_is_gone() -> None:
    """A second load is not promised bytes that are still in use, and is told whom to wait for."""
    cache = cache_of("a", "b")
    assert cache.unload("a")
    assert cache.used_bytes == 80
    assert cache.request("c", 4) == Wait(("a",))
    assert states(cache) == "-r..."
    cache.evicted("a")
    assert cache.request("c", 5) == Load(())


def test_bytes_promised_to_one_load_are_not_promised_to_another() -> None:
    """Two loads at once evict one engine each, and a third waits where bytes are left once those are gone."""
    cache = cache_of("a", "b", budget_bytes=100)
    assert cache.request("c", 3) == Load(("a",))
    assert cache.request("d", 4) == Wait(("a",))
    cache.evicted("a")
    assert cache.request("d", 5) == Load(("b",))
    assert cache.over_bytes == 0
    assert cache.used_bytes == 120
    cache.add("small", estimate_bytes=20)
    assert cache.request("small", 6) == Wait(("b",))
    cache.evicted("b")
    assert cache.request("small", 7) == Load(())


def test_an_engine_on_its_way_out_comes_back_by_a_new_load() -> None:
    """Whoever wants it waits until it is gone; a lease taken meanwhile does not stop it, and protects it afterwards."""
    cache = cache_of("a")
    cache.unload("a")
    cache.lease("a")
    assert cache.request("a", 2) == Wait(("a",))
    cache.evicted("a")
    assert cache.request("a", 3) == Load(())
    cache.loaded("a", size_bytes=40, now_ns=4)
    assert cache.evictable(5) == ()


def test_what_is_leased_or_pinned_stays() -> None:
    """However long ago it was used; leases are counted, pins are not."""
    cache = cache_of("a", "b")
    cache.lease("a")
    cache.lease("a")
    cache.pin("b")
    cache.pin("b")
    assert isinstance(cache.request("c", 3), Refused)
    cache.release("a", 4)
    assert isinstance(cache.request("c", 5), Refused)
    cache.unpin("b")
    assert cache.request("c", 6) == Load(("b",))


def test_a_refusal_names_the_bytes_and_their_holders() -> None:
    """All that holds bytes and is not idle, with its reason; idle engines count as free, and are kept."""
    cache = cache_of("a", "b", "c", budget_bytes=200)
    cache.lease("a")
    cache.lease("b")
    cache.pin("b")
    cache.unload("c")
    assert cache.request("d", 4) == Load(())
    assert cache.request("e", 5) == Load(())
    cache.evicted("c")
    cache.loaded("e", size_bytes=40, now_ns=6)
    cache.unload("e")
    cache.add("idle", estimate_bytes=30)
    cache.request("idle", 7)
    cache.loaded("idle", size_bytes=30, now_ns=8)
    cache.add("large", estimate_bytes=90)
    held = (Held("a", 40, "leased"), Held("b", 40, "pinned"), Held("d", 40, "loading"), Held("e", 40, "leaving"))
    assert cache.request("large", 9) == Refused(needed_bytes=90, free_bytes=40, budget_bytes=200, held=held)
    assert cache.stats("idle").state is EngineState.RESIDENT


def test_an_engine_larger_than_the_budget_is_refused_without_an_eviction() -> None:
    """Nobody leaves for what could never come."""
    cache = cache_of("a", "b")
    cache.add("huge", estimate_bytes=101)
    assert cache.request("huge", 3) == Refused(needed_bytes=101, free_bytes=100, budget_bytes=100, held=())
    assert states(cache) == "rr...."


def test_a_preferred_engine_goes_last_while_it_is_preferred() -> None:
    """Until then, and at once where no other is idle."""
    cache = cache_of("a", "b")
    cache.prefer("a", 10)
    assert cache.evictable(9) == ("b", "a")
    assert cache.evictable(10) == ("a", "b")
    cache.lease("b")
    assert cache.request("c", 9) == Load(("a",))


def test_an_engine_larger_than_estimated_drives_out_idle_ones() -> None:
    """Only as many as needed, and its next load reserves what was measured."""
    cache = cache_of("a", "b", budget_bytes=120)
    assert cache.request("c", 3) == Load(())
    assert cache.loaded("c", size_bytes=50, now_ns=4) == ("a",)
    assert cache.over_bytes == 0
    cache.evicted("a")
    assert cache.used_bytes == 90
    cache.unload("c")
    cache.evicted("c")
    assert cache.stats("c").size_bytes == 50
    assert cache.used_bytes == 40


def test_an_engine_larger_than_estimated_beside_leased_ones_is_told() -> None:
    """With a lease of its own it stays, and the cache says by how much it is over; without, it leaves again itself."""
    cache = cache_of("a")
    cache.lease("a")
    cache.request("b", 2)
    cache.lease("b")
    assert cache.loaded("b", size_bytes=70, now_ns=3) == ()
    assert cache.over_bytes == 10
    cache.release("b", 4)
    assert cache.trim(5) == ("b",)
    cache.evicted("b")

    cache.request("c", 6)
    assert cache.loaded("c", size_bytes=70, now_ns=7) == ("c",)
    cache.evicted("c")
    assert cache.request("c", 8) == Refused(70, 60, 100, (Held("a", 40, "leased"),))


def test_an_engine_just_loaded_is_the_last_to_leave() -> None:
    """Even a preferred engine goes before it: somebody asked for this one just now."""
    cache = cache_of("a")
    cache.prefer("a", 100)
    cache.request("b", 2)
    assert cache.loaded("b", size_bytes=70, now_ns=3) == ("a",)


@pytest.mark.parametrize("relief", [lambda cache: cache.release("a", 4), lambda cache: cache.unpin("b")])
def test_a_cache_over_its_budget_is_trimmed_once_something_is_idle(relief: Callable[[EngineCache], None]) -> None:
    """An engine that grew evicts nothing that is held, and the first that is not held any more leaves."""
    cache = cache_of("a", "b")
    cache.lease("a")
    cache.pin("b")
    cache.resized("b", 75)
    assert cache.over_bytes == 15
    assert cache.trim(3) == ()
    relief(cache)
    assert len(cache.trim(5)) == 1
    assert cache.over_bytes == 0
    assert cache.trim(6) == ()


def test_a_size_known_better_while_absent_is_what_the_load_reserves() -> None:
    """As when a prepared artefact tells what it measured."""
    cache = cache_of()
    cache.resized("a", 60)
    assert cache.used_bytes == 0
    cache.request("a", 1)
    assert cache.used_bytes == 60


def test_a_failed_load_leaves_nothing_behind() -> None:
    """The reservation is gone, the failure counted, and the next request loads again."""
    cache = cache_of()
    cache.request("a", 1)
    cache.failed("a")
    assert cache.used_bytes == 0
    assert cache.stats("a").failures == 1
    assert cache.request("a", 2) == Load(())


def test_an_administrator_unloads_only_what_is_idle() -> None:
    """Neither what is leased, pinned or loading, nor what is not there; and it counts as no eviction."""
    cache = cache_of("a", "b", "c", budget_bytes=200)
    cache.lease("a")
    cache.pin("b")
    cache.request("d", 4)
    assert [cache.unload(key) for key in "abcde"] == [False, False, True, False, False]
    assert not cache.unload("c")
    assert states(cache) == "rr-l."
    assert cache.stats("c").evictions == 0


def test_the_statistics_of_an_engine() -> None:
    """Hits are requests that found it, loads those that came to be, evictions those that made room."""
    cache = cache_of("a", "b")
    cache.request("a", 3)
    cache.use("b", 4)
    cache.request("c", 5)
    cache.evicted("a")
    cache.lease("b")
    cache.pin("b")
    a, b = cache.stats("a"), cache.stats("b")
    assert (a.state, a.size_bytes, a.hits, a.loads, a.evictions, a.last_used_ns) == (EngineState.ABSENT, 40, 1, 1, 1, 3)
    assert (b.state, b.leases, b.pinned, b.hits, b.last_used_ns) == (EngineState.RESIDENT, 1, True, 0, 4)
    assert cache.stats("e").last_used_ns == 0


def hop(cache: EngineCache, now_ns: int, key: str) -> None:
    """Load an engine, after whatever that evicts."""
    answer = cache.request(key, now_ns)
    assert isinstance(answer, Load)
    for other in answer.evict:
        cache.evicted(other)
    cache.loaded(key, size_bytes=40, now_ns=now_ns)


def test_engines_that_drive_each_other_out_are_named() -> None:
    """Three take turns where two fit: named from the third return of each, and no longer once it is calm."""
    cache = cache_of("a", "b")
    now_ns = 0
    for turn in range(THRASHING_RETURNS + 1):
        for key in "cab":
            assert (key in cache.thrashing(now_ns)) == (turn > THRASHING_RETURNS - (key != "c"))
            now_ns += SECOND_NS
            hop(cache, now_ns, key)
    assert cache.thrashing(now_ns) == ("a", "b", "c")
    calm_ns = now_ns + THRASHING_WINDOW_NS - 3 * SECOND_NS * (THRASHING_RETURNS - 1)
    assert cache.thrashing(calm_ns) == ("b",)
    assert cache.thrashing(calm_ns + 1) == ()


@pytest.mark.parametrize(
    ("absences_ns", "thrashes"),
    [
        ([RETURN_NS, 1, 1], True),
        ([RETURN_NS + 1, 1, 1], False),
        ([1, RETURN_NS + 1, 1, 1], True),
        ([1] * (THRASHING_RETURNS - 1), False),
    ],
)
def test_coming_back_late_is_no_return(absences_ns: list[int], thrashes: bool) -> None:
    """A camera that hops there and back every now and then is served as it asks."""
    cache = cache_of("a", budget_bytes=40)
    now_ns = SECOND_NS
    for absence_ns in absences_ns:
        hop(cache, now_ns, "b")
        now_ns += absence_ns
        hop(cache, now_ns, "a")
    assert ("a" in cache.thrashing(now_ns)) == thrashes


def test_only_evictions_make_thrashing() -> None:
    """Unloading is nobody's need for room, and a load that fails and is tried again is one return, not several."""
    cache = cache_of()
    for now_ns in range(THRASHING_RETURNS + 1):
        hop(cache, now_ns, "a")
        cache.unload("a")
        cache.evicted("a")
    assert cache.thrashing(now_ns) == ()
    cache = cache_of("a", budget_bytes=40)
    hop(cache, 2, "b")
    cache.unload("b")
    cache.evicted("b")
    for now_ns in range(3, 3 + THRASHING_RETURNS):
        assert cache.request("a", now_ns) == Load(())
        cache.failed("a")
    assert cache.thrashing(now_ns) == ()


def test_an_engine_is_forgotten_only_when_nothing_is_left_of_it() -> None:
    """Neither bytes nor leases; after that its name is new."""
    cache = cache_of("a")
    with pytest.raises(ValueError, match='engine "a": expected it to be absent, is resident'):
        cache.discard("a")
    cache.unload("a")
    cache.evicted("a")
    cache.lease("a")
    with pytest.raises(ValueError, match='engine "a": expected no lease, has 1'):
        cache.discard("a")
    cache.release("a", 2)
    cache.discard("a")
    assert cache.keys() == ("b", "c", "d", "e")
    cache.add("a", estimate_bytes=10)
    assert cache.stats("a").loads == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda _: EngineCache(-1), '"budget": expected a size of at least 0 bytes, got -1'),
        (lambda cache: cache.add("a", estimate_bytes=1), 'engine "a": expected a new one, was added before'),
        (lambda cache: cache.add("z", estimate_bytes=-1), '"z": expected a size of at least 0 bytes, got -1'),
        (lambda cache: cache.request("z", 1), 'engine "z": expected one that was added, is unknown'),
        (lambda cache: cache.use("z", 1), 'engine "z": expected one that was added, is unknown'),
        (lambda cache: cache.resized("a", -5), '"a": expected a size of at least 0 bytes, got -5'),
        (lambda cache: cache.loaded("a", size_bytes=1, now_ns=1), 'engine "a": expected it to be loading, is resident'),
        (lambda cache: cache.failed("b"), 'engine "b": expected it to be loading, is absent'),
        (lambda cache: cache.evicted("a"), 'engine "a": expected it to be leaving, is resident'),
        (lambda cache: cache.release("a", 1), 'engine "a": expected a lease to release, has none'),
    ],
)
def test_a_wrong_call_is_told_and_changes_nothing(call: Callable[[EngineCache], object], words: str) -> None:
    """Place, expectation and fact."""
    cache = cache_of("a")
    before = list(map(cache.stats, cache.keys()))
    with pytest.raises(ValueError, match=words):
        call(cache)
    assert list(map(cache.stats, cache.keys())) == before


def test_a_bad_measurement_does_not_end_a_load() -> None:
    """The load can still be told as failed."""
    cache = cache_of()
    cache.request("a", 1)
    with pytest.raises(ValueError, match="got -1"):
        cache.loaded("a", size_bytes=-1, now_ns=2)
    cache.failed("a")
