"""nautilus_trader on the common task: its low-level ``BacktestEngine``, one margin account, a strategy in Python.

    python -m benchmarks.peers.nautilus_peer --json

A market order sent while a bar is handled fills at that bar's close. So that it fills at an open, the same prices are
cut the other way: a bar from the last close to the next open, stamped at the open, where the strategy marks the equity
of the close and then decides. One bar an hour and instrument either way. The half spread is charged as part of the
commission, exactly. Spot is bought on the margin account at leverage 1, the perp sold at 3. No funding. Logging,
pre-trade risk checks and the analysis after a run are off. Making the engine and its bars is not timed.
"""

import time
from decimal import Decimal

import nautilus_trader
import numpy as np
import pandas as pd
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.backtest.models import FeeModel
from nautilus_trader.common.config import LoggingConfig
from nautilus_trader.model.currencies import BTC, USDT
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import CryptoPerpetual, CurrencyPair
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.persistence.wranglers import BarDataWrangler
from nautilus_trader.risk.config import RiskEngineConfig
from nautilus_trader.trading.strategy import Strategy

from benchmarks.peers.task import (
    CAPITAL_USD,
    HALF_SPREAD,
    LEVERAGE,
    PERP_FEE,
    SPOT_FEE,
    START,
    Answers,
    Market,
    Pairs,
    command,
    spread_quantity,
)

VENUE = Venue("SIM")
SPOT, PERP = (InstrumentId(Symbol(name), VENUE) for name in ("BTCUSDT", "BTCUSDT-PERP"))
SPOT_BARS, PERP_BARS = (BarType.from_str(f"{name}-1-HOUR-LAST-EXTERNAL") for name in (SPOT, PERP))
FEES = {SPOT: SPOT_FEE, PERP: PERP_FEE}


class SpreadAndFee(FeeModel):
    """The half spread and the fee on the price that it makes worse, in one commission."""

    def get_commission(self, order, fill_qty, fill_px, instrument):
        """Commission of one fill."""
        side = 1.0 if order.side == OrderSide.BUY else -1.0
        rate = HALF_SPREAD + FEES[instrument.id] * (1.0 + side * HALF_SPREAD)
        return Money(float(fill_qty) * float(fill_px) * rate, USDT)


class Spread(Strategy):
    """The rule on bars that end at an open; the perp's bar is the later one of each stamp."""

    def __init__(self, signal: list[float], entry: float, exit_: float) -> None:
        super().__init__()
        self.signal, self.entry, self.exit_ = signal, entry, exit_
        self.hour = 0
        self.spot_bar: Bar | None = None
        self.cash = self.equity = self.peak = CAPITAL_USD
        self.deepest = 0.0
        self.position = {SPOT: 0.0, PERP: 0.0}

    def on_start(self) -> None:
        """Look up the instruments and ask for their bars."""
        self.instruments = {name: self.cache.instrument(name) for name in (SPOT, PERP)}
        self.account = self.portfolio.account(VENUE)
        self.subscribe_bars(SPOT_BARS)
        self.subscribe_bars(PERP_BARS)

    def on_bar(self, bar: Bar) -> None:
        """Mark at the close the bar starts from, then decide at the open it ends at."""
        if bar.bar_type == SPOT_BARS:
            self.spot_bar = bar
            return
        spot_bar, quantity = self.spot_bar, self.position[SPOT]
        self.equity = self.cash
        if quantity:
            self.equity += quantity * float(spot_bar.open) + self.position[PERP] * float(bar.open)
        self.peak = max(self.peak, self.equity)
        self.deepest = max(self.deepest, 1.0 - self.equity / self.peak)
        signal = self.signal[self.hour]
        self.hour += 1
        if not quantity and signal >= self.entry:
            equity = self.account.balance_total(USDT).as_double()
            quantity = spread_quantity(equity, float(spot_bar.close), float(bar.close))
            self.trade(SPOT, OrderSide.BUY, quantity)
            self.trade(PERP, OrderSide.SELL, quantity)
        elif quantity and signal <= self.exit_:
            self.trade(SPOT, OrderSide.SELL, quantity)
            self.trade(PERP, OrderSide.BUY, quantity)

    def trade(self, name: InstrumentId, side: OrderSide, quantity: float) -> None:
        """A market order of one leg."""
        self.submit_order(self.order_factory.market(name, side, self.instruments[name].make_qty(quantity)))

    def on_order_filled(self, event) -> None:
        """The books of the drawdown, from the engine's own fills."""
        signed = float(event.last_qty) * (1.0 if event.order_side == OrderSide.BUY else -1.0)
        position = self.position[event.instrument_id] + signed
        self.position[event.instrument_id] = 0.0 if abs(position) < 1e-9 else position
        self.cash -= signed * float(event.last_px) + event.commission.as_double()


def instruments() -> tuple[CurrencyPair, CryptoPerpetual]:
    """Spot and perp with ticks of a cent and lots of 1e-8."""
    common = {
        "base_currency": BTC,
        "quote_currency": USDT,
        "price_precision": 2,
        "size_precision": 8,
        "price_increment": Price(0.01, 2),
        "size_increment": Quantity(1e-8, 8),
        "lot_size": None,
        "margin_init": Decimal(1),
        "margin_maint": Decimal("0.005"),
        "maker_fee": Decimal(0),
        "taker_fee": Decimal(0),
        "ts_event": 0,
        "ts_init": 0,
    }
    spot = CurrencyPair(SPOT, SPOT.symbol, **common)
    return spot, CryptoPerpetual(PERP, PERP.symbol, settlement_currency=USDT, is_inverse=False, **common)


def opening_bars(bar_type: BarType, instrument, open_price: np.ndarray, close_price: np.ndarray) -> list[Bar]:
    """Bars from a close to the next open, stamped at the open, and one at the end for the last close."""
    start = np.concatenate((open_price[:1], close_price))
    end = np.concatenate((open_price, close_price[-1:]))
    columns = {"open": start, "high": np.maximum(start, end), "low": np.minimum(start, end), "close": end}
    index = pd.date_range(START, periods=len(end), freq="h", tz="UTC", name="timestamp")
    return BarDataWrangler(bar_type, instrument).process(pd.DataFrame(columns, index=index))


def prepared(market: Market) -> BacktestEngine:
    """The engine with venue, instruments and bars."""
    engine = BacktestEngine(
        BacktestEngineConfig(
            logging=LoggingConfig(bypass_logging=True), risk_engine=RiskEngineConfig(bypass=True), run_analysis=False
        )
    )
    engine.add_venue(
        VENUE,
        OmsType.NETTING,
        AccountType.MARGIN,
        [Money(CAPITAL_USD, USDT)],
        base_currency=USDT,
        default_leverage=Decimal(1),
        leverages={PERP: Decimal(int(LEVERAGE))},
        fee_model=SpreadAndFee(),
    )
    spot, perp = instruments()
    engine.add_instrument(spot)
    engine.add_instrument(perp)
    engine.add_data(opening_bars(SPOT_BARS, spot, market.spot_open, market.spot_close))
    engine.add_data(opening_bars(PERP_BARS, perp, market.perp_open, market.perp_close))
    return engine


def run(market: Market, pairs: Pairs) -> Answers:
    """All pairs, each on an engine of its own: one that is reset in between takes longer with every trial."""
    total_return, max_drawdown = np.empty(len(pairs)), np.empty(len(pairs))
    signal = [*market.signal_apr.tolist(), np.nan]  # of the bar at the end, which only marks
    seconds = 0.0
    for k, (entry, exit_) in enumerate(pairs):
        engine = prepared(market)
        strategy = Spread(signal, entry, exit_)
        engine.add_strategy(strategy)
        started = time.perf_counter()
        engine.run()
        seconds += time.perf_counter() - started
        total_return[k] = strategy.equity / CAPITAL_USD - 1.0
        max_drawdown[k] = strategy.deepest
        engine.dispose()
    note = "2 bars an hour, half spread within the commission, lots of 1e-8, no funding; making engine and bars untimed"
    return Answers(total_return, max_drawdown, seconds, note)


if __name__ == "__main__":
    version = f"nautilus_trader {nautilus_trader.__version__}"
    command("nautilus_peer", {"engine": run}, version=version, n_trials=4, repeats=2)
