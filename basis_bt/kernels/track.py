"""Returns and drawdowns of a trial, followed from one stretch of its rows to the next."""

from typing import NamedTuple

from basis_bt.kernels._jit import inlined_kernel, kernel
from basis_bt.kernels.metrics import simple_return


class Track(NamedTuple):
    """Where the returns and drawdowns of a trial stand after some of its rows."""

    last_usd: float
    n_moved: int
    n_stale: int
    peak_usd: float
    peak_bar: int
    trough_usd: float
    is_under: bool
    deepest: float
    longest_bars: int


@inlined_kernel
def track_flat(first, end, track):
    """Rows ``first`` to ``end`` without a position: the equity of the row before them."""
    if first >= end:
        return track
    equity, longest = track.last_usd, track.longest_bars
    if equity >= track.peak_usd:
        if track.is_under:
            longest = max(longest, first - track.peak_bar)
        deepest = max(track.deepest, 1.0 - track.trough_usd / track.peak_usd)
        return Track(equity, track.n_moved, track.n_stale, equity, end - 1, equity, False, deepest, longest)
    longest = max(longest, end - 1 - track.peak_bar)
    trough = min(track.trough_usd, equity)
    return Track(
        equity, track.n_moved, track.n_stale, track.peak_usd, track.peak_bar, trough, True, track.deepest, longest
    )


@inlined_kernel
def track_held(first, end, is_out, track, plain, capital_usd, equity_usd, moved):
    """Rows ``first`` to ``end``, stale where a leg has no bar; ``is_out``: the last one is without a position."""
    n, n_stale, last = track.n_moved, track.n_stale, track.last_usd
    if plain.has_missing:
        for bar in range(first, end):
            if plain.is_missing[bar] and not (is_out and bar == end - 1):
                n_stale += 1
                continue
            value = simple_return(equity_usd[bar], last, capital_usd)
            last = equity_usd[bar]
            if value != 0.0:
                moved[n] = value
                n += 1
    else:
        n += returns_of_rows(equity_usd[first:end], last, capital_usd, moved[n : n + end - first])
        last = equity_usd[end - 1]
    peak, peak_bar, trough, is_under, deepest, longest = drawdown_of_rows(
        equity_usd[first:end], first, is_out, plain.is_missing[first:end], plain.has_missing, track
    )
    return Track(last, n, n_stale, peak, peak_bar, trough, is_under, deepest, longest)


@inlined_kernel
def drawdown_of_rows(rows, first, is_out, is_missing, has_missing, track):
    """The drawdown's part of a ``Track`` after rows."""
    peak, peak_bar, trough, is_under = track.peak_usd, track.peak_bar, track.trough_usd, track.is_under
    deepest, longest, fresh = track.deepest, track.longest_bars, -1  # the row before is without a position
    for k in range(len(rows)):
        if has_missing and is_missing[k] and not (is_out and k == len(rows) - 1):
            continue
        equity, fresh = rows[k], k
        if equity >= peak:
            if is_under:
                longest = max(longest, first + k - peak_bar)
                deepest = max(deepest, 1.0 - trough / peak)
            peak, peak_bar, trough, is_under = equity, first + k, equity, False
        else:
            trough, is_under = min(trough, equity), True
    if is_under:
        longest = max(longest, first + fresh - peak_bar)
    return peak, peak_bar, trough, is_under, deepest, longest


@kernel
def returns_of_rows(rows, before_usd, capital_usd, out):
    """Write the returns of rows that are not zero to ``out``; how many these are."""
    out[0] = simple_return(rows[0], before_usd, capital_usd)
    n_zero = int(out[0] == 0.0)
    for k in range(1, len(rows)):
        out[k] = simple_return(rows[k], rows[k - 1], capital_usd)
        n_zero += out[k] == 0.0
    if n_zero == 0:
        return len(rows)
    n = 0
    for k in range(len(rows)):
        if out[k] != 0.0:
            out[n] = out[k]
            n += 1
    return n


@inlined_kernel
def draw_curve(first, entry, end, is_out, before_usd, plain, equity_usd, curve_usd):
    """Equity at each bar from ``first`` to ``end``: that before the entry, then the last fresh one."""
    curve_usd[first:entry] = before_usd
    last = before_usd
    for bar in range(entry, end):
        if not plain.is_missing[bar] or (is_out and bar == end - 1):
            last = equity_usd[bar]
        curve_usd[bar] = last
