"""The flags by which commands say which server they mean and how to get in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from headworks.transport import DEFAULT_TARGET, TlsOptions

_FLAGS = (
    click.option(
        "--server",
        "servers",
        multiple=True,
        metavar="HOST:PORT",
        help=f"Address of the server; given several times, the next one is tried when one fails or shuts down. "
        f"[default: {DEFAULT_TARGET}]",
    ),
    click.option("--tls", is_flag=True, help="Talk TLS; certificates are checked against the system's authorities."),
    click.option("--tls-ca", type=click.Path(path_type=Path), help="Authority to check the server by; implies --tls."),
    click.option("--tls-cert", type=click.Path(path_type=Path), help="This client's certificate; implies --tls."),
    click.option("--tls-key", type=click.Path(path_type=Path), help="The key of --tls-cert."),
    click.option("--token-file", type=click.Path(path_type=Path), help="File with the bearer token to show."),
    click.option("--insecure", is_flag=True, help="Send the token in plain text over a network, too."),
)


def connection_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags that `access_options` reads."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def access_options(
    *,
    servers: tuple[str, ...],
    tls: bool,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    token_file: Path | None,
    insecure: bool,
) -> dict[str, Any]:
    """Return what the flags say as `Client` and `Access` take it.

    Raises:
        ValueError: flags do not fit each other.
    """
    secure = tls or tls_ca is not None or tls_cert is not None
    return {
        "target": list(servers) or [DEFAULT_TARGET],
        "tls": TlsOptions(ca=tls_ca, cert=tls_cert, key=tls_key) if secure else None,
        "token": token_file,
        "insecure": insecure,
    }
