"""Statistics of returns: against published examples, other packages, slow definitions, and data with a known answer."""

import itertools
import math
import statistics
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import basis_bt
from basis_bt.core.errors import ConfigError
from basis_bt.core.units import HOURS_PER_YEAR
from basis_bt.statistics import overfitting
from basis_bt.statistics.autocorrelation import annual_factor, autocorrelations, lo_sharpe, newey_west_t
from basis_bt.statistics.bootstrap import bootstrap_interval, index_chunks, optimal_block_length, resample_indices
from basis_bt.statistics.overfitting import cscv
from basis_bt.statistics.reality_check import long_run_variance, reality_check, resampled_maxima, superior_ability
from basis_bt.statistics.sharpe import (
    deflated_sharpe,
    expected_max_sharpe,
    min_track_record_length,
    moments,
    probabilistic_sharpe,
    sharpe,
)
from basis_bt.statistics.walk_windows import windows

RANDOM = settings(max_examples=60, deadline=None, derandomize=True)
NORMAL = {"skewness": 0.0, "kurtosis": 3.0}


def noise(seed, *shape, scale=1.0):
    return np.random.default_rng(seed).standard_normal(shape) * scale


def autoregressive(seed, n, rho, mean=0.0):
    shocks, values = noise(seed, n + 100), np.zeros(n + 100)
    for t in range(1, n + 100):
        values[t] = rho * values[t - 1] + shocks[t]
    return values[100:] + mean


def row_means(rows):
    return rows.mean(axis=1)


# Sharpe ratios


@pytest.mark.parametrize(("n_trials", "dsr"), [(100, 0.9004), (46, 0.9505)])
def test_the_deflated_sharpe_example_of_bailey_and_lopez_de_prado_2014(n_trials, dsr):
    """Annual Sharpe 2.5 over 1,250 days of 250 a year, skewness -3, kurtosis 10, variance of annual ones 1/2."""
    year = 250
    example = {"n": 1250, "skewness": -3.0, "kurtosis": 10.0, "variance": 0.5 / year, "n_trials": n_trials}
    assert deflated_sharpe(2.5 / math.sqrt(year), **example) == pytest.approx(dsr, abs=5e-5)


def test_the_expected_maximum_of_the_same_example():
    assert expected_max_sharpe(0.5 / 250, n_trials=100) == pytest.approx(0.1132, abs=5e-5)


@pytest.mark.parametrize(
    ("bars_per_year", "skewness", "kurtosis", "years"),
    [(252, 0.0, 3.0, 2.73), (52, 0.0, 3.0, 2.83), (12, 0.0, 3.0, 3.24), (12, -0.72, 5.78, 4.99)],
)
def test_the_track_record_examples_of_bailey_and_lopez_de_prado_2012(bars_per_year, skewness, kurtosis, years):
    """An annual Sharpe ratio of 2 to be above 1 with 95 %."""
    root = math.sqrt(bars_per_year)
    bars = min_track_record_length(2 / root, skewness=skewness, kurtosis=kurtosis, benchmark=1 / root)
    assert bars / bars_per_year == pytest.approx(years, abs=5e-3)


@RANDOM
@given(sr=st.floats(0.02, 1.0), skewness=st.floats(-3.0, 3.0), extra=st.floats(0.5, 20.0), sure=st.floats(0.55, 0.999))
def test_the_probability_reaches_the_confidence_at_the_minimum_track_record(sr, skewness, extra, sure):
    shape = {"skewness": skewness, "kurtosis": 1.0 + skewness**2 + extra}
    bars = min_track_record_length(sr, **shape, benchmark=0.01, confidence=sure)
    n = max(2, math.ceil(bars))
    assert probabilistic_sharpe(sr, n=n, **shape, benchmark=0.01) >= sure - 1e-9
    if n - 2 >= 2:
        assert probabilistic_sharpe(sr, n=n - 2, **shape, benchmark=0.01) < sure


def test_the_minimum_track_record_is_that_of_purgedcv():
    theirs = pytest.importorskip("purgedcv").min_track_record_length
    for sr, skewness, kurtosis in ((0.1, 0.0, 3.0), (0.3, -1.5, 9.0), (0.05, 2.0, 12.0)):
        ours = min_track_record_length(sr, skewness=skewness, kurtosis=kurtosis, benchmark=0.02, confidence=0.9)
        assert math.ceil(ours) == theirs(sr, 0.02, 0.1, skewness, kurtosis)


def test_no_record_is_long_enough_for_a_sharpe_ratio_below_its_benchmark():
    assert min_track_record_length(0.1, **NORMAL, benchmark=0.1) == math.inf
    assert min_track_record_length(-0.1, **NORMAL) == math.inf
    assert min_track_record_length(1e-200, **NORMAL) == math.inf


@RANDOM
@given(
    low=st.floats(-1.0, 1.0),
    step=st.floats(1e-6, 1.0),
    skewness=st.floats(-4.0, 0.0),
    extra=st.floats(0.1, 50.0),
    n=st.integers(2, 100_000),
)
def test_the_probability_rises_with_the_sharpe_ratio_and_falls_with_the_benchmark(low, step, skewness, extra, n):
    shape = {"n": n, "skewness": skewness, "kurtosis": 1.0 + skewness**2 + extra}
    here = probabilistic_sharpe(low, **shape)
    assert 0.0 <= here <= 1.0
    assert probabilistic_sharpe(low, **shape, benchmark=step) <= here
    assert (here >= 0.5) if low >= 0.0 else (here <= 0.5)
    # with a positive skewness s it falls again above 2 / s, and with a negative one below 2 / s
    if low >= 2.0 / min(skewness, -1e-9):
        assert probabilistic_sharpe(low + step, **shape) >= here - 1e-12


def test_moments_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = np.exp(noise(1, 500))
    ours = moments(values)
    assert ours.mean == pytest.approx(values.mean(), rel=1e-12)
    assert ours.std == pytest.approx(statistics.stdev(values.tolist()), rel=1e-12)
    assert ours.skewness == pytest.approx(stats.skew(values), rel=1e-10)
    assert ours.kurtosis == pytest.approx(stats.kurtosis(values, fisher=False), rel=1e-10)
    assert sharpe(values) == pytest.approx(ours.mean / ours.std, rel=1e-14)


def test_the_annual_sharpe_ratio_is_that_of_empyrical_with_the_hours_of_a_year():
    empyrical = pytest.importorskip("empyrical")
    hourly = noise(2, 3000, scale=1e-4) + 2e-6
    ours = sharpe(hourly) * math.sqrt(HOURS_PER_YEAR)
    assert empyrical.sharpe_ratio(hourly, annualization=8760) == pytest.approx(ours, rel=1e-10)
    # left at its default of 252 it is smaller by a factor of 5.896
    assert ours / empyrical.sharpe_ratio(hourly) == pytest.approx(math.sqrt(8760 / 252), rel=1e-10)


def test_sharpe_sortino_and_max_drawdown_of_a_run_are_those_of_empyrical(monkeypatch):
    empyrical = pytest.importorskip("empyrical")
    monkeypatch.chdir(Path(__file__).resolve().parents[1])
    result = basis_bt.run("configs/sample_btc_carry.toml")
    fresh = result.equity.filter(~pl.col("stale"))["equity_usd"].to_numpy()
    equity = np.concatenate([[result.manifest["config"]["size"]["capital_usd"]], fresh])
    hourly = equity[1:] / equity[:-1] - 1.0
    metrics = result.metrics.row(0, named=True)
    for name in ("sharpe", "sortino"):
        theirs = getattr(empyrical, f"{name}_ratio")(hourly, annualization=8760)
        assert metrics[name] == pytest.approx(theirs, rel=1e-10)
    assert metrics["max_drawdown"] == pytest.approx(-empyrical.max_drawdown(hourly), rel=1e-9)
    assert metrics["max_drawdown"] > 1e-3 and metrics["sortino"] > metrics["sharpe"]  # there is something to compare


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-5])
def test_returns_that_do_not_move_have_no_sharpe_ratio(value):
    flat = np.full(50, value)
    assert sharpe(flat) is None
    assert moments(flat)[2:] == (None, None)
    assert newey_west_t(flat) is None
    assert lo_sharpe(flat, periods=8760, lags=3).sharpe is None
    assert optimal_block_length(flat) == 1.0


def test_two_values_only_have_no_error_at_one_sharpe_ratio():
    """Skewness s and kurtosis 1 + s^2: the error is 0 at SR = 2 / s."""
    shape = {"n": 100, "skewness": 2.0, "kurtosis": 5.0}
    assert [probabilistic_sharpe(1.0, **shape, benchmark=b) for b in (0.5, 1.0, 1.5)] == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("n_trials", [1, 1.5, 2, 46, 5000, 10**9, 1e15])
def test_the_expected_maximum_holds_for_any_number_of_trials(n_trials):
    here = expected_max_sharpe(1.0, n_trials=n_trials)
    assert math.isfinite(here)
    assert here >= 0.0
    assert expected_max_sharpe(1.0, n_trials=2 * n_trials) > here
    assert expected_max_sharpe(0.0, n_trials=n_trials) == 0.0
    assert expected_max_sharpe(0.04, n_trials=n_trials) == pytest.approx(0.2 * here, rel=1e-12)


@pytest.mark.parametrize(("n_trials", "mean"), [(10, 1.5388), (100, 2.5076), (1000, 3.2414)])
def test_the_expected_maximum_is_within_three_percent_of_the_exact_one(n_trials, mean):
    """Mean of the largest of N normal draws, as tables of order statistics have it."""
    assert expected_max_sharpe(1.0, n_trials=n_trials) == pytest.approx(mean, rel=0.03)


def test_one_trial_is_not_deflated():
    shape = {"n": 500, "skewness": -0.5, "kurtosis": 4.0}
    assert deflated_sharpe(0.1, **shape, variance=0.01, n_trials=1) == probabilistic_sharpe(0.1, **shape)


@pytest.mark.parametrize(
    "call",
    [
        lambda: probabilistic_sharpe(0.1, n=1, **NORMAL),
        lambda: probabilistic_sharpe(math.nan, n=10, **NORMAL),
        lambda: probabilistic_sharpe(0.1, n=10, **NORMAL, benchmark=math.inf),
        lambda: probabilistic_sharpe(0.1, n=10, skewness=0.0, kurtosis=0.0),  # in excess of 3, by mistake
        lambda: expected_max_sharpe(-1.0, n_trials=3),
        lambda: expected_max_sharpe(math.nan, n_trials=3),
        lambda: expected_max_sharpe(1.0, n_trials=0),
        lambda: min_track_record_length(0.1, **NORMAL, confidence=1.0),
        lambda: min_track_record_length(0.1, **NORMAL, confidence=0.4),
        lambda: moments([0.1]),
        lambda: moments([]),
        lambda: moments([[0.1, 0.2]]),
        lambda: moments([0.1, math.nan]),
        lambda: newey_west_t([0.1, 0.2], lags=2),
        lambda: autocorrelations([0.1, 0.2], lags=-1),
        lambda: annual_factor([], periods=0.5),
        lambda: annual_factor([0.1, 0.1], periods=2),
        lambda: optimal_block_length(np.arange(15.0)),
        lambda: index_chunks(0, n_resamples=1, block_length=1.0),
        lambda: index_chunks(1, n_resamples=0, block_length=1.0),
        lambda: index_chunks(1, n_resamples=1, block_length=0.5),
        lambda: index_chunks(1, n_resamples=1, block_length=1.0, seed=-1),
        lambda: bootstrap_interval(noise(0, 30), row_means, confidence=1.0),
        lambda: bootstrap_interval(noise(0, 30), np.mean),
        lambda: bootstrap_interval(noise(0, 30), lambda rows: np.full(len(rows), np.nan)),
        lambda: superior_ability(noise(0, 15, 2)),
        lambda: superior_ability(noise(0, 30, 2), block_length=0),
        lambda: superior_ability(np.full((30, 2), np.inf)),
        lambda: reality_check(noise(0, 30)),
        lambda: cscv(noise(0, 64, 1)),
        lambda: cscv(noise(0, 64, 3), n_blocks=7),
        lambda: cscv(noise(0, 64, 3), n_blocks=22),
        lambda: cscv(noise(0, 64, 3), n_blocks=0),
        lambda: cscv(noise(0, 64, 3), metric="sortino"),
        lambda: cscv(noise(0, 64, 3), n_blocks=8, purge=4),  # all of 8 bars between two out-of-sample blocks
        lambda: cscv(noise(0, 64, 3), purge=-1),
        lambda: cscv(noise(0, 17, 3)),
        lambda: windows(10, train_bars=0, test_bars=1, anchored=True),
        lambda: windows(10, train_bars=5, test_bars=0, anchored=True),
        lambda: windows(10, train_bars=5, test_bars=1, anchored=True, purge_bars=-1),
        lambda: windows(10, train_bars=8, test_bars=1, anchored=True, purge_bars=2),
    ],
)
def test_what_means_nothing_is_refused(call):
    with pytest.raises(ConfigError):
        call()


# autocorrelation


@pytest.mark.parametrize("lags", [0, 1, 7, 40, None])
def test_the_t_statistic_is_that_of_statsmodels(lags):
    linear = pytest.importorskip("statsmodels.api")
    values = autoregressive(3, 600, 0.4, mean=0.1)
    used = 5 if lags is None else lags  # floor(4 * 6^(2/9))
    fit = linear.OLS(values, np.ones(600)).fit(cov_type="HAC", cov_kwds={"maxlags": used, "use_correction": False})
    assert newey_west_t(values, lags=lags) == pytest.approx(float(fit.tvalues[0]), rel=1e-10)


def test_autocorrelations_are_those_of_statsmodels():
    tools = pytest.importorskip("statsmodels.tsa.stattools")
    values = autoregressive(4, 400, -0.3)
    theirs = tools.acf(values, nlags=20, adjusted=False, fft=False)[1:]
    np.testing.assert_allclose(autocorrelations(values, lags=20), theirs, atol=1e-12)


@RANDOM
@given(rho=st.floats(-0.9, 0.95), periods=st.integers(2, 400))
def test_the_annual_factor_of_an_autoregression_has_a_closed_form(rho, periods):
    correlations = rho ** np.arange(1, periods)
    inside = 1.0 + 2.0 * rho / (1.0 - rho) * (1.0 - (1.0 - rho**periods) / (periods * (1.0 - rho)))
    expected = math.sqrt(periods / inside)
    assert annual_factor(correlations, periods=periods) == pytest.approx(expected, rel=1e-9)


def test_without_lags_the_sharpe_ratio_grows_with_the_root_of_time():
    values = noise(5, 1000) + 0.1
    plain = lo_sharpe(values, periods=8760, lags=0)
    assert plain.sharpe == pytest.approx(sharpe(values) * math.sqrt(8760), rel=1e-12)
    assert plain.autocorrelations == ()


def test_the_corrected_sharpe_ratio_is_that_of_sums_over_the_period():
    """Of 1,000 sums of 50 bars each: 0.664 against 0.668 corrected; the root of time says 1.538."""
    values = autoregressive(6, 50_000, 0.7, mean=0.3)
    corrected = lo_sharpe(values, periods=50, lags=20)
    assert corrected.sharpe == pytest.approx(sharpe(values.reshape(-1, 50).sum(axis=1)), rel=0.08)
    assert sharpe(values) * math.sqrt(50) > 2.0 * corrected.sharpe


def test_correlations_that_leave_no_variance_give_no_sharpe_ratio():
    assert annual_factor([-0.6], periods=100) is None
    answer = lo_sharpe([1.0, -0.9] * 20, periods=100, lags=1)
    assert answer.sharpe is None
    assert answer.factor is None


# bootstrap


def test_resamples_are_the_same_however_they_are_cut(monkeypatch):
    whole = resample_indices(37, n_resamples=50, block_length=4.0, seed=7)
    monkeypatch.setattr("basis_bt.statistics.bootstrap.CHUNK_VALUES", 37 * 8)
    chunks = list(index_chunks(37, n_resamples=50, block_length=4.0, seed=7))
    assert [len(chunk) for chunk in chunks] == [8] * 6 + [2]
    assert (np.concatenate(chunks) == whole).all()
    assert not (resample_indices(37, n_resamples=50, block_length=4.0, seed=8) == whole).all()


def test_blocks_are_of_the_mean_length_and_bars_equally_likely():
    index = resample_indices(200, n_resamples=2000, block_length=8.0, seed=1)
    assert index.min() == 0
    assert index.max() == 199
    goes_on = (index[:, 1:] - index[:, :-1]) % 200 == 1
    # a jump lands on the next bar once in 200
    assert goes_on.mean() == pytest.approx(7 / 8 + 1 / 8 / 200, abs=0.002)
    counts = np.bincount(index.ravel()) / 2000
    assert np.abs(counts - 1.0).max() < 0.25
    assert (index == 50).any(axis=1).mean() == pytest.approx(1.0 - math.exp(-1.0), abs=0.03)


def test_blocks_of_one_bar_are_the_plain_bootstrap():
    index = resample_indices(100, n_resamples=2000, block_length=1.0, seed=1)
    assert ((index[:, 1:] - index[:, :-1]) % 100 == 1).mean() == pytest.approx(0.01, abs=0.002)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.3, 0.6, 0.9])
def test_the_optimal_block_length_is_that_of_arch(rho):
    theirs = pytest.importorskip("arch.bootstrap").optimal_block_length
    for seed, n in itertools.product(range(8), (40, 250, 2000)):
        values = autoregressive(seed, n, rho)
        expected = max(1.0, float(theirs(values)["stationary"].iloc[0]))
        assert optimal_block_length(values) == pytest.approx(expected, rel=1e-9), (seed, n)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), n=st.integers(60, 400), rho=st.floats(0.0, 0.7))
def test_the_interval_holds_the_point(seed, n, rho):
    found = bootstrap_interval(autoregressive(seed, n, rho), row_means, n_resamples=300, seed=seed)
    assert found.low < found.point < found.high
    assert found.block_length >= 1.0


def test_the_spread_of_resampled_means_is_the_long_run_variance():
    values = autoregressive(8, 300, 0.6)
    index = resample_indices(300, n_resamples=20_000, block_length=9.0, seed=2)
    expected = long_run_variance(values[:, None], block_length=9.0)[0]
    assert 300 * values[index].mean(axis=1).var() == pytest.approx(expected, rel=0.05)


def test_intervals_of_correlated_returns_cover_the_mean_only_with_blocks():
    """AR(1) with 0.6, 400 bars, 200 draws: nominal 95 % is 90.5 % with blocks and 67 % without."""
    with_blocks, without = 0, 0
    for seed in range(200):
        values = autoregressive(seed, 400, 0.6)
        blocks = bootstrap_interval(values, row_means, n_resamples=300, seed=seed)
        plain = bootstrap_interval(values, row_means, n_resamples=300, block_length=1.0, seed=seed)
        with_blocks += blocks.low <= 0.0 <= blocks.high
        without += plain.low <= 0.0 <= plain.high
    assert with_blocks / 200 == pytest.approx(0.905, abs=0.03)
    assert without / 200 == pytest.approx(0.67, abs=0.05)


# White and Hansen


def slow_variance(values, block_length):
    """The sum over lags, as Hansen (2005) writes it."""
    n, q = len(values), 1.0 - 1.0 / block_length
    around = values - values.mean()
    total = around @ around / n
    for lag in range(1, n):
        kappa = (1.0 - lag / n) * q**lag + lag / n * q ** (n - lag)
        total += 2.0 * kappa * (around[lag:] @ around[:-lag]) / n
    return total


@pytest.mark.parametrize("n", [16, 97, 200, 257])
@pytest.mark.parametrize("block_length", [1.0, 3.5, 20.0])
def test_the_variance_over_frequencies_is_that_over_lags(n, block_length):
    values = np.stack([autoregressive(seed, n, 0.5, mean=2.0) for seed in range(3)], axis=1)
    expected = [slow_variance(column, block_length) for column in values.T]
    np.testing.assert_allclose(long_run_variance(values, block_length=block_length), expected, rtol=1e-10)


def uneven(seed=11, n=400):
    """Nine trials without an edge and 30 times the deviation of the tenth, which has one (t of about 5)."""
    return np.concatenate([noise(seed, n, 9, scale=30.0), noise(seed + 1, n, 1) + 0.25], axis=1)


def test_resampled_maxima_are_those_of_arch_on_the_same_resamples():
    bootstrap = pytest.importorskip("arch.bootstrap")
    excess = noise(12, 150, 6) + np.array([0.15, 0.0, 0.0, -0.1, -0.5, -2.0])
    theirs = bootstrap.SPA(np.zeros(150), -excess, block_size=5, reps=200, studentize=False, seed=3)
    theirs.compute()
    again = bootstrap.StationaryBootstrap(5, excess, seed=3)
    index = np.array([again.index.copy() for _ in again.bootstrap(200)])

    mean = excess.mean(axis=0)
    error = np.sqrt(long_run_variance(excess, block_length=5.0) / 150)
    np.testing.assert_allclose(theirs._loss_diff_var / 150, error**2, rtol=1e-9)
    is_hopeless = mean < -error * math.sqrt(2.0 * math.log(math.log(150)))
    assert is_hopeless.tolist() == [False] * 4 + [True] * 2
    shifts = np.stack([np.minimum(mean, 0.0), np.where(is_hopeless, mean, 0.0), np.zeros(6)])
    ours = resampled_maxima(excess, [index[:70], index[70:]], scale=np.ones(6), shifts=shifts)
    np.testing.assert_allclose(ours, theirs._simulated_vals.max(axis=0), atol=1e-12)
    np.testing.assert_array_equal((ours > mean.max()).mean(axis=0), theirs.pvalues.to_numpy())


def test_p_values_without_studentising_are_those_of_arch():
    """Over 2,000 resamples each: a standard error of at most 1.6 % between them."""
    bootstrap = pytest.importorskip("arch.bootstrap")
    excess = noise(13, 200, 5) + np.array([0.12, 0.05, 0.0, -0.1, -1.0])
    theirs = bootstrap.SPA(np.zeros(200), -excess, block_size=4, reps=2000, studentize=False, seed=4)
    theirs.compute()
    ours = superior_ability(excess, n_resamples=2000, block_length=4.0, studentise=False, seed=5)
    p_values = [ours.p_lower, ours.p_consistent, ours.p_upper]
    np.testing.assert_allclose(p_values, theirs.pvalues.to_numpy(), atol=0.05)
    white = reality_check(excess, n_resamples=2000, block_length=4.0, seed=5)
    assert white.p_value == ours.p_upper
    assert white.statistic == pytest.approx(ours.statistic, rel=1e-12)


def test_arch_8_does_not_studentise_though_told_to_and_this_does():
    """``SPA(studentize=True)`` of arch 8.0.0 keeps the variances for the choice of trials to recentre and never divides
    by them, neither the statistic nor the resamples: its answer is, bit for bit, that of ``studentize=False``."""
    bootstrap = pytest.importorskip("arch.bootstrap")
    excess = uneven()
    p_values = {}
    for told in (True, False):
        test = bootstrap.SPA(np.zeros(400), -excess, block_size=3, reps=500, studentize=told, seed=6)
        test.compute()
        p_values[told] = test.pvalues.to_numpy()
    np.testing.assert_array_equal(p_values[True], p_values[False])
    assert p_values[True].tolist() == pytest.approx([0.424, 0.522, 0.522], abs=0.001)

    ours = superior_ability(excess, n_resamples=500, block_length=3.0, seed=6)
    without = superior_ability(excess, n_resamples=500, block_length=3.0, studentise=False, seed=6)
    assert ours.best == 9
    assert ours.statistic == pytest.approx(5.662, abs=1e-3)
    assert ours.p_upper == 0.0
    assert (without.p_lower, without.p_upper) == (pytest.approx(0.410), pytest.approx(0.524))


def test_the_unit_of_a_trial_does_not_matter():
    excess = noise(14, 120, 4) + 0.1
    units = np.array([1.0, 1000.0, 1e-4, 7.0])
    ours = superior_ability(excess, block_length=3.0, n_resamples=200)
    scaled = superior_ability(excess * units, block_length=3.0, n_resamples=200)
    assert scaled.statistic == pytest.approx(ours.statistic, rel=1e-10)
    assert (scaled.p_lower, scaled.p_consistent, scaled.p_upper) == (ours.p_lower, ours.p_consistent, ours.p_upper)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), n_trials=st.integers(1, 12), mean=st.floats(-0.4, 0.2), copies=st.integers(1, 3))
def test_p_values_are_in_order_and_copies_of_trials_change_nothing(seed, n_trials, mean, copies):
    excess = noise(seed, 80, n_trials) + mean
    ours = superior_ability(excess, n_resamples=100, block_length=3.0, seed=seed)
    assert 0.0 <= ours.p_lower <= ours.p_consistent <= ours.p_upper <= 1.0
    again = superior_ability(np.tile(excess, copies), n_resamples=100, block_length=3.0, seed=seed)
    assert (again.p_lower, again.p_upper) == (ours.p_lower, ours.p_upper)


def test_nothing_above_the_benchmark_is_no_evidence():
    worse = superior_ability(noise(15, 100, 5, scale=0.1) - 1.0, n_resamples=100)
    assert (worse.statistic, worse.p_lower, worse.p_consistent, worse.p_upper) == (0.0, 1.0, 1.0, 1.0)
    idle = superior_ability(np.zeros((100, 3)), n_resamples=100)
    assert (idle.statistic, idle.p_consistent, idle.n_flat) == (0.0, 1.0, 3)
    assert reality_check(np.zeros((100, 3)), n_resamples=100).p_value == 1.0


def test_the_consistent_p_value_is_not_moved_by_hopeless_trials():
    """One trial with a t of about 2 beside 60 far below the benchmark."""
    good = noise(17, 200, 1)
    good += 0.14 - good.mean()
    crowded = np.concatenate([good, noise(18, 200, 60) - 1.0], axis=1)
    alone = superior_ability(good, n_resamples=500, block_length=2.0)
    among = superior_ability(crowded, n_resamples=500, block_length=2.0)
    assert among.p_lower == among.p_consistent == alone.p_consistent < 0.05
    assert among.p_upper > 0.5


def test_a_trial_that_never_trades_is_left_out():
    excess = noise(16, 100, 3) + 0.2
    with_idle = np.concatenate([np.zeros((100, 1)), excess], axis=1)
    ours = superior_ability(excess, n_resamples=200, block_length=2.0)
    other = superior_ability(with_idle, n_resamples=200, block_length=2.0)
    assert (other.best, other.n_flat, other.p_upper) == (ours.best + 1, 1, ours.p_upper)
    lost = superior_ability(np.concatenate([np.zeros((100, 1)), noise(16, 100, 1) - 5.0], axis=1), n_resamples=50)
    assert (lost.best, lost.statistic) == (1, 0.0)


def test_the_tests_reject_the_null_as_often_as_they_say():
    """10 correlated trials without an edge, 200 bars, 500 draws: at 5 %, with a standard error of 1 %."""
    spa, white = 0, 0
    for seed in range(500):
        excess = noise(seed + 50_000, 200, 10) + noise(seed + 60_000, 200, 1)
        spa += superior_ability(excess, n_resamples=200, block_length=2.0, seed=seed).p_consistent < 0.05
        white += reality_check(excess, n_resamples=200, block_length=2.0, seed=seed).p_value < 0.05
    assert spa / 500 == pytest.approx(0.050, abs=0.004)
    assert white / 500 == pytest.approx(0.044, abs=0.004)


# overfitting


def slow_sharpe(values):
    return statistics.mean(values) / statistics.stdev(values) if len(set(values)) > 1 else 0.0


def slow_cscv(returns, n_blocks, purge, metric):
    """Bar by bar: logit, performance in and out of sample of each combination."""
    n_bars, n_trials = returns.shape
    block_of = [block for block, part in enumerate(np.array_split(np.arange(n_bars), n_blocks)) for _ in part]
    rows = []
    for inside in itertools.combinations(range(n_blocks), n_blocks // 2):
        out = [t for t in range(n_bars) if block_of[t] not in inside]
        near = {t + k for t in out for k in range(-purge, purge + 1)}
        kept = [t for t in range(n_bars) if t not in near]
        first, second = (
            [metric([float(returns[t, trial]) for t in bars]) for trial in range(n_trials)] for bars in (kept, out)
        )
        best = max(range(n_trials), key=lambda trial: (first[trial], -trial))
        below = sum(value < second[best] for value in second)
        equal = sum(value == second[best] for value in second)
        share = (below + (equal + 1) / 2) / (n_trials + 1)
        rows.append((math.log(share / (1 - share)), first[best], second[best]))
    return np.array(rows).T


@pytest.mark.parametrize(("metric", "slow"), [("sharpe", slow_sharpe), ("mean", statistics.mean)])
@pytest.mark.parametrize(("n_bars", "n_blocks", "purge"), [(47, 6, 0), (47, 6, 1), (50, 6, 3), (33, 4, 3), (23, 2, 5)])
def test_cscv_is_its_slow_definition(metric, slow, n_bars, n_blocks, purge):
    returns = noise(n_bars, n_bars, 7, scale=1e-3)
    logits, first, second = slow_cscv(returns, n_blocks, purge, slow)
    ours = cscv(returns, n_blocks=n_blocks, purge=purge, metric=metric)
    np.testing.assert_allclose(ours.logits, logits, atol=1e-12)
    np.testing.assert_allclose(ours.performance_in, first, rtol=1e-9)
    np.testing.assert_allclose(ours.performance_out, second, rtol=1e-9, atol=1e-14)
    assert ours.pbo == np.mean(logits < 0) + 0.5 * np.mean(logits == 0)
    assert ours.loss_probability == np.mean(second < 0)
    assert ours.n_combinations == math.comb(n_blocks, n_blocks // 2)
    assert ours.slope == pytest.approx(np.polyfit(first, second, 1)[0], rel=1e-6)


@pytest.mark.parametrize(("seed", "n_bars", "n_trials", "n_blocks"), [(0, 240, 10, 8), (1, 101, 6, 6), (2, 60, 24, 4)])
def test_pbo_is_that_of_purgedcv(seed, n_bars, n_trials, n_blocks):
    package = pytest.importorskip("purgedcv")
    returns = noise(seed, n_bars, n_trials, scale=1e-3)
    theirs = package.probability_of_backtest_overfitting(returns.T, n_splits=n_blocks)
    ours = cscv(returns, n_blocks=n_blocks)
    assert ours.pbo == theirs.pbo
    assert ours.slope == pytest.approx(theirs.slope, rel=1e-8)
    # theirs lists the out-of-sample halves in order, ours the in-sample ones: each is the other's complement
    np.testing.assert_allclose(ours.logits, theirs.logits[::-1], atol=1e-12)


def test_combinations_do_not_depend_on_the_batch(monkeypatch):
    returns = noise(3, 80, 5)
    whole = cscv(returns, n_blocks=8, purge=1)
    monkeypatch.setattr(overfitting, "BATCH_VALUES", 5 * 9)
    pieces = cscv(returns, n_blocks=8, purge=1)
    np.testing.assert_allclose(pieces.logits, whole.logits, atol=1e-12)
    assert (pieces.chosen == whole.chosen).all()


def test_equal_trials_share_their_ranks():
    one = noise(4, 64, 1)
    same = cscv(np.tile(one, 5), n_blocks=4)
    assert (same.logits == 0.0).all()
    assert same.pbo == 0.5
    assert (same.chosen == 0).all()
    idle = cscv(np.zeros((64, 4)), n_blocks=4)
    assert (idle.pbo, idle.slope, idle.loss_probability) == (0.5, None, 0.0)


def test_purgedcv_finds_equal_trials_not_overfitted_at_all():
    package = pytest.importorskip("purgedcv")
    assert package.probability_of_backtest_overfitting(np.tile(noise(4, 64), (5, 1)), n_splits=4).pbo == 0.0


def test_trials_that_are_all_good_and_alike_have_a_pbo_near_one_half():
    """A common mean of 0.3 deviations, and 1 % of noise of their own; average of 20 seeds."""
    pbo = [
        cscv(noise(seed, 400, 1) + 0.3 + noise(seed + 1000, 400, 20, scale=0.01), n_blocks=8).pbo for seed in range(20)
    ]
    assert 0.4 <= np.mean(pbo) <= 0.6


def test_a_trial_that_does_not_move_in_a_half_has_a_sharpe_ratio_of_0_there():
    returns = np.zeros((40, 2))
    returns[:20, 0] = noise(5, 20) + 5.0
    found = cscv(returns, n_blocks=2)
    # in sample first half: trial 0 wins, and does nothing afterwards; second half: both are idle, trial 0 by order
    assert found.performance_out.tolist() == [0.0, pytest.approx(slow_sharpe(returns[:20, 0].tolist()))]
    assert found.logits.tolist() == [0.0, pytest.approx(math.log(2.0))]


def test_a_purge_takes_away_what_leaks_over_the_border():
    """A moving sum of noise over 10 bars, 40 trials: neighbouring bars share 9 shocks."""
    shocks = noise(6, 810, 40)
    total = np.cumsum(shocks, axis=0)
    returns = total[10:] - total[:-10]
    loose, purged = (cscv(returns, n_blocks=16, purge=purge) for purge in (0, 10))
    assert loose.n_combinations == purged.n_combinations == 12_870
    assert purged.performance_in.mean() > loose.performance_in.mean()  # fewer bars, so a luckier best
    assert not np.allclose(purged.logits, loose.logits)


# noise and edges, planted


def selected(returns):
    """Deflated Sharpe ratio of the best trial."""
    ratios = np.array([sharpe(column) for column in returns.T])
    best = returns[:, ratios.argmax()]
    _, _, skewness, kurtosis = moments(best)
    variance = float(ratios.var(ddof=1))
    shape = {"n": len(best), "skewness": skewness, "kurtosis": kurtosis}
    return probabilistic_sharpe(ratios.max(), **shape), deflated_sharpe(
        ratios.max(), **shape, variance=variance, n_trials=len(ratios)
    )


def test_the_best_of_noise_is_not_significant():
    """50 trials, 400 bars, 20 seeds. Undeflated the best is 98.5 % sure, deflated 57 % and at most 89 %; PBO is 0.47.

    That is the average: one data set gives anything from 0.19 to 0.76.
    """
    pbo, slope, undeflated, deflated = [], [], [], []
    for seed in range(20):
        returns = noise(seed, 400, 50, scale=1e-3)
        found = cscv(returns, n_blocks=8)
        pbo.append(found.pbo)
        slope.append(found.slope)
        plain, fair = selected(returns)
        undeflated.append(plain)
        deflated.append(fair)
    assert np.mean(pbo) == pytest.approx(0.473, abs=5e-4)
    assert (min(pbo), max(pbo)) == (pytest.approx(0.186, abs=5e-4), pytest.approx(0.757, abs=5e-4))
    assert np.mean(slope) == pytest.approx(-0.315, abs=5e-4)
    assert np.mean(undeflated) == pytest.approx(0.985, abs=5e-4)
    assert np.mean(deflated) == pytest.approx(0.571, abs=5e-4)
    assert max(deflated) == pytest.approx(0.886, abs=5e-4)
    assert superior_ability(noise(0, 400, 50), n_resamples=300).p_consistent > 0.05


@pytest.mark.parametrize("seed", range(4))
def test_an_edge_among_noise_is_found(seed):
    """One of 50 trials has a mean of 0.3 deviations: t of 6 over 400 bars."""
    returns = noise(seed, 400, 50, scale=1e-3)
    returns[:, 17] += 0.3e-3
    found = cscv(returns, n_blocks=8, purge=2)
    assert found.pbo <= 0.015
    assert found.loss_probability <= 0.015
    assert (found.chosen == 17).mean() > 0.9
    assert selected(returns)[1] > 0.95
    spa = superior_ability(returns, n_resamples=500, seed=seed)
    assert spa.best == 17
    assert spa.p_consistent < 0.05
    assert reality_check(returns, n_resamples=500, seed=seed).p_value < 0.05


# windows


@RANDOM
@given(
    n_bars=st.integers(1, 300),
    train_bars=st.integers(1, 100),
    test_bars=st.integers(1, 100),
    purge_bars=st.integers(0, 30),
    anchored=st.booleans(),
)
def test_windows_tile_the_bars_and_never_train_on_their_test(n_bars, train_bars, test_bars, purge_bars, anchored):
    sizes = {"train_bars": train_bars, "test_bars": test_bars, "purge_bars": purge_bars, "anchored": anchored}
    if train_bars + purge_bars >= n_bars:
        with pytest.raises(ConfigError, match="no bar is left for a test"):
            windows(n_bars, **sizes)
        return
    found = windows(n_bars, **sizes)
    assert found[0].test_from == train_bars + purge_bars
    assert found[-1].test_to == n_bars
    for before, after in itertools.pairwise(found):
        assert before.test_to == after.test_from
    for window in found:
        assert window.test_from - window.train_to == purge_bars
        assert 1 <= window.test_to - window.test_from <= test_bars
        assert window.train_from == (0 if anchored else window.train_to - train_bars)
        assert window.train_to - window.train_from >= train_bars
    assert all(window.test_to - window.test_from == test_bars for window in found[:-1])
