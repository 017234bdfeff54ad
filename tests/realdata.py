"""Where the real market data lies, and what a test does without it: skip with a reason, but fail in CI."""

import os
from pathlib import Path

import pytest

REAL = Path(os.environ.get("BASIS_BT_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data" / "market"


def real_market() -> Path:
    """The real market folder; skips the test where it is missing, fails it in CI."""
    if REAL.is_dir():
        return REAL
    if os.environ.get("CI"):
        pytest.fail(f"CI needs the real market data at {REAL}")
    pytest.skip(f"the real market data is not at {REAL}; set BASIS_BT_SHARED to the folder that holds data/market")
