"""Where frames come from: a picture, a folder of pictures, a video file, a camera of this machine, an RTSP or HTTP URL.

`headworks stream` and `headworks load` open them; an application may too. JPEG, PNG and WebP files are sent as they
are. Everything else goes through OpenCV, from the extra `images`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

ENCODED = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}
OTHER_PICTURES = {".bmp", ".tif", ".tiff"}
JPEG_QUALITY = 90
DEFAULT_FPS = 30.0
OPEN_TIMEOUT_MS = 5_000
READ_TIMEOUT_MS = 5_000
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_SECRET = re.compile(r"(?<=//)[^/@]*@")
SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")


class SourceError(Exception):
    """The source cannot be read; the message says why, for people."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame of a source, ready for `FrameStream.send`."""

    data: bytes
    encoding: str


class Source(Protocol):
    """A source of frames.

    Attributes:
        name: what it was called by, without a password.
        live: frames come at their own pace, and stopping is a fault; else they are read as fast as one likes.
        fps: the rate the frames were made for, as far as it is known.
    """

    name: str
    live: bool
    fps: float

    def frames(self) -> Iterator[Picture]:
        """Open the source and yield its frames from the beginning; closing the iterator closes the source.

        Raises:
            SourceError: it cannot be opened, or fails on the way.
        """
        ...


def open_source(what: str | Path) -> Source:
    """Name a source: a path, the number of a camera of this machine, or a URL. It is opened by `frames`.

    Raises:
        SourceError: there is no such file or folder, a folder holds no picture, a file is no video, or OpenCV is
            needed and missing.
    """
    text = str(what)
    url = _URL.match(text)
    if url is not None:
        if url["scheme"].lower() not in SCHEMES:
            raise SourceError(f"{text}: expected a URL of {', '.join(SCHEMES)}, got {url['scheme']!r}")
        return VideoSource(text, live=True)
    if text.isascii() and text.isdecimal() and not Path(text).exists():
        return VideoSource(int(text), live=True)
    path = Path(what)
    if path.is_dir():
        return PictureSource(path, _pictures_in(path))
    if not path.is_file():
        raise SourceError(f"{path}: no such file or folder, no URL, and no number of a camera")
    if path.suffix.lower() in ENCODED.keys() | OTHER_PICTURES:
        return PictureSource(path, [path])
    return VideoSource(text, live=False)


class PictureSource:
    """A picture, or a folder of pictures in the order of their names; see `Source`."""

    live = False
    fps = DEFAULT_FPS

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.name = str(path)
        self._files = files
        if any(file.suffix.lower() in OTHER_PICTURES for file in files):
            _opencv(self.name)

    def frames(self) -> Iterator[Picture]:
        """Yield the pictures."""
        for file in self._files:
            yield _read_picture(file)


class VideoSource:
    """What OpenCV's VideoCapture opens: a file, a camera by its number, a URL; see `Source`."""

    def __init__(self, what: str | int, *, live: bool) -> None:
        self.name = _SECRET.sub("***@", str(what)) if isinstance(what, str) else f"camera {what}"
        self.live = live
        self.fps = DEFAULT_FPS
        self._what = what
        self._cv2 = _opencv(self.name)
        if not live:
            with self._capture() as capture:  # a file that is no video is told before anything is streamed
                self.fps = self._rate(capture)

    def frames(self) -> Iterator[Picture]:
        """Decode the video and yield its frames as JPEG."""
        with self._capture() as capture:
            while True:
                more, pixels = capture.read()
                if not more:
                    break
                yield _encode(self._cv2, pixels)
        if self.live:
            raise SourceError(f"{self.name}: no more frames: the camera is gone, or sent nothing for 5 s")

    @contextmanager
    def _capture(self) -> Iterator[Any]:
        cv2 = self._cv2
        if self.live and isinstance(self._what, str):
            # Without limits of its own FFmpeg waits half a minute for a camera that is gone.
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS]
            capture = cv2.VideoCapture(self._what, cv2.CAP_FFMPEG, limits)
        else:
            capture = cv2.VideoCapture(self._what)
        try:
            if not capture.isOpened():
                raise SourceError(f"{self.name}: OpenCV cannot open it as a video")
            yield capture
        finally:
            capture.release()

    def _rate(self, capture: Any) -> float:
        told = capture.get(self._cv2.CAP_PROP_FPS)
        return told if 0 < told <= 1_000 else DEFAULT_FPS  # some containers tell their time base


def _pictures_in(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in ENCODED.keys() | OTHER_PICTURES)
    if not files:
        raise SourceError(f"{folder}: no pictures in this folder")
    return files


def _read_picture(path: Path) -> Picture:
    encoding = ENCODED.get(path.suffix.lower())
    if encoding is not None:
        try:
            return Picture(path.read_bytes(), encoding)
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    cv2 = _opencv(str(path))
    pixels = cv2.imread(str(path))
    if pixels is None:
        raise SourceError(f"{path}: OpenCV cannot read this picture")
    return _encode(cv2, pixels)


def _encode(cv2: Any, pixels: Any) -> Picture:
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise SourceError("OpenCV cannot encode a frame as JPEG")
    return Picture(data.tobytes(), "jpeg")


def _opencv(name: str) -> Any:
    # What goes wrong is told by us, once; FFmpeg would print it line by line between the results.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError as error:
        raise SourceError(
            f"{name}: this needs OpenCV, which is not installed; install it with: pip install 'headworks[images]' "
            "(folders of JPEG, PNG and WebP files work without it)"
        ) from error
    return cv2
