"""What loading a model costs the cameras of another: p99 of frame age, with and without loads beside them.

Cameras send the football clip to `players` at half of the rate that the server was measured to hold, each frame when it
is due. In every second window an administrator loads a detector of 20 MB and unloads it again, without a pause; it
comes from its prepared file, as all loads but the first do. Windows with and without take turns; each with is held
against the mean of the windows without around it, and the line tells the median. An age runs from the moment a frame
was due to its result at the camera, so it holds the camera's own delay on these cores, too.

The baseline is the cameras alone; the aim is that of the issue, a p99 within 1.5 times.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from bench._load import Load, run_load
from bench._measure import ROOT, Line, ServerProcess, headworks, print_lines, ratio_line, say
from bench._models import save_detector
from headworks.administration import Administration, AdministrationFailedError
from headworks.transport import Access

MODELS, CLIP = ROOT / "examples" / "football" / "models", "examples/football/clip"
MODEL, OTHER = "players", "detector"
CAMERAS = 8
SHARE = 0.5
WINDOWS = 7
AIM = 1.5


class Loading:
    """Loads and unloads a model without a pause, until it is left.

    Attributes:
        loads: how many there were.
        seconds: that they took, unloading not included.
    """

    def __init__(self, target: str, model: str) -> None:
        self._administration = Administration(Access(target, tls=None, token=None, insecure=False))
        self._model = model
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: AdministrationFailedError | None = None
        self.loads = 0
        self.seconds = 0.0

    def __enter__(self) -> Loading:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._administration.__exit__(None, None, None)
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                begin_s = time.monotonic()
                self._administration.load(self._model)
                self.seconds += time.monotonic() - begin_s
                self._administration.unload(self._model)
                self.loads += 1
        except AdministrationFailedError as failure:
            self._failure = failure


def lay_out(models: Path) -> None:
    """Write the two models."""
    shutil.copytree(MODELS / MODEL, models / MODEL)
    save_detector(models / OTHER / "model.onnx")


def capacity(server: ServerProcess, seconds: float) -> float:
    """Results a second of cameras that send as fast as they are answered."""
    load = Load(streams=CAMERAS, connections=CAMERAS, clip=CLIP, model=MODEL, seconds=seconds)
    return float(run_load(server, load)["results_s"])


def window(server: ServerProcess, fps: float, seconds: float) -> dict[str, Any]:
    """The figures of the cameras at their rate."""
    load = Load(streams=CAMERAS, connections=CAMERAS, fps=fps, outstanding=0, clip=CLIP, model=MODEL, seconds=seconds)
    return run_load(server, load)


def run(*, quick: bool = False) -> Line:
    """Windows without and with, in turns, on one server."""
    seconds = 2.0 if quick else 4.0
    alone, beside, loads, load_s = [], [], 0, 0.0
    with tempfile.TemporaryDirectory(prefix="headworks-bench-") as folder:
        models, plans = Path(folder) / "models", Path(folder) / "plans"
        lay_out(models)
        plans.mkdir()
        with headworks(str(models), "--plans", str(plans), "--admin") as server:
            with Administration(Access(server.target, tls=None, token=None, insecure=False)) as administration:
                administration.unload(OTHER)
            held = capacity(server, seconds)
            fps = SHARE * held / CAMERAS
            say(f"load_beside: {held:.0f} frames/s held, {CAMERAS} cameras of {fps:.1f}")
            alone.append(window(server, fps, seconds))
            for number in range(3 if quick else WINDOWS):
                with Loading(server.target, OTHER) as loading:
                    beside.append(window(server, fps, seconds))
                alone.append(window(server, fps, seconds))
                loads += loading.loads
                load_s += loading.seconds
                ages = [figures["age_ms"]["p99"] for figures in (alone[-2], beside[-1], alone[-1])]
                told = ", ".join(f"{age:.1f}" for age in ages)
                say(f"load_beside: window {number + 1}: p99 {told} ms before, beside and after {loading.loads} loads")
    return line_of(alone, beside) | {
        "frames_s": round(SHARE * held, 1),
        "loads": loads,
        "load_ms": round(load_s / max(1, loads) * 1e3, 1),
    }


def line_of(alone: list[dict[str, Any]], beside: list[dict[str, Any]]) -> Line:
    """The line, with what else tells where the time goes."""
    rounds = []
    for number, figures in enumerate(beside):
        around = (alone[number]["age_ms"]["p99"], alone[number + 1]["age_ms"]["p99"])
        rounds.append((figures["age_ms"]["p99"], statistics.mean(around)))
    line = ratio_line("load_beside", rounds, unit="ms of frame age, p99", aim=f"ratio at most {AIM}", at_most=AIM)
    for name, windows in (("alone", alone), ("beside", beside)):
        line[f"{name}_p50_ms"] = round(statistics.median(figures["age_ms"]["p50"] for figures in windows), 1)
        p99s = [figures["age_ms"]["p99"] for figures in windows]
        line[f"{name}_p99_least_ms"], line[f"{name}_p99_most_ms"] = round(min(p99s), 1), round(max(p99s), 1)
        line[f"{name}_dropped"] = sum(figures["total"]["dropped"] for figures in windows)
        line[f"{name}_replaced"] = sum(figures["total"]["replaced"] for figures in windows)
    return line


if __name__ == "__main__":
    print_lines(run)
