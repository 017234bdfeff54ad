"""``basis-bt quote``: where a size is cheapest now."""

import asyncio
from typing import TYPE_CHECKING

import click

from basis_bt.cli._output import format_option, print_frame

if TYPE_CHECKING:
    import polars as pl


@click.command("quote")
@click.argument("symbol", metavar="BASE-QUOTE")
@click.option("--kind", type=click.Choice(["spot", "perp"]), default="perp", show_default=True)
@click.option("--side", type=click.Choice(["buy", "sell"]), default="buy", show_default=True)
@click.option("--usd", default=100_000.0, show_default=True, help="Size.")
@click.option("--venues", default="binance,bybit,okx", show_default=True, help="Names, with commas.")
@click.option("--day-volatility-pct", default=2.5, show_default=True, help="What a day moves, for the cost of latency.")
@format_option
def command(symbol: str, kind: str, side: str, usd: float, venues: str, day_volatility_pct: float, shape: str) -> None:
    """Compare the all-in price of a market order over venues: their books, taker fees and latency.

    Venues are listed cheapest first; the last rows are how the size would be split over them. No keys are needed and
    nothing is sent.
    """
    names = [name.strip() for name in venues.split(",") if name.strip()]
    frame = asyncio.run(_quoted(symbol, kind, 1 if side == "buy" else -1, usd, names, day_volatility_pct))
    print_frame(frame, shape=shape)


async def _quoted(
    symbol: str, kind: str, side: int, usd: float, names: list[str], day_volatility_pct: float
) -> "pl.DataFrame":
    import dataclasses

    import polars as pl

    from basis_bt.core.errors import DataError
    from basis_bt.core.live_models import Account
    from basis_bt.live.ccxt_venue import CcxtVenue
    from basis_bt.live.client import open_account
    from basis_bt.live.clock import Clock
    from basis_bt.live.quoting import quote
    from basis_bt.live.venue import VenueDown

    clock, open_venues = Clock(), {}
    instruments = {name: f"{kind}:{name}:{symbol}" for name in names}
    try:
        for name in names:
            client = open_account(name, Account(), keys=None, timeout_s=10.0)
            open_venues[name] = CcxtVenue(name, client, clock=clock, is_public=True)
        await asyncio.gather(*(venue.open([instruments[name]]) for name, venue in open_venues.items()))
        route = await quote(
            instruments, open_venues, side=side, usd=usd, day_volatility_pct=day_volatility_pct, clock=clock
        )
    except VenueDown as error:
        raise DataError(str(error), fix="leave that venue out with --venues, or try again") from None
    finally:
        await asyncio.gather(*(venue.close() for venue in open_venues.values()))
    rows = [{"of": "all", **dataclasses.asdict(one)} for one in route.venues]
    rows += [{"of": "split", **dataclasses.asdict(one)} for one in route.split]
    return pl.DataFrame(rows)
