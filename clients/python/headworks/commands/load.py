"""`headworks load`: how a server does under cameras in real time, and how many of them it holds."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

import headworks
from headworks import aio
from headworks.commands.cameras import CameraError, parse_policy
from headworks.commands.options import access_options, connection_flags
from headworks.load.generator import LoadRun, run_load
from headworks.load.pictures import load_pictures
from headworks.load.plan import LoadPlan
from headworks.load.report import write_report
from headworks.load.search import Goal, Search, Step, find_max
from headworks.load.summary import summarise
from headworks.sources import SourceError


class Milliseconds(click.ParamType):  # type: ignore[type-arg]  # older releases of click know no argument
    """A time such as 100ms or 1.5s; a bare number is milliseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return milliseconds."""
        if isinstance(value, float):
            return value
        text = str(value).strip().lower()
        for suffix, factor in (("ms", 1.0), ("s", 1000.0), ("", 1.0)):
            if text.endswith(suffix):
                try:
                    found = float(text.removesuffix(suffix)) * factor
                except ValueError:
                    break
                if 0 < found < 3_600_000:
                    return found
        return self.fail(f"expected a time such as 100ms or 1.5s, got {value!r}", param, ctx)


@click.command()
@connection_flags
@click.option("--cameras", type=click.IntRange(1, 4096), default=10, show_default=True, help="How many.")
@click.option("--fps", type=click.FloatRange(0.01, 1000), default=30.0, show_default=True, help="Of each camera.")
@click.option("--seconds", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Measured time of a run.")
@click.option("--warm-up", type=click.FloatRange(0), default=1.0, show_default=True, help="Seconds before that.")
@click.option(
    "--closed",
    type=click.IntRange(0, 64),
    default=0,
    metavar="FRAMES",
    help="Closed loop: so many frames of each camera on the way, the next one follows an outcome. [default: open loop]",
)
@click.option(
    "--frames",
    default="1920x1080",
    show_default=True,
    metavar="SOURCE|WxH[:ENCODING]",
    help="What is sent: a file or folder as `headworks stream` takes it, or made pictures of that size: jpeg, png, "
    "webp, bgr24, rgb24, gray8, nv12, i420.",
)
@click.option("--model", default="", help="Model to run; may be left out where the server has only one.")
@click.option("--policy", default="", help="As for `headworks stream`. [default: latest; closed loop: every-frame]")
@click.option("--deadline", type=click.IntRange(0, 60_000), default=0, metavar="MS", help="Of every frame.")
@click.option("--weight", type=click.IntRange(1, 16), default=1, show_default=True, help="Of every camera.")
@click.option("--find-max", is_flag=True, help="Search how many cameras hold; --cameras is where it begins.")
@click.option("--p99", type=Milliseconds(), default="100ms", show_default=True, help="--find-max: age that holds.")
@click.option(
    "--answered",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.99,
    show_default=True,
    help="--find-max: share of the scheduled frames that must get a result.",
)
@click.option("--limit", type=click.IntRange(1, 4096), default=1024, show_default=True, help="--find-max: most tried.")
@click.option("--report", type=click.Path(path_type=Path), help="HTML file to write, with plots.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, and nothing else.")
def load(
    cameras: int,
    fps: float,
    seconds: float,
    warm_up: float,
    closed: int,
    frames: str,
    model: str,
    policy: str,
    deadline: int,
    weight: int,
    find_max: bool,
    p99: float,
    answered: float,
    limit: int,
    report: Path | None,
    as_json: bool,
    **connection: Any,
) -> None:
    """Load a server with cameras, and tell how it did.

    Each camera is a stream on a connection of its own. Frames are due by a clock that waits for nobody, and a frame's
    age counts from when it was due: a server that falls behind cannot hide it. What the generator itself cost, and how
    late it was, is told beside.

    \b
    Examples:
        headworks load --cameras 10 --fps 30 --frames examples/football/clip
        headworks load --find-max --p99 100ms --fps 10 --frames 1280x720
        headworks load --cameras 4 --closed 2 --report load.html
        headworks load --cameras 10 --json > summary.json
    """
    if find_max and closed:
        raise click.UsageError("--find-max asks for a clock: leave --closed out")
    try:
        plan = LoadPlan(
            cameras=cameras,
            fps=0.0 if closed else fps,
            closed=closed,
            seconds=seconds,
            warm_s=warm_up,
            policy=parse_policy(policy or ("every-frame" if closed else "latest")),
            pictures=load_pictures(frames),
            model=model,
            deadline_ms=deadline,
            weight=weight,
        )
        if report is not None:
            require_plotly()
        loading = Loading(plan, access_options(**connection), quiet=as_json)
        if find_max:
            loading.search(Goal(p99_ms=p99, answered_share=answered), limit=limit)
        else:
            loading.run(cameras)
        loading.tell(report)
    except (CameraError, SourceError, headworks.HeadworksError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("stopped") from None
    if loading.failed:
        sys.exit(1)


class Loading:
    """The runs of one command, shown as they go."""

    def __init__(self, plan: LoadPlan, access: dict[str, Any], *, quiet: bool) -> None:
        self._plan = plan
        self._access = access
        self._quiet = quiet
        self._run: LoadRun | None = None
        self._summary: dict[str, Any] = {}
        self._search: Search | None = None

    @property
    def failed(self) -> bool:
        """Whether a stream of the run that is told did not end well, or the search found nothing."""
        return bool(self._summary.get("failures")) or (self._search is not None and self._search.most == 0)

    def run(self, cameras: int) -> dict[str, Any]:
        """Run so many cameras and return the summary."""
        plan = replace(self._plan, cameras=cameras)
        with self._progress(f"{cameras} cameras") as show:
            run = _run(run_load(plan, self._connect, progress=show))
        self._run, self._summary = run, summarise(run)
        return self._summary

    def _connect(self, number: int) -> aio.Client:
        """The client of one camera; several servers get the cameras in turns."""
        targets = self._access["target"]
        first = number % len(targets)
        return aio.Client(**{**self._access, "target": targets[first:] + targets[:first]})

    def search(self, goal: Goal, *, limit: int) -> None:
        """Search how many cameras hold; the last run that did is the one that is told."""
        best: tuple[LoadRun, dict[str, Any]] | None = None

        def told(step: Step) -> None:
            nonlocal best
            if step.holds and self._run is not None:
                best = (self._run, self._summary)
            self._echo(_step_line(step))

        self._search = find_max(self.run, goal, start=self._plan.cameras, limit=limit, told=told)
        if best is not None:
            self._run, self._summary = best
        search = self._search
        self._summary["search"] = {
            "most": search.most,
            "p99_ms": goal.p99_ms,
            "answered_share": goal.answered_share,
            "doubt": search.doubt,
            "steps": [
                {"cameras": step.cameras, "holds": step.holds, "misses": step.misses, **_step_numbers(step)}
                for step in search.steps
            ],
        }

    def tell(self, report: Path | None) -> None:
        """Print the summary, and write the report."""
        assert self._run is not None
        if report is not None:
            write_report(report, self._summary, self._run, self._search)
            self._echo(f"{report}: written")
        if self._quiet:
            click.echo(json.dumps(self._summary))
            return
        for line in summary_lines(self._summary):
            click.echo(line)

    def _echo(self, line: str) -> None:
        if not self._quiet:
            click.echo(line)

    def _progress(self, title: str) -> Any:
        return _Bar(title, self._plan, hidden=self._quiet or not sys.stderr.isatty())


def _run(work: Coroutine[Any, Any, LoadRun]) -> LoadRun:
    """Run it on uvloop where there is one, which costs less."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    run: LoadRun = uvloop.run(work)
    return run


class _Bar:
    """A progress bar on standard error, in a terminal."""

    def __init__(self, title: str, plan: LoadPlan, *, hidden: bool) -> None:
        seconds = plan.warm_s + plan.seconds
        self._bar = click.progressbar(length=1000, label=f"{title}, {seconds:g} s", file=sys.stderr, hidden=hidden)

    def __enter__(self) -> Callable[[float], None]:
        self._bar.__enter__()
        return lambda share: self._bar.update(int(share * 1000) - self._bar.pos)

    def __exit__(self, *raised: Any) -> None:
        self._bar.__exit__(*raised)


def require_plotly() -> None:
    """Raise SourceError before the run, not behind it, where a report is asked for and cannot be drawn."""
    try:
        import plotly.graph_objects  # noqa: F401
    except ImportError as error:
        raise SourceError("--report: this needs plotly: pip install 'headworks[report]'") from error


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The summary for people."""
    total, generator = summary["total"], summary["generator"]
    drops = ", ".join(f"{count} {reason}" for reason, count in total["drops"].items()) or "0"
    scheduled = (
        ""
        if summary["scheduled"] is None
        else (f"; {summary['answered_share']:.1%} of {summary['scheduled']} scheduled frames answered")
    )
    batches = ", ".join(f"{count} of {size}" for size, count in summary["batch_sizes"].items())
    lines = [
        f"{len(summary['cameras'])} cameras, {summary['mode']}, policy {summary['policy']}: {summary['model']} on "
        f"{summary['backend']}, {summary['seconds']:g} s",
        f"  {summary['results_per_second']:g} results/s{scheduled}",
        f"  age             {_spread(total['age_ms'])}",
        f"  round trip      {_spread(total['round_trip_ms'])}",
        *(f"  {stage:<16}{_spread(spread)}" for stage, spread in summary["server_stages_ms"].items()),
        f"  batches         {batches or 'none'}",
        f"  {total['offered']} frames offered: {total['replaced']} replaced here, {total['sent']} sent; of these "
        f"{total['results']} results, dropped: {drops}, {total['errors']} errors, {total['lost']} lost, "
        f"{'unknown' if total['unaccounted'] is None else total['unaccounted']} unaccounted for",
        f"  generator       {generator['cpu_ms_per_frame']} ms CPU a frame, {generator['cpu_cores']} cores; "
        f"late {_spread(generator['late_ms'])}",
    ]
    lines += [f"  failed: {failure}" for failure in summary["failures"]]
    if "search" in summary:
        search = summary["search"]
        lines.append(
            f"{search['most']} cameras hold: age p99 within {search['p99_ms']:g} ms, "
            f"{search['answered_share']:.1%} of frames answered"
            + (f" (perhaps more: {search['doubt']})" if search["doubt"] else "")
        )
    return lines


def _spread(spread: dict[str, float | None]) -> str:
    return (
        "  ".join(f"{name} {'-' if value is None else format(value, '.1f')}" for name, value in spread.items()) + " ms"
    )


def _step_numbers(step: Step) -> dict[str, Any]:
    summary = step.summary
    return {
        "answered_share": summary["answered_share"],
        "results_per_second": summary["results_per_second"],
        "age_ms": summary["total"]["age_ms"],
        "generator_late_ms": summary["generator"]["late_ms"],
    }


def _step_line(step: Step) -> str:
    numbers = _step_numbers(step)
    verdict = "holds" if step.holds else "does not hold: " + "; ".join(step.misses)
    return (
        f"{step.cameras:>5} cameras: {numbers['results_per_second']:>8.1f} results/s, {_spread(numbers['age_ms'])}: "
        f"{verdict}"
    )
