"""Exchanges that exist in memory only, speak the REST of the real ones, and misbehave on request."""
