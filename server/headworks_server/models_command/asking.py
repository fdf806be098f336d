"""What the commands share that ask a running server: their flags, errors in one line, what is shown while waiting."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from headworks.administration import Administration
from headworks.commands.options import access_options, connection_flags
from headworks.errors import HeadworksError
from headworks.transport import Access

AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object for each model, in lines.")

ACCESS_FLAGS = ("tls", "tls_ca", "tls_cert", "tls_key", "token_file", "insecure")


def asks_server(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags that say which server, and in their place the function that connects to it."""

    @connection_flags
    @functools.wraps(command)
    def asking(servers: tuple[str, ...], **arguments: Any) -> Any:
        flags = {
            name: arguments.pop(name) for name in ("tls", "tls_ca", "tls_cert", "tls_key", "token_file", "insecure")
        }

        def connect() -> Administration:
            return Administration(Access(**access_options(servers=servers, **flags)))

        try:
            return command(connect=connect, **arguments)
        except (HeadworksError, ValueError) as error:
            raise click.ClickException(str(error)) from error

    return asking


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on a terminal what is being done, while it is."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield
