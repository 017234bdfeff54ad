"""What a run gives back: tables, manifest, and the ways to keep and to look at them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """One trial with everything it recorded; columns of the tables are described in ``docs/tables.md``."""

    manifest: dict[str, Any]
    tables: dict[str, pl.DataFrame]

    @property
    def metrics(self) -> pl.DataFrame:
        """One row: the parameters, then the metrics."""
        return self.tables["metrics"]

    @property
    def equity(self) -> pl.DataFrame:
        """One row a bar: equity, cash, notional, drawdown, signal, direction, stale."""
        return self.tables["equity"]

    @property
    def fills(self) -> pl.DataFrame:
        """One row a leg filled, with the components of its cost."""
        return self.tables["fills"]

    @property
    def funding(self) -> pl.DataFrame:
        """One row a settlement of the run, with rate, mark, position and cash."""
        return self.tables["funding"]

    @property
    def events(self) -> pl.DataFrame:
        """Orders decided, refused and kept waiting."""
        return self.tables["events"]

    @property
    def attribution(self) -> pl.DataFrame:
        """One row a bar and leg: cumulative delta, basis, funding and costs in USD."""
        return self.tables["attribution"]

    @property
    def trades(self) -> pl.DataFrame:
        """One row a round trip."""
        return self.tables["trades"]

    def save(self, runs: str | Path = "runs", *, name: str | None = None, overwrite: bool = False) -> Path:
        """Write the run as a folder of ``runs``, complete or not at all; returns the folder."""
        from basis_bt.store import save_run

        return save_run(
            Path(runs),
            name=name or self.manifest["name"],
            tables=self.tables,
            manifest=self.manifest,
            overwrite=overwrite,
        )

    def report(self, folder: str | Path = ".") -> tuple[Path, Path]:
        """Write the tear sheet as ``report.png`` and ``report.html`` into a folder; returns both paths."""
        from basis_bt.reports.tearsheet import write_report

        return write_report(self.manifest, self.tables, Path(folder))

    def __repr__(self) -> str:
        from basis_bt.reports.summary import summary_text

        return summary_text(self.manifest, self.tables)

    def _repr_html_(self) -> str:
        from basis_bt.reports.summary import summary_html

        return summary_html(self.manifest, self.tables)
