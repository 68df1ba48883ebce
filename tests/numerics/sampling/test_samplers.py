"""Updates of the samplers against a literal Algorithm 1 and against exactly known stationary laws."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from numerics import MALA, SGLD, RMSPropSGLD

EPS = np.finfo(float).eps


def literal_step(w, v, t, g, anchor, xi, sampler):
    """Return w and V after step t of Algorithm 1, line by line; g is the gradient of the mean loss."""
    q = (sampler.n_beta if sampler.preconditioner == "tempered" else 1.0) * g
    if sampler.adaptation is None or t <= sampler.adaptation:
        v = sampler.decay * v + (1 - sampler.decay) * q * q
    adapted = t if sampler.adaptation is None else min(t, sampler.adaptation)
    v_hat = v / (1 - sampler.decay**adapted) if sampler.bias_correction else v
    eps_t = sampler.step_size / (np.sqrt(v_hat) + sampler.stability)
    drift = sampler.n_beta * g + sampler.localization * (w - anchor)
    return w - eps_t / 2 * drift + np.sqrt(eps_t) * xi, v


def literal_rmsprop_sgld(w, anchor, gradient, noise, sampler):
    """Algorithm 1; `gradient(w)` is that of the mean loss."""
    v = np.full_like(w, sampler.initial_square)
    for t, xi in enumerate(noise, start=1):
        w, v = literal_step(w, v, t, gradient(w), anchor, xi, sampler)
    return w


def run(sampler, start, anchor, gradient, noise):
    """Advance the library's update; `gradient` is that of the mean loss, on arrays."""
    rule = sampler.rule([sampler], [torch.tensor(anchor)[None]])
    w = [torch.tensor(start)[None].clone()]
    for xi in noise:
        rule.move(w, [torch.tensor(gradient(w[0].numpy()))], [torch.tensor(xi)[None]])
    return w[0][0].numpy()


@given(
    step_size=st.floats(1e-6, 1e-1),
    n_beta=st.floats(1e-2, 1e3),
    localization=st.floats(0, 30),
    decay=st.floats(0, 0.99) | st.just(0.9),
    stability=st.floats(1e-3, 10),
    preconditioner=st.sampled_from(["mean loss", "tempered"]),
    bias_correction=st.booleans(),
    initial_square=st.sampled_from([0.0, 1.0]),
    adaptation=st.sampled_from([None, 1, 5]),
    beside=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**31),
)
def test_rmsprop_sgld_is_algorithm_1_in_every_reading(
    step_size,
    n_beta,
    localization,
    decay,
    stability,
    preconditioner,
    bias_correction,
    initial_square,
    adaptation,
    beside,
    dtype,
    seed,
):
    """Each of twelve steps from where Algorithm 1 stands, so that no chain, stable or not, carries rounding along.

    A rule keeps nothing but w and V: the step from the same w with the V of all steps before is all there is to it.
    """
    rng = np.random.default_rng(seed)
    w, anchor, *noise = rng.normal(size=(14, 7)).astype(dtype)
    settings = (decay, stability, preconditioner, bias_correction, initial_square, adaptation)
    sampler = RMSPropSGLD(step_size, n_beta, localization, *settings)
    # Chains of other settings in the same batch, or not: numbers that all share, or columns of them.
    samplers = [sampler, RMSPropSGLD(3e-4, 7.0, 2.0, 0.5, 0.7, adaptation=adaptation)][: 1 + beside]
    rows = lambda x: torch.tensor(np.stack([x] * len(samplers)))  # noqa: E731
    rule, v = sampler.rule(samplers, [rows(anchor)]), np.full(7, initial_square)
    for t, xi in enumerate(noise, start=1):
        g, moved = np.sin(w).astype(dtype), [rows(w)]
        rule.move(moved, [rows(g)], [rows(xi)])
        exact, v = literal_step(
            *(x.astype(float) for x in (w, v)), t, g.astype(float), anchor.astype(float), xi, sampler
        )
        # V is a sum of positive numbers, to which a step adds at most 4 roundings (power of b, factor, product, sum);
        # eps_t has half of its relative error, as a + sqrt(V) are positive too, and a dozen roundings of its own. The
        # step is a sum of four products with eps_t or its root, and has no larger error than that relative to each.
        eps_t = step_size / (np.sqrt(v / (1 - decay ** min(t, adaptation or t)) if bias_correction else v) + stability)
        size = abs(w) + eps_t / 2 * (n_beta * abs(g) + localization * (abs(w) + abs(anchor))) + np.sqrt(eps_t) * abs(xi)
        roundings = 2 * t + 12 + 8
        np.testing.assert_array_less(abs(moved[0][0].numpy() - exact), roundings * np.finfo(dtype).eps * size)
        w = exact.astype(dtype)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.99])
def test_the_running_mean_is_algorithm_1_over_thousands_of_steps(decay):
    """What the rule keeps of V is scaled anew every so often; a step that contracts forgets its rounding."""
    rng = np.random.default_rng(4)
    start, anchor, noise = rng.normal(size=5), rng.normal(size=5), rng.normal(size=(2000, 5))
    sampler = RMSPropSGLD(1e-2, 3.0, 20.0, decay, 1.0, initial_square=0.5)
    expected = literal_rmsprop_sgld(start, anchor, np.sin, noise, sampler)
    # Steps contract by 1 - eps gamma / 2 / (1 + 1) = 0.95 at least: twenty of them live on, a dozen roundings each.
    np.testing.assert_allclose(
        run(sampler, start, anchor, np.sin, noise), expected, rtol=0, atol=20 * 12 * 10 * EPS * np.abs(expected).max()
    )


def literal_mala(w, anchor, loss, noise, luck, sampler):
    """Metropolis-adjusted Langevin steps, with the proposal's two densities written out."""
    energy = lambda x: sampler.n_beta * loss(x) + sampler.localization / 2 * np.sum((x - anchor) ** 2)  # noqa: E731
    slope = lambda x: sampler.n_beta * np.cos(x) + sampler.localization * (x - anchor)  # noqa: E731
    step = sampler.step_size

    def log_proposal(to, at):
        return -np.sum((to - at + step / 2 * slope(at)) ** 2) / (2 * step)

    states = [w]
    for xi, z in zip(noise, luck, strict=True):
        proposal = w - step / 2 * slope(w) + np.sqrt(step) * xi
        log_ratio = energy(w) - energy(proposal) + log_proposal(w, proposal) - log_proposal(proposal, w)
        if norm.logcdf(z) < log_ratio:
            w = proposal
        states.append(w)
    return np.array(states)


@given(step_size=st.floats(1e-3, 2.0), localization=st.floats(0, 5), seed=st.integers(0, 2**31))
def test_mala_is_the_textbook_algorithm(step_size, localization, seed):
    rng = np.random.default_rng(seed)
    start, anchor, noise, luck = rng.normal(size=4), rng.normal(size=4), rng.normal(size=(9, 4)), rng.normal(size=9)
    sampler = MALA(step_size, n_beta=1.5, localization=localization)
    loss = lambda x: np.sum(np.sin(x))  # noqa: E731
    expected = literal_mala(start, anchor, loss, noise, luck, sampler)
    rule = sampler.rule([sampler], [torch.tensor(anchor)[None]])
    w, found = [torch.tensor(start)[None].clone()], []
    for k in range(10):
        gradient = [torch.cos(w[0])]
        rule.settle(w, gradient, torch.tensor([loss(w[0].numpy())]), torch.tensor(luck[k - 1 : k] if k else [0.0]))
        found.append(w[0][0].numpy().copy())
        rule.move(w, gradient, [torch.tensor(noise[min(k, 8)])[None]])
    # Some tens of float64 operations of numbers below 100; a decision within rounding of a tie does not occur.
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    accepted = np.mean(np.any(np.diff(expected, axis=0) != 0, axis=1))
    assert rule.acceptance == pytest.approx(accepted)


def test_rules_refuse_to_decide_what_they_do_not_decide():
    rule = SGLD().rule([SGLD()], [torch.zeros(1, 2)])
    with pytest.raises(TypeError, match="LangevinRule accepts every step"):
        rule.settle([torch.zeros(1, 2)], [torch.zeros(1, 2)], torch.zeros(1), torch.zeros(1))


@given(curvature=st.floats(0, 30), localization=st.floats(1, 30), share=st.floats(0.05, 0.9))
def test_sgld_has_the_stationary_variance_of_the_discretised_quadratic(curvature, localization, share):
    h = curvature + localization
    step = 4 * share / h
    sampler = SGLD(step, n_beta=1.0, localization=localization)
    generator = torch.Generator().manual_seed(7)
    n = 4000
    rule, w = sampler.rule([sampler], [torch.zeros(1, n)]), torch.zeros(1, n)
    # The variance approaches its limit like (1 - step h / 2)^(2 steps); 1e-4 of it is left.
    steps = int(np.ceil(np.log(1e-4) / (2 * np.log(abs(1 - step * h / 2) + 1e-12)))) + 1
    for _ in range(steps):
        rule.move([w], [curvature * w], [torch.randn(1, n, generator=generator)])
    ratio = float(w.double().square().mean()) * h * (1 - step * h / 4)
    # n independent normals: the mean square has relative standard deviation sqrt(2 / n).
    assert abs(ratio - 1) < 5 * np.sqrt(2 / n) + 1e-4


@pytest.mark.parametrize("stability", [1e-2, 0.3, 3.0])
def test_algorithm_1_without_divergence_term_samples_the_density_over_its_preconditioner(stability):
    """With decay 0 the step depends on w alone, and the chain is Euler's method for dw = G f / 2 dt + sqrt(G) dB.

    Its stationary density is p / G, not p: exp(-h w^2 / 2) (|w| + a) for the loss w^2 / 2, whose gradient is w.
    """
    n_beta, localization = 1.0, 1.0
    h = n_beta + localization
    density = lambda w: np.exp(-h * w * w / 2) * (abs(w) + stability)  # noqa: E731
    normal, second = (quad(lambda w, k=k: w**k * density(w), 0, np.inf)[0] for k in (0, 2))
    # Euler's weak error is first order in step / (a + |w|) times h; the step keeps it at 1 % of the variance.
    step = 2e-2 * stability / h
    sampler = RMSPropSGLD(step, n_beta, localization, decay=0.0, stability=stability)
    generator = torch.Generator().manual_seed(1)
    n = 10_000
    rule, w = sampler.rule([sampler], [torch.zeros(1, n)]), torch.randn(1, n, generator=generator) / np.sqrt(h)
    # A variance relaxes at rate h step / (a + |w|) with |w| about 0.7; e^-8 of the difference is left.
    for _ in range(int(8 * (stability + 0.7) / (h * step))):
        rule.move([w], [w.clone()], [torch.randn(1, n, generator=generator)])
    measured = float(w.double().square().mean())
    assert measured == pytest.approx(second / normal, rel=5 * np.sqrt(2 / n) + 0.02)
    if stability < 0.1:  # far from the posterior's own variance 1 / h
        assert measured * h > 1.7


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SGLD(step_size=0.0), "step_size must be a positive number, but 0.0"),
        (lambda: SGLD(step_size=np.nan), "step_size holds a non-finite value"),
        (lambda: SGLD(n_beta=-1.0), "n_beta must be a positive number, but -1.0"),
        (lambda: SGLD(localization=-5.0), "localization must not be negative, but its smallest entry is -5.0"),
        (lambda: RMSPropSGLD(decay=1.0), r"decay must be in \[0, 1\), but 1.0"),
        (lambda: RMSPropSGLD(stability=0.0), "stability must be a positive number, but 0.0"),
        (lambda: RMSPropSGLD(preconditioner="sum"), "preconditioner must be one of 'mean loss', 'tempered'"),
        (lambda: RMSPropSGLD(initial_square=-1.0), "initial_square must not be negative"),
        (lambda: RMSPropSGLD(adaptation=0), "adaptation must be at least 1, but 0"),
    ],
)
def test_bad_settings_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
