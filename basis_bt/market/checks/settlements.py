"""Settlements: rates in percent, intervals that are not so, settlements that are missing."""

from collections.abc import Iterator

import numpy as np
import polars as pl

from basis_bt.core.units import US_PER_HOUR
from basis_bt.market.checks.finding import Finding, count_of, found, longest_run
from basis_bt.market.intervals import missing_settlements, settlement_intervals_hours

# A settled rate of one half or more has never been paid; and a typical one above 0.3 % per 8 hours is a percent figure.
MAX_ABS_RATE = 0.5
MAX_MEDIAN_RATE_8H = 0.003


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
    if len(rate) and np.median(per_8h) > MAX_MEDIAN_RATE_8H:
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
