"""The closed lists of the contract: why a frame was dropped or failed, how far it came, why a stream closed.

The numbers equal those of `headworks.v1`; a test holds them together. `core` knows no protobuf.
"""

from __future__ import annotations

from enum import IntEnum


class DropReason(IntEnum):
    """Why a frame was dropped."""

    REPLACED_BY_NEWER = 1
    QUEUE_FULL = 2
    DEADLINE = 3
    RATE_LIMIT = 4
    MODEL_LOADING = 5
    OUTBOX_OVERFLOW = 6
    DRAINING = 7
    CANCELLED = 8


class DropStage(IntEnum):
    """How far a dropped frame had come."""

    INGRESS = 1
    BEFORE_DECODE = 2
    BEFORE_BATCH = 3
    AFTER_INFER = 4


class FrameErrorCode(IntEnum):
    """Why a frame failed."""

    UNDECODABLE = 1
    TOO_LARGE = 2
    UNSUPPORTED = 3
    ENGINE_FAILED = 4
    OVER_CREDIT = 5


class CloseReason(IntEnum):
    """Why a stream closed."""

    END = 1
    DRAINED = 2
    IDLE_TIMEOUT = 3
    PROTOCOL_ERROR = 4
    CANCELLED = 5
