"""How a client gets to its servers: addresses, TLS, tokens and gRPC channels. Used by both clients.

A channel is shared by all streams of a client that go to the same server, and made anew once it has led to one that
was gone: certificates and keys are read from their files each time, so they may be replaced while a camera runs.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc

from headworks.errors import CredentialsError
from headworks.picture import MAX_MESSAGE_BYTES

DEFAULT_TARGET = "127.0.0.1:50051"
STREAM_FRAMES = "/headworks.v1.FrameService/StreamFrames"
INFER_FRAME = "/headworks.v1.FrameService/InferFrame"

_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A backstop below the streams' own Pings, for what breaks beneath HTTP/2.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Two clients of one process do not share a connection.
    ("grpc.use_local_subchannel_pool", 1),
)

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """TLS towards the server. The files are PEM, and are read again for each new connection.

    Attributes:
        ca: who may sign the server's certificate; None for the authorities that gRPC knows.
        cert: this client's own certificate, for mutual TLS.
        key: the key of `cert`.
        server_name: the name in the server's certificate, where it is not the one in the address.

    Raises:
        ValueError: `cert` without `key`, or the other way round.
    """

    ca: StrPath | None = None
    cert: StrPath | None = None
    key: StrPath | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("TLS: expected both cert and key, or neither")

    def read(self) -> grpc.ChannelCredentials:
        """Read the files.

        Raises:
            CredentialsError: one of them is missing or cannot be read.
        """
        return grpc.ssl_channel_credentials(
            root_certificates=_read("TLS ca", self.ca),
            private_key=_read("TLS key", self.key),
            certificate_chain=_read("TLS cert", self.cert),
        )


class Access:
    """The servers of a client, and its right to speak to them.

    Args:
        target: "host:port", or several of them.
        tls: TLS options; None for plain text.
        token: a bearer token, or as a `Path` the file that holds it.
        insecure: send the token in plain text over a network, too.

    Raises:
        ValueError: there is no target, or the token would cross a network in plain text.
        CredentialsError: a file is missing or cannot be used.
    """

    def __init__(
        self, target: str | Sequence[str], *, tls: TlsOptions | None, token: str | Path | None, insecure: bool
    ) -> None:
        self.targets = (target,) if isinstance(target, str) else tuple(target)
        self._tls = tls
        self._token = token
        if not self.targets:
            raise ValueError("expected at least one target")
        if token is not None and tls is None and not insecure:
            for place in self.targets:
                if not is_loopback(place):
                    raise ValueError(
                        f"token for {place}: it would cross the network in plain text; give tls=TlsOptions(...), or "
                        "insecure=True if the network is your own"
                    )
        if tls is not None:
            tls.read()
        self.metadata()

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call; a token's file is read each time.

        Raises:
            CredentialsError: the file is missing, or holds no token.
        """
        if self._token is None:
            return ()
        token = self._token
        if isinstance(token, Path):
            place = f"token file {token}"
            token = (_read("token file", token) or b"").decode(errors="replace").strip()
        else:
            place = "token"
        # The server would never see a header with anything else in it.
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise CredentialsError(f"{place}: expected one word of printable ASCII")
        return (("authorization", f"Bearer {token}"),)

    def channel(self, target: str, module: Any) -> Any:
        """Return a new channel of `grpc` or `grpc.aio`.

        Raises:
            CredentialsError: a file is missing or cannot be read.
        """
        if self._tls is None:
            return module.insecure_channel(target, options=_CHANNEL_OPTIONS)
        name = self._tls.server_name
        options = _CHANNEL_OPTIONS if name is None else (*_CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", name))
        return module.secure_channel(target, self._tls.read(), options=options)


@dataclass(slots=True, eq=False)
class Lease:
    """A channel and how many calls use it; a stale one gets no new calls."""

    channel: Any
    users: int = 0
    stale: bool = False


class ChannelBook:
    """The channels of a client, one for each server at a time. The caller locks, and closes what is given back.

    Args:
        make: returns a new channel to a target.
    """

    def __init__(self, make: Callable[[str], Any]) -> None:
        self._make = make
        self._current: dict[str, Lease] = {}
        self._all: set[Lease] = set()

    def lease(self, target: str) -> Lease:
        """Return the channel for a new call to the target."""
        lease = self._current.get(target)
        if lease is None or lease.stale:
            lease = Lease(self._make(target))
            self._current[target] = lease
            self._all.add(lease)
        lease.users += 1
        return lease

    def release(self, lease: Lease, *, stale: bool) -> Any | None:
        """Note that a call has ended; return its channel where it is to be closed."""
        lease.users -= 1
        lease.stale |= stale
        if lease.users or not lease.stale or lease not in self._all:
            return None
        self._all.remove(lease)
        return lease.channel

    def drain(self) -> list[Any]:
        """Return all channels that are open; they are to be closed."""
        channels = [lease.channel for lease in self._all]
        self._all.clear()
        self._current.clear()
        return channels


def is_loopback(target: str) -> bool:
    """Tell whether an address never leaves this machine."""
    if target.startswith("unix:"):
        return True
    place = target.rpartition("/")[2] if "://" in target else target.removeprefix("ipv4:").removeprefix("ipv6:")
    host = urlsplit(f"//{place}").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(what: str, path: StrPath | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CredentialsError(f"{what} {os.fspath(path)}: {error.strerror or error}") from error
