"""Between bytes, protobuf and the typed world: requests out, events in. Used by sessions and clients, owns nothing.

A frame's request is built by hand, one small header before the payload, so that the payload is copied exactly
once; the bytes equal what protobuf would have written. Everything else goes through protobuf.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from headworks.errors import ProtocolError
from headworks.outcomes import (
    Classification,
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
    Tensor,
    Timings,
)
from headworks.policy import Policy
from headworks.v1 import frame_pb2

Labels: TypeAlias = Mapping[tuple[str, int], tuple[str, ...]]
"""Class names by class id, of each model and generation."""
ENCODINGS: dict[str, Any] = {
    name.removeprefix("ENCODING_").lower(): number for name, number in frame_pb2.Encoding.items() if number != 0
}
FORMS: dict[str, Any] = {
    name.removeprefix("FORM_").lower(): number for name, number in frame_pb2.ResultOptions.Form.items() if number != 0
}

_NS = 1_000_000_000
# The Open Inference Protocol's names, to kind and bytes of an element. It has more, which numpy has not.
_NUMPY_TYPES = {"BOOL": "b1", "FP16": "f2", "FP32": "f4", "FP64": "f8"} | {
    f"{name}{size * 8}": f"{kind}{size}" for name, kind in (("INT", "i"), ("UINT", "u")) for size in (1, 2, 4, 8)
}


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
    policy: Policy,
    max_in_flight: int,
    deadline_ms: int,
    weight: int,
    max_fps: float,
    result: frame_pb2.ResultOptions | None = None,
) -> bytes:
    """Return StreamFramesRequest{open}; zeros and None leave the choice to the server."""
    return _bytes(
        open=frame_pb2.Open(
            stream_name=name,
            models=[frame_pb2.ModelSelector(name=model)] if model else [],
            drop_policy=_drop_policy(policy),
            max_in_flight=max_in_flight,
            deadline_ms=deadline_ms,
            weight=weight,
            max_fps=max_fps,
            result=result,
        )
    )


def result_options(
    *, form: str | None, score_threshold: float, max_detections: int, top_k: int
) -> frame_pb2.ResultOptions:
    """Return what results are to look like.

    Raises:
        ValueError: there is no such form.
    """
    if form is not None and form not in FORMS:
        raise ValueError(f"form {form!r}: expected one of {', '.join(FORMS)}, or None for the model's own")
    return frame_pb2.ResultOptions(
        form=FORMS.get(form or "", frame_pb2.ResultOptions.FORM_UNSPECIFIED),
        score_threshold=score_threshold,
        max_detections=max_detections,
        top_k=top_k,
    )


def infer_request(
    *,
    model: str | None,
    encoding: frame_pb2.Encoding,
    width: int,
    height: int,
    payload: bytes,
    capture_time_ns: int,
    result: frame_pb2.ResultOptions,
) -> bytes:
    """Return InferFrameRequest; its frame is number 1."""
    frame = frame_pb2.Frame(frame_id=1, encoding=encoding, width=width, height=height, data=payload)
    frame.capture_time.seconds, frame.capture_time.nanos = divmod(capture_time_ns, _NS)
    selector = frame_pb2.ModelSelector(name=model or "")
    request: bytes = frame_pb2.InferFrameRequest(model=selector, frame=frame, result=result).SerializeToString()
    return request


def _drop_policy(policy: Policy) -> frame_pb2.DropPolicy:
    match policy.kind:
        case "bounded":
            bounded = frame_pb2.BoundedPolicy(depth=policy.depth, drop=f"DROP_SIDE_{policy.drop.upper()}")
            return frame_pb2.DropPolicy(bounded=bounded)
        case "every_frame":
            return frame_pb2.DropPolicy(every_frame=frame_pb2.EveryFramePolicy())
        case _:
            return frame_pb2.DropPolicy(latest=frame_pb2.LatestPolicy())


def _policy(message: frame_pb2.DropPolicy) -> Policy:
    if message.WhichOneof("policy") == "bounded":
        newest = message.bounded.drop == frame_pb2.BoundedPolicy.DROP_SIDE_NEWEST
        return Policy("bounded", max(1, message.bounded.depth), "newest" if newest else "oldest")
    return Policy(message.WhichOneof("policy") or "latest")


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
        models=tuple(map(_model_info, message.models)),
        max_frame_bytes=message.limits.max_frame_bytes,
        max_frame_pixels=message.limits.max_frame_pixels,
        policy=_policy(message.drop_policy),
    )


def _model_info(message: frame_pb2.ModelInfo) -> ModelInfo:
    return ModelInfo(
        name=message.name,
        version=message.version,
        generation=message.generation,
        digest=message.digest,
        labels=tuple(message.labels),
        backend=message.backend,
        input_width=message.input_width,
        input_height=message.input_height,
    )


def result(message: frame_pb2.Result, *, labels: Labels, age_s: float, round_trip_s: float) -> Result:
    """Translate Result; `labels` holds the labels of each model and generation that may have made it."""
    stamp, timings = message.capture_time, message.timings
    return Result(
        frame_id=message.frame_id,
        capture_time_ns=stamp.seconds * _NS + stamp.nanos,
        age_s=age_s,
        round_trip_s=round_trip_s,
        source_width=message.source_width,
        source_height=message.source_height,
        outputs=tuple(_output(output, labels.get((output.model, output.generation), ())) for output in message.outputs),
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
    detections: tuple[Detection, ...] = ()
    classifications: tuple[Classification, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    match message.WhichOneof("value"):
        case "detections":
            detections = tuple(
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
            )
        case "classifications":
            classifications = tuple(
                Classification(
                    (class_id := one.class_id), labels[class_id] if class_id < known else str(class_id), one.score
                )
                for one in message.classifications.classifications
            )
        case "raw_tensors":
            tensors = tuple(map(_tensor, message.raw_tensors.tensors))
    return Output(
        model=message.model,
        version=message.version,
        generation=message.generation,
        backend=message.backend,
        detections=detections,
        classifications=classifications,
        tensors=tensors,
    )


def _tensor(message: frame_pb2.RawTensor) -> Tensor:
    shape = tuple(message.shape)
    return Tensor(message.name, message.datatype, shape, _array(message, shape))


def _array(message: frame_pb2.RawTensor, shape: tuple[int, ...]) -> Any:
    """Return the tensor's data as a view of numpy's where there is such a thing, else as bytes."""
    kind, numpy = _NUMPY_TYPES.get(message.datatype), _numpy()
    if kind is None or numpy is None:
        return message.data
    item = int(kind[1:])
    if min(shape, default=1) < 0 or math.prod(shape) * item != len(message.data):
        raise ProtocolError(
            f"tensor {message.name!r}: expected {message.datatype} of shape {list(shape)}, got "
            f"{len(message.data):,} bytes"
        )
    return numpy.frombuffer(message.data, f"<{kind}").reshape(shape)


@functools.cache
def _numpy() -> Any:
    """Return the module numpy, or None where it is not installed; imported when the first tensor comes."""
    try:
        import numpy
    except ImportError:
        return None
    return numpy


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
        model_info=_model_info(message.model_info) if message.HasField("model_info") else None,
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
