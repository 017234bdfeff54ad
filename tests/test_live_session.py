"""Sessions from configuration to journal: on paper and for real, on a fake market that lives through days at once."""

import asyncio
import math
from contextlib import asynccontextmanager

import aiohttp.connector
import pytest

from basis_bt.core.config import build_config
from basis_bt.live.fake.clients import loopback_client
from basis_bt.live.fake.records import RateMark
from basis_bt.live.fake.rules import standard_contract
from basis_bt.live.fake.server import FakeExchange
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.virtual_time import run_virtual
from basis_bt.live.session import open_session
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
    monkeypatch.setattr(aiohttp.connector.BaseConnector, "_cleanup_closed_period", 1e6)


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
