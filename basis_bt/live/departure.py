"""A journal of paper or live trading beside what the model would have done on the market data it recorded."""

import dataclasses
from pathlib import Path

import polars as pl

from basis_bt.backtest import run
from basis_bt.core.config import build_config
from basis_bt.core.errors import StoreError
from basis_bt.core.units import from_us
from basis_bt.live.divergence import divergence
from basis_bt.live.event_types import MARK, SESSION_START
from basis_bt.live.journal import Journal
from basis_bt.live.session import MARKET


def departure(folder: Path) -> tuple[pl.DataFrame, str]:
    """Per trade and cause, reality less model, and a title; the model runs over the bars that the journal has marked.

    Raises
    ------
    StoreError
        If the journal has no bar yet.
    """
    with Journal(folder, read_only=True) as journal:
        starts, marks = journal.events(SESSION_START), journal.events(MARK)
        if not starts or not marks:
            raise StoreError("the journal has no bar yet", where={"path": folder}, fix="wait for its first bar to end")
        config = build_config(starts[-1].payload["config"])
        bars_us = [event.payload["bar_us"] for event in marks]
        data = dataclasses.replace(
            config.data, root=str(folder / MARKET), start=from_us(min(bars_us)).isoformat(),
            end=from_us(max(bars_us) + config.data.bar_us).isoformat(), checks="clean",
        )  # fmt: skip
        model = run(dataclasses.replace(config, data=data, live=None))
        mode = starts[-1].payload["mode"]
        return divergence(journal, model), f"{config.name}: {mode} and model"
