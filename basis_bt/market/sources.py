"""From the paths a user gives to the bytes of files: folders walked, archives unpacked in memory, one at a time."""

import gzip
import hashlib
import io
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from basis_bt.core.errors import DataError
from basis_bt.market.importers.base import Source

IGNORED_SUFFIXES = (".md", ".tmp", ".checksum")
_ZIP, _GZIP = b"PK\x03\x04", b"\x1f\x8b"
_EMPTY_ZIP = b"PK\x05\x06"
_ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    LookupError,
    OverflowError,
)
_FIX = "fetch the file again"


class FoundFile(NamedTuple):
    """A file on disk, and its path below what the user gave."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Found:
    """Files to read, sorted by name, and how many were left alone by reason."""

    files: list[FoundFile]
    ignored: Counter[str] = field(default_factory=Counter)


def find_files(paths: Iterable[Path | str]) -> Found:
    """All files that may hold data, sorted; README and ``.md`` files, hidden and ``.tmp`` ones are counted only.

    Raises
    ------
    DataError
        If a path does not exist or a folder cannot be listed.
    """
    files: dict[Path, FoundFile] = {}
    ignored: Counter[str] = Counter()
    for given in map(Path, paths):
        if given.is_dir():
            for path in _walk(given):
                reason = _reason_to_ignore(path.relative_to(given))
                if reason:
                    ignored[reason] += 1
                else:
                    files.setdefault(path.absolute(), FoundFile(path, path.relative_to(given).as_posix()))
        elif os.path.lexists(given):
            files.setdefault(given.absolute(), FoundFile(given, given.name))
        else:
            raise DataError("there is no such file or folder", where={"source": given}, fix="check the path")
    return Found(sorted(files.values(), key=lambda file: (file.name, str(file.path))), ignored)


def read_sources(file: FoundFile) -> Iterator[tuple[str, Source | DataError]]:
    """The name and the bytes of every member of a file, lazily; a member that cannot be read comes as its error.

    A ``.CHECKSUM`` beside the file (``sha256sum`` form) is held against it.
    """
    try:
        data = file.path.read_bytes()
        _verify(file, data)
    except OSError as error:
        reason = error.strerror or str(error)
        yield (
            file.name,
            DataError(f"the file cannot be read: {reason}", where={"file": file.path}, fix="check its rights"),
        )
        return
    except DataError as error:
        yield file.name, error
        return
    yield from _unpack(file.path, file.name, data)


def _walk(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        reason = error.strerror or str(error)
        raise DataError(
            f"the folder cannot be listed: {reason}", where={"folder": error.filename}, fix="check its rights"
        )

    for where, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        for name in sorted(names):
            yield Path(where, name)


def _reason_to_ignore(path: Path) -> str:
    if any(part.startswith((".", "__MACOSX")) for part in path.parts):
        return "hidden"
    name = path.name.lower()
    if name.endswith(IGNORED_SUFFIXES):
        return name.rsplit(".", 1)[-1]
    return "readme" if name.split(".")[0] == "readme" else ""


def _verify(file: FoundFile, data: bytes) -> None:
    for suffix in (".CHECKSUM", ".checksum"):
        beside = file.path.with_name(file.path.name + suffix)
        if beside.is_file():
            words = beside.read_text(errors="replace").split()
            found = hashlib.sha256(data).hexdigest()
            if not words or words[0].lower() != found:
                raise DataError(
                    "the file is not the one its checksum was made for",
                    where={"file": file.path, "sha256": found, beside.name: words[0] if words else "empty"},
                    fix="fetch both again: archives are replaced now and then",
                )
            return


def _unpack(path: Path, name: str, data: bytes) -> Iterator[tuple[str, Source | DataError]]:
    if data.startswith((_ZIP, _EMPTY_ZIP)) and not name.lower().endswith(".xlsx"):
        yield from _unzip(path, name, data)
    elif data.startswith(_GZIP):
        try:
            yield from _unpack(path, name.removesuffix(".gz"), gzip.decompress(data))
        except _ARCHIVE_ERRORS as error:
            yield name, DataError(f"the gzip file is damaged: {error}", where={"file": name}, fix=_FIX)
    elif not data:
        yield name, DataError("the file is empty", where={"file": name}, fix=_FIX)
    elif name.lower().endswith(".zip"):
        yield name, DataError("the file is no zip archive: its first bytes are wrong", where={"file": name}, fix=_FIX)
    else:
        yield name, Source(path=path, name=name, data=data)


def _unzip(path: Path, name: str, data: bytes) -> Iterator[tuple[str, Source | DataError]]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _ARCHIVE_ERRORS as error:
        yield name, DataError(f"the zip archive is cut or damaged: {error}", where={"file": name}, fix=_FIX)
        return
    with archive:
        members = sorted(
            (m for m in archive.infolist() if not m.filename.endswith("/")), key=lambda member: member.filename
        )
        members = [member for member in members if not _reason_to_ignore(Path(member.filename))]
        if not members:
            yield name, DataError("the zip archive has no members", where={"file": name}, fix=_FIX)
        for member in members:
            inner = f"{name}/{member.filename}"
            try:
                plain = archive.read(member)
            except _ARCHIVE_ERRORS as error:
                yield inner, DataError(f"a member of the archive is damaged: {error}", where={"file": inner}, fix=_FIX)
                continue
            yield from _unpack(path, inner, plain)
