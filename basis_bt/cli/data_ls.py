"""``basis-bt data ls``: what a market folder holds, and where it has holes."""

import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from basis_bt.cli._output import format_option, print_frame, table_lines
from basis_bt.cli._root import root_option, root_path
from basis_bt.cli._sparkline import BLOCKS, STEPS, sparkline, step_months

if TYPE_CHECKING:
    import polars as pl

SORTS = {"name": ("series", "venue", "symbol"), "first": ("first",), "last": ("last",), "rows": ("rows",),
         "missing": ("missing",), "bytes": ("bytes",)}  # fmt: skip
MAX_CELLS = 60


@click.command("ls")
@root_option
@click.option("--series", multiple=True, metavar="NAME", help="Only these series (spot, perp, mark, funding, ...).")
@click.option("--venue", multiple=True, metavar="NAME", help="Only these venues.")
@click.option("--symbol", multiple=True, metavar="SYMBOL", help="Only these symbols, or all of a coin: BTC.")
@click.option("--sort", type=click.Choice(list(SORTS)), default="name", show_default=True, help="Order of the rows.")
@click.option("--all", "every", is_flag=True, help="One row for each instrument of a funding universe, too.")
@click.option("--refresh", is_flag=True, help="Read every file again, and take what is there as right.")
@format_option
def command(
    root: str, series: tuple[str, ...], venue: tuple[str, ...], symbol: tuple[str, ...], sort: str, every: bool,
    refresh: bool, shape: str,
) -> None:  # fmt: skip
    """List the series of a market folder: span, rows, bar or settlements, holes, and coverage by month.

    Only files that changed since the last call are read. Series that cannot be read are named on stderr.
    """
    import polars as pl

    from basis_bt.market.catalogue import catalogue

    rows = catalogue(root_path(root), refresh=refresh)
    if series:
        rows = rows.filter(pl.col("series").is_in(series))
    if venue:
        rows = rows.filter(pl.col("venue").is_in(venue))
    if symbol:
        rows = rows.filter(pl.col("symbol").is_in(symbol) | pl.col("symbol").str.extract(r"^([^-]+)").is_in(symbol))
    down = sort in ("rows", "missing", "bytes")
    sound = rows.filter(pl.col("error").is_null()).sort(SORTS[sort], descending=down, nulls_last=True)
    if shape != "table":
        print_frame(sound, shape=shape)
    elif sound.is_empty():
        click.echo(f"no series in {root}" if not (series or venue or symbol) else f"no such series in {root}")
    else:
        _print_table(sound, collapse=not (every or symbol))
    for row in rows.filter(pl.col("error").is_not_null()).iter_rows(named=True):
        click.echo(f"not readable: {row['path']}: {row['error']}", err=True)


def _print_table(rows: "pl.DataFrame", *, collapse: bool) -> None:
    import polars as pl

    from basis_bt.market.coverage import first_month

    records: list[dict[str, Any]] = rows.to_dicts()
    for record in records:
        record["begin"] = first_month(record["first"])
    if collapse:
        records = _collapse_universes(records)
    axis = min(record["begin"] for record in records)
    end = max(record["begin"] + len(record["months"]) for record in records)
    shown = [_cells(record) for record in records]
    plain = pl.DataFrame(shown, infer_schema_length=None)
    ascii_only = not _can_print(BLOCKS + "·")
    step = step_months(end - axis, room=_room(table_lines(plain), n_columns=plain.width))
    for cells, record in zip(shown, records, strict=True):
        cells["coverage"] = sparkline(
            record["months"], begin=record["begin"], axis=axis, end=end, step=step, ascii_only=ascii_only
        )
    print_frame(pl.DataFrame(shown, infer_schema_length=None))
    own = rows.filter(pl.col("source") != "universe")
    megabytes = sum(rows.unique("path")["bytes"]) / 1e6
    parts = [
        f"{len(own):,} series" if len(own) else "",
        f"{len(rows) - len(own):,} instruments of a universe" if len(rows) > len(own) else "",
        f"{rows['rows'].sum():,} rows",
        f"{megabytes:,.1f} MB",
        f"{rows['missing'].sum():,} bars or settlements missing in {rows['holes'].sum():,} holes",
    ]
    click.echo(", ".join(part for part in parts if part))
    full, none = ("#", ".") if ascii_only else ("█", "·")
    span = " to ".join(f"{month // 12}-{month % 12 + 1:02}" for month in (axis, end - 1))
    click.echo(f"coverage: a cell a {STEPS[step]}, {span}; {full} complete, {none} nothing")


def _collapse_universes(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record for all the instruments of a universe: their rows summed, the months of the best covered."""
    kept = [record for record in records if record["source"] != "universe"]
    paths = dict.fromkeys(record["path"] for record in records if record["source"] == "universe")
    for path in paths:
        group = [record for record in records if record["path"] == path]
        begin = min(record["begin"] for record in group)
        months = [0.0] * (max(record["begin"] + len(record["months"]) for record in group) - begin)
        for record in group:
            for place, share in enumerate(record["months"], start=record["begin"] - begin):
                months[place] = max(months[place], share)
        total = {name: sum(record[name] or 0 for record in group)
                 for name in ("rows", "settlements", "holes", "missing", "interval_changes", "duplicates")}  # fmt: skip
        seen = {part for record in group for part in (record["intervals"] or "").split()}
        kept.append(group[0] | total | {
            "symbol": f"{len(group)} instruments", "begin": begin, "months": months,
            "first": min(record["first"] for record in group), "last": max(record["last"] for record in group),
            "unsorted": any(record["unsorted"] for record in group),
            "intervals": " ".join(sorted(seen, key=lambda part: -int(part[:-1]))) or None,
        })  # fmt: skip
    return kept


def _cells(record: dict[str, Any]) -> dict[str, Any]:
    bar, changes = record["bar_hours"], record["interval_changes"]
    intervals = record["intervals"] or ""
    holes = f"{record['holes']:,} ({record['missing']:,})" if record["holes"] else ""
    flags = [f"{record['duplicates']:,} duplicates"] if record["duplicates"] else []
    flags += ["unsorted"] if record["unsorted"] else []
    return {
        "series": record["series"],
        "venue": record["venue"],
        "symbol": record["symbol"] + (" (universe)" if record["source"] == "universe" else ""),
        "first": f"{record['first']:%Y-%m-%d}",
        "last": f"{record['last']:%Y-%m-%d}",
        "rows": record["rows"],
        "bar": _bar_text(bar) if bar else intervals + (f" ({changes}x)" if changes else ""),
        "holes (missing)": ", ".join([holes, *flags] if holes else flags),
    }


def _bar_text(hours: float) -> str:
    if hours >= 24 and hours % 24 == 0:
        return f"{hours / 24:g}d"
    return f"{hours:g}h" if hours >= 1 else f"{hours * 60:g}m" if hours * 60 >= 1 else f"{hours * 3600:g}s"


def _room(lines: list[str], *, n_columns: int) -> int:
    """Cells that fit beside the other columns."""
    if not sys.stdout.isatty():
        return MAX_CELLS
    used = max(len(line) for line in lines) + n_columns + 8  # rules and padding of the table
    return max(12, min(MAX_CELLS, shutil.get_terminal_size().columns - used))


def _can_print(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
