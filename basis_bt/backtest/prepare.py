"""From a configuration to everything a trial takes: files read, scenarios carried out, arrays and parameters made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from basis_bt.backtest.contract_parameters import check_contracts, contract_params
from basis_bt.backtest.cost_parameters import cost_params, fees, one_way_bps, resolved_fees_bps
from basis_bt.backtest.parameters import (
    borrowed_legs,
    combo_params,
    fill_params,
    market_struct,
    pays_gas,
    rule_params,
    size_params,
)
from basis_bt.backtest.scenarios import adl_shares, depeg_factors, series_change, transfer_halts, with_scenarios
from basis_bt.backtest.wallet_parameters import wallet_params
from basis_bt.core.models import Config, SignalSpec
from basis_bt.frames.dollars import in_dollars
from basis_bt.frames.panel import Panel, load_panel
from basis_bt.kernels.structs import (
    ComboParams,
    Contracts,
    CostParams,
    Fees,
    FillParams,
    Market,
    Recorded,
    RuleParams,
    SizeParams,
    WalletParams,
    recorded,
)
from basis_bt.signals import Signal, build_signal, evaluate


class Parameters(NamedTuple):
    """What a trial takes beside the market, in the order in which ``run_trial`` does."""

    combo: ComboParams
    rule: RuleParams
    size: SizeParams
    costs: CostParams
    fees: Fees
    fills: FillParams
    wallets: WalletParams
    contracts: Contracts


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A configuration ready to run.

    ``panel`` is in dollars; ``settlement_order`` is the order its settlements were put in; ``flags`` are sentences for
    the manifest about what stands in for something else.
    """

    config: Config
    panel: Panel
    market: Market
    settlement_order: np.ndarray
    parameters: Parameters
    flags: list[str]

    def empty_rows(self) -> Recorded:
        """Rows for one trial."""
        return recorded(
            n_bars=self.panel.n_bars,
            n_legs=len(self.panel.instruments),
            n_settlements=len(self.market.mark_price),
            n_wallets=len(self.parameters.wallets.weight),
        )


def configured_signal(config: Config) -> Signal:
    """The signal a configuration names, its costs as they are at the start."""
    return build_signal(
        config.signal, config.combo, bar_us=config.data.bar_us, one_way_bps=tuple(one_way_bps(config))
    )


def loader(config: Config, signal: Signal) -> Callable[[], Panel]:
    """Reads the panel of a configuration, with its scenarios, in dollars."""

    def load() -> Panel:
        panel = load_panel(
            config.data,
            config.combo,
            warmup_hours=signal.warmup_hours,
            funding_windows_hours=signal.funding_windows_hours,
            settled_counts=signal.settled_counts,
            borrowed_legs=borrowed_legs(config),
            with_gas=pays_gas(config) and config.costs.gas_gwei is None,
            change=series_change(config) if config.scenarios else None,
        )
        if not config.scenarios:
            return in_dollars(panel, config.combo)
        panel = with_scenarios(panel, config)
        return in_dollars(panel, config.combo, depeg=depeg_factors(config, panel))

    return load


def prepare(
    config: Config,
    *,
    signal: Signal | None = None,
    trial: int = 0,
    panel: Panel | None = None,
    signal_values: np.ndarray | None = None,
) -> Prepared:
    """Everything a trial of a configuration takes.

    Parameters
    ----------
    signal : one of the caller's own instead of the configured one
    trial : its number, which random draws depend on
    panel, signal_values : what ``loader`` reads and ``evaluate`` gives of it, where the caller has them already

    Raises
    ------
    ConfigError, DataError, SignalError
        See ``core/errors.py``.
    """
    signal = configured_signal(config) if signal is None else signal
    size, size_flags = size_params(config)
    resolved_fees_bps(config)  # an unknown fee is refused before any file is read
    check_contracts(config)
    panel = loader(config, signal)() if panel is None else panel
    values = evaluate(signal, panel) if signal_values is None else signal_values
    market, order = market_struct(panel, values, decision_basis_bps(panel, config))
    adl, halts_us = (adl_shares(config, panel), transfer_halts(config)) if config.scenarios else (None, [])
    wallets, wallet_flags = wallet_params(config, panel, halts_us=halts_us)
    contracts, contract_flags = contract_params(config, panel, adl_share=adl)
    in_force = fees(config, panel)
    parameters = Parameters(
        combo=combo_params(config),
        rule=rule_params(config),
        size=size,
        costs=cost_params(config, panel, in_force),
        fees=in_force,
        fills=fill_params(config, trial=trial),
        wallets=wallets,
        contracts=contracts,
    )
    return Prepared(
        config=config,
        panel=panel,
        market=market,
        settlement_order=order,
        parameters=parameters,
        flags=[*size_flags, *wallet_flags, *contract_flags],
    )


def decision_basis_bps(panel: Panel, config: Config) -> np.ndarray:
    """The basis of the closes before each decision, NaN where null or where the combo has no long or no short leg."""
    ratios = [leg.ratio for leg in config.combo.legs]
    if min(ratios) > 0 or max(ratios) < 0:
        return np.full(panel.n_bars, np.nan)
    return evaluate(build_signal(SignalSpec(name="basis_bps"), config.combo, bar_us=panel.bar_us), panel)
