"""What legs are beside their bars: currencies, indices, borrow rates, gas, expiries, rolls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.core.instruments import Combo, Instrument
from basis_bt.core.models import Data
from basis_bt.core.rulebook import delivery_rule, is_coin_margined
from basis_bt.core.units import US_PER_DAY, US_PER_MINUTE, from_us
from basis_bt.frames.futures import Chain
from basis_bt.frames.points import latest
from basis_bt.market.files import Series, has_series
from basis_bt.market.remote import market_root
from basis_bt.market.schemas import SeriesKey

GAS = SeriesKey("gas", "gas", "ethereum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """By bar ``(n_bars, n_legs)`` where not said otherwise.

    ``quotes`` are the currencies of the legs' prices; ``quote_usd`` is the dollars per unit of each, None where nothing
    is loaded (one each);
    ``growth`` what an index grew since the bar before, None without an index; ``borrow_apr`` the rate in force at the
    stamp before (NaN: none loaded); ``gas_gwei`` ``(n_bars,)``. ``expiry_us`` ``(n_legs,)`` is the expiry of the
    contract held at the end of the run, -1 for none, ``delivery_price`` its raw price (NaN: that of the reference).
    ``old_open`` is the raw open of the contract left, NaN where none is, None without chains. ``is_inverse``
    ``(n_legs,)``. ``rate_open``, ``rate_close`` and ``rate_before`` are the dollars per contract dollar of inverse
    legs, set when the panel is put in dollars.
    """

    is_inverse: np.ndarray
    quotes: list[str]
    quote_usd: np.ndarray | None = None
    growth: np.ndarray | None = None
    borrow_apr: np.ndarray
    gas_gwei: np.ndarray | None = None
    expiry_us: np.ndarray
    delivery_price: np.ndarray
    old_open: np.ndarray | None = None
    rate_open: np.ndarray | None = None
    rate_close: np.ndarray | None = None
    rate_before: np.ndarray | None = None
    flags: list[str] = field(default_factory=list)


ReadSeries = Callable[[SeriesKey], Series]


def read_terms(
    data: Data,
    combo: Combo,
    *,
    ts_us: np.ndarray,
    chains: dict[int, Chain],
    n_warmup: int,
    borrowed_legs: Sequence[int],
    with_gas: bool,
    read: ReadSeries,
) -> tuple[Terms, list[Series]]:
    """The terms of all legs on the bars of a run, and the series they were read from: only those the run needs.

    A rate or index holds from its stamp until the next; before its first row the first one stands in, flagged.

    Parameters
    ----------
    borrowed_legs, with_gas : which legs may be short on borrowed coins, and whether fills pay for gas
    ts_us : stamps of the bars, int64 epoch microseconds
    chains : the dated legs on the rows of the frame, which begins ``n_warmup`` rows earlier
    read : reads one series, whole

    Raises
    ------
    DataError
        If a series the run names is missing or refused.
    """
    root, instruments, bar_us = market_root(data.root), combo.instruments, data.bar_us
    used: dict[str, Series] = {}
    flags: list[str] = []

    def once(key: SeriesKey) -> Series:
        if str(key) not in used:
            used[str(key)] = read(key)
        return used[str(key)]

    def values(key: SeriesKey, *columns: str, at_us: np.ndarray) -> np.ndarray:
        series = once(key)
        present = [name for name in columns if name in series.frame.columns]
        rows = series.frame.select("ts", value=pl.coalesce(present)).drop_nulls()
        stamps, held = rows["ts"].to_physical().to_numpy(), rows["value"].to_numpy()
        if not len(stamps) or stamps[0] > at_us[-1]:
            raise DataError(
                f"{key} begins after the run", where={"file": series.path}, fix="fetch it from before the run on"
            )
        if stamps[0] > at_us[0]:
            flags.append(f"{key} begins within the run: its first value stands in for the time before")
        step_us = np.median(np.diff(stamps)) if len(stamps) > 1 else 0
        if at_us[-1] - stamps[-1] > max(3 * step_us, US_PER_DAY):
            flags.append(f"{key} ends on {from_us(int(stamps[-1])).date()}: its last value stands in from then on")
        return latest(stamps, held, np.maximum(at_us, stamps[0]))

    quotes = [one.priced_by.quote or "USD" for one in combo.legs]
    quote_usd = None
    if "quote_usd" in data.series:
        quote_usd = np.ones((len(ts_us), len(instruments)))
        for leg, one in enumerate(combo.legs):
            if quotes[leg] != "USD":
                key = SeriesKey("quote_usd", one.priced_by.venue, quotes[leg])
                quote_usd[:, leg] = values(key, "open", "close", at_us=ts_us)
    growth = None
    for leg, (one, instrument) in enumerate(zip(combo.legs, instruments, strict=True)):
        indices = _index_columns(instrument, one.ratio)
        if indices:
            growth = np.zeros((len(ts_us), len(instruments))) if growth is None else growth
            index = values(SeriesKey.of(instrument, instrument.kind), *indices, at_us=ts_us)
            growth[1:, leg] = index[1:] / index[:-1] - 1.0
    borrow_apr = np.full((len(ts_us), len(instruments)), np.nan)
    for leg in borrowed_legs:
        key = SeriesKey("borrow", instruments[leg].venue, instruments[leg].base)
        if has_series(root, key):
            borrow_apr[:, leg] = values(key, "rate_apr", at_us=ts_us - bar_us)
    gas = None
    if with_gas and has_series(root, GAS):
        gas = values(GAS, "gas_price_avg_gwei", at_us=ts_us)
    expiry_us, delivery = np.full(len(instruments), -1, dtype=np.int64), np.full(len(instruments), np.nan)
    old_open = None
    for leg, chain in chains.items():
        expiry_us[leg] = chain.expiry_us[-1]
        if not np.isnan(chain.old_open).all():
            old_open = np.full((len(ts_us), len(instruments)), np.nan) if old_open is None else old_open
            old_open[:, leg] = chain.old_open[n_warmup:]
        if not ts_us[0] < expiry_us[leg] <= ts_us[-1]:
            continue
        delivered_at = _index_of(instruments[leg])
        if has_series(root, delivered_at):
            delivery[leg] = _delivery_price(instruments[leg], int(expiry_us[leg]), once(delivered_at))
        if np.isnan(delivery[leg]):
            flags.append(f"{instruments[leg]}: no index is loaded, delivery is at the open of the reference leg")
    terms = Terms(
        is_inverse=np.array([is_coin_margined(one) for one in instruments]),
        quotes=quotes,
        quote_usd=quote_usd,
        growth=growth,
        borrow_apr=borrow_apr,
        gas_gwei=gas,
        expiry_us=expiry_us,
        delivery_price=delivery,
        old_open=old_open,
        flags=list(dict.fromkeys(flags)),
    )
    return terms, list(used.values())


def _index_columns(instrument: Instrument, ratio: float) -> Sequence[str]:
    if instrument.kind == "lst":
        return ("ratio",)
    if instrument.kind == "lending":
        return ("liquidity_index",) if ratio > 0 else ("variable_borrow_index",)
    return ()


def _index_of(instrument: Instrument) -> SeriesKey:
    """The index that a dated future is delivered at."""
    return SeriesKey("index", instrument.venue, "-".join(instrument.symbol.split("-")[:2]))


def _delivery_price(instrument: Instrument, expiry_us: int, index: Series) -> float:
    """Mean of the index over the venue's minutes before an expiry; NaN where its bars do not reach them."""
    rule = delivery_rule(instrument, on=from_us(expiry_us).date())
    begin = index.frame["ts"].to_physical().to_numpy()
    end = begin + (index.step_us or 0)
    overlap = np.minimum(end, expiry_us) - np.maximum(begin, expiry_us - rule.averaging_minutes * US_PER_MINUTE)
    weight = np.maximum(overlap, 0)
    if not weight.sum():
        return float("nan")
    price = (index.frame["open"].to_numpy() + index.frame["close"].to_numpy()) / 2.0
    return float((price * weight).sum() / weight.sum())
