"""Hyperliquid's ``/info``: one address, the question in the body; the newest 5000 candles, funding in pages of 500."""

UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
KEPT_BARS = 5000
FUNDING_PAGE = 500


def answer(model, method, path, params, quirks):
    """(status, object) of one request."""
    if (method, path) != ("POST", "/info"):
        return 404, {"error": "not found"}
    ask = params.get("type")
    if ask == "meta":
        return 200, _perps(model)[0]
    if ask == "metaAndAssetCtxs":
        return 200, _perps(model)
    if ask == "spotMeta":
        return 200, _spots(model)[0]
    if ask == "spotMetaAndAssetCtxs":
        return 200, _spots(model)
    if ask == "candleSnapshot":
        return _candles(model, params["req"])
    if ask == "fundingHistory":
        return _funding(model, params)
    return 422, "Failed to deserialize the JSON body into the target type"


def _listed(model, kind):
    return [one for one in model.of_kind(kind) if one.quote == "USDC"]


def _perps(model):
    listed = _listed(model, "linear")
    universe = [{"name": one.base, "szDecimals": 3, "maxLeverage": 50} for one in listed]
    context = {"markPx": "37000.1", "midPx": "37000.2", "oraclePx": "37000.0", "funding": "0.0000125"}
    return [{"universe": universe}, [context for _ in listed]]


def _spots(model):
    listed = _listed(model, "spot")
    coins = ["USDC", *(f"U{one.base}" for one in listed)]
    tokens = [{"name": name, "szDecimals": 3, "weiDecimals": 8, "index": i} for i, name in enumerate(coins)]
    universe = [{"name": f"@{i}", "tokens": [i + 1, 0], "index": i, "isCanonical": False} for i, _ in enumerate(listed)]
    contexts = [{"coin": f"@{i}", "midPx": "37000.2", "markPx": "37000.1"} for i, _ in enumerate(listed)]
    return [{"tokens": tokens, "universe": universe}, contexts]


def _candles(model, req):
    coin, spots = req["coin"], _listed(model, "spot")
    listed = spots[int(coin[1:])] if coin.startswith("@") else _perp(model, coin)
    if listed is None:
        return 500, None
    step_ms = int(req["interval"][:-1]) * UNITS_MS[req["interval"][-1]]
    kept_ms = model.now_ms // step_ms * step_ms - (KEPT_BARS - 1) * step_ms
    stamps = model.bar_stamps(listed, step_ms, max(kept_ms, int(req["startTime"])), int(req["endTime"]))
    return 200, [_candle(model, listed, coin, req["interval"], ts, step_ms) for ts in stamps]


def _candle(model, listing, coin, interval, ts_ms, step_ms):
    first, high, low, last, base = model.bar(listing, "trades", ts_ms, step_ms)
    return {"t": ts_ms, "T": ts_ms + step_ms - 1, "s": coin, "i": interval, "o": first, "h": high, "l": low, "c": last,
            "v": base, "n": 5}  # fmt: skip


def _funding(model, params):
    listed = _perp(model, params["coin"])
    if listed is None:
        return 500, None
    first_ms, last_ms = int(params["startTime"]), int(params.get("endTime", model.now_ms))
    rows = model.settlements(listed, first_ms, last_ms, oldest=FUNDING_PAGE)
    return 200, [{"coin": params["coin"], "fundingRate": rate, "premium": "0.0001", "time": ts} for ts, rate in rows]


def _perp(model, coin):
    return next((one for one in _listed(model, "linear") if one.base == coin), None)
