"""F38 to F40: an engine that is killed anywhere, comes back to a damaged journal or to strangers, or is stopped."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from live_room import PRICE
from live_trials import (
    CUTS,
    KILL_POINTS,
    QUANTITY,
    SCENES,
    check_world,
    count_awaits,
    cut_trial,
    kill_trial,
    naked_since_s,
)
from live_world import PREFIX, World, world

from basis_bt.core.errors import StoreError
from basis_bt.live.clock import Clock
from basis_bt.live.fake.records import Ticket
from basis_bt.live.fake.virtual_time import run_virtual
from basis_bt.live.lock import AccountLock

CROSS = ("binance", "okx")
THREE = ("spot:okx:BTC-USDT", "perp:binance:BTC-USDT", "perp:bybit:BTC-USDT")


# -- F38 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", KILL_POINTS)
def test_a_killed_engine_settles_everything_before_it_trades_again(point, tmp_path):
    held = kill_trial(KILL_POINTS[point], CROSS, tmp_path / "journal")
    assert held in ("opened", "flat", "halted")
    assert (held == "halted") == (point == "shutdown"), "a stop stays in force"


@pytest.mark.parametrize("pair", [("binance", "binance"), ("bybit", "bybit"), ("okx", "okx")], ids=lambda pair: pair[0])
@pytest.mark.parametrize("point", ["spot sent", "exit"])
def test_an_order_that_lands_after_the_restart_is_not_left_naked(point, pair, tmp_path):
    kill_trial(KILL_POINTS[point], pair, tmp_path / "journal", late_s=5.0)


def test_a_restart_that_is_killed_is_settled_by_the_next(tmp_path):
    """Twice naked at a restart: the orders that close it must not share an id, or the venue takes one for the other."""

    async def main(clock):
        async with world(clock, CROSS, tmp_path / "journal") as it:
            await it.restart()
            for _ in range(3):
                spot, sim = it.legs[0], it.sims["binance"]
                engine = it.engines[-1]
                done = await engine.alive(engine.desk.place(_entry(it, engine)))
                assert done.success
                engine = await it.restart()
                assert sim.position_base(spot) < 1e-4, "what nothing hedges is closed"
                check_world(engine, naked_s=None)

    run_virtual(main)


def _entry(it, engine):
    from basis_bt.live.ids import client_order_id
    from basis_bt.live.orders import LegOrder

    number = len(engine.journal.events("intent"))
    return LegOrder(
        intent=f"{number}-entry", instrument=it.legs[0], leg=0, side=1, quantity_base=0.05, arrival_price=PRICE,
        client_order_id=client_order_id(PREFIX, f"{number}", purpose="entry", leg=0, attempt=0), reference_price=PRICE,
        decided_us=it.clock.now_us(),
    )  # fmt: skip


CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from live_world import Engine, World
from live_trials import KILL_POINTS, QUANTITY
from basis_bt.live.clock import Clock

folder, url, point = sys.argv[1:]

async def main():
    clock = Clock()
    it = World(clock, ["spot:binance:BTC-USDT", "perp:okx:BTC-USDT"], Path(folder))
    it.fake.base_url = lambda venue: f"{url}/{venue}"
    engine = await it.begin(is_durable=True)
    await engine.alive(engine.keeper.start())
    engine.power.strike = KILL_POINTS[point].strike
    engine.power.on_cut = lambda: os.kill(os.getpid(), signal.SIGKILL)
    engine.fake = None
    instruction = it.instruction(engine, "entry", (QUANTITY, -QUANTITY), QUANTITY)
    await engine.alive(engine.combos.enter(instruction))

asyncio.run(main())
"""


@pytest.mark.parametrize("point", ["perp accepted", "perp logged"])
def test_a_real_kill_leaves_a_journal_from_which_another_process_goes_on(point, tmp_path):
    """SIGKILL to a process with a durable journal; venues in a thread, real sockets, real time."""
    told: dict = {}
    ready, done = threading.Event(), threading.Event()

    async def serve():
        it = World(Clock(), ["spot:binance:BTC-USDT", "perp:okx:BTC-USDT"], tmp_path / "journal")
        await it.fake.start()
        told["url"], told["world"] = it.fake.base_url("binance").rsplit("/", 1)[0], it
        ready.set()
        while not done.is_set():
            await asyncio.sleep(0.01)
        await it.fake.stop()

    server = threading.Thread(target=lambda: asyncio.run(serve()))
    server.start()
    try:
        assert ready.wait(10.0)
        tests = Path(__file__).parent
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(tmp_path / "journal"), told["url"], point],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
        assert "Traceback" not in child.stderr

        async def restart():
            it = told["world"]
            begun_us = it.clock.now_us()
            engine = await it.restart(is_durable=True)
            try:
                sims = list(it.sims.values())
                assert naked_since_s(sims, 1e-3, since_us=begun_us, until_us=it.clock.now_us()) <= 5.0
                check_world(engine, naked_s=None)
                for sim in sims:
                    ids = [order.ticket.client_order_id for order in sim.orders.values()]
                    assert len(ids) == len(set(ids))
                assert not engine.journal.open_intents() and not engine.journal.notes
                lines = (tmp_path / "journal" / "events.jsonl").read_text().splitlines()
                assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))
            finally:
                await engine.end()

        asyncio.run(restart())
    finally:
        done.set()
        server.join()


# -- fail at the nth await ---------------------------------------------------------------------------------------------


def test_any_await_may_fail(tmp_path):
    """One of three failures at some awaits of an open-and-close; all of them are in ``benchmarks/``."""
    place = 0
    for scene in SCENES:
        for step, most in count_awaits(CROSS, scene).items():
            for n in range(1, most + 1):
                place += 1
                cut = CUTS[place % 3] if step != "sleep" else "killed"
                if place % 16 == 0:
                    cut_trial(CROSS, tmp_path / str(place), cut=cut, step=step, n=n, scene=scene)
    assert place > 150


# -- F39 ---------------------------------------------------------------------------------------------------------------


async def opened(it):
    engine = await it.restart()
    assert (await engine.alive(engine.enter(QUANTITY))).outcome == "opened"
    await engine.end()
    it.engines.clear()
    return engine.journal.last_seq


@pytest.mark.parametrize("cut", [1, 7, 60])
def test_a_torn_line_is_cut_and_everything_before_is_kept(cut, tmp_path):
    async def main(clock):
        async with world(clock, CROSS, tmp_path / "journal") as it:
            last_seq = await opened(it)
            log = tmp_path / "journal" / "events.jsonl"
            log.write_bytes(log.read_bytes()[:-cut])
            engine = await it.restart()
            assert any("events.jsonl" in note for note in engine.journal.notes)
            assert engine.journal.last_seq >= last_seq
            check_world(engine, naked_s=2.0)
            assert (await engine.alive(engine.leave())).outcome == "flat"

    run_virtual(main)


def test_a_lost_database_comes_back_from_a_torn_log_and_the_venue(tmp_path):
    """The last events are gone with the torn tail: the order they end is looked up, not sent again."""

    async def main(clock):
        async with world(clock, CROSS, tmp_path / "journal") as it:
            await opened(it)
            for path in (tmp_path / "journal").glob("journal.sqlite*"):
                path.unlink()
            log = tmp_path / "journal" / "events.jsonl"
            lines = log.read_bytes().splitlines(keepends=True)
            last_fill = max(n for n, line in enumerate(lines) if b'"type":"fill"' in line or b'"type": "fill"' in line)
            log.write_bytes(b"".join(lines[:last_fill]) + lines[last_fill][:20])
            engine = await it.restart()
            assert any("rebuilt" in note for note in engine.journal.notes)
            check_world(engine, naked_s=2.0)
            assert (await engine.alive(engine.leave())).outcome == "flat"
            assert all(len(sim.orders) == 2 for sim in it.sims.values())

    run_virtual(main)


def test_without_a_journal_the_venue_is_asked_and_flat_is_not_assumed(tmp_path):
    async def main(clock):
        async with world(clock, CROSS, tmp_path / "journal") as it:
            await opened(it)
            it.folder = tmp_path / "another"
            with pytest.raises(StoreError, match="does not know"):
                await it.restart()
            for engine in it.engines:
                await engine.end()
            it.engines.clear()
            engine = await it.restart(policy="adopt")
            held = engine.journal.positions_base()
            assert held[it.legs[1]] == pytest.approx(-0.05) and held[it.legs[0]] == pytest.approx(0.05, rel=1e-3)
            assert (await engine.alive(engine.leave())).outcome == "flat"
            assert abs(it.sims["okx"].position_base(it.legs[1])) < 1e-9

    run_virtual(main)


@pytest.mark.parametrize("venue", ["binance", "bybit", "okx"])
def test_our_orphan_is_cancelled_and_somebody_elses_order_is_not_touched(venue, tmp_path):
    async def main(clock):
        async with world(clock, (venue, venue), tmp_path / "journal") as it:
            await opened(it)
            sim, perp = it.sims[venue], it.legs[1]
            for name in (f"{PREFIX}e1orphan", "theirs1"):
                sim.place(Ticket(client_order_id=name, instrument=perp, side=-1, quantity_base=0.01, kind="limit",
                                 limit_price=60_000.0))  # fmt: skip
            with pytest.raises(StoreError, match="open order"):
                await it.restart(policy="refuse")
            for engine in it.engines:
                await engine.end()
            it.engines.clear()
            engine = await it.restart(policy="adopt")
            assert [order.ticket.client_order_id for order in sim.open_orders()] == ["theirs1"]
            assert (await engine.alive(engine.leave())).outcome == "flat"
            assert [order.ticket.client_order_id for order in sim.open_orders()] == ["theirs1"]

    run_virtual(main)


def test_positions_that_lag_at_the_start_are_looked_at_twice(tmp_path):
    """The last fill is not in the first answer: no reason to refuse, and none to correct anything."""

    async def main(clock):
        from basis_bt.live.fake.faults import Fault, FaultPlan, FaultRule

        async with world(clock, CROSS, tmp_path / "journal") as it:
            await opened(it)
            it.fake.plan = FaultPlan([FaultRule(fault=Fault(kind="stale_positions"), operation="positions")])
            engine = await it.restart()
            assert it.fake.plan.fired and not engine.journal.events("incident")

    run_virtual(main)


def test_coins_of_somebody_else_in_the_wallet_are_not_sold(tmp_path):
    """I7: an exit that a restart repeats sells what the engine bought, and no more."""

    async def main(clock):
        async with world(clock, CROSS, tmp_path / "journal") as it:
            sim = it.sims["binance"]
            sim.wallets.add("spot", "BTC", 1.0)
            sim._start["BTC"] = 1.0
            await opened(it)
            engine = await it.restart()
            leave = it.instruction(engine, "exit", [-held for held in engine.journal.positions_base().values()], 0.05)
            assert (await engine.alive(engine.combos.leave(leave))).outcome == "flat"
            await engine.alive(engine.combos.leave(leave))
            assert sim.balance("BTC") == pytest.approx(1.0, abs=1e-4) and not sim.violations

    run_virtual(main)


# -- F40 ---------------------------------------------------------------------------------------------------------------


async def three(it):
    """A combo over three venues, with orders of ours resting on two of them."""
    engine = await it.restart()
    done = await engine.alive(engine.combos.enter(it.instruction(engine, "entry", (0.1, -0.05, -0.05), 0.1)))
    assert done.outcome == "opened", done.reason
    for instrument in it.legs:
        sim = it.sims[instrument.split(":")[1]]
        sim.place(Ticket(client_order_id=f"{PREFIX}rest", instrument=instrument, side=1, quantity_base=0.01,
                         kind="limit", limit_price=40_000.0))  # fmt: skip
    return engine


@pytest.mark.parametrize("down", ["binance", "bybit", "okx"])
def test_a_stop_closes_all_venues_while_one_is_down(down, tmp_path):
    async def main(clock):
        async with world(clock, THREE, tmp_path / "journal", ratios=(1.0, -0.5, -0.5)) as it:
            engine = await three(it)
            it.fake.take_down(down, 3.0)
            begun_us = clock.now_us()
            both = [asyncio.create_task(engine.alive(engine.keeper.stop(f"stop {n}"))) for n in range(2)]
            await asyncio.gather(*both)
            assert (clock.now_us() - begun_us) / 1e6 <= 15.0
            for sim in it.sims.values():
                assert not sim.open_orders() and not sim.violations
                closed_us = max(order.updated_us for order in sim.orders.values())
                assert sim.name == down or (closed_us - begun_us) / 1e6 < 1.0, "the others do not wait"
                assert all(abs(sim.position_base(one)) < 1e-4 for one in sim.contracts)
            assert sum(sum(sim.creates.values()) for sim in it.sims.values()) <= 16
            sent = {name: len(sim.orders) for name, sim in it.sims.items()}
            creates = {name: sum(sim.creates.values()) for name, sim in it.sims.items()}
            begun_us = clock.now_us()
            await engine.alive(engine.keeper.stop("again"))
            assert {name: len(sim.orders) for name, sim in it.sims.items()} == sent, "a second stop sends nothing"
            assert {name: sum(sim.creates.values()) for name, sim in it.sims.items()} == creates
            assert (clock.now_us() - begun_us) / 1e6 < 2.0, "and does not look for dust for long"

    run_virtual(main)


def test_a_stop_stays_in_force_until_a_person_resets_it(tmp_path):
    async def main(clock):
        async with world(clock, CROSS, tmp_path / "journal") as it:
            engine = await it.restart()
            await engine.alive(engine.enter(QUANTITY))
            await engine.alive(engine.keeper.stop())
            engine = await it.restart()
            assert engine.guard.is_open(clock.now_us() + 10**15)
            refused = await engine.alive(engine.enter(QUANTITY))
            assert refused.outcome == "refused" and "until a person resets it" in refused.reason
            engine.guard.reset("ann", clock.now_us())
            engine.journal.put("guard", engine.guard.to_state())
            engine = await it.restart()
            assert (await engine.alive(engine.enter(QUANTITY))).outcome == "opened"
            assert (await engine.alive(engine.leave())).outcome == "flat"

    run_virtual(main)


def test_a_stop_waits_for_an_order_nobody_knows_the_end_of(tmp_path):
    """An entry whose end is not known when everything is closed fills after that: it is closed as well."""

    async def main(clock):
        from basis_bt.live.fake.faults import Fault, FaultPlan, FaultRule

        async with world(clock, ("okx", "okx"), tmp_path / "journal") as it:
            engine = await it.restart(naked_s=1.0)
            sim, spot = it.sims["okx"], it.legs[0]
            it.fake.plan = FaultPlan([
                FaultRule(fault=Fault(kind="cut_after"), operation="create", market="spot"),
                FaultRule(fault=Fault(kind="hide_order"), operation=("find", "open_orders"), market="spot", count=3),
                FaultRule(fault=Fault(kind="status", status=502), operation="find", market="spot", skip=3, count=1),
            ])  # fmt: skip
            await engine.alive(engine.enter(QUANTITY))
            assert engine.combos.late and sim.position_base(spot) > 0.04
            await engine.alive(engine.keeper.stop())
            assert abs(sim.position_base(spot)) < 1e-4 and not engine.combos.late
            check_world(engine, naked_s=None)

    run_virtual(main)


def test_a_second_instance_is_refused_at_once(tmp_path):
    async def main(clock):
        async with world(clock, CROSS, tmp_path / "journal") as it:
            await it.restart()
            begun_s = clock.monotonic_s()
            with pytest.raises(StoreError, match="in use by another instance"):
                await it.begin()
            assert clock.monotonic_s() - begun_s < 1.0

    run_virtual(main)
    accounts = [("binance", "a key"), ("okx", "another")]
    with AccountLock(accounts, tmp_path / "locks"), pytest.raises(StoreError, match="okx") as caught:
        AccountLock([("okx", "another")], tmp_path / "locks")
    assert "another" not in str(caught.value).replace("another instance", "")
    AccountLock(accounts, tmp_path / "locks").close()


def test_an_order_id_of_one_venue_is_not_taken_for_another_venues(tmp_path):
    """The venue's own order that took half of the position has the id that our spot order has elsewhere."""

    async def main(clock):
        async with world(clock, CROSS, tmp_path / "journal") as it:
            it.sims["binance"]._serial = 5_000
            await opened(it)
            perp, ours = it.legs[1], set(it.sims["binance"].orders)
            it.sims["okx"]._serial = 5_000
            engine = await it.begin()
            it.sims["okx"].close_by_venue(perp, share=0.5)
            assert ours & {trade.venue_order_id for trade in it.sims["okx"].trades if trade.quantity_base == 0.025}
            await engine.alive(engine.keeper.start())
            assert engine.journal.positions_base()[perp] == pytest.approx(-0.025)
            assert not [one for one in engine.journal.events("fill") if one.payload.get("origin") == "adjusted"]
            check_world(engine, naked_s=5.0)

    run_virtual(main)
