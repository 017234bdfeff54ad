"""The verbs that read runs, and the door they all go through: messages, exit codes, formats, start-up."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from run_tables import PERP, folder_hash, run_manifest, run_tables

from basis_bt.cli import _output
from basis_bt.cli import main as door
from basis_bt.store.folder import save_run

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BASIS_BT_RUNS", raising=False)
    for name, hours in (("a", 72.0), ("b", 72.0), ("c", 24.0)):
        tables, manifest = run_tables(signal_hours=hours), run_manifest(signal_hours=hours)
        save_run(tmp_path / "runs", name=name, tables=tables, manifest=manifest)
    return tmp_path / "runs"


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = door.entry(list(arguments))
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def shell(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), **options.pop("env", {})}  # type: ignore[dict-item]
    command = [sys.executable, "-m", "basis_bt.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, env=environment, timeout=60, check=False, **options)  # type: ignore[call-overload]


def test_c24_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from basis_bt.cli.main import entry; assert entry(['--help']) == 0; "
        "heavy = {'polars', 'numpy', 'duckdb', 'pyarrow', 'rich', 'numba', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=PROJECT, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert all(verb in done.stdout.decode() for verb in door.VERBS)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Usage"),
        (["shw"], 2, "Did you mean show"),
        (["zzz"], 2, "Verbs: run, sweep"),
        (["ls", "--nope"], 2, "No such option"),
        (["show"], 2, "Missing argument"),
        (["sql", "SELECT 1", "--timeout", "0"], 2, "timeout"),
        (["explain", "a", "--ts", "noon"], 2, "not a time"),
        (["--nope"], 2, "No such option"),
    ],
    ids=[f"C24-{i}" for i in range(8)],
)
def test_c24_wrong_usage_is_2_on_stderr(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    found, out, err = ask(capsys, *arguments)
    assert (found, out) == (code, "")
    assert message in err


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["ls", "--help"], ["sql", "-h"]])
def test_c24_help_is_0(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, out, err = ask(capsys, *arguments)
    assert code == 0 and out and not err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "aa"], 1, "StoreError: there is no run 'aa'"),
        (["diff", "a", "nothing"], 1, "StoreError"),
        (["sql", "DROP VIEW runs"], 2, "QueryError: only one SELECT"),
        (["sql", "SELECT * FROM read_text('/etc/passwd')"], 2, "QueryError"),
        (["sql", "SELECT count(*) FROM range(1000000) a, range(1000000)", "--timeout", "0.5"], 1, "after 0.5 s"),
        (["explain", "a", "--ts", "2024-03-08T04:00Z"], 1, "StoreError: no settlement"),
        (["explain", "a", "--ts", "2024-03-08", "--instrument", "x"], 1, "StoreError"),
    ],
)
def test_known_errors_are_one_message_and_change_nothing(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    before = folder_hash(root)
    found, out, err = ask(capsys, *arguments)
    assert (found, out) == (code, "")
    assert message in err and "fix:" in err
    assert folder_hash(root) == before


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
        (BrokenPipeError(32, "Broken pipe"), 0, ""),
        (OSError(28, "No space left on device", "out.csv"), 1, "OSError: No space left on device (out.csv)"),
    ],
)
def test_the_door_turns_errors_into_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, message: str
) -> None:
    def fail(_: list[str]) -> int:
        raise error

    monkeypatch.setattr(door, "_invoke", fail)
    monkeypatch.setattr(door, "_leave_pipe", lambda: 0)
    assert ask(capsys, "ls") == (code, "", message + "\n" if message else "")


def test_an_unknown_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_invoke", lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        door.entry([])


def test_c24_a_closed_pipe_is_quiet(root: Path) -> None:
    query = "SELECT * FROM range(300000)"
    command = [sys.executable, "-m", "basis_bt.cli.main", "sql", query, "--format", "csv"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(PROJECT)}
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), err) == (0, b"")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_c24_a_narrow_encoding_prints(root: Path, encoding: str) -> None:
    done = shell("sql", "SELECT 'Δ – 漢' AS text, NULL AS none", env={"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"text")
    assert encoding != "cp1252" or b"?" in done.stdout


def test_ls_lists_runs_and_names_broken_folders(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "broken").mkdir()
    code, out, err = ask(capsys, "ls")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == ["run", "a", "b", "c"]
    assert "broken" in err
    code, out, err = ask(capsys, "ls", "--format", "json")
    assert [row["run"] for row in json.loads(out)] == ["a", "b", "c"]
    assert json.loads(out)[0]["sharpe"] == 1.5
    assert ask(capsys, "ls", "--runs", "none")[:2] == (0, "no runs in none\n")
    assert ask(capsys, "ls", "--runs", "none", "--format", "json")[:2] == (0, "[]\n")


def test_the_runs_folder_comes_from_the_environment(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root.rename(root.parent / "kept")
    monkeypatch.setenv("BASIS_BT_RUNS", str(root.parent / "kept"))
    assert ask(capsys, "sql", "SELECT count(*) AS n FROM runs", "--format", "csv")[1] == "n\n3\n"


def test_show_prints_the_summary_and_first_rows(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("basis_bt.reports.summary")
    code, out, err = ask(capsys, "show", "a", "--fills", "3", "--trades", "2", "--events", "1")
    assert (code, err) == (0, "")
    assert "fills: 3 of 4" in out and "trades: 1 of 1" in out and "events: 1 of 2" in out
    assert "105,005.00" in out


def test_show_refuses_a_damaged_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("basis_bt.reports.summary")
    file = root / "a" / "equity.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    code, out, err = ask(capsys, "show", "a")
    assert (code, out) == (1, "") and "equity" in err


def test_sql_formats_are_for_machines(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = """SELECT run, TIMESTAMPTZ '2024-03-08 08:00:00+00' AS ts,
               [1, 2] AS xs, 'a,"b' AS s,
               0.1 + 0.2::DOUBLE AS f, 'nan'::DOUBLE AS nan, NULL AS none, DATE '2024-01-02' AS d
               FROM runs WHERE run = 'a'"""
    _, out, _ = ask(capsys, "sql", query, "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert (row["s"], row["xs"], row["none"], float(row["f"])) == ('a,"b', "[1, 2]", "", 0.1 + 0.2)
    assert row["ts"] == "2024-03-08T08:00:00.000000+00:00" and row["d"] == "2024-01-02"
    _, out, _ = ask(capsys, "sql", query, "--format", "json")
    assert json.loads(out) == [{"run": "a", "ts": "2024-03-08T08:00:00Z", "xs": [1, 2], "s": 'a,"b', "f": 0.1 + 0.2,
                                "nan": None, "none": None, "d": "2024-01-02"}]  # fmt: skip


def test_a_piped_table_cuts_no_column(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = ask(capsys, "sql", "SELECT * FROM fills LIMIT 1")
    header = out.splitlines()[0].split()
    assert header == ["run", *run_tables()["fills"].columns]
    _, out, _ = ask(capsys, "sql", "SELECT 1234567 AS n, -1234.5::DOUBLE AS x, NULL AS none, true AS flag")
    assert out.splitlines()[1].split() == ["1,234,567", "-1,234.50", _output.cell_text(None), "yes"]


def test_a_terminal_gets_a_rich_table(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _, out, _ = ask(capsys, "sql", "SELECT '[bold]x' AS \"[red]name\", 1234 AS n")
    assert "[bold]x" in out and "[red]name" in out and "1,234" in out


def test_diff_says_equal_or_where(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ask(capsys, "diff", "a", "b", "--exit-code")
    assert code == 0 and "results: equal" in out and "equal (12 rows)" in out
    code, out, _ = ask(capsys, "diff", "a", "c")
    assert code == 0 and "signal.hours  72.0 -> 24.0" in out and "param_signal_hours 72.0 -> 24.0" in out
    assert ask(capsys, "diff", "a", "c", "--exit-code")[0] == 1


def test_explain_writes_the_multiplication_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ask(capsys, "explain", "a", "--ts", "2024-03-08T08:00Z", "--instrument", PERP)
    assert code == 0
    assert "-(-2.5) x 41995.5 x 0.0001 = 10.498875 USD" in out
    assert f"data/funding.parquet (sha256 {'f' * 64})" in out and f"data/mark.parquet (sha256 {'c' * 64})" in out
