"""The market of a replay: bars from files, and venues whose fills are those of the cost functions of a backtest."""

import asyncio
import bisect
import dataclasses
import functools
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from basis_bt.backtest.prepare import Prepared
from basis_bt.core.errors import KernelError
from basis_bt.core.instruments import Instrument
from basis_bt.core.units import from_us
from basis_bt.kernels.fills import take_leg
from basis_bt.kernels.funding import funding_usd
from basis_bt.kernels.status import MARK_MISSING, OK, SENTENCES
from basis_bt.live.account import ROLLED_BACK
from basis_bt.live.clock import Clock
from basis_bt.live.feed import Bars, Closing, Feed, Opening
from basis_bt.live.orders import CLOSED, FundingPayment, LegOrder, OrderState, VenueTrade
from basis_bt.live.replay_margin import MarginTest
from basis_bt.live.venue import Ack, Balance, Book, Contract, OrderRefused, Position, Venue, VenueDown


class BarClock(Clock):
    """Stands at the stamp of the bar that is replayed; nothing is ever waited for."""

    def __init__(self) -> None:
        self.at_us = 0

    def now_us(self) -> int:
        """The bar's stamp."""
        return self.at_us

    def monotonic_s(self) -> float:
        """The same in seconds."""
        return self.at_us / 1e6

    async def sleep(self, seconds: float) -> None:
        """Let others go on."""
        await asyncio.sleep(0)


@dataclass(slots=True)
class Failure:
    """What a model could not fill or pay; it ends the replay, as it ends a trial."""

    status: int = OK

    def check(self, at_us: int) -> None:
        """Raise a KernelError if there was one."""
        if self.status != OK:
            raise KernelError(
                SENTENCES[self.status],
                where={"ts": from_us(at_us).isoformat()},
                fix="look at the input files around that time",
            )


class ReplayVenue(Venue):
    """A venue whose fills are those of the cost functions at the open of the bar; it holds what they leave.

    Orders are filled in full when they are sent, and settlements are paid on what is held when the bar opens.
    """

    def __init__(self, name: str, instruments: Sequence[Instrument], failure: Failure, *, penalty_bps: float) -> None:
        self.name, self._failure, self._penalty_bps = name, failure, penalty_bps
        self._leg = {str(one): leg for leg, one in enumerate(instruments) if one.venue == name}
        self._parsed = {str(one): one for one in instruments if one.venue == name}
        self._held = dict.fromkeys(self._leg, 0.0)
        self._payments: dict[str, list[FundingPayment]] = {one: [] for one in self._leg}
        self._trades: dict[str, VenueTrade] = {}
        self._now: Opening | None = None

    def begin_bar(self, opening: Opening) -> None:
        """The next bar has opened: its settlements are paid before anything else."""
        self._now, self._trades = opening, {}
        for one in opening.settlements:
            instrument = next((name for name, leg in self._leg.items() if leg == one.leg), None)
            if instrument is None or self._held[instrument] == 0.0:
                continue
            paid = funding_usd(self._held[instrument], one.mark_price, one.funding_rate)
            if not math.isfinite(paid):
                self._failure.status = MARK_MISSING
                return
            self._payments[instrument].append(
                FundingPayment(
                    payment_id=str(one.settlement_us), instrument=instrument, amount=paid,
                    asset=self._parsed[instrument].quote, ts_us=one.settlement_us,
                )
            )  # fmt: skip

    async def open(self, instruments: Sequence[str]) -> None:
        """Nothing to learn."""

    async def close(self) -> None:
        """Nothing to release."""

    def contract(self, instrument: str) -> Contract:
        """Any quantity trades: the strategy has floored it to the lots of the rulebook."""
        one, costs = self._parsed[instrument], self._opening.costs[self._leg[instrument]]
        return Contract(
            instrument=instrument, venue=self.name, symbol=one.symbol, base=one.base, quote=one.quote,
            is_margined=one.is_margined, lot_base=0.0, tick=0.0, min_base=0.0, min_notional_usd=0.0, contract_base=1.0,
            taker_fee_bps=costs.fee_bps, maker_fee_bps=costs.fee_bps, is_fee_in_base=costs.base_fee_frac > 0.0,
            is_trading=bool(self._opening.tradable[self._leg[instrument]]),
        )  # fmt: skip

    async def refresh(self, instrument: str) -> Contract:
        """The same."""
        return self.contract(instrument)

    async def book(self, instrument: str) -> Book:
        """A book without depth whose two sides are the open: what orders are measured against."""
        price = float(self._opening.open_price[self._leg[instrument]])
        return Book(
            instrument=instrument, bids=((price, math.inf),), asks=((price, math.inf),), at_us=self._opening.ts_us
        )

    async def send(self, order: LegOrder) -> Ack:
        """Fill an order at the open of the bar."""
        if order.kind != "market":
            raise OrderRefused("a replay takes market orders", kind="other")
        leg = self._leg[order.instrument]
        costs, values = self._opening.costs[leg], np.zeros(10)
        gross = order.quantity_base
        net = gross * (1.0 - costs.base_fee_frac) if order.side > 0 else gross
        status = take_leg(
            order.side * net, order.arrival_price, float(self._opening.open_price[leg]),
            self._penalty_bps if order.purpose == ROLLED_BACK else 0.0, 1.0, float(self._opening.volume_before[leg]),
            *costs, values,
        )  # fmt: skip
        if status != OK:
            self._failure.status = int(status)
            raise OrderRefused(SENTENCES[int(status)], kind="other")
        is_in_base = order.side > 0 and costs.base_fee_frac != 0.0
        one = self._parsed[order.instrument]
        self._held[order.instrument] += order.side * net
        self._trades[order.client_order_id] = VenueTrade(
            trade_id=order.client_order_id, venue_order_id=order.client_order_id, instrument=order.instrument,
            side=order.side, quantity_base=gross, price=float(values[4]),
            fee=gross - net if is_in_base else float(values[9]), fee_asset=one.base if is_in_base else one.quote,
            is_maker=False, ts_us=self._opening.ts_us,
            parts_usd=(float(values[6]), float(values[7]), float(values[8])),
        )  # fmt: skip
        return Ack(venue_order_id=order.client_order_id)

    async def find(self, order: LegOrder) -> OrderState | None:
        """An order of this bar, filled in full."""
        trade = self._trades.get(order.client_order_id)
        if trade is None:
            return None
        return OrderState(
            client_order_id=order.client_order_id, venue_order_id=trade.venue_order_id, instrument=order.instrument,
            side=order.side, status=CLOSED, quantity_base=order.quantity_base, filled_base=trade.quantity_base,
            average_price=trade.price, updated_us=trade.ts_us,
        )  # fmt: skip

    async def cancel(self, order: LegOrder, venue_order_id: str | None) -> bool:
        """Nothing rests."""
        return False

    async def cancel_found(self, state: OrderState) -> bool:
        """Nothing rests."""
        return False

    async def open_orders(self) -> list[OrderState]:
        """Nothing rests."""
        return []

    async def trades(self, instrument: str, *, since_us: int, venue_order_id: str | None = None) -> list[VenueTrade]:
        """Fills of this bar."""
        return [
            one for one in self._trades.values()
            if one.instrument == instrument and venue_order_id in (None, one.venue_order_id)
        ]  # fmt: skip

    async def balances(self) -> dict[str, Balance]:
        """Spot that is held; the cash of all venues is one wallet's, in the account."""
        spot = [one for one in self._parsed.values() if not one.is_margined]
        return {one.base: Balance(total=self._held[str(one)], free=self._held[str(one)]) for one in spot}

    async def positions(self) -> dict[str, Position]:
        """Contracts that are held."""
        return {
            name: Position(instrument=name, position_base=held, entry_price=None, mark_price=None,
                           liquidation_price=None, margin_ratio=None)
            for name, held in self._held.items() if held != 0.0 and self._parsed[name].is_margined
        }  # fmt: skip

    async def funding_payments(self, instrument: str, *, since_us: int) -> list[FundingPayment]:
        """What was paid since an instant."""
        payments = self._payments[instrument]
        return payments[bisect.bisect_left(payments, since_us, key=lambda one: one.ts_us) :]

    async def worth(self, asset: str, *, quote: str) -> float:
        """Fees are in base or quote alone."""
        raise VenueDown(f"a replay has no price of {asset}")

    async def transfer(self, asset: str, amount: float, *, source: str, target: str) -> str:
        """All cash is in one wallet."""
        raise VenueDown("a replay has one wallet, there is nowhere to send cash")

    @property
    def _opening(self) -> Opening:
        assert self._now is not None, "no bar has opened yet"
        return self._now


class ReplayFeed(Feed):
    """The bars of a prepared configuration, one by one; tells clock and venues of each before anybody else."""

    def __init__(
        self, prepared: Prepared, *, clock: BarClock, venues: Mapping[str, ReplayVenue], failure: Failure
    ) -> None:
        self._bars, self._clock, self._venues, self._failure, self._bar = Bars(prepared), clock, venues, failure, -1
        self._margin = MarginTest(prepared) if prepared.parameters.wallets.is_tested else None

    async def openings(self) -> AsyncIterator[Opening]:
        """All bars."""
        for bar in range(len(self._bars)):
            opening = self._bars.opening(bar)
            self._bar, self._clock.at_us = bar, opening.ts_us
            for venue in self._venues.values():
                venue.begin_bar(opening)
            self._failure.check(opening.ts_us)
            yield opening

    async def closing(self) -> Closing:
        """The close of the bar."""
        closing = self._bars.closing(self._bar)
        self._failure.check(closing.ts_us)
        if self._margin is None:
            return closing
        return dataclasses.replace(closing, margin_ratio=functools.partial(self._margin.ratio, self._bar))
