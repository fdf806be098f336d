"""The contract of a backend: what a model is once it is known, and what an engine promises to a lane.

`models.py` makes a `ModelSpec`, the composition root makes an `Engine` from it, and each lane asks the engine for one
`Executor` over the lane's own batch buffer. Nothing here imports a backend.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from headworks_server.engine.curve import Curve

PixelType = Literal["float32", "uint8"]
Layout = Literal["nchw", "nhwc"]
PixelForm = Literal["f32_chw", "u8_chw", "u8_hwc"]
DecodeScale = Literal["auto", "1"]
Array = npt.NDArray[Any]

CHANNELS = 3  # RGB; nothing else is accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """The one input of a detector: a batch of RGB pictures of one size.

    Attributes:
        name: the tensor's name in the graph.
        dtype: float32 takes values 0 to 1, uint8 takes 0 to 255.
        layout: `nchw` is [batch, 3, height, width], `nhwc` is [batch, height, width, 3] (uint8 only).
        width: pixels.
        height: pixels.
    """

    name: str
    dtype: PixelType
    layout: Layout
    width: int
    height: int

    @property
    def form(self) -> PixelForm:
        """The form in which pixels are painted into a batch position, as `headworks_native.pixels` names it."""
        if self.dtype == "float32":
            return "f32_chw"
        return "u8_chw" if self.layout == "nchw" else "u8_hwc"

    @property
    def position_bytes(self) -> int:
        """Bytes of one picture in a batch buffer."""
        return CHANNELS * self.height * self.width * np.dtype(self.dtype).itemsize

    def shape(self, batch: int) -> tuple[int, int, int, int]:
        """The tensor's shape for a batch of that many pictures."""
        if self.layout == "nchw":
            return (batch, CHANNELS, self.height, self.width)
        return (batch, self.height, self.width, CHANNELS)

    def view(self, memory: memoryview | bytearray, positions: int) -> Array:
        """One batch buffer of a lane as an array of shape `shape(positions)`; it shares the buffer's memory."""
        flat = np.frombuffer(memory, dtype=self.dtype, count=positions * self.position_bytes // self.itemsize)
        return flat.reshape(self.shape(positions))

    @property
    def itemsize(self) -> int:
        """Bytes of one channel of one pixel."""
        return np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model as it is served: the facts of its file, merged with what its head and the settings say.

    Attributes:
        name: the folder's name in the repository.
        version: "1" until a folder can hold several.
        digest: SHA-256 of the model file, 64 hex digits.
        path: the model file.
        labels: class names, by class id.
        input: the one input.
        output: the name of the one output, [batch, 4 + classes, boxes].
        fixed_batch: the batch size exported into the graph, or None where any is taken.
        max_batch: the largest batch a lane forms; equals `fixed_batch` where there is one.
        head: the layout of the output.
        score_threshold: boxes are kept above this score, 0 to 1; a stream may ask for another.
        iou_threshold: of two boxes of one class that overlap more than this, the better stays.
        max_detections: the most boxes of one frame.
        decode_scale: `auto` lets JPEG decode at 1/2, 1/4 or 1/8 where the input is that much smaller; `1` never.
    """

    name: str
    version: str
    digest: str
    path: Path
    labels: tuple[str, ...]
    input: InputSpec
    output: str
    fixed_batch: int | None
    max_batch: int
    head: Literal["yolov8"] = "yolov8"
    score_threshold: float = 0.25
    iou_threshold: float = 0.45
    max_detections: int = 300
    decode_scale: DecodeScale = "auto"

    def __post_init__(self) -> None:
        """Hold the relation the lanes rely on."""
        if self.max_batch < 1 or self.fixed_batch not in (None, self.max_batch):
            raise ValueError(f"max_batch: expected {self.fixed_batch or 'at least 1'}, got {self.max_batch}")

    @property
    def class_count(self) -> int:
        """How many classes the model tells apart."""
        return len(self.labels)

    @property
    def rows(self) -> int:
        """Rows of the output of one frame: four of a box, one score of each class."""
        return 4 + self.class_count


class Executor(Protocol):
    """One lane's way to run a model over the lane's own batch buffer; used by one thread at a time."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes that are ever executed, ascending."""

    def run(self, size: int) -> list[Array]:
        """Execute the first `size` positions of the buffer and return one array [size, ...] for each output.

        Ownership: the buffer stays the lane's. The executor reads it during the call and never writes it, so nobody
        may write those positions until the call has returned. The arrays are the executor's: they are valid until its
        next run, and the lane reads what it needs before. On error the positions are the lane's again and no output is
        valid; the executor stays usable.

        Raises:
            ValueError: `size` is below 1 or above the largest of `sizes`.
            EngineError: the backend failed; the message is the backend's own words, in one line.
        """

    def close(self) -> None:
        """Give back what the executor holds, and forget the buffer. Arrays that `run` returned stay readable."""


class Engine(Protocol):
    """A model made ready by one backend. Lanes get their executors from it."""

    @property
    def spec(self) -> ModelSpec:
        """The model."""

    def measure(self) -> Curve:
        """Run the batch sizes up to `spec.max_batch` and tell what each costs; before serving, on the calling thread.

        Raises:
            EngineError: the backend failed on a blank batch, so the model cannot be served.
        """

    def executor(self, memory: Array, *, sizes: Iterable[int] = ()) -> Executor:
        """Make an executor over `memory`, one batch buffer as `spec.input.view` gives it, warmed and ready.

        `sizes` are the batch sizes to prepare besides the buffer's whole length; a fixed batch has only its own.

        Raises:
            ValueError: the memory's shape or type is not the model's.
            EngineError: the backend failed on a blank batch.
        """

    def close(self) -> None:
        """Forget the model. Executors made before keep what they need."""
