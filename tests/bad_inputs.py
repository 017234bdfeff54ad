"""B0, a healthy market folder, the forty-nine ways of spoiling it (B1 to B40c) and two more (B36c, B36d).

A case says which series it damages, the outcomes allowed in strict and in clean mode, and the facts that a refusal or
a finding has to state: how many rows, the first one, its stamp. Outcomes:

``raise``    a ``DataError`` with file, facts and remedy
``equal``    the run gives what B0 gives, to the last bit
``masked``   the run goes on; the bars named in ``masked`` are in its span, not tradable, and counted in the manifest
``accept``   the run goes on, with a finding in the manifest
"""

import contextlib
import hashlib
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

import basis_bt
from basis_bt.core.errors import BasisBtError, DataError
from basis_bt.market.importers.base import Options
from basis_bt.market.schemas import SeriesKey
from basis_bt.market.write import write_series

START = datetime(2024, 1, 1, tzinfo=UTC)
N_BARS = 720
HOUR_MS = 3_600_000
START_MS = int(START.timestamp()) * 1000
PRICES = ("open", "high", "low", "close")
SPOT, PERP, FUNDING = (f"{series}/binance/BTC-USDT" for series in ("spot", "perp", "funding"))
SPAN = {"start": "2024-01-01T00:00Z", "end": "2024-01-31T00:00Z"}
MODES = ("strict", "clean")
NOBODY = 65534


# ------------------------------------------------------------------------------------------------- the healthy folder


def instants(epochs_ms) -> pl.Series:
    return pl.Series(epochs_ms, dtype=pl.Int64).cast(pl.Datetime("ms", "UTC"))


def _bars(close: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    opens = np.round(close[:-1] * (1 + 4e-6 * rng.standard_normal(N_BARS)), 2)
    closes = np.round(close[1:], 2)
    reach = 1 + np.abs(rng.normal(2e-3, 5e-4, (2, N_BARS)))
    columns = {
        "ts": instants(START_MS + HOUR_MS * np.arange(N_BARS)),
        "open": opens,
        "high": np.round(np.maximum(opens, closes) * reach[0], 2),
        "low": np.round(np.minimum(opens, closes) / reach[1], 2),
        "close": closes,
        "volume": np.round(np.exp(rng.normal(6.0, 0.4, N_BARS)), 3),
    }
    return pl.DataFrame(columns)


@cache
def healthy(*, seed: int = 3) -> dict[str, pl.DataFrame]:
    """The three series of B0 by path: a random walk from 42,000, the perp within some basis points of it.

    Settlements begin at 08:00, so that each closes eight hours and the last of the ninety falls on the end of the run.
    """
    rng = np.random.default_rng(seed)
    fair = 42_000 * np.exp(np.cumsum(4e-3 * rng.standard_normal(N_BARS + 1)))
    basis = np.zeros(N_BARS + 1)
    for row in range(1, N_BARS + 1):
        basis[row] = 0.9 * basis[row - 1] + 1.5e-4 * rng.standard_normal()
    hours = 8 * np.arange(1, 91)
    funding = {
        "ts": instants(START_MS + HOUR_MS * hours),
        "rate": np.round(rng.normal(1.2e-4, 4e-5, len(hours)), 8),
        "interval_hours": np.full(len(hours), 8, dtype=np.int32),
    }
    return {
        SPOT: _bars(fair, rng),
        PERP: _bars(fair * (1 + basis), rng),
        FUNDING: pl.DataFrame(funding),
    }


def file_of(root: Path, series: str) -> Path:
    return root / f"{series}.parquet"


def write(root: Path, series: str, frame: pl.DataFrame, **options: Any) -> Path:
    path = file_of(root, series)
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path, **options)
    return path


def write_healthy(root: Path) -> None:
    """B0 in a folder."""
    for series, frame in healthy().items():
        write(root, series, frame)


def configuration(root: Path, mode: str) -> dict[str, Any]:
    """A rule that goes in and out of the basis some dozen times a month."""
    return {
        "data": {"root": str(root), **SPAN, "bar": "1h", "checks": mode},
        "combo": {"legs": [{"instrument": f"{kind}:binance:BTC-USDT", "ratio": ratio}
                           for kind, ratio in (("spot", 1.0), ("perp", -1.0))]},
        "signal": {"name": "basis_bps"},
        "rule": {"entry": -1.0, "exit": -4.0},
        "size": {"lots": "none"},
        "costs": {"half_spread_bps": 0.5},
    }  # fmt: skip


def row_ts(row: int) -> datetime:
    return START + timedelta(hours=row)


# ------------------------------------------------------------------------------------------------------------ damages

Damage = Callable[[Path], None]


def changed(series: str, change: Callable[[pl.DataFrame], pl.DataFrame], **options: Any) -> Damage:
    """The series written again after a change."""
    return lambda root: write(root, series, change(healthy()[series]), **options)


def cells(column: str, values: dict[int, Any]) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Some cells of one column replaced; a callable is given the bar."""

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        column_values = frame[column].to_list()
        for row, value in values.items():
            column_values[row] = value(frame.row(row, named=True)) if callable(value) else value
        return frame.with_columns(pl.Series(column, column_values, dtype=frame.schema[column], strict=False))

    return change


def together(*changes: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def change(frame: pl.DataFrame) -> pl.DataFrame:
        for part in changes:
            frame = part(frame)
        return frame

    return change


def dead_feed(frame: pl.DataFrame) -> pl.DataFrame:
    still = pl.int_range(pl.len()).is_between(200, 271)
    level = frame["close"][199]
    return frame.with_columns(
        *(pl.when(still).then(level).otherwise(pl.col(name)).alias(name) for name in PRICES),
        pl.when(still).then(0.0).otherwise(pl.col("volume")).alias("volume"),
    )


def twice(first: int, count: int, **columns: pl.Expr) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Rows repeated right behind themselves, the second time with other values."""
    return lambda frame: pl.concat([frame, frame[first : first + count].with_columns(**columns)]).sort(
        "ts", maintain_order=True
    )


def groups_in_disorder(frame: pl.DataFrame) -> pl.DataFrame:
    order = [4, 1, 7, 0, 3, 6, 2, 5]
    return pl.concat([frame[90 * group : 90 * group + 90] for group in order])


def epochs(per_ms: tuple[int, int]) -> Callable[[pl.DataFrame], pl.DataFrame]:
    up, down = per_ms
    return lambda frame: frame.with_columns(ts=pl.col("ts").to_physical() * up // down)


def two_units(frame: pl.DataFrame) -> pl.DataFrame:
    ms = pl.col("ts").to_physical()
    return frame.with_columns(ts=pl.when(pl.int_range(pl.len()) < 360).then(ms).otherwise(ms // 1000))


def halved_step(frame: pl.DataFrame) -> pl.DataFrame:
    hourly, late = frame[:360], frame[360:]
    half = late.with_columns(pl.col("ts") + pl.duration(minutes=30), open=pl.col("close"))
    return pl.concat([hourly, pl.concat([late, half]).sort("ts")])


def last_in_2099(frame: pl.DataFrame) -> pl.DataFrame:
    far = int(datetime(2099, 1, 1, tzinfo=UTC).timestamp()) * 1000
    return frame.with_columns(
        ts=instants(frame["ts"].to_physical().to_list()[:-5] + [far + k * HOUR_MS for k in range(5)])
    )


def four_hourly(frame: pl.DataFrame, *, hours_say: int) -> pl.DataFrame:
    """After 45 settlements one every 4 hours; those between the old ones pay nothing, so that equity is that of B0."""
    rate = dict(zip(frame["ts"].to_physical().to_list(), frame["rate"].to_list(), strict=True))
    ts = [START_MS + HOUR_MS * hour for hour in (*range(8, 361, 8), *range(364, 721, 4))]
    return pl.DataFrame(
        {
            "ts": instants(ts),
            "rate": [rate.get(stamp, 0.0) for stamp in ts],
            "interval_hours": pl.Series([8] * 45 + [hours_say] * 90, dtype=pl.Int32),
        }
    )


def late_stamps(frame: pl.DataFrame) -> pl.DataFrame:
    late_ms = np.random.default_rng(25).integers(0, 1000, frame.height)
    late_ms[37] = 20_000
    return frame.with_columns(ts=instants(frame["ts"].to_physical().to_numpy() + late_ms))


def as_text(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(
        pl.Series(name, [repr(value) for value in frame[name].to_list()], dtype=pl.String) for name in PRICES
    )


def wide(frame: pl.DataFrame) -> pl.DataFrame:
    extra = [pl.Series(f"extra_{k}", np.arange(frame.height) * k) for k in range(299)]
    nested = pl.Series("extra_nested", [{"bids": [[1.0, float(k)]], "note": "x"} for k in range(frame.height)])
    return frame.with_columns(*extra, nested)


def wrapped_stamp(frame: pl.DataFrame) -> pl.DataFrame:
    values = frame["ts"].to_physical().to_list()
    values[7] = 2**63 + 5
    return frame.with_columns(ts=pl.Series(values, dtype=pl.UInt64))


def no_common_bar(root: Path) -> None:
    write(root, SPOT, healthy()[SPOT][:300])
    write(root, PERP, healthy()[PERP][400:])


def bytes_changed(series: str, change: Callable[[bytes], bytes]) -> Damage:
    def damage(root: Path) -> None:
        path = file_of(root, series)
        path.write_bytes(change(path.read_bytes()))

    return damage


def footer_at(data: bytes) -> int:
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def temporary_beside(root: Path) -> None:
    path = file_of(root, SPOT)
    data = path.read_bytes()
    path.with_name(f"{path.name}.tmp").write_bytes(data[: len(data) // 2])
    path.with_name(f".{path.name}.4711-ab12.tmp").write_bytes(data[: len(data) // 3])


def column_pages(path: Path, column: str) -> range:
    """The bytes of a column in the first row group."""
    metadata = pq.read_metadata(path)
    chunk = metadata.row_group(0).column(metadata.schema.names.index(column))
    first = min(at for at in (chunk.dictionary_page_offset, chunk.data_page_offset) if at)
    return range(first, first + chunk.total_compressed_size)


def reads(path: Path) -> pl.DataFrame | None:
    """What plain polars makes of a file; None for an error or a panic of it."""
    try:
        return pl.read_parquet(path)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None


def page_that_lies(root: Path) -> None:
    """Twenty-four bytes of a file that carries its hash, where a plain reader gets other closes without a word."""
    path = write_series(root, SeriesKey("spot", "binance", "BTC-USDT"), healthy()[SPOT])
    data, right = path.read_bytes(), healthy()[SPOT].select(PRICES)
    pages = column_pages(path, "close")
    for at in range(pages.start + 40, pages.stop - 24, 8):
        path.write_bytes(data[:at] + b"\xa5" * 24 + data[at + 24 :])
        read = reads(path)
        if read is not None and read.height == right.height and not read.select(PRICES).equals(right):
            return
    raise AssertionError("no place found where a plain reader is deceived")


def page_that_breaks(root: Path) -> None:
    """Twenty-four bytes at the head of a compressed page of close, in a file of somebody else's."""
    path = file_of(root, SPOT)
    data = path.read_bytes()
    at = data.index(b"\x28\xb5\x2f\xfd", column_pages(path, "close").start) + 4
    path.write_bytes(data[:at] + b"\xa5" * 24 + data[at + 24 :])
    assert reads(path) is None
    assert not _arrow_reads(path)


def _arrow_reads(path: Path) -> bool:
    try:
        pq.read_table(path)
    except (OSError, ValueError):
        return False
    return True


def flipped_bit_of_a_close(root: Path) -> None:
    """A high bit of the mantissa of close[500], in a plain file: six per cent off, outside of low and high."""
    frame = healthy()[SPOT]
    path = write(root, SPOT, frame, compression="uncompressed")
    data = bytearray(path.read_bytes())
    needle = np.float64(frame["close"][500]).tobytes()
    assert data.count(needle) >= 1
    at = data.find(needle, column_pages(path, "close").start)
    data[at + 6] ^= 0x08 if frame["close"][500] < 49_152 else 0x04
    path.write_bytes(data)
    read = pl.read_parquet(path)
    assert read["close"].ne(frame["close"]).arg_true().to_list() == [500]
    assert not frame["low"][500] <= read["close"][500] <= frame["high"][500]


def flipped_bit_of_our_own(root: Path) -> None:
    """A bit of a file that carries its hash, chosen so that a plain reader sees one close off by a trifle."""
    path = write_series(root, SeriesKey("spot", "binance", "BTC-USDT"), healthy()[SPOT])
    data, right = path.read_bytes(), healthy()[SPOT].select(PRICES)
    pages = column_pages(path, "close")
    for at in range(pages.start + 40, pages.stop):
        for bit in (0, 3, 6):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            read = reads(path)
            if read is None or read.height != right.height:
                continue
            off = (read["close"] / right["close"] - 1).abs()
            if 0 < off.max() < 1e-6:  # type: ignore[operator]
                return
    raise AssertionError("no bit found that changes a close by a trifle")


def symlink_loop(root: Path) -> None:
    path = file_of(root, SPOT)
    other = path.with_name("other.parquet")
    path.unlink()
    path.symlink_to(other)
    other.symlink_to(path)


def csv_of(frame: pl.DataFrame, *, separator: str = ",", decimal: str = ".") -> str:
    """The bars as a spreadsheet would export them, stamps in epoch milliseconds."""
    rows = [separator.join(("timestamp", *PRICES, "volume"))]
    for ts, *values in frame.with_columns(pl.col("ts").to_physical()).iter_rows():
        rows.append(separator.join((str(ts), *(repr(value).replace(".", decimal) for value in values))))
    return "\n".join(rows) + "\n"


def as_csv(change: Callable[[bytes], bytes] = bytes, **options: Any) -> Damage:
    """The spot bars as a CSV beside the folder instead of the parquet file in it."""

    def damage(root: Path) -> None:
        file_of(root, SPOT).unlink()
        path = csv_file(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(change(csv_of(healthy()[SPOT], **options).encode()))

    return damage


def csv_file(root: Path) -> Path:
    return root.parent / "sources" / "bars.csv"


def cut_in_the_last_line(data: bytes) -> bytes:
    last = data.rstrip(b"\n").rfind(b"\n") + 1
    third_comma = last
    for _ in range(3):
        third_comma = data.index(b",", third_comma) + 1
    return data[: third_comma + 3]


# ----------------------------------------------------------------------------------- what holds while the run goes on

Around = Callable[[Path], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def unreadable(root: Path) -> Iterator[None]:
    """The spot file without permissions; a superuser steps down meanwhile, for whom nothing is unreadable."""
    path, user = file_of(root, SPOT), os.geteuid()
    path.chmod(0)
    try:
        if user == 0:
            for folder in path.parents:
                if folder.stat().st_mode & 0o055 != 0o055:
                    folder.chmod(0o755)
            os.seteuid(NOBODY)
        yield
    finally:
        if user == 0:
            os.seteuid(user)
        path.chmod(0o644)


@cache
def other_version() -> bytes:
    """The spot file with all prices a little higher."""
    import io

    buffer = io.BytesIO()
    higher = healthy()[SPOT].with_columns((pl.col(name) * (1 + 2.0**-12)).round(2) for name in PRICES)
    higher.write_parquet(buffer)
    return buffer.getvalue()


@contextlib.contextmanager
def replaced_all_the_time(root: Path) -> Iterator[None]:
    """Two healthy versions of the spot file in turn, each put in place in one step, as fast as it goes."""
    path, stop = file_of(root, SPOT), threading.Event()
    versions = [path.read_bytes(), other_version()]
    aside = root.parent / "next.parquet"

    def swap() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            aside.write_bytes(versions[turn % 2])
            os.replace(aside, path)

    writer = threading.Thread(target=swap)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


# ---------------------------------------------------------------------------------------------------------- the cases


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One bad input.

    ``rows``: counts that may be stated; ``first_row`` counts in the damaged file; ``first_ts`` in UTC;
    ``masked``: bars of the run that clean mode may mask; ``column``: which the error may name.
    ``noted``: what a run in clean mode does to the file is in the manifest even if its numbers are equal.
    """

    text: str
    series: str = SPOT
    damage: Damage
    strict: tuple[str, ...]
    clean: tuple[str, ...]
    rows: tuple[int, ...] = ()
    first_row: int | None = None
    first_ts: datetime | None = None
    masked: tuple[int, ...] = ()
    column: tuple[str, ...] = ()
    noted: str = ""
    around: Around | None = None
    runs: int = 1
    imported: bool = False
    ends_early: bool = False
    says: tuple[str, ...] = ()

    def allowed(self, mode: str) -> tuple[str, ...]:
        return self.strict if mode == "strict" else self.clean


RAISE, EQUAL, MASKED = ("raise",), ("equal",), ("masked",)
ANY = {"strict": ("raise", "equal"), "clean": ("raise", "equal")}
NEVER = {"strict": RAISE, "clean": RAISE}
ALWAYS = {"strict": EQUAL, "clean": EQUAL}
MASKABLE = {"strict": RAISE, "clean": ("masked", "raise")}


def _cell(text: str, column: str, values: dict[int, Any]) -> Case:
    return Case(
        text=text,
        damage=changed(SPOT, cells(column, values)),
        rows=(len(values),),
        first_row=min(values),
        masked=tuple(sorted(values)),
        column=(column,),
        **MASKABLE,
    )


def ten_times(bar: dict[str, float]) -> float:
    return round(10 * bar["close"], 2)


CASES: dict[str, Case] = {
    "B1": _cell("NaN close in 3 bars", "close", dict.fromkeys((17, 200, 511), float("nan"))),
    "B2": _cell("null open in 2 bars", "open", dict.fromkeys((5, 400), None)),
    "B3": _cell("zero price", "low", {99: 0.0}),
    "B4": _cell("negative price", "low", {row: lambda bar: -bar["low"] for row in (10, 333)}),
    "B5": Case(
        text="+inf high and -inf low",
        damage=changed(SPOT, together(cells("high", {30: float("inf")}), cells("low", {31: float("-inf")}))),
        rows=(1, 2), first_row=30, masked=(30, 31), column=("high", "high, low"), **MASKABLE,
    ),
    "B6a": Case(
        text="high below close, low above open",
        damage=changed(SPOT, together(
            cells("high", {50: lambda bar: bar["close"] - 1.0}), cells("low", {51: lambda bar: bar["open"] + 1.0}),
        )),
        rows=(2,), first_row=50, masked=(50, 51), **MASKABLE,
    ),
    "B6b": _cell("negative volume", "volume", {70: -1.0}),
    "B7": Case(
        text="one close ten times too high, back the next bar",
        damage=changed(SPOT, together(cells("high", {300: ten_times}), cells("close", {300: ten_times}))),
        rows=(1,), first_row=300, masked=(300,), strict=("raise", "masked"), clean=("masked", "raise"),
    ),
    "B8": Case(
        text="72 identical bars with zero volume", damage=changed(SPOT, dead_feed),
        rows=(72,), first_row=200, masked=tuple(range(200, 272)), strict=("raise", "masked"), clean=("masked", "raise"),
    ),
    "B9": Case(
        text="5 duplicate rows, identical", damage=changed(SPOT, twice(96, 5)),
        rows=(5,), first_ts=row_ts(96), noted="drop", strict=("raise", "equal"), clean=EQUAL,
    ),
    "B10": Case(
        text="a duplicate stamp with another close",
        damage=changed(SPOT, twice(100, 1, close=((pl.col("high") + pl.col("low")) / 2).round(2))),
        rows=(1,), first_ts=row_ts(100), **NEVER,
    ),
    "B11": Case(
        text="rows in random order", damage=changed(SPOT, lambda f: f.sample(fraction=1.0, shuffle=True, seed=11)),
        noted="sort", strict=("raise", "equal"), clean=EQUAL,
    ),
    "B12": Case(
        text="row groups out of order", damage=changed(SPOT, groups_in_disorder, row_group_size=90),
        noted="sort", strict=("raise", "equal"), clean=EQUAL,
    ),
    "B13": Case(
        text="stamps without a time zone",
        damage=changed(SPOT, lambda f: f.with_columns(pl.col("ts").dt.replace_time_zone(None))),
        column=("ts",), strict=RAISE, clean=("equal", "raise"),
    ),
    "B14": Case(
        text="stamps in New York, the instants right",
        damage=changed(SPOT, lambda f: f.with_columns(pl.col("ts").dt.convert_time_zone("America/New_York"))),
        strict=("equal", "raise"), clean=EQUAL,
    ),
    "B15a": Case(text="epoch ms", damage=changed(SPOT, epochs((1, 1))), **ANY),
    "B15b": Case(text="epoch us", damage=changed(SPOT, epochs((1000, 1))), **ANY),
    "B15c": Case(text="epoch s", damage=changed(SPOT, epochs((1, 1000))), **ANY),
    "B16": Case(
        text="first half in ms, second half in s", damage=changed(SPOT, two_units),
        rows=(360,), first_row=360, column=("ts",), **NEVER,
    ),
    "B17": Case(text="1 h bars, then 30 min bars", damage=changed(SPOT, halved_step), first_row=361, **NEVER),
    "B18": Case(
        text="perp stamped at :30, spot at :00", series=PERP,
        damage=changed(PERP, lambda f: f.with_columns(pl.col("ts") + pl.duration(minutes=30))), **NEVER,
    ),
    "B19": Case(
        text="bars 07:00 to 09:00 missing around a settlement", series=PERP,
        damage=changed(PERP, lambda f: pl.concat([f[:103], f[106:]])),
        rows=(3,), first_ts=row_ts(103), masked=(103, 104, 105), strict=("masked", "raise"), clean=MASKED,
    ),
    "B20": Case(
        text="last 5 bars in 2099", damage=changed(SPOT, last_in_2099),
        rows=(5,), first_row=715, masked=tuple(range(715, 720)), ends_early=True, **MASKABLE,
    ),
    "B21": Case(text="no common bar", damage=no_common_bar, says=("spot", "perp"), **NEVER),
    "B22": Case(
        text="3 funding rows missing", series=FUNDING,
        damage=changed(FUNDING, lambda f: pl.concat([f[:19], f[22:]])),
        rows=(3,), first_ts=datetime(2024, 1, 7, 16, tzinfo=UTC), strict=RAISE, clean=("accept", "raise"),
    ),
    "B23": Case(
        text="8 h, then 4 h, and interval_hours says so", series=FUNDING,
        damage=changed(FUNDING, lambda f: four_hourly(f, hours_say=4)), **ALWAYS,
    ),
    "B24": Case(
        text="the same, interval_hours still 8", series=FUNDING,
        damage=changed(FUNDING, lambda f: four_hourly(f, hours_say=8)),
        rows=(90, 89), first_row=45, strict=("raise", "accept"), clean=("accept", "raise"),  # 89 before the end
    ),
    "B25": Case(text="funding stamps late", series=FUNDING, damage=changed(FUNDING, late_stamps), **ALWAYS),
    "B26": Case(
        text="rates in percent", series=FUNDING,
        damage=changed(FUNDING, lambda f: f.with_columns(pl.col("rate") * 100)), column=("rate",), says=("percent",),
        **NEVER,
    ),
    "B27": Case(text="prices as strings", damage=changed(SPOT, as_text), **ANY),
    "B28": Case(
        text="strings, two of them no numbers",
        damage=changed(SPOT, together(as_text, cells("close", {40: "41,995.30", 41: "n/a"}))),
        rows=(2,), first_row=40, masked=(40, 41), column=("close",), says=("41,995.30",), **MASKABLE,
    ),
    "B29": Case(
        text="columns of other names",
        damage=changed(SPOT, lambda f: f.rename(dict(zip(("ts", *PRICES, "volume"),
                                                         ("timestamp", "o", "h", "l", "c", "vol"), strict=True)))),
        says=("timestamp",), **NEVER,
    ),
    "B30a": Case(text="300 extra columns", damage=changed(SPOT, wide), **ALWAYS),
    "B30b": Case(text="no close", damage=changed(SPOT, lambda f: f.drop("close")), says=("close",), **NEVER),
    "B31": Case(
        text="a venue column that says okx",
        damage=changed(SPOT, lambda f: f.with_columns(venue=pl.lit("okx").cast(pl.Categorical))),
        says=("okx", "binance"), **NEVER,
    ),
    "B32": Case(
        text="a stamp that wraps", damage=changed(SPOT, wrapped_stamp),
        rows=(1,), first_row=7, column=("ts",), **NEVER,
    ),
    "B33a": Case(text="empty file", damage=bytes_changed(SPOT, lambda data: b""), **NEVER),
    "B33b": Case(text="no rows", damage=changed(SPOT, lambda f: f.clear()), **NEVER),
    "B34": Case(text="truncated", damage=bytes_changed(SPOT, lambda data: data[: len(data) * 2 // 3]), **NEVER),
    "B35a": Case(text="no footer yet", damage=bytes_changed(SPOT, lambda data: data[: footer_at(data)]), **NEVER),
    "B35b": Case(text="a temporary file beside the good one", damage=temporary_beside, **ALWAYS),
    "B36a": Case(text="a page of a file of ours damaged in place", damage=page_that_lies, **NEVER),
    "B36b": Case(
        text="one bit of one close flipped, no checksum", damage=flipped_bit_of_a_close,
        rows=(1,), first_row=500, masked=(500,), **MASKABLE,
    ),
    "B36c": Case(text="one bit of a file of ours flipped", damage=flipped_bit_of_our_own, **NEVER),
    "B36d": Case(text="a page damaged in place, no checksum", damage=page_that_breaks, **NEVER),
    "B37": Case(
        text="no read permission", damage=lambda root: None, around=unreadable, says=("ermission",), **NEVER
    ),
    "B38": Case(text="symlink loop", damage=symlink_loop, says=("link",), **NEVER),
    "B39": Case(
        text="replaced between scan and read", damage=lambda root: None, around=replaced_all_the_time, runs=6, **ANY
    ),
    "B40a": Case(
        text="CSV with a byte order mark", damage=as_csv(lambda data: b"\xef\xbb\xbf" + data), imported=True, **ANY
    ),
    "B40b": Case(
        text="CSV with semicolons and decimal commas", damage=as_csv(separator=";", decimal=","), imported=True, **NEVER
    ),
    "B40c": Case(
        text="CSV cut in its last line", damage=as_csv(cut_in_the_last_line), imported=True,
        rows=(1,), first_row=719, **NEVER,
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------- the front door


def spoil(case: Case | None, root: Path) -> Path:
    """B0 with the damage of a case, in a folder that is made for it."""
    write_healthy(root)
    if case is not None:
        case.damage(root)
    return root


def import_bars(root: Path) -> None:
    """Import the CSV beside a folder into it.

    Raises
    ------
    DataError
        For what is reported as failed as well as for what is raised.
    """
    from basis_bt.market.importing import import_sources

    options = Options(venue="binance", series="spot", symbol="BTC-USDT", time_unit="ms", volume_unit="base",
                      mapping={"ts": "timestamp", **{name: name for name in (*PRICES, "volume")}})  # fmt: skip
    report = import_sources([csv_file(root)], root, options=options)
    for row in report.rows:
        if row.status not in ("imported", "unchanged"):
            raise DataError(row.sentence, where={"file": csv_file(root), "status": row.status}, fix="see the sentence")


def outcome(case: Case | None, root: Path, mode: str) -> "list[basis_bt.Result | DataError]":
    """What the door gives for a spoiled folder, one entry a run: results, or the errors of the package raised."""
    around = case.around if case is not None and case.around is not None else lambda _: contextlib.nullcontext()
    out: list[basis_bt.Result | DataError] = []
    with around(root):
        for _ in range(case.runs if case is not None else 1):
            try:
                if case is not None and case.imported:
                    import_bars(root)
                out.append(basis_bt.run(configuration(root, mode)))
            except BasisBtError as error:
                out.append(error)  # type: ignore[arg-type]
    return out


def tree(root: Path) -> dict[str, str]:
    """Everything below a folder and the folder of sources beside it, with hashes of the bytes."""
    out = {}
    for path in sorted([*root.rglob("*"), *root.parent.glob("sources/*")]):
        if path.is_symlink():
            out[str(path)] = f"-> {os.readlink(path)}"
        elif path.is_file():
            try:
                out[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
            except PermissionError:
                out[str(path)] = f"unreadable, {path.stat().st_size} bytes"
        else:
            out[str(path)] = "folder"
    return out


def flips_and_cuts(data: bytes, *, n_flips: int, n_cuts: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Versions of a file with one bit flipped, then versions that end too early."""
    rng = random.Random(seed)
    for _ in range(n_flips):
        at, bit = rng.randrange(len(data)), rng.randrange(8)
        yield f"bit {bit} of byte {at}", data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
    for _ in range(n_cuts):
        length = rng.randrange(len(data))
        yield f"{length} bytes of {len(data)}", data[:length]


def growth_of_the_battery(folder: Path) -> int:
    """Bytes by which the peak memory of this process grows over all cases in both modes."""
    import resource

    def peak_bytes() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    for mode in MODES:
        outcome(None, spoil(None, folder / f"B0-{mode}" / "market"), mode)
    before = peak_bytes()
    for name, case in CASES.items():
        for mode in MODES:
            root = spoil(case, folder / f"{name}-{mode}" / "market")
            outcome(case, root, mode)
            if not root.is_symlink():
                shutil.rmtree(root.parent)
    return peak_bytes() - before
