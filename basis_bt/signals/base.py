"""Building a signal from its description, and evaluating it so that it cannot see past the decision."""

import difflib
from dataclasses import dataclass

import numpy as np
import polars as pl

from basis_bt.core.errors import ConfigError, SignalError
from basis_bt.core.instruments import Combo
from basis_bt.core.models import SignalSpec
from basis_bt.core.units import bars_up, parse_hours
from basis_bt.frames.panel import Panel
from basis_bt.signals.basis import basis_bps, basis_zscore
from basis_bt.signals.funding import funding_apr

NAMES = ("funding_apr", "basis_bps", "basis_zscore", "sql")
N_PREFIXES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """An expression over the aligned frame, with the history it needs; ``trusted`` ones are tested in this package."""

    expression: pl.Expr
    warmup_hours: float = 0.0
    funding_windows_hours: tuple[float, ...] = ()
    trusted: bool = False


def build_signal(spec: SignalSpec, combo: Combo, *, bar_us: int) -> Signal:
    """The signal a configuration names.

    Raises
    ------
    ConfigError
        If there is no such signal, its ``hours`` are missing or superfluous, or it does not fit the combo.
    """
    if spec.name not in NAMES:
        near = difflib.get_close_matches(spec.name, NAMES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(NAMES)}"
        raise ConfigError(
            f"signal.name: no signal is called {spec.name!r}; {hint}", fix="name a built-in signal, or sql"
        )
    windowed = spec.name in ("funding_apr", "basis_zscore")
    if windowed != (spec.hours is not None):
        raise ConfigError(
            f"signal.hours: {spec.name} {'needs' if windowed else 'takes no'} hours", fix="see docs/semantics.md"
        )
    hours = parse_hours(spec.hours) if spec.hours is not None else 0.0
    if windowed and hours <= 0:
        raise ConfigError(f"signal.hours: must be above 0, found {spec.hours!r}", fix="give the length of the window")
    if spec.name == "funding_apr":
        if not any(leg.parsed.is_perp for leg in combo.legs):
            raise ConfigError("signal.name: funding_apr needs a perp leg", fix="add one to combo.legs")
        return Signal(expression=funding_apr(combo, hours=hours), funding_windows_hours=(hours,), trusted=True)
    if spec.name == "sql":
        try:
            expression = pl.sql_expr(spec.sql or "")
        except Exception as error:
            raise ConfigError(f"signal.sql: {error}", fix="write one expression, e.g. close_1 / close_0 - 1") from None
        return Signal(expression=expression, warmup_hours=parse_hours(spec.warmup_hours))
    if not (any(leg.ratio < 0 for leg in combo.legs) and any(leg.ratio > 0 for leg in combo.legs)):
        raise ConfigError(f"signal.name: {spec.name} needs a long and a short leg", fix="see the signs in combo.legs")
    if spec.name == "basis_bps":
        return Signal(expression=basis_bps(combo), trusted=True)
    n_bars = bars_up(hours, bar_us=bar_us)
    return Signal(expression=basis_zscore(combo, hours=hours, n_bars=n_bars), warmup_hours=hours, trusted=True)


def evaluate(signal: Signal, panel: Panel) -> np.ndarray:
    """The signal at each decision, float64 ``(n_bars,)``, NaN where null: row t holds the value of row t-1.

    A signal that is not trusted is evaluated again on prefixes of the frame: a value that changes when the rows
    after it are taken away has seen the future.

    Raises
    ------
    SignalError
        If the expression fails, is no number per row, or uses rows after its own.
    """
    values = _values(signal, panel.frame)
    if not signal.trusted:
        _refuse_lookahead(signal, panel.frame, values)
    return values[panel.n_warmup - 1 : -1].copy()


def _values(signal: Signal, frame: pl.DataFrame) -> np.ndarray:
    try:
        column = (
            frame.lazy().select(pl.col("ts"), signal.expression.cast(pl.Float64).alias("signal")).collect()["signal"]
        )
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise SignalError(
            f"the signal cannot be evaluated: {str(error).splitlines()[0]}",
            where={"columns": ", ".join(frame.columns)},
            fix="write an expression that gives one number per row of these columns",
        ) from None
    values = column.fill_null(float("nan")).to_numpy().copy()
    values[~np.isfinite(values)] = np.nan
    return values


def _refuse_lookahead(signal: Signal, frame: pl.DataFrame, values: np.ndarray) -> None:
    n_rows = frame.height
    spread = np.linspace(1, n_rows - 1, N_PREFIXES).astype(int).tolist()
    for cut in sorted({*spread, *range(max(1, n_rows - 4), n_rows)}):
        prefix = _values(signal, frame.head(cut))
        full = values[:cut]
        differs = (np.isnan(prefix) != np.isnan(full)) | (np.abs(prefix - full) > 1e-9 * np.maximum(np.abs(full), 1e-9))
        if differs.any():
            row = int(differs.argmax())
            raise SignalError(
                "the signal uses rows after its own: its value changes when the future is taken away",
                where={"ts": frame["ts"][row].isoformat(), "with": full[row], "without": prefix[row]},
                fix="use shift(n) with n >= 0, rolling and cumulative functions, no statistics of the whole column",
            )
