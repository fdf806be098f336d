"""Keeps what is served equal to what lies in the folder of models, while the server runs.

`app` runs one `ModelWatcher` where `watch_seconds` asks for it. A model that appears is loaded beside the others and
served; one whose files change is loaded beside the old one, and the streams move to it; one that disappears takes no
new streams. A model that cannot be served is refused with a log line, and what served under its name goes on.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import structlog

from headworks_server.config import Settings
from headworks_server.errors import ServerError
from headworks_server.hosting.cpu import CpuHost

Print: TypeAlias = tuple[tuple[str, int, int], ...]
"""(path, size, time of the last change) of each file of a model."""

log = structlog.get_logger("headworks.models")


class ModelWatcher:
    """Compares the folder with what was loaded from it.

    Arguments:
        settings: where the models are, and how often to look.
        host: where they are served.
        loaded: the files it was loaded from, as `take_prints` tells them.
    """

    def __init__(self, settings: Settings, host: CpuHost, *, loaded: dict[str, Print]) -> None:
        assert settings.models is not None
        self._settings = settings
        self._root = settings.models
        self._host = host
        self._loaded = dict(loaded)
        # A change counts when two looks find the same: nobody wants half of a file that is being copied.
        self._seen = dict(loaded)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.watch_seconds)
            await self.look()

    async def look(self) -> None:
        """Look once, and do what follows from it."""
        loop = asyncio.get_running_loop()
        try:
            prints = await loop.run_in_executor(None, take_prints, self._root)
        except OSError as error:
            log.warning("models_unreadable", folder=str(self._root), detail=str(error))
            return
        for name in sorted(prints.keys() | self._loaded.keys()):
            now = prints.get(name)
            if now != self._loaded.get(name) and now == self._seen.get(name):
                await self._change(name, now)
        self._seen = prints

    async def _change(self, name: str, files: Print | None) -> None:
        if files is None:
            del self._loaded[name]
            if name in self._host.models:
                self._host.withdraw(name)
            return
        self._loaded[name] = files  # also where it is refused: it is tried again when it changes
        with suppress(ServerError):  # the host tells
            await self._host.swap(name)


def take_prints(root: Path) -> dict[str, Print]:
    """Size and time of every file of every model in a folder.

    Raises:
        OSError: the folder cannot be read.
    """
    return {
        folder.name: tuple(
            (str(file.relative_to(folder)), status.st_size, status.st_mtime_ns)
            for file in sorted(folder.rglob("*"))
            if file.is_file() and (status := file.stat())
        )
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    }
