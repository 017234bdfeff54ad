"""Series written the way Binance Vision publishes them: one CSV in a zip with its checksum, in its folders.

Used by the tests of the importers and by ``benchmarks/bench_import.py``.
"""

import hashlib
import io
import zipfile
from pathlib import Path

import polars as pl

KLINE_HEADER = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
                "taker_buy_volume", "taker_buy_quote_volume", "ignore")  # fmt: skip
FUNDING_HEADER = ("calc_time", "funding_interval_hours", "last_funding_rate")
KLINE_TYPES = {"spot": "klines", "perp": "klines", "mark": "markPriceKlines", "index": "indexPriceKlines",
               "premium": "premiumIndexKlines"}  # fmt: skip
CONTRACT_USD = 100.0
_UNITS = {"ms": 1000, "us": 1}


def interval_text(step_us: int) -> str:
    """A step in Vision's words."""
    minutes = step_us // 60_000_000
    return f"{minutes // 1440}d" if minutes % 1440 == 0 else f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"


def kline_csv(bars: pl.DataFrame, *, step_us: int, header: bool, unit: str = "ms", is_cm: bool = False) -> bytes:
    """Twelve columns of klines; COIN-M volumes are contracts, with the coins in the eighth column."""
    scale, zero = _UNITS[unit], pl.lit(0)
    opened = pl.col("ts").dt.cast_time_unit("us").to_physical() // scale
    volume = pl.col("volume") if "volume" in bars.columns else zero
    contracts = (volume * pl.col("close") / CONTRACT_USD).round() if is_cm else volume
    other = volume if is_cm else volume * pl.col("close")
    rows = bars.select(
        opened,
        *(pl.col(name) for name in ("open", "high", "low", "close")),
        contracts.alias("volume"),
        (opened + step_us // scale - 1).alias("close_time"),
        other.alias("quote_volume"),
        pl.lit(7).alias("count"),
        (volume / 2).alias("taker_buy_volume"),
        (other / 2).alias("taker_buy_quote_volume"),
        zero.alias("ignore"),
    )
    rows.columns = list(KLINE_HEADER)
    return rows.write_csv(include_header=header).encode()


def funding_csv(funding: pl.DataFrame, *, header: bool = True) -> bytes:
    """Three columns of settlements."""
    rows = funding.select(pl.col("ts").dt.epoch("ms"), "interval_hours", "rate")
    rows.columns = list(FUNDING_HEADER)
    return rows.write_csv(include_header=header).encode()


def zip_bytes(members: dict[str, bytes], *, level: int = 1) -> bytes:
    """A zip archive of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def write_zip(path: Path, data: bytes, *, checksum: bool = True) -> Path:
    """Put a CSV into a zip of its name, with ``.CHECKSUM`` beside it."""
    packed = zip_bytes({f"{path.stem}.csv": data})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed)
    if checksum:
        path.with_name(f"{path.name}.CHECKSUM").write_text(f"{hashlib.sha256(packed).hexdigest()}  {path.name}\n")
    return path


def export_vision(
    root: Path,
    series: str,
    native: str,
    frame: pl.DataFrame,
    *,
    product: str,
    step_us: int = 3_600_000_000,
    header: bool | None = None,
    unit: str = "ms",
    period: str = "monthly",
) -> list[Path]:
    """Write a series as Vision zips, one for each month or day, and return their paths.

    Parameters
    ----------
    root : the folder that gets ``data/``
    series : spot, perp, mark, index, premium or funding
    native : Binance's symbol, e.g. ``BTCUSDT`` or ``BTCUSD_PERP``
    frame : ``ts`` and the columns of the series
    product : ``spot``, ``um`` or ``cm``
    header : as the archive does it (futures only) where None
    unit : ``ms`` or ``us``
    period : ``monthly`` or ``daily``
    """
    is_funding = series == "funding"
    head = product != "spot" if header is None else header
    kind = "fundingRate" if is_funding else KLINE_TYPES[series]
    interval = "" if is_funding else interval_text(step_us)
    folder = (
        root / "data" / (product if product == "spot" else f"futures/{product}") / period / kind / native / interval
    )
    form = "%Y-%m" if period == "monthly" else "%Y-%m-%d"
    paths = []
    for (label,), rows in frame.sort("ts").group_by(pl.col("ts").dt.strftime(form), maintain_order=True):
        if is_funding:
            data = funding_csv(rows, header=head)
        else:
            data = kline_csv(rows, step_us=step_us, header=head, unit=unit, is_cm=product == "cm")
        paths.append(write_zip(folder / f"{native}-{interval or kind}-{label}.zip", data))
    return paths
