"""The only tables from reasons of this server to gRPC status codes."""

from __future__ import annotations

from typing import Literal

import grpc

from headworks_server.core.events import CloseKind
from headworks_server.core.outcomes import DropReason, FrameErrorCode

RefusalKind = Literal[
    "invalid_argument", "not_found", "failed_precondition", "resource_exhausted", "unavailable", "unimplemented"
]

STATUS: dict[CloseKind | RefusalKind, grpc.StatusCode] = {
    "ok": grpc.StatusCode.OK,
    "invalid_argument": grpc.StatusCode.INVALID_ARGUMENT,
    "not_found": grpc.StatusCode.NOT_FOUND,
    "failed_precondition": grpc.StatusCode.FAILED_PRECONDITION,
    "resource_exhausted": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "unimplemented": grpc.StatusCode.UNIMPLEMENTED,
    "idle_timeout": grpc.StatusCode.DEADLINE_EXCEEDED,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
    "cancelled": grpc.StatusCode.CANCELLED,
}

# What an InferFrame ends with in the place of an answer; on a stream these are outcomes of a frame, and no status.

ERROR_STATUS: dict[FrameErrorCode, grpc.StatusCode] = {
    FrameErrorCode.UNDECODABLE: grpc.StatusCode.INVALID_ARGUMENT,
    # Not RESOURCE_EXHAUSTED, which clients send again: the same picture never fits.
    FrameErrorCode.TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    FrameErrorCode.UNSUPPORTED: grpc.StatusCode.INVALID_ARGUMENT,
    FrameErrorCode.ENGINE_FAILED: grpc.StatusCode.INTERNAL,
}

DROP_STATUS: dict[DropReason, tuple[grpc.StatusCode, str]] = {
    DropReason.QUEUE_FULL: (grpc.StatusCode.RESOURCE_EXHAUSTED, "the server's budget of waiting bytes is full"),
    DropReason.DEADLINE: (grpc.StatusCode.DEADLINE_EXCEEDED, "the frame could not be served within the deadline"),
    DropReason.MODEL_LOADING: (grpc.StatusCode.UNAVAILABLE, "the model is being loaded"),
    DropReason.DRAINING: (grpc.StatusCode.UNAVAILABLE, "the server is shutting down"),
    DropReason.CANCELLED: (grpc.StatusCode.UNAVAILABLE, "the server has stopped"),
}
