"""Served results against ground truth: as good as a plain script that shares no code with the server.

The script is examples/football/evaluate.py (NumPy, OpenCV, ONNX Runtime; decodes at full scale). Both sides see the
frames of the clip, a match that no model was trained on, or frames of other such matches rendered here, and are
measured by the script's own mAP and by the renderer's own labels.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import headworks
from support.server import Server

FOOTBALL = Path(__file__).resolve().parents[2] / "examples" / "football"
LOWEST_SCORE = 0.05  # on both sides: the tail below costs the script a minute and both sides the same
PLAYER = 0


@pytest.fixture(scope="module")
def evaluate() -> Iterator[ModuleType]:
    sys.path.insert(0, str(FOOTBALL))
    import evaluate as script

    script.LOWEST_SCORE = LOWEST_SCORE
    yield script
    sys.path.remove(str(FOOTBALL))


class ServedModel:
    """The server in the place of the script's model."""

    def __init__(self, stream: headworks.FrameStream, names: list[str]) -> None:
        self.names = names
        self._stream = stream
        self._outcomes = iter(stream)

    def detect(self, jpeg: bytes, _divisor: int, _lowest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = self._result(jpeg).detections
        boxes = np.array([(d.x1, d.y1, d.x2, d.y2) for d in found]).reshape(-1, 4)
        return boxes, np.array([d.score for d in found]), np.array([d.class_id for d in found], int)

    def classify(self, picture: np.ndarray) -> np.ndarray:
        scores = np.zeros(len(self.names))
        for one in self._result(np.ascontiguousarray(picture)).classifications:
            scores[one.class_id] = one.score
        return scores

    def _result(self, picture: Any) -> headworks.Result:
        self._stream.send(picture)
        result = next(self._outcomes)
        assert isinstance(result, headworks.Result)
        return result


@pytest.fixture
def alone(tmp_path: Path) -> Callable[[str], Path]:
    """A repository of one of the example's models: the others are not loaded and measured with it."""

    def make(name: str) -> Path:
        shutil.copytree(FOOTBALL / "models" / name, tmp_path / "models" / name)
        return tmp_path / "models"

    return make


def served(
    evaluate: ModuleType, models: Path, name: str, names: list[str], *, decode_scale: str, step: int
) -> list[float]:
    """Average precision of the server, class by class."""
    with (
        Server(models, decode_scale=decode_scale) as server,
        headworks.Client(server.target) as client,
        client.stream(name, score_threshold=LOWEST_SCORE) as stream,
    ):
        model = ServedModel(stream, names)
        return [precision for precision, _ in evaluate.measure(model, samples(evaluate, step), 1)]


def samples(evaluate: ModuleType, step: int) -> list[object]:
    return list(evaluate.recorded(FOOTBALL / "clip"))[::step]


@pytest.mark.parametrize(("name", "step", "least"), [("players", 3, 0.9), ("ball", 1, 0.85)])
def test_served_detections_are_as_good_as_the_plain_script(
    evaluate: ModuleType, alone: Callable[[str], Path], name: str, step: int, least: float
) -> None:
    """mAP@0.5 within 0.01; at a fraction of the JPEG's size, the default, that of the first class within 0.01."""
    script = evaluate.Model(FOOTBALL / "models" / name / "model.onnx")
    plain = [precision for precision, _ in evaluate.measure(script, samples(evaluate, step), 1)]
    models = alone(name)
    full = served(evaluate, models, name, script.names, decode_scale="1", step=step)
    scaled = served(evaluate, models, name, script.names, decode_scale="auto", step=step)
    assert plain[PLAYER] > least
    assert np.mean(full) == pytest.approx(np.mean(plain), abs=0.01)
    assert full[PLAYER] == pytest.approx(plain[PLAYER], abs=0.01)
    assert scaled[PLAYER] == pytest.approx(plain[PLAYER], abs=0.01)


def test_served_teams_are_told_as_the_plain_script_tells_them(
    evaluate: ModuleType, alone: Callable[[str], Path]
) -> None:
    """Crops of the clip and of six other matches: accuracy of at least 0.97, and scores within 0.01 of the script's."""
    frames = [*samples(evaluate, 6), *evaluate.rendered(range(9200, 9206), 1, 75)]
    people = [crop for frame in frames for crop in evaluate.crops(frame, None)]
    script = evaluate.Classifier(FOOTBALL / "models" / "teams" / "model.onnx")
    with (
        Server(alone("teams")) as server,
        headworks.Client(server.target) as client,
        client.stream("teams", policy="every_frame", top_k=len(script.names)) as stream,
    ):
        model = ServedModel(stream, script.names)
        told = np.array([model.classify(crop.picture) for crop in people])
    plain = np.array([script.classify(crop.picture) for crop in people])
    right = [script.names[best] == crop.label for best, crop in zip(told.argmax(1), people, strict=True)]
    assert len(people) > 200
    assert np.mean(right) >= 0.97
    assert told == pytest.approx(plain, abs=0.01)
