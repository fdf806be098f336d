"""A camera below gRPC: HTTP/2 by hand over a plain socket, for what no gRPC library can be made to do.

Used by the fault tests: it stops in the middle of a message, and its connection breaks without a word.
"""

from __future__ import annotations

import socket
import struct

from headworks.v1 import frame_pb2 as pb

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_HEADERS = 4


class TornCamera:
    """A call of StreamFrames on its own connection; what the server says is not read."""

    def __init__(self, target: str) -> None:
        host, port = target.split(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.sendall(PREFACE)
        self._send(SETTINGS, stream=0)
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": "/headworks.v1.FrameService/StreamFrames",
            ":authority": target,
            "content-type": "application/grpc",
            "te": "trailers",
        }
        self._send(HEADERS, b"".join(map(_literal, headers, headers.values())), flags=END_HEADERS)

    def send(self, request: pb.StreamFramesRequest, *, missing: int = 0) -> None:
        """Send a message, but for its last `missing` bytes."""
        message = request.SerializeToString()
        whole = struct.pack(">BI", 0, len(message)) + message
        self._send(DATA, whole[: len(whole) - missing])

    def tear(self, *, reset: bool) -> None:
        """Break the connection: by a TCP reset, as a machine that went away, or by an orderly end."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _send(self, kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 1) -> None:
        self._socket.sendall(struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload)


def _literal(name: str, value: str) -> bytes:
    """A header field as HPACK's literal without indexing; both strings are shorter than 127 bytes."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
