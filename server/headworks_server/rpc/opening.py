"""What an Open asks, turned into what a stream runs with; or the reason why it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headworks.v1 import frame_pb2 as pb
from headworks_server.core.grant import Grant, Policy, Refusal, grant
from headworks_server.core.model import ServedModel
from headworks_server.rpc.status import RefusalKind

POLICIES = {"latest": Policy.LATEST, "bounded": Policy.BOUNDED, "every_frame": Policy.EVERY_FRAME}
FORMS = (pb.ResultOptions.FORM_UNSPECIFIED, pb.ResultOptions.FORM_DETECTIONS)


class OpenRefusedError(ValueError):
    """The Open cannot be granted.

    Attributes:
        kind: which gRPC status says so.
        detail: what was expected and what came, as told to the client.
    """

    def __init__(self, kind: RefusalKind, detail: str) -> None:
        super().__init__(detail)
        self.kind: RefusalKind = kind
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Opening:
    """What a stream runs with."""

    model: ServedModel
    grant: Grant
    score_threshold: float
    max_detections: int


def resolve(request: pb.Open, models: Mapping[str, ServedModel]) -> Opening:
    """Decide an Open.

    Raises:
        OpenRefusedError: the model is not there, or the request wants what this release does not serve.
    """
    model = _select(request, models)
    facts = model.facts
    if request.result.form not in FORMS:
        names = dict(zip(pb.ResultOptions.Form.values(), pb.ResultOptions.Form.keys(), strict=True))
        form = names.get(request.result.form, f"form {request.result.form}, which this release does not know")
        raise OpenRefusedError("unimplemented", f"{facts.name}: expected results as detections, got {form}")
    if not 0.0 <= request.result.score_threshold <= 1.0:
        raise OpenRefusedError(
            "invalid_argument", f"score_threshold: expected 0 to 1, got {request.result.score_threshold:g}"
        )
    granted = grant(
        policy=POLICIES[request.drop_policy.WhichOneof("policy") or "latest"],
        max_in_flight=request.max_in_flight,
        deadline_ms=request.deadline_ms,
        weight=request.weight,
        max_fps=request.max_fps,
    )
    if isinstance(granted, Refusal):
        raise OpenRefusedError("unimplemented", granted.detail)
    return Opening(
        model=model,
        grant=granted,
        score_threshold=request.result.score_threshold or facts.score_threshold,
        max_detections=min(request.result.max_detections or facts.max_detections, facts.max_detections),
    )


def _select(request: pb.Open, models: Mapping[str, ServedModel]) -> ServedModel:
    served = ", ".join(sorted(models))
    if len(request.models) > 1:
        names = ", ".join(selector.name for selector in request.models)
        raise OpenRefusedError("unimplemented", f"expected one model in Open, got {len(request.models)}: {names}")
    selector = request.models[0] if request.models else pb.ModelSelector()
    if not selector.name:
        if len(models) == 1:
            return next(iter(models.values()))
        raise OpenRefusedError("invalid_argument", f"expected a model's name in Open: this server has {served}")
    model = models.get(selector.name)
    if model is None:
        raise OpenRefusedError("not_found", f"no model {selector.name!r}: this server has {served}")
    if selector.version not in ("", model.facts.version):
        raise OpenRefusedError(
            "not_found",
            f"no version {selector.version!r} of {selector.name!r}: this server has {model.facts.version!r}",
        )
    return model
