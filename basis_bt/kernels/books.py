"""Splitting price PnL into delta and basis, and fills into their costs."""

from basis_bt.kernels._jit import kernel
from basis_bt.kernels.structs import BASIS, DELTA


@kernel
def book_price_move(books, leg, quantity_base, price_from, price_to, reference_from, reference_to):
    """Add the PnL of a quantity between two prices: what the reference moved is delta, the rest is basis."""
    reference_move = reference_to - reference_from
    books[leg, DELTA] += quantity_base * reference_move
    books[leg, BASIS] += quantity_base * ((price_to - price_from) - reference_move)


@kernel
def equity_usd(cash_usd, position_base, price):
    """Cash plus positions at a price each; linear and spot alike, since a buy took its notional from cash."""
    total = cash_usd
    for leg in range(len(position_base)):
        total += position_base[leg] * price[leg]
    return total


@kernel
def gross_notional_usd(position_base, price):
    """Sum of the absolute values of all legs."""
    total = 0.0
    for leg in range(len(position_base)):
        total += abs(position_base[leg]) * price[leg]
    return total
