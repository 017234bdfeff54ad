"""Replay: the live engine over historical bars, its orders filled by the cost functions of a backtest.

What comes out is the ledger that ``basis_bt.run`` gives, trade for trade (``parity.py`` compares them), so what a
strategy does on paper or for real is what was backtested.
"""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.backtest.cost_parameters import resolved_fees_bps
from basis_bt.backtest.parameters import fill_params
from basis_bt.backtest.prepare import Prepared, prepare
from basis_bt.backtest.result import Result
from basis_bt.core.config import config_dict, config_hash, load_config
from basis_bt.core.errors import ConfigError
from basis_bt.core.live_models import Execution, Limits
from basis_bt.core.models import Config, SignalSpec
from basis_bt.core.rulebook import is_coin_margined
from basis_bt.core.units import parse_instant, to_us
from basis_bt.frames.futures import expiry_us_of
from basis_bt.live import event_types
from basis_bt.live.account import Account
from basis_bt.live.combo import Combos
from basis_bt.live.export import journal_tables
from basis_bt.live.guard import RiskGuard
from basis_bt.live.journal import Journal
from basis_bt.live.marks import Session
from basis_bt.live.placing import Desk
from basis_bt.live.replay_venue import BarClock, Failure, ReplayFeed, ReplayVenue
from basis_bt.live.strategy import Strategy
from basis_bt.live.trader import CarriesOut, Trader
from basis_bt.signals import Signal


def replay(
    config: str | Path | Mapping[str, Any] | Config,
    *,
    expression: pl.Expr | None = None,
    warmup_hours: float = 0.0,
    journal: Journal | None = None,
) -> Result:
    """Run a configuration bar by bar through the live engine; the result has the tables of ``basis_bt.run``.

    Parameters
    ----------
    expression, warmup_hours : a signal of your own, as ``run`` takes it
    journal : where the session is written; in memory without one

    Raises
    ------
    ConfigError
        For what a replay cannot do, before anything is read.
    DataError, SignalError, KernelError
        As ``run`` does.
    """
    checked, own = load_config(config), None
    if expression is not None:
        spec = SignalSpec(name="sql", sql=str(expression), warmup_hours=warmup_hours)
        checked = load_config(dataclasses.replace(checked, signal=spec))
        own = Signal(expression=expression, warmup_hours=warmup_hours)
    check_replayable(checked)
    return replay_prepared(prepare(checked, signal=own), journal=journal)


def replay_prepared(
    prepared: Prepared,
    *,
    journal: Journal | None = None,
    combos: Callable[[Desk, Prepared], CarriesOut] | None = None,
) -> Result:
    """The same of what ``prepare`` gives.

    Parameters
    ----------
    combos : makes what carries out the instructions; the live engine's own without it
    """
    started = time.perf_counter()
    own = Journal(None, durable=False) if journal is None else journal
    try:
        asyncio.run(_session(prepared, own, live_combos if combos is None else combos))
        tables, manifest = journal_tables(own)
    finally:
        if journal is None:
            own.close()
    manifest |= {"name": prepared.config.name, "wall_seconds": time.perf_counter() - started}
    return Result(manifest=manifest, tables=tables)


def live_combos(desk: Desk, prepared: Prepared) -> Combos:
    """What carries out instructions in paper and live trading, for a desk whose fills are modelled."""
    config, limits = prepared.config, Limits()
    return Combos(
        desk,
        RiskGuard(limits, config.size.capital_usd),
        instruments=[leg.instrument for leg in config.combo.legs],
        ratios=[leg.ratio for leg in config.combo.legs],
        limits=limits,
        execution=Execution(),
    )


async def _session(prepared: Prepared, journal: Journal, combos: Callable[[Desk, Prepared], CarriesOut]) -> None:
    config, parsed = prepared.config, prepared.config.combo.instruments
    instruments = [leg.instrument for leg in config.combo.legs]
    clock, failure, strategy = BarClock(), Failure(), Strategy(config, parameters=prepared.parameters)
    penalty_bps = prepared.parameters.fills.rollback_penalty_bps
    venues = {
        name: ReplayVenue(name, parsed, failure, penalty_bps=penalty_bps)
        for name in dict.fromkeys(one.venue for one in parsed)
    }
    desk = Desk(venues, journal, clock=clock, execution=Execution(), is_modelled=True)
    trader = Trader(
        strategy,
        Account(
            instruments, ratios=strategy.ratios, reference=strategy.reference_leg, capital_usd=strategy.capital_usd
        ),
        instruments=instruments,
        feed=ReplayFeed(prepared, clock=clock, venues=venues, failure=failure),
        combos=combos(desk, prepared),
        venues=venues,
        journal=journal,
        clock=clock,
        is_modelled=True,
    )
    clock.at_us = int(prepared.panel.ts_us[0])
    session = Session(
        mode="replay",
        config=config_dict(config),
        config_hash=config_hash(config),
        venues=list(venues),
        fees_bps=dict(zip(instruments, resolved_fees_bps(config), strict=True)),
        inputs=[series.manifest_row() for series in prepared.panel.series],
        flags=prepared.flags,
    )
    journal.record(event_types.SESSION_START, session, ts_us=clock.now_us())
    await trader.run()
    journal.append(event_types.SESSION_END, ts_us=clock.now_us())


def check_replayable(config: Config) -> None:
    """Refuse what the live engine does not do with history.

    Raises
    ------
    ConfigError
        Naming the keys and why.
    """
    found = list(_not_replayed(config))
    if found:
        raise ConfigError(
            "this configuration cannot be replayed: " + "; ".join(f"{key}: {why}" for key, why in found),
            where={"key": ", ".join(key for key, _ in found)},
            fix="change these keys, or use basis-bt run, which does all of it",
        )


def _not_replayed(config: Config) -> Iterator[tuple[str, str]]:
    fills, end_us = config.fills, to_us(parse_instant(config.data.end))
    if fills.model != "certain":
        yield "fills.model", f"orders of a replay are filled in full, not by {fills.model}"
    if fills.reject_probability > 0.0:
        yield "fills.reject_probability", "orders of a replay are never refused"
    if len(set(fill_params(config).latency_bars.tolist())) > 1:
        yield "fills.latency", "the live engine sends all legs together, so they have one latency"
    if config.wallets.mode != "pooled":
        yield "wallets.mode", "cash is in one wallet, the live engine moves none between venues by itself"
    if config.wallets.cash_yield_apr != 0.0:
        yield "wallets.cash_yield_apr", "idle cash earns nothing at a venue"
    if config.costs.fee_tier == "volume":
        yield "costs.fee_tier", "the tier of the trailing volume is the venue's to say"
    if config.scenarios:
        yield "scenarios", "they are what-ifs of a backtest"
    if "quote_usd" in config.data.series:
        yield "data.series", "the live engine counts quote currencies as dollars"
    for leg, one in zip(config.combo.legs, config.combo.instruments, strict=True):
        key = f"combo.legs ({leg.instrument})"
        if one.kind not in ("spot", "perp", "future"):
            yield key, "the live engine does not trade on chains"
        elif one.is_chain:
            yield key, "the live engine does not roll futures"
        elif one.kind == "future" and expiry_us_of(one) < end_us:
            yield key, "it is delivered before data.end, and the live engine does not carry out deliveries"
        elif is_coin_margined(one):
            yield key, "the live engine trades no inverse contracts"
        elif one.kind == "spot" and (leg.ratio < 0.0 or config.rule.reverse):
            yield key, "it could be short, and the live engine borrows no coins"
