"""`headworks models load`, `unload`, `pin`, `unpin` and `swap`: orders to a running server, which answers when done."""

from __future__ import annotations

import json
from collections.abc import Callable

import click

from headworks.administration import Administration
from headworks.v1 import model_pb2 as pb
from headworks_server.models_command.asking import AS_JSON, asks_server, waiting
from headworks_server.models_command.text import status_line, status_values

NAME = click.argument("name")
VERSION = click.option("--version", default="", help="Which version [default: the one that serves].")
Connect = Callable[[], Administration]


@click.command(epilog="Example: headworks models load players --version 3")
@NAME
@VERSION
@AS_JSON
@asks_server
def load(name: str, version: str, as_json: bool, connect: Connect) -> None:
    """Load a model; ends when it is ready.

    A version that lies in the server's folder and is not the one that serves is loaded beside it, for streams that ask
    for it.
    """
    with connect() as server, waiting(f"loading {_called(name, version)} ..."):
        status = server.load(name, version)
    _echo(status, as_json=as_json)


@click.command(epilog="Example: headworks models unload players")
@NAME
@VERSION
@AS_JSON
@asks_server
def unload(name: str, version: str, as_json: bool, connect: Connect) -> None:
    """Unload a model that is neither in use nor pinned."""
    with connect() as server, waiting(f"unloading {_called(name, version)} ..."):
        status = server.unload(name, version)
    _echo(status, as_json=as_json)


@click.command(epilog="Example: headworks models pin players")
@NAME
@VERSION
@AS_JSON
@asks_server
def pin(name: str, version: str, as_json: bool, connect: Connect) -> None:
    """Load a model if need be, and keep it loaded until it is unpinned."""
    with connect() as server, waiting(f"loading {_called(name, version)} ..."):
        status = server.pin(name, version)
    _echo(status, as_json=as_json)


@click.command(epilog="Example: headworks models unpin players")
@NAME
@VERSION
@AS_JSON
@asks_server
def unpin(name: str, version: str, as_json: bool, connect: Connect) -> None:
    """Let a pinned model make room for others again."""
    with connect() as server:
        status = server.unpin(name, version)
    _echo(status, as_json=as_json)


@click.command(epilog="Examples: headworks models swap players --version 3; headworks models swap players --back")
@NAME
@click.option("--version", default="", help="Which version [default: the newest in the server's folder].")
@click.option("--back", is_flag=True, help="Serve what served before the last swap.")
@AS_JSON
@asks_server
def swap(name: str, version: str, back: bool, as_json: bool, connect: Connect) -> None:
    """Serve another version of a model; ends when its streams have moved.

    The new version is loaded beside the old one, which goes on serving until then, and for good where the new one
    fails, is slower than its description allows, or finds no memory.
    """
    if back and version:
        raise click.UsageError("--back: expected it without --version, got both")
    what = "back to what served before" if back else f"to version {version}" if version else "to the newest version"
    with connect() as server, waiting(f"swapping {name} {what} ..."):
        status = server.swap(name, version, back=back)
    _echo(status, as_json=as_json)


ALL = (load, unload, pin, unpin, swap)


def _called(name: str, version: str) -> str:
    return f"{name} {version}" if version else name


def _echo(status: pb.ModelStatus, *, as_json: bool) -> None:
    click.echo(json.dumps(status_values(status)) if as_json else status_line(status))
