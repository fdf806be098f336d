"""The contract of a backend: what a model is once it is known, and what an engine promises to a lane.

`models` makes a `ModelSpec`, the composition root makes an `Engine` from it, and each lane asks the engine for one
`Executor` over the lane's own batch buffer. Nothing here imports a backend.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from headworks_server.engine.curve import Curve

PixelType = Literal["float32", "float16", "uint8"]
Layout = Literal["nchw", "nhwc"]
Color = Literal["rgb", "bgr", "gray"]
Resize = Literal["letterbox", "stretch", "center_crop", "fit_shorter"]
Interpolation = Literal["bilinear", "bicubic", "area", "nearest"]
Anchor = Literal["center", "top_left"]
Rounding = Literal["round", "floor"]
DecodeScale = Literal["auto", "1"]
HeadName = Literal["yolov5", "yolov8", "yolox", "yolo_end2end", "classification", "raw"]
BoxForm = Literal["cxcywh", "xyxy", "yxyx"]
Activation = Literal["softmax", "sigmoid", "none"]
Triple = tuple[float, float, float]
Array = npt.NDArray[Any]

DETECTIONS: Final = 1  # as ResultOptions.Form numbers them
CLASSIFICATIONS: Final = 2
RAW_TENSORS: Final = 3

_SHORT: Final[dict[PixelType, str]] = {"float32": "f32", "float16": "f16", "uint8": "u8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """The one input of a model: a batch of pictures of one size.

    Attributes:
        name: the tensor's name in the graph.
        dtype: of one channel of one pixel.
        layout: `nchw` is [batch, channels, height, width], `nhwc` is [batch, height, width, channels].
        width: pixels.
        height: pixels.
        color: the order of the three channels, or `gray` for one.
    """

    name: str
    dtype: PixelType
    layout: Layout
    width: int
    height: int
    color: Color = "rgb"

    @property
    def channels(self) -> int:
        """Values of one pixel: 3, or 1 for gray."""
        return 1 if self.color == "gray" else 3

    @property
    def form(self) -> str:
        """The form in which pixels are painted into a batch position, as `headworks_native.pixels` names it."""
        return f"{_SHORT[self.dtype]}_{self.layout[1:]}"

    @property
    def itemsize(self) -> int:
        """Bytes of one channel of one pixel."""
        return np.dtype(self.dtype).itemsize

    @property
    def position_bytes(self) -> int:
        """Bytes of one picture in a batch buffer."""
        return self.channels * self.height * self.width * self.itemsize

    def shape(self, batch: int) -> tuple[int, int, int, int]:
        """The tensor's shape for a batch of that many pictures."""
        if self.layout == "nchw":
            return (batch, self.channels, self.height, self.width)
        return (batch, self.height, self.width, self.channels)

    def view(self, memory: memoryview | bytearray, positions: int) -> Array:
        """One batch buffer of a lane as an array of shape `shape(positions)`; it shares the buffer's memory."""
        flat = np.frombuffer(memory, dtype=self.dtype, count=positions * self.position_bytes // self.itemsize)
        return flat.reshape(self.shape(positions))


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessSpec:
    """From a source picture to the values of the input; the defaults are those of the Ultralytics family.

    Attributes:
        resize: `letterbox` keeps the aspect and pads, `stretch` does not keep it, `center_crop` resizes the shorter
            side to the input's divided by `crop_pct` and cuts the centre, `fit_shorter` is that with a `crop_pct` of 1.
        interpolation: of the resize.
        antialias: filter before shrinking, as Pillow does and OpenCV does not.
        anchor: where a letterboxed picture lies.
        rounding: of a letterboxed picture's size.
        scale_up: whether a letterboxed picture smaller than the input is enlarged.
        pad_value: of a letterbox's padding, 0 to 255.
        scale: value = (pixel * scale - mean) / std, with pixels of 0 to 255. A uint8 input always has 1, 0 and 1.
        mean: for each channel in the order of the input's colour; a gray input uses the first.
        std: likewise.
        crop_pct: 0 to 1.
        decode_scale: `auto` lets JPEG decode at 1/2, 1/4 or 1/8 where the input is that much smaller; `1` never.
    """

    resize: Resize = "letterbox"
    interpolation: Interpolation = "bilinear"
    antialias: bool = False
    anchor: Anchor = "center"
    rounding: Rounding = "round"
    scale_up: bool = True
    pad_value: int = 114
    scale: float = 1 / 255
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    crop_pct: float = 1.0
    decode_scale: DecodeScale = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One output of the graph for one frame.

    Attributes:
        name: in the graph.
        dtype: NumPy's name.
        shape: without the batch axis; None is an axis known only after a run, and no shape where even the rank is.
    """

    name: str
    dtype: str = "float32"
    shape: tuple[int | None, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """What the graph yields and how it is to be read.

    Attributes:
        head: the layout of the output that is read; `raw` reads none.
        tensors: every output, in the graph's order.
        index: which of them the head reads.
        boxes: how the head's boxes are written.
        normalized: boxes are fractions of the input's sides, not its pixels.
        activation: what the scores of a classification still need; `none` where the graph has done it.
        batch_axis: axis 0 of every output is the batch. Only a fixed batch of 1 may do without.
    """

    head: HeadName = "yolov8"
    tensors: tuple[TensorSpec, ...] = (TensorSpec(name="output0"),)
    index: int = 0
    boxes: BoxForm = "cxcywh"
    normalized: bool = False
    activation: Activation = "none"
    batch_axis: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs' names, in the graph's order."""
        return tuple(tensor.name for tensor in self.tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostprocessSpec:
    """What of an output is told; a stream may ask for another threshold and for fewer results.

    Attributes:
        score_threshold: boxes and classes are kept above this score, 0 to 1.
        iou_threshold: of two boxes of one class that overlap more than this, the better stays.
        agnostic: suppression looks at boxes of all classes together.
        multi_label: a box counts once for each class above the threshold, not for its best class alone.
        max_detections: the most boxes of one frame.
        top_k: the most classes of one frame, where a stream asks for none.
    """

    score_threshold: float = 0.25
    iou_threshold: float = 0.45
    agnostic: bool = False
    multi_label: bool = False
    max_detections: int = 300
    top_k: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model as it is served: the facts of its file, merged with its metadata, its model.toml and the settings.

    Attributes:
        name: the folder's name in the repository.
        version: the version folder's name, or "1" where there is none.
        digest: SHA-256 of the model file and its external weights, 64 hex digits.
        path: the model file.
        labels: class names, by class id; may be empty for `raw`.
        input: the one input.
        preprocess: from source pixels to the input.
        output: the outputs and the head.
        postprocess: the defaults of a stream.
        fixed_batch: the batch size exported into the graph, or None where any is taken.
        max_batch: the largest batch a lane forms; equals `fixed_batch` where there is one.
        batch_sizes: the only sizes that may be executed, ascending, up to `max_batch`; empty allows all.
        backends: what it is tried on, in order; empty leaves it to the server.
        max_frame_ms: the most engine time of a frame in a batch of the target; a slower version is not swapped in.
    """

    name: str
    version: str = "1"
    digest: str = "0" * 64
    path: Path = Path()
    labels: tuple[str, ...] = ()
    input: InputSpec
    preprocess: PreprocessSpec = field(default_factory=PreprocessSpec)
    output: OutputSpec = field(default_factory=OutputSpec)
    postprocess: PostprocessSpec = field(default_factory=PostprocessSpec)
    fixed_batch: int | None = None
    max_batch: int = 1
    batch_sizes: tuple[int, ...] = ()
    backends: tuple[str, ...] = ()
    max_frame_ms: float | None = None

    def __post_init__(self) -> None:
        """Hold the relations that lanes and engines rely on."""
        if self.max_batch < 1 or self.fixed_batch not in (None, self.max_batch):
            raise ValueError(f"max_batch: expected {self.fixed_batch or 'at least 1'}, got {self.max_batch}")
        if not self.output.batch_axis and self.fixed_batch != 1:
            raise ValueError(f"output without a batch axis: expected a fixed batch of 1, got {self.fixed_batch}")
        if self.batch_sizes and (self.batch_sizes[0] < 1 or self.batch_sizes[-1] != self.max_batch):
            raise ValueError(f"batch_sizes: expected 1 to {self.max_batch} and it, got {self.batch_sizes}")

    @property
    def class_count(self) -> int:
        """How many classes the model tells apart."""
        return len(self.labels)

    @property
    def forms(self) -> tuple[int, ...]:
        """The forms of a result that are served, as ResultOptions.Form numbers them; the first is the default."""
        if self.output.head == "raw":
            return (RAW_TENSORS,)
        return (CLASSIFICATIONS if self.output.head == "classification" else DETECTIONS, RAW_TENSORS)


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

    def check(self, curve: Curve) -> bool:
        """Whether a curve that was measured before is still true: the cost of a batch of its target is much the same.

        Raises:
            EngineError: the backend failed on a blank batch.
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
