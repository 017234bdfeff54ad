"""The catalogue of a market folder: what it counts, when it looks again, and the table of ``data ls``."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from polars.testing import assert_frame_equal
from realdata import real_market

import basis_bt.market.catalogue as module
from basis_bt.cli._sparkline import sparkline, step_months
from basis_bt.cli.data_ls import command
from basis_bt.core.errors import DataError
from basis_bt.market.catalogue import COLUMNS, cache_path, catalogue, changed_inputs
from basis_bt.market.schemas import SeriesKey
from basis_bt.market.write import write_series

START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BASIS_BT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def looked(monkeypatch):
    """Names of the files that were read."""
    names = []
    read = module.read_columns

    def spy(path, *args, **options):
        names.append(path.name)
        return read(path, *args, **options)

    monkeypatch.setattr(module, "read_columns", spy)
    return names


def stamps(hours):
    return pl.Series([START + timedelta(hours=hour) for hour in hours], dtype=pl.Datetime("us", "UTC"))


def bars(hours):
    return pl.DataFrame({"ts": stamps(hours)}).with_columns(open=1.0, high=1.0, low=1.0, close=1.0, volume=1.0)


def funding(hours):
    return pl.DataFrame({"ts": stamps(hours)}).with_columns(rate=1e-4)


def put(root, frame, *parts):
    path = root.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)
    return path


def row_of(root, **where):
    return catalogue(root).row(by_predicate=pl.all_horizontal(pl.col(k) == v for k, v in where.items()), named=True)


def test_bars_are_counted_with_their_holes(tmp_path):
    hours = [hour for hour in range(31 * 24 + 12) if hour not in (5, 6, 100)]
    write_series(tmp_path / "m", SeriesKey("perp", "bybit", "BTC-USDT"), bars(hours))
    row = row_of(tmp_path / "m", series="perp")
    assert (row["kind"], row["venue"], row["symbol"], row["source"]) == ("perp", "bybit", "BTC-USDT", "file")
    assert (row["rows"], row["bar_hours"], row["holes"], row["missing"]) == (len(hours), 1.0, 2, 3)
    assert (row["first"], row["last"]) == (START, START + timedelta(hours=31 * 24 + 11))
    assert row["months"] == pytest.approx([741 / 744, 12 / (29 * 24)], abs=1e-4)
    assert (row["settlements"], row["intervals"], row["error"]) == (None, None, None)


def test_funding_is_counted_by_its_own_interval(tmp_path):
    eight = list(range(0, 20 * 24, 8))
    four = list(range(20 * 24, 31 * 24, 4))
    hours = [hour for hour in eight + four if hour not in (80, 500)]
    write_series(tmp_path / "m", SeriesKey("funding", "okx", "ONDO-USDT"), funding(hours))
    row = row_of(tmp_path / "m", series="funding")
    assert (row["settlements"], row["intervals"], row["interval_changes"]) == (len(hours), "8h 4h", 1)
    assert (row["holes"], row["missing"], row["bar_hours"]) == (2, 2, None)


def test_repeated_and_unsorted_stamps_are_flagged(tmp_path):
    put(tmp_path / "m", bars([0, 1, 1, 3, 2]), "spot", "kraken", "BTC-USD.parquet")
    row = row_of(tmp_path / "m", series="spot")
    assert (row["duplicates"], row["unsorted"], row["rows"], row["missing"]) == (1, True, 5, 0)


def test_trades_of_one_instant_are_no_duplicates(tmp_path):
    trades = pl.DataFrame({"ts": stamps([0, 0, 0]), "trade_id": ["a", "b", "b"]}).with_columns(price=1.0, qty=1.0)
    put(tmp_path / "m", trades.with_columns(buyer_is_maker=True), "trades", "spot", "binance", "BTC-USDT.parquet")
    row = row_of(tmp_path / "m", series="trades")
    assert (row["kind"], row["duplicates"], row["bar_hours"], row["holes"]) == ("spot", 1, None, None)


def test_a_folder_of_parts_is_one_series(tmp_path):
    root = tmp_path / "m"
    put(root, bars(range(24)), "perp", "gate", "BTC-USDT", "2024-01-01.parquet")
    put(root, bars(range(26, 48)), "perp", "gate", "BTC-USDT", "month", "2024-01-02.parquet")
    row = row_of(root, source="folder")
    assert (row["rows"], row["holes"], row["missing"], row["path"]) == (46, 1, 2, "perp/gate/BTC-USDT")
    assert row["bytes"] == sum(path.stat().st_size for path in root.rglob("*.parquet"))


def test_a_series_in_a_file_and_in_parts_is_an_error(tmp_path):
    put(tmp_path / "m", bars(range(24)), "perp", "gate", "BTC-USDT", "a.parquet")
    put(tmp_path / "m", bars(range(24)), "perp", "gate", "BTC-USDT.parquet")
    assert catalogue(tmp_path / "m")["error"].str.contains("file and in a folder").to_list() == [True, True]


def test_a_universe_is_one_row_an_instrument(tmp_path):
    both = pl.concat([
        funding(range(0, 240, 8)).with_columns(instrument=pl.lit("BTC-USDT-SWAP")),
        funding(range(0, 120, 4)).with_columns(instrument=pl.lit("DOGE-USD-SWAP")),
    ]).sort("ts")  # fmt: skip
    put(tmp_path / "m", both, "funding_universe", "okx.parquet")
    rows = catalogue(tmp_path / "m")
    assert rows["symbol"].to_list() == ["BTC-USDT", "DOGE-USD"]
    assert rows["intervals"].to_list() == ["8h", "4h"]
    assert set(rows["source"]) == {"universe"}
    assert set(rows["series"]) == {"funding"}


def test_other_parquet_files_and_hidden_ones_are_left_out(tmp_path):
    put(tmp_path / "m", bars([0, 1]), "cost", "tiers.parquet")
    put(tmp_path / "m", bars([0, 1]), "spot", "kraken", ".BTC-USD.parquet.1.tmp.parquet")
    assert catalogue(tmp_path / "m").is_empty()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.write_bytes(b"no parquet at all"), "cannot be read as parquet"),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "cannot be read as parquet"),
        (lambda path: bars([]).write_parquet(path), "no rows"),
        (lambda path: bars([0]).rename({"ts": "time"}).write_parquet(path), "no column ts"),
        (lambda path: bars([0]).with_columns(ts=pl.lit(5)).write_parquet(path), "name their zone, found Int"),
        (lambda path: bars([0]).with_columns(pl.col("ts").dt.replace_time_zone(None)).write_parquet(path), "zone"),
        (lambda path: pl.concat([bars([0]), bars([1]).with_columns(ts=None)], how="vertical_relaxed")
         .write_parquet(path), "null (1 rows)"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_a_row_with_a_sentence(tmp_path, spoil, sentence):
    root = tmp_path / "m"
    path = put(root, bars(range(48)), "spot", "okx", "BTC-USDT.parquet")
    put(root, bars(range(48)), "spot", "okx", "ETH-USDT.parquet")
    spoil(path)
    rows = catalogue(root)
    assert rows["error"].is_null().to_list() == [False, True]
    assert sentence in rows["error"][0]
    assert rows["first"][0] is None


def test_a_flipped_bit_in_a_file_of_ours_is_an_error(tmp_path):
    path = write_series(tmp_path / "m", SeriesKey("perp", "bybit", "BTC-USDT"), bars(range(500)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert "not those that were written" in catalogue(tmp_path / "m")["error"][0]


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        catalogue(tmp_path / "nowhere")


def test_only_changed_files_are_read_again(tmp_path, looked):
    root = tmp_path / "m"
    put(root, bars(range(48)), "spot", "okx", "A-USDT.parquet")
    put(root, bars(range(48)), "spot", "okx", "B-USDT.parquet")
    first = catalogue(root)
    assert sorted(looked) == ["A-USDT.parquet", "B-USDT.parquet"]
    looked.clear()
    assert_frame_equal(catalogue(root), first)
    assert looked == []
    put(root, bars(range(50)), "spot", "okx", "B-USDT.parquet")
    assert catalogue(root)["rows"].to_list() == [48, 50]
    assert looked == ["B-USDT.parquet"]
    (root / "spot" / "okx" / "A-USDT.parquet").unlink()
    assert catalogue(root)["symbol"].to_list() == ["B-USDT"]
    looked.clear()
    assert catalogue(root, refresh=True)["rows"].to_list() == [50]
    assert looked == ["B-USDT.parquet"]


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{}",
        "[]",
        '{"version": 0, "series": {}}',
        '{"version": 1, "series": {"x": {"files": {"x": []}, "rows": 0}}}',
    ],
)
def test_a_record_that_cannot_be_used_is_made_anew(tmp_path, damage):
    root = tmp_path / "m"
    put(root, bars(range(48)), "spot", "okx", "A-USDT.parquet")
    first = catalogue(root)
    cache_path(root).write_text(damage)
    assert_frame_equal(catalogue(root), first)
    assert json.loads(cache_path(root).read_text())["version"] == module.VERSION


def test_the_market_folder_is_never_written(tmp_path):
    root = tmp_path / "m"
    path = put(root, bars(range(48)), "spot", "okx", "A-USDT.parquet")

    def state():
        return {p: (p.stat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in [root, *root.rglob("*")]}

    before = state()
    catalogue(root)
    assert state() == before
    assert root not in cache_path(root).parents
    assert path.is_file()


def test_a_home_that_cannot_be_written_costs_only_the_record(tmp_path, monkeypatch):
    root = tmp_path / "m"
    put(root, bars(range(48)), "spot", "okx", "A-USDT.parquet")
    (tmp_path / "plain").write_text("a file, no folder")
    monkeypatch.setenv("BASIS_BT_CACHE", str(tmp_path / "plain"))
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    assert len(catalogue(root)) == 1
    assert list((tmp_path / "tmp").rglob("*.json"))


def test_a_file_that_could_not_be_opened_is_tried_again(tmp_path, monkeypatch):
    root = tmp_path / "m"
    put(root, bars(range(48)), "spot", "okx", "A-USDT.parquet")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refuse)
        assert "Permission denied" in catalogue(root)["error"][0]
    assert catalogue(root)["rows"].to_list() == [48]


def test_a_universe_with_rows_of_nobody_is_an_error(tmp_path):
    rows = funding(range(0, 96, 8)).with_columns(instrument=pl.lit("BTC-USDT-SWAP"))
    put(tmp_path / "m", pl.concat([rows, rows.with_columns(instrument=None)], how="vertical_relaxed"),
        "funding_universe", "okx.parquet")  # fmt: skip
    (sentence,) = catalogue(tmp_path / "m")["error"]
    assert sentence == "funding_universe/okx.parquet: instrument must not be null (12 rows)"


def test_two_paths_of_one_folder_share_a_record(tmp_path, looked):
    root = tmp_path / "m"
    put(root, bars(range(48)), "spot", "okx", "A-USDT.parquet")
    catalogue(root)
    looked.clear()
    catalogue(root / "spot" / "..")
    assert looked == []


def test_damage_that_leaves_size_and_time_is_told(tmp_path):
    root = tmp_path / "m"
    path = put(root, bars(range(48)), "spot", "okx", "A-USDT.parquet")
    catalogue(root)
    assert changed_inputs(root) == []
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (sentence,) = changed_inputs(root)
    assert sentence.startswith("spot/okx/A-USDT.parquet has other bytes at the same size and time of change: damaged")


def test_a_replaced_file_is_told_before_and_after_the_catalogue_meets_it(tmp_path):
    root = tmp_path / "m"
    put(root, bars(range(48)), "spot", "okx", "A-USDT.parquet")
    catalogue(root)
    put(root, bars(range(49)), "spot", "okx", "A-USDT.parquet")
    for _ in range(2):
        (sentence,) = changed_inputs(root)
        assert sentence.startswith("spot/okx/A-USDT.parquet was replaced")
        catalogue(root)
    catalogue(root, refresh=True)
    assert changed_inputs(root) == []


def test_a_file_that_was_only_touched_has_not_changed(tmp_path):
    root = tmp_path / "m"
    path = put(root, bars(range(48)), "spot", "okx", "A-USDT.parquet")
    catalogue(root)
    os.utime(path, ns=(1, 1))
    assert changed_inputs(root) == []
    catalogue(root)
    assert changed_inputs(root) == []


def test_a_remote_root_reads_like_a_folder(tmp_path):
    upath = pytest.importorskip("upath")
    local = tmp_path / "m"
    path = put(local, bars(range(48)), "spot", "okx", "A-USDT.parquet")
    remote = upath.UPath("memory://catalogue-test")
    target = remote / "spot" / "okx" / "A-USDT.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())
    assert_frame_equal(catalogue(remote), catalogue(local))


def test_real_holes_are_those_of_the_list_of_traps():
    rows = catalogue(real_market())
    assert rows["error"].null_count() == len(rows)
    assert rows.schema == pl.Schema(COLUMNS)

    def holes(series, venue, symbol):
        found = rows.filter(pl.col("source") == "file", series=series, venue=venue, symbol=symbol)
        return found.select("holes", "missing").row(0)

    for coin in ("BTC", "ETH", "XRP", "ADA"):
        assert holes("spot", "binance", f"{coin}-USDT") == (7, 14)
    assert holes("perp", "okx", "ETH-USDT") == (2, 1440)
    assert holes("perp", "binance", "BTC-USDT") == (0, 0)
    assert holes("funding", "hyperliquid", "BTC-USDC") == (3, 3)
    assert holes("funding", "kraken", "BTC-USD")[0] == 6
    assert holes("funding", "okx", "BTC-USDT") == (14, 31 * 3 + 13 * 3)  # August 2024 and thirteen single days
    changed = rows.filter(pl.col("interval_changes") > 0, pl.col("source") == "file", venue="okx")["symbol"]
    assert sorted(changed) == ["ONDO-USDT", "TIA-USDT", "TRB-USDT"]
    hyperliquid = rows.filter(series="funding", venue="hyperliquid", symbol="BTC-USDC")
    assert hyperliquid["intervals"].to_list() == ["8h 1h"]
    universe = rows.filter(source="universe")
    assert len(universe) >= 301
    assert universe["rows"].sum() >= 252_745
    assert universe["sha256"].n_unique() == 1


@pytest.mark.parametrize(
    ("n_months", "room", "step"), [(60, 60, 1), (61, 60, 3), (180, 60, 3), (181, 60, 12), (20, 8, 3)]
)
def test_long_sparklines_take_quarters_and_years(n_months, room, step):
    assert step_months(n_months, room=room) == step


def test_a_sparkline_is_full_only_where_nothing_lacks():
    months = [1.0, 0.9986, 0.5, 0.0, 0.01]
    line = sparkline(months, begin=102, axis=100, end=108, step=1)
    assert line == "  █▇▄·▁ "
    assert sparkline(months, begin=102, axis=100, end=108, step=1, ascii_only=True) == "  #74.1 "
    assert sparkline([1.0] * 3, begin=100, axis=100, end=106, step=3) == "█ "
    assert sparkline([1.0, 0.0, 0.5], begin=100, axis=100, end=103, step=3) == "▄"


@pytest.fixture
def small(tmp_path):
    root = tmp_path / "m"
    put(root, bars(h for h in range(40 * 24) if h != 7), "perp", "okx", "BTC-USDT.parquet")
    put(root, funding(range(0, 40 * 24, 8)), "funding", "okx", "BTC-USDT.parquet")
    both = [funding(range(0, 96, 8)).with_columns(instrument=pl.lit(f"{coin}-USDT-SWAP")) for coin in ("BTC", "PEPE")]
    put(root, pl.concat(both), "funding_universe", "okx.parquet")
    broken = put(root, bars([0]), "spot", "okx", "BTC-USDT.parquet")
    broken.write_bytes(b"nothing")
    return root


def ls(root, *options, charset="utf-8"):
    return CliRunner(charset=charset).invoke(command, ["--root", str(root), *options], catch_exceptions=False)


def test_ls_prints_a_table_and_what_it_could_not_read(small):
    result = ls(small)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split()[:4] == ["series", "venue", "symbol", "first"]
    assert any("perp" in line and "1 (1)" in line and line.rstrip().endswith("▇▂") for line in lines)
    assert any("2 instruments" in line for line in lines)
    assert "2 series, 2 instruments of a universe, 1,103 rows" in result.stdout
    assert "a cell a month, 2024-01 to 2024-02" in result.stdout
    assert result.stderr.startswith("not readable: spot/okx/BTC-USDT.parquet: ")


def test_ls_filters_and_opens_the_universe(small):
    opened = ls(small, "--all", "--series", "funding").stdout
    assert "PEPE-USDT (universe)" in opened
    assert "perp" not in opened
    coin = json.loads(ls(small, "--symbol", "PEPE", "--format", "json").stdout)
    assert [row["symbol"] for row in coin] == ["PEPE-USDT"]
    assert "no such series" in ls(small, "--venue", "mars").stdout


def test_ls_gives_every_column_to_programs(small):
    header, *rows = ls(small, "--format", "csv", "--sort", "rows").stdout.splitlines()
    assert header.split(",") == list(COLUMNS)
    assert rows[0].startswith("perp,perp,okx,BTC-USDT,file")
    assert len(rows) == 4


def test_ls_falls_back_to_ascii(small):
    text = ls(small, charset="ascii").stdout
    assert text.isascii()
    assert "  72\n" in text
    assert "# complete, . nothing" in text


def test_ls_of_an_empty_folder_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    assert ls(tmp_path / "empty").stdout == f"no series in {tmp_path / 'empty'}\n"


def test_ls_reads_the_sample_without_complaint():
    sample = Path(__file__).resolve().parents[1] / "data" / "sample"
    result = ls(sample)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "24 series" in result.stdout


def test_a_copied_folder_has_a_record_of_its_own(tmp_path, small):
    shutil.copytree(small, tmp_path / "copy")
    assert cache_path(small) != cache_path(tmp_path / "copy")
