"""Paper trading fills a simulated account from somebody else's books, and fails as the live adapter does."""

import asyncio
import dataclasses
import itertools
import json

import pytest

from basis_bt.live.fake.faults import LOST, Fault, FaultPlan, FaultRule
from basis_bt.live.fake.records import REFUSALS
from basis_bt.live.fake.rules import standard_contract
from basis_bt.live.fake.virtual_time import run_virtual
from basis_bt.live.orders import LegOrder
from basis_bt.live.paper import PaperVenue
from basis_bt.live.venue import Book, OrderRefused, OrderUnknown, Venue, VenueDown

VENUES = ("binance", "bybit", "okx", "kraken")
CASH = {"spot": {"USDT": 1e5}, "perp": {"USDT": 1e5}, "funding": {"USDT": 0.0}}
PRICE = 50_000.0
every_venue = pytest.mark.parametrize("venue", VENUES)
_numbers = itertools.count()


class Feed(Venue):
    """Books that a test sets; whatever would trade is an error."""

    def __init__(self, name, clock):
        self.name, self.clock, self.levels, self.contracts, self.is_down = name, clock, {}, {}, False

    async def open(self, instruments):
        like = self.name if self.name in VENUES[:3] else "binance"
        for one in instruments:
            contract = standard_contract(one.replace(f":{self.name}:", f":{like}:"))
            self.contracts[one] = dataclasses.replace(contract, instrument=one, venue=self.name)
            self.set(one, PRICE)

    def set(self, instrument, mid, size=1.0):
        self.levels[instrument] = ([(mid - 1.0, size)], [(mid + 1.0, size)])

    async def close(self):
        self.contracts.clear()

    def contract(self, instrument):
        return self.contracts[instrument]

    async def refresh(self, instrument):
        return self.contracts[instrument]

    async def book(self, instrument):
        if self.is_down:
            raise VenueDown("no data")
        bids, asks = self.levels[instrument]
        return Book(instrument=instrument, bids=bids, asks=asks, at_us=self.clock.now_us())

    async def worth(self, asset, *, quote):
        return 600.0

    async def send(self, *args, **options):
        raise AssertionError("a paper order reached the market")

    find = cancel = cancel_found = open_orders = trades = balances = positions = funding_payments = transfer = send


def on_paper(venue, scenario, *, rules=(), state=None):
    """Run ``scenario(paper, feed, clock)`` on virtual time."""

    async def main(clock):
        feed = Feed(venue, clock)
        paper = PaperVenue(feed, clock=clock, balances=CASH, plan=FaultPlan(rules))
        if state is not None:
            paper.restore(state)
        await paper.open([f"spot:{venue}:BTC-USDT", f"perp:{venue}:BTC-USDT"])
        try:
            return await scenario(paper, feed, clock)
        finally:
            await paper.close()

    return run_virtual(main)


def leg(paper, kind="perp", side=-1, base=0.01, *, limit=None, **more):
    if limit is not None:
        more = {"kind": "limit", "limit_price": limit, **more}
    cid = more.pop("client_order_id", f"c{next(_numbers)}")
    return LegOrder(
        intent="1-entry", client_order_id=cid, instrument=f"{kind}:{paper.name}:BTC-USDT", leg=0, side=side,
        quantity_base=base, arrival_price=PRICE, reference_price=PRICE, decided_us=0, **more,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- without faults


@every_venue
def test_an_order_fills_from_the_books_of_the_data(venue):
    async def scenario(paper, feed, clock):
        buy, sell = leg(paper, "spot", 1, 0.05), leg(paper, "perp", -1, 0.05)
        feed.set(buy.instrument, PRICE + 100.0)
        acks = [await paper.send(one) for one in (buy, sell)]
        states = [await paper.find(one) for one in (buy, sell)]
        assert [state.average_price for state in states] == pytest.approx([PRICE + 101.0, PRICE - 1.0])
        assert [state.filled_base for state in states] == [0.05, 0.05]
        for ack, one in zip(acks, (buy, sell), strict=True):
            (trade,) = await paper.trades(one.instrument, since_us=0, venue_order_id=ack.venue_order_id)
            assert (trade.quantity_base, trade.side) == (0.05, one.side)
        assert (await paper.balances())["BTC"].total == pytest.approx(0.05 * (1.0 - 1e-3))
        held = (await paper.positions())[sell.instrument]
        assert (held.position_base, held.entry_price) == (-0.05, PRICE - 1.0)
        assert held.liquidation_price > PRICE
        assert 0.0 < held.margin_ratio < 0.01
        assert paper.account.violations == []

    on_paper(venue, scenario)


@every_venue
def test_a_resting_order_waits_until_the_data_reaches_it(venue):
    async def scenario(paper, feed, clock):
        rest = leg(paper, base=0.02, limit=PRICE + 50.0)
        ack = await paper.send(rest)
        assert (await paper.find(rest)).status == "open"
        assert [state.venue_order_id for state in await paper.open_orders()] == [ack.venue_order_id]
        feed.set(rest.instrument, PRICE + 60.0, size=0.015)
        assert (await paper.find(rest)).filled_base == 0.015
        await paper.book(rest.instrument)
        done = await paper.find(rest)
        assert (done.status, done.average_price) == ("closed", PRICE + 50.0)
        assert await paper.cancel(rest, ack.venue_order_id) is False
        assert all(trade.is_maker for trade in await paper.trades(rest.instrument, since_us=0))

    on_paper(venue, scenario)


@every_venue
def test_a_resting_order_is_cancelled_once(venue):
    async def scenario(paper, feed, clock):
        one, other = leg(paper, limit=PRICE + 50.0), leg(paper, limit=PRICE + 60.0)
        await paper.send(one)
        await paper.send(other)
        assert [await paper.cancel(one, None) for _ in range(2)] == [True, False]
        (state,) = await paper.open_orders()
        assert await paper.cancel_found(state) is True
        assert await paper.open_orders() == []

    on_paper(venue, scenario)


@every_venue
def test_a_protected_order_takes_no_worse_than_its_limit(venue):
    async def scenario(paper, feed, clock):
        name = f"perp:{venue}:BTC-USDT"
        feed.levels[name] = ([(PRICE - 1.0, 0.01), (PRICE - 500.0, 1.0)], [(PRICE + 1.0, 1.0)])
        one = leg(paper, base=0.05, limit_price=PRICE - 10.0)
        await paper.send(one)
        state = await paper.find(one)
        assert (state.status, state.filled_base) == ("canceled", 0.01)

    on_paper(venue, scenario)


@every_venue
def test_what_the_account_refuses_is_refused(venue):
    async def scenario(paper, feed, clock):
        found = {}
        for word, one in {
            "funds": leg(paper, "spot", 1, 5.0),
            "lot": leg(paper, base=0.012345678912),
            "reduce_only": leg(paper, side=1, reduce_only=True),
        }.items():
            feed.set(one.instrument, PRICE, size=100.0)
            with pytest.raises(OrderRefused) as caught:
                await paper.send(one)
            found[word] = caught.value.kind
        assert found == {word: word for word in found}
        assert paper.account.trades == []

    on_paper(venue, scenario)


@every_venue
def test_no_data_is_no_fill(venue):
    async def scenario(paper, feed, clock):
        feed.is_down = True
        with pytest.raises(OrderRefused):
            await paper.send(leg(paper))
        with pytest.raises(VenueDown):
            await paper.book(f"perp:{venue}:BTC-USDT")

    on_paper(venue, scenario)


@every_venue
def test_funding_is_paid_on_the_position_held(venue):
    async def scenario(paper, feed, clock):
        name = f"perp:{venue}:BTC-USDT"
        assert paper.settle(name, 1e-4, PRICE, clock.now_us()) == 0.0
        await paper.send(leg(paper, base=0.05))
        before = paper.account.balance("USDT")
        received = paper.settle(name, 1e-4, PRICE, 1_700_000_000_000_000)
        assert received == pytest.approx(0.05 * PRICE * 1e-4)
        (payment,) = await paper.funding_payments(name, since_us=0)
        assert (payment.amount, payment.ts_us, payment.asset) == (received, 1_700_000_000_000_000, "USDT")
        assert paper.account.balance("USDT") == pytest.approx(before + received)

    on_paper(venue, scenario)


@every_venue
def test_cash_moves_between_wallets(venue):
    async def scenario(paper, feed, clock):
        await paper.transfer("USDT", 50_000.0, source="perp", target="funding")
        with pytest.raises(VenueDown, match="not enough"):
            await paper.transfer("USDT", 1e6, source="perp", target="funding")

    on_paper(venue, scenario)


@every_venue
def test_an_account_goes_on_after_a_restart(venue):
    async def first(paper, feed, clock):
        await paper.send(leg(paper, base=0.05))
        await paper.send(leg(paper, "spot", 1, 0.05))
        return paper.snapshot(), await paper.balances(), await paper.positions()

    state, balances, positions = on_paper(venue, first)

    async def second(paper, feed, clock):
        assert await paper.balances() == balances
        name = f"perp:{venue}:BTC-USDT"
        again = (await paper.positions())[name]
        assert dataclasses.replace(again, updated_us=None) == dataclasses.replace(positions[name], updated_us=None)
        assert paper.account.net_base("BTC") == pytest.approx(-0.05 * 1e-3)
        await paper.send(leg(paper, side=1, base=0.05, reduce_only=True))
        assert await paper.positions() == {}

    on_paper(venue, second, state=json.loads(json.dumps(state)))


# ---------------------------------------------------------------------------------------------------- with faults

_REPLIES = [
    Fault(kind="cut_after"), Fault(kind="hang", seconds=30.0), Fault(kind="half_body"), Fault(kind="empty_body"),
    Fault(kind="html_body"), Fault(kind="status", status=503), Fault(kind="status_unknown"), Fault(kind="duplicate"),
]  # fmt: skip


def create(fault, **more):
    return FaultRule(fault=fault, operation="create", **more)


@every_venue
@pytest.mark.parametrize("fault", _REPLIES, ids=lambda fault: fault.kind)
def test_a_lost_reply_is_unknown_and_the_order_is_there(venue, fault):
    async def scenario(paper, feed, clock):
        one, begun_s = leg(paper), clock.monotonic_s()
        with pytest.raises(OrderUnknown):
            await paper.send(one)
        assert clock.monotonic_s() - begun_s == pytest.approx(1.0 if fault.kind == "hang" else 0.0)
        assert (await paper.find(one)).status == "closed"
        assert paper.account.creates[one.instrument] == 1

    on_paper(venue, scenario, rules=[create(fault)])


def test_a_request_that_is_lost_is_unknown_and_the_order_is_not_there():
    async def scenario(paper, feed, clock):
        one = leg(paper)
        with pytest.raises(OrderUnknown):
            await paper.send(one)
        assert await paper.find(one) is None
        assert paper.account.creates[one.instrument] == 0

    on_paper("okx", scenario, rules=[create(Fault(kind="cut_before"))])


def test_an_order_may_arrive_late():
    async def scenario(paper, feed, clock):
        one = leg(paper)
        with pytest.raises(OrderUnknown):
            await paper.send(one)
        assert await paper.find(one) is None
        await clock.sleep(3.0)
        assert (await paper.find(one)).status == "closed"

    on_paper("bybit", scenario, rules=[create(Fault(kind="late", seconds=3.0))])


def test_an_order_that_would_be_late_is_forgotten_when_paper_closes():
    async def scenario(paper, feed, clock):
        with pytest.raises(OrderUnknown):
            await paper.send(leg(paper))
        return paper

    paper = on_paper("bybit", scenario, rules=[create(Fault(kind="late", seconds=3.0))])
    assert paper.account.trades == []


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_planned_refusal_places_nothing(reason):
    async def scenario(paper, feed, clock):
        one = leg(paper)
        with pytest.raises(OrderUnknown if reason == "duplicate" else OrderRefused):
            await paper.send(one)
        assert await paper.find(one) is None

    on_paper("binance", scenario, rules=[create(Fault(kind="refuse", reason=reason))])


def test_partial_fills_open_orders_and_races_with_a_cancel():
    rules = [
        create(Fault(kind="fill_share", share=0.4), order_kind="market"),
        create(Fault(kind="fill_share", share=0.0), order_kind="limit", count=None),
        FaultRule(fault=Fault(kind="fill_before_cancel", share=1.0), operation="cancel"),
        FaultRule(fault=Fault(kind="cut_after"), operation="cancel", skip=1),
    ]

    async def scenario(paper, feed, clock):
        part = leg(paper, base=0.05)
        await paper.send(part)
        assert (await paper.find(part)).filled_base == 0.02
        raced, lost = leg(paper, limit=PRICE + 10.0), leg(paper, limit=PRICE + 10.0)
        for one in (raced, lost):
            ack = await paper.send(one)
            assert (await paper.find(one)).filled_base == 0.0
            if one is raced:
                assert await paper.cancel(one, ack.venue_order_id) is False
            else:
                with pytest.raises(VenueDown):
                    await paper.cancel(one, ack.venue_order_id)
        assert [(await paper.find(one)).status for one in (raced, lost)] == ["closed", "canceled"]

    on_paper("okx", scenario, rules=rules)


def test_answers_may_be_hidden_stale_or_lost():
    rules = [
        FaultRule(fault=Fault(kind="hide_order"), operation="find", count=2),
        FaultRule(fault=Fault(kind="stale_positions"), operation="positions", after="create"),
        FaultRule(fault=Fault(kind="status", status=502), operation="trades"),
        FaultRule(fault=Fault(kind="empty_side"), operation="book"),
        FaultRule(fault=Fault(kind="stale_book", seconds=30.0, share=0.01), operation="book", skip=1),
    ]

    async def scenario(paper, feed, clock):
        one = leg(paper)
        await paper.send(one)
        assert [await paper.find(one) is None for _ in range(3)] == [True, True, False]
        assert [len(await paper.positions()) for _ in range(2)] == [0, 1]
        with pytest.raises(VenueDown):
            await paper.trades(one.instrument, since_us=0)
        assert len(await paper.trades(one.instrument, since_us=0)) == 1
        assert (await paper.book(one.instrument)).asks == ()
        stale = await paper.book(one.instrument)
        assert clock.now_us() - stale.at_us == 30_000_000
        assert stale.mid == pytest.approx(PRICE * 1.01)
        assert (await paper.book(one.instrument)).mid == PRICE

    on_paper("bybit", scenario, rules=rules)


def test_a_pause_is_kept_and_what_closes_goes_first():
    async def scenario(paper, feed, clock):
        begun_s, ends = clock.monotonic_s(), {}

        async def send(purpose, **more):
            await paper.send(leg(paper, "spot", purpose=purpose, **more))
            ends[purpose] = clock.monotonic_s() - begun_s

        paper.gate.plan = FaultPlan([create(Fault(kind="rate_limit", seconds=2.0))])
        await asyncio.gather(send("entry", side=1, base=0.01), send("rollback", side=1, base=0.02))
        assert ends["rollback"] < ends["entry"]
        assert ends["entry"] == pytest.approx(2.25, abs=0.01)
        assert (paper.account.abuse, len(paper.account.trades)) == (0, 2)

    on_paper("binance", scenario)


def test_a_wrong_clock_costs_one_attempt():
    async def scenario(paper, feed, clock):
        one = leg(paper)
        await paper.send(one)
        assert paper.account.creates[one.instrument] == 2
        assert len(paper.account.trades) == 1

    on_paper("okx", scenario, rules=[create(Fault(kind="clock_offset", seconds=60.0))])


def test_an_outage_is_unknown_to_orders_and_down_to_questions():
    async def scenario(paper, feed, clock):
        one = leg(paper)
        with pytest.raises(OrderUnknown):
            await paper.send(one)
        with pytest.raises(VenueDown):
            await paper.find(one)
        await clock.sleep(2.0)
        assert await paper.find(one) is None

    on_paper("binance", scenario, rules=[create(Fault(kind="down", seconds=2.0))])


def test_a_fall_between_the_legs_is_what_the_order_meets():
    async def scenario(paper, feed, clock):
        free, protected = leg(paper), leg(paper, limit_price=PRICE * 0.999)
        await paper.send(free)
        await paper.send(protected)
        assert (await paper.find(free)).average_price == pytest.approx(PRICE * 0.98, rel=1e-4)
        assert (await paper.find(protected)).filled_base == 0.0

    on_paper("binance", scenario, rules=[create(Fault(kind="move_book", share=-0.02), count=2)])


@pytest.mark.parametrize("kind", [kind for kind in LOST if kind != "late"])
def test_a_question_whose_answer_is_lost_is_down(kind):
    async def scenario(paper, feed, clock):
        with pytest.raises(VenueDown):
            await paper.balances()
        assert (await paper.balances())["USDT"].total == (200_000.0)

    on_paper(
        "binance", scenario, rules=[FaultRule(fault=Fault(kind=kind, seconds=5.0, status=500), operation="balances")]
    )
