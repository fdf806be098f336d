"""One lane's place for one model: its ring with one batch buffer, its painted positions, its executor.

A CPU lane thread runs its tickets here to completion: decode, paint, execute, postprocess. The parts come from the
composition root through the protocols below; the seat owns the ring and nobody else touches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from headworks_native.lane import PENDING, Ticket
from headworks_native.pixels import Canvas
from headworks_native.ring import LaneRing
from headworks_server.core.outcomes import FrameErrorCode
from headworks_server.errors import EngineError, FrameRejectedError

Array = npt.NDArray[Any]


class FittedPicture(Protocol):
    """A decoded frame as it is to be painted."""

    pixels: Array  # uint8 [h, w, 3], the pixels of a row together
    swap: bool  # its channels are not in the model's order
    geometry: Any  # of the head's kind; `interior_left` and `interior_top` say where it is painted


class Preparer(Protocol):
    """Decodes frames for one model, on one thread."""

    def prepare(self, data: memoryview, *, encoding: int, width: int, height: int) -> FittedPicture:
        """Decode and scale a frame. The picture is valid until the next call. Raises FrameRejectedError."""
        ...


class Executor(Protocol):
    """Executes the seat's batch buffer."""

    def run(self, size: int) -> list[Array]:
        """Execute the first `size` positions. The outputs are valid until the next run. Raises EngineError."""
        ...


class Head(Protocol):
    """Turns the outputs for one frame into one form of a result."""

    def postprocess(
        self, outputs: Sequence[Array], index: int, geometry: Any, *, score_threshold: float, max_detections: int
    ) -> tuple[bytes, bytes]:
        """Return packed detections and nothing, or nothing and the encoded field of another form.

        `outputs` are the batch's, one array [size, ...] each, and `index` is the frame's place in them.
        """
        ...


class Seat:
    """The ring, the canvas and the executor of one model in one lane; used by that lane's thread only.

    `heads` are the model's, by the number of the ResultOptions.Form that each makes.
    """

    def __init__(
        self,
        *,
        ring: LaneRing,
        canvas: Canvas,
        preparer: Preparer,
        executor: Executor,
        heads: Mapping[int, Head],
    ) -> None:
        self._ring = ring
        self._canvas = canvas
        self._preparer = preparer
        self._executor = executor
        self._heads = heads
        self._geometries: list[Any] = [None] * ring.max_batch

    @property
    def positions(self) -> int:
        """The most tickets of one batch."""
        return self._ring.max_batch

    def serve(self, tickets: list[Ticket]) -> int:
        """Run tickets to completion: afterwards each is concluded. Returns the size of the batch that ran, or 0."""
        for ticket in tickets:
            self._take_place(ticket)
        buffer, count = self._ring.close()
        if buffer < 0:
            return 0
        if count:
            self._execute(buffer, self._ring.tickets(buffer), count)
        self._ring.release(buffer)
        return count

    def recover(self, tickets: list[Ticket], detail: str) -> None:
        """After `serve` raised: free the ring, and fail the tickets that it left without a conclusion."""
        self._ring.recover()
        for ticket in tickets:
            if ticket.status == PENDING:
                ticket.fail(FrameErrorCode.ENGINE_FAILED, detail)

    def _take_place(self, ticket: Ticket) -> None:
        """Decode a ticket's frame and paint it into the next position, unless it is concluded before that."""
        if not ticket.begin_decode():
            return
        try:
            picture = self._preparer.prepare(
                ticket.data, encoding=ticket.encoding, width=ticket.width, height=ticket.height
            )
        except FrameRejectedError as error:
            ticket.fail(error.code, error.detail)
            return
        except Exception as error:  # a defect of a decoder must cost one frame, not its batch
            ticket.fail(FrameErrorCode.UNDECODABLE, f"the decoder failed: {error!r}")
            return
        position = self._ring.claim(ticket)
        if position < 0:
            return
        geometry = picture.geometry
        left, top = geometry.interior_left, geometry.interior_top
        self._canvas.paint(position, picture.pixels.data, left=left, top=top, swap=picture.swap)
        ticket.source_width = geometry.source_width
        ticket.source_height = geometry.source_height
        self._geometries[position] = geometry
        self._ring.publish(position)

    def _execute(self, buffer: int, seated: list[Ticket], count: int) -> None:
        self._ring.launch(buffer)
        try:
            outputs = self._executor.run(count)
        except EngineError as error:
            self._ring.drained(buffer)
            for ticket in seated:
                if ticket.status == PENDING:
                    ticket.fail(FrameErrorCode.ENGINE_FAILED, str(error))
            return
        self._ring.drained(buffer)
        for index, ticket in enumerate(seated):
            if ticket.status == PENDING:
                detections, value = self._heads[ticket.form].postprocess(
                    outputs,
                    index,
                    self._geometries[index],
                    score_threshold=ticket.score_threshold,
                    max_detections=ticket.max_detections,
                )
                ticket.finish(detections, value)
