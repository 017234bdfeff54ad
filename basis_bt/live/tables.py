"""The tables of a run from the events of a journal; columns and types are those of ``store.query.SCHEMAS``."""

import bisect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from basis_bt.core.units import US_PER_HOUR
from basis_bt.kernels.structs import BASIS, BOOK_SIGNS, BOOKS, DELTA, FUNDING
from basis_bt.live import event_types as kinds
from basis_bt.live.holdings import Holdings
from basis_bt.live.journal import Journal
from basis_bt.store.query import SCHEMAS

Rows = Sequence[Mapping[str, Any]]
_ACTIONS = {"stop": "exit", "unwind": "exit", "fallback": "entry"}
_EVENTS = (kinds.DECISION, kinds.REFUSED, kinds.INCIDENT, kinds.BREAKER_OPEN, kinds.BREAKER_RESET, kinds.LATE_FILL)


def bars_of(marks: Rows) -> np.ndarray:
    """Opens of the marks' bars, epoch us."""
    return np.array([mark["bar_us"] for mark in marks], dtype=np.int64)


def by_leg(marks: Rows, name: str) -> np.ndarray:
    """A sequence of the marks as ``(n_marks, n_legs)``."""
    return np.array([mark[name] for mark in marks], dtype=np.float64)


def books_of(marks: Rows) -> np.ndarray:
    """The marks' books as ``(n_marks, n_legs, N_BOOKS)``, zero where a mark does not name one."""
    zeros = [0.0] * len(marks[0]["close_price"])
    return np.array([np.transpose([mark["books"].get(book, zeros) for book in BOOKS]) for mark in marks])


def rows_of(trade: Mapping[str, Any], ts_us: np.ndarray) -> tuple[int, int]:
    """The marks in whose bars a round trip began and ended; -1 for an open end."""
    entry, exit_ = (-1 if trade[name] is None else int(np.searchsorted(ts_us, trade[name], side="right")) - 1
                    for name in ("entry_us", "exit_us"))  # fmt: skip
    return max(entry, 0), exit_


def equity_table(marks: Rows, *, capital_usd: float) -> pl.DataFrame:
    """One row a mark."""
    equity_usd = np.array([mark["equity_usd"] for mark in marks], dtype=np.float64)
    stale = np.array([mark["stale"] for mark in marks], dtype=np.bool_)
    peak = np.maximum(np.maximum.accumulate(np.where(stale, -np.inf, equity_usd)), capital_usd)
    plain = ("equity_usd", "cash_usd", "signal", "basis_bps", "direction", "stale")
    return _table("equity", {
        "ts": bars_of(marks),
        **{name: [mark[name] for mark in marks] for name in plain},
        "notional_usd": np.abs(by_leg(marks, "position_base") * by_leg(marks, "close_price")).sum(axis=1),
        "drawdown_frac": np.maximum(1.0 - equity_usd / peak, 0.0),
    })  # fmt: skip


def attribution_table(marks: Rows, *, legs: Sequence[str]) -> pl.DataFrame:
    """One row a mark and leg."""
    books, n_marks = books_of(marks), len(marks)
    return _table("attribution", {
        "ts": np.repeat(bars_of(marks), len(legs)),
        "leg": list(range(len(legs))) * n_marks,
        "instrument": list(legs) * n_marks,
        "position_base": by_leg(marks, "position_base").ravel(),
        "close_price": by_leg(marks, "close_price").ravel(),
        **{f"{book}_usd": books[:, :, index].ravel() for index, book in enumerate(BOOKS)},
    })  # fmt: skip


def wallets_table(marks: Rows) -> pl.DataFrame:
    """One row a mark and wallet."""
    rows = [(mark, wallet) for mark in marks for wallet in mark["wallets_usd"]]
    return _table("wallets", {
        "ts": [mark["bar_us"] for mark, _ in rows],
        "wallet": [wallet for _, wallet in rows],
        "cash_usd": [mark["wallets_usd"][wallet] for mark, wallet in rows],
        "in_flight_usd": [mark["in_flight_usd"] for mark, _ in rows],
    })  # fmt: skip


def fills_table(journal: Journal) -> pl.DataFrame:
    """One row a leg result of which something filled; ``quantity_base`` is what filled, before a fee taken in base."""
    rows = [event.payload for event in journal.events(kinds.LEG_RESULT) if event.payload["filled_base"]]
    costs = ("delay_usd", "spread_usd", "bucket_usd", "impact_usd", "fee_usd")
    same = ("leg", "instrument", "side", "position_change_base", "arrival_price", "reference_price", "fill_price",
            "notional_usd", *costs)  # fmt: skip
    return _table("fills", {
        "ts": [_first(row, "bar_us", "done_us") for row in rows],
        "trade": [row.get("trade") or 0 for row in rows],
        "action": [row.get("action") or _ACTIONS.get(row["purpose"], row["purpose"]) for row in rows],
        "reason": [row.get("cause") for row in rows],
        "decision_ts": [_first(row, "decision_bar_us", "decided_us") for row in rows],
        "quantity_base": [row["filled_base"] for row in rows],
        **{name: [row[name] for row in rows] for name in same},
        "shortfall_usd": [sum(row[cost] for cost in costs) for row in rows],
    })  # fmt: skip


def events_table(journal: Journal) -> pl.DataFrame:
    """One row a decision, refusal, incident or turn of the circuit breaker."""
    events = journal.events(_EVENTS)
    return _table("events", {
        "ts": [_first(event.payload, "bar_us", default=event.ts_us) for event in events],
        "event": [event.payload.get("event") or event.type for event in events],
        "reason": [event.payload.get("reason") for event in events],
        "direction": [event.payload.get("direction") or 0 for event in events],
        "quantity_base": [event.payload.get("quantity_base") or 0.0 for event in events],
    })  # fmt: skip


def funding_table(journal: Journal, marks: Rows, *, legs: Sequence[str]) -> tuple[pl.DataFrame, int]:
    """One row a payment, and how many of them came without a rate.

    What was not recorded is filled in: the position that the fills before the settlement leave, the close of the last
    mark before it as a trade's price, and the rate at which both give the cash (0 where there is no position).
    """
    ts_us, held, rows, n_implied = bars_of(marks), _PositionsAt(journal), [], 0
    for event in journal.events(kinds.FUNDING):
        row, leg = dict(event.payload), legs.index(str(event.instrument))
        settlement_us = _first(row, "settlement_us", "ts_us")
        bar = max(int(np.searchsorted(ts_us, settlement_us, side="right")) - 1, 0)
        row |= {"ts": _first(row, "bar_us", default=ts_us[bar]), "settlement_ts": settlement_us, "leg": leg}
        row |= {"known_at": _first(row, "known_at_us", default=settlement_us)}
        row["funding_usd"] = _first(row, "amount_usd", "amount")
        if row.get("position_base") is None:
            row["position_base"] = held.before(row["instrument"], settlement_us)
        if row.get("mark_price") is None and row.get("funding_rate") is None:
            row |= {"mark_price": marks[max(bar - 1, 0)]["close_price"][leg], "mark_source": "trade"}
        if row.get("funding_rate") is None:
            worth = -row["position_base"] * (row["mark_price"] or 0.0)
            row["funding_rate"] = row["funding_usd"] / worth if worth else 0.0
            n_implied += 1
        rows.append(row)
    schema = SCHEMAS["funding"]
    columns = {name: [row.get(name) for row in rows] for name in schema if name != "trial"}
    return _table("funding", columns), n_implied


def trades_table(trades: Rows, marks: Rows, *, bar_us: int) -> pl.DataFrame:
    """One row a round trip, with where its result came from; an open one is measured at the last mark."""
    ts_us, parts = bars_of(marks), books_of(marks).sum(axis=1)
    spans = [rows_of(trade, ts_us) for trade in trades]
    gained = np.zeros((len(trades), len(BOOKS)))
    for k, (entry, exit_) in enumerate(spans):
        gained[k] = parts[exit_] - (parts[entry - 1] if entry > 0 else 0.0)  # -1: the last mark
    signs = np.array(BOOK_SIGNS)
    ends = [exit_ if exit_ >= 0 else len(ts_us) - 1 for _, exit_ in spans]
    plain = ("trade", "direction", "quantity_base", "exit_reason")
    return _table("trades", {
        **{name: [trade[name] for trade in trades] for name in plain},
        "entry_ts": [ts_us[entry] for entry, _ in spans],
        "exit_ts": [None if exit_ < 0 else ts_us[exit_] for _, exit_ in spans],
        "hold_hours": [(end - entry) * (bar_us / US_PER_HOUR) for end, (entry, _) in zip(ends, spans, strict=True)],
        "pnl_usd": gained @ signs,
        "funding_usd": gained[:, FUNDING],
        "basis_usd": gained[:, BASIS],
        "delta_usd": gained[:, DELTA],
        "costs_usd": gained @ np.where(signs < 0.0, 1.0, 0.0),
    })  # fmt: skip


class _PositionsAt:
    """Positions that the fills before an instant leave."""

    def __init__(self, journal: Journal) -> None:
        holdings = Holdings()
        self._after: dict[str, list[tuple[int, float]]] = {}  # by instrument: instants of fills, and what they left
        for event in sorted(journal.events(kinds.FILL), key=lambda event: event.ts_us):
            holdings.apply(event)
            name = str(event.instrument)
            self._after.setdefault(name, []).append((event.ts_us, holdings.positions_base()[name]))

    def before(self, instrument: str, ts_us: int) -> float:
        fills = self._after.get(instrument, [])
        n_before = bisect.bisect_left(fills, ts_us, key=lambda fill: fill[0])
        return fills[n_before - 1][1] if n_before else 0.0


def _first(row: Mapping[str, Any], *names: str, default: Any = None) -> Any:
    """The first of these that is known."""
    return next((row[name] for name in names if row.get(name) is not None), default)


def _table(view: str, columns: Mapping[str, Iterable[Any]]) -> pl.DataFrame:
    """A table in the order and the types of its schema, trial 0."""
    schema = {name: dtype for name, dtype in SCHEMAS[view].items() if name != "trial"}
    series = [_series(name, columns[name], dtype) for name, dtype in schema.items()]
    return pl.DataFrame(series).select(pl.lit(0, dtype=pl.Int64).alias("trial"), pl.all())


def _series(name: str, values: Iterable[Any], dtype: Any) -> pl.Series:
    if isinstance(dtype, pl.Datetime):
        return pl.Series(name, values, dtype=pl.Int64).cast(dtype)
    return pl.Series(name, values, dtype=dtype)
