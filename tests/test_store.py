"""Run folders: whole or not at all, verified on reading, and never outside their root."""

import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from run_tables import PERP, SPOT, at, folder_hash, run_manifest, run_tables

from basis_bt.core.errors import ConfigError, StoreError
from basis_bt.store import folder
from basis_bt.store.compare import diff_runs
from basis_bt.store.explain import explain_settlement
from basis_bt.store.folder import check_run_name, list_runs, load_run, resolve_run, save_run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def save(root: Path, name: str = "demo", *, overwrite: bool = False, **changes: object) -> Path:
    tables = run_tables(**changes)  # type: ignore[arg-type]
    return save_run(root, name=name, tables=tables, manifest=run_manifest(), overwrite=overwrite)


def test_a_saved_run_reads_back_equal(root: Path) -> None:
    path = save(root)
    run = load_run(path)
    assert {name: frame.equals(run.tables[name]) for name, frame in run_tables().items()} == dict.fromkeys(
        run_tables(), True
    )
    assert {name: frame.schema for name, frame in run.tables.items()} == {
        name: frame.schema for name, frame in run_tables().items()
    }
    assert run.manifest["name"] == "demo" and run.manifest["config"] == run_manifest()["config"]
    assert [entry.name for entry in root.iterdir()] == ["demo"]


def test_equal_tables_give_equal_bytes(root: Path) -> None:
    one = save(root, "one")
    tables = {name: pl.concat([frame.head(1), frame.tail(-1)], rechunk=False) for name, frame in run_tables().items()}
    two = save_run(root, name="two", tables=tables, manifest=run_manifest())
    for file in one.glob("*.parquet"):
        assert file.read_bytes() == (two / file.name).read_bytes(), file.name


def test_manifest_takes_datetimes_paths_and_numpy_but_no_nan(root: Path) -> None:
    import numpy as np

    manifest = {**run_manifest(), "created": datetime(2024, 1, 1, tzinfo=UTC), "where": Path("a/b"), "n": np.int64(3)}
    path = save_run(root, name="demo", tables=run_tables(), manifest=manifest)
    found = load_run(path).manifest
    assert (found["created"], found["where"], found["n"]) == ("2024-01-01T00:00:00+00:00", "a/b", 3)
    with pytest.raises(StoreError, match="JSON"):
        save_run(root, name="nan", tables=run_tables(), manifest={**run_manifest(), "x": float("nan")})
    assert [entry.name for entry in root.iterdir()] == ["demo"]


BAD_NAMES = ["../../x", "a/b", "", ".", "..", "-rf", "a\0b", "a" * 300, "a ", " a", ".hidden", "a\n", "é", "a\\b"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=[f"C10-{i}" for i in range(len(BAD_NAMES))])
def test_c10_a_bad_run_name_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_text("kept")
    before = folder_hash(tmp_path)
    with pytest.raises(ConfigError, match="run name"):
        save_run(tmp_path / "runs", name=name, tables=run_tables(), manifest=run_manifest())
    assert folder_hash(tmp_path) == before


@pytest.mark.parametrize("name", ["a", "2024.run_1-b", "A" * 100])
def test_a_good_run_name_passes(name: str) -> None:
    assert check_run_name(name) == name


def test_c11_a_link_that_leads_out_is_neither_written_nor_read(root: Path, tmp_path: Path) -> None:
    outside = save(tmp_path / "elsewhere", "real")
    root.mkdir()
    (root / "link").symlink_to(outside, target_is_directory=True)
    before = folder_hash(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(StoreError, match="symbolic link"):
            save(root, "link", overwrite=overwrite)
    with pytest.raises(StoreError, match="leads out"):
        load_run(root / "link")
    with pytest.raises(StoreError, match="leads out"):
        resolve_run(root, "link")
    assert [row["error"] is not None for row in list_runs(root)] == [True]
    assert folder_hash(tmp_path) == before


def test_c11_a_table_that_is_a_link_and_a_link_loop_are_refused(root: Path) -> None:
    path = save(root)
    (path / "equity.parquet").rename(root.parent / "equity.parquet")
    (path / "equity.parquet").symlink_to(root.parent / "equity.parquet")
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(StoreError, match="symbolic link"):
        load_run(path)
    with pytest.raises(StoreError):
        load_run(root / "loop")


def test_c12_a_taken_name_is_refused_and_its_bytes_stay(root: Path) -> None:
    save(root)
    before = folder_hash(root)
    with pytest.raises(StoreError, match="exists already"):
        save(root, signal_hours=24.0)
    assert folder_hash(root) == before
    save(root, overwrite=True, signal_hours=24.0)
    assert load_run(root / "demo").tables["metrics"]["param_signal_hours"].item() == 24.0
    assert [entry.name for entry in root.iterdir()] == ["demo"]


def test_a_folder_that_is_no_run_is_never_overwritten(root: Path) -> None:
    (root / "demo").mkdir(parents=True)
    (root / "demo" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="not a run"):
        save(root, overwrite=True)
    assert (root / "demo" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("fails_at", [1, 2])
def test_c12_a_failing_rename_leaves_the_old_run(root: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    save(root)
    before, real, calls = folder_hash(root), os.rename, []

    def rename(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == fails_at:
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(StoreError, match="Input/output error"):
        save(root, overwrite=True, signal_hours=24.0)
    assert folder_hash(root) == before


KILLED = """
import os, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from test_store import save
real, calls = os.rename, []
def rename(source, target):
    calls.append(source)
    if len(calls) == {at}:
        os._exit(9)
    real(source, target)
os.rename = rename
save(Path({root!r}), overwrite=True, signal_hours=24.0)
"""


@pytest.mark.parametrize("dies_at", [1, 2])
def test_c12_a_killed_overwrite_leaves_the_old_run_to_the_next_reader(root: Path, dies_at: int) -> None:
    save(root)
    before = folder_hash(root / "demo")
    here = Path(__file__).parent
    code = KILLED.format(paths=[str(here), str(here.parent)], at=dies_at, root=str(root))
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 9
    assert [row["run"] for row in list_runs(root) if not row["error"]] == ["demo"]
    assert folder_hash(resolve_run(root, "demo")) == before
    save(root, overwrite=True)
    assert [entry.name for entry in root.iterdir()] == ["demo"]


@pytest.mark.parametrize("at_file", [0, 3, 7])
def test_c15_a_full_disk_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch, at_file: int) -> None:
    real, calls = folder.write_bytes, []

    def write(data: bytes, path: Path) -> str:
        calls.append(path)
        if len(calls) > at_file:
            raise OSError(28, "No space left on device")
        return real(data, path)

    monkeypatch.setattr(folder, "write_bytes", write)
    with pytest.raises(StoreError, match="No space left") as caught:
        save(root)
    assert caught.value.where["bytes"] > 0
    assert list(root.iterdir()) == []


def test_a_leftover_of_a_dead_process_is_no_run_and_is_cleared(root: Path) -> None:
    save(root)
    leftover = root / ".other.999999999.tmp"
    (root / "demo").rename(leftover)
    assert list_runs(root) == []
    with pytest.raises(StoreError, match="no run"):
        resolve_run(root, "other")
    save(root, "other")
    assert [entry.name for entry in root.iterdir()] == ["other"]


def test_every_flipped_bit_is_an_error(root: Path) -> None:
    path = save(root)
    draw = random.Random(11)
    for file in sorted(path.iterdir()):
        good = file.read_bytes()
        for _ in range(12):
            bad = bytearray(good)
            bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
            file.write_bytes(bad)
            try:
                run = load_run(path)
            except StoreError as error:
                assert error.where and error.fix
            else:  # white space of the manifest: the content is what was written
                assert file.name == "manifest.json" and run.manifest == json.loads(good)
        file.write_bytes(good)
    load_run(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "fills.parquet").unlink(),
        lambda path: (path / "fills.parquet").write_bytes(b""),
        lambda path: (path / "manifest.json").unlink(),
        lambda path: (path / "manifest.json").write_text("{"),
        lambda path: (path / "manifest.json").write_text("[]"),
        lambda path: (path / "manifest.json").write_bytes(b"\xff\xfe"),
        lambda path: (path / "manifest.json").write_text("[" * 100_000),
    ],
)
def test_damage_is_a_store_error_and_the_listing_lives(root: Path, damage: object) -> None:
    damage(save(root, "bad"))  # type: ignore[operator]
    save(root, "good")
    with pytest.raises(StoreError) as caught:
        load_run(root / "bad")
    assert caught.value.where and caught.value.fix
    assert "good" in [row["run"] for row in list_runs(root) if not row["error"]]


def test_a_missing_run_names_the_nearest(root: Path) -> None:
    save(root, "btc-carry")
    with pytest.raises(StoreError, match="did you mean btc-carry"):
        resolve_run(root, "btc-cary")
    with pytest.raises(StoreError):
        load_run(root / "nothing")
    with pytest.raises(StoreError):
        resolve_run(root, "a\0b")
    assert resolve_run(root, "btc-carry") == resolve_run(root, str(root / "btc-carry")) == root / "btc-carry"
    assert list_runs(root.parent / "none") == []


def test_equal_runs_compare_equal(root: Path) -> None:
    comparison = diff_runs(load_run(save(root, "a")), load_run(save(root, "b")))
    assert comparison.equal
    assert {table.table for table in comparison.tables} == set(run_tables())


def test_a_difference_is_found_with_its_first_row(root: Path) -> None:
    a = load_run(save(root, "a"))
    tables = run_tables()
    changed = pl.when(pl.col("ts") >= at(5)).then(pl.col("cash_usd") + 1).otherwise(pl.col("cash_usd"))
    tables["equity"] = tables["equity"].with_columns(cash_usd=changed)
    tables["fills"] = tables["fills"].filter(pl.col("action") == "entry")
    tables["trades"] = tables["trades"].with_columns(exit_reason=pl.lit(None, dtype=pl.String))
    manifest = run_manifest(signal_hours=24.0, rate_sha256="e" * 64)
    b = load_run(save_run(root, name="b", tables=tables, manifest=manifest))
    comparison = diff_runs(a, b)
    assert [(item.key, item.a, item.b) for item in comparison.config] == [("signal.hours", 72.0, 24.0)]
    assert [item.key for item in comparison.inputs] == [f"{PERP} funding"]
    assert comparison.versions == ()
    found = {table.table: table for table in comparison.tables}
    equity, fills, trades = found["equity"], found["fills"], found["trades"]
    assert (equity.rows_differ, equity.ts, equity.column, equity.a, equity.b) == (7, at(5), "cash_usd", 5e5, 5e5 + 1)
    assert (fills.rows_differ, fills.ts, fills.column, fills.a, fills.b) == (2, at(10), "(row)", "present", "(absent)")
    assert (trades.rows_differ, trades.column, trades.a, trades.b) == (1, "exit_reason", "signal", None)
    assert found["funding"].equal and not comparison.results_equal


def test_a_missing_table_another_type_and_another_order_are_differences(root: Path) -> None:
    a = load_run(save(root, "a"))
    tables = run_tables()
    del tables["events"]
    tables["equity"] = tables["equity"].with_columns(pl.col("direction").cast(pl.Int64))
    tables["attribution"] = tables["attribution"].reverse()
    b = load_run(save_run(root, name="b", tables=tables, manifest=run_manifest()))
    found = {table.table: table for table in diff_runs(a, b).tables}
    assert found["events"].column == "(table)"
    assert (found["equity"].column, found["equity"].a, found["equity"].b) == ("direction", "Int8", "Int64")
    assert found["attribution"].column == "(order)"


@pytest.mark.parametrize("ts", [at(8), at(8) + timedelta(milliseconds=5), at(8) - timedelta(seconds=59),
                                at(8).replace(tzinfo=None)])  # fmt: skip
@pytest.mark.parametrize(("source", "file"), [("own", "f"), ("mark", "c"), ("trade", "b")])
def test_a_settlement_is_explained_down_to_its_files(root: Path, ts: datetime, source: str, file: str) -> None:
    run = load_run(save(root, mark_source=source))
    (found,) = explain_settlement(run, ts)
    assert found.arithmetic == "-(-2.5) x 41995.5 x 0.0001 = 10.498875 USD"
    assert (found.bar_ts, found.settlement_ts) == (at(8), at(8) + timedelta(milliseconds=5))
    assert [item.sha256 for item in found.rate_files] == ["f" * 64]
    assert [item.sha256 for item in found.mark_files] == [file * 64]
    assert "41995.5" in dict(found.lines())["mark price"]


def test_no_settlement_names_its_neighbours(root: Path) -> None:
    run = load_run(save(root))
    with pytest.raises(StoreError) as caught:
        explain_settlement(run, at(4))
    assert caught.value.where["before"] == "2024-03-08T00:00:00Z"
    assert caught.value.where["after"] == "2024-03-08T08:00:00.005000Z"
    with pytest.raises(StoreError, match=PERP):
        explain_settlement(run, at(8), instrument=SPOT)


def test_books_that_are_not_the_product_are_said_to_be(root: Path) -> None:
    tables = run_tables()
    tables["funding"] = tables["funding"].with_columns(funding_usd=pl.lit(99.0))
    run = load_run(save_run(root, name="demo", tables=tables, manifest=run_manifest()))
    assert "the books say 99.0" in explain_settlement(run, at(8))[0].arithmetic
