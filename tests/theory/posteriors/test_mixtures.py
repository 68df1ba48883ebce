"""The law of total covariance against its definition in exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ortho_group

from theory import (
    decompose_covariance,
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
    scales = np.array([1.0, 1e-20])[:, None, None]
    assert np.all(decompose_covariance([0.25, 0.25, 0.5], scales * means, np.zeros((3, 2, 2))).between_rank == 2)
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
    with pytest.raises(ValueError, match="weights must sum to 1"):  # K of each row counts, not the number of rows
        decompose_covariance(np.tile([0.5, 0.5 + 3 * EPS], (100, 1)), *moments)


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
        ({"weights": np.zeros((2, 0))}, r"weights must hold a weight for each component, but its shape is \(2, 0\)"),
        ({"weights": [1.0]}, r"means has shape \(2, 3\), but \(..., 1, observables\) is needed"),
        ({"means": np.zeros((2, 0))}, r"means has shape \(2, 0\)"),
        ({"means": np.zeros(2)}, r"means has shape \(2,\), but \(..., 2, observables\) is needed"),
        ({"means": np.full((2, 3), np.inf)}, "means holds a non-finite value"),
        ({"covariances": np.eye(3)}, r"covariances has shape \(3, 3\), but \(..., 2, 3, 3\) is needed"),
        ({"covariances": np.stack([np.eye(2)] * 2)}, r"covariances has shape \(2, 2, 2\)"),
        ({"covariances": np.zeros((2, 3, 2))}, r"covariances must hold square matrices, but its shape is \(2, 3, 2\)"),
        ({"covariances": np.zeros(3)}, "covariances must hold square matrices"),
        ({"covariances": np.zeros((2, 0, 0))}, "covariances must hold square matrices"),
        ({"covariances": np.zeros((1, 2, 0, 0))}, "covariances must hold square matrices"),
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
