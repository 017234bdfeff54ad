"""What no run may do, over random markets: know the future, make money of nothing, or differ from itself."""

import copy
import random
import tempfile
from pathlib import Path

import bridge
import numpy as np
import pytest
import strategies
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

import basis_bt
from basis_bt.core.config import read_toml
from basis_bt.core.errors import DataError
from basis_bt.kernels.status import OK
from basis_bt.kernels.structs import BASIS, BOOK_SIGNS, DELTA, FUNDING

ROOT = Path(__file__).resolve().parent.parent
MINUTE_US = 60_000_000
RANDOM = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def simulated(case):
    with tempfile.TemporaryDirectory() as folder:
        return bridge.simulate(case, Path(folder))


def runnable(case):
    """The case with one impact exponent, as a run has it, if it has bars and its signal fits its legs."""
    for cost in case["costs"]:
        cost["impact_exponent"] = case["costs"][0]["impact_exponent"]
    assume(strategies.run_stamps(case))
    assume(bridge.two_sided(case) or not case["signal"].get("name", "").startswith("basis"))
    return case


def is_paid_by(settlement, *, at_us, bar_us):
    late = settlement[0] % bar_us
    snapped = settlement[0] - late if late <= min(MINUTE_US, bar_us // 2) else settlement[0]
    return snapped <= at_us


def cut_after(case, at_us):
    """The case as it was known at the end of the bar at ``at_us``, the run ending there."""
    out, end_us = copy.deepcopy(case), at_us + case["bar_us"]
    out["end_us"] = min(case["end_us"], end_us)
    for leg in out["legs"]:
        for name in ("bars", "mark_bars"):
            leg[name] = [row for row in leg[name] if row[0] < end_us]
        leg["settlements"] = [
            row for row in leg["settlements"] if is_paid_by(row, at_us=at_us, bar_us=case["bar_us"])
        ]
    if "values" in out["signal"] and all(leg["bars"] for leg in out["legs"]):
        out["signal"]["values"] = out["signal"]["values"][: len(strategies.run_stamps(out))]
    return out


def other_bar(row, rng, *, open_factor):
    """A file row with other prices, low and high still around them; mark rows have an open and a close alone."""
    ts, open_, *rest = row
    open_ *= open_factor
    if len(rest) == 1:
        return (ts, open_, rest[0] * rng.uniform(0.3, 3.0))
    close, others = rest[2] * rng.uniform(0.3, 3.0), [value * rng.uniform(0.3, 3.0) for value in rest[3:]]
    high, low = max(open_, close) * rng.uniform(1.0, 3.0), min(open_, close) * rng.uniform(0.3, 1.0)
    return (ts, open_, high, low, close, *others)


def scrambled_after(case, at_us, n_rows, rng):
    """The case with other prices, volumes, rates and signals after the bar at ``at_us``."""
    out, end_us = copy.deepcopy(case), at_us + case["bar_us"]
    for leg in out["legs"]:
        for name in ("bars", "mark_bars"):
            for k, row in enumerate(leg[name]):
                if row[0] >= end_us:
                    leg[name][k] = other_bar(row, rng, open_factor=rng.uniform(0.3, 3.0))
        for k, (ts, rate, mark, known) in enumerate(leg["settlements"]):
            if not is_paid_by(leg["settlements"][k], at_us=at_us, bar_us=case["bar_us"]):
                mark = mark and mark * rng.uniform(0.3, 3.0)
                leg["settlements"][k] = (ts, rate * rng.uniform(-1.0, 0.9), mark, known)
    if "values" in out["signal"]:
        values = out["signal"]["values"]
        values[n_rows:] = [rng.choice((None, rng.gauss(0.0, 3.0))) for _ in values[n_rows:]]
    return out


def steps_are_the_same(case, cut):
    """Whether the files still show their step: the smallest distance of stamps is what a file's step is known by."""

    def step(rows):
        return min((b[0] - a[0] for a, b in zip(rows, rows[1:], strict=False)), default=None)

    return all(
        step(leg[name]) == step(short[name])
        for leg, short in zip(case["legs"], cut["legs"], strict=True)
        for name in ("bars", "mark_bars")
    )


def history(simulation, n_rows):
    """The bytes of all that a run recorded in its first rows."""
    _, market, rows, totals, _ = simulation
    assert totals.status == OK
    n_fills = np.searchsorted(rows.log.fill_index[: totals.n_fills, 0], n_rows)
    n_events = np.searchsorted(rows.log.event_index[: totals.n_events, 0], n_rows)
    names = ("equity_usd", "cash_usd", "position_base", "leg_cash_usd", "books", "stale", "direction")
    out = {name: getattr(rows, name)[:n_rows].tobytes() for name in names}
    return out | {
        "signal": market.signal[:n_rows].tobytes(),
        "fills": rows.log.fill_index[:n_fills].tobytes() + rows.log.fill_values[:n_fills].tobytes(),
        "events": rows.log.event_index[:n_events].tobytes() + rows.log.event_quantity[:n_events].tobytes(),
        "settlements": rows.settlement_position[: market.first_settlement[n_rows]].tobytes(),
    }


def assert_same(one, other):
    assert [name for name in one if one[name] != other[name]] == []


@RANDOM
@given(case=strategies.cases(), share=st.floats(0.3, 0.95))
def test_rows_do_not_change_when_the_future_is_cut_off(case, share):
    stamps = strategies.run_stamps(runnable(case))
    at_us = stamps[int(share * (len(stamps) - 1))]
    cut = cut_after(case, at_us)
    assume(all(leg["bars"] for leg in cut["legs"]) and steps_are_the_same(case, cut))
    n_rows = len(strategies.run_stamps(cut))
    assume(n_rows)
    full = simulated(case)
    assume(full[3].status == OK)
    try:
        short = simulated(cut)
    except DataError as error:
        assume("no funding settlement" not in str(error) and "percent" not in str(error))
        raise
    assert short[0].n_bars == n_rows
    event(f"fills before the cut: {short[3].n_fills > 0}")
    assert_same(history(full, n_rows), history(short, n_rows))


@RANDOM
@given(case=strategies.cases(), share=st.floats(0.0, 0.95), seed=st.integers(0, 2**16))
def test_rows_do_not_change_when_the_future_is_another(case, share, seed):
    stamps = strategies.run_stamps(runnable(case))
    n_rows = int(share * (len(stamps) - 1)) + 1
    other = scrambled_after(case, stamps[n_rows - 1], n_rows, random.Random(seed))
    full, changed = simulated(case), simulated(other)
    assume(full[3].status == changed[3].status == OK)
    assert_same(history(full, n_rows), history(changed, n_rows))


@RANDOM
@given(case=strategies.cases(), share=st.floats(0.0, 1.0), seed=st.integers(0, 2**16))
def test_decisions_and_fills_at_an_open_do_not_know_the_rest_of_the_bar(case, share, seed):
    stamps, rng = strategies.run_stamps(runnable(case)), random.Random(seed)
    row = int(share * (len(stamps) - 1))
    begin_us, end_us = stamps[row], stamps[row] + case["bar_us"]
    other = scrambled_after(case, begin_us, row + 1, rng)
    for leg in other["legs"]:
        for k, bar in enumerate(leg["bars"]):
            if begin_us <= bar[0] < end_us:
                leg["bars"][k] = other_bar(bar, rng, open_factor=1.0)
    full, changed = simulated(case), simulated(other)
    assume(full[3].status == changed[3].status == OK)
    one, two = history(full, row + 1), history(changed, row + 1)
    assert_same(*({name: side[name] for name in ("signal", "fills", "events", "settlements")} for side in (one, two)))
    assert full[1].basis_bps[: row + 1].tobytes() == changed[1].basis_bps[: row + 1].tobytes()
    assert full[2].position_base[: row + 1].tobytes() == changed[2].position_base[: row + 1].tobytes()


@RANDOM
@given(case=strategies.cases())
def test_funding_of_a_long_and_a_short_in_the_same_perp_cancels(case):
    index = next(i for i, leg in enumerate(case["legs"]) if leg["kind"] == "perp")
    long, short = copy.deepcopy(case["legs"][index]), copy.deepcopy(case["legs"][index])
    short["ratio"] = -long["ratio"]
    case["legs"], case["costs"] = [long, short], [copy.deepcopy(case["costs"][index]) for _ in range(2)]
    for cost in case["costs"]:
        cost["fee_in_base"] = False
    case["rule"] |= {"entry": -1.0, "exit": -2.0, "reverse": False}
    n_rows = len(strategies.run_stamps(case))
    assume(n_rows)
    case["signal"] = {"values": [0.0] * n_rows}
    _, _, rows, totals, _ = simulated(case)
    assume(totals.status == OK)
    books = rows.books
    event(f"funding was paid: {bool(books[:, 0, FUNDING].any())}")
    assert (rows.position_base[:, 0] == -rows.position_base[:, 1]).all()
    for book in (FUNDING, DELTA, BASIS):
        assert (books[:, 0, book] == -books[:, 1, book]).all()


@RANDOM
@given(case=strategies.cases())
def test_without_a_trade_nothing_is_earned_and_nothing_is_paid(case):
    case["rule"] |= {"entry": 1e18, "exit": 0.0}
    _, _, rows, totals, metrics = simulated(runnable(case))
    assert (totals.status, totals.n_fills, totals.turnover_usd) == (OK, 0, 0.0)
    assert (rows.equity_usd == case["size"]["capital_usd"]).all()
    assert not rows.books.any()
    assert not rows.position_base.any()
    assert (metrics.n_trades, metrics.total_return, metrics.turnover) == (0, 0.0, 0.0)
    assert np.isnan(metrics.sharpe)


@RANDOM
@given(case=strategies.cases())
def test_the_change_of_equity_is_the_sum_of_the_books_by_leg_and_in_total(case):
    panel, _, rows, totals, _ = simulated(runnable(case))
    assume(totals.status == OK)
    tolerance = 1e-9 * max(totals.turnover_usd, 1.0)
    by_leg = rows.books @ np.array(BOOK_SIGNS)
    leg_equity = rows.leg_cash_usd + rows.position_base * panel.close_price
    assert np.abs(leg_equity - by_leg).max() <= tolerance
    assert np.abs(rows.equity_usd - case["size"]["capital_usd"] - by_leg.sum(axis=1)).max() <= tolerance
    event(f"fills: {totals.n_fills > 0}")


@pytest.fixture(scope="module")
def sample():
    raw = read_toml(ROOT / "configs" / "sample_btc_carry.toml")
    raw["data"]["root"] = str(ROOT / "data" / "sample")
    raw["data"]["end"] = "2024-04-01T00:00:00Z"
    return raw


def test_two_runs_of_one_configuration_write_the_same_bytes(sample, tmp_path):
    folders = [basis_bt.run(sample).save(tmp_path / name) for name in ("one", "two")]
    files = sorted(path.name for path in folders[0].glob("*.parquet"))
    assert {"metrics.parquet", "equity.parquet", "fills.parquet", "funding.parquet"} <= set(files)
    assert files == sorted(path.name for path in folders[1].glob("*.parquet"))
    for name in files:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def test_a_shorter_run_of_the_sample_is_the_beginning_of_a_longer_one(sample):
    long = basis_bt.run(sample)
    sample = sample | {"data": sample["data"] | {"end": "2024-02-10T07:00:00Z"}}
    short = basis_bt.run(sample)
    assert short.equity.height < long.equity.height
    assert short.fills.height > 0
    for name in ("equity", "attribution", "funding", "fills", "events"):
        table = short.tables[name]
        assert table.equals(long.tables[name].head(table.height)), name
