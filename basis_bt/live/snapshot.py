"""How a session stands, from its journal alone: so another process can tell it too."""

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from basis_bt.core.config import build_config
from basis_bt.core.errors import ConfigError, StoreError
from basis_bt.core.instruments import Instrument
from basis_bt.core.models import Config
from basis_bt.core.rulebook import funding_rule
from basis_bt.core.units import US_PER_DAY, US_PER_HOUR, from_us
from basis_bt.kernels.structs import BOOK_SIGNS, BOOKS
from basis_bt.live import event_types as kinds
from basis_bt.live.event_types import Event
from basis_bt.live.holdings import Holdings
from basis_bt.live.journal import Journal

#: source of PnL -> its books; costs count as negative, so that the sources add up to the PnL
SOURCES = {
    "funding": ("funding",), "basis": ("basis",), "delta": ("delta",), "fees": ("fees",),
    "slippage": ("spread", "bucket", "impact", "delay"), "rollback": ("rollback_execution", "rollback_price"),
    "other": ("transfer", "liquidation", "borrow", "delivery_fee", "yield", "fx"),
}  # fmt: skip
LAST_INCIDENTS, LAST_REQUESTS = 5, 1000
QUANTILES = (0.5, 0.9, 0.99)
SILENT_BARS = 2.0  # a session writes at least at the end of each bar
_INCIDENTS = (kinds.INCIDENT, kinds.BREAKER_OPEN, kinds.BREAKER_RESET, kinds.LATE_FILL)


@dataclass(frozen=True, slots=True, kw_only=True)
class LegStand:
    """A leg: what all fills leave of it, at the last close. ``price`` is None before the first mark."""

    instrument: str
    position_base: float
    price: float | None
    delta_usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NextFunding:
    """The next settlement of a perp. ``expected_usd`` is at the last rate paid, if that was not over two intervals ago.

    ``is_assumed``: the interval is the venue's default, since the journal has no settlement with its own.
    """

    instrument: str
    at_us: int
    in_s: float
    interval_hours: float
    is_assumed: bool
    funding_rate: float | None
    expected_usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOrder:
    """An order whose end is not known."""

    client_order_id: str
    instrument: str
    side: int
    quantity_base: float
    kind: str
    purpose: str
    limit_price: float | None
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something a person should look at."""

    at_us: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerStand:
    """The circuit breaker: whether nothing is entered, why, and until when (None: until a person resets it)."""

    is_open: bool
    since_us: int | None = None
    until_us: int | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueStand:
    """A venue: gross notional of its legs, what it may be, and its cash where marks tell it apart."""

    venue: str
    notional_usd: float
    limit_usd: float | None
    cash_usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How a session stands at ``at_us``; plain values, see ``to_json``. None is what the journal does not tell yet.

    ``status``: ``running``, ``silent`` (no event for two bars, and no end recorded: killed, or hung) or ``ended``.
    ``margin_ratio`` is equity over the notional of margined legs: the least of the bar where marks have it
    (``is_margin_recorded``), else of the whole account at the last close. ``data_age_s`` counts from the end of the
    bar marked last. ``pnl_by_source_usd`` are the books of that mark and add up to ``pnl_usd``. ``request_s`` are
    quantiles of the time from the send of an order to the venue's word, of the last thousand.
    """

    at_us: int
    name: str
    mode: str
    status: str
    started_us: int
    n_sessions: int
    last_event_us: int
    data_age_s: float | None
    capital_usd: float
    equity_usd: float | None
    pnl_usd: float | None
    drawdown_pct: float | None
    max_drawdown_pct: float
    pnl_by_source_usd: Mapping[str, float]
    legs: tuple[LegStand, ...]
    net_delta_usd: float | None
    direction: int
    trade: int
    entry_us: int | None
    funding: tuple[NextFunding, ...]
    margin_ratio: float | None
    is_margin_recorded: bool
    venues: tuple[VenueStand, ...]
    open_orders: tuple[OpenOrder, ...]
    breaker: BreakerStand
    failed_orders: int
    n_incidents: int
    incidents: tuple[Incident, ...]
    orders: Mapping[str, int] = field(default_factory=dict)
    n_requests: int = 0
    request_sum_s: float = 0.0
    request_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def age_s(self) -> float:
        """Seconds since the last event."""
        return max((self.at_us - self.last_event_us) / 1e6, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON has it; instants in epoch microseconds, and the most asked for as text too."""
        plain = asdict(self)
        return {**plain, "at": from_us(self.at_us).isoformat(), "age_s": self.age_s}


def snapshot(journal: Journal, now_us: int) -> Snapshot:
    """How the session of a journal stands; the journal is only read.

    Raises
    ------
    StoreError
        If it has no session yet.
    """
    return Watch(journal).at(now_us)


class Watch:
    """Follows a journal: each ``at`` reads only the events that came since, so it may be asked every second."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._seq = journal, 0
        self._holdings = Holdings()
        self._started: Event | None = None
        self._config: Config | None = None
        self._has_ended, self._n_sessions, self._last_us = False, 0, 0
        self._mark: Mapping[str, Any] | None = None
        self._trade: Mapping[str, Any] | None = None
        self._payments: dict[str, Mapping[str, Any]] = {}
        self._n_incidents = 0
        self._incidents: deque[Incident] = deque(maxlen=LAST_INCIDENTS)
        self._orders: Counter[str] = Counter()
        self._sent_us: dict[str, int] = {}
        self._asked: dict[str, float] = {}  # quantity of the orders without an end
        self._requests: deque[float] = deque(maxlen=LAST_REQUESTS)
        self._n_requests, self._request_sum_s = 0, 0.0

    def at(self, now_us: int) -> Snapshot:
        """How things stand now. Raises StoreError if no session has begun."""
        for event in self._journal.events(since_seq=self._seq):
            self._take(event)
            self._seq = event.seq
        if self._started is None or self._config is None:
            raise StoreError("the journal has no session yet", where={"path": self._journal.path},
                             fix="look again after the engine has started")  # fmt: skip
        return self._snapshot(now_us, self._started, self._config)

    # -- events --------------------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        payload = event.payload
        self._holdings.apply(event)
        self._last_us = max(self._last_us, event.ts_us)
        if event.type == kinds.SESSION_START:
            self._started, self._has_ended, self._n_sessions = event, False, self._n_sessions + 1
            self._config = build_config(payload["config"])
        elif event.type == kinds.SESSION_END:
            self._has_ended = True
        elif event.type == kinds.MARK:
            self._mark = payload
        elif event.type == kinds.TRADE:
            self._trade = payload
        elif event.type == kinds.FUNDING and event.instrument is not None:
            self._payments[event.instrument] = {**payload, "ts_us": event.ts_us}
        elif event.type in _INCIDENTS:
            self._n_incidents += event.type != kinds.BREAKER_RESET
            self._incidents.append(_incident(event))
        elif event.client_order_id is not None:
            self._take_order(event, event.client_order_id)

    def _take_order(self, event: Event, name: str) -> None:
        if event.type == kinds.INTENT:
            self._sent_us[name], self._asked[name] = event.payload["sent_us"], event.payload["quantity_base"]
        if event.type in (kinds.ACK, kinds.ORDER_REFUSED) and name in self._sent_us:
            seconds = max((event.ts_us - self._sent_us.pop(name)) / 1e6, 0.0)
            self._requests.append(seconds)
            self._n_requests, self._request_sum_s = self._n_requests + 1, self._request_sum_s + seconds
        if event.type in kinds.TERMINAL:
            self._orders[_outcome(event, self._asked.pop(name, math.nan))] += 1
            self._sent_us.pop(name, None)

    # -- what they add up to -------------------------------------------------------------------------------------------

    def _snapshot(self, now_us: int, started: Event, config: Config) -> Snapshot:
        mark, trade = self._mark, self._trade or {}
        legs = self._legs(config)
        deltas = [one.delta_usd for one in legs]
        equity_usd = None if mark is None else float(mark["equity_usd"])
        guard = self._journal.get("guard") or {}
        peak_usd = max(guard.get("peak_usd", 0.0), config.size.capital_usd, equity_usd or 0.0)
        limits = None if config.live is None else config.live.limits
        bar_s = config.data.bar_us / 1e6
        is_silent = (now_us - self._last_us) / 1e6 > SILENT_BARS * bar_s
        bar_end_us = None if mark is None else mark["bar_us"] + config.data.bar_us
        recorded = None if mark is None else mark["margin_ratio"]
        is_held = bool(trade) and trade["exit_us"] is None
        requests = np.array(self._requests)
        return Snapshot(
            at_us=now_us,
            name=config.name,
            mode=str(started.payload["mode"]),
            status="ended" if self._has_ended else "silent" if is_silent else "running",
            started_us=started.ts_us,
            n_sessions=self._n_sessions,
            last_event_us=self._last_us,
            data_age_s=None if bar_end_us is None else max((now_us - bar_end_us) / 1e6, 0.0),
            capital_usd=config.size.capital_usd,
            equity_usd=equity_usd,
            pnl_usd=None if equity_usd is None else equity_usd - config.size.capital_usd,
            drawdown_pct=None if equity_usd is None else 100.0 * (1.0 - equity_usd / peak_usd),
            max_drawdown_pct=10.0 if limits is None else limits.max_drawdown_pct,
            pnl_by_source_usd=_by_source({} if mark is None else mark["books"]),
            legs=legs,
            net_delta_usd=None if None in deltas else sum(one for one in deltas if one is not None),
            direction=int(trade["direction"]) if is_held else 0,
            trade=int(trade.get("trade", 0)),
            entry_us=trade["entry_us"] if is_held else None,
            funding=tuple(self._next_funding(one, now_us) for one in legs if one.instrument.startswith("perp:")),
            margin_ratio=_margin_ratio(legs, equity_usd) if recorded is None else recorded,
            is_margin_recorded=recorded is not None,
            venues=_venues(legs, config, {} if mark is None else mark["wallets_usd"]),
            open_orders=tuple(_open_order(one, now_us) for one in self._holdings.open_intents()),
            breaker=_breaker(guard.get("breaker"), now_us),
            failed_orders=sum(at_us > now_us - US_PER_HOUR for at_us in guard.get("failed_us", ())),
            n_incidents=self._n_incidents,
            incidents=tuple(self._incidents),
            orders=dict(sorted(self._orders.items())),
            n_requests=self._n_requests,
            request_sum_s=self._request_sum_s,
            request_s={f"{q:g}": float(np.quantile(requests, q)) for q in QUANTILES} if len(requests) else {},
        )

    def _legs(self, config: Config) -> tuple[LegStand, ...]:
        held, mark = self._holdings.positions_base(), self._mark
        out = []
        for leg, one in enumerate(config.combo.legs):
            position = held.get(one.instrument, 0.0)
            price = None if mark is None else mark["close_price"][leg]
            delta = 0.0 if not position else None if price is None else position * price
            out.append(LegStand(instrument=one.instrument, position_base=position, price=price, delta_usd=delta))
        return tuple(out)

    def _next_funding(self, leg: LegStand, now_us: int) -> NextFunding:
        """One interval after the last settlement paid; without any, the venue's hours counted from midnight UTC."""
        payment = self._payments.get(leg.instrument, {})
        hours, rate = payment.get("interval_hours"), payment.get("funding_rate")
        is_assumed = hours is None
        if hours is None:
            try:
                rule = funding_rule(Instrument.parse(leg.instrument), on=from_us(now_us).date())
                hours = rule.default_interval_hours
            except ConfigError:
                hours = 8.0  # what most venues began with
        step_us = round(hours * US_PER_HOUR)
        last_us = payment.get("settlement_us") or payment.get("ts_us") or now_us // US_PER_DAY * US_PER_DAY
        last_us = round(last_us / (US_PER_HOUR / 60)) * (US_PER_HOUR // 60)  # venues stamp it some seconds late
        if now_us - last_us > 2 * step_us:
            rate = None  # that of another time
        at_us = last_us + ((now_us - last_us) // step_us + 1) * step_us
        expected = None if rate is None or leg.delta_usd is None else -leg.delta_usd * rate + 0.0
        return NextFunding(
            instrument=leg.instrument, at_us=at_us, in_s=(at_us - now_us) / 1e6, interval_hours=hours,
            is_assumed=is_assumed, funding_rate=rate, expected_usd=expected,
        )  # fmt: skip


def _by_source(books: Mapping[str, Any]) -> dict[str, float]:
    signs = dict(zip(BOOKS, BOOK_SIGNS, strict=True))
    return {source: sum(signs[book] * sum(books.get(book, ())) for book in parts) + 0.0
            for source, parts in SOURCES.items()}  # fmt: skip


def _margin_ratio(legs: tuple[LegStand, ...], equity_usd: float | None) -> float | None:
    notional = sum(abs(one.delta_usd or 0.0) for one in legs if Instrument.parse(one.instrument).is_margined)
    return None if equity_usd is None or not notional else equity_usd / notional


def _venues(legs: tuple[LegStand, ...], config: Config, cash_usd: Mapping[str, float]) -> tuple[VenueStand, ...]:
    out = []
    for venue in dict.fromkeys(one.instrument.split(":")[1] for one in legs):
        notional = sum(abs(one.delta_usd or 0.0) for one in legs if one.instrument.split(":")[1] == venue)
        limit = None if config.live is None else config.live.limits.notional_limit_usd(venue)
        out.append(VenueStand(venue=venue, notional_usd=notional, limit_usd=limit, cash_usd=cash_usd.get(venue)))
    return tuple(out)


def _breaker(kept: Mapping[str, Any] | None, now_us: int) -> BreakerStand:
    if kept is None or not (kept["needs_reset"] or now_us < kept["until_us"]):
        return BreakerStand(is_open=False)
    until_us = None if kept["needs_reset"] else kept["until_us"]
    return BreakerStand(is_open=True, since_us=kept["since_us"], until_us=until_us,
                        reasons=tuple(kept["reasons"].values()))  # fmt: skip


def _open_order(order: Any, now_us: int) -> OpenOrder:
    same = ("client_order_id", "instrument", "side", "quantity_base", "kind", "purpose", "limit_price")
    return OpenOrder(**{name: getattr(order, name) for name in same}, age_s=max((now_us - order.sent_us) / 1e6, 0.0))


def _incident(event: Event) -> Incident:
    payload = event.payload
    kind = payload.get("kind") or payload.get("event") or event.type
    text = str(payload.get("reason") or "")
    if not text:
        facts = {name: value for name, value in payload.items() if name not in ("kind", "event") and value is not None}
        text = ", ".join(f"{name} {value}" for name, value in facts.items())
    where = f"{event.instrument}: " if event.instrument and event.instrument not in text else ""
    return Incident(at_us=event.ts_us, kind=str(kind), text=where + text)


def _outcome(event: Event, asked_base: float) -> str:
    if event.type == kinds.MISSING:
        return "missing"
    if event.type == kinds.ORDER_REFUSED:
        return "refused"
    filled = float(event.payload.get("filled_base") or 0.0)
    if not filled:
        return "unfilled"
    return "partial" if filled < asked_base * (1.0 - 1e-9) else "filled"
