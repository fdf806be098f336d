"""What an Open or an InferFrame asks, decided: its model, what is granted, and each refusal with its kind and words."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from headworks.v1 import frame_pb2 as pb
from headworks_server.core.grant import Grant, Policy
from headworks_server.rpc.opening import MAX_TOP_K, Opening, OpenRefusedError, resolve, resolve_infer
from support.served import Names, served_model
from support.streams import MS

MODELS = Names({name: served_model(name) for name in ("ball", "players")})
ONE = Names({"players": MODELS["players"]})
DETECTIONS, CLASSES, RAW = (
    pb.ResultOptions.FORM_DETECTIONS,
    pb.ResultOptions.FORM_CLASSIFICATIONS,
    pb.ResultOptions.FORM_RAW_TENSORS,
)


def refusal(served: Names, /, **fields: object) -> tuple[str, str]:
    with pytest.raises(OpenRefusedError) as raised:
        resolve(pb.Open(**fields), served)
    assert str(raised.value) == raised.value.detail
    return raised.value.kind, raised.value.detail


def classifier(labels: tuple[str, ...]) -> Names:
    """A model that serves classes first, and raw tensors."""
    model = served_model("team")
    model.facts = replace(model.facts, forms=(CLASSES, RAW), labels=labels, top_k=2)
    return Names({"team": model})


def opened(served: Names, /, **options: object) -> Opening:
    return resolve(pb.Open(result=pb.ResultOptions(**options)), served)


def selectors(*names: str, version: str = "") -> list[pb.ModelSelector]:
    return [pb.ModelSelector(name=name, version=version) for name in names]


def test_an_empty_open_gets_the_only_model_and_the_defaults() -> None:
    """The shortest client names nothing."""
    opening = resolve(pb.Open(), ONE)
    assert opening.model is MODELS["players"]
    assert opening.grant == Grant()
    assert opening.result == (DETECTIONS, 0.25, 300)


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
    assert opening.result[1:] == (0.5, 20)


def test_no_stream_gets_more_detections_than_the_model_makes() -> None:
    """The model's own limit is the most; 0 means it."""
    for asked, granted in ((0, 300), (300, 300), (301, 300)):
        request = pb.Open(result=pb.ResultOptions(max_detections=asked))
        assert resolve(request, ONE).result.max_detections == granted


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
        "no version '9' of 'ball': this server has '3' (an administrator may load another one beside it)",
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


# Forms of results.


def test_an_open_that_names_no_form_gets_what_the_model_is_for() -> None:
    """The first form of a model is its head's; the others must be asked for. A call's form is never unset."""
    served = classifier(("red", "blue", "referee"))
    assert opened(served).result.form == CLASSES
    assert opened(served, form=CLASSES).result.form == CLASSES
    assert opened(served, form=RAW).result.form == RAW


@pytest.mark.parametrize(("asked", "granted"), [(0, 2), (1, 1), (3, 3), (4, 3), (2**32 - 1, 3)])
def test_no_stream_gets_more_classes_than_there_are(asked: int, granted: int) -> None:
    """0 is the model's own number."""
    assert opened(classifier(("red", "blue", "referee")), top_k=asked).result.max_detections == granted


def test_a_model_without_labels_has_some_classes_all_the_same() -> None:
    """Its classes are not counted here, but bounded."""
    assert opened(classifier(()), top_k=7).result.max_detections == 7
    assert opened(classifier(()), top_k=2**32 - 1).result.max_detections == MAX_TOP_K


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (DETECTIONS, "FORM_DETECTIONS"),
        (99, "form 99, which this release does not know"),  # a newer client's
    ],
)
def test_another_form_of_result_is_refused_with_those_served(form: pb.ResultOptions.Form, name: str) -> None:
    """A classifier has no boxes to give."""
    assert refusal(classifier(()), result=pb.ResultOptions(form=form)) == (
        "invalid_argument",
        f"team: expected results as FORM_CLASSIFICATIONS or FORM_RAW_TENSORS, got {name}",
    )


@pytest.mark.parametrize(("threshold", "told"), [(-0.5, "-0.5"), (1.5, "1.5"), (math.nan, "nan")])
def test_a_score_threshold_out_of_range_is_refused(threshold: float, told: str) -> None:
    """Clamping it would change what the client gets without a word."""
    assert refusal(ONE, result=pb.ResultOptions(score_threshold=threshold)) == (
        "invalid_argument",
        f"score_threshold: expected 0 to 1, got {told}",
    )


# Policies.


def test_an_unset_policy_is_latest() -> None:
    """The field may be there and empty."""
    assert resolve(pb.Open(drop_policy=pb.DropPolicy()), ONE).grant == Grant()


@pytest.mark.parametrize(
    ("side", "drop_newest"),
    [
        (pb.BoundedPolicy.DROP_SIDE_UNSPECIFIED, False),
        (pb.BoundedPolicy.DROP_SIDE_OLDEST, False),
        (pb.BoundedPolicy.DROP_SIDE_NEWEST, True),
    ],
)
def test_bounded_has_a_depth_and_a_side(side: pb.BoundedPolicy.DropSide, drop_newest: bool) -> None:
    """The oldest goes where nothing is said."""
    request = pb.Open(drop_policy=pb.DropPolicy(bounded=pb.BoundedPolicy(depth=5, drop=side)))
    assert resolve(request, ONE).grant == Grant(policy=Policy.BOUNDED, depth=5, drop_newest=drop_newest, window=8)


def test_every_frame_and_a_maximum_rate_reach_the_grant() -> None:
    """A file, read no faster than this."""
    request = pb.Open(drop_policy=pb.DropPolicy(every_frame=pb.EveryFramePolicy()), max_fps=12.5)
    granted = resolve(request, ONE).grant
    assert (granted.policy, granted.max_in_flight, granted.max_fps) == (Policy.EVERY_FRAME, 8, 12.5)


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        (
            {"drop_policy": pb.DropPolicy(bounded=pb.BoundedPolicy())},
            "BOUNDED: expected a depth of at least 1, got 0",
        ),
        (
            {"drop_policy": pb.DropPolicy(bounded=pb.BoundedPolicy(depth=1, drop=7))},  # type: ignore[arg-type]
            "BOUNDED: expected to drop the oldest or newest, got 7",
        ),
        (
            {"drop_policy": pb.DropPolicy(every_frame=pb.EveryFramePolicy()), "deadline_ms": 40},
            "EVERY_FRAME drops no frame for being late: expected no deadline, got 40 ms",
        ),
        ({"max_fps": math.nan}, "max_fps: expected frames a second, or 0 for no limit, got nan"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object], detail: str) -> None:
    """INVALID_ARGUMENT, in words that name the field."""
    assert refusal(ONE, **fields) == ("invalid_argument", detail)


# InferFrame.


def test_one_image_is_one_frame_in_flight_with_the_deadline_of_the_call() -> None:
    """It waits like a stream of weight 1; without a deadline it may wait as long as it takes."""
    request = pb.InferFrameRequest(result=pb.ResultOptions(score_threshold=0.5, max_detections=20))
    opening = resolve_infer(request, ONE, time_remaining_s=1.5)
    assert opening.grant == Grant(max_in_flight=1, window=1, deadline_ns=1_500 * MS)
    assert opening.result == (DETECTIONS, 0.5, 20)
    assert resolve_infer(request, ONE, time_remaining_s=None).grant.deadline_ns == 0
    assert resolve_infer(request, ONE, time_remaining_s=0.0).grant.deadline_ns > 0, "over is not the same as none"


def test_one_image_names_its_model_as_a_stream_does() -> None:
    """The only one where it names none, and the same refusals otherwise."""
    request = pb.InferFrameRequest(model=pb.ModelSelector(name="ball"))
    assert resolve_infer(request, MODELS, time_remaining_s=None).model is MODELS["ball"]
    with pytest.raises(
        OpenRefusedError, match=r"^expected a model's name in InferFrame: this server has ball, players$"
    ):
        resolve_infer(pb.InferFrameRequest(), MODELS, time_remaining_s=None)
