"""Cash and margined positions of one account."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from basis_bt.live.fake.records import clean


@dataclass(slots=True, kw_only=True)
class SimPosition:
    """A margined position in base units, signed, at its average entry."""

    position_base: float = 0.0
    entry_price: float = 0.0
    leverage: float = 5.0
    margin_mode: str = "cross"
    updated_us: int = 0
    moments: list[tuple[int, float, float]] = field(default_factory=lambda: [(0, 0.0, 0.0)])

    def fill(self, change_base: float, price: float, ts_us: int) -> float:
        """Add a signed quantity; returns the profit realised on what it closed."""
        before = self.position_base
        after = clean(before + change_base)
        realised = 0.0
        if before * change_base < 0.0:
            closed = min(abs(before), abs(change_base))
            realised = closed * (price - self.entry_price) * (1.0 if before > 0.0 else -1.0)
            if before * after < 0.0:
                self.entry_price = price
        else:
            self.entry_price = (abs(before) * self.entry_price + abs(change_base) * price) / abs(after)
        if after == 0.0:
            self.entry_price = 0.0
        self.position_base = after
        self.updated_us = ts_us
        self.moments.append((ts_us, after, self.entry_price))
        return realised

    def seen(self, lag: int) -> tuple[int, float, float]:
        """``(updated_us, position_base, entry_price)`` of so many changes ago."""
        return self.moments[max(0, len(self.moments) - 1 - lag)]

    def profit(self, mark_price: float) -> float:
        """Unrealised, at a mark price."""
        return self.position_base * (mark_price - self.entry_price)


@dataclass(slots=True)
class Wallets:
    """Cash by wallet and asset; what is locked is for the venue to say."""

    cash: dict[str, dict[str, float]]

    @classmethod
    def filled(cls, names: Mapping[str, str], balances: Mapping[str, Mapping[str, float]]) -> "Wallets":
        """``balances`` by use (``spot``, ``perp``, ``funding``); uses that share a wallet add up."""
        cash: dict[str, dict[str, float]] = {wallet: {} for wallet in names.values()}
        for use, amounts in balances.items():
            for asset, amount in amounts.items():
                wallet = cash[names[use]]
                wallet[asset] = clean(wallet.get(asset, 0.0) + amount)
        return cls(cash)

    def amount(self, wallet: str, asset: str) -> float:
        """Total of an asset in one wallet."""
        return self.cash[wallet].get(asset, 0.0)

    def total(self, asset: str) -> float:
        """Over all wallets."""
        return clean(sum(assets.get(asset, 0.0) for assets in self.cash.values()))

    def add(self, wallet: str, asset: str, amount: float) -> None:
        """Book a signed amount."""
        self.cash[wallet][asset] = clean(self.amount(wallet, asset) + amount)
