"""What two runs have in common and where they part: configuration, inputs, versions, and each table of results."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from basis_bt.store.folder import StoredRun

#: the columns that name a row of each table; other tables are compared row by row
KEYS: dict[str, tuple[str, ...]] = {
    "metrics": ("trial",),
    "equity": ("trial", "ts"),
    "attribution": ("trial", "ts", "leg"),
    "fills": ("trial", "ts", "leg"),
    "funding": ("trial", "settlement_ts", "leg"),
    "events": ("trial", "ts", "event"),
    "trades": ("trial", "trade"),
}
ABSENT = "(absent)"
ROW = "(row)"


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not the same; ``key`` is a dotted path, or what is compared."""

    key: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class TableDifference:
    """How one table differs: number of rows, and the first of them (``ts``, or the trade) with its first column.

    ``rows_differ`` is 0 for equal tables, and ``column`` is ``(row)`` where one run has no such row.
    """

    table: str
    rows_a: int
    rows_b: int
    rows_differ: int
    ts: datetime | None = None
    column: str | None = None
    a: Any = None
    b: Any = None

    @property
    def equal(self) -> bool:
        """Whether both runs hold the same table."""
        return self.rows_differ == 0 and self.column is None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything in which run ``b`` differs from run ``a``; ``tables`` names the equal ones too."""

    config: tuple[Difference, ...]
    inputs: tuple[Difference, ...]
    versions: tuple[Difference, ...]
    tables: tuple[TableDifference, ...]

    @property
    def equal(self) -> bool:
        """Whether results, configuration, inputs and versions are all the same."""
        return not (self.config or self.inputs or self.versions) and self.results_equal

    @property
    def results_equal(self) -> bool:
        """Whether every table is the same, whatever led to it."""
        return all(table.equal for table in self.tables)


def diff_runs(a: StoredRun, b: StoredRun) -> Comparison:
    """Compare two runs to the last bit; names, times of creation and wall time are not compared."""
    versions = [{"basis_bt": run.manifest.get("basis_bt"), **(run.manifest.get("versions") or {}),
                 "rulebook_hash": run.manifest.get("rulebook_hash"), "seed": run.manifest.get("seed")}
                for run in (a, b)]  # fmt: skip
    return Comparison(
        config=_differences(a.manifest.get("config") or {}, b.manifest.get("config") or {}, leave_out={"name"}),
        inputs=_differences(_input_hashes(a), _input_hashes(b)),
        versions=_differences(versions[0], versions[1]),
        tables=tuple(_diff_table(name, a.tables.get(name), b.tables.get(name))
                     for name in sorted({*a.tables, *b.tables})),
    )  # fmt: skip


def _differences(
    a: Mapping[str, Any], b: Mapping[str, Any], *, leave_out: set[str] | None = None
) -> tuple[Difference, ...]:
    flat_a, flat_b = dict(_flat(a)), dict(_flat(b))
    keys = dict.fromkeys([*flat_a, *flat_b])
    pairs = [Difference(key, flat_a.get(key, ABSENT), flat_b.get(key, ABSENT)) for key in keys]
    return tuple(pair for pair in pairs if pair.key not in (leave_out or set()) and not _same(pair.a, pair.b))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None or not value:
        yield path, value
        return
    for key, item in items:
        yield from _flat(item, f"{path}.{key}" if path else str(key))


def _same(a: Any, b: Any) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _input_hashes(run: StoredRun) -> dict[str, str]:
    """``instrument series`` -> sha256; several files of one series are numbered in their order."""
    hashes: dict[str, str] = {}
    for item in run.manifest.get("inputs") or []:
        key = f"{item.get('instrument')} {item.get('series')}"
        number = sum(known.partition(" #")[0] == key for known in hashes)
        hashes[f"{key} #{number + 1}" if number else key] = item.get("sha256", "")
    return hashes


def _diff_table(name: str, a: pl.DataFrame | None, b: pl.DataFrame | None) -> TableDifference:
    if a is None or b is None:
        rows_a, rows_b = (0 if frame is None else frame.height for frame in (a, b))
        return TableDifference(
            name, rows_a, rows_b, max(rows_a, rows_b), column="(table)",
            a=ABSENT if a is None else "present", b=ABSENT if b is None else "present",
        )  # fmt: skip
    if a.equals(b) and a.schema == b.schema:
        return TableDifference(name, a.height, b.height, 0)
    columns = dict.fromkeys([*a.columns, *b.columns])
    for column in columns:
        types = [str(frame.schema[column]) if column in frame.columns else ABSENT for frame in (a, b)]
        if types[0] != types[1]:
            rows = max(a.height, b.height)
            return TableDifference(name, a.height, b.height, rows, column=column, a=types[0], b=types[1])
    return _first_difference(name, a, b.select(a.columns))


def _first_difference(name: str, a: pl.DataFrame, b: pl.DataFrame) -> TableDifference:
    keys = [key for key in KEYS.get(name, ()) if key in a.columns]
    values = [column for column in a.columns if column not in keys]
    left, right = (_numbered(frame, keys) for frame in (a, b))
    joined = left.join(
        right.select(*keys, "_n", pl.lit(True).alias("_b"), *(pl.col(c).alias(f"_b:{c}") for c in values)),
        on=[*keys, "_n"], how="full", coalesce=True, nulls_equal=True,
    ).sort([*_time_first(keys), "_n"], nulls_last=True, maintain_order=True)  # fmt: skip
    absent = pl.col("_a").is_null() | pl.col("_b").is_null()
    unequal = {column: pl.col(column).ne_missing(pl.col(f"_b:{column}")) for column in values}
    wrong = joined.filter(pl.any_horizontal(absent, *unequal.values()))
    if wrong.height == 0:  # the same rows in another order
        return TableDifference(name, a.height, b.height, a.height, column="(order)", a="as stored", b="reordered")
    first = wrong.head(1)
    row = first.row(0, named=True)
    ts = next((row[key] for key in ("ts", "settlement_ts", "entry_ts") if row.get(key) is not None), None)
    if row["_a"] is None or row["_b"] is None:
        sides = tuple(ABSENT if row[side] is None else "present" for side in ("_a", "_b"))
        ts = ts or row.get("_b:entry_ts")
        return TableDifference(name, a.height, b.height, wrong.height, ts, ROW, *sides)
    column = next(column for column, test in unequal.items() if first.select(test).item())
    return TableDifference(name, a.height, b.height, wrong.height, ts, column, row[column], row[f"_b:{column}"])


def _numbered(frame: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Rows of one key get numbers, so that each row has a name of its own."""
    number = pl.int_range(pl.len())
    return frame.with_columns((number.over(keys) if keys else number).alias("_n"), pl.lit(True).alias("_a"))


def _time_first(keys: list[str]) -> list[str]:
    return sorted(keys, key=lambda key: (key not in ("ts", "settlement_ts"), keys.index(key)))
