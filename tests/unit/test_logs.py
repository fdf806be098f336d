"""Log lines: one form for the server's and its libraries', JSON unless a person is looking."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import structlog

from headworks_server.telemetry.logs import LogFormat, configure_logs, get_logger


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Logging is global: what a test configures is undone."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_line_is_json_where_no_terminal_is() -> None:
    """With a UTC time, the level, the event and its values."""
    output = io.StringIO()
    configure_logs(output=output)
    get_logger("headworks.rpc").info("stream closed", stream="dock-3", results=812)
    line = json.loads(output.getvalue())
    assert datetime.fromisoformat(line.pop("ts")).tzinfo == UTC
    assert line == {
        "event": "stream closed",
        "level": "info",
        "logger": "headworks.rpc",
        "stream": "dock-3",
        "results": 812,
    }


def test_lines_of_libraries_take_the_same_form() -> None:
    """A collector sees one shape, a traceback included, one line each."""
    output = io.StringIO()
    configure_logs(output=output)
    try:
        raise OSError("no route")
    except OSError:
        logging.getLogger("asyncio").exception("callback %s failed", "f")
        get_logger("headworks").exception("write failed")
    first, second = map(json.loads, output.getvalue().splitlines())
    assert (first["event"], first["level"], first["logger"]) == ("callback f failed", "error", "asyncio")
    assert "OSError: no route" in first["exception"]
    assert "OSError: no route" in second["exception"]


@pytest.mark.parametrize(
    ("output", "form", "is_json"),
    [
        (io.StringIO(), "auto", True),
        (Terminal(), "auto", False),
        (Terminal(), "json", True),
        (io.StringIO(), "text", False),
    ],
)
def test_form_follows_the_terminal_unless_told(output: io.StringIO, form: LogFormat, is_json: bool) -> None:
    """`auto` looks at where the lines go."""
    configure_logs(format=form, output=output)
    get_logger("headworks").warning("hello", number=1)
    assert output.getvalue().startswith("{") is is_json
    assert "hello" in output.getvalue()
    assert ("\x1b" in output.getvalue()) is (not is_json and output.isatty())


def test_level_holds_for_all() -> None:
    """Below it nothing is written."""
    output = io.StringIO()
    configure_logs(level="warning", output=output)
    get_logger("headworks").info("quiet")
    logging.getLogger("grpc").info("quiet")
    assert output.getvalue() == ""


def test_second_call_replaces_the_first() -> None:
    """Lines are never doubled, and handlers of others stay."""
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    first, second = io.StringIO(), io.StringIO()
    configure_logs(output=first)
    configure_logs(output=second)
    get_logger("headworks").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
    assert other in logging.getLogger().handlers
