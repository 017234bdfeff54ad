"""What the engine records of its results, in the very terms of a run's tables (``docs/tables.md``)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from basis_bt.kernels.structs import BOOKS

#: beside a LegResult, by ``Journal.leg_result``: number of the trade (0: none came of it), what was done (``entry``,
#: ``exit``, ``resize``, ``rollback``), why (``signal``, ``stop``, ...; a LegResult's own ``reason`` is why it failed),
#: and the bars of the fill and of the decision; without bars their instants stand in the table
RESULT_FACTS = ("trade", "action", "cause", "bar_us", "decision_bar_us")
#: beside a FundingPayment, by ``Journal.funding``; ``mark_source`` is ``own``, ``mark`` or ``trade``, ``amount_usd`` is
#: what the payment is worth where its asset is no dollar
FUNDING_FACTS = (
    "bar_us", "settlement_us", "known_at_us", "funding_rate", "interval_hours", "mark_price", "mark_source",
    "position_base", "amount_usd",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The event ``session_start``: what is needed to read the rest. ``config`` is ``config_dict`` of it, plain.

    ``inputs`` are manifest rows of market files (a replay has them, paper and live have none).
    """

    mode: str
    config: Mapping[str, object]
    config_hash: str
    venues: Sequence[str] = ()
    fees_bps: Mapping[str, float] = field(default_factory=dict)
    inputs: Sequence[Mapping[str, object]] = ()
    flags: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The event ``decision`` (or ``refused``, or an ``incident`` of a combo): one row of the events table.

    ``event`` is a word of the kernels (``entry``, ``exit``, ``refused``, ``waiting``, ``rollback``, ``unfilled``,
    ``resize``, ``liquidation``, ``adl``) or one of the live engine's own; ``bar_us`` the open of the bar it fell in.
    """

    event: str
    reason: str
    direction: int = 0
    quantity_base: float = 0.0
    bar_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The event ``mark``: one row of the equity curve. A second one of the same bar replaces the first.

    Sequences are by leg, in the order of the combo. ``row`` counts bars from 0; ``bar_us`` is the open of the bar
    whose close this is. ``signal`` and ``basis_bps`` are what the decision of the bar saw. ``books`` has, by name
    (``kernels.structs.BOOKS``), what came of each leg so far in USD, cumulative; books that are not named are zero.
    ``stale``: a held leg had no price of its own. ``is_naked``: the legs did not hedge each other. ``margin_ratio``
    is the least of the bar, ``wallets_usd`` cash by venue where that is told apart.
    """

    row: int
    bar_us: int
    equity_usd: float
    cash_usd: float
    position_base: Sequence[float]
    close_price: Sequence[float]
    books: Mapping[str, Sequence[float]]
    direction: int = 0
    signal: float | None = None
    basis_bps: float | None = None
    stale: bool = False
    is_naked: bool = False
    margin_ratio: float | None = None
    health: float | None = None
    wallets_usd: Mapping[str, float] = field(default_factory=dict)
    in_flight_usd: float = 0.0

    def __post_init__(self) -> None:
        unknown = set(self.books) - set(BOOKS)
        if unknown:
            raise ValueError(f"books are {', '.join(BOOKS)}; found {', '.join(sorted(unknown))}")
        lengths = {len(self.position_base), len(self.close_price), *map(len, self.books.values())}
        if len(lengths) > 1:
            raise ValueError(f"a mark has one number a leg, found {sorted(lengths)} of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """The event ``trade``: a round trip as it stands, recorded when it opens, grows and closes; the last one holds.

    Numbers go 1, 2, 3, ...; ``quantity_base`` is that of the combo, ``pnl_usd`` the change of cash from entry to exit.
    """

    trade: int
    direction: int
    entry_us: int
    quantity_base: float
    exit_us: int | None = None
    exit_reason: str | None = None
    pnl_usd: float | None = None
