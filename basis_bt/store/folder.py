"""One run, one folder: ``manifest.json`` and a parquet file per table, written whole or not at all.

A run is written into a hidden sibling (``.<name>.<pid>.tmp``), flushed to disk and renamed into place, so a reader sees
all of it or none. An overwrite first moves the old run to ``.<name>.<pid>.old``; if the process dies between the two
renames, the next reader or writer moves it back. Every file is verified on reading: tables by the sha256 in the
manifest, the manifest by the sha256 of itself.
"""

import contextlib
import difflib
import hashlib
import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.core.errors import ConfigError, StoreError

MANIFEST = "manifest.json"
MANIFEST_HASH = "manifest_sha256"
SWAP_SECONDS = 0.2  # how long a reader waits for another process to finish its two renames

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TABLE_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TABLE_FILE = re.compile(r"[a-z][a-z0-9_]*(/[0-9]{5,})?\.parquet")  # a table, or a part of one


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as read from its folder: where it lies, what its manifest says, and its tables by name."""

    path: Path
    manifest: dict[str, Any]
    tables: dict[str, pl.DataFrame]


def check_run_name(name: str) -> str:
    """The name itself, if it can be a folder: letters, digits and ``._-``, a letter or digit first, 100 at most.

    Raises
    ------
    ConfigError
        For every other name, also one that would lead out of the runs folder.
    """
    if not isinstance(name, str) or not _RUN_NAME.fullmatch(name):
        shown = repr(name) if len(repr(name)) <= 60 else repr(name)[:57] + "..."
        raise ConfigError(
            f"{shown} is not a run name",
            where={"key": "name"},
            fix="use 1 to 100 letters, digits, '.', '_' or '-', beginning with a letter or digit",
        )
    return name


def check_target(root: Path, *, name: str, overwrite: bool = False) -> Path:
    """The folder a run of this name would be written to; refused if it is taken or leads elsewhere.

    Cheap: ask before a long computation, and ``save_run`` asks again.
    """
    target = Path(root) / check_run_name(name)
    _restore_interrupted(Path(root))
    if target.is_symlink():
        raise StoreError(
            f"run {name!r} is a symbolic link; runs are not written through links",
            where={"path": target},
            fix="remove the link or choose another name",
        )
    if target.exists() and not overwrite:
        raise StoreError(
            f"run {name!r} exists already",
            where={"path": target},
            fix="choose another name, or ask for the old one to be replaced (overwrite)",
        )
    if target.exists() and not (target / MANIFEST).is_file():
        raise StoreError(
            f"{name!r} exists and is not a run (no {MANIFEST}), so it is not overwritten",
            where={"path": target},
            fix="choose another name or move the folder away",
        )
    return target


def save_run(
    root: Path,
    *,
    name: str,
    tables: Mapping[str, pl.DataFrame],
    manifest: Mapping[str, Any],
    overwrite: bool = False,
) -> Path:
    """Write one run folder and return its path; equal tables give equal bytes.

    ``outputs`` (sha256 of each table file) and the hash of the manifest itself are filled in here.

    Parameters
    ----------
    root : the folder of all runs; made if it is missing
    name : see ``check_run_name``
    tables : table name -> DataFrame
    manifest : what JSON can hold, and datetimes, paths and numpy scalars
    overwrite : replace a run of the same name, in one step that a kill cannot leave half done

    Raises
    ------
    ConfigError
        If the name is not a run name.
    StoreError
        If the name is taken, or the run cannot be written; what was there before is unchanged then.
    """
    root = Path(root)
    target = check_target(root, name=name, overwrite=overwrite)
    for table in tables:
        if not _TABLE_NAME.fullmatch(table):
            raise StoreError(f"{table!r} is not a table name", fix="use lower-case letters, digits and '_'")
    building = root / f".{name}.{os.getpid()}.tmp"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep_leftovers(root, name=name)
        building.mkdir()
        outputs = {f"{table}.parquet": write_table(frame, building / f"{table}.parquet")
                   for table, frame in sorted(tables.items())}  # fmt: skip
        text = manifest_text({**manifest, "name": name, "outputs": outputs})
        write_bytes(text.encode(), building / MANIFEST)
        sync_folder(building)
        move_into_place(building, target)
    except OSError as error:
        raise StoreError(
            f"run {name!r} could not be written: {error.strerror or error}",
            where={"path": target, "bytes": sum(frame.estimated_size() for frame in tables.values())},
            fix="check free space and permissions; nothing was kept of the new run",
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def load_run(path: Path) -> StoredRun:
    """Read a run folder, every byte of it verified against the manifest.

    Raises
    ------
    StoreError
        If the folder is missing, leads elsewhere, is not a run, or any file is missing or damaged.
    """
    path = Path(path)
    manifest = read_manifest(path)
    names = dict.fromkeys(table_of(file) for file in sorted(manifest["outputs"]))
    return StoredRun(path=path, manifest=manifest, tables={name: _table(path, manifest, name) for name in names})


def load_table(path: Path, table: str) -> pl.DataFrame:
    """One table of a run folder, verified like ``load_run``."""
    return _table(Path(path), read_manifest(path), table)


def _table(path: Path, manifest: Mapping[str, Any], table: str) -> pl.DataFrame:
    own = [file for file in manifest["outputs"] if table_of(file) == table]
    files = sorted(own, key=lambda file: (len(file), file))  # 100000 after 99999
    parts = [read_table(path / file, sha256=manifest["outputs"][file]) for file in files]
    return parts[0] if len(parts) == 1 else pl.concat(parts)


def table_of(file: str) -> str:
    """The table that a file of a run holds, or a part of: ``metrics`` of ``metrics/00003.parquet``."""
    return file.removesuffix(".parquet").partition("/")[0]


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run folder, verified against its own hash."""
    path = Path(path)
    _check_inside(path)
    try:
        raw = (path / MANIFEST).read_bytes()
    except OSError as error:
        found = "there is no such folder" if not path.is_dir() else f"{MANIFEST}: {error.strerror}"
        raise StoreError(
            f"{path.name!r} is not a run: {found}", where={"path": path}, fix="basis-bt ls shows the runs"
        ) from error
    try:
        manifest = json.loads(raw)
        sound = manifest[MANIFEST_HASH] == _manifest_hash(manifest)
        sound = sound and all(_TABLE_FILE.fullmatch(file) and isinstance(digest, str)
                              for file, digest in manifest["outputs"].items())  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise StoreError(
            f"the manifest of run {path.name!r} is damaged or was edited",
            where={"path": path / MANIFEST},
            fix="restore it from a copy, or run again with the same configuration",
        )
    return manifest


def list_runs(root: Path) -> list[dict[str, Any]]:
    """One dictionary per run folder, oldest first, from manifests and one-row metrics alone.

    Keys: ``run``, ``path``, ``created``, ``manifest``, ``metrics`` (first row, or empty) and ``error``, which is None
    or the sentence that says what is wrong with that folder; broken folders come last.
    """
    root = Path(root)
    _restore_interrupted(root)
    listing = [_list_one(path) for path in _run_folders(root)]
    return sorted(listing, key=lambda row: (row["error"] is not None, row["created"] or "", row["run"]))


def resolve_run(root: Path, name_or_path: str) -> Path:
    """The folder of a run given by its name under ``root`` or by a path.

    Raises
    ------
    StoreError
        If there is none; names the nearest existing runs.
    """
    root = Path(root)
    _restore_interrupted(root)
    by_name = bool(_RUN_NAME.fullmatch(name_or_path))
    path = root / name_or_path if by_name else Path(name_or_path)
    if by_name and not os.path.lexists(path) and (Path(name_or_path) / MANIFEST).is_file():
        path = Path(name_or_path)
    if "\0" not in name_or_path and os.path.lexists(path):
        _check_inside(path)
        return path
    names = [folder.name for folder in _run_folders(root)]
    near = difflib.get_close_matches(name_or_path, names, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "basis-bt ls shows the runs; --runs names their folder"
    raise StoreError(f"there is no run {name_or_path!r}", where={"runs": root, "found": len(names)}, fix=hint)


def _run_folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(
            f"the runs folder cannot be read: {error.strerror}",
            where={"path": root},
            fix="give the folder that holds the runs",
        ) from error


def _list_one(path: Path) -> dict[str, Any]:
    row: dict[str, Any] = {
        "run": path.name, "path": path, "created": None, "manifest": {}, "metrics": {}, "error": None,
    }  # fmt: skip
    try:
        manifest = read_manifest(path)
        row.update(manifest=manifest, created=str(manifest.get("created") or ""))
        digest = manifest["outputs"].get("metrics.parquet")
        if "sweep" in manifest:
            row["metrics"] = manifest["sweep"]["best"] or {}
        elif digest is not None:
            row["metrics"] = next(iter(read_table(path / "metrics.parquet", sha256=digest).iter_rows(named=True)), {})
    except StoreError as error:
        row["error"] = error.what
    return row


def _check_inside(path: Path) -> None:
    """Refuse a run folder that is a link to somewhere outside the folder it lies in."""
    try:
        leads_out = path.is_symlink() and path.parent.resolve() not in path.resolve(strict=True).parents
    except (OSError, RuntimeError, ValueError):
        leads_out = True
    if leads_out:
        raise StoreError(
            f"run {path.name!r} is a symbolic link that leads out of the runs folder",
            where={"path": path},
            fix="name the folder it leads to, or copy the run here",
        )


def write_table(frame: pl.DataFrame, path: Path) -> str:
    """Write a table that is not there yet, flushed to disk; returns its sha256."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    arrow = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    pq.write_table(arrow, buffer, compression="zstd", write_page_checksum=True)
    return write_bytes(buffer.getvalue(), path)


def write_bytes(data: bytes, path: Path) -> str:
    """Write a file that is not there yet, flushed to disk; returns its sha256."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(data).hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears complete or not at all; one that is there is replaced."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.unlink(missing_ok=True)
    try:
        write_bytes(data, draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def name_of(path: Path) -> tuple[str, str]:
    """The table and the run that a file of a run folder, whole or a part, belongs to."""
    is_part = path.stem.isdigit()
    return (path.parent.name, path.parent.parent.name) if is_part else (path.stem, path.parent.name)


def read_table(path: Path, *, sha256: str) -> pl.DataFrame:
    """Read a table whose bytes are those of a manifest.

    Raises
    ------
    StoreError
        If it is missing, leads elsewhere, or is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    where, name = {"path": path}, name_of(path)[0]
    fix = "restore the file from a copy, or run again with the same configuration"
    try:
        if path.is_symlink():
            raise StoreError(f"table {name!r} is a symbolic link, not a file of the run", where=where, fix=fix)
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"table {name!r} cannot be read: {error.strerror}", where=where, fix=fix) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        facts = {**where, "bytes": len(data), "sha256": found[:12], "manifest": sha256[:12]}
        raise StoreError(f"table {name!r} is damaged: its bytes are not those that were written",
                         where=facts, fix=fix)  # fmt: skip
    try:
        return pl.DataFrame(pl.from_arrow(pq.read_table(pa.BufferReader(data))))
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as error:
        raise StoreError(f"table {name!r} is not a readable parquet file", where=where, fix=fix) from error


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """A manifest as JSON with its own hash in it."""
    try:
        # once through JSON, so that the hash is of what a reader will see
        plain = json.loads(json.dumps(manifest, default=_plain, allow_nan=False))
        plain[MANIFEST_HASH] = _manifest_hash(plain)
        return json.dumps(plain, sort_keys=True, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"the manifest cannot be written as JSON: {error}",
            fix="keep to text, finite numbers, lists, mappings, datetimes and paths",
        ) from error


def _manifest_hash(manifest: Mapping[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != MANIFEST_HASH}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat() if value.tzinfo else value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def move_into_place(building: Path, target: Path) -> None:
    """Rename the finished folder; an old run steps aside first and comes back if that fails."""
    aside = building.with_name(building.name.removesuffix(".tmp") + ".old")
    replacing = target.exists()
    if replacing:
        shutil.rmtree(aside, ignore_errors=True)  # the target is whole: what a dead process left
        os.rename(target, aside)
    try:
        os.rename(building, target)
    except BaseException:
        if replacing:
            os.rename(aside, target)
        raise
    sync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _asides(root: Path) -> Iterator[tuple[Path, Path]]:
    """Old runs that stepped aside for an overwrite, each with the place it came from."""
    with contextlib.suppress(OSError):
        for path in sorted(root.glob(".*.old")):
            name = path.name[1:].removesuffix(".old").rpartition(".")[0]
            if _RUN_NAME.fullmatch(name):
                yield path, root / name


def _restore_interrupted(root: Path) -> None:
    """Undo an overwrite that died between its two renames.

    Safe beside a living one: a rename onto a folder with content fails, so one of the two runs stays whole.
    """
    missing = [(aside, target) for aside, target in _asides(root) if not os.path.lexists(target)]
    if missing:
        time.sleep(SWAP_SECONDS)
    for aside, target in missing:
        if not os.path.lexists(target):
            with contextlib.suppress(OSError):
                os.rename(aside, target)


def _sweep_leftovers(root: Path, *, name: str) -> None:
    """Remove what dead processes (and this one) left behind under this name."""
    for path in root.glob(f".{name}.*.tmp"):
        pid = path.name.removeprefix(f".{name}.").removesuffix(".tmp")
        if pid.isdigit() and (int(pid) == os.getpid() or not _alive(int(pid))):
            shutil.rmtree(path, ignore_errors=True)
    for aside, target in _asides(root):
        if target.name == name and target.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def sync_folder(path: Path) -> None:
    """Flush the names of a folder to disk."""
    with contextlib.suppress(OSError):  # not every file system can flush a folder
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
