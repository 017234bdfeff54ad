"""What a sweep means: every trial is the run of its configuration, to the last bit, whatever computes it."""

import json
import math
import random
import re
import shutil
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeping import (
    ABSENT,
    CARRY,
    PERPS,
    ROOT,
    SAMPLE,
    THREE,
    differences,
    leg,
    long_tables,
    names_in,
    part_hashes,
    stopped,
    tables,
    toml_of,
    trials_hash,
)

import basis_bt
from basis_bt.cli.main import entry
from basis_bt.core.errors import BasisBtError, ConfigError, DataError, KernelError, StoreError
from basis_bt.core.instruments import Combo, Leg
from basis_bt.core.models import SignalSpec
from basis_bt.signals import NAMES, build_signal
from basis_bt.store.folder import load_run, read_manifest
from basis_bt.store.partial import PartialRun
from basis_bt.sweeps.fast_axes import FAST_KEYS, SIGNALS_OF
from basis_bt.sweeps.kept import load_sweep, rerun
from basis_bt.sweeps.plan import check_size, make_plan, plan_of_manifest

HALTS = [["2024-02-10T00:00Z", "2024-02-20T00:00Z"]]
DIFFERENCE = {"name": "funding_diff", "look": 9}
BOTH_WAYS = {"entry": [1e-5, 3e-5], "exit": -1e-5, "reverse": True}

# -- the design --------------------------------------------------------------------------------------------------------


def test_a_grid_has_every_combination_once_with_the_last_axis_moving_fastest():
    plan = make_plan(tables(rule__entry=[0.1, 0.2], signal__hours=[24, 48, 72], size__leverage=[1, 2]))
    found = [tuple(plan.values_of(trial).values()) for trial in range(plan.n_trials)]
    assert [axis.key for axis in plan.space.axes] == ["signal.hours", "rule.entry", "size.leverage"]
    assert found == [(hours, entry, leverage) for hours in (24, 48, 72) for entry in (0.1, 0.2) for leverage in (1, 2)]


def test_a_range_has_its_ends_and_even_steps_or_even_ratios():
    plan = make_plan(tables(rule__entry={"from": 0.1, "to": 0.4, "steps": 4}))
    assert plan.space.axes[0].values == pytest.approx((0.1, 0.2, 0.3, 0.4), rel=1e-15)
    capital = {"from": 1e3, "to": 1e6, "steps": 4, "scale": "log"}
    plan = make_plan(tables(size__capital_usd=capital))
    assert plan.space.axes[0].values == pytest.approx((1e3, 1e4, 1e5, 1e6), rel=1e-12)
    plan = make_plan(tables(signal__hours={"from": "1d", "to": "3d", "steps": 3}))
    assert plan.space.axes[0].values == (24.0, 48.0, 72.0)
    whole = tables(costs={"fee_tier": {"from": 0, "to": 3, "steps": 4}})
    assert make_plan(whole).space.axes[0].values == (0, 1, 2, 3)


def test_a_zip_takes_the_nth_values_together_and_refuses_several_lengths():
    config = tables(rule__entry=[0.1, 0.2, 0.3], signal__hours=["1d", 48, 72], sweep={"design": "zip"})
    plan = make_plan(config)
    assert [tuple(plan.values_of(k).values()) for k in range(3)] == [("1d", 0.1), (48, 0.2), (72, 0.3)]
    config["rule"]["entry"].pop()
    with pytest.raises(ConfigError, match=r"several lengths: signal.hours 3, rule.entry 2"):
        make_plan(config)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 300), seed=st.integers(0, 2**32))
def test_a_random_design_has_one_point_in_every_stratum_of_every_axis(n, seed):
    ranges = {"rule__entry": {"from": 0.02, "to": 0.3}, "rule__exit": {"from": -0.1, "to": 0.0},
              "size__capital_usd": {"from": 1e3, "to": 1e7, "scale": "log"}}  # fmt: skip
    config = tables(**ranges, sweep={"design": "random", "trials": n, "seed": seed})
    plan = make_plan(config)
    assert plan.n_trials == n
    for axis, column in zip(plan.space.axes, plan.design.columns, strict=True):
        low, high, values = (np.log(x) if axis.is_log else np.array(x) for x in (axis.low, axis.high, column))
        strata = np.floor((values - low) / (high - low) * n * (1 - 1e-12)).astype(int)
        # a point on an edge may count for either side after rounding
        assert len(set(strata.tolist())) >= n - 1 and np.bincount(strata, minlength=n).max() <= 2


def test_a_random_design_is_that_of_its_seed():
    def columns(seed):
        spec = {"design": "random", "trials": 50, "seed": seed}
        config = tables(rule__entry={"from": 0.02, "to": 0.3}, size__leverage=[1, 2, 3], sweep=spec)
        return [column.tolist() for column in make_plan(config).design.columns]

    assert columns(3) == columns(3) != columns(4)
    counts = np.bincount(np.array(columns(3)[1], dtype=int))
    assert sorted(counts.tolist()) == [16, 17, 17]


@pytest.mark.parametrize(
    ("changes", "n", "said"),
    [
        ({"rule__entry": [0.1, 0.2, 0.1]}, 2, "rule.entry: 1 of 3"),
        ({"rule__entry": [1, 1.0, 2]}, 2, "rule.entry: 1 of 3"),
        ({"signal__hours": [24, "24h", "1d", 24.0]}, 1, "signal.hours: 3 of 4"),
        ({"fills": {"latency": ["1h", {"perp": "1h"}, 1]}}, 2, "fills.latency: 1 of 3"),
        ({"costs__taker_fee_bps": [{"spot": 1.0, "perp": 2.0}, {"perp": 2.0, "spot": 1.0}]}, 1, "costs.taker_fee_bps"),
        ({"combo": [CARRY, PERPS, CARRY]}, 2, "combo: 1 of 3"),
        ({"signal": {"name": "funding_confirmed", "n": {"from": 1, "to": 3, "steps": 9}, "above": 1e-4, "below": 0.0}},
         3, "signal.n: 6 of 9"),
        ({"rule__entry": [0.1, 0.2, 0.1], "signal__hours": [24, 48, "1d"], "sweep": {"design": "zip"}}, 2, "1 of 3"),
        ({"size__leverage": [1, 2], "sweep": {"design": "random", "trials": 9}}, 2, "7 of 9"),
    ],
)  # fmt: skip
def test_c14_parameter_sets_that_stand_twice_are_computed_once_and_said(changes, n, said):
    plan = make_plan(tables(**changes))
    assert plan.n_trials == n
    assert said in " ".join([*plan.space.notes, *plan.design.notes])


REFUSED = {
    "C14-empty": ({"rule__entry": []}, "rule.entry: the list of values is empty"),
    "C14-no-combo": ({"combo": []}, "combo: the list of values is empty"),
    "C14-nan": ({"rule__entry": [0.1, math.nan]}, "rule.entry: nan"),
    "C14-inf": ({"rule__entry": [0.1, math.inf]}, "rule.entry: inf"),
    "C14-nan-inside": ({"costs__taker_fee_bps": [{"spot": math.nan, "perp": 1.0}]}, "costs.taker_fee_bps"),
    "C14-nan-end": ({"rule__entry": {"from": math.nan, "to": 1.0, "steps": 3}}, "rule.entry: a range"),
    "range-backwards": ({"rule__entry": {"from": 0.3, "to": 0.1, "steps": 3}}, "from less to more"),
    "range-unknown-key": ({"rule__entry": {"from": 0.1, "to": 0.3, "step": 3}}, "unknown key of a range: step"),
    "range-no-steps": ({"rule__entry": {"from": 0.1, "to": 0.3}}, "rule.entry.steps: missing"),
    "range-one-step": ({"rule__entry": {"from": 0.1, "to": 0.3, "steps": 1}}, "rule.entry.steps"),
    "range-log-of-0": ({"rule__exit": {"from": 0.0, "to": 0.3, "steps": 3, "scale": "log"}}, "above 0"),
    "range-of-words": ({"rule__entry": {"from": "a", "to": 0.3, "steps": 3}}, "rule.entry: must go from a number"),
    "range-of-flags": ({"rule__reverse": {"from": 0, "to": 1, "steps": 2}}, "rule.reverse"),
    "word": ({"rule__entry": ["a", 0.1]}, "rule.entry: input should be a valid number"),
    "flag": ({"rule__entry": [True, 0.1]}, "rule.entry: input should be a valid number"),
    "list-in-list": ({"rule__entry": [[0.1], [0.2]]}, "rule.entry: input should be a valid number"),
    "typo": ({"rule__entri": [0.1, 0.2]}, "did you mean 'entry'"),
    "choice-typo": ({"fills": {"atomicity": ["match", "rollbak"]}}, "did you mean 'rollback'"),
    "sweep-typo": ({"sweep": {"metrc": "sharpe"}}, "did you mean 'metric'"),
    "design-typo": ({"sweep": {"design": "gird"}}, "sweep.design"),
    "metric-typo": ({"sweep": {"metric": "sharp"}}, "sweep.metric: 'sharp' is no metric"),
    "sweep-no-table": ({"sweep": [1]}, "sweep:"),
    "random-of-none": ({"sweep": {"design": "random"}}, "trials goes with design"),
    "trials-of-grid": ({"sweep": {"trials": 5}}, "trials goes with design"),
    "combo-of-words": ({"combo": [1, 2]}, "combo"),
    "pairs-of-nothing": ({"combo": {"pairs": [{"long": "spot:*:DOGE-*", "short": "perp:*:*"}]}}, "nothing loaded"),
    "pairs-no-pattern": ({"combo": {"pairs": [{"long": "BTC", "short": "perp:*:*"}]}}, "is no pattern"),
    "pairs-one-side": ({"combo": {"pairs": [{"long": "spot:*:*"}]}}, "must have long and short"),
    "name-as-axis": ({"name": ["a", "b"]}, "name"),
    "date-alone": ({"data__start": [datetime(2024, 2, 1).date()]}, "data.start|plain values"),
}


@pytest.mark.parametrize(("changes", "says"), REFUSED.values(), ids=REFUSED)
def test_what_means_nothing_is_refused_with_its_key_before_anything_runs(changes, says, tmp_path):
    with pytest.raises(ConfigError, match=says) as caught:
        basis_bt.sweep(tables(**changes), runs=tmp_path / "runs")
    assert caught.value.fix
    assert names_in(tmp_path) == []


def test_spans_of_halts_are_one_value_and_lists_of_them_an_axis():
    plan = make_plan(tables(combo=PERPS, wallets={"mode": "segregated", "transfer_halts": HALTS}))
    assert plan.n_trials == 1
    plan = make_plan(tables(combo=PERPS, wallets={"mode": "segregated", "transfer_halts": [[], HALTS, HALTS * 2]}))
    assert plan.n_trials == 3
    plan = make_plan(tables(costs={"bucket_usd": [1e4, 1e5], "bucket_bps": [[1.0, 2.0], [2.0, 3.0]]}))
    assert [axis.key for axis in plan.space.axes] == ["costs.bucket_bps"]


def test_patterns_stand_for_every_pair_of_one_coin_that_is_loaded():
    config = tables(combo={"pairs": [{"long": "spot:*:*", "short": "perp:bybit:*"}]})
    found = [tuple(one["instrument"] for one in combo["legs"]) for combo in make_plan(config).space.axes[0].values]
    assert found == [(f"spot:{venue}:{coin}-USDT", f"perp:bybit:{coin}-USDT")
                     for venue in ("binance", "bybit") for coin in ("BTC", "ETH", "SOL")]  # fmt: skip


def test_the_plan_of_a_manifest_is_that_of_the_sweep():
    config = tables(
        combo=[CARRY, THREE], data__start=[datetime(2024, 2, 1, tzinfo=UTC), "2024-02-05T00:00:00Z"],
        costs__taker_fee_bps=[{"spot": 1.0, "perp": 2.0}, 3.0], rule__entry={"from": 0.02, "to": 0.3, "scale": "log"},
        rule__max_hold_hours=["1d", 48], sweep={"design": "random", "trials": 30, "seed": 5, "best": 0},
    )  # fmt: skip
    plan, done = make_plan(config), basis_bt.sweep(config)
    again = plan_of_manifest(json.loads(json.dumps(done.manifest)))
    assert again.n_trials == plan.n_trials
    for trial in range(plan.n_trials):
        first, second = (basis_bt.core.config.build_config(one.config_of(trial)) for one in (plan, again))
        assert first == second


# -- every trial is the run of its configuration -----------------------------------------------------------------------

EQUAL = {
    "plain": {"rule__entry": [0.05, 0.1, 0.2], "rule__exit": {"from": -0.05, "to": 0.1, "steps": 3},
              "size__leverage": [1, 3.5], "size__capital_usd": {"from": 1e3, "to": 1e8, "steps": 3, "scale": "log"}},
    "durations-and-flags": {"signal__hours": ["24h", 72.0], "rule__reverse": [True, False],
                            "rule__min_hold_hours": ["0h", "2d"], "rule__max_hold_hours": ["12h", 100],
                            "rule__cooldown_hours": [0, "7h"], "size__compounding": [True, False]},
    "nothing-as-a-value": {"rule__stop_loss_pct": [None, 0.1, 1.0], "rule__max_basis_bps": [None, 3.0],
                           "rule__max_hold_hours": [None, 30], "size__lots": ["venue", "none"]},
    "costs": {"costs__taker_fee_bps": [{"spot": 1.0, "perp": 0.5}, 3.0, {"spot": 0.0, "perp:binance:BTC-USDT": 1.0}],
              "costs__half_spread_bps": [0.0, 5.0], "costs__impact_coef_bps": [0, 4.0],
              "size__allocation": [0.3, 0.9]},
    "costs-by-leg": {"costs__half_spread_bps": [1.0, {"perp": 2.0}], "costs__impact_coef_bps": [{"spot": 3.0}, 0.5],
                     "costs__impact_exponent": [0.5, 1.0], "costs__spot_fee_in": ["quote", "base"]},
    "costs-in-the-signal": {"signal": {"name": "net_apr", "hours": 72, "hold_hours": [100, 336]},
                            "costs__half_spread_bps": [0.1, 3.0, 30.0], "rule__entry": [0.0, 0.05],
                            "rule__exit": -0.3},
    "tiers": {"costs": {"half_spread_bps": [0.5, 1.0], "fee_tier": [0, 3, "volume"], "liquidity": ["taker", "maker"]},
              "size__capital_usd": [1e5, 1e8]},
    "signals": {"signal": {"name": ["funding_apr", "funding_rate_8h", "basis_bps", "basis_zscore"],
                           "hours": [24, "72h"]}, "rule__entry": [0.1, 1e-4], "rule__exit": -1.0},
    "own-signal": {"signal": {"name": "sql", "sql": ["close_1 / close_0 - 1", "open_1 / open_0 - 1"]},
                   "rule": {"entry": [1e-4, 1e-3], "exit": -1e-4}},
    "combos": {"combo": [CARRY, THREE, PERPS], "rule__entry": [0.05, 0.1], "size__leverage": [2, 5]},
    "pairs": {"combo": {"pairs": [{"long": "spot:*:*", "short": "perp:*:*"}]}, "rule__exit": [0.0, 0.05]},
    "spans": {"data__start": ["2024-01-05T00:00:00Z", datetime(2024, 2, 5, tzinfo=UTC)], "data__bar": ["1h", "4h"],
              "signal__hours": [24, 24 * 30]},
    "bernoulli": {"combo": THREE, "rule__entry": [0.05, 0.1],
                  "fills": {"model": "bernoulli", "fill_probability": [0.5, 0.9], "seed": [0, 7],
                            "atomicity": ["rollback", "match", "naked"], "latency": [{"perp": "2h"}, "1h"]}},
    "models-of-fills": {"fills": {"model": ["certain", "volume", "maker"], "volume_cap": [1e-4, 0.1],
                                  "reject_probability": [0.0, 0.3]}, "rule__entry": [0.05, 0.1]},
    "wallets": {"combo": PERPS, "signal": DIFFERENCE, "rule": BOTH_WAYS, "size__leverage": [2, 5, 40],
                "wallets": {"mode": "segregated", "transfer_hours": [1, "1d"], "rebalance_below": [0.02, 0.1],
                            "transfer_halts": HALTS}},
    "margin": {"wallets": {"margin": "venue", "spot_collateral": [0.5, 0.95]}, "size__leverage": [2.0, 50, 100],
               "size__capital_usd": [1e5, 5e7]},
    "random": {"rule__entry": {"from": 0.03, "to": 0.3, "scale": "log"}, "signal__hours": {"from": 24, "to": 100},
               "size__leverage": [1, 2, 3], "costs__taker_fee_bps": {"from": 0, "to": 5},
               "fills": {"model": "bernoulli", "fill_probability": 0.7, "seed": {"from": 0, "to": 1000}},
               "sweep": {"design": "random", "trials": 25, "seed": 3, "best": 1}},
    "zip": {"rule__entry": [0.05, 0.1, 0.2], "rule__exit": [0.0, 0.05, 0.3], "signal__hours": ["1d", "3d", 168],
            "sweep": {"design": "zip", "best": 1}},
    "contradictions": {"rule__entry": [0.02, 0.1], "rule__exit": [0.1, 0.02, -0.1], "rule__min_hold_hours": [1.7, 30],
                       "rule__max_hold_hours": [1.2, 31], "rule__reverse": [False, True]},
    "poison": {"combo": [CARRY, ABSENT, PERPS], "costs__half_spread_bps": [0.5, 1000],
               "costs__impact_coef_bps": [1e6, 0.0]},
    "tables-of-costs": {"costs": {"bucket_usd": [[1e4, 1e6], [1e4, 1e5, 1e6]],
                                  "bucket_bps": [[1.0, 2.0], [1.0, 2.0, 3.0]]}},
    "one": {},
}  # fmt: skip


@pytest.mark.parametrize("changes", EQUAL.values(), ids=EQUAL)
def test_every_trial_is_the_run_of_its_configuration_to_the_last_bit(changes):
    config = tables(**changes)
    done = basis_bt.sweep(config)
    assert differences(config, done) == []
    assert done.trials["n_trades"].fill_null(0).sum() > 0


@pytest.mark.parametrize("seed", range(4))
def test_axes_drawn_at_random_from_all_of_them_agree_with_runs(seed):
    draw = random.Random(seed)
    choices = {
        "rule__entry": [0.05, 0.1, 0.3], "rule__exit": [-0.1, 0.02, 0.06], "rule__min_hold_hours": [0, "30h"],
        "rule__max_hold_hours": [29, "4d", None], "rule__stop_loss_pct": [0.05, None], "size__leverage": [1, 4.0],
        "size__capital_usd": [1e3, 1e6], "size__allocation": [0.2, 1.0], "data__bar": ["1h", "2h"],
        "costs__half_spread_bps": [0, 2.5, {"spot": 9.0}], "costs__fee_tier": [0, "volume"],
        "costs__impact_coef_bps": [0.0, 2.0], "signal__hours": ["8h", 100], "rule__reverse": [False, True],
        "fills__latency": [0, "3h", {"spot": 1.0}], "fills__model": ["certain", "bernoulli"],
        "fills__fill_probability": [0.6, 1.0], "wallets__mode": ["pooled", "segregated"],
        "wallets__margin": ["venue", "none"], "combo": [CARRY, PERPS, THREE],
    }  # fmt: skip
    chosen = draw.sample(sorted(choices), 5)
    config = tables(**{key: choices[key] for key in chosen})
    config["costs"].pop("taker_fee_bps")
    assert differences(config, basis_bt.sweep(config, threads=2)) == [], chosen


def test_a_sweep_of_one_trial_is_the_run():
    config = tables()
    done, single = basis_bt.sweep(config), basis_bt.run({key: config[key] for key in config if key != "sweep"})
    assert done.trials.select(single.metrics.columns).equals(single.metrics)
    for name, table in done.tables.items():
        assert table.equals(single.tables[name]), name


def test_the_tables_of_the_best_are_those_of_their_runs():
    config = tables(rule__entry=[0.05, 0.1, 0.2], sweep={"best": 2, "metric": "total_return"})
    done, plan = basis_bt.sweep(config), make_plan(config)
    best = done.trials.sort("total_return", descending=True).head(2)["trial"].to_list()
    assert done.manifest["sweep"]["best_trials"] == best
    for name, table in done.tables.items():
        assert table.equals(pl.concat([basis_bt.run(plan.config_of(k), trial=k).tables[name] for k in best])), name


def test_a_signal_of_the_callers_own_has_its_warmup_in_trials_and_details():
    mean = (pl.col("close_1") / pl.col("close_0") - 1).rolling_mean(72)
    config = tables(rule={"entry": [0.0, 1e-4], "exit": -1e-3}, sweep={"best": 2})
    done, plan = basis_bt.sweep(config, expression=mean, warmup_hours=72), make_plan(config)
    for row in done.trials.iter_rows(named=True):
        single = basis_bt.run(plan.config_of(row["trial"]), trial=row["trial"], expression=mean, warmup_hours=72)
        assert row["end_equity_usd"] == single.metrics["end_equity_usd"].item()
        mine = done.tables["equity"].filter(pl.col("trial") == row["trial"])
        assert mine.equals(single.tables["equity"])
    with pytest.raises(ConfigError, match="as an expression"):
        rerun(done, 0)


def test_parameter_columns_say_what_the_configuration_had():
    config = tables(
        combo=[CARRY, PERPS], signal__hours=["1d", 72], rule__entry=[0.05, 0.1], rule__reverse=[False, True],
        costs__taker_fee_bps=[{"spot": 1.0, "perp": 2.0}, 3.0], fills={"atomicity": ["match", "naked"]},
        size={"leverage": 2},
    )  # fmt: skip
    done, plan = basis_bt.sweep(config), make_plan(config)
    assert set(done.columns) == {
        "param_combo", "param_signal_hours", "param_rule_reverse", "param_rule_entry", "param_costs_taker_fee_bps",
        "param_fills_atomicity",
    }  # fmt: skip
    for row in done.trials.iter_rows(named=True):
        had = plan.config_of(row["trial"])
        text = " ".join(f"{one['ratio']:+g} {one['instrument']}" for one in had["combo"]["legs"])
        assert row["param_combo"] == text
        assert row["param_signal_hours"] == (24.0 if had["signal"]["hours"] == "1d" else 72.0)
        assert (row["param_rule_entry"], row["param_rule_reverse"]) == (had["rule"]["entry"], had["rule"]["reverse"])
        assert json.loads(row["param_costs_taker_fee_bps"]) == had["costs"]["taker_fee_bps"]
        assert row["param_fills_atomicity"] == had["fills"]["atomicity"]
        assert (row["param_size_leverage"], row["param_rule_exit"], row["param_size_lots"]) == (2.0, 0.02, "venue")
        assert row["param_rule_stop_loss_pct"] is None


def test_half_spreads_are_fast_unless_a_signal_counts_with_them():
    """The signals whose expression changes with the cost of a fill are those that ``SIGNALS_OF`` names."""
    dated = Combo(legs=[Leg(**leg("spot:binance:BTC-USDT", 1.0)), Leg(**leg("perp:binance:BTC-USDT", -1.0))])
    given = {"hours": 24, "hold_hours": 48, "n": 3, "days": 3, "look": 3, "above": 1e-4, "below": 0.0,
             "interest_apr": 0.1, "sql": "close_0"}  # fmt: skip
    found = set()
    for name in NAMES:
        for keys in ([], ["hours"], ["hours", "hold_hours"], ["n", "above", "below"], ["look"], ["n", "days"],
                     ["interest_apr"], ["sql"]):  # fmt: skip
            try:
                spec = SignalSpec(name=name, **{key: given[key] for key in keys})
                texts = {str(build_signal(spec, dated, bar_us=3_600_000_000, one_way_bps=(bps, bps)).expression)
                         for bps in (0.0, 7.0)}  # fmt: skip
            except (BasisBtError, ValueError):
                continue
            if len(texts) > 1:
                found.add(name)
    assert found == SIGNALS_OF["costs.half_spread_bps"]
    assert set(SIGNALS_OF) <= set(FAST_KEYS)


# -- failures stay with their trials -----------------------------------------------------------------------------------


def test_contradictions_are_invalid_and_the_other_trials_as_without_them():
    config = tables(rule__entry=[0.05, 0.1, 0.2], rule__exit=[0.02, 0.1])
    done = basis_bt.sweep(config)
    assert done.trials["status"].to_list() == ["ok", "invalid", "ok", "invalid", "ok", "ok"]
    assert done.trials.filter(pl.col("status") == "invalid")["end_equity_usd"].null_count() == 2
    alone = basis_bt.sweep(tables(rule__entry=[0.05, 0.1, 0.2]))
    same = [name for name in done.trials.columns if name != "trial"]
    assert done.trials.filter(param_rule_exit=0.02).select(same).equals(alone.trials.select(same))


def test_c25_poisoned_trials_have_a_status_and_the_rest_are_unchanged(tmp_path):
    config = tables(combo=[CARRY, ABSENT, PERPS], costs__half_spread_bps=[0.5, 1000], costs__impact_coef_bps=[0.0, 1e6])
    done = basis_bt.sweep(config, runs=tmp_path)
    assert done.trials["status"].to_list() == ["ok", "cost_over_price", "ok", "cost_over_price", *["data_error"] * 4,
                                               "ok", "cost_over_price", "ok", "cost_over_price"]  # fmt: skip
    whole = basis_bt.sweep(tables(combo=[CARRY, PERPS]))
    picked = done.trials.filter(
        (pl.col("param_costs_half_spread_bps") == 0.5) & (pl.col("param_costs_impact_coef_bps") == 0)
    )
    same = [name for name in whole.trials.columns if name != "trial"]
    assert picked.filter(status="ok").select(same).equals(whole.trials.select(same))
    (failure,) = done.manifest["sweep"]["failures"]
    assert failure["trials"] == 4 and "okx" in failure["error"]
    assert read_manifest(tmp_path / "demo")["sweep"]["status"] == {"cost_over_price": 4, "data_error": 4, "ok": 4}


def test_impact_without_volumes_costs_only_the_trials_that_want_it(tmp_path):
    root = shutil.copytree(SAMPLE, tmp_path / "market")
    path = root / "perp" / "binance" / "BTC-USDT.parquet"
    pl.read_parquet(path).drop("volume").write_parquet(path)
    config = tables(data__root=str(root), costs__impact_coef_bps=[5.0, 0.0])
    done = basis_bt.sweep(config)
    assert done.trials["status"].to_list()[1] == "ok" != done.trials["status"].to_list()[0]
    assert differences(config, done) == []


def test_where_all_trials_fail_that_is_the_error_and_nothing_is_left(tmp_path):
    other = {"legs": [leg("spot:okx:ETH-USDT", 1.0), leg("perp:okx:ETH-USDT", -1.0)]}
    config = tables(combo=[ABSENT, other])
    for options in ({}, {"runs": tmp_path / "runs"}):
        with pytest.raises(KernelError, match="no trial could run.*okx"):
            basis_bt.sweep(config, **options)
    assert names_in(tmp_path / "runs") == []
    basis_bt.sweep(tables(), runs=tmp_path / "runs")


# -- whatever computes them --------------------------------------------------------------------------------------------


def test_parts_are_byte_equal_at_any_number_of_threads_and_in_memory(tmp_path):
    config = long_tables(n_entries=15, n_exits=5, combo=[CARRY, PERPS])
    one, two, three = (
        basis_bt.sweep(config, runs=tmp_path, name=f"t{threads}", threads=threads) for threads in (1, 2, 3)
    )
    assert len(part_hashes(one.path)) == make_plan(config).n_parts > 4
    assert part_hashes(one.path) == part_hashes(two.path) == part_hashes(three.path)
    for file in one.path.glob("*.parquet"):
        assert file.read_bytes() == (two.path / file.name).read_bytes(), file.name
    memory = basis_bt.sweep(config)
    assert trials_hash(memory.trials) == trials_hash(one.trials)
    assert memory.trials.equals(load_run(one.path).tables["metrics"])
    assert names_in(tmp_path) == ["t1", "t2", "t3"]
    assert names_in(one.path) == sorted([*(f"{name}.parquet" for name in one.tables), "manifest.json", "metrics"])


def test_a_part_holds_the_trials_of_its_number_alone(tmp_path):
    config = tables(
        rule__entry={"from": 0.02, "to": 0.3, "steps": 40}, rule__exit={"from": -1.0, "to": 0.0, "steps": 16}
    )
    done, plan = basis_bt.sweep(config, runs=tmp_path), make_plan(config)
    for part in range(plan.n_parts):
        found = pl.read_parquet(done.path / "metrics" / f"{part:05d}.parquet")["trial"].to_list()
        assert found == plan.trials_of(part).tolist()
    assert load_sweep(tmp_path, "demo").trials["trial"].to_list() == list(range(plan.n_trials))


def test_a_resumed_sweep_says_what_an_uninterrupted_one_says(tmp_path, monkeypatch):
    """Also of the parts before the interruption: why trials failed, the files, the flags."""
    config = long_tables(n_entries=20, n_exits=6, combo=[ABSENT, CARRY, THREE])
    read, read_part = [], PartialRun.read_part
    monkeypatch.setattr(PartialRun, "read_part", lambda self, number: read.append(number) or read_part(self, number))
    whole = basis_bt.sweep(config, runs=tmp_path, name="whole")
    stopped(config, tmp_path, monkeypatch, after=3, name="again")
    assert read == []
    again = basis_bt.sweep(config, runs=tmp_path, name="again", resume=True)
    assert len(read) == 3  # those that were there, and no other
    assert again.best.equals(whole.best)
    assert part_hashes(again.path) == part_hashes(whole.path)
    for key in ("inputs", "flags", "sweep", "config", "span"):
        assert again.manifest[key] == whole.manifest[key], key
    assert whole.manifest["sweep"]["failures"][0]["trials"] == 120


def test_inputs_are_named_as_a_run_names_them(tmp_path):
    config = tables(rule__entry=[0.05, 0.1])
    done, single = basis_bt.sweep(config), basis_bt.run(make_plan(config).config_of(0))
    keys = ("instrument", "series", "path", "sha256")

    def rows(manifest):
        return sorted(tuple(str(row[key]) for key in keys) for row in manifest["inputs"])

    assert rows(done.manifest) == rows(single.manifest)


def test_a_sweep_in_memory_has_nothing_to_resume():
    with pytest.raises(ConfigError, match="in memory"):
        basis_bt.sweep(tables(), resume=True)
    with pytest.raises(ConfigError, match="threads must be"):
        basis_bt.sweep(tables(), threads=0)
    with pytest.raises(ConfigError, match="there is no engine"):
        basis_bt.sweep(tables(), engine="slurm")


# -- reading them ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder with a sweep and a run."""
    root = tmp_path_factory.mktemp("kept")
    fees = [{"spot": 1.0, "perp": 1.0}, 4.0]
    config = tables(
        signal__hours=["1d", 72], rule__entry=[0.05, 0.1], costs__taker_fee_bps=fees, sweep={"best": 2}
    )  # fmt: skip
    basis_bt.sweep(config, runs=root, name="many")
    basis_bt.run(make_plan(tables()).config_of(0)).save(root, name="one")
    return root


def test_sql_sees_sweeps_and_runs_together(kept):
    counts = basis_bt.sql("SELECT run, count(*) AS n, count(DISTINCT trial) AS d FROM trials GROUP BY run ORDER BY run",
                          root=kept)  # fmt: skip
    assert counts.rows() == [("many", 8, 8), ("one", 1, 1)]
    joined = basis_bt.sql(
        "SELECT t.run, t.trial, r.config->>'$.signal.name' AS signal, t.param_rule_entry AS entry, t.end_equity_usd "
        "FROM trials t JOIN runs r USING (run) ORDER BY t.run, t.trial", root=kept,
    )  # fmt: skip
    sweep = load_sweep(kept, "many")
    assert joined["signal"].unique().to_list() == ["funding_apr"]
    assert joined.filter(run="many")["end_equity_usd"].to_list() == sweep.trials["end_equity_usd"].to_list()
    assert joined.filter(run="many")["entry"].to_list() == sweep.trials["param_rule_entry"].to_list()
    details = basis_bt.sql("SELECT run, trial, count(*) AS n FROM equity GROUP BY ALL ORDER BY ALL", root=kept)
    best = sorted(sweep.manifest["sweep"]["best_trials"])
    assert [row[:2] for row in details.rows()] == [*(("many", trial) for trial in best), ("one", 0)]


def test_top_save_gives_runs_with_the_numbers_of_the_sweep(kept, tmp_path, capsys):
    root = shutil.copytree(kept, tmp_path / "runs")
    assert entry(["top", "many", "--n", "3", "--save", "--runs", str(root), "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    trials = load_sweep(root, "many").trials
    assert [row["sharpe"] for row in shown] == trials["sharpe"].sort(descending=True).head(3).to_list()
    for row in shown:
        run = load_run(root / f"many-trial-{row['trial']}")
        mine = trials.filter(trial=row["trial"])
        metrics = [name for name in mine.columns if not name.startswith("param_")]
        assert run.tables["metrics"].select(metrics).equals(mine.select(metrics))
    assert entry(["top", "many", "--robust", "--n", "2", "--runs", str(root)]) == 0
    assert entry(["top", "many", "--metric", "max_drawdown", "--n", "1", "--runs", str(root), "--format", "json"]) == 0
    assert f'"max_drawdown": {trials["max_drawdown"].min()}' in capsys.readouterr().out


READERS = {
    "ls": (["ls"], 0, "many"),
    "show": (["show", "many"], 0, "8: ok 8"),
    "diff": (["diff", "many", "many"], 0, "results: equal"),
    "diff-run": (["diff", "many", "one"], 0, "results: differ"),
    "explain": (
        ["explain", "many", "--ts", "2024-02-10T08:00Z"],
        0,
        "rate from     .*funding/binance/BTC-USDT.parquet",
    ),
    "explain-nothing": (["explain", "many", "--ts", "2030-01-01T00:00Z"], 1, "StoreError"),
    "top-of-run": (["top", "one"], 1, "a single backtest, no sweep"),
    "top-of-none": (["top", "mony"], 1, "did you mean many"),
    "top-typo": (["top", "many", "--metric", "sharp"], 2, "is no metric"),
    "sql": (["sql", "SELECT max(sharpe) FROM trials"], 0, "max"),
}


@pytest.mark.parametrize(("arguments", "code", "says"), READERS.values(), ids=READERS)
def test_every_verb_reads_a_sweep_or_says_why_not(kept, capsys, arguments, code, says):
    assert entry([*arguments, "--runs", str(kept)]) == code
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert "Traceback" not in text
    assert re.search(says, text), text


def test_report_of_a_sweep_is_written(kept, tmp_path, capsys):
    assert entry(["report", "many", "--out", str(tmp_path / "out"), "--runs", str(kept)]) == 0
    assert (tmp_path / "out" / "report.html").stat().st_size > 1_000


def test_a_trial_whose_inputs_changed_is_not_passed_off_as_the_sweeps(tmp_path):
    root = shutil.copytree(SAMPLE, tmp_path / "market")
    basis_bt.sweep(tables(data__root=str(root), rule__entry=[0.05, 0.1]), runs=tmp_path / "runs")
    path = root / "funding" / "binance" / "BTC-USDT.parquet"
    pl.read_parquet(path).with_columns(pl.col("rate") * 1.5).write_parquet(path)
    kept = load_sweep(tmp_path / "runs", "demo")
    with pytest.raises(StoreError, match="another result than it did"):
        rerun(kept, 0)
    with pytest.raises(ConfigError, match="no trial 7"):
        rerun(kept, 7)
    path.unlink()
    with pytest.raises(DataError):
        rerun(kept, 0)


def test_the_sample_sweep_is_ten_thousand_trials_and_dry_run_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert entry(["sweep", "configs/sweep_sample.toml", "--dry-run", "--runs", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out.startswith("10,000 trials (signal.hours 4 x rule.entry 50 x rule.exit 50)")
    assert names_in(tmp_path) == []
    plan = make_plan("configs/sweep_sample.toml")
    check_size(plan, threads=1, folder=tmp_path)


def test_a_sweep_without_a_name_has_that_of_its_file(tmp_path):
    unnamed = {key: value for key, value in tables(rule__entry=[0.05, 0.1], sweep={"best": 0}).items() if key != "name"}
    path = toml_of(unnamed, tmp_path / "thresholds.toml")
    assert make_plan(path).base.name == "thresholds" and make_plan(unnamed).base.name == "sweep"
    done = basis_bt.sweep(path, runs=tmp_path / "runs")
    assert done.manifest["name"] == done.manifest["config"]["name"] == "thresholds"
    assert names_in(tmp_path / "runs") == ["thresholds"]
    assert basis_bt.sweep(path, name="other").manifest["name"] == "other"
    assert "name" not in unnamed


def test_settings_of_the_command_line_make_axes(tmp_path, capsys):
    path = toml_of(tables(), tmp_path / "a.toml")
    arguments = ["sweep", str(path), "--set", "rule.entry=[0.05,0.1]", "--set", "sweep.best=0", "--name", "x",
                 "--runs", str(tmp_path / "runs")]  # fmt: skip
    assert entry(arguments) == 0
    assert load_sweep(tmp_path / "runs", "x").trials["param_rule_entry"].to_list() == [0.05, 0.1]
    assert "2 trials" in capsys.readouterr().err
