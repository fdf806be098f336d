"""A model that is another one than it was, under servers that keep prepared files: far larger, or exchanged unseen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest

from headworks.administration import Administration
from headworks.transport import Access
from headworks.v1 import frame_pb2 as pb
from headworks_server.engine.repository import file_digest
from support.live_camera import LiveCamera
from support.models import Form, convolving_detector, oracle_detector, save_model
from support.raw_camera import RawCamera, open_request
from support.raw_infer import RawCaller, infer_request
from support.server import LogLine, Server

PICTURE = cv2.imencode(".png", np.full((48, 64, 3), 200, np.uint8))[1].tobytes()
EVERY_FRAME = pb.DropPolicy(every_frame=pb.EveryFramePolicy())
BUDGET = 40_000_000


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    save_model(folder, "steady", oracle_detector())
    save_model(folder, "tiny", oracle_detector(Form(boxes=7)))
    return folder


@contextmanager
def administration_of(server: Server) -> Iterator[Administration]:
    with Administration(Access(server.target, tls=None, token=None, insecure=False)) as administration:
        yield administration


def put(models: Path, channels: tuple[int, ...]) -> None:
    """Put a larger model in the place of `tiny`, at once."""
    aside = save_model(models.parent, "aside", convolving_detector(Form(), channels=channels))
    aside.replace(models / "tiny" / "model.onnx")


def wait_event(server: Server, event: str, model: str, *, generation: int = 0) -> LogLine:
    return server.wait_line(
        lambda line: (
            (line.get("event"), line.get("model")) == (event, model) and line.get("generation", 0) >= generation
        )
    )


def test_a_model_that_grows_is_served_within_the_budget_and_refused_beyond_it(models: Path, tmp_path: Path) -> None:
    """From some kilobytes to 10 MB of weights, which fit beside the old one, and to 80 MB, which do not: told with the
    sizes, and what served goes on. Streams lose no frame by either, and the cache is never over its budget."""
    settings = {"plans": tmp_path / "plans", "watch_seconds": 0.1, "lanes": 1, "max_batch": 1, "engine_bytes": BUDGET}
    with Server(models, admin=True, **settings) as server, administration_of(server) as administration:
        cameras = [
            LiveCamera(server, open_request(model, drop_policy=EVERY_FRAME), [PICTURE], pb.ENCODING_PNG)
            for model in ("tiny", "steady")
        ]
        for camera in cameras:
            camera.wait_generation(1)
        before = administration.models().memory
        put(models, (16, 64, 512, 512))
        wait_event(server, "model_published", "tiny", generation=2)
        cameras[0].wait_generation(2)
        memory = administration.models().memory
        assert memory.used_bytes > before.used_bytes + 8_000_000
        assert memory.over_bytes == 0

        put(models, (16, 64, 1024, 2048))
        refused = wait_event(server, "model_refused", "tiny")
        assert refused["serving"] is True
        assert str(refused["detail"]).startswith("no room for tiny/1: expected ")
        assert "of 40.0 MB, held by " in str(refused["detail"])
        for camera in cameras:
            camera.wait_results(5)
        after = administration.models().memory
        assert (after.used_bytes, after.over_bytes) == (memory.used_bytes, 0)
        for camera in cameras:
            ledger = camera.finish().ledger
            assert ledger.results == ledger.received > 0
        assert [notice.generation for notice in cameras[0].changes()] == [2]
        assert not cameras[1].camera.all("notice")


def test_a_file_that_was_exchanged_while_its_model_was_away_is_never_prepared_for_it(
    models: Path, tmp_path: Path
) -> None:
    """The prepared file of what was read still serves it. Where that is gone, too, the load is refused with both
    digests, a new stream that asks UNAVAILABLE, and others go on."""
    path, plans = models / "tiny" / "model.onnx", tmp_path / "plans"
    was = file_digest(path)
    with (
        Server(models, plans=plans, lanes=1, max_batch=1, admin=True) as server,
        administration_of(server) as administration,
    ):
        steady = LiveCamera(server, open_request("steady", drop_policy=EVERY_FRAME), [PICTURE], pb.ENCODING_PNG)
        administration.unload("tiny")
        aside = save_model(tmp_path, "aside", oracle_detector(Form(boxes=9)))
        aside.replace(path)
        now = file_digest(path)
        ask = infer_request(
            PICTURE,
            "tiny",
            pb.ENCODING_PNG,
            result=pb.ResultOptions(form=pb.ResultOptions.FORM_RAW_TENSORS),
        )
        with RawCaller(server.target) as caller:
            assert list(caller.ask(ask).outputs[0].raw_tensors.tensors[0].shape) == [7, 7]
            administration.unload("tiny")
            for file in plans.glob("*.plan"):
                file.unlink()
            code, detail = caller.refused(ask)
        both = f"SHA-256 {was[:12]}, got {now[:12]}"
        assert code is grpc.StatusCode.UNAVAILABLE
        assert both in detail
        assert both in wait_event(server, "model_failed", "tiny")["detail"]
        unprepared = wait_event(server, "model_unprepared", "tiny")["detail"]
        assert was in unprepared
        assert now in unprepared
        with RawCamera(server.target, open_request("tiny")) as camera:
            code, detail = camera.status()
            assert code is grpc.StatusCode.UNAVAILABLE
            assert both in detail
        steady.wait_results(5)
        ledger = steady.finish().ledger
        assert ledger.results == ledger.received > 0
        assert not steady.camera.all("notice")
