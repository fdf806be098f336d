"""`headworks demo`: starts a server, streams real-time cameras to it, shows, accounts, and says what to try next."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

import headworks
from headworks_server.demo.cameras import Camera, Pacer, load_clip, make_cameras
from headworks_server.demo.child import ServerProcess, check_port
from headworks_server.demo.summary import Run, problems, summarise
from headworks_server.demo.table import show_until_done
from headworks_server.demo.teams import PEOPLE, TEAMS, Teams, load_crops, tell_teams
from headworks_server.demo.video import write_video
from headworks_server.errors import ConfigError, ServerError

EXAMPLE = Path("examples/football")
PLAYERS = "players"
"""The model that is run where the folder holds it and no other was asked for."""


@click.command(epilog="Example: headworks demo --cameras 4 --seconds 10")
@click.option("--cameras", type=click.IntRange(1, 256), default=10, show_default=True, help="Number of cameras.")
@click.option("--seconds", type=click.FloatRange(0.1), default=20.0, show_default=True, help="How long they stream.")
@click.option("--fps", type=click.FloatRange(0.1, 1000), default=30.0, show_default=True, help="Rate of each camera.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="Server port; 0: a free one.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("demo-out"), show_default=True, help="Output folder."
)
@click.option(
    "--model", default=None, help="Model to run: players (the default), ball, or teams, which is shown players' crops."
)
@click.option(
    "--model-dir",
    type=click.Path(path_type=Path),
    default=EXAMPLE / "models",
    show_default=True,
    help="Models to serve.",
)
@click.option(
    "--clip",
    type=click.Path(path_type=Path),
    default=EXAMPLE / "clip",
    show_default=True,
    help="Folder of JPEG frames.",
)
def demo(
    cameras: int, seconds: float, fps: float, port: int, out: Path, model: str | None, model_dir: Path, clip: Path
) -> None:
    """Stream football cameras to a server and account for every frame.

    Starts a server on this machine, streams the example clip to it as real-time cameras, shows what happens, and
    writes summary.json, annotated.mp4 and server.log. Where players were looked for and there is a teams model, it is
    asked about the first camera's players afterwards, and the video shows each in the colour of their shirt. The exit
    code is 0 only if every frame is accounted for.
    """
    try:
        check_port(port)
        if not model_dir.is_dir():
            raise ConfigError(
                f"{model_dir}: no such folder; run this in the clone of the repository, or give --model-dir FOLDER"
            )
        if model is None and (model_dir / PLAYERS).is_dir():
            model = PLAYERS
        made = make_cameras(cameras, load_crops(clip) if model == TEAMS else load_clip(clip))
        out.mkdir(parents=True, exist_ok=True)
        click.echo(f"starting a server with the models of {model_dir} ...")
        with _sigterm_leaves(), ServerProcess(model_dir, port=port, log_path=out / "server.log") as server:
            run = _stream(made, server, model=model, fps=fps, seconds=seconds)
            if (model_dir / TEAMS).is_dir():
                run = replace(run, teams=_tell_teams(server, made[0]))
    except headworks.HeadworksError as error:
        _fail(error, code=1)
    except (ConfigError, OSError) as error:
        _fail(error, code=2)
    except ServerError as error:
        _fail(error, code=1)
    summary = summarise(made, run)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    found = problems(made, run.teams)
    _write_video(out / "annotated.mp4", made[0], fps, run.teams)
    _tell(summary, out)
    _tell_next_steps(model_dir)
    for problem in found:
        click.echo(f"headworks demo: {problem}", err=True)
    sys.exit(1 if found else 0)


@contextmanager
def _sigterm_leaves() -> Iterator[None]:
    """Let SIGTERM leave the block as an exception does: the demo's server is stopped on the way out."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(error: Exception, *, code: int) -> NoReturn:
    click.echo(f"headworks demo: {error}", err=True)
    sys.exit(code)


def _stream(cameras: list[Camera], server: ServerProcess, *, model: str | None, fps: float, seconds: float) -> Run:
    """Open all cameras, run the clock, close all cameras."""
    with headworks.Client(server.target) as client:
        for camera in cameras:
            camera.open(client, model)
        served = _served(cameras[0])
        click.echo(f"{len(cameras)} cameras at {fps:g} fps to {served.name} on {served.backend} at {server.target}")
        pacer = Pacer(cameras, fps=fps, seconds=seconds)
        server_before, client_before = server.cpu_s(), time.process_time()
        pacer.start()
        try:
            show_until_done(cameras, pacer, Console())
        except KeyboardInterrupt:
            click.echo("stopping: waiting for the last outcomes")
            pacer.stop()
            pacer.wait(1.0)
        passed_s = time.monotonic() - pacer.started_s
        for camera in cameras:
            camera.end()
        for camera in cameras:
            camera.close()
        client_cpu_s, server_after = time.process_time() - client_before, server.cpu_s()
    server_cpu_s = None if server_before is None or server_after is None else server_after - server_before
    return Run(passed_s, served.name, served.backend, server_cpu_s, client_cpu_s)


def _tell_teams(server: ServerProcess, camera: Camera) -> Teams | None:
    """Ask about the camera's players, where its model found any."""
    if not any(box.label in PEOPLE for boxes in camera.boxes.values() for box in boxes):
        return None
    with headworks.Client(server.target) as client:
        teams = tell_teams(client, camera)
    seen = ", ".join(f"{count} {label}" for label, count in teams.seen.most_common())
    click.echo(f"{TEAMS} of {camera.name}: {teams.results} players in {len(teams.labels)} pictures: {seen}")
    return teams


def _served(camera: Camera) -> headworks.ModelInfo:
    assert camera.stream is not None
    return camera.stream.opened.models[0]


def _write_video(path: Path, camera: Camera, fps: float, teams: Teams | None) -> None:
    """Draw the video; a machine without the codec still gets its summary."""
    path.unlink(missing_ok=True)
    try:
        frames = write_video(path, camera, fps=fps, teams=teams)
    except OSError as error:
        click.echo(f"no video: {error}")
    else:
        click.echo(f"{path}: {frames} frames of {camera.name} with what came back for them")


def _tell(summary: dict[str, Any], out: Path) -> None:
    total = summary["total"]
    drops = ", ".join(f"{count} {reason}" for reason, count in total["drops"].items()) or "0"
    age = total["age_ms"]
    click.echo(f"{out / 'summary.json'}: every camera's account")
    click.echo(
        f"{total['offered']} frames offered: {total['replaced']} replaced before sending, {total['sent']} sent; "
        f"of these {total['results']} results, dropped: {drops}, {total['errors']} errors, {total['lost']} lost, "
        f"{total['unaccounted']} unaccounted for"
    )
    if age["p50"] is not None:
        click.echo(
            f"{total['results'] / summary['seconds']:.0f} results/s, age p50 {age['p50']:.0f} p99 {age['p99']:.0f} ms, "
            f"CPU per result: server {summary['server_cpu_ms_per_frame']} ms, "
            f"client {summary['client_cpu_ms_per_frame']} ms"
        )


def _tell_next_steps(model_dir: Path) -> None:
    """Print commands that can be pasted as they are."""
    command = _own_command()
    click.echo("\nServe these models, and stream a file of your own:")
    click.echo(f"  {command} serve {model_dir} --port 50051")
    click.echo(f"  {command} stream YOUR.mp4 --server 127.0.0.1:50051")


def _own_command() -> str:
    """Return how to call `headworks` here: by name where the shell finds it, else by its path, else as a module."""
    beside = Path(sys.executable).with_name("headworks")
    found = shutil.which("headworks")
    if found is not None and Path(found).samefile(beside if beside.exists() else found):
        return "headworks"
    if beside.exists():
        return os.path.relpath(beside)
    return f"{sys.executable} -m headworks"
