"""The view of a session and its metrics: from the journal alone, the same for any process that may read it."""

import dataclasses
import json
import math
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from basis_bt.core.config import apply_settings, config_dict, config_hash, load_config, read_toml
from basis_bt.core.errors import ConfigError, StoreError
from basis_bt.core.live_models import Limits
from basis_bt.live import event_types as kinds
from basis_bt.live.guard import RiskGuard
from basis_bt.live.journal import Journal
from basis_bt.live.marks import Mark, RoundTrip, Session
from basis_bt.live.metrics_page import MetricsPage
from basis_bt.live.orders import FundingPayment, LegOrder, VenueTrade
from basis_bt.live.snapshot import Watch
from basis_bt.live.view import render, snapshot

ROOT = Path(__file__).resolve().parents[1]
SPOT, PERP = "spot:binance:BTC-USDT", "perp:binance:BTC-USDT"
HOUR = 3_600_000_000
START = 1_709_856_000_000_000  # 2024-03-08T00:00Z
NOW = START + 17 * HOUR + 35 * 60_000_000


def start(journal, mode="paper", **settings):
    raw = read_toml(ROOT / "configs" / "sample_btc_carry.toml")
    raw["live"] = {"limits": {"max_notional_usd": 1_000_000.0}}
    config = load_config(apply_settings(raw, settings))
    session = Session(mode=mode, config=config_dict(config), config_hash=config_hash(config), venues=["binance"])
    journal.record(kinds.SESSION_START, session, ts_us=START)


def order(journal, number, instrument, side, quantity, price, *, end="filled", ack_s=0.1, at_us=START + 2 * HOUR):
    name = f"bb1e{number}"
    one = LegOrder(intent="1-entry", client_order_id=name, instrument=instrument, leg=0, side=side,
                   quantity_base=quantity, arrival_price=price, reference_price=price, decided_us=at_us,
                   sent_us=at_us)  # fmt: skip
    journal.order_intent(one)
    if end == "open":
        return
    facts = {"client_order_id": name, "venue": "binance", "instrument": instrument}
    if end in ("refused", "missing"):
        journal.append(kinds.ORDER_REFUSED if end == "refused" else kinds.MISSING, ts_us=at_us + 10**6, **facts)
        return
    journal.append(kinds.ACK, ts_us=at_us + round(ack_s * 1e6), venue_order_id=f"v{number}", **facts)
    filled = {"filled": quantity, "partial": quantity / 2, "unfilled": 0.0}[end]
    if filled:
        journal.fill(VenueTrade(trade_id=f"t{number}", venue_order_id=f"v{number}", instrument=instrument, side=side,
                                quantity_base=filled, price=price, fee=filled * price * 5e-4, fee_asset="USDT",
                                is_maker=False, ts_us=at_us + 200_000), client_order_id=name)  # fmt: skip
    journal.append(kinds.ORDER_DONE, ts_us=at_us + 300_000, filled_base=filled, status="closed", **facts)


def mark(journal, hour, *, price=60_000.0, **changes):
    books = {"funding": [0.0, 210.0], "basis": [4.5, -2.0], "delta": [1200.0, -1201.5], "fees": [150.0, 75.0],
             "spread": [7.5, 7.5], "impact": [2.0, 1.0], "rollback_execution": [0.0, 3.5]}  # fmt: skip
    pnl = sum(map(sum, (books["funding"], books["basis"], books["delta"]))) - 150.0 - 75.0 - 15.0 - 3.0 - 3.5
    values = {"row": hour, "bar_us": START + hour * HOUR, "equity_usd": 1_000_000.0 + pnl, "cash_usd": 1_000_000.0,
              "position_base": [5.0, -5.0], "close_price": [price, price + 12.5], "books": books,
              "direction": 1}  # fmt: skip
    journal.record(kinds.MARK, Mark(**{**values, **changes}), ts_us=START + (hour + 1) * HOUR)


def busy(journal):
    """A paper session with a position, a settlement, an open breaker, incidents, and an order nobody knows of."""
    start(journal)
    order(journal, 1, SPOT, 1, 5.0, 60_000.0, ack_s=0.08)
    order(journal, 2, PERP, -1, 5.0, 60_010.0, ack_s=0.12)
    journal.record(kinds.TRADE, RoundTrip(trade=3, direction=1, entry_us=START + 2 * HOUR, quantity_base=5.0),
                   ts_us=START + 2 * HOUR)  # fmt: skip
    payment = FundingPayment(payment_id="p1", instrument=PERP, amount=105.0, asset="USDT",
                             ts_us=START + 16 * HOUR + 9_000_000)  # fmt: skip
    journal.funding(payment, settlement_us=START + 16 * HOUR, funding_rate=0.00035, interval_hours=4.0)
    order(journal, 3, PERP, 1, 1.0, 60_000.0, end="partial", ack_s=0.4)
    order(journal, 4, PERP, -1, 0.5, 60_000.0, ack_s=0.2)
    order(journal, 5, SPOT, 1, 1.0, 60_000.0, end="refused")
    order(journal, 6, SPOT, 1, 1.0, 60_000.0, end="missing")
    order(journal, 7, PERP, -1, 1.25, 60_100.0, end="open", at_us=NOW - 3_500_000)
    mark(journal, 16)
    guard = RiskGuard(Limits(), 1_000_000.0)
    guard.open_breaker(NOW - 60_000_000, "rollback of perp:binance:BTC-USDT failed", needs_reset=True)
    guard.on_failed_order(NOW - 30_000_000)
    journal.put("guard", guard.to_state(), ts_us=NOW - 60_000_000)
    journal.append(kinds.BREAKER_OPEN, ts_us=NOW - 60_000_000, reason="rollback of perp:binance:BTC-USDT failed")
    for number in range(7):
        journal.append(kinds.INCIDENT, ts_us=NOW - 50_000_000 + number * 10**6, event="funding_rate",
                       reason=f"alarm {number}", instrument=PERP)  # fmt: skip
    journal.append(kinds.INCIDENT, ts_us=NOW - 4_000_000, kind="rollback", rollback_usd=3.5, kept=0.0)


@pytest.fixture
def shown():
    with Journal(None) as journal:
        busy(journal)
        return snapshot(journal, NOW)


def text(shown, width):
    console = Console(width=width, record=True, file=open("/dev/null", "w"), force_terminal=True)  # noqa: SIM115
    console.print(render(shown))
    console.file.close()
    return console.export_text()


# the snapshot


def test_a_snapshot_is_what_the_events_add_up_to(shown):
    assert (shown.mode, shown.status, shown.name) == ("paper", "running", "btc-carry")
    assert (shown.trade, shown.direction) == (3, 1)
    assert {one.instrument: one.position_base for one in shown.legs} == {SPOT: 5.0, PERP: -5.0}
    assert shown.net_delta_usd == pytest.approx(5.0 * 60_000.0 - 5.0 * 60_012.5)
    assert sum(shown.pnl_by_source_usd.values()) == pytest.approx(shown.pnl_usd)
    assert shown.pnl_by_source_usd["slippage"] == -18.0 and shown.pnl_by_source_usd["rollback"] == -3.5
    assert shown.orders == {"filled": 3, "missing": 1, "partial": 1, "refused": 1}
    assert (shown.n_requests, shown.request_s["0.5"]) == (5, pytest.approx(0.2))
    assert [one.client_order_id for one in shown.open_orders] == ["bb1e7"] and shown.open_orders[0].age_s == 3.5
    assert shown.n_incidents == 9 and len(shown.incidents) == 5 and shown.incidents[-1].kind == "rollback"
    assert shown.incidents[-2].text == f"{PERP}: alarm 6" and "rollback_usd 3.5" in shown.incidents[-1].text
    assert shown.breaker.is_open and shown.breaker.until_us is None and shown.failed_orders == 1
    assert shown.margin_ratio == pytest.approx(shown.equity_usd / (5.0 * 60_012.5)) and not shown.is_margin_recorded
    assert shown.data_age_s == 35 * 60.0 and shown.venues[0].limit_usd == 1_000_000.0


def test_the_next_settlement_follows_the_interval_of_the_last_one(shown):
    (one,) = shown.funding
    assert one.at_us == START + 20 * HOUR and one.in_s == 145 * 60.0 and not one.is_assumed
    assert one.expected_usd == pytest.approx(5.0 * 60_012.5 * 0.00035), "a short receives a positive rate"


def test_without_a_settlement_the_interval_is_the_venues_and_says_so():
    with Journal(None) as journal:
        start(journal)
        (one,) = snapshot(journal, NOW).funding
    assert one.is_assumed and one.interval_hours == 8.0 and one.at_us == START + 24 * HOUR
    assert one.funding_rate is None and one.expected_usd is None


def test_a_rate_of_long_ago_is_not_expected_again():
    with Journal(None) as journal:
        busy(journal)
        (one,) = snapshot(journal, NOW + 9 * HOUR).funding
    assert one.funding_rate is None and one.in_s > 0.0 and one.interval_hours == 4.0


def test_silence_and_an_end_are_told_apart():
    with Journal(None) as journal:
        busy(journal)
        assert snapshot(journal, NOW + HOUR).status == "running"
        assert snapshot(journal, NOW + 3 * HOUR).status == "silent"
        journal.append(kinds.SESSION_END, ts_us=NOW, reason="stopped")
        assert snapshot(journal, NOW + 3 * HOUR).status == "ended"
        start(journal, mode="live")
        again = snapshot(journal, NOW)
        assert (again.status, again.mode, again.n_sessions) == ("running", "live", 2)


def test_nothing_is_made_up_before_the_first_mark():
    with Journal(None) as journal:
        with pytest.raises(StoreError, match="no session"):
            snapshot(journal, NOW)
        start(journal)
        order(journal, 1, SPOT, 1, 1.0, 60_000.0)
        shown = snapshot(journal, NOW)
        unknown = (shown.equity_usd, shown.pnl_usd, shown.net_delta_usd, shown.data_age_s, shown.margin_ratio)
        assert unknown == (None,) * 5
        assert "–" in text(shown, 60)


def test_a_watch_reads_only_what_is_new_and_says_what_a_fresh_look_says():
    with Journal(None) as journal:
        busy(journal)
        watch = Watch(journal)
        watch.at(NOW)
        read = []
        events = journal.events
        journal.events = lambda *types, **since: read.append(len(events(*types, **since))) or events(*types, **since)
        mark(journal, 17, margin_ratio=3.2)
        order(journal, 8, SPOT, 1, 0.25, 60_000.0)
        after = watch.at(NOW + HOUR)
        assert read == [5] and after == snapshot(journal, NOW + HOUR)
        assert after.margin_ratio == 3.2 and after.is_margin_recorded


def test_a_snapshot_is_json_and_another_process_sees_the_same(tmp_path):
    with Journal(tmp_path / "j") as journal:
        busy(journal)
        here = snapshot(journal, NOW).to_json()
        code = (
            "import json, sys; from basis_bt.live.journal import Journal; from basis_bt.live.view import snapshot\n"
            "with Journal(sys.argv[1], read_only=True) as journal:\n"
            f"    print(json.dumps(snapshot(journal, {NOW}).to_json(), allow_nan=False))"
        )
        there = subprocess.run([sys.executable, "-c", code, str(tmp_path / "j")], capture_output=True, text=True,
                               cwd=ROOT, check=True)  # fmt: skip
    assert json.loads(there.stdout) == json.loads(json.dumps(here))
    assert here["at"] == "2024-03-08T17:35:00+00:00"


# the page


@pytest.mark.parametrize("width", [100, 60, 40, 200])
def test_the_view_fits_its_terminal_and_says_what_matters(shown, width):
    page = text(shown, width)
    assert max(map(len, page.splitlines())) <= width
    words = " ".join(page.replace("│", " ").split())
    for said in ("paper", "running", "net delta", "-62.50", "OPEN until reset", "funding", "+105.02", "filled"):
        assert said in words, said
    if width >= 60:
        assert "20:00 in 2h 25m" in words and "rollback of perp:binance:BTC-USDT failed" in words
    is_two = any("positions" in line and "PnL" in line for line in page.splitlines())
    assert is_two == (width >= 92)


def test_text_of_a_venue_is_never_taken_for_markup():
    with Journal(None) as journal:
        start(journal)
        journal.append(kinds.INCIDENT, ts_us=NOW, kind="stop", reason="[bold red]not[/] markup [/nothing]")
        assert "[bold red]not[/] markup [/nothing]" in text(snapshot(journal, NOW), 100)


# the metrics


def scrape(page):
    with urllib.request.urlopen(f"http://127.0.0.1:{page.port}/metrics", timeout=5) as reply:
        families = text_string_to_metric_families(reply.read().decode())
        return {(one.name, *sorted(one.labels.values())): one.value for family in families for one in family.samples}


def test_metrics_say_what_the_snapshot_says(shown):
    with MetricsPage(0) as page:
        assert scrape(page) == {}
        page.update(shown)
        found = scrape(page)
        page.update(dataclasses.replace(shown, equity_usd=None, net_delta_usd=None))
        assert ("basis_bt_equity_usd",) not in scrape(page), "what is not known is not 0"
    assert found["basis_bt_equity_usd",] == shown.equity_usd
    assert found["basis_bt_pnl_usd", "funding"] == 210.0 and found["basis_bt_pnl_usd", "fees"] == -225.0
    assert found["basis_bt_position_base", PERP] == -5.0 and found["basis_bt_settlement_seconds", PERP] == 8700.0
    assert found["basis_bt_breaker_open",] == 1.0 and found["basis_bt_incidents_total",] == 9.0
    assert found["basis_bt_orders_total", "filled"] == 3.0 and found["basis_bt_data_age_seconds",] == 2100.0
    assert found["basis_bt_request_seconds", "0.5"] == pytest.approx(0.2)
    assert found["basis_bt_request_seconds_count",] == 5.0
    assert found["basis_bt_session", "btc-carry", "paper", "running"] == 1.0
    assert found["basis_bt_margin_ratio",] == pytest.approx(shown.margin_ratio)
    assert not any(name[0].startswith(("python_", "process_")) for name in found)
    assert all(math.isfinite(value) for value in found.values())


def test_metrics_are_served_to_this_machine_only_and_closing_leaves_nothing(shown):
    before = set(threading.enumerate())
    page, other = MetricsPage(0), MetricsPage(0)
    assert page.port != other.port and page._server.server_address[0] == "127.0.0.1"
    with pytest.raises(StoreError, match="metrics cannot be served"):
        MetricsPage(page.port)
    page.update(shown)
    assert scrape(page) and scrape(other) == {}
    for one in (page, other, page):
        one.close()
    assert not {thread for thread in set(threading.enumerate()) - before if thread.is_alive()}
    with pytest.raises(urllib.error.URLError):
        scrape(page)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", page.port))
    with pytest.raises(ConfigError, match="a port is between"):
        MetricsPage(70_000)
