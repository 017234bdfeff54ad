"""The live engine, bar by bar over history, against the backtest: the same ledger, trade for trade."""

import asyncio
import dataclasses
import json
import tempfile
from pathlib import Path

import bridge
import numpy as np
import polars as pl
import pytest
import strategies
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from numba.core import config as numba_config
from realdata import real_market

import basis_bt
from basis_bt.backtest.engine import simulate
from basis_bt.backtest.parameters import market_struct
from basis_bt.backtest.prepare import Prepared, prepare
from basis_bt.backtest.result import Result
from basis_bt.core.config import config_dict, load_config, read_toml
from basis_bt.core.errors import ConfigError, DataError, KernelError
from basis_bt.core.instruments import Combo, Leg
from basis_bt.core.live_models import Execution
from basis_bt.core.models import Config, Data, Rule, SignalSpec, Size
from basis_bt.core.units import US_PER_HOUR, from_us
from basis_bt.kernels.structs import BOOK_SIGNS, BOOKS, CERTAIN
from basis_bt.ledger import tables as ledger_tables
from basis_bt.live import event_types
from basis_bt.live.account import Account
from basis_bt.live.export import journal_tables
from basis_bt.live.feed import Closing, Opening
from basis_bt.live.journal import Journal
from basis_bt.live.marks import Session
from basis_bt.live.orders import ComboResult, Instruction, LegOrder, VenueTrade
from basis_bt.live.parity import TABLES, compare
from basis_bt.live.placing import Desk
from basis_bt.live.replay import check_replayable, live_combos, replay, replay_prepared
from basis_bt.live.replay_venue import BarClock, Failure, ReplayFeed, ReplayVenue
from basis_bt.live.results import leg_result as made_of
from basis_bt.live.strategy import State, Strategy, Working
from basis_bt.live.trader import Trader
from basis_bt.live.venue import Contract

ROOT = Path(__file__).resolve().parent.parent
IS_COMPILED = not numba_config.DISABLE_JIT
RANDOM = settings(
    max_examples=40 if IS_COMPILED else 8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
TWO_PERPS = {"legs": [{"instrument": "perp:binance:BTC-USDT", "ratio": 1.0},
                      {"instrument": "perp:bybit:BTC-USDT", "ratio": -1.0}]}  # fmt: skip
VARIATIONS = {
    "plain": {},
    "late fills": {"fills": {"latency": "90m"}},
    "holds and cooldown": {"rule": {"entry": 0.05, "exit": 0.04, "min_hold_hours": 30, "max_hold_hours": "3d",
                                    "cooldown_hours": 7}},
    "stop and basis": {"rule": {"entry": 0.02, "exit": -0.5, "stop_loss_pct": 0.11, "max_basis_bps": 4.0}},
    "fixed size": {"size": {"compounding": False, "allocation": 0.3, "leverage": 5, "lots": "none"}},
    "buckets and impact": {"costs": {"bucket_usd": [1e4, 1e6], "bucket_bps": [0.5, 4.0],
                                     "impact_coef_bps": {"spot": 3.0, "perp": 1.5}}},
    "fee in base": {"costs": {"spot_fee_in": "base", "taker_fee_bps": {"spot": 7.3, "perp": 5.0}}},
    "limits": {"data": {"start": "2024-06-05T00:00:00Z", "end": "2024-07-05T00:00:00Z"},
               "costs": {"impact_coef_bps": 20.0},
               "fills": {"max_cost_bps": 1.5, "max_volume_share": 0.003, "max_spread_bps": 3.0}},
    "two perps, both ways": {"combo": TWO_PERPS, "signal": {"name": "basis_zscore", "hours": 12},
                             "rule": {"entry": 1.2, "exit": 0.1, "reverse": True, "cooldown_hours": 2}},
    "fees of the venue by day": {"costs": {"half_spread_bps": {"spot": 0.7, "perp": 0.4}}},
    "margin that holds": {"wallets": {"margin": "venue"}, "size": {"leverage": 8, "allocation": 0.8}},
    "two hours a bar": {"data": {"bar": "2h"}},
    "a signal in sql": {"signal": {"name": "sql", "sql": "(close_1 / close_0 - 1) * 1e4"},
                        "rule": {"entry": 3.0, "exit": 0.5}},
}  # fmt: skip


def sample(patch=None, *, end="2024-05-30T00:00:00Z"):
    """The configuration of the sample with tables patched; two tables are replaced rather than merged."""
    raw = read_toml(ROOT / "configs" / "sample_btc_carry.toml")
    raw["data"] |= {"root": str(ROOT / "data" / "sample"), "start": "2024-05-05T00:00:00Z", "end": end}
    raw["signal"]["hours"] = 8
    raw["rule"] = {"entry": 0.112, "exit": 0.1096}  # funding at rest is 0.1095
    raw["costs"].pop("taker_fee_bps")
    for section, values in (patch or {}).items():
        raw[section] = values if section in ("signal", "combo") else raw.get(section, {}) | values
    return raw


def assert_same_ledger(backtest, replayed):
    parity = compare(backtest, replayed)
    assert parity.is_equal, str(parity)
    assert replayed.manifest["books_residual_usd"] <= 1e-9 * parity.scale_usd
    return parity


# ------------------------------------------------------------------------------------------------------ configurations


@pytest.mark.parametrize("name", VARIATIONS)
def test_a_replay_of_the_sample_is_the_backtest(name):
    raw = sample(VARIATIONS[name])
    backtest = basis_bt.run(raw)
    assert_same_ledger(backtest, replay(raw))
    assert backtest.fills.height >= 4, "nothing was compared"


def test_the_variations_reach_what_they_are_named_for():
    reasons = {name: set(basis_bt.run(sample(VARIATIONS[name])).events["reason"]) for name in
               ("holds and cooldown", "stop and basis", "limits")}  # fmt: skip
    assert "max_hold" in reasons["holds and cooldown"]
    assert {"stop", "basis"} <= reasons["stop and basis"]
    assert {"cost", "volume_share"} <= reasons["limits"]


@pytest.mark.parametrize("name", ["holds and cooldown", "margin that holds"])
def test_metrics_of_a_replay_are_those_of_the_backtest(name):
    raw = sample(VARIATIONS[name])
    ours, theirs = (one.metrics.row(0, named=True) for one in (basis_bt.run(raw), replay(raw)))
    for name, value in ours.items():
        if isinstance(value, float):
            assert theirs[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name
        else:
            assert theirs[name] == value, name


def test_a_replay_ends_where_the_backtest_is_liquidated():
    raw = sample({"wallets": {"margin": "venue"}, "size": {"leverage": 60, "allocation": 1.0},
                  "rule": {"entry": 0.02, "exit": -0.5}})  # fmt: skip
    found = basis_bt.run(raw).events.filter(pl.col("event") == "liquidation")
    with pytest.raises(KernelError, match="liquidated") as error:
        replay(raw)
    assert error.value.where["ts"] == found["ts"][0].isoformat()


def test_a_signal_of_ones_own_is_replayed():
    raw, own = sample(), (pl.col("close_1") / pl.col("close_0") - 1.0) * 1e4 + 0.1
    assert_same_ledger(basis_bt.run(raw, expression=own), replay(raw, expression=own))


def test_a_replay_of_real_data_is_the_backtest():
    raw = {
        "data": {"root": str(real_market()), "start": "2024-02-01T00:00:00Z", "end": "2024-06-01T00:00:00Z",
                 "bar": "1h", "checks": "clean"},
        "combo": {"legs": [{"instrument": "spot:binance:BTC-USDT", "ratio": 1.0},
                           {"instrument": "perp:bybit:BTC-USDT", "ratio": -1.0}]},
        "signal": {"name": "funding_apr", "hours": 24},
        "rule": {"entry": 0.14, "exit": 0.12, "cooldown_hours": 5},
        "costs": {"half_spread_bps": 0.5, "impact_coef_bps": 1.0},
        "fills": {"latency": "1h"},
    }  # fmt: skip
    backtest = basis_bt.run(raw)
    assert_same_ledger(backtest, replay(raw))
    assert backtest.trades.height > 4


def test_a_dated_future_that_outlives_the_run_is_replayed(tmp_path):
    market, future = ROOT / "data" / "sample", "future/binance/BTC-USDT-20241227.parquet"
    bars = pl.read_parquet(market / "perp/binance/BTC-USDT.parquet")
    premium = 1.0 + 0.03 * (1.0 - pl.int_range(pl.len()) / pl.len())
    (tmp_path / future).parent.mkdir(parents=True)
    bars.with_columns(pl.col("open", "high", "low", "close") * premium).write_parquet(tmp_path / future)
    (tmp_path / "spot").symlink_to(market / "spot")
    legs = [{"instrument": "spot:binance:BTC-USDT", "ratio": 1.0},
            {"instrument": "future:binance:BTC-USDT-20241227", "ratio": -1.0}]  # fmt: skip
    raw = sample({"combo": {"legs": legs}, "signal": {"name": "basis_apr"}, "rule": {"entry": 0.0302, "exit": 0.0298},
                  "data": {"root": str(tmp_path)}, "costs": {"taker_fee_bps": 4.0}})  # fmt: skip
    backtest = basis_bt.run(raw)
    assert_same_ledger(backtest, replay(raw))
    assert backtest.trades.height > 1


# ------------------------------------------------------------------------------------------------------ random markets


def prepared_case(case, root):
    """A random case of ``strategies.py`` with certain fills at one latency, as ``prepare`` would give it."""
    panel, market, parameters = bridge.prepared(case, root)
    latency = np.full(len(panel.instruments), parameters.fills.latency_bars[0])
    parameters = parameters._replace(fills=parameters.fills._replace(model=CERTAIN, latency_bars=latency))
    config = Config(
        data=Data(root=str(root), start=from_us(case["start_us"]), end=from_us(case["end_us"]),
                  bar=case["bar_us"] / US_PER_HOUR),
        combo=Combo(legs=[Leg(instrument=str(one), ratio=leg["ratio"])
                          for one, leg in zip(panel.instruments, case["legs"], strict=True)]),
        signal=SignalSpec(name="sql", sql="close_0"),
        rule=Rule(entry=1.0, exit=0.0),
        size=Size(capital_usd=case["size"]["capital_usd"]),
        costs=load_config(sample()).costs,
    )  # fmt: skip
    config = dataclasses.replace(config, costs=dataclasses.replace(config.costs, taker_fee_bps=1.0))
    _, order = market_struct(panel, market.signal, market.basis_bps)
    return Prepared(
        config=config, panel=panel, market=market, settlement_order=order, parameters=parameters, flags=[]
    )  # fmt: skip


def backtest_of(prepared):
    """What ``run`` makes of a prepared configuration, without what it says of files."""
    rows, panel, market = prepared.empty_rows(), prepared.panel, prepared.market
    totals, _ = simulate(prepared, rows)
    tables = {
        "equity": ledger_tables.equity_table(panel, market, rows, capital_usd=prepared.config.size.capital_usd),
        "attribution": ledger_tables.attribution_table(panel, rows),
        "fills": ledger_tables.fills_table(panel, rows, totals),
        "funding": ledger_tables.funding_table(panel, market, prepared.settlement_order, rows),
        "events": ledger_tables.events_table(panel, rows, totals),
        "trades": ledger_tables.trades_table(panel, rows, totals),
    }
    return Result(manifest={"config": config_dict(prepared.config)}, tables=tables)


def fitting(case):
    """The case if a run can have it, with one exponent, limits drawn by the caller, and no spot bought back."""
    for cost in case["costs"]:
        cost["impact_exponent"] = case["costs"][0]["impact_exponent"]
    assume(strategies.run_stamps(case))
    assume(bridge.two_sided(case) or not case["signal"].get("name", "").startswith("basis"))
    assume(all(leg["settlements"] for leg in case["legs"] if leg["kind"] == "perp"))
    for leg, cost in zip(case["legs"], case["costs"], strict=True):
        # a configuration with spot that can be short is refused, see below; here it may be, but for fees in base
        cost["fee_in_base"] = cost["fee_in_base"] and leg["ratio"] > 0.0 and not case["rule"]["reverse"]
    return case


def prepared_or_none(case, folder):
    try:
        return prepared_case(case, Path(folder))
    except DataError as error:
        assume("percent" not in str(error) and "no funding" not in str(error) and "no bars" not in str(error))
        raise


@RANDOM
@given(
    case=strategies.cases(max_bars=80),
    limits=st.tuples(*(st.sampled_from((None, None, None, limit)) for limit in (8.0, 0.1, 5.0))),
)
def test_a_replay_of_any_market_is_the_backtest(case, limits):
    for name, limit in zip(("max_cost_bps", "max_volume_share", "max_spread_bps"), limits, strict=True):
        case["fills"][name] = limit
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepared_or_none(fitting(case), folder)
        try:
            backtest = backtest_of(prepared)
        except KernelError as error:
            with pytest.raises(KernelError) as found:
                replay_prepared(prepared)
            assert found.value.what == error.what
            assert found.value.where["ts"] == error.where["ts"]
            return
        parity = compare(backtest, replay_prepared(prepared))
        event(f"trades: {min(backtest.trades.height, 3)}, waiting: {'waiting' in backtest.events['event']}")
        assert parity.is_equal, str(parity)


@settings(RANDOM, max_examples=15)
@given(case=strategies.cases(max_bars=60), share=st.floats(0.0, 0.95), seed=st.integers(0, 2**16))
def test_what_comes_later_changes_nothing_that_was_recorded(case, share, seed):
    case["fills"]["latency_hours"] = 0.0
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepared_or_none(fitting(case), folder)
    try:
        events = recorded_events(prepared)
        changed = recorded_events(scrambled(prepared, row := int(share * (prepared.panel.n_bars - 1)), seed))
    except KernelError:
        assume(False)
    end_us = int(prepared.panel.ts_us[row])
    early = [[one for one in side if one.ts_us <= end_us] for side in (events, changed)]
    assert early[0] == early[1]


def recorded_events(prepared):
    """The events of a replay but the marks of its bars' ends and the end of the session."""
    with Journal(None, durable=False) as journal:
        replay_prepared(prepared, journal=journal)
        ends = (event_types.MARK, event_types.SESSION_END, event_types.STATE)
        return [dataclasses.replace(one, seq=0) for one in journal.events() if one.type not in ends]


def scrambled(prepared, row, seed):
    """Other prices, volumes, signals and settlements from the close of a row on."""
    random = np.random.default_rng(seed)
    market, changes = prepared.market, {}
    late = np.arange(prepared.panel.n_bars) > row
    for name in ("open_price", "close_price", "volume", "volume_before", "high_price", "low_price"):
        values = getattr(market, name).copy()
        rows = late if name in ("open_price", "volume_before") else late | (np.arange(len(late)) == row)
        values[rows] *= random.uniform(0.5, 2.0, values[rows].shape)
        values.flags.writeable = False
        changes[name] = values
    for name in ("signal", "basis_bps"):
        values = getattr(market, name).copy()
        values[late] = random.normal(size=late.sum())
        changes[name] = values
    rates, first = market.funding_rate.copy(), market.first_settlement[row + 1]
    rates[first:] = random.normal(0.0, 1e-3, len(rates) - first)
    return dataclasses.replace(prepared, market=market._replace(funding_rate=rates, **changes))


# ---------------------------------------------------------------------------------------------------- what it cannot do


@pytest.mark.parametrize(
    ("patch", "key"),
    [
        ({"fills": {"model": "bernoulli", "fill_probability": 0.5}}, "fills.model"),
        ({"fills": {"reject_probability": 0.5}}, "fills.reject_probability"),
        ({"fills": {"latency": {"spot": "1h", "perp": "2h"}}}, "fills.latency"),
        ({"wallets": {"mode": "segregated"}}, "wallets.mode"),
        ({"wallets": {"cash_yield_apr": 0.04}}, "wallets.cash_yield_apr"),
        ({"costs": {"fee_tier": "volume"}}, "costs.fee_tier"),
        ({"data": {"series": ["quote_usd"]}}, "data.series"),
        ({"rule": {"reverse": True}}, "combo.legs (spot:binance:BTC-USDT)"),
        ({"combo": {"legs": [{"instrument": "spot:binance:BTC-USDT", "ratio": 1.0},
                             {"instrument": "future:binance:BTC-USDT-20240329", "ratio": -1.0}]}},
         "combo.legs (future:binance:BTC-USDT-20240329)"),
        ({"combo": {"legs": [{"instrument": "spot:binance:BTC-USDT", "ratio": 1.0},
                             {"instrument": "future:binance:BTC-USDT", "ratio": -1.0}]}},
         "combo.legs (future:binance:BTC-USDT)"),
        ({"combo": {"legs": [{"instrument": "spot:binance:BTC-USDT", "ratio": 1.0},
                             {"instrument": "perp:bybit:BTC-USD", "ratio": -1.0}]}},
         "combo.legs (perp:bybit:BTC-USD)"),
    ],
)  # fmt: skip
def test_what_a_replay_cannot_do_is_refused_by_key_before_any_file_is_read(patch, key):
    raw = sample(patch)
    raw["data"]["root"] = "/there/is/no/such/folder"
    with pytest.raises(ConfigError) as found:
        replay(raw)
    assert key in found.value.where["key"]


def test_what_a_replay_can_do_is_not_refused():
    for patch in VARIATIONS.values():
        check_replayable(load_config(sample(patch)))


# ------------------------------------------------------------------------------------------------------------ restarts


class Killed(Exception):
    """The end of an engine, at the worst moment."""


class KilledCombos:
    """Carries out an instruction, and dies before anybody hears of it, every time."""

    def __init__(self, combos):
        self.combos, self.result = combos, None

    async def enter(self, instruction):
        self.result = await self.combos.enter(instruction)
        raise Killed

    async def leave(self, instruction):
        self.result = await self.combos.leave(instruction)
        raise Killed


@pytest.mark.parametrize("name", ["late fills", "two perps, both ways"])
@pytest.mark.parametrize("is_killed", [False, True])
def test_an_engine_that_is_restarted_again_and_again_goes_on_as_if_it_had_not_been(name, is_killed):
    raw = sample(VARIATIONS[name])
    prepared, expected = prepare(load_config(raw)), basis_bt.run(raw)
    clock, failure, instruments = BarClock(), Failure(), [one["instrument"] for one in raw["combo"]["legs"]]
    parsed = prepared.config.combo.instruments
    venues = {one.venue: ReplayVenue(one.venue, parsed, failure, penalty_bps=0.0) for one in parsed}
    feed = ReplayFeed(prepared, clock=clock, venues=venues, failure=failure)

    def new_trader(journal):
        strategy = Strategy(prepared.config)
        account = Account(instruments, ratios=strategy.ratios, reference=strategy.reference_leg,
                          capital_usd=strategy.capital_usd)  # fmt: skip
        combos = live_combos(Desk(venues, journal, clock=clock, execution=Execution(), is_modelled=True), prepared)
        combos = KilledCombos(combos) if is_killed else combos
        trader = Trader(strategy, account, instruments=instruments, feed=feed, combos=combos, venues=venues,
                        journal=journal, clock=clock, is_modelled=True)  # fmt: skip
        return trader, combos

    async def session(journal):
        (trader, combos), n_restarts = new_trader(journal), 0
        assert not trader.resume()
        async for opening in feed.openings():
            hour = opening.ts_us // US_PER_HOUR % 41
            try:
                await trader.on_open(opening)
            except Killed:
                result, (trader, combos) = combos.result, new_trader(journal)
                assert trader.resume() and trader.unsettled is not None
                trader.settle(result)
                await trader.on_open(opening)
                assert trader.unsettled is None
                n_restarts += 1
            if hour == 11:
                trader, combos = new_trader(journal)
                n_restarts += trader.resume()
            trader.on_close(opening, await feed.closing())
            if hour == 30:
                trader, combos = new_trader(journal)
                n_restarts += trader.resume()
        return n_restarts

    with Journal(None, durable=False) as journal:
        clock.at_us = int(prepared.panel.ts_us[0])
        start = Session(mode="replay", config=config_dict(prepared.config), config_hash="")
        journal.record(event_types.SESSION_START, start, ts_us=clock.at_us)
        n_restarts = asyncio.run(session(journal))
        tables, manifest = journal_tables(journal)
    parity = compare(expected, Result(manifest=manifest, tables=tables))
    assert parity.is_equal, str(parity)
    assert n_restarts > 20 and expected.fills.height > 1


def test_an_instruction_that_may_have_left_is_not_sent_again_unless_it_is_settled():
    prepared = prepare(load_config(sample()))
    prepared = dataclasses.replace(prepared, market=prepared.market._replace(signal=np.ones(prepared.panel.n_bars)))
    with Journal(None, durable=False) as journal:
        with pytest.raises(Killed):
            replay_prepared(prepared, journal=journal, combos=lambda desk, made: KilledCombos(live_combos(desk, made)))
        sent = journal.events(event_types.INTENT)
        assert len(sent) == 2
        kept = journal.get("trader")["state"]["working"]
        assert kept["is_sent"] and kept["instruction"]["number"] == 1


def test_the_state_of_a_strategy_survives_json():
    state = State.new(1e6)
    instruction = Instruction(number=3, action="exit", reason="stop", direction=-1, quantity=0.5,
                              change_base=(0.5, -0.25), arrival_price=(1.0, 2.0), decided_us=7)  # fmt: skip
    state.working = Working(instruction=instruction, bar_us=5, ready_us=9, has_waited=True)
    state.entry_us, state.n_trades = 11, 4
    assert State.from_json(json.loads(json.dumps(state.to_json()))) == state


# ------------------------------------------------------------------------------------------- instructions that go wrong


class Stubborn:
    """The engine's own way, but for the instructions that a test answers itself."""

    def __init__(self, combos, answer):
        self.combos, self.answer, self.asked = combos, answer, []

    async def enter(self, instruction):
        self.asked.append(instruction)
        return self.answer(instruction, len(self.asked)) or await self.combos.enter(instruction)

    async def leave(self, instruction):
        self.asked.append(instruction)
        return self.answer(instruction, len(self.asked)) or await self.combos.leave(instruction)


def replayed_with(answer):
    made = []

    def combos(desk, prepared):
        made.append(Stubborn(live_combos(desk, prepared), answer))
        return made[0]

    prepared = prepare(load_config(sample()))
    return replay_prepared(prepared, combos=combos), made[0].asked


def test_an_exit_that_does_not_get_out_is_tried_again_at_each_bar_until_it_has():
    def answer(instruction, n_asked):
        is_first_exit = 2 <= n_asked <= 4
        return ComboResult(intent=instruction.intent, outcome="reduced", reason="no") if is_first_exit else None

    result, asked = replayed_with(answer)
    late = [asked[k].decided_us - asked[1].decided_us for k in (2, 3, 4)]
    assert [one.action for one in asked[1:6]] == ["exit"] * 4 + ["entry"]
    assert len({one.intent for one in asked}) == len(asked), "client order ids would be used twice"
    assert late == [0, US_PER_HOUR, 2 * US_PER_HOUR]
    first = result.trades.row(0, named=True)
    assert (first["exit_ts"] - from_us(asked[1].decided_us)).total_seconds() == 3 * 3600
    assert result.fills.filter(pl.col("trade") == 1)["decision_ts"].unique().len() == 2


def test_an_entry_that_is_refused_leaves_the_strategy_flat_and_is_on_record():
    def answer(instruction, n_asked):
        return ComboResult(intent=instruction.intent, outcome="refused", reason="stale book") if n_asked == 1 else None

    result, asked = replayed_with(answer)
    assert asked[1].action == "entry" and asked[1].decided_us > asked[0].decided_us
    refused = result.events.filter(pl.col("event") == "refused")
    assert refused["reason"].to_list() == ["stale book"]
    assert refused["ts"][0] == from_us(asked[0].decided_us)
    assert result.trades["entry_ts"][0] == from_us(asked[1].decided_us)


def leg_result(*, leg, side, quantity, price, arrival, purpose="entry"):
    kind = ("spot", "perp")[leg]
    order = LegOrder(intent="1-entry", client_order_id=f"{purpose}{leg}", instrument=f"{kind}:binance:BTC-USDT",
                     leg=leg, side=side, quantity_base=quantity, purpose=purpose, arrival_price=arrival,
                     reference_price=arrival, half_spread_bps=1.0, decided_us=0)  # fmt: skip
    trade = VenueTrade(trade_id="1", venue_order_id="1", instrument=order.instrument, side=side,
                       quantity_base=quantity, price=price, fee=0.001 * quantity * price, fee_asset="USDT",
                       is_maker=False, ts_us=0)  # fmt: skip
    contract = Contract(instrument=order.instrument, venue="binance", symbol="BTCUSDT", base="BTC", quote="USDT",
                        is_margined=leg == 1, lot_base=0.0, tick=0.0, min_base=0.0, min_notional_usd=0.0,
                        contract_base=1.0, taker_fee_bps=10.0, maker_fee_bps=10.0, is_fee_in_base=False,
                        is_trading=True)  # fmt: skip
    return made_of(order, [trade], contract=contract, worth={}, done_us=0, venue_order_id="1")


@pytest.mark.parametrize("taken_back", [2.0, 0.5])
def test_what_was_taken_back_is_a_cost_of_the_rollback_and_nothing_else(taken_back):
    account = Account(["spot:binance:BTC-USDT", "perp:binance:BTC-USDT"], ratios=[1.0, -1.0], reference=0,
                      capital_usd=1e5)  # fmt: skip
    legs = [leg_result(leg=0, side=1, quantity=2.0, price=101.0, arrival=100.0)]
    if taken_back < 2.0:
        legs.append(leg_result(leg=1, side=-1, quantity=1.5, price=100.5, arrival=101.0))
    legs.append(leg_result(leg=0, side=-1, quantity=taken_back, price=97.0, arrival=98.0, purpose="rollback"))
    account.book(legs, [100.0, 101.0])
    opening = Opening(ts_us=0, open_price=np.zeros(2), tradable=np.ones(2, dtype=bool), volume_before=np.zeros(2),
                      signal=0.0, basis_bps=0.0, costs=())  # fmt: skip
    mark = account.mark(opening, Closing(ts_us=0, close_price=np.array([90.0, 91.0]), missing=np.zeros(2, dtype=bool)),
                        direction=1)  # fmt: skip
    books = dict(zip(BOOKS, account.books.T, strict=True))
    assert mark.equity_usd - 1e5 == pytest.approx(account.books.sum(axis=0) @ np.array(BOOK_SIGNS), abs=1e-9)
    share = taken_back / 2.0
    both = share * legs[0].shortfall_usd + legs[-1].shortfall_usd
    assert books["rollback_execution"][0] == pytest.approx(both)
    assert books["rollback_price"][0] == pytest.approx(taken_back * (100.0 - 98.0))
    assert books["fees"][0] == pytest.approx((1.0 - share) * legs[0].fee_usd)
    assert books["delta"][0] == pytest.approx((2.0 - taken_back) * (90.0 - 100.0))
    assert mark.is_naked is False


# ------------------------------------------------------------------------------------------------------------- the rest


def test_parity_finds_a_fee_that_is_off_by_ten_cents():
    raw = sample()
    backtest = basis_bt.run(raw)
    replayed = replay(raw)
    assert compare(backtest, replayed).is_equal
    off = pl.when(pl.int_range(pl.len()) == 2).then(0.1).otherwise(0.0)
    fills = replayed.fills.with_columns(fee_usd=pl.col("fee_usd") + off)
    parity = compare(backtest, Result(manifest=replayed.manifest, tables=replayed.tables | {"fills": fills}))
    found = {one.table: one for one in parity.tables}
    assert [name for name in TABLES if not found[name].is_equal] == ["fills"]
    assert (found["fills"].n_different, round(found["fills"].largest_usd, 9)) == (1, 0.1)
    assert found["fills"].first_difference.startswith("row 2 (2024-")
    assert "fee_usd" in found["fills"].first_difference
    assert "NOT" in str(parity) and parity.frame().height == len(TABLES)


def test_parity_finds_a_trade_that_is_missing():
    raw = sample()
    backtest = basis_bt.run(raw)
    short = Result(manifest=backtest.manifest, tables=backtest.tables | {"trades": backtest.trades.head(1)})
    parity = compare(backtest, short)
    assert [one.table for one in parity.tables if not one.is_equal] == ["trades"]
    assert "only in the backtest" in str(parity)


def test_a_replay_is_the_same_every_time(tmp_path):
    digests = []
    for _ in range(2):
        with Journal(None, durable=False) as journal:
            replay(sample(), journal=journal)
            digests.append(journal.digest())
    assert digests[0] == digests[1]


def test_a_replay_is_saved_and_read_like_a_run(tmp_path):
    folder = replay(sample()).save(tmp_path, name="replayed")
    found = basis_bt.sql("SELECT count(*) AS n FROM fills WHERE run = 'replayed'", root=tmp_path)
    assert found["n"][0] > 0
    assert json.loads((folder / "manifest.json").read_text())["mode"] == "replay"
