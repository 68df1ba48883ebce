"""Learning coefficients against tabulated values, orbit dimensions, the two-layer case list and quadrature."""

from fractions import Fraction
from itertools import pairwise, permutations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import dblquad, quad
from scipy.special import gamma, gammainc

from theory.posteriors.learning_coefficient import learning_coefficient, monomial_learning_coefficient

HALF = Fraction(1, 2)


@st.composite
def networks(draw, largest=9, layers=5):
    widths = draw(st.lists(st.integers(1, largest), min_size=2, max_size=layers + 1))
    return widths, draw(st.integers(0, min(widths)))


@pytest.mark.parametrize(
    ("widths", "rank", "expected", "multiplicity"),
    [
        ((2, 2, 2), 0, "3/2", 1),
        ((2, 2, 2), 1, "2", 2),
        ((3, 2, 3), 1, "7/2", 2),
        ((5, 3, 5), 0, "13/2", 2),
        ((10, 5, 10), 2, "29", 2),
        ((10, 10, 10, 10), 0, "67/2", 3),
        ((10, 10, 10, 10), 3, "42", 3),
        ((7, 5, 9, 6, 8), 2, "37/2", 1),
        ((20, 10, 15, 12), 4, "79", 2),
    ],
)
def test_known_values(widths, rank, expected, multiplicity):
    assert learning_coefficient(widths, rank) == (Fraction(expected), multiplicity)


@pytest.mark.parametrize("rank", range(9))
def test_toy_network_does_not_depend_on_the_rank(rank):
    assert learning_coefficient((8, 50, 15), rank) == (60, 1)


def reduced_rank_regression(inputs, hidden, outputs, r):
    """Return (lambda, m) by the cases of Aoyagi and Watanabe (2005): M inputs, H hidden units, N outputs."""
    m, h, n = inputs, hidden, outputs
    if m + h < n + r:
        return Fraction(h * m - h * r + n * r, 2), 1
    if n + h < m + r:
        return Fraction(h * n - h * r + m * r, 2), 1
    if m + n < h + r:
        return Fraction(m * n, 2), 1
    odd = (m + h + n + r) % 2
    return Fraction(-((h + r) ** 2) - m**2 - n**2 + 2 * (h + r) * (m + n) + 2 * m * n + odd, 8), 1 + odd


def test_two_layers_match_reduced_rank_regression():
    for widths in product(range(1, 9), repeat=3):
        for rank in range(min(widths) + 1):
            assert learning_coefficient(widths, rank) == reduced_rank_regression(*widths, rank), (widths, rank)


def cheapest_rank_profiles(widths, rank):
    """Least codimension of a set of weights with rank(W_s ... W_1) = rho_s and rho_L = rank, and how many attain it.

    Given the rho_{s-1}-dimensional image so far, W_s restricted to it has rank rho_s on a set of codimension
    (rho_{s-1} - rho_s)(H_s - rho_s). These sets are irreducible and fill the weights whose product has that rank.
    """
    best = {widths[0]: (0, 1)}
    for width in widths[1:]:
        options = {}
        for before, (cost, ways) in best.items():
            for after in range(min(before, width) + 1):
                options.setdefault(after, []).append((cost + (before - after) * (width - after), ways))
        best = {
            after: (least := min(cost for cost, _ in found), sum(ways for cost, ways in found if cost == least))
            for after, found in options.items()
        }
    return best[rank]


def check_against_profiles(widths, rank):
    """Twice lambda is the codimension of the fibre over one matrix (Lehalleur and Rimanyi 2024): compare it.

    The weights over all matrices of a rank fibre over those r (H_0 + H_L - r) dimensions. The number of cheapest
    profiles is the binomial coefficient (ell over a), whose multiplicity a (ell - a) + 1 is read off here for every
    ell <= 5: all binomials 1 .. 5 belong to a in {0, 1, ell - 1, ell}, 6 to (4 over 2) and 10 to (5 over 2).
    """
    codimension, ways = cheapest_rank_profiles(widths, rank)
    expected = Fraction(codimension + rank * (widths[0] + widths[-1] - rank), 2)
    multiplicity = {comb(4, 2): 5, comb(5, 2): 7}.get(ways, ways)
    assert learning_coefficient(widths, rank) == (expected, multiplicity), (widths, rank)


def test_all_small_networks_match_the_codimension_of_the_fibre():
    for layers, largest in ((1, 6), (2, 6), (3, 5), (4, 4), (5, 3)):
        for widths in product(range(1, largest + 1), repeat=layers + 1):
            for rank in range(min(widths) + 1):
                check_against_profiles(widths, rank)


@given(networks(largest=30, layers=5))
def test_large_networks_match_the_codimension_of_the_fibre(network):
    check_against_profiles(*network)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 6))
def test_bottleneck_of_one_is_a_monomial(inputs, outputs, links):
    """A chain n-1-...-1-p has K = |w_1|^2 w_2^2 ... |w_L|^2; polar coordinates of the ends give r^{n-1} and r^{p-1}."""
    expected = monomial_learning_coefficient([1] * (links + 2), [inputs - 1, *[0] * links, outputs - 1])
    assert learning_coefficient((inputs, *[1] * (links + 1), outputs), 0) == expected


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 40), st.data())
def test_regular_networks_count_half_their_parameters(inputs, outputs, extra, data):
    """One layer, or hidden layers that leave the product free: the model is all H_0 x H_L matrices."""
    rank = data.draw(st.integers(0, min(inputs, outputs)))
    regular = (Fraction(inputs * outputs, 2), 1)
    assert learning_coefficient((inputs, outputs), rank) == regular
    assert learning_coefficient((inputs, inputs + outputs - rank + extra, outputs), rank) == regular


@given(networks())
def test_full_rank_counts_half_the_dimension_of_its_matrices(network):
    widths, _ = network
    r = min(widths)
    assert learning_coefficient(widths, r) == (Fraction(r * (widths[0] + widths[-1] - r), 2), 1)


@given(networks(layers=4))
def test_order_of_hidden_widths_does_not_matter(network):
    widths, rank = network
    expected = learning_coefficient(widths, rank)
    for hidden in permutations(widths[1:-1]):
        assert learning_coefficient((widths[0], *hidden, widths[-1]), rank) == expected
    assert learning_coefficient(widths[::-1], rank) == expected


@given(networks())
def test_rank_splits_off_a_regular_part(network):
    widths, rank = network
    if rank == min(widths):
        return
    reduced, multiplicity = learning_coefficient([width - rank for width in widths], 0)
    regular = Fraction(rank * (widths[0] + widths[-1] - rank), 2)
    assert learning_coefficient(widths, rank) == (reduced + regular, multiplicity)


@given(networks(), st.data())
def test_coefficient_grows_with_rank_and_width(network, data):
    """Weights over rank r degenerate to weights over rank r - 1, and narrow networks are slices of wider ones.

    The learning coefficient is lower semicontinuous and does not grow on a slice, so both make it no smaller. It never
    exceeds half the entries of the map, nor half the parameters.
    """
    widths, rank = network
    coefficient, _ = learning_coefficient(widths, rank)
    if rank:
        assert learning_coefficient(widths, rank - 1)[0] <= coefficient
    at = data.draw(st.integers(0, len(widths) - 1))
    wider = [width + (i == at) for i, width in enumerate(widths)]
    assert learning_coefficient(wider, rank)[0] >= coefficient
    parameters = sum(a * b for a, b in pairwise(widths))
    assert coefficient <= HALF * min(widths[0] * widths[-1], parameters)
    assert (2 * coefficient).denominator == 1


@given(networks())
def test_a_very_wide_layer_anywhere_inside_changes_nothing(network):
    widths, rank = network
    for at in range(1, len(widths)):
        assert learning_coefficient([*widths[:at], 1000, *widths[at:]], rank) == learning_coefficient(widths, rank)


def evidence_2d(k, h, n):
    """Integral of exp(-n x^2k1 y^2k2) x^h1 y^h2 over the unit square: inner one by definition of gamma, outer quad."""
    a = (h[1] + 1) / (2 * k[1])

    def outer(u):
        x = np.exp(-u)
        scale = n * x ** (2 * k[0])
        inner = gammainc(a, scale) * gamma(a) / (2 * k[1]) * scale**-a
        return x ** (h[0] + 1) * inner

    # beyond u = edge n x^{2 k1} < 1, and the integrand falls like x^{h1 + 1}: 80 more powers of e are enough
    edge = np.log(n) / (2 * k[0])
    pieces = [*np.linspace(0, edge, 9), edge + 5, edge + 20, edge + 80]
    return sum(quad(outer, *ends, epsabs=0, epsrel=1e-12)[0] for ends in pairwise(pieces))


def test_inner_integral_of_the_evidence():
    direct, _ = dblquad(lambda y, x: np.exp(-50 * x**2 * y**4) * x * y**2, 0, 1, 0, 1, epsabs=1e-12, epsrel=1e-12)
    assert evidence_2d((1, 2), (1, 2), 50.0) == pytest.approx(direct, rel=1e-9)


@pytest.mark.parametrize(
    ("k", "h"),
    [
        ((1, 1), (0, 0)),
        ((1, 1), (1, 1)),
        ((2, 1), (1, 0)),
        ((1, 3), (0, 2)),
        ((2, 3), (1, 2)),
        ((2, 1), (0, 3)),
        ((1, 3), (0, 0)),
        ((3, 2), (1, 1)),
        ((1, 2), (3, 0)),
    ],
)
def test_monomial_matches_quadrature(k, h):
    r"""n^lambda Z(n) is A + B log n, with B = 0 exactly when m = 1.

    The only other power in two dimensions is n^-lambda', lambda' the other ratio, at least 1/6 above lambda in these
    cases: e^(-120/6) = 2e-9 of the whole at log n = 120, and the quadrature is good to 1e-11.
    """
    coefficient, multiplicity = monomial_learning_coefficient(k, h)
    low, middle, high = (np.exp(t * float(coefficient)) * evidence_2d(k, h, np.exp(t)) for t in (120.0, 150.0, 180.0))
    assert high - 2 * middle + low == pytest.approx(0, abs=2e-8 * middle)
    # A / B is minus the digamma function at lambda in [1/2, 1]: 0.58 to 1.96, so m = 2 grows by 30 / (120 + A / B)
    growth, tolerance = (0.247, 0.002) if multiplicity == 2 else (0.0, 1e-8)
    assert middle / low - 1 == pytest.approx(growth, abs=tolerance)
    slope = -np.log(evidence_2d(k, h, np.exp(151.0)) / evidence_2d(k, h, np.exp(149.0))) / 2
    # a chord of half-width 1 on log(A + B t): relative error (A / B + t)^-2 / 3 of B / (A + B t), below 1e-7
    assert slope == pytest.approx(float(coefficient) - (middle - low) / 30 / middle, abs=2e-7)


def test_double_pole_has_its_known_constant():
    """K = x^2 y^2 on the unit square: Z sqrt(n) = sqrt(pi)/4 (log n + gamma_E + 2 log 2)."""
    for t in (60.0, 90.0):
        expected = np.sqrt(np.pi) / 4 * (t + np.euler_gamma + 2 * np.log(2))
        assert np.exp(t / 2) * evidence_2d((1, 1), (0, 0), np.exp(t)) == pytest.approx(expected, rel=1e-10)


exponents = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=6)


@given(exponents, st.randoms(use_true_random=False))
def test_monomial_properties(pairs, random):
    if not any(k for k, _ in pairs):
        return
    expected = monomial_learning_coefficient(*zip(*pairs, strict=True))
    shuffled = random.sample(pairs, len(pairs))
    assert monomial_learning_coefficient(*zip(*shuffled, strict=True)) == expected
    coefficient, multiplicity = expected
    assert all(2 * k * coefficient <= h + 1 for k, h in pairs)
    assert sum(2 * k * coefficient == h + 1 for k, h in pairs) == multiplicity >= 1


@given(st.integers(1, 20), st.integers(1, 20))
def test_regular_model_through_polar_coordinates(dimension, power):
    """K = |w|^2k in d dimensions is r^2k with Jacobian r^(d-1): lambda = d / (2 k), the regular d / 2 at k = 1."""
    assert monomial_learning_coefficient([power], [dimension - 1]) == (Fraction(dimension, 2 * power), 1)


def test_integer_arrays_are_as_good_as_lists():
    assert learning_coefficient(np.array([5, 3, 5], dtype=np.uint8), 0) == (Fraction(13, 2), 2)
    coefficient, multiplicity = monomial_learning_coefficient(np.array([2, 1]), np.array([1, 0]))
    assert (coefficient, multiplicity) == (HALF, 2)
    assert type(coefficient) is Fraction
    assert type(multiplicity) is int


@pytest.mark.parametrize(
    ("widths", "rank", "error", "sentence"),
    [
        ((), 0, ValueError, r"widths must be a non-empty list of whole numbers, but its shape is \(0,\)"),
        (np.array(3), 0, ValueError, r"widths must be a non-empty list of whole numbers, but its shape is \(\)"),
        (np.full((2, 2), 2), 0, ValueError, r"widths must be a non-empty list .* \(2, 2\)"),
        ((3,), 0, ValueError, r"widths must name at least the inputs and the outputs, but only \[3\]"),
        ((3, 0, 3), 0, ValueError, "every entry of widths must be at least 1, but the smallest is 0"),
        ((3, -2), 0, ValueError, "every entry of widths must be at least 1, but the smallest is -2"),
        (np.array([2.5, 2.0]), 0, TypeError, "widths must hold whole numbers, but its dtype is float64"),
        (np.array([2.0, 2.0]), 0, TypeError, "widths must hold whole numbers"),
        ((True, True), 0, TypeError, "widths must hold whole numbers, but its dtype is bool"),
        ((5, 3, 5), 4, ValueError, "rank 4 is more than the smallest width 3"),
        ((5, 3, 5), -1, ValueError, "rank must be at least 0, but -1"),
        ((5, 3, 5), True, TypeError, "rank must be a whole number, but True"),
        ((5, 3, 5), 1.5, TypeError, "rank"),
    ],
)
def test_bad_networks_are_refused(widths, rank, error, sentence):
    with pytest.raises(error, match=sentence):
        learning_coefficient(widths, rank)


@pytest.mark.parametrize(
    ("k", "h", "error", "sentence"),
    [
        ((), (), ValueError, "k must be a non-empty list"),
        ((1, 1), (0,), ValueError, "k has 2 exponents but h has 1; give one of each a coordinate"),
        ((0, 0), (0, 0), ValueError, "every k_j is zero, so K is 1 everywhere"),
        ((-1, 1), (0, 0), ValueError, "every entry of k must be at least 0, but the smallest is -1"),
        ((1, 1), (0, -1), ValueError, "every entry of h must be at least 0, but the smallest is -1"),
        (np.array([0.5, 1]), (0, 0), TypeError, "k must hold whole numbers"),
        ((1, 1), np.array([0.5, 0]), TypeError, "h must hold whole numbers"),
    ],
)
def test_bad_monomials_are_refused(k, h, error, sentence):
    with pytest.raises(error, match=sentence):
        monomial_learning_coefficient(k, h)
