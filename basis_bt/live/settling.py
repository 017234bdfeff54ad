"""What an instruction came to whose engine was killed meanwhile, from what the journal has of its orders."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from basis_bt.live.event_types import FILL, INTENT, LEG_RESULT, ORDER_DONE
from basis_bt.live.journal import Journal
from basis_bt.live.orders import ComboResult, Instruction, LegOrder, LegResult, VenueTrade
from basis_bt.live.results import leg_result, venue_order
from basis_bt.live.venue import Contract

_TRADE = {field.name for field in dataclasses.fields(VenueTrade)}


def outcome_of(
    journal: Journal, instruction: Instruction, after: Sequence[LegResult], *, contracts: Sequence[Contract]
) -> ComboResult:
    """The result of an instruction, from the fills of its orders and what was closed ``after`` the restart.

    An entry that is not whole after that counts as rolled back; an exit is flat when all of it is closed.
    """
    legs = [*_orders_of(journal, instruction, contracts)]
    known = {one.client_order_id for one in legs}
    legs += [
        dataclasses.replace(one, purpose="rollback") if instruction.action == "entry" else one
        for one in after
        if one.client_order_id not in known and one.filled_base
    ]
    changed = [sum(one.position_change_base for one in legs if one.leg == leg) for leg in range(len(contracts))]
    slack = [2.0 * contract.lot_base for contract in contracts]
    if instruction.action == "exit":
        is_flat = all(
            abs(want - change) <= lot
            for want, change, lot in zip(instruction.change_base, changed, slack, strict=True)
        )
        return ComboResult(
            intent=instruction.intent, outcome="flat" if is_flat else "reduced", legs=tuple(legs),
            reason="" if is_flat else "the engine was killed before all was closed",
        )  # fmt: skip
    is_held = all(abs(change) > lot for change, lot in zip(changed, slack, strict=True))
    is_whole = is_held and all(
        abs(want - change) <= lot for want, change, lot in zip(instruction.change_base, changed, slack, strict=True)
    )
    return ComboResult(
        intent=instruction.intent,
        outcome="opened" if is_whole else "reduced" if is_held else "flat",
        legs=tuple(legs),
        reason="" if is_whole else "the engine was killed while it entered",
    )


def unbooked(journal: Journal, instruments: Sequence[str], contracts: Sequence[Contract]) -> list[LegResult]:
    """Fills that are in the journal and in no result: an engine was killed between learning of them and booking them.

    Those of the instruction that was under way are not among them once it has been settled.
    """
    results = journal.events(LEG_RESULT)
    booked = {event.client_order_id for event in results}
    legs = {(event.intent, event.payload["leg"]) for event in results if event.intent is not None}
    orders = {str(event.client_order_id): LegOrder(**event.payload) for event in journal.events(INTENT)}
    missing: dict[str, list[VenueTrade]] = {}
    for event in journal.events(FILL):
        key = event.client_order_id or str(event.payload["trade_id"])
        order = orders.get(key)
        if key in booked or event.instrument not in instruments:
            continue
        if order is not None and (order.intent.split(".")[0], order.leg) in legs:
            continue
        missing.setdefault(key, []).append(_trade_of(event.payload))
    return [
        leg_result(
            orders.get(key) or venue_order(mine[0], instruments.index(mine[0].instrument)),
            mine,
            contract=contracts[instruments.index(mine[0].instrument)],
            worth={},
            done_us=mine[-1].ts_us,
            venue_order_id=mine[0].venue_order_id,
        )
        for key, mine in missing.items()
    ]


def _trade_of(payload: Mapping[str, Any]) -> VenueTrade:
    return VenueTrade(**{name: value for name, value in payload.items() if name in _TRADE})


def _orders_of(journal: Journal, instruction: Instruction, contracts: Sequence[Contract]) -> list[LegResult]:
    orders = {
        str(event.client_order_id): LegOrder(**event.payload)
        for event in journal.events(INTENT)
        if event.intent is not None and event.intent.split(".")[0] == instruction.intent
    }
    trades: dict[str, list[VenueTrade]] = {}
    for event in journal.events(FILL):
        if event.client_order_id in orders:
            trades.setdefault(str(event.client_order_id), []).append(_trade_of(event.payload))
    done = {event.client_order_id: event for event in journal.events(ORDER_DONE)}
    return [
        leg_result(
            orders[client_id],
            mine,
            contract=contracts[orders[client_id].leg],
            worth={},
            done_us=done[client_id].ts_us if client_id in done else mine[-1].ts_us,
            venue_order_id=mine[0].venue_order_id,
        )
        for client_id, mine in trades.items()
    ]
