"""Coverage per month as one line of text, a cell a month, a quarter or a year."""

import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
DIGITS = "1234567#"
STEPS = {1: "month", 3: "quarter", 12: "year"}


def step_months(n_months: int, *, room: int = 60) -> int:
    """Months per cell, of 1, 3 and 12, so that ``n_months`` fit into ``room`` cells; 12 if nothing fits."""
    return next((step for step in STEPS if math.ceil(n_months / step) <= room), 12)


def sparkline(months: Sequence[float], *, begin: int, axis: int, end: int, step: int, ascii_only: bool = False) -> str:
    """One character per cell: the last height for full coverage alone, a dot for none, blank outside the series.

    Parameters
    ----------
    months : share covered of each month of the series
    begin : month number of its first one (year * 12 + month - 1)
    axis, end : month numbers of the line's first month, and of the one after its last
    step : months per cell
    """
    heights = DIGITS if ascii_only else BLOCKS
    cells = []
    for left in range(axis, end, step):
        inside = [months[month - begin] for month in range(left, left + step) if 0 <= month - begin < len(months)]
        if not inside:
            cells.append(" ")
            continue
        share = sum(inside) / min(step, end - left)
        level = 7 if share >= 0.99995 else max(0, min(6, round(share * 8) - 1))
        cells.append(heights[level] if share > 0 else "." if ascii_only else "·")
    return "".join(cells)
