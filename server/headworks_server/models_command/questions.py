"""`headworks models list` and `stats`: the models of a running server, their memory, their counters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click

from headworks.administration import Administration
from headworks_server.models_command.asking import AS_JSON, asks_server
from headworks_server.models_command.folder import list_folder
from headworks_server.models_command.text import (
    memory_line,
    memory_values,
    models_table,
    statistics_page,
    statistics_values,
    status_values,
)


@click.command("list", epilog="Example: headworks models list --server 127.0.0.1:50051")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@AS_JSON
@asks_server
def list_models(folder: Path | None, as_json: bool, connect: Callable[[], Administration]) -> None:
    """List the models of a running server, or those of a folder.

    Of a server: each model with its version, its state, the bytes it holds or would reserve, the calls that use it, how
    often it was found resident, was loaded and had to make room, what a batch costs in milliseconds by its size (* the
    size that a lane aims for), and the memory they share. With --json the last line is the memory. Of DIR: each model
    with its versions; the last is the one that is served.
    """
    if folder is not None:
        list_folder(folder, as_json=as_json)
        return
    with connect() as server:
        answer = server.models()
    if as_json:
        for status in answer.models:
            click.echo(json.dumps(status_values(status)))
        click.echo(json.dumps({"memory": memory_values(answer.memory)}))
    else:
        click.echo(models_table(answer.models))
        click.echo(memory_line(answer.memory))


@click.command(epilog="Example: headworks models stats players")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@AS_JSON
@asks_server
def stats(names: tuple[str, ...], as_json: bool, connect: Callable[[], Administration]) -> None:
    """Tell what a server's models have done since it started.

    For each model, or for those NAMEd: its frames by outcome, its batches by size, the time in the engine, and how its
    residency went, over all versions that served under the name.
    """
    with connect() as server:
        answer = server.statistics(names)
    for each in answer:
        click.echo(json.dumps(statistics_values(each)) if as_json else statistics_page(each))
