"""Raw tensors: all outputs of a model, untouched, as the Open Inference Protocol names and orders them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from headworks.v1 import frame_pb2 as pb
from headworks_server.errors import ModelError
from headworks_server.media.geometry import Geometry
from headworks_server.media.heads.base import RAW_TENSORS, Array
from headworks_server.media.specs import Model, Tensor

DATATYPES: Final = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
# Tags of fields that hold a length and bytes.
_OUTPUT_RAW_TENSORS: Final = bytes([pb.Output.RAW_TENSORS_FIELD_NUMBER << 3 | 2])
_RAW_TENSORS_TENSORS: Final = bytes([pb.RawTensors.TENSORS_FIELD_NUMBER << 3 | 2])
_RAW_TENSOR_DATA: Final = bytes([pb.RawTensor.DATA_FIELD_NUMBER << 3 | 2])


class RawHead:
    """Tells every output. The values are copied once, from the executor's array into the message."""

    form = RAW_TENSORS

    def __init__(self, model: Model) -> None:
        """Make the head of a model."""
        self._names = tuple(tensor.name for tensor in model.output.tensors)

    def check(self, tensors: Sequence[Tensor]) -> None:
        """See `Head`."""
        for tensor in tensors:
            if tensor.dtype not in DATATYPES:
                raise ModelError(f"output {tensor.name!r}: expected numbers or booleans, got {tensor.dtype}")

    def postprocess(
        self,
        outputs: Sequence[Array],
        index: int,
        geometry: Geometry,  # noqa: ARG002  (nothing is placed)
        *,
        score_threshold: float,  # noqa: ARG002
        max_detections: int,  # noqa: ARG002
    ) -> tuple[bytes, bytes]:
        """See `Head`; thresholds and counts do not apply."""
        parts: list[bytes | memoryview] = []
        for name, output in zip(self._names, outputs, strict=True):
            parts += _tensor(name, np.asarray(output[index, ...], order="C"))
        size = sum(len(part) for part in parts)
        return b"", b"".join([_OUTPUT_RAW_TENSORS, _varint(size), *parts])


def _tensor(name: str, values: Array) -> list[bytes | memoryview]:
    """One RawTensor as a field of RawTensors, in the parts it is joined from; protobuf would copy the data twice."""
    head = pb.RawTensor(name=name, datatype=DATATYPES[values.dtype.name], shape=values.shape).SerializeToString()
    data: list[bytes | memoryview] = []
    if values.size:
        data = [_RAW_TENSOR_DATA, _varint(values.nbytes), values.reshape(-1).view(np.uint8).data]
    size = len(head) + sum(len(part) for part in data)
    return [_RAW_TENSORS_TENSORS, _varint(size), head, *data]


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
