"""Bearer tokens: the file's form, what is refused, rotation, and what the interceptor does with a call."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from headworks_server.errors import ConfigError
from headworks_server.rpc.auth import TokenFile, TokenInterceptor, Tokens
from support.certificates import replace_file

STREAM = "/headworks.v1.FrameService/StreamFrames"


def token_file(tmp_path: Path, text: str = "north:abc-1\n") -> Path:
    """A tokens file that only we may read."""
    path = tmp_path / "tokens"
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def test_tokens_with_and_without_names() -> None:
    """Comments and empty lines say nothing; a token without a name is known by its line."""
    tokens = Tokens("# cameras\n\nnorth:abc-1\n  south stand : x/y+z~._== \nplain\r\n  # end\n")
    assert tokens.find("abc-1") == "north"
    assert tokens.find("x/y+z~._==") == "south stand"
    assert tokens.find("plain") == "line-5"
    assert [tokens.find(other) for other in ("", "abc", "abc-12", "north:abc-1", "north", "# cameras")] == [None] * 6


def test_one_name_may_have_two_tokens() -> None:
    """The new one is handed out before the old one goes."""
    tokens = Tokens("north:old\nnorth:new\n")
    assert (tokens.find("old"), tokens.find("new")) == ("north", "north")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("north:abc\nsouth:two words\n", "line 2: expected `name:token` or `token`"),
        ("north:\n", "line 1: expected `name:token` or `token`"),
        (":abc\n", "line 1: expected `name:token` or `token`"),
        ("a:same\n#\nb:same\n", "line 3: expected a token of its own, got one that stands above"),
        ("# none yet\n\n", "expected at least one token, got none"),
        ("", "expected at least one token, got none"),
    ],
)
def test_a_wrong_line_is_named_and_not_shown(tmp_path: Path, text: str, fault: str) -> None:
    """The text names file and line; the tokens stay secret."""
    path = token_file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        TokenFile(path)
    assert str(caught.value).startswith(f"tokens_file: {path}: {fault}")
    assert not any(secret in str(caught.value) for secret in ("abc", "same", "words"))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Setting, file, expectation, fact."""
    with pytest.raises(ConfigError, match="gone: expected a readable file, got No such file or directory"):
        TokenFile(tmp_path / "gone")
    path = token_file(tmp_path)
    path.write_bytes(b"north:\xff\n")
    with pytest.raises(ConfigError, match="expected text, got bytes that are no UTF-8"):
        TokenFile(path)


def test_a_file_that_everybody_may_read_is_told(tmp_path: Path) -> None:
    """A warning at start and at each replacement."""
    path = token_file(tmp_path)
    os.chmod(path, 0o644)
    with capture_logs() as logs:
        TokenFile(path)
    assert [(line["event"], line["setting"]) for line in logs] == [("secret_readable_by_all", "tokens_file")]


def test_a_replaced_file_comes_into_force(tmp_path: Path) -> None:
    """At the next call; a file that is wrong or empty changes nothing, and is told once."""
    path = token_file(tmp_path)
    tokens = TokenFile(path)
    replace_file(path, b"north:abc-2\n")
    assert (tokens.value().find("abc-1"), tokens.value().find("abc-2")) == (None, "north")
    for content in (b"", b"two words\n"):
        with capture_logs() as logs:
            replace_file(path, content)
            assert [tokens.value().find("abc-2") for _ in range(3)] == ["north"] * 3
        assert [line["event"] for line in logs] == ["reload_refused"]
    assert tokens.failures == 2


def test_a_pipe_is_read_once() -> None:
    """As a shell's <(...): to read it again would block the event loop for ever."""
    readable, writable = os.pipe()
    os.write(writable, b"north:abc-1\n")
    os.close(writable)
    tokens = TokenFile(Path(f"/dev/fd/{readable}"))
    assert tokens.value().find("abc-1") == "north"
    os.close(readable)


class Details:
    """A call as the interceptor sees it."""

    def __init__(self, *authorization: str, method: str = STREAM) -> None:
        self.method = method
        self.invocation_metadata = (("user-agent", "x"), *(("authorization", value) for value in authorization))


class Context:
    """Records how a call is ended."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def abort(self, code: Any, detail: str) -> None:
        self.ended = (code.name, detail)


def intercept(tokens: TokenFile, details: Details) -> tuple[str, str] | None:
    """How the call is ended; None for one that is let in."""
    served = object()

    async def main() -> tuple[str, str] | None:
        async def find_handler(_details: Details) -> object:
            return served

        handler = await TokenInterceptor(tokens).intercept_service(find_handler, details)  # type: ignore[arg-type]
        if handler is served:
            return None
        context = Context()
        await handler.stream_stream(None, context)
        return context.ended

    return asyncio.run(main())


@pytest.mark.parametrize("authorization", ["Bearer abc-1", "bearer abc-1", "BEARER  abc-1"])
def test_a_known_token_is_let_in(tmp_path: Path, authorization: str) -> None:
    """The scheme's case does not count (RFC 7235)."""
    assert intercept(TokenFile(token_file(tmp_path)), Details(authorization)) is None


@pytest.mark.parametrize(
    ("authorization", "fact"),
    [
        ((), "got none"),
        (("Bearer abc-1", "Bearer abc-1"), "got 2"),
        (("Basic abc-1",), "got another scheme"),
        (("abc-1",), "got another scheme"),
        (("Bearer",), "got another one"),
        (("Bearer abc-2",), "got another one"),
        (("Bearer abc-1 abc-1",), "got another one"),
        (("Bearer äöü",), "got another one"),
    ],
)
def test_other_calls_end_unauthenticated(tmp_path: Path, authorization: tuple[str, ...], fact: str) -> None:
    """With a reason that a person can act on; what was sent is neither told nor logged."""
    with capture_logs() as logs:
        ended = intercept(TokenFile(token_file(tmp_path)), Details(*authorization))
    assert ended is not None
    assert ended[0] == "UNAUTHENTICATED"
    assert ended[1].endswith(fact)
    assert [line["event"] for line in logs] == ["call_refused"]
    assert not any("abc" in str(text) for text in (ended, logs))


@pytest.mark.parametrize(
    ("method", "let_in"),
    [
        ("/grpc.health.v1.Health/Check", True),
        ("/grpc.health.v1.Health/Watch", True),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", False),
        ("/headworks.v1.FrameService/InferFrame", False),
        ("/grpc.health.v1.HealthX/Check", False),
        ("/nowhere/at.all", False),
    ],
)
def test_only_health_is_open(tmp_path: Path, method: str, let_in: bool) -> None:
    """Balancers have no tokens; whoever has none does not even hear which methods there are."""
    assert (intercept(TokenFile(token_file(tmp_path)), Details(method=method)) is None) == let_in
