"""Exact posteriors by quadrature against closed forms, scipy, and the transition that free energies predict."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import erf, gamma

from theory import product_moments, tempered_posterior, transition_sample_size

EPS = np.finfo(float).eps


def skewed(w):
    x = w[:, 0]
    return np.stack([(x - 0.3) ** 2, np.cosh(x) - 0.5 * np.sin(3 * x), 0.2 * x**4 + 0.1 * x], axis=1)


def test_posterior_matches_scipy_quad():
    beta, n_beta = np.array([1.0, 0.0, 2.0]), 6.0

    def density(x):
        return np.exp(-n_beta / 3 * (skewed(np.array([[x]]))[0] @ beta) - x**2 / 3)

    def integral(f):
        return quad(lambda x: f(skewed(np.array([[x]]))[0]) * density(x), -3, 4, epsabs=0, epsrel=1e-12, limit=200)[0]

    z = integral(lambda _: 1.0)
    mean = np.array([integral(lambda x, i=i: x[i]) for i in range(3)]) / z
    covariance = np.array(
        [[integral(lambda x, i=i, j=j: (x[i] - mean[i]) * (x[j] - mean[j]) + 1) for j in range(3)] for i in range(3)]
    )
    covariance = covariance / z - 1  # the 1 keeps quad's relative tolerance meaningful where the covariance vanishes
    result = tempered_posterior(
        skewed, [[[-3, 4]]], n_beta, sample_weights=beta, log_prior=lambda w: -(w[:, 0] ** 2) / 3
    )
    deviations = np.sqrt(np.diag(covariance))
    assert -result.free_energy == pytest.approx(np.log(z), abs=1e-8)  # rtol of the engine
    assert np.all(np.abs(result.mean - mean) <= 1e-8 * deviations)
    assert np.all(np.abs(result.covariance - covariance) <= 1e-8 * np.outer(deviations, deviations) + 4e-12)
    assert np.all(result.errors <= 1e-8)
    assert np.allclose(result.influence, -n_beta / 3 * result.covariance, rtol=4 * EPS)


def test_splitting_a_box_changes_nothing():
    whole = tempered_posterior(skewed, [[[-3, 4]]], [2.0, 300.0])
    halves = tempered_posterior(skewed, [[[-3, 0.1]], [[0.1, 4]]], [2.0, 300.0])
    scale = np.sqrt(np.einsum("nii->ni", whole.covariance))
    # rtol of each of the two, and as much again for the combination
    assert np.allclose(whole.free_energy, halves.free_energy, rtol=0, atol=4e-8)
    assert np.all(np.abs(whole.covariance - halves.covariance) <= 4e-8 * scale[:, :, None] * scale[:, None, :])
    assert halves.phase_weights.shape == (2, 2)
    assert np.allclose(halves.phase_weights.sum(axis=-1), 1, rtol=4 * EPS)


@pytest.mark.parametrize("shape", [(3,), (1, 2)])
def test_sample_sizes_of_any_shape_give_what_each_gives_alone(shape):
    sizes = np.geomspace(0.5, 50.0, int(np.prod(shape))).reshape(shape)
    together = tempered_posterior(skewed, [[[-3, 0.1]], [[0.1, 4]]], sizes)
    for index in np.ndindex(shape):
        alone = tempered_posterior(skewed, [[[-3, 0.1]], [[0.1, 4]]], sizes[index])
        for name in ("free_energy", "phase_weights", "mean", "covariance", "influence", "errors"):
            assert np.array_equal(getattr(together, name)[index], getattr(alone, name)), name


def test_influence_is_the_second_derivative_of_the_free_energy():
    n_beta, h = 5.0, 0.05

    def run(beta):
        return tempered_posterior(skewed, [[[-3, 4]]], n_beta, sample_weights=beta, rtol=1e-11)

    base = run(np.ones(3))
    for i in range(3):
        unit = np.eye(3)[i]
        at = {k: run(1 + k * h * unit) for k in (-4, -2, -1, 1, 2, 4)}

        def central(get, k, at=at):
            """Fourth-order first derivative with spacing k h."""
            return (8 * (get(at[k]) - get(at[-k])) - (get(at[2 * k]) - get(at[-2 * k]))) / (12 * k * h)

        def check(get, expected, central=central):
            narrow, wide = central(get, 1), central(get, 2)
            # halving the spacing divides the error by 16: the difference is 15 errors of the narrow stencil. Noise: an
            # error 1e-11 in F or in a standard deviation (< 10) of a mean, times 18 / 12 h
            assert np.all(np.abs(narrow - expected) <= np.abs(narrow - wide) + 1e-10 * 18 / (12 * h))

        check(lambda r: r.free_energy, n_beta / 3 * base.mean[i])
        check(lambda r: r.mean, base.influence[i])  # d E[l_j] / d beta_i, so d2F = -(n_beta/3)^2 Cov


@pytest.mark.parametrize("n", [10.0, 1e4, 1e6])
def test_narrow_rotated_valley_in_two_dimensions(n):
    angle, centre = 0.4, np.array([0.21, -0.13])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    hessian = rotation @ np.diag([400.0, 20.0]) @ rotation.T
    tilt = np.array([[0.5, 0.2], [-0.5, -0.2]])  # two losses whose gradients cancel in the mean

    def losses(w):
        v = w - centre
        return np.einsum("pa,ab,pb->p", v, hessian, v)[:, None] / 2 + v @ tilt.T

    result = tempered_posterior(losses, [[[-3, 3], [-3, 3]]], n)
    sigma = np.linalg.inv(n * hessian)
    covariance = tilt @ sigma @ tilt.T + 1 / n**2  # tr(H S H S)/2 = d / (2 n^2), d = 2
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    # the box cuts off less than exp(-n 20 2.7^2 / 2) < 1e-300
    assert -result.free_energy == pytest.approx(np.log(2 * np.pi) + np.linalg.slogdet(sigma)[1] / 2, abs=2e-8)
    assert np.allclose(result.mean, 1 / n, rtol=0, atol=1e-8 * np.sqrt(np.diag(covariance)).max())
    assert np.all(np.abs(result.covariance - covariance) <= 2e-8 * scale)


@pytest.mark.parametrize("n", [0.0, 20.0, 1e4, 1e6])
def test_singular_valley_in_two_dimensions(n):
    result = tempered_posterior(lambda w: (w[:, :1] * w[:, 1:]) ** 2, [[[0, 1], [0, 1]]], n)
    log_z, mean, variance = product_moments(n)
    assert -result.free_energy == pytest.approx(log_z, abs=1e-8)
    if n > 0:
        deviation = np.sqrt(variance)
        assert n * result.mean[0] == pytest.approx(mean, abs=1e-8 * deviation)
        assert n**2 * result.covariance[0, 0] == pytest.approx(variance, rel=2e-8)


HEIGHT, FLAT, SHARP, SPREAD = 1e-4, 10.0, 50.0, 0.5
VALLEY_AND_WELL = [[[-2.0, -0.2]], [[0.2, 2.0]]]


def valley_and_well(w):
    """Return two losses that disagree about a quartic valley at -1, of higher loss, and a quadratic well at 1."""
    x = w[:, 0]
    loss = np.where(x < 0, HEIGHT + FLAT * (x + 1) ** 4, SHARP * (x - 1) ** 2)
    return np.stack([loss + SPREAD * x, loss - SPREAD * x], axis=1)


def predicted_transition():
    """n* from the local free energies: lambda = 1/4 and 1/2, constants from the Gamma integral and the Gaussian."""
    constants = -np.log(gamma(0.25) / 2 * FLAT**-0.25), -np.log(np.sqrt(np.pi / SHARP))
    return float(transition_sample_size(-HEIGHT, 0.25, constants[1] - constants[0]))


def test_phases_exchange_at_the_predicted_sample_size():
    n = predicted_transition()
    result = tempered_posterior(valley_and_well, VALLEY_AND_WELL, [0.5 * n, n, 2 * n])
    # what the boxes cut off is below exp(-n 10 0.8^4); rtol is 1e-8 in each log Z
    assert result.phase_weights[1] == pytest.approx([0.5, 0.5], abs=2e-8)
    assert result.phase_weights[0, 0] > 0.6
    assert result.phase_weights[2, 0] < 0.4


def test_influence_peaks_at_the_transition():
    n_star = predicted_transition()

    def at(log_n):
        return tempered_posterior(valley_and_well, VALLEY_AND_WELL, np.exp(log_n))

    peak = minimize_scalar(
        lambda x: -abs(at(x).covariance[0, 1]), bounds=(np.log(n_star) - 3, np.log(n_star) + 3), method="bounded"
    ).x
    within_u = -(SPREAD**2) * gamma(0.75) / gamma(0.25) / np.sqrt(FLAT * n_star)  # -SPREAD^2 Var(w), quartic
    within_v = -(SPREAD**2) / (2 * SHARP * n_star)
    between = -((2 * SPREAD) ** 2)
    # Stationarity in log n of T = pi C_U + (1 - pi) C_V + pi (1 - pi) d: the weight is off 1/2 by (C_U - C_V) / (2 d),
    # and by (dT/dlog n) / (2 d pi') with dT/dlog n = -C_U / 4 (C_U falls as n^-1/2, weight 1/2) and
    # pi' = -(n h - 1/4) / 4. Left out: the losses' own terms 1/n against C_U ~ n^-1/2 (under 5 %), and the search's
    # 1e-5 in log n. 10 % cover both.
    slope = -(n_star * HEIGHT - 0.25) / 4
    offset = (within_u - within_v) / (2 * between) + (-within_u / 4) / (2 * between * slope)
    weight = float(at(peak).phase_weights[0])
    assert abs(weight - 0.5 - offset) <= 0.1 * abs(offset) + 1e-5
    assert abs(weight - 0.5) < 1e-3
    assert abs(peak - np.log(n_star)) < 4 * 1e-3 / abs(4 * slope)
    heights = np.abs(at(np.log(n_star) + np.array([-3, 0, 3])).covariance[:, 0, 1])
    assert heights[1] > 2 * heights[0]
    assert heights[1] > 2 * heights[2]


def test_covariances_are_watched_and_not_only_means():
    """A root that is odd about the centre of a cell: its mean is exact there by symmetry, its square has a kink."""
    centre = 0.25
    result = tempered_posterior(lambda w: np.sign(w - centre) * np.sqrt(np.abs(w - centre)), [[[-1.0, 1.0]]], 0.0)
    mean = (0.75**1.5 - 1.25**1.5) / 3
    variance = (0.75**2 + 1.25**2) / 4 - mean**2
    # rtol of the engine
    assert result.mean[0] == pytest.approx(mean, abs=1e-8 * np.sqrt(variance))
    assert result.covariance[0, 0] == pytest.approx(variance, rel=1e-8)


def test_cells_that_could_hide_a_rise_to_a_level_that_counts_are_looked_into():
    """exp(-25 w) on four cells: each varies by 25, so the second could reach e^0 and the third e^-25 of the top.

    What counts is above Z rtol / (1000 cells) = e^(-3 - 18 - 8) of it; the fourth could reach e^-50 only.
    """
    seen = []

    def losses(w):
        seen.append(w[:, 0])
        return w

    result = tempered_posterior(losses, [[[0.0, 4.0]]], 25.0)
    points = np.concatenate(seen)
    looked = [np.sum((points > cell + 1e-9) & (points < cell + 1 - 1e-9)) for cell in range(4)]  # off the edges
    assert min(looked[:3]) > 11
    assert looked[3] == 11  # the inner nodes of the first mesh
    assert -result.free_energy == pytest.approx(-np.log(25), abs=1e-8)  # e^-100 is cut off


def test_known_peaks_are_found():
    """A well of width 1e-7 between the nodes of the first mesh, invisible to it, counts once its place is given."""
    centre, width = 0.01234, 1e-7

    def losses(w):
        return -np.exp(-((w - centre) ** 2) / (2 * width**2))

    blind = tempered_posterior(losses, [[[-1, 1]]], 20.0)
    seeing = tempered_posterior(losses, [[[-1, 1]]], 20.0, points=[[centre]])
    assert -blind.free_energy == pytest.approx(np.log(2), abs=1e-8)
    # inside, the integral of exp(20 exp(-t^2/2)) - 1 over t, times the width
    inside = quad(lambda t: np.expm1(20 * np.exp(-(t**2) / 2)), -15, 15, epsabs=0, epsrel=1e-12, limit=200)[0] * width
    assert -seeing.free_energy == pytest.approx(np.log(2 + inside), abs=2e-8)


def test_constant_losses_have_no_covariance():
    result = tempered_posterior(lambda w: np.full((len(w), 2), 3.0), [[[0, 1]]], 10.0)
    assert np.array_equal(result.mean, [3.0, 3.0])
    assert np.array_equal(result.covariance, np.zeros((2, 2)))


def quadratic(w):
    return w[:, :1] ** 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"boxes": [[[0.0, 0.0]]]}, "lower limit below its upper"),
        ({"boxes": [[[0.0, 1.0]], [[0.5, 2.0]]]}, "boxes 0 and 1 overlap"),
        ({"boxes": [[0.0, 1.0]]}, "boxes must have 3 dimension"),
        ({"boxes": [[[0, 1], [0, 1], [0, 1]]]}, "1 or 2 dimensions"),
        ({"n_beta": -1.0}, "n_beta must not be negative"),
        ({"rtol": 0.0}, "rtol must be a positive number"),
        ({"max_cells": 0}, "max_cells must be at least 1"),
        ({"points": [[0.0, 0.0]]}, "points has shape"),
        ({"sample_weights": [1.0, 1.0]}, "there are 1 losses"),
        ({"losses": lambda w: w[:, 0]}, r"losses returned shape \(52,\) for 52 points; \(52, m\) is needed"),
        ({"losses": lambda w: np.full((len(w), 1), np.nan)}, "losses is not finite"),
        ({"log_prior": lambda w: np.full(len(w), -np.inf)}, "log_prior is not finite"),
        ({"log_prior": lambda w: w}, r"log_prior returned shape \(52, 1\) for 52 points; \(52,\) is needed"),
        ({"losses": lambda w: w[:, :1] ** 2 + 1.0, "n_beta": 1e9}, "subtract the smallest loss"),
    ],
)
def test_bad_input_of_the_quadrature(arguments, sentence):
    call = {"losses": quadratic, "boxes": [[[-1.0, 1.0]]], "n_beta": 1.0} | arguments
    with pytest.raises(ValueError, match=sentence):
        tempered_posterior(call.pop("losses"), call.pop("boxes"), call.pop("n_beta"), **call)


def test_unreached_tolerance_is_refused_before_more_cells_are_made():
    seen = []

    def losses(w):
        seen.append(len(w))
        return quadratic(w)

    with pytest.raises(RuntimeError, match="needs more than 8 cells"):
        tempered_posterior(losses, [[[-1.0, 1.0]]], 1e6, max_cells=8)
    assert sum(seen) <= 13 * (4 + 8)  # four cells of 13 nodes, and each of them halved once


def offset_square(offset):
    return lambda w: w**2 + offset


@pytest.mark.parametrize(
    ("losses", "box", "n_beta", "sentence"),
    [
        (offset_square(1e8), (-1, 1), 1.0, r"log density at its peak is -1e\+08, .* subtract the smallest loss"),
        (offset_square(1e8), (-1, 1), 1e3, r"log density at its peak is -1e\+11, .* subtract the smallest loss"),
        (offset_square(1e8), (-1, 1), 1e10, r"log density at its peak is -1e\+18, .* subtract the smallest loss"),
        (offset_square(1e14), (-1, 1), 1e-7, r"loss 0 is about 1e\+14 and varies by .* subtract a constant"),
        (lambda w: np.hstack([w**2 + 1e8, w - 1e8]), (-1, 1), 10.0, "loss 0 is about 1e.08 and varies by .* subtract"),
        (
            lambda w: (w - 1 / 3) ** 2,
            (-1, 1),
            1e20,
            r"peaks at w = \[0.33.* shift the weights so that the peak lies at 0",
        ),
        (lambda w: (w - 1 / 3) ** 2, (-1, 1), 1e34, r"which doubles do not resolve there; if that is a peak, shift"),
        (lambda w: (w - 1e8) ** 2 * 1e14, (1e8 - 1, 1e8 + 1), 1.0, "doubles do not resolve there; if that is a peak"),
        (lambda w: w, (1.0, 1.0 + 1e-14), 1.0, r"box 0 reaches from 1.0 to 1.00000000000001, too few doubles"),
    ],
)
def test_what_doubles_do_not_resolve_is_refused_early_with_the_remedy(losses, box, n_beta, sentence):
    evaluated = []

    def counted(w):
        evaluated.append(len(w))
        return losses(w)

    with pytest.raises(ValueError, match=sentence):
        tempered_posterior(counted, [[box]], n_beta, points=[[1 / 3]] if box == (-1, 1) else None)
    assert sum(evaluated) < 20_000  # some ten cells of 13 nodes at each of 53 halvings from 1 to 1e-16


@pytest.mark.parametrize("n_beta", [1e-150, 1.0, 1e12, 1e34, 1e150])
def test_a_peak_at_zero_is_resolved_at_any_width(n_beta):
    """The spacing of doubles shrinks towards 0: what the remedy promises."""
    result = tempered_posterior(lambda w: w**2, [[[-1.0, 1.0]]], n_beta)
    x = np.sqrt(n_beta)
    log_z = np.log(np.sqrt(np.pi) * erf(x) / x)
    assert -result.free_energy == pytest.approx(log_z, abs=1e-8)  # rtol of the engine
    if n_beta > 1e3:
        assert n_beta * result.mean[0] == pytest.approx(0.5, abs=1e-8)


@pytest.mark.parametrize("value", [-3.0, 5.0, 1e6])
@pytest.mark.parametrize("n_beta", [0.0, 1.0, 1e4])
def test_each_side_of_a_jump_at_an_edge_is_asked_from_inside(value, n_beta):
    """The loss of the set beyond an edge, which holds on the edge itself, counts for nothing in the box."""
    plain = tempered_posterior(lambda w: w**2, [[[0.0, 1.0]]], n_beta)
    for jumping in (
        lambda w: np.where(w >= 1, value, w**2),
        lambda w: np.where(w <= 0, value, w**2),
    ):
        result = tempered_posterior(jumping, [[[0.0, 1.0]]], n_beta)
        assert result.free_energy == pytest.approx(plain.free_energy, abs=1e-12)
        assert result.mean == pytest.approx(plain.mean, rel=1e-12)


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("height", [1.0, 1e3, 1e6])
def test_a_jump_in_one_dimension_is_closed_in_on(height, announced):
    n, at = 10.0, 0.3
    result = tempered_posterior(
        lambda w: np.where(w < at, height, w**2), [[[0.0, 1.0]]], n, points=[[at]] if announced else None
    )
    root = np.sqrt(n)
    log_z = np.log(at * np.exp(-n * height) + np.sqrt(np.pi) / 2 / root * (erf(root) - erf(root * at)))
    assert -result.free_energy == pytest.approx(log_z, abs=1e-8)


def test_a_curved_jump_in_two_dimensions_is_named():
    def losses(w):
        radius = (w**2).sum(axis=1, keepdims=True)
        return np.where(radius > 1, 5.0, radius)

    with pytest.raises(RuntimeError, match=r"the density seems to jump near w = \["):
        tempered_posterior(losses, [[[0, 1], [0, 1]]], 10.0, max_cells=2000)


def unchecked(function):
    """Return a function without the tests' own check of types, as users have it."""
    return getattr(function, "__wrapped__", function)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"losses": 3.0}, TypeError, "losses must be a function"),
        ({"log_prior": "flat"}, TypeError, "log_prior must be a function"),
        ({"losses": lambda w: np.ma.masked_less(w, 0)}, ValueError, "what losses returned holds a masked entry"),
        ({"losses": lambda w: w.astype(str)}, TypeError, "losses must return real numbers"),
    ],
)
def test_functions_and_what_they_return_are_checked(change, error, sentence):
    call = {"losses": quadratic, "log_prior": None} | change
    with pytest.raises(error, match=sentence):
        unchecked(tempered_posterior)(call["losses"], [[[-1.0, 1.0]]], 1.0, log_prior=call["log_prior"])
