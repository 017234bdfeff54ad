"""What is checked before an order leaves: books, lots, routes, limits, styles, and the section ``[live]`` itself."""

import dataclasses
import json
import math
import re
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from basis_bt.core.live_models import Account, Execution, Limits, Live
from basis_bt.core.units import US_PER_DAY, US_PER_HOUR, US_PER_MINUTE
from basis_bt.live.amounts import (
    Denomination,
    contracts_of,
    convert,
    lots_down,
    lots_up,
    sized,
    tick_price,
)
from basis_bt.live.book_check import REASONS, check_book, check_minimums, common_quantity, walk
from basis_bt.live.guard import RiskGuard, resting_reason
from basis_bt.live.orders import PURPOSES
from basis_bt.live.routing import aggregate, best_venue, latency_cost_bps
from basis_bt.live.styles import choose_style, limit_price, plan_order, protected_price, twap_slices
from basis_bt.live.venue import Book, Contract

RANDOM = settings(max_examples=150, deadline=None, derandomize=True)
NOON = 20_000 * US_PER_DAY + 12 * US_PER_HOUR
PERP = "perp:binance:BTC-USDT"
LIMITS = Limits(max_notional_usd=10_000.0)
GOLDEN_ASKS = ((100_000.1, 2.0), (100_001.0, 3.0), (100_005.0, 10.0))


def make_book(*, bids=((100_000.0, 5.0),), asks=GOLDEN_ASKS, at_us=NOON, instrument=PERP):
    return Book(instrument=instrument, bids=bids, asks=asks, at_us=at_us)


def make_contract(**changed):
    facts = {
        "instrument": PERP, "venue": "binance", "symbol": "BTCUSDT", "base": "BTC", "quote": "USDT",
        "is_margined": True, "lot_base": 0.001, "tick": 0.1, "min_base": 0.001, "min_notional_usd": 100.0,
        "contract_base": 1.0, "taker_fee_bps": 5.0, "maker_fee_bps": 2.0, "is_fee_in_base": False, "is_trading": True,
    }  # fmt: skip
    return Contract(**{**facts, **changed})


def make_spot(**changed):
    facts = {
        "instrument": "spot:binance:BTC-USDT", "is_margined": False, "lot_base": 0.00001, "tick": 0.01,
        "min_base": 0.00001, "min_notional_usd": 5.0, "taker_fee_bps": 10.0, "is_fee_in_base": True,
    }  # fmt: skip
    return make_contract(**{**facts, **changed})


def okx_perp(**changed):
    """Contracts of 0.01 BTC in steps of 0.01 contracts."""
    return make_contract(
        **{"instrument": "perp:okx:BTC-USDT-SWAP", "venue": "okx", "contract_base": 0.01, "lot_base": 0.01 * 0.01}
        | changed
    )


def checked(book, *, side=1, quantity_base=1.0, now_us=NOON, limits=LIMITS, **kwargs):
    return check_book(book, side=side, quantity_base=quantity_base, now_us=now_us, limits=limits, **kwargs)


# --------------------------------------------------------------------------------------------------------------- books


def test_walking_the_book_gives_the_published_average_and_cost():
    """Numbers by hand: 2 at 100 000.1, 3 at 100 001 and 1 at 100 005, against a mid of 100 000.05."""
    check = checked(make_book(), quantity_base=6.0)
    assert check.average_price == pytest.approx((2 * 100_000.1 + 3 * 100_001 + 100_005) / 6, rel=1e-15)
    assert check.slippage_bps == pytest.approx(0.131667, abs=5e-7)
    assert check.worst_price == 100_005.0
    assert check.half_spread_bps + check.impact_bps == pytest.approx(check.slippage_bps, abs=1e-12)
    assert (check.reason, check.recommendation, check.depth_base) == (None, "market", 15.0)


def test_a_mirrored_book_costs_a_sell_what_the_book_costs_a_buy():
    mid = 1_000.0
    asks = [(mid + 1.0, 2.0), (mid + 2.0, 5.0)]
    bids = [(mid - 1.0, 2.0), (mid - 2.0, 5.0)]
    limits = dataclasses.replace(LIMITS, max_slippage_bps=100.0, min_depth_share=1.0)
    buy, sell = (
        checked(make_book(bids=bids, asks=asks), side=side, quantity_base=4.0, limits=limits) for side in (1, -1)
    )
    assert buy.slippage_bps == pytest.approx(sell.slippage_bps, abs=1e-9)
    assert buy.liquidity_score == pytest.approx(sell.liquidity_score, abs=1e-9)


def test_a_thin_book_is_refused_with_depth_need_and_leg():
    check = checked(make_book(asks=((100_000.1, 0.01),)), quantity_base=0.05)
    assert check.reason == "thin_book"
    assert all(part in check.sentence for part in (PERP, "0.01", "0.05", "ask", "50 %"))
    assert check.average_price is None and check.recommendation == "split" and check.liquidity_score == 0.0


def test_a_wide_spread_is_refused_with_the_measured_spread():
    book = make_book(bids=((99_600.0, 5.0),), asks=((100_400.0, 5.0),))
    check = checked(book, limits=dataclasses.replace(LIMITS, max_spread_bps=10.0))
    assert check.reason == "wide_spread" and "80.00 bps" in check.sentence and "10 bps" in check.sentence
    assert check.recommendation == "limit"


def test_a_spread_that_equals_the_limit_passes():
    book = make_book(bids=((99_750.0, 5.0),), asks=((100_250.0, 5.0),))
    assert checked(book, limits=dataclasses.replace(LIMITS, max_slippage_bps=25.0)).reason is None


@pytest.mark.parametrize("age_s, reason", [(5.0, None), (5.1, "stale_book"), (30.0, "stale_book")])
def test_a_book_over_its_age_is_refused(age_s, reason):
    check = checked(make_book(at_us=NOON - round(age_s * 1e6)))
    assert check.reason == reason and check.age_s == age_s
    assert reason is None or f"{age_s:.1f} s" in check.sentence


def test_a_book_that_has_not_changed_is_as_old_as_its_last_change():
    assert checked(make_book(at_us=NOON), last_change_us=NOON - 30_000_000).reason == "stale_book"
    assert checked(make_book(at_us=NOON - 30_000_000), last_change_us=NOON).reason == "stale_book"


def test_a_book_from_the_future_is_refused_since_its_age_cannot_be_told():
    check = checked(make_book(at_us=NOON + 60_000_000))
    assert check.reason == "stale_book" and "future" in check.sentence and check.age_s == 0.0
    assert checked(make_book(at_us=NOON + 500_000)).reason is None


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("empty", [{"bids": ()}, {"asks": ()}, {"bids": (), "asks": ()}])
def test_an_empty_side_is_refused_whichever_side_is_taken(empty, side):
    check = checked(make_book(**empty), side=side)
    assert (check.reason, check.mid, check.spread_bps, check.recommendation) == ("empty_book", None, None, "wait")
    assert all(name in check.sentence for name in empty)


@pytest.mark.parametrize("bid", [100_000.1, 100_010.0])
def test_a_locked_or_crossed_book_is_refused(bid):
    check = checked(make_book(bids=((bid, 5.0),)))
    assert (check.reason, check.recommendation) == ("crossed_book", "wait")


def test_slippage_over_the_limit_recommends_a_split_and_one_from_the_spread_a_limit():
    deep = make_book(asks=((100_000.1, 1.0), (100_500.0, 20.0)))
    check = checked(deep, quantity_base=5.0)
    assert (check.reason, check.recommendation) == ("slippage", "split")
    assert f"{check.slippage_bps:.2f} bps" in check.sentence and "20 bps" in check.sentence
    assert check.near_depth_base == 1.0
    wide = make_book(bids=((99_760.0, 50.0),), asks=((100_240.0, 50.0),))
    assert checked(wide).recommendation == "limit"


def test_the_liquidity_score_is_the_room_under_the_nearest_limit():
    book = make_book(bids=((9_999.0, 10.0),), asks=((10_001.0, 10.0),))  # spread 2 of 50, slippage 1 of 20 bps
    assert checked(book, quantity_base=0.01).liquidity_score == pytest.approx(95.0, abs=1e-9)
    assert checked(book, quantity_base=2.5).liquidity_score == pytest.approx(50.0, abs=1e-9)  # half of what is allowed
    assert checked(book, quantity_base=5.0).liquidity_score == 0.0


def test_nothing_costs_nothing_and_a_negative_quantity_is_refused():
    check = checked(make_book(), quantity_base=0.0)
    assert check.impact_bps == 0.0 and check.reason is None
    for quantity in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="quantity"):
            checked(make_book(), quantity_base=quantity)


anything = st.one_of(st.floats(), st.floats(0.5, 2.0), st.sampled_from([0.0, -1.0, 1e308, 1e-308]))
levels = st.lists(st.tuples(anything, anything), max_size=5)


@RANDOM
@given(
    bids=levels,
    asks=levels,
    side=st.sampled_from([1, -1]),
    quantity=st.floats(0.0, 1e6),
    age_us=st.integers(-(10**8), 10**8),
)
def test_no_book_divides_by_zero_or_lets_a_nan_out(bids, asks, side, quantity, age_us):
    check = checked(make_book(bids=bids, asks=asks), side=side, quantity_base=quantity, now_us=NOON + age_us)
    for value in dataclasses.asdict(check).values():
        assert not isinstance(value, float) or math.isfinite(value)
    assert not re.search(r"\b(nan|inf)\b", check.sentence)
    assert check.reason in (None, *REASONS) and (check.reason is None) == (check.sentence == "")
    assert 0.0 <= check.liquidity_score <= 100.0
    if check.reason is None:
        assert check.slippage_bps is not None and check.recommendation == "market"


positive_levels = st.lists(st.tuples(st.floats(1.0, 2.0), st.floats(0.01, 10.0)), min_size=1, max_size=6)


@RANDOM
@given(asks=positive_levels, small=st.floats(0.001, 5.0), factor=st.floats(1.0, 10.0))
def test_a_larger_order_never_gets_a_better_average(asks, small, factor):
    asks = sorted(asks)
    few, many = walk(asks, small), walk(asks, small * factor)
    if many is not None:
        assert few is not None and many[0] >= few[0] * (1 - 1e-12)
        assert asks[0][0] <= many[0] <= many[1] * (1 + 1e-12)


# ---------------------------------------------------------------------------------------------------------------- lots


def test_okx_contracts_are_rounded_before_they_are_cut_off():
    assert 0.0503 / 0.01 < 5.03  # which would become 5.02
    assert contracts_of(0.0503, okx_perp()) == 5.03


@pytest.mark.parametrize(
    "spot, perp, legs",
    [
        (make_spot(is_fee_in_base=False), make_contract(), (0.05, 0.05)),
        (make_spot(is_fee_in_base=False, lot_base=0.000001), make_contract(), (0.05, 0.05)),
        (make_spot(is_fee_in_base=False), okx_perp(), (0.0503, 0.0503)),
        (make_spot(), make_contract(), (0.05006, 0.05)),  # 0.05 / 0.999 = 0.05005005 bought, 0.05000994 arrives
        (make_spot(), okx_perp(), (0.05036, 0.0503)),
    ],
)
def test_both_legs_are_floored_to_the_common_lot(spot, perp, legs):
    common = common_quantity(0.05037, [spot, perp], [1.0, -1.0])
    assert common.order_base == legs
    assert common.position_base == (legs[1], -legs[1])
    assert check_minimums([spot, perp], common.order_base, [50_000.0, 50_000.0]) is None


def test_a_fee_in_base_is_paid_by_buys_only():
    common = common_quantity(0.05037, [make_spot(), make_contract()], [-1.0, 1.0])
    assert common.order_base == (0.05, 0.05) and common.position_base == (-0.05, 0.05)


@pytest.mark.parametrize("quantity", [-1.0, math.nan, math.inf])
def test_a_combo_quantity_is_a_number_of_at_least_zero(quantity):
    with pytest.raises(ValueError, match="quantity"):
        common_quantity(quantity, [make_spot(), make_contract()], [1.0, -1.0])


def test_whole_lots_stay_whole_where_the_quotient_is_off_by_more_than_the_tolerance():
    assert 114.0 / 1e-5 == 11_399_999.999999998  # one float under, which is 1.9e-9 of a lot
    assert lots_down(114.0, 1e-5) == 114.0 == lots_up(114.0, 1e-5)


def test_an_open_breaker_is_never_shortened():
    guard = make_guard()
    guard.open_breaker(NOON, "first")
    guard.open_breaker(NOON - 30 * US_PER_MINUTE, "by a clock that went back")
    assert guard.is_open(NOON + 60 * US_PER_MINUTE - 1) and not guard.is_open(NOON + 60 * US_PER_MINUTE)


def test_incidents_are_all_kept_in_an_open_breaker():
    guard = make_guard()
    for reason in ("first", "second", "first"):
        guard.open_breaker(NOON, reason)
    assert entry(guard).endswith("first; second")


def test_lots_that_do_not_nest_have_a_common_multiple():
    odd, even = make_contract(lot_base=0.0003), make_contract(lot_base=0.0002)
    assert common_quantity(0.0017, [odd, even], [1.0, -1.0]).order_base == (0.0012, 0.0012)


def test_ratios_without_a_common_lot_leave_less_than_a_lot_between_legs():
    common = common_quantity(0.151, [make_contract(), make_contract()], [1.0, -0.97])
    assert common.order_base[0] >= 0.149
    assert abs(common.order_base[1] - 0.97 * common.order_base[0]) < 0.001


LOTS = [0.0, 1e-5, 0.001, 0.01 * 0.01, 0.01, 0.25, 1.0]


@RANDOM
@given(
    quantity=st.floats(0.0, 1e4), lots=st.tuples(st.sampled_from(LOTS), st.sampled_from(LOTS)),
    fee_bps=st.floats(0.0, 50.0),
)  # fmt: skip
@example(quantity=0.05037, lots=(1e-5, 0.001), fee_bps=10.0)
def test_what_arrives_covers_the_hedge_by_less_than_a_lot(quantity, lots, fee_bps):
    spot, perp = make_spot(lot_base=lots[0], taker_fee_bps=fee_bps), make_contract(lot_base=lots[1])
    common = common_quantity(quantity, [spot, perp], [1.0, -1.0])
    bought, hedge = common.order_base
    assert common.position_base == (hedge, -hedge) or hedge == 0.0
    assert hedge <= quantity * (1 + 1e-9)
    assert quantity - hedge <= max(lots) * (1 + 1e-6)
    arrives = bought * (1 - fee_bps / 1e4)
    assert -1e-8 * max(lots[0], 1e-9 * hedge, 1e-12) <= arrives - hedge + 1e-12 * hedge
    assert arrives - hedge < lots[0] + 1e-9 * (hedge + 1.0)
    for order, lot in zip(common.order_base, lots, strict=True):
        assert lots_down(order, lot) == order


@RANDOM
@given(quantity=st.floats(0.0, 1e4), lot=st.sampled_from(LOTS[1:]))
def test_lots_are_exact_decimals_on_either_side(quantity, lot):
    step = Fraction(f"{lot:.12g}")
    down, up = lots_down(quantity, lot), lots_up(quantity, lot)
    assert (Fraction(repr(down)) / step).denominator == 1 and (Fraction(repr(up)) / step).denominator == 1
    slack = max(2e-9 * lot, 2.0**-50 * quantity)  # of what a lot is, or of what a quotient of floats may be off by
    assert down <= quantity + slack and up >= quantity - slack and up - down <= lot * (1 + 1e-6)
    assert lots_down(down, lot) == down == lots_up(down, lot)


@pytest.mark.parametrize(
    "changed, quantity, said",
    [
        ({}, 0.001, ("notional 50.00 USD", "100 USD", PERP)),
        ({"min_base": 0.002, "min_notional_usd": 0.0}, 0.001, ("quantity 0.001", "minimum of 0.002")),
        ({}, 0.0, ("quantity 0",)),
        ({}, 0.0105, ("no multiple of the lot 0.001",)),
        ({"is_trading": False}, 0.01, ("not trading",)),
        ({}, math.nan, ("finite",)),
    ],
)
def test_the_minimums_of_every_leg_are_checked_before_any_order(changed, quantity, said):
    wrong = check_minimums([make_spot(), make_contract(**changed)], [0.01, quantity], [50_000.0, 50_000.0])
    assert wrong is not None and all(part in wrong for part in said)
    assert "spot:" not in wrong


def test_all_that_is_wrong_is_told_at_once():
    wrong = check_minimums([make_spot(), make_contract()], [0.00001, 0.001], [50_000.0, 50_000.0])
    assert "spot:binance" in wrong and PERP in wrong


# ------------------------------------------------------------------------------------------------------------- amounts


LINEAR, INVERSE = Denomination(contract_base=0.01, lot_contracts=0.01), Denomination(face_usd=100.0, lot_contracts=1.0)


def test_linear_and_inverse_contracts_by_hand():
    assert convert(5.0, source="contracts", target="base", price=50_000.0, denomination=LINEAR) == 0.05
    assert convert(5.0, source="contracts", target="usd", price=50_000.0, denomination=LINEAR) == 2_500.0
    assert convert(5.0, source="contracts", target="base", price=50_000.0, denomination=INVERSE) == 0.01
    assert convert(5.0, source="contracts", target="usd", price=20_000.0, denomination=INVERSE) == 500.0
    assert convert(-0.05, source="base", target="contracts", price=50_000.0, denomination=INVERSE) == -25.0


UNITS = ["usd", "base", "contracts"]


@RANDOM
@given(
    amount=st.floats(-1e6, 1e6), source=st.sampled_from(UNITS), target=st.sampled_from(UNITS),
    price=st.floats(1e-4, 1e6), denomination=st.sampled_from([LINEAR, INVERSE]),
)  # fmt: skip
def test_every_conversion_has_a_way_back(amount, source, target, price, denomination):
    there = convert(amount, source=source, target=target, price=price, denomination=denomination)
    back = convert(there, source=target, target=source, price=price, denomination=denomination)
    assert back == pytest.approx(amount, rel=1e-12, abs=1e-300)


def test_a_position_is_sized_alike_from_all_three_units():
    of = Denomination.of(okx_perp())
    assert of.lot_contracts == 0.01
    assert sized(0.0503, unit="base", price=50_000.0, denomination=of).contracts == 5.03
    assert sized(5.0399, unit="contracts", price=50_000.0, denomination=of).contracts == 5.03
    position = sized(-2_519.0, unit="usd", price=50_000.0, denomination=of)
    assert position.contracts == -5.03 and position.quantity_base == pytest.approx(-0.0503, rel=1e-15)
    inverse = sized(250.0, unit="usd", price=50_000.0, denomination=INVERSE)
    assert inverse.contracts == 2.0 and inverse.notional_usd == pytest.approx(200.0) and inverse.quantity_base == 0.004


@pytest.mark.parametrize("amount, price", [(math.nan, 1.0), (math.inf, 1.0), (1.0, 0.0), (1.0, -1.0), (1.0, math.nan)])
def test_no_order_comes_of_a_number_that_is_none(amount, price):
    with pytest.raises(ValueError, match="amount|price"):
        convert(amount, source="usd", target="base", price=price, denomination=LINEAR)


@pytest.mark.parametrize(
    "facts", [{}, {"contract_base": 1.0, "face_usd": 1.0}, {"face_usd": 0.0}, {"contract_base": math.nan}]
)
def test_a_contract_is_worth_one_thing(facts):
    with pytest.raises(ValueError, match="contract"):
        Denomination(**facts)


# -------------------------------------------------------------------------------------------------------------- routes


CHEAP = {"binance": 5.0, "okx": 5.0}
SAME = {"binance": 0.0, "okx": 0.0}


def two_books(**okx):
    binance = make_book(bids=((99.0, 10.0),), asks=((100.0, 1.0), (102.0, 10.0)))
    return {"binance": binance, "okx": make_book(**{"bids": ((99.0, 10.0),), "asks": ((101.0, 5.0),)} | okx)}


def routed(books, *, side=1, quantity_base=3.0, fees_bps=CHEAP, latency_ms=SAME, day_volatility_pct=2.5):
    return best_venue(
        books, side=side, quantity_base=quantity_base, fees_bps=fees_bps, latency_ms=latency_ms,
        day_volatility_pct=day_volatility_pct,
    )  # fmt: skip


def test_latency_costs_the_mean_absolute_move():
    """Published: 2.5 % a day is 0.851 bps per root second; 200 ms are 0.303 bps."""
    assert latency_cost_bps(latency_ms=1_000.0, day_volatility_pct=2.5) / math.sqrt(2 / math.pi) == pytest.approx(
        0.851, abs=5e-4
    )
    assert latency_cost_bps(latency_ms=200.0, day_volatility_pct=2.5) == pytest.approx(0.303, abs=5e-4)
    assert latency_cost_bps(latency_ms=0.0, day_volatility_pct=2.5) == 0.0


def test_levels_are_merged_with_their_venues():
    whole = aggregate(two_books())
    assert [(level.price, level.venue) for level in whole.asks] == [
        (100.0, "binance"),
        (101.0, "okx"),
        (102.0, "binance"),
    ]
    assert [level.venue for level in whole.bids] == ["binance", "okx"]
    assert whole.mid == 99.5


def test_the_best_venue_depends_on_the_size():
    assert routed(two_books(), quantity_base=1.0).best.venue == "binance"
    assert routed(two_books(), quantity_base=3.0).best.venue == "okx"
    assert routed(two_books(), quantity_base=8.0).best.venue == "binance"  # okx holds 5
    assert routed(two_books(), quantity_base=12.0).best is None


def test_fees_and_latency_are_in_the_price():
    books = {"binance": make_book(), "okx": make_book()}
    assert routed(books, fees_bps={"binance": 5.0, "okx": 4.0}).best.venue == "okx"
    slow = routed(books, latency_ms={"binance": 300.0, "okx": 20.0})
    assert [one.venue for one in slow.venues] == ["okx", "binance"]
    cost = slow.venues[0]
    assert cost.all_in_price == pytest.approx(cost.average_price * (1 + (5.0 + cost.latency_bps) / 1e4), rel=1e-15)


def test_a_fee_makes_a_sell_receive_less():
    books = {"binance": make_book(), "okx": make_book()}
    best = routed(books, side=-1, fees_bps={"binance": 5.0, "okx": 4.0}).best
    assert best.venue == "okx" and best.all_in_price == pytest.approx(100_000.0 * (1 - 4.0 / 1e4), rel=1e-15)
    assert best.cost_bps == pytest.approx(4.0 + 0.005, abs=1e-4)


def test_a_split_takes_the_cheapest_levels_of_all():
    route = routed(two_books(), quantity_base=3.0, fees_bps={"binance": 0.0, "okx": 0.0})
    assert [(one.venue, one.quantity_base, one.average_price) for one in route.split] == [
        ("binance", 1.0, 100.0), ("okx", 2.0, 101.0),
    ]  # fmt: skip
    assert route.split_price == pytest.approx(302.0 / 3.0, rel=1e-15)
    assert route.split_cost_bps == pytest.approx(1e4 * (302.0 / 3.0 / 99.5 - 1.0), rel=1e-12)
    assert routed(two_books(), quantity_base=20.0).unfilled_base == 4.0


def test_a_venue_without_a_book_is_last_and_never_taken():
    route = routed(two_books(asks=()), quantity_base=0.5)
    assert route.best.venue == "binance" and route.venues[1].all_in_price is None
    assert [one.venue for one in route.split] == ["binance"]
    none = routed({"okx": make_book(asks=(), bids=())})
    assert none.best is None and none.split == () and none.split_price is None and none.unfilled_base == 3.0


@RANDOM
@given(
    first=positive_levels, second=positive_levels, side=st.sampled_from([1, -1]), quantity=st.floats(0.01, 20.0),
    fees=st.tuples(st.floats(-2.0, 20.0), st.floats(-2.0, 20.0)), latency=st.floats(0.0, 500.0),
)  # fmt: skip
def test_a_split_is_never_dearer_than_the_best_venue(first, second, side, quantity, fees, latency):
    books = {
        name: make_book(bids=sorted(found, reverse=True), asks=sorted(found))
        for name, found in (("binance", first), ("okx", second))
    }
    route = routed(
        books, side=side, quantity_base=quantity, fees_bps={"binance": fees[0], "okx": fees[1]},
        latency_ms={"binance": latency, "okx": 10.0},
    )  # fmt: skip
    filled = math.fsum(one.quantity_base for one in route.split)
    assert filled + route.unfilled_base == pytest.approx(quantity, rel=1e-8)
    if route.best is not None:
        assert side * route.split_price <= side * route.best.all_in_price + 1e-9
        assert route.unfilled_base == 0.0
    ranked = [side * one.all_in_price for one in route.venues if one.all_in_price is not None]
    assert ranked == sorted(ranked)


@pytest.mark.parametrize(
    "wrong", [{"side": 0}, {"quantity_base": 0.0}, {"quantity_base": math.nan}, {"day_volatility_pct": -1.0}]
)
def test_a_route_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="side|volatility"):
        routed(two_books(), **wrong)


# --------------------------------------------------------------------------------------------------------------- guard


def entry(guard, now_us=NOON, *, notional=None, **kwargs):
    return guard.entry_reason(
        now_us, notional_by_venue_usd={"binance": 1_000.0} if notional is None else notional, **kwargs
    )


def make_guard(**changed):
    return RiskGuard(dataclasses.replace(LIMITS, **changed), 10_000.0)


@pytest.mark.parametrize(
    "asked, said",
    [
        ({"n_positions": 1}, ("1 positions", "limit is 1")),
        ({"notional": {"binance": 10_001.0}}, ("binance", "10001.00", "10000.00")),
        ({"notional": {"binance": 1.0, "okx": math.nan}}, ("okx", "nan")),
        ({"order_usd": 501.0}, ("501.00", "500.00")),
        ({"data_age_s": 121.0}, ("121.0 s", "120 s")),
        ({"clock_offset_s": -1.5}, ("-1.500 s", "1 s")),
    ],
)
def test_an_entry_over_a_limit_is_refused_with_value_and_limit(asked, said):
    reason = entry(make_guard(max_order_usd=500.0), **asked)
    assert reason is not None and all(part in reason for part in said)


def test_an_entry_at_its_limits_is_allowed():
    guard = make_guard(max_order_usd=500.0, max_positions=2)
    guard.on_positions(1)
    assert entry(guard, notional={"binance": 10_000.0}, order_usd=500.0, data_age_s=120.0, clock_offset_s=1.0) is None
    guard.on_positions(2)
    assert "2 positions" in entry(guard)


def test_limits_by_venue_bind_their_venue():
    guard = make_guard(max_notional_usd={"binance": 100.0, "okx": 5_000.0})
    assert entry(guard, notional={"okx": 5_000.0}) is None
    assert "binance" in entry(guard, notional={"okx": 5_000.0, "binance": 101.0})


def test_a_drawdown_opens_the_breaker_at_ten_percent_of_the_peak():
    guard = make_guard(max_daily_loss_pct=100.0)
    assert guard.on_equity(NOON, 12_000.0) == []
    assert guard.on_equity(NOON, 10_801.0) == []
    (alarm,) = guard.on_equity(NOON, 10_800.0)
    assert alarm.kind == "drawdown" and alarm.is_stop and "10.00 %" in alarm.sentence and "12000.00" in alarm.sentence
    assert "circuit breaker" in entry(guard) and alarm.sentence in entry(guard)


def test_a_loss_of_two_percent_in_a_utc_day_opens_the_breaker():
    guard = make_guard()
    assert guard.on_equity(NOON, 9_900.0) == []
    (alarm,) = guard.on_equity(NOON + US_PER_HOUR, 9_800.0)
    assert alarm.kind == "daily_loss" and "2.00 %" in alarm.sentence


def test_a_new_utc_day_counts_its_loss_anew():
    guard = make_guard()
    guard.on_equity(NOON, 9_850.0)
    tomorrow = NOON + 12 * US_PER_HOUR
    assert guard.on_equity(tomorrow, 9_700.0) == []  # 3 % since yesterday, the first equity of today
    assert guard.on_equity(tomorrow + 1, 9_506.1) == []
    assert guard.on_equity(NOON, 9_506.1) == []  # a clock that goes back does not begin yesterday again
    assert guard.day_start_usd == 9_700.0
    assert [alarm.kind for alarm in guard.on_equity(tomorrow + 2, 9_506.0)] == ["daily_loss"]


def test_a_loss_is_told_once_a_cooldown_and_is_not_forgiven_by_it():
    guard = make_guard()
    assert len(guard.on_equity(NOON, 9_700.0)) == 1
    assert guard.on_equity(NOON + 1, 9_690.0) == []
    later = NOON + 60 * US_PER_MINUTE
    assert not guard.is_open(later)
    assert len(guard.on_equity(later, 9_690.0)) == 1 and guard.is_open(later)
    assert guard.on_equity(NOON + US_PER_DAY, 9_690.0) == []


@pytest.mark.parametrize("equity", [math.nan, math.inf, -1.0])
def test_an_equity_that_cannot_be_opens_the_breaker(equity):
    guard = make_guard()
    assert guard.on_equity(NOON, equity) and guard.is_open(NOON)
    json.dumps(guard.to_state(), allow_nan=False)


def test_five_failed_orders_within_an_hour_open_the_breaker():
    guard = make_guard()
    for i in range(4):
        assert guard.on_failed_order(NOON + i) == []
    assert guard.on_failed_order(NOON + US_PER_HOUR) == []  # the first one is an hour old
    (alarm,) = guard.on_failed_order(NOON + US_PER_HOUR)
    assert alarm.kind == "failed_orders" and "5 orders" in alarm.sentence
    assert entry(guard, NOON + US_PER_HOUR) is not None


def test_alarms_of_funding_and_data_age_stop_nothing_by_themselves():
    guard = make_guard()
    assert guard.on_funding_rate(NOON, PERP, 0.0049) == []
    for rate in (0.005, -0.0051, math.nan):
        (alarm,) = guard.on_funding_rate(NOON, PERP, rate)
        assert alarm.kind == "funding_rate" and not alarm.is_stop and PERP in alarm.sentence
    assert guard.on_data_age(NOON, PERP, 30.0) == []
    assert [alarm.is_stop for alarm in guard.on_data_age(NOON, PERP, 31.0)] == [False]
    assert [alarm.is_stop for alarm in guard.on_data_age(NOON, PERP, 121.0)] == [True]
    assert entry(guard) is None


def test_only_a_person_ends_what_needs_a_reset():
    guard = make_guard()
    guard.on_equity(NOON, 8_000.0)
    guard.open_breaker(NOON, "rollback failed, 0.05 BTC naked", needs_reset=True)
    guard.open_breaker(NOON + 1, "again")  # which does not weaken it
    late = NOON + 400 * US_PER_DAY
    assert "a person resets it" in entry(guard, late) and "0.05 BTC" in entry(guard, NOON)
    with pytest.raises(ValueError, match="person"):
        guard.reset(" ", late)
    guard.reset("ada", late)
    assert entry(guard, late) is None
    assert guard.on_equity(late, 7_900.0) == []  # counted from the equity at the reset
    assert guard.to_state()["resets"][0]["by"] == "ada"


events = st.one_of(
    st.tuples(st.just("equity"), st.floats(5_000.0, 15_000.0)),
    st.tuples(st.just("failed"), st.none()),
    st.tuples(st.just("halt"), st.none()),
    st.tuples(st.just("trip"), st.none()),
    st.tuples(st.just("reset"), st.none()),
    st.tuples(st.just("restart"), st.none()),
)


@RANDOM
@given(st.lists(st.tuples(st.integers(1, 40 * US_PER_MINUTE), events), max_size=40))
def test_no_entry_while_the_breaker_is_open_exits_always_and_a_restart_changes_nothing(steps):
    guard, now_us, blocked_until, is_halted = make_guard(), NOON, 0, False
    for wait_us, (event, value) in steps:
        now_us += wait_us
        alarms = []
        if event == "equity":
            alarms = guard.on_equity(now_us, value)
        elif event == "failed":
            alarms = guard.on_failed_order(now_us)
        elif event == "halt":
            alarms, is_halted = [guard.open_breaker(now_us, "halted", needs_reset=True)], True
        elif event == "trip":
            alarms = [guard.open_breaker(now_us, "tripped")]
        elif event == "reset":
            guard.reset("ada", now_us)
            blocked_until, is_halted = 0, False
        else:
            state = json.loads(json.dumps(guard.to_state(), allow_nan=False))
            guard = RiskGuard.from_state(state, guard.limits, 10_000.0)
            assert guard.to_state() == state
        if any(alarm.is_stop for alarm in alarms):
            blocked_until = max(blocked_until, now_us + 60 * US_PER_MINUTE)
        is_blocked = is_halted or now_us < blocked_until
        assert (entry(guard, now_us) is not None) == is_blocked == guard.is_open(now_us)
        assert guard.allows("entry", now_us) == (not is_blocked)
        assert all(guard.allows(purpose, now_us) for purpose in PURPOSES if purpose != "entry")


def test_a_state_of_another_version_is_refused():
    with pytest.raises(ValueError, match="version"):
        RiskGuard.from_state({"version": 0}, LIMITS, 10_000.0)
    with pytest.raises(ValueError, match="capital"):
        RiskGuard(LIMITS, 0.0)


@pytest.mark.parametrize(
    "spread_bps, age_s, said",
    [
        (20.0, 60.0, None),
        (20.1, 1.0, "20.10 bps"),
        (1.0, 60.5, "60.5 s"),
        (None, 1.0, "no spread"),
        (math.nan, 1.0, "no spread"),
    ],
)
def test_a_resting_order_is_cancelled_when_spread_or_age_is_passed(spread_bps, age_s, said):
    reason = resting_reason(spread_bps=spread_bps, age_s=age_s, max_spread_bps=20.0, max_age_s=60.0)
    assert reason is None if said is None else said in reason


# -------------------------------------------------------------------------------------------------------------- styles


@pytest.mark.parametrize(
    "volatility, spread, quantity, style",
    [
        (2.1, 1.0, 1.0, "limit"),
        (2.1, 60.0, 1.0, "limit"),
        (2.0, 50.0, 1.0, "market"),
        (1.0, 50.1, 1.0, "protected"),
        (1.0, math.nan, 1.0, "protected"),
        (None, 1.0, 6.0, "protected"),
        (math.nan, 1.0, 5.0, "market"),
    ],
)
def test_the_adaptive_style_follows_volatility_spread_and_depth(volatility, spread, quantity, style):
    chosen, why = choose_style(
        minute_volatility_pct=volatility, spread_bps=spread, quantity_base=quantity, depth_base=10.0,
        min_depth_share=0.5, execution=Execution(),
    )  # fmt: skip
    assert chosen == style and why


def test_limits_are_rounded_to_the_tick_on_the_passive_side():
    assert limit_price(side=1, mid=100.0, offset_bps=1.0, tick=0.05) == 99.95
    assert limit_price(side=-1, mid=100.0, offset_bps=1.0, tick=0.05) == 100.05
    assert protected_price(side=1, arrival_price=100.0, slippage_limit_bps=33.0, tick=0.25) == 100.25
    assert protected_price(side=-1, arrival_price=100.0, slippage_limit_bps=33.0, tick=0.25) == 99.75
    assert tick_price(0.3, 0.1, is_up=True) == tick_price(0.3, 0.1, is_up=False) == 0.3


@RANDOM
@given(
    mid=st.floats(0.01, 1e5), bps=st.floats(0.0, 500.0), side=st.sampled_from([1, -1]),
    tick=st.sampled_from([1e-4, 0.01, 0.05]),
)  # fmt: skip
def test_rounding_never_makes_an_order_pay_more(mid, bps, side, tick):
    slack = 1e-6 * tick + 1e-12 * mid
    passive = limit_price(side=side, mid=mid, offset_bps=bps, tick=tick)
    assert 0.0 <= side * (mid * (1 - side * bps / 1e4) - passive) + slack < tick + 2 * slack
    protected = protected_price(side=side, arrival_price=mid, slippage_limit_bps=bps, tick=tick)
    assert 0.0 <= side * (mid * (1 + side * bps / 1e4) - protected) + slack < tick + 2 * slack


def plan(
    style, *, quantity=0.05, side=1, bid=50_000.0, ask=50_000.1, volatility=None, depth=1.0, contract=None, **execution
):
    return plan_order(
        quantity, side=side, contract=contract or make_contract(), arrival_price=50_000.0, best_bid=bid, best_ask=ask,
        depth_base=depth, min_depth_share=0.5, minute_volatility_pct=volatility,
        execution=Execution(style=style, **execution),
    )  # fmt: skip


@pytest.mark.parametrize(
    "style, facts, kind, price, post_only, fallback, timeout_s",
    [
        ("market", {}, "market", None, False, None, 10.0),
        ("limit", {}, "limit", 49_995.0, False, None, 30.0),
        ("limit_then_market", {}, "limit", 49_995.0, False, "market", 30.0),
        ("post_only", {"limit_offset_bps": 0.0}, "limit", 50_000.0, True, None, 30.0),
        ("post_only", {"limit_offset_bps": 0.0, "side": -1}, "limit", 50_000.1, True, None, 30.0),
        ("adaptive", {}, "market", None, False, None, 10.0),
        ("adaptive", {"volatility": 3.0}, "limit", 49_995.0, False, "market", 30.0),
        ("adaptive", {"bid": 49_500.0}, "limit", 50_500.0, False, None, 10.0),
        ("adaptive", {"depth": 0.09, "side": -1}, "limit", 49_500.0, False, None, 10.0),
    ],
)
def test_every_style_is_one_plan_of_the_whole_quantity(style, facts, kind, price, post_only, fallback, timeout_s):
    (order,) = plan(style, **facts)
    assert (order.quantity_base, order.kind, order.limit_price) == (0.05, kind, price)
    assert (order.post_only, order.fallback, order.timeout_s, order.after_s) == (post_only, fallback, timeout_s, 0.0)


def test_twap_slices_are_even_in_time_and_differ_by_a_lot_at_most():
    slices = plan("twap", quantity=0.052)
    assert [part.quantity_base for part in slices] == [0.01, 0.01, 0.011, 0.01, 0.011]
    assert [part.after_s for part in slices] == [0.0, 60.0, 120.0, 180.0, 240.0]


def test_twap_takes_fewer_slices_where_the_minimum_notional_asks_for_it():
    slices = plan("twap", quantity=0.005)  # 250 USD, at least 100 each
    assert [part.quantity_base for part in slices] == [0.002, 0.003]
    assert [part.after_s for part in slices] == [0.0, 150.0]
    assert len(plan("twap", quantity=0.001)) == 1
    assert len(plan("twap", quantity=0.005, contract=make_contract(lot_base=0.0, min_base=0.0))) == 2


@RANDOM
@given(
    count=st.integers(1, 10**6), lot=st.sampled_from(LOTS[1:]), n=st.integers(1, 50), least=st.floats(0.0, 1e4),
)  # fmt: skip
def test_twap_slices_add_up_exactly_and_meet_the_minimums(count, lot, n, least):
    quantity = lots_down(count * lot, lot)
    contract = make_contract(lot_base=lot, min_base=lot, min_notional_usd=least)
    slices = twap_slices(quantity, contract=contract, price=100.0, execution=Execution(twap_slices=n))
    parts = [Fraction(repr(part.quantity_base)) for part in slices]
    assert sum(parts) == Fraction(repr(quantity)) and 1 <= len(parts) <= n
    assert max(parts) - min(parts) <= Fraction(f"{lot:.12g}")
    prices = [100.0] * len(slices)
    if len(slices) > 1:
        assert check_minimums([contract] * len(slices), [float(part) for part in parts], prices) is None


@pytest.mark.parametrize("quantity", [0.0, -0.05, math.nan, 0.0005])
def test_a_plan_of_no_whole_lots_is_refused(quantity):
    for style in ("market", "twap"):
        with pytest.raises(ValueError, match="order"):
            plan(style, quantity=quantity)


# ------------------------------------------------------------------------------------------------------- configuration


def read(raw):
    return TypeAdapter(Live).validate_json(json.dumps(raw))


def test_the_section_has_defaults_that_trade_nothing_for_real():
    live = read({})
    assert live == Live()
    assert live.limits.without_notional_limit(["binance", "okx"]) == ["binance", "okx"]
    assert read({"limits": {"max_notional_usd": {"okx": 5.0}}}).limits.without_notional_limit(["binance", "okx"]) == [
        "binance"
    ]
    assert Limits(max_notional_usd=5.0).without_notional_limit(["binance"]) == []


@pytest.mark.parametrize(
    "name", ["apiKey", "secret", "password", "passphrase", "privateKey", "api_key", "X-API-SECRET"]
)
@pytest.mark.parametrize("nest", [lambda table: table, lambda table: {"headers": [table]}])
def test_a_credential_in_toml_is_refused_and_not_repeated(name, nest):
    with pytest.raises(ValidationError) as refused:
        read({"venues": {"binance": {"options": nest({name: "hush-hush"})}}})
    sentence = str(refused.value.errors()[0]["ctx"]["error"])
    assert "environment or the keyring" in sentence and name in sentence and "hush" not in sentence


@pytest.mark.parametrize("found", ["hush-hush", "aB3kfjQ", "9ABC", "K" * 65])
def test_a_key_where_its_variable_should_be_is_refused_and_not_repeated(found):
    with pytest.raises(ValueError, match="key_env must be the name") as refused:
        Account(key_env=found)
    assert found not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "ftp://127.0.0.1",
        "https://",
        "127.0.0.1:80",
        "https://u:hush@host",
        "http://[::1",
        "http://127.0.0.1:x",
    ],
)
def test_an_address_that_would_leak_or_lead_nowhere_is_refused(url):
    with pytest.raises(ValueError, match="base_url") as refused:
        Account(base_url=url)
    assert "hush" not in str(refused.value)


def test_an_account_names_its_variables_by_venue():
    account = read({"venues": {"okx": {"secret_env": "MY_SECRET", "base_url": "http://127.0.0.1:8080"}}}).account("okx")
    assert account.variables("okx") == {
        "key": "BASIS_BT_OKX_KEY", "secret": "MY_SECRET", "password": "BASIS_BT_OKX_PASSWORD",
    }  # fmt: skip


def test_timeouts_of_a_venue_replace_those_of_the_section():
    live = Live(venues={"okx": Account(request_timeout_s=1.0, leg_timeout_s=2.0)})
    assert (live.request_timeout_s("okx"), live.leg_timeout_s("okx")) == (1.0, 2.0)
    assert (live.request_timeout_s("binance"), live.leg_timeout_s("binance")) == (10.0, 10.0)


def test_paper_balances_split_the_capital_or_are_given():
    venues = ["binance", "okx", "binance"]
    assert Live().paper_balances_usd(venues, capital_usd=100.0) == {"binance": 50.0, "okx": 50.0}
    assert Live(start_with_usd=7.0).paper_balances_usd(venues, capital_usd=100.0) == {"binance": 7.0, "okx": 7.0}
    given_ = Live(start_with_usd={"okx": 7.0}).paper_balances_usd(venues, capital_usd=100.0)
    assert given_ == {"binance": 0.0, "okx": 7.0}


@pytest.mark.parametrize(
    "model, wrong, said",
    [
        (Limits, {"max_positions": 0}, "max_positions"),
        (Limits, {"max_notional_usd": {"binance": 0.0}}, "max_notional_usd.binance"),
        (Limits, {"max_notional_usd": {"Binance": 1.0}}, "lower-case"),
        (Limits, {"data_age_stop_s": 10.0}, "data_age_warn_s"),
        (Limits, {"max_drawdown_pct": math.nan}, "max_drawdown_pct"),
        (Limits, {"min_depth_share": 1.5}, "min_depth_share"),
        (Execution, {"look_up_pauses_s": []}, "look_up_pauses_s"),
        (Execution, {"look_up_pauses_s": [0.01]}, "look_up_pauses_s"),
        (Execution, {"grace_s": 1.0}, "missing_after_s"),
        (Execution, {"twap_slices": 0}, "twap_slices"),
        (Execution, {"slippage_limit_bps": 0.0}, "slippage_limit_bps"),
        (Account, {"leverage": 0.0}, "leverage"),
        (Account, {"keyring_service": " "}, "keyring_service"),
        (Account, {"options": {"a": math.inf}}, "finite"),
        (Live, {"venues": {"Binance": Account()}}, "lower-case"),
        (Live, {"journal": ""}, "journal"),
        (Live, {"poll_s": 0.0}, "poll_s"),
        (Live, {"start_with_usd": -1.0}, "start_with_usd"),
    ],
)
def test_a_value_that_means_nothing_is_refused_by_its_key(model, wrong, said):
    with pytest.raises(ValueError, match=said):
        model(**wrong)


@pytest.mark.parametrize(
    "raw", [{"limit": {}}, {"execution": {"style": "markt"}}, {"venues": {"okx": {"apiKey": "x"}}}, {"poll_s": "1"}]
)
def test_the_section_is_strict(raw):
    with pytest.raises(ValidationError):
        read(raw)
