"""Responses of singular triples and spectral functions against differences of 60-digit decompositions."""

from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from theory import hierarchical_dataset, paper_svd_response, spectral_derivative, svd_response

EPS = np.finfo(float).eps
DIGITS = 60
STEP = mpmath.mpf("1e-15")  # truncation 1e-30 x third derivative, rounding 1e-60 / 1e-30: far below float64
seeds = st.integers(0, 2**32 - 1)


def to_float(matrix):
    return np.array(matrix.tolist(), dtype=float)


def exact_orthonormal(rng, rows, columns):
    return mpmath.qr(mpmath.matrix(rng.normal(size=(rows, rows)).tolist()))[0][:, :columns]


def exact_matrix(seed, o, p, values):
    """Return U diag(values) V^T in 60 digits: repeated values are equal, missing ones zero, far below float64."""
    rng = np.random.default_rng(seed)
    u, v = exact_orthonormal(rng, o, len(values)), exact_orthonormal(rng, p, len(values))
    return u * mpmath.diag([mpmath.mpf(s) for s in values]) * v.T


def random_change(seed, o, p):
    return np.random.default_rng(seed + 1).normal(size=(o, p))


def decomposition(c):
    """Return u, s, v as 60-digit columns, descending."""
    u, s, vt = mpmath.svd_r(c, full_matrices=False)
    return u, list(s), vt.T


def matched(c, u, v):
    """Singular triples of `c` that continue the columns of u and v, with the same signs."""
    left, s, right = decomposition(c)
    overlap = (u.T @ to_float(left) + v.T @ to_float(right)) / 2
    order = np.abs(overlap).argmax(axis=1)
    assert len(set(order)) == len(order)
    signs = [int(np.sign(overlap[k, j])) for k, j in enumerate(order)]
    pick = mpmath.zeros(len(s), len(order))
    for k, j in enumerate(order):
        pick[int(j), k] = signs[k]
    return left * pick, mpmath.matrix([s[j] for j in order]), right * pick


def differences(c, e, response):
    """Central differences of the triples along e: du, ds, dv and the second-order coefficient of s."""
    with mpmath.workdps(DIGITS):
        change = STEP * mpmath.matrix(e.tolist())
        (u1, s1, v1), (u0, s0, v0) = (matched(c + side * change, response.u, response.v) for side in (1, -1))
        center = mpmath.matrix(sorted(decomposition(c)[1], reverse=True)[: len(response.s)])
        first = [to_float((a - b) / (2 * STEP)) for a, b in ((u1, u0), (s1, s0), (v1, v0))]
        return first[0], first[1][:, 0], first[2], to_float((s1 + s0 - 2 * center) / (2 * STEP**2))[:, 0]


def conditioning(response):
    """Largest inverse gap: between different values, to zero, and between the splits of a block."""
    s = response.s
    gaps = [s[-1], *(s[a.start] - s[b.start] for a, b in pairwise(response.blocks))]
    gaps += [g for block in response.blocks for g in -np.diff(response.ds[block])]
    return 1 / min(gaps)


def assert_response_is_the_derivative(c, e):
    response = svd_response(to_float(c), e)
    du, ds, dv, second = differences(c, e, response)
    kappa, size = conditioning(response), np.linalg.norm(e)
    # |du| is of order |E| kappa, and |E|^2 kappa^2 inside a block; each loses a few eps kappa (|C| + |E|) to rounding
    # of C, of the vectors and of the splits.
    loss = 64 * EPS * kappa * (response.s[0] + size)
    assert np.abs(response.ds - ds).max() <= loss * size
    for exact, reference in ((response.du, du), (response.dv, dv)):
        assert np.abs(exact - reference).max() <= loss * (1 + kappa * size) ** 2
    assert np.abs(response.second_order - second).max() <= loss * size * (1 + kappa * size)
    return response


CASES = {
    "square": (4, 4, [3, 2, 1, 0.5]),
    "tall": (5, 3, [3, 2, 1]),
    "wide": (3, 5, [3, 2, 1]),
    "column": (4, 1, [2]),
    "row": (1, 4, [2]),
    "number": (1, 1, [2]),
    "rank-deficient square": (4, 4, [3, 1]),
    "rank-deficient tall": (5, 4, [3, 2]),
    "rank-deficient wide": (3, 5, [2]),
    "pair": (4, 4, [3, 2, 2, 1]),
    "triple": (5, 4, [3, 1, 1, 1]),
    "all equal": (4, 4, [2, 2, 2, 2]),
    "two pairs": (4, 6, [3, 3, 1, 1]),
    "pair, rank-deficient": (5, 5, [3, 3, 1]),
    "block of five": (5, 7, [1, 1, 1, 1, 1]),
}


@pytest.mark.parametrize("case", CASES)
def test_response_is_the_derivative_of_the_decomposition(case):
    o, p, values = CASES[case]
    with mpmath.workdps(DIGITS):
        c = exact_matrix(2, o, p, values)
    response = assert_response_is_the_derivative(c, random_change(2, o, p))
    assert np.allclose(response.s, values, rtol=0, atol=8 * EPS * 3)
    assert [values[b.start] for b in response.blocks] == sorted(set(values), reverse=True)


@given(seeds, st.integers(1, 4), st.integers(1, 4), st.data())
@settings(max_examples=12)
def test_response_is_the_derivative_for_any_spectrum(seed, o, p, data):
    choices = st.lists(st.sampled_from([3.0, 2.0, 1.0]), min_size=1, max_size=min(o, p))
    values = sorted(data.draw(choices), reverse=True)
    with mpmath.workdps(DIGITS):
        c = exact_matrix(seed, o, p, values)
    e = random_change(seed, o, p)
    assume(conditioning(svd_response(to_float(c), e)) < 1e2)
    assert_response_is_the_derivative(c, e)


def test_tree_response_is_the_derivative():
    """The paper's case: blocks of 2 and 4, generic change so that every split is distinct."""
    data = hierarchical_dataset()
    with mpmath.workdps(DIGITS):
        c = mpmath.matrix(data.syx.tolist())
    response = assert_response_is_the_derivative(c, random_change(3, 15, 8))
    assert [b.stop - b.start for b in response.blocks] == [1, 1, 2, 4]


def float_problem(seed, o, p, rank):
    """Return C = U S V^T of the given rank with gaps of at least 0.2, and a change E."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.normal(size=(n, rank)))[0] for n in (o, p))
    s = 0.3 + 0.2 * np.arange(rank) + np.sort(rng.uniform(0, 2, rank))
    return u * s[::-1] @ v.T, rng.normal(size=(o, p))


@st.composite
def float_problems(draw):
    o, p = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    return float_problem(draw(seeds), o, p, draw(st.integers(1, min(o, p))))


@given(float_problems())
def test_derivatives_put_the_change_together_again(problem):
    """Identity dU S V^T + U dS V^T + U S dV^T = E less its part outside both spaces; all of E if C has full rank."""
    c, e = problem
    r = svd_response(c, e)
    together = r.du * r.s @ r.v.T + r.u * r.ds @ r.v.T + r.u * r.s @ r.dv.T
    outside = (np.eye(len(c)) - r.u @ r.u.T) @ e @ (np.eye(c.shape[1]) - r.v @ r.v.T)
    # smallest gap and smallest value are at least 0.2: du <= |E| / 0.2 with a few eps, times |C| <= 4
    assert np.abs(together - e + outside).max() <= 1e-13 * np.linalg.norm(e) * 10
    if len(r.s) == min(c.shape):
        assert np.abs(together - e).max() <= 1e-13 * np.linalg.norm(e) * 10


@given(float_problems())
def test_vectors_stay_orthonormal(problem):
    c, e = problem
    r = svd_response(c, e)
    for vectors, change in ((r.u, r.du), (r.v, r.dv)):
        rotation = vectors.T @ change
        assert np.abs(rotation + rotation.T).max() <= 1e-13 * (1 + np.linalg.norm(e)) * 10  # as above


def test_vectors_stay_orthonormal_in_blocks():
    r = svd_response(hierarchical_dataset().syx, random_change(8, 15, 8))
    for vectors, change in ((r.u, r.du), (r.v, r.dv)):
        rotation = vectors.T @ change
        # antisymmetric to rounding of entries up to |E|^2 kappa^2 / s = 1e3
        assert np.abs(rotation + rotation.T).max() <= 64 * EPS * np.abs(rotation).max() * 8


@given(float_problems(), st.sampled_from([2.0**-300, 2.0**-40, 2.0**300]))
def test_triples_scale_with_matrix_and_change(problem, scale):
    c, e = problem
    base, both, change = svd_response(c, e), svd_response(scale * c, scale * e), svd_response(c, scale * e)
    # a power of two changes no digit; LAPACK may choose another sign, which the products below do not see
    for r, ds, du, second in ((both, scale, 1.0, scale), (change, scale, scale, scale**2)):
        assert np.allclose(r.ds / ds, base.ds, rtol=1e-12, atol=1e-12)
        assert np.allclose(r.second_order / second, base.second_order, rtol=1e-10, atol=1e-10)
        assert np.allclose(r.du @ r.u.T / du, base.du @ base.u.T, rtol=1e-10, atol=1e-10)
        assert np.allclose(r.dv @ r.v.T / du, base.dv @ base.v.T, rtol=1e-10, atol=1e-10)


def test_tolerance_decides_what_counts_as_degenerate():
    c, e = np.diag([1.0 + 1e-9, 1.0, 0.5]), random_change(4, 3, 3)
    assert svd_response(c, e).blocks == (slice(0, 1), slice(1, 2), slice(2, 3))
    merged = svd_response(c, e, tolerance=1e-8)
    assert merged.blocks == (slice(0, 2), slice(2, 3))
    splits = np.linalg.eigvalsh((e[:2, :2] + e[:2, :2].T) / 2)[::-1]
    assert np.allclose(merged.ds[:2], splits, rtol=1e-14)


def test_splits_that_coincide_leave_the_common_rotation_at_zero():
    """E = I shifts all singular values alike and turns no vector."""
    r = svd_response(np.diag([2.0, 2.0, 1.0]), np.eye(3))
    assert np.allclose(r.ds, 1, atol=1e-15)
    assert max(np.abs(r.du).max(), np.abs(r.dv).max(), np.abs(r.second_order).max()) <= 1e-15


def literal_paper_response(u, s, v, e, blocks, variant):
    """Eqs. 45-53 entry by entry, in the given basis."""
    q = u.T @ e @ v
    r = len(s)
    block_of = [next(i for i, b in enumerate(blocks) if b.start <= k < b.stop) for k in range(r)]
    a, b = np.zeros((r, r)), np.zeros((r, r))
    for j in range(r):
        for k in range(r):
            if block_of[j] == block_of[k]:
                a[j, k] = b[j, k] = (q[j, k] - q[k, j]) / 2 / (2 * s[j])
            else:
                a[j, k] = q[j, k] / (s[k] - s[j])
                b[j, k] = (q[j, k] if variant == "P1" else q[k, j]) / (s[j] - s[k])
    return u @ a, np.diag(q), (b @ v.T).T


def literal_exact_response(u, s, v, e, blocks):
    """Return the classical dU and dV entry by entry, without rotations of both sides alike inside blocks."""
    q = u.T @ e @ v
    r = len(s)
    block_of = [next(i for i, b in enumerate(blocks) if b.start <= k < b.stop) for k in range(r)]
    a, b = np.zeros((r, r)), np.zeros((r, r))
    for j in range(r):
        for k in range(r):
            if block_of[j] == block_of[k]:
                a[j, k] = b[j, k] = (q[j, k] - q[k, j]) / 2 / (2 * s[j])
            else:
                a[j, k] = (s[k] * q[j, k] + s[j] * q[k, j]) / (s[k] ** 2 - s[j] ** 2)
                b[j, k] = -(s[j] * q[j, k] + s[k] * q[k, j]) / (s[k] ** 2 - s[j] ** 2)
    du = u @ a + (e @ v - u @ (u.T @ e @ v)) / s
    return du, v @ b.T + (e.T @ u - v @ (v.T @ e.T @ u)) / s


PAPER_CASES = ["square", "tall", "rank-deficient wide", "pair", "triple", "two pairs", "pair, rank-deficient", "number"]


@pytest.mark.parametrize("variant", ["P1", "P2"])
@pytest.mark.parametrize("case", PAPER_CASES)
def test_printed_formulas_entry_by_entry(case, variant):
    o, p, values = CASES[case]
    with mpmath.workdps(DIGITS):
        c = to_float(exact_matrix(6, o, p, values))
    e = random_change(6, o, p)
    printed = paper_svd_response(c, e, variant)
    assert np.allclose(printed.u * printed.s @ printed.v.T, c, rtol=0, atol=64 * EPS)
    blocks = [slice(values.index(s), values.index(s) + values.count(s)) for s in sorted(set(values), reverse=True)]
    q = printed.u.T @ e @ printed.v
    for block in blocks:
        symmetric = (q + q.T)[block, block] / 2
        assert np.abs(symmetric - np.diag(np.diag(symmetric))).max() <= 64 * EPS * np.linalg.norm(e)
    du, ds, dv = literal_paper_response(printed.u, printed.s, printed.v, e, blocks, variant)
    # the same few operations on entries up to |E| / gap, gaps at least 0.5
    for value, literal in ((printed.du, du), (printed.ds, ds), (printed.dv, dv)):
        assert np.allclose(value, literal, rtol=0, atol=64 * EPS * np.linalg.norm(e))
    exact = literal_exact_response(printed.u, printed.s, printed.v, e, blocks)
    expected = (
        np.hypot(np.linalg.norm(du - exact[0]), np.linalg.norm(dv - exact[1])) / np.hypot(*map(np.linalg.norm, exact))
        if any(np.any(d) for d in exact)
        else 0.0
    )
    assert printed.deviation == pytest.approx(expected, rel=1e-12, abs=1e-14)


@given(seeds, st.integers(1, 5), st.sampled_from(["P1", "P2"]), st.booleans())
def test_printed_formulas_are_exact_for_symmetric_q(seed, n, variant, paired):
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    s = np.arange(n, 0, -1.0)
    if paired:
        s = np.ceil(s / 2)
    q = rng.normal(size=(n, n))
    response = paper_svd_response(u * s @ v.T, u @ (q + q.T) @ v.T, variant)
    # Rounding of u, v and Q, a few eps n each, relative to a derivative of size |Q| / gap. Within blocks the
    # derivative is zero: if there is nothing else, rounding is compared with rounding.
    if len(set(s)) > 1:
        assert response.deviation <= 1e-13 * (1 + np.linalg.norm(q) / np.linalg.norm(np.triu(q + q.T, 1)))


@pytest.mark.parametrize("variant", ["P1", "P2"])
def test_printed_formulas_deviate_for_a_sample_of_the_tree(variant):
    """The erratum: for E = y_p x_p^T, Q = S alpha alpha^T is not symmetric and the print is off by a sizeable part."""
    data = hierarchical_dataset()
    for y, x in zip(data.targets, data.inputs, strict=True):
        printed = paper_svd_response(data.syx, np.outer(y, x), variant)
        exact = literal_exact_response(
            printed.u, printed.s, printed.v, np.outer(y, x), [slice(0, 1), slice(1, 2), slice(2, 4), slice(4, 8)]
        )
        off = np.hypot(np.linalg.norm(printed.du - exact[0]), np.linalg.norm(printed.dv - exact[1]))
        assert printed.deviation == pytest.approx(off / np.hypot(*map(np.linalg.norm, exact)), rel=1e-10)
        assert printed.deviation > 0.1


def exact_spectral_difference(c, e, g):
    """Central difference of U g(S) V^T in 60 digits, `c` a 60-digit or float matrix."""
    with mpmath.workdps(DIGITS):

        def value(matrix):
            u, s, v = decomposition(matrix)
            return u * mpmath.diag([g(x) for x in s]) * v.T

        center, change = mpmath.matrix(c.tolist()), STEP * mpmath.matrix(e.tolist())
        return to_float((value(center + change) - value(center - change)) / (2 * STEP))


FUNCTIONS = {
    "tanh": (np.tanh, lambda s: 1 / np.cosh(s) ** 2, mpmath.tanh),
    "sine": (lambda s: np.sin(3 * s), lambda s: 3 * np.cos(3 * s), lambda s: mpmath.sin(3 * s)),
    "decay": (lambda s: np.exp(-s), lambda s: -np.exp(-s), lambda s: mpmath.exp(-s)),
    "logistic": (
        lambda s: s / (1 + 99 * np.exp(-4 * s)),
        lambda s: (1 + 99 * np.exp(-4 * s) * (1 + 4 * s)) / (1 + 99 * np.exp(-4 * s)) ** 2,
        lambda s: s / (1 + 99 * mpmath.exp(-4 * s)),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("case", CASES)
def test_spectral_derivative_is_the_derivative(case, name):
    o, p, values = CASES[case]
    g, g_prime, exact_g = FUNCTIONS[name]
    with mpmath.workdps(DIGITS):
        c = exact_matrix(4, o, p, values)
    e = random_change(4, o, p)
    if name == "decay" and len(values) < min(o, p):
        with pytest.raises(ValueError, match=r"g\(0\) = 1 is not 0, so U g\(S\) V\^T has no derivative"):
            spectral_derivative(to_float(c), e, g, g_prime)
        return
    reference = exact_spectral_difference(c, e, exact_g)
    # rounding of C and the vectors, eps |C| over gaps of at least 0.5, on slopes g', g'' of at most 9
    assert np.abs(spectral_derivative(to_float(c), e, g, g_prime) - reference).max() <= 1e-13 * np.linalg.norm(e)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("gap", [1.0, 0.1, 1.1e-3, 1e-3, 9e-4, 1e-5, 1e-7, 1e-9, 1e-11, 1e-13, 1e-14, 1e-15])
def test_spectral_derivative_near_degeneracy(gap, name):
    """A 3 x 3 matrix whose two largest values differ by `gap`, the very same floats decomposed in 60 digits."""
    g, g_prime, exact_g = FUNCTIONS[name]
    u, v = (ortho_group.rvs(3, random_state=np.random.default_rng(k)) for k in (1, 2))
    c, e = u * [1 + gap, 1.0, 0.4] @ v.T, random_change(1, 3, 3)
    reference = exact_spectral_difference(c, e, exact_g)
    # The issue asks for 1e-10; a subtraction at gap 1e-11 would leave 1e-5. Largest loss expected: at the switch of
    # formulas, eps / 1e-3 = 2e-13.
    error = np.abs(spectral_derivative(c, e, g, g_prime) - reference).max()
    assert error <= 1e-12 * np.abs(reference).max()


@pytest.mark.parametrize("gap", [1e-2, 1e-6, 1e-10, 1e-14])
def test_divided_difference_entry_near_degeneracy(gap):
    """C = diag(1 + gap, 1) and symmetric E: the off-diagonal entry of dF is (g(1 + gap) - g(1)) / gap itself."""
    g, g_prime, exact_g = FUNCTIONS["logistic"]
    high = 1.0 + gap
    with mpmath.workdps(DIGITS):
        expected = float((exact_g(mpmath.mpf(high)) - exact_g(mpmath.mpf(1))) / (mpmath.mpf(high) - 1))
    derivative = spectral_derivative(np.diag([high, 1.0]), np.array([[0.0, 1.0], [1.0, 0.0]]), g, g_prime)
    # a subtraction loses eps / gap = 2e-14 at 1e-2 and nothing below 1e-3
    assert derivative[0, 1] == pytest.approx(expected, rel=2e-13)
    assert derivative[1, 0] == pytest.approx(expected, rel=2e-13)


@st.composite
def any_matrices(draw):
    """Matrices of any shape and rank, also zero and degenerate ones."""
    o, p, rank = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(seeds))
    rank = min(o, p, rank)
    u, v = np.linalg.qr(rng.normal(size=(o, o)))[0], np.linalg.qr(rng.normal(size=(p, p)))[0]
    values = np.array(draw(st.lists(st.sampled_from([1.0, 1.5, 2.0]), min_size=rank, max_size=rank)))
    return u[:, :rank] * values @ v[:, :rank].T, rng.normal(size=(o, p))


@given(any_matrices())
def test_identity_function_returns_the_change(problem):
    c, e = problem
    # a dozen products of orthonormal matrices
    assert np.allclose(spectral_derivative(c, e, lambda s: s, np.ones_like), e, rtol=0, atol=64 * EPS * 5)


@given(any_matrices())
def test_cube_obeys_the_product_rule(problem):
    c, e = problem
    expected = e @ c.T @ c + c @ e.T @ c + c @ c.T @ e
    derivative = spectral_derivative(c, e, lambda s: s**3, lambda s: 3 * s**2)
    assert np.allclose(derivative, expected, rtol=0, atol=64 * EPS * 12 * (1 + np.linalg.norm(e)))


@given(any_matrices())
def test_fifth_power_obeys_the_product_rule(problem):
    c, e = problem
    a, da = c @ c.T, e @ c.T + c @ e.T
    expected = da @ a @ c + a @ da @ c + a @ a @ e
    derivative = spectral_derivative(c, e, lambda s: s**5, lambda s: 5 * s**4)
    assert np.allclose(derivative, expected, rtol=0, atol=64 * EPS * 80 * (1 + np.linalg.norm(e)))


@given(seeds, st.integers(1, 5), st.integers(0, 3))
def test_reciprocal_is_the_derivative_of_the_transposed_inverse(seed, n, extra):
    """With g = 1/s on C of full column rank: F = C (C^T C)^{-1}, although g has no value at 0."""
    rng = np.random.default_rng(seed)
    u = np.linalg.qr(rng.normal(size=(n + extra, n)))[0]
    v = np.linalg.qr(rng.normal(size=(n, n)))[0]
    c, e = u * np.linspace(1, 2, n) @ v.T, rng.normal(size=(n + extra, n))
    inverse = np.linalg.inv(c.T @ c)
    expected = e @ inverse - c @ inverse @ (e.T @ c + c.T @ e) @ inverse
    derivative = spectral_derivative(c, e, lambda s: 1 / s, lambda s: -1 / s**2)
    assert np.allclose(derivative, expected, rtol=0, atol=1e-13 * (1 + np.linalg.norm(e)))


@given(any_matrices(), seeds, st.floats(-3, 3))
def test_spectral_derivative_is_linear_in_the_change(problem, seed, weight):
    c, e = problem
    other = np.random.default_rng(seed).normal(size=c.shape)
    g, g_prime, _ = FUNCTIONS["tanh"]
    together = spectral_derivative(c, e + weight * other, g, g_prime)
    apart = spectral_derivative(c, e, g, g_prime) + weight * spectral_derivative(c, other, g, g_prime)
    assert np.allclose(together, apart, rtol=0, atol=64 * EPS * 20)


@given(any_matrices(), seeds)
def test_spectral_derivative_does_not_depend_on_coordinates(problem, seed):
    c, e = problem
    rng = np.random.default_rng(seed)
    left, right = (ortho_group.rvs(n, random_state=rng) if n > 1 else -np.eye(1) for n in c.shape)
    g, g_prime, _ = FUNCTIONS["sine"]
    rotated = spectral_derivative(left @ c @ right.T, left @ e @ right.T, g, g_prime)
    assert np.allclose(rotated, left @ spectral_derivative(c, e, g, g_prime) @ right.T, rtol=0, atol=1e-12)


@given(any_matrices())
def test_transposing_everything_transposes_the_derivative(problem):
    c, e = problem
    g, g_prime, _ = FUNCTIONS["logistic"]
    transposed = spectral_derivative(c.T, e.T, g, g_prime)
    assert np.allclose(transposed.T, spectral_derivative(c, e, g, g_prime), rtol=0, atol=1e-12)


@given(any_matrices(), st.sampled_from([1e-150, 1e-30, 1e30, 1e150]))
def test_spectral_derivative_has_no_scale(problem, scale):
    """F_c(c C) = c F(C) with g_c(s) = c g(s / c): the same derivative at every scale."""
    c, e = problem
    g, g_prime, _ = FUNCTIONS["tanh"]
    scaled = spectral_derivative(scale * c, e, lambda s: scale * g(s / scale), lambda s: g_prime(s / scale))
    assert np.allclose(scaled, spectral_derivative(c, e, g, g_prime), rtol=0, atol=1e-12)


@given(float_problems())
def test_triples_and_spectral_derivative_agree(problem):
    """Put dF together from dU, dS, dV: two derivations of one number."""
    c, e = problem
    r = svd_response(c, e)
    g, g_prime, _ = FUNCTIONS["sine"]
    together = r.du * g(r.s) @ r.v.T + r.u * (g_prime(r.s) * r.ds) @ r.v.T + r.u * g(r.s) @ r.dv.T
    outside = (np.eye(len(c)) - r.u @ r.u.T) @ e @ (np.eye(c.shape[1]) - r.v @ r.v.T) * g_prime(0.0)
    assert np.abs(together + outside - spectral_derivative(c, e, g, g_prime)).max() <= 1e-12 * np.linalg.norm(e)


RANK_ONE = np.outer([1.0, 2.0, 0.0], [1.0, 1.0])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"c": np.full((3, 2), np.nan)}, "c holds a non-finite value"),
        ({"dc": np.full((3, 2), np.inf)}, "dc holds a non-finite value"),
        ({"dc": np.ones((2, 3))}, r"dc has shape \(2, 3\), but \(3, 2\) is needed"),
        ({"c": np.ones(3)}, r"c must have 2 dimension\(s\)"),
        ({"c": np.empty((0, 2))}, "c is empty"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        svd_response,
        lambda c, dc: paper_svd_response(c, dc, "P1"),
        lambda c, dc: spectral_derivative(c, dc, np.tanh, FUNCTIONS["tanh"][1]),
    ],
    ids=["svd_response", "paper_svd_response", "spectral_derivative"],
)
def test_bad_matrices_are_refused(function, change, sentence):
    good = {"c": RANK_ONE, "dc": np.ones((3, 2))}
    function(**good)
    with pytest.raises(ValueError, match=sentence):
        function(**(good | change))


@pytest.mark.parametrize("function", [svd_response, lambda c, dc: paper_svd_response(c, dc, "P2")])
def test_zero_matrix_has_no_singular_vectors(function):
    with pytest.raises(ValueError, match="c is zero, so it has no singular vectors to differentiate"):
        function(np.zeros((2, 3)), np.ones((2, 3)))


def test_bad_tolerance_is_refused():
    with pytest.raises(ValueError, match="tolerance must not be negative"):
        svd_response(np.eye(2), np.eye(2), tolerance=-1e-3)


@pytest.mark.parametrize("variant", ["P3", "p1", ""])
def test_unknown_variant_is_refused(variant):
    with pytest.raises(ValueError, match="variant must be one of 'P1', 'P2'"):
        paper_svd_response(np.eye(2), np.eye(2), variant)


@pytest.mark.parametrize(
    ("c", "g", "g_prime", "sentence"),
    [
        (RANK_ONE, np.cos, np.sin, r"c has rank 1, less than both its sides \(3, 2\), and g\(0\) = 1 is not 0"),
        (np.zeros((2, 2)), np.exp, np.exp, r"c has rank 0, less than both its sides \(2, 2\)"),
        (np.eye(2), lambda s: 1.0, np.ones_like, r"g returned shape \(\) for singular values of shape \(2,\)"),
        (RANK_ONE, lambda s: 0.0, np.ones_like, r"g returned shape \(\) for singular values of shape \(1,\)"),
        (np.eye(3), lambda s: s[:1], np.ones_like, r"g returned shape \(1,\) for singular values of shape \(3,\)"),
        (np.eye(2), np.tanh, lambda s: 1.0, r"g_prime returned shape \(\)"),
        (
            np.diag([2.0, 1.0]),
            lambda s: np.where(s > 1, np.nan, s),
            np.ones_like,
            "g is not finite at singular value 2",
        ),
        (np.eye(2), np.tanh, lambda s: s * np.inf, "g_prime is not finite at singular value 1"),
    ],
)
def test_bad_functions_are_refused(c, g, g_prime, sentence):
    with pytest.raises(ValueError, match=sentence):
        spectral_derivative(c, np.ones_like(c), g, g_prime)
