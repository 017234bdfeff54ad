"""Everything that has to pass: lint, types, and the tests compiled, with bounds checks, and with the compiler off."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTEST = [sys.executable, "-m", "pytest"]
STEPS = (
    ("lint", [sys.executable, "-m", "ruff", "check", "."], {}),
    ("types", [sys.executable, "-m", "mypy"], {}),
    ("tests with bounds checks", PYTEST, {"NUMBA_BOUNDSCHECK": "1"}),
    ("tests with the compiler off", PYTEST, {"NUMBA_DISABLE_JIT": "1"}),
    ("tests", PYTEST, {}),
)


def main() -> int:
    """Run the steps in order; returns the exit code of the first that fails, with the name of the step."""
    with tempfile.TemporaryDirectory(prefix="basis_bt-cache-") as cache:
        for name, command, extra in STEPS:
            started = time.perf_counter()
            print(f"== {name}", flush=True)
            code = subprocess.call(command, cwd=ROOT, env=os.environ | {"BASIS_BT_CACHE": cache} | extra)
            print(
                f"== {name}: {'ok' if code == 0 else f'failed ({code})'}, {time.perf_counter() - started:.0f} s",
                flush=True,
            )
            if code:
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
