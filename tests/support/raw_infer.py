"""A caller of InferFrame made from bare gRPC stubs: one image, one answer or one status. For integration tests."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import grpc

from headworks.v1 import frame_pb2 as pb
from support.raw_camera import open_channel
from support.server import PATIENCE_S

INFER_FRAME = "/headworks.v1.FrameService/InferFrame"


def infer_request(
    data: bytes, model: str = "", encoding: int = pb.ENCODING_JPEG, *, frame_id: int = 0, **fields: Any
) -> pb.InferFrameRequest:
    """A request for one image."""
    frame = pb.Frame(frame_id=frame_id, encoding=encoding, data=data)  # type: ignore[arg-type]
    selector = pb.ModelSelector(name=model) if model else None
    return pb.InferFrameRequest(model=selector, frame=frame, **fields)


class RawCaller:
    """A connection to call InferFrame on; use it in a `with`."""

    def __init__(self, target: str) -> None:
        self._channel = open_channel(target)
        self._infer = self._channel.unary_unary(INFER_FRAME)

    def __enter__(self) -> RawCaller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.close()

    def start(self, request: pb.InferFrameRequest | bytes, *, timeout: float = PATIENCE_S) -> Any:
        """Call without waiting; bytes are sent as they are. Returns the call, which is a future."""
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        return self._infer.future(raw, timeout=timeout)

    def ask(self, request: pb.InferFrameRequest) -> pb.Result:
        """Call, and return the result."""
        return result_of(self.start(request))

    def refused(
        self, request: pb.InferFrameRequest | bytes, *, timeout: float = PATIENCE_S
    ) -> tuple[grpc.StatusCode, str]:
        """Call, and return the status that it ends with, which is not OK."""
        return status_of(self.start(request, timeout=timeout))


def result_of(call: Any) -> pb.Result:
    """Wait for the answer to a call."""
    return pb.InferFrameResponse.FromString(call.result(PATIENCE_S)).result


def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """Wait for the end of a call; return its status and detail."""
    return call.code(), call.details()
