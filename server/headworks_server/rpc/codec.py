"""Events of a session to bytes on the wire, and requests from bytes.

A StreamFramesResponse is a repeated field of events, so it is the plain concatenation of encoded
entries: each event becomes one entry, and what is due together is joined and written once. Results,
credit and drops, which every frame causes, are encoded natively; the rest goes through protobuf.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from headworks.v1 import frame_pb2 as pb
from headworks_native import wire
from headworks_server.core import events as ev
from headworks_server.core.facts import ModelFacts
from headworks_server.core.grant import Grant, Policy
from headworks_server.core.ledger import Ledger


class MalformedRequestError(ValueError):
    """The bytes are no StreamFramesRequest or InferFrameRequest, or one that lacks what it is for."""


def parse_request(raw: bytes) -> wire.FrameMessage | pb.Open | pb.Ping | pb.End:
    """Return what `raw` carries. Frames come as a native view of `raw`, without a copy of the picture.

    Raises:
        MalformedRequestError: the bytes are no request.
    """
    message = wire.parse_request(raw)
    if message is not None:
        return message
    try:
        request = pb.StreamFramesRequest.FromString(raw)
    except DecodeError as error:
        raise MalformedRequestError(
            f"expected a StreamFramesRequest, got {len(raw):,} bytes of none ({error})"
        ) from None
    kind = request.WhichOneof("message")
    if kind is None:
        raise MalformedRequestError("expected open, frame, ping or end in a StreamFramesRequest, got none of them")
    if kind == "frame":
        return wire.frame_message(request.frame)
    return getattr(request, kind)  # type: ignore[no-any-return]


def parse_infer_request(raw: bytes) -> pb.InferFrameRequest:
    """Return the InferFrameRequest that `raw` is.

    Raises:
        MalformedRequestError: the bytes are no request, or there is no frame in it.
    """
    try:
        request = pb.InferFrameRequest.FromString(raw)
    except DecodeError as error:
        raise MalformedRequestError(
            f"expected an InferFrameRequest, got {len(raw):,} bytes of none ({error})"
        ) from None
    if not request.HasField("frame"):
        raise MalformedRequestError("expected a frame in the InferFrameRequest, got none")
    return request


def infer_response(entry: bytes) -> bytes:
    """Return the InferFrameResponse with the Result of an encoded event, an entry as `wire.encode_result` makes it.

    A response holds the Result as its field 1, an entry holds it as field 2 of its field 1: it is copied as it is.
    """
    inner = 1
    while entry[inner] & 0x80:  # the length of the event
        inner += 1
    return b"\x0a" + entry[inner + 2 :]


def encode_events(events: Sequence[ev.Event], encode_opened: Callable[[ev.OpenedEvent], bytes]) -> bytes:
    """Encode events into the bytes of one StreamFramesResponse; an Opened needs facts that no session knows."""
    entries = []
    for event in events:
        # The most common kind first: it is encoded already.
        if isinstance(event, ev.ResultOutcome):
            entries.append(event.entry)
        elif isinstance(event, ev.OpenedEvent):
            entries.append(encode_opened(event))
        else:
            entries.append(_ENCODERS[type(event)](event))
    return b"".join(entries)


def opened_entry(event: ev.OpenedEvent, facts: ModelFacts, limits: pb.Limits, stream_id: int) -> bytes:
    """Encode an Opened."""
    granted = event.grant
    return _entry(
        opened=pb.Opened(
            stream_id=stream_id,
            drop_policy=_drop_policy(granted),
            max_in_flight=granted.max_in_flight,
            frames_allowed=event.frames_allowed,
            deadline_ms=granted.deadline_ms,
            weight=granted.weight,
            models=[model_info(facts)],
            limits=limits,
        )
    )


def model_info(facts: ModelFacts) -> pb.ModelInfo:
    """Return what clients are told of a model."""
    return pb.ModelInfo(
        name=facts.name,
        version=facts.version,
        generation=facts.generation,
        digest=facts.digest,
        labels=facts.labels,
        backend=facts.backend,
        input_width=facts.input_width,
        input_height=facts.input_height,
    )


def output_prefix(facts: ModelFacts) -> bytes:
    """Encode the part of an Output that is the same for every frame of a model."""
    return pb.Output(
        model=facts.name, version=facts.version, generation=facts.generation, backend=facts.backend
    ).SerializeToString()


def ledger_message(ledger: Ledger) -> pb.Ledger:
    """Return the ledger as it is told in Closed."""
    drops = [pb.DropCount(reason=int(r), stage=int(s), count=n) for r, s, n in ledger.triples()]  # type: ignore[arg-type]
    return pb.Ledger(received=ledger.received, results=ledger.results, drops=drops, errors=ledger.errors)


def _drop_policy(granted: Grant) -> pb.DropPolicy:
    if granted.policy is Policy.LATEST:
        return pb.DropPolicy(latest=pb.LatestPolicy())
    if granted.policy is Policy.EVERY_FRAME:
        return pb.DropPolicy(every_frame=pb.EveryFramePolicy())
    side = pb.BoundedPolicy.DROP_SIDE_NEWEST if granted.drop_newest else pb.BoundedPolicy.DROP_SIDE_OLDEST
    return pb.DropPolicy(bounded=pb.BoundedPolicy(depth=granted.depth, drop=side))


def _entry(**event: Any) -> bytes:
    return pb.StreamFramesResponse(events=[pb.ServerEvent(**event)]).SerializeToString()


def _frame_error(event: ev.FrameErrorEvent) -> bytes:
    code: Any = int(event.code)
    return _entry(frame_error=pb.FrameError(frame_id=event.frame_id, code=code, detail=event.detail))


def _notice(event: ev.NoticeEvent) -> bytes:
    kind: Any = int(event.kind)
    notice = pb.Notice(kind=kind, detail=event.detail, grace_ms=event.grace_ms, model=event.model)
    if event.facts is not None:
        facts = event.facts
        notice.detail = f"{facts.name} {facts.version} on {facts.backend}, generation {facts.generation}"
        notice.first_frame_id, notice.generation = event.first_frame_id, event.facts.generation
        notice.model_info.CopyFrom(model_info(event.facts))
    return _entry(notice=notice)


def _closed(event: ev.ClosedEvent) -> bytes:
    reason: Any = int(event.reason)
    return _entry(closed=pb.Closed(ledger=ledger_message(event.ledger), reason=reason, detail=event.detail))


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    ev.CreditEvent: lambda event: wire.encode_credit(event.frames_allowed),
    ev.DroppedEvent: lambda event: wire.encode_dropped(event.first, event.last, event.triples()),
    ev.FrameErrorEvent: _frame_error,
    ev.NoticeEvent: _notice,
    ev.PongEvent: lambda event: _entry(pong=pb.Pong(nonce=event.nonce)),
    ev.ClosedEvent: _closed,
}
