"""The margin test of a replay: what a backtest tests in its bars (step 5), and the end where it would liquidate."""

import math

import numpy as np

from basis_bt.backtest.prepare import Prepared
from basis_bt.core.errors import KernelError
from basis_bt.core.units import from_us
from basis_bt.kernels.liquidation import path_crossing
from basis_bt.kernels.margin_call import margin_state


class MarginTest:
    """Tests the one wallet of a pooled configuration, linear legs alone."""

    def __init__(self, prepared: Prepared) -> None:
        self._market, self._wallets, self._panel = prepared.market, prepared.parameters.wallets, prepared.panel
        self._linear = np.full(len(prepared.panel.instruments), -1.0)  # no notional is fixed in dollars

    def ratio(self, bar: int, cash_usd: float, position_base: np.ndarray) -> float | None:
        """The least margin ratio of a bar on what is held in it, None without contracts.

        Raises
        ------
        KernelError
            If the wallet would be liquidated: that is the venue's to do, and no part of the live engine.
        """
        market, wallets = self._market, self._wallets
        row = wallets.margin_row[bar]
        weight = np.where(position_base < 0.0, wallets.short_weight, wallets.weight)
        tiers = wallets.floor_usd[row], wallets.mmr[row], wallets.amount_usd[row]
        least, is_safe = margin_state(
            bar, np.array([cash_usd]), position_base, market.margin_open, market.margin_high, market.margin_low, weight,
            wallets.is_margined, self._linear, *tiers,
        )  # fmt: skip
        if not is_safe:
            start = market.margin_open[bar]
            for end in (market.margin_high[bar], market.margin_low[bar]):
                crossed = path_crossing(
                    cash_usd, position_base, weight[0], wallets.is_margined[0], self._linear, start, end, *tiers
                )
                if crossed >= 0.0:
                    raise KernelError(
                        "the wallet is liquidated in this bar, and the live engine makes no liquidations",
                        where={"ts": from_us(int(self._panel.ts_us[bar])).isoformat()},
                        fix="lower size.leverage or size.allocation, or use basis-bt run, which goes on from there",
                    )
        return None if math.isinf(least) else float(least)
