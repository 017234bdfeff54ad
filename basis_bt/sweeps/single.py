"""Configurations of one backtest, which the commands that sweep something themselves begin with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basis_bt.core.config import build_config, config_dict, read_toml
from basis_bt.core.errors import ConfigError
from basis_bt.core.sweep_spec import parse_hours_or_number, read_space, replaced, swept_keys


def single_tables(config: str | Path | Mapping[str, Any], *, command: str) -> dict[str, Any]:
    """The tables of a configuration with one value a key, checked, the defaults filled in.

    Raises
    ------
    ConfigError
        If it is wrong, or is a sweep itself: several values somewhere, several combos, or a section ``[sweep]``.
    """
    is_path = isinstance(config, str | Path)
    raw = read_toml(config) if isinstance(config, str | Path) else dict(config)
    keys = swept_keys(raw)
    if keys:
        raise ConfigError(
            f"{command} takes one backtest, and this configuration is a sweep itself",
            where={"key": ", ".join(keys)},
            fix="leave one value each, e.g. with --set, and no section [sweep]",
        )
    return config_dict(build_config(raw, source=str(config) if is_path else ""))


def log_values(tables: Mapping[str, Any], key: str, *, low: Any, high: Any, steps: int) -> list[float]:
    """Values of a key from ``low`` to ``high`` in equal ratios, as a sweep's range has them; refused as it would."""
    span = {"from": low, "to": high, "steps": steps, "scale": "log"}
    between = read_space(replaced(tables, {key: span})).axes[0].values[1:-1]
    return [parse_hours_or_number(low), *between, parse_hours_or_number(high)]
