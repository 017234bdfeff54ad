"""The rulebook: rows are documented, the one in force is chosen, and a future row changes nothing before its day."""

import csv
import math
import shutil
import tomllib
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import real_market

from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import Instrument
from basis_bt.core.rulebook import (
    borrow_rule,
    contract_size,
    days_of_change,
    delivery_rule,
    fee_bps,
    fee_kind,
    fee_ladder,
    funding_rule,
    is_coin_margined,
    liquidation_fee_bps,
    lot_and_minimum,
    margin_tiers,
    rulebook_hash,
    transfer_rule,
)
from basis_bt.core.rules import rows as rows_module
from basis_bt.kernels.contracts import charged_hours
from basis_bt.kernels.fees import tier_of_volume

FOLDER = rows_module.FOLDER
BOOKS = {file.stem: tomllib.loads(file.read_text()) for file in sorted(FOLDER.glob("*.toml"))}
TABLES = {
    "fees": {"kind", "maker_bps", "taker_bps"},
    "fee_tiers": {"kind", "volume_days", "tiers"},
    "lots": {"instrument", "lot_base", "min_notional_usd"},
    "contracts": {"instrument", "size", "unit"},
    "funding": {"instrument", "default_interval_hours", "premium_divisor", "paid_on"},
    "funding_caps": {"instrument", "cap_frac"},
    "margin": {"instrument", "unit", "tiers"},
    "liquidation": {"fee_bps", "reason"},
    "delivery": {"expiry_hour", "averaging_minutes"},
    "borrow": {"period_hours", "opening_periods"},
    "transfers": {"fee_usd", "hours"},
}
ROWS = [
    pytest.param(table, row, id=f"{venue}-{table}-{row.get('instrument', row.get('kind', ''))}-{row['effective']}")
    for venue, book in BOOKS.items()
    for table, rows in book.items()
    if table in TABLES
    for row in rows
]
SETS = [row for book in BOOKS.values() for row in book.get("margin", [])]
DAY = date(2024, 11, 1)
BTC = Instrument.parse("perp:binance:BTC-USDT")


def of(text):
    return Instrument.parse(text)


@pytest.fixture
def use_folder(monkeypatch):
    """Lets the rulebook read another folder of venue files."""

    def use(folder):
        monkeypatch.setattr(rows_module, "FOLDER", Path(folder))

    return use


# --- rows


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_every_row_is_documented_and_complete(table, row):
    assert row.keys() >= TABLES[table]
    assert isinstance(row["source"], str) and len(row["source"]) > 10
    assert isinstance(row["effective"], date) and isinstance(row["read"], date)
    assert row.get("confidence", "high") in ("high", "medium", "low")
    numbers = [value for value in row.values() if isinstance(value, float)]
    numbers += [value for step in row.get("tiers", []) for value in step]
    assert not any(math.isnan(value) for value in numbers)


def test_files_hold_no_table_the_rulebook_does_not_read():
    keys = {"exchange", "coin_margined_quotes", "coin_margined_venue"}
    for venue, book in BOOKS.items():
        assert set(book) <= set(TABLES) | keys, venue


def test_no_two_rows_of_one_subject_come_into_force_on_one_day():
    for venue, book in BOOKS.items():
        for table in TABLES:
            days = [(row.get("instrument", row.get("kind")), row["effective"]) for row in book.get(table, [])]
            assert len(days) == len(set(days)), (venue, table)


def test_hash_changes_when_any_byte_changes(tmp_path, use_folder):
    for index, file in enumerate(sorted(FOLDER.glob("*.toml"))):
        use_folder(FOLDER)
        before = rulebook_hash()
        copy = tmp_path / str(index)
        shutil.copytree(FOLDER, copy)
        use_folder(copy)
        assert rulebook_hash() == before
        changed = tmp_path / f"{index} changed"
        shutil.copytree(FOLDER, changed)
        text = file.read_bytes()
        (changed / file.name).write_bytes(text[:-2] + bytes([text[-2] ^ 1]) + text[-1:])
        use_folder(changed)
        assert rulebook_hash() != before


# --- a row of the future


NEW_ROWS = {
    "fees": ('kind = "perp"\nmaker_bps = 9.0\ntaker_bps = 99.0', 'kind = "spot"\nmaker_bps = 9.0\ntaker_bps = 99.0'),
    "fee_tiers": ('kind = "perp"\nvolume_days = 30.0\ntiers = [[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 9.0, 9.0]]',),
    "lots": ('instrument = "perp:{venue}:BTC-USDT"\nlot_base = 7.0\nmin_notional_usd = 7.0',),
    "contracts": (
        'instrument = "perp:{venue}:BTC-USDT"\nsize = 7.0\nunit = "base"',
        'instrument = "perp:{venue}:*"\nsize = 7.0\nunit = "base"',
    ),
    "funding": (
        'instrument = "perp:{venue}:*"\ndefault_interval_hours = 3.0\npremium_divisor = "none"\npaid_on = "mark"',
        'instrument = "perp:{venue}:ADA-*"\ndefault_interval_hours = 3.0\npremium_divisor = "none"\npaid_on = "mark"',
    ),
    "funding_caps": ('instrument = "perp:{venue}:BTC-USDT"\ncap_frac = 0.5',),
    "margin": (
        'instrument = "perp:{venue}:BTC-USDT"\nunit = "usd"\ntiers = [[0.0, inf, 0.9, 0.0, 1.0]]',
        'instrument = "perp:{venue}:NEW-USDT"\nunit = "usd"\ntiers = [[0.0, inf, 0.9, 0.0, 1.0]]',
        'instrument = "perp:{venue}:BTC-*"\nunit = "contracts"\ntiers = [[0.0, inf, 0.9, 0.0, 1.0]]',
    ),
    "liquidation": ('fee_bps = 999.0\nreason = "a new rule"',),
    "delivery": ("expiry_hour = 9.0\naveraging_minutes = 1.0\nfee_bps = 77.0",),
    "borrow": ("period_hours = 24.0\nopening_periods = 2.0",),
    "transfers": ("fee_usd = 99.0\nhours = 99.0",),
}
QUESTIONS = [
    "perp:{venue}:BTC-USDT",
    "perp:{venue}:BTC-USD",
    "perp:{venue}:NEW-USDT",
    "perp:{venue}:ADA-USDT",
    "spot:{venue}:BTC-USDT",
    "future:{venue}:BTC-USDT-20260327",
]


def asked(function, *arguments, **options):
    """The answer, or the refusal as text."""
    try:
        return function(*arguments, **options)
    except ConfigError as error:
        return str(error)


def answers(venue, on):
    """Everything the rulebook says about a venue on a day."""
    said = [asked(borrow_rule, venue, on=on), asked(transfer_rule, venue, "okx", on=on)]
    for text in QUESTIONS:
        instrument = of(text.format(venue=venue))
        said += [asked(fee_bps, instrument, liquidity=side, on=on) for side in ("maker", "taker")]
        said += [asked(fee_bps, instrument, liquidity="taker", on=on, tier=1), asked(fee_ladder, instrument, on=on)]
        said += [lot_and_minimum(instrument, on=on)]
        said += [contract_size(instrument, on=on), asked(margin_tiers, instrument, on=on, price_usd=2.0)]
        said += [asked(rule, instrument, on=on) for rule in (funding_rule, liquidation_fee_bps, delivery_rule)]
    return said


def with_row(folder, venue, table, text, effective):
    """A copy of the shipped tables with one more row."""
    shutil.copytree(FOLDER, folder)
    row = f'\n[[{table}]]\n{text.format(venue=venue)}\neffective = {effective}\nread = 2030-01-01\nsource = "a test"\n'
    with (folder / f"{venue}.toml").open("a") as file:
        file.write(row)


@settings(max_examples=60, deadline=None)
@given(
    venue=st.sampled_from(sorted(BOOKS)),
    row=st.sampled_from([(table, text) for table, texts in NEW_ROWS.items() for text in texts]),
    effective=st.dates(date(2019, 1, 2), date(2030, 1, 1)),
    days_before=st.integers(1, 4000),
)
def test_a_row_of_the_future_changes_no_earlier_answer(venue, row, effective, days_before):
    on = effective - timedelta(days=days_before)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        copy = Path(folder) / "venues"
        with_row(copy, venue, *row, effective)
        before = answers(venue, on)
        patch.setattr(rows_module, "FOLDER", copy)
        assert answers(venue, on) == before


@pytest.mark.parametrize("table", sorted(NEW_ROWS))
def test_a_new_row_counts_from_its_day_on(tmp_path, use_folder, table):
    before = answers("binance", date(2029, 12, 31)), answers("binance", date(2030, 1, 1))
    copy = tmp_path / "venues"
    with_row(copy, "binance", table, NEW_ROWS[table][0], date(2030, 1, 1))
    use_folder(copy)
    assert answers("binance", date(2029, 12, 31)) == before[0]
    assert answers("binance", date(2030, 1, 1)) != before[1]


def test_changing_a_future_row_moves_no_earlier_margin(tmp_path, use_folder):
    before = margin_tiers(BTC, on=date(2026, 4, 30))
    copy = tmp_path / "venues"
    shutil.copytree(FOLDER, copy)
    file = copy / "binance.toml"
    text = file.read_text()
    changed = text.replace("effective = 2026-05-01", "effective = 2026-05-02").replace("300_000.0", "310_000.0")
    assert changed != text
    file.write_text(changed)
    use_folder(copy)
    assert margin_tiers(BTC, on=date(2026, 4, 30)) == before
    assert margin_tiers(BTC, on=date(2026, 5, 1)) == before


# --- fees


def test_base_fees_are_the_published_ones():
    for venue, kind, maker, taker in (
        ("binance", "spot", 10.0, 10.0), ("binance", "perp", 2.0, 5.0), ("bybit", "spot", 10.0, 10.0),
        ("bybit", "perp", 2.0, 5.5), ("okx", "spot", 8.0, 10.0), ("okx", "perp", 2.0, 5.0),
        ("hyperliquid", "perp", 1.5, 4.5), ("kraken", "spot", 25.0, 40.0), ("kraken", "perp", 2.0, 5.0),
    ):  # fmt: skip
        instrument = Instrument(kind, venue, "BTC-USDT")
        assert fee_bps(instrument, liquidity="maker", on=DAY) == maker
        assert fee_bps(instrument, liquidity="taker", on=DAY) == taker


def test_inverse_perps_pay_their_own_fee():
    for text in ("perp:binance_cm:BTC-USD", "perp:binance:BTC-USD"):
        assert fee_kind(of(text)) == "inverse_perp"
        assert fee_bps(of(text), liquidity="maker", on=DAY) == 1.0
        assert fee_bps(of(text), liquidity="taker", on=DAY) == 5.0
    assert fee_kind(of("perp:kraken:BTC-USD")) == "perp"  # PF_, margined in dollars
    assert not is_coin_margined(of("spot:bybit:BTC-USD"))


def test_tiers_follow_the_volume():
    taker = [fee_bps(BTC, liquidity="taker", on=DAY, tier=tier) for tier in range(10)]
    assert taker == [5.0, 4.0, 3.5, 3.2, 3.0, 2.7, 2.5, 2.2, 2.0, 1.7]
    assert fee_bps(of("spot:okx:BTC-USDT"), liquidity="maker", on=DAY, tier=7) == -0.5
    assert tier_reached("perp:bybit:BTC-USDT", 9_999_999.0) == 0
    assert tier_reached("perp:bybit:BTC-USDT", 10_000_000.0) == 1
    assert tier_reached("perp:binance:BTC-USDT", 1e12) == 1  # further volumes are not known
    assert tier_reached("perp:hyperliquid:BTC-USDC", 1e7) == 0  # 4.67 million in 14 days
    assert tier_reached("perp:hyperliquid:BTC-USDC", 1.1e7) == 1
    assert tier_reached("perp:okx:BTC-USDT", 1e12) == 0  # no ladder is confirmed


def tier_reached(name, volume_30d_usd):
    """The tier of a volume, whose fees must be those of the step it is found at."""
    ladder = fee_ladder(of(name), on=DAY)
    if not ladder:
        return 0
    tier = tier_of_volume(volume_30d_usd, np.array([step.volume_usd for step in ladder]))
    assert ladder[tier].taker_bps == fee_bps(of(name), liquidity="taker", on=DAY, tier=tier)
    assert ladder[tier].maker_bps == fee_bps(of(name), liquidity="maker", on=DAY, tier=tier)
    return tier


def test_a_ladder_begins_with_the_base_fee_and_never_rises():
    for venue, book in BOOKS.items():
        for ladder in book.get("fee_tiers", []):
            steps = ladder["tiers"]
            base = [row for row in book["fees"] if row["kind"] == ladder["kind"]][0]
            assert steps[0] == [0.0, 0.0, base["maker_bps"], base["taker_bps"]], venue
            assert [step[0] for step in steps] == list(range(len(steps)))
            known = [step[1] for step in steps if math.isfinite(step[1])]
            assert known == sorted(set(known))
            for column in (2, 3):
                fees = [step[column] for step in steps]
                assert fees == sorted(fees, reverse=True), (venue, ladder["kind"])


def test_an_unknown_fee_names_the_key_to_set():
    with pytest.raises(ConfigError, match="no perp fee for nowhere") as error:
        fee_bps(of("perp:nowhere:BTC-USDT"), liquidity="taker", on=DAY)
    assert "costs.taker_fee_bps" in error.value.fix
    with pytest.raises(ConfigError, match="no tier 10 of perp fees for binance") as error:
        fee_bps(BTC, liquidity="taker", on=DAY, tier=10)
    assert error.value.where["tiers"] == "0 to 9"


# --- margin


@pytest.mark.parametrize("row", SETS, ids=lambda row: f"{row['instrument']}-{row['effective']}")
def test_tiers_join_without_gaps(row):
    floors, caps, rates, _, leverages = zip(*row["tiers"], strict=True)
    assert floors[0] == 0.0 and floors[1:] == caps[:-1]
    assert list(caps) == sorted(set(caps))
    assert list(rates) == sorted(rates) and list(leverages) == sorted(leverages, reverse=True)
    for rate, leverage in zip(rates, leverages, strict=True):
        assert 0.0 < rate < 1.0 / leverage  # what opens a position is more than what keeps it


@pytest.mark.parametrize(
    "row",
    [row for row in SETS if row["instrument"].split(":")[1] in ("binance", "bybit")],
    ids=lambda row: f"{row['instrument']}-{row['effective']}",
)
def test_maintenance_is_continuous_at_every_cap(row):
    amount = 0.0
    for (_, cap, rate, _, _), (_, _, next_rate, next_amount, _) in zip(row["tiers"], row["tiers"][1:], strict=False):
        amount += cap * (next_rate - rate)
        assert next_amount == pytest.approx(amount, rel=1e-9, abs=1e-6)  # the identity accumulates rounding


def test_bybit_and_binance_have_no_jump_on_either_side_of_a_cap():
    for text in ("perp:binance:BTC-USDT", "perp:binance:ETH-USDT", "perp:bybit:BTC-USDT"):
        tiers = margin_tiers(of(text), on=date(2026, 6, 1))
        for floor in tiers.floor_usd[1:]:
            above = tiers.maintenance_usd(math.nextafter(floor, math.inf))
            assert above == pytest.approx(tiers.maintenance_usd(floor), rel=1e-9)


@pytest.mark.parametrize(
    ("on", "notional_usd", "maintenance_usd"),
    [
        (date(2026, 5, 1), 100_000, 400), (date(2026, 5, 1), 300_000, 1_200), (date(2026, 5, 1), 500_000, 2_200),
        (date(2026, 5, 1), 1_000_000, 5_000), (date(2026, 5, 1), 5_000_000, 38_000),
        (date(2026, 5, 1), 20_000_000, 268_000),
        # by the brackets of October 2024: 0.4 % to 50,000, 0.5 % - 50, 0.65 % - 950, 1 % - 11,450, 2 % - 131,450
        (date(2024, 10, 24), 50_000, 200), (date(2024, 10, 24), 100_000, 450), (date(2024, 10, 24), 300_000, 1_450),
        (date(2026, 4, 30), 500_000, 2_450), (date(2024, 11, 1), 1_000_000, 5_550),
        (date(2024, 11, 1), 5_000_000, 38_550), (date(2024, 11, 1), 20_000_000, 268_550),
    ],
)  # fmt: skip
def test_worked_maintenance_of_btc_at_binance(on, notional_usd, maintenance_usd):
    tiers = margin_tiers(BTC, on=on)
    assert tiers.maintenance_usd(notional_usd) == pytest.approx(maintenance_usd, rel=1e-12)
    assert tiers.known and tiers.dated and tiers.flag == ""


def test_a_notional_at_a_cap_is_still_in_the_lower_tier():
    tiers = margin_tiers(of("perp:kraken_cm:BTC-USD"), on=date(2026, 6, 1))  # 1 % to 500,000 contracts, 2 % above
    assert tiers.maintenance_usd(500_000.0) == 5_000.0
    assert tiers.maintenance_usd(500_001.0) == pytest.approx(10_000.02, rel=1e-12)
    assert tiers.maintenance_usd(0.0) == 0.0


def test_days_before_the_oldest_tiers_are_flagged():
    tiers = margin_tiers(BTC, on=date(2021, 1, 1))
    assert tiers.known and not tiers.dated and tiers.effective == date(2024, 10, 24)
    assert "oldest known" in tiers.flag
    assert tiers.floor_usd == margin_tiers(BTC, on=date(2024, 10, 24)).floor_usd


def test_contracts_become_dollars_at_a_price_and_one_safe_tier_without():
    ada = of("perp:okx:ADA-USDT")
    tiers = margin_tiers(ada, on=DAY, price_usd=0.5)  # 100 ADA a contract: 1,500, 3,000 and 6,000 contracts
    assert tiers.floor_usd == (0.0, 75_000.0, 150_000.0) and tiers.cap_usd == 300_000.0
    assert tiers.mmr == (0.005, 0.0075, 0.01)
    safe = margin_tiers(ada, on=DAY)
    assert (safe.floor_usd, safe.mmr, safe.max_leverage) == ((0.0,), (0.01,), (40.0,))
    aave = margin_tiers(of("perp:okx:AAVE-USDT"), on=DAY, price_usd=100.0)  # its contract size is not known
    assert (aave.floor_usd, aave.mmr) == ((0.0,), (0.015,))
    btc = margin_tiers(of("perp:okx:BTC-USDT"), on=date(2026, 6, 1), price_usd=100_000.0)
    assert btc.cap_usd == 1_000_000.0  # 1,000 contracts of 0.01 BTC
    kraken = margin_tiers(of("perp:kraken_cm:BTC-USD"), on=date(2026, 6, 1))
    assert kraken.floor_usd == (0.0, 500_000.0)  # contracts of one dollar need no price


def test_an_unlisted_instrument_takes_the_most_conservative_set_and_says_so():
    tiers = margin_tiers(of("perp:binance:NEVERLISTED-USDT"), on=DAY)
    assert not tiers.known and "lists no margin tiers for perp:binance:NEVERLISTED-USDT" in tiers.flag
    listed = {row["instrument"] for row in BOOKS["binance"]["margin"]}
    needed = [margin_tiers(of(name), on=DAY).maintenance_usd(1e6) for name in listed]
    assert tiers.maintenance_usd(1e6) == max(needed)


def test_an_unlisted_perp_takes_the_same_coin_first():
    tiers = margin_tiers(of("perp:binance_cm:ETH-USD"), on=DAY)
    assert not tiers.known and "perp:binance:ETH-USDT" in tiers.flag
    assert tiers.mmr == margin_tiers(of("perp:binance:ETH-USDT"), on=DAY).mmr
    assert margin_tiers(of("perp:binance:ETH-USD"), on=DAY).mmr == tiers.mmr
    dated = margin_tiers(of("future:binance_cm:ETH-USD-20241227"), on=DAY)
    assert dated.maintenance_usd(1e6) > tiers.maintenance_usd(1e6)


def test_an_exchange_without_tiers_is_refused():
    with pytest.raises(ConfigError, match="no margin tiers for perp:deribit:BTC-USD"):
        margin_tiers(of("perp:deribit:BTC-USD"), on=DAY)


def test_every_row_of_the_reference_is_in_the_book():
    file = real_market().parents[1] / "reference" / "margin_tiers.csv"
    if not file.is_file():
        pytest.skip(f"the reference tables are not at {file}")
    with file.open() as lines:
        reference = list(csv.DictReader(lines))
    assert len(reference) == 177
    for line in reference:
        base, _, quote = line["symbol"].split(":")[0].partition("/")
        venue = {"krakenfutures": "kraken_cm"}.get(line["venue"], line["venue"])
        kind, ending = ("future", "-*") if line["product"] == "linear_dated" else ("perp", "")
        name = f"{kind}:{venue}:{base}-{quote}{ending}"
        year = line["as_of"][:4]
        sets = [
            row for row in BOOKS[venue]["margin"] if row["instrument"] == name and str(row["effective"])[:4] == year
        ]
        assert len(sets) == 1, name
        assert sets[0]["unit"] == ("contracts" if line["unit"] == "contracts" else "usd")
        step = sets[0]["tiers"][int(line["tier"]) - 1]
        assert step == [
            float(line["floor"]), float(line["cap"] or "inf"), float(line["maintenance_margin_rate"]),
            float(line["maintenance_amount"] or 0), float(line["max_leverage"]),
        ]  # fmt: skip


def test_brackets_of_2024_are_those_of_the_shared_table():
    table = pl.read_parquet(real_market() / "cost" / "leverage_tiers_binance.parquet")
    assert table.height == 140
    for (symbol,), group in table.group_by("symbol"):
        tiers = margin_tiers(of(f"perp:binance:{symbol}"), on=date(2024, 12, 31))
        group = group.sort("tier")
        assert tiers.floor_usd == tuple(group["notional_min"]) and tiers.cap_usd == group["notional_max"][-1]
        assert tiers.mmr == tuple(group["mmr"]) and tiers.amount_usd == tuple(group["maint_amount"])
        assert tiers.max_leverage == tuple(group["max_leverage"]) and tiers.dated


# --- contracts, funding, liquidation, delivery


def test_contract_sizes():
    for text, size, unit in (
        ("perp:okx:BTC-USDT", 0.01, "base"), ("perp:okx:ETH-USDT", 0.1, "base"), ("perp:okx:BTC-USD", 100.0, "usd"),
        ("perp:binance:BTC-USDT", 1.0, "base"), ("perp:binance_cm:BTC-USD", 100.0, "usd"),
        ("perp:binance:BTC-USD", 100.0, "usd"), ("perp:binance_cm:ETH-USD", 10.0, "usd"),
        ("future:binance_cm:BTC-USD-20240628", 100.0, "usd"), ("perp:bybit:BTC-USD", 1.0, "usd"),
        ("perp:bybit:BTC-USDT", 1.0, "base"), ("perp:deribit:BTC-USD", 10.0, "usd"),
    ):  # fmt: skip
        contract = contract_size(of(text), on=DAY)
        assert (contract.size, contract.unit, contract.known) == (size, unit, True), text
    assert contract_size(of("spot:okx:BTC-USDT"), on=DAY).known
    unknown = contract_size(of("perp:okx:AAVE-USDT"), on=DAY)
    assert (unknown.size, unknown.unit, unknown.known) == (1.0, "base", False)


def test_okx_lots_are_a_hundredth_of_a_contract():
    for text in ("perp:okx:BTC-USDT", "perp:okx:ETH-USDT"):
        lot, minimum = lot_and_minimum(of(text), on=DAY)
        assert lot == pytest.approx(0.01 * contract_size(of(text), on=DAY).size, rel=1e-15) and minimum == 0.0
    assert lot_and_minimum(of("perp:okx:NEVERLISTED-USDT"), on=DAY) is None


def test_funding_rules_follow_the_announcements():
    assert not funding_rule(BTC, on=date(2025, 9, 17)).premium_divided
    rule = funding_rule(BTC, on=date(2025, 9, 18))
    assert (rule.premium_divided, rule.paid_on) == (True, "mark")
    assert (rule.default_interval_hours, rule.cap_frac) == (8.0, 0.003)
    assert funding_rule(of("perp:binance:ADA-USDT"), on=DAY).cap_frac is None
    hyperliquid = of("perp:hyperliquid:BTC-USDC")
    assert funding_rule(hyperliquid, on=date(2023, 6, 7)).default_interval_hours == 8.0
    rule = funding_rule(hyperliquid, on=date(2023, 6, 8))
    assert (rule.default_interval_hours, rule.paid_on, rule.cap_frac) == (1.0, "oracle", 0.04)
    with pytest.raises(ConfigError, match="no funding rule"):
        funding_rule(of("perp:nowhere:BTC-USDT"), on=DAY)


def test_liquidation_fees():
    assert liquidation_fee_bps(BTC, on=DAY) == 125.0
    assert liquidation_fee_bps(of("perp:bybit:BTC-USDT"), on=DAY) == 55.5
    assert liquidation_fee_bps(of("perp:hyperliquid:BTC-USDC"), on=DAY) == 0.0
    with pytest.raises(ConfigError, match="no liquidation fee for nowhere"):
        liquidation_fee_bps(of("perp:nowhere:BTC-USDT"), on=DAY)


@pytest.mark.parametrize("venue", ["bybit", "okx"])
def test_a_takeover_costs_the_first_maintenance_and_the_taker_fee(venue):
    btc = of(f"perp:{venue}:BTC-USDT")
    expected = margin_tiers(btc, on=DAY).mmr[0] * 1e4 + fee_bps(btc, liquidity="taker", on=DAY)
    assert liquidation_fee_bps(btc, on=DAY) == pytest.approx(expected, rel=1e-12)


def test_delivery_averages_an_hour_until_the_change_and_half_an_hour_after():
    changes = {"binance": date(2024, 11, 11), "binance_cm": date(2024, 11, 11), "okx": date(2026, 3, 18)}
    for venue, change in changes.items():
        quote = "USD" if venue == "binance_cm" else "USDT"
        future = of(f"future:{venue}:BTC-{quote}-20241227")
        before, after = (delivery_rule(future, on=day) for day in (change - timedelta(days=1), change))
        assert (before.averaging_minutes, after.averaging_minutes, after.expiry_hour) == (60, 30, 8)
        assert after.fee_bps == fee_bps(future, liquidity="taker", on=change) == 5.0
    assert delivery_rule(of("future:deribit:BTC-USD-20241227"), on=DAY).fee_bps == 2.5
    with pytest.raises(ConfigError, match="no delivery rule for kraken"):
        delivery_rule(of("future:kraken:BTC-USD-20241227"), on=DAY)


# --- borrow and transfers


def charged(venue, hours):
    """The hours a loan of some length has been charged for at a venue."""
    rule = borrow_rule(venue, on=DAY)
    return charged_hours(hours, rule.period_hours, rule.opening_periods)


@given(hours=st.floats(0.001, 9000.0))
def test_loans_are_charged_by_the_period_begun(hours):
    assert charged("binance", hours) == max(math.ceil(hours - 1e-9), 1)
    assert charged("nowhere", hours) == charged("binance", hours)
    assert charged("kraken", hours) == 4 * (1 + max(math.ceil(hours / 4 - 1e-9), 1))


def test_loans_of_no_time_cost_nothing_and_whole_hours_are_not_rounded_up():
    assert charged("binance", 0.0) == 0.0 == charged("kraken", 0.0)
    assert charged("binance", 3 * 0.1 * 10) == 3.0
    assert charged("binance", 3.001) == 4.0
    assert charged("kraken", 5.0) == 12.0  # the opening and two periods of four hours
    assert charged("kraken", 4.0) == 8.0


def test_transfers_inside_an_exchange_are_free_and_others_take_the_slower_delay():
    inside = transfer_rule("binance", "binance_cm", on=DAY)
    assert (inside.fee_usd, inside.hours) == (0.0, 0.0)
    outside = transfer_rule("binance", "bybit", on=DAY)
    assert (outside.fee_usd, outside.hours) == (1.0, 0.25)
    coin = transfer_rule("binance", "kraken_cm", on=DAY)
    assert (coin.fee_usd, coin.hours) == (1.0, 1.0)
    with pytest.raises(ConfigError, match="no transfer for nowhere"):
        transfer_rule("binance", "nowhere", on=DAY)


def test_days_of_change_are_those_a_run_must_ask_again():
    days = days_of_change("binance_cm", "margin", after=date(2024, 1, 1), until=date(2026, 5, 1))
    assert days == [date(2024, 10, 24), date(2026, 5, 1)]
    assert days_of_change("binance", "margin", after=date(2024, 10, 24), until=date(2026, 4, 30)) == []
