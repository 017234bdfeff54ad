"""Exchanges that exist in memory only, speak the REST of the real ones, and misbehave on request.

::

    simulator.py   the truth of one account: books, cash, positions, orders, trades, settlements
    server.py      several of them behind one loopback server; binance.py, bybit.py and okx.py are their dialects
    faults.py      what goes wrong with which request; scenarios.py has the numbered cases, soak.py the random ones
    gate.py        the same faults without a connection, for paper trading
    clients.py     real ccxt clients pointed at the server; virtual_time.py the event loop on which waiting is free
"""
