"""F34 and the state machine: whatever happens in whatever order, no leg stays alone and nothing is counted twice."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from live_machine import Machine
from live_trials import REQUESTS, soak

CYCLES = 60


def test_anything_may_happen_at_any_moment():
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=10, stateful_step_count=12, deadline=None, derandomize=True, suppress_health_check=HealthCheck,
            database=None,
        ),
    )  # fmt: skip


def test_a_soak_under_random_faults_breaks_nothing(tmp_path):
    found = soak(("binance", "okx"), tmp_path / "journal", cycles=CYCLES, seed=5)
    assert found.failures == [] and found.cycles == CYCLES
    assert found.struck > CYCLES / 2 and found.outcomes["opened"] > CYCLES / 2
    assert found.most_requests <= REQUESTS and found.longest_naked_s <= 12.0


@pytest.mark.parametrize("pair", [("bybit", "bybit"), ("binance", "okx")])
def test_the_same_seed_writes_the_same_journal(pair, tmp_path):
    first, second = (soak(pair, tmp_path / str(number), cycles=8, seed=3) for number in range(2))
    assert first.failures == second.failures == [] and first.struck > 0
    assert first.digest == second.digest
    assert soak(pair, tmp_path / "other", cycles=8, seed=4).digest != first.digest
