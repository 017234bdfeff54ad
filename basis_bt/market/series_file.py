"""One series that grows: rows of the venue on top of the rows of its file, and the spans the file was asked for.

Every write holds rows and spans together, so that whatever a kill leaves behind says exactly what is still to be asked.
"""

import io
from pathlib import Path

import numpy as np
import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.core.units import US_PER_HOUR
from basis_bt.market.intervals import settlement_intervals_hours
from basis_bt.market.schemas import TS, SeriesKey
from basis_bt.market.venue_history import Row
from basis_bt.market.write import covered_spans_us, own_hash_is_right, write_series

Span = tuple[int, int]
JITTER_MS = 1000
SETTLED_AFTER_US = US_PER_HOUR  # a row that is missing for longer will not come any more
VOLUME_TOLERANCE = 1e-9  # contracts times contract size and the venue's own base volume differ in the last bits


def joined(spans: list[Span]) -> list[Span]:
    """The same instants as sorted spans that neither touch nor overlap.

    >>> joined([(5, 9), (0, 2), (2, 4)])
    [(0, 4), (5, 9)]
    """
    result: list[Span] = []
    for first, last in sorted(span for span in spans if span[0] < span[1]):
        if result and first <= result[-1][1]:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return result


def left_over(wanted: Span, covered: list[Span]) -> list[Span]:
    """The parts of a span that no covered span holds.

    >>> left_over((0, 10), [(2, 4), (8, 12)])
    [(0, 2), (4, 8)]
    """
    parts, at = [], wanted[0]
    for first, last in joined(covered):
        if first > at:
            parts.append((at, min(first, wanted[1])))
        at = max(at, last)
    parts.append((at, wanted[1]))
    return [part for part in parts if part[0] < part[1]]


class SeriesFile:
    """Rows and covered spans of one series, on disk and not yet on disk.

    Raises
    ------
    DataError
        If the file that is there cannot be read, or its bytes are not those that were written.
    """

    def __init__(self, root: Path, key: SeriesKey) -> None:
        self.root, self.key, self.path = root, key, root / key.path
        self.frame = self._read()
        self.covered = covered_spans_us(self.path)
        self.rows_new = 0
        self._pending: list[Row] = []
        self._spans: list[Span] = []

    @property
    def last_us(self) -> int | None:
        """Stamp of the last row on disk, epoch microseconds."""
        return None if self.frame is None or self.frame.is_empty() else int(self.frame["ts"].to_physical().max())  # type: ignore[arg-type]

    def refuse_other_bars(self, step_us: int) -> None:
        """Check that bars on disk are as long as those that are to come.

        Raises
        ------
        DataError
            If they are longer or shorter: a file holds bars of one length.
        """
        if not self.key.spec.is_bars or self.frame is None or self.frame.height < 2:
            return
        found_us = int(self.frame["ts"].to_physical().diff().min())  # type: ignore[arg-type]
        if found_us != step_us:
            raise DataError(
                f"the file holds bars of {found_us / 3.6e9:g} hours, not of {step_us / 3.6e9:g}",
                where={"file": self.path},
                fix="give --bar as in the file, or another --root",
            )

    @property
    def n_pending(self) -> int:
        """Rows that wait for the next ``flush``."""
        return len(self._pending)

    def add(self, rows: list[Row], span_us: Span) -> None:
        """Keep rows, and that they are all there is in the span, for the next ``flush``."""
        self._pending += rows
        self._spans.append(span_us)

    def flush(self, *, now_us: int, bar_us: int) -> None:
        """Write what was added; within the last hour a span counts as asked up to its last row only.

        The venue may show its newest row late: what it did not show yet has to be asked again.

        Raises
        ------
        DataError
            If two rows of one stamp differ; nothing is written then.
        """
        rows, spans = self._pending, self._spans
        self._pending, self._spans = [], []
        if not spans:
            return
        frame = self._merged(self._frame_of(rows))
        step_us = bar_us if self.key.spec.is_bars else 1
        latest = (now_us - SETTLED_AFTER_US) // step_us * step_us
        if frame.height:
            latest = max(latest, int(frame["ts"].to_physical().max()) + step_us)  # type: ignore[arg-type]
        covered = joined([*self.covered, *((first, min(last, latest)) for first, last in spans)])
        if frame.height or covered:
            write_series(self.root, self.key, frame, covered_us=covered)
        self.rows_new += frame.height - (0 if self.frame is None else self.frame.height)
        self.frame, self.covered = frame, covered

    def _read(self) -> pl.DataFrame | None:
        if not self.path.is_file():
            return None
        data = self.path.read_bytes()
        where = {"file": self.path, "bytes": len(data)}
        if own_hash_is_right(data) is False:
            raise DataError("the file is damaged: its bytes are not those that were written", where=where,
                            fix="delete it and download again")  # fmt: skip
        try:
            frame = pl.read_parquet(io.BytesIO(data))
        except Exception as error:
            raise DataError(f"the file is no parquet file that can be read: {error}", where=where,
                            fix="move it away and download again") from error  # fmt: skip
        lacking = [name for name in self.key.spec.required if name not in frame.columns]
        if lacking or not isinstance(frame.schema["ts"], pl.Datetime):
            lack = ", ".join(lacking) or "a ts of instants"
            raise DataError(f"the file is no {self.key.series} series: it lacks {lack}", where=where,
                            fix="move it away and download again")  # fmt: skip
        columns = {name: dtype for name, dtype in self.key.spec.columns.items() if name in frame.columns}
        return frame.select(pl.col(name).cast(dtype) for name, dtype in columns.items())

    def _frame_of(self, rows: list[Row]) -> pl.DataFrame:
        names = ["rate", "mark_price"] if self.key.series == "funding" else ["open", "high", "low", "close", "volume"]
        stamps = np.array([row.ts_ms for row in rows], dtype=np.int64)
        if self.key.series == "funding":
            past_minute = stamps % 60_000
            stamps = stamps - np.where(past_minute < JITTER_MS, past_minute, 0)
        values = list(zip(*(row.values for row in rows), strict=True)) or [()] * len(names)
        columns = {name: pl.Series(name, column, dtype=pl.Float64) for name, column in zip(names, values, strict=True)}
        frame = pl.DataFrame({"ts": pl.Series("ts", stamps * 1000, dtype=pl.Int64).cast(TS), **columns})
        required = self.key.spec.required
        filled = [name for name in frame.columns if name in required or frame[name].null_count() < len(frame)]
        return frame.select(name for name in self.key.spec.columns if name in filled)

    def _merged(self, new: pl.DataFrame) -> pl.DataFrame:
        """Rows of file and venue, once each; what one of them lacks comes from the other."""
        parts = [new] if self.frame is None else [self.frame, new]
        rows = pl.concat(parts, how="diagonal")
        instant = pl.col("ts").dt.round("1m") if self.key.series == "funding" else pl.col("ts")
        rows = rows.with_columns(instant.alias("instant"))
        names = [name for name in rows.columns if name not in ("ts", "instant", "interval_hours", "known_at")]
        self._refuse_conflicts(rows, names)
        rest = [name for name in rows.columns if name != "instant"]
        rows = rows.group_by("instant").agg(pl.col(name).drop_nulls().first() for name in rest).sort("ts").select(rest)
        if self.key.series == "funding" and rows.height:
            told = pl.Series("told", settlement_intervals_hours(rows["ts"].to_physical().to_numpy()))
            known = pl.col("interval_hours") if "interval_hours" in rows.columns else pl.lit(None, dtype=pl.Int32)
            hours = pl.when(told > 0).then(told).otherwise(known)
            rows = rows.with_columns(hours.cast(pl.Int32).alias("interval_hours"))
        return rows.select(name for name in self.key.spec.columns if name in rows.columns)

    def _refuse_conflicts(self, rows: pl.DataFrame, names: list[str]) -> None:
        again = rows.filter(pl.col("instant").is_duplicated()).sort("instant", maintain_order=True)
        if again.is_empty():
            return
        spread = again.group_by("instant", maintain_order=True).agg(
            (pl.col(name).max() - pl.col(name).min())
            > (VOLUME_TOLERANCE * pl.col(name).abs().max() if name == "volume" else 0.0)
            for name in names
        )
        bad = spread.filter(pl.any_horizontal(pl.col(name).fill_null(False) for name in names))
        if bad.is_empty():
            return
        column = next(name for name in names if bad[name][0])
        found = again.filter(pl.col("instant") == bad["instant"][0])[column].drop_nulls().to_list()
        raise DataError(
            f"{column} was {found[0]} and is {found[-1]} now ({bad.height} row{'s' if bad.height > 1 else ''})",
            where={"file": self.path, "column": column, "rows": bad.height, "ts": bad["instant"][0].isoformat()},
            fix="find out which is right; move the file away to take the venue's rows",
        )
