"""What goes into a trial and what comes out: NamedTuples of arrays and scalars, every field passed."""

from typing import NamedTuple

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
    """How orders become fills; limits that are off are infinite.

    ``latency_bars`` and ``maker_fee_bps`` are by leg ``(n_legs,)``; ``model`` and ``atomicity`` index FILL_MODELS and
    ATOMICITIES.
    """

    latency_bars: np.ndarray
    model: int
    volume_cap: float
    fill_probability: float
    offset_bps: float
    maker_fee_bps: np.ndarray
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

    ``wallet_of`` is by leg. ``weight`` and ``is_margined`` ``(n_wallets, n_legs)`` and the tiers ``(n_legs, n_tiers)``
    are those of ``margin.py``; ``is_halted`` and ``day`` are by bar.
    """

    wallet_of: np.ndarray
    is_split: bool
    is_tested: bool
    weight: np.ndarray
    is_margined: np.ndarray
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


class Order(NamedTuple):
    """The order in flight, by leg ``(n_legs,)``, with its scalars in ``state`` (see ORDER_STATE).

    ``want_base`` is the signed change still to be filled, ``filled_base`` what this attempt has filled of it from the
    position ``before_base``, all net of fees taken in base; ``excess_base`` what has to be closed again, marked last at
    ``excess_price``. ``stage`` is PENDING, MISSED (a limit that was not reached) or DONE; ``fill_bar`` and ``row`` say
    when the leg filled and where among the fills it stands. ``delta_usd`` and ``basis_usd`` are what this attempt's
    fills have earned by prices so far.
    """

    want_base: np.ndarray
    before_base: np.ndarray
    filled_base: np.ndarray
    excess_base: np.ndarray
    excess_price: np.ndarray
    arrival_price: np.ndarray
    delta_usd: np.ndarray
    basis_usd: np.ndarray
    stage: np.ndarray
    fill_bar: np.ndarray
    row: np.ndarray
    state: np.ndarray


class Account(NamedTuple):
    """What a trial owns and counts. ``held_base`` is the position with what an order still has to close.

    ``before_base`` and ``change_base`` are the position before the bar's fills and what they kept; ``counts`` has
    COUNTS, ``sums`` has SUMS. ``wallet_cash_usd`` is by wallet; ``queue_usd`` what is still to be sent, from and to;
    ``arriving_usd`` what arrives, by bar and wallet.
    """

    position_base: np.ndarray
    held_base: np.ndarray
    before_base: np.ndarray
    change_base: np.ndarray
    leg_cash_usd: np.ndarray
    books: np.ndarray
    counts: np.ndarray
    sums: np.ndarray
    wallet_of: np.ndarray
    wallet_cash_usd: np.ndarray
    queue_usd: np.ndarray
    arriving_usd: np.ndarray


class Recorded(NamedTuple):
    """Rows a trial writes. ``books`` is cumulative, ``(n_bars, n_legs, N_BOOKS)``; ``fill_values`` has FILL_COLUMNS."""

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
    n_rollbacks: int
    n_unfilled: int
    n_naked_bars: int
    n_liquidations: int
    min_margin_ratio: float
    turnover_usd: float


# columns of Recorded.books
(DELTA, BASIS, FUNDING, FEES, SPREAD, BUCKET, IMPACT, DELAY, ROLLBACK_EXECUTION, ROLLBACK_PRICE, TRANSFER,
 LIQUIDATION) = range(12)  # fmt: skip
N_BOOKS = 12
BOOKS = (
    "delta", "basis", "funding", "fees", "spread", "bucket", "impact", "delay", "rollback_execution", "rollback_price",
    "transfer", "liquidation",
)  # fmt: skip
BOOK_SIGNS = (1.0, 1.0, 1.0, *(-1.0,) * 9)

# how orders fill, and what becomes of a part
FILL_MODELS = ("certain", "volume", "bernoulli", "maker")
CERTAIN, BY_VOLUME, BERNOULLI, MAKER = range(4)
ATOMICITIES = ("rollback", "match", "naked")
BY_ROLLBACK, BY_MATCH, NAKED = range(3)

# Order.state: ACTION is -1 without an order, START_BAR before an attempt, CLOSE_FROM without an excess;
# SINGLE is 1 where every leg is closed for itself, KEPT once a part of the order stays, FUNDED 0 while it waits for
# cash, FORCED 1 for what a liquidation left
ORDER_STATE = (
    "action", "reason", "direction", "decision_bar", "ready_bar", "start_bar", "waited", "close_from", "single", "kept",
    "funded", "forced",
)  # fmt: skip
(ACTION, REASON, DIRECTION, DECISION_BAR, READY_BAR, START_BAR, WAITED, CLOSE_FROM, SINGLE, KEPT, FUNDED,
 FORCED) = range(12)  # fmt: skip
PENDING, MISSED, DONE = range(3)  # Order.stage

# Account.counts (bars are -1 for never) and Account.sums
COUNTS = (
    "n_fills", "n_events", "n_trades", "n_refused", "n_rollbacks", "n_unfilled", "n_naked_bars", "held_direction",
    "entry_bar", "exit_bar", "n_liquidations", "is_split", "sending_day", "last_arrival",
)  # fmt: skip
(N_FILLS, N_EVENTS, N_TRADES, N_REFUSED, N_ROLLBACKS, N_UNFILLED, N_NAKED_BARS, HELD_DIRECTION, ENTRY_BAR, EXIT_BAR,
 N_LIQUIDATIONS, IS_SPLIT, SENDING_DAY, LAST_ARRIVAL) = range(14)  # fmt: skip
SUMS = (
    "cash", "turnover", "cash_before_entry", "order_quantity", "queued", "in_flight", "sent_today", "min_margin_ratio",
)  # fmt: skip
CASH, TURNOVER, CASH_BEFORE_ENTRY, ORDER_QUANTITY, QUEUED, IN_FLIGHT, SENT_TODAY, MIN_MARGIN_RATIO = range(8)

# columns of Recorded.fill_index and Recorded.fill_values
FILL_INDEX = ("bar", "leg", "trade", "action", "reason", "decision_bar", "side")
FILL_COLUMNS = (
    "quantity_base", "position_change_base", "arrival_price", "reference_price", "fill_price",
    "delay_usd", "spread_usd", "bucket_usd", "impact_usd", "fee_usd",
)  # fmt: skip

# columns of Recorded.event_index; trade_bars has entry, exit or -1, direction, reason; trade_values quantity and PnL
EVENT_INDEX = ("bar", "event", "reason", "direction")
EVENTS = ("entry", "exit", "refused", "waiting", "rollback", "unfilled", "resize", "liquidation")
ENTRY, EXIT, REFUSED, WAITING, ROLLBACK, UNFILLED, RESIZE, LIQUIDATE = range(8)
REASONS = (
    "signal", "stop", "max_hold", "size", "min_notional", "basis", "untradable", "cost", "volume_share", "spread",
    "partial", "margin", "liquidation",
)  # fmt: skip
(SIGNAL, STOP, MAX_HOLD, SIZE, MIN_NOTIONAL, MAX_BASIS, UNTRADABLE, MAX_COST, MAX_VOLUME_SHARE, MAX_SPREAD, PARTIAL,
 MARGIN, LIQUIDATED) = range(13)  # fmt: skip


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
        fill_index=np.zeros((3 * n_bars * n_legs, len(FILL_INDEX)), dtype=np.int64),
        fill_values=np.zeros((3 * n_bars * n_legs, len(FILL_COLUMNS))),
        event_index=np.zeros((8 * n_bars, len(EVENT_INDEX)), dtype=np.int64),
        event_quantity=np.zeros(8 * n_bars),
        trade_bars=np.zeros((n_bars, 4), dtype=np.int64),
        trade_values=np.zeros((n_bars, 2)),
    )
