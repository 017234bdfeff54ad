"""The rulebook, one subject a file: rows and their choice, fees, margin, terms of contracts, borrow and transfers."""
