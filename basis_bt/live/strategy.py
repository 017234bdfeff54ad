"""What a bar makes the rule decide: the third step of ``kernels/trial.py``, by the same scalar functions.

A strategy sees an opening and what is held, and has no clock and no venue; so it decides alike in every mode.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from basis_bt.backtest.parameters import combo_params, fill_params, rule_params, size_params
from basis_bt.backtest.prepare import Parameters
from basis_bt.core.models import Config
from basis_bt.kernels.books import equity_usd
from basis_bt.kernels.fills import gross_base, net_share, order_cost_bps
from basis_bt.kernels.rule import HOLD, entry_direction, exit_reason
from basis_bt.kernels.sizing import combo_quantity, is_capital, meets_minimums
from basis_bt.kernels.status import OK
from basis_bt.kernels.structs import (
    MAX_BASIS,
    MAX_COST,
    MAX_SPREAD,
    MAX_VOLUME_SHARE,
    MIN_NOTIONAL,
    REASONS,
    SIGNAL,
    SIZE,
)
from basis_bt.live.feed import Opening
from basis_bt.live.orders import Instruction


@dataclass(slots=True, kw_only=True)
class Working:
    """An instruction that is not carried out yet: it waits until ``ready_us``, and then for every leg to trade.

    ``bar_us`` is the stamp of the bar it was decided in; ``has_waited`` once its waiting is on record; ``is_sent`` from
    just before its orders leave.
    """

    instruction: Instruction
    bar_us: int
    ready_us: int
    has_waited: bool = False
    is_sent: bool = False


@dataclass(slots=True, kw_only=True)
class State:
    """What a strategy remembers from bar to bar. Times are stamps of bars, so that it outlives a restart.

    ``entry_equity_usd`` is what the last entry was sized on, ``cash_before_entry_usd`` the cash before it;
    ``last_equity_usd`` is the equity at the last close; ``quantity`` the units of combo held.
    """

    entry_equity_usd: float
    last_equity_usd: float
    direction: int = 0
    entry_us: int | None = None
    exit_us: int | None = None
    quantity: float = 0.0
    cash_before_entry_usd: float = 0.0
    n_trades: int = 0
    n_instructions: int = 0
    working: Working | None = None

    @classmethod
    def new(cls, capital_usd: float) -> "State":
        """That of a strategy which has not traded yet."""
        return cls(entry_equity_usd=capital_usd, last_equity_usd=capital_usd)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "State":
        """What ``to_json`` gave."""
        fields = dict(plain)
        working = fields.pop("working")
        if working is not None:
            instruction = dict(working["instruction"])
            for name in ("change_base", "arrival_price"):
                instruction[name] = tuple(instruction[name])
            working = Working(**{**working, "instruction": Instruction(**instruction)})
        return cls(**fields, working=working)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An entry that the rule wanted and that is not sent."""

    reason: str
    direction: int
    quantity: float


class Strategy:
    """Rule, sizing and pre-flight of a configuration.

    Parameters
    ----------
    parameters : what ``prepare`` made of the configuration, where the caller has that
    """

    def __init__(self, config: Config, *, parameters: Parameters | None = None) -> None:
        if parameters is None:
            self._combo, self._rule, self._fills = combo_params(config), rule_params(config), fill_params(config)
            self._size, _ = size_params(config)
        else:
            self._combo, self._rule, self._fills = parameters.combo, parameters.rule, parameters.fills
            self._size = parameters.size
        self.bar_us = config.data.bar_us
        self.capital_usd = float(self._size.capital_usd)
        self.ratios = tuple(self._combo.ratio.tolist())
        self.reference_leg = int(self._combo.reference_leg)
        #: from the decision to the fill, where a model makes the fills
        self.latency_us = int(self._fills.latency_bars.min()) * self.bar_us

    def decide(
        self, opening: Opening, state: State, *, cash_usd: float, position_base: np.ndarray, now_us: int
    ) -> Instruction | Refusal | None:
        """What to do at an opening, with no instruction under way; an entry writes what it was sized on into ``state``.

        Parameters
        ----------
        cash_usd, position_base : the account just after the settlements of the bar
        now_us : when this is decided
        """
        if state.direction == 0:
            direction = int(entry_direction(opening.signal, self._rule))
            is_over = state.exit_us is None or opening.ts_us - state.exit_us >= self._rule.cooldown_bars * self.bar_us
            if direction == 0 or not is_over:
                return None
            return self._entry(opening, state, direction, cash_usd, position_base, now_us)
        held_bars = 0 if state.entry_us is None else (opening.ts_us - state.entry_us) // self.bar_us
        reason = exit_reason(
            opening.signal, state.direction, held_bars, state.last_equity_usd, state.entry_equity_usd, self._rule
        )
        if reason == HOLD:
            return None
        return self.exit(opening, state, REASONS[reason], position_base, now_us)

    def exit(self, opening: Opening, state: State, reason: str, position_base: np.ndarray, now_us: int) -> Instruction:
        """Leave all that is held."""
        changes = tuple(0.0 - held for held in position_base.tolist())  # 0.0 stays 0.0, not -0.0
        return self._instruction(
            "exit", reason, opening, state, state.direction, state.quantity, changes, now_us=now_us
        )

    def _entry(
        self, opening: Opening, state: State, direction: int, cash_usd: float, position_base: np.ndarray, now_us: int
    ) -> Instruction | Refusal:
        ratio, arrival, size = self._combo.ratio, opening.open_price, self._size
        own = equity_usd(cash_usd, position_base, arrival)
        equity = own if size.compounding else size.capital_usd
        quantity = 0.0
        if is_capital(own, size):
            quantity = combo_quantity(equity, ratio, arrival, self._combo.margin_weight, size)
        reason = self._refusal(quantity, opening)
        if reason is not None:
            return Refusal(reason=REASONS[reason], direction=direction, quantity=quantity)
        state.entry_equity_usd, state.cash_before_entry_usd = equity, cash_usd
        net = quantity * net_share(direction, ratio, np.array([one.base_fee_frac for one in opening.costs]))
        changes = tuple(direction * one * net for one in self.ratios)
        return self._instruction("entry", REASONS[SIGNAL], opening, state, direction, net, changes, now_us=now_us)

    def _instruction(
        self, action: Literal["entry", "exit"], reason: str, opening: Opening, state: State, direction: int,
        quantity: float, changes: tuple[float, ...], *, now_us: int,
    ) -> Instruction:  # fmt: skip
        state.n_instructions += 1
        return Instruction(
            number=state.n_instructions,
            action=action,
            reason=reason,
            direction=direction,
            quantity=quantity,
            change_base=changes,
            arrival_price=tuple(opening.open_price.tolist()),
            decided_us=now_us,
        )

    def _refusal(self, quantity: float, opening: Opening) -> int | None:
        """Why an entry may not be sent: the rule, the size, then the pre-flight of its costs."""
        limit_bps = self._rule.max_basis_bps
        if not math.isnan(limit_bps) and not abs(opening.basis_bps) <= limit_bps:
            return int(MAX_BASIS)
        if not quantity > 0.0:
            return int(SIZE)
        if not meets_minimums(quantity, self._combo.ratio, opening.open_price, self._size.min_notional_usd):
            return int(MIN_NOTIONAL)
        return self._preflight(quantity, opening)

    def _preflight(self, quantity: float, opening: Opening) -> int | None:
        """Whether the estimated cost, the share of the last volume, or a quoted spread is over its limit."""
        limits, cost_usd, notional_usd, share, spread_bps = self._fills, 0.0, 0.0, 0.0, 0.0
        if min(limits.max_cost_bps, limits.max_volume_share, limits.max_spread_bps) == math.inf:
            return None
        for leg, one in enumerate(opening.costs):
            price, before = float(opening.open_price[leg]), float(opening.volume_before[leg])
            n = gross_base(quantity * self.ratios[leg], one.base_fee_frac)
            status, *parts = order_cost_bps(
                n, price, before, one.half_spread_bps, one.bucket_usd, one.bucket_bps, one.impact_coef_bps,
                one.impact_exponent,
            )  # fmt: skip
            cost_usd += n * price * (sum(parts) if status == OK else math.inf)
            notional_usd += n * price
            share = max(share, n / before if before > 0.0 else math.inf)
            spread_bps = max(spread_bps, 2.0 * one.half_spread_bps)
        if cost_usd / notional_usd > limits.max_cost_bps:
            return int(MAX_COST)
        if share > limits.max_volume_share:
            return int(MAX_VOLUME_SHARE)
        return int(MAX_SPREAD) if spread_bps > limits.max_spread_bps else None
