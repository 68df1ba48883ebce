"""The law of total covariance against exact rational arithmetic, definitions and repeated simulation."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ortho_group

from theory import (
    decompose_covariance,
    phase_transition,
    quadratic_loss_moments,
    sampled_decomposition,
    total_covariance_gradient,
    total_covariance_hessian,
)

EPS = np.finfo(float).eps
seeds = st.integers(0, 2**32 - 1)


def fractions(array):
    """Return the very floats of an array as exact rationals."""
    return np.vectorize(Fraction, otypes=[object])(np.asarray(array, dtype=float))


def dyadic_weights(rng, k):
    """Weights whose floats sum to 1 exactly, zeros included."""
    return rng.multinomial(2**10, rng.dirichlet(np.full(k, 0.5))) / 2**10


def random_covariances(rng, k, d):
    root = rng.normal(size=(k, d, d + 1))
    return root @ np.swapaxes(root, 1, 2)


@st.composite
def mixtures(draw, max_k=5):
    """Dyadic weights, corners among them, with any means and covariances."""
    rng = np.random.default_rng(draw(seeds))
    k, d = draw(st.integers(1, max_k)), draw(st.integers(1, 4))
    weights = np.eye(k)[rng.integers(k)] if draw(st.booleans()) else dyadic_weights(rng, k)
    return weights, rng.normal(size=(k, d)) * 10.0 ** rng.integers(-3, 4), random_covariances(rng, k, d)


def exact_total(weights, means, covariances):
    """E[x x^T] - E[x] E[x]^T in rationals: the definition, without the law of total covariance."""
    second = sum(p * (c + np.outer(m, m)) for p, m, c in zip(weights, means, covariances, strict=True))
    mean = sum(p * m for p, m in zip(weights, means, strict=True))
    return second - np.outer(mean, mean)


def exact_within(weights, covariances):
    return sum(p * c for p, c in zip(weights, covariances, strict=True))


def rounding_scale(means, covariances):
    """Size of the terms that are added: within each entry K means of it and K^2 / 2 products of differences."""
    spread = np.ptp(means, axis=0)
    return len(means) * np.abs(covariances).max(axis=0) + len(means) ** 2 * np.outer(spread, spread)


def close(value, expected, scale, roundings=16):
    """Compare with rationals; a term passes through at most about a dozen roundings of eps / 2 each."""
    return np.all(np.abs(value - expected.astype(float)) <= roundings * EPS * scale)


# decomposition


@given(mixtures())
def test_parts_match_the_definition_in_rationals(mixture):
    weights, means, covariances = mixture
    parts = decompose_covariance(*mixture)
    pi, mu, cov = map(fractions, mixture)
    scale = rounding_scale(means, covariances)
    total, within = exact_total(pi, mu, cov), exact_within(pi, cov)
    assert close(parts.within, within, scale)
    assert close(parts.between, total - within, scale)
    assert close(parts.total, total, scale)
    assert np.array_equal(parts.total, parts.within + parts.between)
    assert np.array_equal(parts.between, parts.between.T)
    assert parts.between_rank <= len(weights) - 1
    # a Gram matrix of the root, so semidefinite up to the rounding of its products
    assert np.linalg.eigvalsh(parts.between).min() >= -16 * EPS * np.trace(parts.between)
    assert np.allclose(parts.between_root.T @ parts.between_root, parts.between, rtol=0, atol=16 * EPS * scale.max())


@pytest.mark.parametrize("scale", [1e-140, 1e-30, 1.0, 1e30, 1e140])
@pytest.mark.parametrize("offset", [0.0, 2.0**40, -(2.0**45)])
def test_between_term_keeps_its_digits(scale, offset):
    """Differences are rounded once each, whatever the offset; E[x x^T] - E[x] E[x]^T would err by offset^2 eps."""
    rng = np.random.default_rng(3)
    weights = np.array([0.5, 0.375, 0.125])
    means = (rng.integers(-64, 64, size=(3, 4)) / 8 + offset) * scale
    covariances = random_covariances(rng, 3, 4) * scale**2
    parts = decompose_covariance(weights, means, covariances)
    pi, mu = fractions(weights), fractions(means)
    expected = exact_total(pi, mu, fractions(np.zeros((3, 4, 4)))).astype(float)
    size = np.sqrt(np.diag(expected))
    assert np.all(np.abs(parts.between - expected) <= 8 * EPS * np.outer(size, size))


@pytest.mark.parametrize("small", [1e-3, 1e-9, 1e-15, 1e-60, 1e-150])
def test_between_term_near_a_corner(small):
    """At pi = (1 - e, e) the jump counts e (1 - e) relative to itself, however small e."""
    jump = np.array([2.0, -3.0])
    parts = decompose_covariance([1 - small, small], [[1.0, 1.0], 1 + jump], np.zeros((2, 2, 2)))
    expected = float(Fraction(small) * Fraction(1 - small)) * np.outer(jump, jump)
    assert np.allclose(parts.between, expected, rtol=4 * EPS, atol=0)


@given(mixtures())
def test_corner_is_the_component_itself(mixture):
    _, means, covariances = mixture
    for k, corner in enumerate(np.eye(len(means))):
        parts = decompose_covariance(corner, means, covariances)
        assert np.array_equal(parts.total, covariances[k])
        assert not parts.between.any()
        assert parts.between_rank == 0


@given(mixtures(), seeds)
def test_symmetries_of_the_decomposition(mixture, seed):
    """Relabelling components, splitting one in two, shifting all means, and rotating the observables."""
    weights, means, covariances = mixture
    rng, d = np.random.default_rng(seed), means.shape[1]
    parts = decompose_covariance(*mixture)
    scale = rounding_scale(means, covariances)
    order = rng.permutation(len(weights))
    split = np.repeat(np.arange(len(weights)), 2)
    for other in (
        decompose_covariance(weights[order], means[order], covariances[order]),
        decompose_covariance(weights[split] / 2, means[split], covariances[split]),
    ):
        assert np.all(np.abs(other.within - parts.within) <= 16 * EPS * scale)
        assert np.all(np.abs(other.between - parts.between) <= 32 * EPS * scale)
        assert other.between_rank == parts.between_rank
    rotation = ortho_group.rvs(d, random_state=rng) if d > 1 else -np.eye(1)
    rotated = rotation @ covariances @ rotation.T
    turned = decompose_covariance(weights, means @ rotation.T, (rotated + np.swapaxes(rotated, 1, 2)) / 2)
    # the rotation of the means rounds relative to the means, not to their differences
    size = scale.max() + np.abs(means).max() ** 2 * len(means) ** 2
    assert np.all(np.abs(turned.total - rotation @ parts.total @ rotation.T) <= 256 * EPS * size)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("d", [1, 2, 3, 7])
def test_between_rank_is_the_dimension_of_the_means(k, d):
    rng = np.random.default_rng(k * 10 + d)
    covariances, weights = random_covariances(rng, k, d), rng.dirichlet(np.ones(k))
    rank = decompose_covariance(weights, rng.normal(size=(k, d)) + 1e3, covariances).between_rank
    assert rank == min(k - 1, d)
    line = np.outer(rng.normal(size=k), rng.normal(size=d))
    assert decompose_covariance(weights, line, covariances).between_rank == min(k - 1, 1)


def test_between_rank_sees_a_direction_the_matrix_has_lost():
    """A second direction 1e-12 of the first: 1e-24 in the matrix, where its eigenvalues end at 1e-16."""
    means = [[0.0, 0.0], [1.0, 0.0], [0.0, 1e-12]]
    parts = decompose_covariance([0.25, 0.25, 0.5], means, np.zeros((3, 2, 2)))
    assert parts.between_rank == 2
    many = decompose_covariance(np.tile([0.25, 0.25, 0.5], (10_000, 1)), means, np.zeros((3, 2, 2)))
    assert np.all(many.between_rank == 2)  # the tolerance belongs to each matrix, not to the batch
    means = [[0.0, 0.0], [1.0, 0.0], [0.0, 1e-17]]
    assert decompose_covariance([0.25, 0.25, 0.5], means, np.zeros((3, 2, 2))).between_rank == 1


def test_leading_axes_broadcast():
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(3), size=(4, 1))
    means, covariances = rng.normal(size=(5, 3, 2)), random_covariances(rng, 3, 2)
    parts = decompose_covariance(weights, means, covariances)
    gradient = total_covariance_gradient(weights, means, covariances)
    hessian = total_covariance_hessian(weights, means)
    assert parts.total.shape == parts.within.shape == parts.between.shape == (4, 5, 2, 2)
    assert parts.between_rank.shape == (4, 5)
    assert gradient.shape == (4, 5, 3, 2, 2)
    assert hessian.shape == (4, 5, 3, 3, 2, 2)
    for i, j in np.ndindex(4, 5):
        single = decompose_covariance(weights[i, 0], means[j], covariances)
        assert np.allclose(parts.total[i, j], single.total, rtol=0, atol=32 * EPS * 10)
        alone = total_covariance_gradient(weights[i, 0], means[j], covariances)
        assert np.allclose(gradient[i, j], alone, rtol=0, atol=32 * EPS * 10)
        assert np.allclose(hessian[i, j], total_covariance_hessian(weights[i, 0], means[j]), rtol=0, atol=32 * EPS * 10)


@pytest.mark.parametrize("k", [1, 2, 3, 10, 1000])
def test_weights_divided_by_their_sum_are_on_the_simplex(k):
    rng = np.random.default_rng(k)
    for raw in (np.ones(k), rng.random(k), rng.lognormal(0, 10, size=k)):
        assert decompose_covariance(raw / raw.sum(), np.zeros((k, 1)), np.ones((k, 1, 1))).total == pytest.approx(1)


def test_sum_of_weights_may_be_off_by_rounding_only():
    """K eps at K = 2 is two steps above 1 (of eps) or four below (of eps / 2)."""
    moments = np.zeros((2, 1)), np.ones((2, 1, 1))
    decompose_covariance([0.5, 0.5 + 2 * EPS], *moments)
    with pytest.raises(ValueError, match="weights must sum to 1"):
        decompose_covariance([0.5, 0.5 + 3 * EPS], *moments)
    with pytest.raises(ValueError, match="weights must sum to 1"):
        decompose_covariance([0.5, 0.5 - 3 * EPS], *moments)


def test_covariances_may_be_off_by_rounding_only():
    """64 d eps of the largest entry: 128 eps at d = 2, on either side of it, for any number of components."""
    weights, means = np.full(5, 0.2), np.zeros((5, 2))
    for slack, fine in ((100 * EPS, True), (160 * EPS, False)):
        skewed = np.tile([[1.0, 0.0], [slack, 1.0]], (1, 5, 1, 1))
        indefinite = np.tile([[1.0, 0.0], [0.0, -slack]], (1, 5, 1, 1))
        for scale in (1e-100, 1.0, 1e100):
            for bad, sentence in ((skewed, "covariances must be symmetric"), (indefinite, "positive semidefinite")):
                if fine:
                    decompose_covariance(weights, means, scale * bad)
                else:
                    with pytest.raises(ValueError, match=sentence):
                        decompose_covariance(weights, means, scale * bad)


# derivatives in the weights


@given(mixtures())
def test_gradient_and_hessian_match_differences_in_rationals(mixture):
    """The total is quadratic in the weights: a central difference of any step is its derivative without remainder."""
    weights, means, covariances = mixture
    pi, mu, cov = map(fractions, mixture)
    gradient = total_covariance_gradient(*mixture)
    hessian = total_covariance_hessian(weights, means)
    scale = rounding_scale(means, covariances)
    step = Fraction(1, 3)
    ways = [fractions(np.eye(len(pi))[k]) - pi for k in range(len(pi))]

    def total(change):
        return exact_total(pi + change, mu, cov)

    for k, way in enumerate(ways):
        slope = (total(step * way) - total(-step * way)) / (2 * step)
        assert close(gradient[k], slope, scale, roundings=32)
        for j, other in enumerate(ways):
            corners = [total(step * (a * way + b * other)) * a * b for a in (1, -1) for b in (1, -1)]
            assert close(hessian[k, j], sum(corners) / (4 * step**2), scale, roundings=32)


@given(mixtures())
def test_moves_on_the_simplex(mixture):
    """Weighted by pi the moves cancel; and second order is exact for the whole way to a corner."""
    weights, means, covariances = mixture
    gradient = total_covariance_gradient(*mixture)
    hessian = total_covariance_hessian(weights, means)
    scale = rounding_scale(means, covariances)
    assert np.all(np.abs(np.einsum("k,kij->ij", weights, gradient)) <= 64 * EPS * scale)
    assert np.all(np.abs(np.einsum("k,klij->lij", weights, hessian)) <= 64 * EPS * scale)
    start = decompose_covariance(*mixture).total
    for k, corner in enumerate(covariances):
        assert np.all(np.abs(start + gradient[k] + hessian[k, k] / 2 - corner) <= 64 * EPS * scale)


def test_gradient_towards_the_heavy_component_keeps_its_digits():
    """Near a corner it is e times a number of order one: e (C_U - C_V) + e (2 e - 1) d^2 with e the other weight."""
    for small in (1e-4, 1e-8, 1e-12):
        weights = np.array([1 - small, small])
        gradient = total_covariance_gradient(weights, [[1e6], [1e6 + 3]], [[[1.0]], [[5.0]]])[0, 0, 0]
        exact = Fraction(small) * (1 - 5 + 9 * (2 * Fraction(small) - 1))
        # 1 - small is rounded by eps / 2, which the weights' sum of one turns into eps / small of nothing here
        assert gradient == pytest.approx(float(exact), rel=16 * EPS)


# two phases


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


# samples


def draws(seed, n=40, d=3, k=3):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(k), rng.integers(k, size=n - k)])
    return rng.normal(size=(n, d)) * (1 + labels[:, None]) + rng.normal(size=(k, d))[labels] * 3, labels


@given(seeds, st.integers(3, 40), st.integers(1, 4), st.integers(1, 3))
def test_sampled_total_is_the_covariance_of_all_draws(seed, n, d, k):
    losses, labels = draws(seed, n, d, k)
    sampled = sampled_decomposition(losses, labels)
    spread = 32 * EPS * n * np.outer(np.ptp(losses, axis=0), np.ptp(losses, axis=0))
    assert np.array_equal(sampled.total, sampled.within + sampled.between)
    assert np.all(np.abs(sampled.total - np.cov(losses.T, ddof=0).reshape(d, d)) <= spread)
    within = sum(np.mean(labels == j) * np.cov(losses[labels == j].T, ddof=0).reshape(d, d) for j in range(k))
    assert np.all(np.abs(sampled.within - within) <= spread)
    assert np.allclose(sampled.weights, np.bincount(labels) / n, rtol=4 * EPS)
    assert np.allclose(sampled.means, [losses[labels == j].mean(axis=0) for j in range(k)], rtol=0, atol=1e-13)
    again = decompose_covariance(sampled.weights, sampled.means, sampled.covariances)
    assert np.all(np.abs(again.between - sampled.between) <= spread)


@given(seeds, st.integers(2, 30))
def test_responsibilities_are_fractions_of_draws(seed, n):
    """Responsibilities in quarters are the same as each draw four times, labelled in those proportions."""
    rng = np.random.default_rng(seed)
    losses, quarters = rng.normal(size=(n, 2)), rng.integers(0, 5, size=n)
    quarters[:2] = 1, 3
    soft = sampled_decomposition(losses, np.stack([quarters / 4, 1 - quarters / 4], axis=1))
    labels = (np.arange(4) >= quarters[:, None]).astype(int).ravel()
    hard = sampled_decomposition(np.repeat(losses, 4, axis=0), labels)
    for name in ("weights", "means", "covariances", "within", "between", "total"):
        assert np.allclose(getattr(soft, name), getattr(hard, name), rtol=0, atol=64 * EPS * n)


def weighted_parts(losses, share, w):
    """Within and total of draws with weights w, from the definition."""

    def covariance(p):
        mean = p @ losses / p.sum()
        return (losses - mean).T @ ((losses - mean) * p[:, None]) / p.sum()

    within = sum(p.sum() / w.sum() * covariance(p) for p in (share * w[:, None]).T)
    return within, covariance(w)


@pytest.mark.parametrize("soft", [False, True])
def test_errors_are_the_infinitesimal_jackknife(soft):
    """The influence of a draw is n times the derivative of the estimate in its weight; differences take it here."""
    losses, labels = draws(5, n=30)
    share = np.random.default_rng(6).dirichlet(np.ones(3), size=30) if soft else np.eye(3)[labels]
    n, step = 30, 1e-4
    squares = np.zeros((3, 3, 3))
    for s in range(n):
        w = np.zeros(n)
        w[s] = step
        (within_up, total_up), (within_down, total_down) = (
            weighted_parts(losses, share, 1 + sign * w) for sign in (1, -1)
        )
        within, total = (within_up - within_down) / (2 * step) * n, (total_up - total_down) / (2 * step) * n
        squares += np.array([within, total - within, total]) ** 2
    expected = np.sqrt(squares / n / (n - 1))
    sampled = sampled_decomposition(losses, share if soft else labels)
    found = np.array([sampled.within_error, sampled.between_error, sampled.total_error])
    # central differences: rounding eps n 50 / step = 1e-8 and truncation step^2 = 1e-8 of the influence
    assert np.allclose(found, expected, rtol=1e-6)


def test_errors_match_the_spread_of_repeated_simulation():
    """2000 repetitions: a sample variance of near-normal estimates is known to sqrt(2 / 2000) = 3.2 %.

    Five standard deviations of that are 16 %; the estimated variance itself is biased by O(1 / n) = 1 % or less at
    n = 500, times a factor of a few for the heavy-tailed products.
    """
    rng = np.random.default_rng(11)
    weights, centres = np.array([0.3, 0.5, 0.2]), np.array([[0.0, 1.0], [2.0, -1.0], [-1.0, -2.0]])
    roots = np.array([[[1.0, 0.0], [0.5, 1.0]], [[0.5, 0.0], [0.2, 0.3]], [[1.5, 0.0], [-1.0, 0.5]]])
    parts, errors = [], []
    for _ in range(2000):
        labels = rng.choice(3, size=500, p=weights)
        losses = centres[labels] + np.einsum("nij,nj->ni", roots[labels], rng.normal(size=(500, 2)))
        sampled = sampled_decomposition(losses, labels)
        parts.append([sampled.within, sampled.between, sampled.total])
        errors.append([sampled.within_error, sampled.between_error, sampled.total_error])
    ratio = np.mean(np.square(errors), axis=0) / np.var(parts, axis=0)
    assert np.all(np.abs(ratio - 1) < 0.2)
    exact = decompose_covariance(weights, centres, roots @ np.swapaxes(roots, 1, 2))
    for k, expected in enumerate((exact.within, exact.between, exact.total)):
        mean, error = np.mean(parts, axis=0)[k], np.sqrt(np.mean(np.square(errors), axis=0)[k] / 2000)
        # ddof = 0 takes off a share K / n of within, which moves between up by about as much
        assert np.all(np.abs(mean - expected) < 5 * error + 3 / 500 * np.abs(exact.within).max())


@pytest.mark.parametrize("soft", [False, True])
def test_sampled_parts_do_not_feel_an_offset(soft):
    """Draws on a grid of 1/64 that a common offset of 2^40 leaves exact: only the mean rounds, to 2^-12 here."""
    losses, labels = draws(7, n=64)
    losses = np.round(losses * 64) / 64
    phases = np.stack([labels / 2, 1 - labels / 2], axis=1) if soft else labels
    one, other = sampled_decomposition(losses, phases), sampled_decomposition(losses + 2.0**40, phases)
    for name in ("covariances", "within", "between", "total", "within_error", "between_error", "total_error"):
        scale = np.abs(getattr(one, name)).max()
        assert np.allclose(getattr(other, name), getattr(one, name), rtol=0, atol=64 * 64 * EPS * scale), name


@given(seeds, st.integers(1, 200))
def test_errors_do_not_depend_on_the_chunk(seed, entries):
    losses, labels = draws(seed)
    with pytest.MonkeyPatch.context() as patch:
        whole = sampled_decomposition(losses, labels)
        patch.setattr("theory.phase_moments._CHUNK_ENTRIES", entries)
        pieces = sampled_decomposition(losses, labels)
    for name in ("within_error", "between_error", "total_error"):
        assert np.allclose(getattr(whole, name), getattr(pieces, name), rtol=64 * EPS)


# Gaussian components


def gaussian_problem(seed, k=2, p=3, n=4):
    rng = np.random.default_rng(seed)
    h = rng.normal(size=(n, p, p))
    return (
        rng.normal(size=(k, p)),
        random_covariances(rng, k, p),
        h + np.swapaxes(h, 1, 2),
        rng.normal(size=(n, p)),
        rng.normal(size=n),
    )


@given(seeds, st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))
def test_quadratic_moments_match_gauss_hermite(seed, k, p, n):
    """Products of two quadratics have degree 4: three Gauss-Hermite nodes an axis integrate them exactly."""
    problem = gaussian_problem(seed, k, p, n)
    means, covariances = quadratic_loss_moments(*problem)
    m, s, h, b, c = problem
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    grid = np.stack(np.meshgrid(*[nodes] * p, indexing="ij"), axis=-1).reshape(-1, p)
    mass = np.prod(np.stack(np.meshgrid(*[weights] * p, indexing="ij"), axis=-1).reshape(-1, p), axis=1)
    mass /= mass.sum()
    for j in range(k):
        w = m[j] + grid @ np.linalg.cholesky(s[j]).T
        losses = np.einsum("gp,npq,gq->gn", w, h, w) / 2 + w @ b.T + c
        expected = mass @ losses
        deviation = losses - expected
        scale = 256 * EPS * np.abs(losses).max()  # sums of 81 terms, each of p^2 products
        assert np.allclose(means[j], expected, rtol=0, atol=scale)
        second = (deviation * mass[:, None]).T @ deviation
        assert np.allclose(covariances[j], second, rtol=0, atol=scale * np.abs(losses).max())


def test_quadratic_mixture_matches_sampling():
    """End to end: a posterior of two Gaussian phases, sampled, against its exact decomposition."""
    problem = gaussian_problem(1)
    means, covariances = quadratic_loss_moments(*problem)
    m, s, h, b, c = problem
    exact = decompose_covariance([0.3, 0.7], means, covariances)
    rng, n = np.random.default_rng(2), 200_000
    labels = (rng.random(n) < 0.7).astype(int)
    w = m[labels] + np.einsum("npq,nq->np", np.linalg.cholesky(s)[labels], rng.normal(size=(n, 3)))
    sampled = sampled_decomposition(np.einsum("gp,npq,gq->gn", w, h, w, optimize=True) / 2 + w @ b.T + c, labels)
    for name in ("within", "between", "total"):
        # 16 entries a part: 5 standard errors leave a chance of 1e-5 each
        deviation = np.abs(getattr(sampled, name) - getattr(exact, name))
        assert np.all(deviation <= 5 * getattr(sampled, f"{name}_error"))
    assert exact.between_rank == 1


def test_quadratic_moments_of_a_point_and_of_a_flat_direction():
    """S = 0: losses at the point and no covariance. S of rank one: only its direction counts."""
    m, _, h, b, c = gaussian_problem(3)
    means, covariances = quadratic_loss_moments(m, np.zeros((2, 3, 3)), h, b, c)
    at_point = np.einsum("kp,npq,kq->kn", m, h, m) / 2 + m @ b.T + c
    assert np.allclose(means, at_point, rtol=0, atol=64 * EPS * 30)
    assert not covariances.any()
    flat = np.zeros((2, 3, 3))
    flat[:, 0, 0] = 4.0
    means, covariances = quadratic_loss_moments(m, flat, h, b, c)
    gradient = (np.einsum("npq,kq->knp", h, m) + b)[:, :, 0]
    expected = 4 * gradient[:, :, None] * gradient[:, None] + 8 * np.outer(h[:, 0, 0], h[:, 0, 0])
    assert np.allclose(means, at_point + 2 * h[:, 0, 0], rtol=0, atol=64 * EPS * 30)
    assert np.allclose(covariances, expected, rtol=0, atol=64 * EPS * 300)


# refusals

GOOD = {"weights": [0.5, 0.5], "means": np.zeros((2, 3)), "covariances": np.stack([np.eye(3)] * 2)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"weights": [0.5, 0.4]}, "weights must sum to 1, but the sum is off by 0.1; divide by the sum"),
        ({"weights": [0.6, 0.5]}, "weights must sum to 1"),
        ({"weights": np.array([1, 2], dtype=np.float32) / np.float32(3)}, "weights must sum to 1"),
        ({"weights": [[0.5, 0.5], [0.5, 0.6]]}, "weights must sum to 1"),
        ({"weights": [1.5, -0.5]}, "weights must not be negative, but its smallest entry is -0.5"),
        ({"weights": [np.nan, 1.0]}, "weights holds a non-finite value"),
        ({"weights": 1.0}, r"weights must hold a weight for each component, but its shape is \(\)"),
        ({"weights": []}, r"weights must hold a weight for each component, but its shape is \(0,\)"),
        ({"weights": [1.0]}, r"means has shape \(2, 3\), but \(..., 1, observables\) is needed"),
        ({"means": np.zeros((2, 0))}, r"means has shape \(2, 0\)"),
        ({"means": np.zeros(2)}, r"means has shape \(2,\), but \(..., 2, observables\) is needed"),
        ({"means": np.full((2, 3), np.inf)}, "means holds a non-finite value"),
        ({"covariances": np.eye(3)}, r"covariances has shape \(3, 3\), but \(..., 2, 3, 3\) is needed"),
        ({"covariances": np.stack([np.eye(2)] * 2)}, r"covariances has shape \(2, 2, 2\)"),
        ({"covariances": np.zeros((2, 3, 2))}, r"covariances must hold square matrices, but its shape is \(2, 3, 2\)"),
        ({"covariances": np.zeros(3)}, "covariances must hold square matrices"),
        ({"covariances": np.zeros((2, 0, 0))}, "covariances must hold square matrices"),
        ({"covariances": np.stack([np.eye(3), -np.eye(3)])}, "positive semidefinite, but has the eigenvalue -1"),
        (
            {"covariances": np.stack([np.eye(3), np.triu(np.ones((3, 3)))])},
            "symmetric, but mirrored entries differ by 1",
        ),
        ({"weights": np.full((4, 2), 0.5), "means": np.zeros((5, 2, 3))}, "of weights and moments do not broadcast"),
    ],
)
@pytest.mark.parametrize("function", [decompose_covariance, total_covariance_gradient])
def test_bad_mixtures_are_refused(function, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        function(**(GOOD | change))


def test_hessian_refuses_bad_mixtures():
    with pytest.raises(ValueError, match="weights must sum to 1"):
        total_covariance_hessian([0.5, 0.4], GOOD["means"])
    with pytest.raises(ValueError, match=r"means has shape \(3, 3\)"):
        total_covariance_hessian([0.5, 0.5], np.zeros((3, 3)))
    with pytest.raises(ValueError, match="of weights and moments do not broadcast"):
        total_covariance_hessian(np.full((4, 2), 0.5), np.zeros((5, 2, 3)))


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


@pytest.mark.parametrize(
    ("losses", "phases", "error", "sentence"),
    [
        (np.zeros((1, 2)), [0], ValueError, "losses has one draw, but a covariance needs at least two"),
        (np.zeros(3), [0, 0, 0], ValueError, r"losses must have 2 dimension\(s\)"),
        (np.full((3, 1), np.nan), [0, 0, 0], ValueError, "losses holds a non-finite value"),
        (np.zeros((3, 1)), [0, 1], ValueError, r"phases has shape \(2,\), but \(3,\) or \(3, phases\) is needed"),
        (np.zeros((3, 1)), np.array(0), ValueError, r"phases has shape \(\)"),
        (np.zeros((3, 1)), np.zeros((3, 1, 1)), ValueError, r"phases has shape \(3, 1, 1\)"),
        (np.zeros((3, 1)), [0, 0, 2], ValueError, r"every number from 0 to K - 1, but it holds \[0 2\]"),
        (np.zeros((3, 1)), [0, -1, 1], ValueError, r"but it holds \[-1  0  1\]"),
        (np.zeros((3, 1)), [0.0, 1.0, 1.0], TypeError, "phases must hold whole numbers if it has one axis"),
        (np.zeros((3, 1)), np.full((3, 2), 0.4), ValueError, "phases must sum to 1"),
        (np.zeros((3, 1)), [[1.5, -0.5]] * 3, ValueError, "phases must not be negative"),
        (np.zeros((3, 1)), [[1.0, 0.0]] * 3, ValueError, "phase 1 has no draw, so it has no mean"),
    ],
)
def test_bad_samples_are_refused(losses, phases, error, sentence):
    with pytest.raises(error, match=sentence):
        sampled_decomposition(losses, phases)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"component_means": np.zeros(3)}, r"component_means must have 2 dimension\(s\)"),
        ({"component_covariances": np.zeros((3, 3))}, r"component_covariances has shape \(3, 3\), but \(2, 3, 3\)"),
        ({"component_covariances": -np.stack([np.eye(3)] * 2)}, "component_covariances must be positive semidefinite"),
        ({"hessians": np.zeros((3, 3))}, r"hessians must have 3 dimension\(s\)"),
        ({"hessians": np.zeros((4, 2, 2))}, r"hessians has shape \(4, 2, 2\), but \(4, 3, 3\) is needed"),
        ({"hessians": np.triu(np.ones((4, 3, 3)))}, "hessians must be symmetric"),
        ({"gradients": np.zeros((4, 2))}, r"gradients has shape \(4, 2\), but \(any, 3\) is needed"),
        ({"gradients": np.zeros((5, 3))}, r"hessians has shape \(4, 3, 3\), but \(5, 3, 3\) is needed"),
        ({"constants": np.zeros(3)}, r"constants has shape \(3,\), but \(4,\) is needed"),
        ({"constants": np.zeros((4, 1))}, r"constants must have 1 dimension\(s\)"),
    ],
)
def test_bad_quadratics_are_refused(change, sentence):
    names = ("component_means", "component_covariances", "hessians", "gradients", "constants")
    with pytest.raises(ValueError, match=sentence):
        quadratic_loss_moments(**(dict(zip(names, gaussian_problem(0), strict=True)) | change))
