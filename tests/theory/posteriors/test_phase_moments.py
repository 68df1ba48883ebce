"""Moments of phases: of samples against definitions and repeated simulation, of Gaussians against quadrature."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import decompose_covariance, quadratic_loss_moments, sampled_decomposition

EPS = np.finfo(float).eps
seeds = st.integers(0, 2**32 - 1)


def random_covariances(rng, k, d):
    root = rng.normal(size=(k, d, d + 1))
    return root @ np.swapaxes(root, 1, 2)


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
        patch.setattr("theory.posteriors.phase_moments._CHUNK_ENTRIES", entries)
        pieces = sampled_decomposition(losses, labels)
    for name in ("within_error", "between_error", "total_error"):
        assert np.allclose(getattr(whole, name), getattr(pieces, name), rtol=64 * EPS)


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
