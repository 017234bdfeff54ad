"""The carry of every perp in a market folder, from its settled funding, best first.

All rates are simple annual ones as fractions: the sum of the rates times 8,760 over the hours that the settlements
present were paid for. A hole thus counts neither as zero nor as the mean; without holes it is the rule of the signal
``funding_apr``. A window of L hours holds the settlements of the last L hours, late stamps of up to half an hour aside.
"""

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

import numpy as np
import polars as pl

from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import Instrument
from basis_bt.core.rulebook import fee_bps
from basis_bt.core.units import HOURS_PER_YEAR, US_PER_DAY, US_PER_HOUR
from basis_bt.market.coverage import Holding, holdings
from basis_bt.market.funding_table import funding_table
from basis_bt.market.schemas import TS

SHORT_HISTORY_DAYS = 90
MIN_WEEKS = 4
JITTER_US = US_PER_HOUR // 2  # settlements are stamped up to this much late
NUMBERS = (
    "apr", "apr_30d", "apr_90d", "net_apr", "breakeven_hold_hours", "round_trip_bps", "positive_frac", "stability",
    "apr_std", "worst_30d_apr", "autocorrelation",
)  # fmt: skip
COLUMNS: dict[str, pl.DataType] = {
    "rank": pl.Int64(), "venue": pl.String(), "symbol": pl.String(), "settlements": pl.Int64(), "first": TS,
    "last": TS, **dict.fromkeys(NUMBERS, pl.Float64()), "spot": pl.String(), "quality": pl.Float64(),
    "score": pl.Float64(), "source": pl.String(), "notes": pl.String(),
}  # fmt: skip


def scan(
    root: Path,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    hold_hours: float = 168.0,
    quotes: Sequence[str] | None = None,
) -> pl.DataFrame:
    """One row per perp with funding, by falling ``score``; its own file wins over the same instrument of a universe.

    ==========================  ======================================================================================
    ``apr``, ``apr_30d/90d``    over all of it, and over the days that end at its last settlement (null if shorter)
    ``worst_30d_apr``           the lowest over any 30 days that end at a settlement
    ``apr_std``                 standard deviation of the APRs of its weeks, counted back from the last settlement;
                                a week counts when half of its hours are there; null below four weeks
    ``stability``               share of those weeks in which the APR has the sign of ``apr``: how often a carry held in
                                that direction earns. Bounded, and not thrown by one wild week as ``apr / apr_std`` is
    ``positive_frac``           share of settlements above zero
    ``autocorrelation``         of the hourly rates of settlements that follow each other without a hole
    ``round_trip_bps``          taker fees of two perp and two spot fills: spot of the same venue, else the cheapest
                                of the venues that have the spot leg here; null, with a note, if none is known
    ``breakeven_hold_hours``    how long ``apr`` takes to earn that; null for an APR of zero or below
    ``net_apr``                 ``apr`` less the round trip spread over ``hold_hours``
    ``spot``                    venues with a spot series of the same coin here
    ``quality``                 share of the settlements present of those there should be
    ``score``                   ``net_apr`` weighted by ``w = stability * quality``: ``net_apr * w``, and
                                ``net_apr * (2 - w)`` below zero, so that doubt never helps; unknown stability counts 0
    ==========================  ======================================================================================

    Parameters
    ----------
    root : the market folder
    start, end : settlements used, ``start <= ts < end``; zoned
    hold_hours : how long a carry is held, for ``net_apr``
    quotes : keep perps with one of these quote currencies

    Raises
    ------
    DataError
        If the folder is missing.
    ConfigError
        If ``hold_hours`` is not above zero.
    """
    if not hold_hours > 0:
        raise ConfigError(f"hold_hours must be above 0, found {hold_hours}", fix="give the hours of a usual hold")
    found, _ = holdings(root)
    rows, unreadable = funding_table(found, quotes=quotes)
    bounds = [pl.col("ts") >= start] if start is not None else []
    bounds += [pl.col("ts") < end] if end is not None else []
    table = _statistics(rows.filter(bounds) if bounds else rows)
    spots = _spot_venues(found, perps=table)
    extra = [_costs(row, spots=spots) for row in table.select("venue", "symbol", "last").iter_rows(named=True)]
    costs = pl.DataFrame(extra, schema={"round_trip_bps": pl.Float64, "spot": pl.String, "fee_note": pl.String})
    per_hour_bps = pl.col("apr") * 1e4 / HOURS_PER_YEAR
    net = pl.col("apr") - pl.col("round_trip_bps") / 1e4 * HOURS_PER_YEAR / hold_hours
    weight = pl.col("stability").fill_null(0.0) * pl.col("quality")
    table = pl.concat([table, costs], how="horizontal").with_columns(
        net_apr=net, breakeven_hold_hours=pl.when(pl.col("apr") > 0).then(pl.col("round_trip_bps") / per_hour_bps)
    )
    table = pl.concat([table, unreadable], how="diagonal").with_columns(
        score=pl.when(pl.col("net_apr") > 0)
        .then(pl.col("net_apr") * weight)
        .otherwise(pl.col("net_apr") * (2 - weight)),
        notes=pl.concat_str("flags", "fee_note", separator="; ", ignore_nulls=True)
        .str.strip_chars("; ")
        .replace("", None),
    )
    ranked = table.sort(["score", "apr", "venue", "symbol"], descending=[True, True, False, False], nulls_last=True)
    return ranked.with_columns(rank=pl.int_range(1, len(ranked) + 1, dtype=pl.Int64)).select(
        pl.col(name).cast(dtype) for name, dtype in COLUMNS.items()
    )


def coin(symbol: str) -> str:
    """The coin of ``BASE-QUOTE``, without a scale of a thousand in front of it (``1000PEPE``, ``kPEPE``)."""
    base = symbol.partition("-")[0]
    scaled = base.lstrip("0123456789") if base.startswith("1000") else ""
    if base[0] == "k" and base[1:].isupper():
        scaled = base[1:]
    return scaled or base


def _statistics(rows: pl.DataFrame) -> pl.DataFrame:
    """Everything that the settlements of a perp tell by themselves, one row each."""
    age_us = pl.col("ts").last().over("group").to_physical() - pl.col("ts").to_physical() + JITTER_US
    is_first = pl.int_range(pl.len()).over("group") == 0
    rows = rows.with_columns(age_us=age_us, missing=pl.when(~is_first).then("missing").otherwise(0))
    rows = rows.with_columns(worst=_rolling_apr(rows, days=30))
    hourly = pl.col("rate") / pl.col("hours")
    follows = (pl.col("missing") == 0) & (pl.col("hours") > 0) & (pl.col("hours").shift(1) > 0)

    def apr_of(days: int | None) -> pl.Expr:
        if days is None:
            return _apr(pl.col("rate"), pl.col("hours"))
        inside = pl.col("age_us") < days * US_PER_DAY
        whole = pl.col("age_us").first() + pl.col("hours").first() * US_PER_HOUR >= days * US_PER_DAY
        return pl.when(whole).then(_apr(pl.col("rate").filter(inside), pl.col("hours").filter(inside)))

    table = rows.group_by("group", maintain_order=True).agg(
        pl.col("venue", "symbol", "source", "duplicates", "not_finite").first(),
        settlements=pl.len(),
        first=pl.col("ts").first(),
        last=pl.col("ts").last(),
        apr=apr_of(None),
        apr_30d=apr_of(30),
        apr_90d=apr_of(90),
        positive_frac=(pl.col("rate") > 0).mean(),
        worst_30d_apr=pl.col("worst").min(),
        autocorrelation=pl.corr(hourly.filter(follows), hourly.shift(1).filter(follows)),
        lacking=pl.col("missing").sum(),
        holes=(pl.col("missing") > 0).sum(),
        unknown=(pl.col("hours") == 0).any(),
    )
    weeks = (
        rows.group_by("group", pl.col("age_us") // (7 * US_PER_DAY))
        .agg(week_apr=_apr(pl.col("rate"), pl.col("hours")), present=pl.col("hours").sum())
        .filter(pl.col("present") * 2 >= 7 * 24)
        .join(table.select("group", "apr"), on="group")
        .group_by("group")
        .agg(
            weeks=pl.len(),
            apr_std=pl.col("week_apr").std(),
            stability=(pl.col("week_apr").sign() == pl.col("apr").sign()).mean(),
        )
    )
    enough = pl.col("weeks").fill_null(0) >= MIN_WEEKS
    days = (pl.col("last") - pl.col("first")).dt.total_days()
    flags = [
        pl.when("unknown").then(pl.lit("interval unknown")),
        pl.when(pl.col("lacking") > 0).then(pl.format("{} missing (holes: {})", "lacking", "holes")),
        pl.when(days < SHORT_HISTORY_DAYS).then(pl.format("short history: {} days", days)),
        pl.when(pl.col("duplicates") > 0).then(pl.format("{} duplicates", "duplicates")),
        pl.when(pl.col("not_finite") > 0).then(pl.format("{} rates not finite", "not_finite")),
    ]
    return table.join(weeks, on="group", how="left", maintain_order="left").with_columns(
        pl.when(enough).then(pl.col("apr_std", "stability")),
        pl.col("autocorrelation").fill_nan(None),
        quality=pl.col("settlements") / (pl.col("settlements") + pl.col("lacking")),
        flags=pl.concat_str(flags, separator="; ", ignore_nulls=True),
    )


def _apr(rate: pl.Expr, hours: pl.Expr) -> pl.Expr:
    known = hours > 0
    total = hours.sum()
    return pl.when(total > 0).then(rate.filter(known).sum() * HOURS_PER_YEAR / total)


def _rolling_apr(rows: pl.DataFrame, *, days: int) -> pl.Series:
    """The APR over the days that end at each settlement; null without that much history, or with half of it missing."""
    group, ts_us = rows["group"].to_numpy(), rows["ts"].to_physical().to_numpy()
    hours = rows["hours"].to_numpy()
    if not len(rows):
        return pl.Series("worst", [], dtype=pl.Float64)
    begin = np.searchsorted(group, group)
    offset = group * (ts_us.max() - ts_us.min() + (days + 1) * US_PER_DAY)
    place = ts_us + offset
    start = np.maximum(np.searchsorted(place, place - days * US_PER_DAY + JITTER_US, side="right"), begin)
    rates = np.concatenate([[0.0], np.cumsum(np.where(hours > 0, rows["rate"].to_numpy(), 0.0))])
    paid = np.concatenate([[0], np.cumsum(hours)])
    row = np.arange(1, len(rows) + 1)
    covered = paid[row] - paid[start]
    whole = ts_us - ts_us[begin] + hours[begin] * US_PER_HOUR + JITTER_US >= days * US_PER_DAY
    apr = np.divide(
        (rates[row] - rates[start]) * HOURS_PER_YEAR, covered, out=np.full(len(rows), np.nan), where=covered > 0
    )
    return pl.Series("worst", np.where(whole & (covered * 2 >= days * 24), apr, np.nan)).fill_nan(None)


def _spot_venues(found: list[Holding], *, perps: pl.DataFrame) -> dict[str, list[str]]:
    """Venues with a spot series, by coin; a token ``U<coin>`` of Hyperliquid stands for the coin of a perp."""
    coins = {coin(symbol) for symbol in perps["symbol"]}
    spots: dict[str, set[str]] = {}
    for holding in found:
        if holding.key.series == "spot":
            name = coin(holding.key.symbol)
            wrapped = name.removeprefix("U")
            name = wrapped if holding.key.venue == "hyperliquid" and name not in coins and wrapped in coins else name
            spots.setdefault(name, set()).add(holding.key.venue)
    return {name: sorted(venues) for name, venues in spots.items()}


def _costs(row: dict[str, object], *, spots: dict[str, list[str]]) -> dict[str, object]:
    venue, symbol, last = str(row["venue"]), str(row["symbol"]), row["last"]
    day = last.date() if isinstance(last, datetime) else date.max
    venues = spots.get(coin(symbol), [])
    note, total = None, None
    perp = _taker_bps("perp", venue, day)
    spot = _taker_bps("spot", venue, day)
    if spot is None:
        known = [(fee, other) for other in venues if (fee := _taker_bps("spot", other, day)) is not None]
        if known:
            spot, other = min(known)
            note = f"spot fee of {other}"
    if perp is None or spot is None:
        note = f"no {'perp' if perp is None else 'spot'} fee known for {venue}"
    else:
        total = 2 * perp + 2 * spot
    return {"round_trip_bps": total, "spot": ",".join(venues) or None, "fee_note": note}


def _taker_bps(kind: str, venue: str, day: date) -> float | None:
    try:
        return fee_bps(Instrument(kind, venue, "ANY-ANY"), liquidity="taker", on=day)
    except ConfigError:
        return None
