from typing import final

from headworks_native.lane import CompletionRing, Ticket

@final
class SleepingLane:
    def __init__(
        self,
        completions: CompletionRing,
        *,
        decoders: int,
        decode_ms: float,
        slow_fraction: float = 0.0,
        slow_ms: float = 0.0,
        seed: int = 0,
        engine_base_ms: float,
        engine_frame_ms: float,
        max_batch: int,
        target: int,
        position_bytes: int = 1024,
        buffers: int = 3,
        fail_from: int = 0,
        fail_count: int = 0,
        detections: int = 1,
    ) -> None: ...
    @property
    def completions(self) -> CompletionRing: ...
    @property
    def decoders(self) -> int: ...
    @property
    def max_batch(self) -> int: ...
    @property
    def target(self) -> int: ...
    def submit(self, ticket: Ticket) -> None: ...
    def ahead(self) -> int: ...
    def batch_sizes(self) -> dict[int, int]: ...
    def close(self) -> None: ...

@final
class SleepingDecoder:
    def __init__(
        self, *, decode_ms: float, slow_fraction: float = 0.0, slow_ms: float = 0.0, seed: int = 0
    ) -> None: ...
    def decode(self) -> None: ...

@final
class SleepingEngine:
    def __init__(self, *, engine_base_ms: float, engine_frame_ms: float) -> None: ...
    def run(self, count: int) -> None: ...
