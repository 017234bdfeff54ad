"""Configurations from TOML, dicts and ``--set``: strict, with every mistake named by its key."""

import copy
import dataclasses
import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from basis_bt.core.calibration_file import with_calibration
from basis_bt.core.errors import ConfigError
from basis_bt.core.models import Config


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file; a ConfigError names the file, and the line where it cannot be read."""
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration: {error.strerror}", where={"file": path}, fix="check the path"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"this is no TOML: {error}", where={"file": path}, fix="correct that line") from None


def apply_settings(raw: Mapping[str, Any], settings: Mapping[str, str]) -> dict[str, Any]:
    """A copy of a configuration with ``{"rule.entry": "0.08"}`` put in; values are read as TOML, else as text."""
    out = copy.deepcopy(dict(raw))
    for key, text in settings.items():
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        *parents, last = key.split(".")
        table: Any = out
        for part in parents:
            inside = isinstance(table, list) and part.isdigit() and int(part) < len(table)
            table = table[int(part)] if inside else _child(table, part, key)
        if isinstance(table, list) and last.isdigit() and int(last) < len(table):
            table[int(last)] = value
        elif isinstance(table, dict):
            table[last] = value
        else:
            raise ConfigError(f"--set {key}: {last!r} is not inside a table", fix="name a key such as rule.entry")
    return out


def _child(table: Any, part: str, key: str) -> Any:
    if not isinstance(table, dict):
        raise ConfigError(f"--set {key}: {part!r} is not inside a table", fix="name a key such as rule.entry")
    return table.setdefault(part, {})


@cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Config)


def build_config(raw: Mapping[str, Any], *, source: str = "") -> Config:
    """The checked configuration of nested tables, with the calibration that they name taken over.

    Raises
    ------
    ConfigError
        Naming every wrong key by its path, what was found, what is allowed, and the nearest valid key.
    """
    from pydantic import ValidationError

    try:
        return _adapter().validate_json(_json(with_calibration(raw)))
    except ValidationError as error:
        lines = [_sentence(item) for item in error.errors()]
    where = {"file": source} if source else {}
    raise ConfigError(
        "\n".join(dict.fromkeys(lines)), where=where, fix="correct the keys named; see docs/configuration.md"
    )


def _json(raw: Mapping[str, Any]) -> str:
    """The tables as JSON, instants as text; the strict checks take tables only from there."""

    def text(value: Any) -> str:
        if isinstance(value, datetime):
            return value.isoformat()
        raise ConfigError(
            f"a configuration holds plain values, found {value} ({type(value).__name__})",
            fix="write an instant with its time and zone, e.g. 2024-01-01T00:00:00Z, and all else as TOML has it",
        )

    return json.dumps(raw, default=text)


def _sentence(item: Mapping[str, Any]) -> str:
    path = _key_path(item["loc"])
    kind, found = item["type"], item["input"]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        near = difflib.get_close_matches(str(item["loc"][-1]), _keys_at(item["loc"][:-1]), n=1, cutoff=0.5)
        allowed = ", ".join(_keys_at(item["loc"][:-1]))
        return f"{path}: unknown key" + (f"; did you mean {near[0]!r}?" if near else f"; allowed: {allowed}")
    if kind == "missing" or kind == "missing_argument":
        return f"{path}: missing"
    if kind == "value_error":
        return f"{path}: {item['ctx']['error']}" if path else str(item["ctx"]["error"])
    if kind == "literal_error":
        allowed = item["ctx"]["expected"]
        near = difflib.get_close_matches(
            str(found), [word.strip("'") for word in allowed.replace(" or ", ", ").split(", ")]
        )
        return f"{path}: must be {allowed}, found {found!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    return f"{path}: {item['msg'][0].lower()}{item['msg'][1:]}, found {found!r} ({type(found).__name__})"


def _key_path(loc: tuple[Any, ...]) -> str:
    """``("combo", "legs", 0, "ratio")`` as ``combo.legs.0.ratio``, without the branches of unions."""
    branches = ("float", "str", "datetime", "Calibrated")
    return ".".join(str(part) for part in loc if part not in branches and not str(part).startswith(("dict[", "list[")))


def _keys_at(loc: tuple[Any, ...]) -> list[str]:
    """The keys that a section of the configuration has."""
    import typing

    model: Any = Config
    for part in loc:
        if isinstance(part, int):
            continue
        if typing.get_origin(model) is dict:  # the part is a name that the user gave
            model = typing.get_args(model)[1]
            continue
        hints = typing.get_type_hints(model) if dataclasses.is_dataclass(model) else {}
        model = hints.get(str(part), model)
        if typing.get_origin(model) is list:
            model = typing.get_args(model)[0]
        if type(None) in typing.get_args(model):
            model = typing.get_args(model)[0]
    return [field.name for field in dataclasses.fields(model)] if dataclasses.is_dataclass(model) else []


def load_config(source: str | Path | Mapping[str, Any] | Config, settings: Mapping[str, str] | None = None) -> Config:
    """The configuration of a TOML path, of nested dicts, or of models made by hand, checked all the same."""
    if isinstance(source, Config):
        return build_config(config_dict(source))
    if isinstance(source, Mapping):
        return build_config(apply_settings(source, settings or {}))
    return build_config(apply_settings(read_toml(source), settings or {}), source=str(source))


def config_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested plain values, defaults filled in: what manifests keep."""

    def plain(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.isoformat()
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return 0.0 if isinstance(value, float) and value == 0 else value

    values = plain(dataclasses.asdict(config))
    for key in ("live", "calibration"):
        if values[key] is None:
            del values[key]
    return values


def config_hash(config: Config) -> str:
    """Hash of what the configuration means for a backtest: its values, without its name and how it is traded live.

    Measured costs count as the costs that they are, whatever file they came from.
    """
    values = {key: value for key, value in config_dict(config).items() if key not in ("name", "live", "calibration")}
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()
