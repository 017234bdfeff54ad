"""basis_bt: a backtester for crypto basis and funding-rate carry."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "run": "basis_bt.backtest",
    "Result": "basis_bt.backtest",
    "sql": "basis_bt.store",
    "sweep": "basis_bt.sweeps.engine",
    "Sweep": "basis_bt.sweeps.result",
    "breakeven": "basis_bt.sweeps.breakeven",
    "capacity": "basis_bt.sweeps.capacity",
    "sensitivity": "basis_bt.sweeps.sensitivity",
    "load_sweep": "basis_bt.sweeps.kept",
    "luck": "basis_bt.sweeps.luck",
    "walk_forward": "basis_bt.sweeps.walk_forward",
    "load_run": "basis_bt.store",
    "Combo": "basis_bt.core.instruments",
    "Leg": "basis_bt.core.instruments",
    "Config": "basis_bt.core.models",
    "Costs": "basis_bt.core.models",
    "Data": "basis_bt.core.models",
    "Fills": "basis_bt.core.models",
    "Rule": "basis_bt.core.models",
    "SignalSpec": "basis_bt.core.models",
    "Size": "basis_bt.core.models",
    "Wallets": "basis_bt.core.models",
}

if TYPE_CHECKING:
    from basis_bt.backtest import Result, run
    from basis_bt.core.instruments import Combo, Leg
    from basis_bt.core.models import Config, Costs, Data, Fills, Rule, SignalSpec, Size, Wallets
    from basis_bt.store import load_run, sql
    from basis_bt.sweeps.breakeven import breakeven
    from basis_bt.sweeps.capacity import capacity
    from basis_bt.sweeps.engine import sweep
    from basis_bt.sweeps.kept import load_sweep
    from basis_bt.sweeps.luck import luck
    from basis_bt.sweeps.result import Sweep
    from basis_bt.sweeps.sensitivity import sensitivity
    from basis_bt.sweeps.walk_forward import walk_forward

__all__ = [
    "Combo",
    "Config",
    "Costs",
    "Data",
    "Fills",
    "Leg",
    "Result",
    "Rule",
    "SignalSpec",
    "Size",
    "Sweep",
    "Wallets",
    "breakeven",
    "capacity",
    "load_run",
    "load_sweep",
    "luck",
    "run",
    "sensitivity",
    "sql",
    "sweep",
    "walk_forward",
]


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that the command line starts fast."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'basis_bt' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)
