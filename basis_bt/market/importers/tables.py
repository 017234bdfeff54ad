"""Steps that importers of dumps share: columns of a CSV by name, instruments, and pieces of the right types."""

import calendar
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.core.instruments import Instrument
from basis_bt.market.importers import cells
from basis_bt.market.importers.base import QUOTES, Options, Piece, Source, needs
from basis_bt.market.schemas import SeriesKey

MONTH_CODES = dict(zip("FGHJKMNQUVXZ", range(1, 13), strict=True))  # of futures, e.g. BTCUSDH25: March 2025
QUOTES_BUT_TUSD = tuple(quote for quote in QUOTES if quote != "TUSD")  # else DOTUSD, XBTUSD end in it
MONTHS = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if name}


def utf8(source: Source) -> bytes:
    """The text of a file as UTF-8; older Chinese files come in GBK."""
    plain = source.data.removeprefix(b"\xef\xbb\xbf")
    if plain.isascii():
        return plain
    try:
        plain.decode("utf-8")
    except UnicodeDecodeError:
        try:
            return plain.decode("gbk").encode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                "the text is neither UTF-8 nor GBK", where={"file": source.name, "byte": error.start}, fix="convert it"
            ) from error
    return plain


def head_rows(source: Source, *, skip_lines: int = 0) -> list[list[str]]:
    """Cells of the whole lines among the first bytes; a last line that may be cut is left out unless it is the file."""
    lines = source.head.decode("utf-8", errors="replace").splitlines()
    if len(lines) > 1 and len(source.data) > len(source.head) + 3:
        lines = lines[:-1]
    return [[cell.strip() for cell in line.split(",")] for line in lines[skip_lines:] if line.strip()]


def plain_names(cells: Sequence[str]) -> list[str]:
    """Names of columns in lower case, of ``name/translated name`` the part before the slash."""
    return [cell.partition("/")[0].strip().strip('"').lower() for cell in cells]


def csv_columns(
    source: Source,
    *,
    names: Sequence[str],
    numbers: Sequence[str] = (),
    texts: Sequence[str] = (),
    may_be_empty: Sequence[str] = (),
    skip_lines: int,
) -> pl.DataFrame:
    """Some columns of a CSV, ``numbers`` as Float64 and ``texts`` as String.

    Parameters
    ----------
    source : the file
    names : names of all columns of the file, in order
    numbers, texts : the columns wanted
    may_be_empty : those of them where an empty cell is a null; elsewhere it is an error
    skip_lines : lines before the first row of data (1 for a header)

    Raises
    ------
    DataError
        If a column is missing, a cell is no number, a line is short, long or cut, or there is no row.
    """
    missing = [name for name in (*texts, *numbers) if name not in names]
    if missing or len({*names}) < len(names):
        what = f"lacks {', '.join(missing)}" if missing else "names a column twice"
        where = {"file": source.name, "found": ", ".join(names)}
        raise DataError(f"the header {what}", where=where, fix="mend the header")
    data = utf8(source)
    for _ in range(skip_lines - 1):
        data = data[data.find(b"\n") + 1 :]
    header = min(skip_lines, 1)
    if data.endswith((b"\n\n", b"\n\r\n")):
        data = data.rstrip(b"\r\n") + b"\n"
    if not data.endswith(b"\n") and source.path.suffix in (".zip", ".gz"):  # an archive proves its members whole
        data += b"\n"
    rows_at = (data.find(b"\n") + 1 or len(data)) if header else 0
    if rows_at >= len(data):
        raise DataError("the file holds no rows", where={"file": source.name}, fix="leave it out or get it again")
    cells.check_lines(dataclasses.replace(source, data=data), n_cells=len(names))
    wanted = {name: pl.Float64() if name in numbers else pl.String() for name in (*texts, *numbers)}
    schema = {name: wanted.get(name, pl.String()) for name in names}
    positions = sorted([*names].index(name) for name in wanted)
    at: dict[str, Any] = {"has_header": False, "skip_rows": header, "columns": positions}
    try:
        try:
            frame = pl.read_csv(data, schema=schema, **at)
        except pl.exceptions.PolarsError:
            text = pl.read_csv(data, schema=dict.fromkeys(schema, pl.String()), **at)
            frame = text.select(cells.numbers(text[name], dtype, source=source) for name, dtype in wanted.items())
    except pl.exceptions.PolarsError as error:
        reason = str(error).split("\n", 1)[0]
        raise DataError(f"the CSV cannot be read: {reason}", where={"file": source.name}, fix="get it again") from error
    for name in wanted:
        if name not in may_be_empty:
            cells.refuse_nulls(frame[name], source=source)
    return frame.select([*wanted])


def glued_pair(text: str, quotes: Sequence[str] = QUOTES_BUT_TUSD) -> tuple[str, str] | None:
    """Base and quote of ``BTCUSDT``: the longest of the quotes that ends it; None if none does."""
    fitting = [quote for quote in quotes if text.upper().endswith(quote) and len(text) > len(quote)]
    quote = max(fitting, key=len, default="")
    return (text[: -len(quote)], quote) if quote else None


def instruments_named(
    names: pl.Series, parse: Callable[[str], Instrument | None], *, source: Source, options: Options
) -> tuple[dict[str, Instrument], tuple[str, ...]]:
    """The instrument of each name in a column, with the venue and symbol that were given; and a note on unknown names.

    Raises
    ------
    DataError
        If a symbol is given for a file of several instruments, or none of the names is understood.
    """
    counts = names.value_counts(name="rows").rows()
    found = {name: parse(name) for name, _ in sorted(counts)}
    known = {name: instrument for name, instrument in found.items() if instrument is not None}
    if options.symbol is not None and len(found) > 1:
        raise DataError(
            f"the file holds {len(found)} instruments, --symbol names one",
            where={"file": source.name, "instruments": ", ".join([*found][:5])},
            fix="leave --symbol out",
        )
    if not known:
        raise DataError(
            f"no spot, perp or dated future among {len(found)} instruments: {', '.join([*found][:5])}",
            where={"file": source.name},
            fix="leave the file out",
        )
    given = {key: value for key, value in (("venue", options.venue), ("symbol", options.symbol)) if value is not None}
    chosen = {name: dataclasses.replace(instrument, **given) for name, instrument in known.items()}
    odd = [name for name in found if name not in known]
    rows = sum(count for name, count in counts if name in set(odd))
    note = f"{rows} rows left out: no spot, perp or dated future in {', '.join(odd[:5])}" if odd else ""
    return chosen, (note,) if note else ()


def instrument_given(found: Instrument | None, *, source: Source, options: Options) -> Instrument:
    """The one instrument a file is about, with the venue and symbol that were given.

    Raises
    ------
    DataError
        If neither path nor content tells the symbol and none is given.
    """
    if found is None:
        raise needs("the symbol", source=source, option="--symbol BASE-QUOTE")
    return dataclasses.replace(found, venue=options.venue or found.venue, symbol=options.symbol or found.symbol)


def piece(key: SeriesKey, frame: pl.DataFrame, *notes: str) -> Piece:
    """Rows with the columns of the series that the frame has, in the types of the schema."""
    columns = [pl.col(name).cast(dtype) for name, dtype in key.spec.columns.items() if name in frame.columns]
    return Piece(key, frame.select(columns), tuple(note for note in notes if note))


def pieces(
    frame: pl.DataFrame, instruments: Mapping[str, Instrument], *, name: str, series: str, notes: Sequence[str] = ()
) -> Iterator[Piece]:
    """One piece for each instrument in column ``name``; ``series`` ``""`` means bars of the instrument's kind.

    Notes are about the whole file and go with the first piece.
    """
    one = len(instruments) == 1 and frame[name].n_unique() == 1
    parts = {next(iter(instruments)): frame} if one else _parts(frame, name)
    for text, rows in parts.items():
        instrument = instruments.get(text)
        if instrument is not None:
            yield piece(SeriesKey.of(instrument, series or instrument.kind), rows, *notes)
            notes = ()


def _parts(frame: pl.DataFrame, name: str) -> dict[str, pl.DataFrame]:
    parts = frame.partition_by(name, as_dict=True, maintain_order=True)
    return {str(text): rows for (text,), rows in parts.items()}


def with_maker(frame: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Trades whose ``side`` is the taker's, with ``buyer_is_maker``; and a note that counts those of unknown side."""
    taker = pl.col("side").str.to_lowercase()
    rows = frame.filter(taker.is_in(["buy", "sell"])).with_columns(buyer_is_maker=taker == "sell")
    unknown = frame.height - rows.height
    return rows, (f"{unknown} trades left out: their side is neither buy nor sell",) if unknown else ()


def last_of_each_stamp(frame: pl.DataFrame, *, by: Sequence[str] = ()) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Of rows with one ``ts`` the last, as the state after that instant; and a note that counts the others, if any."""
    kept = frame.unique(["ts", *by], keep="last", maintain_order=True)
    earlier = frame.height - kept.height
    return kept, (f"{earlier} rows left out: a later row has the same ts",) if earlier else ()


def volume_in_base(source: Source, options: Options, *, unit: str | None) -> tuple[float | None, str]:
    """What a volume is multiplied with to be in base units, None where it must be left out; and a note on that.

    ``unit`` is the venue's (``base``, ``contracts``, ``quote``, None if not known) unless one is given.

    Raises
    ------
    DataError
        If the volume is in contracts of unknown size, or in an unknown unit.
    """
    unit = options.volume_unit or unit
    if unit == "base":
        return 1.0, ""
    if unit == "quote":
        return None, "volume left out: it is in the quote currency"
    if unit is None:
        raise needs("the unit of volume", source=source, option="--volume-unit base|quote|contracts")
    if options.contract_size is None:
        raise needs("the size of a contract", source=source, option="--contract-size BASE_UNITS")
    return options.contract_size, ""


def last_friday(year: int, month: int) -> date:
    """The day on which quarterly futures expire."""
    last = date(year, month, calendar.monthrange(year, month)[1])
    return last - timedelta(days=(last.weekday() - 4) % 7)


def dated_symbol(pair: str, expiry: str) -> str | None:
    """``BASE-QUOTE-YYYYMMDD`` of an expiry written ``241227``, ``27DEC24`` or ``Z24`` (the month's last Friday)."""
    if re.fullmatch(r"\d{6}", expiry):
        day, month, year = int(expiry[4:]), int(expiry[2:4]), int(expiry[:2])
    elif match := re.fullmatch(r"(\d{1,2})([A-Z]{3})(\d\d)", expiry):
        day, month, year = int(match[1]), MONTHS.get(match[2], 0), int(match[3])
    elif match := re.fullmatch(r"([FGHJKMNQUVXZ])(\d\d)", expiry):
        month, year = MONTH_CODES[match[1]], int(match[2])
        day = last_friday(2000 + year, month).day
    else:
        return None
    try:
        return f"{pair}-{date(2000 + year, month, day):%Y%m%d}"
    except ValueError:
        return None
