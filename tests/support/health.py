"""What a server's health service says, by the standard client. Used by the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.server import PATIENCE_S


def health_of(target: str, service: str) -> str:
    """The health of a name now, such as "SERVING"."""
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        response = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_S)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)


def watch_health(target: str, service: str) -> Iterator[str]:
    """The health of a name from now on: what it is, then each change."""
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for response in stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_S):
            yield health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
