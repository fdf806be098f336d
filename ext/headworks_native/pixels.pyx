"""The fused pixel kernel: decoded pictures into the positions of a batch buffer, in one pass.

Called by the decoders of a lane, one canvas for each batch buffer. The canvas holds the buffer's export, and the
interior last painted into each position; the pixels themselves are the lane's.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.math cimport isfinite
from libc.stdint cimport uintptr_t

cdef int SIDE_AT_MOST = 65_535  # the products of sides and bytes stay far from overflow

cdef tuple ORDERS = ("chw", "hwc")
cdef dict TYPES = {"f32": <int>Type.F32, "f16": <int>Type.F16, "u8": <int>Type.U8}
cdef dict FORMS = {f"{name}_{order}": (kind, order == "chw") for name, kind in TYPES.items() for order in ORDERS}
cdef dict VARIANTS = {"avx512": <int>Variant.AVX512, "avx2": <int>Variant.AVX2, "plain": <int>Variant.PLAIN}


cdef class Canvas:
    """Paints pictures into the positions of one batch buffer.

    `buffer` is writable, C-contiguous memory of exactly `positions` inputs of `channels` x `height` x `width` values,
    aligned for its type. `form` is what the model takes, type and order:

    - "f32_*": float32. Each value is `pixel * gain + offset`, with `gain = float32(scale / std)` and
      `offset = float32(-mean / std)` for each channel of the output, product and sum rounded to float32 separately.
      This is `(pixel * scale - mean) / std` folded into one multiplication and one addition.
    - "f16_*": float16, the float32 of the same formula rounded once more, to nearest, ties to even.
    - "u8_*": the pixels themselves. `scale`, `mean` and `std` do not apply: a model of bytes normalises by itself.
    - "*_chw": planes; "*_hwc": the channels of a pixel together.

    With `channels` 1 the input is grey: a picture of three channels is turned grey as OpenCV's cvtColor does it, by the
    BT.601 weights 9798, 19235 and 3735 of red, green and blue, over 2^15 and rounded; one of one channel is taken as it
    is. The first of `mean` and `std` counts.

    `mean` and `std` follow the order of the output's channels. `pad_value` is a pixel value (0 to 255) and goes
    through the same formula. The border is painted only where the interior of a position has moved, so nothing else
    may write to the buffer while the canvas lives.

    Different positions may be painted from different threads at once. Raises ValueError on arguments that do not
    fit each other.
    """

    def __cinit__(
        self,
        buffer,
        *,
        int positions,
        int height,
        int width,
        str form not None,
        int channels=3,
        double scale=1.0 / 255.0,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        int pad_value=114,
        str _variant=None,
    ):
        if positions < 1 or not (1 <= height <= SIDE_AT_MOST and 1 <= width <= SIDE_AT_MOST):
            raise ValueError(
                f"a canvas needs at least one position and sides from 1 to {SIDE_AT_MOST}, "
                f"got {positions} of {width}x{height}"
            )
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        if not 0 <= pad_value <= 255:
            raise ValueError(f"pad_value is a pixel value from 0 to 255, got {pad_value}")
        if channels not in (1, 3):
            raise ValueError(f"channels must be 3, or 1 for grey, got {channels}")
        cdef ThreeChannels three_channels = checked_channels(scale, mean, std)
        cdef Variant variant = checked_variant(_variant)
        cdef Form native_form
        native_form.type = <Type><int>FORMS[form][0]
        native_form.planar = FORMS[form][1]
        native_form.channels = channels
        expected = int(positions) * position_bytes(native_form, height, width)

        PyObject_GetBuffer(buffer, &self.memory, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS)
        if self.memory.len != expected:
            raise ValueError(
                f"{positions} positions of {form} {width}x{height}x{channels} are {expected} bytes, "
                f"got {self.memory.len}"
            )
        if <uintptr_t>self.memory.buf % native_form.value_bytes():
            raise ValueError(f"the buffer of {form} must be aligned to {native_form.value_bytes()} bytes")
        self.positions, self.height, self.width = positions, height, width
        self.form, self.channels = form, channels
        self.native = new CppCanvas(
            self.memory.buf, positions, height, width, native_form, variant, three_channels, <uint8_t>pad_value
        )

    def __dealloc__(self):
        del self.native
        PyBuffer_Release(&self.memory)

    def paint(self, int position, picture, *, int left, int top, bint swap):
        """Paint `picture` into a position: its pixels at [top:top + h, left:left + w], pad around them.

        `picture` is uint8 [h, w, 3], or [h, w, 1] where the canvas is grey; the pixels of a row lie together, rows may
        be apart. `swap` reverses the order of the channels (BGR to RGB); for grey it says that blue comes first. The
        GIL is released while pixels move.

        Raises IndexError for a position that is not there, ValueError or TypeError for a picture that does not fit.
        """
        cdef Py_buffer view
        cdef Interior interior
        cdef Picture pixels
        if not 0 <= position < self.positions:
            raise IndexError(f"position {position} of a canvas of {self.positions}")
        PyObject_GetBuffer(picture, &view, PyBUF_STRIDES | PyBUF_FORMAT)
        try:
            check_picture(&view, self.channels)
            if not (0 <= left <= self.width - view.shape[1] and 0 <= top <= self.height - view.shape[0]):
                raise ValueError(
                    f"a picture of {view.shape[1]}x{view.shape[0]} at left {left}, top {top} "
                    f"is not inside a canvas of {self.width}x{self.height}"
                )
            interior = Interior(left, top, <int>view.shape[1], <int>view.shape[0])
            pixels = Picture(<const uint8_t*>view.buf, view.strides[0], <int>view.shape[2])
            with nogil:
                self.native.paint(position, pixels, interior, swap)
        finally:
            PyBuffer_Release(&view)


def variants():
    """Return the names of the kernel's variants that this CPU can run, the one in use first."""
    return tuple(name for name, value in VARIANTS.items() if supported(<Variant><int>value))


cdef ThreeChannels checked_channels(double scale, mean, std) except *:
    cdef ThreeChannels channels
    cdef double channel_mean, channel_std
    means, stds = tuple(mean), tuple(std)
    if len(means) != 3 or len(stds) != 3:
        raise ValueError(f"mean and std need 3 values each, got {len(means)} and {len(stds)}")
    for index in range(3):
        channel_mean, channel_std = means[index], stds[index]
        if not (isfinite(scale) and isfinite(channel_mean) and isfinite(channel_std) and channel_std > 0):
            raise ValueError(f"scale, mean and std must be finite and std positive, got {scale}, {means} and {stds}")
        channels[index] = make_channel(scale, channel_mean, channel_std)
        if not (isfinite(channels[index].gain) and isfinite(channels[index].offset)):
            raise ValueError(f"scale / std and mean / std must fit float32, got {scale}, {means} and {stds}")
    return channels


cdef Variant checked_variant(str name) except *:
    if name is None:
        return best_variant()
    if name not in VARIANTS or not supported(<Variant><int>VARIANTS[name]):
        raise ValueError(f"variant must be one of {', '.join(variants())}, got {name!r}")
    return <Variant><int>VARIANTS[name]


cdef int check_picture(const Py_buffer* view, int channels) except -1:
    if view.itemsize != 1 or view.format == NULL or view.format != b"B":
        raise TypeError(f"a picture holds uint8, got format {(view.format or b'?').decode()!r}")
    if view.ndim != 3 or view.shape[2] not in (3, channels) or view.shape[0] < 1 or view.shape[1] < 1:
        shape = tuple(view.shape[axis] for axis in range(view.ndim))
        allowed = "3]" if channels == 3 else "3 or 1]"
        raise ValueError(f"a picture is [height, width, {allowed} and not empty, got {shape}")
    if (view.shape[2] > 1 and view.strides[2] != 1) or (view.shape[1] > 1 and view.strides[1] != view.shape[2]):
        raise ValueError("the pixels of a picture's row must lie together")
    return 0
