"""A small run by hand: twelve hourly bars, one trade, two settlements; all tables of a run folder."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.store.query import SCHEMAS

START = datetime(2024, 3, 8, tzinfo=UTC)
SPOT, PERP = "spot:binance:BTC-USDT", "perp:binance:BTC-USDT"
N_BARS = 12
ENTRY, EXIT = 2, 10
QUANTITY = 2.5


def at(hour: float) -> datetime:
    """``hour`` hours after the first bar."""
    return START + timedelta(hours=hour)


def _rows(view: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    schema = SCHEMAS[view]
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema, orient="row")


def run_tables(*, mark_source: str = "mark", signal_hours: float = 72.0) -> dict[str, pl.DataFrame]:
    """Tables in the schemas of a run folder; numbers are round, not a backtest."""
    held = [ENTRY <= hour < EXIT for hour in range(N_BARS)]
    equity = [
        {"trial": 0, "ts": at(h), "equity_usd": 1e6 + h, "cash_usd": 5e5, "notional_usd": 2e5 * held[h],
         "drawdown_frac": 0.0, "signal": None if h < 1 else 0.1, "basis_bps": 3.0 + h, "direction": int(held[h]),
         "stale": False}
        for h in range(N_BARS)
    ]  # fmt: skip
    attribution = [
        {"trial": 0, "ts": at(h), "leg": leg, "instrument": name, "position_base": sign * QUANTITY * held[h],
         "close_price": 42_000.0 + h, **dict.fromkeys(("delta_usd", "basis_usd", "funding_usd", "fees_usd",
         "spread_usd", "bucket_usd", "impact_usd", "delay_usd"), 0.25 * h)}
        for h in range(N_BARS) for leg, (name, sign) in enumerate(((SPOT, 1), (PERP, -1)))
    ]  # fmt: skip
    fills = [
        {"trial": 0, "ts": at(h), "trade": 1, "leg": leg, "instrument": name, "action": action, "reason": "signal",
         "decision_ts": at(h - 1), "side": sign, "quantity_base": QUANTITY, "position_change_base": sign * QUANTITY,
         "arrival_price": 42_000.0, "reference_price": 42_001.0, "fill_price": 42_002.0, "notional_usd": 105_005.0,
         "delay_usd": 2.5, "spread_usd": 2.5, "bucket_usd": 0.0, "impact_usd": 0.0, "fee_usd": 57.75,
         "shortfall_usd": 62.75}
        for h, action, flip in ((ENTRY, "entry", 1), (EXIT, "exit", -1))
        for leg, (name, sign) in enumerate(((SPOT, flip), (PERP, -flip)))
    ]  # fmt: skip
    funding = [
        {"trial": 0, "ts": at(h), "settlement_ts": at(h) + timedelta(milliseconds=late), "known_at": at(h), "leg": 1,
         "instrument": PERP, "funding_rate": 0.0001, "interval_hours": 8.0, "mark_price": 41_995.5,
         "mark_source": mark_source, "position_base": position, "funding_usd": -position * 41_995.5 * 0.0001 + 0.0}
        for h, late, position in ((0, 0, 0.0), (8, 5, -QUANTITY))
    ]  # fmt: skip
    events = [
        {"trial": 0, "ts": at(h), "event": event, "reason": "signal", "direction": 1, "quantity_base": QUANTITY}
        for h, event in ((ENTRY, "entry"), (EXIT, "exit"))
    ]
    trades = [
        {"trial": 0, "trade": 1, "direction": 1, "entry_ts": at(ENTRY), "exit_ts": at(EXIT), "hold_hours": 8.0,
         "quantity_base": QUANTITY, "pnl_usd": 10.5, "funding_usd": 10.5, "basis_usd": 1.0, "delta_usd": 0.0,
         "costs_usd": 1.0, "exit_reason": "signal"}
    ]  # fmt: skip
    wallets = [
        {"trial": 0, "ts": at(h), "wallet": wallet, "cash_usd": 2.5e5, "in_flight_usd": 0.0}
        for h in range(N_BARS) for wallet in ("binance", "bybit")
    ]  # fmt: skip
    metrics = {name: 0.5 for name, dtype in SCHEMAS["trials"].items() if dtype == pl.Float64}
    metrics |= {"trial": 0, "n_trades": 1, "n_refused": 0, "status": "ok", "sharpe": 1.5, "calmar": None}
    return {
        "metrics": _rows("trials", [metrics]).insert_column(1, pl.Series("param_signal_hours", [signal_hours])),
        **{name: _rows(name, rows) for name, rows in (
            ("equity", equity), ("attribution", attribution), ("fills", fills), ("funding", funding),
            ("events", events), ("trades", trades), ("wallets", wallets))},
    }  # fmt: skip


def run_manifest(*, signal_hours: float = 72.0, rate_sha256: str = "f" * 64) -> dict[str, Any]:
    """A manifest with the keys of a run folder."""
    inputs = [
        {"instrument": instrument, "series": series, "path": f"data/{series}.parquet", "sha256": digest, "rows": 12,
         "first": at(0).isoformat(), "last": at(11).isoformat()}
        for instrument, series, digest in ((SPOT, "spot", "a" * 64), (PERP, "perp", "b" * 64), (PERP, "mark", "c" * 64),
                                           (PERP, "funding", rate_sha256))
    ]  # fmt: skip
    return {
        "created": "2024-04-01T12:00:00+00:00",
        "basis_bt": "0.1.0",
        "versions": {"polars": "2.1.0", "python": "3.14"},
        "config": {
            "name": "demo",
            "signal": {"name": "funding_apr", "hours": signal_hours},
            "combo": {"legs": [{"instrument": SPOT, "ratio": 1.0}, {"instrument": PERP, "ratio": -1.0}]},
            "rule": {"entry": 0.08, "exit": 0.0, "reverse": False},
            "size": {"capital_usd": 1_000_000.0, "allocation": 0.9, "leverage": 3.0},
        },
        "config_hash": "0" * 64,
        "seed": 7,
        "inputs": inputs,
        "rulebook_hash": "1" * 64,
        "span": {"start": at(0).isoformat(), "end": at(12).isoformat(), "first_bar": at(0).isoformat(),
                 "last_bar": at(11).isoformat(), "bar_hours": 1.0, "n_bars": N_BARS},
        "counts": {"stale_rows": 0, "untradable_bars": {SPOT: 0, PERP: 0}, "missing_bars": {SPOT: 0, PERP: 0},
                   "settlements": {PERP: 2}, "marks": {"own": 0, "mark": 2, "trade": 0}, "refused": {}},
        "flags": [],
        "wall_seconds": 0.25,
    }  # fmt: skip


def folder_hash(root: Path) -> str:
    """One hash of every path, link and byte under a folder."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        digest.update(f"{path.relative_to(root)}\0{path.is_symlink()}\0".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()
