"""Walk-forward windows: choose on one stretch of bars, judge on the next."""

from dataclasses import dataclass

from basis_bt.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Bar indices, each stretch from its first bar up to but without its last."""

    train_from: int
    train_to: int
    test_from: int
    test_to: int


def windows(n_bars: int, *, train_bars: int, test_bars: int, anchored: bool, purge_bars: int = 0) -> list[Window]:
    """Windows whose test stretches follow each other without gap or overlap up to the last bar.

    Each test follows its training, ``purge_bars`` later. Training is the ``train_bars`` bars before that, or with
    ``anchored`` all bars before that, ``train_bars`` in the first window. The last test may be shorter than
    ``test_bars``, down to one bar, so that no bar at the end is lost. ``purge_bars`` must reach as far as a position
    is held and a signal looks back.

    Raises
    ------
    ConfigError
        If a length is not positive, ``purge_bars`` is negative, or no bar is left for a test.
    """
    lengths = {"n_bars": n_bars, "train_bars": train_bars, "test_bars": test_bars}
    for name, value in lengths.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, found {value}")
    if purge_bars < 0:
        raise ConfigError(f"purge_bars must be 0 or more, found {purge_bars}")
    first = train_bars + purge_bars
    if first >= n_bars:
        raise ConfigError(
            f"no bar is left for a test: {train_bars} of training and {purge_bars} purged, of {n_bars}",
            where=lengths | {"purge_bars": purge_bars},
            fix="train on fewer bars, or take a longer period",
        )
    return [
        Window(
            train_from=0 if anchored else test_from - first,
            train_to=test_from - purge_bars,
            test_from=test_from,
            test_to=min(test_from + test_bars, n_bars),
        )
        for test_from in range(first, n_bars, test_bars)
    ]
