"""What an Open or an InferFrame asks, turned into what the call runs with; or the reason why it is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from headworks.v1 import frame_pb2 as pb
from headworks_server.core.facts import ModelFacts
from headworks_server.core.grant import Grant, Policy, Refusal, grant
from headworks_server.core.model import ServedModel
from headworks_server.rpc.status import RefusalKind

POLICIES = {"latest": Policy.LATEST, "bounded": Policy.BOUNDED, "every_frame": Policy.EVERY_FRAME}
MAX_TOP_K = 1000  # for a model that does not say how many classes it has


class OpenRefusedError(ValueError):
    """What is asked for cannot be granted.

    Attributes:
        kind: which gRPC status says so.
        detail: what was expected and what came, as told to the client.
    """

    def __init__(self, kind: RefusalKind, detail: str) -> None:
        super().__init__(detail)
        self.kind: RefusalKind = kind
        self.detail = detail


class ModelNames(Protocol):
    """What a client may name."""

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """What serves under each name now."""
        ...

    def version(self, name: str, version: str) -> ServedModel | None:
        """A version that serves beside the current one."""
        ...


class ResultForm(NamedTuple):
    """What a result carries.

    Attributes:
        form: a number of `ResultOptions.Form`, never 0.
        score_threshold: only scores above it are told.
        max_detections: of one result; of classifications, how many classes.
    """

    form: int
    score_threshold: float
    max_detections: int


@dataclass(frozen=True, slots=True)
class Opening:
    """What a call runs with.

    Attributes:
        model: which serves its frames.
        version: the one that was asked for; "" follows the name.
        grant: how they wait.
        result: what its results carry.
        asked: what was asked of its results.
    """

    model: ServedModel
    version: str
    grant: Grant
    result: ResultForm
    asked: pb.ResultOptions


def resolve(request: pb.Open, models: ModelNames) -> Opening:
    """Decide an Open.

    Raises:
        OpenRefusedError: the model is not there, or what is asked makes no sense or is not served.
    """
    selector, model = _select(request.models, models, "Open")
    bounded = request.drop_policy.bounded
    if bounded.drop not in pb.BoundedPolicy.DropSide.values():
        raise OpenRefusedError(
            "invalid_argument", f"BOUNDED: expected to drop the oldest or newest, got {bounded.drop}"
        )
    granted = grant(
        policy=POLICIES[request.drop_policy.WhichOneof("policy") or "latest"],
        depth=bounded.depth,
        drop_newest=bounded.drop == pb.BoundedPolicy.DROP_SIDE_NEWEST,
        max_in_flight=request.max_in_flight,
        deadline_ms=request.deadline_ms,
        weight=request.weight,
        max_fps=request.max_fps,
    )
    if isinstance(granted, Refusal):
        raise OpenRefusedError("invalid_argument", granted.detail)
    return _opening(selector, model, granted, request.result)


def resolve_infer(request: pb.InferFrameRequest, models: ModelNames, *, time_remaining_s: float | None) -> Opening:
    """Decide an InferFrame; its frame has what is left of the call's deadline, None for no deadline.

    Raises:
        OpenRefusedError: the model is not there, or what is asked makes no sense or is not served.
    """
    selector, model = _select([request.model], models, "InferFrame")
    deadline_ns = 0 if time_remaining_s is None else max(int(time_remaining_s * 1e9), 1)
    return _opening(selector, model, Grant(max_in_flight=1, window=1, deadline_ns=deadline_ns), request.result)


def result_form(facts: ModelFacts, asked: pb.ResultOptions) -> ResultForm:
    """What results of a model carry where that is asked.

    Raises:
        OpenRefusedError: it makes no sense, or the model does not serve it.
    """
    if not 0.0 <= asked.score_threshold <= 1.0:
        raise OpenRefusedError("invalid_argument", f"score_threshold: expected 0 to 1, got {asked.score_threshold:g}")
    form = _form(facts, asked.form)
    if form == pb.ResultOptions.FORM_CLASSIFICATIONS:
        most = min(asked.top_k or facts.top_k, len(facts.labels) or MAX_TOP_K)
    else:
        most = min(asked.max_detections or facts.max_detections, facts.max_detections)
    return ResultForm(form, asked.score_threshold or facts.score_threshold, most)


def _opening(selector: pb.ModelSelector, model: ServedModel, granted: Grant, asked: pb.ResultOptions) -> Opening:
    return Opening(
        model=model,
        version=selector.version,
        grant=granted,
        result=result_form(model.facts, asked),
        asked=asked,
    )


def _form(facts: ModelFacts, asked: int) -> int:
    if not asked:
        return facts.forms[0]
    if asked not in facts.forms:
        names = dict(zip(pb.ResultOptions.Form.values(), pb.ResultOptions.Form.keys(), strict=True))
        served = " or ".join(names[form] for form in facts.forms)
        form = names.get(asked, f"form {asked}, which this release does not know")
        raise OpenRefusedError("invalid_argument", f"{facts.name}: expected results as {served}, got {form}")
    return asked


def _select(
    selectors: Sequence[pb.ModelSelector], names: ModelNames, where: str
) -> tuple[pb.ModelSelector, ServedModel]:
    models = names.models
    served = ", ".join(sorted(models)) or "none"
    if len(selectors) > 1:
        listed = ", ".join(selector.name for selector in selectors)
        raise OpenRefusedError("unimplemented", f"expected one model in {where}, got {len(selectors)}: {listed}")
    selector = selectors[0] if selectors else pb.ModelSelector()
    if not selector.name:
        if len(models) == 1:
            return selector, next(iter(models.values()))
        raise OpenRefusedError("invalid_argument", f"expected a model's name in {where}: this server has {served}")
    model = models.get(selector.name)
    if model is None:
        raise OpenRefusedError("not_found", f"no model {selector.name!r}: this server has {served}")
    if selector.version in ("", model.facts.version):
        return selector, model
    beside = names.version(selector.name, selector.version)
    if beside is not None:
        return selector, beside
    raise OpenRefusedError(
        "not_found",
        f"no version {selector.version!r} of {selector.name!r}: this server has {model.facts.version!r} "
        "(an administrator may load another one beside it)",
    )
