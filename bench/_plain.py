"""The best plain loop without a network: JPEG to detections on a thread a core, from the server's own parts.

Each thread has its own preparer, canvas, one-thread session and head, as a CPU lane has; there is no queue, no session
of the contract and no event loop. Executed, it prints the CPU microseconds of a frame for each batch size asked for.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from itertools import cycle

import numpy as np

from bench._measure import ROOT
from headworks_native.pixels import Canvas
from headworks_server.app import SWITCH_INTERVAL_S
from headworks_server.config import load_settings, usable_cores
from headworks_server.engine.base import ModelSpec
from headworks_server.engine.onnxruntime import OnnxRuntimeEngine
from headworks_server.media.bounds import PictureLimits
from headworks_server.media.geometry import Geometry
from headworks_server.media.heads import make_heads
from headworks_server.media.image import Encoding
from headworks_server.media.prepare import Preparer
from headworks_server.models import load_model
from headworks_server.runtime.allocator import raise_malloc_thresholds

WARM_S = 0.5


class Worker:
    """One thread's parts and its loop."""

    def __init__(self, spec: ModelSpec, engine: OnnxRuntimeEngine, clip: list[bytes], *, batch: int) -> None:
        shape = spec.input
        memory = np.zeros(shape.shape(batch), shape.dtype)
        self._canvas = Canvas(memory.data, positions=batch, height=shape.height, width=shape.width, form=shape.form)
        self._preparer = Preparer(shape, spec.preprocess, limits=PictureLimits())
        self._executor = engine.executor(memory, sizes=(batch,))
        self._head = make_heads(spec)[spec.forms[0]]
        self._clip = cycle(clip)
        self._batch = batch
        self.frames = 0
        self.stop = False

    def run(self) -> None:
        while not self.stop:
            geometries = [self._decode(position) for position in range(self._batch)]
            outputs = self._executor.run(self._batch)
            for index, geometry in enumerate(geometries):
                self._head.postprocess(outputs, index, geometry, score_threshold=0, max_detections=0)
            self.frames += self._batch

    def _decode(self, position: int) -> Geometry:
        picture = self._preparer.prepare(memoryview(next(self._clip)), encoding=Encoding.JPEG, width=0, height=0)
        place = picture.geometry
        left, top = place.interior_left, place.interior_top
        self._canvas.paint(position, picture.pixels.data, left=left, top=top, swap=picture.swap)
        return place


def measure(spec: ModelSpec, clip: list[bytes], *, batch: int, seconds: float) -> float:
    """CPU microseconds of a frame."""
    engine = OnnxRuntimeEngine(spec)
    workers = [Worker(spec, engine, clip, batch=batch) for _ in range(usable_cores())]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    time.sleep(WARM_S)
    before, frames = time.process_time(), sum(worker.frames for worker in workers)
    time.sleep(seconds)
    cpu, frames = time.process_time() - before, sum(worker.frames for worker in workers) - frames
    for worker in workers:
        worker.stop = True
    for thread in threads:
        thread.join()
    return cpu / frames * 1e6


def main() -> None:
    models, model, clip, seconds, *batches = sys.argv[1:]
    raise_malloc_thresholds()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    frames = [path.read_bytes() for path in sorted((ROOT / clip).glob("*.jpg"))]
    spec = load_model(load_settings(None, {"models": models}), model)
    found = {batch: measure(spec, frames, batch=int(batch), seconds=float(seconds)) for batch in batches}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
