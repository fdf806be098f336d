"""Makes `support` importable, and lets no property test fail because the machine was busy."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))

settings.register_profile("house", deadline=None)
settings.load_profile("house")
