"""Wallets that are apart and margin that runs out, through the front door, on the sample and on real data."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from realdata import real_market

import basis_bt
from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import Instrument
from basis_bt.core.rulebook import margin_tiers

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"


def sample(*, leverage=3.0, **wallets):
    return {
        "name": "wallets",
        "data": {"root": str(SAMPLE), "start": "2024-02-01T00:00Z", "end": "2024-06-01T00:00Z"},
        "combo": {"legs": [{"instrument": "spot:binance:SOL-USDT", "ratio": 1.0},
                           {"instrument": "perp:bybit:SOL-USDT", "ratio": -1.0}]},
        "signal": {"name": "basis_zscore", "hours": 48},
        "rule": {"entry": 0.5, "exit": -1.5},
        "size": {"lots": "none", "leverage": leverage},
        "wallets": wallets,
    }  # fmt: skip


def always_on(*, leverage, allocation, capital_usd=84_628.0, **wallets):
    """Long BTC spot on Bybit, short the Binance perp from the start of 2024 on, real data, no fees."""
    return {
        "name": "short",
        "data": {"root": str(real_market()), "start": "2024-01-01T00:00Z", "end": "2025-03-01T00:00Z"},
        "combo": {"legs": [{"instrument": "spot:bybit:BTC-USDT", "ratio": 1.0},
                           {"instrument": "perp:binance:BTC-USDT", "ratio": -1.0}]},
        "signal": {"name": "sql", "sql": "close_0 * 0 + 1"},
        "rule": {"entry": 0.5, "exit": -1.0},
        "size": {"allocation": allocation, "leverage": leverage, "capital_usd": capital_usd, "lots": "none"},
        "costs": {"taker_fee_bps": 0.0},
        "wallets": {"mode": "segregated", **wallets},
    }  # fmt: skip


def test_wallets_add_up_to_the_cash_of_the_run():
    result = basis_bt.run(sample(mode="segregated", transfer_hours=5, transfer_fee_usd=2.0))
    wallets = result.tables["wallets"]
    by_bar = wallets.group_by("ts", maintain_order=True).agg(pl.col("cash_usd").sum(), pl.col("in_flight_usd").first())
    split = by_bar["ts"].to_physical() >= result.events["ts"].to_physical()[0]
    total = (by_bar["cash_usd"] + by_bar["in_flight_usd"]).filter(split).to_numpy()
    np.testing.assert_allclose(total, result.equity["cash_usd"].filter(split).to_numpy(), rtol=1e-12)
    assert set(wallets["wallet"]) == {"binance", "bybit"}
    assert by_bar["in_flight_usd"].max() > 0
    last = result.attribution.group_by("leg").last()
    assert result.metrics["transfer_usd"].item() == pytest.approx(last["transfer_usd"].sum())
    assert result.metrics["transfer_usd"].item() % 2.0 == pytest.approx(0.0, abs=1e-9)


def test_an_entry_waits_for_its_cash():
    slow = basis_bt.run(sample(mode="segregated", transfer_hours=5))
    later = slow.fills.filter(pl.col("action") == "entry", pl.col("trade") > 1)
    waited = (later["ts"] - later["decision_ts"]).dt.total_hours()
    assert later.height > 4
    assert (waited == 5).all()
    first = slow.fills.filter(pl.col("trade") == 1, pl.col("action") == "entry")
    assert (first["ts"] == first["decision_ts"]).all()


def test_segregated_wallets_without_cost_or_delay_trade_as_one():
    apart = basis_bt.run(sample(mode="segregated", margin="none"))
    pooled = basis_bt.run(sample())
    np.testing.assert_allclose(
        apart.equity["equity_usd"].to_numpy(), pooled.equity["equity_usd"].to_numpy(), rtol=1e-12
    )
    assert apart.fills.select("ts", "leg", "action").equals(pooled.fills.select("ts", "leg", "action"))


def test_halts_and_caps_hold_transfers_back():
    halted = basis_bt.run(sample(mode="segregated", transfer_halts=[["2024-02-01T00:00Z", "2024-05-01T00:00Z"]]))
    entries = halted.fills.filter(pl.col("action") == "entry", pl.col("leg") == 0)
    assert entries["ts"][1] == datetime(2024, 5, 1, tzinfo=UTC)
    capped = basis_bt.run(sample(mode="segregated", transfer_daily_cap_usd=10.0))
    second = capped.fills.filter(pl.col("trade") == 2, pl.col("action") == "entry")
    assert (second["ts"] > second["decision_ts"]).all()


def test_a_short_without_a_hedge_in_its_wallet_is_liquidated_when_the_tiers_say_so():
    result = basis_bt.run(always_on(leverage=1.0, allocation=1.0))
    (event,) = result.events.filter(pl.col("event") == "liquidation").iter_rows(named=True)
    assert event["ts"] == datetime(2024, 11, 13, 14, tzinfo=UTC)
    closed = result.fills.filter(pl.col("action") == "liquidation").row(0, named=True)
    tiers = margin_tiers(Instrument.parse("perp:binance:BTC-USDT"), on=datetime(2024, 1, 1).date())
    quantity, price = closed["quantity_base"], closed["fill_price"]
    before = result.tables["wallets"].filter(pl.col("wallet") == "binance", pl.col("ts") < event["ts"])["cash_usd"][-1]
    paid = result.funding.filter(pl.col("ts") == event["ts"])["funding_usd"].sum()
    assert before + paid - quantity * price == pytest.approx(tiers.maintenance_usd(quantity * price), rel=1e-9)
    assert closed["fee_usd"] == pytest.approx(quantity * price * 0.0125)
    rest = result.fills.filter(pl.col("reason") == "liquidation", pl.col("leg") == 0).row(0, named=True)
    assert rest["ts"] == datetime(2024, 11, 13, 15, tzinfo=UTC)
    after = result.tables["wallets"].filter(pl.col("wallet") == "binance", pl.col("ts") == event["ts"])["cash_usd"]
    assert after.item() == pytest.approx(0.0, abs=1e-6)  # the fee is more than what was left: the venue takes the rest
    assert result.metrics["n_liquidations"].item() == 1


def test_the_same_path_survives_with_instant_transfers_and_dies_with_six_hours():
    def run(hours):
        options = {"rebalance_below": 0.04, "transfer_hours": hours, "transfer_min_usd": 1000.0}
        return basis_bt.run(always_on(leverage=10.0, allocation=0.95, capital_usd=1e6, **options)).metrics

    assert run(0)["n_liquidations"].item() == 0
    assert run(6)["n_liquidations"].item() > 0


def test_rebalancing_keeps_the_margin_ratio_up():
    plain = basis_bt.run(always_on(leverage=3.0, allocation=0.9, capital_usd=1e6)).metrics
    kept = basis_bt.run(always_on(leverage=3.0, allocation=0.9, capital_usd=1e6, rebalance_below=0.2))
    assert plain["n_liquidations"].item() > 0
    assert kept.metrics["n_liquidations"].item() == 0
    assert kept.metrics["min_margin_ratio"].item() > 0.15
    assert kept.events.filter(pl.col("event") == "resize").height > 2
    ends = kept.attribution.pivot("leg", index="ts", values="position_base")
    assert (ends["0"] + ends["1"]).abs().max() < 1e-9


def test_spot_in_the_same_wallet_can_back_the_short():
    held = {"signal": {"name": "sql", "sql": "close_0 * 0 + 1"}, "rule": {"entry": 0.5, "exit": -1.0}}
    alone = sample(leverage=20.0, margin="venue") | held
    backed = sample(leverage=20.0, margin="venue", spot_collateral=0.95) | held
    assert basis_bt.run(alone).metrics["n_liquidations"].item() > 0
    assert basis_bt.run(backed).metrics["n_liquidations"].item() == 0


def test_tiers_that_stand_in_are_said_in_the_manifest():
    flags = basis_bt.run(always_on(leverage=1.0, allocation=0.5)).manifest["flags"]
    assert any("the oldest known" in flag for flag in flags)


@pytest.mark.parametrize(
    ("wallets", "says"),
    [({"mode": "seggregated"}, "did you mean 'segregated'"), ({"spot_collateral": 1.5}, "spot_collateral must be"),
     ({"rebalance_below": 0.1}, 'rebalance_below needs mode = "segregated"'),
     ({"transfer_halts": [["2024-02-01T00:00Z", "2024-01-01T00:00Z"]]}, "a transfer halt is [from, to]"),
     ({"transfer_daily_cap_usd": 1.0, "transfer_fee_usd": 2.0}, "transfer_daily_cap_usd must be above")],
)  # fmt: skip
def test_wallets_that_mean_nothing_are_refused(wallets, says):
    with pytest.raises(ConfigError) as caught:
        basis_bt.run(sample(**wallets))
    assert says in str(caught.value)
