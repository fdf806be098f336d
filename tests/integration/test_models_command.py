"""`headworks models`: what would be served and how, or what is wrong, before a server runs."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headworks_server.config import Settings
from headworks_server.models import load_model
from headworks_server.models_command import models
from support.model_zoo import boxes_after_nms, failing_above, noisy, ultralytics, zoo_model
from support.models import Form, failing_detector, oracle_detector, save_model


def run(*arguments: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(models, [str(argument) for argument in arguments], catch_exceptions=False)


def reports(*arguments: object) -> dict[str, dict[str, object]]:
    """The JSON lines of a check, by model."""
    lines = run("check", *arguments, "--json").stdout.splitlines()
    return {report["model"]: report for report in map(json.loads, lines)}


def test_check_prints_the_merged_description_with_its_origins(tmp_path: Path) -> None:
    """As a model.toml; pasted beside the model it changes nothing."""
    path = save_model(tmp_path, "football", oracle_detector())
    (path.parent / "model.toml").write_text("[postprocess]\nscore_threshold = 0.4\n")
    result = run("check", tmp_path)
    assert result.exit_code == 0
    head, rest = result.stdout.split("\n\n", 1)
    assert head == "football: version 1 of 1"
    text, runs = rest.split("\n\noutput ", 1)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in (
        'labels = ["player", "referee", "ball"] # metadata',
        'dtype = "float32" # graph',
        'head = "yolov8" # metadata',
        "score_threshold = 0.4 # football/model.toml",
        "iou_threshold = 0.45 # settings",
        'scale = "1/255" # metadata',
        "top_k = 5 # default",
    ):
        assert line in lines
    assert runs.startswith("output0: float32 [7, 4] for each frame, from ")
    assert "batches: 1: " in runs
    assert "; target " in runs

    before = load_model(Settings(models=tmp_path), "football")
    (path.parent / "model.toml").write_text(text)
    assert load_model(Settings(models=tmp_path), "football") == before


def test_check_tells_every_fault_and_fails(tmp_path: Path) -> None:
    """A model that is wrong does not hide the others; the exit code is 1."""
    save_model(tmp_path, "good", oracle_detector())
    save_model(tmp_path, "asked", zoo_model({"output0": ("float", ("batch", 25200, 85))}))
    save_model(tmp_path, "broken", oracle_detector()).write_bytes(b"nonsense")
    save_model(tmp_path, "failing", failing_detector(always=True))
    save_model(tmp_path, "some sizes".replace(" ", "-"), failing_above(2))
    (tmp_path / "empty").mkdir()
    result = run("check", tmp_path)
    assert result.exit_code == 1
    assert "good: version 1 of 1" in result.stdout
    found = reports(tmp_path)
    assert {name for name, report in found.items() if report["ok"]} == {"good"}
    for name, words in {
        "asked": "could be yolov5 or yolox or raw",
        "broken": "expected an ONNX model",
        "failing": "Gather",
        "some-sizes": "expected batches of 1, 2, 4, 8 to run, got only 1, 2",
        "empty": "expected a model file, got an empty folder",
    }.items():
        assert words in str(found[name]["error"])
        assert f"{name}: not served\n" in result.stdout
    asked = str(found["asked"]["error"]).split("\n\n", 1)[1]
    assert tomllib.loads(asked)["output"] == {"head": "yolov5"}


def test_check_runs_the_model(tmp_path: Path) -> None:
    """On a blank and a random picture: outputs, types, axes that change; the curve; what the runtime says."""
    outputs = {"scores": ("float16", ("batch", 3)), "ids": ("int64", ("batch", 2, 2))}
    save_model(tmp_path, "many", noisy(zoo_model(outputs, metadata=ultralytics("classify")), 3))
    save_model(tmp_path, "nms", boxes_after_nms())
    save_model(tmp_path, "fixed", oracle_detector(Form(batch=3, dtype="uint8", layout="nhwc")))
    found = reports(tmp_path)
    assert all(report["ok"] for report in found.values()), found
    many = found["many"]
    assert [(out["name"], out["dtype"], out["shape"]) for out in many["outputs"]] == [
        ("scores", "float16", [3]),
        ("ids", "int64", [2, 2]),
    ]
    assert list(many["milliseconds"]) == ["1", "2", "4", "8"]
    assert many["target"] in (1, 2, 4, 8)
    assert len(many["warnings"]) == 3
    assert "Removing initializer" in many["warnings"][0]
    assert "the runtime warns 3 times, first: " in run("check", tmp_path, "--name", "many").stdout
    assert found["nms"]["outputs"][0]["shape"] == [None, 6]
    assert (found["fixed"]["fixed_batch"], list(found["fixed"]["milliseconds"])) == (3, ["3"])


def test_check_of_one_model(tmp_path: Path) -> None:
    """The others are not even looked at."""
    save_model(tmp_path, "good", oracle_detector())
    (tmp_path / "empty").mkdir()
    assert run("check", tmp_path, "--name", "good").exit_code == 0
    missing = run("check", tmp_path, "--name", "none")
    assert (missing.exit_code, "no such folder" in missing.stdout) == (1, True)


@pytest.mark.parametrize("command", ["check", "list"])
def test_no_folder_of_models_is_told_in_one_line(tmp_path: Path, command: str) -> None:
    """With the exit code of a wrong call."""
    for folder in (tmp_path, tmp_path / "nowhere"):
        result = run(command, folder)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"headworks models: {folder}: expected ")


def test_list_tells_names_and_versions(tmp_path: Path) -> None:
    """The last version is served."""
    save_model(tmp_path, "a", oracle_detector())
    for version in ("2", "10"):
        save_model(tmp_path / "b", version, oracle_detector())
    assert run("list", tmp_path).stdout.splitlines() == ["a  1", "b  2, 10"]
    lines = run("list", tmp_path, "--json").stdout.splitlines()
    assert json.loads(lines[1]) == {"model": "b", "ok": True, "versions": ["2", "10"]}
