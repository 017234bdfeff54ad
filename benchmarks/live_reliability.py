"""How much the live engine withstands: numbered faults, soak, kills, cuts at every await, and a random machine.

    python benchmarks/live_reliability.py                                # a few minutes of everything
    python benchmarks/live_reliability.py --repetitions 20               # F1 to F37, all variants, four venue pairs
    python benchmarks/live_reliability.py --soak 1000 --seeds 20         # F34
    python benchmarks/live_reliability.py --kills 20                     # F38: points x venues x 20
    python benchmarks/live_reliability.py --cuts                         # every await of an open-and-close, three ways
    python benchmarks/live_reliability.py --machine 200                  # examples of the state machine

Everything runs against simulated venues behind loopback HTTP, with the real clients, in virtual time. With none of the
options a small share of each is run. A failure is printed with what replays it; then the exit code is 1.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from hypothesis import HealthCheck, settings  # noqa: E402
from hypothesis.stateful import run_state_machine_as_test  # noqa: E402
from live_machine import Machine  # noqa: E402
from live_room import PAIRS  # noqa: E402
from live_trials import (  # noqa: E402
    CUTS,
    KILL_POINTS,
    REQUESTS,
    SCENES,
    count_awaits,
    cut_trial,
    kill_trial,
    soak,
)
from test_live_faults import CASES, test_the_legs_stay_together  # noqa: E402

MOST_MB = 20.0
NAKED_S = 12.0
LATE_S = (0.0, 1.0, 5.0)
DEAD_S = (0.0, 20.0)
Trial = tuple[str, Callable[[Path], object]]


def faults(repetitions: int) -> Iterator[Trial]:
    """F1 to F37 with their variants on all pairs."""
    for number in range(repetitions):
        for case in CASES:
            yield f"{case.id} #{number}", lambda folder, case=case: test_the_legs_stay_together(*case.values)


def kills(repetitions: int) -> Iterator[Trial]:
    """Every point on the three venues, at once and after a while, with orders that land late."""
    for number in range(repetitions):
        late_s, dead_s = LATE_S[number % 3], DEAD_S[number // 3 % 2]
        for pair in PAIRS[:3]:
            for name, point in KILL_POINTS.items():
                is_under_way = any(word in name for word in ("accepted", "exit", "shutdown")) or name.endswith(" sent")
                late = late_s if is_under_way and "before" not in name else 0.0

                def trial(folder: Path, point=point, pair=pair, late=late, dead_s=dead_s) -> object:
                    return kill_trial(point, pair, folder, late_s=late, dead_s=dead_s)

                yield f"kill: {name}, {pair[0]}, late {late:g} s, dead {dead_s:g} s", trial


def cuts() -> Iterator[Trial]:
    """Each await of an open-and-close: cancelled, timed out, or the last one."""
    for pair in PAIRS:
        for scene in SCENES:
            for step, most in count_awaits(pair, scene).items():
                for cut in CUTS if step != "sleep" else ("cancelled", "killed"):
                    for n in range(1, most + 1):

                        def trial(folder: Path, pair=pair, cut=cut, step=step, n=n, scene=scene) -> object:
                            return cut_trial(pair, folder, cut=cut, step=step, n=n, scene=scene)

                        yield f"cut: {cut} at {step} {n}, {scene}, {'/'.join(pair)}", trial


def run(title: str, trials: Iterator[Trial]) -> int:
    """Run trials, each in a folder of its own; prints one line, and one a failure. Returns the failures."""
    began, n, failed = time.perf_counter(), 0, 0
    for name, trial in trials:
        n += 1
        with tempfile.TemporaryDirectory() as folder:
            try:
                trial(Path(folder) / "journal")
            except Exception as error:
                failed += 1
                print(f"  FAILED {name}: {type(error).__name__}: {str(error)[:200]}", flush=True)
    print(f"{title:<44} {n:>6} runs {failed:>4} failed {time.perf_counter() - began:>7.0f} s", flush=True)
    return failed


def run_soak(cycles: int, seeds: int) -> int:
    """F34 on all pairs; one line each."""
    failed = 0
    for pair in PAIRS:
        for seed in range(1, seeds + 1):
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                found = soak(pair, Path(folder) / "journal", cycles=cycles, seed=seed)
            wrong = list(found.failures)
            if found.grown_mb > MOST_MB:
                wrong.append(f"memory grew by {found.grown_mb:.1f} MB")
            if found.most_requests > REQUESTS:
                wrong.append(f"I9: {found.most_requests} requests in a cycle")
            if sum(found.creates.values()) > 4.6 * cycles:
                wrong.append(f"{found.creates} orders were sent")
            failed += bool(wrong)
            print(
                f"soak {'/'.join(pair):<16} seed {seed:<3} {found.cycles:>5} cycles {found.struck:>5} faults  "
                f"opened {found.outcomes.get('opened', 0):>4}  naked <= {found.longest_naked_s:4.1f} s  "
                f"requests <= {found.most_requests}  +{found.grown_mb:.1f} MB  {time.perf_counter() - began:.0f} s",
                flush=True,
            )
            for sentence in wrong:
                print(f"  FAILED {sentence}", flush=True)
    return failed


def run_machine(examples: int) -> int:
    """The state machine; hypothesis prints what it found, made small."""
    began, failed = time.perf_counter(), 0
    chosen = settings(max_examples=examples, stateful_step_count=15, deadline=None, database=None,
                      suppress_health_check=list(HealthCheck))  # fmt: skip
    try:
        run_state_machine_as_test(Machine, settings=chosen)
    except Exception as error:
        failed = 1
        print(f"  FAILED {type(error).__name__}: {error}", *getattr(error, "__notes__", ()), sep="\n  ", flush=True)
    print(f"{'state machine':<44} {examples:>6} runs {failed:>4} failed {time.perf_counter() - began:>7.0f} s")
    return failed


def main() -> int:
    """Print the table; exit code 1 after any failure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=0, help="of F1 to F37")
    parser.add_argument("--soak", type=int, default=0, metavar="CYCLES")
    parser.add_argument("--seeds", type=int, default=1, help="of the soak, on each pair")
    parser.add_argument("--kills", type=int, default=0, metavar="REPETITIONS")
    parser.add_argument("--cuts", action="store_true")
    parser.add_argument("--machine", type=int, default=0, metavar="EXAMPLES")
    asked = parser.parse_args()
    if not any((asked.repetitions, asked.soak, asked.kills, asked.cuts, asked.machine)):
        asked.repetitions, asked.soak, asked.kills, asked.machine = 1, 100, 1, 20
    warnings.simplefilter("ignore", DeprecationWarning)
    failed = run("F1 to F37", faults(asked.repetitions)) if asked.repetitions else 0
    failed += run("F38, killed and started again", kills(asked.kills)) if asked.kills else 0
    failed += run("an await fails", cuts()) if asked.cuts else 0
    failed += run_soak(asked.soak, asked.seeds) if asked.soak else 0
    failed += run_machine(asked.machine) if asked.machine else 0
    print(f"{failed} failed" if failed else "nothing failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
