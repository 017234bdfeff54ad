"""Margin and liquidation: every vector of margin.md and formulas.md 4.5, and the rules against a plain oracle."""

import math
import random
from fractions import Fraction

import margin_oracle as oracle
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from basis_bt.kernels import liquidation, margin

RANDOM = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(min_value=0, max_value=2**32)
CLOSED_FORM = 1e-8  # relative, as margin.md 8 asks
EXACT = 1e-12  # relative: the order of a handful of operations may differ, nothing else


def tiers(table):
    """Arrays ``floor, mmr, amount`` of a table of the oracle."""
    floor, mmr, amount, _ = (np.array(column, dtype=float) for column in zip(*table, strict=True))
    return floor, mmr, amount


def one_tier(mmr, amount=0.0):
    return np.zeros(1), np.array([mmr]), np.array([amount])


def padded(tables):
    """Tables of all legs ``(n_legs, n_tiers)``, the shorter ones padded with infinite floors."""
    width = max(len(table) for table in tables)
    floor = np.full((len(tables), width), np.inf)
    mmr, amount = np.zeros_like(floor), np.zeros_like(floor)
    for leg, table in enumerate(tables):
        floor[leg, : len(table)], mmr[leg, : len(table)], amount[leg, : len(table)] = tiers(table)
    return floor, mmr, amount


def linear(quantity, entry, balance, table_or_tiers, *, other_maintenance=0.0, other_pnl=0.0):
    arrays = tiers(table_or_tiers) if isinstance(table_or_tiers[0], tuple) else table_or_tiers
    return liquidation.liquidation_price_linear(quantity, entry, balance, other_maintenance, other_pnl, *arrays)


def inverse(contracts, face, entry, balance, arrays):
    return liquidation.liquidation_price_inverse(contracts, face, entry, balance, 0.0, 0.0, *arrays)


# ---------------------------------------------------------------------------------------------------------- maintenance


@pytest.mark.parametrize(
    ("notional", "expected"),
    [(1e5, 400.0), (3e5, 1_200.0), (5e5, 2_200.0), (1e6, 5_000.0), (5e6, 38_000.0), (2e7, 268_000.0), (0.0, 0.0)],
)
def test_maintenance_of_published_notionals(notional, expected):
    """margin.md 2."""
    assert margin.maintenance_usd(notional, *tiers(oracle.BINANCE_BTC)) == pytest.approx(expected, rel=EXACT)


def test_a_notional_equal_to_a_floor_belongs_to_the_tier_below():
    floor = tiers(oracle.BINANCE_BTC)[0]
    assert margin.tier_of(300_000.0, floor) == 0
    assert margin.tier_of(np.nextafter(300_000.0, np.inf), floor) == 1
    assert margin.tier_of(0.0, floor) == 0
    assert margin.tier_of(1e15, floor) == len(floor) - 1
    assert margin.tier_of(1e15, np.append(floor, np.inf)) == len(floor) - 1


@pytest.mark.parametrize("name", oracle.CONTINUOUS)
def test_maintenance_is_continuous_where_the_venue_publishes_amounts(name):
    arrays = tiers(oracle.CONTINUOUS[name])
    for cap in arrays[0][1:]:
        below, above = (margin.maintenance_usd(n, *arrays) for n in (cap, np.nextafter(cap, np.inf)))
        assert above == pytest.approx(below, rel=1e-9)


def test_maintenance_jumps_where_it_does_not():
    arrays = tiers(oracle.JUMPING)
    assert margin.maintenance_usd(250_000.0, *arrays) == pytest.approx(1_625.0, rel=EXACT)
    assert margin.maintenance_usd(250_000.01, *arrays) == pytest.approx(2_500.0001, rel=EXACT)


@RANDOM
@given(SEEDS)
def test_maintenance_equals_the_oracle(seed):
    rng = random.Random(seed)
    table = rng.choice([*oracle.CONTINUOUS.values(), oracle.JUMPING])
    notional = rng.choice([math.exp(rng.uniform(5.0, 22.0)), float(rng.choice(table)[0])])
    assert margin.maintenance_usd(notional, *tiers(table)) == oracle.maintenance(notional, table)


def test_initial_margin_is_at_the_chosen_leverage_up_to_what_the_tier_allows():
    floor, max_leverage = tiers(oracle.BINANCE_BTC)[0], np.array([float(row[3]) for row in oracle.BINANCE_BTC])
    assert margin.initial_margin_usd(100_000.0, 10.0, floor, max_leverage) == 10_000.0
    assert margin.initial_margin_usd(20_000_000.0, 50.0, floor, max_leverage) == 800_000.0


# ---------------------------------------------------------------------------------------------- linear, one position


@pytest.mark.parametrize(
    ("quantity", "entry", "balance", "closed_form", "shown"),
    [
        (1.0, 1e5, 10_000.0, 90_000.0 / 0.996, 90_361.4458),  # A
        (-1.0, 1e5, 10_000.0, 110_000.0 / 1.004, 109_561.7530),  # B
        (100.0, 1e5, 500_000.0, 9_488_000.0 / 99.0, 95_838.3838),  # C
        (-100.0, 1.1e5, 1_300_000.0, 12_432_000.0 / 102.0, 121_882.3529),  # D
        (-10.0, 1e5, 500_000.0, 1_501_500.0 / 10.065, 149_180.3279),  # E
        (-1.0, 100.0, 100.0, 200.0 / 1.004, 199.2032),  # G
        (1.0, 1e5, 9_970.0, 90_030.0 / 0.996, 90_391.5663),  # H
    ],
    ids="ABCDEGH",
)
def test_linear_cases(quantity, entry, balance, closed_form, shown):
    """margin.md 3, with the whole table of the day: the tier is found, not given."""
    price = linear(quantity, entry, balance, oracle.BINANCE_BTC)
    assert price == pytest.approx(closed_form, rel=CLOSED_FORM)
    assert price == pytest.approx(shown, abs=5e-5)


def test_case_f_a_fully_paid_long_is_never_liquidated():
    assert math.isnan(linear(1.0, 100.0, 100.0, oracle.BINANCE_BTC))
    assert math.isnan(linear(1.0, 100.0, 150.0, oracle.BINANCE_BTC))
    assert math.isnan(linear(0.0, 100.0, 100.0, oracle.BINANCE_BTC))


def test_case_d_crosses_into_the_next_tier_on_the_way():
    fourth, fifth = (one_tier(row[1], float(row[2])) for row in oracle.BINANCE_BTC[3:5])
    assert linear(-100.0, 1.1e5, 1.3e6, fourth) == pytest.approx(121_900.9901, abs=5e-5)
    price = linear(-100.0, 1.1e5, 1.3e6, oracle.BINANCE_BTC)
    assert price == linear(-100.0, 1.1e5, 1.3e6, fifth)
    assert margin.tier_of(100.0 * price, tiers(oracle.BINANCE_BTC)[0]) == 4
    assert margin.tier_of(100.0 * 1.1e5, tiers(oracle.BINANCE_BTC)[0]) == 3


@pytest.mark.parametrize(
    ("leverage", "short", "long"), [(2, 149.40, 50.20), (3, 132.80, 66.93), (5, 119.52, 80.32), (10, 109.56, 90.36)]
)
def test_leverage_against_room(leverage, short, long):
    """margin.md 3: maintenance 0.4 %, entry 100."""
    assert linear(-1.0, 100.0, 100.0 / leverage, one_tier(0.004)) == pytest.approx(short, abs=5e-3)
    assert linear(1.0, 100.0, 100.0 / leverage, one_tier(0.004)) == pytest.approx(long, abs=5e-3)


def test_linear_vectors_of_formulas():
    """formulas.md 4.5: 100,000 at 10x from 60,000; taking the tier of the collateral is the error to avoid."""
    quantity = 1_000_000.0 / 60_000.0
    short = linear(-quantity, 60_000.0, 100_000.0, oracle.BINANCE_BTC)
    assert short == pytest.approx(65_663.18926974664, rel=CLOSED_FORM)
    for table in (oracle.BINANCE_BTC, one_tier(0.0065, 1_500.0)):
        assert linear(quantity, 60_000.0, 100_000.0, table) == pytest.approx(54_262.70759939608, rel=CLOSED_FORM)
    assert linear(-quantity, 60_000.0, 100_000.0, one_tier(0.004)) == pytest.approx(65_737.05, abs=5e-3)
    assert margin.maintenance_usd(quantity * short, *tiers(oracle.BINANCE_BTC)) == pytest.approx(5_613.5122, abs=5e-5)
    assert 100_000.0 - quantity * (short - 60_000.0) == pytest.approx(5_613.5122, abs=5e-5)


class TestCrossPair:
    """margin.md 3: the wallet of Binance's FAQ, 1,535,443.01, long BTC and ETH."""

    balance = 1_535_443.01
    btc = (109.488, 32_481.98, one_tier(0.025, 16_300.0), 31_967.27)
    eth = (3_683.979, 1_456.84, one_tier(0.10, 135_365.0), 1_335.18)

    @staticmethod
    def held(leg):
        quantity, entry, arrays, mark = leg
        return margin.maintenance_usd(quantity * mark, *arrays), quantity * (mark - entry)

    def test_maintenance_and_profit_of_each(self):
        assert self.held(self.btc) == pytest.approx((71_200.811444, -56_354.56848), rel=1e-11)
        assert self.held(self.eth) == pytest.approx((356_512.508122, -448_192.88514), rel=1e-11)

    @pytest.mark.parametrize(
        ("leg", "other", "expected"), [("eth", "btc", 1_153.256464), ("btc", "eth", 26_316.893265)]
    )
    def test_each_holding_the_other_at_its_mark(self, leg, other, expected):
        quantity, entry, arrays, _ = getattr(self, leg)
        held, pnl = self.held(getattr(self, other))
        price = linear(quantity, entry, self.balance, arrays, other_maintenance=held, other_pnl=pnl)
        assert price == pytest.approx(expected, abs=5e-7)

    @pytest.mark.parametrize(("leg", "expected"), [("eth", 1_114.78), ("btc", 18_778.73)])
    def test_each_alone_on_the_wallet(self, leg, expected):
        quantity, entry, arrays, _ = getattr(self, leg)
        assert linear(quantity, entry, self.balance, arrays) == pytest.approx(expected, abs=5e-3)

    def test_path_of_one_leg_ends_at_its_price(self):
        """The wallet rule and the position rule say the same: ETH falls, BTC stands still."""
        legs = (self.btc, self.eth)
        cash = self.balance - sum(quantity * entry for quantity, entry, _, _ in legs)
        crossing = liquidation.path_crossing(
            cash, np.array([leg[0] for leg in legs]), np.ones(2), np.array([True, True]), -np.ones(2),
            np.array([leg[3] for leg in legs]), np.array([self.btc[3], 1_000.0]),
            *(np.ascontiguousarray([leg[2][k] for leg in legs]) for k in range(3)),
        )  # fmt: skip
        assert 1_335.18 + crossing * (1_000.0 - 1_335.18) == pytest.approx(1_153.256464, abs=5e-7)


def random_position(rng, table):
    """``s, Q, EP, WB`` with a notional anywhere in the table and a leverage from 0.5 to 40."""
    entry = math.exp(rng.uniform(-2.0, 11.0))
    quantity = math.exp(rng.uniform(8.0, 19.0)) / entry
    return rng.choice([1, -1]), quantity, entry, quantity * entry / math.exp(rng.uniform(math.log(0.5), math.log(40.0)))


@RANDOM
@given(SEEDS, st.sampled_from(sorted(oracle.CONTINUOUS)))
def test_equity_is_the_maintenance_at_the_liquidation_price(seed, name):
    table = oracle.CONTINUOUS[name]
    side, quantity, entry, balance = random_position(random.Random(seed), table)
    price = linear(side * quantity, entry, balance, table)
    closed_form = oracle.liquidation_price_of_table(side, quantity, entry, balance, table)
    if closed_form is None:
        assert math.isnan(price)
        assert side > 0
        assert oracle.position_surplus(side, quantity, entry, balance, entry * 1e-9, table) >= 0.0
        return
    assert price == pytest.approx(closed_form, rel=1e-9)
    left = oracle.position_surplus(*oracle.exact((side, quantity, entry, balance, price)), oracle.exact(table))
    assert abs(left) < 1e-9 * quantity * entry


@RANDOM
@given(SEEDS)
def test_with_jumps_it_is_the_first_price_on_the_way_from_the_entry(seed):
    table = oracle.JUMPING
    rng = random.Random(seed)
    side, quantity, entry, balance = random_position(rng, table)
    if rng.random() < 0.5:  # close to a floor, on the side the position loses towards
        entry = rng.choice(table[1:])[0] / quantity * (1.0 - side * -0.02 * rng.random())
        balance = quantity * entry * rng.uniform(0.012, 0.06)
    numbers = oracle.exact((side, quantity, entry, balance))
    fractions = oracle.exact(table)
    price = linear(side * quantity, entry, balance, table)
    if oracle.position_surplus(*numbers, numbers[2], fractions) <= 0:
        # beyond at the entry: the walk comes from the other end, where all is well, and stops on this side of it
        assert math.isnan(price) or (price >= entry if side > 0 else price <= entry)
        return
    far = price if not math.isnan(price) else entry * 1e-9
    for step in range(200):
        between = numbers[2] + (Fraction(far) - numbers[2]) * Fraction(step, 200)
        assert oracle.position_surplus(*numbers, between, fractions) > 0
    if not math.isnan(price):
        beyond = Fraction(price) * (1 - side * Fraction(1, 10**9))
        assert oracle.position_surplus(*numbers, beyond, fractions) < 0


def test_a_jump_in_maintenance_liquidates_at_the_floor_itself():
    """A short of 1 from 240,000 with 14,000: at 250,000 it has 4,000 against 1,625, or 2,500 just above; the
    same with 12,000 has 2,000, enough below the floor and too little above it."""
    assert linear(-1.0, 240_000.0, 14_000.0, oracle.JUMPING) == pytest.approx(254_000.0 / 1.01, rel=EXACT)
    assert linear(-1.0, 240_000.0, 12_000.0, oracle.JUMPING) == 250_000.0


def test_a_wallet_drained_below_the_entry_is_answered_from_the_other_side():
    """A long from 100 whose balance is gone is liquidated a little above its entry, a short a little below."""
    assert linear(1.0, 100.0, 0.0, one_tier(0.004)) == pytest.approx(100.0 / 0.996, rel=EXACT)
    assert linear(-1.0, 100.0, 0.0, one_tier(0.004)) == pytest.approx(100.0 / 1.004, rel=EXACT)
    assert linear(-1.0, 100.0, -100.0, one_tier(0.004)) == 0.0
    assert inverse(1000.0, 100.0, 1e5, -1.0, one_tier(0.004)) == math.inf


@RANDOM
@given(SEEDS, st.sampled_from([*sorted(oracle.CONTINUOUS), "jumping"]))
def test_more_wallet_moves_it_away_and_more_size_towards(seed, name):
    table = oracle.CONTINUOUS.get(name, oracle.JUMPING)
    rng = random.Random(seed)
    side, quantity, entry, balance = random_position(rng, table)
    more = 1.0 + rng.random()
    price = linear(side * quantity, entry, balance, table)
    richer = linear(side * quantity, entry, balance * more, table)
    larger = linear(side * quantity * more, entry, balance, table)
    room = [0.0 if math.isnan(p) else p for p in (larger, price, richer)]
    slack = 1e-9 * entry
    assert side * room[0] >= side * room[1] - slack
    assert side * room[1] >= side * room[2] - slack


# ---------------------------------------------------------------------------------------------------------- inverse


@pytest.mark.parametrize(
    ("contracts", "face", "entry", "balance", "mmr", "amount", "closed_form", "shown", "digits"),
    [
        (1000.0, 100.0, 1e5, 0.1, 0.004, 0.0, 100_400.0 / 1.1, 91_272.7273, 5e-5),
        (-1000.0, 100.0, 1e5, 0.1, 0.004, 0.0, 99_600.0 / 0.9, 110_666.6667, 5e-5),
        (1e5, 100.0, 45_000.0, 101.0, 0.125, 11.8125, 11_250_000.0 / (112.8125 + 1e7 / 45_000.0), 33_578.609, 5e-4),
    ],
)
def test_inverse_cases(contracts, face, entry, balance, mmr, amount, closed_form, shown, digits):
    """margin.md 4; the page of the exchange showed 33,599.40 for the last, and 0.1 % is what can be asked of it."""
    price = inverse(contracts, face, entry, balance, one_tier(mmr, amount))
    assert price == pytest.approx(closed_form, rel=CLOSED_FORM)
    assert price == pytest.approx(shown, abs=digits)
    if amount:
        assert price == pytest.approx(33_599.40, rel=1e-3)


def test_an_inverse_short_covered_by_its_coin_is_never_liquidated():
    assert math.isnan(inverse(-1000.0, 100.0, 1e5, 1.0, one_tier(0.004)))
    assert math.isnan(inverse(-1000.0, 100.0, 1e5, 1.5, one_tier(0.004)))
    assert math.isnan(inverse(0.0, 100.0, 1e5, 1.0, one_tier(0.004)))
    assert not math.isnan(inverse(-1000.0, 100.0, 1e5, 0.99, one_tier(0.004)))


@RANDOM
@given(SEEDS)
def test_inverse_equity_is_the_maintenance_at_the_liquidation_price(seed):
    """Tiers in coin, looked up again at the result: amounts follow the rates, so maintenance is continuous."""
    rng = random.Random(seed)
    table, amount = [(0.0, 0.004, 0.0, 125)], 0.0
    for _ in range(rng.randrange(6)):
        floor, mmr = table[-1][0] + rng.uniform(0.5, 50.0), table[-1][1] + rng.uniform(0.0005, 0.05)
        amount += floor * (mmr - table[-1][1])
        table.append((floor, mmr, amount, 1))
    side, entry = rng.choice([1, -1]), rng.uniform(20_000.0, 120_000.0)
    contracts = float(rng.randrange(1, 200_000))
    balance = contracts * 100.0 / entry * rng.uniform(0.03, 1.2)
    price = inverse(side * contracts, 100.0, entry, balance, tiers(table))
    numbers = oracle.exact((side, contracts * 100.0, entry, balance))
    if math.isnan(price):
        assert side < 0
        assert oracle.inverse_surplus(*numbers, Fraction(10**15), oracle.exact(table)) >= 0
        return
    left = oracle.inverse_surplus(*numbers, Fraction(price), oracle.exact(table))
    assert abs(left) < 1e-9 * (contracts * 100.0 / min(entry, price) + balance)


# ------------------------------------------------------------------------------------------ bankruptcy and variants


def test_bankruptcy_prices():
    """margin.md 6: case A 90,000, the short 110,000; the inverse ones by putting equity at 0."""
    assert liquidation.bankruptcy_price_linear(1.0, 1e5, 10_000.0) == 90_000.0
    assert liquidation.bankruptcy_price_linear(-1.0, 1e5, 10_000.0) == 110_000.0
    assert math.isnan(liquidation.bankruptcy_price_linear(1.0, 100.0, 100.0))
    assert liquidation.bankruptcy_price_inverse(1000.0, 100.0, 1e5, 0.1) == pytest.approx(1e5 / 1.1, rel=EXACT)
    assert liquidation.bankruptcy_price_inverse(-1000.0, 100.0, 1e5, 0.1) == pytest.approx(1e5 / 0.9, rel=EXACT)
    assert math.isnan(liquidation.bankruptcy_price_inverse(-1000.0, 100.0, 1e5, 1.0))


def test_okx_counts_the_fee_of_the_close():
    """margin.md 5; the same as a maintenance rate larger by the fee."""
    assert liquidation.okx_liquidation_price(1.0, 1e5, 1e4, 0.004, 0.0005) == pytest.approx(90_406.8307, abs=5e-5)
    assert liquidation.okx_liquidation_price(-1.0, 1e5, 1e4, 0.004, 0.0005) == pytest.approx(109_507.2175, abs=5e-5)
    assert liquidation.okx_liquidation_price(-1.0, 1e5, 1e4, 0.004, 0.0005) == linear(-1.0, 1e5, 1e4, one_tier(0.0045))
    assert math.isnan(liquidation.okx_liquidation_price(1.0, 1e5, 1e5, 0.004, 0.0005))


def test_bybit_linear_takes_the_maintenance_of_the_entry():
    """margin.md 5: 90,500 against 90,452.2613 of the general formula; the short mirrors it, and added margin helps."""
    assert liquidation.bybit_liquidation_price_linear(1.0, 1e5, 1e4, 500.0, 0.0) == 90_500.0
    assert liquidation.bybit_liquidation_price_linear(-1.0, 1e5, 1e4, 500.0, 0.0) == 109_500.0
    assert liquidation.bybit_liquidation_price_linear(1.0, 1e5, 1e4, 500.0, 1_000.0) == 89_500.0
    assert linear(1.0, 1e5, 1e4, one_tier(0.005)) == pytest.approx(90_452.2613, abs=5e-5)
    assert linear(1.0, 1e5, 1e4, oracle.BYBIT_BTC) == pytest.approx(90_452.2613, abs=5e-5)


def test_bybit_inverse():
    """formulas.md 4.5: short 60,000 USD from 50,000, 10x, 0.5 %."""
    short = liquidation.bybit_liquidation_price_inverse(-60_000.0, 50_000.0, 0.12, 0.006)
    assert short == pytest.approx(55_248.618784530394, rel=CLOSED_FORM)
    long = liquidation.bybit_liquidation_price_inverse(60_000.0, 50_000.0, 0.12, 0.006)
    assert long == pytest.approx(60_000.0 / 1.314, rel=EXACT)
    assert math.isnan(liquidation.bybit_liquidation_price_inverse(-60_000.0, 50_000.0, 1.3, 0.006))


def test_hyperliquid():
    """formulas.md 4.5: short 10 at 100, account value 200, maximum leverage 50."""
    short = liquidation.hyperliquid_liquidation_price(-10.0, 100.0, 200.0, 50.0)
    assert short == pytest.approx(118.81188118811882, rel=CLOSED_FORM)
    assert short == pytest.approx(linear(-10.0, 100.0, 200.0, one_tier(0.01)), rel=EXACT)
    assert math.isnan(liquidation.hyperliquid_liquidation_price(1.0, 100.0, 200.0, 50.0))


# ------------------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize(
    ("quantity", "balance", "shown_equity", "shown_fee"),
    [(1.0, 10_000.0, 361.45, 1_129.52), (-10.0, 500_000.0, 8_196.72, 18_647.54)],
    ids=["A", "E"],
)
def test_a_fee_above_what_is_left_empties_the_wallet(quantity, balance, shown_equity, shown_fee):
    """margin.md 6: Binance's 1.25 % on cases A and E takes all of the margin and no more."""
    price = linear(quantity, 1e5, balance, oracle.BINANCE_BTC)
    equity = balance + quantity * (price - 1e5)
    fee, absorbed = liquidation.liquidation_loss(equity, abs(quantity) * price, 0.0125)
    assert (equity, fee) == pytest.approx((shown_equity, shown_fee), abs=5e-3)
    assert equity - fee + absorbed == pytest.approx(0.0, abs=1e-9)
    assert balance - (equity - fee + absorbed) == pytest.approx(balance, rel=EXACT)


@RANDOM
@given(st.floats(-1e6, 1e6), st.floats(0.0, 1e8), st.floats(0.0, 0.05))
def test_a_wallet_never_ends_below_zero_and_is_helped_no_further(equity, notional, fee_frac):
    fee, absorbed = liquidation.liquidation_loss(equity, notional, fee_frac)
    assert fee == fee_frac * notional
    assert absorbed >= 0.0
    end = equity - fee + absorbed
    assert end == pytest.approx(max(0.0, equity - fee), abs=1e-9 * (abs(equity) + fee))


# ---------------------------------------------------------------------------------------------------------- one wallet


def random_wallet(seed):
    """A wallet near its limit: cash, legs of the oracle, the prices a path begins and ends at."""
    rng = random.Random(seed)
    prices, legs = [], []
    for _ in range(rng.randint(1, 4)):
        price = math.exp(rng.uniform(-1.0, 11.0))
        table = rng.choice([oracle.BINANCE_BTC, oracle.BINANCE_SOL, oracle.BYBIT_BTC, oracle.JUMPING, oracle.JUMPING])
        notional = rng.choice([math.exp(rng.uniform(9.0, 18.0)), rng.choice(table[1:])[0] * rng.uniform(0.7, 1.4)])
        kind = rng.random()
        weight, is_margined = (1.0, True) if kind < 0.75 else (rng.choice([0.0, 0.8, 0.95, 1.0]), False)
        legs.append((rng.choice([-1.0, 1.0]) * notional / price, weight, is_margined, table))
        prices.append(price)
    common = rng.uniform(-0.6, 0.6)
    ends = [price * max(0.0, 1.0 + common + rng.choice([0.0, rng.uniform(-0.3, 0.3)])) for price in prices]
    gross = sum(abs(leg[0]) * price for leg, price in zip(legs, prices, strict=True))
    value = sum(leg[1] * leg[0] * price for leg, price in zip(legs, prices, strict=True))
    return rng.uniform(-0.01, rng.choice([0.03, 0.1, 0.4])) * gross - value, legs, prices, ends


def arguments(cash, legs):
    """The wallet as the kernels take it, without the prices."""
    position, weight, is_margined = (np.array([leg[k] for leg in legs]) for k in range(3))
    return (cash, position, weight, is_margined, -np.ones(len(legs))), padded([leg[3] for leg in legs])


def crossing_of(cash, legs, prices_from, prices_to):
    wallet, tables = arguments(cash, legs)
    return liquidation.path_crossing(*wallet, np.array(prices_from), np.array(prices_to), *tables)


@settings(RANDOM, max_examples=400)
@given(SEEDS)
def test_path_crossing_against_a_scan(seed):
    """Nothing before the answer is short, everything just after it is: by a scan, and without rounding."""
    cash, legs, start, end = random_wallet(seed)
    crossing = crossing_of(cash, legs, start, end)
    scanned = oracle.scan_crossing(cash, legs, start, end, steps=300)
    if crossing == -1.0:
        assert scanned is None
        return
    assert 0.0 <= crossing <= 1.0
    assert scanned is None or scanned >= crossing - 1e-7
    just_after = min(Fraction(1), Fraction(crossing) + Fraction(1, 10**7)) if crossing > 0.0 else Fraction(0)
    assert oracle.surplus_on_path(*oracle.exact((cash, legs, start, end)), just_after) < 0
    if crossing > 1e-7:
        just_before = Fraction(crossing) - Fraction(1, 10**7)
        assert oracle.surplus_on_path(*oracle.exact((cash, legs, start, end)), just_before) >= 0


@RANDOM
@given(SEEDS)
def test_wallet_rules_equal_the_oracle(seed):
    cash, legs, prices, _ = random_wallet(seed)
    (_, position, weight, is_margined, notional), tables = arguments(cash, legs)
    price = np.array(prices)
    equity = margin.wallet_equity_usd(cash, position, weight, price)
    held = margin.wallet_maintenance_usd(position, is_margined, notional, price, *tables)
    left = margin.wallet_surplus_usd(cash, position, weight, is_margined, notional, price, *tables)
    notionals = [(abs(leg[0]) * p, leg[2], leg[3]) for leg, p in zip(legs, prices, strict=True)]
    margined = [(notional, table) for notional, is_margined_leg, table in notionals if is_margined_leg]
    assert left == equity - held
    assert left == pytest.approx(oracle.surplus(cash, legs, prices), abs=1e-12 * sum(row[0] for row in notionals))
    assert held == sum(oracle.maintenance(notional, table) for notional, table in margined)


@RANDOM
@given(SEEDS, st.sampled_from([*sorted(oracle.CONTINUOUS), "jumping"]))
def test_one_leg_on_a_path_ends_at_its_liquidation_price(seed, name):
    table = oracle.CONTINUOUS.get(name, oracle.JUMPING)
    rng = random.Random(seed)
    side, quantity, entry, balance = random_position(rng, table)
    price = linear(side * quantity, entry, balance, table)
    end = 0.0 if side > 0 else entry * 10.0
    crossing = crossing_of(balance - side * quantity * entry, [(side * quantity, 1.0, True, table)], [entry], [end])
    if math.isnan(price):
        assert crossing == -1.0
    elif oracle.position_surplus(side, quantity, entry, balance, entry, table) < 0:
        assert crossing == 0.0
    else:
        assert entry + crossing * (end - entry) == pytest.approx(price, rel=1e-9)


@RANDOM
@given(SEEDS)
def test_a_wallet_that_fails_at_the_end_has_a_crossing(seed):
    """Ends within rounding of a tier's floor or of the limit itself: the two tests of one bar cannot disagree."""
    rng = random.Random(seed)
    cash, legs, start, end = random_wallet(seed)
    (_, position, weight, is_margined, notional), tables = arguments(cash, legs)
    crossing = crossing_of(cash, legs, start, end)
    if crossing > 0.0:
        crossing *= 1.0 + rng.choice([0.0, 3e-16, -2e-16])
        end = [a + crossing * (b - a) for a, b in zip(start, end, strict=True)]
    else:
        leg = rng.randrange(len(legs))
        end[leg] = rng.choice(legs[leg][3][1:])[0] / abs(legs[leg][0]) * (1.0 + rng.choice([0.0, 3e-16, -2e-16]))
    short = margin.wallet_surplus_usd(cash, position, weight, is_margined, notional, np.array(end), *tables) < 0.0
    if short:
        assert crossing_of(cash, legs, start, end) >= 0.0
        assert crossing_of(cash, legs, end, start) == 0.0


def test_funding_paid_first_may_itself_liquidate():
    """margin.md 8.5: case A at 90,380 stands; after paying 30 its price is 90,391.57, and it does not."""
    legs = [(1.0, 1.0, True, oracle.BINANCE_BTC)]
    assert crossing_of(10_000.0 - 1e5, legs, [90_380.0], [91_000.0]) == -1.0
    assert crossing_of(9_970.0 - 1e5, legs, [90_380.0], [91_000.0]) == 0.0


def test_spot_as_collateral():
    """margin.md 3: 1 spot against 1 short; in full only maintenance can end it, at a haircut of 5 % it comes sooner."""
    table = ((0, 0.004, 0, 1),)
    cash = 2_000.0  # the short's proceeds pay for the spot, which leaves what there was
    for haircut, factor in ((1.0, 0.004), (0.95, 0.054)):
        legs = [(1.0, haircut, False, table), (-1.0, 1.0, True, table)]
        crossing = crossing_of(cash, legs, [30_000.0] * 2, [3_000_000.0] * 2)
        assert 30_000.0 + crossing * 2_970_000.0 == pytest.approx(2_000.0 / factor, rel=1e-9)
    legs = [(1.0, 0.0, False, table), (-1.0, 1.0, True, table)]
    assert crossing_of(cash + 30_000.0, legs, [30_000.0] * 2, [60_000.0] * 2) == pytest.approx(
        (32_000.0 / 1.004 - 30_000.0) / 30_000.0, rel=1e-9
    )


def test_touching_the_maintenance_is_not_crossing_it():
    """A wallet exactly at its maintenance is not below it (SPEC 5): at the start, at the end and standing still."""
    legs, cash = [(-1.0, 1.0, True, ((0, 0.25, 0, 4),))], 125.0
    assert crossing_of(cash, legs, [100.0], [90.0]) == -1.0
    assert crossing_of(cash, legs, [50.0], [100.0]) == -1.0
    assert crossing_of(cash, legs, [100.0], [100.0]) == -1.0
    assert crossing_of(cash, legs, [100.0], [101.0]) == 0.0
    assert crossing_of(cash, legs, [50.0], [150.0]) == 0.5


def test_a_dip_at_a_jump_that_heals_before_the_end_is_found():
    """A long rising through a floor without amounts: short just above 250,000, and well again further up."""
    legs = [(1.0, 1.0, True, oracle.JUMPING)]
    cash = -248_000.0
    assert crossing_of(cash, legs, [249_700.0], [300_000.0]) == pytest.approx(300.0 / 50_300.0, rel=1e-9)
    assert crossing_of(cash, legs, [251_000.0], [300_000.0]) == -1.0


def test_legs_held_elsewhere_do_not_matter():
    mine, other = (1.0, 1.0, True, oracle.BINANCE_BTC), (-1e9, 0.0, False, oracle.JUMPING)
    alone = crossing_of(-9e4, [mine], [1e5], [8e4])
    assert 1e5 - alone * 2e4 == pytest.approx(90_361.4458, abs=5e-5)
    assert crossing_of(-9e4, [mine, other], [1e5, 1.0], [8e4, math.nan]) == alone


def test_a_price_that_was_not_observed_gives_no_number():
    legs = [(1.0, 1.0, True, oracle.BINANCE_BTC)]
    for cash, start, end in ((-9e4, math.nan, 9e4), (-9e4, 1e5, math.nan), (math.nan, 1e5, 9e4)):
        assert math.isnan(crossing_of(cash, legs, [start], [end]))


# --------------------------------------------------------------------------------------------------------------- a book


def book():
    """Wallets with spot, case E, a fully paid long and case B, as `stress_factors` takes them."""
    position, price = np.array([10.0, -10.0, 1.0, -1.0]), np.array([1e5, 1e5, 100.0, 1e5])
    tables = padded([oracle.BINANCE_BTC] * 4)
    margined = np.array(
        [[False] * 4, [False, True, False, False], [False, False, True, False], [False, False, False, True]]
    )
    cash = np.array([0.0, 500_000.0 + 1e6, 0.0, 110_000.0])
    return cash, position, margined.astype(float), margined, -np.ones(4), price, *tables


def test_stress_is_the_closed_form_of_each_wallet():
    """Case E dies at 149,180.33, case B at 109,561.75; a wallet of spot and a fully paid long never do."""
    factors = liquidation.stress_factors(*book(), 1e3)
    assert factors.shape == (4, 2)
    assert np.isnan(factors[[0, 2]]).all()
    assert np.isnan(factors[:, 0]).all()
    assert factors[1, 1] * 1e5 == pytest.approx(1_501_500.0 / 10.065, rel=CLOSED_FORM)
    assert factors[3, 1] * 1e5 == pytest.approx(110_000.0 / 1.004, rel=CLOSED_FORM)
    assert np.nanargmin(factors[:, 1]) == 3


def test_stress_downwards_and_of_a_wallet_that_is_dead_already():
    cash, position, weight, margined, notional, price, *tables = book()
    position = np.abs(position)
    cash = np.array([0.0, 500_000.0 - 1e6, 60.0 - 100.0, -110_000.0])
    factors = liquidation.stress_factors(cash, position, weight, margined, notional, price, *tables, 1e3)
    expected = oracle.liquidation_price_of_table(1, 10.0, 1e5, 5e5, oracle.BINANCE_BTC)
    assert factors[1, 0] * 1e5 == pytest.approx(expected, rel=CLOSED_FORM)
    assert factors[2, 0] * 100.0 == pytest.approx(40.0 / 0.996, rel=CLOSED_FORM)
    assert np.isnan(factors[1:3, 1]).all()
    assert (factors[3] == 1.0).all()


# ------------------------------------------------------------------------------------------------------------- purity


def test_inputs_are_left_as_they_were_and_may_be_read_only():
    cash, legs, start, end = random_wallet(3)
    wallet, tables = arguments(cash, legs)
    arrays = [*wallet[1:], np.array(start), np.array(end), *tables]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.setflags(write=False)
    first = liquidation.path_crossing(cash, *arrays)
    assert liquidation.path_crossing(cash, *arrays) == first
    frozen = book()
    copies = [array.copy() for array in frozen]
    for array in frozen:
        array.setflags(write=False)
    liquidation.stress_factors(*frozen, 10.0)
    for array, copy in zip([*arrays, *frozen], [*before, *copies], strict=True):
        assert np.array_equal(array, copy)
