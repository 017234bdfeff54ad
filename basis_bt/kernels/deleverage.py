"""Auto-deleveraging (step 5): the venue closes a share of a position, and the combo is brought back to its hedge."""

from basis_bt.kernels._jit import inner_kernel
from basis_bt.kernels.margin_call import close_at, close_rest, drop_order, record_closing, settle_parts
from basis_bt.kernels.orders import HEDGE_TOLERANCE, send, write_event
from basis_bt.kernels.structs import (
    ARRIVAL,
    DELEVERAGE,
    DELEVERAGED,
    FORCED,
    HEDGE_RATIO,
    HELD,
    HELD_DIRECTION,
    RESIZE,
    WANT,
)


@inner_kernel
def deleverage(bar, order, account, market, combo, contracts, log):
    """Close the shares a scenario names, at the bar's margin price, and send what is over the common units."""
    price, is_dropped = market.margin_open[bar], False
    for leg in range(len(price)):
        share, held = contracts.adl_share[bar, leg], account.legs[HELD, leg]
        if share == 0.0 or held == 0.0:
            continue
        if not is_dropped:
            is_dropped = True
            drop_order(bar, order, account, log)
        change = close_at(bar, leg, share, price, order, account, market, combo.reference_leg)
        record_closing(bar, leg, change, price[leg], 0.0, DELEVERAGE, DELEVERAGED, account, log)
        write_event(log, account, bar, DELEVERAGE, DELEVERAGED, account.counts[HELD_DIRECTION], abs(change))
    if is_dropped:
        trim(bar, order, account, market, combo, log)


@inner_kernel
def trim(bar, order, account, market, combo, log):
    """Send what legs hold beyond the largest quantity that all of them have, to be closed at the next opens."""
    held, ratio = account.legs[HELD], account.legs[HEDGE_RATIO]
    units = abs(held[0] / ratio[0])
    for leg in range(1, len(held)):
        units = min(units, abs(held[leg] / ratio[leg]))
    if units == 0.0 or account.counts[HELD_DIRECTION] == 0:
        close_rest(bar, DELEVERAGED, order, account, market, combo, log)
        return
    settle_parts(account)
    largest = 0.0
    for leg in range(len(held)):
        order.legs[ARRIVAL, leg] = market.close_price[bar, leg]
        side = 1.0 if held[leg] > 0.0 else -1.0
        over = held[leg] - side * units * abs(ratio[leg])
        order.legs[WANT, leg] = -over if abs(over) > HEDGE_TOLERANCE * abs(held[leg]) else 0.0
        largest = max(largest, abs(order.legs[WANT, leg] / ratio[leg]))
    if largest == 0.0:
        return
    direction = account.counts[HELD_DIRECTION]
    send(order, account, bar, bar + 1, RESIZE, DELEVERAGED, direction, largest, log)
    order.state[FORCED] = 1
