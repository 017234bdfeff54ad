"""The kinds of series a market folder holds: their columns with units, their key, and where their files lie.

==============  ======================================================================================================
series          what one row says
==============  ======================================================================================================
spot, perp      a bar of trades; ``ts`` is its open, ``volume`` in base units
future          a bar of a dated future, or a price alone (``close``); symbol ``BASE-QUOTE-YYYYMMDD``
mark, index     a bar of the venue's margining price, of the spot composite behind it
premium         a bar of the perp's premium over the index, as a fraction; may be negative
funding         one settlement: ``rate`` as a fraction of notional, > 0 when longs pay
predicted       the venue's estimate, at ``ts``, of the rate that will be settled at ``settlement_ts``
borrow          the simple annual rate for borrowing a coin (symbol: the coin) from ``ts`` on
quote_usd       USD per unit of a quote currency (symbol: the currency)
lst             what one liquid-staking token redeems for, in the coin staked
lending         indices (and rates) of one reserve of a lending protocol, below ``onchain/<protocol>/``
gas             gas prices of a chain, below ``onchain/gas/``
quotes          best bid and ask, quantities in the venue's unit
trades          one trade of the public tape, quantity in the venue's unit
book            one level of a snapshot of the order book; ``level`` 0 is the best, ``side`` is ``b`` or ``a``
book_updates    one change of the book; a quantity of 0 removes the level
funding_terms   interval, cap and floor of a perp's funding, in force from ``ts`` on
==============  ======================================================================================================

A file is ``<series>/<venue>/<symbol>.parquet``, with the kind of instrument after the series for ``quotes``,
``trades``, ``book`` and ``book_updates``; a folder of that name without the suffix holds a series in parts.
"""

from dataclasses import dataclass
from typing import Any

import polars as pl

from basis_bt.core.instruments import Instrument

TS = pl.Datetime("us", "UTC")
PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesKind:
    """Columns of one kind of series, in the order they are written, with their types.

    ``key``: the columns that are unique together; empty where rows may repeat. ``of``: the kind of instrument it
    belongs to, or ``""`` where the path says (``by_kind``) or there is none. ``folder``: where it lies if not in a
    folder of its own name. ``positive`` and ``not_negative``: columns whose values must be so.
    """

    required: dict[str, Any]
    optional: dict[str, Any]
    key: tuple[str, ...] = ("ts",)
    of: str = ""
    by_kind: bool = False
    is_bars: bool = False
    folder: str = ""
    positive: tuple[str, ...] = ()
    not_negative: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, Any]:
        """All columns, required ones first."""
        return self.required | self.optional


_F, _I32, _I64 = pl.Float64(), pl.Int32(), pl.Int64()
_OHLC = {"ts": TS, **dict.fromkeys(PRICES, _F)}
_OPEN_CLOSE = {"ts": TS, "open": _F, "close": _F}
_HIGH_LOW = {"high": _F, "low": _F}
_PRICE_BARS: dict[str, Any] = {"is_bars": True, "positive": PRICES}
_TRADE_BARS: dict[str, Any] = {**_PRICE_BARS, "not_negative": ("volume",)}
SERIES: dict[str, SeriesKind] = {
    "spot": SeriesKind(required=_OHLC, optional={"volume": _F}, of="spot", **_TRADE_BARS),
    "perp": SeriesKind(required=_OHLC, optional={"volume": _F}, of="perp", **_TRADE_BARS),
    "future": SeriesKind(
        required={"ts": TS, "close": _F}, optional={"open": _F, **_HIGH_LOW, "volume": _F, "kind": pl.String()},
        of="future", positive=PRICES, not_negative=("volume",),
    ),
    "mark": SeriesKind(required=_OPEN_CLOSE, optional=_HIGH_LOW, of="perp", **_PRICE_BARS),
    "index": SeriesKind(required=_OPEN_CLOSE, optional=_HIGH_LOW, of="perp", **_PRICE_BARS),
    "premium": SeriesKind(required=_OPEN_CLOSE, optional=_HIGH_LOW, of="perp", is_bars=True),
    "funding": SeriesKind(
        required={"ts": TS, "rate": _F}, optional={"interval_hours": _I32, "mark_price": _F, "known_at": TS}, of="perp",
        positive=("interval_hours", "mark_price"),
    ),
    "predicted": SeriesKind(required={"ts": TS, "rate": _F}, optional={"settlement_ts": TS}, of="perp"),
    "borrow": SeriesKind(required={"ts": TS, "rate_apr": _F}, optional={}, not_negative=("rate_apr",)),
    "quote_usd": SeriesKind(required={"ts": TS, "close": _F}, optional={"open": _F, **_HIGH_LOW}, positive=PRICES),
    "lst": SeriesKind(required={"ts": TS, "ratio": _F}, optional={}, positive=("ratio",)),
    "lending": SeriesKind(
        required={"ts": TS, "liquidity_index": _F, "variable_borrow_index": _F},
        optional={"supply_rate": _F, "variable_borrow_rate": _F, "oracle_price_usd": _F},
        folder="onchain",
        positive=("liquidity_index", "variable_borrow_index", "oracle_price_usd"),
    ),
    "gas": SeriesKind(
        required={"ts": TS, "gas_price_avg_gwei": _F}, optional={}, folder="onchain",
        not_negative=("gas_price_avg_gwei",),
    ),
    "quotes": SeriesKind(
        required={"ts": TS, "bid": _F, "bid_qty": _F, "ask": _F, "ask_qty": _F}, optional={}, by_kind=True,
        positive=("bid", "ask"), not_negative=("bid_qty", "ask_qty"),
    ),
    "trades": SeriesKind(
        required={"ts": TS, "trade_id": pl.String(), "price": _F, "qty": _F, "buyer_is_maker": pl.Boolean()},
        optional={},
        key=("ts", "trade_id"),
        by_kind=True,
        positive=("price", "qty"),
    ),
    "book": SeriesKind(
        required={"ts": TS, "side": pl.String(), "level": _I32, "price": _F, "qty": _F},
        optional={},
        key=("ts", "side", "level"),
        by_kind=True,
        positive=("price",),
        not_negative=("qty",),
    ),
    "book_updates": SeriesKind(
        required={"ts": TS, "is_snapshot": pl.Boolean(), "side": pl.String(), "price": _F, "qty": _F},
        optional={},
        key=(),
        by_kind=True,
        positive=("price",),
        not_negative=("qty",),
    ),
    "funding_terms": SeriesKind(
        required={"ts": TS, "interval_hours": _I32, "cap": _F, "floor": _F}, optional={}, of="perp"
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """One series of a market folder, e.g. ``SeriesKey("funding", "okx", "BTC-USDT")``.

    ``kind`` is the kind of instrument for the series whose path names it (``quotes``, ``trades``, ``book``, ...).
    """

    series: str
    venue: str
    symbol: str
    kind: str = ""

    @classmethod
    def of(cls, instrument: Instrument, series: str) -> "SeriesKey":
        """The key of one series of an instrument."""
        return cls(series, instrument.venue, instrument.symbol, instrument.kind if SERIES[series].by_kind else "")

    @property
    def spec(self) -> SeriesKind:
        """Columns and key of this kind of series."""
        return SERIES[self.series]

    @property
    def stem(self) -> str:
        """Path below the market folder, without the suffix."""
        return "/".join(part for part in (self.spec.folder or self.series, self.kind, self.venue, self.symbol) if part)

    @property
    def path(self) -> str:
        """Path of the file below the market folder."""
        return f"{self.stem}.parquet"

    @property
    def instrument(self) -> str | None:
        """``kind:venue:symbol`` of what the series is about; None for rates of coins, protocols and the like."""
        kind = self.kind or self.spec.of
        return f"{kind}:{self.venue}:{self.symbol}" if kind else None

    def __str__(self) -> str:
        return self.stem


def key_of_path(path: str) -> SeriesKey | None:
    """The key of a path below a market folder (``funding/okx/BTC-USDT.parquet``), None if it is no series."""
    parts = path.removesuffix(".parquet").split("/")
    series = parts[0]
    if series == "onchain" and len(parts) == 3:
        series = "gas" if parts[1] == "gas" else "lending"
    spec = SERIES.get(series)
    if spec is None or len(parts) != (4 if spec.by_kind else 3):
        return None
    return SeriesKey(series, parts[-2], parts[-1], parts[1] if spec.by_kind else "")
