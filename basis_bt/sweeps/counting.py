"""How many trials were made of a market, as far as a folder of runs knows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from basis_bt.store.folder import list_runs
from basis_bt.sweeps.result import Sweep


def trials_made(sweep: Sweep, runs: str | Path | None, *, notes: list[str]) -> int:
    """Trials of this sweep and of all other runs of a folder that share an instrument with it.

    Parameters
    ----------
    runs : the folder; None: the one the sweep lies in, nothing for a sweep in memory
    notes : is told of runs that cannot be read, which are not counted
    """
    own = None if sweep.path is None else sweep.path.resolve()
    folder = runs if runs is not None else None if own is None else own.parent
    total, n_unread, names = int(sweep.manifest["sweep"]["n_trials"]), 0, _instruments(sweep.manifest)
    for row in [] if folder is None else list_runs(Path(folder)):
        if Path(row["path"]).resolve() == own:
            continue
        if row["error"]:
            n_unread += 1
        elif names & _instruments(row["manifest"]):
            total += int(row["manifest"]["sweep"]["n_trials"]) if "sweep" in row["manifest"] else 1
    if n_unread:
        notes.append(f"{n_unread} runs of {folder} cannot be read, and their trials are not counted")
    return total


def _instruments(manifest: dict[str, Any]) -> set[str]:
    """The instruments of a run: those of its configuration and of every combo it varies over."""
    axes = manifest.get("sweep", {}).get("axes", [])
    combos = [one.get("values") for one in axes if one["key"].partition(".")[0] == "combo"]
    return set(_named([manifest.get("config", {}).get("combo"), combos]))


def _named(value: Any) -> Iterator[str]:
    """What stands under ``instrument`` anywhere in nested tables."""
    if isinstance(value, dict):
        if "instrument" in value:
            yield value["instrument"]
        value = list(value.values())
    for inner in value if isinstance(value, list | tuple) else ():
        yield from _named(inner)
