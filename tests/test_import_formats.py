"""Importers of OKX, Bybit, Tardis, CryptoDataDownload, freqtrade, Hyperliquid, Gate, KuCoin and Kraken files.

Expected numbers come from the raw text, read here by plain Python, or from the same settlements in the market folder.
"""

import csv
import gzip
import io
import json
import math
import zipfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import polars as pl
import pytest
from realdata import real_market

from basis_bt.core.errors import DataError
from basis_bt.market.importers import (
    binance_api,
    binance_vision,
    bybit,
    cryptodatadownload,
    freqtrade,
    gate,
    hyperliquid,
    kraken,
    kucoin,
    okx,
    tardis,
)
from basis_bt.market.importers.base import Options, Piece, Source
from basis_bt.market.importers.tables import dated_symbol
from basis_bt.market.write import write_series

MODULES = (okx, bybit, tardis, cryptodatadownload, freqtrade, hyperliquid, gate, kucoin, kraken)
FORMATS = [one for module in MODULES for one in module.FORMATS]
OTHERS = [*binance_vision.FORMATS, *binance_api.FORMATS]
OURS = ("okx_daily", "bybit_dump", "freqtrade_feather", "hyperliquid_ws", "tardis")
T0 = 1_767_225_600  # 2026-01-01T00:00Z


def source_of(path: Path, name: str) -> Source:
    data = path.read_bytes()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            (member,) = archive.namelist()
            return Source(path=path, name=f"{name}/{member}", data=archive.read(member))
    return Source(path=path, name=name, data=gzip.decompress(data) if path.suffix == ".gz" else data)


def raw_files(folder: str) -> list[Source]:
    raw = real_market().parent / "raw"
    paths = [path for path in sorted((raw / folder).rglob("*")) if path.is_file()]
    found = [source_of(path, str(path.relative_to(raw))) for path in paths]
    assert found, folder
    return found


def made(name: str, text: str | bytes) -> Source:
    return Source(path=Path("made") / name, name=name, data=text if isinstance(text, bytes) else text.encode())


def read(source: Source, **options: object) -> list[Piece]:
    """Pieces of the one format that recognises the source."""
    names = [one.name for one in FORMATS if one.recognises(source)]
    assert len(names) == 1, (source.name, names)
    assert not any(one.recognises(source) for one in OTHERS), source.name
    (form,) = [one for one in FORMATS if one.name == names[0]]
    found = list(form.read(source, Options(**options)))  # type: ignore[arg-type]
    for part in found:
        for column, dtype in part.frame.schema.items():
            assert part.key.spec.columns[column] == dtype, (part.key, column)
        assert set(part.key.spec.required) <= set(part.frame.columns), part.key
        assert not sum(part.frame.select(*part.key.spec.required).null_count().row(0)), part.key
    return found


def us(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def at(ms: int | float) -> datetime:
    return datetime.fromtimestamp(ms / 1000, tz=UTC)


@pytest.mark.parametrize("folder", OURS)
def test_every_real_file_is_recognised_by_exactly_one_format(folder: str) -> None:
    for source in raw_files(folder):
        assert [one.name for one in FORMATS if one.recognises(source)] and read(
            source, venue="binance" if folder == "freqtrade_feather" else None
        )
        assert [one.name for one in OTHERS if one.recognises(source)] == []


@pytest.mark.parametrize(
    "folder", ["binance_vision", "binance_vision_headerless", "binance_api_csv", "binance_api_json", "scraped_csv"]
)
def test_files_of_other_importers_are_left_alone(folder: str) -> None:
    for source in raw_files(folder):
        assert [one.name for one in FORMATS if one.recognises(source)] == []


def test_okx_funding_is_the_paid_rate_of_every_swap() -> None:
    for source in raw_files("okx_daily"):
        paid: dict[str, dict[datetime, set[float]]] = defaultdict(lambda: defaultdict(set))
        rows: dict[str, int] = defaultdict(int)
        for row in csv.DictReader(io.StringIO(source.data.decode())):
            paid[row["instrument"]][us(row["funding_time"])].add(float(row["real_funding_rate"]))
            rows[row["instrument"]] += 1
        found = read(source)
        assert {f"{part.key.symbol}-SWAP" for part in found} == set(paid)
        for part in found:
            name = f"{part.key.symbol}-SWAP"
            assert (part.key.series, part.key.venue, part.frame.height) == ("funding", "okx", rows[name])
            kept: dict[datetime, set[float]] = defaultdict(set)
            for ts, rate in part.frame.select("ts", "rate").iter_rows():
                kept[ts].add(rate)
            assert kept == paid[name]
        assert "outside" in found[0].notes[0]  # re-saved by UTC days: the last eight hours are of the next UTC+8 day


def test_okx_funding_equals_the_market_folder_on_common_settlements() -> None:
    market = real_market()
    compared = 0
    for source in raw_files("okx_daily"):
        for part in read(source):
            path = market / part.key.path
            if path.is_file():
                ours = part.frame.unique()
                known = pl.read_parquet(path).select(pl.col("ts").cast(ours.schema["ts"]), known="rate")
                common = ours.join(known, on="ts")
                assert common["rate"].equals(common["known"])
                compared += common.height
    assert compared > 150


def test_okx_own_funding_file_with_translated_header_in_gbk() -> None:
    text = (
        "instrument_name/交易产品名称,funding_rate/资金费率,funding_time/时间\n"
        f"BTC-USDT-SWAP,0.0000734,{T0}000\nBTC-USD-SWAP,-0.0001,{T0}000\nBTC-USD_UM-SWAP,0.5,{T0}000\n"
    )
    usdt, usd = read(made("allswap-fundingrates-2026-01-01.csv", text.encode("gbk")))
    assert (usdt.key.stem, usd.key.stem) == ("funding/okx/BTC-USDT", "funding/okx/BTC-USD")
    assert usdt.frame.rows() == [(at(T0 * 1000), 0.0000734)] and usd.frame.rows() == [(at(T0 * 1000), -0.0001)]
    notes = " ".join(usdt.notes + usd.notes)
    assert "BTC-USD_UM-SWAP" in notes and "taken as what was paid" in notes and "outside" not in notes


def test_okx_funding_prefers_the_realised_column_wherever_it_stands() -> None:
    text = f"instrument_name,realized_rate,funding_rate,funding_time\nETH-USDT-SWAP,0.0003,0.0001,{T0}000\n"
    (part,) = read(made("x.csv", text))
    assert part.frame["rate"].to_list() == [0.0003] and part.notes == ()


def test_okx_trades_of_one_chain_keep_contracts_and_know_the_maker() -> None:
    text = (
        "instrument_name,trade_id,side,price,size,created_time\n"
        "BTC-USDT-241227,1,sell,64927.5,0.2,1719936000188\nBTC-USDT-241227,2,buy,64928,3,1719936000189\n"
        "BTC-USDT-250328,1,buy,65000,1,1719936000190\n"
    )
    first, second = read(made("BTC-USDT-futureschain-trades-2024-07-03.csv", text))
    assert first.key.stem == "trades/future/okx/BTC-USDT-20241227"
    assert second.key.stem == "trades/future/okx/BTC-USDT-20250328"
    assert first.frame.rows() == [
        (at(1719936000188), "1", 64927.5, 0.2, True),
        (at(1719936000189), "2", 64928.0, 3.0, False),
    ]
    assert first.notes == ()  # 16:00 UTC of the day before begins the UTC+8 day of the name


CANDLES = "instrument_name,open,high,low,close,vol,vol_ccy,vol_quote,open_time,confirm\n"


def test_okx_candles_are_in_coins_and_complete() -> None:
    done = f"BTC-USDT-SWAP,100,102,99,101,62800,628,63000,{T0}000,1\n"
    running = f"BTC-USDT-SWAP,101,102,99,100,1,0.01,1,{T0 + 60}000,0\n"
    (part,) = read(made("BTC-USDT-SWAP-candlesticks-2026-01-01.csv", CANDLES + done + running))
    assert part.key.stem == "perp/okx/BTC-USDT"
    assert part.frame.rows() == [(at(T0 * 1000), 100.0, 102.0, 99.0, 101.0, 628.0)]
    assert "1 bars left out" in part.notes[0]
    (spot,) = read(made("BTC-USDT-candlesticks-2026-01-01.csv", CANDLES + done.replace("-SWAP", "")))
    assert (spot.key.stem, spot.frame["volume"].to_list()) == ("spot/okx/BTC-USDT", [62800.0])


def test_okx_candles_without_coins_need_the_size_of_a_contract() -> None:
    text = f"instrument_name,open,high,low,close,vol,open_time\nBTC-USDT-SWAP,100,102,99,101,62800,{T0}000\n"
    with pytest.raises(DataError, match="--contract-size"):
        read(made("x.csv", text))
    (part,) = read(made("x.csv", text), contract_size=0.01)
    assert part.frame["volume"].to_list() == [628.0]
    (coin,) = read(made("x.csv", text.replace("USDT", "USD")))
    assert coin.key.symbol == "BTC-USD" and "volume" not in coin.frame.columns and "volume left out" in coin.notes[0]


def test_okx_borrow_rates_per_hour_become_simple_annual_rates() -> None:
    text = f"currency_name,borrow_rate,time\nBTC,0.000001,{T0}000\nUSDT,0.00001,{T0}000\nBTC,0.000002,{T0 + 3600}000\n"
    btc, usdt = read(made("allmargin-borrowrates-2026-01-01.csv", text))
    assert (btc.key.stem, usdt.key.stem) == ("borrow/okx/BTC", "borrow/okx/USDT")
    assert btc.frame["rate_apr"].to_list() == [0.000001 * 8760, 0.000002 * 8760]
    assert "per hour" in btc.notes[0]


def test_bybit_book_dump_keeps_every_level_in_order() -> None:
    (source,) = raw_files("bybit_dump")
    expected = []
    for line in source.data.decode().splitlines():
        message = json.loads(line)
        for side in "ba":
            for price, qty in message["data"][side]:
                expected.append((at(message["ts"]), message["type"] == "snapshot", side, float(price), float(qty)))
    (part,) = read(source)
    assert part.key.stem == "book_updates/perp/bybit/XRP-USDT"
    assert part.frame.rows() == expected
    assert expected[0] == (at(1733011200691), True, "b", 1.9531, 6203.0)
    assert sum(row[1] for row in expected) == 1000


def test_bybit_book_of_spot_is_told_by_folder_or_depth() -> None:
    data = '{"s":"BTCUSDT","b":[["1","2"]],"a":[]}'
    line = '{"topic":"orderbook.200.BTCUSDT","type":"snapshot","ts":1733011200691,"data":' + data + "}\n"
    (spot,) = read(made("2024-12-01_BTCUSDT_ob200.data", line))
    (linear,) = read(made("linear/2024-12-01_BTCUSDT_ob200.data", line))
    (deep,) = read(made("spot/2024-12-01_BTCUSDT_ob500.data", line.replace("200.BTC", "500.BTC")))
    assert [one.key.kind for one in (spot, linear, deep)] == ["spot", "perp", "spot"]
    with pytest.raises(DataError, match="line"):
        read(made("x.data", line + line[:40]))


BYBIT = "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,foreignNotional\n"


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("BTCUSDT", "perp/bybit/BTC-USDT"),
        ("1000PEPEUSDT", "perp/bybit/1000PEPE-USDT"),
        ("BTCPERP", "perp/bybit/BTC-USDC"),
        ("DOTUSD", "perp/bybit/DOT-USD"),
        ("BTC-27DEC24", "future/bybit/BTC-USDC-20241227"),
        ("BTCUSDT-26DEC25", "future/bybit/BTC-USDT-20251226"),
        ("BTCUSDZ24", "future/bybit/BTC-USD-20241227"),
    ],
)
def test_bybit_trades_of_derivatives(name: str, stem: str) -> None:
    rows = f"1784851200.0547,{name},Buy,0.038,65065.80,ZeroPlusTick,a-1,2.4e11,0.038,2472.5\n"
    rows += f"1784851199.5,{name},Sell,2,65065,MinusTick,a-2,1,2,3\n"
    (part,) = read(made(f"{name}2026-07-24.csv", BYBIT + rows))
    assert part.key.stem == f"trades/{stem}"
    assert part.frame.rows() == [
        (datetime(2026, 7, 24, 0, 0, 0, 54700, tzinfo=UTC), "a-1", 65065.8, 0.038, False),
        (datetime(2026, 7, 23, 23, 59, 59, 500000, tzinfo=UTC), "a-2", 65065.0, 2.0, True),
    ]


def test_bybit_spot_trades_are_named_after_the_file() -> None:
    text = "id,timestamp,price,volume,side,rpi\n7,1735689600123,94000.5,0.01,sell,0\n"
    for name in ("BTCUSDC_2025-01-01.csv", "BTCUSDC-2025-01.csv"):
        (part,) = read(made(name, text))
        assert part.key.stem == "trades/spot/bybit/BTC-USDC"
        assert part.frame.rows() == [(at(1735689600123), "7", 94000.5, 0.01, True)]


@pytest.mark.parametrize("separator", [" ", ","])
def test_bybit_metatrader_bars_are_read_in_the_zone_given(separator: str) -> None:
    name = "kline_for_metatrader4/BTCUSDT/2023/BTCUSDT_15_2023-01-01_2023-01-31.csv"
    text = "2023.01.01 00:00,16500,16540.5,16480,16520,12.5\n2023.01.01 00:15,16520,16530,16510,16511,3\n"
    text = text.replace(" ", separator)
    with pytest.raises(DataError, match="time zone of the stamps") as caught:
        read(made(name, text))
    assert "--time-zone Etc/GMT-3" in caught.value.fix
    (part,) = read(made(name, text), time_zone="UTC")
    assert part.key.stem == "perp/bybit/BTC-USDT"
    assert part.frame.rows()[0] == (us("2023-01-01T00:00Z"), 16500.0, 16540.5, 16480.0, 16520.0, 12.5)
    (moved,) = read(made(name, text), time_zone="Etc/GMT-3")
    assert moved.frame["ts"][1] == us("2022-12-31T21:15Z") and moved.notes == ()


def test_tardis_real_files_equal_their_text() -> None:
    book, trades, updates = raw_files("tardis")
    for source in (book, trades, updates):
        (part,) = read(source)
        rows = list(csv.DictReader(io.StringIO(source.data.decode())))
        stamp = [datetime.fromtimestamp(int(row["timestamp"]) // 1000 / 1000, tz=UTC) for row in rows]
        assert all(int(row["timestamp"]) % 1000 == 0 for row in rows)
        if source is book:
            assert part.key.stem == "book/perp/binance/BTC-USDT"
            last = dict(zip(stamp, rows, strict=True))
            expected = {
                (ts, side[0], level): (float(row[f"{side}[{level}].price"]), float(row[f"{side}[{level}].amount"]))
                for ts, row in last.items()
                for side in ("asks", "bids")
                for level in range(5)
            }
            assert {row[:3]: row[3:] for row in part.frame.rows()} == expected
            assert part.frame.height == len(expected) == 100
        elif source is trades:
            assert part.key.stem == "trades/perp/bitmex/BTC-USD"
            assert part.frame.rows() == [
                (ts, row["id"], float(row["price"]), float(row["amount"]), row["side"] == "sell")
                for ts, row in zip(stamp, rows, strict=True)
            ]
        else:
            assert part.key.stem == "book_updates/perp/deribit/BTC-USD"
            assert part.frame.rows() == [
                (ts, row["is_snapshot"] == "true", row["side"][0], float(row["price"]), float(row["amount"]))
                for ts, row in zip(stamp, rows, strict=True)
            ]


def test_tardis_ticker_is_an_estimate_written_where_it_changes() -> None:
    head = (
        "exchange,symbol,timestamp,local_timestamp,funding_timestamp,funding_rate,predicted_funding_rate,"
        "open_interest,last_price,index_price,mark_price\n"
    )
    first, second = "1706774400000000", "1706803200000000"
    rows = [
        ("1706745600123000", first, "0.00011"),
        ("1706745600223000", first, "0.00011"),
        ("1706745600323000", "", ""),
        ("1706745600423000", first, "0.00012"),
        ("1706774400023000", second, "0.00012"),
    ]
    text = "".join(f"binance-futures,BTCUSDT,{ts},{ts},{to},{rate},,1,2,3,4\n" for ts, to, rate in rows)
    (part,) = read(made("binance-futures_derivative_ticker_BTCUSDT.csv", head + text))
    assert part.key.stem == "predicted/binance/BTC-USDT"
    assert part.frame.rows() == [
        (at(1706745600123), 0.00011, us("2024-02-01T08:00Z")),
        (at(1706745600423), 0.00012, us("2024-02-01T08:00Z")),
        (at(1706774400023), 0.00012, us("2024-02-01T16:00Z")),
    ]
    assert "not as settlements" in part.notes[0]


def test_tardis_quotes_put_the_ask_first_and_the_last_of_an_instant_counts() -> None:
    text = (
        "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount\n"
        "okex-swap,BTC-USD-SWAP,1706745600123000,1,10,101,100,20\n"
        "okex-swap,BTC-USD-SWAP,1706745600123000,2,11,102,99,21\n"
        "okex-swap,BTC-USD-SWAP,1706745600124000,3,,,99,21\n"
    )
    (part,) = read(made("quotes.csv", text))
    assert part.key.stem == "quotes/perp/okx/BTC-USD"
    assert part.frame.rows() == [(at(1706745600123), 99.0, 21.0, 102.0, 11.0)]
    assert len(part.notes) == 2


@pytest.mark.parametrize(
    ("exchange", "name", "instrument"),
    [
        ("binance", "BTCUSDT", "spot:binance:BTC-USDT"),
        ("binance", "BTCTUSD", "spot:binance:BTC-TUSD"),
        ("binance-futures", "1000PEPEUSDT", "perp:binance:1000PEPE-USDT"),
        ("binance-futures", "BTCUSDT_241227", "future:binance:BTC-USDT-20241227"),
        ("binance-delivery", "BTCUSD_PERP", "perp:binance_cm:BTC-USD"),
        ("binance-delivery", "BTCUSD_241227", "future:binance_cm:BTC-USD-20241227"),
        ("bybit", "ETHUSDT", "perp:bybit:ETH-USDT"),
        ("bybit-spot", "ETHUSDT", "spot:bybit:ETH-USDT"),
        ("okex", "ETH-USDT", "spot:okx:ETH-USDT"),
        ("okex-swap", "ETH-USDT-SWAP", "perp:okx:ETH-USDT"),
        ("okex-futures", "ETH-USD-241227", "future:okx:ETH-USD-20241227"),
        ("deribit", "BTC-PERPETUAL", "perp:deribit:BTC-USD"),
        ("deribit", "SOL_USDC-PERPETUAL", "perp:deribit:SOL-USDC"),
        ("deribit", "BTC-3JAN25", "future:deribit:BTC-USD-20250103"),
        ("bitmex", "XBTUSD", "perp:bitmex:BTC-USD"),
        ("bitmex", "XBTZ24", "future:bitmex:BTC-USD-20241227"),
        ("hyperliquid", "kPEPE", "perp:hyperliquid:kPEPE-USDC"),
        ("kraken", "XBT/USD", "spot:kraken:BTC-USD"),
        ("cryptofacilities", "PF_XBTUSD", "perp:kraken:BTC-USD"),
        ("cryptofacilities", "PI_XBTUSD", "perp:kraken_cm:BTC-USD"),
        ("gate-io-futures", "BTC_USDT", "perp:gate:BTC-USDT"),
        ("deribit", "BTC-27DEC24-100000-C", "None"),
    ],
)
def test_tardis_names_of_instruments(exchange: str, name: str, instrument: str) -> None:
    assert str(tardis.instrument(exchange, name)) == instrument


def test_cryptodatadownload_newest_first_with_coins_in_the_header() -> None:
    text = (
        "https://www.CryptoDataDownload.com\n"
        "Unix,Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USDT,tradecount\n"
        f"{T0 + 3600}000,2026-01-01 01:00:00,BTCUSDT,2,4,1,3,812.4,34500120.2,41233\n"
        f"{T0}000,2026-01-01 00:00:00,BTCUSDT,1,3,1,2,12.5,25.5,7\n"
    )
    (part,) = read(made("cdd/Binance_BTCUSDT_1h.csv", text))
    assert part.key.stem == "spot/binance/BTC-USDT" and part.notes == ()
    assert part.frame.sort("ts").rows()[0] == (at(T0 * 1000), 1.0, 3.0, 1.0, 2.0, 12.5)
    older = (
        "https://www.CryptoDataDownload.com\nunix,date,symbol,open,high,low,close,Volume USD,Volume BTC\n"
        f"{T0},2026-01-01 00:00:00,BTC/USD,1,3,1,2,25.5,12.5\n"
    )
    (part,) = read(made("Bitstamp_BTCUSD_d.csv", older))
    assert part.key.stem == "spot/bitstamp/BTC-USD" and part.frame["volume"].to_list() == [12.5]
    (part,) = read(made("Bitstamp_DOTUSD_d.csv", older.replace("BTC/USD", "DOTUSD").replace("BTC", "DOT")))
    assert part.key.symbol == "DOT-USD"
    with pytest.raises(DataError, match="--venue"):
        read(made("hourly.csv", older))
    (part,) = read(made("hourly.csv", older), venue="gemini")
    assert part.key.venue == "gemini"


def test_freqtrade_real_files_equal_what_arrow_reads() -> None:
    import pyarrow.feather

    stems = ["perp/binance/XRP-USDT", "funding/binance/XRP-USDT", "mark/binance/XRP-USDT"]
    for source, stem in zip(raw_files("freqtrade_feather"), stems, strict=True):
        table = pyarrow.feather.read_table(source.path).to_pydict()
        (part,) = read(source, venue="binance")
        assert part.key.stem == stem
        stamps = [value.to_pydatetime() if hasattr(value, "to_pydatetime") else value for value in table["date"]]
        assert part.frame["ts"].to_list() == stamps
        ours = {"rate": "open"} if "funding" in stem else {name: name for name in part.frame.columns if name != "ts"}
        assert set(part.frame.columns) == {"ts", *ours}
        for name, theirs in ours.items():
            assert part.frame[name].to_list() == table[theirs]
    with pytest.raises(DataError, match="--venue"):
        read(raw_files("freqtrade_feather")[0])


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("data/binance/BTC_USDT-5m.feather", "spot/binance/BTC-USDT"),
        ("data/hyperliquid/futures/kPEPE_USDC_USDC-1h-futures.feather", "perp/hyperliquid/kPEPE-USDC"),
        ("data/binance/futures/BTC_USD_BTC-1h-futures.feather", "perp/binance_cm/BTC-USD"),
        ("data/gateio/futures/BTC_USDT_USDT-1h-premiumIndex.feather", "premium/gate/BTC-USDT"),
        ("data/okx/futures/BTC_USDT_USDT-241227-1h-futures.feather", "future/okx/BTC-USDT-20241227"),
    ],
)
def test_freqtrade_names(name: str, stem: str) -> None:
    frame = pl.DataFrame({"date": [at(T0 * 1000)], **dict.fromkeys(("open", "high", "low", "close", "volume"), [1.0])})
    buffer = io.BytesIO()
    frame.write_ipc(buffer)
    (part,) = read(made(name, buffer.getvalue()))
    assert part.key.stem == stem
    with pytest.raises(DataError, match="damaged|cut short"):
        list(freqtrade.FORMATS[0].read(made(name, buffer.getvalue()[:-200]), Options()))


def test_hyperliquid_recording_equals_its_lines_and_sides_agree_with_the_book() -> None:
    (source,) = raw_files("hyperliquid_ws")
    levels, trades, touch, agreed = {}, [], None, 0
    for line in source.data.decode().splitlines():
        message = json.loads(line.split(" ", 1)[1])
        data = message["data"]
        if message["channel"] == "l2Book":
            snapshot = {}
            for side, rows in zip("ba", data["levels"], strict=True):
                for level, row in enumerate(rows):
                    snapshot[side, level] = (float(row["px"]), float(row["sz"]))
            levels[at(data["time"])] = snapshot
            touch = snapshot["b", 0][0], snapshot["a", 0][0]
            continue
        for row in data:
            trades.append((at(row["time"]), str(row["tid"]), float(row["px"]), float(row["sz"]), row["side"] == "A"))
            if touch is not None and float(row["px"]) in touch:
                assert float(row["px"]) == touch[row["side"] == "B"]
                agreed += 1
    book, tape = read(source)
    assert (book.key.stem, tape.key.stem) == ("book/perp/hyperliquid/BTC-USDC", "trades/perp/hyperliquid/BTC-USDC")
    assert tape.frame.rows() == trades and agreed >= 5
    expected = {(ts, *place): value for ts, snapshot in levels.items() for place, value in snapshot.items()}
    assert {row[:3]: row[3:] for row in book.frame.rows()} == expected
    assert book.frame.height == len(expected)


def test_hyperliquid_answers_of_the_info_endpoint() -> None:
    prices = {"o": "1.5", "h": "2", "l": "1", "c": "1.8"}
    candle = {"t": T0 * 1000, "T": T0 * 1000 + 3599999, "s": "kPEPE", "i": "1h", **prices, "v": "12.5", "n": 3}
    text = json.dumps([candle, {**candle, "t": T0 * 1000 + 3600000, "T": T0 * 1000 + 7199999}])
    (part,) = read(made("candles.json", text))
    assert part.key.stem == "perp/hyperliquid/kPEPE-USDC" and part.frame.height == 2
    assert part.frame.rows()[0] == (at(T0 * 1000), 1.5, 2.0, 1.0, 1.8, 12.5)
    assert "may have been running" in part.notes[0]
    (part,) = read(made("candles.json", text), asof="2026-01-01T01:30:00Z")
    assert part.frame.height == 1 and "1 bars left out" in part.notes[0]
    with pytest.raises(DataError, match="spot, perp"):
        read(made("candles.json", text.replace("kPEPE", "@107")))
    (spot,) = read(made("candles.json", text.replace("kPEPE", "@107")), symbol="HYPE-USDC")
    assert spot.key.stem == "spot/hyperliquid/HYPE-USDC"
    funding = [{"coin": "ETH", "fundingRate": "0.0000125", "premium": "-0.0002", "time": T0 * 1000 + 35}]
    (part,) = read(made("funding.json", json.dumps(funding, indent=1)))
    assert part.key.stem == "funding/hyperliquid/ETH-USDC" and part.frame.rows() == [(at(T0 * 1000 + 35), 0.0000125)]
    with pytest.raises(DataError, match="cut short"):
        read(made("funding.json", json.dumps(funding * 2)[:-30]))


GATE = "1767225600,151037,87617.9,87621.6,87598.1,87617.7\n1767229200,9000,87500,87700,87400,87617.9\n"


def test_gate_bars_and_funding() -> None:
    path = "futures_usdt/candlesticks_1h/202601/BTC_USDT-202601.csv"
    with pytest.raises(DataError, match="--contract-size"):
        read(made(path, GATE))
    (part,) = read(made(path, GATE), contract_size=0.0001)
    assert part.key.stem == "perp/gate/BTC-USDT"
    assert part.frame.rows()[0] == (at(T0 * 1000), 87617.7, 87621.6, 87598.1, 87617.9, 151037 * 0.0001)
    (spot,) = read(made("spot/candlesticks_1h/202601/BTC_USDT-202601.csv", GATE), volume_unit="quote")
    assert spot.key.stem == "spot/gate/BTC-USDT" and "volume" not in spot.frame.columns and spot.notes
    rates = "1767225600,0.0001\n1767254400,-0.00005\n"
    (part,) = read(made("futures_usdt/funding_applies/202601/BTC_USDT-202601.csv", rates))
    assert part.key.stem == "funding/gate/BTC-USDT" and part.frame["rate"].to_list() == [0.0001, -0.00005]


def test_kucoin_files_are_read_by_the_names_of_their_columns() -> None:
    (part,) = read(made("fundingRates/XBTUSDTM-2026-01.csv", f"symbol,time,fundingRate\nXBTUSDTM,{T0}000,0.0001\n"))
    assert part.key.stem == "funding/kucoin/BTC-USDT" and part.frame.rows() == [(at(T0 * 1000), 0.0001)]
    spot = f"time,open,close,high,low,volume,turnover\n{T0}000,1,2,3,0.5,12.5,25\n"
    (part,) = read(made("klines/BTCUSDT-1m-2026-01-01.csv", spot))
    assert part.key.stem == "spot/kucoin/BTC-USDT" and part.frame.rows() == [(at(T0 * 1000), 1.0, 3.0, 0.5, 2.0, 12.5)]
    futures = f"time,open,high,low,close,volume\n{T0}000,1,3,0.5,2,1000\n"
    (part,) = read(made("klines/XBTUSDTM-1m-2026-01-01.csv", futures), contract_size=0.001)
    assert part.key.stem == "perp/kucoin/BTC-USDT" and part.frame.rows() == [(at(T0 * 1000), 1.0, 3.0, 0.5, 2.0, 1.0)]
    assert not any(one.recognises(made("my_bars.csv", futures)) for one in FORMATS)


def test_kraken_bars_and_rates() -> None:
    bars = f"{T0},100,103,99,101,12.5,7\n{T0 + 3600},101,101,101,101,0.1,1\n"
    for name, symbol in (("XBTUSD", "BTC-USD"), ("XDGEUR", "DOGE-EUR"), ("ETHXBT", "ETH-BTC"), ("DOTUSD", "DOT-USD")):
        (part,) = read(made(f"Kraken_OHLCVT.zip/{name}_60.csv", bars))
        assert part.key.stem == f"spot/kraken/{symbol}"
        assert part.frame.rows()[0] == (at(T0 * 1000), 100.0, 103.0, 99.0, 101.0, 12.5)
    rates = {"rates": [{"timestamp": "2026-01-01T01:00:00.000Z", "fundingRate": 1.5, "relativeFundingRate": 1.25e-05}]}
    (part,) = read(made("PF_XBTUSD.json", json.dumps(rates)))
    assert part.key.stem == "funding/kraken/BTC-USD" and part.frame.rows() == [(us("2026-01-01T01:00Z"), 1.25e-05)]


BINANCE = "1499040000000,0.0163479,0.8,0.015758,0.015771,148976.1,1499644799999,2434.1,308,1756.8,28.4,0\n"


@pytest.mark.parametrize(
    "source",
    [
        made("BTCUSDT-1h-2026-01.csv", BINANCE),
        made("BTC_USDT-202601.csv", f"{T0},100,103,99,101,12.5\n"),  # ts,open,high,low,close,volume
        made("BTC_USDT-202601.csv", GATE.replace("17672", "1767200002")),  # not seconds
        made("plain.csv", GATE),
        made("rates.csv", f"{T0},0.0001\n"),
        made("BTC_USDT-202601.csv", f"{T0},87617.9\n"),  # a price is no rate
        made("XBTUSD_60.csv", f"{T0},100,99,103,101,12.5,7\n"),  # high below low
        made("XBTUSD_60.csv", f"{T0},100,103,99,101,12.5,7.25\n"),
        made("bars.csv", f"{T0},100,103,99,101,12.5,7\n"),
        made("own.csv", f"timestamp,open,high,low,close,volume\n{T0},1,2,1,2,3\n"),
        made("own.csv", "ts,rate\n2026-01-01T00:00Z,0.0001\n"),
        made("own.json", '[{"time": 1, "rate": 2}]'),
        made("empty.csv", b""),
        made("binary", bytes(range(256)) * 8),
    ],
    ids=lambda source: source.name,
)
def test_foreign_files_are_not_claimed(source: Source) -> None:
    assert [one.name for one in FORMATS if one.recognises(source)] == []


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ("", "no rows"),
        ("BTC-USDT-241227-50000-C,1,sell,5,0.2,1719936000188\n", "no spot, perp or dated future"),
        ("BTC-USDT-SWAP,1,sell,n/a,0.2,1719936000188\n", "price must be a number"),
        ("BTC-USDT-SWAP,1,sell,,0.2,1719936000188\n", "price must not be empty"),
        ("BTC-USDT-SWAP,1,sell,5,0.2,1719936000188\nBTC-USDT-SWAP,2,se", "does not end"),
        ("BTC-USDT-SWAP,1,sell,5,0.2,1719936000188\nBTC-USDT-SWAP,2,se\n", "cells"),
        ("BTC-USDT-SWAP,1,sell,5,0.2,1719936000188,9\n", "cells"),
        ("BTC-USDT-SWAP,1,sell,5,0.2,1719936000188\nBTC-USDT-SWAP,1,sell,5,0.2,1719936000\n", "two units"),
    ],
)
def test_a_damaged_file_is_refused_with_its_name(rows: str, what: str) -> None:
    source = made("dir/x.csv", "instrument_name,trade_id,side,price,size,created_time\n" + rows)
    with pytest.raises(DataError, match=what) as caught:
        list(okx.FORMATS[1].read(source, Options()))
    assert caught.value.where["file"] == "dir/x.csv"


@pytest.mark.parametrize("folder", OURS)
def test_damaged_real_files_end_in_pieces_or_in_our_own_error(folder: str) -> None:
    random, refused = Random(20260101), 0
    for source in raw_files(folder):
        for trial in range(24):
            data = bytearray(source.data)
            if trial % 2:
                del data[random.randrange(len(data)) :]
            else:
                data[random.randrange(min(len(data), 6000))] ^= 1 << random.randrange(8)
            broken = Source(path=source.path, name=source.name, data=bytes(data))
            for form in FORMATS:
                if form.recognises(broken):
                    try:
                        list(form.read(broken, Options(venue="binance")))
                    except DataError as error:
                        assert error.where["file"] == source.name
                        refused += 1
    assert refused > 0


def test_trades_of_unknown_side_are_left_out_and_counted() -> None:
    text = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
    text += "deribit,BTC-PERPETUAL,1706745600123000,1,,buy,1,2\nderibit,BTC-PERPETUAL,1706745600123000,1,,unknown,1,2\n"
    (part,) = read(made("trades.csv", text + "deribit,BTC-PERPETUAL,1706745600123000,1,,sell,3,4\n"))
    assert part.frame["trade_id"].to_list() == ["1706745600123000-0", "1706745600123000-1"]
    assert part.frame["buyer_is_maker"].to_list() == [False, True] and "1 trades left out" in part.notes[0]
    head = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount\n"
    with pytest.raises(DataError, match="bid or ask"):
        read(made("l2.csv", head + "deribit,BTC-PERPETUAL,1706745600123000,1,false,buy,1,2\n"))


def test_a_given_symbol_replaces_the_name_in_a_file_of_one_instrument_only() -> None:
    row = "BTC-USDT-SWAP,1,sell,5,0.2,1719936000188\n"
    head = "instrument_name,trade_id,side,price,size,created_time\n"
    (part,) = read(made("x.csv", head + row), symbol="XBT-USDT", venue="okxus")
    assert part.key.stem == "trades/perp/okxus/XBT-USDT"
    with pytest.raises(DataError, match="--symbol names one"):
        read(made("x.csv", head + row + row.replace("BTC", "ETH")), symbol="XBT-USDT")


def test_expiries() -> None:
    found = [dated_symbol("BTC-USD", text) for text in ("241227", "27DEC24", "3JAN25", "Z24", "H25", "241327", "PERP")]
    assert found == ["BTC-USD-20241227"] * 2 + ["BTC-USD-20250103", "BTC-USD-20241227", "BTC-USD-20250328", None, None]


def test_pieces_can_be_written(tmp_path: Path) -> None:
    source = raw_files("okx_daily")[0]
    found = read(source)
    kept = pl.concat(pl.read_parquet(write_series(tmp_path, part.key, part.frame)) for part in found)
    rates = [float(row["real_funding_rate"]) for row in csv.DictReader(io.StringIO(source.data.decode()))]
    assert kept.height == len(rates) == 666
    assert math.isclose(kept["rate"].sum(), math.fsum(rates), rel_tol=1e-12)
