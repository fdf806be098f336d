"""The command that installing the server adds to `headworks`: `serve`, its flags, and how settings are shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from headworks_server.config import Settings, merge_settings
from headworks_server.errors import ServerError
from headworks_server.sources import Sources, leaves

# --help in the order in which a person meets the questions; the settings that only groups in a file have are not flags.
FLAG_GROUPS: Mapping[str, tuple[str, ...]] = {
    "Settings": ("config", "print_config", "json", "ready_file", "help"),
    "Network": ("host", "port", "metrics_host", "metrics_port"),
    "Security": (
        "tls_cert",
        "tls_key",
        "tls_client_ca",
        "tokens_file",
        "insecure",
        "metrics_insecure",
        "admin",
        "admins",
    ),
    "Models": (
        "watch_seconds",
        "plans",
        "backend",
        "backend_chain",
        "engine_bytes",
        "hint",
        "lanes",
        "max_batch",
        "score_threshold",
        "iou_threshold",
        "max_detections",
        "decode_scale",
    ),
    "Limits": (
        "max_streams",
        "max_frame_bytes",
        "max_frame_pixels",
        "waiting_bytes",
        "idle_timeout_seconds",
        "lease_seconds",
        "drain_grace_seconds",
    ),
    "Logs": ("log_level", "log_format"),
    "Stand-ins": ("null_detections",),
}


class GroupedCommand(click.Command):
    """A command whose --help has its flags under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the flags, group by group."""
        records = {param.opts[-1].lstrip("-"): param.get_help_record(ctx) for param in self.get_params(ctx)}
        for title, names in FLAG_GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [record for name in names if (record := records[name.replace("_", "-")]) is not None]
                )


def _flags(command: Any) -> Any:
    """Give a command one flag for each plain setting, described as the setting is. `load_settings` validates them."""
    for name, setting in reversed(Settings.model_fields.items()):
        if name in ("models", "sleeping", "failing"):
            continue
        described = (setting.description or "").replace("`", "")
        default = (
            "" if setting.default in (None, ()) or setting.annotation is bool else f" [default: {setting.default}]"
        )
        command = click.option(
            f"--{name.replace('_', '-')}",
            name,
            is_flag=setting.annotation is bool,
            default=None,
            metavar=None if setting.annotation is bool else _metavar(setting.annotation),
            help=described + default,
        )(command)
    return command


def _metavar(annotation: Any) -> str:
    """What a setting's value looks like, for --help."""
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    kinds: dict[Any, str] = {
        int: "NUMBER",
        int | None: "NUMBER",
        float: "NUMBER",
        str: "TEXT",
        Path | None: "FILE",
        tuple[str, ...]: "NAME,...",
    }
    return kinds.get(annotation, "VALUE")


@click.command(
    cls=GroupedCommand,
    epilog="Example: headworks serve examples/football/models --port 50051. Every setting may also stand in a TOML "
    "file (--config) or in the environment (HEADWORKS_PORT=50051); a flag wins over a variable, a variable over the "
    "file. Groups have no flags: [sleeping] in the file, HEADWORKS_SLEEPING__DECODERS in the environment.",
)
@click.argument("models", required=False, type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="TOML file of settings.")
@click.option("--print-config", is_flag=True, help="Print every setting, its value and its origin, and end.")
@click.option("--json", "as_json", is_flag=True, help="With --print-config: for machines.")
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Written with the ports, as JSON, once serving.",
)
@_flags
def serve(
    models: Path | None,
    config: Path | None,
    ready_file: Path | None,
    print_config: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Serve the models of a folder to cameras over gRPC.

    MODELS holds one folder for each model, with its model.onnx in it. The server listens on this machine
    only unless it is told otherwise, tells its numbers under /metrics, and drains on SIGTERM.
    """
    if as_json and not print_config:
        raise click.UsageError("--json: expected together with --print-config, got it alone")
    try:
        sources = Sources(Settings, file=config, flags={"models": models, **flags})
        settings = merge_settings(sources)
        if print_config:
            click.echo(_as_json(settings, sources) if as_json else _as_table(settings, sources))
            return
        _run(settings, ready_file)
    except ServerError as error:
        click.echo(f"headworks serve: {error}", err=True)
        sys.exit(2)


def _run(settings: Settings, ready_file: Path | None) -> None:
    # Loading these takes a second: `headworks --help` shall not wait for it.
    from headworks_server.app import run
    from headworks_server.telemetry.logs import configure_logs

    configure_logs(level=settings.log_level, format=settings.log_format)
    run(settings, ready_file=ready_file)


def _as_json(settings: Settings, sources: Sources) -> str:
    """`{"port": {"value": 50051, "origin": "default"}, ...}`; settings of a group are named "sleeping.seed"."""
    shown = {
        ".".join(path): {"value": str(value) if isinstance(value, Path) else value, "origin": sources.origin(path)}
        for path, value in leaves(settings)
    }
    return json.dumps(shown, indent=2)


def _as_table(settings: Settings, sources: Sources) -> str:
    rows = [(".".join(path), _as_text(value), sources.origin(path)) for path, value in leaves(settings)]
    names, values = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{name:{names}}  {value:{values}}  {origin}" for name, value, origin in rows)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return ",".join(value) if isinstance(value, tuple) else str(value)
