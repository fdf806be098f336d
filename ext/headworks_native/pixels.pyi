from collections.abc import Sequence

from typing_extensions import Buffer

class Canvas:
    """Paints pictures into the positions of one batch buffer.

    `buffer` is writable, C-contiguous memory of exactly `positions` inputs of `channels` x `height` x `width` values,
    aligned for its type. `form` is "f32", "f16" or "u8", then "_chw" (planes) or "_hwc" (the channels of a pixel
    together). A float32 is `pixel * float32(scale / std) + float32(-mean / std)`, product and sum rounded to float32
    separately; a float16 is that, rounded once more; "u8" holds the pixels themselves. With `channels` 1 pictures are
    turned grey as OpenCV's cvtColor does it. `mean` and `std` follow the order of the output's channels, grey takes the
    first; `pad_value` is a pixel value and goes through the same formula. Raises ValueError on arguments that do not
    fit each other. Different positions may be painted from different threads at once.
    """

    positions: int
    height: int
    width: int
    form: str
    channels: int
    def __init__(
        self,
        buffer: Buffer,
        *,
        positions: int,
        height: int,
        width: int,
        form: str,
        channels: int = 3,
        scale: float = ...,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        pad_value: int = 114,
        _variant: str | None = None,
    ) -> None: ...
    def paint(self, position: int, picture: Buffer, *, left: int, top: int, swap: bool) -> None:
        """Paint uint8 [h, w, 3] at [top:top + h, left:left + w] of a position, pad around it; the GIL is released.

        A canvas of grey takes [h, w, 1] too. The pixels of a row lie together, rows may be apart. `swap` reverses the
        order of the channels; for grey it says that blue comes first. Raises IndexError for a position that is not
        there, ValueError or TypeError for a picture that does not fit.
        """

def variants() -> tuple[str, ...]:
    """Return the names of the kernel's variants that this CPU can run, the one in use first."""
