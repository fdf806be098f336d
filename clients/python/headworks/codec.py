"""Between bytes, protobuf and the typed world: requests out, events in. Used by `session` and `stream`, owns nothing.

A frame's request is built by hand, one small header before the payload, so that the payload is copied exactly
once; the bytes equal what protobuf would have written. Everything else goes through protobuf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headworks.outcomes import (
    Closed,
    Detection,
    DropCount,
    Dropped,
    FrameError,
    Ledger,
    ModelInfo,
    Notice,
    Opened,
    Output,
    Result,
    Timings,
)
from headworks.v1 import frame_pb2

ENCODINGS = {"jpeg": frame_pb2.ENCODING_JPEG, "png": frame_pb2.ENCODING_PNG, "bgr24": frame_pb2.ENCODING_BGR24}

_NS = 1_000_000_000


def _varint(value: int) -> bytes:
    """Encode an unsigned integer, seven bits a byte, the lowest first."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def frame_request(
    payload: bytes | memoryview, *, frame_id: int, capture_time_ns: int, encoding: int, width: int, height: int
) -> bytes:
    """Return StreamFramesRequest{frame}, byte for byte as protobuf writes it."""
    seconds, nanos = divmod(capture_time_ns, _NS)
    # A capture time before 1970 is a negative int64: ten bytes, two's complement.
    stamp = (b"\x08" + _varint(seconds & 0xFFFF_FFFF_FFFF_FFFF) if seconds else b"") + (
        b"\x10" + _varint(nanos) if nanos else b""
    )
    fields = b"".join(
        (
            b"\x08" + _varint(frame_id) if frame_id else b"",
            b"\x12" + _varint(len(stamp)) + stamp,
            b"\x18" + _varint(encoding) if encoding else b"",
            b"\x20" + _varint(width) if width else b"",
            b"\x28" + _varint(height) if height else b"",
            b"\x32" + _varint(len(payload)) if payload else b"",
        )
    )
    return b"".join((b"\x12", _varint(len(fields) + len(payload)), fields, payload))


def open_request(
    *,
    name: str,
    model: str | None,
    max_in_flight: int,
    deadline_ms: int,
    weight: int,
    score_threshold: float,
    max_detections: int,
) -> bytes:
    """Return StreamFramesRequest{open}; zeros and None leave the choice to the server."""
    return _bytes(
        open=frame_pb2.Open(
            stream_name=name,
            models=[frame_pb2.ModelSelector(name=model)] if model else [],
            drop_policy=frame_pb2.DropPolicy(latest=frame_pb2.LatestPolicy()),
            max_in_flight=max_in_flight,
            deadline_ms=deadline_ms,
            weight=weight,
            result=frame_pb2.ResultOptions(score_threshold=score_threshold, max_detections=max_detections),
        )
    )


def ping_request(nonce: int) -> bytes:
    """Return StreamFramesRequest{ping}."""
    return _bytes(ping=frame_pb2.Ping(nonce=nonce))


def end_request() -> bytes:
    """Return StreamFramesRequest{end}."""
    return _bytes(end=frame_pb2.End())


def _bytes(**fields: Any) -> bytes:
    request: bytes = frame_pb2.StreamFramesRequest(**fields).SerializeToString()
    return request


def opened(message: frame_pb2.Opened) -> Opened:
    """Translate Opened."""
    return Opened(
        stream_id=message.stream_id,
        max_in_flight=message.max_in_flight,
        frames_allowed=message.frames_allowed,
        deadline_ms=message.deadline_ms,
        weight=message.weight,
        models=tuple(
            ModelInfo(
                name=model.name,
                version=model.version,
                generation=model.generation,
                digest=model.digest,
                labels=tuple(model.labels),
                backend=model.backend,
                input_width=model.input_width,
                input_height=model.input_height,
            )
            for model in message.models
        ),
        max_frame_bytes=message.limits.max_frame_bytes,
        max_frame_pixels=message.limits.max_frame_pixels,
    )


def result(
    message: frame_pb2.Result, *, labels: Sequence[tuple[str, ...]], age_s: float, round_trip_s: float
) -> Result:
    """Translate Result; `labels` holds the labels of each output's model, in order."""
    stamp, timings = message.capture_time, message.timings
    return Result(
        frame_id=message.frame_id,
        capture_time_ns=stamp.seconds * _NS + stamp.nanos,
        age_s=age_s,
        round_trip_s=round_trip_s,
        source_width=message.source_width,
        source_height=message.source_height,
        outputs=tuple(
            _output(output, labels[index] if index < len(labels) else ())
            for index, output in enumerate(message.outputs)
        ),
        batch_size=message.batch_size,
        deadline_missed=message.deadline_missed,
        timings=Timings(
            timings.waited_us,
            timings.decoded_us,
            timings.batched_us,
            timings.executed_us,
            timings.postprocessed_us,
        ),
    )


def _output(message: frame_pb2.Output, labels: tuple[str, ...]) -> Output:
    known = len(labels)
    return Output(
        model=message.model,
        version=message.version,
        generation=message.generation,
        backend=message.backend,
        detections=tuple(
            Detection(
                box.x1,
                box.y1,
                box.x2,
                box.y2,
                box.score,
                (class_id := box.class_id),
                labels[class_id] if class_id < known else str(class_id),
            )
            for box in message.detections.detections
        ),
    )


def dropped(message: frame_pb2.Dropped) -> Dropped:
    """Translate Dropped."""
    return Dropped(message.first_frame_id, message.last_frame_id, _drop_counts(message.counts))


def frame_error(message: frame_pb2.FrameError) -> FrameError:
    """Translate FrameError."""
    return FrameError(message.frame_id, _name(_ERROR_CODES, message.code), message.detail)


def notice(message: frame_pb2.Notice) -> Notice:
    """Translate Notice."""
    return Notice(
        kind=_name(_NOTICES, message.kind),
        detail=message.detail,
        grace_ms=message.grace_ms,
        first_frame_id=message.first_frame_id,
        generation=message.generation,
        model=message.model,
    )


def closed(message: frame_pb2.Closed) -> Closed:
    """Translate Closed."""
    ledger = message.ledger
    return Closed(
        ledger=Ledger(ledger.received, ledger.results, _drop_counts(ledger.drops), ledger.errors),
        reason=_name(_CLOSE_REASONS, message.reason),
        detail=message.detail,
    )


def _drop_counts(messages: Sequence[frame_pb2.DropCount]) -> tuple[DropCount, ...]:
    return tuple(
        DropCount(_name(_DROP_REASONS, drop.reason), _name(_DROP_STAGES, drop.stage), drop.count) for drop in messages
    )


def _name(names: dict[int, str], number: int) -> str:
    """Return the short name of an enum value; one that a newer server knows and we do not becomes its number."""
    return names.get(number) or f"UNKNOWN_{number}"


def _short(values: dict[str, int], prefix: str) -> dict[int, str]:
    return {number: name.removeprefix(prefix) for name, number in values.items()}


_DROP_REASONS = _short(dict(frame_pb2.DropReason.items()), "DROP_REASON_")
_DROP_STAGES = _short(dict(frame_pb2.DropStage.items()), "DROP_STAGE_")
_ERROR_CODES = _short(dict(frame_pb2.FrameErrorCode.items()), "FRAME_ERROR_CODE_")
_CLOSE_REASONS = _short(dict(frame_pb2.CloseReason.items()), "CLOSE_REASON_")
_NOTICES = _short(dict(frame_pb2.Notice.Kind.items()), "KIND_")
