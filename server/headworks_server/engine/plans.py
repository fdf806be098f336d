"""Prepared models on disk: a folder of plans, each with a sidecar that says what it was made from and what it measured.

`preparation` writes and finds them, the composition root asks for their facts. A plan is used only if its key is the
very one asked for and every byte is as it was written; anything else is removed, counted and made again. Several
processes may share a folder: what is built lies under a name of its own until it is whole, a lock file is held only
for moments (while names are exchanged, never while a plan is built or read), and what a killed process left behind is
swept. A plan is a program that this process will run: the folder belongs to the server's user.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

import structlog

from headworks_server.clock import Clock
from headworks_server.errors import PlanError

Key = Mapping[str, Any]
Facts = Mapping[str, Any]

FORMAT: Final = 1  # of the sidecar; another one is a foreign plan
PLAN_NAME: Final = re.compile(r"([0-9a-f]{64})\.(plan|json)")
TEMPORARY_NAME: Final = re.compile(r"\.[0-9a-f]{64}\..*\.tmp")
LOCK_NAME: Final = ".lock"
LOCK_S: Final = 10.0  # holders need milliseconds: one that does not let go is stopped, and must not stop this process
LOCK_POLL_S: Final = 0.005
MAX_SIDECAR_BYTES: Final = 1 << 20

log = structlog.get_logger("headworks.plans")


@dataclass(frozen=True, slots=True)
class Plan:
    """One prepared model, verified when it was handed out.

    Attributes:
        path: the file; another process may remove it for room, so whoever opens it must be able to do without.
        size: bytes of the file.
        facts: what was measured of it.
    """

    path: Path
    size: int
    facts: Facts


class PlanStore:
    """A folder of plans. Its methods may be called by any thread.

    Attributes:
        folder: where they lie.
        rejected: how many were removed because they were not what they should be.
    """

    def __init__(self, folder: Path, *, max_bytes: int | None = None, clock: Clock = time.time_ns) -> None:
        """Take the folder, make it if need be, and sweep what a killed process left behind.

        Arguments:
            folder: an absolute path.
            max_bytes: of all plans and sidecars; beyond it the least recently found or written ones are removed.
            clock: nanoseconds since 1970, which are compared with the files' times.

        Raises:
            PlanError: it is no folder, cannot be written, or can be written by everybody.
        """
        self.folder = folder
        self.rejected = 0
        self._max_bytes = max_bytes
        self._clock = clock
        try:
            folder.mkdir(parents=True, exist_ok=True)
            mode = folder.stat().st_mode
            if mode & stat.S_IWOTH:
                raise PlanError(f"{folder}: expected a folder not everybody may write, got mode {mode & 0o777:o}")
            with self._lock(exclusive=True):
                self._sweep()
        except OSError as error:
            raise PlanError(f"{folder}: expected a folder for prepared models, got {_words(error)}") from error

    def find(self, key: Key) -> Plan | None:
        """The plan of this key, verified byte by byte: that costs a SHA-256 of the file.

        Raises:
            PlanError: the folder cannot be locked.
        """
        stem, text = _identify(key)
        with self._lock(exclusive=False):
            pair = _Pair(self.folder, stem)
        with pair:  # read without the lock: the open files stay what they are, whatever takes their names
            if pair.absent:
                return None
            try:
                sidecar = pair.verified(text)
            except _FlawError as flaw:
                self._reject(pair, flaw)
                return None
        path = self.folder / f"{stem}.plan"
        with suppress(OSError):  # gone for room, or read-only: it was whole all the same
            os.utime(path, ns=(self._clock(), self._clock()))
        return Plan(path, sidecar["size"], sidecar["facts"])

    def facts(self, key: Key) -> Facts | None:
        """What is known of this key's plan, without reading the plan itself: enough for an estimate.

        Raises:
            PlanError: the folder cannot be locked.
        """
        stem, text = _identify(key)
        with self._lock(exclusive=False), _Pair(self.folder, stem) as pair, suppress(_FlawError):
            facts: Facts = pair.sidecar(text)["facts"]
            return facts
        return None

    def write(self, key: Key, build: Callable[[Path], Facts]) -> Plan:
        """Build a plan and keep it in place of an earlier one of this key.

        Arguments:
            key: what the plan is made from, in JSON's types.
            build: writes the file at the path it is given, an empty file in the folder, and returns its facts.

        Raises:
            PlanError: it could not be built or kept, or is larger than all plans may be. Nothing is left behind, and
                a PlanError of `build` is passed on as it is.
        """
        stem, text = _identify(key)
        target = self.folder / f"{stem}.plan"
        try:
            with self._temporary(stem) as temporary:
                facts = dict(build(temporary))
                size, sha256 = _settle(temporary, target)
                self._check_room(target, size)
                sidecar = {"format": FORMAT, "key": json.loads(text), "size": size, "sha256": sha256}
                sidecar |= {"created": datetime.fromtimestamp(self._clock() / 1e9, UTC).isoformat(), "facts": facts}
                content = _written(sidecar)  # before anything is exchanged: facts may be no JSON
                with self._lock(exclusive=True):
                    self._publish(stem, temporary, content)
                    self._trim(keep=stem)
        except PlanError:
            raise
        except OSError as error:
            raise PlanError(f"{target}: expected room and leave to keep a plan, got {_words(error)}") from error
        except Exception as error:
            raise PlanError(f"{target}: expected a plan to be built, got {_words(error)}") from error
        return Plan(target, size, json.loads(content)["facts"])

    def remember(self, key: Key, facts: Facts) -> bool:
        """Add facts to a plan's, or replace those of the same name; false where there is no such plan.

        Raises:
            PlanError: the sidecar could not be written; the earlier one stays.
        """
        stem, text = _identify(key)
        path = self.folder / f"{stem}.json"
        try:
            with self._lock(exclusive=True), _Pair(self.folder, stem) as pair:
                sidecar = pair.sidecar(text)
                content = _written(sidecar | {"facts": {**sidecar["facts"], **facts}})
                with self._staged(stem, content) as staged:
                    os.replace(staged, path)
                    _sync_folder(self.folder)
        except _FlawError:
            return False
        except (OSError, TypeError, ValueError) as error:
            raise PlanError(f"{path}: expected facts to be kept, got {_words(error)}") from error
        return True

    def discard(self, key: Key) -> None:
        """Remove the plan of this key, where there is one: the runtime would not have it, though it is whole.

        Raises:
            PlanError: the folder cannot be locked.
        """
        stem, _ = _identify(key)
        with self._lock(exclusive=True):
            self._remove(stem)

    @property
    def used_bytes(self) -> int:
        """Bytes of all plans and sidecars."""
        return sum(size for _, size in self._entries().values())

    def _reject(self, pair: _Pair, flaw: _FlawError) -> None:
        """Remove a pair that is not what it should be, unless another process has replaced it meanwhile."""
        with self._lock(exclusive=True), _Pair(self.folder, pair.stem) as current:
            if current.identity != pair.identity:
                return
            self._remove(pair.stem)
            self.rejected += 1
        log.warning("plan_rejected", path=str(self.folder / f"{pair.stem}.plan"), flaw=str(flaw))

    @contextmanager
    def _temporary(self, stem: str) -> Iterator[Path]:
        """An empty file to build into. It is locked for as long as it is wanted, so that others do not sweep it."""
        with self._lock(exclusive=True):
            self._sweep()
            number, name = tempfile.mkstemp(prefix=f".{stem}.", suffix=".tmp", dir=self.folder)
            fcntl.flock(number, fcntl.LOCK_EX)
        path = Path(name)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
            os.close(number)

    def _check_room(self, target: Path, size: int) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            raise PlanError(f"{target}: expected a plan of at most {self._max_bytes} bytes, got {size}")

    def _publish(self, stem: str, temporary: Path, sidecar: bytes) -> None:
        """Exchange the names, the sidecar's last; a crash in between leaves a pair that `find` rejects."""
        with self._staged(stem, sidecar) as staged:
            try:
                os.replace(temporary, self.folder / f"{stem}.plan")
                os.replace(staged, self.folder / f"{stem}.json")
                _sync_folder(self.folder)
            except BaseException:
                self._remove(stem)
                raise

    @contextmanager
    def _staged(self, stem: str, content: bytes) -> Iterator[Path]:
        """A small file, whole and on the disk, to be renamed; under the folder's lock, so nobody sweeps it."""
        number, name = tempfile.mkstemp(prefix=f".{stem}.", suffix=".tmp", dir=self.folder)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _trim(self, *, keep: str) -> None:
        """Remove the least recently used plans beyond the bound; the one just written is not among them."""
        if self._max_bytes is None:
            return
        entries = self._entries()
        total = sum(size for _, size in entries.values())
        for stem in sorted(entries, key=lambda stem: entries[stem]):
            if total <= self._max_bytes:
                return
            if stem != keep:
                self._remove(stem)
                total -= entries[stem][1]
                log.info("plan_removed", path=str(self.folder / f"{stem}.plan"), max_bytes=self._max_bytes)

    def _entries(self) -> dict[str, tuple[int, int]]:
        """(last use in nanoseconds, bytes) of every plan."""
        entries: dict[str, tuple[int, int]] = {}
        for name, status in self._files():
            match = PLAN_NAME.fullmatch(name)
            if match:
                used_ns, size = entries.get(match[1], (0, 0))
                used_ns = status.st_mtime_ns if match[2] == "plan" else used_ns
                entries[match[1]] = (used_ns, size + status.st_size)
        return entries

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        for name in os.listdir(self.folder):
            with suppress(FileNotFoundError):
                yield name, os.lstat(self.folder / name)

    def _sweep(self) -> None:
        """Remove what nobody is building any more, and halves of pairs: only a killed process leaves them."""
        names = {name for name, _ in self._files()}
        for name in names:
            match = PLAN_NAME.fullmatch(name)
            half = match and f"{match[1]}.{'json' if match[2] == 'plan' else 'plan'}" not in names
            if half or (TEMPORARY_NAME.fullmatch(name) and not _is_locked(self.folder / name)):
                with suppress(OSError):
                    os.unlink(self.folder / name)

    def _remove(self, stem: str) -> None:
        for kind in ("json", "plan"):  # a plan without its sidecar is never used
            with suppress(OSError):
                os.unlink(self.folder / f"{stem}.{kind}")

    @contextmanager
    def _lock(self, *, exclusive: bool) -> Iterator[None]:
        """Hold the folder's lock; threads of one process are held apart as well, each by a file of its own."""
        path = self.folder / LOCK_NAME
        kind = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB
        try:
            number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
        except OSError as error:
            raise PlanError(f"{path}: expected a lock file, got {_words(error)}") from error
        try:
            deadline = time.monotonic() + LOCK_S
            while True:
                try:
                    fcntl.flock(number, kind)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise PlanError(f"{path}: expected to be held for moments, got {LOCK_S:g} s") from None
                    time.sleep(LOCK_POLL_S)
            yield
        finally:
            os.close(number)


class _FlawError(Exception):
    """What is wrong with a pair of files."""


class _Pair:
    """The two files of one stem, opened at one moment; nothing is believed of them."""

    def __init__(self, folder: Path, stem: str) -> None:
        self.stem = stem
        paths = [folder / f"{stem}.plan", folder / f"{stem}.json"]
        # Of what bears the names, whether it can be opened or not.
        self.identity = [_identity(path) for path in paths]
        self._plan, self._sidecar = [_open_plain(path) for path in paths]

    @property
    def absent(self) -> bool:
        """There is neither."""
        return self.identity == [None, None]

    def sidecar(self, key_text: str) -> dict[str, Any]:
        """The sidecar's content, if it is of this key and the plan has its size."""
        if isinstance(self._sidecar, OSError):
            raise _FlawError(f"its sidecar: {_words(self._sidecar)}")
        try:
            sidecar = json.loads(self._sidecar.read(MAX_SIDECAR_BYTES))
            key, size, sha256, facts = (sidecar[name] for name in ("key", "size", "sha256", "facts"))
            fits = sidecar["format"] == FORMAT and _canonical(key) == key_text
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise _FlawError(f"its sidecar: {_words(error)}") from error
        if not (fits and isinstance(size, int) and isinstance(sha256, str) and isinstance(facts, dict)):
            raise _FlawError("the sidecar of another key")
        plan = self.identity[0]
        if plan is None or plan[1] != size:
            raise _FlawError(f"{plan[1] if plan else 'no'} bytes, not {size}")
        return dict(sidecar)

    def verified(self, key_text: str) -> dict[str, Any]:
        """The sidecar's content, if it is of this key and every byte of the plan is as it was written."""
        sidecar = self.sidecar(key_text)
        if isinstance(self._plan, OSError):
            raise _FlawError(_words(self._plan))
        try:
            sha256 = hashlib.file_digest(self._plan, "sha256").hexdigest()
        except OSError as error:
            raise _FlawError(_words(error)) from error
        if sha256 != sidecar["sha256"]:
            raise _FlawError("other bytes than were written")
        return sidecar

    def __enter__(self) -> _Pair:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._plan, self._sidecar):
            if not isinstance(file, OSError):
                file.close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size


def _open_plain(path: Path) -> BufferedReader | OSError:
    """Open a plain file, or say why not: a link may lead anywhere, and a pipe would be waited for."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return error
    if stat.S_ISREG(os.fstat(number).st_mode):
        return os.fdopen(number, "rb")
    os.close(number)
    return OSError("no plain file")


def _identify(key: Key) -> tuple[str, str]:
    """The stem of a key's files, and the key as it is compared."""
    text = _canonical(key)
    return hashlib.sha256(text.encode()).hexdigest(), text


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _written(sidecar: Mapping[str, Any]) -> bytes:
    return json.dumps(sidecar, indent=2, allow_nan=False).encode() + b"\n"


def _settle(path: Path, target: Path) -> tuple[int, str]:
    """Size and SHA-256 of what was built, once it is on the disk: that is where a full one is told."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise PlanError(f"{target}: expected a plan to be built, got an empty file")
        return size, hashlib.file_digest(file, "sha256").hexdigest()


def _is_locked(path: Path) -> bool:
    """Whether someone is still building into this file."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(number)
    return False


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _words(error: Exception) -> str:
    """An exception's own words, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
