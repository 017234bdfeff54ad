"""Joining pieces of one series with what is there: repeated rows fall away, and rows that disagree are shown."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from basis_bt.core.units import US_PER_HOUR
from basis_bt.market.intervals import settlement_intervals_hours
from basis_bt.market.schemas import TS, SeriesKey

SAME_SETTLEMENT_US = US_PER_HOUR // 60
_SHOWN = 3


class Conflict(NamedTuple):
    """Two values of one key; ``pieces`` are the positions of the two in what was merged, 0 being what was there."""

    ts: str
    column: str
    values: tuple[object, object]
    pieces: tuple[int, int]


class Merged(NamedTuple):
    """One series of all pieces, and what became of the rows of each piece (position 0 is what was there).

    ``equal`` rows repeat one of an earlier piece, ``dropped`` ones a row of their own piece. ``conflicting`` counts
    the keys with two values; ``conflicts`` shows the first of them.
    """

    frame: pl.DataFrame
    new: list[int]
    equal: list[int]
    dropped: list[int]
    conflicting: int
    conflicts: list[Conflict]


def merge(frames: Sequence[pl.DataFrame], key: SeriesKey, *, prefer: str | None = None) -> Merged:
    """Rows of all pieces, sorted, one for each key of the series.

    A null beside a value is filled in, not a conflict. Settlements within a minute are one, with the earlier piece's
    stamp. Kinds of series without a key (book updates) are compared by whole spans of time.

    Parameters
    ----------
    frames : pieces by the columns of the schema, older ones first; the first is what was there, and may be empty
    key : which series
    prefer : ``"new"`` or ``"old"``: which row stands where two disagree
    """
    columns = {
        name: dtype for name, dtype in key.spec.columns.items() if any(name in frame.columns for frame in frames)
    }
    typed = [
        frame.select(
            pl.col(name).cast(dtype) if name in frame.columns else pl.lit(None, dtype=dtype).alias(name)
            for name, dtype in columns.items()
        )
        for frame in frames
    ]
    if not key.spec.key:
        return _merge_spans(typed, prefer=prefer)
    in_order = _in_order(typed, key)
    if in_order is not None:
        return Merged(in_order, [len(frame) for frame in typed], [0] * len(typed), [0] * len(typed), 0, [])
    return _merge_rows(typed, key, prefer=prefer)


def _in_order(frames: list[pl.DataFrame], key: SeriesKey) -> pl.DataFrame | None:
    """All rows where no piece overlaps another and each is sorted without repeats; the common case."""
    if key.spec.key != ("ts",):
        return None
    spans = sorted((frame for frame in frames if len(frame)), key=lambda frame: frame["ts"][0])
    joined = pl.concat(spans or frames[:1])
    apart_us = SAME_SETTLEMENT_US if key.series == "funding" else 1
    steps = joined["ts"].to_physical().diff().drop_nulls()
    return joined if (steps >= apart_us).all() else None


def _merge_rows(frames: list[pl.DataFrame], key: SeriesKey, *, prefer: str | None) -> Merged:
    rows = pl.concat(
        [frame.with_columns(pl.lit(i, dtype=pl.UInt32).alias("_piece")) for i, frame in enumerate(frames)]
    ).with_row_index("_row")
    if key.series == "funding":
        rows = rows.sort("ts", "_piece", "_row")
        rows = rows.with_columns(
            _key=(pl.col("ts").to_physical().diff() >= SAME_SETTLEMENT_US).fill_null(True).cum_sum()
        )
        rows = rows.sort("_key", "_piece", "_row")
        keys = ["ts"]
    else:
        keys = list(key.spec.key)
        rows = rows.sort(*keys, "_piece", "_row")
        changes = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in keys)
        rows = rows.with_columns(_key=changes.cum_sum())
    values = [name for name in frames[0].columns if name not in keys]
    first = pl.col("_key").ne_missing(pl.col("_key").shift())
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in values) & ~first
    rows = rows.with_columns(_first=first, _leader=pl.col("_piece").first().over("_key"))
    uneven = rows.filter(differs)["_key"].unique()
    odd = rows.filter(pl.col("_key").is_in(uneven.implode()))
    clashing = (
        odd.group_by("_key")
        .agg(pl.col(name).drop_nulls().n_unique().alias(name) for name in values)
        .filter(pl.any_horizontal(pl.col(name) > 1 for name in values))["_key"]
    )
    pick = "last" if prefer == "new" else "first"
    settled = odd.group_by("_key", maintain_order=True).agg(
        pl.col(*keys).first(), *(getattr(pl.col(name).drop_nulls(), pick)() for name in values)
    )
    plain = rows.filter(pl.col("_first") & ~pl.col("_key").is_in(uneven.implode()))
    names = ["_key", *frames[0].columns]
    joined = pl.concat([plain.select(names), settled.select(names)]).sort("_key").drop("_key")
    counted = rows.filter(pl.col("_first") | ~pl.col("_key").is_in(clashing.implode()))
    own = pl.col("_leader") == pl.col("_piece")
    n = len(frames)
    return Merged(
        joined.sort("ts", maintain_order=True) if key.series == "funding" else joined,
        _by_piece(counted.filter(pl.col("_first")), n),
        _by_piece(counted.filter(~pl.col("_first") & ~own), n),
        _by_piece(counted.filter(~pl.col("_first") & own), n),
        len(clashing),
        _conflicts(odd.filter(pl.col("_key").is_in(clashing.implode())), values),
    )


def _by_piece(rows: pl.DataFrame, n_pieces: int) -> list[int]:
    counts = dict(rows.group_by("_piece").len().iter_rows())
    return [int(counts.get(piece, 0)) for piece in range(n_pieces)]


def _conflicts(rows: pl.DataFrame, values: list[str]) -> list[Conflict]:
    """The first keys with two values, each with the first column that disagrees."""
    shown = []
    for _, group in rows.group_by("_key", maintain_order=True):
        for name in values:
            told = group.filter(pl.col(name).is_not_null()).unique(name, keep="first", maintain_order=True)
            if len(told) > 1:
                pieces = (int(told["_piece"][0]), int(told["_piece"][1]))
                shown.append(Conflict(told["ts"][0].isoformat(), name, (told[name][0], told[name][1]), pieces))
                break
        if len(shown) == _SHOWN:
            break
    return shown


def _merge_spans(frames: list[pl.DataFrame], *, prefer: str | None) -> Merged:
    """Rows that may repeat: a piece is new, or equals what is there in its span of time, or is in conflict."""
    held = frames[0]
    new, equal = [len(held)], [0]
    conflicts: list[Conflict] = []
    for position, frame in enumerate(frames[1:], start=1):
        piece = frame.sort("ts", maintain_order=True)
        inside = pl.col("ts").is_between(piece["ts"].min(), piece["ts"].max())
        there = held.filter(inside)
        if len(there) and there.equals(piece):
            new.append(0)
            equal.append(len(piece))
            continue
        if len(there):
            conflicts.append(Conflict(piece["ts"][0].isoformat(), "rows", (len(there), len(piece)), (0, position)))
        takes_over = not len(there) or prefer == "new"
        if takes_over:
            held = pl.concat([held.filter(~inside), piece]).sort("ts", maintain_order=True)
        new.append(len(piece) if takes_over else 0)
        equal.append(0)
    return Merged(held, new, equal, [0] * len(frames), len(conflicts), conflicts[:_SHOWN])


def without_told_intervals(frame: pl.DataFrame) -> pl.DataFrame:
    """Funding without the intervals that its stamps tell: with more stamps they are told again."""
    if "interval_hours" not in frame.columns or frame.is_empty():
        return frame
    told = pl.Series(settlement_intervals_hours(_epochs_us(frame)))
    return frame.with_columns(interval_hours=pl.when(pl.col("interval_hours") != told).then("interval_hours"))


def with_intervals(frame: pl.DataFrame) -> pl.DataFrame:
    """Funding with the intervals that its stamps tell, where none was given."""
    told = pl.Series(settlement_intervals_hours(_epochs_us(frame)), dtype=pl.Int32)
    told = told.to_frame("told").select(pl.when(pl.col("told") > 0).then("told")).to_series()
    given = (
        frame["interval_hours"] if "interval_hours" in frame.columns else pl.Series([None] * len(frame), dtype=pl.Int32)
    )
    return frame.with_columns(interval_hours=pl.select(pl.coalesce(given, told)).to_series())


def _epochs_us(frame: pl.DataFrame) -> np.ndarray:
    return frame["ts"].cast(TS).to_physical().to_numpy()
