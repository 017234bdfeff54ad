"""CSV and parquet of one's own: names of columns, stamps, units, and what is refused with its place."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from basis_bt.core.errors import ConfigError
from basis_bt.market.importers.base import Options
from basis_bt.market.importing import import_sources
from basis_bt.market.schemas import SeriesKey
from basis_bt.market.write import write_series

START = datetime(2024, 1, 1, tzinfo=UTC)
PERP = Options(venue="okx", series="perp", symbol="BTC-USDT")
HEADER = "timestamp,open,high,low,close,volume"
PRICES = ["1.0,3.0,0.5,2.0,10.0", "2.0,3.5,1.5,2.5,20.0", "2.5,4.0,2.0,3.0,30.0"]
ROWS = [(1.0, 3.0, 0.5, 2.0, 10.0), (2.0, 3.5, 1.5, 2.5, 20.0), (2.5, 4.0, 2.0, 3.0, 30.0)]
STAMPS = [START + timedelta(hours=i) for i in range(3)]


def text(stamps: list[str], *, header: str = HEADER, prices: list[str] | None = None) -> str:
    return "\n".join([header, *(f"{ts},{row}" for ts, row in zip(stamps, prices or PRICES, strict=True))]) + "\n"


def bring(root: Path, content: str | bytes, *, options: Options = PERP, name: str = "mine.csv"):
    path = root / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    report = import_sources([path], root / "m", options=options)
    return report.rows[0]


def read(root: Path, path: str = "perp/okx/BTC-USDT") -> pl.DataFrame:
    return pl.read_parquet(root / "m" / f"{path}.parquet")


def refused(root: Path, content: str | bytes, *words: str, options: Options = PERP) -> None:
    row = bring(root, content, options=options)
    assert row.status == "failed", row
    for word in words:
        assert word in row.sentence, row.sentence
    assert not (root / "m").exists()


FORMS = {
    "ISO Z": [ts.strftime("%Y-%m-%dT%H:%M:%SZ") for ts in STAMPS],
    "ISO with fractions": [ts.strftime("%Y-%m-%dT%H:%M:%S.000000Z") for ts in STAMPS],
    "offset": [(ts + timedelta(hours=8)).strftime("%Y-%m-%d %H:%M:%S+08:00") for ts in STAMPS],
    "minutes": [ts.strftime("%Y-%m-%d %H:%M+00:00") for ts in STAMPS],
    "offset without a colon": [(ts - timedelta(hours=5)).strftime("%Y-%m-%dT%H:%M:%S-0500") for ts in STAMPS],
    "UTC in words": [ts.strftime("%Y-%m-%d %H:%M:%S UTC") for ts in STAMPS],
    "s": [str(int(ts.timestamp())) for ts in STAMPS],
    "s with fraction": [f"{ts.timestamp():.3f}" for ts in STAMPS],
    "ms": [str(int(ts.timestamp() * 1e3)) for ts in STAMPS],
    "us": [str(int(ts.timestamp()) * 10**6) for ts in STAMPS],
    "ns": [str(int(ts.timestamp()) * 10**9) for ts in STAMPS],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_stamps_of_every_form_are_the_same_instants(tmp_path, form, mark):
    row = bring(tmp_path, mark + text(FORMS[form]).encode())
    assert (row.status, row.sentence) == ("imported", "")
    found = read(tmp_path)
    assert found["ts"].to_list() == STAMPS
    assert found.drop("ts").rows() == ROWS


def test_columns_are_found_by_name_in_any_order_and_case(tmp_path):
    content = "V,Close,note,L,H,O,DateTime\n" + "".join(
        f"{v},{c},x,{low},{h},{o},{ts.isoformat()}\n" for ts, (o, h, low, c, v) in zip(STAMPS, ROWS, strict=True)
    )
    assert bring(tmp_path, content).status == "imported"
    assert read(tmp_path).drop("ts").rows() == ROWS


def test_a_mapping_names_any_column_of_any_series(tmp_path):
    content = "when;x,paid,every\n" + "".join(
        f"{ts.isoformat()},{r},4\n" for ts, r in zip(STAMPS, (1, 2, 3), strict=True)
    )
    options = Options(
        venue="gate",
        series="lst",
        symbol="STETH",
        mapping={"ts": "when;x", "ratio": "paid"},
    )
    assert bring(tmp_path, content, options=options).status == "imported"
    assert read(tmp_path, "lst/gate/STETH")["ratio"].to_list() == [1.0, 2.0, 3.0]
    bad = Options(venue="gate", series="lst", symbol="STETH", mapping={"ts": "when;x", "ratio": "missing"})
    assert "no column 'missing'" in bring(tmp_path, content, options=bad).sentence
    with pytest.raises(ConfigError, match="no series has a column 'nonsense'"):
        bring(tmp_path, content, options=Options(mapping={"nonsense": "paid"}))
    with pytest.raises(ConfigError, match="no series is called 'gold'"):
        bring(tmp_path, text(FORMS["ms"]), options=Options(series="gold", mapping={"ts": "timestamp"}))


def test_several_instruments_of_one_file_are_told_apart(tmp_path):
    content = "time,funding_rate,symbol,exchange\n" + "".join(
        f"{stamp},{rate},{symbol},{venue}\n"
        for stamp in FORMS["ms"]
        for symbol, venue, rate in (("BTC-USDT-SWAP", "okx", 0.0001), ("ETHUSDT", "binance_futures", 0.0002))
    )
    path = tmp_path / "all.csv"
    path.write_text(content)
    report = import_sources([path], tmp_path / "m")
    assert [(row.series, row.new) for row in report.rows] == [
        ("funding/okx/BTC-USDT", 3),
        ("funding/binance/ETH-USDT", 3),
    ]
    assert read(tmp_path, "funding/binance/ETH-USDT")["rate"].to_list() == [0.0002] * 3


def test_parquet_of_a_market_folder_is_known_by_its_path(tmp_path):
    frame = pl.DataFrame(ROWS, schema=["open", "high", "low", "close", "volume"], orient="row")
    frame = frame.with_columns(ts=pl.Series(STAMPS).cast(pl.Datetime("ms", "UTC")))
    write_series(tmp_path / "other", SeriesKey("perp", "okx", "BTC-USDT"), frame)
    report = import_sources([tmp_path / "other"], tmp_path / "m")
    assert [(row.series, row.status) for row in report.rows] == [("perp/okx/BTC-USDT", "imported")]
    name = "perp/okx/BTC-USDT.parquet"
    assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    cut = (tmp_path / "other" / name).read_bytes()[:-40]
    assert "cut or damaged" in bring(tmp_path, cut, name="cut.parquet").sentence


@pytest.mark.parametrize("dtype", [pl.Datetime("ns", "America/New_York"), pl.Int64])
def test_parquet_stamps_of_other_types_are_the_same_instants(tmp_path, dtype):
    frame = pl.DataFrame(ROWS, schema=["o", "h", "l", "c", "vol"], orient="row")
    ts = pl.Series(STAMPS).cast(pl.Datetime("ms", "UTC"))
    ts = ts.dt.epoch("ms") if dtype == pl.Int64 else ts.dt.convert_time_zone("America/New_York").cast(dtype)
    frame.with_columns(timestamp=ts).write_parquet(tmp_path / "mine.parquet")
    assert import_sources([tmp_path / "mine.parquet"], tmp_path / "m", options=PERP).rows[0].status == "imported"
    assert read(tmp_path)["ts"].to_list() == STAMPS


def test_wall_times_need_a_zone_and_a_clock_change_is_refused(tmp_path):
    wall = [(ts + timedelta(hours=8)).strftime("%Y-%m-%d %H:%M:%S") for ts in STAMPS]
    refused(tmp_path, text(wall), "no time zone", "--time-zone")
    london = ["2024-10-27 00:00:00", "2024-10-27 01:00:00", "2024-10-27 02:00:00"]
    zoned = Options(venue="okx", series="perp", symbol="BTC-USDT", time_zone="Europe/London")
    refused(tmp_path, text(london), "not one instant", "row=1", options=zoned)
    asia = Options(venue="okx", series="perp", symbol="BTC-USDT", time_zone="Asia/Hong_Kong")
    assert bring(tmp_path, text(wall), options=asia).status == "imported"
    assert read(tmp_path)["ts"].to_list() == STAMPS
    with pytest.raises(ConfigError, match="no time zone"):
        bring(tmp_path, text(wall), options=Options(series="perp", venue="x", symbol="A-B", time_zone="Mars/North"))


def test_days_are_their_midnights(tmp_path):
    days = [f"2024-01-0{i}" for i in (1, 2, 3)]
    utc = Options(venue="okx", series="perp", symbol="BTC-USDT", time_zone="UTC")
    assert bring(tmp_path, text(days), options=utc).status == "imported"
    assert read(tmp_path)["ts"].to_list() == [START + timedelta(days=i) for i in range(3)]


def test_one_symbol_cannot_be_given_to_a_file_of_many(tmp_path):
    rows = "".join(
        f"{stamp},0.0001,{name},okx\n"
        for stamp, name in zip(FORMS["ms"], ("BTCUSDT", "ETHUSDT", "BTCUSDT"), strict=True)
    )
    content = "timestamp,funding_rate,symbol,source\n" + rows
    refused(tmp_path, content, "a file of 2: BTCUSDT, ETHUSDT", options=Options(symbol="BTC-USDT"))


def test_volume_in_contracts_is_scaled_and_in_quote_is_left_out(tmp_path):
    common = {"venue": "okx", "series": "perp", "symbol": "BTC-USDT"}
    refused(tmp_path, text(FORMS["ms"]), "--contract-size", options=Options(volume_unit="contracts", **common))
    contracts = Options(volume_unit="contracts", contract_size=0.01, **common)
    assert bring(tmp_path, text(FORMS["ms"]), options=contracts).status == "imported"
    assert read(tmp_path)["volume"].to_list() == [0.1, 0.2, 0.3]
    quote = bring(tmp_path / "m", text(FORMS["ms"]), options=Options(volume_unit="quote", **common))
    assert "volume was left out" in quote.sentence
    assert "volume" not in pl.read_parquet(tmp_path / "m" / "m" / "perp/okx/BTC-USDT.parquet").columns


def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path):
    good = text(FORMS["ms"])
    refused(tmp_path, good[:-4], "does not end", "line=4", "fetch it again")
    refused(tmp_path, good.rsplit(",", 2)[0] + "\n", "6 cells, found 4", "line=4")
    semicolons = good.replace(".", "#").replace(",", ";").replace("#", ",")
    refused(tmp_path, semicolons, "semicolons", "decimal points")
    refused(tmp_path, good.replace("2.0,3.5", "n/a,3.5"), "open must be a number, found 'n/a' (1 row)", "row=1")
    refused(tmp_path, good.replace("2.0,3.5", '"41,995.30",3.5'), "'41,995.30'", "column=open", "without separators")
    refused(tmp_path, good.replace("2.0,3.5", "41,995.30,3.5"), "6 cells, found 7", "line=3")
    refused(tmp_path, good.replace("2.0,3.5", ",3.5"), "open must not be empty (1 row)", "row=1")
    mixed = [FORMS["ms"][0], FORMS["ms"][1], FORMS["s"][2]]
    refused(tmp_path, text(mixed), "two units", "(s)", "(ms)")
    refused(tmp_path, text(["soon", *FORMS["ISO Z"][1:]]), "some stamps have a zone and some have none", "'soon'")
    refused(tmp_path, text(["2024-13-01T00:00:00Z", *FORMS["ISO Z"][1:]]), "must be a time", "2024-13-01")
    refused(tmp_path, HEADER + "\n", "no rows")


def test_what_neither_file_nor_path_tells_is_asked_for(tmp_path):
    good = text(FORMS["ms"])
    refused(tmp_path, good, "--series", options=Options())
    refused(tmp_path, good, "--venue", options=Options(series="spot"))
    refused(tmp_path, good, "--symbol", options=Options(series="spot", venue="okx"))
    row = bring(tmp_path, "alpha,beta\n1,2\n")
    assert (row.status, row.series) == ("not recognised", "")
    assert "alpha,beta" in row.sentence


@pytest.mark.parametrize("name", ["../../x", "/etc/x", ".hidden", "a b", ""])
def test_a_name_cannot_leave_the_market_folder(tmp_path, name):
    for options in (Options(venue="okx", series="perp", symbol=name), Options(venue=name, series="perp", symbol="A-B")):
        with pytest.raises(ConfigError, match="cannot name a file"):
            bring(tmp_path, text(FORMS["ms"]), options=options)
    row = bring(
        tmp_path,
        f"ts,close,symbol\n1704067200000,1.0,{name or '.'}-USDT\n",
        options=Options(series="quote_usd", venue="x"),
    )
    assert row.status == "failed"
    assert not (tmp_path / "m").exists()
