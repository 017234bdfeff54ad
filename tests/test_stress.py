"""Which wallet of a book dies first and at what price, against closed forms, and the verb that says it."""

import json
import math
import sys
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from realdata import real_market

import basis_bt
from basis_bt.backtest.stress import stress
from basis_bt.cli.main import entry
from basis_bt.core.config import build_config
from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import Instrument
from basis_bt.core.rulebook import margin_tiers
from basis_bt.reports.stress_chart import write_stress_chart

FIRST = datetime(2026, 6, 1, tzinfo=UTC)
HOURS = 48
MARGIN = date(2026, 6, 1)


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """BTC at 100,000 and never above for two days on every venue, no funding: what is left is the margin."""
    root = tmp_path_factory.mktemp("market")
    ts = [FIRST + timedelta(hours=hour) for hour in range(-2, HOURS + 1)]
    price = pl.Series([100_000.0] * len(ts))
    low, volume = price - 10.0, pl.Series([10.0 + hour % 3 for hour in range(len(ts))])
    bars = pl.DataFrame({"ts": ts, "open": price, "high": price, "low": low, "close": price, "volume": volume})
    rates = pl.DataFrame({"ts": ts[2::8], "rate": [0.0] * len(ts[2::8])})
    for venue, symbol in (("binance", "BTC-USDT"), ("bybit", "BTC-USDT"), ("binance_cm", "BTC-USD")):
        for series, frame in (("spot", bars), ("perp", bars), ("funding", rates)):
            path = root / series / venue / f"{symbol}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC"))).write_parquet(path)
    return root


def config(root, *legs, capital_usd, leverage, **wallets):
    return {
        "name": "book",
        "data": {"root": str(root), "start": FIRST.isoformat(), "end": (FIRST + timedelta(hours=HOURS)).isoformat()},
        "combo": {"legs": [{"instrument": name, "ratio": ratio} for name, ratio in legs]},
        "signal": {"name": "sql", "sql": "close_0 * 0 + 1"},
        "rule": {"entry": 0.5, "exit": -1.0},
        "size": {"capital_usd": capital_usd, "allocation": 1.0, "leverage": leverage, "lots": "none"},
        "costs": {"taker_fee_bps": 0.0},
        "wallets": {"mode": "segregated", **wallets},
    }


@pytest.fixture(scope="module")
def carry(market):
    """Case E of reference/margin.md: 10 BTC long on one venue, short at 2x on 500,000 on the other."""
    legs = ("spot:bybit:BTC-USDT", 1.0), ("perp:binance:BTC-USDT", -1.0)
    return config(market, *legs, capital_usd=1_500_000.0, leverage=2.0)


def surplus_by_hand(equity_at_one, quantity, price, factor, instrument, on):
    """Equity less maintenance of a wallet with one linear position, at a factor on its price."""
    tiers = margin_tiers(Instrument.parse(instrument), on=on, price_usd=price)
    equity = equity_at_one + quantity * price * (factor - 1.0)
    return equity - tiers.maintenance_usd(abs(quantity) * price * factor)


def test_the_short_of_a_carry_at_2x_dies_at_the_published_price(carry):
    """149,180.3279 of reference/margin.md, case E; the spot wallet never dies."""
    result = stress(carry)
    perp = result.legs.row(1, named=True)
    assert perp["position_base"] == pytest.approx(-10.0)
    assert perp["price_up"] == pytest.approx(149_180.3279, abs=5e-5)
    assert perp["price_down"] is None
    assert result.first("up") == "binance"
    assert result.first("down") is None
    wallets = {row["wallet"]: row for row in result.wallets.iter_rows(named=True)}
    assert wallets["binance"]["equity_usd"] == pytest.approx(500_000.0)
    assert wallets["binance"]["maintenance_usd"] == pytest.approx(1e6 * 0.0065 - 1_500.0)
    assert wallets["binance"]["margin_ratio"] == pytest.approx(0.5)
    assert wallets["bybit"]["factor_up"] is None
    assert wallets["bybit"]["margin_ratio"] is None


def test_a_run_dies_where_its_stress_says(carry):
    """A path to just under the factor leaves the run alive, one to just over it is liquidated."""
    factor = stress(carry).wallets["factor_up"][1]
    for reach, liquidations in ((factor * (1 - 1e-6), 0), (factor * (1 + 1e-6), 1)):
        path = {
            "kind": "price_path", "coin": "BTC", "factor": reach,
            "start": (FIRST + timedelta(hours=10)).isoformat(), "end": (FIRST + timedelta(hours=20)).isoformat(),
        }  # fmt: skip
        metrics = basis_bt.run(carry | {"scenarios": [path]}).metrics
        assert metrics["n_liquidations"].item() == liquidations


def test_a_long_and_a_short_perp_die_on_opposite_sides(market):
    legs = ("perp:bybit:BTC-USDT", 1.0), ("perp:binance:BTC-USDT", -1.0)
    result = stress(config(market, *legs, capital_usd=200_000.0, leverage=10.0))
    assert (result.first("down"), result.first("up")) == ("bybit", "binance")
    for row, column in ((0, "factor_down"), (1, "factor_up")):
        leg, wallet = result.legs.row(row, named=True), result.wallets.row(row, named=True)
        left = surplus_by_hand(
            wallet["equity_usd"], leg["position_base"], leg["price"], wallet[column], leg["instrument"], MARGIN
        )
        assert left == pytest.approx(0.0, abs=1e-6 * leg["notional_usd"])
        other = ({"factor_down", "factor_up"} - {column}).pop()
        assert wallet[other] is None


def test_spot_that_backs_its_short_moves_the_price_at_which_it_dies(market):
    """One wallet: h Q P + cash - Q P = MM(Q P), so the death at haircut h solves cash = (1 - h + mmr) Q P - amount."""
    legs = ("spot:binance:BTC-USDT", 1.0), ("perp:binance:BTC-USDT", -1.0)
    naked, backed = (
        stress(config(market, *legs, capital_usd=1_500_000.0, leverage=2.0, spot_collateral=haircut))
        for haircut in (None, 0.95)
    )
    assert naked.legs["price_up"][1] == pytest.approx(149_180.3279, abs=5e-5)
    assert naked.legs["price_up"][0] == naked.legs["price_up"][1]
    price = backed.legs["price_up"][1]
    tiers = margin_tiers(Instrument.parse("perp:binance:BTC-USDT"), on=MARGIN)
    assert 1_500_000.0 - 0.05 * 10.0 * price == pytest.approx(tiers.maintenance_usd(10.0 * price), rel=1e-9)
    assert price > 5 * naked.legs["price_up"][1]


def test_a_pooled_run_is_one_wallet_even_where_it_tests_no_margin(market):
    legs = ("spot:bybit:BTC-USDT", 1.0), ("perp:binance:BTC-USDT", -1.0)
    result = stress(config(market, *legs, capital_usd=1_500_000.0, leverage=2.0, mode="pooled"))
    assert result.wallets["wallet"].to_list() == ["all"]
    assert result.legs["price_up"].to_list() == pytest.approx([149_180.3279] * 2, abs=5e-5)


def test_a_coin_margined_short_that_its_coin_backs_never_dies(market):
    legs = ("spot:binance:BTC-USDT", 1.0), ("perp:binance_cm:BTC-USD", -1.0)
    result = stress(config(market, *legs, capital_usd=1e6, leverage=1.0, mode="pooled", margin="venue"))
    assert result.legs["position_base"].to_list() == pytest.approx([10.0, -10.0])
    wallet = result.wallets.row(0, named=True)
    assert wallet["equity_usd"] == pytest.approx(1e6)
    assert (wallet["factor_down"], wallet["factor_up"]) == (None, None)


def test_a_coin_margined_short_without_its_coin_keeps_its_maintenance(market):
    """Its notional is the dollars of its contracts at any price: it dies where equity is the maintenance of today."""
    legs = ("perp:bybit:BTC-USDT", 1.0), ("perp:binance_cm:BTC-USD", -1.0)
    result = stress(config(market, *legs, capital_usd=1e6, leverage=2.0))
    leg, wallet = result.legs.row(1, named=True), result.wallets.row(1, named=True)
    assert leg["position_base"] == pytest.approx(-10.0)
    room_usd = wallet["equity_usd"] - wallet["maintenance_usd"]
    assert wallet["maintenance_usd"] > 0.0
    assert leg["price_up"] == pytest.approx(100_000.0 + room_usd / 10.0, rel=1e-9)


def test_the_picture_of_a_book_crosses_zero_where_it_dies(carry, tmp_path):
    result = stress(carry)
    factor = result.wallets["factor_up"][1]
    curve = result.surplus(np.array([1.0, factor * (1 - 1e-9), factor * (1 + 1e-9)]))
    assert curve["wallet"].unique().to_list() == ["binance"]
    assert curve["surplus_usd"][0] == pytest.approx(500_000.0 - 5_000.0)
    assert curve["surplus_usd"][1] > 0.0 > curve["surplus_usd"][2]
    path = write_stress_chart(curve, result.wallets, tmp_path / "stress.png", title="a book")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_book_is_that_of_the_least_margin_or_of_the_bar_asked_for(carry):
    """A path up and half of the way back: the least margin is where it is highest."""
    path = {
        "kind": "price_path", "coin": "BTC", "factor": 1.2, "recover": True,
        "start": (FIRST + timedelta(hours=10)).isoformat(), "end": (FIRST + timedelta(hours=20)).isoformat(),
    }  # fmt: skip
    result = basis_bt.run(carry | {"scenarios": [path]})
    least = stress(result)
    assert least.ts == FIRST + timedelta(hours=14)
    assert least.legs["price"].to_list() == pytest.approx([120_000.0] * 2)
    asked = stress(result, at=FIRST + timedelta(hours=2, minutes=59))
    assert asked.ts == FIRST + timedelta(hours=2)
    assert asked.legs["price"].to_list() == [100_000.0] * 2
    assert least.legs["price_up"][1] == pytest.approx(asked.legs["price_up"][1], rel=1e-12)


@pytest.mark.parametrize(("at", "says"), [("2026-05-01T00:00Z", "is not in"), ("2026-06-03T00:00Z", "is not in")])
def test_a_time_outside_the_run_is_refused(carry, at, says):
    with pytest.raises(ConfigError, match=says):
        stress(carry, at=at)


def test_a_book_that_holds_nothing_is_refused_with_the_nearest_that_does(carry):
    late = carry | {"signal": {"name": "sql", "sql": "CASE WHEN history_hours >= 6 THEN 1.0 ELSE 0.0 END"}}
    result = basis_bt.run(late)
    entry_ts = result.fills["ts"][0]
    with pytest.raises(ConfigError, match="nothing is held") as error:
        stress(result, at=FIRST)
    assert entry_ts.isoformat() in error.value.fix
    with pytest.raises(ConfigError, match="never holds anything"):
        stress(carry | {"rule": {"entry": 2.0, "exit": 1.0}})


# ------------------------------------------------------------------------------------------------------------- the verb


def verb(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["basis-bt", "stress", *arguments])
    return entry()


def test_a_run_folder_and_its_result_have_one_stress(carry, tmp_path, monkeypatch, capsys):
    result = basis_bt.run(carry)
    folder = result.save(tmp_path)
    assert stress(folder).wallets.equals(stress(result).wallets)
    assert verb(monkeypatch, "book", "--runs", str(tmp_path), "--plot", str(tmp_path / "book.png")) == 0
    shown = capsys.readouterr().out
    assert "binance dies first, at +49.18 %" in shown
    assert "149,180.3279" in shown
    assert "never" in shown
    assert (tmp_path / "book.png").stat().st_size > 10_000
    assert verb(monkeypatch, "book", "--runs", str(tmp_path), "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert math.isclose(rows[1]["price_up"], 149_180.3279, abs_tol=5e-5)
    assert rows[0]["price_up"] is None


def test_a_configuration_is_run_first(carry, tmp_path, monkeypatch, capsys):
    lines = [f'name = "{carry["name"]}"']
    for section in ("data", "signal", "rule", "size", "costs", "wallets"):
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in carry[section].items())]
    for leg in carry["combo"]["legs"]:
        lines += ["[[combo.legs]]", *(f"{key} = {json.dumps(value)}" for key, value in leg.items())]
    path = tmp_path / "book.toml"
    path.write_text("\n".join(lines))
    assert verb(monkeypatch, str(path), "--set", "size.leverage=3", "--format", "csv") == 0
    rows = pl.read_csv(capsys.readouterr().out.encode())
    assert rows["price_up"][1] == pytest.approx(stress(build_config(carry | {
        "size": carry["size"] | {"leverage": 3.0}})).legs["price_up"][1])  # fmt: skip
    assert rows["price_up"][1] < 149_180.0
    assert verb(monkeypatch, str(path), "--at", "yesterday") == 2
    assert "--at" in capsys.readouterr().err
    assert verb(monkeypatch, "nothing-of-that-name") != 0


def test_a_real_book_dies_where_its_tiers_say():
    """BTC on two venues at 3x from 2024-01-01: each price by substitution into the venue's tiers of that day."""
    legs = ("spot:bybit:BTC-USDT", 1.0), ("perp:binance:BTC-USDT", -1.0)
    real = config(real_market(), *legs, capital_usd=1e6, leverage=3.0)
    real["data"] |= {"start": "2024-01-01T00:00Z", "end": "2024-02-01T00:00Z"}
    result = stress(real)
    leg, wallet = result.legs.row(1, named=True), result.wallets.row(1, named=True)
    assert wallet["factor_up"] > 1.0
    left = surplus_by_hand(
        wallet["equity_usd"], leg["position_base"], leg["price"], wallet["factor_up"], leg["instrument"],
        result.ts.date(),
    )  # fmt: skip
    assert left == pytest.approx(0.0, abs=1e-9 * leg["notional_usd"])
