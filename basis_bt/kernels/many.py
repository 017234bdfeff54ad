"""Many plain trials in one call: a row of values in, a row of metrics out."""

import math

import numpy as np
from numba import literal_unroll

from basis_bt.kernels._jit import inner_kernel, kernel
from basis_bt.kernels.fees import with_own_costs
from basis_bt.kernels.metrics import books_of, metrics_of
from basis_bt.kernels.plain import new_scratch, plain_trial
from basis_bt.kernels.status import OK
from basis_bt.kernels.structs import ComboParams, RuleParams, SizeParams

REMEMBERED = 256  # trials of a batch whose decisions are kept
# columns of what a trial may have of its own, in the order of ``values``; NaN of the last three: as configured
VALUES = (
    "entry", "exit", "min_hold_bars", "max_hold_bars", "cooldown_bars", "stop_loss_pct", "max_basis_bps",
    "capital_usd", "allocation", "leverage", "half_spread_bps", "impact_coef_bps",
)  # fmt: skip


@kernel
def set_given(array, configured, value):
    """Fill an array with a value; with what is configured where that is NaN."""
    for k in range(len(array)):
        array[k] = configured[k] if math.isnan(value) else value


@inner_kernel
def write_row(row, metrics):
    """The metrics of a trial as numbers of one row."""
    column = 0
    for one in literal_unroll(metrics):
        row[column] = one
        column += 1  # noqa: SIM113 - a tuple of several types is not enumerated


@kernel
def run_plain_trials(
    market, plain, combo, rule, size, costs, fees, fills, is_leveraged, bar_hours, values, sample_bars,
    metrics, status, status_bar, samples, cancelled,
):  # fmt: skip
    """Run trials that differ in ``values`` alone, until ``cancelled[0]`` is set; returns how many were run.

    Parameters
    ----------
    market to fills : what the trials share, see ``run_trial``
    is_leveraged : by leg, whether its margin weight is one over the leverage
    values : ``(n_trials, len(VALUES))``
    sample_bars : bars whose equity is written to ``samples`` ``(n_trials, n_samples)``
    metrics, status, status_bar : written: ``(n_trials, n_metrics)`` and two of ``(n_trials,)``
    """
    scratch = new_scratch(len(market.signal), len(sample_bars) > 0)
    own = with_own_costs(costs)
    weights = ComboParams(combo.ratio, combo.margin_weight.copy(), combo.reference_leg)
    memory, remembered, n_kept = np.empty((REMEMBERED, 4)), np.empty(REMEMBERED, dtype=np.int64), 0
    for k in range(len(values)):
        if cancelled[0]:
            return k
        known = same_as(values, k, memory, remembered, n_kept)
        if known >= 0:
            metrics[k], samples[k] = metrics[known], samples[known]
            status[k], status_bar[k] = status[known], status_bar[known]
            continue
        v = values[k]
        its_rule = RuleParams(v[0], v[1], rule.reverse, int(v[2]), int(v[3]), int(v[4]), v[5], v[6])
        its_size = SizeParams(v[7], v[8], size.compounding, size.lot, size.lot_usd, size.min_notional_usd)
        for leg in range(2):
            is_given = is_leveraged[leg] and not math.isnan(v[9])
            weights.margin_weight[leg] = 1.0 / v[9] if is_given else combo.margin_weight[leg]
        set_given(own.half_spread_bps, costs.half_spread_bps, v[10])
        set_given(own.impact_coef_bps, costs.impact_coef_bps, v[11])
        totals, sums, n_moved, n_fresh, alike = plain_trial(
            market, plain, weights, its_rule, its_size, own, fees, fills, scratch
        )
        status[k], status_bar[k] = totals.status, totals.status_bar
        place = n_kept % REMEMBERED
        remembered[place] = k
        memory[place, 0], memory[place, 1] = alike.above_entry, alike.entry_to
        memory[place, 2], memory[place, 3] = alike.exit_from, alike.under_exit
        n_kept += 1
        if totals.status != OK:
            metrics[k] = math.nan
            continue
        of_trial = metrics_of(sums, scratch.moved[:n_moved], n_fresh, books_of(scratch.books), totals, v[7], bar_hours)
        write_row(metrics[k], of_trial)
        for column in range(len(sample_bars)):
            samples[k, column] = scratch.curve_usd[sample_bars[column]]
    return len(values)


@kernel
def same_as(values, k, memory, remembered, n_kept):
    """An earlier trial whose every decision this one would make again, or -1; the latest are looked at first."""
    entry, exit_ = values[k, 0], values[k, 1]
    for back in range(min(n_kept, REMEMBERED)):
        place = (n_kept - 1 - back) % REMEMBERED
        m = memory[place]
        if m[0] < entry <= m[1] and m[2] <= exit_ < m[3] and is_same_beside(values, k, remembered[place]):
            return remembered[place]
    return -1


@kernel
def is_same_beside(values, k, other):
    """Whether two trials have the same values but for their thresholds."""
    for column in range(2, values.shape[1]):
        a, b = values[k, column], values[other, column]
        if not (a == b or (math.isnan(a) and math.isnan(b))):
            return False
    return True
