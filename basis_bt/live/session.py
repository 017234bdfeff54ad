"""A session on paper or for real: everything built from the configuration, started, watched, and ended.

The same engine in both modes; only the venues differ. Nothing is traded before journal and venues agree.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from basis_bt.backtest.cost_parameters import resolved_fees_bps
from basis_bt.backtest.parameters import fill_params
from basis_bt.core.config import config_dict, config_hash
from basis_bt.core.errors import ConfigError
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
from basis_bt.live.paper import PaperVenue
from basis_bt.live.placing import Desk
from basis_bt.live.reconcile import Reconciler
from basis_bt.live.settling import outcome_of
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
            trading = asyncio.create_task(self.trader.run())
            looking = asyncio.create_task(self._look_often(stop, on_look))
            waiting = asyncio.create_task(stopped.wait())
            done, pending = await asyncio.wait({trading, looking, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if waiting in done:
                await self._stop(trading)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
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
        instruction = self.trader.unsettled
        if instruction is None:
            self.trader.take_in(found.results, cause="restart")
        else:
            contracts = [venue.contract(one) for one in self.combos.instruments
                         for venue in [self.venues[one.split(":")[1]]]]  # fmt: skip
            self.trader.settle(outcome_of(self.journal, instruction, found.results, contracts=contracts))
        self._keep_paper()

    async def _look_often(self, stop: Callable[[str], None], on_look: Callable[["Session"], None]) -> None:
        next_s = self.clock.monotonic_s()
        while True:
            if self.stop_file is not None and self.stop_file.exists():
                stop(self.stop_file.read_text(encoding="utf-8").strip() or "basis-bt stop")
            if self.clock.monotonic_s() >= next_s:
                next_s = self.clock.monotonic_s() + self.live.execution.reconcile_s
                found = await self.keeper.look()
                self.trader.take_in(found.results, cause="venue")
                self._age()
                self._keep_paper()
            on_look(self)
            await self.clock.sleep(min(self.live.poll_s, self.live.execution.reconcile_s))

    def _age(self) -> None:
        """Warn of market data that has not come when a bar was over."""
        if self.feed.data_us:
            bar_us = self.config.data.bar_us
            late_s = (self.clock.now_us() - self.feed.data_us - bar_us) / 1e6
            self.trader.warn(self.guard.on_data_age(self.clock.now_us(), "bars", max(late_s, 0.0)))

    async def _stop(self, trading: "asyncio.Task[None]") -> None:
        trading.cancel()
        await asyncio.gather(trading, return_exceptions=True)
        found = await self.keeper.stop(self.why_stopped)
        self.trader.take_in(found.results, cause="stop")
        for note in found.notes:
            self.journal.append(event_types.INCIDENT, ts_us=self.clock.now_us(), kind="stop", reason=note)

    def _keep_paper(self) -> None:
        """Paper accounts outlive the process in the journal."""
        for name, venue in self.venues.items():
            if isinstance(venue, PaperVenue):
                self.journal.put(f"{PAPER}:{name}", venue.snapshot(), ts_us=self.clock.now_us())

    def _end(self, why: str) -> None:
        self._keep_paper()
        self.journal.append(event_types.SESSION_END, ts_us=self.clock.now_us(), reason=why)
        if self.stop_file is not None:
            self.stop_file.unlink(missing_ok=True)

    async def stop_now(self, why: str) -> list[str]:
        """The emergency stop of a session that is not running; returns what a person should know."""
        await self._start()
        found = await self.keeper.stop(why)
        self.trader.take_in(found.results, cause="stop")
        self._end(why)
        return found.notes

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


def _assemble(
    config: Config, mode: Mode, live: Live, journal: Journal, venues: dict[str, Venue], clock: Clock, folder: Path, *,
    history: Callable[[str], Any] | None, n_bars: int | None,
) -> Session:  # fmt: skip
    instruments = [leg.instrument for leg in config.combo.legs]
    ratios = [leg.ratio for leg in config.combo.legs]
    capital_usd = config.size.capital_usd
    kept = journal.get("guard")
    guard = RiskGuard.from_state(kept, live.limits, capital_usd) if kept else RiskGuard(live.limits, capital_usd)
    desk = Desk(venues, journal, clock=clock, execution=live.execution)
    prefix = journal.get("prefix") or prefix_of(f"{config.name} {instruments} {clock.now_us()}")
    journal.put("prefix", prefix, ts_us=clock.now_us())
    def public(name: str) -> Any:
        return open_client(name, base_url=live.account(name).base_url)

    feed = LiveFeed(
        config, venues, clock=clock, journal=journal, folder=folder / MARKET, client_factory=history or public,
        n_bars=n_bars,
    )  # fmt: skip
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
