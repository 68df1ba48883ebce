"""Extremum, peak and sign flips of a two-phase covariance against exact rational conditions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import decompose_covariance, phase_transition

EPS = np.finfo(float).eps
seeds = st.integers(0, 2**32 - 1)


def random_covariances(rng, k, d):
    root = rng.normal(size=(k, d, d + 1))
    return root @ np.swapaxes(root, 1, 2)


def total_at(p, u, v, jump):
    return p * u + (1 - p) * v + p * (1 - p) * jump


def exact_sign_flips(u, v, jump):
    """Count sign changes of T on (0, 1) by signs alone: at the ends, next to zero ends, and at the vertex."""

    def sign(x):
        return (x > 0) - (x < 0)

    if u * v < 0:
        return 1
    near_v = sign(v) or sign(u + jump)  # at v = 0, T = p (u + jump) to first order in p
    near_u = sign(u) or sign(v + jump)  # at u = 0, T = (1 - p)(v + jump) to first order in 1 - p
    if near_v * near_u < 0:
        return 1
    if jump and abs(u - v) < abs(jump):
        vertex = total_at(Fraction(1, 2) + Fraction(u - v, 2 * jump), u, v, jump)
        if sign(vertex) * near_u < 0:
            return 2
    return 0


small_integers = st.integers(-12, 12)


def pair_phases(u_jj, v_jj, u, v, d_j):
    """Two observables with jumps 1 and d_j, whose off-diagonal covariances are u and v within semidefinite matrices."""
    big = 200.0
    return [1.0 + 5, d_j + 7], [5, 7], [[big, u], [u, big + u_jj]], [[big, v], [v, big + v_jj]]


@given(st.integers(0, 3), st.integers(0, 3), small_integers, small_integers, st.integers(-60, 60))
def test_two_phases_match_exact_conditions(u_jj, v_jj, u, v, jump):
    """Every flag for every small integer case; the answer comes from rationals and evaluations of T only."""
    found = phase_transition(*pair_phases(u_jj, v_jj, u, v, jump))
    assert found.is_maximum[0, 1] == (jump > 0)
    assert found.is_minimum[0, 1] == (jump < 0)
    flips = found.sign_flips[0, 1]
    assert np.count_nonzero(~np.isnan(flips)) == exact_sign_flips(u, v, jump)
    assert np.all(np.isnan(flips[1:]) | (flips[:1] < flips[1:]))
    for flip in flips[~np.isnan(flips)]:
        # T is known to a few eps of its terms; a root at distance r from the other moves by that over |jump| r
        assert 0 < flip < 1
        assert abs(total_at(flip, u, v, jump)) <= 64 * EPS * (abs(u) + abs(v) + abs(jump))
    if jump == 0:
        assert np.isnan(found.position[0, 1])
        assert np.isnan(found.value[0, 1])
        assert not found.inside[0, 1]
        assert not found.peaks[0, 1]
        return
    position = Fraction(1, 2) + Fraction(u - v, 2 * jump)
    value = total_at(position, u, v, jump)
    step = Fraction(1, 7)
    # stationary: a quadratic has equal values on both sides of its vertex
    assert total_at(position + step, u, v, jump) == total_at(position - step, u, v, jump)
    assert found.position[0, 1] == pytest.approx(float(position), rel=0, abs=4 * EPS * (1 + abs(position)))
    size = abs(u) + abs(v) + abs(jump) + Fraction((u - v) ** 2, abs(jump))
    assert abs(found.value[0, 1] - float(value)) <= 8 * EPS * float(size)
    assert found.inside[0, 1] == (0 < position < 1)
    assert found.peaks[0, 1] == (0 < position < 1 and abs(value) > max(abs(u), abs(v)))


def test_sign_flips_of_every_small_case():
    """All u, v, jump in -6..6, all at once through the leading axes."""
    u, v, jump = (a.ravel() for a in np.meshgrid(*[np.arange(-6, 7)] * 3))
    big = np.full(u.shape, 50.0)

    def covariance(c):
        return np.moveaxis(np.array([[big, c], [c, big]]), -1, 0)

    means = np.stack([np.ones(len(jump)), jump], axis=-1)
    found = phase_transition(means, np.zeros(2), covariance(u), covariance(v))
    count = np.count_nonzero(~np.isnan(found.sign_flips[:, 0, 1]), axis=-1)
    expected = [exact_sign_flips(int(a), int(b), int(c)) for a, b, c in zip(u, v, jump, strict=True)]
    assert np.array_equal(count, expected)
    assert set(expected) == {0, 1, 2}


@given(seeds, st.integers(1, 4))
def test_sign_flip_conditions_as_documented(seed, d):
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=d) * 3
    u, v = random_covariances(rng, 2, d)
    found = phase_transition(mean, np.zeros(d), u, v)
    jump, flips = np.outer(mean, mean), np.count_nonzero(~np.isnan(found.sign_flips), axis=-1)
    one = u * v < 0
    two = (u * v > 0) & (jump * u < 0) & (np.abs(jump) > (np.sqrt(np.abs(u)) + np.sqrt(np.abs(v))) ** 2)
    assert np.array_equal(flips, one + 2 * two)
    assert not np.diag(flips).any()  # a variance has no sign to flip
    variances = np.diag(np.broadcast_to(found.is_maximum, (d, d)))
    assert variances.all()


@given(seeds, st.integers(1, 4), st.floats(0.01, 0.99))
def test_quadratic_is_the_total_of_the_mixture(seed, d, p):
    """Vertex form with the reported value, position and curvature -D against the two-component decomposition."""
    rng = np.random.default_rng(seed)
    mean_u, mean_v, (u, v) = rng.normal(size=d), rng.normal(size=d), random_covariances(rng, 2, d)
    found = phase_transition(mean_u, mean_v, u, v)
    jump = np.outer(mean_u - mean_v, mean_u - mean_v)
    total = decompose_covariance([p, 1 - p], [mean_u, mean_v], [u, v]).total
    vertex = found.value - jump * (p - found.position) ** 2
    # value and jump (p - position)^2 both hold (u - v)^2 / (4 jump), which cancels
    scale = np.abs(u) + np.abs(v) + np.abs(jump) + (u - v) ** 2 / np.abs(jump)
    assert np.all(np.abs(vertex - total) <= 32 * EPS * scale)


@given(seeds, st.integers(1, 4))
def test_extremum_is_at_one_half_only_for_equal_covariances(seed, d):
    """The paper puts the peak at pi = 1/2. That needs Cov_U = Cov_V entry by entry; else the vertex is elsewhere."""
    rng = np.random.default_rng(seed)
    mean_u, mean_v, (u, v) = rng.normal(size=d), rng.normal(size=d), random_covariances(rng, 2, d)
    same = phase_transition(mean_u, mean_v, u, u)
    assert np.array_equal(same.position, np.full((d, d), 0.5))
    assert same.inside.all()
    other = phase_transition(mean_u, mean_v, u, v)
    assert np.array_equal(other.position == 0.5, u == v)
    # the true total at one half is beaten by a neighbour in the direction of the phase with more covariance
    jump = np.outer(mean_u - mean_v, mean_u - mean_v)
    diagonal = np.diag_indices(d)
    towards = np.sign(u - v) * np.minimum(0.25, np.abs(u - v) / jump / 2) * 0.5
    assert np.all((total_at(0.5 + towards, u, v, jump) > total_at(0.5, u, v, jump))[diagonal])


@given(seeds, st.integers(1, 3))
def test_exchanging_the_phases_mirrors_the_weight(seed, d):
    rng = np.random.default_rng(seed)
    mean_u, mean_v, (u, v) = rng.normal(size=d) * 3, rng.normal(size=d), random_covariances(rng, 2, d)
    one, other = phase_transition(mean_u, mean_v, u, v), phase_transition(mean_v, mean_u, v, u)
    assert np.allclose(one.position + other.position, 1, rtol=4 * EPS, atol=4 * EPS * np.abs(one.position).max())
    for name in ("inside", "peaks", "is_maximum", "is_minimum"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    mirrored = np.sort(1 - other.sign_flips, axis=-1)
    assert np.array_equal(np.isnan(mirrored), np.isnan(one.sign_flips))
    # the two roots are computed from the same b and discriminant with u and v exchanged; 1 - p rounds absolutely
    assert np.allclose(one.sign_flips, mirrored, rtol=0, atol=8 * EPS, equal_nan=True)


@pytest.mark.parametrize("scale", [1e-150, 1e-80, 1e80, 1e150])
def test_transition_has_no_scale(scale):
    phases = [3.0, -2.0], [0.0, 1.0], [[1.0, 0.25], [0.25, 2.0]], [[2.0, 0.5], [0.5, 1.0]]
    one = phase_transition(*phases)
    scaled = phase_transition(*(np.array(x) * scale ** (1 + (i > 1)) for i, x in enumerate(phases)))
    assert np.count_nonzero(~np.isnan(one.sign_flips)) == 4
    for name in ("position", "sign_flips"):
        assert np.allclose(getattr(scaled, name), getattr(one, name), rtol=32 * EPS, atol=0, equal_nan=True)
    assert np.allclose(scaled.value / scale / scale, one.value, rtol=32 * EPS)
    assert np.array_equal(scaled.peaks, one.peaks)
    assert np.array_equal(scaled.inside, one.inside)


def test_small_flips_keep_their_digits():
    """With u = -1, v = 1e-14 and D of order one the root near p = 0 solves (u + v + D) p = -v to first order."""
    u, v, jump = -1.0, 1e-14, -1.0
    found = phase_transition(*pair_phases(0, 0, u, v, jump))
    b = Fraction(u) + Fraction(v) + Fraction(jump)
    guess = Fraction(v) / -b
    x = Fraction(v) / (-b - Fraction(u) * guess)  # one fixed-point step on u x^2 + b x + v = 0: error (v/b)^2
    assert found.sign_flips[0, 1, 0] == pytest.approx(float(x / (1 + x)), rel=8 * EPS)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"mean_u": np.zeros(3)}, r"mean_u has shape \(3,\), but cov_u has shape \(2, 2\)"),
        ({"mean_u": 1.0}, r"mean_u has shape \(\), but cov_u"),
        ({"mean_v": [np.nan, 0.0]}, "mean_v holds a non-finite value"),
        ({"cov_u": -np.eye(2)}, "cov_u must be positive semidefinite"),
        ({"cov_v": np.array([[1.0, 1.0], [0.0, 1.0]])}, "cov_v must be symmetric"),
        ({"cov_v": np.ones(2)}, "cov_v must hold square matrices"),
        ({"mean_v": np.zeros(3), "cov_v": np.eye(3)}, "mean_u has 2 observables but mean_v has 3"),
    ],
)
def test_bad_phases_are_refused(change, sentence):
    good = {"mean_u": np.zeros(2), "mean_v": np.ones(2), "cov_u": np.eye(2), "cov_v": np.eye(2)}
    with pytest.raises(ValueError, match=sentence):
        phase_transition(**(good | change))
