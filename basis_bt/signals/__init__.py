"""Signals: a number per bar, a Polars expression on bar closes; the engine does the shifting."""

from basis_bt.signals.base import Signal, evaluate
from basis_bt.signals.build import NAMES, build_signal

__all__ = ["NAMES", "Signal", "build_signal", "evaluate"]
