"""F1 to F37 of the reliability bar, by number, on three venues and a pair across two, with I1 to I10 after each."""

import re

import pytest
from live_room import PAIRS, check_invariants, room

from basis_bt.live.fake.faults import FaultPlan
from basis_bt.live.fake.scenarios import SCENARIOS
from basis_bt.live.fake.virtual_time import run_virtual

CASES = [
    pytest.param(scenario, variant, pair, id="-".join(filter(None, (name, variant, *dict.fromkeys(pair)))))
    for name, scenario in SCENARIOS.items()
    for variant in scenario.variants
    for pair in PAIRS
]
REQUESTS = 60


async def carry_out(room, scenario):
    """The steps of a scenario; returns the last outcome."""
    quantity, perp = scenario.quantity_for(room.pair[1]), room.combos.instruments[1]
    outcome = ""
    for step in scenario.steps:
        if step == "open":
            done = await room.enter(quantity)
            outcome, room.reason, room.result = done.outcome, done.reason, done
        elif step == "close":
            outcome = (await room.leave()).outcome
        elif step == "adl":
            await room.watch(3.0)  # a position must have been seen for what happens to it to be news
            room.sim(perp).close_by_venue(perp)
        elif step == "settle":
            room.sim(perp).settle(perp, 0.0003)
            await room.clock.sleep(1.0)
        elif step == "wait":
            await room.watch(6.0)
    await room.watch(3.0)
    await room.collect_funding()
    held = room.journal.positions_base()
    if outcome == "opened" and scenario.steps[-1] == "wait" and abs(held[perp]) < 1e-9:
        outcome = "flat"
    return outcome


@pytest.mark.parametrize(("scenario", "variant", "pair"), CASES)
def test_the_legs_stay_together(scenario, variant, pair):
    carry_through(scenario, variant, pair)


ON_PAPER = [case for case in CASES if case.values[2] in (("bybit", "bybit"), ("binance", "okx"))]


@pytest.mark.parametrize(("scenario", "variant", "pair"), ON_PAPER)
def test_on_paper_too(scenario, variant, pair):
    """The same engine on simulated accounts beside the venue's market data."""
    carry_through(scenario, variant, pair, is_paper=True)


def carry_through(scenario, variant, pair, *, is_paper=False):
    style = {"perp": "limit_then_market"} if scenario.style == "limit" else "market"

    async def main(clock):
        async with room(clock, pair, rules=(), style=style, is_paper=is_paper) as r:
            perp = r.combos.instruments[1]
            if scenario.prepare is not None:
                scenario.prepare(r.fake.venues[pair[1]], perp)
            plan = scenario.plan(variant)
            r.set_plan(plan)
            outcome = await carry_out(r, scenario)
            said = f"{outcome}: {r.reason}"
            assert outcome in scenario.results, said
            spot_creates, perp_creates = (r.sim(one).creates[one] for one in r.combos.instruments)
            assert spot_creates <= scenario.spot_creates and perp_creates <= scenario.perp_creates, said
            assert all(len(sim.requests) <= REQUESTS for sim in r.sims.values()), "I9"
            if variant or scenario.variants[variant]:
                assert plan.fired, "the fault never struck"
            check_invariants(
                r, quantity=scenario.quantity_for(pair[1]), naked_s=scenario.naked_s, may_be_naked=outcome == "halted"
            )
            SPECIAL.get(scenario.id, lambda r: None)(r)

    run_virtual(main)


def found_by_client_id(r):
    types = [event.type for event in r.journal.events() if event.instrument and event.instrument.startswith("perp")]
    order = ["intent", "unknown", "found", "fill", "order_done"]
    assert [one for one in types if one in order] == order


def rolled_back_at_cost(r):
    """F12: the cost in the journal is what the venue's cash lost, to 1e-8."""
    spot = r.combos.instruments[0]
    lost = 200_000.0 - r.sim(spot).balance("USDT")
    assert r.result.rollback_usd == pytest.approx(lost, abs=1e-8) and lost > 0.0


def contracts_are_whole(r):
    """F15: both legs are floored to the common lot; 5.03 contracts of 0.01 on OKX."""
    spot, perp = r.combos.instruments
    assert r.sim(perp).position_base(perp) == pytest.approx(-0.05 if r.pair[1] != "okx" else -0.0503, abs=1e-12)


def refusal_names_depth(r):
    assert re.search(r"0\.01 ", r.reason) and "0.05" in r.reason and r.combos.instruments[1] in r.reason


def refusal_names_spread(r):
    assert re.search(r"80(\.\d+)? bps", r.reason) and "10 bps" in r.reason


def one_cancel_one_fallback(r):
    kinds = [event.type for event in r.journal.events()]
    assert kinds.count("cancel_asked") == 1
    purposes = [event.payload["purpose"] for event in r.journal.events("intent")]
    assert purposes.count("fallback") == 1


def half_is_taken(r):
    last = [event.payload for event in r.journal.events("intent") if event.payload["purpose"] == "fallback"]
    lot = r.combos._contract(1).lot_base
    assert [one["quantity_base"] for one in last] == [pytest.approx(0.025, abs=lot / 2)]


def halted_for_a_person(r):
    """F27: the breaker says exactly how much is naked, and keeps doing so after a restart."""
    spot = r.combos.instruments[0]
    naked = r.journal.events("breaker_open")[0].payload["naked_base"][spot]
    assert naked == pytest.approx(r.sim(spot).net_base("BTC"), abs=r.combos._contract(0).lot_base)
    breaker = r.journal.get("guard")["breaker"]
    assert breaker["needs_reset"]


def not_a_number_is_written(r):
    assert not re.search(r"\bnan\b", f"{r.reason} {r.journal.events()}", re.IGNORECASE)


def funding_is_received(r):
    perp = r.combos.instruments[1]
    paid = [event.payload["amount"] for event in r.journal.events("funding")]
    assert len(paid) == 2 and sum(paid) == pytest.approx(sum(one.amount for one in r.sim(perp).funding), abs=1e-8)
    assert all(amount > 0.0 for amount in paid), "a short is paid a positive rate, on every venue"


def nothing_is_corrected(r):
    assert not r.journal.events("incident") and len(r.journal.events("intent")) == 2


def dust_is_told(r):
    assert r.journal.positions_base()[r.combos.instruments[0]] < r.combos._contract(0).lot_base


SPECIAL = {
    "F1": found_by_client_id, "F12": rolled_back_at_cost, "F15": contracts_are_whole, "F17": refusal_names_depth,
    "F18": refusal_names_spread, "F20": one_cancel_one_fallback, "F22": half_is_taken, "F27": halted_for_a_person,
    "F29": dust_is_told, "F31": not_a_number_is_written, "F36": funding_is_received, "F37": nothing_is_corrected,
}  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_what_a_failed_rollback_left_is_closed_as_soon_as_the_venue_lets_us(pair):
    async def main(clock):
        async with room(clock, pair) as r:
            r.set_plan(SCENARIOS["F27"].plan(""))
            spot = r.combos.instruments[0]
            assert (await r.enter()).outcome == "halted" and r.sim(spot).net_base("BTC") > 0.049
            r.set_plan(FaultPlan())
            await r.watch(130.0)
            check_invariants(r, quantity=0.05, naked_s=None)
            assert (await r.enter()).outcome == "refused", "the breaker still waits for a person"

    run_virtual(main)
