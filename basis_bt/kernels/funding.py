"""Funding of a linear perpetual."""

from basis_bt.kernels._jit import kernel


@kernel
def funding_usd(position_base, mark_price, funding_rate):
    """Cash received at one settlement; longs pay when the rate is positive."""
    return -position_base * mark_price * funding_rate
