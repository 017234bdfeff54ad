"""The loopback exchange says through ccxt what its simulated account is, and its faults reach ccxt as real ones do."""

import asyncio
import contextlib
import random
import time

import ccxt
import pytest

from basis_bt.live.clock import Clock
from basis_bt.live.fake.clients import loopback_client
from basis_bt.live.fake.exposure import longest_naked_s
from basis_bt.live.fake.faults import Event, Fault, FaultPlan, FaultRule
from basis_bt.live.fake.records import REFUSALS, Refused, Ticket
from basis_bt.live.fake.rules import standard_contracts
from basis_bt.live.fake.scenarios import SCENARIOS
from basis_bt.live.fake.server import FakeExchange
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.soak import SoakPlan
from basis_bt.live.fake.virtual_time import START_US, DeadlockError, VirtualLoop, run_virtual

VENUES = ("binance", "bybit", "okx")
SPOT, PERP = "BTC/USDT", "BTC/USDT:USDT"
PRICE = 50_000.0
CASH = {"spot": {"USDT": 1e5}, "perp": {"USDT": 1e5}, "funding": {"USDT": 500.0}}
every_venue = pytest.mark.parametrize("venue", VENUES)


def account(venue, clock, **more):
    sim = SimVenue(venue, standard_contracts(venue), clock=clock, balances=CASH, **more)
    for instrument in sim.contracts:
        sim.make_book(instrument, PRICE)
    return sim


def on_loopback(venue, scenario, *, rules=(), **options):
    """Run ``scenario(client, sim, fake)`` against one venue on virtual time."""

    async def main(clock):
        sim = account(venue, clock)
        fake = FakeExchange([sim])
        await fake.start()
        client = loopback_client(venue, fake.base_url(venue), clock, **options)
        try:
            await client.load_markets()
            fake.plan = FaultPlan(rules)
            return await scenario(client, sim, fake)
        finally:
            await client.close()
            await fake.stop()

    return run_virtual(main)


def names(venue):
    return f"spot:{venue}:BTC-USDT", f"perp:{venue}:BTC-USDT"


def in_units(venue, symbol, base):
    """Base units as ccxt counts them on this venue."""
    return round(base * 100, 9) if venue == "okx" and symbol == PERP else base


async def order(client, symbol, side, base, cid, kind="market", price=None, **params):
    amount = in_units(client.id, symbol, base)
    return await client.create_order(symbol, kind, side, amount, price, {"clientOrderId": cid, **params})


async def look_up(client, symbol, cid):
    if client.id != "bybit":
        return await client.fetch_order(None, symbol, {"clientOrderId": cid})
    by_link = {"orderLinkId": cid}
    rows = await client.fetch_open_orders(symbol, params=by_link)
    rows = rows or await client.fetch_canceled_and_closed_orders(symbol, params=by_link)
    if not rows:
        raise ccxt.OrderNotFound("neither open nor over")
    return rows[0]


def ticket(instrument, side, base, **more):
    return Ticket(client_order_id=more.pop("cid", ""), instrument=instrument, side=side, quantity_base=base, **more)


# ---------------------------------------------------------------------------------------------------------- time


def test_waiting_takes_no_real_time():
    async def main(clock):
        await asyncio.gather(clock.sleep(3600.0), clock.sleep(1.5))
        return clock.now_us() - START_US, clock.monotonic_s()

    begun = time.monotonic()
    assert run_virtual(main) == (3_600_000_000, pytest.approx(3600.0))
    assert time.monotonic() - begun < 1.0


def test_nobody_ever_waking_up_is_an_error():
    with pytest.raises(DeadlockError):
        run_virtual(lambda clock: asyncio.Event().wait(), deadlock_s=0.1)


def test_time_stands_still_while_a_thread_works():
    async def main(clock):
        timer = asyncio.create_task(clock.sleep(5.0))
        await asyncio.to_thread(time.sleep, 0.02)
        seen = clock.monotonic_s()
        timer.cancel()
        return seen

    assert run_virtual(main) == 0.0


def test_timers_ring_in_order():
    async def main(clock):
        rung = []

        async def ring(seconds):
            await clock.sleep(seconds)
            rung.append(seconds)

        await asyncio.gather(*(ring(s) for s in (0.3, 86_400.0, 0.1, 7.0)))
        return rung

    assert run_virtual(main) == [0.1, 0.3, 7.0, 86_400.0]
    assert VirtualLoop.time is not asyncio.BaseEventLoop.time


# ----------------------------------------------------------------------------------------------------- endpoints


@every_venue
def test_markets_tell_lot_tick_minimum_and_contract(venue):
    async def scenario(client, sim, fake):
        for symbol, name in zip((SPOT, PERP), names(venue), strict=True):
            market, contract = client.market(symbol), sim.contracts[name]
            size = contract.contract_base if symbol == PERP else 1.0
            assert market["precision"]["amount"] * size == pytest.approx(contract.lot_base)
            assert market["precision"]["price"] == contract.tick
            assert market["limits"]["amount"]["min"] * size == pytest.approx(contract.min_base)
            assert (market["limits"]["cost"]["min"] or 0.0) == contract.min_notional_usd
            assert market["active"] is True
            assert (market["contractSize"] or 1.0) == size
        sim.set_trading(names(venue)[1], False)
        await client.load_markets(True)
        assert client.market(PERP)["active"] is False
        assert client.market(SPOT)["active"] is True

    on_loopback(venue, scenario)


@every_venue
def test_public_figures_are_those_of_the_simulated_market(venue):
    async def scenario(client, sim, fake):
        assert abs(await client.fetch_time() - sim.venue_now_ms()) <= 20  # the reply travels
        for symbol, name in zip((SPOT, PERP), names(venue), strict=True):
            book = await client.fetch_order_book(symbol, 5)
            truth = sim.book(name)
            size = client.market(symbol)["contractSize"] or 1.0
            assert [(p, pytest.approx(q * size)) for p, q, *_ in book["bids"]] == list(truth.bids[:5])
            assert [(p, pytest.approx(q * size)) for p, q, *_ in book["asks"]] == list(truth.asks[:5])
            told = await client.fetch_ticker(symbol)
            assert (told["bid"], told["ask"]) == (truth.bids[0][0], truth.asks[0][0])
            fee = await client.fetch_trading_fee(symbol)
            contract = sim.contracts[name]
            assert (fee["taker"] * 1e4, fee["maker"] * 1e4) == pytest.approx(
                (contract.taker_fee_bps, contract.maker_fee_bps)
            )
            candles = await client.fetch_ohlcv(symbol, "1h", limit=3)
            assert [row[4] for row in candles] == [truth.mid] * 3
            assert candles[-1][0] <= sim.venue_now_ms() < candles[-1][0] + 3_600_000
        since = sim.venue_now_ms() // 3_600_000 * 3_600_000 - 5 * 3_600_000
        sim.candles[names(venue)[1], "mark"] = [
            ((since + i * 3_600_000) * 1000, 1.0, 2.0, 0.5, 1.0 + i, 9.0) for i in range(6)
        ]
        marks = await client.fetch_mark_ohlcv(PERP, "1h", limit=4)
        assert [row[4] for row in marks] == [3.0, 4.0, 5.0, 6.0]
        tiers = await client.fetch_market_leverage_tiers(PERP)
        assert tiers[0]["maintenanceMarginRate"] == 0.004

    on_loopback(venue, scenario)


@every_venue
def test_orders_trades_balances_and_positions_are_the_accounts_own(venue):
    async def scenario(client, sim, fake):
        bought = await order(client, SPOT, "buy", 0.01, "one")
        sold = await order(client, PERP, "sell", 0.01, "two")
        spot, perp = names(venue)
        for symbol, name, reply, cid in ((SPOT, spot, bought, "one"), (PERP, perp, sold, "two")):
            truth = sim.find(name, client_order_id=cid)
            assert reply["id"] == truth.venue_order_id
            told = await client.fetch_order(reply["id"], symbol, {"acknowledged": True})
            assert told["status"] == "closed"
            assert told["filled"] == in_units(venue, symbol, 0.01)
            assert told["average"] == pytest.approx(truth.average_price)
            assert (await look_up(client, symbol, cid))["id"] == reply["id"]
            key = "ordId" if venue == "okx" else "orderId"
            (row,) = await client.fetch_my_trades(symbol, params={key: reply["id"]})
            (trade,) = [one for one in sim.trades if one.venue_order_id == reply["id"]]
            assert (row["id"], row["price"]) == (trade.trade_id, trade.price)
            assert row["amount"] == in_units(venue, symbol, trade.quantity_base)
            assert (row["fee"]["cost"], row["fee"]["currency"]) == (pytest.approx(trade.fee), trade.fee_asset)
        assert sim.balance("BTC") == pytest.approx(0.00999)
        cash = await client.fetch_balance({"type": "spot"} if venue == "binance" else {})
        assert cash["total"]["BTC"] == sim.balance("BTC")
        futures = await client.fetch_balance({"type": "swap"})
        wallet = sim.rules.wallets["perp"]
        assert futures["total"]["USDT"] == pytest.approx(sim.wallets.amount(wallet, "USDT"), abs=1.0)
        (position,) = [row for row in await client.fetch_positions([PERP]) if row["contracts"]]
        assert (position["side"], position["contracts"]) == ("short", in_units(venue, PERP, 0.01))
        assert position["entryPrice"] == pytest.approx(sim.positions[perp].entry_price)
        assert sim.violations == []

    on_loopback(venue, scenario)


@every_venue
def test_a_reply_to_a_create_is_as_sparse_as_the_venues(venue):
    async def scenario(client, sim, fake):
        spot, perp = await order(client, SPOT, "buy", 0.01, "one"), await order(client, PERP, "sell", 0.01, "two")
        if venue == "binance":
            assert (spot["status"], spot["filled"], spot["average"]) == ("closed", 0.01, 50_002.5)
            assert spot["fees"][0]["currency"] == "BTC"
            assert (perp["status"], perp["filled"], perp["average"]) == ("closed", 0.01, None)
        else:
            for reply in (spot, perp):
                assert [reply[field] for field in ("status", "filled", "average", "amount")] == [None] * 4

    on_loopback(venue, scenario)


@every_venue
def test_a_limit_order_rests_is_listed_and_is_cancelled_once(venue):
    async def scenario(client, sim, fake):
        await order(client, PERP, "sell", 0.01, "rest", "limit", 51_000.0)
        await order(client, SPOT, "buy", 0.001, "post", "limit", 49_000.0, postOnly=True)
        assert (await look_up(client, PERP, "rest"))["status"] == "open"
        (row,) = await client.fetch_open_orders(PERP)
        assert (row["clientOrderId"], row["filled"]) == ("rest", 0.0)
        assert [one["clientOrderId"] for one in await client.fetch_open_orders(SPOT)] == ["post"]
        await client.cancel_order(row["id"], PERP)
        await client.cancel_order(None, SPOT, {"orderLinkId" if venue == "bybit" else "clientOrderId": "post"})
        assert sim.open_orders() == []
        for symbol, cid in ((PERP, "rest"), (SPOT, "post")):
            assert (await look_up(client, symbol, cid))["status"] == "canceled"
        with pytest.raises(ccxt.OrderNotFound):
            await client.cancel_order(row["id"], PERP)
        over = client.fetch_canceled_orders if venue == "okx" else client.fetch_canceled_and_closed_orders
        assert [one["clientOrderId"] for one in await over(PERP)] == ["rest"]

    on_loopback(venue, scenario)


@every_venue
def test_a_resting_order_is_filled_as_a_maker_when_the_book_reaches_it(venue):
    async def scenario(client, sim, fake):
        name = names(venue)[1]
        await order(client, PERP, "sell", 0.02, "rest", "limit", 50_500.0)
        sim.cross(name, 50_600.0, 0.005)
        half = await look_up(client, PERP, "rest")
        assert (half["status"], half["filled"]) == ("open", in_units(venue, PERP, 0.005))
        sim.move_book(name, 0.02)
        assert (await look_up(client, PERP, "rest"))["status"] == "closed"
        rows = await client.fetch_my_trades(PERP)
        assert {row["takerOrMaker"] for row in rows} == {"maker"}
        assert {row["price"] for row in rows} == {50_500.0}
        assert sum(row["fee"]["cost"] for row in rows) == pytest.approx(0.02 * 50_500.0 * 2e-4)

    on_loopback(venue, scenario)


@every_venue
def test_reduce_only_and_immediate_orders_do_no_more_than_they_say(venue):
    async def scenario(client, sim, fake):
        perp = names(venue)[1]
        await order(client, PERP, "sell", 0.01, "open")
        await order(client, PERP, "buy", 0.03, "reduce", reduceOnly=True)
        assert sim.position_base(perp) == 0.0
        assert (await look_up(client, PERP, "reduce"))["filled"] == in_units(venue, PERP, 0.01)
        with pytest.raises(ccxt.ExchangeError):
            await order(client, PERP, "buy", 0.01, "nothing", reduceOnly=True)
        await order(client, SPOT, "buy", 0.01, "now", "limit", 50_003.0, timeInForce="IOC")
        await order(client, SPOT, "buy", 0.01, "never", "limit", 49_000.0, timeInForce="IOC")
        assert [(await look_up(client, SPOT, cid))["filled"] for cid in ("now", "never")] == [0.01, 0.0]
        assert sim.open_orders() == []
        assert sim.violations == []

    on_loopback(venue, scenario)


@every_venue
def test_an_order_larger_than_the_book_fills_in_part(venue):
    async def scenario(client, sim, fake):
        perp = names(venue)[1]
        sim.make_book(perp, PRICE, depth_base=0.02, is_refilled=False)
        await order(client, PERP, "sell", 0.05, "large")
        told = await look_up(client, PERP, "large")
        assert (told["filled"], told["status"] in ("canceled", "expired")) == (in_units(venue, PERP, 0.02), True)
        assert sim.book(perp).bids == ()

    on_loopback(venue, scenario)


def test_a_bybit_market_order_ends_at_its_band():
    sim = account("bybit", Still())
    name = "perp:bybit:BTC-USDT"
    sim.set_book(name, ((PRICE, 0.01), (PRICE * 0.94, 1.0)), ((PRICE + 1, 1.0),))
    placed = sim.place(ticket(name, -1, 0.05))
    assert (placed.filled_base, placed.status) == (0.01, "canceled")


@every_venue
def test_settings_are_kept_and_told(venue):
    async def scenario(client, sim, fake):
        perp = names(venue)[1]
        await client.set_leverage(3, PERP, {"mgnMode": "cross"} if venue == "okx" else {})
        assert sim.positions[perp].leverage == 3.0
        await client.set_margin_mode("isolated", PERP, {"lever": "3"} if venue == "okx" else {})
        assert "isolated" in (sim.positions[perp].margin_mode, sim.account_margin_mode)
        await client.set_position_mode(True, PERP)
        assert sim.is_hedge_mode
        if client.has["fetchPositionMode"]:
            assert (await client.fetch_position_mode(PERP))["hedged"] is True
        with pytest.raises(ccxt.ExchangeError):
            await order(client, PERP, "sell", 0.01, "hedged")
        await client.set_position_mode(False, PERP)
        source, target = {"binance": ("spot", "swap"), "bybit": ("unified", "fund"), "okx": ("trading", "funding")}[
            venue
        ]
        await client.transfer("USDT", 100.0, source, target)
        assert sim.transfers[-1][1:3] == ("USDT", 100.0)
        funding = (await client.fetch_balance({"type": "funding"}))["total"]["USDT"]
        assert funding == (500.0 if venue == "binance" else 600.0)

    on_loopback(venue, scenario)


@every_venue
def test_funding_is_told_with_the_sign_of_the_venue(venue):
    async def scenario(client, sim, fake):
        perp = names(venue)[1]
        before = sim.balance("USDT")
        assert sim.settle(perp, 0.0005) == 0.0
        await order(client, PERP, "sell", 0.01, "open")
        fee = sim.trades[-1].fee
        await asyncio.sleep(1.0)
        received = sim.settle(perp, 0.0001) + sim.settle(perp, -0.0002)
        assert received == pytest.approx(-0.01 * sim.mark_price(perp) * 1e-4)
        assert sim.balance("USDT") == pytest.approx(before - fee + received)
        rows = await client.fetch_funding_history(PERP)
        sign = -1.0 if venue == "bybit" else 1.0
        assert sum(row["amount"] for row in rows) * sign == pytest.approx(received)
        assert len({row["id"] for row in rows}) == 2
        rates = [row["fundingRate"] for row in await client.fetch_funding_rate_history(PERP)]
        assert sorted(rates) == [-0.0002, 0.0001, 0.0005]
        sim.next_rate[perp] = (0.0003, START_US + 10**9, 4.0)
        told = await client.fetch_funding_rate(PERP)
        assert (told["fundingRate"], told["fundingTimestamp"]) == (0.0003, (START_US + 10**9) // 1000)

    on_loopback(venue, scenario)


@every_venue
def test_the_venue_closing_a_position_shows_in_positions_and_trades(venue):
    async def scenario(client, sim, fake):
        perp = names(venue)[1]
        await order(client, PERP, "sell", 0.01, "open")
        sim.close_by_venue(perp)
        assert [row for row in await client.fetch_positions([PERP]) if row["contracts"]] == []
        rows = await client.fetch_my_trades(PERP)
        assert [row["side"] for row in rows] == ["sell", "buy"]
        assert sim.violations == []
        await order(client, PERP, "sell", 0.01, "again")
        fake.plan = FaultPlan([FaultRule(fault=Fault(kind="close_position"), operation="balances")])
        await client.fetch_balance()
        assert sim.position_base(perp) == 0.0

    on_loopback(venue, scenario)


def test_it_serves_on_the_wall_clock_too():
    async def main():
        clock = Clock()
        sim = account("okx", clock)
        fake = FakeExchange([sim], latency_s=0.0)
        await fake.start()
        client = loopback_client("okx", fake.base_url("okx"), clock)
        client.timeout_on_exit = 0
        try:
            await client.load_markets()
            await order(client, PERP, "sell", 0.01, "now")
        finally:
            await client.close()
            await fake.stop()
        assert sim.position_base("perp:okx:BTC-USDT") == -0.01

    asyncio.run(main())


# -------------------------------------------------------------------------------------------------- account rules


@every_venue
def test_a_client_id_is_free_again_only_where_the_venue_frees_it(venue):
    async def scenario(client, sim, fake):
        for symbol in (SPOT, PERP):
            await order(client, symbol, "buy", 0.01, "twice")
            if venue == "binance":
                await order(client, symbol, "buy", 0.01, "twice")
            else:
                with pytest.raises(ccxt.InvalidOrder):
                    await order(client, symbol, "buy", 0.01, "twice")
            await order(client, symbol, "buy", 0.01, "rests", "limit", 40_000.0)
            with pytest.raises(ccxt.InvalidOrder):
                await order(client, symbol, "buy", 0.01, "rests", "limit", 40_000.0)

    on_loopback(venue, scenario)


@every_venue
def test_what_the_account_cannot_pay_or_the_contract_forbids_is_refused(venue):
    async def scenario(client, sim, fake):
        spot, perp = names(venue)
        cases = [
            (SPOT, "buy", 5.0, {}, ccxt.InsufficientFunds), (SPOT, "sell", 0.01, {}, ccxt.InsufficientFunds),
            (PERP, "sell", 60.0, {}, ccxt.InsufficientFunds),
        ]  # fmt: skip
        for name in (spot, perp):
            sim.make_book(name, PRICE, depth_base=1000.0)
        for number, (symbol, side, base, params, error) in enumerate(cases):
            with pytest.raises(error):
                await order(client, symbol, side, base, f"c{number}", **params)
        post_only = order(client, SPOT, "buy", 0.01, "post", "limit", 50_100.0, postOnly=True)
        if venue == "binance":
            with pytest.raises(ccxt.OrderImmediatelyFillable):
                await post_only
        else:
            await post_only
            assert (await look_up(client, SPOT, "post"))["status"] == "canceled"
        sim.set_trading(perp, False)
        with pytest.raises(ccxt.ExchangeError):
            await order(client, PERP, "sell", 0.01, "halted")
        assert [kind for kind, _ in sim.refusals][:3] == ["funds", "funds", "margin"]
        assert sim.trades == []

    on_loopback(venue, scenario)


class Still:
    """A clock that does not move unless it is told to."""

    at_us = START_US

    def now_us(self):
        return self.at_us


@every_venue
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("lot", {"quantity_base": 0.010000012345}),
        ("lot", {"quantity_base": 0.0}),
        ("tick", {"kind": "limit", "limit_price": 50_000.123456}),
        ("lot", {"quantity_base": float("nan")}),
        ("bad_request", {"kind": "limit", "limit_price": None}),
    ],
)
def test_sizes_and_prices_off_the_grid_are_refused(venue, kind, more):
    sim = account(venue, Still())
    for name in names(venue):
        wanted = Ticket(**{"client_order_id": "x", "instrument": name, "side": 1, "quantity_base": 0.01, **more})
        with pytest.raises(Refused) as caught:
            sim.place(wanted)
        assert caught.value.kind == kind
    tiny = sim.contracts[names(venue)[1]].lot_base
    if venue == "binance":
        with pytest.raises(Refused, match="notional"):
            sim.place(ticket(names(venue)[1], 1, tiny))


@every_venue
def test_cash_and_positions_are_the_sum_of_the_trades(venue):
    sim, rng = account(venue, Still()), random.Random(7)
    spot, perp = names(venue)
    for number in range(300):
        name = rng.choice((spot, perp))
        lot = max(sim.contracts[one].lot_base for one in (spot, perp))
        more = {"kind": "limit", "limit_price": round(PRICE + rng.randint(-40, 40), 1)} if rng.random() < 0.5 else {}
        with contextlib.suppress(Refused):
            sim.place(ticket(name, rng.choice((1, -1)), rng.randint(1, 30) * lot, cid=f"c{number}", **more))
        if rng.random() < 0.3:
            sim.move_book(name, rng.uniform(-2e-4, 2e-4))
        if rng.random() < 0.1:
            sim.settle(perp, rng.uniform(-1e-4, 1e-4))
    assert len(sim.trades) > 50
    usdt, coins, contracts = 2e5 + 500.0, 0.0, 0.0
    for trade in sim.trades:
        if trade.instrument == spot:
            coins += trade.side * trade.quantity_base
            usdt -= trade.side * trade.quantity_base * trade.price
        else:
            contracts += trade.side * trade.quantity_base
            usdt += trade.realised_usd
        if trade.fee_asset == "USDT":
            usdt -= trade.fee
        else:
            coins -= trade.fee
    usdt += sum(payment.amount for payment in sim.funding)
    assert sim.balance("USDT") == pytest.approx(usdt, abs=1e-7)
    assert sim.balance("BTC") == pytest.approx(coins, abs=1e-9)
    assert sim.position_base(perp) == pytest.approx(contracts, abs=1e-9)
    assert sim.net_base("BTC") == pytest.approx(coins + contracts, abs=1e-9)


def test_an_order_that_turns_a_position_is_a_violation():
    sim = account("binance", Still())
    sim.place(ticket("perp:binance:BTC-USDT", -1, 0.01))
    sim.place(ticket("perp:binance:BTC-USDT", 1, 0.02))
    assert len(sim.violations) == 1


def test_selling_more_than_was_bought_is_a_violation():
    sim = SimVenue(
        "binance", standard_contracts("binance"), clock=Still(), balances={"spot": {"BTC": 1.0, "USDT": 1e5}}
    )
    sim.make_book("spot:binance:BTC-USDT", PRICE)
    sim.place(ticket("spot:binance:BTC-USDT", 1, 0.01))
    sim.place(ticket("spot:binance:BTC-USDT", -1, 0.02))
    assert len(sim.violations) == 1


def test_fees_are_paid_in_bnb_where_there_is_some():
    cash = {"spot": {"USDT": 1e5, "BNB": 1.0}}
    sim = SimVenue("binance", standard_contracts("binance"), clock=Still(), balances=cash, bnb_price=600.0)
    sim.make_book("spot:binance:BTC-USDT", PRICE)
    sim.place(ticket("spot:binance:BTC-USDT", 1, 0.01))
    assert sim.trades[0].fee_asset == "BNB"
    assert sim.balance("BNB") == pytest.approx(1.0 - 0.01 * 50_002.5 * 1e-3 * 0.75 / 600.0)
    assert sim.balance("BTC") == 0.01


def test_the_longest_naked_time_counts_all_venues_together():
    clock = Still()
    sims = [account("binance", clock), account("okx", clock)]
    sims[0].place(ticket("spot:binance:BTC-USDT", 1, 0.05))
    clock.at_us += 3_000_000
    sims[1].place(ticket("perp:okx:BTC-USDT", -1, 0.0499))
    clock.at_us += 5_000_000
    span = {"since_us": START_US, "until_us": clock.at_us}
    assert longest_naked_s(sims, "BTC", 0.001, **span) == 3.0
    assert longest_naked_s(sims, "BTC", 0.00001, **span) == 8.0
    assert longest_naked_s(sims[1:], "BTC", 0.001, **span) == 5.0


def test_a_moving_mid_keeps_the_spread():
    clock = Still()
    sim = SimVenue(
        "binance", standard_contracts("binance"), clock=clock, balances=CASH,
        mid_of=lambda name, at_us: PRICE + 0.37 * ((at_us - START_US) // 1_000_000),
    )  # fmt: skip
    name = "perp:binance:BTC-USDT"
    sim.make_book(name, PRICE)
    for _ in range(200):
        clock.at_us += 1_000_000
        book = sim.book(name)
    assert book.mid == pytest.approx(PRICE + 74.0, abs=0.2)
    assert book.asks[0][0] - book.bids[0][0] < 5.5


def test_the_past_can_be_forgotten():
    clock = Still()
    sim = account("bybit", clock)
    name = "perp:bybit:BTC-USDT"
    for number in range(10):
        clock.at_us += 1_000_000
        sim.place(ticket(name, -1, 0.01, cid=f"c{number}"))
    sim.place(ticket(name, -1, 0.01, cid="rest", kind="limit", limit_price=60_000.0))
    sim.forget(before_us=clock.at_us)
    assert {o.ticket.client_order_id for o in sim.orders.values()} == {"c9", "rest"}
    assert len(sim.trades) == 1
    assert sim.position_base(name) == -0.1
    assert sim.exposures[-1][2] == -0.1


# --------------------------------------------------------------------------------------------------------- faults

UNKNOWN = "no id"
#: what ccxt makes of a reply that is spoiled after the order was filled
SPOILED = [
    (Fault(kind="cut_after"), ["ExchangeNotAvailable"] * 3),
    (Fault(kind="hang", seconds=30.0), ["RequestTimeout"] * 3),
    (Fault(kind="half_body"), ["ExchangeError"] * 3),
    (Fault(kind="empty_body"), [UNKNOWN] * 3),
    (Fault(kind="html_body"), [UNKNOWN] * 3),
    (Fault(kind="status", status=500), ["ExchangeNotAvailable"] * 3),
    (Fault(kind="status", status=502), ["ExchangeNotAvailable"] * 3),
    (Fault(kind="status", status=503), ["OperationFailed", "ExchangeError", "ExchangeError"]),
    (Fault(kind="status", status=504), ["RequestTimeout"] * 3),
    (Fault(kind="status_unknown"), ["RequestTimeout", "ExchangeError", "RequestTimeout"]),
    (Fault(kind="duplicate"), ["InvalidOrder"] * 3),
]
NOT_FILLED = [
    (Fault(kind="cut_before"), ["ExchangeNotAvailable"] * 3),
    (Fault(kind="refuse", reason="busy"), ["OperationFailed", "ExchangeError", "ExchangeNotAvailable"]),
    (Fault(kind="refuse", reason="duplicate"), ["InvalidOrder"] * 3),
    (Fault(kind="refuse", reason="clock"), ["InvalidNonce"] * 3),
    (Fault(kind="refuse", reason="reduce_only"), ["InvalidOrder", "InvalidOrder", "ExchangeError"]),
    (Fault(kind="refuse", reason="margin"), ["InsufficientFunds"] * 3),
    (Fault(kind="refuse", reason="funds"), ["InsufficientFunds"] * 3),
    (Fault(kind="refuse", reason="minimum"), ["InvalidOrder"] * 3),
    (Fault(kind="refuse", reason="lot"), ["BadRequest", "BadRequest", "InvalidOrder"]),
    (Fault(kind="refuse", reason="price_band"), ["OperationRejected", "InvalidOrder", "InvalidOrder"]),
    (Fault(kind="refuse", reason="key"), ["AuthenticationError"] * 3),
    (Fault(kind="refuse", reason="rate"), ["DDoSProtection", "RateLimitExceeded", "RateLimitExceeded"]),
    (Fault(kind="rate_limit", seconds=2.0), ["DDoSProtection", "RateLimitExceeded", "RateLimitExceeded"]),
    (Fault(kind="down", seconds=2.0), ["OperationFailed", "ExchangeError", "ExchangeError"]),
    (Fault(kind="clock_offset", seconds=60.0), ["InvalidNonce"] * 3),
]


def outcomes(venue, faults):
    """What ccxt makes of each fault on a perp create, how many trades it left, and the counts of creates."""

    async def scenario(client, sim, fake):
        seen = []
        for number, fault in enumerate(faults):
            fake.plan = FaultPlan([FaultRule(fault=fault, operation="create")])
            before = len(sim.trades)
            try:
                reply = await order(client, PERP, "buy", 0.01, f"c{number}")
                outcome = UNKNOWN if reply["id"] is None and reply["status"] is None else "accepted"
            except ccxt.BaseError as error:
                outcome = type(error).__name__
            seen.append((outcome, len(sim.trades) - before))
            await asyncio.sleep(3.0)
            sim.clock_offset_ms = 0
        return seen, sim.creates[names(venue)[1]]

    return on_loopback(venue, scenario)


@pytest.mark.parametrize(("place", "venue"), list(enumerate(VENUES)), ids=VENUES)
def test_a_spoiled_reply_reaches_ccxt_as_measured_and_the_order_is_filled(place, venue):
    seen, creates = outcomes(venue, [fault for fault, _ in SPOILED])
    assert seen == [(expected[place], 1) for _, expected in SPOILED]
    assert creates == len(SPOILED)


@pytest.mark.parametrize(("place", "venue"), list(enumerate(VENUES)), ids=VENUES)
def test_a_refusal_reaches_ccxt_as_measured_and_nothing_is_filled(place, venue):
    seen, creates = outcomes(venue, [fault for fault, _ in NOT_FILLED])
    assert seen == [(expected[place], 0) for _, expected in NOT_FILLED]
    assert creates == len(NOT_FILLED) - 1  # the one that was cut never arrived


@every_venue
def test_every_refusal_has_an_answer_of_the_venue(venue):
    async def scenario(client, sim, fake):
        for number, reason in enumerate(REFUSALS):
            for symbol in (SPOT, PERP):
                fake.plan = FaultPlan([FaultRule(fault=Fault(kind="refuse", reason=reason), operation="create")])
                with pytest.raises(ccxt.BaseError) as caught:
                    await order(client, symbol, "buy", 0.01, f"c{number}")
                assert "ode" in str(caught.value) or reason in ("funds", "tick", "halted", "post_only", "price_band")
        assert sim.trades == []

    on_loopback(venue, scenario)


@every_venue
def test_a_request_may_be_executed_late(venue):
    async def scenario(client, sim, fake):
        with pytest.raises(ccxt.ExchangeNotAvailable):
            await order(client, PERP, "sell", 0.01, "late")
        with pytest.raises(ccxt.OrderNotFound):
            await look_up(client, PERP, "late")
        await asyncio.sleep(3.0)
        assert (await look_up(client, PERP, "late"))["status"] == "closed"

    on_loopback(venue, scenario, rules=[FaultRule(fault=Fault(kind="late", seconds=3.0), operation="create")])


@every_venue
def test_an_order_may_be_hidden_from_the_first_look_ups(venue):
    async def scenario(client, sim, fake):
        await order(client, PERP, "sell", 0.01, "hidden")
        for _ in range(3):
            with pytest.raises(ccxt.OrderNotFound):
                await look_up(client, PERP, "hidden")
        assert (await look_up(client, PERP, "hidden"))["status"] == "closed"

    on_loopback(venue, scenario, rules=[FaultRule(fault=Fault(kind="hide_order"), operation="find", count=3)])


@every_venue
def test_an_order_may_fill_in_part_stay_open_or_race_with_its_cancel(venue):
    rules = [
        FaultRule(fault=Fault(kind="fill_share", share=0.4), operation="create", order_kind="market"),
        FaultRule(fault=Fault(kind="fill_share", share=0.0), operation="create", order_kind="limit", count=None),
        FaultRule(fault=Fault(kind="fill_before_cancel", share=1.0), operation="cancel"),
        FaultRule(fault=Fault(kind="fill_before_cancel", share=0.5), operation="cancel", skip=1),
        FaultRule(fault=Fault(kind="cut_after"), operation="cancel", skip=2),
    ]

    async def scenario(client, sim, fake):
        await order(client, PERP, "sell", 0.05, "part")
        told = await look_up(client, PERP, "part")
        assert told["filled"] == in_units(venue, PERP, 0.02)
        assert told["status"] != "open"
        found = []
        for number in range(3):
            await order(client, PERP, "sell", 0.02, f"r{number}", "limit", 49_000.0)
            resting = await look_up(client, PERP, f"r{number}")
            assert (resting["status"], resting["filled"]) == ("open", 0.0)
            try:
                await client.cancel_order(resting["id"], PERP)
                found.append("cancelled")
            except ccxt.OrderNotFound:
                found.append("gone")
            except ccxt.NetworkError:
                found.append("lost")
            over = await look_up(client, PERP, f"r{number}")
            found.append((over["status"], over["filled"] / in_units(venue, PERP, 1.0)))
        assert found[:4] == ["gone", ("closed", pytest.approx(0.02)), "cancelled", ("canceled", pytest.approx(0.01))]
        assert found[4] == ("gone" if venue == "binance" else "lost")  # aiohttp repeats a DELETE, not a POST
        assert found[5] == ("canceled", 0.0)
        assert sim.open_orders() == []

    on_loopback(venue, scenario, rules=rules)


@every_venue
@pytest.mark.parametrize(("kind", "status", "filled"), [("stale_order", "open", 0.0), ("stale_fill", "canceled", 0.0)])
def test_an_order_read_after_its_cancel_may_be_stale(venue, kind, status, filled):
    rules = [
        FaultRule(fault=Fault(kind="fill_before_cancel", share=0.5), operation="cancel"),
        FaultRule(fault=Fault(kind=kind, lag=2), operation="find", after="cancel"),
    ]

    async def scenario(client, sim, fake):
        await order(client, PERP, "sell", 0.02, "rest", "limit", 51_000.0)
        before = await look_up(client, PERP, "rest")
        await client.cancel_order(before["id"], PERP)
        stale, fresh = await look_up(client, PERP, "rest"), await look_up(client, PERP, "rest")
        assert (stale["status"], stale["filled"]) == (status, filled)
        assert (fresh["status"], fresh["filled"]) == ("canceled", in_units(venue, PERP, 0.01))

    on_loopback(venue, scenario, rules=rules)


@every_venue
def test_positions_may_be_stale_and_rows_may_come_twice(venue):
    rules = [
        FaultRule(fault=Fault(kind="stale_positions"), operation="positions", after="create"),
        FaultRule(fault=Fault(kind="copies"), operation=("trades", "open_orders"), count=None),
    ]

    async def scenario(client, sim, fake):
        await order(client, PERP, "sell", 0.01, "one")
        await order(client, PERP, "sell", 0.02, "two")
        await order(client, PERP, "sell", 0.02, "three", "limit", 51_000.0)
        sizes = [
            sum(row["contracts"] or 0.0 for row in await client.fetch_positions([PERP])) / in_units(venue, PERP, 1.0)
            for _ in range(2)
        ]
        assert sizes == pytest.approx([0.01, 0.03])
        assert len(await client.fetch_my_trades(PERP)) == 4
        assert len(await client.fetch_open_orders(PERP)) == 2

    on_loopback(venue, scenario, rules=rules)


@every_venue
def test_a_book_may_be_stale_one_sided_crossed_wide_or_thin(venue):
    kinds = [
        Fault(kind="stale_book", seconds=30.0, share=0.01), Fault(kind="empty_side", side=1),
        Fault(kind="empty_side", side=-1), Fault(kind="crossed_book"), Fault(kind="wide_spread", bps=80.0),
        Fault(kind="thin_book", base=0.01),
    ]  # fmt: skip
    rules = [FaultRule(fault=fault, operation="book", skip=place) for place, fault in enumerate(kinds)]

    async def scenario(client, sim, fake):
        size = client.market(PERP)["contractSize"]
        books = [await client.fetch_order_book(PERP, 20) for _ in kinds]
        now_ms = client.milliseconds()
        stale, no_asks, no_bids, crossed, wide, thin = books
        assert 29_000 < now_ms - stale["timestamp"] < 31_000
        assert stale["bids"][0][0] == pytest.approx(PRICE * 1.01, rel=1e-4)
        assert (no_asks["asks"], no_bids["bids"]) == ([], [])
        assert crossed["bids"][0][0] > crossed["asks"][0][0]
        assert (wide["asks"][0][0] - wide["bids"][0][0]) / PRICE * 1e4 == pytest.approx(80.0, rel=0.01)
        assert sum(row[1] for row in thin["bids"]) * size == pytest.approx(0.01)

    on_loopback(venue, scenario, rules=rules)


def test_the_age_of_a_spot_book_shows_in_the_ticker_and_in_an_update_id_that_stands_still():
    rule = FaultRule(fault=Fault(kind="stale_book", seconds=30.0), operation=("book", "ticker"), count=None)

    async def scenario(client, sim, fake):
        books = [await client.fetch_order_book(SPOT) for _ in range(2)]
        assert books[0]["nonce"] == books[1]["nonce"]
        assert client.milliseconds() - (await client.fetch_ticker(SPOT))["timestamp"] > 29_000
        fake.plan = FaultPlan()
        books = [await client.fetch_order_book(SPOT) for _ in range(2)]
        assert books[0]["nonce"] < books[1]["nonce"]
        assert client.milliseconds() - (await client.fetch_ticker(SPOT))["timestamp"] < 100

    on_loopback("binance", scenario, rules=[rule])


@every_venue
def test_asking_within_the_pause_is_abuse_and_waiting_is_not(venue):
    rule = FaultRule(fault=Fault(kind="rate_limit", seconds=2.0), operation="create")

    async def scenario(client, sim, fake):
        with pytest.raises((ccxt.RateLimitExceeded, ccxt.DDoSProtection)):
            await order(client, PERP, "sell", 0.01, "one")
        assert float(client.last_response_headers["Retry-After"]) == 2.0
        with pytest.raises((ccxt.RateLimitExceeded, ccxt.DDoSProtection)):
            await client.fetch_time()
        assert (sim.abuse, sim.n418) == (0, 0)  # it may have been on the wire
        await asyncio.sleep(1.0)
        with pytest.raises((ccxt.RateLimitExceeded, ccxt.DDoSProtection)):
            await client.fetch_time()
        assert (sim.abuse, sim.n418) == (1, 1)
        await asyncio.sleep(1.0)
        await order(client, PERP, "sell", 0.01, "two")

    on_loopback(venue, scenario, rules=[rule])


@every_venue
def test_a_wrong_clock_is_refused_until_it_is_measured(venue):
    async def scenario(client, sim, fake):
        sim.clock_offset_ms = 60_000
        with pytest.raises(ccxt.InvalidNonce):
            await order(client, PERP, "sell", 0.01, "early")
        await client.load_time_difference()
        await order(client, PERP, "sell", 0.01, "right")
        sim.clock_offset_ms = 0
        with pytest.raises(ccxt.InvalidNonce):
            await order(client, PERP, "sell", 0.01, "ahead")
        (trade,) = await client.fetch_my_trades(PERP) if await client.load_time_difference() is not None else ()
        assert trade["timestamp"] > client.milliseconds() + 59_000

    on_loopback(venue, scenario)


@every_venue
def test_a_venue_that_is_down_answers_nobody(venue):
    async def scenario(client, sim, fake):
        fake.take_down(venue, 3.0)
        for call in (client.fetch_time, client.fetch_balance, lambda: client.fetch_order_book(PERP)):
            with pytest.raises(ccxt.BaseError):
                await call()
        await asyncio.sleep(3.0)
        await client.fetch_time()
        assert sim.abuse == 0

    on_loopback(venue, scenario)


@every_venue
def test_a_private_question_needs_a_key_and_no_secret_is_kept(venue):
    async def scenario(client, sim, fake):
        await order(client, PERP, "sell", 0.01, "one")
        await client.fetch_balance()
        client.apiKey = " "
        with pytest.raises(ccxt.BaseError):
            await client.fetch_balance()
        kept = repr(sim.requests) + repr(vars(fake))
        assert "loopback" not in kept
        assert "signature" not in kept.lower()
        assert [r.operation for r in sim.requests if r.method == "POST" and r.operation == "create"] == ["create"]

    on_loopback(venue, scenario)


def test_the_same_request_log_is_kept_on_every_run():
    def run():
        async def scenario(client, sim, fake):
            fake.plan = SoakPlan(seed=3, probability=0.3)
            for number in range(20):
                try:
                    await order(client, PERP, "sell", 0.01, f"c{number}")
                except ccxt.BaseError:
                    await asyncio.sleep(1.5)
            return [(r.ts_us, r.operation, r.answer) for r in sim.requests], fake.plan.fired

        return on_loopback("binance", scenario)

    first, second = run(), run()
    assert first == second
    assert len(first[1]) > 3


# ------------------------------------------------------------------------------------------------------ scenarios


def test_every_numbered_fault_is_there():
    assert list(SCENARIOS) == [f"F{n}" for n in (*range(1, 34), 35, 36, 37)]
    assert sum(len(one.variants) for one in SCENARIOS.values()) == 44
    for scenario in SCENARIOS.values():
        assert set(scenario.results) <= {"opened", "flat", "reduced", "refused", "halted"}
        assert 0.0 < scenario.quantity_for("binance") <= 0.06
        assert all(scenario.plan(variant).rules == rules for variant, rules in scenario.variants.items())


def test_a_rule_strikes_the_requests_it_names_and_no_others():
    def event(operation, market="perp", side=-1, kind="market"):
        name = f"{market}:okx:BTC-USDT"
        return Event(ts_us=0, venue="okx", operation=operation, instrument=name, side=side, order_kind=kind)

    fault = Fault(kind="cut_after")
    plan = FaultPlan([FaultRule(fault=fault, operation="create", market="perp", side=-1, skip=1, count=2)])
    struck = [bool(plan.strike(event("create"))) for _ in range(5)]
    assert struck == [False, True, True, False, False]
    assert not plan.strike(event("create", side=1)) and not plan.strike(event("create", market="spot"))
    after = FaultPlan([FaultRule(fault=fault, operation="find", after="cancel")])
    assert [bool(after.strike(event(one))) for one in ("find", "cancel", "find", "find")] == [False, False, True, False]
    half = [FaultPlan([FaultRule(fault=fault, probability=0.5, count=None)], seed=5) for _ in range(2)]
    struck = [[bool(plan.strike(event("book"))) for _ in range(200)] for plan in half]
    assert struck[0] == struck[1]
    assert 70 < sum(struck[0]) < 130


def test_the_soak_strikes_one_request_in_twenty():
    plan = SoakPlan(seed=1)
    for operation in ("create", "find", "trades", "book", "positions", "cancel") * 500:
        plan.strike(Event(ts_us=0, venue="okx", operation=operation, instrument=None))
    assert 0.03 < len(plan.fired) / 3000 < 0.07
    assert len({fault.kind for _, fault in plan.fired}) > 15
