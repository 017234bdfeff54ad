"""Sessions from configuration to journal: on paper and for real, on a fake market that lives through days at once."""

import asyncio
import json
import math
from contextlib import asynccontextmanager

import aiohttp.connector
import polars as pl
import pytest
from click.testing import CliRunner
from live_room import room
from sweeping import toml_of

from basis_bt.cli.main import main
from basis_bt.core.config import build_config
from basis_bt.core.errors import ConfigError
from basis_bt.live import live_feed
from basis_bt.live.fake.clients import loopback_client
from basis_bt.live.fake.records import RateMark
from basis_bt.live.fake.rules import standard_contract
from basis_bt.live.fake.server import FakeExchange
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.virtual_time import run_virtual
from basis_bt.live.journal import Journal
from basis_bt.live.quoting import quote
from basis_bt.live.session import check_tradable, open_session
from basis_bt.market.exchange import open_client

HOUR_US = 3_600_000_000
START_US = 1_700_006_400_000_000  # 2023-11-15 00:00 UTC
HISTORY_HOURS = 200
SPOT, PERP = "spot:binance:BTC-USDT", "perp:binance:BTC-USDT"
CASH = {"spot": {"USDT": 200_000.0}, "perp": {"USDT": 200_000.0}}


def price(instrument, hour):
    """A slow wave; the perpetual a little above."""
    return (50_000.0 + 800.0 * math.sin(hour / 9.0)) * (1.0004 if instrument.startswith("perp") else 1.0)


def rate(hour):
    """High for half a day from the start, deeply negative after."""
    return 0.0006 if hour < 12 else -0.002


def tables(**changes):
    config = {
        "name": "btc-live",
        "data": {"root": "unused", "start": "2023-11-01T00:00:00Z", "end": "2023-12-01T00:00:00Z", "bar": "1h"},
        "combo": {"legs": [{"instrument": SPOT, "ratio": 1.0}, {"instrument": PERP, "ratio": -1.0}]},
        "signal": {"name": "funding_apr", "hours": 24},
        "rule": {"entry": 0.2, "exit": 0.05},
        "size": {"capital_usd": 100_000.0, "allocation": 0.9, "leverage": 3.0},
        "costs": {"half_spread_bps": 0.25},
        "live": {
            "limits": {"max_notional_usd": 300_000.0, "max_spread_bps": 10.0},
            "execution": {"reconcile_s": 300.0, "request_timeout_s": 1.0, "leg_timeout_s": 1.0},
            "poll_s": 300.0,
        },
    }
    for path, value in changes.items():
        table = config
        *parents, last = path.split("__")
        for part in parents:
            table = table.setdefault(part, {})
        table[last] = value
    return config


@pytest.fixture(autouse=True)
def no_housekeeping(monkeypatch):
    """The client library looks after its connections every two seconds, which are many in virtual days."""
    quicken(monkeypatch)


def quicken(patch):
    patch.setattr(aiohttp.connector.BaseConnector, "_cleanup_closed_period", 1e6)
    patch.setattr(live_feed, "LONGEST_SLEEP_S", 3600.0)


@asynccontextmanager
async def market(clock):
    """Binance with a history of candles and settlements, going on as time does."""
    sim = SimVenue("binance", [standard_contract(SPOT), standard_contract(PERP)], clock=clock, balances=CASH)
    hours = range(-HISTORY_HOURS, 200)
    for instrument in (SPOT, PERP):
        sim.candles[instrument, "last"] = [
            (START_US + hour * HOUR_US, start, max(start, end), min(start, end), end, 900.0)
            for hour in hours
            for start, end in [(price(instrument, hour), price(instrument, hour + 1))]
        ]
    for hour in hours:
        if hour % 8 == 0 and hour < 0:
            at_us = START_US + hour * HOUR_US
            sim.rate_marks.append(RateMark(instrument=PERP, rate=0.00005, mark_price=price(PERP, hour), ts_us=at_us))
    fake = FakeExchange([sim])

    async def live():
        hour = 0
        while True:
            for instrument in (SPOT, PERP):
                sim.make_book(instrument, round(price(instrument, hour), 1), spread_bps=0.5, depth_base=50.0)
            if hour % 8 == 0:
                sim.settle(PERP, rate(hour), round(price(PERP, hour), 1))
            hour += 1
            await clock.sleep((START_US + hour * HOUR_US - clock.now_us()) / 1e6)

    await fake.start()
    going = asyncio.create_task(live())
    try:
        yield fake, sim
    finally:
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
        await fake.stop()


async def traded(clock, folder, config, *, mode, n_bars, fake, **options):
    session = await open_session(
        config, mode=mode, journal=folder, clock=clock, n_bars=n_bars,
        clients={"binance": loopback_client("binance", fake.base_url("binance"), clock)},
        history=lambda name: open_client(name, base_url=fake.base_url(name), config={"enableRateLimit": False}),
        environment={"BASIS_BT_BINANCE_KEY": "loopback-key", "BASIS_BT_BINANCE_SECRET": "loopback-secret"},
        lock_folder=folder / "locks", **options,
    )  # fmt: skip
    try:
        why = await session.run()
        return why, session.journal.events(), session.trader.state, session.journal.positions_base()
    finally:
        await session.close()


@pytest.mark.parametrize("mode", ["live", "paper"])
def test_a_session_enters_collects_funding_and_leaves(tmp_path, mode):
    async def main(clock):
        async with market(clock) as (fake, sim):
            why, events, state, held = await traded(
                clock, tmp_path, build_config(tables()), mode=mode, n_bars=20, fake=fake
            )
            kinds = [event.type for event in events]
            assert why == "the feed ended"
            decisions = [event.payload["event"] for event in events if event.type == "decision"]
            assert decisions == ["entry", "exit"], [e for e in events if e.type in ("refused", "incident", "decision")]
            results = [event for event in events if event.type == "leg_result"]
            assert len(results) == 4 and all(one.payload["success"] for one in results)
            assert kinds.count("funding") == 2 and kinds.count("mark") == 20
            assert state.direction == 0 and abs(held[SPOT]) < 1e-3 and held[PERP] == 0.0
            if mode == "live":
                assert sim.position_base(PERP) == 0.0 and sim.violations == []
            else:
                assert sim.orders == {}, "nothing is ever sent on paper"
            assert "loopback" not in str(events)

    run_virtual(main, start_us=START_US)


def lived(folder, config, *, mode="live", parts=(20,), meanwhile=None):
    """Sessions one after the other on one market and journal; returns what each came to, and the account."""

    async def main(clock):
        async with market(clock) as (fake, sim):
            out = []
            for n_bars in parts:
                if meanwhile is not None and out:
                    meanwhile(sim)
                out.append(await traded(clock, folder, config, mode=mode, n_bars=n_bars, fake=fake))
            return out, sim

    return run_virtual(main, start_us=START_US)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A live session that was stopped and started again in the middle of its trade."""
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        folder = tmp_path_factory.mktemp("journal")
        done, sim = lived(folder, build_config(tables()), parts=(5, 15))
        return folder, done, sim


def test_a_session_goes_on_with_the_trade_of_the_one_before(kept):
    _, done, sim = kept
    (_, before, state, _), (_, events, last, held) = done
    assert state.direction == 1 and last.direction == 0 and last.n_trades == 1
    assert [event.payload["event"] for event in events if event.type == "decision"] == ["entry", "exit"]
    assert [event.seq for event in events] == list(range(1, len(events) + 1)) and len(events) > len(before)
    rows = [event.payload["row"] for event in events if event.type == "mark"]
    assert rows == list(range(20)), "one row a bar, counted on over the restart"
    assert sim.position_base(PERP) == 0.0 and held[PERP] == 0.0


def test_the_journal_reads_as_a_run_does(kept, tmp_path):
    folder = kept[0]
    assert called("export", str(folder), "--runs", str(tmp_path)).startswith("run: ")
    row = json.loads(called("sql", "select n_trades, funding_usd, fees_usd from trials", "--format", "json", "--runs",
                            str(tmp_path)))[0]  # fmt: skip
    assert row["n_trades"] == 1 and row["fees_usd"] > 0.0
    paid = sum(one.amount for one in kept[2].funding)
    assert row["funding_usd"] == pytest.approx(paid, abs=1e-6)
    for verb in (["show", "btc-live-live"], ["report", "btc-live-live"],
                 ["explain", "btc-live-live", "--ts", "2023-11-15T08:00:00Z"]):  # fmt: skip
        assert called(*verb, "--runs", str(tmp_path))


def test_equity_is_what_the_venue_says(kept):
    """Cash and positions of the journal's last mark, beside the venue's own balances."""
    _, done, sim = kept
    marks = [event.payload for event in done[-1][1] if event.type == "mark"]
    gained = sim.balance("USDT") - 400_000.0 + sim.balance("BTC") * marks[-1]["close_price"][0]
    assert marks[-1]["equity_usd"] - 100_000.0 == pytest.approx(gained, abs=1e-6)


def test_status_shows_it_from_elsewhere(kept):
    stand = json.loads(called("status", str(kept[0]), "--json"))
    assert stand["mode"] == "live" and stand["status"] == "ended"
    assert "positions" in called("status", str(kept[0]))


def test_parity_says_where_reality_departed(kept, tmp_path):
    frame = pl.DataFrame(json.loads(called("parity", str(kept[0]), "--format", "json")))
    trade = frame.filter(pl.col("kind") == "matched")
    assert trade.height == 1, frame
    assert abs(trade["residual_usd"][0]) < 1e-6
    assert "matched" in called("parity", str(kept[0]), "--plot", str(tmp_path / "why.png"))
    assert (tmp_path / "why.png").stat().st_size > 10_000


def test_calibrating_on_too_little_says_so(kept, tmp_path):
    rows = json.loads(called("calibrate", str(kept[0]), "--format", "json"))
    assert rows and all(row["value"] is None for row in rows)
    found = CliRunner().invoke(main, ["calibrate", str(kept[0]), "--out", str(tmp_path / "costs.toml")])
    assert found.exception and not (tmp_path / "costs.toml").exists()


def test_no_secret_is_anywhere_in_the_folder(kept):
    for path in kept[0].rglob("*"):
        if path.is_file():
            assert b"loopback" not in path.read_bytes(), path


def test_a_stop_closes_everything_and_holds_until_a_person_resets_it(tmp_path):
    config = build_config(tables(live__poll_s=60.0))

    async def run(clock):
        async with market(clock) as (fake, sim):
            async def ask():
                await clock.sleep(4 * 3600.0)
                assert sim.position_base(PERP) < 0.0
                (tmp_path / "stop").write_text("enough\n")

            asking = asyncio.create_task(ask())
            first = await traded(clock, tmp_path, config, mode="live", n_bars=20, fake=fake)
            await asking
            flat_after_first, creates = sim.position_base(PERP), sum(sim.creates.values())
            second = await traded(clock, tmp_path, config, mode="live", n_bars=2, fake=fake)
            return first, second, flat_after_first, sum(sim.creates.values()) - creates

    first, second, position, sent = run_virtual(run, start_us=START_US)
    assert first[0] == "enough" and position == 0.0 and first[2].direction == 0
    assert abs(first[3][SPOT]) < 1e-3
    assert sent == 0 and any(event.type == "refused" and "breaker" in event.payload["reason"] for event in second[1])
    assert not (tmp_path / "stop").exists()
    assert "reset by ada" in called("stop", str(tmp_path), "--reset", "ada")
    with Journal(tmp_path, read_only=True) as journal:
        assert journal.get("guard")["breaker"] is None and journal.events("breaker_reset")[0].payload["by"] == "ada"


def test_trading_for_real_needs_limits_and_keys(tmp_path, monkeypatch):
    path = toml_of(tables(live__limits={"max_spread_bps": 10.0}), tmp_path / "a.toml")
    refused = CliRunner().invoke(main, ["live", str(path), "--journal", str(tmp_path / "j")])
    assert "max_notional_usd" in str(refused.exception)
    for name in ("KEY", "SECRET"):
        monkeypatch.delenv(f"BASIS_BT_BINANCE_{name}", raising=False)
    path = toml_of(tables(), tmp_path / "b.toml")
    refused = CliRunner().invoke(main, ["live", str(path), "--journal", str(tmp_path / "j")])
    assert "BASIS_BT_BINANCE_KEY" in str(refused.exception)
    assert not (tmp_path / "j").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"combo__legs": [{"instrument": SPOT, "ratio": -1.0}, {"instrument": PERP, "ratio": 1.0}]}, "short spot"),
        ({"rule__reverse": True}, "short spot"),
        ({"combo__legs": [{"instrument": SPOT, "ratio": 1.0},
                          {"instrument": "perp:binance_cm:BTC-USD", "ratio": -1.0}]}, "cannot be traded live"),
    ],
)  # fmt: skip
def test_what_cannot_be_traded_is_refused_before_any_venue_is_asked(changes, named):
    with pytest.raises(ConfigError, match=named):
        check_tradable(build_config(tables(**changes)), "paper")


def called(*arguments):
    """What a verb prints; it must succeed."""
    found = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def test_a_size_is_quoted_over_venues():
    """The cheaper book wins where fees are equal, and the split takes the better levels of both."""

    async def run(clock):
        async with room(clock, ("binance", "okx")) as r:
            perp = "perp:okx:BTC-USDT"
            r.sim(perp).make_book(perp, 49_900.0, spread_bps=0.5, depth_base=0.5)
            spot = r.combos.instruments[0]
            return await quote(
                {"binance": spot, "okx": perp}, r.venues, side=1, usd=40_000.0, day_volatility_pct=2.5, clock=clock
            )

    route = run_virtual(run)
    assert route.best.venue == "binance" and route.venues[1].all_in_price is None, "okx does not hold the whole size"
    assert {one.venue for one in route.split} == {"binance", "okx"} and route.unfilled_base == 0.0
    assert all(one.latency_bps > 0.0 for one in route.venues)
    assert [one.fee_bps for one in route.venues] == [10.0, 5.0], "spot at Binance, perpetual at OKX"
