"""Rules beyond the table of bad inputs: what runs refuse, repair and count, and what is at stake in cash."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from bad_inputs import FUNDING, HOUR_MS, PERP, SPOT, configuration, file_of, healthy, row_ts, write, write_healthy
from realdata import real_market

import basis_bt
from basis_bt.core.errors import DataError
from basis_bt.market.audit import audit
from basis_bt.market.catalogue import catalogue
from basis_bt.market.checks import value_findings
from basis_bt.market.files import read_series
from basis_bt.market.intervals import missing_settlements, settlement_intervals_hours
from basis_bt.market.schemas import SeriesKey
from basis_bt.market.witness import base_and_scale

HOUR_US = HOUR_MS * 1000


def folder(root: Path, **frames: pl.DataFrame) -> Path:
    write_healthy(root)
    for name, frame in frames.items():
        write(root, {"spot": SPOT, "perp": PERP, "funding": FUNDING}[name], frame)
    return root


def run(root: Path, mode: str = "strict"):
    return basis_bt.run(configuration(root, mode))


def findings(result, rule):
    return [row for row in result.manifest["checks"]["findings"] if row["rule"] == rule]


# -------------------------------------------------------------------------------------------------------- settlements


def test_settlements_repeated_within_a_minute_are_paid_once(tmp_path):
    rows = healthy()[FUNDING]
    late = rows[10:13].with_columns(pl.col("ts") + pl.duration(milliseconds=900))
    plain = run(folder(tmp_path / "plain"), "clean")
    root = folder(tmp_path / "twice", funding=pl.concat([rows, late]).sort("ts"))
    with pytest.raises(DataError, match=r"settlements within a minute of another are one settlement \(3 rows\)"):
        run(root)
    clean = run(root, "clean")
    assert clean.metrics["funding_usd"].item() == plain.metrics["funding_usd"].item() != 0
    (found,) = findings(clean, "repeated settlements")
    assert (found["repair"], found["rows"], found["first_row"]) == ("drop", 3, 11)


def test_settlements_repeated_with_another_rate_are_refused_in_both_modes(tmp_path):
    rows = healthy()[FUNDING]
    late = rows[10:11].with_columns(pl.col("ts") + pl.duration(seconds=30), pl.col("rate") * 2)
    root = folder(tmp_path, funding=pl.concat([rows, late]).sort("ts"))
    for mode in ("strict", "clean"):
        with pytest.raises(DataError, match="and their rates differ"):
            run(root, mode)


@pytest.mark.parametrize(("part", "word"), [(slice(0, 60), "end before"), (slice(30, None), "begin only after")])
def test_funding_that_does_not_cover_the_run_is_refused_and_its_stake_told(tmp_path, part, word):
    whole = run(folder(tmp_path / "whole"))
    rows = healthy()[FUNDING]
    lacking = rows.filter(~pl.col("ts").is_in(rows[part]["ts"].implode()))
    root = folder(tmp_path / "part", funding=rows[part])
    with pytest.raises(DataError, match=f"the settlements {word} the run does"):
        run(root)
    clean = run(root, "clean")
    (found,) = findings(clean, "missing settlements")
    assert abs(found["rows"] - lacking.height) <= 1
    held = whole.funding.filter(pl.col("position_base") != 0, pl.col("settlement_ts").is_in(lacking["ts"].implode()))
    edge = rows[part]["rate"][-1 if word == "end before" else 0]
    stake = (held["position_base"].abs() * held["mark_price"]).sum() * abs(edge)
    assert found["cash_at_stake_usd"] == pytest.approx(stake, rel=0.05)  # closes stand for the marks


def test_missing_settlements_are_at_stake_at_the_rate_before_them(tmp_path):
    rows = healthy()[FUNDING].with_columns(rate=pl.lit(2e-4))
    whole = run(folder(tmp_path / "whole", funding=rows), "clean")
    root = folder(tmp_path / "part", funding=pl.concat([rows[:30], rows[33:]]))
    clean = run(root, "clean")
    (found,) = findings(clean, "missing settlements")
    lost = abs(whole.metrics["funding_usd"].item() - clean.metrics["funding_usd"].item())
    assert lost > 0
    assert found["cash_at_stake_usd"] == pytest.approx(lost, rel=0.02)


def test_intervals_are_told_from_the_stamps_of_all_real_funding_files():
    for path in sorted((real_market() / "funding").glob("*/*.parquet")):
        rows = pl.read_parquet(path)
        ts_us = rows["ts"].dt.cast_time_unit("us").to_physical().to_numpy()
        assert settlement_intervals_hours(ts_us).tolist() == rows["interval_hours"].to_list(), path.name


def test_a_change_of_interval_is_no_hole():
    hours = np.array([0, 8, 16, 24, 28, 32, 36, 37, 38, 39, 40, 48, 56, 64], dtype=np.int64)
    told = settlement_intervals_hours(hours * HOUR_US)
    assert told.tolist() == [8, 8, 8, 8, 4, 4, 4, 1, 1, 1, 1, 8, 8, 8]
    assert missing_settlements(hours * HOUR_US, told).tolist() == [0] * len(hours)
    holed = np.delete(hours, [2, 8, 9])
    told = settlement_intervals_hours(holed * HOUR_US)
    assert missing_settlements(holed * HOUR_US, told).sum() >= 1


# --------------------------------------------------------------------------------------------------------------- bars


def test_bars_that_repeat_with_volume_are_a_dead_feed(tmp_path):
    rows = healthy()[SPOT]
    row = pl.int_range(pl.len())
    last = [pl.when(row.is_between(301, 372)).then(pl.col(name).gather(300)).otherwise(pl.col(name)).alias(name)
            for name in rows.columns if name != "ts"]  # fmt: skip
    frozen = rows.with_columns(last)
    root = folder(tmp_path, spot=frozen)
    with pytest.raises(DataError, match="72 bars in a row in which nothing happened"):
        run(root)
    clean = run(root, "clean")
    (found,) = findings(clean, "dead feed")
    assert (found["rows"], found["first_row"]) == (72, 301)
    assert clean.manifest["counts"]["missing_bars"]["spot:binance:BTC-USDT"] == 72


def test_a_leg_without_one_usable_bar_is_refused_in_clean_mode_too(tmp_path):
    nothing = healthy()[SPOT].with_columns(close=pl.lit(float("nan")))
    with pytest.raises(DataError, match="no usable row is left: all 720 are bad"):
        run(folder(tmp_path / "nan", spot=nothing), "clean")
    wrong = healthy()[SPOT].with_columns(pl.col("open", "high", "low", "close") * 1000)
    for mode in ("strict", "clean"):
        with pytest.raises(DataError, match="times off what trades beside it|no usable row is left"):
            run(folder(tmp_path / mode, spot=wrong), mode)


@pytest.mark.parametrize("hours", [1, -1])
def test_bars_stamped_by_their_close_are_refused(tmp_path, hours):
    moved = healthy()[PERP].with_columns(pl.col("ts") + pl.duration(hours=hours))
    for mode in ("strict", "clean"):
        with pytest.raises(DataError, match="bars are stamped one step (late|early) beside spot/binance/BTC-USDT"):
            run(folder(tmp_path / mode, perp=moved), mode)


def test_a_fall_of_both_legs_is_no_spike(tmp_path):
    def crashed(name):
        return healthy()[name].with_columns(
            pl.when(pl.int_range(pl.len()) >= 400).then(pl.col(column) * 0.4).otherwise(pl.col(column)).alias(column)
            for column in ("open", "high", "low", "close")
        )

    assert findings(run(folder(tmp_path, spot=crashed(SPOT), perp=crashed(PERP))), "spike") == []


def test_of_two_legs_that_disagree_the_one_that_moved_is_taken_out(tmp_path):
    rows = healthy()[PERP]
    wrong = [k in (200, 201, 350) for k in range(len(rows))]
    spiked = rows.with_columns(
        pl.when(pl.Series(wrong)).then(pl.col(column) / 8).otherwise(pl.col(column)).alias(column)
        for column in ("open", "high", "low", "close")
    )
    clean = run(folder(tmp_path, perp=spiked), "clean")
    (found,) = findings(clean, "spike")
    assert (found["series"], found["rows"], found["first_row"]) == (PERP, 3, 200)
    assert found["first_ts"] == row_ts(200).isoformat()


@pytest.mark.parametrize(
    ("symbol", "known"),
    [("1000PEPE-USDT", ("PEPE", 1000.0)), ("kPEPE-USDC", ("PEPE", 1000.0)), ("UBTC-USDC", ("BTC", 1.0)),
     ("XBT-USD", ("BTC", 1.0)), ("KAS-USDT", ("KAS", 1.0)), ("BTC-USDT", ("BTC", 1.0))],
)  # fmt: skip
def test_coins_are_known_under_their_other_names(symbol, known):
    assert base_and_scale(symbol) == known


def test_a_fifo_or_folder_in_the_place_of_a_file_is_refused_at_once(tmp_path):
    root = folder(tmp_path)
    file_of(root, SPOT).unlink()
    os.mkfifo(file_of(root, SPOT))
    with pytest.raises(DataError, match="it is no file"):
        run(root)


def test_an_interval_of_zero_hours_is_refused():
    rows = healthy()[FUNDING].with_columns(
        pl.col("ts").cast(pl.Datetime("us", "UTC")), interval_hours=pl.lit(0, dtype=pl.Int32)
    )
    (first, *_), _ = zip(*value_findings(rows, key=SeriesKey("funding", "binance", "BTC-USDT")), strict=True)
    assert (first.column, first.rows, first.refused("clean")) == ("interval_hours", len(rows), True)


# ---------------------------------------------------------------------------------------------------------- real data


def test_the_traps_of_the_real_folder_are_found():
    found = audit(real_market())

    def of(series, rule):
        return found.filter(pl.col("series") == series, pl.col("rule") == rule)["rows"].to_list()

    assert of("spot/binance/BTC-USDT", "hole") == [14]
    assert of("perp/okx/ETH-USDT", "hole") == [2 * 720]
    assert of("funding/okx/BTC-USDT", "missing settlements") == [31 * 3 + 13 * 3]
    assert of("spot/hyperliquid/UETH-USDC", "spike") != []
    assert of("spot/hyperliquid/UBTC-USDC", "spike") != []
    assert of("perp/hyperliquid/PURR-USDC", "no trade") == [7]
    assert of("perp/hyperliquid/FARTCOIN-USDC", "spike") == []
    refused = found.filter(pl.col("severity") == "refused", pl.col("series").str.contains("binance|bybit"))
    assert refused.is_empty()


def test_a_hole_in_real_funding_is_refused_only_where_the_run_meets_it():
    key = SeriesKey("funding", "okx", "BTC-USDT")
    july, september = 1_719_792_000_000_000, 1_725_148_800_000_000
    assert read_series(real_market(), key, start_us=july, end_us=july + 20 * 24 * HOUR_US).frame.height == 60
    with pytest.raises(DataError, match="settlements are missing in 1 hole"):
        read_series(real_market(), key, start_us=july, end_us=september + 5 * 24 * HOUR_US)


def test_an_instrument_of_the_universe_reads_as_a_series():
    rows = pl.read_parquet(real_market() / "funding_universe" / "okx.parquet").filter(
        pl.col("instrument") == "1INCH-USDT-SWAP"
    )
    read = read_series(real_market(), SeriesKey("funding", "okx", "1INCH-USDT"), checks="clean")
    assert read.frame["rate"].to_list() == rows["rate"].to_list()
    assert read.frame["ts"].to_list() == rows["ts"].to_list()


def test_a_series_in_parts_reads_as_one(tmp_path):
    rows = healthy()[SPOT]
    root = folder(tmp_path)
    whole = read_series(root, SeriesKey("spot", "binance", "BTC-USDT")).frame
    file_of(root, SPOT).unlink()
    for month, part in enumerate((rows[:300], rows[300:500], rows[500:])):
        write(root, f"{SPOT}/part={month}/data", part)
    assert read_series(root, SeriesKey("spot", "binance", "BTC-USDT")).frame.equals(whole)
    assert run(root).metrics.equals(run(folder(tmp_path / "whole")).metrics)


def test_a_run_tells_that_an_input_is_not_what_the_catalogue_met(tmp_path):
    root = folder(tmp_path)
    assert run(root).manifest["flags"] == run(root).manifest["flags"]
    catalogue(root)
    assert not [flag for flag in run(root).manifest["flags"] if flag.startswith("input changed")]
    write(root, SPOT, healthy()[SPOT].with_columns(pl.col("volume") + 1.0))
    (flag,) = [flag for flag in run(root).manifest["flags"] if flag.startswith("input changed")]
    assert "spot/binance/BTC-USDT.parquet was replaced" in flag
