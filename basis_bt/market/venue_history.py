"""How each venue serves its history: which kinds, in which direction, how much a page, and how far back."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from basis_bt.core.errors import ConfigError

_ALL = ("spot", "perp", "mark", "index", "premium", "funding")


@dataclass(frozen=True, slots=True, kw_only=True)
class Venue:
    """How a venue serves history: ``newest_first`` pages run backwards from an end, the others forwards from a start.

    ``window_days``: the longest span it takes in one question, so that an empty page proves nothing of the rest.
    ``bars_kept``, ``funding_days_kept``: what the venue still serves, counted from now.
    """

    ccxt_id: str
    quote: str = "USDT"
    kinds: tuple[str, ...] = _ALL
    types: tuple[str, ...]
    newest_first: bool = False
    window_days: int | None = None
    bars_per_page: int = 1000
    price_bars_per_page: int = 1000
    funding_per_page: int
    bars_kept: int | None = None
    funding_days_kept: int | None = None

    def per_page(self, kind: str) -> int:
        """Rows asked for in one page of a kind of series."""
        if kind == "funding":
            return self.funding_per_page
        return self.bars_per_page if kind in ("spot", "perp") else self.price_bars_per_page

    def window_ms(self, kind: str, bar_ms: int) -> int:
        """Time that the smallest of its pages spans, settlements taken at their longest usual distance."""
        rows = self.funding_per_page if kind == "funding" else min(self.per_page(kind), self.price_bars_per_page)
        span_ms = rows * (8 * 3_600_000 if kind == "funding" else bar_ms)
        return min(span_ms, self.window_days * 86_400_000) if self.window_days else span_ms


VENUES: dict[str, Venue] = {
    "binance": Venue(ccxt_id="binance", types=("spot", "linear"), funding_per_page=1000),
    "binance_cm": Venue(
        ccxt_id="binance", quote="USD", kinds=_ALL[1:], types=("inverse",), window_days=200, funding_per_page=1000
    ),
    "bybit": Venue(ccxt_id="bybit", types=("spot", "linear", "inverse"), newest_first=True, funding_per_page=200),
    "okx": Venue(
        ccxt_id="okx", kinds=("spot", "perp", "mark", "index", "funding"), types=("spot", "swap"), newest_first=True,
        bars_per_page=300, price_bars_per_page=100, funding_per_page=100, funding_days_kept=92,
    ),
    "hyperliquid": Venue(
        ccxt_id="hyperliquid", quote="USDC", kinds=("spot", "perp", "funding"), types=("spot", "swap"),
        bars_per_page=5000, funding_per_page=500, bars_kept=5000,
    ),
}  # fmt: skip


class Row(NamedTuple):
    """One bar or one settlement of a page; ``complete`` is None where the venue does not say whether a bar is over."""

    ts_ms: int
    values: tuple[float | None, ...]
    complete: bool | None = None


def nearest(word: str, words: Iterable[str], *, what: str) -> str:
    """A sentence that names what was probably meant."""
    known = sorted(words)
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"{what}: {', '.join(known[:12])}"


def venue_named(name: str) -> Venue:
    """The facts of a venue that can be downloaded from.

    Raises
    ------
    ConfigError
        If there is none of that name; the nearest is named.
    """
    if name not in VENUES:
        raise ConfigError(f"no venue {name!r} to download from", fix=nearest(name, VENUES, what="venues"))
    return VENUES[name]


def frame_minutes(name: str) -> int:
    """Minutes of a bar length written like ``15m``, ``4h``, ``1d``."""
    return int(name[:-1]) * {"m": 1, "h": 60, "d": 1440}[name[-1]]
