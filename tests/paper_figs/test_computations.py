"""What figures compute by composing theory and numerics, against the same by another way."""

import numpy as np
import pytest
import torch
import xarray as xr

from numerics import MALA, RMSPropSGLD, TrainingConfig, bayesian_influence, train
from paper_figs import FIGURES, FigureSettings, Results
from paper_figs.damping import indefinite
from paper_figs.figure_e1 import map_response
from paper_figs.results import computed_once
from theory import learning_coefficient, mode_strength, paper_svd_response, spectral_derivative
from validation.experiments.exposure import closed_exposure
from validation.experiments.learning_coefficients import CoefficientSettings
from validation.experiments.sampler_bias import RELATIVE_STEP, BiasSettings, quadratic_bias
from validation.experiments.sweeps import SweepSettings, leave_one_out_sweeps


def test_the_response_of_the_map_is_the_one_of_the_singular_values(results):
    """Entries from influences, which are linear in the query's target, against the response of U g(S) V^T itself."""
    toy = results.toy
    data, tau, g0 = toy.dataset, toy.tau, toy.mean_strength
    change = np.outer(data.targets[0], data.inputs[0])
    for t in (1000.0, 3000.0):

        def g(s, t=t):
            return mode_strength(t, s, g0, tau)

        def slope(s, t=t):
            decay = np.exp(-2 * s * t / tau)
            return g(s) ** 2 * ((1 - decay) / s**2 + 2 * t / tau * decay * (1 / g0 - 1 / s))

        expected = {"spectral": spectral_derivative(data.syx, change, g, slope)}
        for variant in ("P1", "P2"):
            r = paper_svd_response(data.syx, change, variant)
            du, dv = r.du * g(r.s) @ r.v.T, r.u * g(r.s) @ r.dv.T
            expected[f"paper-{variant}"] = du + (r.u * (slope(r.s) * r.ds)) @ r.v.T + dv
        for formula, response in expected.items():
            found = map_response(results, formula).sel(epoch=t)
            # Differences of influences of order one, at eps each, beside entries of order one.
            np.testing.assert_allclose(found, response, rtol=0, atol=1e-12 * np.abs(response).max() + 1e-13)


def test_exposures_sum_to_the_derivative_of_retraining(results):
    """The central difference of retraining at 1e-3 is off by 1e-6 of a third derivative that is 10 times the first."""
    shown = FIGURES["e3"].data(results)
    parts = shown["unrolled"]
    truth = results.retrained_derivative.sel(source="dog", query=parts["query"])
    np.testing.assert_allclose(250 * parts.sum("exposure"), truth, rtol=0, atol=1e-5 * float(np.abs(truth).max()))
    assert parts["exposure"].values[:2].tolist() == [124.5, 374.5]
    for kernel in (parts, shown["closed_form"]):
        assert not kernel.where(kernel["exposure"] > kernel["epoch"], 0).any()


def test_the_closed_kernel_averages_over_its_stretches(results):
    """Its sum over stretches is the sample-weight influence, up to quadrature: 4 nodes on a tenth of a rise."""
    toy, config = results.toy, results.settings.toy.training
    closed = closed_exposure(toy.dataset, config, toy.modes, tau=toy.tau, source="dog", stretch=250)
    whole = toy.sample_weight.sel(source="dog")
    np.testing.assert_allclose(250 * closed.sum("exposure"), whole, rtol=0, atol=1e-6 * np.abs(whole).max())


def test_indefinite_is_where_the_smallest_damped_eigenvalue_is_negative(results):
    marked = indefinite(results.hessian)
    lowest = results.hessian["min_eigenvalue"] / results.hessian["max_abs_eigenvalue"]
    for constant in marked["damping"].values:
        assert np.array_equal(marked.sel(damping=constant), lowest < -constant)
    assert not indefinite(results.gauss_newton).any()


def test_the_limit_of_algorithm_1_is_reached_without_memory():
    """With b = 0 the variance is the limit's, but for Euler's first-order error, at most the step's: 1 / (1 - 1/20).

    The standard errors say how many of 2 x 40 weights times 320 draws are independent.
    """
    settings = BiasSettings(stabilities=(0.1, 1.0), decays=(0.0,), weights=40, chains=2, burn_in=120, draws=320)
    found = quadratic_bias(settings)
    limit = np.interp(np.log(settings.stabilities), np.log(found["fine_stability"]), found["limit"])
    ratio, error = found["algorithm_1"][0].values / limit, found["algorithm_1_error"][0].values / limit
    step = 1 / (1 - RELATIVE_STEP / 4)
    assert float(found["discretised"]) == pytest.approx(step, rel=1e-12)
    assert (ratio > 1 - 4 * error).all()
    assert (ratio < step + 4 * error).all()
    assert abs(float(found["mala"]) - 1) < 4 * float(found["mala_error"])
    assert abs(float(found["sgld"]) - step) < 4 * float(found["sgld_error"])
    assert (np.abs(found["frozen"] - 1) < step - 1 + 4 * found["frozen_error"]).all()


def test_a_setting_of_the_sweep_is_what_the_sampler_gives_alone(results):
    toy, settings = results.settings.toy, results.settings.sweep
    found = results.sweeps.sel(step_size=1e-4, n_beta=1e3, localization=1e4, chains=2, draws=40)
    alone = bayesian_influence(
        results.toy.dataset,
        results.toy.checkpoints,
        RMSPropSGLD(1e-4, 1e3, 1e4, toy.sampler.decay, toy.sampler.stability),
        chains=2,
        draws=40,
        seed=settings.seed,
    )["influence"]
    different = ~np.eye(8, dtype=bool)
    pearson = np.corrcoef(alone.values[:, different].ravel(), results.retrained.values[:, different].ravel())[0, 1]
    # Covariances of float32 losses, accumulated in another order.
    assert float(found["correlation"]) == pytest.approx(pearson, abs=1e-4)
    unstable = results.sweeps.sel(step_size=1e-2, localization=1e4)
    assert unstable["correlation"].isnull().all()
    assert all("outside the stable range" in str(reason) for reason in unstable["reason"].values.ravel())


def test_an_interrupted_sweep_goes_on_from_its_store(results, tmp_path):
    settings = results.settings.sweep
    arguments = (
        results.toy.dataset,
        results.toy.checkpoints,
        results.retrained,
        results.settings.toy.sampler,
        settings,
    )
    done = []

    def interrupt(settings_done):
        done.append(settings_done)
        if sum(done) >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave_one_out_sweeps(*arguments, store=tmp_path, progress=interrupt)
    again = []
    found = leave_one_out_sweeps(*arguments, store=tmp_path, progress=again.append)
    assert sum(again) == sum(grid.size for grid in settings.grids(results.settings.toy.sampler))
    xr.testing.assert_identical(found, results.sweeps)


def test_the_whole_grid_spans_the_papers_table():
    settings = SweepSettings()
    assert (min(settings.step_sizes), max(settings.step_sizes)) == (1e-7, 1e-2)
    assert (min(settings.n_betas), max(settings.n_betas)) == (1e1, 1e4)
    assert (min(settings.localizations), max(settings.localizations)) == (1e-2, 1e6)
    assert settings.chains == (2, 4, 8)
    assert settings.draws == (200, 400, 800, 1000)
    assert settings.decays == (0.8, 0.9, 0.95, 0.99)
    assert (min(settings.stabilities), max(settings.stabilities)) == (1e-4, 1.0)


def test_the_cases_of_learning_coefficients_vary_in_width_rank_and_multiplicity():
    cases = CoefficientSettings().cases
    exact = {learning_coefficient(*case) for case in cases}
    assert len(cases) >= 6
    assert len(exact) == len(cases), "each has its own value"
    assert {m for _, m in exact} == {1, 2}
    ranks = {}
    for widths, rank in cases:
        ranks.setdefault(widths, set()).add(rank)
    assert max(len(seen) for seen in ranks.values()) >= 3, "rank dependence is seen at one width"


def test_results_are_computed_once_for_each_run(results):
    calls = []

    @computed_once
    def data(given):
        calls.append(given)
        return len(calls)

    assert [data(results), data(results)] == [1, 1]
    assert data(Results(results.settings)) == 2


def test_settings_with_another_seed_are_another_key():
    assert repr(FigureSettings.seeded(0)) != repr(FigureSettings.seeded(1))
    for part in ("toy", "bias", "coefficients", "sweep"):
        assert (
            getattr(FigureSettings.seeded(5), part).seed
            == getattr(FigureSettings.seeded(5, quick=True), part).seed
            == 5
        )


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_cannot_be_used_is_refused(device):
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used .*; use cpu."):
        FigureSettings(device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_sampling_on_a_gpu_gives_the_same_within_error(results):
    config = TrainingConfig(epochs=2000, checkpoint_every=1000)
    run = train(results.toy.dataset, config).checkpoints
    sampler = MALA(1e-6, 1e3, 5e3)
    found = [bayesian_influence(results.toy.dataset, run, sampler, draws=400, device=d) for d in ("cpu", "cuda")]
    difference = np.abs(found[0]["covariance"] - found[1]["covariance"])
    assert (difference < 6 * np.hypot(found[0]["standard_error"], found[1]["standard_error"])).all()
