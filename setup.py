"""Builds headworks_native. Metadata lives in pyproject.toml.

Environment: HEADWORKS_SANITIZE=thread|address builds with that sanitizer, HEADWORKS_ONLY=wire,lane
builds just those modules. No CUDA toolkit, header or GPU is needed.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path("ext/headworks_native")
MODULES = [path.stem for path in sorted(ROOT.glob("*.pyx"))]

sanitizer = os.environ.get("HEADWORKS_SANITIZE", "")
only = [name for name in os.environ.get("HEADWORKS_ONLY", "").split(",") if name]

flags = ["-std=c++20", "-O3", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-function"]
links = ["-pthread"]
if sanitizer:
    flags += [f"-fsanitize={sanitizer}", "-g", "-O1", "-fno-omit-frame-pointer"]
    links += [f"-fsanitize={sanitizer}"]

extensions = [
    Extension(
        f"headworks_native.{name}",
        [str(ROOT / f"{name}.pyx")],
        include_dirs=[str(ROOT / "src")],
        depends=[str(path) for path in (ROOT / "src").glob("*.hpp")],
        language="c++",
        extra_compile_args=flags,
        extra_link_args=links,
    )
    for name in MODULES
    if not only or name in only
]

setup(
    ext_modules=cythonize(
        extensions,
        include_path=["ext"],
        build_dir=f"build/cython{'-' + sanitizer if sanitizer else ''}",
        compiler_directives={
            "language_level": 3,
            "binding": True,
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            "embedsignature": True,
        },
    )
)
