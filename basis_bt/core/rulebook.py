"""Facts of the venues, each row with its source, the date read and the day it is in force from.

The tables lie in ``core/venues``, one file a venue; ``docs/rulebook.md`` says how a row is chosen and how to add one.
"""

from basis_bt.core.rules.fees import FeeStep, fee_bps, fee_kind, fee_ladder
from basis_bt.core.rules.margin import MarginTiers, margin_tiers
from basis_bt.core.rules.moving import BorrowRule, TransferRule, borrow_rule, transfer_rule
from basis_bt.core.rules.rows import days_of_change, exchange, is_coin_margined, rulebook_hash
from basis_bt.core.rules.terms import (
    ContractSize,
    DeliveryRule,
    FundingRule,
    contract_size,
    delivery_rule,
    funding_rule,
    liquidation_fee_bps,
    lot_and_minimum,
)

__all__ = [
    "BorrowRule",
    "ContractSize",
    "DeliveryRule",
    "FeeStep",
    "FundingRule",
    "MarginTiers",
    "TransferRule",
    "borrow_rule",
    "contract_size",
    "days_of_change",
    "delivery_rule",
    "exchange",
    "fee_bps",
    "fee_kind",
    "fee_ladder",
    "funding_rule",
    "is_coin_margined",
    "liquidation_fee_bps",
    "lot_and_minimum",
    "margin_tiers",
    "rulebook_hash",
    "transfer_rule",
]
