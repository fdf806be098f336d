"""Makes `support` importable, and lets no property test fail because the machine was busy."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import settings

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's core would write past the capture, between the dots
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))

settings.register_profile("house", deadline=None)
settings.load_profile("house")
