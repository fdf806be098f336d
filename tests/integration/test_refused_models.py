"""Models that cannot be served: a server does not start with them, and `headworks models check` says the same before.

Also the log of models that can be served, but have much to say.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import headworks
from headworks_server.models_command import models
from support.finders import Finder
from support.model_zoo import bright_pixels, failing_above, noisy, not_following, ultralytics, zoo_model
from support.models import Form, failing_detector, oracle_detector, save_model, with_metadata
from support.server import Server, refusal_to_start

RED, BLUE = (
    cv2.imencode(".png", np.full((48, 64, 3), colour, np.uint8))[1].tobytes() for colour in ((0, 0, 255), (255, 0, 0))
)


def refusals(folder: Path) -> tuple[str, str]:
    """What a server says of a folder as it refuses to start, and what the command says of the model in it."""
    server = refusal_to_start(folder, several_lines=True)
    checked = CliRunner().invoke(models, ["check", str(folder), "--json"], catch_exceptions=False)
    assert checked.exit_code == 1
    (report,) = map(json.loads, checked.stdout.splitlines())
    assert not report["ok"]
    return server.removeprefix("headworks serve: "), report["error"]


def ambiguous(folder: Path) -> None:
    """Rows of five and 80 classes: two heads read them."""
    save_model(folder, "tiny", zoo_model({"output0": ("float", ("batch", 25200, 85))}))


def unsized(folder: Path) -> None:
    """The graph leaves the size open, and so does model.toml."""
    finder = Finder(open_size=True)
    path = finder.save(folder, "tiny").with_name("model.toml")
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("size")))


def misspelt(folder: Path) -> None:
    """A key of another program."""
    path = save_model(folder, "tiny", oracle_detector())
    path.with_name("model.toml").write_text("[postprocess]\nconf = 0.3\n")


def contradicted(folder: Path) -> None:
    """A model.toml that says what the graph excludes."""
    path = save_model(folder, "tiny", oracle_detector())
    path.with_name("model.toml").write_text("[input]\nsize = 640\n")


def broken(folder: Path) -> None:
    """Half of a file."""
    path = save_model(folder, "tiny", oracle_detector())
    path.write_bytes(path.read_bytes()[:1000])


def lying(folder: Path) -> None:
    """A detector whose metadata say that it classifies."""
    save_model(folder, "tiny", with_metadata(oracle_detector(), Form(), task="classify"))


def foreign(folder: Path) -> None:
    """A task that no head reads."""
    save_model(folder, "tiny", zoo_model({"output0": ("float", ("batch", 39, 63))}, metadata=ultralytics("segment")))


def mixing(folder: Path) -> None:
    """An output that declares a batch, and gathers its frames in one row."""
    save_model(folder, "tiny", not_following())


def unbatched(folder: Path) -> None:
    """An output whose axis 0 is no batch, as its graph says."""
    path = save_model(folder, "tiny", bright_pixels())
    path.with_name("model.toml").write_text(
        '[input]\ncolor = "rgb"\n[preprocess]\nscale = "1/255"\nresize = "stretch"\n[output]\nhead = "raw"\n'
    )


def choosy(folder: Path) -> None:
    """Batches of more than two fail."""
    save_model(folder, "tiny", failing_above(2))


def failing(folder: Path) -> None:
    """Every run fails."""
    save_model(folder, "tiny", failing_detector(always=True))


@pytest.mark.parametrize(
    ("put", "words"),
    [
        (ambiguous, ["output.head: could be yolov5 or yolox or raw", 'head = "yolov5"', "tiny/model.toml"]),
        (unsized, ["input.size: is stated nowhere", "[batch, 3, h, w]", "size = { width = 640, height = 640 }"]),
        (misspelt, ["model.toml: postprocess.conf: ", "did you mean postprocess.score_threshold?"]),
        (contradicted, ["input.size: expected 640x640, as tiny/model.toml says, got", "[batch, 3, 48, 64]"]),
        (broken, ["expected an ONNX model, got"]),
        (lying, ["expected an output", "for the head classification, got [7, 4]"]),
        (foreign, ["the metadata say task 'segment', for which there is no head; raw gives the tensors"]),
        (mixing, ["expected float32 [8, 7, ?] from 'output0', got", "axis 0 does not follow the batch"]),
        (
            unbatched,
            ["expected int64 [1, 4] from 'pixels', got int64 [0, 4]", "output.batch_axis = false in model.toml"],
        ),
        (choosy, ["expected batches of 1, 2, 4, 8 to run, got only 1, 2", "Gather", "batch.sizes = [1, 2]"]),
        (failing, ["expected a blank picture to run, got: ", "Gather", "out of data bounds"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_served_is_told_before_it_is_served(
    tmp_path: Path, put: Callable[[Path], None], words: list[str]
) -> None:
    """No server starts with it: its sentences name file, expectation and fact, a question brings a model.toml to paste.
    `headworks models check` has the same sentences."""
    put(tmp_path)
    server, check = refusals(tmp_path)
    assert server == check.rstrip("\n")
    assert server.startswith(str(tmp_path / "tiny" / "model."))
    for word in words:
        assert word in server


def test_a_pasted_answer_is_enough(tmp_path: Path) -> None:
    """The lines that a refusal proposes, put where it says, make the model served."""
    path = Finder(open_size=True, head="yolov5").save(tmp_path, "tiny")
    description = path.with_name("model.toml")
    description.unlink()
    said = refusal_to_start(tmp_path, several_lines=True)
    assert str(description) in said
    description.write_text(said.split("\n\n", 1)[1])
    with (
        Server(tmp_path, max_batch=1) as server,
        headworks.Client(server.target) as client,
        client.stream("tiny") as stream,
    ):
        (info,) = stream.opened.models
        assert (info.input_width, info.input_height) == (640, 640)


def test_a_noisy_model_leaves_the_log_readable(tmp_path: Path) -> None:
    """What the runtime would print on loading a file, or at a failing run, does not reach the log: a few lines, JSON
    each, however many frames there are."""
    save_model(tmp_path, "noisy", noisy(oracle_detector(), 200))
    save_model(tmp_path, "failing", noisy(failing_detector(), 200))
    with Server(tmp_path, lanes=1) as server, headworks.Client(server.target) as client:
        for model, picture in (("noisy", RED), ("failing", BLUE), ("failing", RED)):
            with client.stream(model, policy="every_frame", on_error=lambda _: None) as stream:
                for _ in range(50):
                    stream.send(picture, encoding="png")
        server.stop()
    assert [line["errors"] for line in server.lines if line["event"] == "stream_close"] == [0, 0, 50]
    assert len(server.lines) <= 20
