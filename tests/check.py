"""Everything that has to pass: lint, types, all tests, and those that reach the kernels twice more.

Once with bounds checks on, since a bad index would read junk without a word, and once with the compiler off, since
plain Python must give the same numbers.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTEST = [sys.executable, "-m", "pytest"]
REACHES_KERNELS = re.compile(r"kernels|bridge|basis_bt\.run\(")
# thousands of trials each: too long without the compiler, and test_plain compares their kernel with the whole trial
MANY_TRIALS = {
    f"test_{name}.py" for name in ("economics", "luck", "notebooks", "sweep", "sweep_reliability")
}  # fmt: skip
KERNEL_TESTS = [
    str(path.relative_to(ROOT))
    for path in sorted((ROOT / "tests").glob("test_*.py"))
    if path.name not in MANY_TRIALS and REACHES_KERNELS.search(path.read_text(encoding="utf-8"))
]
STEPS = (
    ("lint", [sys.executable, "-m", "ruff", "check", "."], {}),
    ("types", [sys.executable, "-m", "mypy"], {}),
    ("tests", PYTEST, {}),
    ("tests of kernels with bounds checks", [*PYTEST, *KERNEL_TESTS], {"NUMBA_BOUNDSCHECK": "1"}),
    ("tests of kernels with the compiler off", [*PYTEST, *KERNEL_TESTS], {"NUMBA_DISABLE_JIT": "1"}),
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
