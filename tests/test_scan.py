"""The scan of a market folder: every number against plain loops over the settlements, and the ranking's rules."""

import json
import math
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import matplotlib.image
import polars as pl
import pytest
from click.testing import CliRunner
from realdata import real_market

from basis_bt.cli.data_scan import command
from basis_bt.core.errors import ConfigError, DataError, StoreError
from basis_bt.core.instruments import Instrument
from basis_bt.core.rulebook import fee_bps
from basis_bt.market.scan import COLUMNS, NUMBERS, coin, scan
from basis_bt.reports.scan_chart import scan_figure, write_scan_chart

START = datetime(2024, 1, 1, tzinfo=UTC)
SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"
CLOSE = {"rel": 1e-9, "abs": 1e-12}  # sums are taken in another order


def put(root, frame, path):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(file)


def funding(rates, *, hours=8, first=START, drop=()):
    rows = [(first + timedelta(hours=hours * i), rate) for i, rate in enumerate(rates) if i not in drop]
    return pl.DataFrame(rows, schema={"ts": pl.Datetime("us", "UTC"), "rate": pl.Float64}, orient="row")


def spot():
    bars = pl.DataFrame({"ts": [START]}, schema={"ts": pl.Datetime("us", "UTC")})
    return bars.with_columns(open=1.0, high=1.0, low=1.0, close=1.0)


def one(table, venue, symbol):
    return table.row(by_predicate=(pl.col("venue") == venue) & (pl.col("symbol") == symbol), named=True)


def by_hand(path, *, hours_of):
    """APR, APRs of windows, weeks, share positive and worst window by loops; ``hours_of`` gives a row's interval."""
    rows = list(pl.read_parquet(path).sort("ts").iter_rows(named=True))
    stamps = [row["ts"] for row in rows]
    nearest = [datetime.fromtimestamp(round(ts.timestamp() / 3600) * 3600, tz=UTC) for ts in stamps]
    items = [(ts, row["rate"], hours_of(ts, row)) for ts, row in zip(nearest, rows, strict=True)]

    def apr(part):
        return math.fsum(rate for _, rate, _ in part) * 8760 / sum(hours for _, _, hours in part)

    def window(last, days):
        return [item for item in items if last - timedelta(days=days) < item[0] <= last]

    last = nearest[-1]
    weeks = []
    for k in range(int((last - nearest[0]).days / 7) + 1):
        part = [i for i in items if timedelta(days=7 * k) <= last - i[0] < timedelta(days=7 * (k + 1))]
        if sum(hours for _, _, hours in part) >= 84:
            weeks.append(apr(part))
    mean = math.fsum(weeks) / len(weeks)
    whole = apr(items)
    return {
        "settlements": len(items),
        "apr": whole,
        "apr_30d": apr(window(last, 30)),
        "apr_90d": apr(window(last, 90)),
        "positive_frac": sum(rate > 0 for _, rate, _ in items) / len(items),
        "apr_std": math.sqrt(math.fsum((week - mean) ** 2 for week in weeks) / (len(weeks) - 1)),
        "stability": sum((week > 0) == (whole > 0) and week != 0 for week in weeks) / len(weeks),
    }


@pytest.mark.parametrize(
    ("venue", "symbol", "hours_of"),
    [
        ("binance", "BTC-USDT", lambda ts, row: 8),
        ("binance", "ENA-USDT", lambda ts, row: 4),
        ("bybit", "SOL-USDT", lambda ts, row: 8),
        ("okx", "BTC-USDT", lambda ts, row: 8),
        ("okx", "TRB-USDT", lambda ts, row: row["interval_hours"]),
        ("kraken", "ETH-USD", lambda ts, row: 1),
        ("hyperliquid", "BTC-USDC", lambda ts, row: row["interval_hours"]),
    ],
)
def test_real_numbers_equal_plain_sums(scanned, venue, symbol, hours_of):
    row = one(scanned, venue, symbol)
    expected = by_hand(real_market() / "funding" / venue / f"{symbol}.parquet", hours_of=hours_of)
    assert {name: row[name] for name in expected} == pytest.approx(expected, **CLOSE)


@pytest.fixture(scope="module")
def scanned():
    return scan(real_market())


def test_every_universe_apr_equals_a_plain_sum(scanned):
    universe = pl.read_parquet(real_market() / "funding_universe" / "okx.parquet").sort("ts")
    rates, stamps = {}, {}
    for row in universe.iter_rows(named=True):
        rates.setdefault(row["instrument"].removesuffix("-SWAP"), []).append(row["rate"])
        stamps.setdefault(row["instrument"].removesuffix("-SWAP"), []).append(row["ts"])
    compared = 0
    for row in scanned.filter(source="universe").iter_rows(named=True):
        gaps = {b - a for a, b in zip(stamps[row["symbol"]][:-1], stamps[row["symbol"]][1:], strict=True)}
        short = min(gaps)
        if all(gap == short or gap >= timedelta(hours=24) for gap in gaps):  # one interval throughout
            hours = len(rates[row["symbol"]]) * (short / timedelta(hours=1))
            assert row["apr"] == pytest.approx(math.fsum(rates[row["symbol"]]) * 8760 / hours, **CLOSE), row["symbol"]
            compared += 1
    assert compared >= 200


def test_worst_month_equals_a_loop_over_all_windows(scanned):
    rows = pl.read_parquet(real_market() / "funding" / "bybit" / "ETH-USDT.parquet").sort("ts")
    stamps, rates = rows["ts"].to_list(), rows["rate"].to_list()
    worst = min(
        math.fsum(rates[end - 90 : end]) * 8760 / 720
        for end in range(90, len(rates) + 1)
        if stamps[end - 1] - stamps[end - 90] == timedelta(hours=712)
    )
    assert one(scanned, "bybit", "ETH-USDT")["worst_30d_apr"] == pytest.approx(worst, **CLOSE)


def test_autocorrelation_equals_the_textbook_one(scanned):
    rates = pl.read_parquet(real_market() / "funding" / "binance" / "ETH-USDT.parquet").sort("ts")["rate"].to_list()
    x, y = rates[:-1], rates[1:]
    mx, my = math.fsum(x) / len(x), math.fsum(y) / len(y)
    cov = math.fsum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    var = math.fsum((a - mx) ** 2 for a in x) * math.fsum((b - my) ** 2 for b in y)
    assert one(scanned, "binance", "ETH-USDT")["autocorrelation"] == pytest.approx(cov / math.sqrt(var), rel=1e-9)


def test_everything_loaded_is_scanned_within_two_seconds():
    scan(SAMPLE)
    began = time.perf_counter()
    table = scan(real_market())
    assert time.perf_counter() - began < 2.0
    assert len(table) >= 357
    assert table.schema == pl.Schema(COLUMNS)
    assert table["rank"].to_list() == list(range(1, len(table) + 1))


def test_costs_come_from_the_rulebook(scanned):
    row = one(scanned, "bybit", "BTC-USDT")
    day = row["last"].date()
    fees = [fee_bps(Instrument(kind, "bybit", "BTC-USDT"), liquidity="taker", on=day) for kind in ("perp", "spot")]
    assert row["round_trip_bps"] == 2 * fees[0] + 2 * fees[1]
    assert row["net_apr"] == pytest.approx(row["apr"] - row["round_trip_bps"] / 1e4 * 8760 / 168, **CLOSE)
    assert row["breakeven_hold_hours"] == pytest.approx(row["round_trip_bps"] / (row["apr"] * 1e4 / 8760), **CLOSE)
    assert row["spot"].split(",") == ["binance", "bybit", "hyperliquid"]


def test_no_perp_with_a_negative_apr_breaks_even(scanned):
    negative = scanned.filter(pl.col("apr") <= 0)
    assert len(negative) >= 50
    assert negative["breakeven_hold_hours"].null_count() == len(negative)
    assert scanned.filter(pl.col("apr") > 0, pl.col("round_trip_bps") > 0)["breakeven_hold_hours"].null_count() == 0


def test_a_constant_rate_has_the_apr_of_its_interval(tmp_path):
    for hours, symbol in ((1, "A-USDT"), (4, "B-USDT"), (8, "C-USDT")):
        rate = 1e-4 * hours / 8
        put(tmp_path, funding([rate] * (120 * 24 // hours), hours=hours), f"funding/okx/{symbol}.parquet")
    table = scan(tmp_path)
    for row in table.iter_rows(named=True):
        for name in ("apr", "apr_30d", "apr_90d", "worst_30d_apr"):
            assert row[name] == pytest.approx(1e-4 * 3 * 365, rel=1e-12), (row["symbol"], name)
        assert (row["stability"], row["quality"], row["positive_frac"], row["notes"]) == (1.0, 1.0, 1.0, None)
        assert row["apr_std"] == pytest.approx(0.0, abs=1e-12)


def test_a_hole_neither_lowers_nor_raises_the_apr(tmp_path):
    put(tmp_path, funding([1e-4] * 600, drop=range(100, 130)), "funding/okx/A-USDT.parquet")
    row = one(scan(tmp_path), "okx", "A-USDT")
    assert row["apr"] == pytest.approx(1e-4 * 3 * 365, rel=1e-12)
    assert (row["quality"], row["notes"]) == (570 / 600, "30 missing (holes: 1)")
    after = one(scan(tmp_path, start=START + timedelta(hours=8 * 130)), "okx", "A-USDT")
    assert (after["settlements"], after["quality"], after["notes"]) == (470, 1.0, None)


def test_an_interval_change_counts_each_settlement_by_its_own(tmp_path):
    eight = funding([8e-5] * 90)
    hourly = funding([1e-5] * 720, hours=1, first=START + timedelta(hours=8 * 89 + 1))
    put(tmp_path, pl.concat([eight, hourly]), "funding/okx/A-USDT.parquet")
    row = one(scan(tmp_path), "okx", "A-USDT")
    assert row["apr"] == pytest.approx(8e-5 / 8 * 8760, rel=1e-12)
    assert (row["quality"], row["notes"]) == (1.0, "short history: 59 days")


def test_jitter_moves_no_settlement_between_windows(tmp_path):
    rates = [1e-4 * (i % 7) for i in range(900)]
    late = funding(rates).with_columns(
        pl.col("ts") + pl.Series([timedelta(milliseconds=(i * 37) % 900) for i in range(900)])
    )
    put(tmp_path, funding(rates), "funding/okx/A-USDT.parquet")
    put(tmp_path, late, "funding/okx/B-USDT.parquet")
    table = scan(tmp_path)
    exact, jittered = (one(table, "okx", f"{name}-USDT") for name in "AB")
    assert [jittered[name] for name in NUMBERS] == pytest.approx([exact[name] for name in NUMBERS], rel=1e-12)


def test_its_own_file_wins_over_the_universe(tmp_path):
    put(tmp_path, funding([2e-4] * 120), "funding/okx/BTC-USDT.parquet")
    names = [("BTC-USDT-SWAP", 9e-4), ("BTC-USD-SWAP", 1e-4)]
    both = pl.concat([funding([rate] * 200).with_columns(instrument=pl.lit(name)) for name, rate in names])
    put(tmp_path, both, "funding_universe/okx.parquet")
    table = scan(tmp_path)
    assert {row["symbol"]: (row["source"], row["settlements"]) for row in table.iter_rows(named=True)} == {
        "BTC-USDT": ("file", 120),
        "BTC-USD": ("universe", 200),
    }
    assert scan(tmp_path, quotes=["usd"])["symbol"].to_list() == ["BTC-USD"]


def test_a_series_in_parts_is_scanned_whole(tmp_path):
    whole = funding([1e-4 * (i % 5) for i in range(300)])
    put(tmp_path, whole[:150], "funding/okx/A-USDT/1.parquet")
    put(tmp_path, whole[150:], "funding/okx/A-USDT/2.parquet")
    put(tmp_path, whole, "funding/okx/B-USDT.parquet")
    parts, file = (one(scan(tmp_path), "okx", f"{name}-USDT") for name in "AB")
    assert [parts[name] for name in NUMBERS] == pytest.approx([file[name] for name in NUMBERS], rel=1e-12)


def test_start_and_end_are_from_and_before(tmp_path):
    put(tmp_path, funding([float(i) * 1e-6 for i in range(300)]), "funding/okx/A-USDT.parquet")
    table = scan(tmp_path, start=START + timedelta(hours=80), end=START + timedelta(hours=800))
    row = one(table, "okx", "A-USDT")
    assert (row["settlements"], row["first"], row["last"]) == (
        90, START + timedelta(hours=80), START + timedelta(hours=792),
    )  # fmt: skip
    assert row["apr"] == pytest.approx(sum(range(10, 100)) * 1e-6 * 8760 / 720, rel=1e-12)
    assert row["apr_30d"] == pytest.approx(row["apr"], rel=1e-12)
    assert row["apr_90d"] is None


def test_repeated_rows_and_rates_that_are_no_numbers_are_left_out_and_told(tmp_path):
    rows = funding([1e-4] * 400)
    bad = funding([math.nan], first=START + timedelta(hours=8 * 400))
    put(tmp_path, pl.concat([rows, rows[10:13], bad]), "funding/okx/A-USDT.parquet")
    row = one(scan(tmp_path), "okx", "A-USDT")
    assert row["settlements"] == 400
    assert row["apr"] == pytest.approx(1e-4 * 3 * 365, rel=1e-12)
    assert row["notes"] == "3 duplicates; 1 rates not finite"


def test_a_history_too_short_has_no_windows_and_no_stability(tmp_path):
    put(tmp_path, funding([1e-3] * 60), "funding/okx/A-USDT.parquet")
    row = one(scan(tmp_path), "okx", "A-USDT")
    assert [row[name] for name in ("apr_30d", "apr_90d", "worst_30d_apr", "apr_std", "stability")] == [None] * 5
    assert (row["score"], row["notes"]) == (0.0, "short history: 19 days")


def test_an_interval_nobody_knows_gives_no_apr(tmp_path):
    put(tmp_path, funding([1e-4]), "funding/okx/A-USDT.parquet")
    put(tmp_path, funding([1e-4]).with_columns(interval_hours=pl.lit(8, pl.Int32)), "funding/okx/B-USDT.parquet")
    table = scan(tmp_path)
    assert one(table, "okx", "A-USDT")["apr"] is None
    assert "interval unknown" in one(table, "okx", "A-USDT")["notes"]
    assert one(table, "okx", "B-USDT")["apr"] == pytest.approx(1e-4 * 1095, rel=1e-12)


def test_doubt_never_helps_the_rank(tmp_path):
    steady, wild = [3e-4] * 630, [9e-4 if i // 21 % 2 else -3e-4 for i in range(630)]
    put(tmp_path, funding(steady), "funding/okx/STEADY-USDT.parquet")
    put(tmp_path, funding(wild), "funding/okx/WILD-USDT.parquet")
    put(tmp_path, funding([-rate for rate in steady]), "funding/okx/LOSS-USDT.parquet")
    put(tmp_path, funding([-rate for rate in wild]), "funding/okx/WILDLOSS-USDT.parquet")
    table = scan(tmp_path)
    assert table["symbol"].to_list() == ["STEADY-USDT", "WILD-USDT", "LOSS-USDT", "WILDLOSS-USDT"]
    for row in table.iter_rows(named=True):
        assert row["score"] <= row["net_apr"]


def test_a_venue_without_fees_is_ranked_last_with_a_note(tmp_path):
    put(tmp_path, funding([9e-4] * 400), "funding/mars/BTC-USDT.parquet")
    put(tmp_path, funding([1e-4] * 400), "funding/hyperliquid/BTC-USDC.parquet")
    put(tmp_path, funding([1e-4] * 400), "funding/hyperliquid/kPEPE-USDC.parquet")
    put(tmp_path, spot(), "spot/kraken/BTC-USD.parquet")
    put(tmp_path, spot(), "spot/binance/1000BTC-USDT.parquet")
    put(tmp_path, spot(), "spot/hyperliquid/UBTC-USDC.parquet")
    table = scan(tmp_path)
    assert table["venue"].to_list() == ["hyperliquid", "mars", "hyperliquid"]
    mars, btc = one(table, "mars", "BTC-USDT"), one(table, "hyperliquid", "BTC-USDC")
    assert (mars["round_trip_bps"], mars["score"], mars["notes"]) == (None, None, "no perp fee known for mars")
    assert (btc["spot"], btc["notes"]) == ("binance,hyperliquid,kraken", "spot fee of binance")
    assert one(table, "hyperliquid", "kPEPE-USDC")["spot"] is None


@pytest.mark.parametrize(
    ("symbol", "name"),
    [("BTC-USDT", "BTC"), ("1000PEPE-USDT", "PEPE"), ("1000000MOG-USDT", "MOG"), ("kPEPE-USDC", "PEPE"),
     ("1INCH-USDT", "1INCH"), ("KAVA-USDT", "KAVA"), ("1000-USDT", "1000")],
)  # fmt: skip
def test_a_coin_is_known_under_its_scaled_names(symbol, name):
    assert coin(symbol) == name


def test_an_unreadable_series_is_a_row_with_its_reason(tmp_path):
    put(tmp_path, funding([1e-4] * 400), "funding/okx/A-USDT.parquet")
    (tmp_path / "funding/okx/B-USDT.parquet").write_bytes(b"nothing")
    put(tmp_path, funding([1e-4]).drop("rate"), "funding/okx/C-USDT.parquet")
    table = scan(tmp_path)
    assert table["symbol"].to_list() == ["A-USDT", "B-USDT", "C-USDT"]
    assert "unreadable: the file cannot be read as parquet" in one(table, "okx", "B-USDT")["notes"]
    assert one(table, "okx", "C-USDT")["notes"] == "unreadable: it has no column rate"


def test_a_folder_without_funding_is_an_empty_table(tmp_path):
    put(tmp_path, spot(), "spot/kraken/BTC-USD.parquet")
    assert scan(tmp_path).schema == pl.Schema(COLUMNS)
    assert scan(tmp_path).is_empty()
    with pytest.raises(DataError, match="does not exist"):
        scan(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="hold_hours"):
        scan(tmp_path, hold_hours=0.0)


def cli(*options):
    return CliRunner().invoke(command, ["--root", str(SAMPLE), *options], catch_exceptions=False)


def test_the_command_prints_the_best_first():
    lines = cli("--top", "2").stdout.splitlines()
    assert lines[0].split()[:4] == ["rank", "perp", "apr", "30d"]
    best = scan(SAMPLE).row(0, named=True)
    assert lines[1].split()[:3] == ["1", f"{best['venue']}:{best['symbol']}", f"{100 * best['apr']:.1f}%"]
    assert lines[3] == "2 of 6 perps, by score"


def test_the_command_gives_every_column_to_programs():
    rows = json.loads(cli("--format", "json", "--sort", "breakeven_hold_hours").stdout)
    assert list(rows[0]) == list(COLUMNS)
    holds = [row["breakeven_hold_hours"] for row in rows]
    assert holds == sorted(holds)
    assert len(rows) == 6


def test_the_command_takes_spans_holds_and_quotes():
    short = cli("--start", "2024-03-01", "--end", "2024-03-20T00:00Z").stdout
    assert "no perp with 30 days of funding" in short
    assert "6 of 6" in cli("--start", "2024-03-01", "--end", "2024-03-20", "--min-history-days", "0").stdout
    assert "held 72 hours" in cli("--hold-hours", "3d").stdout
    assert "no perp" in cli("--quotes", "EUR").stdout


@pytest.mark.parametrize("options", [("--start", "tomorrow"), ("--end", "2024-03-01T00:00"), ("--hold-hours", "long")])
def test_the_command_says_what_an_option_should_be(options):
    with pytest.raises(ConfigError, match=options[0]):
        cli(*options)


def test_the_chart_is_a_picture_with_the_best_by_name(tmp_path):
    table = scan(SAMPLE)
    figure = scan_figure(table, hold_hours=168.0)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(texts) == sorted(table["symbol"])
    path = write_scan_chart(table, tmp_path / "new" / "scan.png", hold_hours=168.0)
    assert matplotlib.image.imread(path).shape[:2] == (1080, 1650)


def test_the_chart_labels_no_more_than_twenty_and_marks_what_is_below():
    figure = scan_figure(scan(real_market()), hold_hours=168.0)
    axes = figure.axes[0]
    assert 15 <= len([text for text in axes.texts if text.get_text()]) <= 20
    keys = [text.get_text() for text in axes.get_legend().get_texts()]
    assert any("below" in key for key in keys)
    assert "fees not known" in keys


def test_a_chart_of_nothing_says_so_and_a_place_that_cannot_be_written_too(tmp_path):
    empty = scan(SAMPLE).clear()
    assert "no perp has the weeks for it" in [t.get_text() for t in scan_figure(empty, hold_hours=168.0).axes[0].texts]
    (tmp_path / "plain").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_scan_chart(scan(SAMPLE), tmp_path / "plain" / "scan.png", hold_hours=168.0)


def test_the_command_draws_on_request(tmp_path):
    result = cli("--chart", str(tmp_path / "scan.png"))
    assert result.stdout.splitlines()[-1] == f"chart: {tmp_path / 'scan.png'}"
    assert (tmp_path / "scan.png").stat().st_size > 10_000
