"""What a signal is, and evaluating it so that it cannot see past the decision."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from basis_bt.core.errors import SignalError
from basis_bt.frames.panel import Panel

N_PREFIXES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """An expression over the aligned frame, with the history and the columns it needs; see ``load_panel`` for these.

    ``trusted`` ones are tested in this package; any other is evaluated on prefixes of the frame too.
    """

    expression: pl.Expr
    warmup_hours: float = 0.0
    funding_windows_hours: tuple[float, ...] = ()
    settled_counts: tuple[int, ...] = ()
    trusted: bool = False


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


def latest(signal: Signal, panel: Panel) -> float:
    """The signal at the close of the last row, which the decision of the bar after it sees; NaN where null.

    Raises
    ------
    SignalError
        If the expression fails.
    """
    return float(_values(signal, panel.frame)[-1])


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
