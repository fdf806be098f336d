"""The only table from reasons of this server to gRPC status codes."""

from __future__ import annotations

from typing import Literal

import grpc

from headworks_server.core.events import CloseKind

RefusalKind = Literal["invalid_argument", "not_found", "resource_exhausted", "unavailable", "unimplemented"]

STATUS: dict[CloseKind | RefusalKind, grpc.StatusCode] = {
    "ok": grpc.StatusCode.OK,
    "invalid_argument": grpc.StatusCode.INVALID_ARGUMENT,
    "not_found": grpc.StatusCode.NOT_FOUND,
    "resource_exhausted": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "unimplemented": grpc.StatusCode.UNIMPLEMENTED,
    "idle_timeout": grpc.StatusCode.DEADLINE_EXCEEDED,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
    "cancelled": grpc.StatusCode.CANCELLED,
}
