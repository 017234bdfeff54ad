"""Is the best trial luck: daily returns, the count of trials, planted noise and planted edges, and walk-forward.

Markets are files written here: spot and perp of a coin on hours from the start of 2024, with settlements each 8 hours.
"""

import dataclasses
import json
import math
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bridge
import numpy as np
import polars as pl
import pytest
import strategies
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sweeping import CARRY, toml_of

import basis_bt
from basis_bt.cli.main import entry
from basis_bt.core.errors import ConfigError, DataError, StoreError
from basis_bt.kernels.structs import recorded
from basis_bt.kernels.trial import run_trial
from basis_bt.sweeps.batch import Cell
from basis_bt.sweeps.curves import daily_returns
from basis_bt.sweeps.luck import luck
from basis_bt.sweeps.plan import make_plan
from basis_bt.sweeps.stretches import slice_cell

START = datetime(2024, 1, 1, tzinfo=UTC)
N_DAYS = 90
CLI_SWEEP = {
    "name": "swept",
    "data": {"root": "market", "start": "2024-01-04T00:00:00Z", "end": "2024-03-25T00:00:00Z"},
    "combo": CARRY,
    "signal": {"name": "funding_apr", "hours": [8, 24]},
    "rule": {"entry": {"from": 0.02, "to": 0.3, "steps": 5}, "exit": {"from": -0.1, "to": 0.01, "steps": 3}},
    "costs": {"taker_fee_bps": 0.5},
    "sweep": {"best": 1},
}


def day(number, hour=0):
    """An instant some days after the start, in ISO 8601."""
    return (START + timedelta(days=number, hours=hour)).isoformat()


def write(root, path, **columns):
    file = root / f"{path}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    stamps = pl.Series([START + timedelta(hours=int(hour)) for hour in columns.pop("hours")])
    pl.DataFrame({"ts": stamps.cast(pl.Datetime("us", "UTC")), **columns}).write_parquet(file)


def write_market(root, *, seed=1, n_days=N_DAYS, coin="BTC", venue="binance", first_hour=0, holes=0, rates=None):
    """A coin's spot and perp: two random walks, so that nothing is earned by waiting for their distance to close.

    ``rates`` are those of the settlements, by default pure noise as well; ``holes`` is how many bars each leg misses.
    """
    rng = np.random.default_rng(seed)
    hours = np.arange(first_hour, n_days * 24)
    spot = 40_000.0 * np.exp(np.cumsum(rng.normal(0.0, 4e-3, len(hours) + 1)))
    perp = spot * np.exp(np.cumsum(rng.normal(0.0, 1e-4, len(hours) + 1)))
    for kind, name, path in (("spot", "binance", spot), ("perp", venue, perp)):
        kept = np.setdiff1d(np.arange(len(hours)), rng.choice(np.arange(50, len(hours) - 50), holes, replace=False))
        opens, closes = path[:-1][kept], path[1:][kept]
        write(
            root, f"{kind}/{name}/{coin}-USDT", hours=hours[kept], open=opens, close=closes,
            high=np.maximum(opens, closes) * 1.001, low=np.minimum(opens, closes) * 0.999,
            volume=rng.uniform(50.0, 500.0, len(kept)),
        )  # fmt: skip
    settled = np.arange(first_hour, n_days * 24, 8)
    paid = rng.normal(0.0, 2e-4, len(settled)) if rates is None else rates[: len(settled)]
    write(root, f"funding/{venue}/{coin}-USDT", hours=settled, rate=paid)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two coins, one of which begins later and ends earlier, with bars missing; two venues; a market in one piece."""
    folder = tmp_path_factory.mktemp("markets")
    write_market(folder / "holed", holes=60)
    write_market(folder / "holed", seed=2, coin="ETH", first_hour=20 * 24 + 7, n_days=70, holes=40)
    write_market(folder / "apart", seed=3, venue="bybit", holes=60)
    write_market(folder / "whole")
    return folder


def legs(coin="BTC", venue="binance"):
    return [
        {"instrument": f"spot:binance:{coin}-USDT", "ratio": 1.0},
        {"instrument": f"perp:{venue}:{coin}-USDT", "ratio": -1.0},
    ]


def sweep_of(root, **sections):
    """A sweep over thresholds of a signal that is pure noise, without costs; sections are merged into it."""
    raw = {
        "name": "swept",
        "data": {"root": str(root), "start": day(2), "end": day(N_DAYS)},
        "combo": {"legs": legs()},
        "signal": {"name": "funding_apr", "hours": [8, 24]},
        "rule": {"entry": [0.02, 0.1, 0.2], "exit": [-0.15, -0.05, 0.0]},
        "size": {"lots": "none"},
        "costs": {"taker_fee_bps": 0.0},
        "sweep": {"best": 0},
    }
    for section, values in sections.items():
        raw[section] = values if isinstance(values, list) else raw.get(section, {}) | values
    return raw


# -- daily returns -----------------------------------------------------------------------------------------------------


def returns_by_hand(result, day_us):
    """Returns of days from an equity table: the last fresh row of each day against that of the day before."""
    fresh = result.equity.filter(~pl.col("stale"))
    stamps, equity = fresh["ts"].to_physical().to_numpy(), fresh["equity_usd"].to_numpy()
    capital = result.manifest["config"]["size"]["capital_usd"]

    def at_end_of(us):
        rows = np.flatnonzero(stamps < us)
        return equity[rows[-1]] if len(rows) else capital

    return [at_end_of(us + 86_400_000_000) / at_end_of(us) - 1.0 for us in day_us.tolist()]


SEGREGATED = {
    "combo": {"legs": legs(venue="bybit")}, "wallets": {"mode": "segregated", "rebalance_below": 0.2},
}  # fmt: skip


@pytest.mark.parametrize(
    ("market", "sections", "n_days"),
    [
        ("holed", {}, 88),
        ("holed", {"data": {"start": day(3, 5), "end": day(80, 17)}, "size": {"capital_usd": [1e5, 1e6]}}, 78),
        ("apart", {**SEGREGATED, "fills": {"latency": "1h"}, "data": {"end": day(60, 13)}}, 59),
        ("holed", {"combo": [{"legs": legs()}, {"legs": legs("ETH")}]}, 50),  # 20.3 to 70 of the second coin
    ],
    ids=["plain", "cut days", "segregated", "two spans"],
)
def test_daily_returns_are_those_of_the_equity_of_each_trial(root, market, sections, n_days):
    plan = make_plan(sweep_of(root / market, **sections))
    trials = np.flatnonzero([plan.values_of(k)["rule.entry"] > plan.values_of(k)["rule.exit"]
                             for k in range(plan.n_trials)])[::3]  # fmt: skip
    found = daily_returns(plan, trials, threads=2)
    assert found.returns.shape == (n_days, len(trials))
    for column, trial in enumerate(trials.tolist()):
        result = basis_bt.run(plan.config_of(trial), trial=trial)
        assert found.end_equity_usd[column] == result.metrics["end_equity_usd"][0]
        assert found.returns[:, column].tolist() == returns_by_hand(result, found.day_us)
    assert (found.returns != 0.0).any()


def test_threads_change_no_return(root):
    plan = make_plan(sweep_of(root / "holed"))
    one, three = (daily_returns(plan, np.arange(plan.n_trials), threads=n) for n in (1, 3))
    assert (one.returns == three.returns).all()


def test_combos_that_never_traded_at_the_same_time_are_refused(root):
    combos = [{"legs": legs()}, {"legs": legs("ETH")}]
    with pytest.raises(ConfigError, match="25 days in common"):
        daily_returns(
            make_plan(sweep_of(root / "holed", combo=combos, data={"end": day(45)})), np.arange(36), threads=1
        )


# -- noise and edges ---------------------------------------------------------------------------------------------------

YEAR = {"start": day(2), "end": day(365)}


def planted(folder, *, seed, edge):
    """The luck of a sweep over a year of noise; with an edge, funding stays high or low for weeks."""
    rates = None
    if edge:
        rng = np.random.default_rng(seed)
        rates = np.repeat(rng.permutation(np.tile([3e-4, -3e-4], 27)), 21)[: 365 * 3] + rng.normal(0.0, 1e-4, 365 * 3)
    write_market(folder, seed=seed, n_days=365, rates=rates)
    rule = {"entry": [-0.3, -0.1, 0.02, 0.1, 0.2, 0.3], "exit": [-0.4, -0.15, -0.05, 0.0, 0.09]}
    swept = basis_bt.sweep(sweep_of(folder, data=YEAR, rule=rule, signal={"hours": [8, 24, 72]}))
    return luck(swept, purge_hours="1d", n_resamples=500)


def test_the_best_of_noise_is_luck(tmp_path):
    found = [planted(tmp_path / str(seed), seed=seed, edge=False) for seed in range(8)]
    assert 0.3 < np.mean([one.overfitting.pbo for one in found]) < 0.7
    assert all(one.deflated < 0.95 for one in found)
    assert min(one.superior.p_consistent for one in found) > 0.05
    assert all("may well be luck" in one.verdict for one in found)


def test_a_planted_edge_is_found(tmp_path):
    for seed in range(3):
        found = planted(tmp_path / str(seed), seed=seed, edge=True)
        assert found.deflated > 0.95
        assert found.overfitting.pbo < 0.2
        assert found.superior.p_consistent < 0.05
        assert "more than luck" in found.verdict


# -- what is counted and judged ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(root, tmp_path_factory):
    """A folder of runs: a sweep of 18 trials on a coin, one run on it, and a sweep on another coin."""
    runs = tmp_path_factory.mktemp("runs")
    swept = basis_bt.sweep(sweep_of(root / "holed"), runs=runs)
    basis_bt.run(make_plan(sweep_of(root / "holed")).config_of(0)).save(runs, name="single")
    basis_bt.sweep(sweep_of(root / "holed", combo={"legs": legs("ETH")}), runs=runs, name="other")
    return runs, swept


def test_trials_of_all_runs_on_an_instrument_of_the_sweep_count(root, kept, tmp_path):
    runs, swept = kept
    assert luck(swept).n_trials == 18 + 1
    assert luck(basis_bt.load_sweep(runs, "other")).n_trials == 18
    assert luck(swept, n_trials=500).n_trials == 500
    assert luck(swept, runs=tmp_path).n_trials == 18
    in_memory = basis_bt.sweep(sweep_of(root / "holed"))
    assert luck(in_memory).n_trials == 18
    assert luck(in_memory, runs=runs).n_trials == 18 + 18 + 1
    combos = [{"legs": legs()}, {"legs": legs("ETH")}]
    both = basis_bt.sweep(sweep_of(root / "holed", combo=combos))
    assert luck(both, runs=runs).n_trials == 36 + 18 + 1 + 18


def test_a_run_that_cannot_be_read_is_not_counted_and_said(kept, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    found = luck(kept[1], runs=tmp_path)
    assert found.n_trials == 18
    assert any("1 runs" in note and "not counted" in note for note in found.notes)


def test_more_trials_make_the_best_one_more_likely_luck(kept):
    few, many = (luck(kept[1], n_trials=n) for n in (2, 10_000))
    assert few.deflated > many.deflated
    assert few.expected_max_sharpe < many.expected_max_sharpe
    assert few.deflated_distinct == many.deflated_distinct


def test_the_purge_is_the_longest_average_hold_and_the_longest_window(root, kept):
    swept = kept[1]
    days = math.ceil((swept.trials["avg_hold_hours"].max() + 24.0) / 24.0)
    found = luck(swept)
    assert (found.purge_days, found.n_blocks) == (2, 8)  # 88 days, 11 a block, of which half stays
    assert f"the purge should be {days} days" in found.notes[0]
    short = sweep_of(root / "holed", rule={"max_hold_hours": [6, 12]}, signal={"hours": 8})
    found = luck(basis_bt.sweep(short))
    assert (found.purge_days, found.n_blocks, found.notes) == (1, 16, ())  # 12 hours held, 8 looked back
    assert (luck(swept, purge_hours="1d").purge_days, luck(swept, purge_hours=30).purge_days) == (1, 2)
    assert luck(swept, purge_hours="1d").n_blocks == 16
    assert luck(swept, purge_hours="1d").notes == ()
    assert "the purge should be 30 days" in luck(swept, purge_hours="30d").notes[0]
    with pytest.raises(ConfigError, match="purge: 'soon' is no duration"):
        luck(swept, purge_hours="soon")


def numbers(found):
    """All that is found, as numbers that compare."""
    plain = {
        name: value for name, value in dataclasses.asdict(found).items() if not isinstance(value, np.ndarray | dict)
    }
    return plain, found.sharpes.tolist(), found.overfitting.logits.tolist(), found.superior, found.interval


def test_luck_is_the_same_for_a_seed_and_any_number_of_threads(kept):
    one, again, threads, other = (
        luck(kept[1], seed=seed, threads=n, n_resamples=200) for seed, n in ((7, 1), (7, 1), (7, 3), (8, 1))
    )
    assert numbers(one) == numbers(again) == numbers(threads)
    assert one.interval != other.interval
    assert one.deflated == other.deflated


def test_a_draw_of_trials_keeps_the_best(kept):
    swept = kept[1]
    found = luck(swept, most_trials=6, seed=3)
    assert found.n_judged == 6
    assert found.best_trial == swept.top(1)["trial"][0]
    assert "6 of 18 trials" in found.notes[0]


def test_what_cannot_be_judged_is_refused(root, tmp_path):
    with pytest.raises(ConfigError, match="0 of the trials ever traded"):
        luck(basis_bt.sweep(sweep_of(root / "whole", rule={"entry": [8.0, 9.0], "exit": 0.0})))
    with pytest.raises(ConfigError, match="threads must be between 1 and 1024, found -1"):
        luck(basis_bt.sweep(sweep_of(root / "whole")), threads=-1)
    own = basis_bt.sweep(
        sweep_of(root / "whole", rule={"entry": [0.0, 1e-4]}), expression=pl.col("close_1") / pl.col("close_0") - 1
    )
    with pytest.raises(ConfigError, match="given as an expression"):
        luck(own)
    write_market(tmp_path)
    swept = basis_bt.sweep(sweep_of(tmp_path))
    write_market(tmp_path, seed=9)
    with pytest.raises(StoreError, match="gives another result than it did in the sweep"):
        luck(swept)


# -- walk-forward ------------------------------------------------------------------------------------------------------

TRAIN, TEST = timedelta(days=20), timedelta(days=7)
PAID = {"costs": {"taker_fee_bps": 1.0, "borrow_apr": 0.05}}


def walk(raw, **options):
    return basis_bt.walk_forward(raw, **{"train": "20d", "test": "7d", "threads": 2} | options)


def run_between(raw, trial, start, end, **size):
    """A trial of a sweep as a run of its own over a stretch."""
    config = make_plan(raw).config_of(trial)
    config["data"] |= {"start": start.isoformat(), "end": end.isoformat()}
    config["size"] |= size
    return basis_bt.run(config, trial=trial)


def test_tests_follow_each_other_to_the_last_bar_and_anchored_training_grows(root):
    raw = sweep_of(root / "whole")
    rolling, anchored = (walk(raw, anchored=how, purge="12h").windows for how in (False, True))
    assert rolling["test_start"][0] == START + timedelta(days=2) + TRAIN + timedelta(hours=12)
    assert rolling["test_start"][1:].to_list() == rolling["test_end"][:-1].to_list()
    assert rolling["test_end"][-1] == START + timedelta(days=N_DAYS)
    assert ((rolling["test_end"] - rolling["test_start"])[:-1] == TEST).all()
    assert (rolling["test_end"] - rolling["test_start"])[-1] == timedelta(days=4, hours=12)
    assert (rolling["test_start"] - rolling["train_end"] == timedelta(hours=12)).all()
    assert (rolling["train_end"] - rolling["train_start"] == TRAIN).all()
    assert (anchored["train_start"] == START + timedelta(days=2)).all()
    assert anchored["train_end"].equals(rolling["train_end"])
    equity = walk(raw).equity
    assert (equity["ts"].diff().drop_nulls() == timedelta(hours=1)).all()


@pytest.mark.parametrize("anchored", [False, True], ids=["rolling", "anchored"])
@pytest.mark.parametrize("metric", ["sharpe", "max_drawdown"])
def test_the_winner_is_the_best_of_runs_over_the_training_alone(root, anchored, metric):
    raw = sweep_of(root / "holed", **PAID)
    found = walk(raw, anchored=anchored, metric=metric).windows
    for row in found.filter(pl.col("window").is_in([0, 5])).iter_rows(named=True):
        values = {}
        for trial in range(18):
            metrics = run_between(raw, trial, row["train_start"], row["train_end"]).metrics
            if metrics["n_trades"][0] and metrics[metric][0] is not None:
                values[trial] = metrics[metric][0] * (-1 if metric == "max_drawdown" else 1)
        best = max(values, key=lambda trial: (values[trial], -trial))
        assert row["trial"] == best
        assert abs(row["in_sample"]) == pytest.approx(abs(values[best]), rel=1e-9)


def exit_by_hand(result, root, at, *, fee_bps):
    """Equity after leaving all that a run holds at the open of its last bar."""
    held = result.attribution.filter(pl.col("ts") == result.equity["ts"][-1])
    cash = result.equity["cash_usd"][-1]
    for instrument, position in held.select("instrument", "position_base").iter_rows():
        bars = pl.read_parquet(root / f"{instrument.replace(':', '/')}.parquet")
        price = bars.filter(pl.col("ts") == at)["open"][0]
        cash += position * price - abs(position) * price * fee_bps / 1e4
    return cash


@pytest.mark.parametrize("rule", [{}, {"min_hold_hours": 60}, {"reverse": True}, {"reverse": True, "exit": -0.3}],
                         ids=["plain", "shortest hold", "reverse", "reverse, exit below entry"])  # fmt: skip
def test_a_test_stretch_is_the_run_of_the_winner_until_it_is_made_to_leave(root, rule):
    raw = sweep_of(root / "whole", rule=rule, **PAID)
    found = walk(raw)
    assert found.notes == ()
    capital, n_forced, fees = 1e6, 0, 0.0
    for row in found.windows.iter_rows(named=True):
        own = found.equity.filter(pl.col("window") == row["window"])
        result = run_between(raw, row["trial"], row["test_start"], row["test_end"], capital_usd=capital)
        assert own["equity_usd"][:-1].to_list() == result.equity["equity_usd"][:-1].to_list()
        fees += result.metrics["fees_usd"][0]
        if result.equity["notional_usd"][-1] == 0.0:
            assert own["equity_usd"][-1] == result.equity["equity_usd"][-1]
            out = result.metrics["sharpe"][0]
            assert row["out_of_sample"] == (out if out is None else pytest.approx(out, rel=1e-12))
        elif result.fills.filter(pl.col("ts") == result.equity["ts"][-1]).is_empty():
            last = result.equity["ts"][-1]
            expected = exit_by_hand(result, root / "whole", last, fee_bps=1.0)
            assert own["equity_usd"][-1] == pytest.approx(expected, rel=1e-12)
            n_forced += 1
        assert row["out_of_sample_return"] == own["equity_usd"][-1] / capital - 1.0
        capital = own["equity_usd"][-1]
    assert n_forced > 0
    assert found.metrics["fees_usd"] > fees
    assert found.metrics["total_return"] == pytest.approx(capital / 1e6 - 1.0, rel=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_with_latency_the_exit_is_sent_early_enough(root, reverse):
    raw = sweep_of(root / "whole", fills={"latency": "3h"}, rule={"reverse": reverse, "min_hold_hours": 30}, **PAID)
    found = walk(raw)
    assert found.notes == ()
    for row in found.windows.head(4).iter_rows(named=True):
        capital = 1e6 if row["window"] == 0 else found.equity.filter(pl.col("window") < row["window"])["equity_usd"][-1]
        result = run_between(raw, row["trial"], row["test_start"], row["test_end"], capital_usd=capital)
        own = found.equity.filter(pl.col("window") == row["window"])["equity_usd"]
        late = len(own) - 7  # an entry decided after that could not be left again
        assert own[:late].to_list() == result.equity["equity_usd"][:late].to_list()


def test_a_whole_trial_walks_too_and_draws_what_a_run_draws(root):
    raw = sweep_of(
        root / "apart", **SEGREGATED, fills={"model": "bernoulli", "fill_probability": 0.8, "seed": 5},
        rule={"entry": [0.02, 0.1], "exit": [-0.1]}, costs={"half_spread_bps": 0.5},
    )  # fmt: skip
    found = walk(raw)
    row = found.windows.row(2, named=True)
    trained = run_between(raw, row["trial"], row["train_start"], row["train_end"])
    assert row["in_sample"] == pytest.approx(trained.metrics["sharpe"][0], rel=1e-9)
    capital = found.equity.filter(pl.col("window") < 2)["equity_usd"][-1]
    tested = run_between(raw, row["trial"], row["test_start"], row["test_end"], capital_usd=capital)
    own = found.equity.filter(pl.col("window") == 2)["equity_usd"]
    assert own[:-1].to_list() == tested.equity["equity_usd"][:-1].to_list()


def test_what_comes_after_the_training_does_not_change_the_choice(root, tmp_path):
    raw = sweep_of(root / "whole", **PAID)
    before = walk(raw)
    row = before.windows.row(4, named=True)
    for file in (root / "whole").rglob("*.parquet"):
        other = tmp_path / file.relative_to(root / "whole")
        other.parent.mkdir(parents=True, exist_ok=True)
        frame = pl.read_parquet(file)
        scaled = [name for name in ("open", "high", "low", "close", "rate") if name in frame.columns]
        later = pl.col("ts") >= row["train_end"]
        factor = 1.7 if "perp" in file.parts else -0.6 if "funding" in file.parts else 1.9
        frame.with_columns(pl.when(later).then(pl.col(scaled) * factor).otherwise(pl.col(scaled))).write_parquet(other)
    after = walk(sweep_of(tmp_path, **PAID, data={"checks": "clean"}))
    chosen = ["trial", "in_sample", "param_signal_hours", "param_rule_entry", "param_rule_exit"]
    assert before.windows.head(5).select(chosen).equals(after.windows.head(5).select(chosen))
    assert before.windows.head(4).equals(after.windows.head(4))
    assert before.equity.filter(pl.col("window") < 4).equals(after.equity.filter(pl.col("window") < 4))
    assert not before.windows[5:].equals(after.windows[5:])


def test_windows_in_which_nothing_is_traded_are_flat(root):
    found = walk(sweep_of(root / "whole", rule={"entry": [8.0, 9.0], "exit": 0.0}))
    assert found.windows["trial"].null_count() == found.windows.height == len(found.notes)
    assert "window 0: no trial traded and has a value of sharpe in sample" in found.notes[0]
    assert (found.equity["equity_usd"] == 1e6).all()
    assert found.metrics["sharpe"] is None
    quiet = walk(sweep_of(root / "whole", signal={"hours": 24}, rule={"entry": [0.3, 0.4], "exit": [0.2]}), test="1d")
    still = quiet.windows.filter(pl.col("out_of_sample_return") == 0.0, pl.col("trial").is_not_null())
    assert still.height > 0
    assert still["out_of_sample"].null_count() == still.height
    assert not quiet.windows["out_of_sample"].is_nan().any()


def test_when_nothing_is_left_nothing_more_is_traded(root):
    both_long = [leg | {"ratio": ratio} for leg, ratio in zip(legs(), (0.01, 1.0), strict=True)]
    raw = sweep_of(root / "whole", combo={"legs": both_long}, size={"leverage": 60.0, "allocation": 1.0})
    found = walk(raw)
    ruined = found.windows.filter(pl.col("out_of_sample_return") <= -1.0)["window"][0]
    after = found.equity.filter(pl.col("window") > ruined)["equity_usd"]
    assert after.n_unique() == 1
    assert after[0] <= 0.0
    assert f"window {ruined + 1}: nothing is left, nothing is traded" in found.notes


def test_a_position_that_cannot_be_left_is_said(root, tmp_path):
    write_market(tmp_path)
    file = tmp_path / "spot" / "binance" / "BTC-USDT.parquet"
    last = START + timedelta(days=29) - timedelta(hours=1)  # of the first test
    pl.read_parquet(file).filter(pl.col("ts") != last).write_parquet(file)
    raw = sweep_of(tmp_path, rule={"entry": [0.5, 0.6], "exit": [0.0]})
    found = walk(raw | {"signal": {"name": "sql", "sql": "1.0"}})
    assert found.notes == ("window 0: its position could not be left by its last bar, the exit is not paid",)


def test_what_cannot_be_walked_is_refused(root):
    combos = [{"legs": legs()}, {"legs": legs("ETH")}]
    with pytest.raises(ConfigError, match="2 different stretches of bars"):
        walk(sweep_of(root / "holed", combo=combos))
    raw = sweep_of(root / "whole")
    for options, message in (
        ({"train": "soon"}, "train: 'soon' is no duration"),
        ({"test": -1.0}, "test: a duration is"),
        ({"test": "0h"}, "test_bars must be at least 1"),
        ({"train": "100d"}, "no bar is left for a test"),
        ({"metric": "beauty"}, "'beauty' is no metric"),
        ({"threads": 0}, "threads must be between 1 and 1024, found 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            walk(raw, **options)


# -- stretches of any trial --------------------------------------------------------------------------------------------

ANY_CASE = st.one_of(
    strategies.cases(), strategies.uncertain_cases(), strategies.wallet_cases(), strategies.contract_cases()
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=ANY_CASE, begin=st.floats(0.0, 0.6), share=st.floats(0.1, 1.0))
def test_a_stretch_of_a_cell_is_the_market_of_that_span(case, begin, share):
    assume(all("chain" not in leg for leg in case["legs"]))  # a run begins in the first contract, whatever was rolled
    assume(bridge.two_sided(case) or not case["signal"].get("name", "").startswith("basis"))
    assume(any(leg["kind"] == "perp" for leg in case["legs"]) or case["signal"].get("name") != "funding_apr")
    assume(all(leg["settlements"] for leg in case["legs"] if leg["kind"] == "perp"))
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as part:
        try:
            panel, market, parameters = bridge.prepared(case, Path(whole))
            first = int(begin * panel.n_bars)
            end = min(first + max(1, math.ceil(share * (panel.n_bars - first))), panel.n_bars)
            span = {"start_us": int(panel.ts_us[first]), "end_us": int(panel.ts_us[end - 1]) + 1}
            if "values" in case["signal"]:
                span["signal"] = case["signal"] | {"values": case["signal"]["values"][first:end]}
            _, cut, own = bridge.prepared(case | span, Path(part))
        except DataError:
            assume(False)
    cell = Cell(market=market, plain=None, parameters=parameters, is_leveraged=np.zeros(len(panel.instruments), bool),
                bar_hours=panel.bar_hours, bar_us=panel.bar_us, first_us=int(panel.ts_us[0]))  # fmt: skip
    sliced = slice_cell(cell, first, end)
    assert (sliced.n_bars, sliced.first_us) == (end - first, panel.ts_us[first])
    # the signals of a run may know less of what was before it
    cut = cut._replace(signal=sliced.market.signal.copy(), basis_bps=sliced.market.basis_bps.copy())
    rows, totals = zip(*(simulated(*one) for one in ((sliced.market, sliced.parameters), (cut, own))), strict=True)
    assert totals[0].status == totals[1].status
    if totals[0].status == 0:
        assert (rows[0].equity_usd == rows[1].equity_usd).all()
        assert (rows[0].position_base == rows[1].position_base).all()


def simulated(market, parameters):
    n_bars, n_legs = market.close_price.shape
    rows = recorded(n_bars=n_bars, n_legs=n_legs, n_settlements=len(market.mark_price),
                    n_wallets=len(parameters.wallets.weight))  # fmt: skip
    return rows, run_trial(market, *parameters, rows)


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(root, tmp_path, monkeypatch, capsys):
    """A folder with a market, a sweep's configuration, the sweep and a single run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "market").symlink_to(root / "whole")
    toml_of(CLI_SWEEP, tmp_path / "sweep.toml")
    assert entry(["sweep", "sweep.toml"]) == 0
    single = ["--set", "rule.entry=0.1", "--set", "rule.exit=0.0", "--set", "signal.hours=8"]
    toml_of({key: table for key, table in CLI_SWEEP.items() if key != "sweep"}, tmp_path / "single.toml")
    assert entry(["run", "single.toml", "--no-report", "--name", "single", *single]) == 0
    capsys.readouterr()
    return tmp_path


def test_luck_on_the_command_line(folder, capsys):
    assert entry(["luck", "swept", "--plot", "luck.png"]) == 0
    out = capsys.readouterr().out
    assert "31 trials counted" in out  # 30 of the sweep, and the single run
    assert "luck: deflated Sharpe" in out
    assert (folder / "luck.png").stat().st_size > 20_000
    assert entry(["luck", "swept", "--format", "json", "--trials", "9", "--purge", "24", "--most", "5"]) == 0
    rows = {row["statistic"]: row for row in json.loads(capsys.readouterr().out)}
    assert isinstance(rows["PBO"]["value"], float)
    assert "9 trials counted" in rows["deflated Sharpe"]["meaning"]
    assert "1 days purged" in rows["PBO"]["meaning"]
    for arguments, code, message in (
        (["single"], 1, "is a single backtest, no sweep"),
        (["nothing"], 1, "there is no run 'nothing'"),
        (["swept", "--purge", "soon"], 2, "purge: 'soon' is no duration"),
    ):
        assert entry(["luck", *arguments]) == code
        assert message in capsys.readouterr().err


def test_walk_forward_on_the_command_line(folder, capsys):
    spans = ["--train", "20d", "--test", "168"]
    assert entry(["walk-forward", "sweep.toml", *spans, "--plot", "walk.png"]) == 0
    out = capsys.readouterr().out
    assert "out of sample: total return" in out and "param_rule_entry" in out
    assert (folder / "walk.png").stat().st_size > 20_000
    assert entry(["walk-forward", "sweep.toml", *spans, "--anchored", "--metric", "cagr", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 9 and {row["train_start"] for row in rows} == {"2024-01-04T00:00:00Z"}
    assert entry(["walk-forward", "sweep.toml", "--train", "1y"]) == 2
    assert "train: '1y' is no duration" in capsys.readouterr().err
    assert entry(["walk-forward", "sweep.toml", "--train", "300d"]) == 2
    assert "no bar is left for a test" in capsys.readouterr().err


def test_the_report_of_a_sweep(folder, capsys):
    assert entry(["report", "swept"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.split()]
    assert [path.suffix for path in paths] == [".html", *[".png"] * (len(paths) - 1)]
    page = paths[0].read_text()
    assert "trial" in page and "the most robust trials" in page and "sharpe over signal hours and rule entry" in page
    own = ["--x", "rule.entry", "--y", "rule.exit", "--metric", "total_return", "--out", "elsewhere"]
    assert entry(["report", "swept", *own]) == 0
    page = (folder / "elsewhere" / "report.html").read_text()
    assert "total return over rule entry and rule exit" in page
    for arguments, message in (
        (["swept", "--x", "rule.entry"], "a heat map has two axes"),
        (["swept", "--x", "rule.entry", "--y", "rule.beauty"], "no column"),
        (["swept", "--metric", "beauty"], "no column beauty"),
        (["single", "--metric", "sharpe"], "is a single backtest, no sweep"),
    ):
        assert entry(["report", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert entry(["sweep", "sweep.toml", "--name", "one", "--set", "rule.exit=0", "--set", "signal.hours=8"]) == 0
    assert entry(["report", "one"]) == 0  # of one axis
