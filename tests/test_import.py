"""Importing: real bytes of Binance and of home-made files, the round trip of real series, repeats and conflicts."""

import csv
import io
import json
import os
import random
import struct
import tempfile
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import real_market
from vision import export_vision, funding_csv, kline_csv, write_zip, zip_bytes

from basis_bt.cli.data_import import command
from basis_bt.core.errors import ConfigError, DataError
from basis_bt.market import importing
from basis_bt.market.import_report import ImportReport
from basis_bt.market.importers.base import Options, Source
from basis_bt.market.importers.cells import read_columns
from basis_bt.market.importing import import_sources
from basis_bt.market.merging import merge
from basis_bt.market.schemas import TS, SeriesKey, key_of_path
from basis_bt.market.write import covered_spans_us, write_series

HOUR_US = 3_600_000_000
START = datetime(2024, 1, 1, tzinfo=UTC)
ASOF = "2026-07-04T16:00:00Z"


def raw(name: str) -> Path:
    return real_market().parent / "raw" / name


def bars(n: int = 48, *, start: datetime = START, step_hours: float = 1.0, seed: int = 7) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    close = 40_000.0 + np.cumsum(rng.normal(0, 50, n)).round(2)
    open_ = np.concatenate([[40_000.0], close[:-1]])
    return pl.DataFrame(
        {
            "ts": pl.Series([start + timedelta(hours=step_hours * i) for i in range(n)]).cast(pl.Datetime("ms", "UTC")),
            "open": open_,
            "high": np.maximum(open_, close) + 1.25,
            "low": np.minimum(open_, close) - 1.25,
            "close": close,
            "volume": rng.integers(1, 10**6, n) / 1000,
        }
    )


def funding(n: int = 12, *, hours: int = 8, start: datetime = START) -> pl.DataFrame:
    ts = pl.Series([start + timedelta(hours=hours * i) for i in range(n)]).cast(pl.Datetime("ms", "UTC"))
    rates = [round(0.0001 + 0.00001 * i, 8) for i in range(n)]
    return pl.DataFrame({"ts": ts, "rate": rates, "interval_hours": pl.Series([hours] * n, dtype=pl.Int32)})


def read(root: Path, path: str) -> pl.DataFrame:
    return pl.read_parquet(root / f"{path}.parquet")


def same_bits(left: pl.DataFrame, right: pl.DataFrame) -> bool:
    """Equal instants, and floats equal bit by bit (so that -0.0 is not 0.0)."""
    if set(left.columns) != set(right.columns) or len(left) != len(right):
        return False
    for name in left.columns:
        a, b = left[name], right[name]
        if isinstance(a.dtype, pl.Datetime):
            a, b = (side.dt.cast_time_unit("us").to_physical() for side in (a, b))
        if a.dtype != b.dtype or not np.array_equal(a.to_numpy().view(np.uint8), b.to_numpy().view(np.uint8)):
            return False
    return True


def statuses(report: ImportReport) -> set[str]:
    return {row.status for row in report.rows}


def state(root: Path) -> dict[str, tuple[bytes, int]]:
    return {p.as_posix(): (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(root.rglob("*")) if p.is_file()}


# ------------------------------------------------------------------------------------------------- real bytes


RAW = [
    ("binance_vision", Options(), None, {"perp/binance/BTC-USDT": 24, "spot/binance/BTC-USDT": 24}),
    ("binance_vision_headerless", Options(), None, {"spot/binance/ADA-BTC": 10}),
    ("binance_api_csv", Options(), None,
     {"funding/binance/BTC-USDT": 4383, "perp/binance/BTC-USDT": 1461, "spot/binance/BTC-USDT": 1461}),
    ("scraped_csv", Options(), "new",
     {"funding/binance/BTC-USDT": 1914, "perp/binance/BTC-USDT": 14967, "funding/bybit/BTC-USDT": 1914,
      "spot/bybit/BTC-USDT": 15312, "funding/okx/BTC-USDT": 1353}),
]  # fmt: skip


@pytest.mark.parametrize(("folder", "options", "prefer", "expected"), RAW, ids=[case[0] for case in RAW])
def test_every_real_file_is_imported_and_a_second_import_changes_nothing(tmp_path, folder, options, prefer, expected):
    files = [path for path in raw(folder).rglob("*") if path.is_file()]
    report = import_sources([raw(folder)], tmp_path, options=options, prefer=prefer)
    assert statuses(report) == {"imported"}
    assert len({row.source.split(".zip/")[0] for row in report.rows}) == len(files)
    assert {path: len(read(tmp_path, path)) for path in expected} == expected
    assert sorted(report.written) == sorted(f"{path}.parquet" for path in expected)
    before = state(tmp_path)
    again = import_sources([raw(folder)], tmp_path, options=options, prefer=prefer)
    assert statuses(again) == {"unchanged"}
    assert again.written == []
    assert state(tmp_path) == before


def test_vision_klines_hold_the_cells_of_the_archive(tmp_path):
    import_sources([raw("binance_vision")], tmp_path)
    archive = next(raw("binance_vision").rglob("*um*/**/*.zip"))
    with zipfile.ZipFile(archive) as opened:
        rows = list(csv.reader(io.StringIO(opened.read(opened.namelist()[0]).decode())))[1:]
    expected = [(int(row[0]), *map(float, row[1:6])) for row in rows]
    found = read(tmp_path, "perp/binance/BTC-USDT").with_columns(pl.col("ts").dt.epoch("ms"))
    assert found.columns == ["ts", "open", "high", "low", "close", "volume"]
    assert found.rows() == expected


def test_the_first_issue_of_a_real_archive_disagrees_with_the_market_in_the_two_bars_that_were_mended(tmp_path):
    """The venue's outage of 2024-10-28 20:00: the archive of that day has an idle bar there, and was replaced later."""
    there = read(real_market(), "perp/binance/BTC-USDT")
    write_series(tmp_path, SeriesKey("perp", "binance", "BTC-USDT"), there)
    before = state(tmp_path)
    report = import_sources([next(raw("binance_vision").rglob("*um*/**/*.zip"))], tmp_path)
    row = report.rows[0]
    assert (row.status, row.rows, row.equal) == ("conflict", 24, 22)
    assert "2 stamps with two values: 2024-10-28T20:00:00+00:00" in row.sentence
    assert state(tmp_path) == before


def test_funding_of_the_api_keeps_jitter_marks_and_gets_its_interval(tmp_path):
    import_sources([raw("binance_api_csv") / "funding_BTCUSDT_20210101_20241231.csv"], tmp_path)
    found = read(tmp_path, "funding/binance/BTC-USDT")
    assert found["ts"][0] == datetime(2021, 1, 1, 0, 0, 0, 2000, tzinfo=UTC)
    assert found["rate"][:3].to_list() == [0.00022753, 0.00026336, 0.00034457]
    assert found["mark_price"][0] is None
    assert found["mark_price"][-2:].to_list() == [92819.5, 95389.4]
    assert found["interval_hours"].unique().to_list() == [8]
    assert found["interval_hours"].null_count() == 0


SNAPSHOTS = ("fapi-v1-fundingInfo.json", "fapi-v1-premiumIndex.json", "sapi-v1-margin-crossMarginData.json")


def test_every_row_of_the_json_snapshots_is_read_or_counted():
    folder = raw("binance_api_json")
    report = import_sources([folder], "never written", options=Options(asof=ASOF), dry_run=True)
    assert statuses(report) == {"imported"}
    for name in SNAPSHOTS:
        said = next(row.sentence for row in report.rows if row.source == name)
        left_out = sum(int(part.split(" symbols")[0]) for part in said.split("; ") if " symbols " in part)
        read_rows = sum(row.rows for row in report.rows if row.source == name)
        assert read_rows + left_out == len(json.loads((folder / name).read_bytes())), name
    assert not Path("never written").exists()


def test_snapshots_become_terms_estimates_and_borrow_rates(tmp_path):
    wanted = ("LPTUSDT", "BTCUSDT", "BTCUSD_PERP", "HIFIUSDT", "AGLD", "ETH")
    rows = {}
    for name in SNAPSHOTS:
        answer = json.loads((raw("binance_api_json") / name).read_bytes())
        rows[name] = {row.get("symbol", row.get("coin")): row for row in answer}
        kept = [row for label, row in rows[name].items() if label in wanted]
        (tmp_path / name).write_text(json.dumps(kept))
    undated = import_sources([tmp_path / SNAPSHOTS[2]], tmp_path / "m")
    assert statuses(undated) == {"failed"}
    assert "--asof" in undated.rows[0].sentence
    info, index, margin = (rows[name] for name in SNAPSHOTS)
    import_sources([tmp_path / name for name in SNAPSHOTS], tmp_path / "m", options=Options(asof=ASOF))
    terms = read(tmp_path / "m", "funding_terms/binance/LPT-USDT").with_columns(pl.col("ts").dt.epoch("ms"))
    assert terms.rows() == [(info["LPTUSDT"]["updateTime"], 4, 0.02, -0.02)]
    undated_terms = read(tmp_path / "m", "funding_terms/binance_cm/BTC-USD")
    assert info["BTCUSD_PERP"]["updateTime"] is None
    assert undated_terms["ts"].to_list() == [datetime(2026, 7, 4, 16, tzinfo=UTC)]
    told = read(tmp_path / "m", "predicted/binance/BTC-USDT").with_columns(pl.col("ts", "settlement_ts").dt.epoch("ms"))
    row = index["BTCUSDT"]
    assert told.rows() == [(row["time"], float(row["lastFundingRate"]), row["nextFundingTime"])]
    assert index["HIFIUSDT"]["nextFundingTime"] == 0
    assert not (tmp_path / "m" / "predicted" / "binance" / "HIFI-USDT.parquet").exists()
    rate = read(tmp_path / "m", "borrow/binance/AGLD")
    assert rate.rows() == [(datetime(2026, 7, 4, 16, tzinfo=UTC), float(margin["AGLD"]["yearlyInterest"]))]


def test_wrong_column_of_the_scraped_okx_file_is_a_conflict_that_shows_both_values(tmp_path):
    report = import_sources([raw("scraped_csv")], tmp_path)
    bad = [row for row in report.rows if row.status == "conflict"]
    assert [row.series for row in bad] == ["funding/okx/BTC-USDT"]
    assert "210 stamps" in bad[0].sentence
    assert "2025-03-29T00:00:00+00:00 rate 0.0001" in bad[0].sentence
    assert "-2.91725644984e-05" in bad[0].sentence
    assert not (tmp_path / "funding" / "okx").exists()
    assert (tmp_path / "spot" / "bybit" / "BTC-USDT.parquet").is_file()
    duplicates = [row for row in report.rows if row.series == "spot/bybit/BTC-USDT"]
    assert [(row.rows, row.new, row.dropped) for row in duplicates] == [(15327, 15312, 15)]


@pytest.mark.parametrize("series", ["spot", "perp", "mark", "funding"])
def test_every_real_series_in_the_vision_layout_comes_back_to_the_bit(tmp_path, series):
    """Those of Binance in one tree, as the archive has them; the others one by one, under a borrowed symbol."""
    kept = {}
    for path in sorted((real_market() / series).rglob("*.parquet")):
        key, frame = key_of_path(path.relative_to(real_market()).as_posix()), pl.read_parquet(path)
        folder = tmp_path / (key.venue if key.venue == "binance" else path.stem + key.venue)
        native = key.symbol.replace("-", "").upper()
        product, unit = ("spot", "us") if series == "spot" else ("um", "ms")
        export_vision(folder, series, native, frame, product=product, unit=unit)
        kept[key.stem] = frame
        if key.venue != "binance":
            options = Options(venue=key.venue, symbol=key.symbol)
            assert statuses(import_sources([folder], tmp_path / "market", options=options)) == {"imported"}
    assert statuses(import_sources([tmp_path / "binance"], tmp_path / "market")) == {"imported"}
    assert kept
    for stem, frame in kept.items():
        assert same_bits(read(tmp_path / "market", stem), frame), stem


# ------------------------------------------------------------------------------------------------------- Vision


def test_spot_months_in_milliseconds_and_in_microseconds_join(tmp_path):
    older, newer = bars(744, start=datetime(2024, 12, 1, tzinfo=UTC)), bars(72, start=datetime(2025, 1, 1, tzinfo=UTC))
    export_vision(tmp_path / "v", "spot", "ETHUSDT", older, product="spot", unit="ms")
    export_vision(tmp_path / "v", "spot", "ETHUSDT", newer, product="spot", unit="us", period="daily")
    report = import_sources([tmp_path / "v"], tmp_path / "m")
    assert [row.new for row in report.rows] == [24, 24, 24, 744]
    assert report.ignored == {"checksum": 4}
    assert same_bits(read(tmp_path / "m", "spot/binance/ETH-USDT"), pl.concat([older, newer]))


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("period", ["daily", "monthly"])
def test_coin_margined_volume_is_coins_and_not_contracts(tmp_path, header, period):
    frame = bars()
    export_vision(tmp_path / "v", "perp", "BTCUSD_PERP", frame, product="cm", header=header, period=period)
    export_vision(tmp_path / "v", "perp", "BTCUSD_241227", frame, product="cm", header=header, period=period)
    export_vision(tmp_path / "v", "perp", "ETHUSDT_241227", frame, product="um", header=header, period=period)
    export_vision(tmp_path / "v", "index", "BTCUSD", frame.drop("volume"), product="cm", header=header, period=period)
    import_sources([tmp_path / "v"], tmp_path / "m")
    assert same_bits(read(tmp_path / "m", "perp/binance_cm/BTC-USD"), frame)
    assert same_bits(read(tmp_path / "m", "future/binance_cm/BTC-USD-20241227"), frame)
    assert same_bits(read(tmp_path / "m", "future/binance/ETH-USDT-20241227"), frame)
    assert same_bits(read(tmp_path / "m", "index/binance_cm/BTC-USD"), frame.drop("volume"))


@pytest.mark.parametrize("series", ["mark", "index", "premium"])
def test_klines_without_trades_have_no_volume_and_premium_may_be_negative(tmp_path, series):
    frame = bars().drop("volume")
    if series == "premium":
        frame = frame.with_columns((pl.col(name) - 40_000) / 1e6 for name in ("open", "high", "low", "close"))
        assert frame["low"].min() < 0
    export_vision(tmp_path / "v", series, "BTCUSDT", frame, product="um")
    import_sources([tmp_path / "v"], tmp_path / "m")
    assert same_bits(read(tmp_path / "m", f"{series}/binance/BTC-USDT"), frame)


def test_a_path_or_an_option_says_what_a_bare_kline_file_is(tmp_path, monkeypatch):
    data = kline_csv(bars(), step_us=HOUR_US, header=False)
    loose = tmp_path / "BTCUSDT-1h-2024-01.csv"
    loose.write_bytes(data)
    asked = import_sources([loose], tmp_path / "m")
    assert statuses(asked) == {"failed"}
    assert "--series spot or --series perp" in asked.rows[0].sentence
    assert not (tmp_path / "m").exists()
    for kind in ("spot", "perp"):
        import_sources([loose], tmp_path / "m", options=Options(series=kind))
        assert same_bits(read(tmp_path / "m", f"{kind}/binance/BTC-USDT"), bars())
    under = tmp_path / "data" / "spot" / "monthly" / "klines" / "BTCUSDT" / "1h"
    write_zip(under / "BTCUSDT-1h-2024-01.zip", data)
    one = import_sources([under / "BTCUSDT-1h-2024-01.zip"], tmp_path / "n")
    assert one.rows[0].series == "spot/binance/BTC-USDT"
    monkeypatch.chdir(under)
    assert import_sources(["."], tmp_path / "n").rows[0].status == "unchanged"
    crypto = tmp_path / "ETHBTC-1h-2024-01.csv"
    crypto.write_bytes(data)
    assert statuses(import_sources([crypto], tmp_path / "o")) == {"failed"}, "ETHBTC is a pair and a perp"


def test_bare_klines_without_any_volume_ask_what_they_are(tmp_path):
    loose = tmp_path / "um" / "BTCUSDT-1h-2024-01.csv"
    loose.parent.mkdir()
    loose.write_bytes(kline_csv(bars().drop("volume"), step_us=HOUR_US, header=True))
    report = import_sources([tmp_path], tmp_path / "m")
    assert "--series" in report.rows[0].sentence
    done = import_sources([loose], tmp_path / "m", options=Options(series="mark"))
    assert [row.series for row in done.rows] == ["mark/binance/BTC-USDT"]


def test_funding_files_bring_their_interval(tmp_path):
    frame = pl.concat([funding(6), funding(6, hours=4, start=START + timedelta(hours=44))])
    for header in (True, False):
        data = funding_csv(frame, header=header)
        (tmp_path / "BTCUSD_PERP-fundingRate-2024-01.csv").write_bytes(data)
        (tmp_path / "BTCUSDT-fundingRate-2024-01.csv").write_bytes(data)
        import_sources([tmp_path / "BTCUSDT-fundingRate-2024-01.csv"], tmp_path / f"{header}")
        import_sources([tmp_path / "BTCUSD_PERP-fundingRate-2024-01.csv"], tmp_path / f"{header}")
        assert same_bits(read(tmp_path / f"{header}", "funding/binance/BTC-USDT"), frame)
        assert same_bits(read(tmp_path / f"{header}", "funding/binance_cm/BTC-USD"), frame)


def test_book_tickers_keep_the_last_update_of_a_stamp(tmp_path):
    text = (
        "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time\n"
        "11,100.1,5.0,100.2,7.0,1704067200001,1704067200003\n"
        "13,100.3,6.0,100.4,8.0,1704067200002,1704067200004\n"
        "12,100.2,5.5,100.3,7.5,1704067200002,1704067200004\n"
    )
    (tmp_path / "BTCUSDT-bookTicker-2024-01-01.csv").write_text(text)
    report = import_sources([tmp_path / "BTCUSDT-bookTicker-2024-01-01.csv"], tmp_path)
    assert "1 earlier updates" in report.rows[0].sentence
    found = read(tmp_path, "quotes/perp/binance/BTC-USDT").with_columns(pl.col("ts").dt.epoch("ms"))
    assert found.rows() == [(1704067200001, 100.1, 5.0, 100.2, 7.0), (1704067200002, 100.3, 6.0, 100.4, 8.0)]


TRADES = [
    ("spot", "trades", "51175358,17.8,5.69,101.2,1735689600010866,True,True\n", ("51175358", 17.8, 5.69, True), 866),
    ("spot", "aggTrades", "0,0.2,50.0,0,0,1735689600010866,False,True\n", ("a0", 0.2, 50.0, False), 866),
    ("um", "aggTrades", "26129,0.0163,4.7,27781,27782,1735689600010,true\n", ("a26129", 0.0163, 4.7, True), 0),
    ("um", "trades", "id,price,qty,quote_qty,time,is_buyer_maker\n28457,4.5,12.0,48.0,1735689600010,false\n",
     ("28457", 4.5, 12.0, False), 0),
]  # fmt: skip


@pytest.mark.parametrize(("product", "kind", "text", "row", "microseconds"), TRADES)
def test_trades_of_every_layout_are_read(tmp_path, product, kind, text, row, microseconds):
    folder = tmp_path / "data" / (product if product == "spot" else f"futures/{product}") / "daily" / kind / "BTCUSDT"
    write_zip(folder / f"BTCUSDT-{kind}-2025-01-01.zip", text.encode())
    import_sources([tmp_path / "data"], tmp_path / "m")
    found = read(tmp_path / "m", f"trades/{'spot' if product == 'spot' else 'perp'}/binance/BTC-USDT")
    assert found.drop("ts").rows() == [row]
    assert found["ts"][0] == datetime(2025, 1, 1, 0, 0, 0, 10_000 + microseconds, tzinfo=UTC)


def test_single_and_aggregated_trades_are_not_mixed(tmp_path):
    for _, kind, text, _, _ in TRADES[:2]:
        folder = tmp_path / "data" / "spot" / "daily" / kind / "BTCUSDT"
        write_zip(folder / f"BTCUSDT-{kind}-2025-01-01.zip", text.encode())
    report = import_sources([tmp_path / "data"], tmp_path / "m")
    assert statuses(report) == {"failed"}
    assert "aggregated" in report.rows[0].sentence


def test_decimal_text_becomes_the_float_that_python_reads():
    rng = random.Random(5)
    values = [struct.unpack("d", struct.pack("Q", rng.getrandbits(64)))[0] for _ in range(20_000)]
    values = [value for value in values if value == value and abs(value) != float("inf")]
    values += [rng.uniform(0, 10 ** rng.randint(-8, 8)) for _ in range(20_000)]
    texts = [repr(value) for value in values] + [f"{value:.25f}" for value in values if 1e-9 < abs(value) < 1e9]
    source = Source(path=Path("x.csv"), name="x.csv", data="".join(f"1,{text}\n" for text in texts).encode())
    found = read_columns(source, {"x": (1, pl.Float64())}, n_cells=2, header=False)["x"]
    expected = np.array([float(text) for text in texts])
    assert np.array_equal(found.to_numpy().view(np.int64), expected.view(np.int64))


# ----------------------------------------------------------------------------------------- repeats and conflicts


def exported(folder: Path, frame: pl.DataFrame, *, period: str = "monthly") -> Path:
    export_vision(folder, "perp", "BTCUSDT", frame, product="um", period=period)
    return folder


def test_overlaps_that_agree_join_and_are_counted(tmp_path):
    whole = bars(96)
    import_sources([exported(tmp_path / "a", whole[:60])], tmp_path / "m")
    report = import_sources([exported(tmp_path / "b", whole[24:], period="daily")], tmp_path / "m")
    assert [(row.new, row.equal, row.status) for row in report.rows] == [
        (0, 24, "unchanged"), (12, 12, "imported"), (24, 0, "imported")
    ]  # fmt: skip
    assert same_bits(read(tmp_path / "m", "perp/binance/BTC-USDT"), whole)


def test_a_conflict_with_the_folder_leaves_the_file_as_it_was(tmp_path):
    whole = bars(48)
    changed = whole.with_columns(close=pl.when(pl.int_range(48) == 30).then(pl.col("close") + 0.5).otherwise("close"))
    import_sources([exported(tmp_path / "a", whole)], tmp_path / "m")
    before = state(tmp_path / "m")
    more = pl.concat([changed, bars(2, start=START + timedelta(hours=48))])
    source = exported(tmp_path / "b", more)
    report = import_sources([source], tmp_path / "m")
    row = report.rows[0]
    assert (row.status, row.equal, report.written) == ("conflict", 47, [])
    for text in ("1 stamps", "2024-01-02T06:00:00+00:00 close", str(whole["close"][30]), str(changed["close"][30])):
        assert text in row.sentence
    assert state(tmp_path / "m") == before
    old = import_sources([source], tmp_path / "m", prefer="old")
    assert (old.rows[0].new, old.rows[0].status) == (2, "imported")
    assert read(tmp_path / "m", "perp/binance/BTC-USDT")["close"][30] == whole["close"][30]
    new = import_sources([source], tmp_path / "m", prefer="new")
    assert "1 rows in conflict: the new ones stand" in new.rows[0].sentence
    assert same_bits(read(tmp_path / "m", "perp/binance/BTC-USDT"), more)


def test_a_conflict_stops_its_own_series_only(tmp_path):
    exported(tmp_path / "a", bars(48))
    exported(tmp_path / "b", bars(48, seed=8))
    export_vision(tmp_path / "a", "funding", "BTCUSDT", funding(), product="um")
    report = import_sources([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    assert [(row.series, row.status) for row in report.rows if row.series] == [
        ("funding/binance/BTC-USDT", "imported"),
        ("perp/binance/BTC-USDT", "conflict"),
        ("perp/binance/BTC-USDT", "conflict"),
    ]
    assert report.written == ["funding/binance/BTC-USDT.parquet"]


def test_a_small_buffer_writes_the_same(tmp_path, monkeypatch):
    source = exported(tmp_path / "v", bars(24 * 70))
    export_vision(source, "perp", "ETHUSDT", bars(24 * 70, seed=3), product="um")
    import_sources([source], tmp_path / "big")
    monkeypatch.setattr(importing, "BUFFER_BYTES", 10_000)
    import_sources([source], tmp_path / "small")
    for name in ("BTC-USDT", "ETH-USDT"):
        path = f"perp/binance/{name}.parquet"
        assert (tmp_path / "big" / path).read_bytes() == (tmp_path / "small" / path).read_bytes()


def test_settlements_within_a_minute_are_one(tmp_path):
    frame = funding()
    write_series(tmp_path, SeriesKey("funding", "binance", "BTC-USDT"), frame)
    late = frame.with_columns(pl.col("ts").cast(TS) + pl.duration(milliseconds=7))
    rows = "".join(f"BTCUSDT,{ts.isoformat()},{rate!r},\n" for ts, rate in late.select("ts", "rate").rows())
    api = tmp_path / "funding.csv"
    api.write_text("symbol,funding_time,funding_rate,mark_price\n" + rows)
    before = state(tmp_path / "funding")
    report = import_sources([api], tmp_path)
    assert (report.rows[0].equal, report.rows[0].status) == (12, "unchanged")
    assert state(tmp_path / "funding") == before
    api.write_text(api.read_text().replace(repr(frame["rate"][3]), "0.00077"))
    report = import_sources([api], tmp_path)
    assert report.rows[0].status == "conflict"
    assert "rate 0.00013 in the market folder and 0.00077 in funding.csv" in report.rows[0].sentence


def test_intervals_are_told_by_stamps_where_none_is_given_and_told_again_with_more(tmp_path):
    stamps = [0, 8, 16, 40, 44, 48, 52]

    def write(hours: list[int]) -> Path:
        path = tmp_path / "okx_funding.csv"
        rows = "".join(f"{(START + timedelta(hours=h)).isoformat()},0.0001,BTCUSDT,okx\n" for h in hours)
        path.write_text("funding_timestamp,funding_rate,symbol,source\n" + rows)
        return path

    def intervals() -> list[int | None]:
        frame = read(tmp_path, "funding/okx/BTC-USDT")
        return frame["interval_hours"].to_list() if "interval_hours" in frame.columns else [None] * len(frame)

    import_sources([write(stamps[:1])], tmp_path)
    assert intervals() == [None]
    import_sources([write(stamps)], tmp_path)
    assert intervals() == [8, 8, 8, 8, 4, 4, 4], "the first one after a hole takes the interval before it"
    import_sources([write([24, 28, 32, 36])], tmp_path)
    assert intervals() == [8, 8, 8, 8, 4, 4, 4, 4, 4, 4, 4]


def test_a_given_interval_wins_over_the_stamps(tmp_path):
    frame = funding(6).with_columns(interval_hours=pl.Series([8, 8, 8, 4, 8, 8], dtype=pl.Int32))
    export_vision(tmp_path / "v", "funding", "BTCUSDT", frame, product="um")
    for _ in range(2):
        import_sources([tmp_path / "v"], tmp_path / "m")
        assert same_bits(read(tmp_path / "m", "funding/binance/BTC-USDT"), frame)


def test_bars_of_two_steps_are_not_mixed(tmp_path):
    hourly, daily = bars(72), bars(3, step_hours=24)
    export_vision(tmp_path / "v", "perp", "BTCUSDT", hourly, product="um")
    export_vision(tmp_path / "v", "perp", "BTCUSDT", daily, product="um", step_us=24 * HOUR_US, period="daily")
    mixed = import_sources([tmp_path / "v"], tmp_path / "m")
    assert statuses(mixed) == {"failed"}
    assert "1h, 1d" in mixed.rows[0].sentence
    assert "--bar" in mixed.rows[0].sentence
    chosen = import_sources([tmp_path / "v"], tmp_path / "m", bar=1)
    assert statuses(chosen) == {"imported", "skipped"}
    assert same_bits(read(tmp_path / "m", "perp/binance/BTC-USDT"), hourly)
    late = import_sources([tmp_path / "v"], tmp_path / "m")
    assert {row.status for row in late.rows if "/1d/" in row.source} == {"failed"}, "one bar a file: its name tells"
    assert "perp/binance/BTC-USDT holds 1h" in late.rows[0].sentence
    both = tmp_path / "two_BTCUSDT_perp.csv"
    halves = pl.concat([bars(48), bars(40, start=START + timedelta(hours=48), step_hours=0.5)])
    both.write_bytes(kline_csv(halves, step_us=HOUR_US, header=True))
    told = import_sources([both], tmp_path / "n", options=Options(symbol="BTC-USDT", series="perp"))
    assert "bars of two steps" in told.rows[0].sentence


def test_bars_on_another_clock_are_not_mixed(tmp_path):
    import_sources([exported(tmp_path / "a", bars(48))], tmp_path / "m")
    before = state(tmp_path / "m")
    half_past = bars(24, start=START + timedelta(hours=60, minutes=30))
    report = import_sources([exported(tmp_path / "b", half_past)], tmp_path / "m")
    assert statuses(report) == {"failed"}
    assert "bars of 1h open 30m after" in report.rows[0].sentence
    assert state(tmp_path / "m") == before


def test_a_remote_folder_is_a_folder():
    upath = pytest.importorskip("upath")
    with tempfile.TemporaryDirectory() as local:
        source = exported(Path(local), bars(24 * 40))
        root = upath.UPath("memory://imported/market")
        assert statuses(import_sources([source], root)) == {"imported"}
        assert statuses(import_sources([source], root)) == {"unchanged"}
        found = pl.read_parquet(io.BytesIO((root / "perp/binance/BTC-USDT.parquet").read_bytes()))
        assert same_bits(found, bars(24 * 40))


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "m").write_text("a file, no folder")
    report = import_sources([exported(tmp_path / "v", bars())], tmp_path / "m")
    assert statuses(report) == {"failed"}
    assert "cannot be" in report.rows[0].sentence


def test_values_no_market_has_are_refused_with_their_row(tmp_path):
    cases = {
        "-1.0": ("close", "above 0", -1.0),
        "high": ("high", "between low and high", 30_000.0),
        "nan": ("open", "above 0, found nan", float("nan")),
    }
    for name, (column, text, value) in cases.items():
        row = pl.int_range(48) == 17
        bad = bars().with_columns(pl.when(row).then(pl.lit(value)).otherwise(column).alias(column))
        report = import_sources([exported(tmp_path / name, bad)], tmp_path / "m")
        assert statuses(report) == {"failed"}, name
        assert "row=17" in report.rows[0].sentence
        assert text in report.rows[0].sentence
    percent = funding(120).with_columns(pl.col("rate") * 100)
    export_vision(tmp_path / "p", "funding", "BTCUSDT", percent, product="um")
    assert "percent" in import_sources([tmp_path / "p"], tmp_path / "m").rows[0].sentence
    export_vision(tmp_path / "few", "funding", "VINEUSDT", funding(12).with_columns(rate=pl.lit(0.004)), product="um")
    assert statuses(import_sources([tmp_path / "few"], tmp_path / "few market")) == {"imported"}, (
        "a squeeze is no percent"
    )
    export_vision(tmp_path / "day", "funding", "BTCUSDT", percent, product="um", period="daily")
    assert "percent" in import_sources([tmp_path / "day"], tmp_path / "m").rows[0].sentence, "days add up to a week"
    late = exported(tmp_path / "late", bars(start=datetime(2099, 1, 1, tzinfo=UTC)))
    assert "lies in the future: 2099-01-0" in import_sources([late], tmp_path / "m").rows[0].sentence
    assert not (tmp_path / "m").exists()


def test_what_was_asked_of_the_venue_is_still_in_the_file_after_an_import(tmp_path):
    key = SeriesKey("perp", "binance", "BTC-USDT")
    write_series(tmp_path / "m", key, bars(48)[:24], covered_us=[(1, 2)])
    import_sources([exported(tmp_path / "v", bars(48))], tmp_path / "m")
    assert len(read(tmp_path / "m", "perp/binance/BTC-USDT")) == 48
    assert covered_spans_us(tmp_path / "m" / key.path) == [(1, 2)]


def test_a_damaged_file_in_the_folder_is_not_written_over(tmp_path):
    path = write_series(tmp_path / "m", SeriesKey("perp", "binance", "BTC-USDT"), bars())
    data = bytearray(path.read_bytes())
    data[200] ^= 4
    path.write_bytes(data)
    report = import_sources([exported(tmp_path / "v", bars(60))], tmp_path / "m")
    assert statuses(report) == {"failed"}
    assert "damaged" in report.rows[0].sentence
    assert path.read_bytes() == data
    path.unlink()
    path.with_suffix("").mkdir()
    assert "in parts" in import_sources([tmp_path / "v"], tmp_path / "m").rows[0].sentence


# ------------------------------------------------------------------------------------------------------- merging


@st.composite
def pieces_of_rows(draw):
    row = st.tuples(st.integers(0, 6), st.sampled_from([1.0, 2.0]), st.sampled_from([None, 3.0, 4.0]))
    return draw(st.lists(st.lists(row, max_size=5), min_size=2, max_size=4))


@settings(max_examples=300, deadline=None)
@given(pieces=pieces_of_rows(), prefer=st.sampled_from([None, "new", "old"]))
def test_merging_is_what_a_dictionary_does(pieces, prefer):
    key = SeriesKey("quote_usd", "x", "USDT")
    stamps = [[START + timedelta(hours=row[0]) for row in piece] for piece in pieces]
    frames = [
        pl.DataFrame(
            {"ts": ts, "close": [r[1] for r in piece], "open": [r[2] for r in piece]},
            schema={"ts": TS, "close": pl.Float64, "open": pl.Float64},
        )
        for ts, piece in zip(stamps, pieces, strict=True)
    ]
    seen: dict[datetime, list[tuple]] = {}
    for i, (ts, piece) in enumerate(zip(stamps, pieces, strict=True)):
        for at, row in zip(ts, piece, strict=True):
            seen.setdefault(at, []).append((i, row[1], row[2]))
    clashes, expected = 0, []
    new, equal, dropped = ([0] * len(pieces) for _ in range(3))
    for at in sorted(seen):
        told = [[row[c] for row in seen[at] if row[c] is not None] for c in (1, 2)]
        clash = any(len(set(values)) > 1 for values in told)
        clashes += clash
        pick = -1 if prefer == "new" else 0
        expected.append((at, *(values[pick] if values else None for values in told)))
        new[seen[at][0][0]] += 1
        for piece, *_ in seen[at][1:]:
            if not clash:
                (dropped if piece == seen[at][0][0] else equal)[piece] += 1
    merged = merge(frames, key, prefer=prefer)
    assert merged.conflicting == clashes
    assert (merged.new, merged.equal, merged.dropped) == (new, equal, dropped)
    assert merged.frame.select("ts", "close", "open").rows() == expected


def test_book_updates_may_repeat_and_are_compared_by_span():
    key = SeriesKey("book_updates", "bybit", "BTC-USDT", "perp")
    rows = {"is_snapshot": False, "side": "b", "price": 5.0}
    first = pl.DataFrame([{"ts": START, "qty": 1.0, **rows}, {"ts": START, "qty": 1.0, **rows}])
    later = first.with_columns(pl.col("ts") + timedelta(hours=1))
    empty = pl.DataFrame(schema=key.spec.columns)
    joined = merge([empty, first, later], key)
    assert (len(joined.frame), joined.new, joined.conflicting) == (4, [0, 2, 2], 0)
    again = merge([joined.frame, first], key)
    assert (len(again.frame), again.equal, again.conflicting) == (4, [0, 2], 0)
    clash = merge([joined.frame, first.with_columns(qty=pl.lit(2.0))], key)
    assert (clash.conflicting, clash.new) == (1, [4, 0])


# --------------------------------------------------------------------------------------------------- command line


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value, result.stdout, result.stderr


def test_the_command_prints_a_table_and_says_what_failed(tmp_path):
    source = exported(tmp_path / "v", bars())
    code, out, _ = run(source, "--root", tmp_path / "m", "--dry-run")
    assert (code, (tmp_path / "m").exists()) == (0, False)
    assert "1 series would be written" in out
    code, out, _ = run(source, "--root", tmp_path / "m", "--bar", "1h")
    assert code == 0
    assert "perp/binance/BTC-USDT" in out
    assert "left alone: 1 files (checksum)" in out
    (source / "noise.bin").write_bytes(b"\x00\x01\x02")
    code, out, err = run(source, "--root", tmp_path / "m", "--format", "json")
    assert code == 0, "a file that nothing knows is reported, and no failure"
    assert {row["status"] for row in json.loads(out)} == {"unchanged", "not recognised"}
    assert "noise.bin" in err
    exported(tmp_path / "v2", bars(seed=9))
    code, _, err = run(tmp_path / "v2", "--root", tmp_path / "m", "--format", "csv")
    assert code == 1
    assert "conflict: perp/binance/BTC-USDT" in err


def test_many_sources_are_summed_by_series(tmp_path):
    source = exported(tmp_path / "v", bars(24 * 60), period="daily")
    code, out, _ = run(source, "--root", tmp_path / "m")
    assert code == 0
    assert "60 files (checksum)" in out
    lines = [line for line in out.splitlines() if line.startswith("perp/binance/BTC-USDT")]
    assert [line.split() for line in lines] == [["perp/binance/BTC-USDT", "imported", "60", "1,440", "1,440", "0", "0"]]


def test_many_series_are_summed_by_kind_and_venue(tmp_path):
    rows = "".join(f"2024-01-01T{h:02d}:00:00Z,0.0001,C{i}USDT,okx\n" for h in (0, 8, 16) for i in range(70))
    (tmp_path / "all.csv").write_text("funding_timestamp,funding_rate,symbol,source\n" + rows)
    code, out, _ = run(tmp_path / "all.csv", "--root", tmp_path / "m")
    assert code == 0
    assert "funding/okx/*  imported      70       70   210  210      0        0" in out
    assert "70 series written" in out


def test_options_that_mean_nothing_are_refused(tmp_path):
    import click

    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    for extra in (["--map", "ts"], ["--map", "ts=a", "--map", "ts=b"], ["--bar", "soon"], ["--prefer", "best"]):
        with pytest.raises(click.UsageError):
            run(tmp_path / "x.csv", "--root", tmp_path / "m", *extra)
    with pytest.raises(ConfigError, match="prefer"):
        import_sources([tmp_path], tmp_path, prefer="best")
    with pytest.raises(ConfigError, match="contract_size"):
        import_sources([tmp_path], tmp_path, options=Options(contract_size=-1.0))
    with pytest.raises(DataError, match="no such file"):
        import_sources([tmp_path / "missing"], tmp_path)


# --------------------------------------------------------------------------------------------------------- sources


def test_folders_archives_and_what_is_left_alone(tmp_path):
    import gzip

    tree = tmp_path / "tree"
    data = kline_csv(bars(24), step_us=HOUR_US, header=False)
    later = kline_csv(bars(24, start=START + timedelta(days=1), seed=8), step_us=HOUR_US, header=False)
    (tree / "spot").mkdir(parents=True)
    members = {"BTCUSDT-1h-2024-01-01.csv": data, "__MACOSX/._x": b"no", "BTCUSDT-1h-2024-01-02.csv": later}
    (tree / "spot" / "both.zip").write_bytes(zip_bytes(members))
    (tree / "spot" / "ETHUSDT-1h-2024-01-01.csv.gz").write_bytes(gzip.compress(data))
    for name in ("README", "notes.md", ".hidden.csv", "half.csv.tmp"):
        (tree / name).write_text("open_time,open\n")
    report = import_sources([tree, tree], tmp_path / "m")
    assert [(row.source, row.status) for row in report.rows] == [
        ("spot/ETHUSDT-1h-2024-01-01.csv.gz".removesuffix(".gz"), "imported"),
        ("spot/both.zip/BTCUSDT-1h-2024-01-01.csv", "imported"),
        ("spot/both.zip/BTCUSDT-1h-2024-01-02.csv", "imported"),
    ]
    assert report.ignored == {"readme": 2, "md": 2, "hidden": 2, "tmp": 2}
    assert len(read(tmp_path / "m", "spot/binance/BTC-USDT")) == 48


def test_a_bad_file_is_named_and_the_others_are_imported(tmp_path):
    tree = exported(tmp_path / "v", bars(24 * 70))
    second = sorted(tree.rglob("*.zip"))[1]
    whole = bytearray(second.read_bytes())
    whole[len(whole) // 2] ^= 1
    second.write_bytes(whole)
    report = import_sources([tree], tmp_path / "m")
    assert [row.status for row in report.rows] == ["imported", "failed", "imported"]
    assert "checksum" in report.rows[1].sentence
    second.with_name(f"{second.name}.CHECKSUM").unlink()
    report = import_sources([tree], tmp_path / "m")
    assert [row.status for row in report.rows] == ["unchanged", "failed", "unchanged"]
    assert report.rows[1].source.endswith("2024-02.zip/BTCUSDT-1h-2024-02.csv")
    assert "damaged" in report.rows[1].sentence
    for content, text in ((b"", "empty"), (bytes(whole[:500]), "cut or damaged"), (b"not a zip", "no zip")):
        second.write_bytes(content)
        failed = [row for row in import_sources([tree], tmp_path / "m").rows if row.status == "failed"]
        assert [text in row.sentence for row in failed] == [True], content
    loop = tree / "loop.csv"
    os.symlink(loop, loop)
    failed = [row for row in import_sources([tree], tmp_path / "m").rows if row.source == "loop.csv"]
    assert "cannot be read" in failed[0].sentence


def test_flipped_bits_of_an_archive_never_import_other_values(tmp_path):
    frame = bars(200)
    good = exported(tmp_path / "v", frame)
    path = next(good.rglob("*.zip"))
    path.with_name(f"{path.name}.CHECKSUM").unlink()
    whole = path.read_bytes()
    rng = random.Random(11)
    outcomes = set()
    for i in range(60):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        report = import_sources([good], tmp_path / f"m{i}")
        outcomes |= statuses(report)
        if statuses(report) == {"imported"}:
            assert len(report.written) == 1
            assert same_bits(pl.read_parquet(tmp_path / f"m{i}" / report.written[0]), frame)
    assert "failed" in outcomes


FOLDERS = ("binance_vision", "binance_vision_headerless", "binance_api_csv", "binance_api_json", "scraped_csv")


def test_mangled_files_end_in_a_row_of_the_report_and_never_in_an_exception(tmp_path):
    originals = [path for folder in FOLDERS for path in sorted(raw(folder).rglob("*")) if path.is_file()]
    rng = random.Random(23)
    seen = set()
    for i in range(150):
        original = rng.choice(originals)
        data = bytearray(original.read_bytes()[:3000])
        at = rng.randrange(len(data))
        if i % 3 == 0:
            del data[at:]
        elif i % 3 == 1:
            data[at] = rng.randrange(256)
        else:
            data[at : at + rng.randrange(40)] = bytes(rng.randrange(256) for _ in range(rng.randrange(20)))
        path = tmp_path / f"{i}-{original.name}"
        path.write_bytes(data)
        report = import_sources([path], tmp_path / "m", options=Options(asof=ASOF), dry_run=True)
        assert all(row.status and (row.sentence or row.status in ("imported", "unchanged")) for row in report.rows)
        assert report.rows
        seen |= statuses(report)
    assert {"failed", "imported"} <= seen
