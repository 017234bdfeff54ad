"""Reading series from a market folder: the rows asked for, and the findings about them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.market.checks import Finding, hole_findings, refuse, stamp_findings, value_findings
from basis_bt.market.loading import load, series_files
from basis_bt.market.schemas import SeriesKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series read: its rows within the range asked for, and facts of its whole file.

    ``first_us`` and ``last_us`` are the span of the file, ``step_us`` the step of its bars (None for other series and
    under two rows), in epoch microseconds; ``first_row`` is where the rows begin in the file; ``findings`` are what was
    found and, in clean mode, repaired.
    """

    key: SeriesKey
    path: Path
    frame: pl.DataFrame
    first_us: int
    last_us: int
    step_us: int | None
    first_row: int
    findings: list[Finding]
    sha256: str

    def manifest_row(self) -> dict[str, Any]:
        """Where the series came from, for manifests: path, hash of the bytes, rows used and their span."""
        ts = self.frame["ts"]
        return {
            "instrument": self.key.instrument,
            "series": self.key.series,
            "path": str(self.path),
            "sha256": self.sha256,
            "rows": self.frame.height,
            "first": ts[0].isoformat() if len(ts) else None,
            "last": ts[-1].isoformat() if len(ts) else None,
        }


def file_hash(path: Path) -> str:
    """SHA-256 of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has_series(root: Path, key: SeriesKey) -> bool:
    """Whether the folder has the series, in one file, in parts or in a long file of many."""
    return bool(series_files(root, key))


def read_series(
    root: Path, key: SeriesKey, *, start_us: int | None = None, end_us: int | None = None, checks: str = "strict"
) -> Series:
    """The rows of a series with ``start <= ts < end``, checked, sorted by ``ts`` (microseconds, UTC).

    Rows before ``start`` are not read, but for the last bar before it where there is none at ``start``: its price is
    the one known then. Stamps are checked over the whole file, values over the rows read.

    Parameters
    ----------
    root : the market folder
    key : which series
    start_us, end_us : range in epoch microseconds; the whole file without them
    checks : ``strict`` or ``clean``; see ``market/checks.py``

    Raises
    ------
    DataError
        If the file is missing or unreadable, or a finding is refused in this mode.
    """
    series = examine(root, key, start_us=start_us, end_us=end_us)
    refuse(series.findings, mode=checks, path=series.path)
    return series


def examine(root: Path, key: SeriesKey, *, start_us: int | None = None, end_us: int | None = None) -> Series:
    """A series with every repair of the clean mode carried out, and all its findings, refused or not.

    Raises
    ------
    DataError
        Only for what leaves no rows to look at: a missing or unreadable file, wrong columns, null stamps.
    """
    loaded = load(root, key)
    path, ts_us, findings = loaded.path, loaded.ts_us, list(loaded.findings)
    of_stamps = list(stamp_findings(ts_us, key=key))
    for finding in of_stamps:
        if finding.repair == "drop" and finding.first_us is not None:
            ts_us = ts_us[: int(np.searchsorted(ts_us, finding.first_us))]
    findings += of_stamps
    if not len(ts_us):
        raise DataError("the file has no rows", where={"file": path}, fix="fetch the series again")
    first_us, last_us = int(ts_us[0]), int(ts_us[-1])
    step_us = int(np.diff(ts_us).min()) if key.spec.is_bars and len(ts_us) > 1 else None
    low = 0 if start_us is None else int(np.searchsorted(ts_us, start_us))
    high = len(ts_us) if end_us is None else int(np.searchsorted(ts_us, end_us))
    if start_us is not None and key.series != "funding" and low and (low >= high or ts_us[low] > start_us):
        low -= 1
    rows = loaded.rows(low, high)
    bad = np.zeros(len(rows), dtype=bool)
    for finding, of_rows in value_findings(rows, key=key, first_row=low):
        findings.append(finding)
        bad |= of_rows if finding.repair in ("mask", "drop") else False
    findings += hole_findings(ts_us[low:high], step_us=step_us, first_row=low)
    if bad.any():
        rows = rows.filter(~pl.Series(bad))
        good_us = ts_us[low:high][~bad]
        if not len(good_us):
            raise DataError(
                f"no usable row is left: all {len(bad)} are bad", where={"file": path}, fix="fetch the series again"
            )
        if key.spec.is_bars:
            first_us = int(good_us[0]) if low == 0 else first_us
            last_us = int(good_us[-1]) if high == len(ts_us) else last_us
    return Series(
        key=key, path=path, frame=rows, first_us=first_us, last_us=last_us, step_us=step_us,
        first_row=low, findings=findings, sha256=loaded.sha256,
    )  # fmt: skip
