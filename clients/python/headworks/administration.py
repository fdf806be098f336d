"""The models of a server, asked and moved by an administrator: `ModelService`, one call at a time.

Used by `headworks models`. Works on exactly one server: which one an order went to must never be in doubt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import grpc

from headworks.errors import HeadworksError
from headworks.transport import Access
from headworks.v1 import frame_pb2 as fpb
from headworks.v1 import model_pb2 as pb
from headworks.v1 import model_pb2_grpc

ASK_S = 30.0
"""How long a question may take; an order takes as long as a model takes to load."""


class AdministrationFailedError(HeadworksError):
    """The server did not do what was asked.

    Attributes:
        code: name of the gRPC status, such as "FAILED_PRECONDITION".
        detail: the reason.
    """

    def __init__(self, target: str, code: str, detail: str) -> None:
        super().__init__(f"{target}: {detail}" if code in _EXPLAINED else f"{target}: {code}: {detail}")
        self.code = code
        self.detail = detail


_EXPLAINED = {
    "UNIMPLEMENTED": "this server does not let itself be administered: start it with --admin",
    "UNAVAILABLE": "unavailable: {}; is the server running? Start one with: headworks serve DIR --admin",
    "DEADLINE_EXCEEDED": f"expected an answer within {ASK_S:.0f} s, got none",
}


class Administration:
    """A connection to the ModelService of one server.

    Every method raises AdministrationFailedError where the server refuses or cannot be reached, and CredentialsError
    where a file with a certificate or a token cannot be used. A version of "" is the current one.

    Args:
        access: the server and the right to speak to it.

    Raises:
        ValueError: several servers are given.
    """

    def __init__(self, access: Access) -> None:
        if len(access.targets) != 1:
            raise ValueError(f"expected one server to administer, got {len(access.targets)}")
        self.target = access.targets[0]
        self._access = access
        self._channel = access.channel(self.target, grpc)
        self._service: Any = model_pb2_grpc.ModelServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Administration:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.close()

    def models(self) -> pb.ListModelsResponse:
        """Return all models and the memory they share."""
        answer: pb.ListModelsResponse = self._call(self._service.ListModels, pb.ListModelsRequest(), timeout=ASK_S)
        return answer

    def statistics(self, names: Iterable[str] = ()) -> list[pb.ModelStatistics]:
        """Return the counters of those models, or of all."""
        request = pb.GetModelStatisticsRequest(models=[fpb.ModelSelector(name=name) for name in names])
        return list(self._call(self._service.GetModelStatistics, request, timeout=ASK_S).models)

    def load(self, name: str, version: str = "") -> pb.ModelStatus:
        """Load a model; returns when it is ready."""
        return self._order(self._service.LoadModel, pb.LoadModelRequest(model=_selector(name, version)))

    def unload(self, name: str, version: str = "") -> pb.ModelStatus:
        """Unload a model that nobody uses."""
        return self._order(self._service.UnloadModel, pb.UnloadModelRequest(model=_selector(name, version)))

    def pin(self, name: str, version: str = "") -> pb.ModelStatus:
        """Load a model, and keep it resident."""
        return self._order(self._service.PinModel, pb.PinModelRequest(model=_selector(name, version)))

    def unpin(self, name: str, version: str = "") -> pb.ModelStatus:
        """Make a pinned model an ordinary one."""
        return self._order(self._service.UnpinModel, pb.UnpinModelRequest(model=_selector(name, version)))

    def swap(self, name: str, version: str = "", *, back: bool = False) -> pb.ModelStatus:
        """Serve a version, "" for the newest in the folder, or what served before; returns when streams have moved."""
        return self._order(self._service.SwapModel, pb.SwapModelRequest(model=_selector(name, version), back=back))

    def _order(self, method: Callable[..., Any], request: Any) -> pb.ModelStatus:
        status: pb.ModelStatus = self._call(method, request, timeout=None).model
        return status

    def _call(self, method: Callable[..., Any], request: Any, *, timeout: float | None) -> Any:
        try:
            return method(request, timeout=timeout, metadata=self._access.metadata())
        except grpc.RpcError as error:
            code = error.code().name
            detail = error.details() or "no reason was given"
            raise AdministrationFailedError(self.target, code, _EXPLAINED.get(code, "{}").format(detail)) from error


def _selector(name: str, version: str) -> fpb.ModelSelector:
    return fpb.ModelSelector(name=name, version=version)
