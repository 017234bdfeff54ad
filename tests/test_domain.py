"""Other series a run names: their columns in the frame, and that each value was known when its row ended."""

from datetime import datetime, timedelta

import polars as pl
import pytest
from bad_inputs import START, START_MS, configuration, instants, write_healthy

import basis_bt
from basis_bt.core.errors import ConfigError, DataError
from basis_bt.core.instruments import Combo, Leg
from basis_bt.core.models import Data
from basis_bt.frames.panel import load_panel
from basis_bt.market.schemas import SERIES, SeriesKey, key_of_path
from basis_bt.market.write import write_series

LEGS = Combo(legs=[Leg(instrument=f"{kind}:binance:BTC-USDT", ratio=ratio)
                   for kind, ratio in (("spot", 1.0), ("perp", -1.0))])  # fmt: skip
HOUR = 3_600_000


def hourly(**columns):
    length = len(next(iter(columns.values())))
    return pl.DataFrame({"ts": instants([START_MS + HOUR * k for k in range(length)]), **columns})


def frame_of(root, *names, **options):
    data = Data(root=str(root), start=START, end=START + timedelta(days=20), series=list(names), **options)
    panel = load_panel(data, LEGS)
    return panel.frame[panel.n_warmup :], panel


@pytest.fixture
def root(tmp_path):
    write_healthy(tmp_path)
    return tmp_path


def test_a_bar_is_known_at_its_end_and_for_one_step(root):
    values = [k / 1e6 for k in range(480)]
    rows = hourly(open=values, close=[value + 1e-7 for value in values])
    write_series(root, SeriesKey("premium", "binance", "BTC-USDT"), pl.concat([rows[:100], rows[103:]]))
    frame, panel = frame_of(root, "premium")
    expected = rows["close"].to_list()
    expected[100:103] = [None] * 3
    assert frame["premium_close_1"].to_list() == expected
    assert [series.key.series for series in panel.series].count("premium") == 1


def test_a_prediction_is_known_at_its_stamp_until_its_settlement(root):
    stamps = [START + timedelta(hours=2, minutes=5), START + timedelta(hours=5, minutes=59)]
    due = [START + timedelta(hours=8)] * 2
    rows = pl.DataFrame({"ts": stamps, "rate": [1e-4, 2e-4], "settlement_ts": due})
    write_series(root, SeriesKey("predicted", "binance", "BTC-USDT"), rows)
    frame, _ = frame_of(root, "predicted")
    # row k ends at k + 1 hours: known from the end of row 2 on, gone at the end of row 7
    assert frame["predicted_rate_1"][:9].to_list() == [None, None, 1e-4, 1e-4, 1e-4, 2e-4, 2e-4, None, None]


def test_rates_hold_until_the_next_and_belong_to_coins_and_quotes(root):
    day = [START, START + timedelta(days=2)]
    write_series(root, SeriesKey("borrow", "binance", "BTC"), pl.DataFrame({"ts": day, "rate_apr": [0.03, 0.05]}))
    write_series(root, SeriesKey("quote_usd", "binance", "USDT"), pl.DataFrame({"ts": day, "close": [0.9998, 1.0001]}))
    frame, _ = frame_of(root, "borrow", "quote_usd")
    assert frame["borrow_rate_apr_0"].to_list() == [0.03] * 47 + [0.05] * (480 - 47)
    assert frame["quote_usd_close_0"].to_list() == frame["quote_usd_close_1"].to_list()
    assert "borrow_rate_apr_1" not in frame.columns


def test_a_series_without_a_leg_is_named_by_its_path(root):
    days = pl.DataFrame({"ts": [START, START + timedelta(days=1)], "liquidity_index": [1.01, 1.02],
                         "variable_borrow_index": [1.03, 1.04], "supply_rate": [0.01, 0.02]})  # fmt: skip
    write_series(root, SeriesKey("lending", "aave_v3_ethereum", "WETH"), days)
    write_series(root, SeriesKey("lst", "ethereum", "wstETH-ETH"), days.select("ts", ratio="liquidity_index"))
    frame, _ = frame_of(root, "onchain/aave_v3_ethereum/WETH", "lst/ethereum/wstETH-ETH")
    assert frame["weth_liquidity_index"][22:24].to_list() == [1.01, 1.02]
    assert frame["weth_supply_rate"][23] == 0.02
    assert frame["wsteth_eth_ratio"][0] == 1.01


def test_a_run_trades_on_a_series_it_names(root):
    values = [1e-4 if k % 48 < 24 else -1e-4 for k in range(720)]
    write_series(root, SeriesKey("premium", "binance", "BTC-USDT"), hourly(open=values, close=values))
    config = configuration(root, "strict")
    config["data"]["series"] = ["premium"]
    config["signal"] = {"name": "sql", "sql": "premium_close_1 * 1e4"}
    config["rule"] = {"entry": 0.5, "exit": -0.5}
    result = basis_bt.run(config)
    assert result.metrics["n_trades"].item() == 15
    first = result.trades["entry_ts"][0]
    assert first == START + timedelta(hours=1), "the close of the first bar is known when the second opens"
    assert any(row["series"] == "premium" for row in result.manifest["inputs"])


@pytest.mark.parametrize("name", ["funding", "trades/spot/binance/BTC-USDT", "perp/binance/BTC-USDT", "moon", ""])
def test_a_name_that_means_nothing_is_refused(root, name):
    with pytest.raises(ConfigError, match="is no series a run can name"):
        frame_of(root, name)


def test_a_named_series_that_is_missing_or_impossible_is_refused(root):
    with pytest.raises(DataError, match="no index file for perp:binance:BTC-USDT"):
        frame_of(root, "index")
    bad = hourly(open=[1.0, 1.0, 1.0], close=[1.0, -1.0, 1.0])
    write_series(root, SeriesKey("index", "binance", "BTC-USDT"), bad)
    with pytest.raises(DataError, match="close must be a number above 0, found -1.0"):
        frame_of(root, "index")


def test_every_kind_of_series_is_found_again_by_its_path():
    for name, spec in SERIES.items():
        venue = "gas" if name == "gas" else "somewhere"
        key = SeriesKey(name, venue, "BTC-USDT", "perp" if spec.by_kind else "")
        assert key_of_path(key.path) == key
        assert set(spec.key) <= set(spec.required)
        assert set(spec.positive) | set(spec.not_negative) <= set(spec.columns)


def test_a_stamp_is_written_in_milliseconds_only_if_that_loses_nothing(tmp_path):
    key = SeriesKey("borrow", "okx", "BTC")
    for micros, unit in ((0, "ms"), (1, "us")):
        ts = [datetime.fromisoformat("2024-01-01T00:00:00+00:00") + timedelta(microseconds=micros)]
        path = write_series(tmp_path, key, pl.DataFrame({"ts": ts, "rate_apr": [0.1]}))
        assert pl.read_parquet_schema(path)["ts"] == pl.Datetime(unit, "UTC")
        assert pl.read_parquet(path)["ts"].to_list() == ts
