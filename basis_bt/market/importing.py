"""``import_sources``: files of any known format into a market folder; twice is the same as once.

Pieces of one series are gathered and joined with what the folder holds. A file that cannot be read does not stop the
others; rows that disagree stop their series, which is then left as it was.
"""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from basis_bt.core.errors import ConfigError, DataError
from basis_bt.market.import_pieces import LABEL, CheckedPiece, check_rates, read_pieces
from basis_bt.market.import_report import ImportReport, ImportRow, conflict_text, one_line
from basis_bt.market.importers.base import Options
from basis_bt.market.merging import Merged, merge, with_intervals, without_told_intervals
from basis_bt.market.schemas import SERIES, SeriesKey
from basis_bt.market.sources import find_files, read_sources
from basis_bt.market.steps import bar_step_us, hours_text
from basis_bt.market.write import covered_spans_us, own_hash_is_right, write_series

BUFFER_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 4096  # of a piece of no rows

Progress = Callable[[int, int, str], None]


def import_sources(
    paths: Iterable[Path | str],
    root: Path | str,
    *,
    options: Options | None = None,
    bar: float | None = None,
    prefer: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Read files, folders and archives into a market folder, and report on every series of every source.

    Importing the same again changes nothing, not even the time of a file. Where two rows of one key disagree nothing
    of that series is written, unless ``prefer`` says which stands; of a series larger than ``BUFFER_BYTES``, what came
    before the conflict has been written then.

    Parameters
    ----------
    paths : files, archives and folders
    root : the market folder; made if it is missing
    options : what the files do not say
    bar : hours of a bar: bars of another step are skipped
    prefer : ``"new"`` (the source read last) or ``"old"`` stands where rows disagree
    dry_run : write nothing
    progress : called with the files done, all files, and the name at hand

    Raises
    ------
    DataError
        If a path does not exist.
    ConfigError
        If an option means nothing.
    """
    asked = options or Options()
    _check(asked, bar=bar, prefer=prefer)
    found = find_files(paths)
    job = _Job(root=Path(root) if isinstance(root, str) else root, prefer=prefer, dry_run=dry_run)
    rows: list[ImportRow] = []
    for done, file in enumerate(found.files):
        if progress:
            progress(done, len(found.files), file.name)
        for name, source in read_sources(file):
            if isinstance(source, DataError):
                rows.append(ImportRow(source=name, status="failed", sentence=one_line(source)))
                continue
            for piece in read_pieces(source, asked, bar=bar):
                rows.append(piece.row)
                if piece.key is not None:
                    job.add(piece.key, piece)
    for key in list(job.waiting):
        job.flush(key)
    if progress:
        progress(len(found.files), len(found.files), "")
    return ImportReport(rows=rows, ignored=dict(found.ignored), written=list(job.written), dry_run=dry_run)


def _check(options: Options, *, bar: float | None, prefer: str | None) -> None:
    if prefer not in (None, "new", "old"):
        raise ConfigError(f"prefer must be new or old, found {prefer!r}")
    if bar is not None and not 0 < bar < float("inf"):
        raise ConfigError(f"bar must be hours above 0, found {bar}")
    for name in ("venue", "symbol"):
        if getattr(options, name) is not None and not LABEL.fullmatch(getattr(options, name)):
            raise ConfigError(f"{name} cannot name a file, found {getattr(options, name)!r}")
    if options.series not in (None, *SERIES):
        raise ConfigError(f"no series is called {options.series!r}", fix=f"one of {', '.join(SERIES)}")
    for name, allowed in (("time_unit", ("s", "ms", "us", "ns")), ("volume_unit", ("base", "quote", "contracts"))):
        if getattr(options, name) not in (None, *allowed):
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}, found {getattr(options, name)!r}")
    if options.contract_size is not None and not 0 < options.contract_size < float("inf"):
        raise ConfigError(f"contract_size must be above 0, found {options.contract_size}")


@dataclass(slots=True, kw_only=True)
class _Job:
    """One call: where it writes, what waits, and what was done."""

    root: Path
    prefer: str | None
    dry_run: bool
    waiting: dict[SeriesKey, list[CheckedPiece]] = field(default_factory=dict)
    waiting_bytes: int = 0
    blocked: dict[SeriesKey, str] = field(default_factory=dict)
    written: dict[str, None] = field(default_factory=dict)

    def add(self, key: SeriesKey, piece: CheckedPiece) -> None:
        self.waiting.setdefault(key, []).append(piece)
        self.waiting_bytes += _size(piece)
        if self.waiting_bytes > BUFFER_BYTES:  # the series at hand may go on in the next file
            for other in [other for other in self.waiting if other != key]:
                self.flush(other)
            if self.waiting_bytes > BUFFER_BYTES // 2:
                self.flush(key)

    def flush(self, key: SeriesKey) -> None:
        pieces = self.waiting.pop(key)
        self.waiting_bytes -= sum(map(_size, pieces))
        status, sentence = "conflict", self.blocked.get(key, "")
        if not sentence:
            try:
                self._join(key, pieces)
                return
            except DataError as error:
                status, sentence = "failed", one_line(error)
            except OSError as error:
                status, sentence = "failed", f"the market folder cannot be used: {error.strerror or error}"
        for piece in pieces:
            if not piece.row.status:
                piece.row.close(status, sentence)

    def _join(self, key: SeriesKey, pieces: list[CheckedPiece]) -> None:
        held = _held(self.root, key)
        if key.spec.is_bars:
            pieces = _of_one_step(key, pieces, held)
            if not pieces:
                return
        if key.series == "trades":
            _refuse_two_tapes([*([] if held is None else [held]), *(piece.frame for piece in pieces)])
        before = pl.DataFrame(schema=key.spec.columns) if held is None else held
        if key.series == "funding":
            before = without_told_intervals(before)
        merged = merge([before, *(piece.frame for piece in pieces)], key, prefer=self.prefer)
        if merged.conflicting and self.prefer is None:
            self.blocked[key] = f"not written: {conflict_text(merged, [piece.row.source for piece in pieces])}"
            _count(pieces, merged, status="conflict", sentence=self.blocked[key])
            return
        frame = merged.frame
        if key.series == "funding":
            frame = with_intervals(frame)
            check_rates(frame, name=key.path)
        frame = frame.select(name for name in frame.columns if frame[name].null_count() < len(frame))
        changed = held is None or not frame.equals(held)
        if changed and not self.dry_run:
            write_series(self.root, key, frame, covered_us=covered_spans_us(self.root / key.path) or None)
            self.written[key.path] = None
        stands = f"the {self.prefer} ones stand"
        _count(pieces, merged, status="imported" if changed else "unchanged", sentence=stands)


def _size(piece: CheckedPiece) -> int:
    return int(piece.frame.estimated_size()) + _PIECE_BYTES


def _count(pieces: list[CheckedPiece], merged: Merged, *, status: str, sentence: str) -> None:
    """Close the rows of joined pieces; one that brought nothing to a series that was written is unchanged."""
    brought = any(merged.new[1:])
    for i, piece in enumerate(pieces, start=1):
        row = piece.row
        row.equal, row.dropped = merged.equal[i], merged.dropped[i]
        if status == "conflict":
            row.close(status, sentence)
            continue
        row.new = merged.new[i]
        rest = row.rows - row.new - row.equal - row.dropped
        idle = brought and not row.new and not rest
        row.close("unchanged" if idle else status, f"{rest:,} rows in conflict: {sentence}" if rest else "")


def _held(root: Path, key: SeriesKey) -> pl.DataFrame | None:
    """What the folder holds of a series, in the types of its schema; None if it is new."""
    if (root / key.stem).is_dir():
        raise DataError("the folder holds this series in parts", where={"series": key}, fix="give another --root")
    path = root / key.path
    if not path.is_file():
        return None
    data = path.read_bytes()
    try:
        if own_hash_is_right(data) is False:
            raise DataError("the bytes are not those that were written", where={"file": path})
        frame = pl.read_parquet(io.BytesIO(data))
        columns = {name: dtype for name, dtype in key.spec.columns.items() if name in frame.columns}
        return frame.select(pl.col(name).cast(dtype) for name, dtype in columns.items())
    except (DataError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(
            "the file of this series in the market folder is damaged",
            where={"file": path},
            fix="move it away and import all its sources again",
        ) from error


def _refuse_two_tapes(frames: list[pl.DataFrame]) -> None:
    """Single trades and aggregated ones (ids ``a1``, ``a2``, ...) say the same volume twice."""
    is_aggregated = {
        str(frame["trade_id"][0])[:1] == "a" and str(frame["trade_id"][0])[1:].isdigit() for frame in frames
    }
    if len(is_aggregated) > 1:
        raise DataError(
            "trades and aggregated trades of one instrument are not mixed", fix="give another --root for one"
        )


def _of_one_step(key: SeriesKey, pieces: list[CheckedPiece], held: pl.DataFrame | None) -> list[CheckedPiece]:
    """The pieces whose bars are as long as those of the folder, on the same clock; the others are closed as failed."""
    there = None if held is None else bar_step_us(held["ts"], name="")
    steps = sorted({piece.step_us for piece in pieces if piece.step_us is not None})
    if there is None and len(steps) > 1:
        listed = ", ".join(map(hours_text, steps))
        for piece in pieces:
            piece.row.close("failed", f"the sources hold bars of {listed}: choose with --bar, or give another --root")
        return []
    step_us = there or (steps[0] if steps else None)
    first = (pieces[0].frame if held is None else held)["ts"].to_physical()[0]
    kept = []
    for piece in pieces:
        offset_us = (piece.frame["ts"].to_physical()[0] - first) % step_us if step_us else 0
        if piece.step_us not in (None, step_us):
            found = f"bars of {hours_text(piece.step_us)}, {key} holds {hours_text(step_us)}"
            piece.row.close("failed", f"{found}: choose them with --bar, or give another --root")
        elif offset_us:
            found = f"its bars of {hours_text(step_us)} open {hours_text(offset_us)} after those of {key}"
            piece.row.close("failed", f"{found}: give another --root")
        else:
            kept.append(piece)
    return kept
