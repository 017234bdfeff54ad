"""Every error a caller can meet.

::

    BasisBtError
    ├── ConfigError   a configuration that means nothing: refused before any data is read   (exit code 2)
    ├── QueryError    SQL that may not run                                                  (exit code 2)
    │   └── QueryLimitError   SQL that ran out of time or memory                            (exit code 1)
    ├── DataError     market data that cannot be trusted, with file, column, row and remedy (exit code 1)
    ├── SignalError   a signal that fails or looks into the future                          (exit code 1)
    ├── KernelError   a trial that ended in a status other than ``ok``                      (exit code 1)
    ├── BooksError    a run whose books do not balance                                      (exit code 1)
    └── StoreError    a run folder that is missing, taken, damaged or not ours              (exit code 1)
"""

from collections.abc import Mapping
from typing import Any


class BasisBtError(Exception):
    """What was wrong, where, and what to do about it.

    Parameters
    ----------
    what : the finding, with the offending value and how often it occurs
    where : facts that locate it (file, column, row, ts, key); also attributes of the error as ``error.where``
    fix : what the reader can do
    """

    exit_code = 1

    def __init__(self, what: str, *, where: Mapping[str, Any] | None = None, fix: str = "") -> None:
        self.what = what
        self.where = dict(where or {})
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append("  where: " + ", ".join(f"{key}={value}" for key, value in self.where.items()))
        if self.fix:
            lines.append("  fix: " + self.fix)
        return "\n".join(lines)


class ConfigError(BasisBtError):
    """A configuration that is refused before any data is read."""

    exit_code = 2


class QueryError(BasisBtError):
    """SQL that may not run."""

    exit_code = 2


class QueryLimitError(QueryError):
    """SQL that did not finish within its time or memory."""

    exit_code = 1


class DataError(BasisBtError):
    """Market data that cannot be trusted."""


class SignalError(BasisBtError):
    """A signal that cannot be evaluated, or that uses the future."""


class KernelError(BasisBtError):
    """A trial that could not be carried through; names the status and the bar."""


class BooksError(BasisBtError):
    """The change of equity is not the sum of its parts."""


class StoreError(BasisBtError):
    """A run folder that is missing, already taken, damaged, or not written by ``basis_bt``."""
