"""Live to cost model: what the fills of journals say of fees, spread, impact, fills and latency, by instrument.

Each value has an interval. What has fewer samples than asked for has no value and is not written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.core.calibration_file import EXPONENT
from basis_bt.core.errors import ConfigError, StoreError
from basis_bt.core.units import US_PER_DAY, from_us, to_us
from basis_bt.live.calibration_writer import write_calibration
from basis_bt.live.event_types import SESSION_START
from basis_bt.live.executions import executions
from basis_bt.live.impact_fit import SQUARE_ROOT, Impact, fit_impact
from basis_bt.live.intervals import Estimate, mean_interval, percentile_interval, share_interval
from basis_bt.live.journal import Journal

WINDOW_DAYS, MIN_SAMPLES, CONFIDENCE, N_RESAMPLES = 30.0, 10, 0.95, 2000
PERCENTS = (5, 25, 50, 75, 95)
USD_OF_IMPACT = 1e6  # the size at which the coefficient against notional is told, where volumes are not known
SCHEMA = {
    "venue": pl.String, "instrument": pl.String, "estimate": pl.String, "n_samples": pl.Int64, "value": pl.Float64,
    "low": pl.Float64, "high": pl.Float64, "confidence": pl.Float64, "method": pl.String, "note": pl.String,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured: ``frame`` has one row an instrument and estimate, ``header`` says on what.

    Columns: ``estimate`` (the unit comes last in its name), ``n_samples``, ``value`` with ``low`` and ``high`` at the
    ``confidence`` (null: not bounded by the sample), ``method``, and a ``note`` where something is to be known.
    """

    frame: pl.DataFrame
    header: dict[str, Any]

    def write(self, path: str | Path) -> Path:
        """Write the calibration file that a configuration names; whole or not at all.

        Raises
        ------
        StoreError
            If nothing was measured on enough samples, or it cannot be written.
        """
        return write_calibration(self.frame, self.header, Path(path))


def calibrate(
    journals: Sequence[str | Path | Journal],
    *,
    until: datetime | None = None,
    window_days: float = WINDOW_DAYS,
    min_samples: int = MIN_SAMPLES,
    confidence: float = CONFIDENCE,
    n_resamples: int = N_RESAMPLES,
) -> Measured:
    """Re-estimate costs on the orders that ended in ``(until - window_days, until]``.

    Parameters
    ----------
    journals : folders, opened to read only, or open journals
    until : the end of the window; where it is left out the end of the last order, filled or not (an end at the last
        fill would leave out orders for not being filled)
    confidence : of every interval

    Raises
    ------
    ConfigError
        If there is no journal, or a number means nothing.
    StoreError
        If a journal cannot be read, or none has a fill.
    """
    _check(journals, window_days, min_samples, confidence, n_resamples)
    frames, sources = [], []
    for one in journals:
        frame, source = _read(one)
        frames.append(frame)
        sources.append(source)
    orders = pl.concat(frames).unique(("instrument", "client_order_id", "sent_us"), keep="first", maintain_order=True)
    if not (orders["filled_base"] > 0.0).any():
        raise StoreError("no journal has a fill", where={"journals": len(sources)}, fix="calibrate after some trades")
    last: Any = orders["done_us"].max()
    until_us = to_us(until) if until is not None else int(last)
    since_us = until_us - round(window_days * US_PER_DAY)
    orders = orders.filter((pl.col("done_us") > since_us) & (pl.col("done_us") <= until_us))
    orders = orders.sort("done_us", "instrument", "client_order_id")
    frame = _Estimates(orders, min_samples=min_samples, confidence=confidence, n_resamples=n_resamples).frame()
    header = {
        "from": from_us(since_us).isoformat(),
        "until": from_us(until_us).isoformat(),
        "window_days": window_days,
        "min_samples": min_samples,
        "confidence": confidence,
        "modes": sorted({mode for source in sources for mode in source["modes"]}),
        "samples": dict(orders.group_by("instrument", maintain_order=True).len().sort("instrument").iter_rows()),
        "journals": sources,
    }
    return Measured(frame=frame, header=header)


def _check(journals: Sequence[Any], window_days: float, min_samples: int, confidence: float, n_resamples: int) -> None:
    if not journals:
        raise ConfigError("no journal is given", fix="name the folders of one or more journals")
    if not 0.0 < window_days <= 36_500.0:
        raise ConfigError(f"window_days must be above 0, found {window_days}", fix="30 is usual")
    if min_samples < 3 or n_resamples < 100:
        raise ConfigError(f"min_samples must be at least 3 and n_resamples 100, found {min_samples} and {n_resamples}")
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence must be between 0 and 1, found {confidence}", fix="0.95 is usual")


def _read(one: str | Path | Journal) -> tuple[pl.DataFrame, dict[str, Any]]:
    if not isinstance(one, Journal):
        with Journal(one, read_only=True) as journal:
            return _read(journal)
    frame = executions([one])
    modes = sorted({str(event.payload["mode"]) for event in one.events(SESSION_START)})
    name = "memory" if one.path is None else one.path.resolve().name
    return frame, {"name": name, "sha256": one.digest(), "orders": frame.height, "modes": modes}


class _Estimates:
    """The rows of all instruments, one quantity after the other."""

    def __init__(self, orders: pl.DataFrame, *, min_samples: int, confidence: float, n_resamples: int) -> None:
        self._orders, self._min, self._confidence = orders, min_samples, confidence
        self._n_resamples = n_resamples
        self._rows: list[dict[str, Any]] = []

    def frame(self) -> pl.DataFrame:
        parts = {str(key[0]): part for key, part in self._orders.group_by("instrument", maintain_order=True)}
        legs = {name: parts[name] for name in sorted(parts)}
        impacts = self._impacts(legs)
        for name, orders in legs.items():
            takers, makers = orders.filter("is_taker"), orders.filter("is_maker")
            for key, part in (("taker_fee_bps", takers), ("maker_fee_bps", makers)):
                part = part.drop_nulls("fee_bps")
                self._mean(name, key, part["fee_bps"])
            quoted = orders.filter(pl.col("half_spread_bps") > 0.0)  # 0: the book was not known at the send
            self._mean(name, "half_spread_bps", quoted["half_spread_bps"])
            impacts(name)
            self._percentiles(name, "slippage", "bps", takers["slippage_bps"].drop_nulls())
            self._shares(name, orders.filter("is_limit"))
            at_once = orders.filter(~pl.col("is_limit"), ~pl.col("outcome").is_in(["refused", "missing"]))
            self._percentiles(name, "latency", "s", at_once["latency_s"])  # a resting order waits, which is no latency
            filled = orders.filter(pl.col("filled_base") > 0.0)
            self._mean(name, "delay_bps", filled["delay_bps"])
        return pl.DataFrame(self._rows, schema=SCHEMA, orient="row")

    def _mean(self, name: str, key: str, values: pl.Series) -> None:
        found = partial(
            mean_interval, values.to_numpy(), confidence=self._confidence, n_resamples=self._n_resamples
        )  # fmt: skip
        self._put(name, key, len(values), found)

    def _percentiles(self, name: str, stem: str, unit: str, values: pl.Series) -> None:
        numbers = values.to_numpy()
        for percent in PERCENTS:
            found = partial(percentile_interval, numbers, percent, confidence=self._confidence)
            self._put(name, f"{stem}_p{percent}_{unit}", len(values), found)

    def _shares(self, name: str, limits: pl.DataFrame) -> None:
        """Of limit orders that the venue had: how many filled whole, and how many in part."""
        known = limits.filter(~pl.col("outcome").is_in(["refused", "missing"]))
        for key, outcome in (("fill_probability", "filled"), ("partial_share", "partial")):
            n_hits = int((known["outcome"] == outcome).sum())
            found = partial(share_interval, n_hits, known.height, confidence=self._confidence)
            self._put(name, key, known.height, found)

    def _impacts(self, legs: dict[str, pl.DataFrame]) -> Callable[[str], None]:
        """Fit what can be fitted; returns what adds the rows of an instrument.

        Against the share of the bar's volume where the journal has volumes (that is what a backtest charges), else
        against the notional, which a backtest has no key for.
        """
        paid = pl.col("slippage_bps") - pl.col("half_spread_bps")
        taken = {name: orders.filter("is_taker", pl.col("half_spread_bps") > 0.0).with_columns(paid=paid)
                 for name, orders in legs.items()}  # fmt: skip
        by_volume = {name: orders.filter(pl.col("volume_base") > 0.0) for name, orders in taken.items()}
        shares = self._fit({name: (orders["filled_base"] / orders["volume_base"], orders["paid"])
                            for name, orders in by_volume.items()})  # fmt: skip
        by_notional = self._fit({name: (taken[name]["notional_usd"] / USD_OF_IMPACT, taken[name]["paid"])
                                 for name, orders in by_volume.items() if orders.height < self._min})  # fmt: skip

        def add(name: str) -> None:
            n_samples = by_volume[name].height
            if shares is not None and name in shares.coef_bps:
                self._put_impact(name, "impact_coef_bps", EXPONENT, shares, "against quantity / volume")
                return
            self._put(name, "impact_coef_bps", n_samples, None, note="orders with the volume of the bar before")
            if by_notional is not None and name in by_notional.coef_bps:
                self._put_impact(name, "impact_at_1m_usd_bps", "impact_at_1m_usd_exponent", by_notional,
                                 "against notional: no key of a configuration")  # fmt: skip

        return add

    def _fit(self, samples: dict[str, tuple[pl.Series, pl.Series]]) -> Impact | None:
        enough = {name: pair for name, pair in samples.items() if len(pair[0]) >= self._min}
        if not enough:
            return None
        return fit_impact(
            {name: sizes.to_numpy() for name, (sizes, _) in enough.items()},
            {name: paid.to_numpy() for name, (_, paid) in enough.items()},
            confidence=self._confidence,
            n_resamples=self._n_resamples,
        )

    def _put_impact(self, name: str, key: str, exponent_key: str, impact: Impact, note: str) -> None:
        found = impact.coef_bps[name]
        self._put(name, key, found.n, lambda: found, note=f"{note}, exponent {impact.taken:g}")
        exponent = impact.exponent
        if impact.is_exponent_taken:
            self._put(name, exponent_key, exponent.n, lambda: exponent, note="one for all instruments")
            return
        assumed = Estimate(SQUARE_ROOT, None, None, exponent.n, "square-root law, assumed")
        note = f"the orders say {exponent.value:.2f} ({exponent.low:.2f} to {exponent.high:.2f}), which says too little"
        self._put(name, exponent_key, exponent.n, lambda: assumed, note=note)

    def _put(
        self, name: str, key: str, n_samples: int, estimate: Callable[[], Estimate] | None, *, note: str | None = None
    ) -> None:
        row: dict[str, Any] = {"venue": name.split(":")[1], "instrument": name, "estimate": key}
        row |= {"n_samples": n_samples, "note": note, "confidence": self._confidence}
        if n_samples < self._min or estimate is None:
            needed = f"{n_samples} of {self._min} samples" + (f" ({note})" if note else "")
            self._rows.append({**dict.fromkeys(SCHEMA), **row, "note": needed})
            return
        found = estimate()
        self._rows.append({**row, "value": found.value, "low": found.low, "high": found.high, "method": found.method})
