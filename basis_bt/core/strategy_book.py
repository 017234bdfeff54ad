"""The named strategies: ready configurations in ``core/strategies``, one file each."""

import difflib
import tomllib
from pathlib import Path

from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import leg_texts

FOLDER = Path(__file__).resolve().parent / "strategies"


def strategy_names() -> list[str]:
    """The strategies that have a file, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def strategy_path(name: str) -> Path:
    """The file of a strategy.

    Raises
    ------
    ConfigError
        If there is none of that name, with the nearest one.
    """
    names = strategy_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
        raise ConfigError(f"no strategy is called {name!r}; {hint}", fix="see basis-bt strategies")
    return FOLDER / f"{name}.toml"


def strategy_text(name: str) -> str:
    """The TOML of a strategy, comments and all. Raises ConfigError if there is none of that name."""
    return strategy_path(name).read_text(encoding="utf-8")


def strategy_line(name: str) -> str:
    """What a strategy does, in one line: the first comment of its file."""
    return strategy_text(name).partition("\n")[0].removeprefix("#").strip()


def strategy_legs(name: str) -> list[str]:
    """The instruments of a strategy with their ratios, e.g. ``+1 spot:binance:BTC-USDT``."""
    return leg_texts(tomllib.loads(strategy_text(name))["combo"]["legs"])
