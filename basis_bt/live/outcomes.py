"""What an error of ccxt says about an order that was sent: refused, or unknown. No third way leads to a second send.

Refused needs proof: a code of the venue that is known to mean "no", or an error class that means it together with a
code in the text. A lost reply, a reply without an id, a code nobody knows, and what is raised while a reply is read are
unknown.
Source: ccxt's error tree and the venues' code lists, measured against a loopback venue.
"""

import re
from typing import Literal, NamedTuple

Outcome = Literal["refused", "resend", "unknown"]

_CODE = re.compile(r'"(?:code|retCode|sCode)"\s*:\s*"?(-?\d+)')

#: codes that are proof of a refusal, and why; also where ccxt gives them a class that would say something else
_REFUSED: dict[str, dict[str, str]] = {
    "binance": {
        "-1013": "minimum", "-4164": "minimum", "-1111": "lot", "-4014": "lot", "-2018": "funds", "-2019": "funds",
        "-2027": "size", "-4005": "size", "-4131": "price", "-4016": "price", "-5022": "post_only",
        "-2022": "reduce_only", "-4061": "position_mode", "-2015": "permission", "-2014": "permission",
        "-1022": "permission", "-1121": "symbol", "-4140": "halted", "-4108": "halted",
    },
    "bybit": {
        "110094": "minimum", "170140": "minimum", "170136": "lot", "10001": "lot", "110004": "funds", "110007": "funds",
        "110012": "funds", "110052": "funds", "170131": "funds", "170124": "size", "110003": "price", "170193": "price",
        "110017": "reduce_only", "10003": "permission", "10004": "permission", "10005": "permission",
        "110074": "halted", "110066": "halted", "170121": "symbol",
    },
    "okx": {
        "51020": "minimum", "51121": "lot", "51008": "funds", "51119": "funds", "51127": "funds", "51131": "funds",
        "59108": "funds", "51004": "size", "51202": "size", "51006": "price", "51169": "reduce_only",
        "51000": "position_mode",
        "50111": "permission", "50113": "permission", "50105": "permission",
        "51022": "halted", "51027": "halted", "51155": "permission",
    },
}  # fmt: skip
#: the same in words, where one code has many meanings and ccxt passes on the words without it
_REFUSED_WORDS = {
    "binance": {
        "Filter failure": "filter", "Account has insufficient balance": "funds", "Market is closed": "halted",
        "Order would immediately match and take": "post_only", "may not place or cancel orders": "permission",
        "This action is disabled on this account": "permission",
    },
}  # fmt: skip
#: the venue has an order of this id: it is there, look it up
_EXISTS = {"binance": {"-4116"}, "bybit": {"110072", "170141"}, "okx": {"51016"}}
#: nobody knows, whatever class ccxt gives it. A venue that is busy says so before it looks at the order, or after:
#: Bybit has one code for both, and a look-up is cheaper than a leg nobody knows of
_UNKNOWN = {
    "binance": {"-1006", "-1007", "-1008"},
    "bybit": {"10016", "110079", "10000"},
    "okx": {"50004", "51149", "50013", "50026", "50001"},
}
_CLOCK = {"binance": {"-1021"}, "bybit": {"10002"}, "okx": {"50102"}}
_CROWDED = {"binance": {"-1003", "-1015"}, "bybit": {"10006", "10018", "10429"}, "okx": {"50011", "50061"}}


class Verdict(NamedTuple):
    """What became of an order, and why in a word.

    ``refused``: nothing exists; ``resend``: refused before it was looked at, because of the clock or the rate, so that
    it may go out once more; ``unknown``: look it up.
    """

    outcome: Outcome
    kind: str


def judge_send(error: BaseException, *, venue: str, was_sent: bool) -> Verdict:
    """What became of an order whose send raised this.

    Parameters
    ----------
    venue : whose codes are in the text
    was_sent : whether a request left this machine; what ccxt refuses by itself never does
    """
    import ccxt.async_support as ccxt

    if not was_sent and isinstance(error, ccxt.BaseError) and not isinstance(error, ccxt.NetworkError):
        return Verdict("refused", "local")
    text = str(error)
    found = _CODE.findall(text)
    codes = set(found)
    if codes & _EXISTS.get(venue, set()) or isinstance(error, ccxt.DuplicateOrderId) or "uplicate order" in text:
        return Verdict("unknown", "exists")
    if codes & _UNKNOWN.get(venue, set()):
        return Verdict("unknown", "venue")
    if codes & _CLOCK.get(venue, set()) or isinstance(error, ccxt.InvalidNonce):
        return Verdict("resend", "clock")
    if codes & _CROWDED.get(venue, set()) or isinstance(error, ccxt.RateLimitExceeded | ccxt.DDoSProtection):
        return Verdict("resend", "rate")
    known = _REFUSED.get(venue, {})
    for code in found:
        if code in known:
            return Verdict("refused", known[code])
    for words, kind in _REFUSED_WORDS.get(venue, {}).items():
        if words in text:
            return Verdict("refused", kind)
    if found and not isinstance(error, ccxt.OrderNotFound):
        if isinstance(error, ccxt.InsufficientFunds):
            return Verdict("refused", "funds")
        if isinstance(error, ccxt.OrderImmediatelyFillable | ccxt.OrderNotFillable):
            return Verdict("refused", "post_only")
        if isinstance(error, ccxt.InvalidOrder | ccxt.BadRequest | ccxt.AuthenticationError | ccxt.OperationRejected
                      | ccxt.NotSupported):  # fmt: skip
            return Verdict("refused", "other")
    return Verdict("unknown", "reply")


def is_gone(error: BaseException, *, venue: str) -> bool:
    """Whether a cancel or a look-up was told that there is no such order."""
    import ccxt.async_support as ccxt

    codes = set(_CODE.findall(str(error)))
    gone = {
        "binance": {"-2011", "-2013"},
        "bybit": {"110001", "170213", "170142"},
        "okx": {"51400", "51401", "51402", "51603", "51410"},
    }
    return isinstance(error, ccxt.OrderNotFound) or bool(codes & gone.get(venue, set()))


def is_unchanged(error: BaseException) -> bool:
    """Whether a setting was refused because it is so already."""
    import ccxt.async_support as ccxt

    same = {"-4046", "-4059", "110025", "110026", "110043"}
    return isinstance(error, ccxt.NoChange) or bool(set(_CODE.findall(str(error))) & same)


def is_crowded(error: BaseException, *, venue: str) -> bool:
    """Whether a venue asks us to be quiet for a while."""
    return judge_send(error, venue=venue, was_sent=True) == ("resend", "rate")


def is_clock(error: BaseException, *, venue: str) -> bool:
    """Whether a venue finds our time wrong."""
    return judge_send(error, venue=venue, was_sent=True) == ("resend", "clock")
