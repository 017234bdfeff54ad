"""A ccxt client of one account: keys from the environment or the keyring, never from a configuration."""

import os
from collections.abc import Mapping
from typing import Any

from basis_bt.core.errors import ConfigError
from basis_bt.core.live_models import Account
from basis_bt.market.exchange import open_client
from basis_bt.market.venue_history import VENUES

NEEDS_PASSWORD = ("okx", "kucoin", "kucoinfutures", "bitget")


class Keys:
    """Key, secret and password of an account; shows none of them."""

    __slots__ = ("key", "password", "secret")

    def __init__(self, key: str, secret: str, password: str = "") -> None:
        self.key, self.secret, self.password = key, secret, password

    def __repr__(self) -> str:
        return "Keys(***)"

    @property
    def values(self) -> list[str]:
        """What must appear nowhere."""
        return [value for value in (self.key, self.secret, self.password) if value]


def read_keys(venue: str, account: Account, *, environment: Mapping[str, str] | None = None) -> Keys:
    """The keys of an account: environment variables, else the keyring where the configuration says so.

    Raises
    ------
    ConfigError
        Naming what is missing, never what was found.
    """
    environment = os.environ if environment is None else environment
    names = account.variables(venue)
    found = {field: environment.get(name, "") for field, name in names.items()}
    if account.keyring:
        found |= {
            field: found[field] or _from_keyring(account.keyring_service, name) for field, name in names.items()
        }
    needed = ["key", "secret", *(["password"] if venue in NEEDS_PASSWORD else [])]
    missing = [names[field] for field in needed if not found[field]]
    if missing:
        raise ConfigError(
            f"no keys for {venue}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set",
            where={"venue": venue},
            fix=f"export {missing[0]}=..., or keep them in the system's keyring and set live.venues.{venue}.keyring",
        )
    return Keys(found["key"], found["secret"], found["password"])


def _from_keyring(service: str, name: str) -> str:
    try:
        import keyring
    except ImportError:
        raise ConfigError(
            "reading keys from the keyring needs the package keyring", fix='pip install "basis-bt[keyring]"'
        ) from None
    return keyring.get_password(service, name) or ""


def open_account(venue: str, account: Account, *, keys: Keys | None, timeout_s: float) -> Any:
    """An asynchronous ccxt client of an account, or of public data alone without keys; its own retries are off."""
    import ccxt.async_support as ccxt

    config: dict[str, Any] = {"timeout": int(timeout_s * 1000), "options": dict(account.options)}
    if keys is not None:
        config |= {"apiKey": keys.key, "secret": keys.secret, "password": keys.password}
    if venue in VENUES:
        client = open_client(venue, base_url=account.base_url, config=config)
    elif hasattr(ccxt, venue):
        client = getattr(ccxt, venue)({"enableRateLimit": True, **config})
        client.options["maxRetriesOnFailure"] = 0
    else:
        raise ConfigError(f"ccxt knows no venue {venue!r}", fix=f"one of {', '.join(sorted(VENUES))}, or an id of ccxt")
    if account.mode == "sandbox":
        client.set_sandbox_mode(True)
    elif account.mode == "demo":
        client.enable_demo_trading(True)
    return client
