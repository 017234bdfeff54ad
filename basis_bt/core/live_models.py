"""What a user may say of trading for real: the section ``[live]``, one frozen dataclass a subsection."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from basis_bt.core.instruments import KINDS, STRICT
from basis_bt.core.ranges import check_range

PerVenue = float | dict[str, float]
Style = Literal["market", "limit", "limit_then_market", "post_only", "adaptive", "twap"]

#: parts of names of options that carry a credential, in small letters without ``_`` and ``-``
SECRET_NAMES = ("apikey", "secret", "password", "passphrase", "privatekey")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_VENUE = re.compile(r"[a-z][a-z0-9_]*")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


def _check_per_venue(name: str, value: PerVenue | None, *, above: bool) -> None:
    if not isinstance(value, dict):
        check_range(name, value, 0.0, above=above)
        return
    for venue, number in value.items():
        _check_venue(name, venue)
        check_range(f"{name}.{venue}", number, 0.0, above=above)


def _check_venue(name: str, venue: str) -> None:
    if not _VENUE.fullmatch(venue):
        raise ValueError(f"{name}: {venue!r} is not the lower-case name of a venue, e.g. binance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``[live.limits]``: what is not entered, and what stops trading. Exits are never refused by any of these.

    ``max_positions`` counts combos held at once. ``max_notional_usd`` is the gross notional that a venue may hold after
    an entry, one number for each or a table by venue; trading for real is refused without it. ``max_order_usd`` is the
    most that one order may be worth.

    ``max_drawdown_pct`` is of the highest equity so far, ``max_daily_loss_pct`` of the first equity of the UTC day;
    reaching either, or ``max_failed_orders`` within an hour, opens the breaker for ``cooldown_minutes``. Market data
    older than ``data_age_warn_s`` is an alarm, older than ``data_age_stop_s`` stops entries; ``funding_rate_alarm`` is
    the absolute rate of one settlement from which on there is an alarm.

    Before an entry each leg's book must not be older than ``book_age_s``, its quoted spread not over
    ``max_spread_bps``, its expected slippage against mid not over ``max_slippage_bps``, and the order not over
    ``min_depth_share`` of the quantity visible on the side it takes. ``max_clock_offset_s`` is the most that the
    venue's clock may differ from ours.
    """

    __pydantic_config__ = STRICT

    max_positions: int = 1
    max_notional_usd: PerVenue | None = None
    max_order_usd: float | None = None
    max_drawdown_pct: float = 10.0
    max_daily_loss_pct: float = 2.0
    max_failed_orders: int = 5
    data_age_warn_s: float = 30.0
    data_age_stop_s: float = 120.0
    book_age_s: float = 5.0
    funding_rate_alarm: float = 0.005
    cooldown_minutes: float = 60.0
    max_spread_bps: float = 50.0
    max_slippage_bps: float = 20.0
    min_depth_share: float = 0.5
    max_clock_offset_s: float = 1.0

    def __post_init__(self) -> None:
        check_range("max_positions", self.max_positions, 1, 10_000)
        _check_per_venue("max_notional_usd", self.max_notional_usd, above=True)
        check_range("max_order_usd", self.max_order_usd, 0.0, above=True)
        check_range("max_drawdown_pct", self.max_drawdown_pct, 0.0, 100.0, above=True)
        check_range("max_daily_loss_pct", self.max_daily_loss_pct, 0.0, 100.0, above=True)
        check_range("max_failed_orders", self.max_failed_orders, 1, 10_000)
        for name in ("data_age_warn_s", "data_age_stop_s", "book_age_s", "max_clock_offset_s"):
            check_range(name, getattr(self, name), 0.0, above=True)
        if self.data_age_stop_s < self.data_age_warn_s:
            raise ValueError(
                "data_age_stop_s must not be under data_age_warn_s, "
                f"found {self.data_age_stop_s:g} and {self.data_age_warn_s:g}"
            )
        check_range("funding_rate_alarm", self.funding_rate_alarm, 0.0, 1.0, above=True)
        check_range("cooldown_minutes", self.cooldown_minutes, 0.0, 60.0 * 24.0 * 365.0)
        for name in ("max_spread_bps", "max_slippage_bps"):
            check_range(name, getattr(self, name), 0.0, 10_000.0, above=True)
        check_range("min_depth_share", self.min_depth_share, 0.0, 1.0, above=True)

    def notional_limit_usd(self, venue: str) -> float | None:
        """The most that a venue may hold; None where nothing is said of it."""
        if isinstance(self.max_notional_usd, dict):
            return self.max_notional_usd.get(venue)
        return self.max_notional_usd

    def without_notional_limit(self, venues: Iterable[str]) -> list[str]:
        """The venues of those named without a ``max_notional_usd``; live mode refuses to start with any."""
        return [venue for venue in venues if self.notional_limit_usd(venue) is None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """``[live.execution]``: how orders are sent, and how long is waited for what.

    ``style``, of all legs or by kind of instrument (``{perp = "limit_then_market"}``, the other kinds ``market``):
    ``market``; ``limit``, ``limit_offset_bps`` better than mid, cancelled after ``limit_timeout_s``;
    ``limit_then_market``, the same with a market order for the rest; ``post_only``, refused rather than taken at once;
    ``adaptive``, a limit when the volatility of a minute is over ``volatile_pct``, a protected limit when the quoted
    spread is over ``wide_spread_bps``, else market; ``twap``, ``twap_slices`` market orders over ``twap_minutes``.
    ``slippage_limit_bps`` bounds the price of each leg against its own arrival price. A resting order is cancelled when
    the quoted spread passes ``resting_max_spread_bps`` or the order is older than ``resting_max_age_s``.

    A request waits ``request_timeout_s`` for its reply, a leg ``leg_timeout_s`` for its fill. An order whose reply was
    lost is looked up after the pauses of ``look_up_pauses_s`` (the last one repeats); it is missing after
    ``look_ups_to_missing`` look-ups that did not find it and ``missing_after_s``, and not sent again before
    ``grace_s``. A combo whose legs differ is made whole or rolled back within ``naked_s``, in at most
    ``rollback_tries`` orders. Every ``reconcile_s`` positions and balances are compared with the journal.
    """

    __pydantic_config__ = STRICT

    style: Style | dict[str, Style] = "market"
    limit_offset_bps: float = 1.0
    limit_timeout_s: float = 30.0
    twap_slices: int = 5
    twap_minutes: float = 5.0
    volatile_pct: float = 2.0
    wide_spread_bps: float = 50.0
    leg_timeout_s: float = 10.0
    request_timeout_s: float = 10.0
    look_up_pauses_s: list[float] = field(default_factory=lambda: [0.2, 0.5, 1.0, 1.4, 2.0])
    look_ups_to_missing: int = 4
    missing_after_s: float = 3.0
    grace_s: float = 10.0
    naked_s: float = 5.0
    rollback_tries: int = 6
    reconcile_s: float = 10.0
    slippage_limit_bps: float = 100.0
    resting_max_spread_bps: float = 20.0
    resting_max_age_s: float = 60.0

    def __post_init__(self) -> None:
        if isinstance(self.style, dict):
            for kind, style in self.style.items():
                if kind not in KINDS:
                    raise ValueError(f"style: {kind!r} is no kind of instrument: {', '.join(KINDS)}")
                if style == "twap":
                    raise ValueError('style "twap" slices the whole combo: give it for all legs')
        check_range("limit_offset_bps", self.limit_offset_bps, 0.0, 1_000.0)
        check_range("twap_slices", self.twap_slices, 1, 1_000)
        check_range("twap_minutes", self.twap_minutes, 0.0, 24.0 * 60.0, above=True)
        check_range("volatile_pct", self.volatile_pct, 0.0, 100.0, above=True)
        for name in ("wide_spread_bps", "resting_max_spread_bps"):
            check_range(name, getattr(self, name), 0.0, 10_000.0, above=True)
        check_range("slippage_limit_bps", self.slippage_limit_bps, 0.0, 5_000.0, above=True)
        for name in (
            "limit_timeout_s", "leg_timeout_s", "request_timeout_s", "naked_s", "reconcile_s", "resting_max_age_s",
        ):  # fmt: skip
            check_range(name, getattr(self, name), 0.0, 86_400.0, above=True)
        if not self.look_up_pauses_s:
            raise ValueError("look_up_pauses_s needs at least one pause, found []")
        for pause in self.look_up_pauses_s:
            check_range("look_up_pauses_s", pause, 0.05, 60.0)  # shorter is a busy loop that venues ban
        check_range("look_ups_to_missing", self.look_ups_to_missing, 1, 100)
        check_range("missing_after_s", self.missing_after_s, 0.0, 600.0)
        check_range("grace_s", self.grace_s, 0.0, 600.0)
        if self.grace_s < self.missing_after_s:
            raise ValueError(
                f"grace_s must not be under missing_after_s, found {self.grace_s:g} and {self.missing_after_s:g}"
            )
        check_range("rollback_tries", self.rollback_tries, 1, 100)

    def style_of(self, kind: str) -> Style:
        """The style of orders for a kind of instrument."""
        return self.style.get(kind, "market") if isinstance(self.style, dict) else self.style


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """``[live.venues.NAME]``: one account at one venue. It never holds a key, only where to find it.

    ``mode``: the real venue, its sandbox (testnet) or its demo trading. Keys are read from the environment variables
    named by ``key_env``, ``secret_env`` and ``password_env`` (``BASIS_BT_<VENUE>_KEY``, ``_SECRET``, ``_PASSWORD`` by
    default), or with ``keyring`` from the keyring of the operating system, under the service ``keyring_service`` and
    the same names. ``leverage`` of margined contracts is that of ``[size]`` unless set here. ``base_url`` sends every
    request elsewhere; plain ``http`` only to this machine. ``options`` are passed to ccxt as they are.
    ``request_timeout_s`` and ``leg_timeout_s`` replace those of ``[live.execution]`` for this venue.
    """

    __pydantic_config__ = STRICT

    mode: Literal["live", "sandbox", "demo"] = "live"
    key_env: str | None = None
    secret_env: str | None = None
    password_env: str | None = None
    keyring: bool = False
    keyring_service: str = "basis-bt"
    margin_mode: Literal["cross", "isolated"] = "cross"
    leverage: float | None = None
    base_url: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    request_timeout_s: float | None = None
    leg_timeout_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("key_env", "secret_env", "password_env"):
            value = getattr(self, name)
            if value is not None and not _VARIABLE.fullmatch(value):  # not shown: it may be the key itself
                raise ValueError(
                    f"{name} must be the name of an environment variable (capital letters, digits and _, at most 64), "
                    "never the value: keys come from the environment or the keyring, never from TOML"
                )
        if not self.keyring_service.strip():
            raise ValueError("keyring_service must be the name of a service, found an empty text")
        check_range("leverage", self.leverage, 0.0, 150.0, above=True)
        check_range("request_timeout_s", self.request_timeout_s, 0.0, 86_400.0, above=True)
        check_range("leg_timeout_s", self.leg_timeout_s, 0.0, 86_400.0, above=True)
        if self.base_url is not None:
            _check_url(self.base_url)
        _check_options(self.options, "options")

    def variables(self, venue: str) -> dict[str, str]:
        """Names of the environment variables that hold ``key``, ``secret`` and ``password`` of the account."""
        stem = f"BASIS_BT_{venue.upper()}"
        return {
            "key": self.key_env or f"{stem}_KEY",
            "secret": self.secret_env or f"{stem}_SECRET",
            "password": self.password_env or f"{stem}_PASSWORD",
        }


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("base_url is no address; write https://host or http://127.0.0.1:port") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("base_url must not hold a user or password: keys come from the environment or the keyring")
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError("base_url is no address; write https://host or http://127.0.0.1:port")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise ValueError(f"base_url must be https, except to this machine ({', '.join(_LOOPBACK)}), found host {host}")


def _check_options(value: Any, path: str) -> None:
    """No credentials at any depth, and nothing that a manifest could not hold. Values are never repeated."""
    if isinstance(value, dict):
        for key, item in value.items():
            plain = re.sub(r"[^a-z0-9]", "", str(key).lower())
            if any(name in plain for name in SECRET_NAMES):
                raise ValueError(
                    f"{path}.{key} is refused: keys come from the environment or the keyring, never from TOML "
                    "(see key_env, secret_env, password_env)"
                )
            _check_options(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            _check_options(item, path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path} must be finite, found {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """``[live]``: trading on paper and for real. The capital is that of ``[size]``.

    ``on_unknown_position`` says what happens at the start with positions and open orders that the journal does not
    know: ``refuse`` to trade, ``adopt`` them as the combo's if they are a whole one, or ``close`` them. ``journal`` is
    the folder of the journal, ``poll_s`` the seconds between two looks at the market. ``start_with_usd`` is the paper
    balance of each venue, one number or a table by venue (without it ``size.capital_usd`` is split evenly).
    """

    __pydantic_config__ = STRICT

    limits: Limits = field(default_factory=Limits)
    execution: Execution = field(default_factory=Execution)
    venues: dict[str, Account] = field(default_factory=dict)
    on_unknown_position: Literal["refuse", "adopt", "close"] = "refuse"
    journal: str = "journal"
    poll_s: float = 1.0
    start_with_usd: PerVenue | None = None

    def __post_init__(self) -> None:
        for venue in self.venues:
            _check_venue("venues", venue)
        if not self.journal.strip() or "\0" in self.journal:
            raise ValueError(f"journal must be the path of a folder, found {self.journal!r}")
        check_range("poll_s", self.poll_s, 0.0, 3_600.0, above=True)
        _check_per_venue("start_with_usd", self.start_with_usd, above=False)

    def account(self, venue: str) -> Account:
        """The account at a venue; the defaults where it is not configured."""
        return self.venues.get(venue, Account())

    def paper_balances_usd(self, venues: Iterable[str], *, capital_usd: float) -> dict[str, float]:
        """What each venue holds when a paper session starts; a venue that a table leaves out holds nothing."""
        names = list(dict.fromkeys(venues))
        if self.start_with_usd is None:
            return {venue: capital_usd / len(names) for venue in names}
        if isinstance(self.start_with_usd, dict):
            return {venue: self.start_with_usd.get(venue, 0.0) for venue in names}
        return dict.fromkeys(names, self.start_with_usd)

    def request_timeout_s(self, venue: str) -> float:
        """Seconds that a request to a venue waits for its reply."""
        own = self.account(venue).request_timeout_s
        return self.execution.request_timeout_s if own is None else own

    def leg_timeout_s(self, venue: str) -> float:
        """Seconds that a leg at a venue waits for its fill."""
        own = self.account(venue).leg_timeout_s
        return self.execution.leg_timeout_s if own is None else own
