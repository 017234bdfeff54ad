"""What OKX tells everybody: instruments, books, prices, rates."""

from typing import Any

from basis_bt.live.fake import bars
from basis_bt.live.fake.okx_names import inst_id, inst_type, pair
from basis_bt.live.fake.records import text
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.wire import (
    Call,
    Treatment,
    demand_instrument,
)
from basis_bt.live.venue import Contract


def time(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """The venue's clock."""
    return {"ts": str(sim.venue_now_ms())}


def markets(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Instruments of a type."""
    kind = call.params["instType"]
    return [
        _market(contract)
        for contract in sim.contracts.values()
        if kind == inst_type(contract) and call.params.get("instId") in (None, inst_id(contract))
    ]


def currencies(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """The coins that wallets know."""
    coins = {c for contract in sim.contracts.values() for c in (contract.base, contract.quote)}
    return [
        {"ccy": c, "chain": f"{c}-{c}", "canDep": True, "canWd": True, "canInternal": True, "minWd": "0",
         "minFee": "0", "maxFee": "0", "wdTickSz": "8", "mainNet": True, "name": c}
        for c in sorted(coins)
    ]  # fmt: skip


def ticker(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Best prices and their time."""
    seen = treatment.lens.book(sim.book(demand_instrument(call)), sim.now_us())
    bid = text(seen.bids[0][0]) if seen.bids else ""
    ask = text(seen.asks[0][0]) if seen.asks else ""
    return {
        "instId": call.params["instId"], "last": bid or ask, "bidPx": bid, "askPx": ask, "vol24h": "1000",
        "volCcy24h": "1000", "ts": str(seen.at_us // 1000),
    }  # fmt: skip


def order_book(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Levels in contracts, with a time."""
    instrument = demand_instrument(call)
    size = sim.contracts[instrument].contract_base
    seen = treatment.lens.book(sim.book(instrument), sim.now_us())
    n = int(call.params.get("sz", "1"))
    return {
        "asks": [[text(p), text(q / size), "0", "1"] for p, q in seen.asks[:n]],
        "bids": [[text(p), text(q / size), "0", "1"] for p, q in seen.bids[:n]],
        "ts": str(seen.at_us // 1000),
        "seqId": seen.update_id,
    }


def mark_price(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Of one perpetual, or of all."""
    return [
        {
            "instType": "SWAP", "instId": inst_id(sim.contracts[instrument]),
            "markPx": text(sim.mark_price(instrument)), "ts": str(sim.venue_now_ms()),
        }
        for instrument in sim.positions
        if call.instrument in (None, instrument)
    ]  # fmt: skip


def funding_rate(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """The rate of the running period; its settlement is ``fundingTime``."""
    rate, next_us, hours = bars.next_rate(sim, demand_instrument(call))
    return {
        "instId": call.params["instId"], "instType": "SWAP", "fundingRate": text(rate),
        "fundingTime": str(next_us // 1000), "nextFundingTime": str(next_us // 1000 + round(hours * 3_600_000)),
        "method": "current_period", "settState": "settled", "settFundingRate": text(rate),
        "maxFundingRate": "0.00375", "minFundingRate": "-0.00375", "nextFundingRate": "",
        "ts": str(sim.venue_now_ms()),
    }  # fmt: skip


def funding_rates(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Settled rates, newest first; what was paid is ``realizedRate``."""
    marks = bars.settled(sim, demand_instrument(call), call.params.get("before"))
    return [
        {
            "instId": call.params["instId"], "instType": "SWAP", "fundingRate": text(mark.rate),
            "realizedRate": text(mark.rate), "fundingTime": str(mark.ts_us // 1000), "method": "current_period",
        }
        for mark in reversed(marks)
    ]  # fmt: skip


def last_candles(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Bars of trades, newest first; the volume in contracts comes before the one in base."""
    size = sim.contracts[demand_instrument(call)].contract_base
    return [
        [str(at), text(o), text(h), text(lo), text(c), text(v / size), text(v), text(v * c), done]
        for at, (o, h, lo, c, v), done in _candles(sim, call, "last")
    ]


def mark_candles(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Bars of the mark price, newest first."""
    return [
        [str(at), text(o), text(h), text(lo), text(c), done]
        for at, (o, h, lo, c, _), done in _candles(sim, call, "mark")
    ]


def _candles(sim: SimVenue, call: Call, price: str) -> list[tuple[int, tuple[float, ...], str]]:
    params = call.params
    since_ms = str(int(params["before"]) + 1) if "before" in params else None
    until_ms = str(int(params["after"]) - 1) if "after" in params else None
    rows, step_ms = bars.candles(
        sim, demand_instrument(call), price, params.get("bar", "1m"), since_ms=since_ms, until_ms=until_ms,
        limit=int(params.get("limit", "100")),
    )  # fmt: skip
    now_ms = sim.venue_now_ms()
    return [(at, ohlcv, "1" if at + step_ms <= now_ms else "0") for at, ohlcv in reversed(rows)]


def tiers(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """One tier an underlying."""
    family = call.params.get("instFamily") or call.params.get("uly")
    return [
        {
            "instId": "", "instType": "SWAP", "instFamily": pair(contract), "uly": pair(contract), "tier": "1",
            "minSz": "0", "maxSz": "100000", "imr": text(1.0 / bars.MAX_LEVERAGE), "baseMaxLoan": "",
            "mmr": text(bars.MAINTENANCE_FRAC), "maxLever": text(bars.MAX_LEVERAGE), "quoteMaxLoan": "",
            "optMgnFactor": "",
        }
        for contract in sim.contracts.values()
        if contract.is_margined and family in (None, pair(contract))
    ]  # fmt: skip


def _market(contract: Contract) -> dict[str, str]:
    size = contract.contract_base
    row = {
        "instType": inst_type(contract), "instId": inst_id(contract), "lotSz": text(contract.lot_base / size),
        "minSz": text(contract.min_base / size), "tickSz": text(contract.tick), "maxLmtSz": "100000000",
        "state": "live" if contract.is_trading else "suspend", "expTime": "", "listTime": "1",
    }  # fmt: skip
    if not contract.is_margined:
        return row | {
            "baseCcy": contract.base, "quoteCcy": contract.quote, "uly": "", "instFamily": "", "settleCcy": "",
            "ctVal": "", "ctMult": "", "ctValCcy": "", "ctType": "", "lever": "10",
        }  # fmt: skip
    return row | {
        "uly": pair(contract), "instFamily": pair(contract), "settleCcy": contract.quote, "ctVal": text(size),
        "ctMult": "1", "ctValCcy": contract.base, "ctType": "linear", "lever": text(bars.MAX_LEVERAGE),
        "baseCcy": "", "quoteCcy": "",
    }  # fmt: skip
