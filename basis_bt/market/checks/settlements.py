"""Settlements: rates in percent, intervals that are not so, settlements that are missing."""

from collections.abc import Iterator

import numpy as np
import polars as pl

from basis_bt.core.units import US_PER_DAY, US_PER_HOUR
from basis_bt.market.checks.finding import Finding, count_of, found, longest_run
from basis_bt.market.intervals import missing_settlements, settlement_intervals_hours

# A settled rate of one half or more has never been paid; and a typical one above 0.3 % per 8 hours is a percent figure.
MAX_ABS_RATE = 0.5
# In under a week a coin in a squeeze may really pay more.
MAX_MEDIAN_RATE_8H = 0.003
MAX_MEDIAN_RATE_8H_SHORT = 0.0075
SAME_SETTLEMENT_US = 60_000_000


def repeated_settlements(
    rate: np.ndarray, ts_us: np.ndarray, *, first_row: int = 0
) -> tuple[Finding, np.ndarray] | None:
    """Settlements within a minute of another: one settlement whose stamp jittered, and would be paid twice."""
    twice = np.zeros(len(ts_us), dtype=bool)
    twice[1:] = np.diff(ts_us) <= SAME_SETTLEMENT_US
    if not twice.any():
        return None
    agrees = bool((rate[twice] == rate[np.flatnonzero(twice) - 1]).all())
    what = "settlements within a minute of another are one settlement" + ("" if agrees else ", and their rates differ")
    finding = found(
        twice, ts_us, rule="repeated settlements", repair="drop" if agrees else "none", what=what, first_row=first_row,
        fix="drop the repeated rows" if agrees else "find out which of the rates was paid and drop the other",
    )  # fmt: skip
    return finding, twice


def uncovered_findings(
    span_us: tuple[int, int], *, hours: np.ndarray, first_us: int, last_us: int
) -> Iterator[Finding]:
    """Settlements that a run from ``first_us`` to ``last_us`` lacks, since the file with that span does not cover it.

    ``hours`` are the intervals of the settlements read; unknown ones count as 8. Up to half a day is only noted.
    """
    for gap_us, from_us, interval_hours, word in (
        (span_us[0] - first_us, first_us, hours[0], "begin only after the run does"),
        (last_us - span_us[1], span_us[1], hours[-1], "end before the run does"),
    ):
        interval_us = int(interval_hours or 8) * US_PER_HOUR
        if gap_us > 1.5 * interval_us:
            yield Finding(
                rule="missing settlements", repair="accept" if gap_us > US_PER_DAY // 2 else "note",
                rows=round(gap_us / interval_us), first_us=from_us,
                what=f"the settlements {word}: their funding cannot be booked",
                fix="fetch them (basis-bt data download), or choose a span that they cover",
            )  # fmt: skip


def funding_findings(frame: pl.DataFrame, ts_us: np.ndarray, *, first_row: int = 0) -> Iterator[Finding]:
    """What is wrong with settlements in order: rates in percent, intervals that are not so, settlements missing."""
    rate = frame["rate"].cast(pl.Float64).to_numpy()
    percent = "divide the rates by 100: they are fractions of notional per settlement (0.0001 = 1 bp)"
    large = np.abs(rate) >= MAX_ABS_RATE
    if large.any():
        yield found(
            large, ts_us, rule="percent", repair="none", column="rate", first_row=first_row, fix=percent,
            what=f"rate is too large for a fraction (percent?), found {rate[np.argmax(large)]}",
        )  # fmt: skip
    told = settlement_intervals_hours(ts_us)
    said = np.zeros(len(rate))
    if "interval_hours" in frame.columns:
        said = frame["interval_hours"].cast(pl.Float64).fill_null(0.0).to_numpy()
    hours = np.where(said > 0, said, told)
    per_8h = np.abs(rate) * 8.0 / np.where(said > 0, said, 8.0)
    is_short = len(rate) > 0 and ts_us[-1] - ts_us[0] < 7 * US_PER_DAY
    if len(rate) and np.median(per_8h) > (MAX_MEDIAN_RATE_8H_SHORT if is_short else MAX_MEDIAN_RATE_8H):
        yield Finding(
            rule="percent", repair="none", column="rate", rows=len(rate), first_row=first_row, first_us=int(ts_us[0]),
            fix=percent, what=f"rate looks like percent: its median is {np.median(per_8h):.4g} per 8 hours",
        )  # fmt: skip
    if "interval_hours" in frame.columns:
        early = np.zeros(len(ts_us), dtype=bool)
        early[1:] = np.diff(ts_us) < 0.6 * hours[1:] * US_PER_HOUR
        if early.any() and longest_run(early)[0] >= 3:
            row = int(np.argmax(early))
            yield found(
                early, ts_us, rule="interval", repair="accept", column="interval_hours", first_row=first_row,
                what=f"interval_hours says {hours[row]:g}, the stamps are "
                f"{(ts_us[row] - ts_us[row - 1]) / US_PER_HOUR:g} h apart",
                fix="derive the intervals from the stamps; every settlement is paid either way",
            )  # fmt: skip
            hours = np.where(early, told, hours)
    missing = missing_settlements(ts_us, hours)
    if missing.any():
        row = int(np.argmax(missing > 0))
        yield Finding(
            rule="missing settlements", repair="accept", rows=int(missing.sum()), first_row=first_row + row,
            first_us=int(ts_us[row - 1] + hours[row] * US_PER_HOUR),
            what=f"settlements are missing in {count_of(int((missing > 0).sum()), 'hole')}: "
            "their funding cannot be booked",
            fix="fetch them (basis-bt data download)",
        )  # fmt: skip
