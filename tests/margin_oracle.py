"""Margin and liquidation in plain Python, written from `reference/margin.md` and never from the package.

A table is a tuple of rows `(floor, mmr, cum, max_leverage)`, as the venues publish them. Prices and amounts may be
floats or fractions: with `exact` every number is a fraction, and an answer has no rounding in it at all.
"""

from fractions import Fraction

BINANCE_BTC = (  # read 2026-05-01
    (0, 0.004, 0, 150),
    (300_000, 0.005, 300, 100),
    (800_000, 0.0065, 1_500, 75),
    (3_000_000, 0.01, 12_000, 50),
    (12_000_000, 0.02, 132_000, 25),
    (70_000_000, 0.025, 482_000, 20),
    (100_000_000, 0.05, 2_982_000, 10),
    (230_000_000, 0.1, 14_482_000, 5),
    (480_000_000, 0.125, 26_482_000, 4),
    (600_000_000, 0.15, 41_482_000, 3),
    (800_000_000, 0.25, 121_482_000, 2),
    (1_200_000_000, 0.5, 421_482_000, 1),
)
BINANCE_BTC_2024 = (  # October 2024, first five
    (0, 0.004, 0, 125),
    (50_000, 0.005, 50, 100),
    (600_000, 0.0065, 950, 75),
    (3_000_000, 0.01, 11_450, 50),
    (12_000_000, 0.02, 131_450, 25),
)
BINANCE_ETH = (
    (0, 0.004, 0, 150),
    (300_000, 0.005, 300, 100),
    (800_000, 0.0065, 1_500, 75),
    (3_000_000, 0.01, 12_000, 50),
    (12_000_000, 0.02, 132_000, 25),
    (50_000_000, 0.025, 382_000, 20),
    (65_000_000, 0.05, 2_007_000, 10),
    (150_000_000, 0.1, 9_507_000, 5),
    (320_000_000, 0.125, 17_507_000, 4),
    (400_000_000, 0.15, 27_507_000, 3),
    (530_000_000, 0.25, 80_507_000, 2),
    (800_000_000, 0.5, 280_507_000, 1),
)
BINANCE_SOL = (
    (0, 0.005, 0, 100),
    (50_000, 0.0065, 75, 75),
    (400_000, 0.01, 1_475, 50),
    (1_000_000, 0.02, 11_475, 25),
    (4_000_000, 0.025, 31_475, 20),
    (8_000_000, 0.05, 231_475, 10),
    (40_000_000, 0.1, 2_231_475, 5),
    (80_000_000, 0.125, 4_231_475, 4),
    (100_000_000, 0.25, 16_731_475, 2),
    (200_000_000, 0.5, 66_731_475, 1),
)
BYBIT_BTC = (
    (0, 0.005, 0, 100),
    (2_000_000, 0.0056, 1_200, 90),
    (2_600_000, 0.0063, 3_020, 80),
    (3_200_000, 0.0067, 4_300, 75),
    (3_800_000, 0.0071, 5_820, 70),
    (4_400_000, 0.0077, 8_460, 65),
    (5_000_000, 0.0091, 15_460, 55),
    (5_600_000, 0.01, 20_500, 50),
    (8_500_000, 0.013, 46_000, 45),
    (10_000_000, 0.015, 66_000, 40),
    (14_000_000, 0.016, 80_000, 35),
    (20_000_000, 0.02, 160_000, 30),
    (28_000_000, 0.025, 300_000, 25),
    (38_000_000, 0.029, 452_000, 20),
    (50_000_000, 0.03, 502_000, 19),
    (55_000_000, 0.035, 777_000, 18),
    (60_000_000, 0.036, 837_000, 17),
    (65_000_000, 0.038, 967_000, 16),
    (70_000_000, 0.04, 1_107_000, 15),
    (75_000_000, 0.045, 1_482_000, 14),
)
JUMPING = (  # the rates OKX gave AAVE in 2023, which come without amounts; the floors in money are ours
    (0, 0.0065, 0, 50),
    (250_000, 0.01, 0, 40),
    (900_000, 0.015, 0, 20),
    (4_000_000, 0.05, 0, 10),
)
CONTINUOUS = {
    "btc": BINANCE_BTC,
    "btc 2024": BINANCE_BTC_2024,
    "eth": BINANCE_ETH,
    "sol": BINANCE_SOL,
    "bybit": BYBIT_BTC,
}


def exact(numbers):
    """The same numbers as fractions, through any nesting of tuples and lists."""
    if isinstance(numbers, (tuple, list)):
        return tuple(exact(number) for number in numbers)
    return numbers if isinstance(numbers, bool) else Fraction(numbers)


def bracket(notional, table):
    """The row with floor < n <= cap; nothing at all is in the first."""
    return [row for row in table if row[0] < notional][-1] if notional > 0 else table[0]


def maintenance(notional, table):
    """MM(n) = n * mmr - cum."""
    _, mmr, cum, _ = bracket(notional, table)
    return notional * mmr - cum


def liquidation_price(s, Q, EP, WB, *, mmr, cum=0, TMM=0, UPNL=0):
    """margin.md 3, one bracket: LP = (WB - TMM + UPNL + cum - s Q EP) / (Q mmr - s Q); None when not above 0."""
    price = (WB - TMM + UPNL + cum - s * Q * EP) / (Q * mmr - s * Q)
    return price if price > 0 else None


def liquidation_price_of_table(s, Q, EP, WB, table):
    """margin.md 3: of the brackets' answers, the one whose notional lies in its own bracket (continuous tables)."""
    for row in table:
        price = liquidation_price(s, Q, EP, WB, mmr=row[1], cum=row[2])
        if price is not None and bracket(Q * price, table) == row:
            return price
    return None


def position_surplus(s, Q, EP, WB, price, table):
    """Equity less maintenance of one linear position at a price."""
    return WB + s * Q * (price - EP) - maintenance(Q * price, table)


def inverse_surplus(s, value, EP, WB, price, table):
    """Equity less maintenance in coin of inverse contracts worth `value` in USD, at a price."""
    return WB + s * value * (1 / EP - 1 / price) - maintenance(value / price, table)


def surplus(cash, legs, prices):
    """Equity less maintenance of a wallet; a leg is `(position, weight, is_margined, table)`."""
    total = cash
    for (position, weight, is_margined, table), price in zip(legs, prices, strict=True):
        total += weight * position * price
        if is_margined:
            total -= maintenance(abs(position) * price, table)
    return total


def surplus_on_path(cash, legs, prices_from, prices_to, path_frac):
    """The same at a point of the straight path from one vector of prices to another."""
    between = [a + path_frac * (b - a) for a, b in zip(prices_from, prices_to, strict=True)]
    return surplus(cash, legs, between)


def scan_crossing(cash, legs, prices_from, prices_to, *, steps):
    """First point of a path at which a wallet is short, by looking at `steps` + 1 points and then halving.

    None when none of the points is; a dip between two neighbours is not seen.
    """

    def is_short(path_frac):
        return surplus_on_path(cash, legs, prices_from, prices_to, path_frac) < 0

    if is_short(0.0):
        return 0.0
    for step in range(1, steps + 1):
        low, high = (step - 1) / steps, step / steps
        if is_short(high):
            for _ in range(60):
                middle = (low + high) / 2
                low, high = (low, middle) if is_short(middle) else (middle, high)
            return high
    return None
