"""Chains and Bayesian influence: literal references, exact Gaussian limits, reproducibility, and refusals."""

import sys

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats

import numerics.sampling.chains
import numerics.sampling.plan
import numerics.sampling.sample
from numerics import (
    SGLD,
    Checkpoints,
    RMSPropSGLD,
    SamplerDiverged,
    StepSizeWarning,
    TrainingConfig,
    bayesian_influence,
    per_sample_losses,
    sample,
    train,
)
from numerics.sampling.settings import ChainSettings
from theory import Dataset, hierarchical_dataset

DATA = hierarchical_dataset(levels=2)
RUN = train(DATA, TrainingConfig(hidden=5, sigma=0.05, epochs=900, checkpoint_every=300, lr=0.1)).checkpoints
QUICK = SGLD(step_size=1e-4, n_beta=50.0, localization=500.0)


def general_data(n=6, p=3, o=4, seed=0):
    """Return inputs that are neither one-hot nor whitened."""
    rng = np.random.default_rng(seed)
    return Dataset(rng.normal(size=(n, p)), rng.normal(size=(n, o)))


def some_weights(data, hidden=5, checkpoints=2, scale=0.4):
    rng = np.random.default_rng(5)
    w1 = torch.tensor(scale * rng.normal(size=(checkpoints, hidden, data.n_inputs)))
    w2 = torch.tensor(scale * rng.normal(size=(checkpoints, data.n_outputs, hidden)))
    return Checkpoints(np.arange(checkpoints) * 100.0, w1, w2)


def plan_of(data, weights, *, seed):
    return numerics.sampling.sample.make_plan(
        data,
        numerics.sampling.plan.Recorded(data),
        weights,
        QUICK,
        ChainSettings(1, 2, 0, 1, None, None, seed, torch.float64, "cpu"),
    )


@pytest.mark.parametrize("data", [DATA, general_data()], ids=["one-hot", "general"])
@pytest.mark.parametrize("sampler", [QUICK, RMSPropSGLD(1e-4, 50.0, 500.0, 0.8, 0.3)], ids=["sgld", "rmsprop"])
def test_chains_are_the_sampler_on_the_gradient_that_autograd_finds(data, sampler):
    """The same noise through the same update, with the gradient from autograd of the mean loss."""
    weights = some_weights(data, checkpoints=1)
    drawn = sample(data, weights, sampler, chains=1, draws=12, seed=3, dtype=torch.float64, workers=1)

    w = weights.flat[0].clone()
    rule = sampler.rule([sampler], [w[None]])
    generator = numerics.sampling.chains._generator(plan_of(data, weights, seed=3), 0)
    for k in range(12):
        flat = w.clone().requires_grad_()
        w1, w2 = flat[: weights.w1[0].numel()], flat[weights.w1[0].numel() :]
        losses = per_sample_losses(w2.view_as(weights.w2[0]) @ w1.view_as(weights.w1[0]), data)
        # A few hundred float64 operations a draw, none of which amplifies errors: the chain contracts.
        np.testing.assert_allclose(drawn[0, 0, k], losses.detach(), rtol=1e-11)
        (gradient,) = torch.autograd.grad(losses.mean(), flat)
        if k % 4 == 0:  # noise is read in blocks of four steps
            noise = torch.empty(4, len(w), dtype=torch.float64).normal_(generator=generator)
        rule.move([w[None]], [gradient[None]], [noise[k % 4][None]])


def test_influence_streams_the_covariance_of_the_draws():
    settings = {"chains": 3, "draws": 70, "burn_in": 4, "thin": 2, "seed": 1}
    draws = sample(DATA, RUN, QUICK, **settings)
    result = bayesian_influence(DATA, RUN, QUICK, **settings)
    for k in range(len(RUN)):
        flat = draws.values[k].reshape(-1, len(DATA)).astype(np.float64)
        expected = np.cov(flat.T)
        # Both sum 210 products in float64; the losses' spread is at least 1e-3 of their size here.
        np.testing.assert_allclose(result["covariance"][k], expected, rtol=1e-9, atol=1e-9 * expected.max())
        np.testing.assert_allclose(result["correlation"][k], np.corrcoef(flat.T), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(result["influence"], -50.0 / 4 * result["covariance"], rtol=1e-14)
    assert result["influence"].attrs["seed"] == 1
    assert result["influence"].dims == ("epoch", "source", "query")


def test_fewer_blocks_take_less_memory_and_change_only_the_error(monkeypatch):
    whole = bayesian_influence(DATA, RUN, QUICK, draws=100)
    # Room for five blocks of 16 pairs for each of the 16 chains.
    monkeypatch.setattr(sys.modules["numerics.sampling.bayesian_influence"], "_MOMENTS", 5 * 8 * 16 * 16)
    fewer = bayesian_influence(DATA, RUN, QUICK, draws=100)
    np.testing.assert_allclose(fewer["covariance"], whole["covariance"], rtol=1e-9, atol=1e-12)
    assert not np.array_equal(fewer["standard_error"], whole["standard_error"])
    assert float(np.median(fewer["standard_error"] / whole["standard_error"])) > 0.5


def test_burn_in_and_thinning_select_draws_of_the_same_chain():
    full = sample(DATA, RUN, QUICK, chains=2, draws=30)
    part = sample(DATA, RUN, QUICK, chains=2, draws=5, burn_in=7, thin=3)
    np.testing.assert_array_equal(part, full.values[:, :, 7 : 7 + 15 : 3])


def test_arviz_reads_the_draws():
    """Chains of one posterior mix: R-hat near 1, and an autocorrelation time of 4 steps leaves a quarter of them."""
    draws = sample(DATA, RUN, SGLD(1e-3, 50.0, 500.0), chains=4, draws=1000, burn_in=50)
    loss = draws.sel(epoch=900).values.astype(np.float64)
    assert array_stats.rhat(loss, chain_axis=0, draw_axis=1).max() < 1.02
    assert array_stats.ess(loss, chain_axis=0, draw_axis=1).min() > 4000 / 4 / 2


def test_the_first_draw_is_the_checkpoint_itself():
    first = sample(DATA, RUN, QUICK, chains=1, draws=1, dtype=torch.float64)
    np.testing.assert_allclose(first[:, 0, 0], per_sample_losses(RUN.maps, DATA), rtol=1e-13)


@pytest.mark.parametrize("sampler", [QUICK, RMSPropSGLD(1e-4, 50.0, 500.0)], ids=["sgld", "rmsprop"])
def test_the_bits_of_a_chain_do_not_depend_on_batches_threads_or_neighbours(monkeypatch, sampler):
    """Paper-sized layers, so that vector loops have bodies and tails."""
    data = hierarchical_dataset()
    weights = some_weights(data, hidden=50, checkpoints=3, scale=0.05)
    reference = sample(data, weights, sampler, chains=5, draws=9, workers=1)
    monkeypatch.setattr(numerics.sampling.chains, "_CHAINS_TOGETHER", 2)
    np.testing.assert_array_equal(sample(data, weights, sampler, chains=5, draws=9, workers=2), reference)
    alone = sample(data, weights.at([200.0]), sampler, chains=2, draws=4)
    np.testing.assert_array_equal(alone[0], reference[2, :2, :4])
    assert not np.array_equal(sample(data, weights, sampler, chains=5, draws=9, seed=1), reference)


def test_influence_under_strong_localization_is_that_of_the_exact_gaussian():
    """SGLD at strong localization is an autoregression whose covariance is known exactly.

    For pull gamma >> n_beta lambda the weights are N(w*, I / (gamma (1 - step gamma / 4))), so that Cov(l_i, l_j) is
    g_i.g_j times that variance plus tr(H_i H_j) / 2 times its square; gradients and Hessians come from autograd here.
    """
    data, weights = general_data(), some_weights(general_data(), checkpoints=1)
    sampler = SGLD(step_size=1e-5, n_beta=1e-3, localization=1e5)
    variance = 1 / (1e5 * (1 - 0.25))
    p, o, h = data.n_inputs, data.n_outputs, 5

    def losses(flat):
        return per_sample_losses(flat[p * h :].view(o, h) @ flat[: p * h].view(h, p), data)

    w = torch.cat([weights.w1[0].flatten(), weights.w2[0].flatten()])
    gradients = torch.autograd.functional.jacobian(losses, w)
    hessians = torch.stack(
        [torch.autograd.functional.hessian(lambda flat, i=i: losses(flat)[i], w) for i in range(len(data))]
    )
    expected = variance * gradients @ gradients.T
    expected += variance**2 / 2 * torch.einsum("iab,jba->ij", hessians, hessians)

    draws, chains, lag_one = 4000, 8, 0.5  # autocorrelation 1 - step gamma / 2 a step
    result = bayesian_influence(data, weights, sampler, chains=chains, draws=draws, burn_in=60, dtype=torch.float64)
    # The product of two AR(1) normals has autocorrelation time (1 + rho^2) / (1 - rho^2) at most (1 + rho) / (1 - rho).
    effective = draws * chains * (1 - lag_one) / (1 + lag_one)
    spread = torch.sqrt(torch.outer(expected.diag(), expected.diag()))
    # Third-order terms are of relative order sqrt(variance) x curvature / slope, squared: below 1e-3.
    error = np.abs(result["covariance"].values[0] - expected.numpy())
    assert np.all(error < (5 * np.sqrt(2 / effective) + 1e-3) * spread.numpy())


def repeated(copies):
    """Return one checkpoint many times over, as if at different epochs: independent runs in one batch."""
    last = RUN.at([900.0])
    return Checkpoints(np.arange(copies), last.w1.repeat(copies, 1, 1), last.w2.repeat(copies, 1, 1))


@pytest.mark.parametrize(
    ("step_size", "draws", "low", "high"),
    [
        # Blocks of 200 draws against an autocorrelation time of 2 / (step x localization) = 4 steps. 60 runs know their
        # spread to 1 / sqrt(118) = 9 %, and the median over 16 pairs better than one of them.
        (1e-3, 6400, 0.8, 1.2),
        # Blocks of 19 draws against 40 steps: the means are far from independent and claim too little, but not by more
        # than the square root of 40 / 19 twofold.
        (1e-4, 600, 0.3, 1.2),
    ],
)
def test_the_standard_error_is_the_spread_over_independent_runs(step_size, draws, low, high):
    sampler = SGLD(step_size, n_beta=50.0, localization=500.0)
    result = bayesian_influence(DATA, repeated(60), sampler, chains=2, draws=draws, burn_in=100)
    observed = np.std(result["covariance"].values, axis=0, ddof=1)
    claimed = np.sqrt(np.mean(result["standard_error"].values ** 2, axis=0))
    assert low < np.median(claimed / observed) < high


def test_queries_outside_the_training_set():
    queries = Dataset(DATA.inputs[[2, 0]], DATA.targets[[2, 0]], (DATA.names[2], DATA.names[0]))
    inside = bayesian_influence(DATA, RUN, QUICK, draws=40)
    outside = bayesian_influence(DATA, RUN, QUICK, draws=40, queries=queries)
    picked = inside.sel(query=list(queries.names))
    for name in ("influence", "correlation", "standard_error"):
        # The same draws; only the loss is computed by a general product instead of a copy, in float32.
        np.testing.assert_allclose(
            outside[name], picked[name], rtol=1e-3, atol=1e-5 * float(np.abs(picked[name]).max())
        )


def test_covariance_is_symmetric_and_positive_semidefinite():
    covariance = bayesian_influence(DATA, RUN, QUICK, draws=50)["covariance"].values
    np.testing.assert_allclose(covariance, np.swapaxes(covariance, 1, 2), rtol=1e-12, atol=1e-300)
    smallest = np.linalg.eigvalsh(covariance)[:, 0]
    assert np.all(smallest > -1e-12 * np.abs(covariance).max((1, 2)))


def test_a_loss_that_does_not_vary_has_no_correlation():
    silent = Dataset(np.eye(2), np.array([[1.0], [0.0]]))
    zero = Checkpoints(np.array([0.0]), torch.zeros(1, 1, 2), torch.zeros(1, 1, 1))
    result = bayesian_influence(silent, zero, SGLD(1e-30, 1.0, 1.0), draws=3)
    assert np.isnan(result["correlation"].values[0, 0, 0])


def test_a_diverging_chain_is_named_and_never_averaged():
    """Locally stable, but the noise carries the quartic loss where the same step is not."""
    data = hierarchical_dataset()
    zero = Checkpoints(np.array([400.0]), torch.zeros(1, 50, 8), torch.zeros(1, 15, 50))
    sampler = SGLD(step_size=2.0, n_beta=2.0, localization=0.1)
    for call in (sample, bayesian_influence):
        with pytest.raises(
            SamplerDiverged, match=r"chain \d at epoch 400 diverged: its loss at draw \d+ is not finite"
        ):
            call(data, zero, sampler, draws=200)


def test_the_papers_printed_step_is_refused():
    """N beta = 1e3, gamma = 5e3, eps = 1e-3, a = 1: eps gamma / a = 5 is above 4."""
    data = hierarchical_dataset()
    checkpoints = train(data, TrainingConfig(epochs=100)).checkpoints
    printed = RMSPropSGLD(step_size=1e-3, n_beta=1e3, localization=5e3, stability=1.0)
    with pytest.raises(
        numerics.UnstableStep, match=r"step_size 0.001 is outside the stable range.*below 4, at epoch 0"
    ):
        bayesian_influence(data, checkpoints, printed)
    with pytest.raises(ValueError, match="outside the stable range"):
        bayesian_influence(data, checkpoints, SGLD(1e-3, 1e3, 5e3))


def test_the_other_reading_of_the_printed_step_runs_with_a_warning():
    data = hierarchical_dataset()
    checkpoints = train(data, TrainingConfig(epochs=100)).checkpoints
    tempered = RMSPropSGLD(1e-3, 1e3, 5e3, stability=1.0, preconditioner="tempered")
    with pytest.warns(StepSizeWarning, match="may be outside the stable range"):
        bayesian_influence(data, checkpoints, tempered, draws=10)


def test_the_advised_step_is_accepted():
    checkpoints = some_weights(DATA, checkpoints=1)
    with pytest.raises(ValueError, match="steps below") as refusal:
        sample(DATA, checkpoints, SGLD(1.0, 50.0, 500.0), draws=2)
    advised = float(str(refusal.value).split("steps below ")[1].split()[0])
    sample(DATA, checkpoints, SGLD(0.99 * advised, 50.0, 500.0), draws=2)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"chains": 0}, ValueError, "chains must be at least 1, but 0"),
        ({"draws": 0}, ValueError, "draws must be at least 1, but 0"),
        ({"burn_in": -1}, ValueError, "burn_in must be at least 0, but -1"),
        ({"thin": 0}, ValueError, "thin must be at least 1, but 0"),
        ({"seed": -1}, ValueError, "seed must be at least 0, but -1"),
        ({"dtype": torch.float16}, TypeError, "dtype must be torch.float32 or torch.float64"),
    ],
)
def test_bad_arguments_are_refused(change, error, match):
    for call in (sample, bayesian_influence):
        with pytest.raises(error, match=match):
            call(DATA, RUN, QUICK, **change)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="the network maps 4 inputs to 7 outputs, but the data set has 8 inputs"):
        bayesian_influence(hierarchical_dataset(), RUN, QUICK)
    with pytest.raises(ValueError, match="the network maps 4 inputs"):
        bayesian_influence(DATA, RUN, QUICK, queries=hierarchical_dataset())
    with pytest.raises(ValueError, match="a covariance needs at least 2 draws"):
        bayesian_influence(DATA, RUN, QUICK, chains=1, draws=1)
