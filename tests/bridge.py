"""Carries a random case of ``strategies.py`` through the files, frames and kernels of the package."""

import math
from pathlib import Path

import numpy as np
import polars as pl

from basis_bt.backtest.parameters import market_struct
from basis_bt.core.instruments import Combo, Leg
from basis_bt.core.models import Data, SignalSpec
from basis_bt.core.units import US_PER_DAY, US_PER_HOUR, bars_up, from_us
from basis_bt.frames.panel import load_panel
from basis_bt.kernels.metrics import trial_metrics
from basis_bt.kernels.status import OK
from basis_bt.kernels.structs import (
    ATOMICITIES,
    FILL_MODELS,
    ComboParams,
    CostParams,
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


def write_market(case, root: Path):
    """Parquet files of a case below ``root``; returns the instruments of its legs."""
    instruments = []
    for index, leg in enumerate(case["legs"]):
        venue, symbol = f"venue{index}", f"COIN{index}-USDT"  # no leg is witness for another
        instruments.append(f"{leg['kind']}:{venue}:{symbol}")

        def write(series, frame, venue=venue, symbol=symbol):
            path = root / series / venue / f"{symbol}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.write_parquet(path)

        bars = list(zip(*leg["bars"], strict=True))
        names = ("open", "high", "low", "close", "volume")
        write(
            leg["kind"],
            pl.DataFrame({"ts": instant_column(bars[0])} | dict(zip(names, map(list, bars[1:]), strict=True))),
        )
        if leg["kind"] != "perp":
            continue
        if leg["mark_bars"]:
            names = ("open", "close") if len(leg["mark_bars"][0]) == 3 else ("open", "high", "low", "close")
            ts, *prices = zip(*leg["mark_bars"], strict=True)
            columns = {name: list(values) for name, values in zip(names, prices, strict=True)}
            write("mark", pl.DataFrame({"ts": instant_column(ts), **columns}))
        rows = leg["settlements"]
        columns = {
            "ts": instant_column([row[0] for row in rows]),
            "rate": pl.Series([row[1] for row in rows], dtype=pl.Float64),
        }
        if any(row[2] is not None for row in rows):
            columns["mark_price"] = pl.Series([row[2] for row in rows], dtype=pl.Float64)
        if any(row[3] is not None for row in rows):
            columns["known_at"] = instant_column([row[3] for row in rows])
        write("funding", pl.DataFrame(columns))
    return instruments


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
        margin_weight=np.array([1.0 / size["leverage"] if leg["kind"] == "perp" else 1.0 for leg in legs]),
        reference_leg=next((i for i, leg in enumerate(legs) if leg["kind"] == "spot"), 0),
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
        min_notional_usd=np.array([leg["min_notional_usd"] for leg in legs]),
    )
    edges, table, row = bucket_arrays(costs, ts_us)
    in_base = [
        cost["fee_bps"] / 1e4 if cost["fee_in_base"] and leg["kind"] == "spot" else 0.0
        for cost, leg in zip(costs, legs, strict=True)
    ]
    cost_params = CostParams(
        half_spread_bps=np.array([cost["half_spread_bps"] for cost in costs]),
        fee_bps=np.array([cost["fee_bps"] for cost in costs]),
        base_fee_frac=np.array(in_base),
        bucket_usd=edges,
        bucket_bps=table,
        bucket_row=row,
        impact_coef_bps=np.array([cost["impact_coef_bps"] for cost in costs]),
        impact_exponent=costs[0]["impact_exponent"],
    )
    fills = fill_params(case["fills"], [cost["fee_bps"] for cost in costs], bars=bars)
    return combo, rule_params, size_params, cost_params, fills


def fill_params(fills, fees_bps, *, bars):
    """The fills of a case; what it leaves out is off."""
    latency = fills["latency_hours"]
    latencies = latency if isinstance(latency, list) else [latency] * len(fees_bps)
    off = math.inf
    limits = (fills.get(key) for key in ("max_cost_bps", "max_volume_share", "max_spread_bps"))
    return FillParams(
        np.array([bars(one) for one in latencies], dtype=np.int64),
        FILL_MODELS.index(fills.get("model", "certain")),
        float(fills.get("volume_cap", 0.1)),
        float(fills.get("fill_probability", 1.0)),
        float(fills.get("offset_bps", 0.0)),
        np.array(fills.get("maker_fee_bps", fees_bps), dtype=np.float64),
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
    is_split, is_perp = wallets.get("mode", "pooled") == "segregated", [leg["kind"] == "perp" for leg in legs]
    venues = [leg.get("venue", f"venue{index}") if is_split else "all" for index, leg in enumerate(legs)]
    names = list(dict.fromkeys(venues))
    own = np.array([[venue == name for venue in venues] for name in names])
    tiers = [leg.get("tiers", [(0.0, 0.0, 0.0)]) for leg in legs]
    table = np.full((3, len(legs), max(map(len, tiers))), np.inf)
    for index, rows in enumerate(tiers):
        table[:, index, : len(rows)] = np.array(rows).T
    table[1:][np.isinf(table[1:])] = 0.0
    haircut = wallets.get("spot_collateral") or 0.0
    off = math.inf
    cap = wallets.get("transfer_daily_cap_usd")
    halted = np.zeros(len(ts_us), dtype=np.bool_)
    for first_us, last_us in wallets.get("transfer_halts_us", []):
        halted |= (ts_us >= first_us) & (ts_us < last_us)
    return WalletParams(
        np.array([names.index(venue) for venue in venues], dtype=np.int64),
        is_split,
        wallets.get("margin", "venue" if is_split else "none") == "venue",
        np.ascontiguousarray(np.where(own, np.where(is_perp, 1.0, haircut), 0.0)),
        np.ascontiguousarray(own & np.array(is_perp)),
        *(np.ascontiguousarray(part) for part in table),
        np.array([float(leg.get("liquidation_fee_bps", 0.0)) for leg in legs]),
        bars_up(wallets.get("transfer_hours") or 0.0, bar_us=case["bar_us"]),
        float(wallets.get("transfer_fee_usd") or 0.0),
        float(wallets.get("transfer_min_usd") or 0.0),
        off if cap is None else float(cap),
        halted,
        ts_us // US_PER_DAY,
        float(wallets.get("rebalance_below") or 0.0) if is_split else 0.0,
    )


def two_sided(case):
    """Whether a combo has a long and a short leg, between which there is a basis."""
    ratios = [leg["ratio"] for leg in case["legs"]]
    return min(ratios) < 0 < max(ratios)


def simulate(case, root: Path):
    """Panel, market, rows, totals and metrics (None of a trial that failed) of a case that goes through files."""
    instruments = write_market(case, root)
    legs = [Leg(instrument=name, ratio=leg["ratio"]) for name, leg in zip(instruments, case["legs"], strict=True)]
    combo = Combo(legs=legs)
    data = Data(
        root=str(root),
        start=from_us(case["start_us"]),
        end=from_us(case["end_us"]),
        bar=case["bar_us"] / US_PER_HOUR,
        checks="clean",  # the settlements of a case may change their interval without saying so
    )
    asked = case["signal"]
    spec = SignalSpec(
        name=asked.get("name", "sql"), hours=asked.get("hours"), sql=None if "name" in asked else "close_0"
    )
    signal = build_signal(spec, combo, bar_us=data.bar_us)
    panel = load_panel(
        data, combo, warmup_hours=signal.warmup_hours, funding_windows_hours=signal.funding_windows_hours
    )
    values = evaluate(signal, panel)
    if "values" in asked:
        values = np.array([math.nan if value is None else value for value in asked["values"]])
    basis = np.full(panel.n_bars, math.nan)
    if two_sided(case):
        basis = evaluate(build_signal(SignalSpec(name="basis_bps"), combo, bar_us=data.bar_us), panel)
    market, _ = market_struct(panel, values, basis)
    combo_p, rule_p, size_p, cost_p, fill_p = structs(case, panel.ts_us)
    wallet_p = wallet_params(case, panel.ts_us)
    rows = recorded(
        n_bars=panel.n_bars, n_legs=len(legs), n_settlements=len(market.mark_price), n_wallets=len(wallet_p.weight)
    )
    totals = run_trial(market, combo_p, rule_p, size_p, cost_p, fill_p, wallet_p, rows)
    if totals.status != OK:
        return panel, market, rows, totals, None
    metrics = trial_metrics(rows, totals, panel.close_price, size_p.capital_usd, panel.bar_hours)
    return panel, market, rows, totals, metrics
