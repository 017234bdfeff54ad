"""Telling a spike from a real move: by another venue or leg that trades the same coin at the same time."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import polars as pl

from basis_bt.core.arrays import carried
from basis_bt.market.checks import Finding
from basis_bt.market.files import Series

# Two prices of one coin at one time that are further apart than this cannot both be prices.
MAX_RATIO = 1.5
# Returns of one coin on two venues correlate by 0.9 and more in the same bar, and by about 0 one bar apart.
MIN_COMMON, SHIFT_FLOOR, SHIFT_MARGIN = 100, 0.5, 0.3
# Other names of a coin: the old ISO one, and the wrapped ones of a venue that settles on its own chain.
ALIASES = {"XBT": "BTC", "UBTC": "BTC", "UETH": "ETH", "USOL": "SOL"}


def base_and_scale(symbol: str) -> tuple[str, float]:
    """The coin of a symbol and how many of it one unit is: ``1000PEPE-USDT`` and ``kPEPE-USDC`` are 1000 PEPE."""
    base = symbol.partition("-")[0]
    if base.startswith("1000") and len(base) > 4:
        return base.removeprefix("1000"), 1000.0
    if base.startswith("k") and base[1:].isupper() and len(base) > 2:
        return base[1:], 1000.0
    return ALIASES.get(base, base), 1.0


def without_spikes(series: Sequence[Series]) -> list[Series]:
    """The same bar series without the bars whose close the others contradict, each with its finding.

    Series of one coin and one step bear witness for each other. Closes more than `MAX_RATIO` apart contradict; of three
    or more the ones far from their median are wrong, of two the one that moved further since they last agreed, and both
    where they never did. Only the past and the present are looked at, so a bar is judged the same whatever comes after.
    Series that are stamped one bar apart (one by the open, the other by the close) get a finding that nobody repairs.
    """
    groups: dict[tuple[str, int | None], list[int]] = defaultdict(list)
    for place, one in enumerate(series):
        groups[base_and_scale(one.key.symbol)[0], one.step_us].append(place)
    out = list(series)
    for places in groups.values():
        if len(places) > 1:
            for place, finding in _shifted([series[k] for k in places]):
                out[places[place]] = dataclasses.replace(
                    out[places[place]], findings=[*out[places[place]].findings, finding]
                )
            for place, wrong in zip(places, _contradicted([series[k] for k in places]), strict=True):
                if wrong.any():
                    out[place] = _taken_out(out[place], wrong)
    return out


def _contradicted(series: list[Series]) -> list[np.ndarray]:
    """For each series the mask of its rows that are wrong."""
    stamps = [one.frame["ts"].to_physical().to_numpy() for one in series]
    grid = np.unique(np.concatenate(stamps))
    log_close = np.full((len(grid), len(series)), np.nan)
    rows = [np.searchsorted(grid, ts_us) for ts_us in stamps]
    for column, one in enumerate(series):
        scale = base_and_scale(one.key.symbol)[1]
        log_close[rows[column], column] = np.log(one.frame["close"].to_numpy() / scale)
    low = np.fmin.reduce(log_close, axis=1)
    high = np.fmax.reduce(log_close, axis=1)
    doubtful = np.flatnonzero(high - low > math.log(MAX_RATIO))
    wrong = np.zeros(log_close.shape, dtype=bool)
    if len(doubtful):
        agreed = log_close.copy()
        agreed[doubtful] = np.nan
        last = carried(agreed)
        for row in doubtful.tolist():
            wrong[row] = _wrong_ones(log_close[row], last[row])
    return [wrong[rows[column], column] for column in range(len(series))]


def _wrong_ones(values: np.ndarray, last: np.ndarray) -> np.ndarray:
    here = ~np.isnan(values)
    if here.sum() > 2:
        return here & (np.abs(values - np.median(values[here])) > math.log(MAX_RATIO))
    moved = np.abs(values - last)
    if np.isnan(moved[here]).any():
        return here
    return here & (moved == moved[here].max())


def _shifted(series: list[Series]) -> list[tuple[int, Finding]]:
    """Places of series whose returns go with the first one's a bar apart rather than in the same bar."""
    first, found = _returns(series[0]), []
    for place, one in enumerate(series[1:], start=1):
        step_us = one.step_us or 0
        same, late, early = (_correlation(first, _returns(one), lag_us=lag * step_us) for lag in (0, 1, -1))
        if max(late, early) <= max(same + SHIFT_MARGIN, SHIFT_FLOOR):
            continue
        finding = Finding(
            rule="shift", repair="none", rows=one.frame.height, first_row=one.first_row,
            first_us=int(one.frame["ts"].to_physical()[0]),
            what=f"bars are stamped one step {'late' if late > early else 'early'} beside {series[0].key}: "
            f"their returns correlate by {max(late, early):.2f} a step apart and by {same:.2f} as stamped",
            fix="a bar is stamped by its open; one of the two files stamps the close",
        )  # fmt: skip
        found.append((place, finding))
    return found


def _returns(series: Series) -> pl.DataFrame:
    """Log returns of bars that follow one another without a hole: columns ``ts`` (epoch microseconds) and ``r``."""
    ts_us = series.frame["ts"].to_physical().to_numpy()
    moves = pl.DataFrame({"ts": ts_us[1:], "r": np.diff(np.log(series.frame["close"].to_numpy()))})
    return moves.filter(pl.Series(np.diff(ts_us) == series.step_us))


def _correlation(one: pl.DataFrame, other: pl.DataFrame, *, lag_us: int) -> float:
    """Correlation of returns where the other's stamps are moved back by a lag; 0 with under a hundred in common."""
    both = one.join(other.with_columns(pl.col("ts") - lag_us), on="ts")
    left, right = both["r"].to_numpy(), both["r_right"].to_numpy()
    if len(both) < MIN_COMMON or left.std() == 0 or right.std() == 0:
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])


def _taken_out(series: Series, wrong: np.ndarray) -> Series:
    row = int(np.argmax(wrong))
    ts_us = series.frame["ts"].to_physical().to_numpy()
    finding = Finding(
        rule="spike", repair="mask", column="close", rows=int(wrong.sum()), first_row=series.first_row + row,
        first_us=int(ts_us[row]),
        what=f"close {series.frame['close'][row]:g} is more than {MAX_RATIO:g} times off what trades beside it",
        fix="look at the bar; prices of one coin do not differ so much",
    )  # fmt: skip
    kept = series.frame.filter(~pl.Series(wrong))
    good_us = ts_us[~wrong]
    first_us, last_us = series.first_us, series.last_us
    if len(good_us):
        first_us = int(good_us[0]) if ts_us[0] == first_us else first_us
        last_us = int(good_us[-1]) if ts_us[-1] == last_us else last_us
    return dataclasses.replace(
        series, frame=kept, findings=[*series.findings, finding], first_us=first_us, last_us=last_us
    )
