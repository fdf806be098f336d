"""Builds and runs things under ThreadSanitizer and AddressSanitizer: tests/native/ring_stress.cpp, and the extension.

Used by tests/native/test_sanitizers.py (seconds) and tests/native/sanitize.py (`make sanitize`, as long as you like).
Outputs live under build/sanitize, the stress binaries named by a hash of their sources, so they are compiled once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "sanitize"
SOURCE = ROOT / "tests" / "native" / "ring_stress.cpp"
HEADERS = ROOT / "ext" / "headworks_native" / "src"
FLAGS = ["-std=c++20", "-O1", "-g", "-Wall", "-Wextra", "-pthread", "-fno-omit-frame-pointer"]
KINDS = {
    "plain": [],
    "thread": ["-fsanitize=thread"],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "planted": ["-fsanitize=thread", "-DPLANTED_RACE"],
}
FOUND = 66  # ThreadSanitizer's exit status after a report


def compile_stress(kind: str) -> Path:
    """The stress test built as one of KINDS; raises CalledProcessError when it does not compile."""
    digest = hashlib.sha256(repr([FLAGS, KINDS[kind]]).encode())
    for path in [SOURCE, *sorted(HEADERS.glob("*.hpp"))]:
        digest.update(path.read_bytes())
    binary = BUILD / f"ring_stress-{kind}-{digest.hexdigest()[:16]}"
    if not binary.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        fresh = binary.with_suffix(f".{os.getpid()}")
        command = [os.environ.get("CXX", "g++"), *FLAGS, *KINDS[kind], f"-I{HEADERS}", SOURCE, "-o", fresh]
        subprocess.run(command, check=True)
        fresh.replace(binary)
    return binary


def run_stress(kind: str, *, seconds: float, seed: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run the stress test; its output begins with the seed."""
    command = [str(compile_stress(kind)), str(seconds), *([] if seed is None else [str(seed)])]
    return _run(command, limit_s=seconds * 10 + 60, env=dict(os.environ))


def run_lane_tests(*, planted: bool = False) -> subprocess.CompletedProcess[str]:
    """Build the extension with ThreadSanitizer, apart from the usual build, and run the lanes' tests with it.

    No suppressions: the interpreter's own accesses are not instrumented, and what is, is ours. Without capture (-s),
    so that reports reach stderr.
    """
    target = BUILD / ("planted" if planted else "thread")
    build = ["setup.py", "-q", "build_ext", "--build-lib", str(target), "--build-temp", str(target / "tmp")]
    only_lane = {**os.environ, "HEADWORKS_SANITIZE": "thread", "HEADWORKS_ONLY": "lane,ring,sleeping"}
    only_lane["CXXFLAGS"] = "-DPLANTED_RACE" if planted else ""
    subprocess.run([sys.executable, *build], check=True, capture_output=True, cwd=ROOT, env=only_lane)
    shutil.copy(ROOT / "ext" / "headworks_native" / "__init__.py", target / "headworks_native")
    library = subprocess.run(["g++", "-print-file-name=libtsan.so"], check=True, capture_output=True, text=True)
    env = {
        **os.environ,
        "LD_PRELOAD": library.stdout.strip(),
        "PYTHONPATH": os.pathsep.join(map(str, [target, ROOT / "server", ROOT / "clients" / "python"])),
        "PYTHONMALLOC": "malloc",  # so that the sanitizer sees each object's memory come and go
    }
    tests = [str(ROOT / "tests" / "native" / f"test_{noun}.py") for noun in ("lane", "ring_shell", "sleeping")]
    options = ["-p", "no:cacheprovider", "-s", "--timeout=600"]
    return _run([sys.executable, "-m", "pytest", *options, *tests], limit_s=900, env=env)


def _run(command: list[str], *, limit_s: float, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    def once(prefix: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*prefix, *command], capture_output=True, text=True, timeout=limit_s, env=env, cwd=ROOT)

    result = once([])
    if "unexpected memory mapping" in result.stderr and (setarch := shutil.which("setarch")):
        # Older sanitizers do not cope with the widest address randomisation of newer kernels.
        result = once([setarch, "-R"])
    return result
