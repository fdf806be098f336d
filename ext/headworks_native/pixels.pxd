"""The C++ shape of the fused pixel kernel, for modules that paint without the GIL."""

from cpython.buffer cimport Py_buffer
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint8_t
from libcpp cimport bool as cbool


cdef extern from "<array>" namespace "std" nogil:
    cdef cppclass ThreeChannels "std::array<headworks::pixels::Channel, 3>":
        ThreeChannels()
        CppChannel& operator[](size_t)


cdef extern from "pixels.hpp" namespace "headworks::pixels" nogil:
    cdef enum class Type(int):
        F32
        F16
        U8

    cdef enum class Variant(int):
        PLAIN
        AVX2
        AVX512

    cdef cppclass Form:
        Type type
        cbool planar
        int channels
        size_t value_bytes() noexcept

    cdef struct Picture:
        const uint8_t* pixels
        ptrdiff_t stride
        int channels

    cdef struct Interior:
        int left
        int top
        int width
        int height

    cdef cppclass CppChannel "headworks::pixels::Channel":
        float gain
        float offset

    cdef cppclass CppCanvas "headworks::pixels::Canvas":
        CppCanvas(void*, int, int, int, Form, Variant, const ThreeChannels&, uint8_t) except +
        void paint(int, const Picture&, const Interior&, cbool) noexcept

    cbool supported(Variant) noexcept
    Variant best_variant() noexcept
    CppChannel make_channel(double, double, double) noexcept
    size_t position_bytes "headworks::pixels::Canvas::position_bytes"(Form, int, int) noexcept


cdef class Canvas:
    cdef Py_buffer memory               # exported for as long as the canvas lives
    cdef CppCanvas* native              # NULL until the arguments have been checked
    cdef readonly int positions
    cdef readonly int height            # pixels
    cdef readonly int width             # pixels
    cdef readonly str form
    cdef readonly int channels          # 3, or 1: grey
