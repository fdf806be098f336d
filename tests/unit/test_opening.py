"""What an Open asks, decided: the model it names, what is granted, and each refusal with its kind and words."""

from __future__ import annotations

import math

import pytest

from headworks.v1 import frame_pb2 as pb
from headworks_server.core.grant import Grant
from headworks_server.core.model import ServedModel
from headworks_server.rpc.opening import OpenRefusedError, resolve
from support.served import served_model
from support.streams import MS

MODELS = {name: served_model(name) for name in ("ball", "players")}
ONE = {"players": MODELS["players"]}


def refusal(served: dict[str, ServedModel], /, **fields: object) -> tuple[str, str]:
    with pytest.raises(OpenRefusedError) as raised:
        resolve(pb.Open(**fields), served)
    assert str(raised.value) == raised.value.detail
    return raised.value.kind, raised.value.detail


def selectors(*names: str, version: str = "") -> list[pb.ModelSelector]:
    return [pb.ModelSelector(name=name, version=version) for name in names]


def test_an_empty_open_gets_the_only_model_and_the_defaults() -> None:
    """The shortest client names nothing."""
    opening = resolve(pb.Open(), ONE)
    assert opening.model is MODELS["players"]
    assert opening.grant == Grant()
    assert (opening.score_threshold, opening.max_detections) == (0.25, 300)


@pytest.mark.parametrize("version", ["", "3"])
def test_a_model_is_found_by_name_and_version(version: str) -> None:
    """No version means the one that serves."""
    assert resolve(pb.Open(models=selectors("ball", version=version)), MODELS).model is MODELS["ball"]


def test_what_is_asked_is_granted_within_bounds() -> None:
    """Numbers reach the grant, and are clamped rather than refused."""
    request = pb.Open(
        models=selectors("ball"),
        drop_policy=pb.DropPolicy(latest=pb.LatestPolicy()),
        max_in_flight=100,
        deadline_ms=40,
        weight=3,
        result=pb.ResultOptions(form=pb.ResultOptions.FORM_DETECTIONS, score_threshold=0.5, max_detections=20),
    )
    opening = resolve(request, MODELS)
    assert opening.grant == Grant(max_in_flight=8, window=10, deadline_ns=40 * MS, weight=3)
    assert (opening.score_threshold, opening.max_detections) == (0.5, 20)


def test_no_stream_gets_more_detections_than_the_model_makes() -> None:
    """The model's own limit is the most; 0 means it."""
    for asked, granted in ((0, 300), (300, 300), (301, 300)):
        request = pb.Open(result=pb.ResultOptions(max_detections=asked))
        assert resolve(request, ONE).max_detections == granted


def test_a_model_that_is_not_there_is_not_found() -> None:
    """With what is there, so that a typing error shows."""
    assert refusal(MODELS, models=selectors("plyers")) == (
        "not_found",
        "no model 'plyers': this server has ball, players",
    )


def test_a_version_that_is_not_there_is_not_found() -> None:
    """A stream must never run another version than it asked for."""
    assert refusal(MODELS, models=selectors("ball", version="9")) == (
        "not_found",
        "no version '9' of 'ball': this server has '3'",
    )


@pytest.mark.parametrize("models", [[], selectors("")])
def test_a_choice_must_be_named(models: list[pb.ModelSelector]) -> None:
    """With more than one model, the server does not guess."""
    assert refusal(MODELS, models=models) == (
        "invalid_argument",
        "expected a model's name in Open: this server has ball, players",
    )


def test_two_models_on_one_stream_are_refused_by_name() -> None:
    """Not served by this release, and said so rather than running the first."""
    assert refusal(MODELS, models=selectors("players", "ball")) == (
        "unimplemented",
        "expected one model in Open, got 2: players, ball",
    )


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (pb.ResultOptions.FORM_CLASSIFICATIONS, "FORM_CLASSIFICATIONS"),
        (pb.ResultOptions.FORM_RAW_TENSORS, "FORM_RAW_TENSORS"),
        (99, "form 99, which this release does not know"),  # a newer client's
    ],
)
def test_another_form_of_result_is_refused_by_name(form: pb.ResultOptions.Form, name: str) -> None:
    """A detector has detections to give."""
    assert refusal(ONE, result=pb.ResultOptions(form=form)) == (
        "unimplemented",
        f"players: expected results as detections, got {name}",
    )


@pytest.mark.parametrize(("threshold", "told"), [(-0.5, "-0.5"), (1.5, "1.5"), (math.nan, "nan")])
def test_a_score_threshold_out_of_range_is_refused(threshold: float, told: str) -> None:
    """Clamping it would change what the client gets without a word."""
    assert refusal(ONE, result=pb.ResultOptions(score_threshold=threshold)) == (
        "invalid_argument",
        f"score_threshold: expected 0 to 1, got {told}",
    )


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        (pb.DropPolicy(bounded=pb.BoundedPolicy(depth=4)), "BOUNDED"),
        (pb.DropPolicy(every_frame=pb.EveryFramePolicy()), "EVERY_FRAME"),
    ],
)
def test_a_policy_that_is_not_served_is_refused_by_name(policy: pb.DropPolicy, name: str) -> None:
    """A client that counts on every frame must not lose some silently."""
    assert refusal(ONE, drop_policy=policy) == (
        "unimplemented",
        f"drop policy {name} is not served by this release; LATEST is",
    )


def test_an_unset_policy_is_latest() -> None:
    """The field may be there and empty."""
    assert resolve(pb.Open(drop_policy=pb.DropPolicy()), ONE).grant == Grant()


def test_a_maximum_rate_is_refused() -> None:
    """Not served by this release."""
    assert refusal(ONE, max_fps=12.5) == (
        "unimplemented",
        "max_fps is not served by this release: expected 0, got 12.5",
    )
