"""OKX's v5 REST: newest first; ``after`` gives what is older, ``before`` alone gives the newest of what is younger.

Quirk ``windowed``: a page looks at no more time before its end than its limit of bars, so it is empty within an outage.
"""

UNITS_MS = {"m": 60_000, "H": 3_600_000, "D": 86_400_000}
CANDLES = {"candles": "trades", "mark-price-candles": "mark", "index-candles": "index"}
RECENT_BARS = 1440
FUNDING_KEPT_MS = 92 * UNITS_MS["D"]
KINDS = {"SPOT": ("spot",), "SWAP": ("linear", "inverse")}


def answer(model, method, path, params, quirks):
    """(status, object) of one request."""
    verb = path.removeprefix("/api/v5/")
    if method != "GET":
        return 404, {"code": "404", "msg": "Not Found", "data": []}
    if verb == "public/time":
        return _said([{"ts": str(model.now_ms)}])
    if verb == "public/instruments":
        listed = [_listed(one) for kind in KINDS.get(params.get("instType"), ()) for one in model.of_kind(kind)]
        return _said(listed)
    if verb == "public/funding-rate-history":
        return _funding(model, params)
    name = verb.removeprefix("market/").removeprefix("history-")
    if name in CANDLES:
        return _candles(model, CANDLES[name], "history-" in verb, params, quirks)
    return 404, {"code": "404", "msg": "Not Found", "data": []}


def _said(data):
    return 200, {"code": "0", "msg": "", "data": data}


def _id(listing):
    pair = f"{listing.base}-{listing.quote}"
    return pair if listing.kind == "spot" else pair + "-SWAP"


def _listed(listing):
    row = {"instId": _id(listing), "lotSz": "0.01", "minSz": "0.01", "tickSz": "0.0001", "maxLmtSz": "100000000",
           "state": "live", "listTime": str(listing.listed_ms), "lever": "10"}  # fmt: skip
    if listing.kind == "spot":
        names = ("uly", "instFamily", "settleCcy", "ctVal", "ctMult", "ctValCcy", "ctType", "expTime")
        empty = dict.fromkeys(names, "")
        return row | empty | {"instType": "SPOT", "baseCcy": listing.base, "quoteCcy": listing.quote}
    linear, pair = listing.kind == "linear", f"{listing.base}-{listing.quote}"
    return row | {
        "instType": "SWAP", "uly": pair, "instFamily": pair, "settleCcy": listing.quote if linear else listing.base,
        "ctVal": str(listing.contract_size), "ctMult": "1", "ctValCcy": listing.base if linear else "USD",
        "ctType": "linear" if linear else "inverse", "expTime": "",
    }  # fmt: skip


def _candles(model, series, history, params, quirks):
    wanted = params.get("instId")
    listed = [one for one in model.listings if wanted == (f"{one.base}-{one.quote}" if series == "index" else _id(one))]
    if not listed:
        return 200, {"code": "51001", "msg": "Instrument ID does not exist", "data": []}
    span = params["bar"].removesuffix("utc")
    step_ms = int(span[:-1]) * UNITS_MS[span[-1]]
    if span == params["bar"] and step_ms > 4 * UNITS_MS["H"]:
        return 200, {"code": "51000", "msg": "bars of that length would start at a day of Hong Kong", "data": []}
    longest = 100 if history or series != "trades" else 300  # a cap below what the client asks for
    limit = min(int(params.get("limit", 100)), longest)
    first_ms = 0 if history else model.now_ms // step_ms * step_ms - (RECENT_BARS - 1) * step_ms
    if "before" in params:
        first_ms = max(first_ms, int(params["before"]) + 1)
    last_ms = int(params["after"]) - 1 if "after" in params else model.now_ms
    if "windowed" in quirks:
        first_ms = max(first_ms, last_ms - limit * step_ms + 1)
    stamps = model.bar_stamps(listed[0], step_ms, first_ms, last_ms, newest=limit)
    return _said([_candle(model, listed[0], series, ts, step_ms) for ts in reversed(stamps)])


def _candle(model, listing, series, ts_ms, step_ms):
    *prices, base = model.bar(listing, series, ts_ms, step_ms)
    confirm = "1" if model.is_complete(ts_ms, step_ms) else "0"
    if series != "trades":
        return [str(ts_ms), *prices, confirm]
    quote = f"{float(base) * float(prices[3]):.3f}"
    if listing.kind == "spot":
        return [str(ts_ms), *prices, base, quote, quote, confirm]
    per_contract = listing.contract_size if listing.kind == "linear" else listing.contract_size / float(prices[3])
    return [str(ts_ms), *prices, f"{float(base) / per_contract:.0f}", base, quote, confirm]


def _funding(model, params):
    listed = [one for one in model.listings if one.kind != "spot" and _id(one) == params.get("instId")]
    if not listed:
        return 200, {"code": "51001", "msg": "Instrument ID does not exist", "data": []}
    limit = min(int(params.get("limit", 100)), 100)
    first_ms = max(model.now_ms - FUNDING_KEPT_MS, int(params.get("before", 0)) + 1)
    last_ms = int(params["after"]) - 1 if "after" in params else model.now_ms
    rows = model.settlements(listed[0], first_ms, last_ms, newest=limit)
    told = {"instType": "SWAP", "instId": params["instId"], "method": "current_period"}
    return _said([
        told | {"fundingRate": f"{float(rate) * 1.5 + 1e-5:.8f}", "realizedRate": rate, "fundingTime": str(ts)}
        for ts, rate in reversed(rows)
    ])  # fmt: skip
