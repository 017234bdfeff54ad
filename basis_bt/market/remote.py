"""Market folders that are not on this machine: ``s3://bucket/folder``, ``gs://bucket/folder``."""

from pathlib import Path
from typing import Any

from basis_bt.core.errors import ConfigError


def market_root(text: str) -> Path:
    """The market folder of a path or a URL; one with ``://`` is read and written through fsspec.

    Credentials and endpoints come from where the store's own tools have them (environment, profiles).

    Raises
    ------
    ConfigError
        If the URL's kind of store is unknown, or the packages for it are not installed.
    """
    if "://" not in text:
        return Path(text)
    try:
        from upath import UPath

        remote: Any = UPath(text)
        remote.fs  # noqa: B018 - opens the store, which is what fails without its package
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{text.partition('://')[0]}:// cannot be opened: {error}",
            where={"root": text},
            fix="install the packages for remote folders: pip install 'basis-bt[s3]' or 'basis-bt[gs]'",
        ) from None
    return remote
