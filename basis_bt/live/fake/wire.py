"""What the three dialects share: a request taken apart, a reply, and the table of routes."""

import abc
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from basis_bt.live.fake.lens import TRUTH, Lens
from basis_bt.live.fake.records import OPEN, Refused, SimOrder, Ticket
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.venue import Contract

_SECRETS = ("signature", "sign", "apikey", "secret", "passphrase", "password")


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """How one request is to be treated beyond the ordinary.

    ``fill_share`` of what an order could take is filled; ``fill_share_before_cancel`` of what rests is filled before
    it is cancelled; ``lens`` is how the answer departs from the truth.
    """

    lens: Lens = TRUTH
    fill_share: float = 1.0
    fill_share_before_cancel: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request. ``params`` are those of query and body together; the credentials are gone."""

    method: str
    path: str
    params: Mapping[str, str]
    operation: str
    instrument: str | None
    is_private: bool
    has_key: bool
    sent_ms: int | None
    handler: "Handler"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Status, text and headers."""

    status: int = 200
    text: str = ""
    headers: Mapping[str, str] | None = None
    content_type: str = "application/json"


def json_reply(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON body."""
    return Reply(status=status, text=json.dumps(body), headers=headers)


Handler = Callable[[SimVenue, Call, Treatment], Any]


def no_such_endpoint(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """What answers every path that is not served."""
    raise Refused("bad_request", f"no such endpoint: {call.method} {call.path}")


@dataclass(frozen=True, slots=True)
class Route:
    """Which operation an endpoint is, and what answers it."""

    operation: str
    handler: Handler
    is_private: bool = True


def without_secrets(params: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as text, credentials left out."""
    return {name: str(value) for name, value in params.items() if name.lower() not in _SECRETS}


class Dialect(abc.ABC):
    """The REST of one venue, spoken for a ``SimVenue``."""

    name: str
    routes: Mapping[tuple[str, str], Route]

    def read(
        self, sim: SimVenue, method: str, path: str, params: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Call:
        """Take a request apart; an endpoint that is not served has the operation ``other``."""
        route = self.routes.get((method, path), Route("other", no_such_endpoint, False))
        public = without_secrets(params)
        return Call(
            method=method,
            path=path,
            params=public,
            operation=self.operation_of(route, public),
            instrument=self.instrument_of(sim, path, public),
            is_private=route.is_private,
            has_key=self.has_key(headers),
            sent_ms=self.sent_ms(params, headers),
            handler=route.handler,
        )

    def answer(self, sim: SimVenue, call: Call, treatment: Treatment) -> Reply:
        """Execute a request and say what came of it."""
        try:
            if call.is_private:
                self.check_access(sim, call)
            return self.success(sim, call.handler(sim, call, treatment))
        except Refused as refusal:
            return self.refusal(sim, refusal.kind, str(refusal), call)

    def check_access(self, sim: SimVenue, call: Call) -> None:
        """A key, and a clock within the window."""
        if not call.has_key:
            raise Refused("key", "an api key is needed")
        if call.sent_ms is not None:
            late_ms = sim.venue_now_ms() - call.sent_ms
            if late_ms > self.recv_window_ms(sim, call) or -late_ms >= sim.rules.ahead_ms:
                raise Refused("clock", "the timestamp is outside the window")

    def recv_window_ms(self, sim: SimVenue, call: Call) -> int:
        """How old a request may be."""
        return sim.rules.recv_window_ms

    def operation_of(self, route: Route, params: Mapping[str, str]) -> str:
        """The operation, where it depends on the parameters too."""
        return route.operation

    @abc.abstractmethod
    def instrument_of(self, sim: SimVenue, path: str, params: Mapping[str, str]) -> str | None:
        """Which instrument a request is about."""

    @abc.abstractmethod
    def has_key(self, headers: Mapping[str, str]) -> bool:
        """Whether a key was sent."""

    @abc.abstractmethod
    def sent_ms(self, params: Mapping[str, Any], headers: Mapping[str, str]) -> int | None:
        """The timestamp of the request."""

    @abc.abstractmethod
    def success(self, sim: SimVenue, body: Any) -> Reply:
        """An answer in the venue's envelope."""

    @abc.abstractmethod
    def refusal(self, sim: SimVenue, kind: str, message: str, call: Call) -> Reply:
        """The venue's way to say no, see ``records.REFUSALS``."""

    @abc.abstractmethod
    def status_unknown(self, call: Call) -> Reply:
        """The venue's own "it may or may not have been executed"."""

    @abc.abstractmethod
    def server_error(self, status: int) -> Reply:
        """A 5xx; a 503 has a JSON body."""

    @abc.abstractmethod
    def rate_limited(self, seconds: float, *, is_ban: bool) -> Reply:
        """Too many requests; ``is_ban`` after the first warning was ignored."""


def joined(contract: Contract) -> str:
    """``BTCUSDT``, the name at Binance and Bybit of spot and perpetual alike."""
    return contract.base + contract.quote


def place(sim: SimVenue, ticket: Ticket, treatment: Treatment) -> SimOrder:
    """Place an order under a treatment."""
    return sim.place(ticket, fill_share=treatment.fill_share)


def find_or_refuse(sim: SimVenue, call: Call, treatment: Treatment, venue_order_id: str, client_id: str) -> SimOrder:
    """An order by either id, unless it is hidden; ``not_found`` otherwise."""
    order = named(sim, call, venue_order_id, client_id)
    if order is None or treatment.lens.is_order_hidden:
        raise Refused("not_found", "no such order")
    return order


def named(sim: SimVenue, call: Call, venue_order_id: str, client_id: str) -> SimOrder | None:
    """The order a request names; a request that names none is malformed."""
    if not venue_order_id and not client_id:
        raise Refused("bad_request", "neither order id nor client id")
    return sim.find(demand_instrument(call), venue_order_id=venue_order_id, client_order_id=client_id)


def seen_open(sim: SimVenue, instrument: str | None, lens: Lens) -> list[SimOrder]:
    """The orders an answer counts as open."""
    return [o for o in sim.orders.values() if instrument in (None, o.ticket.instrument) and lens.is_open(o)]


def seen_done(sim: SimVenue, instrument: str | None, lens: Lens) -> list[SimOrder]:
    """The orders an answer counts as over."""
    if lens.is_order_hidden:
        return []
    return [
        o for o in sim.orders.values() if instrument in (None, o.ticket.instrument) and lens.order(o).status != OPEN
    ]


def demand_instrument(call: Call) -> str:
    """The instrument, or a refusal where there is none."""
    if call.instrument is None:
        raise Refused("bad_request", "unknown symbol")
    return call.instrument
