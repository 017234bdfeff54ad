"""Stamps of a whole file: the future, another clock, another step, holes."""

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np

from basis_bt.core.units import US_PER_DAY, US_PER_HOUR, to_us
from basis_bt.market.checks.finding import Finding, count_of, found, instant_text
from basis_bt.market.schemas import SeriesKey

EARLIEST_US = to_us(datetime(2009, 1, 3, tzinfo=UTC))  # the first block of the first coin
STEP_RUN = 24  # this many equal distances above the step are another step, not holes


def stamp_findings(ts_us: np.ndarray, *, key: SeriesKey) -> Iterator[Finding]:
    """What is wrong with the stamps of a whole file, sorted and unique already (int64 epoch microseconds)."""
    late_us = to_us(datetime.now(UTC)) + US_PER_DAY
    if len(ts_us) and ts_us[0] < EARLIEST_US:
        yield found(
            ts_us < EARLIEST_US, ts_us, rule="past", repair="none",
            what=f"ts lies before there was any market: {instant_text(int(ts_us[0]))}",
            fix="look at the unit of the stamps: seconds read as milliseconds give 1970",
        )  # fmt: skip
        return
    if len(ts_us) and ts_us[-1] > late_us:
        yield found(
            ts_us > late_us, ts_us, rule="future", repair="drop",
            what=f"ts lies in the future: {instant_text(int(ts_us[-1]))}",
            fix="fetch the series again, or drop the rows",
        )  # fmt: skip
        ts_us = ts_us[ts_us <= late_us]
    if not key.spec.is_bars or len(ts_us) < 2:
        return
    distance = np.diff(ts_us)
    step_us = int(distance.min())
    off = ts_us % step_us != 0
    if off.any():
        yield found(
            off, ts_us, rule="clock", repair="none",
            what=f"bars of {step_us / US_PER_HOUR:g} h must open at multiples of their step (UTC)",
            fix="the file is on another clock than the grid; shift it to the bar open in UTC or use finer bars",
        )  # fmt: skip
        return
    change = _second_step(distance, step_us)
    if change is not None:
        first, other_us = change
        bad = np.zeros(len(ts_us), dtype=bool)
        bad[first] = True
        yield found(
            bad, ts_us, rule="step", repair="none",
            what=f"bars of two steps in one file: {other_us / US_PER_HOUR:g} h and {step_us / US_PER_HOUR:g} h",
            fix="resample the finer part, or keep the two in folders of their own",
        )  # fmt: skip


def _second_step(distance: np.ndarray, step_us: int) -> tuple[int, int] | None:
    """Row where the step changes, and the other step, if some multiple of the step repeats too often for holes."""
    edges = np.flatnonzero(np.diff(distance)) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [len(distance)]]))
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        if length >= STEP_RUN and distance[start] != step_us:
            row = start + length + 1 if start == 0 else start + 1
            return min(row, len(distance)), int(distance[start])
    return None


def hole_findings(ts_us: np.ndarray, *, step_us: int | None, first_row: int = 0) -> Iterator[Finding]:
    """Bars that are missing between the rows read: a note, since venues have outages; they are masked in a run."""
    if step_us is None or len(ts_us) < 2:
        return
    missing = np.concatenate([[0], np.diff(ts_us) // step_us - 1])
    if missing.any():
        row = int(np.argmax(missing > 0))
        yield Finding(
            rule="hole", repair="note", rows=int(missing.sum()), first_row=first_row + row,
            first_us=int(ts_us[row - 1]) + step_us,
            what=f"bars are missing in {count_of(int((missing > 0).sum()), 'hole')}; they are not tradable",
            fix="fetch them if the venue has them",
        )  # fmt: skip
