"""Updates of the samplers against a literal Algorithm 1 and against exactly known stationary laws."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from numerics import SGLD, RMSPropSGLD

EPS = np.finfo(float).eps


def literal_rmsprop_sgld(w, anchor, gradient, noise, sampler, q_scale):
    """Algorithm 1 line by line; `gradient(w)` is that of the mean loss."""
    v = np.zeros_like(w)
    for t, xi in enumerate(noise, start=1):
        g = gradient(w)
        q = q_scale * g
        v = sampler.decay * v + (1 - sampler.decay) * q * q
        v_hat = v / (1 - sampler.decay**t)
        eps_t = sampler.step_size / (np.sqrt(v_hat) + sampler.stability)
        w = w - eps_t / 2 * (sampler.n_beta * g + sampler.localization * (w - anchor)) + np.sqrt(eps_t) * xi
    return w


def run(sampler, start, anchor, gradient, noise):
    """Advance the library's update; `gradient` is that of the mean loss, on arrays."""
    update = sampler.update_rule(torch.tensor(anchor))
    w = torch.tensor(start)
    for xi in noise:
        update(w, sampler.n_beta * torch.tensor(gradient(w.numpy())), torch.tensor(xi))
    return w.numpy()


@given(
    step_size=st.floats(1e-6, 1e-1),
    n_beta=st.floats(1e-2, 1e3),
    localization=st.floats(0, 30),
    decay=st.floats(0, 0.99),
    stability=st.floats(1e-3, 10),
    preconditioner=st.sampled_from(["mean loss", "tempered"]),
    seed=st.integers(0, 2**31),
)
def test_rmsprop_sgld_is_algorithm_1(step_size, n_beta, localization, decay, stability, preconditioner, seed):
    rng = np.random.default_rng(seed)
    start, anchor, noise = rng.normal(size=7), rng.normal(size=7), rng.normal(size=(12, 7))
    sampler = RMSPropSGLD(step_size, n_beta, localization, decay, stability, preconditioner)
    q_scale = n_beta if preconditioner == "tempered" else 1.0
    expected = literal_rmsprop_sgld(start, anchor, np.sin, noise, sampler, q_scale)
    # A dozen operations a step; a step multiplies what came before by at most 1 + eps_t (n_beta + gamma) / 2, and
    # cancellation in the drift costs its own size.
    growth = 1 + step_size / stability * (n_beta + localization)
    scale = np.abs(noise).max() * 12 + np.abs(start).max() + np.abs(anchor).max() + n_beta * step_size / stability * 12
    np.testing.assert_allclose(
        run(sampler, start, anchor, np.sin, noise), expected, rtol=0, atol=200 * EPS * scale * growth**12
    )


@given(curvature=st.floats(0, 30), localization=st.floats(1, 30), share=st.floats(0.05, 0.9))
def test_sgld_has_the_stationary_variance_of_the_discretised_quadratic(curvature, localization, share):
    h = curvature + localization
    step = 4 * share / h
    sampler = SGLD(step, n_beta=1.0, localization=localization)
    generator = torch.Generator().manual_seed(7)
    n = 4000
    update, w = sampler.update_rule(torch.zeros(n)), torch.zeros(n)
    # The variance approaches its limit like (1 - step h / 2)^(2 steps); 1e-4 of it is left.
    steps = int(np.ceil(np.log(1e-4) / (2 * np.log(abs(1 - step * h / 2) + 1e-12)))) + 1
    for _ in range(steps):
        update(w, curvature * w, torch.randn(n, generator=generator))
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
    update, w = sampler.update_rule(torch.zeros(n)), torch.randn(n, generator=generator) / np.sqrt(h)
    # A variance relaxes at rate h step / (a + |w|) with |w| about 0.7; e^-8 of the difference is left.
    for _ in range(int(8 * (stability + 0.7) / (h * step))):
        update(w, w.clone(), torch.randn(n, generator=generator))
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
    ],
)
def test_bad_settings_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
