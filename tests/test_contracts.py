"""Contracts through the front door on small markets written here; what is expected is worked out from prices.

A market's paths are prices at whole hours: bar t opens at `path[t]` and closes at `path[t + 1]`, hour 0 is the start of
the run, and every file has one flat bar before it.
"""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from realdata import real_market

import basis_bt
from basis_bt.backtest.stress import stress
from basis_bt.core.errors import ConfigError, DataError
from basis_bt.core.rules import rows as rule_rows
from basis_bt.frames import legs as legs_of_frames

START = datetime(2024, 1, 1, tzinfo=UTC)
CAPITAL = 1e6
SPOT, PERP = "spot:binance:BTC-USDT", "perp:binance:BTC-USDT"
INVERSE = "perp:binance_cm:BTC-USD"
ALWAYS = {"name": "sql", "sql": "2.0"}
EXACT = 1e-9
UP_AND_DOWN = np.concatenate([np.linspace(60e3, 120e3, 13), np.linspace(120e3, 30e3, 25)[1:]])


def hour(at):
    """The instant some hours after the start."""
    return START + timedelta(hours=float(at))


class Market:
    """A market folder below a temporary one."""

    def __init__(self, root):
        self.root = Path(root)

    def series(self, path, hours, **columns):
        """Rows of any kind at hours since the start."""
        file = self.root / f"{path}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        stamps = pl.Series("ts", [hour(at) for at in hours], dtype=pl.Datetime("us", "UTC"))
        pl.DataFrame([stamps]).with_columns(**{name: pl.Series(v) for name, v in columns.items()}).write_parquet(file)
        return self

    def bars(self, instrument, path, *, held=None):
        """Hourly bars; where `held` is given the volume of the bar before bar t is 2 if the combo is wanted at t."""
        path = np.asarray(path, dtype=float)
        opens, closes = np.concatenate([path[:1], path[:-1]]), np.concatenate([path[:1], path[1:]])
        wanted = [1.0 if held is None or not held(row) else 2.0 for row in range(len(opens))]
        volume = np.array(wanted) + 0.1 * (
            np.arange(len(opens)) % 2
        )  # no two bars alike: a feed that stands is refused
        return self.series(
            instrument.replace(":", "/"), range(-1, len(path) - 1), open=opens, high=np.maximum(opens, closes),
            low=np.minimum(opens, closes), close=closes, volume=volume,
        )  # fmt: skip

    def funding(self, instrument, n_bars, rates=()):
        """Settlements each eight hours from the start on, at these rates from the one at hour 8 on, then at 0."""
        hours = range(-8, n_bars + 9, 8)
        all_rates = [0.0, 0.0, *rates, *[0.0] * len(hours)][: len(hours)]
        path = f"funding/{instrument.partition(':')[2].replace(':', '/')}"
        return self.series(path, hours, rate=all_rates)

    def perp(self, instrument, path, rates=()):
        """Bars of a perp with its settlements."""
        return self.bars(instrument, path).funding(instrument, len(path), rates)

    def lending(self, coin, hours, price, *, index=None):
        """One reserve of a lending protocol."""
        index = np.ones(len(price)) if index is None else np.asarray(index)
        return self.series(
            f"onchain/aave_v3_ethereum/{coin}", hours, liquidity_index=index, variable_borrow_index=index,
            oracle_price_usd=np.asarray(price, dtype=float),
        )  # fmt: skip


@pytest.fixture
def market(tmp_path):
    return Market(tmp_path / "market")


def config(market, legs, *, n_bars, **sections):
    """All capital in, no fees, held from the first bar on; sections are merged into those."""
    raw = {
        "name": "contracts",
        "data": {"root": str(market.root), "start": START.isoformat(), "end": hour(n_bars).isoformat()},
        "combo": {"legs": [{"instrument": leg, **({"ratio": terms} if isinstance(terms, float) else terms)}
                           for leg, terms in legs.items()]},
        "signal": ALWAYS,
        "rule": {"entry": 1.8, "exit": 1.5},
        "size": {"capital_usd": CAPITAL, "allocation": 1.0, "leverage": 3.0, "lots": "none"},
        "costs": {"taker_fee_bps": 0.0},
    }  # fmt: skip
    for section, values in sections.items():
        raw[section] = raw.get(section, {}) | values
    return raw


SWITCH = {"signal": {"name": "sql", "sql": "volume_0"}}


def run(raw):
    """The result, its books having closed."""
    result = basis_bt.run(raw)
    assert abs(result.manifest["books_residual_usd"]) <= EXACT * raw["size"]["capital_usd"]
    return result


def simulated(market, legs, *, n_bars, **sections):
    return run(config(market, legs, n_bars=n_bars, **sections))


def equity(result):
    return result.equity["equity_usd"].to_numpy()


def book(result, name, leg):
    """A cumulative book of one leg, by bar."""
    return result.attribution.filter(pl.col("leg") == leg)[f"{name}_usd"].to_numpy()


def positions(result, leg):
    return result.attribution.filter(pl.col("leg") == leg)["position_base"].to_numpy()


def fills(result, **where):
    """Rows of the fills with these values."""
    return result.fills.filter(pl.col(name) == value for name, value in where.items()).rows(named=True)


def events(result, name):
    return result.events.filter(pl.col("event") == name).rows(named=True)


def close_to(expected, *, rel=EXACT):
    return pytest.approx(expected, rel=rel, abs=1e-6)


MARGIN_ROW = """
[[margin]]
instrument = "{instrument}"
unit = "usd"
tiers = [[0.0, 1_000_000_000.0, {rate}, 0.0, 1.0]]
effective = {effective}
read = 2024-01-03
source = "a test"
"""
LIQUIDATION_ROW = """
[[liquidation]]
fee_bps = 200.0
effective = {effective}
read = 2024-01-03
source = "a test"
reason = "a test"
"""
FEE_ROW = """
[[fees]]
kind = "spot"
maker_bps = 20.0
taker_bps = 20.0
effective = {effective}
read = 2024-01-03
source = "a test"
"""


@pytest.fixture
def rulebook(tmp_path, monkeypatch):
    """Adds rows to a venue of a copy of the rulebook, which the package reads instead of its own."""
    folder = tmp_path / "venues"
    shutil.copytree(rule_rows.FOLDER, folder)
    monkeypatch.setattr(rule_rows, "FOLDER", folder)

    def add(venue, rows):
        file = folder / f"{venue}.toml"
        file.write_text(file.read_text(encoding="utf-8") + rows, encoding="utf-8")
        rule_rows._read.cache_clear()
        rule_rows._hash.cache_clear()

    return add


# --------------------------------------------------------------------------------------------------- coin-margined legs


@pytest.mark.parametrize(
    "wallets", [{}, {"margin": "venue"}, {"mode": "segregated"}, {"mode": "segregated", "margin": "none"}]
)
def test_spot_with_an_inverse_short_is_a_constant_number_of_dollars_and_its_funding(market, wallets):
    rates = [3e-4, -1e-4, 2e-4, 5e-4]
    market.bars(SPOT, UP_AND_DOWN).perp(INVERSE, UP_AND_DOWN, rates)
    result = simulated(market, {SPOT: 1.0, INVERSE: -1.0}, n_bars=36, wallets=wallets)
    expected = CAPITAL * (1 + np.array([sum(rates[: bar // 8]) for bar in range(36)]))
    np.testing.assert_allclose(equity(result), expected, rtol=EXACT)
    np.testing.assert_allclose(book(result, "funding", 1), expected - CAPITAL, atol=1e-9 * CAPITAL)
    quantity = CAPITAL / 60e3  # the coin is the margin: all capital buys it
    assert [row["quantity_base"] for row in fills(result, action="entry")] == [close_to(quantity)] * 2
    assert result.metrics["n_liquidations"].item() == 0
    if wallets.get("margin") == "venue":
        assert result.metrics["min_margin_ratio"].item() == close_to(1.0)


def test_the_two_parts_of_one_exchange_are_one_wallet(market):
    market.bars(SPOT, UP_AND_DOWN).perp(INVERSE, UP_AND_DOWN)
    result = simulated(market, {SPOT: 1.0, INVERSE: -1.0}, n_bars=36, wallets={"mode": "segregated"})
    wallets = result.tables["wallets"]
    assert wallets["wallet"].n_unique() == 1
    np.testing.assert_allclose(wallets["cash_usd"], result.equity["cash_usd"], rtol=EXACT)


def test_stress_knows_the_two_parts_of_one_exchange_as_one_wallet(market):
    path = np.linspace(60e3, 66e3, 25)
    market.bars(SPOT, path).perp(INVERSE, path)
    book = stress(simulated(market, {SPOT: 1.0, INVERSE: -1.0}, n_bars=24, wallets={"mode": "segregated"}))
    assert book.wallets["wallet"].to_list() == ["binance"]
    assert book.wallets["equity_usd"].item() == close_to(CAPITAL)
    assert book.first("up") is None  # backed by its coin


def test_a_coin_margined_contract_is_the_same_under_either_name_of_its_venue(market):
    spot = np.linspace(60e3, 45e3, 25)
    perp, other = spot * np.linspace(1.01, 0.995, 25), "perp:binance:BTC-USD"
    market.bars(SPOT, spot).perp(INVERSE, perp, [1e-3]).perp(other, perp, [1e-3])
    one, two = (simulated(market, {SPOT: 1.0, leg: -1.0}, n_bars=24) for leg in (INVERSE, other))
    assert one.equity.equals(two.equity)


def test_an_inverse_short_gains_coins_by_one_over_its_price_and_they_are_worth_the_spot_price(market):
    spot = np.linspace(60e3, 45e3, 25)
    perp = spot * np.linspace(1.01, 0.995, 25)
    market.bars(SPOT, spot, held=lambda bar: bar < 20).perp(INVERSE, perp)
    result = simulated(market, {SPOT: 1.0, INVERSE: -1.0}, n_bars=24, **SWITCH)
    coins = CAPITAL / spot[0]
    contracts = coins * perp[0]
    held = np.arange(20)
    gained = contracts * (1 / perp[held + 1] - 1 / perp[0]) * spot[held + 1] + coins * (spot[held + 1] - spot[0])
    np.testing.assert_allclose(equity(result)[:20], CAPITAL + gained, rtol=EXACT)
    at_exit = contracts * (1 / perp[20] - 1 / perp[0]) * spot[20] + coins * (spot[20] - spot[0])
    np.testing.assert_allclose(equity(result)[20:], CAPITAL + at_exit, rtol=EXACT)


def test_funding_of_an_inverse_leg_is_on_its_contract_dollars_not_on_its_price(market):
    spot = np.linspace(60e3, 120e3, 25)
    perp = spot * 1.02
    market.bars(SPOT, spot).perp(INVERSE, perp, [1e-3, 1e-3])
    result = simulated(market, {SPOT: 1.0, INVERSE: -1.0}, n_bars=24)
    contracts = CAPITAL / 60e3 * 60e3 * 1.02
    assert book(result, "funding", 1)[-1] == close_to(2 * contracts * 1e-3)
    assert result.metrics["funding_usd"].item() == close_to(2 * contracts * 1e-3)


def test_the_fee_of_an_inverse_exit_is_on_its_contract_dollars(market):
    path = np.linspace(60e3, 120e3, 25)
    market.bars(SPOT, path).perp(INVERSE, path)
    rule, costs = {"max_hold_hours": 20, "cooldown_hours": 100}, {"taker_fee_bps": {"spot": 0.0, "perp": 10.0}}
    result = simulated(market, {SPOT: 1.0, INVERSE: -1.0}, n_bars=24, rule=rule, costs=costs)
    into, out = (fills(result, action=action, leg=1)[0] for action in ("entry", "exit"))
    assert (into["fee_usd"], out["fee_usd"]) == (close_to(CAPITAL * 1e-3), close_to(CAPITAL * 1e-3))
    assert equity(result)[-1] == close_to(CAPITAL * (1 - 2e-3))


def test_the_funding_table_of_an_inverse_leg_says_what_was_paid(market):
    spot = np.linspace(60e3, 120e3, 25)
    market.bars(SPOT, spot).perp(INVERSE, spot, [1e-3, 1e-3])
    result = simulated(market, {SPOT: 1.0, INVERSE: -1.0}, n_bars=24)
    assert result.funding.filter(pl.col("funding_rate") != 0.0)["funding_usd"].to_list() == close_to([1000.0] * 2)


def test_two_inverse_perps_without_spot_are_priced_by_the_first(market):
    long, short = np.linspace(60e3, 80e3, 25), np.linspace(60.6e3, 79.2e3, 25)
    other = "perp:bybit:BTC-USD"
    market.perp(INVERSE, long, [2e-4, 0.0]).perp(other, short, [5e-4, -1e-4])
    result = simulated(market, {INVERSE: 1.0, other: -1.0}, n_bars=24)
    quantity = CAPITAL * 3 / (2 * 60e3)  # at leverage 3, both legs at the price of the first
    long_usd, short_usd = quantity * 60e3, quantity * 60.6e3
    last = np.arange(1, 25)
    coins = long_usd * (1 / long[0] - 1 / long[last]) - short_usd * (1 / short[0] - 1 / short[last])
    paid = 5e-4 * short_usd - 2e-4 * long_usd, -1e-4 * short_usd  # at hours 8 and 16
    funding = np.repeat([0.0, paid[0], sum(paid)], 8)
    np.testing.assert_allclose(equity(result), CAPITAL + coins * long[last] + funding, rtol=EXACT)


def test_a_missing_bar_of_an_inverse_leg_leaves_its_coins_and_they_are_worth_the_spot_price(market):
    path = np.linspace(60e3, 66e3, 13)
    market.bars(SPOT, path).perp(INVERSE, path)
    file = market.root / "perp/binance_cm/BTC-USD.parquet"
    pl.read_parquet(file).filter(pl.col("ts") != hour(5)).write_parquet(file)
    result = simulated(market, {SPOT: 1.0, INVERSE: -1.0}, n_bars=12)
    expected = np.full(12, CAPITAL)
    expected[5] = CAPITAL / path[5] * path[6]  # the contract stays at its last close, and 60,000 / P coins are left
    np.testing.assert_allclose(equity(result), expected, rtol=EXACT)
    assert result.equity["stale"].to_list() == [bar == 5 for bar in range(12)]


def test_an_inverse_short_apart_from_its_coin_is_liquidated_on_a_notional_that_stays(market, rulebook):
    path = np.linspace(60e3, 108e3, 25)
    market.bars(BYBIT_SPOT, path).perp(INVERSE, path)
    rulebook("binance_cm", MARGIN_ROW.format(instrument=INVERSE, rate=0.05, effective="2023-01-01"))
    wallets = {"mode": "segregated", "liquidation_fee_bps": 100.0}
    options = {"wallets": wallets, "size": {"leverage": 2.0}, "rule": {"cooldown_hours": 100}}
    result = simulated(market, {BYBIT_SPOT: 1.0, INVERSE: -1.0}, n_bars=24, **options)
    notional, margin = CAPITAL / 1.5, CAPITAL / 3
    quantity = notional / 60e3
    price = 60e3 + (margin - 0.05 * notional) / quantity  # 87,000: maintenance is of the contract dollars
    (closed,) = fills(result, action="liquidation")
    assert (closed["ts"], closed["leg"]) == (hour(13), 1)  # the bar from 86,000 to 88,000
    assert closed["fill_price"] == close_to(price)
    assert closed["fee_usd"] == close_to(notional * 0.01)  # of the contract dollars too
    (rest,) = fills(result, action="exit")
    assert (rest["ts"], rest["reason"], rest["fill_price"]) == (hour(14), "liquidation", close_to(88e3))
    left = CAPITAL + quantity * (88e3 - price) - notional * 0.01
    np.testing.assert_allclose(equity(result)[14:], left, rtol=EXACT)


def test_an_inverse_excess_that_is_closed_again_gains_and_loses_in_coins(market):
    spot = np.array([60e3, 61e3, 62e3, 60.5e3, 60e3, 60e3, 60e3])
    perp = spot * np.array([1.01, 1.0, 1.02, 1.0, 1.0, 1.0, 1.0])
    market.bars(SPOT, spot).perp(INVERSE, perp)
    file = market.root / "perp/binance_cm/BTC-USD.parquet"
    pl.read_parquet(file).with_columns(volume=pl.lit(0.5)).write_parquet(file)
    fill = {"model": "volume", "volume_cap": 1.0, "rollback_delay_hours": 2}
    result = simulated(
        market, {SPOT: 1.0, INVERSE: -1.0}, n_bars=6, fills=fill, size={"capital_usd": 60e3, "compounding": False}
    )
    assert [row["quantity_base"] for row in fills(result, action="rollback", ts=hour(2))] == close_to([1.0, 0.5])
    contracts = 0.5 * perp[0]
    worth = [(spot[at] - 60e3) + contracts * (1 / perp[at] - 1 / perp[0]) * spot[at] for at in (1, 2, 2)]
    np.testing.assert_allclose(equity(result)[:3], 60e3 + np.array(worth), rtol=EXACT)
    prices = sum(book(result, name, leg)[2] for name in ("delta", "basis") for leg in (0, 1))
    assert prices == close_to(0.0)
    assert book(result, "rollback_price", 0)[2] + book(result, "rollback_price", 1)[2] == close_to(-worth[2])


# -------------------------------------------------------------------------------------------------------- dated futures

BYBIT_SPOT = "spot:bybit:BTC-USDT"
DATED = "future:bybit:BTC-USDT-20240102"  # delivered at hour 32: day 2, 08:00
EXPIRY = 32
DELIVERY_FEE = 5e-4


def dated_market(market, *, n_bars=40):
    spot = np.linspace(60e3, 64e3, n_bars + 1)
    future = (spot * np.linspace(1.012, 1.0, n_bars + 1))[: EXPIRY + 1]
    market.bars(BYBIT_SPOT, spot).bars(DATED, future)
    return spot, future


def with_index(market):
    """Ten-minute bars of the index from hour 30 on; the mean of their middles over the last thirty minutes."""
    nodes = 63e3 + 40.0 * np.arange(25) ** 1.5
    opens, closes = nodes[:-1], nodes[1:]
    market.series(
        "index/bybit/BTC-USDT", 30 + np.arange(24) / 6, open=opens, close=closes, high=closes, low=opens
    )  # fmt: skip
    return float(np.mean((opens[9:12] + closes[9:12]) / 2))  # 07:30, 07:40 and 07:50


@pytest.mark.parametrize(("bar", "closed"), [("1h", 32), ("6h", 36)])
def test_a_dated_future_is_delivered_at_the_averaged_index_and_the_spot_sold_in_that_bar(market, bar, closed):
    spot, future = dated_market(market)
    price = with_index(market)
    result = simulated(market, {BYBIT_SPOT: 1.0, DATED: -1.0}, n_bars=40, data={"bar": bar})
    quantity = CAPITAL / (spot[0] + future[0] / 3)
    (delivery,) = fills(result, action="delivery")
    fee = quantity * price * DELIVERY_FEE
    assert (delivery["reason"], delivery["ts"], delivery["leg"], delivery["side"]) == ("expiry", hour(closed), 1, 1)
    assert delivery["quantity_base"] == close_to(quantity)
    assert [delivery[name] for name in ("arrival_price", "reference_price", "fill_price")] == [close_to(price)] * 3
    assert delivery["fee_usd"] == close_to(fee)
    (sale,) = fills(result, action="exit")
    assert (sale["reason"], sale["ts"], sale["leg"], sale["fill_price"]) == ("expiry", hour(closed), 0, spot[closed])
    (event,) = events(result, "delivery")
    assert (event["reason"], event["quantity_base"]) == ("expiry", close_to(quantity))
    assert book(result, "delivery_fee", 1)[-1] == close_to(fee)
    assert result.metrics["delivery_fee_usd"].item() == close_to(fee)
    gained = quantity * (spot[closed] - spot[0]) - quantity * (price - future[0]) - fee
    assert equity(result)[-1] == close_to(CAPITAL + gained)
    (trade,) = result.trades.rows(named=True)
    assert (trade["exit_reason"], trade["exit_ts"]) == ("expiry", hour(closed))
    assert (trade["pnl_usd"], trade["costs_usd"]) == (close_to(gained), close_to(fee))
    assert {row["series"] for row in result.manifest["inputs"]} == {"spot", "future", "index"}
    traded = quantity * (spot[0] + future[0] + price + spot[closed])
    assert result.metrics["turnover"].item() == close_to(traded / CAPITAL)


def test_nothing_is_entered_after_an_expiry(market):
    dated_market(market)
    with_index(market)
    result = simulated(market, {BYBIT_SPOT: 1.0, DATED: -1.0}, n_bars=40)
    refused = events(result, "refused")
    assert [(row["ts"], row["reason"]) for row in refused] == [(hour(at), "expired") for at in range(33, 40)]
    assert result.manifest["counts"]["refused"] == {"expired": 7}
    assert result.metrics["n_trades"].item() == 1
    assert positions(result, 0)[EXPIRY:].tolist() == positions(result, 1)[EXPIRY:].tolist() == [0.0] * 8


def test_a_run_that_begins_after_the_expiry_is_refused(market):
    dated_market(market)
    data = {"start": hour(33).isoformat()}
    with pytest.raises(DataError, match="no contract that expires after the run begins"):
        simulated(market, {BYBIT_SPOT: 1.0, DATED: -1.0}, n_bars=40, data=data)


def test_without_an_index_delivery_is_at_the_open_of_the_spot_and_the_manifest_says_so(market):
    spot, future = dated_market(market)
    result = simulated(market, {BYBIT_SPOT: 1.0, DATED: -1.0}, n_bars=40)
    (delivery,) = fills(result, action="delivery")
    assert delivery["fill_price"] == spot[EXPIRY]
    assert any(DATED in flag and "index" in flag for flag in result.manifest["flags"])
    quantity = CAPITAL / (spot[0] + future[0] / 3)
    gained = quantity * (future[0] - spot[0]) - quantity * spot[EXPIRY] * DELIVERY_FEE
    assert equity(result)[-1] == close_to(CAPITAL + gained)


def test_an_index_that_is_loaded_leaves_no_flag(market):
    dated_market(market)
    with_index(market)
    result = simulated(market, {BYBIT_SPOT: 1.0, DATED: -1.0}, n_bars=40)
    assert not any("index" in flag for flag in result.manifest["flags"])


def test_an_inverse_future_is_delivered_in_coins_and_the_pair_ends_with_the_basis_it_began_with(market):
    dated = "future:binance_cm:BTC-USD-20240102"
    spot = np.linspace(60e3, 66e3, 41)
    future = (spot * np.linspace(1.012, 1.001, 41))[: EXPIRY + 1]
    market.bars(SPOT, spot).bars(dated, future)
    market.series("index/binance_cm/BTC-USD", 30 + np.arange(24) / 6, open=np.linspace(64e3, 64.1e3, 24),
                  close=np.linspace(64e3, 64.1e3, 24), high=np.linspace(64e3, 64.1e3, 24),
                  low=np.linspace(64e3, 64.1e3, 24))  # fmt: skip
    result = simulated(market, {SPOT: 1.0, dated: -1.0}, n_bars=40)
    price = float(np.mean(np.linspace(64e3, 64.1e3, 24)[6:12]))  # an hour before 08:00 until 2024-11-11
    coins = CAPITAL / spot[0]
    contracts = coins * future[0]
    # the coins of the contract are exchanged at the spot's open of that bar, where the spot is sold; taker fee 5 bps
    gained = contracts * (1 / price - 1 / future[0]) * spot[32] + coins * (spot[32] - spot[0])
    fee = contracts / price * spot[32] * 5e-4  # of the coins the contract is worth at its delivery
    assert book(result, "delivery_fee", 1)[-1] == close_to(fee)
    assert equity(result)[-1] == close_to(CAPITAL + gained - fee)


def test_an_order_in_flight_at_an_expiry_is_dropped(market):
    spot = np.linspace(60e3, 64e3, 41)
    market.bars(BYBIT_SPOT, spot, held=lambda bar: bar >= 30).bars(DATED, spot[: EXPIRY + 1])
    result = simulated(market, {BYBIT_SPOT: 1.0, DATED: -1.0}, n_bars=40, fills={"latency": "5h"}, **SWITCH)
    assert result.fills.height == 0
    assert [row["ts"] for row in events(result, "entry")] == [hour(30)]
    assert [row["ts"] for row in events(result, "refused")] == [hour(at) for at in range(32, 40)]
    np.testing.assert_allclose(equity(result), CAPITAL, rtol=0)


def test_the_spot_of_a_delivered_future_is_sold_as_late_as_any_order(market):
    spot, _ = dated_market(market)
    price = with_index(market)
    result = simulated(market, {BYBIT_SPOT: 1.0, DATED: -1.0}, n_bars=40, fills={"latency": "2h"})
    (delivery,), (sale,) = fills(result, action="delivery"), fills(result, action="exit")
    assert (delivery["ts"], delivery["fill_price"]) == (hour(32), close_to(price))
    assert (sale["decision_ts"], sale["ts"]) == (hour(32), hour(34))
    assert (sale["arrival_price"], sale["fill_price"]) == (spot[32], spot[34])
    assert sale["delay_usd"] == close_to(sale["quantity_base"] * (spot[32] - spot[34]))


CHAIN = "future:bybit:BTC-USDT"
NEAR, FAR = f"{CHAIN}-20240105", f"{CHAIN}-20240112"  # delivered at hours 104 and 272
ROLL_BAR = 104 - 48


def test_a_chain_rolls_with_two_fills_their_costs_and_no_phantom_profit(market):
    spot = np.full(121, 60e3)
    near = np.full(105, 60.6e3)
    far = np.interp(np.arange(121), [0, 60, 100], [61.2e3, 61.2e3, 60.9e3])
    market.bars(BYBIT_SPOT, spot).bars(NEAR, near).bars(FAR, far)
    result = simulated(
        market, {BYBIT_SPOT: 1.0, CHAIN: {"ratio": -1.0, "roll_days": 2}}, n_bars=120,
        costs={"taker_fee_bps": {"spot": 0.0, "future": 10.0}, "half_spread_bps": {"future": 2.0}},
    )  # fmt: skip
    quantity = CAPITAL / (60e3 + 60.6e3 / 3)
    bought, sold = fills(result, action="roll")
    assert [row["side"] for row in (bought, sold)] == [1, -1]
    assert [row["reason"] for row in (bought, sold)] == ["roll", "roll"]
    assert [row["ts"] for row in (bought, sold)] == [hour(ROLL_BAR)] * 2
    assert [row["trade"] for row in (bought, sold)] == [1, 1]
    assert [row["quantity_base"] for row in (bought, sold)] == [close_to(quantity)] * 2
    assert [row["reference_price"] for row in (bought, sold)] == [60.6e3, 61.2e3]
    assert [row["fill_price"] for row in (bought, sold)] == [close_to(60.6e3 * 1.0002), close_to(61.2e3 * 0.9998)]
    assert result.metrics["n_rolls"].item() == 1
    (event,) = events(result, "roll")
    assert (event["ts"], event["reason"], event["quantity_base"]) == (hour(ROLL_BAR), "roll", close_to(quantity))

    spread = quantity * np.array([60.6e3, 60.6e3, 61.2e3]) * 2e-4  # entry, and both halves of the roll
    fees = quantity * np.array([60.6e3 * 0.9998, 60.6e3 * 1.0002, 61.2e3 * 0.9998]) * 1e-3
    assert book(result, "spread", 1)[ROLL_BAR - 1 : ROLL_BAR + 1] == close_to([spread[0], spread.sum()])
    assert book(result, "fees", 1)[ROLL_BAR - 1 : ROLL_BAR + 1] == close_to([fees[0], fees.sum()])
    assert book(result, "basis", 1)[:60] == close_to(np.zeros(60))
    gained = -quantity * (far[1:] - 61.2e3)
    costs = np.where(np.arange(120) < ROLL_BAR, spread[0] + fees[0], spread.sum() + fees.sum())
    np.testing.assert_allclose(equity(result), CAPITAL + gained - costs, rtol=EXACT)
    assert result.metrics["n_trades"].item() == 1


def test_an_order_in_flight_across_a_roll_has_no_delay_cost_of_the_jump(market):
    market.bars(BYBIT_SPOT, np.full(121, 60e3), held=lambda bar: 55 <= bar < 70)
    market.bars(NEAR, np.full(105, 60.6e3)).bars(FAR, np.full(121, 61.2e3))
    legs = {BYBIT_SPOT: 1.0, CHAIN: {"ratio": -1.0, "roll_days": 2}}
    result = simulated(market, legs, n_bars=120, fills={"latency": "2h"}, **SWITCH)
    entry = fills(result, action="entry", leg=1)[0]
    assert (entry["decision_ts"], entry["ts"]) == (hour(55), hour(57))
    assert (entry["arrival_price"], entry["fill_price"], entry["delay_usd"]) == (61.2e3, 61.2e3, 0.0)
    np.testing.assert_allclose(equity(result), CAPITAL, rtol=EXACT)


def test_a_position_on_its_way_out_rolls_and_leaves_the_next_contract(market):
    market.bars(BYBIT_SPOT, np.full(121, 60e3), held=lambda bar: bar < 55)
    market.bars(NEAR, np.full(105, 60.6e3)).bars(FAR, np.full(121, 61.2e3))
    legs = {BYBIT_SPOT: 1.0, CHAIN: {"ratio": -1.0, "roll_days": 2}}
    result = simulated(market, legs, n_bars=120, fills={"latency": "2h"}, **SWITCH)
    assert [row["ts"] for row in fills(result, action="roll")] == [hour(56)] * 2
    assert [(row["ts"], row["fill_price"]) for row in fills(result, action="exit", leg=1)] == [(hour(57), 61.2e3)]
    np.testing.assert_allclose(equity(result), CAPITAL, rtol=EXACT)


def test_a_chain_rolls_early_when_its_basis_is_gone(market):
    spot = np.full(61, 60e3)
    near = np.where(np.arange(61) < 21, 60.6e3, 60.06e3)
    market.bars(BYBIT_SPOT, spot).bars(NEAR, near).bars(FAR, np.full(61, 61.2e3))
    legs = {BYBIT_SPOT: 1.0, CHAIN: {"ratio": -1.0, "roll_days": 1, "roll_basis_apr": 0.12}}
    result = simulated(market, legs, n_bars=60)
    apr = [(near[bar] / 60e3 - 1) * 8760 / (104 - bar) for bar in range(1, 60)]  # the close before, hours then left
    due = 1 + next(place for place, value in enumerate(apr) if value <= 0.12)
    assert due == 21
    assert [row["ts"] for row in fills(result, action="roll")] == [hour(due)] * 2
    quantity = CAPITAL / (60e3 + 60.6e3 / 3)
    np.testing.assert_allclose(equity(result)[:20], CAPITAL, rtol=EXACT)
    np.testing.assert_allclose(equity(result)[20:], CAPITAL + quantity * 540.0, rtol=EXACT)


def test_the_last_contract_of_a_chain_is_delivered(market):
    market.bars(BYBIT_SPOT, np.full(111, 60e3)).bars(NEAR, np.full(105, 60.6e3))
    result = simulated(market, {BYBIT_SPOT: 1.0, CHAIN: -1.0}, n_bars=110)
    (delivery,) = fills(result, action="delivery")
    assert (delivery["ts"], delivery["fill_price"]) == (hour(104), 60e3)
    assert (result.metrics["n_rolls"].item(), fills(result, action="roll")) == (0, [])


def test_a_chain_begins_in_the_first_contract_that_has_not_expired(market):
    market.bars(BYBIT_SPOT, np.full(121, 60e3)).bars(NEAR, np.full(105, 60.6e3)).bars(FAR, np.full(121, 61.2e3))
    data = {"start": hour(106).isoformat()}
    result = simulated(market, {BYBIT_SPOT: 1.0, CHAIN: -1.0}, n_bars=120, data=data)
    assert [row["fill_price"] for row in fills(result, action="entry")] == [60e3, 61.2e3]
    assert result.metrics["n_rolls"].item() == 0


def test_a_chain_that_is_not_held_rolls_without_a_fill(market):
    market.bars(BYBIT_SPOT, np.full(121, 60e3), held=lambda bar: bar >= 80)
    market.bars(NEAR, np.full(105, 60.6e3)).bars(FAR, np.full(121, 61.2e3))
    result = simulated(market, {BYBIT_SPOT: 1.0, CHAIN: -1.0}, n_bars=120, **SWITCH)
    assert (result.metrics["n_rolls"].item(), fills(result, action="roll")) == (0, [])
    assert [row["fill_price"] for row in fills(result, action="entry")] == [60e3, 61.2e3]


def test_an_inverse_chain_has_the_dollars_of_the_new_contract_after_its_roll(market):
    chain = "future:binance_cm:BTC-USD"
    far = np.interp(np.arange(121), [0, 60, 100], [61.2e3, 61.2e3, 60.3e3])
    market.bars(SPOT, np.full(121, 60e3)).bars(f"{chain}-20240105", np.full(105, 60.6e3))
    market.bars(f"{chain}-20240112", far)
    result = simulated(market, {SPOT: 1.0, chain: {"ratio": -1.0, "roll_days": 2}}, n_bars=120)
    coins = CAPITAL / 60e3
    assert result.metrics["n_rolls"].item() == 1
    contracts = coins * 61.2e3
    gained = contracts * (1 / far[1:] - 1 / 61.2e3) * 60e3
    np.testing.assert_allclose(equity(result), CAPITAL + gained, rtol=EXACT)
    np.testing.assert_allclose(positions(result, 1), -coins, rtol=EXACT)


def test_a_calendar_spread_ends_with_the_near_contract_and_the_far_one_is_sold_in_that_bar(market):
    far, near = np.linspace(61e3, 62.5e3, 111), np.linspace(60.4e3, 62e3, 111)[:105]
    market.bars(FAR, far).bars(NEAR, near)
    market.series("index/bybit/BTC-USDT", range(100, 108), open=[61.9e3] * 8, close=[61.8e3] * 8,
                  high=[61.9e3] * 8, low=[61.8e3] * 8)  # fmt: skip
    result = simulated(market, {FAR: 1.0, NEAR: -1.0}, n_bars=110)
    quantity = CAPITAL * 3 / (61e3 + 60.4e3)
    (delivery,) = fills(result, action="delivery")
    assert (delivery["leg"], delivery["ts"], delivery["fill_price"]) == (1, hour(104), close_to(61.85e3))
    (sale,) = fills(result, action="exit")
    assert (sale["leg"], sale["reason"], sale["ts"], sale["fill_price"]) == (0, "expiry", hour(104), close_to(far[104]))
    before = quantity * ((far[1:105] - far[0]) - (near[1:105] - near[0]))
    np.testing.assert_allclose(equity(result)[:104], CAPITAL + before, rtol=EXACT)
    after = quantity * ((far[104] - far[0]) - (61.85e3 - near[0])) - quantity * 61.85e3 * DELIVERY_FEE
    np.testing.assert_allclose(equity(result)[104:], CAPITAL + after, rtol=EXACT)


def test_an_inverse_calendar_spread_is_delivered_in_coins_at_the_price_of_the_far_contract(market):
    first, second = "future:binance_cm:BTC-USD-20240112", "future:binance_cm:BTC-USD-20240105"
    far, near = np.linspace(61e3, 62.5e3, 111), np.linspace(60.4e3, 62e3, 111)[:105]
    market.bars(first, far).bars(second, near)
    index = {name: [61.85e3] * 8 for name in ("open", "high", "low", "close")}
    market.series("index/binance_cm/BTC-USD", range(100, 108), **index)
    result = simulated(market, {first: 1.0, second: -1.0}, n_bars=110)
    quantity = CAPITAL * 3 / (2 * 61e3)  # both at the price of the first
    coins = quantity * near[0] * (1 / 61.85e3 - 1 / near[0])
    fee = quantity * near[0] / 61.85e3 * far[104] * 5e-4
    gained = quantity * (far[104] - far[0]) + coins * far[104] - fee
    assert equity(result)[-1] == close_to(CAPITAL + gained)


def test_borrowed_spot_against_a_long_future_is_bought_back_at_the_delivery(market):
    spot, future = dated_market(market)
    price = with_index(market)
    result = simulated(market, {BYBIT_SPOT: -1.0, DATED: 1.0}, n_bars=40, costs={"borrow_apr": 0.1})
    quantity = CAPITAL / (spot[0] + future[0] / 3)
    interest = quantity * spot[1:33].sum() * 0.1 / 8760  # at the closes before each hour
    gained = quantity * ((price - future[0]) - (spot[32] - spot[0])) - quantity * price * DELIVERY_FEE - interest
    assert equity(result)[-1] == close_to(CAPITAL + gained)
    assert result.trades["pnl_usd"].item() == close_to(gained)


def test_a_future_of_prices_alone_is_traded_where_it_has_one(market):
    spot = np.linspace(60e3, 62.4e3, 25)
    market.bars(BYBIT_SPOT, spot)
    points = {-5: 60.5e3, 3: 60.9e3, 11: 61.5e3, 19: 62.2e3, 27: 62.4e3}
    market.series("future/bybit/BTC-USDT-20240112", points, close=list(points.values()))
    result = simulated(market, {BYBIT_SPOT: 1.0, FAR: -1.0}, n_bars=24)
    entry = fills(result, action="entry")
    assert [(row["decision_ts"], row["ts"]) for row in entry] == [(hour(0), hour(3))] * 2
    assert [row["fill_price"] for row in entry] == [spot[3], 60.9e3]
    assert [row["arrival_price"] for row in entry] == [spot[0], 60.5e3]
    assert [row["reason"] for row in events(result, "waiting")] == ["untradable"]
    quantity = CAPITAL / (60e3 + 60.5e3 / 3)
    # the price of an instant is the close of the bar that ends there
    future = np.array([next(points[at] for at in (19, 11, 3) if at <= bar + 1) for bar in range(3, 24)])
    gained = quantity * ((spot[4:] - spot[3]) - (future - 60.9e3))
    np.testing.assert_allclose(equity(result)[3:], CAPITAL + gained, rtol=EXACT)


def test_a_run_that_cannot_be_short_reads_no_borrow_rates(market):
    spot = np.full(25, 60e3)
    market.bars(BYBIT_SPOT, spot).perp("perp:bybit:BTC-USDT", spot)
    market.series("borrow/bybit/BTC", range(30, 40), rate_apr=[0.05] * 10)
    result = simulated(market, {BYBIT_SPOT: 1.0, "perp:bybit:BTC-USDT": -1.0}, n_bars=24)
    assert "borrow" not in {row["series"] for row in result.manifest["inputs"]}
    with pytest.raises(DataError, match="begins after the run"):
        simulated(market, {BYBIT_SPOT: -1.0, "perp:bybit:BTC-USDT": 1.0}, n_bars=24)


def test_each_series_of_rates_is_read_once(market, monkeypatch):
    spot, asked = np.full(25, 60e3), []
    market.bars(BYBIT_SPOT, spot).perp("perp:bybit:BTC-USDT", spot)
    market.series("quote_usd/bybit/USDT", range(-1, 24), close=[1.0] * 25)
    read_series = legs_of_frames.read_series

    def counted(root, key, **options):
        asked.append(key)
        return read_series(root, key, **options)

    monkeypatch.setattr(legs_of_frames, "read_series", counted)
    legs = {BYBIT_SPOT: 1.0, "perp:bybit:BTC-USDT": -1.0}
    simulated(market, legs, n_bars=24, data={"series": ["quote_usd"]})
    assert len(asked) == len(set(asked))


def sparse_chain(market, **leg):
    """Spot at 60,000 against contracts of 60,600 and 61,200 whose prices are seen each eight hours."""
    market.bars(BYBIT_SPOT, np.full(121, 60e3))
    for contract, price in ((NEAR, 60.6e3), (FAR, 61.2e3)):
        hours = range(-8, 121, 8)
        market.series(contract.replace(":", "/"), hours, close=[price] * len(hours))
    return {BYBIT_SPOT: 1.0, CHAIN: {"ratio": -1.0, "roll_days": 2, **leg}}


def test_a_contract_just_rolled_into_has_its_own_price_where_none_is_seen(market):
    result = simulated(market, sparse_chain(market), n_bars=120)
    assert len(fills(result, action="roll")) == 2
    np.testing.assert_allclose(equity(result), CAPITAL, rtol=EXACT)


def test_an_outage_over_a_roll_is_refused(market):
    raw = config(market, sparse_chain(market), n_bars=120)
    span = {"start": hour(ROLL_BAR - 1).isoformat(), "end": hour(ROLL_BAR + 3).isoformat()}
    raw["scenarios"] = [{"kind": "outage", "venue": "bybit", **span}]
    with pytest.raises(ConfigError, match="an outage covers the roll"):
        basis_bt.run(raw)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_roll_by_basis_does_not_depend_on_the_order_of_the_legs(market, is_first):
    far, last = (f"{CHAIN}-{day}" for day in ("20240112", "20240126"))
    for contract, price in ((NEAR, 60e3), (far, 60.95e3), (last, 61e3)):
        market.bars(contract, np.full(100, price))
    chain = {CHAIN: {"ratio": -1.0, "roll_days": 0, "roll_basis_apr": -0.2}}
    legs = {**chain, last: 1.0} if is_first else {last: 1.0, **chain}
    result = simulated(market, legs, n_bars=60)
    assert result.metrics["n_rolls"].item() == 0  # what is not held rolls without a fill
    entry = fills(result, action="entry", instrument=CHAIN)
    assert [row["fill_price"] for row in entry] == [60.95e3]


def test_a_chain_against_nothing_has_no_basis_to_roll_by(market):
    market.bars(NEAR, np.full(60, 60e3)).bars(FAR, np.full(60, 61e3))
    legs = {CHAIN: {"ratio": -1.0, "roll_basis_apr": 0.0}, "future:okx:BTC-USDT": 1.0}
    with pytest.raises(ConfigError, match="no other leg tells what its basis is"):
        simulated(market, legs, n_bars=40)


def test_a_contract_of_no_day_is_refused(market):
    with pytest.raises(ConfigError, match="20241340 is no day"):
        simulated(market, {BYBIT_SPOT: 1.0, f"{CHAIN}-20241340": -1.0}, n_bars=40)


def test_a_chain_of_very_many_contracts_is_read(market):
    market.bars(BYBIT_SPOT, np.full(41, 60e3))
    for day in range(90):
        contract = f"{CHAIN}-{(START + timedelta(days=30 + day)):%Y%m%d}"
        market.bars(contract, np.full(41, 60e3 + day))
    result = simulated(market, {BYBIT_SPOT: 1.0, CHAIN: -1.0}, n_bars=40)
    assert fills(result, instrument=CHAIN)[0]["fill_price"] == 60e3


# ----------------------------------------------------------------------------------------------------- quote currencies

QUOTED = {"data": {"series": ["quote_usd"]}}


@pytest.mark.parametrize("columns", [{"close": [1.0, 0.99]}, {"open": [1.0, 0.99], "close": [0.5, 0.5]}])
def test_cash_falls_with_its_currency_and_hedged_positions_do_not_add_to_it(market, columns):
    path = np.linspace(60e3, 66e3, 13)
    market.bars(SPOT, path).perp(PERP, path)
    market.series("quote_usd/binance/USDT", [-24, 4.5], **columns)
    result = simulated(market, {SPOT: 1.0, PERP: -1.0}, n_bars=12, **QUOTED)
    np.testing.assert_allclose(equity(result), [CAPITAL] * 5 + [0.99 * CAPITAL] * 7, rtol=EXACT)
    np.testing.assert_allclose(book(result, "fx", 0), [0.0] * 5 + [-0.01 * CAPITAL] * 7, atol=1e-6)
    assert result.metrics["fx_usd"].item() == close_to(-0.01 * CAPITAL)
    rate = np.array([1.0] * 5 + [0.99] * 7)
    prices = result.attribution.filter(pl.col("leg") == 0)["close_price"]
    np.testing.assert_allclose(prices, path[1:] * rate, rtol=EXACT)


def test_a_currency_that_is_always_worth_less_moves_nothing_but_the_quantity(market):
    path = np.linspace(60e3, 66e3, 13)
    market.bars(SPOT, path).perp(PERP, path * 1.001)
    market.series("quote_usd/binance/USDT", [-24], close=[0.99])
    result = simulated(market, {SPOT: 1.0, PERP: -1.0}, n_bars=12, **QUOTED)
    quantity = CAPITAL / (0.99 * (60e3 + 60.06e3 / 3))
    assert positions(result, 0)[0] == close_to(quantity)
    gained = -quantity * 0.99 * 0.001 * (path[1:] - path[0])
    np.testing.assert_allclose(equity(result), CAPITAL + gained, rtol=EXACT)
    assert result.metrics["fx_usd"].item() == 0.0


def test_funding_is_paid_in_the_currency_at_its_rate_of_that_bar(market):
    path = np.full(13, 60e3)
    market.bars(SPOT, path).perp(PERP, path, [1e-3])
    market.series("quote_usd/binance/USDT", [-24, 8], close=[1.0, 0.97])
    result = simulated(market, {SPOT: 1.0, PERP: -1.0}, n_bars=12, **QUOTED)
    quantity = CAPITAL / (60e3 + 20e3)
    assert book(result, "funding", 1)[-1] == close_to(quantity * 60e3 * 0.97 * 1e-3)


def test_a_row_without_a_rate_leaves_the_one_before_in_force(market):
    spot = np.full(25, 60e3)
    market.bars(BYBIT_SPOT, spot).perp("perp:bybit:BTC-USDT", spot)
    market.series("quote_usd/bybit/USDT", range(-1, 24), open=[1.0] * 10 + [None] + [1.0] * 14, close=[1.0] * 25)
    legs = {BYBIT_SPOT: 1.0, "perp:bybit:BTC-USDT": -1.0}
    result = simulated(market, legs, n_bars=24, data={"series": ["quote_usd"]})
    np.testing.assert_allclose(equity(result), CAPITAL, rtol=EXACT)
    assert not any("begins within" in flag for flag in result.manifest["flags"])


def test_rates_that_begin_after_the_run_are_refused(market):
    spot = np.full(25, 60e3)
    market.bars(BYBIT_SPOT, spot).perp("perp:bybit:BTC-USDT", spot)
    market.series("quote_usd/bybit/USDT", range(30, 40), close=[1.0] * 10)
    legs = {BYBIT_SPOT: 1.0, "perp:bybit:BTC-USDT": -1.0}
    with pytest.raises(DataError, match="begins after it"):
        simulated(market, legs, n_bars=24, data={"series": ["quote_usd"]})


def test_a_wallet_of_two_currencies_is_refused(market):
    path, other = np.full(13, 60e3), "perp:binance:BTC-USDC"
    market.bars(SPOT, path).perp(other, path)
    for quote in ("USDT", "USDC"):
        market.series(f"quote_usd/binance/{quote}", [-24], close=[1.0])
    legs = {SPOT: 1.0, other: -1.0}
    with pytest.raises(ConfigError, match="USDC, USDT") as error:
        simulated(market, legs, n_bars=12, **QUOTED)
    assert "segregated" in str(error.value)
    result = simulated(market, legs, n_bars=12)
    assert any("counts as one dollar" in flag for flag in result.manifest["flags"])


def test_dollars_are_dollars_and_each_wallet_has_its_own_currency(market):
    path, spot = np.full(13, 60e3), "spot:kraken:BTC-USD"
    market.bars(spot, path).perp(PERP, path)
    market.series("quote_usd/binance/USDT", [-24, 5], close=[1.0, 0.99])
    options = {"size": {"leverage": 1.0}, "wallets": {"mode": "segregated", "margin": "none"}}
    result = simulated(market, {spot: 1.0, PERP: -1.0}, n_bars=12, **QUOTED, **options)
    # half of the capital is the short's margin in USDT; its sale and its price fall together
    np.testing.assert_allclose(equity(result), [CAPITAL] * 5 + [0.995 * CAPITAL] * 7, rtol=EXACT)
    assert book(result, "fx", 0)[-1] == 0.0
    assert book(result, "fx", 1)[-1] == close_to(-0.01 * CAPITAL)


def test_a_synthetic_dollar_outlives_the_peg_of_the_currency_its_coin_is_bought_in(market):
    path, rate = np.linspace(60e3, 75e3, 13), np.where(np.arange(13) < 5, 1.0, 0.8)
    market.bars(SPOT, path / rate).perp(INVERSE, path)  # the coin costs more of a currency that is worth less
    market.series("quote_usd/binance/USDT", [-24, 5], close=[1.0, 0.8])
    result = simulated(market, {SPOT: 1.0, INVERSE: -1.0}, n_bars=12, **QUOTED)
    opens = np.array([0, 1, 2, 3, *range(5, 12)])  # the close of bar 4 is a price of the new rate at the old one
    np.testing.assert_allclose(equity(result)[opens], CAPITAL, rtol=EXACT)
    assert book(result, "fx", 0)[3] == 0.0


def test_a_contract_dollar_that_buys_fewer_coins_than_it_sold_for_is_a_loss(market):
    path = np.linspace(60e3, 75e3, 13)
    market.bars(SPOT, path).perp(INVERSE, path)
    market.series("quote_usd/binance/USDT", [-24, 5], close=[1.0, 0.99])
    result = simulated(market, {SPOT: 1.0, INVERSE: -1.0}, n_bars=12, **QUOTED)
    # the contract goes on counting in USDT prices: what is left are 60,000 / P of each coin, worth 0.99 P
    np.testing.assert_allclose(equity(result), [CAPITAL] * 5 + [0.99 * CAPITAL] * 7, rtol=EXACT)
    assert result.metrics["fx_usd"].item() == close_to(0.0)


def test_a_wallet_of_coin_margined_legs_alone_is_in_dollars(market):
    path, other = np.linspace(60e3, 66e3, 13), "perp:bybit:BTC-USD"
    market.perp(INVERSE, path).perp(other, path)
    result = simulated(market, {INVERSE: 1.0, other: -1.0}, n_bars=12, **QUOTED)
    np.testing.assert_allclose(equity(result), CAPITAL, rtol=EXACT)


def test_a_currency_series_that_begins_within_the_run_is_said_in_the_manifest(market):
    path = np.full(13, 60e3)
    market.bars(SPOT, path).perp(PERP, path)
    market.series("quote_usd/binance/USDT", [5], close=[0.99])
    result = simulated(market, {SPOT: 1.0, PERP: -1.0}, n_bars=12, **QUOTED)
    assert any("quote_usd/binance/USDT begins within the run" in flag for flag in result.manifest["flags"])
    np.testing.assert_allclose(equity(result), CAPITAL, rtol=EXACT)


def test_a_dated_future_is_delivered_in_the_dollars_its_currency_is_worth(market):
    dated_market(market)
    price = with_index(market)
    market.series("quote_usd/bybit/USDT", [-24], close=[0.98])
    result = simulated(market, {BYBIT_SPOT: 1.0, DATED: -1.0}, n_bars=40, **QUOTED)
    (delivery,) = fills(result, action="delivery")
    assert delivery["fill_price"] == close_to(0.98 * price)
    assert delivery["fee_usd"] == close_to(delivery["quantity_base"] * 0.98 * price * DELIVERY_FEE)


# ---------------------------------------------------------------------------------------------- borrowed coins and cash


def shorted(market, *, n_bars, venue="binance", quote="USDT", held=None):
    """Flat prices; spot sold short against a long perp."""
    spot, perp, path = f"spot:{venue}:BTC-{quote}", f"perp:{venue}:BTC-{quote}", np.full(n_bars + 1, 60e3)
    market.bars(spot, path, held=held).perp(perp, path)
    return {spot: -1.0, perp: 1.0}


BORROWED = CAPITAL / (60e3 + 20e3) * 60e3  # dollars of coin that are short at leverage 3


def test_spot_cannot_be_short_without_a_borrow_rate(market):
    legs = shorted(market, n_bars=12)
    with pytest.raises(ConfigError, match="borrow") as error:
        simulated(market, legs, n_bars=12)
    assert "spot:binance:BTC-USDT" in str(error.value)
    reverse = {"rule": {"reverse": True}}
    with pytest.raises(ConfigError, match="borrow"):
        simulated(market, {leg: -ratio for leg, ratio in legs.items()}, n_bars=12, **reverse)


def test_borrowed_coins_pay_their_rate_for_each_hour_begun(market):
    legs = shorted(market, n_bars=12, held=lambda bar: bar < 10)
    result = simulated(market, legs, n_bars=12, costs={"borrow_apr": 0.1}, **SWITCH)
    hours = np.minimum(np.arange(12), 10)
    paid = BORROWED * 0.1 * hours / 8760
    np.testing.assert_allclose(book(result, "borrow", 0), paid, atol=1e-9)
    np.testing.assert_allclose(equity(result), CAPITAL - paid, rtol=1e-12)
    assert result.metrics["borrow_usd"].item() == close_to(paid[-1])
    assert any("no borrow series" in flag for flag in result.manifest["flags"])


def test_half_hours_of_a_loan_pay_the_hour_they_begin(market):
    legs = shorted(market, n_bars=12)
    for leg in legs:
        half, path = market.root / f"{leg.replace(':', '/')}.parquet", np.full(24, 60e3)
        volume = 1 + 0.1 * (np.arange(24) % 2)
        market.series(str(half.relative_to(market.root)).removesuffix(".parquet"), np.arange(-1, 11, 0.5),
                      open=path, high=path, low=path, close=path, volume=volume)  # fmt: skip
    result = simulated(market, legs, n_bars=6, costs={"borrow_apr": 0.1}, data={"bar": "30m"})
    hours = np.ceil(np.arange(12) / 2)
    np.testing.assert_allclose(book(result, "borrow", 0), BORROWED * 0.1 * hours / 8760, atol=1e-9)


def test_a_borrow_series_gives_the_rate_of_the_bar_that_is_charged(market):
    legs = shorted(market, n_bars=8)
    market.series("borrow/binance/BTC", [-2, 3.5], rate_apr=[0.1, 0.2])
    result = simulated(market, legs, n_bars=8, costs={"borrow_apr": 9.0})
    rate = np.array([0.0] + [0.1] * 4 + [0.2] * 3)  # the one in force at the stamp before
    np.testing.assert_allclose(book(result, "borrow", 0), BORROWED * np.cumsum(rate) / 8760, atol=1e-9)


def test_kraken_charges_an_opening_and_four_hours_at_a_time(market):
    legs = shorted(market, n_bars=10, venue="kraken", quote="USD")
    result = simulated(market, legs, n_bars=10, costs={"borrow_apr": 0.1})
    hours = np.array([0, 8, 8, 8, 8, 12, 12, 12, 12, 16])
    np.testing.assert_allclose(book(result, "borrow", 0), BORROWED * 0.1 * hours / 8760, atol=1e-9)


def test_a_loan_paid_back_begins_anew(market):
    legs = shorted(market, n_bars=10, venue="kraken", quote="USD", held=lambda bar: bar < 2 or 4 <= bar < 6)
    options = {"costs": {"borrow_apr": 0.1}, "size": {"compounding": False}}
    result = simulated(market, legs, n_bars=10, **options, **SWITCH)
    hours = np.array([0, 8, 8, 8, 8, 16, 16, 16, 16, 16])
    np.testing.assert_allclose(book(result, "borrow", 0), BORROWED * 0.1 * hours / 8760, atol=1e-9)


def test_coins_that_are_owed_count_in_full_against_the_margin_of_the_long_perp(market):
    market.bars(SPOT, UP_AND_DOWN).perp(PERP, UP_AND_DOWN)
    options = {"costs": {"borrow_apr": 0.0}, "wallets": {"margin": "venue"}}
    result = simulated(market, {SPOT: -1.0, PERP: 1.0}, n_bars=36, **options)
    np.testing.assert_allclose(equity(result), CAPITAL, rtol=EXACT)
    assert result.metrics["n_liquidations"].item() == 0
    notional = CAPITAL / 80e3 * 120e3  # at the highest price
    assert result.metrics["min_margin_ratio"].item() == close_to(CAPITAL / notional)


@pytest.mark.parametrize("mode", ["pooled", "segregated"])
def test_idle_cash_earns_its_yield_before_and_while_a_combo_is_held(market, mode):
    path, perp = np.full(25, 60e3), "perp:bybit:BTC-USDT"
    market.bars(SPOT, path, held=lambda bar: bar >= 3).perp(perp, path)
    options = {"size": {"allocation": 0.5, "leverage": 2.0}, "wallets": {"mode": mode, "cash_yield_apr": 0.05}}
    result = simulated(market, {SPOT: 1.0, perp: -1.0}, n_bars=24, **options, **SWITCH)
    growth = 1 + 0.05 / 8760
    at_entry = CAPITAL * growth**3
    idle = at_entry - 0.5 * at_entry / 1.5  # what the coins cost earns nothing, margin does
    expected = [CAPITAL * growth**bar for bar in range(3)] + [
        at_entry + idle * (growth ** (bar - 3) - 1) for bar in range(3, 24)
    ]
    np.testing.assert_allclose(equity(result), expected, rtol=1e-12)
    earned = book(result, "yield", 0) + book(result, "yield", 1)
    np.testing.assert_allclose(earned, np.array(expected) - CAPITAL, atol=1e-6)
    assert result.metrics["yield_usd"].item() == close_to(earned[-1])


# ------------------------------------------------------------------------------------------------------------- on chain

LST, ETH_PERP, ETH_SPOT = "lst:lido:wstETH-ETH", "perp:binance:ETH-USDT", "spot:binance:ETH-USDT"
STAKED = {LST: {"ratio": 1.0, "price": ETH_SPOT}, ETH_PERP: -1.0}
NO_GAS = {"costs": {"gas_gwei": 0.0}}


def staked(market, *, held=None, n_bars=72):
    """Staked coins that redeem for 0.1 % more on day 2 and 0.3 % more on day 3, priced by the spot of the coin."""
    path = np.linspace(3000.0, 3600.0, n_bars + 1)
    market.bars(ETH_SPOT, path, held=held).perp(ETH_PERP, path)
    market.series("lst/lido/wstETH-ETH", [-24, 0, 24, 48], ratio=[1.2, 1.2, 1.2 * 1.001, 1.2 * 1.003])
    return path


def test_a_staked_coin_grows_in_kind_and_its_hedge_is_not_called_naked(market):
    path = staked(market)
    result = simulated(market, STAKED, n_bars=72, **NO_GAS)
    quantity = CAPITAL / (3000.0 + 1000.0)
    grown = np.repeat([1.0, 1.001, 1.003], 24)
    np.testing.assert_allclose(positions(result, 0), quantity * grown, rtol=EXACT)
    np.testing.assert_allclose(positions(result, 1), -quantity, rtol=EXACT)
    np.testing.assert_allclose(equity(result), CAPITAL + quantity * (grown - 1) * path[1:], rtol=EXACT)
    earned = quantity * np.array([0.001 * path[24], 0.002 * path[48]])  # at the closes before
    assert book(result, "yield", 0)[[23, 24, 71]] == close_to([0.0, earned[0], earned.sum()])
    assert result.metrics["naked_hours"].item() == 0.0


def test_a_staked_coin_grows_in_the_dollars_its_currency_is_worth(market):
    path = staked(market)
    market.series("quote_usd/binance/USDT", [-24], close=[0.5])
    result = simulated(market, STAKED, n_bars=72, **NO_GAS, **QUOTED)
    quantity = CAPITAL / (0.5 * 4000.0)
    grown = np.repeat([1.0, 1.001, 1.003], 24)
    np.testing.assert_allclose(equity(result), CAPITAL + quantity * (grown - 1) * 0.5 * path[1:], rtol=EXACT)


def test_what_has_grown_is_sold_and_what_was_sold_short_is_bought_back(market):
    path = staked(market, held=lambda bar: bar < 60)
    result = simulated(market, STAKED, n_bars=72, **NO_GAS, **SWITCH)
    quantity = CAPITAL / 4000.0
    sold, bought = fills(result, action="exit")
    assert (sold["quantity_base"], bought["quantity_base"]) == (close_to(quantity * 1.003), close_to(quantity))
    assert sold["ts"] == bought["ts"] == hour(60)
    np.testing.assert_allclose(equity(result)[60:], CAPITAL + quantity * 0.003 * path[60], rtol=EXACT)
    assert (result.metrics["naked_hours"].item(), result.metrics["n_rollbacks"].item()) == (0.0, 0)


def test_a_trade_has_its_yield_among_its_gains(market):
    path = staked(market, held=lambda bar: bar < 60)
    result = simulated(market, STAKED, n_bars=72, **NO_GAS, **SWITCH)
    assert result.trades["pnl_usd"].item() == close_to(CAPITAL / 4000.0 * 0.003 * path[60])


def test_a_trade_has_what_its_currency_lost_among_its_losses(market):
    path = np.full(13, 60e3)
    market.bars(SPOT, path).perp(PERP, path)
    market.series("quote_usd/binance/USDT", [-24, 5], close=[1.0, 0.99])
    result = simulated(market, {SPOT: 1.0, PERP: -1.0}, n_bars=12, **QUOTED)
    assert result.trades["pnl_usd"].item() == close_to(-0.01 * CAPITAL)


def test_growth_is_paid_in_cash_while_an_order_is_in_flight(market):
    path = staked(market, held=lambda bar: bar < 23)
    result = simulated(market, STAKED, n_bars=72, fills={"latency": "2h"}, **NO_GAS, **SWITCH)
    quantity = CAPITAL / 4000.0
    sold = fills(result, action="exit", leg=0)
    assert [(row["ts"], row["quantity_base"]) for row in sold] == [(hour(25), close_to(quantity))]
    assert positions(result, 0)[24] == close_to(quantity)
    np.testing.assert_allclose(equity(result)[24:], CAPITAL + quantity * 0.001 * path[24], rtol=EXACT)


def test_every_fill_on_a_chain_pays_gas(market):
    path = staked(market, held=lambda bar: bar < 60)
    fixed = simulated(market, STAKED, n_bars=72, costs={"gas_gwei": 20.0, "gas_units": 1e5}, **SWITCH)
    gas = [1e5 * 20 * 1e-9 * path[bar] for bar in (0, 60)]
    assert [row["fee_usd"] for row in fills(fixed, leg=0)] == close_to(gas)
    assert [row["fee_usd"] for row in fills(fixed, leg=1)] == [0.0, 0.0]
    assert book(fixed, "fees", 0)[[0, 59, 60, 71]] == close_to([gas[0], gas[0], sum(gas), sum(gas)])
    with pytest.raises(ConfigError, match="gas"):
        simulated(market, STAKED, n_bars=72)
    market.series("onchain/gas/ethereum", [-1, 30], gas_price_avg_gwei=[10.0, 40.0])
    loaded = simulated(market, STAKED, n_bars=72)
    assert book(loaded, "fees", 0)[-1] == close_to(250_000 * 10 * 1e-9 * path[0])
    later = simulated(market, STAKED, n_bars=72, **SWITCH)
    assert book(later, "fees", 0)[-1] == close_to(250_000e-9 * (10 * path[0] + 40 * path[60]))


COLLATERAL, DEBT = "lending:aave_v3_ethereum:USDC", "lending:aave_v3_ethereum:WETH"
LOAN = {COLLATERAL: 4000.0, DEBT: -1.0}
ETHER = [2000.0] * 4 + [3600.0] + [4000.0] * 6  # at hours -1 to 9: passes 3,800 in the bar of hour 3


def test_a_loan_earns_and_pays_by_its_indices(market):
    index = [1.0, 1.0, 1.0, 1.02, 1.02, 1.05]
    market.lending("USDC", range(-1, 5), [1.0] * 6).lending("WETH", range(-1, 5), [2000.0] * 6, index=index)
    result = simulated(market, LOAN, n_bars=5, **NO_GAS)
    debt = CAPITAL / 2000.0 * np.array(index[1:])  # 500 ether, against 2 million dollars
    np.testing.assert_allclose(positions(result, 1), -debt, rtol=EXACT)
    np.testing.assert_allclose(equity(result), 2e6 - 2000.0 * debt, rtol=EXACT)
    assert book(result, "borrow", 1)[-1] == close_to(CAPITAL * 0.05)


def test_both_legs_of_a_loan_pay_gas(market):
    market.lending("USDC", range(-1, 5), [1.0] * 6).lending("WETH", range(-1, 5), [2000.0] * 6)
    result = simulated(market, LOAN, n_bars=5, costs={"gas_gwei": 10.0})
    assert [row["fee_usd"] for row in result.fills.rows(named=True)] == close_to([250_000 * 10e-9 * 2000.0] * 2)


def test_half_of_a_large_loan_is_repaid_at_health_one_and_the_rest_closed_in_the_next_bar(market):
    market.lending("USDC", range(-1, 10), [1.0] * 11).lending("WETH", range(-1, 10), ETHER)
    options = {"wallets": {"margin": "venue"}, "rule": {"cooldown_hours": 100}}
    result = simulated(market, LOAN, n_bars=8, **NO_GAS, **options)
    # 2,000,000 x 0.95 = 500 x 3,800; 250 ether repaid, and 1 % more than their worth taken
    taken = fills(result, action="liquidation")
    assert [(row["ts"], row["leg"], row["side"]) for row in taken] == [(hour(3), 0, -1), (hour(3), 1, 1)]
    assert [row["quantity_base"] for row in taken] == close_to([250 * 3800 * 1.01, 250.0])
    assert [row["fill_price"] for row in taken] == close_to([1.0, 3800.0])
    assert [row["fee_usd"] for row in taken] == [0.0, 0.0]
    assert book(result, "liquidation", 0)[-1] == close_to(9_500.0)
    (event,) = events(result, "liquidation")
    assert (event["ts"], event["quantity_base"]) == (hour(3), close_to(959_500.0))
    assert result.metrics["n_liquidations"].item() == 1
    rest = fills(result, reason="liquidation", action="exit")
    assert [(row["ts"], row["quantity_base"], row["fill_price"]) for row in rest] == [
        (hour(4), close_to(1_040_500.0), 1.0), (hour(4), close_to(250.0), 4000.0)
    ]  # fmt: skip
    np.testing.assert_allclose(equity(result)[3:], 40_500.0, rtol=EXACT)
    assert result.metrics["liquidation_usd"].item() == close_to(9_500.0)


def test_a_small_loan_is_repaid_whole(market):
    market.lending("USDC", range(-1, 10), [1.0] * 11).lending("WETH", range(-1, 10), ETHER)
    options = {"wallets": {"margin": "venue"}, "rule": {"cooldown_hours": 100}, "size": {"capital_usd": 1000.0}}
    result = simulated(market, LOAN, n_bars=8, **NO_GAS, **options)
    # a debt of 0.5 ether is 1,900 dollars at 3,800
    assert [row["quantity_base"] for row in fills(result, action="liquidation")] == close_to([1900 * 1.01, 0.5])
    np.testing.assert_allclose(equity(result)[3:], 81.0, rtol=EXACT)


def test_loans_are_not_liquidated_where_margin_is_not_tested(market):
    market.lending("USDC", range(-1, 10), [1.0] * 11).lending("WETH", range(-1, 10), ETHER)
    result = simulated(market, LOAN, n_bars=8, **NO_GAS)
    assert result.metrics["n_liquidations"].item() == 0
    assert equity(result)[-1] == close_to(0.0)


def test_a_loan_cannot_be_traded_the_other_way_round(market):
    market.lending("USDC", range(-1, 10), [1.0] * 11).lending("WETH", range(-1, 10), ETHER)
    with pytest.raises(ConfigError, match="rule.reverse") as error:
        simulated(market, LOAN, n_bars=8, rule={"reverse": True}, **NO_GAS)
    assert COLLATERAL in str(error.value)


@pytest.mark.parametrize("margin", ["none", "venue"])
def test_the_leverage_loop_on_real_indices_ends_where_the_reference_says(margin):
    market = Market(real_market())
    folder = market.root / "onchain" / "aave_v3_ethereum"
    price = {
        coin: pl.read_parquet(folder / f"{coin}.parquet").filter(
            pl.col("ts").dt.date().is_between(datetime(2024, 5, 12).date(), datetime(2025, 9, 29).date())
        )["oracle_price_usd"]
        for coin in ("wstETH", "WETH")
    }
    redeems = price["wstETH"][0] / price["WETH"][0]
    raw = config(
        market,
        {"lending:aave_v3_ethereum:wstETH": 1.0, "lending:aave_v3_ethereum:WETH": -0.8 * redeems},  # 50 against 40
        n_bars=0,
        data={"start": "2024-05-12T00:00Z", "end": "2025-09-30T00:00Z", "bar": "1d"},
        size={"capital_usd": 10 * price["WETH"][0]},
        wallets={"margin": margin},
        **NO_GAS,
    )
    result = run(raw)
    assert result.equity["ts"][-1] == datetime(2025, 9, 29, tzinfo=UTC)
    ether = equity(result) / result.attribution.filter(pl.col("leg") == 1)["close_price"].to_numpy()
    assert ether[-1] == pytest.approx(10.5991699, abs=1e-6)  # reference/onchain.md, section 5
    held = positions(result, 0) * price["wstETH"][0] / price["WETH"][0], -positions(result, 1)
    assert (held[0][0], held[1][0]) == (close_to(50.0), close_to(40.0))
    assert result.metrics["n_liquidations"].item() == 0


# ---------------------------------------------------------------------------------------- fee tiers and rows of the day


def bybit_pair(market, *, n_bars, held=None):
    path, perp = np.full(n_bars + 1, 60e3), "perp:bybit:BTC-USDT"
    market.bars(BYBIT_SPOT, path, held=held).perp(perp, path)
    return {BYBIT_SPOT: 1.0, perp: -1.0}


def without_fees_of_its_own(raw):
    del raw["costs"]["taker_fee_bps"]
    return raw


def fee_bps(result, leg):
    """The fee of each fill of a leg, by the hour of the fill."""
    return {
        (row["ts"] - START).total_seconds() / 3600: row["fee_usd"] / row["notional_usd"] * 1e4
        for row in fills(result, leg=leg)
    }


def test_a_fixed_tier_is_paid_by_every_fill(market):
    legs = bybit_pair(market, n_bars=12, held=lambda bar: bar < 6)
    result = run(without_fees_of_its_own(config(market, legs, n_bars=12, costs={"fee_tier": 1}, **SWITCH)))
    assert result.manifest["fees_bps"] == {"spot:bybit:BTC-USDT": 8.0, "perp:bybit:BTC-USDT": 4.0}
    assert fee_bps(result, 0) == {0: close_to(8.0), 6: close_to(8.0)}
    assert fee_bps(result, 1) == {0: close_to(4.0), 6: close_to(4.0)}


def test_a_tier_the_venue_does_not_have_is_refused(market):
    legs = bybit_pair(market, n_bars=12)
    with pytest.raises(ConfigError, match="no tier 9"):
        run(without_fees_of_its_own(config(market, legs, n_bars=12, costs={"fee_tier": 9})))


def test_volume_moves_the_fee_from_the_next_day_on_and_for_thirty_days(market):
    hours = [(1, 5), (25, 27), (745, 747)]  # days 0, 1 and 31
    legs = bybit_pair(market, n_bars=768, held=lambda bar: any(a <= bar < b for a, b in hours))
    size = {"capital_usd": 24e6, "leverage": 1.0, "compounding": False}  # 12 million a leg, 24 million a round trip
    raw = config(market, legs, n_bars=768, costs={"fee_tier": "volume"}, size=size, **SWITCH)
    result = run(without_fees_of_its_own(raw))
    # perp: 4.0 from 10 million and 3.75 from 25 million on; day 31 counts days 1 to 30, so day 0 no longer
    assert fee_bps(result, 1) == close_to({1: 5.5, 5: 5.5, 25: 4.0, 27: 4.0, 745: 4.0, 747: 4.0})
    assert fee_bps(result, 0) == close_to({1: 10.0, 5: 10.0, 25: 7.5, 27: 7.5, 745: 7.5, 747: 7.5})
    busy = raw | {"costs": {"fee_tier": "volume", "volume_30d_usd": 1e6}}  # 25 million in all on days 1 and 31
    assert fee_bps(run(busy), 1) == close_to({1: 5.5, 5: 5.5, 25: 3.75, 27: 3.75, 745: 3.75, 747: 3.75})


def test_a_row_of_a_later_day_moves_no_number_before_it(market, rulebook):
    path = np.full(73, 60e3)
    held = [(0, 10), (20, 52)]
    market.bars(SPOT, path, held=lambda bar: any(a <= bar < b for a, b in held)).perp(PERP, path, [1e-4] * 9)
    raw = config(
        market, {SPOT: 1.0, PERP: -1.0}, n_bars=72, size={"allocation": 0.9, "leverage": 2.0},
        wallets={"margin": "venue"}, rule={"cooldown_hours": 5}, **SWITCH,
    )  # fmt: skip
    raw = without_fees_of_its_own(raw)
    before = run(raw)
    rulebook("binance", FEE_ROW.format(effective="2024-01-03"))
    rulebook("binance", MARGIN_ROW.format(instrument=PERP, rate=0.9, effective="2024-01-03"))
    rulebook("binance", LIQUIDATION_ROW.format(effective="2024-01-03"))
    after = run(raw)
    day = hour(48)
    for table in ("equity", "attribution", "fills", "funding", "events"):
        rows = [result.tables[table].filter(pl.col("ts") < day) for result in (before, after)]
        assert rows[0].height > 0
        assert rows[0].equals(rows[1]), table
    assert before.manifest["rulebook_hash"] != after.manifest["rulebook_hash"]
    assert before.manifest["config_hash"] == after.manifest["config_hash"]
    assert fee_bps(before, 0) == close_to({0: 10.0, 10: 10.0, 20: 10.0, 52: 10.0})
    # 90 % of the short must now be there, and two thirds are: it is closed at midnight, the spot an hour later
    assert before.metrics["n_liquidations"].item() == 0
    (event,) = events(after, "liquidation")
    assert event["ts"] == day
    (closed,) = fills(after, action="liquidation")
    assert closed["fee_usd"] == close_to(closed["quantity_base"] * 60e3 * 0.02)
    assert fee_bps(after, 0) == close_to({0: 10.0, 10: 10.0, 20: 10.0, 49: 20.0})


def test_a_trailing_volume_climbs_the_fees_in_force_on_the_day(market, rulebook):
    path = np.full(73, 60e3)
    held = [(0, 10), (20, 52)]
    market.bars(SPOT, path, held=lambda bar: any(a <= bar < b for a, b in held)).perp(PERP, path)
    small = {"capital_usd": 1000.0}  # no tier is reached
    raw = config(market, {SPOT: 1.0, PERP: -1.0}, n_bars=72, costs={"fee_tier": "volume"}, size=small, **SWITCH)
    rulebook("binance", FEE_ROW.format(effective="2024-01-03"))
    assert fee_bps(run(without_fees_of_its_own(raw)), 0) == close_to({0: 10.0, 10: 10.0, 20: 10.0, 52: 20.0})


def test_a_fee_of_a_later_day_is_paid_from_that_day_on(market, rulebook):
    path = np.full(73, 60e3)
    held = [(0, 10), (20, 52)]
    market.bars(SPOT, path, held=lambda bar: any(a <= bar < b for a, b in held)).perp(PERP, path)
    raw = without_fees_of_its_own(config(market, {SPOT: 1.0, PERP: -1.0}, n_bars=72, **SWITCH))
    rulebook("binance", FEE_ROW.format(effective="2024-01-03"))
    result = run(raw)
    assert fee_bps(result, 0) == close_to({0: 10.0, 10: 10.0, 20: 10.0, 52: 20.0})
    assert fee_bps(result, 1) == close_to({0: 5.0, 10: 5.0, 20: 5.0, 52: 5.0})
