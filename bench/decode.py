"""CPU time of decoding one picture, by encoding, size and scale: `make bench ONLY=decode`.

All pictures of a size show the same scene, smooth with noise at all places; JPEG and lossy WebP have quality 80, JPEG
has 4:2:0. A whole `Decoder.decode` is timed, header and checks included, on one thread. Rounds take every case in turn.
`ours` is a 1080p JPEG decoded at half scale, which serves a 640 model, `baseline` the same file at full scale; `cases`
has every case with its ratio to that baseline. BGR24 and RGB24 stay where they are, so they cost their check alone. At
4K they and the lossless files are over the limit of 16 MB. `spread` is the range of the rounds over their median.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from bench._measure import Line, print_lines, spread
from headworks_server.media.decode import Decoder, Picture
from headworks_server.media.image import Encoding
from support import pictures

ROUNDS = 9
ROUND_NS = 15_000_000
AIM_RATIO = 0.9
SIZES = {"720p": (1280, 720), "1080p": (1920, 1080), "4k": (3840, 2160)}
FULL, HALF = "jpeg 1080p", "jpeg half 1080p"

Case = Callable[[], Picture]


def files(size: str) -> dict[str, tuple[Encoding, bytes, int]]:
    """Return each encoding of one size's picture by name: encoding, bytes, and by how much the decoder may shrink."""
    rgb = pictures.textured(*SIZES[size])
    compressed = pictures.jpeg(rgb, quality=80, full_chroma=False)
    made = {
        "jpeg": (Encoding.JPEG, compressed, 1),
        "jpeg half": (Encoding.JPEG, compressed, 2),
        "jpeg quarter": (Encoding.JPEG, compressed, 4),
        "webp": (Encoding.WEBP, pictures.webp(rgb, quality=80), 1),
        "gray8": (Encoding.GRAY8, rgb[..., 0].tobytes(), 1),
        "nv12": (Encoding.NV12, pictures.nv12(rgb), 1),
        "i420": (Encoding.I420, pictures.i420(rgb), 1),
    }
    if size != "4k":
        made["png"] = (Encoding.PNG, pictures.png(rgb), 1)
        made["webp lossless"] = (Encoding.WEBP, pictures.webp(rgb), 1)
        made["bgr24"] = (Encoding.BGR24, rgb[..., ::-1].tobytes(), 1)
        made["rgb24"] = (Encoding.RGB24, rgb.tobytes(), 1)
    return {f"{name} {size}": case for name, case in made.items()}


def case_of(decoder: Decoder, size: tuple[int, int], encoding: Encoding, data: bytes, factor: int) -> Case:
    """Return what decodes a picture once."""
    width, height = size
    view = memoryview(data)

    def least(width: int, height: int) -> tuple[int, int]:
        return width // factor, height // factor

    def decode() -> Picture:
        return decoder.decode(view, encoding=encoding, width=width, height=height, target=least if factor > 1 else None)

    shape = decode().pixels.shape
    assert shape == (height // factor, width // factor, 3), shape
    return decode


def cpu_ms(case: Case, calls: int) -> float:
    """CPU milliseconds of one call, as a mean."""
    start = time.thread_time_ns()
    for _ in range(calls):
        case()
    return (time.thread_time_ns() - start) / calls / 1e6


def run(*, quick: bool = False) -> Line:
    """Measure every case and return the benchmark's line."""
    decoder = Decoder()
    cases = {
        name: case_of(decoder, SIZES[size], *case)
        for size in (["1080p"] if quick else SIZES)
        for name, case in files(size).items()
    }
    calls = {name: max(1, int(ROUND_NS / 1e6 / cpu_ms(case, 1))) for name, case in cases.items()}
    rounds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(3 if quick else ROUNDS):
        for name, case in cases.items():
            rounds[name].append(cpu_ms(case, calls[name]))
    medians = {name: statistics.median(times) for name, times in rounds.items()}
    ratios = [ours / full for ours, full in zip(rounds[HALF], rounds[FULL], strict=True)]
    return {
        "benchmark": "decode",
        "ours": round(medians[HALF], 3),
        "baseline": round(medians[FULL], 3),
        "unit": "CPU ms a picture of 1920x1080",
        "ratio": round(statistics.median(ratios), 3),
        "spread": round(spread(ratios), 3),
        "aim": f"a JPEG at half scale costs at most {AIM_RATIO} of the full one",
        "met": statistics.median(ratios) <= AIM_RATIO,
        "cases": {
            name: {
                "cpu_ms": round(medians[name], 4),
                "spread": round(spread(rounds[name]), 3),
                "ratio": round(medians[name] / medians[FULL], 4),
            }
            for name in cases
        },
    }


if __name__ == "__main__":
    print_lines(run)
