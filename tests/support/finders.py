"""Models that find the bright rectangle of a picture, in every form in which people bring detectors and classifiers.

What they answer is checkable from end to end: the box tells whether a picture was scaled and placed rightly, the scores
whether its colours have the right order and range. `tests/integration/test_served_models.py` serves one of each form.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from onnx import ModelProto

from support.model_zoo import text_model
from support.models import save_model
from support.pictures import Pixels, png

COLOUR = (250, 200, 60)  # bright as gray, too, and different in each channel
BACKGROUND = 30
Box = tuple[int, int, int, int]
LABELS = {"rgb": ("red", "green", "blue"), "bgr": ("blue", "green", "red"), "gray": ("bright",)}
_ELEMENTS = {"float32": ("float", "float", 1), "float16": ("float16", "float16", 10), "uint8": ("uint8", "float", 1)}

# From the input to the rectangle's corners and its scores, [n, channels].
_FIND = """
    spread = Mul(planes, std) moved = Add(spread, mean) units = Mul(moved, unit)
    peak = ReduceMax<axes=[1], keepdims=1>(units) above = Greater(peak, bright) ink = Cast<to=1>(above)
    across = ReduceMax<axes=[1,2], keepdims=0>(ink) down = ReduceMax<axes=[1,3], keepdims=0>(ink)
    left = ArgMax<axis=1>(across) right = ArgMax<axis=1, select_last_index=1>(across) beyond = Add(right, next)
    top = ArgMax<axis=1>(down) low = ArgMax<axis=1, select_last_index=1>(down) below = Add(low, next)
    inked = Mul(units, ink) sums = ReduceSum<keepdims=0>(inked, places)
    area = ReduceSum<keepdims=0>(ink, places) divisor = Max(area, one) scores = Div(sums, divisor)
"""
# From there to three boxes: everything that a head may want is [n, 3], `classes` is [n, channels, 3].
_BOXES = """
    x_left = Cast<to=1>(left) x_right = Cast<to=1>(beyond) y_top = Cast<to=1>(top) y_below = Cast<to=1>(below)
    width = Sub(x_right, x_left) shift = Mul(width, shifts) still = Mul(shift, none) sure = Add(still, one)
    x1 = Add(x_left, shift) x2 = Add(x_right, shift) y1 = Add(y_top, still) y2 = Add(y_below, still)
    x_sum = Add(x1, x2) cx = Mul(x_sum, half) y_sum = Add(y1, y2) cy = Mul(y_sum, half)
    w = Sub(x2, x1) h = Sub(y2, y1) columns = Unsqueeze(scores, second) classes = Mul(columns, gains)
    cell_x = Div(cx, stride) x = Sub(cell_x, cells) y = Div(cy, stride)
    cell_w = Div(w, stride) log_w = Log(cell_w) cell_h = Div(h, stride) log_h = Log(cell_h)
"""
# Each head's rows before the classes, and the nodes from those rows, [n, rows, 3], to the output.
_TURN = "Transpose<perm=[0,2,1]>"
_HEADS = {
    "yolov8": ("cx, cy, w, h", "end = Concat<axis=1>(rows, classes)"),
    "yolov5": ("cx, cy, w, h, sure", f"all = Concat<axis=1>(rows, classes) end = {_TURN}(all)"),
    "yolox": (
        "x, y, log_w, log_h, sure",
        f"all = Concat<axis=1>(rows, classes) few = {_TURN}(all) end = Pad(few, empty, none)",
    ),
    "yolo_end2end": (
        "x1, y1, x2, y2",
        "best = ReduceMax<axes=[1]>(classes) index = ArgMax<axis=1>(classes) id = Cast<to=1>(index) "
        f"all = Concat<axis=1>(rows, best, id) end = {_TURN}(all)",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Finder:
    """One form. Its labels are the channels in the order of `color`, each scored by its mean in the rectangle, 0 to 1.

    A detector has three boxes: the rectangle, the same one to the right of it at half the score, and the rectangle once
    more at 0.8 of the score, for suppression to take away. A classifier's logits are four times the scores. `raw` has
    outputs of four types, `box`, `marks`, `found` and `inked_area`. Where nothing is bright, all scores are zero.

    Attributes:
        head: as model.toml names it.
        batch: fixed in the graph, or None.
        open_size: the graph leaves the size open, and model.toml settles it.
        scale: that the graph expects: 1/255 or 1.
        mean: that the graph expects, and `std`: for each channel.
        sizes: the only batch sizes, by model.toml.
    """

    head: str = "yolov8"
    dtype: Literal["float32", "float16", "uint8"] = "float32"
    layout: Literal["nchw", "nhwc"] = "nchw"
    color: Literal["rgb", "bgr", "gray"] = "rgb"
    width: int = 64
    height: int = 48
    batch: int | None = None
    open_size: bool = False
    resize: str = "letterbox"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    activation: str = "none"
    sizes: tuple[int, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, by class id."""
        return LABELS[self.color]

    @property
    def channels(self) -> int:
        """Of the input."""
        return len(self.labels)

    def scores(self) -> np.ndarray:
        """What the rectangle scores, by class id."""
        if self.color == "gray":
            return np.array([round(np.dot(COLOUR, (0.299, 0.587, 0.114)))]) / 255
        return np.array(COLOUR if self.color == "rgb" else COLOUR[::-1]) / 255

    def save(self, models: Path, name: str) -> Path:
        """Put the file and its model.toml where the repository looks for them."""
        path = save_model(models, name, self.model())
        (path.parent / "model.toml").write_text(self.description())
        return path

    def description(self) -> str:
        """What the file does not say of itself."""
        size = f"size = {{ width = {self.width}, height = {self.height} }}\n" if self.open_size else ""
        norm = f"mean = {list(self.mean)}\nstd = {list(self.std)}\n" if self.head == "classification" else ""
        values = f"scale = {self.scale}\n{norm}" if self.dtype != "uint8" else ""
        activation = f'activation = "{self.activation}"\n' if self.head == "classification" else ""
        batch = f"[batch]\nsizes = {list(self.sizes)}\n" if self.sizes else ""
        return (
            f'labels = {list(self.labels)}\n[input]\ncolor = "{self.color}"\n{size}'
            f'[preprocess]\nresize = "{self.resize}"\n{values}[output]\nhead = "{self.head}"\n{activation}{batch}'
        )

    def model(self, **metadata: str) -> ModelProto:
        """The file."""
        kind, told, element = _ELEMENTS[self.dtype]
        height, width = ("h", "w") if self.open_size else (self.height, self.width)
        axes = f"{self.channels},{height},{width}" if self.layout == "nchw" else f"{height},{width},{self.channels}"
        outputs = self._outputs(told)
        batch = self.batch or "batch"
        signature = ", ".join(f"{each}[{batch},{shape}] {name}" for name, (each, shape) in outputs.items())
        scale, mean, std = (1, (0,) * 3, (1,) * 3) if self.dtype == "uint8" else (self.scale, self.mean, self.std)
        return text_model(
            f"""({kind}[{batch},{axes}] images) => ({signature})
            <float[1,{self.channels},1,1] std = {_listed(std[: self.channels])}, float unit = {{{1 / (255 * scale)}}},
            float[1,{self.channels},1,1] mean = {_listed(mean[: self.channels])}, float bright = {{0.7}},
            float one = {{1}}, float half = {{0.5}}, float none = {{0}}, float four = {{4}}, float stride = {{8}},
            int64 next = {{1}}, int64[1] second = {{2}}, int64[2] places = {{2, 3}},
            float[1,1,3] gains = {{1, 0.5, 0.8}}, float[1,3] shifts = {{0, 1, 0}}, float[1,3] cells = {{0, 1, 2}},
            int64[3] by_box = {{0, -1, 3}}, int64[6] empty = {{0, 0, 0, 0, {self._grid_rows - 3}, 0}}>
            {{
            real = Cast<to=1>(images)
            planes = {"Identity" if self.layout == "nchw" else "Transpose<perm=[0,3,1,2]>"}(real)
            {_FIND} {self._ends(element)}
            }}""",
            **metadata,
        )

    @property
    def _grid_rows(self) -> int:
        return sum((self.width // stride) * (self.height // stride) for stride in (8, 16, 32))

    def _outputs(self, kind: str) -> dict[str, tuple[str, str]]:
        """Type and shape of each output, without the batch."""
        if self.head == "raw":
            types, shapes = ("int64", "float16", "bool", "double"), ("4", f"{self.channels}", "1", "1,1")
            return dict(zip(("box", "marks", "found", "inked_area"), zip(types, shapes, strict=True), strict=True))
        count = self.channels
        shape_of = {
            "yolov8": f"{4 + count},3",
            "yolov5": f"3,{5 + count}",
            "yolox": f"{self._grid_rows},{5 + count}",
            "yolo_end2end": "3,6",
            "classification": f"{count}",
        }
        return {"output0": (kind, shape_of[self.head])}

    def _ends(self, element: int) -> str:
        """The nodes from the scores to the outputs."""
        if self.head == "raw":
            return (
                "box = Concat<axis=1>(left, top, beyond, below) marks = Cast<to=10>(scores) "
                "found = Greater(area, none) wide = Unsqueeze(area, second) inked_area = Cast<to=11>(wide)"
            )
        if self.head == "classification":
            logits = "Identity(scores)" if self.activation == "none" else "Mul(scores, four)"
            return f"end = {logits} output0 = Cast<to={element}>(end)"
        rows, end = _HEADS[self.head]
        gather = f"flat = Concat<axis=1>({rows}) rows = Reshape(flat, by_box)"
        return f"{_BOXES} {gather} {end} output0 = Cast<to={element}>(end)"


def bright_picture(box: Box, *, width: int = 128, height: int = 72) -> Pixels:
    """A dark RGB picture with one bright rectangle."""
    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    x1, y1, x2, y2 = box
    picture[y1:y2, x1:x2] = COLOUR
    return picture


def bright_png(box: Box) -> bytes:
    """The same as a file; half of its 128x72 pixels each way fill the width of 64 pixels."""
    return png(bright_picture(box))


def _listed(numbers: object) -> str:
    return "{" + ", ".join(str(float(number)) for number in numbers) + "}"  # type: ignore[attr-defined]
