"""A published backtest of a trend-gated carry, in plain Python: its rule, and its accounts beside the right ones.

Long BTC, short the same in the coin-margined perp of Binance, 8 h bars; the source and its results are named in
``docs/strategies.md``. Rows are those of its file, whose stamps are bar closes and whose average contains the close of
its own day.
"""

import csv
from pathlib import Path
from typing import NamedTuple

CAPITAL_USD = 1_000_000.0
SPOT_FEE, PERP_FEE = 0.00075, 0.00035
IN_A_ROW = 9


class Row(NamedTuple):
    """One bar: its stamp (the close), prices, the average the file gives, and the rate settled at the stamp."""

    stamp: str
    spot_open: float
    spot_close: float
    average: float
    perp_open: float
    perp_close: float
    funding_rate: float


def read_rows(path: Path) -> list[Row]:
    """The rows of the published file."""
    names = ("Open_spot", "Close_spot", "MA120", "Open_futures", "Close_futures", "Funding Rate")
    with path.open(newline="") as file:
        return [Row(line["Timestamp"], *(float(line[name]) for name in names)) for line in csv.DictReader(file)]


def trades(rows: list[Row], averages: list[float | None], *, latch: bool) -> list[tuple[int, int | None]]:
    """Rows at whose opens the rule enters and leaves; None for a trade still open.

    With ``latch``, nine closes beyond the average arm the rule, and the first rate of the right sign from then on acts,
    even if price has come back; without, both must hold at once.
    """
    out: list[tuple[int, int | None]] = []
    above = below = 0
    armed, entered = False, None
    for k, (row, average) in enumerate(zip(rows, averages, strict=True)):
        above = above + 1 if average is not None and row.spot_close > average else 0
        below = below + 1 if average is not None and row.spot_close < average else 0
        fills_here = entered == k or (len(out) > 0 and out[-1][1] == k)
        if fills_here or k + 1 == len(rows):
            continue  # in a bar it fills in, the source only goes on counting closes
        run, paid = (above, row.funding_rate > 0) if entered is None else (below, row.funding_rate < 0)
        armed = (armed and latch) or run >= IN_A_ROW
        if armed and paid:
            armed = False
            if entered is None:
                entered = k + 1
            else:
                out.append((entered, k + 1))
                entered = None
    return [*out, (entered, None)] if entered is not None else out


def averages_of_days_over(rows: list[Row]) -> list[float | None]:
    """For each row the file's average as it stood when the last day ended: the one a reader of that time had."""
    out: list[float | None] = []
    known = None
    for row in rows:
        if row.stamp.endswith("00:00:00"):
            known = row.average
        out.append(known)
    return out


def published_equity(rows: list[Row], held: list[tuple[int, int | None]]) -> float:
    """The published accounts, fixed capital: funding on the coins at each close, entry at spot and exit at perp opens.

    A coin-margined short differs in three things: its notional is a fixed number of dollars, not of coins; it receives
    the rate settled at the end of the bar of entry as well; and the price gains of the two legs are not nil.
    """
    pnl_usd = 0.0
    for entry, leave in held:
        coins = CAPITAL_USD / rows[entry].spot_open * (1 - SPOT_FEE)
        margin = coins * (1 - PERP_FEE)
        last = len(rows) - 1 if leave is None else leave
        end_price = rows[last].spot_close if leave is None else rows[last].perp_open
        paid = rows[entry + 1 : last + 1] if leave is None else rows[entry + 1 : last]
        pnl_usd += sum(margin * row.funding_rate * row.spot_close * (1 - SPOT_FEE) for row in paid)
        pnl_usd -= CAPITAL_USD * (SPOT_FEE + (1 - SPOT_FEE) * PERP_FEE)
        pnl_usd -= margin * end_price * (PERP_FEE + (1 - PERP_FEE) * SPOT_FEE)
    return CAPITAL_USD + pnl_usd


def dollar_short_equity(rows: list[Row], held: list[tuple[int, int | None]]) -> float:
    """The same trades with a short of a fixed number of dollars, all entered with the same capital.

    One coin long and ``perp price`` dollars short: funding is those dollars times the rate, the settlement at the open
    of the bar of exit included, that of entry not; the price gain is how spot over perp has changed; the fee of the
    exit is on the dollars, not on the coins.
    """
    pnl_usd = 0.0
    for entry, leave in held:
        coins = CAPITAL_USD / rows[entry].spot_open
        face_usd = coins * rows[entry].perp_open
        last = len(rows) - 1 if leave is None else leave
        spot, perp = (
            (rows[last].spot_close, rows[last].perp_close)
            if leave is None
            else (rows[last].spot_open, rows[last].perp_open)
        )
        pnl_usd += face_usd * sum(row.funding_rate for row in rows[entry:last])
        pnl_usd += face_usd * (spot / perp - rows[entry].spot_open / rows[entry].perp_open)
        pnl_usd -= coins * rows[entry].spot_open * (SPOT_FEE + PERP_FEE)
        pnl_usd -= 0.0 if leave is None else coins * spot * SPOT_FEE + face_usd * (spot / perp) * PERP_FEE
    return CAPITAL_USD + pnl_usd
