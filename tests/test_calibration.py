"""Calibration: the intervals hold the truth as often as they say, and what was measured is what a backtest charges."""

import math
import shutil
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import basis_bt
from basis_bt.core.calibration_file import Calibrated, read_calibration
from basis_bt.core.config import apply_settings, build_config, config_dict, config_hash, load_config, read_toml
from basis_bt.core.errors import ConfigError, StoreError
from basis_bt.core.models import Costs
from basis_bt.core.units import US_PER_DAY, from_us
from basis_bt.live.calibration import calibrate
from basis_bt.live.event_types import MISSING, ORDER_DONE, ORDER_REFUSED, SESSION_START
from basis_bt.live.intervals import mean_interval, percentile_interval, share_interval, student_over_normal
from basis_bt.live.journal import Journal
from basis_bt.live.orders import LegOrder, LegResult, VenueTrade

ROOT = Path(__file__).resolve().parents[1]
SPOT, PERP = "spot:binance:BTC-USDT", "perp:binance:BTC-USDT"
START_US = 1_709_856_000_000_000  # 2024-03-08
N_SEEDS = 200
#: of 200 intervals at 95 %, 190 +- 3.1 hold the truth: fewer than 179 (3.6 standard deviations) has a chance of 1 in
#: 2,000, and 200 of 200 one of 1 in 28,000, so an interval that is too short or far too long fails
LEAST, MOST = 179, 199
TRUTH = {
    "taker_fee_bps": 4.6, "half_spread_bps": 0.8, "impact_coef_bps": 30.0, "impact_exponent": 0.6,
    "delay_bps": 0.3, "slippage_p50_bps": None, "fill_probability": 0.7, "latency_p50_s": 0.2, "maker_fee_bps": 1.5,
}  # fmt: skip


def record(journal, number, instrument=PERP, *, side=1, quantity=1.0, filled=None, arrival=100.0, reference=100.0,
           price=100.0, fee=0.05, half_spread_bps=0.5, latency_s=0.2, volume=None, limit=False, maker=False,
           fee_asset="USDT", at_us=None, purpose="entry", result=True, fee_usd=None):  # fmt: skip
    """One order with its fill, end and result, as the engine writes them."""
    name, filled = f"o{number}", quantity if filled is None else filled
    at_us = START_US + number * 60_000_000 if at_us is None else at_us
    done_us = at_us + round(latency_s * 1e6)
    order = LegOrder(
        intent=f"{number}-entry", client_order_id=name, instrument=instrument, leg=0, side=side,
        quantity_base=quantity, kind="limit" if limit else "market", limit_price=price if limit else None,
        post_only=limit, arrival_price=arrival, reference_price=reference, half_spread_bps=half_spread_bps,
        decided_us=at_us, sent_us=at_us, purpose=purpose,
    )  # fmt: skip
    journal.order_intent(order)
    if filled:
        trade = VenueTrade(trade_id=f"t{number}", venue_order_id=f"v{number}", instrument=instrument, side=side,
                           quantity_base=filled, price=price, fee=fee, fee_asset=fee_asset, is_maker=maker,
                           ts_us=done_us)  # fmt: skip
        journal.fill(trade, client_order_id=name, intent=order.intent)
    journal.append(ORDER_DONE, ts_us=done_us, client_order_id=name, venue=order.venue, instrument=instrument,
                   filled_base=filled, status="closed")  # fmt: skip
    if not result:
        return
    told = LegResult(
        success=filled == quantity, event="filled", venue=order.venue, instrument=instrument, leg=0, side=side,
        client_order_id=name, venue_order_id=f"v{number}", purpose=purpose, requested_base=quantity,
        filled_base=filled, position_change_base=side * filled, arrival_price=arrival, reference_price=reference,
        fill_price=price if filled else None, notional_usd=filled * price, delay_usd=0.0, spread_usd=0.0,
        bucket_usd=0.0, impact_usd=0.0, fee_usd=fee if fee_usd is None else fee_usd, fees={fee_asset: fee},
        cash_change={}, is_maker=maker, decided_us=at_us, sent_us=at_us, done_us=done_us,
    )  # fmt: skip
    journal.leg_result(told, intent=order.intent, **({} if volume is None else {"volume_base": volume}))


def trade_a_while(journal, seed, *, n_market=20, n_limit=12, instrument=PERP):
    """Market and resting orders of a market with the parameters of TRUTH; errors are skewed and heavy-tailed."""
    draw = np.random.default_rng(seed)
    for number in range(n_market):
        side = int(draw.choice((1, -1)))
        arrival = 50_000.0 * (1.0 + 0.01 * draw.normal())
        reference = arrival * (1.0 + side * (TRUTH["delay_bps"] + 1.5 * draw.normal()) / 1e4)
        quantity, volume = float(draw.lognormal(0.0, 1.0)), float(draw.uniform(80.0, 120.0))
        half_spread = TRUTH["half_spread_bps"] * draw.lognormal(-0.125, 0.5)
        impact = TRUTH["impact_coef_bps"] * (quantity / volume) ** TRUTH["impact_exponent"]
        price = reference * (1.0 + side * (half_spread + impact + 0.15 * draw.standard_t(4)) / 1e4)
        fee_bps = TRUTH["taker_fee_bps"] + draw.choice((-0.4, 0.4))  # with and without a discount
        record(journal, number, instrument, side=side, quantity=quantity, arrival=arrival, reference=reference,
               price=price, fee=quantity * price * fee_bps / 1e4, half_spread_bps=half_spread, volume=volume,
               latency_s=TRUTH["latency_p50_s"] * draw.lognormal(0.0, 0.6))  # fmt: skip
    for number in range(n_market, n_market + n_limit):
        chance = draw.random()
        filled = 1.0 if chance < TRUTH["fill_probability"] else 0.4 if chance < 0.85 else 0.0
        fee = filled * 100.0 * TRUTH["maker_fee_bps"] / 1e4
        record(journal, number, instrument, limit=True, maker=True, filled=filled, fee=fee, half_spread_bps=0.0,
               result=False)  # fmt: skip


@pytest.fixture(scope="module")
def seeds():
    """The estimates of each seed, by name."""
    found = []
    for seed in range(N_SEEDS):
        with Journal(None, durable=False) as journal, journal.together():
            trade_a_while(journal, seed)
            rows = calibrate([journal], n_resamples=300).frame
        found.append({row["estimate"]: row for row in rows.iter_rows(named=True)})
    return found


def n_holding(seeds, estimate, truth):
    return sum(row[estimate]["low"] - 1e-9 <= truth <= row[estimate]["high"] + 1e-9 for row in seeds)


@pytest.mark.parametrize("estimate", ["taker_fee_bps", "half_spread_bps", "delay_bps", "impact_exponent",
                                      "impact_coef_bps"])  # fmt: skip
def test_the_truth_lies_inside_the_stated_interval_as_often_as_stated(seeds, estimate):
    assert LEAST <= n_holding(seeds, estimate, TRUTH[estimate]) <= MOST


@pytest.mark.parametrize("estimate", ["fill_probability", "latency_p50_s", "latency_p75_s"])
def test_intervals_of_counts_hold_the_truth_at_least_as_often_as_stated(seeds, estimate):
    """Ranks and counts are whole numbers, so these hold it a little more often than stated."""
    beyond = TRUTH["latency_p50_s"] * math.exp(0.6 * 0.6744897501960817)
    truth = beyond if estimate == "latency_p75_s" else TRUTH[estimate]
    assert n_holding(seeds, estimate, truth) >= LEAST


def test_intervals_are_those_of_the_textbook():
    assert student_over_normal(9, confidence=0.95) * 1.959964 == pytest.approx(2.262157, abs=5e-4)
    wilson = share_interval(8, 10, confidence=0.95)  # Agresti & Coull (1998): 0.49 to 0.943
    assert (wilson.low, wilson.high) == (pytest.approx(0.4901625), pytest.approx(0.9433178))
    median = percentile_interval(np.arange(1.0, 11.0), 50, confidence=0.95)  # ranks 2 and 9 of 10 hold it in 97.9 %
    assert (median.value, median.low, median.high) == (5.5, 2.0, 9.0)
    edge = percentile_interval(np.arange(1.0, 11.0), 5, confidence=0.95)
    assert edge.low is None and edge.high == 3.0
    same = mean_interval(np.full(12, 5.0), confidence=0.95, n_resamples=100)
    assert (same.value, same.low, same.high) == (5.0, 5.0, 5.0)


# what counts as a sample


def rows_of(journals, **options):
    frame = calibrate(journals, n_resamples=200, **options).frame
    return {(row["instrument"], row["estimate"]): row for row in frame.iter_rows(named=True)}


def test_fewer_samples_than_asked_for_are_told_and_not_written(tmp_path):
    with Journal(None) as journal:
        for number in range(9):
            record(journal, number, fee=0.05)
        row = rows_of([journal])[PERP, "taker_fee_bps"]
        assert (row["value"], row["n_samples"], row["note"]) == (None, 9, "9 of 10 samples")
        with pytest.raises(StoreError, match="nothing is written"):
            calibrate([journal]).write(tmp_path / "c.toml")
        record(journal, 9, fee=0.05)
        assert rows_of([journal])[PERP, "taker_fee_bps"]["value"] == pytest.approx(5.0)
        calibrate([journal]).write(tmp_path / "c.toml")
    assert read_calibration(tmp_path / "c.toml").costs["taker_fee_bps"] == {PERP: pytest.approx(5.0)}
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]


def test_only_orders_of_the_window_count_and_it_ends_with_the_last_order():
    day = US_PER_DAY
    with Journal(None) as journal:
        for number in range(40):
            late = number >= 20
            record(journal, number, fee=0.05 if late else 0.09, at_us=START_US + number * day)
        assert rows_of([journal], window_days=19.5)[PERP, "taker_fee_bps"]["n_samples"] == 20
        assert rows_of([journal], window_days=19.5)[PERP, "taker_fee_bps"]["value"] == pytest.approx(5.0)
        early = rows_of([journal], window_days=30.0, until=from_us(START_US + 19 * day + 10**6))
        assert early[PERP, "taker_fee_bps"]["value"] == pytest.approx(9.0)


def test_fees_in_a_third_asset_count_at_their_worth_and_in_base_at_the_price():
    with Journal(None) as journal:
        for number in range(10):
            record(journal, number, fee=0.0001, fee_asset="BNB", fee_usd=0.06)
            record(journal, 100 + number, SPOT, fee=0.001, fee_asset="BTC", price=100.5)
            record(journal, 200 + number, "perp:okx:BTC-USDT", fee=0.0001, fee_asset="OKB", result=False)
        found = rows_of([journal])
    assert found[PERP, "taker_fee_bps"]["value"] == pytest.approx(6.0)
    assert found[SPOT, "taker_fee_bps"]["value"] == pytest.approx(10.0)
    assert found["perp:okx:BTC-USDT", "taker_fee_bps"]["n_samples"] == 0, "of unknown worth is not zero"


def test_limit_orders_refused_for_funds_or_never_received_say_nothing_of_fills():
    with Journal(None) as journal:
        for number in range(10):
            record(journal, number, limit=True, maker=True, filled=1.0 if number < 6 else 0.25 if number < 8 else 0.0)
        for number, (kind, facts) in enumerate((
            (ORDER_REFUSED, {"kind": "post_only"}), (ORDER_REFUSED, {"kind": "funds"}), (MISSING, {"look_ups": 4})
        )):  # fmt: skip
            order = LegOrder(intent="9-entry", client_order_id=f"x{number}", instrument=PERP, leg=0, side=1,
                             quantity_base=1.0, kind="limit", limit_price=100.0, post_only=True, arrival_price=100.0,
                             reference_price=100.0, decided_us=START_US, sent_us=START_US)  # fmt: skip
            journal.order_intent(order)
            journal.append(kind, ts_us=START_US, client_order_id=f"x{number}", instrument=PERP, **facts)
        found = rows_of([journal])
    assert found[PERP, "fill_probability"]["n_samples"] == 11
    assert found[PERP, "fill_probability"]["value"] == pytest.approx(6 / 11)
    assert found[PERP, "partial_share"]["value"] == pytest.approx(2 / 11)
    assert found[PERP, "latency_p50_s"]["n_samples"] == 0, "a resting order waits"


def test_an_order_that_two_journals_have_counts_once_and_both_are_named(tmp_path):
    with Journal(tmp_path / "a") as journal:
        journal.append(SESSION_START, ts_us=START_US, mode="paper")
        for number in range(12):
            record(journal, number)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with Journal(tmp_path / "b") as journal:
        record(journal, 12)
    before = sorted(path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".sqlite", ".jsonl"))
    measured = calibrate([tmp_path / "a", tmp_path / "b"], n_resamples=200)
    assert before == sorted(path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".sqlite", ".jsonl"))
    assert measured.header["samples"] == {PERP: 13} and measured.header["modes"] == ["paper"]
    assert [source["name"] for source in measured.header["journals"]] == ["a", "b"]
    assert measured.header["journals"][0]["sha256"] != measured.header["journals"][1]["sha256"]
    with pytest.raises(ConfigError, match="no journal"):
        calibrate([])
    with pytest.raises(StoreError, match="no journal"):
        calibrate([tmp_path / "nowhere"])


def test_without_volumes_impact_is_told_against_notional_and_not_written(tmp_path):
    with Journal(None) as journal:
        for number in range(60):
            notional = 1e4 * 1.1**number
            price = 100.0 * (1.0 + (0.5 + 4.0 * (notional / 1e6) ** 0.5) / 1e4)
            record(journal, number, quantity=notional / price, price=price, fee=notional * 5e-4)
        measured = calibrate([journal], n_resamples=200)
        found = {row["estimate"]: row for row in measured.frame.iter_rows(named=True)}
        assert found["impact_coef_bps"]["note"].startswith("0 of 10 samples")
        assert found["impact_at_1m_usd_bps"]["value"] == pytest.approx(4.0, rel=1e-6)
        assert found["impact_at_1m_usd_exponent"]["value"] == pytest.approx(0.5)
        measured.write(tmp_path / "c.toml")
    assert "impact_coef_bps" not in read_calibration(tmp_path / "c.toml").costs


def test_an_exponent_that_the_orders_do_not_tell_is_the_square_root():
    draw = np.random.default_rng(5)
    with Journal(None) as journal:
        for number in range(30):
            price = 100.0 * (1.0 + (0.5 + 3.0 + draw.normal()) / 1e4)
            record(journal, number, quantity=1.0, price=price, volume=100.0)  # all of one size
        found = rows_of([journal])
    assert found[PERP, "impact_exponent"]["value"] == 0.5 and found[PERP, "impact_exponent"]["low"] is None
    assert found[PERP, "impact_coef_bps"]["value"] == pytest.approx(30.0, rel=0.25)


# journal -> calibration -> backtest


@pytest.fixture(scope="module")
def measured_file(tmp_path_factory):
    """A calibration of spot and perp, from a journal folder."""
    folder = tmp_path_factory.mktemp("calibration")
    with Journal(folder / "j", durable=False) as journal, journal.together():
        for number in range(15):
            record(journal, number, PERP, fee=0.045, half_spread_bps=0.4, price=100.006, quantity=1.0, volume=100.0)
            record(journal, 50 + number, SPOT, fee=0.075, half_spread_bps=0.25, price=100.0045, volume=100.0)
            record(journal, 100 + number, PERP, limit=True, maker=True, filled=float(number < 12), half_spread_bps=0.0)
    return calibrate([folder / "j"]).write(folder / "measured.toml")


def sample(**tables):
    raw = read_toml(ROOT / "configs" / "sample_btc_carry.toml")
    raw["data"] |= {"root": str(ROOT / "data" / "sample"), "end": "2024-03-01T00:00:00Z"}
    return {**raw, **tables}


def test_what_was_measured_is_what_a_backtest_charges(measured_file):
    result = basis_bt.run(sample(calibration=str(measured_file)))
    fees = result.fills.select(bps=1e4 * result.fills["fee_usd"] / result.fills["notional_usd"],
                               instrument=result.fills["instrument"])  # fmt: skip
    assert result.manifest["fees_bps"] == {SPOT: pytest.approx(7.5, rel=1e-4), PERP: pytest.approx(4.5, rel=1e-4)}
    for instrument, bps in result.manifest["fees_bps"].items():
        assert fees.filter(fees["instrument"] == instrument)["bps"].to_list() == pytest.approx([bps], rel=1e-9)
    assert result.fills["impact_usd"].min() > 0.0
    row = next(row for row in result.manifest["inputs"] if row["series"] == "calibration")
    assert row["path"] == str(measured_file) and row["sha256"] == read_calibration(measured_file).sha256
    plain = basis_bt.run(sample(costs=result.manifest["config"]["costs"]))
    assert plain.metrics.equals(result.metrics)
    assert plain.manifest["config_hash"] == result.manifest["config_hash"], "costs are what they are"


def test_a_manifest_gives_the_same_run_when_the_file_has_gone(measured_file, tmp_path):
    own = tmp_path / "own.toml"
    own.write_bytes(measured_file.read_bytes())
    first = basis_bt.run(sample(calibration=str(own)))
    own.unlink()
    again = basis_bt.run(first.manifest["config"])
    assert again.metrics.equals(first.metrics) and again.manifest["config"] == first.manifest["config"]
    with pytest.raises(ConfigError, match="cannot read the calibration"):
        basis_bt.run(sample(calibration=str(own)))


def test_a_sweep_takes_a_calibration_over_once_and_its_trials_are_runs(measured_file, tmp_path):
    raw = sample(calibration=str(measured_file), sweep={"best": 0})
    raw["rule"] = {"entry": [0.08, 0.10], "exit": 0.02}
    swept = basis_bt.sweep(raw, quiet=True)
    single = basis_bt.run(sample(calibration=str(measured_file), rule={"entry": 0.08, "exit": 0.02}))
    assert swept.trials["pnl_usd"][0] == single.metrics["pnl_usd"][0]
    assert isinstance(swept.manifest["config"]["calibration"], dict)
    assert any(row["series"] == "calibration" for row in swept.manifest["inputs"])
    raw["costs"] = {"half_spread_bps": [0.5, 1.0]}
    with pytest.raises(ConfigError, match="half_spread_bps: several values, and the calibration measured one"):
        basis_bt.sweep(raw, quiet=True)


def test_measured_rows_replace_what_is_configured_and_all_others_keep_theirs(measured_file):
    third = "perp:okx:BTC-USDT"
    raw = apply_settings(sample(calibration=str(measured_file)), {"combo.legs.0.instrument": third})
    config = load_config(raw)
    assert config.costs.half_spread_bps == {"perp": 0.5, PERP: pytest.approx(0.4)}
    assert config.costs.taker_fee_bps == {"spot": 10.0, "perp": 5.0, PERP: pytest.approx(4.5, rel=1e-3)}
    assert isinstance(config.calibration, Calibrated)
    assert load_config(config) == config and build_config(config_dict(config)) == config
    assert config_hash(config) == config_hash(load_config({**config_dict(config), "name": "other"}))
    maker = load_config(sample(calibration=str(measured_file), fills={"model": "bernoulli"}))
    assert maker.fills.fill_probability == pytest.approx(0.8)
    assert load_config(sample()).calibration is None and "calibration" not in config_dict(load_config(sample()))
    by_models = basis_bt.core.models.Config(
        data=config.data, combo=config.combo, signal=config.signal, rule=config.rule,
        costs=Costs(half_spread_bps=0.5), calibration=str(measured_file),
    )  # fmt: skip
    assert load_config(by_models).costs.half_spread_bps == config.costs.half_spread_bps


def test_a_calibration_of_other_instruments_or_that_would_count_twice_is_refused(measured_file):
    foreign = apply_settings(sample(calibration=str(measured_file)), {
        "combo.legs.0.instrument": "spot:okx:ETH-USDT", "combo.legs.1.instrument": "perp:okx:ETH-USDT"})  # fmt: skip
    with pytest.raises(ConfigError, match="measured none of spot:okx:ETH-USDT, perp:okx:ETH-USDT"):
        load_config(foreign)
    with pytest.raises(ConfigError, match="all-in"):
        load_config(sample(calibration=str(measured_file), costs={"bucket_usd": [1e4, 1e5], "bucket_bps": [1.0, 2.0]}))
    other = {"impact_coef_bps": 20.0, "impact_exponent": 0.7}
    raw = apply_settings(sample(calibration=str(measured_file), costs=other),
                         {"combo.legs.0.instrument": "spot:okx:BTC-USDT"})  # fmt: skip
    with pytest.raises(ConfigError, match="0.7 is configured for spot:okx:BTC-USDT"):
        load_config(raw)


@pytest.mark.parametrize(("change", "told"), [
    (lambda text: text[: len(text) * 2 // 3], "cut or edited|no TOML"),
    (lambda text: text[: text.index("[fills.fill_probability]")], "cut or edited"),
    (lambda text: text.replace("[costs.half_spread_bps]", "[costs.half_spread]"), "half_spread: unknown key"),
    (lambda text: text.replace("format = 1", "format = 2"), "no calibration file of format 1"),
    (lambda text: text.replace("format = 1", "format = 1\nnote = 3"), "note: unknown key"),
    (lambda text: text.replace(f'"{SPOT}" = 0.25', f'"{SPOT}" = 0.1'), "cut or edited"),
    (lambda text: text.replace(f'"{SPOT}" = 0.25', f'"{SPOT}" = "0.25"'), "must be a finite number"),
    (lambda text: text.replace(f'"{SPOT}" = 0.25', '"btc" = 0.25'), "no instrument"),
    (lambda text: "\0" + text, "no TOML"),
    (lambda text: "a = 1\n", "no calibration file"),
])  # fmt: skip
def test_a_file_that_is_damaged_or_edited_is_refused(measured_file, tmp_path, change, told):
    text = measured_file.read_text()
    changed = change(text)
    assert changed != text
    (tmp_path / "c.toml").write_text(changed)
    with pytest.raises(ConfigError, match=told):
        load_config(sample(calibration=str(tmp_path / "c.toml")))


def test_the_file_says_where_it_comes_from(measured_file):
    said = tomllib.loads(measured_file.read_text())["measured"]
    assert said["samples"] == {SPOT: 15, PERP: 30} and said["window_days"] == 30.0 and said["confidence"] == 0.95
    assert len(said["journals"][0]["sha256"]) == 64
    assert datetime.fromisoformat(said["until"]).astimezone(UTC).year == 2024
