"""Bybit's v5 REST: pages from ``end`` backwards, newest first, inside an envelope with its own error codes.

Quirk ``windowed``: a page looks at no more time before its end than its limit of bars, so it is empty within an outage.
"""

STEPS_MS = {**{str(m): m * 60_000 for m in (1, 3, 5, 15, 30, 60, 120, 240, 360, 720)}, "D": 86_400_000}
SERIES = {"kline": "trades", "mark-price-kline": "mark", "index-price-kline": "index",
          "premium-index-price-kline": "premium"}  # fmt: skip
INTERVAL_MINUTES = 60


def answer(model, method, path, params, quirks):
    """(status, object) of one request."""
    verb = path.removeprefix("/v5/market/")
    kind = params.get("category")
    if verb == "time":
        return _said(model, {"timeSecond": str(model.now_ms // 1000)})
    if method != "GET" or kind not in ("spot", "linear", "inverse"):
        return _refused(model, 10001, "Not supported category")
    if verb == "instruments-info":
        return _instruments(model, kind, params)
    found = [one for one in model.of_kind(kind) if one.base + one.quote == params.get("symbol")]
    if not found:
        return _refused(model, 10001, "params error: symbol invalid")
    if verb == "funding/history" and kind != "spot":
        return _funding(model, found[0], params)
    if verb in SERIES and (kind != "spot" or verb == "kline"):
        return _klines(model, found[0], SERIES[verb], params, quirks)
    return 404, {}


def _said(model, result):
    return 200, {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": model.now_ms}


def _refused(model, code, message):
    return 200, {"retCode": code, "retMsg": message, "result": {}, "retExtInfo": {}, "time": model.now_ms}


def _instruments(model, kind, params):
    listed = [] if params.get("status") == "PreLaunch" else model.of_kind(kind)
    at = int(params.get("cursor") or 0)
    page = listed[at : at + 2] if kind != "spot" else listed  # spot knows no pages
    more = str(at + 2) if kind != "spot" and at + 2 < len(listed) else ""
    return _said(model, {"category": kind, "list": [_listed(one) for one in page], "nextPageCursor": more})


def _listed(listing):
    row = {"symbol": listing.base + listing.quote, "baseCoin": listing.base, "quoteCoin": listing.quote,
           "status": "Trading", "priceFilter": {"tickSize": "0.0001"}}  # fmt: skip
    if listing.kind == "spot":
        lots = {"basePrecision": "0.001", "quotePrecision": "0.0001", "minOrderQty": "0.001", "maxOrderQty": "83",
                "minOrderAmt": "5", "maxOrderAmt": "8000000"}  # fmt: skip
        return row | {"lotSizeFilter": lots}
    linear = listing.kind == "linear"
    return row | {
        "contractType": "LinearPerpetual" if linear else "InversePerpetual",
        "settleCoin": listing.quote if linear else listing.base,
        "launchTime": str(listing.listed_ms), "deliveryTime": "0",
        "fundingInterval": INTERVAL_MINUTES, "leverageFilter": {"minLeverage": "1", "maxLeverage": "100"},
        "lotSizeFilter": {"minOrderQty": "0.001", "maxOrderQty": "1190", "qtyStep": "0.001", "minNotionalValue": "5"},
    }  # fmt: skip


def _klines(model, listing, series, params, quirks):
    limit = int(params.get("limit", 200))
    step_ms = STEPS_MS.get(params.get("interval"))
    if not 1 <= limit <= 1000 or step_ms is None:
        return _refused(model, 10001, "params error: limit or interval invalid")
    last_ms = int(params.get("end", model.now_ms))
    first_ms = int(params.get("start", 0))
    if "windowed" in quirks:
        first_ms = max(first_ms, last_ms - limit * step_ms + 1)
    stamps = model.bar_stamps(listing, step_ms, first_ms, last_ms, newest=limit)
    rows = [_kline(model, listing, series, ts, step_ms) for ts in reversed(stamps)]
    return _said(model, {"category": listing.kind, "symbol": params["symbol"], "list": rows})


def _kline(model, listing, series, ts_ms, step_ms):
    *prices, base = model.bar(listing, series, ts_ms, step_ms)
    if series != "trades":
        return [str(ts_ms), *prices]
    quote = f"{float(base) * float(prices[3]):.3f}"
    return [str(ts_ms), *prices, *((quote, base) if listing.kind == "inverse" else (base, quote))]


def _funding(model, listing, params):
    limit = int(params.get("limit", 200))
    if not 1 <= limit <= 200:
        return _refused(model, 10001, "params error: limit invalid")
    if "startTime" in params and "endTime" not in params:
        return _refused(model, 10001, "params error: endTime is required with startTime")
    first_ms, last_ms = int(params.get("startTime", 0)), int(params.get("endTime", model.now_ms))
    rows = model.settlements(listing, first_ms, last_ms, newest=limit)
    told = [{"symbol": params["symbol"], "fundingRate": rate, "fundingRateTimestamp": str(ts)}
            for ts, rate in reversed(rows)]  # fmt: skip
    return _said(model, {"category": listing.kind, "list": told})
