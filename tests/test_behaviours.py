"""The battery: one set of checks that every cost, fill, margin, funding, borrow, loan and fee model passes.

The models and what each promises are in ``behaviours.py``; a check runs over all that make the promise.
"""

import math
from pathlib import Path

import numpy as np
import pytest
from behaviours import MODELS, MODULES, NOT_MODELS, OTHER_MODULES, public_kernels
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import basis_bt.kernels

KERNELS = Path(basis_bt.kernels.__file__).parent
RANDOM = settings(
    max_examples=25, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
PROMISES = ("size", "zero_with", "monotone", "scales", "mirrored", "worse", "between", "unrelated", "edges",
            "continuous", "differs_with")  # fmt: skip


def models_with(*promises):
    """Run a test once for each model that makes one of the promises; all without."""
    chosen = [model for model in MODELS if not promises or any(getattr(model, name) for name in promises)]
    return pytest.mark.parametrize("model", chosen, ids=str)


def bits(values):
    """Numbers as bytes, all NaN alike and without the sign of zero."""
    array = np.asarray(values, dtype=np.float64) + 0.0
    return np.where(np.isnan(array), np.nan, array).tobytes()


def copied(arguments, *, writeable):
    """The same arguments in arrays of their own."""
    own = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in arguments.items()}
    for name, value in own.items():
        if isinstance(value, np.ndarray):
            value.flags.writeable = name in writeable
    return own


def ordered(low, high):
    """Two values, or two arrays element by element, the smaller first."""
    assume(np.shape(low) == np.shape(high))
    pair = [least(low, high) for least in (np.minimum, np.maximum)]
    return pair if isinstance(low, np.ndarray) else [type(low)(value) for value in pair]


def mixed(mask, one, other):
    """One value with the elements of another where the mask is set."""
    if not isinstance(one, np.ndarray):
        return other if mask else one
    array = np.where(mask, other, one)
    array.flags.writeable = False
    return array


def times(value, factor):
    """A multiple of an argument, a read-only array if it is one."""
    product = value * type(value)(factor) if isinstance(value, int | float) else value * factor
    if isinstance(product, np.ndarray):
        product.flags.writeable = False
    return product


def changed(arguments, names, factor):
    """Arguments with some of them multiplied."""
    return {name: times(value, factor) if name in names else value for name, value in arguments.items()}


def assert_same(model, arguments, one, other):
    """Equal to the last bit, or within the rounding that the model is allowed."""
    slack = model.slack(arguments, one, other)
    if slack == 0.0:
        assert bits(one) == bits(other), (one, other)
        return
    finite = np.isfinite(one)
    assert bits(one[~finite]) == bits(other[~finite]), (one, other)
    assert (np.abs(one[finite] - other[finite]) <= slack).all(), (one, other)


def assert_not_above(model, arguments, low, high):
    """Not above, element by element, but for the rounding that the model is allowed; a NaN is a failure."""
    assert (low <= high + model.slack(arguments, low, high)).all(), (low, high)


# ------------------------------------------------------------------------------------------------------ all of them


@models_with()
@given(data=st.data())
@RANDOM
def test_the_same_inputs_give_the_same_bits_compiled_or_not(model, data):
    arguments = data.draw(model.arguments)
    outcomes = []
    with np.errstate(over="ignore"):
        for rule in (*model.rules, *model.rules):
            outcomes.append(bits(model.raw(rule, copied(arguments, writeable=model.writes))))
    assert len(set(outcomes)) == 1


@models_with()
@given(data=st.data())
@RANDOM
def test_inputs_are_left_as_they_were(model, data):
    arguments = data.draw(model.arguments)
    given_away = copied(arguments, writeable=arguments.keys())
    with np.errstate(over="ignore"):
        model.raw(model.rules[-1], given_away)
    for name in arguments.keys() - set(model.writes):
        assert bits(given_away[name]) == bits(arguments[name]), name


@models_with()
@given(data=st.data())
@RANDOM
def test_valid_inputs_give_a_number(model, data):
    outcome = model.outcome(data.draw(model.arguments))
    assert outcome.size > 0
    assert not np.isnan(outcome).any()
    assert model.undefined or np.isfinite(outcome).all()


# ---------------------------------------------------------------------------------------------------- what they promise


@models_with("size", "zero_with")
@given(data=st.data())
@RANDOM
def test_nothing_costs_nothing(model, data):
    arguments = data.draw(model.arguments)
    for name in filter(None, (model.size, *model.zero_with)):
        outcome = model.outcome(changed(arguments, (name,), 0.0))
        assert bits(outcome) == bits(np.zeros_like(outcome)), (name, outcome)


@models_with("size")
@given(data=st.data(), factor=st.floats(1.0, 10.0))
@RANDOM
def test_more_of_it_is_no_less(model, data, factor):
    arguments = data.draw(model.arguments)
    more = changed(arguments, (model.size,), factor)
    assert_not_above(model, more, np.abs(model.outcome(arguments)), np.abs(model.outcome(more)))


@models_with("monotone")
@given(data=st.data())
@RANDOM
def test_it_rises_and_falls_as_it_should(model, data):
    arguments, other = data.draw(model.arguments), data.draw(model.arguments)
    for name, direction in model.monotone.items():
        low, high = ordered(arguments[name], other[name])
        if isinstance(low, np.ndarray):
            low.flags.writeable = high.flags.writeable = False
        at_low, at_high = (model.outcome({**arguments, name: value}) for value in (low, high))
        pair = (at_low, at_high) if direction(arguments) > 0 else (at_high, at_low)
        assert_not_above(model, {**arguments, name: high}, *pair)


@models_with("scales")
@given(data=st.data())
@RANDOM
def test_it_scales_with_its_units(model, data):
    arguments = data.draw(model.arguments)
    for names, degree in model.scales:
        doubled = changed(arguments, names, 2.0)
        assert_same(model, doubled, model.outcome(doubled), 2.0**degree * model.outcome(arguments))


@models_with("mirrored")
@given(data=st.data())
@RANDOM
def test_both_sides_are_treated_alike(model, data):
    arguments = data.draw(model.arguments)
    for names, factor in model.mirrored:
        other_side = changed(arguments, names, -1.0)
        assert_same(model, arguments, model.outcome(other_side), factor * model.outcome(arguments))


@models_with("worse")
@given(data=st.data())
@RANDOM
def test_a_price_is_on_its_side_of_the_reference_for_buys_and_sells(model, data):
    arguments = data.draw(model.arguments)
    name, sign = model.worse
    for side in (1.0, -1.0):
        (price,) = model.outcome({**arguments, "side": side})
        assert side * sign * (price - arguments[name]) >= 0.0


@models_with("between")
@given(data=st.data())
@RANDOM
def test_it_stays_within_its_bounds(model, data):
    arguments = data.draw(model.arguments)
    low, high = model.between(arguments)
    outcome = model.outcome(arguments)
    slack = model.slack(arguments, outcome)
    assert (outcome >= np.subtract(low, slack)).all(), (low, outcome)
    assert (outcome <= np.add(high, slack)).all(), (outcome, high)


@models_with("unrelated")
@given(data=st.data())
@RANDOM
def test_what_does_not_concern_it_changes_nothing(model, data):
    arguments, other = data.draw(model.arguments), data.draw(model.arguments)
    before = model.outcome(arguments)
    for name, mask in model.unrelated.items():
        swapped = mixed(mask(arguments), arguments[name], other[name])
        assert_same(model, arguments, model.outcome({**arguments, name: swapped}), before)


@models_with("edges")
@given(data=st.data())
@RANDOM
def test_an_edge_belongs_to_its_side(model, data):
    arguments = data.draw(model.arguments)
    for name, edges_of in model.edges.items():
        edges, side = edges_of(arguments)
        for edge in filter(math.isfinite, edges):
            beside = math.nextafter(edge, side * math.inf)
            at_edge, at_beside = (model.outcome({**arguments, name: float(value)}) for value in (edge, beside))
            assert bits(at_edge) == bits(at_beside), (name, edge)


@models_with("continuous")
@given(data=st.data())
@RANDOM
def test_it_does_not_jump(model, data):
    arguments = data.draw(model.arguments)
    for name, near in model.continuous.items():
        points, slope = near(arguments)
        for point in filter(math.isfinite, points):
            below, above = point * (1.0 - 1e-9), point * (1.0 + 1e-9)
            ends = [{**arguments, name: float(value)} for value in (below, above)]
            before, after = (model.outcome(end) for end in ends)
            room = slope * (above - below) * (1.0 + 1e-6) + model.slack(ends[1], before, after)
            assert (np.abs(after - before) <= room).all(), (name, point)


@models_with("differs_with")
@given(data=st.data())
@RANDOM
def test_every_key_matters(model, data):
    arguments, other = data.draw(model.arguments), data.draw(model.arguments)
    for name in model.differs_with:
        assume(arguments[name] != other[name])
        assert bits(model.outcome(arguments)) != bits(model.outcome({**arguments, name: other[name]})), name


# ----------------------------------------------------------------------------------------------------- none forgotten


@pytest.mark.parametrize("module", MODULES)
def test_every_public_kernel_is_in_the_battery_or_says_why_not(module):
    found = public_kernels(module)
    tested = {name for name, kernel in found.items() if any(model.kernel is kernel for model in MODELS)}
    excused = NOT_MODELS.get(module, {})
    assert tested | excused.keys() == found.keys()
    assert not tested & excused.keys()
    assert all(excused.values())


def test_every_module_of_the_kernels_is_in_the_battery_or_says_why_not():
    found = {path.stem for path in KERNELS.glob("*.py")} - {"__init__"}
    assert found == set(MODULES) | OTHER_MODULES.keys()
    assert not set(MODULES) & OTHER_MODULES.keys()
    assert all(OTHER_MODULES.values())


@models_with()
def test_every_model_promises_something_of_its_own(model):
    assert any(getattr(model, name) for name in PROMISES)


def test_names_of_the_models_are_distinct():
    assert len({str(model) for model in MODELS}) == len(MODELS)
