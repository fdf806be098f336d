"""The laws of tests/support/laws.py: a lawful history passes, and each law catches what is planted against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headworks import Account, ConnectionAccount
from headworks.v1 import frame_pb2 as pb
from support import laws
from support.history import Event, History, read_history


def frame(frame_id: int) -> Event:
    return {"did": "frame", "frame_id": frame_id}


def result(frame_id: int) -> Event:
    return {"heard": "result", "first": frame_id, "last": frame_id}


def error(frame_id: int) -> Event:
    return {"heard": "frame_error", "first": frame_id, "last": frame_id, "code": "UNDECODABLE"}


def dropped(first: int, last: int, **drops: int) -> Event:
    return {"heard": "dropped", "first": first, "last": last, "drops": drops}


def lost(first: int, last: int, total: int) -> Event:
    return {"heard": "lost", "first": first, "last": last, "total": total}


def credit(frames_allowed: int) -> Event:
    return {"heard": "credit", "frames_allowed": frames_allowed}


def closed(reason: str = "END", **changes: Any) -> Event:
    """Closed of `lawful_history`."""
    ledger = {"received": 6, "results": 2, "errors": 1, "drops": {"REPLACED_BY_NEWER": 2, "QUEUE_FULL": 1}}
    return {"heard": "closed", "reason": reason} | ledger | changes


def status(code: str) -> Event:
    return {"heard": "status", "code": code, "detail": ""}


def lawful_history(policy: str = "latest") -> list[Event]:
    """Six frames with gaps in their numbers, each kind of outcome, and a clean end."""
    return [
        {"did": "open", "policy": policy},
        {"heard": "opened", "stream_id": 3, "frames_allowed": 4},
        *(frame(frame_id) for frame_id in (1, 2, 5, 7)),
        result(1),
        credit(6),
        frame(8),
        frame(9),
        dropped(2, 7, REPLACED_BY_NEWER=2, QUEUE_FULL=1),
        error(8),
        {"heard": "notice", "kind": "DRAINING"},
        {"did": "end"},
        result(9),
        closed(),
        status("OK"),
    ]


OPENED, FIRST_RESULT, FIRST_CREDIT, DROPPED, ERROR, CLOSED, STATUS = 1, 6, 7, 10, 11, 15, 16


def line(**changes: Any) -> Event:
    """The server's line of the lawful history."""
    ledger = {key: value for key, value in closed().items() if key != "heard"}
    return {"event": "stream_close", "stream": "gate", "stream_id": 3} | ledger | changes


def test_a_lawful_history_breaks_no_law() -> None:
    """Nothing is found where all is well, with either half alone and with both."""
    history = lawful_history()
    assert laws.stream(history) == []
    assert list(laws.agreement(history, line())) == []


def broken(at: int, *instead: Event) -> list[Event]:
    """The lawful history with other events in the place of one."""
    history = lawful_history()
    return [*history[:at], *instead, *history[at + 1 :]]


@pytest.mark.parametrize(
    ("law", "history", "words"),
    [
        (laws.shape, broken(OPENED), "before Opened"),
        (laws.shape, broken(OPENED, *lawful_history()[OPENED : OPENED + 1] * 2), "2 times opened"),
        (laws.shape, broken(CLOSED, closed(), closed()), "2 times closed"),
        (laws.shape, broken(CLOSED, closed(), result(9)), "result after Closed"),
        (laws.shape, broken(STATUS, status("OK"), result(9)), "result after the status"),
        (laws.conservation, broken(FIRST_RESULT), "frame 1 before them was passed over"),
        (laws.conservation, broken(FIRST_RESULT, result(1), result(1)), "told before, or not sent"),
        (laws.conservation, broken(FIRST_RESULT, result(2), result(1)), "told before, or not sent"),
        (laws.conservation, broken(ERROR, error(9), error(8)), "frame 8 before them was passed over"),
        (laws.conservation, broken(FIRST_RESULT, result(1), dropped(2, 3, QUEUE_FULL=1)), "only 2 to 2 were sent"),
        (laws.conservation, broken(DROPPED, dropped(2, 7, QUEUE_FULL=2)), "expected 3 in all"),
        (laws.conservation, broken(DROPPED, dropped(2, 7, QUEUE_FULL=4)), "expected 3 in all"),
        (laws.conservation, broken(DROPPED, dropped(3, 7, QUEUE_FULL=2)), "frame 2 before them was passed over"),
        (laws.conservation, broken(2, frame(2), frame(1)), "frames 1 to 1"),
        (laws.credit, broken(FIRST_CREDIT, credit(4)), "credit 4 after credit 4"),
        (laws.credit, broken(FIRST_CREDIT, credit(6), credit(5)), "credit 5 after credit 6"),
        (laws.credit, broken(FIRST_CREDIT, credit(9)), "with 4 frames sent and a window of 4"),
        (laws.credit, broken(CLOSED, credit(7), closed()), "after the notice of a drain"),
        (laws.closing, broken(CLOSED), "OK without Closed"),
        (laws.closing, broken(CLOSED, closed(received=7)), "received 7 is not the sum"),
        (laws.closing, broken(CLOSED, closed(received=5, results=1)), "told were"),
        (laws.closing, broken(CLOSED, closed(drops={"REPLACED_BY_NEWER": 3})), "told were"),
        (laws.closing, broken(2), "Closed tells of 6 frames, sent were 5"),
        (laws.closing, broken(5, frame(7), frame(10)), "after End 1 of 7 frames are lost"),
        (laws.closing, broken(STATUS, status("DEADLINE_EXCEEDED")), "status DEADLINE_EXCEEDED after Closed for END"),
        (laws.closing, broken(CLOSED, closed("IDLE_TIMEOUT")), "status OK after Closed for IDLE_TIMEOUT"),
        (laws.policy, lawful_history("every_frame"), "EVERY_FRAME with drops ['QUEUE_FULL', 'REPLACED_BY_NEWER']"),
    ],
)
def test_each_law_catches_what_is_planted(law: Callable[..., Any], history: list[Event], words: str) -> None:
    """A law that cannot fail is worth nothing: each yields a sentence with the fault in it, and so does the whole."""
    sentences = list(law(history))
    assert any(words in sentence for sentence in sentences), sentences
    assert set(sentences) <= set(laws.stream(history))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"received": 7, "errors": 2}, "sent were 6"),
        ({"results": 3}, "is not the sum"),
        ({"results": 3, "errors": 0}, "Closed is"),
        ({"reason": "CANCELLED"}, "Closed is"),
        ({"drops": {"REPLACED_BY_NEWER": 4, "QUEUE_FULL": -1}}, "negative"),
    ],
)
def test_the_two_halves_of_a_stream_must_agree(changes: dict[str, Any], words: str) -> None:
    """The server's line adds up, tells of no more frames than were sent, and equals Closed."""
    sentences = list(laws.agreement(lawful_history(), line(**changes)))
    assert any(words in sentence for sentence in sentences), sentences


def test_a_broken_stream_may_lose_what_was_sent_but_not_what_was_told() -> None:
    """Without Closed the server may have read less than was sent, or more than was told, never less than was told."""
    history = [*lawful_history()[:CLOSED], status("UNAVAILABLE")]
    assert laws.stream(history) == []
    assert list(laws.agreement(history, line(reason="CANCELLED"))) == []
    untold = {"results": 2, "errors": 1, "drops": {"REPLACED_BY_NEWER": 2, "CANCELLED": 1}}
    sentences = list(laws.agreement(history, line(reason="CANCELLED", **untold)))
    assert sentences == ["told of 1 QUEUE_FULL, the line says 0"]


METRICS = {
    'headworks_frames_received_total{model="a"}': 4.0,
    'headworks_frames_received_total{model="b"}': 2.0,
    "headworks_streams_active": 0.0,
    "headworks_waiting_bytes": 0.0,
}


@pytest.mark.parametrize(
    ("lines", "metrics", "words"),
    [
        ([{"event": "stream_open", "stream_id": 3}, line()], {}, None),
        ([line()], {}, "opened but not closed once each: {3: -1}"),
        ([{"event": "stream_open", "stream_id": 3}], {}, "{3: 1}"),
        ([{"event": "stream_open", "stream_id": 3}, line(results=1)], {}, "stream 3: received 6 is not the sum"),
        ([{"event": "stream_open", "stream_id": 3}, line()], {"headworks_frames_received_total": 1.0}, "counter of 7"),
        ([{"event": "stream_open", "stream_id": 3}, line()], {"headworks_streams_active": 1.0}, "active is 1 with no"),
        ([{"event": "stream_open", "stream_id": 3}, line()], {"headworks_waiting_bytes": 9.0}, "bytes is 9 with no"),
    ],
)
def test_the_lines_of_a_server_add_up(lines: list[Event], metrics: dict[str, float], words: str | None) -> None:
    """Each stream that opened has closed once, and the sum of the lines is what the counters say."""
    sentences = list(laws.whole_server(lines, METRICS | metrics))
    if words is None:
        assert sentences == []
    else:
        assert any(words in sentence for sentence in sentences), sentences


def account(**changes: Any) -> Account:
    """The account of a library's camera that told of the lawful history's outcomes, and made one frame more."""
    whole = {
        "offered": 7,
        "replaced": 1,
        "waiting": 0,
        "sent": 6,
        "received": 6,
        "lost": 0,
        "results": 2,
        "drops": {"REPLACED_BY_NEWER": 2, "QUEUE_FULL": 1},
        "errors": 1,
        "close_reason": "END",
    }
    return Account(**(whole | changes))


LIBRARY_HISTORY = [frame(0), *(event for event in lawful_history() if event.get("heard") in laws.OUTCOMES | {None})]


@pytest.mark.parametrize(
    ("history", "changes", "words"),
    [
        (LIBRARY_HISTORY, {}, None),
        (LIBRARY_HISTORY, {"offered": 8}, "offered 8 is not"),
        (LIBRARY_HISTORY, {"lost": 1}, "is not received"),
        (LIBRARY_HISTORY, {"results": 1, "errors": 2}, "told were"),
        (LIBRARY_HISTORY[1:], {}, "made were 6"),
        ([*LIBRARY_HISTORY, result(9)], {}, "result of frames 9 to 9 after frame 9"),
        ([*LIBRARY_HISTORY, result(12)], {}, "result of frames 12 to 12: never offered"),
        (
            [*LIBRARY_HISTORY, frame(10), lost(10, 10, 1)],
            {"offered": 8, "sent": 7, "lost": 1, "close_reason": None},
            None,
        ),
        ([*LIBRARY_HISTORY, frame(10), lost(10, 10, 1)], {"offered": 8, "waiting": 1}, "'lost': 1"),
        ([*LIBRARY_HISTORY, lost(9, 9, 1)], {}, "lost of frames 9 to 9 after frame 9"),
    ],
)
def test_an_account_of_the_library_must_tell_of_its_callbacks(
    history: list[Event], changes: dict[str, Any], words: str | None
) -> None:
    """Its own identities hold, and it counts exactly the outcomes that the application was told, each once."""
    sentences = laws.library(history, account(**changes))
    if words is None:
        assert sentences == []
    else:
        assert any(words in sentence for sentence in sentences), sentences


def test_losses_are_told_where_the_library_reconnects() -> None:
    """Otherwise the error that ends the stream says so, and the account."""
    history = [*LIBRARY_HISTORY, frame(10)]
    broken = account(offered=8, sent=7, received=None, lost=1, close_reason=None)
    assert laws.library(history, broken, reconnects=False) == []
    (sentence,) = laws.library(history, broken)
    assert "'lost': 1" in sentence


@pytest.mark.parametrize("field", ["replaced", "waiting", "results", "errors", "lost"])
def test_every_frame_offered_must_be_in_a_class(field: str) -> None:
    """A frame that is in none of the named classes, or in two of them, is told of."""
    assert list(laws.all_accounted(account())) == []
    for difference in (1, -1):
        (sentence,) = laws.all_accounted(account(**{field: getattr(account(), field) + difference}))
        assert f"{-difference} of 7 frames offered are in no class" in sentence


PART = ConnectionAccount(
    target="here", sent=6, received=6, results=2, drops={"REPLACED_BY_NEWER": 2}, errors=1, returned=1, ended=True
)
CONNECTED = [{"heard": "opened", "target": "here", "stream_id": 3}]
LEDGER = {"received": 6, "results": 2, "errors": 1, "drops": {"REPLACED_BY_NEWER": 2, "DRAINING": 1}}


@pytest.mark.parametrize(
    ("changes", "ledger", "words"),
    [
        ({}, {}, None),
        ({"received": None, "results": 1}, {}, None),
        ({}, {"results": 3, "errors": 0}, "the line says"),
        ({}, {"drops": {"REPLACED_BY_NEWER": 3}}, "the line says"),
        ({"received": None}, {"received": 7}, "sent 6"),
        ({"received": None}, {"received": 5}, "told of 5 + 1"),
    ],
)
def test_each_connection_of_the_library_must_agree_with_its_line(
    changes: dict[str, Any], ledger: dict[str, Any], words: str | None
) -> None:
    """With a Closed to the frame, without one within what was told and what was sent; returned frames are DRAINING."""
    whole = account(connections=(replace(PART, **changes),))
    lines = [{"target": "here", "stream_id": 3, **LEDGER, **ledger}]
    sentences = list(laws.library_agreement(CONNECTED, whole, lines))
    if words is None:
        assert sentences == []
    else:
        assert any(words in sentence for sentence in sentences), sentences


def test_a_connection_that_was_not_told_of_is_found() -> None:
    """As many connections are told as the account has."""
    (sentence,) = laws.library_agreement(CONNECTED * 2, account(connections=(PART,)), [])
    assert sentence == "told of 2 connections, the account of 1"


def test_a_history_survives_the_death_of_its_writer(tmp_path: Path) -> None:
    """Each event is in the file at once, and half a line at the end is no event."""
    history = History(tmp_path / "camera.jsonl")
    history.did_request(pb.StreamFramesRequest(open=pb.Open(drop_policy=pb.DropPolicy(every_frame={}))))
    history.did_request(pb.StreamFramesRequest(frame=pb.Frame(frame_id=1)))
    drop = pb.DropCount(reason=pb.DROP_REASON_DRAINING, stage=pb.DROP_STAGE_INGRESS, count=1)
    history.heard_event(pb.ServerEvent(dropped=pb.Dropped(first_frame_id=1, last_frame_id=1, counts=[drop])))
    with (tmp_path / "camera.jsonl").open("a") as file:
        file.write('{"heard": "resu')
    assert read_history(tmp_path / "camera.jsonl") == history.events
    assert history.events == [{"did": "open", "policy": "every_frame"}, frame(1), dropped(1, 1, DRAINING=1)]
    history.close()
