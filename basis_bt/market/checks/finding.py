"""What is wrong with a series: findings, each with its place, its remedy, and what the clean mode does about it.

``strict`` (the default) refuses every finding but a note. ``clean`` carries out the repair of those that have one and
counts it; it never invents a value: a bad bar is taken out and becomes a hole, like one the venue never sent.

==========  =============================================================================================
repair      what clean mode does
==========  =============================================================================================
mask        the bar is taken out: it is in the run, not tradable, its price is stale
drop        rows that repeat another in every column, or stand in the future, are left out
sort        the rows are put in order of their stamps
accept      nothing can be repaired (missing settlements); the run goes on and what is at stake is stated
none        refused in both modes: no rule says what the right value is
note        refused in neither: a fact of the venue, such as an outage
==========  =============================================================================================
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from basis_bt.core.errors import DataError
from basis_bt.core.units import from_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found: which rule, in which rows, what clean mode does about it (see the module), and the remedy."""

    rule: str
    repair: str
    what: str
    fix: str
    column: str = "ts"
    rows: int = 0
    first_row: int | None = None
    first_us: int | None = None

    def refused(self, mode: str) -> bool:
        """Whether a run in this mode ends here."""
        return self.repair == "none" or (mode == "strict" and self.repair != "note")

    @property
    def first_ts(self) -> str | None:
        """Stamp of the first bad row, ISO 8601; the bare microseconds where no calendar has them."""
        return None if self.first_us is None else instant_text(self.first_us)

    def error(self, path: Any) -> DataError:
        """The finding as an error about a file."""
        count = f" ({count_of(self.rows, 'row')})" if self.rows else ""
        where: dict[str, Any] = {"file": path, "column": self.column}
        if self.rows:
            where |= {"row": self.first_row, "ts": self.first_ts}
        return DataError(self.what + count, where=where, fix=self.fix)

    def manifest_row(self, series: Any) -> dict[str, Any]:
        """The finding for manifests and reports."""
        return {
            "series": str(series),
            "rule": self.rule,
            "repair": self.repair,
            "rows": self.rows,
            "first_row": self.first_row,
            "first_ts": self.first_ts,
            "sentence": self.what,
        }


def refuse(findings: Iterable[Finding], *, mode: str, path: Any) -> None:
    """Raise the first finding that a run in this mode does not survive; clean advice is added where it exists."""
    for finding in findings:
        if finding.refused(mode):
            error = finding.error(path)
            if finding.repair != "none":
                fix = f'{finding.fix}; or run with data.checks = "clean"'
                error = DataError(error.what, where=error.where, fix=fix)
            raise error


def instant_text(us: int) -> str:
    """An instant as ISO 8601, or as epoch microseconds if it is out of every calendar."""
    try:
        return from_us(us).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{us} us"


def found(
    bad: np.ndarray,
    ts_us: np.ndarray,
    *,
    rule: str,
    repair: str,
    what: str,
    fix: str,
    column: str = "ts",
    first_row: int = 0,
) -> Finding:
    """The finding about the rows of a mask; ``first_row`` is where the rows begin in their file."""
    row = int(np.argmax(bad))
    return Finding(
        rule=rule,
        repair=repair,
        what=what,
        fix=fix,
        column=column,
        rows=int(bad.sum()),
        first_row=first_row + row,
        first_us=int(ts_us[row]),
    )


def count_of(number: int, noun: str) -> str:
    """``1 hole``, ``2 holes``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def longest_run(flags: np.ndarray) -> tuple[int, int]:
    """Length and start of the longest run of true flags; some flag must be true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    lengths = edges[1::2] - edges[::2]
    longest = int(np.argmax(lengths))
    return int(lengths[longest]), int(edges[2 * longest])
