"""Dated events replayed onto a run: what each kind changes, what it leaves alone, and what is refused."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from realdata import real_market

import basis_bt
from basis_bt.backtest.scenarios import adl_shares, depeg_factors, series_change, transfer_halts, with_scenarios
from basis_bt.core.config import build_config, load_config
from basis_bt.core.errors import ConfigError
from basis_bt.core.units import to_us
from basis_bt.frames.panel import load_panel
from basis_bt.market.files import Series
from basis_bt.market.schemas import TS, SeriesKey

ROOT = Path(__file__).resolve().parents[1]
SPOT, PERP = "spot:binance:SOL-USDT", "perp:bybit:SOL-USDT"
HOUR_US = 3_600_000_000
START = "2024-02-19T00:00:00Z"
EVENTS = {
    "adl": {"instrument": PERP, "share": 0.4},
    "outage": {"venue": "bybit", "end": "2024-02-20T00:00:00Z"},
    "transfer_halt": {"end": "2024-02-24T00:00:00Z"},
    "depeg": {"quote": "USDT", "factor": 0.9, "end": "2024-02-20T00:00:00Z", "recover": True},
    "funding_spike": {"venue": "bybit", "end": "2024-02-22T00:00:00Z", "rate": -0.003},
    "price_path": {"coin": "SOL", "end": "2024-02-19T12:00:00Z", "factor": 1.2},
}


def event(kind, **changes):
    """A scenario of a kind that happens to the run of `config`."""
    return {"kind": kind, "start": START, **EVENTS[kind], **changes}


def config(*scenarios, **sections):
    """Long SOL on one venue, short on another, entered when the basis is rich and rebalanced."""
    return {
        "name": "scenarios",
        "data": {"root": str(ROOT / "data" / "sample"), "start": "2024-02-01T00:00Z", "end": "2024-03-01T00:00Z"},
        "combo": {"legs": [{"instrument": SPOT, "ratio": 1.0}, {"instrument": PERP, "ratio": -1.0}]},
        "signal": {"name": "funding_apr", "hours": 24},
        "rule": {"entry": 0.01, "exit": -0.5},
        "size": {"lots": "none", "leverage": 5.0},
        "wallets": {"mode": "segregated", "rebalance_below": 0.17},
        "scenarios": list(scenarios),
        **sections,
    }


def us(text):
    return to_us(datetime.fromisoformat(text))


def loaded(checked):
    return load_panel(checked.data, checked.combo, warmup_hours=24, change=series_change(checked))


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("scenario", "says"),
    [
        ({"kind": "adl", "start": START, "instrument": PERP}, "needs share"),
        ({"kind": "adl", "start": START, "instrument": PERP, "share": 1.5}, "share of kind adl must be above 0"),
        ({"kind": "adl", "start": START, "instrument": PERP, "share": 0.0}, "share of kind adl must be above 0"),
        ({"kind": "adl", "start": START, "instrument": PERP, "share": 1.0, "factor": 2.0}, "does not take factor"),
        ({"kind": "adl", "start": START, "instrument": "SOL", "share": 1.0}, "is no instrument"),
        ({"kind": "outage", "start": START, "venue": "bybit"}, "needs end"),
        ({"kind": "outage", "start": START, "venue": "bybit", "end": START}, "ends after its start"),
        ({"kind": "outage", "start": "2024-02-19T00:00:00", "venue": "bybit", "end": START}, "names no time zone"),
        ({"kind": "funding_spike", "start": START, "end": "2024-02-20T00:00Z", "rate": 0.1}, "takes one of"),
        (event("funding_spike", add=0.1), "one of rate, add, factor, found add, rate"),
        (event("price_path", instrument=PERP), "one of coin, instrument"),
        ({"kind": "depeg", "start": START, "quote": "USDT", "factor": 0.9, "recover": True}, "recover needs an end"),
        (event("depeg", factor=-0.5), "factor of kind depeg must be above 0"),
        ({"kind": "bank_run", "start": START}, "kind"),
    ],
)
def test_a_scenario_that_means_nothing_is_refused_with_its_key(scenario, says):
    with pytest.raises(ConfigError, match="scenarios.0") as error:
        build_config(config(scenario))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("scenario", "says", "fix"),
    [
        (event("adl", start="2024-03-02T00:00Z"), "not in the run", "2024-02-01"),
        (event("adl", instrument="perp:okx:SOL-USDT"), "nothing of 'perp:okx:SOL-USDT'", PERP),
        (event("adl", instrument=SPOT), "knows no adl", "name a leg"),
        (event("outage", venue="okx"), "nothing of 'okx'", "binance, bybit"),
        (event("price_path", coin="BTC"), "nothing of 'BTC'", "SOL"),
        (event("depeg", quote="USDC"), "nothing of 'USDC'", "USDT"),
        (event("funding_spike", venue="binance"), "no perp on binance", "another"),
        (event("funding_spike", start="2024-02-19T01:00Z", end="2024-02-19T07:00Z"), "no settlement", "longer"),
        (event("outage", start="2024-02-19T06:10Z", end="2024-02-19T06:50Z"), "no bar opens", "longer"),
    ],
)
def test_a_scenario_that_cannot_touch_the_run_is_refused(scenario, says, fix):
    checked = build_config(config(scenario))
    with pytest.raises(ConfigError, match=says) as error:
        with_scenarios(loaded(checked), checked)
    assert error.value.where["key"].startswith("scenarios.0.")
    assert fix in error.value.fix


def test_a_transfer_halt_of_one_wallet_is_refused():
    with pytest.raises(ConfigError, match="nothing to transfer"):
        series_change(build_config(config(event("transfer_halt"), wallets={"mode": "pooled"})))


# ---------------------------------------------------------------------------------------------------------- the pieces


def bars(path, *, series="perp"):
    """A series of hourly bars from 2024-02-19 00:00 on with the closes given."""
    ts = us("2024-02-19T00:00Z") + np.arange(len(path)) * HOUR_US
    close = np.array(path)
    frame = pl.DataFrame(
        {"ts": pl.Series(ts).cast(TS), "open": close - 1.0, "high": close + 3.0, "low": close - 4.0, "close": close}
    )
    return Series(
        key=SeriesKey(series, "bybit", "SOL-USDT"), path=Path("x"), frame=frame, first_us=int(ts[0]),
        last_us=int(ts[-1]), step_us=HOUR_US, first_row=0, findings=[], sha256="",
    )  # fmt: skip


def test_prices_follow_a_path_at_the_instants_they_are_of():
    """From 02:30 to 06:30 up to 1.4: 0.1 an hour; the bar of 02:00 opens before it and closes at 1.05 of its price."""
    path = event("price_path", start="2024-02-19T02:30Z", end="2024-02-19T06:30Z", factor=1.4)
    raw = bars([100.0, 110.0, 120.0, 130.0, 140.0, 150.0, 160.0, 170.0])
    frame = series_change(build_config(config(path)))(raw).frame
    assert_frame_equal(frame[:2], raw.frame[:2], check_exact=True)
    assert frame["open"][2] == raw.frame["open"][2]
    np.testing.assert_allclose(frame["open"][2:] / raw.frame["open"][2:], [1.0, 1.05, 1.15, 1.25, 1.35, 1.4])
    np.testing.assert_allclose(frame["close"][2:] / raw.frame["close"][2:], [1.05, 1.15, 1.25, 1.35, 1.4, 1.4])
    np.testing.assert_allclose(frame["high"][2:] / raw.frame["high"][2:], [1.05, 1.15, 1.25, 1.35, 1.4, 1.4])
    np.testing.assert_allclose(frame["low"][2:] / raw.frame["low"][2:], [1.0, 1.05, 1.15, 1.25, 1.35, 1.4])


def test_a_path_that_recovers_is_at_its_factor_halfway_and_leaves_nothing_behind():
    path = event("price_path", start="2024-02-19T02:00Z", end="2024-02-19T05:00Z", factor=0.5, recover=True)
    raw = bars([100.0] * 8)
    frame = series_change(build_config(config(path)))(raw).frame
    np.testing.assert_allclose(frame["low"][2:5] / raw.frame["low"][2:5], [2 / 3, 0.5, 2 / 3])
    np.testing.assert_allclose(frame["high"][2:5] / raw.frame["high"][2:5], [1.0, 2 / 3, 1.0])
    assert_frame_equal(frame[5:], raw.frame[5:], check_exact=True)


def test_a_path_of_one_instrument_leaves_the_others_of_its_coin():
    change = series_change(build_config(config(event("price_path", coin=None, instrument=[PERP]))))
    spot = bars([100.0] * 24, series="spot")
    assert change(spot) is spot
    for series in ("perp", "mark"):
        assert change(bars([100.0] * 24, series=series)).frame["close"][-1] == pytest.approx(120.0)


@pytest.mark.parametrize(
    ("change", "rates"),
    [
        ({"rate": -0.01}, [1e-4, -0.01, -0.01, 4e-4]),
        ({"rate": 0.0}, [1e-4, 0.0, 0.0, 4e-4]),
        ({"rate": None, "add": 0.02}, [1e-4, 2e-4 + 0.02, 3e-4 + 0.02, 4e-4]),
        ({"rate": None, "factor": -3.0}, [1e-4, 2e-4 * -3.0, 3e-4 * -3.0, 4e-4]),
    ],
)
def test_a_spike_changes_the_settlements_from_its_start_to_before_its_end(change, rates):
    ts = [us(f"2024-02-19T{hour:02d}:00Z") for hour in (0, 8, 16)] + [us("2024-02-20T00:00Z")]
    raw = dataclasses.replace(
        bars([1.0]),
        key=SeriesKey("funding", "bybit", "SOL-USDT"),
        frame=pl.DataFrame({"ts": pl.Series(ts).cast(TS), "rate": [1e-4, 2e-4, 3e-4, 4e-4]}),
    )
    spike = event("funding_spike", start="2024-02-19T08:00Z", end="2024-02-20T00:00Z", **change)
    frame = series_change(build_config(config(spike)))(raw).frame
    assert frame["rate"].to_list() == rates
    other = dataclasses.replace(raw, key=SeriesKey("funding", "binance", "SOL-USDT"))
    assert series_change(build_config(config(spike)))(other) is other


def test_nothing_of_a_venue_can_be_traded_during_its_outage_but_its_prices_go_on():
    checked = build_config(config(event("outage")))
    before = loaded(checked)
    after = with_scenarios(before, checked)
    out = (before.ts_us >= us(START)) & (before.ts_us < us("2024-02-20T00:00:00Z"))
    assert out.sum() == 24
    assert not after.tradable[out, 1].any()
    assert (after.tradable[:, 0] == before.tradable[:, 0]).all()
    assert (after.tradable[~out] == before.tradable[~out]).all()
    np.testing.assert_array_equal(after.open_price[out, 1], before.close_price[np.flatnonzero(out) - 1, 1])
    np.testing.assert_array_equal(after.open_price[~out], before.open_price[~out])
    for name in ("close_price", "high_price", "low_price", "margin_open", "margin_high", "margin_low", "missing"):
        assert getattr(after, name) is getattr(before, name)
    assert not after.tradable.flags.writeable
    assert before.tradable[out, 1].all()


def test_an_outage_at_the_first_bar_shows_the_close_before_the_run():
    first = config(event("outage", venue="binance", start="2024-02-01T03:00Z", end="2024-02-01T05:00Z"))
    first["data"]["start"] = "2024-02-01T03:00Z"
    checked = build_config(first)
    before = loaded(checked)
    after = with_scenarios(before, checked)
    close = before.frame["close_0"][before.n_warmup - 1]
    assert close != before.open_price[0, 0]
    assert after.open_price[0, 0] == pytest.approx(close, rel=1e-15)


def test_a_currency_falls_at_once_and_climbs_back_in_a_straight_line():
    checked = build_config(config(event("depeg", factor=0.8, end="2024-02-19T04:00Z")))
    panel = loaded(checked)
    path = depeg_factors(checked, panel)["USDT"]
    start = int(np.flatnonzero(panel.ts_us == us(START))[0])
    np.testing.assert_allclose(path[start : start + 4], [0.8, 0.85, 0.9, 0.95])
    assert (path[:start] == 1.0).all()
    assert (path[start + 4 :] == 1.0).all()


@pytest.mark.parametrize("end", [None, "2024-02-19T04:00Z"])
def test_a_currency_that_does_not_recover_stays_down_to_the_end(end):
    checked = build_config(config(event("depeg", recover=False, end=end)))
    panel = loaded(checked)
    path = depeg_factors(checked, panel)["USDT"]
    down = (panel.ts_us >= us(START)) & (panel.ts_us < us(end or "2025-01-01T00:00Z"))
    np.testing.assert_array_equal(path, np.where(down, 0.9, 1.0))


def test_shares_lie_in_the_bar_that_holds_their_start_and_close_one_after_the_other():
    twice = event("adl", start="2024-02-19T00:59:59Z", share=0.5)
    checked = build_config(config(event("adl"), twice))
    panel = loaded(checked)
    shares = adl_shares(checked, panel)
    bar = int(np.flatnonzero(panel.ts_us == us(START))[0])
    assert shares[bar].tolist() == [0.0, pytest.approx(0.7)]
    assert np.count_nonzero(shares) == 1
    assert adl_shares(build_config(config(event("adl"))), panel)[bar, 1] == 0.4


def test_without_a_scenario_everything_is_what_it_was():
    checked = build_config(config())
    panel = loaded(checked)
    assert with_scenarios(panel, checked) is panel
    assert len(adl_shares(checked, panel)) == 0
    assert depeg_factors(checked, panel) == {}
    assert transfer_halts(checked) == []


# ----------------------------------------------------------------------------------------------------- through the door


@pytest.fixture(scope="module")
def plain():
    return basis_bt.run(config())


@pytest.mark.parametrize("kind", EVENTS)
def test_nothing_before_the_start_changes_by_a_bit(kind, plain):
    start = datetime.fromisoformat(START)
    changed = basis_bt.run(config(event(kind)))
    assert (plain.equity["direction"].filter(plain.equity["ts"] < start) != 0).any()
    for name in ("equity", "attribution", "fills", "funding", "events", "wallets"):
        before = plain.tables[name].filter(pl.col("ts") < start)
        assert before.height > 0
        assert_frame_equal(changed.tables[name].filter(pl.col("ts") < start), before, check_exact=True)
    assert not changed.equity["equity_usd"].equals(plain.equity["equity_usd"])


@pytest.mark.parametrize("kind", EVENTS)
def test_a_scenario_is_in_the_manifest_and_in_the_hash(kind, plain):
    changed = basis_bt.run(config(event(kind)))
    listed = changed.manifest["config"]["scenarios"]
    assert [one["kind"] for one in listed] == [kind]
    assert listed[0]["start"] == START
    assert changed.manifest["config_hash"] != plain.manifest["config_hash"]
    assert build_config(changed.manifest["config"]) == build_config(config(event(kind)))


def test_the_signal_sees_the_rates_of_a_spike(plain):
    """The rates of the run's funding table and the trailing sum the rule decided on, from the next row on."""
    spiked = basis_bt.run(config(event("funding_spike")))
    inside = pl.col("settlement_ts").is_between(
        datetime(2024, 2, 19, tzinfo=UTC), datetime(2024, 2, 22, tzinfo=UTC), closed="left"
    )
    rows = spiked.funding.filter(inside)
    assert rows.height == 9
    assert set(rows["funding_rate"]) == {-0.003}
    held = rows.filter(pl.col("position_base") != 0)
    assert held.height > 0
    np.testing.assert_allclose(held["funding_usd"], held["position_base"] * held["mark_price"] * 0.003, rtol=1e-12)
    signal = spiked.equity.filter(pl.col("ts") == datetime(2024, 2, 21, tzinfo=UTC))["signal"].item()
    assert signal == pytest.approx(-0.003 * 3 * 365)
    assert spiked.trades["exit_reason"][0] == "signal"


def test_prices_end_at_the_factor_for_every_table(plain):
    moved = basis_bt.run(config(event("price_path")))
    end = datetime(2024, 2, 19, 12, tzinfo=UTC)
    for leg in (0, 1):
        rows = [r.attribution.filter(pl.col("leg") == leg, pl.col("ts") >= end) for r in (plain, moved)]
        np.testing.assert_allclose(rows[1]["close_price"], 1.2 * rows[0]["close_price"], rtol=1e-12)
    settled = [r.funding.filter(pl.col("settlement_ts") >= end)["mark_price"] for r in (plain, moved)]
    np.testing.assert_allclose(settled[1], 1.2 * settled[0], rtol=1e-12)


def test_a_path_of_one_leg_is_not_taken_for_a_bad_print():
    """Three times the price and back within two hours, on one leg alone: the checks have seen the file before."""
    path = event("price_path", coin=None, instrument=PERP, end="2024-02-19T02:00Z", factor=3.0, recover=True)
    raw, changed = (loaded(build_config(config(*scenarios))) for scenarios in ((), (path,)))
    bar = int(np.flatnonzero(raw.ts_us == us(START))[0])
    assert changed.close_price[bar, 1] == pytest.approx(3.0 * raw.close_price[bar, 1])
    assert changed.high_price[bar, 1] == pytest.approx(3.0 * raw.high_price[bar, 1])
    assert changed.margin_high[bar, 1] == pytest.approx(3.0 * raw.margin_high[bar, 1])
    assert (changed.close_price[bar + 1 :] == raw.close_price[bar + 1 :]).all()
    assert (changed.close_price[:, 0] == raw.close_price[:, 0]).all()


def test_an_order_waits_for_the_end_of_an_outage():
    """Entered at once and always; the venue is down from the first bar on."""
    down = event("outage", start="2024-02-01T00:00Z", end="2024-02-02T00:00Z")
    always = {"signal": {"name": "sql", "sql": "close_0 * 0 + 1"}, "rule": {"entry": 0.5, "exit": -1.0}}
    result = basis_bt.run(config(down, **always))
    assert result.fills["ts"].min() == datetime(2024, 2, 2, tzinfo=UTC)
    assert "waiting" in set(result.events["event"])


def test_a_halt_is_the_same_as_one_of_the_wallets():
    halt = basis_bt.run(config(event("transfer_halt")))
    span = [START, "2024-02-24T00:00:00Z"]
    same = basis_bt.run(config(wallets={"mode": "segregated", "rebalance_below": 0.17, "transfer_halts": [span]}))
    for name in ("equity", "fills", "wallets"):
        assert_frame_equal(halt.tables[name], same.tables[name], check_exact=True)


def test_a_share_that_is_taken_leaves_a_hedged_rest():
    """The venue closes 40 % of the short at the mark's open, free; the next opens take 40 % of the spot."""
    result = basis_bt.run(config(event("adl"), wallets={"mode": "segregated"}))
    same = basis_bt.run(config(wallets={"mode": "segregated"}))
    start = datetime.fromisoformat(START)
    held = same.attribution.filter(pl.col("ts") == start)["position_base"].to_list()
    taken, trimmed = result.fills.filter(pl.col("ts") >= start)[:2].iter_rows(named=True)
    marks = pl.read_parquet(ROOT / "data/sample/mark/bybit/SOL-USDT.parquet").filter(
        pl.col("ts").dt.cast_time_unit("us") == start
    )
    assert (taken["action"], taken["instrument"], taken["fee_usd"]) == ("adl", PERP, 0.0)
    assert taken["fill_price"] == marks["open"].item()
    assert taken["position_change_base"] == pytest.approx(-0.4 * held[1])
    assert (trimmed["action"], trimmed["reason"], trimmed["instrument"]) == ("resize", "adl", SPOT)
    assert trimmed["position_change_base"] == pytest.approx(-0.4 * held[0])
    after = result.attribution.filter(pl.col("ts") == trimmed["ts"])["position_base"].to_list()
    assert after == [pytest.approx(0.6 * held[0]), pytest.approx(0.6 * held[1])]


def test_the_adl_of_2025_10_10_turns_a_carry_that_earned_into_one_that_lost():
    """ADA: the mark opened the hour at 0.7163833, and the spot could be sold an hour later at 0.6196."""
    path = ROOT / "configs" / "scenario_2025_10_10.toml"
    checked = load_config(path, {"data.root": str(real_market())})
    replayed = basis_bt.run(checked)
    spared = basis_bt.run(dataclasses.replace(checked, scenarios=[]))
    later = replayed.fills.filter(pl.col("ts") >= datetime(2025, 10, 10, 21, tzinfo=UTC))
    taken, sold = later[:2].iter_rows(named=True)
    assert (taken["action"], taken["fill_price"]) == ("adl", 0.7163833)
    assert (sold["instrument"], sold["reference_price"]) == ("spot:binance:ADA-USDT", 0.6196)
    assert sold["quantity_base"] == taken["quantity_base"]
    naked_usd = taken["quantity_base"] * (0.6196 - 0.7163833)
    lost = replayed.metrics["pnl_usd"].item() - spared.metrics["pnl_usd"].item()
    assert spared.metrics["pnl_usd"].item() > 0.0
    assert lost == pytest.approx(naked_usd, rel=0.05)
