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

    def __init__(self, target: str, detail: str) -> None:
        super().__init__(f"cannot reach {target}: {detail}; is the server running? Start one with: headworks serve DIR")
        self.target = target
        self.detail = detail


class StreamRefusedError(HeadworksError):
    """The server answered, and refused the stream.

    Attributes:
        code: name of the gRPC status, such as "NOT_FOUND".
        detail: the server's reason.
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


class ProtocolError(HeadworksError):
    """The server said something that the contract does not allow at this point."""
