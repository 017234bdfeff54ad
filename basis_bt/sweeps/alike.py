"""Trials that are compared with each other, and so must differ in nothing but what is asked about."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from basis_bt.core.errors import ConfigError
from basis_bt.core.sweep_spec import replaced
from basis_bt.sweeps.batch import METRICS
from basis_bt.sweeps.engine import sweep

COSTS = (
    "fees_usd", "slippage_usd", "rollback_usd", "borrow_usd", "transfer_usd", "delivery_fee_usd", "liquidation_usd",
)  # fmt: skip


def costs_usd() -> pl.Expr:
    """Everything a trial paid, positive when paid."""
    return pl.sum_horizontal(COSTS)


def metrics_alike(tables: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> pl.DataFrame:
    """Metrics and status of the trials of one configuration; the n-th has the n-th value of every axis.

    It is a zipped sweep. Random draws depend on the number of a trial, so that where fills are drawn each trial is a
    sweep of its own: all are then number 0, as in ``run``, and have the same luck.

    Raises
    ------
    ConfigError
        If none of them trades.
    """
    fills = tables["fills"]
    if fills["model"] == "bernoulli" or fills["reject_probability"] > 0.0:
        chosen = [dict(zip(axes, row, strict=True)) for row in zip(*axes.values(), strict=True)]
        trials = [sweep({**replaced(tables, one), "sweep": {"best": 0}}).trials for one in chosen]
    else:
        lists = {key: list(values) for key, values in axes.items()}
        trials = [sweep({**replaced(tables, lists), "sweep": {"design": "zip", "best": 0}}).trials]
    metrics = pl.concat([one.select("status", *METRICS) for one in trials])
    if not metrics["n_trades"].sum():
        raise ConfigError(
            "nothing is traded",
            where={"refused entries": metrics["n_refused"].sum(), "status": ", ".join(metrics["status"].unique())},
            fix="lower rule.entry, or lift what refuses entries",
        )
    return metrics
