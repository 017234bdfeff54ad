"""How long a carry must be held, how much capital it bears and which cost it hangs on, against sums done by hand."""

import copy
import json
import math
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from realdata import real_market
from sweeping import CARRY, toml_of

import basis_bt
from basis_bt.cli.main import entry
from basis_bt.core.config import read_toml
from basis_bt.core.errors import ConfigError, KernelError
from basis_bt.core.sweep_spec import replaced
from basis_bt.sweeps.crossing import Crossing, crossings

ROOT = Path(__file__).resolve().parents[1]
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
HOURS = 1_440
VOLUME_BASE = 1e6
ONE_TRADE = "CASE WHEN history_hours < 30 THEN 1.0 ELSE 0.0 END"


def write_market(root, *, spot=lambda hour: 100.0, perp=lambda hour: 100.0):
    """BTC by the hour, bars that stand still at a price, a funding of 1 bp every 8 hours."""
    hours = range(-24, HOURS + 1)
    ts = pl.Series([FIRST + timedelta(hours=hour) for hour in hours]).cast(pl.Datetime("us", "UTC"))
    for series, price_at in (("spot", spot), ("perp", perp)):
        price = pl.Series([price_at(hour) for hour in hours])
        bars = pl.DataFrame({"ts": ts, "open": price, "high": price, "low": price, "close": price})
        path = root / series / "binance" / "BTC-USDT.parquet"
        path.parent.mkdir(parents=True)
        volume = pl.Series([VOLUME_BASE + hour % 3 * 1e-6 for hour in hours])  # bars that repeat are refused
        bars.with_columns(volume=volume).write_parquet(path)
    path = root / "funding" / "binance" / "BTC-USDT.parquet"
    path.parent.mkdir(parents=True)
    pl.DataFrame({"ts": ts.gather_every(8)}).with_columns(rate=pl.lit(1e-4)).write_parquet(path)
    return root


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """A market whose prices are 100 for sixty days."""
    return write_market(tmp_path_factory.mktemp("still"))


@pytest.fixture
def carry(still):
    """A carry that is always entered; a round trip is 2 (10 + 5) bps of fees and 4 half spreads of 1 bps: 34 bps."""
    return config_on(still)


def config_on(root, *, hours=HOURS):
    return {
        "name": "carry",
        "data": {"root": str(root), "start": FIRST.isoformat(), "end": (FIRST + timedelta(hours=hours)).isoformat()},
        "combo": copy.deepcopy(CARRY),
        "signal": {"name": "sql", "sql": "close_0 * 0 + 1"},
        "rule": {"entry": 0.5, "exit": 0.2},
        "size": {"capital_usd": 1_000_000.0, "allocation": 0.9, "leverage": 3.0, "lots": "none"},
        "costs": {"half_spread_bps": 1.0, "taker_fee_bps": {"spot": 10.0, "perp": 5.0}},
    }


def one_trade(tables, *, hold_hours):
    """The configuration with a single trade, entered in the first hour."""
    values = {"signal.sql": ONE_TRADE, "rule.exit": -1.0, "rule.max_hold_hours": hold_hours, "size.compounding": False}
    return replaced(tables, values)


@pytest.fixture
def sample():
    tables = read_toml(ROOT / "configs" / "sample_btc_carry.toml")
    del tables["costs"]["taker_fee_bps"]
    return replaced(tables, {"data.root": str(ROOT / "data" / "sample"), "data.end": "2024-04-01T00:00:00Z"})


# -- crossings ---------------------------------------------------------------------------------------------------------


def test_crossings_lie_on_the_line_between_points():
    assert crossings([0, 1, 2], [-1.0, 3.0, -1.0]) == [Crossing(0.25, True), Crossing(1.75, False)]
    (found,) = crossings([10.0, 1000.0], [-1.0, 1.0], is_log=True)
    assert found.at == pytest.approx(100.0, rel=1e-14)
    (found,) = crossings([10.0, 1000.0], [3.0, -1.0], is_log=True)
    assert found == (pytest.approx(10 * 100**0.75, rel=1e-14), False)


def test_a_curve_reaches_zero_at_a_point_that_is_zero_and_not_where_it_begins():
    assert crossings([1, 2, 3], [-1.0, 0.0, 1.0]) == [Crossing(2, True)]
    assert crossings([1, 2, 3], [0.0, 1.0, 0.0]) == [Crossing(3, False)]
    assert crossings([1, 2], [0.0, 0.0]) == crossings([1, 2], [1.0, 2.0]) == crossings([1], [1.0]) == []


def test_points_without_a_value_are_passed_over():
    assert crossings([0, 1, 2, 3], [-1.0, None, 1.0, None]) == [Crossing(1.0, True)]


# -- break-even --------------------------------------------------------------------------------------------------------


def test_a_still_market_breaks_even_when_settlements_add_up_to_the_round_trip(carry):
    result = basis_bt.breakeven(carry, from_hours=136, to_hours=544, steps=3)
    frame = result.frame
    assert frame["hold_hours"].to_list() == [136.0, 272.0, 544.0]
    assert frame["n_trades"].to_list() == [10, 5, 2]
    assert frame["funding_bps"].to_list() == pytest.approx([17.0, 34.0, 68.0], rel=1e-9)
    assert frame["costs_bps"].to_list() == pytest.approx([34.0] * 3, rel=1e-9)
    assert frame["pnl_per_trade_bps"].to_list() == pytest.approx([-17.0, 0.0, 34.0], abs=1e-8)
    assert frame["basis_bps"].to_list() == frame["other_bps"].to_list() == [0.0] * 3
    assert result.breakeven_hours == pytest.approx(272.0, rel=1e-8)
    assert result.closed_form_hours == pytest.approx(272.0, rel=1e-9)
    assert result.round_trip_bps == pytest.approx(34.0) and result.funding_bps_per_hour == pytest.approx(1 / 8)


def test_between_two_holds_the_break_even_is_on_the_logarithm(carry):
    result = basis_bt.breakeven(carry, from_hours="136h", to_hours=544, steps=2)
    assert result.breakeven_hours == pytest.approx(136 * 4 ** (17 / 51), rel=1e-8)


def test_twice_the_fee_takes_as_many_more_settlements(carry):
    carry["costs"]["taker_fee_bps"] = {"spot": 20.0, "perp": 10.0}
    result = basis_bt.breakeven(carry, from_hours=256, to_hours=1024, steps=3)
    assert result.breakeven_hours == pytest.approx(8 * 64, rel=1e-8)
    assert result.closed_form_hours == pytest.approx(8 * 64, rel=1e-9)


def test_without_costs_the_shortest_hold_pays(carry):
    carry["costs"] = {"taker_fee_bps": 0.0}
    result = basis_bt.breakeven(carry, from_hours=8, to_hours=80, steps=3)
    assert result.breakeven_hours == 8.0
    assert result.closed_form_hours == 0.0
    assert result.frame["won_frac"].to_list() == [1.0] * 3


def test_a_carry_that_never_pays_says_none(carry):
    assert basis_bt.breakeven(carry, from_hours=8, to_hours=80, steps=3).breakeven_hours is None
    carry["combo"]["legs"][0]["ratio"], carry["combo"]["legs"][1]["ratio"] = -1.0, 1.0
    carry["costs"]["borrow_apr"] = 0.01
    result = basis_bt.breakeven(carry, from_hours=8, to_hours=80, steps=3)
    assert result.breakeven_hours is None and result.closed_form_hours is None


def test_bps_are_of_the_spot_leg_at_its_price_at_the_entry(tmp_path):
    """100 → 110 on spot, 101 → 110 on the perp: 100 bps of basis, 1.1 of funding, fees on 100, 101 and twice 110."""
    jump = {"spot": lambda hour: 100.0 if hour < 4 else 110.0, "perp": lambda hour: 101.0 if hour < 4 else 110.0}
    carry = config_on(write_market(tmp_path, **jump), hours=10)
    carry["costs"]["half_spread_bps"] = 0.0
    frame = basis_bt.breakeven(carry, from_hours=8, to_hours=9, steps=2).frame
    row = frame.row(0, named=True)
    assert row["n_trades"] == 1
    assert row["basis_bps"] == pytest.approx(100.0, rel=1e-9)
    assert row["funding_bps"] == pytest.approx(1.1, rel=1e-9)
    assert row["costs_bps"] == pytest.approx(10 + 11 + 5.05 + 5.5, rel=1e-9)
    assert row["pnl_per_trade_bps"] == pytest.approx(100 + 1.1 - 31.55, rel=1e-9)


def test_every_trade_is_as_large_as_the_first_and_leaves_by_its_hold_alone(carry):
    carry["costs"]["bucket_usd"], carry["costs"]["bucket_bps"] = [1e4, 1e6], [0.0, 20.0]
    few = basis_bt.breakeven(carry, from_hours=100, to_hours=200, steps=2).frame["costs_bps"][0]
    many = basis_bt.breakeven(carry, from_hours=1, to_hours=2, steps=2).frame
    assert many["n_trades"][0] == HOURS / 2  # losing all the time does not end it, and makes no trade smaller
    assert many["costs_bps"][0] == pytest.approx(few, rel=1e-6)
    carry["rule"] |= {"min_hold_hours": 900.0, "stop_loss_pct": 1e-4}
    carry["wallets"] = {"mode": "segregated", "rebalance_below": 0.3}
    frame = basis_bt.breakeven(carry, from_hours=100, to_hours=200, steps=2).frame
    assert frame["mean_hold_hours"].to_list() == [100.0, 200.0]
    assert frame["costs_bps"][0] == pytest.approx(few, rel=1e-6)


def test_entries_that_were_closed_again_are_paid_by_the_trades(carry):
    carry["signal"]["sql"] = "CASE WHEN history_hours < 1000 THEN 1.0 ELSE 0.0 END"
    carry["fills"] = {"model": "bernoulli", "fill_probability": 0.7, "rollback_penalty_bps": 5.0}
    frame = basis_bt.breakeven(carry, from_hours=24, to_hours=48, steps=2).frame
    size = {"size.capital_usd": 1e9, "size.allocation": 9e-4, "size.compounding": False}
    held = replaced(carry, {"rule.exit": -1.0, "rule.max_hold_hours": 24, **size})
    metrics = basis_bt.run(held).metrics.row(0, named=True)
    assert metrics["n_rollbacks"] > 5 and metrics["n_trades"] == frame["n_trades"][0]
    per_trade_usd = frame["pnl_per_trade_bps"][0] * 675_000 / 1e4
    assert per_trade_usd * frame["n_trades"][0] == pytest.approx(metrics["pnl_usd"], rel=1e-9)


def test_a_hold_longer_than_the_span_has_no_value(carry):
    result = basis_bt.breakeven(carry, from_hours=720, to_hours=2000, steps=2)
    assert result.frame["n_trades"].to_list() == [1, 0]
    assert result.frame["pnl_per_trade_bps"].to_list() == [pytest.approx(56.0), None]
    with pytest.raises(ConfigError, match="no trade is closed"):
        basis_bt.breakeven(carry, from_hours=1500, to_hours=2000, steps=2)


@pytest.mark.parametrize(
    ("values", "options", "says"),
    [
        ({"fills.atomicity": "naked"}, {}, "single leg"),
        ({"rule.entry": 2.0}, {}, "nothing is traded"),
        ({"rule.entry": [0.5, 0.6]}, {}, "rule.entry"),
        ({"size.capital_usd": {"from": 1, "to": 2, "steps": 2}}, {}, "size.capital_usd"),
        ({}, {"from_hours": "3d", "to_hours": "8h"}, "from less to more"),
        ({}, {"from_hours": "soon"}, "from: 'soon' is no duration"),
        ({}, {"to_hours": True}, "to: must be a number of hours or a duration, found True"),
        ({}, {"to_hours": None}, "to: "),
        ({}, {"steps": 1}, "steps"),
    ],
)
def test_what_has_no_break_even_is_refused(carry, values, options, says):
    with pytest.raises(ConfigError, match=says):
        basis_bt.breakeven(replaced({"fills": {}, **carry}, values), **options)


# -- capacity ----------------------------------------------------------------------------------------------------------


def with_impact(tables, coef_bps):
    """One trade of 240 hours: 30 bps of funding, and four fills that move the price by coef * sqrt(n / V)."""
    return replaced(
        one_trade(tables, hold_hours=240),
        {"costs.half_spread_bps": 0.0, "costs.taker_fee_bps": 0.0, "costs.impact_coef_bps": coef_bps},
    )


def test_the_capacity_is_where_impact_takes_the_funding(carry):
    # 4 * 50 * sqrt(n / 1e6) = 30 at n = 22,500, of which 0.9 C / (100 + 100 / 3) are bought
    expected = 22_500 * (100 + 100 / 3) / 0.9
    result = basis_bt.capacity(with_impact(carry, 50.0), from_usd=expected / 10, to_usd=expected * 10, steps=3)
    assert result.capacity_usd == pytest.approx(expected, rel=1e-6)
    row = result.frame.row(0, named=True)
    years = HOURS / 8760
    assert row["funding_apr"] == pytest.approx(30e-4 * 0.675 / years, rel=1e-9)
    assert row["cost_apr"] == pytest.approx(30e-4 * 0.675 / years / math.sqrt(10), rel=1e-9)
    assert row["apr_on_capital"] == pytest.approx(row["funding_apr"] - row["cost_apr"], rel=1e-9)
    assert result.frame["other_apr"].to_list() == pytest.approx([0.0] * 3, abs=1e-12)


def test_more_impact_is_less_capacity(carry):
    found = [basis_bt.capacity(with_impact(carry, coef)).capacity_usd for coef in (12.5, 25.0, 50.0, 100.0)]
    assert found == sorted(found, reverse=True)
    assert [one / other for one, other in zip(found, found[1:], strict=False)] == pytest.approx([4.0] * 3, rel=0.02)


def test_a_carry_that_always_or_never_pays_has_no_capacity(carry):
    assert basis_bt.capacity(with_impact(carry, 1e-3), steps=3).capacity_usd is None
    loses = replaced(with_impact(carry, 1e-3), {"costs.half_spread_bps": 10.0})
    assert basis_bt.capacity(loses, steps=3).capacity_usd is None


def test_a_limit_on_the_share_of_volume_ends_the_curve(carry):
    limited = replaced({"fills": {}, **with_impact(carry, 0.0)}, {"fills.max_volume_share": 0.01})
    frame = basis_bt.capacity(limited, from_usd=1e6, to_usd=1e8, steps=3).frame
    assert frame["n_trades"].to_list() == [1, 0, 0]
    assert frame["apr_on_capital"].to_list()[1:] == [0.0, 0.0]


def test_a_capital_that_no_order_of_fills_is_kept_as_failed(carry):
    frame = basis_bt.capacity(with_impact(carry, 50.0), from_usd=1e6, to_usd=1e13, steps=2).frame
    assert frame["status"].to_list() == ["ok", "cost_over_price"]
    assert frame["apr_on_capital"][1] is None


def test_capacity_needs_a_cost_that_depends_on_size(carry):
    with pytest.raises(ConfigError, match="no cost depends on the size") as refused:
        basis_bt.capacity(carry)
    assert all(
        key in str(refused.value) for key in ("impact_coef_bps", "bucket_usd", "bucket_table", "max_volume_share")
    )
    flat = replaced(carry, {"costs.bucket_usd": [1e4, 1e6], "costs.bucket_bps": [3.0, 3.0]})
    with pytest.raises(ConfigError, match="no cost depends on the size"):
        basis_bt.capacity(flat)
    bought = replaced(carry, {"costs.bucket_usd": [1e4, 1e6], "costs.bucket_bps": [3.0, 4.0]})
    assert basis_bt.capacity(bought, steps=2).frame["cost_apr"].is_sorted()


# -- sensitivity -------------------------------------------------------------------------------------------------------


def pnl_of(result, component, scale):
    chosen = (pl.col("component").str.starts_with(component)) & (pl.col("scale") == scale)
    return result.frame.filter(chosen)["pnl_usd"].item()


def run_pnl(tables, values):
    return basis_bt.run(replaced(tables, values)).metrics["pnl_usd"].item()


@pytest.mark.parametrize("model", ["certain", "bernoulli"])
def test_each_scale_is_that_run_bit_for_bit(sample, model):
    sample["costs"] |= {"bucket_usd": [1e4, 1e6], "bucket_bps": [1.0, 2.0], "impact_coef_bps": 3.0}
    sample["fills"] = {"model": model, "fill_probability": 0.8, "rollback_penalty_bps": 1.0}
    result = basis_bt.sensitivity(sample)
    own = run_pnl(sample, {})
    assert result.pnl_usd == own
    assert set(result.frame.filter(scale=1.0)["pnl_usd"]) == {own}
    assert set(result.frame.filter(scale=1.0)["change_usd"]) == {0.0}
    expected = {
        ("taker fees", 0.5): {"costs.taker_fee_bps": {"spot": 5.0, "perp": 2.5}},
        ("half spread", 2.0): {"costs.half_spread_bps": 1.0},
        ("impact", 0.0): {"costs.impact_coef_bps": 0.0},
        ("buckets", 1.5): {"costs.bucket_bps": [1.5, 3.0]},
        ("latency", 2.0): {"fills.latency": "1h"},
        ("latency", 3.0): {"fills.latency": "2h"},
    }
    if model == "bernoulli":
        expected["rollback penalty", 2.0] = {"fills.rollback_penalty_bps": 2.0}
    for (component, scale), values in expected.items():
        assert pnl_of(result, component, scale) == run_pnl(sample, values), component
    assert set(result.components["component"]) == {name for name, _ in expected} - {"latency"} | {
        "latency, ×2: 1 bar more"
    }


def test_the_strongest_component_comes_first_with_its_break_even(carry):
    # 68 bps of funding less 4 of half spreads and 30 of fees: the fees may be 64 / 30 as high
    result = basis_bt.sensitivity(one_trade(carry, hold_hours=544), scales=[0.0, 1.0, 3.0])
    assert result.components["component"].to_list() == ["taker fees", "half spread", "latency, ×2: 1 bar more"]
    assert result.components["breakeven_scale"].to_list() == [pytest.approx(64 / 30, rel=1e-6), None, None]
    assert result.frame["component"].to_list()[:3] == ["taker fees"] * 3
    assert result.components["effect_usd"][0] == pytest.approx(60e-4 * 675_000, rel=1e-6)


def test_a_cost_table_of_days_is_scaled(carry, tmp_path):
    days = [FIRST.date() + timedelta(days=day) for day in range(60)]
    rows = [(day, "BTC", size, bps) for day in days for size, bps in ((1e4, 2.0), (1e7, 6.0))]
    table = pl.DataFrame(rows, schema=["day", "pair", "size_usd", "cost_bps"], orient="row")
    for name, factor in (("once", 1.0), ("twice", 2.0)):
        table.with_columns(pl.col("cost_bps") * factor).write_parquet(tmp_path / f"{name}.parquet")
    pairs = {"spot": "BTC", "perp": "BTC"}
    tables = replaced(carry, {"costs.bucket_table": str(tmp_path / "once.parquet"), "costs.bucket_pairs": pairs})
    result = basis_bt.sensitivity(tables, scales=[2.0])
    assert pnl_of(result, "buckets", 2.0) == run_pnl(tables, {"costs.bucket_table": str(tmp_path / "twice.parquet")})
    assert pnl_of(result, "buckets", 2.0) < pnl_of(result, "buckets", 1.0)


def test_latency_by_leg_is_later_on_every_leg(carry):
    tables = replaced({"fills": {}, **carry}, {"fills.latency": {"perp": "2h"}})
    result = basis_bt.sensitivity(tables, scales=[0.0])
    both = {"fills.latency": {"spot": 1.0, "perp": 3.0}}
    assert pnl_of(result, "latency", 2.0) == run_pnl(tables, both)
    result = basis_bt.sensitivity(replaced(tables, {"fills.latency": "6h"}), scales=[0.0])
    assert pnl_of(result, "latency", 3.0) == run_pnl(tables, {"fills.latency": "8h"}) != pnl_of(result, "latency", 1.0)


def test_both_fees_of_resting_orders_and_the_rates_of_loans_are_components(carry):
    carry["fills"] = {"model": "maker", "offset_bps": 1.0}
    assert {"maker fees", "taker fees"} <= set(basis_bt.sensitivity(carry).components["component"])
    del carry["fills"]
    carry["rule"]["reverse"], carry["costs"]["borrow_apr"] = True, 0.05
    carry["wallets"] = {"mode": "segregated", "transfer_fee_usd": 5.0, "liquidation_fee_bps": 10.0}
    found = basis_bt.sensitivity(carry).components
    assert {"borrow rate", "transfer fee", "liquidation fee"} <= set(found["component"])
    assert "costs.borrow_apr" in found["key"].to_list()


def test_a_fee_that_changes_within_the_run_is_no_number(sample):
    sample["costs"]["fee_tier"] = "volume"
    with pytest.raises(ConfigError, match="taker fee of spot:binance:BTC-USDT changes"):
        basis_bt.sensitivity(sample)
    sample["costs"]["taker_fee_bps"] = {"spot": 10.0, "perp": 5.0}
    assert pnl_of(basis_bt.sensitivity(sample), "taker", 1.0) == run_pnl(sample, {})


@pytest.mark.parametrize("scales", [[], [1.0], [-1.0, 2.0], [math.nan], [math.inf]])
def test_scales_are_numbers_from_zero(carry, scales):
    with pytest.raises(ConfigError, match="scales must be"):
        basis_bt.sensitivity(carry, scales=scales)


def test_a_scale_out_of_bounds_names_its_key(carry):
    with pytest.raises(ConfigError, match="taker_fee_bps"):
        basis_bt.sensitivity(carry, scales=[1000.0])


def test_a_configuration_that_fails_itself_is_not_scaled(carry):
    carry["costs"]["impact_coef_bps"], carry["size"]["capital_usd"] = 1e5, 1e12
    with pytest.raises(KernelError, match="ends with status cost_over_price"):
        basis_bt.sensitivity(carry)


def test_sweeps_are_refused_by_name(carry):
    with pytest.raises(ConfigError, match="capacity takes one backtest") as refused:
        basis_bt.capacity({**carry, "sweep": {"metric": "sharpe"}})
    assert "[sweep]" in str(refused.value)
    for combo in ([carry["combo"]], {"pairs": [{"long": "spot:*:*", "short": "perp:*:*"}]}):
        with pytest.raises(ConfigError, match="key=combo"):
            basis_bt.sensitivity({**carry, "combo": combo})
    several = replaced({**carry, "sweep": {"best": 1}}, {"rule.exit": [0.1, 0.2]})
    with pytest.raises(ConfigError, match=r"key=rule\.exit, \[sweep\]"):
        basis_bt.sensitivity(several)


# -- verbs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(carry, tmp_path, monkeypatch):
    """A folder with the carry as a TOML file."""
    tables = {key: table for key, table in carry.items() if key != "name"}
    toml_of({**tables, "size": {"lots": "none"}}, tmp_path / "hold.toml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verb(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["basis-bt", *arguments])
    return entry()


def test_the_verb_breakeven_says_both_holds_and_draws_them(folder, monkeypatch, capsys):
    options = ["--from", "136", "--to", "544h", "--steps", "3", "--plot", "charts/hold.png"]
    assert verb(monkeypatch, "breakeven", "hold.toml", *options) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("hold: +1 spot:binance:BTC-USDT, -1 perp:binance:BTC-USDT · 2026-01-01 to 2026-03-02")
    assert told[-3:] == [
        "break-even   11.3 d",
        "closed form  34 bps a round trip / 0.125 bps an hour held = 11.3 d",
        "chart: charts/hold.png",
    ]
    assert (folder / "charts" / "hold.png").stat().st_size > 10_000
    free = ["--set", "costs.taker_fee_bps=0", "--set", "costs.half_spread_bps=0", "--to", "80h", "--steps", "2"]
    assert verb(monkeypatch, "breakeven", "hold.toml", *free) == 0
    assert "at once: the shortest hold, 8 h, pays already" in capsys.readouterr().out
    assert verb(monkeypatch, "breakeven", "hold.toml", "--to", "soon") == 2
    assert "to: 'soon' is no duration" in capsys.readouterr().err
    assert verb(monkeypatch, "breakeven", "hold.toml", "--to", "80h", "--steps", "2") == 0
    assert "never, for holds from 8 h to 3.3 d" in capsys.readouterr().out


def test_the_verb_capacity_prints_rows_for_programs(folder, monkeypatch, capsys):
    impact = ["--set", "costs.impact_coef_bps=100", "--set", "rule.max_hold_hours=720", "--steps", "3"]
    assert verb(monkeypatch, "capacity", "hold.toml", *impact, "--format", "json", "--plot", "c.png") == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)
    assert [row["capital_usd"] for row in rows] == pytest.approx([1e4, math.sqrt(1e13), 1e9])
    assert captured.err.splitlines()[-1] == "chart: c.png"
    assert verb(monkeypatch, "capacity", "hold.toml", *impact) == 0
    assert "USD, where the net rate falls to 0" in capsys.readouterr().out
    assert verb(monkeypatch, "capacity", "hold.toml", *impact, "--to", "1e5") == 0
    assert "not within 10k to 100k USD: the net rate is above 0" in capsys.readouterr().out
    assert verb(monkeypatch, "capacity", "hold.toml") == 2
    assert "set costs.impact_coef_bps" in capsys.readouterr().err


def test_the_verb_sensitivity_lists_components_and_takes_scales(folder, monkeypatch, capsys):
    assert verb(monkeypatch, "sensitivity", "hold.toml", "--scales", "0,2", "--plot", "s.png") == 0
    out = capsys.readouterr().out
    assert "PnL" in out and "costs.taker_fee_bps" in out and "s.png" in out
    assert (folder / "s.png").stat().st_size > 10_000
    assert verb(monkeypatch, "sensitivity", "hold.toml", "--scales", "0,2", "--format", "csv") == 0
    header, first, *_ = capsys.readouterr().out.splitlines()
    assert header == "component,scale,pnl_usd,change_usd,key,effect_usd,breakeven_scale"
    assert first.startswith("taker fees,0.0,")
    assert verb(monkeypatch, "sensitivity", "hold.toml", "--scales", "much") == 2
    assert verb(monkeypatch, "sensitivity", "hold.toml", "--set", "rule.entry=[0.5,0.6]") == 2
    assert "sensitivity takes one backtest" in capsys.readouterr().err


# -- real data ---------------------------------------------------------------------------------------------------------


def test_at_the_break_even_of_a_real_carry_funding_and_basis_are_the_costs():
    tables = read_toml(ROOT / "configs" / "real_btc_same_venue.toml")
    result = basis_bt.breakeven(
        replaced(tables, {"data.root": str(real_market())}), from_hours=96, to_hours=192, steps=9
    )
    frame, at = result.frame, math.log(result.breakeven_hours)
    below, above = (
        frame.filter(pl.col("hold_hours") <= result.breakeven_hours).row(-1, named=True),
        frame.filter(pl.col("hold_hours") > result.breakeven_hours).row(0, named=True),
    )
    share = (at - math.log(below["hold_hours"])) / math.log(above["hold_hours"] / below["hold_hours"])
    funding, basis, costs = (
        below[name] + share * (above[name] - below[name]) for name in ("funding_bps", "basis_bps", "costs_bps")
    )
    assert funding + basis == pytest.approx(costs, rel=1e-9)
    assert costs == pytest.approx(32.0, abs=0.5)  # 2 (10 + 5) of fees and 4 * 0.5 of half spreads
