"""What serves a name is swapped while cameras stream: by the watched folder, by an administrator, and back.

Contract, rule 11: the new engine is loaded and warmed beside the old one, streams are told from which frame on, and
what cannot or must not take the place leaves the old one in it.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from headworks.administration import Administration, AdministrationFailedError
from headworks.transport import Access
from headworks.v1 import frame_pb2 as pb
from headworks_server.config import Settings
from headworks_server.engine.preparation import estimate_bytes
from headworks_server.models import load_model
from support.model_zoo import quantize, ultralytics, zoo_model
from support.models import Form, convolving_detector, oracle_detector, save_model
from support.raw_camera import RawCamera, open_request
from support.server import Server

FOOTBALL = Path(__file__).resolve().parents[2] / "examples" / "football"
FRAMES = [(FOOTBALL / "clip" / f"{number:04d}.jpg").read_bytes() for number in (3, 9)]
PICTURE = cv2.imencode(".png", np.full((48, 64, 3), 200, np.uint8))[1].tobytes()
POLICIES = [
    *[pb.DropPolicy(latest=pb.LatestPolicy())] * 8,
    pb.DropPolicy(bounded=pb.BoundedPolicy(depth=3)),
    pb.DropPolicy(every_frame=pb.EveryFramePolicy()),
]


class LiveCamera:
    """A camera of bare stubs that sends until it is told to stop, as its credit allows."""

    def __init__(self, target: str, opening: pb.Open, frames: list[bytes], encoding: int, *, period_s: float) -> None:
        self.camera = RawCamera(target, opening)
        self._frames, self._encoding, self._period_s = frames, encoding, period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def _feed(self) -> None:
        assert self.camera.opened
        while not self._stop.wait(self._period_s):
            if self.camera.last_frame_id < self.camera.frames_allowed:
                self.camera.send_frame(self._frames[self.camera.last_frame_id % len(self._frames)], self._encoding)

    def wait_generation(self, generation: int) -> None:
        """Wait for a result of a generation."""
        self.camera.wait(
            lambda: any(result.outputs[0].generation == generation for result in self.camera.all("result"))
        )

    def wait_result_from(self, frame_id: int) -> None:
        """Wait for a result of that frame or a later one."""
        self.camera.wait(lambda: any(result.frame_id >= frame_id for result in self.camera.all("result")))

    def finish(self) -> pb.Closed:
        """Stop, end the stream, and hold it to the contract and to what it was told of its model."""
        self._stop.set()
        self._thread.join()
        closed = self.camera.close()
        serving = [(0, self.camera.opened.models[0].generation)]
        for notice in self.camera.all("notice"):
            if notice.kind == pb.Notice.KIND_MODEL_CHANGED:
                assert notice.generation == notice.model_info.generation
                serving.append((notice.first_frame_id, notice.generation))
        for result in self.camera.all("result"):
            expected = [generation for first, generation in serving if first <= result.frame_id][-1]
            assert result.outputs[0].generation == expected, (result.frame_id, serving)
        return closed


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The football players quantized by ONNX Runtime, calibrated on a few frames of the clip."""
    frames = []
    for number in (0, 12, 24, 36):
        picture = cv2.cvtColor(cv2.imread(str(FOOTBALL / "clip" / f"{number:04d}.jpg")), cv2.COLOR_BGR2RGB)
        canvas = np.full((224, 384, 3), 114, np.uint8)
        canvas[4:-4] = cv2.resize(picture, (384, 216))
        frames.append((canvas / np.float32(255)).transpose(2, 0, 1)[None])
    file = tmp_path_factory.mktemp("int8") / "model.onnx"
    original = FOOTBALL / "models" / "players" / "model.onnx"
    quantize(original, file, "qdq", frames[0].shape, frames=frames, operators=["Conv"])
    return file


@pytest.fixture
def players(tmp_path: Path) -> Path:
    """A folder with the football players, and nothing else."""
    folder = tmp_path / "models" / "players"
    folder.mkdir(parents=True)
    for file in (FOOTBALL / "models" / "players").iterdir():
        if file.name in ("model.onnx", "model.toml"):
            shutil.copy(file, folder)
    return tmp_path / "models"


def ten_cameras(target: str) -> list[LiveCamera]:
    return [
        LiveCamera(target, open_request("players", drop_policy=policy), FRAMES, pb.ENCODING_JPEG, period_s=0.05)
        for policy in POLICIES
    ]


def test_ten_cameras_see_fp32_int8_and_fp32_again_in_the_watched_folder(
    players: Path, int8: Path, tmp_path: Path
) -> None:
    """No frame is unaccounted for, none is an error, and every result is of the generation that was told."""
    file = players / "players" / "model.onnx"
    fp32 = tmp_path / "fp32.onnx"
    shutil.copy(file, fp32)
    with Server(players, watch_seconds=0.1, max_batch=2) as server:
        cameras = ten_cameras(server.target)
        for camera in cameras:
            camera.wait_generation(1)
        for number, (generation, source) in enumerate(((2, int8), (1, fp32)), 1):
            aside = tmp_path / "aside.onnx"
            shutil.copy(source, aside)
            aside.replace(file)
            server.wait_count("model_moved", number)
            for camera in cameras:
                notice = camera.camera.wait_event("notice", number)
                assert notice.generation == generation
                camera.wait_result_from(notice.first_frame_id)
        for camera in cameras:
            closed = camera.finish()
            assert closed.ledger.errors == 0
            reasons = {drop.reason for drop in closed.ledger.drops}
            assert pb.DROP_REASON_MODEL_LOADING not in reasons, "the old one served until the new one was ready"
        assert not cameras[-1].camera.events[-1].closed.ledger.drops, "a file loses nothing"
        metrics = server.metrics()
        assert metrics['headworks_model_swaps_total{model="players",outcome="done"}'] == 2


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """Versions 1 and 2 of a tiny detector."""
    for number in (1, 2):
        save_model(tmp_path / "models" / "tiny", str(number), oracle_detector(Form(boxes=3 + number)))
    return tmp_path / "models"


@pytest.fixture
def server(versions: Path) -> Iterator[Server]:
    with Server(versions, lanes=1, max_batch=1, admin=True, engine_bytes=60_000_000) as server:
        yield server


@pytest.fixture
def administration(server: Server) -> Iterator[Administration]:
    with Administration(Access(server.target, tls=None, token=None, insecure=False)) as administration:
        yield administration


def tiny_camera(server: Server, **fields: object) -> LiveCamera:
    return LiveCamera(server.target, open_request("tiny", **fields), [PICTURE], pb.ENCODING_PNG, period_s=0.01)


def test_an_administrator_swaps_versions_and_takes_it_back(server: Server, administration: Administration) -> None:
    """The newest serves at first; `back` is what served before, without reading anything anew."""
    with_camera = tiny_camera(server)
    assert with_camera.camera.opened.models[0].version == "2"
    assert administration.swap("tiny", "1").info.version == "1"
    with_camera.wait_generation(2)
    assert administration.swap("tiny", back=True).info.version == "2"
    with_camera.camera.wait_event("notice", 2)
    assert [notice.model_info.version for notice in with_camera.camera.all("notice")] == ["1", "2"]
    with_camera.wait_generation(1)
    with_camera.finish()


def test_a_stream_that_asked_for_a_version_keeps_it(server: Server, administration: Administration) -> None:
    """The name moves on without it, and comes back under its own number."""
    camera = LiveCamera(
        server.target,
        pb.Open(models=[pb.ModelSelector(name="tiny", version="2")]),
        [PICTURE],
        pb.ENCODING_PNG,
        period_s=0.01,
    )
    camera.wait_generation(1)
    administration.swap("tiny", "1")
    with tiny_camera(server).camera as follower:
        assert follower.opened.models[0].version == "1"
    seen = len(camera.camera.all("result"))
    camera.camera.wait(lambda: len(camera.camera.all("result")) > seen + 5)
    camera.finish()
    assert not camera.camera.all("notice")


def test_a_version_beside_the_current_one_serves_who_asks_for_it(
    server: Server, administration: Administration
) -> None:
    """Only after an administrator has loaded it: a client's word opens no file."""
    asked = pb.Open(models=[pb.ModelSelector(name="tiny", version="1")])
    with RawCamera(server.target, asked) as camera:
        assert camera.status()[1].startswith("no version '1' of 'tiny': this server has '2'")
    administration.load("tiny", "1")
    with RawCamera(server.target, asked) as camera:
        assert camera.ask_result(PICTURE, pb.ENCODING_PNG).outputs[0].version == "1"


def refused(
    server: Server, administration: Administration, code: str, *, form: int = 0, prepare: Callable[[], object]
) -> str:
    """Ask for a swap to version 3, which is refused while a camera streams; return why. Nothing else changes."""
    camera = tiny_camera(server, result=pb.ResultOptions(form=form))  # type: ignore[arg-type]
    camera.wait_generation(1)
    prepare()
    with pytest.raises(AdministrationFailedError) as error:
        administration.swap("tiny", "3")
    assert error.value.code == code
    seen = len(camera.camera.all("result"))
    camera.camera.wait(lambda: len(camera.camera.all("result")) > seen + 5)
    closed = camera.finish()
    assert not camera.camera.all("notice")
    assert closed.ledger.errors == 0
    assert pb.DROP_REASON_MODEL_LOADING not in {drop.reason for drop in closed.ledger.drops}
    assert administration.models().models[-1].info.version == "2"
    return error.value.detail


def test_a_version_that_cannot_be_read_is_refused(
    server: Server, administration: Administration, versions: Path
) -> None:
    """Half of a file."""

    def half() -> None:
        (versions / "tiny" / "3").mkdir()
        (versions / "tiny" / "3" / "model.onnx").write_bytes(b"half a model")

    assert "expected an ONNX model" in refused(server, administration, "NOT_FOUND", prepare=half)


def test_a_version_slower_than_it_may_be_is_refused(
    server: Server, administration: Administration, versions: Path
) -> None:
    """`max_frame_ms` of its model.toml, against what was measured when it was warmed."""

    def slow() -> None:
        file = save_model(versions / "tiny", "3", convolving_detector(Form(width=256, height=256)))
        (file.parent / "model.toml").write_text("[serving]\nmax_frame_ms = 0.001\n")

    why = refused(server, administration, "FAILED_PRECONDITION", prepare=slow)
    assert why.startswith("tiny/3: expected at most 0.001 ms a frame, got ")


def test_a_version_that_does_not_serve_what_a_stream_asked_for_is_refused(
    server: Server, administration: Administration, versions: Path
) -> None:
    """A detector's stream of boxes cannot go on with classes."""

    def other_head() -> None:
        classes = zoo_model({"scores": ("float", ("batch", 3))}, ends="Softmax", metadata=ultralytics("classify"))
        save_model(versions / "tiny", "3", classes)

    form = pb.ResultOptions.FORM_DETECTIONS
    why = refused(server, administration, "FAILED_PRECONDITION", form=form, prepare=other_head)
    assert "expected results as FORM_CLASSIFICATIONS or FORM_RAW_TENSORS, got FORM_DETECTIONS" in why


def test_a_version_that_does_not_fit_beside_the_old_one_is_refused_with_the_sizes(
    server: Server, administration: Administration, versions: Path
) -> None:
    """A model that has grown from some kilobytes to 60 MB, in a budget of 60 MB."""

    def large() -> None:
        save_model(versions / "tiny", "3", convolving_detector(Form(), channels=(16, 64, 1024, 1600)))

    why = refused(server, administration, "RESOURCE_EXHAUSTED", prepare=large)
    assert why.startswith("no room for tiny/3: expected ")
    assert "of 60.0 MB, held by tiny/2 (leased, " in why


def test_a_version_that_grows_within_the_budget_is_served(administration: Administration, versions: Path) -> None:
    """Its bytes are its own from then on, and the old one's are free when they are needed."""
    before = administration.models().memory.used_bytes
    save_model(versions / "tiny", "3", convolving_detector(Form(), channels=(16, 64, 512, 512)))
    report = administration.swap("tiny")
    assert report.info.version == "3"
    assert report.resident_bytes > 8_000_000
    assert administration.models().memory.used_bytes > before + 8_000_000


@pytest.mark.parametrize("planned", [False, True])
def test_the_way_back_to_a_file_that_was_replaced(tmp_path: Path, planned: bool) -> None:
    """From memory while it is there, then from its prepared file; without one the refusal says that the file is
    another now."""
    models, aside = tmp_path / "models", tmp_path / "aside.onnx"
    path = save_model(models, "tiny", oracle_detector(Form(boxes=4)))
    save_model(models, "zz-ballast", convolving_detector(Form(), channels=(16, 64, 512)))
    ballast = load_model(Settings(models=models, max_batch=1), "zz-ballast")
    room = estimate_bytes(ballast, batch=1) + ballast.input.position_bytes + 100_000
    plans = {"plans": tmp_path / "plans"} if planned else {}
    with (
        Server(models, lanes=1, max_batch=1, admin=True, engine_bytes=room, **plans) as server,
        Administration(Access(server.target, tls=None, token=None, insecure=False)) as administration,
    ):
        before = administration.swap("tiny").info.digest
        aside.write_bytes(oracle_detector(Form(boxes=7)).SerializeToString())
        aside.replace(path)
        assert administration.swap("tiny").info.digest != before
        assert administration.swap("tiny", back=True).info.digest == before
        after = administration.swap("tiny", back=True).info.digest
        administration.load("zz-ballast")  # which needs the room of all others
        if planned:
            assert administration.swap("tiny", back=True).info.digest == before
        else:
            with pytest.raises(AdministrationFailedError, match="expected the file that was read before"):
                administration.swap("tiny", back=True)
            assert administration.models().models[-2].info.digest in (before, after)
            with RawCamera(server.target, open_request("tiny")) as camera:
                assert camera.opened.models[0].digest == after
