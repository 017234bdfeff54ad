"""A world that outlives its engines: venues and their books stay, an engine dies where it is told to, and another one
starts on the same journal."""

import asyncio
import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from live_room import CASH, EXECUTION, LIMITS, PRICE, Room, instruments

from basis_bt.live.ccxt_venue import CcxtVenue
from basis_bt.live.clock import Clock
from basis_bt.live.combo import Combos
from basis_bt.live.fake.clients import loopback_client
from basis_bt.live.fake.faults import FaultPlan
from basis_bt.live.fake.rules import standard_contract
from basis_bt.live.fake.server import FakeExchange
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.guard import RiskGuard
from basis_bt.live.journal import Journal
from basis_bt.live.orders import Instruction, LegOrder
from basis_bt.live.placing import Desk
from basis_bt.live.reconcile import Findings, Reconciler

CAPITAL_USD = 200_000.0
PREFIX = "bb1"


class Killed(BaseException):
    """The process is no more: nothing of it runs, nothing of it is written."""


@dataclasses.dataclass(frozen=True, slots=True)
class MidFlight:
    """Die so long after a request has left."""

    seconds: float


#: what a step does to the process: nothing, an error in its place, or the end
Strike = Callable[[str, dict[str, Any]], BaseException | MidFlight | None]
_ENGINE: contextvars.ContextVar["Power | None"] = contextvars.ContextVar("engine", default=None)
_ORDER: contextvars.ContextVar[LegOrder | None] = contextvars.ContextVar("order", default=None)
_CANCELLING: contextvars.ContextVar[bool] = contextvars.ContextVar("cancelling", default=False)


class Power:
    """Whether a process lives.

    ``strike`` is asked at each of its steps: ``ask`` and ``answer`` of a request, ``sleep``, ``write`` and ``written``
    of an event, ``acked`` of an order.
    """

    def __init__(self, strike: Strike | None = None) -> None:
        self.strike, self.is_off, self.is_gone = strike or (lambda name, facts: None), False, asyncio.Event()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.on_cut: Callable[[], None] = lambda: None

    def step(self, name: str, **facts: Any) -> MidFlight | None:
        if self.is_off:
            raise Killed
        struck = self.strike(name, facts)
        if isinstance(struck, Killed):
            self.cut()
        if isinstance(struck, BaseException):
            raise struck
        return struck

    def cut(self) -> None:
        """Now."""
        self.on_cut()
        self.is_off = True
        self.is_gone.set()
        raise Killed


class _Client:
    """Between ccxt and the socket."""

    def __init__(self, client: Any, power: Power, clock: Clock) -> None:
        self._fetch, self._power, self._clock = client.fetch, power, clock
        client.fetch = self.fetch

    async def fetch(self, url: str, method: str = "GET", *args: Any, **options: Any) -> Any:
        facts = {"url": url, "method": method, "order": _ORDER.get(), "is_cancel": _CANCELLING.get()}
        mid = self._power.step("ask", **facts)
        if mid is not None:
            request = asyncio.create_task(self._fetch(url, method, *args, **options))
            await self._clock.sleep(mid.seconds)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
            self._power.cut()
        reply = await self._fetch(url, method, *args, **options)
        self._power.step("answer", **facts)
        return reply


class _Venue(CcxtVenue):
    """Knows which order a request is about."""

    power: Power

    async def send(self, order: LegOrder) -> Any:
        token = _ORDER.set(order)
        try:
            ack = await super().send(order)
        finally:
            _ORDER.reset(token)
        self.power.step("acked", order=order)
        return ack

    async def _cancel(self, *args: Any) -> bool:
        token = _CANCELLING.set(True)
        try:
            return await super()._cancel(*args)
        finally:
            _CANCELLING.reset(token)


class _Clock(Clock):
    """A clock whose sleeper can die."""

    def __init__(self, clock: Clock, power: Power) -> None:
        self._clock, self._power = clock, power

    def now_us(self) -> int:
        return self._clock.now_us()

    def monotonic_s(self) -> float:
        return self._clock.monotonic_s()

    async def sleep(self, seconds: float) -> None:
        self._power.step("sleep", seconds=seconds)
        await self._clock.sleep(seconds)


class _Journal(Journal):
    """A journal of a process that can die before and after each event."""

    power: Power | None = None

    def _record(self, type: str, ts_us: int, payload: Any, **named: Any) -> int | None:
        if self.power is None:
            return super()._record(type, ts_us, payload, **named)
        self.power.step("write", type=type, payload=payload, **named)
        seq = super()._record(type, ts_us, payload, **named)
        self.power.step("written", type=type, payload=payload, **named)
        return seq


class Engine(Room):
    """A room whose process can die."""

    power: Power
    guard: RiskGuard
    found: Findings
    begun_us: int

    async def alive(self, work: Any) -> Any:
        """What the work returns, unless the process dies before: then ``Killed``."""
        task = asyncio.get_running_loop().create_task(self._inside(work))
        gone = asyncio.create_task(self.power.is_gone.wait())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not self.power.is_off:
                return task.result()
        finally:
            gone.cancel()
            if self.power.is_off:
                await self._bury()
                await asyncio.gather(task, return_exceptions=True)
        raise Killed

    async def _inside(self, work: Any) -> Any:
        _ENGINE.set(self.power)
        return await asyncio.get_running_loop().create_task(work)

    async def _bury(self) -> None:
        tasks = {task for task in self.power.tasks if task is not asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def end(self) -> None:
        """Nothing of the process is left but its journal on disk."""
        self.power.is_off = True
        await self._bury()
        for venue in self.venues.values():
            await venue.close()
        self.journal.close()


def _factory(loop: asyncio.AbstractEventLoop, coroutine: Any, context: Any = None) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context)
    power = _ENGINE.get() if context is None else context.get(_ENGINE)
    if power is not None:
        power.tasks.add(task)
        task.add_done_callback(power.tasks.discard)
    return task


class World:
    """Venues, and a folder for the journals of the engines that come and go."""

    def __init__(
        self, clock: Clock, legs: Sequence[str], folder: Path | None, *, ratios: Sequence[float] = (1.0, -1.0)
    ) -> None:
        self.clock, self.legs, self.folder, self.ratios = clock, list(legs), folder, list(ratios)
        self.names = list(dict.fromkeys(one.split(":")[1] for one in legs))
        self.fake = FakeExchange([self._sim(name) for name in self.names])
        self.engines: list[Engine] = []

    def _sim(self, name: str) -> SimVenue:
        mine = [standard_contract(one) for one in self.legs if one.split(":")[1] == name]
        sim = SimVenue(name, mine, clock=self.clock, balances=CASH)
        for contract in mine:
            sim.make_book(contract.instrument, PRICE, spread_bps=0.5, depth_base=5.0)
        return sim

    @property
    def sims(self) -> dict[str, SimVenue]:
        return self.fake.venues

    async def begin(
        self, strike: Strike | None = None, *, policy: Any = "refuse", is_durable: bool = False, **changes: Any
    ) -> Engine:
        """A new process: clients opened, nothing reconciled yet."""
        power = Power()
        clock = _Clock(self.clock, power)
        venues = {}
        for name in self.names:
            client = loopback_client(name, self.fake.base_url(name), self.clock)
            _Client(client, power, self.clock)
            venues[name] = _Venue(name, client, clock=clock, leverage=3.0)
            venues[name].power = power
        journal = _Journal(self.folder, durable=is_durable, secrets=("loopback",))
        execution = dataclasses.replace(EXECUTION, **changes)
        try:
            for name, venue in venues.items():
                await venue.open([one for one in self.legs if one.split(":")[1] == name])
        except BaseException:
            for venue in venues.values():
                await venue.close()
            journal.close()
            raise
        desk = Desk(venues, journal, clock=clock, execution=execution)
        state = journal.get("guard")
        guard = (
            RiskGuard(LIMITS, CAPITAL_USD) if state is None else RiskGuard.from_state(state, LIMITS, CAPITAL_USD)
        )  # fmt: skip
        combos = Combos(
            desk, guard, instruments=self.legs, ratios=self.ratios, limits=LIMITS, execution=execution, prefix=PREFIX
        )
        keeper = Reconciler(combos, policy=policy)
        engine = Engine(self.clock, self.fake, venues, desk, combos, keeper, journal, tuple(self.names))  # type: ignore[arg-type]
        engine.power, engine.guard, engine.begun_us = power, guard, self.clock.now_us()
        journal.power = power
        power.strike = strike or power.strike
        self.engines.append(engine)
        return engine

    async def restart(self, **options: Any) -> Engine:
        """The next process, up to the point where it may trade."""
        for engine in self.engines:
            if not engine.power.is_off:
                await engine.end()
            else:
                await engine._bury()
                for venue in engine.venues.values():
                    await venue.close()
                engine.journal.close()
        self.engines.clear()
        engine = await self.begin(**options)
        engine.found = await engine.alive(engine.keeper.start())
        return engine

    def instruction(self, engine: Engine, action: Any, changes: Sequence[float], quantity: float) -> Instruction:
        """For any number of legs."""
        engine.journal.put("n_instructions", engine.journal.get("n_instructions", 0) + 1)
        return Instruction(
            number=engine.journal.get("n_instructions"), action=action, reason="signal", direction=1, quantity=quantity,
            change_base=tuple(changes), arrival_price=(PRICE,) * len(self.legs), decided_us=self.clock.now_us(),
        )  # fmt: skip


@contextlib.asynccontextmanager
async def world(clock: Clock, legs: Sequence[str] | tuple[str, str], folder: Path | None = None, **options: Any):
    """A world with its server; ``legs`` may be a pair of venues."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(_factory)
    if not any(":" in one for one in legs):
        legs = instruments((legs[0], legs[1]))
    it = World(clock, legs, folder, **options)
    await it.fake.start()
    it.fake.plan = FaultPlan()
    try:
        yield it
    finally:
        for engine in it.engines:
            await engine.end()
        await it.fake.stop()
        loop.set_task_factory(None)
