"""Detector outputs to detections in source pixels, on the thread that ran the batch and without the GIL."""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport isfinite
from libc.stdint cimport INT32_MAX


def yolov8(
    output,
    *,
    float score_threshold,
    float iou_threshold,
    int max_detections,
    bint agnostic=False,
    float left,
    float top,
    float scale,
    int source_width,
    int source_height,
):
    """Return the detections of one picture, best first, as packed structs (see below).

    `output` is C-contiguous float32 [4 + classes, n]: rows of centre x, centre y, width and height in network
    pixels, then the scores of each class. A box counts with its best class (the first of equals) if that scores
    more than `score_threshold`; the best 30,000 take part, equals in the order of their columns. A box that
    overlaps a better one of its class by more than `iou_threshold` is suppressed; classes are compared as numbers
    (nothing is added to coordinates), or not at all where `agnostic`. The first `max_detections` are returned.

    `left` and `top` are the pads of the letterbox in network pixels and `scale` its network pixels per source pixel.
    Boxes are half-open, in source pixels, clipped to the picture; one that clipping leaves empty is kept. A class
    score that is NaN never wins; a box that is not finite, in a corner or in its score, is left out.

    Each struct is 24 bytes, little-endian: float x1, y1, x2, y2, score, uint32 class_id. All arithmetic is float32.
    Raises TypeError or ValueError on an output of another type or shape and on values out of their range.
    """
    cdef Py_buffer view
    cdef vector[Detection] detections
    if not (0 <= score_threshold <= 1 and 0 <= iou_threshold <= 1):
        raise ValueError(f"thresholds lie between 0 and 1, got {score_threshold} and {iou_threshold}")
    if max_detections < 1:
        raise ValueError(f"max_detections must be at least 1, got {max_detections}")
    if not (isfinite(left) and isfinite(top) and isfinite(scale) and scale > 0):
        raise ValueError(f"left, top and scale must be finite and scale positive, got {left}, {top} and {scale}")
    if source_width < 1 or source_height < 1:
        raise ValueError(f"a source picture is at least 1x1, got {source_width}x{source_height}")
    cdef Thresholds thresholds = Thresholds(score_threshold, iou_threshold, max_detections, agnostic)
    cdef Placement placement = Placement(left, top, scale, source_width, source_height)

    PyObject_GetBuffer(output, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    try:
        check_output(&view)
        with nogil:
            detections = c_yolov8(
                <const float*>view.buf,
                <size_t>(view.shape[0] - 4),
                <size_t>view.shape[1],
                thresholds,
                placement,
            )
    finally:
        PyBuffer_Release(&view)
    cdef Py_ssize_t size = <Py_ssize_t>(detections.size() * sizeof(Detection))
    return PyBytes_FromStringAndSize(<const char*>detections.data(), size)


cdef int check_output(const Py_buffer* view) except -1:
    if view.format == NULL or view.format != b"f":
        raise TypeError(f"the output of a detector is float32, got format {(view.format or b'B').decode()!r}")
    if view.ndim != 2 or view.shape[0] < 5 or view.shape[1] > INT32_MAX:
        shape = tuple(view.shape[axis] for axis in range(view.ndim))
        raise ValueError(f"the output of a yolov8 head is [4 + classes, boxes] for one picture, got {shape}")
    return 0
