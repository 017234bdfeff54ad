"""A synthetic market folder, made from a seed: enough to try every command without an exchange.

Nothing in it was observed. Each coin has one fair price (a random walk in the logarithm with clustered volatility and
fat tails) that the venues share up to noise. Each perp trades at a persistent premium over it: high early and late in
the year, a small discount in between. Funding follows from that premium by the venues' own formula. A few defects of
real data are planted at known places (`GAPS`, `INTERVAL_CHANGE`, late settlements), and the folder's README names them.

Every series draws from its own stream, seeded by its name, so one more coin changes no other file.
"""

import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from basis_bt.core.errors import DataError, StoreError
from basis_bt.market.write import parquet_bytes, replace_bytes

Array = np.ndarray[Any, Any]

START = datetime(2024, 1, 1, tzinfo=UTC)
N_BARS = 366 * 24
WARMUP_BARS = 72
MS_PER_HOUR = 3_600_000
VENUES = ("binance", "bybit")
MARKER = "<!-- made by: basis-bt data sample -->"
FILE_NOTE = {b"basis_bt.synthetic": b"made by: basis-bt data sample"}

# Missing bars by file: the first one and how many.
GAPS = {
    "spot/binance/BTC-USDT.parquet": (datetime(2024, 5, 14, 7, tzinfo=UTC), 3),
    "perp/bybit/ETH-USDT.parquet": (datetime(2024, 9, 10, 15, tzinfo=UTC), 2),
}
# Funding file, the last settlement at the old interval, hours from then on.
INTERVAL_CHANGE = ("funding/bybit/SOL-USDT.parquet", datetime(2024, 8, 1, tzinfo=UTC), 4)
JITTER_MS = {"binance": 20, "bybit": 0}
N_LATE = 4
LATE_MS = (100, 1000)

INTEREST_FRAC = 0.0001
CLAMP_FRAC = 0.0005
CAP_FRAC = 0.003


@dataclass(frozen=True, slots=True, kw_only=True)
class Coin:
    """Scale of one coin: first price, volatility of a day, size of its premium, tick decimals, base traded an hour."""

    price: float
    daily_vol_frac: float
    premium_scale: float
    decimals: int
    volume_base: float


COINS = {
    "BTC": Coin(price=42_265.0, daily_vol_frac=0.028, premium_scale=1.0, decimals=1, volume_base=9_000.0),
    "ETH": Coin(price=2_281.0, daily_vol_frac=0.034, premium_scale=1.05, decimals=2, volume_base=120_000.0),
    "SOL": Coin(price=101.5, daily_vol_frac=0.046, premium_scale=1.25, decimals=3, volume_base=900_000.0),
}
VOLUME_SHARE = {("perp", "binance"): 1.0, ("perp", "bybit"): 0.45, ("spot", "binance"): 0.2, ("spot", "bybit"): 0.06}


def write_sample(root: Path, *, seed: int = 20240101, overwrite: bool = False) -> list[Path]:
    """Write the synthetic market folder and return its files, the README last.

    The same seed gives the same bytes (with the same numpy and pyarrow). The folder is written beside its place and
    renamed when complete, so it is there as a whole or not at all.

    Parameters
    ----------
    root : the folder to make, holding ``spot|perp|mark|funding/<venue>/<BASE>-USDT.parquet`` afterwards
    seed : any whole number from 0
    overwrite : replace a folder that an earlier call made and nobody added to

    Raises
    ------
    StoreError
        If the folder exists without `overwrite`, or holds anything that this function did not write.
    DataError
        If the seed is negative.
    """
    if seed < 0:
        raise DataError(f"a seed is a whole number from 0, found {seed}", fix="choose another seed")
    root = Path(root).resolve()
    _check_replaceable(root, overwrite=overwrite)
    token = f"{os.getpid()}-{secrets.token_hex(4)}"
    partial, replaced = (root.with_name(f".{root.name}.{token}.{state}") for state in ("partial", "replaced"))
    try:
        partial.mkdir(parents=True)
        for name, columns in _series(seed=seed):
            _write_parquet(partial / name, columns)
        (partial / "README.md").write_text(_readme(seed=seed), encoding="utf-8", newline="\n")
        if root.exists():
            root.rename(replaced)
        try:
            partial.rename(root)
        except BaseException:
            if replaced.exists():
                replaced.rename(root)
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
    return [*sorted(root.rglob("*.parquet")), root / "README.md"]


def _check_replaceable(root: Path, *, overwrite: bool) -> None:
    """Refuse a place that is taken, unless by a sample only: what we did not write is never removed."""
    if not root.exists():
        return
    if not overwrite:
        raise StoreError(
            "there is something at this path already",
            where={"path": root},
            fix="name another folder, or pass overwrite (--overwrite) to replace an earlier sample",
        )
    inside = sorted(root.rglob("*"))
    if root.is_dir() and not inside:
        return
    readme = root / "README.md"
    ours = readme.is_file() and MARKER in readme.read_text(encoding="utf-8", errors="replace")
    foreign = [path for path in inside if path.is_symlink() or not (path == readme or path.is_dir() or _is_ours(path))]
    if not ours or foreign:
        raise StoreError(
            f"not replaced: it holds {foreign[0].name}, which is no sample file" if ours else "not replaced: no sample",
            where={"path": foreign[0] if ours else root},
            fix="move it away, or name another folder",
        )


def _is_ours(path: Path) -> bool:
    """Whether a parquet file carries the note of this generator."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return FILE_NOTE.items() <= (pq.read_schema(path).metadata or {}).items()
    except (OSError, pa.ArrowInvalid):
        return False


def _series(*, seed: int) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield ``(path in the folder, columns)`` of every file."""
    for name, coin in COINS.items():
        fair = _fair_price(coin, name, seed=seed)
        for venue in VENUES:
            premium = _premium_frac(coin, name, venue, seed=seed)
            quoted = {
                "spot": fair.close * (1 + _noise(seed, "spot", name, venue, scale=0.6e-4, persistence=0.8)),
                "mark": fair.close * (1 + premium),
                "perp": fair.close * (1 + premium + _noise(seed, "perp", name, venue, scale=0.4e-4, persistence=0.3)),
            }
            for kind, close in quoted.items():
                path = f"{kind}/{venue}/{name}-USDT.parquet"
                yield path, _drop_gap(path, _bars(fair, close, coin, kind, venue, _stream(seed, "bars", path)))
            path = f"funding/{venue}/{name}-USDT.parquet"
            yield path, _settlements(premium, path, venue, _stream(seed, path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fair:
    """The price path the venues of a coin share; `up` and `down` are how far a bar reached beyond open and close."""

    close: Array
    up: Array
    down: Array
    activity: Array


def _stream(seed: int, *name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32("/".join(name).encode())])


def _noise(seed: int, *name: str, scale: float, persistence: float) -> Array:
    """A stationary AR(1) with standard deviation `scale`, one value an hour, the warm-up included."""
    shocks = _stream(seed, "noise", *name).standard_normal(WARMUP_BARS + N_BARS)
    out = np.empty_like(shocks)
    value, step = shocks[0], np.sqrt(1 - persistence**2)
    for row, shock in enumerate(shocks):
        value = persistence * value + step * shock
        out[row] = value
    return scale * out


def _shocks(seed: int, *name: str) -> Array:
    """Fat-tailed shocks of variance 1 (Student t, 5 degrees of freedom, cut at 7)."""
    draws = _stream(seed, "shocks", *name).standard_t(5, WARMUP_BARS + N_BARS)
    return np.clip(draws * np.sqrt(3 / 5), -7, 7)


def _fair_price(coin: Coin, name: str, *, seed: int) -> Fair:
    """Random walk with log-AR(1) volatility; reaches beyond open and close are the exact ones of a Brownian bridge."""
    spread = 0.45
    log_vol = 0.8 * _noise(seed, "vol", scale=spread, persistence=0.985)
    log_vol += 0.6 * _noise(seed, "vol", name, scale=spread, persistence=0.985)
    hour_of_day = np.arange(-WARMUP_BARS, N_BARS) % 24
    log_vol += 0.25 * np.sin((hour_of_day - 9) * np.pi / 12)
    vol = coin.daily_vol_frac / np.sqrt(24) * np.exp(log_vol - spread**2)
    move = vol * (np.sqrt(0.6) * _shocks(seed, "market") + np.sqrt(0.4) * _shocks(seed, name))
    path = np.cumsum(move)
    uniform = _stream(seed, "reach", name).uniform(1e-9, 1, (2, len(move)))
    reach = np.sqrt(move**2 - 2 * vol**2 * np.log(uniform)) / 2
    close = coin.price * np.exp(path - path[WARMUP_BARS - 1])
    return Fair(close=close, up=reach[0] - np.abs(move) / 2, down=reach[1] - np.abs(move) / 2, activity=log_vol)


def _premium_frac(coin: Coin, name: str, venue: str, *, seed: int) -> Array:
    """Perp over fair price, minus one: a regime of the year, and noise that correlates by 0.7 between the venues."""
    year = np.arange(-WARMUP_BARS, N_BARS) / N_BARS
    bull = 1 / (1 + np.exp((year - 0.22) / 0.025)) + 1 / (1 + np.exp((0.86 - year) / 0.02))
    level_bps = -2.5 + 9.5 * bull
    common = np.sqrt(0.35) * _noise(seed, "premium", scale=4.5, persistence=0.98)
    common += np.sqrt(0.35) * _noise(seed, "premium", name, scale=4.5, persistence=0.98)
    own = np.sqrt(0.3) * _noise(seed, "premium", name, venue, scale=4.5, persistence=0.95)
    return coin.premium_scale * (level_bps + common + own) / 1e4


def _bars(fair: Fair, close: Array, coin: Coin, kind: str, venue: str, rng: np.random.Generator) -> dict[str, Array]:
    """Hourly bars of one series, prices on its tick; rounding never turns a high below the open or close."""
    opens = np.round(close[WARMUP_BARS - 1 : -1] * (1 + 0.05e-4 * rng.standard_normal(N_BARS)), coin.decimals)
    closes = np.round(close[WARMUP_BARS:], coin.decimals)
    bars = {
        "ts": _start_ms() + np.arange(N_BARS) * MS_PER_HOUR,
        "open": opens,
        "high": np.round(np.maximum(opens, closes) * (1 + fair.up[WARMUP_BARS:]), coin.decimals),
        "low": np.round(np.minimum(opens, closes) * (1 - fair.down[WARMUP_BARS:]), coin.decimals),
        "close": closes,
    }
    if kind != "mark":
        level = coin.volume_base * VOLUME_SHARE[kind, venue]
        volume = level * np.exp(1.1 * fair.activity[WARMUP_BARS:] + 0.3 * rng.standard_normal(N_BARS))
        bars["volume"] = np.array([float(f"{value:.3g}") for value in volume])
    return bars


def _drop_gap(path: str, bars: dict[str, Array]) -> dict[str, Array]:
    if path not in GAPS:
        return bars
    first, count = GAPS[path]
    row = _hours_since_start(first)
    return {name: np.delete(values, np.s_[row : row + count]) for name, values in bars.items()}


def _settlements(premium: Array, path: str, venue: str, rng: np.random.Generator) -> dict[str, Array]:
    """Funding as the venues compute it: mean premium, later hours weighing more, plus clamped interest."""
    hours, intervals = _schedule(path)
    rates = np.empty(len(hours))
    for row, (hour, interval) in enumerate(zip(hours, intervals, strict=True)):
        window = premium[WARMUP_BARS + hour - interval : WARMUP_BARS + hour]
        mean = np.average(window, weights=np.arange(1, interval + 1))
        per_8h = mean + np.clip(INTEREST_FRAC - mean, -CLAMP_FRAC, CLAMP_FRAC)
        rates[row] = np.clip(per_8h * interval / 8, -CAP_FRAC, CAP_FRAC)
    late_by_ms = rng.integers(0, JITTER_MS[venue] + 1, len(hours))
    late_by_ms[rng.choice(len(hours), N_LATE, replace=False)] = rng.integers(*LATE_MS, N_LATE)
    return {
        "ts": _start_ms() + hours * MS_PER_HOUR + late_by_ms,
        "rate": np.round(rates, 8) + 0.0,
        "interval_hours": intervals.astype(np.int32),
    }


def _schedule(path: str) -> tuple[Array, Array]:
    """Hours since the start at which funding settles, and the length of the interval each one closes."""
    changed_path, changed_at, new_interval = INTERVAL_CHANGE
    change = _hours_since_start(changed_at) if path == changed_path else N_BARS
    old = np.arange(0, min(change + 1, N_BARS), 8)
    new = np.arange(change + new_interval, N_BARS, new_interval)
    return np.concatenate([old, new]), np.repeat([8, new_interval], [len(old), len(new)])


def _start_ms() -> int:
    return int(START.timestamp()) * 1000


def _hours_since_start(instant: datetime) -> int:
    return round((instant - START).total_seconds() / 3600)


def _write_parquet(path: Path, columns: dict[str, Array]) -> None:
    """Small files: deltas of stamps, bytes of floats split by rank."""
    types: dict[str, Any] = {"ts": pl.Datetime("ms", "UTC"), "interval_hours": pl.Int32}
    encodings = {"ts": "DELTA_BINARY_PACKED", "interval_hours": "PLAIN"}
    frame = pl.DataFrame(columns).cast({name: types.get(name, pl.Float64) for name in columns})
    data = parquet_bytes(
        frame,
        metadata=FILE_NOTE,
        compression_level=19,
        use_dictionary=False,
        column_encoding={name: encodings.get(name, "BYTE_STREAM_SPLIT") for name in columns},
    )
    replace_bytes(path, data)


def _readme(*, seed: int) -> str:
    gaps = "\n".join(
        f"* **Gap.** `{path}` misses {count} bars, from {first:%Y-%m-%d %H:%M} UTC on."
        for path, (first, count) in GAPS.items()
    )
    path, changed_at, interval = INTERVAL_CHANGE
    return f"""{MARKER}
# Synthetic sample

**No real prices.** Everything in this folder is synthetic: random numbers from seed {seed}, written by

    basis-bt data sample <this folder> --seed {seed}

The same seed gives the same bytes. A result on this data says how the tool works and nothing about a market.

Hourly bars and funding of {", ".join(COINS)} against USDT on `binance` and `bybit`, 2024-01-01 00:00 to
2024-12-31 23:00 UTC ({N_BARS} bars a file, less the gaps below). The venue names only say whose conventions are
imitated. Layout, columns and units are those of any market folder:
`spot|perp|mark|funding/<venue>/<BASE>-<QUOTE>.parquet`.

## What the model has

One fair price per coin, shared by the venues up to about a basis point. A perp premium of a few basis points, common to
both venues for the most part: high until March and from November on, a small discount in between. Funding is computed
from that premium by the venues' formula, mean premium + clamp(0.01 % - premium, ±0.05 %) for 8 hours, so that many
settlements rest at exactly 0.0001. Volumes are noise around a daily pattern.

## What is planted

{gaps}
* **Interval change.** `{path}` settles every 8 hours up to {changed_at:%Y-%m-%d %H:%M} UTC and every
  {interval} hours after it; a rate at rest is then 0.00005.
* **Jitter.** Settlement stamps on `binance` are late by 0 to {JITTER_MS["binance"]} ms, those on `bybit` are exact.
  But in every funding file {N_LATE} settlements are late by {LATE_MS[0]} to {LATE_MS[1]} ms.

Both gaps contain a settlement. `mark` files have no gap (and no volume column), so the payments still have a price.
"""
