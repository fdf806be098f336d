"""The `headworks` command: `stream` and `load`, and what other installed distributions bring, such as `serve`.

Each is an entry point of the group "headworks.commands" that names a click command.
"""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, entry_points

import click

import headworks

# gRPC's core would write lines of its own to standard error for every connection that fails: the commands tell it.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

GROUP = "headworks.commands"


class Commands(click.Group):
    """A group that also knows the commands that are installed; they are imported when asked for."""

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
