"""The options of a stream, the same for both clients: their names and types, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from headworks import codec
from headworks.delivery import Callbacks
from headworks.outcomes import ConnectionEvent, Dropped, FrameError, Lost, Notice, Result
from headworks.policy import Policy
from headworks.reconnect import StreamPlan

MAX_NAME = 64
_FOREVER_NS = 1 << 62


class StreamOptions(TypedDict, total=False):
    """Keyword arguments of `Client.stream`, where they are told."""

    name: str
    policy: str
    depth: int
    drop: str
    max_in_flight: int
    max_fps: float
    deadline_ms: int
    weight: int
    form: str | None
    score_threshold: float
    max_detections: int
    top_k: int
    reconnect: bool
    open_retry_s: float
    on_result: Callable[[Result], object] | None
    on_drop: Callable[[Dropped], object] | None
    on_error: Callable[[FrameError], object] | None
    on_lost: Callable[[Lost], object] | None
    on_notice: Callable[[Notice], object] | None
    on_connection: Callable[[ConnectionEvent], object] | None


def make_plan(
    targets: tuple[str, ...],
    model: str | None,
    *,
    open_timeout_s: float,
    name: str = "",
    policy: str = "latest",
    depth: int = 1,
    drop: str = "oldest",
    max_in_flight: int = 0,
    max_fps: float = 0.0,
    deadline_ms: int = 0,
    weight: int = 0,
    form: str | None = None,
    score_threshold: float = 0.0,
    max_detections: int = 0,
    top_k: int = 0,
    reconnect: bool = True,
    open_retry_s: float = 0.0,
    on_result: Callable[[Result], object] | None = None,
    on_drop: Callable[[Dropped], object] | None = None,
    on_error: Callable[[FrameError], object] | None = None,
    on_lost: Callable[[Lost], object] | None = None,
    on_notice: Callable[[Notice], object] | None = None,
    on_connection: Callable[[ConnectionEvent], object] | None = None,
) -> tuple[StreamPlan, Callbacks]:
    """Return what a stream is made of.

    Raises:
        ValueError: an option is out of range, or does not go with another.
    """
    if len(name) > MAX_NAME:
        raise ValueError(f"name of {len(name)} characters: at most {MAX_NAME}")
    chosen = Policy(policy, depth, drop)
    if policy == "every_frame" and deadline_ms:
        raise ValueError(f"policy 'every_frame' drops no frame for being late: expected no deadline, got {deadline_ms}")
    request = codec.open_request(
        name=name,
        model=model,
        policy=chosen,
        max_in_flight=max_in_flight,
        deadline_ms=deadline_ms,
        weight=weight,
        max_fps=max_fps,
        result=codec.result_options(
            form=form, score_threshold=score_threshold, max_detections=max_detections, top_k=top_k
        ),
    )
    plan = StreamPlan(
        name=name,
        open_request=request,
        policy=chosen,
        targets=targets,
        reconnect=reconnect,
        open_retry_ns=int(min(open_retry_s * 1e9, _FOREVER_NS)),
        open_timeout_ns=int(open_timeout_s * 1e9),
    )
    callbacks = Callbacks(
        on_result=on_result,
        on_drop=on_drop,
        on_error=on_error,
        on_lost=on_lost,
        on_notice=on_notice,
        on_connection=on_connection,
    )
    return plan, callbacks
