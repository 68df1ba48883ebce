"""Exact posteriors of one weight with two ways to fit, against quadrature by scipy and expansions for large n."""

from operator import itemgetter

import numpy as np
import pytest
from scipy.integrate import quad

from validation.experiments.two_wells import (
    free_energy_constant,
    mixed_losses,
    two_phases,
    two_wells,
    two_wells_transition,
)

IN_U = np.array([0.17, 0.12, 0.05, 0.02, -0.01, -0.05])
FLAT, SHARP = np.array([0.5, 1.5, 2.0, 0.2, 1.0, 0.8]), np.array([4.0, 12.0, 3.0, 15.0, 6.0, 8.0])
LOSSES = {"U": lambda w: IN_U + FLAT * (w + 1) ** 4, "V": lambda w: SHARP * (w - 1) ** 2}
ENDS = {"U": (-3.0, -1e-3), "V": (1e-3, 3.0)}


def integral(phase, function, n):
    def integrand(w):
        losses = LOSSES[phase](w)
        return function(losses) * np.exp(-n * losses.mean())

    middle = {"U": -1.0, "V": 1.0}[phase]
    points = [middle - 0.1, middle, middle + 0.1]
    return quad(integrand, *ENDS[phase], points=points, epsabs=0, epsrel=1e-10, limit=500)[0]


@pytest.fixture(scope="module")
def shown():
    return two_wells_transition(31)


def test_losses_are_those_of_the_two_wells():
    points = np.array([[-1.4], [-0.2], [0.3], [1.9]])
    expected = np.stack([LOSSES["U" if w < 0 else "V"](w) for w in points[:, 0]])
    np.testing.assert_allclose(mixed_losses(points), expected, rtol=1e-14)


@pytest.mark.parametrize("k", [0, 11, 20])
def test_weights_and_influence_are_those_of_the_posterior(shown, k):
    n = float(shown["n"][k])
    z = {phase: integral(phase, lambda _: 1.0, n) for phase in LOSSES}
    total = sum(z.values())
    for phase in LOSSES:
        assert float(shown["weight"].sel(phase=phase)[k]) == pytest.approx(z[phase] / total, abs=1e-7)

    def mean(function):
        return sum(integral(phase, function, n) for phase in LOSSES) / total

    for i, j in ((0, 1), (0, 5), (0, 3), (2, 2)):
        both, first, second = (mean(f) for f in (lambda x, i=i, j=j: x[i] * x[j], itemgetter(i), itemgetter(j)))
        covariance = both - first * second
        # Losses are of order 0.1 and their covariances of 1e-3; subtraction costs 1e-2 / 1e-3 of the quadrature's 1e-8.
        assert float(shown["total"][k, i, j]) == pytest.approx(-n / 6 * covariance, rel=1e-6, abs=n * 1e-9)


def test_the_parts_sum_to_the_whole(shown):
    np.testing.assert_allclose(shown["within"] + shown["between"], shown["total"], rtol=0, atol=1e-14)


def test_what_is_shown_at_few_sizes_is_what_the_posterior_has_at_many():
    """Sizes of the coarse grid are among the fine one's, 3 x 66 + 1 = 199; quadrature 1e-8 of each phase."""
    fine, coarse = two_phases(199), two_phases(67)
    np.testing.assert_allclose(fine.n_beta[::3], coarse.n_beta, rtol=1e-13)
    np.testing.assert_allclose(fine.phase_weights[::3], coarse.phase_weights, atol=1e-7)


def test_the_constant_is_that_of_a_pure_power():
    for power, scale in ((2, 8.0), (4, 1.0)):
        z = quad(lambda w, p=power, s=scale: np.exp(-s * np.abs(w) ** p), -np.inf, np.inf, epsabs=0, epsrel=1e-11)[0]
        assert free_energy_constant(power, scale) == pytest.approx(-np.log(z), abs=1e-9)


def test_the_expansion_holds_for_large_n_and_predicts_the_transition(shown):
    """Wells are pure powers of mean scale 1 and 8, so what is left out is e^-n: of either integral's end at w = 0."""
    late = shown.sel(n=slice(15, None))
    np.testing.assert_allclose(late["expansion"], late["free_energy"], rtol=0, atol=2 * np.exp(-15) + 1e-7)
    # interpolation of a logistic in log n over a step of 40^(1/30) = 0.12, as for chains of layers
    assert float(shown["transition"]) == pytest.approx(float(shown["exact_transition"]), rel=0.01)


def test_influence_peaks_and_flips_sign_only_where_the_phases_disagree(shown):
    # n times pi_U pi_V, beside which the disagreement itself hardly changes with n
    expected = int(np.argmax((shown["n"] * shown["expanded_weight"].prod("phase")).values))
    for query, sign in (("2", -1), ("6", 1)):
        total, within = (shown[part].sel(source="1", query=query) for part in ("total", "within"))
        peak = int(np.argmax(np.abs(shown["between"].sel(source="1", query=query).values)))
        assert abs(peak - expected) <= 1, "within one step of n"
        assert np.sign(float(total[peak])) == sign
        assert (np.sign(within.values) == -1).all(), "within a phase all losses grow with the weight's distance"
        assert np.sign(float(total[-1])) == -1, "after the transition a sign that flipped has flipped back"
    # at other n the widths of its wells let sample 4 tell the phases apart a little
    between = shown["between"].sel(source="1").sel(n=shown["exact_transition"], method="nearest")
    assert abs(float(between.sel(query="4"))) < 0.05 * abs(float(between.sel(query="2")))


def test_one_sample_prefers_the_flat_well_until_its_excess_loss_counts():
    """Odds are e^{-n excess} n^{1/4} times the ratio of constants, up to e^-10 of the wells' ends and the gap."""
    posterior = two_wells(0.005)
    n = posterior.n_beta / 2
    odds = posterior.phase_log_evidences[:, 0] - posterior.phase_log_evidences[:, 1]
    expected = -0.005 * n + np.log(n) / 4 - free_energy_constant(4, 1.0) + free_energy_constant(2, 1.0)
    np.testing.assert_allclose(odds, expected, atol=1e-3)
    # the second "sample" has no weight and says in which phase the weight is
    np.testing.assert_allclose(posterior.mean[:, 1], posterior.phase_weights[:, 0], atol=1e-12)
