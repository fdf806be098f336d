"""Fairness among cameras and among models, in virtual time: see `support.simulation`."""

from __future__ import annotations

import pytest

from headworks_server.core.outcomes import DropReason
from support.simulation import CAPACITY, FRAME_NS, Camera, Server
from support.streams import MS


def lost(camera: Camera) -> int:
    return sum(camera.session.ledger.drops.values())


def test_one_greedy_camera_costs_the_slow_ones_nothing() -> None:
    """Rule 12: one camera at 1,000 fps beside nineteen at 10 fps, an engine of 300 frames/s: the slow ones together
    lose at most one frame in 1,000, and the engine is busy."""
    server = Server(target=1, decoders=4, max_batch=8, seed=3)
    greedy = server.add_camera(fps=1_000)
    slow = [server.add_camera(fps=10) for _ in range(19)]
    server.run(60)
    sent = sum(camera.sent for camera in slow)
    assert sent > 19 * 590
    assert sum(lost(camera) for camera in slow) <= sent / 1_000
    assert server.results() >= 0.95 * CAPACITY * 60
    assert greedy.session.ledger.drops_by_reason().keys() == {DropReason.REPLACED_BY_NEWER.name}


def test_equal_cameras_share_an_overloaded_engine_equally() -> None:
    """Rule 12: round robin, so nobody is served twice before everybody is served once."""
    server = Server(target=1, decoders=2, max_batch=4, seed=5)
    cameras = [server.add_camera(fps=30) for _ in range(20)]
    server.run(30)
    served = [camera.session.ledger.results for camera in cameras]
    assert max(served) - min(served) <= 0.02 * max(served)
    assert sum(served) >= 0.95 * CAPACITY * 30


def test_weights_divide_an_overloaded_engine() -> None:
    """Rule 12: integer weights; a camera of weight 3 is served three times as often while all have frames waiting."""
    server = Server(target=1, decoders=1, max_batch=2, seed=7)
    heavy = server.add_camera(fps=1_000, weight=3)
    # Enough others that two frames in flight can carry three shares of what the engine holds at a time.
    light = [server.add_camera(fps=1_000) for _ in range(11)]
    server.run(15)
    for camera in light:
        ratio = heavy.session.ledger.results / camera.session.ledger.results
        assert 2.7 <= ratio <= 3.3


def test_a_lone_camera_is_served_whole() -> None:
    """Below capacity nothing is dropped, however few streams there are."""
    server = Server(target=1, decoders=1, max_batch=8, seed=11)
    camera = server.add_camera(fps=150)
    server.run(20)
    assert lost(camera) == 0
    assert camera.session.ledger.results >= 20 * 150 - 3


# Models that share lanes.


@pytest.mark.parametrize("dear_ns", [2 * FRAME_NS, 10 * FRAME_NS])
def test_cameras_share_the_lanes_in_lane_time_whatever_their_models_cost(dear_ns: int) -> None:
    """Rule 12: round robin runs in units of measured engine time, so a dear model does not starve a cheap one."""
    server = Server(target=1, decoders=1, max_batch=2, seed=13)
    cheap, dear = server.add_model(), server.add_model(dear_ns)
    of_cheap = [server.add_camera(fps=500, queue=cheap) for _ in range(4)]
    of_dear = [server.add_camera(fps=500, queue=dear) for _ in range(4)]
    server.run(20)
    ratio = server.lane_time_of(of_dear) / server.lane_time_of(of_cheap)
    assert 0.9 <= ratio <= 1.1


def test_a_model_has_lane_time_by_its_cameras_not_by_its_name() -> None:
    """Nine cameras on one model and three on another: three quarters and one quarter."""
    server = Server(target=1, decoders=1, max_batch=2, seed=17)
    many, few = server.add_model(), server.add_model(4 * FRAME_NS)
    of_many = [server.add_camera(fps=500, queue=many) for _ in range(9)]
    of_few = [server.add_camera(fps=500, queue=few) for _ in range(3)]
    server.run(20)
    assert 2.6 <= server.lane_time_of(of_many) / server.lane_time_of(of_few) <= 3.4


def test_a_model_without_frames_saves_up_one_round_and_no_more() -> None:
    """A model that was silent for half a minute does not hold the lanes when it wakes."""
    server = Server(target=1, decoders=1, max_batch=2, seed=19)
    steady, late = server.add_model(), server.add_model()
    of_steady = server.add_camera(fps=500, queue=steady)
    server.run(30)
    before = of_steady.session.ledger.results
    server.add_camera(fps=500, queue=late)
    server.run(32)
    assert of_steady.session.ledger.results - before >= 0.45 * CAPACITY * 2


def test_a_model_left_alone_has_the_lanes_to_itself() -> None:
    """Turns are kept among those that have frames waiting."""
    server = Server(target=1, decoders=1, max_batch=4, seed=23)
    busy, idle = server.add_model(), server.add_model(20 * FRAME_NS)
    server.add_camera(fps=500, queue=busy)
    server.add_camera(fps=1, queue=idle)
    server.run(30)
    assert server.results() * FRAME_NS >= 0.9 * 30_000 * MS - 30 * 20 * FRAME_NS
