"""What the engine is shown of the market: each bar as its open knows it, and again at its close."""

import abc
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from basis_bt.backtest.prepare import Prepared
from basis_bt.frames.settlements import MARK_SOURCES


class LegCosts(NamedTuple):
    """What a model says that an order for one leg costs in this bar; fields are those of ``CostParams``."""

    half_spread_bps: float
    bucket_usd: np.ndarray
    bucket_bps: np.ndarray
    impact_coef_bps: float
    impact_exponent: float
    fee_bps: float
    base_fee_frac: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """A funding settlement that a bar pays; fields are those of the funding table. A NaN mark is not known."""

    leg: int
    settlement_us: int
    known_at_us: int
    funding_rate: float
    interval_hours: float | None
    mark_price: float
    mark_source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """All that is known at a bar's stamp, and nothing of what comes after it. Arrays are by leg.

    ``open_price`` is the last close of a leg that is not ``tradable``; ``volume_before`` the volume of the last closed
    bar; ``signal`` and ``basis_bps`` are those of the closes before, NaN for null.
    """

    ts_us: int
    open_price: np.ndarray
    tradable: np.ndarray
    volume_before: np.ndarray
    signal: float
    basis_bps: float
    costs: tuple[LegCosts, ...]
    settlements: tuple[Settlement, ...] = ()


def untested(cash_usd: float, position_base: np.ndarray) -> float | None:
    """No margin ratio."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """A bar's closes, the last ones where a leg has no bar (``missing``). ``ts_us`` is the bar's stamp, its open.

    ``margin_ratio`` gives the least margin ratio of the bar for the cash and the positions held in it, None where
    margin is not tested.
    """

    ts_us: int
    close_price: np.ndarray
    missing: np.ndarray
    margin_ratio: Callable[[float, np.ndarray], float | None] = untested


class Feed(abc.ABC):
    """The bars of a session, one after the other: iterate over the openings, and ask for each one's close."""

    @abc.abstractmethod
    def openings(self) -> AsyncIterator[Opening]:
        """Each bar as soon as it has opened."""

    @abc.abstractmethod
    async def closing(self) -> Closing:
        """The close of the bar opened last; waits for the end of the bar."""


class Bars:
    """The rows of a prepared configuration as openings and closings, cut out so that no later row can be reached."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared, self._market = prepared, prepared.market
        self._ts_us = prepared.panel.ts_us.tolist()
        self._signal, self._basis_bps = prepared.market.signal.tolist(), prepared.market.basis_bps.tolist()
        self._first = prepared.market.first_settlement.tolist()
        self._settlements = _settlements(prepared)
        self._costs: dict[tuple[int, int], tuple[LegCosts, ...]] = {}

    def __len__(self) -> int:
        return len(self._ts_us)

    def opening(self, bar: int) -> Opening:
        """Row ``bar`` as its stamp knows it."""
        market = self._market
        return Opening(
            ts_us=self._ts_us[bar],
            open_price=market.open_price[bar].copy(),
            tradable=market.tradable[bar].copy(),
            volume_before=market.volume_before[bar].copy(),
            signal=self._signal[bar],
            basis_bps=self._basis_bps[bar],
            costs=self._costs_of(bar),
            settlements=self._settlements[self._first[bar] : self._first[bar + 1]],
        )

    def closing(self, bar: int) -> Closing:
        """Row ``bar`` at its end."""
        market = self._market
        return Closing(
            ts_us=self._ts_us[bar], close_price=market.close_price[bar].copy(), missing=market.missing[bar].copy()
        )

    def _costs_of(self, bar: int) -> tuple[LegCosts, ...]:
        costs, fees = self._prepared.parameters.costs, self._prepared.parameters.fees
        rows = int(fees.row[bar]), int(costs.bucket_row[bar])
        if rows not in self._costs:
            fee_row, bucket_row = rows
            self._costs[rows] = tuple(
                LegCosts(
                    half_spread_bps=float(costs.half_spread_bps[leg]),
                    bucket_usd=costs.bucket_usd[leg],
                    bucket_bps=costs.bucket_bps[leg, bucket_row],
                    impact_coef_bps=float(costs.impact_coef_bps[leg]),
                    impact_exponent=float(costs.impact_exponent),
                    fee_bps=float(fee),
                    base_fee_frac=float(fee) / 1e4 if fees.is_in_base[leg] and fee > 0.0 else 0.0,
                )
                for leg, fee in enumerate(fees.fee_bps[fee_row])
            )
        return self._costs[rows]


def _settlements(prepared: Prepared) -> tuple[Settlement, ...]:
    """The settlements of a run in the order of the market's rows."""
    market, parts, order = prepared.market, list(prepared.panel.settlements.values()), prepared.settlement_order

    def column(name: str) -> Sequence[float]:
        return np.concatenate([getattr(part, name) for part in parts])[order].tolist() if parts else []

    rows = zip(
        market.settlement_leg.tolist(), column("raw_us"), column("known_us"), market.funding_rate.tolist(),
        column("interval_hours"), market.mark_price.tolist(), column("mark_source"), strict=True,
    )  # fmt: skip
    return tuple(
        Settlement(
            leg=leg,
            settlement_us=int(raw_us),
            known_at_us=int(known_us),
            funding_rate=rate,
            interval_hours=None if math.isnan(hours) else hours,
            mark_price=mark,
            mark_source=MARK_SOURCES[int(source)],
        )
        for leg, raw_us, known_us, rate, hours, mark, source in rows
    )
