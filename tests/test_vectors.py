"""Worked numbers from outside this code: SPEC 4 and reference/formulas.md and costs.md."""

import numpy as np
import pytest

from basis_bt.kernels.costs import bucket_bps, cost_usd, fee_usd, fill_price, impact_bps
from basis_bt.kernels.funding import funding_usd
from basis_bt.kernels.metrics import drawdowns, return_moments, returns_into
from basis_bt.kernels.sizing import floor_to_lot

EDGES, TABLE = np.array([1e4, 1e5, 1e6]), np.array([3.0, 4.0, 8.0])


def test_golden_purchase():
    """SPEC 4: buy 15.2 ETH at 3305.20 with 7 bps all-in."""
    price = fill_price(3305.20, 1.0, 7.0)
    assert cost_usd(15.2, 3305.20, 1e4) == pytest.approx(50_239.04, abs=1e-9)
    assert cost_usd(15.2, 3305.20, 7.0) == pytest.approx(35.167328, abs=1e-9)
    assert -15.2 * price == pytest.approx(-50_274.207328, abs=1e-9)


def test_cost_is_adverse_for_both_sides_and_symmetric():
    assert fill_price(100.0, 1.0, 10.0) - 100.0 == pytest.approx(100.0 - fill_price(100.0, -1.0, 10.0), abs=1e-12)
    assert fill_price(100.0, 1.0, 10.0) > 100.0


@pytest.mark.parametrize(
    ("notional_usd", "bps"),
    [(31_622.776601683792, 3.5), (50_000.0, 3.69897000433602), (1e7, 8.0), (1.0, 3.0), (1e4, 3.0), (1e5, 4.0)],
)
def test_bucket_interpolation(notional_usd, bps):
    """costs.md 5: linear in the log of the notional, flat outside."""
    assert bucket_bps(notional_usd, EDGES, TABLE) == pytest.approx(bps, abs=1e-11)


def test_no_table_costs_nothing_and_zero_size_has_no_impact():
    assert bucket_bps(1e5, np.empty(0), np.empty(0)) == 0.0
    assert impact_bps(0.0, 10.0, 5.0, 0.5) == 0.0


def test_square_root_impact():
    """costs.md 9: BTC perp, 1 m USD: 230 * sqrt(1e6 / 16.7e9) = 1.7798 bps."""
    assert impact_bps(1e6, 16.7e9, 230.0, 0.5) == pytest.approx(1.7798, abs=5e-5)


@pytest.mark.parametrize(("position", "rate", "cash"), [(-2.0, 1e-4, 12.0), (2.0, 1e-4, -12.0), (-2.0, -1e-4, -12.0)])
def test_funding_of_a_linear_perp(position, rate, cash):
    """formulas.md 4.1: short 2 BTC, mark 60,000, rate +0.0001 receives 12 USDT; signs flip with either."""
    assert funding_usd(position, 60_000.0, rate) == pytest.approx(cash, abs=1e-12)


def test_fee_and_rebate():
    """venues.md 3: 0.01 BTC at 50,000 and 5 bps pay 0.25; a maker rebate is a negative fee."""
    assert fee_usd(0.01, 50_000.0, 5.0) == pytest.approx(0.25, abs=1e-12)
    assert fee_usd(0.01, 50_000.0, -1.0) == pytest.approx(-0.05, abs=1e-12)


@pytest.mark.parametrize(
    ("quantity", "lot", "floored"),
    [(0.0019, 0.001, 0.001), (1.999, 0.01, 1.99), (5.03, 0.01, 5.03), (0.0009, 0.001, 0.0), (7.7, 0.0, 7.7)],
)
def test_lots_are_floored_after_rounding_the_quotient(quantity, lot, floored):
    """venues.md 4 and reliability.md 1: 0.0503 / 0.01 must not become 5.02."""
    assert floor_to_lot(quantity, lot) == pytest.approx(floored, abs=1e-12)


def test_metrics_of_four_rows_by_hand():
    """Returns 10 %, -10 %, 0 (a stale row left out), 10 % on 100: mean 1/30, deviation by hand, drawdown 10 %."""
    equity = np.array([110.0, 99.0, 50.0, 108.9])
    stale = np.array([False, False, True, False])
    moved = np.empty(4)
    n_moved, n = returns_into(equity, stale, 100.0, moved)
    mean, deviation, downside = return_moments(moved[:n_moved], n)
    assert mean == pytest.approx(0.1 / 3, abs=1e-15)
    assert deviation == pytest.approx(0.11547005383792515, abs=1e-12)
    assert downside == pytest.approx((0.01 / 3) ** 0.5, abs=1e-12)
    deepest, bars = drawdowns(equity, stale, 100.0)
    assert deepest == pytest.approx(0.1, abs=1e-12)
    assert bars == 3
