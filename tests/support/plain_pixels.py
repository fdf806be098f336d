"""The plain twin of headworks_native.pixels: what a position holds after a picture was painted, in NumPy.

Used by the property tests as the oracle. It paints every position whole, so it has no memory of earlier pictures.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
TYPES = {"f32": np.float32, "f16": np.float16, "u8": np.uint8}
RED, GREEN, BLUE = 9798, 19235, 3735  # BT.601 over 2^15


def plain_grey(picture: Pixels, *, blue_first: bool) -> Pixels:
    """Return uint8 [height, width, 1] of [height, width, 3], as OpenCV's cvtColor; of one channel, the same."""
    if picture.shape[2] == 1:
        return picture
    weights = (BLUE, GREEN, RED) if blue_first else (RED, GREEN, BLUE)
    return ((picture.astype(np.int32) @ weights + (1 << 14)) >> 15).astype(np.uint8)[..., None]


def plain_position(
    picture: Pixels,
    *,
    height: int,
    width: int,
    left: int,
    top: int,
    swap: bool,
    form: str,
    channels: int = 3,
    scale: float = 1 / 255,
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
    std: tuple[float, float, float] = (1.0, 1.0, 1.0),
    pad_value: int = 114,
) -> npt.NDArray[Any]:
    """Return one position: [channels, height, width] or [height, width, channels] of the form's type."""
    if channels == 1:
        picture = plain_grey(picture, blue_first=swap)
    elif swap:
        picture = picture[..., ::-1]
    kind, order = form.split("_")
    canvas = np.full((height, width, channels), pad_value, np.uint8)
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    if kind != "u8":
        gain = (np.float64(scale) / np.array(std, np.float64)).astype(np.float32)[:channels]
        offset = (-np.array(mean, np.float64) / np.array(std, np.float64)).astype(np.float32)[:channels]
        product = canvas.astype(np.float32) * gain
        with np.errstate(over="ignore"):  # a half beyond 65,504 is infinite
            canvas = (product + offset).astype(TYPES[kind])  # type: ignore[assignment]
    return canvas if order == "hwc" else np.ascontiguousarray(canvas.transpose(2, 0, 1))
