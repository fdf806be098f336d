"""Who calls: bearer tokens from a file, the interceptor that asks for them, and the principal of a call.

The interceptor looks at a call once, before its handler runs, and never stands between the handler and gRPC: what
the handler reads, writes and raises, CancelledError included, is as without it. A call that was let in goes on when
its token is withdrawn. Neither tokens nor what a client sent in their place are logged or told.

A tokens file has one `name:token` or `token` a line; empty lines and lines that begin with # say nothing. Several
tokens may bear one name, so that a new one can be handed out before the old one goes. A file without tokens counts as
a file that is half written: it keeps nobody in and nobody out, the last good one stays.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import grpc
import structlog

from headworks_server.errors import ConfigError
from headworks_server.rpc.reloaded import Reloaded, warn_if_readable

log = structlog.get_logger("headworks.security")

# Balancers and kubelets have no tokens, and health tells nothing but whether the server works.
OPEN_TO_ALL = "/grpc.health.v1.Health/"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750
_PRINCIPAL: ContextVar[str] = ContextVar("principal", default="")


class Tokens:
    """The tokens that open the server.

    Arguments:
        text: what stands in the file.

    Raises:
        ValueError: a line is no token, two are the same, or there is none.
    """

    def __init__(self, text: str) -> None:
        self._names: dict[bytes, str] = {}
        for number, line in enumerate(text.splitlines(), 1):
            entry = line.strip()
            if not entry or entry.startswith("#"):
                continue
            name, colon, token = entry.rpartition(":")
            if not _TOKEN.fullmatch(token.strip()) or (colon and not name.strip()):
                raise ValueError(f"line {number}: expected `name:token` or `token`, of letters, digits and -._~+/=")
            digest = _digest(token.strip())
            if digest in self._names:
                raise ValueError(f"line {number}: expected a token of its own, got one that stands above")
            self._names[digest] = name.strip() or f"line-{number}"
        if not self._names:
            raise ValueError("expected at least one token, got none")

    def find(self, token: str) -> str | None:
        """The name that a token bears, None for one that is not known; the time it takes tells nothing of them."""
        digest, found = _digest(token), None
        for known, name in self._names.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found


class TokenFile(Reloaded[Tokens]):
    """The tokens of a file, followed while the server runs.

    Raises:
        ConfigError: the file cannot be read, or a line of it is no token.
    """

    def __init__(self, path: Path) -> None:
        super().__init__("tokens", (path,), lambda: _read(path))


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Lets in the calls that bring a token, and health for everybody; the others end UNAUTHENTICATED.

    Attributes:
        refused: how many calls were not let in.
    """

    def __init__(self, tokens: TokenFile) -> None:
        self.refused = 0
        self._tokens = tokens

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Choose the handler of a call; gRPC runs it in the same task, which is how it knows the principal."""
        method = handler_call_details.method
        if not method.startswith(OPEN_TO_ALL):
            sent = [value for key, value in handler_call_details.invocation_metadata if key == "authorization"]
            if len(sent) != 1:
                fact = f"got {len(sent) or 'none'}"
                return self._refusal(method, f"expected one `authorization: Bearer TOKEN` in the metadata, {fact}")
            scheme, _, token = sent[0].partition(" ")
            if scheme.lower() != "bearer":
                return self._refusal(method, "expected `authorization: Bearer TOKEN`, got another scheme")
            name = self._tokens.value().find(token.strip())
            if name is None:
                return self._refusal(method, "expected a token that this server knows, got another one")
            _PRINCIPAL.set(name)
        return await continuation(handler_call_details)

    def _refusal(self, method: str, detail: str) -> grpc.RpcMethodHandler:
        async def refuse(_requests: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            self.refused += 1
            log.info("call_refused", method=method, peer=context.peer(), detail=detail)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, detail)

        # Whatever kind the method is: this one ends the call without waiting for a message.
        return grpc.stream_stream_rpc_method_handler(refuse)


def principal_of(context: grpc.aio.ServicerContext[bytes, bytes]) -> str:
    """Who makes the call whose handler asks this: the name of its token, else of its certificate, else ""."""
    if name := _PRINCIPAL.get():
        return name
    names = context.auth_context().get("x509_common_name", ())
    return names[0].decode(errors="replace") if names else ""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _read(path: Path) -> Tokens:
    try:
        tokens = Tokens(path.read_text(encoding="utf-8"))
        warn_if_readable("tokens_file", path)
    except OSError as error:
        raise ConfigError(f"tokens_file: {path}: expected a readable file, got {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"tokens_file: {path}: expected text, got bytes that are no UTF-8") from error
    except ValueError as error:
        raise ConfigError(f"tokens_file: {path}: {error}") from error
    return tokens
