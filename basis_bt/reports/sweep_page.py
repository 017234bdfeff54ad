"""The page of a sweep: facts, figures and tables in one HTML that needs nothing else, each figure as PNG beside it."""

import base64
import math
import re
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from basis_bt.core.errors import StoreError
from basis_bt.reports.chart_text import Quantity, quantity, short
from basis_bt.reports.charts import chart_png
from basis_bt.reports.summary import NOTHING, html_table, stamp
from basis_bt.reports.tearsheet import CSS, section
from basis_bt.store.folder import write_whole

MAX_ROWS = 500


def write_sweep_page(
    path: Path,
    *,
    title: str,
    facts: list[tuple[str, str]],
    figures: list[tuple[str, Figure]],
    tables: list[tuple[str, pl.DataFrame]],
) -> list[Path]:
    """Write the page and, beside it, each figure as PNG; return their paths, the page first.

    Each file appears complete or not at all, and replaces an earlier one; the page comes last. Values are escaped.

    Parameters
    ----------
    path : the HTML; figures are ``<stem>_01_<name>.png`` and on
    title : the heading
    facts : label and value, shown as tiles
    figures : name and figure, in the order shown
    tables : name and table; columns of text come first, and 500 rows at most are shown, which the page says

    Raises
    ------
    StoreError
        If a file cannot be written.
    """
    path = Path(path)
    pngs = [
        (path.with_name(f"{path.stem}_{place:02d}_{_slug(name)}.png"), chart_png(figure))
        for place, (name, figure) in enumerate(figures, start=1)
    ]
    sections = [_image(name, png) for (name, _), (_, png) in zip(figures, pngs, strict=True)]
    sections += [section(name, _table(table), kind="scroll") for name, table in tables]
    page = _page(title, facts, sections).encode()
    files = [*pngs, (path, page)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for file, content in files:
            write_whole(file, content)
    except OSError as error:
        raise StoreError(
            f"the page of the sweep cannot be written: {error.strerror or error}",
            where={"file": path},
            fix="give another file for the page",
        ) from error
    return [path, *(file for file, _ in pngs)]


def _page(title: str, facts: list[tuple[str, str]], sections: list[str]) -> str:
    tiles = "".join(
        f'<div class="tile"><span>{escape(label)}</span><b>{escape(value)}</b></div>' for label, value in facts
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n<body><main>\n"
        f'<h1>{escape(title)}</h1>\n<div class="tiles">{tiles}</div>\n'
        + "\n".join(sections)
        + "\n</main></body></html>\n"
    )


def _image(name: str, png: bytes) -> str:
    image = base64.b64encode(png).decode()
    return section(name, f'<img alt="{escape(name)}" src="data:image/png;base64,{image}">')


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "figure"


def _table(table: pl.DataFrame) -> str:
    shown = table.head(MAX_ROWS)
    if shown.is_empty():
        return "<p>no row</p>"
    texts = [name for name in table.columns if not table[name].dtype.is_numeric()]
    units = {name: quantity(name, table[name]) for name in table.columns if name not in texts}
    titles = [quantity(name, table[name]).title for name in (*texts, *units)]
    rows = [
        [*(_text(row[name]) for name in texts), *(_number(row[name], unit) for name, unit in units.items())]
        for row in shown.iter_rows(named=True)
    ]
    cut = f"<p>the first {MAX_ROWS:,} of {len(table):,} rows</p>" if len(table) > MAX_ROWS else ""
    return cut + html_table(titles, rows, n_text=len(texts))


def _text(value: Any) -> str | None:
    if isinstance(value, datetime):
        return stamp(value)
    return None if value is None else str(value)


def _number(value: float | None, unit: Quantity) -> str:
    return NOTHING if value is None or not math.isfinite(value) else short(value * unit.factor)
