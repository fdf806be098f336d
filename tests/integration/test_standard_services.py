"""The standard services around the camera service: health, reflection, metrics."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from support.health import health_of
from support.server import PATIENCE_S, Server


@pytest.mark.parametrize("name", ["", "headworks.v1.FrameService", "model/oracle", "model/pairs"])
def test_health_is_serving(serving: Server, name: str) -> None:
    """Balancers ask for the process, for the service, or for one model."""
    assert health_of(serving.target, name) == "SERVING"


def test_health_of_a_name_that_is_not_served(serving: Server) -> None:
    """NOT_FOUND, as the health protocol says."""
    with pytest.raises(grpc.RpcError) as caught:
        health_of(serving.target, "model/tennis")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_services(serving: Server) -> None:
    """grpcurl and its like find the service and its methods without our proto files."""
    ask = reflection_pb2.ServerReflectionRequest
    with grpc.insecure_channel(serving.target) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([ask(list_services=""), ask(file_containing_symbol="headworks.v1.FrameService")]), timeout=PATIENCE_S
        )
        listed, described = call
    names = {service.name for service in listed.list_services_response.service}
    assert {"headworks.v1.FrameService", health_pb2.DESCRIPTOR.services_by_name["Health"].full_name} <= names
    assert b"StreamFrames" in b"".join(described.file_descriptor_response.file_descriptor_proto)


def test_metrics_have_every_family(serving: Server) -> None:
    """One prefix, base units; labels are models, reasons, stages and sizes, never a stream's name."""
    names = {name.split("{")[0] for name in serving.metrics()}
    assert names >= {
        "headworks_streams_active",
        "headworks_streams_opened_total",
        "headworks_frames_received_total",
        "headworks_frames_total",
        "headworks_deadline_missed_total",
        "headworks_waiting_bytes",
        "headworks_model_healthy",
        "headworks_stage_seconds_bucket",
        "headworks_frame_age_seconds_bucket",
        "headworks_event_loop_lag_seconds_bucket",
        "headworks_max_streams",
        "process_resident_memory_bytes",
    }
