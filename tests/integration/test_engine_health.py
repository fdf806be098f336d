"""Rule 14: an engine that fails again and again is told as unhealthy, is tried all the same, and recovers."""

from __future__ import annotations

from headworks.v1 import frame_pb2 as pb
from support.health import health_of, watch_health
from support.raw_camera import RawCamera, open_request
from support.server import Server

HEALTHY = 'headworks_model_healthy{model="stand-in"}'
# Batches of one frame, the third to the seventh of which fail.
FAILING = {"max_batch": 1, "target": 1, "decoders": 1, "decode_ms": 0, "fail_from": 2, "fail_count": 5}


def test_three_failed_batches_in_a_row_degrade_and_one_good_one_restores() -> None:
    """ENGINE_FAILED for each frame; from the third in a row NOT_SERVING and Notice{DEGRADED}; then RESTORED."""
    options = {f"sleeping__{name}": value for name, value in FAILING.items()}
    with Server(backend="sleeping", **options) as server:
        watched = watch_health(server.target, "model/stand-in")
        with RawCamera(server.target, open_request()) as camera, RawCamera(server.target, open_request()) as other:
            assert other.opened
            for _ in range(2):
                camera.ask_result(b"good")
            assert next(watched) == "SERVING"
            for number in range(5):
                error = camera.ask_error(b"good")
                assert error.code == pb.FRAME_ERROR_CODE_ENGINE_FAILED
                assert f"batch {number + 2}" in error.detail
                if number == 1:
                    assert not camera.all("notice")
            notice = camera.wait_event("notice")
            assert (notice.kind, notice.model) == (pb.Notice.KIND_DEGRADED, "stand-in")
            assert notice.detail
            assert other.wait_event("notice").kind == pb.Notice.KIND_DEGRADED
            assert next(watched) == "NOT_SERVING"
            assert server.metrics()[HEALTHY] == 0
            # The process still accepts streams: only the model is unhealthy, and new streams on it are tried too.
            assert health_of(server.target, "") == "SERVING"
            with RawCamera(server.target, open_request()) as third:
                third.ask_result(b"good")
            assert camera.wait_event("notice", 2).kind == pb.Notice.KIND_RESTORED
            assert other.wait_event("notice", 2).kind == pb.Notice.KIND_RESTORED
            assert next(watched) == "SERVING"
            assert server.metrics()[HEALTHY] == 1
            closed = camera.close()
            assert (closed.ledger.results, closed.ledger.errors) == (2, 5)
            assert len(camera.all("notice")) == 2
        assert server.count("model_degraded") == server.count("model_restored") == 1


def test_a_good_batch_between_failures_keeps_the_model_healthy(serving: Server) -> None:
    """Two bad batches, a good one, two bad ones: not three in a row, so nothing is said."""
    from support.colours import plain
    from support.pictures import png

    red, green = png(plain((255, 0, 0))), png(plain((0, 255, 0)))
    with RawCamera(serving.target, open_request("fragile")) as camera:
        for picture in (red, red, green, red, red, green):
            camera.ask(picture, pb.ENCODING_PNG)
        closed = camera.close()
        assert (closed.ledger.results, closed.ledger.errors) == (2, 4)
        assert not camera.all("notice")
    assert health_of(serving.target, "model/fragile") == "SERVING"
