"""Carries a random case of ``strategies.py`` through the files, frames and kernels of the package."""

import contextlib
import dataclasses
import math
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl

from basis_bt.backtest.contract_parameters import deliveries
from basis_bt.backtest.parameters import market_struct
from basis_bt.backtest.prepare import Parameters
from basis_bt.core.instruments import Combo, Leg
from basis_bt.core.models import Data, SignalSpec
from basis_bt.core.units import US_PER_DAY, US_PER_HOUR, bars_up, from_us
from basis_bt.frames.dollars import in_dollars
from basis_bt.frames.panel import load_panel
from basis_bt.frames.points import latest
from basis_bt.kernels.metrics import trial_metrics
from basis_bt.kernels.status import OK
from basis_bt.kernels.structs import (
    ATOMICITIES,
    FILL_MODELS,
    ComboParams,
    Contracts,
    CostParams,
    Fees,
    FillParams,
    RuleParams,
    SizeParams,
    WalletParams,
    recorded,
)
from basis_bt.kernels.trial import run_trial
from basis_bt.signals import build_signal, evaluate


def instant_column(values_us):
    return pl.Series(values_us, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))


def names_of(case):
    """Instruments of the legs and, for legs on a chain, the spot instrument they are priced by."""
    names = []
    for index, leg in enumerate(case["legs"]):
        venue, coin, quote = f"venue{index}", f"COIN{index}", leg.get("quote", "USD")  # no leg is witness for another
        spot = f"spot:{venue}:{coin}-{quote}"
        own = {
            "lst": f"lst:{venue}:ST{coin}-{coin}",
            "lending": f"lending:{venue}:{coin}",
            "future": f"future:{venue}:{coin}-{quote}" + ("" if "chain" in leg else "-20300101"),
        }.get(leg["kind"], f"{leg['kind']}:{venue}:{coin}-{quote}")
        names.append((own, spot if leg["kind"] in ("lst", "lending") else None))
    return names


def contracts_of(leg):
    """Bars and expiry of each dated contract of a leg, by the day in its name."""
    if leg["kind"] != "future":
        return {}
    chain = leg.get("chain") or [{"bars": leg["bars"], "expiry_us": leg["expiry_us"]}]
    return {f"2030010{k + 1}": one for k, one in enumerate(chain)}


def delivery_price(leg, expiry_us):
    """The raw price a leg is delivered at; only the last contract of a chain has one of its own."""
    contracts = list(contracts_of(leg).values())
    is_last = bool(contracts) and contracts[-1]["expiry_us"] == expiry_us
    return leg["delivery_price"] if is_last and leg.get("delivery_price") is not None else math.nan


def write_market(case, root: Path):
    """Parquet files of a case below ``root``."""

    def write(stem, columns):
        path = root / f"{stem}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(columns).write_parquet(path)

    def write_bars(stem, rows, names=("open", "high", "low", "close", "volume")):
        ts, *values = zip(*rows, strict=True)
        write(stem, {"ts": instant_column(ts)} | {k: list(v) for k, v in zip(names, values, strict=True)})

    for (name, spot), leg in zip(names_of(case), case["legs"], strict=True):
        kind, venue, symbol = name.split(":")
        for day, contract in contracts_of(leg).items():
            write_bars(f"future/{venue}/{symbol.removesuffix('-20300101')}-{day}", contract["bars"])
        if kind in ("spot", "perp"):
            write_bars(f"{kind}/{venue}/{symbol}", leg["bars"])
        if spot is not None:
            write_bars(f"spot/{venue}/{spot.split(':')[2]}", leg["bars"])
        if "index" in leg:
            ts, values = zip(*leg["index"], strict=True)
            names = ("ratio",) if kind == "lst" else ("liquidity_index", "variable_borrow_index")
            stem = f"lst/{venue}/{symbol}" if kind == "lst" else f"onchain/{venue}/{symbol}"
            write(stem, {"ts": instant_column(ts)} | dict.fromkeys(names, list(values)))
        if "quote_usd" in leg:
            write_bars(f"quote_usd/{venue}/{leg['quote']}", leg["quote_usd"], names=("close",))
        if "borrow" in leg:
            write_bars(f"borrow/{venue}/{symbol.split('-')[0]}", leg["borrow"], names=("rate_apr",))
        if kind != "perp":
            continue
        if leg["mark_bars"]:
            names = ("open", "close") if len(leg["mark_bars"][0]) == 3 else ("open", "high", "low", "close")
            write_bars(f"mark/{venue}/{symbol}", leg["mark_bars"], names=names)
        rows = leg["settlements"]
        columns = {
            "ts": instant_column([row[0] for row in rows]),
            "rate": pl.Series([row[1] for row in rows], dtype=pl.Float64),
        }
        if any(row[2] is not None for row in rows):
            columns["mark_price"] = pl.Series([row[2] for row in rows], dtype=pl.Float64)
        if any(row[3] is not None for row in rows):
            columns["known_at"] = instant_column([row[3] for row in rows])
        write(f"funding/{venue}/{symbol}", columns)


def bucket_arrays(costs, ts_us):
    """Rectangular bucket tables of all legs, padded with edges beyond the last that are as flat as the rule says."""
    n_edges = max(len(cost["bucket_usd"]) for cost in costs)
    if n_edges == 0:
        return np.zeros((len(costs), 0)), np.zeros((len(costs), 1, 0)), np.zeros(len(ts_us), dtype=np.int64)
    days = sorted({day for cost in costs for day in cost.get("bucket_days") or []}) or [0]
    edges, table = np.zeros((len(costs), n_edges)), np.zeros((len(costs), len(days), n_edges))
    for leg, cost in enumerate(costs):
        own = list(cost["bucket_usd"]) or [1.0]
        edges[leg] = own + [own[-1] * 10.0**k for k in range(1, n_edges - len(own) + 1)]
        for k, day in enumerate(days):
            if not cost["bucket_usd"]:
                bps = [0.0]
            elif cost.get("bucket_days"):
                bps = cost["bucket_bps"][max(sum(known <= day for known in cost["bucket_days"]) - 1, 0)]
            else:
                bps = cost["bucket_bps"]
            table[leg, k] = list(bps) + [bps[-1]] * (n_edges - len(bps))
    row = np.maximum(np.searchsorted(np.array(days) * US_PER_DAY, ts_us, side="right") - 1, 0)
    return edges, table, row.astype(np.int64)


def structs(case, ts_us):
    """Kernel structs of the parameters of a case."""
    legs, rule, size, costs = case["legs"], case["rule"], case["size"], case["costs"]

    def bars(hours):
        return bars_up(hours or 0.0, bar_us=case["bar_us"])

    def off(value, instead):
        return instead if value is None else value

    combo = ComboParams(
        ratio=np.array([leg["ratio"] for leg in legs]),
        margin_weight=np.array(margin_weights(case)),
        reference_leg=reference_of(legs),
    )
    rule_params = RuleParams(
        entry=rule["entry"],
        exit=rule["exit"],
        reverse=rule["reverse"],
        min_hold_bars=bars(rule["min_hold_hours"]),
        max_hold_bars=-1 if rule["max_hold_hours"] is None else bars(rule["max_hold_hours"]),
        cooldown_bars=bars(rule["cooldown_hours"]),
        stop_loss_pct=off(rule["stop_loss_pct"], math.nan),
        max_basis_bps=off(rule["max_basis_bps"], math.nan),
    )
    size_params = SizeParams(
        capital_usd=size["capital_usd"],
        allocation=size["allocation"],
        compounding=size["compounding"],
        lot=max(leg["lot"] / abs(leg["ratio"]) for leg in legs),
        lot_usd=np.array([float(leg.get("lot_usd", 0.0)) for leg in legs]),
        min_notional_usd=np.array([leg["min_notional_usd"] for leg in legs]),
    )
    edges, table, row = bucket_arrays(costs, ts_us)
    fees = fees_of(case, ts_us)
    cost_params = CostParams(
        half_spread_bps=np.array([cost["half_spread_bps"] for cost in costs]),
        fee_bps=fees.fee_bps[0].copy(),
        maker_fee_bps=fees.maker_fee_bps[0].copy(),
        base_fee_frac=np.where(fees.is_in_base, fees.fee_bps[0] / 1e4, 0.0),
        bucket_usd=edges,
        bucket_bps=table,
        bucket_row=row,
        impact_coef_bps=np.array([cost["impact_coef_bps"] for cost in costs]),
        impact_exponent=costs[0]["impact_exponent"],
    )
    return combo, rule_params, size_params, cost_params, fees, fill_params(case["fills"], n_legs=len(legs), bars=bars)


def rows_by_day(ts_us, tables):
    """The first days of the rows of all tables, and the row of each bar."""
    days = sorted({day for table in tables for day, _ in table} | {int(ts_us[0] // US_PER_DAY)})
    row = np.searchsorted(np.array(days), ts_us // US_PER_DAY, side="right") - 1
    return days, row.astype(np.int64)


def in_force(table, day, otherwise):
    """The latest entry of a table at or before a day."""
    return max(((first, value) for first, value in table if first <= day), default=(0, otherwise))[1]


def fees_of(case, ts_us):
    """The fees of a case by day or by trailing volume."""
    legs, costs = case["legs"], case["costs"]
    days, row = rows_by_day(ts_us, [leg.get("fee_rows", []) for leg in legs])
    by_day = np.array([
        [in_force(leg.get("fee_rows", []), day, cost["fee_bps"]) for leg, cost in zip(legs, costs, strict=True)]
        for day in days
    ])  # fmt: skip
    groups = [leg.get("fee_group", str(index)) for index, leg in enumerate(legs)]
    tiers = [leg.get("fee_tiers", [(0.0, cost["fee_bps"])]) for leg, cost in zip(legs, costs, strict=True)]
    table = np.full((2, len(legs), max(map(len, tiers))), np.inf)
    for index, own in enumerate(tiers):
        table[:, index, : len(own)] = np.array(own).T
    maker = case["fills"].get("maker_fee_bps")
    maker_rows = by_day if maker is None else np.array([np.broadcast_to(maker, len(legs))] * len(days), dtype=float)
    maker_tiers = table[1] if maker is None else np.repeat(maker_rows[:1].T, table.shape[2], axis=1)
    return Fees(
        fee_bps=by_day,
        maker_fee_bps=np.ascontiguousarray(maker_rows),
        row=row,
        is_in_base=np.array([bool(cost["fee_in_base"]) and leg["kind"] == "spot"
                             for cost, leg in zip(costs, legs, strict=True)]),
        is_by_volume=any("fee_tiers" in leg for leg in legs),
        tier_volume_usd=np.tile(table[0], (len(days), 1, 1)),
        tier_fee_bps=np.tile(table[1], (len(days), 1, 1)),
        tier_maker_fee_bps=np.tile(maker_tiers, (len(days), 1, 1)),
        group=np.array([groups.index(name) for name in groups], dtype=np.int64),
        volume_30d_usd=float(costs[0].get("volume_30d_usd", 0.0)),
    )  # fmt: skip


def wallet_names(case):
    """The wallet of each leg."""
    is_split = case.get("wallets", {}).get("mode", "pooled") == "segregated"
    return [leg.get("venue", f"venue{index}") if is_split else "all" for index, leg in enumerate(case["legs"])]


def backing(case, index):
    """The spot legs whose coin an inverse leg has for margin."""
    legs, names = case["legs"], wallet_names(case)
    leg = legs[index]
    if not leg.get("inverse") or leg.get("coin") is None:
        return []
    return [
        other for other, one in enumerate(legs)
        if one["kind"] == "spot" and one.get("coin") == leg["coin"] and names[other] == names[index]
    ]  # fmt: skip


def reference_of(legs):
    """The first spot leg, else the first that is one contract all along, else the first."""
    spot = [i for i, leg in enumerate(legs) if leg["kind"] == "spot"]
    return (spot + [i for i, leg in enumerate(legs) if "chain" not in leg] + [0])[0]


def margin_weights(case):
    """The share of its notional that each leg ties up."""
    weights = []
    for index, leg in enumerate(case["legs"]):
        if leg["kind"] == "lending":
            weights.append(1.0 if leg["ratio"] > 0 else -1.0)
        elif leg["kind"] in ("perp", "future"):
            weights.append(0.0 if backing(case, index) else 1.0 / case["size"]["leverage"])
        else:
            weights.append(1.0)
    return weights


def fill_params(fills, *, n_legs, bars):
    """The fills of a case; what it leaves out is off."""
    latency = fills["latency_hours"]
    latencies = latency if isinstance(latency, list) else [latency] * n_legs
    off = math.inf
    limits = (fills.get(key) for key in ("max_cost_bps", "max_volume_share", "max_spread_bps"))
    return FillParams(
        np.array([bars(one) for one in latencies], dtype=np.int64),
        FILL_MODELS.index(fills.get("model", "certain")),
        float(fills.get("volume_cap", 0.1)),
        float(fills.get("fill_probability", 1.0)),
        float(fills.get("offset_bps", 0.0)),
        float(fills.get("reject_probability", 0.0)),
        ATOMICITIES.index(fills.get("atomicity", "rollback")),
        bars(fills.get("rollback_delay_hours", 0.0)),
        float(fills.get("rollback_penalty_bps", 0.0)),
        *(off if limit is None else float(limit) for limit in limits),
        int(fills.get("seed", 0)),
        int(fills.get("trial", 0)),
    )


def wallet_params(case, ts_us):
    """The wallets of a case; without any, one for all and no test of its margin."""
    wallets, legs = case.get("wallets", {}), case["legs"]
    is_split = wallets.get("mode", "pooled") == "segregated"
    is_margined = np.array([leg["kind"] in ("perp", "future") for leg in legs])
    is_spot = np.array([leg["kind"] == "spot" for leg in legs])
    venues = wallet_names(case)
    names = list(dict.fromkeys(venues))
    own = np.array([[venue == name for venue in venues] for name in names])
    days, row = rows_by_day(ts_us, [leg.get("tier_rows", []) for leg in legs])
    plain = [leg.get("tiers", [(0.0, 0.0, 0.0)]) for leg in legs]
    by_day = [
        [in_force(leg.get("tier_rows", []), day, tiers) for leg, tiers in zip(legs, plain, strict=True)] for day in days
    ]
    table = np.full((3, len(days), len(legs), max(len(tiers) for rows in by_day for tiers in rows)), np.inf)
    for d, rows in enumerate(by_day):
        for index, tiers in enumerate(rows):
            table[:, d, index, : len(tiers)] = np.array(tiers).T
    table[1:][np.isinf(table[1:])] = 0.0
    haircut = np.where(is_spot, wallets.get("spot_collateral") or 0.0, np.where(is_margined, 1.0, 0.0))
    if wallets.get("spot_collateral") is None:
        for index in range(len(legs)):
            haircut[backing(case, index)] = 1.0
    off = math.inf
    cap = wallets.get("transfer_daily_cap_usd")
    halted = np.zeros(len(ts_us), dtype=np.bool_)
    for first_us, last_us in wallets.get("transfer_halts_us", []):
        halted |= (ts_us >= first_us) & (ts_us < last_us)
    fees = [float(leg.get("liquidation_fee_bps", 0.0)) for leg in legs]
    return WalletParams(
        np.array([names.index(venue) for venue in venues], dtype=np.int64),
        is_split,
        wallets.get("margin", "venue" if is_split else "none") == "venue",
        np.where(own, haircut, 0.0),
        np.where(own, np.where(is_spot, 1.0, haircut), 0.0),
        own & is_margined,
        row,
        *(np.ascontiguousarray(part) for part in table),
        np.array([fees] * len(days)),
        bars_up(wallets.get("transfer_hours") or 0.0, bar_us=case["bar_us"]),
        float(wallets.get("transfer_fee_usd") or 0.0),
        float(wallets.get("transfer_min_usd") or 0.0),
        off if cap is None else float(cap),
        halted,
        ts_us // US_PER_DAY,
        float(wallets.get("rebalance_below") or 0.0) if is_split else 0.0,
    )


def contracts_struct(case, panel):
    """What the legs of a case are beside spot and linear perps; the panel is in dollars."""
    legs, terms, wallets = case["legs"], panel.terms, case.get("wallets", {})
    n_bars, n_legs = panel.open_price.shape
    none = np.empty((0, n_legs))
    inverse = terms.is_inverse if terms.rate_open is not None else np.zeros(n_legs, dtype=np.bool_)
    rates = (terms.rate_open, terms.rate_close, terms.rate_before) if inverse.any() else (none,) * 3
    names = wallet_names(case)
    order = list(dict.fromkeys(names))
    wallet_rate = np.empty((0, len(order)))
    if terms.quote_usd is not None:
        wallet_rate = np.ones((n_bars, len(order)))
        for k, name in enumerate(order):
            own = [i for i, leg in enumerate(legs) if names[i] == name and not leg.get("inverse")]
            if own:
                wallet_rate[:, k] = terms.quote_usd[:, own[0]]
    adl, gas = np.zeros((n_bars, n_legs)), np.zeros((n_bars, n_legs))
    for i, leg in enumerate(legs):
        for us, share in leg.get("adl", []):
            adl[panel.ts_us == us, i] = share
        if "gas" in leg:
            ts, usd = (np.array(column) for column in zip(*leg["gas"], strict=True))
            gas[:, i] = latest(ts, usd, panel.ts_us)
    venues = [leg.get("venue", f"venue{i}") if leg["kind"] == "lending" else None for i, leg in enumerate(legs)]
    loans = list(dict.fromkeys(venue for venue in venues if venue is not None))
    held = next((leg for leg in legs if "loan_threshold" in leg), {})
    bar, price, rate = deliveries(panel, reference_of(legs))
    roll = none if terms.old_open is None else terms.old_open
    rules = [leg.get("borrow_rule", (1.0, 0.0)) if "borrow" in leg else (0.0, 0.0) for leg in legs]
    return Contracts(
        inverse,
        *(np.ascontiguousarray(one) for one in rates),
        wallet_rate,
        panel.bar_hours,
        np.nan_to_num(terms.borrow_apr),
        np.array([rule[0] for rule in rules]),
        np.array([rule[1] for rule in rules]),
        (wallets.get("cash_yield_apr") or 0.0) * panel.bar_hours / 8760.0,
        none if terms.growth is None else terms.growth,
        bar,
        price,
        rate,
        np.array([float(leg.get("delivery_fee_bps", 0.0)) for leg in legs]),
        ~np.isnan(roll),
        np.ascontiguousarray(roll),
        adl if adl.any() else none,
        gas if gas.any() else none,
        np.array([-1 if venue is None else loans.index(venue) for venue in venues], dtype=np.int64),
        float(held.get("loan_threshold", 0.95)),
        float(held.get("loan_bonus", 0.01)),
    )


@contextlib.contextmanager
def expiries_of(case):
    """Expiries at the instants of the case instead of the venue's hour of the day in the name."""
    known = {
        f"{name.removesuffix('-20300101')}-{day}": contract["expiry_us"]
        for (name, _), leg in zip(names_of(case), case["legs"], strict=True)
        for day, contract in contracts_of(leg).items()
    }
    with mock.patch("basis_bt.frames.futures.expiry_us_of", lambda instrument: known[str(instrument)]):
        yield


def two_sided(case):
    """Whether a combo has a long and a short leg, between which there is a basis."""
    ratios = [leg["ratio"] for leg in case["legs"]]
    return min(ratios) < 0 < max(ratios)


def prepared(case, root: Path):
    """Panel, market, and the parameters of a trial in their order, of a case that goes through files."""
    write_market(case, root)
    legs = [
        Leg(instrument=name, ratio=leg["ratio"], price=spot, roll_days=leg.get("roll_days", 5.0),
            roll_basis_apr=leg.get("roll_basis_apr"))
        for (name, spot), leg in zip(names_of(case), case["legs"], strict=True)
    ]  # fmt: skip
    combo = Combo(legs=legs)
    data = Data(
        root=str(root),
        start=from_us(case["start_us"]),
        end=from_us(case["end_us"]),
        bar=case["bar_us"] / US_PER_HOUR,
        checks="clean",  # the settlements of a case may change their interval without saying so
        series=["quote_usd"] if any("quote_usd" in leg for leg in case["legs"]) else [],
    )
    asked = case["signal"]
    spec = SignalSpec(
        name=asked.get("name", "sql"), hours=asked.get("hours"), sql=None if "name" in asked else "close_0"
    )
    signal = build_signal(spec, combo, bar_us=data.bar_us)
    with expiries_of(case):
        panel = load_panel(
            data, combo, warmup_hours=signal.warmup_hours, funding_windows_hours=signal.funding_windows_hours,
            borrowed_legs=[index for index, leg in enumerate(case["legs"]) if "borrow" in leg],
        )  # fmt: skip
    terms = dataclasses.replace(
        panel.terms,
        is_inverse=np.array([bool(leg.get("inverse")) for leg in case["legs"]]),
        delivery_price=np.array([
            delivery_price(leg, expiry) for leg, expiry in zip(case["legs"], panel.terms.expiry_us, strict=True)
        ]),
    )
    panel = in_dollars(dataclasses.replace(panel, terms=terms), combo)
    values = evaluate(signal, panel)
    if "values" in asked:
        values = np.array([math.nan if value is None else value for value in asked["values"]])
    basis = np.full(panel.n_bars, math.nan)
    if two_sided(case):
        basis = evaluate(build_signal(SignalSpec(name="basis_bps"), combo, bar_us=data.bar_us), panel)
    market, _ = market_struct(panel, values, basis)
    combo_p, rule_p, size_p, cost_p, fee_p, fill_p = structs(case, panel.ts_us)
    wallet_p, contract_p = wallet_params(case, panel.ts_us), contracts_struct(case, panel)
    return panel, market, Parameters(combo_p, rule_p, size_p, cost_p, fee_p, fill_p, wallet_p, contract_p)


def simulate(case, root: Path):
    """Panel, market, rows, totals and metrics (None of a trial that failed) of a case that goes through files."""
    panel, market, parameters = prepared(case, root)
    rows = recorded(
        n_bars=panel.n_bars,
        n_legs=len(panel.instruments),
        n_settlements=len(market.mark_price),
        n_wallets=len(parameters.wallets.weight),
    )
    totals = run_trial(market, *parameters, rows)
    if totals.status != OK:
        return panel, market, rows, totals, None
    metrics = trial_metrics(rows, totals, panel.close_price, parameters.size.capital_usd, panel.bar_hours)
    return panel, market, rows, totals, metrics
