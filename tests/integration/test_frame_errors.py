"""Frames that cannot be served: each is answered with what was expected and what came, and its stream goes on."""

from __future__ import annotations

import struct
import zlib

import pytest

from headworks.v1 import frame_pb2 as pb
from support.colours import plain, sees
from support.pictures import chunk, frame_header, jpeg, png, riff, scene, webp, webp_canvas, webp_payload
from support.raw_camera import RawCamera, open_request
from support.server import Server

GOOD = jpeg(scene(64, 48))
PNG_BOMB = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(b"\0"))
    + chunk(b"IEND", b"")
)
WEBP_BOMB = riff(webp_canvas(65_500, 65_500), webp_payload(webp(scene(64, 48))))
JPEG_BOMB = b"\xff\xd8" + frame_header(65_000, 65_000) + GOOD[2:]

BAD_FRAMES = {
    "garbage": (b"no picture at all", pb.ENCODING_JPEG, 0, "UNDECODABLE", "JPEG"),
    "empty": (b"", pb.ENCODING_JPEG, 0, "UNDECODABLE", "0 bytes"),
    "truncated": (GOOD[: len(GOOD) // 2], pb.ENCODING_JPEG, 0, "UNDECODABLE", ""),
    "header only": (GOOD[:30], pb.ENCODING_JPEG, 0, "UNDECODABLE", ""),
    "a PNG that claims to be JPEG": (png(scene(64, 48)), pb.ENCODING_JPEG, 0, "UNDECODABLE", "PNG"),
    "a JPEG that claims to be PNG": (GOOD, pb.ENCODING_PNG, 0, "UNDECODABLE", "JPEG"),
    "a bomb in a JPEG header": (JPEG_BOMB, pb.ENCODING_JPEG, 0, "TOO_LARGE", "65000"),
    "a bomb in a PNG header": (PNG_BOMB, pb.ENCODING_PNG, 0, "TOO_LARGE", "60000"),
    "raw pixels, one byte short": (bytes(64 * 48 * 3 - 1), pb.ENCODING_BGR24, 64, "UNDECODABLE", "9,216 bytes"),
    "raw pixels without a size": (bytes(64 * 48 * 3), pb.ENCODING_BGR24, 0, "UNDECODABLE", ""),
    "raw pixels of odd sides": (bytes(63 * 48 * 3 // 2), pb.ENCODING_NV12, 63, "UNDECODABLE", "63x48"),
    "raw pixels of a giant size": (b"", pb.ENCODING_I420, 2**32 - 1, "TOO_LARGE", "4294967295x48"),
    "a JPEG that claims to be WebP": (GOOD, pb.ENCODING_WEBP, 0, "UNDECODABLE", "JPEG"),
    "a WebP without a picture": (riff(), pb.ENCODING_WEBP, 0, "UNDECODABLE", "12 bytes"),
    "a truncated WebP": (webp(scene(64, 48))[:-9], pb.ENCODING_WEBP, 0, "UNDECODABLE", "bytes"),
    "a bomb in a WebP canvas": (WEBP_BOMB, pb.ENCODING_WEBP, 0, "TOO_LARGE", "65500"),
    "an animated WebP": (riff(webp_canvas(64, 48, flags=2)), pb.ENCODING_WEBP, 0, "UNSUPPORTED", "animated"),
    "no encoding": (GOOD, pb.ENCODING_UNSPECIFIED, 0, "UNSUPPORTED", "encoding"),
    "an encoding of the future": (GOOD, 99, 0, "UNSUPPORTED", "99"),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_bad_frame_costs_only_itself(serving: Server, name: str) -> None:
    """Rule 14: FrameError names the expectation and the fact; the frames before and after it are served."""
    data, encoding, width, code, fact = BAD_FRAMES[name]
    red = (180, 100, 0)
    with RawCamera(serving.target, open_request("oracle", stream_name="gate")) as camera:
        camera.ask_result(GOOD)
        error = camera.ask_error(data, encoding, width=width, height=width and 48)
        assert pb.FrameErrorCode.Name(error.code) == f"FRAME_ERROR_CODE_{code}"
        assert "frame 2 of 'gate'" in error.detail
        assert fact in error.detail
        assert sees(camera.ask_result(png(plain(red)), pb.ENCODING_PNG), red, tolerance=0.01)
        assert camera.close().ledger.errors == 1


def test_a_frame_over_the_limit_is_answered_not_cut_off(serving: Server) -> None:
    """Rule 14: over max_frame_bytes is a FrameError; gRPC's own limit is twice that, so the stream lives."""
    with RawCamera(serving.target, open_request("oracle")) as camera:
        limit = camera.opened.limits.max_frame_bytes
        error = camera.ask_error(GOOD + bytes(limit + 1 - len(GOOD)))
        assert error.code == pb.FRAME_ERROR_CODE_TOO_LARGE
        assert f"{limit:,}" in error.detail
        assert f"{limit + 1:,}" in error.detail
        camera.ask_result(GOOD)
        assert camera.close().ledger.errors == 1


def test_bad_frames_among_good_ones_in_one_batch(sleeping: Server) -> None:
    """Rule 14, in the device form of the lanes: an undecodable frame never takes a position; order is kept."""
    with RawCamera(sleeping.target, open_request(max_in_flight=8)) as camera:
        for number in range(30):
            event = camera.ask(b"BAD!" if number % 3 == 1 else bytes([number, 0, 1]))
            assert event.WhichOneof("event") == ("frame_error" if number % 3 == 1 else "result")
        assert camera.close().ledger.errors == 10


def test_a_failed_batch_answers_its_frames(serving: Server) -> None:
    """Rule 14: the frames of a batch that fails are answered ENGINE_FAILED, and the stream goes on."""
    with RawCamera(serving.target, open_request("fragile")) as camera:
        error = camera.ask_error(png(plain((255, 0, 0))), pb.ENCODING_PNG)
        assert error.code == pb.FRAME_ERROR_CODE_ENGINE_FAILED
        assert error.detail
        camera.ask_result(png(plain((100, 0, 0))), pb.ENCODING_PNG)
        camera.close()
