"""Binance's spot, USD-M and COIN-M REST: pages from ``startTime`` on, oldest first.

Quirk ``windowed``: a page looks at no more time than its limit of bars, so it is empty within an outage.
"""

SPANS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
SERIES = {"klines": "trades", "markPriceKlines": "mark", "indexPriceKlines": "index", "premiumIndexKlines": "premium"}
KINDS = {"api": "spot", "fapi": "linear", "dapi": "inverse"}
LONGEST_CM_MS = 200 * SPANS_MS["d"]


def answer(model, method, path, params, quirks):
    """(status, object) of one request."""
    _, product, _, verb = path.split("/", 3)
    kind = KINDS.get(product)
    if kind is None or method != "GET":
        return 404, {"code": -5000, "msg": f"Path {path}, Method {method} is invalid"}
    if verb == "ping":
        return 200, {}
    if verb == "time":
        return 200, {"serverTime": model.now_ms}
    if verb == "exchangeInfo":
        return 200, {"symbols": [_listed(one) for one in model.of_kind(kind)]}
    if verb == "fundingRate" and kind != "spot":
        return _funding(model, kind, params)
    if verb in SERIES and (kind != "spot" or verb == "klines"):
        return _klines(model, kind, SERIES[verb], params, quirks)
    return 404, {"code": -5000, "msg": f"Path {path}, Method {method} is invalid"}


def _id(listing):
    return f"{listing.base}{listing.quote}" + ("_PERP" if listing.kind == "inverse" else "")


def _listed(listing):
    filters = [{"filterType": "PRICE_FILTER", "tickSize": "0.0001", "minPrice": "0.0001", "maxPrice": "1000000"},
               {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001", "maxQty": "9000"}]  # fmt: skip
    row = {"symbol": _id(listing), "baseAsset": listing.base, "quoteAsset": listing.quote, "filters": filters,
           "orderTypes": ["LIMIT", "MARKET"]}  # fmt: skip
    if listing.kind == "spot":
        return row | {"status": "TRADING", "isSpotTradingAllowed": True, "permissions": []}
    margin = listing.quote if listing.kind == "linear" else listing.base
    row |= {"pair": listing.base + listing.quote, "contractType": "PERPETUAL", "deliveryDate": 4133404800000,
            "onboardDate": listing.listed_ms, "marginAsset": margin, "timeInForce": ["GTC", "IOC"]}  # fmt: skip
    if listing.kind == "inverse":
        return row | {"contractStatus": "TRADING", "contractSize": listing.contract_size}
    return row | {"status": "TRADING"}


def _klines(model, kind, series, params, quirks):
    wanted = params.get("pair" if series == "index" else "symbol", "")
    found = [one for one in model.of_kind(kind) if wanted == (one.base + one.quote if series == "index" else _id(one))]
    if not found:
        return 400, {"code": -1121, "msg": "Invalid symbol."}
    limit = int(params.get("limit", 500))
    if limit > 1500 or (kind != "spot" and limit < 1):
        return 400, {"code": -1130, "msg": "Data sent for parameter 'limit' is not valid."}
    limit = min(limit, 1000 if kind == "spot" else 1500)
    step_ms = int(params["interval"][:-1]) * SPANS_MS[params["interval"][-1]]
    last_ms = int(params.get("endTime", model.now_ms))
    if "startTime" in params:
        first_ms = int(params["startTime"])
        if kind == "inverse" and last_ms - first_ms > LONGEST_CM_MS:
            return 400, {"code": -4199, "msg": "The interval between startTime and endTime is over 200 days."}
        if "windowed" in quirks:
            last_ms = min(last_ms, first_ms + limit * step_ms - 1)
        stamps = model.bar_stamps(found[0], step_ms, first_ms, last_ms, oldest=limit)
    else:
        stamps = model.bar_stamps(found[0], step_ms, 0, last_ms, newest=limit)
    return 200, [_kline(model, found[0], series, ts, step_ms) for ts in stamps]


def _kline(model, listing, series, ts_ms, step_ms):
    *prices, base = model.bar(listing, series, ts_ms, step_ms)
    volume, other = base, f"{float(base) * float(prices[3]):.3f}"
    if listing.kind == "inverse":
        volume, other = f"{float(base) * float(prices[3]) / listing.contract_size:.0f}", base
    if series != "trades":
        volume = other = "0"
    return [ts_ms, *prices, volume, ts_ms + step_ms - 1, other, 7, "0", "0", "0"]


def _funding(model, kind, params):
    found = [one for one in model.of_kind(kind) if _id(one) == params.get("symbol")]
    if not found:
        return 400, {"code": -1121, "msg": "Invalid symbol."}
    limit = min(int(params.get("limit", 100)), 1000)
    last_ms = int(params.get("endTime", model.now_ms))
    if "startTime" in params:
        rows = model.settlements(found[0], int(params["startTime"]), last_ms, oldest=limit)
    else:
        rows = model.settlements(found[0], 0, last_ms, newest=limit)
    marks = {ts: model.bar(found[0], "mark", ts // 60_000 * 60_000, 60_000)[0] for ts, _ in rows}
    return 200, [{"symbol": params["symbol"], "fundingTime": ts, "fundingRate": rate, "markPrice": marks[ts]}
                 for ts, rate in rows]  # fmt: skip
