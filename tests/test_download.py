"""Downloading: the real client against venues on the loopback, compared with the market model behind them."""

import ast
import asyncio
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from fake_venues import FakeVenue, Fault, Listing, MarketModel
from hypothesis import given, settings
from hypothesis import strategies as st

import basis_bt
from basis_bt.cli.main import entry
from basis_bt.core.errors import ConfigError, DataError
from basis_bt.market.download import download
from basis_bt.market.exchange import open_client
from basis_bt.market.paging import pages
from basis_bt.market.series_file import joined, left_over
from basis_bt.market.venue_history import VENUES, Row
from basis_bt.market.write import covered_spans_us

HOUR_MS = 3_600_000
NOW_MS = 1_767_244_834_567  # 2026-01-01 05:20:34.567 UTC
TOP_MS = NOW_MS // HOUR_MS * HOUR_MS
MIDNIGHT_MS = TOP_MS - 5 * HOUR_MS
START_MS = TOP_MS - 2600 * HOUR_MS
FAULTS = (
    Fault(at=(9,), status=429, headers=(("Retry-After", "7"),)),
    Fault(at=(11,), reset=True),
    Fault(at=(13,), cut=True),
    Fault(at=(15,), status=200, body="<html>maintenance</html>"),
    Fault(at=(17,), status=200, body={"odd": 1}),
    Fault(at=(19,), status=200, body="null"),
    Fault(every=7, status=500),
)
KINDS = ("spot", "perp", "mark", "index", "premium", "funding")
SERIES = {"spot": "trades", "perp": "trades"}


def market(**changes):
    """BTC on everything with funding every 8, then 4, then 1 h; SOL listed late; two days without a venue."""
    change = {"funding_hours": ((0, 8), (MIDNIGHT_MS - 1496 * HOUR_MS, 4), (MIDNIGHT_MS - 496 * HOUR_MS, 1))}
    late_ms = TOP_MS - 733 * HOUR_MS
    listings = [
        *(Listing(kind="spot", base=base, quote=quote) for base in ("ETH", "BTC") for quote in ("USDT", "USDC")),
        *(Listing(kind="linear", base=base, quote=quote, contract_size=0.01, **change)
          for base in ("ETH", "BTC") for quote in ("USDT", "USDC")),
        Listing(kind="inverse", base="BTC", quote="USD", contract_size=100.0, **change),
        *(Listing(kind=kind, base="SOL", quote=quote, listed_ms=late_ms)
          for kind in ("spot", "linear") for quote in ("USDT", "USDC")),
        Listing(kind="inverse", base="SOL", quote="USD", contract_size=10.0, listed_ms=late_ms),
    ]  # fmt: skip
    hole = (TOP_MS - 1400 * HOUR_MS, TOP_MS - 1352 * HOUR_MS)
    return MarketModel(**{"listings": listings, "now_ms": NOW_MS, "outages": [hole], "jitter_ms": 40} | changes)


def instant(ms):
    return datetime.fromtimestamp(ms / 1000, UTC)


def fetch(venue, root, symbols, kinds, *, name="binance", sleeps=None, **options):
    """Download with the model's clock, without waiting."""

    async def sleep(seconds):
        (sleeps if sleeps is not None else []).append(seconds)
        await asyncio.sleep(0)

    config = {"enableRateLimit": False, "timeout_on_exit": 5}
    given_options = {"start": instant(START_MS), "clock": lambda: venue.model.now_ms * 1000, "sleep": sleep} | options
    factory = partial(open_client, base_url=venue.url, config=config)
    return download(name, symbols, kinds, root=root, client_factory=factory, **given_options)


def expected(model, kind, symbol, first_ms, last_ms, *, step_ms=HOUR_MS):
    """What the file must hold, from the model alone: complete bars, or settlements with their intervals."""
    base, quote = symbol.split("-")
    listing = model.find("spot" if kind == "spot" else "inverse" if quote == "USD" else "linear", base, quote)
    if kind == "funding":
        stamps = model.settlement_stamps(listing, first_ms, last_ms - 1)
        return [(ts, float(model.rate(listing, ts)), model.interval_hours(listing, ts - 1)) for ts in stamps]
    stamps = model.bar_stamps(listing, step_ms, first_ms, last_ms - 1)
    bars = [(ts, model.bar(listing, SERIES.get(kind, kind), ts, step_ms)) for ts in stamps
            if model.is_complete(ts, step_ms)]  # fmt: skip
    return [(ts, *(float(x) for x in bar[: 5 if kind in SERIES else 4])) for ts, bar in bars]


def found(root, kind, venue, symbol):
    """Rows of a file in the order of ``expected``."""
    frame = pl.read_parquet(root / kind / venue / f"{symbol}.parquet").with_columns(pl.col("ts").dt.epoch("ms"))
    if kind == "funding":
        return frame.select("ts", "rate", "interval_hours").rows()
    return frame.select("ts", "open", "high", "low", "close", *(["volume"] if kind in SERIES else [])).rows()


CASES = {
    "binance": ("binance", ("BTC", "SOL-USDT"), ()),
    "binance_cm": ("binance", ("BTC", "SOL"), ()),
    "binance-empty-in-holes": ("binance", ("BTC", "SOL"), ("windowed",)),
    "bybit": ("bybit", ("BTC", "SOL", "BTC-USD"), ()),
    "bybit-empty-in-holes": ("bybit", ("BTC",), ("windowed",)),
    "okx": ("okx", ("BTC", "SOL", "BTC-USD"), ()),
    "okx-empty-in-holes": ("okx", ("SOL",), ("windowed",)),
    "hyperliquid": ("hyperliquid", ("BTC", "SOL"), ()),
}


@pytest.fixture(scope="module", params=CASES)
def downloaded(request, tmp_path_factory):
    """All kinds of several symbols at once, from a venue that fails in every way now and then."""
    server, symbols, quirks = CASES[request.param]
    name = request.param.split("-")[0]
    root, sleeps = tmp_path_factory.mktemp(request.param), []
    with FakeVenue(server, market(), faults=FAULTS, quirks=quirks) as venue:
        outcomes = fetch(venue, root, symbols, KINDS, name=name, sleeps=sleeps, pages_per_write=3)
    full = [symbol if "-" in symbol else f"{symbol}-{VENUES[name].quote}" for symbol in symbols]
    return name, full, root, venue, {outcome.series: outcome for outcome in outcomes}, sleeps


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_markets_to_the_bit(downloaded, kind):
    name, symbols, root, venue, outcomes, _ = downloaded
    for symbol in symbols:
        outcome = outcomes[f"{kind}/{name}/{symbol}"]
        if kind not in VENUES[name].kinds:
            assert outcome.status == "none" and f"serves no history of {kind}" in outcome.notes[0]
            continue
        if kind == "spot" and symbol.endswith("-USD"):
            assert outcome.status == "failed" and "lists no spot market BTC-USD" in outcome.error
            continue
        assert outcome.status == "done", outcome.error
        first_ms = START_MS
        if (name, kind) == ("okx", "funding"):
            first_ms = NOW_MS - 92 * 24 * HOUR_MS
            assert "92 days" in outcome.notes[0] or symbol == "SOL-USDT"
        rows = found(root, kind, name, symbol)
        assert rows == expected(venue.model, kind, symbol, first_ms, NOW_MS)
        assert len(rows) == outcome.rows == outcome.rows_new > 0


def test_retry_after_is_obeyed_and_other_failures_back_off(downloaded):
    *_, venue, outcomes, sleeps = downloaded
    assert sleeps.count(7.0) == 1 and len(sleeps) >= len(FAULTS) - 1 and min(sleeps) > 0.3


def test_one_sided_questions_only(downloaded):
    _, _, _, venue, _, _ = downloaded
    asked = [(path, params) for _, _, path, params in venue.log]
    assert not any("before" in params for _, params in asked)
    assert not any("startTime" in params and "endTime" not in params for path, params in asked if "funding/" in path)


def test_spans_on_file_are_joined_and_asked_once(downloaded):
    name, symbols, root, venue, _, _ = downloaded
    n_asked = len(venue.log)
    if name in ("okx", "hyperliquid"):  # what they no longer serve is asked for again
        return
    with FakeVenue(venue.name, venue.model) as again:
        early = instant(TOP_MS - 2 * HOUR_MS)  # the last hour is asked again: a settlement may show late
        outcomes = fetch(again, root, symbols, ["perp", "funding"], name=name, end=early)
    history = [path for _, _, path, _ in again.log if "xchangeInfo" not in path and "instruments" not in path]
    assert n_asked > 20 and history == [] and all(outcome.rows_new == 0 for outcome in outcomes)
    path = root / "perp" / name / f"{symbols[0]}.parquet"
    assert covered_spans_us(path) == [(START_MS * 1000, TOP_MS * 1000)]


def test_hyperliquid_says_that_older_bars_are_not_served(tmp_path):
    start_ms = TOP_MS - 5400 * HOUR_MS
    with FakeVenue("hyperliquid", market()) as venue:
        [outcome] = fetch(venue, tmp_path, ["BTC"], ["perp"], name="hyperliquid", start=instant(start_ms))
        kept_ms = TOP_MS - 4999 * HOUR_MS
        assert found(tmp_path, "perp", "hyperliquid", "BTC-USDC") == expected(
            venue.model, "perp", "BTC-USDC", kept_ms, NOW_MS
        )
    assert f"newest 5000 bars only: nothing before {instant(kept_ms):%Y-%m-%d %H:%M}" in outcome.notes[0]
    assert covered_spans_us(tmp_path / "perp/hyperliquid/BTC-USDC.parquet") == [(kept_ms * 1000, TOP_MS * 1000)]


CHILD = """
import asyncio, sys
from datetime import datetime, UTC
from functools import partial
from pathlib import Path
from basis_bt.market.download import download
from basis_bt.market.exchange import open_client
name, url, root, start_ms, now_ms = sys.argv[1:]
factory = partial(open_client, base_url=url, config={"enableRateLimit": False, "timeout_on_exit": 0})
download(name, ["BTC", "ETH"], ["perp", "funding"], root=Path(root), client_factory=factory, pages_per_write=2,
         start=datetime.fromtimestamp(int(start_ms) / 1000, UTC), clock=lambda: int(now_ms) * 1000, concurrency=2)
"""


@pytest.mark.parametrize(("name", "start_ms", "seed"), [("binance", TOP_MS - 9000 * HOUR_MS, 1), ("okx", START_MS, 2)])
def test_a_kill_at_any_moment_leaves_what_the_next_call_completes(tmp_path, name, start_ms, seed):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    random_ = random.Random(seed)
    running, last = [], 0

    def strike(number):
        if number == last:
            running[-1].kill()

    with FakeVenue(name, market(), on_request=strike) as venue:
        for _ in range(3):
            last = len(venue.log) + random_.randint(6, 12)
            args = [name, venue.url, killed, str(start_ms), str(NOW_MS)]
            running.append(subprocess.Popen([sys.executable, "-c", CHILD, *args]))
            assert running[-1].wait(30) == -signal.SIGKILL
        assert list(killed.rglob("*.parquet")), "a kill came before anything was written: nothing is tested"
        n_before = len(venue.log)
        fetch(venue, killed, ["BTC", "ETH"], ["perp", "funding"], name=name, start=instant(start_ms))
        n_resumed, n_before = len(venue.log) - n_before, len(venue.log)
        fetch(venue, whole, ["BTC", "ETH"], ["perp", "funding"], name=name, start=instant(start_ms))
        assert n_resumed < len(venue.log) - n_before
    for path in sorted(whole.rglob("*.parquet")):
        assert (killed / path.relative_to(whole)).read_bytes() == path.read_bytes()
    assert [*killed.rglob("*.tmp")] == []


def test_an_interrupt_writes_what_has_come_and_exits_with_130(tmp_path):
    now_ms = time.time_ns() // 1_000_000
    child = None

    def strike(number):
        if number == 7:
            child.send_signal(signal.SIGINT)

    with FakeVenue("binance", market(now_ms=now_ms, outages=[]), on_request=strike) as venue:
        code = "import sys; from basis_bt.cli.main import entry; sys.exit(entry())"
        args = ["data", "download", "--venue", "binance", "--symbols", "BTC", "--kinds", "perp", "--start",
                "2020-01-01", "--base-url", venue.url, "--root", str(tmp_path)]  # fmt: skip
        child = subprocess.Popen([sys.executable, "-c", code, *args], stderr=subprocess.PIPE, text=True)
        _, said = child.communicate(timeout=30)
    assert child.returncode == 130, said
    frame = pl.read_parquet(tmp_path / "perp/binance/BTC-USDT.parquet")
    assert frame.height >= 3000 and "interrupted" in said


@pytest.mark.parametrize("name", ["binance", "okx"])
def test_update_goes_on_from_where_each_series_ends(tmp_path, name):
    model = market()
    with FakeVenue(name, model) as venue:
        fetch(venue, tmp_path, ["BTC"], ["spot", "funding"], name=name, end=instant(TOP_MS - 90 * HOUR_MS))
        n_before = len(venue.log)
        outcomes = fetch(venue, tmp_path, ["BTC"], ["spot", "funding"], name=name, start=None, update=True)
        assert [outcome.status for outcome in outcomes] == ["done", "done"]
        assert len(venue.log) - n_before <= 8
        model.now_ms += 3 * HOUR_MS
        fetch(venue, tmp_path, ["BTC"], ["spot", "funding"], name=name, start=None, update=True)
    for kind in ("spot", "funding"):
        first_ms = max(START_MS, NOW_MS - 92 * 24 * HOUR_MS) if (name, kind) == ("okx", "funding") else START_MS
        assert found(tmp_path, kind, name, "BTC-USDT") == expected(model, kind, "BTC-USDT", first_ms, model.now_ms)


def test_a_candle_the_venue_does_not_confirm_is_left_for_later(tmp_path):
    model = market(now_ms=TOP_MS + 500, confirm_lag_ms=2000)
    with FakeVenue("okx", model) as venue:
        fetch(venue, tmp_path, ["BTC"], ["perp"], name="okx", start=instant(TOP_MS - 30 * HOUR_MS))
        assert found(tmp_path, "perp", "okx", "BTC-USDT")[-1][0] == TOP_MS - 2 * HOUR_MS
        model.now_ms += 5000
        fetch(venue, tmp_path, ["BTC"], ["perp"], name="okx", start=None, update=True)
    rows = found(tmp_path, "perp", "okx", "BTC-USDT")
    assert rows == expected(model, "perp", "BTC-USDT", TOP_MS - 30 * HOUR_MS, model.now_ms) and len(rows) == 30


def test_a_clock_ahead_of_the_venues_takes_no_running_candle(tmp_path):
    model = market(now_ms=TOP_MS - 2000)
    with FakeVenue("binance", model) as venue:
        ahead = {"clock": lambda: (TOP_MS + 3000) * 1000, "start": instant(TOP_MS - 9 * HOUR_MS)}
        fetch(venue, tmp_path, ["BTC"], ["perp"], **ahead)
        assert found(tmp_path, "perp", "binance", "BTC-USDT")[-1][0] == TOP_MS - 2 * HOUR_MS
        model.now_ms += 60_000
        fetch(venue, tmp_path, ["BTC"], ["perp"], start=None, update=True)
    rows = found(tmp_path, "perp", "binance", "BTC-USDT")
    assert rows == expected(model, "perp", "BTC-USDT", TOP_MS - 9 * HOUR_MS, model.now_ms) and len(rows) == 9


def test_a_notebook_whose_loop_is_running_may_call_it(tmp_path):
    async def cell(venue):
        return fetch(venue, tmp_path, ["BTC"], ["perp"], start=instant(TOP_MS - 9 * HOUR_MS))

    with FakeVenue("binance", market()) as venue:
        [outcome] = asyncio.run(cell(venue))
    assert (outcome.status, outcome.rows) == ("done", 9)


@pytest.mark.parametrize("bar_hours", [1 / 12, 24.0])
@pytest.mark.parametrize("name", ["binance", "bybit", "okx"])
def test_other_bar_lengths_and_never_two_in_a_file(tmp_path, name, bar_hours):
    step_ms = round(bar_hours * HOUR_MS)
    first_ms = START_MS - START_MS % (24 * HOUR_MS) if bar_hours == 24 else TOP_MS - 150 * HOUR_MS
    with FakeVenue(name, market()) as venue:
        fetch(venue, tmp_path, ["BTC"], ["perp"], name=name, start=instant(first_ms), bar_hours=bar_hours)
        rows = found(tmp_path, "perp", name, "BTC-USDT")
        assert rows == expected(venue.model, "perp", "BTC-USDT", first_ms, NOW_MS, step_ms=step_ms)
        [outcome] = fetch(venue, tmp_path, ["BTC"], ["perp"], name=name, start=instant(first_ms))
        assert outcome.status == "failed" and "holds bars of" in outcome.error
        with pytest.raises(ConfigError, match="serves no bars of 7 hours"):
            fetch(venue, tmp_path, ["BTC"], ["perp"], name=name, bar_hours=7)


def test_rows_from_elsewhere_are_compared_and_completed(tmp_path):
    path = tmp_path / "mark/binance/BTC-USDT.parquet"
    with FakeVenue("binance", market()) as venue:
        fetch(venue, tmp_path, ["BTC"], ["mark"])
        whole = pl.read_parquet(path)
        imported = whole.slice(100, 200).select("ts", "open", "close")
        imported.write_parquet(path)
        [outcome] = fetch(venue, tmp_path, ["BTC"], ["mark"])
        assert outcome.status == "done" and outcome.rows_new == whole.height - 200
        assert pl.read_parquet(path).equals(whole)
        imported.write_parquet(path)
        [outcome] = fetch(venue, tmp_path, ["BTC"], ["mark"], start=None, update=True)
        assert outcome.rows_new == whole.height - 300


def test_an_edited_file_is_a_conflict_and_stays_as_it_is(tmp_path):
    path = tmp_path / "perp/binance/BTC-USDT.parquet"
    with FakeVenue("binance", market()) as venue:
        fetch(venue, tmp_path, ["BTC"], ["perp"])
        frame = pl.read_parquet(path).with_row_index("n")
        bump = pl.when(pl.col("n").is_in([70, 1500])).then(pl.col("close") + 0.5).otherwise("close")
        frame.with_columns(bump.alias("close")).drop("n").write_parquet(path)
        edited = path.read_bytes()
        outcomes = fetch(venue, tmp_path, ["BTC"], ["perp", "funding"], pages_per_write=1)
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    assert "(1 row" in outcomes[0].error and str(path) in outcomes[0].error
    assert instant(START_MS + 70 * HOUR_MS).isoformat() in outcomes[0].error
    assert path.read_bytes() == edited


def test_a_damaged_file_is_an_error_and_no_parquet_too(tmp_path):
    with FakeVenue("binance", market()) as venue:
        fetch(venue, tmp_path, ["BTC"], ["perp", "spot"], start=instant(TOP_MS - 20 * HOUR_MS))
        path = tmp_path / "perp/binance/BTC-USDT.parquet"
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(data)
        (tmp_path / "spot/binance/BTC-USDT.parquet").write_text("ts,close\n")
        outcomes = fetch(venue, tmp_path, ["BTC"], ["perp", "spot"])
    assert "damaged" in outcomes[0].error and "no parquet file" in outcomes[1].error


def test_unknown_names_are_answered_with_the_nearest(tmp_path):
    with FakeVenue("binance", market()) as venue:
        with pytest.raises(ConfigError, match="did you mean binance"):
            fetch(venue, tmp_path, ["BTC"], ["perp"], name="binanse")
        with pytest.raises(ConfigError, match="did you mean funding"):
            fetch(venue, tmp_path, ["BTC"], ["fundin"])
        assert venue.log == []
        outcomes = fetch(venue, tmp_path, ["BTCC", "BTC"], ["perp"], start=instant(TOP_MS - 50 * HOUR_MS))
        [fresh] = fetch(venue, tmp_path, ["ETH"], ["perp"], start=None, update=True)
    assert outcomes[0].status == "failed" and "did you mean BTC-USDT or BTC-USDC" in outcomes[0].error
    assert outcomes[1].status == "done" and outcomes[1].rows == 50
    assert fresh.status == "failed" and "give a start" in fresh.error


@pytest.mark.parametrize(
    ("fault", "says", "n_asked"),
    [
        (Fault(every=1, status=503), "ExchangeNotAvailable", 8),
        (Fault(every=1, status=451), "refuses this address", 8),
        (Fault(every=1, status=418, headers=(("Retry-After", "7200"),)), "wait 7200 s", 1),
    ],
)
def test_a_venue_that_does_not_answer_is_given_up(tmp_path, fault, says, n_asked):
    with FakeVenue("bybit", market(), faults=[fault]) as venue, pytest.raises(DataError, match=says):
        fetch(venue, tmp_path, ["BTC"], ["perp"], name="bybit")
    questions = [str(params) for *_, params in venue.log]
    assert max(questions.count(question) for question in questions) == n_asked


def test_one_series_that_fails_does_not_stop_the_others(tmp_path):
    model = market()

    def down(number):
        venue.faults = [Fault(every=1, status=502)] if "markPrice" in venue.log[-1][2] else []

    with FakeVenue("binance", model, on_request=down) as venue:
        outcomes = fetch(venue, tmp_path, ["BTC"], ["mark", "perp", "funding"])
    assert [outcome.status for outcome in outcomes] == ["failed", "done", "done"]
    assert found(tmp_path, "perp", "binance", "BTC-USDT") == expected(model, "perp", "BTC-USDT", START_MS, NOW_MS)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_series_run_side_by_side_as_far_as_they_may(tmp_path, concurrency):
    with FakeVenue("binance", market()) as venue:
        fetch(venue, tmp_path, ["BTC", "ETH"], ["perp"], concurrency=concurrency)
    asked = [params["symbol"] for _, _, path, params in venue.log if path.endswith("klines")]
    assert sorted(asked) == ["BTCUSDT"] * 3 + ["ETHUSDT"] * 3
    assert (asked == sorted(asked)) == (concurrency == 1)


def test_the_command_prints_a_table_and_its_exit_code_says_if_all_went_well(tmp_path, capsys):
    now_ms = time.time_ns() // 1_000_000
    with FakeVenue("binance", market(now_ms=now_ms, outages=[])) as venue:
        start = f"{instant(now_ms - 40 * HOUR_MS):%Y-%m-%dT%H:00Z}"
        args = ["data", "download", "--venue", "binance", "--start", start, "--base-url", venue.url, "--root"]
        assert entry([*args, str(tmp_path), "--symbols", "BTC,ETH", "--kinds", "spot,funding"]) == 0
        assert "spot/binance/ETH-USDT" in capsys.readouterr().out
        assert entry([*args, str(tmp_path), "--symbols", "BTC,NOPE", "--kinds", "spot"]) == 1
        assert "lists no spot market NOPE-USDT" in capsys.readouterr().err
    assert len(found(tmp_path, "spot", "binance", "BTC-USDT")) in (39, 40)  # 39 just after a full hour
    assert entry(["data", "download", "--venue", "x", "--symbols", "BTC", "--start", "2024-01-01"]) == 2
    assert entry(["data", "download", "--venue", "okx", "--symbols", "BTC"]) == 2
    assert entry(["data", "download", "--venue", "okx", "--symbols", "BTC", "--start", "yesterday"]) == 2
    assert entry(["data", "download", "--venue", "okx", "--symbols", "BTC", "--start", "2024-01-01T00:00"]) == 2
    assert "names no time zone" in capsys.readouterr().err


STAMPS = st.sets(st.integers(0, 300), max_size=60)


@given(STAMPS, st.integers(1, 7), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_pages_cover_the_span_once_whatever_the_holes(stamps, size, newest_first, sees_window, windowed):
    """A venue that looks at a window only, whether we know it or not, and one that jumps over holes."""

    async def ask(first, last):
        if sees_window or windowed:
            first, last = (max(first, last - size), last) if newest_first else (first, min(last, first + size))
        inside = sorted(ts for ts in stamps if (ts < last if newest_first else ts >= first))
        if sees_window or windowed:
            inside = [ts for ts in inside if first <= ts < last]
        return [Row(ts, ()) for ts in (inside[-size:][::-1] if newest_first else inside[:size])]

    async def collect():
        span = {"from_ms": 20, "to_ms": 280, "step_ms": 1, "window_ms": size}
        return [page async for page in pages(ask, **span, newest_first=newest_first, windowed=windowed)]

    got = asyncio.run(collect())
    rows = [row.ts_ms for page in got for row in page.rows]
    wanted = sorted(ts for ts in stamps if 20 <= ts < 280)
    if sees_window and not windowed:  # behind a hole that no probe falls out of, nothing can be known
        wanted = [ts for ts in wanted if rows and (ts >= min(rows) if newest_first else ts <= max(rows))]
    assert sorted(rows) == wanted
    spans = sorted((page.from_ms, page.to_ms) for page in got)
    assert joined(spans) == [(20, 280)] and sum(last - first for first, last in spans) == 260


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8), st.integers(0, 40), st.integers(0, 40))
def test_what_is_left_over_is_what_no_span_covers(spans, first, last):
    covered = {at for one, other in spans for at in range(one, other)}
    parts = left_over((first, last), [span for span in spans if span[0] < span[1]])
    assert [at for one, other in parts for at in range(one, other)] == sorted(set(range(first, last)) - covered)


def test_few_modules_import_ccxt_and_only_when_it_is_used():
    package = Path(basis_bt.__file__).parent
    users = [
        path.name for path in package.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "ccxt" for alias in node.names)
        or isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ccxt"
    ]  # fmt: skip
    assert set(users) == {"exchange.py", "client.py", "ccxt_venue.py", "outcomes.py", "clients.py"}
    code = "import sys, basis_bt.market.download; assert not {'ccxt', 'aiohttp'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
