"""The named strategies: their files, how the command line serves them, and what their rules do on real data."""

import functools
import math
import shutil
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import published
import pytest
from realdata import real_market

import basis_bt
from basis_bt.cli.main import entry
from basis_bt.core.config import load_config
from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import Combo, Leg
from basis_bt.core.models import Data, SignalSpec
from basis_bt.core.strategy_book import strategy_legs, strategy_line, strategy_names, strategy_path, strategy_text
from basis_bt.frames.panel import load_panel
from basis_bt.signals import build_signal, evaluate

ROOT = Path(__file__).resolve().parents[1]
NAMED = ("always_on_carry", "funding_threshold", "funding_confirmed", "trend_gated_carry", "random_maturity_arb",
         "perp_perp_diff", "quarterly_cash_and_carry", "staked_basis", "leverage_loop")  # fmt: skip
EVERY = pytest.mark.parametrize("name", NAMED)
HOUR = timedelta(hours=1)


def market_of(name):
    """The real folder a strategy runs on: bars of 8 h for the coin-margined perp, hourly ones for all else."""
    market = real_market()
    return market.parent / "market_8h" if name == "trend_gated_carry" else market


@functools.cache
def run_of(name, **settings):
    changes = {key.replace("__", "."): value for key, value in settings.items()}
    return basis_bt.run(load_config(strategy_path(name), {"data.root": str(market_of(name)), **changes}))


def metrics_of(name, **settings):
    return run_of(name, **settings).metrics.row(0, named=True)


# ------------------------------------------------------------------------------------------------------------- files


def test_the_strategies_of_the_list_are_there():
    assert sorted(NAMED) == strategy_names()


@EVERY
def test_a_strategy_is_a_configuration_with_its_name_a_line_and_the_folder_of_the_user(name):
    config = load_config(strategy_path(name))
    assert config.name == name
    assert config.data.root == "data/market"
    assert 20 < len(strategy_line(name)) <= 110
    assert strategy_line(name).endswith(".")
    legs = [f"{leg.ratio:+g} {leg.instrument}" for leg in config.combo.legs]
    assert strategy_legs(name) == legs
    signal = build_signal(config.signal, config.combo, bar_us=config.data.bar_us)
    assert signal.trusted or config.signal.sql == "1.0"


def test_the_strategies_are_part_of_the_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "core/strategies/*.toml" in settings["tool"]["setuptools"]["package-data"]["basis_bt"]


@EVERY
def test_every_strategy_has_its_place_in_the_docs(name):
    assert f"| `{name}` |" in (ROOT / "docs" / "strategies.md").read_text()


def test_a_name_nearly_right_is_answered_with_the_right_one():
    with pytest.raises(ConfigError, match="did you mean 'funding_threshold'"):
        strategy_path("funding_treshold")
    with pytest.raises(ConfigError, match="there are: always_on_carry"):
        strategy_path("../venues/binance")


# ------------------------------------------------------------------------------------------------------ command line


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with the sample beside it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "data" / "sample", tmp_path / "data" / "sample")
    return tmp_path


def basis_bt_says(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["basis-bt", *arguments])
    code = entry()
    out = capsys.readouterr()
    return code, out.out, out.err


def test_the_verb_lists_one_line_each_or_prints_the_file(monkeypatch, capsys):
    code, out, _ = basis_bt_says(monkeypatch, capsys, "strategies")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == sorted(NAMED)
    assert all(strategy_line(name) in out for name in NAMED)
    assert basis_bt_says(monkeypatch, capsys, "strategies", "perp_perp_diff")[1] == strategy_text("perp_perp_diff")
    code, out, _ = basis_bt_says(monkeypatch, capsys, "strategies", "--format", "csv")
    assert out.splitlines()[0] == "strategy,what,legs"
    code, out, err = basis_bt_says(monkeypatch, capsys, "strategies", "alway_on_carry")
    assert (code, out) == (2, "")
    assert "did you mean 'always_on_carry'" in err


SAMPLE = ("--set", "data.root=data/sample", "--set", "data.start='2024-01-02T00:00Z'",
          "--set", "data.end='2024-03-01T00:00Z'", "--no-report")  # fmt: skip


def test_a_strategy_runs_by_its_name_with_settings_on_top(folder, monkeypatch, capsys):
    code, _, err = basis_bt_says(monkeypatch, capsys, "run", "--strategy", "funding_confirmed", *SAMPLE,
                                 "--set", "signal.n=2", "--name", "mine")  # fmt: skip
    assert code == 0, err
    code, out, _ = basis_bt_says(
        monkeypatch, capsys, "sql", "SELECT run, param_signal_n FROM trials", "--format", "csv"
    )
    assert out.splitlines()[-1] == "mine,2"


def test_a_run_has_its_strategys_name_unless_another_is_given(folder, monkeypatch, capsys):
    assert basis_bt_says(monkeypatch, capsys, "run", "--strategy", "always_on_carry", *SAMPLE)[0] == 0
    assert (folder / "runs" / "always_on_carry" / "manifest.json").is_file()


REFUSED = [
    (("run", "--strategy", "always_on_carry", "a.toml"), "either CONFIG... or --strategy NAME, not both"),
    (("run",), "Missing argument 'CONFIG...', or --strategy NAME"),
    (("run", "--strategy", "carry"), "no strategy is called 'carry'"),
    (("run", "--strategy", "funding_confirmed", "--set", "signal.look=3"), "funding_confirmed takes no look"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_makes_no_sense_is_refused_with_usage(folder, monkeypatch, capsys, arguments, message):
    code, out, err = basis_bt_says(monkeypatch, capsys, *arguments)
    assert code == 2
    assert message in err
    assert not (folder / "runs").exists()


# --------------------------------------------------------------------------------------------- signals within a run

CARRY = [{"instrument": "spot:binance:BTC-USDT", "ratio": 1.0}, {"instrument": "perp:binance:BTC-USDT", "ratio": -1.0}]


def sample_run(signal, *, entry_apr, exit_apr):
    return basis_bt.run(
        {
            "data": {"root": str(ROOT / "data/sample"), "start": "2024-01-10T00:00Z", "end": "2024-06-01T00:00Z"},
            "combo": {"legs": CARRY},
            "signal": signal,
            "rule": {"entry": entry_apr, "exit": exit_apr},
            "costs": {"half_spread_bps": 0.5, "taker_fee_bps": {"spot": 10.0, "perp": 5.0}},
        }
    )


def test_the_engine_takes_its_own_fees_and_spreads_off_the_net_income():
    cost_apr = 2 * (10.5 + 5.5) / 1e4 * 8760 / 720
    gross = sample_run({"name": "funding_apr", "hours": 48}, entry_apr=0.06 + cost_apr, exit_apr=0.0 + cost_apr)
    net = sample_run({"name": "net_apr", "hours": 48, "hold_hours": 720}, entry_apr=0.06, exit_apr=0.0)
    columns = ("entry_ts", "exit_ts", "pnl_usd")
    assert gross.trades.height > 0
    assert net.trades.select(columns).equals(gross.trades.select(columns))


@pytest.mark.parametrize(
    "spec",
    [
        SignalSpec(name="funding_rate_8h"),
        SignalSpec(name="funding_confirmed", n=7, above=0.00005, below=0.00002),
        SignalSpec(name="trend_gate", n=9, days=10),
    ],
    ids=lambda spec: spec.name,
)
@pytest.mark.parametrize("bar", ["1h", "8h", "1d"])
def test_a_signal_is_the_same_wherever_the_run_begins(spec, bar):
    combo = Combo(legs=[Leg(**leg) for leg in CARRY])
    values = []
    for start in ("2024-01-10T00:00Z", "2024-03-01T00:00Z"):
        data = Data(root=str(ROOT / "data/sample"), start=start, end="2024-05-01T00:00Z", bar=bar)
        signal = build_signal(spec, combo, bar_us=data.bar_us)
        panel = load_panel(data, combo, warmup_hours=signal.warmup_hours, settled_counts=signal.settled_counts)
        values.append(evaluate(signal, panel))
    early, late = values
    assert not np.isnan(late).any()
    assert len(set(late)) > 1
    assert late.tolist() == early[-len(late) :].tolist()


# ------------------------------------------------------------------------------------- rules on real data, by hand


def rates_of(market, path):
    """``(stamp, rate scaled to 8 h)`` of a funding file, the first left out; all intervals used here are 8 h."""
    file = pl.read_parquet(market / "funding" / path).select(pl.col("ts").dt.round("1m"), "rate")
    rows = file.rows()
    return [
        (stamp, rate * 8 / ((stamp - before).total_seconds() / 3600))
        for (before, _), (stamp, rate) in zip(rows, rows[1:], strict=False)
    ]


def entries_and_exits(signals, *, entry, exit_, reverse=False):
    """``(decision stamp, signal)`` through the threshold rule: the stamps of entries, with direction, and of exits."""
    held, entries, exits = 0, [], []
    for stamp, value in signals:
        if value is None:
            continue
        if held:
            if held * value <= exit_:
                held = 0
                exits.append(stamp)
        elif value >= entry or (reverse and value <= -entry):
            held = 1 if value >= entry else -1
            entries.append((stamp, held))
    return entries, exits


def check_trades(name, entries, exits):
    """The run made the trades found by hand, in the bars found by hand."""
    trades = run_of(name).trades
    assert trades.select("entry_ts", "direction").rows() == entries
    assert trades["exit_ts"].drop_nulls().to_list() == exits
    assert metrics_of(name)["n_trades"] == len(entries)


def test_the_baseline_is_in_from_the_first_bar_and_lives_on_funding():
    metrics = metrics_of("always_on_carry")
    assert (metrics["n_trades"], metrics["time_in_market"]) == (1, 1.0)
    result = run_of("always_on_carry")
    coins = -result.fills.filter(pl.col("leg") == 1)["quantity_base"][0]
    market = real_market()
    marks = pl.read_parquet(market / "mark/binance/BTC-USDT.parquet").select("ts", "open")
    paid = pl.read_parquet(market / "funding/binance/BTC-USDT.parquet").select(pl.col("ts").dt.round("1h"), "rate")
    by_hand = paid.join(marks, on="ts").filter(pl.col("ts") > datetime(2021, 1, 1, tzinfo=UTC))
    assert metrics["funding_usd"] == pytest.approx(abs(coins) * (by_hand["rate"] * by_hand["open"]).sum(), rel=1e-4)
    assert metrics["funding_usd"] > 0.95 * metrics["pnl_usd"] > 0


def test_the_threshold_is_in_from_a_rate_of_1_5_bp_to_one_of_none():
    entries, exits = entries_and_exits(rates_of(real_market(), "binance/BTC-USDT.parquet"), entry=0.00015, exit_=0.0)
    check_trades("funding_threshold", entries, exits)
    assert len(entries) > 5
    assert metrics_of("funding_threshold")["funding_usd"] > 0


def test_the_confirmed_rule_waits_for_three_rates_in_a_row():
    rates = rates_of(real_market(), "binance/BTC-USDT.parquet")
    signals = []
    for place in range(2, len(rates)):
        last = [rate for _, rate in rates[place - 2 : place + 1]]
        signals.append((rates[place][0], (min(last) >= 0.00015) - (max(last) <= 0.0)))
    entries, exits = entries_and_exits(signals, entry=1, exit_=-1)
    check_trades("funding_confirmed", entries, exits)
    assert 1 < len(entries) < metrics_of("funding_threshold")["n_trades"]


def test_the_trend_gate_is_in_above_the_trend_and_out_below_it():
    market = market_of("trend_gated_carry")
    bars = pl.read_parquet(market / "spot/binance/BTC-USDT.parquet").select("ts", "close").rows()
    last_rate = dict(rates_of(market, "binance/BTC-USD.parquet"))
    daily, means = [], []
    for stamp, close in bars:
        end = stamp + 8 * HOUR
        if end.hour == 0:
            daily.append(close)
        means.append(math.fsum(daily[-120:]) / 120 if len(daily) >= 120 else None)
    signals = []
    for place, (stamp, _) in enumerate(bars):
        last = [(bars[k][1], means[k]) for k in range(max(place - 8, 0), place + 1) if means[k] is not None]
        if len(last) < 9 or stamp + 8 * HOUR > bars[-1][0]:
            continue
        rate = last_rate[stamp + 8 * HOUR]
        up, down = all(close > mean for close, mean in last), all(close < mean for close, mean in last)
        signals.append((stamp + 8 * HOUR, (up and rate > 0) - (down and rate < 0)))
    entries, exits = entries_and_exits(signals, entry=1, exit_=-1)
    check_trades("trend_gated_carry", entries, exits)
    assert len(entries) > 3


def gaps_of(market):
    """``(decision stamp, gap in bps)`` of hourly closes for an interest of 5 % a year."""
    legs = [
        pl.read_parquet(market / kind / "binance/BTC-USDT.parquet").select("ts", pl.col("close").alias(kind))
        for kind in ("spot", "perp")
    ]
    fair = 0.05 * 8 / 8760 - 0.0005
    both = legs[0].join(legs[1], on="ts").sort("ts")
    return [
        (stamp + HOUR, ((perp - spot) / perp - fair) * 1e4)
        for stamp, spot, perp in both.rows()
        if stamp >= datetime(2021, 1, 1, tzinfo=UTC) and stamp + HOUR < datetime(2026, 1, 1, tzinfo=UTC)
    ]


TIERS = {"none": 1e-9, "low": 4.86, "medium": 10.44, "high": 16.38}


@pytest.mark.parametrize("tier", TIERS)
def test_the_arbitrage_trades_the_gap_beyond_its_tier_both_ways(tier):
    entry_bps = TIERS[tier]
    assert f"{tier} {entry_bps:g}" in strategy_text("random_maturity_arb").replace("1e-9", "1e-09")
    result = run_of("random_maturity_arb", rule__entry=str(entry_bps))
    entries, exits = entries_and_exits(gaps_of(real_market()), entry=entry_bps, exit_=0.0, reverse=True)
    found = result.trades.select("entry_ts", "direction").rows()
    # where spot was down for hours, an order waits for its bar, and what it asks for may have passed
    assert abs(len(found) - len(entries)) <= 0.005 * len(entries) + 1
    assert len(set(found) & set(entries)) >= 0.99 * len(entries) - 1
    assert {direction for _, direction in entries} == {1, -1} or entry_bps > 5


def test_the_perps_are_traded_on_the_difference_of_21_settlements():
    market = real_market()
    sides = [dict(rates_of(market, f"{venue}/BTC-USDT.parquet")) for venue in ("bybit", "binance")]
    stamps = sorted(sides[0].keys() & sides[1].keys())
    signals = []
    for place in range(20, len(stamps)):
        paid, received = (math.fsum(side[stamp] for stamp in stamps[place - 20 : place + 1]) / 21 for side in sides)
        signals.append((stamps[place], received - paid))
    rule = load_config(strategy_path("perp_perp_diff")).rule
    entries, exits = entries_and_exits(signals, entry=rule.entry, exit_=rule.exit, reverse=True)
    check_trades("perp_perp_diff", entries, exits)
    assert {direction for _, direction in entries} == {1, -1}
    assert metrics_of("perp_perp_diff")["funding_usd"] > 0


SPANS = {
    "2024": {"data__start": "2024-01-03T00:00:00Z", "data__end": "2025-01-01T00:00:00Z"},
    "2025": {"data__start": "2025-01-01T00:00:00Z", "data__end": "2025-11-15T01:00:00Z"},
}


def chain_by_hand(span, *, roll_days):
    """``(contract, stamp held from, stamp left at)`` on the hours both contracts have a mark; None: not left."""
    market = real_market()
    marks = {}
    for path in sorted((market / "future/binance_cm").glob("BTC-USD-*.parquet")):
        expiry = datetime.strptime(path.stem[-8:], "%Y%m%d").replace(tzinfo=UTC) + 8 * HOUR
        file = pl.read_parquet(path).filter(pl.col("ts").dt.minute() == 0)
        marks[expiry] = dict(file.select("ts", "close").rows())
    start, end = (datetime.fromisoformat(SPANS[span][f"data__{edge}"]) for edge in ("start", "end"))
    now, since, held = min(expiry for expiry, of in marks.items() if start in of), start, []
    for following in sorted(expiry for expiry in marks if expiry > now):
        both = sorted(marks[now].keys() & marks[following].keys())
        due = next((stamp for stamp in both if stamp >= now - roll_days * 24 * HOUR and stamp < end), None)
        if due is None:
            break
        held.append((marks[now], since, due))
        now, since = following, due
    return [*held, (marks[now], since, now if now < end else None)]


@pytest.mark.parametrize("span", SPANS)
def test_the_quarterly_future_is_sold_over_the_hurdle_rolled_on_time_and_earns_its_basis(span):
    result = run_of("quarterly_cash_and_carry", **SPANS[span])
    (trade,) = result.trades.rows(named=True)
    spot = dict(pl.read_parquet(real_market() / "spot/binance/BTC-USDT.parquet").select("ts", "open").rows())
    held = chain_by_hand(span, roll_days=5)
    assert len(held) == 3
    first, since, _ = held[0]
    expiry = {"2024": datetime(2024, 6, 28, 8, tzinfo=UTC), "2025": datetime(2025, 6, 27, 8, tzinfo=UTC)}[span]
    assert (first[since] / spot[since] - 1) * 8760 / ((expiry - since) / HOUR) > 0.05
    assert trade["entry_ts"] == since
    rolls = result.events.filter(pl.col("event") == "roll")["ts"].to_list()
    assert rolls == [leave for _, _, leave in held[:-1]]
    assert trade["exit_ts"] == held[-1][2]
    # a short of dollars, sold half a spread under its price, earns those dollars times the change of spot over future
    coins, basis_usd = trade["quantity_base"], 0.0
    for marks, begun, left in held:
        last = left or max(marks)
        worth = spot[last if left else last + HOUR]  # a chain not delivered ends with the close of its last row
        ratio = worth / marks[last] if last in marks else 1.0  # at delivery the two are one
        basis_usd += coins * marks[begun] * (1 - 0.5e-4) * (ratio - spot[begun] / marks[begun])
    assert trade["basis_usd"] == pytest.approx(basis_usd, rel=1e-9)
    assert trade["pnl_usd"] == pytest.approx(trade["basis_usd"] - trade["costs_usd"])
    assert 0 < trade["costs_usd"] < 0.1 * trade["basis_usd"]


def lending_file(coin):
    return pl.read_parquet(real_market() / f"onchain/aave_v3_ethereum/{coin}.parquet").sort("ts")


def growth_by_hand(coin, index, *, first, last):
    values = dict(lending_file(coin).select("ts", index).rows())
    return values[last] / values[first]


def positions(name, leg):
    return run_of(name).attribution.filter(pl.col("leg") == leg).sort("ts")


def test_staked_ether_against_a_short_perp_lives_on_staking_and_funding():
    metrics, perp, staked = metrics_of("staked_basis"), positions("staked_basis", 1), positions("staked_basis", 0)
    assert (metrics["n_trades"], metrics["time_in_market"]) == (1, 1.0)
    first, last = staked["ts"][0], staked["ts"][-1]
    assert staked["position_base"][-1] / staked["position_base"][0] == pytest.approx(
        growth_by_hand("wstETH", "liquidity_index", first=first, last=last), rel=1e-9
    )
    market = real_market()
    marks = pl.read_parquet(market / "mark/binance/ETH-USDT.parquet").select("ts", "open")
    paid = pl.read_parquet(market / "funding/binance/ETH-USDT.parquet").select(pl.col("ts").dt.round("1h"), "rate")
    by_hand = paid.join(marks, on="ts").filter((pl.col("ts") > first) & (pl.col("ts") <= last))
    coins = -perp["position_base"][0]
    assert metrics["funding_usd"] == pytest.approx(coins * (by_hand["rate"] * by_hand["open"]).sum(), rel=1e-3)
    staking = lending_file("wstETH").join(lending_file("WETH"), on="ts", suffix="_weth")
    worth = dict(staking.select("ts", pl.col("oracle_price_usd") / pl.col("oracle_price_usd_weth")).rows())
    gain = coins * perp["close_price"][-1] * (worth[last] / worth[first] - 1)
    # what is left is staking, to a tenth: perp over spot at the end, and a hedge that grows a little short of it
    assert metrics["pnl_usd"] - metrics["funding_usd"] == pytest.approx(gain, rel=0.2)
    assert metrics["max_drawdown"] < 0.03


def test_the_loop_owes_what_the_index_says_and_is_hedged_by_a_short_of_the_rest():
    metrics, staked, owed = metrics_of("leverage_loop"), positions("leverage_loop", 0), positions("leverage_loop", 1)
    first, last = owed["ts"][0], owed["ts"][-1]
    assert owed["position_base"][0] / staked["position_base"][0] == pytest.approx(-0.81)
    for leg, coin, index in ((owed, "WETH", "variable_borrow_index"), (staked, "wstETH", "liquidity_index")):
        grown = growth_by_hand(coin, index, first=first, last=last)
        assert leg["position_base"][-1] / leg["position_base"][0] == pytest.approx(grown, rel=1e-9)
    assert metrics["borrow_usd"] > metrics["yield_usd"] > 0
    assert metrics["n_trades"] == 1
    raw = tomllib.loads(strategy_text("leverage_loop"))
    raw["data"]["root"] = str(real_market())
    raw["combo"]["legs"].append({"instrument": "perp:binance:ETH-USDT", "ratio": -0.356})
    hedged = basis_bt.run(raw).metrics.row(0, named=True)
    assert hedged["ann_vol"] < 0.1 * metrics["ann_vol"]
    assert hedged["pnl_usd"] > hedged["funding_usd"] > 0


# --------------------------------------------------------------------------------------------- a published backtest


def published_rows():
    path = real_market().parent / "published" / "francypeng" / "Binance_BTC_8h_all_data_final.csv"
    return published.read_rows(path)


def test_the_published_result_is_reproduced_to_the_cent_by_its_own_accounts():
    """9 trades and 2,168,862.71 USDT: data/README.md, section published/francypeng."""
    rows = published_rows()
    held = published.trades(rows, [row.average for row in rows], latch=True)
    assert len(held) == 9
    assert published.published_equity(rows, held) == pytest.approx(2_168_862.71, abs=0.005)


def test_the_average_of_the_published_file_holds_the_close_of_its_own_day():
    rows = published_rows()
    honest = published.averages_of_days_over(rows)
    ahead = [row.average != known for row, known in zip(rows, honest, strict=True) if known is not None]
    assert sum(ahead) > 0.6 * len(ahead)  # two bars of three: all but the last of the day


LATCHED = pytest.mark.parametrize(("latch", "causal"), [(True, False), (True, True), (False, True)])


@LATCHED
def test_the_engine_agrees_with_the_published_rule_once_the_short_is_one_of_dollars(latch, causal):
    rows = published_rows()
    averages = published.averages_of_days_over(rows) if causal else [row.average for row in rows]
    held = published.trades(rows, averages, latch=latch)
    wanted = {}
    for enter, leave in held:
        wanted[rows[enter - 1].stamp] = 1.0
        if leave is not None:
            wanted[rows[leave - 1].stamp] = -1.0
    closes_at = (pl.col("ts") + pl.duration(hours=8)).dt.strftime("%Y-%m-%d %H:%M:%S")
    result = basis_bt.run(
        {
            "data": {
                "root": str(market_of("trend_gated_carry")),
                "start": "2020-08-11T00:00:00Z",
                "end": "2025-04-29T00:00:00Z",
                "bar": "8h",
            },
            "combo": {
                "legs": [
                    {"instrument": "spot:binance:BTC-USDT", "ratio": 1.0},
                    {"instrument": "perp:binance:BTC-USD", "ratio": -1.0},
                ]
            },
            "signal": {"name": "sql", "sql": "1.0"},
            "rule": {"entry": 1.0, "exit": -1.0},
            "size": {"capital_usd": 1e6, "allocation": 1.0, "lots": "none", "compounding": False},
            "costs": {"taker_fee_bps": {"spot": 7.5, "perp": 3.5}},
        },
        expression=closes_at.replace_strict(wanted, default=0.0, return_dtype=pl.Float64),
    )
    metrics = result.metrics.row(0, named=True)
    assert metrics["n_trades"] == len(held)
    # entries are sized at opens of spot in both; the file of the source and ours hold the same prices
    assert metrics["pnl_usd"] + 1e6 == pytest.approx(published.dollar_short_equity(rows, held), rel=1e-9)
