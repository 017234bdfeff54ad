"""What an import reports: a row for each series of each source, and the sentences in it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.market.merging import Merged

PROBLEMS = ("conflict", "failed")


@dataclass(slots=True, kw_only=True)
class ImportRow:
    """What became of one series of one source.

    ``rows`` read = ``new`` + ``equal`` to what is there or in another source + ``dropped`` (exact repeats) + rows in
    conflict. ``status`` is one of ``imported, unchanged, conflict, not recognised, failed, skipped``.
    """

    source: str
    format: str = ""
    series: str = ""
    rows: int = 0
    new: int = 0
    equal: int = 0
    dropped: int = 0
    status: str = ""
    sentence: str = ""

    def close(self, status: str, sentence: str) -> None:
        """Give it its status; what was said before stays behind the sentence."""
        self.status = status
        self.sentence = "; ".join(part for part in (sentence, self.sentence) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """A row per source and series, the files left alone by reason, and the files written (none in a dry run)."""

    rows: list[ImportRow]
    ignored: Mapping[str, int]
    written: list[str]
    dry_run: bool

    @property
    def has_problems(self) -> bool:
        """Whether anything failed or is in conflict."""
        return any(row.status in PROBLEMS for row in self.rows)

    @property
    def frame(self) -> pl.DataFrame:
        """The rows as a DataFrame."""
        text, number = pl.String(), pl.Int64()
        schema = {name: number if name in ("rows", "new", "equal", "dropped") else text for name in ImportRow.__slots__}
        return pl.DataFrame([asdict(row) for row in self.rows], schema=schema)


def one_line(error: DataError) -> str:
    """An error on one line."""
    where = ", ".join(f"{name}={value}" for name, value in error.where.items() if name != "file")
    return error.what + (f" ({where})" if where else "") + (f"; {error.fix}" if error.fix else "")


def conflict_text(merged: Merged, sources: list[str]) -> str:
    """How many keys have two values, and the first of them with the sources of both."""
    names: list[Any] = ["the market folder", *sources]
    shown = [
        f"{conflict.ts} {conflict.column} {conflict.values[0]} in {names[conflict.pieces[0]]}"
        f" and {conflict.values[1]} in {names[conflict.pieces[1]]}"
        for conflict in merged.conflicts
    ]
    return f"{merged.conflicting:,} stamps with two values: {'; '.join(shown)}; --prefer new or old decides"
