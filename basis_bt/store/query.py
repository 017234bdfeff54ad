"""SQL over every run in a folder: one SELECT, read-only, with nothing else in reach.

The parquet files are handed to an in-memory DuckDB as arrow datasets, verified by sha256 and page checksums (a damaged
file is an error and not a number), and all file, network and Python access of SQL itself is shut.

Views: ``runs`` (one row per run), ``trials`` (the metrics of all runs) and ``equity``, ``fills``, ``funding``,
``events``, ``attribution``, ``wallets``, ``trades``, each with ``run`` as first column. They exist, empty, without any
run too.
"""

import difflib
import hashlib
import json
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from basis_bt.core.errors import QueryError, QueryLimitError, StoreError
from basis_bt.store.folder import list_runs, name_of, table_of

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_TS = pl.Datetime("us", "UTC")

_METRICS = (
    "total_return cagr ann_vol sharpe sortino calmar max_drawdown max_drawdown_hours n_trades:i win_rate "
    "avg_hold_hours time_in_market turnover funding_usd basis_usd delta_usd fees_usd slippage_usd pnl_usd "
    "end_equity_usd n_refused:i apr_on_capital apr_on_notional status:s rollback_usd transfer_usd liquidation_usd "
    "n_rollbacks:i n_unfilled:i n_liquidations:i naked_hours min_margin_ratio borrow_usd delivery_fee_usd yield_usd "
    "fx_usd n_rolls:i min_health"
)
_COLUMNS = {
    "trials": f"trial:i {_METRICS}",
    "equity": "trial:i ts:t equity_usd cash_usd notional_usd drawdown_frac signal basis_bps direction:d stale:b",
    "attribution": "trial:i ts:t leg:d instrument:s position_base close_price delta_usd basis_usd funding_usd fees_usd "
    "spread_usd bucket_usd impact_usd delay_usd rollback_execution_usd rollback_price_usd transfer_usd liquidation_usd "
    "borrow_usd delivery_fee_usd yield_usd fx_usd",
    "wallets": "trial:i ts:t wallet:s cash_usd in_flight_usd",
    "fills": "trial:i ts:t trade:i leg:d instrument:s action:s reason:s decision_ts:t side:d quantity_base "
    "position_change_base arrival_price reference_price fill_price notional_usd delay_usd spread_usd bucket_usd "
    "impact_usd fee_usd shortfall_usd",
    "funding": "trial:i ts:t settlement_ts:t known_at:t leg:d instrument:s funding_rate interval_hours mark_price "
    "mark_source:s position_base funding_usd",
    "events": "trial:i ts:t event:s reason:s direction:d quantity_base",
    "trades": "trial:i trade:i direction:d entry_ts:t exit_ts:t hold_hours quantity_base pnl_usd funding_usd basis_usd "
    "delta_usd costs_usd exit_reason:s",
}
_TYPES: dict[str, Any] = {
    "": pl.Float64, "i": pl.Int64, "d": pl.Int8, "b": pl.Boolean, "s": pl.String, "t": _TS,
}  # fmt: skip

#: view -> column -> dtype, without the leading ``run``; parameter columns of ``trials`` come from the runs themselves
SCHEMAS: dict[str, dict[str, Any]] = {
    view: {name: _TYPES[code] for name, _, code in (column.partition(":") for column in columns.split())}
    for view, columns in _COLUMNS.items()
}
RUNS_SCHEMA: dict[str, Any] = {
    "run": pl.String, "created": _TS, "basis_bt": pl.String, "config_hash": pl.String, "start": _TS, "end": _TS,
    "bar_hours": pl.Float64, "n_bars": pl.Int64, "signal": pl.String, "legs": pl.String, "wall_seconds": pl.Float64,
    "config": pl.String,
}  # fmt: skip
VIEWS = ("runs", *SCHEMAS)

_DAMAGE = re.compile(r"checksum|arrow_scan|stream registered as|Thrift|deserialize|zstd", re.IGNORECASE)
_BATCH_ROWS = 100_000
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def sql(query: str, *, root: Path, timeout_seconds: float = 30.0, memory_limit: str = "2GB") -> pl.DataFrame:
    """The result of one SELECT over all runs under ``root``; timestamps are UTC.

    Folders that cannot be read as runs are left out, with a warning that names them.

    Parameters
    ----------
    query : exactly one SELECT, in DuckDB's SQL; ``config`` of ``runs`` is JSON (``config->>'$.signal.name'``)
    root : the folder of runs; a missing one counts as empty
    timeout_seconds, memory_limit : where the query is stopped

    Raises
    ------
    QueryError
        If the text is not one SELECT, reaches for anything but the views, or passes a limit.
    StoreError
        If a table of a run is missing or damaged.
    """
    limit_bytes = _bytes(memory_limit)
    if not timeout_seconds > 0:
        raise QueryError(f"timeout_seconds must be above 0, found {timeout_seconds}", where={"key": "timeout_seconds"})
    with _closed_database(memory_limit) as connection:
        _check_one_select(connection, query)
        for name, view in _views(Path(root), query):
            connection.register(name, view)
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return _result(connection, query, timeout_seconds=timeout_seconds, limit_bytes=limit_bytes)


@contextmanager
def _closed_database(memory_limit: str) -> Iterator["duckdb.DuckDBPyConnection"]:
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "temp_directory": "",
        "python_enable_replacements": "false",
        "autoload_known_extensions": "false",
        "autoinstall_known_extensions": "false",
    }
    connection = duckdb.connect(":memory:", config=settings)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection
    finally:
        connection.close()


def _check_one_select(connection: "duckdb.DuckDBPyConnection", query: str) -> None:
    import duckdb

    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise _query_error(error) from error
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        found = ", ".join(kinds) or "nothing"
        raise QueryError(
            f"only one SELECT is answered, found: {found}",
            where={"statements": len(kinds)},
            fix=f"ask with a single SELECT over {', '.join(VIEWS)}; runs are never changed by SQL",
        )


def _views(root: Path, query: str) -> Iterator[tuple[str, Any]]:
    listing = list_runs(root)
    broken = [f"{row['run']} ({row['error']})" for row in listing if row["error"]]
    if broken:
        warnings.warn(f"left out {len(broken)} folder(s) that are no readable runs: {'; '.join(broken)}", stacklevel=4)
    sound = [row for row in listing if not row["error"]]
    yield "runs", pl.DataFrame([_run_row(row) for row in sound], schema=RUNS_SCHEMA).to_arrow()
    for view in SCHEMAS:
        yield view, _dataset(root, view, sound, mentioned=view in query.lower())


def _run_row(row: Mapping[str, Any]) -> dict[str, Any]:
    manifest = row["manifest"]
    config, span = manifest.get("config") or {}, manifest.get("span") or {}
    signal = config.get("signal")
    traded = (config.get("combo") or {}).get("legs")
    legs = traded or sorted({item["instrument"] for item in manifest.get("inputs") or []})
    return {
        "run": row["run"],
        "created": _instant(manifest.get("created")),
        "basis_bt": manifest.get("basis_bt"),
        "config_hash": manifest.get("config_hash"),
        "start": _instant(span.get("start")),
        "end": _instant(span.get("end")),
        "bar_hours": span.get("bar_hours"),
        "n_bars": span.get("n_bars"),
        "signal": signal.get("name") if isinstance(signal, Mapping) else signal,
        "legs": _leg_text(legs),
        "wall_seconds": manifest.get("wall_seconds"),
        "config": json.dumps(config, sort_keys=True),
    }


def _leg_text(legs: Any) -> str:
    if isinstance(legs, Mapping):
        legs = list(legs)
    names = [str(leg.get("instrument", leg)) if isinstance(leg, Mapping) else str(leg) for leg in legs]
    return ", ".join(names)


def _instant(text: Any) -> Any:
    from datetime import UTC, datetime

    try:
        instant = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _dataset(root: Path, view: str, runs: Sequence[Mapping[str, Any]], *, mentioned: bool) -> Any:
    """One table of all runs, ``run`` (the folder's name) first, columns united by name."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    table = "metrics" if view == "trials" else view
    digests = {
        row["path"] / file: digest
        for row in runs
        for file, digest in sorted(row["manifest"]["outputs"].items())
        if table_of(file) == table
    }
    paths = list(digests)
    schema = pl.DataFrame(schema=SCHEMAS[view]).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    run = pa.field("run", pa.string())
    if mentioned:
        schema = _united([*(_verified_schema(path, sha256=digests[path]) for path in paths), schema])
    schema = pa.schema([run, *schema])
    if not paths:
        return schema.empty_table()
    verified = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    try:
        return ds.dataset(
            [path.as_posix() for path in paths],
            schema=schema,
            format=ds.ParquetFileFormat(default_fragment_scan_options=verified),
            partitioning=ds.DirectoryPartitioning(pa.schema([run])),
            partition_base_dir=root.as_posix(),
        )
    except OSError as error:
        raise StoreError(f"table {view!r} of a run is missing: {_first_line(error)}", where={"runs": root},
                         fix="restore the file or remove the run's folder") from error  # fmt: skip


def _verified_schema(path: Path, *, sha256: str) -> "pa.Schema":
    """The columns of a file whose bytes are those of the manifest; a damaged footer passes every page checksum."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(path, "rb") as file:
            if path.is_symlink() or hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise OSError("not the bytes that were written")
        return pq.read_schema(path, memory_map=False).remove_metadata()
    except (pa.ArrowException, OSError) as error:
        table, run = name_of(path)
        raise StoreError(
            f"table {table!r} of run {run!r} is missing or damaged",
            where={"path": path},
            fix="restore the file from a copy, or remove the run's folder",
        ) from error


def _united(schemas: "list[pa.Schema]") -> "pa.Schema":
    """Columns by name; a parameter that is a number in one run and text in another becomes text."""
    import pyarrow as pa

    fields: dict[str, pa.Field] = {}
    for field in (field for schema in schemas for field in schema):
        known = fields.setdefault(field.name, field)
        try:
            fields[field.name] = pa.unify_schemas(
                [pa.schema([known]), pa.schema([field])], promote_options="permissive"
            ).field(0)
        except pa.ArrowException:
            fields[field.name] = pa.field(field.name, pa.large_string())
    return pa.schema(list(fields.values()))


def _result(
    connection: "duckdb.DuckDBPyConnection", query: str, *, timeout_seconds: float, limit_bytes: int
) -> pl.DataFrame:
    import duckdb
    import pyarrow as pa

    done, late = threading.Event(), threading.Event()

    def interrupt_when_late() -> None:
        if not done.wait(timeout_seconds):
            late.set()
            while not done.wait(0.05):
                connection.interrupt()

    timer = threading.Thread(target=interrupt_when_late, daemon=True)
    timer.start()
    try:
        reader = connection.sql(query).to_arrow_reader(_BATCH_ROWS)
        batches, size = [], 0
        for batch in reader:
            batches.append(batch)
            size += batch.nbytes
            if size > limit_bytes:
                raise QueryLimitError(
                    f"the result is larger than the memory limit ({limit_bytes:,} bytes)",
                    fix="aggregate, filter or LIMIT the query",
                )
            if late.is_set():
                raise duckdb.InterruptException("late")
        return pl.DataFrame(pl.from_arrow(pa.Table.from_batches(batches, schema=reader.schema)))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise QueryError(
            f"the result has a type that cannot be shown: {_first_line(error)}",
            fix="cast such columns, for example an INTERVAL with CAST(... AS VARCHAR)",
        ) from error
    except (duckdb.Error, pa.ArrowException, OSError, RuntimeError) as error:
        if late.is_set():
            raise QueryLimitError(
                f"the query was stopped after {timeout_seconds:g} s",
                where={"timeout_seconds": timeout_seconds},
                fix="filter earlier (a run, a span of ts), avoid cross joins, or raise the time limit",
            ) from error
        raise _query_error(error) from error
    finally:
        done.set()
        timer.join()


def _query_error(error: Exception) -> Exception:
    """The first line of DuckDB's message, with what to do about it."""
    import duckdb

    text = str(error)
    from_sql = (
        duckdb.PermissionException, duckdb.CatalogException, duckdb.ParserException, duckdb.BinderException,
    )  # fmt: skip
    if _DAMAGE.search(text) and not isinstance(error, from_sql):
        return StoreError(
            f"a table of a run is damaged: {_first_line(error)}", fix="basis-bt show RUN finds out which file it is"
        )
    fix = "see the column names with: SELECT * FROM trials LIMIT 1"
    missing = re.search(r"Table with name (\S+) does not exist", text)
    if missing:
        near = difflib.get_close_matches(missing[1].lower(), VIEWS, n=1)
        fix = (f"did you mean {near[0]}? " if near else "") + f"the views are {', '.join(VIEWS)}"
    elif isinstance(error, duckdb.PermissionException):
        fix = f"SQL reads runs only: {', '.join(VIEWS)}"
    elif isinstance(error, duckdb.OutOfMemoryException):
        return QueryLimitError(_first_line(error), fix="filter earlier, aggregate, or raise the memory limit")
    elif isinstance(error, duckdb.ParserException):
        fix = "correct the statement; one SELECT is expected"
    elif isinstance(error, duckdb.InvalidInputException) and "parameters" in text:
        fix = "write the values into the query; parameters are not supported"
    return QueryError(_first_line(error), fix=fix)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _bytes(memory_limit: str) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]i?B)\s*", memory_limit, re.IGNORECASE)
    if not match or float(match[1]) == 0:
        raise QueryError(f"memory_limit {memory_limit!r} is not a size", where={"key": "memory_limit"},
                         fix="write it as '500MB' or '2GB'")  # fmt: skip
    return int(float(match[1]) * _UNITS[match[2].upper()])
