"""Prints how long the worst accepted pictures take to decode: `make bench ONLY=decode_worst`.

Each hostile file keeps to the limits (33 million pixels, 16 MB, 32 scans) and takes as much work as they allow: JPEGs
whose scans walk all coefficients again, empty and full ones, PNGs with alpha, of 8 and 16 bits, and a lossless WebP
that declares as many code tables as it can. `ours` is the slowest of them, `baseline` an ordinary JPEG of the same size
at quality 80, in the same rounds. CPU seconds, medians of five.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from headworks_server.media.decode import Decoder
from headworks_server.media.image import Encoding
from support import pictures

ROUNDS = 5
AIM_S = 2.0
WIDTH, HEIGHT = 7680, 4320


def run() -> dict[str, object]:
    """Decode each file once a round and return the benchmark's line."""
    ordinary = pictures.jpeg(pictures.textured(WIDTH, HEIGHT, tiles=4), quality=80, full_chroma=False)
    files = {
        "ordinary": (Encoding.JPEG, ordinary),
        "jpeg_empty_scans": (Encoding.JPEG, pictures.scan_bomb(WIDTH, HEIGHT, scans=32)),
        "jpeg_full_scans": (Encoding.JPEG, pictures.scan_bomb(WIDTH, HEIGHT, scans=31, dense=True)),
        "png_rgba8": (Encoding.PNG, deep_png(HEIGHT, depth=8, interlace=0)),
        "png_rgba16": (Encoding.PNG, deep_png(HEIGHT // 2, depth=16, interlace=0)),
        "png_rgba16_interlaced": (Encoding.PNG, deep_png(HEIGHT // 2, depth=16, interlace=1)),
        "webp_code_tables": (Encoding.WEBP, pictures.code_bomb(WIDTH, HEIGHT)),
    }
    decoder = Decoder()
    seconds: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(ROUNDS):
        for name, (encoding, data) in files.items():
            start = time.process_time()
            decoder.decode(memoryview(data), encoding=encoding, width=0, height=0, target=None)
            seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    baseline = medians.pop("ordinary")
    worst = max(medians, key=lambda name: medians[name])
    return {
        "benchmark": "decode_worst",
        "ours": round(medians[worst], 3),
        "baseline": round(baseline, 3),
        "unit": "CPU s a picture",
        "ratio": round(medians[worst] / baseline, 2),
        "spread": round((max(seconds[worst]) - min(seconds[worst])) / medians[worst], 3),
        "aim": f"ours at most {AIM_S}",
        "met": medians[worst] <= AIM_S,
        "worst": worst,
        "pictures": {name: round(value, 3) for name, value in medians.items()},
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def deep_png(height: int, *, depth: int, interlace: int) -> bytes:
    """Return a PNG with alpha, `WIDTH` wide, all rows filtered by Paeth, the costliest filter."""
    # Columns and rows of each pass: every 8th of both twice, then ever more.
    steps = [(8, 8), (8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2)] if interlace else [(1, 1)]
    deflate = zlib.compressobj(1)
    parts = []
    for column_step, row_step in steps:
        row = b"\4" + b"\1" * (WIDTH // column_step * depth // 2)
        parts += [deflate.compress(row) for _ in range(height // row_step)]
    idat = b"".join(parts) + deflate.flush()
    return pictures.png_file(WIDTH, height, depth=depth, colour_type=6, idat=idat, interlace=interlace)


if __name__ == "__main__":
    print(json.dumps(run()))
