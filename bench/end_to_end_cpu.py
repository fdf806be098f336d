"""Server CPU per frame from a 1080p JPEG to its detections, against the same work in a plain loop and a bare echo.

The plain loop has no network: a thread a core, each with its own decoder, canvas and one-thread session, made of the
server's own parts (decoding, scaling, kernels, session options, mallopt), calls them frame after frame. The bare echo
reads frames of the same size over gRPC and answers as many bytes. What remains is what serving adds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np

from bench._load import Load, check_complete, run_load
from bench._measure import ROOT, ROUNDS, Line, echo, headworks, print_lines, ratio_line, say
from headworks_native.pixels import Canvas
from headworks_server.config import load_settings, usable_cores
from headworks_server.engine.base import ModelSpec
from headworks_server.engine.onnxruntime import OnnxRuntimeEngine
from headworks_server.media.bounds import Encoding, PictureLimits
from headworks_server.media.heads import Yolov8Head
from headworks_server.media.prepare import Preparer
from headworks_server.models import load_models
from headworks_server.runtime.allocator import raise_malloc_thresholds

MODELS = "examples/football/models"
CLIP = "examples/football/clip"
CAMERAS, FPS = 4, 30.0
AT_MOST = 1.10


class PlainLane:
    """The parts of one lane, called in a row."""

    def __init__(self, spec: ModelSpec, engine: OnnxRuntimeEngine, batch: int) -> None:
        self.frames = 0
        self._memory = np.zeros(spec.input.shape(batch), spec.input.dtype)
        self._canvas = Canvas(
            self._memory.data,
            positions=batch,
            height=spec.input.height,
            width=spec.input.width,
            form=spec.input.form,
        )
        scaled = spec.decode_scale == "auto"
        self._preparer = Preparer(spec.input.width, spec.input.height, limits=PictureLimits(), scaled=scaled)
        self._executor = engine.executor(self._memory, sizes=(batch,))
        self._head = Yolov8Head(
            spec.labels,
            score_threshold=spec.score_threshold,
            iou_threshold=spec.iou_threshold,
            max_detections=spec.max_detections,
        )
        self._batch = batch

    def serve(self, clip: Iterator[bytes]) -> None:
        """One batch of frames."""
        letterboxes = []
        for position in range(self._batch):
            picture = self._preparer.prepare(memoryview(next(clip)), encoding=Encoding.JPEG, width=0, height=0)
            box = picture.letterbox
            self._canvas.paint(position, picture.pixels.data, left=box.left, top=box.top, swap=picture.is_bgr)
            letterboxes.append(box)
        output = self._executor.run(self._batch)[0]
        for position, box in enumerate(letterboxes):
            self._head.postprocess(output[position], box)
        self.frames += self._batch


def plain_ms(seconds: float) -> float:
    """CPU milliseconds a frame of this process, one lane on each core."""
    raise_malloc_thresholds()
    (spec,) = load_models(load_settings(None, {"models": ROOT / MODELS}))
    engine = OnnxRuntimeEngine(spec, hint="throughput", threads=1)
    batch = engine.measure().target()
    clip = [path.read_bytes() for path in sorted((ROOT / CLIP).glob("*.jpg"))]
    lanes = [PlainLane(spec, engine, batch) for _ in range(usable_cores())]
    stopping = threading.Event()

    def work(lane: PlainLane) -> None:
        frames = cycle(clip)
        while not stopping.is_set():
            lane.serve(frames)

    threads = [threading.Thread(target=work, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    start_s, start = time.process_time(), sum(lane.frames for lane in lanes)
    time.sleep(seconds)
    cpu_s, frames = time.process_time() - start_s, sum(lane.frames for lane in lanes) - start
    stopping.set()
    for thread in threads:
        thread.join()
    return cpu_s / frames * 1e3


def plain_in_child(seconds: float) -> float:
    """`plain_ms` of a fresh process."""
    command = [sys.executable, "-m", "bench.end_to_end_cpu", "plain", str(seconds)]
    return float(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout)


def run(*, quick: bool = False) -> Line:
    """Server, plain loop and echo in alternating rounds."""
    seconds = 1.5 if quick else 5.0
    load = Load(streams=CAMERAS, fps=FPS, clip=CLIP, seconds=seconds)
    rounds, parts = [], []
    with headworks(str(Path(MODELS))) as server, echo(detections=25) as bare:
        for number in range(ROUNDS):
            served = run_load(server, load)
            plain = plain_in_child(seconds)
            echoed = run_load(bare, load)
            check_complete(served)
            parts.append((plain, echoed["server_us"] / 1e3))
            rounds.append((served["server_us"] / 1e3, sum(parts[-1])))
            say(
                f"end_to_end_cpu: round {number + 1}: {rounds[-1][0]:.2f}, plain {plain:.2f} + echo {parts[-1][1]:.2f} ms"
            )
    aim = f"ratio at most {AT_MOST}"
    line = ratio_line("end_to_end_cpu", rounds, unit="ms of server CPU a frame", aim=aim, at_most=AT_MOST)
    return line | {
        "plain_ms": round(np.median([plain for plain, _ in parts]), 3),
        "echo_ms": round(np.median([echoed for _, echoed in parts]), 3),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["plain"]:
        print(json.dumps(plain_ms(float(sys.argv[2]))))
    else:
        print_lines(run)
