"""Every pair of a market folder that a pattern stands for."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import KINDS, Instrument
from basis_bt.market.coverage import holdings
from basis_bt.market.remote import market_root

PAIR_KEYS = {"long", "short"}


def configured_combos(raw: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The combos of a sweep: ``[[combo]]`` tables as they are, or the pairs that ``[[combo.pairs]]`` stands for.

    None where the configuration has one combo only. Patterns are those of file names, over ``kind:venue:BASE-QUOTE``:
    ``long = "spot:*:*-USDT"``, ``short = "perp:*:*"``. A pair has one coin; instruments without bars, and perps without
    funding, are not loaded. Two legs of one kind give a pair once where the rule also trades the reverse, else both
    ways round.

    Raises
    ------
    ConfigError
        For a pattern that is none, or stands for nothing.
    """
    combo = raw.get("combo")
    if isinstance(combo, list):
        return list(combo)
    if not isinstance(combo, Mapping) or "pairs" not in combo:
        return None
    patterns = combo["pairs"]
    if set(combo) != {"pairs"} or not isinstance(patterns, list) or not patterns:
        raise ConfigError("combo.pairs: give a list of patterns and no legs beside it", fix="see docs/sweeps.md")
    data, rule = raw.get("data"), raw.get("rule")
    root = data.get("root") if isinstance(data, Mapping) else None
    if not isinstance(root, str):
        raise ConfigError("data.root: missing", fix="name the market folder whose pairs are meant")
    loaded = _loaded(root)
    is_mirrored = isinstance(rule, Mapping) and rule.get("reverse") in (True, [True])
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for number, pattern in enumerate(patterns):
        if not isinstance(pattern, Mapping) or set(pattern) != PAIR_KEYS:
            raise ConfigError(
                f"combo.pairs.{number}: must have long and short", fix='long = "spot:*:*", short = "perp:*:*"'
            )
        longs, shorts = (
            _matching(loaded, pattern[side], key=f"combo.pairs.{number}.{side}") for side in ("long", "short")
        )
        before = len(found)
        for long in longs:
            for short in shorts:
                is_known = (str(short), str(long)) in found and is_mirrored
                if long != short and long.base == short.base and not is_known:
                    legs = [{"instrument": str(long), "ratio": 1.0}, {"instrument": str(short), "ratio": -1.0}]
                    found[str(long), str(short)] = {"legs": legs}
        if len(found) == before:
            raise ConfigError(
                f"combo.pairs.{number}: no pair of one coin is loaded for {pattern['long']} and {pattern['short']}",
                where={"root": root},
                fix="basis-bt data ls shows what the folder holds",
            )
    return list(found.values())


def _loaded(root: str) -> list[Instrument]:
    """Instruments with bars, perps with funding too, by name."""
    series: dict[str, set[str]] = {}
    for holding in holdings(market_root(root))[0]:
        if holding.key.instrument is not None:
            series.setdefault(holding.key.instrument, set()).add(holding.key.series)
    out = []
    for name, held in sorted(series.items()):
        kind = name.partition(":")[0]
        if kind in KINDS and kind in held and (kind != "perp" or "funding" in held):
            try:
                out.append(Instrument.parse(name))
            except ValueError:
                continue  # a file whose name is no instrument
    return out


def _matching(loaded: list[Instrument], pattern: Any, *, key: str) -> list[Instrument]:
    if not isinstance(pattern, str) or pattern.count(":") != 2:
        raise ConfigError(f"{key}: {pattern!r} is no pattern", fix='write kind:venue:BASE-QUOTE, e.g. "perp:*:BTC-*"')
    found = [instrument for instrument in loaded if fnmatchcase(str(instrument), pattern)]
    if not found:
        raise ConfigError(
            f"{key}: nothing loaded matches {pattern!r}", fix="basis-bt data ls shows what the folder holds"
        )
    return found
