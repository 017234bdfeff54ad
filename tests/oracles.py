"""A slow, scalar, obvious backtest: what `docs/semantics.md` says, in plain Python and nothing else.

It is written from the page and never from the package, imports nothing of it, and favours the reader over the clock.
Times are integers, microseconds since the epoch; a null is None. Where the order of floating additions matters, the
docstring of the function that adds says which one it is, so that another implementation can match it to the last bit.

`backtest` is the way in; the small functions above it are the rules, one each, for tests of single kernels.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
YEAR_HOURS = 8760.0
SNAP_LIMIT_US = 60_000_000
LOAN_HALF_HEALTH = 0.95
LOAN_HALF_USD = 2_000.0
WHOLE_TOLERANCE = 1e-9
FLAT_DEVIATION_BPS = 1e-9
MASK_64 = 2**64 - 1
MARGINED = ("perp", "future")
NO_MARGIN = ("lst", "lending")
BOOKS = (
    "delta", "basis", "funding", "fees", "spread", "bucket", "impact", "delay", "rollback_execution", "rollback_price",
    "transfer", "liquidation", "borrow", "delivery_fee", "yield", "fx",
)  # fmt: skip


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


def contracts_of(leg):
    """The dated contracts a leg is in one after the other, or nothing for a leg that does not expire."""
    if "chain" in leg:
        return leg["chain"]
    return [{"bars": leg["bars"], "expiry_us": leg["expiry_us"]}] if "expiry_us" in leg else []


def grid_stamps(legs, bar_us, start_us=None, end_us=None):
    """Stamps at which every leg has begun (a file row at or before) and none has ended (one at or after).

    A leg that expires ends no grid; where all do, the last file row of any is its end.
    """
    first = max((leg["chain"][0] if "chain" in leg else leg)["bars"][0][0] for leg in legs)
    lasts = [leg["bars"][-1][0] for leg in legs if not contracts_of(leg)]
    last = min(lasts) if lasts else max(contracts_of(leg)[-1]["bars"][-1][0] for leg in legs)
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
    for ts, open_, *_, close in mark_bars:
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


def in_force(rows, day):
    """Value of the latest (first day, value) at or before a UTC day, the first row before that."""
    return rows[max(bisect_right([first for first, _value in rows], day) - 1, 0)][1]


def latest_value(rows, ts_us):
    """Value of the latest (time, value) at or before a time, the first row before that."""
    return rows[max(bisect_right([ts for ts, _value in rows], ts_us) - 1, 0)][1]


def fee_of_volume(fee_tiers, volume_usd):
    """Fee of the last tier whose volume is reached."""
    return in_force(fee_tiers, volume_usd)


def turnover_before(fills, legs, group, day, stamps):
    """Notional of the run's own fills in legs of one fee group in the 30 UTC days before a day, added as they came."""
    total = 0.0
    for fill in fills:
        if legs[fill["leg"]].get("fee_group") == group and day - 30 <= stamps[fill["bar"]] // DAY_US < day:
            total += fill["notional"]
    return total


def costs_of_day(legs, costs, fills, stamps, t):
    """Costs by leg with the taker fee in force on the UTC day of row t."""
    day, of_day = stamps[t] // DAY_US, []
    for leg, cost in zip(legs, costs, strict=True):
        if "fee_tiers" in leg:
            volume = cost.get("volume_30d_usd", 0.0) + turnover_before(fills, legs, leg.get("fee_group"), day, stamps)
            cost = cost | {"fee_bps": fee_of_volume(leg["fee_tiers"], volume)}
        elif "fee_rows" in leg:
            cost = cost | {"fee_bps": in_force(leg["fee_rows"], day)}
        of_day.append(cost)
    return of_day


def borrowed_hours(age_hours, rule):
    """Hours charged to a loan of an age: period * (opening + whole periods begun, at least one); 0.0 for no age."""
    period_hours, opening_periods = rule
    if age_hours <= 0.0:
        return 0.0
    return period_hours * (opening_periods + max(math.ceil(age_hours / period_hours - WHOLE_TOLERANCE), 1))


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
    traded=1.0,
):
    """Price, parts in bps and parts in dollars of one fill.

    Everything is multiplied from the left: cost_bps = (half_spread + bucket) + impact; fill = reference *
    (1.0 + side * cost_bps / 1e4); spread = n_net * reference * half_spread / 1e4, bucket and impact alike; delay =
    side * n_net * (reference - arrival); fee = n_gross * fill * fee_bps / 1e4. The table is read at
    n_gross * reference and the impact at n_gross / volume; without any volume (None) there is no impact.
    `n_net` differs from `n_gross` only where the fee is taken in base. `traded` is the dollars that change hands over
    those of the quantity at the reference: 1 but for an inverse position that is reduced.
    """
    bucket = bucket_bps(n_gross * traded * reference, bucket_usd, bucket_bps_row) * traded
    impact = 0.0
    if impact_coef_bps != 0.0 and volume is not None:
        impact = impact_coef_bps * (n_gross * traded / volume) ** impact_exponent * traded
    half_spread_bps = half_spread_bps * traded
    cost_bps = (half_spread_bps + bucket) + impact
    fill = reference * (1.0 + side * cost_bps / 1e4)
    return {
        "cost_bps": cost_bps,
        "bucket_bps": bucket,
        "impact_bps": impact,
        "fill": fill,
        "notional": n_gross * traded * fill,
        "fee": n_gross * traded * fill * fee_bps / 1e4,
        "spread": n_net * reference * half_spread_bps / 1e4,
        "bucket": n_net * reference * bucket / 1e4,
        "impact": n_net * reference * impact / 1e4,
        "delay": side * n_net * (reference - arrival),
    }


def pays_fee_in_base(leg, cost, change):
    """Spot buys only, and only when asked for."""
    return bool(cost["fee_in_base"]) and leg["kind"] == "spot" and change > 0


def gross_quantity(leg, cost, change, fee_bps):
    """Quantity ordered so that `change` arrives: abs(change) / (1.0 - fee_bps / 1e4) where the fee is taken in base."""
    n_net = abs(change)
    return n_net / (1.0 - fee_bps / 1e4) if pays_fee_in_base(leg, cost, change) else n_net


# ---------------------------------------------------------------------------------------- fills that are not certain


def mix(value):
    """Finalizer of splitmix64: 64 bits in, 64 well shuffled bits out."""
    value = (value + 0x9E3779B97F4A7C15) & MASK_64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK_64
    return value ^ (value >> 31)


def uniform(seed, trial, bar, leg, stream):
    """Number in [0, 1) that depends on its five keys and on nothing else."""
    z = mix(seed & MASK_64)
    for key in (trial, bar, leg, stream):
        z = mix(z ^ (key & MASK_64))
    return (z >> 11) * 2.0**-53


def latency_bars_of_legs(latency_hours, n_legs, bar_us):
    """Bars of latency of each leg, from one duration or a list with one for each."""
    hours = latency_hours if isinstance(latency_hours, (list, tuple)) else [latency_hours] * n_legs
    return [hours_to_bars(value, bar_us) for value in hours]


def is_refused(fills, bar, leg):
    """Whether the venue refuses a leg: stream 1 under reject_probability."""
    probability = fills.get("reject_probability") or 0.0
    return probability > 0.0 and uniform(fills.get("seed", 0), fills.get("trial", 0), bar, leg, 1) < probability


def fill_fraction(fills, *, bar, leg, n_gross, bar_volume):
    """Share of a leg's order that a market order gets: 1.0, (cap * volume) / n_gross at most 1.0, or 0.0 or 1.0."""
    model = fills.get("model", "certain")
    if model == "volume":
        return min(1.0, fills["volume_cap"] * (bar_volume or 0.0) / n_gross)
    if model == "bernoulli":
        drawn = uniform(fills.get("seed", 0), fills.get("trial", 0), bar, leg, 0)
        return 1.0 if drawn < fills["fill_probability"] else 0.0
    return 1.0


def maker_limit(arrival, side, offset_bps):
    """arrival * (1.0 - side * offset_bps / 1e4): a buy waits below what it saw, a sale above."""
    return arrival * (1.0 - side * offset_bps / 1e4)


def trades_through(limit, side, high, low):
    """A bar that only touches the limit does not fill it."""
    return low < limit if side > 0 else high > limit


def combo_units(position, legs):
    """Units of combo each leg's position amounts to: position / ratio."""
    return [q / leg["ratio"] for q, leg in zip(position, legs, strict=True)]


def is_naked(position, legs):
    """Whether the legs are not all the same number of combos: they differ by over 1e-9 of the largest."""
    units = combo_units(position, legs)
    return max(units) - min(units) > WHOLE_TOLERANCE * max(abs(x) for x in units)


def preflight_refusal(*, legs, costs, fills, changes, arrival, volumes, ts_us):
    """Why an entry that the rule and the size allow is not sent, or None; each limit is off without a value.

    cost: sum of n_gross * A * cost_bps over sum of n_gross * A, legs in order, with the costs of a taker who fills at
    the arrival price now; volume_share: n_gross / V; both refuse while a volume is needed and not known; spread:
    twice the half.
    """
    weighted, notional, share, spread = 0.0, 0.0, 0.0, 0.0
    for leg, cost, change, price, volume in zip(legs, costs, changes, arrival, volumes, strict=True):
        n_gross = gross_quantity(leg, cost, change, cost["fee_bps"])
        parts = fill_cost(
            side=1 if change > 0 else -1,
            n_net=abs(change),
            n_gross=n_gross,
            arrival=price,
            reference=price,
            volume=volume,
            half_spread_bps=cost["half_spread_bps"],
            fee_bps=cost["fee_bps"],
            bucket_usd=cost["bucket_usd"],
            bucket_bps_row=bucket_row(cost, ts_us),
            impact_coef_bps=cost["impact_coef_bps"],
            impact_exponent=cost["impact_exponent"],
        )
        unknown = volume is None and cost["impact_coef_bps"] != 0.0
        weighted += math.inf if unknown else n_gross * price * parts["cost_bps"]
        notional += n_gross * price
        share = max(share, math.inf if volume is None else n_gross / volume)
        spread = max(spread, 2.0 * cost["half_spread_bps"])
    found = {"cost": weighted / notional, "volume_share": share, "spread": spread}
    limits = {"cost": "max_cost_bps", "volume_share": "max_volume_share", "spread": "max_spread_bps"}
    for reason, value in found.items():
        limit = fills.get(limits[reason])
        if limit is not None and value > limit:
            return reason
    return None


# ----------------------------------------------------------------------------------------------------------- wallets


def wallet_of_each_leg(legs, mode):
    """Place of each leg's wallet: one for all, or one a venue in the order in which venues first occur."""
    if mode == "pooled":
        return [0] * len(legs)
    venues = [leg.get("venue", f"venue{i}") for i, leg in enumerate(legs)]
    first_seen = list(dict.fromkeys(venues))
    return [first_seen.index(venue) for venue in venues]


def backing_legs(legs, wallet_of_leg, i):
    """Spot legs of the same coin in the wallet of an inverse leg: they are its collateral."""
    coin = legs[i].get("coin")
    if not legs[i].get("inverse") or coin is None:
        return []
    return [
        j
        for j, leg in enumerate(legs)
        if leg["kind"] == "spot" and leg.get("coin") == coin and wallet_of_leg[j] == wallet_of_leg[i]
    ]


def margin_weights(legs, wallet_of_leg, leverage):
    """m of each leg: 1.0 / leverage if it is margined, 0.0 if coin backs it, -1.0 for a loan, else 1.0."""
    weights = []
    for i, leg in enumerate(legs):
        if leg["kind"] in MARGINED:
            weights.append(0.0 if backing_legs(legs, wallet_of_leg, i) else 1.0 / leverage)
        else:
            weights.append(-1.0 if leg["kind"] == "lending" and leg["ratio"] < 0 else 1.0)
    return weights


def kappa_of_legs(legs, prices, weights):
    """What one combo takes of each leg: abs(ratio) * P * m."""
    return [abs(leg["ratio"]) * price * weight for leg, price, weight in zip(legs, prices, weights, strict=True)]


def wallet_targets(equity, kappas, wallet_of_leg, n_wallets):
    """equity * (kappa of a wallet / kappa of all), each kappa added over its legs in order."""
    total, shares = 0.0, [0.0] * n_wallets
    for kappa, w in zip(kappas, wallet_of_leg, strict=True):
        total += kappa
        shares[w] += kappa
    return [equity * (share / total) for share in shares]


def matched_transfers(held, targets):
    """(giver, receiver, amount): the first surplus gives to the first shortage the smaller of the two, and so on."""
    over = [have - want for have, want in zip(held, targets, strict=True)]
    plan: list[tuple] = []
    while True:
        giver = next((w for w, amount in enumerate(over) if amount > 0.0), None)
        receiver = next((w for w, amount in enumerate(over) if amount < 0.0), None)
        if giver is None or receiver is None:
            return plan
        amount = min(over[giver], -over[receiver])
        over[giver] -= amount
        over[receiver] += amount
        plan.append((giver, receiver, amount))


class Wallets:
    """Cash by wallet, what is queued to be sent and what is on its way."""

    def __init__(self, options, *, legs, capital_usd, stamps, bar_us):
        options = options or {"mode": "pooled"}
        self.is_segregated = options["mode"] == "segregated"
        self.margin_on = options.get("margin", "venue" if self.is_segregated else "none") == "venue"
        self.haircut = options.get("spot_collateral") or 0.0
        self.coin_haircut = 1.0 if options.get("spot_collateral") is None else options["spot_collateral"]
        self.transfer_bars = hours_to_bars(options.get("transfer_hours") or 0.0, bar_us)
        self.fee = options.get("transfer_fee_usd") or 0.0
        self.least = options.get("transfer_min_usd") or 0.0
        self.daily_cap = options.get("transfer_daily_cap_usd")
        self.halts = options.get("transfer_halts_us") or ()
        self.rebalance_below = options.get("rebalance_below") if self.is_segregated else None
        self.of_leg = wallet_of_each_leg(legs, options["mode"])
        self.n = max(self.of_leg) + 1
        self.stamps = stamps
        self.cash = [0.0] * self.n if self.is_segregated else [capital_usd]
        self.unsplit = capital_usd if self.is_segregated else 0.0
        self.is_split = not self.is_segregated
        self.queue: list[dict] = []
        self.flights: list[tuple] = []
        self.sent_of_day: dict[int, float] = {}

    def legs_of(self, w):
        return [i for i, wallet in enumerate(self.of_leg) if wallet == w]

    def in_flight(self):
        return sum((amount for _due, _receiver, amount in self.flights), 0.0)

    def total(self):
        """All cash there is: what is in no wallet yet, the wallets in order, what is in flight."""
        total = self.unsplit
        for cash in self.cash:
            total += cash
        return total + self.in_flight()

    def is_busy(self):
        return bool(self.queue or self.flights)

    def pay(self, leg, amount):
        self.cash[self.of_leg[leg]] += amount

    def split(self, targets):
        self.cash, self.unsplit, self.is_split = list(targets), 0.0, True

    def plan(self, held, targets):
        """Queues what is worth sending."""
        for giver, receiver, amount in matched_transfers(held, targets):
            if amount >= self.least and amount > self.fee:
                same = [item for item in self.queue if (item["from"], item["to"]) == (giver, receiver)]
                if same:
                    same[0]["amount"] += amount  # it joins what is queued between the two
                else:
                    self.queue.append({"from": giver, "to": receiver, "amount": amount})
        self.queue.sort(key=lambda item: (item["from"], item["to"]))

    def arrive(self, t):
        for _due, receiver, amount in [flight for flight in self.flights if flight[0] <= t]:
            self.cash[receiver] += amount
        self.flights = [flight for flight in self.flights if flight[0] > t]

    def send(self, t):
        """Sends what may leave at row t; returns the leg each fee is booked for, once a transfer."""
        ts = self.stamps[t]
        charged: list[int] = []
        if any(begin <= ts < end for begin, end in self.halts):
            return charged
        for item in self.queue:
            sent = self.sent_of_day.get(ts // DAY_US, 0.0)
            amount = item["amount"] if self.daily_cap is None else min(item["amount"], self.daily_cap - sent)
            if amount <= self.fee:
                continue
            self.sent_of_day[ts // DAY_US] = sent + amount
            item["amount"] -= amount
            if item["amount"] <= self.fee:
                item["amount"] = 0.0  # a rest that is not worth its fee
            self.cash[item["from"]] -= amount
            self.flights.append((t + self.transfer_bars, item["to"], amount - self.fee))
            charged.append(self.legs_of(item["to"])[0])
        self.queue = [item for item in self.queue if item["amount"] > 0.0]
        if self.transfer_bars == 0:
            self.arrive(t)
        return charged


# ------------------------------------------------------------------------------------------------------------ margin


def tier_of(tiers, notional_usd):
    """The row with floor < notional <= the next floor; nothing at all is in the first."""
    found = tiers[0]
    for row in tiers:
        if row[0] < notional_usd:
            found = row
    return found


@dataclass(frozen=True)
class Holding:
    """A leg of a wallet on its way from one price to another; `tiers` is None for spot, `weight` 1.0 or the haircut.

    `fixed_usd` is the notional of an inverse leg, which no price changes.
    """

    position: float
    weight: float
    tiers: Any
    begin: float
    end: float
    fixed_usd: Any = None

    def price(self, path_frac):
        return self.begin + path_frac * (self.end - self.begin)

    def notional(self, path_frac):
        return abs(self.position) * self.price(path_frac) if self.fixed_usd is None else self.fixed_usd


def wallet_equity(cash, holdings, path_frac):
    """Margin equity: cash, then weight * q * P over legs in order."""
    for leg in holdings:
        cash += leg.weight * leg.position * leg.price(path_frac)
    return cash


def wallet_surplus(cash, holdings, path_frac, tiers_at=None):
    """Margin equity less maintenance, leg by leg notional * mmr - amount; the tiers may be those of another place."""
    surplus = wallet_equity(cash, holdings, path_frac)
    for leg in holdings:
        if leg.tiers and leg.position != 0.0:
            place = path_frac if tiers_at is None else tiers_at
            _floor, mmr, amount = tier_of(leg.tiers, leg.notional(place))
            surplus -= leg.notional(path_frac) * mmr - amount
    return surplus


def first_shortfall(cash, holdings):
    """First fraction of the path just beyond which equity is under maintenance, 0.0 if it is at the start; or None.

    Between two places at which some notional passes a floor the tiers are those in the middle and the surplus is a
    straight line: its zero is begin + (end - begin) * s_begin / (s_begin - s_end).
    """
    if wallet_surplus(cash, holdings, 0.0) < 0.0:
        return 0.0
    places = {0.0, 1.0}
    for leg in holdings:
        for floor, _mmr, _amount in leg.tiers or ():
            if leg.position != 0.0 and leg.end != leg.begin and leg.fixed_usd is None:
                place = (floor / abs(leg.position) - leg.begin) / (leg.end - leg.begin)
                if 0.0 < place < 1.0:
                    places.add(place)
    ordered = sorted(places)
    for begin, end in zip(ordered, ordered[1:], strict=False):
        middle = 0.5 * (begin + end)
        at_begin = wallet_surplus(cash, holdings, begin, middle)
        at_end = wallet_surplus(cash, holdings, end, middle)
        if at_begin < 0.0:
            return begin
        if at_end < 0.0:
            return begin + (end - begin) * at_begin / (at_begin - at_end)
    return None


def margin_paths(leg, candles, prices, stamps, bar_us):
    """(open, high, low) of each row that margin is tested on: of the mark bars if they have highs, else of the trades.

    A leg without one of the three in a row stays at its last close, that of the row if it has one; collateral and
    loans of a protocol with mark bars, which are its oracle, at the last of those. All are raw prices times the worth
    of their currency in the row, at its open.
    """
    has_oracle = False
    if leg["mark_bars"] and len(leg["mark_bars"][0]) == 5:
        has_oracle = leg["kind"] == "lending"
        candles = resample([(*row, 0.0) for row in leg["mark_bars"]], leg["mark_step_us"], bar_us)
    paths = []
    for ts, last_close, worth in zip(stamps, prices.raw_close, prices.x_open, strict=True):
        own = candles.get(ts)
        is_whole = own is not None and own.open is not None
        of_oracle = last_known(candles, ts + 1) if has_oracle else None
        stays = last_close if of_oracle is None else of_oracle
        path = (own.open, own.high, own.low) if is_whole else (stays,) * 3
        paths.append(tuple(price * worth for price in path))
    return paths


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


def metrics(
    *, capital_usd, bar_us, equity, stale, held, naked, gross_notional, fills, books, trades, events, min_margin_ratio
):
    """Every metric of the page; None for a null. Sums run from the left, over rows, fills, trades or legs in order."""
    bar_hours = bar_us / HOUR_US
    n_bars = len(equity)
    years = n_bars * bar_hours / YEAR_HOURS
    per_year = math.sqrt(YEAR_HOURS / bar_hours)

    returns, previous = [], capital_usd
    for value, is_stale in zip(equity, stale, strict=True):
        if not is_stale:
            returns.append(value / previous - 1.0 if previous > 1e-9 * capital_usd else 0.0)
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
        "sharpe": mean / deviation * per_year if deviation and deviation > 1e-12 else None,
        "sortino": mean / downside * per_year if downside and downside > 1e-12 else None,
        "calmar": cagr / deepest if deepest and deepest > 1e-12 else None,
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
        "rollback_usd": total["rollback_execution"] + total["rollback_price"],
        "n_refused": sum(event["event"] == "refused" for event in events),
        "n_rollbacks": sum(event["event"] == "rollback" for event in events),
        "n_unfilled": sum(event["event"] == "unfilled" for event in events),
        "naked_hours": sum(naked) * bar_hours,
        "transfer_usd": total["transfer"],
        "liquidation_usd": total["liquidation"],
        "n_liquidations": sum(event["event"] == "liquidation" for event in events),
        "min_margin_ratio": min_margin_ratio,
        "borrow_usd": total["borrow"],
        "delivery_fee_usd": total["delivery_fee"],
        "yield_usd": total["yield"],
        "fx_usd": total["fx"],
        "n_rolls": sum(event["event"] == "roll" for event in events),
        "apr_on_capital": pnl / capital_usd / years,
        "apr_on_notional": pnl / mean_notional / (n_held * bar_hours / YEAR_HOURS) if n_held else None,
    }


# ------------------------------------------------------------------------------------------------------- the backtest


@dataclass(frozen=True)
class Prices:
    """What one leg shows at each row of the run, in dollars.

    `arrival`: the open, else the last close before the row; `close`: the last close up to the end of the row, with
    `missing` where the row has none of its own; `volume`: the last one above zero of a bar before the row, or None;
    `high`, `low` and `bar_volume` are of the row itself, None where it is missing. `x_open` and `x_close` are what the
    leg's price currency is worth at the open and at the close, `raw_close` the close in that currency. `x_accrued` is
    `x_open`, in a roll bar that of the contract which is left; `old_open` is that contract's open, by row.
    """

    open: list
    arrival: list
    close: list
    missing: list
    volume: list
    high: list
    low: list
    bar_volume: list
    x_open: list
    x_close: list
    raw_close: list
    x_accrued: list
    old_open: dict


def last_known(candles, ts_us):
    """Close of the last bar that begins before a time, or None."""
    before = [stamp for stamp in candles if stamp < ts_us]
    return candles[max(before)].close if before else None


def roll_is_due(leg, old, new, *, ts_us, expiry_us, reference_close, own_close):
    """Whether a bar in which both contracts have an open is late enough, or the basis of the last closes low enough."""
    if old is None or new is None or old.open is None or new.open is None:
        return False
    if ts_us >= expiry_us - leg["roll_days"] * DAY_US:
        return True
    if leg.get("roll_basis_apr") is None or reference_close is None or own_close is None:
        return False
    hours_left = (expiry_us - ts_us) / HOUR_US
    return (own_close / reference_close - 1.0) * YEAR_HOURS / hours_left <= leg["roll_basis_apr"]


def schedule(leg, bar_us, stamps, reference):
    """One series of bars out of the dated contracts of a leg, the opens it rolls at, and where it is delivered.

    `reference` are the bars of the reference leg, None for that leg itself. Rows before the run are those of the
    contract the leg is in at its first bar; a bar at which a contract has expired is not shown.

    Returns
    -------
    (candles, {row: raw open of the contract that is left}, row of the delivery or None, place of the contract in it)
    """
    contracts = contracts_of(leg)
    series = [resample(contract["bars"], leg["step_us"], bar_us) for contract in contracts]
    k = next((k for k, contract in enumerate(contracts) if contract["expiry_us"] > stamps[0]), len(contracts) - 1)
    shown = {ts: c for ts, c in series[k].items() if ts < min(stamps[0], contracts[k]["expiry_us"])}
    rolls: dict[int, float] = {}
    for t, ts in enumerate(stamps):
        expiry_us = contracts[k]["expiry_us"]
        if ts >= expiry_us:
            return shown, rolls, t, k
        if k + 1 < len(contracts) and roll_is_due(
            leg,
            series[k].get(ts),
            series[k + 1].get(ts),
            ts_us=ts,
            expiry_us=expiry_us,
            reference_close=last_known(series[k] if reference is None else reference, ts),
            own_close=last_known(series[k], ts),
        ):
            rolls[t] = series[k][ts].open
            k += 1
        if ts in series[k]:
            shown[ts] = series[k][ts]
    return shown, rolls, None, k


def quote_rates(leg, stamps):
    """Dollars one unit of a leg's quote is worth, one value a row."""
    return [latest_value(leg["quote_usd"], ts) if leg.get("quote_usd") else 1.0 for ts in stamps]


def leg_prices(candles, stamps, *, rates=None, reference=None, rolls=None):
    """Prices of one leg at the stamps of the run; bars before the run count as the past.

    `rates` are the dollars of its quote by row, 1.0 without. With the prices of the reference leg it is an inverse
    leg: its open and close are those of the reference, and its currency is worth what makes them so.
    """
    prices = Prices(*([] for _ in range(12)), {})
    for t, ts in enumerate(stamps):
        before = sorted(stamp for stamp in candles if stamp < ts)
        own = candles.get(ts)
        last_close = candles[before[-1]].close if before else None
        raw_open = own.open if own and own.open is not None else last_close
        raw_close = own.close if own else last_close
        volumes = [candles[stamp].volume for stamp in before if candles[stamp].volume > 0]
        x_open = x_close = x_accrued = rates[t] if rates else 1.0
        if reference is not None:
            x_open, x_close = reference.arrival[t] / raw_open, reference.close[t] / raw_close
            x_accrued = x_open
        if rolls and t in rolls:
            prices.old_open[t] = rolls[t] * x_open
            if reference is not None:
                prices.old_open[t] = reference.arrival[t]
                x_accrued = reference.arrival[t] / rolls[t]
        arrival = None if raw_open is None else raw_open * x_open
        close = None if raw_close is None else raw_close * x_close
        if reference is not None:
            arrival, close = reference.arrival[t], reference.close[t]
        prices.open.append(arrival if own and own.open is not None else None)
        prices.arrival.append(arrival)
        prices.close.append(close)
        prices.missing.append(own is None)
        prices.volume.append(volumes[-1] if volumes else None)
        prices.high.append(own.high * x_open if own else None)
        prices.low.append(own.low * x_open if own else None)
        prices.bar_volume.append(own.volume if own else None)
        prices.x_open.append(x_open)
        prices.x_close.append(x_close)
        prices.raw_close.append(raw_close)
        prices.x_accrued.append(x_accrued)
    return prices


def reference_leg_of(legs):
    """The first spot leg, else the first leg that is no chain of contracts, else the first leg."""
    lasting = next((i for i, leg in enumerate(legs) if "chain" not in leg), 0)
    return next((i for i, leg in enumerate(legs) if leg["kind"] == "spot"), lasting)


@dataclass(frozen=True)
class Market:
    """Bars and dollar prices of all legs, and the contracts that end: by leg the row of the delivery and its price."""

    candles: list
    prices: list
    delivery: list
    paths: list


def market_of(legs, stamps, bar_us):
    """The reference leg is first, since rolls by basis and inverse legs look at it.

    The delivery price is raw; without one it is the raw open of the reference leg in the bar, else its last close.
    Only the last contract of a chain has a price of its own.
    """
    ref = reference_leg_of(legs)
    candles, rolls, ends = [{} for _ in legs], [{} for _ in legs], [(None, 0) for _ in legs]
    for i in [ref] + [i for i in range(len(legs)) if i != ref]:
        if contracts_of(legs[i]):
            candles[i], rolls[i], *end = schedule(legs[i], bar_us, stamps, None if i == ref else candles[ref])
            ends[i] = tuple(end)
        else:
            candles[i] = resample(legs[i]["bars"], legs[i]["step_us"], bar_us)
    rates = [quote_rates(leg, stamps) if not leg.get("inverse") else None for leg in legs]
    of_reference = leg_prices(candles[ref], stamps, rates=rates[ref], rolls=rolls[ref])
    prices = [
        of_reference if i == ref
        else leg_prices(candles[i], stamps, rates=rates[i], rolls=rolls[i],
                        reference=of_reference if leg.get("inverse") else None)
        for i, leg in enumerate(legs)
    ]  # fmt: skip
    delivery: list[Any] = []
    for leg, (row, k) in zip(legs, ends, strict=True):
        raw = leg.get("delivery_price") if k == len(contracts_of(leg)) - 1 else None
        if row is not None and raw is None:
            own = candles[ref].get(stamps[row])
            raw = own.open if own and own.open is not None else last_known(candles[ref], stamps[row])
        delivery.append(None if row is None else (row, raw))
    paths = [margin_paths(*each, stamps, bar_us) for each in zip(legs, candles, prices, strict=True)]
    return Market(candles, prices, delivery, paths)


def settlements_by_row(legs, stamps, bar_us):
    """For each row the settlements paid at it, by leg and then raw stamp, each with its mark."""
    rows: list[list] = [[] for _ in stamps]
    for i, leg in enumerate(legs):
        points = price_points(leg.get("bars", ()), leg["step_us"], leg["mark_bars"], leg["mark_step_us"])
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


def combo_lot(legs, prices):
    """The largest lot / abs(ratio); contracts of dollars (`lot_usd`) are as many coins as they buy."""
    lots = [leg["lot"] / abs(leg["ratio"]) for leg in legs]
    for leg, price in zip(legs, prices, strict=True):
        if leg.get("lot_usd"):
            lots.append(leg["lot_usd"] / (abs(leg["ratio"]) * price))
    return max(lots)


def size_entry(*, legs, costs, arrival, equity, direction, size, weights):
    """Combo quantity of an entry and what each leg's position changes by, or the reason it is refused.

    kappa adds abs(ratio) * A * m over legs in order, m being the weights; x is allocation * equity / kappa, from the
    left, floored to the largest lot / abs(ratio). A combo that takes nothing has no size. A change is
    (direction * ratio) * x_net, with x_net = x * (1.0 - f_star).

    Returns
    -------
    (reason or None, x, x_net, changes)
    """
    if not equity > 0:
        return "size", 0.0, 0.0, []
    kappa = 0.0
    for own_kappa in kappa_of_legs(legs, arrival, weights):
        kappa += own_kappa
    if not kappa > 0:
        return "size", 0.0, 0.0, []
    x = floor_to_lot(size["allocation"] * equity / kappa, combo_lot(legs, arrival))
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


@dataclass
class Excess:
    """What one fill changed too much and has to be closed: as a net change, last marked at the price `marked`."""

    leg: int
    change: float
    reference: float
    due: int
    marked: float


@dataclass
class Order:
    """What the rule decided, and how far it has come: the state of the attempt that is being worked, and its excess."""

    action: str
    reason: str
    bar: int
    direction: int
    x: float
    changes: list
    arrival: list
    earliest: int
    atomicity: str
    is_forced: bool = False
    sized_on: float | None = None
    cash_before: float | None = None
    start: int | None = None
    waited: bool = False
    quoted: set = field(default_factory=set)
    fractions: dict = field(default_factory=dict)
    rows: dict = field(default_factory=dict)
    kept: float = 0.0
    excess: list = field(default_factory=list)

    def working_legs(self):
        return [i for i, change in enumerate(self.changes) if change != 0.0]

    def try_again(self, *, bar, x, changes):
        """The rest as a new attempt of the same decision."""
        self.x, self.changes, self.earliest = x, changes, bar
        self.start, self.waited, self.quoted, self.fractions, self.rows = None, False, set(), {}, {}


class Run:
    """Cash, positions, books and the order in flight of one run; a method for each step of a bar."""

    def __init__(self, *, legs, stamps, market, bar_us, rule, size, costs, fills, wallets, out):
        self.legs, self.stamps, self.prices, self.bar_us, self.out = legs, stamps, market.prices, bar_us, out
        self.rule, self.size, self.given_costs, self.fills = rule, size, costs, fills
        self.delivery, self.paths, self.bar_hours = market.delivery, market.paths, bar_us / HOUR_US
        self.reference_leg = reference_leg_of(legs)
        self.latency_bars = latency_bars_of_legs(fills["latency_hours"], len(legs), bar_us)
        self.rollback_bars = hours_to_bars(fills.get("rollback_delay_hours") or 0.0, bar_us)
        self.cooldown_bars = hours_to_bars(rule["cooldown_hours"] or 0.0, bar_us)
        self.position, self.direction, self.face = [0.0] * len(legs), 0, [0.0] * len(legs)
        self.short_since: list = [None] * len(legs)
        self.hedge = [{"ratio": leg["ratio"]} for leg in legs]
        self.wallets = Wallets(wallets, legs=legs, capital_usd=size["capital_usd"], stamps=stamps, bar_us=bar_us)
        self.cash_yield_apr = (wallets or {}).get("cash_yield_apr") or 0.0
        self.weights = margin_weights(legs, self.wallets.of_leg, size["leverage"])
        self.is_inverse = [bool(leg.get("inverse")) for leg in legs]
        self.is_backing = {j for i in range(len(legs)) for j in backing_legs(legs, self.wallets.of_leg, i)}
        self.min_margin_ratio: Any = None
        self.dropped: list = []
        self.books = [dict.fromkeys(BOOKS, 0.0) for _ in legs]
        self.order: Any = None
        self.entry_bar, self.exit_bar = None, None
        self.sized_on, self.x_held, self.cash_before_entry = None, 0.0, None
        self.held, self.changed, self.arrival = [], [], None

    @property
    def cash(self):
        return self.wallets.total()

    def equity_at(self, prices):
        """All cash, then q * P over legs in order."""
        equity = self.cash
        for q, price in zip(self.position, prices, strict=True):
            equity += q * price
        return equity

    def note(self, t, event, reason, d, quantity):
        self.out["events"].append({"bar": t, "event": event, "reason": reason, "direction": d, "quantity": quantity})

    def begin_bar(self, t):
        """What earns delta and basis in this bar: what is held, less what waits to be closed as an excess."""
        self.costs = costs_of_day(self.legs, self.given_costs, self.out["fills"], self.stamps, t)
        self.held, self.changed, self.arrival = list(self.position), [0.0] * len(self.legs), None
        self.dropped = []
        for excess in self.order.excess if self.order else ():
            self.held[excess.leg] -= excess.change

    # ------------------------------------------------------------------------------------- 1. arrivals and transfers

    def send(self, t):
        for leg in self.wallets.send(t):
            self.books[leg]["transfer"] += self.wallets.fee

    def targets(self, prices):
        kappas = kappa_of_legs(self.legs, prices, self.weights)
        return wallet_targets(self.equity_at(prices), kappas, self.wallets.of_leg, self.wallets.n)

    def plan_transfers(self, t, prices):
        """Queues the way from what each wallet has at these prices to its target, and sends what may leave now."""
        held = []
        for w, cash in enumerate(self.wallets.cash):
            for i in self.wallets.legs_of(w):
                cash += self.position[i] * prices[i]
            held.append(cash)
        self.wallets.plan(held, self.targets(prices))
        self.send(t)

    def is_expired(self, t):
        return any(end is not None and t >= end[0] for end in self.delivery)

    def deliver(self, t):
        """Contracts that expire in this bar are paid out; what else is held leaves."""
        ended = [i for i, end in enumerate(self.delivery) if end is not None and end[0] == t]
        if not ended:
            return
        direction = self.direction or (self.order.direction if self.order else 0)
        self.drop_order()
        for i in ended:
            if self.position[i] != 0.0:
                self.deliver_leg(t, i, direction)
        if any(q != 0.0 for q in self.position):
            self.order = Order(
                action="exit",
                reason="expiry",
                bar=t,
                direction=direction,
                x=self.largest_units(),
                changes=[-q for q in self.position],
                arrival=[leg.arrival[t] for leg in self.prices],
                earliest=t + min(self.latency_bars),
                atomicity="naked",
            )
        else:
            self.end_trade(t, "expiry")

    def deliver_leg(self, t, i, direction):
        _row, raw = self.delivery[i]
        s_open, price = self.prices[self.reference_leg].arrival[t], raw * self.prices[i].x_open[t]
        if self.is_inverse[i] and i != self.reference_leg:
            price = s_open
            if t > 0:
                self.revalue_leg(i, self.prices[i].x_close[t - 1], s_open / raw)
        q = self.position[i]
        x = s_open / raw if self.is_inverse[i] and i != self.reference_leg else self.prices[i].x_open[t]
        traded = self.traded(i, -q, price, x)
        fee = abs(q) * traded * price * (self.legs[i].get("delivery_fee_bps") or 0.0) / 1e4
        self.note(t, "delivery", "expiry", direction, abs(q))
        self.books[i]["delivery_fee"] += fee
        self.close_by_venue(t, i, share=1.0, price=price, s_price=s_open, fee=fee, action="delivery", reason="expiry",
                            traded=traded)  # fmt: skip

    # ------------------------------------------------------------------------------------------ 2. accruals

    def credit(self, i, amount):
        """Cash to the wallet of a leg; while cash is in no wallet, to what is there."""
        if self.wallets.is_split:
            self.wallets.pay(i, amount)
        else:
            self.wallets.unsplit += amount

    def convert(self, t):
        """Cash is held in the quote of its wallet: that of its first leg that is not inverse."""
        if t == 0 or not self.wallets.is_split:
            return
        for w in range(self.wallets.n):
            legs = self.wallets.legs_of(w)
            linear = [i for i in legs if not self.is_inverse[i]]
            if not linear:
                continue
            x, cash = self.prices[linear[0]].x_open, self.wallets.cash[w]
            for i in legs:
                if self.is_inverse[i]:
                    cash += self.face[i] * self.prices[i].x_close[t - 1]
            amount = cash * (x[t] / x[t - 1] - 1.0)
            self.wallets.cash[w] += amount
            self.books[legs[0]]["fx"] += amount

    def open_excess(self, i):
        """What of a leg waits to be closed, or did when its order was dropped in this bar."""
        return [excess for excess in (self.order.excess if self.order else []) + self.dropped if excess.leg == i]

    def revalue_leg(self, i, before, after):
        """The coin of an inverse leg is exchanged at what a contract dollar is worth now; an excess apart."""
        if not self.is_inverse[i] or self.face[i] == 0.0:
            return
        amount = -self.face[i] * (after - before)
        share = sum(excess.change for excess in self.open_excess(i)) / self.position[i]
        self.wallets.pay(i, amount)
        self.books[i]["basis"] += amount - amount * share
        self.books[i]["rollback_price"] -= amount * share

    def revalue(self, t):
        for i, leg in enumerate(self.prices):
            if t > 0:
                self.revalue_leg(i, leg.x_close[t - 1], leg.x_accrued[t])

    def accrue(self, settlement):
        """A settlement; one of an inverse leg is contract dollars times the rate, whatever the mark."""
        i, t, flow = settlement["leg"], settlement["bar"], 0.0
        if settlement["mark"] is not None:
            settlement = settlement | {"mark": settlement["mark"] * self.prices[i].x_open[t]}
        if self.is_inverse[i]:
            flow = -self.face[i] * settlement["rate"] + 0.0
        elif self.position[i] != 0.0:
            flow = funding_cash(self.position[i], settlement["mark"], settlement["rate"])
        self.wallets.pay(i, flow)
        self.books[i]["funding"] += flow
        self.out["funding"].append(settlement | {"position": self.position[i], "cash": flow})

    def pay_borrow(self, t):
        """Interest on spot that is owed: for the hours charged at this age less those charged a bar before."""
        for i, leg in enumerate(self.legs):
            if t == 0 or leg["kind"] != "spot" or not self.position[i] < 0.0 or not leg.get("borrow"):
                continue
            rule, age = leg.get("borrow_rule", (1.0, 0.0)), (t - self.short_since[i]) * self.bar_hours
            hours = borrowed_hours(age, rule) - borrowed_hours(age - self.bar_hours, rule)
            apr = latest_value(leg["borrow"], self.stamps[t - 1])
            interest = abs(self.position[i]) * self.prices[i].close[t - 1] * apr * hours / YEAR_HOURS
            self.wallets.pay(i, -interest)
            self.books[i]["borrow"] += interest

    def earn_on_cash(self, t):
        """Idle cash: with what the margined legs are worth, never less than nothing."""
        if t == 0 or self.cash_yield_apr == 0.0:
            return
        if not self.wallets.is_split:
            amount = max(0.0, self.cash) * self.cash_yield_apr * self.bar_hours / YEAR_HOURS
            self.credit(0, amount)
            self.books[0]["yield"] += amount
            return
        for w in range(self.wallets.n):
            worth = self.wallets.cash[w]
            for i in self.margined(w):
                worth += self.position[i] * self.prices[i].close[t - 1]
            amount = max(0.0, worth) * self.cash_yield_apr * self.bar_hours / YEAR_HOURS
            self.wallets.cash[w] += amount
            self.books[self.wallets.legs_of(w)[0]]["yield"] += amount

    def grow(self, t):
        """Income in kind: a position with an index grows, and its hedge ratio with it; in cash while an order works."""
        for i, leg in enumerate(self.legs):
            if t == 0 or not leg.get("index") or self.position[i] == 0.0:
                continue
            now, before = (latest_value(leg["index"], self.stamps[row]) for row in (t, t - 1))
            g, q = now / before - 1.0, self.position[i]
            value = abs(q) * g * self.prices[i].close[t - 1]
            self.books[i]["yield" if q > 0.0 else "borrow"] += value
            if self.order is None:
                self.position[i] = q * (1.0 + g)
                self.held[i] = self.position[i]
                self.hedge[i]["ratio"] *= 1.0 + g
            else:
                self.wallets.pay(i, value if q > 0.0 else -value)

    # ------------------------------------------------------------------------------------------ 3. decision

    def decide(self, t, value, basis):
        arrival = [leg.arrival[t] for leg in self.prices]
        if self.direction == 0:
            d = entry_direction(self.rule, value)
            if d != 0 and (self.exit_bar is None or t - self.exit_bar >= self.cooldown_bars):
                self.decide_entry(t, d, basis, arrival)
            return
        reason = exit_reason(
            rule=self.rule,
            bar_us=self.bar_us,
            value=value,
            direction=self.direction,
            bars_held=t - self.entry_bar,
            last_equity=self.out["equity"][t - 1],
            sized_on_usd=self.sized_on,
        )
        if reason:
            self.leave(t, reason, arrival)
        elif self.wallets.rebalance_below is not None and not self.wallets.is_busy():
            self.rebalance(t, arrival)

    def leave(self, t, reason, arrival):
        apart = is_naked(self.position, self.hedge)
        self.order = Order(
            action="exit",
            reason=reason,
            bar=t,
            direction=self.direction,
            x=self.largest_units() if apart else self.x_held,
            changes=[-q for q in self.position],
            arrival=arrival,
            earliest=t + min(self.latency_bars),
            atomicity="naked" if apart else "match",
        )

    def rebalance(self, t, arrival):
        """Where a wallet is short of margin: a smaller combo first, and then, or at once, cash to where it belongs."""
        ratios = [self.margin_ratio(t, w, arrival) for w in range(self.wallets.n)]
        if not any(ratio is not None and ratio < self.wallets.rebalance_below for ratio in ratios):
            return
        kappa = 0.0
        for own_kappa in kappa_of_legs(self.legs, arrival, self.weights):
            kappa += own_kappa
        target = floor_to_lot(self.size["allocation"] * self.equity_at(arrival) / kappa, combo_lot(self.legs, arrival))
        if self.equity_at(arrival) <= 1e-9 * self.size["capital_usd"]:
            target = 0.0
        x = self.largest_units()
        if not target > 0.0:
            self.leave(t, "margin", arrival)
        elif target >= x:
            self.plan_transfers(t, arrival)
        else:
            self.order = Order(
                action="resize",
                reason="margin",
                bar=t,
                direction=self.direction,
                x=x - target,
                changes=[
                    -(self.direction * leg["ratio"]) * (x - target) if q != 0.0 else 0.0
                    for q, leg in zip(self.position, self.hedge, strict=True)
                ],
                arrival=arrival,
                earliest=t + min(self.latency_bars),
                atomicity="naked" if is_naked(self.position, self.hedge) else "match",
            )

    def decide_entry(self, t, d, basis, arrival):
        if self.is_expired(t):
            self.note(t, "refused", "expired", d, 0.0)
            return
        limit = self.rule["max_basis_bps"]
        if limit is not None and (basis is None or abs(basis) > limit):
            self.note(t, "refused", "basis", d, 0.0)
            return
        own = self.equity_at(arrival)
        equity = own if self.size["compounding"] else self.size["capital_usd"]
        equity = 0.0 if own <= 1e-9 * self.size["capital_usd"] else equity
        refusal, x, x_net, changes = size_entry(
            legs=self.legs,
            costs=self.costs,
            arrival=arrival,
            equity=equity,
            direction=d,
            size=self.size,
            weights=self.weights,
        )
        if refusal is None:
            refusal = preflight_refusal(
                legs=self.legs,
                costs=self.costs,
                fills=self.fills,
                changes=changes,
                arrival=arrival,
                volumes=[leg.volume[t] for leg in self.prices],
                ts_us=self.stamps[t],
            )
        if refusal:
            self.note(t, "refused", refusal, d, x)
            return
        self.order = Order(
            action="entry",
            reason="signal",
            bar=t,
            direction=d,
            x=x_net,
            changes=changes,
            arrival=arrival,
            earliest=t + min(self.latency_bars),
            atomicity=self.fills.get("atomicity", "rollback"),
            sized_on=equity,
        )
        self.hedge = [{"ratio": leg["ratio"]} for leg in self.legs]
        if not self.wallets.is_split:
            self.wallets.split(self.targets(arrival))
        elif self.wallets.is_segregated:
            self.plan_transfers(t, arrival)

    def largest_units(self):
        return max(abs(x) for x in combo_units(self.position, self.hedge))

    # ---------------------------------------------------------------------------------------------- 4. fills

    def roll(self, t):
        """Legs that change their contract in this bar: two market orders for what is held, and no PnL of the jump."""
        for i, leg in enumerate(self.prices):
            if t not in leg.old_open:
                continue
            jump, q = leg.open[t] - leg.old_open[t], self.position[i]
            if q != 0.0:
                for change, price in ((-q, leg.old_open[t]), (q, leg.open[t])):
                    row = self.trade(t, i, change, reference=price, arrival=price, rolling=True)
                    self.books[i]["fees"] += row["fee"]
                    for name in ("spread", "bucket", "impact"):
                        self.books[i][name] += row[name]
                self.position[i] = q
                self.note(t, "roll", "roll", self.direction or (self.order.direction if self.order else 0), abs(q))
                for excess in self.open_excess(i):
                    q -= excess.change
                    excess.marked += jump
                self.books[i]["basis"] -= q * jump
            if self.order is not None and self.order.bar < t:
                self.order.arrival[i] += jump

    def work(self, t):
        """One bar of the order in flight: its closings first; else its attempt starts, its legs fill, it resolves."""
        order = self.order
        if order.excess:
            self.close_excess(t)
            return
        if t < order.earliest or (order.action == "entry" and order.start is None and self.wallets.is_busy()):
            return
        if order.is_forced:
            self.close_forced(t)
            return
        legs = order.working_legs()
        if order.start is None:
            if any(self.prices[i].open[t] is None for i in legs):
                if not order.waited:
                    self.note(t, "waiting", order.reason, order.direction, order.x)
                    order.waited = True
                return
            order.start = t
        for i in legs:
            lag = self.latency_bars[i] - min(self.latency_bars)
            if i not in order.fractions and t >= order.start + lag and self.prices[i].open[t] is not None:
                self.work_leg(t, i)
        if len(order.fractions) == len(legs):
            self.resolve(t)

    def work_leg(self, t, i):
        """Asks the venue for one leg; a maker leg whose limit is not reached has its answer at its next bar."""
        order, leg, cost, change = self.order, self.legs[i], self.costs[i], self.order.changes[i]
        side, is_maker = 1 if change > 0 else -1, self.fills.get("model", "certain") == "maker"
        fraction, reference, at_limit = 1.0, self.prices[i].open[t], False
        if i not in order.quoted:
            if is_refused(self.fills, t, i):
                fraction = 0.0
            elif is_maker:
                limit = maker_limit(order.arrival[i], side, self.fills["offset_bps"])
                at_limit = trades_through(limit, side, self.prices[i].high[t], self.prices[i].low[t])
                if not at_limit:
                    order.quoted.add(i)
                    return
                reference = limit
            else:
                fraction = fill_fraction(
                    self.fills,
                    bar=t,
                    leg=i,
                    n_gross=gross_quantity(leg, cost, change, cost["fee_bps"]),
                    bar_volume=self.prices[i].bar_volume[t],
                )
        order.fractions[i] = fraction
        if fraction == 0.0:
            return
        if order.cash_before is None:
            order.cash_before = self.cash
        change = fraction * change
        self.fill(t, i, change, reference=reference, at_limit=at_limit)
        if order.action == "exit" and fraction == 1.0:
            self.set_flat(i)

    def set_flat(self, i):
        self.position[i], self.face[i], self.short_since[i] = 0.0, 0.0, None

    def fill(self, t, i, change, *, reference, at_limit=False):
        """One fill of the order itself, in the books it is in as long as it is no excess."""
        order = self.order
        row = self.trade(t, i, change, reference=reference, arrival=order.arrival[i], at_limit=at_limit)
        self.books[i]["fees"] += row["fee"]
        for name in ("spread", "bucket", "impact", "delay"):
            self.books[i][name] += row[name]
        self.changed[i], self.arrival, order.rows[i] = change, order.arrival, row

    def close_forced(self, t):
        """What the venue's own closing leaves to close goes leg by leg, each in full at its first open."""
        order = self.order
        for i in order.working_legs():
            if self.prices[i].open[t] is not None:
                is_all = order.changes[i] == -self.position[i]
                self.fill(t, i, order.changes[i], reference=self.prices[i].open[t])
                order.changes[i] = 0.0
                if is_all:
                    self.set_flat(i)
        if order.working_legs():
            return
        self.note(t, order.action, order.reason, order.direction, order.x)
        self.order = None
        if order.action == "exit":
            self.end_trade(t, order.reason)
        else:
            self.x_held -= order.x

    def trade(self, t, i, change, *, reference, arrival, at_limit=False, closing=False, rolling=False):
        """Moves cash and position by one fill and writes its row; which books it is in is for the caller."""
        order, leg, cost, side = self.order, self.legs[i], self.costs[i], 1 if change > 0 else -1
        fee_bps, half_spread_bps = cost["fee_bps"], cost["half_spread_bps"]
        if at_limit:
            maker_fee_bps = self.fills.get("maker_fee_bps")
            fee_bps = fee_bps if maker_fee_bps is None else maker_fee_bps[i]
            half_spread_bps = 0.0
        elif closing:
            half_spread_bps += self.fills.get("rollback_penalty_bps") or 0.0
        n_gross = gross_quantity(leg, cost, change, fee_bps)
        traded = self.traded(i, change, self.prices[i].open[t] if at_limit else reference,
                             self.prices[i].x_accrued[t] if rolling else self.prices[i].x_open[t])  # fmt: skip
        if at_limit and traded != 1.0:
            reference = self.prices[i].open[t] + traded * (reference - self.prices[i].open[t])
        parts = fill_cost(
            side=side,
            traded=traded,
            n_net=abs(change),
            n_gross=n_gross,
            arrival=arrival,
            reference=reference,
            volume=self.prices[i].volume[t],
            half_spread_bps=half_spread_bps,
            fee_bps=fee_bps,
            bucket_usd=() if at_limit else cost["bucket_usd"],
            bucket_bps_row=() if at_limit else bucket_row(cost, self.stamps[t]),
            impact_coef_bps=0.0 if at_limit else cost["impact_coef_bps"],
            impact_exponent=cost["impact_exponent"],
        )
        if leg.get("gas") and leg["kind"] in NO_MARGIN:
            parts["fee"] += latest_value(leg["gas"], self.stamps[t])
        if pays_fee_in_base(leg, cost, change):
            self.wallets.pay(i, -(n_gross * parts["fill"]))
        else:
            self.wallets.pay(i, -change * parts["fill"])
            self.wallets.pay(i, -parts["fee"])
        self.change_face(t, i, change, parts["fill"])
        self.position[i] += change
        if not self.position[i] < 0.0:
            self.short_since[i] = None
        elif self.short_since[i] is None:
            self.short_since[i] = t
        if self.direction != 0:
            trade = len(self.out["trades"])
        else:
            begins = not rolling and not closing and order.action == "entry"
            trade = len(self.out["trades"]) + 1 if begins else 0
        row = {
            "bar": t,
            "leg": i,
            "trade": trade,
            "action": "roll" if rolling else "rollback" if closing else order.action,
            "reason": "roll" if rolling else order.reason,
            "decision_bar": t if rolling else order.bar,
            "side": side,
            "quantity": n_gross,
            "position_change": change,
            "arrival": arrival,
            "reference": reference,
        } | {k: parts[k] for k in ("fill", "notional", "fee", "spread", "bucket", "impact", "delay")}
        self.out["fills"].append(row)
        return row

    def traded(self, i, change, price, x):
        """Dollars that change hands over those of the quantity at a price: face that is closed has kept its dollars."""
        q = self.position[i]
        if not self.is_inverse[i] or q * change >= 0.0:
            return 1.0
        return abs(self.face[i]) * x / (abs(q) * price)

    def change_face(self, t, i, change, price):
        """Contract dollars of a fill before it is in the position: more at its price, or the share that leaves."""
        if not self.is_inverse[i]:
            return
        q, more = self.position[i], change
        if q * change < 0.0:
            share = min(abs(change) / abs(q), 1.0)
            self.face[i] = 0.0 if share == 1.0 else self.face[i] - self.face[i] * share
            more = change + q if abs(change) > abs(q) else 0.0
        self.face[i] += more * price / self.prices[i].x_open[t]

    def resolve(self, t):
        """Every leg has its answer: what all have is kept, what is over becomes an excess, closed now or later."""
        order, fractions = self.order, self.order.fractions
        least, most = min(fractions.values()), max(fractions.values())
        order.kept = {"rollback": 1.0 if least == 1.0 else 0.0, "match": least, "naked": most}[order.atomicity]
        if order.kept > 0.0:
            if order.action == "entry":
                self.keep_entry(t)
            elif order.action == "resize":
                self.x_held -= order.kept * order.x
            self.note(t, order.action, order.reason, order.direction, order.kept * order.x)
        elif order.action == "entry" and self.direction == 0:
            for row in order.rows.values():
                row["trade"] = 0
        if most > order.kept:
            self.note(t, "rollback", order.reason, order.direction, (most - order.kept) * order.x)
        elif most == 0.0 and order.action == "entry" and order.atomicity != "match":
            self.note(t, "unfilled", order.reason, order.direction, order.x)
        if order.atomicity != "naked":
            for i in order.working_legs():
                if fractions[i] > order.kept:
                    self.set_aside(t, i)
        if order.excess and self.rollback_bars == 0:
            self.close_excess(t)
        elif not order.excess:
            self.end_attempt(t)

    def keep_entry(self, t):
        order = self.order
        if self.direction == 0:
            self.direction, self.entry_bar, self.sized_on, self.x_held = order.direction, t, order.sized_on, 0.0
            self.cash_before_entry = order.cash_before
            self.out["trades"].append({"entry_bar": t, "exit_bar": None, "pnl": None})
        self.x_held += order.kept * order.x

    def set_aside(self, t, i):
        """Turns the share of a fill that is too much into an excess and moves what was booked for it so far.

        delay, spread, bucket, impact and fees, in this order, go to rollback_execution; what the excess earned up to
        the close of the row before goes from delta and basis to rollback_price.
        """
        order, row, books = self.order, self.order.rows[i], self.books[i]
        over = order.fractions[i] - order.kept
        change, share = over * order.changes[i], over / order.fractions[i]
        for name, part in (("delay", "delay"), ("spread", "spread"), ("bucket", "bucket"), ("impact", "impact"),
                           ("fees", "fee")):  # fmt: skip
            books[name] -= share * row[part]
            books["rollback_execution"] += share * row[part]
        marked = order.arrival[i]
        if row["bar"] == t:
            self.changed[i] -= change
        else:
            self.held[i] -= change
            marked = self.prices[i].close[t - 1]
            d_price = marked - order.arrival[i]
            reference = self.prices[self.reference_leg]
            d_reference = reference.close[t - 1] - order.arrival[self.reference_leg]
            for roll in (roll for roll in reference.old_open if row["bar"] < roll <= t):  # since it was filled
                d_reference += reference.open[roll] - reference.old_open[roll]
            books["delta"] -= change * d_reference
            books["basis"] -= change * (d_price - d_reference)
            books["rollback_price"] -= change * d_price
        order.excess.append(Excess(i, change, row["reference"], t + self.rollback_bars, marked))

    def close_excess(self, t):
        """Closes what is due, leg by leg: at once at the price of the fill, later at the first open there is."""
        order = self.order
        for excess in list(order.excess):
            i, reference = excess.leg, excess.reference
            if self.rollback_bars > 0 or order.rows[i]["bar"] != t:
                reference = self.prices[i].open[t]
                if t < excess.due or reference is None:
                    continue
            row = self.trade(t, i, -excess.change, reference=reference, arrival=reference, closing=True)
            for name in ("spread", "bucket", "impact", "fee"):
                self.books[i]["rollback_execution"] += row[name]
            self.books[i]["rollback_price"] -= excess.change * (reference - excess.marked)
            order.excess.remove(excess)
        if not order.excess:
            self.end_attempt(t)

    def end_attempt(self, t):
        """Nothing is open any more: the order is done, or its rest is tried again from the next bar on."""
        order = self.order
        if order.action == "entry":
            if order.atomicity == "match" and order.kept < 1.0:
                rest = 1.0 - order.kept
                order.try_again(bar=t + 1, x=rest * order.x, changes=[rest * change for change in order.changes])
            else:
                self.order = None
        elif order.action == "resize":
            left = 1.0 - order.kept
            rest = [left * change for change in order.changes]
            if order.atomicity == "naked":
                rest = [(1.0 - order.fractions.get(i, 1.0)) * change for i, change in enumerate(order.changes)]
                left = 1.0 - min(order.fractions.values())
            if any(change != 0.0 for change in rest):
                order.try_again(bar=t + 1, x=left * order.x, changes=rest)
            else:
                self.order = None
                self.plan_transfers(t, [leg.arrival[t] for leg in self.prices])
        elif any(q != 0.0 for q in self.position):
            x = self.largest_units() if order.atomicity == "naked" else (1.0 - order.kept) * order.x
            order.try_again(bar=t + 1, x=x, changes=[-q for q in self.position])
        else:
            self.order = None
            self.end_trade(t, order.reason if order.reason == "expiry" else None)

    def end_trade(self, t, reason=None):
        """The last position is gone; what never was a trade ends without a trace."""
        if self.direction != 0:
            self.direction, self.exit_bar = 0, t
            self.out["trades"][-1] |= {"exit_bar": t, "pnl": self.cash - self.cash_before_entry}
            self.out["trades"][-1] |= {"reason": reason} if reason else {}

    # ---------------------------------------------------------------------------------------------- 5. intrabar risk

    def tiers(self, t, i):
        rows = self.legs[i].get("tier_rows")
        return (in_force(rows, self.stamps[t] // DAY_US) if rows else self.legs[i].get("tiers")) or [(0.0, 0.0, 0.0)]

    def spot_weight(self, i):
        """What is owed counts in full; coin that backs an inverse leg counts without a haircut of its own too."""
        if self.position[i] < 0.0:
            return 1.0
        return self.wallets.coin_haircut if i in self.is_backing else self.wallets.haircut

    def notional(self, t, i, price):
        return abs(self.face[i]) * self.prices[i].x_open[t] if self.is_inverse[i] else abs(self.position[i]) * price

    def holdings(self, t, w, begin, end):
        """Legs of a wallet that count in its margin, on the path between two lists of prices."""
        return [
            Holding(
                position=self.position[i],
                weight=self.spot_weight(i) if self.legs[i]["kind"] == "spot" else 1.0,
                tiers=None if self.legs[i]["kind"] == "spot" else self.tiers(t, i),
                begin=begin[i],
                end=end[i],
                fixed_usd=self.notional(t, i, 0.0) if self.is_inverse[i] else None,
            )
            for i in self.wallets.legs_of(w)
            if self.legs[i]["kind"] not in NO_MARGIN
        ]

    def margined(self, w):
        return [i for i in self.wallets.legs_of(w) if self.legs[i]["kind"] in MARGINED and self.position[i] != 0.0]

    def margin_ratio(self, t, w, prices):
        """Margin equity over the notional of the margined legs; None without a margined position."""
        if not self.margined(w):
            return None
        notional = 0.0
        for i in self.margined(w):
            notional += self.notional(t, i, prices[i])
        return wallet_equity(self.wallets.cash[w], self.holdings(t, w, prices, prices), 0.0) / notional

    def order_rest(self, t, *, action, reason, direction, x, changes):
        """What a venue's own closing leaves to close: from the next bar on, arrival the closes of this one."""
        self.order = Order(
            action=action,
            reason=reason,
            bar=t,
            direction=direction,
            x=x,
            changes=changes,
            arrival=[leg.close[t] for leg in self.prices],
            earliest=t + 1,
            atomicity="naked",
            is_forced=True,
        )

    def deleverage(self, t):
        """A venue closes a share of a margined leg at the price margin starts from; what it hedged is closed later."""
        direction, closed = self.direction or (self.order.direction if self.order else 0), False
        for i, leg in enumerate(self.legs):
            shares = [share for ts, share in leg.get("adl", ()) if ts == self.stamps[t]]
            if not shares or leg["kind"] not in MARGINED or self.position[i] == 0.0:
                continue
            self.drop_order()
            self.note(t, "adl", "adl", direction, abs(self.position[i] * shares[0]))
            s_price = self.paths[self.reference_leg][t][0]
            self.close_by_venue(
                t, i, share=shares[0], price=self.paths[i][t][0], s_price=s_price, fee=0.0, action="adl", reason="adl"
            )
            closed = True
        if not closed:
            return
        units = [abs(x) for x in combo_units(self.position, self.hedge)]
        common = min(units) if self.direction != 0 else 0.0
        changes = []
        for q, leg in zip(self.position, self.hedge, strict=True):
            over = q - math.copysign(common * abs(leg["ratio"]), q)
            changes.append(-over if abs(over) > WHOLE_TOLERANCE * abs(q) else 0.0)
        if not any(units):
            self.end_trade(t, "adl")
        elif any(changes):
            x = max(units) - common
            self.x_held = max(units)
            action = "resize" if common > 0.0 else "exit"
            self.order_rest(t, action=action, reason="adl", direction=direction, x=x, changes=changes)
        else:
            self.x_held = common

    def check_margins(self, t):
        """Each wallet in order along the highs, then along the lows, then loans; what is left leaves."""
        if not self.wallets.margin_on:
            return
        begin, high, low = (list(prices) for prices in zip(*(path[t] for path in self.paths), strict=True))
        direction, any_liquidated = self.direction or (self.order.direction if self.order else 0), False
        for w in range(self.wallets.n):
            if not self.margined(w):
                continue
            ratios = [self.margin_ratio(t, w, prices) for prices in (begin, high, low)]
            self.min_margin_ratio = min(r for r in (*ratios, self.min_margin_ratio) if r is not None)
            for end in (high, low):
                place = first_shortfall(self.wallets.cash[w], self.holdings(t, w, begin, end))
                if place is not None:
                    prices = [a + place * (b - a) for a, b in zip(begin, end, strict=True)]
                    self.liquidate(t, w, prices, direction)
                    any_liquidated = True
                    break
        for loan in self.loans():
            for end in (high, low):
                place = first_shortfall(0.0, self.loan_holdings(loan, begin, end))
                if place is not None:
                    prices = [a + place * (b - a) for a, b in zip(begin, end, strict=True)]
                    self.liquidate_loan(t, loan, prices, direction)
                    any_liquidated = True
                    break
        if not any_liquidated:
            return
        if any(q != 0.0 for q in self.position):
            self.order_rest(t, action="exit", reason="liquidation", direction=direction, x=self.largest_units(),
                            changes=[-q for q in self.position])  # fmt: skip
        else:
            self.end_trade(t, "liquidation")

    def drop_order(self):
        """An order in flight ends where it is: what it filled stays, what it was to close is a position like others."""
        if self.order is not None:
            if self.direction == 0:
                for row in self.order.rows.values():
                    row["trade"] = 0
            self.dropped += self.order.excess
            self.order = None
        self.wallets.queue = []

    def close_by_venue(self, t, i, *, share, price, s_price, fee, action, reason, pays=True, traded=None):
        """A share of a leg is closed by its venue, at a price for it and one for the reference leg; writes the row."""
        change = -(self.position[i] * share)
        traded = self.traded(i, change, price, self.prices[i].x_open[t]) if traded is None else traded
        if pays:
            self.wallets.pay(i, -change * price)
            self.wallets.pay(i, -fee)
        self.earn_until(t, i, price=price, s_price=s_price, share=share)
        self.face[i] -= self.face[i] * share
        if share == 1.0:
            self.set_flat(i)
        else:
            self.position[i] += change
        self.out["fills"].append(
            {
                "bar": t,
                "leg": i,
                "trade": len(self.out["trades"]) if self.direction != 0 else 0,
                "action": action,
                "reason": reason,
                "decision_bar": t,
                "side": 1 if change > 0 else -1,
                "quantity": abs(change),
                "position_change": change,
                "arrival": price,
                "reference": price,
                "fill": price,
                "notional": abs(change) * traded * price,
                "fee": fee,
                "spread": 0.0,
                "bucket": 0.0,
                "impact": 0.0,
                "delay": 0.0,
            }
        )

    def liquidate(self, t, w, prices, direction):
        """The venue closes the margined legs of a wallet at the prices of the place where its margin ran out."""
        self.drop_order()
        closed = self.margined(w)
        self.note(t, "liquidation", "liquidation", direction, abs(self.position[closed[0]]))
        for i in closed:
            traded = self.traded(i, -self.position[i], prices[i], self.prices[i].x_open[t])
            fee = abs(self.position[i]) * traded * prices[i] * (self.legs[i].get("liquidation_fee_bps") or 0.0) / 1e4
            self.books[i]["liquidation"] += fee
            self.close_by_venue(t, i, share=1.0, price=prices[i], s_price=prices[self.reference_leg], fee=fee,
                                action="liquidation", reason="liquidation")  # fmt: skip
        worth = self.wallets.cash[w]
        for i in self.wallets.legs_of(w):
            if self.legs[i]["kind"] == "spot":
                worth += self.position[i] * prices[i]
        if worth < 0.0:
            self.wallets.cash[w] -= worth
            self.books[closed[0]]["liquidation"] += worth

    def loans(self):
        """Lending legs by venue, in the order in which venues first occur; those with collateral and a debt."""
        by_venue: dict[Any, list] = {}
        for i, leg in enumerate(self.legs):
            if leg["kind"] == "lending":
                by_venue.setdefault(leg.get("venue", f"venue{i}"), []).append(i)
        loans = []
        for loan in by_venue.values():
            if any(self.position[i] > 0.0 for i in loan) and any(self.position[i] < 0.0 for i in loan):
                loans.append(loan)
        return loans

    def loan_holdings(self, loan, begin, end):
        """Collateral at its threshold and debts in full: what is left of their sum is what health is about."""
        return [
            Holding(
                position=self.position[i],
                weight=self.legs[i]["loan_threshold"] if self.position[i] > 0.0 else 1.0,
                tiers=None,
                begin=begin[i],
                end=end[i],
            )
            for i in loan
        ]

    def liquidate_loan(self, t, loan, prices, direction):
        """A share of every debt is repaid with collateral, taken with a bonus and in proportion to its value."""
        self.drop_order()
        collateral, debts = ([i for i in loan if sign * self.position[i] > 0.0] for sign in (1.0, -1.0))
        worth = sum(self.position[i] * prices[i] for i in collateral)
        covered = sum(self.position[i] * prices[i] * self.legs[i]["loan_threshold"] for i in collateral)
        owed = sum(-self.position[i] * prices[i] for i in debts)
        is_half = covered / owed > LOAN_HALF_HEALTH and worth >= LOAN_HALF_USD and owed >= LOAN_HALF_USD
        repaid_share = 0.5 if is_half else 1.0
        repaid = repaid_share * owed
        taken = min(repaid * (1.0 + (self.legs[collateral[0]].get("loan_bonus") or 0.0)), worth)
        shares = dict.fromkeys(collateral, taken / worth) | dict.fromkeys(debts, repaid_share)
        first = min(shares)
        self.note(t, "liquidation", "liquidation", direction, abs(self.position[first]) * shares[first])
        for i in sorted(shares):
            self.close_by_venue(t, i, share=shares[i], price=prices[i], s_price=prices[self.reference_leg], fee=0.0,
                                action="liquidation", reason="liquidation", pays=False)  # fmt: skip
        self.books[collateral[0]]["liquidation"] += taken - repaid

    def earn_until(self, t, i, *, price, s_price, share):
        """Price PnL of a share of a leg that is closed inside the bar: to its price, and the reference's."""
        books = self.books[i]
        spans = [(self.held[i], [leg.close[t - 1] for leg in self.prices])] if t > 0 else []
        spans += [(self.changed[i], self.arrival)] if self.arrival is not None else []
        for change, begin in spans:
            d_reference = s_price - begin[self.reference_leg]
            books["delta"] += share * change * d_reference
            books["basis"] += share * change * (price - begin[i] - d_reference)
        self.held[i] -= share * self.held[i]
        self.changed[i] -= share * self.changed[i]
        for excess in [excess for excess in self.dropped if excess.leg == i]:
            books["rollback_price"] -= share * excess.change * (price - excess.marked)
            excess.change -= share * excess.change
            if excess.change == 0.0:
                self.dropped.remove(excess)

    # ----------------------------------------------------------------------------------------------- 6. mark

    def mark(self, t):
        """Price PnL of the bar, coin exchanged first; returns equity and gross notional at the closes."""
        for i, leg in enumerate(self.prices):
            self.revalue_leg(i, leg.x_open[t], leg.x_close[t])
        close = [leg.close[t] for leg in self.prices]
        for i, books in enumerate(self.books):
            if t > 0:
                d_reference = close[self.reference_leg] - self.prices[self.reference_leg].close[t - 1]
                d_price = close[i] - self.prices[i].close[t - 1]
                books["delta"] += self.held[i] * d_reference
                books["basis"] += self.held[i] * (d_price - d_reference)
            if self.arrival is not None:
                d_reference = close[self.reference_leg] - self.arrival[self.reference_leg]
                d_price = close[i] - self.arrival[i]
                books["delta"] += self.changed[i] * d_reference
                books["basis"] += self.changed[i] * (d_price - d_reference)
        for excess in (self.order.excess if self.order else []) + self.dropped:
            self.books[excess.leg]["rollback_price"] -= excess.change * (close[excess.leg] - excess.marked)
            excess.marked = close[excess.leg]
        equity, notional = self.cash, 0.0
        for q, price in zip(self.position, close, strict=True):
            equity += q * price
            notional += abs(q) * price
        return equity, notional


def backtest(*, legs, start_us, end_us, bar_us, signal, rule, size, costs, fills, wallets=None):
    """One run of one combo, row by row: arrivals, accruals, decision, fill, intrabar risk, mark.

    Orders of addition: settlements of a row by (leg, time), cash += flow; legs filled in order, each with
    cash += -change * fill and then cash -= fee, or cash -= n_gross * fill alone where the fee is taken in base;
    equity = cash, then += q * C over legs in order. Price PnL of a row and leg: first what was held before the fill
    (close to close; nothing at row 0), then what was filled (arrival to close); each adds change * dS to delta and
    change * (dP - dS) to basis.

    Of a fill with fraction f_i, change = f_i * n_i. Of its excess, with k the fraction kept (0.0 or the common one):
    change = (f_i - k) * n_i, share = (f_i - k) / f_i; each booked part p moves as book -= share * p, then
    rollback_execution += share * p. A closing adds spread (penalty included: half_spread + penalty), bucket, impact and
    fee to rollback_execution one by one. rollback_price -= change * (to - from), from its arrival (a fill of the row in
    which it resolves) or the close of the row before (an older fill, after its past is moved in one step:
    delta -= change * dS, basis -= change * (dP - dS), rollback_price -= change * dP, arrival to that close), then
    close to close, at last to the price at which it is closed. Excess open at the start of a row is taken off what the
    row holds for delta and basis.

    Readings of the page where it leaves room:

    * One thing at a time: while an excess is open nothing else is worked, so the rest of a `match` is tried again from
      the bar after the one in which the last excess was closed.
    * Every attempt is an order with its own `waiting` event, its own start and the same gaps between its legs; the
      latency itself is waited for once. The arrival prices stay those of the decision.
    * Only legs that still have something to do must be tradable for an attempt to start.
    * Without a delay an excess is closed in the bar that resolves at the reference price of its fill, also when that
      fill is some bars old or the leg has no open now.
    * The net quantity of a leg is what is fixed: where the fee is taken in base a maker fill orders
      net / (1 - maker fee).
    * `rollback`, `entry`, `exit` and `unfilled` stand at the bar in which an attempt resolves, the kept part first.
      Their quantity is combo units of the attempt: the fraction kept (the largest where legs go their own way), the
      largest excess fraction, or all of it.
    * `n_rollbacks` counts attempts with an excess, of entries and exits; `unfilled` is for entries that end, so never
      with `match` and never for exits.
    * An exit is for each leg by itself if the position is naked when it is decided; each attempt of an exit is for all
      that is still held then, and a leg filled in full is exactly flat.
    * A position is naked if the largest and the smallest position / ratio differ by over 1e-9 of the largest absolute.
    * `trade` of the fills of an entry is the number of the trade it begins, 0 if it begins none. Its pnl is measured
      from the cash before the first fill of the order, failed attempts included.
    * An entry before any volume is known is refused by max_volume_share, and by max_cost_bps if it asks for impact.

    Wallets: cash of a run = what is in no wallet yet + wallets in order + in flight; a target is
    equity * (kappa_w / kappa), so that the only wallet's is the equity itself. Margin equity is added from the cash on
    over the legs of the wallet in order, then maintenance is taken off leg by leg. Readings:

    * Before the first entry every wallet has 0 cash and in_flight is 0, while `cash` is the capital.
    * Transfers that arrive at once (0 bars) do not hold up the entry that caused them; those that do hold it up make
      no `waiting` event, which is for legs.
    * Nothing but the plan limits what a giver sends: its cash may fall under zero. What is queued or in flight already
      is not looked at by a later plan; an amount joins what is queued between the same two.
    * A rest that is not above the fee is dropped; otherwise no entry would start any more until a
      liquidation drops it.
    * A `resize` event and its quantity stand at the bar in which an attempt resolves, like those of an exit.
    * A resize to nothing (x' not above 0) is an exit with reason `margin` that ends the trade.
    * A resize of a naked position changes every leg that is not 0 by the same number of combos, each by itself.
    * A leg without an open, high or low for its margin path stays at the close of the bar if it has one.
    * Events, fills and the exit order of a liquidation all have the reason `liquidation`. The exit order makes no
      `waiting` event; its `exit` event stands at the bar of its last fill with the largest units still held when it
      was sent.
    * The absorbed shortfall is in the book of the first leg that was closed.
    * An excess of a surviving leg is marked into rollback_price at the close of the bar of the liquidation and earns
      delta and basis from then on.
    * Positions of an entry that had not resolved when it was dropped belong to no trade (number 0): no trade, hold or
      cooldown comes of them, and `direction` is 0 meanwhile.
    * `naked` of a row is about its position at the end, hence after a liquidation.
    * Where all is lost, so that equity is exactly 0, every return from then on is 0.
    * Deliveries come after what step 1 sends. The delivery bar drops an order in flight even where nothing of the leg
      is held; then there is no row and no event. Quantities of `refused` with reason `expired` are 0.
    * An inverse reference leg is linear (X = 1) in rolls and deliveries too; its face is its notional and its funding.
    * `rollback_price` of an excess gets the jump of a roll by the move of its last mark, and no second time.
    * An order decided in the bar of a roll has the new contract's open as its arrival price already.
    * Rolls of what an entry that has not resolved holds belong to no trade (number 0).
    * After the roll of a bar the next one is looked for from the bar after it. Volume is that of the series shown.
    * An excess that is dropped keeps its share of revaluations until the end of that bar, and takes part in a roll.
    * Growth does not change kappa, targets and sizes, which use the ratios as given.
    * After an ADL `over` means by more than 1e-9 of the position. Without a trade (an entry that had not resolved) all
      that is left leaves. No transfers are planned after its resize.
    * A loan is looked at where it has both collateral and a debt; the bonus is that of its first collateral leg; its
      event has what is closed of its first leg. `side` of rows is that of the change.
    * Trades that end by `expiry`, `adl` or `liquidation` say so in `reason`; others have none.
    * Turnover of fee tiers counts every fill's row, also of liquidations, rolls, deliveries and ADL.
    * Before the first row of rates, indices, gas, fees and tiers the first row counts.
    * Leftovers of a liquidation are closed under a new exit order, with new arrival prices, if another wallet is
      liquidated before they are gone.

    Parameters
    ----------
    legs : dicts with kind, ratio, bars (file rows ts, o, h, l, c, v), step_us, mark_bars (ts, open, close, or
        ts, open, high, low, close), mark_step_us, settlements (ts, rate, mark or None, known_at or None), lot,
        min_notional_usd, and where wanted venue, tiers (floor_usd, mmr, amount_usd; none: no maintenance) and
        liquidation_fee_bps. Of contracts: inverse, coin, quote_usd (ts, rate), borrow (ts, apr) and borrow_rule
        (period_hours, opening_periods), index (ts, value), expiry_us or, in place of bars, chain (dicts with bars and
        expiry_us) with roll_days and roll_basis_apr, delivery_price, delivery_fee_bps, adl (ts, share), gas (ts, usd),
        loan_threshold, loan_bonus, fee_tiers (volume_usd, fee_bps) with fee_group, fee_rows (first day, fee_bps),
        tier_rows (first day, tiers)
    start_us, end_us, bar_us : bounds and bar of the run; all rows given serve as warm-up
    signal : {"name", "hours"}, or {"values"} with the value row t decides on at place t, not shifted any more
    rule : entry, exit, reverse, and min_hold_hours, max_hold_hours, cooldown_hours, stop_loss_pct, max_basis_bps
        (None: off)
    size : capital_usd, allocation, leverage, compounding
    costs : one dict a leg: half_spread_bps, fee_bps, fee_in_base, bucket_usd, bucket_bps, impact_coef_bps,
        impact_exponent, bucket_days when bucket_bps has one list a day, volume_30d_usd where the leg has fee_tiers
    fills : latency_hours (a number, or a list by leg), and where wanted model ("certain", "volume", "bernoulli",
        "maker"), volume_cap, fill_probability, offset_bps, maker_fee_bps (a list by leg; else the leg's fee_bps),
        reject_probability, atomicity ("rollback", "match", "naked"), rollback_delay_hours, rollback_penalty_bps,
        max_cost_bps, max_volume_share, max_spread_bps, seed, trial
    wallets : mode ("pooled", "segregated"), and where wanted margin ("venue", "none"), spot_collateral,
        transfer_hours, transfer_fee_usd, transfer_min_usd, transfer_daily_cap_usd, transfer_halts_us (pairs of from
        and to), rebalance_below, cash_yield_apr; one pool without margin if not given

    Returns
    -------
    dict with ts_us, signal, basis_bps (of the decision of each row), equity, cash, position, stale, naked, books
    (cumulative, by row and leg), direction, wallet_cash, in_flight, face (contract dollars by leg), fills, funding,
    events, trades, metrics. All are in dollars but signal and basis_bps, which use raw prices. Events of an entry or
    exit stand at the bar of the fill with the net combo quantity, "waiting" at the first bar an order is due but some
    leg has no open, "refused" at the bar of the decision. The costs in a fill's row are those before a rollback moves
    any.
    """
    stamps = grid_stamps(legs, bar_us, start_us, end_us)
    if not stamps:
        raise ValueError("the run has no bars")
    market = market_of(legs, stamps, bar_us)
    candles, prices = market.candles, market.prices
    due_settlements = settlements_by_row(legs, stamps, bar_us)
    names = (
        "signal", "basis_bps", "equity", "cash", "position", "stale", "naked", "books", "direction", "wallet_cash",
        "in_flight", "face",
    )  # fmt: skip
    out = {"ts_us": stamps} | {name: [] for name in names}
    out |= {name: [] for name in ("fills", "funding", "events", "trades")}
    run = Run(legs=legs, stamps=stamps, market=market, bar_us=bar_us, rule=rule, size=size, costs=costs, fills=fills,
              wallets=wallets, out=out)  # fmt: skip
    gross_notional, held = [], []

    for t, ts in enumerate(stamps):
        # 1. cash is worth what its currency is; transfers arrive and leave; contracts that expire are paid out
        run.begin_bar(t)
        run.convert(t)
        run.wallets.arrive(t)
        run.send(t)
        run.deliver(t)

        # 2. accruals, on the position held just before the fills of this bar
        run.revalue(t)
        for settlement in due_settlements[t]:
            run.accrue(settlement)
        run.pay_borrow(t)
        run.earn_on_cash(t)
        run.grow(t)

        # 3. decision, on what row t-1 knew at its end
        value = signal_at(signal, legs, candles, bar_us, t, ts)
        basis = basis_bps(legs, candles, ts - bar_us)
        if run.order is None:
            run.decide(t, value, basis)

        # 4. rolls, then fills of the order in flight
        run.roll(t)
        if run.order is not None:
            run.work(t)

        # 5. what the venue takes of a position, then margin and loans at the worst prices of the bar
        run.deleverage(t)
        run.check_margins(t)

        # 6. mark at the closes, price PnL, equity
        equity, notional = run.mark(t)

        out["signal"].append(value)
        out["basis_bps"].append(basis)
        out["equity"].append(equity)
        out["cash"].append(run.cash)
        out["position"].append(list(run.position))
        out["stale"].append(any(q != 0.0 and leg.missing[t] for q, leg in zip(run.position, prices, strict=True)))
        out["naked"].append(is_naked(run.position, run.hedge))
        out["books"].append([dict(leg) for leg in run.books])
        out["direction"].append(run.direction)
        out["wallet_cash"].append(list(run.wallets.cash))
        out["in_flight"].append(run.wallets.in_flight())
        out["face"].append(list(run.face))
        held.append(any(q != 0.0 for q in run.position))
        gross_notional.append(notional)

    out["metrics"] = metrics(
        capital_usd=size["capital_usd"],
        bar_us=bar_us,
        equity=out["equity"],
        stale=out["stale"],
        held=held,
        naked=out["naked"],
        gross_notional=gross_notional,
        fills=out["fills"],
        books=run.books,
        trades=out["trades"],
        events=out["events"],
        min_margin_ratio=run.min_margin_ratio,
    )
    return out
