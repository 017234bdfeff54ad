"""What a user may say of a run: one frozen dataclass a section, with the defaults and checks of each value."""

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from basis_bt.core.calibration_file import Calibrated
from basis_bt.core.instruments import KINDS, STRICT, Combo, Instrument
from basis_bt.core.live_models import Live
from basis_bt.core.ranges import check_range
from basis_bt.core.scenarios import Scenario
from basis_bt.core.units import US_PER_DAY, US_PER_HOUR, hours_to_us, parse_hours, parse_instant

Duration = float | str
PerLeg = float | dict[str, float]


def _check_hours(**durations: Duration | None) -> None:
    for name, value in durations.items():
        if value is not None:
            try:
                parse_hours(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Which market folder, which span ``[start, end)``, which bar step (1m to 1d), and what bad data does.

    ``checks``: ``"strict"`` refuses whatever is wrong with the files; ``"clean"`` takes bad bars out, drops repeated
    rows, goes on without missing settlements, and counts all of it in the manifest. ``series``: other series that
    signals of your own use, see ``frames/domain.py``.
    """

    __pydantic_config__ = STRICT

    root: str
    start: str | datetime
    end: str | datetime
    bar: Duration = "1h"
    checks: Literal["strict", "clean"] = "strict"
    series: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        start, end = parse_instant(self.start), parse_instant(self.end)
        if start >= end:
            raise ValueError(f"start must be before end, found {start.isoformat()} and {end.isoformat()}")
        _check_hours(bar=self.bar)
        if not US_PER_HOUR // 60 <= self.bar_us <= US_PER_DAY or US_PER_DAY % self.bar_us:
            raise ValueError(f"bar must divide a day and be between 1m and 1d, found {self.bar!r}")

    @property
    def bar_us(self) -> int:
        """Bar step in microseconds."""
        return hours_to_us(parse_hours(self.bar))


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalSpec:
    """A built-in signal by name, or ``name = "sql"`` with a Polars SQL expression over the aligned frame.

    Each signal takes its own parameters and no other: ``hours`` and ``hold_hours`` are durations, ``n`` and ``look``
    count bars or settlements, ``days`` days; ``above`` and ``below`` are rates per 8 h, ``interest_apr`` a yearly one.
    """

    __pydantic_config__ = STRICT

    name: str
    hours: Duration | None = None
    hold_hours: Duration | None = None
    n: int | None = None
    days: int | None = None
    look: int | None = None
    above: float | None = None
    below: float | None = None
    interest_apr: float | None = None
    sql: str | None = None
    warmup_hours: Duration = 0.0

    def __post_init__(self) -> None:
        _check_hours(hours=self.hours, hold_hours=self.hold_hours, warmup_hours=self.warmup_hours)
        for name, most in (("n", 1_000), ("days", 1_000), ("look", 10_000)):
            check_range(name, getattr(self, name), 1.0, most)
        for name in ("above", "below"):
            check_range(name, getattr(self, name), -1.0, 1.0)
        check_range("interest_apr", self.interest_apr, -1.0, 10.0)
        if (self.name == "sql") != (self.sql is not None):
            raise ValueError('a signal of your own has both name = "sql" and sql = "..."')


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Threshold rule: in at ``signal >= entry``, out at ``signal <= exit``; mirrored for the reverse direction."""

    __pydantic_config__ = STRICT

    entry: float
    exit: float
    reverse: bool = False
    min_hold_hours: Duration = 0.0
    max_hold_hours: Duration | None = None
    cooldown_hours: Duration = 0.0
    stop_loss_pct: float | None = None
    max_basis_bps: float | None = None

    def __post_init__(self) -> None:
        for name in ("entry", "exit"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, found {getattr(self, name)!r}")
        if self.entry <= self.exit:
            raise ValueError(f"entry must be above exit, found entry = {self.entry:g} and exit = {self.exit:g}")
        if self.reverse and self.entry <= 0:
            raise ValueError(f"with reverse, entry must be above 0, found entry = {self.entry:g}")
        _check_hours(
            min_hold_hours=self.min_hold_hours, max_hold_hours=self.max_hold_hours, cooldown_hours=self.cooldown_hours
        )
        if self.max_hold_hours is not None and parse_hours(self.max_hold_hours) < parse_hours(self.min_hold_hours):
            raise ValueError(
                "max_hold_hours must not be under min_hold_hours, "
                f"found {self.max_hold_hours} and {self.min_hold_hours}"
            )
        check_range("stop_loss_pct", self.stop_loss_pct, 0.0, 100.0, above=True)
        check_range("max_basis_bps", self.max_basis_bps, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Capital, the share of equity an entry uses, and the leverage of margined legs.

    ``lots``: ``"venue"`` takes lots and minimum notionals from the rulebook, ``"none"`` trades any quantity.
    """

    __pydantic_config__ = STRICT

    capital_usd: float = 1_000_000.0
    allocation: float = 0.9
    leverage: float = 3.0
    compounding: bool = True
    lots: Literal["venue", "none"] = "venue"

    def __post_init__(self) -> None:
        check_range("capital_usd", self.capital_usd, 0.0, above=True)
        check_range("allocation", self.allocation, 0.0, 1.0, above=True)
        check_range("leverage", self.leverage, 0.0, 150.0, above=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a fill costs. Values by leg are a number, or a table by kind (``spot``, ``perp``) or by instrument.

    ``bucket_usd`` with ``bucket_bps`` is one table for all; ``bucket_table`` names a parquet file with columns ``day``,
    ``pair``, ``size_usd``, ``cost_bps``, and ``bucket_pairs`` says which pair of it serves which instrument.
    Fees default to those of the venue in force on each day; a negative fee is a rebate. ``fee_tier`` is the tier of the
    venue's table (0: the base tier), or ``"volume"``: the one of the trailing 30 days, those of the run beside
    ``volume_30d_usd`` traded elsewhere. ``borrow_apr`` is the rate of borrowed spot where no series is loaded. A fill
    on a chain pays ``gas_units`` of gas at ``gas_gwei`` (none: the series ``onchain/gas/ethereum``).
    """

    __pydantic_config__ = STRICT

    half_spread_bps: PerLeg = 0.0
    taker_fee_bps: PerLeg | None = None
    maker_fee_bps: PerLeg | None = None
    liquidity: Literal["taker", "maker"] = "taker"
    spot_fee_in: Literal["quote", "base"] = "quote"
    bucket_usd: list[float] = field(default_factory=list)
    bucket_bps: list[float] = field(default_factory=list)
    bucket_table: str | None = None
    bucket_pairs: dict[str, str] = field(default_factory=dict)
    impact_coef_bps: PerLeg = 0.0
    impact_exponent: float = 0.5
    fee_tier: int | Literal["volume"] = 0
    volume_30d_usd: float = 0.0
    borrow_apr: PerLeg | None = None
    gas_units: float = 250_000.0
    gas_gwei: float | None = None

    def __post_init__(self) -> None:
        _check_per_leg("half_spread_bps", self.half_spread_bps, 0.0, 1_000.0)
        _check_per_leg("taker_fee_bps", self.taker_fee_bps, 0.0, 500.0)
        _check_per_leg("maker_fee_bps", self.maker_fee_bps, -5.0, 500.0)
        _check_per_leg("impact_coef_bps", self.impact_coef_bps, 0.0, 1e6)
        check_range("impact_exponent", self.impact_exponent, 0.0, 2.0, above=True)
        check_range("fee_tier", None if self.fee_tier == "volume" else self.fee_tier, 0.0, 20.0)
        check_range("volume_30d_usd", self.volume_30d_usd, 0.0)
        _check_per_leg("borrow_apr", self.borrow_apr, 0.0, 100.0)
        check_range("gas_units", self.gas_units, 0.0)
        check_range("gas_gwei", self.gas_gwei, 0.0)
        if len(self.bucket_usd) != len(self.bucket_bps):
            raise ValueError(
                "bucket_usd and bucket_bps must be equally long, "
                f"found {len(self.bucket_usd)} and {len(self.bucket_bps)}"
            )
        for edge in self.bucket_usd:
            check_range("bucket_usd", edge, 0.0, above=True)
        for bps in self.bucket_bps:
            check_range("bucket_bps", bps, 0.0, 5_000.0)
        if any(low >= high for low, high in zip(self.bucket_usd, self.bucket_usd[1:], strict=False)):
            raise ValueError(f"bucket_usd must increase, found {self.bucket_usd}")
        if self.bucket_table is not None and self.bucket_usd:
            raise ValueError("give either bucket_table or bucket_usd with bucket_bps, not both")
        if (self.bucket_table is None) != (not self.bucket_pairs):
            raise ValueError("bucket_table and bucket_pairs go together")


def _check_per_leg(name: str, value: PerLeg | None, low: float, high: float) -> None:
    if not isinstance(value, dict):
        check_range(name, value, low, high)
        return
    for key, number in value.items():
        if key not in KINDS:
            Instrument.parse(key)
        check_range(f"{name}.{key}", number, low, high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fills:
    """How orders become fills, and what happens when one leg fills and the other does not.

    ``model``: ``certain``; ``volume``, at most ``volume_cap`` of the bar's volume; ``bernoulli``, all with
    ``fill_probability`` or nothing; ``maker``, a limit ``offset_bps`` better than arrival, with a market order in the
    next bar if it is not traded through. ``latency`` is from the decision on, for all or by kind or instrument.
    ``atomicity`` says what becomes of an entry that filled in part: ``rollback``, ``match`` or ``naked``.
    """

    __pydantic_config__ = STRICT

    model: Literal["certain", "volume", "bernoulli", "maker"] = "certain"
    latency: Duration | dict[str, Duration] = 0.0
    volume_cap: float = 0.1
    fill_probability: float = 1.0
    offset_bps: float = 0.0
    reject_probability: float = 0.0
    atomicity: Literal["rollback", "match", "naked"] = "rollback"
    rollback_delay_hours: Duration = 0.0
    rollback_penalty_bps: float = 0.0
    max_cost_bps: float | None = None
    max_volume_share: float | None = None
    max_spread_bps: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.latency, dict):
            for key, duration in self.latency.items():
                if key not in KINDS:
                    Instrument.parse(key)
                _check_hours(**{f"latency.{key}": duration})
        else:
            _check_hours(latency=self.latency)
        _check_hours(rollback_delay_hours=self.rollback_delay_hours)
        check_range("volume_cap", self.volume_cap, 0.0, 1.0, above=True)
        check_range("fill_probability", self.fill_probability, 0.0, 1.0)
        check_range("reject_probability", self.reject_probability, 0.0, 1.0)
        check_range("offset_bps", self.offset_bps, 0.0, 1_000.0)
        check_range("rollback_penalty_bps", self.rollback_penalty_bps, 0.0, 1_000.0)
        for name in ("max_cost_bps", "max_volume_share", "max_spread_bps"):
            check_range(name, getattr(self, name), 0.0)
        check_range("seed", self.seed, 0, 2**53)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallets:
    """Where cash is held: in one wallet for all venues (``pooled``) or one a venue (``segregated``), and its margin.

    ``margin``: ``"venue"`` tests it by the venue's tiers, ``"none"`` does not, ``"auto"`` does so for segregated ones.
    ``spot_collateral`` is the haircut at which spot backs the margin of its wallet (none: it does not). Transfers cost
    ``transfer_fee_usd``, take ``transfer_hours``, are at least ``transfer_min_usd`` and at most
    ``transfer_daily_cap_usd`` a day in all, and do not leave within ``transfer_halts``, spans ``[from, to]``.
    ``rebalance_below`` is the margin ratio (equity over notional) under which the combo is resized and cash moved.
    Idle cash earns ``cash_yield_apr``. A loan is liquidated when its collateral times ``loan_threshold`` is worth less
    than its debt; the liquidator takes collateral worth the debt repaid and ``loan_bonus`` of it.
    """

    __pydantic_config__ = STRICT

    mode: Literal["pooled", "segregated"] = "pooled"
    margin: Literal["auto", "venue", "none"] = "auto"
    spot_collateral: float | None = None
    liquidation_fee_bps: PerLeg | None = None
    transfer_hours: Duration = 0.0
    transfer_fee_usd: float = 0.0
    transfer_min_usd: float = 0.0
    transfer_daily_cap_usd: float | None = None
    transfer_halts: list[list[str | datetime]] = field(default_factory=list)
    rebalance_below: float | None = None
    cash_yield_apr: float = 0.0
    loan_threshold: float = 0.95
    loan_bonus: float = 0.01

    def __post_init__(self) -> None:
        _check_hours(transfer_hours=self.transfer_hours)
        check_range("spot_collateral", self.spot_collateral, 0.0, 1.0, above=True)
        _check_per_leg("liquidation_fee_bps", self.liquidation_fee_bps, 0.0, 1_000.0)
        check_range("transfer_fee_usd", self.transfer_fee_usd, 0.0)
        check_range("transfer_min_usd", self.transfer_min_usd, 0.0)
        check_range("transfer_daily_cap_usd", self.transfer_daily_cap_usd, self.transfer_fee_usd, above=True)
        check_range("rebalance_below", self.rebalance_below, 0.0, 10.0, above=True)
        check_range("cash_yield_apr", self.cash_yield_apr, -1.0, 10.0)
        check_range("loan_threshold", self.loan_threshold, 0.0, 1.0, above=True)
        check_range("loan_bonus", self.loan_bonus, 0.0, 1.0)
        for span in self.transfer_halts:
            if len(span) != 2 or parse_instant(span[0]) >= parse_instant(span[1]):
                raise ValueError(f"a transfer halt is [from, to] with from before to, found {span}")
        if self.mode == "pooled" and self.rebalance_below is not None:
            raise ValueError('rebalance_below needs mode = "segregated": one wallet has nothing to move')

    @property
    def is_tested(self) -> bool:
        """Whether margins are tested."""
        return self.margin == "venue" or (self.margin == "auto" and self.mode == "segregated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a run is made of; ``live`` is for trading it on paper and for real, and changes no backtest.

    ``calibration`` is the path of a file of measured costs (``core/calibration_file.py``). A checked configuration has
    its values in ``costs`` already, and its path and sha256 here.
    """

    __pydantic_config__ = STRICT

    name: str = "run"
    data: Data
    combo: Combo
    signal: SignalSpec
    rule: Rule
    size: Size = field(default_factory=Size)
    costs: Costs = field(default_factory=Costs)
    fills: Fills = field(default_factory=Fills)
    wallets: Wallets = field(default_factory=Wallets)
    scenarios: list[Scenario] = field(default_factory=list)
    live: Live | None = None
    calibration: str | Calibrated | None = None

    def __post_init__(self) -> None:
        if self.fills.model == "maker" and self.costs.spot_fee_in == "base":
            raise ValueError('fills.model = "maker" books fees in quote; set costs.spot_fee_in = "quote"')
