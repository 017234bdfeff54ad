"""Where and why trading departed from its model: the difference of PnL, trade by trade and cause by cause.

Both sides are the tables of a run (``docs/tables.md``), so a journal, an exported run folder and a backtest are read
alike. A difference is reality less model: negative where reality earned less.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import numpy as np
import polars as pl

from basis_bt.core.errors import ConfigError
from basis_bt.kernels.structs import BOOK_SIGNS, BOOKS
from basis_bt.live.export import journal_tables
from basis_bt.live.journal import Journal

Tables = Mapping[str, pl.DataFrame]
#: cause -> books whose difference it is. ``timing`` is what prices moved between decision and send; ``price`` what
#: they moved from there, which differs where a decision fell in another bar, or closes differ
CAUSES: dict[str, tuple[str, ...]] = {
    "timing": ("delay",),
    "price": ("delta", "basis"),
    "spread": ("spread",),
    "impact": ("impact", "bucket"),
    "fees": ("fees",),
    "funding": ("funding",),
    "rollback": ("rollback_execution", "rollback_price"),
    "other": ("transfer", "liquidation", "borrow", "delivery_fee", "yield", "fx"),
}
MISSED, SIZE, RESIDUAL = "missed", "size", "residual"
COLUMNS = tuple(f"{cause}_usd" for cause in (MISSED, SIZE, *CAUSES, RESIDUAL))
MATCHED, ABSENT, EXTRA, OUTSIDE = "matched", "missed", "extra", "outside"
_NO_REFUSAL = {ABSENT: "reality did not decide to enter", EXTRA: "the model did not decide to enter"}
_REFUSALS = ("refused", "unfilled", "rollback", "breaker_open")
_TS = pl.Datetime("us", "UTC")
SCHEMA: dict[str, Any] = {
    "trade": pl.Int64, "model_trade": pl.Int64, "kind": pl.String, "reason": pl.String, "direction": pl.Int8,
    "entry_ts": _TS, "model_entry_ts": _TS, "exit_ts": _TS, "model_exit_ts": _TS, "quantity_base": pl.Float64,
    "model_quantity_base": pl.Float64, "pnl_usd": pl.Float64, "model_pnl_usd": pl.Float64,
    "difference_usd": pl.Float64, **dict.fromkeys(COLUMNS, pl.Float64),
}  # fmt: skip


class HasTables(Protocol):
    """A ``Result`` or a ``StoredRun``."""

    @property
    def tables(self) -> Any:
        """Tables by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One side: its trades, what each gained by cause, the same of all that no trade accounts for, and its refusals."""

    trades: list[dict[str, Any]]
    gained: list[dict[str, float]]
    outside: dict[str, float]
    refusals: pl.DataFrame
    first: datetime
    last: datetime
    step: timedelta


def divergence(reality: Journal | HasTables, model: HasTables) -> pl.DataFrame:
    """One row a trade, in the order of entries, and one for what no trade accounts for (``kind`` ``outside``).

    ``kind`` is ``matched``; ``missed``, a trade of the model that reality lacks; or ``extra``, the other way round;
    ``reason`` then says why the side that lacks it did not enter. Trades are matched by direction and the entries that
    lie closest, where their spans overlap. A missed or extra trade's whole PnL is ``missed_usd``. Of a matched one
    ``size_usd`` is what the model's PnL would change at reality's quantity, and the causes are counted per that
    quantity, so that a smaller position does not look like cheaper fees. All causes, ``residual_usd`` included, add up
    to ``difference_usd``; the residual is rounding, unless a side's trades and books contradict each other.

    Raises
    ------
    ConfigError
        If the two have no bar in common.
    StoreError
        If a journal has nothing to compare yet.
    """
    ours = _side(journal_tables(reality)[0] if isinstance(reality, Journal) else reality.tables)
    theirs = _side(model.tables)
    if ours.first > theirs.last or theirs.first > ours.last:
        raise ConfigError(
            "the two have no bar in common",
            where={"reality": f"{ours.first} to {ours.last}", "model": f"{theirs.first} to {theirs.last}"},
            fix="run the model over the span that was traded",
        )
    pairs = _matched(ours, theirs)
    rows = [_row(ours, theirs, one, other) for one, other in pairs]
    rows.sort(key=lambda row: row["entry_ts"] or row["model_entry_ts"])
    rows.append(_outside(ours, theirs))
    return pl.DataFrame([_balanced(row) for row in rows], schema=SCHEMA, orient="row")


def turnover_usd(reality: Journal | HasTables, model: HasTables) -> float:
    """Notional filled on both sides: the scale against which a residual is judged."""
    ours = journal_tables(reality)[0] if isinstance(reality, Journal) else reality.tables
    return sum(float(_first_trial(side["fills"])["notional_usd"].sum()) for side in (ours, model.tables))


def _first_trial(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter(pl.col("trial") == pl.col("trial").min()) if "trial" in table.columns else table


def _side(tables: Tables) -> _Side:
    """The first trial of a run: gains of each trade from the mark before its entry to that of its exit."""
    attribution, equity = _first_trial(tables["attribution"]), _first_trial(tables["equity"])
    signs = dict(zip(BOOKS, BOOK_SIGNS, strict=True))
    parts = [pl.sum_horizontal(*(signs[book] * pl.col(f"{book}_usd") for book in books)).alias(cause)
             for cause, books in CAUSES.items()]  # fmt: skip
    by_bar = attribution.group_by("ts", maintain_order=True).agg(pl.col(f"{book}_usd").sum() for book in BOOKS)
    total = by_bar.sort("ts").select("ts", *parts)
    ts, values = total["ts"], total.drop("ts").to_numpy()
    trades = _first_trial(tables["trades"]).sort("trade").to_dicts()
    gained = []
    for trade in trades:
        entry = int(ts.search_sorted(trade["entry_ts"], side="right")) - 1
        end = len(ts) - 1 if trade["exit_ts"] is None else int(ts.search_sorted(trade["exit_ts"], side="right")) - 1
        gained.append(values[end] - (values[entry - 1] if entry > 0 else 0.0))
    rest = values[-1] - sum(gained, np.zeros(len(CAUSES)))
    events = _first_trial(tables["events"]).filter(pl.col("event").is_in(_REFUSALS)).sort("ts")
    steps = ts.diff().drop_nulls()
    return _Side(
        trades=trades,
        gained=[dict(zip(CAUSES, one.tolist(), strict=True)) for one in gained],
        outside=dict(zip(CAUSES, rest.tolist(), strict=True)),
        refusals=events,
        first=equity["ts"].min(),  # type: ignore[arg-type]
        last=equity["ts"].max(),  # type: ignore[arg-type]
        step=steps.min() if len(steps) else timedelta(0),  # type: ignore[arg-type]
    )


def _matched(ours: _Side, theirs: _Side) -> list[tuple[int | None, int | None]]:
    """Pairs of trades, the closest entries first; what is left over stands alone."""
    slack = max(ours.step, theirs.step)
    candidates = sorted(
        (abs(one["entry_ts"] - other["entry_ts"]), a, b)
        for a, one in enumerate(ours.trades)
        for b, other in enumerate(theirs.trades)
        if one["direction"] == other["direction"] and _overlap(one, other, slack)
    )
    left_ours, left_theirs = set(range(len(ours.trades))), set(range(len(theirs.trades)))
    pairs: list[tuple[int | None, int | None]] = []
    for _, a, b in candidates:
        if a in left_ours and b in left_theirs:
            left_ours.remove(a)
            left_theirs.remove(b)
            pairs.append((a, b))
    return [*pairs, *((a, None) for a in sorted(left_ours)), *((None, b) for b in sorted(left_theirs))]


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any], slack: timedelta) -> bool:
    """Whether two trades were held at the same time, or began within a bar of each other."""
    if abs(one["entry_ts"] - other["entry_ts"]) <= slack:
        return True
    return all(b["exit_ts"] is None or a["entry_ts"] < b["exit_ts"] for a, b in ((one, other), (other, one)))


def _row(ours: _Side, theirs: _Side, a: int | None, b: int | None) -> dict[str, Any]:
    real = None if a is None else ours.trades[a]
    modelled = None if b is None else theirs.trades[b]
    one: Mapping[str, Any] = real or {}
    other: Mapping[str, Any] = modelled or {}
    row: dict[str, Any] = {
        "trade": one.get("trade"),
        "model_trade": other.get("trade"),
        "direction": one.get("direction", other.get("direction")),
        **{name: one.get(name) for name in ("entry_ts", "exit_ts", "quantity_base")},
        **{f"model_{name}": other.get(name) for name in ("entry_ts", "exit_ts", "quantity_base")},
        "pnl_usd": one.get("pnl_usd", 0.0),
        "model_pnl_usd": other.get("pnl_usd", 0.0),
        **dict.fromkeys(COLUMNS, 0.0),
    }
    if a is None or b is None:
        kind = ABSENT if a is None else EXTRA
        lacking, span = (ours, other) if a is None else (theirs, one)
        return {**row, "kind": kind, "reason": _reason(lacking, span) or _NO_REFUSAL[kind],
                f"{MISSED}_usd": row["pnl_usd"] - row["model_pnl_usd"]}  # fmt: skip
    scale = one["quantity_base"] / other["quantity_base"] if other["quantity_base"] else 1.0
    causes = {f"{cause}_usd": ours.gained[a][cause] - scale * theirs.gained[b][cause] for cause in CAUSES}
    told = [_lateness(one, other)]
    if one["entry_ts"] > other["entry_ts"]:
        told.append(_reason(ours, {"entry_ts": other["entry_ts"], "exit_ts": one["entry_ts"]}))
    return {**row, **causes, "kind": MATCHED, "reason": "; ".join(filter(None, told)) or None,
            f"{SIZE}_usd": (scale - 1.0) * row["model_pnl_usd"]}  # fmt: skip


def _reason(side: _Side, span: Mapping[str, Any]) -> str | None:
    """Why a side did not enter while the other held a trade: its first refusal from the bar before on."""
    near = side.refusals.filter(pl.col("ts") >= span["entry_ts"] - side.step)
    if span["exit_ts"] is not None:
        near = near.filter(pl.col("ts") < span["exit_ts"])
    if near.is_empty():
        return "it was not running yet" if span["entry_ts"] < side.first else (
            "it was not running any more" if span["entry_ts"] > side.last else None
        )  # fmt: skip
    event, reason = near.row(0, named=True)["event"], near.row(0, named=True)["reason"]
    return f"{event}: {reason}" if reason else str(event)


def _lateness(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """What differs in time, e.g. ``entry 2h later, exit 1h earlier``."""
    found = []
    for end in ("entry", "exit"):
        at, model_at = one[f"{end}_ts"], other[f"{end}_ts"]
        if at != model_at and at is not None and model_at is not None:
            hours = abs((at - model_at).total_seconds()) / 3600.0
            found.append(f"{end} {hours:.4g} h {'later' if at > model_at else 'earlier'}")
        elif at != model_at:
            found.append(f"{end} only in {'the model' if at is None else 'reality'}")
    return ", ".join(found) or None


def _outside(ours: _Side, theirs: _Side) -> dict[str, Any]:
    """What came of entries that were taken back, and of cash that no trade was held for."""
    return {
        **dict.fromkeys(SCHEMA),
        **dict.fromkeys(COLUMNS, 0.0),
        "kind": OUTSIDE,
        "pnl_usd": sum(ours.outside.values()),
        "model_pnl_usd": sum(theirs.outside.values()),
        **{f"{cause}_usd": ours.outside[cause] - theirs.outside[cause] for cause in CAUSES},
    }


def _balanced(row: dict[str, Any]) -> dict[str, Any]:
    """The difference, and as the residual what the causes do not explain of it."""
    row["difference_usd"] = row["pnl_usd"] - row["model_pnl_usd"]
    row[f"{RESIDUAL}_usd"] = row["difference_usd"] - sum(row[column] for column in COLUMNS[:-1])
    return row


def totals(frame: pl.DataFrame) -> list[tuple[str, float]]:
    """USD of each cause over all trades, in the order of the columns."""
    sums: Sequence[float] = frame.select(pl.col(*COLUMNS).sum()).row(0)
    return [(column.removesuffix("_usd"), usd) for column, usd in zip(COLUMNS, sums, strict=True)]
