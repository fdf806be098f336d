"""Reads Frame from the wire and encodes Result, Dropped and Credit: the messages that travel once per frame."""

from typing import Protocol, final

class _Timestamp(Protocol):
    @property
    def seconds(self) -> int: ...
    @property
    def nanos(self) -> int: ...

class _Frame(Protocol):
    @property
    def frame_id(self) -> int: ...
    @property
    def capture_time(self) -> _Timestamp: ...
    @property
    def encoding(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    def HasField(self, field_name: str) -> bool: ...  # noqa: N802

@final
class FrameMessage:
    """One Frame as it came, made by `parse_request` or `frame_message`. The payload stays inside `message`."""

    @property
    def frame_id(self) -> int:
        """Number of the frame, 0 to 2**64 - 1."""
    @property
    def capture_time(self) -> bytes:
        """The Timestamp submessage in canonical form, to be echoed as it is; empty if absent or the epoch."""
    @property
    def has_capture_time(self) -> bool:
        """Whether capture_time was sent: an empty Timestamp is the epoch."""
    @property
    def encoding(self) -> int:
        """Number of the Encoding, an int32; may be one this server does not know."""
    @property
    def width(self) -> int:
        """Width in pixels as stated by the client, 0 if absent."""
    @property
    def height(self) -> int:
        """Height in pixels as stated by the client, 0 if absent."""
    @property
    def message(self) -> bytes:
        """The bytes that hold the payload."""
    @property
    def data_offset(self) -> int:
        """Where the payload begins in `message`; 0 if it is empty."""
    @property
    def data_length(self) -> int:
        """Bytes of the payload."""
    @property
    def data(self) -> memoryview:
        """The payload, a read-only view into `message` that keeps it alive; no copy."""

def parse_request(message: bytes) -> FrameMessage | None:
    """Read a StreamFramesRequest that is one Frame in the shape serialisers emit.

    That shape is: the Frame alone, its known fields in ascending order, each at most once, none with its default
    value, numbers in minimal form, capture_time likewise.

    Returns:
        The frame, equal to what protobuf reads; or None where protobuf must look: another message, another shape,
        malformed bytes. The caller then parses with protobuf, which raises DecodeError on malformed bytes, and hands
        a Frame to `frame_message`.

    Raises:
        TypeError: `message` is not bytes.
    """

def frame_message(frame: _Frame) -> FrameMessage:
    """Make a FrameMessage from a parsed `headworks.v1.Frame`. Unknown fields of capture_time are not echoed."""

def encode_result(
    *,
    frame_id: int,
    capture_time: bytes | None,
    source_width: int,
    source_height: int,
    output_prefix: bytes,
    detections: bytes | None,
    batch_size: int,
    deadline_missed: bool,
    waited_us: int,
    decoded_us: int,
    batched_us: int,
    executed_us: int,
    postprocessed_us: int,
) -> bytes:
    """Encode one Result with one output.

    Args:
        frame_id: as sent, 0 to 2**64 - 1.
        capture_time: the Timestamp submessage to echo, or None if the frame had none.
        source_width: pixels of the picture as stored.
        source_height: pixels of the picture as stored.
        output_prefix: fields 1 to 4 of Output (model, version, generation, backend), encoded; behind them the field of
            its value (classifications, raw tensors) where that is not detections.
        detections: packed little-endian records of 24 bytes, best first: float32 x1, y1, x2, y2 (source pixels) and
            score, uint32 class_id.
        batch_size: frames that ran together.
        deadline_missed: whether the deadline passed while the frame ran.
        waited_us: microseconds. This and the times below stop at 2**32 - 1.
        decoded_us: microseconds.
        batched_us: microseconds.
        executed_us: microseconds.
        postprocessed_us: microseconds.

    Returns:
        One entry of StreamFramesResponse: tag, length, ServerEvent. Entries may be joined into one response.

    Raises:
        ValueError: `detections` is not a whole number of records.
        OverflowError: a number is negative or too large for its field.
    """

def encode_dropped(first_frame_id: int, last_frame_id: int, counts: list[tuple[int, int, int]]) -> bytes:
    """Encode one Dropped range.

    Args:
        first_frame_id: the first frame of the run.
        last_frame_id: the last frame of the run.
        counts: DropReason, DropStage and number of frames, by reason and stage.

    Returns:
        One entry of StreamFramesResponse.

    Raises:
        OverflowError: a number is negative or too large for its field.
    """

def encode_credit(frames_allowed: int) -> bytes:
    """Encode one Credit, the frames allowed in all since Open, as one entry of StreamFramesResponse.

    Raises:
        OverflowError: the number is negative or over 2**64 - 1.
    """
