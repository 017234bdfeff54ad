"""How long a carry must be held until what it receives has paid for its round trip."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.core.config import build_config
from basis_bt.core.errors import ConfigError
from basis_bt.core.sweep_spec import replaced
from basis_bt.core.units import US_PER_HOUR, bars_up
from basis_bt.sweeps.alike import costs_usd, metrics_alike
from basis_bt.sweeps.crossing import crossings
from basis_bt.sweeps.durations import duration_hours
from basis_bt.sweeps.single import log_values, single_tables
from basis_bt.sweeps.trades import trades_of

NEVER = -1e300  # a signal does not fall so low
ROOM = 1_000.0  # times the capital, so that thousands of losing round trips do not use it up


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Breakeven:
    """Round trips by how long they are held, in bps of the entry notional of one leg, means over closed trades.

    ``frame``: ``hold_hours``, ``n_trades`` (closed), ``mean_hold_hours``, ``funding_bps``, ``basis_bps``, ``costs_bps``
    (all costs, positive when paid), ``other_bps`` (price of what was not hedged, yield of a leg), ``pnl_per_trade_bps``
    and ``won_frac``; null at a hold after which no trade was closed.

    ``breakeven_hours`` is the first hold at which the PnL reaches 0: the shortest one looked at if it is there already,
    None if it never does. ``closed_form_hours`` is ``round_trip_bps``, the mean cost over the holds, over
    ``funding_bps_per_hour``, the funding of all trades over all hours held; None if that is not positive.
    """

    frame: pl.DataFrame
    breakeven_hours: float | None
    round_trip_bps: float
    funding_bps_per_hour: float
    closed_form_hours: float | None


def breakeven(
    config: str | Path | Mapping[str, Any],
    *,
    from_hours: float | str = "8h",
    to_hours: float | str = "90d",
    steps: int = 25,
) -> Breakeven:
    """Hold a carry for longer and longer and see when it pays.

    Entries are those of the configuration. Each trade is left after the hold and for no other reason (no exit by the
    signal, no stop, no margin call), is as large as the first one, and has one wallet that does not run dry, whose idle
    cash earns nothing: what is measured is the trade, not what is left of the capital after thousands of them.

    Parameters
    ----------
    config : path of a TOML file or nested dicts, of one backtest
    from_hours, to_hours, steps : holds, logarithmic, each rounded up to whole bars

    Raises
    ------
    ConfigError
        If the configuration is a sweep itself, keeps single legs, revalues idle cash, or closes no trade at any hold.
    """
    tables = _held(single_tables(config, command="breakeven"))
    low, high = (duration_hours(one, name=name) for one, name in ((from_hours, "from"), (to_hours, "to")))
    bar_us = build_config(tables).data.bar_us
    asked = log_values(tables, "rule.max_hold_hours", low=low, high=high, steps=steps)
    holds = sorted({bars_up(hours, bar_us=bar_us) * bar_us / US_PER_HOUR for hours in asked})
    metrics = metrics_alike(tables, {"rule.max_hold_hours": holds})
    if (metrics["fx_usd"].fill_null(0.0) != 0.0).any():
        raise ConfigError(
            "a break-even counts in the quote currency, and this configuration revalues idle cash in dollars",
            where={"key": "data.series, scenarios"},
            fix='take "quote_usd" out of data.series, and scenarios of kind depeg',
        )
    configs = (build_config(replaced(tables, {"rule.max_hold_hours": hold})) for hold in holds)
    paid_usd = metrics.select(costs_usd()).to_series()
    rows = [
        {"hold_hours": hold, **_means(trades, paid_usd=paid)}
        for hold, trades, paid in zip(holds, trades_of(configs), paid_usd, strict=True)
    ]
    return _result(pl.DataFrame(rows, infer_schema_length=None))


def _held(tables: dict[str, Any]) -> dict[str, Any]:
    """The configuration with trades of one size that only the longest hold ends."""
    if tables["fills"]["atomicity"] == "naked":
        raise ConfigError(
            "a single leg that is kept is no carry and has no break-even",
            where={"key": "fills.atomicity"},
            fix='set fills.atomicity to "rollback" or "match"',
        )
    size = tables["size"]
    return replaced(
        tables,
        {
            "rule.exit": NEVER, "rule.min_hold_hours": 0.0, "rule.stop_loss_pct": None,
            "size.capital_usd": size["capital_usd"] * ROOM, "size.allocation": size["allocation"] / ROOM,
            "size.compounding": False,
            "wallets.mode": "pooled", "wallets.margin": "none", "wallets.rebalance_below": None,
            "wallets.cash_yield_apr": 0.0,
        },
    )  # fmt: skip


def _means(trades: pl.DataFrame, *, paid_usd: float) -> dict[str, Any]:
    """What a hold gives; costs that belong to no trade (entries that were closed again) are shared out by notional."""
    own_usd, notional_usd = trades.select("costs_usd", "entry_notional_usd").sum().row(0)
    lost_bps = 1e4 * (paid_usd - own_usd) / notional_usd if notional_usd else 0.0
    closed = trades.filter(pl.col("exit_ts").is_not_null()).select(
        "hold_hours",
        *((1e4 * pl.col(f"{name}_usd") / pl.col("entry_notional_usd")).alias(name)
          for name in ("funding", "basis", "costs", "pnl")),
    )  # fmt: skip
    costs, pnl = pl.col("costs") + lost_bps, pl.col("pnl") - lost_bps
    return closed.select(
        n_trades=pl.len(),
        mean_hold_hours=pl.col("hold_hours").mean(),
        funding_bps=pl.col("funding").mean(),
        basis_bps=pl.col("basis").mean(),
        costs_bps=costs.mean(),
        other_bps=(pnl + costs - pl.col("funding") - pl.col("basis")).mean().round(9) + 0.0,
        pnl_per_trade_bps=pnl.mean(),
        won_frac=(pnl > 0.0).mean(),
    ).row(0, named=True)


def _result(frame: pl.DataFrame) -> Breakeven:
    held = frame.filter(pl.col("n_trades") > 0)
    if held.is_empty():
        raise ConfigError(
            "no trade is closed within the span at any hold",
            where={"shortest hold, hours": frame["hold_hours"][0]},
            fix="hold for shorter, or take a longer span",
        )
    first_hours, first_bps = held.select("hold_hours", "pnl_per_trade_bps").row(0)
    found = crossings(frame["hold_hours"], frame["pnl_per_trade_bps"], is_log=True)
    rising = [one.at for one in found if one.is_up]
    funding_bps, held_hours, round_trip_bps = held.select(
        pl.col("funding_bps").dot("n_trades"),
        pl.col("mean_hold_hours").dot("n_trades"),
        pl.col("costs_bps").mean(),
    ).row(0)
    rate = funding_bps / held_hours
    return Breakeven(
        frame=frame,
        breakeven_hours=first_hours if first_bps >= 0.0 else rising[0] if rising else None,
        round_trip_bps=round_trip_bps,
        funding_bps_per_hour=rate,
        closed_form_hours=max(round_trip_bps, 0.0) / rate if rate > 0.0 else None,
    )
