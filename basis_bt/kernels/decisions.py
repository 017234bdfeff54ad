"""What a trial decides at a stamp (step 3): to enter, to leave, or to make the combo smaller."""

import math

from basis_bt.kernels._jit import inlined_kernel, inner_kernel
from basis_bt.kernels.books import equity_usd
from basis_bt.kernels.fills import cost_components_bps, gross_base, net_share
from basis_bt.kernels.orders import send, write_event
from basis_bt.kernels.sizing import combo_quantity, is_capital, meets_minimums
from basis_bt.kernels.status import OK
from basis_bt.kernels.structs import (
    ARRIVAL,
    CASH,
    CASH_BEFORE_ENTRY,
    ENTRY,
    EXIT,
    EXPIRED,
    FUNDED,
    HEDGE_RATIO,
    HELD,
    HELD_DIRECTION,
    IS_SPLIT,
    MARGIN,
    MAX_BASIS,
    MAX_COST,
    MAX_SPREAD,
    MAX_VOLUME_SHARE,
    MIN_NOTIONAL,
    N_REFUSED,
    N_TRADES,
    POSITION,
    REFUSED,
    RESIZE,
    SIGNAL,
    SIZE,
    WANT,
)
from basis_bt.kernels.wallets import plan_transfers, send_queued, split


@inner_kernel
def refusal(bar, quantity, ratio, arrival_price, market, rule, size, costs, fills, contracts):
    """Why an entry may not be sent, or -1: an expired leg, the rule, the size, then the pre-flight of its costs."""
    for leg in range(len(ratio)):
        if 0 <= contracts.delivery_bar[leg] <= bar:
            return EXPIRED
    basis_bps, least_usd = market.basis_bps[bar], size.min_notional_usd
    reason = entry_refusal(quantity, ratio, arrival_price, basis_bps, rule.max_basis_bps, least_usd)
    if reason < 0 and has_preflight(fills.max_cost_bps, fills.max_volume_share, fills.max_spread_bps):
        return preflight(bar, quantity, ratio, arrival_price, market, costs, fills)
    return reason


@inlined_kernel
def entry_refusal(quantity, ratio, arrival_price, basis_bps, max_basis_bps, min_notional_usd):
    """Why an entry in living contracts may not be sent whatever it costs, or -1: the rule, then the size."""
    if not math.isnan(max_basis_bps) and not abs(basis_bps) <= max_basis_bps:
        return MAX_BASIS
    if not quantity > 0.0:
        return SIZE
    return -1 if meets_minimums(quantity, ratio, arrival_price, min_notional_usd) else MIN_NOTIONAL


@inlined_kernel
def has_preflight(max_cost_bps, max_volume_share, max_spread_bps):
    """Whether there is a limit that the pre-flight of an entry looks at."""
    return max_cost_bps < math.inf or max_volume_share < math.inf or max_spread_bps < math.inf


@inner_kernel
def preflight(bar, quantity, ratio, arrival_price, market, costs, fills):
    """Whether an entry's estimated cost, its share of the last volume, or a quoted spread is over its limit."""
    cost_usd, notional_usd, share, spread_bps = 0.0, 0.0, 0.0, 0.0
    for leg in range(len(ratio)):
        n = gross_base(quantity * ratio[leg], costs.base_fee_frac[leg])
        status, half_spread, bucket, impact = cost_components_bps(bar, leg, n, arrival_price[leg], market, costs)
        notional = n * arrival_price[leg]
        cost_usd += notional * (half_spread + bucket + impact if status == OK else math.inf)
        notional_usd += notional
        before = market.volume_before[bar, leg]
        share = max(share, n / before if before > 0.0 else math.inf)
        spread_bps = max(spread_bps, 2.0 * costs.half_spread_bps[leg])
    if cost_usd / notional_usd > fills.max_cost_bps:
        return MAX_COST
    if share > fills.max_volume_share:
        return MAX_VOLUME_SHARE
    return MAX_SPREAD if spread_bps > fills.max_spread_bps else -1


@inner_kernel
def decide_entry(bar, wanted, order, account, market, combo, rule, size, costs, fills, wallets, contracts, log):
    """Send the entry the rule wants, if nothing speaks against it; returns the equity it was sized on, or NaN."""
    ratio, arrival = combo.ratio, order.legs[ARRIVAL]
    for leg in range(len(ratio)):
        account.legs[HEDGE_RATIO, leg] = ratio[leg]
        arrival[leg] = market.open_price[bar, leg]
    own = equity_usd(account.sums[CASH], account.legs[POSITION], arrival)
    equity = own if size.compounding else size.capital_usd
    quantity = combo_quantity(equity, ratio, arrival, combo.margin_weight, size) if is_capital(own, size) else 0.0
    reason = refusal(bar, quantity, ratio, arrival, market, rule, size, costs, fills, contracts)
    if reason >= 0:
        account.counts[N_REFUSED] += 1
        write_event(log, account, bar, REFUSED, reason, wanted, quantity)
        return math.nan
    share = net_share(wanted, ratio, costs.base_fee_frac)
    for leg in range(len(ratio)):
        order.legs[WANT, leg] = wanted * ratio[leg] * (quantity * share)
    account.sums[CASH_BEFORE_ENTRY] = account.sums[CASH]
    ready_bar = bar + fills.latency_bars.min()
    send(order, account, bar, ready_bar, ENTRY, SIGNAL, wanted, quantity * share, log)
    if wallets.is_split:
        fund(bar, order, account, combo, wallets, arrival)
    return equity


@inner_kernel
def fund(bar, order, account, combo, wallets, price):
    """Bring the wallets to their targets for an entry, which waits for the cash; the first time it is there."""
    equity = equity_usd(account.sums[CASH], account.legs[HELD], price)
    if not account.counts[IS_SPLIT]:
        split(account, combo, price, equity)
        return
    plan_transfers(account, combo, wallets, price, equity)
    send_queued(bar, account, wallets)
    order.state[FUNDED] = 0


@inner_kernel
def decide_resize(bar, order, account, market, combo, size, fills, wallets, log):
    """A wallet's margin runs low: make the combo as small as its equity bears, and move cash where it is short."""
    price, held = market.open_price[bar], account.legs[HELD]
    equity = equity_usd(account.sums[CASH], held, price)
    target = combo_quantity(equity, combo.ratio, price, combo.margin_weight, size) if is_capital(equity, size) else 0.0
    units = 0.0
    for leg in range(len(held)):
        units = max(units, abs(held[leg] / account.legs[HEDGE_RATIO, leg]))
    if not target > 0.0:
        decide_exit(bar, MARGIN, order, account, market, fills, log)
        return
    if target >= units:
        plan_transfers(account, combo, wallets, price, equity)
        send_queued(bar, account, wallets)
        return
    direction = account.counts[HELD_DIRECTION]
    for leg in range(len(held)):
        order.legs[ARRIVAL, leg] = price[leg]
        order.legs[WANT, leg] = (
            -direction * account.legs[HEDGE_RATIO, leg] * (units - target) if held[leg] != 0.0 else 0.0
        )
    send(order, account, bar, bar + fills.latency_bars.min(), RESIZE, MARGIN, direction, units - target, log)


@inner_kernel
def decide_exit(bar, reason, order, account, market, fills, log):
    """Send the exit the rule wants: all that is held."""
    for leg in range(len(order.legs[WANT])):
        order.legs[ARRIVAL, leg] = market.open_price[bar, leg]
        order.legs[WANT, leg] = -account.legs[POSITION, leg]
    quantity = log.trade_values[account.counts[N_TRADES] - 1, 0]
    ready_bar = bar + fills.latency_bars.min()
    send(order, account, bar, ready_bar, EXIT, reason, account.counts[HELD_DIRECTION], quantity, log)
