"""The threshold rule. A comparison with a NaN signal is false, so a null signal changes nothing."""

from basis_bt.kernels._jit import kernel
from basis_bt.kernels.structs import MAX_HOLD, SIGNAL, STOP

HOLD = -1


@kernel
def entry_direction(signal, rule):
    """+1 or -1 to enter as written or reversed, 0 to stay out."""
    if signal >= rule.entry:
        return 1
    if rule.reverse and signal <= -rule.entry:
        return -1
    return 0


@kernel
def is_stopped(equity_before_usd, entry_equity_usd, stop_loss_pct):
    """Whether the last row's equity lost ``stop_loss_pct`` percent of what the entry was sized on; NaN: no stop."""
    return equity_before_usd <= entry_equity_usd * (1.0 - stop_loss_pct / 100.0)


@kernel
def exit_reason(signal, direction, held_bars, equity_before_usd, entry_equity_usd, rule):
    """Why to leave now, or HOLD: the stop goes first, then the longest hold, then the signal after the shortest."""
    if is_stopped(equity_before_usd, entry_equity_usd, rule.stop_loss_pct):
        return STOP
    if rule.max_hold_bars >= 0 and held_bars >= rule.max_hold_bars:
        return MAX_HOLD
    if held_bars >= rule.min_hold_bars and (
        (direction > 0 and signal <= rule.exit) or (direction < 0 and signal >= -rule.exit)
    ):
        return SIGNAL
    return HOLD
