"""The risk guard: what may be entered, and the circuit breaker that stops entering. Closing is never refused.

Its state is a plain dict of numbers, texts and lists, written into the journal, so that a restart does not forget an
open breaker, the peak of the equity, or the loss of the day.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from basis_bt.core.live_models import Limits
from basis_bt.core.units import US_PER_DAY, US_PER_HOUR, US_PER_MINUTE, from_us

STATE_VERSION = 1
ROUNDING = 1e-9  # relative: a value that equals its limit but for rounding has reached it


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something a person should know; ``is_stop``: it stops entries.

    ``kind``: drawdown, daily_loss, failed_orders, funding_rate, data_age, incident (what others found).
    """

    kind: str
    sentence: str
    is_stop: bool
    at_us: int


@dataclass(slots=True, kw_only=True)
class Breaker:
    """Why (by kind) and until when nothing is entered; with ``needs_reset`` until a person ends it, however late."""

    since_us: int
    until_us: int
    reasons: dict[str, str] = field(default_factory=dict)
    needs_reset: bool = False


class RiskGuard:
    """Limits with the state they are measured against. Times are passed in; equity is that of all venues together.

    The day is the UTC day; its loss is counted from the first equity seen in it (on the first day: from the capital), a
    drawdown from the highest equity so far. A cooldown forgives neither: while a limit is passed, the next equity after
    the cooldown opens the breaker again, until the day is over or a ``reset`` counts anew from the present equity.
    """

    def __init__(self, limits: Limits, capital_usd: float) -> None:
        if not (math.isfinite(capital_usd) and capital_usd > 0.0):
            raise ValueError(f"capital_usd must be above 0, found {capital_usd!r}")
        self.limits = limits
        self.peak_usd = capital_usd
        self.equity_usd = capital_usd
        self.day: int | None = None
        self.day_start_usd = capital_usd
        self.failed_us: list[int] = []
        self.n_positions = 0
        self.breaker: Breaker | None = None
        self.resets: list[dict[str, Any]] = []

    # ------------------------------------------------------------------------------------------------------ questions

    def allows(self, purpose: str, now_us: int) -> bool:
        """Whether an order of this purpose may be sent as far as the breaker goes.

        Only what begins a position may not: closing, and completing the hedge of what has filled, take risk away.
        """
        return purpose != "entry" or not self.is_open(now_us)

    def is_open(self, now_us: int) -> bool:
        """Whether the breaker is open."""
        return self.breaker is not None and (self.breaker.needs_reset or now_us < self.breaker.until_us)

    def entry_reason(
        self,
        now_us: int,
        *,
        notional_by_venue_usd: Mapping[str, float],
        order_usd: float = 0.0,
        n_positions: int | None = None,
        data_age_s: float = 0.0,
        clock_offset_s: float = 0.0,
    ) -> str | None:
        """Why an entry is refused, with the value and the limit; None: it is not.

        ``notional_by_venue_usd`` is gross and as it would be *after* the entry, by venue; ``order_usd`` the largest
        order of it; ``n_positions`` the combos held *before* it (those last told to ``on_positions`` if left out). A
        venue without a limit is not refused here: live mode does not start without limits.
        """
        limits, held = self.limits, self.n_positions if n_positions is None else n_positions
        if self.breaker is not None and self.is_open(now_us):
            return self._breaker_sentence(self.breaker)
        if held >= limits.max_positions:
            return f"{held} positions are held, the limit is {limits.max_positions}"
        for venue, notional_usd in sorted(notional_by_venue_usd.items()):
            limit = limits.notional_limit_usd(venue)
            if limit is not None and not notional_usd <= limit * (1.0 + ROUNDING):  # a NaN is refused
                return f"{venue} would hold {notional_usd:.2f} USD, the limit is {limit:.2f} USD"
        if limits.max_order_usd is not None and not order_usd <= limits.max_order_usd * (1.0 + ROUNDING):
            return f"an order would be worth {order_usd:.2f} USD, the limit is {limits.max_order_usd:.2f} USD"
        if not data_age_s <= limits.data_age_stop_s:
            return f"market data is {data_age_s:.1f} s old, the limit is {limits.data_age_stop_s:g} s"
        if not abs(clock_offset_s) <= limits.max_clock_offset_s:
            return f"the venue's clock is off by {clock_offset_s:+.3f} s, the limit is {limits.max_clock_offset_s:g} s"
        return None

    # -------------------------------------------------------------------------------------------------------- events

    def on_equity(self, now_us: int, equity_usd: float) -> list[Alarm]:
        """Take note of the equity; open the breaker at the drawdown or the daily loss.

        What has opened it already is not told again before the cooldown is over. An equity that is no number opens it.
        """
        if not math.isfinite(equity_usd):
            return self._open_once(now_us, f"equity is {equity_usd!r}: it cannot be judged", kind="drawdown")
        day = now_us // US_PER_DAY
        if self.day is None or day > self.day:  # a clock that goes back does not begin a day anew
            self.day, self.day_start_usd = day, equity_usd if self.day is not None else self.day_start_usd
        self.equity_usd, self.peak_usd = equity_usd, max(self.peak_usd, equity_usd)
        found: list[Alarm] = []
        for kind, start_usd, limit_pct, since in (
            ("drawdown", self.peak_usd, self.limits.max_drawdown_pct, "the peak"),
            ("daily_loss", self.day_start_usd, self.limits.max_daily_loss_pct, "the start of the UTC day"),
        ):
            lost_pct = 100.0 * (start_usd - equity_usd) / start_usd if start_usd > 0.0 else 100.0
            if lost_pct >= limit_pct * (1.0 - ROUNDING):
                sentence = (
                    f"equity of {equity_usd:.2f} USD is {lost_pct:.2f} % under {start_usd:.2f} USD at {since}, "
                    f"the limit is {limit_pct:g} %"
                )
                found += self._open_once(now_us, sentence, kind=kind)
        return found

    def on_failed_order(self, now_us: int) -> list[Alarm]:
        """Count an order that failed; ``max_failed_orders`` within the last hour open the breaker."""
        self.failed_us = [at_us for at_us in self.failed_us if at_us > now_us - US_PER_HOUR] + [now_us]
        if len(self.failed_us) < self.limits.max_failed_orders:
            return []
        sentence = f"{len(self.failed_us)} orders failed within an hour, the limit is {self.limits.max_failed_orders}"
        return [self.open_breaker(now_us, sentence, kind="failed_orders")]

    def on_funding_rate(self, now_us: int, instrument: str, funding_rate: float) -> list[Alarm]:
        """An alarm from ``funding_rate_alarm`` per settlement on, of either sign; it stops nothing by itself."""
        limit = self.limits.funding_rate_alarm
        if abs(funding_rate) < limit * (1.0 - ROUNDING):
            return []
        sentence = f"{instrument}: the funding rate is {funding_rate:+.6f} per settlement, the alarm is at {limit:g}"
        return [Alarm(kind="funding_rate", sentence=sentence, is_stop=False, at_us=now_us)]

    def on_data_age(self, now_us: int, source: str, age_s: float) -> list[Alarm]:
        """An alarm for market data that is old; ``is_stop`` where entries are refused for it."""
        limits = self.limits
        if age_s <= limits.data_age_warn_s:
            return []
        is_stop = not age_s <= limits.data_age_stop_s
        limit = limits.data_age_stop_s if is_stop else limits.data_age_warn_s
        sentence = f"{source}: market data is {age_s:.1f} s old, the limit is {limit:g} s"
        return [Alarm(kind="data_age", sentence=sentence, is_stop=is_stop, at_us=now_us)]

    def on_positions(self, n_positions: int) -> None:
        """Combos held now."""
        self.n_positions = n_positions

    def open_breaker(self, now_us: int, reason: str, *, needs_reset: bool = False, kind: str = "incident") -> Alarm:
        """Stop entering for the cooldown, or with ``needs_reset`` until a person says so.

        An open breaker is only ever made stricter: the later end counts, and a need for a reset stays. Of the
        guard's own kinds the last reason is kept, of incidents each one.
        """
        until_us = now_us + round(self.limits.cooldown_minutes * US_PER_MINUTE)
        if self.breaker is None or not self.is_open(now_us):
            self.breaker = Breaker(since_us=now_us, until_us=until_us, reasons={kind: reason}, needs_reset=needs_reset)
        else:
            self.breaker.until_us = max(self.breaker.until_us, until_us)
            self.breaker.needs_reset |= needs_reset
            told = self.breaker.reasons.get(kind) if kind == "incident" else None
            if told is None or reason not in told:
                self.breaker.reasons[kind] = reason if told is None else f"{told}; {reason}"
        return Alarm(kind=kind, sentence=reason, is_stop=True, at_us=now_us)

    def reset(self, by: str, now_us: int) -> None:
        """A person closes the breaker: peak, start of the day and failures are counted anew from here.

        Raises
        ------
        ValueError
            If nobody is named: the journal keeps who did it.
        """
        if not by.strip():
            raise ValueError("a reset names the person who does it")
        reasons = {} if self.breaker is None else self.breaker.reasons
        self.resets.append({"by": by, "at_us": now_us, "reasons": reasons})
        self.breaker, self.failed_us = None, []
        self.peak_usd = self.day_start_usd = self.equity_usd

    # --------------------------------------------------------------------------------------------------------- state

    def to_state(self) -> dict[str, Any]:
        """All that must survive a restart, as JSON takes it."""
        return {
            "version": STATE_VERSION,
            "peak_usd": self.peak_usd,
            "equity_usd": self.equity_usd,
            "day": self.day,
            "day_start_usd": self.day_start_usd,
            "failed_us": list(self.failed_us),
            "n_positions": self.n_positions,
            "breaker": None if self.breaker is None else asdict(self.breaker),
            "resets": [dict(reset) for reset in self.resets],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], limits: Limits, capital_usd: float) -> "RiskGuard":
        """The guard as it was, with the limits of today. A state of another version is refused (ValueError)."""
        if state.get("version") != STATE_VERSION:
            raise ValueError(f"state of the guard has version {state.get('version')!r}, needed is {STATE_VERSION}")
        guard = cls(limits, capital_usd)
        for name in ("peak_usd", "equity_usd", "day", "day_start_usd", "n_positions"):
            setattr(guard, name, state[name])
        guard.failed_us = list(state["failed_us"])
        guard.resets = [dict(reset) for reset in state["resets"]]
        breaker = state["breaker"]
        guard.breaker = None if breaker is None else Breaker(**{**breaker, "reasons": dict(breaker["reasons"])})
        return guard

    def _open_once(self, now_us: int, reason: str, *, kind: str) -> list[Alarm]:
        if self.breaker is not None and self.is_open(now_us) and kind in self.breaker.reasons:
            return []
        return [self.open_breaker(now_us, reason, kind=kind)]

    def _breaker_sentence(self, breaker: Breaker) -> str:
        until = "a person resets it" if breaker.needs_reset else f"{from_us(breaker.until_us):%Y-%m-%dT%H:%M:%SZ}"
        return f"the circuit breaker is open until {until}: {'; '.join(breaker.reasons.values())}"


def resting_reason(*, spread_bps: float | None, age_s: float, max_spread_bps: float, max_age_s: float) -> str | None:
    """Why a resting order is cancelled: the quoted spread or its own age is over the limit; None: it may stay.

    A spread that cannot be measured (None or NaN: one side is empty) is over every limit.
    """
    if spread_bps is None or math.isnan(spread_bps):
        return "the book has no spread: one side is empty"
    if spread_bps > max_spread_bps * (1.0 + ROUNDING):
        return f"the spread is {spread_bps:.2f} bps, the limit is {max_spread_bps:g} bps"
    if not age_s <= max_age_s:
        return f"the order is {age_s:.1f} s old, the limit is {max_age_s:g} s"
    return None
