"""Every check on everything in a market folder, as one table."""

import dataclasses
import io
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.market.checks import Finding, funding_findings
from basis_bt.market.cost_table import COLUMNS, read_cost_table
from basis_bt.market.coverage import Holding, holdings, universe_symbol
from basis_bt.market.files import Series, examine
from basis_bt.market.loading import collect, read_bytes, scan_bytes
from basis_bt.market.schemas import TS
from basis_bt.market.witness import base_and_scale, without_spikes

SCHEMA: dict[str, Any] = {
    "severity": pl.String, "series": pl.String, "rule": pl.String, "repair": pl.String, "rows": pl.Int64,
    "first_row": pl.Int64, "first_ts": TS, "sentence": pl.String, "fix": pl.String,
}  # fmt: skip
SEVERITIES = ("refused", "repaired", "note")


def audit(root: Path, *, checks: str = "strict") -> pl.DataFrame:
    """One row per finding about the series of a market folder, the worst first.

    Prices are also judged by what other venues paid for the same coin at the same time (``market/witness.py``).

    Parameters
    ----------
    root : the market folder
    checks : ``strict`` or ``clean``; ``severity`` is ``refused`` for what a run in that mode would not accept,
        ``repaired`` for what it would take out or go on without, ``note`` for what is only worth knowing

    Returns
    -------
    DataFrame with the columns of ``SCHEMA``

    Raises
    ------
    DataError
        If the folder is missing.
    """
    found, others = holdings(root)
    rows = [
        _row(name, Finding(rule="no series", repair="note", what="the path is that of no series; it is left alone",
                           fix="see the layout of a market folder"), checks=checks)
        for name in others
        if not name.startswith("cost/")
    ]  # fmt: skip
    rows += [_row(name, finding, checks=checks) for name in others for finding in _cost_table(root, name)]
    bars: dict[tuple[str, int | None], list[Series]] = defaultdict(list)
    with ThreadPoolExecutor(4) as pool:
        for holding, result in zip(found, pool.map(lambda one: _examined(root, one), found), strict=True):
            if isinstance(result, Series):
                rows += [_row(str(holding.key), finding, checks=checks) for finding in result.findings]
                if result.key.series in ("spot", "perp"):
                    bars[base_and_scale(result.key.symbol)[0], result.step_us].append(result)
            else:
                rows += [_row(name, finding, checks=checks) for name, finding in result]
    for witnesses in bars.values():
        for before, after in zip(witnesses, without_spikes(witnesses), strict=True):
            rows += [_row(str(before.key), one, checks=checks) for one in after.findings[len(before.findings) :]]
    order = {name: place for place, name in enumerate(SEVERITIES)}
    rows.sort(key=lambda row: (order[row["severity"]], row["series"], row["rule"]))
    return pl.DataFrame(rows, schema=SCHEMA)


def _row(name: str, finding: Finding, *, checks: str) -> dict[str, Any]:
    severity = "refused" if finding.refused(checks) else "note" if finding.repair == "note" else "repaired"
    return {
        "severity": severity, "series": name, "rule": finding.rule, "repair": finding.repair, "rows": finding.rows,
        "first_row": finding.first_row, "first_ts": finding.first_us, "sentence": finding.what, "fix": finding.fix,
    }  # fmt: skip


def _examined(root: Path, holding: Holding) -> Series | list[tuple[str, Finding]]:
    """A series, or the findings of a universe, or the one finding about a file that cannot be read."""
    try:
        return _universe(holding) if holding.source == "universe" else examine(root, holding.key)
    except DataError as error:
        row = error.where.get("row")
        return [(holding.path, Finding(rule="file", repair="none", what=error.what, fix=error.fix,
                                       rows=1 if row is not None else 0, first_row=row))]  # fmt: skip


def _cost_table(root: Path, name: str) -> list[Finding]:
    """The finding about a cost table that no run could use; other tables beside them are left alone."""
    path = root / name
    if not name.startswith("cost/") or not set(COLUMNS) <= set(pl.read_parquet_schema(io.BytesIO(path.read_bytes()))):
        return []
    try:
        read_cost_table(path)
    except DataError as error:
        return [Finding(rule="file", repair="none", what=error.what, fix=error.fix)]
    return []


def _universe(holding: Holding) -> list[tuple[str, Finding]]:
    """One finding for each rule, over all instruments of a long file; rows are counted within their instrument."""
    path = holding.files[0][1]
    rows = collect(scan_bytes(read_bytes(path), path=path).select("ts", "instrument", "rate"), path=path)
    by_rule: dict[str, list[tuple[str, Finding]]] = defaultdict(list)
    parts = rows.with_columns(pl.col("ts").cast(TS)).partition_by("instrument", as_dict=True, maintain_order=True)
    for (instrument,), part in parts.items():
        name = universe_symbol(str(instrument))
        for finding in funding_findings(part, part["ts"].to_physical().to_numpy()):
            by_rule[finding.rule].append((name, finding))
    out = []
    for found in by_rule.values():
        name, first = found[0]
        what = f"{len(found)} of {len(parts)} instruments, first {name}: {first.what}"
        out.append((holding.path, dataclasses.replace(first, what=what, rows=sum(one.rows for _, one in found))))
    return out
