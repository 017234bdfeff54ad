"""What goes into a trial and what comes out: NamedTuples of arrays and scalars, every field passed."""

from typing import NamedTuple

import numpy as np


class Market(NamedTuple):
    """Bars ``(n_bars, n_legs)`` and settlements ``(n_settlements,)`` sorted by bar, leg, time.

    ``open_price`` and ``close_price`` are the last closes where there is no bar; ``missing`` and ``tradable`` tell.
    ``signal`` and ``basis_bps`` hold at row t what is known at the decision of bar t, NaN for null.
    Settlements of bar t are rows ``first_settlement[t]`` to ``first_settlement[t + 1]``.
    """

    open_price: np.ndarray
    close_price: np.ndarray
    volume_before: np.ndarray
    tradable: np.ndarray
    missing: np.ndarray
    signal: np.ndarray
    basis_bps: np.ndarray
    first_settlement: np.ndarray
    settlement_leg: np.ndarray
    funding_rate: np.ndarray
    mark_price: np.ndarray


class ComboParams(NamedTuple):
    """Ratios of the legs, their margin weights (1, or 1 / leverage), the leg whose price is the reference S."""

    ratio: np.ndarray
    margin_weight: np.ndarray
    reference_leg: int


class RuleParams(NamedTuple):
    """Threshold rule; options that are off are -1 bars or NaN."""

    entry: float
    exit: float
    reverse: bool
    min_hold_bars: int
    max_hold_bars: int
    cooldown_bars: int
    stop_loss_pct: float
    max_basis_bps: float


class SizeParams(NamedTuple):
    """Capital, allocation, and the lot of the combo (0: none) with the legs' minimum notionals."""

    capital_usd: float
    allocation: float
    compounding: bool
    lot: float
    min_notional_usd: np.ndarray


class CostParams(NamedTuple):
    """Costs by leg ``(n_legs,)``; bucket tables ``(n_legs, n_days, n_edges)`` on log notionals, empty for none.

    ``bucket_row`` gives the day of the table for each bar; ``base_fee_frac`` is the fee taken in base on a buy.
    """

    half_spread_bps: np.ndarray
    fee_bps: np.ndarray
    base_fee_frac: np.ndarray
    bucket_usd: np.ndarray
    bucket_bps: np.ndarray
    bucket_row: np.ndarray
    impact_coef_bps: np.ndarray
    impact_exponent: float


class FillParams(NamedTuple):
    """Bars between a decision and the first bar it may fill in."""

    latency_bars: int


class Recorded(NamedTuple):
    """Rows a trial writes. ``books`` is cumulative, ``(n_bars, n_legs, N_BOOKS)``; ``fill_values`` has FILL_COLUMNS."""

    equity_usd: np.ndarray
    cash_usd: np.ndarray
    position_base: np.ndarray
    leg_cash_usd: np.ndarray
    books: np.ndarray
    stale: np.ndarray
    direction: np.ndarray
    settlement_position: np.ndarray
    fill_index: np.ndarray
    fill_values: np.ndarray
    event_index: np.ndarray
    event_quantity: np.ndarray
    trade_bars: np.ndarray
    trade_values: np.ndarray


class Totals(NamedTuple):
    """How a trial ended, and how many rows of each list it wrote."""

    status: int
    status_bar: int
    n_fills: int
    n_events: int
    n_trades: int
    n_refused: int
    turnover_usd: float


# columns of Recorded.books
DELTA, BASIS, FUNDING, FEES, SPREAD, BUCKET, IMPACT, DELAY = range(8)
N_BOOKS = 8
BOOKS = ("delta", "basis", "funding", "fees", "spread", "bucket", "impact", "delay")
BOOK_SIGNS = (1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0)

# columns of Recorded.fill_index and Recorded.fill_values
FILL_INDEX = ("bar", "leg", "trade", "action", "reason", "decision_bar", "side")
FILL_COLUMNS = (
    "quantity_base", "position_change_base", "arrival_price", "reference_price", "fill_price",
    "delay_usd", "spread_usd", "bucket_usd", "impact_usd", "fee_usd",
)  # fmt: skip

# columns of Recorded.event_index; trade_bars has entry, exit or -1, direction, reason; trade_values quantity and PnL
EVENT_INDEX = ("bar", "event", "reason", "direction")
EVENTS = ("entry", "exit", "refused", "waiting")
ENTRY, EXIT, REFUSED, WAITING = range(4)
REASONS = ("signal", "stop", "max_hold", "size", "min_notional", "basis", "untradable")
SIGNAL, STOP, MAX_HOLD, SIZE, MIN_NOTIONAL, MAX_BASIS, UNTRADABLE = range(7)


def recorded(*, n_bars: int, n_legs: int, n_settlements: int) -> Recorded:
    """Empty rows for a trial; pages are touched as they are written."""
    return Recorded(
        equity_usd=np.zeros(n_bars),
        cash_usd=np.zeros(n_bars),
        position_base=np.zeros((n_bars, n_legs)),
        leg_cash_usd=np.zeros((n_bars, n_legs)),
        books=np.zeros((n_bars, n_legs, N_BOOKS)),
        stale=np.zeros(n_bars, dtype=np.bool_),
        direction=np.zeros(n_bars, dtype=np.int8),
        settlement_position=np.zeros(n_settlements),
        fill_index=np.zeros((n_bars * n_legs, len(FILL_INDEX)), dtype=np.int64),
        fill_values=np.zeros((n_bars * n_legs, len(FILL_COLUMNS))),
        event_index=np.zeros((2 * n_bars, len(EVENT_INDEX)), dtype=np.int64),
        event_quantity=np.zeros(2 * n_bars),
        trade_bars=np.zeros((n_bars, 4), dtype=np.int64),
        trade_values=np.zeros((n_bars, 2)),
    )
