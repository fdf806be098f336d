"""What `headworks stream` prints: JSON lines, text lines, or a live table; all fed by the cameras' threads.

Each `Show` here takes events under its own lock and prints whole lines, so that cameras never mix within one.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import asdict
from typing import Any

import click

import headworks
from headworks.commands.worker import CameraWorker

RECENT = 150
"""Results whose age the table looks at: five seconds of a camera at 30 fps."""
SHOWN_LABELS = 5


class LineShow:
    """A line for every outcome: text, or JSON. Trouble goes to standard error."""

    def __init__(self, *, as_json: bool, several: bool) -> None:
        self._as_json = as_json
        self._several = several
        self._lock = threading.Lock()

    def opened(self, camera: CameraWorker) -> None:
        """Nothing is printed: the first outcome says it."""

    def outcome(self, camera: CameraWorker, outcome: headworks.Outcome) -> None:
        """Print one outcome."""
        if self._as_json:
            self._echo(json.dumps(plain(camera.title, outcome), separators=(",", ":")))
        else:
            self._echo(self._place(camera) + line(outcome))

    def trouble(self, camera: CameraWorker, what: str) -> None:
        """Tell it on standard error."""
        self._echo(f"{camera.title}: {what}", err=True)

    def account(self, camera: CameraWorker) -> None:
        """Print where every frame of a camera went."""
        if camera.stream is None:
            return
        account = camera.stream.account
        if self._as_json:
            told = {"source": camera.title, "account": {**asdict(account), "unaccounted": account.unaccounted}}
            self._echo(json.dumps(told, separators=(",", ":")))
        else:
            self._echo(self._place(camera) + account_line(account))

    def _place(self, camera: CameraWorker) -> str:
        return f"{camera.title}: " if self._several else ""

    def _echo(self, text: str, *, err: bool = False) -> None:
        with self._lock:
            click.echo(text, err=err)


class CameraTally:
    """What the table knows of one camera; written by its threads, read by the table."""

    def __init__(self) -> None:
        self.results = 0
        self.dropped = 0
        self.lost = 0
        self.errors = 0
        self.ages_s: deque[float] = deque(maxlen=RECENT)
        self.last = ""
        self.state = "opening"

    def age_ms(self, share: float) -> float | None:
        """A percentile of the recent ages."""
        ages = sorted(self.ages_s)
        return ages[min(len(ages) - 1, int(share * len(ages)))] * 1e3 if ages else None


class TableShow:
    """Keeps the tallies that the live table shows; prints nothing by itself."""

    def __init__(self) -> None:
        self.tallies: dict[CameraWorker, CameraTally] = {}

    def add(self, camera: CameraWorker) -> None:
        """Give a camera its row."""
        self.tallies[camera] = CameraTally()

    def opened(self, camera: CameraWorker) -> None:
        """Its stream has been opened."""
        self.tallies[camera].state = "streaming"

    def outcome(self, camera: CameraWorker, outcome: headworks.Outcome) -> None:
        """Count it."""
        tally = self.tallies[camera]
        tally.state = "streaming"
        match outcome:
            case headworks.Result():
                tally.results += 1
                tally.ages_s.append(outcome.age_s)
                tally.last = found(outcome)
            case headworks.Dropped():
                tally.dropped += outcome.total
            case headworks.Lost():
                tally.lost += outcome.total
            case headworks.FrameError():
                tally.errors += 1
                tally.last = f"{outcome.code}: {outcome.detail}"

    def trouble(self, camera: CameraWorker, what: str) -> None:
        """Show it in the camera's row until the next outcome."""
        self.tallies[camera].state = what


def plain(title: str, outcome: headworks.Outcome) -> dict[str, Any]:
    """One JSON object for an outcome; a run of dropped frames is one."""
    match outcome:
        case headworks.Result():
            (output,) = outcome.outputs
            return {
                "source": title,
                "frame_id": outcome.frame_id,
                "outcome": "result",
                "age_ms": round(outcome.age_s * 1e3, 3),
                "round_trip_ms": round(outcome.round_trip_s * 1e3, 3),
                "model": output.model,
                "version": output.version,
                "generation": output.generation,
                "backend": output.backend,
                **_found(output),
                "source_width": outcome.source_width,
                "source_height": outcome.source_height,
                "batch_size": outcome.batch_size,
                "deadline_missed": outcome.deadline_missed,
                "timings": asdict(outcome.timings),
            }
        case headworks.FrameError():
            return {"source": title, "outcome": "error", **asdict(outcome)}
        case _:
            kind = "dropped" if isinstance(outcome, headworks.Dropped) else "lost"
            return {"source": title, "frame_id": outcome.first_frame_id, "outcome": kind, **asdict(outcome)}


def _found(output: headworks.Output) -> dict[str, Any]:
    if output.classifications:
        return {"classifications": [found._asdict() for found in output.classifications]}
    if output.tensors:
        return {"tensors": [{"name": t.name, "datatype": t.datatype, "shape": t.shape} for t in output.tensors]}
    return {"detections": [box._asdict() for box in output.detections]}


def line(outcome: headworks.Outcome) -> str:
    """One line of text for an outcome."""
    match outcome:
        case headworks.Result():
            return f"frame {outcome.frame_id}: {outcome.age_s * 1e3:.0f} ms: {found(outcome)}"
        case headworks.FrameError():
            return f"frame {outcome.frame_id}: failed: {outcome.code}: {outcome.detail}"
        case headworks.Lost():
            return (
                f"frames {outcome.first_frame_id} to {outcome.last_frame_id}: {outcome.total} lost with the connection"
            )
        case _:
            why = ", ".join(f"{drop.count} {drop.reason} {drop.stage}" for drop in outcome.counts)
            return f"frames {outcome.first_frame_id} to {outcome.last_frame_id}: dropped: {why}"


def found(result: headworks.Result) -> str:
    """The best of what was found, in words."""
    (output,) = result.outputs
    if output.tensors:
        return ", ".join(f"{tensor.name} {tensor.datatype} {list(tensor.shape)}" for tensor in output.tensors)
    things = output.classifications or output.detections
    best = ", ".join(f"{thing.label} {thing.score:.2f}" for thing in things[:SHOWN_LABELS])
    more = len(things) - SHOWN_LABELS
    return (best or "nothing found") + (f" and {more} more" if more > 0 else "")


def account_line(account: headworks.Account) -> str:
    """Where every frame went, in one line."""
    drops = ", ".join(f"{count} {reason}" for reason, count in sorted(account.drops.items())) or "0"
    resent = f", {account.resent} sent again" if account.resent else ""
    return (
        f"{account.offered} frames: {account.replaced} replaced here, {account.sent} sent; of these "
        f"{account.results} results, dropped: {drops}, {account.errors} errors, {account.lost} lost{resent}"
    )
