"""A stretch of a cell's bars: as a market of its own, and a trial over it that ends without a position."""

from dataclasses import dataclass

import numpy as np

from basis_bt.core.errors import KernelError
from basis_bt.core.units import from_us
from basis_bt.kernels.metrics import trial_metrics
from basis_bt.kernels.search import plain_market
from basis_bt.kernels.status import OK, SENTENCES
from basis_bt.kernels.structs import Market, Recorded, RuleParams, Totals, recorded
from basis_bt.kernels.trial import run_trial
from basis_bt.sweeps.batch import METRICS, Cell
from basis_bt.sweeps.fast_axes import PLACE, with_values
from basis_bt.sweeps.jobs import Task

MARKET_ROWS = (
    "open_price", "high_price", "low_price", "close_price", "volume", "volume_before", "margin_open", "margin_high",
    "margin_low", "tradable", "missing", "signal", "basis_bps",
)  # fmt: skip
CONTRACT_ROWS = (
    "rate_open", "rate_close", "rate_before", "wallet_rate", "borrow_apr", "growth", "is_roll", "old_open", "adl_share",
    "gas_usd",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """A trial over a stretch: its rows, its metrics by name, and whether a position is left at the end."""

    equity_usd: np.ndarray
    stale: np.ndarray
    metrics: dict[str, float]
    is_open: bool


def slice_cell(cell: Cell, first: int, end: int) -> Cell:
    """The bars of a cell from ``first`` up to but without ``end``, as a market of its own.

    Trials of it begin flat and know what a run of that span knows. What is read off the first day or the first price of
    a run (lots, minimum notionals, borrow periods, margin tiers of contracts in coin) stays that of the whole cell.
    """
    bars = slice(first, end)
    market, p, contracts = cell.market, cell.parameters, cell.parameters.contracts
    market = market._replace(
        first_settlement=market.first_settlement[first : end + 1],
        **{name: getattr(market, name)[bars] for name in MARKET_ROWS},
    )
    delivery = contracts.delivery_bar
    is_within = (delivery >= 0) & (delivery < end)  # what expired before has expired by the first bar
    contracts = contracts._replace(
        delivery_bar=np.where(is_within, np.maximum(delivery - first, 0), -1),
        **{name: getattr(contracts, name)[bars] for name in CONTRACT_ROWS},
    )
    wallets = p.wallets
    parameters = p._replace(
        costs=p.costs._replace(bucket_row=p.costs.bucket_row[bars]),
        fees=p.fees._replace(row=p.fees.row[bars]),
        wallets=wallets._replace(
            margin_row=wallets.margin_row[bars], is_halted=wallets.is_halted[bars], day=wallets.day[bars]
        ),
        contracts=contracts,
    )
    plain = None
    if cell.plain is not None:
        plain = plain_market(market.tradable, market.missing, market.signal, market.first_settlement)
    return Cell(
        market=market,
        plain=plain,
        parameters=parameters,
        is_leveraged=cell.is_leveraged,
        bar_hours=cell.bar_hours,
        bar_us=cell.bar_us,
        first_us=cell.first_us + first * cell.bar_us,
    )


def run_to_flat(task: Task, place: int, *, first: int, end: int, capital_usd: float) -> Outcome:
    """Run a trial of a task over a stretch of its bars, with a capital of its own, and leave at the end.

    The exit is decided in the last bar whose orders are filled within the stretch, whatever the signal and the shortest
    hold say, and is paid for; an entry that could not be left again is not made. All before is as without the end.

    Raises
    ------
    KernelError
        If the trial ends with a status, naming the bar.
    """
    cell, trial = slice_cell(task.cell, first, end), int(task.trials[place])
    values = task.values[place].copy()
    values[PLACE["capital_usd"]] = capital_usd
    p = with_values(cell.parameters, values, trial=trial, is_leveraged=cell.is_leveraged)
    latency = int(p.fills.latency_bars.max())
    last = cell.n_bars - 1 - latency
    signal = cell.market.signal.copy()
    late = slice(max(last - latency, 0), None)
    under = np.nextafter(p.rule.entry, -np.inf)
    signal[late] = np.clip(signal[late], -under if p.rule.reverse else None, under)

    def attempt(rule: RuleParams) -> tuple[Recorded, Totals, Market]:
        market = cell.market._replace(signal=signal)
        rows = recorded(
            n_bars=cell.n_bars,
            n_legs=len(p.combo.ratio),
            n_settlements=len(market.mark_price),
            n_wallets=len(p.wallets.weight),
        )
        totals = run_trial(market, *p._replace(rule=rule), rows)
        if totals.status != OK:
            ts = from_us(cell.first_us + totals.status_bar * cell.bar_us).isoformat()
            raise KernelError(
                SENTENCES[totals.status],
                where={"trial": trial, "ts": ts},
                fix="look at the input files around that time",
            )
        return rows, totals, market

    rows, totals, market = attempt(p.rule)
    direction = int(rows.direction[last - 1]) if last > 0 else 0
    if direction != 0 and is_held(rows):
        for entry_bar, exit_bar, *_ in rows.log.trade_bars[: totals.n_trades].tolist():
            bound_to = entry_bar + p.rule.min_hold_bars  # the shortest hold, said by a signal that is not there
            signal[entry_bar + 1 : bound_to if exit_bar < 0 else min(bound_to, exit_bar)] = np.nan
        signal[last:] = direction * p.rule.exit
        rows, totals, market = attempt(p.rule._replace(min_hold_bars=0))
    metrics = trial_metrics(rows, totals, market.close_price, capital_usd, cell.bar_hours)
    return Outcome(
        equity_usd=rows.equity_usd,
        stale=rows.stale,
        metrics={name: float(value) for name, value in zip(METRICS, metrics, strict=True)},
        is_open=is_held(rows),
    )


def is_held(rows: Recorded) -> bool:
    """Whether a position is left in the last row."""
    return bool((rows.position_base[-1] != 0.0).any())
