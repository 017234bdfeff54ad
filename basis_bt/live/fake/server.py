"""Several simulated venues behind one HTTP server on the loopback address, faults included."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from basis_bt.live.fake.binance import Binance
from basis_bt.live.fake.bybit import Bybit
from basis_bt.live.fake.faults import Event, Fault, FaultPlan, Plan
from basis_bt.live.fake.okx import Okx
from basis_bt.live.fake.records import RequestRecord
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.treatment import Closed, prepare
from basis_bt.live.fake.wire import Call, Dialect, Reply, Treatment

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (Binance(), Bybit(), Okx())}


class FakeExchange:
    """REST of several venues, each under a path of its own.

    Parameters
    ----------
    venues : the accounts, one a venue
    plan : what goes wrong; may be replaced at any time
    latency_s : from a request's arrival to its reply; it is executed half way
    """

    def __init__(self, venues: Sequence[SimVenue], *, plan: Plan | None = None, latency_s: float = 0.02) -> None:
        self.venues = {sim.name: sim for sim in venues}
        self.plan: Plan = plan or FaultPlan()
        self.latency_s = latency_s
        self._closed = {name: Closed() for name in self.venues}
        self._last_look: dict[tuple[str, str | None], Treatment] = {}
        self._runner: web.AppRunner | None = None
        self._late: set[asyncio.TimerHandle] = set()
        self._port = 0

    async def start(self) -> None:
        """Listen on 127.0.0.1, on a port that is free."""
        app = web.Application(client_max_size=2**20)
        app.router.add_route("*", "/{venue}/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the server and forget requests that were to be executed late."""
        for handle in self._late:
            handle.cancel()
        self._late.clear()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def base_url(self, venue: str) -> str:
        """Where a venue is; without a slash at the end."""
        return f"http://127.0.0.1:{self._port}/{venue}"

    def take_down(self, venue: str, seconds: float) -> None:
        """A venue answers everything with 503 for a while."""
        self._closed[venue].down(self.venues[venue].clock.now_us(), seconds)

    # ------------------------------------------------------------ one request

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        sim, dialect = self.venues[request.match_info["venue"]], DIALECTS[request.match_info["venue"]]
        path = "/" + request.match_info["tail"]
        call = dialect.read(sim, request.method, path, await _params(request), request.headers)
        await asyncio.sleep(self.latency_s / 2.0)
        record = RequestRecord(
            ts_us=sim.clock.now_us(), method=call.method, path=call.path, operation=call.operation,
            instrument=call.instrument, params=call.params,
        )  # fmt: skip
        sim.requests.append(record)
        reply, fault = self._execute(sim, dialect, call, record)
        await asyncio.sleep(self.latency_s / 2.0)
        return await _send(request, reply, fault)

    def _execute(
        self, sim: SimVenue, dialect: Dialect, call: Call, record: RequestRecord
    ) -> tuple[Reply, Fault | None]:
        """What the venue does with a request; the fault is the one that the connection is to suffer."""
        now_us, closed = sim.clock.now_us(), self._closed[sim.name]
        if call.operation == "create":
            sim.creates[call.instrument or ""] += 1
        if seconds := closed.seconds_left(now_us):
            is_abuse = closed.is_abuse(now_us)
            sim.abuse += is_abuse
            sim.n418 += is_abuse
            record.answer = "banned" if is_abuse else "rate limited"
            return dialect.rate_limited(seconds, is_ban=is_abuse), None
        if now_us < closed.down_until_us:
            record.answer = "down"
            return dialect.server_error(503), None
        event = _event(sim, call)
        treatment, fault = prepare(sim, event, self.plan.strike(event))
        treatment = self._same_look_up(call, sim, treatment)
        record.answer = fault.kind if fault else ""
        match fault.kind if fault else "":
            case "cut_before":
                record.reached = False
                sim.creates[call.instrument or ""] -= call.operation == "create"
                return Reply(), fault
            case "late":
                assert fault is not None
                self._execute_late(sim, dialect, call, treatment, fault.seconds)
                return Reply(), fault
            case "refuse":
                assert fault is not None
                record.answer = fault.reason
                sim.refusals.append((fault.reason, call.instrument or ""))
                return dialect.refusal(sim, fault.reason, "refused by plan", call), None
            case "rate_limit":
                assert fault is not None
                closed.limit(now_us, fault.seconds)
                return dialect.rate_limited(fault.seconds, is_ban=False), None
            case "down":
                assert fault is not None
                closed.down(now_us, fault.seconds)
                return dialect.server_error(503), None
        reply = dialect.answer(sim, call, treatment)
        record.answer = record.answer or ("ok" if reply.status == 200 else str(reply.status))
        return self._spoiled(sim, dialect, call, reply, fault)

    def _spoiled(
        self, sim: SimVenue, dialect: Dialect, call: Call, reply: Reply, fault: Fault | None
    ) -> tuple[Reply, Fault | None]:
        match fault.kind if fault else "":
            case "empty_body":
                return Reply(), None
            case "html_body":
                return Reply(text="<html><body>Please wait</body></html>", content_type="text/html"), None
            case "status":
                assert fault is not None
                return dialect.server_error(fault.status), None
            case "status_unknown":
                return dialect.status_unknown(call), None
            case "duplicate":
                return dialect.refusal(sim, "duplicate", "duplicate", call), None
        return reply, fault

    def _execute_late(self, sim: SimVenue, dialect: Dialect, call: Call, treatment: Treatment, seconds: float) -> None:
        def run() -> None:
            self._late.discard(handle)
            dialect.answer(sim, call, treatment)

        handle = asyncio.get_running_loop().call_later(seconds, run)
        self._late.add(handle)

    def _same_look_up(self, call: Call, sim: SimVenue, treatment: Treatment) -> Treatment:
        """Bybit's look-up is two requests; the second shows what the first did."""
        key = (sim.name, call.instrument)
        if call.operation == "find":
            self._last_look[key] = treatment
        elif call.operation == "find_history" and key in self._last_look:
            return self._last_look[key]
        return treatment


def _event(sim: SimVenue, call: Call) -> Event:
    words = {name.lower(): value.lower() for name, value in call.params.items()}
    kind = words.get("type") or words.get("ordertype") or words.get("ordtype")
    is_taking = kind in ("market", "ioc", "fok", "optimal_limit_ioc") or words.get("timeinforce") in ("ioc", "fok")
    side = {"buy": 1, "sell": -1}.get(words.get("side", ""))
    return Event(
        ts_us=sim.clock.now_us(),
        venue=sim.name,
        operation=call.operation,
        instrument=call.instrument,
        order_kind=("market" if is_taking else "limit") if call.operation == "create" else None,
        side=side if call.operation == "create" else None,
    )


async def _params(request: web.Request) -> dict[str, Any]:
    body = await request.text()
    params: dict[str, Any] = dict(request.query)
    if body[:1] in ("{", "["):
        decoded = json.loads(body)
        return params | (decoded[0] if isinstance(decoded, list) else decoded)
    if body:
        params |= {name: str(value) for name, value in (await request.post()).items()}
    return params


async def _send(request: web.Request, reply: Reply, fault: Fault | None) -> web.StreamResponse:
    body = reply.text.encode()
    headers = {"Content-Type": reply.content_type, **(reply.headers or {})}
    transport = request.transport
    kind = fault.kind if fault else ""
    if kind == "hang" and fault is not None:
        await asyncio.sleep(fault.seconds)
    if kind in ("cut_before", "late", "cut_after", "hang"):
        if transport is not None:
            transport.abort()
        return web.Response()
    if kind == "half_body":
        response = web.StreamResponse(status=reply.status, headers={**headers, "Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if transport is not None:
            transport.close()
        return response
    return web.Response(status=reply.status, body=body, headers=headers)
