"""What an error says about an order that was sent: refused with proof, or unknown; and that no error tells a secret."""

import asyncio
import logging
import traceback

import ccxt.async_support as ccxt
import pytest
from live_room import room
from live_world import world

from basis_bt.core.errors import ConfigError
from basis_bt.live.fake.faults import LOST, Fault, FaultPlan, FaultRule
from basis_bt.live.fake.records import REFUSALS
from basis_bt.live.fake.virtual_time import run_virtual
from basis_bt.live.ids import client_order_id, is_ours, prefix_of
from basis_bt.live.orders import PURPOSES, LegOrder
from basis_bt.live.outcomes import is_gone, is_unchanged, judge_send
from basis_bt.live.venue import OrderRefused, OrderUnknown, VenueDown

VENUES = ("binance", "bybit", "okx")
#: what the loopback clients sign with; it must turn up nowhere, and neither must a signature
SECRETS = ("loopback", "signature", "sign=", "BAPI-SIGN", "ACCESS-SIGN")
PRICE = 50_000.0


def order(instrument, **changes):
    fields = {
        "intent": "1-entry", "client_order_id": "bb1e0test", "instrument": instrument, "leg": 0, "side": 1,
        "quantity_base": 0.05, "arrival_price": PRICE, "reference_price": PRICE, "decided_us": 0,
    }  # fmt: skip
    return LegOrder(**fields | changes)


# -- the table ---------------------------------------------------------------------------------------------------------

BODY = {
    "binance": '{{"code":{},"msg":"no"}}',
    "bybit": '{{"retCode":{},"retMsg":"no"}}',
    "okx": '{{"code":"1","data":[{{"sCode":"{}"}}]}}',
}
CODES = [
    # duplicates: the first one is there
    ("binance", -4116, ccxt.InvalidOrder, "unknown"), ("bybit", 110072, ccxt.InvalidOrder, "unknown"),
    ("bybit", 170141, ccxt.InvalidOrder, "unknown"), ("okx", 51016, ccxt.InvalidOrder, "unknown"),
    # the venue does not know, or is too busy to say
    ("binance", -1006, ccxt.OperationFailed, "unknown"), ("binance", -1007, ccxt.RequestTimeout, "unknown"),
    ("binance", -1008, ccxt.OperationFailed, "unknown"), ("binance", -1000, ccxt.OperationFailed, "unknown"),
    ("bybit", 10016, ccxt.ExchangeError, "unknown"), ("bybit", 110079, ccxt.ExchangeError, "unknown"),
    ("okx", 50004, ccxt.RequestTimeout, "unknown"), ("okx", 51149, ccxt.ExchangeError, "unknown"),
    ("okx", 50001, ccxt.OnMaintenance, "unknown"), ("okx", 50013, ccxt.ExchangeNotAvailable, "unknown"),
    ("okx", 50026, ccxt.ExchangeNotAvailable, "unknown"),
    # before the order was looked at
    ("binance", -1021, ccxt.InvalidNonce, "resend"), ("bybit", 10002, ccxt.InvalidNonce, "resend"),
    ("okx", 50102, ccxt.InvalidNonce, "resend"), ("binance", -1003, ccxt.DDoSProtection, "resend"),
    ("binance", -1015, ccxt.RateLimitExceeded, "resend"), ("bybit", 10006, ccxt.RateLimitExceeded, "resend"),
    ("bybit", 10018, ccxt.RateLimitExceeded, "resend"), ("bybit", 10429, ccxt.ExchangeError, "resend"),
    ("okx", 50011, ccxt.RateLimitExceeded, "resend"), ("okx", 50061, ccxt.ExchangeError, "resend"),
    # no
    ("binance", -1013, ccxt.BadRequest, "refused"), ("binance", -4164, ccxt.InvalidOrder, "refused"),
    ("binance", -1111, ccxt.BadRequest, "refused"), ("binance", -4014, ccxt.BadRequest, "refused"),
    ("binance", -2018, ccxt.InsufficientFunds, "refused"), ("binance", -2019, ccxt.InsufficientFunds, "refused"),
    ("binance", -2027, ccxt.InvalidOrder, "refused"), ("binance", -4005, ccxt.InvalidOrder, "refused"),
    ("binance", -4131, ccxt.OperationRejected, "refused"), ("binance", -4016, ccxt.OperationRejected, "refused"),
    ("binance", -5022, ccxt.OrderNotFillable, "refused"), ("binance", -2022, ccxt.InvalidOrder, "refused"),
    ("binance", -4061, ccxt.OperationRejected, "refused"), ("binance", -2010, ccxt.InsufficientFunds, "refused"),
    ("binance", -2010, ccxt.OrderImmediatelyFillable, "refused"), ("binance", -2015, ccxt.PermissionDenied, "refused"),
    ("bybit", 110094, ccxt.InvalidOrder, "refused"), ("bybit", 170140, ccxt.InvalidOrder, "refused"),
    ("bybit", 170136, ccxt.InvalidOrder, "refused"), ("bybit", 10001, ccxt.BadRequest, "refused"),
    ("bybit", 110004, ccxt.InsufficientFunds, "refused"), ("bybit", 110007, ccxt.InsufficientFunds, "refused"),
    ("bybit", 110012, ccxt.InsufficientFunds, "refused"), ("bybit", 110052, ccxt.InsufficientFunds, "refused"),
    ("bybit", 170131, ccxt.InsufficientFunds, "refused"), ("bybit", 170124, ccxt.InvalidOrder, "refused"),
    ("bybit", 110003, ccxt.InvalidOrder, "refused"), ("bybit", 170193, ccxt.InvalidOrder, "refused"),
    ("bybit", 110017, ccxt.InvalidOrder, "refused"), ("bybit", 10003, ccxt.AuthenticationError, "refused"),
    ("okx", 51020, ccxt.InvalidOrder, "refused"), ("okx", 51121, ccxt.InvalidOrder, "refused"),
    ("okx", 51008, ccxt.InsufficientFunds, "refused"), ("okx", 51119, ccxt.InsufficientFunds, "refused"),
    ("okx", 51127, ccxt.InsufficientFunds, "refused"), ("okx", 51131, ccxt.InsufficientFunds, "refused"),
    ("okx", 59108, ccxt.InsufficientFunds, "refused"), ("okx", 51004, ccxt.InvalidOrder, "refused"),
    ("okx", 51202, ccxt.InvalidOrder, "refused"), ("okx", 51006, ccxt.InvalidOrder, "refused"),
    ("okx", 51169, ccxt.ExchangeError, "refused"), ("okx", 51000, ccxt.BadRequest, "refused"),
]  # fmt: skip


@pytest.mark.parametrize(("venue", "code", "kind", "outcome"), CODES)
def test_a_code_of_the_venue_decides(venue, code, kind, outcome):
    error = kind(f"{venue} {BODY[venue].format(code)}")
    assert judge_send(error, venue=venue, was_sent=True).outcome == outcome


def test_codes_decide_even_where_ccxt_knows_no_class_for_them():
    """ccxt picks Binance's table of codes by the host: behind another address everything is a plain ExchangeError."""
    for venue, code, kind, outcome in CODES:
        if kind not in (ccxt.InsufficientFunds, ccxt.OrderImmediatelyFillable) or code != -2010:
            error = ccxt.ExchangeError(f"{venue} {BODY[venue].format(code)}")
            assert judge_send(error, venue=venue, was_sent=True).outcome == outcome, (venue, code)


@pytest.mark.parametrize("venue", (*VENUES, "kraken"))
@pytest.mark.parametrize(
    "error",
    [
        ccxt.RequestTimeout("POST timed out"), ccxt.NetworkError("reset"), ccxt.ExchangeNotAvailable("502"),
        ccxt.OnMaintenance("closed"), ccxt.BadResponse("<html>"), ccxt.NullResponse(""), ccxt.OperationFailed("503"),
        ccxt.CancelPending("?"), ccxt.ExchangeError("half a body"), ccxt.ExchangeError('{"code":-9999}'),
        ccxt.InvalidOrder("no code in the text"), ccxt.InsufficientFunds("no code in the text"),
        ccxt.OrderNotFound('{"code":-2013}'), ccxt.DuplicateOrderId("twice"), TypeError("while parsing"),
        KeyError("orderId"), asyncio.CancelledError(), KeyboardInterrupt(), MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_is_no_proof_is_unknown(venue, error):
    assert judge_send(error, venue=venue, was_sent=True).outcome == "unknown"


@pytest.mark.parametrize(
    "kind", [ccxt.ArgumentsRequired, ccxt.BadSymbol, ccxt.InvalidOrder, ccxt.NotSupported, ccxt.BadRequest]
)
def test_what_ccxt_refuses_by_itself_never_left(kind):
    assert judge_send(kind("amount is too small"), venue="binance", was_sent=False) == ("refused", "local")


def test_a_network_error_before_the_first_byte_is_no_proof_either():
    """Whether the first byte left is not for us to say; a look-up costs less than a leg nobody knows of."""
    assert judge_send(ccxt.NetworkError("refused"), venue="okx", was_sent=False).outcome == "unknown"


def test_a_duplicate_is_told_by_its_words_where_the_code_is_shared():
    error = ccxt.InvalidOrder('binance {"code":-2010,"msg":"Duplicate order sent."}')
    assert judge_send(error, venue="binance", was_sent=True) == ("unknown", "exists")


def test_gone_and_unchanged_are_told_from_failure():
    assert is_gone(ccxt.OrderNotFound("x"), venue="kraken")
    assert is_gone(ccxt.ExchangeError('{"code":-2011}'), venue="binance")
    assert is_gone(ccxt.ExchangeError('{"sCode":"51400"}'), venue="okx")
    assert not is_gone(ccxt.RequestTimeout("x"), venue="binance")
    assert not is_gone(ccxt.ExchangeError('{"code":-2011}'), venue="okx")
    assert is_unchanged(ccxt.ExchangeError('{"retCode":110043}')) and not is_unchanged(ccxt.NetworkError("x"))


# -- through the venues ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("market", ["spot", "perp"])
def test_every_way_to_lose_a_reply_is_unknown_and_sent_once(venue, market):
    """Section 1 of the table: the order was filled, or not, and ccxt raises something else on each venue."""
    kinds = [*(Fault(kind=kind, seconds=30.0, status=502) for kind in LOST if kind != "status"),
             *(Fault(kind="status", status=status) for status in (500, 502, 503, 504))]  # fmt: skip

    async def main(clock):
        async with room(clock, (venue, venue)) as r:
            instrument = f"{market}:{venue}:BTC-USDT"
            for number, fault in enumerate(kinds):
                r.fake.plan = FaultPlan([FaultRule(fault=fault, operation="create")])
                asked = sum(one.operation == "create" for one in r.sims[venue].requests)
                with pytest.raises(OrderUnknown) as caught:
                    await r.venues[venue].send(order(instrument, client_order_id=f"bb1lost{number}"))
                assert sum(one.operation == "create" for one in r.sims[venue].requests) == asked + 1, fault
                assert_no_secret(caught.value)

    run_virtual(main)


#: how a refusal by the fake reads: what the venue's own code for it proves. Busy is not told from unknown.
RESENT = {"clock", "rate"}
UNCLEAR = {"duplicate", "busy", "not_found"}


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("market", ["spot", "perp"])
@pytest.mark.parametrize("reason", sorted(set(REFUSALS) - {"unchanged", "margin", "position_mode", "reduce_only"}))
def test_a_refusal_by_the_venue_is_proof_but_for_some(venue, market, reason):
    async def main(clock):
        async with room(clock, (venue, venue)) as r:
            r.fake.plan = FaultPlan([FaultRule(fault=Fault(kind="refuse", reason=reason), operation="create")])
            one = order(f"{market}:{venue}:BTC-USDT")
            if reason in RESENT:
                assert (await r.venues[venue].send(one)).venue_order_id
                assert len(r.sims[venue].orders) == 1
            else:
                with pytest.raises(OrderUnknown if reason in UNCLEAR else OrderRefused) as caught:
                    await r.venues[venue].send(one)
                assert not r.sims[venue].orders
                assert_no_secret(caught.value)

    run_virtual(main)


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("reason", ["margin", "reduce_only", "position_mode"])
def test_a_refusal_of_a_contract_is_proof(venue, reason):
    async def main(clock):
        async with room(clock, (venue, venue)) as r:
            r.fake.plan = FaultPlan([FaultRule(fault=Fault(kind="refuse", reason=reason), operation="create")])
            with pytest.raises(OrderRefused):
                await r.venues[venue].send(order(f"perp:{venue}:BTC-USDT"))

    run_virtual(main)


GARBAGE = ("", "null", "17", '"ok"', "<html>wait</html>", "{", "{}", "[]", '[null]', '{"data": null}', '{"result": 5}')


@pytest.mark.parametrize("venue", VENUES)
def test_an_answer_without_sense_is_no_answer(venue, monkeypatch):
    """Never an empty list that reads as "no such order", and never an error that nobody expects."""

    async def main(clock):
        async with room(clock, (venue, venue)) as r:
            one, v = order(f"perp:{venue}:BTC-USDT"), r.venues[venue]
            await v.send(one)
            client = v._client
            for text in GARBAGE:
                client.on_rest_response = lambda *args, text=text: text
                try:
                    with pytest.raises(OrderUnknown):
                        await v.send(order(f"perp:{venue}:BTC-USDT", client_order_id="bb1e0other"))
                    for question in (v.balances, v.positions, v.open_orders, lambda: v.find(one),
                                     lambda: v.book(one.instrument), lambda: v.refresh(one.instrument),
                                     lambda: v.trades(one.instrument, since_us=0),
                                     lambda: v.funding_payments(one.instrument, since_us=0)):  # fmt: skip
                        try:
                            answer = await question()
                        except VenueDown:
                            continue
                        if text in GARBAGE[:6]:
                            raise AssertionError(f"{text!r} was read as {answer!r}")
                finally:
                    del client.on_rest_response
            assert (await v.find(one)).filled_base == 0.05
            assert (await v.refresh(one.instrument)).is_trading

    run_virtual(main)


@pytest.mark.parametrize("pair", [("binance", "binance"), ("bybit", "bybit"), ("okx", "okx")])
@pytest.mark.parametrize("text", ["<html>wait</html>", ""])
def test_pages_instead_of_look_ups_do_not_make_an_order_missing(pair, text):
    """A firewall's page has status 200 and parses to an empty list: the filled order was there all the time."""

    async def main(clock):
        async with room(clock, pair) as r:
            kind = "html_body" if text else "empty_body"
            perp = r.combos.instruments[1]
            r.fake.plan = FaultPlan([
                FaultRule(fault=Fault(kind="cut_after"), operation="create", market="perp"),
                *(FaultRule(fault=Fault(kind=kind), operation=name, count=6)
                  for name in ("find", "find_history", "open_orders", "trades")),
            ])  # fmt: skip
            one = order(perp, side=-1, client_order_id="bb1e1pages", leg=1)
            result = await r.desk.place(one)
            assert result.event == "filled" and result.filled_base == 0.05
            assert not r.journal.events("missing") and r.sim(perp).creates[perp] == 1

    run_virtual(main)


def test_a_market_list_with_holes_leaves_what_is_held_tradable():
    async def main(clock):
        async with room(clock, ("binance", "binance")) as r:
            v, perp = r.venues["binance"], "perp:binance:BTC-USDT"
            r.sims["binance"].contracts.pop("spot:binance:BTC-USDT")
            await clock.sleep(2.0)
            with pytest.raises(VenueDown, match="not among the markets"):
                await v.refresh(perp)
            assert (await r.desk.place(order(perp, side=-1, leg=1))).success

    run_virtual(main)


# -- never twice -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [("binance", "binance"), ("bybit", "bybit"), ("okx", "okx")])
def test_an_order_is_not_sent_a_second_time_under_its_id(pair):
    """Binance takes the id of a filled order again and fills it again: the desk must not try."""

    async def main(clock):
        async with world(clock, pair, None) as it:
            engine = await it.begin()
            spot = it.legs[0]
            assert (await engine.desk.place(order(spot))).success
            again = await engine.desk.place(order(spot))
            assert again.event == "refused" and again.reason.startswith("sent_before")
            assert it.sims[pair[0]].creates[spot] == 1

    run_virtual(main)


def test_somebody_elses_trade_does_not_keep_an_order_from_being_missing(tmp_path):
    """It looks like the fill of ours; after the grace time the client id, which nobody knows, decides."""

    async def main(clock):
        async with room(clock, ("okx", "okx")) as r:
            perp, sim = r.combos.instruments[1], r.sims["okx"]
            r.fake.plan = FaultPlan([FaultRule(fault=Fault(kind="cut_before"), operation="create")])
            task = asyncio.create_task(r.desk.place(order(perp, side=-1, leg=1)))
            await clock.sleep(0.5)
            from basis_bt.live.fake.records import Ticket

            sim.place(Ticket(client_order_id="theirs", instrument=perp, side=-1, quantity_base=0.05))
            begun_s = clock.monotonic_s()
            result = await asyncio.wait_for(task, 60.0)
            assert result.event == "missing"
            assert clock.monotonic_s() - begun_s >= r.desk.execution.grace_s - 1.0

    run_virtual(main)


def test_ids_are_letters_and_digits_and_come_again_after_a_restart():
    seen = set()
    prefix = prefix_of("a session")
    for purpose in PURPOSES:
        for leg in range(3):
            for attempt in range(20):
                made = client_order_id(prefix, "3-entry", purpose=purpose, leg=leg, attempt=attempt)
                assert made == client_order_id(prefix, "3-entry", purpose=purpose, leg=leg, attempt=attempt)
                assert made.isalnum() and made.isascii() and len(made) <= 28 and made[0].isalpha()
                assert is_ours(made, prefix)
                seen.add(made)
    assert len(seen) == len(PURPOSES) * 3 * 20


def test_retries_of_ccxt_are_refused():
    async def main(clock):
        from basis_bt.live.ccxt_venue import CcxtVenue
        from basis_bt.live.fake.clients import loopback_client

        client = loopback_client("binance", "http://127.0.0.1:1/binance", clock, maxRetriesOnFailure=2)
        with pytest.raises(ConfigError, match="maxRetriesOnFailure"):
            CcxtVenue("binance", client, clock=clock)
        await client.close()

    run_virtual(main)


# -- secrets -----------------------------------------------------------------------------------------------------------


def assert_no_secret(error, text=""):
    """Not in the message, not in what a traceback of the whole chain shows."""
    text += str(error) + repr(error) + "".join(traceback.format_exception(error))
    lines = [line for line in text.splitlines() if "loopback_client" not in line]
    for secret in SECRETS:
        assert secret not in "\n".join(lines), secret


TRANSPORT = [Fault(kind=kind, seconds=30.0, status=502) for kind in LOST if kind != "late"] + [
    Fault(kind="status", status=503), Fault(kind="refuse", reason="key"), Fault(kind="refuse", reason="busy"),
    Fault(kind="down", seconds=0.1),
]  # fmt: skip


@pytest.mark.parametrize("venue", VENUES)
def test_no_error_of_any_request_tells_a_secret(venue, caplog, capfd):
    """Binance has its signature in the address of every question, and ccxt puts addresses into its errors."""
    caplog.set_level(logging.DEBUG)

    async def main(clock):
        async with room(clock, (venue, venue)) as r:
            v, perp = r.venues[venue], f"perp:{venue}:BTC-USDT"
            one = order(perp)
            await v.send(one)
            questions = {
                "balances": v.balances, "positions": v.positions, "open_orders": v.open_orders,
                "find": lambda: v.find(one), "trades": lambda: v.trades(perp, since_us=0),
                "funding": lambda: v.funding_payments(perp, since_us=0), "cancel": lambda: v.cancel(one, "1"),
                "transfer": lambda: v.transfer("USDT", 1.0, source="spot", target="perp"),
                "create": lambda: v.send(order(perp, client_order_id="bb1e0secret")),
            }  # fmt: skip
            told = 0
            for fault in TRANSPORT:
                for question in questions.values():
                    r.fake.plan = FaultPlan([FaultRule(fault=fault, count=3)])
                    await clock.sleep(0.2)
                    try:
                        await question()
                    except (VenueDown, OrderUnknown, OrderRefused) as error:
                        assert_no_secret(error)
                        told += 1
            assert told > len(TRANSPORT) * len(questions) / 2
            await r.fake.stop()  # nobody listens any more
            for question in questions.values():
                with pytest.raises((VenueDown, OrderUnknown)) as caught:
                    await question()
                assert_no_secret(caught.value)

    run_virtual(main)
    out = capfd.readouterr()
    assert_no_secret(ValueError(), out.out + out.err + caplog.text)


@pytest.mark.parametrize("pair", [("binance", "binance"), ("bybit", "okx")])
def test_journal_and_log_of_a_session_under_fire_tell_no_secret(pair, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)

    async def main(clock):
        async with room(clock, pair, folder=tmp_path / "journal") as r:
            r.fake.plan = FaultPlan([
                FaultRule(fault=fault, operation=name)
                for name in ("create", "find", "trades", "positions", "balances") for fault in TRANSPORT[:4]
            ])  # fmt: skip
            await r.enter(0.05)
            await r.watch(5.0)
            await r.leave()

    run_virtual(main)
    out = capfd.readouterr()
    files = [path.read_bytes() for path in (tmp_path / "journal").iterdir()]
    assert files and not any(b"loopback" in one or b"signature" in one for one in files)
    assert_no_secret(ValueError(), out.out + out.err + caplog.text)
