"""From a model's file to the model as it is served: facts, head and settings become one `ModelSpec`, or an error.

`app.py` calls `load_models` once at start. It is the one place where engine/ (what the file says) and media/ (what the
exporter meant) meet, and where a model that cannot be served is refused, with the file, the expectation and the fact.
"""

from __future__ import annotations

from pathlib import Path

from headworks_server.config import Settings
from headworks_server.engine.base import CHANNELS, DecodeScale, InputSpec, Layout, ModelSpec, PixelType
from headworks_server.engine.repository import ModelFile, ModelRepository, TensorFacts
from headworks_server.errors import ConfigError, ModelError
from headworks_server.media.heads import DetectorMetadata, Yolov8Head, read_ultralytics

PIXEL_TYPES: dict[str, PixelType] = {"float": "float32", "uint8": "uint8"}


def load_models(settings: Settings) -> tuple[ModelSpec, ...]:
    """Read every model of `settings.models`, by name.

    Raises:
        ConfigError: no folder is set.
        ModelError: the folder or a model in it cannot be served.
    """
    if settings.models is None:
        raise ConfigError("models: expected a folder of models, got none")
    return tuple(
        detector_spec(
            file,
            max_batch=settings.max_batch,
            score_threshold=settings.score_threshold,
            iou_threshold=settings.iou_threshold,
            max_detections=settings.max_detections,
            decode_scale=settings.decode_scale,
        )
        for file in ModelRepository(settings.models).read_all()
    )


def stand_in_model(name: str = "stand-in", *, max_batch: int, max_detections: int = 300) -> ModelSpec:
    """The model that the backends `sleeping` and `null` claim to serve; there is no file."""
    return ModelSpec(
        name=name,
        version="1",
        digest="0" * 64,
        path=Path(),
        labels=tuple(f"class-{number}" for number in range(256)),  # the class is a byte of the frame
        input=InputSpec(name="images", dtype="uint8", layout="nhwc", width=64, height=64),
        output="output0",
        fixed_batch=None,
        max_batch=max_batch,
        max_detections=max_detections,
    )


def detector_spec(
    file: ModelFile,
    *,
    max_batch: int,
    score_threshold: float = 0.25,
    iou_threshold: float = 0.45,
    max_detections: int = 300,
    decode_scale: DecodeScale = "auto",
) -> ModelSpec:
    """Merge one detector's facts with its exporter's metadata.

    Arguments:
        file: what the file says.
        max_batch: the largest batch where the graph takes any; a fixed batch overrides it.
        score_threshold: as in `ModelSpec`, like the others.

    Raises:
        ModelError: the model is not a `yolov8` detector as this server runs them.
    """
    metadata = read_ultralytics(file.metadata, path=file.path)
    if len(file.inputs) != 1 or len(file.outputs) != 1:
        raise _refused(file, "one input and one output", f"{len(file.inputs)} and {len(file.outputs)}")
    (tensor,) = file.inputs
    dtype = PIXEL_TYPES.get(tensor.dtype)
    if dtype is None:
        raise _refused(file, f"input {tensor.name!r} of float or uint8", tensor.dtype)
    layout = _layout(file, tensor, dtype)
    width, height = _size(file, tensor, layout, metadata)
    _check_output(file, file.outputs[0], metadata.labels)
    fixed_batch = _known(tensor.shape[0])
    return ModelSpec(
        name=file.name,
        version=file.version,
        digest=file.digest,
        path=file.path,
        labels=metadata.labels,
        input=InputSpec(name=tensor.name, dtype=dtype, layout=layout, width=width, height=height),
        output=file.outputs[0].name,
        fixed_batch=fixed_batch,
        max_batch=fixed_batch or max_batch,
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        max_detections=max_detections,
        decode_scale=decode_scale,
    )


def _layout(file: ModelFile, tensor: TensorFacts, dtype: PixelType) -> Layout:
    if len(tensor.shape) == 4 and tensor.shape[1] == CHANNELS:
        return "nchw"
    # The pixel kernel writes floats in planes only.
    if len(tensor.shape) == 4 and tensor.shape[3] == CHANNELS and dtype == "uint8":
        return "nhwc"
    nhwc = " or [batch, height, width, 3]" if dtype == "uint8" else ""
    raise _refused(file, f"input {tensor.name!r} of [batch, 3, height, width]{nhwc}", _shape(tensor))


def _size(file: ModelFile, tensor: TensorFacts, layout: Layout, metadata: DetectorMetadata) -> tuple[int, int]:
    axes = tensor.shape[2:4] if layout == "nchw" else tensor.shape[1:3]
    height, width = (_known(axis) for axis in axes)
    # Where the graph leaves its size open, the exporter's imgsz settles it; where both speak, they must agree.
    if height not in (None, metadata.height) or width not in (None, metadata.width):
        told = f"{metadata.width}x{metadata.height} pixels, as imgsz in the metadata says"
        raise _refused(file, f"input {tensor.name!r} of {told}", _shape(tensor))
    return metadata.width, metadata.height


def _check_output(file: ModelFile, tensor: TensorFacts, labels: tuple[str, ...]) -> None:
    if tensor.dtype != "float":
        raise _refused(file, f"output {tensor.name!r} of float", tensor.dtype)
    try:
        Yolov8Head(labels).check(tensor.shape)
    except ModelError as error:
        raise ModelError(f"{file.path}: {error}") from error


def _known(axis: int | str | None) -> int | None:
    return axis if isinstance(axis, int) and axis > 0 else None


def _shape(tensor: TensorFacts) -> str:
    return "[" + ", ".join("?" if axis is None else str(axis) for axis in tensor.shape) + "]"


def _refused(file: ModelFile, expected: str, fact: str) -> ModelError:
    return ModelError(f"{file.path}: expected {expected}, got {fact}")
