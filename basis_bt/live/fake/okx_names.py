"""How OKX names what it trades."""

from basis_bt.live.venue import Contract


def pair(contract: Contract) -> str:
    """``BTC-USDT``, also the family of its contracts."""
    return f"{contract.base}-{contract.quote}"


def inst_type(contract: Contract) -> str:
    """``SPOT`` or ``SWAP``."""
    return "SWAP" if contract.is_margined else "SPOT"


def inst_id(contract: Contract) -> str:
    """``BTC-USDT`` or ``BTC-USDT-SWAP``."""
    return pair(contract) + ("-SWAP" if contract.is_margined else "")
