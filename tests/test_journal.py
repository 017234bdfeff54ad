"""The journal of the live engine: nothing is lost to a kill, nothing is counted twice, nothing secret is written."""

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import basis_bt
from basis_bt.cli import main as door
from basis_bt.core.config import apply_settings, read_toml
from basis_bt.core.errors import StoreError
from basis_bt.kernels.structs import BOOKS
from basis_bt.live.event_log import read_log
from basis_bt.live.event_types import (
    ACK,
    DECISION,
    INCIDENT,
    MARK,
    MISSING,
    ORDER_DONE,
    ORDER_REFUSED,
    REFUSED,
    SENT,
    SESSION_END,
    SESSION_START,
    STATE,
    TRADE,
    TRANSFER,
)
from basis_bt.live.export import export_run, journal_tables
from basis_bt.live.journal import DATABASE, LOG, Journal
from basis_bt.live.lock import AccountLock, account_name, default_folder
from basis_bt.live.marks import Decision, Mark, RoundTrip, Session
from basis_bt.live.orders import FundingPayment, LegOrder, LegResult, VenueTrade
from basis_bt.live.redaction import Redactor
from basis_bt.store import diff_runs, explain_settlement, load_run, sql

ROOT = Path(__file__).resolve().parents[1]
SPOT, PERP = "spot:binance:BTC-USDT", "perp:binance:BTC-USDT"
KEY, SECRET = "AkIdYx81mQpublic", "s3cr3t+/Value==9"


def order(number=1, instrument=SPOT, **changes):
    values = {
        "intent": "1-entry", "client_order_id": f"run1leg{number}", "instrument": instrument, "leg": 0, "side": 1,
        "quantity_base": 0.05, "arrival_price": 60_000.0, "reference_price": 60_001.0, "decided_us": 1_000,
        "sent_us": 2_000,
    }  # fmt: skip
    return LegOrder(**{**values, **changes})


def trade(trade_id="t1", instrument=SPOT, side=1, quantity_base=0.1, price=60_000.0, **changes):
    values = {"venue_order_id": "v1", "fee": 6.0, "fee_asset": "USDT", "is_maker": False, "ts_us": 3_000}
    return VenueTrade(trade_id=trade_id, instrument=instrument, side=side, quantity_base=quantity_base, price=price,
                      **{**values, **changes})  # fmt: skip


def payment(payment_id="p1", amount=1.25, **changes):
    values = {"instrument": PERP, "asset": "USDT", "ts_us": 4_000}
    return FundingPayment(payment_id=payment_id, amount=amount, **{**values, **changes})


def filled(folder, n=5):
    with Journal(folder) as journal:
        for number in range(n):
            journal.append(DECISION, ts_us=number, reason="signal", number=number)
        journal.put("halted", True)
    return folder


# what is recorded


def test_events_come_back_as_they_were_recorded_in_a_sequence_without_gaps(tmp_path):
    with Journal(tmp_path / "j") as journal:
        assert journal.append(SENT, ts_us=5, intent="1-entry", client_order_id="a1", venue="binance", tries=1) == 1
        assert journal.append(ACK, ts_us=6, client_order_id="a1", venue="binance", venue_order_id="77") == 2
        with pytest.raises(StoreError, match="no type of event"):
            journal.append("acked", ts_us=7)
        assert journal.append(DECISION, ts_us=8, prices=(1.5, math.nan), worst=math.inf, at=Path("a/b")) == 3
    with Journal(tmp_path / "j") as journal:
        events = journal.events()
        assert [event.seq for event in events] == [1, 2, 3]
        assert (events[0].intent, events[0].client_order_id, events[0].payload) == ("1-entry", "a1", {"tries": 1})
        assert events[2].payload == {"prices": [1.5, None], "worst": None, "at": "a/b"}
        assert [event.seq for event in journal.events((SENT, DECISION))] == [1, 3]
        assert [event.seq for event in journal.events(since_seq=2)] == [3]
        assert journal.notes == []


def test_an_intent_holds_the_whole_order_and_stays_open_until_its_end(tmp_path):
    orders = [order(number) for number in range(4)]
    with Journal(tmp_path / "j") as journal:
        for one in orders:
            journal.order_intent(one)
        journal.append(ORDER_DONE, ts_us=9, client_order_id="run1leg0", filled_base=0.05, status="closed")
        journal.append(ORDER_REFUSED, ts_us=9, client_order_id="run1leg1", reason="funds")
        journal.append(MISSING, ts_us=9, client_order_id="run1leg2")
        journal.append(SENT, ts_us=9, client_order_id="run1leg3")
    with Journal(tmp_path / "j") as journal:
        assert journal.open_intents() == [orders[3]]


def test_a_fill_or_a_payment_learnt_twice_is_counted_once(tmp_path):
    with Journal(tmp_path / "j") as journal:
        assert journal.fill(trade(), client_order_id="a1") == 1
        assert journal.funding(payment()) == 2
    with Journal(tmp_path / "j") as journal:
        assert (journal.fill(trade()), journal.funding(payment())) == (None, None)
        assert journal.fill(trade(instrument=PERP)) == 3, "numbers of trades are each market's own"
        assert journal.funding(payment("p2")) == 4
        with pytest.raises(StoreError, match="already"):
            journal.append("fill", ts_us=1, venue="binance", instrument=SPOT, trade_id="t1")
        assert journal.last_seq == 4
        assert journal.positions_base() == {SPOT: 0.1, PERP: 0.1}


def test_positions_and_cash_are_what_the_venue_books(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.fill(trade("1", quantity_base=0.3, price=100.0, fee=0.0003, fee_asset="BTC"))
        journal.fill(trade("2", side=-1, quantity_base=0.1, price=110.0, fee=0.011))
        journal.fill(trade("3", PERP, -1, 0.2, 100.0, fee=0.02))
        journal.fill(trade("4", PERP, -1, 0.1, 106.0, fee=-0.01))
        journal.fill(trade("5", PERP, 1, 0.3, 90.0, fee=0.001, fee_asset="BNB"))
        journal.funding(payment(amount=-0.5))
        journal.append(TRANSFER, ts_us=1, venue="binance", asset="USDT", amount=5.0, source="spot", target="perp")
        journal.append(TRANSFER, ts_us=1, venue="binance", asset="USDT", amount=7.0, target_venue="okx", fee=1.0)
        live = (journal.positions_base(), journal.cash())
    with Journal(tmp_path / "j") as journal:
        assert (journal.positions_base(), journal.cash()) == live
    assert live[0] == {SPOT: 0.1997, PERP: 0.0}
    realised = 0.3 * (102.0 - 90.0)
    spot = -30.0 + 11.0 - 0.011
    assert live[1]["binance"]["USDT"] == pytest.approx(spot - 0.02 + 0.01 + realised - 0.5 - 8.0, abs=1e-12)
    assert live[1]["binance"]["BNB"] == -0.001 and live[1]["okx"] == {"USDT": 7.0}


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from([1, -1]), st.integers(1, 500), st.integers(1, 10**6)), max_size=12))
def test_a_contract_that_is_flat_again_has_moved_the_cash_that_its_trades_did(trades):
    with Journal(None) as journal:
        net = 0
        for number, (side, lots, price) in enumerate(trades):
            net += side * lots
            journal.fill(trade(str(number), PERP, side, lots / 1000, price / 10, fee=0.0))
        if net:
            journal.fill(trade("close", PERP, -1 if net > 0 else 1, abs(net) / 1000, 77.7, fee=0.0))
        paid = sum(side * lots * price for side, lots, price in trades) / 1e4 - net * 0.0777
        assert journal.positions_base().get(PERP, 0.0) == 0.0, "to the lot, whatever floats do to 0.1 + 0.2"
        assert journal.cash().get("binance", {}).get("USDT", 0.0) == pytest.approx(-paid, abs=1e-8)


def test_a_fill_without_a_price_is_not_taken(tmp_path):
    with Journal(tmp_path / "j") as journal:
        with pytest.raises(StoreError, match="price of a VenueTrade"):
            journal.fill(trade(price=math.nan))
        assert journal.last_seq == 0


def test_what_is_recorded_together_is_there_as_a_whole_or_not_at_all(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.put("peak", 10.0)
        with pytest.raises(RuntimeError), journal.together():
            journal.fill(trade())
            journal.put("peak", 11.0)
            assert journal.get("peak") == 11.0
            raise RuntimeError
        assert (journal.get("peak"), journal.last_seq, journal.positions_base()) == (10.0, 1, {})
        with journal.together():
            journal.fill(trade())
            journal.put("peak", 12.0)
        assert (journal.get("peak"), journal.last_seq, journal.positions_base()) == (12.0, 3, {SPOT: 0.1})
        assert [event.seq for event in read_log(tmp_path / "j" / LOG)[0]] == [1, 2, 3]
        journal.put("peak", 12.0)
        assert journal.last_seq == 3, "a value that is there already is not written again"
        assert journal.get("nothing", "default") == "default"
        assert [event.ts_us for event in journal.events(STATE)] == [0, 3_000], "as of the last event"


def test_events_are_never_changed_or_deleted(tmp_path):
    filled(tmp_path / "j")
    connection = sqlite3.connect(tmp_path / "j" / DATABASE)
    for statement in ("UPDATE events SET ts_us = 0", "DELETE FROM events WHERE seq = 1"):
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            connection.execute(statement)
    connection.close()


# kills, torn files, damage

WRITER = """
import sys
from basis_bt.live.journal import Journal
journal = Journal(sys.argv[1])
print("open", flush=True)
for number in range(int(sys.argv[2])):
    if number % 3 == 2:
        with journal.together():
            journal.put("n", number)
            seq = journal.append("incident", ts_us=number)
    else:
        seq = journal.append("decision", ts_us=number, text="x" * 300)
    print(seq, flush=True)
sys.stdin.read()  # ends only by a kill, with the journal open
"""


def start(program, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def kill(child):
    """SIGKILL; returns what it had said that was not read yet."""
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().decode()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    return rest.split("\n")


def read_until(process, n_lines):
    lines = []
    while len(lines) < n_lines:
        lines.append(process.stdout.readline().decode().strip())
        assert lines[-1], "the child ended by itself"
    return lines


@pytest.mark.parametrize("n_before", [1, 4, 40])
def test_after_a_kill_every_event_whose_number_was_given_is_there(tmp_path, n_before):
    child = start(WRITER, str(tmp_path / "j"), "1000000")
    lines = read_until(child, 1 + n_before)
    lines += kill(child)
    given_out = [int(line) for line in lines if line.isdigit()]
    with Journal(tmp_path / "j") as journal:
        seqs = [event.seq for event in journal.events()]
        assert seqs == list(range(1, len(seqs) + 1)) and seqs[-1] >= max(given_out)
        events, note = read_log(tmp_path / "j" / LOG)
        assert events == journal.events() and note is None


@pytest.mark.parametrize("n_cut", [1, 5_000, 40_000])
def test_a_torn_end_of_the_write_ahead_log_costs_nothing(tmp_path, n_cut):
    folder = tmp_path / "j"
    child = start(WRITER, str(folder), "20")
    read_until(child, 1 + 20)  # all is committed: what is cut off below is no transaction under way
    kill(child)
    written, note = read_log(folder / LOG)
    assert len(written) == 26 and note is None
    wal = folder / f"{DATABASE}-wal"
    os.truncate(wal, wal.stat().st_size - n_cut)
    with Journal(folder) as journal:
        assert journal.events() == written
        assert len(journal.notes) == 1 and f"taken from {LOG}" in journal.notes[0]
        assert journal.get("n") == 17


@pytest.mark.parametrize("n_cut", [1, 2, 40])
def test_f39_a_torn_last_line_of_the_log_is_cut_and_said(tmp_path, n_cut):
    log = filled(tmp_path / "j") / LOG
    whole = log.read_bytes()
    os.truncate(log, len(whole) - n_cut)
    events, note = read_log(log)
    assert [event.seq for event in events] == [1, 2, 3, 4, 5] and "torn" in note
    with Journal(tmp_path / "j") as journal:
        assert len(journal.notes) == 2 and "torn" in journal.notes[0] and "1 events" in journal.notes[1]
    assert log.read_bytes() == whole


def test_lines_the_log_lacks_are_added_and_a_damaged_one_is_kept_beside(tmp_path):
    log = filled(tmp_path / "j") / LOG
    whole = log.read_bytes()
    log.unlink()
    with Journal(tmp_path / "j") as journal:
        assert "lacked 6 events" in journal.notes[0]
    assert log.read_bytes() == whole
    log.write_bytes(whole.replace(b'"number":2', b'"number":7'))
    with Journal(tmp_path / "j") as journal:
        assert "damaged" in journal.notes[0] and journal.events()[2].payload["number"] == 2
    assert log.read_bytes() == whole
    assert b'"number":7' in log.with_name("events.jsonl.damaged").read_bytes()


def test_f39_a_missing_database_is_rebuilt_from_the_log_with_its_state(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.order_intent(order())
        journal.fill(trade())
        journal.put("halted", {"since_us": 7})
        before = (journal.digest(), journal.positions_base(), journal.cash(), journal.open_intents())
    (tmp_path / "j" / DATABASE).unlink()
    with (tmp_path / "j" / LOG).open("ab") as log:
        log.write(b'{"seq":4,"ts":"20')
    with Journal(tmp_path / "j") as journal:
        assert (journal.digest(), journal.positions_base(), journal.cash(), journal.open_intents()) == before
        assert journal.get("halted") == {"since_us": 7}
        assert "rebuilt from the 3 events" in journal.notes[0] and "torn" in journal.notes[1]
        assert journal.fill(trade()) is None


def test_a_damaged_foreign_or_later_file_is_refused_with_what_to_do(tmp_path):
    database = filled(tmp_path / "j") / DATABASE
    sound = database.read_bytes()
    database.write_bytes(sound[:100] + b"\xff" * 3_000 + sound[3_100:])
    with pytest.raises(StoreError, match="damaged(.|\n)*move journal.sqlite"):
        Journal(tmp_path / "j")
    database.write_bytes(b"these are no pages of a database" * 100)
    with pytest.raises(StoreError, match="damaged or no database"):
        Journal(tmp_path / "j")
    database.write_bytes(sound)
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="later version(.|\n)*update"):
        Journal(tmp_path / "j")
    database.unlink()
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    foreign = database.read_bytes()
    with pytest.raises(StoreError, match="not a journal"):
        Journal(tmp_path / "j")
    assert database.read_bytes() == foreign
    (tmp_path / "file").write_text("kept")
    with pytest.raises(StoreError, match="a journal is a folder"):
        Journal(tmp_path / "file")


def test_a_full_disk_keeps_the_event_in_the_database_and_completes_the_log_later(tmp_path, monkeypatch):
    def no_space(lines):
        raise OSError(28, "No space left on device")

    with Journal(tmp_path / "j") as journal:
        monkeypatch.setattr(journal._log, "append", no_space)
        assert journal.append(DECISION, ts_us=1) == 1
        assert "No space left" in journal.notes[0]
        assert journal.append(DECISION, ts_us=2) == 2
    with Journal(tmp_path / "j") as journal:
        assert "lacked 2 events" in journal.notes[0]


def test_a_journal_can_be_looked_at_while_another_process_writes_it(tmp_path):
    with pytest.raises(StoreError, match="no journal"):
        Journal(tmp_path / "j", read_only=True)
    with Journal(tmp_path / "j") as writer:
        writer.fill(trade())
        with Journal(tmp_path / "j", read_only=True) as reader:
            assert reader.positions_base() == {SPOT: 0.1}
            with pytest.raises(StoreError, match="could not be written"):
                reader.append(DECISION, ts_us=1)
    with Journal(tmp_path / "j", read_only=True) as reader:
        assert reader.last_seq == 1


# locks

HOLDER = """
import sys, time
from pathlib import Path
from basis_bt.live.lock import AccountLock
held = AccountLock([("okx", "key-1"), ("binance", "key-1")], Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_instance_is_refused_at_once_and_a_dead_ones_lock_is_free(tmp_path):
    child = start(HOLDER, str(tmp_path))
    assert read_until(child, 1) == ["held"]
    begun = time.monotonic()
    with pytest.raises(StoreError, match=rf"account at binance(.|\n)*pid {child.pid} on ") as caught:
        AccountLock([("binance", "key-1")], tmp_path)
    assert time.monotonic() - begun < 1.0
    assert "key-1" not in str(caught.value)
    with AccountLock([("binance", "key-2")], tmp_path):
        pass
    kill(child)
    with AccountLock([("binance", "key-1")], tmp_path), pytest.raises(StoreError, match=f"pid {os.getpid()}"):
        AccountLock([("okx", "key-9"), ("binance", "key-1")], tmp_path)
    with AccountLock([("okx", "key-9"), ("binance", "key-1")], tmp_path):
        pass
    names = {path.name for path in tmp_path.iterdir()}
    assert f"{account_name('okx', 'key-1')}.lock" in names and all("key" not in name for name in names)
    assert {len(name) for name in names} == {16 + len(".lock")}


def test_locks_lie_in_the_users_state_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "basis_bt" / "locks"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".local" / "state" / "basis_bt" / "locks"


def test_a_journal_that_is_open_is_not_opened_again(tmp_path):
    with Journal(tmp_path / "j"), pytest.raises(StoreError, match=f"in use(.|\n)*pid {os.getpid()}"):
        Journal(tmp_path / "j")
    Journal(tmp_path / "j").close()


# secrets


@settings(max_examples=30)
@given(before=st.text(), after=st.text(), repeat=st.integers(1, 3), inside=st.booleans())
def test_i10_no_text_brings_a_secret_into_the_journal(before, after, repeat, inside):
    text = before + SECRET * repeat + (SECRET[: len(SECRET) // 2] + SECRET if inside else "") + after + KEY
    with Journal(None, secrets=[KEY, SECRET, ""]) as journal:
        journal.append(INCIDENT, ts_us=1, text=text, nested={"a": [text, {"b": text}]}, error=ValueError(text))
        journal.append(INCIDENT, ts_us=1, whole=SECRET, **{f"k{KEY}": 1})
        journal.put("last_error", text)
        shown = repr([event.payload for event in journal.events()]) + repr(journal.get("last_error"))
        assert KEY not in shown and SECRET not in shown
        assert journal.events()[1].payload == {"whole": "***", "k***": 1}


@pytest.mark.parametrize(
    "name",
    ["apiKey", "api_key", "secret", "apiSecret", "password", "passphrase", "signature", "X-MBX-APIKEY", "OK-ACCESS-KEY",
     "OK-ACCESS-SIGN", "OK-ACCESS-PASSPHRASE", "X-BAPI-API-KEY", "X-BAPI-SIGN", "privateKey"],
)  # fmt: skip
def test_i10_a_key_under_which_secrets_travel_is_refused_at_any_depth(name):
    with Journal(None) as journal:
        with pytest.raises(StoreError, match="never written down") as caught:
            journal.append(INCIDENT, ts_us=1, request=[{"headers": {name: "hunter2hunter2"}}])
        with pytest.raises(StoreError, match="never written down"):
            journal.put(name, "hunter2hunter2")
        assert "hunter2" not in str(caught.value) and journal.last_seq == 0
        journal.append(INCIDENT, ts_us=1, secret_env="BINANCE_SECRET", base_asset="BTC")


@pytest.mark.parametrize(
    "text",
    ["GET https://x/order?symbol=A&signature=0a1b2c&t=1", '{"apiKey": "0a1b2c"}', "OK-ACCESS-SIGN: 0a1b2c",
     "password=0a1b2c", "X-BAPI-SIGN=0a1b2c"],
)  # fmt: skip
def test_i10_what_stands_after_the_name_of_a_secret_is_masked(text):
    assert "0a1b2c" not in Redactor().text(text) and "***" in Redactor().text(text)


@pytest.mark.parametrize("secrets", [["a*", "*"], ["ab*", "abc"], ["***x"], ["xx", "xxyyzz", "yyzz--"]])
def test_masking_ends_whatever_the_secrets_are(secrets):
    text = Redactor(secrets).text("abab*ab****xaa**xxyyzz--xyyzz--" * 3)
    assert not any(secret in text for secret in secrets if len(secret) >= 6)


# the same tables as a run


def config(**changes):
    raw = read_toml(ROOT / "configs" / "sample_btc_carry.toml")
    quick = {"data.root": repr(str(ROOT / "data" / "sample")), "data.end": '"2024-01-15T00:00:00Z"'}
    eventful = {"signal.hours": "8", "rule.entry": "0.2", "rule.exit": "0.15", "rule.max_basis_bps": "10",
                "fills.model": '"bernoulli"', "fills.fill_probability": "0.8"}  # fmt: skip
    return apply_settings(raw, {**quick, **eventful, **changes})


@pytest.fixture(scope="module")
def ran():
    return basis_bt.run(config())


def us(instant):
    return None if instant is None else round(instant.timestamp() * 1e6)


def session_of(result, mode="replay"):
    manifest = result.manifest
    return Session(
        mode=mode, config=manifest["config"], config_hash=manifest["config_hash"], venues=["binance"],
        fees_bps=manifest["fees_bps"], inputs=manifest["inputs"],
    )  # fmt: skip


def record_run(journal, result, *, mode="replay", with_facts=True):
    """What an engine that replays this run would write."""
    tables = result.tables
    by_bar = {key[0]: part for key, part in tables["attribution"].group_by("ts", maintain_order=True)}
    journal.record(SESSION_START, session_of(result, mode), ts_us=us(tables["equity"]["ts"][0]))
    for row in tables["events"].iter_rows(named=True):
        what = Decision(event=row["event"], reason=row["reason"], direction=row["direction"],
                        quantity_base=row["quantity_base"], bar_us=us(row["ts"]))  # fmt: skip
        journal.record(REFUSED if row["event"] == "refused" else DECISION, what, ts_us=us(row["ts"]))
    for k, row in enumerate(tables["fills"].iter_rows(named=True)):
        journal.fill(trade(str(k), row["instrument"], row["side"], row["quantity_base"], row["fill_price"],
                           fee=row["fee_usd"], ts_us=us(row["ts"])))  # fmt: skip
        journal.leg_result(leg_result(row), intent=f"{row['trade']}-{row['action']}", trade=row["trade"],
                           action=row["action"], cause=row["reason"], bar_us=us(row["ts"]),
                           decision_bar_us=us(row["decision_ts"]))  # fmt: skip
    for k, row in enumerate(tables["funding"].iter_rows(named=True)):
        facts = {
            "bar_us": us(row["ts"]), "settlement_us": us(row["settlement_ts"]), "known_at_us": us(row["known_at"]),
            **{name: row[name] for name in
               ("funding_rate", "interval_hours", "mark_price", "mark_source", "position_base")},
        }  # fmt: skip
        paid = payment(str(k), row["funding_usd"], instrument=row["instrument"], ts_us=us(row["settlement_ts"]))
        journal.funding(paid, **(facts if with_facts else {}))
    for k, row in enumerate(tables["equity"].iter_rows(named=True)):
        legs = by_bar[row["ts"]]
        journal.record(MARK, Mark(
            row=k, bar_us=us(row["ts"]), position_base=legs["position_base"].to_list(),
            close_price=legs["close_price"].to_list(), books={book: legs[f"{book}_usd"].to_list() for book in BOOKS},
            **{name: row[name] for name in ("equity_usd", "cash_usd", "signal", "basis_bps", "direction", "stale")},
        ), ts_us=us(row["ts"]))  # fmt: skip
    for row in tables["trades"].iter_rows(named=True):
        journal.record(TRADE, RoundTrip(
            trade=row["trade"], direction=row["direction"], entry_us=us(row["entry_ts"]), exit_us=us(row["exit_ts"]),
            quantity_base=row["quantity_base"], exit_reason=row["exit_reason"], pnl_usd=row["pnl_usd"],
        ), ts_us=us(row["entry_ts"]))  # fmt: skip
    journal.append(SESSION_END, ts_us=us(tables["equity"]["ts"][-1]))


def leg_result(row):
    costs = ("delay_usd", "spread_usd", "bucket_usd", "impact_usd", "fee_usd")
    same = ("instrument", "leg", "side", "position_change_base", "arrival_price", "reference_price", "fill_price",
            "notional_usd", *costs)  # fmt: skip
    return LegResult(
        success=True, event="filled", venue="binance", client_order_id="a", venue_order_id="b", purpose=row["action"],
        requested_base=row["quantity_base"], filled_base=row["quantity_base"], fees={"USDT": row["fee_usd"]},
        cash_change={}, is_maker=False, decided_us=us(row["decision_ts"]), sent_us=us(row["ts"]),
        done_us=us(row["ts"]), **{name: row[name] for name in same},
    )  # fmt: skip


@pytest.fixture(scope="module")
def exported(ran, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    ran.save(root, name="run")
    with Journal(None) as journal:
        record_run(journal, ran)
        export_run(journal, root=root, name="replayed")
    folder = tmp_path_factory.mktemp("journals") / "paper"
    with Journal(folder, durable=False) as journal:
        record_run(journal, ran, mode="paper", with_facts=False)
    with Journal(folder, read_only=True) as journal:
        export_run(journal, root=root, name="paper")
    return root


def test_a_journal_that_says_what_a_run_says_exports_to_the_same_tables(ran, exported):
    metrics = ran.metrics.row(0, named=True)
    assert min(metrics["n_trades"], metrics["n_rollbacks"], metrics["n_refused"]) >= 2, "a run with something in it"
    found = diff_runs(load_run(exported / "run"), load_run(exported / "replayed"))
    assert [table for table in found.tables if not table.equal] == []
    assert {table.table for table in found.tables} == set(ran.tables)
    assert found.equal, "configuration, inputs and versions too"
    for name, table in load_run(exported / "replayed").tables.items():
        assert table.schema == ran.tables[name].schema, name


def test_sql_reads_an_exported_journal_beside_runs(exported):
    found = sql("SELECT run, n_trades, pnl_usd FROM trials ORDER BY run", root=exported)
    assert found["run"].to_list() == ["paper", "replayed", "run"] and found["pnl_usd"].n_unique() == 1
    counts = sql("SELECT (SELECT COUNT(*) FROM fills), (SELECT COUNT(*) FROM funding), (SELECT COUNT(*) FROM events), "
                 "(SELECT COUNT(*) FROM equity), (SELECT COUNT(*) FROM attribution), (SELECT COUNT(*) FROM trades)",
                 root=exported)  # fmt: skip
    assert min(counts.row(0)) > 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["ls"], "paper"),
        (["show", "paper", "--fills", "2", "--events", "2", "--trades", "1"], "this is paper trading"),
        (["report", "paper"], "report.html"),
        (["diff", "run", "replayed"], ""),
        (["sql", "SELECT run, count(*) FROM fills GROUP BY run"], "replayed"),
    ],
)
def test_the_verbs_read_an_exported_journal(exported, capsys, monkeypatch, arguments, text):
    monkeypatch.chdir(exported)
    code = door.entry([*arguments, "--runs", str(exported)])
    out, err = capsys.readouterr()
    assert (code, "Traceback" in err) == (0, False), err
    assert text in out + err


def test_explain_takes_a_live_payment_apart_with_the_rate_it_implies(ran, exported, capsys):
    run = load_run(exported / "paper")
    held = ran.funding.filter(pl.col("position_base") != 0)
    row = held.filter(~pl.col("ts").is_in(ran.fills["ts"].implode())).row(-1, named=True)  # no fill at that very stamp
    told = explain_settlement(run, row["settlement_ts"])[0]
    assert told.position_base == pytest.approx(row["position_base"], rel=1e-12)
    assert told.funding_rate == pytest.approx(row["funding_rate"], rel=0.01)
    assert "which is not that product" not in told.arithmetic and told.funding_usd == row["funding_usd"]
    assert any("came without their rate" in flag for flag in run.manifest["flags"])
    assert door.entry(["explain", "paper", "--ts", row["settlement_ts"].isoformat(), "--runs", str(exported)]) == 0
    assert "rate from" in capsys.readouterr().out


def test_the_manifest_says_where_it_came_from(ran, exported):
    manifest = load_run(exported / "paper").manifest
    assert manifest["mode"] == "paper" and manifest["config_hash"] == ran.manifest["config_hash"]
    assert manifest["journal"]["sessions"] == manifest["journal"]["sessions_ended"] == 1
    assert len(manifest["journal"]["sha256"]) == 64 and manifest["books_residual_usd"] < 1e-3


def test_a_journal_without_marks_is_not_exported(ran, tmp_path):
    with Journal(None) as journal:
        with pytest.raises(StoreError, match="no session yet"):
            export_run(journal, root=tmp_path, name="x")
        journal.record(SESSION_START, session_of(ran), ts_us=1)
        with pytest.raises(StoreError, match="no row of equity yet"):
            export_run(journal, root=tmp_path, name="x")
    assert list(tmp_path.iterdir()) == []


def test_a_bar_marked_again_after_a_restart_stands_once_and_open_orders_are_told(ran):
    start_us = us(ran.equity["ts"][0])
    with Journal(None) as journal:
        journal.record(SESSION_START, session_of(ran, "live"), ts_us=start_us)
        for row, equity_usd in ((0, 1e6), (1, 1e6 - 7.0), (1, 1e6 - 5.0)):
            mark = Mark(row=row, bar_us=start_us + row * 3_600_000_000, equity_usd=equity_usd, cash_usd=equity_usd,
                        position_base=(0.0, 0.0), close_price=(1.0, 1.0), books={"fees": (5.0 * row, 0.0)},
                        is_naked=row == 1, margin_ratio=0.4, wallets_usd={"binance": equity_usd})  # fmt: skip
            journal.record(MARK, mark, ts_us=start_us)
        journal.order_intent(order())
        tables, manifest = journal_tables(journal)
    assert tables["equity"]["equity_usd"].to_list() == [1e6, 1e6 - 5.0]
    assert tables["wallets"]["cash_usd"].to_list() == [1e6, 1e6 - 5.0]
    metrics = tables["metrics"].row(0, named=True)
    assert (metrics["naked_hours"], metrics["min_margin_ratio"], metrics["fees_usd"]) == (1.0, 0.4, 5.0)
    assert any("1 orders have no end yet" in flag for flag in manifest["flags"])


def test_a_mark_that_cannot_be_right_is_refused():
    plain = {"row": 0, "bar_us": 0, "equity_usd": 1.0, "cash_usd": 1.0, "position_base": (0.0,), "close_price": (1.0,)}
    with pytest.raises(ValueError, match="found luck"):
        Mark(**plain, books={"luck": (0.0,)})
    with pytest.raises(ValueError, match="one number a leg"):
        Mark(**plain, books={"fees": (0.0, 0.0)})


def test_a_line_of_the_log_is_plain_json_for_tail_and_jq(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.order_intent(order())
    row = json.loads((tmp_path / "j" / LOG).read_text())
    assert list(row) == ["seq", "ts", "type", "intent", "client_order_id", "venue", "instrument", "payload"]
    assert (row["ts"], row["venue"]) == ("1970-01-01T00:00:00.002000Z", "binance")
    assert LegOrder(**row["payload"]) == order()
