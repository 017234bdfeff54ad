"""What legs are beside spot and linear perps, as kernels take it; and what a configuration must not ask of them."""

import numpy as np

from basis_bt.backtest.parameters import borrowed_legs, by_leg, pays_gas, wallets_of
from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import ON_CHAIN
from basis_bt.core.models import Config
from basis_bt.core.rulebook import borrow_rule, delivery_rule, is_coin_margined
from basis_bt.core.units import HOURS_PER_YEAR, from_us, parse_instant
from basis_bt.frames.panel import Panel
from basis_bt.kernels.structs import Contracts


def check_contracts(config: Config) -> None:
    """Refuse what has no meaning.

    Raises
    ------
    ConfigError
        For a reversed combo with a leg that can only be held one way, or a roll by a basis against nothing.
    """
    for index, one in enumerate(config.combo.legs):
        if one.roll_basis_apr is not None and one.parsed.is_chain and index == config.combo.reference:
            raise ConfigError(
                f"roll_basis_apr of {one.instrument}: no other leg tells what its basis is",
                fix="add a spot leg, or roll by days alone",
            )
    for leg in config.combo.instruments:
        if config.rule.reverse and leg.kind in ON_CHAIN:
            raise ConfigError(
                f"rule.reverse: {leg} cannot be traded the other way round", fix="set rule.reverse = false"
            )


def contract_params(
    config: Config, panel: Panel, *, adl_share: np.ndarray | None = None
) -> tuple[Contracts, list[str]]:
    """The terms of a panel in dollars as arrays, empty where nothing of them is on, and sentences for the manifest.

    Raises
    ------
    ConfigError
        If spot can be short without a borrow rate, legs of one wallet have several currencies, or gas has no price.
    """
    terms = panel.terms
    n_bars, n_legs = panel.open_price.shape
    none = np.empty((0, n_legs))
    flags = [*terms.flags]
    inverse = terms.is_inverse if terms.rate_open is not None else np.zeros(n_legs, dtype=np.bool_)
    rates = (terms.rate_open, terms.rate_close, terms.rate_before) if inverse.any() else (none, none, none)
    borrow, period, opening, borrow_flags = _borrow(config, panel)
    fee = np.array([_delivery_fee_bps(panel, leg) for leg in range(n_legs)])
    bar, price, rate = deliveries(panel, config.combo.reference)
    roll = none if terms.old_open is None else terms.old_open
    unknown = sorted({*terms.quotes} - {"USD"}) if terms.quote_usd is None else []
    if unknown:
        flags.append(f"{', '.join(unknown)} counts as one dollar: no quote_usd series is named in data.series")
    if any(one.kind == "lending" for one in panel.instruments) and not config.wallets.is_tested:
        flags.append('the health of loans is not tested: set wallets.margin = "venue"')
    contracts = Contracts(
        is_inverse=inverse,
        rate_open=np.ascontiguousarray(rates[0]),
        rate_close=np.ascontiguousarray(rates[1]),
        rate_before=np.ascontiguousarray(rates[2]),
        wallet_rate=_wallet_rates(config, panel),
        bar_hours=panel.bar_hours,
        borrow_apr=borrow,
        borrow_period_hours=period,
        borrow_opening_periods=opening,
        cash_yield_frac=config.wallets.cash_yield_apr * panel.bar_hours / HOURS_PER_YEAR,
        growth=none if terms.growth is None else terms.growth,
        delivery_bar=bar,
        delivery_price=price,
        delivery_rate=rate,
        delivery_fee_bps=fee,
        is_roll=~np.isnan(roll),
        old_open=np.ascontiguousarray(roll),
        adl_share=none if adl_share is None else adl_share,
        gas_usd=_gas(config, panel),
        loan_of=_loans(panel),
        loan_threshold=config.wallets.loan_threshold,
        loan_bonus=config.wallets.loan_bonus,
    )
    return contracts, flags + borrow_flags


def _borrow(config: Config, panel: Panel) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Rates ``(n_bars, n_legs)`` and the venue's periods of spot that can be short; periods of 0 for the rest."""
    n_bars, n_legs = panel.open_price.shape
    on, given = parse_instant(config.data.start).date(), config.costs.borrow_apr
    rates, period, opening = np.zeros((n_bars, n_legs)), np.zeros(n_legs), np.zeros(n_legs)
    flags = []
    for leg in borrowed_legs(config):
        instrument, loaded = panel.instruments[leg], panel.terms.borrow_apr
        if not np.isnan(loaded[:, leg]).all():
            rates[:, leg] = loaded[:, leg]
        elif given is not None:
            rates[:, leg] = by_leg(given, instrument, key="costs.borrow_apr")
            flags.append(f"{instrument}: borrowed at a fixed {rates[0, leg]:.2%} a year; no borrow series is loaded")
        else:
            raise ConfigError(
                f"{instrument} can be short and has no borrow rate",
                fix=f"fetch borrow/{instrument.venue}/{instrument.base}.parquet, or set costs.borrow_apr = 0.05",
            )
        rule = borrow_rule(instrument.venue, on=on)
        period[leg], opening[leg] = rule.period_hours, rule.opening_periods
    return rates, period, opening, flags


def _wallet_rates(config: Config, panel: Panel) -> np.ndarray:
    """Dollars per unit of the currency of each wallet, ``(n_bars, n_wallets)``; no rows where all are dollars.

    Raises
    ------
    ConfigError
        If the legs of one wallet have several quote currencies.
    """
    wallet_of, rates = wallets_of(config), panel.terms.quote_usd
    n_wallets = max(wallet_of) + 1
    if rates is None:
        return np.empty((0, n_wallets))
    out = np.ones((panel.n_bars, n_wallets))
    for wallet in range(n_wallets):
        own = [
            leg
            for leg, instrument in enumerate(panel.instruments)
            if wallet_of[leg] == wallet and not is_coin_margined(instrument)
        ]
        quotes = {panel.terms.quotes[leg] for leg in own}
        if len(quotes) > 1:
            raise ConfigError(
                f"a wallet holds one currency, and these legs share one: {', '.join(sorted(quotes))}",
                fix='set wallets.mode = "segregated", or leave quote_usd out of data.series',
            )
        if own:
            out[:, wallet] = rates[:, own[0]]
    return out


def deliveries(panel: Panel, reference: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bar, price in dollars and dollars per contract dollar of each leg's delivery; bar -1 for none in the run.

    Without a price of its own a contract is delivered at the open of the reference leg.
    """
    terms, n_legs = panel.terms, len(panel.instruments)
    bar = np.full(n_legs, -1, dtype=np.int64)
    price, rate = np.zeros((2, n_legs))
    for leg in range(n_legs):
        is_inverse = terms.is_inverse[leg] and leg != reference
        if not 0 <= terms.expiry_us[leg] <= panel.ts_us[-1]:
            continue
        bar[leg] = np.searchsorted(panel.ts_us, terms.expiry_us[leg])
        coin = panel.open_price[bar[leg], reference]
        quote_usd = 1.0 if terms.quote_usd is None else terms.quote_usd[bar[leg]]
        rates = np.broadcast_to(quote_usd, n_legs)
        raw = terms.delivery_price[leg]
        raw = coin / rates[reference] if np.isnan(raw) else raw
        rate[leg] = coin / raw if is_inverse else rates[leg]
        price[leg] = coin if is_inverse else raw * rates[leg]
    return bar, price, rate


def _delivery_fee_bps(panel: Panel, leg: int) -> float:
    expiry_us = int(panel.terms.expiry_us[leg])
    if not 0 <= expiry_us <= panel.ts_us[-1]:
        return 0.0
    return delivery_rule(panel.instruments[leg], on=from_us(expiry_us).date()).fee_bps


def _gas(config: Config, panel: Panel) -> np.ndarray:
    """Gas of one fill in dollars ``(n_bars, n_legs)``; no rows without legs on a chain."""
    on_chain = np.array([leg.kind in ON_CHAIN for leg in panel.instruments])
    costs = config.costs
    if not pays_gas(config):
        return np.empty((0, len(on_chain)))
    if costs.gas_gwei is None and panel.terms.gas_gwei is None:
        raise ConfigError(
            "costs.gas_gwei: fills on a chain pay gas, and no price of it is loaded",
            fix="fetch onchain/gas/ethereum.parquet, or set costs.gas_gwei",
        )
    gwei = np.full(panel.n_bars, costs.gas_gwei) if costs.gas_gwei is not None else panel.terms.gas_gwei
    assert gwei is not None
    coins = [leg.base for leg in panel.instruments]
    ether = next((leg for leg, coin in enumerate(coins) if coin in ("ETH", "WETH")), None)
    if ether is None:
        raise ConfigError(
            "costs.gas_gwei: gas is paid in ETH, and no leg has its price",
            fix="set costs.gas_gwei = 0",
        )
    usd = costs.gas_units * gwei * 1e-9 * panel.open_price[:, ether]
    return np.where(on_chain[None, :], usd[:, None], 0.0)


def _loans(panel: Panel) -> np.ndarray:
    """The loan each leg belongs to: one per lending protocol; -1 for other legs."""
    venues = [leg.venue if leg.kind == "lending" else "" for leg in panel.instruments]
    names = [venue for venue in dict.fromkeys(venues) if venue]
    return np.array([names.index(venue) if venue else -1 for venue in venues], dtype=np.int64)
