"""A calibration as the TOML file that ``core/calibration_file.py`` reads."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.core.calibration_file import COST_KEYS, EXPONENT, FORMAT, content_hash
from basis_bt.core.errors import StoreError
from basis_bt.store.folder import write_whole

#: key of ``[fills]`` -> estimate that it is
FILL_ESTIMATES = {"fill_probability": "fill_probability", "latency_s": "latency_p50_s"}
HEAD = """\
# made by: basis-bt calibrate
# Costs measured on fills. A configuration takes them over by calibration = "this file"; every value was measured on at
# least min_samples orders, and stands beside the interval that its truth is in. Edited by hand it is refused.
"""


def write_calibration(frame: pl.DataFrame, header: Mapping[str, Any], path: Path) -> Path:
    """Write the values of a frame of estimates (``calibration.Measured.frame``); returns the path.

    Raises
    ------
    StoreError
        If there is no value to write, or the file cannot be written.
    """
    known = frame.drop_nulls("value")
    tables = {("costs", key): known.filter(pl.col("estimate") == key) for key in COST_KEYS}
    tables |= {("fills", key): known.filter(pl.col("estimate") == name) for key, name in FILL_ESTIMATES.items()}
    tables = {place: rows for place, rows in tables.items() if rows.height}
    if not any(section == "costs" for section, _ in tables):
        raise StoreError(
            f"no cost has {header['min_samples']} samples: nothing is written",
            where={"orders": sum(header["samples"].values())},
            fix="take a longer window (window_days), more journals, or trade on",
        )
    exponent = known.filter(pl.col("estimate") == EXPONENT)["value"]
    said: dict[str, Any] = {"measured": dict(header), "costs": {}, "fills": {}}
    lines = [*_header_lines(header), "", "[costs]"]
    if len(exponent):
        said["costs"][EXPONENT] = exponent[0]
        lines.append(f"{EXPONENT} = {exponent[0]!r}")
    for (section, key), rows in tables.items():
        said[section][key] = dict(zip(rows["instrument"], rows["value"], strict=True))
        lines += ["", f"[{section}.{key}]", *map(_value_line, rows.iter_rows(named=True))]
    text = f'{HEAD}format = {FORMAT}\nsha256 = "{content_hash(said)}"\n\n' + "\n".join(lines) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except OSError as error:
        raise StoreError(
            f"the calibration cannot be written: {error.strerror or error}",
            where={"path": path},
            fix="check the folder, its permissions and free space",
        ) from error
    return path


def _header_lines(header: Mapping[str, Any]) -> list[str]:
    plain = {key: value for key, value in header.items() if key not in ("samples", "journals")}
    lines = ["[measured]", *(f"{key} = {json.dumps(value)}" for key, value in plain.items())]
    lines += ["", "[measured.samples]", *(f"{json.dumps(name)} = {n}" for name, n in header["samples"].items())]
    for journal in header["journals"]:
        lines += ["", "[[measured.journals]]", *(f"{key} = {json.dumps(value)}" for key, value in journal.items())]
    return lines


def _value_line(row: Mapping[str, Any]) -> str:
    ends = " to ".join("unknown" if end is None else f"{end:.6g}" for end in (row["low"], row["high"]))
    return f"{json.dumps(row['instrument'])} = {row['value']!r}  # {ends}, {row['n_samples']} samples"
