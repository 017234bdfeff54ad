"""How the three venues differ where an account feels it, and the contracts they are simulated with."""

from collections.abc import Mapping
from dataclasses import dataclass

from basis_bt.live.venue import Contract


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueRules:
    """What one venue does that another does not.

    Parameters
    ----------
    wallets : which wallet holds the cash of ``spot``, ``perp`` and ``funding``; unified accounts name one twice
    is_id_unique_for_ever : else a client id is free again as soon as its order is no longer open
    market_band_frac : a market order is an IOC limit this far from the mid (None: it walks the whole book)
    minimum_spares_reduce_only : reduce-only orders may be below the minimum notional
    recv_window_ms, ahead_ms : a request may be this old, and this far ahead of the venue's clock
    post_only_is_refused : else it is accepted and cancelled
    """

    wallets: Mapping[str, str]
    is_id_unique_for_ever: bool
    market_band_frac: float | None
    minimum_spares_reduce_only: bool
    recv_window_ms: int
    ahead_ms: int
    post_only_is_refused: bool


RULES: Mapping[str, VenueRules] = {
    "binance": VenueRules(
        wallets={"spot": "spot", "perp": "perp", "funding": "funding"}, is_id_unique_for_ever=False,
        market_band_frac=None, minimum_spares_reduce_only=True, recv_window_ms=10_000, ahead_ms=1_000,
        post_only_is_refused=True,
    ),
    "bybit": VenueRules(
        wallets={"spot": "unified", "perp": "unified", "funding": "funding"}, is_id_unique_for_ever=True,
        market_band_frac=0.05, minimum_spares_reduce_only=True, recv_window_ms=5_000, ahead_ms=1_000,
        post_only_is_refused=False,
    ),
    "okx": VenueRules(
        wallets={"spot": "trading", "perp": "trading", "funding": "funding"}, is_id_unique_for_ever=True,
        market_band_frac=None, minimum_spares_reduce_only=True, recv_window_ms=30_000, ahead_ms=30_000,
        post_only_is_refused=False,
    ),
}  # fmt: skip

#: of any other venue
STANDARD = VenueRules(
    wallets={"spot": "trading", "perp": "trading", "funding": "funding"}, is_id_unique_for_ever=True,
    market_band_frac=None, minimum_spares_reduce_only=True, recv_window_ms=5_000, ahead_ms=1_000,
    post_only_is_refused=True,
)  # fmt: skip

#: (venue, kind, base): tick, lot_base, min_base, min_notional_usd, contract_base; the base "" stands for any other
_SIZES: Mapping[tuple[str, str, str], tuple[float, float, float, float, float]] = {
    ("binance", "spot", "BTC"): (0.01, 0.00001, 0.00001, 5.0, 1.0),
    ("binance", "spot", ""): (0.01, 0.0001, 0.0001, 5.0, 1.0),
    ("binance", "perp", "BTC"): (0.1, 0.001, 0.001, 100.0, 1.0),
    ("binance", "perp", ""): (0.01, 0.001, 0.001, 20.0, 1.0),
    ("bybit", "spot", "BTC"): (0.1, 0.000001, 0.000011, 5.0, 1.0),
    ("bybit", "spot", ""): (0.01, 0.00001, 0.00001, 5.0, 1.0),
    ("bybit", "perp", "BTC"): (0.1, 0.001, 0.001, 5.0, 1.0),
    ("bybit", "perp", ""): (0.01, 0.01, 0.01, 5.0, 1.0),
    ("okx", "spot", "BTC"): (0.1, 0.00000001, 0.00001, 0.0, 1.0),
    ("okx", "spot", ""): (0.01, 0.000001, 0.0001, 0.0, 1.0),
    ("okx", "perp", "BTC"): (0.1, 0.0001, 0.0001, 0.0, 0.01),
    ("okx", "perp", ""): (0.01, 0.001, 0.001, 0.0, 0.1),
}
#: (venue, kind): taker and maker fee of an account without volume, bps
_FEES: Mapping[tuple[str, str], tuple[float, float]] = {
    ("binance", "spot"): (10.0, 10.0),
    ("binance", "perp"): (5.0, 2.0),
    ("bybit", "spot"): (10.0, 10.0),
    ("bybit", "perp"): (5.5, 2.0),
    ("okx", "spot"): (10.0, 8.0),
    ("okx", "perp"): (5.0, 2.0),
}


def standard_contract(instrument: str) -> Contract:
    """The contract of ``spot:`` or ``perp:`` ``venue:BASE-QUOTE`` with the venue's usual sizes and base fees."""
    kind, venue, pair = instrument.split(":")
    base, quote = pair.split("-")
    sizes = _SIZES.get((venue, kind, base), _SIZES[venue, kind, ""])
    tick, lot_base, min_base, min_notional_usd, contract_base = sizes
    taker_fee_bps, maker_fee_bps = _FEES[venue, kind]
    return Contract(
        instrument=instrument,
        venue=venue,
        symbol=f"{base}/{quote}" if kind == "spot" else f"{base}/{quote}:{quote}",
        base=base,
        quote=quote,
        is_margined=kind != "spot",
        lot_base=lot_base,
        tick=tick,
        min_base=min_base,
        min_notional_usd=min_notional_usd,
        contract_base=contract_base,
        taker_fee_bps=taker_fee_bps,
        maker_fee_bps=maker_fee_bps,
        is_fee_in_base=kind == "spot",
        is_trading=True,
    )


def standard_contracts(venue: str, bases: tuple[str, ...] = ("BTC",), quote: str = "USDT") -> list[Contract]:
    """Spot and perpetual of each base."""
    return [standard_contract(f"{kind}:{venue}:{base}-{quote}") for base in bases for kind in ("spot", "perp")]
