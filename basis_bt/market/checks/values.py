"""Values of rows: prices that are none, bars that contradict themselves, feeds that stopped."""

from collections.abc import Iterator

import numpy as np
import polars as pl

from basis_bt.market.checks.finding import Finding, found, instant_text, longest_run
from basis_bt.market.checks.settlements import funding_findings, repeated_settlements
from basis_bt.market.schemas import SeriesKey

DEAD_BARS = 24  # this many bars in a row without a trade are a dead feed


def value_findings(frame: pl.DataFrame, *, key: SeriesKey, first_row: int = 0) -> Iterator[tuple[Finding, np.ndarray]]:
    """What is wrong with the values of rows in order, each finding with the mask of the rows it takes out.

    ``first_row`` is where the rows begin in their file; rows of findings are counted from there.
    """
    spec, ts_us = key.spec, frame["ts"].to_physical().to_numpy()
    found_bad = np.zeros(len(frame), dtype=bool)
    repair = "mask" if spec.is_bars else "none"
    for column, dtype in spec.columns.items():
        if column not in frame.columns or not dtype.is_numeric():
            continue
        values = frame[column].cast(pl.Float64).to_numpy()
        good = np.isfinite(values)
        what, fix = "a finite number", "drop the rows, or fetch them again"
        if column == "rate":
            fix = "drop the settlement, or fetch it again"
        if column in spec.positive:
            good &= values > 0
            what, fix = "a number above 0", "mask the gap before aligning, or drop the rows"
        elif column in spec.not_negative:
            good &= values >= 0
            what, fix = "0 or more", "set it to 0 where nothing was traded" if column == "volume" else fix
        if column not in spec.required and column != "volume" and not spec.is_bars:
            good |= frame[column].is_null().to_numpy()
        if good.all():
            continue
        bad = ~good
        found_bad |= bad
        value = frame[column][int(np.argmax(bad))]
        yield (
            found(bad, ts_us, rule="value", repair=repair, column=column, first_row=first_row,
                   what=f"{column} must be {what}, found {value}", fix=fix),
            bad,
        )  # fmt: skip
    if spec.is_bars:
        yield from _bar_findings(frame, ts_us, known_bad=found_bad, first_row=first_row)
    if key.series == "funding":
        twice = repeated_settlements(frame["rate"].to_numpy(), ts_us, first_row=first_row)
        if twice is not None:
            yield twice
            frame = frame.filter(~pl.Series(twice[1]))
        nothing = np.zeros(len(ts_us), dtype=bool)
        once_us = frame["ts"].to_physical().to_numpy()
        yield from ((finding, nothing) for finding in funding_findings(frame, once_us, first_row=first_row))


def _bar_findings(
    frame: pl.DataFrame, ts_us: np.ndarray, *, known_bad: np.ndarray, first_row: int
) -> Iterator[tuple[Finding, np.ndarray]]:
    if "high" in frame.columns and "low" in frame.columns:
        prices = {name: frame[name].cast(pl.Float64).to_numpy() for name in ("open", "high", "low", "close")}
        bad = (prices["high"] < np.maximum(prices["open"], prices["close"])) | (
            prices["low"] > np.minimum(prices["open"], prices["close"])
        )
        bad &= ~known_bad
        if bad.any():
            row = int(np.argmax(bad))
            bar = ", ".join(f"{name} {values[row]:g}" for name, values in prices.items())
            yield (
                found(bad, ts_us, rule="ohlc", repair="mask", column="high", first_row=first_row,
                       what=f"open and close must lie between low and high, found {bar}",
                       fix="fetch the bars again; a single one may be a damaged cell"),
                bad,
            )  # fmt: skip
    columns = [name for name in ("open", "high", "low", "close", "volume") if name in frame.columns]
    values = np.column_stack([frame[name].cast(pl.Float64).to_numpy() for name in columns])
    idle = np.zeros(len(values), dtype=bool)
    idle[1:] = (values[1:] == values[:-1]).all(axis=1)
    if "volume" in columns:
        idle |= values[:, -1] == 0
    if idle.any():
        longest, start = longest_run(idle)
        dead = longest >= DEAD_BARS
        stretch = f"{longest} bars in a row in which nothing happened, from {instant_text(int(ts_us[start]))}"
        yield (
            found(idle, ts_us, rule="dead feed" if dead else "no trade", repair="mask" if dead else "note",
                   column=columns[-1], first_row=first_row,
                   what=stretch if dead else "bars without a trade; they count as tradable at their price",
                   fix="a feed that stopped repeats its last price: leave the stretch out"),
            idle if dead else np.zeros(len(idle), dtype=bool),
        )  # fmt: skip
