"""Symbolic derivations: remainders, planted errors, and their formulas against the numerical implementation."""

from functools import cache

import mpmath
import numpy as np
import pytest
import sympy as sp
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq

from theory import half_rise_time, mode_strength, paper_svd_response, spectral_derivative, svd_response
from theory.influence.mode_response import response_kernels
from theory.symbolic import Derivation, derivation, derivation_names, derivation_report, derivations, vanishes

EPS = np.finfo(float).eps
TAU = 1200.0
X, Y = sp.symbols("x y", positive=True)

FORMULAS = {
    "mode-strength",
    "linearised-flow",
    "fixed-init",
    "sample-weight",
    "symmetric-kernel",
    "input-moment-kernel",
    "svd-response",
    "printed-svd-response-P1-symmetric",
    "printed-svd-response-P2-symmetric",
    "degenerate-block",
    "spectral-derivative",
    "loss-influence",
    "second-order-values",
    "total-covariance",
    "mixture-extremum",
    "sgld-variance",
    "free-energy",
    "singular-monomial",
    "transition-sample-size",
}
ERRATA = {
    "printed-svd-response-P1",
    "printed-svd-response-P2",
    "printed-influence-P1",
    "printed-influence-P2",
    "printed-degenerate-block",
    "printed-mixture-extremum",
}
gaps = st.floats(0.1, 3.0)
entries = st.floats(-2.0, 2.0)
strengths = st.floats(1e-4, 0.5)
# Differences of second order in t / tau >= 1e-6 leave 38 of the 50 digits in which the reference is evaluated.
epochs = st.just(0.0) | st.floats(1e-6 * TAU, 3 * TAU)


@cache
def callable_formula(name, formula):
    expression = derivation(name).formulas[formula]
    symbols = sorted(expression.free_symbols, key=str)
    return [str(x) for x in symbols], sp.lambdify(symbols, expression, "mpmath")


def value(name, formula, **at):
    """Evaluate a formula of a derivation at symbols given by name, in 50 digits: its own rounding plays no part."""
    names, function = callable_formula(name, formula)
    with mpmath.workdps(50):
        return float(function(*(mpmath.mpf(float(at[x])) for x in names)))


def test_every_derivation_is_listed():
    assert set(derivation_names()) == FORMULAS | ERRATA
    assert [d.name for d in derivations()] == list(derivation_names())


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_formula_holds(name):
    d = derivation(name)
    assert d.holds
    assert d.vanishes
    assert d.nonzero_remainder == []
    assert str(d).endswith("remainder 0")
    assert len(d.remainder)


@pytest.mark.parametrize("name", sorted(ERRATA))
def test_erratum_is_not_zero_and_is_printed(name):
    d = derivation(name)
    assert not d.holds
    assert not d.vanishes
    assert d.nonzero_remainder
    for entry in d.nonzero_remainder:
        assert sp.latex(entry) in str(d)


def test_report_prints_every_derivation():
    assert derivation_report() == "\n\n".join(str(d) for d in derivations())


@pytest.mark.parametrize(
    ("variant", "outer", "inner"), [("P1", 0, 0), ("P2", 1, 1)], ids=["P1 rotates wrongly", "P2 also misses Q"]
)
def test_printed_response_fails_by_the_skew_part(variant, outer, inner):
    """A + A^T is skew(Q) over the gap; P1 does solve Q = A S + dS + S B, P2 is off by s times that."""
    s_j, s_k = sp.symbols("s_j s_k", positive=True)
    q_jk, q_kj = sp.symbols("q_jk q_kj", real=True)
    asymmetry = (q_jk - q_kj) / (s_k - s_j)
    remainder = list(derivation(f"printed-svd-response-{variant}").remainder)
    equation, left = remainder[:4], remainder[4:8]
    expected = [0, outer * s_j * asymmetry, inner * s_k * asymmetry, 0]
    assert all(sp.cancel(have - want) == 0 for have, want in zip(equation, expected, strict=True))
    assert all(sp.cancel(have - want) == 0 for have, want in zip(left, [0, asymmetry, asymmetry, 0], strict=True))


def test_printed_influence_p1_is_right_only_once_learned():
    """With Q = S alpha alpha^T its error is proportional to s_k g_j - s_j g_k: zero at g = s, not before."""
    remainder = derivation("printed-influence-P1").remainder
    f = sp.Function("f")
    assert all(sp.cancel(e.replace(f, lambda s: s)) == 0 for e in remainder)
    assert any(sp.cancel(e.replace(f, lambda s: s**2)) != 0 for e in remainder)
    assert any(
        sp.cancel(e.replace(f, lambda s: s)) != 0 for e in derivation("printed-influence-P2").remainder
    )  # P2 is off even at the end


def test_extremum_erratum_vanishes_for_equal_covariances():
    (remainder,) = derivation("printed-mixture-extremum").nonzero_remainder
    assert sp.cancel(remainder.subs(sp.Symbol("C_1"), sp.Symbol("C_2"))) == 0


# --- the decision procedure -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "zero"),
    [
        (sp.Integer(0), True),
        (sp.Integer(1), False),
        (sp.Integer(-1), False),
        (sp.Integer(2), False),
        ((X + Y) ** 2 - X**2 - 2 * X * Y - Y**2, True),
        (X / (X * Y + X) - 1 / (Y + 1), True),
        (sp.exp(X + Y) - sp.exp(X) * sp.exp(Y), True),
        (sp.exp(X) * (1 + sp.Rational(1, 10**12)) - sp.exp(X), False),
        (sp.sqrt(X**2) - X, True),
        (sp.log(X * Y) - sp.log(X) - sp.log(Y), True),
        (sp.log(X) ** 2 - sp.log(X**2), False),
        (sp.Function("f")(X) - sp.Function("f")(Y), False),
        (sp.diff(sp.Function("f")(X), X) - sp.Function("f")(X), False),
        (X - sp.Rational(2, 11), False),  # zero at the first trial point
    ],
)
def test_zero_is_decided(expression, zero):
    assert vanishes(expression) is zero


def test_undecided_is_said():
    """Euler's reflection of the dilogarithm is zero, which sympy can neither simplify nor refute."""
    reflection = sp.polylog(2, X) + sp.polylog(2, 1 - X) + sp.log(X) * sp.log(1 - X) - sp.pi**2 / 6
    with pytest.raises(ArithmeticError, match="could neither prove nor refute"):
        vanishes(reflection)


@pytest.mark.parametrize("operation", [sp.Integral(sp.Function("f")(X), (X, 0, 1)), sp.Sum(1 / X, (X, 1, Y))])
def test_unevaluated_operations_are_refused(operation):
    with pytest.raises(ArithmeticError, match="holds an unevaluated operation"):
        vanishes(operation - Y)


def test_remainder_must_be_symbolic():
    with pytest.raises(TypeError, match="remainder of 'x' must be a sympy expression or matrix, but it is float"):
        Derivation("x", "", "", 0.0)


def test_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"name must be one of .*but 'saxe' was given"):
        derivation("saxe")


# --- planted errors ---------------------------------------------------------------------------------------------------


def wrong(name, formula, factor, extra=0):
    """Return a derived formula less a wrong copy of it."""
    right = derivation(name).formulas[formula]
    return Derivation("wrong", "", "", right - (factor * right + extra))


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("mode-strength", "g"),
        ("fixed-init", "symmetric"),
        ("fixed-init", "skew"),
        ("fixed-init", "perp"),
        ("sample-weight", "diagonal"),
        ("symmetric-kernel", "kernel"),
        ("svd-response", "A"),
        ("svd-response", "B"),
        ("svd-response", "perp"),
        ("degenerate-block", "high"),
        ("second-order-values", "curvature"),
        ("spectral-derivative", "G1"),
        ("spectral-derivative", "G2"),
        ("total-covariance", "three"),
        ("mixture-extremum", "offset"),
        ("sgld-variance", "variance"),
        ("free-energy", "covariance"),
    ],
)
def test_lost_factor_or_term_is_detected(name, formula):
    assert not wrong(name, formula, 2).vanishes
    assert not wrong(name, formula, -1).vanishes
    assert not wrong(name, formula, 1, sp.Rational(1, 10**9)).vanishes
    assert wrong(name, formula, 1).vanishes


T, TIME = sp.symbols("t tau", positive=True)
G_J, G_K, S_J, S_K, G0 = sp.symbols("g_j g_k s_j s_k g0", positive=True)


def flow_defect(response, kind):
    """Independent restatement of the linear equation for dW of `kind` with unit drive; zero for a right response."""
    e_j, e_k = S_J - G_J, S_K - G_K
    rate = TIME * sp.diff(response, T) + sp.diff(response, G_J) * 2 * G_J * e_j + sp.diff(response, G_K) * 2 * G_K * e_k
    pull = {"symmetric": e_j + e_k, "skew": (e_j - e_k) * (G_J - G_K) / (G_J + G_K)}[kind]
    return rate - (G_J + G_K) * (1 - response) - pull * response


@pytest.mark.parametrize(
    ("kind", "response", "right"),
    [
        ("symmetric", (G_J - G_K) / (S_J - S_K), True),
        ("symmetric", (G_J + G_K) / (S_J + S_K), False),
        ("skew", (G_J + G_K) / (S_J + S_K) * (1 - sp.exp(-(S_J + S_K) * T / TIME)), True),
        ("skew", (G_J + G_K) / (S_J + S_K) * (1 - sp.exp(-2 * (S_J + S_K) * T / TIME)), False),
        ("skew", (G_J + G_K) / (S_J + S_K) * (1 + sp.exp(-(S_J + S_K) * T / TIME)), True),  # other initial value
        ("skew", (G_J - G_K) / (S_J - S_K) * (1 - sp.exp(-(S_J + S_K) * T / TIME)), False),
    ],
)
def test_plausible_responses_are_told_apart(kind, response, right):
    assert Derivation("candidate", "", "", flow_defect(response, kind)).vanishes is right


# --- against the numerical implementation -----------------------------------------------------------------------------


@given(epochs, gaps, strengths)
def test_mode_strength(t, s, g0):
    assume(2 * g0 < 0.9 * s)
    at = {"t": t, "s": s, "g0": g0, "tau": TAU}
    # both sides: a few operations and one exponential of an argument below 20, whose rounding it multiplies
    assert mode_strength(t, s, g0, TAU) == pytest.approx(value("mode-strength", "g", **at), rel=128 * EPS)
    # the logarithm of s/g0 - 1 >= 1.2 loses at most a factor 1 / ln(1.2) < 6
    assert half_rise_time(s, g0, TAU) == pytest.approx(value("mode-strength", "half_rise_time", **at), rel=64 * EPS)


@given(gaps, gaps, st.tuples(*[entries] * 6))
def test_svd_response(s_k, gap, q):
    """3 x 2 with C = diag(s): vectors are unit vectors up to sign, so U^T dU is A up to the same signs."""
    s_j, change = s_k + gap, np.array(q).reshape(3, 2)
    r = svd_response(np.vstack([np.diag([s_j, s_k]), np.zeros(2)]), change)
    at = {"s_j": s_j, "s_k": s_k, "q_jk": q[1], "q_kj": q[2], "q_pk": q[5]}
    sign = np.sign(np.diag(r.v))
    # entries of size |Q| / gap <= 60; each loses a few eps of |Q| s / gap^2 <= 4 * 6 / 1e-2
    tolerance = 1e4 * EPS
    assert abs((r.u.T @ r.du)[0, 1] * sign.prod() - value("svd-response", "A", **at)) <= tolerance
    assert abs((r.dv.T @ r.v)[0, 1] * sign.prod() - value("svd-response", "B", **at)) <= tolerance
    assert abs(r.du[2, 1] * sign[1] - value("svd-response", "perp", **at)) <= tolerance


@given(gaps, gaps, st.tuples(*[entries] * 6))
def test_second_order_of_the_values(s_k, gap, q):
    s_j = s_k + gap
    r = svd_response(np.vstack([np.diag([s_j, s_k]), np.zeros(2)]), np.array(q).reshape(3, 2))
    at = {"s_j": s_j, "s_k": s_k, "q_jk": q[1], "q_kj": q[2], "q_pj": q[4]}
    # three squares below 16 over gaps of at least 0.1, each gap good to eps s / gap
    assert abs(r.second_order[0] - value("second-order-values", "curvature", **at)) <= 1e4 * EPS


@pytest.mark.parametrize("variant", ["P1", "P2"])
@given(s_k=gaps, gap=gaps, q=st.tuples(*[entries] * 4))
def test_printed_response(variant, s_k, gap, q):
    s_j = s_k + gap
    r = paper_svd_response(np.diag([s_j, s_k]), np.array(q).reshape(2, 2), variant)
    at = {"s_j": s_j, "s_k": s_k, "q_jk": q[1], "q_kj": q[2]}
    sign = np.sign(np.diag(r.v)).prod()
    tolerance = 1e4 * EPS  # as above
    name = f"printed-svd-response-{variant}"
    assert abs((r.u.T @ r.du)[0, 1] * sign - value(name, "A", **at)) <= tolerance
    assert abs((r.dv.T @ r.v)[0, 1] * sign - value(name, "B", **at)) <= tolerance


@given(st.tuples(*[entries] * 8), gaps, gaps, st.booleans())
def test_rotation_of_a_degenerate_pair_with_a_mode_outside(q, low, gap, above):
    """Take sI (+) r with r above or below s; the pair's basis is that of sym(Q), by construction the unit vectors."""
    l_1, l_2, k, q_13, q_23, q_31, q_32, q_33 = q
    assume(l_1 - l_2 > 0.1)
    s, r = (low, low + gap) if above else (low + gap, low)
    change = np.array([[l_1, k, q_13], [-k, l_2, q_23], [q_31, q_32, q_33]])
    order = [2, 0, 1] if above else [0, 1, 2]
    response = svd_response(np.diag([s, s, r])[np.ix_(order, order)], change[np.ix_(order, order)])
    first = int(above)
    pair = [order.index(0), order.index(1)]
    # columns of the response are unit vectors up to sign: mode 1 of the pair is at column `first`
    sign = np.sign([response.v[pair[0], first], response.v[pair[1], first + 1]]).prod()
    left = (response.u.T @ response.du)[first, first + 1] * sign
    right = (response.dv.T @ response.v)[first, first + 1] * sign
    at = {"s": s, "r": r, "k": k, "l_1": l_1, "l_2": l_2, "q_13": q_13, "q_23": q_23, "q_31": q_31, "q_32": q_32}
    # rounding of the pair's basis, eps |Q| / (l_1 - l_2), times second-order couplings over the split:
    # |Q|^2 / gap / (l_1 - l_2)^2 = 16 / 0.1 / 0.01 of order-one quantities
    tolerance = 64 * 16 / 0.1 / 0.1 / 0.1 * EPS * (1 + 1 / low)
    assert abs(left - value("printed-degenerate-block", "A", **at)) <= tolerance
    assert abs(right - value("printed-degenerate-block", "B", **at)) <= tolerance


@given(gaps, st.tuples(*[entries] * 4))
def test_splits_of_a_degenerate_pair(s, q):
    names = dict(zip(("q_jj", "q_jk", "q_kj", "q_kk"), q, strict=True))
    splits = svd_response(s * np.eye(2), np.array(q).reshape(2, 2)).ds
    # eigenvalues of a symmetric 2 x 2 matrix with entries up to 4, absolute
    expected = [value("degenerate-block", name, **names) for name in ("high", "low")]
    assert np.abs(splits - expected).max() <= 64 * EPS * 4


@given(gaps, gaps, st.tuples(*[entries] * 4))
def test_spectral_derivative(s_k, gap, q):
    s_j, change = s_k + gap, np.array(q).reshape(2, 2)
    have = spectral_derivative(np.diag([s_j, s_k]), change, np.tanh, lambda s: 1 / np.cosh(s) ** 2)
    kernels = [
        float(sp.lambdify(sp.symbols("s_j s_k", positive=True), e, [{"f": np.tanh}, "numpy"])(s_j, s_k))
        for e in (derivation("spectral-derivative").formulas[n] for n in ("G1", "G2"))
    ]
    mean, half = (q[1] + q[2]) / 2, (q[1] - q[2]) / 2
    expected = [kernels[0] * mean + kernels[1] * half, kernels[0] * mean - kernels[1] * half]
    # divided difference of values below 1 over a gap of at least 0.1, times |Q|
    assert np.abs([have[0, 1], have[1, 0]] - np.array(expected)).max() <= 64 * EPS / 0.1 * 4


@given(epochs, gaps, gaps, strengths, strengths)
def test_kernels_with_own_initial_strengths(t, s_k, gap, g0_j, g0_k):
    s = np.array([s_k + gap, s_k])
    g0 = np.array([g0_j, g0_k])
    (kernels,) = response_kernels("fixed-init", np.array([t]), s, g0, TAU, piece=1)
    g_j, g_k = kernels.strengths[0]
    at = {
        "t": t,
        "h": 2 * t / TAU,
        "tau": TAU,
        "s_j": s[0],
        "s_k": s[1],
        "g0_j": g0_j,
        "g0_k": g0_k,
        "g_j": g_j,
        "g_k": g_k,
    }
    forward, backward = kernels.target_input[0, 0, 1], kernels.input_target[0, 0, 1]
    # sums of positive terms: four exponentials of arguments up to 2 s t / tau <= 36 with eps / 2 each, and the factor
    # 4 of the second difference; adding the two kernels loses eps of either
    tolerance = 512 * EPS * (forward + backward) + 4 * EPS * (abs(forward) + abs(backward))
    assert abs(forward + backward - value("symmetric-kernel", "kernel", **at)) <= tolerance
    skew = value("fixed-init", "skew", **at)
    # a difference of the two kernels, and 1 - e^{-x}, which loses absolute eps times its factor
    assert abs(forward - backward - skew) <= 64 * EPS * (abs(forward) + abs(backward) + (g_j + g_k) / s.sum())
    perp = value("fixed-init", "perp", **at)
    assert abs(kernels.target_perp[0, 1] - perp) <= 64 * EPS * g_k / s_k


@given(epochs, gaps, strengths)
def test_diagonals(t, s, g0):
    times, values, starts = np.array([t]), np.array([s]), np.array([g0])
    at = {"t": t, "tau": TAU, "g0": g0, "s": s, "s_k": s, "alpha": 1.0}
    (fixed,) = response_kernels("fixed-init", times, values, starts, TAU, piece=1)
    forward, backward = fixed.target_input[0, 0, 0], fixed.input_target[0, 0, 0]
    tolerance = 512 * EPS * (forward + backward) + 4 * EPS * (abs(forward) + abs(backward))  # as above
    assert abs(forward + backward - value("fixed-init", "diagonal", **at)) <= tolerance
    (weight,) = response_kernels("sample-weight", times, values, starts, TAU, piece=1)
    # psi = s alpha for one sample of its own mode; quadrature converges below eps, its sum loses eps of both terms
    have = s * (weight.target_input + weight.input_target)[0, 0, 0] - weight.input_input[0, 0, 0]
    terms = s * abs(weight.target_input[0, 0, 0] + weight.input_target[0, 0, 0]) + abs(weight.input_input[0, 0, 0])
    assert abs(have - value("sample-weight", "diagonal", **at)) <= 1e3 * EPS * (terms + 1)


# --- posteriors and phases against quadrature and iteration -----------------------------------------------------------


def test_mixture_law_against_samples_of_atoms():
    """Phases that are two-point laws: every moment is a finite sum."""
    rng = np.random.default_rng(3)
    for name, n in (("two", 2), ("three", 3)):
        atoms, pi = rng.normal(size=(n, 2, 2)), rng.dirichlet(np.ones(n))
        pooled, weight = atoms.reshape(-1, 2), np.repeat(pi / 2, 2)
        mean = weight @ pooled
        total = weight @ np.prod(pooled - mean, axis=1)
        mu = atoms.mean(axis=1)
        within = np.mean(np.prod(atoms - mu[:, None], axis=2), axis=1)
        at = {f"pi_{k + 1}": pi[k] for k in range(n - 1)}
        for k in range(n):
            at |= {f"mu_{k + 1}": mu[k, 0], f"nu_{k + 1}": mu[k, 1], f"C_{k + 1}": within[k]}
        assert value("total-covariance", name, **at) == pytest.approx(total, rel=0, abs=128 * EPS * 10)


def test_extremum_is_the_highest_point():
    at = {"mu_1": 2.0, "mu_2": -1.0, "nu_1": 1.5, "nu_2": 0.5, "C_1": 0.7, "C_2": -0.1}
    pi = 0.5 + value("mixture-extremum", "offset", **at)
    totals = [value("total-covariance", "two", pi_1=p, **at) for p in (pi - 1e-3, pi, pi + 1e-3)]
    # a parabola of curvature -2 * 3 * 1, so both neighbours lie lower by 3e-6 exactly
    assert np.diff(totals) == pytest.approx([3e-6, -3e-6], rel=1e-8)


@pytest.mark.parametrize(("eps", "h"), [(0.1, 1.0), (1.9, 2.0), (3.0, 0.5)])
def test_sgld_variance_is_the_fixed_point_of_the_recursion(eps, h):
    variance = 0.0
    for _ in range(3000):  # contraction (1 - eps h / 2)^2 <= 0.91 a step
        variance = (1 - eps * h / 2) ** 2 * variance + eps
    assert value("sgld-variance", "variance", eps=eps, h=h) == pytest.approx(variance, rel=1e-13)


def test_free_energy_and_covariance_against_quadrature():
    at = {"ratio": 1.7, "gamma": 0.8, "beta_1": 1.0, "beta_2": 0.6, "h_1": 1.1, "h_2": 0.4, "b_1": 0.9, "b_2": -1.3}

    def losses(w):
        return tuple(at[f"b_{i}"] * w + at[f"h_{i}"] * w**2 / 2 for i in (1, 2))

    def density(w):
        return np.exp(-at["ratio"] * (at["beta_1"] * losses(w)[0] + at["beta_2"] * losses(w)[1]) - 0.4 * w**2)

    def moment(function):
        return quad(lambda w: function(w) * density(w), -12, 12, epsabs=1e-13, epsrel=1e-13, limit=200)[0]

    z = moment(lambda w: 1.0)
    first, second, both = (
        moment(f) / z for f in (lambda w: losses(w)[0], lambda w: losses(w)[1], lambda w: np.prod(losses(w)))
    )
    # quadrature to 1e-13 of moments of order one
    assert value("free-energy", "free_energy", **at) == pytest.approx(-np.log(z), abs=1e-11)
    assert value("free-energy", "covariance", **at) == pytest.approx(both - first * second, abs=1e-11)


@pytest.mark.parametrize("c", [0.01, 0.1, 0.3])
def test_transition_size_is_the_larger_root(c):
    root = brentq(lambda n: np.log(n) / n - c, np.e, 1e4, xtol=1e-12, rtol=4 * EPS)
    symbolic = derivation("transition-sample-size").formulas["n"]
    assert float(symbolic.subs(sp.Symbol("c", positive=True), sp.Float(c, 30))) == pytest.approx(root, rel=1e-11)
