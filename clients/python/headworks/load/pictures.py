"""What a load run sends: pictures from files, or made here, in any encoding that the server takes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from headworks.sources import SourceError, open_source

KEPT = 64
"""Pictures of a source that are kept in memory: two seconds of video, some 20 MB as JPEG."""
MADE = 8
_SIZE = re.compile(r"(?P<width>\d+)x(?P<height>\d+)(:(?P<encoding>\w+))?")
RAW_BYTES = {"bgr24": 3.0, "rgb24": 3.0, "gray8": 1.0, "nv12": 1.5, "i420": 1.5}
FILES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}


@dataclass(frozen=True, slots=True)
class LoadPicture:
    """One picture as `FrameStream.send` takes it."""

    data: bytes
    encoding: str
    width: int = 0
    height: int = 0


def load_pictures(what: str) -> list[LoadPicture]:
    """Read pictures from a source, or make them where `what` is WIDTHxHEIGHT[:ENCODING].

    Raises:
        SourceError: the source cannot be read, or the size or encoding makes no sense.
    """
    size = _SIZE.fullmatch(what)
    if size is not None:
        return _make(int(size["width"]), int(size["height"]), size["encoding"] or "jpeg")
    source = open_source(what)
    pictures = []
    for picture in source.frames():
        pictures.append(LoadPicture(picture.data, picture.encoding))
        if len(pictures) == KEPT:
            break
    return pictures


def _make(width: int, height: int, encoding: str) -> list[LoadPicture]:
    """Make pictures that compress as a camera's do: smooth shapes under fine noise, moving from one to the next."""
    if not (16 <= width <= 7680 and 16 <= height <= 4320 and width % 2 == height % 2 == 0):
        raise SourceError(f"{width}x{height}: expected even sides from 16x16 to 7680x4320")
    if encoding in RAW_BYTES:
        # What raw pixels show costs nothing: no OpenCV is needed.
        size = int(width * height * RAW_BYTES[encoding])
        ramp = bytes(range(16, 236))
        return [
            LoadPicture((ramp[shift:] + ramp * (size // len(ramp) + 1))[:size], encoding, width, height)
            for shift in range(MADE)
        ]
    if encoding not in FILES:
        raise SourceError(f"{width}x{height}:{encoding}: expected one of {', '.join([*FILES, *RAW_BYTES])}")
    try:
        import cv2
        import numpy as np
    except ImportError as error:
        raise SourceError(
            f"{width}x{height}:{encoding}: making pictures needs OpenCV: pip install 'headworks[images]', or send files"
        ) from error
    return [
        LoadPicture(_encode(cv2, _scene(cv2, np, width, height, number), encoding), encoding) for number in range(MADE)
    ]


def _scene(cv2: Any, np: Any, width: int, height: int, number: int) -> Any:
    random = np.random.default_rng(7)
    coarse = random.integers(40, 200, (max(2, height // 60), max(2, width // 60), 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(24):
        x, y = random.integers(0, width), random.integers(0, height)
        colour = tuple(int(part) for part in random.integers(0, 255, 3))
        centre = (int(x + number * width // 200) % width, int(y))
        cv2.ellipse(pixels, centre, (max(2, width // 60), max(3, height // 18)), 0, 0, 360, colour, -1)
    noise = np.random.default_rng(number).normal(0, 4, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def _encode(cv2: Any, pixels: Any, encoding: str) -> bytes:
    quality = {"jpeg": [cv2.IMWRITE_JPEG_QUALITY, 80], "webp": [cv2.IMWRITE_WEBP_QUALITY, 80]}.get(encoding, [])
    done, data = cv2.imencode(FILES[encoding], pixels, quality)
    if not done:
        raise SourceError(f"OpenCV cannot encode {encoding}")
    encoded: bytes = data.tobytes()
    return encoded
