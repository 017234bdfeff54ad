"""Fills that are not certain, through the front door: what is inert, what rollbacks cost, what atomicity is worth."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import basis_bt
from basis_bt.core.errors import ConfigError

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"
HALF_SPREAD_BPS = {"spot": 1.5, "perp": 0.5}
FEE_BPS = {"spot": 10.0, "perp": 5.0}
PENALTY_BPS = 4.0


def config(**fills):
    """A carry that trades as often as it may, on the sample."""
    return {
        "name": "fills",
        "data": {"root": str(SAMPLE), "start": "2024-02-01T00:00Z",
                 "end": "2024-04-01T00:00Z"},
        "combo": {"legs": [{"instrument": "spot:binance:ETH-USDT", "ratio": 1.0},
                           {"instrument": "perp:bybit:ETH-USDT", "ratio": -1.0}]},
        "signal": {"name": "basis_zscore", "hours": 24},
        "rule": {"entry": 0.2, "exit": -0.2},
        "size": {"compounding": False, "lots": "none", "allocation": 0.5},
        "costs": {"half_spread_bps": HALF_SPREAD_BPS, "taker_fee_bps": FEE_BPS},
        "fills": fills,
    }  # fmt: skip


@pytest.fixture(scope="module")
def certain():
    return basis_bt.run(config())


@pytest.mark.parametrize(
    "inert",
    [
        {"model": "bernoulli", "fill_probability": 1.0},
        {"model": "volume", "volume_cap": 1.0},
        {"reject_probability": 0.0, "seed": 5},
        {"atomicity": "match"},
        {"atomicity": "naked"},
        {"rollback_delay_hours": 3, "rollback_penalty_bps": 50.0},
        {"max_cost_bps": 1e4, "max_volume_share": 1e9, "max_spread_bps": 1e4},
        {"latency": {"spot": 0, "perp": 0}},
    ],
    ids=str,
)
def test_what_does_not_bind_changes_no_bit(certain, inert):
    other = basis_bt.run(config(**inert))
    assert certain.metrics["n_trades"].item() > 50
    for table in ("equity", "fills", "funding", "events", "trades", "attribution"):
        assert other.tables[table].equals(certain.tables[table]), table


def attempts(result):
    """Entries decided: their loss if they were rolled back at once (else 0), and what was to be expected of it."""
    p = result.manifest["config"]["fills"]["reject_probability"]
    entries = result.events.filter(pl.col("event") == "entry").select("ts", "quantity_base")
    failed = result.fills.filter(pl.col("trade") == 0, pl.col("ts") == pl.col("decision_ts"))
    costs = pl.sum_horizontal("delay_usd", "spread_usd", "bucket_usd", "impact_usd", "fee_usd")
    lost = failed.group_by("ts").agg(costs.sum().alias("lost_usd"))
    prices = {kind: pl.read_parquet(SAMPLE / kind / venue / "ETH-USDT.parquet").select("ts", pl.col("open").alias(kind))
              for kind, venue in (("spot", "binance"), ("perp", "bybit"))}  # fmt: skip
    rows = entries.join(lost, on="ts", how="left").with_columns(pl.col("lost_usd").fill_null(0.0))
    for frame in prices.values():
        rows = rows.join(frame.with_columns(pl.col("ts").dt.cast_time_unit("us")), on="ts")
    expected = pl.lit(0.0)
    for kind, side in (("spot", 1), ("perp", -1)):
        half, fee = HALF_SPREAD_BPS[kind] / 1e4, FEE_BPS[kind] / 1e4
        worse = half + PENALTY_BPS / 1e4
        both_ways = half + worse + fee * ((1 + side * half) + (1 - side * worse))
        expected += p * (1 - p) * pl.col("quantity_base") * pl.col(kind) * both_ways
    return rows.with_columns(expected_usd=expected)


def test_rollbacks_cost_on_average_what_their_closed_form_says():
    rows = pl.concat(
        attempts(basis_bt.run(config(reject_probability=0.3, rollback_penalty_bps=PENALTY_BPS, seed=seed)))
        for seed in range(40)
    )
    assert rows.height > 3000
    error = (rows["lost_usd"] - rows["expected_usd"]).to_numpy()
    assert rows["expected_usd"].mean() > 10.0
    assert abs(error.mean()) < 3 * error.std(ddof=1) / math.sqrt(len(error))


def test_one_rollback_is_the_loss_of_its_two_fills(certain):
    result = basis_bt.run(config(reject_probability=0.3, rollback_penalty_bps=PENALTY_BPS, rollback_delay_hours=2))
    last = result.attribution.group_by("leg", maintain_order=True).last()
    assert result.metrics["rollback_usd"].item() == pytest.approx(
        last["rollback_execution_usd"].sum() + last["rollback_price_usd"].sum(), rel=1e-12
    )
    assert result.metrics["naked_hours"].item() > 0
    assert last["rollback_price_usd"].abs().sum() > 0
    closing = result.fills.filter(pl.col("action") == "rollback")
    opening = result.fills.filter(pl.col("trade") == 0, pl.col("action") == "entry")
    assert opening.height - closing.filter(pl.col("trade") == 0).height in (0, 1)  # one may be open at the end
    assert result.metrics["n_rollbacks"].item() == result.events.filter(pl.col("event") == "rollback").height


def test_naked_legs_have_the_worse_tail():
    def worst(mode):
        falls = []
        for seed in range(12):
            result = basis_bt.run(config(model="bernoulli", fill_probability=0.7, atomicity=mode, seed=seed))
            moves = np.diff(result.equity["equity_usd"].to_numpy())
            falls.append(np.quantile(moves, 0.001))
        return np.mean(falls)

    assert worst("naked") < 3 * worst("rollback") < 0


def test_a_maker_saves_fees_and_falls_back_to_the_market(certain):
    result = basis_bt.run(config(model="maker", offset_bps=10.0))
    maker = result.fills.filter(pl.col("spread_usd") == 0.0)
    taker = result.fills.filter(pl.col("spread_usd") > 0.0)
    assert maker.height > 50 and taker.height > 5
    assert (maker["fill_price"] == maker["reference_price"]).all()
    assert (maker["delay_usd"] <= 1e-9).all()
    assert (taker["ts"] > taker["decision_ts"]).all()
    share = maker.select(pl.col("fee_usd") / pl.col("notional_usd") * 1e4).to_series().round(6)
    assert set(share) <= {2.0, 10.0}  # the base maker fees of perp and spot
    assert result.metrics["fees_usd"].item() < certain.metrics["fees_usd"].item()


def test_volume_caps_bind_and_match_keeps_the_common_part():
    big = config(model="volume", volume_cap=0.002, atomicity="match")
    big["size"] |= {"capital_usd": 50_000_000.0}
    result = basis_bt.run(big)
    assert result.metrics["n_rollbacks"].item() > 0
    ends = result.attribution.pivot("leg", index="ts", values="position_base")
    units = (ends["0"] + ends["1"]).abs().max()
    assert units <= 1e-6 * ends["0"].abs().max()
    assert result.fills.filter(pl.col("action") == "entry").height > 2 * result.metrics["n_trades"].item()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_cost_bps": 0.5}, "cost"),
        ({"max_volume_share": 1e-6}, "volume_share"),
        ({"max_spread_bps": 2.5}, "spread"),
    ],
)
def test_entries_over_a_limit_are_refused_and_counted_by_reason(limits, reason):
    result = basis_bt.run(config(**limits))
    assert result.metrics["n_trades"].item() == 0
    assert set(result.events["event"]) == {"refused"}
    assert set(result.events["reason"]) == {reason}
    assert result.manifest["counts"]["refused"] == {reason: result.metrics["n_refused"].item()}


def test_a_later_second_leg_is_naked_in_between():
    result = basis_bt.run(config(latency={"spot": "0h", "perp": "2h"}))
    entry = result.fills.filter(pl.col("trade") == 1, pl.col("action") == "entry")
    gap = entry["ts"].max() - entry["ts"].min()
    assert gap.total_seconds() == 7200
    assert result.metrics["naked_hours"].item() >= 2 * result.metrics["n_trades"].item()


@pytest.mark.parametrize(
    ("fills", "says"),
    [({"volume_cap": 0.0}, "volume_cap must be above 0"), ({"fill_probability": 1.2}, "fill_probability must be"),
     ({"reject_probability": -0.1}, "reject_probability must be"),
     ({"atomicity": "rollbak"}, "did you mean 'rollback'"), ({"seed": -1}, "seed must be at least 0"),
     ({"latency": {"moon": 1}}, "moon")],
)  # fmt: skip
def test_fills_that_mean_nothing_are_refused(fills, says):
    with pytest.raises(ConfigError) as caught:
        basis_bt.run(config(**fills))
    assert says in str(caught.value)
