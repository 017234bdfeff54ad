"""The oracle's fills that are not certain, alone: books, atomicity, random numbers, and trades worked by hand."""

import copy

import numpy as np
import oracles
import pytest
import strategies
from hypothesis import HealthCheck, assume, event, given, settings

HOUR_US = 3_600_000_000
RANDOM = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
SIGNS = {name: 1.0 if name in ("delta", "basis", "funding") else -1.0 for name in oracles.BOOKS}


def simulated(case):
    assume(strategies.run_stamps(case))
    return oracles.backtest(**case)


def with_fills(case, **options):
    return copy.deepcopy(case) | {"fills": {"latency_hours": case["fills"]["latency_hours"]} | options}


def named(result, *names):
    return [row for row in result["events"] if row["event"] in names]


def cash_of(fill, case):
    """Cash one fill moves: a fee in base is in the quantity already."""
    leg, cost, change = case["legs"][fill["leg"]], case["costs"][fill["leg"]], fill["position_change"]
    if cost["fee_in_base"] and leg["kind"] == "spot" and change > 0:
        return -fill["quantity"] * fill["fill"]
    return -change * fill["fill"] - fill["fee"]


# ---------------------------------------------------------------------------------------------------- over all options


@RANDOM
@given(case=strategies.uncertain_cases())
def test_ten_books_are_the_change_of_equity_of_every_leg_at_every_bar(case):
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
            booked = sum(SIGNS[name] * value for name, value in books[i].items())
            assert abs(leg_cash[i] + result["position"][t][i] * prices[i].close[t] - booked) <= tolerance
            assert abs(ledger[i] - result["position"][t][i]) * prices[i].close[t] <= tolerance
            total += booked
        assert abs(result["equity"][t] - capital - total) <= tolerance
    event(f"rollbacks: {min(result['metrics']['n_rollbacks'], 2)}")
    event(f"{case['fills']['model']}, {case['fills'].get('atomicity')}: fills {bool(result['fills'])}")


def rolled_back_or_kept(case):
    """The case with atomic entries and no way out, its run, and the fills of orders that were rolled back."""
    case = case | {"fills": case["fills"] | {"atomicity": "rollback"}}
    case["rule"] |= {"exit": -1e18, "max_hold_hours": None, "stop_loss_pct": None, "reverse": False}
    result = simulated(case)
    n_kept = len(named(result, "entry")) * len(case["legs"])
    return case, result, result["fills"][: len(result["fills"]) - n_kept]


@RANDOM
@given(case=strategies.uncertain_cases())
def test_what_a_rollback_costs_is_what_its_legs_paid_and_lost(case):
    case, result, fills = rolled_back_or_kept(case)
    assume(sum(1 if fill["action"] == "entry" else -1 for fill in fills) == 0)  # none is open at the end
    tolerance = 1e-9 * max(1.0, sum(fill["notional"] for fill in result["fills"]))
    for i, books in enumerate(result["books"][-1]):
        own = [fill for fill in fills if fill["leg"] == i]
        paid = sum(fill[part] for fill in own for part in ("delay", "spread", "bucket", "impact", "fee"))
        bought_dear = sum(fill["position_change"] * fill["arrival"] for fill in own)
        assert abs(books["rollback_execution"] - paid) <= tolerance
        assert abs(books["rollback_price"] - bought_dear) <= tolerance
        if not named(result, "entry"):
            assert all(abs(books[name]) <= tolerance for name in oracles.BOOKS[:8] if name != "funding")
    event(f"rolled back: {bool(fills)}")


@RANDOM
@given(case=strategies.uncertain_cases())
def test_an_atomic_entry_ends_flat_or_whole(case):
    case, result, fills = rolled_back_or_kept(case)
    entry = named(result, "entry")
    assert len(entry) == result["metrics"]["n_trades"] <= 1
    for t, position in enumerate(result["position"]):
        n_open = sum(1 if fill["action"] == "entry" else -1 for fill in result["fills"] if fill["bar"] <= t)
        if n_open == 0:
            assert position == [0.0] * len(position)
        if entry and t >= entry[0]["bar"]:
            assert n_open == len(position)
            assert position == [fill["position_change"] for fill in sorted(result["fills"][-n_open:], key=leg_of)]
            assert not result["naked"][t]
        assert result["direction"][t] == (1 if entry and t >= entry[0]["bar"] else 0)
    for row in named(result, "unfilled"):
        assert result["position"][row["bar"]] == [0.0] * len(case["legs"])
    event(f"rolled back: {bool(fills)}, kept: {bool(entry)}")


def leg_of(fill):
    return fill["leg"]


@RANDOM
@given(case=strategies.cases())
def test_sure_fills_are_the_certain_ones_bit_for_bit(case):
    for leg in case["legs"]:
        leg["bars"] = [(*row[:5], max(row[5], 1.0)) for row in leg["bars"]]
    certain = simulated(case)
    for options in (
        {"model": "bernoulli", "fill_probability": 1.0, "seed": 5, "atomicity": "match"},
        {"model": "volume", "volume_cap": 1e15, "atomicity": "naked"},
        {"model": "certain", "reject_probability": 0.0, "rollback_delay_hours": 3.0, "rollback_penalty_bps": 9.0},
        {"latency_hours": [case["fills"]["latency_hours"]] * len(case["legs"]), "max_cost_bps": 1e9},
    ):
        other = simulated(with_fills(case, **options))
        assert repr(other) == repr(certain), options
    assert certain["metrics"]["n_rollbacks"] == certain["metrics"]["rollback_usd"] == 0


@RANDOM
@given(case=strategies.uncertain_cases())
def test_legs_that_answer_in_one_bar_and_are_closed_in_it_are_never_naked(case):
    options = case["fills"] | {"rollback_delay_hours": 0.0, "latency_hours": 0.0}
    assume(options["model"] != "maker")
    for atomicity in ("rollback", "match"):
        result = simulated(with_fills(case, **(options | {"atomicity": atomicity})))
        assert not any(result["naked"])
        assert result["metrics"]["naked_hours"] == 0.0
        assert result["metrics"]["n_rollbacks"] == len(named(result, "rollback"))
    event(f"rollbacks: {result['metrics']['n_rollbacks'] > 0}")


@RANDOM
@given(case=strategies.uncertain_cases())
def test_naked_legs_are_as_they_were_drawn(case):
    options = {"latency_hours": 0.0, "model": "bernoulli", "fill_probability": 0.5, "seed": 99, "trial": 3}
    options["atomicity"] = "naked"
    result = simulated(with_fills(case, **options))
    for row in named(result, "entry"):
        for i, leg in enumerate(case["legs"]):
            wanted = row["direction"] * leg["ratio"] * row["quantity"]
            drawn = uniform_of_numpy(99, 3, row["bar"], i, 0) < 0.5
            assert result["position"][row["bar"]][i] == (pytest.approx(wanted, rel=1e-12) if drawn else 0.0)
    for row in named(result, "unfilled"):
        assert all(uniform_of_numpy(99, 3, row["bar"], i, 0) >= 0.5 for i in range(len(case["legs"])))
    entries = {fill["decision_bar"] for fill in result["fills"] if fill["action"] == "entry"}
    assert not [fill for fill in result["fills"] if fill["action"] == "rollback" and fill["decision_bar"] in entries]
    assert result["metrics"]["n_unfilled"] == len(named(result, "unfilled"))
    event(f"naked: {any(result['naked'])}")


# ------------------------------------------------------------------------------------------------------ random numbers


def mix_of_numpy(value):
    """The same shuffle in arithmetic that wraps by itself."""
    with np.errstate(over="ignore"):
        z = np.uint64(value) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return int(z ^ (z >> np.uint64(31)))


def uniform_of_numpy(seed, trial, bar, leg, stream):
    z = mix_of_numpy(mix_of_numpy(mix_of_numpy(mix_of_numpy(mix_of_numpy(seed) ^ trial) ^ bar) ^ leg) ^ stream)
    return (z // 2048) / 2**53


def test_the_shuffle_is_that_of_splitmix64():
    """Published outputs: of state 0 the first, of state 1234567 the first three (its state grows by the constant)."""
    assert oracles.mix(0) == 0xE220A8397B1DCDAF
    states = [(1234567 + k * 0x9E3779B97F4A7C15) % 2**64 for k in range(3)]
    assert [oracles.mix(state) for state in states] == [
        6457827717110365317, 3203168211198807973, 9817491932198370423,
    ]  # fmt: skip


def test_draws_depend_on_each_of_their_five_keys_and_cover_the_unit_interval():
    keys = [(seed, trial, bar, leg, stream) for seed in (0, 1, 2**64 - 1) for trial in (0, 5) for bar in range(300)
            for leg in range(3) for stream in (0, 1)]  # fmt: skip
    draws = [oracles.uniform(*key) for key in keys]
    assert draws == [uniform_of_numpy(*key) for key in keys]
    assert len(set(draws)) == len(draws)
    assert 0.0 <= min(draws) < max(draws) < 1.0
    assert abs(sum(draws) / len(draws) - 0.5) < 4 * (1 / 12 / len(draws)) ** 0.5


# ------------------------------------------------------------------------------------------------------------- by hand


def two_legs(spot, perp, *, fills, values, settlements=(), spot_volume=None, perp_volume=None, **changes):
    """1,000 dollars in spot against perp, 10 bps of half spread and 20 bps of fee; rows are open, high, low, close."""

    def leg(kind, ratio, rows, volume):
        volume = volume or [10.0] * len(rows)
        return {
            "kind": kind,
            "ratio": ratio,
            "bars": [(t * HOUR_US, *row, volume[t]) for t, row in enumerate(rows) if row is not None],
            "step_us": HOUR_US,
            "mark_bars": [],
            "mark_step_us": HOUR_US,
            "settlements": [(t * HOUR_US, rate, mark, None) for t, rate, mark in settlements] if kind == "perp" else [],
            "lot": 0.0,
            "min_notional_usd": 0.0,
        }

    cost = {"half_spread_bps": 10.0, "fee_bps": 20.0, "fee_in_base": False, "bucket_usd": [], "bucket_bps": [],
            "impact_coef_bps": 0.0, "impact_exponent": 0.5}  # fmt: skip
    rule = {"entry": 1.0, "exit": 0.0, "reverse": False, "min_hold_hours": None, "max_hold_hours": None,
            "cooldown_hours": None, "stop_loss_pct": None, "max_basis_bps": None}  # fmt: skip
    return {
        "legs": [leg("spot", 1.0, spot, spot_volume), leg("perp", -1.0, perp, perp_volume)],
        "start_us": 0,
        "end_us": len(spot) * HOUR_US,
        "bar_us": HOUR_US,
        "signal": {"values": values},
        "rule": rule,
        "size": {"capital_usd": 1_000.0, "allocation": 1.0, "leverage": 1.0, "compounding": True},
        "costs": [cost | changes, cost | changes],
        "fills": {"latency_hours": 0.0} | fills,
    }


def flat(*prices):
    """Rows that open at one price, close at the next and go no further."""
    return [(a, max(a, b), min(a, b), b) for a, b in zip(prices, prices[1:], strict=False)]


def seed_that_refuses(leg, *, bar):
    """A seed under which one of two legs is refused in a bar, and the other one isn't, at even odds."""
    other = 1 - leg
    return next(
        seed
        for seed in range(1000)
        if uniform_of_numpy(seed, 0, bar, leg, 1) < 0.5 <= uniform_of_numpy(seed, 0, bar, other, 1)
    )


def books_of(result, t, leg):
    return {name: value for name, value in result["books"][t][leg].items() if value != 0.0}


def test_a_rollback_at_once_by_hand():
    """Buy 5 at 100 (0.50 of spread, fee 0.2% of 500.50), sell them at 100 less 10 + 30 bps (2.00; 0.2% of 498)."""
    fills = {"reject_probability": 0.5, "seed": seed_that_refuses(1, bar=1), "rollback_penalty_bps": 30.0}
    prices = flat(100.0, 100.0, 101.0, 103.0)
    result = oracles.backtest(**two_legs(prices, prices, fills=fills, values=[None, 1.0, None]))
    bought, sold = result["fills"]
    assert [(fill["bar"], fill["leg"], fill["action"], fill["side"]) for fill in result["fills"]] == [
        (1, 0, "entry", 1), (1, 0, "rollback", -1),
    ]  # fmt: skip
    assert (bought["fill"], bought["spread"], bought["fee"]) == pytest.approx((100.1, 0.5, 1.001))
    assert (sold["arrival"], sold["reference"], sold["fill"]) == pytest.approx((100.0, 100.0, 99.6))
    assert (sold["spread"], sold["fee"], sold["delay"]) == pytest.approx((2.0, 0.996, 0.0))
    assert result["position"][1] == [0.0, 0.0]
    assert books_of(result, 1, 0) == pytest.approx({"rollback_execution": 4.497})
    assert books_of(result, 2, 1) == {}
    assert result["equity"][1:] == pytest.approx([995.503, 995.503])
    assert [(row["bar"], row["event"], row["quantity"]) for row in result["events"]] == [(1, "rollback", 5.0)]
    assert result["trades"] == []
    found = result["metrics"]
    assert (found["n_rollbacks"], found["n_unfilled"], found["n_trades"], found["naked_hours"]) == (1, 0, 0, 0.0)
    assert found["rollback_usd"] == pytest.approx(4.497)


def test_a_rollback_two_hours_later_by_hand():
    """Sold 5 at 101 (decided at 100), bought back at 104: 20 by price, 5 of delay earned, funding stays funding."""
    prices = flat(99.0, 100.0, 101.0, 102.0, 104.0, 110.0)
    fills = {"latency_hours": 1.0, "reject_probability": 0.5, "seed": seed_that_refuses(0, bar=2),
             "rollback_delay_hours": 1.5}  # fmt: skip
    result = oracles.backtest(
        **two_legs(
            prices,
            prices,
            fills=fills,
            values=[None, 1.0, 1.0, 1.0, None],
            settlements=[(2, 0.7, 101.0), (3, 1e-3, 102.0)],
        )
    )
    assert [(fill["bar"], fill["leg"], fill["action"]) for fill in result["fills"]] == [
        (2, 1, "entry"), (4, 1, "rollback"),
    ]  # fmt: skip
    sold, bought = result["fills"]
    assert (sold["delay"], sold["fill"], sold["spread"], sold["fee"]) == pytest.approx((-5.0, 100.899, 0.505, 1.00899))
    assert (bought["fill"], bought["spread"], bought["fee"]) == pytest.approx((104.104, 0.52, 1.04104))
    moved = -5.0 + 0.505 + 1.00899
    assert books_of(result, 2, 1) == pytest.approx({"rollback_execution": moved, "rollback_price": 10.0}, abs=1e-12)
    assert books_of(result, 3, 1) == pytest.approx(
        {"funding": 0.51, "rollback_execution": moved, "rollback_price": 20.0}, abs=1e-12
    )
    assert books_of(result, 4, 1) == pytest.approx(
        {"funding": 0.51, "rollback_execution": moved + 0.52 + 1.04104, "rollback_price": 20.0}, abs=1e-12
    )
    assert result["equity"][4] == pytest.approx(1000.0 + 504.495 - 1.00899 - 520.52 - 1.04104 + 0.51)
    assert result["naked"] == [False, False, True, True, False]
    assert result["metrics"]["naked_hours"] == 2.0
    assert [(row["bar"], row["event"]) for row in result["events"]] == [(2, "rollback")]


def test_a_leg_that_comes_later_moves_what_the_first_has_earned_so_far():
    """Spot bought at 100 in bar 1, perp refused in bar 3 at two hours more: booked as delta until then."""
    prices = flat(100.0, 100.0, 103.0, 104.0, 109.0, 109.0)
    fills = {"latency_hours": [0.0, 2.0], "model": "volume", "volume_cap": 1.0, "rollback_delay_hours": 1.0}
    result = oracles.backtest(
        **two_legs(
            prices, prices, fills=fills, values=[None, 1.0, 1.0, 1.0, 1.0], perp_volume=[9.0, 9.0, 9.0, 0.0, 9.0]
        )
    )
    fee = 1.001
    assert books_of(result, 1, 0) == pytest.approx({"delta": 15.0, "fees": fee, "spread": 0.5})
    assert books_of(result, 2, 0) == pytest.approx({"delta": 20.0, "fees": fee, "spread": 0.5})
    rolled = {"rollback_execution": 0.5 + fee, "rollback_price": -45.0}
    assert {k: v for k, v in books_of(result, 3, 0).items() if abs(v) > 1e-12} == pytest.approx(rolled)
    closing = 5 * 109.0 * 1e-3
    rolled["rollback_execution"] += closing + 5 * 109.0 * (1 - 1e-3) * 2e-3
    assert {k: v for k, v in books_of(result, 4, 0).items() if abs(v) > 1e-12} == pytest.approx(rolled)
    assert [(fill["bar"], fill["action"]) for fill in result["fills"]] == [(1, "entry"), (4, "rollback")]
    assert result["direction"] == [0, 0, 0, 0, 0]


def test_a_match_by_hand():
    """Spot gets all 5, perp 2 of 5: 3 are sold again, 2 stay, and the other 3 come an hour later with the delay."""
    spot, perp = flat(100.0, 100.0, 101.0, 101.0), flat(100.0, 100.0, 102.0, 102.0)
    fills = {"model": "volume", "volume_cap": 0.5, "atomicity": "match"}
    result = oracles.backtest(
        **two_legs(
            spot,
            perp,
            fills=fills,
            values=[None, 1.0, 0.0],
            spot_volume=[8.0, 10.0, 12.0],
            perp_volume=[8.0, 4.0, 12.0],
            fee_bps=0.0,
        )
    )
    assert [(f["bar"], f["leg"], f["action"], f["position_change"]) for f in result["fills"]] == [
        (1, 0, "entry", 5.0), (1, 1, "entry", -2.0), (1, 0, "rollback", pytest.approx(-3.0)),
        (2, 0, "entry", pytest.approx(3.0)), (2, 1, "entry", pytest.approx(-3.0)),
    ]  # fmt: skip
    assert result["position"][1] == pytest.approx([2.0, -2.0])
    assert result["position"][2] == pytest.approx([5.0, -5.0])
    # in bar 1 the spot goes to 101 and the perp to 102; the first leg is the reference
    assert books_of(result, 1, 0) == pytest.approx({"delta": 2.0, "spread": 0.2, "rollback_execution": 0.3 + 0.3})
    assert books_of(result, 1, 1) == pytest.approx({"delta": -2.0, "basis": -2.0, "spread": 0.2})
    assert books_of(result, 2, 0) == pytest.approx(
        {"delta": 5.0, "spread": 0.2 + 0.303, "delay": 3.0, "rollback_execution": 0.6}
    )
    assert books_of(result, 2, 1) == pytest.approx({"delta": -5.0, "basis": -5.0, "spread": 0.2 + 0.306, "delay": -6.0})
    assert [(row["bar"], row["event"], row["quantity"]) for row in result["events"]] == [
        (1, "entry", pytest.approx(2.0)), (1, "rollback", pytest.approx(3.0)), (2, "entry", pytest.approx(3.0)),
    ]  # fmt: skip
    assert result["trades"] == [{"entry_bar": 1, "exit_bar": None, "pnl": None}]
    assert result["metrics"]["n_trades"] == result["metrics"]["n_rollbacks"] == 1


def test_the_rest_of_a_match_waits_for_the_closing_of_its_excess():
    """The same with the 3 sold an hour later at 101, 3 dollars up: the rest comes the hour after that."""
    prices = flat(100.0, 100.0, 101.0, 101.0, 101.0)
    fills = {"model": "volume", "volume_cap": 0.5, "atomicity": "match", "rollback_delay_hours": 1.0}
    result = oracles.backtest(
        **two_legs(prices, prices, fills=fills, values=[None, 1.0, 0.0, 0.0], perp_volume=[8.0, 4.0, 12.0, 12.0])
    )
    assert result["position"] == [
        pytest.approx(position) for position in ([0.0, 0.0], [5.0, -2.0], [2.0, -2.0], [5.0, -5.0])
    ]
    assert [fill["bar"] for fill in result["fills"]] == [1, 1, 2, 3, 3]
    assert [row[0]["rollback_price"] for row in result["books"]] == pytest.approx([0.0, -3.0, -3.0, -3.0])
    assert [row[0]["delta"] for row in result["books"]] == pytest.approx([0.0, 2.0, 2.0, 5.0])
    assert [(row["bar"], row["event"]) for row in result["events"]] == [(1, "entry"), (1, "rollback"), (3, "entry")]
    assert (result["naked"], result["trades"][0]["entry_bar"]) == ([False, True, False, False], 1)


def test_an_exit_goes_on_until_flat_and_stays_hedged_on_its_way():
    """Of 5 the perp buys back 2, 0 and 3: the spot sells 5 and takes 3 back, sells 3 and takes all back, sells 3."""
    prices = flat(100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0)
    fills = {"model": "volume", "volume_cap": 1.0}
    result = oracles.backtest(
        **two_legs(
            prices,
            prices,
            fills=fills,
            values=[None, 1.0, 0.0, 1.0, 1.0, None],
            perp_volume=[9.0, 9.0, 2.0, 0.0, 9.0, 9.0],
            fee_bps=0.0,
        )
    )
    assert result["position"] == [
        [0.0, 0.0], [5.0, -5.0], [pytest.approx(3.0), pytest.approx(-3.0)], [pytest.approx(3.0), pytest.approx(-3.0)],
        [0.0, 0.0], [0.0, 0.0],
    ]  # fmt: skip
    assert [(f["bar"], f["leg"], f["action"]) for f in result["fills"]][2:] == [
        (2, 0, "exit"), (2, 1, "exit"), (2, 0, "rollback"), (3, 0, "exit"), (3, 0, "rollback"), (4, 0, "exit"),
        (4, 1, "exit"),
    ]  # fmt: skip
    assert [(row["bar"], row["event"]) for row in result["events"]] == [
        (1, "entry"), (2, "exit"), (2, "rollback"), (3, "rollback"), (4, "exit"),
    ]  # fmt: skip
    assert [(trade["entry_bar"], trade["exit_bar"]) for trade in result["trades"]] == [(1, 4)]
    assert result["books"][-1][0]["rollback_execution"] == pytest.approx(2 * (3 + 3) * 100.0 * 1e-3)
    assert result["books"][-1][0]["spread"] == pytest.approx((5 + 2 + 3) * 100.0 * 1e-3)
    assert result["trades"][0]["pnl"] == pytest.approx(-1.2 - 1.0 - 1.0)


def test_a_naked_entry_leaves_leg_by_leg():
    """Spot 5 against perp 2; on the way out the perp has no volume in bar 3 and is closed alone in bar 4."""
    prices = flat(100.0, 100.0, 100.0, 100.0, 100.0, 100.0)
    fills = {"model": "volume", "volume_cap": 1.0, "atomicity": "naked"}
    result = oracles.backtest(
        **two_legs(
            prices, prices, fills=fills, values=[None, 1.0, None, 0.0, 1.0], perp_volume=[9.0, 2.0, 9.0, 0.0, 9.0]
        )
    )
    assert result["position"] == [[0.0, 0.0], [5.0, -2.0], [5.0, -2.0], [0.0, -2.0], [0.0, 0.0]]
    assert result["naked"] == [False, True, True, True, False]
    assert [(row["bar"], row["event"], row["quantity"]) for row in result["events"]] == [
        (1, "entry", 5.0), (3, "exit", 5.0), (4, "exit", 2.0),
    ]  # fmt: skip
    assert [fill["action"] for fill in result["fills"]] == ["entry", "entry", "exit", "exit"]
    assert (result["metrics"]["n_rollbacks"], result["metrics"]["naked_hours"]) == (0, 3.0)


@pytest.mark.parametrize(
    ("low", "bar", "reference", "fill", "fee", "delay"),
    [
        (98.9, 1, 99.0, 99.0, 5 * 99.0 * -1e-4, -5.0),  # through the limit of 99: the maker's rebate, no spread
        (99.0, 2, 104.0, 104.104, 5 * 104.104 * 2e-3, 20.0),  # touched only: the next open, as a taker
    ],
)
def test_a_maker_leg_fills_through_its_limit_or_at_the_next_open(low, bar, reference, fill, fee, delay):
    spot = [(100.0, 100.0, 100.0, 100.0), (100.0, 104.0, low, 104.0), (104.0, 104.0, 104.0, 104.0)]
    perp = [(100.0, 100.0, 100.0, 100.0), (100.0, 104.0, 100.0, 104.0), (104.0, 104.0, 104.0, 104.0)]
    fills = {"model": "maker", "offset_bps": 100.0, "maker_fee_bps": [-1.0, -1.0]}
    result = oracles.backtest(**two_legs(spot, perp, fills=fills, values=[None, 1.0, None]))
    bought = next(row for row in result["fills"] if row["leg"] == 0)
    sold = next(row for row in result["fills"] if row["leg"] == 1)
    assert (bought["bar"], bought["reference"]) == (bar, reference)
    assert (bought["fill"], bought["fee"], bought["delay"]) == pytest.approx((fill, fee, delay))
    assert (sold["bar"], sold["fill"], sold["spread"]) == (1, 101.0, 0.0)
    assert (sold["delay"], sold["fee"]) == pytest.approx((-5.0, 5 * 101.0 * -1e-4))
    assert [(row["bar"], row["event"]) for row in result["events"]] == [(bar, "entry")]
    assert result["naked"][1] == (bar == 2)


def test_an_entry_without_any_fill_is_unfilled_and_tried_again_only_by_the_rule():
    prices = flat(100.0, 100.0, 100.0, 100.0)
    fills = {"model": "volume", "volume_cap": 1.0}
    case = two_legs(prices, prices, fills=fills, values=[None, 1.0, None], spot_volume=[9.0, 0.0, 9.0],
                    perp_volume=[9.0, 0.0, 9.0])  # fmt: skip
    result = oracles.backtest(**case)
    assert [(row["bar"], row["event"], row["quantity"]) for row in result["events"]] == [(1, "unfilled", 5.0)]
    assert result["metrics"]["n_unfilled"] == 1
    case["fills"]["atomicity"] = "match"
    result = oracles.backtest(**case)
    assert [(row["bar"], row["event"], row["quantity"]) for row in result["events"]] == [(2, "entry", 5.0)]
    assert result["metrics"]["n_unfilled"] == 0


def test_waiting_is_said_once_and_the_second_leg_keeps_its_distance():
    """The perp has no bars 2 and 3: the order starts in bar 4, and the perp comes one bar after the spot."""
    prices = flat(100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0)
    gappy = [None if t in (2, 3) else row for t, row in enumerate(prices)]
    fills = {"latency_hours": [1.0, 2.0]}
    result = oracles.backtest(**two_legs(prices, gappy, fills=fills, values=[None, 1.0] + [None] * 4))
    assert [(row["bar"], row["event"]) for row in result["events"]] == [(2, "waiting"), (5, "entry")]
    assert [(fill["bar"], fill["leg"]) for fill in result["fills"]] == [(4, 0), (5, 1)]
    assert result["naked"] == [False] * 4 + [True, False]
    assert result["trades"][0]["entry_bar"] == 5


def test_an_entry_is_refused_before_it_is_sent_by_cost_then_volume_then_spread():
    """10 bps of half spread and 8 bps * (5 / 10) ** 1 of impact: 14 bps, half of the volume, 20 bps of spread."""
    prices = flat(100.0, 100.0, 100.0)

    def events(**limits):
        case = two_legs(prices, prices, fills=limits, values=[None, 1.0], impact_coef_bps=8.0, impact_exponent=1.0)
        found = oracles.backtest(**case)["events"]
        return [(row["bar"], row["event"], row["reason"], row["quantity"]) for row in found]

    def refused(reason):
        return [(1, "refused", reason, 5.0)]

    sent = [(1, "entry", "signal", 5.0)]
    assert events() == sent
    assert events(max_cost_bps=14.001, max_volume_share=0.5, max_spread_bps=20.0) == sent
    assert events(max_cost_bps=13.999, max_volume_share=0.4, max_spread_bps=19.0) == refused("cost")
    assert events(max_volume_share=0.4999, max_spread_bps=19.0) == refused("volume_share")
    assert events(max_spread_bps=19.999) == refused("spread")
