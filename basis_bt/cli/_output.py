"""Tables on the terminal, plain aligned text in a pipe, and CSV or JSON for machines."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import polars as pl

Function = Callable[..., Any]
FORMATS = ("table", "csv", "json")


def runs_option(function: Function) -> Function:
    """``--runs DIR``, the folder of all runs; also from ``BASIS_BT_RUNS``."""
    return click.option(
        "--runs", "root", default="runs", show_default=True, envvar="BASIS_BT_RUNS", metavar="DIR",
        help="Folder of the runs (or set BASIS_BT_RUNS).",
    )(function)  # fmt: skip


def format_option(function: Function) -> Function:
    """``--format table|csv|json``."""
    return click.option(
        "--format",
        "shape",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How to print the rows.",
    )(function)


def print_frame(frame: "pl.DataFrame", *, shape: str = "table", title: str = "") -> None:
    """Print a DataFrame as a table for people, or as CSV or JSON (a list of objects) for programs."""
    if shape == "csv":
        click.echo(csv_text(frame), nl=False)
    elif shape == "json":
        click.echo(json_text(frame))
    else:
        _print_table(frame, title=title)


def csv_text(frame: "pl.DataFrame") -> str:
    """CSV with a header; instants in ISO 8601, lists and structs as JSON."""
    import polars as pl

    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    other = [name for name, dtype in frame.schema.items() if dtype in (pl.Binary, pl.Object)]
    plain = frame.with_columns(
        *(pl.Series(name, [_json_cell(cell) for cell in frame[name]], dtype=pl.String) for name in nested),
        *(pl.Series(name, [str(cell) for cell in frame[name]], dtype=pl.String) for name in other),
    )
    return plain.write_csv(datetime_format="%Y-%m-%dT%H:%M:%S%.6f%:z" if _has_zones(frame) else None)


def json_text(frame: "pl.DataFrame") -> str:
    """A JSON list with one object per row; NaN and infinities, which JSON lacks, become null."""
    rows = [{name: _plain(cell) for name, cell in row.items()} for row in frame.iter_rows(named=True)]
    return json.dumps(rows, indent=1, allow_nan=False)


def cell_text(value: Any) -> str:
    """One value for people: thousands apart, instants short, null as a dash."""
    if value is None:
        return _dash()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if abs(value) >= 1000 and abs(value) < 1e15:
            return f"{value:,.2f}"
        return f"{value:.6g}"
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            value = value.astimezone(UTC)
        text = value.strftime("%Y-%m-%d %H:%M:%S")
        return text + (f".{value.microsecond:06d}".rstrip("0") if value.microsecond else "")
    return str(value)


def table_lines(frame: "pl.DataFrame") -> list[str]:
    """Aligned text, numbers to the right, no column ever cut."""
    cells = [[cell_text(cell).replace("\n", " ") for cell in row] for row in frame.iter_rows()]
    numeric = [dtype.is_numeric() for dtype in frame.dtypes]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(frame.columns)]
    return [
        "  ".join(cell.rjust(width) if right else cell.ljust(width)
                  for cell, width, right in zip(row, widths, numeric, strict=True)).rstrip()
        for row in [frame.columns, *cells]
    ]  # fmt: skip


def pairs_lines(pairs: list[tuple[str, str]]) -> list[str]:
    """Label and text, the texts aligned."""
    width = max((len(label) for label, _ in pairs), default=0)
    return [f"{label.ljust(width)}  {text}" for label, text in pairs]


def _print_table(frame: "pl.DataFrame", *, title: str) -> None:
    if not sys.stdout.isatty():
        click.echo("\n".join([*([title] if title else []), *table_lines(frame)]))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", header_style="bold")
    for name, dtype in frame.schema.items():
        table.add_column(Text(name), justify="right" if dtype.is_numeric() else "left", overflow="fold")
    for row in frame.iter_rows():
        table.add_row(*(Text(cell_text(cell)) for cell in row))
    Console(file=sys.stdout).print(table)


def _dash() -> str:
    try:
        "–".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "-"
    return "–"


def _has_zones(frame: "pl.DataFrame") -> bool:
    return any(getattr(dtype, "time_zone", None) for dtype in frame.dtypes)


def _json_cell(cell: Any) -> str | None:
    if cell is None:
        return None
    return json.dumps(_plain(cell.to_list() if hasattr(cell, "to_list") else cell))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
