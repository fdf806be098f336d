"""A stand-in for `headworks serve`, run as a program: writes the ready file and answers every frame until SIGTERM.

As arguments it takes what `headworks serve` takes; the folder of models is a word that says how to behave.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import grpc

from headworks.v1 import frame_pb2 as pb
from support.fake_server import Events, FakeServer, FakeStream, answer_every_frame


def forget_one_result(stream: FakeStream) -> Events:
    """The ledger counts a result that was never sent."""
    for said in answer_every_frame(stream):
        if isinstance(said, list) and stream.ledger.results == 2:
            yield said[1]  # the credit alone
        else:
            yield said


def die_in_mid_stream(stream: FakeStream) -> Events:
    """The call is cut after three frames, without Closed."""
    for said in answer_every_frame(stream):
        yield said
        if stream.ledger.received == 3:
            stream.context.abort(grpc.StatusCode.UNAVAILABLE, "the server died")


def find_nothing(stream: FakeStream) -> Events:
    """Results without a detection."""
    for said in answer_every_frame(stream):
        if isinstance(said, list):
            said[0].result.outputs[0].detections.CopyFrom(pb.Detections())
        yield said


def tell_players_and_teams(stream: FakeStream) -> Events:
    """A player a frame, or "red" for each frame of a stream to the model `teams`."""
    stream.read()
    opened = stream.opened()
    asked = stream.opening.models[0].name if stream.opening and stream.opening.models else ""
    if asked == "teams":
        opened.opened.models[0].MergeFrom(pb.ModelInfo(name="teams"))
        opened.opened.models[0].labels[:] = ["blue", "red"]
    yield opened
    for request in stream:
        match request.WhichOneof("message"):
            case "frame":
                result = stream.result(request.frame, class_id=0)
                if asked == "teams":
                    red = pb.Classifications(classifications=[pb.Classification(class_id=1, score=0.75)])
                    result.result.outputs[0].MergeFrom(pb.Output(model="teams", classifications=red))
                else:
                    box = result.result.outputs[0].detections.detections[0]
                    box.x1, box.y1, box.x2, box.y2 = 10, 20, 50, 100
                yield [result, stream.credit(4 + stream.ledger.received)]
            case "ping":
                yield stream.pong(request)
            case "end":
                yield stream.closed()


BEHAVIOURS = {
    "answers": answer_every_frame,
    "forgets": forget_one_result,
    "dies": die_in_mid_stream,
    "blind": find_nothing,
    "teams": tell_players_and_teams,
}


def main() -> None:
    """Serve until SIGTERM."""
    behaviour = Path(sys.argv[1]).name
    ready_file = Path(sys.argv[sys.argv.index("--ready-file") + 1])
    if behaviour == "broken":
        sys.exit("headworks serve: broken/model.onnx: no such model")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with FakeServer(BEHAVIOURS[behaviour]) as server:
        part = ready_file.with_suffix(".part")
        part.write_text(json.dumps({"port": int(server.target.split(":")[1]), "metrics_port": 0, "pid": os.getpid()}))
        part.replace(ready_file)
        stop.wait()


if __name__ == "__main__":
    main()
