"""What goes wrong under models while others are served: killed preparations, damaged files, a full disk.

Nobody else notices, what can be served is served, and what cannot is told with the cause.
"""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest

from headworks.administration import Administration
from headworks.transport import Access
from headworks.v1 import frame_pb2 as pb
from support.models import Form, convolving_detector, oracle_detector, save_model
from support.raw_camera import RawCamera, open_request
from support.raw_infer import RawCaller, infer_request
from support.server import PATIENCE_S, Server

PICTURE = cv2.imencode(".png", np.full((48, 64, 3), 200, np.uint8))[1].tobytes()


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


@contextmanager
def camera_beside(server: Server) -> Iterator[None]:
    """A camera on another model, which gets a result for every frame that it sends one by one, and hears of nothing."""
    stop = threading.Event()
    served = 0

    def stream(camera: RawCamera) -> None:
        nonlocal served
        while not stop.is_set():
            camera.ask_result(PICTURE, pb.ENCODING_PNG)
            served += 1

    with RawCamera(server.target, open_request("steady")) as camera:
        thread = threading.Thread(target=stream, args=(camera,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        closed = camera.close()
        assert closed.ledger.results == closed.ledger.received == served > 0
        assert not camera.all("notice")


def ask_tiny(server: Server) -> str:
    """Ask for one picture; the shape of the model that answered."""
    with RawCaller(server.target) as caller:
        options = pb.ResultOptions(form=pb.ResultOptions.FORM_RAW_TENSORS)
        result = caller.ask(infer_request(PICTURE, "tiny", pb.ENCODING_PNG, result=options))
    return "x".join(map(str, result.outputs[0].raw_tensors.tensors[0].shape))


def preparing_child(server: Server) -> int:
    """Wait for the process that prepares a model, and return its number."""
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        for task in Path(f"/proc/{server.pid}/task").iterdir():
            with suppress(OSError):
                for child in (task / "children").read_text().split():
                    if b"engine.prepare" in Path(f"/proc/{child}/cmdline").read_bytes():
                        return int(child)
    raise AssertionError("nothing was prepared")


def test_a_killed_preparation_leaves_the_model_to_its_own_file(models: Path, tmp_path: Path) -> None:
    """kill -9 of the process: one warning, the model is served all the same, and no camera notices."""
    with Server(models, plans=tmp_path / "plans", watch_seconds=0.1, lanes=1) as server, camera_beside(server):
        save_model(models, "new", convolving_detector(Form(), channels=(16, 64, 512)))
        os.kill(preparing_child(server), signal.SIGKILL)
        killed = server.wait_line(lambda line: line.get("event") == "model_unprepared")
        assert killed["model"] == "new"
        assert "a process killed by SIGKILL" in killed["detail"]
        server.wait_line(lambda line: line.get("event") == "model_published" and line["model"] == "new")
        with RawCamera(server.target, open_request("new")) as camera:
            camera.ask_result(PICTURE, pb.ENCODING_PNG)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "another's"])
def test_a_damaged_prepared_file_is_never_run(models: Path, tmp_path: Path, damage: str) -> None:
    """It is made anew when the model comes back, which answers as before."""
    plans = tmp_path / "plans"
    with (
        Server(models, plans=plans, lanes=1, max_batch=1, admin=True) as server,
        administration_of(server) as administration,
    ):
        assert ask_tiny(server) == "7x7"
        administration.unload("tiny")
        whole = {file: file.read_bytes() for file in plans.glob("*.plan")}
        for file, content in whole.items():
            others = [other for other in whole.values() if other != content]
            file.write_bytes(
                {
                    "flipped": content[:100] + bytes([content[100] ^ 1]) + content[101:],
                    "truncated": content[: len(content) // 2],
                    "another's": others[0],
                }[damage]
            )
        with camera_beside(server):
            assert ask_tiny(server) == "7x7"
        assert any(file.read_bytes() == content for file, content in whole.items()), "one was made anew"


def test_a_file_that_was_swapped_while_its_model_was_away_is_not_run(models: Path, tmp_path: Path) -> None:
    """Nobody said that it shall serve: both digests are told, and the old file in its place again is good again."""
    path, aside = models / "tiny" / "model.onnx", tmp_path / "aside.onnx"
    original = path.read_bytes()
    with Server(models, lanes=1, admin=True) as server, administration_of(server) as administration:
        administration.unload("tiny")
        aside.write_bytes(oracle_detector(Form(boxes=9)).SerializeToString())
        aside.replace(path)
        with camera_beside(server), RawCamera(server.target, open_request("tiny", drop_policy=every_frame())) as camera:
            error = camera.ask_error(PICTURE, pb.ENCODING_PNG)
            assert error.code == pb.FRAME_ERROR_CODE_ENGINE_FAILED
            assert "expected the file that was read before, SHA-256 " in error.detail
            with RawCaller(server.target) as caller:
                code, detail = caller.refused(infer_request(PICTURE, "tiny", pb.ENCODING_PNG))
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "expected the file that was read before" in detail
            aside.write_bytes(original)
            aside.replace(path)
            administration.load("tiny")
            camera.ask_result(PICTURE, pb.ENCODING_PNG)
            assert camera.close().ledger.errors == 1
        assert ask_tiny(server) == "7x7"


def test_a_full_disk_costs_prepared_files_and_nothing_else(models: Path, tmp_path: Path) -> None:
    """A write beyond the limit of a file fails as one on a full disk does; the model is served from its own file."""
    with Server(models, plans=tmp_path / "plans", watch_seconds=0.1, lanes=1) as server, camera_beside(server):
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1024, 1024))
        save_model(models, "new", convolving_detector(Form()))
        unprepared = server.wait_line(lambda line: line.get("event") == "model_unprepared")
        assert unprepared["model"] == "new"
        server.wait_line(lambda line: line.get("event") == "model_published" and line["model"] == "new")
        with RawCamera(server.target, open_request("new")) as camera:
            camera.ask_result(PICTURE, pb.ENCODING_PNG)


def every_frame() -> pb.DropPolicy:
    return pb.DropPolicy(every_frame=pb.EveryFramePolicy())
