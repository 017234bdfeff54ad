"""Many backtests at once: designs, engines, what they leave, and what may be believed of it."""
