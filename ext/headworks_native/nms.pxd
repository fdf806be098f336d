"""The C++ shape of native post-processing, for lanes that complete batches without the GIL."""

from libc.stddef cimport size_t
from libcpp cimport bool as cbool
from libcpp.vector cimport vector


cdef extern from "half.hpp" namespace "headworks" nogil:
    void floats_of(const void*, size_t, float*) noexcept


cdef extern from "nms.hpp" namespace "headworks::nms" nogil:
    cdef enum class Layout(int):
        YOLOV8
        YOLOV5
        YOLOX
        YOLO_END2END

    cdef enum class BoxForm(int):
        CXCYWH
        XYXY
        YXYX

    cdef struct Reading:
        Layout layout
        BoxForm boxes
        cbool multi_label
        int classes
        int width
        int height
        float unit_x
        float unit_y

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
        float scale_x
        float scale_y
        int source_width
        int source_height

    size_t yolox_boxes(int, int) noexcept
    vector[Detection] c_detections "headworks::nms::detections"(
        const float*, size_t, const Reading&, const Thresholds&, const Placement&
    ) except +


cdef class Postprocessor:
    cdef Reading reading
    cdef float iou_threshold
    cdef cbool agnostic
    cdef readonly str layout
    cdef size_t count_boxes(self, const Py_buffer* view) except? -1
