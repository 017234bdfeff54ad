"""What the models promise: every cost, fill, margin, funding, borrow, loan and fee rule, one entry each.

An entry says how valid arguments are drawn and what holds for all of them; ``test_behaviours.py`` runs the same checks
over the whole list. A new model is a new entry in ``MODELS``; without one the battery fails.
"""

import functools
import importlib
import inspect
import math
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import neg
from typing import Any

import numpy as np
from hypothesis import strategies as st

from basis_bt.kernels import (
    books,
    contracts,
    costs,
    draws,
    fees,
    fills,
    funding,
    liquidation,
    loans,
    margin,
    rule,
    sizing,
    wallets,
)
from basis_bt.kernels.structs import BERNOULLI, BY_VOLUME, STOP, RuleParams, SizeParams
from basis_bt.kernels.structs import HELD as HELD_ROW

Arguments = dict[str, Any]
N_LEGS, N_TIERS = 3, 4


@dataclass(frozen=True, kw_only=True, repr=False)
class Model:
    """A rule, valid arguments for it, and its promises; "outcome" is what it returns, then what it wrote, as seen.

    Numbers are compared to the last bit unless ``rounding`` (a share of ``magnitude``) is given.

    Parameters
    ----------
    arguments : draws the arguments by name
    call : how to call it with them; plainly by name of its parameters if not given
    writes : arguments it may change
    seen : what of the outcome the promises speak of; all of it if not given
    size : the argument that is traded or charged: the outcome is zero at zero of it, and no smaller at a multiple
    zero_with : further arguments at zero of which the outcome is zero
    monotone : by argument, whether the outcome rises (+1) or falls (-1) with it, ties allowed
    scales : (arguments, degree): all of them doubled, the outcome is ``2 ** degree`` times itself
    mirrored : (arguments, factor): all of them with the other sign, the outcome is ``factor`` times itself
    worse : (argument, +1): the outcome is a price no better than that for both sides; -1: no worse
    between : lower and upper bound of the outcome
    unrelated : by argument, which of its elements do not matter
    edges : by argument, values at which the outcome may jump, and on which side (-1 below, +1 above) it is the same
    continuous : by argument, values near which to look, and the steepest slope
    differs_with : arguments of which no two values give one outcome
    undefined : why there may be no finite outcome for finite arguments
    """

    kernel: Callable
    arguments: st.SearchStrategy[Arguments]
    case: str = ""
    call: Callable[[Callable, Arguments], Any] | None = None
    writes: tuple[str, ...] = ()
    seen: Callable[[np.ndarray, Arguments], np.ndarray] | None = None
    size: str = ""
    zero_with: tuple[str, ...] = ()
    monotone: dict[str, Callable[[Arguments], float]] = field(default_factory=dict)
    scales: tuple[tuple[tuple[str, ...], int], ...] = ()
    mirrored: tuple[tuple[tuple[str, ...], float], ...] = ()
    worse: tuple[str, int] | None = None
    between: Callable[[Arguments], tuple] | None = None
    unrelated: dict[str, Callable[[Arguments], Any]] = field(default_factory=dict)
    edges: dict[str, Callable[[Arguments], tuple[Any, int]]] = field(default_factory=dict)
    continuous: dict[str, Callable[[Arguments], tuple[Any, float]]] = field(default_factory=dict)
    differs_with: tuple[str, ...] = ()
    undefined: str = ""
    rounding: float = 0.0
    magnitude: Callable[[Arguments], float] = lambda _: 0.0

    def __repr__(self) -> str:
        return f"{self.kernel.__name__} {self.case}".strip()

    @property
    def rules(self) -> list[Callable]:
        """The rule as compiled, if Python may call that, and as plain Python."""
        is_inner = getattr(self.kernel, "targetoptions", {}).get("no_cpython_wrapper", False)
        return [interpreted(self.kernel)] if is_inner else [self.kernel, interpreted(self.kernel)]

    def raw(self, function: Callable, arguments: Arguments) -> np.ndarray:
        """What a call returns, then what it wrote, as one array."""
        result = function(*in_order(self.kernel, arguments)) if self.call is None else self.call(function, arguments)
        parts = [] if result is None else [np.asarray(result, dtype=np.float64).ravel()]
        return np.concatenate([*parts, *(arguments[name].ravel() for name in self.writes)])

    def outcome(self, arguments: Arguments) -> np.ndarray:
        """What the promises speak of, at these arguments, which are left as they are."""
        own = {name: value.copy() if name in self.writes else value for name, value in arguments.items()}
        with np.errstate(over="ignore"):  # random numbers wrap around
            raw = self.raw(self.rules[0], own)
        return raw if self.seen is None else np.asarray(self.seen(raw, arguments), dtype=np.float64)

    def slack(self, arguments: Arguments, *outcomes: np.ndarray) -> float:
        """Largest difference that rounding may make."""
        finite = [abs(value) for outcome in outcomes for value in outcome if math.isfinite(value)]
        return self.rounding * max([self.magnitude(arguments), *finite]) if self.rounding else 0.0


@functools.cache
def interpreted(kernel: Callable) -> Callable:
    """A kernel in plain Python, and so all kernels of its own file and imports that it calls by name."""
    plain = inspect.unwrap(getattr(kernel, "py_func", kernel))
    called = {name: plain.__globals__.get(name) for name in plain.__code__.co_names}
    own = {name: interpreted(value) for name, value in called.items() if is_kernel(value)}
    return types.FunctionType(plain.__code__, {**plain.__globals__, **own}, plain.__name__)


def in_order(kernel: Callable, arguments: Arguments) -> list[Any]:
    """Arguments in the order of a kernel's parameters."""
    return [arguments[name] for name in inspect.signature(interpreted(kernel)).parameters]


def is_kernel(value: Any) -> bool:
    """Whether something is a function of the kernels, compiled or not."""
    is_function = hasattr(value, "py_func") or isinstance(value, types.FunctionType)
    return is_function and value.__module__.startswith("basis_bt.kernels")


# --------------------------------------------------------------------------------------------------------- arguments


def frozen(values: Any, dtype: Any = np.float64) -> np.ndarray:
    """A read-only array, as the panel's are."""
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


def number(low: float, high: float) -> st.SearchStrategy[float]:
    """A float of a range, or 0 where the range begins there, and nothing that a doubling or two loses bits of."""
    if low == 0.0:
        return st.just(0.0) | st.floats(high * 1e-12, high)
    if low < 0.0:
        return number(0.0, high) | number(0.0, -low).map(neg)
    return st.floats(low, high)


def legs(element: st.SearchStrategy, dtype: Any = np.float64) -> st.SearchStrategy[np.ndarray]:
    """One of something for each leg."""
    return st.lists(element, min_size=N_LEGS, max_size=N_LEGS).map(lambda values: frozen(values, dtype))


def drawn(*groups: st.SearchStrategy[Arguments], **single: st.SearchStrategy) -> st.SearchStrategy[Arguments]:
    """Arguments by name: groups that belong together, and single ones."""
    parts = st.tuples(*groups, st.fixed_dictionaries(single))
    return parts.map(lambda dicts: {name: value for part in dicts for name, value in part.items()})


PRICE = number(1e-4, 1e5)
QUANTITY = number(0.0, 1e6)
SIGNED = number(-1e6, 1e6)
HELD = number(1e-3, 1e6) | number(1e-3, 1e6).map(neg)
USD = number(0.0, 1e8)
BPS = number(0.0, 500.0)
SHARE = number(0.0, 1.0)
SIDE = st.sampled_from([1.0, -1.0])
LEG = st.integers(0, N_LEGS - 1)
CODE = st.integers(0, 2**62)
RATE = number(1e-3, 0.4)

MOVE = ("price_from", "price_to", "reference_from", "reference_to")
NO_LOT = frozen(np.zeros(N_LEGS))
ZERO_BOOKS = st.just(frozen(np.zeros((N_LEGS, 16))))


@st.composite
def one_table(draw, *, has_amounts):
    """Tiers of one leg: rates that rise, padded with infinite floors; the amounts make it continuous."""
    n = draw(st.integers(1, N_TIERS))
    rates = sorted(draw(st.lists(RATE, min_size=n, max_size=n)))
    steps = draw(st.lists(number(1.5, 10.0), min_size=n, max_size=n))
    first = draw(number(100.0, 1e6))
    floor, mmr, amount = np.full(N_TIERS, np.inf), np.zeros(N_TIERS), np.zeros(N_TIERS)
    floor[:n] = [0.0, *(first * np.cumprod(steps))[: n - 1]]
    mmr[:n] = rates
    for k in range(1, n if has_amounts else 0):
        amount[k] = amount[k - 1] + floor[k] * (mmr[k] - mmr[k - 1])
    return floor, mmr, amount


def tiers(*, unit="usd", has_amounts=True):
    """Tiers of one leg by the names a kernel gives them."""
    names = (f"floor_{unit}", "mmr", f"amount_{unit}")
    return one_table(has_amounts=has_amounts).map(lambda t: dict(zip(names, map(frozen, t), strict=True)))


def tables(*, has_amounts=True):
    """Tiers of all legs, ``(n_legs, n_tiers)``."""
    each = st.lists(one_table(has_amounts=has_amounts), min_size=N_LEGS, max_size=N_LEGS)
    names = ("floor_usd", "mmr", "amount_usd")
    return each.map(lambda rows: dict(zip(names, map(frozen, zip(*rows, strict=True)), strict=True)))


@st.composite
def ladder(draw, *, first, name):
    """Steps of one leg that rise from a first one, the missing ones infinite."""
    n = draw(st.integers(1, N_TIERS))
    steps = draw(st.lists(number(1.5, 10.0), min_size=N_TIERS, max_size=N_TIERS))
    start = draw(number(100.0, 1e6))
    rest = [*(start * np.cumprod(steps))[: n - 1], *[np.inf] * (N_TIERS - n)]
    return {name: frozen([first, *rest])}


@st.composite
def at_a_step(draw, table, floors, name):
    """A table and an amount to look up in it, as often as not close to one of its steps."""
    found = draw(table)
    steps = [float(value) for value in found[floors].ravel() if 0.0 < value < math.inf]
    near = st.sampled_from(steps or [1e6]).flatmap(lambda step: st.floats(0.5 * step, 2.0 * step))
    return {**found, name: draw(USD | near)}


@st.composite
def bucket_table(draw):
    """Edges of a cost table and its bps, which rise with the size."""
    steps = draw(st.lists(number(1.5, 10.0), min_size=4, max_size=4))
    return {
        "edges_usd": frozen(draw(number(10.0, 1e4)) * np.cumprod(steps)),
        "table_bps": frozen(sorted(draw(st.lists(BPS, min_size=4, max_size=4)))),
    }


def wallet(*, has_amounts=True, margined=None):
    """A wallet over all legs, as ``margin.py`` describes it."""
    return drawn(
        tables(has_amounts=has_amounts),
        cash_usd=number(-1e8, 1e8),
        position_base=legs(SIGNED),
        weight=legs(st.sampled_from([0.0, 0.9, 1.0])),
        is_margined=legs(st.booleans() if margined is None else st.just(margined), np.bool_),
        notional_usd=legs(st.just(-1.0) | USD),
        price=legs(PRICE),
    )


@st.composite
def path(draw, *, is_bad=False):
    """A wallet on a path of prices; a bad one begins with a cushion that prices move against."""
    start = draw(wallet())
    price = start.pop("price")
    factor = draw(legs(number(1.0, 3.0)))
    if is_bad:
        start["notional_usd"] = frozen([-1.0] * N_LEGS)
        factor = np.where(start["position_base"] < 0.0, factor, 1.0 / factor)
        start["cash_usd"] = cushioned(start, price, draw(number(0.01, 0.2)))
    return {**start, "price_from": price, "price_to": frozen(price * factor if is_bad else draw(legs(PRICE)))}


def cushioned(a, price, share):
    """Cash that leaves a wallet a share of its positions above its maintenance."""
    bare = margin.wallet_surplus_usd(*in_order(margin.wallet_surplus_usd, {**a, "price": price, "cash_usd": 0.0}))
    return share * float((np.abs(a["position_base"]) * price).sum()) - bare


@st.composite
def book(draw, *, is_carried=False):
    """Two wallets over the same legs; carried ones have a cushion."""
    shared = draw(wallet())
    shared["weight"] = frozen([draw(legs(st.sampled_from([0.0, 0.9, 1.0]))) for _ in range(2)])
    shared["is_margined"] = frozen([draw(legs(st.booleans(), np.bool_)) for _ in range(2)], np.bool_)
    shared["cash_usd"] = frozen([draw(number(-1e8, 1e8)) for _ in range(2)])
    if is_carried:
        each = [cushioned(of_book(shared, k), shared["price"], draw(number(0.01, 0.2))) for k in range(2)]
        shared["cash_usd"] = frozen(each)
    return {**shared, "largest_factor": draw(st.sampled_from([1.5, 3.0, 100.0]))}


def of_book(a, k):
    """One wallet of a book."""
    return {name: value[k] if name in ("weight", "is_margined", "cash_usd") else value for name, value in a.items()}


# ----------------------------------------------------------------------------------------------------------- wording


def up(_: Arguments) -> float:
    """Rises with it."""
    return 1.0


def down(_: Arguments) -> float:
    """Falls with it."""
    return -1.0


def as_sign_of(name: str, factor: float = 1.0) -> Callable[[Arguments], float]:
    """Rises with it where another argument is above zero, falls where that is below."""
    return lambda a: factor * math.copysign(1.0, a[name])


def within(low: Any, high: Any) -> Callable[[Arguments], tuple]:
    """The same bounds for all arguments."""
    return lambda _: (low, high)


def elsewhere(leg: str = "leg", *, whole: int = 1) -> Callable[[Arguments], np.ndarray]:
    """All legs (rows of ``whole`` columns) but one."""
    return lambda a: np.repeat(np.arange(N_LEGS) != a[leg], whole).reshape((N_LEGS, whole) if whole > 1 else N_LEGS)


def never_at(value: float) -> Callable[[np.ndarray, Arguments], np.ndarray]:
    """A price that does not exist, seen as the end of the scale at which nothing is further away."""
    return lambda outcome, _: np.where(np.isnan(outcome), value, outcome)


def change_of(name: str) -> Callable[[np.ndarray, Arguments], np.ndarray]:
    """What was added to the books."""
    return lambda outcome, a: outcome - a[name].ravel()


def own_row(name: str, size: float) -> Callable[[Arguments], tuple[np.ndarray, np.ndarray]]:
    """Bounds by which only the row of a leg may change."""

    def bounds(a):
        room = np.zeros(a[name].shape)
        room[a["leg"]] = size
        return -room.ravel(), room.ravel()

    return bounds


def in_wallet(a: Arguments) -> np.ndarray:
    return (a["weight"] != 0.0) | a["is_margined"]


def money_at_stake(a: Arguments) -> float:
    """Scale of the sums in a wallet."""
    prices = [a[name] for name in ("price", "price_from", "price_to") if name in a]
    return float(np.abs(a["cash_usd"]).max() + sum((np.abs(a["position_base"]) * price).sum() for price in prices))


# ---------------------------------------------------------------------------------------------------- costs and fees

LOGS = 1e-12  # logarithms and powers are not exactly monotone in their last bit
BUCKETS = {"notional_usd": number(1.0, 1e9)}


def steepest_bucket(a):
    edges, bps = a["edges_usd"], a["table_bps"]
    return float((np.diff(bps) / np.diff(np.log(edges)) / edges[:-1]).max())


COSTS = [
    Model(kernel=costs.bucket_bps, arguments=drawn(bucket_table(), **BUCKETS), rounding=LOGS,
          monotone={"notional_usd": up, "table_bps": up},
          scales=((("table_bps",), 1), (("notional_usd", "edges_usd"), 0)),
          between=lambda a: (a["table_bps"][0], a["table_bps"][-1]),
          continuous={"notional_usd": lambda a: (a["edges_usd"], steepest_bucket(a))}),
    Model(kernel=costs.bucket_bps, case="without a table",
          arguments=drawn(**BUCKETS, edges_usd=st.just(frozen([])), table_bps=st.just(frozen([]))),
          between=within(0.0, 0.0)),
    Model(kernel=costs.impact_bps, rounding=LOGS,
          arguments=drawn(quantity_base=QUANTITY, volume_base=number(1e-3, 1e9), coef_bps=BPS,
                          exponent=st.sampled_from([0.5, 1.0, 1.5]) | number(0.1, 2.0)),
          size="quantity_base", zero_with=("coef_bps",),
          monotone={"quantity_base": up, "volume_base": down, "coef_bps": up},
          scales=((("coef_bps",), 1), (("quantity_base", "volume_base"), 0)),
          unrelated={name: lambda a: a["coef_bps"] == 0.0 for name in ("quantity_base", "volume_base", "exponent")}),
    Model(kernel=costs.fill_price,
          arguments=drawn(reference_price=PRICE, side=SIDE, cost_bps=number(0.0, 5e3)),
          monotone={"reference_price": up, "cost_bps": as_sign_of("side")}, scales=((("reference_price",), 1),),
          worse=("reference_price", 1)),
    Model(kernel=costs.fill_price, case="less its reference",
          arguments=drawn(reference_price=PRICE, side=SIDE, cost_bps=number(0.0, 5e3)),
          seen=lambda outcome, a: outcome - a["reference_price"],
          size="cost_bps", scales=((("reference_price",), 1),), mirrored=((("side",), -1.0),),
          rounding=1e-12, magnitude=lambda a: a["reference_price"]),  # the difference keeps the error of the price
    Model(kernel=costs.fee_usd,
          arguments=drawn(quantity_base=QUANTITY, price=PRICE, fee_bps=number(-50.0, 500.0)),
          size="quantity_base", zero_with=("price", "fee_bps"),
          monotone={"fee_bps": up, "quantity_base": as_sign_of("fee_bps"), "price": as_sign_of("fee_bps")},
          scales=((("quantity_base",), 1), (("price",), 1), (("fee_bps",), 1)), mirrored=((("fee_bps",), -1.0),)),
    Model(kernel=costs.cost_usd,
          arguments=drawn(quantity_base=QUANTITY, reference_price=PRICE, cost_bps=BPS),
          size="quantity_base", zero_with=("reference_price", "cost_bps"), between=within(0.0, math.inf),
          monotone={"quantity_base": up, "reference_price": up, "cost_bps": up},
          scales=((("quantity_base",), 1), (("reference_price",), 1), (("cost_bps",), 1))),
    Model(kernel=costs.delay_usd,
          arguments=drawn(side=SIDE, quantity_base=QUANTITY, arrival_price=PRICE, reference_price=PRICE),
          size="quantity_base",
          monotone={"reference_price": as_sign_of("side"), "arrival_price": as_sign_of("side", -1.0)},
          scales=((("quantity_base",), 1), (("arrival_price", "reference_price"), 1)), mirrored=((("side",), -1.0),)),
    Model(kernel=fees.tier_of_volume,
          arguments=at_a_step(ladder(first=0.0, name="tier_volume_usd"), "tier_volume_usd", "volume_usd"),
          zero_with=("volume_usd",), between=within(0.0, N_TIERS - 1.0),
          monotone={"volume_usd": up, "tier_volume_usd": down}, scales=((("volume_usd", "tier_volume_usd"), 0),),
          edges={"volume_usd": lambda a: (a["tier_volume_usd"][1:], 1)}),
]  # fmt: skip

# ------------------------------------------------------------------------------------------------------------- fills


def filled(function, a, **fill_params):
    """The share of a leg's order that bar 0 fills."""
    market = types.SimpleNamespace(volume=a["volume"].reshape(1, -1))
    own = {"volume_cap": 1.0, "fill_probability": 1.0, "reject_probability": 0.0, "seed": 1, "trial": 0}
    params = types.SimpleNamespace(**{**own, **{name: a[name] for name in own if name in a}, **fill_params})
    return function(0, a["leg"], a["quantity_base"], market, params)


def asked(function, a):
    """Whether a leg's order is refused."""
    return function(a["bar"], a["leg"], types.SimpleNamespace(**a))


def through(function, a):
    """Whether bar 0 trades through a limit on leg 0."""
    market = types.SimpleNamespace(low_price=frozen([[a["low_price"]]]), high_price=frozen([[a["high_price"]]]))
    return function(0, 0, a["price"], a["side"], market)


def cost_of_leg(a):
    """Costs of leg 0 alone, and its market."""
    return types.SimpleNamespace(
        half_spread_bps=[a["half_spread_bps"]], impact_coef_bps=[a["coef_bps"]], impact_exponent=0.5,
        bucket_row=[0], bucket_usd=a["edges_usd"].reshape(1, -1), bucket_bps=a["table_bps"].reshape(1, 1, -1),
        fee_bps=[a.get("fee_bps", 0.0)], base_fee_frac=[a.get("base_fee_frac", 0.0)],
    ), types.SimpleNamespace(volume_before=frozen([[a["volume_before"]]]))  # fmt: skip


def components(function, a):
    """Status and costs of an order on leg 0."""
    cost, market = cost_of_leg(a)
    return function(0, 0, a["quantity_base"], a["reference_price"], market, cost)


def taken(function, a):
    """A market order on leg 0: status and values."""
    cost, market = cost_of_leg(a)
    prices = a["arrival_price"], a["reference_price"]
    return function(0, 0, a["position_change_base"], *prices, a["penalty_bps"], a["share"], market, cost, a["values"])


def rested(function, a):
    """A limit order of a leg whose quantity is all traded, or a share of it."""
    prices = a["arrival_price"], a["limit"] * 1.001, a["limit"]
    return function(a["position_change_base"], *prices, a["share"], a["maker_fee_bps"], a["values"])


SHARE = number(0.3, 3.0)


MARKET_ORDER = drawn(bucket_table(), half_spread_bps=BPS, coef_bps=BPS, volume_before=number(1e-3, 1e9))
DEEP_ORDER = drawn(MARKET_ORDER, volume_before=number(1e8, 1e9))  # beyond 10,000 bps a sell has no price to charge on
TEN_VALUES = st.just(frozen(np.zeros(10)))
WHOLE_VALUES = st.lists(st.integers(-1000, 1000), min_size=10, max_size=10).map(frozen)
ONLY_DELAY_AND_FEE = np.array([math.inf, 0.0, 0.0, 0.0, math.inf])
WHOLE_BOOKS = st.integers(-1000, 1000).map(lambda n: frozen(np.arange(N_LEGS * 16.0).reshape(N_LEGS, 16) + n))

FILLS = [
    Model(kernel=fills.net_share, case="lost to the fee",
          arguments=drawn(direction=SIDE, ratio=legs(HELD), base_fee_frac=legs(number(0.0, 0.05))),
          seen=lambda outcome, _: 1.0 - outcome,
          size="base_fee_frac", monotone={"base_fee_frac": up}, mirrored=((("direction", "ratio"), 1.0),),
          between=lambda a: (0.0, a["base_fee_frac"].max()), scales=((("ratio",), 0),), rounding=1e-12,
          magnitude=up, unrelated={"base_fee_frac": lambda a: a["direction"] * a["ratio"] < 0.0}),
    Model(kernel=fills.gross_base,
          arguments=drawn(position_change_base=SIGNED, base_fee_frac=number(0.0, 0.05)),
          size="position_change_base", monotone={"base_fee_frac": up}, scales=((("position_change_base",), 1),),
          between=lambda a: (abs(a["position_change_base"]), math.inf),
          unrelated={"base_fee_frac": lambda a: a["position_change_base"] <= 0.0}),
    Model(kernel=fills.fill_fraction, case="by volume",
          arguments=drawn(leg=LEG, quantity_base=number(1e-3, 1e6), volume=legs(QUANTITY), volume_cap=SHARE),
          call=lambda function, a: filled(function, a, model=BY_VOLUME),
          between=lambda a: (0.0, min(1.0, a["volume_cap"] * a["volume"][a["leg"]] / a["quantity_base"])),
          zero_with=("volume", "volume_cap"), monotone={"volume": up, "volume_cap": up, "quantity_base": down},
          scales=((("volume", "quantity_base"), 0),), unrelated={"volume": elsewhere()}),
    Model(kernel=fills.fill_fraction, case="by chance",
          arguments=drawn(leg=LEG, quantity_base=number(1e-3, 1e6), volume=legs(QUANTITY), seed=CODE, trial=CODE,
                          fill_probability=SHARE, reject_probability=SHARE),
          call=lambda function, a: filled(function, a, model=BERNOULLI), between=within(0.0, 1.0),
          zero_with=("fill_probability",), monotone={"fill_probability": up, "reject_probability": down},
          unrelated={"volume": lambda a: np.full(N_LEGS, True), "quantity_base": lambda a: True}),
    Model(kernel=fills.is_rejected,
          arguments=drawn(bar=CODE, leg=LEG, seed=CODE, trial=CODE, reject_probability=SHARE), call=asked,
          zero_with=("reject_probability",), monotone={"reject_probability": up}, between=within(0.0, 1.0)),
    Model(kernel=fills.limit_price,
          arguments=drawn(arrival_price=PRICE, side=SIDE, offset_bps=number(0.0, 5e3)),
          monotone={"arrival_price": up, "offset_bps": as_sign_of("side", -1.0)}, scales=((("arrival_price",), 1),),
          worse=("arrival_price", -1)),
    Model(kernel=fills.is_traded_through,
          arguments=drawn(price=PRICE, side=SIDE, low_price=PRICE, high_price=PRICE), call=through,
          monotone={"price": as_sign_of("side"), "low_price": down, "high_price": up},
          scales=((("price", "low_price", "high_price"), 0),), between=within(0.0, 1.0),
          edges={"price": lambda a: ([a["low_price" if a["side"] > 0.0 else "high_price"]], -a["side"])},
          unrelated={"low_price": lambda a: a["side"] < 0.0, "high_price": lambda a: a["side"] > 0.0}),
    Model(kernel=fills.cost_components_bps, rounding=LOGS, call=components,
          arguments=drawn(MARKET_ORDER, quantity_base=QUANTITY, reference_price=PRICE),
          monotone={"quantity_base": up, "reference_price": up, "half_spread_bps": up, "coef_bps": up, "table_bps": up,
                    "volume_before": down},
          scales=((("half_spread_bps", "coef_bps", "table_bps"), 1),), between=within(0.0, math.inf)),
    Model(kernel=fills.take, case="in costs", call=taken, rounding=LOGS, writes=("values",),
          arguments=drawn(DEEP_ORDER, position_change_base=SIGNED, arrival_price=PRICE, reference_price=PRICE,
                          penalty_bps=BPS, fee_bps=BPS, base_fee_frac=number(0.0, 0.05), share=SHARE,
                          values=TEN_VALUES),
          seen=lambda outcome, _: outcome[[7, 8, 9]], size="position_change_base", between=within(0.0, math.inf),
          monotone={"half_spread_bps": up, "coef_bps": up, "table_bps": up, "penalty_bps": up, "volume_before": down},
          unrelated={"arrival_price": lambda a: True, "fee_bps": lambda a: True}),
    Model(kernel=fills.take, case="in fee", call=taken, rounding=LOGS, writes=("values",),
          arguments=drawn(DEEP_ORDER, position_change_base=SIGNED, arrival_price=PRICE, reference_price=PRICE,
                          penalty_bps=BPS, fee_bps=BPS, base_fee_frac=number(0.0, 0.05), share=SHARE,
                          values=TEN_VALUES),
          seen=lambda outcome, _: outcome[[10]], size="position_change_base", zero_with=("fee_bps",),
          monotone={"fee_bps": up, "penalty_bps": as_sign_of("position_change_base")}, scales=((("fee_bps",), 1),),
          unrelated={"arrival_price": lambda a: True, "base_fee_frac": lambda a: a["position_change_base"] <= 0.0}),
    Model(kernel=fills.take, case="in price", writes=("values",),
          arguments=drawn(DEEP_ORDER, side=SIDE, arrival_price=PRICE, reference_price=PRICE, penalty_bps=BPS,
                          share=number(0.3, 1.5), values=TEN_VALUES),
          call=lambda function, a: taken(function, {**a, "position_change_base": a["side"]}),
          seen=lambda outcome, _: outcome[[5]], worse=("reference_price", 1)),
    Model(kernel=fills.rest, writes=("values",), call=rested,
          arguments=drawn(position_change_base=SIGNED, arrival_price=PRICE, limit=PRICE, share=st.just(1.0),
                          maker_fee_bps=number(-50.0, 500.0), values=WHOLE_VALUES),
          seen=lambda outcome, _: outcome[5:], size="position_change_base", monotone={"maker_fee_bps": up},
          scales=((("position_change_base",), 1), (("arrival_price", "limit"), 1)),
          between=within(-ONLY_DELAY_AND_FEE, ONLY_DELAY_AND_FEE)),
    Model(kernel=fills.rest, case="in fee", writes=("values",), call=rested,
          arguments=drawn(position_change_base=SIGNED, arrival_price=PRICE, limit=PRICE, share=st.just(1.0),
                          maker_fee_bps=number(-50.0, 500.0), values=WHOLE_VALUES),
          seen=lambda outcome, _: outcome[[9]], size="position_change_base", zero_with=("maker_fee_bps", "limit"),
          scales=((("maker_fee_bps",), 1),), mirrored=((("maker_fee_bps",), -1.0), (("position_change_base",), 1.0)),
          unrelated={"arrival_price": lambda a: True}),
    Model(kernel=fills.book_costs, writes=("books",),  # whole numbers: sums are exact
          arguments=drawn(books=WHOLE_BOOKS, leg=LEG, values=WHOLE_VALUES),
          seen=change_of("books"), size="values", monotone={"values": up}, mirrored=((("values",), -1.0),),
          between=own_row("books", math.inf), scales=((("books", "values"), 1),),
          unrelated={"values": lambda a: np.arange(10) < 5}),
    Model(kernel=fills.move_to_rollback, writes=("books",),
          arguments=drawn(books=WHOLE_BOOKS, leg=LEG, values=WHOLE_VALUES, share=st.sampled_from([0.0, 0.25, 0.5])),
          seen=change_of("books"), size="share", zero_with=("values",), mirrored=((("values",), -1.0),),
          between=own_row("books", math.inf), scales=((("values",), 1),)),
    Model(kernel=fills.move_to_rollback, case="in total", writes=("books",),
          arguments=drawn(books=WHOLE_BOOKS, leg=LEG, values=WHOLE_VALUES, share=st.sampled_from([0.25, 0.5, 1.0])),
          seen=lambda outcome, a: outcome.sum(keepdims=True) - a["books"].sum(), between=within(0.0, 0.0)),
]  # fmt: skip

# ------------------------------------------------------------------------------------------------------------ margin

CROSSING = 1e-12  # two tiers give the same maintenance at their floor but for rounding
MAINTENANCE = {
    "size": "notional_usd",
    "monotone": {"notional_usd": up, "mmr": up, "amount_usd": down},
    "scales": ((("notional_usd", "floor_usd", "amount_usd"), 1), (("mmr", "amount_usd"), 1)),
    "rounding": CROSSING,
    "magnitude": lambda a: a["notional_usd"],
}


def highest_line(a):
    """With rates that rise and amounts that fit, maintenance is that of the tier that asks for most."""
    return float((a["notional_usd"] * a["mmr"] - a["amount_usd"]).max())


def of_own_row(a):
    """Maintenance by the table of the leg alone."""
    row = (frozen(a[name][a["leg"]]) for name in ("floor_usd", "mmr", "amount_usd"))
    return margin.maintenance_usd(a["notional_usd"], *row)


WALLET_MONEY = ("cash_usd", "position_base", "notional_usd", "floor_usd", "amount_usd")

MARGIN = [
    Model(kernel=margin.tier_of, arguments=at_a_step(ladder(first=0.0, name="floor_usd"), "floor_usd", "notional_usd"),
          zero_with=("notional_usd",), between=within(0.0, N_TIERS - 1.0),
          monotone={"notional_usd": up, "floor_usd": down}, scales=((("notional_usd", "floor_usd"), 0),),
          edges={"notional_usd": lambda a: (a["floor_usd"][1:], -1)}),
    Model(kernel=margin.maintenance_usd, case="with amounts", arguments=at_a_step(tiers(), "floor_usd", "notional_usd"),
          continuous={"notional_usd": lambda a: (a["floor_usd"], a["mmr"].max())},
          between=lambda a: (highest_line(a), a["notional_usd"]), **MAINTENANCE),
    Model(kernel=margin.maintenance_usd, case="with jumps",
          arguments=at_a_step(tiers(has_amounts=False), "floor_usd", "notional_usd"),
          between=lambda a: (a["mmr"][0] * a["notional_usd"], a["mmr"].max() * a["notional_usd"]), **MAINTENANCE),
    Model(kernel=margin.maintenance_of_leg_usd,
          arguments=drawn(at_a_step(tables(), "floor_usd", "notional_usd"), leg=LEG),
          continuous={"notional_usd": lambda a: (a["floor_usd"][a["leg"]], a["mmr"][a["leg"]].max())},
          unrelated={name: elsewhere(whole=N_TIERS) for name in ("floor_usd", "mmr", "amount_usd")},
          between=lambda a: (of_own_row(a),) * 2, **MAINTENANCE),
    Model(kernel=margin.notional_at_usd, case="that follows the price",
          arguments=drawn(position_base=SIGNED, price=PRICE, notional_usd=st.just(-1.0)),
          size="position_base", zero_with=("price",), mirrored=((("position_base",), 1.0),), monotone={"price": up},
          scales=((("position_base",), 1), (("price",), 1)), between=within(0.0, math.inf)),
    Model(kernel=margin.notional_at_usd, case="that is fixed",
          arguments=drawn(position_base=SIGNED, price=PRICE, notional_usd=USD), size="notional_usd",
          scales=((("notional_usd",), 1),), unrelated={"position_base": lambda a: True, "price": lambda a: True}),
    Model(kernel=margin.initial_margin_usd,
          arguments=drawn(at_a_step(ladder(first=0.0, name="floor_usd"), "floor_usd", "notional_usd"),
                          leverage=number(1.0, 125.0),
                          max_leverage=st.lists(number(1.0, 125.0), min_size=N_TIERS, max_size=N_TIERS).map(
                              lambda values: frozen(sorted(values, reverse=True)))),
          size="notional_usd", monotone={"notional_usd": up, "leverage": down, "max_leverage": down},
          scales=((("notional_usd", "floor_usd"), 1),),
          between=lambda a: (a["notional_usd"] / a["leverage"], a["notional_usd"])),
    Model(kernel=margin.wallet_equity_usd,
          arguments=wallet().map(lambda a: {n: a[n] for n in ("cash_usd", "position_base", "weight", "price")}),
          monotone={"cash_usd": up, "position_base": up}, mirrored=((("cash_usd", "position_base"), -1.0),),
          scales=((("cash_usd", "position_base"), 1), (("cash_usd", "price"), 1), (("cash_usd", "weight"), 1)),
          unrelated={name: lambda a: a["weight"] == 0.0 for name in ("position_base", "price")}),
    Model(kernel=margin.wallet_maintenance_usd, arguments=wallet(), rounding=CROSSING, magnitude=money_at_stake,
          monotone={"price": up, "mmr": up, "amount_usd": down}, mirrored=((("position_base",), 1.0),),
          scales=((WALLET_MONEY[1:], 1), (("price", "notional_usd", "floor_usd", "amount_usd"), 1)),
          between=within(0.0, math.inf),
          unrelated={name: lambda a: ~a["is_margined"] for name in ("position_base", "price", "notional_usd")}),
    Model(kernel=margin.wallet_maintenance_usd, case="of positions at their price", rounding=CROSSING,
          magnitude=money_at_stake, arguments=wallet(margined=True).map(
              lambda a: {**a, "notional_usd": frozen([-1.0] * N_LEGS)}),
          size="position_base", zero_with=("price",)),
    Model(kernel=margin.wallet_surplus_usd, arguments=wallet(), rounding=CROSSING, magnitude=money_at_stake,
          monotone={"cash_usd": up, "mmr": down, "amount_usd": up},
          scales=((WALLET_MONEY, 1), (("cash_usd", "price", "notional_usd", "floor_usd", "amount_usd"), 1)),
          unrelated={name: lambda a: ~in_wallet(a) for name in ("position_base", "price", "notional_usd")}),
]  # fmt: skip

# ------------------------------------------------------------------------------------------------------- liquidation

ROOT = 1e-9  # a price is the quotient of differences; where they cancel it keeps the error of the prices it came from
NEVER = "no price does it: NaN, or the end of the scale"
LINEAR_USD = ("wallet_balance_usd", "other_maintenance_usd", "other_pnl_usd", "floor_usd", "amount_usd")
INVERSE_COIN = ("wallet_balance_coin", "other_maintenance_coin", "other_pnl_coin", "floor_coin", "amount_coin")


def tested_as_usual(kernel, single, *, name, direction, has_amounts):
    """A liquidation price of one side: more balance moves it away, more maintenance brings it nearer."""
    unit = "usd" if kernel is liquidation.liquidation_price_linear else "coin"
    money = LINEAR_USD if unit == "usd" else INVERSE_COIN
    away, near = (down, up) if direction > 0 else (up, down)
    never = {"usd": 0.0, "coin": 0.0 if direction > 0 else math.inf}[unit]
    own, price_scale = (("quantity_base",), ("entry_price", *money))
    if unit == "coin":
        own, price_scale = ("contracts",), ("face_usd", "entry_price")
    return Model(
        kernel=kernel, case=f"of a {name}, {'amounts' if has_amounts else 'jumps'}", undefined=NEVER,
        arguments=drawn(tiers(unit=unit, has_amounts=has_amounts), **single, entry_price=PRICE), seen=never_at(never),
        monotone={money[0]: away, money[1]: near, money[2]: away, "mmr": near, money[4]: away},
        scales=((price_scale, 1), ((*own, *money), 0)), between=within(0.0, math.inf), rounding=ROOT,
        magnitude=lambda a: a["entry_price"],
    )  # fmt: skip


def both_ways():
    """Linear and inverse, long and short, continuous and with jumps."""
    for name, direction in (("long", 1), ("short", -1)):
        signed = number(1e-2, 1e3).map(lambda value, direction=direction: direction * value)
        for has_amounts in (True, False):
            linear = {"quantity_base": signed, "wallet_balance_usd": number(0.0, 1e6),
                      "other_maintenance_usd": number(0.0, 1e4), "other_pnl_usd": number(-1e4, 1e4)}  # fmt: skip
            inverse = {"contracts": signed, "face_usd": st.sampled_from([10.0, 100.0]),
                       "wallet_balance_coin": number(0.0, 1e3), "other_maintenance_coin": number(0.0, 10.0),
                       "other_pnl_coin": number(-10.0, 10.0)}  # fmt: skip
            for kernel, single in ((liquidation.liquidation_price_linear, linear),
                                   (liquidation.liquidation_price_inverse, inverse)):  # fmt: skip
                yield tested_as_usual(kernel, single, name=name, direction=direction, has_amounts=has_amounts)


def room(outcome, _):
    """How far the prices of each wallet may fall and rise, never being the furthest; falling as minus the factor."""
    falling, rising = outcome.reshape(-1, 2).T
    sides = np.where(np.isnan(falling), -0.0, -falling), np.where(np.isnan(rising), math.inf, rising)
    return np.stack(sides, axis=1).ravel()


def surplus_there(outcome, a):
    """Surplus of a wallet where its path crosses; with tiers that do not jump it is zero, and zero where none is."""
    if not 0.0 < outcome[0] < 1.0:
        return [0.0]
    there = {**a, "price": frozen(a["price_from"] + outcome[0] * (a["price_to"] - a["price_from"]))}
    return [margin.wallet_surplus_usd(*in_order(margin.wallet_surplus_usd, there))]


def surplus_at_factors(outcome, a):
    """Surplus of each wallet of a book at the factors at which it dies; zero where it does not, or is dead already."""
    left = []
    for k, factors in enumerate(outcome.reshape(-1, 2)):
        for factor in factors:
            is_met = math.isfinite(factor) and factor not in (0.0, 1.0, a["largest_factor"])
            there = {**of_book(a, k), "price": frozen(a["price"] * factor)}
            left.append(margin.wallet_surplus_usd(*in_order(margin.wallet_surplus_usd, there)) if is_met else 0.0)
    return left


def stretched(a):
    """Scale of the sums in a book with its prices at their highest."""
    return money_at_stake(a) * a["largest_factor"]


OF_QUANTITY = {"quantity_base": HELD, "entry_price": PRICE}
nearer_with, further_with = as_sign_of("quantity_base"), as_sign_of("quantity_base", -1.0)

LIQUIDATION = [
    *both_ways(),
    Model(kernel=liquidation.bankruptcy_price_linear, undefined=NEVER, seen=never_at(0.0), between=within(0, math.inf),
          arguments=drawn(**OF_QUANTITY, wallet_balance_usd=USD),
          monotone={"wallet_balance_usd": further_with, "entry_price": up},
          scales=((("entry_price", "wallet_balance_usd"), 1), (("quantity_base", "wallet_balance_usd"), 0))),
    Model(kernel=liquidation.bankruptcy_price_inverse, undefined=NEVER, seen=never_at(math.inf),
          arguments=drawn(contracts=HELD, face_usd=number(1.0, 100.0), entry_price=PRICE,
                          wallet_balance_coin=number(0.0, 1e4)),
          monotone={"wallet_balance_coin": as_sign_of("contracts", -1.0), "entry_price": up},
          scales=((("face_usd", "entry_price"), 1), (("contracts", "wallet_balance_coin"), 0)),
          between=within(0.0, math.inf)),
    Model(kernel=liquidation.okx_liquidation_price, undefined=NEVER, seen=never_at(0.0), between=within(0, math.inf),
          arguments=drawn(**OF_QUANTITY, margin_usd=USD, mmr=RATE, taker_fee_frac=number(0.0, 0.01)),
          monotone={"margin_usd": further_with, "mmr": nearer_with, "taker_fee_frac": nearer_with},
          scales=((("entry_price", "margin_usd"), 1), (("quantity_base", "margin_usd"), 0))),
    Model(kernel=liquidation.bybit_liquidation_price_linear, undefined=NEVER, seen=never_at(0.0),
          between=within(0.0, math.inf),
          arguments=drawn(**OF_QUANTITY, initial_usd=USD, maintenance_at_entry_usd=USD, added_usd=USD),
          monotone={"initial_usd": further_with, "added_usd": further_with, "maintenance_at_entry_usd": nearer_with},
          scales=((("entry_price", "initial_usd", "maintenance_at_entry_usd", "added_usd"), 1),
                  (("quantity_base", "initial_usd", "maintenance_at_entry_usd", "added_usd"), 0))),
    Model(kernel=liquidation.bybit_liquidation_price_inverse, undefined=NEVER, seen=never_at(math.inf),
          between=within(0.0, math.inf),
          arguments=drawn(contracts_usd=HELD, entry_price=PRICE, initial_coin=number(10.0, 1e3),
                          maintenance_at_entry_coin=number(0.0, 10.0)),
          monotone={"initial_coin": as_sign_of("contracts_usd", -1.0),
                    "maintenance_at_entry_coin": as_sign_of("contracts_usd")},
          scales=((("contracts_usd", "initial_coin", "maintenance_at_entry_coin"), 0),)),
    Model(kernel=liquidation.hyperliquid_liquidation_price, undefined=NEVER, seen=never_at(0.0),
          between=within(0.0, math.inf), rounding=ROOT, magnitude=lambda a: a["price"],
          arguments=drawn(quantity_base=HELD, price=PRICE, account_value_usd=USD, max_leverage=number(1.0, 50.0)),
          monotone={"account_value_usd": further_with, "max_leverage": further_with},
          scales=((("price", "account_value_usd"), 1), (("quantity_base", "account_value_usd"), 0))),
    Model(kernel=liquidation.path_crossing, arguments=path(), between=within(0.0, 2.0), rounding=ROOT, magnitude=up,
          seen=lambda outcome, _: np.where(outcome == -1.0, 2.0, outcome),  # never: beyond the end of the path
          scales=((WALLET_MONEY, 0),
                  (("cash_usd", "price_from", "price_to", "notional_usd", "floor_usd", "amount_usd"), 0)),
          unrelated={name: lambda a: ~in_wallet(a) for name in ("position_base", "price_from", "price_to")}),
    Model(kernel=liquidation.path_crossing, case="by its money", arguments=path() | path(is_bad=True),
          seen=lambda outcome, _: np.where(outcome == -1.0, 2.0, outcome), rounding=ROOT, magnitude=up,
          monotone={"cash_usd": up, "mmr": down, "amount_usd": up}),
    Model(kernel=liquidation.path_crossing, case="in what is left there", arguments=path(is_bad=True),
          seen=surplus_there, between=within(0.0, 0.0), rounding=ROOT, magnitude=money_at_stake),
    Model(kernel=liquidation.liquidation_loss, arguments=drawn(equity_usd=USD, notional_usd=USD, fee_frac=SHARE),
          size="notional_usd", zero_with=("fee_frac",), between=within(0.0, math.inf),
          monotone={"equity_usd": down, "notional_usd": up, "fee_frac": up},
          scales=((("equity_usd", "notional_usd"), 1),)),
    Model(kernel=liquidation.liquidation_loss, case="in what is left",
          arguments=drawn(equity_usd=number(-1e8, 1e8), notional_usd=USD, fee_frac=SHARE),
          seen=lambda outcome, a: [a["equity_usd"] - outcome[0] + outcome[1]],
          between=lambda a: (0.0, max(a["equity_usd"], 0.0)), monotone={"equity_usd": up, "fee_frac": down},
          rounding=1e-12, magnitude=lambda a: abs(a["equity_usd"]) + a["notional_usd"]),  # a sum that comes back
    Model(kernel=liquidation.stress_factors, arguments=book(), undefined=NEVER, rounding=ROOT, magnitude=up,
          seen=room, monotone={"cash_usd": up, "mmr": down}, scales=((WALLET_MONEY, 0),),
          between=within(np.array([-1.0, 1.0] * 2), np.array([0.0, math.inf] * 2))),
    Model(kernel=liquidation.stress_factors, case="in what is left there", undefined=NEVER, seen=surplus_at_factors,
          arguments=book(is_carried=True), between=within(0.0, 0.0), rounding=ROOT, magnitude=stretched),
]  # fmt: skip

# ------------------------------------------------------------------------------- funding, borrow, loans and the books


def worth_of_loan(a):
    """What the legs of a loan are worth together."""
    return float((a["held_base"] * a["price"])[a["loan_of"] == a["loan"]].sum())


FUNDING_AND_LOANS = [
    Model(kernel=funding.funding_usd,
          arguments=drawn(position_base=SIGNED, mark_price=PRICE, funding_rate=number(-0.03, 0.03)),
          size="position_base", zero_with=("mark_price", "funding_rate"),
          monotone={"funding_rate": as_sign_of("position_base", -1.0)},
          scales=((("position_base",), 1), (("mark_price",), 1), (("funding_rate",), 1)),
          mirrored=((("position_base",), -1.0), (("funding_rate",), -1.0))),
    Model(kernel=contracts.charged_hours,
          arguments=drawn(hours=number(0.0, 1e4), period_hours=st.sampled_from([1.0, 4.0, 24.0]) | number(0.1, 48.0),
                          opening_periods=st.sampled_from([0.0, 1.0])),
          size="hours", monotone={"hours": up, "opening_periods": up}, scales=((("hours", "period_hours"), 1),),
          between=lambda a: (a["hours"] - 1e-9 * a["period_hours"], a["hours"] + (1.0 + a["opening_periods"])
                             * a["period_hours"] if a["hours"] else 0.0), rounding=1e-12,
          edges={"hours": lambda a: (a["period_hours"] * np.arange(1.0, 4.0), -1)}),
    Model(kernel=contracts.charged_hours, case="of a first hour",
          arguments=drawn(hours=number(1e-3, 0.9), period_hours=number(1.0, 48.0),
                          opening_periods=st.sampled_from([0.0, 1.0])),
          between=lambda a: (a["period_hours"] * (1.0 + a["opening_periods"]),) * 2,
          unrelated={"hours": lambda a: True}),
    Model(kernel=loans.loan_value,
          arguments=drawn(loan=st.integers(0, 1), price=legs(PRICE), held_base=legs(SIGNED),
                          loan_of=legs(st.integers(-1, 1), np.int64)),
          size="held_base", zero_with=("price",), monotone={"price": up}, between=within(0.0, math.inf),
          scales=((("price",), 1), (("held_base",), 1)),
          unrelated={name: lambda a: a["loan_of"] != a["loan"] for name in ("price", "held_base")}),
    Model(kernel=loans.loan_value, case="net of debt",
          arguments=drawn(loan=st.integers(0, 1), price=legs(PRICE), held_base=legs(SIGNED),
                          loan_of=legs(st.integers(-1, 1), np.int64)),
          seen=lambda outcome, _: outcome[[0]] - outcome[1], between=lambda a: (worth_of_loan(a),) * 2,
          monotone={"held_base": up}, mirrored=((("held_base",), -1.0),), rounding=1e-12,  # two sums in two orders
          magnitude=lambda a: float((np.abs(a["held_base"]) * a["price"]).sum())),
    Model(kernel=loans.health, arguments=drawn(collateral_usd=USD, debt_usd=number(1.0, 1e8), threshold=SHARE),
          size="collateral_usd", zero_with=("threshold",), between=within(0.0, math.inf),
          monotone={"collateral_usd": up, "debt_usd": down, "threshold": up},
          scales=((("collateral_usd",), 1), (("threshold",), 1), (("collateral_usd", "debt_usd"), 0))),
    Model(kernel=loans.health, case="without a debt", undefined="infinite: nothing is owed",
          arguments=drawn(collateral_usd=USD, debt_usd=st.just(0.0), threshold=SHARE),
          between=within(math.inf, math.inf)),
    Model(kernel=loans.repaid_share,
          arguments=drawn(collateral_usd=number(0.0, 1e4), debt_usd=number(0.0, 1e4), threshold=SHARE),
          monotone={"collateral_usd": down, "threshold": down}, between=within(0.5, 1.0),
          edges={"collateral_usd": lambda a: ([loans.CLOSE_ALL_UNDER_USD], 1)}),
    Model(kernel=loans.repaid_share, case="of a loan of just the size",
          arguments=drawn(collateral_usd=number(1_900.0, 2_100.0), debt_usd=number(1_900.0, 2_100.0),
                          threshold=st.just(1.0)),
          monotone={"collateral_usd": down}, between=within(0.5, 1.0),
          edges={name: lambda a: ([loans.CLOSE_ALL_UNDER_USD], 1) for name in ("collateral_usd", "debt_usd")}),
    Model(kernel=loans.repaid_share, case="of a loan just under water",
          arguments=drawn(collateral_usd=number(4_200.0, 1e6), threshold=number(0.5, 0.9), health=number(0.951, 0.999)),
          call=lambda function, a: function(a["collateral_usd"], a["collateral_usd"] * a["threshold"] / a["health"],
                                            a["threshold"]), between=within(0.5, 0.5)),
    Model(kernel=books.book_price_move, writes=("books",), seen=change_of("books"),
          arguments=drawn(books=ZERO_BOOKS, leg=LEG, quantity_base=SIGNED, price_from=PRICE, price_to=PRICE,
                          reference_from=PRICE, reference_to=PRICE),
          size="quantity_base", mirrored=((("quantity_base",), -1.0),), between=own_row("books", math.inf),
          scales=((("quantity_base",), 1), (("price_from", "price_to", "reference_from", "reference_to"), 1))),
    Model(kernel=books.book_price_move, case="in total", writes=("books",),
          seen=lambda outcome, _: outcome.sum(keepdims=True), rounding=1e-9,  # prices cancel in their difference
          magnitude=lambda a: abs(a["quantity_base"]) * max(a[name] for name in MOVE),
          arguments=drawn(books=ZERO_BOOKS, leg=LEG, quantity_base=SIGNED, price_from=PRICE, price_to=PRICE,
                          reference_from=PRICE, reference_to=PRICE),
          monotone={"price_to": as_sign_of("quantity_base"), "price_from": as_sign_of("quantity_base", -1.0)},
          unrelated={"reference_from": lambda a: True, "reference_to": lambda a: True, "leg": lambda a: True}),
    Model(kernel=books.equity_usd, arguments=drawn(cash_usd=SIGNED, position_base=legs(SIGNED), price=legs(PRICE)),
          monotone={"cash_usd": up, "position_base": up}, mirrored=((("cash_usd", "position_base"), -1.0),),
          scales=((("cash_usd", "position_base"), 1), (("cash_usd", "price"), 1)),
          unrelated={"price": lambda a: a["position_base"] == 0.0}),
    Model(kernel=books.gross_notional_usd, arguments=drawn(position_base=legs(SIGNED), price=legs(PRICE)),
          size="position_base", zero_with=("price",), monotone={"price": up}, mirrored=((("position_base",), 1.0),),
          scales=((("position_base",), 1), (("price",), 1)), between=within(0.0, math.inf)),
]  # fmt: skip

# --------------------------------------------------------------------------------------------- sizing, rule and draws

LOT = st.sampled_from([0.0, 0.001, 0.5, 1.0]) | number(0.0, 10.0)
COMBO = {"ratio": legs(HELD), "price": legs(PRICE), "margin_weight": legs(number(0.05, 1.0))}
RULE = {"entry": number(0.01, 2.0), "exit": number(-2.0, 2.0), "min_hold_bars": st.integers(0, 20),
        "max_hold_bars": st.integers(-1, 40), "stop_loss_pct": st.just(math.nan) | number(0.1, 99.0)}  # fmt: skip


def sized(function, a):
    """A rule that takes the size parameters last."""
    own = {"capital_usd": 1e6, "allocation": 1.0, "compounding": True, "lot": 0.0, "lot_usd": NO_LOT,
           "min_notional_usd": NO_LOT}  # fmt: skip
    size = SizeParams(**{name: a.get(name, value) for name, value in own.items()})
    return function(*(a[name] for name in ("equity_usd", "ratio", "price", "margin_weight") if name in a), size)


def affordable(a):
    """Units of combo that the equity pays for."""
    return a["equity_usd"] / float((np.abs(a["ratio"]) * a["price"] * a["margin_weight"]).sum())


def largest_lot(a):
    """The largest of the lots, those in dollars at their prices."""
    return max(a["lot"], *(a["lot_usd"] / (np.abs(a["ratio"]) * a["price"])))


def worth(function, a):
    """What a wallet is worth, from an account of positions and cash."""
    held = np.zeros((HELD_ROW + 1, N_LEGS))
    held[HELD_ROW] = a["held_base"]
    account = types.SimpleNamespace(legs=held, wallet_cash_usd=a["wallet_cash_usd"], wallet_of=a["wallet_of"])
    return function(a["wallet"], account, a["price"])


def ruled(function, a):
    """A rule of entry or exit that takes its parameters last."""
    own = {"entry": 0.1, "exit": 0.0, "reverse": False, "min_hold_bars": 0, "max_hold_bars": -1, "cooldown_bars": 0,
           "stop_loss_pct": math.nan, "max_basis_bps": math.nan}  # fmt: skip
    params = RuleParams(**{name: a.get(name, value) for name, value in own.items()})
    names = ("signal", "direction", "held_bars", "equity_before_usd", "entry_equity_usd")
    return function(*(a[name] for name in names if name in a), params)


HOLDING = drawn(
    signal=number(-3.0, 3.0), direction=st.sampled_from([1, -1]), held_bars=st.integers(0, 50), **RULE,
    equity_before_usd=number(0.0, 1e6), entry_equity_usd=number(1.0, 1e6),
)  # fmt: skip


def leaves(outcome, _):
    """Whether there is a reason to leave."""
    return outcome != rule.HOLD


def calm(a):
    """A position whose equity is that of its entry, so that nothing stops it."""
    return {**a, "equity_before_usd": a["entry_equity_usd"]}


DECISIONS = [
    Model(kernel=sizing.floor_to_lot, arguments=drawn(quantity=QUANTITY, lot=LOT), size="quantity",
          monotone={"quantity": up}, scales=((("quantity", "lot"), 1),), rounding=1e-12,
          between=lambda a: (a["quantity"] - a["lot"], a["quantity"] + 1e-9 * a["lot"])),
    Model(kernel=sizing.capital_per_combo_usd, arguments=drawn(**COMBO), size="ratio",
          zero_with=("price", "margin_weight"), monotone={"price": up, "margin_weight": up},
          mirrored=((("ratio",), 1.0), (("margin_weight",), -1.0)), between=within(0.0, math.inf),
          scales=((("ratio",), 1), (("price",), 1), (("margin_weight",), 1))),
    Model(kernel=sizing.is_capital, arguments=drawn(equity_usd=number(-1e3, 1e3), capital_usd=number(1e9, 1e12)),
          call=sized, monotone={"equity_usd": up, "capital_usd": down}, scales=((("equity_usd", "capital_usd"), 0),),
          zero_with=("equity_usd",), edges={"equity_usd": lambda a: ([sizing.DUST_FRAC * a["capital_usd"]], -1)}),
    Model(kernel=sizing.combo_quantity,
          arguments=drawn(equity_usd=number(-1e3, 1e8), allocation=number(0.0, 2.0), lot=LOT, **COMBO), call=sized,
          monotone={"equity_usd": up, "allocation": up, "price": down, "margin_weight": down},
          zero_with=("equity_usd", "allocation"), scales=((("equity_usd", "price"), 0), (("equity_usd", "lot"), 1)),
          mirrored=((("ratio",), 1.0),), between=within(0.0, math.inf)),
    Model(kernel=sizing.combo_quantity, case="of contracts of dollars", call=sized,
          arguments=drawn(equity_usd=number(1.0, 1e8), lot=LOT, lot_usd=legs(LOT), **COMBO),
          monotone={"equity_usd": up}, mirrored=((("ratio",), 1.0),), rounding=1e-12,
          scales=((("equity_usd", "price", "lot_usd"), 0), (("equity_usd", "lot", "lot_usd"), 1)),
          between=lambda a: (0.0, affordable(a) + 1e-9 * largest_lot(a))),
    Model(kernel=sizing.combo_quantity, case="less whole lots", call=sized,
          arguments=drawn(equity_usd=number(1.0, 1e6), lot=number(0.1, 10.0), lot_usd=legs(number(1.0, 1e3)), **COMBO),
          seen=lambda outcome, a: outcome - largest_lot(a) * np.round(outcome / largest_lot(a)), rounding=1e-12,
          between=within(0.0, 0.0), magnitude=affordable),
    Model(kernel=sizing.combo_quantity, case="paid for by loans",
          arguments=drawn(equity_usd=USD, lot=LOT, ratio=legs(HELD), price=legs(PRICE),
                          margin_weight=legs(number(-1.0, 0.0))), call=sized, between=within(0.0, 0.0)),
    Model(kernel=sizing.meets_minimums,
          arguments=drawn(quantity=number(0.5, 10.0), ratio=legs(number(0.1, 10.0) | number(0.1, 10.0).map(neg)),
                          price=legs(number(1.0, 10.0)), min_notional_usd=legs(st.sampled_from([0.1, 1.0, 10.0, 1e3]))),
          size="quantity", zero_with=("ratio",), monotone={"quantity": up, "price": up, "min_notional_usd": down},
          mirrored=((("ratio",), 1.0),), scales=((("quantity", "min_notional_usd"), 0),),
          between=lambda a: (
              float((a["quantity"] * np.abs(a["ratio"]) * a["price"] >= a["min_notional_usd"]).all()),) * 2),
    Model(kernel=wallets.wallet_target_usd,
          arguments=drawn(wallet=st.integers(0, 1), equity_usd=SIGNED, **COMBO,
                          wallet_of=legs(st.integers(0, 1), np.int64)),
          size="equity_usd", mirrored=((("equity_usd",), -1.0), (("ratio",), 1.0)), rounding=1e-12,
          scales=((("equity_usd",), 1), (("ratio",), 0), (("price",), 0), (("margin_weight",), 0)),
          between=lambda a: (min(a["equity_usd"], 0.0), max(a["equity_usd"], 0.0))),
    Model(kernel=wallets.worth_usd, call=worth,
          arguments=drawn(wallet=st.integers(0, 1), price=legs(PRICE), held_base=legs(SIGNED),
                          wallet_cash_usd=st.lists(SIGNED, min_size=2, max_size=2).map(frozen),
                          wallet_of=legs(st.integers(0, 1), np.int64)),
          monotone={"held_base": up, "wallet_cash_usd": up}, mirrored=((("held_base", "wallet_cash_usd"), -1.0),),
          scales=((("held_base", "wallet_cash_usd"), 1), (("price", "wallet_cash_usd"), 1)),
          unrelated={**{name: lambda a: a["wallet_of"] != a["wallet"] for name in ("held_base", "price")},
                     "wallet_cash_usd": lambda a: np.arange(2) != a["wallet"]}),
    Model(kernel=rule.entry_direction, arguments=drawn(signal=number(-3.0, 3.0), entry=number(-2.0, 2.0)), call=ruled,
          monotone={"signal": up, "entry": down}, between=within(0.0, 1.0),
          edges={"signal": lambda a: ([a["entry"]], 1)}),
    Model(kernel=rule.entry_direction, case="both ways", call=ruled,
          arguments=drawn(signal=number(-3.0, 3.0), entry=number(0.01, 2.0), reverse=st.just(True)), size="signal",
          monotone={"signal": up}, mirrored=((("signal",), -1.0),), between=within(-1.0, 1.0),
          edges={"signal": lambda a: ([a["entry"]], 1)}),
    Model(kernel=rule.entry_direction, case="without a signal", call=ruled,
          arguments=drawn(signal=st.just(math.nan), entry=number(-2.0, 2.0)), between=within(0.0, 0.0)),
    Model(kernel=rule.is_stopped,
          arguments=drawn(equity_before_usd=number(0.0, 1e6), entry_equity_usd=number(1.0, 1e6),
                          stop_loss_pct=number(0.0, 100.0)),
          monotone={"equity_before_usd": down, "entry_equity_usd": up, "stop_loss_pct": down},
          scales=((("equity_before_usd", "entry_equity_usd"), 0),), between=within(0.0, 1.0),
          edges={"equity_before_usd": lambda a: ([a["entry_equity_usd"] * (1.0 - a["stop_loss_pct"] / 100.0)], -1)}),
    Model(kernel=rule.is_stopped, case="without a stop",
          arguments=drawn(equity_before_usd=SIGNED, entry_equity_usd=SIGNED, stop_loss_pct=st.just(math.nan)),
          between=within(0.0, 0.0)),
    Model(kernel=rule.exit_reason, arguments=HOLDING, call=ruled, seen=leaves, between=within(0.0, 1.0),
          monotone={"signal": as_sign_of("direction", -1.0), "held_bars": up, "equity_before_usd": down,
                    "min_hold_bars": down, "exit": up}, mirrored=((("signal", "direction"), 1.0),),
          scales=((("equity_before_usd", "entry_equity_usd"), 0), (("signal", "exit"), 0)),
          edges={"signal": lambda a: ([a["direction"] * a["exit"]], -a["direction"])},
          unrelated={"entry": lambda a: True}),
    Model(kernel=rule.exit_reason, case="when all is lost", call=ruled,
          arguments=HOLDING.map(lambda a: {**a, "equity_before_usd": 0.0, "stop_loss_pct": 50.0}),
          between=within(float(STOP), float(STOP))),
    Model(kernel=rule.exit_reason, case="without a signal", call=ruled,
          arguments=HOLDING.map(lambda a: calm({**a, "signal": math.nan, "max_hold_bars": -1})),
          between=within(float(rule.HOLD), float(rule.HOLD))),
    Model(kernel=draws.mix, arguments=drawn(value=st.integers(0, 2**64 - 1).map(np.uint64)),
          between=within(0.0, 2.0**64), differs_with=("value",)),
    Model(kernel=draws.uniform, arguments=drawn(seed=CODE, trial=CODE, bar=CODE, leg=CODE, stream=CODE),
          between=within(0.0, 1.0 - 2.0**-53), differs_with=("seed", "trial", "bar", "leg", "stream")),
]  # fmt: skip

MODELS: list[Model] = [*COSTS, *FILLS, *MARGIN, *LIQUIDATION, *FUNDING_AND_LOANS, *DECISIONS]

# -------------------------------------------------------------------------------------------------------- what is not

MODULES = ("books", "contracts", "costs", "draws", "fees", "fills", "funding", "liquidation", "loans", "margin", "rule",
           "sizing", "wallets")  # fmt: skip
MOVES = "moves a trial's account; the oracle tests compare every combination of it"
WRITES = "writes the fees of a bar into the trial's own copy of the costs; test_rulebook and the oracle tests"
READS = "a look-up in the state of a trial, no amount of its own"
NOT_MODELS = {
    "contracts": dict.fromkeys(
        ("accrue_borrow", "accrue_cash", "accrue_fx", "accrue_growth", "count_turnover", "follow", "refresh_margin",
         "revalue_face", "traded_frac"), MOVES),
    "fees": dict.fromkeys(("set_fee", "set_fees", "with_own_costs"), WRITES),
    "fills": {"order_cost_bps": "cost_components_bps of bare numbers", "take_leg": "take of bare numbers"},
    "loans": dict.fromkeys(("check_loans", "liquidate_loan"), MOVES),
    "wallets": {**dict.fromkeys(("pay", "plan_transfers", "receive", "send_queued", "split"), MOVES),
                **dict.fromkeys(("first_leg", "is_settled"), READS)},
}  # fmt: skip
OTHER_MODULES = {
    "_jit": "how kernels are compiled",
    "decisions": MOVES,
    "deleverage": MOVES,
    "delivery": MOVES,
    "happenings": "the bars that need a call; the oracle tests",
    "margin_call": MOVES,
    "marking": MOVES,
    "many": "many plain trials; test_sweep compares each with run()",
    "metrics": "numbers of a finished run; test_vectors and the oracle tests",
    "open_account": "the empty account",
    "orders": MOVES,
    "plain": "a trial by a shorter way; test_plain compares it with trial.py to the last bit",
    "search": "which bar acts; test_plain compares it with a plain search",
    "status": "codes",
    "structs": "what goes in and out",
    "track": "returns and drawdowns by a shorter way; test_plain compares them",
    "trial": "the order of the steps",
}


def public_kernels(module: str) -> dict[str, Callable]:
    """The kernels of a module that are its own and public."""
    loaded = importlib.import_module(f"basis_bt.kernels.{module}")
    return {name: value for name, value in vars(loaded).items()
            if is_kernel(value) and value.__module__ == loaded.__name__ and not name.startswith("_")}  # fmt: skip
