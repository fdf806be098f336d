"""The errors of the client: one family, raised by `Client` and `FrameStream`. Messages say where and what was expected.

A frame that fails is no exception but an outcome (`headworks.FrameError`): its stream goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headworks.outcomes import Closed


class HeadworksError(Exception):
    """Base of all errors this package raises on purpose."""


class ConnectionFailedError(HeadworksError, ConnectionError):
    """No stream could be opened because nobody answered.

    Attributes:
        target: the address that was tried.
        detail: what happened instead.
    """

    code = "UNAVAILABLE"

    def __init__(self, target: str, detail: str) -> None:
        super().__init__(f"cannot reach {target}: {detail}; is the server running? Start one with: headworks serve DIR")
        self.target = target
        self.detail = detail


class StreamRefusedError(HeadworksError):
    """The server answered, and refused the stream.

    Attributes:
        code: name of the gRPC status, such as "NOT_FOUND".
        detail: the server's reason.

    Raised where a stream is opened, and later where it could not be opened again.
    """

    def __init__(self, target: str, code: str, detail: str) -> None:
        super().__init__(f"{target} refused the stream: {code}: {detail}")
        self.code = code
        self.detail = detail


class StreamBrokenError(HeadworksError):
    """An open stream ended otherwise than by its own End.

    Attributes:
        code: name of the gRPC status, such as "UNAVAILABLE".
        detail: what happened.
        closed: the server's last word with its ledger, or None where the stream was cut.
    """

    def __init__(self, name: str, code: str, detail: str, closed: Closed | None = None) -> None:
        super().__init__(f"stream {name!r} broke: {code}: {detail}")
        self.code = code
        self.detail = detail
        self.closed = closed


class InferFailedError(HeadworksError):
    """`Client.infer` got no result.

    Attributes:
        code: name of the gRPC status, such as "NOT_FOUND"; "DEADLINE_EXCEEDED" where it took too long.
        detail: the server's reason.
    """

    def __init__(self, target: str, code: str, detail: str) -> None:
        super().__init__(f"{target} gave no result: {code}: {detail}")
        self.code = code
        self.detail = detail


class CredentialsError(HeadworksError):
    """A file with a certificate, a key or a token cannot be used; the message names it."""


class ProtocolError(HeadworksError):
    """The server said something that the contract does not allow at this point."""


PERMANENT = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"})
"""Statuses that the same request will meet again, however often it is tried."""


def is_permanent(error: HeadworksError) -> bool:
    """Tell whether it is no use to open the stream again."""
    return isinstance(error, ProtocolError) or getattr(error, "code", "") in PERMANENT
