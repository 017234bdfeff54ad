"""The oracle's wallets and margin, alone: books, cash, inert settings, and transfers and liquidations by hand."""

import copy
import random

import margin_oracle
import oracles
import pytest
import strategies
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
RANDOM = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
SIGNS = {name: 1.0 if name in ("delta", "basis", "funding") else -1.0 for name in oracles.BOOKS}
RARE = {"transfer", "liquidation"}  # books that do not come of a leg's own fills and settlements


def simulated(case):
    assume(strategies.run_stamps(case))
    return oracles.backtest(**case)


def named(result, *names):
    return [(row["bar"], row["event"], row["quantity"]) for row in result["events"] if row["event"] in names]


def cash_of(fill, case):
    """Cash one fill moves, the fee of a liquidation apart: it is in a book of its own."""
    leg, cost, change = case["legs"][fill["leg"]], case["costs"][fill["leg"]], fill["position_change"]
    if fill["action"] == "liquidation":
        return -change * fill["fill"]
    if cost["fee_in_base"] and leg["kind"] == "spot" and change > 0:
        return -fill["quantity"] * fill["fill"]
    return -change * fill["fill"] - fill["fee"]


# ---------------------------------------------------------------------------------------------------- over all options


@RANDOM
@given(case=strategies.wallet_cases())
def test_twelve_books_are_the_change_of_equity_at_every_bar(case):
    result = simulated(case)
    n_legs, capital = len(case["legs"]), case["size"]["capital_usd"]
    tolerance = 1e-9 * max(1.0, sum(fill["notional"] for fill in result["fills"]))
    prices = [
        oracles.leg_prices(oracles.resample(leg["bars"], leg["step_us"], case["bar_us"]), result["ts_us"])
        for leg in case["legs"]
    ]
    leg_cash, ledger = [0.0] * n_legs, [0.0] * n_legs
    for t, books in enumerate(result["books"]):
        for row in result["funding"]:
            leg_cash[row["leg"]] += row["cash"] if row["bar"] == t else 0.0
        for fill in result["fills"]:
            if fill["bar"] == t:
                leg_cash[fill["leg"]] += cash_of(fill, case)
                ledger[fill["leg"]] += fill["position_change"]
        total = 0.0
        for i in range(n_legs):
            assert list(books[i]) == list(oracles.BOOKS)
            own = sum(SIGNS[name] * value for name, value in books[i].items() if name not in RARE)
            assert abs(leg_cash[i] + result["position"][t][i] * prices[i].close[t] - own) <= tolerance
            assert abs(ledger[i] - result["position"][t][i]) * prices[i].close[t] <= tolerance
            total += own - sum(books[i][name] for name in RARE)
        assert abs(result["equity"][t] - capital - total) <= tolerance
    event(f"liquidations: {min(result['metrics']['n_liquidations'], 3)}")
    event(f"resized: {bool(named(result, 'resize'))}, sent: {any(result['in_flight'])}")


@RANDOM
@given(case=strategies.wallet_cases())
def test_cash_is_in_a_wallet_or_in_flight(case):
    result = simulated(case)
    was_split = case["wallets"]["mode"] == "pooled"
    tolerance = 1e-9 * max(case["size"]["capital_usd"], sum(fill["notional"] for fill in result["fills"]))
    n_wallets = 1 if was_split else len({leg.get("venue", i) for i, leg in enumerate(case["legs"])})
    rows = zip(result["wallet_cash"], result["in_flight"], result["cash"], result["position"], strict=True)
    for wallet_cash, in_flight, cash, position in rows:
        assert len(wallet_cash) == n_wallets
        was_split = was_split or any(value != 0.0 for value in wallet_cash)
        assert in_flight >= 0.0
        if was_split:
            assert abs(sum(wallet_cash) + in_flight - cash) <= tolerance
        else:
            assert (cash, in_flight) == (case["size"]["capital_usd"], 0.0)
            assert not any(position)


@RANDOM
@given(case=strategies.wallet_cases())
def test_a_liquidated_wallet_is_empty_or_better_and_everything_is_sold_soon(case):
    result = simulated(case)
    wallets = oracles.wallet_of_each_leg(case["legs"], case["wallets"]["mode"])
    with_spot = {w for leg, w in zip(case["legs"], wallets, strict=True) if leg["kind"] == "spot"}
    found = [fill for fill in result["fills"] if fill["action"] == "liquidation"]
    assert bool(found) == bool(result["metrics"]["n_liquidations"])
    for fill in found:
        assert result["position"][fill["bar"]][fill["leg"]] == 0.0
        assert case["legs"][fill["leg"]]["kind"] == "perp"
        w = wallets[fill["leg"]]
        assert w in with_spot or result["wallet_cash"][fill["bar"]][w] >= 0.0
    if case["wallets"].get("margin", "venue" if case["wallets"]["mode"] == "segregated" else "none") == "none":
        assert not found
        assert result["metrics"]["min_margin_ratio"] is None
    for row in result["events"]:
        n_left = sum(q != 0.0 for q in result["position"][row["bar"]])
        if row["event"] == "liquidation" and n_left > 0:
            later = [fill["reason"] for fill in result["fills"] if fill["bar"] > row["bar"]]
            assert set(later[:n_left]) <= {"liquidation"}
    event(f"liquidated: {bool(found)}")


@RANDOM
@given(case=strategies.uncertain_cases())
def test_wallets_that_change_nothing_change_no_bit(case):
    plain = simulated(case)
    pooled = simulated(copy.deepcopy(case) | {"wallets": {"mode": "pooled", "transfer_hours": 9.0, "margin": "none"}})
    assert repr(pooled) == repr(plain)
    one = copy.deepcopy(case) | {"wallets": {"mode": "segregated", "margin": "none"}}
    for leg in one["legs"]:
        leg["venue"] = "same"
    one = simulated(one)
    assert one.pop("wallet_cash")[-1:] in ([[0.0]], plain.pop("wallet_cash")[-1:])
    assert repr(one) == repr(plain)


@RANDOM
@given(case=strategies.uncertain_cases())
def test_wallets_apart_without_margin_fill_what_one_pool_fills_in_the_first_trade(case):
    case["rule"] |= {"exit": -1e18, "max_hold_hours": None, "stop_loss_pct": None, "reverse": False}
    case["fills"] |= {"atomicity": "match"}
    pooled = simulated(case)
    wallets = {"mode": "segregated", "margin": "none", "transfer_hours": 9.0}
    apart = simulated(copy.deepcopy(case) | {"wallets": wallets})
    assert len(pooled["trades"]) <= 1
    assert repr(apart["fills"]) == repr(pooled["fills"])
    assert apart["position"] == pooled["position"]
    assert apart["equity"] == pytest.approx(pooled["equity"], rel=1e-12)
    event(f"filled: {bool(pooled['fills'])}")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_place_where_margin_runs_out_is_that_of_a_search(seed):
    rng = random.Random(seed)
    tables = (margin_oracle.BINANCE_BTC, margin_oracle.JUMPING, margin_oracle.BINANCE_SOL)
    holdings, legs, begin, end = [], [], [], []
    for _ in range(rng.randint(1, 4)):
        table, margined = rng.choice(tables), rng.random() < 0.8
        start, move = drawn_price(rng), rng.uniform(0.0, 0.5) * rng.choice((1, -1))
        position = rng.choice((1, -1)) * rng.choice((4e5, 1e6, 3e6)) / start
        weight = 1.0 if margined else rng.choice((0.0, 0.9))
        tiers = [row[:3] for row in table] if margined else None
        holdings.append(oracles.Holding(position, weight, tiers, start, start * (1.0 + move)))
        legs.append((position, weight, margined, table))
        begin.append(start)
        end.append(start * (1.0 + move))
    worth = sum(leg.weight * leg.position * leg.begin for leg in holdings)
    cash = rng.uniform(0.0, 6e5) - worth
    found = oracles.first_shortfall(cash, holdings)
    searched = margin_oracle.scan_crossing(cash, legs, begin, end, steps=500)
    event(f"short: {found is not None}")
    if searched is not None:
        assert found is not None
        assert found <= searched + 1e-9
    if found is not None:
        assert margin_oracle.surplus_on_path(cash, legs, begin, end, found + 1e-7) < 1e-3
        before = [found * k / 50 for k in range(50)] if found > 0 else []
        assert all(margin_oracle.surplus_on_path(cash, legs, begin, end, place) > -1e-3 for place in before)


def drawn_price(rng):
    return rng.choice((100.0, 3_000.0, 60_000.0))


# ------------------------------------------------------------------------------------------------------------- by hand


SPOT_AND_SHORT = (("spot", 1.0, "a"), ("perp", -1.0, "b"))
FLAT_RATE = ((0.0, 0.01, 0.0),)


def carry(rows, *, values, wallets, capital_usd, leverage, tiers=FLAT_RATE, legs=SPOT_AND_SHORT, **more):
    """Legs that all show the same bars (open, high, low, close), an hour each, and cost nothing to trade."""
    bars = [(t * HOUR_US, *row, 1e9) for t, row in enumerate(rows)]
    cost = {"half_spread_bps": 0.0, "fee_bps": 0.0, "fee_in_base": False, "bucket_usd": [], "bucket_bps": [],
            "impact_coef_bps": 0.0, "impact_exponent": 0.5}  # fmt: skip
    return {
        "legs": [
            {"kind": kind, "ratio": ratio, "venue": venue, "bars": bars, "step_us": HOUR_US, "mark_bars": [],
             "mark_step_us": HOUR_US, "settlements": [], "lot": 0.0, "min_notional_usd": 0.0, "tiers": tiers,
             "liquidation_fee_bps": more.get("liquidation_fee_bps", 0.0)}
            for kind, ratio, venue in legs
        ],
        "start_us": 0,
        "end_us": len(rows) * HOUR_US,
        "bar_us": HOUR_US,
        "signal": {"values": values + [None] * (len(rows) - len(values))},
        "rule": {"entry": 1.0, "exit": 0.0, "reverse": False, "min_hold_hours": None, "max_hold_hours": None,
                 "cooldown_hours": None, "stop_loss_pct": None, "max_basis_bps": None},
        "size": {"capital_usd": capital_usd, "allocation": 1.0, "leverage": leverage, "compounding": True},
        "costs": [cost for _ in legs],
        "fills": {"latency_hours": 0.0} | more.get("fills", {}),
        "wallets": wallets,
    }  # fmt: skip


def flat(price):
    return (price, price, price, price)


def books_of(result, t, leg):
    return {name: value for name, value in result["books"][t][leg].items() if abs(value) > 1e-9}


CASE_E_PRICE = 149_180.32786885246  # (501,500 + 1,000,000) / 10.065
BINANCE = [row[:3] for row in margin_oracle.BINANCE_BTC]


def case_e(**more):
    """Ten short at 100,000 with 500,000 in their wallet, and ten in spot elsewhere; the third bar reaches 160,000."""
    rows = [flat(1e5), (1e5, 1.1e5, 1e5, 1.1e5), (1.1e5, 1.6e5, 1.1e5, 1.5e5), flat(1.45e5), flat(1.4e5)]
    return carry(
        rows, values=[None, 1.0], wallets={"mode": "segregated"}, capital_usd=1.5e6, leverage=2.0, tiers=BINANCE, **more
    )


def test_a_short_is_liquidated_at_its_price_and_the_spot_leg_is_sold_at_the_next_open():
    """A fee of 1.25% is 18,647.54; 8,196.72 is all there is, so 10,450.82 are absorbed."""
    result = oracles.backtest(**case_e(liquidation_fee_bps=125.0))
    assert result["position"] == [[0.0, 0.0], [10.0, -10.0], [10.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    closed = result["fills"][2]
    assert (closed["bar"], closed["leg"], closed["action"], closed["side"]) == (2, 1, "liquidation", 1)
    assert (closed["fill"], closed["fee"]) == pytest.approx((CASE_E_PRICE, 18_647.540984))
    assert books_of(result, 2, 1) == pytest.approx({"delta": -491_803.278689, "liquidation": 8_196.721311})
    assert books_of(result, 4, 0) == pytest.approx({"delta": 500_000.0, "delay": 50_000.0})
    assert result["wallet_cash"] == [
        [0.0, 0.0], [0.0, 1.5e6], [0.0, pytest.approx(0.0, abs=1e-6)], [1.45e6, pytest.approx(0.0, abs=1e-6)],
        [1.45e6, pytest.approx(0.0, abs=1e-6)],
    ]  # fmt: skip
    assert named(result, "entry", "liquidation", "exit") == [
        (1, "entry", 10.0), (2, "liquidation", 10.0), (3, "exit", 10.0),
    ]  # fmt: skip
    (trade,) = result["trades"]
    assert (trade["exit_bar"], trade["reason"], trade["pnl"]) == (3, "liquidation", pytest.approx(-50_000.0))
    assert result["direction"] == [0, 1, 1, 0, 0]
    found = result["metrics"]
    assert (found["n_liquidations"], found["liquidation_usd"]) == (1, pytest.approx(8_196.721311))
    assert found["min_margin_ratio"] == pytest.approx(-1e5 / 1.6e6)
    assert found["turnover"] == pytest.approx((1e6 + 1e6 + 10 * CASE_E_PRICE + 1.45e6) / 1.5e6)


def test_a_smaller_fee_leaves_the_rest_of_the_margin():
    result = oracles.backtest(**case_e(liquidation_fee_bps=50.0))
    assert books_of(result, 2, 1)["liquidation"] == pytest.approx(7_459.016393)
    assert result["wallet_cash"][-1] == pytest.approx([1.45e6, 737.704918])


def test_a_gap_beyond_bankruptcy_is_paid_by_the_venue_at_the_open():
    """At an open of 170,000 the wallet of the short is 200,000 under water."""
    case = case_e(liquidation_fee_bps=125.0)
    for leg in case["legs"]:
        leg["bars"][2:] = [(t * HOUR_US, *flat(1.7e5), 1e9) for t in (2, 3, 4)]
    result = oracles.backtest(**case)
    assert result["fills"][2]["fill"] == 1.7e5
    assert books_of(result, 2, 1) == pytest.approx({"delta": -700_000.0, "liquidation": 21_250.0 - 221_250.0})
    assert result["equity"][-1] == pytest.approx(1.7e6)


def test_a_wick_of_the_mark_liquidates_and_one_of_the_trades_does_not():
    case = case_e()
    wick, calm = [(t * HOUR_US, 1e5, 1.5e5 if t == 3 else 1e5, 1e5, 1e5) for t in range(5)], case["legs"][1]
    calm["mark_bars"] = [row if row[0] != 3 * HOUR_US else (row[0], *flat(1e5)) for row in wick]
    assert oracles.backtest(**case)["metrics"]["n_liquidations"] == 0
    calm["mark_bars"] = wick
    assert named(oracles.backtest(**case), "liquidation") == [(3, "liquidation", 10.0)]
    calm["mark_bars"] = [(ts, open_, close) for ts, open_, _high, _low, close in wick]
    assert named(oracles.backtest(**case), "liquidation") == [(2, "liquidation", 10.0)]


def test_a_jump_of_the_rate_inside_a_bar_is_where_margin_runs_out():
    """At 115 the short's notional passes 1,150: 50 of equity against 11.50, and just beyond against 115."""
    tiers = [(0.0, 0.01, 0.0), (1_150.0, 0.1, 0.0)]
    rows = [flat(100.0), (100.0, 116.0, 100.0, 110.0), flat(110.0)]
    wallets = {"mode": "segregated"}
    result = oracles.backtest(
        **carry(rows, values=[None, 1.0], wallets=wallets, capital_usd=1_200.0, leverage=5.0, tiers=tiers)
    )
    assert result["fills"][2]["fill"] == pytest.approx(115.0)
    assert result["wallet_cash"][1][1] == pytest.approx(50.0)


@pytest.mark.parametrize(("haircut", "price"), [(None, 1_200 / 10.1), (0.95, 2_000.0), (1.0, 12_000.0)])
def test_spot_in_the_same_wallet_moves_the_price_by_its_haircut(haircut, price):
    """1,200 in cash after a short sale of 10 at 100 and a purchase of 10: 1,200 - 10 P (1 - h) = 0.1 P."""
    wallets = {"mode": "pooled", "margin": "venue", "spot_collateral": haircut}
    rows = [flat(100.0), (100.0, 13_000.0, 100.0, 120.0), flat(120.0), flat(120.0)]
    result = oracles.backtest(**carry(rows, values=[None, 1.0], wallets=wallets, capital_usd=1_200.0, leverage=5.0))
    assert result["fills"][2]["fill"] == pytest.approx(price)
    assert result["wallet_cash"][1] == pytest.approx([1_200.0 - 10.0 * price])
    assert books_of(result, 1, 1) == pytest.approx({"delta": -10.0 * (price - 100.0)})
    assert result["equity"][-1] == pytest.approx(1_200.0 - 10.0 * price + 10.0 * 120.0)


def test_two_wallets_are_liquidated_in_one_bar_and_the_trade_ends_in_it():
    rows = [flat(100.0), (100.0, 130.0, 100.0, 100.0), flat(100.0)]
    legs = (("perp", -1.0, "a"), ("perp", -2.0, "b"))
    result = oracles.backtest(
        **carry(rows, values=[None, 1.0], wallets={"mode": "segregated"}, capital_usd=600.0, leverage=5.0,
                legs=legs, liquidation_fee_bps=10.0)
    )  # fmt: skip
    assert named(result, "liquidation", "exit") == [(1, "liquidation", 10.0), (1, "liquidation", 20.0)]
    assert [(fill["bar"], fill["leg"], fill["action"]) for fill in result["fills"]][2:] == [
        (1, 0, "liquidation"), (1, 1, "liquidation"),
    ]  # fmt: skip
    price = 1_200 / 10.1
    assert [fill["fill"] for fill in result["fills"]][2:] == pytest.approx([price, price])
    assert (result["trades"][0]["exit_bar"], result["direction"][1]) == (1, 0)
    assert result["wallet_cash"][1] == pytest.approx([10 * price * 0.009, 20 * price * 0.009])


def test_highs_come_before_lows_and_each_leg_goes_its_own_way():
    """One wallet of 240, long 12 at 50 and short 6 at 100: up 40 and 60% it is liquidated, not first down 60 and 5%."""
    case = carry([flat(100.0)] * 4, values=[None, 1.0], wallets={"mode": "segregated"}, capital_usd=240.0, leverage=5.0,
                 legs=(("perp", 2.0, "a"), ("perp", -1.0, "a")), liquidation_fee_bps=100.0)  # fmt: skip
    low, high = [flat(50.0), (50.0, 52.0, 20.0, 50.0)], [flat(100.0), (100.0, 160.0, 95.0, 100.0)]
    for leg, (calm, wild) in zip(case["legs"], (low, high), strict=True):
        leg["bars"] = [(t * HOUR_US, *(wild if t == 2 else calm), 1e9) for t in range(4)]
    result = oracles.backtest(**case)
    # 240 + 12 * 2 * u - 6 * 60 * u = 0.01 * (600 + 24 * u + 600 + 360 * u)
    u = (240 - 12) / (360 - 24 + 3.84)
    assert [fill["fill"] for fill in result["fills"][2:]] == pytest.approx([50 + 2 * u, 100 + 60 * u])
    fees, left = [0.12 * (50 + 2 * u), 0.06 * (100 + 60 * u)], 240 + 24 * u - 360 * u
    assert sum(fees) == pytest.approx(left)  # the fee is the maintenance: all is gone and nothing is absorbed
    assert books_of(result, 2, 0) == pytest.approx({"delta": 24 * u, "liquidation": fees[0]})
    assert books_of(result, 2, 1) == pytest.approx(
        {"delta": -12 * u, "basis": -360 * u + 12 * u, "liquidation": fees[1]}
    )
    for leg in case["legs"]:
        leg["liquidation_fee_bps"] = 200.0
    result = oracles.backtest(**case)
    assert books_of(result, 2, 0)["liquidation"] == pytest.approx(2 * fees[0] - left)
    assert books_of(result, 2, 1)["liquidation"] == pytest.approx(2 * fees[1])


def test_what_was_to_be_closed_is_an_ordinary_position_after_a_liquidation():
    """Spot 10, of which 6 wait to be sold, against a short of 4 that is liquidated in bar 2."""
    rows = [flat(100.0), (100.0, 100.0, 100.0, 101.0), (101.0, 400.0, 101.0, 103.0), flat(105.0), flat(105.0)]
    rows = [(o, max(o, h, c), min(o, low, c), c) for o, h, low, c in rows]
    fills = {"model": "volume", "volume_cap": 1.0, "atomicity": "match", "rollback_delay_hours": 3.0}
    case = carry(
        rows, values=[None, 1.0], wallets={"mode": "segregated"}, capital_usd=1_200.0, leverage=5.0, fills=fills
    )
    case["legs"][1]["bars"] = [(*row[:5], 4.0) for row in case["legs"][1]["bars"]]
    result = oracles.backtest(**case)
    assert result["position"][1:4] == [[10.0, -4.0], [10.0, 0.0], [0.0, 0.0]]
    assert books_of(result, 1, 0) == pytest.approx({"delta": 4.0, "rollback_price": -6.0})
    assert books_of(result, 2, 0) == pytest.approx({"delta": 12.0, "rollback_price": -18.0})
    assert books_of(result, 3, 0) == pytest.approx({"delta": 12.0, "rollback_price": -18.0, "delay": -20.0})
    assert [(row["bar"], row["event"]) for row in result["events"]] == [
        (1, "entry"), (1, "rollback"), (2, "liquidation"), (3, "exit"),
    ]  # fmt: skip


def test_funding_is_paid_before_the_margin_it_breaks():
    """39 at the start of a bar that stands still at 115: 1,200 - 39 - 1,150 = 11 against 11.50."""
    rows = [flat(100.0), (100.0, 115.0, 100.0, 115.0), flat(115.0), flat(115.0)]
    case = carry(rows, values=[None, 1.0], wallets={"mode": "segregated"}, capital_usd=1_200.0, leverage=5.0)
    for paid, n_liquidations in ((38.0, 0), (39.0, 1)):
        case["legs"][1]["settlements"] = [(2 * HOUR_US, -paid / 1_150.0, 115.0, None)]
        assert oracles.backtest(**case)["metrics"]["n_liquidations"] == n_liquidations


def test_a_liquidation_ends_an_entry_whose_other_leg_has_not_come():
    """The perp fills in bar 1 and is liquidated in bar 2, before the spot would fill in bar 3: there is no trade."""
    rows = [flat(100.0), flat(100.0), (100.0, 130.0, 100.0, 100.0), flat(100.0), flat(100.0)]
    case = carry(rows, values=[None, 1.0], wallets={"mode": "segregated"}, capital_usd=1_200.0, leverage=5.0,
                 fills={"latency_hours": [2.0, 0.0]})  # fmt: skip
    result = oracles.backtest(**case)
    assert [(fill["bar"], fill["leg"], fill["action"], fill["trade"]) for fill in result["fills"]] == [
        (1, 1, "entry", 0), (2, 1, "liquidation", 0),
    ]  # fmt: skip
    assert (result["trades"], result["direction"]) == ([], [0] * 5)
    case["fills"]["latency_hours"] = [0.0, 0.0]
    case["fills"] |= {"reject_probability": 0.5, "rollback_delay_hours": 3.0, "seed": seed_that_refuses_spot()}
    result = oracles.backtest(**case)
    assert [(row["bar"], row["event"]) for row in result["events"]] == [(1, "rollback"), (2, "liquidation")]
    assert books_of(result, 2, 1) == pytest.approx({"rollback_price": 10.0 * (1_200 / 10.1 - 100.0)})


def seed_that_refuses_spot():
    return next(s for s in range(99) if oracles.uniform(s, 0, 1, 0, 1) < 0.5 <= oracles.uniform(s, 0, 1, 1, 1))


# ------------------------------------------------------------------------------------------------ transfers, by hand


def squeezed(*, values=(), lot=0.0, **wallets):
    """Ten at 100 with 1,000 and 200 in the wallets; the price opens at 110 and then goes to 125 and back to 112."""
    rows = [flat(100.0), flat(100.0), (110.0, 112.0, 110.0, 111.0), (110.0, 125.0, 110.0, 112.0)] + [flat(112.0)] * 6
    wallets = {"mode": "segregated", "rebalance_below": 0.15} | wallets
    case = carry(rows, values=[None, 1.0, *values], capital_usd=1_200.0, leverage=5.0, wallets=wallets)
    for leg in case["legs"]:
        leg["lot"] = lot
    return oracles.backtest(**case)


def test_a_rebalance_by_hand():
    """At 110 the short has 100 / 1,100: x' = 1,200 / 132, and then 100 dollars are too much with the spot."""
    result = squeezed(transfer_fee_usd=5.0)
    x = 1_200 / 132
    (row,) = [row for row in result["events"] if row["event"] == "resize"]
    assert (row["bar"], row["reason"], row["quantity"]) == (2, "margin", pytest.approx(10 - x))
    assert result["position"][2] == pytest.approx([x, -x])
    assert [(fill["bar"], fill["action"], fill["reference"]) for fill in result["fills"]][2:] == [
        (2, "resize", 110.0), (2, "resize", 110.0),
    ]  # fmt: skip
    assert result["wallet_cash"][1] == [0.0, 1_200.0]
    assert result["wallet_cash"][2] == pytest.approx([0.0, 1_195.0], abs=1e-9)
    assert books_of(result, 2, 1) == pytest.approx({"delta": -110.0 + (10 - x), "transfer": 5.0})
    assert result["equity"][2] == pytest.approx(1_195.0)
    assert result["metrics"]["transfer_usd"] == 5.0
    assert len(result["trades"]) == 1
    assert result["trades"][0]["exit_bar"] is None


def test_the_same_path_is_survived_with_transfers_at_once_and_not_with_six_hours():
    x = 1_200 / 132
    at_once, late = squeezed(transfer_hours=0.0), squeezed(transfer_hours=6.0)
    assert at_once["metrics"]["n_liquidations"] == 0
    assert at_once["position"][-1] == pytest.approx([x, -x])
    assert at_once["equity"][-1] == pytest.approx(1_200.0)
    assert at_once["metrics"]["min_margin_ratio"] == pytest.approx((1_200 - 125 * x) / (125 * x))
    price = 1_100 / (1.01 * x)
    assert named(late, "liquidation", "exit") == [(3, "liquidation", pytest.approx(x)), (4, "exit", pytest.approx(x))]
    assert late["fills"][4]["fill"] == pytest.approx(price)
    assert late["in_flight"] == pytest.approx([0.0, 0.0] + [100.0] * 6 + [0.0, 0.0])
    assert late["wallet_cash"][7] == pytest.approx([112 * x, 0.01 * x * price])
    assert late["wallet_cash"][8] == pytest.approx([112 * x, 0.01 * x * price + 100.0])


def test_what_is_queued_is_dropped_by_a_liquidation():
    """Nothing leaves in bars 2 to 4; the short is liquidated in bar 3."""
    result = squeezed(transfer_halts_us=[(2 * HOUR_US, 5 * HOUR_US)])
    assert len(named(result, "resize")) == len(named(result, "liquidation")) == 1
    assert not any(result["in_flight"])
    assert result["wallet_cash"][-1] == pytest.approx([100.0 + 112 * 1_200 / 132, 11.0 - 11.0 / 101])


def test_a_combo_that_was_made_smaller_leaves_as_what_is_left_of_it():
    result = squeezed(values=[None, None, None, 0.0])
    assert named(result, "resize", "exit") == [(2, "resize", pytest.approx(10 - 1_200 / 132)),
                                               (5, "exit", pytest.approx(1_200 / 132))]  # fmt: skip


def test_a_combo_made_smaller_than_a_lot_is_left():
    result = squeezed(lot=10.0)
    assert [(row["bar"], row["event"], row["reason"]) for row in result["events"]] == [
        (1, "entry", "signal"), (2, "exit", "margin"),
    ]  # fmt: skip
    assert result["trades"][0]["exit_bar"] == 2


def test_nothing_worth_sending_and_no_larger_combo_change_nothing():
    quiet = squeezed(transfer_min_usd=100.01)
    assert named(quiet, "resize") != []
    assert quiet["wallet_cash"][2] == pytest.approx([100.0, 1_100.0])
    assert not any(quiet["in_flight"])


def test_a_second_entry_waits_for_the_cash_that_is_moved_for_it():
    """500 and 500, of which 10% of a price move come back as 550 and 450; 50 need two hours from bar 3 on."""
    rows = [flat(100.0), flat(100.0)] + [flat(110.0)] * 6
    result = oracles.backtest(
        **carry(rows, values=[None, 1.0, 0.0, 1.0], capital_usd=1_000.0, leverage=1.0,
                wallets={"mode": "segregated", "transfer_hours": 2.0})
    )  # fmt: skip
    assert [row[:2] for row in named(result, "entry", "exit", "waiting")] == [(1, "entry"), (2, "exit"), (5, "entry")]
    assert result["wallet_cash"][2:5] == [pytest.approx([550.0, 450.0]), *[pytest.approx([500.0, 450.0])] * 2]
    assert result["in_flight"] == pytest.approx([0.0] * 3 + [50.0, 50.0] + [0.0] * 3)
    assert result["wallet_cash"][5] == pytest.approx([0.0, 1_000.0])
    assert result["equity"] == pytest.approx([1_000.0] * 8)


def wallets_of(**options):
    """Three wallets with 1,000 each, on bars of six hours."""
    legs = [{"kind": "perp", "ratio": 1.0} for _ in range(3)]
    stamps = [DAY_US + 6 * HOUR_US * t for t in range(16)]
    wallets = oracles.Wallets(
        {"mode": "segregated"} | options, legs=legs, capital_usd=3_000.0, stamps=stamps, bar_us=6 * HOUR_US
    )
    wallets.split([1_000.0] * 3)
    return wallets


def test_surpluses_meet_shortages_in_wallet_order():
    assert oracles.matched_transfers([10.0, 0.0, 30.0, 5.0], [0.0, 25.0, 10.0, 10.0]) == [
        (0, 1, 10.0), (2, 1, 15.0), (2, 3, 5.0),
    ]  # fmt: skip


def test_a_daily_cap_sends_a_part_a_day_and_each_part_pays_its_fee():
    wallets = wallets_of(transfer_daily_cap_usd=100.0, transfer_fee_usd=1.0, transfer_hours=7.0)
    wallets.plan([1_250.0, 1_000.0, 750.0], [1_000.0] * 3)
    fees = []
    for t in range(12):
        wallets.arrive(t)
        fees += [(t, leg) for leg in wallets.send(t)]
        if t in (3, 4):
            assert wallets.cash == [900.0 if t == 3 else 800.0, 1_000.0, 1_099.0]
    assert fees == [(0, 2), (4, 2), (8, 2)]
    assert wallets.cash == [750.0, 1_000.0, 1_247.0]
    assert not wallets.is_busy()


def test_a_daily_cap_is_for_all_transfers_of_a_day_in_their_order():
    wallets = wallets_of(transfer_daily_cap_usd=100.0)
    wallets.plan([1_150.0, 910.0, 940.0], [1_000.0] * 3)
    sent = []
    for t in (0, 1, 3, 4, 5):
        wallets.send(t)
        sent.append(list(wallets.cash))
    assert sent == [[900.0, 1_090.0, 1_010.0]] * 3 + [[850.0, 1_090.0, 1_060.0]] * 2


def test_an_amount_is_worth_sending_from_the_minimum_on_and_above_the_fee():
    for limits, is_sent in (({"transfer_min_usd": 50.0}, True), ({"transfer_fee_usd": 50.0}, False)):
        wallets = wallets_of(**limits)
        wallets.plan([1_050.0, 950.0, 1_000.0], [1_000.0] * 3)
        assert wallets.is_busy() == is_sent


def test_a_floor_belongs_to_the_tier_under_it():
    tiers = [(0.0, 0.01, 0.0), (50.0, 0.02, 0.5), (90.0, 0.05, 3.2)]
    assert [oracles.tier_of(tiers, n)[1] for n in (0.0, 50.0, 50.1, 90.0, 90.1)] == [0.01, 0.01, 0.02, 0.02, 0.05]


def test_a_halt_holds_back_what_is_not_sent_yet_and_small_amounts_are_dropped():
    day = DAY_US + 6 * HOUR_US
    wallets = wallets_of(transfer_halts_us=[(day, day + 6 * HOUR_US)], transfer_min_usd=50.0, transfer_fee_usd=10.0)
    wallets.plan([1_049.99, 1_000.0, 950.01], [1_000.0] * 3)
    assert not wallets.is_busy()
    wallets.plan([1_060.0, 940.0, 1_000.0], [1_000.0] * 3)
    assert (wallets.send(1), wallets.cash, wallets.is_busy()) == ([], [1_000.0] * 3, True)
    assert (wallets.send(2), wallets.cash, wallets.is_busy()) == ([1], [940.0, 1_050.0, 1_000.0], False)
