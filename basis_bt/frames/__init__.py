"""From raw series to one bar grid, and from there through one door (``panel.py``) to arrays."""
