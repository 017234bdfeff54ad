"""The front door on the sample: options of a configuration, results, the checks of every run."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import basis_bt
from basis_bt.core.config import apply_settings, read_toml
from basis_bt.core.errors import BooksError, ConfigError, DataError, KernelError
from basis_bt.kernels._jit import source_hash
from basis_bt.ledger.identity import check_books

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data" / "sample"


def sample(**settings):
    """The committed sample configuration over its first quarter, with settings such as ``costs__liquidity``."""
    raw = read_toml(ROOT / "configs" / "sample_btc_carry.toml")
    raw["data"] |= {"root": str(SAMPLE), "end": "2024-04-01T00:00:00Z"}
    for key, value in settings.items():
        section, _, name = key.partition("__")
        raw[section][name] = value
    return raw


@pytest.fixture(scope="module")
def plain():
    return basis_bt.run(sample())


def test_a_result_has_all_tables_and_reads_as_a_summary(plain):
    for name in ("metrics", "equity", "fills", "funding", "events", "attribution", "trades"):
        assert getattr(plain, name).height > 0
    assert "funding" in repr(plain)
    assert "<table" in plain._repr_html_()
    assert plain.manifest["counts"]["marks"]["mark"] > 0
    assert {row["series"] for row in plain.manifest["inputs"]} == {"spot", "perp", "mark", "funding"}


def test_attribution_adds_up_to_equity_at_every_bar(plain):
    gains = pl.sum_horizontal("delta_usd", "basis_usd", "funding_usd")
    costs = pl.sum_horizontal("fees_usd", "spread_usd", "bucket_usd", "impact_usd", "delay_usd")
    total = plain.attribution.group_by("ts", maintain_order=True).agg((gains - costs).sum().alias("pnl"))["pnl"]
    assert (total - (plain.equity["equity_usd"] - 1_000_000.0)).abs().max() < 1e-3 * 1e-6 * 1_000_000


def test_trades_add_up_to_the_pnl(plain):
    assert plain.trades["pnl_usd"].sum() == pytest.approx(plain.metrics["pnl_usd"][0], rel=1e-9)


def test_positions_are_whole_lots_of_the_rulebook_and_hedged(plain):
    entries = plain.fills.filter(pl.col("action") == "entry")
    lots = entries["quantity_base"] / 0.001
    assert ((lots - lots.round()).abs() < 1e-6).all()
    net = plain.attribution.group_by("ts").agg(pl.col("position_base").sum())["position_base"]
    assert (net == 0.0).all()


def test_fees_default_to_the_base_tier_of_the_venue():
    raw = sample()
    del raw["costs"]["taker_fee_bps"]
    result = basis_bt.run(raw)
    assert result.manifest["fees_bps"] == {"spot:binance:BTC-USDT": 10.0, "perp:binance:BTC-USDT": 5.0}


def test_an_unknown_venue_needs_a_fee():
    raw = apply_settings(sample(), {"combo.legs.1.instrument": "perp:nowhere:BTC-USDT"})
    del raw["costs"]["taker_fee_bps"]
    with pytest.raises(ConfigError, match="nowhere"):
        basis_bt.run(raw)


def test_a_maker_rebate_is_income():
    result = basis_bt.run(sample(costs__liquidity="maker", costs__maker_fee_bps=-1.0))
    assert result.metrics["fees_usd"][0] < 0
    assert result.metrics["fees_usd"][0] == pytest.approx(-result.fills["notional_usd"].sum() / 1e4, rel=1e-12)


def test_a_fee_in_base_shrinks_what_arrives_and_the_hedge():
    result = basis_bt.run(sample(costs__spot_fee_in="base"))
    spot, perp = result.fills.filter(pl.col("trade") == 1, pl.col("action") == "entry").iter_rows(named=True)
    assert spot["position_change_base"] == pytest.approx(spot["quantity_base"] * (1 - 10.0 / 1e4), rel=1e-12)
    assert perp["position_change_base"] == -spot["position_change_base"]


def test_a_cost_table_by_day_gives_each_fill_the_bps_of_its_day(tmp_path, plain):
    days = pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 3, 31), eager=True)
    rows = [(day, "BTC", size, 1.0 + index) for index, day in enumerate(days) for size in (1e4, 1e7)]
    table = pl.DataFrame(rows, schema=["day", "pair", "size_usd", "cost_bps"], orient="row")
    table.write_parquet(tmp_path / "costs.parquet")
    pairs = {"spot": "BTC", "perp": "BTC"}
    result = basis_bt.run(sample(costs__bucket_table=str(tmp_path / "costs.parquet"), costs__bucket_pairs=pairs))
    bps = result.fills["bucket_usd"] / (result.fills["quantity_base"] * result.fills["reference_price"]) * 1e4
    expected = result.fills["ts"].dt.ordinal_day().cast(pl.Float64)
    assert (bps - expected).abs().max() < 1e-9
    assert result.manifest["inputs"][-1]["series"] == "cost"


@pytest.mark.parametrize("column", ["day", "pair"])
def test_a_cost_table_without_a_column_is_refused(tmp_path, column):
    table = pl.DataFrame({"day": ["2024-01-01"], "pair": ["BTC"], "size_usd": [1e4], "cost_bps": [1.0]}).drop(column)
    table.write_parquet(tmp_path / "costs.parquet")
    raw = sample(
        costs__bucket_table=str(tmp_path / "costs.parquet"), costs__bucket_pairs={"spot": "BTC", "perp": "BTC"}
    )
    with pytest.raises(DataError, match="cost table"):
        basis_bt.run(raw)


def test_a_sale_that_would_cost_more_than_its_price_ends_the_run():
    with pytest.raises(KernelError, match="a sale would cost more than its price"):
        basis_bt.run(sample(costs__impact_coef_bps=1e6))


def test_impact_before_any_volume_ends_the_trial_with_its_bar():
    raw = sample(costs__impact_coef_bps=1.0) | {"signal": {"name": "sql", "sql": "1.0"}}
    with pytest.raises(KernelError, match="volume") as error:
        basis_bt.run(raw)
    assert error.value.where["bar"] == 0


def test_latency_moves_the_fill_and_books_the_delay(plain):
    late = basis_bt.run(sample(fills__latency="2h"))
    waited = late.fills["ts"] - late.fills["decision_ts"]
    assert (waited.dt.total_hours() == 2).all()
    assert late.fills["delay_usd"].abs().sum() > 0
    assert plain.fills["delay_usd"].abs().sum() == 0


def test_models_by_keyword_give_the_run_of_the_toml(plain):
    raw = sample()
    models = {
        "data": basis_bt.Data(**raw["data"]),
        "combo": basis_bt.Combo(legs=[basis_bt.Leg(**leg) for leg in raw["combo"]["legs"]]),
        "signal": basis_bt.SignalSpec(**raw["signal"]),
        "rule": basis_bt.Rule(**raw["rule"]),
        "size": basis_bt.Size(**raw["size"]),
        "costs": basis_bt.Costs(**raw["costs"]),
        "fills": basis_bt.Fills(**raw["fills"]),
    }
    result = basis_bt.run(**models)
    assert result.equity.equals(plain.equity)
    by_hand = basis_bt.run(basis_bt.Config(name="by-hand", **models))
    assert by_hand.manifest["config_hash"] == plain.manifest["config_hash"]


def test_an_expression_of_ones_own_equals_the_built_in_signal():
    expression = (pl.col("close_1") / pl.col("close_0") - 1.0) * 1e4
    rule = {"entry": 6.0, "exit": 0.0}
    own = basis_bt.run(sample() | {"rule": rule}, expression=expression)
    built_in = basis_bt.run(sample() | {"rule": rule, "signal": {"name": "basis_bps"}})
    assert own.fills.equals(built_in.fills)
    assert own.fills.height > 0


def test_books_that_do_not_balance_fail_the_run(monkeypatch):
    from basis_bt.backtest import engine

    def spoiled(panel, rows, totals, *, capital_usd):
        rows.books[100, 1, 2] += 1.0
        return check_books(panel, rows, totals, capital_usd=capital_usd)

    monkeypatch.setattr(engine, "check_books", spoiled)
    with pytest.raises(BooksError, match="do not balance") as error:
        basis_bt.run(sample())
    assert error.value.where["leg"] in ("perp:binance:BTC-USDT", "total")


def test_an_edited_kernel_gets_another_cache(tmp_path):
    (tmp_path / "costs.py").write_text("a = 1\n")
    before = source_hash(tmp_path)
    (tmp_path / "costs.py").write_text("a = 2\n")
    assert source_hash(tmp_path) != before


def test_metrics_are_the_same_bytes_at_any_thread_count(tmp_path):
    """Two fresh processes with one and with four Polars threads."""
    script = (
        "import sys, basis_bt; from basis_bt.core.config import load_config;"
        "basis_bt.run(load_config(sys.argv[1], {'data.root': sys.argv[2]})).save(sys.argv[3])"
    )
    hashes = set()
    for threads in ("1", "4"):
        out = tmp_path / threads
        command = [sys.executable, "-c", script, str(ROOT / "configs/sample_btc_carry.toml"), str(SAMPLE), str(out)]
        subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"POLARS_MAX_THREADS": threads})
        hashes.add((out / "btc-carry" / "metrics.parquet").read_bytes())
    assert len(hashes) == 1


def test_inputs_are_not_touched_and_the_panel_is_read_only():
    from basis_bt.core.config import build_config
    from basis_bt.frames.panel import load_panel

    config = build_config(sample())
    panel = load_panel(config.data, config.combo)
    for array in (panel.open_price, panel.close_price, panel.tradable, panel.missing, panel.ts_us):
        assert not array.flags.writeable
        assert array.flags.c_contiguous
    assert np.isfinite(panel.close_price).all()
