"""The frames of one stream that wait in the client to be sent, by the stream's policy. No I/O, no clock, no threads.

Owned by `StreamSupervisor`; the stream's connections, one after another, take their frames from it. It outlives them,
so it is here that frames are counted on their way from the camera to the transport.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from headworks import codec
from headworks.policy import Policy


@dataclass(frozen=True, slots=True)
class OutgoingFrame:
    """A frame on its way out.

    Attributes:
        frame_id: strictly increasing within the stream, at least 1.
        captured_ns: when it was captured, on the monotonic clock.
        capture_time_ns: the same on the wall clock, for the server to echo.
        encoding: number of the proto's Encoding.
        width: pixels, 0 where the picture itself tells.
        height: pixels, 0 where the picture itself tells.
        payload: the picture.
    """

    frame_id: int
    captured_ns: int
    capture_time_ns: int
    encoding: int
    width: int
    height: int
    payload: bytes

    def to_bytes(self) -> bytes:
        """Return the request; the one copy of the payload happens here."""
        return codec.frame_request(
            self.payload,
            frame_id=self.frame_id,
            capture_time_ns=self.capture_time_ns,
            encoding=self.encoding,
            width=self.width,
            height=self.height,
        )


class Mailbox:
    """Frames between the camera and the transport.

    Attributes:
        policy: what gives way when there is no room.
        ended: whether no frame follows.
        offered: frames given by the camera.
        replaced: frames that gave way and were never sent, the arriving one included.
        sent: distinct frames taken by the transport.
        resent: frames taken once more.
    """

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy if policy is not None else Policy()
        self.ended = False
        self.offered = self.replaced = self.sent = self.resent = 0
        self._frames: deque[OutgoingFrame] = deque()
        self._again: deque[OutgoingFrame] = deque()
        self._last_id = 0

    def __len__(self) -> int:
        """Frames that could be taken now."""
        return len(self._frames) + len(self._again)

    @property
    def waiting(self) -> int:
        """Frames that have never been sent."""
        return len(self._frames)

    @property
    def again(self) -> tuple[OutgoingFrame, ...]:
        """Frames that wait to be sent once more, oldest first."""
        return tuple(self._again)

    @property
    def has_room(self) -> bool:
        """Whether a frame may be offered; under "latest" and "bounded" always."""
        return self.policy.kind != "every_frame" or len(self._frames) < self.policy.depth

    def next_frame_id(self) -> int:
        """Return the number of the next frame where the application gives none."""
        return self._last_id + 1

    def offer(self, frame: OutgoingFrame) -> bool:
        """Put a frame in; True where one had to give way. Under "every_frame" only while `has_room`.

        Raises:
            ValueError: the frame_id does not increase, or the stream has been ended.
        """
        if self.ended:
            raise ValueError(f"frame {frame.frame_id}: the stream has been ended, no frame may follow")
        if frame.frame_id <= self._last_id:
            raise ValueError(f"frame_id {frame.frame_id}: expected more than {self._last_id}")
        assert self.has_room
        self._last_id = frame.frame_id
        self.offered += 1
        full = len(self._frames) == self.policy.depth
        self.replaced += full
        if full and self.policy.drop == "newest":
            return True
        if full:
            # The oldest goes: an answer to a stale frame is worth less than none.
            self._frames.popleft()
        self._frames.append(frame)
        return full

    def take(self) -> OutgoingFrame | None:
        """Return the next frame to send, those to be sent again first; it counts as sent."""
        if self._again:
            self.resent += 1
            return self._again.popleft()
        if not self._frames:
            return None
        self.sent += 1
        return self._frames.popleft()

    def put_back(self, frames: Iterable[OutgoingFrame]) -> None:
        """Have frames, taken before, sent once more: in frame order, before those that were never sent."""
        self._again = deque(sorted([*self._again, *frames], key=lambda frame: frame.frame_id))
