"""Random numbers that depend on nothing but what they are for: seed, trial, bar, leg and stream.

There is no state, so a draw is the same whatever the threads, the chunks or the order of the trials.
Source of the mixing steps: the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
"""

import numpy as np

from basis_bt.kernels._jit import wrapping_kernel

FILL, REJECT = 0, 1  # streams


@wrapping_kernel
def mix(value):
    """Scatter the bits of an unsigned 64-bit number."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@wrapping_kernel
def uniform(seed, trial, bar, leg, stream):
    """A number in [0, 1) for one leg in one bar of one trial."""
    value = mix(np.uint64(seed))
    value = mix(value ^ np.uint64(trial))
    value = mix(value ^ np.uint64(bar))
    value = mix(value ^ np.uint64(leg))
    value = mix(value ^ np.uint64(stream))
    return np.float64(value >> np.uint64(11)) * 2.0**-53
