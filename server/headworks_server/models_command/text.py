"""How `headworks models` shows what a server says of its models: as text for people, as plain values for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headworks.v1 import frame_pb2 as fpb
from headworks.v1 import model_pb2 as pb

HEADINGS = ("model", "version", "state", "memory", "used by", "pinned", "hits", "loads", "evicted", "batch ms")
NUMBERS = {"memory", "used by", "hits", "loads", "evicted"}
COUNTERS = ("hits", "loads", "failures", "evictions", "falls", "reloads")


def models_table(models: Sequence[pb.ModelStatus]) -> str:
    """A line for each model under headings; below it why those are not well that are not."""
    rows = [_row(status) for status in models]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    lines = [
        "  ".join(
            f"{cell:>{width}}" if heading in NUMBERS else f"{cell:{width}}"
            for heading, cell, width in zip(HEADINGS, row, widths, strict=True)
        ).rstrip()
        for row in (HEADINGS, *rows)
    ]
    return "\n".join([*lines, *(_because(status) for status in models if status.detail)])


def memory_line(memory: pb.ModelMemory) -> str:
    """The memory that all models share; what was evicted and loaded again too often."""
    line = f"memory: {megabytes(memory.used_bytes)} of {megabytes(memory.budget_bytes)}"
    if memory.over_bytes:
        line += f", over by {megabytes(memory.over_bytes)}"
    if memory.thrashing:
        line += f"; too little for {', '.join(memory.thrashing)}: evicted and loaded over and over"
    return line


def status_line(status: pb.ModelStatus) -> str:
    """One model as it is after an order."""
    info = status.info
    parts = [f"{info.name}: version {info.version}", _state(status), megabytes(status.resident_bytes), info.backend]
    if not status.current:
        parts.append("not current")
    if status.pinned:
        parts.append("pinned")
    if status.detail:
        parts.append(status.detail)
    return ", ".join(part for part in parts if part)


def statistics_page(statistics: pb.ModelStatistics) -> str:
    """A few lines on one model."""
    info, ledger, residency = statistics.info, statistics.ledger, statistics.residency
    drops = ", ".join(f"{count} {reason}" for reason, count in sorted(_drops(ledger).items())) or "0"
    sizes = ", ".join(f"{count} of {size}" for size, count in sorted(statistics.batch_sizes.items())) or "none"
    counters = ", ".join(f"{getattr(residency, counter)} {counter}" for counter in COUNTERS)
    return "\n".join(
        [
            f"{info.name}: version {info.version}, generation {info.generation}",
            f"  frames: {ledger.received} received, {ledger.results} results, dropped: {drops}, {ledger.errors} errors",
            f"  batches: {sizes}; {statistics.executed_seconds:.3f} s in the engine",
            f"  residency: {counters}; last load {residency.last_load_seconds:.3f} s",
        ]
    )


def status_values(status: pb.ModelStatus) -> dict[str, Any]:
    """One model for machines; `curve` has seconds by batch size."""
    return {
        **_info_values(status.info),
        "state": _state(status),
        "detail": status.detail,
        "resident_bytes": status.resident_bytes,
        "leases": status.leases,
        "pinned": status.pinned,
        "current": status.current,
        "backends": list(status.backends),
        "curve": {point.batch_size: point.seconds for point in status.curve},
        "target_batch": status.target_batch,
        "residency": _residency_values(status.residency),
    }


def memory_values(memory: pb.ModelMemory) -> dict[str, Any]:
    """The memory for machines."""
    return {
        "budget_bytes": memory.budget_bytes,
        "used_bytes": memory.used_bytes,
        "over_bytes": memory.over_bytes,
        "thrashing": list(memory.thrashing),
    }


def statistics_values(statistics: pb.ModelStatistics) -> dict[str, Any]:
    """One model's counters for machines."""
    ledger = statistics.ledger
    return {
        **_info_values(statistics.info),
        "batch_sizes": dict(sorted(statistics.batch_sizes.items())),
        "executed_seconds": statistics.executed_seconds,
        "received": ledger.received,
        "results": ledger.results,
        "drops": _drops(ledger),
        "errors": ledger.errors,
        "residency": _residency_values(statistics.residency),
    }


def megabytes(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 1e6:,.1f} MB"


def _row(status: pb.ModelStatus) -> tuple[str, ...]:
    info, residency = status.info, status.residency
    curve = ", ".join(
        f"{point.batch_size}{'*' if point.batch_size == status.target_batch else ''}: {point.seconds * 1e3:.3g}"
        for point in status.curve
    )
    return (
        info.name,
        info.version if status.current else f"{info.version} (not current)",
        _state(status),
        megabytes(status.resident_bytes),
        str(status.leases),
        "yes" if status.pinned else "no",
        str(residency.hits),
        str(residency.loads),
        str(residency.evictions),
        curve,
    )


def _because(status: pb.ModelStatus) -> str:
    return f"{status.info.name} {status.info.version} is {_state(status)}: {status.detail}"


def _state(status: pb.ModelStatus) -> str:
    if status.state not in pb.ModelState.values():
        return str(status.state)  # of a newer server
    return pb.ModelState.Name(status.state).removeprefix("MODEL_STATE_").lower()


def _drops(ledger: fpb.Ledger) -> dict[str, int]:
    drops: dict[str, int] = {}
    for drop in ledger.drops:
        known = drop.reason in fpb.DropReason.values()
        reason = fpb.DropReason.Name(drop.reason).removeprefix("DROP_REASON_") if known else str(drop.reason)
        drops[reason] = drops.get(reason, 0) + drop.count
    return drops


def _info_values(info: fpb.ModelInfo) -> dict[str, Any]:
    return {
        "model": info.name,
        "version": info.version,
        "generation": info.generation,
        "digest": info.digest,
        "backend": info.backend,
    }


def _residency_values(residency: pb.ResidencyCounters) -> dict[str, Any]:
    counters = {counter: getattr(residency, counter) for counter in COUNTERS}
    return {**counters, "last_load_seconds": residency.last_load_seconds}
