"""Two sources of the same numbers agree to the bit, wherever the shared data hold both; read without the importers.

Volumes are compared as whole units of 1e-8 base, which sums of bars keep exactly; prices and rates as they are. Rows
in which a source is known to be wrong are named one by one: a new difference fails.
"""

import csv
import io
import zipfile
from datetime import UTC, datetime

import polars as pl
import pytest
from realdata import real_market

PRICES = ("open", "high", "low", "close")
BARS = (*PRICES, "volume")
TS = pl.Datetime("us", "UTC")


def read(path):
    return units(pl.read_parquet(path).with_columns(pl.col("ts").cast(TS)))


def units(frame):
    """Volumes as int64 multiples of 1e-8."""
    return frame.with_columns((pl.col("^volume$") * 1e8).round().cast(pl.Int64))


def bars_up(frame, every, *, offset="0h"):
    """Longer bars with the number of bars in each."""
    volume = [pl.col("volume").sum()] if "volume" in frame.columns else []
    return frame.group_by_dynamic("ts", every=every, offset=offset).agg(
        pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(), *volume, n=pl.len()
    )


def differences(ours, theirs, columns):
    """Number of common stamps, and for each column the stamps at which the values differ."""
    joined = ours.join(theirs, on="ts", suffix="_other")
    unequal = {c: joined.filter(pl.col(c).ne_missing(pl.col(f"{c}_other")))["ts"].to_list() for c in columns}
    return len(joined), {column: stamps for column, stamps in unequal.items() if stamps}


def from_csv(path, *, ts, columns):
    """A CSV by the standard library: ``ts`` (ISO, UTC) and float columns under our names."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    stamps = [datetime.fromisoformat(row[ts]) for row in rows]
    stamps = [stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC) for stamp in stamps]
    values = {ours: [float(row[theirs]) for row in rows] for ours, theirs in columns.items()}
    return units(pl.DataFrame({"ts": stamps, **values}, schema_overrides={"ts": TS}))


def raw(*parts):
    return real_market().parent.joinpath("raw", *parts)


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# perps of Binance: in two bars the eight-hour source has less volume than the hours, in one of them another close
KNOWN_8H = {"close": [at("2023-11-10 08:00")], "volume": [at("2023-08-16 08:00"), at("2023-11-10 08:00")]}
# three days whose volume in the REST file is not that of the hours; on the last one it is that of the Vision file below
KNOWN_1D = {"volume": [at("2022-07-16 00:00"), at("2023-08-16 00:00"), at("2024-10-28 00:00")]}
# two hours of the perp that the Vision file tells otherwise than our hours: an empty bar, then a longer one
KNOWN_VISION = dict.fromkeys(BARS, [at("2024-10-28 20:00"), at("2024-10-28 21:00")])


@pytest.mark.parametrize(
    ("kind", "venue", "symbol", "at_least", "known"),
    [
        ("spot", "binance", "BTC-USDT", 4735, {}),
        ("spot", "binance", "ETH-USDT", 1642, {}),
        ("perp", "binance", "BTC-USDT", 1642, KNOWN_8H),
        ("perp", "binance", "ETH-USDT", 1642, KNOWN_8H),
        ("perp", "bybit", "BTC-USDT", 546, {}),
        ("perp", "bybit", "ETH-USDT", 546, {}),
        ("spot", "bybit", "ETH-USDT", 546, {}),
    ],
)
def test_hours_make_the_eight_hour_bars(kind, venue, symbol, at_least, known):
    hourly = read(real_market() / kind / venue / f"{symbol}.parquet")
    theirs = read(real_market().parent / "market_8h" / kind / venue / f"{symbol}.parquet")
    ours = bars_up(hourly, "8h", offset="4h" if venue == "bybit" else "0h")
    if venue == "bybit":  # the first one begins four hours before the file
        ours = ours.filter(n=8)
    common, unequal = differences(ours, theirs, BARS)
    assert common >= at_least
    assert unequal == known


def test_bybit_spot_eight_hours_differ_by_the_rounding_of_volume_alone():
    hourly = read(real_market() / "spot" / "bybit" / "BTC-USDT.parquet")
    theirs = read(real_market().parent / "market_8h" / "spot" / "bybit" / "BTC-USDT.parquet")
    ours = bars_up(hourly, "8h", offset="4h").filter(n=8)
    common, unequal = differences(ours, theirs, PRICES)
    assert (common >= 546, unequal) == (True, {})
    joined = ours.join(theirs, on="ts", suffix="_other")
    assert (joined["volume_other"] % 1000 == 0).all()  # five decimals
    assert int((joined["volume"] - joined["volume_other"]).abs().max()) <= 500


@pytest.mark.parametrize(("kind", "known"), [("spot", {}), ("perp", KNOWN_1D)])
def test_hours_make_the_days_of_the_rest_interface(kind, known):
    theirs = from_csv(
        raw("binance_api_csv", f"{kind}_BTCUSDT_1d_20210101_20241231.csv"),
        ts="open_time",
        columns={name: name for name in BARS},
    )
    hourly = read(real_market() / kind / "binance" / "BTC-USDT.parquet")
    common, unequal = differences(bars_up(hourly, "1d"), theirs, BARS)
    assert common >= 1461
    assert unequal == known


def test_hours_make_the_bars_of_the_published_backtest():
    path = real_market().parent / "published" / "francypeng" / "Binance_BTC_8h_all_data_final.csv"
    spot = {name: f"{name.capitalize()}_spot" for name in PRICES} | {"volume": "Volume"}
    theirs = from_csv(path, ts="Timestamp", columns=spot).with_columns(pl.col("ts") - pl.duration(hours=8))
    ours = bars_up(read(real_market() / "spot" / "binance" / "BTC-USDT.parquet"), "8h")
    common, unequal = differences(ours, theirs, BARS)
    assert (common >= 4735, unequal) == (True, {})


def test_eight_hour_series_are_those_of_the_published_backtest():
    root = real_market().parent / "market_8h"
    path = real_market().parent / "published" / "francypeng" / "Binance_BTC_8h_all_data_final.csv"
    spot = {name: f"{name.capitalize()}_spot" for name in PRICES} | {"volume": "Volume"}
    perp = {name: f"{name.capitalize()}_futures" for name in PRICES}
    opens = pl.col("ts") - pl.duration(hours=8)
    for columns, file, shift in (
        (spot, "spot/binance/BTC-USDT.parquet", opens),
        (perp, "perp/binance/BTC-USD.parquet", opens),
        ({"rate": "Funding Rate"}, "funding/binance/BTC-USD.parquet", pl.col("ts")),
    ):
        theirs = from_csv(path, ts="Timestamp", columns=columns).with_columns(shift)
        common, unequal = differences(read(root / file), theirs, list(columns))
        assert (common >= 5164, unequal) == (True, {}), file


@pytest.mark.parametrize(("venue", "at_least"), [("binance", 1642), ("bybit", 547)])
@pytest.mark.parametrize("symbol", ["BTC-USDT", "ETH-USDT"])
def test_funding_is_that_of_the_eight_hour_folder(venue, symbol, at_least):
    ours = read(real_market() / "funding" / venue / f"{symbol}.parquet")
    theirs = read(real_market().parent / "market_8h" / "funding" / venue / f"{symbol}.parquet")
    common, unequal = differences(ours, theirs, ("rate", "interval_hours"))
    assert (common >= at_least, unequal) == (True, {})


@pytest.mark.parametrize(
    ("venue", "file", "ts", "rate", "at_least", "max_late_ms"),
    [
        ("binance", "binance_api_csv/funding_BTCUSDT_20210101_20241231.csv", "funding_time", "funding_rate", 4383, 60),
        ("binance", "scraped_csv/binance_BTCUSDT_funding_rates_ms_jitter.csv", "funding_timestamp", "funding_rate",
         1914, 16),
        ("bybit", "scraped_csv/bybit_BTCUSDT_funding_rates.csv", "funding_timestamp", "funding_rate", 1914, 0),
    ],
)  # fmt: skip
def test_funding_is_that_of_the_raw_files_but_for_jitter(venue, file, ts, rate, at_least, max_late_ms):
    theirs = from_csv(raw(*file.split("/")), ts=ts, columns={"rate": rate})
    late = theirs["ts"] - theirs["ts"].dt.truncate("1h")
    assert late.max().total_seconds() * 1000 <= max_late_ms
    ours = read(real_market() / "funding" / venue / "BTC-USDT.parquet")
    common, unequal = differences(ours, theirs.with_columns(pl.col("ts").dt.truncate("1h")), ["rate"])
    assert common >= at_least
    assert common == len(theirs)
    assert unequal == {}


@pytest.mark.parametrize(
    ("kind", "venue", "file", "at_least", "repeated"),
    [
        ("perp", "binance", "binance_BTCUSDT_perp_1h_PAGE_GAPS.csv", 14967, 0),
        ("spot", "bybit", "bybit_BTCUSDT_spot_1h_DUPLICATE_ROWS.csv", 15312, 15),
    ],
)
def test_scraped_hours_are_ours_but_for_gaps_and_repeated_rows(kind, venue, file, at_least, repeated):
    theirs = from_csv(raw("scraped_csv", file), ts="timestamp", columns={name: name for name in BARS})
    once = theirs.unique(maintain_order=True)
    assert len(theirs) - len(once) == repeated
    assert once["ts"].is_unique().all()
    common, unequal = differences(read(real_market() / kind / venue / "BTC-USDT.parquet"), once, BARS)
    assert (common >= at_least, unequal) == (True, {})


def test_okx_funding_is_that_of_the_universe():
    universe = read(real_market() / "funding_universe" / "okx.parquet")
    compared = {}
    for path in sorted((real_market() / "funding" / "okx").glob("*.parquet")):
        theirs = universe.filter(pl.col("instrument") == f"{path.stem}-SWAP")
        common, unequal = differences(read(path), theirs, ["rate"])
        assert unequal == {}, path.stem
        compared[path.stem] = common
    assert len(compared) >= 19
    assert sum(compared.values()) >= 19_048


def okx_days():
    """Every row of the daily dumps, once for each instrument, instant and paid rate; and both columns of rates."""
    columns = {"rate": "real_funding_rate", "quoted": "funding_rate"}
    frames = []
    for path in sorted(raw("okx_daily").glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            names = [row["instrument"] for row in csv.DictReader(file)]
        frame = from_csv(path, ts="funding_time", columns=columns).with_columns(instrument=pl.Series(names))
        frames.append(frame.unique(["instrument", "ts", "rate"], maintain_order=True))
    return pl.concat(frames)


def test_okx_dumps_pay_the_rates_of_our_files_and_of_the_universe():
    days = okx_days()
    assert days.select("instrument", "ts").is_unique().all()  # rows that repeat differ in the quoted rate alone
    universe = read(real_market() / "funding_universe" / "okx.parquet")
    joined = days.join(universe, on=["instrument", "ts"], suffix="_other")
    assert len(joined) >= 2701
    assert joined.filter(pl.col("rate") != pl.col("rate_other")).is_empty()
    common = 0
    for path in (real_market() / "funding" / "okx").glob("*.parquet"):
        theirs = days.filter(pl.col("instrument") == f"{path.stem}-SWAP")
        rows, unequal = differences(read(path), theirs, ["rate"])
        assert unequal == {}, path.stem
        common += rows
    assert common >= 240


def test_okx_quoted_rate_is_not_what_was_paid():
    days = okx_days().filter(pl.col("ts") < at("2024-06-01 00:00"))
    assert len(days) >= 600
    assert days.filter(pl.col("rate") == pl.col("quoted")).is_empty()


def test_vision_zips_hold_our_hours_but_for_two_of_the_perp():
    paths = sorted(raw("binance_vision").rglob("*.zip"))
    assert len(paths) >= 2
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0]).decode()
        rows = [row for row in csv.reader(io.StringIO(text)) if row[0].isdigit()]
        values = {name: [float(row[place]) for row in rows] for place, name in enumerate(BARS, start=1)}
        theirs = units(pl.DataFrame({"ts": pl.Series([int(row[0]) * 1000 for row in rows]).cast(TS), **values}))
        kind = "perp" if "futures" in path.parts else "spot"
        ours = read(real_market() / kind / "binance" / "BTC-USDT.parquet")
        common, unequal = differences(ours, theirs, BARS)
        assert common == 24
        assert unequal == (KNOWN_VISION if kind == "perp" else {})


@pytest.mark.parametrize(
    ("folder", "venue", "symbol", "at_least"),
    [
        ("bars_1m", "binance", "BTC-USDT", 744),
        ("bars_1m_gappy", "binance", "ETH-USDT", 16),
        ("bars_1m_gappy", "bybit", "ETH-USDT", 32),
    ],
)
def test_minutes_make_the_hours(folder, venue, symbol, at_least):
    minutes = read(real_market().parent / "micro" / folder / "perp" / venue / f"{symbol}.parquet")
    theirs = read(real_market() / "perp" / venue / f"{symbol}.parquet")
    common, unequal = differences(bars_up(minutes, "1h").filter(n=60), theirs, BARS)
    assert (common >= at_least, unequal) == (True, {})
