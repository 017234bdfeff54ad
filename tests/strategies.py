"""Whole random backtests for hypothesis, in the form `oracles.backtest` takes.

The shape of a case (gaps, steps, options on and off) is drawn flag by flag, so that a failure shrinks to the plainest
market that shows it; the numbers come from a `random.Random` seeded by the draw, so that an example costs little.
"""

import math
import random

from hypothesis import strategies as st

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
FIRST_DAY = 19_783  # 2024-03-01, where every market begins, give or take a day
COIN_PRICES = (64_000.0, 3_300.0, 0.55, 142.0)
STEPS = {  # file step: the run bars drawn over it, as multiples
    MINUTE_US: (1, 2, 3, 5, 10),
    5 * MINUTE_US: (1, 2, 3, 6),
    15 * MINUTE_US: (1, 2, 4, 8),
    HOUR_US: (1, 2, 3, 4, 8),
}


def run_stamps(market):
    """Bar stamps in the bounds of the run at which every leg has begun and none has ended."""
    bar_us = market["bar_us"]
    first = max([market["start_us"]] + [leg["bars"][0][0] for leg in market["legs"]])
    last = min([market["end_us"] - 1] + [leg["bars"][-1][0] for leg in market["legs"]])
    return list(range(-(-first // bar_us) * bar_us, last + 1, bar_us))


# ------------------------------------------------------------------------------------------------------------ markets


def _paths(rng, *, n_bars, n_coins, coin_of_leg, volatility):
    """Opens and closes of each leg: coins share a factor, a leg adds a basis that reverts to zero."""
    coin_log = [math.log(COIN_PRICES[c]) for c in range(n_coins)]
    basis = [rng.gauss(0.0, 1e-3) for _ in coin_of_leg]
    opens, closes = [[] for _ in coin_of_leg], [[] for _ in coin_of_leg]
    last = [math.exp(coin_log[c] + b) for c, b in zip(coin_of_leg, basis, strict=True)]
    for _ in range(n_bars):
        common = rng.gauss(0.0, volatility)
        coin_log = [value + common + rng.gauss(0.0, volatility / 2) for value in coin_log]
        for i, c in enumerate(coin_of_leg):
            basis[i] = 0.8 * basis[i] + rng.gauss(0.0, 6e-4)
            opens[i].append(last[i] * (1.0 + rng.gauss(0.0, 2e-4)))
            last[i] = math.exp(coin_log[c] + basis[i])
            closes[i].append(last[i])
    return opens, closes


def _bars(rng, *, stamps, opens, closes, zero_volume_share):
    """File rows of one leg at its own step."""
    rows = []
    for ts, open_, close in zip(stamps, opens, closes, strict=True):
        high = max(open_, close) * (1.0 + abs(rng.gauss(0.0, 3e-4)))
        low = min(open_, close) * (1.0 - abs(rng.gauss(0.0, 3e-4)))
        volume = math.exp(rng.gauss(0.0, 0.7)) * 2e6 / close
        rows.append((ts, open_, high, low, close, 0.0 if rng.random() < zero_volume_share else volume))
    return rows


def _merged(rows, step_us):
    """The same file at a coarser step of its own; a bar whose first row is not there is left out."""
    merged = []
    for ts, open_, high, low, close, volume in rows:
        if ts % step_us == 0:
            merged.append((ts, open_, high, low, close, volume))
        elif merged and merged[-1][0] == ts - ts % step_us:
            at, first, top, bottom, _close, so_far = merged[-1]
            merged[-1] = (at, first, max(top, high), min(bottom, low), close, so_far + volume)
    return merged


def _with_gaps(rng, rows, *, bar_us, gap_share, headless_share, outage):
    """Rows without some of them: single ones, first ones of a run bar, a long outage. The ends stay."""
    dark = range(0)
    if outage and len(rows) > 12:
        begin = rng.randrange(2, len(rows) - 8)
        dark = range(begin, begin + rng.randint(2, 6))
    kept = []
    for i, row in enumerate(rows):
        headless = row[0] % bar_us == 0 and rng.random() < headless_share
        if 0 < i < len(rows) - 1 and (i in dark or headless or rng.random() < gap_share):
            continue
        kept.append(row)
    return kept


def _settlements(rng, *, bars, begin_us, end_us, interval_us, new_interval_us, jitter_us, scale, extreme, own, late_us):
    """Settlement rows; the interval changes half-way. Those before the first bar bring a mark of their own."""
    rows, middle = [], (begin_us + end_us) // 2
    stamp = -(-begin_us // interval_us) * interval_us
    prices = {ts: open_ for ts, open_, *_ in bars}
    price = bars[0][1]
    drift = rng.choice((-1.0, 0.5, 1.0)) * scale
    while stamp < end_us:
        rate = rng.uniform(-0.03, 0.03) if extreme and rng.random() < 0.05 else drift + rng.gauss(0.0, scale)
        raw = stamp + rng.randint(0, jitter_us // 1000) * 1000
        price = prices.get(stamp, price)
        has_own = own == "all" or (own == "some" and rng.random() < 0.5) or raw < bars[0][0]
        mark = price * (1.0 + rng.gauss(0.0, 3e-4)) if has_own else None
        known = raw + rng.randint(0, late_us // 1000) * 1000 if late_us else None
        rows.append((raw, rate, mark, known))
        step_us = interval_us if stamp < middle else new_interval_us
        stamp = (stamp // step_us + 1) * step_us
    return rows


@st.composite
def markets(draw):
    """Legs, bounds and bar of a run: two to four legs, a perp among them, with all the dirt real files have."""
    rng = random.Random(draw(st.integers(0, 2**32 - 1), label="market seed"))
    n_legs = draw(st.integers(2, 4))
    n_bars = draw(st.integers(20, 120))
    step_us = draw(st.sampled_from(tuple(STEPS)))
    multiple = draw(st.sampled_from([m for m in STEPS[step_us] if m <= max(1, n_bars // 10)]))
    n_coins = draw(st.integers(1, min(n_legs, 3)))
    gap_share = draw(st.sampled_from((0.0, 0.0, 0.03, 0.15)))
    headless_share = draw(st.sampled_from((0.0, 0.0, 0.15)))
    outage, ragged, late_start, early_end = (draw(st.booleans()) for _ in range(4))
    mixed_steps, one_sign, spot_less, crossed = (draw(st.sampled_from((False,) * 4 + (True,))) for _ in range(4))
    zero_volume_share = draw(st.sampled_from((0.0, 0.0, 0.1)))
    with_marks, interval_changes, extreme, early_funding = (draw(st.booleans()) for _ in range(4))
    jitter_us = draw(st.sampled_from((0, 20_000_000, 20_000_000, 75_000_000)))
    own = draw(st.sampled_from(("none", "none", "some", "all")))
    late_bars = draw(st.sampled_from((0, 0, 0, 2)))
    lots, minimums = draw(st.booleans()), draw(st.sampled_from((0.0, 0.0, 5.0, 20_000.0)))

    bar_us = step_us * multiple
    base_us = (FIRST_DAY + rng.randrange(2)) * DAY_US + rng.randrange(DAY_US // step_us) * step_us
    stamps = [base_us + i * step_us for i in range(n_bars)]
    end_of_data_us = stamps[-1] + step_us

    kinds = ["perp" if spot_less or rng.random() < 0.4 else "spot" for _ in range(n_legs)]
    if "perp" not in kinds:
        kinds[rng.randrange(n_legs)] = "perp"
    coin_of_leg = [(i if crossed else i // 2) % n_coins for i in range(n_legs)]
    opens, closes = _paths(
        rng, n_bars=n_bars, n_coins=n_coins, coin_of_leg=coin_of_leg, volatility=rng.choice((5e-4, 3e-3, 1e-2))
    )
    intervals = [m for m in (5, 15, 30, 60, 240, 480) if m * MINUTE_US * 4 <= n_bars * step_us]
    scale = rng.choice((1e-5, 1e-4, 5e-4))

    legs = []
    for i, kind in enumerate(kinds):
        price = COIN_PRICES[coin_of_leg[i]]
        sign = 1.0 if one_sign or i % 2 == 0 else -1.0
        rows = _bars(rng, stamps=stamps, opens=opens[i], closes=closes[i], zero_volume_share=zero_volume_share)
        if ragged:
            rows = rows[rng.randint(0, n_bars // 10) : n_bars - rng.randint(0, n_bars // 10)]
        leg_step_us = step_us
        if mixed_steps and multiple > 1 and rng.random() < 0.5:
            leg_step_us, rows = bar_us, _merged(rows, bar_us)
        rows = _with_gaps(
            rng, rows, bar_us=bar_us, gap_share=gap_share, headless_share=headless_share, outage=outage and i == 0
        )
        mark_rows, settlements, mark_step_us = [], [], step_us
        if kind == "perp":
            if with_marks and rng.random() < 0.8:
                mark_rows = [
                    (ts, o * (1.0 + rng.gauss(0.0, 2e-4)), c * (1.0 + rng.gauss(0.0, 2e-4)))
                    for ts, o, c in zip(stamps, opens[i], closes[i], strict=True)
                    if rng.random() > gap_share
                ]
            interval_us = rng.choice(intervals) * MINUTE_US
            settlements = _settlements(
                rng,
                bars=rows,
                begin_us=base_us - (rng.randint(1, 4) * interval_us if early_funding else 0),
                end_us=end_of_data_us,
                interval_us=interval_us,
                new_interval_us=rng.choice(intervals) * MINUTE_US if interval_changes else interval_us,
                jitter_us=jitter_us,
                scale=scale,
                extreme=extreme,
                own=own,
                late_us=late_bars * bar_us,
            )
        legs.append(
            {
                "kind": kind,
                "ratio": sign * rng.choice((1.0, 1.0, 0.5, 2.0)) * float(f"{COIN_PRICES[0] / price:.3g}"),
                "bars": rows,
                "step_us": leg_step_us,
                "mark_bars": mark_rows,
                "mark_step_us": mark_step_us,
                "settlements": settlements,
                "lot": 10.0 ** math.floor(math.log10(rng.choice((2.0, 50.0, 2_000.0, 200_000.0)) / price))
                if lots
                else 0.0,
                "min_notional_usd": minimums,
            }
        )
    quarter_us = n_bars // 4 * step_us
    first_grid_us = base_us // bar_us * bar_us
    return {
        "legs": legs,
        "start_us": first_grid_us + (rng.randint(0, quarter_us) // bar_us * bar_us if late_start else 0),
        "end_us": (end_of_data_us - (rng.randint(0, quarter_us) if early_end else 0)) // bar_us * bar_us + bar_us,
        "bar_us": bar_us,
    }


# --------------------------------------------------------------------------------------------------------- parameters


def _cost(draw, *, can_pay_in_base):
    """Costs of one leg."""
    fee_bps = draw(st.sampled_from((0.0, 5.5, 2.0, 10.0, -1.0)))
    cost = {
        "half_spread_bps": draw(st.sampled_from((0.0, 1.0, 3.7))),
        "fee_bps": fee_bps,
        "fee_in_base": draw(st.booleans()) if can_pay_in_base and fee_bps > 0 else False,
        "bucket_usd": [],
        "bucket_bps": [],
        "impact_coef_bps": draw(st.sampled_from((0.0, 0.0, 8.0, 30.0))),
        "impact_exponent": draw(st.sampled_from((0.5, 0.5, 1.0, 0.35))),
    }
    n_edges = draw(st.sampled_from((0, 0, 1, 3, 4)))
    if n_edges:
        cost["bucket_usd"] = [1_000.0, 10_000.0, 75_000.0, 500_000.0][:n_edges]
        rng = random.Random(draw(st.integers(0, 2**16 - 1)))
        n_days = draw(st.sampled_from((0, 0, 1, 3)))
        tables = [sorted(round(rng.uniform(0.0, 15.0), 2) for _ in range(n_edges)) for _ in range(max(n_days, 1))]
        cost["bucket_bps"] = tables if n_days else tables[0]
        if n_days:
            cost["bucket_days"] = sorted(rng.sample(range(FIRST_DAY - 1, FIRST_DAY + 5), n_days))
    return cost


@st.composite
def parameters(draw, n_legs, *, bar_us=HOUR_US, n_bars=120, kinds=None):
    """Signal, rule, size, costs and fills of a run.

    Durations are drawn in bars (fractions too) and given in hours; a signal given by values has `n_bars` of them;
    without `kinds` no leg is known to be spot and any may be asked to pay its fee in base, which only spot does.
    """
    bar_hours = bar_us / HOUR_US

    def hours(*bars):
        count = draw(st.sampled_from(bars))
        return None if count is None else count * bar_hours

    name = draw(st.sampled_from(("values", "funding_apr", "basis_bps", "basis_zscore")))
    if name == "values":
        rng = random.Random(draw(st.integers(0, 2**32 - 1), label="signal seed"))
        null_share = draw(st.sampled_from((0.0, 0.1, 0.4)))
        signal = {"values": [None if rng.random() < null_share else rng.gauss(0.0, 1.0) for _ in range(n_bars)]}
        entries = (0.5, 1.0, 0.0)
    elif name == "funding_apr":
        signal = {"name": name, "hours": hours(3, 1, 2.5, 8)}
        entries = (0.0, 0.05, 0.5)
    elif name == "basis_bps":
        signal = {"name": name}
        entries = (2.0, 5.0, 0.0)
    else:
        signal = {"name": name, "hours": hours(4, 3, 5.5, 10)}
        entries = (0.5, 1.0, 0.0)
    entry = draw(st.sampled_from(entries))
    width = entries[1]

    return {
        "signal": signal,
        "rule": {
            "entry": entry,
            "exit": entry - draw(st.sampled_from((0.5, 1.0, 2.0, 0.0))) * width,
            "reverse": draw(st.booleans()),
            "min_hold_hours": hours(None, None, 2, 3.5),
            "max_hold_hours": hours(None, None, 4, 6.3),
            "cooldown_hours": hours(None, None, 2, 2.5),
            "stop_loss_pct": draw(st.sampled_from((None, None, 0.1, 1.0))),
            "max_basis_bps": draw(st.sampled_from((None, None, None, 10.0, 40.0))),
        },
        "size": {
            "capital_usd": draw(st.sampled_from((100_000.0, 10_000.0, 1_000_000.0))),
            "allocation": draw(st.sampled_from((1.0, 0.9, 0.5))),
            "leverage": draw(st.sampled_from((1.0, 2.0, 3.0, 5.0))),
            "compounding": draw(st.booleans()),
        },
        "costs": [_cost(draw, can_pay_in_base=kinds is None or kinds[i] == "spot") for i in range(n_legs)],
        "fills": {"latency_hours": hours(0, 0, 0.4, 1, 1.5, 2, 3)},
    }


@st.composite
def cases(draw):
    """All keyword arguments of `oracles.backtest`: a market and parameters that fit its bar, length and legs."""
    market = draw(markets())
    kinds = [leg["kind"] for leg in market["legs"]]
    fitted = parameters(len(kinds), bar_us=market["bar_us"], n_bars=len(run_stamps(market)), kinds=kinds)
    return market | draw(fitted)
