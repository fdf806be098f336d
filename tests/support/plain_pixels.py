"""The plain twin of headworks_native.pixels: what a position holds after a picture was painted, in NumPy.

Used by the property tests as the oracle. It paints every position whole, so it has no memory of earlier pictures.
"""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def plain_position(
    picture: Pixels,
    *,
    height: int,
    width: int,
    left: int,
    top: int,
    swap: bool,
    form: str,
    scale: float = 1 / 255,
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
    std: tuple[float, float, float] = (1.0, 1.0, 1.0),
    pad_value: int = 114,
) -> npt.NDArray[np.float32] | Pixels:
    """Return one position: float32 [3, height, width], uint8 [3, height, width] or uint8 [height, width, 3]."""
    canvas = np.full((height, width, 3), pad_value, np.uint8)
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture[..., ::-1] if swap else picture
    if form == "u8_hwc":
        return canvas
    planes = np.ascontiguousarray(canvas.transpose(2, 0, 1))
    if form == "u8_chw":
        return planes
    gain = (np.float64(scale) / np.array(std, np.float64)).astype(np.float32)
    offset = (-np.array(mean, np.float64) / np.array(std, np.float64)).astype(np.float32)
    product = planes.astype(np.float32) * gain[:, None, None]
    return product + offset[:, None, None]
