"""Logs: one line an event, JSON unless a person is looking. The command line calls `configure_logs` once at start.

Lines of the server (structlog) and of its libraries (standard logging) take the same way, so that a collector sees one
form. A stream has one line when it opens and one, with its ledger, when it closes; frames have none.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal, TextIO

import structlog
from structlog.typing import Processor

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "text"]
HANDLER_NAME = "headworks"


def configure_logs(*, level: LogLevel = "info", format: LogFormat = "auto", output: TextIO | None = None) -> None:  # noqa: A002
    """Send all log lines to `output` (standard error by default); a second call replaces the first.

    Arguments:
        level: the least severe lines that are written.
        format: `json` writes one object a line, `text` is for people, `auto` is text where the output is a terminal.
        output: where to, a text stream.
    """
    stream = output if output is not None else sys.stderr
    terminal = stream.isatty()
    text = format == "text" or (format == "auto" and terminal)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
    ]
    handler = logging.StreamHandler(stream)
    handler.set_name(HANDLER_NAME)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_rendering(text=text, colors=terminal))
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == HANDLER_NAME]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger; call it as `log.info("stream opened", stream="dock-3", peer=peer)`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def _rendering(*, text: bool, colors: bool) -> list[Processor]:
    clean: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if text:
        plain = structlog.dev.plain_traceback
        return [*clean, structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="ts", exception_formatter=plain)]
    # A traceback becomes one string inside the object: a line stays a line.
    return [*clean, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
