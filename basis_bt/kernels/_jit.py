"""The one place that says how kernels are compiled and where the machine code is kept.

The folder of the cache carries a hash of *all* kernel sources and the bounds-check flag: numba itself looks only at
the file of the function called, so that an edited callee would go on returning yesterday's numbers.
"""

import functools
import hashlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core import config as numba_config

F = TypeVar("F", bound=Callable)

config: Any = numba_config  # its attributes are made at import, from the environment


def source_hash(folder: Path) -> str:
    """Hash of all sources of a folder with what else decides the machine code: numba, Python, bounds checks."""
    digest = hashlib.sha256(f"{numba.__version__} {config.BOUNDSCHECK} {sys.version}".encode())
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _cache_root() -> Path:
    if "BASIS_BT_CACHE" in os.environ:
        return Path(os.environ["BASIS_BT_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "basis_bt"


def _cache_folder() -> Path:
    folder = _cache_root() / f"kernels-{source_hash(Path(__file__).parent)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        fallback = Path(tempfile.gettempdir()) / f"basis_bt-{os.getuid()}" / folder.name
        fallback.mkdir(parents=True, exist_ok=True, mode=0o700)
        warnings.warn(
            f"compiled kernels cannot be kept in {folder} ({error.strerror}); using {fallback}",
            RuntimeWarning,
            stacklevel=2,
        )
        return fallback
    return folder


CACHE_FOLDER = _cache_folder()


def is_compiled() -> bool:
    """Whether this version of the kernels has been compiled before, or needs no compiling."""
    return bool(config.DISABLE_JIT) or next(CACHE_FOLDER.rglob("*run_trial-*.nbc"), None) is not None


def kernel(function: F) -> F:
    """Compile a kernel: plain arithmetic that equals a Python loop to the last bit, cached on disk."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(CACHE_FOLDER)
    try:
        compiled: Any = numba.njit(error_model="numpy", fastmath=False, cache=True, nogil=True)(function)
        return compiled
    finally:
        config.CACHE_DIR = before


def inner_kernel(function: F) -> F:
    """A kernel that only kernels call, without what Python would call it by: that takes long to compile for structs."""
    options: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    compiled: Any = numba.njit(error_model="numpy", fastmath=False, **options)(function)
    return compiled


def inlined_kernel(function: F) -> F:
    """An inner kernel that becomes part of its caller: no struct is handed over, so none of its arrays is counted."""
    options: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True}
    compiled: Any = numba.njit(error_model="numpy", fastmath=False, **options)(function)
    return compiled


def wrapping_kernel(function: F) -> F:
    """A kernel whose unsigned integers wrap around; with the compiler off, numpy is told not to warn of it."""
    compiled = kernel(function)
    if not config.DISABLE_JIT:
        return compiled

    @functools.wraps(function)
    def quiet(*args: Any) -> Any:
        with np.errstate(over="ignore"):
            return compiled(*args)

    plain: Any = quiet
    return plain
