"""Run folders: written whole or not at all, verified on reading, asked with SQL, compared and explained."""

from basis_bt.store.compare import Comparison, diff_runs
from basis_bt.store.explain import ExplainedSettlement, explain_settlement
from basis_bt.store.folder import StoredRun, check_run_name, list_runs, load_run, read_manifest, resolve_run, save_run
from basis_bt.store.query import sql

__all__ = [
    "Comparison",
    "ExplainedSettlement",
    "StoredRun",
    "check_run_name",
    "diff_runs",
    "explain_settlement",
    "list_runs",
    "load_run",
    "read_manifest",
    "resolve_run",
    "save_run",
    "sql",
]
