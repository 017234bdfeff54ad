"""Small operations on arrays that more than one folder needs."""

import numpy as np


def carried(values: np.ndarray) -> np.ndarray:
    """Each column with NaN replaced by the last value above it; shape ``(n_rows, n_columns)``."""
    rows = np.where(np.isnan(values), 0, np.arange(len(values))[:, None])
    return np.take_along_axis(values, np.maximum.accumulate(rows, axis=0), axis=0)
