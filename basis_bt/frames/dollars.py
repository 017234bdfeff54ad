"""A panel in dollars: quote currencies at their rates, inverse contracts at the price of their coin."""

import dataclasses

import numpy as np

from basis_bt.core.instruments import Combo
from basis_bt.frames.panel import Panel
from basis_bt.frames.settlements import Settlements


def in_dollars(panel: Panel, combo: Combo, *, depeg: dict[str, np.ndarray] | None = None) -> Panel:
    """The panel with every price of its arrays in dollars; ``frame``, which signals see, is left as it is.

    An inverse contract is a linear one whose price is that of the coin and whose currency, the contract dollar, is
    worth ``S / P``: its opens and closes become those of the reference leg, its other prices are multiplied by that
    worth at the open, and ``terms`` carries the worth at opens, closes and, at a roll, at the old contract's open.

    Parameters
    ----------
    panel, combo : what was loaded, and its legs
    depeg : factors on the dollars per quote currency, by quote ``(n_bars,)``

    Returns
    -------
    The same panel where every quote is a dollar and no leg is inverse.
    """
    terms, reference = panel.terms, combo.reference
    quote_usd = _quote_rates(panel, depeg or {})
    inverse = terms.is_inverse.copy()
    inverse[reference] = False  # its own price is that of the coin, and a contract dollar of it is a dollar
    if quote_usd is None and not terms.is_inverse.any():
        return panel
    rates = np.ones_like(panel.open_price) if quote_usd is None else quote_usd
    opens, closes = panel.open_price * rates, panel.close_price * rates
    coin_open, coin_close = opens[:, [reference]], closes[:, [reference]]
    rate_open = np.where(inverse, coin_open / panel.open_price, rates)
    rate_close = np.where(inverse, coin_close / panel.close_price, rates)
    rate_before, old_open = rate_open, terms.old_open
    if old_open is not None:
        rate_before = np.where(inverse & ~np.isnan(old_open), coin_open / old_open, rate_open)
        old_open = np.where(inverse, np.where(np.isnan(old_open), np.nan, coin_open), old_open * rates)
    of_oracle = [one.kind == "lending" and source == "mark"
                 for one, source in zip(panel.instruments, panel.margin_source, strict=True)]  # fmt: skip
    margin_rate = np.where(of_oracle, 1.0, rate_open)  # an oracle's prices are dollars
    arrays = {
        "open_price": np.where(inverse, coin_open, opens),
        "close_price": np.where(inverse, coin_close, closes),
        **{
            name: getattr(panel, name) * (margin_rate if name.startswith("margin") else rate_open)
            for name in ("high_price", "low_price", "margin_open", "margin_high", "margin_low")
        },
    }
    for array in arrays.values():
        array.flags.writeable = False
    return dataclasses.replace(
        panel,
        **arrays,
        settlements={leg: _in_dollars(part, rates[:, leg], panel) for leg, part in panel.settlements.items()},
        terms=dataclasses.replace(
            terms, quote_usd=quote_usd, old_open=old_open,
            rate_open=rate_open, rate_close=rate_close, rate_before=rate_before,
        ),
    )  # fmt: skip


def _quote_rates(panel: Panel, depeg: dict[str, np.ndarray]) -> np.ndarray | None:
    quotes = panel.terms.quotes
    if panel.terms.quote_usd is None and not set(quotes) & depeg.keys():
        return None
    rates = np.ones_like(panel.open_price) if panel.terms.quote_usd is None else panel.terms.quote_usd
    return np.column_stack([rates[:, leg] * depeg.get(quote, 1.0) for leg, quote in enumerate(quotes)])


def _in_dollars(part: Settlements, rate: np.ndarray, panel: Panel) -> Settlements:
    bar = np.clip(-(-(part.paid_us - panel.ts_us[0]) // panel.bar_us), 0, panel.n_bars - 1)
    return dataclasses.replace(part, mark_price=part.mark_price * rate[bar])
