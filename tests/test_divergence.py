"""Divergence: every dollar between reality and its model has a cause, and the causes add up trade by trade."""

from pathlib import Path

import polars as pl
import pytest

import basis_bt
from basis_bt.core.config import apply_settings, read_toml
from basis_bt.core.errors import ConfigError, StoreError
from basis_bt.live.divergence import COLUMNS, divergence, totals, turnover_usd
from basis_bt.live.divergence_page import divergence_figure, divergence_text
from basis_bt.live.export import export_run
from basis_bt.live.journal import Journal
from basis_bt.live.replay import replay
from basis_bt.reports.charts import chart_png
from basis_bt.store import load_run

ROOT = Path(__file__).resolve().parents[1]
REALITIES = {
    "dearer": {"costs.half_spread_bps": "3.0", "costs.taker_fee_bps": "{ spot = 12.0, perp = 6.0 }",
               "costs.impact_coef_bps": "20.0"},
    "slower": {"fills.latency": '"3h"'},
    "smaller": {"size.allocation": "0.5"},
    "pickier": {"rule.entry": "0.2"},
    "clumsier": {"fills.model": '"bernoulli"', "fills.fill_probability": "0.5", "fills.rollback_penalty_bps": "3.0"},
    "bolder": {"rule.entry": "0.07", "rule.exit": "0.05", "costs.half_spread_bps": "0.1"},
}  # fmt: skip


def sample(settings=None, **sections):
    raw = read_toml(ROOT / "configs" / "sample_btc_carry.toml")
    raw["data"] |= {"root": str(ROOT / "data" / "sample"), "end": "2024-07-01T00:00:00Z"}
    raw["rule"] |= {"entry": 0.1, "exit": 0.06}
    return apply_settings({**raw, **sections}, settings or {})


@pytest.fixture(scope="module")
def model():
    return basis_bt.run(sample())


@pytest.fixture(scope="module")
def realities():
    return {name: basis_bt.run(sample(settings)) for name, settings in REALITIES.items()}


@pytest.mark.parametrize("name", REALITIES)
def test_the_causes_of_each_trade_add_up_to_its_difference(model, realities, name):
    reality = realities[name]
    frame = divergence(reality, model)
    tolerance = 1e-9 * turnover_usd(reality, model)
    assert frame["residual_usd"].abs().max() <= tolerance
    sums = frame.select(total=pl.sum_horizontal(*COLUMNS), difference="difference_usd")
    assert (sums["total"] - sums["difference"]).abs().max() <= tolerance
    whole = reality.metrics["pnl_usd"][0] - model.metrics["pnl_usd"][0]
    assert sum(usd for _, usd in totals(frame)) == pytest.approx(whole, abs=tolerance)
    assert frame["trade"].drop_nulls().sort().to_list() == reality.trades["trade"].to_list()
    assert frame["model_trade"].drop_nulls().sort().to_list() == model.trades["trade"].to_list()


def biggest(frame):
    return max(totals(frame), key=lambda cause: abs(cause[1]))[0]


def test_a_run_does_not_differ_from_itself(model):
    frame = divergence(model, model)
    assert set(frame["kind"]) == {"matched", "outside"} and frame["reason"].null_count() == frame.height
    assert all(abs(usd) < 1e-6 for _, usd in totals(frame))
    assert "no trade differs by a cent" in divergence_text(frame)


def test_dearer_fills_are_spread_impact_and_fees_and_nothing_else(model, realities):
    reality = realities["dearer"]
    causes = dict(totals(divergence(reality, model).filter(pl.col("kind") == "matched").head(1)))
    first, theirs = reality.fills.filter(pl.col("trade") == 1), model.fills.filter(pl.col("trade") == 1)
    scale = reality.trades["quantity_base"][0] / model.trades["quantity_base"][0]
    for cause, column in (("spread", "spread_usd"), ("impact", "impact_usd"), ("fees", "fee_usd")):
        assert causes[cause] == pytest.approx(scale * theirs[column].sum() - first[column].sum(), abs=1e-6)
        assert causes[cause] < 0.0
    assert all(abs(causes[name]) < 1e-6 for name in ("timing", "price", "funding", "rollback", "missed"))


def test_what_differs_is_named_for_what_it_is(model, realities):
    frames = {name: divergence(reality, model) for name, reality in realities.items()}
    slow = frames["slower"].filter(pl.col("kind") == "matched")
    assert (slow["timing_usd"] != 0.0).all() and slow["reason"].str.contains("entry 3 h later").all()
    assert biggest(frames["smaller"]) == "size"
    small = frames["smaller"].filter(pl.col("kind") == "matched")
    per_unit = [abs(usd) for name, usd in totals(small) if name not in ("size", "missed")]
    assert max(per_unit) < 1e-3 * abs(small["size_usd"].sum()), "half the size pays half the fees, which is no cause"
    missed = frames["pickier"].filter(pl.col("kind") == "missed")
    assert missed.height > 0 and set(missed["reason"]) == {"reality did not decide to enter"}
    assert missed["missed_usd"].to_list() == [-usd for usd in missed["model_pnl_usd"]]
    clumsy = frames["clumsier"]
    assert clumsy.filter(pl.col("kind") == "outside")["rollback_usd"][0] < 0.0
    late = clumsy.filter(pl.col("kind") == "matched", pl.col("entry_ts") > pl.col("model_entry_ts"))["reason"]
    assert len(late) > 0 and late.str.contains("; (rollback|unfilled): partial").all()
    assert "extra" in frames["bolder"]["kind"].to_list()


def test_a_missed_trade_has_the_reason_of_its_refusal(model):
    reality = basis_bt.run(sample({"fills.max_cost_bps": "0.1"}))
    frame = divergence(reality, model).filter(pl.col("kind") == "missed")
    assert frame.height == model.trades.height
    assert set(frame["reason"]) == {"refused: cost"}
    assert set(divergence(model, reality)["kind"]) == {"extra", "outside"}


def test_a_journal_its_exported_folder_and_its_result_diverge_alike(tmp_path):
    with Journal(tmp_path / "j", durable=False) as journal:
        short = {"data.end": "2024-02-01T00:00:00Z"}
        model = basis_bt.run(sample(short))
        result = replay(sample({"costs.half_spread_bps": "2.0", **short}), journal=journal)
        of_journal = divergence(journal, model)
        folder = export_run(journal, root=tmp_path / "runs", name="live")
        assert turnover_usd(journal, model) == turnover_usd(result, model)
    assert of_journal.equals(divergence(load_run(folder), model)) and of_journal.equals(divergence(result, model))
    tolerance = 1e-9 * turnover_usd(result, model)
    assert of_journal["residual_usd"].abs().max() <= tolerance
    causes = dict(totals(of_journal.filter(pl.col("kind") == "matched")))
    assert causes["spread"] < 0.0 and abs(causes["funding"]) < tolerance


def test_sides_that_share_no_bar_and_empty_journals_are_refused(model):
    later = apply_settings(sample(), {"data.start": "2024-08-01T00:00:00Z", "data.end": "2024-09-01T00:00:00Z"})
    with pytest.raises(ConfigError, match="no bar in common"):
        divergence(basis_bt.run(later), model)
    with Journal(None) as journal, pytest.raises(StoreError, match="no session"):
        divergence(journal, model)


@pytest.mark.parametrize("name", REALITIES)
def test_the_page_says_the_totals_and_fits_a_terminal(model, realities, name):
    frame = divergence(realities[name], model)
    text = divergence_text(frame, title=name)
    assert max(map(len, text.splitlines())) <= 100
    assert f"{frame['pnl_usd'].sum():,.2f}" in text and "not explained" in text
    figure = divergence_figure(frame, title=name)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0] == "model" and labels[-1] == "reality"
    if name == "dearer":
        assert chart_png(figure).startswith(b"\x89PNG") and "fees" in labels
