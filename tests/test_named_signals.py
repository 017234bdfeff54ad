"""The signals of the named strategies against slow loops over the same market, on whole frames and on prefixes."""

import math
import random
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import Combo, Leg
from basis_bt.core.models import SignalSpec
from basis_bt.core.units import US_PER_DAY, US_PER_HOUR
from basis_bt.frames.funding_columns import history_hours, settled_columns
from basis_bt.frames.settlements import Settlements
from basis_bt.signals import NAMES, build_signal

START = datetime(2024, 2, 27, tzinfo=UTC)
START_US = int(START.timestamp()) * 1_000_000


def combo(*legs):
    return Combo(legs=[Leg(instrument=name, ratio=ratio) for name, ratio in legs])


CARRY = combo(("spot:here:BTC-USDT", 1.0), ("perp:here:BTC-USDT", -1.0))
MIRROR = combo(("spot:here:BTC-USDT", -1.0), ("perp:here:BTC-USDT", 0.5))
PERPS = combo(("perp:a:BTC-USDT", 1.0), ("perp:b:BTC-USDT", -1.0))
DATED = combo(("spot:here:BTC-USDT", 1.0), ("future:here:BTC-USD-20240927", -1.0))


def settlements_of(rows):
    """``(hour paid, rate, hour known)`` as the settlements of a perp."""
    hours, rates, known = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    us = (START_US + hours * US_PER_HOUR).astype(np.int64)
    return Settlements(
        raw_us=us,
        paid_us=us,
        known_us=(START_US + known * US_PER_HOUR).astype(np.int64),
        funding_rate=rates,
        interval_hours=np.full(len(us), np.nan),
        mark_price=np.full(len(us), 100.0),
        mark_source=np.zeros(len(us), dtype=np.int8),
        first_us=int(us[0]),
    )


def random_rows(rng, *, last_hour):
    """Settlements of 8, then 4, then 1 hours, one of them missing, some known late."""
    hours, rows = -30.0, []
    while hours <= last_hour:
        late = rng.choice((0, 0, 0, 5, 13))
        rows.append((hours, rng.choice((-2, -1, 0, 1, 2, 3)) * 1e-4 + rng.gauss(0, 1e-5), hours + late))
        hours += 8 if hours < 60 else 4 if hours < 120 else 1
    del rows[len(rows) // 3]
    return rows


class Market:
    """A random market: bars with holes, settlements of both legs, and the frame that signals see."""

    def __init__(self, seed, *, bar_hours, n_rows=60, counts=(1, 3)):
        rng = random.Random(seed)
        self.bar_us = int(bar_hours * US_PER_HOUR)
        self.bar_hours, self.n_rows = bar_hours, n_rows
        price, self.closes = 100.0, []
        for _ in range(n_rows):
            price *= math.exp(rng.gauss(0.0, 0.02))
            pair = [price, price * math.exp(rng.gauss(0.0002, 0.0008))]
            self.closes.append([None if rng.random() < 0.06 else close for close in pair])
        self.paid = [random_rows(rng, last_hour=n_rows * bar_hours + 20) for _ in range(2)]
        self.expiry_hour = rng.uniform(0.5, 1.1) * n_rows * bar_hours
        self.ends = [(row + 1) * bar_hours for row in range(n_rows)]
        row_end_us = START_US + np.arange(1, n_rows + 1, dtype=np.int64) * self.bar_us
        stamps = [START + timedelta(hours=row * bar_hours) for row in range(n_rows)]
        columns = {"ts": pl.Series(stamps, dtype=pl.Datetime("us", "UTC"))}
        for leg in range(2):
            columns[f"close_{leg}"] = pl.Series([pair[leg] for pair in self.closes], dtype=pl.Float64)
            columns[f"hours_to_expiry_{leg}"] = pl.Series([self.expiry_hour - end for end in self.ends])
            columns[f"funding_apr_24h_{leg}"] = pl.Series([0.1 + 0.001 * row for row in range(n_rows)])
            for column in settled_columns(
                settlements_of(self.paid[leg]), leg=leg, row_end_us=row_end_us, counts=counts
            ):
                columns[column.name] = column
        self.frame = pl.DataFrame(columns)

    def last_rates(self, leg, row, count):
        """The last rates known at the end of a row, scaled to 8 h, the latest payment last; None with too few."""
        rows = self.paid[leg]
        scaled = []
        for place, (hour, rate, known) in enumerate(rows):
            if max(hour, known) > self.ends[row]:
                continue
            before = rows[place - 1][0] if place else None
            scaled.append(None if before is None else rate * 8 / min(hour - before, 8))
        window = scaled[-count:]
        return None if len(window) < count or None in window else window

    def values(self, spec, legs, **costs):
        """The signal on the frame, after seeing that every prefix of it gives the same values."""
        signal = build_signal(spec, legs, bar_us=self.bar_us, **costs)
        assert signal.trusted

        def on(frame):
            return frame.select(value=signal.expression.cast(pl.Float64))["value"].to_list()

        whole = on(self.frame)
        for rows in range(1, self.n_rows):
            assert on(self.frame.head(rows)) == whole[:rows]
        return whole


def agree(found, expected):
    assert [value is None for value in found] == [value is None for value in expected]
    assert any(value is not None for value in found)
    for a, b in zip(found, expected, strict=True):
        assert a is None or math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-15), (a, b)


SEEDS = pytest.mark.parametrize("seed", range(6))


# ----------------------------------------------------------------------------------------------------------- funding


@SEEDS
@pytest.mark.parametrize("legs", [CARRY, MIRROR], ids=["carry", "mirror"])
@pytest.mark.parametrize("bar_hours", [1, 8, 24])
def test_the_last_rate_is_scaled_by_its_own_interval_and_signed_as_received(seed, legs, bar_hours):
    market = Market(seed, bar_hours=bar_hours)
    last = [market.last_rates(1, row, 1) for row in range(market.n_rows)]
    expected = [None if rates is None else -legs.legs[1].ratio * rates[0] for rates in last]
    agree(market.values(SignalSpec(name="funding_rate_8h"), legs), expected)


def test_a_rate_of_one_hour_counts_eightfold_and_the_first_is_not_known():
    rows = [(0, 0.0001, 0), (8, 0.0001, 8), (9, 0.0001, 9), (13, 0.0003, 13), (45, 0.0002, 45)]
    ends = START_US + np.array([0, 8, 9, 13, 44, 45], dtype=np.int64) * US_PER_HOUR
    (_, mean, _) = settled_columns(settlements_of(rows), leg=1, row_end_us=ends, counts=(1,))
    # 32 h without a settlement is a hole: no venue pays less often than every 8 h
    assert mean.name == "settled_8h_mean_1_1"
    assert mean.to_list() == pytest.approx([None, 0.0001, 0.0008, 0.0006, 0.0006, 0.0002])


def test_a_rate_known_late_takes_its_place_by_the_time_it_was_paid():
    rows = [(0, 0.01, 0), (8, 0.02, 30), (16, 0.03, 16), (24, 0.04, 24)]
    ends = START_US + np.array([24, 30], dtype=np.int64) * US_PER_HOUR
    least, mean, most = settled_columns(settlements_of(rows), leg=0, row_end_us=ends, counts=(2,))
    assert (least.to_list(), most.to_list()) == ([0.03, 0.03], [0.04, 0.04])
    assert mean.to_list() == pytest.approx([0.035, 0.035])
    least, _, most = settled_columns(settlements_of(rows), leg=0, row_end_us=ends, counts=(3,))
    assert (least.to_list(), most.to_list()) == ([None, 0.02], [None, 0.04])


def test_settlements_are_read_from_far_enough_back():
    assert history_hours(()) == 0.0
    assert history_hours((1, 3)) == 32.0  # three at 8 h, and the one before them


@SEEDS
@pytest.mark.parametrize("legs", [CARRY, MIRROR], ids=["carry", "mirror"])
@pytest.mark.parametrize("n", [1, 3])
def test_confirmed_says_whether_all_of_the_last_rates_are_beyond_a_bound(seed, legs, n):
    market = Market(seed, bar_hours=4)
    expected = []
    for row in range(market.n_rows):
        rates = market.last_rates(1, row, n)
        if rates is None:
            expected.append(None)
            continue
        received = [-legs.legs[1].ratio * rate for rate in rates]
        expected.append(1.0 if min(received) >= 4e-5 else -1.0 if max(received) <= -4e-5 else 0.0)
    found = market.values(SignalSpec(name="funding_confirmed", n=n, above=4e-5, below=-4e-5), legs)
    agree(found, expected)
    assert n > 1 or {1.0, -1.0} <= set(found)


@SEEDS
def test_the_difference_is_the_mean_received_less_the_mean_paid(seed):
    market = Market(seed, bar_hours=2)
    expected = []
    for row in range(market.n_rows):
        paid, received = (market.last_rates(leg, row, 3) for leg in (0, 1))
        known = paid is not None and received is not None
        expected.append((math.fsum(received) - math.fsum(paid)) / 3 if known else None)
    agree(market.values(SignalSpec(name="funding_diff", look=3), PERPS), expected)


# ------------------------------------------------------------------------------------------------------------- basis


@SEEDS
def test_basis_apr_is_the_simple_rate_to_expiry(seed):
    market = Market(seed, bar_hours=8)
    expected = []
    for row, (spot, future) in enumerate(market.closes):
        left = market.expiry_hour - market.ends[row]
        known = spot is not None and future is not None and left > 0
        expected.append((future / spot - 1) * 8760 / left if known else None)
    agree(market.values(SignalSpec(name="basis_apr"), DATED), expected)
    turned = combo(("spot:here:BTC-USDT", -1.0), ("future:here:BTC-USD-20240927", 1.0))
    agree(
        market.values(SignalSpec(name="basis_apr"), turned), [None if value is None else -value for value in expected]
    )


def test_net_apr_takes_the_round_trip_off_over_the_hold():
    market = Market(1, bar_hours=8)
    spec = SignalSpec(name="net_apr", hours=24, hold_hours="30d")
    cost_apr = 2 * (10.5 + 5.5) / 1e4 * 8760 / 720
    found = market.values(spec, CARRY, one_way_bps=[10.5, 5.5])
    agree(found, [0.1 + 0.001 * row - cost_apr for row in range(market.n_rows)])
    agree(market.values(spec, CARRY), [0.1 + 0.001 * row for row in range(market.n_rows)])
    # half the notional in the perp: half the income, and half that leg's cost
    half = combo(("spot:here:BTC-USDT", 1.0), ("perp:here:BTC-USDT", -0.5))
    cost_apr = 2 * (10.5 + 0.5 * 5.5) / 1e4 * 8760 / 720
    found = market.values(spec, half, one_way_bps=[10.5, 5.5])
    agree(found, [0.5 * (0.1 + 0.001 * row) - cost_apr for row in range(market.n_rows)])


def test_net_apr_of_a_dated_future_is_its_basis_less_the_round_trip():
    market = Market(2, bar_hours=8)
    gross = market.values(SignalSpec(name="basis_apr"), DATED)
    found = market.values(SignalSpec(name="net_apr", hold_hours=2000), DATED, one_way_bps=[10.5, 5.5])
    agree(found, [None if value is None else value - 0.0032 * 8760 / 2000 for value in gross])


@SEEDS
@pytest.mark.parametrize("interest_apr", [0.05, 0.2, 0.1095])
def test_the_fair_gap_is_the_premium_less_the_premium_whose_funding_is_the_interest(seed, interest_apr):
    market = Market(seed, bar_hours=1)
    rate = interest_apr * 8 / 8760
    side = 0.0 if math.isclose(rate, 0.0001) else math.copysign(1.0, 0.0001 - rate)
    expected = [
        None if None in pair else ((pair[1] - pair[0]) / pair[1] - (rate - side * 0.0005)) * 1e4
        for pair in market.closes
    ]
    spec = SignalSpec(name="fair_gap", interest_apr=interest_apr)
    found = market.values(spec, CARRY)
    assert all(a is b or abs(a - b) < 1e-9 for a, b in zip(found, expected, strict=True))
    turned = market.values(spec, MIRROR)
    assert all(a is b or abs(a + b) < 1e-9 for a, b in zip(turned, expected, strict=True))


@pytest.mark.parametrize("interest_apr", [0.0, 0.05, 0.2, 1.0])
def test_at_the_fair_premium_funding_pays_just_the_interest(interest_apr):
    """The venue's formula, written down by itself: premium plus interest less premium, held within 5 bp."""
    from basis_bt.signals.fair_gap import fair_premium_frac

    premium = fair_premium_frac(interest_apr)
    funding = premium + min(max(0.0001 - premium, -0.0005), 0.0005)
    assert funding == pytest.approx(interest_apr * 8 / 8760, abs=1e-15)


# ------------------------------------------------------------------------------------------------------------- trend


def plain_gate(market, legs, *, n, days):
    """The gate by its words: for each row, the last n rows with a close and what was known when each ended."""
    first_day = min(
        int((START_US + end * US_PER_HOUR - 1) // US_PER_DAY)
        for end, (spot, _) in zip(market.ends, market.closes, strict=True)
        if spot is not None
    )

    def mean_at(row):
        end_us = START_US + market.ends[row] * US_PER_HOUR
        over = int(end_us // US_PER_DAY)  # the first day that is not over
        if over - days < first_day:
            return None
        closes = []
        for day in range(over - days, over):
            of_day = [
                spot
                for end, (spot, _) in zip(market.ends, market.closes, strict=True)
                if spot is not None and day * US_PER_DAY < START_US + end * US_PER_HOUR <= (day + 1) * US_PER_DAY
            ]
            closes += of_day[-1:]
        return math.fsum(closes) / len(closes)

    out = []
    for row in range(market.n_rows):
        rates = market.last_rates(1, row, 1)
        compared = [
            (market.closes[k][0], mean_at(k))
            for k in range(row + 1)
            if market.closes[k][0] is not None and mean_at(k) is not None
        ][-n:]
        if market.closes[row][0] is None or rates is None or len(compared) < n:
            out.append(None)
            continue
        received = -legs.legs[1].ratio * rates[0]
        above, below = all(close > mean for close, mean in compared), all(close < mean for close, mean in compared)
        out.append(1.0 if above and received > 0 else -1.0 if below and received < 0 else 0.0)
    return out


@SEEDS
@pytest.mark.parametrize(("bar_hours", "n_rows"), [(8, 60), (4, 90), (24, 30)])
def test_the_trend_gate_is_the_rule_in_words(seed, bar_hours, n_rows):
    market = Market(seed, bar_hours=bar_hours, n_rows=n_rows)
    for legs in (CARRY, MIRROR):
        found = market.values(SignalSpec(name="trend_gate", n=3, days=4), legs)
        agree(found, plain_gate(market, legs, n=3, days=4))
        assert len(set(found)) > 2


def test_a_day_counts_in_the_trend_only_once_it_is_over():
    from basis_bt.signals.trend import daily_means

    ends = START_US + np.arange(1, 10, dtype=np.int64) * 8 * US_PER_HOUR
    closes = np.array([1.0, 2.0, 3.0, 10.0, 20.0, 30.0, 100.0, 200.0, 300.0])
    means = daily_means(ends, closes, days=2)
    assert np.isnan(means[:5]).all()
    assert means[5:].tolist() == [16.5, 16.5, 16.5, 165.0]


# ------------------------------------------------------------------------------------------------------- parameters

NEEDS = {
    "funding_apr": {"hours": 24},
    "funding_rate_8h": {},
    "funding_confirmed": {"n": 3, "above": 0.0001, "below": 0.0},
    "funding_diff": {"look": 3},
    "basis_bps": {},
    "basis_zscore": {"hours": 24},
    "basis_apr": {},
    "net_apr": {"hours": 24, "hold_hours": 720},
    "fair_gap": {"interest_apr": 0.05},
    "trend_gate": {"n": 9, "days": 120},
    "sql": {"sql": "close_0"},
}
ALL = {"hours": 24, "hold_hours": 24, "n": 2, "days": 2, "look": 2, "above": 0.1, "below": 0.0, "interest_apr": 0.1}
FITS = {"funding_diff": PERPS, "basis_apr": DATED}


def test_every_signal_is_in_the_table_of_this_test():
    assert set(NEEDS) == set(NAMES)


@pytest.mark.parametrize("name", NEEDS)
def test_a_signal_takes_its_own_parameters_and_no_other(name):
    legs = FITS.get(name, CARRY)
    build_signal(SignalSpec(name=name, **NEEDS[name]), legs, bar_us=US_PER_HOUR)
    for key in NEEDS[name].keys() - {"sql"}:
        less = {other: value for other, value in NEEDS[name].items() if other != key}
        with pytest.raises(ConfigError, match=rf"^signal\.{key}: {name} .*needs {key}"):
            build_signal(SignalSpec(name=name, **less), legs, bar_us=US_PER_HOUR)
    for key in ALL.keys() - NEEDS[name].keys():
        with pytest.raises(ConfigError, match=rf"^signal\.{key}: {name} takes no {key}"):
            build_signal(SignalSpec(name=name, **NEEDS[name], **{key: ALL[key]}), legs, bar_us=US_PER_HOUR)
    if name != "sql":
        with pytest.raises(ConfigError, match="takes no warmup_hours"):
            build_signal(SignalSpec(name=name, **NEEDS[name], warmup_hours=5), legs, bar_us=US_PER_HOUR)


SPOTS = combo(("spot:here:BTC-USDT", 1.0), ("spot:there:BTC-USDT", -1.0))
MISFITS = [
    ("funding_rate_8h", SPOTS, "needs a perp leg"),
    ("funding_confirmed", PERPS, "needs exactly one perp leg"),
    ("trend_gate", PERPS, "needs exactly one perp leg"),
    ("funding_diff", CARRY, "needs two perp legs"),
    ("fair_gap", PERPS, "needs one perp leg and a spot leg"),
    ("basis_apr", CARRY, "needs a dated future"),
]


@pytest.mark.parametrize(("name", "legs", "message"), MISFITS, ids=[name for name, _, _ in MISFITS])
def test_a_signal_that_does_not_fit_the_legs_is_refused(name, legs, message):
    with pytest.raises(ConfigError, match=message):
        build_signal(SignalSpec(name=name, **NEEDS[name]), legs, bar_us=US_PER_HOUR)


def test_bounds_that_leave_no_room_between_are_refused():
    with pytest.raises(ConfigError, match=r"signal\.above: must be over signal\.below"):
        build_signal(SignalSpec(name="funding_confirmed", n=2, above=0.0, below=0.0), CARRY, bar_us=US_PER_HOUR)
    with pytest.raises(ConfigError, match="net_apr of a dated future takes no hours"):
        build_signal(SignalSpec(name="net_apr", hours=24, hold_hours=720), DATED, bar_us=US_PER_HOUR)


@pytest.mark.parametrize(
    ("key", "value"), [("n", 0), ("days", 0), ("look", 0), ("above", math.nan), ("hold_hours", -1)]
)
def test_impossible_values_are_refused_by_name(key, value):
    with pytest.raises(ValueError, match=key):
        SignalSpec(name="funding_confirmed", **{key: value})
