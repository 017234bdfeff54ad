"""How much capital a carry bears before what it costs eats what it earns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.core.config import build_config
from basis_bt.core.errors import ConfigError
from basis_bt.core.models import Config
from basis_bt.sweeps.alike import costs_usd, metrics_alike
from basis_bt.sweeps.components import is_any
from basis_bt.sweeps.crossing import crossings
from basis_bt.sweeps.single import log_values, single_tables


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Capacity:
    """Simple annual rates on the initial capital, over that capital.

    ``frame``: ``capital_usd``, ``apr_on_capital`` (net), ``funding_apr``, ``cost_apr`` (all costs, positive when paid),
    ``other_apr`` (basis and the rest; net = funding - cost + other), ``n_trades``, ``n_refused``, ``status``; the rates
    are null where a trial failed.

    ``capacity_usd`` is the first capital at which the net rate falls to 0; None if it does not, above zero throughout
    or never.
    """

    frame: pl.DataFrame
    capacity_usd: float | None


def capacity(
    config: str | Path | Mapping[str, Any], *, from_usd: float = 1e4, to_usd: float = 1e9, steps: int = 31
) -> Capacity:
    """Run a carry with more and more capital, everything else as configured.

    Parameters
    ----------
    config : path of a TOML file or nested dicts, of one backtest with a cost that depends on size
    from_usd, to_usd, steps : capitals, logarithmic

    Raises
    ------
    ConfigError
        If the configuration is a sweep itself, no cost of it depends on size, or nothing is traded at any capital.
    """
    tables = single_tables(config, command="capacity")
    _check_size_matters(build_config(tables))
    capitals = log_values(tables, "size.capital_usd", low=from_usd, high=to_usd, steps=steps)
    metrics = metrics_alike(tables, {"size.capital_usd": capitals})
    metrics = metrics.with_columns(pl.Series("capital_usd", capitals), costs_usd=costs_usd())
    earning = metrics.filter(pl.col("pnl_usd") != 0.0)
    years = earning.select(pl.col("pnl_usd") / (pl.col("apr_on_capital") * pl.col("capital_usd"))).item(0, 0)
    a_year = pl.col("capital_usd") * years
    frame = metrics.with_columns(funding_apr=pl.col("funding_usd") / a_year, cost_apr=pl.col("costs_usd") / a_year)
    other_apr = pl.col("apr_on_capital") - pl.col("funding_apr") + pl.col("cost_apr")
    frame = frame.with_columns(other_apr=other_apr).select(
        "capital_usd", "apr_on_capital", "funding_apr", "cost_apr", "other_apr", "n_trades", "n_refused", "status"
    )
    found = crossings(frame["capital_usd"], frame["apr_on_capital"], is_log=True)
    falling = [one.at for one in found if not one.is_up]
    return Capacity(frame=frame, capacity_usd=falling[0] if falling else None)


def _check_size_matters(config: Config) -> None:
    costs, fills = config.costs, config.fills
    if (
        is_any(costs.impact_coef_bps)
        or costs.bucket_table is not None
        or len(set(costs.bucket_bps)) > 1
        or fills.model == "volume"
        or fills.max_volume_share is not None
    ):
        return
    raise ConfigError(
        "no cost depends on the size of an order, so that any capital earns the same rate",
        where={"key": "costs, fills"},
        fix="set costs.impact_coef_bps, or costs.bucket_usd with bucket_bps, or costs.bucket_table with bucket_pairs, "
        'or fills.model = "volume", or fills.max_volume_share',
    )
