"""Results go to the stream, and the frame, they belong to: eight cameras at once with distinguishable frames."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from headworks.v1 import frame_pb2 as pb
from support.colours import CLASS_BLUES, Colour, only_box, raw_bgr, sees
from support.raw_camera import RawCamera, open_request
from support.server import Server

STREAMS = 8
FRAMES = 120


def run_cameras(target: str, model: str, send: Callable[[RawCamera, int, int], None]) -> list[RawCamera]:
    """Eight cameras that send in bursts of three, ignoring credit; returns them closed, their ledgers checked."""

    def run(stream: int) -> RawCamera:
        with RawCamera(target, open_request(model, stream_name=f"camera {stream}")) as camera:
            assert camera.opened
            for frame_id in range(1, FRAMES + 1):
                send(camera, stream, frame_id)
                if frame_id % 3 == 0:
                    camera.wait(lambda: camera.outcome(frame_id))  # noqa: B023
            assert camera.close().ledger.received == FRAMES
            # A burst of three: two in flight, one waiting at most; its last is always served.
            assert len(camera.all("result")) >= FRAMES // 3
        return camera

    with ThreadPoolExecutor(STREAMS) as pool:
        return list(pool.map(run, range(STREAMS)))


def colour_of(stream: int, frame_id: int) -> Colour:
    """A colour that no other of these frames has."""
    return (10 + 2 * (frame_id % 118), 20 + 28 * stream, CLASS_BLUES[frame_id % 3])


def test_on_cpu_lanes(serving: Server) -> None:
    """Rule 10, on ONNX Runtime: each result is the answer to its own frame's colour."""

    def send(camera: RawCamera, stream: int, frame_id: int) -> None:
        camera.send_frame(raw_bgr(colour_of(stream, frame_id)), pb.ENCODING_BGR24, width=64, height=48)

    for stream, camera in enumerate(run_cameras(serving.target, "oracle", send)):
        for result in camera.all("result"):
            assert sees(result, colour_of(stream, result.frame_id), tolerance=0.05)


def payload_of(stream: int, frame_id: int) -> bytes:
    """Bytes that no other of these frames has."""
    return bytes([stream, frame_id, stream ^ 0x55, 255 - frame_id]) * (1 + stream)


def test_on_a_device_lane(sleeping: Server) -> None:
    """Rule 10, through native decoders and three batch buffers: the stand-in's answer is a function of the payload."""

    def send(camera: RawCamera, stream: int, frame_id: int) -> None:
        camera.send_frame(payload_of(stream, frame_id), width=640 + stream, height=480)

    for stream, camera in enumerate(run_cameras(sleeping.target, "", send)):
        for result in camera.all("result"):
            payload, box = payload_of(stream, result.frame_id), only_box(result)
            assert (box.x1, box.y1) == (sum(payload) % 65536, payload[0] | payload[1] << 8)
            assert box.class_id == payload[0]
            assert (result.source_width, result.source_height) == (640 + stream, 480)
    sizes = [int(name.split('size="')[1].split('"')[0]) for name in sleeping.metrics() if "batches_total" in name]
    assert max(sizes) > 1, "frames of different streams never shared a batch"
