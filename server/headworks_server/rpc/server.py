"""The gRPC server around the services: address, options, guards, health, reflection. One event loop, one process."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from headworks.v1 import model_pb2_grpc
from headworks_server.core.administration import ModelAdministration
from headworks_server.errors import ConfigError
from headworks_server.rpc.administration import MODEL_SERVICE, ModelServicer
from headworks_server.rpc.security import Security
from headworks_server.rpc.service import FRAME_SERVICE, FrameService

log = structlog.get_logger("headworks")

KEEPALIVE_MS = 20_000
HANDSHAKE_MS = 10_000  # TLS on a mobile network takes a second or two
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def server_options(*, max_frame_bytes: int, max_streams: int) -> list[tuple[str, int]]:
    """The channel arguments of the server; benchmarks give their baseline the same."""
    # A stream over max_streams shall hear RESOURCE_EXHAUSTED: over this number it would wait in its client, silent.
    calls = max_streams + 64
    return [
        # A frame over max_frame_bytes is answered with a FrameError, not with the end of its stream: hence twice.
        ("grpc.max_receive_message_length", 2 * max_frame_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_MS // 2),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients ping as often as we do; the default allows one in five minutes and then answers GOAWAY.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.max_concurrent_streams", calls),
        # A camera may have a connection of its own, and its next one before the last is gone.
        ("grpc.max_allowed_incoming_connections", 2 * calls),
        # Who connects and says nothing, or does not take up the protocol, holds a connection no longer than this.
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.http2.settings_timeout", HANDSHAKE_MS),
        # Identity only: pictures are compressed already, and a few bytes of gzip unpack to the largest message.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        # Two servers on one port would split the cameras between them in silence.
        ("grpc.so_reuseport", 0),
    ]


def _probe(address: str) -> None:
    """Raise OSError unless somebody could listen at `host:port` now."""
    host, _, port = address.rpartition(":")
    family, kind, protocol, _, place = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does: a port in TIME_WAIT is free
        probe.bind(place)


class GrpcServer:
    """Serves FrameService, health and reflection on one address; ModelService, too, where there is an administration.

    Reflection is guarded as the camera service is; health asks for no token (TLS and client certificates come before
    any call, so they hold for it, too). ModelService is guarded as they are, and by `admins` where there are any.

    Attributes:
        port: the port it listens on; where 0 was asked for, the one it got. 0 before `start`.
    """

    def __init__(
        self,
        frames: FrameService,
        *,
        models: Iterable[str],
        max_frame_bytes: int,
        max_streams: int,
        administration: ModelAdministration | None = None,
        admins: Sequence[str] = (),
        security: Security = Security(),  # noqa: B008  (it is immutable)
    ) -> None:
        self.port = 0
        self._security = security
        self._server = grpc.aio.server(
            interceptors=[security.interceptor] if security.interceptor is not None else None,
            options=server_options(max_frame_bytes=max_frame_bytes, max_streams=max_streams),
        )
        self._server.add_generic_rpc_handlers((frames.handler(),))
        self._health = health.aio.HealthServicer()
        self._names = {"", FRAME_SERVICE, *(f"model/{name}" for name in models)}
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        services = [FRAME_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME]
        if administration is not None:
            servicer = ModelServicer(administration, frames.ledger, admins=admins)
            model_pb2_grpc.add_ModelServiceServicer_to_server(servicer, self._server)  # type: ignore[no-untyped-call]
            services.append(MODEL_SERVICE)
        reflection.enable_server_reflection(services, self._server)

    async def start(self, address: str) -> None:
        """Listen on `host:port`, and say SERVING.

        Raises:
            ConfigError: the address cannot be had.
        """
        try:
            _probe(address)  # gRPC says less, and writes a line of its own to stderr
            if self._security.certificates is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, self._security.certificates.credentials())
        except (OSError, RuntimeError) as error:
            fact = getattr(error, "strerror", None) or "cannot be had"
            raise ConfigError(f"port: expected one that is free, got {address}: {fact}; choose with --port") from error
        await self._server.start()
        log.info("listening", address=address, port=self.port, security=self._security.name)
        for name in tuple(self._names):
            await self._health.set(name, SERVING)

    async def set_model_health(self, model: str, serving: bool) -> None:
        """Say whether a model serves; it may be one that was not there at the start."""
        self._names.add(name := f"model/{model}")
        await self._health.set(name, SERVING if serving else NOT_SERVING)

    async def set_not_serving(self) -> None:
        """Say NOT_SERVING under every name; balancers send no new streams from now on."""
        for name in tuple(self._names):
            await self._health.set(name, NOT_SERVING)

    async def stop(self) -> None:
        """Close the port and every call that is still open."""
        await self._server.stop(1.0)
