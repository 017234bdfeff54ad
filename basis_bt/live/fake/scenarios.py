"""The faults of the reliability bar by number, with what a correct adapter may report and may do.

Spot is bought, the perpetual sold. ``SCENARIOS`` holds F1 to F33 and F35 to F37; F34 is ``soak.SoakPlan``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from basis_bt.live.fake.faults import Fault, FaultPlan, FaultRule
from basis_bt.live.fake.simulator import SimVenue

Step = Literal["open", "close", "adl", "settle", "wait"]
Prepare = Callable[[SimVenue, str], None]
QUANTITY_BASE = 0.05
_FALL = -0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One numbered case.

    Parameters
    ----------
    id, fault : its number, and what goes wrong
    results : outcomes that are allowed
    spot_creates, perp_creates : requests to create an order that the venues see, at most
    naked_s : longest time with an exposure above the tolerance (None: no bound)
    variants : rules by the name of the variant; the plain one is ``""``
    steps : what is done, in order
    style : ``limit`` lets the perpetual leg rest first, with a fallback
    quantity_base : by the venue of the perpetual, ``""`` for any other
    prepare : what the perpetual's venue is like from the beginning
    """

    id: str
    fault: str
    results: tuple[str, ...]
    spot_creates: int
    perp_creates: int
    naked_s: float | None
    variants: Mapping[str, tuple[FaultRule, ...]] = field(default_factory=lambda: {"": ()})
    steps: tuple[Step, ...] = ("open",)
    style: Literal["market", "limit"] = "market"
    quantity_base: Mapping[str, float] = field(default_factory=lambda: {"": QUANTITY_BASE})
    prepare: Prepare | None = None

    def quantity_for(self, perp_venue: str) -> float:
        """What is to be opened."""
        return self.quantity_base.get(perp_venue, self.quantity_base.get("", QUANTITY_BASE))

    def plan(self, variant: str = "", *, seed: int = 0) -> FaultPlan:
        """A fresh plan."""
        return FaultPlan(self.variants[variant], seed=seed)


def _perp(fault: Fault, **more: object) -> FaultRule:
    return FaultRule(fault=fault, operation="create", market="perp", **more)  # type: ignore[arg-type]


def _spot(fault: Fault, **more: object) -> FaultRule:
    return FaultRule(fault=fault, operation="create", market="spot", **more)  # type: ignore[arg-type]


def _halt(sim: SimVenue, perp: str) -> None:
    sim.set_trading(perp, False)


def _thin(sim: SimVenue, perp: str) -> None:
    sim.make_book(perp, sim.book(perp).mid, depth_base=0.01, is_refilled=False)


def _wide(sim: SimVenue, perp: str) -> None:
    sim.make_book(perp, sim.book(perp).mid, spread_bps=80.0)


_CUT = Fault(kind="cut_after")
_NO_MARGIN = _perp(Fault(kind="refuse", reason="margin"))
_ROLLBACK_REFUSED = Fault(kind="refuse", reason="price_band")
_STAYS_OPEN = _perp(Fault(kind="fill_share", share=0.0), order_kind="limit")
_MARKET_DATA = ("book", "ticker")


def _cancel(fault: Fault) -> FaultRule:
    return FaultRule(fault=fault, operation="cancel", market="perp")


def _after_cancel(fault: Fault) -> FaultRule:
    return FaultRule(fault=fault, operation="find", market="perp", after="cancel", count=2)


def _book(fault: Fault, market: str = "perp") -> tuple[FaultRule, ...]:
    return (FaultRule(fault=fault, operation=_MARKET_DATA, market=market, count=None),)


_LOST_REPLIES = [
    Scenario(
        id="F1", fault="perp order filled, connection cut before the reply",
        results=("opened",), spot_creates=1, perp_creates=1, naked_s=4.0, variants={"": (_perp(_CUT),)},
    ),
    Scenario(
        id="F2", fault="spot order filled, the reply hangs past the client's timeout",
        results=("opened",), spot_creates=1, perp_creates=1, naked_s=5.0,
        variants={"": (_spot(Fault(kind="hang", seconds=30.0)),)},
    ),
    Scenario(
        id="F3", fault="both legs lose their replies",
        results=("opened",), spot_creates=1, perp_creates=1, naked_s=4.0, variants={"": (_spot(_CUT), _perp(_CUT))},
    ),
    Scenario(
        id="F4", fault="the perp request never reaches the venue",
        results=("opened", "flat"), spot_creates=2, perp_creates=2, naked_s=8.0,
        variants={"": (_perp(Fault(kind="cut_before")),)},
    ),
    Scenario(
        id="F5", fault="the venue takes the perp order 3 s after the connection was cut",
        results=("opened", "flat"), spot_creates=2, perp_creates=2, naked_s=8.0,
        variants={"": (_perp(Fault(kind="late", seconds=3.0)),)},
    ),
    Scenario(
        id="F6", fault="the perp order exists but the first 3 look-ups find none",
        results=("opened",), spot_creates=1, perp_creates=1, naked_s=6.0,
        variants={
            "": (_perp(_CUT), FaultRule(fault=Fault(kind="hide_order"), operation="find", market="perp", count=3))
        },
    ),
    Scenario(
        id="F7", fault="status 200, half a body, connection cut",
        results=("opened",), spot_creates=1, perp_creates=1, naked_s=4.0,
        variants={"": (_perp(Fault(kind="half_body")),)},
    ),
    Scenario(
        id="F8", fault="status 200 with an HTML or empty body",
        results=("opened",), spot_creates=1, perp_creates=1, naked_s=4.0,
        variants={"html": (_perp(Fault(kind="html_body")),), "empty": (_perp(Fault(kind="empty_body")),)},
    ),
    Scenario(
        id="F9", fault="HTTP 5xx after execution",
        results=("opened",), spot_creates=1, perp_creates=1, naked_s=4.0,
        variants={str(code): (_perp(Fault(kind="status", status=code)),) for code in (500, 502, 503, 504)},
    ),
    Scenario(
        id="F10", fault="the venue's own 'status unknown' after execution",
        results=("opened",), spot_creates=1, perp_creates=1, naked_s=4.0,
        variants={"": (_perp(Fault(kind="status_unknown")),)},
    ),
    Scenario(
        id="F11", fault="a send meets 'duplicate client order id': its first copy got through",
        results=("opened",), spot_creates=1, perp_creates=2, naked_s=6.0,
        variants={"": (_perp(Fault(kind="duplicate")),)},
    ),
]  # fmt: skip

_REFUSALS = [
    Scenario(
        id="F12", fault="perp refused for margin after spot filled",
        results=("flat",), spot_creates=2, perp_creates=1, naked_s=4.0, variants={"": (_NO_MARGIN,)},
    ),
    Scenario(
        id="F13", fault="spot refused for funds",
        results=("flat", "refused"), spot_creates=1, perp_creates=2, naked_s=4.0,
        variants={"": (_spot(Fault(kind="refuse", reason="funds")),)},
    ),
    Scenario(
        id="F14", fault="over the spot minimum, under the perp's",
        results=("refused",), spot_creates=0, perp_creates=0, naked_s=0.0,
        quantity_base={"binance": 0.001, "bybit": 0.0005, "okx": 0.00005},
    ),
    Scenario(
        id="F15", fault="a quantity that is a multiple of neither lot",
        results=("opened",), spot_creates=1, perp_creates=1, naked_s=1.0, quantity_base={"": 0.05037},
    ),
    Scenario(
        id="F16", fault="perp market halted",
        results=("refused", "flat"), spot_creates=2, perp_creates=1, naked_s=4.0, prepare=_halt,
    ),
    Scenario(
        id="F17", fault="thin perp book: 0.01 BTC in all",
        results=("refused",), spot_creates=0, perp_creates=0, naked_s=0.0, prepare=_thin,
    ),
    Scenario(
        id="F18", fault="spread of 80 bps",
        results=("refused",), spot_creates=0, perp_creates=0, naked_s=0.0, prepare=_wide,
    ),
]  # fmt: skip

_PARTIALS = [
    Scenario(
        id="F19", fault="perp fills 40 % and the venue cancels the rest",
        results=("opened", "flat", "reduced"), spot_creates=2, perp_creates=2, naked_s=4.0,
        variants={"": (_perp(Fault(kind="fill_share", share=0.4)),)},
    ),
    Scenario(
        id="F20", fault="the limit order stays open",
        results=("opened",), spot_creates=1, perp_creates=2, naked_s=6.0, style="limit",
        variants={"": (_STAYS_OPEN,)},
    ),
    Scenario(
        id="F21", fault="the cancel races with a full fill",
        results=("opened",), spot_creates=1, perp_creates=1, naked_s=6.0, style="limit",
        variants={"": (_STAYS_OPEN, _cancel(Fault(kind="fill_before_cancel", share=1.0)))},
    ),
    Scenario(
        id="F22", fault="the cancel races with a half fill",
        results=("opened",), spot_creates=1, perp_creates=2, naked_s=6.0, style="limit",
        variants={"": (_STAYS_OPEN, _cancel(Fault(kind="fill_before_cancel", share=0.5)))},
    ),
    Scenario(
        id="F23", fault="the reply to the cancel is lost",
        results=("opened",), spot_creates=1, perp_creates=2, naked_s=8.0, style="limit",
        variants={"": (_STAYS_OPEN, _cancel(_CUT))},
    ),
    Scenario(
        id="F24", fault="the order status read after the cancel is stale",
        results=("opened",), spot_creates=1, perp_creates=2, naked_s=8.0, style="limit",
        variants={
            name: (_STAYS_OPEN, _cancel(Fault(kind="fill_before_cancel", share=0.5)), _after_cancel(fault))
            for name, fault in {
                "order": Fault(kind="stale_order", lag=2), "fill": Fault(kind="stale_fill", lag=2),
            }.items()
        },
    ),
    Scenario(
        id="F25", fault="perp falls 2 % between the legs",
        results=("opened", "flat"), spot_creates=2, perp_creates=2, naked_s=4.0,
        variants={"": (_perp(Fault(kind="move_book", share=_FALL)),)},
    ),
    Scenario(
        id="F26", fault="the rollback order is refused twice, then works",
        results=("flat",), spot_creates=4, perp_creates=1, naked_s=15.0,
        variants={"": (_NO_MARGIN, _spot(_ROLLBACK_REFUSED, side=-1, count=2))},
    ),
    Scenario(
        id="F27", fault="rollback never works",
        results=("halted",), spot_creates=8, perp_creates=1, naked_s=None,
        variants={"": (_NO_MARGIN, _spot(_ROLLBACK_REFUSED, side=-1, count=None))},
    ),
    Scenario(
        id="F28", fault="every trade row arrives twice, and an order update too",
        results=("opened",), spot_creates=1, perp_creates=1, naked_s=2.0,
        variants={
            "": (
                FaultRule(
                    fault=Fault(kind="copies"), count=None,
                    operation=("trades", "find", "find_history", "open_orders", "closed_orders"),
                ),
            )
        },
    ),
    Scenario(
        id="F29", fault="the spot fee is taken in the base coin: open, then close",
        results=("flat",), spot_creates=2, perp_creates=2, naked_s=2.0, steps=("open", "close"),
    ),
]  # fmt: skip

_MARKET = [
    Scenario(
        id="F30", fault="a book 30 s old and 1 % off",
        results=("refused",), spot_creates=0, perp_creates=0, naked_s=0.0,
        variants={
            market: _book(Fault(kind="stale_book", seconds=30.0, share=0.01), market) for market in ("perp", "spot")
        },
    ),
    Scenario(
        id="F31", fault="a book empty on one side, or crossed",
        results=("refused",), spot_creates=0, perp_creates=0, naked_s=0.0,
        variants={
            "bids": _book(Fault(kind="empty_side", side=-1)), "asks": _book(Fault(kind="empty_side", side=1)),
            "crossed": _book(Fault(kind="crossed_book")),
        },
    ),
    Scenario(
        id="F32", fault="the venue's clock is 60 s ahead",
        results=("opened", "refused", "flat"), spot_creates=2, perp_creates=3, naked_s=4.0,
        variants={"": (_perp(Fault(kind="clock_offset", seconds=60.0)),)},
    ),
    Scenario(
        id="F33", fault="429 in the middle of a pair, then a ban if ignored",
        results=("opened", "flat"), spot_creates=2, perp_creates=3, naked_s=8.0,
        variants={"": (_perp(Fault(kind="rate_limit", seconds=2.0)),)},
    ),
]  # fmt: skip

_ACCOUNT = [
    Scenario(
        id="F35", fault="auto-deleveraging closes the whole perp leg",
        results=("flat", "opened"), spot_creates=2, perp_creates=2, naked_s=5.0, steps=("open", "adl", "wait"),
    ),
    Scenario(
        id="F36", fault="two funding settlements while the pair is open",
        results=("flat",), spot_creates=2, perp_creates=2, naked_s=2.0, steps=("open", "settle", "settle", "close"),
    ),
    Scenario(
        id="F37", fault="positions answer with the state before the last fill",
        results=("opened",), spot_creates=1, perp_creates=1, naked_s=2.0, steps=("open", "wait"),
        variants={"": (FaultRule(fault=Fault(kind="stale_positions"), operation="positions", after="create"),)},
    ),
]  # fmt: skip

SCENARIOS: dict[str, Scenario] = {
    scenario.id: scenario for scenario in (*_LOST_REPLIES, *_REFUSALS, *_PARTIALS, *_MARKET, *_ACCOUNT)
}
