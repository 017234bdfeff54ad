"""What a market folder holds, one row a series, remembered between calls so that only changed files are read again.

The record lies below the user's cache folder (``BASIS_BT_CACHE``, else ``XDG_CACHE_HOME``, else ``~/.cache``), never in
the market folder. It keeps size, time of change and hash of every file; a file of the same size and time is taken as
unchanged. A record that is damaged, or of another version, is made anew; where none can be kept, every call reads all.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.market.coverage import Holding, coverage, holdings, read_columns, universe_symbol
from basis_bt.market.schemas import TS
from basis_bt.market.write import replace_bytes

VERSION = 1
COLUMNS: dict[str, Any] = {
    "series": pl.String, "kind": pl.String, "venue": pl.String, "symbol": pl.String, "source": pl.String,
    "path": pl.String, "first": TS, "last": TS, "rows": pl.Int64, "bar_hours": pl.Float64, "settlements": pl.Int64,
    "intervals": pl.String, "interval_changes": pl.Int64, "holes": pl.Int64, "missing": pl.Int64,
    "duplicates": pl.Int64, "unsorted": pl.Boolean, "bytes": pl.Int64, "sha256": pl.String,
    "months": pl.List(pl.Float64), "error": pl.String,
}  # fmt: skip


def catalogue(root: Path, *, refresh: bool = False) -> pl.DataFrame:
    """One row per series below a market folder, with its coverage; see ``COLUMNS``.

    ``source`` tells a series of its own file (``file``), one in parts (``folder``) and an instrument of a long-format
    funding file (``universe``; ``path``, ``bytes`` and ``sha256`` are those of the whole file). ``bar_hours`` is the
    commonest spacing; ``missing`` counts bars or settlements, in ``holes`` places; both are null for series that
    have no grid. ``intervals`` are in the order in which they first occur. ``months`` is the share of each calendar
    month covered, from the month of ``first`` to that of ``last``: by hours for bars and funding, by days with a row
    for the rest. The hash of a folder is that of the hashes of its parts. What cannot be read is a row with ``error``.

    Parameters
    ----------
    root : the market folder; any Path, remote ones too
    refresh : read every file again and begin the record anew, forgetting the hashes known before

    Raises
    ------
    DataError
        If the folder is missing.
    """
    found, _ = holdings(root)
    before = {} if refresh else _load(root)
    after: dict[str, Any] = {}
    for holding in found:
        stats = {name: _size_and_time(path) for name, path in holding.files}
        known = before.get(f"{holding.source} {holding.path}")
        if known is None or not _is_current(known, stats):
            known = _look(holding, stats, known)
        after[f"{holding.source} {holding.path}"] = known
    if after != before:
        _save(root, after)
    rows = [_with_instants(row) for entry in after.values() for row in entry["rows"]]
    twice = {path for path in (row["path"] for row in rows) if f"{path}.parquet" in {row["path"] for row in rows}}
    for row in rows:
        if row["path"].removesuffix(".parquet") in twice:
            row["error"] = "it lies both in a file and in a folder of parts: keep one of them"
    return pl.DataFrame(rows, schema=COLUMNS)


def changed_inputs(root: Path, *, used: Mapping[str, str] | None = None) -> list[str]:
    """A sentence for every recorded file whose bytes are no longer those recorded.

    A file of the recorded size and time but with other bytes has been damaged; any other has been replaced, also when
    ``catalogue`` has met the new one since. ``catalogue(root, refresh=True)`` records what is there as right.

    Parameters
    ----------
    root : the market folder
    used : path below the folder -> SHA-256 of the bytes that were read; only these files are judged then, and none is
        read again
    """
    sentences = []
    for entry in _load(root).values():
        for name, (size, time_ns, sha256, earlier) in entry["files"].items():
            path = root / name
            if (used is not None and name not in used) or not path.is_file():
                continue
            stats = _size_and_time(path)
            now = used[name] if used is not None else _hash_of(path)
            if now != sha256 and stats == [size, time_ns]:
                sentences.append(
                    f"{name} has other bytes at the same size and time of change: "
                    f"damaged, sha256 {now[:12]}, recorded {sha256[:12]}"
                )
            elif now != sha256 or (earlier and now != earlier[0]):
                was, day = (sha256, "earlier") if now != sha256 else (earlier[0], f"before {earlier[1]}")
                sentences.append(f"{name} was replaced: sha256 {now[:12]}, {was[:12]} {day}")
    return sentences


def cache_path(root: Path) -> Path:
    """The file that remembers a market folder."""
    local = type(root).__module__.startswith("pathlib")
    name = str(root.resolve() if local else root)
    file = f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.json"
    if "BASIS_BT_CACHE" in os.environ:
        home = Path(os.environ["BASIS_BT_CACHE"])
    else:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "basis_bt"
    return _writable(home / "catalogues") / file


def _is_current(known: dict[str, Any], stats: dict[str, list[int]]) -> bool:
    """Whether an entry is of these files as they are, and could be read at all."""
    return {name: file[:2] for name, file in known["files"].items()} == stats and all(
        file[2] for file in known["files"].values()
    )


def _look(holding: Holding, stats: dict[str, list[int]], known: dict[str, Any] | None) -> dict[str, Any]:
    """Read the files of a series and say what they hold."""
    key = holding.key
    universe = holding.source == "universe"
    base = {
        "series": key.series, "kind": key.kind or key.spec.of or None, "venue": key.venue, "symbol": key.symbol,
        "source": holding.source, "path": holding.path, "bytes": sum(size for size, _ in stats.values()),
    }  # fmt: skip
    frames, hashes = [], {}
    error = None
    for name, path in holding.files:
        try:
            frame, hashes[name] = read_columns(path, ["ts", "instrument"] if universe else key.spec.key or ["ts"])
            frames.append(frame)
        except DataError as reason:
            hashes[name] = _hash_of(path)
            error = error or f"{name}: {reason.what}"
    joined = "".join(f"{name}\0{sha}\n" for name, sha in hashes.items()).encode()
    base["sha256"] = next(iter(hashes.values())) if holding.source != "folder" else hashlib.sha256(joined).hexdigest()
    rows: list[dict[str, Any]] = [base | {"error": error}]
    if error is None and universe:
        groups = frames[0].sort("instrument", maintain_order=True).partition_by("instrument", as_dict=True)
        rows = [
            base | {"symbol": universe_symbol(str(instrument))} | coverage(group, key=key)
            for (instrument,), group in groups.items()
        ]
    elif error is None:
        rows = [base | coverage(pl.concat(frames, how="vertical_relaxed"), key=key)]
    today = datetime.now(UTC).date().isoformat()
    recorded = (known or {}).get("files", {})
    files = {}
    for name, stat in stats.items():
        _, _, was, earlier = recorded.get(name, (0, 0, hashes[name], None))
        files[name] = [*stat, hashes[name], earlier if was == hashes[name] else [was, today]]
    return {"files": files, "rows": [_without_instants(row) for row in rows]}


def _hash_of(path: Path) -> str:
    with contextlib.suppress(OSError):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return ""


def _size_and_time(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError:  # gone since the folder was listed
        return [0, 0]
    time_ns = getattr(stat, "st_mtime_ns", None)
    return [int(stat.st_size), int(stat.st_mtime * 1e9) if time_ns is None else int(time_ns)]


def _without_instants(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


def _with_instants(row: dict[str, Any]) -> dict[str, Any]:
    instants = {name: datetime.fromisoformat(row[name]) for name in ("first", "last") if row.get(name)}
    return {**dict.fromkeys(COLUMNS), **row, **instants}


def _load(root: Path) -> dict[str, Any]:
    """The record of a folder by series; empty if there is none that can be used."""
    try:
        record = json.loads(cache_path(root).read_bytes())
        if record["version"] != VERSION:
            return {}
        for entry in record["series"].values():
            if not all(len(file) == 4 for file in entry["files"].values()):
                return {}
            for row in entry["rows"]:
                _with_instants(row)
        return record["series"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _save(root: Path, entries: dict[str, Any]) -> None:
    record = {"version": VERSION, "root": str(root), "series": entries}
    with contextlib.suppress(DataError, OSError):
        replace_bytes(cache_path(root), json.dumps(record, separators=(",", ":")).encode())


def _writable(folder: Path) -> Path:
    """The folder, or one below the system's for temporary files where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return Path(tempfile.gettempdir()) / f"basis_bt-{os.getuid()}" / folder.name
    return folder
