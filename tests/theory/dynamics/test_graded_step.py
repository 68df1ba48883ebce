"""Long steps of the modal flow against arithmetic in many digits, row by row relative to the row."""

from itertools import combinations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory.dynamics.graded_step import long_step
from theory.dynamics.modal_flow import ModalFlow

EPS = np.finfo(float).eps


def exact_products(rows, eigenvalues, dt):
    """Return A A^T at time dt from its closed form, in 700 digits: the growths here differ by e^{+-1000}."""
    with mpmath.workdps(700):
        a = mpmath.matrix(rows.tolist())
        growth = [mpmath.exp(mpmath.mpf(float(x)) * dt) for x in eigenvalues]
        p = [
            (e**2 - 1) / (2 * mpmath.mpf(float(x))) if x else mpmath.mpf(dt)
            for x, e in zip(eigenvalues, growth, strict=True)
        ]
        n, k = rows.shape
        inner = mpmath.eye(k)
        for i in range(k):
            for j in range(k):
                inner[i, j] += sum(a[m, i] * p[m] * a[m, j] for m in range(n))
        products = a * mpmath.inverse(inner) * a.T
        return np.array([[float(products[i, j] * growth[i] * growth[j]) for j in range(n)] for i in range(n)])


@given(
    st.integers(2, 6),
    st.integers(1, 4),
    st.floats(-3, 2),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=30)
def test_every_product_of_rows_keeps_its_digits(n, k, exponent, parallel, seed):
    rng, dt = np.random.default_rng(seed), 10**exponent
    eigenvalues = np.sort(rng.choice([3.0, 2.99, 2.0, 1.0, 0.5, 0.0, -1.0, -2.0, 1e-9], n))[::-1]
    rows = rng.normal(size=(n, k)) * 10 ** rng.uniform(-30, 0.5, (n, 1))
    found = long_step(rows, eigenvalues, dt, parallel=parallel)
    expected = exact_products(rows, eigenvalues, dt)
    size = np.sqrt(np.diag(expected))
    # An error eps of each row counts as often as the rows are ill-conditioned once their sizes are taken out, which for
    # k <= 4 generic ones is below 1e3 at all but one in a thousand draws; exponents of 300 are known to 300 eps.
    error = np.abs(found @ found.T - expected) / np.maximum(np.outer(size, size), 1e-290)
    worst = max(np.linalg.cond(rows[c] / np.linalg.norm(rows[c], axis=1)[:, None]) for c in chosen(n, k))
    assert error.max() <= EPS * (1000 + 64 * worst**2)


def chosen(n, k):
    """Return sets of up to k rows: which of them rule depends on their sizes."""
    return [list(c) for r in range(1, min(n, k) + 1) for c in combinations(range(n), r)]


def test_parallel_steps_turn_the_hidden_units_as_the_symmetric_root():
    rng = np.random.default_rng(1)
    flow = ModalFlow(0.4 * rng.normal(size=(3, 4)), 0.4 * rng.normal(size=(5, 3)), rng.normal(size=(5, 4)), 1.0, 0.0)
    for dt in (0.01, 0.3, 2.0):
        root = flow._advanced(flow.start, np.array([dt]))[0]
        found = long_step(flow.start, flow.eigenvalues, dt, parallel=True)
        # the root's own error: eps times the condition e^{2 s dt} of I + A^T P A, s = 4 at most
        assert np.abs(found - root).max() <= 64 * EPS * np.exp(2 * flow.eigenvalues[0] * dt) * np.abs(root).max()


def test_rows_without_weight_stay_without():
    rows = np.array([[0.0, 0.0], [1e-200, 0.0], [0.3, 0.1]])
    found = long_step(rows, np.array([5.0, 3.0, 1.0]), 400.0, parallel=True)
    assert not found[0].any()
    # 3 t = 1200 against log(1e200) = 461: the second row has taken its place, and the third the other one
    assert np.linalg.norm(found[1]) == pytest.approx(np.sqrt(6), rel=1e-12)
    assert np.linalg.norm(found[2]) == pytest.approx(np.sqrt(2), rel=1e-12)


@pytest.mark.parametrize("dt", [1e10, 1e100, 1e300])
def test_the_longest_steps_end_at_the_limit(dt):
    rng = np.random.default_rng(0)
    found = long_step(rng.normal(size=(3, 2)), np.array([2.0, 1.0, -1.0]), dt, parallel=False)
    assert np.allclose(found @ found.T, np.diag([4.0, 2.0, 0.0]), rtol=0, atol=16 * EPS)
