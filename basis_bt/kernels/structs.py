"""What goes into a trial and what comes out: NamedTuples of arrays and scalars, every field passed."""

from typing import Any, NamedTuple

import numpy as np


class Market(NamedTuple):
    """Bars ``(n_bars, n_legs)`` and settlements ``(n_settlements,)`` sorted by bar, leg, time.

    ``open_price`` and ``close_price`` are the last closes where there is no bar; ``missing`` and ``tradable`` tell.
    ``high_price`` and ``low_price`` are NaN and ``volume`` is 0 there. Margin is tested on ``margin_open`` to
    ``margin_high`` and ``margin_low``: the mark's bars, else the trades', else the last close.
    ``signal`` and ``basis_bps`` hold at row t what is known at the decision of bar t, NaN for null.
    Settlements of bar t are rows ``first_settlement[t]`` to ``first_settlement[t + 1]``.
    """

    open_price: np.ndarray
    high_price: np.ndarray
    low_price: np.ndarray
    close_price: np.ndarray
    volume: np.ndarray
    volume_before: np.ndarray
    margin_open: np.ndarray
    margin_high: np.ndarray
    margin_low: np.ndarray
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
    """Capital, allocation, and lots: of the combo (0: none), and in dollars by leg (contracts of dollars, 0: none).

    ``min_notional_usd`` are the legs' minimum notionals.
    """

    capital_usd: float
    allocation: float
    compounding: bool
    lot: float
    lot_usd: np.ndarray
    min_notional_usd: np.ndarray


class CostParams(NamedTuple):
    """Costs by leg ``(n_legs,)``; bucket tables ``(n_legs, n_days, n_edges)`` on log notionals, empty for none.

    ``bucket_row`` gives the day of the table for each bar. ``fee_bps``, ``maker_fee_bps`` and ``base_fee_frac``, the
    fee taken in base on a buy, are those of the bar: a trial keeps them up to date from ``Fees``.
    """

    half_spread_bps: np.ndarray
    fee_bps: np.ndarray
    maker_fee_bps: np.ndarray
    base_fee_frac: np.ndarray
    bucket_usd: np.ndarray
    bucket_bps: np.ndarray
    bucket_row: np.ndarray
    impact_coef_bps: np.ndarray
    impact_exponent: float


class Fees(NamedTuple):
    """Fees in force: rows ``(n_rows, n_legs)``, and the row of each bar.

    With ``is_by_volume`` they are instead those of the tier of the trailing volume: ``(n_rows, n_legs, n_tiers)`` by
    ascending volume, padded with infinite ones; legs of one ``group`` share their volume, and ``volume_30d_usd`` is
    traded elsewhere. ``is_in_base``: which legs pay the fee of a buy in base.
    """

    fee_bps: np.ndarray
    maker_fee_bps: np.ndarray
    row: np.ndarray
    is_in_base: np.ndarray
    is_by_volume: bool
    tier_volume_usd: np.ndarray
    tier_fee_bps: np.ndarray
    tier_maker_fee_bps: np.ndarray
    group: np.ndarray
    volume_30d_usd: float


class FillParams(NamedTuple):
    """How orders become fills; limits that are off are infinite.

    ``latency_bars`` is by leg ``(n_legs,)``; ``model`` and ``atomicity`` index FILL_MODELS and ATOMICITIES.
    """

    latency_bars: np.ndarray
    model: int
    volume_cap: float
    fill_probability: float
    offset_bps: float
    reject_probability: float
    atomicity: int
    rollback_delay_bars: int
    rollback_penalty_bps: float
    max_cost_bps: float
    max_volume_share: float
    max_spread_bps: float
    seed: int
    trial: int


class WalletParams(NamedTuple):
    """Wallets ``(n_wallets,)`` and what moves between them; limits that are off are infinite.

    ``wallet_of`` is by leg. ``weight`` and ``is_margined`` ``(n_wallets, n_legs)`` are those of ``margin.py``, with
    ``short_weight`` for positions below zero; tiers ``(n_rows, n_legs, n_tiers)`` and liquidation fees
    ``(n_rows, n_legs)`` have the row ``margin_row`` of each bar; ``is_halted`` and ``day`` are by bar.
    """

    wallet_of: np.ndarray
    is_split: bool
    is_tested: bool
    weight: np.ndarray
    short_weight: np.ndarray
    is_margined: np.ndarray
    margin_row: np.ndarray
    floor_usd: np.ndarray
    mmr: np.ndarray
    amount_usd: np.ndarray
    liquidation_fee_bps: np.ndarray
    transfer_bars: int
    transfer_fee_usd: float
    transfer_min_usd: float
    transfer_daily_cap_usd: float
    is_halted: np.ndarray
    day: np.ndarray
    rebalance_below: float


class Contracts(NamedTuple):
    """What legs are beside spot and linear perps; arrays by bar are empty ``(0, ...)`` where nothing of it is on.

    * inverse legs: dollars per contract dollar at the opens, at the closes, and at what step 2 revalues to (the old
      contract's open at a roll), ``(n_bars, n_legs)``;
    * ``wallet_rate``: dollars per unit of the currency of each wallet, ``(n_bars, n_wallets)``;
    * ``borrow_apr`` of bar t - 1, ``(n_bars, n_legs)``, with the venue's periods of hours;
    * ``growth`` of an index, ``(n_bars, n_legs)``; ``cash_yield_frac`` of idle cash per bar;
    * dated futures: bar (-1: never), price, dollars per contract dollar and fee of the delivery; ``is_roll`` and the
      old contract's open ``(n_bars, n_legs)``;
    * ``adl_share`` ``(n_bars, n_legs)``; ``gas_usd`` of a fill ``(n_bars, n_legs)``;
    * ``loan_of``: the loan a leg belongs to, or -1.
    """

    is_inverse: np.ndarray
    rate_open: np.ndarray
    rate_close: np.ndarray
    rate_before: np.ndarray
    wallet_rate: np.ndarray
    bar_hours: float
    borrow_apr: np.ndarray
    borrow_period_hours: np.ndarray
    borrow_opening_periods: np.ndarray
    cash_yield_frac: float
    growth: np.ndarray
    delivery_bar: np.ndarray
    delivery_price: np.ndarray
    delivery_rate: np.ndarray
    delivery_fee_bps: np.ndarray
    is_roll: np.ndarray
    old_open: np.ndarray
    adl_share: np.ndarray
    gas_usd: np.ndarray
    loan_of: np.ndarray
    loan_threshold: float
    loan_bonus: float


class Order(NamedTuple):
    """The order in flight: by leg ``legs`` with rows ORDER_LEGS and ``marks`` with rows ORDER_MARKS, and ``state``.

    WANT is the signed change still to be filled, FILLED what this attempt has filled of it from the position STARTED,
    all net of fees taken in base; EXCESS what has to be closed again, marked last at EXCESS_PRICE. STAGE is PENDING,
    MISSED (a limit that was not reached) or DONE; FILL_BAR and FILL_ROW say when the leg filled and where among the
    fills it stands. ATTEMPT_DELTA and ATTEMPT_BASIS are what this attempt's fills have earned by prices so far.
    """

    legs: np.ndarray
    marks: np.ndarray
    state: np.ndarray


class Account(NamedTuple):
    """What a trial owns and counts: by leg ``legs`` with rows ACCOUNT_LEGS, by wallet, and ``books``.

    HELD is the POSITION with what an order still has to close; BEFORE and CHANGE are the position before the bar's
    fills and what they kept, which is marked from FROM_PRICE. An order dropped in DROPPED_BAR leaves its excess to be
    marked to the end of that bar. OWNED, what fills have left of a leg; FACE of an inverse leg, the RATE of its
    contract dollar now, and its NOTIONAL, fixed in dollars (-1 for other legs); SHORT_SINCE, the bar a leg is short
    since, or -1; GAS of a fill now; TRADED, the turnover so far; HEDGE_RATIO, the ratio as its index has grown.

    ``counts`` has COUNTS, ``sums`` has SUMS. ``weight`` ``(n_wallets, n_legs)`` is that in margin equity as held now;
    ``queue_usd`` what is still to be sent, from and to; ``arriving_usd`` what arrives, by bar and wallet.
    """

    legs: np.ndarray
    books: np.ndarray
    counts: np.ndarray
    sums: np.ndarray
    is_inverse: np.ndarray
    wallet_of: np.ndarray
    wallet_cash_usd: np.ndarray
    weight: np.ndarray
    queue_usd: np.ndarray
    arriving_usd: np.ndarray


class Log(NamedTuple):
    """Lists that a trial appends to; ``fill_values`` has FILL_COLUMNS."""

    fill_index: np.ndarray
    fill_values: np.ndarray
    event_index: np.ndarray
    event_quantity: np.ndarray
    trade_bars: np.ndarray
    trade_values: np.ndarray


class Recorded(NamedTuple):
    """Rows a trial writes, by bar, and its lists. ``books`` is cumulative, ``(n_bars, n_legs, N_BOOKS)``."""

    equity_usd: np.ndarray
    cash_usd: np.ndarray
    position_base: np.ndarray
    leg_cash_usd: np.ndarray
    books: np.ndarray
    wallet_cash_usd: np.ndarray
    in_flight_usd: np.ndarray
    stale: np.ndarray
    direction: np.ndarray
    settlement_position: np.ndarray
    settlement_usd: np.ndarray
    log: Log


class Totals(NamedTuple):
    """How a trial ended, and how many rows of each list it wrote."""

    status: int
    status_bar: int
    n_fills: int
    n_events: int
    n_trades: int
    n_refused: int
    n_rollbacks: int
    n_unfilled: int
    n_naked_bars: int
    n_liquidations: int
    n_rolls: int
    min_margin_ratio: float
    min_health: float
    turnover_usd: float


def _codes(n: int) -> tuple[Any, ...]:
    """Codes that are passed as arguments: a plain int would compile a function once more for every value of it."""
    return tuple(np.int64(code) for code in range(n))


# columns of Recorded.books
(DELTA, BASIS, FUNDING, FEES, SPREAD, BUCKET, IMPACT, DELAY, ROLLBACK_EXECUTION, ROLLBACK_PRICE, TRANSFER,
 LIQUIDATION, BORROW, DELIVERY_FEE, YIELD, FX) = range(16)  # fmt: skip
N_BOOKS = 16
BOOKS = (
    "delta", "basis", "funding", "fees", "spread", "bucket", "impact", "delay", "rollback_execution", "rollback_price",
    "transfer", "liquidation", "borrow", "delivery_fee", "yield", "fx",
)  # fmt: skip
BOOK_SIGNS = (1.0, 1.0, 1.0, *(-1.0,) * 11, 1.0, 1.0)

# how orders fill, and what becomes of a part
FILL_MODELS = ("certain", "volume", "bernoulli", "maker")
CERTAIN, BY_VOLUME, BERNOULLI, MAKER = range(4)
ATOMICITIES = ("rollback", "match", "naked")
BY_ROLLBACK, BY_MATCH, NAKED = range(3)

ORDER_LEGS = ("want", "started", "filled", "excess", "excess_price", "arrival", "attempt_delta", "attempt_basis")
WANT, STARTED, FILLED, EXCESS, EXCESS_PRICE, ARRIVAL, ATTEMPT_DELTA, ATTEMPT_BASIS = range(8)
ORDER_MARKS = ("stage", "fill_bar", "fill_row")
STAGE, FILL_BAR, FILL_ROW = range(3)
PENDING, MISSED, DONE = range(3)  # stages

# Order.state: ACTION is -1 without an order, START_BAR before an attempt, CLOSE_FROM without an excess;
# SINGLE is 1 where every leg is closed for itself, KEPT once a part of the order stays, FUNDED 0 while it waits for
# cash, FORCED 1 for what a liquidation left
ORDER_STATE = (
    "action", "reason", "direction", "decision_bar", "ready_bar", "start_bar", "waited", "close_from", "single", "kept",
    "funded", "forced",
)  # fmt: skip
(ACTION, REASON, DIRECTION, DECISION_BAR, READY_BAR, START_BAR, WAITED, CLOSE_FROM, SINGLE, KEPT, FUNDED,
 FORCED) = range(12)  # fmt: skip

ACCOUNT_LEGS = (
    "position", "held", "before", "change", "leg_cash", "face", "owned", "rate", "notional", "short_since", "gas",
    "traded", "hedge_ratio", "from_price",
)  # fmt: skip
(POSITION, HELD, BEFORE, CHANGE, LEG_CASH, FACE, OWNED, RATE, NOTIONAL, SHORT_SINCE, GAS, TRADED,
 HEDGE_RATIO, FROM_PRICE) = range(14)  # fmt: skip

# Account.counts (bars are -1 for never) and Account.sums
COUNTS = (
    "n_fills", "n_events", "n_trades", "n_refused", "n_rollbacks", "n_unfilled", "n_naked_bars", "held_direction",
    "entry_bar", "exit_bar", "n_liquidations", "is_split", "sending_day", "last_arrival", "n_rolls",
    "dropped_bar",
)  # fmt: skip
(N_FILLS, N_EVENTS, N_TRADES, N_REFUSED, N_ROLLBACKS, N_UNFILLED, N_NAKED_BARS, HELD_DIRECTION, ENTRY_BAR, EXIT_BAR,
 N_LIQUIDATIONS, IS_SPLIT, SENDING_DAY, LAST_ARRIVAL, N_ROLLS,
 DROPPED_BAR) = range(16)  # fmt: skip
SUMS = (
    "cash", "turnover", "cash_before_entry", "order_quantity", "queued", "in_flight", "sent_today", "min_margin_ratio",
    "min_health",
)  # fmt: skip
(CASH, TURNOVER, CASH_BEFORE_ENTRY, ORDER_QUANTITY, QUEUED, IN_FLIGHT, SENT_TODAY, MIN_MARGIN_RATIO,
 MIN_HEALTH) = range(9)  # fmt: skip

# columns of Log.fill_index and Log.fill_values
FILL_INDEX = ("bar", "leg", "trade", "action", "reason", "decision_bar", "side")
FILL_COLUMNS = (
    "quantity_base", "position_change_base", "arrival_price", "reference_price", "fill_price",
    "delay_usd", "spread_usd", "bucket_usd", "impact_usd", "fee_usd",
)  # fmt: skip

# columns of Log.event_index; trade_bars has entry, exit or -1, direction, reason; trade_values quantity and PnL
EVENT_INDEX = ("bar", "event", "reason", "direction")
EVENTS = (
    "entry", "exit", "refused", "waiting", "rollback", "unfilled", "resize", "liquidation", "delivery", "roll", "adl",
)  # fmt: skip
ENTRY, EXIT, REFUSED, WAITING, ROLLBACK, UNFILLED, RESIZE, LIQUIDATE, DELIVER, ROLL, DELEVERAGE = _codes(11)
REASONS = (
    "signal", "stop", "max_hold", "size", "min_notional", "basis", "untradable", "cost", "volume_share", "spread",
    "partial", "margin", "liquidation", "expiry", "roll", "adl", "expired",
)  # fmt: skip
(SIGNAL, STOP, MAX_HOLD, SIZE, MIN_NOTIONAL, MAX_BASIS, UNTRADABLE, MAX_COST, MAX_VOLUME_SHARE, MAX_SPREAD, PARTIAL,
 MARGIN, LIQUIDATED, EXPIRY, ROLLED, DELEVERAGED, EXPIRED) = _codes(17)  # fmt: skip


def recorded(*, n_bars: int, n_legs: int, n_settlements: int, n_wallets: int = 1) -> Recorded:
    """Empty rows for a trial; pages are touched as they are written."""
    return Recorded(
        equity_usd=np.zeros(n_bars),
        cash_usd=np.zeros(n_bars),
        position_base=np.zeros((n_bars, n_legs)),
        leg_cash_usd=np.zeros((n_bars, n_legs)),
        books=np.zeros((n_bars, n_legs, N_BOOKS)),
        wallet_cash_usd=np.zeros((n_bars, n_wallets)),
        in_flight_usd=np.zeros(n_bars),
        stale=np.zeros(n_bars, dtype=np.bool_),
        direction=np.zeros(n_bars, dtype=np.int8),
        settlement_position=np.zeros(n_settlements),
        settlement_usd=np.zeros(n_settlements),
        log=Log(
            fill_index=np.zeros((8 * n_bars * n_legs, len(FILL_INDEX)), dtype=np.int64),
            fill_values=np.zeros((8 * n_bars * n_legs, len(FILL_COLUMNS))),
            event_index=np.zeros(((8 + 2 * n_legs) * n_bars, len(EVENT_INDEX)), dtype=np.int64),
            event_quantity=np.zeros((8 + 2 * n_legs) * n_bars),
            trade_bars=np.zeros((n_bars, 4), dtype=np.int64),
            trade_values=np.zeros((n_bars, 2)),
        ),
    )
