"""A journal as a run folder: the tables of a backtest, so that whatever reads runs reads trading too."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from basis_bt.backtest.engine import parameter_columns, versions
from basis_bt.core.config import build_config
from basis_bt.core.errors import StoreError
from basis_bt.core.instruments import Instrument
from basis_bt.core.rulebook import rulebook_hash
from basis_bt.core.units import US_PER_HOUR, from_us
from basis_bt.frames.settlements import MARK_SOURCES
from basis_bt.kernels.status import OK
from basis_bt.kernels.structs import BOOK_SIGNS, Recorded, Totals, recorded
from basis_bt.live import tables as live_tables
from basis_bt.live.event_types import MARK, SESSION_END, SESSION_START, TRADE
from basis_bt.live.journal import Journal
from basis_bt.store.folder import check_target, save_run

BOOKS_TOLERANCE = 1e-9  # of the turnover, as for runs


def export_run(journal: Journal, *, root: str | Path, name: str, overwrite: bool = False) -> Path:
    """Write a journal as a run folder of ``root``; returns the folder. The journal is only read.

    Tables have the columns and types of a backtest's. Rows of equity are its marks, fills its leg results, funding its
    payments (with the rate that payment, position and price imply, where none was recorded; the flags say how many).
    The metrics come from the function that runs use. The manifest has, beside what a run's has, ``mode``, ``venues``
    and ``journal`` (sha256 of its events, their number, first and last instant, sessions and how many ended).

    Raises
    ------
    ConfigError
        If the name is no run name.
    StoreError
        If the name is taken, or the journal has no session or no mark yet.
    """
    check_target(Path(root), name=name, overwrite=overwrite)
    tables, manifest = journal_tables(journal)
    return save_run(Path(root), name=name, tables=tables, manifest=manifest, overwrite=overwrite)


def journal_tables(journal: Journal) -> tuple[dict[str, pl.DataFrame], dict[str, Any]]:
    """The tables by name and the manifest, as ``export_run`` writes them."""
    sessions = journal.events(SESSION_START)
    marks = list({event.payload["bar_us"]: event.payload for event in journal.events(MARK)}.values())
    if not sessions or not marks:
        missing = "session" if not sessions else "row of equity"
        raise StoreError(f"the journal has no {missing} yet", where={"path": journal.path},
                         fix="export it after the engine has marked its first bar")  # fmt: skip
    marks.sort(key=lambda mark: mark["bar_us"])
    session = sessions[-1].payload
    config = build_config(session["config"])
    legs = [leg.instrument for leg in config.combo.legs]
    capital_usd, bar_us = config.size.capital_usd, config.data.bar_us
    trades = sorted({event.payload["trade"]: event.payload for event in journal.events(TRADE)}.values(),
                    key=lambda trade: trade["trade"])  # fmt: skip
    fills = live_tables.fills_table(journal)
    events = live_tables.events_table(journal)
    funding, n_implied = live_tables.funding_table(journal, marks, legs=legs)
    tables = {
        "equity": live_tables.equity_table(marks, capital_usd=capital_usd),
        "attribution": live_tables.attribution_table(marks, legs=legs),
        "fills": fills,
        "funding": funding,
        "events": events,
        "trades": live_tables.trades_table(trades, marks, bar_us=bar_us),
    }
    if any(mark["wallets_usd"] for mark in marks):
        tables["wallets"] = live_tables.wallets_table(marks)
    rows, totals = _recorded(marks, trades, fills=fills, events=events)
    tables["metrics"] = _metrics_table(parameter_columns(config), rows, totals, marks=marks, capital_usd=capital_usd,
                                       bar_hours=bar_us / US_PER_HOUR)  # fmt: skip
    residual_usd = _residual_usd(rows, capital_usd=capital_usd)
    flags = _flags(journal, session, n_implied=n_implied, stale=int(rows.stale.sum()))
    if not residual_usd <= BOOKS_TOLERANCE * max(totals.turnover_usd, capital_usd):
        flags.append(f"the books leave {residual_usd:.6g} USD of the equity unexplained")
    manifest = _manifest(session, tables, legs=legs, bar_us=bar_us, flags=flags)
    manifest |= {"journal": _journal_facts(journal), "seed": config.fills.seed, "books_residual_usd": residual_usd}
    return tables, manifest


def _recorded(
    marks: Sequence[Mapping[str, Any]], trades: Sequence[Mapping[str, Any]], *, fills: pl.DataFrame,
    events: pl.DataFrame,
) -> tuple[Recorded, Totals]:  # fmt: skip
    """What a trial would have recorded, as far as the metrics look at it."""
    rows = recorded(n_bars=max(len(marks), len(trades)), n_legs=len(marks[0]["close_price"]), n_settlements=0)
    n = len(marks)
    ts_us = live_tables.bars_of(marks)
    for name in ("equity_usd", "cash_usd", "stale", "direction"):
        getattr(rows, name)[:n] = [mark[name] for mark in marks]
    rows.position_base[:n] = [mark["position_base"] for mark in marks]
    rows.books[:n] = live_tables.books_of(marks)
    for k, trade in enumerate(trades):
        entry, exit_ = live_tables.rows_of(trade, ts_us)
        rows.log.trade_bars[k] = (entry, exit_, trade["direction"], -1)
        rows.log.trade_values[k] = (trade["quantity_base"], trade["pnl_usd"] or 0.0)
    counted = {word: int((events["event"] == word).sum())
               for word in ("refused", "rollback", "unfilled", "liquidation", "roll")}  # fmt: skip
    totals = Totals(
        status=OK,
        status_bar=-1,
        n_fills=fills.height,
        n_events=events.height,
        n_trades=len(trades),
        n_refused=counted["refused"],
        n_rollbacks=counted["rollback"],
        n_unfilled=counted["unfilled"],
        n_naked_bars=sum(bool(mark["is_naked"]) for mark in marks),
        n_liquidations=counted["liquidation"],
        n_rolls=counted["roll"],
        min_margin_ratio=_least(marks, "margin_ratio"),
        min_health=_least(marks, "health"),
        turnover_usd=sum(fills["notional_usd"].to_list(), 0.0),  # one after the other, as a trial adds them up
    )
    per_bar = {name: getattr(rows, name)[:n] for name in
               ("equity_usd", "cash_usd", "position_base", "leg_cash_usd", "books", "wallet_cash_usd",
                "in_flight_usd", "stale", "direction")}  # fmt: skip
    return rows._replace(**per_bar), totals


def _least(marks: Sequence[Mapping[str, Any]], name: str) -> float:
    return min((mark[name] for mark in marks if mark[name] is not None), default=math.inf)


def _metrics_table(
    parameters: Mapping[str, Any], rows: Recorded, totals: Totals, *, marks: Sequence[Mapping[str, Any]],
    capital_usd: float, bar_hours: float,
) -> pl.DataFrame:  # fmt: skip
    """One row: trial, parameters, metrics (null for NaN), status; as runs have it."""
    from basis_bt.kernels.metrics import trial_metrics

    close_price = live_tables.by_leg(marks, "close_price")
    close_price.flags.writeable = False  # as those of a panel, for which the kernel is compiled
    metrics = trial_metrics(rows, totals, close_price, capital_usd, bar_hours)
    texts = {name: pl.String for name, value in parameters.items() if value is None or isinstance(value, str)}
    columns = {"trial": 0, **parameters, **metrics._asdict(), "status": "ok"}
    return pl.DataFrame([columns], schema_overrides=texts, infer_schema_length=1).with_columns(
        pl.col(name).cast(pl.Float64).fill_nan(None) for name in metrics._fields if isinstance(columns[name], float)
    )


def _residual_usd(rows: Recorded, *, capital_usd: float) -> float:
    explained = (rows.books @ np.array(BOOK_SIGNS)).sum(axis=1)
    return float(np.abs(rows.equity_usd - capital_usd - explained).max())


def _flags(journal: Journal, session: Mapping[str, Any], *, n_implied: int, stale: int) -> list[str]:
    """What a reader should know before trusting a number; the session's own sentences first."""
    flags = [*session["flags"], *journal.notes]
    if session["mode"] != "replay":
        flags.append(f"this is {session['mode']} trading, exported from its journal")
    if n_implied:
        flags.append(f"{n_implied} funding payments came without their rate: it is what cash, position and the last "
                     "close imply")  # fmt: skip
    n_open = len(journal.open_intents())
    if n_open:
        flags.append(f"{n_open} orders have no end yet: what they fill later is not in these tables")
    if stale:
        flags.append(f"{stale} rows are stale: a held leg had no bar; they are left out of returns and drawdowns")
    return flags


def _journal_facts(journal: Journal) -> dict[str, Any]:
    events = journal.events()
    return {
        "sha256": journal.digest(),
        "n_events": len(events),
        "first": from_us(min(event.ts_us for event in events if event.ts_us)).isoformat(),
        "last": from_us(max(event.ts_us for event in events)).isoformat(),
        "sessions": len(journal.events(SESSION_START)),
        "sessions_ended": len(journal.events(SESSION_END)),
    }


def _manifest(
    session: Mapping[str, Any], tables: Mapping[str, pl.DataFrame], *, legs: Sequence[str], bar_us: int,
    flags: list[str],
) -> dict[str, Any]:  # fmt: skip
    equity, funding = tables["equity"], tables["funding"]
    refused = tables["events"].filter(pl.col("event") == "refused")["reason"].drop_nulls()
    sources = funding.filter(pl.col("position_base") != 0)["mark_source"]
    first, last = equity["ts"][0], equity["ts"][-1]
    data = session["config"]["data"]
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **versions(),
        "mode": session["mode"],
        "venues": list(session["venues"]),
        "config": session["config"],
        "config_hash": session["config_hash"],
        "fees_bps": dict(session["fees_bps"]),
        "inputs": list(session["inputs"]),
        "rulebook_hash": rulebook_hash(),
        "span": {
            "start": data["start"] if session["mode"] == "replay" else first.isoformat(),
            "end": data["end"] if session["mode"] == "replay" else last.isoformat(),
            "first_bar": first.isoformat(),
            "last_bar": last.isoformat(),
            "bar_hours": bar_us / US_PER_HOUR,
            "n_bars": equity.height,
        },
        "counts": {
            "stale_rows": int(equity["stale"].sum()),
            "missing_bars": {},
            "untradable_bars": {},
            "settlements": {leg: int((funding["instrument"] == leg).sum()) for leg in legs
                            if Instrument.parse(leg).is_perp},  # fmt: skip
            "marks": {source: int((sources == source).sum()) for source in MARK_SOURCES},
            "refused": {reason: int((refused == reason).sum()) for reason in refused.unique().sort()},
        },
        "flags": flags,
    }
