"""What a fill costs, as scalar functions; backtest and live adapter call the same ones."""

import math

import numpy as np

from basis_bt.kernels._jit import kernel


@kernel
def bucket_bps(notional_usd, edges_usd, table_bps):
    """All-in bps of a notional: log-linear between the edges, flat outside, 0 without a table."""
    n = len(edges_usd)
    if n == 0:
        return 0.0
    if notional_usd <= edges_usd[0]:
        return table_bps[0]
    if notional_usd >= edges_usd[n - 1]:
        return table_bps[n - 1]
    k = np.searchsorted(edges_usd, notional_usd, side="right")
    low, high = math.log(edges_usd[k - 1]), math.log(edges_usd[k])
    weight = (math.log(notional_usd) - low) / (high - low)
    return table_bps[k - 1] + weight * (table_bps[k] - table_bps[k - 1])


@kernel
def impact_bps(quantity_base, volume_base, coef_bps, exponent):
    """Own move of an order of ``quantity_base`` in a bar of ``volume_base``: ``coef * (n / V) ** exponent``."""
    if coef_bps == 0.0:
        return 0.0
    return coef_bps * (quantity_base / volume_base) ** exponent


@kernel
def fill_price(reference_price, side, cost_bps):
    """Price an order gets: worse than the reference for both sides (+1 buy, -1 sell)."""
    return reference_price * (1.0 + side * cost_bps / 1e4)


@kernel
def fee_usd(quantity_base, price, fee_bps):
    """Fee on the notional at the fill price; negative bps are a rebate."""
    return quantity_base * price * fee_bps / 1e4


@kernel
def cost_usd(quantity_base, reference_price, cost_bps):
    """USD that one component of ``cost_bps`` takes, on the notional at the reference price."""
    return quantity_base * reference_price * cost_bps / 1e4


@kernel
def delay_usd(side, quantity_base, arrival_price, reference_price):
    """Cost of the price moving between decision and fill; negative when it moved in one's favour."""
    return side * quantity_base * (reference_price - arrival_price)
