"""Served detections against ground truth: as good as a plain script that shares no code with the server.

The script is examples/football/evaluate.py (NumPy, OpenCV, ONNX Runtime; decodes at full scale). Both sides see the
frames of the clip, a match that the detector was not trained on, and are measured by the script's own mAP.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

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
        self._stream.send(jpeg)
        result = next(self._outcomes)
        assert isinstance(result, headworks.Result)
        found = result.detections
        boxes = np.array([(d.x1, d.y1, d.x2, d.y2) for d in found]).reshape(-1, 4)
        return boxes, np.array([d.score for d in found]), np.array([d.class_id for d in found], int)


def served(evaluate: ModuleType, names: list[str], *, decode_scale: str) -> list[float]:
    """Average precision of the server, class by class."""
    with (
        Server(FOOTBALL / "models", decode_scale=decode_scale) as server,
        headworks.Client(server.target) as client,
        client.stream("players", score_threshold=LOWEST_SCORE) as stream,
    ):
        model = ServedModel(stream, names)
        return [precision for precision, _ in evaluate.measure(model, samples(evaluate), 1)]


def samples(evaluate: ModuleType) -> list[object]:
    return list(evaluate.recorded(FOOTBALL / "clip"))[::3]


def test_served_detections_are_as_good_as_the_plain_script(evaluate: ModuleType) -> None:
    """mAP@0.5 within 0.01; at a fraction of the JPEG's size, which is the default, the players' within 0.01."""
    script = evaluate.Model(FOOTBALL / "models" / "players" / "model.onnx")
    plain = [precision for precision, _ in evaluate.measure(script, samples(evaluate), 1)]
    full = served(evaluate, script.names, decode_scale="1")
    scaled = served(evaluate, script.names, decode_scale="auto")
    assert plain[PLAYER] > 0.9
    assert np.mean(full) == pytest.approx(np.mean(plain), abs=0.01)
    assert full[PLAYER] == pytest.approx(plain[PLAYER], abs=0.01)
    assert scaled[PLAYER] == pytest.approx(plain[PLAYER], abs=0.01)
