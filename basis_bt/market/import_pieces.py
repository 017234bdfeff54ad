"""From one source to checked pieces of series, each with its row of the report."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.core.units import US_PER_HOUR
from basis_bt.market.checks import value_findings
from basis_bt.market.checks.settlements import MAX_ABS_RATE
from basis_bt.market.import_report import ImportRow, one_line
from basis_bt.market.importers import generic
from basis_bt.market.importers.base import Format, Options, Piece, Source
from basis_bt.market.importers.formats import FORMATS
from basis_bt.market.schemas import SeriesKey
from basis_bt.market.steps import bar_step_us, hours_text

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
WEEK = timedelta(days=7)  # a squeeze can keep rates as high as percents for days
_REFUSED_RULES = ("value", "ohlc")
_READER_ERRORS = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
)


@dataclass(slots=True)
class CheckedPiece:
    """Rows of one series by the types of its schema, its step if it is of bars, and its row of the report.

    Without a key there is nothing to import, and the row says why.
    """

    key: SeriesKey | None
    row: ImportRow
    frame: pl.DataFrame
    step_us: int | None


def choose_format(source: Source, options: Options) -> Format | None:
    """The importer that reads a source: the general one where columns are mapped, else the first that knows it."""
    if options.mapping and (source.header or generic.FORMATS[0].recognises(source)):
        return generic.FORMATS[0]
    return next((known for known in FORMATS if known.recognises(source)), None)


def read_pieces(source: Source, options: Options, *, bar: float | None) -> Iterator[CheckedPiece]:
    """Every series of a source, checked; a source that cannot be read comes as one piece without a key.

    ``bar`` are hours: bars of another step are left out.
    """
    row = ImportRow(source=source.name)
    try:
        chosen = choose_format(source, options)
        if chosen is None:
            row.close("not recognised", f"no importer knows it; it begins {source.first_line[:80]!r}")
            yield CheckedPiece(None, row, pl.DataFrame(), None)
            return
        row.format = chosen.name
        pieces = list(chosen.read(source, options))
    except DataError as error:
        row.close("failed", one_line(error))
        yield CheckedPiece(None, row, pl.DataFrame(), None)
        return
    except _READER_ERRORS as error:
        reason = f"{type(error).__name__}: {error}".split("\n", 1)[0][:200]
        row.close("failed", f"it cannot be read as {row.format or 'any format'}: {reason}")
        yield CheckedPiece(None, row, pl.DataFrame(), None)
        return
    for piece in pieces:
        yield _checked(piece, source, row.format, bar=bar)


def _checked(piece: Piece, source: Source, name: str, *, bar: float | None) -> CheckedPiece:
    row = ImportRow(source=source.name, format=name, series=str(piece.key), rows=len(piece.frame))
    row.sentence = "; ".join(piece.notes)
    out = CheckedPiece(None, row, piece.frame, None)
    try:
        out.frame = _typed(piece, source=source)
        if piece.frame.is_empty():
            row.close("skipped", "it has no rows")
            return out
        if piece.key.spec.is_bars:
            out.step_us = bar_step_us(out.frame["ts"], name=source.name)
            if bar is not None and out.step_us != round(bar * US_PER_HOUR):
                asked = hours_text(round(bar * US_PER_HOUR))
                row.close("skipped", f"bars of {hours_text(out.step_us)}, asked for {asked}")
                return out
        check_values(out.frame, piece.key, source=source)
    except DataError as error:
        row.close("failed", one_line(error))
        return out
    out.key = piece.key
    return out


def _typed(piece: Piece, *, source: Source) -> pl.DataFrame:
    """The columns of the schema, in its types."""
    key, frame = piece.key, piece.frame
    if not (LABEL.fullmatch(key.venue) and LABEL.fullmatch(key.symbol)):
        raise DataError(f"{key.venue} {key.symbol} cannot name a file", fix="give --venue NAME and --symbol BASE-QUOTE")
    for name in key.spec.required:
        missing = len(frame) if name not in frame.columns else frame[name].null_count()
        if missing:
            raise DataError(
                f"{key.series} needs {name} in every row, {missing:,} rows lack it",
                where={"file": source.name},
                fix="fetch the file again, or drop the rows",
            )
    try:
        columns = {name: dtype for name, dtype in key.spec.columns.items() if name in frame.columns}
        return frame.select(pl.col(name).cast(dtype) for name, dtype in columns.items())
    except pl.exceptions.PolarsError as error:
        reason = str(error).split("\n", 1)[0]
        raise DataError(f"a column has another type: {reason}", where={"file": source.name}) from error


def check_values(frame: pl.DataFrame, key: SeriesKey, *, source: Source) -> None:
    """Refuse values that no market has: prices, bars that contradict themselves, rates in percent, stamps to come.

    Raises
    ------
    DataError
        The first finding, with the file, the column, the row and the stamp.
    """
    late = frame["ts"].max()
    limit = datetime.now(UTC) + timedelta(days=1)
    if isinstance(late, datetime) and late > limit:
        raise DataError(
            f"ts lies in the future: {late.isoformat()}",
            where={"file": source.name, "rows": int((frame["ts"] > limit).sum())},
            fix="say what the unit of the stamps is (--time-unit), or fetch the file again",
        )
    for finding, _ in value_findings(frame, key=key):
        if finding.rule in _REFUSED_RULES:
            raise finding.error(source.name)
    if key.series == "funding":
        check_rates(frame, name=source.name)


def check_rates(frame: pl.DataFrame, *, name: str) -> None:
    """Refuse funding rates in percent: one that no venue has paid, or a week of them that are typically too large.

    Raises
    ------
    DataError
        With the first rate that is too large, or their median.
    """
    largest, span = frame.select(pl.col("rate").abs().max(), span=pl.col("ts").max() - pl.col("ts").min()).row(0)
    if span < WEEK and largest < MAX_ABS_RATE:
        return
    for finding, _ in value_findings(frame, key=SeriesKey("funding", "", "")):
        if finding.rule == "percent":
            raise finding.error(name)
