"""A sweep before it runs: its trials, what they will take, and the configuration of any one of them."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from basis_bt.backtest.engine import versions
from basis_bt.backtest.parameters import borrowed_legs
from basis_bt.backtest.prepare import configured_signal
from basis_bt.core.calibration_file import with_calibration
from basis_bt.core.config import build_config, config_dict, read_toml
from basis_bt.core.errors import BasisBtError, ConfigError
from basis_bt.core.models import Config
from basis_bt.core.rulebook import is_coin_margined, rulebook_hash
from basis_bt.core.sweep_spec import Axis, Space, SweepSpec, read_space, replaced
from basis_bt.core.units import parse_instant, to_us
from basis_bt.signals import Signal
from basis_bt.sweeps.batch import METRICS
from basis_bt.sweeps.cells import kept_cells
from basis_bt.sweeps.combos import configured_combos
from basis_bt.sweeps.design import Design, make_design, n_asked
from basis_bt.sweeps.fast_axes import is_fast

# rough figures for the pre-flight line; the progress bar knows better
NS_PER_BAR, NS_PER_BAR_WHOLE = 4.0, 150.0
BYTES_PER_TRIAL = 8.0 * len(METRICS) * 0.9
# trials of one part: as many as take a fraction of a second
BAR_TRIALS_OF_PART, BAR_TRIALS_OF_PART_WHOLE = 2**27, 2**22
LEAST_PART, MOST_PART = 256, 2**16
# a cell beside its panel, and what the cells of one part may take
BYTES_PER_BAR, BYTES_OF_PART, SECONDS_PER_CELL = 90.0, 2**28, 0.013
MOST_SECONDS, MOST_TRIALS, MOST_DISK_SHARE, MOST_MEMORY_SHARE = 24 * 3600.0, 20_000_000, 0.8, 0.5


@dataclass(frozen=True)
class Plan:
    """Trials of a sweep; ``slow`` and ``fast`` are the axes that need preparing and those that do not.

    ``base`` has the first value of each axis (of thresholds, holds and impact the one that refuses least), so it need
    not be the configuration of any trial; ``n_bars`` is what its span says.
    """

    space: Space
    design: Design
    base: Config
    n_bars: int
    needs_whole_trial: bool

    @property
    def n_trials(self) -> int:
        """Number of trials."""
        return self.design.n_trials

    @cached_property
    def fast(self) -> list[int]:
        """Places of the axes whose values the kernels take."""
        named = [axis.values for axis in self.space.axes if axis.key == "signal.name"]
        signals = {self.base.signal.name, *(str(name) for names in named for name in names)}
        return [place for place, axis in enumerate(self.space.axes) if is_fast(axis, signals=signals)]

    @cached_property
    def slow(self) -> list[int]:
        """Places of the axes that make another cell."""
        return [place for place in range(len(self.space.axes)) if place not in self.fast]

    @cached_property
    def part_trials(self) -> int:
        """Trials of one part file: the same whatever computes them, a power of two."""
        room = (BAR_TRIALS_OF_PART_WHOLE if self.needs_whole_trial else BAR_TRIALS_OF_PART) // max(self.n_bars, 1)
        trials_a_cell = self.n_trials / self.n_cells
        room = min(room, max(int(trials_a_cell * BYTES_OF_PART // (self.n_bars * BYTES_PER_BAR)), 16))
        least = 16 if self.needs_whole_trial else LEAST_PART
        wanted = min(room, max(self.n_trials // 16, least), MOST_PART)
        return 2 ** max(int(math.log2(max(wanted, least))), 0)

    @property
    def n_parts(self) -> int:
        """Number of part files."""
        return -(-self.n_trials // self.part_trials)

    def trials_of(self, part: int) -> np.ndarray:
        """Numbers of the trials of a part."""
        return np.arange(part * self.part_trials, min((part + 1) * self.part_trials, self.n_trials))

    @cached_property
    def n_cells(self) -> int:
        """Most cells its trials have."""
        axes = [self.space.axes[place] for place in self.slow]
        if any(axis.is_drawn for axis in axes):
            return self.n_trials
        return min(self.n_trials, math.prod(len(axis.values) for axis in axes))

    def seconds(self, threads: int) -> float:
        """Estimated time; cells are prepared by one thread."""
        per_bar = NS_PER_BAR_WHOLE if self.needs_whole_trial else NS_PER_BAR
        return self.n_trials * self.n_bars * per_bar * 1e-9 / threads + SECONDS_PER_CELL * self.n_cells

    @property
    def disk_bytes(self) -> float:
        """Estimated size of the results."""
        return self.n_trials * BYTES_PER_TRIAL

    def memory_bytes(self, threads: int) -> float:
        """Estimated peak memory: panels, signals, and what each thread has in work."""
        panel = self.n_bars * len(self.base.combo.legs) * 8 * 40.0
        per_trial = 8.0 * (len(METRICS) + 40 + len(self.space.axes))
        columns = 0 if self.space.spec.design == "grid" else 8.0 * self.n_trials * len(self.space.axes)
        kept = min(self.n_cells, kept_cells(self.n_bars)) * self.n_bars * 240.0
        in_work = (threads + 2) * min(self.part_trials, self.n_cells) * self.n_bars * BYTES_PER_BAR
        return 150e6 + 3 * panel + kept + in_work + 5 * columns + (2 * threads + 2) * self.part_trials * per_trial

    def values_of(self, trial: int) -> dict[str, Any]:
        """Key and value of each axis at a trial."""
        columns = self.design.take(np.array([trial]))
        return {axis.key: value_at(axis, column[0]) for axis, column in zip(self.space.axes, columns, strict=True)}

    def config_of(self, trial: int) -> dict[str, Any]:
        """The tables of one trial's configuration."""
        return replaced(self.space.raw, self.values_of(trial))

    def signals(self, config: Config) -> list[Signal]:
        """Every signal of the sweep over the combo of a configuration; those that do not fit it are left out."""
        places = [place for place in self.slow if self.space.axes[place].key.startswith("signal.")]
        axes = [self.space.axes[place] for place in places]
        choices: list[list[Any]]
        if self.design.columns is None:
            shape = [len(axis.values) for axis in axes]
            choices = [[axis.values[k] for axis, k in zip(axes, index, strict=True)] for index in np.ndindex(*shape)]
        else:
            columns = [self.design.columns[place] for place in places]
            together = sorted(set(zip(*(column.tolist() for column in columns), strict=True)))
            choices = [[value_at(axis, one) for axis, one in zip(axes, row, strict=True)] for row in together]
        plain = config_dict(config)
        out = []
        for choice in choices or [[]]:
            signal = {**plain["signal"], **{axis.key[7:]: value for axis, value in zip(axes, choice, strict=True)}}
            try:
                out.append(configured_signal(build_config({**plain, "signal": signal})))
            except BasisBtError:
                continue  # its own cell says why
        return out or [configured_signal(config)]

    def identity(self) -> dict[str, Any]:
        """What decides every byte of the result but the input files, by the name a user would know it by."""
        from basis_bt import __version__

        tables = {**self.space.raw, "axes": [axis_dict(axis) for axis in self.space.axes]}
        tables.pop("name", None)
        spec = dataclasses.asdict(self.space.spec)
        told = json.dumps([tables, spec, self.part_trials], sort_keys=True, default=str)
        return {
            "configuration": hashlib.sha256(told.encode()).hexdigest(),
            "package version": __version__,
            "package": hash_of_sources(),
            "rulebook": rulebook_hash(),
            "versions": versions()["versions"],
        }

    def sentence(self, *, threads: int, engine: str) -> str:
        """The pre-flight line."""
        axes = (
            " x ".join(f"{axis.key} {'drawn' if axis.is_drawn else len(axis.values)}" for axis in self.space.axes)
            or "no axis"
        )
        return (
            f"{self.n_trials:,} trials ({axes}), about {self.n_bars:,} bars each; "
            f"memory {_size(self.memory_bytes(threads))}, disk {_size(self.disk_bytes)}, "
            f"about {_time(self.seconds(threads))} on {threads} {engine}"
        )


@cache
def hash_of_sources() -> str:
    """Hash of all of this package's modules: one installed to be worked on has the same version all along."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def value_at(axis: Axis, place: Any) -> Any:
    """The value of an axis at a place of its column."""
    if axis.is_drawn:
        return int(place) if axis.is_whole else float(place)
    return axis.values[int(place)]


def axis_dict(axis: Axis) -> dict[str, Any]:
    """An axis as plain values, for manifests."""
    if axis.is_drawn:
        return {"key": axis.key, "from": axis.low, "to": axis.high, "scale": "log" if axis.is_log else "lin",
                "is_whole": axis.is_whole}  # fmt: skip
    return {"key": axis.key, "values": list(axis.values)}


def make_plan(
    source: str | Path | Mapping[str, Any],
    *,
    own_signal: bool = False,
    check: Callable[[Plan], None] | None = None,
) -> Plan:
    """The plan of a sweep's configuration; without a name it has that of its file, or is called ``sweep``.

    Parameters
    ----------
    own_signal : whether the caller brings a signal instead of the configured one
    check : is shown the plan before the design is drawn up, which may be larger than this machine

    Raises
    ------
    ConfigError
        For whatever is wrong with it; nothing but the list of files of a market folder is read.
    """
    raw = read_toml(source) if isinstance(source, str | Path) else dict(source)
    raw.setdefault("name", Path(source).stem if isinstance(source, str | Path) else "sweep")
    if own_signal:
        raw = {**raw, "signal": {"name": "sql", "sql": "0"}}
    combos = configured_combos(raw)
    raw = with_calibration(raw, None if combos is None else map(_instruments, combos))
    space = read_space(raw, combos=combos)
    base = build_config(space.raw, source=str(source) if isinstance(source, str | Path) else "")
    if space.spec.metric not in METRICS:
        raise ConfigError(f"sweep.metric: {space.spec.metric!r} is no metric", fix=f"one of {', '.join(METRICS)}")
    span_us = to_us(parse_instant(base.data.end)) - to_us(parse_instant(base.data.start))
    undrawn = Design(axes=space.axes, n_trials=n_asked(space))
    n_bars = max(int(span_us // base.data.bar_us), 1)
    plan = Plan(space=space, design=undrawn, base=base, n_bars=n_bars, needs_whole_trial=needs_whole_trial(base))
    if check is not None:
        check(plan)
    return dataclasses.replace(plan, design=make_design(space))


def _instruments(combo: Any) -> list[str]:
    """What the legs of a combo that is not checked yet are called."""
    legs = combo.get("legs", []) if isinstance(combo, Mapping) else []
    return [str(leg.get("instrument")) for leg in legs if isinstance(leg, Mapping)]


def needs_whole_trial(config: Config) -> bool:
    """Whether the plain kernel will not do, as far as a configuration alone tells; see ``batch.is_plain``."""
    return bool(
        config.wallets.mode == "segregated"
        or config.wallets.is_tested
        or config.wallets.cash_yield_apr != 0.0
        or config.fills.model != "certain"
        or config.fills.reject_probability > 0.0
        or config.costs.fee_tier == "volume"
        or len(config.combo.legs) != 2
        or any(one.kind not in ("spot", "perp") or is_coin_margined(one) for one in config.combo.instruments)
        or borrowed_legs(config)
        or config.scenarios
    )


def plan_of_manifest(manifest: Mapping[str, Any]) -> Plan:
    """The plan of a sweep that was kept, from its manifest alone: its trials, not its parts or estimates."""
    facts = manifest["sweep"]
    axes = tuple(_axis_of(one) for one in facts["axes"])
    spec = SweepSpec(**facts["spec"])
    space = Space(raw=manifest["config"], axes=axes, spec=spec)
    base = build_config(manifest["config"])
    return Plan(space=space, design=make_design(space), base=base, n_bars=manifest["span"]["n_bars"],
                needs_whole_trial=False)  # fmt: skip


def _axis_of(one: Mapping[str, Any]) -> Axis:
    if "values" in one:
        return Axis(key=one["key"], values=tuple(one["values"]))
    return Axis(key=one["key"], low=one["from"], high=one["to"], is_log=one["scale"] == "log", is_whole=one["is_whole"])


def check_size(plan: Plan, *, threads: int, folder: Path | None) -> None:
    """Refuse a sweep that is larger than one sitting of this machine.

    Raises
    ------
    ConfigError
        With its count, bytes and minutes, and the flag that allows it.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    too_much = []
    if plan.n_trials > MOST_TRIALS:
        too_much.append(f"{plan.n_trials:,} trials are more than {MOST_TRIALS:,}")
    if plan.seconds(threads) > MOST_SECONDS:
        too_much.append(f"they would take about {plan.seconds(threads) / 60.0:,.0f} minutes")
    if plan.memory_bytes(threads) > MOST_MEMORY_SHARE * memory:
        too_much.append(f"memory {_size(plan.memory_bytes(threads))} is over half of this machine's {_size(memory)}")
    if folder is not None:
        free = _free_bytes(folder)
        if plan.disk_bytes > MOST_DISK_SHARE * free:
            too_much.append(f"disk {_size(plan.disk_bytes)} is over {MOST_DISK_SHARE:.0%} of the {_size(free)} free")
    if too_much:
        raise ConfigError(
            "the sweep is too large: " + "; ".join(too_much),
            where={
                "trials": f"{plan.n_trials:,}",
                "bytes": f"{plan.disk_bytes:,.0f}",
                "minutes": f"{plan.seconds(threads) / 60.0:,.1f}",
            },
            fix="take fewer values, a random design, or allow it (--allow-large)",
        )


def _free_bytes(folder: Path) -> float:
    import shutil

    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return float(shutil.disk_usage(place).free)


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000.0:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000.0
    return f"{n_bytes:,.1f} TB"


def _time(seconds: float) -> str:
    if seconds < 1.0:
        return "a second"
    if seconds < 120.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:,.0f} min" if seconds < 7200.0 else f"{seconds / 3600.0:,.1f} h"
