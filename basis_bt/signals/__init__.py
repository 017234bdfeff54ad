"""Signals: a number per bar, a Polars expression on bar closes; the engine does the shifting."""

from basis_bt.signals.base import Signal, build_signal, evaluate

__all__ = ["Signal", "build_signal", "evaluate"]
