"""A run that is written part by part: a sweep under way, which a kill at any moment leaves resumable.

Until it is complete it is a hidden sibling of the runs (``.<name>.sweep``) with ``plan.json`` (what it is a sweep of),
``lock`` (held by the process that writes it), ``metrics/00000.parquet`` and so on, each renamed into place when it is
whole, and ``parts.jsonl`` with the hash of each. When the last part is there the manifest is written, the folder
renamed to the run's name, and what only an unfinished sweep needs is taken out of it: until that rename, everything is
there for a later process.
"""

import contextlib
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.core.errors import StoreError
from basis_bt.store import folder

PLAN, LOCK, PARTS = "plan.json", "lock", "parts.jsonl"


class PartialRun:
    """The folder of a sweep that is being written; use as a context manager, which holds its lock.

    Parameters
    ----------
    root, name : the folder of all runs, the name of this one
    plan : what decides every byte of the result; a sweep is resumed only with the same
    resume : go on with what an earlier process left; without any, begin
    overwrite : drop what an earlier process left, and replace a complete run of the name at the end

    Raises
    ------
    StoreError
        If the name is taken, another process writes it, or the plan is not that of the parts already there.
    """

    def __init__(
        self, root: Path, *, name: str, plan: Mapping[str, Any], resume: bool = False, overwrite: bool = False
    ) -> None:
        self.root, self.name, self.overwrite = Path(root), name, overwrite
        folder.check_run_name(name)
        self.path = self.root / f".{name}.sweep"
        self._done: dict[int, str] = {}
        #: what was said of each part as it was written
        self.said: dict[int, dict[str, Any]] = {}
        self._lock: Any = None
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            if resume and self._is_begun():
                self.overwrite = overwrite or self._read_plan().get("overwrite", False)
            folder.check_target(self.root, name=name, overwrite=self.overwrite)
            self._open(plan, resume=resume)
        except OSError as error:
            self.close()
            raise self._failed(error, "nothing was written") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "PartialRun":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the lock; the parts stay for a later process, without any the folder goes."""
        if self._lock is None:
            return
        if self._is_ours() and not (self._is_begun() and self._journal()[0]):
            trash = self.path.with_name(f".{self.name}.{os.getpid()}.tmp")  # at once: nobody locks what is half gone
            with contextlib.suppress(OSError):
                os.rename(self.path, trash)
            shutil.rmtree(trash, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._lock.close()
        self._lock = None

    def discard(self) -> None:
        """Take everything away, where nothing in it is worth going on with."""
        (self.path / PLAN).unlink(missing_ok=True)
        self.close()

    @property
    def done(self) -> set[int]:
        """Numbers of the parts that are there."""
        return set(self._done)

    def write_part(self, number: int, frame: pl.DataFrame, *, said: Mapping[str, Any] | None = None) -> None:
        """Write one part of the metrics, whole or not at all, and what is to be known of it."""
        target = self.path / "metrics" / f"{number:05d}.parquet"
        building = target.with_suffix(".tmp")
        try:
            building.unlink(missing_ok=True)
            digest = folder.write_table(frame, building)
            os.rename(building, target)
            with open(self.path / PARTS, "ab") as journal:
                row = {"part": number, "sha256": digest, "said": dict(said or {})}
                journal.write(json.dumps(row).encode() + b"\n")
                journal.flush()
                os.fsync(journal.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                building.unlink(missing_ok=True)
            raise self._failed(error, "the parts before it are kept: go on with --resume") from error
        self._done[number], self.said[number] = digest, dict(said or {})

    def read_part(self, number: int) -> pl.DataFrame:
        """A part that is there, verified."""
        return folder.read_table(self.path / "metrics" / f"{number:05d}.parquet", sha256=self._done[number])

    def note(self, key: str, values: Mapping[str, Any]) -> None:
        """Add facts to a key of the plan, durably: what was found out on the way and a resumed process must meet."""
        known = self.plan.setdefault(key, {})
        if all(known.get(name) == value for name, value in values.items()):
            return
        known.update(values)
        try:
            self._write_plan()
        except OSError as error:
            raise self._failed(error, "the parts before it are kept: go on with --resume") from error

    def finish(self, *, manifest: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> Path:
        """Write tables and manifest beside the parts and put the run in its place; returns its folder."""
        target = folder.check_target(self.root, name=self.name, overwrite=self.overwrite)
        try:
            outputs = {f"metrics/{number:05d}.parquet": self._done[number] for number in sorted(self._done)}
            for table, frame in sorted(tables.items()):
                path = self.path / f"{table}.parquet"
                path.unlink(missing_ok=True)
                outputs[path.name] = folder.write_table(frame, path)
            text = folder.manifest_text({**manifest, "name": self.name, "outputs": outputs})
            (self.path / folder.MANIFEST).unlink(missing_ok=True)
            folder.write_bytes(text.encode(), self.path / folder.MANIFEST)
            folder.sync_folder(self.path / "metrics")
            folder.sync_folder(self.path)
            folder.move_into_place(self.path, target)
        except OSError as error:
            raise self._failed(error, "the parts are kept: go on with --resume") from error
        for leftover in (PLAN, PARTS, LOCK):
            with contextlib.suppress(OSError):
                (target / leftover).unlink()
        return target

    def _is_begun(self) -> bool:
        return (self.path / PLAN).is_file()

    def _open(self, plan: Mapping[str, Any], *, resume: bool) -> None:
        n_parts = len(self._journal()[0]) if self._is_begun() else 0
        if n_parts and not resume and not self.overwrite:
            raise StoreError(
                f"a sweep {self.name!r} was begun and not finished ({n_parts} parts are there)",
                where={"path": self.path},
                fix="go on with it (--resume), or begin again (--overwrite)",
            )
        if self._is_begun() and resume:
            self.plan = self._read_plan()
            self._check_plan(plan)
            self._done, self.said = self._sound_parts()
        else:
            (self.path / PLAN).unlink(missing_ok=True)
            for leftover in self.path.iterdir():
                if leftover.is_dir() and not leftover.is_symlink():
                    shutil.rmtree(leftover)
                elif leftover.name != LOCK:
                    leftover.unlink()
            self.plan = {**json.loads(json.dumps(plan)), "overwrite": self.overwrite}
            (self.path / "metrics").mkdir()
            self._write_plan()
        for torn in self.path.rglob("*.tmp"):
            torn.unlink()

    def _check_plan(self, plan: Mapping[str, Any]) -> None:
        for key, value in json.loads(json.dumps(plan)).items():
            if self.plan.get(key) != value:
                raise StoreError(
                    f"sweep {self.name!r} cannot be resumed: its {key} has changed",
                    where={"path": self.path, "then": _short(self.plan.get(key)), "now": _short(value)},
                    fix=f"put the {key} back, or begin again (--overwrite)",
                )

    def _sound_parts(self) -> tuple[dict[int, str], dict[int, dict[str, Any]]]:
        sound = {}
        digests, said, is_torn = self._journal()
        for number, digest in digests.items():
            with contextlib.suppress(StoreError):
                folder.read_table(self.path / "metrics" / f"{number:05d}.parquet", sha256=digest)
                sound[number] = digest
        if is_torn:
            with open(self.path / PARTS, "ab") as journal:
                journal.write(b"\n")
        return sound, {number: said[number] for number in sound}

    def _journal(self) -> tuple[dict[int, str], dict[int, dict[str, Any]], bool]:
        """Hashes of the parts by number, what was said of them, and whether the last line is torn: of a part that was
        not finished."""
        digests, said, data = {}, {}, b""
        with contextlib.suppress(FileNotFoundError):
            data = (self.path / PARTS).read_bytes()
        for line in data.split(b"\n"):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                row = json.loads(line)
                number, digest, its = int(row["part"]), str(row["sha256"]), dict(row["said"])
                digests[number], said[number] = digest, its
        return digests, said, bool(data) and not data.endswith(b"\n")

    def _read_plan(self) -> dict[str, Any]:
        try:
            plan = json.loads((self.path / PLAN).read_bytes())
            if isinstance(plan, dict):
                return plan
        except ValueError:
            pass
        raise StoreError(
            f"what was begun of sweep {self.name!r} is damaged",
            where={"path": self.path / PLAN},
            fix="begin again (--overwrite)",
        )

    def _write_plan(self) -> None:
        building = self.path / f"{PLAN}.tmp"
        building.unlink(missing_ok=True)
        folder.write_bytes(json.dumps(self.plan, sort_keys=True, indent=1).encode(), building)
        os.rename(building, self.path / PLAN)

    def _take_lock(self) -> None:
        if self.path.is_symlink():
            raise StoreError(
                f"{self.path.name!r} is a symbolic link; runs are not written through links",
                where={"path": self.path},
                fix="remove the link or choose another name",
            )
        while True:
            self.path.mkdir(exist_ok=True)
            try:
                lock = open(self.path / LOCK, "a+", encoding="utf-8")  # noqa: SIM115 - held as long as the sweep runs
            except FileNotFoundError:
                continue  # another process has just finished, and renamed the folder
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                holder = lock.read().strip() or "unknown"
                lock.close()
                raise StoreError(
                    f"sweep {self.name!r} is being written by another process: {holder}",
                    where={"path": self.path},
                    fix="wait for it, stop it, or choose another name",
                ) from None
            self._lock = lock
            if self._is_ours():
                break
            lock.close()
            self._lock = None
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {socket.gethostname()}")
        lock.flush()

    def _is_ours(self) -> bool:
        """Whether the lock that is held is that of the folder: another process may have taken its away meanwhile."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self.path / LOCK))
        return False

    def _failed(self, error: OSError, kept: str) -> StoreError:
        files = [path for path in self.path.rglob("*") if path.is_file()] if self.path.is_dir() else []
        n_bytes = sum(path.stat().st_size for path in files)
        return StoreError(
            f"sweep {self.name!r} could not be written: {error.strerror or error}",
            where={"path": error.filename or self.path, "bytes": n_bytes},
            fix=f"check free space and permissions; {kept}",
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
