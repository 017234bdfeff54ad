"""One settlement, taken apart: from the cash that was booked back to the files it came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from basis_bt.core.errors import StoreError
from basis_bt.core.instruments import Instrument
from basis_bt.core.rulebook import is_coin_margined
from basis_bt.store.folder import StoredRun

NEAR = timedelta(seconds=60)
_SERIES_OF_MARK = {"own": "funding", "mark": "mark", "trade": "perp"}
_MARK_WORDS = {
    "own": "the funding file's own mark_price",
    "mark": "the latest mark bar known at the settlement",
    "trade": "the latest trade bar known at the settlement",
}


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file a number came from, as the manifest recorded it."""

    series: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ExplainedSettlement:
    """A row of the funding table with its multiplication written out and the files behind it."""

    instrument: str
    leg: int
    settlement_ts: datetime
    bar_ts: datetime
    known_at: datetime
    funding_rate: float
    interval_hours: float | None
    mark_price: float
    mark_source: str
    position_base: float
    funding_usd: float
    arithmetic: str
    rate_files: tuple[InputFile, ...]
    mark_files: tuple[InputFile, ...]

    def lines(self) -> list[tuple[str, str]]:
        """Label and text, in the order a reader asks for them."""
        interval = "not in the file" if self.interval_hours is None else f"{self.interval_hours:g} hours"
        facts = [
            ("instrument", f"{self.instrument} (leg {self.leg})"),
            ("settlement", _utc(self.settlement_ts)),
            ("paid at bar", _utc(self.bar_ts)),
            ("known at", _utc(self.known_at)),
            ("funding rate", f"{self.funding_rate!r} ({self.funding_rate * 1e4:g} bps)"),
            ("interval", interval),
            ("mark price", f"{self.mark_price!r} ({_MARK_WORDS.get(self.mark_source, self.mark_source)})"),
            ("position", f"{self.position_base!r} base units, held before the fills of the bar"),
            ("cash", self.arithmetic),
        ]
        facts += [("rate from", _file_text(file)) for file in self.rate_files] or [("rate from", "not in the manifest")]
        facts += [("mark from", _file_text(file)) for file in self.mark_files] or [("mark from", "not in the manifest")]
        return facts


def explain_settlement(run: StoredRun, ts: datetime, *, instrument: str | None = None) -> list[ExplainedSettlement]:
    """The settlements at ``ts``: those paid at that bar stamp, and those whose own stamp is within 60 s of it.

    Parameters
    ----------
    run : as read by ``load_run``
    ts : bar stamp or raw settlement stamp; without a zone it is taken as UTC
    instrument : only the settlements of this one

    Raises
    ------
    StoreError
        If there is none; names the nearest before and after, or the instruments that have any.
    """
    ts = ts.replace(tzinfo=UTC) if ts.tzinfo is None else ts.astimezone(UTC)
    funding = _funding_of(run, instrument)
    near = (pl.col("settlement_ts") - pl.lit(ts, dtype=pl.Datetime("us", "UTC"))).abs() <= NEAR
    rows = funding.filter((pl.col("ts") == pl.lit(ts, dtype=pl.Datetime("us", "UTC"))) | near)
    if rows.height == 0:
        raise _none_at(run, funding, ts)
    inputs = run.manifest.get("inputs") or []
    return [_explain(row, inputs) for row in rows.sort("settlement_ts", "leg").iter_rows(named=True)]


def _funding_of(run: StoredRun, instrument: str | None) -> pl.DataFrame:
    funding = run.tables.get("funding")
    if funding is None:
        raise StoreError("the run has no funding table", where={"path": run.path}, fix="run it again")
    if instrument is None:
        return funding
    known = funding["instrument"].unique().sort().to_list()
    if instrument not in known:
        raise StoreError(
            f"the run has no settlement of {instrument!r}",
            where={"path": run.path},
            fix=f"instruments with settlements: {', '.join(known) or 'none'}",
        )
    return funding.filter(pl.col("instrument") == instrument)


def _none_at(run: StoredRun, funding: pl.DataFrame, ts: datetime) -> StoreError:
    stamps = funding["settlement_ts"].drop_nulls().sort()
    before, after = stamps.filter(stamps < ts), stamps.filter(stamps > ts)
    where: dict[str, Any] = {
        "run": run.path.name,
        "before": _utc(before[-1]) if before.len() else "none",
        "after": _utc(after[0]) if after.len() else "none",
    }
    return StoreError(f"no settlement at {_utc(ts)}", where=where, fix="ask for one of the two named, or for its bar")


def _explain(row: Mapping[str, Any], inputs: list[dict[str, Any]]) -> ExplainedSettlement:
    source = row["mark_source"]
    return ExplainedSettlement(
        instrument=row["instrument"],
        leg=row["leg"],
        settlement_ts=row["settlement_ts"],
        bar_ts=row["ts"],
        known_at=row["known_at"],
        funding_rate=row["funding_rate"],
        interval_hours=row["interval_hours"],
        mark_price=row["mark_price"],
        mark_source=source,
        position_base=row["position_base"],
        funding_usd=row["funding_usd"],
        arithmetic=_arithmetic(row),
        rate_files=_files(inputs, row["instrument"], "funding"),
        mark_files=_files(inputs, row["instrument"], _SERIES_OF_MARK.get(source, source)),
    )


def _arithmetic(row: Mapping[str, Any]) -> str:
    """``-(position) x mark x rate = cash``, every number to its last digit, checked against the booked cash."""
    position, mark, rate, booked = (
        row[name] for name in ("position_base", "mark_price", "funding_rate", "funding_usd")
    )
    if rate and is_coin_margined(Instrument.parse(row["instrument"])):
        face = 0.0 - booked / rate
        return f"-({face!r} contract dollars) x {rate!r} = {booked!r} USD: coins exchanged at the mark, whatever it is"
    cash = -position * mark * rate + 0.0
    text = f"-({position!r}) x {mark!r} x {rate!r} = {cash!r} USD"
    if abs(cash - booked) > 1e-9 * max(abs(cash), abs(booked)):
        text += f"; the books say {booked!r} USD, which is not that product"
    return text


def _files(inputs: list[dict[str, Any]], instrument: str, series: str) -> tuple[InputFile, ...]:
    return tuple(
        InputFile(series=series, path=str(item.get("path")), sha256=str(item.get("sha256")))
        for item in inputs
        if item.get("instrument") == instrument and item.get("series") == series
    )


def _file_text(file: InputFile) -> str:
    return f"{file.path} (sha256 {file.sha256})"


def _utc(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
