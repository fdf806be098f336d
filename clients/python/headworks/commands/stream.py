"""`headworks stream`: sends videos, pictures and cameras to a server, and shows what becomes of every frame."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import click

import headworks
from headworks.commands.cameras import CameraError, CameraSpec, parse_policy, read_cameras
from headworks.commands.options import access_options, connection_flags
from headworks.commands.record import Recorder
from headworks.commands.show import LineShow, TableShow
from headworks.commands.worker import CameraWorker, Show
from headworks.sources import SourceError, open_source


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@connection_flags
@click.option("--model", default="", help="Model to run; may be left out where the server has only one.")
@click.option("--fps", type=click.FloatRange(0, 1000, min_open=True), help="Frames a second [default: the source's].")
@click.option(
    "--policy",
    default="latest",
    show_default=True,
    metavar="latest|bounded:DEPTH[:oldest|newest]|every-frame",
    help="What becomes of frames that come faster than they are served. every-frame waits instead of dropping.",
)
@click.option("--deadline", type=click.IntRange(0, 60_000), default=0, metavar="MS", help="Drop what would be later.")
@click.option("--weight", type=click.IntRange(1, 16), default=1, show_default=True, help="Share among all cameras.")
@click.option("--max-fps", type=click.FloatRange(0, 1000), default=0.0, help="Frames a second the server may take.")
@click.option("--score", type=click.FloatRange(0, 1), default=0.0, help="Least score [default: the model's].")
@click.option("--wait", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Wait for a server to come up.")
@click.option("--loop", is_flag=True, help="Begin a file or folder again at its end.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Stop after so long.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for every outcome.")
@click.option("--lines", is_flag=True, help="One line of text for every outcome, also in a terminal.")
@click.option("--save", type=click.Path(path_type=Path), help="Video to write, with boxes; {name} is the camera's.")
def stream(
    sources: tuple[str, ...],
    model: str,
    fps: float | None,
    policy: str,
    deadline: int,
    weight: int,
    max_fps: float,
    score: float,
    wait: float,
    loop: bool,
    seconds: float | None,
    as_json: bool,
    lines: bool,
    save: Path | None,
    **connection: Any,
) -> None:
    """Stream cameras and files to a server, and show what becomes of every frame.

    Each SOURCE is a video file, a folder of pictures, one picture, the number of a camera of this machine, an RTSP or
    HTTP URL, or a cameras.toml that lists cameras. Frames go out at their own pace: what the server has no time for is
    dropped by the policy, and told. A camera that dies is tried again, a server that goes away is reconnected to.
    The account of all frames comes last.

    \b
    Examples:
        headworks stream match.mp4
        headworks stream clip/ --policy every-frame --json > results.jsonl
        headworks stream 0 rtsp://10.0.0.7/main --server 10.0.0.5:50051 --model players
        headworks stream cameras.toml --save 'out-{name}.mp4'

    A camera in cameras.toml; what it leaves out is as the flags say:

    \b
        [[camera]]
        name = "north goal"
        source = "rtsp://10.0.0.7/main"
        policy = "bounded:4:newest"
        weight = 2
    """
    try:
        parse_policy(policy)
        defaults = CameraSpec(
            model=model,
            fps=fps or 0.0,
            policy=policy,
            deadline_ms=deadline,
            weight=weight,
            max_fps=max_fps,
            score=score,
        )
        specs = _specs(sources, defaults)
        with headworks.Client(**access_options(**connection)) as client:
            failed = Streaming(specs, client, loop=loop, wait_s=wait, save=save).run(
                as_json=as_json, lines=lines or not sys.stdout.isatty(), seconds=seconds
            )
    except (CameraError, SourceError, headworks.HeadworksError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if failed:
        sys.exit(1)


def _specs(sources: tuple[str, ...], defaults: CameraSpec) -> list[CameraSpec]:
    """One for each source, a cameras.toml unfolded; names are made unique."""
    specs: list[CameraSpec] = []
    for source in sources:
        if source.endswith(".toml"):
            specs += read_cameras(Path(source), defaults)
        else:
            specs.append(CameraSpec(**{**_values(defaults), "source": source}))
    taken: dict[str, int] = {}
    unique = []
    for spec in specs:
        taken[spec.title] = taken.get(spec.title, 0) + 1
        again = taken[spec.title]
        unique.append(spec if again == 1 else CameraSpec(**{**_values(spec), "name": f"{spec.title[:60]}-{again}"}))
    return unique


def _values(spec: CameraSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__dataclass_fields__}


class Streaming:
    """All cameras of one command."""

    def __init__(
        self, specs: list[CameraSpec], client: headworks.Client, *, loop: bool, wait_s: float, save: Path | None
    ) -> None:
        if save is not None and len(specs) > 1 and "{name}" not in str(save):
            raise CameraError(f"--save {save}: expected {{name}} in it, since there are {len(specs)} cameras")
        self._specs = specs
        self._client = client
        self._loop = loop
        self._wait_s = wait_s
        self._save = save
        self._stop = threading.Event()

    def run(self, *, as_json: bool, lines: bool, seconds: float | None) -> bool:
        """Stream until every camera has ended, or it is time; returns whether one of them failed."""
        opened = [open_source(spec.source) for spec in self._specs]
        line_show = LineShow(as_json=as_json, several=len(self._specs) > 1)
        table = None if lines or as_json else _table()
        show: Show = table or line_show
        workers = [
            CameraWorker(spec, source, self._client, show, loop=self._loop, wait_s=self._wait_s, stop=self._stop)
            for spec, source in zip(self._specs, opened, strict=True)
        ]
        for worker, source in zip(workers, opened, strict=True):
            if table is not None:
                table.add(worker)
            if self._save is not None:
                path = Path(str(self._save).replace("{name}", worker.title.replace("/", "_")))
                worker.recorder = Recorder(path, fps=worker.spec.fps or source.fps)
        for worker in workers:
            worker.start()
        self._wait(workers, table, seconds)
        for worker in workers:
            worker.wait()
        for worker in workers:
            if worker.recorder is not None:
                worker.recorder.close()
                click.echo(f"{worker.recorder.path}: {worker.recorder.written} frames of {worker.title}", err=True)
            line_show.account(worker)
        return any(worker.failure is not None for worker in workers)

    def _wait(self, workers: list[CameraWorker], table: TableShow | None, seconds: float | None) -> None:
        until_s = time.monotonic() + seconds if seconds is not None else None

        def done(wait_s: float) -> bool:
            self._stop.wait(wait_s)
            if until_s is not None and time.monotonic() >= until_s:
                self._stop.set()
            return self._stop.is_set() or all(worker.wait(0) for worker in workers)

        try:
            if table is None:
                while not done(0.05):
                    pass
            else:
                from headworks.commands.table import show_until

                show_until(done, table)
        except KeyboardInterrupt:
            click.echo("stopping: waiting for the last outcomes", err=True)
        self._stop.set()


def _table() -> TableShow | None:
    """The live table, where rich is installed; lines else."""
    try:
        import rich  # noqa: F401
    except ImportError:
        return None
    return TableShow()
