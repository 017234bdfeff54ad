"""Sweeps that are too large, killed, out of disk, raced, resumed wrongly, or that lose a worker: nothing is lost.

The numbers are those of the reliability bar (C13 to C19, C24, C25). ``kill_and_resume`` and ``second_sweep`` take a
seed and a folder, to be called many times by hand.
"""

import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from run_tables import folder_hash
from sweeping import (
    ABSENT,
    CARRY,
    PERPS,
    ROOT,
    SAMPLE,
    ended,
    environment,
    journal,
    long_tables,
    names_in,
    part_hashes,
    started,
    stopped,
    tables,
    toml_of,
    trials_hash,
    wait_until,
)

import basis_bt
from basis_bt.cli.main import entry
from basis_bt.core.errors import ConfigError, StoreError
from basis_bt.store import folder as store_folder
from basis_bt.store.partial import PartialRun
from basis_bt.sweeps.engine import sweep
from basis_bt.sweeps.plan import make_plan

THREADS = 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The long sweep, uninterrupted: hashes of its parts."""
    done = sweep(long_tables(), runs=tmp_path_factory.mktemp("whole"), threads=THREADS)
    return part_hashes(done.path)


# -- C13, C14: too large -----------------------------------------------------------------------------------------------

THOUSAND = {"from": 0.01, "to": 0.3, "steps": 1000}
TOO_LARGE = {
    "grid": {"rule__entry": THOUSAND, "rule__exit": THOUSAND, "size__allocation": THOUSAND},
    "random": {"rule__entry": {"from": 0.01, "to": 0.3}, "sweep": {"design": "random", "trials": 10**9}},
    "long-axes": {"rule__entry": THOUSAND | {"steps": 100_000}, "rule__exit": THOUSAND | {"steps": 10_000}},
}


@pytest.mark.parametrize("changes", TOO_LARGE.values(), ids=TOO_LARGE)
def test_c13_a_thousand_million_trials_are_refused_at_once_with_count_bytes_and_minutes(changes, tmp_path):
    begun = time.perf_counter()
    with pytest.raises(ConfigError, match="too large.*1,000,000,000 trials") as caught:
        sweep(tables(**changes), runs=tmp_path / "runs")
    assert time.perf_counter() - begun < 1.0
    assert caught.value.where["trials"] == "1,000,000,000"
    assert int(caught.value.where["bytes"].replace(",", "")) > 1e10
    assert float(caught.value.where["minutes"].replace(",", "")) > 10.0
    assert "--allow-large" in caught.value.fix
    assert names_in(tmp_path) == []


def test_c13_one_axis_of_a_thousand_million_values_is_refused_at_once():
    begun = time.perf_counter()
    with pytest.raises(ConfigError, match="1,000,000,000 values are too many for one axis"):
        sweep(tables(rule__entry=THOUSAND | {"steps": 10**9}))
    assert time.perf_counter() - begun < 1.0


@pytest.mark.parametrize("limit", ["MOST_TRIALS", "MOST_SECONDS", "MOST_DISK_SHARE", "MOST_MEMORY_SHARE"])
def test_c13_every_limit_refuses_and_the_flag_raises_it(limit, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(f"basis_bt.sweeps.plan.{limit}", 1e-12)
    path = toml_of(tables(rule__entry=[0.1, 0.2]), tmp_path / "a.toml")
    command = ["sweep", str(path), "--runs", str(tmp_path / "runs")]
    assert entry(command) == entry([*command, "--dry-run"]) == 2
    assert "the sweep is too large" in capsys.readouterr().err
    assert names_in(tmp_path) == ["a.toml"]
    assert entry([*command, "--allow-large"]) == 0
    assert names_in(tmp_path / "runs") == ["demo"]


# -- C15: no room ------------------------------------------------------------------------------------------------------

# from some moment on no file of this process may grow beyond some bytes: what a full disk does, seen from inside
NO_ROOM = """
import resource
count = 0
def advance(self, n_trials):
    global count
    count += 1
    if count == {parts}:
        resource.setrlimit(resource.RLIMIT_FSIZE, ({n_bytes}, resource.RLIM_INFINITY))
Progress.advance = advance
"""


@pytest.mark.parametrize("share", ["half", "all", "nothing"])
def test_c15_without_room_the_parts_are_kept_and_resume_completes_them(tmp_path, whole, share, capsys):
    market = shutil.copytree(SAMPLE, tmp_path / "market")
    before = folder_hash(market)
    config = long_tables(data__root=str(market))
    n_parts = make_plan(config).n_parts
    parts = {"half": n_parts // 2, "all": n_parts, "nothing": 0}[share]
    no_room = NO_ROOM.format(parts=parts, n_bytes=20_000)
    if parts == 0:
        no_room = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))"
    code, _, err = ended(started(tmp_path, config, more=no_room))
    assert code == 1, err
    assert "could not be written: File too large" in err and "path=" in err and "bytes=" in err
    assert "Traceback" not in err
    assert names_in(tmp_path / "runs") == ([] if parts == 0 else [".demo.sweep"])
    assert len(journal(tmp_path)) == parts
    assert list((tmp_path / "runs").rglob("*.tmp")) == []
    assert basis_bt.sql("SELECT count(*) AS n FROM trials", root=tmp_path / "runs")["n"].item() == 0
    assert ("--resume" in err) == (parts > 0)
    done = sweep(config, runs=tmp_path / "runs", resume=True, quiet=False)
    said = f"{min(parts * make_plan(config).part_trials, 1600):,} of 1,600 trials are there already"
    assert done.trials.height == 1600 and (said in capsys.readouterr().err) == (parts > 0)
    assert part_hashes(tmp_path / "runs" / "demo") == whole
    assert folder_hash(market) == before
    assert names_in(tmp_path / "runs") == ["demo"]


def test_c15_a_disk_that_is_full_while_inputs_are_noted_fails_the_sweep_and_not_its_trials(tmp_path, monkeypatch):
    config = tables(combo=[CARRY, PERPS])
    with monkeypatch.context() as patch:

        def full(self):
            raise OSError(28, "No space left on device")

        real = PartialRun._write_plan
        patch.setattr(PartialRun, "_write_plan", lambda self: full(self) if "inputs" in self.plan else real(self))
        with pytest.raises(StoreError, match="No space left"):
            sweep(config, runs=tmp_path / "runs")
    done = sweep(config, runs=tmp_path / "runs", resume=True)
    assert done.trials["status"].to_list() == ["ok", "ok"]


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_c15_a_failure_of_the_last_steps_loses_nothing(tmp_path, monkeypatch, fails_at):
    """Neither the tables, nor the manifest, nor the last rename can take the parts along."""
    config = tables(rule__entry=[0.05, 0.1])
    first = sweep(config, runs=tmp_path / "runs", name="first")
    name, count = {1: "write_table", 2: "manifest_text", 3: "move_into_place"}[fails_at], 0
    real = getattr(store_folder, name)

    def failing(*arguments, **options):
        nonlocal count
        count += 1
        if name != "write_table" or count > 1:
            raise OSError(28, "No space left on device")
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(store_folder, name, failing)
        with pytest.raises(StoreError, match="No space left") as caught:
            sweep(config, runs=tmp_path / "runs")
    assert "--resume" in caught.value.fix and caught.value.where["bytes"] > 0
    monkeypatch.setattr("basis_bt.sweeps.engine.make_job", None)  # no part is computed again
    again = sweep(config, runs=tmp_path / "runs", resume=True)
    assert part_hashes(again.path) == part_hashes(first.path)
    assert names_in(again.path) == names_in(first.path)


# -- C16: killed -------------------------------------------------------------------------------------------------------


def kill_and_resume(
    tmp: Path, whole: dict[str, str], *, seed: int, kills: int = 1, config: dict[str, Any] | None = None
) -> list[int]:
    """Kill a sweep at random moments and resume it; returns how many parts each process found, and were done twice.

    What a process had written before it was killed, the next has; parts that were done twice are at most one a worker
    and kill; the result is byte-equal to the uninterrupted one and nothing else is left.
    """
    draw, config = random.Random(seed), long_tables() if config is None else config
    n_parts, found = make_plan(config).n_parts, []
    for turn in range(kills + 1):
        before = journal(tmp)
        found.append(len(before))
        process = started(tmp, config, "--resume", log=f"log{turn}")
        if turn < kills:
            wanted, delay = draw.randint(len(before), n_parts), draw.random() * 0.15
            wait_until(lambda: process.poll() is not None or len(journal(tmp)) >= wanted)  # noqa: B023
            deadline = time.monotonic() + delay
            while time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.001)
            process.kill()
        code, _, err = ended(process)
        if (tmp / "runs" / "demo").is_dir():
            assert code in (0, -signal.SIGKILL), err
            break
        assert code == -signal.SIGKILL, err
        assert before <= journal(tmp)
    assert part_hashes(tmp / "runs" / "demo") == whole
    assert names_in(tmp / "runs") == ["demo"]
    assert list((tmp / "runs").rglob("*.tmp")) == []
    stored = store_folder.load_run(tmp / "runs" / "demo")
    assert stored.manifest["sweep"]["n_trials"] == stored.tables["metrics"].height == make_plan(config).n_trials
    words = [word for path in sorted(tmp.glob("log*")) for word in path.read_text().split("\n")]
    done = [int(word.split()[1]) for word in words if word.startswith("done ")]
    begun = sum(word.startswith("begun ") for word in words)
    assert sorted(set(done)) == list(range(n_parts))
    n_killed = len(found) - 1
    assert len(done) - n_parts <= THREADS * n_killed, "more than one whole part a worker was computed twice"
    assert begun - n_parts <= (THREADS + 2) * n_killed
    return [*found, len(done) - n_parts, begun - n_parts]


def test_c16_a_kill_at_any_moment_leaves_what_resume_completes_byte_equal(tmp_path, whole):
    kill_and_resume(tmp_path, whole, seed=1, kills=3)


# dies at the n-th rename or removal of a file once all parts are there
DIES = """
import os
from basis_bt.store.partial import PartialRun
finish, steps = PartialRun.finish, [0]
def finishing(self, **options):
    def step(name, real):
        def call(*arguments, **keys):
            steps[0] += 1
            if steps[0] == {step}:
                os._exit(9)
            return real(*arguments, **keys)
        setattr(os, name, call)
    for name in ("rename", "unlink", "fsync"):
        step(name, getattr(os, name))
    return finish(self, **options)
PartialRun.finish = finishing
from basis_bt.sweeps.engine import sweep
from sweeping import tables
sweep(tables(rule__entry=[0.05, 0.1]), runs={runs!r}, name="demo", resume={resume}, overwrite={overwrite})
"""


@pytest.mark.parametrize("overwrite", [False, True])
def test_c16_death_at_any_step_of_finishing_loses_no_part(tmp_path, overwrite):
    """One process after the other dies later: at a table, before and between the last renames, while tidying up."""
    runs, config = tmp_path / "runs", tables(rule__entry=[0.05, 0.1])
    whole = sweep(config, runs=runs, name="whole")
    if overwrite:
        sweep(tables(rule__entry=[0.3, 0.4]), runs=runs)
    old = folder_hash(runs / "demo") if overwrite else ""
    for step in (5, 17, 18, 20):
        code = DIES.format(step=step, runs=str(runs), resume=step > 5, overwrite=overwrite)
        assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 9
        listed = {row["run"]: row["error"] for row in store_folder.list_runs(runs)}
        assert listed.get("demo") is None and ("demo" in listed or not overwrite)
        if "demo" in listed and folder_hash(runs / "demo") != old:
            break  # it is in its place
        parts = runs / ".demo.sweep" / "parts.jsonl"
        assert len(parts.read_text().splitlines()) == 1, "the part is there, and was not written again"
    else:
        sweep(config, runs=runs, resume=True)
    assert step == (20 if overwrite else 18)
    assert part_hashes(runs / "demo") == part_hashes(whole.path)
    assert store_folder.load_run(runs / "demo").manifest["sweep"]["n_trials"] == 2
    assert basis_bt.sql("SELECT count(*) AS n FROM trials WHERE run = 'demo'", root=runs)["n"].item() == 2


def test_a_torn_line_of_the_journal_costs_its_part_alone(tmp_path, monkeypatch):
    config = long_tables(n_entries=15, n_exits=10)
    whole = sweep(config, runs=tmp_path, name="whole")
    stopped(config, tmp_path, monkeypatch, after=3, threads=1)
    parts = tmp_path / ".demo.sweep" / "parts.jsonl"
    parts.write_bytes(parts.read_bytes()[:-20])
    stopped(config, tmp_path, monkeypatch, after=2, threads=1, resume=True)
    lines = parts.read_bytes().split(b"\n")
    assert [json.loads(line)["part"] for line in lines if line and line.endswith(b"}")] == [0, 1, 2, 3]
    assert part_hashes(sweep(config, runs=tmp_path, resume=True).path) == part_hashes(whole.path)


@pytest.mark.parametrize("damage", ["bytes", "gone", "link", "plan"])
def test_a_damaged_part_is_computed_again_and_a_damaged_plan_is_said(tmp_path, monkeypatch, damage):
    config = long_tables(n_entries=15, n_exits=10)
    whole = sweep(config, runs=tmp_path, name="whole")
    stopped(config, tmp_path, monkeypatch, after=3, threads=1)
    part = tmp_path / ".demo.sweep" / "metrics" / "00001.parquet"
    if damage == "bytes":
        part.write_bytes(part.read_bytes()[:-1] + b"x")
    elif damage == "gone":
        part.unlink()
    elif damage == "link":
        part.rename(tmp_path / "elsewhere")
        part.symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / ".demo.sweep" / "plan.json").write_text("{")
        with pytest.raises(StoreError, match="damaged") as caught:
            sweep(config, runs=tmp_path, resume=True)
        assert "--overwrite" in caught.value.fix
    done = sweep(config, runs=tmp_path, resume=damage != "plan", overwrite=damage == "plan")
    assert part_hashes(done.path) == part_hashes(whole.path)
    assert not any(path.is_symlink() for path in done.path.rglob("*"))


def test_an_unfinished_sweep_is_no_run_and_asks_what_to_do(tmp_path, monkeypatch, capsys):
    config = long_tables(n_entries=15, n_exits=10)
    stopped(config, tmp_path / "runs", monkeypatch)
    assert store_folder.list_runs(tmp_path / "runs") == []
    with pytest.raises(StoreError, match=r"was begun and not finished \(\d parts are there\)") as caught:
        sweep(config, runs=tmp_path / "runs")
    assert "--resume" in caught.value.fix and "--overwrite" in caught.value.fix
    other = tables(rule__entry=[0.05, 0.1])
    sweep(other, runs=tmp_path / "runs", overwrite=True)
    assert names_in(tmp_path / "runs") == ["demo"]
    with pytest.raises(StoreError, match="exists already"):
        sweep(other, runs=tmp_path / "runs", resume=True)


def test_c12_an_overwrite_that_is_interrupted_keeps_the_old_run_until_it_is_resumed(tmp_path, monkeypatch):
    sweep(tables(rule__entry=[0.05, 0.1]), runs=tmp_path)
    before, config = folder_hash(tmp_path / "demo"), long_tables(n_entries=15, n_exits=10)
    stopped(config, tmp_path, monkeypatch, overwrite=True)
    assert folder_hash(tmp_path / "demo") == before
    done = sweep(config, runs=tmp_path, resume=True)
    assert done.trials.height == 150 and names_in(tmp_path) == ["demo"]


def test_c10_c11_no_name_and_no_link_leads_out(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("mine")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".demo.sweep").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    before = folder_hash(tmp_path)
    for name in ("demo", "link"):
        with pytest.raises(StoreError, match="symbolic link"):
            sweep(tables(), runs=tmp_path / "runs", name=name, overwrite=True)
    for name in ("../x", "a/b", "", ".", "-rf", "a\0b", "a" * 300):
        with pytest.raises(ConfigError, match="run name"):
            sweep(tables(), runs=tmp_path / "runs", name=name)
    assert folder_hash(tmp_path) == before
    assert names_in(tmp_path / "runs") == [".demo.sweep", "link"]


# -- C17: interrupted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_c17_a_signal_ends_a_sweep_within_two_seconds_resumably(tmp_path, whole, sent, code):
    process = started(tmp_path, long_tables())
    wait_until(lambda: len(journal(tmp_path)) >= 3 or process.poll() is not None)
    begun = time.monotonic()
    process.send_signal(sent)
    found, _, err = ended(process)
    assert time.monotonic() - begun < 2.0
    assert found == code, err
    assert "Traceback" not in err
    assert names_in(tmp_path / "runs") == [".demo.sweep"] and len(journal(tmp_path)) >= 3
    assert not Path(f"/proc/{process.pid}").exists()
    sweep(long_tables(), runs=tmp_path / "runs", resume=True)
    assert part_hashes(tmp_path / "runs" / "demo") == whole


def test_a_signal_in_the_middle_of_the_waiting_leaves_no_lock_held(tmp_path):
    """The standard library takes the locks of all futures one by one; an interrupt there would never give them back."""
    more = """
real_wait, calls = threads.wait, []
def wait(futures, **how):
    calls.append(len(futures))
    if len(calls) == 3:
        locks = [future._condition for future in futures]
        for lock in locks:
            lock.acquire()
        os.kill(os.getpid(), 2)
        for lock in locks:
            lock.release()
    return real_wait(futures, **how)
threads.wait = wait
"""
    code, _, err = ended(started(tmp_path, long_tables(), more=more), timeout=30.0)
    assert code == 130, err


# -- C18: two sweeps, one folder ---------------------------------------------------------------------------------------


def second_sweep(tmp: Path, whole: dict[str, str]) -> None:
    """A second sweep is refused at once with the first one's pid and host; a dead one's place is taken."""
    process = started(tmp, long_tables())
    wait_until(lambda: (tmp / "runs" / ".demo.sweep" / "plan.json").exists() or process.poll() is not None)
    assert process.poll() is None, ended(process)
    for options in ({}, {"resume": True}, {"overwrite": True}):
        begun = time.perf_counter()
        with pytest.raises(StoreError, match="another process") as caught:
            sweep(long_tables(), runs=tmp / "runs", **options)
        assert time.perf_counter() - begun < 1.0
        assert f"pid {process.pid} on {socket.gethostname()}" in str(caught.value)
    process.kill()
    ended(process)
    done = sweep(long_tables(), runs=tmp / "runs", resume=True)
    assert part_hashes(done.path) == whole
    assert names_in(tmp / "runs") == ["demo"]


def test_c18_a_second_sweep_names_the_first_and_takes_over_when_that_is_dead(tmp_path, whole):
    second_sweep(tmp_path, whole)


def test_c18_of_many_that_begin_at_once_one_runs_and_the_others_are_told(tmp_path):
    config = tables(rule__entry=[0.05, 0.1])
    processes = [started(tmp_path, config, log=f"log{k}") for k in range(3)]
    outcomes = [ended(process) for process in processes]
    assert sorted(code for code, _, _ in outcomes) == [0, 1, 1], [err for _, _, err in outcomes]
    for code, _, err in outcomes:
        assert code == 0 or "another process" in err or "exists already" in err, err
    assert names_in(tmp_path / "runs") == ["demo"]
    assert part_hashes(tmp_path / "runs" / "demo") == part_hashes(sweep(config, runs=tmp_path, name="x").path)


def test_a_lock_that_was_renamed_away_with_a_finished_sweep_is_not_taken_for_the_next(tmp_path, monkeypatch):
    """Between opening the lock and holding it, the process that had it may finish."""
    import fcntl

    config, real, calls = tables(rule__entry=[0.05, 0.1]), fcntl.flock, []

    def flock(file, how):
        calls.append(how)
        if len(calls) == 1:
            shutil.move(tmp_path / ".demo.sweep", tmp_path / "moved")
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    done = sweep(config, runs=tmp_path)
    assert len(calls) == 2 and done.path == tmp_path / "demo"


# -- C19: resumed with something else ----------------------------------------------------------------------------------


@pytest.fixture
def unfinished(tmp_path, monkeypatch):
    """Market folder and runs folder of a sweep that was stopped, and its configuration."""
    market = shutil.copytree(SAMPLE, tmp_path / "market")
    table = tmp_path / "costs.parquet"
    rows = {"day": [date(2024, 1, 1)] * 2, "pair": ["A", "A"], "size_usd": [1e4, 1e6], "cost_bps": [1.0, 2.0]}
    pl.DataFrame(rows).write_parquet(table)
    config = long_tables(n_entries=15, n_exits=10, data__root=str(market))
    config["costs"] |= {"bucket_table": str(table), "bucket_pairs": {"spot": "A", "perp": "A"}}
    stopped(config, tmp_path / "runs", monkeypatch, after=2)
    return market, tmp_path / "runs", config


def refusal(runs, config, **options):
    before = folder_hash(runs)
    with pytest.raises(StoreError, match="cannot be resumed") as caught:
        sweep(config, runs=runs, resume=True, **options)
    assert folder_hash(runs) == before
    assert caught.value.where["then"] != caught.value.where["now"]
    return str(caught.value)


def test_c19_another_configuration_is_refused_and_the_same_in_other_words_is_not(unfinished):
    _, runs, config = unfinished
    for section, key, value in (("rule", "cooldown_hours", 1), ("sweep", "metric", "cagr"), ("fills", "seed", 1)):
        changed = config | {section: config[section] | {key: value}}
        assert "its configuration has changed" in refusal(runs, changed)
    done = sweep(config | {"name": "demo"}, runs=runs, resume=True, threads=1)
    assert done.trials.height == 150


@pytest.mark.parametrize(
    ("patched", "value", "says"),
    [
        ("basis_bt.__version__", "99.0", "its package version has changed"),
        ("basis_bt.sweeps.plan.hash_of_sources", lambda: "0" * 16, "its package has changed"),
        ("basis_bt.sweeps.plan.rulebook_hash", lambda: "0" * 16, "its rulebook has changed"),
        ("basis_bt.sweeps.plan.versions", lambda: {"versions": {"polars": "0.1"}}, "its versions has changed"),
    ],
)
def test_c19_another_package_rulebook_or_library_is_refused(unfinished, monkeypatch, patched, value, says):
    _, runs, config = unfinished
    with monkeypatch.context() as patch:
        patch.setattr(patched, value)
        assert says in refusal(runs, config)
    assert sweep(config, runs=runs, resume=True).trials.height == 150


@pytest.mark.parametrize("file", ["funding/binance/BTC-USDT.parquet", "spot/binance/BTC-USDT.parquet", "costs.parquet"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_c19_another_input_file_is_refused_and_named(unfinished, file, how):
    market, runs, config = unfinished
    path = market / file if "/" in file else market.parent / file
    good = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        frame = pl.read_parquet(path)
        frame.with_columns(pl.col(frame.columns[-1])).write_parquet(path, compression="gzip")
    text = refusal(runs, config)
    assert "an input file has changed" in text and str(path) in text
    path.write_bytes(good)
    assert sweep(config, runs=runs, resume=True).trials.height == 150


def test_c19_a_series_in_parts_is_resumed_and_a_change_of_one_part_refused(tmp_path, monkeypatch):
    market = shutil.copytree(SAMPLE, tmp_path / "market")
    path = market / "perp" / "binance" / "BTC-USDT.parquet"
    frame = pl.read_parquet(path)
    path.unlink()
    parts = path.with_suffix("")
    parts.mkdir()
    frame.head(4000).write_parquet(parts / "a.parquet")
    frame[4000:].write_parquet(parts / "b.parquet")
    config = long_tables(n_entries=15, n_exits=10, data__root=str(market))
    stopped(config, tmp_path / "runs", monkeypatch)
    good = (parts / "b.parquet").read_bytes()
    frame[4000:].write_parquet(parts / "b.parquet", compression="gzip")
    assert str(parts) in refusal(tmp_path / "runs", config)
    (parts / "b.parquet").write_bytes(good)
    assert sweep(config, runs=tmp_path / "runs", resume=True).trials["status"].unique().to_list() == ["ok"]


def test_an_input_that_changes_while_a_sweep_runs_stops_it(tmp_path, monkeypatch):
    """Trials of one sweep are never made of two versions of a file: a panel that is read again must be the same."""
    market = shutil.copytree(SAMPLE, tmp_path / "market")
    monkeypatch.setattr("basis_bt.sweeps.cells.KEPT_PANELS", 1)
    monkeypatch.setattr("basis_bt.sweeps.cells.kept_cells", lambda n_bars: 1)
    config = tables(
        data__root=str(market), combo=[CARRY, PERPS], data__start=["2024-02-01T00:00Z", "2024-02-02T00:00Z"]
    )
    path, real = market / "perp" / "binance" / "BTC-USDT.parquet", basis_bt.sweeps.cells.loader
    count = 0

    def changing(*arguments):
        nonlocal count
        count += 1
        if count == 3:
            pl.read_parquet(path).write_parquet(path, compression="gzip")
        return real(*arguments)

    monkeypatch.setattr("basis_bt.sweeps.cells.loader", changing)
    with pytest.raises(StoreError, match="changed while the sweep ran") as caught:
        sweep(config, runs=tmp_path / "runs")
    assert caught.value.where["file"] == str(path)


# -- C24: the command line ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["sweep", "top"])
def test_c24_usage_is_on_stderr_and_help_on_stdout(verb, capsys):
    assert entry([verb]) == 2
    captured = capsys.readouterr()
    assert "Missing argument" in captured.err and captured.out == ""
    assert entry([verb, "x", "--nosuch"]) == 2
    assert "No such option" in capsys.readouterr().err
    assert entry([verb, "--help"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("Usage:") and captured.err == ""
    for wrong in (
        (["--threads", "0"], ["--threads", "many"], ["--engine", "slurm"]) if verb == "sweep" else (["--n", "0"],)
    ):
        assert entry([verb, "x", *wrong]) == 2
        assert "Invalid value" in capsys.readouterr().err


def test_c24_wrong_files_and_settings_are_one_message(tmp_path, capsys):
    good = toml_of(tables(), tmp_path / "good.toml")
    (tmp_path / "bad.toml").write_text("rule = [")
    runs = ["--runs", str(tmp_path / "runs")]
    for arguments, code, says in (
        (["sweep", str(tmp_path / "none.toml")], 2, "cannot read"),
        (["sweep", str(tmp_path / "bad.toml")], 2, "no TOML"),
        (["sweep", str(tmp_path)], 2, "cannot read"),
        (["sweep", str(good), "--set", "rule.entry"], 2, "key=value"),
        (["sweep", str(good), "--set", "rule.entry=[0.1,'x']"], 2, "rule.entry"),
        (["sweep", str(good), "--set", "data.root=nowhere"], 1, "market folder does not exist"),
        (["sweep", str(good), "--name", "../x"], 2, "run name"),
    ):
        assert entry([*arguments, *runs]) == code, arguments
        err = capsys.readouterr().err
        assert says in err and "Traceback" not in err
    assert names_in(tmp_path / "runs") == []
    (tmp_path / "file").write_text("")
    assert entry(["sweep", str(good), "--runs", str(tmp_path / "file")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_c24_a_closed_pipe_a_poor_terminal_and_a_home_that_cannot_be_written(tmp_path):
    path = toml_of(tables(rule__entry=[0.05, 0.1]), tmp_path / "a.toml")
    command = f"{sys.executable} -m basis_bt.cli.main"
    env = environment(PYTHONIOENCODING="cp1252", BASIS_BT_RUNS=str(tmp_path / "runs"))
    found = subprocess.run(
        f"{command} sweep {path} | true; {command} top demo --n 1 | head -1; {command} top demo | true",
        shell=True, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "Traceback" not in found.stderr and "BrokenPipe" not in found.stderr, found.stderr
    assert found.stdout.startswith("trial") and names_in(tmp_path / "runs") == ["demo"]
    (tmp_path / "tmp").mkdir()
    env |= {"BASIS_BT_CACHE": str(path / "no"), "TMPDIR": str(tmp_path / "tmp")}
    found = subprocess.run(
        [*command.split(), "sweep", str(path), "--dry-run"], cwd=ROOT, env=env, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert found.returncode == 0 and found.stdout.startswith("2 trials"), found.stderr
    assert found.stderr.count("cannot be kept") <= 1 and "Traceback" not in found.stderr


# -- C25: workers that die ---------------------------------------------------------------------------------------------


def test_c25_without_ray_that_is_said_and_threads_do_it(tmp_path):
    path = toml_of(tables(rule__entry=[0.05, 0.1]), tmp_path / "a.toml")
    code = "import sys; sys.modules['ray'] = None; from basis_bt.cli.main import entry; sys.exit(entry(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "sweep", str(path), "--runs", str(tmp_path / "runs")]
    found = subprocess.run(
        [*command, "--engine", "ray"], env=environment(), capture_output=True, text=True, check=False
    )
    assert found.returncode == 2 and "Traceback" not in found.stderr
    assert "Ray, which is not installed" in found.stderr and "--engine threads" in found.stderr
    assert names_in(tmp_path / "runs") == []
    found = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


# two nodes on this machine; a worker is killed in the second sweep, a node in the third
CLUSTER = """
import json, os, signal, sys
import ray
from ray.cluster_utils import Cluster
from sweeping import ABSENT, CARRY, long_tables, trials_hash, wait_until
from basis_bt.sweeps.engine import sweep
from basis_bt.sweeps.progress import Progress

cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=1, include_dashboard=False))
node = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
ray.init(address=cluster.address, log_to_driver=False)
config, out = long_tables(n_entries=30, n_exits=30, combo=[CARRY, ABSENT]), dict()

def workers():
    raylets = set(one.process.pid for each in cluster.list_all_nodes() for one in each.all_processes["raylet"])
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/" + name + "/stat") as stat, open("/proc/" + name + "/cmdline") as line:
                if int(stat.read().rpartition(")")[2].split()[1]) in raylets and "_run" in line.read():
                    found.append(int(name))
        except OSError:
            continue
    return found

def run(name, at_third):
    count = [0]
    def advance(self, n_trials):
        count[0] += 1
        if count[0] == 3:
            at_third()
    Progress.advance = advance
    done = sweep(config, runs=sys.argv[1], name=name, engine="ray")
    out[name] = dict(hash=trials_hash(done.trials), status=done.manifest["sweep"]["status"])

run("ray", lambda: None)
run("worker", lambda: os.kill(workers()[0], signal.SIGKILL))
run("node", lambda: cluster.remove_node(node, allow_graceful=False))
wait_until(lambda: sum(one["Alive"] for one in ray.nodes()) == 1)
ray.shutdown()
cluster.shutdown()
print("FOUND " + json.dumps(out), flush=True)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """What three sweeps on a cluster gave, and one on threads."""
    pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("cluster")
    # a process of its own: Ray warns, forks, and lets go of sockets late
    found = subprocess.run([sys.executable, "-c", CLUSTER, str(folder / "runs")], env=environment(),
                           capture_output=True, text=True, timeout=240, check=False)  # fmt: skip
    lines = [line for line in found.stdout.splitlines() if line.startswith("FOUND ")]
    assert found.returncode == 0 and lines, found.stderr[-3000:]
    local = sweep(long_tables(n_entries=30, n_exits=30, combo=[CARRY, ABSENT]), runs=folder / "runs", name="local")
    return json.loads(lines[0].removeprefix("FOUND ")), local, folder / "runs"


@pytest.mark.parametrize("name", ["ray", "worker", "node"])
def test_c25_a_cluster_gives_the_bytes_of_threads_also_when_a_worker_or_a_node_is_killed(cluster, name):
    found, local, runs = cluster
    assert part_hashes(runs / name) == part_hashes(local.path)
    assert found[name]["hash"] == trials_hash(local.trials)
    assert found[name]["status"] == {"data_error": 900, "ok": 900}
    assert names_in(runs) == ["local", "node", "ray", "worker"]
