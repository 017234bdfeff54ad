"""The oracle's contracts, alone: books over all of them, and each of them by hand."""

import copy

import oracles
import pytest
import strategies
from hypothesis import HealthCheck, assume, event, given, settings

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
RANDOM = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
GAINS = ("delta", "basis", "funding", "yield", "fx")
SIGNS = {name: 1.0 if name in GAINS else -1.0 for name in oracles.BOOKS}
# books that do not come of a leg's own fills, settlements and prices
OF_WALLETS = ("transfer", "liquidation", "borrow", "delivery_fee", "yield", "fx")


def simulated(case):
    assume(strategies.run_stamps(case))
    return oracles.backtest(**case)


# --------------------------------------------------------------------------------------------------- over all options


def cash_of(fill, case):
    """Cash one fill moves, fees with a book of their own apart; what a loan takes or repays counts as if paid."""
    leg, cost, change = case["legs"][fill["leg"]], case["costs"][fill["leg"]], fill["position_change"]
    if fill["action"] in ("liquidation", "delivery"):
        return -change * fill["fill"]
    if cost["fee_in_base"] and leg["kind"] == "spot" and change > 0:
        return -fill["quantity"] * fill["fill"]
    return -change * fill["fill"] - fill["fee"]


@RANDOM
@given(case=strategies.contract_cases())
def test_sixteen_books_are_the_change_of_equity_at_every_bar(case):
    result = simulated(case)
    capital, legs = case["size"]["capital_usd"], case["legs"]
    tolerance = 1e-9 * max(capital, sum(fill["notional"] for fill in result["fills"]))
    prices = oracles.market_of(legs, result["ts_us"], case["bar_us"]).prices
    leg_cash, ledger = [0.0] * len(legs), [0.0] * len(legs)
    for t, books in enumerate(result["books"]):
        for row in result["funding"]:
            leg_cash[row["leg"]] += row["cash"] if row["bar"] == t else 0.0
        for fill in result["fills"]:
            if fill["bar"] == t:
                leg_cash[fill["leg"]] += cash_of(fill, case)
                ledger[fill["leg"]] += fill["position_change"]
        total = 0.0
        for i, leg in enumerate(legs):
            assert list(books[i]) == list(oracles.BOOKS)
            total += sum(SIGNS[name] * value for name, value in books[i].items())
            if leg.get("inverse") or leg.get("index"):
                continue  # coin is exchanged and kind is grown outside of fills
            own = sum(SIGNS[name] * value for name, value in books[i].items() if name not in OF_WALLETS)
            assert abs(leg_cash[i] + result["position"][t][i] * prices[i].close[t] - own) <= tolerance
            assert abs(ledger[i] - result["position"][t][i]) * prices[i].close[t] <= tolerance
        assert abs(result["equity"][t] - capital - total) <= tolerance
    found = result["metrics"]
    for name in ("borrow", "delivery_fee", "yield", "fx"):
        assert found[f"{name}_usd"] == sum(leg[name] for leg in result["books"][-1])
        event(f"{name}: {found[f'{name}_usd'] != 0.0}")
    event(f"rolls: {min(found['n_rolls'], 2)}")


@RANDOM
@given(case=strategies.contract_cases())
def test_only_inverse_legs_that_are_held_have_contract_dollars(case):
    result = simulated(case)
    for face, position in zip(result["face"], result["position"], strict=True):
        for leg, dollars, q in zip(case["legs"], face, position, strict=True):
            assert (dollars != 0.0) == (q != 0.0 and bool(leg.get("inverse")))
            assert dollars * q >= 0.0
    event(f"inverse: {any(any(face) for face in result['face'])}")


@RANDOM
@given(case=strategies.contract_cases())
def test_nothing_of_an_expired_contract_is_held_or_entered(case):
    result = simulated(case)
    ends = [end for end in oracles.market_of(case["legs"], result["ts_us"], case["bar_us"]).delivery if end]
    first = min((row for row, _price in ends), default=None)
    for i, end in enumerate(oracles.market_of(case["legs"], result["ts_us"], case["bar_us"]).delivery):
        if end is not None:
            assert not any(position[i] for position in result["position"][end[0] :])
    late = [row for row in result["events"] if first is not None and row["bar"] >= first]
    assert all(row["event"] not in ("entry", "unfilled") for row in late)
    assert {row["reason"] for row in late if row["event"] == "refused"} <= {"expired"}
    delivered = [fill for fill in result["fills"] if fill["action"] == "delivery"]
    assert len(delivered) == sum(row["event"] == "delivery" for row in result["events"])
    event(f"delivered: {bool(delivered)}")


@RANDOM
@given(case=strategies.contract_cases())
def test_contracts_that_are_all_in_dollars_and_earn_nothing_change_no_bit(case):
    """A rate of one, an index that stands, borrow, gas and interest for nothing are as if they were not there."""
    plain = copy.deepcopy(case)
    plain["wallets"].pop("cash_yield_apr", None)
    for leg in plain["legs"]:
        for name in ("quote_usd", "index", "borrow", "gas"):
            leg.pop(name, None)
    idle = copy.deepcopy(plain)
    idle["wallets"]["cash_yield_apr"] = 0.0
    for leg in idle["legs"]:
        leg["quote_usd"], leg["gas"], leg["borrow"] = [(0, 1.0)], [(0, 0.0)], [(0, 0.0)]
        if leg["kind"] in ("lst", "lending"):
            leg["index"] = [(0, 1.3)]
    assert simulated(idle) == simulated(plain)


# ------------------------------------------------------------------------------------------------------ cases by hand


def flat(price):
    return (price, price, price, price)


def leg_of(kind, ratio, rows, *, bar_us=HOUR_US, **more):
    """A leg with these bars (open, high, low, close), or none where they are dated by themselves."""
    leg = {"kind": kind, "ratio": ratio, "venue": "a", "step_us": bar_us, "mark_bars": [], "mark_step_us": bar_us,
           "settlements": [], "lot": 0.0, "min_notional_usd": 0.0}  # fmt: skip
    if rows is not None:
        leg["bars"] = bars_of(rows, bar_us=bar_us)
    return leg | more


def bars_of(rows, *, bar_us=HOUR_US):
    return [(t * bar_us, *row, 1e9) for t, row in enumerate(rows)]


def case_of(legs, *, values, n_bars, capital_usd, bar_us=HOUR_US, leverage=1.0, wallets=None, fee_bps=0.0, **fills):
    cost = {"half_spread_bps": 0.0, "fee_bps": fee_bps, "fee_in_base": False, "bucket_usd": [], "bucket_bps": [],
            "impact_coef_bps": 0.0, "impact_exponent": 0.5}  # fmt: skip
    return {
        "legs": legs,
        "start_us": 0,
        "end_us": n_bars * bar_us,
        "bar_us": bar_us,
        "signal": {"values": values + [None] * (n_bars - len(values))},
        "rule": {"entry": 1.0, "exit": 0.0, "reverse": False, "min_hold_hours": None, "max_hold_hours": None,
                 "cooldown_hours": None, "stop_loss_pct": None, "max_basis_bps": None},
        "size": {"capital_usd": capital_usd, "allocation": 1.0, "leverage": leverage, "compounding": True},
        "costs": [dict(cost) for _ in legs],
        "fills": {"latency_hours": 0.0} | fills,
        "wallets": wallets,
    }  # fmt: skip


def books_of(result, t, leg):
    return {name: value for name, value in result["books"][t][leg].items() if abs(value) > 1e-9}


def named(result, *names):
    return [(row["bar"], row["event"], row["reason"], pytest.approx(row["quantity"])) for row in result["events"]
            if row["event"] in names]  # fmt: skip


def actions(result):
    return [(fill["bar"], fill["leg"], fill["action"]) for fill in result["fills"]]


# ------------------------------------------------------------------------------------------------------------ inverse


def dollar(rows, *, spot=None, values=(None, 1.0), capital_usd=1_000.0, wallets=None, **more):
    """Spot and a short inverse perp of the same coin in one wallet."""
    legs = [leg_of("spot", 1.0, spot or rows, coin="BTC"), leg_of("perp", -1.0, rows, inverse=True, coin="BTC", **more)]
    return case_of(legs, values=list(values), n_bars=len(rows), capital_usd=capital_usd, wallets=wallets)


@pytest.mark.parametrize("wallets", [None, {"mode": "segregated"}, {"mode": "pooled", "margin": "venue"}])
def test_spot_and_a_short_inverse_perp_are_a_dollar_whatever_the_price(wallets):
    rows = [flat(100.0), (100.0, 130.0, 40.0, 50.0), (50.0, 210.0, 45.0, 200.0), flat(200.0), flat(20.0), flat(3e4)]
    settled = [(3 * HOUR_US, 0.01, None, None), (4 * HOUR_US, -0.002, 7.0, None)]
    case = dollar(rows, wallets=wallets, settlements=settled, tiers=[(0.0, 0.5, 0.0)])
    result = oracles.backtest(**case)
    assert result["equity"] == pytest.approx([1_000.0] * 3 + [1_010.0] + [1_008.0] * 2, abs=1e-9)
    assert result["face"] == [[0.0, 0.0]] + [[0.0, -1_000.0]] * 5
    assert [row["cash"] for row in result["funding"]] == [10.0, -2.0]
    assert result["position"][1] == [10.0, -10.0]  # the coin backs the short: nothing else is put aside
    assert books_of(result, 5, 1)["funding"] == pytest.approx(8.0)
    assert result["metrics"]["n_liquidations"] == 0
    if wallets:
        assert result["metrics"]["min_margin_ratio"] == pytest.approx(1.0)


def test_coin_profit_is_that_of_the_contract_at_the_reference_price():
    """1,010 contract dollars sold at 101 and bought at 121: 1,010 / 121 - 10 coins at 110 dollars."""
    rows, spot = [flat(101.0), (101.0, 121.0, 101.0, 121.0), flat(121.0)], [flat(100.0), (100.0, 110.0, 100.0, 110.0)]
    result = oracles.backtest(**dollar(rows, spot=[*spot, flat(110.0)], values=(None, 1.0, 0.0)))
    profit = (1_010 / 121 - 10) * 110
    assert result["face"][1] == [0.0, pytest.approx(-1_010.0)]
    assert result["equity"][1:] == pytest.approx([1_100.0 + profit] * 2)
    assert books_of(result, 1, 1) == pytest.approx({"delta": -100.0, "basis": profit + 100.0})
    assert result["face"][2] == [0.0, 0.0]
    assert result["cash"][2] == pytest.approx(1_100.0 + profit)
    assert result["trades"][0]["pnl"] == pytest.approx(100.0 + profit)


def test_a_half_closed_inverse_leg_keeps_half_its_contract_dollars():
    rows, spot = [flat(100.0), flat(100.0), flat(125.0), flat(125.0)], [flat(100.0)] * 4
    case = dollar(rows, spot=spot, adl=[(2 * HOUR_US, 0.5)])
    result = oracles.backtest(**case)
    assert result["face"][1:3] == [[0.0, -1_000.0], [0.0, -500.0]]
    # 1,000 contract dollars are 8 coins at 125, of 10 that are owed; venue price is raw * X = 125 * 100 / 125
    assert result["equity"][2] == pytest.approx(1_000.0 - 200.0)
    assert (result["fills"][2]["fill"], result["fills"][2]["quantity"]) == (100.0, 5.0)


def test_an_inverse_leg_that_is_made_smaller_keeps_its_share_of_contract_dollars():
    """A perp loses half to its venue, and the inverse leg, sold at 100 and bought at 125, follows."""
    rows = [flat(100.0), flat(100.0), flat(125.0), flat(125.0)]
    legs = [leg_of("perp", 1.0, [flat(100.0)] * 4, adl=[(2 * HOUR_US, 0.5)]),
            leg_of("perp", -1.0, rows, inverse=True)]  # fmt: skip
    result = oracles.backtest(**case_of(legs, values=[None, 1.0], n_bars=4, capital_usd=2_000.0))
    assert [face[1] for face in result["face"]] == [0.0, -1_000.0, -1_000.0, -500.0]
    assert result["equity"][1:] == pytest.approx([2_000.0, 1_800.0, 1_800.0])


def test_coin_lost_by_an_excess_is_a_cost_of_its_rollback():
    """The short fills and the spot does not: 1,000 contract dollars from 100 to 125 are two coins at 100 dollars."""
    rows = [flat(100.0), flat(100.0), flat(125.0), flat(125.0), flat(125.0)]
    case = dollar(rows, spot=[flat(100.0)] * 5)
    case["fills"] |= {"atomicity": "rollback", "rollback_delay_hours": 2.0, "model": "volume", "volume_cap": 1.0}
    case["legs"][0]["bars"] = [(*bar[:5], 0.0) for bar in case["legs"][0]["bars"]]
    result = oracles.backtest(**case)
    assert books_of(result, 2, 1) == books_of(result, 4, 1) == pytest.approx({"rollback_price": 200.0})
    assert result["face"] == [[0.0, 0.0]] + [[0.0, -1_000.0]] * 2 + [[0.0, 0.0]] * 2


LONG_TEN = {"wallets": {"mode": "segregated"}, "leverage": 10.0, "capital_usd": 1e4}


def test_a_long_inverse_perp_on_coin_margin_is_liquidated_at_its_price():
    """1,000 contracts of 100 at 100,000 with 0.1 coins: 100,000 * 1.004 / 1.1."""
    rows = [flat(1e5), (1e5, 1e5, 9e4, 9.1e4), flat(9.1e4), flat(9.1e4)]
    legs = [leg_of("spot", 0.1, rows, coin="BTC"),
            leg_of("perp", 1.0, rows, coin="BTC", inverse=True, tiers=[(0.0, 0.004, 0.0)])]  # fmt: skip
    case = case_of(legs, values=[None, 1.0], n_bars=4, **LONG_TEN)
    result = oracles.backtest(**case)
    assert actions(result)[2:] == [(1, 1, "liquidation"), (2, 0, "exit")]
    assert result["fills"][2]["fill"] == pytest.approx(91_272.7273, abs=5e-5)
    assert result["face"][1] == [0.0, 0.0]
    assert result["wallet_cash"][1][0] == pytest.approx(91_272.727272 - 1e5)
    assert result["equity"][-1] == pytest.approx(91_272.727272 - 1e5 + 9_100.0)
    for leg in legs:
        leg.pop("coin")  # without coin as collateral the perp takes a tenth of its worth in cash
    assert [fill["quantity"] for fill in oracles.backtest(**case)["fills"][:2]] == pytest.approx([0.05, 0.5])


def test_a_short_inverse_perp_that_is_half_backed_is_liquidated_as_the_contract_says():
    """1,000 contracts of 100 sold at 100,000 on 0.1 coins: 100,000 * 0.996 / 0.9."""
    rows = [flat(1e5), (1e5, 1.2e5, 1e5, 1.2e5), flat(1.2e5)]
    legs = [leg_of("spot", 0.1, rows, coin="BTC"),
            leg_of("perp", -1.0, rows, coin="BTC", inverse=True, tiers=[(0.0, 0.004, 0.0)])]  # fmt: skip
    result = oracles.backtest(**case_of(legs, values=[None, 1.0], n_bars=3, **LONG_TEN))
    assert result["fills"][2]["fill"] == pytest.approx(110_666.6667, abs=5e-5)


def test_a_haircut_on_the_coin_gives_a_backed_short_a_liquidation_price():
    """1,000 + 0.9 * 10 P - 10 P = 4 at 996; the notional is 1,000 at any price."""
    rows = [flat(100.0), (100.0, 2_000.0, 100.0, 100.0), flat(100.0)]
    wallets = {"mode": "segregated", "spot_collateral": 0.9}
    result = oracles.backtest(**dollar(rows, wallets=wallets, tiers=[(0.0, 0.004, 0.0), (1_500.0, 0.9, 0.0)]))
    assert result["fills"][2]["fill"] == pytest.approx(996.0)


def test_owed_spot_counts_in_full():
    """Short spot 10 at 100 and a long perp in one wallet of 1,100 + 1,000 - 1,000: only a move between them hurts."""
    rows = [flat(100.0), (100.0, 400.0, 100.0, 100.0), flat(100.0)]
    legs = [leg_of("spot", -1.0, rows), leg_of("perp", 1.0, rows, tiers=[(0.0, 0.01, 0.0)])]
    wallets = {"mode": "segregated", "spot_collateral": 0.2}
    case = case_of(legs, values=[None, 1.0], n_bars=3, capital_usd=1_100.0, leverage=10.0, wallets=wallets)
    assert oracles.backtest(**case)["metrics"]["min_margin_ratio"] == pytest.approx(1_100 / 4_000)


# --------------------------------------------------------------------------------------------------- quote currencies


def test_a_depeg_of_the_only_quote_moves_cash_and_prices():
    rates = [(0, 1.0), (2 * HOUR_US, 0.9), (3 * HOUR_US + 1, 0.95)]
    rows = [flat(100.0)] * 5
    legs = [leg_of(kind, ratio, rows, quote="EUR", quote_usd=rates) for kind, ratio in (("spot", 1.0), ("perp", -1.0))]
    result = oracles.backtest(**case_of(legs, values=[None, 1.0], n_bars=5, capital_usd=2_000.0))
    assert result["equity"] == pytest.approx([2_000.0, 2_000.0, 1_800.0, 1_800.0, 1_900.0])
    assert books_of(result, 2, 0) == pytest.approx({"delta": -100.0, "fx": -200.0})
    assert books_of(result, 2, 1) == pytest.approx({"delta": 100.0})
    assert result["metrics"]["fx_usd"] == pytest.approx(-100.0)


def test_a_depeg_of_one_wallet_is_a_basis_against_the_other():
    rows, rates = [flat(100.0)] * 4, [(0, 1.0), (2 * HOUR_US, 0.9)]
    legs = [leg_of("spot", 1.0, rows, quote="EUR", quote_usd=rates), leg_of("perp", -1.0, rows, venue="b")]
    wallets = {"mode": "segregated", "margin": "none"}
    case = case_of(legs, values=[None, 1.0, None, 0.0], n_bars=4, capital_usd=2_000.0, wallets=wallets)
    result = oracles.backtest(**case)
    assert result["wallet_cash"][2] == pytest.approx([0.0, 2_000.0])
    assert books_of(result, 2, 1) == pytest.approx({"delta": 100.0, "basis": -100.0})
    assert result["equity"] == pytest.approx([2_000.0, 2_000.0, 1_900.0, 1_900.0])
    assert [fill["fill"] for fill in result["fills"]] == pytest.approx([100.0, 100.0, 90.0, 100.0])
    assert result["basis_bps"][3] == 0.0  # signals see raw prices
    legs[0].pop("quote_usd")
    legs[1] |= {"quote": "EUR", "quote_usd": rates}
    result = oracles.backtest(**case)
    assert result["equity"][2] == pytest.approx(1_900.0)  # 2,000 less 200 of cash, and 1,000 owed are 900
    assert books_of(result, 2, 1) == pytest.approx({"basis": 100.0, "fx": -200.0})


def test_marks_and_limits_are_in_dollars():
    """At 1.1 dollars: 1% of ten marks of 100 are 11 dollars, and a limit 10 bps above 110 is met by a high of 100.2."""
    rows, rate = [flat(100.0), (100.0, 100.2, 99.8, 100.0), flat(100.0), flat(100.0)], [(0, 1.1)]
    legs = [
        leg_of("spot", 1.0, rows, quote="EUR", quote_usd=rate),
        leg_of("perp", -1.0, rows, quote="EUR", quote_usd=rate, settlements=[(3 * HOUR_US, 0.01, 100.0, None)]),
    ]
    case = case_of(legs, values=[None, 1.0], n_bars=4, capital_usd=2_200.0, model="maker", offset_bps=10.0)  # fmt: skip
    result = oracles.backtest(**case)
    assert [(row["bar"], row["fill"]) for row in result["fills"]] == [
        (1, pytest.approx(109.89)), (1, pytest.approx(110.11)),
    ]  # fmt: skip
    assert result["funding"][0]["cash"] == pytest.approx(11.0)


def test_cash_is_in_the_quote_of_the_first_leg_that_is_not_inverse():
    legs = [leg_of("perp", -1.0, [flat(100.0), flat(100.0), flat(90.0)], inverse=True),
            leg_of("spot", 1.0, [flat(100.0)] * 3, quote="EUR", quote_usd=[(0, 1.0), (2 * HOUR_US, 0.9)])]  # fmt: skip
    result = oracles.backtest(**case_of(legs, values=[None], n_bars=3, capital_usd=2_000.0))
    assert books_of(result, 2, 0) == pytest.approx({"fx": -200.0})


def test_the_fx_of_cash_leaves_out_what_a_contract_holds():
    """All of a thousand is in ten coins, whose euros lose a tenth: no cash is left that could lose."""
    case = dollar([flat(100.0)] * 3)
    case["legs"][0] |= {"quote": "EUR", "quote_usd": [(0, 1.0), (2 * HOUR_US, 0.9)]}
    result = oracles.backtest(**case)
    assert books_of(result, 2, 0) == pytest.approx({"delta": -100.0})
    assert books_of(result, 2, 1) == pytest.approx({"delta": 100.0, "basis": -100.0})
    assert result["equity"][2] == pytest.approx(900.0)


# ---------------------------------------------------------------------------------- borrow, idle cash, income in kind


def borrowed(bar_us, n_bars, **more):
    rows = [flat(100.0)] * n_bars
    legs = [leg_of("spot", -1.0, rows, bar_us=bar_us, borrow=[(0, 0.876)], **more),
            leg_of("perp", 1.0, rows, bar_us=bar_us)]  # fmt: skip
    return case_of(legs, values=[None, 1.0], n_bars=n_bars, capital_usd=2_000.0, bar_us=bar_us)


def test_a_short_pays_a_whole_hour_when_it_begins():
    """Ten coins at 100 and 0.01% an hour: a tenth of a dollar at each hour that begins."""
    result = oracles.backtest(**borrowed(HOUR_US // 2, 7))
    assert [books[0]["borrow"] for books in result["books"]] == pytest.approx([0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.3])
    assert result["equity"][-1] == pytest.approx(1_999.7)
    assert result["metrics"]["borrow_usd"] == pytest.approx(0.3)


def test_a_short_in_periods_of_four_hours_pays_one_more_to_open():
    result = oracles.backtest(**borrowed(HOUR_US // 2, 20, borrow_rule=(4.0, 1.0)))
    paid = [books[0]["borrow"] for books in result["books"]]
    assert paid == pytest.approx([0.0, 0.0] + [0.8] * 8 + [1.2] * 8 + [1.6] * 2)
    hours = [oracles.borrowed_hours(h, (4.0, 1.0)) for h in (0.0, 0.5, 4.0, 4.0 + 1e-10, 4.5, 8.0, 8.5)]
    assert hours == [0.0, 8.0, 8.0, 8.0, 12.0, 12.0, 16.0]


def test_the_age_of_a_short_ends_with_it_and_its_rate_is_that_of_the_bar_before():
    case = borrowed(HOUR_US, 9, borrow_rule=(4.0, 0.0))
    case["signal"]["values"][3:5] = [0.0, 1.0]
    case["legs"][0]["borrow"] = [(0, 0.876), (2 * HOUR_US, 1.752)]
    paid = [books[0]["borrow"] for books in oracles.backtest(**case)["books"]]
    assert paid == pytest.approx([0.0, 0.0, 0.4, 0.4, 0.4, 1.2, 1.2, 1.2, 1.2], abs=3e-3)
    assert paid[2] == pytest.approx(0.4)


def test_every_short_of_entries_that_fail_is_a_new_one():
    """The perp never fills: each second bar a new short is closed, and pays its first period of four hours."""
    case = borrowed(HOUR_US, 7, borrow_rule=(4.0, 0.0))
    case["signal"]["values"] = [None] + [1.0] * 6
    case["legs"][1]["bars"] = [(*bar[:5], 0.0) for bar in case["legs"][1]["bars"]]
    case["fills"] |= {"model": "volume", "volume_cap": 1.0, "atomicity": "rollback", "rollback_delay_hours": 1.0}
    result = oracles.backtest(**case)
    paid = [books[0]["borrow"] for books in result["books"]]
    assert paid == pytest.approx([0.0, 0.0, 0.4, 0.4, 0.8, 0.8, 1.2], rel=1e-3)


def test_idle_cash_earns_in_every_wallet_what_its_margined_legs_leave():
    """An hour at 8.76 a year is a thousandth; the wallet of the spot leg is empty after the entry."""
    rows = [flat(100.0), flat(100.0), flat(100.0), flat(110.0), flat(110.0)]
    legs = [leg_of("spot", 1.0, rows), leg_of("perp", -1.0, rows, venue="b")]
    wallets = {"mode": "segregated", "margin": "none", "cash_yield_apr": 8.76}
    result = oracles.backtest(**case_of(legs, values=[None, None, 1.0], n_bars=5, capital_usd=2_000.0, wallets=wallets))
    first = 2_000 * 1.001**2
    assert [row[0]["yield"] for row in result["books"]][:3] == pytest.approx([0.0, 2.0, first - 2_000])
    x = first / 200
    assert result["position"][2] == pytest.approx([x, -x])
    assert books_of(result, 3, 1)["yield"] == pytest.approx(x * 100 * 0.001)
    left = x * 100 * 1.001 - x * 10
    assert books_of(result, 4, 1)["yield"] == pytest.approx(x * 100 * 0.001 + left * 0.001)
    assert books_of(result, 4, 0)["yield"] == pytest.approx(first - 2_000)
    assert result["metrics"]["yield_usd"] == pytest.approx(first - 2_000 + x * 0.1 + left * 0.001)


def test_a_wallet_that_owes_cash_earns_nothing_on_it():
    rows = [flat(100.0)] * 3
    legs = [leg_of("spot", 1.0, rows), leg_of("perp", -1.0, rows, venue="b")]
    wallets = {"mode": "segregated", "margin": "none", "cash_yield_apr": 8.76}
    case = case_of(legs, values=[1.0], n_bars=3, capital_usd=2_000.0, wallets=wallets, fee_bps=100.0)
    result = oracles.backtest(**case)
    assert result["wallet_cash"][0] == pytest.approx([-10.0, 1_990.0])
    assert books_of(result, 2, 0) == pytest.approx({"fees": 10.0})
    assert result["wallet_cash"][2][0] == pytest.approx(-10.0)


def staked(**fills):
    rows = [flat(100.0), flat(100.0), flat(100.0), flat(105.0), flat(105.0), flat(105.0)]
    index = [(0, 1.0), (2 * HOUR_US, 1.02), (4 * HOUR_US + 1, 1.02 * 1.01)]
    legs = [leg_of("lst", 1.0, rows, index=index), leg_of("perp", -1.0, rows)]
    return case_of(legs, values=[None, 1.0], n_bars=6, capital_usd=20_000.0, **fills)


def test_a_staked_token_grows_in_kind_and_stays_hedged():
    result = oracles.backtest(**staked())
    assert [position[0] for position in result["position"]] == pytest.approx([0.0, 100.0, 102.0, 102.0, 102.0, 103.02])
    assert books_of(result, 2, 0) == pytest.approx({"yield": 200.0})
    assert books_of(result, 3, 0) == pytest.approx({"yield": 200.0, "delta": 510.0})
    assert result["equity"][3] == pytest.approx(20_000.0 + 200.0 + 10.0)
    assert result["equity"][5] == pytest.approx(20_000.0 + 200.0 + 10.0 + 1.02 * 105.0)
    assert not any(result["naked"])
    assert result["metrics"]["yield_usd"] == pytest.approx(200.0 + 1.02 * 105.0)


def test_income_of_a_position_that_is_being_closed_comes_in_cash():
    case = staked(latency_hours=2.0)
    case["signal"]["values"] = [1.0, None, None, 0.0, None, None]
    result = oracles.backtest(**case)
    assert [position[0] for position in result["position"]] == pytest.approx([0.0, 0.0, 100.0, 100.0, 100.0, 0.0])
    assert books_of(result, 5, 0)["yield"] == pytest.approx(105.0)
    assert result["equity"][5] == pytest.approx(20_105.0)


# ------------------------------------------------------------------------------------------------------ dated futures


def test_a_combo_that_is_entered_again_is_hedged_by_the_ratios_as_given():
    case = staked()
    case["signal"]["values"] = [None, 1.0, None, 0.0, 1.0, 0.0]
    result = oracles.backtest(**case)
    x = result["position"][4][0]
    assert result["position"][4] == pytest.approx([x, -x])
    assert not any(result["naked"][4:])
    # it grows once more before it leaves
    assert [row[3] for row in named(result, "exit")] == [100.0, x]
    assert [fill["quantity"] for fill in result["fills"][-2:]] == pytest.approx([x * 1.01, x])


def dated(*, expiry_hours=3.0, **more):
    spot = [flat(100.0), flat(100.0), flat(98.0), (97.0, 97.0, 96.0, 96.0), flat(95.0), flat(94.0)]
    future = [flat(102.0), flat(102.0), flat(99.0)]
    legs = [leg_of("spot", 1.0, spot),
            leg_of("future", -1.0, future, expiry_us=round(expiry_hours * HOUR_US), **more)]  # fmt: skip
    return case_of(legs, values=[None, 1.0, 1.0, 1.0, 1.0, 1.0], n_bars=6, capital_usd=2_020.0)


def test_a_future_is_delivered_and_the_spot_leaves_with_it():
    result = oracles.backtest(**dated(delivery_price=101.0, delivery_fee_bps=10.0))
    row = result["fills"][2]
    assert actions(result)[2:] == [(3, 1, "delivery"), (3, 0, "exit")]
    assert (row["fill"], row["arrival"], row["reference"]) == (101.0, 101.0, 101.0)
    assert (row["quantity"], row["side"], row["position_change"]) == (10.0, 1, 10.0)
    assert (row["reason"], row["decision_bar"], row["trade"], row["fee"]) == ("expiry", 3, 1, pytest.approx(1.01))
    assert named(result, "delivery", "exit") == [(3, "delivery", "expiry", 10.0), (3, "exit", "expiry", 10.0)]
    assert result["cash"][3] == pytest.approx(2_020.0 - 30.0 + 10.0 - 1.01)
    # the reference went from 100 to its open of 97
    assert books_of(result, 3, 1) == pytest.approx({"delta": 30.0, "basis": -20.0, "delivery_fee": 1.01})
    assert books_of(result, 3, 0) == pytest.approx({"delta": -30.0})
    assert result["trades"][0]["reason"] == "expiry"
    refused = [(row["bar"], row["reason"], row["quantity"]) for row in result["events"] if row["event"] == "refused"]
    assert refused == [(4, "expired", 0.0), (5, "expired", 0.0)]
    assert result["metrics"]["delivery_fee_usd"] == pytest.approx(1.01)
    assert result["metrics"]["turnover"] == pytest.approx((1_000 + 1_020 + 1_010 + 970) / 2_020)


@pytest.mark.parametrize(("hours", "bar", "price"), [(3.0, 3, 97.0), (2.5, 3, 97.0), (2.0, 2, 98.0)])
def test_without_a_price_a_future_is_delivered_at_the_open_of_the_reference(hours, bar, price):
    result = oracles.backtest(**dated(expiry_hours=hours))
    (row,) = [fill for fill in result["fills"] if fill["action"] == "delivery"]
    assert (row["bar"], row["fill"]) == (bar, price)


def test_an_entry_that_has_not_come_when_a_future_expires_is_dropped():
    case = dated()
    case["signal"]["values"] = [None, None, 1.0, None, None, None]
    case["fills"]["latency_hours"] = [0.0, 5.0]
    result = oracles.backtest(**case)
    assert actions(result) == [(2, 0, "entry"), (3, 0, "exit")]
    assert [fill["trade"] for fill in result["fills"]] == [0, 0]
    assert result["trades"] == []
    assert named(result, "delivery") == []


def test_a_delivery_of_all_that_is_held_ends_the_trade_in_its_bar():
    """The venue has taken the perp in the bar before; then the future pays 101 for what was sold at 100."""
    legs = [leg_of("perp", 1.0, [flat(100.0)] * 5, adl=[(2 * HOUR_US, 1.0)]),
            leg_of("future", -1.0, [flat(100.0)] * 2, expiry_us=3 * HOUR_US, delivery_price=101.0)]  # fmt: skip
    result = oracles.backtest(**case_of(legs, values=[None, 1.0], n_bars=5, capital_usd=2_000.0))
    assert actions(result)[2:] == [(2, 0, "adl"), (3, 1, "delivery")]
    assert (result["trades"][0]["exit_bar"], result["trades"][0]["reason"]) == (3, "expiry")
    assert result["trades"][0]["pnl"] == pytest.approx(-10.0)
    assert result["direction"] == [0, 1, 1, 0, 0]


def test_an_inverse_future_is_delivered_in_coin():
    """1,000 contract dollars sold at 100 and paid out at 125, with the coin at 100 dollars: two coins are lost."""
    rows = [flat(100.0), flat(100.0), flat(110.0), flat(110.0)]
    case = dollar(rows, spot=[flat(100.0)] * 4)
    case["legs"][1] |= {"kind": "future", "expiry_us": 3 * HOUR_US, "delivery_price": 125.0, "delivery_fee_bps": 10.0}
    result = oracles.backtest(**case)
    row = result["fills"][2]
    assert (row["bar"], row["action"], row["fill"], row["fee"]) == (3, "delivery", 100.0, pytest.approx(0.8))
    assert result["cash"][3] == pytest.approx(1_000.0 - 200.0 - 0.8)  # the fee is of the eight coins paid out
    assert books_of(result, 3, 1) == pytest.approx({"basis": -200.0, "delivery_fee": 0.8})
    assert result["face"][3] == [0.0, 0.0]


# -------------------------------------------------------------------------------------------------------------- rolls


def chained(*, inverse=False, roll_days=3 / 24, roll_basis_apr=None, expiry_hours=(6, 50), fee_bps=10.0, **fills):
    """Ten spot against a future that is at 101 where the next one is at 104; the roll bar is the fourth."""
    spot = [flat(100.0)] * 6
    near = [flat(102.0)] * 3 + [flat(101.0)] * 3
    far = [flat(105.0)] * 3 + [(104.0, 104.0, 103.0, 103.0), flat(103.0), flat(103.0)]
    contracts = [{"bars": bars_of(rows), "expiry_us": hours * HOUR_US}
                 for rows, hours in zip((near, far), expiry_hours, strict=True)]  # fmt: skip
    future = leg_of("future", -1.0, None, chain=contracts, roll_days=roll_days, roll_basis_apr=roll_basis_apr,
                    coin="BTC", inverse=inverse)  # fmt: skip
    case = case_of([leg_of("spot", 1.0, spot, coin="BTC"), future], values=[None, 1.0], n_bars=6,
                   capital_usd=1_000.0 if inverse else 2_020.0, **fills)  # fmt: skip
    case["costs"][1]["fee_bps"] = fee_bps
    return case


def test_a_roll_is_two_trades_and_its_jump_is_no_profit():
    result = oracles.backtest(**chained())
    rolled = [fill for fill in result["fills"] if fill["action"] == "roll"]
    assert [(row["bar"], row["side"], row["reference"], row["position_change"]) for row in rolled] == [
        (3, 1, 101.0, 10.0), (3, -1, 104.0, -10.0),
    ]  # fmt: skip
    assert [(row["reason"], row["decision_bar"], row["trade"], row["arrival"]) for row in rolled] == [
        ("roll", 3, 1, 101.0), ("roll", 3, 1, 104.0),
    ]  # fmt: skip
    assert named(result, "roll") == [(3, "roll", "roll", 10.0)]
    assert result["cash"][3] == pytest.approx(2_020.0 + 20.0 - 1.02 + 30.0 - 1.01 - 1.04)
    assert result["equity"][2:4] == pytest.approx([2_018.98, 2_018.98 + 10.0 + 10.0 - 2.05])  # 102 to 101, 104 to 103
    assert books_of(result, 3, 1) == pytest.approx({"basis": 20.0, "fees": 3.07})
    assert [position[1] for position in result["position"]] == [0.0] + [-10.0] * 5
    assert result["metrics"]["n_rolls"] == 1
    assert result["trades"][0]["exit_bar"] is None
    assert result["basis_bps"] == pytest.approx([None, 200.0, 200.0, 200.0, 300.0, 300.0])


def test_an_inverse_roll_exchanges_the_old_contract_first():
    """1,020 contract dollars at 102 are 10 / 101 coins too many at 101: 1,020 / 101 - 10 coins at 100; then 1,040."""
    result = oracles.backtest(**chained(inverse=True, fee_bps=0.0))
    assert [face[1] for face in result["face"]][1:4] == pytest.approx([-1_020.0, -1_020.0, -1_040.0])
    old, new = (10 - 1_020 / 101) * 100, (10 - 1_040 / 103) * 100
    assert result["equity"][3] == pytest.approx(1_000.0 - old - new)
    assert [row["fill"] for row in result["fills"] if row["action"] == "roll"] == [100.0, 100.0]
    assert books_of(result, 3, 1) == pytest.approx({"basis": -old - new})


def test_a_roll_into_the_same_prices_for_nothing_changes_nothing():
    case = chained(fee_bps=0.0)
    case["legs"][1]["chain"][0]["bars"] = case["legs"][1]["chain"][1]["bars"]
    rolled = oracles.backtest(**case)
    case["legs"][1]["bars"] = case["legs"][1].pop("chain")[1]["bars"]
    plain = oracles.backtest(**case)
    assert (rolled["metrics"]["n_rolls"], plain["metrics"]["n_rolls"]) == (1, 0)
    assert rolled["equity"] == pytest.approx(plain["equity"], rel=1e-13)
    assert books_of(rolled, 5, 1) == pytest.approx(books_of(plain, 5, 1))
    assert len(plain["fills"]) == len(rolled["fills"]) - 2


def test_an_excess_is_rolled_with_the_position_and_its_jump_is_no_price_move():
    """The future fills, the spot does not: what is to be closed two bars later is rolled in between."""
    case = chained(fee_bps=0.0, atomicity="rollback", rollback_delay_hours=2.0, model="volume", volume_cap=1e-9)
    case["signal"]["values"] = [None, None, 1.0, None, None, None]
    for contract in case["legs"][1]["chain"]:
        contract["bars"] = [(*bar[:5], 1e12) for bar in contract["bars"]]
    case["legs"][0]["bars"] = [(*bar[:5], 0.0) for bar in case["legs"][0]["bars"]]
    result = oracles.backtest(**case)
    assert actions(result) == [(2, 1, "entry"), (3, 1, "roll"), (3, 1, "roll"), (4, 1, "rollback")]
    assert books_of(result, 3, 1) == pytest.approx({"rollback_price": -20.0})
    assert books_of(result, 4, 1) == pytest.approx({"rollback_price": -20.0})
    assert result["equity"][-1] == pytest.approx(2_020.0 + 20.0)


def test_an_order_in_flight_takes_its_arrival_price_to_the_new_contract():
    """An entry decided at 102 in bar 2 sells at 103 in bar 4, where it would have been 105 without a move."""
    case = chained(fee_bps=0.0)
    case["signal"]["values"] = [None, None, 1.0, None, None, None]
    case["fills"]["latency_hours"] = 2.0
    result = oracles.backtest(**case)
    (row,) = [fill for fill in result["fills"] if fill["leg"] == 1]
    assert (row["bar"], row["arrival"], row["fill"], row["delay"]) == (4, 105.0, 103.0, pytest.approx(20.0))
    assert books_of(result, 4, 1) == pytest.approx({"basis": 20.0, "delay": 20.0})


def test_an_exit_decided_in_the_bar_of_a_roll_has_seen_the_new_contract():
    case = chained(fee_bps=0.0)
    case["signal"]["values"][3] = 0.0
    result = oracles.backtest(**case)
    assert actions(result)[2:] == [(3, 1, "roll"), (3, 1, "roll"), (3, 0, "exit"), (3, 1, "exit")]
    assert (result["fills"][-1]["arrival"], result["fills"][-1]["delay"]) == (104.0, 0.0)
    assert result["cash"][3] == pytest.approx(2_020.0 + 10.0)


def test_a_chain_rolls_early_on_a_low_basis_and_is_delivered_without_a_bar_to_roll_in():
    apr = 0.01 * 8_760 / (1_000 - 4)  # at bar 4 the last close is 1% above, before that 2%
    for limit, rolls in ((apr + 1e-9, [(4, "roll", "roll", 10.0)]), (apr - 1e-9, [])):
        assert named(oracles.backtest(**chained(expiry_hours=(1_000, 2_000), roll_basis_apr=limit)), "roll") == rolls
    case = chained(expiry_hours=(5, 50))
    case["legs"][1]["chain"][1]["bars"] = [bar for bar in case["legs"][1]["chain"][1]["bars"] if bar[0] < 2 * HOUR_US]
    assert named(oracles.backtest(**case), "roll", "delivery") == [(5, "delivery", "expiry", 10.0)]


def test_a_chain_begins_in_the_first_contract_that_has_not_expired():
    case = chained(expiry_hours=(2, 50))
    case["start_us"] = 2 * HOUR_US
    case["signal"]["values"] = [None, 1.0, None, None]
    result = oracles.backtest(**case)
    assert actions(result) == [(1, 0, "entry"), (1, 1, "entry")]
    assert result["fills"][1]["fill"] == 104.0
    assert result["basis_bps"][0] == pytest.approx(500.0)


# -------------------------------------------------------------------------------------------------- auto-deleveraging


def deleveraged(share, values=(None, 1.0)):
    rows = [flat(100.0), flat(100.0), (110.0, 112.0, 108.0, 108.0), flat(109.0), flat(109.0)]
    legs = [leg_of("spot", 1.0, rows), leg_of("perp", -1.0, rows, adl=[(2 * HOUR_US, share), (HOUR_US + 1, 1.0)])]
    return oracles.backtest(**case_of(legs, values=list(values), n_bars=5, capital_usd=2_000.0, fee_bps=10.0))


def test_half_a_leg_is_taken_and_half_the_other_follows():
    result = deleveraged(0.5)
    assert result["position"] == [[0.0, 0.0], [10.0, -10.0], [10.0, -5.0], [5.0, -5.0], [5.0, -5.0]]
    assert named(result, "adl", "resize", "exit") == [(2, "adl", "adl", 5.0), (3, "resize", "adl", 5.0)]
    taken, follows = result["fills"][2:]
    assert (taken["action"], taken["fill"], taken["fee"], taken["position_change"]) == ("adl", 110.0, 0.0, 5.0)
    assert (follows["action"], follows["reason"]) == ("resize", "adl")
    assert (follows["arrival"], follows["fill"]) == (108.0, 109.0)
    # 5 at 110 and 5 on to the close at 108, where the reference goes the same ways
    assert books_of(result, 2, 1) == pytest.approx({"delta": -50.0 - 40.0, "fees": 1.0})
    assert result["equity"][2] == pytest.approx(2_000.0 - 2.0 - 10.0)
    assert result["equity"][-1] == pytest.approx(2_000.0 - 2.0 - 10.0 + 5.0 - 0.545)
    assert (result["trades"][0]["exit_bar"], result["naked"][2:4]) == (None, [True, False])


def test_what_is_left_of_a_combo_leaves_as_that():
    result = deleveraged(0.5, values=(None, 1.0, None, None, 0.0))
    assert named(result, "resize", "exit") == [(3, "resize", "adl", 5.0), (4, "exit", "signal", 5.0)]


def test_legs_that_are_taken_together_end_the_trade_at_once():
    rows = [flat(100.0)] * 4
    legs = [leg_of("perp", ratio, rows, adl=[(2 * HOUR_US, 1.0)]) for ratio in (1.0, -1.0)]
    result = oracles.backtest(**case_of(legs, values=[None, 1.0], n_bars=4, capital_usd=2_000.0))
    assert named(result, "adl", "exit") == [(2, "adl", "adl", 10.0)] * 2
    assert (result["trades"][0]["exit_bar"], result["trades"][0]["reason"]) == (2, "adl")


def test_what_an_entry_that_fails_has_left_is_sold_after_a_deleveraging():
    """Five spot and ten short wait to be closed in bar 4; five short are taken in bar 2, and all leaves in bar 3."""
    rows = [flat(100.0), flat(100.0), flat(102.0), flat(103.0), flat(103.0)]
    legs = [leg_of("spot", 1.0, rows), leg_of("perp", -1.0, rows, adl=[(2 * HOUR_US, 0.5)])]
    legs[0]["bars"] = [(*bar[:5], 5.0) for bar in legs[0]["bars"]]
    case = case_of(legs, values=[None, 1.0], n_bars=5, capital_usd=2_000.0, model="volume", volume_cap=1.0,
                   atomicity="rollback", rollback_delay_hours=3.0)  # fmt: skip
    result = oracles.backtest(**case)
    assert result["position"] == [[0.0, 0.0], [5.0, -10.0], [5.0, -5.0], [0.0, 0.0], [0.0, 0.0]]
    assert named(result, "adl", "exit", "resize") == [(2, "adl", "adl", 5.0), (3, "exit", "adl", 5.0)]
    assert books_of(result, 2, 1) == pytest.approx({"rollback_price": 20.0})
    assert books_of(result, 4, 1) == pytest.approx({"rollback_price": 20.0, "delay": 5.0})
    assert result["trades"] == []


def test_a_leg_that_is_taken_in_whole_ends_the_trade():
    result = deleveraged(1.0)
    assert [position[0] for position in result["position"]] == [0.0, 10.0, 10.0, 0.0, 0.0]
    assert named(result, "adl", "resize", "exit") == [(2, "adl", "adl", 10.0), (3, "exit", "adl", 10.0)]
    assert (result["trades"][0]["exit_bar"], result["trades"][0]["reason"]) == (3, "adl")
    assert books_of(result, 2, 1) == pytest.approx({"delta": -100.0, "fees": 1.0})


# -------------------------------------------------------------------------------------------------------------- loans


def loop(collateral, **more):
    """10.5 of a staked token against 9.5 of the coin, threshold 0.95, bonus 1%: ten of equity, a health of 1.05."""
    n_bars = len(collateral)
    legs = [leg_of("lending", 10.5, collateral, loan_threshold=0.95, loan_bonus=0.01, index=[(0, 1.0)]),
            leg_of("lending", -9.5, [flat(100.0)] * n_bars, index=[(0, 1.0)])]  # fmt: skip
    for leg in legs:
        leg |= more
    wallets = {"mode": "pooled", "margin": "venue"}
    return case_of(legs, values=[None, 1.0], n_bars=n_bars, capital_usd=1_000.0, wallets=wallets)


def test_half_of_a_loan_is_repaid_where_its_health_is_one():
    rows = [flat(100.0), flat(100.0), (100.0, 101.0, 90.0, 96.0), flat(95.0), flat(95.0)]
    result = oracles.backtest(**loop(rows))
    price = 100 / 1.05
    assert result["position"][1] == pytest.approx([105.0, -95.0])
    taken = 4_750 * 1.01 / price
    assert result["position"][2] == pytest.approx([105.0 - taken, -47.5])
    assert [(row["fill"], row["position_change"], row["fee"]) for row in result["fills"][2:4]] == [
        (pytest.approx(price), pytest.approx(-taken), 0.0), (100.0, 47.5, 0.0),
    ]  # fmt: skip
    assert books_of(result, 2, 0)["liquidation"] == pytest.approx(47.5)
    assert result["cash"][1:3] == pytest.approx([0.0, 0.0])
    assert actions(result)[4:] == [(3, 0, "exit"), (3, 1, "exit")]
    assert named(result, "liquidation", "exit") == [
        (2, "liquidation", "liquidation", taken), (3, "exit", "liquidation", pytest.approx(5.2024, abs=1e-3)),
    ]  # fmt: skip
    assert result["equity"][-1] == pytest.approx((105.0 - taken) * 95 - 4_750)
    assert result["metrics"]["n_liquidations"] == 1
    assert result["metrics"]["min_margin_ratio"] is None


def test_a_gap_takes_all_the_collateral_and_the_rest_of_the_debt_is_the_protocols():
    result = oracles.backtest(**loop([flat(100.0), flat(100.0), flat(85.0), flat(85.0)]))
    assert result["position"][2] == [0.0, 0.0]
    assert books_of(result, 2, 0)["liquidation"] == pytest.approx(8_925.0 - 9_500.0)
    assert result["equity"][-1] == pytest.approx(0.0, abs=1e-9)
    assert (result["trades"][0]["exit_bar"], result["trades"][0]["reason"]) == (2, "liquidation")


def test_a_small_loan_is_repaid_in_whole():
    case = loop([flat(100.0), flat(100.0), (100.0, 100.0, 90.0, 96.0), flat(95.0)])
    case["size"]["capital_usd"] = 200.0
    result = oracles.backtest(**case)
    assert result["position"][2] == [pytest.approx(21.0 - 1_900 * 1.01 / (100 / 1.05)), 0.0]


def test_the_health_of_a_loan_is_about_the_prices_of_its_oracle():
    rows = [flat(100.0), flat(100.0), (100.0, 100.0, 50.0, 100.0), flat(100.0), flat(100.0)]
    case = loop(rows)
    oracle = [(t * HOUR_US, *flat(price)) for t, price in ((0, 100.0), (1, 96.0), (3, 95.0))]
    case["legs"][0]["mark_bars"] = oracle
    (row,) = named(oracles.backtest(**case), "liquidation")  # in bar 2 it is the last, 96
    assert row[0] == 3
    case["legs"][0]["mark_bars"] = oracle[:2]
    assert named(oracles.backtest(**case), "liquidation") == []


def test_a_loan_without_a_test_of_margin_is_left_alone_and_debts_grow():
    case = loop([flat(100.0), flat(100.0), flat(85.0), flat(100.0)])
    case["wallets"] = {"mode": "pooled"}
    for leg, now in zip(case["legs"], (1.002, 1.01), strict=True):
        leg["index"] = [(0, 1.0), (3 * HOUR_US, now)]
    result = oracles.backtest(**case)
    assert result["position"][3] == pytest.approx([105.0 * 1.002, -95.0 * 1.01])
    assert books_of(result, 3, 0)["yield"] == pytest.approx(105.0 * 0.002 * 85.0)
    assert books_of(result, 3, 1)["borrow"] == pytest.approx(95.0)
    assert not any(result["naked"])


def test_a_debt_that_is_being_repaid_grows_in_cash():
    case = loop([flat(100.0)] * 5)
    case["signal"]["values"] = [1.0, None, 0.0, None, None]
    case["fills"]["latency_hours"] = 1.0
    case["legs"][1]["index"] = [(0, 1.0), (3 * HOUR_US, 1.01)]
    result = oracles.backtest(**case)
    assert result["position"][2] == pytest.approx([105.0, -95.0])
    assert books_of(result, 3, 1) == pytest.approx({"borrow": 95.0})
    assert result["cash"][3] == pytest.approx(1_000.0 - 95.0)


def test_every_action_on_chain_pays_its_gas():
    """373,331 gas at 2 gwei and 3,000 dollars are 2.24 dollars, and ten times that an hour later."""
    gas = 373_331 * 2e-9 * 3_000
    case = loop([flat(100.0)] * 4, gas=[(0, gas), (2 * HOUR_US, 10 * gas)])
    case["signal"]["values"] = [None, 1.0, 0.0, None]
    result = oracles.backtest(**case)
    assert [fill["fee"] for fill in result["fills"]] == pytest.approx([gas, gas, 10 * gas, 10 * gas])
    assert books_of(result, 3, 0) == pytest.approx({"fees": 11 * gas})
    assert result["cash"][3] == pytest.approx(1_000.0 - 22 * gas)


# ---------------------------------------------------------------------------------------------------- fees of the day


def daily(values, **more):
    bar_us = 6 * HOUR_US
    rows = [flat(100.0)] * len(values)
    legs = [leg_of(kind, ratio, rows, bar_us=bar_us, **more) for kind, ratio in (("spot", 1.0), ("perp", -1.0))]
    return case_of(legs, values=values, n_bars=len(values), capital_usd=2_000.0, bar_us=bar_us, fee_bps=99.0)


def rates(result, leg):
    return [round(fill["fee"] / fill["notional"] * 1e4, 9) for fill in result["fills"] if fill["leg"] == leg]


def test_a_fee_follows_the_volume_of_past_days_only():
    """About 1,000 a fill: four are past 3,500 at the end of the first day, with what was traded before it two are."""
    values = [None, 1.0, 0.0, 1.0, None, 0.0]
    case = daily(values, fee_tiers=[(0.0, 10.0), (3_500.0, 5.0), (1e6, 1.0)], fee_group="a")
    assert rates(oracles.backtest(**case), 0) == [10.0, 10.0, 10.0, 5.0]
    for leg in case["legs"]:
        leg["fee_group"] = leg["kind"]  # each for itself: about 3,000
    assert rates(oracles.backtest(**case), 1) == [10.0] * 4
    case["costs"][1]["volume_30d_usd"] = 600.0
    result = oracles.backtest(**case)
    assert (rates(result, 0), rates(result, 1)) == ([10.0] * 4, [10.0, 10.0, 10.0, 5.0])
    case["costs"][0]["volume_30d_usd"] = 1e6
    assert rates(oracles.backtest(**case), 0) == [1.0] * 4


def test_volume_is_forgotten_after_thirty_days():
    legs, stamps = [{"fee_group": "a"}, {"fee_group": "b"}], [day * DAY_US + HOUR_US for day in range(40)]
    fills = [{"leg": leg, "bar": bar, "notional": 10.0**leg * 2.0**bar} for leg in (0, 1) for bar in (3, 4, 33, 34)]
    assert oracles.turnover_before(fills, legs, "a", 34, stamps) == 2.0**4 + 2.0**33
    assert oracles.turnover_before(fills, legs, "b", 33, stamps) == 10.0 * (2.0**3 + 2.0**4)


def test_fees_and_margin_tiers_are_those_of_the_day():
    case = daily([None, 1.0, None, None, 0.0, None], fee_rows=[(0, 10.0), (1, 4.0), (2, 1.0)])
    assert rates(oracles.backtest(**case), 0) == [10.0, 4.0]
    case = daily([None, 1.0, None, None, None, None])
    case["size"]["leverage"] = 5.0
    case["wallets"] = {"mode": "pooled", "margin": "venue"}
    case["legs"][1]["tier_rows"] = [(0, [(0.0, 0.01, 0.0)]), (1, [(0.0, 0.5, 0.0)])]
    assert [row[:2] for row in named(oracles.backtest(**case), "liquidation")] == [(4, "liquidation")]


def test_a_fee_in_base_is_sized_on_the_fee_of_the_decision_and_ordered_with_that_of_the_fill():
    case = daily([None, None, None, 1.0, None], fee_rows=[(0, 100.0), (1, 50.0)])
    case["costs"][0]["fee_in_base"] = True
    case["costs"][1]["fee_bps"] = 0.0
    case["legs"][1].pop("fee_rows")
    case["fills"]["latency_hours"] = 6.0
    bought = oracles.backtest(**case)["fills"][0]
    assert (bought["bar"], bought["position_change"]) == (4, pytest.approx(10.0 * 0.99))
    assert bought["quantity"] == pytest.approx(9.9 / 0.995)
