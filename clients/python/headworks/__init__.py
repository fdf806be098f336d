"""Streams camera frames to a Headworks server and tells what became of every one.

with headworks.Client("127.0.0.1:50051") as client, client.stream(on_result=print) as stream:
    for jpeg in camera:
        stream.send(jpeg)
"""

from headworks.account import Account
from headworks.client import Client
from headworks.errors import (
    ConnectionFailedError,
    HeadworksError,
    ProtocolError,
    StreamBrokenError,
    StreamRefusedError,
)
from headworks.outcomes import (
    Closed,
    Detection,
    DropCount,
    Dropped,
    FrameError,
    Ledger,
    ModelInfo,
    Notice,
    Opened,
    Outcome,
    Output,
    Result,
    Timings,
)
from headworks.stream import FrameStream

__version__ = "0.1.0"

__all__ = [
    "Account",
    "Client",
    "Closed",
    "ConnectionFailedError",
    "Detection",
    "DropCount",
    "Dropped",
    "FrameError",
    "FrameStream",
    "HeadworksError",
    "Ledger",
    "ModelInfo",
    "Notice",
    "Opened",
    "Outcome",
    "Output",
    "ProtocolError",
    "Result",
    "StreamBrokenError",
    "StreamRefusedError",
    "Timings",
    "__version__",
]
