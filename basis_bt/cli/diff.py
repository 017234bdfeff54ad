"""``basis-bt diff``: where two runs differ."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from basis_bt.cli._output import cell_text, pairs_lines, runs_option

if TYPE_CHECKING:
    from basis_bt.store.compare import Comparison, Difference, TableDifference


@click.command()
@click.argument("a")
@click.argument("b")
@runs_option
@click.option("--exit-code", is_flag=True, help="Exit with 1 if the runs differ.")
def command(a: str, b: str, root: str, exit_code: bool) -> int:
    """Show where run B differs from run A: configuration, inputs, versions, and the first row of each table."""
    from basis_bt.store.compare import diff_runs
    from basis_bt.store.folder import load_run, resolve_run

    stored = [load_run(resolve_run(Path(root), name)) for name in (a, b)]
    comparison = diff_runs(*stored)
    click.echo("\n".join(_lines(comparison)))
    return 1 if exit_code and not comparison.equal else 0


def _lines(comparison: "Comparison") -> list[str]:
    sections: list[tuple[str, tuple[Difference, ...]]] = [
        ("configuration", comparison.config), ("inputs", comparison.inputs), ("versions", comparison.versions),
    ]  # fmt: skip
    lines = []
    for title, differences in sections:
        lines.append(f"{title}: {'equal' if not differences else f'{len(differences)} differ'}")
        pairs = [(item.key, f"{_value(item.a)} -> {_value(item.b)}") for item in differences]
        lines += ["  " + line for line in pairs_lines(pairs)]
    lines.append(f"results: {'equal' if comparison.results_equal else 'differ'}")
    return lines + ["  " + line for line in pairs_lines([(item.table, _table(item)) for item in comparison.tables])]


def _table(item: "TableDifference") -> str:
    if item.equal:
        return f"equal ({item.rows_a:,} rows)"
    rows = f"{item.rows_differ:,} rows differ ({item.rows_a:,} and {item.rows_b:,})"
    at = f" at {cell_text(item.ts)}" if item.ts is not None else ""
    return f"{rows}; first{at}: {item.column} {_value(item.a)} -> {_value(item.b)}"


def _value(value: object) -> str:
    return repr(value) if isinstance(value, float) else cell_text(value)
