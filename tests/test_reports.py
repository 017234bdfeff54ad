"""Summary, charts and report, on a small run whose numbers are made up here and can be checked by hand."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from basis_bt.reports.charts import annualised_funding, attribution_by_source, keep_extremes, report_figure, stretches
from basis_bt.reports.summary import attribution_rows, number, summary_html, summary_text
from basis_bt.reports.tearsheet import report_html, write_report

START = datetime(2024, 1, 1, tzinfo=UTC)
CAPITAL_USD = 100_000.0
LEGS = (("spot:binance:BTC-USDT", 1.0), ("perp:binance:BTC-USDT", -1.0))
COSTS = ("fees", "spread", "bucket", "impact", "delay")
TRADES = ((20, 80), (110, 170))
STALE = range(140, 146)
UTC_US = pl.Datetime("us", "UTC")
# What every fill of a leg costs, USD.
FILL_COSTS_USD = {"fees": 10.0, "spread": 5.0, "bucket": 2.0, "impact": 1.0, "delay": 0.5}


def synthetic_run(*, n_bars: int = 200, trades=TRADES, stale=STALE, name: str = "btc_carry", null_signal: bool = False):
    """Manifest and tables of an hourly run of two legs that earns 40 USD at each settlement it holds through."""
    stamps = [START + timedelta(hours=i) for i in range(n_bars)]
    price = 40_000.0 + 500.0 * np.sin(np.arange(n_bars) / 9.0)
    basis = 8.0 + 4.0 * np.cos(np.arange(n_bars) / 7.0)
    held = np.array([any(a <= i < b for a, b in trades) for i in range(n_bars)])
    settles = [i for i in range(n_bars) if i % 8 == 0]
    attribution = []
    totals = {"funding": np.zeros(n_bars), "delta": np.zeros(n_bars), "basis": np.zeros(n_bars)}
    for leg, (instrument, ratio) in enumerate(LEGS):
        steps = {source: np.zeros(n_bars) for source in ("delta", "basis", "funding", *COSTS)}
        for entry, leave in trades:
            for bar in (entry, leave):
                for cost, usd in FILL_COSTS_USD.items():
                    steps[cost][bar] += usd
            steps["delta"][entry + 1 : leave] += ratio * np.diff(price[entry:leave])
            if ratio < 0:
                steps["basis"][entry + 1 : leave] += -2.0 * np.diff(basis[entry:leave])
                for bar in settles:
                    steps["funding"][bar] += 40.0 if entry < bar <= leave else 0.0
        cumulative = {source: values.cumsum() for source, values in steps.items()}
        for source in totals:
            totals[source] = totals[source] + cumulative[source]
        attribution.append(
            pl.DataFrame(
                {
                    "trial": 0, "ts": stamps, "leg": leg, "instrument": instrument, "position_base": held * ratio,
                    "close_price": price, **{f"{source}_usd": values for source, values in cumulative.items()},
                }
            ).with_columns(pl.col("ts").cast(UTC_US), pl.col("leg").cast(pl.Int8))
        )  # fmt: skip
    parts = pl.concat(attribution).sort("ts", "leg")
    by_source = attribution_by_source(parts)
    equity_usd = CAPITAL_USD + by_source["pnl"].to_numpy()
    peak = np.maximum.accumulate(np.maximum(equity_usd, CAPITAL_USD))
    signal = [None if null_signal or i < 10 else 0.1 + 0.08 * np.sin(i / 14.0) for i in range(n_bars)]
    equity = pl.DataFrame(
        {
            "trial": 0, "ts": stamps, "equity_usd": equity_usd, "cash_usd": equity_usd,
            "notional_usd": 2 * price * held, "drawdown_frac": 1 - equity_usd / peak, "signal": signal,
            "basis_bps": basis, "direction": held.astype(np.int8), "stale": [i in stale for i in range(n_bars)],
        },
        schema_overrides={"ts": UTC_US, "signal": pl.Float64},
    )  # fmt: skip
    n_fills = 4 * len(trades)
    tables = {
        "metrics": _metrics(by_source.row(-1, named=True), n_trades=len(trades)),
        "equity": equity,
        "attribution": parts,
        "fills": _fills(stamps, price, trades),
        "funding": _funding(stamps, settles, held),
        "events": pl.DataFrame(schema={"trial": pl.Int64, "ts": UTC_US, "event": pl.String}),
        "trades": _trades(stamps, trades),
    }
    assert len(tables["fills"]) == n_fills
    return _manifest(name=name, stamps=stamps, n_stale=len([i for i in stale if i < n_bars])), tables


def _metrics(last, *, n_trades):
    traded = n_trades > 0
    slippage_usd = n_trades * 4 * (5.0 + 2.0 + 1.0 + 0.5)
    row = {
        "trial": 0, "param_signal_hours": 72.0, "total_return": last["pnl"] / CAPITAL_USD, "cagr": 0.123456,
        "ann_vol": 0.0123, "sharpe": 3.14159 if traded else None, "sortino": None, "calmar": None,
        "max_drawdown": 0.00125, "max_drawdown_hours": 96.0, "n_trades": n_trades,
        "win_rate": 0.5 if traded else None, "avg_hold_hours": 60.0 if traded else None, "time_in_market": 0.6,
        "turnover": 3.2, "funding_usd": last["funding"], "basis_usd": last["basis"], "delta_usd": last["delta"],
        "fees_usd": -last["fees"], "slippage_usd": slippage_usd, "pnl_usd": last["pnl"],
        "end_equity_usd": CAPITAL_USD + last["pnl"], "n_refused": 3, "apr_on_capital": 0.0789,
        "apr_on_notional": 0.05 if traded else None, "status": "ok",
    }  # fmt: skip
    floats = ("sharpe", "sortino", "calmar", "win_rate", "avg_hold_hours", "apr_on_notional")
    return pl.DataFrame([row], schema_overrides=dict.fromkeys(floats, pl.Float64))


def _fills(stamps, price, trades):
    rows = [
        {
            "trial": 0, "ts": stamps[bar], "trade": number_, "leg": leg, "instrument": instrument, "action": action,
            "reason": "signal", "notional_usd": float(price[bar]), "fee_usd": 10.0,
        }
        for number_, ends in enumerate(trades, start=1)
        for action, bar in zip(("entry", "exit"), ends, strict=True)
        for leg, (instrument, _) in enumerate(LEGS)
    ]  # fmt: skip
    schema = {
        "trial": pl.Int64, "ts": UTC_US, "trade": pl.Int64, "leg": pl.Int8, "instrument": pl.String,
        "action": pl.String, "reason": pl.String, "notional_usd": pl.Float64, "fee_usd": pl.Float64,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema)


def _funding(stamps, settles, held):
    return pl.DataFrame(
        {
            "trial": 0, "ts": [stamps[i] for i in settles], "settlement_ts": [stamps[i] for i in settles],
            "known_at": [stamps[i] for i in settles], "leg": 1, "instrument": LEGS[1][0],
            "funding_rate": [0.0001 + 0.00005 * np.sin(i / 30) for i in settles],
            "interval_hours": [8.0 if i % 16 else None for i in settles],
            "mark_source": ["own"] * len(settles), "position_base": [-float(held[i]) for i in settles],
        },
        schema_overrides=dict.fromkeys(("ts", "settlement_ts", "known_at"), UTC_US)
        | {"leg": pl.Int8, "interval_hours": pl.Float64},
    )  # fmt: skip


def _trades(stamps, trades):
    rows = [
        {
            "trial": 0, "trade": i, "direction": 1, "entry_ts": stamps[a], "exit_ts": stamps[b] if i == 1 else None,
            "hold_hours": float(b - a), "quantity_base": 1.0, "pnl_usd": 240.5, "funding_usd": 320.0, "basis_usd": 1.25,
            "delta_usd": 0.0, "costs_usd": 74.0, "exit_reason": "signal" if i == 1 else None,
        }
        for i, (a, b) in enumerate(trades, start=1)
    ]  # fmt: skip
    schema = {
        "trial": pl.Int64, "trade": pl.Int64, "direction": pl.Int8, "entry_ts": UTC_US, "exit_ts": UTC_US,
        "hold_hours": pl.Float64, "quantity_base": pl.Float64, "pnl_usd": pl.Float64, "funding_usd": pl.Float64,
        "basis_usd": pl.Float64, "delta_usd": pl.Float64, "costs_usd": pl.Float64, "exit_reason": pl.String,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema)


def _manifest(*, name, stamps, n_stale):
    first, last = stamps[0].isoformat(), stamps[-1].isoformat()
    return {
        "name": name,
        "created": "2024-06-01T12:00:00+00:00",
        "basis_bt": "0.1.0",
        "versions": {"polars": "2.1.0", "python": "3.12.3"},
        "config": {
            "name": name,
            "data": {"root": "data/market", "start": first, "end": last, "bar": "1h"},
            "combo": {"legs": [{"instrument": instrument, "ratio": ratio} for instrument, ratio in LEGS]},
            "signal": {"name": "funding_apr", "hours": 72, "sql": None},
            "rule": {"entry": 0.12, "exit": 0.02, "reverse": False},
            "size": {"capital_usd": CAPITAL_USD, "leverage": 3.0},
            "costs": {"taker_fee_bps": {"spot": 10.0, "perp": 5.0}, "bucket_usd": [1e4, 1e5], "bucket_pairs": {}},
        },
        "config_hash": "c0ffee" * 10,
        "seed": 7,
        "inputs": [
            {
                "instrument": LEGS[1][0], "series": "funding", "path": "funding/<x>.parquet", "sha256": "ab" * 32,
                "rows": 12345, "first": first, "last": last,
            }
        ],
        "rulebook_hash": "d00d" * 16,
        "span": {
            "start": first, "end": last, "first_bar": first, "last_bar": last, "bar_hours": 1.0, "n_bars": len(stamps),
        },
        "counts": {
            "stale_rows": n_stale,
            "untradable_bars": {LEGS[0][0]: 0, LEGS[1][0]: 6},
            "missing_bars": {LEGS[0][0]: 0, LEGS[1][0]: 0},
            "settlements": {LEGS[1][0]: 25},
            "marks": {"own": 20, "mark": 3, "trade": 2},
            "refused": {"basis": 2, "min_notional": 1},
        },
        "flags": ["USDT taken as 1.0 USD"],
        "outputs": {"equity.parquet": "ee" * 32},
        "wall_seconds": 0.42,
    }  # fmt: skip


def test_summary_adds_up_by_hand():
    manifest, tables = synthetic_run()
    text = summary_text(manifest, tables)
    # Settlements held through: 24..80 are 8 of trade 1, 112..168 are 8 of trade 2; 16 * 40 USD.
    # 8 fills at 10 USD fee and 8.5 USD slippage. Basis: -2 * (basis at the last held bar - basis at the entry).
    basis = [8.0 + 4.0 * np.cos(i / 7.0) for i in (20, 79, 110, 169)]
    basis_usd = -2.0 * (basis[1] - basis[0] + basis[3] - basis[2])
    rows = {source: (usd, share) for source, usd, share in attribution_rows(manifest, tables)}
    assert rows["funding"] == (640.0, 0.0064)
    assert rows["fees"] == (-80.0, -0.0008)
    assert rows["slippage"] == (-68.0, -0.00068)
    assert rows["delta"][0] == pytest.approx(0.0, abs=1e-9)
    assert rows["pnl"][0] == pytest.approx(640.0 + basis_usd - 80.0 - 68.0)
    assert sum(usd for source, (usd, _) in rows.items() if source != "pnl") == pytest.approx(rows["pnl"][0])
    assert re.search(r"^funding +640\.00 +0\.640 %$", text, re.M)
    assert re.search(r"^fees +-80\.00 +-0\.080 %$", text, re.M)
    assert re.search(r"^slippage +-68\.00 +-0\.068 %$", text, re.M)
    assert re.search(r"^delta +0\.00 +0\.000 %$", text, re.M)
    assert re.search(rf"^pnl +{rows['pnl'][0]:,.2f} ", text, re.M)


def test_summary_names_span_legs_counts_and_flags():
    text = summary_text(*synthetic_run())
    assert text.startswith("btc_carry\n=========\n")
    assert "2024-01-01 00:00 to 2024-01-09 07:00 UTC, 200 bars of 1 h" in text
    assert "+1 spot:binance:BTC-USDT" in text
    assert "-1 perp:binance:BTC-USDT" in text
    assert "6 of 200" in text
    assert "3 (basis 2, min_notional 1)" in text
    assert "5 of 25 settlements (mark bars 3, trade bars 2)" in text
    assert "6 (perp:binance:BTC-USDT 6)" in text
    assert "- USDT taken as 1.0 USD" in text
    assert max(map(len, text.splitlines())) <= 100


def test_missing_values_are_dashes():
    text = summary_text(*synthetic_run(trades=()))
    assert re.search(r"Sharpe +–", text)
    assert re.search(r"win rate +–", text)
    assert not re.search(r"\bnan\b", text, re.I)
    assert "None" not in text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (float("nan"), "–"), (-0.001, "0.00"), (-1234.5, "-1,234.50")]
)
def test_number_shows_nothing_as_a_dash_and_no_negative_zero(value, text):
    assert number(value) == text


def test_html_is_escaped_and_needs_nothing_else(tmp_path):
    manifest, tables = synthetic_run(name="<b>bold & \"quoted\"</b>")
    _, path = write_report(manifest, tables, tmp_path)
    page = path.read_text(encoding="utf-8")
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold &amp; &quot;quoted&quot;&lt;/b&gt;" in page
    assert "funding/&lt;x&gt;.parquet" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert "<link" not in page
    assert "url(" not in page
    assert [source[:22] for source in re.findall(r'src="([^"]*)"', page)] == ["data:image/png;base64,"]
    assert "ab" * 32 in page
    assert "<b>bold" not in summary_html(manifest, tables)


def test_html_lists_every_trade_and_every_setting():
    manifest, tables = synthetic_run()
    page = report_html(manifest, tables, png=b"png")
    trades = page.split("<h2>Trades (2)</h2>")[1].split("</section>")[0]
    assert trades.count("<tr>") == 3
    assert "2024-01-01 20:00" in trades
    assert ">open<" in trades
    assert ">-74.00<" in trades
    assert ">size.capital_usd<" in page
    assert ">combo.legs.1.ratio<" in page
    assert ">10000.0, 100000.0<" in page


def test_report_files_are_whole_and_replace_older_ones(tmp_path):
    manifest, tables = synthetic_run()
    out = tmp_path / "new" / "folder"
    first = write_report(manifest, tables, out)
    again = write_report(manifest, tables, out)
    assert first == again == (out / "report.png", out / "report.html")
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.png"]
    png = first[0].read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(png) > 50_000


@pytest.mark.parametrize(
    "options",
    [
        {"trades": (), "stale": ()},
        {"n_bars": 1, "trades": (), "stale": ()},
        {"n_bars": 2, "trades": (), "stale": (0, 1), "null_signal": True},
        {"null_signal": True},
        {"name": "cost_of_$x^2$ 資金 " + "long " * 40},
    ],
    ids=["no_trade", "one_bar", "two_stale_bars", "null_signal", "odd_name"],
)
def test_thin_runs_are_reported(options, tmp_path):
    manifest, tables = synthetic_run(**options)
    png, page = write_report(manifest, tables, tmp_path)
    assert png.stat().st_size > 10_000
    assert page.stat().st_size > png.stat().st_size
    assert not re.search(r"\bnan\b", summary_text(manifest, tables), re.I)


def test_run_without_settlements_or_basis_is_reported(tmp_path):
    manifest, tables = synthetic_run()
    tables["funding"] = tables["funding"].clear()
    tables["equity"] = tables["equity"].with_columns(basis_bps=pl.lit(None, dtype=pl.Float64))
    assert write_report(manifest, tables, tmp_path)[0].exists()


def test_net_line_is_equity_less_capital():
    _, tables = synthetic_run()
    parts = attribution_by_source(tables["attribution"])
    assert parts["pnl"].to_numpy() == pytest.approx(tables["equity"]["equity_usd"].to_numpy() - CAPITAL_USD)


def test_funding_is_annualised_by_its_own_interval_or_the_time_since_the_last():
    settlements = [START, START + timedelta(hours=8), START + timedelta(hours=12), START + timedelta(hours=16)]
    funding = pl.DataFrame(
        {
            "leg": [1] * 4, "instrument": ["p"] * 4, "settlement_ts": settlements, "funding_rate": [0.001] * 4,
            "interval_hours": [None, None, None, 1.0],
        }
    )  # fmt: skip
    assert annualised_funding(funding)["funding_apr"].to_list() == pytest.approx([1.095, 1.095, 2.19, 8.76])
    assert annualised_funding(funding[:1]).is_empty()


def test_thinning_keeps_extremes_and_gaps():
    values = np.sin(np.arange(50_000) / 300.0)
    values[12_345], values[33_333] = 9.0, -9.0
    values[20_000:20_200] = np.nan
    rows = keep_extremes(values, max_points=4000)
    assert len(rows) <= 4000
    assert {0, 12_345, 33_333, 49_999} <= set(rows.tolist())
    assert np.isnan(values[rows]).any()
    assert (np.diff(rows) > 0).all()


def test_stretches_are_runs_of_equal_codes():
    assert stretches(np.array([0, 1, 1, -1, 0, 0, 1])) == [(1, 1, 3), (-1, 3, 4), (1, 6, 7)]
    assert stretches(np.array([0, 0])) == []


def test_no_text_overlaps_in_the_figure():
    manifest, tables = synthetic_run()
    figure = report_figure(manifest, tables)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [axes.get_legend().get_window_extent() for axes in figure.axes if axes.get_legend()]
    boxes.append(figure.axes[-1].xaxis.get_offset_text().get_window_extent())
    boxes += [axes._left_title.get_window_extent() for axes in figure.axes]
    page = figure.bbox
    for i, box in enumerate(boxes):
        assert box.x0 >= page.x0
        assert box.x1 <= page.x1
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_report_command_writes_into_the_run_folder(tmp_path, monkeypatch):
    import sys

    from basis_bt.cli.report import command

    manifest, tables = synthetic_run()
    folder = tmp_path / "runs" / "btc_carry"
    folder.mkdir(parents=True)
    fake = SimpleNamespace(
        resolve_run=lambda root, name: Path(root) / name,
        read_manifest=lambda path: manifest,
        load_run=lambda path: SimpleNamespace(manifest=manifest, tables=tables),
    )
    monkeypatch.setitem(sys.modules, "basis_bt.store", fake)
    result = CliRunner().invoke(command, ["btc_carry", "--runs", str(tmp_path / "runs")])
    assert result.exit_code == 0, result.output
    assert result.output.split() == [str(folder / "report.png"), str(folder / "report.html")]
    result = CliRunner().invoke(command, ["btc_carry", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "o")])
    assert result.output.split() == [str(tmp_path / "o" / "report.png"), str(tmp_path / "o" / "report.html")]
