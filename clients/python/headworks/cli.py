"""The `headworks` command: `stream` here, and whatever other installed distributions bring (the server: serve, demo).

A distribution adds a command by an entry point of the group "headworks.commands" that names a click command.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import click

import headworks
from headworks.client import DEFAULT_TARGET
from headworks.sources import Picture, Source, SourceError, open_source

GROUP = "headworks.commands"


class Commands(click.Group):
    """A group that also knows the commands of other installed distributions; they are imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, sorted."""
        return sorted({*super().list_commands(ctx), *_installed()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name, or None."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        entry = _installed().get(cmd_name)
        if entry is None:
            return None
        command = entry.load()
        if not isinstance(command, click.Command):
            raise click.ClickException(f"{entry.value} is no click command, though {GROUP} says so")
        return command


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(headworks.__version__, prog_name="headworks")
def main() -> None:
    """Runs models on live camera streams, every frame accounted for.

    \b
    A server, and a file streamed to it:
        headworks serve models/
        headworks stream match.mp4
    """


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--server", default=DEFAULT_TARGET, show_default=True, help="Address of the server, host:port.")
@click.option("--model", default=None, help="Model to run; may be left out where the server has only one.")
@click.option(
    "--fps", type=click.FloatRange(min=0, min_open=True), help="Frames a second [default: the file's, or 30]."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of text.")
def stream(source: Path, server: str, model: str | None, fps: float | None, as_json: bool) -> None:
    """Stream a file as a camera would, and print what becomes of every frame.

    SOURCE is a video file, a folder of pictures, or one picture. Frames go out at their own pace: what the server
    has no time for is replaced by a newer frame, and told. The account of all frames comes last.

    \b
    Examples:
        headworks stream frame.jpg
        headworks stream clip/ --fps 10 --model football
        headworks stream match.mp4 --server 10.0.0.5:50051 --json > results.jsonl
    """
    printer = Printer(as_json=as_json)
    try:
        opened = open_source(source)
        with (
            headworks.Client(server) as client,
            client.stream(
                model,
                name=source.name[:64],
                on_result=printer.show,
                on_drop=printer.show,
                on_error=printer.show,
            ) as frames,
        ):
            try:
                _send_paced(frames, opened, fps or opened.fps)
            except KeyboardInterrupt:
                click.echo("stopping: waiting for the last outcomes", err=True)
    except (SourceError, headworks.HeadworksError) as error:
        raise click.ClickException(str(error)) from error
    printer.show_account(frames.account)


def _send_paced(stream: headworks.FrameStream, source: Source, fps: float) -> None:
    start = time.monotonic()
    for number, picture in enumerate(source.frames):
        _sleep_until(start + number / fps)
        _send(stream, picture)


def _sleep_until(due: float) -> None:
    time.sleep(max(0.0, due - time.monotonic()))


def _send(stream: headworks.FrameStream, picture: Picture) -> None:
    stream.send(picture.data, encoding=picture.encoding)


class Printer:
    """Prints outcomes as they come, one line each; called from the stream's reader thread."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._lock = threading.Lock()

    def show(self, outcome: headworks.Outcome) -> None:
        """Print one outcome."""
        kind = {headworks.Result: "result", headworks.Dropped: "dropped"}.get(type(outcome), "error")
        self._echo({kind: _plain(outcome)} if self._as_json else _line(outcome))

    def show_account(self, account: headworks.Account) -> None:
        """Print where every frame went."""
        if self._as_json:
            self._echo({"account": {**asdict(account), "unaccounted": account.unaccounted}})
            return
        drops = ", ".join(f"{count} {reason}" for reason, count in sorted(account.drops.items())) or "0"
        self._echo(
            f"{account.offered} frames: {account.replaced} replaced here, {account.sent} sent; of these "
            f"{account.results} results, dropped: {drops}, {account.errors} errors, {account.lost} lost"
        )

    def _echo(self, what: str | dict[str, Any]) -> None:
        with self._lock:
            click.echo(what if isinstance(what, str) else json.dumps(what, separators=(",", ":")))


def _plain(outcome: headworks.Outcome) -> dict[str, Any]:
    plain = asdict(outcome)
    if isinstance(outcome, headworks.Result):
        # A named tuple would become a bare list.
        for output, shown in zip(outcome.outputs, plain["outputs"], strict=True):
            shown["detections"] = [box._asdict() for box in output.detections]
    return plain


def _line(outcome: headworks.Outcome) -> str:
    match outcome:
        case headworks.Result():
            found = ", ".join(f"{box.label} {box.score:.2f}" for box in outcome.detections[:5])
            more = f" and {len(outcome.detections) - 5} more" if len(outcome.detections) > 5 else ""
            return f"frame {outcome.frame_id}: {outcome.age_s * 1e3:.0f} ms: {found or 'nothing found'}{more}"
        case headworks.Dropped():
            why = ", ".join(f"{drop.count} {drop.reason} {drop.stage}" for drop in outcome.counts)
            return f"frames {outcome.first_frame_id} to {outcome.last_frame_id}: dropped: {why}"
        case headworks.FrameError():
            return f"frame {outcome.frame_id}: failed: {outcome.code}: {outcome.detail}"
