"""The C++ shape of native post-processing, for lanes that complete batches without the GIL."""

from libc.stddef cimport size_t
from libcpp cimport bool as cbool
from libcpp.vector cimport vector


cdef extern from "nms.hpp" namespace "headworks::nms" nogil:
    cdef struct Detection:
        pass

    cdef struct Thresholds:
        float score
        float iou
        int max_detections
        cbool agnostic

    cdef struct Placement:
        float left
        float top
        float scale
        int source_width
        int source_height

    vector[Detection] c_yolov8 "headworks::nms::yolov8"(
        const float*, size_t, size_t, const Thresholds&, const Placement&
    ) except +
