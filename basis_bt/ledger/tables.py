"""The rows a trial recorded, as the Polars tables that are saved, queried and drawn."""

import numpy as np
import polars as pl

from basis_bt.core.rulebook import exchange
from basis_bt.frames.panel import Panel
from basis_bt.frames.settlements import MARK_SOURCES
from basis_bt.kernels.structs import (
    BASIS,
    BOOK_SIGNS,
    BOOKS,
    DELTA,
    EVENTS,
    FILL_COLUMNS,
    FUNDING,
    REASONS,
    Market,
    Recorded,
    Totals,
)
from basis_bt.market.schemas import TS


def _instants(us: np.ndarray) -> pl.Series:
    return pl.Series(np.ascontiguousarray(us, dtype=np.int64)).cast(TS)


def _words(codes: np.ndarray, words: tuple[str, ...]) -> pl.Series:
    return pl.Series([words[code] if code >= 0 else None for code in codes.tolist()], dtype=pl.String)


def _with_trial(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(pl.lit(0, dtype=pl.Int64).alias("trial"), pl.all())


def equity_table(panel: Panel, market: Market, rows: Recorded, *, capital_usd: float) -> pl.DataFrame:
    """One row a bar: equity at the closes, cash, gross notional, drawdown, what the decision saw, direction, stale."""
    peak = np.maximum.accumulate(np.maximum(np.where(rows.stale, -np.inf, rows.equity_usd), capital_usd))
    return _with_trial(
        pl.DataFrame(
            {
                "ts": _instants(panel.ts_us),
                "equity_usd": rows.equity_usd,
                "cash_usd": rows.cash_usd,
                "notional_usd": np.abs(rows.position_base * panel.close_price).sum(axis=1),
                "drawdown_frac": np.maximum(1.0 - rows.equity_usd / peak, 0.0),
                "signal": pl.Series(market.signal, nan_to_null=True),
                "basis_bps": pl.Series(market.basis_bps, nan_to_null=True),
                "direction": rows.direction,
                "stale": rows.stale,
            }
        )
    )


def attribution_table(panel: Panel, rows: Recorded) -> pl.DataFrame:
    """One row a bar and leg: position, price, and where the result came from, cumulative in USD."""
    n_bars, n_legs = rows.position_base.shape
    columns = {f"{book}_usd": rows.books[:, :, index].ravel() for index, book in enumerate(BOOKS)}
    return _with_trial(
        pl.DataFrame(
            {
                "ts": _instants(np.repeat(panel.ts_us, n_legs)),
                "leg": np.tile(np.arange(n_legs, dtype=np.int8), n_bars),
                "instrument": _words(np.tile(np.arange(n_legs), n_bars), tuple(map(str, panel.instruments))),
                "position_base": rows.position_base.ravel(),
                "close_price": panel.close_price.ravel(),
                **columns,
            }
        )
    )


def wallets_table(panel: Panel, rows: Recorded) -> pl.DataFrame:
    """One row a bar and wallet: its cash at the end of the bar, and what is under way between all of them."""
    venues = list(dict.fromkeys(exchange(instrument.venue) for instrument in panel.instruments))
    n_bars = panel.n_bars
    return _with_trial(
        pl.DataFrame(
            {
                "ts": _instants(np.repeat(panel.ts_us, len(venues))),
                "wallet": venues * n_bars,
                "cash_usd": rows.wallet_cash_usd.ravel(),
                "in_flight_usd": np.repeat(rows.in_flight_usd, len(venues)),
            }
        )
    )


def fills_table(panel: Panel, rows: Recorded, totals: Totals) -> pl.DataFrame:
    """One row a leg filled: quantity, prices, and each component of its cost."""
    index, values = rows.log.fill_index[: totals.n_fills], rows.log.fill_values[: totals.n_fills]
    bar, leg, trade, action, reason, decision, side = (index[:, k] for k in range(7))
    columns = dict(zip(FILL_COLUMNS, values.T.copy(), strict=True))
    cost_columns = ("delay_usd", "spread_usd", "bucket_usd", "impact_usd", "fee_usd")
    prices = {name: column for name, column in columns.items() if name not in cost_columns}
    costs = {name: columns[name] for name in cost_columns}
    return _with_trial(
        pl.DataFrame(
            {
                "ts": _instants(panel.ts_us[bar]),
                "trade": trade,
                "leg": leg.astype(np.int8),
                "instrument": _words(leg, tuple(map(str, panel.instruments))),
                "action": _words(action, EVENTS),
                "reason": _words(reason, REASONS),
                "decision_ts": _instants(panel.ts_us[decision]),
                "side": side.astype(np.int8),
                **prices,
                "notional_usd": columns["quantity_base"] * columns["fill_price"],
                **costs,
                "shortfall_usd": sum(costs.values()),
            }
        )
    )


def funding_table(panel: Panel, market: Market, order: np.ndarray, rows: Recorded) -> pl.DataFrame:
    """One row a settlement within the run, also where nothing was held: rate, mark and its source, position, cash.

    ``order`` is the place of each settlement of the market within the concatenated settlements of all legs.
    """
    parts = list(panel.settlements.values())

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])[order] if parts else np.empty(0)

    n_in_bar = np.diff(market.first_settlement)
    position = rows.settlement_position
    return _with_trial(
        pl.DataFrame(
            {
                "ts": _instants(np.repeat(panel.ts_us, n_in_bar)),
                "settlement_ts": _instants(column("raw_us")),
                "known_at": _instants(column("known_us")),
                "leg": market.settlement_leg.astype(np.int8),
                "instrument": _words(market.settlement_leg, tuple(map(str, panel.instruments))),
                "funding_rate": market.funding_rate,
                "interval_hours": pl.Series(column("interval_hours"), nan_to_null=True),
                "mark_price": pl.Series(market.mark_price, nan_to_null=True),
                "mark_source": _words(column("mark_source").astype(np.int64), MARK_SOURCES),
                "position_base": position,
                "funding_usd": rows.settlement_usd,
            }
        )
    )


def events_table(panel: Panel, rows: Recorded, totals: Totals) -> pl.DataFrame:
    """One row an event: orders decided, refused, or waiting for a tradable bar."""
    index = rows.log.event_index[: totals.n_events]
    return _with_trial(
        pl.DataFrame(
            {
                "ts": _instants(panel.ts_us[index[:, 0]]),
                "event": _words(index[:, 1], EVENTS),
                "reason": _words(index[:, 2], REASONS),
                "direction": index[:, 3].astype(np.int8),
                "quantity_base": rows.log.event_quantity[: totals.n_events],
            }
        )
    )


def trades_table(panel: Panel, rows: Recorded, totals: Totals) -> pl.DataFrame:
    """One row a round trip, with where its result came from; an open trade is measured at the last close."""
    n = totals.n_trades
    entry, exit_, direction, reason = (rows.log.trade_bars[:n, k] for k in range(4))
    open_trade = exit_ < 0
    last = np.where(open_trade, panel.n_bars - 1, exit_)
    parts = rows.books.sum(axis=1)
    before = np.where(entry[:, None] > 0, parts[np.maximum(entry - 1, 0)], 0.0)
    gained = parts[last] - before
    exit_ts = pl.Series(np.ascontiguousarray(panel.ts_us[last])).cast(TS)
    signs = np.array(BOOK_SIGNS)
    costs = gained @ np.where(signs < 0.0, 1.0, 0.0)
    return _with_trial(
        pl.DataFrame(
            {
                "trade": np.arange(1, n + 1, dtype=np.int64),
                "direction": direction.astype(np.int8),
                "entry_ts": _instants(panel.ts_us[entry]),
                "exit_ts": exit_ts,
                "hold_hours": (last - entry) * panel.bar_hours,
                "quantity_base": rows.log.trade_values[:n, 0],
                "pnl_usd": gained @ signs,
                "funding_usd": gained[:, FUNDING],
                "basis_usd": gained[:, BASIS],
                "delta_usd": gained[:, DELTA],
                "costs_usd": costs,
                "exit_reason": _words(reason, REASONS),
                "open": open_trade,
            }
        )
        .with_columns(exit_ts=pl.when(~pl.col("open")).then("exit_ts"))
        .drop("open")
    )
