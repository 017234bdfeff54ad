"""Marking at the closes (step 6): the price PnL of a bar, and whether what is held has a price of it."""

from basis_bt.kernels._jit import inner_kernel, kernel
from basis_bt.kernels.books import book_price_move
from basis_bt.kernels.structs import (
    ACTION,
    ATTEMPT_BASIS,
    ATTEMPT_DELTA,
    CHANGE,
    CLOSE_FROM,
    DROPPED_BAR,
    EXCESS,
    EXCESS_PRICE,
    FILL_BAR,
    FILLED,
    FROM_PRICE,
    ROLLBACK_PRICE,
    START_BAR,
)


@kernel
def book_held(books, position_base, before, close, reference):
    """Price PnL of a bar on what was held all through it, from close to close."""
    for leg in range(len(close)):
        held = position_base[leg]
        if held != 0.0:
            book_price_move(books, leg, held, before[leg], close[leg], before[reference], close[reference])


@inner_kernel
def book_order(bar, order, account, close_price, reference):
    """Price PnL of a bar on what an order filled, on the parts of an attempt, and on what is to be closed again."""
    close, books, start_price = close_price[bar], account.books, account.legs[FROM_PRICE]
    before = close_price[max(bar - 1, 0)]
    is_open_attempt = order.state[ACTION] >= 0 and order.state[START_BAR] >= 0 and order.state[CLOSE_FROM] < 0
    for leg in range(len(close)):
        change = account.legs[CHANGE, leg]
        if change != 0.0:
            book_price_move(books, leg, change, start_price[leg], close[leg], start_price[reference], close[reference])
        if is_open_attempt and order.legs[FILLED, leg] != 0.0:
            start = start_price if order.marks[FILL_BAR, leg] == bar else before
            reference_move = close[reference] - start[reference]
            order.legs[ATTEMPT_DELTA, leg] += order.legs[FILLED, leg] * reference_move
            order.legs[ATTEMPT_BASIS, leg] += order.legs[FILLED, leg] * ((close[leg] - start[leg]) - reference_move)
        excess = order.legs[EXCESS, leg]
        if excess != 0.0:
            books[leg, ROLLBACK_PRICE] -= excess * (close[leg] - order.legs[EXCESS_PRICE, leg])
            order.legs[EXCESS_PRICE, leg] = close[leg]
            if account.counts[DROPPED_BAR] == bar:
                order.legs[EXCESS, leg] = 0.0


@kernel
def is_stale(position, missing):
    """Whether a held leg has no bar."""
    for leg in range(len(position)):
        if position[leg] != 0.0 and missing[leg]:
            return True
    return False
