"""Robustness, figures and page of a sweep, on small trials whose numbers are made up here."""

import math
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import TwoSlopeNorm

from basis_bt.core.errors import ConfigError, StoreError
from basis_bt.reports.chart_text import compact_usd, middle_cut, quantity, short
from basis_bt.reports.charts import save_chart
from basis_bt.reports.economics_charts import breakeven_figure, capacity_figure, sensitivity_figure
from basis_bt.reports.luck_charts import luck_figure, walk_forward_figure
from basis_bt.reports.parallel_chart import parallel_figure
from basis_bt.reports.robustness import LOWER_IS_BETTER, is_random, robust_scores, robustness
from basis_bt.reports.sweep_charts import heatmap_figure
from basis_bt.reports.sweep_page import write_sweep_page

ENTRY, EXIT, HOURS, COMBO = "param_rule_entry", "param_rule_exit", "param_signal_hours", "param_combo"
FINDINGS = ("neighbourhood_mean", "neighbourhood_worst", "neighbourhood_best", "share_of_best")


def trials_of(axes, **metrics):
    """Trials of the columns given; one whose metrics are all null failed."""
    frame = pl.DataFrame({**axes, **metrics}).with_row_index("trial").with_columns(pl.col("trial").cast(pl.Int64))
    failed = pl.all_horizontal(pl.col(name).is_null() for name in metrics)
    return frame.with_columns(status=pl.when(failed).then(pl.lit("liquidated")).otherwise(pl.lit("ok")))


def grid(entries, exits, values, *, metric="sharpe"):
    """Trials of two axes; ``values`` by exit, then entry."""
    pairs = [(entry, leave) for leave in exits for entry in entries]
    axes = {ENTRY: [entry for entry, _ in pairs], EXIT: [leave for _, leave in pairs]}
    flat = [value for row in values for value in row]
    return trials_of(axes, **{metric: pl.Series(flat, dtype=pl.Float64)})


PLATEAU = grid(
    [0.05, 0.1, 0.2, 0.4],
    [0.0, 0.01, 0.02],
    [[9.0, -1.0, 2.0, 2.1], [-1.0, None, 2.2, 2.4], [0.5, 2.0, 2.3, None]],
)


# -- robustness --------------------------------------------------------------------------------------------------------


def slow_neighbours(trials, axes, metric, steps, centre):
    """Values around a trial by the words of the definition, one trial at a time."""
    rows = trials.to_dicts()
    usable = [row for row in rows if row["status"] == "ok" and row[metric] is not None and math.isfinite(row[metric])]
    is_number = {axis: trials[axis].dtype.is_numeric() for axis in axes}
    places = {
        axis: {value: i for i, value in enumerate(sorted({row[axis] for row in rows} - {None}))}
        for axis in axes
        if is_number[axis]
    }
    texts = [axis for axis in axes if not is_number[axis]]
    varying = [axis for axis in places if len({row[axis] for row in rows}) > 1]
    random = len(varying) > 1 and any(
        len({(row[axis], *(row[text] for text in texts)) for row in rows}) == len(rows) for axis in varying
    )

    def away(row):
        far = 0.0
        for axis in axes:
            one, other = row[axis], centre[axis]
            if not is_number[axis] or one is None or other is None:
                far = far if one == other else math.inf
                continue
            width = max(len(places[axis]) - 1, 1) if random else 1
            far = max(far, abs(places[axis][one] / width - places[axis][other] / width))
        return far

    others = [(away(row), row["trial"], row[metric]) for row in usable if row["trial"] != centre["trial"]]
    if random:
        return [value for far, _, value in sorted(others)[:20] if far < math.inf]
    return [value for far, _, value in others if far <= steps]


def check_row(row, values, metric):
    best, worst = (min, max) if metric in LOWER_IS_BETTER else (max, min)
    assert row["n_neighbours"] == len(values)
    if not values:
        assert all(row[name] is None for name in FINDINGS)
        return
    mean = math.fsum(values) / len(values)
    assert row["neighbourhood_mean"] == pytest.approx(mean, rel=1e-12, abs=1e-12)  # sums in another order
    assert row["neighbourhood_worst"] == worst(values)
    assert row["neighbourhood_best"] == best(values)
    expected = mean / row["value"] if row["value"] > 0 else None
    assert row["share_of_best"] == (None if expected is None else pytest.approx(expected, rel=1e-9, abs=1e-12))


@st.composite
def designs(draw):
    n_trials = draw(st.integers(1, 45))
    shapes = draw(st.lists(st.sampled_from(["grid", "random", "text", "holed", "constant"]), min_size=1, max_size=4))
    numbers = {
        "grid": st.sampled_from([0.01, 0.02, 0.05, 0.1, 1.0]),
        "text": st.sampled_from(["BTC", "ETH"]),
        "holed": st.sampled_from([None, 8, 24, 72]),
        "constant": st.just(3.0),
    }
    axes = {}
    for place, shape in enumerate(shapes):
        if shape == "random":
            values = draw(st.permutations(range(n_trials)))
        else:
            values = draw(st.lists(numbers[shape], min_size=n_trials, max_size=n_trials))
        kind = {"text": pl.String, "holed": pl.Int64}.get(shape, pl.Float64)
        axes[f"param_{place}"] = pl.Series(values, dtype=kind, strict=False)
    metric = draw(st.sampled_from(["sharpe", "max_drawdown"]))
    one = st.none() | st.integers(-8, 8).map(lambda value: value / 4) | st.just(math.nan)
    values = draw(st.lists(one, min_size=n_trials, max_size=n_trials))
    trials = trials_of(axes, **{metric: pl.Series(values, dtype=pl.Float64)})
    return trials.sample(fraction=1.0, shuffle=True, seed=n_trials), list(axes), metric


@given(design=designs(), steps=st.integers(1, 2))
@settings(max_examples=150, deadline=None)
def test_the_neighbourhood_is_the_one_of_the_plain_definition(design, steps):
    trials, axes, metric = design
    known = [row for row in trials.to_dicts() if row[metric] is not None and math.isfinite(row[metric])]
    if not known:
        with pytest.raises(ConfigError, match="no trial has a value"):
            robustness(trials, axes=axes, metric=metric)
        return
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    ranked = sorted(known, key=lambda row: (-sign * row[metric], row["trial"]))
    best = robustness(trials, axes=axes, metric=metric, steps=steps).row(0, named=True)
    assert (best["trial"], best["value"]) == (ranked[0]["trial"], ranked[0][metric])
    scores = robust_scores(trials, axes=axes, metric=metric, steps=steps, top=7)
    assert set(scores["trial"]) == {row["trial"] for row in ranked[:7]}
    for row in scores.iter_rows(named=True):
        centre = trials.row(by_predicate=pl.col("trial") == row["trial"], named=True)
        check_row(row, slow_neighbours(trials, axes, metric, steps, centre), metric)
    means = scores["neighbourhood_mean"].drop_nulls().to_list()
    assert means == sorted(means, reverse=sign > 0)
    assert scores["neighbourhood_mean"].is_null().to_list() == [False] * len(means) + [True] * (
        len(scores) - len(means)
    )


def test_a_plateau_comes_before_a_peak():
    peak = robustness(PLATEAU, axes=[ENTRY, EXIT], metric="sharpe").row(0, named=True)
    assert (peak["trial"], peak["value"], peak["n_neighbours"]) == (0, 9.0, 2)  # the cell across has no value
    assert (peak["neighbourhood_mean"], peak["share_of_best"]) == (-1.0, -1.0 / 9.0)
    scores = robust_scores(PLATEAU, axes=[ENTRY, EXIT], metric="sharpe", top=4)
    assert scores["trial"].to_list()[-1] == 0
    assert scores.columns[:4] == ["trial", ENTRY, EXIT, "value"]
    assert scores["value"].to_list() == [2.3, 2.4, 2.2, 9.0]
    assert scores["neighbourhood_mean"].to_list()[:2] == pytest.approx(
        [(2.2 + 2.4 + 2.0) / 3, (2.0 + 2.1 + 2.2 + 2.3) / 4]
    )


def test_positions_count_the_values_of_failed_trials():
    trials = trials_of({ENTRY: [1.0, 2.0, 3.0]}, sharpe=[1.0, None, 2.0])
    assert robustness(trials, axes=[ENTRY], metric="sharpe").row(0, named=True)["n_neighbours"] == 0
    assert robustness(trials, axes=[ENTRY], metric="sharpe", steps=2).row(0, named=True)["neighbourhood_mean"] == 1.0


def test_one_axis_alone_is_a_grid_and_two_with_all_values_apart_are_random():
    trials = trials_of({ENTRY: [1.0, 2.0, 3.0], EXIT: [3.0, 1.0, 2.0], COMBO: ["a", "b", "c"]}, sharpe=[1.0, 2.0, 3.0])
    assert not is_random(trials, axes=[ENTRY])
    assert not is_random(trials, axes=[ENTRY, COMBO])
    assert is_random(trials, axes=[ENTRY, EXIT])
    assert is_random(pl.concat([trials, trials.with_columns(**{COMBO: pl.lit("d")})]), axes=[ENTRY, EXIT, COMBO])
    assert not is_random(PLATEAU, axes=[ENTRY, EXIT])


def test_a_random_design_takes_the_twenty_nearest():
    rng = np.random.default_rng(0)
    axes = {ENTRY: rng.random(400), EXIT: np.exp(rng.normal(size=400))}
    trials = trials_of(axes, sharpe=rng.normal(size=400))
    assert robust_scores(trials, axes=[ENTRY, EXIT], metric="sharpe")["n_neighbours"].to_list() == [20] * 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axes": []}, "needs an axis"),
        ({"axes": ["param_no"]}, "no column param_no"),
        ({"axes": [ENTRY], "metric": "calmar"}, "no column calmar"),
        ({"axes": [ENTRY], "trial": 5}, "trial 5 has no sharpe"),
        ({"axes": [ENTRY], "steps": 0}, "steps must be 1 or more"),
    ],
)
def test_a_neighbourhood_that_means_nothing_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        robustness(PLATEAU, **{"metric": "sharpe"} | options)


def test_trials_without_any_value_are_refused_by_every_figure():
    empty = PLATEAU.with_columns(sharpe=pl.lit(None, dtype=pl.Float64), status=pl.lit("liquidated"))
    calls = (
        lambda: robust_scores(empty, axes=[ENTRY], metric="sharpe"),
        lambda: heatmap_figure(empty, x=ENTRY, y=EXIT, metric="sharpe", title="t"),
        lambda: parallel_figure(empty, axes=[ENTRY], metric="sharpe", title="t"),
    )
    for call in calls:
        with pytest.raises(ConfigError, match="no trial has a value of sharpe") as caught:
            call()
        assert caught.value.where == {"trials": 12, "status liquidated": 12}


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "title", "text"),
    [
        ("total_return", [0.1234], "total return, %", "12.34 %"),
        ("sharpe", [1.5], "Sharpe", "1.5"),
        ("max_drawdown_hours", [240.0], "longest drawdown, days", "10 days"),
        ("max_drawdown_hours", [24.0], "longest drawdown, hours", "24 hours"),
        ("param_signal_hours", [72], "signal, days", "3 days"),
        ("param_rule_entry", [0.1], "rule entry", "0.1"),
        ("pnl_usd", [-12345.6], "pnl, USD", "−12,346 USD"),
        ("param_costs_half_spread_bps", [1.0], "costs half spread, bps", "1 bps"),
        ("param_size_max_frac", [0.25], "size max, %", "25 %"),
    ],
)
def test_columns_are_shown_in_readable_units(name, values, title, text):
    shown = quantity(name, pl.Series(values))
    assert shown.title == title
    assert shown.text(values[0]) == text


def test_numbers_and_names_are_short():
    assert [short(value) for value in (0.0, 1234567.8, -0.00012345)] == ["0", "1,234,568", "−0.0001234"]
    assert [compact_usd(value) for value in (500.0, 2500.0, -3e6, 1.5e9)] == ["500", "2.5k", "−3M", "1.5B"]
    assert middle_cut("spot:binance:BTC-USDT + perp:binance:BTC-USDT", letters=20) == "spot:binan…:BTC-USDT"
    assert middle_cut("BTC") == "BTC"


# -- heat map ----------------------------------------------------------------------------------------------------------


def texts_of(figure):
    return [text.get_text() for text in figure.texts]


def caption_of(figure):
    return " | ".join(texts_of(figure)[1:])


def mesh_of(figure):
    mesh = figure.axes[0].collections[0]
    return mesh, np.ma.filled(mesh.get_array().astype(float), np.nan)


def best_of(figure):
    (frame,) = [patch for patch in figure.axes[0].patches if patch.get_gid() == "best"]
    return frame.get_xy()


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_the_map_shows_each_cell_and_frames_the_best():
    figure = heatmap_figure(PLATEAU, x=ENTRY, y=EXIT, metric="sharpe", title="Sharpe")
    mesh, values = mesh_of(figure)
    expected = [[9.0, -1.0, 2.0, 2.1], [-1.0, np.nan, 2.2, 2.4], [0.5, 2.0, 2.3, np.nan]]
    np.testing.assert_array_equal(values, expected)
    assert best_of(figure) == (0, 0)
    axes = figure.axes[0]
    assert tick_labels(axes.xaxis) == ["0.05", "0.1", "0.2", "0.4"]
    assert tick_labels(axes.yaxis) == ["0", "0.01", "0.02"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rule entry", "rule exit")
    assert sorted(text.get_text() for text in axes.texts) == sorted(
        ["9.00", "−1.00", "2.00", "2.10", "−1.00", "2.20", "2.40", "0.50", "2.00", "2.30"]
    )
    assert isinstance(mesh.norm, TwoSlopeNorm)
    assert (mesh.norm.vmin, mesh.norm.vcenter, mesh.norm.vmax) == (-1.8, 0.0, 9.0)  # stretched fivefold, no more
    assert texts_of(figure)[0] == "Sharpe"
    assert "12 trials · 2 failed" in caption_of(figure)
    assert "a cell is one trial" in caption_of(figure)
    assert "best cell 9 at rule entry 0.05, rule exit 0" in caption_of(figure)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["no value"]
    assert axes.patch.get_hatch()


@pytest.mark.parametrize(
    ("metric", "reduce", "expected"),
    [
        ("sharpe", "best", 3.0), ("sharpe", "worst", 1.0), ("sharpe", "mean", 5.5 / 3), ("sharpe", "median", 1.5),
        ("max_drawdown", "best", 100.0), ("max_drawdown", "worst", 300.0), ("max_drawdown", "median", 150.0),
    ],
)  # fmt: skip
def test_the_other_axes_are_reduced(metric, reduce, expected):
    axes = {ENTRY: [0.1] * 3 + [0.2], EXIT: [0.0] * 4, COMBO: ["a", "b", "c", "a"]}
    trials = trials_of(axes, **{metric: [1.0, 3.0, 1.5, 2.0]})
    figure = heatmap_figure(trials, x=ENTRY, y=EXIT, metric=metric, title="t", reduce=reduce)
    assert mesh_of(figure)[1][0, 0] == pytest.approx(expected)
    assert f"a cell shows the {reduce} of 1 to 3 trials over combo" in caption_of(figure)


def test_the_best_drawdown_is_the_lowest_and_in_percent():
    trials = grid([1.0, 2.0], [0.0], [[0.2, 0.05]], metric="max_drawdown")
    figure = heatmap_figure(trials, x=ENTRY, y=EXIT, metric="max_drawdown", title="t")
    assert best_of(figure) == (1, 0)
    assert mesh_of(figure)[1].tolist() == [[20.0, 5.0]]
    assert "best cell 5 %" in caption_of(figure)
    assert figure.axes[1].get_ylabel() == "max drawdown, %"
    assert not isinstance(mesh_of(figure)[0].norm, TwoSlopeNorm)


def test_a_random_design_is_cut_into_bins_of_equally_many_trials():
    rng = np.random.default_rng(3)
    trials = trials_of({ENTRY: np.exp(rng.normal(size=1600)), HOURS: rng.random(1600) * 400}, sharpe=np.ones(1600))
    figure = heatmap_figure(trials, x=ENTRY, y=HOURS, metric="sharpe", title="t")
    assert mesh_of(figure)[1].shape == (20, 20)
    assert "rule entry: 1,600 values in 20 bins of about equally many trials" in caption_of(figure)
    assert "signal: 1,600 values in 20 bins" in caption_of(figure)
    assert figure.axes[0].get_ylabel() == "signal, days"
    assert not figure.axes[0].texts  # more cells than can be printed
    few = heatmap_figure(trials.head(30), x=ENTRY, y=HOURS, metric="sharpe", title="t")
    assert mesh_of(few)[1].shape == (3, 3)


def test_sixty_values_are_cells_and_more_are_bins():
    for n_values, n_cells in ((60, 60), (61, 6)):
        trials = grid(list(range(n_values)), [0, 1, 2], np.arange(3.0 * n_values).reshape(3, -1).tolist())
        figure = heatmap_figure(trials, x=ENTRY, y=EXIT, metric="sharpe", title="t")
        _, values = mesh_of(figure)
        assert values.shape == (3, n_cells)
        assert values[2, -1] == 3.0 * n_values - 1.0


def test_a_text_axis_keeps_its_best_sixty():
    names = [f"combo_{i:03d}" for i in range(80)]
    trials = trials_of({COMBO: names * 2, ENTRY: [0.1] * 80 + [0.2] * 80}, sharpe=[float(i) for i in range(160)])
    figure = heatmap_figure(trials, x=ENTRY, y=COMBO, metric="sharpe", title="t")
    assert tick_labels(figure.axes[0].yaxis) == names[20:]
    assert "combo: the best 60 of 80" in caption_of(figure)


def test_names_are_drawn_as_they_are_and_booleans_are_text():
    trials = trials_of({COMBO: ["a_$x^2$", "b$"], "param_rule_reverse": [True, False]}, sharpe=[1.0, 2.0])
    figure = heatmap_figure(trials, x=COMBO, y="param_rule_reverse", metric="sharpe", title="of $x$")
    figure.draw_without_rendering()
    assert tick_labels(figure.axes[0].xaxis) == ["a_$x^2$", "b$"]
    assert tick_labels(figure.axes[0].yaxis) == ["False", "True"]


def test_a_single_trial_is_a_map_and_null_axes_are_left_out():
    trials = trials_of({ENTRY: [0.1, None], EXIT: [0.0, 0.0]}, sharpe=[1.0, 5.0])
    figure = heatmap_figure(trials, x=ENTRY, y=EXIT, metric="sharpe", title="t")
    assert mesh_of(figure)[1].tolist() == [[1.0]]
    assert "1 trial without a value on an axis left out" in caption_of(figure)


def test_a_map_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="two axes"):
        heatmap_figure(PLATEAU, x=ENTRY, y=ENTRY, metric="sharpe", title="t")
    with pytest.raises(ConfigError, match="no such reduction"):
        heatmap_figure(PLATEAU, x=ENTRY, y=EXIT, metric="sharpe", title="t", reduce="max")
    with pytest.raises(ConfigError, match="no column param_no"):
        heatmap_figure(PLATEAU, x=ENTRY, y="param_no", metric="sharpe", title="t")


# -- parallel coordinates ----------------------------------------------------------------------------------------------


def lines_of(figure, gid):
    (found,) = [lines for lines in figure.axes[0].collections if lines.get_gid() == gid]
    return [path.vertices for path in found.get_paths()]


def test_lines_run_through_the_values_and_the_best_stand_out():
    trials = trials_of({ENTRY: [1.0, 2.0, 3.0], COMBO: ["b", "a", "b"]}, sharpe=[1.0, 0.0, 5.0])
    figure = parallel_figure(trials, axes=[ENTRY, COMBO], metric="sharpe", title="t")
    assert [line.tolist() for line in lines_of(figure, "best")] == [[[0, 1.0], [1, 1.0], [2, 1.0]]]
    assert [line[:, 1].tolist() for line in lines_of(figure, "rest")] == [[0.0, 1.0, 0.2], [0.5, 0.0, 0.0]]
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"rule entry", "combo", "Sharpe", "a", "b", "1", "2", "3"} <= set(texts)
    keys = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert keys == ["best 1 trial (33 %)", "the other 2"]


def test_no_more_lines_than_asked_for_and_the_same_each_time():
    rng = np.random.default_rng(5)
    trials = trials_of({ENTRY: rng.random(5000), HOURS: rng.random(5000)}, max_drawdown=rng.random(5000))
    drawn = [parallel_figure(trials, axes=[ENTRY, HOURS], metric="max_drawdown", title="t", lines=300) for _ in "ab"]
    best, rest = lines_of(drawn[0], "best"), lines_of(drawn[0], "rest")
    assert (len(best), len(rest)) == (30, 270)
    assert best[-1][2, 1] == 1.0  # the lowest drawdown on top of the axis, drawn last
    assert min(line[2, 1] for line in best) >= max(line[2, 1] for line in rest)
    assert min(line[2, 1] for line in rest) == 0.0
    for gid in ("best", "rest"):
        assert all((a == b).all() for a, b in zip(lines_of(drawn[0], gid), lines_of(drawn[1], gid), strict=True))


def test_wide_axes_are_logarithmic_and_constant_ones_centred():
    trials = trials_of({ENTRY: [1.0, 10.0, 100.0, 1000.0], EXIT: [2.0] * 4}, sharpe=[1.0, 2.0, 3.0, 4.0])
    figure = parallel_figure(trials, axes=[ENTRY, EXIT], metric="sharpe", title="t")
    heights = sorted(line[0, 1] for gid in ("best", "rest") for line in lines_of(figure, gid))
    assert heights == pytest.approx([0.0, 1 / 3, 2 / 3, 1.0])
    assert {line[1, 1] for line in lines_of(figure, "rest")} == {0.5}


def test_a_single_trial_and_a_single_axis_are_drawn(tmp_path):
    trials = trials_of({ENTRY: [1.0]}, sharpe=[1.0])
    figure = parallel_figure(trials, axes=[ENTRY], metric="sharpe", title="t")
    assert save_chart(figure, tmp_path / "one.png").stat().st_size > 5_000
    with pytest.raises(ConfigError, match="need an axis"):
        parallel_figure(trials, axes=[], metric="sharpe", title="t")
    with pytest.raises(ConfigError, match="on every axis"):
        parallel_figure(trials.with_columns(**{ENTRY: pl.lit(None)}), axes=[ENTRY], metric="sharpe", title="t")


# -- economics ---------------------------------------------------------------------------------------------------------


def crossing_of(figure):
    found = [line.get_xydata()[0].tolist() for line in figure.axes[0].lines if line.get_gid() == "crossing"]
    return found[0] if found else None


def holds():
    hold_hours = [8.0, 24.0, 72.0, 240.0]
    frame = pl.DataFrame({"hold_hours": hold_hours, "funding_bps": [0.2 * h for h in hold_hours], "costs_bps": 20.0})
    return frame.with_columns(pnl_per_trade_bps=pl.col("funding_bps") - pl.col("costs_bps"))


def test_the_break_even_is_marked_in_days():
    figure = breakeven_figure(holds(), breakeven_hours=100.0, caption=["BTC carry"])
    assert crossing_of(figure) == [100.0, 0.0]
    assert "break-even 4.17 d" in [text.get_text() for text in figure.axes[0].texts]
    assert caption_of(figure) == "BTC carry | 4 holds · breaks even at 4.17 d"
    pnl = figure.axes[0].lines[0]
    np.testing.assert_allclose(pnl.get_ydata(), [-18.4, -15.2, -5.6, 28.0])
    figure.draw_without_rendering()
    assert tick_labels(figure.axes[0].xaxis) == ["8 h", "1 d", "2 d", "4 d", "7 d"]


def test_no_break_even_is_said():
    figure = breakeven_figure(holds().head(2), breakeven_hours=None)
    assert crossing_of(figure) is None
    assert "does not break even within the holds shown" in caption_of(figure)
    with pytest.raises(ConfigError, match="nothing to draw"):
        breakeven_figure(holds().clear(), breakeven_hours=None)


def test_the_capacity_lies_on_the_line_of_the_apr():
    frame = pl.DataFrame(
        {
            "capital_usd": [1e4, 1e6, 1e8], "apr_on_capital": [0.1, 0.05, -0.05], "funding_apr": [0.12] * 3,
            "cost_apr": [0.02, 0.07, 0.17],
        }
    )  # fmt: skip
    figure = capacity_figure(frame, capacity_usd=1e7)
    assert crossing_of(figure) == pytest.approx([1e7, 0.0], abs=1e-9)
    assert "capacity 10M USD, where the APR is 0 %" in caption_of(figure)
    assert figure.axes[0].lines[0].get_ydata().tolist() == pytest.approx([10.0, 5.0, -5.0])
    figure.draw_without_rendering()
    assert {"10k", "1M", "100M"} <= set(tick_labels(figure.axes[0].xaxis))
    assert crossing_of(capacity_figure(frame, capacity_usd=None)) is None


def test_the_tornado_has_the_strongest_assumption_on_top():
    slopes = {"fees": -20.0, "funding": 90.0, "delay": -5.0}
    rows = [
        (name, scale, 100.0 + slope * (scale - 1.0), slope * (scale - 1.0))
        for name, slope in slopes.items()
        for scale in (0.0, 1.0, 2.0)
    ]
    frame = pl.DataFrame(rows, schema=["component", "scale", "pnl_usd", "change_usd"], orient="row")
    figure = sensitivity_figure(frame)
    tornado, scales = figure.axes
    assert tick_labels(tornado.yaxis) == ["delay", "fees", "funding"]
    assert [bar.get_width() for bar in tornado.patches] == [5.0, -5.0, 20.0, -20.0, -90.0, 90.0]
    assert [text.get_text() for text in tornado.texts] == ["×0", "×2"] * 3
    assert scales.lines[0].get_ydata().tolist() == [10.0, 100.0, 190.0]
    assert [text.get_text() for text in scales.get_legend().get_texts()] == ["funding", "fees", "delay"]
    assert caption_of(figure) == "3 assumptions, 9 backtests"


# -- walk-forward and luck ---------------------------------------------------------------------------------------------

START = datetime(2024, 1, 1, tzinfo=UTC)


def walk():
    starts = [START + timedelta(days=30 * i) for i in range(3)]
    windows = pl.DataFrame(
        {
            "window": [1, 2, 3], "test_start": starts, "test_end": [start + timedelta(days=30) for start in starts],
            "in_sample": [2.0, 3.0, 1.0], "out_of_sample": [1.0, None, -0.5], "trial": [7, None, 9],
        }
    )  # fmt: skip
    stamps = [START + timedelta(hours=i) for i in range(90 * 24)]
    return windows, pl.DataFrame({"ts": stamps, "equity_usd": np.linspace(1e5, 1.1e5, len(stamps)), "stale": False})


def test_walk_forward_shows_seams_and_both_values_of_each_window():
    figure = walk_forward_figure(*walk(), metric="sharpe")
    above, below = figure.axes
    assert len([line for line in above.lines if line.get_gid() == "seam"]) == 3
    assert [text.get_text() for text in above.texts] == ["1\ntrial 7", "2\ntrial –", "3\ntrial 9"]
    heights = [[bar.get_height() for bar in bars] for bars in below.containers]
    np.testing.assert_array_equal(heights, [[2.0, 3.0, 1.0], [1.0, np.nan, -0.5]])
    assert below.get_ylabel() == "Sharpe"
    said = "3 windows, 1 without a value · mean Sharpe 1.5 in sample, 0.25 out · 1 of 2 above 0 out of sample"
    assert caption_of(figure) == said


def test_walk_forward_takes_lone_windows_without_values():
    windows, equity = walk()
    bare = windows.head(1).with_columns(out_of_sample=pl.lit(None, dtype=pl.Float64))
    walk_forward_figure(bare, equity.head(1), metric="max_drawdown").draw_without_rendering()
    with pytest.raises(ConfigError, match="nothing to draw"):
        walk_forward_figure(windows.clear(), equity, metric="sharpe")


def luck(**options):
    sharpes = np.concatenate([np.linspace(-1.0, 2.0, 300), [-80.0, np.nan]])
    known = {
        "sharpes": sharpes,
        "best": 2.0,
        "expected_max": 1.7,
        "logits": np.array([-1.0, 0.0, 0.5, 2.0]),
        "pbo": 0.5,
    }
    return luck_figure(**known | {"title": "Luck", "caption": ["a line"]} | options)


def test_luck_marks_the_best_against_the_best_of_luck():
    figure = luck()
    left, right = figure.axes
    marks = {line.get_gid(): line.get_xdata()[0] for line in left.lines}
    assert marks == {"best": 2.0, "expected_max": 1.7}
    assert sum(bar.get_height() for bar in left.patches) == 301  # none is lost beyond the edge
    assert "lower ones in the first bar" in left.get_xlabel()
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["best 2.00", "best of luck 1.70"]
    counts = {
        gid: sum(bar.get_height() for bar in right.patches if bar.get_gid() == gid) for gid in ("overfit", "kept")
    }
    assert counts == {"overfit": 2, "kept": 2}
    assert "overfit: PBO 50.0 %" in [text.get_text() for text in right.get_legend().get_texts()]
    assert caption_of(figure) == "a line | 302 trials, 1 without a Sharpe ratio · 4 splits"


def test_luck_without_splits_says_so_and_without_ratios_is_refused():
    figure = luck(logits=np.array([]), pbo=math.nan, sharpes=np.array([2.0]))
    figure.draw_without_rendering()
    assert "no split to draw" in [text.get_text() for text in figure.axes[1].texts]
    with pytest.raises(ConfigError, match="no trial has a Sharpe ratio"):
        luck(sharpes=np.array([np.nan]))


# -- all pictures, and the page ----------------------------------------------------------------------------------------


def every_figure():
    names = ["spot:binance:BTC-USDT + perp:binance:BTC-USDT", "spot:okx:ETH-USDT + perp:okx:ETH-USDT", "short"]
    texts = trials_of({COMBO: names * 2, HOURS: [8.0] * 3 + [240.0] * 3}, total_return=[0.1, -0.2, 0.3, 0.4, 0.5, None])
    rows = [("a long name of an assumption that matters", 0.0, -9e6, -9.5e6), ("fees", 2.0, 1e5, -4e5)]
    frame = pl.DataFrame(rows, schema=["component", "scale", "pnl_usd", "change_usd"], orient="row")
    return {
        "map": heatmap_figure(PLATEAU, x=ENTRY, y=EXIT, metric="sharpe", title="t"),
        "texts": heatmap_figure(texts, x=COMBO, y=HOURS, metric="total_return", title="t"),
        "parallel": parallel_figure(texts, axes=[HOURS, COMBO], metric="total_return", title="t"),
        "early": breakeven_figure(holds(), breakeven_hours=9.0),
        "late": breakeven_figure(holds(), breakeven_hours=230.0),
        "sensitivity": sensitivity_figure(frame),
        "walk": walk_forward_figure(*walk(), metric="sharpe"),
        "luck": luck(),
    }


@pytest.mark.parametrize(("name", "figure"), every_figure().items())
def test_words_stay_on_the_page_and_clear_of_each_other(name, figure):
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.texts]
    for axes in figure.axes:
        legend = axes.get_legend()
        boxes += [legend.get_window_extent()] if legend else []
        boxes += [title.get_window_extent() for title in (axes._left_title, axes.xaxis.label) if title.get_text()]
        if axes.axison:
            labels = [label for label in axes.get_xticklabels() if label.get_text()]
            low, high = axes.get_xlim()
            shown = [label for label in labels if low <= label.get_position()[0] <= high]
            boxes += [label.get_window_extent() for label in shown]
        boxes += [text.get_window_extent() for text in axes.texts if not text.get_clip_on() and name != "parallel"]
    for i, box in enumerate(boxes):
        assert box.x0 >= figure.bbox.x0 - 0.5
        assert box.x1 <= figure.bbox.x1 + 0.5
        assert box.y0 >= figure.bbox.y0 - 0.5
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_the_page_needs_nothing_else_and_is_escaped(tmp_path):
    figure = breakeven_figure(holds(), breakeven_hours=None)
    table = pl.DataFrame(
        {"trial": [12345], "total_return": [0.1], COMBO: ["<script>&"], "sharpe": [None], "seen": [START]},
        schema_overrides={"sharpe": pl.Float64},
    )
    out = tmp_path / "new" / "sweep.html"
    paths = write_sweep_page(
        out, title='<b>"sweep"</b>', facts=[("trials <", "990 &")],
        figures=[("Heat: entry/exit", figure), ("<b>", figure)], tables=[("best <i>", table), ("none", table.clear())],
    )  # fmt: skip
    assert [path.name for path in paths] == ["sweep.html", "sweep_01_heat_entry_exit.png", "sweep_02_b.png"]
    assert sorted(path.name for path in out.parent.iterdir()) == sorted(path.name for path in paths)
    page = out.read_text(encoding="utf-8")
    for banned in ("http://", "https://", "<script", "<link", "url(", "<b>&", '<b>"', "<i>"):
        assert banned not in page
    assert "&lt;b&gt;&quot;sweep&quot;&lt;/b&gt;" in page
    assert "trials &lt;</span><b>990 &amp;</b>" in page
    assert [source[:22] for source in re.findall(r'src="([^"]*)"', page)] == ["data:image/png;base64,"] * 2
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths[1:])
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page)
    assert cells == ["&lt;script&gt;&amp;", "2024-01-01 00:00", "12,345", "10", "–"]
    assert re.findall(r"<th[^>]*>([^<]*)</th>", page) == ["combo", "seen", "trial", "total return, %", "Sharpe"]


def test_a_long_table_is_cut_and_says_so(tmp_path):
    table = pl.DataFrame({"trial": range(1200)})
    (path,) = write_sweep_page(tmp_path / "p.html", title="t", facts=[], figures=[], tables=[("all", table)])
    page = path.read_text()
    assert page.count("<tr>") == 501
    assert "the first 500 of 1,200 rows" in page


def test_a_page_that_cannot_be_written_says_where(tmp_path):
    (tmp_path / "plain").write_text("")
    with pytest.raises(StoreError, match="page of the sweep cannot be written"):
        write_sweep_page(tmp_path / "plain" / "p.html", title="t", facts=[], figures=[], tables=[])


def test_a_chart_that_cannot_be_written_says_where(tmp_path):
    (tmp_path / "plain").write_text("")
    with pytest.raises(StoreError, match="the chart cannot be written") as caught:
        save_chart(breakeven_figure(holds(), breakeven_hours=None), tmp_path / "plain" / "c.png")
    assert caught.value.where == {"file": tmp_path / "plain" / "c.png"}
