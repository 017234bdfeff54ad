"""Where a size is cheapest now: the books of several venues, with their fees and how long they take to answer."""

import asyncio
from collections.abc import Mapping

from basis_bt.core.instruments import Instrument
from basis_bt.core.rulebook import fee_bps
from basis_bt.core.units import from_us
from basis_bt.live.amounts import Denomination, convert
from basis_bt.live.clock import Clock
from basis_bt.live.routing import Route, best_venue
from basis_bt.live.venue import Book, Venue

IN_BASE = Denomination(contract_base=1.0)


async def quote(
    instruments: Mapping[str, str],
    venues: Mapping[str, Venue],
    *,
    side: int,
    usd: float,
    day_volatility_pct: float,
    clock: Clock,
) -> Route:
    """Ask all venues at once and compare; latencies are those of these questions, fees those of the rulebook today.

    Parameters
    ----------
    instruments : by venue, e.g. ``{"bybit": "perp:bybit:BTC-USDT"}``; the venues are open
    usd : what is to be bought or sold, turned into base at the mean of the mids

    Raises
    ------
    VenueDown
        If a venue does not answer.
    ConfigError
        If the rulebook knows no fee of one.
    """

    async def asked(name: str) -> tuple[Book, float]:
        begun_s = clock.monotonic_s()
        return await venues[name].book(instruments[name]), 1e3 * (clock.monotonic_s() - begun_s)

    found = dict(zip(instruments, await asyncio.gather(*map(asked, instruments)), strict=True))
    books = {name: book for name, (book, _) in found.items()}
    mid = sum(book.mid for book in books.values()) / len(books)
    today = from_us(clock.now_us()).date()
    return best_venue(
        books,
        side=side,
        quantity_base=convert(usd, source="usd", target="base", price=mid, denomination=IN_BASE),
        fees_bps={name: fee_bps(Instrument.parse(one), liquidity="taker", on=today, tier=0)
                  for name, one in instruments.items()},
        latency_ms={name: ms for name, (_, ms) in found.items()},
        day_volatility_pct=day_volatility_pct,
    )  # fmt: skip
