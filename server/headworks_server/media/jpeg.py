"""Reads what a JPEG says of itself by walking its markers, without decoding. Called by `image`.

The walk sees the markers that libjpeg would see, in the same order, so that its counts bound the work of the decode:
segments are skipped by their length (a thumbnail inside APPn is never looked at), and after the first scan of a
picture of several scans the entropy-coded data are searched for the next marker. A sequential picture whose first scan
carries all components ends there: libjpeg refuses any further scan of it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from headworks_server.errors import FrameRejectedError
from headworks_server.media.bounds import PictureHeader, PictureLimits, check_size, too_large, undecodable, unsupported

# Marker codes, the byte after 0xFF.
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_DHT, _JPG, _DAC = 0xC4, 0xC8, 0xCC
_RST0, _EOI, _SOS, _DNL = 0xD0, 0xD9, 0xDA, 0xDC

# Metadata come in pieces of up to 64 KB: 16 MB hold 256 full ones; beside them a file has a few dozen segments.
MAX_SEGMENTS: Final = 1024
# Fill bytes (0xFF) may stand before a marker; encoders align with a few.
_MAX_FILL: Final = 64


def read_header(data: memoryview, limits: PictureLimits) -> PictureHeader:
    """Return size, components and scans of a JPEG that starts with FF D8.

    Raises:
        FrameRejectedError: UNDECODABLE where the markers make no picture, UNSUPPORTED for lossless, arithmetic, 12-bit
            and CMYK files, TOO_LARGE over `limits`.
    """
    frame: PictureHeader | None = None
    sequential = False
    position = 2
    try:
        for _ in range(MAX_SEGMENTS):
            if data[position] != 0xFF:
                raise undecodable(f"expected a JPEG marker at byte {position:,}, got {data[position]:02X}")
            code = data[position + 1]
            if code == 0xFF:
                position = _skip_fill(data, position)
                code = data[position + 1]
            is_size = _is_size(code)
            if not is_size:
                _check_segment(code, position)
            length = data[position + 2] << 8 | data[position + 3]
            if code == _SOS:
                if frame is None:
                    raise undecodable("expected the picture's size (SOF) before its first scan, got none")
                if sequential and data[position + 4] == frame.components:
                    return frame
                return _count_scans(data, position, frame, limits)
            if is_size:
                if frame is not None:
                    raise undecodable("expected one size (SOF), got two")
                frame = _read_frame(data, position, code, length, limits)
                sequential = code != _PROGRESSIVE
            if length < 2:
                raise undecodable(f"expected a segment of at least 2 bytes at byte {position:,}, got {length}")
            position += 2 + length
    except IndexError:
        raise _truncated(data) from None
    raise too_large(f"expected at most {MAX_SEGMENTS:,} segments before the first scan, got more")


def _read_frame(data: memoryview, position: int, code: int, length: int, limits: PictureLimits) -> PictureHeader:
    """Return what the frame header (SOF) at `position` says."""
    if code not in (_BASELINE, _EXTENDED, _PROGRESSIVE):
        coding = "arithmetic" if code > _JPG else "lossless or hierarchical"
        raise unsupported(f"expected a baseline, extended or progressive JPEG, got {coding} coding (SOF{code & 15})")
    precision, components = data[position + 4], data[position + 9]
    height = data[position + 5] << 8 | data[position + 6]
    width = data[position + 7] << 8 | data[position + 8]
    if precision != 8:
        raise unsupported(f"expected a JPEG of 8 bits a sample, got {precision} bits")
    if components == 4:
        raise unsupported("expected a grey or colour JPEG, got 4 components (CMYK or YCCK)")
    if components not in (1, 3):
        raise unsupported(f"expected a JPEG of 1 or 3 components, got {components}")
    if length != 8 + 3 * components:
        raise undecodable(f"expected a frame header of {8 + 3 * components} bytes, got {length}")
    if height == 0 and width > 0:
        raise unsupported(
            "expected the height in the frame header, got a JPEG that tells it after the first scan (DNL)"
        )
    check_size(width, height, limits)
    return PictureHeader(width, height, components)


def _count_scans(data: memoryview, first_scan: int, frame: PictureHeader, limits: PictureLimits) -> PictureHeader:
    """Count the scans of a picture of several scans, from its first SOS marker to its end marker."""
    tail = np.frombuffer(data, np.uint8)[first_scan:]
    codes = tail[1:]
    # FF 00 is a stuffed byte, FF FF is fill, codes under C0 carry no segment; FF D0-D7 are restarts.
    markers = np.flatnonzero((tail[:-1] == 0xFF) & (codes >= 0xC0) & (codes < 0xFF))
    markers = markers[(codes[markers] & 0xF8) != _RST0]
    scans = 0
    offset = 0
    for _ in range(MAX_SEGMENTS):
        index = int(np.searchsorted(markers, offset))
        if index == len(markers):
            raise _truncated(data)
        position = first_scan + int(markers[index])
        code = data[position + 1]
        if code == _EOI:
            return PictureHeader(frame.width, frame.height, frame.components, scans=scans)
        _check_segment(code, position)
        if _is_size(code):
            raise undecodable("expected one size (SOF), got two")
        scans += code == _SOS
        if scans > limits.max_scans:
            raise too_large(f"expected a JPEG of at most {limits.max_scans} scans, got more")
        if position + 4 > len(data):
            raise _truncated(data)
        offset = position - first_scan + 2 + (data[position + 2] << 8 | data[position + 3])
    raise too_large(f"expected at most {MAX_SEGMENTS:,} segments after the first scan, got more")


def _is_size(code: int) -> bool:
    """Whether the marker is one of the SOFs, which tell size and coding."""
    return 0xC0 <= code <= 0xCF and code not in (_DHT, _JPG, _DAC)


def _check_segment(code: int, position: int) -> None:
    """Refuse the markers that no picture has at this place."""
    if code == _DNL:
        raise unsupported("expected the height in the frame header, got one told after the first scan (DNL)")
    if code < 0xC0 or _RST0 <= code <= _EOI:
        raise undecodable(f"expected a JPEG segment at byte {position:,}, got marker {code:02X}")


def _skip_fill(data: memoryview, position: int) -> int:
    """Return where the last of the fill bytes at `position` stands, which begins a marker."""
    for skipped in range(1, _MAX_FILL):
        if data[position + skipped + 1] != 0xFF:
            return position + skipped
    raise undecodable(f"expected a JPEG marker at byte {position:,}, got more than {_MAX_FILL} fill bytes")


def _truncated(data: memoryview) -> FrameRejectedError:
    return undecodable(f"expected a whole JPEG file, got {len(data):,} bytes that end before its end marker")
