"""The front door: ``run()`` and the ``Result`` it returns."""

from basis_bt.backtest.engine import run
from basis_bt.backtest.result import Result

__all__ = ["Result", "run"]
