"""ModelService: what administrators ask of the models, as gRPC. Registered by `GrpcServer` where the server has it on.

It decides who may ask, holds names against the rules before anything else sees them, and writes a log line for each
call with who asked what and how it ended. What is asked for is done by a `ModelAdministration`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
import structlog

from headworks.v1 import frame_pb2 as fpb
from headworks.v1 import model_pb2 as pb
from headworks.v1 import model_pb2_grpc
from headworks_server.core.administration import AdministrationError, ModelAdministration, ModelReport, Residency
from headworks_server.core.ledger import Ledger
from headworks_server.core.names import name_fault
from headworks_server.rpc.auth import principal_of
from headworks_server.rpc.codec import ledger_message, model_info
from headworks_server.rpc.status import STATUS

log = structlog.get_logger("headworks.administration")

MODEL_SERVICE = "headworks.v1.ModelService"
COUNTERS = ("hits", "loads", "failures", "evictions", "falls", "reloads")

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Response = TypeVar("Response")


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """The servicer of `headworks.v1.ModelService`.

    What was begun for a client that goes away is carried on to its end: nobody shall find half a swap.

    Arguments:
        models: does what is asked for.
        ledger: the frames of a model by outcome since the start.
        admins: names of tokens or certificates; where there are none, whoever was let in is one.
    """

    def __init__(
        self, models: ModelAdministration, ledger: Callable[[str], Ledger], *, admins: Sequence[str] = ()
    ) -> None:
        self._models = models
        self._ledger = ledger
        self._admins = frozenset(admins)
        self._running: set[asyncio.Task[Any]] = set()

    async def ListModels(self, _request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        """All models and the memory they share."""
        return await self._answer(context, "ListModels", self._list())

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:  # noqa: N802
        """One model."""
        work = self._get(request.model)
        return pb.GetModelResponse(model=await self._answer(context, "GetModel", work, request.model))

    async def LoadModel(self, request: pb.LoadModelRequest, context: Context) -> pb.LoadModelResponse:  # noqa: N802
        """Load a model."""
        work = self._move(self._models.load, request.model)
        return pb.LoadModelResponse(model=await self._answer(context, "LoadModel", work, request.model))

    async def UnloadModel(self, request: pb.UnloadModelRequest, context: Context) -> pb.UnloadModelResponse:  # noqa: N802
        """Unload a model."""
        work = self._move(self._models.unload, request.model)
        return pb.UnloadModelResponse(model=await self._answer(context, "UnloadModel", work, request.model))

    async def PinModel(self, request: pb.PinModelRequest, context: Context) -> pb.PinModelResponse:  # noqa: N802
        """Load a model, and keep it."""
        work = self._move(self._models.pin, request.model)
        return pb.PinModelResponse(model=await self._answer(context, "PinModel", work, request.model))

    async def UnpinModel(self, request: pb.UnpinModelRequest, context: Context) -> pb.UnpinModelResponse:  # noqa: N802
        """Make a pinned model an ordinary one."""
        work = self._move(self._models.unpin, request.model)
        return pb.UnpinModelResponse(model=await self._answer(context, "UnpinModel", work, request.model))

    async def SwapModel(self, request: pb.SwapModelRequest, context: Context) -> pb.SwapModelResponse:  # noqa: N802
        """Serve another version of a model."""
        work = self._swap(request)
        answer = await self._answer(context, "SwapModel", work, request.model, back=request.back)
        return pb.SwapModelResponse(model=answer)

    async def GetModelStatistics(  # noqa: N802
        self, request: pb.GetModelStatisticsRequest, context: Context
    ) -> pb.GetModelStatisticsResponse:
        """Counters by name."""
        return await self._answer(context, "GetModelStatistics", self._statistics(request.models), *request.models)

    # What each call does. All of it is on the loop; what raises AdministrationError has changed nothing.

    async def _list(self) -> pb.ListModelsResponse:
        memory = self._models.memory()
        return pb.ListModelsResponse(
            models=[status_message(report) for report in self._models.reports()],
            memory=pb.ModelMemory(
                budget_bytes=memory.budget_bytes,
                used_bytes=memory.used_bytes,
                over_bytes=memory.over_bytes,
                thrashing=memory.thrashing,
            ),
        )

    async def _get(self, selector: fpb.ModelSelector) -> pb.ModelStatus:
        return status_message(self._models.report(selector.name, selector.version))

    async def _move(
        self, move: Callable[[str, str], Coroutine[Any, Any, ModelReport]], selector: fpb.ModelSelector
    ) -> pb.ModelStatus:
        return status_message(await move(selector.name, selector.version))

    async def _swap(self, request: pb.SwapModelRequest) -> pb.ModelStatus:
        selector = request.model
        if request.back and selector.version:
            fact = f"expected no version on the way back, got {selector.version!r}"
            raise AdministrationError("invalid_argument", f"{selector.name}: {fact}")
        return status_message(await self._models.swap(selector.name, selector.version, back=request.back))

    async def _statistics(self, selectors: Iterable[fpb.ModelSelector]) -> pb.GetModelStatisticsResponse:
        for selector in selectors:
            if selector.version:
                fact = f"expected no version, since versions are counted together, got {selector.version!r}"
                raise AdministrationError("invalid_argument", f"{selector.name}: {fact}")
        reports = self._models.reports()
        names = {selector.name for selector in selectors} or {report.facts.name for report in reports}
        return pb.GetModelStatisticsResponse(
            models=[self._statistics_of(self._models.report(name), reports) for name in sorted(names)]
        )

    def _statistics_of(self, current: ModelReport, reports: Iterable[ModelReport]) -> pb.ModelStatistics:
        name = current.facts.name
        residencies = [report.residency for report in reports if report.facts.name == name]
        total = Residency(
            **{counter: sum(getattr(each, counter) for each in residencies) for counter in COUNTERS},
            last_load_seconds=current.residency.last_load_seconds,
        )
        return pb.ModelStatistics(
            info=model_info(current.facts),
            batch_sizes=self._models.batch_sizes(name),
            executed_seconds=self._models.executed_seconds(name),
            ledger=ledger_message(self._ledger(name)),
            residency=_residency_message(total),
        )

    # Every call.

    async def _answer(
        self,
        context: Context,
        method: str,
        work: Coroutine[Any, Any, Response],
        *selectors: fpb.ModelSelector,
        **asked: bool,
    ) -> Response:
        """Do the work if the caller and the names are as they must be; else, or where it fails, end the call."""
        principal = principal_of(context)
        call = log.bind(
            method=method,
            principal=principal,
            peer=context.peer(),
            models=[f"{each.name[:80]}:{each.version[:80]}".rstrip(":") for each in selectors[:8]],
            **{key: True for key, value in asked.items() if value},
        )
        refusal = self._refusal(principal, selectors)
        if refusal is not None:
            work.close()
            code, detail = refusal
            call.warning("administration", outcome=code.name, detail=detail)
            await _end(context, code, detail)
        task = asyncio.get_running_loop().create_task(_told(work, call))
        self._running.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._running.discard)
        answer, code, detail = await asyncio.shield(task)
        if answer is None:
            await _end(context, code, detail)
        return answer

    def _refusal(self, principal: str, selectors: Iterable[fpb.ModelSelector]) -> tuple[grpc.StatusCode, str] | None:
        if self._admins and principal not in self._admins:
            who = repr(principal) if principal else "a client without a name"
            return grpc.StatusCode.PERMISSION_DENIED, f"expected one of the server's admins, got {who}"
        for selector in selectors:
            fault = name_fault("model", selector.name)
            if not fault and selector.version:
                fault = name_fault(f"version of {selector.name}", selector.version)
            if fault:
                return grpc.StatusCode.INVALID_ARGUMENT, fault
        return None


async def _told(work: Coroutine[Any, Any, Response], call: Any) -> tuple[Response | None, grpc.StatusCode, str]:
    """What came of the work, as a status; the log hears of it, whether or not its client still waits."""
    began = time.monotonic()
    try:
        answer = await work
    except AdministrationError as error:
        code, detail = STATUS[error.kind], error.detail
        call.warning("administration", outcome=code.name, detail=detail, seconds=round(time.monotonic() - began, 3))
        return None, code, detail
    except Exception as error:
        code, detail = grpc.StatusCode.INTERNAL, f"a defect of the server: {error!r}"
        call.exception("administration", outcome=code.name, detail=detail)
        return None, code, detail
    call.info("administration", outcome="OK", seconds=round(time.monotonic() - began, 3))
    return answer, grpc.StatusCode.OK, ""


async def _end(context: Context, code: grpc.StatusCode, detail: str) -> NoReturn:
    """End a call with a status."""
    try:
        await context.abort(code, detail)
    except grpc.aio.AbortError:
        raise
    except grpc.aio.BaseError as error:  # the client, or its deadline, was faster by a turn of the loop
        raise asyncio.CancelledError from error
    raise AssertionError("abort always raises")


def status_message(report: ModelReport) -> pb.ModelStatus:
    """Return a model's state as it is told."""
    state: Any = int(report.state)
    return pb.ModelStatus(
        info=model_info(report.facts),
        state=state,
        detail=report.detail,
        resident_bytes=report.resident_bytes,
        leases=report.leases,
        pinned=report.pinned,
        current=report.current,
        backends=report.backends,
        curve=[pb.CurvePoint(batch_size=size, seconds=seconds) for size, seconds in report.curve],
        target_batch=report.target_batch,
        residency=_residency_message(report.residency),
    )


def _residency_message(residency: Residency) -> pb.ResidencyCounters:
    counters = {counter: getattr(residency, counter) for counter in COUNTERS}
    return pb.ResidencyCounters(last_load_seconds=residency.last_load_seconds, **counters)
