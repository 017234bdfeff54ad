"""The market as it happens: bars and settlements downloaded when a bar has closed, prices from the order books.

They go into a market folder beside the journal, in the format of a backtest, and are read from there by the code that a
backtest uses; so a signal is the same number in both, and what was traded on can be backtested afterwards.
"""

import dataclasses
import math
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from basis_bt.backtest.prepare import Prepared, configured_signal, prepare
from basis_bt.core.errors import BasisBtError, ConfigError
from basis_bt.core.models import Config, SignalSpec
from basis_bt.core.units import from_us, hours_to_us
from basis_bt.live import event_types
from basis_bt.live.clock import Clock
from basis_bt.live.feed import Bars, Closing, Feed, Opening, Settlement
from basis_bt.live.journal import Journal
from basis_bt.live.paper import PaperVenue
from basis_bt.live.venue import Venue, VenueDown
from basis_bt.market.download import CLOCK_MARGIN_MS, Outcome, download_async
from basis_bt.signals import build_signal
from basis_bt.signals.base import latest

AFTER_CLOSE_S = 2.0  # venues finish a bar so soon after its end
SPARE_BARS = 3
LONGEST_SLEEP_S = 30.0  # a machine that was suspended finds the time again so soon
KINDS = {"spot": ("spot",), "perp": ("perp", "funding")}


class LiveFeed(Feed):
    """Bars of a configuration from now on.

    Parameters
    ----------
    venues : for order books; paper accounts are told of the settlements that are due
    folder : of the market data that is downloaded
    client_factory : venue -> public ccxt client for the history
    n_bars : how many bars; None: until it is stopped

    Raises
    ------
    ConfigError
        If a leg is of a kind whose bars venues do not serve, or series beside the legs are asked for.
    """

    def __init__(
        self,
        config: Config,
        venues: Mapping[str, Venue],
        *,
        clock: Clock,
        journal: Journal,
        folder: Path,
        client_factory: Callable[[str], Any],
        n_bars: int | None = None,
    ) -> None:
        strange = [str(one) for one in config.combo.instruments if one.kind not in KINDS]
        if strange or config.data.series:
            raise ConfigError(
                f"no live market data for {', '.join([*strange, *config.data.series])}",
                fix="spot and perpetuals can be traded live, with signals of their bars and funding alone",
            )
        self._config, self._venues, self._clock, self._journal = config, venues, clock, journal
        self._folder, self._client_factory, self._left = folder, client_factory, n_bars
        self._signal = configured_signal(config)
        self._basis = build_signal(SignalSpec(name="basis_bps"), config.combo, bar_us=config.data.bar_us)
        self._bar_us = config.data.bar_us
        self._settled_us = clock.now_us()
        self._opened_us = 0
        self._last = np.full(len(config.combo.legs), np.nan)
        self._volatility_pct = np.full(len(config.combo.legs), np.nan)
        self.data_us = 0  # end of the last bar that was read

    async def openings(self) -> AsyncIterator[Opening]:
        """Each bar when it has opened and the one before it can be read."""
        while self._left is None or self._left > 0:
            ts_us = self._clock.now_us() // self._bar_us * self._bar_us
            if ts_us <= self._opened_us or self._opened_us == 0:
                ts_us += self._bar_us
            await self._sleep_until(ts_us + round(AFTER_CLOSE_S * 1e6))
            self._opened_us = ts_us
            if self._left is not None:
                self._left -= 1
            yield await self._opening(ts_us)

    async def closing(self) -> Closing:
        """Mids at the end of the bar; a leg without a book is missing and keeps its last one."""
        await self._sleep_until(self._opened_us + self._bar_us)
        prices, seen = await self._mids()
        return Closing(ts_us=self._opened_us, close_price=prices, missing=~seen)

    def volatility_pct(self, leg: int) -> float | None:
        """Of a minute, from the bars of the last day; None before the first."""
        found = float(self._volatility_pct[leg])
        return found if math.isfinite(found) else None

    async def _sleep_until(self, at_us: int) -> None:
        while (left_us := at_us - self._clock.now_us()) > 0:
            await self._clock.sleep(min(left_us / 1e6, LONGEST_SLEEP_S))

    async def _opening(self, ts_us: int) -> Opening:
        try:
            await self._download(ts_us)
            prepared = self._prepare(ts_us)
        except BasisBtError as error:  # without data nothing is decided, and nothing ends
            self._journal.append(
                event_types.INCIDENT, ts_us=self._clock.now_us(), kind="no_market_data", reason=error.what
            )
            return await self._blind(ts_us)
        panel, bars = prepared.panel, Bars(prepared)
        row = bars.opening(panel.n_bars - 1)
        settled = self._settle(prepared, ts_us)
        prices, seen = await self._mids()
        volume = np.where(panel.volume[-1] > 0.0, panel.volume[-1], panel.volume_before[-1])
        self.data_us, self._volatility_pct = ts_us, _minute_volatility_pct(prepared)
        return Opening(
            ts_us=ts_us,
            open_price=np.where(seen, prices, panel.close_price[-1]),
            tradable=seen,
            volume_before=volume,
            signal=latest(self._signal, panel),
            basis_bps=latest(self._basis, panel),
            costs=row.costs,
            settlements=settled,
        )

    async def _blind(self, ts_us: int) -> Opening:
        prices, seen = await self._mids()
        nothing = np.full(len(prices), np.nan)
        return Opening(
            ts_us=ts_us, open_price=prices, tradable=seen, volume_before=nothing, signal=math.nan, basis_bps=math.nan,
            costs=(),
        )  # fmt: skip

    async def _download(self, ts_us: int) -> None:
        """Bring the folder up to date; whatever a series lacks is in the message."""
        warmup_us = hours_to_us(max(self._signal.warmup_hours, *self._signal.funding_windows_hours, 24.0))
        start = from_us((ts_us - warmup_us) // self._bar_us * self._bar_us - (SPARE_BARS + 8) * self._bar_us)

        wanted: dict[tuple[str, str], list[str]] = {}
        for one in self._config.combo.instruments:
            wanted.setdefault((one.venue, one.symbol), []).extend(KINDS[one.kind])
        outcomes: list[Outcome] = []
        for (venue, symbol), kinds in wanted.items():
            outcomes += await download_async(
                venue,
                [symbol],
                kinds,
                root=self._folder,
                start=start,
                update=True,
                bar_hours=self._config.data.bar_us / 3.6e9,
                client_factory=self._client_factory,
                clock=lambda: self._clock.now_us() + CLOCK_MARGIN_MS * 1000,
                sleep=self._clock.sleep,
            )
        failed = [f"{one.series}: {one.error}" for one in outcomes if one.status not in ("done", "none")]
        if failed:
            raise BasisBtError("; ".join(failed))

    def _prepare(self, ts_us: int) -> Prepared:
        """The last closed bar with all the history before it, and the settlements up to now, as a backtest has them."""
        data = dataclasses.replace(
            self._config.data, root=str(self._folder), start=from_us(ts_us - self._bar_us).isoformat(),
            end=from_us(ts_us + self._bar_us).isoformat(), checks="clean",
        )  # fmt: skip
        return prepare(dataclasses.replace(self._config, data=data, live=None))

    def _settle(self, prepared: Prepared, ts_us: int) -> tuple[Settlement, ...]:
        """The settlements since the last opening; paper accounts pay them now."""
        out, since_us = [], self._settled_us
        sources = ("own", "mark", "trade")
        for leg, part in prepared.panel.settlements.items():
            instrument = self._config.combo.legs[leg].instrument
            for k in np.flatnonzero((part.paid_us > since_us) & (part.paid_us <= ts_us)):
                hours, mark = float(part.interval_hours[k]), float(part.mark_price[k])
                out.append(
                    Settlement(
                        leg=leg, settlement_us=int(part.raw_us[k]), known_at_us=int(part.known_us[k]),
                        funding_rate=float(part.funding_rate[k]), interval_hours=None if math.isnan(hours) else hours,
                        mark_price=mark, mark_source=sources[int(part.mark_source[k])],
                    )
                )  # fmt: skip
                venue = self._venues[instrument.split(":")[1]]
                if isinstance(venue, PaperVenue) and math.isfinite(mark):
                    venue.settle(instrument, float(part.funding_rate[k]), mark, int(part.raw_us[k]))
                self._settled_us = max(self._settled_us, int(part.paid_us[k]))
        return tuple(out)

    async def _mids(self) -> tuple[np.ndarray, np.ndarray]:
        """The mid of each leg's book, and whether there was one."""
        prices = np.full(len(self._config.combo.legs), np.nan)
        for leg, one in enumerate(self._config.combo.legs):
            try:
                prices[leg] = (await self._venues[one.parsed.venue].book(one.instrument)).mid
            except VenueDown:
                continue
        seen = np.isfinite(prices)
        self._last = np.where(seen, prices, self._last)
        return self._last, seen


def _minute_volatility_pct(prepared: Prepared) -> np.ndarray:
    """By leg, the standard deviation of a minute's return in percent, scaled from the returns of a day's bars."""
    panel = prepared.panel
    n_bars = max(round(24.0 / panel.bar_hours), 2) + 1
    close = np.column_stack(
        [panel.frame[f"close_{leg}"].to_numpy()[-n_bars:] for leg in range(len(panel.instruments))]
    )
    returns = np.diff(np.log(close), axis=0)
    spread = np.array([np.std(one[np.isfinite(one)]) if np.isfinite(one).sum() > 1 else np.nan for one in returns.T])
    return 100.0 * spread / math.sqrt(60.0 * panel.bar_hours)
