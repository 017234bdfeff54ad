"""Money: what a fill moves, what a settlement moves, and what is free."""

from typing import TYPE_CHECKING

from basis_bt.live.fake.records import RateMark, SimFunding, SimOrder, SimTrade, clean
from basis_bt.live.venue import Contract

if TYPE_CHECKING:
    from basis_bt.live.fake.simulator import SimVenue

#: what is left of a fee that is paid in BNB, of spot and of margined contracts
_BNB_SPOT, _BNB_MARGINED = 0.75, 0.90


def book_fill(
    sim: "SimVenue",
    order: SimOrder,
    contract: Contract,
    price: float,
    quantity: float,
    *,
    is_maker: bool,
    fee_bps: float,
) -> None:
    """Cash, position and fee of one fill; what no order may do is noted in ``sim.violations``."""
    ticket, wallet = order.ticket, sim.wallet_of(order.ticket.instrument)
    side, notional, realised = ticket.side, quantity * price, 0.0
    if contract.is_margined:
        position = sim.positions[ticket.instrument]
        before = position.position_base
        realised = position.fill(side * quantity, price, sim.now_us())
        sim.wallets.add(wallet, contract.quote, realised)
        if before * position.position_base < 0.0:
            sim.violations.append(
                f"{ticket.instrument}: order {ticket.client_order_id} turned the position from {before} to "
                f"{position.position_base}"
            )
    else:
        sim.wallets.add(wallet, contract.base, side * quantity)
        sim.wallets.add(wallet, contract.quote, -side * notional)
    fee, fee_asset = _fee(sim, contract, side, quantity, notional, fee_bps)
    sim.wallets.add(wallet, fee_asset, -fee)
    order.fees[fee_asset] = clean(order.fees.get(fee_asset, 0.0) + fee)
    sim.trades.append(
        SimTrade(
            trade_id=sim.next_trade_id(),
            venue_order_id=order.venue_order_id,
            client_order_id=ticket.client_order_id,
            instrument=ticket.instrument,
            side=side,
            quantity_base=quantity,
            price=price,
            fee=fee,
            fee_asset=fee_asset,
            is_maker=is_maker,
            realised_usd=realised,
            ts_us=sim.now_us(),
        )
    )
    if not contract.is_margined and side < 0 and sim.position_base(ticket.instrument) < -1e-9:
        sim.violations.append(
            f"{ticket.instrument}: order {ticket.client_order_id} sold "
            f"{-sim.position_base(ticket.instrument)} more than was bought"
        )


def _fee(
    sim: "SimVenue", contract: Contract, side: int, quantity: float, notional: float, fee_bps: float
) -> tuple[float, str]:
    """Amount and asset. A rebate on a spot buy is paid in quote."""
    if sim.bnb_price is not None and sim.wallets.amount(sim.wallet_of(contract.instrument), "BNB") > 0.0:
        left = _BNB_MARGINED if contract.is_margined else _BNB_SPOT
        return clean(notional * fee_bps * 1e-4 * left / sim.bnb_price), "BNB"
    if contract.is_fee_in_base and side > 0 and fee_bps > 0.0:
        return clean(quantity * fee_bps * 1e-4), contract.base
    return clean(notional * fee_bps * 1e-4), contract.quote


def settle(sim: "SimVenue", instrument: str, rate: float, mark_price: float | None, ts_us: int) -> float:
    """One funding settlement on the position held; a rate is kept even where there is none."""
    mark = sim.mark_price(instrument) if mark_price is None else mark_price
    sim.rate_marks.append(RateMark(instrument=instrument, rate=rate, mark_price=mark, ts_us=ts_us))
    position = sim.positions[instrument].position_base
    if not position:
        return 0.0
    amount = clean(-position * mark * rate)
    quote = sim.contracts[instrument].quote
    sim.wallets.add(sim.wallet_of(instrument), quote, amount)
    sim.funding.append(
        SimFunding(
            payment_id=sim.next_trade_id(),
            instrument=instrument,
            amount=amount,
            asset=quote,
            rate=rate,
            mark_price=mark,
            position_base=position,
            ts_us=ts_us,
        )
    )
    return amount


def free_cash(sim: "SimVenue", wallet: str, asset: str) -> float:
    """What of an asset is not locked by orders or margin; unrealised profit counts as cash."""
    locked = 0.0
    for order in sim.open_orders():
        ticket, contract = order.ticket, sim.contracts[order.ticket.instrument]
        if sim.wallet_of(ticket.instrument) != wallet:
            continue
        notional = order.remaining_base * (ticket.limit_price or 0.0)
        if contract.is_margined:
            if not ticket.reduce_only and asset == contract.quote:
                locked += notional / sim.positions[ticket.instrument].leverage
        elif asset == (contract.quote if ticket.side > 0 else contract.base):
            locked += notional if ticket.side > 0 else order.remaining_base
    for instrument, position in sim.positions.items():
        contract = sim.contracts[instrument]
        if contract.quote == asset and sim.wallet_of(instrument) == wallet and position.position_base:
            mark = sim.mark_price(instrument)
            locked += abs(position.position_base) * mark / position.leverage - position.profit(mark)
    return clean(sim.wallets.amount(wallet, asset) - locked)
