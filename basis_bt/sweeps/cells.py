"""Preparing what trials share: a panel by combo and span, a signal by its description, a cell for the rest."""

import dataclasses
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from basis_bt.backtest.cost_parameters import one_way_bps
from basis_bt.backtest.parameters import borrowed_legs, pays_gas
from basis_bt.backtest.prepare import configured_signal, loader, prepare
from basis_bt.core.calibration_file import Calibrated
from basis_bt.core.config import build_config, config_dict
from basis_bt.core.errors import BasisBtError, ConfigError, DataError, SignalError, StoreError
from basis_bt.core.models import Config
from basis_bt.frames.panel import Panel
from basis_bt.market.files import file_hash
from basis_bt.signals import Signal, evaluate
from basis_bt.sweeps.batch import STATUSES, Cell, make_cell

KEPT_PANELS, KEPT_SIGNALS = 3, 256
KEPT_BARS, LEAST_KEPT, MOST_KEPT = 2**22, 4, 256  # of cells, each of which holds on to its panel


def kept_cells(n_bars: int) -> int:
    """How many cells of so many bars are kept."""
    return max(LEAST_KEPT, min(KEPT_BARS // max(n_bars, 1), MOST_KEPT))


T = TypeVar("T")


class Kept(Generic[T]):
    """The last few things made, by key."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._items: OrderedDict[Any, T] = OrderedDict()

    def get(self, key: Any, make: Callable[[], T]) -> T:
        """The thing of a key, made now if it is not kept."""
        if key not in self._items:
            self._items[key] = make()
            while len(self._items) > self.most:
                self._items.popitem(last=False)
        self._items.move_to_end(key)
        return self._items[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why no trial of a cell can run: the code of its status, and the sentence."""

    status: int
    text: str


@dataclass(slots=True, kw_only=True)
class Cells:
    """Makes cells of configurations and keeps what they share.

    ``signals`` are all signals of the sweep by combo, so that a panel is read once with the history all of them need;
    ``own_signal`` is the caller's, instead of the configured ones. ``inputs`` are the files read so far, here or by an
    earlier process of the sweep, as rows of a manifest; ``met`` hears of them as they are read. ``n_bars``, about, of a
    cell decides how many are kept.
    """

    own_signal: Signal | None = None
    warmup: Callable[[Config], list[Signal]] | None = None
    met: Callable[[Mapping[str, Any]], None] = lambda _: None
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    flags: dict[str, None] = field(default_factory=dict)
    n_bars: int = 10_000
    _panels: Kept[Panel] = field(default_factory=lambda: Kept(KEPT_PANELS))
    _signals: Kept[np.ndarray] = field(default_factory=lambda: Kept(KEPT_SIGNALS))
    _cells: Kept[Cell | Failure] = field(init=False)

    def __post_init__(self) -> None:
        self._cells = Kept(kept_cells(self.n_bars))

    def get(self, raw: Mapping[str, Any]) -> Cell | Failure:
        """The cell of a configuration, or why there is none."""
        return self._cells.get(_text(raw), lambda: self._attempt(raw))

    def _attempt(self, raw: Mapping[str, Any]) -> Cell | Failure:
        try:
            return self.make(build_config(raw))
        except StoreError:
            raise  # the sweep itself cannot go on; that is not about this cell
        except BasisBtError as error:
            kinds = {ConfigError: "config_error", DataError: "data_error", SignalError: "signal_error"}
            return Failure(status=STATUSES.index(kinds.get(type(error), "error")), text=str(error))

    def make(self, config: Config) -> Cell:
        """The cell of a checked configuration.

        Raises
        ------
        BasisBtError
            If it cannot be prepared.
        """
        signal = configured_signal(config) if self.own_signal is None else self.own_signal
        panel = self.panel(config)
        plain = config_dict(config)
        spec = plain["signal"] if self.own_signal is None else "own"
        key = _text([_panel_key(config), spec, one_way_bps(config) if spec != "own" else None])
        values = self._signals.get(key, lambda: evaluate(signal, panel))
        prepared = prepare(config, signal=signal, panel=panel, signal_values=values)
        if config.costs.bucket_table is not None:
            path = Path(config.costs.bucket_table)
            self._meet([{"instrument": None, "series": "cost", "path": str(path), "sha256": file_hash(path)}])
        if isinstance(config.calibration, Calibrated):
            self._meet([{"instrument": None, "series": "calibration", **dataclasses.asdict(config.calibration)}])
        self.flags.update(dict.fromkeys(prepared.flags))
        return make_cell(prepared)

    def panel(self, config: Config) -> Panel:
        """The panel of a configuration, with the history that all signals of the sweep need."""
        return self._panels.get(_panel_key(config), lambda: self._load(config))

    def _load(self, config: Config) -> Panel:
        every = self.warmup(config) if self.warmup is not None else []
        panel = loader(config, _with_all_needs([*every, *([self.own_signal] if self.own_signal else [])]))()
        rows = [series.manifest_row() for series in panel.series]
        self._meet([{name: row[name] for name in ("instrument", "series", "path", "sha256")} for row in rows])
        return panel

    def _meet(self, rows: list[dict[str, Any]]) -> None:
        """Remember the hashes of files; trials of one sweep are not made of two versions of a file."""
        found = {f"{row['path']} {row['instrument'] or ''} {row['series']}": row for row in rows}
        for key, row in found.items():
            then, now = self.inputs.setdefault(key, row)["sha256"], row["sha256"]
            if then != now:
                raise StoreError(
                    "an input file has changed while the sweep ran",
                    where={"file": row["path"], "then": then[:12], "now": now[:12]},
                    fix="put the file back and go on (--resume), or begin again (--overwrite)",
                )
        self.met(found)


def series_hash(path: Path) -> str:
    """The hash a series is read with, of its path alone: of a file's bytes, of the hashes of a folder's parts."""
    if not path.is_dir():
        return file_hash(path)
    parts = sorted(part for part in path.rglob("*.parquet") if not part.name.startswith("."))
    return hashlib.sha256("".join(map(file_hash, parts)).encode()).hexdigest()


def _with_all_needs(signals: list[Signal]) -> Signal:
    """A signal that needs what each of several does."""
    first = signals[0]
    return dataclasses.replace(
        first,
        warmup_hours=max(one.warmup_hours for one in signals),
        funding_windows_hours=tuple(sorted({hours for one in signals for hours in one.funding_windows_hours})),
        settled_counts=tuple(sorted({count for one in signals for count in one.settled_counts})),
    )


def _panel_key(config: Config) -> str:
    """What a panel depends on beside the signals."""
    plain = config_dict(config)
    costs = (pays_gas(config), config.costs.gas_gwei is None)
    return _text([plain["data"], plain["combo"], plain["scenarios"], borrowed_legs(config), costs])


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
