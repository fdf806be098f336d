"""Free memory is what the machine and every limit around the process leave; own memory is what the process holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headworks_server.runtime import memory

KIB, MIB = 1 << 10, 1 << 20


class Kernel:
    """The kernel's tables, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroups = folder / "proc", folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.cgroups.mkdir()
        self.available(1_000)
        self.own("0::/")

    def available(self, mib: int) -> None:
        (self.proc / "meminfo").write_text(f"MemTotal: {16_000 * KIB} kB\nMemAvailable: {mib * KIB} kB\n")

    def own(self, *lines: str) -> None:
        (self.proc / "self" / "cgroup").write_text("\n".join(lines) + "\n")

    def limit_v2(self, path: str, most: int | str, used: int, *, inactive: int = 0) -> None:
        group = self.cgroups / path
        group.mkdir(parents=True, exist_ok=True)
        (group / "memory.max").write_text(f"{most if isinstance(most, str) else most * MIB}\n")
        (group / "memory.current").write_text(f"{used * MIB}\n")
        (group / "memory.stat").write_text(f"anon 7\ninactive_file {inactive * MIB}\n")

    def limit_v1(self, path: str, most: int, used: int, *, inactive: int = 0) -> None:
        group = self.cgroups / "memory" / path
        group.mkdir(parents=True, exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(f"{most * MIB}\n")
        (group / "memory.usage_in_bytes").write_text(f"{used * MIB}\n")
        (group / "memory.stat").write_text(f"inactive_file 0\ntotal_inactive_file {inactive * MIB}\n")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A machine of which 1,000 MiB are available."""
    tables = Kernel(tmp_path)
    monkeypatch.setattr(memory, "PROC", tables.proc)
    monkeypatch.setattr(memory, "CGROUPS", tables.cgroups)
    return tables


def free_mib() -> float:
    """Free memory in MiB."""
    return memory.free_memory_bytes() / MIB


def test_without_limits_it_is_what_the_kernel_calls_available(kernel: Kernel) -> None:
    """No cgroup files at all, or a limit that says "max"."""
    assert free_mib() == 1_000
    kernel.limit_v2("", "max", 300)
    assert free_mib() == 1_000


def test_limit_of_a_container_counts(kernel: Kernel) -> None:
    """Cgroup v2, where the container sees its own group as the root."""
    kernel.limit_v2("", 500, 200)
    assert free_mib() == 300


def test_limit_above_what_is_available_does_not(kernel: Kernel) -> None:
    """The machine has not more than it has."""
    kernel.limit_v2("", 5_000, 200)
    assert free_mib() == 1_000


def test_every_limit_around_the_process_counts(kernel: Kernel) -> None:
    """A service's own limit may be wide, and that of the slice around it tight."""
    kernel.own("0::/headworks.slice/one.service")
    kernel.limit_v2("headworks.slice", 400, 350)
    kernel.limit_v2("headworks.slice/one.service", 300, 10)
    assert free_mib() == 50
    kernel.limit_v2("headworks.slice", 900, 350)
    assert free_mib() == 290


def test_files_that_were_read_once_are_not_held(kernel: Kernel) -> None:
    """The page cache of models just read is dropped before memory is refused."""
    kernel.limit_v2("", 500, 480, inactive=400)
    assert free_mib() == 420


def test_old_cgroups_count_too(kernel: Kernel) -> None:
    """Version 1, with the process's group visible, and with only its own root."""
    kernel.own("5:cpu,cpuacct:/elsewhere", "4:memory:/docker/abc", "0::/")
    kernel.limit_v1("", 1 << 43, 900)
    kernel.limit_v1("docker/abc", 600, 500, inactive=20)
    assert free_mib() == 120
    kernel.own("4:memory:/not/mounted/here")
    kernel.limit_v1("", 700, 100)
    assert free_mib() == 600


def test_full_container_has_nothing_left(kernel: Kernel) -> None:
    """Use above the limit is possible for a moment, and is not a negative budget."""
    kernel.limit_v2("", 100, 130)
    assert free_mib() == 0


def test_this_machine_has_memory() -> None:
    """The real tables can be read."""
    assert memory.free_memory_bytes() > 0


def test_own_memory_grows_with_what_is_held_and_shrinks_when_it_is_released() -> None:
    """64 MiB that are written, then freed."""
    memory.release_freed_memory()
    before = memory.private_bytes()
    held = np.ones(64 * MIB, np.uint8)
    assert memory.private_bytes() - before > 60 * MIB
    del held
    memory.release_freed_memory()
    assert memory.private_bytes() - before < 32 * MIB


IN_A_THREAD = """
import ctypes, threading
from headworks_server.runtime.allocator import raise_malloc_thresholds
from headworks_server.runtime.memory import private_bytes, release_freed_memory
raise_malloc_thresholds()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
def work():
    before = private_bytes()
    blocks = [libc.malloc(1 << 20) for _ in range(40)]
    for block in blocks:
        ctypes.memset(block, 1, 1 << 20)
    for block in blocks:
        libc.free(block)
    kept = private_bytes() - before
    release_freed_memory()
    print(kept, private_bytes() - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def test_what_a_thread_has_freed_is_given_back() -> None:
    """`malloc_trim` alone leaves the top of its heap, in which a load's memory lies."""
    run = subprocess.run([sys.executable, "-c", IN_A_THREAD], capture_output=True, text=True, check=True)
    kept, left = map(int, run.stdout.split())
    assert kept > 30 << 20, "the allocator keeps it at first"
    assert left < 4 << 20
