"""What a sweep gives back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.core.errors import ConfigError
from basis_bt.reports.robustness import LOWER_IS_BETTER
from basis_bt.store.folder import load_table

BEST_KEPT = 20  # rows that are known without reading all of them


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sweep:
    """A sweep: its manifest, the ``best`` rows, the tables of the best trials; ``path`` is its folder, None in memory.

    ``loaded`` holds the rows of all trials once they are there.
    """

    manifest: dict[str, Any]
    best: pl.DataFrame
    tables: dict[str, pl.DataFrame]
    path: Path | None
    loaded: list[pl.DataFrame] = field(default_factory=list)

    @property
    def trials(self) -> pl.DataFrame:
        """One row a trial: number, parameters, metrics, status; read from the folder when first asked for."""
        if not self.loaded and self.path is not None:
            self.loaded.append(load_table(self.path, "metrics"))
        return self.loaded[0]

    @property
    def metric(self) -> str:
        """What the best is chosen by."""
        return str(self.manifest["sweep"]["metric"])

    @property
    def columns(self) -> list[str]:
        """The columns of ``trials`` that vary."""
        return list(self.manifest["sweep"]["columns"])

    def top(self, n: int = 10, *, metric: str | None = None, columns: Sequence[str] = ()) -> pl.DataFrame:
        """The best trials: their number, what they vary in, the metric and the main numbers."""
        metric = metric or self.metric
        is_known = metric == self.metric and n <= BEST_KEPT
        best = self.best.head(n) if is_known else best_of(self.trials, metric=metric, n=n)
        main = (metric, "total_return", "sharpe", "max_drawdown", "n_trades", "funding_usd", "fees_usd", "pnl_usd")
        return best.select(list(dict.fromkeys(("trial", *self.columns, *main, *columns))))

    def __repr__(self) -> str:
        facts = self.manifest["sweep"]
        failed = {word: n for word, n in facts["status"].items() if word != "ok"}
        told = "".join(f", {n:,} {word}" for word, n in failed.items())
        return f"sweep {self.manifest['name']}: {facts['n_trials']:,} trials{told}\n{self.top(5)}"


def best_of(trials: pl.DataFrame, *, metric: str, n: int) -> pl.DataFrame:
    """The best rows by a metric, the lowest trial first among equals; rows without it are left out.

    Raises
    ------
    ConfigError
        If there is no such metric.
    """
    if metric not in trials.columns or not trials.schema[metric].is_numeric():
        numbers = [
            name for name, dtype in trials.schema.items() if dtype.is_numeric() and not name.startswith("param_")
        ]
        raise ConfigError(f"{metric!r} is no metric of the sweep", fix=f"one of {', '.join(numbers)}")
    found = trials.filter((pl.col("status") == "ok") & pl.col(metric).is_not_null())
    return found.sort([metric, "trial"], descending=[metric not in LOWER_IS_BETTER, False]).head(n)
