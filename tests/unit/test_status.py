"""The tables from reasons to gRPC statuses leave none out that can happen."""

from __future__ import annotations

import grpc

from headworks_server.core.outcomes import DropReason, FrameErrorCode
from headworks_server.rpc.status import DROP_STATUS, ERROR_STATUS


def test_every_outcome_of_a_single_image_has_a_status() -> None:
    """All but those of a stream: credit, a newer frame, a rate, and a client that reads too slowly."""
    assert set(FrameErrorCode) - set(ERROR_STATUS) == {FrameErrorCode.OVER_CREDIT}
    assert set(DropReason) - set(DROP_STATUS) == {
        DropReason.REPLACED_BY_NEWER,
        DropReason.RATE_LIMIT,
        DropReason.OUTBOX_OVERFLOW,
    }


def test_only_what_may_succeed_later_looks_like_it() -> None:
    """Clients send UNAVAILABLE and RESOURCE_EXHAUSTED again: a picture that is wrong must not look like either."""
    wrong = {FrameErrorCode.UNDECODABLE, FrameErrorCode.TOO_LARGE, FrameErrorCode.UNSUPPORTED}
    assert {ERROR_STATUS[code] for code in wrong} == {grpc.StatusCode.INVALID_ARGUMENT}
