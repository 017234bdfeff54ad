"""The short way of ``kernels/plain.py`` against the whole trial, to the last bit, over random markets from files."""

import dataclasses
import math
import tempfile
import tomllib
from pathlib import Path

import bridge
import numpy as np
import pytest
import strategies
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numba.core import config

from basis_bt.backtest.prepare import prepare
from basis_bt.core.config import build_config
from basis_bt.core.errors import DataError
from basis_bt.kernels.many import VALUES
from basis_bt.kernels.search import next_at_or_above, next_at_or_below, plain_market
from basis_bt.kernels.structs import CERTAIN
from basis_bt.sweeps.batch import METRICS, Cell, is_plain, make_cell, run_batch
from basis_bt.sweeps.fast_axes import base_values

IS_COMPILED = not config.DISABLE_JIT
ROOT = Path(__file__).resolve().parent.parent
NUMBER = st.floats(allow_nan=False, allow_infinity=False, min_value=-2.0, max_value=2.0)


@st.composite
def value_rows(draw, base):
    """Rows of values around those of a case, as a sweep would vary them."""
    rows = np.tile(base, (draw(st.integers(1, 6)), 1))
    for row in rows:
        entry = draw(NUMBER)
        row[0], row[1] = entry, entry - draw(st.floats(0.001, 3.0))
        row[2], row[3] = draw(st.integers(0, 6)), draw(st.sampled_from([-1, 0, 3, 40]))
        row[4] = draw(st.integers(0, 6))
        row[5] = draw(st.sampled_from([math.nan, 0.05, 2.0, 50.0]))
        row[6] = draw(st.sampled_from([math.nan, 5.0, 500.0]))
        row[7] = draw(st.sampled_from([base[7], 1_000.0, 1e6]))
        row[8] = draw(st.sampled_from([base[8], 0.3, 1.0]))
        row[9] = draw(st.sampled_from([math.nan, 1.0, 7.0]))
        row[10] = draw(st.sampled_from([math.nan, 0.0, 3.5]))
        row[11] = draw(st.sampled_from([math.nan, 0.0, 20.0]))
    # and some with other thresholds alone, which may make the same decisions and then are not run again
    near = rows[draw(st.lists(st.integers(0, len(rows) - 1), max_size=6))]
    for row in near:
        row[0] += draw(st.sampled_from([0.0, 1e-9, 0.01, 0.2]))
        row[1] -= draw(st.sampled_from([0.0, 1e-9, 0.01, 0.2]))
    return np.ascontiguousarray(np.vstack([rows, near]))


def cell_of(case, root):
    """A random case as a cell with certain fills at one latency, or None where no bar is left of it."""
    try:
        panel, market, p = bridge.prepared(case, root)
    except DataError:
        return None
    latency = np.full(len(p.fills.latency_bars), p.fills.latency_bars[0])
    p = p._replace(fills=p.fills._replace(model=CERTAIN, reject_probability=0.0, latency_bars=latency))
    plain = plain_market(market.tradable, market.missing, market.signal, market.first_settlement)
    leveraged = np.array([one.is_margined for one in panel.instruments])
    return Cell(market=market, plain=plain, parameters=p, is_leveraged=leveraged, bar_hours=panel.bar_hours,
                bar_us=panel.bar_us, first_us=int(panel.ts_us[0]))  # fmt: skip


@settings(max_examples=250 if IS_COMPILED else 40, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=strategies.cases(), data=st.data())
def test_plain_trials_are_whole_trials_to_the_last_bit(case, data):
    assume(len(case["legs"]) == 2)
    assume(bridge.two_sided(case) or not case["signal"].get("name", "").startswith("basis"))
    assume(any(leg["kind"] == "perp" for leg in case["legs"]) or case["signal"].get("name") != "funding_apr")
    assume(all(leg["settlements"] for leg in case["legs"] if leg["kind"] == "perp"))
    with tempfile.TemporaryDirectory() as folder:
        cell = cell_of(case, Path(folder))
    assume(cell is not None and is_plain(cell.parameters))
    values = data.draw(value_rows(base_values(cell.parameters)))
    n = len(values)
    sample_bars = np.arange(0, cell.n_bars, 3)
    running = np.zeros(1, dtype=np.int64)
    short, whole = (
        run_batch(one, trials=np.arange(n), values=values, cancelled=running, sample_bars=sample_bars)
        for one in (cell, dataclasses.replace(cell, plain=None))
    )
    assert (short.status == whole.status).all()
    ok = short.status == 0
    for place, name in enumerate(METRICS):
        ours, theirs = short.metrics[ok, place], whole.metrics[ok, place]
        assert ((ours == theirs) | (np.isnan(ours) & np.isnan(theirs))).all(), (name, ours, theirs)
    assert (short.samples[ok] == whole.samples[ok]).all()


def test_a_row_of_values_has_a_place_for_each_name():
    assert len(set(VALUES)) == len(VALUES) == 12


def test_the_next_value_beyond_a_level_is_the_one_a_plain_search_finds():
    random = np.random.default_rng(3)
    values = random.normal(size=1_000)
    values[random.random(1_000) < 0.3] = math.nan
    open_all = np.ones((1_000, 2), dtype=np.bool_)
    shared = plain_market(open_all, ~open_all, values, np.zeros(1_001, dtype=np.int64))
    for bar in range(0, 1_000, 7):
        for level in (-9.0, -2.0, 0.0, 2.5, 9.0):
            above = [t for t in range(bar, 1_000) if values[t] >= level]
            below = [t for t in range(bar, 1_000) if values[t] <= level]
            found, passed = next_at_or_above(values, shared.highest, bar, level, -math.inf)
            assert found == (above or [1_000])[0]
            assert np.nanmax([-math.inf, *values[bar:found]]) <= passed < level
            found, passed = next_at_or_below(values, shared.lowest, bar, level, math.inf)
            assert found == (below or [1_000])[0]
            assert level < passed <= np.nanmin([math.inf, *values[bar:found]])


@pytest.mark.skipif(not IS_COMPILED, reason="800 trials of a year take minutes without the compiler")
def test_trials_that_decide_alike_are_run_once_and_have_the_same_bits():
    random = np.random.default_rng(5)
    raw = tomllib.loads((ROOT / "configs" / "sample_btc_carry.toml").read_text())
    raw["data"]["root"] = str(ROOT / "data" / "sample")
    cell = make_cell(prepare(build_config(raw)))
    values = np.tile(base_values(cell.parameters), (400, 1))
    values[:, 0], values[:, 1] = random.uniform(0.05, 0.3, 400), random.uniform(-0.05, 0.05, 400)
    running = np.zeros(1, dtype=np.int64)
    together = run_batch(cell, trials=np.arange(400), values=values, cancelled=running)
    alone = np.vstack([
        run_batch(cell, trials=np.array([k]), values=values[k : k + 1], cancelled=running).metrics for k in range(400)
    ])  # fmt: skip
    assert ((together.metrics == alone) | (np.isnan(together.metrics) & np.isnan(alone))).all()
    assert len(np.unique(together.metrics[:, METRICS.index("pnl_usd")])) < 390
