"""What an entry would meet now: every check that comes before an order, and no order."""

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from basis_bt.backtest.parameters import combo_params
from basis_bt.kernels.sizing import capital_per_combo_usd
from basis_bt.live.amounts import contracts_of
from basis_bt.live.book_check import check_book, check_minimums, common_quantity
from basis_bt.live.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """One row a leg, and what stands against an entry (nothing: it could be sent)."""

    legs: pl.DataFrame
    objections: list[str]


async def dry_run(session: Session) -> DryRun:
    """Size an entry as the rule would, look at both books, and say what would refuse it.

    Raises
    ------
    VenueDown
        If a venue does not answer.
    """
    config, combos = session.config, session.combos
    instruments = combos.instruments
    venues = [session.venues[one.split(":")[1]] for one in instruments]
    contracts = [await venue.refresh(one) for venue, one in zip(venues, instruments, strict=True)]
    books = await asyncio.gather(*(venue.book(one) for venue, one in zip(venues, instruments, strict=True)))
    params = combo_params(config)
    equity_usd = session.trader.account.cash_usd
    prices = [book.mid for book in books]
    combo_usd = capital_per_combo_usd(params.ratio, np.array(prices), params.margin_weight)
    sized = common_quantity(config.size.allocation * equity_usd / combo_usd, contracts, combos.ratios)
    rows: list[dict[str, Any]] = []
    objections: list[str] = []
    small = check_minimums(contracts, sized.order_base, prices)
    if small is not None:
        objections.append(small)
    for leg, (contract, book, order) in enumerate(zip(contracts, books, sized.order_base, strict=True)):
        check = check_book(
            book, side=1 if combos.ratios[leg] > 0.0 else -1, quantity_base=order, now_us=session.clock.now_us(),
            limits=session.live.limits,
        )  # fmt: skip
        if check.reason is not None:
            objections.append(f"{check.reason}: {check.sentence}")
        limit = session.live.limits.notional_limit_usd(contract.venue)
        notional_usd = sum(
            one * price
            for one, price, other in zip(sized.order_base, prices, contracts, strict=True)
            if other.venue == contract.venue
        )
        if limit is not None and notional_usd > limit:
            objections.append(f"{contract.venue} would hold {notional_usd:,.0f} USD, the limit is {limit:,.0f} USD")
        needed_usd = order * book.mid * float(params.margin_weight[leg])
        ask = venues[leg].margin_balance if contract.is_margined else venues[leg].spot_balance
        free_usd = (await ask(contract.quote)).free
        if free_usd < needed_usd:
            objections.append(
                f"{contract.instrument}: {needed_usd:,.0f} {contract.quote} are needed, {free_usd:,.0f} are free"
            )
        rows.append(
            {
                "instrument": contract.instrument,
                "side": "buy" if combos.ratios[leg] > 0.0 else "sell",
                "quantity_base": order,
                "contracts": contracts_of(order, contract),
                "notional_usd": order * book.mid,
                "mid": book.mid,
                "spread_bps": check.spread_bps,
                "slippage_bps": check.slippage_bps,
                "taker_fee_bps": contract.taker_fee_bps,
                "depth_base": check.depth_base,
                "liquidity_score": check.liquidity_score,
                "lot_base": contract.lot_base,
                "free_quote": free_usd,
            }
        )
    return DryRun(legs=pl.DataFrame(rows), objections=list(dict.fromkeys(objections)))
