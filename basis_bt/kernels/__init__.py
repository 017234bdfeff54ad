"""Compiled rules: pure functions of arrays and scalars. Imports numpy, numba and itself only."""
