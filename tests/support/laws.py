"""The laws of a stream, each a pure function from recorded facts to sentences about what broke it.

A history is what a camera of bare stubs recorded (support/history.py), a line is the server's log of a stream's end, an
account is the client library's. No sentence means that the law holds. Used by the fault tests and the soak.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from support.history import OUTCOMES

Event = Mapping[str, Any]
Line = Mapping[str, Any]

# The status that follows each reason. What breaks after Closed, or a client's failed write, may hide it.
STATUS_AFTER = {
    "END": {"OK"},
    "DRAINED": {"UNAVAILABLE"},
    "IDLE_TIMEOUT": {"DEADLINE_EXCEEDED"},
    "PROTOCOL_ERROR": {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"},
}
HIDDEN = {"UNAVAILABLE", "CANCELLED", "UNKNOWN"}
EVERY_FRAME_DROPS = {"DRAINING", "CANCELLED"}


# One camera of bare stubs.


def shape(history: Sequence[Event]) -> Iterator[str]:
    """Section 1: Opened first and once, Closed last and once, then nothing but the status of the call."""
    heard = [event["heard"] for event in history if "heard" in event]
    if "status" in heard:
        if heard.index("status") != len(heard) - 1:
            yield f"{heard[heard.index('status') + 1]} after the status of the call"
        heard = heard[: heard.index("status")]
    if heard and heard[0] not in ("opened", "closed"):
        yield f"{heard[0]} before Opened"
    for kind in ("opened", "closed"):
        if heard.count(kind) > 1:
            yield f"{heard.count(kind)} times {kind}"
    if "closed" in heard and heard[-1] != "closed":
        yield f"{heard[heard.index('closed') + 1]} after Closed"


def conservation(history: Sequence[Event]) -> Iterator[str]:
    """Rules 1, 3, 10: what is told covers the frames that were sent, from the first on, in order, each exactly once."""
    untold: deque[int] = deque()
    for event in history:
        if event.get("did") == "frame":
            untold.append(event["frame_id"])
        elif event.get("heard") in OUTCOMES:
            first, last = event["first"], event["last"]
            covered = []
            while untold and untold[0] <= last:
                covered.append(untold.popleft())
            what = f"{event['heard']} of frames {first} to {last}"
            if not covered:
                yield f"{what}: told before, or not sent before it was told"
                continue
            if covered[0] < first:
                yield f"{what}: frame {covered[0]} before them was passed over"
            if covered[0] > first or covered[-1] != last:
                yield f"{what}: of these only {covered[0]} to {covered[-1]} were sent and not told before"
            if event["heard"] == "dropped" and sum(event["drops"].values()) != len(covered):
                yield f"{what}: counts {event['drops']}, expected {len(covered)} in all"


def credit(history: Sequence[Event]) -> Iterator[str]:
    """Rules 6, 15: credit only grows, is never more than a window beyond what was sent, and stops with a drain."""
    window = told = sent = 0
    draining = False
    for event in history:
        heard = event.get("heard")
        if event.get("did") == "frame":
            sent += 1
        elif heard == "opened":
            window = told = event["frames_allowed"]
        elif heard == "notice":
            draining |= event["kind"] == "DRAINING"
        elif heard == "credit":
            allowed = event["frames_allowed"]
            if allowed <= told:
                yield f"credit {allowed} after credit {told}"
            if allowed > sent + window:
                yield f"credit {allowed} with {sent} frames sent and a window of {window}"
            if draining:
                yield f"credit {allowed} after the notice of a drain"
            told = allowed


def closing(history: Sequence[Event]) -> Iterator[str]:
    """Rules 1, 15: the ledger in Closed adds up and says what was told; after End nothing is left; the status fits."""
    closed = next((event for event in history if event.get("heard") == "closed"), None)
    ended = next((event for event in history if event.get("heard") == "status"), None)
    status = ended and ended["code"]
    if closed is None:
        if status == "OK":
            yield "status OK without Closed"
        return
    yield from (f"Closed: {sentence}" for sentence in ledger(closed))
    told = told_counts(history)
    if counts(closed) != told:
        yield f"Closed tells of {dict(counts(closed))}, told were {dict(told)}"
    sent = sent_count(history)
    if closed["received"] > sent:
        yield f"Closed tells of {closed['received']} frames, sent were {sent}"
    if closed["reason"] == "END" and closed["received"] != sent:
        yield f"after End {sent - closed['received']} of {sent} frames are lost"
    if status is not None and status not in STATUS_AFTER.get(closed["reason"], set()) | HIDDEN:
        yield f"status {status} after Closed for {closed['reason']}: {ended['detail']}"


def policy(history: Sequence[Event]) -> Iterator[str]:
    """Rule 4: under EVERY_FRAME nothing is dropped for lack of room."""
    if not any(event.get("did") == "open" and event["policy"] == "every_frame" for event in history):
        return
    told = told_counts(history)
    drops = set(told) - {"results", "errors"} - EVERY_FRAME_DROPS
    if drops:
        yield f"EVERY_FRAME with drops {sorted(drops)}"


def stream(history: Sequence[Event]) -> list[str]:
    """All laws of one call, as its camera saw it."""
    return [sentence for law in (shape, conservation, credit, closing, policy) for sentence in law(history)]


# The server.


def ledger(line: Line) -> Iterator[str]:
    """Rule 1: received = results + drops + errors, none of them negative."""
    parts = counts(line)
    if line["received"] != sum(parts.values()):
        yield f"received {line['received']} is not the sum of {dict(parts)}"
    if any(count < 0 for count in parts.values()):
        yield f"a negative number in {dict(parts)}"


def agreement(history: Sequence[Event], line: Line) -> Iterator[str]:
    """Section 4: the two halves of one stream. Sent = received + lost; what was told is in the ledger."""
    yield from (f"the line of {line['stream']!r}: {sentence}" for sentence in ledger(line))
    told, logged, sent = told_counts(history), counts(line), sent_count(history)
    if line["received"] > sent:
        yield f"the server has read {line['received']} frames, sent were {sent}"
    closed = next((event for event in history if event.get("heard") == "closed"), None)
    if closed is not None:
        if (counts(closed), closed["reason"]) != (logged, line["reason"]):
            yield f"Closed is {closed}, the line says {line}"
        return
    # Nobody hears of what was written before the connection broke, or was dropped afterwards.
    for outcome, count in told.items():
        if count > logged[outcome]:
            yield f"told of {count} {outcome}, the line says {logged[outcome]}"


def whole_server(lines: Sequence[Line], metrics: Mapping[str, float]) -> Iterator[str]:
    """Of all streams, once all have ended: a line for each, each exact, and together what the counters say."""
    closed = [line for line in lines if line.get("event") == "stream_close"]
    balance = Counter(line["stream_id"] for line in lines if line.get("event") == "stream_open")
    balance.subtract(line["stream_id"] for line in closed)
    if any(balance.values()):
        yield f"opened but not closed once each: { ({key: left for key, left in balance.items() if left}) }"
    for line in closed:
        yield from (f"stream {line['stream_id']}: {sentence}" for sentence in ledger(line))
    received = sum(line["received"] for line in closed)
    counted = total(metrics, "headworks_frames_received_total")
    if received != counted:
        yield f"the lines tell of {received} frames, the counter of {counted:g}"
    for name in ("headworks_streams_active", "headworks_waiting_bytes"):
        if total(metrics, name):
            yield f"{name} is {total(metrics, name):g} with no stream left"


# A camera of the client library, over any number of connections.


def library(history: Sequence[Event], account: Any, *, reconnects: bool = True) -> list[str]:
    """Section 4, rule 8: the account's own identities, and that it counts what the callbacks told, in order.

    The frames of such a history are those offered; which of them were sent the library alone knows. Where it does not
    reconnect, the error that ends the stream stands for what is lost.
    """
    found = list(account.violations())
    offered = {event["frame_id"] for event in history if event.get("did") == "frame"}
    last = lost = 0
    for event in (event for event in history if event.get("heard") in {*OUTCOMES, "lost"}):
        what = f"{event['heard']} of frames {event['first']} to {event['last']}"
        if event["first"] <= last:
            found.append(f"{what} after frame {last}")
        if not {event["first"], event["last"]} <= offered:
            found.append(f"{what}: never offered")
        last = max(last, event["last"])
        lost += event.get("total", 0)
    told = told_counts(history) + Counter(lost=lost)
    untold = 0 if reconnects else account.lost
    said = +Counter(results=account.results, errors=account.errors, lost=account.lost - untold, **account.drops)
    if said != told:
        found.append(f"the account tells of {dict(said)}, told were {dict(told)}")
    if account.offered != len(offered):
        found.append(f"the account tells of {account.offered} frames offered, made were {len(offered)}")
    return found


def all_accounted(account: Any) -> Iterator[str]:
    """Section 4, of a stream that is over: every frame that was offered is in one of the named classes."""
    drops = sum(account.drops.values())
    named = account.replaced + account.waiting + account.results + drops + account.errors + account.lost
    if account.offered != named:
        yield f"{account.offered - named} of {account.offered} frames offered are in no class: {account}"


def library_agreement(history: Sequence[Event], account: Any, lines: Sequence[Line]) -> Iterator[str]:
    """Section 4: each connection's part of the account, and the line of its stream where its server has left one."""
    opened = connections(history)
    if len(opened) != len(account.connections):
        yield f"told of {len(opened)} connections, the account of {len(account.connections)}"
    by_number = {(line["target"], line["stream_id"]): line for line in lines}
    for where, part in zip(opened, account.connections, strict=False):
        line = by_number.get(where)
        if line is None:
            continue
        if not part.told + part.returned <= line["received"] <= part.sent:
            yield f"{where}: sent {part.sent}, told of {part.told} + {part.returned}, the line says {line}"
        # What a draining server gave back is sent again instead of being told.
        told = Counter(results=part.results, errors=part.errors, **part.drops) + Counter(DRAINING=part.returned)
        if part.received is not None and told != counts(line):
            yield f"{where}: told of {dict(told)}, the line says {dict(counts(line))}"


def connections(history: Iterable[Event]) -> list[tuple[str, int]]:
    """Each connection that the library told of: the server's address, and its number for the stream."""
    return [(event["target"], event["stream_id"]) for event in history if event.get("heard") == "opened"]


# Facts.


def counts(line: Line) -> Counter[str]:
    """Frames by outcome of a ledger: `results`, `errors`, and drops by reason."""
    by_outcome = {"results": line["results"], "errors": line["errors"], **line["drops"]}
    return Counter({outcome: count for outcome, count in by_outcome.items() if count})


def told_counts(history: Iterable[Event]) -> Counter[str]:
    """Frames by outcome, as a camera was told."""
    told: Counter[str] = Counter()
    for event in history:
        kind = event.get("heard")
        if kind == "dropped":
            told.update(event["drops"])
        elif kind in OUTCOMES:
            told["results" if kind == "result" else "errors"] += 1
    return +told


def sent_count(history: Iterable[Event]) -> int:
    """Frames that a camera sent."""
    return sum(event.get("did") == "frame" for event in history)


def stream_id(history: Iterable[Event]) -> int | None:
    """The server's number for the stream, if the camera has heard it."""
    return next((event["stream_id"] for event in history if event.get("heard") == "opened"), None)


def total(metrics: Mapping[str, float], name: str) -> float:
    """A metric, over all its labels."""
    return sum(value for key, value in metrics.items() if key.split("{")[0] == name)
