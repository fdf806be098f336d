"""The commands that installing the server adds to `headworks`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from headworks_server.config import Settings, load_settings
from headworks_server.errors import ServerError


def _flags(command: Any) -> Any:
    """Give a command one flag for each plain setting, described as the setting is. `load_settings` validates them."""
    for name, setting in reversed(Settings.model_fields.items()):
        if name in ("models", "sleeping"):
            continue
        default = setting.default if setting.default is not None else "by the machine"
        command = click.option(
            f"--{name.replace('_', '-')}",
            name,
            is_flag=setting.annotation is bool,
            default=None,
            metavar=None if setting.annotation is bool else _metavar(setting.annotation),
            help=f"{setting.description} [default: {default}]",
        )(command)
    return command


def _metavar(annotation: Any) -> str:
    """What a setting's value looks like, for --help."""
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    kinds = {int: "NUMBER", int | None: "NUMBER", float: "NUMBER", str: "TEXT"}
    return kinds.get(annotation, "VALUE")


@click.command(
    epilog="Example: headworks serve examples/football/models --port 50051. Settings may also stand in a TOML file "
    "(--config) or in the environment (HEADWORKS_PORT=50051); a flag wins over both."
)
@click.argument("models", required=False, type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Written with the ports, as JSON, once serving.")
@_flags
def serve(models: Path | None, config: Path | None, ready_file: Path | None, **flags: Any) -> None:
    """Serve the models of a folder to cameras over gRPC.

    MODELS holds one folder for each model, with its model.onnx in it. The server listens on this machine
    only unless it is told otherwise, tells its numbers under /metrics, and drains on SIGTERM.
    """
    # Loading these takes a second: `headworks --help` shall not wait for it.
    from headworks_server.app import run
    from headworks_server.telemetry.logs import configure_logs

    try:
        settings = load_settings(config, {"models": models, **flags})
        configure_logs(level=settings.log_level, format=settings.log_format)
        run(settings, ready_file=ready_file)
    except ServerError as error:
        click.echo(f"headworks serve: {error}", err=True)
        sys.exit(2)
