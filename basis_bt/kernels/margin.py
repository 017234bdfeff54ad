"""What a wallet is worth and what it must keep, at one set of prices.

The tiers of a leg are arrays ``floor_usd, mmr, amount_usd``, ascending from a floor of 0: row k holds for
``floor_k < n <= floor_{k+1}``, the last one for all above. Rows that pad a shorter table have an infinite floor. The
tier is that of the notional at the price looked at, never at the entry. Where a venue tiers by contracts (OKX), the
tier does not depend on the price, and a position passes its own as a table of one row.

A wallet is described by arrays over all legs of the book: ``position_base`` (signed), ``weight`` (1 for a margined leg,
the haircut of spot that counts as collateral, 1 for spot that is owed, 0 for what does not count or is held elsewhere),
``is_margined``, and ``notional_usd``: -1 where the notional follows the price, else what it is at any price (an inverse
contract's). Its cash includes ``-q * F`` of each margined fill, so that equity is cash plus weighted value.
"""

from basis_bt.kernels._jit import kernel


@kernel
def tier_of(notional_usd, floor_usd):
    """Row of the tier that holds for a notional; a notional equal to a floor belongs to the tier below it."""
    tier = 0
    while tier + 1 < len(floor_usd) and floor_usd[tier + 1] < notional_usd:
        tier += 1
    return tier


@kernel
def maintenance_usd(notional_usd, floor_usd, mmr, amount_usd):
    """Maintenance margin of one position: ``n * mmr - amount`` of its tier.

    With the amounts a venue publishes it is continuous in the notional; with amounts of 0 (OKX) it jumps at a floor.
    """
    tier = tier_of(notional_usd, floor_usd)
    return notional_usd * mmr[tier] - amount_usd[tier]


@kernel
def maintenance_of_leg_usd(notional_usd, leg, floor_usd, mmr, amount_usd):
    """Maintenance of one leg from the tiers of all, ``(n_legs, n_tiers)``, without a view of its row."""
    tier = 0
    while tier + 1 < floor_usd.shape[1] and floor_usd[leg, tier + 1] < notional_usd:
        tier += 1
    return notional_usd * mmr[leg, tier] - amount_usd[leg, tier]


@kernel
def notional_at_usd(position_base, price, notional_usd):
    """Notional of one leg at a price; ``notional_usd`` where that is fixed."""
    return notional_usd if notional_usd >= 0.0 else abs(position_base) * price


@kernel
def initial_margin_usd(notional_usd, leverage, floor_usd, max_leverage):
    """Margin needed to open a notional at the leverage chosen, or at the most its tier allows if that is less."""
    return notional_usd / min(leverage, max_leverage[tier_of(notional_usd, floor_usd)])


@kernel
def wallet_equity_usd(cash_usd, position_base, weight, price):
    """Equity of a wallet: cash plus the value of its margined legs plus that of its collateral after the haircut."""
    equity_usd = cash_usd
    for leg in range(len(position_base)):
        if weight[leg] != 0.0:
            equity_usd += weight[leg] * position_base[leg] * price[leg]
    return equity_usd


@kernel
def wallet_maintenance_usd(position_base, is_margined, notional_usd, price, floor_usd, mmr, amount_usd):
    """Maintenance margin of a wallet: the sum over its margined legs, tiers ``(n_legs, n_tiers)``."""
    total_usd = 0.0
    for leg in range(len(position_base)):
        if is_margined[leg]:
            at_price_usd = notional_at_usd(position_base[leg], price[leg], notional_usd[leg])
            total_usd += maintenance_of_leg_usd(at_price_usd, leg, floor_usd, mmr, amount_usd)
    return total_usd


@kernel
def wallet_surplus_usd(cash_usd, position_base, weight, is_margined, notional_usd, price, floor_usd, mmr, amount_usd):
    """Equity less maintenance: a wallet is liquidated when this is below zero."""
    equity_usd = wallet_equity_usd(cash_usd, position_base, weight, price)
    return equity_usd - wallet_maintenance_usd(
        position_base, is_margined, notional_usd, price, floor_usd, mmr, amount_usd
    )
