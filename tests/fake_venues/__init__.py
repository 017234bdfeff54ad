"""Venues on the loopback: real clients talk to them, one market model stands behind all of them.

``model`` says what happened in the market, ``server`` speaks HTTP and spoils answers by a list of faults, and each
venue is one module of pure functions from parameters to a status and an object.
"""

from fake_venues.model import Listing, MarketModel
from fake_venues.server import FakeVenue, Fault

__all__ = ["FakeVenue", "Fault", "Listing", "MarketModel"]
