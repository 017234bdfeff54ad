"""Finding the next bar in which a threshold rule acts, and which other thresholds would have acted in the same bars."""

import math
from typing import NamedTuple

import numpy as np

from basis_bt.kernels._jit import inlined_kernel, kernel

BLOCK = 64  # bars of a signal whose extremes are kept


class PlainMarket(NamedTuple):
    """What plain trials of one combo and signal share beside the market.

    ``next_tradable`` ``(n_bars,)``: the first bar at or after each that both legs can be traded in, or ``n_bars``;
    ``settlement_bar`` of each settlement and ``n_bars`` after the last; ``highest`` and ``lowest`` of each block of the
    signal; ``is_missing``: whether a leg has no bar.
    """

    next_tradable: np.ndarray
    settlement_bar: np.ndarray
    highest: np.ndarray
    lowest: np.ndarray
    is_missing: np.ndarray
    has_missing: bool


@kernel
def plain_market(tradable, missing, signal, first_settlement):
    """What plain trials share, from the arrays of a market."""
    n_bars = len(signal)
    next_tradable, is_missing = np.empty(n_bars, dtype=np.int64), np.empty(n_bars, dtype=np.bool_)
    upcoming, has_missing = n_bars, False
    for bar in range(n_bars - 1, -1, -1):
        if tradable[bar].all():
            upcoming = bar
        next_tradable[bar] = upcoming
        is_missing[bar] = missing[bar].any()
        has_missing = has_missing or is_missing[bar]
    settlement_bar = np.empty(first_settlement[n_bars] + 1, dtype=np.int64)
    settlement_bar[first_settlement[n_bars]] = n_bars
    for bar in range(n_bars):
        settlement_bar[first_settlement[bar] : first_settlement[bar + 1]] = bar
    n_blocks = (n_bars + BLOCK - 1) // BLOCK
    highest, lowest = np.full(n_blocks, -math.inf), np.full(n_blocks, math.inf)
    for bar in range(n_bars):
        if not math.isnan(signal[bar]):
            highest[bar // BLOCK] = max(highest[bar // BLOCK], signal[bar])
            lowest[bar // BLOCK] = min(lowest[bar // BLOCK], signal[bar])
    return PlainMarket(next_tradable, settlement_bar, highest, lowest, is_missing, has_missing)


@kernel
def next_at_or_above(values, highest, bar, level, nearest):
    """The first bar from ``bar`` on whose value is at least ``level`` (or the number of bars), and ``nearest``: the
    highest value that was passed by, or what it was before."""
    n_bars = len(values)
    while bar < n_bars:
        end = min((bar // BLOCK + 1) * BLOCK, n_bars)
        if highest[bar // BLOCK] >= level:
            for t in range(bar, end):
                if values[t] >= level:
                    return t, nearest
                if values[t] > nearest:
                    nearest = values[t]
        else:
            nearest = max(nearest, highest[bar // BLOCK])
        bar = end
    return n_bars, nearest


@kernel
def next_at_or_below(values, lowest, bar, level, nearest):
    """The first bar from ``bar`` on whose value is at most ``level`` (or the number of bars), and ``nearest``: the
    lowest value that was passed by, or what it was before."""
    n_bars = len(values)
    while bar < n_bars:
        end = min((bar // BLOCK + 1) * BLOCK, n_bars)
        if lowest[bar // BLOCK] <= level:
            for t in range(bar, end):
                if values[t] <= level:
                    return t, nearest
                if values[t] < nearest:
                    nearest = values[t]
        else:
            nearest = min(nearest, lowest[bar // BLOCK])
        bar = end
    return n_bars, nearest


class Alike(NamedTuple):
    """Thresholds that make every decision of a trial as it was: ``above_entry < entry <= entry_to`` and
    ``exit_from <= exit < under_exit``."""

    above_entry: float
    entry_to: float
    exit_from: float
    under_exit: float


@inlined_kernel
def next_entry(bar, signal, highest, lowest, rule, alike):
    """The first bar from ``bar`` on in which the rule wants to enter (or the number of bars), the direction, and what
    is left of the thresholds that are alike."""
    n_bars, direction = len(signal), 1
    entry_bar, passed = next_at_or_above(signal, highest, bar, rule.entry, alike.above_entry)
    if rule.reverse:
        short_bar, short_passed = next_at_or_below(signal, lowest, bar, -rule.entry, -passed)
        passed = -short_passed
        if short_bar < entry_bar:
            entry_bar, direction = short_bar, -1
    reached = direction * signal[entry_bar] if entry_bar < n_bars else math.inf
    return entry_bar, direction, Alike(passed, min(alike.entry_to, reached), alike.exit_from, alike.under_exit)


@inlined_kernel
def next_exit(entry_bar, direction, signal, highest, lowest, rule, alike):
    """The first bar after an entry in which signal or longest hold want to leave (or the number of bars), and what is
    left of the thresholds that are alike."""
    n_bars = len(signal)
    first = min(entry_bar + max(rule.min_hold_bars, 1), n_bars)
    if direction > 0:
        leave, passed = next_at_or_below(signal, lowest, first, rule.exit, alike.under_exit)
    else:
        leave, passed = next_at_or_above(signal, highest, first, -rule.exit, -alike.under_exit)
        passed = -passed
    reached = direction * signal[leave] if leave < n_bars else -math.inf
    if rule.max_hold_bars >= 0:
        leave = min(leave, entry_bar + max(rule.max_hold_bars, 1))
    left = Alike(alike.above_entry, alike.entry_to, max(alike.exit_from, reached), passed)
    return min(leave, n_bars), left
