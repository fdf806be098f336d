"""A quantized file in place of the original, through a server: no change of client or model.toml, nearly the same
results.

The football example's detector is quantized here as a user would do it, with ONNX Runtime's own tools and a few frames.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

import headworks
from support.model_zoo import quantize
from support.models import LABELS, Form, convolving_detector, save_model
from support.pictures import png, textured
from support.server import Server

FOOTBALL = Path(__file__).resolve().parents[2] / "examples" / "football"
WIDTH, HEIGHT = 384, 224
CLIP = [FOOTBALL / "clip" / f"{number:04d}.jpg" for number in range(0, 48, 6)]
CALIBRATION, SHOWN = CLIP[::2], [path.read_bytes() for path in CLIP[1::2]]
SURE = 0.5
Found = Sequence[headworks.Detection]


def prepared(path: Path) -> np.ndarray:
    """A frame of the clip as the detector takes it: 1920x1080 letterboxed into 384x224, [1, 3, h, w]."""
    picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    canvas = np.full((HEIGHT, WIDTH, 3), 114, np.uint8)
    canvas[4:-4] = cv2.resize(picture, (WIDTH, HEIGHT - 8))
    return (canvas / np.float32(255)).transpose(2, 0, 1)[None]


@pytest.fixture(scope="module")
def original() -> Path:
    return FOOTBALL / "models" / "players" / "model.onnx"


@pytest.fixture
def models(tmp_path: Path, original: Path) -> Path:
    """A folder with a copy of the detector, and no model.toml."""
    save_model(tmp_path / "models", "players", onnx.load(original))
    return tmp_path / "models"


@pytest.fixture
def server(models: Path) -> Iterator[Server]:
    with Server(models, watch_seconds=0.1, lanes=1, max_batch=1) as server:
        yield server


def detections(stream: headworks.FrameStream, generation: int) -> list[Found]:
    """What the stream's model, which is of that generation, finds in the frames that are shown."""
    found = []
    for frame in SHOWN:
        stream.send(frame)
        result = next(iter(stream))
        assert isinstance(result, headworks.Result)
        assert result.outputs[0].generation == generation
        found.append(result.detections)
    return found


def overlap(one: headworks.Detection, other: headworks.Detection) -> float:
    """Intersection over union."""
    wide = min(one.x2, other.x2) - max(one.x1, other.x1)
    high = min(one.y2, other.y2) - max(one.y1, other.y1)
    both = max(wide, 0) * max(high, 0)
    areas = sum((each.x2 - each.x1) * (each.y2 - each.y1) for each in (one, other))
    return both / (areas - both)


def share_found_again(expected: list[Found], found: list[Found]) -> float:
    """Of the sure ones of `expected`, how many were found again: same class, a place nearly the same, a like score."""
    sure = [(one, others) for ones, others in zip(expected, found, strict=True) for one in ones if one.score > SURE]
    assert len(sure) > 40
    again = [
        any(
            one.label == other.label and overlap(one, other) > 0.8 and abs(one.score - other.score) < 0.1
            for other in others
        )
        for one, others in sure
    ]
    return sum(again) / len(again)


def test_a_detector_is_replaced_by_its_quantized_files_while_it_is_served(
    server: Server, models: Path, original: Path, tmp_path: Path
) -> None:
    """Dynamic, then QDQ, then QDQ with a uint8 input, each dropped in the folder: new streams, opened as before, get
    it, and find the same people. A stream that was open moves to it, and finds what they find."""
    frames = [prepared(path) for path in CALIBRATION]
    with headworks.Client(server.target) as client, client.stream("players", policy="every_frame") as old:
        expected = detections(old, 1)
        digests = {old.opened.models[0].digest}
        for generation, how in enumerate(("dynamic", "qdq", "uint8"), 2):
            file = tmp_path / f"{how}.onnx"
            # Box and scores end in one tensor, which has no one scale.
            quantize(original, file, how, frames[0].shape, frames=frames, operators=["Conv"])
            file.replace(models / "players" / "model.onnx")
            server.wait_line(
                lambda line, now=generation: line.get("event") == "model_published" and line["generation"] == now
            )
            with client.stream("players", policy="every_frame") as new:
                found = detections(new, generation)
                digests.add(new.opened.models[0].digest)
                assert new.opened.models[0].labels == old.opened.models[0].labels
            assert share_found_again(expected, found) > 0.95
            assert share_found_again(found, expected) > 0.95
            assert detections(old, generation) == found
    assert len(digests) == 4
    assert server.count("model_refused") == 0


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a float detector whose model.toml says what it is."""
    folder = tmp_path_factory.mktemp("described")
    model = convolving_detector(Form(width=128, height=96))
    del model.metadata_props[:]
    save_model(folder, "tiny", model).with_name("model.toml").write_text(
        f'labels = {list(LABELS)}\n[input]\ncolor = "rgb"\n[preprocess]\nscale = "1/255"\n[output]\nhead = "yolov8"\n'
    )
    return folder


@pytest.fixture(scope="module")
def float_output(described: Path) -> np.ndarray:
    return raw_output(described)


@pytest.mark.parametrize("how", ["dynamic", "qdq", "operators", "uint8"])
def test_a_quantized_file_is_served_with_the_description_of_the_original(
    described: Path, float_output: np.ndarray, tmp_path: Path, how: str
) -> None:
    """Its model.toml says 1/255 for a float input, and stays when the input takes bytes. Operators of com.microsoft
    are the runtime's own."""
    shutil.copytree(described, tmp_path / "models")
    quantized = tmp_path / "models" / "tiny" / "model.onnx"
    quantize(described / "tiny" / "model.onnx", quantized, how, (2, 3, 96, 128))
    domains = {node.domain for node in onnx.load(quantized).graph.node}
    assert ("com.microsoft" in domains) == (how == "operators")
    after = raw_output(tmp_path / "models")
    assert after.shape == float_output.shape
    assert 0 < np.abs(after - float_output).mean() < 0.03 * np.abs(float_output).mean() + 0.01


def raw_output(models: Path) -> np.ndarray:
    """The one output that a server of this folder gives for a picture."""
    with Server(models, lanes=1, max_batch=2) as server, headworks.Client(server.target) as client:
        picture = png(textured(128, 96))
        (tensor,) = client.infer(picture, encoding="png", model="tiny", form="raw_tensors").tensors
    return tensor.data
