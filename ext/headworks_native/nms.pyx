"""Detector outputs to detections in source pixels, on the thread that ran the batch and without the GIL."""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport isfinite
from libc.stdint cimport INT32_MAX

cdef Py_ssize_t HALF = 2  # bytes

cdef dict LAYOUTS = {
    "yolov8": <int>Layout.YOLOV8,
    "yolov5": <int>Layout.YOLOV5,
    "yolox": <int>Layout.YOLOX,
    "yolo_end2end": <int>Layout.YOLO_END2END,
}
cdef dict BOX_FORMS = {"cxcywh": <int>BoxForm.CXCYWH, "xyxy": <int>BoxForm.XYXY, "yxyx": <int>BoxForm.YXYX}


cdef class Postprocessor:
    """Reads the outputs of one detector.

    `layout` says what an output is, for one picture, C-contiguous, float32 or float16 (turned into float32 first):

    - "yolov8": [4 + classes, boxes], a column for each box, then its score for each class.
    - "yolov5": [boxes, 5 + classes], a row for each box, its objectness, then its classes. A class scores objectness
      times class; the objectness must pass the threshold by itself too.
    - "yolox": the same, with boxes relative to the cells of grids of 8, 16 and 32 pixels: the centre is
      (offset + cell) * stride, the size exp(logarithm) * stride. Boxes are always "cxcywh" here.
    - "yolo_end2end": [boxes, 6], a row for each box, its score and its class; nothing is suppressed. A row whose
      class is not the number of a class is padding.

    A box has four numbers, which `boxes` names: "cxcywh" (centre, size), "xyxy" or "yxyx" (corners), in network pixels,
    or in fractions of the network's sides where `normalized`.

    A box counts with its best class (the first of equals) if that scores more than a threshold, or with `multi_label`
    once for each class that does. The best 30,000 take part, equals in the order of the output. A box that overlaps a
    better one of its class by more than `iou_threshold` is suppressed; classes are compared as numbers (nothing is
    added to coordinates), or not at all where `agnostic`. A class score that is NaN never wins; a box that is not
    finite, in a corner or in its score, is left out.

    All arithmetic is float32. Raises ValueError on values out of their range. Threads may share one.
    """

    def __cinit__(
        self,
        str layout not None,
        *,
        int classes,
        int width,
        int height,
        float iou_threshold=0.45,
        bint agnostic=False,
        bint multi_label=False,
        str boxes not None="cxcywh",
        bint normalized=False,
    ):
        if layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
        if boxes not in BOX_FORMS:
            raise ValueError(f"boxes must be one of {', '.join(BOX_FORMS)}, got {boxes!r}")
        if layout == "yolox" and (boxes != "cxcywh" or normalized):
            raise ValueError("the boxes of yolox are cxcywh in pixels, got other ones")
        if classes < 1 or width < 1 or height < 1:
            raise ValueError(f"a detector has at least one class and one pixel, got {classes} and {width}x{height}")
        if not 0 <= iou_threshold <= 1:
            raise ValueError(f"thresholds lie between 0 and 1, got {iou_threshold}")
        self.layout = layout
        self.iou_threshold = iou_threshold
        self.agnostic = agnostic
        self.reading = Reading(
            <Layout><int>LAYOUTS[layout],
            <BoxForm><int>BOX_FORMS[boxes],
            multi_label,
            classes,
            width,
            height,
            <float>width if normalized else 1,
            <float>height if normalized else 1,
        )

    def detections(
        self,
        output,
        *,
        float score_threshold,
        int max_detections,
        float left,
        float top,
        float scale_x,
        float scale_y,
        int source_width,
        int source_height,
    ):
        """Return the detections of one picture, best first, at most `max_detections`, as packed structs.

        `left` and `top` are the network pixels before the picture (negative where it was cut), `scale_x` and `scale_y`
        the network pixels per source pixel. Boxes are half-open, in source pixels, clipped to the picture; one that
        clipping leaves empty is kept.

        Each struct is 24 bytes, little-endian: float x1, y1, x2, y2, score, uint32 class_id. Raises TypeError or
        ValueError on an output of another type or shape and on values out of their range.
        """
        cdef Py_buffer view
        cdef vector[Detection] found
        cdef vector[float] floats
        cdef const float* numbers
        cdef size_t count
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"thresholds lie between 0 and 1, got {score_threshold}")
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {max_detections}")
        if not (isfinite(left) and isfinite(top)):
            raise ValueError(f"left and top must be finite, got {left} and {top}")
        if not (isfinite(scale_x) and isfinite(scale_y) and scale_x > 0 and scale_y > 0):
            raise ValueError(f"scales must be finite and positive, got {scale_x} and {scale_y}")
        if source_width < 1 or source_height < 1:
            raise ValueError(f"a source picture is at least 1x1, got {source_width}x{source_height}")
        cdef Thresholds thresholds = Thresholds(score_threshold, self.iou_threshold, max_detections, self.agnostic)
        cdef Placement placement = Placement(left, top, scale_x, scale_y, source_width, source_height)

        PyObject_GetBuffer(output, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        try:
            count = self.count_boxes(&view)
            numbers = <const float*>view.buf
            with nogil:
                if view.itemsize == HALF:
                    floats.resize(<size_t>(view.len // HALF))
                    floats_of(view.buf, floats.size(), floats.data())
                    numbers = floats.data()
                found = c_detections(numbers, count, self.reading, thresholds, placement)
        finally:
            PyBuffer_Release(&view)
        cdef Py_ssize_t size = <Py_ssize_t>(found.size() * sizeof(Detection))
        return PyBytes_FromStringAndSize(<const char*>found.data(), size)

    cdef size_t count_boxes(self, const Py_buffer* view) except? -1:
        """Hold an output against the layout."""
        if view.format == NULL or (view.format != b"f" and view.format != b"e"):
            format_ = (view.format or b"B").decode()
            raise TypeError(f"the output of a detector is float32 or float16, got format {format_!r}")
        cdef bint columns = self.reading.layout == Layout.YOLOV8
        cdef Py_ssize_t boxes = -1, values = (4 if columns else 5) + self.reading.classes
        if self.reading.layout == Layout.YOLOX:
            boxes = <Py_ssize_t>yolox_boxes(self.reading.width, self.reading.height)
        elif self.reading.layout == Layout.YOLO_END2END:
            values = 6
        if view.ndim == 2 and view.shape[0 if columns else 1] == values:
            if boxes in (-1, view.shape[0]) and view.shape[1 if columns else 0] <= INT32_MAX:
                return <size_t>view.shape[1 if columns else 0]
        expected = f"[{values}, boxes]" if columns else f"[{'boxes' if boxes < 0 else boxes}, {values}]"
        shape = tuple(view.shape[axis] for axis in range(view.ndim))
        raise ValueError(f"the output of a {self.layout} head is {expected} for one picture, got {shape}")


def yolox_rows(int width, int height):
    """Return how many boxes a yolox network of this input size has."""
    return yolox_boxes(width, height)
