"""The error family of the server. Reasons are API; wording is free to improve.

`rpc/status.py` is the only table from these to gRPC status codes.
"""

from __future__ import annotations

from headworks_server.core.outcomes import FrameErrorCode


class ServerError(Exception):
    """Base of all errors this server raises on purpose."""


class ConfigError(ServerError, ValueError):
    """A setting is missing, unknown or out of range."""


class ModelError(ServerError):
    """A model file cannot be served: the message names the file, what was expected and what was found."""


class FrameRejectedError(ServerError, ValueError):
    """One frame cannot be served; its stream goes on.

    Attributes:
        code: why, as told to the client.
        detail: what was expected and what came, as told to the client.
    """

    def __init__(self, code: FrameErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class EngineError(ServerError):
    """A batch could not be executed."""


class PlanError(ServerError):
    """A prepared model could not be made, kept or read: the message names the file, what was expected and the fact."""


class PreparationError(PlanError):
    """The process that prepares a model did not come to an end that can be used; serving is not touched.

    Attributes:
        reason: `failed` in its own words, `died`, `garbled` what it says, `timeout`, `cancelled`, or `too_large`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
