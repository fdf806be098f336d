"""A ModelAdministration without engines, behind a real gRPC server on a thread of its own, for tests of the service and
of the commands.

It knows "players" of versions 1 and 2, and "ball", which has failed. What is asked of it stays in `asked`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType

import grpc

from headworks.v1 import model_pb2_grpc
from headworks_server.core.administration import (
    AdministrationError,
    MemoryReport,
    ModelReport,
    ModelState,
    Residency,
)
from headworks_server.core.facts import ModelFacts
from headworks_server.core.ledger import Ledger
from headworks_server.core.outcomes import DropReason, DropStage
from headworks_server.rpc.administration import ModelServicer
from headworks_server.rpc.auth import TokenFile, TokenInterceptor


def facts(name: str, version: str) -> ModelFacts:
    """Facts of a model that detects players."""
    return ModelFacts(
        name=name,
        version=version,
        generation=int(version),
        digest="ab" * 32,
        labels=("player", "ball"),
        backend="onnxruntime-cpu",
        input_width=640,
        input_height=384,
        score_threshold=0.25,
        max_detections=300,
    )


class FakeAdministration:
    """Answers from a table."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.refusal: Exception | None = None
        """Raised by whatever would change something."""
        self.hold: asyncio.Event | None = None
        """Where set, a swap waits for it."""
        self.table = {
            ("ball", "1"): ModelReport(facts=facts("ball", "1"), state=ModelState.FAILED, detail="no such operator"),
            ("players", "1"): ModelReport(
                facts=facts("players", "1"),
                state=ModelState.READY,
                resident_bytes=12_300_000,
                leases=3,
                pinned=True,
                backends=("onnxruntime-cuda", "onnxruntime-cpu"),
                curve=((1, 0.004), (4, 0.0135)),
                target_batch=4,
                residency=Residency(
                    hits=7, loads=2, failures=1, evictions=1, falls=1, reloads=4, last_load_seconds=0.5
                ),
            ),
            ("players", "2"): ModelReport(
                facts=facts("players", "2"),
                state=ModelState.COLD,
                current=False,
                residency=Residency(hits=1, loads=1, last_load_seconds=9.0),
            ),
        }

    def reports(self) -> list[ModelReport]:
        return list(self.table.values())

    def report(self, name: str, version: str = "") -> ModelReport:
        self.asked.append(("report", name, version))
        return self._find(name, version)

    def memory(self) -> MemoryReport:
        return MemoryReport(400_000_000, 412_300_000, 12_300_000, ("ball", "players"))

    def batch_sizes(self, name: str) -> Mapping[int, int]:
        return {1: 5, 4: 20} if name == "players" else {}

    def executed_seconds(self, name: str) -> float:
        return 1.25 if name == "players" else 0.0

    async def load(self, name: str, version: str = "") -> ModelReport:
        return self._move("load", name, version, state=ModelState.READY)

    async def unload(self, name: str, version: str = "") -> ModelReport:
        return self._move("unload", name, version, state=ModelState.COLD)

    async def pin(self, name: str, version: str = "") -> ModelReport:
        return self._move("pin", name, version, pinned=True)

    async def unpin(self, name: str, version: str = "") -> ModelReport:
        return self._move("unpin", name, version, pinned=False)

    async def swap(self, name: str, version: str = "", *, back: bool = False) -> ModelReport:
        self.asked.append(("swap back" if back else "swap", name, version))
        if self.hold is not None:
            await self.hold.wait()
        self.asked.append(("swapped", name, version))
        return self._move("done", name, version)

    def _move(self, what: str, name: str, version: str, **changed: object) -> ModelReport:
        self.asked.append((what, name, version))
        if self.refusal is not None:
            raise self.refusal
        report = replace(self._find(name, version), **changed)  # type: ignore[arg-type]
        self.table[name, report.facts.version] = report
        return report

    def _find(self, name: str, version: str) -> ModelReport:
        report = self.table.get((name, version or "1"))
        if report is None:
            raise AdministrationError("not_found", f"no model {name!r}: this server has ball, players")
        return report


def ledger(name: str) -> Ledger:
    """Thirty frames of "players"."""
    found = Ledger()
    if name == "players":
        found.received, found.results, found.errors = 30, 25, 1
        found.drop((DropReason.REPLACED_BY_NEWER, DropStage.BEFORE_DECODE), 3)
        found.drop((DropReason.MODEL_LOADING, DropStage.INGRESS), 1)
    return found


class AdministeredServer:
    """A grpc.aio server with nothing but ModelService, on a loop in a thread.

    Arguments:
        administration: what it serves; None for a server without ModelService.
        admins: who may.
        tokens: those it asks for.
    """

    def __init__(
        self,
        administration: FakeAdministration | None,
        *,
        admins: Sequence[str] = (),
        tokens: TokenFile | None = None,
    ) -> None:
        self._administration = administration
        self._admins = admins
        self._tokens = tokens
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.loop: asyncio.AbstractEventLoop
        self.target = ""

    def __enter__(self) -> AdministeredServer:
        self._thread.start()
        assert self._up.wait(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        server = grpc.aio.server(interceptors=[TokenInterceptor(self._tokens)] if self._tokens else None)
        if self._administration is not None:
            servicer = ModelServicer(self._administration, ledger, admins=self._admins)
            model_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server)
        self.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        self._up.set()
        await self._over.wait()
        await server.stop(None)
