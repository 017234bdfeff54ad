"""What Bybit tells everybody: instruments, books, prices, rates."""

from typing import Any

from basis_bt.live.fake import bars
from basis_bt.live.fake.records import text
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.wire import (
    Call,
    Treatment,
    demand_instrument,
    joined,
)
from basis_bt.live.venue import Contract


def time(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """The venue's clock."""
    now_ms = sim.venue_now_ms()
    return {"timeSecond": str(now_ms // 1000), "timeNano": str(now_ms * 1_000_000)}


def markets(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Instruments of a category."""
    category = call.params["category"]
    rows = []
    for contract in sim.contracts.values():
        if contract.is_margined != (category == "linear") or category not in ("spot", "linear"):
            continue
        if call.params.get("symbol", joined(contract)) != joined(contract):
            continue
        if call.params.get("status") == "PreLaunch":
            continue
        rows.append(_perp_row(contract) if contract.is_margined else _spot_row(contract))
    return {"category": category, "list": rows, "nextPageCursor": ""}


def currencies(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """The coins that wallets know."""
    coins = {c for contract in sim.contracts.values() for c in (contract.base, contract.quote)}
    return {"rows": [{"name": c, "coin": c, "remainAmount": "1", "chains": []} for c in sorted(coins)]}


def tickers(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Best prices, mark and funding."""
    rows = []
    for instrument, contract in sim.contracts.items():
        if call.instrument not in (None, instrument):
            continue
        if contract.is_margined != (call.params.get("category") != "spot"):
            continue
        seen = treatment.lens.book(sim.book(instrument), sim.now_us())
        bid = text(seen.bids[0][0]) if seen.bids else ""
        ask = text(seen.asks[0][0]) if seen.asks else ""
        row = {
            "symbol": joined(contract), "lastPrice": bid or ask, "bid1Price": bid, "ask1Price": ask,
            "volume24h": "1000", "turnover24h": "50000000",
        }  # fmt: skip
        if contract.is_margined:
            rate, next_us, hours = bars.next_rate(sim, instrument)
            mark = text(sim.mark_price(instrument))
            row |= {
                "markPrice": mark, "indexPrice": mark, "fundingRate": text(rate),
                "nextFundingTime": str(next_us // 1000), "fundingIntervalHour": text(hours),
            }  # fmt: skip
        rows.append(row)
    return {"category": call.params.get("category", ""), "list": rows}


def order_book(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Levels with a time."""
    seen = treatment.lens.book(sim.book(demand_instrument(call)), sim.now_us())
    n = int(call.params.get("limit", "25"))
    at_ms = seen.at_us // 1000
    return {
        "s": call.params["symbol"], "b": [[text(p), text(q)] for p, q in seen.bids[:n]],
        "a": [[text(p), text(q)] for p, q in seen.asks[:n]], "ts": at_ms, "u": seen.update_id, "cts": at_ms,
    }  # fmt: skip


def funding_history(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Settled rates, newest first."""
    marks = bars.settled(sim, demand_instrument(call), call.params.get("startTime"))
    return {
        "category": "linear",
        "list": [
            {
                "symbol": call.params["symbol"],
                "fundingRate": text(mark.rate),
                "fundingRateTimestamp": str(mark.ts_us // 1000),
            }
            for mark in reversed(marks)
        ],
    }


def last_candles(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Bars of trades."""
    return _candles(sim, call, "last")


def mark_candles(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Bars of the mark price."""
    return _candles(sim, call, "mark")


def _candles(sim: SimVenue, call: Call, price: str) -> Any:
    params = call.params
    rows, _ = bars.candles(
        sim, demand_instrument(call), price, params["interval"], since_ms=params.get("start"),
        until_ms=params.get("end"), limit=int(params.get("limit", "200")),
    )  # fmt: skip
    written = [[str(at), *(text(x) for x in ohlcv), text(ohlcv[4] * ohlcv[3])] for at, ohlcv in reversed(rows)]
    if price == "mark":
        written = [row[:5] for row in written]
    return {"category": params.get("category", ""), "symbol": params["symbol"], "list": written}


def risk_limit(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """One tier a symbol."""
    return {
        "category": "linear",
        "list": [
            {
                "id": 1, "symbol": joined(contract), "riskLimitValue": "50000000",
                "maintenanceMargin": text(bars.MAINTENANCE_FRAC), "initialMargin": text(1.0 / bars.MAX_LEVERAGE),
                "isLowestRisk": 1, "maxLeverage": text(bars.MAX_LEVERAGE), "mmDeduction": "",
            }
            for instrument, contract in sim.contracts.items()
            if contract.is_margined and call.instrument in (None, instrument)
        ],
        "nextPageCursor": "",
    }  # fmt: skip


def _perp_row(contract: Contract) -> dict[str, Any]:
    return {
        "symbol": joined(contract), "contractType": "LinearPerpetual",
        "status": "Trading" if contract.is_trading else "Closed",
        "baseCoin": contract.base, "quoteCoin": contract.quote, "settleCoin": contract.quote,
        "launchTime": "1", "deliveryTime": "0", "fundingInterval": 60 * bars.FUNDING_HOURS,
        "leverageFilter": {"minLeverage": "1", "maxLeverage": text(bars.MAX_LEVERAGE), "leverageStep": "0.01"},
        "priceFilter": {"tickSize": text(contract.tick)},
        "lotSizeFilter": {
            "minOrderQty": text(contract.min_base), "maxOrderQty": "1190", "qtyStep": text(contract.lot_base),
            "minNotionalValue": text(contract.min_notional_usd),
        },
    }  # fmt: skip


def _spot_row(contract: Contract) -> dict[str, Any]:
    return {
        "symbol": joined(contract), "baseCoin": contract.base, "quoteCoin": contract.quote,
        "status": "Trading" if contract.is_trading else "Closed",
        "lotSizeFilter": {
            "basePrecision": text(contract.lot_base), "quotePrecision": "0.0000001",
            "minOrderQty": text(contract.min_base), "maxOrderQty": "83",
            "minOrderAmt": text(contract.min_notional_usd), "maxOrderAmt": "8000000",
        },
        "priceFilter": {"tickSize": text(contract.tick)},
    }  # fmt: skip
