"""What happened in the market: every number is a function of the symbol and the time, as text like venues send it."""

import zlib
from dataclasses import dataclass, field
from itertools import islice

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def _noise(*parts):
    """A number in [0, 1) that depends on its arguments alone."""
    return zlib.crc32("|".join(map(str, parts)).encode()) / 2**32


@dataclass(frozen=True, kw_only=True)
class Listing:
    """One instrument of a venue: ``kind`` is ``spot``, ``linear`` or ``inverse``."""

    kind: str
    base: str
    quote: str
    listed_ms: int = 0
    contract_size: float = 1.0
    funding_hours: tuple = ((0, 8),)  # (from, interval) in order

    @property
    def name(self):
        return f"{self.base}-{self.quote}-{self.kind}"


@dataclass(kw_only=True)
class MarketModel:
    """Listings, the venue's clock, its outages ``(from_ms, to_ms)``, and how late it calls a candle complete."""

    listings: list
    now_ms: int
    outages: list = field(default_factory=list)
    confirm_lag_ms: int = 0
    jitter_ms: int = 0

    def find(self, kind, base, quote):
        return next((one for one in self.listings if (one.kind, one.base, one.quote) == (kind, base, quote)), None)

    def of_kind(self, kind):
        return [one for one in self.listings if one.kind == kind]

    def is_down(self, ts_ms):
        return any(first <= ts_ms < last for first, last in self.outages)

    def is_complete(self, ts_ms, step_ms):
        return ts_ms + step_ms + self.confirm_lag_ms <= self.now_ms

    def bar_stamps(self, listing, step_ms, first_ms, last_ms, *, oldest=None, newest=None):
        """Opens in ``[first_ms, last_ms]`` that the venue has, the running bar among them; so many at one end."""
        first = -(-max(first_ms, listing.listed_ms) // step_ms) * step_ms
        return self._there(range(first, min(last_ms, self.now_ms) + 1, step_ms), oldest, newest)

    def _there(self, stamps, oldest, newest):
        there = (ts for ts in (stamps[::-1] if newest else stamps) if not self.is_down(ts))
        return sorted(islice(there, oldest or newest))

    def bar(self, listing, series, ts_ms, step_ms):
        """Open, high, low, close and volume in base units as text; those of a running bar are not its last ones."""
        state = "" if self.is_complete(ts_ms, step_ms) else "running"
        name = f"{listing.base}-{listing.quote}" if series == "index" else listing.name  # an index is of the pair
        draw = [_noise(name, series, ts_ms, state, i) for i in range(5)]
        if series == "premium":
            points = sorted((d - 0.5) * 1e-3 for d in draw[:4])
            form = "{:.8f}"
        else:
            level = 100.0 + _noise(listing.base) * 5e4
            day = 0.1 * _noise(name, ts_ms // DAY_MS)
            points = sorted(level * (1 + 0.02 * (d - 0.5) + day) for d in draw[:4])
            form = "{:.4f}"
        low, one, two, high = points
        first, last = (one, two) if draw[0] < draw[1] else (two, one)
        return [*(form.format(x) for x in (first, high, low, last)), f"{draw[4] * 1000:.3f}"]

    def interval_hours(self, listing, ts_ms):
        return [hours for since, hours in listing.funding_hours if since <= ts_ms][-1]

    def settlement_stamps(self, listing, first_ms, last_ms, *, oldest=None, newest=None):
        """Settlements in ``[first_ms, last_ms]``, on the whole hour."""
        first = -(-max(first_ms, listing.listed_ms + 1) // HOUR_MS) * HOUR_MS
        every = range(first, min(last_ms, self.now_ms) + 1, HOUR_MS)
        due = (ts for ts in (every[::-1] if newest else every) if self._settles(listing, ts) and not self.is_down(ts))
        return sorted(islice(due, oldest or newest))

    def _settles(self, listing, ts_ms):
        return ts_ms // HOUR_MS % self.interval_hours(listing, ts_ms - 1) == 0

    def jitter(self, ts_ms):
        """Milliseconds after the hour that the venue stamps a settlement with."""
        return int(_noise("jitter", ts_ms) * self.jitter_ms)

    def rate(self, listing, ts_ms):
        """The rate paid, as text."""
        return f"{(_noise(listing.name, 'rate', ts_ms) - 0.3) * 1e-3:.8f}"

    def settlements(self, listing, first_ms, last_ms, *, oldest=None, newest=None):
        """(stamp with jitter, rate) with the stamp in ``[first_ms, last_ms]``; so many at one end."""
        one_more = {"oldest": oldest and oldest + 1, "newest": newest and newest + 1}
        due = self.settlement_stamps(listing, first_ms - HOUR_MS, last_ms, **one_more)
        rows = [(ts + self.jitter(ts), self.rate(listing, ts)) for ts in due]
        rows = [(ts, rate) for ts, rate in rows if first_ms <= ts <= last_ms]
        return rows[-newest:] if newest else rows[:oldest]
