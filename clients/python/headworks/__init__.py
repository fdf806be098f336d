"""Streams camera frames to a Headworks server and tells what became of every one.

with headworks.Client("127.0.0.1:50051") as client, client.stream(on_result=print) as stream:
    for jpeg in camera:
        stream.send(jpeg)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headworks.account import Account, ConnectionAccount
    from headworks.client import Client
    from headworks.errors import (
        ConnectionFailedError,
        CredentialsError,
        HeadworksError,
        InferFailedError,
        ProtocolError,
        StreamBrokenError,
        StreamRefusedError,
    )
    from headworks.outcomes import (
        Classification,
        Closed,
        ConnectionEvent,
        ConnectionLost,
        ConnectionOpened,
        Detection,
        DropCount,
        Dropped,
        FrameError,
        Ledger,
        Lost,
        ModelInfo,
        Notice,
        Opened,
        Outcome,
        Output,
        ReconnectFailed,
        Result,
        Tensor,
        Timings,
    )
    from headworks.policy import Policy
    from headworks.stream import FrameStream
    from headworks.transport import TlsOptions

__version__ = "0.1.0"

__all__ = [
    "Account",
    "Classification",
    "Client",
    "Closed",
    "ConnectionAccount",
    "ConnectionEvent",
    "ConnectionFailedError",
    "ConnectionLost",
    "ConnectionOpened",
    "CredentialsError",
    "Detection",
    "DropCount",
    "Dropped",
    "FrameError",
    "FrameStream",
    "HeadworksError",
    "InferFailedError",
    "Ledger",
    "Lost",
    "ModelInfo",
    "Notice",
    "Opened",
    "Outcome",
    "Output",
    "Policy",
    "ProtocolError",
    "ReconnectFailed",
    "Result",
    "StreamBrokenError",
    "StreamRefusedError",
    "Tensor",
    "Timings",
    "TlsOptions",
    "__version__",
]

_HOMES = ("outcomes", "errors", "account", "policy", "transport", "stream", "client")


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: what `headworks` the command sets for gRPC must come before gRPC."""
    if name in __all__:
        for home in _HOMES:
            found = getattr(import_module(f"headworks.{home}"), name, None)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module 'headworks' has no attribute {name!r}")
