"""The truth of one account at one venue: books, cash, positions, orders, trades, settlements.

Synchronous and in base units; a clock is passed in. A dialect speaks for it over REST, ``paper.py`` calls it directly.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from basis_bt.live.clock import Clock
from basis_bt.live.fake.account import SimPosition, Wallets
from basis_bt.live.fake.bookkeeping import book_fill, free_cash, settle
from basis_bt.live.fake.books import Levels, SimBook, make_book
from basis_bt.live.fake.checks import check_ticket
from basis_bt.live.fake.records import (
    CANCELED,
    CLOSED,
    OPEN,
    OrderMoment,
    RateMark,
    Refused,
    RequestRecord,
    SimFunding,
    SimOrder,
    SimTrade,
    Ticket,
    clean,
    floor_to,
)
from basis_bt.live.fake.rules import RULES, VenueRules
from basis_bt.live.venue import Contract

_FIRST_ORDER_ID = 1_000
_FIRST_TRADE_ID = 50_000


class SimVenue:
    """One account at one venue.

    Parameters
    ----------
    name : of the venue, e.g. ``binance``; also picks its rules unless they are given
    contracts : what is traded
    clock : whose time it is
    balances : cash by use and asset, ``{"spot": {"USDT": 1e5}, "perp": {"USDT": 1e5}}``
    mid_of : moving mid by instrument and instant (epoch us); without it the books stay where ``set_book`` put them
    bnb_price : fees are taken in BNB at this price while there is BNB in the wallet, 25 % (spot) or 10 % cheaper
    """

    def __init__(
        self,
        name: str,
        contracts: Sequence[Contract],
        *,
        clock: Clock,
        balances: Mapping[str, Mapping[str, float]],
        rules: VenueRules | None = None,
        mid_of: Callable[[str, int], float | None] | None = None,
        bnb_price: float | None = None,
    ) -> None:
        self.name = name
        self.clock = clock
        self.rules = rules or RULES[name]
        self.contracts = {contract.instrument: contract for contract in contracts}
        self.books = {contract.instrument: SimBook(tick=contract.tick) for contract in contracts}
        self.positions = {c.instrument: SimPosition() for c in contracts if c.is_margined}
        self.wallets = Wallets.filled(self.rules.wallets, balances)
        self.mid_of = mid_of
        self.bnb_price = bnb_price
        self.is_hedge_mode = False
        self.account_margin_mode = "cross"
        self.clock_offset_ms = 0
        self.orders: dict[str, SimOrder] = {}
        self._open: dict[str, SimOrder] = {}
        self._by_client_id: dict[tuple[str, str], SimOrder] = {}
        self.trades: list[SimTrade] = []
        self.funding: list[SimFunding] = []
        self.rate_marks: list[RateMark] = []
        self.next_rate: dict[str, tuple[float, int, float]] = {}
        self.candles: dict[tuple[str, str], list[tuple[int, float, float, float, float, float]]] = {}
        self.violations: list[str] = []
        self.requests: list[RequestRecord] = []
        self.refusals: list[tuple[str, str]] = []
        self.creates: Counter[str] = Counter()
        self.transfers: list[tuple[str, str, float, str, str]] = []
        self.abuse = 0
        self.n418 = 0
        self.exposures: list[tuple[int, str, float]] = []
        self._serial = _FIRST_ORDER_ID
        self._trade_serial = _FIRST_TRADE_ID
        self._start = {c.base: self.wallets.total(c.base) for c in contracts}

    # ------------------------------------------------------------------ books

    def set_book(self, instrument: str, bids: Levels, asks: Levels, *, at_us: int | None = None) -> None:
        """New levels; resting orders they reach are filled as makers. ``at_us`` pins the instant they were true."""
        self.books[instrument].set(tuple(bids), tuple(asks), at_us)
        self._fill_resting(instrument)

    def make_book(
        self,
        instrument: str,
        mid: float,
        *,
        spread_bps: float = 1.0,
        depth_base: float = 10.0,
        is_refilled: bool = True,
    ) -> None:
        """A book around ``mid``, see ``books.make_book``."""
        bids, asks = make_book(mid, spread_bps=spread_bps, depth_base=depth_base, tick=self.books[instrument].tick)
        self.books[instrument].is_refilled = is_refilled
        self.set_book(instrument, bids, asks)

    def move_book(self, instrument: str, share: float) -> None:
        """Every price of the book moved by a share of itself."""
        self.set_book(instrument, *self.book(instrument).shifted(share))

    def book(self, instrument: str) -> SimBook:
        """The book as it is now; a moving mid is applied first."""
        book = self.books[instrument]
        mid = self.mid_of(instrument, self.clock.now_us()) if self.mid_of else None
        if mid is not None and abs(mid - book.mid) >= book.tick:
            book.move_to(mid)
            self._fill_resting(instrument)
        return book

    def mark_price(self, instrument: str) -> float:
        """What positions are valued at: the mid of their book, the last one where a side is empty."""
        return self.book(instrument).mid

    def cross(self, instrument: str, price: float, quantity_base: float = math.inf) -> None:
        """Somebody trades at ``price``: resting orders at or beyond it are filled as makers."""
        for order in self._resting(instrument):
            limit = order.ticket.limit_price or 0.0
            if order.ticket.side * (limit - price) >= -1e-9 and quantity_base > 0.0:
                part = min(order.remaining_base, quantity_base)
                quantity_base -= part
                self._fill_at_limit(order, part)

    def set_trading(self, instrument: str, is_trading: bool) -> None:
        """Halt or resume an instrument; resting orders stay."""
        self.contracts[instrument] = replace(self.contracts[instrument], is_trading=is_trading)

    # ----------------------------------------------------------------- orders

    def place(self, ticket: Ticket, *, fill_share: float = 1.0) -> SimOrder:
        """Accept an order and match it.

        ``fill_share`` below one leaves the rest of what the book would give: cancelled for market and IOC orders,
        resting for limit orders. Raises ``Refused``.
        """
        try:
            ticket = self._in_base(ticket)
            would_take = check_ticket(self, ticket)
        except Refused as refusal:
            self.refusals.append((refusal.kind, ticket.instrument))
            raise
        order = self._accept(ticket)
        if ticket.time_in_force == "GTX" and would_take:
            self._end(order, CANCELED, "post_only")
            return order
        self._note(order)
        allowed = floor_to(self._reducible(ticket) * fill_share, self.contracts[ticket.instrument].lot_base)
        fills = self.preview(ticket, allowed)
        total = sum(part for _, part in fills)
        if ticket.time_in_force == "FOK" and total < ticket.quantity_base - 1e-12:
            fills = []
        self.books[ticket.instrument].take(ticket.side, fills)
        self._fill(order, fills, is_maker=False)
        is_over = ticket.kind == "market" or ticket.time_in_force in ("IOC", "FOK")
        if order.status == OPEN and (is_over or order.remaining_base > self._reducible(ticket) + 1e-12):
            self._end(order, CANCELED, "remainder")
        return order

    def preview(self, ticket: Ticket, quantity_base: float) -> list[tuple[float, float]]:
        """The fills that the book has for a ticket at this instant."""
        book = self.book(ticket.instrument)
        worst = ticket.limit_price if ticket.kind == "limit" else None
        if worst is None and self.rules.market_band_frac is not None:
            worst = book.mid * (1.0 + ticket.side * self.rules.market_band_frac)
        return book.fills(ticket.side, quantity_base, worst)

    def cancel(self, order: SimOrder | None, *, fill_share_before: float = 0.0) -> SimOrder:
        """Cancel an open order; raises ``Refused`` where it is not open (any more).

        ``fill_share_before`` of what remains is filled at its limit first: the cancel races with a fill.
        """
        if order is not None and order.status == OPEN and fill_share_before:
            lot = self.contracts[order.ticket.instrument].lot_base
            part = floor_to(order.remaining_base * fill_share_before, lot)
            self._fill_at_limit(order, part)
        if order is None or order.status != OPEN:
            raise Refused("not_found", "no such open order")
        self._end(order, CANCELED, "user")
        return order

    def find(self, instrument: str, *, venue_order_id: str = "", client_order_id: str = "") -> SimOrder | None:
        """An order by either id; of several with one client id the latest."""
        if not venue_order_id:
            return self._by_client_id.get((instrument, client_order_id))
        order = self.orders.get(venue_order_id)
        return order if order and order.ticket.instrument == instrument else None

    def open_orders(self, instrument: str | None = None) -> list[SimOrder]:
        """All that are open."""
        return [order for order in self._open.values() if instrument in (None, order.ticket.instrument)]

    # ------------------------------------------------------- what the venue does

    def settle(
        self, instrument: str, rate: float, mark_price: float | None = None, *, ts_us: int | None = None
    ) -> float:
        """One funding settlement, ``-position * mark * rate``; returns the cash, positive when received."""
        return settle(self, instrument, rate, mark_price, self.now_us() if ts_us is None else ts_us)

    def close_by_venue(self, instrument: str, *, price: float | None = None, share: float = 1.0) -> None:
        """The venue closes a position (auto-deleveraging, liquidation), without a fee, at the mark price."""
        contract = self.contracts[instrument]
        position = self.positions[instrument].position_base
        quantity = floor_to(abs(position) * share, contract.lot_base)
        if not quantity:
            return
        at = self.mark_price(instrument) if price is None else price
        ticket = Ticket(
            client_order_id=f"adl{self._serial}",
            instrument=instrument,
            side=-1 if position > 0 else 1,
            quantity_base=quantity,
            reduce_only=True,
        )
        order = self._accept(ticket)
        self._fill(order, [(clean(round(at / contract.tick) * contract.tick), quantity)], is_maker=False, fee_bps=0.0)
        order.ended_by = "venue"

    def transfer(self, asset: str, amount: float, *, source: str, target: str) -> str:
        """Move cash between uses (``spot``, ``perp``, ``funding``)."""
        source_wallet, target_wallet = self.rules.wallets[source], self.rules.wallets[target]
        if amount > self.free(source_wallet, asset) + 1e-9:
            raise Refused("funds", f"not enough {asset} to transfer")
        self.wallets.add(source_wallet, asset, -amount)
        self.wallets.add(target_wallet, asset, amount)
        self._serial += 1
        self.transfers.append((str(self._serial), asset, amount, source, target))
        return str(self._serial)

    # --------------------------------------------------------------- the truth

    def balance(self, asset: str) -> float:
        """Cash over all wallets."""
        return self.wallets.total(asset)

    def position_base(self, instrument: str) -> float:
        """Signed; of a spot instrument what is held beyond what the account began with."""
        if instrument in self.positions:
            return self.positions[instrument].position_base
        base = self.contracts[instrument].base
        return clean(self.balance(base) - self._start.get(base, 0.0))

    def net_base(self, base: str) -> float:
        """Exposure to a coin: what spot holds beyond the start, plus margined positions."""
        perps = sum(p.position_base for i, p in self.positions.items() if self.contracts[i].base == base)
        return clean(self.balance(base) - self._start.get(base, 0.0) + perps)

    def free(self, wallet: str, asset: str) -> float:
        """Not locked by orders or margin."""
        return free_cash(self, wallet, asset)

    def wallet_of(self, instrument: str) -> str:
        """Name of the wallet that pays for an instrument."""
        return self.rules.wallets["perp" if instrument in self.positions else "spot"]

    def next_trade_id(self) -> str:
        """Of a trade or a payment; never twice."""
        self._trade_serial += 1
        return str(self._trade_serial)

    def now_us(self) -> int:
        """The venue's own clock, by which it stamps orders, trades and books."""
        return self.clock.now_us() + 1000 * self.clock_offset_ms

    def venue_now_ms(self) -> int:
        """The same in milliseconds."""
        return self.now_us() // 1000

    def forget(self, *, before_us: int) -> None:
        """Drop orders that are over, trades, requests and exposures of the past, so that long runs stay small."""
        for number, order in list(self.orders.items()):
            if order.status != OPEN and order.updated_us < before_us:
                del self.orders[number]
                key = (order.ticket.instrument, order.ticket.client_order_id)
                if self._by_client_id.get(key) is order:
                    del self._by_client_id[key]
        self.trades = [trade for trade in self.trades if trade.ts_us >= before_us]
        self.requests = [request for request in self.requests if request.ts_us >= before_us]
        latest = {base: place for place, (_, base, _) in enumerate(self.exposures)}.values()
        self.exposures = [one for place, one in enumerate(self.exposures) if one[0] >= before_us or place in latest]
        for position in self.positions.values():
            del position.moments[:-10]

    def snapshot(self) -> dict[str, Any]:
        """Cash, positions and serial numbers, as JSON can hold them."""
        return {
            "cash": {wallet: dict(assets) for wallet, assets in self.wallets.cash.items()},
            "positions": {i: [p.position_base, p.entry_price, p.leverage] for i, p in self.positions.items()},
            "start": dict(self._start),
            "serials": [self._serial, self._trade_serial],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what ``snapshot`` gave; instruments that are not traded any more are left out."""
        self.wallets.cash = {wallet: dict(assets) for wallet, assets in state["cash"].items()}
        self._start |= state["start"]
        self._serial, self._trade_serial = state["serials"]
        for instrument, (base, entry, leverage) in state["positions"].items():
            if instrument in self.positions:
                moments = [(0, base, entry)]
                self.positions[instrument] = SimPosition(
                    position_base=base, entry_price=entry, leverage=leverage, moments=moments
                )

    # ---------------------------------------------------------------- inside

    def _accept(self, ticket: Ticket) -> SimOrder:
        self._serial += 1
        now_us = self.now_us()
        order = SimOrder(
            venue_order_id=str(self._serial),
            ticket=ticket if ticket.client_order_id else replace(ticket, client_order_id=f"x{self._serial}"),
            created_us=now_us,
            updated_us=now_us,
        )
        self.orders[order.venue_order_id] = self._open[order.venue_order_id] = order
        self._by_client_id[ticket.instrument, order.ticket.client_order_id] = order
        return order

    def _in_base(self, ticket: Ticket) -> Ticket:
        if ticket.quantity_quote is None:
            return ticket
        best = self.book(ticket.instrument).fills(ticket.side, math.inf, None)
        lot = self.contracts[ticket.instrument].lot_base
        return replace(ticket, quantity_base=floor_to(ticket.quantity_quote / best[0][0], lot) if best else lot)

    def _reducible(self, ticket: Ticket) -> float:
        if not ticket.reduce_only:
            return ticket.quantity_base
        position = self.positions[ticket.instrument].position_base
        return min(ticket.quantity_base, max(0.0, -ticket.side * position))

    def _resting(self, instrument: str) -> list[SimOrder]:
        orders = [order for order in self.open_orders(instrument) if order.ticket.kind == "limit"]
        return sorted(orders, key=lambda order: -order.ticket.side * (order.ticket.limit_price or 0.0))

    def _fill_resting(self, instrument: str) -> None:
        for order in self._resting(instrument):
            ticket, book = order.ticket, self.books[instrument]
            available = sum(part for _, part in book.fills(ticket.side, order.remaining_base, ticket.limit_price))
            self._fill_at_limit(order, available)

    def _fill_at_limit(self, order: SimOrder, quantity_base: float) -> None:
        """As a maker; a reduce-only order never more than there is to reduce, and it ends when there is nothing."""
        part = min(quantity_base, self._reducible(order.ticket))
        if part and order.ticket.limit_price is not None:
            self._fill(order, [(order.ticket.limit_price, part)], is_maker=True)
        if order.status == OPEN and not self._reducible(order.ticket):
            self._end(order, CANCELED, "venue")

    def _fill(
        self, order: SimOrder, fills: Sequence[tuple[float, float]], *, is_maker: bool, fee_bps: float | None = None
    ) -> None:
        contract = self.contracts[order.ticket.instrument]
        if fee_bps is None:
            fee_bps = contract.maker_fee_bps if is_maker else contract.taker_fee_bps
        for price, quantity in fills:
            book_fill(self, order, contract, price, quantity, is_maker=is_maker, fee_bps=fee_bps)
            order.filled_base = clean(order.filled_base + quantity)
            order.filled_quote = clean(order.filled_quote + quantity * price)
        if fills:
            self._note_exposure(contract.base)
            if order.remaining_base <= 1e-12:
                self._end(order, CLOSED, "fill")
            else:
                self._note(order)

    def _note(self, order: SimOrder) -> None:
        order.updated_us = self.now_us()
        order.moments.append(OrderMoment(order.updated_us, order.status, order.filled_base, order.filled_quote))

    def _end(self, order: SimOrder, status: str, ended_by: str) -> None:
        order.status, order.ended_by = status, ended_by
        del self._open[order.venue_order_id]
        self._note(order)

    def _note_exposure(self, base: str) -> None:
        self.exposures.append((self.clock.now_us(), base, self.net_base(base)))
