"""What stands between a stream's frames and admission besides room: its engine, its maximum rate, and its pace.

Owned by the stream's session, which asks it for each arrival where `guarded` says so, and for each admission.
"""

from __future__ import annotations

from headworks_server.core.events import LOADING_ARRIVAL, RATE_LIMITED, DropOutcome, ErrorOutcome
from headworks_server.core.grant import Grant, Policy
from headworks_server.core.outcomes import FrameErrorCode
from headworks_server.core.rate import Rate
from headworks_server.core.readiness import Readiness


class Gate:
    """Lets frames through.

    Attributes:
        limit: frames that may be in flight now: 0 while the engine is not ready, or the next frame's time has not come.
        guarded: whether an arrival may be turned back; otherwise asking would cost every frame.
        readiness: of the engine.
        failure: why, where it is FAILED.
    """

    __slots__ = ("_grant", "_pacer", "_rate", "failure", "guarded", "limit", "readiness")

    def __init__(self) -> None:
        self.limit = 0
        self.guarded = False
        self.readiness = Readiness.READY
        self.failure = ""
        self._grant = Grant()
        self._rate: Rate | None = None  # LATEST and BOUNDED: of arrivals
        self._pacer: Rate | None = None  # EVERY_FRAME: of admissions

    @property
    def patient(self) -> bool:
        """Whether frames wait for what LATEST and BOUNDED drop them for."""
        return self._grant.policy is Policy.EVERY_FRAME

    def open(self, grant: Grant) -> None:
        """Go by what was granted."""
        self._grant = grant
        rate = Rate(grant.max_fps) if grant.max_fps else None
        self._pacer, self._rate = (rate, None) if self.patient else (None, rate)
        self.limit = grant.max_in_flight
        self._set_guard()

    def engine_changed(self, readiness: Readiness, detail: str, now_ns: int) -> None:
        """Open or close for the engine; `detail` says what failed."""
        self.readiness, self.failure = readiness, detail
        self.limit = 0 if readiness is not Readiness.READY or self._pacer is not None else self._grant.max_in_flight
        self.keep_pace(now_ns)
        self._set_guard()

    def turn_back(self, now_ns: int) -> DropOutcome | ErrorOutcome | None:
        """What an arrival is turned back with: for want of an engine, or over the maximum rate; else None."""
        if self.readiness is Readiness.FAILED:
            return ErrorOutcome(FrameErrorCode.ENGINE_FAILED, self.failure)
        if self.readiness is Readiness.LOADING and not self.patient:
            return LOADING_ARRIVAL
        if self._rate is not None and not self._rate.take(now_ns):
            return RATE_LIMITED
        self.keep_pace(now_ns)
        return None

    def admitted(self, now_ns: int) -> None:
        """Count an admission."""
        if self._pacer is not None:
            self._pacer.take(now_ns)
            if now_ns < self._pacer.ready_ns:
                self.limit = 0

    def keep_pace(self, now_ns: int) -> None:
        """EVERY_FRAME with a maximum rate: let the next frame be admitted if its time has come."""
        if self._pacer is not None and self.readiness is Readiness.READY and now_ns >= self._pacer.ready_ns:
            self.limit = self._grant.max_in_flight

    def opens_ns(self) -> int | None:
        """When the time of the next frame comes; None where it has, or nothing but time is in the way."""
        if self._pacer is None or self.limit or self.readiness is not Readiness.READY:
            return None
        return self._pacer.ready_ns

    def _set_guard(self) -> None:
        self.guarded = self.patient or self._rate is not None or self.readiness is not Readiness.READY
