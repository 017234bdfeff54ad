"""How much a result hangs on each cost that a configuration assumes."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.core.config import build_config
from basis_bt.core.errors import ConfigError, KernelError
from basis_bt.sweeps.alike import metrics_alike
from basis_bt.sweeps.components import cost_components, later, scaled
from basis_bt.sweeps.crossing import crossings
from basis_bt.sweeps.single import single_tables

SCALES = (0.0, 0.5, 1.0, 1.5, 2.0)
BARS_LATER = (1, 2)
LATENCY = "latency, ×2: 1 bar more"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sensitivity:
    """PnL with one cost component scaled and all else as configured, the component that moves it most first.

    ``frame``: ``component``, ``scale`` (1 is as configured; of the latency 1 + n is n bars later), ``pnl_usd`` and
    ``change_usd``, null where a trial failed. ``components``: ``component``, ``key``, ``effect_usd`` (the largest
    change, without its sign) and ``breakeven_scale``, the first scale at which the PnL is 0, null if none within the
    scales looked at.
    """

    pnl_usd: float
    frame: pl.DataFrame
    components: pl.DataFrame


def sensitivity(config: str | Path | Mapping[str, Any], *, scales: Sequence[float] = SCALES) -> Sensitivity:
    """Scale each cost component of a configuration, and let orders fill one and two bars later.

    Fees that are left to the venue are taken in numbers first. Where a signal counts with costs (``net_apr``), they
    change what is traded too.

    Parameters
    ----------
    config : path of a TOML file or nested dicts, of one backtest
    scales : factors on a component, 0 or more; 1 is always among them

    Raises
    ------
    ConfigError
        If the configuration is a sweep itself, a fee changes within the run, a scale is negative or takes a component
        out of its bounds, or nothing is traded.
    KernelError
        If the configuration as it is cannot be carried through.
    """
    tables = single_tables(config, command="sensitivity")
    checked = build_config(tables)
    others = sorted({float(scale) for scale in scales} - {1.0})
    if not others or not 0.0 <= others[0] <= others[-1] < float("inf"):
        raise ConfigError(
            f"scales must be numbers from 0, and one of them not 1, found {list(scales)}", fix="e.g. 0, 0.5, 1, 1.5, 2"
        )
    with tempfile.TemporaryDirectory() as folder:
        asked = [
            (component.name, component.key, scale, scaled(component, scale, folder=Path(folder)))
            for component in cost_components(checked)
            for scale in others
        ]
        asked += [(LATENCY, "fills.latency", 1.0 + bars, later(checked, bars)) for bars in BARS_LATER]
        keys = list(dict.fromkeys(key for _, key, _, _ in asked))
        axes = {key: [_value(tables, key), *(to if one == key else _value(tables, key) for _, one, _, to in asked)]
                for key in keys}  # fmt: skip
        pnl_usd, *others_usd = _pnl_usd(tables, axes)
    rows = [(name, key, scale, pnl) for (name, key, scale, _), pnl in zip(asked, others_usd, strict=True)]
    rows += [(name, key, 1.0, pnl_usd) for name, key in dict.fromkeys((name, key) for name, key, _, _ in asked)]
    return _result(rows, pnl_usd=pnl_usd)


def _value(tables: Mapping[str, Any], key: str) -> Any:
    section, _, name = key.partition(".")
    return tables[section][name]


def _pnl_usd(tables: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> list[Any]:
    """The PnL of each trial, None where it failed; the first is that of the configuration as it is."""
    metrics = metrics_alike(tables, axes)
    if metrics["status"][0] != "ok":
        raise KernelError(
            f"the configuration as it is ends with status {metrics['status'][0]}", fix="basis-bt run says more"
        )
    return metrics["pnl_usd"].to_list()


def _result(rows: list[tuple[str, str, float, float | None]], *, pnl_usd: float) -> Sensitivity:
    schema = {"component": pl.String, "key": pl.String, "scale": pl.Float64, "pnl_usd": pl.Float64}
    frame = (
        pl.DataFrame(rows, schema=schema, orient="row")
        .with_columns(change_usd=pl.col("pnl_usd") - pnl_usd)
        .with_columns(effect_usd=pl.col("change_usd").abs().max().over("component"))
        .sort("effect_usd", "component", "scale", descending=[True, False, False])
    )
    components = frame.group_by("component", "key", "effect_usd", maintain_order=True).agg("scale", "pnl_usd")
    places = [
        next((one.at for one in crossings(scale, pnl)), None)
        for scale, pnl in components.select("scale", "pnl_usd").iter_rows()
    ]
    return Sensitivity(
        pnl_usd=pnl_usd,
        frame=frame.select("component", "scale", "pnl_usd", "change_usd"),
        components=components.select("component", "key", "effect_usd").with_columns(
            pl.Series("breakeven_scale", places, dtype=pl.Float64)
        ),
    )
