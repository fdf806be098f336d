"""A seat's parts for tests of the CPU lanes, named by what they do, and frames and tickets to run through them.

A payload's first byte is its colour: the preparer paints it, the executor hands it on, the head makes it the
detections. So a result proves that it belongs to its frame.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from headworks.v1 import frame_pb2 as pb
from headworks_native import wire
from headworks_native.lane import Ticket
from headworks_native.pixels import Canvas
from headworks_native.ring import LaneRing
from headworks_server.core.frame import Frame
from headworks_server.runtime.seat import Array, Executor, Head, Preparer, Seat
from headworks_server.runtime.ticket import ticket_of

SIDE = 2  # of the model's input, in pixels
WIDTH, HEIGHT = 640, 480  # of every source


@dataclass
class PlainGeometry:
    """A picture that fills the input."""

    interior_left: int = 0
    interior_top: int = 0
    source_width: int = WIDTH
    source_height: int = HEIGHT


@dataclass
class PlainPicture:
    """One colour all over."""

    pixels: Array
    swap: bool = False
    geometry: Any = field(default_factory=PlainGeometry)


class PaintingPreparer:
    """Makes a picture of the payload's first byte, and remembers what it decoded."""

    def __init__(self) -> None:
        self.decoded: list[bytes] = []

    def prepare(self, data: memoryview, *, encoding: int, width: int, height: int) -> PlainPicture:  # noqa: ARG002
        self.decoded.append(bytes(data))
        return PlainPicture(np.full((SIDE, SIDE, 3), data[0], dtype=np.uint8))


class PreparerThatRaises(PaintingPreparer):
    """Raises on one payload."""

    def __init__(self, payload: bytes, error: Exception) -> None:
        super().__init__()
        self._payload, self._error = payload, error

    def prepare(self, data: memoryview, *, encoding: int, width: int, height: int) -> PlainPicture:
        if data == self._payload:
            raise self._error
        return super().prepare(data, encoding=encoding, width=width, height=height)


class PreparerThatMisfits(PaintingPreparer):
    """Places the picture outside of the input, so that painting raises after the position was claimed."""

    def __init__(self, payload: bytes) -> None:
        super().__init__()
        self._payload = payload

    def prepare(self, data: memoryview, *, encoding: int, width: int, height: int) -> PlainPicture:
        picture = super().prepare(data, encoding=encoding, width=width, height=height)
        if data == self._payload:
            picture.geometry = PlainGeometry(interior_left=SIDE)
        return picture


class PreparerThatWaits(PaintingPreparer):
    """Says that it has begun, and goes on when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = threading.Event(), threading.Event()

    def prepare(self, data: memoryview, *, encoding: int, width: int, height: int) -> PlainPicture:
        self.begun.set()
        assert self.go_on.wait(30)
        return super().prepare(data, encoding=encoding, width=width, height=height)


class CopyingExecutor:
    """Hands the batch buffer on as the model's output, and remembers what each batch held."""

    def __init__(self) -> None:
        self.memory: Array = np.empty(0)
        self.batches: list[bytes] = []

    def run(self, size: int) -> list[Array]:
        output = self.memory[:size].copy()
        self.batches.append(bytes(output[:, 0, 0, 0]))
        return [output]


class ExecutorThatFails(CopyingExecutor):
    """Raises on its first batches, as many as it is told."""

    def __init__(self, error: Exception, *, times: int = 1) -> None:
        super().__init__()
        self._error, self._left = error, times

    def run(self, size: int) -> list[Array]:
        if self._left:
            self._left -= 1
            raise self._error
        return super().run(size)


class ColourHead:
    """Makes the colour the detections."""

    def postprocess(
        self,
        outputs: Sequence[Array],
        index: int,
        geometry: Any,  # noqa: ARG002
        *,
        score_threshold: float,  # noqa: ARG002
        max_detections: int,  # noqa: ARG002
    ) -> tuple[bytes, bytes]:
        return bytes([outputs[0][index, 0, 0, 0]]), b""


class ValueHead(ColourHead):
    """Makes the colour another form's value."""

    def postprocess(self, *arguments: Any, **options: Any) -> tuple[bytes, bytes]:
        return b"", super().postprocess(*arguments, **options)[0]


class HeadThatRaises(ColourHead):
    """Raises on one colour."""

    def __init__(self, colour: int) -> None:
        self._colour = colour

    def postprocess(self, outputs: Sequence[Array], index: int, *arguments: Any, **options: Any) -> tuple[bytes, bytes]:
        if outputs[0][index, 0, 0, 0] == self._colour:
            raise ZeroDivisionError("no boxes")
        return super().postprocess(outputs, index, *arguments, **options)


def make_seat(
    *,
    max_batch: int = 4,
    preparer: Preparer | None = None,
    executor: CopyingExecutor | None = None,
    head: Head | None = None,
) -> Seat:
    """A seat of a model with an input of SIDE x SIDE pixels."""
    ring = LaneRing(buffers=1, max_batch=max_batch, position_bytes=SIDE * SIDE * 3)
    executor = executor or CopyingExecutor()
    executor.memory = np.frombuffer(ring.buffer_memory(0), np.uint8).reshape(max_batch, SIDE, SIDE, 3)
    runs: Executor = executor
    return Seat(
        ring=ring,
        canvas=Canvas(executor.memory.data, positions=max_batch, height=SIDE, width=SIDE, form="u8_hwc"),
        preparer=preparer or PaintingPreparer(),
        executor=runs,
        heads={1: head or ColourHead(), 3: ValueHead()},
    )


def admitted_frame(
    payload: bytes, *, stream: Any = None, model: str = "a", deadline_ns: int = 0, form: int = 1
) -> Frame:
    """A frame as admission hands it to a lane; its ticket is made by the lane."""
    message = wire.frame_message(pb.Frame(frame_id=1, encoding=pb.ENCODING_JPEG, data=payload))
    stream = stream or SimpleNamespace(score_threshold=0.25, max_detections=9, form=form, model_name=model)
    frame = Frame(1, message, len(payload), 1, stream=stream)
    frame.deadline_ns = deadline_ns
    frame.admitted_ns = 1
    return frame


def admitted_ticket(payload: bytes, *, deadline_ns: int = 0, form: int = 1) -> Ticket:
    """The ticket of such a frame; `form` 1 is told as detections, 3 as a value."""
    return ticket_of(admitted_frame(payload, deadline_ns=deadline_ns, form=form))
