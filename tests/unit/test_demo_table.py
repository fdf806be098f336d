"""The figures of the demo: percentiles, batches counted from their frames, and the lines a person reads."""

from __future__ import annotations

import io
import math

from rich.console import Console

from headworks.load.summary import percentile, spread_ms
from headworks_server.demo.cameras import Camera, make_cameras
from headworks_server.demo.summary import batch_sizes
from headworks_server.demo.table import Rate, plain_line, view

CLIP = [b"0", b"1", b"2", b"3", b"4", b"5"]


def busy_camera() -> Camera:
    camera = Camera(0, CLIP, offset=0, keep_results=False)
    camera.offered, camera.results, camera.detections, camera.errors = 40, 30, 90, 2
    camera.ages_ms.extend([8.0, 9.0, 42.4])
    camera.executed_ms.extend([2.5])
    camera.waited_ms.extend([1.0])
    camera.drops["DEADLINE"] = 7
    camera.batches[4] = 12
    return camera


def test_percentiles_are_values_that_occurred() -> None:
    """Nearest rank: no interpolation, and the maximum only where it is due."""
    hundred = [float(number) for number in range(1, 101)]
    assert [percentile(hundred, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([], 0.5) is None
    assert spread_ms([3.0, math.nan, 1.0]) == {"p50": 1.0, "p95": 3.0, "p99": 3.0, "max": 3.0}
    assert spread_ms([]) == {"p50": None, "p95": None, "p99": None, "max": None}


def test_a_batch_is_counted_once_though_each_of_its_frames_tells_of_it() -> None:
    """Four cameras that shared a batch of four saw one batch."""
    cameras = make_cameras(4, CLIP)
    for camera in cameras:
        camera.batches[4] += 1
    cameras[0].batches[1] += 3
    assert batch_sizes(cameras) == {"1": 3, "4": 1}


def test_cameras_start_at_different_places_of_the_clip() -> None:
    """Three cameras on six frames start two frames apart, and go round."""
    cameras = make_cameras(3, CLIP)
    assert [camera.picture(1) for camera in cameras] == [b"0", b"2", b"4"]
    assert cameras[2].picture(3) == b"0"


def test_rates_are_differences_over_time() -> None:
    """What was counted before the first look is not counted again."""
    camera = busy_camera()
    rate = Rate([camera], 10.0)
    camera.offered += 15
    camera.results += 10
    (rates,) = rate.look(10.5)
    assert (rates.offered, rates.results) == (30.0, 20.0)


def test_plain_line_tells_everything_in_one_line() -> None:
    """Where there is no terminal."""
    camera = busy_camera()
    rates = Rate([camera], 0.0).look(1.0)
    assert plain_line([camera], rates, 1.0) == (
        "  1.0 s: 0 frames/s in, 0 results/s, age p50 9.0 p99 42 ms, drops 7 DEADLINE; "
        "batches: 3 of 4; engine p50 2.5 ms; waiting p50 1.0 p99 1.0 ms"
    )


def test_table_has_a_row_for_each_camera() -> None:
    """In a terminal."""
    cameras = [busy_camera(), *make_cameras(2, CLIP)[1:]]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(view(cameras, Rate(cameras, 0.0).look(1.0)))
    text = console.export_text()
    assert "camera 1" in text
    assert "camera 2" in text
    assert "7 DEADLINE" in text
    assert "batches: 3 of 4" in text
