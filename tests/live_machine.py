"""A hypothesis state machine over one account: anything may happen at any moment, and the invariants hold after it."""

import asyncio
import contextlib
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from live_room import PAIRS
from live_trials import check_world
from live_world import Killed, world

from basis_bt.live.fake.faults import Fault, FaultPlan, FaultRule
from basis_bt.live.fake.virtual_time import VirtualClock, VirtualLoop

CREATES = [
    Fault(kind="cut_after"), Fault(kind="cut_before"), Fault(kind="hang", seconds=30.0),
    Fault(kind="late", seconds=2.5), Fault(kind="late", seconds=6.0), Fault(kind="html_body"), Fault(kind="half_body"),
    Fault(kind="status", status=502), Fault(kind="status_unknown"), Fault(kind="duplicate"),
    Fault(kind="refuse", reason="margin"), Fault(kind="refuse", reason="price_band"),
    Fault(kind="fill_share", share=0.4), Fault(kind="fill_share", share=0.0),
    Fault(kind="rate_limit", seconds=1.0), Fault(kind="clock_offset", seconds=60.0),
    Fault(kind="move_book", share=-0.02),
]  # fmt: skip
QUESTIONS = [
    Fault(kind="cut_after"), Fault(kind="html_body"), Fault(kind="hide_order"), Fault(kind="stale_order"),
    Fault(kind="stale_positions"), Fault(kind="copies"), Fault(kind="status", status=503),
    Fault(kind="rate_limit", seconds=1.0),
]  # fmt: skip
FAULTS = st.lists(
    st.one_of(
        st.builds(
            FaultRule, fault=st.sampled_from(CREATES), operation=st.just("create"),
            market=st.sampled_from(["spot", "perp"]), count=st.sampled_from([1, 2]),
        ),
        st.builds(
            FaultRule, fault=st.sampled_from(QUESTIONS), count=st.sampled_from([1, 3]),
            operation=st.sampled_from(["find", "trades", "positions", "book", "balances", "open_orders"]),
        ),
    ),
    max_size=3,
)  # fmt: skip
QUIET_S = 15


class Machine(RuleBasedStateMachine):
    """Every rule is one thing that a strategy, a venue, a network or an operating system does."""

    @initialize(pair=st.sampled_from(PAIRS))
    def begin(self, pair):
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.clock = VirtualClock(self.loop)
        self.folder = tempfile.TemporaryDirectory()
        self.stack = contextlib.AsyncExitStack()
        self.world = self._run(
            self.stack.enter_async_context(world(self.clock, pair, Path(self.folder.name) / "journal"))
        )
        self._run(self.world.restart())
        self._run(self.engine.alive(self._trade(0.05)))

    def _run(self, work):
        return self.loop.run_until_complete(work)

    @property
    def engine(self):
        return self.world.engines[-1]

    def teardown(self):
        if not hasattr(self, "loop"):
            return
        try:
            self._quiet()
        finally:
            self._run(self.stack.aclose())
            self.folder.cleanup()
            asyncio.set_event_loop(None)
            self.loop.close()

    # -- what may happen -----------------------------------------------------------------------------------------------

    @rule(faults=FAULTS, quantity=st.sampled_from([0.02, 0.05]))
    def trade(self, faults, quantity):
        """Enter where nothing is held, leave where something is, under faults."""
        self._arm(faults)
        self._run(self.engine.alive(self._trade(quantity)))

    @rule(faults=FAULTS, step=st.sampled_from(["ask", "answer", "written", "sleep"]), n=st.integers(1, 30))
    def die_while_trading(self, faults, step, n):
        """The n-th step of a kind is the last; the next process finds venues that answer."""
        self._arm(faults)
        left = n

        def strike(name, facts):
            nonlocal left
            left -= name == step
            return Killed() if left <= 0 else None

        self.engine.power.strike = strike
        with contextlib.suppress(Killed):
            self._run(self.engine.alive(self._trade(0.05)))
        self._restart()

    @rule()
    def restart(self):
        self._restart()

    @rule(seconds=st.sampled_from([0.5, 2.0, 5.0]), faults=FAULTS)
    def time_passes(self, seconds, faults):
        self._arm(faults)
        self._run(self.engine.alive(self.engine.watch(seconds)))

    @precondition(lambda self: self.is_held)
    @rule(share=st.sampled_from([0.5, 1.0]))
    def deleverage(self, share):
        perp = self.world.legs[1]
        self.engine.sim(perp).close_by_venue(perp, share=share)

    @precondition(lambda self: self.is_held)
    @rule(rate=st.sampled_from([0.0003, -0.001]))
    def settle(self, rate):
        perp = self.world.legs[1]
        self.engine.sim(perp).settle(perp, rate)

    @rule()
    def quiet(self):
        self._quiet()

    async def _trade(self, quantity):
        is_flat = all(abs(held) < 1e-3 for held in self.engine.journal.positions_base().values())
        return await (self.engine.enter(quantity) if is_flat else self.engine.leave())

    def _restart(self):
        self.world.fake.plan = FaultPlan()  # start() gives up where a venue does not answer, and then nothing is traded
        self._run(self.world.restart())

    @property
    def is_held(self):
        return abs(self.world.sims[self.world.legs[1].split(":")[1]].position_base(self.world.legs[1])) > 1e-3

    # -- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_forbidden(self):
        if hasattr(self, "world") and self.world.engines:
            check_world(self.engine, naked_s=None, is_settled=False)

    def _quiet(self):
        """No fault for a while: then all must be right."""
        self.world.fake.plan = FaultPlan()
        for sim in self.world.sims.values():
            sim.clock_offset_ms = 0
        engine = self.engine
        self._run(engine.alive(engine.watch(QUIET_S)))
        self._run(engine.alive(engine.collect_funding()))
        assert not engine.guard.is_open(self.clock.now_us()), engine.guard.breaker
        check_world(engine, naked_s=None)

    def _arm(self, faults):
        self.world.fake.plan = FaultPlan(faults)
