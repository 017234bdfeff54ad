"""In which bars anything happens at all, so that the others pass without a call."""

import numpy as np

from basis_bt.kernels._jit import kernel


@kernel
def is_moved(rate, bar):
    """Whether any rate differs from that of the bar before."""
    for column in range(rate.shape[1]):
        if rate[bar, column] != rate[bar - 1, column]:
            return True
    return False


@kernel
def is_short(held_base, borrow_period_hours):
    """Whether anything that pays interest is borrowed."""
    for leg in range(len(held_base)):
        if held_base[leg] < 0.0 and borrow_period_hours[leg] > 0.0:
            return True
    return False


@kernel
def bars_with(by_leg):
    """The bars in which anything of ``(n_bars, n_legs)`` is not zero."""
    out = np.zeros(len(by_leg), dtype=np.bool_)
    for bar in range(len(by_leg)):
        for leg in range(by_leg.shape[1]):
            out[bar] |= by_leg[bar, leg] != 0
    return out


@kernel
def delivery_bars(n_bars, delivery_bar):
    """The bars in which a leg is delivered."""
    out = np.zeros(n_bars, dtype=np.bool_)
    for leg in range(len(delivery_bar)):
        if delivery_bar[leg] >= 0:
            out[delivery_bar[leg]] = True
    return out
