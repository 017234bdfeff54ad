"""SQL over runs: one SELECT, nothing else in reach, stopped at its limits."""

import subprocess
import sys
import time
import warnings
from pathlib import Path

import polars as pl
import pytest
from run_tables import N_BARS, at, folder_hash, run_manifest, run_tables

from basis_bt.core.errors import QueryError, StoreError
from basis_bt.store.folder import save_run
from basis_bt.store.query import RUNS_SCHEMA, SCHEMAS, VIEWS, sql


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    for name, hours in (("a", 24.0), ("b", 72.0)):
        tables, manifest = run_tables(signal_hours=hours), run_manifest(signal_hours=hours)
        save_run(root, name=name, tables=tables, manifest=manifest)
    return root


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_begins_with_run_and_has_its_schema(root: Path, tmp_path: Path, view: str) -> None:
    frame = sql(f"SELECT * FROM {view} ORDER BY ALL", root=root)
    expected = RUNS_SCHEMA if view == "runs" else {"run": pl.String, **SCHEMAS[view]}
    assert frame.columns[0] == "run" and frame["run"].unique().sort().to_list() == ["a", "b"]
    assert {name: frame.schema[name] for name in expected} == expected
    empty = sql(f"SELECT * FROM {view}", root=tmp_path / "nothing")
    assert empty.height == 0 and empty.schema == pl.Schema(expected)
    assert not (tmp_path / "nothing").exists()


def test_tables_come_back_as_they_were_written(root: Path) -> None:
    for view in SCHEMAS:
        table = run_tables(signal_hours=24.0)["metrics" if view == "trials" else view]
        assert sql(f"SELECT * EXCLUDE (run) FROM {view} WHERE run = 'a'", root=root).equals(table), view


def test_runs_tell_configuration_and_span(root: Path) -> None:
    frame = sql("SELECT *, (config->>'$.signal.hours')::DOUBLE AS hours FROM runs ORDER BY run", root=root)
    row = frame.row(1, named=True)
    assert (row["run"], row["signal"], row["hours"], row["n_bars"], row["bar_hours"]) == (
        "b", "funding_apr", 72.0, N_BARS, 1.0)  # fmt: skip
    assert (row["start"], row["end"]) == (at(0), at(12))
    assert row["legs"] == "spot:binance:BTC-USDT, perp:binance:BTC-USDT"


def test_parameters_of_different_runs_are_united_by_name(root: Path) -> None:
    for name, value in (("c", 3), ("d", "x")):
        tables = run_tables()
        tables["metrics"] = tables["metrics"].with_columns(pl.lit(value).alias("param_mode"))
        save_run(root, name=name, tables=tables, manifest=run_manifest())
    frame = sql("SELECT run, param_signal_hours, param_mode FROM trials ORDER BY run", root=root)
    assert frame["param_mode"].to_list() == [None, None, "3", "x"]
    assert frame["param_signal_hours"].to_list() == [24.0, 72.0, 72.0, 72.0]


def test_joins_windows_and_other_spellings_of_select_work(root: Path) -> None:
    query = """WITH last AS (SELECT run, max(ts) AS ts FROM equity GROUP BY run)
               SELECT e.run, e.equity_usd, t.sharpe FROM equity e JOIN last USING (run, ts) JOIN trials t USING (run)"""
    assert sql(query, root=root).height == 2
    assert sql("FROM fills LIMIT 3", root=root).height == 3
    assert set(sql("SHOW TABLES", root=root)["name"]) == set(VIEWS)
    assert sql("DESCRIBE fills", root=root)["column_name"][0] == "run"
    assert sql("SELECT count(*) AS n FROM query_table('equity');", root=root)["n"].item() == 2 * N_BARS


WRITES = [
    "INSERT INTO trials SELECT * FROM trials", "UPDATE trials SET sharpe = 9", "DELETE FROM trials", "DROP VIEW trials",
    "CREATE TABLE t AS SELECT 1", "COPY (SELECT 1) TO '{root}/a/metrics.parquet'", "EXPORT DATABASE '{root}/x'",
    "ATTACH '{root}/x.db'", "PRAGMA database_list", "SET threads = 1", "INSTALL httpfs", "LOAD httpfs",
    "SELECT 1; DROP VIEW trials", "SELECT 1; SELECT 2", "", "-- nothing", "CHECKPOINT", "EXPLAIN SELECT 1", "VACUUM",
    "CALL enable_logging()", "RESET lock_configuration", "PREPARE p AS SELECT 1",
    "SELECT * FROM enable_logging('QueryLog', storage='file', storage_path='{root}/log')",
    "WITH x AS (INSERT INTO trials SELECT * FROM trials RETURNING *) SELECT * FROM x",
]  # fmt: skip
READS = [
    "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM read_blob('{root}/a/manifest.json')",
    "SELECT * FROM glob('/etc/*')", "SELECT * FROM some_frame", "SELECT * FROM 'http://127.0.0.1:9/x.parquet'",
    "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM '/etc/passwd.csv'", "SELECT getenv('HOME')",
    "SELECT * FROM read_parquet('{root}/a/equity.parquet')",
    "SELECT * FROM parquet_metadata('{root}/a/equity.parquet')",
    "SELECT * FROM sniff_csv('/etc/passwd')", "SELECT * FROM duckdb_secrets()",
]  # fmt: skip


@pytest.mark.parametrize("query", WRITES, ids=[f"C21-{i}" for i in range(len(WRITES))])
def test_c21_a_statement_that_writes_is_refused(root: Path, query: str) -> None:
    before = folder_hash(root.parent)
    with pytest.raises(QueryError) as caught:
        sql(query.format(root=root), root=root)
    assert caught.value.fix and "\n" not in caught.value.what
    assert folder_hash(root.parent) == before


@pytest.mark.parametrize("query", READS, ids=[f"C22-{i}" for i in range(len(READS))])
def test_c22_a_statement_that_reads_elsewhere_is_refused(root: Path, query: str) -> None:
    some_frame = pl.DataFrame({"secret": [1]})
    before = folder_hash(root.parent)
    with pytest.raises(QueryError) as caught:
        sql(query.format(root=root), root=root)
    assert caught.value.fix
    assert folder_hash(root.parent) == before
    assert some_frame.height == 1


RUNAWAYS = [
    "SELECT count(*) FROM range(1000000) a, range(1000000) b",
    "SELECT * FROM range(1000000) a, range(1000000) b WHERE a.range + b.range < 0",
]


@pytest.mark.parametrize("query", RUNAWAYS, ids=["C23-count", "C23-rows"])
def test_c23_a_runaway_is_stopped_at_its_time_and_the_next_query_works(root: Path, query: str) -> None:
    began = time.monotonic()
    with pytest.raises(QueryError, match="stopped after 1 s"):
        sql(query, root=root, timeout_seconds=1.0)
    assert time.monotonic() - began < 5
    assert sql("SELECT 1 AS one", root=root)["one"].item() == 1


HUNGRY = ["SELECT * FROM range(1000000) a, range(1000000) b", "SELECT list(range) FROM range(100000000)"]


@pytest.mark.parametrize("query", HUNGRY, ids=["C23-result", "C23-state"])
def test_c23_memory_has_a_limit(root: Path, query: str) -> None:
    with pytest.raises(QueryError, match=r"(?i)memory"):
        sql(query, root=root, memory_limit="50MB")
    assert sql("SELECT 1 AS one", root=root)["one"].item() == 1


@pytest.mark.parametrize(("timeout", "memory"), [(0.0, "1GB"), (float("nan"), "1GB"), (1.0, "lots"), (1.0, "0GB")])
def test_limits_that_mean_nothing_are_refused(root: Path, timeout: float, memory: str) -> None:
    with pytest.raises(QueryError):
        sql("SELECT 1", root=root, timeout_seconds=timeout, memory_limit=memory)


def test_errors_say_what_to_do(root: Path) -> None:
    for query, message in (
        ("SELECT * FROM trails", "did you mean trials"),
        ("SELECT * FROM nowhere", "the views are runs, trials"),
        ("SELEC 1", "syntax error"),
        ("SELECT sharp FROM trials", "sharp"),
        ("SELECT ?", "parameters"),
        ("SELECT INTERVAL 1 HOUR", "CAST"),
    ):
        with pytest.raises(QueryError, match=message):
            sql(query, root=root)


def test_a_damaged_table_is_an_error_and_never_a_number(root: Path) -> None:
    good = sql("SELECT * FROM attribution ORDER BY ALL", root=root)
    file = root / "a" / "attribution.parquet"
    data = file.read_bytes()
    outcomes = set()
    for position in range(4, len(data), max(1, len(data) // 60)):
        bad = bytearray(data)
        bad[position] ^= 1 << (position % 8)
        file.write_bytes(bad)
        try:
            outcomes.add(sql("SELECT * FROM attribution ORDER BY ALL", root=root).equals(good))
        except StoreError:
            outcomes.add("error")
    assert outcomes <= {True, "error"} and "error" in outcomes


def test_a_broken_folder_is_left_out_and_named(root: Path) -> None:
    (root / "a" / "manifest.json").write_text("{}")
    with pytest.warns(UserWarning, match="left out 1 folder.*a "):
        assert sql("SELECT run FROM runs", root=root)["run"].to_list() == ["b"]
    (root / "b" / "equity.parquet").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(StoreError, match="equity"):
            sql("SELECT count(*) FROM equity", root=root)


def test_no_time_zone_package_is_needed(root: Path) -> None:
    code = (
        "import sys; sys.modules['pytz'] = None; from pathlib import Path; from basis_bt.store import sql; "
        f"sql('SELECT max(ts) AS ts FROM equity', root=Path({str(root)!r}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
