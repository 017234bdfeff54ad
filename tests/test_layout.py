"""The folders are the data flow: each imports only from those before it."""

import ast
from pathlib import Path

import pytest

ORDER = ("core", "market", "frames", "signals", "kernels", "ledger", "statistics", "store", "reports", "backtest",
         "sweeps", "live", "cli")  # fmt: skip
PACKAGE = Path(__file__).resolve().parents[1] / "basis_bt"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_folder_imports_only_folders_to_its_left(path):
    place = ORDER.index(path.relative_to(PACKAGE).parts[0])
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "basis_bt" and len(parts) > 1:
            assert ORDER.index(parts[1]) <= place, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "kernels").glob("*.py")), ids=lambda path: path.name)
def test_kernels_import_numpy_numba_and_themselves(path):
    allowed = {"numpy", "numba", "basis_bt"}
    standard = {"math", "typing", "hashlib", "os", "sys", "functools", "tempfile", "warnings", "collections", "pathlib"}
    assert {module.split(".")[0] for module in imports(path)} <= allowed | standard


def test_every_folder_is_in_the_order():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert folders == set(ORDER)
