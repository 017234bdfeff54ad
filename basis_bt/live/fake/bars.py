"""Public figures of an instrument: candles, funding rates, margin figures."""

from basis_bt.live.fake.records import RateMark
from basis_bt.live.fake.simulator import SimVenue

MAINTENANCE_FRAC = 0.004
MAX_LEVERAGE = 100.0
FUNDING_HOURS = 8
DEFAULT_RATE = 0.0001
_HOUR_US = 3_600_000_000
_UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def step_of(interval: str) -> int:
    """Milliseconds of ``1m``, ``1h``, ``1H``, ``1Dutc``, of Bybit's bare minutes and ``D``."""
    lowered = interval.lower().removesuffix("utc")
    if lowered.isdigit():
        return int(lowered) * 60_000
    return int(lowered[:-1] or "1") * _UNITS_MS[lowered[-1]]


def candles(
    sim: SimVenue,
    instrument: str,
    price: str,
    interval: str,
    *,
    since_ms: str | None = None,
    until_ms: str | None = None,
    limit: int,
) -> tuple[list[tuple[int, tuple[float, float, float, float, float]]], int]:
    """Bars, oldest first, as ``(open time ms, (open, high, low, close, volume))``, and the milliseconds of one.

    The last one is still running. Those given in ``sim.candles[instrument, price]``; without any, flat ones at the mid.
    """
    step_ms = step_of(interval)
    now_ms = sim.venue_now_ms()
    last = min(now_ms, int(until_ms)) if until_ms else now_ms
    given = sim.candles.get((instrument, price)) or sim.candles.get((instrument, "last"))
    if given is None:
        mid = sim.book(instrument).mid
        newest = last // step_ms * step_ms
        first = newest - (limit - 1) * step_ms
        if since_ms:
            first = -(-int(since_ms) // step_ms) * step_ms
        count = min(limit, max(0, (newest - first) // step_ms + 1))
        return [(first + i * step_ms, (mid, mid, mid, mid, 1.0)) for i in range(count)], step_ms
    rows = [
        (ts_us // 1000, ohlcv)
        for ts_us, *ohlcv in given
        if ts_us // 1000 <= last and (not since_ms or ts_us // 1000 >= int(since_ms))
    ]
    rows = rows[:limit] if since_ms else rows[-limit:]
    return [(at, (o, h, lo, c, v)) for at, (o, h, lo, c, v) in rows], step_ms


def settled(sim: SimVenue, instrument: str, since_ms: str | None) -> list[RateMark]:
    """Settled rates, oldest first."""
    since_us = int(since_ms) * 1000 if since_ms else 0
    return [mark for mark in sim.rate_marks if mark.instrument == instrument and mark.ts_us >= since_us]


def next_rate(sim: SimVenue, instrument: str) -> tuple[float, int, float]:
    """``(rate, settlement in epoch us, interval in hours)`` of the running period."""
    given = sim.next_rate.get(instrument)
    if given is not None:
        return given
    step_us = FUNDING_HOURS * _HOUR_US
    return DEFAULT_RATE, (sim.now_us() // step_us + 1) * step_us, float(FUNDING_HOURS)


def margin(sim: SimVenue, quote: str) -> tuple[float, float, float]:
    """Unrealised profit, initial and maintenance margin of the positions that settle in an asset."""
    profit = initial = maintenance = 0.0
    for instrument, position in sim.positions.items():
        if sim.contracts[instrument].quote == quote and position.position_base:
            mark = sim.mark_price(instrument)
            profit += position.profit(mark)
            initial += abs(position.position_base) * mark / position.leverage
            maintenance += abs(position.position_base) * mark * MAINTENANCE_FRAC
    return profit, initial, maintenance


def liquidation_price(sim: SimVenue, instrument: str, position_base: float, entry_price: float) -> float:
    """Where equity meets the maintenance margin, were this the only position of its wallet."""
    contract = sim.contracts[instrument]
    cash = sim.wallets.amount(sim.wallet_of(instrument), contract.quote)
    side = 1.0 if position_base > 0.0 else -1.0
    size = abs(position_base)
    return max(0.0, (side * size * entry_price - cash) / (size * (side - MAINTENANCE_FRAC)))
