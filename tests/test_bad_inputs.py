"""Forty-nine bad inputs at the front door, in strict and in clean mode: refused with the facts, masked, or harmless."""

import math
import os
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from bad_inputs import (
    CASES,
    FUNDING,
    MODES,
    N_BARS,
    PERP,
    PRICES,
    SPAN,
    SPOT,
    START_MS,
    as_csv,
    cells,
    csv_file,
    file_of,
    flips_and_cuts,
    healthy,
    import_bars,
    other_version,
    outcome,
    row_ts,
    spoil,
    together,
    tree,
    write,
    write_healthy,
)

from basis_bt.core.errors import BasisBtError, DataError
from basis_bt.core.instruments import Combo, Leg
from basis_bt.core.models import Data
from basis_bt.frames.panel import load_panel
from basis_bt.market.files import read_series
from basis_bt.market.schemas import SeriesKey
from basis_bt.market.write import write_series

SECONDS = 5.0
BYTES = 500 * 1024**2
STALE_FRAC = 0.1  # more than three days of one stale leg do to the equity, far less than a price that is no price
MISSING_SETTLEMENTS = {datetime.fromisoformat(f"2024-01-0{day}T{hour}:00+00:00")
                       for day, hour in ((7, 16), (8, "00"), (8, "08"))}  # fmt: skip
COUNTED = re.compile(r"\((\d+) rows?\b")


@pytest.fixture(scope="module")
def b0(tmp_path_factory):
    """Results of the healthy folder by mode; their warm-up is the compilation of the kernels."""
    root = spoil(None, tmp_path_factory.mktemp("B0") / "market")
    return {mode: outcome(None, root, mode)[0] for mode in MODES}


def numbers(result):
    """The metrics without the parameters, among which is the folder, and the equity."""
    metrics = result.metrics
    return metrics.select(name for name in metrics.columns if not name.startswith("param_")), result.equity


def same(first, second):
    return all(a.equals(b) for a, b in zip(numbers(first), numbers(second), strict=True))


def findings(result, series):
    return [finding for finding in result.manifest["checks"]["findings"] if finding["series"] == series]


def instant(text):
    return None if text is None else datetime.fromisoformat(str(text).replace("Z", "+00:00"))


# ------------------------------------------------------------------------------------------------------ what B0 gives


def test_the_healthy_folder_runs_alike_in_both_modes_without_findings(b0):
    assert same(b0["strict"], b0["clean"])
    for mode, result in b0.items():
        assert result.manifest["checks"]["mode"] == mode
        assert result.manifest["checks"]["findings"] == []
        assert result.equity.height == N_BARS
        assert result.trades.height >= 8


def test_strict_is_the_mode_of_a_configuration_that_names_none():
    assert Data(root="market", **SPAN).checks == "strict"


def test_the_table_has_its_forty_nine_rows_and_two_of_our_own():
    numbers = {int(re.match(r"B(\d+)", name)[1]) for name in CASES}
    assert numbers == set(range(1, 41))
    assert len(CASES) == 49 + 2


def test_the_rule_holds_a_position_over_the_settlements_that_b22_loses(b0):
    paid = b0["strict"].funding.filter(pl.col("settlement_ts").is_in(list(MISSING_SETTLEMENTS)))
    assert paid.height == 3
    assert (paid["position_base"] != 0).any()


def test_the_csv_of_b40_is_imported_to_the_last_bit_where_nothing_is_wrong_with_it(tmp_path):
    root = spoil(None, tmp_path / "market")
    as_csv()(root)
    import_bars(root)
    assert pl.read_parquet(file_of(root, SPOT)).select("ts", *PRICES, "volume").equals(healthy()[SPOT])


# -------------------------------------------------------------------------------------------------------- the battery


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_a_bad_input_is(name, mode, b0, tmp_path):
    """Refused, masked or harmless as the table says, and nothing is written to the folder."""
    case = CASES[name]
    root = spoil(case, tmp_path / "market")
    before = tree(root)
    started = time.perf_counter()
    results = outcome(case, root, mode)
    assert time.perf_counter() - started < SECONDS
    if name == "B39":
        check_replaced(results, root, mode, b0, tmp_path)
        return
    after = tree(root)
    if case.imported:  # the importer writes the one series into the folder
        after.pop(str(file_of(root, SPOT)), None)
    assert after == before
    check_outcome(case, results[0], root, mode, b0)


def check_outcome(case, got, root, mode, b0):
    allowed = case.allowed(mode)
    if isinstance(got, BasisBtError):
        assert "raise" in allowed, f"refused, though only {allowed} is allowed:\n{got}"
        check_error(case, got, root)
    elif "masked" in allowed:
        check_masked(case, got, root, mode, b0)
    elif "equal" in allowed:
        check_equal(case, got, mode, b0)
    elif "accept" in allowed:
        check_accepted(case, got)
    else:
        pytest.fail(f"the run went on, though only {allowed} is allowed; findings: {got.manifest['checks']}")


def check_error(case, error, root):
    assert isinstance(error, DataError)
    assert error.what
    assert error.fix
    text, path = str(error), csv_file(root) if case.imported else file_of(root, case.series)
    if case.says != ("spot", "perp"):  # two files that do not meet are named by their legs
        assert str(path) in text
    for word in case.says:
        assert word in text
    if case.imported:
        if case.first_row is not None:  # the header is line 1
            assert re.search(rf"\b(row={case.first_row}|line={case.first_row + 2})\b", text)
        return
    if case.rows:
        counted = COUNTED.search(error.what)
        assert counted, f"no count of rows in: {error.what}"
        assert int(counted[1]) in case.rows
    if case.first_row is not None:
        assert error.where.get("row") == case.first_row
    if case.first_ts is not None:
        assert instant(error.where.get("ts")) == case.first_ts
    if case.column and "column" in error.where:
        assert error.where["column"] in case.column


def check_finding(case, result):
    """The finding of the manifest that has the facts of the case."""
    found = findings(result, case.series)
    assert found, f"nothing found in {case.series}: {result.manifest['checks']}"
    for finding in found:
        assert set(finding) >= {"series", "rule", "rows", "first_row", "first_ts", "repair", "sentence"}
        assert finding["repair"] in ("mask", "drop", "sort", "accept", "note", "none")
        assert finding["sentence"]
    fitting = [
        finding
        for finding in found
        if (not case.rows or finding["rows"] in case.rows)
        and (case.first_row is None or finding["first_row"] == case.first_row)
        and (case.first_ts is None or instant(finding["first_ts"]) == case.first_ts)
    ]
    assert fitting, f"none of the findings has the facts: {found}"
    return fitting[0]


def check_masked(case, result, root, mode, b0):
    finding = check_finding(case, result)
    if finding["rule"] != "hole":  # nothing is taken out where nothing is
        counted = sum(each["rows"] for each in findings(result, case.series) if each["repair"] in ("mask", "drop"))
        assert counted >= len(case.masked)
    stamps = [row_ts(row) for row in case.masked]
    if case.ends_early and result.equity["ts"][-1] < stamps[0]:
        assert result.equity.height == case.masked[0]
        return
    assert result.equity.height == N_BARS
    assert result.equity["ts"].to_list() == [row_ts(row) for row in range(N_BARS)]
    assert ((result.equity["equity_usd"] / b0[mode].equity["equity_usd"] - 1).abs() < STALE_FRAC).all()
    leg = ("spot", "perp").index(case.series.split("/")[0])
    assert result.fills.filter((pl.col("leg") == leg) & pl.col("ts").is_in(stamps)).is_empty()
    legs = [Leg(instrument="spot:binance:BTC-USDT", ratio=1.0), Leg(instrument="perp:binance:BTC-USDT", ratio=-1.0)]
    panel = load_panel(Data(root=str(root), checks=mode, **SPAN), Combo(legs=legs))
    assert (~panel.tradable[:, leg]).nonzero()[0].tolist() == list(case.masked)
    assert panel.tradable[:, 1 - leg].all()


def check_equal(case, result, mode, b0):
    assert same(result, b0[mode])
    if case.noted and mode == "clean":
        assert case.noted in {finding["repair"] for finding in findings(result, case.series)}
        check_finding(case, result)


def check_accepted(case, result):
    finding = check_finding(case, result)
    if case.text == "3 funding rows missing":
        stake = finding["cash_at_stake_usd"]
        assert stake is not None
        assert math.isfinite(stake)
        assert stake > 0


def check_replaced(results, root, mode, b0, tmp_path):
    """Each run saw one version of the file, never a part of each."""
    second = tmp_path / "second" / "market"
    write_healthy(second)
    file_of(second, SPOT).write_bytes(other_version())
    versions = [b0[mode], outcome(None, second, mode)[0]]
    assert not same(*versions)
    assert len(results) == CASES["B39"].runs
    for result in results:
        if isinstance(result, BasisBtError):
            assert isinstance(result, DataError)
            assert str(file_of(root, SPOT)) in str(result)
        else:
            assert any(same(result, version) for version in versions)
    assert {path.name for path in file_of(root, SPOT).parent.iterdir()} == {"BTC-USDT.parquet"}


@pytest.mark.parametrize("mode", MODES)
def test_a_fall_that_both_legs_make_is_no_spike(mode, tmp_path):
    """The other leg is the witness: a fifth down for one bar on both is a move, not an error of the file."""
    root = spoil(None, tmp_path / "market")
    fallen = {300: lambda bar: round(0.8 * bar["open"], 2)}
    for series in (SPOT, PERP):
        write(root, series, together(cells("close", fallen), cells("low", fallen))(healthy()[series]))
    (result,) = outcome(None, root, mode)
    assert not isinstance(result, BasisBtError), result
    assert [finding for finding in result.manifest["checks"]["findings"] if finding["repair"] != "note"] == []
    assert result.equity.height == N_BARS
    assert not result.equity["stale"].any()


def test_the_healthy_folder_gives_the_same_numbers_after_the_battery(b0, tmp_path):
    root = spoil(None, tmp_path / "market")
    for mode in MODES:
        assert same(outcome(None, root, mode)[0], b0[mode])


def test_the_battery_needs_less_memory_than_half_a_gigabyte(tmp_path):
    code = "import sys; from pathlib import Path; from bad_inputs import growth_of_the_battery as growth\n"
    code += "print(growth(Path(sys.argv[1])))"
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tests.parent), str(tests)))}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path)], env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < BYTES


# --------------------------------------------------------------------------------------------------- the command line

EXIT_CODES = [
    ("B0", "strict", 0),
    ("B0", "clean", 0),
    ("B1", "strict", 1),
    ("B1", "clean", 3),
    ("B9", "clean", 3),
    ("B10", "strict", 1),
    ("B10", "clean", 1),
    ("B23", "strict", 0),
    ("B25", "clean", 0),
    ("B26", "clean", 1),
    ("B30a", "strict", 0),
    ("B33a", "clean", 1),
    ("B36c", "clean", 1),
    ("B38", "strict", 1),
]


@pytest.mark.parametrize(("name", "mode", "code"), EXIT_CODES, ids=[f"{name}-{mode}" for name, mode, _ in EXIT_CODES])
def test_data_check_tells_by_its_exit_code(name, mode, code, tmp_path, monkeypatch, capsys):
    from basis_bt.cli.main import entry

    monkeypatch.chdir(tmp_path)
    case = CASES.get(name)
    root = spoil(case, tmp_path / "market")
    before = tree(root)
    got = entry(["data", "check", "--root", str(root), f"--{mode}"])
    printed = capsys.readouterr()
    said = printed.out + printed.err
    assert got == code, said
    assert "Traceback" not in said
    if code:
        assert "BTC-USDT" in said
    assert tree(root) == before


# ------------------------------------------------------------------------------------------------ files of our own

KEYS = {
    "spot": SeriesKey("spot", "binance", "BTC-USDT"),
    "perp": SeriesKey("perp", "binance", "BTC-USDT"),
    "funding": SeriesKey("funding", "binance", "BTC-USDT"),
}
FRAMES = {"spot": SPOT, "perp": PERP, "funding": FUNDING}


@pytest.mark.parametrize(("series", "n_flips", "n_cuts"), [("spot", 2000, 500), ("funding", 400, 60)])
def test_a_damaged_file_of_our_own_is_refused_or_reads_equal(series, n_flips, n_cuts, tmp_path):
    key = KEYS[series]
    path = write_series(tmp_path, key, healthy()[FRAMES[series]])
    right = read_series(tmp_path, key).frame
    assert right.drop("ts").equals(healthy()[FRAMES[series]].select(right.drop("ts").columns))
    wrong, refused = [], 0
    broken = tmp_path / "broken" / "market"
    damaged = file_of(broken, FRAMES[series])
    damaged.parent.mkdir(parents=True)
    for turn, (damage, data) in enumerate(flips_and_cuts(path.read_bytes(), n_flips=n_flips, n_cuts=n_cuts, seed=2024)):
        damaged.write_bytes(data)
        try:
            read = read_series(broken, key, checks=MODES[turn % 2]).frame
        except DataError as error:
            refused += 1
            assert str(damaged) in str(error)
            assert error.fix
            continue
        if not read.equals(right):
            wrong.append((MODES[turn % 2], damage))
    assert wrong == []
    assert refused >= 0.9 * (n_flips + n_cuts)


@pytest.mark.parametrize("series", KEYS)
def test_a_damaged_file_of_somebody_else_never_ends_in_an_error_that_is_not_ours(series, tmp_path):
    """Without a hash wrong values may pass; stamps of the year 19863 and cells of nonsense must not escape as such."""
    path = write(tmp_path, FRAMES[series], healthy()[FRAMES[series]], compression="uncompressed")
    read = 0
    for turn, (_, data) in enumerate(flips_and_cuts(path.read_bytes(), n_flips=500, n_cuts=20, seed=5)):
        path.write_bytes(data)
        try:
            read += read_series(tmp_path, KEYS[series], checks=MODES[turn % 2]).frame.height > 0
        except DataError as error:
            assert str(path) in str(error)
            assert error.fix
    assert read > 0


def test_stamps_of_the_healthy_folder_are_those_the_table_speaks_of():
    spot = healthy()[SPOT]["ts"]
    assert (spot.to_physical()[0], spot[-1]) == (START_MS, row_ts(N_BARS - 1))
    assert set(healthy()[FUNDING]["ts"][19:22].to_list()) == MISSING_SETTLEMENTS
