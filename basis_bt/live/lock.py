"""One at a time: a lock file that names its holder and is free again the moment the holder dies."""

import contextlib
import fcntl
import hashlib
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from basis_bt.core.errors import StoreError


class FileLock:
    """A lock held on a file until ``close``, or until the process ends, however it ends.

    The kernel keeps it (``flock``), so a dead process leaves no lock behind, only a file that the next holder takes.

    Parameters
    ----------
    path : the lock file; its folder is made if it is missing
    what : what is locked, for the message to whoever comes second

    Raises
    ------
    StoreError
        At once, if another process (or this one) holds it: names process and host.
    """

    def __init__(self, path: Path, *, what: str) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115 - held as long as the lock is
        except OSError as error:
            raise StoreError(
                f"{what} cannot be locked: {error.strerror}", where={"path": self.path}, fix="check its permissions"
            ) from error
        self._file: Any = file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "a process that has not yet said which"
            file.close()
            raise StoreError(
                f"{what} is in use by another instance: {holder}",
                where={"lock": self.path},
                fix="stop that one first; there is nothing to remove by hand, a dead process holds no lock",
            ) from None
        except OSError as error:
            file.close()
            raise StoreError(
                f"{what} cannot be locked: {error.strerror}",
                where={"path": self.path},
                fix="choose a folder on a local disk: this file system has no locks",
            ) from error
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        file.flush()

    def close(self) -> None:
        """Let go of it; a second time does nothing. The file stays: removing it would let two in."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AccountLock:
    """One instance an account, whatever folder it journals to: locks for all accounts given, or for none of them.

    Parameters
    ----------
    accounts : pairs of venue and key id (the public part of the key); only their hash is written
    folder : where the lock files lie; ``default_folder()`` if not given

    Raises
    ------
    StoreError
        At once, if another instance trades on one of the accounts: names venue, process and host, never the key id.
    """

    def __init__(self, accounts: Iterable[tuple[str, str]], folder: Path | None = None) -> None:
        where = default_folder() if folder is None else Path(folder)
        self._locks: list[FileLock] = []
        try:
            for venue, key_id in sorted(set(accounts)):
                lock = FileLock(where / f"{account_name(venue, key_id)}.lock", what=f"the account at {venue}")
                self._locks.append(lock)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of all of them."""
        while self._locks:
            self._locks.pop().close()

    def __enter__(self) -> "AccountLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def account_name(venue: str, key_id: str) -> str:
    """Sixteen hex digits that stand for an account without telling its key."""
    return hashlib.sha256(f"{venue}:{key_id}".encode()).hexdigest()[:16]


def default_folder() -> Path:
    """``$XDG_STATE_HOME/basis_bt/locks``, by default under ``~/.local/state``: one for all journals."""
    state = os.environ.get("XDG_STATE_HOME", "")
    root = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return root / "basis_bt" / "locks"
