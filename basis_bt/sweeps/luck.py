"""How much of the best result of a sweep is luck."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from basis_bt.core.errors import ConfigError
from basis_bt.core.units import US_PER_DAY
from basis_bt.frames.funding_columns import history_hours
from basis_bt.statistics.autocorrelation import lo_sharpe, newey_west_t
from basis_bt.statistics.bootstrap import Interval, bootstrap_interval
from basis_bt.statistics.overfitting import Overfitting, cscv
from basis_bt.statistics.reality_check import RealityCheck, SuperiorAbility, reality_check, superior_ability
from basis_bt.statistics.sharpe import (
    ROUNDING_FRAC,
    deflated_sharpe,
    expected_max_sharpe,
    min_track_record_length,
    moments,
    probabilistic_sharpe,
)
from basis_bt.sweeps.counting import trials_made
from basis_bt.sweeps.curves import daily_returns
from basis_bt.sweeps.durations import duration_hours
from basis_bt.sweeps.kept import check_same, plan_of
from basis_bt.sweeps.plan import Plan
from basis_bt.sweeps.result import Sweep, best_of
from basis_bt.sweeps.threads import given_threads

DAYS_PER_YEAR = 365.0
SHORT_SHARE = 0.9  # of the days asked for
MOST_TRIALS = 4096
BLOCKS = (16, 14, 12, 10, 8)  # 12,870 to 70 ways to choose half of them
LO_LAGS = 30
LEAST_DEFLATED, MOST_PBO, MOST_P_VALUE = 0.95, 0.2, 0.05  # of a result that is called more than luck


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Luck:
    """What the best trial by Sharpe is worth once it is known to be the best of many.

    All is of daily returns; Sharpe ratios named ``annual``, ``interval`` and ``sharpes`` (of every trial judged) are
    times the root of 365 days, ``expected_max_sharpe`` is per day. ``n_trials`` is what the store counts,
    ``n_distinct`` how many different results the sweep's trials have, ``n_judged`` how many were run again and moved.
    Probabilities are fractions; a p value says how often pure luck does as well.
    """

    best_trial: int
    n_days: int
    n_trials: int
    n_distinct: int
    n_judged: int
    annual_sharpe: float
    lo_annual_sharpe: float | None
    newey_west_t: float | None
    interval: Interval
    probabilistic: float
    deflated: float
    deflated_distinct: float
    expected_max_sharpe: float
    min_track_days: float
    overfitting: Overfitting
    purge_days: int
    n_blocks: int
    reality: RealityCheck
    superior: SuperiorAbility
    sharpes: np.ndarray
    notes: tuple[str, ...]

    def table(self) -> pl.DataFrame:
        """What is found, a row each: ``statistic``, ``value`` (null where there is none) and ``meaning``."""
        year = math.sqrt(DAYS_PER_YEAR)
        interval, spa = self.interval, self.superior
        blocks = f"{self.n_blocks} blocks, {self.purge_days} days purged"
        rows: list[tuple[str, float | None, str]] = [
            ("Sharpe, annual", self.annual_sharpe,
             f"trial {self.best_trial}, the best of {self.n_judged:,} on {self.n_days:,} days"),
            ("at least", interval.low, "stationary bootstrap, 95 %"),
            ("at most", interval.high, "stationary bootstrap, 95 %"),
            ("Sharpe, annual, Lo", self.lo_annual_sharpe, "corrected for autocorrelation of the returns"),
            ("t of the mean", self.newey_west_t, "Newey-West"),
            ("P(Sharpe > 0)", self.probabilistic, "probabilistic Sharpe ratio, this trial alone"),
            ("best of luck, annual", self.expected_max_sharpe * year,
             f"Sharpe expected of the best of {self.n_trials:,} trials without any edge"),
            ("deflated Sharpe", self.deflated, f"P(better than that luck), {self.n_trials:,} trials counted"),
            ("deflated, distinct", self.deflated_distinct, f"the same for {self.n_distinct:,} distinct results"),
            ("track record needed", self.min_track_days if math.isfinite(self.min_track_days) else None,
             "days, for 95 % that the Sharpe is above 0"),
            ("PBO", self.overfitting.pbo, f"P(best in sample is under the median outside); {blocks}"),
            ("loss outside", self.overfitting.loss_probability, "P(the trial chosen in sample loses outside)"),
            ("reality check p", self.reality.p_value, "White: luck alone has a trial as good"),
            ("SPA p", spa.p_consistent, f"Hansen, studentised; {spa.p_lower:.3f} to {spa.p_upper:.3f}"),
        ]  # fmt: skip
        schema = {"statistic": pl.String, "value": pl.Float64, "meaning": pl.String}
        return pl.DataFrame(rows, schema=schema, orient="row")

    @property
    def verdict(self) -> str:
        """One sentence: more than luck, if all three say so."""
        pbo, p_value = self.overfitting.pbo, self.superior.p_consistent
        is_more = self.deflated >= LEAST_DEFLATED and pbo <= MOST_PBO and p_value <= MOST_P_VALUE
        told = f"deflated Sharpe {self.deflated:.3f}, PBO {pbo:.3f}, SPA p {p_value:.3f}"
        return f"the best result {'is more than' if is_more else 'may well be'} luck: {told}"


def luck(
    sweep: Sweep,
    *,
    runs: str | Path | None = None,
    n_trials: int | None = None,
    purge_hours: float | str | None = None,
    most_trials: int = MOST_TRIALS,
    n_resamples: int = 1000,
    seed: int = 0,
    threads: int | None = None,
) -> Luck:
    """Judge the best trial of a sweep.

    Trials are run again for their daily returns: all that ever traded, or ``most_trials`` of them drawn at random, the
    best of the sweep always among them (then probabilities of overfitting are those of such a draw). One whose equity
    stands still over the days judged is left out: it has no Sharpe ratio.

    Parameters
    ----------
    runs : folder of runs whose trials count, those on an instrument of this sweep; None: the folder the sweep lies in
    n_trials : how many trials were really made, instead of what the store counts
    purge_hours : taken away on both sides where in-sample and out-of-sample days meet; by default the longest average
        hold plus the longest signal window of the trials judged
    n_resamples, seed : of the bootstraps
    threads : how many, all processors by default

    Raises
    ------
    ConfigError
        If fewer than two trials ever trade, there are too few days, or the signal is an expression of the caller.
    StoreError
        If a trial run again ends with another equity than in the sweep.
    """
    plan = plan_of(sweep)
    threads = given_threads(threads)
    asked = None if purge_hours is None else duration_hours(purge_hours, name="purge")
    ran = sweep.trials.filter((pl.col("status") == "ok") & (pl.col("n_trades") > 0))
    drawn = _drawn(ran, sweep.metric, most_trials=most_trials, seed=seed)
    notes = [] if len(drawn) == ran.height else [f"judged on {len(drawn):,} of {ran.height:,} trials, drawn at random"]
    returns, judged = _returns(plan, ran, drawn, threads=threads)
    n_days, year = len(returns), math.sqrt(DAYS_PER_YEAR)
    span_days = plan.n_bars * plan.base.data.bar_us / US_PER_DAY
    if n_days < SHORT_SHARE * span_days:
        notes.append(
            f"judged on the {n_days:,} of {span_days:,.0f} days that the markets of all trials have: take combos apart "
            "that were not traded all along"
        )
    sharpes = _sharpes(returns, axis=0)
    best = int(np.argmax(sharpes))
    own, best_sharpe, variance = returns[:, best], float(sharpes[best]), float(np.var(sharpes, ddof=1))
    of_own = moments(own)
    shape: dict[str, Any] = {"skewness": of_own.skewness, "kurtosis": of_own.kurtosis}
    counted = trials_made(sweep, runs, notes=notes) if n_trials is None else n_trials
    n_distinct = ran.select("total_return", "max_drawdown", "n_trades", "turnover").n_unique()
    hours = _default_purge_hours(plan, ran, judged) if asked is None else asked
    purge_days, n_blocks = _purge(math.ceil(hours / 24.0), n_days, notes=notes)
    bootstrap: dict[str, Any] = {"n_resamples": n_resamples, "seed": seed}

    def deflated(n: int) -> float:
        return deflated_sharpe(best_sharpe, n=n_days, variance=variance, n_trials=n, **shape)

    return Luck(
        best_trial=int(judged[best]),
        n_days=n_days,
        n_trials=counted,
        n_distinct=n_distinct,
        n_judged=len(judged),
        annual_sharpe=best_sharpe * year,
        lo_annual_sharpe=lo_sharpe(own, periods=DAYS_PER_YEAR, lags=min(LO_LAGS, n_days // 4)).sharpe,
        newey_west_t=newey_west_t(own),
        interval=bootstrap_interval(own, lambda rows: _sharpes(rows, axis=1) * year, **bootstrap),
        probabilistic=probabilistic_sharpe(best_sharpe, n=n_days, **shape),
        deflated=deflated(counted),
        deflated_distinct=deflated(n_distinct),
        expected_max_sharpe=expected_max_sharpe(variance, n_trials=counted),
        min_track_days=min_track_record_length(best_sharpe, **shape),
        overfitting=cscv(returns, n_blocks=n_blocks, purge=purge_days),
        purge_days=purge_days,
        n_blocks=n_blocks,
        reality=reality_check(returns, **bootstrap),
        superior=superior_ability(returns, **bootstrap),
        sharpes=sharpes * year,
        notes=tuple(notes),
    )


def luck_picture(sweep: Sweep, found: Luck) -> Any:
    """The Sharpe ratios of the trials with the best of luck, and how the choice did out of sample, as a Figure."""
    from basis_bt.reports.luck_charts import luck_figure

    return luck_figure(
        sharpes=found.sharpes,
        best=found.annual_sharpe,
        expected_max=found.expected_max_sharpe * math.sqrt(DAYS_PER_YEAR),
        logits=found.overfitting.logits,
        pbo=found.overfitting.pbo,
        title=f"Luck in {sweep.manifest['name']}",
        caption=[found.verdict, *found.notes],
    )


def _sharpes(returns: np.ndarray, *, axis: int) -> np.ndarray:
    """Sharpe ratios of returns along an axis, 0 where nothing moves."""
    deviation = returns.std(axis=axis, ddof=1)
    moves = deviation > ROUNDING_FRAC
    return np.where(moves, returns.mean(axis=axis) / np.where(moves, deviation, 1.0), 0.0)


def _drawn(ran: pl.DataFrame, metric: str, *, most_trials: int, seed: int) -> np.ndarray:
    """Numbers of the trials to run again, in order; the best by the metric and by Sharpe are always among them."""
    every = ran["trial"].to_numpy()
    if len(every) <= most_trials:
        return every
    best = {trial for one in (metric, "sharpe") for trial in best_of(ran, metric=one, n=1)["trial"].to_list()}
    others = np.setdiff1d(every, list(best))
    drawn = np.random.Generator(np.random.PCG64(seed)).choice(others, size=most_trials - len(best), replace=False)
    return np.array(sorted({*drawn.tolist(), *best}), dtype=np.int64)


def _returns(plan: Plan, ran: pl.DataFrame, trials: np.ndarray, *, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Daily returns of the trials that move, and their numbers."""
    if len(trials) < 2:
        raise ConfigError(f"{len(trials)} of the trials ever traded: nothing to compare", fix="sweep over more")
    found = daily_returns(plan, trials, threads=threads)
    then = ran.filter(pl.col("trial").is_in(trials.tolist()))["end_equity_usd"].to_numpy()
    check_same(trials, then_usd=then, now_usd=found.end_equity_usd)
    moves = found.returns.std(axis=0, ddof=1) > ROUNDING_FRAC
    if moves.sum() < 2:
        raise ConfigError(
            f"{moves.sum()} of the trials have an equity that moves over the {len(found.day_us)} days all of them have",
            fix="sweep over more, or over combos that were traded at the same time",
        )
    return np.ascontiguousarray(found.returns[:, moves]), trials[moves]


def _default_purge_hours(plan: Plan, ran: pl.DataFrame, judged: np.ndarray) -> float:
    """The longest average hold of the trials and the longest window of the signals."""
    held = ran.filter(pl.col("trial").is_in(judged.tolist()))["avg_hold_hours"].to_list()
    windows = [
        max(one.warmup_hours, *one.funding_windows_hours, history_hours(one.settled_counts))
        for one in plan.signals(plan.base)
    ]
    return max((one for one in held if one is not None), default=0.0) + max(windows)


def _purge(days: int, n_days: int, *, notes: list[str]) -> tuple[int, int]:
    """Days to purge and the number of blocks: as many as leave half of a block between two purges, at least a few."""
    for n_blocks in BLOCKS:
        room = n_days // n_blocks // 4
        if days <= room:
            return days, n_blocks
    notes.append(
        f"the purge should be {days} days (longest average hold and signal window, or as given) and is {room}: "
        f"{n_days:,} days in {n_blocks} blocks have no room for more, and the PBO may be too low"
    )
    return room, n_blocks
