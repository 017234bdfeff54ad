"""A session on paper or for real: everything built from the configuration, started, watched, and ended.

The same engine in both modes; only the venues differ. Nothing is traded before journal and venues agree.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from basis_bt.backtest.cost_parameters import resolved_fees_bps
from basis_bt.backtest.parameters import fill_params
from basis_bt.core.config import config_dict, config_hash
from basis_bt.core.errors import ConfigError, StoreError
from basis_bt.core.live_models import Live
from basis_bt.core.models import Config
from basis_bt.kernels.structs import ATOMICITIES
from basis_bt.live import event_types
from basis_bt.live.account import Account
from basis_bt.live.ccxt_venue import CcxtVenue, ccxt_symbol
from basis_bt.live.client import Keys, open_account, read_keys
from basis_bt.live.clock import Clock
from basis_bt.live.combo import Combos
from basis_bt.live.guard import RiskGuard
from basis_bt.live.ids import prefix_of
from basis_bt.live.journal import Journal
from basis_bt.live.live_feed import LiveFeed
from basis_bt.live.lock import AccountLock
from basis_bt.live.marks import Session as SessionStart
from basis_bt.live.orders import LegResult
from basis_bt.live.paper import PaperVenue
from basis_bt.live.placing import Desk
from basis_bt.live.reconcile import Reconciler
from basis_bt.live.settling import outcome_of, unbooked
from basis_bt.live.strategy import Strategy
from basis_bt.live.trader import Trader
from basis_bt.live.venue import Venue
from basis_bt.market.exchange import open_client

Mode = Literal["paper", "live"]
STOP_FILE = "stop"
MARKET = "market"
PAPER = "paper"


def check_tradable(config: Config, mode: Mode) -> Live:
    """The live section of a configuration that may be traded in a mode; refused before any venue is asked.

    Raises
    ------
    ConfigError
        If a leg cannot be traded through ccxt, or real trading has no limits.
    """
    live = config.live or Live()
    for one in config.combo.legs:
        ccxt_symbol(one.instrument)
    if any(one.ratio < 0.0 and one.parsed.kind == "spot" for one in config.combo.legs) or (
        config.rule.reverse and any(one.kind == "spot" for one in config.combo.instruments)
    ):
        raise ConfigError(
            "a short spot leg cannot be traded live: nobody lends the coins here",
            fix="set rule.reverse = false, or write the combo with its spot legs long",
        )
    names = venue_names(config)
    if mode == "live" and (missing := live.limits.without_notional_limit(names)):
        raise ConfigError(
            f"live.limits.max_notional_usd says nothing of {', '.join(missing)}: real trading needs limits",
            fix="set [live.limits] max_notional_usd, one number or a table by venue",
        )
    return live


def venue_names(config: Config) -> list[str]:
    """The venues of the legs, each once."""
    return list(dict.fromkeys(one.venue for one in config.combo.instruments))


def make_venues(
    config: Config,
    mode: Mode,
    *,
    clock: Clock,
    keys: Mapping[str, Keys] | None = None,
    clients: Mapping[str, Any] | None = None,
    plan: Any = None,
    with_settings: bool = True,
) -> dict[str, Venue]:
    """The venues of a mode, not opened yet: with keys the accounts themselves, on paper simulated ones beside them.

    Parameters
    ----------
    keys : by venue, for real trading
    clients : ccxt clients to use instead of new ones, e.g. pointed at a fake
    plan : faults of paper accounts, for tests
    """
    live, out = config.live or Live(), dict[str, Venue]()
    names = venue_names(config)
    paper_usd = live.paper_balances_usd(names, capital_usd=config.size.capital_usd)
    for name in names:
        account = live.account(name)
        client = (clients or {}).get(name) or open_account(
            name, account, keys=(keys or {}).get(name), timeout_s=live.request_timeout_s(name)
        )
        real = CcxtVenue(
            name, client, clock=clock, account=account, leverage=account.leverage or config.size.leverage,
            is_public=mode == "paper", with_settings=with_settings,
        )  # fmt: skip
        if mode == "paper":
            quote = config.combo.instruments[0].symbol.split("-")[1]
            balances = paper_balances(config, name, paper_usd[name], quote)
            out[name] = PaperVenue(
                real, clock=clock, balances=balances, plan=plan, timeout_s=live.request_timeout_s(name)
            )
        else:
            out[name] = real
    return out


def paper_balances(config: Config, name: str, usd: float, quote: str) -> dict[str, dict[str, float]]:
    """The cash of a paper account by use: split as its legs tie it up, spot in full and contracts by their margin."""
    weights = {"spot": 0.0, "perp": 0.0}
    for leg in config.combo.legs:
        if leg.parsed.venue == name:
            kind = "perp" if leg.parsed.is_margined else "spot"
            weights[kind] += abs(leg.ratio) * (1.0 / config.size.leverage if leg.parsed.is_margined else 1.0)
    total = sum(weights.values())
    return {use: {quote: usd * weight / total} for use, weight in weights.items() if weight}


def keep_paper(journal: Journal, venues: Mapping[str, Venue], clock: Clock) -> None:
    """Paper accounts outlive the process in the journal."""
    for name, venue in venues.items():
        if isinstance(venue, PaperVenue):
            journal.put(f"{PAPER}:{name}", venue.snapshot(), ts_us=clock.now_us())


@dataclass(slots=True, kw_only=True)
class Session:
    """A session that is ready to run; see ``open_session``."""

    config: Config
    mode: Mode
    journal: Journal
    venues: dict[str, Venue]
    clock: Clock
    live: Live
    guard: RiskGuard
    combos: Combos
    keeper: Reconciler
    feed: LiveFeed
    trader: Trader
    start: SessionStart
    stop_file: Path | None
    why_stopped: str = ""
    _age_stage: int = 0
    _closers: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def run(self, *, on_look: Callable[["Session"], None] = lambda session: None) -> str:
        """Trade until the feed ends or somebody says stop; returns why it ended.

        A stop, also by SIGINT or SIGTERM, cancels every order and closes every position, and stays in force until a
        person resets it.
        """
        stopped = asyncio.Event()

        def stop(why: str) -> None:
            self.why_stopped = self.why_stopped or why
            stopped.set()

        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as handlers:
            for number, name in ((signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM")):
                with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                    loop.add_signal_handler(number, stop, name)
                    handlers.callback(loop.remove_signal_handler, number)
            await self._start()
            working = {
                asyncio.create_task(self.trader.run()),
                asyncio.create_task(self._look_often()),
                asyncio.create_task(self._show(on_look)),
            }
            waiting = asyncio.create_task(self._wait_for_stop(stop, stopped))
            done, pending = await asyncio.wait({*working, waiting}, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            if waiting in done:
                await self._stop()
            for task in done - {waiting}:
                if error := task.exception():
                    self.journal.append(
                        event_types.INCIDENT, ts_us=self.clock.now_us(), kind="engine", reason=f"{error!r:.300}"
                    )
                    raise error
        self._end(self.why_stopped or "the feed ended")
        return self.why_stopped or "the feed ended"

    async def _start(self) -> None:
        """Journal and venues must agree before anything is traded."""
        self.journal.record(event_types.SESSION_START, self.start, ts_us=self.clock.now_us())
        found = await self.keeper.start()
        self._book(found.results, cause="restart")
        self._note("restart", found.notes)

    def _book(self, after: Sequence[LegResult], *, cause: str) -> None:
        """Bring the trader's books up to the journal: the instruction that was cut off, then whatever has no result."""
        legs = self.combos.instruments
        contracts = [self.venues[one.split(":")[1]].contract(one) for one in legs]
        instruction = self.trader.unsettled
        if instruction is not None:
            self.trader.settle(outcome_of(self.journal, instruction, after, contracts=contracts))
        self.trader.take_in(unbooked(self.journal, legs, contracts), cause=cause)
        self._keep_paper()

    async def _wait_for_stop(self, stop: Callable[[str], None], stopped: asyncio.Event) -> None:
        """Until somebody says stop; looks for the stop file whatever else is going on."""
        while not stopped.is_set():
            if self.stop_file is not None and self.stop_file.exists():
                stop(self.stop_file.read_text(encoding="utf-8").strip() or "basis-bt stop")
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), self.live.poll_s)

    async def _look_often(self) -> None:
        """Compare with the venues; what they say, or that they say nothing, is written down when it changes."""
        said: list[str] = []
        silent_since_s: float | None = None
        while True:
            found = await self.keeper.look()
            self.trader.take_in(found.results, cause="venue")
            now_s = self.clock.monotonic_s()
            if found.notes != said:
                self._note("venues", found.notes)
                said = found.notes
            silent_since_s = (silent_since_s or now_s) if found.is_silent else None
            if silent_since_s is not None and now_s - silent_since_s >= self.live.limits.data_age_stop_s:
                reason = f"a venue has not answered for {now_s - silent_since_s:.0f} s"
                self.trader.warn([self.guard.open_breaker(self.clock.now_us(), reason, kind="venue")])
                silent_since_s = now_s
            self._age()
            self._keep_paper()
            await self.clock.sleep(self.live.execution.reconcile_s)

    async def _show(self, on_look: Callable[["Session"], None]) -> None:
        """The view, which must not end the trading."""
        while True:
            try:
                on_look(self)
            except Exception as error:
                self._note("view", [f"the view failed and is off: {error!r:.200}"])
                await asyncio.Event().wait()
            await self.clock.sleep(self.live.poll_s)

    def _note(self, kind: str, notes: Sequence[str]) -> None:
        for note in notes:
            self.journal.append(event_types.INCIDENT, ts_us=self.clock.now_us(), kind=kind, reason=note)

    def _age(self) -> None:
        """Warn of market data that has not come when a bar was over, once as it gets old and once when it stops."""
        late_s = 0.0
        if self.feed.data_us:
            late_s = (self.clock.now_us() - self.feed.data_us - self.config.data.bar_us) / 1e6
        alarms = self.guard.on_data_age(self.clock.now_us(), "bars", max(late_s, 0.0))
        stage = max((1 + alarm.is_stop for alarm in alarms), default=0)
        if stage > self._age_stage:
            self.trader.warn(alarms)
        self._age_stage = stage

    async def _stop(self) -> None:
        found = await self.keeper.stop(self.why_stopped)
        self._book(found.results, cause="stop")
        self.trader.mark_now()
        self._note("stop", found.notes)

    def _keep_paper(self) -> None:
        keep_paper(self.journal, self.venues, self.clock)

    def _end(self, why: str) -> None:
        self._keep_paper()
        self.journal.append(event_types.SESSION_END, ts_us=self.clock.now_us(), reason=why)
        if self.stop_file is not None:
            self.stop_file.unlink(missing_ok=True)

    async def stop_now(self, why: str) -> list[str]:
        """The emergency stop of a session that is not running; returns what was done, in sentences."""
        self.journal.record(event_types.SESSION_START, self.start, ts_us=self.clock.now_us())
        self.why_stopped = why
        found = await self.keeper.stop(why)
        self._book(found.results, cause="stop")
        self.trader.mark_now()
        self._end(why)
        done = [
            f"{'bought' if one.side > 0 else 'sold'} {one.filled_base:.10g} of {one.instrument}"
            for one in found.results
            if one.filled_base
        ]
        return [*done, *found.notes]

    async def close(self) -> None:
        """Release venues, journal and locks."""
        await self._closers.aclose()


async def open_session(
    config: Config,
    *,
    mode: Mode,
    journal: Path | None = None,
    clock: Clock | None = None,
    clients: Mapping[str, Any] | None = None,
    history: Callable[[str], Any] | None = None,
    environment: Mapping[str, str] | None = None,
    lock_folder: Path | None = None,
    n_bars: int | None = None,
    plan: Any = None,
    is_dry: bool = False,
) -> Session:
    """Build a session from a configuration; close it when done. No order is sent by this.

    Parameters
    ----------
    journal : its folder; ``live.journal`` of the configuration without one
    clients, history : ccxt clients by venue, and a maker of public ones, instead of those of the configuration
    environment : where keys are looked for
    n_bars : how many bars to trade; None: until stopped
    is_dry : only look: nothing is set at the venues, and the journal is in memory

    Raises
    ------
    ConfigError, StoreError
        For whatever stands against it: no limits, no keys, an account that is in use, a damaged journal.
    """
    live = check_tradable(config, mode)
    clock = clock or Clock()
    names, stack = venue_names(config), contextlib.AsyncExitStack()
    try:
        keys = {name: read_keys(name, live.account(name), environment=environment) for name in names
                if mode == "live"}  # fmt: skip
        if keys:
            stack.enter_context(AccountLock([(name, one.key) for name, one in keys.items()], lock_folder))
        folder = Path(live.journal) if journal is None else journal
        secrets = [value for one in keys.values() for value in one.values]
        book = stack.enter_context(Journal(None if is_dry else folder, secrets=secrets))
        _check_same(book, config, mode)
        for note in book.notes:
            book.append(event_types.INCIDENT, ts_us=clock.now_us(), kind="journal", reason=note)
        venues = make_venues(config, mode, clock=clock, keys=keys, clients=clients, plan=plan,
                             with_settings=not is_dry)  # fmt: skip
        for name, venue in venues.items():
            stack.push_async_callback(venue.close)
            kept = book.get(f"{PAPER}:{name}")
            if isinstance(venue, PaperVenue) and kept is not None:
                venue.restore(kept)
            await venue.open([one.instrument for one in config.combo.legs if one.parsed.venue == name])
        session = _assemble(config, mode, live, book, venues, clock, folder, history=history, n_bars=n_bars)
        session._closers = stack.pop_all()
        return session
    except BaseException:
        await stack.aclose()
        raise


def _check_same(journal: Journal, config: Config, mode: Mode) -> None:
    """A journal belongs to one combo and one mode: its cash and positions are theirs.

    Raises
    ------
    StoreError
        If it was begun with others.
    """
    earlier = journal.events(event_types.SESSION_START)
    if not earlier:
        return
    start, legs = earlier[-1].payload, config_dict(config)["combo"]["legs"]
    if start["mode"] != mode or start["config"]["combo"]["legs"] != legs:
        raise StoreError(
            f"the journal is one of {start['mode']} trading of "
            + ", ".join(f"{leg['ratio']:+g} {leg['instrument']}" for leg in start["config"]["combo"]["legs"]),
            where={"path": journal.path},
            fix="name another folder with --journal, or as live.journal",
        )


def _assemble(
    config: Config, mode: Mode, live: Live, journal: Journal, venues: dict[str, Venue], clock: Clock, folder: Path, *,
    history: Callable[[str], Any] | None, n_bars: int | None,
) -> Session:  # fmt: skip
    instruments = [leg.instrument for leg in config.combo.legs]
    ratios = [leg.ratio for leg in config.combo.legs]
    capital_usd = config.size.capital_usd
    kept = journal.get("guard")
    guard = RiskGuard.from_state(kept, live.limits, capital_usd) if kept else RiskGuard(live.limits, capital_usd)
    timeouts = {name: live.leg_timeout_s(name) for name in venues}
    desk = Desk(venues, journal, clock=clock, execution=live.execution, leg_timeout_s=timeouts)
    prefix = journal.get("prefix") or prefix_of(f"{config.name} {instruments} {clock.now_us()}")
    journal.put("prefix", prefix, ts_us=clock.now_us())
    def public(name: str) -> Any:
        return open_client(name, base_url=live.account(name).base_url)

    feed = LiveFeed(
        config, venues, clock=clock, journal=journal, folder=folder / MARKET, client_factory=history or public,
        n_bars=n_bars,
    )  # fmt: skip
    desk.on_done = lambda: keep_paper(journal, venues, clock)
    combos = Combos(
        desk,
        guard,
        instruments=instruments,
        ratios=ratios,
        limits=live.limits,
        execution=live.execution,
        atomicity="match" if ATOMICITIES[fill_params(config).atomicity] == "match" else "rollback",
        prefix=prefix,
        volatility_pct=feed.volatility_pct,
    )

    strategy = Strategy(config)
    trader = Trader(
        strategy,
        Account(instruments, ratios=ratios, reference=config.combo.reference, capital_usd=capital_usd),
        instruments=instruments,
        feed=feed,
        combos=combos,
        venues=venues,
        journal=journal,
        clock=clock,
        guard=guard,
    )
    trader.resume()
    start = SessionStart(
        mode=mode,
        config=config_dict(config),
        config_hash=config_hash(config),
        venues=list(venues),
        fees_bps=dict(zip(instruments, resolved_fees_bps(config), strict=True)),
    )
    return Session(
        config=config,
        mode=mode,
        journal=journal,
        venues=venues,
        clock=clock,
        live=live,
        guard=guard,
        combos=combos,
        keeper=Reconciler(combos, policy=live.on_unknown_position),
        feed=feed,
        trader=trader,
        start=start,
        stop_file=folder / STOP_FILE,
    )
