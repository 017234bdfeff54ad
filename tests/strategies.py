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
    opens: list[list[float]] = [[] for _ in coin_of_leg]
    closes: list[list[float]] = [[] for _ in coin_of_leg]
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


# ------------------------------------------------------------------------------------------- fills that are not certain


@st.composite
def fill_options(draw, n_legs, *, bar_us=HOUR_US):
    """Fills of a run: how much of an order is filled, when, and what is done about the rest; each option mostly off.

    Caps, probabilities and offsets are such that they bind now and then. A delay and a latency are drawn in bars.
    """
    bar_hours = bar_us / HOUR_US
    latencies = (0, 0, 0.4, 1, 2, 3)
    if draw(st.booleans()):
        latency = [draw(st.sampled_from(latencies)) * bar_hours for _ in range(n_legs)]
    else:
        latency = draw(st.sampled_from(latencies)) * bar_hours
    model = draw(st.sampled_from(("certain", "volume", "bernoulli", "maker")))
    fills = {"latency_hours": latency, "model": model}
    if model == "volume":
        fills["volume_cap"] = draw(st.sampled_from((0.1, 0.02, 0.5, 10.0)))
    elif model == "bernoulli":
        fills["fill_probability"] = draw(st.sampled_from((0.7, 0.4, 0.95)))
    elif model == "maker":
        fills["offset_bps"] = draw(st.sampled_from((1.0, 0.0, 3.0, 15.0)))
        if draw(st.booleans()):
            fills["maker_fee_bps"] = [draw(st.sampled_from((0.0, 1.5, -0.5))) for _ in range(n_legs)]
    optional = {
        "reject_probability": (None, None, 0.15, 0.15, 0.5),
        "atomicity": (None, "rollback", "match", "match", "naked"),
        "rollback_penalty_bps": (None, None, 5.0, 25.0),
        "max_cost_bps": (None,) * 8 + (6.0, 20.0),
        "max_volume_share": (None,) * 8 + (0.05, 0.3),
        "max_spread_bps": (None,) * 8 + (2.0, 7.0),
        "seed": (None, 7, 2**53 - 7),
        "trial": (None, None, 3),
    }
    for name, values in optional.items():
        value = draw(st.sampled_from(values))
        if value is not None:
            fills[name] = value
    delay_bars = draw(st.sampled_from((None, 0, 0, 0.6, 1, 2, 3)))
    if delay_bars is not None:
        fills["rollback_delay_hours"] = delay_bars * bar_hours
    return fills


@st.composite
def uncertain_cases(draw):
    """The `cases` with fills that are late, partial, refused or passive; two in three trade whenever they can."""
    case = draw(cases())
    if draw(st.sampled_from((True, True, False))):
        rng = random.Random(draw(st.integers(0, 2**32 - 1), label="signal seed"))
        case["signal"] = {"values": [rng.gauss(0.0, 1.0) for _ in run_stamps(case)]}
        case["rule"] |= {"entry": 0.0, "exit": 0.0, "cooldown_hours": None, "max_basis_bps": None}
        for leg in case["legs"]:
            leg["min_notional_usd"] = 0.0
    return case | {"fills": draw(fill_options(len(case["legs"]), bar_us=case["bar_us"]))}


# ------------------------------------------------------------------------------------------------- wallets and margin


def _stretch(market, *, swing, jump, jump_us):
    """The market with moves so much larger that it goes `swing` (in logs) away, and a jump between two of its bars.

    Prices of a bar keep their order; volumes keep their worth; no move is over 60 times what it was, or smaller.
    """
    furthest = max(abs(math.log(bar[4] / leg["bars"][0][1])) for leg in market["legs"] for bar in leg["bars"])
    power = min(max(swing / furthest, 1.0), 60.0)
    for leg in market["legs"]:
        anchor = leg["bars"][0][1]

        def moved(ts, price, anchor=anchor):
            return anchor * (price / anchor) ** power * (jump if ts >= jump_us else 1.0)

        leg["bars"] = [
            (ts, *(moved(ts, price) for price in (o, h, low, c)), volume * c / moved(ts, c))
            for ts, o, h, low, c, volume in leg["bars"]
        ]
        leg["mark_bars"] = [(ts, moved(ts, o), moved(ts, c)) for ts, o, c in leg["mark_bars"]]
        leg["settlements"] = [
            (ts, rate, None if mark is None else moved(ts, mark), known) for ts, rate, mark, known in leg["settlements"]
        ]


def _tiers(rng, *, notional_usd, amounts):
    """A table whose floors lie about the size of the position: with amounts that leave no jump, or with none at all."""
    floors = sorted(notional_usd * math.exp(rng.gauss(0.0, 0.35)) for _ in range(rng.choice((0, 1, 2, 4))))
    tiers = [(0.0, rng.choice((0.004, 0.01, 0.025)), 0.0)]
    for floor in floors:
        _floor, mmr, amount = tiers[-1]
        higher = mmr * rng.choice((1.25, 1.6, 2.5))
        tiers.append((floor, higher, amount + floor * (higher - mmr) if amounts else 0.0))
    return tiers


def _with_highs(rng, rows):
    """Mark bars with a high and a low: mostly near, now and then a wick that the trades don't have."""
    wide = []
    for ts, open_, close in rows:
        wick = rng.choice((1e-4, 1e-3, 1e-3, 2e-2))
        high = max(open_, close) * (1.0 + abs(rng.gauss(0.0, wick)))
        low = min(open_, close) * (1.0 - min(abs(rng.gauss(0.0, wick)), 0.5))
        wide.append((ts, open_, high, low, close))
    return wide


@st.composite
def wallet_options(draw, *, stamps, bar_us, capital_usd):
    """Wallets of a run; caps, minima and halts are such that they bind now and then."""
    bar_hours = bar_us / HOUR_US
    wallets = {"mode": draw(st.sampled_from(("segregated", "segregated", "segregated", "pooled")))}
    margin = draw(st.sampled_from((None,) + ("venue",) * 6 + ("none",)))
    if margin is not None:
        wallets["margin"] = margin
    optional = {
        "spot_collateral": (None, None, 0.95, 0.6, 0.2, 1.0),
        "transfer_fee_usd": (None, 1.0, 25.0),
        "transfer_daily_cap_usd": (None, None, 0.3 * capital_usd, 0.02 * capital_usd),
        "rebalance_below": (None, None, 0.04, 0.1, 0.3, 0.6),
    }
    for name, values in optional.items():
        value = draw(st.sampled_from(values))
        if value is not None:
            wallets[name] = value
    # without a fee a difference that is only rounding would be sent: a minimum keeps it out
    wallets["transfer_min_usd"] = draw(st.sampled_from((0.01, 0.01, 0.002 * capital_usd, 0.05 * capital_usd)))
    transfer_bars = draw(st.sampled_from((None, 0, 0.5, 1, 2, 3, 5)))
    if transfer_bars is not None:
        wallets["transfer_hours"] = transfer_bars * bar_hours
    n_halts = draw(st.sampled_from((0, 0, 1, 3)))
    if n_halts and stamps:
        rng = random.Random(draw(st.integers(0, 2**16 - 1)))
        begins = [rng.choice(stamps) + rng.choice((0, 0, -1, 1)) for _ in range(n_halts)]
        wallets["transfer_halts_us"] = [(begin, begin + rng.randint(1, 8 * bar_us)) for begin in sorted(begins)]
    return wallets


@st.composite
def wallet_cases(draw):
    """Cases with wallets, margin and markets that move enough for it to run out: from `cases` and `uncertain_cases`.

    In most of them the rule gets in early and stays, so that a position meets the moves.
    """
    case = draw(st.one_of(uncertain_cases(), uncertain_cases(), cases()))
    rng = random.Random(draw(st.integers(0, 2**32 - 1), label="wallet seed"))
    stamps, legs = run_stamps(case), case["legs"]
    _stretch(
        case,
        swing=draw(st.sampled_from((0.5, 0.15, 1.0, 0.5, 0.0))),
        jump=draw(st.sampled_from((1.0, 1.35, 0.7, 1.1, 0.9, 2.5))),
        jump_us=rng.choice(stamps or [0]),
    )
    if draw(st.sampled_from((True,) * 5 + (False,))):
        case["signal"] = {"values": [1.0 if rng.random() < 0.95 else -1.0 for _ in stamps]}
        case["rule"] |= {"entry": 0.0, "exit": -2.0 if rng.random() < 0.7 else 0.0, "max_basis_bps": None}
        case["rule"] |= {"stop_loss_pct": None, "max_hold_hours": rng.choice((None, case["rule"]["max_hold_hours"]))}
        for leg in legs:
            leg["min_notional_usd"] = 0.0
            leg["lot"] *= rng.choice((0.0, 1e-3, 1e-2, 0.3))
        for name in ("max_cost_bps", "max_volume_share", "max_spread_bps"):
            case["fills"].pop(name, None)
    case["size"]["leverage"] = draw(st.sampled_from((20.0, 8.0, 20.0, 3.0, 8.0, 1.0)))
    if draw(st.sampled_from((False, False, False, True))):
        for leg in legs:
            leg["kind"] = "perp"
    venues = draw(st.sampled_from(("own", "own", "some", "one")))
    amounts, fees = draw(st.booleans()), draw(st.sampled_from((0.0, 50.0, 125.0)))
    highs = draw(st.booleans())
    notional_usd = case["size"]["capital_usd"] * case["size"]["allocation"] * case["size"]["leverage"] / len(legs)
    for leg in legs:
        if venues != "own":
            leg["venue"] = "a" if venues == "one" or rng.random() < 0.5 else "b"
        if leg["kind"] == "perp":
            leg["tiers"] = _tiers(rng, notional_usd=notional_usd, amounts=amounts)
            leg["liquidation_fee_bps"] = fees
            if highs and leg["mark_bars"]:
                leg["mark_bars"] = _with_highs(rng, leg["mark_bars"])
    options = wallet_options(stamps=stamps, bar_us=case["bar_us"], capital_usd=case["size"]["capital_usd"])
    return case | {"wallets": draw(options)}
