"""What an application gives to `send` or `infer`, made into a payload with its encoding and size, or refused.

Used by both clients' streams and by `infer`. No numpy: any object with a buffer will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headworks import codec
from headworks.v1 import frame_pb2

MAX_MESSAGE_BYTES = 32 << 20
"""Of one gRPC message: twice the server's default limit of a frame, which answers a larger one with a FrameError."""
HEADER_BYTES = 1024
"""More than the fields beside a picture take: under 64 bytes in a Frame, a model's name more in `infer`."""

# Bytes of four pixels. The chroma planes of nv12 and i420 are half as wide and half as high.
_RAW = {"bgr24": 12, "rgb24": 12, "gray8": 4, "nv12": 6, "i420": 6}
_HALVED = ("nv12", "i420")


@dataclass(frozen=True, slots=True)
class Picture:
    """A payload in memory that nobody else writes to, the proto's number of its encoding, and its size in pixels."""

    payload: bytes
    encoding: frame_pb2.Encoding
    width: int
    height: int


def as_picture(data: Any, *, encoding: str | None, width: int, height: int, max_frame_bytes: int = 0) -> Picture:
    """Return what is to be sent.

    Args:
        data: bytes, or a buffer, of an encoded picture or raw pixels; or an array of uint8: [height, width, 3],
            [height, width], or for nv12 and i420 [height * 3 / 2, width].
        encoding: None for "jpeg", or what the shape of an array says: "bgr24" or "gray8".
        width: pixels; needed for raw pixels that are no array.
        height: pixels; the same.
        max_frame_bytes: the server's limit, 0 where it is not known. The server answers up to twice of it with a
            FrameError; more would end the call.

    Raises:
        ValueError: it makes no sense, or does not fit into a message.
    """
    if isinstance(data, bytes):
        payload = data
    else:
        view = memoryview(data)
        if view.ndim > 1:
            encoding, width, height = _describe(view, encoding)
        # A camera reuses its buffer: what is sent later must be what was given now.
        payload = view.tobytes()
    encoding = encoding or "jpeg"
    number = codec.ENCODINGS.get(encoding)
    if number is None:
        raise ValueError(f"encoding {encoding!r}: expected one of {', '.join(codec.ENCODINGS)}")
    if encoding in _RAW:
        _check_raw(payload, encoding, width, height)
    limit = min(2 * max_frame_bytes or MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES) - HEADER_BYTES
    if len(payload) > limit:
        raise ValueError(f"frame of {len(payload):,} bytes: at most {limit:,} fit into a message")
    return Picture(payload, number, width, height)


def _describe(view: memoryview, encoding: str | None) -> tuple[str, int, int]:
    """Return (encoding, width, height) of an array."""
    shape = view.shape or ()
    place = f"array of format {view.format!r}, shape {shape}"
    colour = len(shape) == 3 and shape[2] == 3
    grey = len(shape) == 2 or (len(shape) == 3 and shape[2] == 1)
    if view.format != "B" or not (colour or grey):
        raise ValueError(f"{place}: expected uint8 [height, width, 3] or [height, width]")
    if encoding is None:
        encoding = "bgr24" if colour else "gray8"
    fitting = ("bgr24", "rgb24") if colour else ("gray8", *_HALVED)
    if encoding not in fitting:
        raise ValueError(f"{place}: expected encoding {' or '.join(fitting)}, got {encoding!r}")
    height, width = shape[0], shape[1]
    # The luma plane is two thirds of the rows.
    return encoding, width, height * 2 // 3 if encoding in _HALVED else height


def _check_raw(payload: bytes, encoding: str, width: int, height: int) -> None:
    if encoding in _HALVED and (width % 2 or height % 2):
        raise ValueError(f"{width}x{height} {encoding}: expected an even width and height, its chroma has half of each")
    expected = width * height * _RAW[encoding] // 4
    if width <= 0 or height <= 0 or len(payload) != expected:
        raise ValueError(f"{width}x{height} {encoding}: expected {expected:,} bytes; got {len(payload):,}")
