"""What the end of a call means at that point of its stream's life. Used by the transports of both clients."""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError

from headworks.errors import (
    ConnectionFailedError,
    HeadworksError,
    ProtocolError,
    StreamBrokenError,
    StreamRefusedError,
)
from headworks.session import ClientSession


def of_status(name: str, session: ClientSession, error: grpc.RpcError) -> HeadworksError:
    """Translate a gRPC status other than OK; `name` is the stream's."""
    code, detail = error.code(), error.details() or "no reason was given"
    if session.opened is not None:
        return StreamBrokenError(name, code.name, detail, session.closed)
    if code is grpc.StatusCode.UNAVAILABLE:
        return ConnectionFailedError(session.target, detail)
    return StreamRefusedError(session.target, code.name, detail)


def of_ok(name: str, session: ClientSession) -> HeadworksError | None:
    """Say what is wrong with a call that ended with the status OK, if anything."""
    if session.closed is not None:
        return None
    detail = "the server ended the call without Closed"
    if session.opened is not None:
        return StreamBrokenError(name, "OK", detail)
    return StreamRefusedError(session.target, "OK", detail)


def of_message(error: DecodeError) -> ProtocolError:
    """Translate protobuf's own error."""
    return ProtocolError(f"the server sent a message that is no StreamFramesResponse: {error}")


def of_silence(name: str, session: ClientSession) -> HeadworksError:
    """Say what a server that `is_dead` has not done."""
    if session.opened is None:
        return ConnectionFailedError(session.target, session.silence())
    return StreamBrokenError(name, "UNAVAILABLE", session.silence())


def spoils_channel(failure: HeadworksError | None, session: ClientSession) -> bool:
    """Tell whether the next call should have a channel of its own: this one leads to a server that is gone or goes."""
    return session.draining or getattr(failure, "code", "") in ("UNAVAILABLE", "CANCELLED")
