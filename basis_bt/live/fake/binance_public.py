"""What Binance tells everybody: instruments, books, prices, rates."""

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

_FOREVER_MS = 4_133_404_800_000
_TIME_IN_FORCE = ("GTC", "IOC", "FOK", "GTX")


def nothing(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """An empty list."""
    return []


def time(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """The venue's clock."""
    return {"serverTime": sim.venue_now_ms()}


def no_markets(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """No coin-margined contracts here."""
    return {"symbols": []}


def spot_markets(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Spot symbols with their filters."""
    return {
        "symbols": [
            {
                "symbol": joined(contract),
                "status": "TRADING" if contract.is_trading else "HALT",
                "baseAsset": contract.base,
                "quoteAsset": contract.quote,
                "isSpotTradingAllowed": True,
                "permissions": [],
                "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
                "filters": [
                    *_filters(contract),
                    {
                        "filterType": "NOTIONAL",
                        "minNotional": text(contract.min_notional_usd),
                        "maxNotional": "9000000",
                    },
                ],
            }
            for contract in sim.contracts.values()
            if not contract.is_margined
        ]
    }


def perp_markets(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Perpetuals with their filters."""
    return {
        "symbols": [
            {
                "symbol": joined(contract),
                "pair": joined(contract),
                "contractType": "PERPETUAL",
                "deliveryDate": _FOREVER_MS,
                "onboardDate": 1_569_398_400_000,
                "status": "TRADING" if contract.is_trading else "BREAK",
                "baseAsset": contract.base,
                "quoteAsset": contract.quote,
                "marginAsset": contract.quote,
                "orderTypes": ["LIMIT", "MARKET"],
                "timeInForce": list(_TIME_IN_FORCE),
                "filters": [
                    *_filters(contract),
                    {"filterType": "MIN_NOTIONAL", "notional": text(contract.min_notional_usd)},
                ],
            }
            for contract in sim.contracts.values()
            if contract.is_margined
        ]
    }


def currencies(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """The coins that wallets know."""
    return [
        {"coin": coin, "name": coin, "depositAllEnable": True, "withdrawAllEnable": True, "networkList": []}
        for coin in _coins(sim)
    ]


def ticker(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """24 hours; ``closeTime`` is how a reader learns the age of a spot price."""
    instrument = demand_instrument(call)
    seen = treatment.lens.book(sim.book(instrument), sim.now_us())
    at_ms = seen.at_us // 1000
    bid = text(seen.bids[0][0]) if seen.bids else "0"
    ask = text(seen.asks[0][0]) if seen.asks else "0"
    return {
        "symbol": call.params["symbol"], "lastPrice": bid if seen.bids else ask, "bidPrice": bid, "askPrice": ask,
        "openTime": at_ms - 86_400_000, "closeTime": at_ms, "volume": "1000", "quoteVolume": "50000000",
    }  # fmt: skip


def spot_depth(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Levels and an update id, no time."""
    seen = treatment.lens.book(sim.book(demand_instrument(call)), sim.now_us())
    n = int(call.params.get("limit", "100"))
    return {"lastUpdateId": seen.update_id, "bids": _levels(seen.bids[:n]), "asks": _levels(seen.asks[:n])}


def perp_depth(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Levels with the time of the event and of the transaction."""
    seen = treatment.lens.book(sim.book(demand_instrument(call)), sim.now_us())
    at_ms = seen.at_us // 1000
    return {**spot_depth(sim, call, treatment), "E": at_ms, "T": at_ms}


def premium_index(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Mark price and the rate of the running period."""

    def row(instrument: str) -> dict[str, Any]:
        rate, next_us, _ = bars.next_rate(sim, instrument)
        mark = text(sim.mark_price(instrument))
        return {
            "symbol": joined(sim.contracts[instrument]), "markPrice": mark, "indexPrice": mark,
            "lastFundingRate": text(rate), "interestRate": "0.0001", "nextFundingTime": next_us // 1000,
            "time": sim.venue_now_ms(),
        }  # fmt: skip

    return row(call.instrument) if call.instrument else [row(instrument) for instrument in sim.positions]


def funding_rates(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Settled rates, oldest first."""
    return [
        {
            "symbol": call.params["symbol"],
            "fundingRate": text(mark.rate),
            "fundingTime": mark.ts_us // 1000,
            "markPrice": text(mark.mark_price),
        }
        for mark in bars.settled(sim, demand_instrument(call), call.params.get("startTime"))
    ]


def last_candles(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Bars of trades."""
    return _candles(sim, call, "last")


def mark_candles(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Bars of the mark price."""
    return _candles(sim, call, "mark")


def _candles(sim: SimVenue, call: Call, price: str) -> Any:
    params = call.params
    rows, step_ms = bars.candles(
        sim, demand_instrument(call), price, params["interval"], since_ms=params.get("startTime"),
        until_ms=params.get("endTime"), limit=int(params.get("limit", "500")),
    )  # fmt: skip
    return [
        [at, *(text(x) for x in ohlcv), at + step_ms - 1, text(ohlcv[4] * ohlcv[3]), 3, "0", "0", "0"]
        for at, ohlcv in rows
    ]


def _coins(sim: SimVenue) -> list[str]:
    coins = {coin for cash in sim.wallets.cash.values() for coin in cash}
    return sorted(coins | {c for contract in sim.contracts.values() for c in (contract.base, contract.quote)})


def _filters(contract: Contract) -> list[dict[str, str]]:
    return [
        {"filterType": "PRICE_FILTER", "tickSize": text(contract.tick), "minPrice": "0.01", "maxPrice": "4529764"},
        {
            "filterType": "LOT_SIZE",
            "stepSize": text(contract.lot_base),
            "minQty": text(contract.min_base),
            "maxQty": "9000",
        },
    ]


def _levels(levels: Any) -> list[list[str]]:
    return [[text(price), text(size)] for price, size in levels]
