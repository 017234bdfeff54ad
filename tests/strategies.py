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
    """Bar stamps in the bounds of the run at which every leg has begun and none has ended; none ends by expiry."""
    bar_us = market["bar_us"]
    begins = [(leg["chain"][0] if "chain" in leg else leg)["bars"][0][0] for leg in market["legs"]]
    ends = [leg["bars"][-1][0] for leg in market["legs"] if "chain" not in leg and "expiry_us" not in leg]
    first, last = max([market["start_us"], *begins]), min([market["end_us"] - 1, *ends])
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
def markets(draw, *, max_bars=120):
    """Legs, bounds and bar of a run: two to four legs, a perp among them, with all the dirt real files have."""
    rng = random.Random(draw(st.integers(0, 2**32 - 1), label="market seed"))
    n_legs = draw(st.integers(2, 4))
    n_bars = draw(st.integers(20, max_bars))
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
def cases(draw, *, max_bars=120):
    """All keyword arguments of `oracles.backtest`: a market and parameters that fit its bar, length and legs."""
    market = draw(markets(max_bars=max_bars))
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
def uncertain_cases(draw, *, max_bars=120):
    """The `cases` with fills that are late, partial, refused or passive; two in three trade whenever they can."""
    case = draw(cases(max_bars=max_bars))
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
def wallet_cases(draw, *, max_bars=120):
    """Cases with wallets, margin and markets that move enough for it to run out: from `cases` and `uncertain_cases`.

    In most of them the rule gets in early and stays, so that a position meets the moves.
    """
    case = draw(st.one_of(*(each(max_bars=max_bars) for each in (uncertain_cases, uncertain_cases, cases))))
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


# ---------------------------------------------------------------------------------------------------------- contracts


def _rows_of(rng, stamps, *, bar_us, every, value):
    """(time, value) rows from before the run to its end, some on bar stamps and some not."""
    ts, rows = stamps[0] - bar_us - rng.randrange(bar_us), []
    while ts <= stamps[-1]:
        rows.append((ts, value(rows[-1][1] if rows else None)))
        ts += rng.randint(1, every) * bar_us // rng.choice((1, 1, 2))
        ts -= ts % rng.choice((1, bar_us))
        if rows[-1][0] >= ts:
            ts = rows[-1][0] + bar_us
    return rows


def _coin_of(leg):
    """Place of the coin a leg is made of: its prices begin near those of one."""
    return min(range(len(COIN_PRICES)), key=lambda c: abs(math.log(leg["bars"][0][1] / COIN_PRICES[c])))


def _scaled(rows, factor):
    """Bars at prices times a factor of their time, with the volume they had."""
    return [(ts, *(price * factor(ts) for price in (o, h, low, c)), volume) for ts, o, h, low, c, volume in rows]


def _expiring(rng, leg, *, stamps, bar_us, n_contracts):
    """Turns a perp into a dated future, or a chain of them, each with a premium; the last may outlive the run.

    Expiries lie on bar stamps or between; a contract has bars before its expiry only.
    """
    leg.update({"kind": "future", "settlements": [], "mark_bars": []})
    leg["delivery_fee_bps"] = rng.choice((0.0, 1.5, 10.0))
    rows, n = leg.pop("bars"), len(stamps)
    places = sorted(rng.sample(range(2, n + 6), n_contracts)) if n > 4 else [n + 1 + k for k in range(n_contracts)]
    contracts = []
    for place in places:
        expiry_us = max(stamps[0] + place * bar_us - rng.choice((0, 0, bar_us // 2)), rows[0][0] + 1)
        premium, yearly = rng.choice((0.01, 0.002, -0.004)), rng.choice((0.0, 0.2, -0.1)) / (365 * DAY_US)

        def factor(ts, expiry_us=expiry_us, premium=premium, yearly=yearly):
            return 1.0 + premium + yearly * (expiry_us - ts)

        contracts.append({"bars": _scaled([row for row in rows if row[0] < expiry_us], factor), "expiry_us": expiry_us})
    if rng.random() < 0.5:
        leg["delivery_price"] = rows[-1][4] * rng.choice((1.0, 0.97, 1.02))
    if n_contracts == 1:
        leg.update(contracts[0])
    else:
        leg["chain"], leg["roll_days"] = contracts, rng.choice((0.0, 1.0, 1.0, 2.0, 2.0, 2.5, 5.0)) * bar_us / DAY_US
        leg["roll_basis_apr"] = rng.choice((None, None, 0.0, 0.3, -0.2))


def _loop(rng, legs, *, stamps, bar_us, drop):
    """Makes the first two legs collateral and a loan of one protocol, with prices that are alike until one drops."""
    loops, base, venue = rng.choice((2.0, 4.0, 6.0)), legs[0], "protocol"
    at_us, rows = rng.choice(stamps), base["bars"]
    unit = abs(base["ratio"])
    for leg, ratio in zip(legs[:2], (loops * unit, -(loops - 1.0) * unit), strict=True):
        for name in ("tiers", "liquidation_fee_bps"):
            leg.pop(name, None)
        leg.update({"kind": "lending", "ratio": ratio, "venue": venue, "settlements": [], "mark_bars": []})
        leg.update({"step_us": base["step_us"], "lot": base["lot"]})
        moved = drop if ratio > 0 else 1.0
        noise = {row[0]: 1.0 + rng.gauss(0.0, 1e-3) for row in rows}
        leg["bars"] = _scaled(rows, lambda ts, moved=moved, noise=noise: noise[ts] * (moved if ts >= at_us else 1.0))
        growth = rng.choice((1e-5, 1e-3))
        leg["index"] = _rows_of(
            rng, stamps, bar_us=bar_us, every=3,
            value=lambda last, growth=growth: 1.02 if last is None else last * (1.0 + growth * rng.random()),
        )  # fmt: skip
        if ratio > 0:
            leg["loan_threshold"], leg["loan_bonus"] = rng.choice((0.95, 0.9)), rng.choice((0.01, 0.075))


def _rates(rng, stamps, *, bar_us):
    """Dollars of a quote currency: near a level, and now and then far from it."""
    level = rng.choice((1.0, 1.0, 1.1))
    return _rows_of(
        rng, stamps, bar_us=bar_us, every=3,
        value=lambda _last: level * rng.choice((1.0, 0.92)) * (1.0 + rng.gauss(0.0, 1e-3)),
    )  # fmt: skip


def _quotes(rng, legs, *, stamps, bar_us, mode):
    """One quote currency for all linear legs of a wallet."""
    rates = {name: _rates(rng, stamps, bar_us=bar_us) for name in ("EUR", "USDX")}
    quotes: dict = {}
    for i, leg in enumerate(legs):
        wallet = leg.get("venue", f"venue{i}") if mode == "segregated" else "all"
        choices = ("EUR", "USDX", "USD") if mode == "segregated" else ("EUR", "USDX")
        quote = quotes.setdefault(wallet, rng.choice(choices))
        if not leg.get("inverse"):
            leg["quote"] = quote
            if quote != "USD":
                leg["quote_usd"] = rates[quote]


def _fees(rng, legs, costs, *, by_volume, by_day, capital_usd):
    """Fees that follow the turnover of the past, or fees and margin tiers that change with the day."""
    for i, (leg, cost) in enumerate(zip(legs, costs, strict=True)):
        if by_volume:
            leg["fee_group"] = f"{leg.get('venue', i)}:{leg['kind'] == 'spot'}"
            volumes = sorted(capital_usd * rng.choice((0.5, 1.0, 3.0, 10.0)) for _ in range(2))
            leg["fee_tiers"] = [(0.0, 9.0), (volumes[0], 6.0), (volumes[1] * 1.5, 2.5)]
            cost["volume_30d_usd"] = rng.choice((0.0, 0.4 * capital_usd, 2.0 * capital_usd))
        elif by_day:
            leg["fee_rows"] = [(FIRST_DAY + day, rng.choice((1.0, 4.5, 8.0))) for day in (-1, 1, 2)]
        if by_day and leg.get("tiers"):
            leg["tier_rows"] = [
                (FIRST_DAY + day, [(floor, mmr * factor, amount * factor) for floor, mmr, amount in leg["tiers"]])
                for day, factor in ((-1, 1.0), (1, rng.choice((0.5, 2.0))), (2, 1.5))
            ]


@st.composite
def contract_cases(draw):
    """Short `wallet_cases` whose legs are of all kinds: inverse, dated, in chains, borrowed, growing, lent, in a quote.

    Every feature is a flag of its own. In one pool all linear legs have one quote, in wallets apart those of each; a
    loan and a staked token are never reversed; where every leg expires the run ends before the first one does.
    """
    case = draw(wallet_cases(max_bars=40))
    rng = random.Random(draw(st.integers(0, 2**32 - 1), label="contract seed"))
    legs, bar_us, mode = case["legs"], case["bar_us"], case["wallets"]["mode"]
    stamps = run_stamps(case) or [case["start_us"]]

    def flag(n_off=2, label=None):
        return draw(st.sampled_from((False,) * n_off + (True,)), label=label)

    has_loop, has_lst, has_borrow = flag(5, "loop"), flag(4, "lst"), flag(1, "borrow")
    has_inverse, has_dates, has_chain = flag(1, "inverse"), flag(2, "dates"), flag(2, "chain")
    has_fx, has_adl, has_gas, has_coin = flag(2, "fx"), flag(4, "adl"), flag(1, "gas"), flag(1, "coin")
    by_volume, by_day = flag(3, "volume tiers"), flag(3, "rows by day")
    cash_yield_apr = draw(st.sampled_from((None, None, 0.04, 3.0)), label="cash yield")
    n_contracts, drop = draw(st.integers(2, 3)), draw(st.sampled_from((1.0, 0.85, 0.6)))

    if has_loop:
        _loop(rng, legs, stamps=stamps, bar_us=bar_us, drop=drop)
    if has_lst:
        for leg in [leg for leg in legs if leg["kind"] == "spot" and leg["ratio"] > 0][:1]:
            leg["kind"] = "lst"
            leg["index"] = _rows_of(
                rng, stamps, bar_us=bar_us, every=2,
                value=lambda last: 1.1 if last is None else last * (1.0 + rng.choice((0.0, 1e-4, 2e-3, -1e-3))),
            )  # fmt: skip
    coins = [_coin_of(leg) for leg in legs]
    ref = next((i for i, leg in enumerate(legs) if leg["kind"] == "spot"), 0)
    for i, leg in enumerate(legs):
        if has_coin:
            leg["coin"] = f"COIN{coins[i]}"
        if leg["kind"] != "perp":
            continue
        if has_inverse and coins[i] == coins[ref] and rng.random() < 0.8:
            leg["inverse"] = True
            if has_coin:
                leg["lot_usd"] = rng.choice((0.0, 100.0, 2_000.0))
        if has_chain and rng.random() < 0.9:
            _expiring(rng, leg, stamps=stamps, bar_us=bar_us, n_contracts=n_contracts)
        elif has_dates and rng.random() < 0.6:
            _expiring(rng, leg, stamps=stamps, bar_us=bar_us, n_contracts=1)
    if has_fx:
        _quotes(rng, legs, stamps=stamps, bar_us=bar_us, mode=mode)
    for leg, cost in zip(legs, case["costs"], strict=True):
        if leg["kind"] == "spot" and has_borrow:
            leg["borrow"] = _rows_of(
                rng, stamps, bar_us=bar_us, every=4, value=lambda _last: rng.choice((0.01, 0.1, 1.5))
            )
            leg["borrow_rule"] = rng.choice(((1.0, 0.0), (4.0, 1.0), (1.0, 1.0)))
        if leg["kind"] in ("lst", "lending"):
            case["rule"]["reverse"] = False
            if has_gas:
                leg["gas"] = _rows_of(rng, stamps, bar_us=bar_us, every=2, value=lambda _last: rng.uniform(0.5, 40.0))
        if leg["kind"] in ("perp", "future") and has_adl:
            hit = sorted(rng.sample(stamps, min(rng.choice((0, 1, 1, 2)), len(stamps))))
            leg["adl"] = [(ts, rng.choice((1.0, 0.5, 0.3))) for ts in hit]
        cost["fee_in_base"] = cost["fee_in_base"] and leg["kind"] == "spot"
    capital_usd = case["size"]["capital_usd"]
    _fees(rng, legs, case["costs"], by_volume=by_volume, by_day=by_day, capital_usd=capital_usd)
    if cash_yield_apr is not None:
        case["wallets"]["cash_yield_apr"] = cash_yield_apr
    if all("chain" in leg or "expiry_us" in leg for leg in legs):
        ends = [(leg["chain"][-1] if "chain" in leg else leg)["bars"][-1][0] for leg in legs]
        case["end_us"] = min(case["end_us"], min(ends) + 1)
    if "values" in case["signal"]:
        n, values = len(run_stamps(case)), case["signal"]["values"]
        case["signal"] = {"values": (values + [1.0] * n)[:n]}
    return case
