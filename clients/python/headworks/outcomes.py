"""What a stream tells its application: typed, immutable, free of protobuf. Built by `session`, read by everybody.

The outcomes of frames are `Result`, `Dropped`, `FrameError` and, where a connection broke, `Lost`; `Opened`, `Notice`
and `Closed` are about the stream, and so are the events of its connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from headworks.errors import HeadworksError
from headworks.policy import LATEST, Policy


# A named tuple, for a frame may carry hundreds: made in less than half the time of a frozen dataclass.
class Detection(NamedTuple):
    """A half-open box [x1, x2) x [y1, y2) in pixels of the picture that was sent."""

    x1: float
    y1: float
    x2: float
    y2: float
    score: float
    """0 to 1."""
    class_id: int
    label: str
    """The model's name for `class_id`."""


class Classification(NamedTuple):
    """A class of the whole picture."""

    class_id: int
    label: str
    """The model's name for `class_id`."""
    score: float
    """0 to 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """An output of the model itself, without the batch axis.

    Attributes:
        name: as in the model.
        datatype: "FP32", "INT64" and so on, as in the Open Inference Protocol.
        shape: of `data`.
        data: a read-only numpy array of that shape; where numpy is not installed, or has no such type ("BF16",
            "BYTES"), the bytes, row-major and little-endian.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any


@dataclass(frozen=True, slots=True)
class Output:
    """What one model made of a frame, in the form that the stream asked for; the other forms are empty.

    Detections and classifications come best score first, tensors in the model's order.
    """

    model: str
    version: str
    generation: int
    backend: str
    detections: tuple[Detection, ...] = ()
    classifications: tuple[Classification, ...] = ()
    tensors: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Timings:
    """Microseconds that a frame spent in each stage of the server."""

    waited_us: int
    decoded_us: int
    batched_us: int
    executed_us: int
    postprocessed_us: int


@dataclass(frozen=True, slots=True)
class Result:
    """A frame that was served.

    Attributes:
        frame_id: as sent.
        capture_time_ns: as sent, nanoseconds since the epoch by the client's clock.
        age_s: seconds from capture to arrival here, by the client's monotonic clock.
        round_trip_s: seconds from the write to arrival here. Both are nan for a frame older than the 4,096 last sent.
        source_width: width of the picture as stored, in pixels; EXIF orientation is ignored.
        source_height: height of the picture as stored, in pixels.
        outputs: one for each model of the stream.
        batch_size: frames that ran together with this one, itself included.
        deadline_missed: the deadline passed while the frame ran.
        timings: where the time went in the server.
    """

    frame_id: int
    capture_time_ns: int
    age_s: float
    round_trip_s: float
    source_width: int
    source_height: int
    outputs: tuple[Output, ...]
    batch_size: int
    deadline_missed: bool
    timings: Timings

    @property
    def detections(self) -> tuple[Detection, ...]:
        """The detections of the first model, best score first."""
        return self.outputs[0].detections if self.outputs else ()

    @property
    def classifications(self) -> tuple[Classification, ...]:
        """The classes of the first model, best score first."""
        return self.outputs[0].classifications if self.outputs else ()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The raw outputs of the first model."""
        return self.outputs[0].tensors if self.outputs else ()


@dataclass(frozen=True, slots=True)
class DropCount:
    """So many frames were dropped for this reason at this stage; names as in the proto, without their prefix."""

    reason: str
    stage: str
    count: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """A run of dropped frames. It counts only frames that were sent, so `total` may be less than the range."""

    first_frame_id: int
    last_frame_id: int
    counts: tuple[DropCount, ...]

    @property
    def total(self) -> int:
        """Frames dropped in this run."""
        return sum(drop.count for drop in self.counts)


@dataclass(frozen=True, slots=True)
class FrameError:
    """A frame that failed; `code` is stable ("UNDECODABLE", "TOO_LARGE" and so on), `detail` is for people."""

    frame_id: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Lost:
    """Frames that were sent over a connection that broke, and never got an outcome.

    Like `Dropped` it counts only frames that were sent. Under "every_frame" frames are sent again instead, and are
    lost only where the stream itself has ended.
    """

    first_frame_id: int
    last_frame_id: int
    total: int


Outcome: TypeAlias = Result | Dropped | FrameError | Lost


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as it serves now. `labels` are indexed by class_id, sizes are pixels of the network's input."""

    name: str
    version: str
    generation: int
    digest: str
    labels: tuple[str, ...]
    backend: str
    input_width: int
    input_height: int


@dataclass(frozen=True, slots=True)
class Opened:
    """What the server granted, which may be less than was asked for.

    Attributes:
        stream_id: the server's number for this stream, as in its log.
        max_in_flight: frames admitted and without an outcome at one time.
        frames_allowed: the credit at the start.
        deadline_ms: milliseconds from receipt at the server to the result, 0 for none.
        weight: share in the round robin.
        models: what will run, in the order of `Result.outputs`.
        max_frame_bytes: bytes of one frame.
        max_frame_pixels: width times height of one frame.
        policy: how frames wait at the server.
    """

    stream_id: int
    max_in_flight: int
    frames_allowed: int
    deadline_ms: int
    weight: int
    models: tuple[ModelInfo, ...]
    max_frame_bytes: int
    max_frame_pixels: int
    policy: Policy = LATEST


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about the stream changed: `kind` is "DRAINING", "DEGRADED", "RESTORED" or "MODEL_CHANGED".

    After MODEL_CHANGED results from `first_frame_id` on come from `model_info`, which has that `generation`; their
    labels are already its own.
    """

    kind: str
    detail: str
    grace_ms: int
    first_frame_id: int
    generation: int
    model: str
    model_info: ModelInfo | None = None

    def __str__(self) -> str:
        """Say it in a few words."""
        what = self.kind
        if (model := self.model_info) is not None:
            what += f" to {model.name} version {model.version} (generation {model.generation})"
            what += f" from frame {self.first_frame_id} on"
        return f"the server says {what}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True, slots=True)
class Ledger:
    """Every frame the server has read, by its outcome: received = results + drops + errors."""

    received: int
    results: int
    drops: tuple[DropCount, ...]
    errors: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The server's last word on a stream; `reason` is "END", "DRAINED", "IDLE_TIMEOUT" or "PROTOCOL_ERROR"."""

    ledger: Ledger
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """The stream has a connection.

    Attributes:
        number: 1 for the first; greater where the stream was reopened.
        target: the server's address.
        opened: what it granted.
        away_s: seconds since the connection before was lost; 0 for the first, and where the server drained.
    """

    number: int
    target: str
    opened: Opened
    away_s: float

    def __str__(self) -> str:
        """Say it in a few words."""
        if self.number == 1:
            return f"open at {self.target}"
        return f"open again at {self.target} after {self.away_s:.1f} s"


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """A connection broke; another one is tried. (Where none is, the stream breaks, and says so by its error.)

    Attributes:
        number: of the connection, as in `ConnectionOpened`.
        target: the server's address.
        reason: what happened.
        unanswered: frames without an outcome: lost, or sent again under "every_frame".
        next_target: who is tried next.
        retry_in_s: seconds until then.
    """

    number: int
    target: str
    reason: HeadworksError
    unanswered: int
    next_target: str
    retry_in_s: float

    def __str__(self) -> str:
        """Say it in a few words."""
        return (
            f"lost {self.target} with {self.unanswered} frames unanswered: {self.reason}; trying {self.next_target} in "
            f"{self.retry_in_s:.1f} s"
        )


@dataclass(frozen=True, slots=True)
class ReconnectFailed:
    """An attempt to open the stream, for the first time or again, failed; another one follows.

    Attributes:
        target: the server's address.
        reason: what happened.
        attempt: how many have failed in succession.
        next_target: who is tried next.
        retry_in_s: seconds until then.
    """

    target: str
    reason: HeadworksError
    attempt: int
    next_target: str
    retry_in_s: float

    def __str__(self) -> str:
        """Say it in a few words."""
        return f"attempt {self.attempt} failed: {self.reason}; trying {self.next_target} in {self.retry_in_s:.1f} s"


ConnectionEvent: TypeAlias = ConnectionOpened | ConnectionLost | ReconnectFailed
