"""One picture, one answer: what both clients' `infer` sends and makes of the reply. Owns nothing."""

from __future__ import annotations

from time import time_ns
from typing import Any

import grpc

from headworks import codec
from headworks.errors import ConnectionFailedError, HeadworksError, InferFailedError
from headworks.outcomes import Result
from headworks.picture import as_picture
from headworks.v1 import frame_pb2


def request(
    data: Any,
    *,
    encoding: str | None,
    width: int,
    height: int,
    model: str | None,
    form: str | None,
    score_threshold: float,
    max_detections: int,
    top_k: int,
) -> bytes:
    """Return the InferFrameRequest.

    Raises:
        ValueError: an argument makes no sense.
    """
    picture = as_picture(data, encoding=encoding, width=width, height=height)
    options = codec.result_options(
        form=form, score_threshold=score_threshold, max_detections=max_detections, top_k=top_k
    )
    return codec.infer_request(
        model=model,
        encoding=picture.encoding,
        width=picture.width,
        height=picture.height,
        payload=picture.payload,
        capture_time_ns=time_ns(),
        result=options,
    )


def result(reply: bytes, *, seconds: float) -> Result:
    """Return the Result; there are no labels without an Opened, so a label is the class_id in digits."""
    message = frame_pb2.InferFrameResponse.FromString(reply)
    return codec.result(message.result, labels={}, age_s=seconds, round_trip_s=seconds)


def failure(target: str, error: grpc.RpcError) -> HeadworksError:
    """Translate the status of the call."""
    code, detail = error.code(), error.details() or "no reason was given"
    if code is grpc.StatusCode.UNAVAILABLE:
        return ConnectionFailedError(target, detail)
    return InferFailedError(target, code.name, detail)
