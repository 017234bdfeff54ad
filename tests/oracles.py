"""A slow, scalar, obvious backtest: what `docs/semantics.md` says, in plain Python and nothing else.

It is written from the page and never from the package, imports nothing of it, and favours the reader over the clock.
Times are integers, microseconds since the epoch; a null is None. Where the order of floating additions matters, the
docstring of the function that adds says which one it is, so that another implementation can match it to the last bit.

`backtest` is the way in; the small functions above it are the rules, one each, for tests of single kernels.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
YEAR_HOURS = 8760.0
SNAP_LIMIT_US = 60_000_000
WHOLE_TOLERANCE = 1e-9
FLAT_DEVIATION_BPS = 1e-9
BOOKS = ("delta", "basis", "funding", "fees", "spread", "bucket", "impact", "delay")


# ------------------------------------------------------------------------------------------------- time and the grid


def hours_to_bars(hours, bar_us):
    """Bars that cover a duration: upward, but a quotient within 1e-9 of a whole number is that number."""
    quotient = hours * 3600e6 / bar_us
    nearest = round(quotient)
    return nearest if abs(quotient - nearest) <= WHOLE_TOLERANCE else math.ceil(quotient)


def snap(stamp_us, bar_us):
    """A stamp at most min(60 s, half a bar) after a bar stamp becomes that bar stamp; any other stays what it is."""
    late_us = stamp_us % bar_us
    return stamp_us - late_us if 2 * late_us <= bar_us and late_us <= SNAP_LIMIT_US else stamp_us


@dataclass(frozen=True)
class Candle:
    """One bar of the run; `open` is None where the small bar at the stamp is missing, and the leg can't be traded."""

    open: float | None
    high: float
    low: float
    close: float
    volume: float


def resample(bars, step_us, bar_us):
    """Run bars of a file, by stamp; a run bar without a single file row is absent. Volumes are added in file order."""
    if bar_us % step_us:
        raise ValueError(f"a bar of {bar_us} us is not made of whole steps of {step_us} us")
    candles = {}
    for ts, open_, high, low, close, volume in bars:
        stamp = ts - ts % bar_us
        if stamp not in candles:
            candles[stamp] = Candle(open_ if ts == stamp else None, high, low, close, volume)
        else:
            so_far = candles[stamp]
            candles[stamp] = Candle(
                so_far.open, max(so_far.high, high), min(so_far.low, low), close, so_far.volume + volume
            )
    return candles


def grid_stamps(legs, bar_us, start_us=None, end_us=None):
    """Stamps at which every leg has begun (a file row at or before) and none has ended (one at or after)."""
    first = max(leg["bars"][0][0] for leg in legs)
    last = min(leg["bars"][-1][0] for leg in legs)
    if start_us is not None:
        first = max(first, start_us)
    if end_us is not None:
        last = min(last, end_us - 1)
    stamp = -(-first // bar_us) * bar_us
    stamps = []
    while stamp <= last:
        stamps.append(stamp)
        stamp += bar_us
    return stamps


# -------------------------------------------------------------------------------------------------------- settlements


def price_points(trade_bars, step_us, mark_bars, mark_step_us):
    """Prices of a perp in the order in which they became known: (time, is_mark, is_open, price), the last one winning.

    An open is known at its stamp, a close at the end of its bar. At equal times any price of a mark bar comes after
    (beats) any price of a trade bar, and within one series the open comes after the close of the bar before.
    """
    points = []
    for ts, open_, _high, _low, close, _volume in trade_bars:
        points += [(ts, 0, 1, open_), (ts + step_us, 0, 0, close)]
    for ts, open_, close in mark_bars:
        points += [(ts, 1, 1, open_), (ts + mark_step_us, 1, 0, close)]
    return sorted(points)


def settlement_mark(own_mark, raw_us, points):
    """Price a settlement is paid on, and where it came from: its own, else the last known at its raw stamp."""
    if own_mark is not None:
        return own_mark, "own"
    known = bisect_right(points, (raw_us, 2, 2, 0.0))
    if known == 0:
        return None, "none"
    _time, is_mark, _is_open, price = points[known - 1]
    return price, "mark" if is_mark else "trade"


def funding_cash(position, mark, rate):
    """Cash to the holder of `position` base units: `-position * mark * rate`, multiplied from the left."""
    return -position * mark * rate


# ------------------------------------------------------------------------------------------------------------ signals


def trailing_funding(settlements, ts_us, window_us):
    """Exactly rounded sum of the rates with a snapped stamp in (ts - window, ts] that are known at ts.

    `settlements` is a list of (snapped stamp, snapped known_at, rate).
    """
    return math.fsum(rate for s, known, rate in settlements if ts_us - window_us < s <= ts_us and known <= ts_us)


def funding_apr(legs, bar_us, ts_us, hours):
    """Value at the decision at ts: from the left, 0.0 + (-ratio * (sum * 8760.0 / hours)) over perp legs in order."""
    window_us = round(hours * HOUR_US)
    total, n_perps = 0.0, 0
    for leg in legs:
        if leg["kind"] != "perp":
            continue
        n_perps += 1
        rates = [
            (snap(s, bar_us), snap(s if known is None else known, bar_us), rate)
            for s, rate, _mark, known in leg["settlements"]
        ]
        begins = min([leg["bars"][0][0]] + [s for s, _known, _rate in rates])
        if ts_us - window_us < begins:
            return None
        apr = trailing_funding(rates, ts_us, window_us) * YEAR_HOURS / hours
        total += -leg["ratio"] * apr
    return total if n_perps else None


def basis_bps(legs, candles, stamp):
    """Close of the first short leg over that of the first long one in the bar at `stamp`, less one, in bps."""
    short = next((i for i, leg in enumerate(legs) if leg["ratio"] < 0), None)
    long = next((i for i, leg in enumerate(legs) if leg["ratio"] > 0), None)
    if short is None or long is None or stamp not in candles[short] or stamp not in candles[long]:
        return None
    return (candles[short][stamp].close / candles[long][stamp].close - 1.0) * 1e4


def mean_and_deviation(values):
    """Mean and standard deviation (ddof 1), in two passes of plain sums from the left; None under two values."""
    if not values:
        return None, None
    total = 0.0
    for value in values:
        total += value
    mean = total / len(values)
    if len(values) < 2:
        return mean, None
    squares = 0.0
    for value in values:
        squares += (value - mean) * (value - mean)
    return mean, math.sqrt(squares / (len(values) - 1))


def basis_zscore(legs, candles, bar_us, stamp, hours):
    """Basis of the row at `stamp` in deviations from the mean of its last ceil(hours) rows, oldest added first.

    Rows exist from the first stamp at which every leg has begun, before or after the start of the run. A row without
    a basis of its own has no score.
    """
    n_rows = hours_to_bars(hours, bar_us)
    rows = grid_stamps(legs, bar_us)
    first_needed = stamp - (n_rows - 1) * bar_us
    if not rows or first_needed < rows[0]:
        return None
    window = [basis_bps(legs, candles, first_needed + i * bar_us) for i in range(n_rows)]
    latest = window[-1] if window else None
    mean, deviation = mean_and_deviation([value for value in window if value is not None])
    if latest is None or deviation is None or deviation < FLAT_DEVIATION_BPS:
        return None
    return (latest - mean) / deviation


def signal_at(signal, legs, candles, bar_us, t, ts_us):
    """Value the decision of row t uses: known at `ts_us`, hence that of row t-1. Given values are taken as they are."""
    if "values" in signal:
        return signal["values"][t]
    if signal["name"] == "funding_apr":
        return funding_apr(legs, bar_us, ts_us, signal["hours"])
    if signal["name"] == "basis_bps":
        return basis_bps(legs, candles, ts_us - bar_us)
    if signal["name"] == "basis_zscore":
        return basis_zscore(legs, candles, bar_us, ts_us - bar_us, signal["hours"])
    raise ValueError(f"no such signal: {signal['name']}")


# ----------------------------------------------------------------------------------------------------- size and costs


def floor_to_lot(quantity, lot):
    """Whole lots in a quantity, as a quantity; within 1e-9 of the next lot is that lot. A lot of 0 leaves it alone."""
    if lot == 0.0:
        return quantity
    units = quantity / lot
    k = math.floor(units)
    if (k + 1) - units < WHOLE_TOLERANCE:
        k += 1
    return k * lot


def bucket_bps(notional_usd, edges_usd, edge_bps):
    """Bps of a notional: log-linear between edges, flat outside, 0 without a table.

    Inside: w = (log(notional) - log(lo)) / (log(hi) - log(lo)), then lo_bps + w * (hi_bps - lo_bps).
    """
    if not edges_usd:
        return 0.0
    if notional_usd <= edges_usd[0]:
        return edge_bps[0]
    if notional_usd >= edges_usd[-1]:
        return edge_bps[-1]
    i = bisect_right(edges_usd, notional_usd) - 1
    low, high = math.log(edges_usd[i]), math.log(edges_usd[i + 1])
    w = (math.log(notional_usd) - low) / (high - low)
    return edge_bps[i] + w * (edge_bps[i + 1] - edge_bps[i])


def bucket_row(cost, ts_us):
    """Row of bps of a leg's table at the time of a fill: the latest day at or before it, the first day before that."""
    if not cost.get("bucket_days"):
        return cost["bucket_bps"]
    return cost["bucket_bps"][max(bisect_right(cost["bucket_days"], ts_us // DAY_US) - 1, 0)]


def fill_cost(
    *,
    side,
    n_net,
    n_gross,
    arrival,
    reference,
    volume,
    half_spread_bps,
    fee_bps,
    bucket_usd=(),
    bucket_bps_row=(),
    impact_coef_bps=0.0,
    impact_exponent=0.5,
):
    """Price, parts in bps and parts in dollars of one fill.

    Everything is multiplied from the left: cost_bps = (half_spread + bucket) + impact; fill = reference *
    (1.0 + side * cost_bps / 1e4); spread = n_net * reference * half_spread / 1e4, bucket and impact alike; delay =
    side * n_net * (reference - arrival); fee = n_gross * fill * fee_bps / 1e4. The table is read at
    n_gross * reference and the impact at n_gross / volume; without any volume (None) there is no impact.
    `n_net` differs from `n_gross` only where the fee is taken in base.
    """
    bucket = bucket_bps(n_gross * reference, bucket_usd, bucket_bps_row)
    impact = 0.0
    if impact_coef_bps != 0.0 and volume is not None:
        impact = impact_coef_bps * (n_gross / volume) ** impact_exponent
    cost_bps = (half_spread_bps + bucket) + impact
    fill = reference * (1.0 + side * cost_bps / 1e4)
    return {
        "cost_bps": cost_bps,
        "bucket_bps": bucket,
        "impact_bps": impact,
        "fill": fill,
        "notional": n_gross * fill,
        "fee": n_gross * fill * fee_bps / 1e4,
        "spread": n_net * reference * half_spread_bps / 1e4,
        "bucket": n_net * reference * bucket / 1e4,
        "impact": n_net * reference * impact / 1e4,
        "delay": side * n_net * (reference - arrival),
    }


def pays_fee_in_base(leg, cost, change):
    """Spot buys only, and only when asked for."""
    return bool(cost["fee_in_base"]) and leg["kind"] == "spot" and change > 0


# ------------------------------------------------------------------------------------------------------------ metrics


def drawdown(equity, stale, capital_usd, bar_hours):
    """Largest fall as a fraction of the running peak, 1.0 - equity / peak, and the longest time under water in hours.

    Fresh rows only; the first peak is the capital, one bar before the first row. A row that equals the peak is a new
    peak row.
    """
    peak, peak_row = capital_usd, -1
    deepest, longest, under_water, last = 0.0, 0, False, -1
    for t, value in enumerate(equity):
        if stale[t]:
            continue
        last = t
        if value >= peak:
            if under_water:
                longest = max(longest, t - peak_row)
            peak, peak_row, under_water = value, t, False
        else:
            under_water = True
            deepest = max(deepest, 1.0 - value / peak)
    if under_water:
        longest = max(longest, last - peak_row)
    return deepest, longest * bar_hours


def growth(ratio, years):
    """Yearly growth of a ratio: everything lost is -1, more than a float can hold is infinite."""
    if ratio <= 0.0:
        return -1.0
    try:
        return ratio ** (1.0 / years) - 1.0
    except OverflowError:
        return math.inf


def metrics(*, capital_usd, bar_us, equity, stale, held, gross_notional, fills, books, trades, n_refused):
    """Every metric of the page; None for a null. Sums run from the left, over rows, fills, trades or legs in order."""
    bar_hours = bar_us / HOUR_US
    n_bars = len(equity)
    years = n_bars * bar_hours / YEAR_HOURS
    per_year = math.sqrt(YEAR_HOURS / bar_hours)

    returns, previous = [], capital_usd
    for value, is_stale in zip(equity, stale, strict=True):
        if not is_stale:
            returns.append(value / previous - 1.0)
            previous = value
    mean, deviation = mean_and_deviation(returns)
    downside = math.sqrt(sum(min(r, 0.0) * min(r, 0.0) for r in returns) / len(returns)) if returns else 0.0

    pnl = equity[-1] - capital_usd
    deepest, under_water_hours = drawdown(equity, stale, capital_usd, bar_hours)
    cagr = growth(equity[-1] / capital_usd, years)
    total = {name: sum(leg[name] for leg in books) for name in BOOKS}
    closed = [trade for trade in trades if trade["exit_bar"] is not None]
    bars_held = [trade["exit_bar"] - trade["entry_bar"] for trade in closed]
    n_held = sum(held)
    mean_notional = sum(n for n, is_held in zip(gross_notional, held, strict=True) if is_held) / max(n_held, 1)
    return {
        "total_return": equity[-1] / capital_usd - 1.0,
        "cagr": cagr,
        "ann_vol": deviation * per_year if deviation is not None else 0.0,
        "sharpe": mean / deviation * per_year if deviation else None,
        "sortino": mean / downside * per_year if downside else None,
        "calmar": cagr / deepest if deepest else None,
        "max_drawdown": deepest,
        "max_drawdown_hours": under_water_hours,
        "n_trades": len(trades),
        "win_rate": sum(trade["pnl"] > 0 for trade in closed) / len(closed) if closed else None,
        "avg_hold_hours": sum(bars_held) * bar_hours / len(bars_held) if closed else None,
        "time_in_market": n_held / n_bars,
        "turnover": sum(fill["notional"] for fill in fills) / capital_usd,
        "funding_usd": total["funding"],
        "basis_usd": total["basis"],
        "delta_usd": total["delta"],
        "fees_usd": total["fees"],
        "slippage_usd": total["spread"] + total["bucket"] + total["impact"] + total["delay"],
        "pnl_usd": pnl,
        "end_equity_usd": equity[-1],
        "n_refused": n_refused,
        "apr_on_capital": pnl / capital_usd / years,
        "apr_on_notional": pnl / mean_notional / (n_held * bar_hours / YEAR_HOURS) if n_held else None,
    }


# ------------------------------------------------------------------------------------------------------- the backtest


@dataclass(frozen=True)
class Prices:
    """What one leg shows at each row of the run.

    `arrival`: the open, else the last close before the row; `close`: the last close up to the end of the row, with
    `missing` where the row has none of its own; `volume`: the last one above zero of a bar before the row, or None.
    """

    open: list
    arrival: list
    close: list
    missing: list
    volume: list


def leg_prices(candles, stamps):
    """Prices of one leg at the stamps of the run; bars before the run count as the past."""
    prices = Prices([], [], [], [], [])
    for ts in stamps:
        before = sorted(stamp for stamp in candles if stamp < ts)
        own = candles.get(ts)
        last_close = candles[before[-1]].close if before else None
        volumes = [candles[stamp].volume for stamp in before if candles[stamp].volume > 0]
        prices.open.append(own.open if own else None)
        prices.arrival.append(own.open if own and own.open is not None else last_close)
        prices.close.append(own.close if own else last_close)
        prices.missing.append(own is None)
        prices.volume.append(volumes[-1] if volumes else None)
    return prices


def settlements_by_row(legs, stamps, bar_us):
    """For each row the settlements paid at it, by leg and then raw stamp, each with its mark."""
    rows = [[] for _ in stamps]
    for i, leg in enumerate(legs):
        points = price_points(leg["bars"], leg["step_us"], leg["mark_bars"], leg["mark_step_us"])
        for raw, rate, own_mark, known in sorted(leg["settlements"], key=lambda row: row[0]):
            t = -(-(snap(raw, bar_us) - stamps[0]) // bar_us)
            if 0 <= t < len(stamps):
                mark, source = settlement_mark(own_mark, raw, points)
                rows[t].append(
                    {
                        "bar": t,
                        "leg": i,
                        "settlement_us": raw,
                        "known_at_us": raw if known is None else known,
                        "rate": rate,
                        "mark": mark,
                        "mark_source": source,
                    }
                )
    return rows


def size_entry(*, legs, costs, arrival, equity, direction, size):
    """Combo quantity of an entry and what each leg's position changes by, or the reason it is refused.

    kappa adds abs(ratio) * A * m over legs in order, m = 1.0 for spot and 1.0 / leverage for a perp; x is
    allocation * equity / kappa, from the left, floored to the largest lot / abs(ratio). A change is
    (direction * ratio) * x_net, with x_net = x * (1.0 - f_star).

    Returns
    -------
    (reason or None, x, x_net, changes)
    """
    if not equity > 0:
        return "size", 0.0, 0.0, []
    kappa = 0.0
    for leg, price in zip(legs, arrival, strict=True):
        kappa += abs(leg["ratio"]) * price * (1.0 if leg["kind"] == "spot" else 1.0 / size["leverage"])
    lot = max(leg["lot"] / abs(leg["ratio"]) for leg in legs)
    x = floor_to_lot(size["allocation"] * equity / kappa, lot)
    if not x > 0:
        return "size", x, 0.0, []
    for leg, price in zip(legs, arrival, strict=True):
        if x * abs(leg["ratio"]) * price < leg["min_notional_usd"]:
            return "min_notional", x, 0.0, []
    base_fees = [
        cost["fee_bps"] / 1e4
        for leg, cost in zip(legs, costs, strict=True)
        if pays_fee_in_base(leg, cost, direction * leg["ratio"])
    ]
    x_net = x * (1.0 - max(base_fees, default=0.0))
    return None, x, x_net, [(direction * leg["ratio"]) * x_net for leg in legs]


def entry_direction(rule, value):
    """+1, -1, or 0 for no entry; a signal that allows both enters as written."""
    if value is None:
        return 0
    if value >= rule["entry"]:
        return 1
    return -1 if rule["reverse"] and value <= -rule["entry"] else 0


def exit_reason(*, rule, bar_us, value, direction, bars_held, last_equity, sized_on_usd):
    """Why a held combo leaves now, or None: the stop before max_hold before the signal."""
    if rule["stop_loss_pct"] is not None and last_equity <= (1.0 - rule["stop_loss_pct"] / 100.0) * sized_on_usd:
        return "stop"
    if rule["max_hold_hours"] is not None and bars_held >= hours_to_bars(rule["max_hold_hours"], bar_us):
        return "max_hold"
    if value is None or bars_held < hours_to_bars(rule["min_hold_hours"] or 0.0, bar_us):
        return None
    leaves = value <= rule["exit"] if direction > 0 else value >= -rule["exit"]
    return "signal" if leaves else None


def backtest(*, legs, start_us, end_us, bar_us, signal, rule, size, costs, fills):
    """One run of one combo, row by row: accruals, decision, fill, mark.

    Orders of addition: settlements of a row by (leg, time), cash += flow; legs filled in order, each with
    cash += -change * fill and then cash -= fee, or cash -= n_gross * fill alone where the fee is taken in base;
    equity = cash, then += q * C over legs in order. Price PnL of a row and leg: first what was held before the fill
    (close to close; nothing at row 0), then what was filled (arrival to close); each adds change * dS to delta and
    change * (dP - dS) to basis.

    Parameters
    ----------
    legs : dicts with kind, ratio, bars (file rows ts, o, h, l, c, v), step_us, mark_bars (ts, open, close),
        mark_step_us, settlements (ts, rate, mark or None, known_at or None), lot, min_notional_usd
    start_us, end_us, bar_us : bounds and bar of the run; all rows given serve as warm-up
    signal : {"name", "hours"}, or {"values"} with the value row t decides on at place t, not shifted any more
    rule : entry, exit, reverse, and min_hold_hours, max_hold_hours, cooldown_hours, stop_loss_pct, max_basis_bps
        (None: off)
    size : capital_usd, allocation, leverage, compounding
    costs : one dict a leg: half_spread_bps, fee_bps, fee_in_base, bucket_usd, bucket_bps, impact_coef_bps,
        impact_exponent, and bucket_days when bucket_bps has one list a day
    fills : {"latency_hours"}

    Returns
    -------
    dict with ts_us, signal, basis_bps (of the decision of each row), equity, cash, position, stale, books (cumulative,
    by row and leg), direction, fills, funding, events, trades, metrics. Events of an entry or exit stand at the bar of
    the fill with the net combo quantity, "waiting" at every bar an order is due but some leg has no open, "refused" at
    the bar of the decision.
    """
    stamps = grid_stamps(legs, bar_us, start_us, end_us)
    if not stamps:
        raise ValueError("the run has no bars")
    n_legs = len(legs)
    candles = [resample(leg["bars"], leg["step_us"], bar_us) for leg in legs]
    prices = [leg_prices(candle, stamps) for candle in candles]
    due_settlements = settlements_by_row(legs, stamps, bar_us)
    reference_leg = next((i for i, leg in enumerate(legs) if leg["kind"] == "spot"), 0)
    latency_bars = hours_to_bars(fills["latency_hours"], bar_us)
    cooldown_bars = hours_to_bars(rule["cooldown_hours"] or 0.0, bar_us)

    capital = size["capital_usd"]
    cash, position, direction = capital, [0.0] * n_legs, 0
    books = [dict.fromkeys(BOOKS, 0.0) for _ in legs]
    order, entry_bar, exit_bar, sized_on, x_held, cash_before_entry = None, None, None, None, 0.0, None
    names = ("signal", "basis_bps", "equity", "cash", "position", "stale", "books", "direction")
    out = {"ts_us": stamps} | {name: [] for name in names}
    out |= {name: [] for name in ("fills", "funding", "events", "trades")}
    gross_notional, held = [], []

    def note(t, event, reason, d, quantity):
        out["events"].append({"bar": t, "event": event, "reason": reason, "direction": d, "quantity": quantity})

    for t, ts in enumerate(stamps):
        # 2. accruals, on the position held just before the fills of this bar
        for settlement in due_settlements[t]:
            i = settlement["leg"]
            flow = 0.0
            if position[i] != 0.0:
                flow = funding_cash(position[i], settlement["mark"], settlement["rate"])
            cash += flow
            books[i]["funding"] += flow
            out["funding"].append(settlement | {"position": position[i], "cash": flow})

        # 3. decision, on what row t-1 knew at its end
        value = signal_at(signal, legs, candles, bar_us, t, ts)
        basis = basis_bps(legs, candles, ts - bar_us)
        arrival = [leg.arrival[t] for leg in prices]
        if order is None and direction == 0:
            d = entry_direction(rule, value)
            cooled = exit_bar is None or t - exit_bar >= cooldown_bars
            if d != 0 and cooled:
                limit = rule["max_basis_bps"]
                if limit is not None and (basis is None or abs(basis) > limit):
                    note(t, "refused", "basis", d, 0.0)
                else:
                    equity = cash
                    for q, price in zip(position, arrival, strict=True):
                        equity += q * price
                    equity = equity if size["compounding"] else capital
                    refusal, x, x_net, changes = size_entry(
                        legs=legs, costs=costs, arrival=arrival, equity=equity, direction=d, size=size
                    )
                    if refusal:
                        note(t, "refused", refusal, d, x)
                    else:
                        order = {"action": "entry", "reason": "signal", "bar": t, "direction": d, "x": x_net,
                                 "changes": changes, "arrival": arrival, "sized_on": equity}  # fmt: skip
        elif order is None:
            reason = exit_reason(
                rule=rule,
                bar_us=bar_us,
                value=value,
                direction=direction,
                bars_held=t - entry_bar,
                last_equity=out["equity"][t - 1],
                sized_on_usd=sized_on,
            )
            if reason:
                order = {"action": "exit", "reason": reason, "bar": t, "direction": direction, "x": x_held,
                         "changes": [-q for q in position], "arrival": arrival}  # fmt: skip

        # 4. fill of the order in flight: all legs at the opens of this bar, or none
        before, changes, arrival = list(position), [0.0] * n_legs, None
        if order is not None and t >= order["bar"] + latency_bars:
            if any(leg.open[t] is None for leg in prices):
                note(t, "waiting", order["reason"], order["direction"], order["x"])
            else:
                changes, arrival = order["changes"], order["arrival"]
                if order["action"] == "entry":
                    cash_before_entry = cash
                    out["trades"].append({"entry_bar": t, "exit_bar": None, "pnl": None})
                for i, (leg, cost, change) in enumerate(zip(legs, costs, changes, strict=True)):
                    side = 1 if change > 0 else -1
                    in_base = pays_fee_in_base(leg, cost, change)
                    n_net = abs(change)
                    n_gross = n_net / (1.0 - cost["fee_bps"] / 1e4) if in_base else n_net
                    parts = fill_cost(
                        side=side,
                        n_net=n_net,
                        n_gross=n_gross,
                        arrival=arrival[i],
                        reference=prices[i].open[t],
                        volume=prices[i].volume[t],
                        half_spread_bps=cost["half_spread_bps"],
                        fee_bps=cost["fee_bps"],
                        bucket_usd=cost["bucket_usd"],
                        bucket_bps_row=bucket_row(cost, ts),
                        impact_coef_bps=cost["impact_coef_bps"],
                        impact_exponent=cost["impact_exponent"],
                    )
                    if in_base:
                        cash -= n_gross * parts["fill"]
                    else:
                        cash += -change * parts["fill"]
                        cash -= parts["fee"]
                    position[i] = position[i] + change if order["action"] == "entry" else 0.0
                    books[i]["fees"] += parts["fee"]
                    for name in ("spread", "bucket", "impact", "delay"):
                        books[i][name] += parts[name]
                    out["fills"].append(
                        {
                            "bar": t,
                            "leg": i,
                            "trade": len(out["trades"]),
                            "action": order["action"],
                            "reason": order["reason"],
                            "decision_bar": order["bar"],
                            "side": side,
                            "quantity": n_gross,
                            "position_change": change,
                            "arrival": arrival[i],
                            "reference": prices[i].open[t],
                        }
                        | {k: parts[k] for k in ("fill", "notional", "fee", "spread", "bucket", "impact", "delay")}
                    )
                note(t, order["action"], order["reason"], order["direction"], order["x"])
                if order["action"] == "entry":
                    direction, entry_bar, sized_on, x_held = order["direction"], t, order["sized_on"], order["x"]
                else:
                    direction, exit_bar = 0, t
                    out["trades"][-1] |= {"exit_bar": t, "pnl": cash - cash_before_entry}
                order = None

        # 6. mark at the closes, price PnL, equity
        close = [leg.close[t] for leg in prices]
        for i in range(n_legs):
            if t > 0:
                d_reference = close[reference_leg] - prices[reference_leg].close[t - 1]
                d_price = close[i] - prices[i].close[t - 1]
                books[i]["delta"] += before[i] * d_reference
                books[i]["basis"] += before[i] * (d_price - d_reference)
            if arrival is not None:
                d_reference = close[reference_leg] - arrival[reference_leg]
                d_price = close[i] - arrival[i]
                books[i]["delta"] += changes[i] * d_reference
                books[i]["basis"] += changes[i] * (d_price - d_reference)
        equity, notional = cash, 0.0
        for q, price in zip(position, close, strict=True):
            equity += q * price
            notional += abs(q) * price

        out["signal"].append(value)
        out["basis_bps"].append(basis)
        out["equity"].append(equity)
        out["cash"].append(cash)
        out["position"].append(list(position))
        out["stale"].append(any(q != 0.0 and leg.missing[t] for q, leg in zip(position, prices, strict=True)))
        out["books"].append([dict(leg) for leg in books])
        out["direction"].append(direction)
        held.append(any(q != 0.0 for q in position))
        gross_notional.append(notional)

    out["metrics"] = metrics(
        capital_usd=capital,
        bar_us=bar_us,
        equity=out["equity"],
        stale=out["stale"],
        held=held,
        gross_notional=gross_notional,
        fills=out["fills"],
        books=books,
        trades=out["trades"],
        n_refused=sum(event["event"] == "refused" for event in out["events"]),
    )
    return out
