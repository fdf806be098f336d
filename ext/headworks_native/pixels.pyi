from collections.abc import Sequence
from typing import Literal

from typing_extensions import Buffer

class Canvas:
    """Paints pictures into the positions of one batch buffer.

    `buffer` is writable, C-contiguous memory of exactly `positions` inputs of 3 x `height` x `width` values, aligned
    for its type. In "f32_chw" each value is `pixel * float32(scale / std) + float32(-mean / std)`, product and sum
    rounded to float32 separately; "u8_chw" and "u8_hwc" hold the pixels themselves. `mean` and `std` follow the
    order of the output's channels; `pad_value` is a pixel value and goes through the same formula. Raises ValueError
    on arguments that do not fit each other. Different positions may be painted from different threads at once.
    """

    positions: int
    height: int
    width: int
    form: str
    def __init__(
        self,
        buffer: Buffer,
        *,
        positions: int,
        height: int,
        width: int,
        form: Literal["f32_chw", "u8_chw", "u8_hwc"],
        scale: float = ...,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        pad_value: int = 114,
        _variant: str | None = None,
    ) -> None: ...
    def paint(self, position: int, picture: Buffer, *, left: int, top: int, swap: bool) -> None:
        """Paint uint8 [h, w, 3] at [top:top + h, left:left + w] of a position, pad around it; the GIL is released.

        The pixels of a row lie together, rows may be apart. `swap` reverses the order of the channels. Raises
        IndexError for a position that is not there, ValueError or TypeError for a picture that does not fit.
        """

def variants() -> tuple[str, ...]:
    """Return the names of the kernel's variants that this CPU can run, the one in use first."""
