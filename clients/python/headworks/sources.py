"""Where `headworks stream` takes its frames from: a picture, a folder of pictures, or a video file.

JPEG and PNG files are sent as they are. Everything else needs OpenCV, from the extra `images`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENCODED = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}
OTHER_PICTURES = {".bmp", ".tif", ".tiff", ".webp"}
JPEG_QUALITY = 90
DEFAULT_FPS = 30.0


class SourceError(Exception):
    """The source cannot be read; the message says why, for people."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame of a source, ready for `FrameStream.send`."""

    data: bytes
    encoding: str


@dataclass(frozen=True, slots=True)
class Source:
    """Frames and the rate they were made for."""

    frames: Iterator[Picture]
    fps: float


def open_source(path: Path) -> Source:
    """Open a picture, a folder of pictures, or a video file.

    Raises:
        SourceError: it does not exist, holds nothing, or needs OpenCV where there is none.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in ENCODED.keys() | OTHER_PICTURES)
        if not files:
            raise SourceError(f"{path}: no pictures in this folder")
        return Source((_read_picture(file) for file in files), DEFAULT_FPS)
    if not path.is_file():
        raise SourceError(f"{path}: no such file or folder")
    if path.suffix.lower() in ENCODED.keys() | OTHER_PICTURES:
        return Source(iter([_read_picture(path)]), DEFAULT_FPS)
    return _open_video(path)


def _read_picture(path: Path) -> Picture:
    encoding = ENCODED.get(path.suffix.lower())
    if encoding is not None:
        return Picture(path.read_bytes(), encoding)
    pixels = _opencv(path).imread(str(path))
    if pixels is None:
        raise SourceError(f"{path}: OpenCV cannot read this picture")
    return _encode(pixels)


def _open_video(path: Path) -> Source:
    cv2 = _opencv(path)
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise SourceError(f"{path}: OpenCV cannot open this video")

    def frames() -> Iterator[Picture]:
        try:
            while True:
                more, pixels = capture.read()
                if not more:
                    return
                yield _encode(pixels)
        finally:
            capture.release()

    return Source(frames(), capture.get(cv2.CAP_PROP_FPS) or DEFAULT_FPS)


def _encode(pixels: Any) -> Picture:
    cv2 = _opencv(None)
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise SourceError("OpenCV cannot encode a frame as JPEG")
    return Picture(data.tobytes(), "jpeg")


def _opencv(path: Path | None) -> Any:
    try:
        import cv2
    except ImportError as error:
        raise SourceError(
            f"{path}: this needs OpenCV, which is not installed; install it with: pip install 'headworks[images]' "
            "(folders of JPEG and PNG files work without it)"
        ) from error
    return cv2
