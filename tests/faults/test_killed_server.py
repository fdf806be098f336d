"""A server that dies: the client library says so, and its own account of the frames still adds up.

How streams go on at the next server is in test_moved_cameras.py.
"""

from __future__ import annotations

import pytest

import headworks
from support.server import Server
from support.stand_ins import stand_in
from support.waiting import wait_for

SLOW = stand_in(decoders=1, decode_ms=0, engine_base_ms=50, engine_frame_ms=0, max_batch=1, target=1)


def test_the_account_of_a_stream_whose_server_was_killed() -> None:
    """Contract 4: StreamBrokenError; without Closed, received is what was told, and lost is the rest of it."""
    results: list[headworks.Result] = []
    drops: list[headworks.Dropped] = []
    with Server(**SLOW) as server:
        with headworks.Client(server.target) as client:
            stream = client.stream(name="gate", reconnect=False, on_result=results.append, on_drop=drops.append)
            with pytest.raises(headworks.StreamBrokenError) as caught, stream:  # noqa: PT012 - leaving it raises
                while len(results) < 3:
                    stream.send(b"picture")
                    wait_for(lambda: stream.account.waiting == 0)
                # One more is sent, and perhaps read, when the server dies; nobody will ever hear of it.
                sent = stream.account.sent
                stream.send(b"last words")
                wait_for(lambda: stream.account.sent == sent + 1)
                server.kill()
                wait_for(lambda: stream.account.lost)
                stream.send(b"into the void")
        server.forgive()
    assert caught.value.code == "UNAVAILABLE"
    assert caught.value.closed is None
    account = stream.account
    account.check()
    assert account.received is None
    assert account.unaccounted is None
    assert account.offered == account.replaced + account.sent + account.waiting
    assert account.results == len(results)
    assert sum(account.drops.values()) == sum(drop.total for drop in drops)
    assert account.lost == account.sent - account.results - sum(account.drops.values()) - account.errors
    assert account.lost >= 1


def test_other_cameras_of_one_client_hear_of_it_too() -> None:
    """Every open stream of the connection breaks, each with its own account."""
    with Server(backend="null") as server:
        with headworks.Client(server.target) as client:
            streams = [
                client.stream(name=f"camera {number}", reconnect=False, on_result=lambda _: None) for number in range(4)
            ]
            for stream in streams:
                stream.__enter__()
                stream.send(b"picture")
            for stream in streams:
                wait_for(lambda: stream.account.results == 1)  # noqa: B023
            server.kill()
            for stream in streams:
                with pytest.raises(headworks.StreamBrokenError):
                    stream.close()
                stream.account.check()
                assert (stream.account.sent, stream.account.results, stream.account.lost) == (1, 1, 0)
            with pytest.raises(headworks.ConnectionFailedError), client.stream():
                pass
        server.forgive()
