"""Signals against values worked out by hand, and the refusal of expressions that look ahead."""

import math
import statistics
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from basis_bt.core.errors import ConfigError, SignalError
from basis_bt.core.instruments import Combo, Leg
from basis_bt.core.models import Data, SignalSpec
from basis_bt.frames.panel import load_panel
from basis_bt.signals import Signal, build_signal, evaluate

START = datetime(2024, 3, 1, tzinfo=UTC)
HOUR_US = 3_600_000_000
N_HOURS = 60
HOURS = (*range(0, 25, 8), *range(28, 60, 4))  # every 8 h until 24 h, every 4 h from there
RATES = [(1 + k % 5) * 1e-5 * (-1) ** (k // 4) for k in range(len(HOURS))]
COMBO = Combo(
    legs=[Leg(instrument="spot:here:BTC-USDT", ratio=1.0), Leg(instrument="perp:here:BTC-USDT", ratio=-0.5)]
)


def stamps(hours):
    return pl.Series([START + timedelta(hours=k) for k in hours], dtype=pl.Datetime("us", "UTC"))


def spot_close(k):
    return 100.0 + 3.0 * math.sin(k)


def perp_close(k):
    return spot_close(k) * (1.0 + 1e-4 * math.cos(2.5 * k))


def write_bars(root, kind, close, *, hours):
    closes = [close(k) for k in hours]
    frame = pl.DataFrame({"ts": stamps(hours), "open": closes, "high": closes, "low": closes, "close": closes})
    path = root / kind / "here" / "BTC-USDT.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.with_columns(volume=pl.Series([5.0 + k % 3 for k in hours])).write_parquet(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A market of 60 hours; the perp has no bars from 30 h to 32 h."""
    root = tmp_path_factory.mktemp("market")
    write_bars(root, "spot", spot_close, hours=range(N_HOURS))
    write_bars(root, "perp", perp_close, hours=[k for k in range(N_HOURS) if k not in (30, 31, 32)])
    path = root / "funding" / "here" / "BTC-USDT.parquet"
    path.parent.mkdir(parents=True)
    pl.DataFrame({"ts": stamps(HOURS), "rate": RATES}).write_parquet(path)
    return root


def panel_for(root, signal, *, first_hour=0, combo=COMBO):
    data = Data(root=str(root), start=START + timedelta(hours=first_hour), end=START + timedelta(hours=N_HOURS))
    return load_panel(
        data, combo, warmup_hours=signal.warmup_hours, funding_windows_hours=signal.funding_windows_hours
    )


def built_in(root, name, *, hours=None, first_hour=0):
    signal = build_signal(SignalSpec(name=name, hours=hours), COMBO, bar_us=HOUR_US)
    return evaluate(signal, panel_for(root, signal, first_hour=first_hour))


def own(root, expression, *, first_hour=0, warmup_hours=0.0):
    signal = Signal(expression=expression, warmup_hours=warmup_hours)
    return evaluate(signal, panel_for(root, signal, first_hour=first_hour))


# ----------------------------------------------------------------------------------------------------------- funding


@pytest.mark.parametrize("hours", [24, 8, 10.5])
def test_funding_apr_is_the_funding_of_the_window_through_a_change_of_interval(root, hours):
    values = built_in(root, "funding_apr", hours=hours)
    assert len(values) == N_HOURS
    for t, value in enumerate(values):
        if t < hours:
            assert math.isnan(value)
            continue
        received = math.fsum(rate for at, rate in zip(HOURS, RATES, strict=True) if t - hours < at <= t)
        assert value == 0.5 * (received * 8760 / hours)


def test_funding_apr_of_one_window_in_numbers(root):
    # at 32 h, 24 h back: the settlements of 16 h, 24 h, 28 h and 32 h, not that of 8 h; the combo is short half a perp
    apr = built_in(root, "funding_apr", hours=24)[32]
    assert apr == pytest.approx(0.5 * (3e-5 + 4e-5 * 1 - 5e-5 - 1e-5) * 365, rel=1e-12)


def test_funding_apr_does_not_depend_on_where_the_run_starts(root):
    late = built_in(root, "funding_apr", hours=24, first_hour=30)
    assert not np.isnan(late).any()
    assert late.tolist() == built_in(root, "funding_apr", hours=24)[30:].tolist()


def test_a_settlement_known_late_counts_when_it_is_known(root, tmp_path):
    for kind, close in (("spot", spot_close), ("perp", perp_close)):
        write_bars(tmp_path, kind, close, hours=range(N_HOURS))
    path = tmp_path / "funding" / "here" / "BTC-USDT.parquet"
    path.parent.mkdir(parents=True)
    known = stamps([hour + (3 if hour == 16 else 0) for hour in HOURS])
    pl.DataFrame({"ts": stamps(HOURS), "rate": RATES, "known_at": known}).write_parquet(path)
    values, prompt = built_in(tmp_path, "funding_apr", hours=8), built_in(root, "funding_apr", hours=8)
    late = [16, 17, 18]
    assert values[late].tolist() == [0.0, 0.0, 0.0]
    assert np.delete(values, late)[8:].tolist() == np.delete(prompt, late)[8:].tolist()


# ------------------------------------------------------------------------------------------------------------- basis


def basis_at(k):
    return None if k in (30, 31, 32) else (perp_close(k) / spot_close(k) - 1.0) * 1e4


def test_basis_is_short_over_long_on_the_closes_before_the_decision(root):
    values = built_in(root, "basis_bps")
    assert math.isnan(values[0])
    for t in range(1, N_HOURS):
        expected = basis_at(t - 1)
        assert math.isnan(values[t]) if expected is None else values[t] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("hours", [5, 2, 4.5])
def test_basis_zscore_is_of_the_rows_of_the_window_that_are_there(root, hours):
    values = built_in(root, "basis_zscore", hours=hours)
    n_rows = math.ceil(hours)
    for t, value in enumerate(values):
        window = [basis_at(k) for k in range(max(t - n_rows, 0), t)]
        there = [basis for basis in window if basis is not None]
        if t < hours or window[-1] is None or len(there) < 2:
            assert math.isnan(value), t
            continue
        expected = (window[-1] - statistics.mean(there)) / statistics.stdev(there)
        assert value == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_basis_zscore_of_a_constant_basis_is_null(tmp_path, root):
    for kind, ratio in (("spot", 1.0), ("perp", 1.01)):
        write_bars(tmp_path, kind, lambda k, ratio=ratio: 100.0 * ratio, hours=range(N_HOURS))
    (tmp_path / "funding" / "here").mkdir(parents=True)
    (tmp_path / "funding" / "here" / "BTC-USDT.parquet").write_bytes(
        (root / "funding" / "here" / "BTC-USDT.parquet").read_bytes()
    )
    assert np.isnan(built_in(tmp_path, "basis_zscore", hours=6)).all()


def test_basis_needs_a_long_and_a_short_leg():
    combo = Combo(legs=[Leg(instrument=leg.instrument, ratio=1.0) for leg in COMBO.legs])
    with pytest.raises(ConfigError, match="basis_bps needs a long and a short leg"):
        build_signal(SignalSpec(name="basis_bps"), combo, bar_us=HOUR_US)


# ------------------------------------------------------------------------------------------- expressions of one's own

CLOSE = pl.col("close_0")
LOOKAHEAD = {
    "shift": CLOSE.shift(-1),
    "difference to the next": CLOSE.diff(-1),
    "mean": CLOSE - CLOSE.mean(),
    "max": CLOSE / CLOSE.max(),
    "last": CLOSE - CLOSE.last(),
    "standard score": (CLOSE - CLOSE.mean()) / CLOSE.std(),
    "rank": CLOSE.rank(),
    "quantile": CLOSE - CLOSE.quantile(0.9),
    "reverse": CLOSE.reverse(),
    "backward fill": pl.col("close_1").fill_null(strategy="backward"),
    "cumulative from the end": pl.col("volume_0").cum_sum(reverse=True),
    "centred window": CLOSE.rolling_mean(5, center=True, min_samples=1),
    "interpolation": pl.col("close_1").interpolate(),
    "funding ahead": pl.col("funding_rate_1").fill_null(0.0).shift(-4),
    "sql": pl.sql_expr("close_0 - max(close_0)"),
}
ALLOWED = {
    "shift": CLOSE / CLOSE.shift(1) - 1.0,
    "rolling mean": CLOSE / CLOSE.rolling_mean(8) - 1.0,
    "exponential mean": CLOSE - CLOSE.ewm_mean(half_life=4),
    "funding": pl.col("funding_rate_1").fill_null(0.0),
    "funding of a day": pl.col("funding_rate_1").fill_null(0.0).rolling_sum(24),
    "forward fill": pl.col("close_1").forward_fill() / CLOSE,
    "cumulative": pl.col("volume_0").cum_sum(),
    "hour of the day": pl.col("ts").dt.hour(),
    "comparison": CLOSE > 100.0,
    "sql": pl.sql_expr("(close_1 / close_0 - 1) * 10000"),
}


@pytest.mark.parametrize("expression", LOOKAHEAD.values(), ids=LOOKAHEAD)
def test_an_expression_that_looks_ahead_is_refused(root, expression):
    with pytest.raises(SignalError, match="uses rows after its own") as caught:
        own(root, expression)
    assert {"ts", "with", "without"} <= caught.value.where.keys()
    assert "shift(n) with n >= 0" in caught.value.fix


@pytest.mark.parametrize("expression", ALLOWED.values(), ids=ALLOWED)
def test_an_expression_of_the_past_is_allowed_and_used_a_row_later(root, expression):
    values = own(root, expression)
    panel = panel_for(root, Signal(expression=expression))
    column = panel.frame.select(value=expression.cast(pl.Float64))["value"].fill_null(float("nan")).to_numpy()
    assert np.array_equal(values, column[panel.n_warmup - 1 : -1], equal_nan=True)
    assert np.isfinite(values).sum() >= N_HOURS // 2


def test_warm_up_gives_the_first_decisions_their_history(root):
    mean = CLOSE.rolling_mean(8)
    assert np.isnan(own(root, mean, first_hour=20)).sum() == 7
    warm = own(root, mean, first_hour=20, warmup_hours=7)
    assert not np.isnan(warm).any()
    assert warm[0] == pytest.approx(statistics.mean(spot_close(k) for k in range(12, 20)))


def test_values_that_are_no_numbers_are_null(root):
    values = own(root, pl.when(CLOSE > 100.0).then(CLOSE / 0.0).otherwise(1.0))
    assert set(values[~np.isnan(values)]) == {1.0}
    assert np.isnan(values).any()


@pytest.mark.parametrize(
    "expression", [pl.col("close_9"), pl.sql_expr("close9 / close_0"), pl.lit("long")], ids=["column", "sql", "text"]
)
def test_an_expression_that_fails_is_refused_with_the_columns_there_are(root, expression):
    with pytest.raises(SignalError, match="the signal cannot be evaluated") as caught:
        own(root, expression)
    for column in ("close_0", "volume_1", "funding_rate_1", "history_hours"):
        assert column in caught.value.where["columns"]


def test_sql_that_is_none_is_refused_before_any_data_is_read():
    spec = SignalSpec(name="sql", sql="close_0 / / 2")
    with pytest.raises(ConfigError, match="signal.sql"):
        build_signal(spec, COMBO, bar_us=HOUR_US)
