"""Running trials that share a market: the fast kernel where it applies, the whole trial elsewhere, the same numbers."""

import threading
from dataclasses import dataclass

import numpy as np

from basis_bt.backtest.prepare import Parameters, Prepared
from basis_bt.kernels.many import run_plain_trials
from basis_bt.kernels.metrics import Metrics, trial_metrics
from basis_bt.kernels.search import PlainMarket, plain_market
from basis_bt.kernels.status import OK
from basis_bt.kernels.structs import CERTAIN, Market, Recorded, recorded
from basis_bt.kernels.trial import run_trial
from basis_bt.sweeps.fast_axes import with_values

METRICS = Metrics._fields
COUNTS = tuple(name for name, kind in Metrics.__annotations__.items() if kind is int)
# what a status column says, by code: those of the kernels, then those of preparing
STATUSES = (
    "ok", "price_missing", "volume_missing", "mark_missing", "cost_over_price", "invalid", "config_error", "data_error",
    "signal_error", "error",
)  # fmt: skip
INVALID = STATUSES.index("invalid")
NO_SAMPLES = np.empty(0, dtype=np.int64)

_own = threading.local()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cell:
    """What trials share that differ in fast values alone; ``plain`` is None where only the whole trial will do.

    Its bars are ``bar_us`` apart from ``first_us`` on.
    """

    market: Market
    plain: PlainMarket | None
    parameters: Parameters
    is_leveraged: np.ndarray
    bar_hours: float
    bar_us: int
    first_us: int

    @property
    def n_bars(self) -> int:
        """Number of bars."""
        return len(self.market.signal)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Metrics ``(n_trials, len(METRICS))``, status codes ``(n_trials,)``, and equities at the bars asked for."""

    metrics: np.ndarray
    status: np.ndarray
    samples: np.ndarray


def make_cell(prepared: Prepared) -> Cell:
    """A prepared configuration as a cell."""
    market, parameters = prepared.market, prepared.parameters
    margined = np.array([instrument.is_margined for instrument in prepared.panel.instruments])
    plain = None
    if is_plain(parameters):
        plain = plain_market(market.tradable, market.missing, market.signal, market.first_settlement)
    return Cell(
        market=market,
        plain=plain,
        parameters=parameters,
        is_leveraged=margined & (parameters.combo.margin_weight != 0.0),
        bar_hours=prepared.panel.bar_hours,
        bar_us=prepared.panel.bar_us,
        first_us=int(prepared.panel.ts_us[0]),
    )


def is_plain(parameters: Parameters) -> bool:
    """Whether nothing can happen but what ``kernels/plain.py`` knows."""
    fills, wallets, contracts = parameters.fills, parameters.wallets, parameters.contracts
    return bool(
        len(parameters.combo.ratio) == 2
        and fills.model == CERTAIN
        and fills.reject_probability <= 0.0
        and (fills.latency_bars == fills.latency_bars[0]).all()
        and not parameters.fees.is_by_volume
        and not wallets.is_split
        and not wallets.is_tested
        and not contracts.is_inverse.any()
        and contracts.borrow_period_hours.max() <= 0.0
        and contracts.cash_yield_frac == 0.0
        and contracts.delivery_bar.max() < 0
        and contracts.loan_of.max() < 0
        and not any(
            len(part)
            for part in (
                contracts.wallet_rate, contracts.growth, contracts.is_roll, contracts.adl_share, contracts.gas_usd,
            )
        )
    )  # fmt: skip


def run_batch(
    cell: Cell,
    *,
    trials: np.ndarray,
    values: np.ndarray,
    cancelled: np.ndarray,
    sample_bars: np.ndarray = NO_SAMPLES,
) -> Batch:
    """Run the trials of a cell, in this thread, without holding Python's lock where the time goes.

    Parameters
    ----------
    trials : their numbers, which random draws depend on
    values : a row each, see ``kernels/many.py``
    cancelled : ``(1,)``; once it is not zero the rest is left undone
    sample_bars : bars whose equity is wanted
    """
    n = len(trials)
    batch = Batch(
        metrics=np.full((n, len(METRICS)), np.nan),
        status=np.zeros(n, dtype=np.int64),
        samples=np.full((n, len(sample_bars)), np.nan),
    )
    if cell.plain is None:
        _run_whole(cell, trials, values, cancelled, sample_bars, batch)
        return batch
    p = cell.parameters
    run_plain_trials(
        cell.market, cell.plain, p.combo, p.rule, p.size, p.costs, p.fees, p.fills, cell.is_leveraged, cell.bar_hours,
        values, sample_bars, batch.metrics, batch.status, np.empty(n, dtype=np.int64), batch.samples, cancelled,
    )  # fmt: skip
    return batch


def _run_whole(
    cell: Cell, trials: np.ndarray, values: np.ndarray, cancelled: np.ndarray, sample_bars: np.ndarray, batch: Batch
) -> None:
    rows = _rows_of_thread(cell)
    for k, trial in enumerate(trials.tolist()):
        if cancelled[0]:
            return
        parameters = with_values(cell.parameters, values[k], trial=trial, is_leveraged=cell.is_leveraged)
        totals = run_trial(cell.market, *parameters, rows)
        batch.status[k] = totals.status
        if totals.status != OK:
            continue
        capital_usd = parameters.size.capital_usd
        batch.metrics[k] = trial_metrics(rows, totals, cell.market.close_price, capital_usd, cell.bar_hours)
        if len(sample_bars):
            fresh = np.maximum.accumulate(np.where(rows.stale, -1, np.arange(cell.n_bars)))[sample_bars]
            batch.samples[k] = np.where(fresh >= 0, rows.equity_usd[fresh], capital_usd)


def _rows_of_thread(cell: Cell) -> Recorded:
    """Rows that one trial after the other writes; what adds up in them begins at nothing."""
    n_legs, n_wallets = len(cell.parameters.combo.ratio), len(cell.parameters.wallets.weight)
    shape = (cell.n_bars, n_legs, len(cell.market.mark_price), n_wallets)
    if getattr(_own, "shape", None) != shape:
        _own.rows = recorded(n_bars=shape[0], n_legs=n_legs, n_settlements=shape[2], n_wallets=n_wallets)
        _own.shape = shape
    rows: Recorded = _own.rows
    rows.log.trade_values[:] = 0.0
    return rows
