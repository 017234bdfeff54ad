"""How long an account was exposed."""

from collections.abc import Sequence

from basis_bt.live.fake.simulator import SimVenue


def longest_naked_s(
    venues: Sequence[SimVenue], base: str, tolerance_base: float, *, since_us: int, until_us: int
) -> float:
    """Longest time with ``abs(net exposure) > tolerance`` over all venues together, in seconds."""
    changes = sorted(
        (ts_us, index, net)
        for index, venue in enumerate(venues)
        for ts_us, coin, net in venue.exposures
        if coin == base and ts_us <= until_us
    )
    nets = [0.0] * len(venues)
    naked_since, longest_us = None, 0
    for place, (ts_us, index, net) in enumerate(changes):
        nets[index] = net
        is_last_of_instant = place + 1 == len(changes) or changes[place + 1][0] > ts_us
        if not is_last_of_instant:
            continue
        if abs(sum(nets)) > tolerance_base:
            naked_since = max(ts_us, since_us) if naked_since is None else naked_since
        elif naked_since is not None:
            longest_us, naked_since = max(longest_us, ts_us - naked_since), None
    if naked_since is not None:
        longest_us = max(longest_us, until_us - naked_since)
    return longest_us / 1e6
