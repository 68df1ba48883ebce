"""Claims about what the samplers sample: discretised laws, stability, and the bias of Algorithm 1 (paper B, C.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import xarray as xr

from numerics import SGLD, RMSPropSGLD, Sampler, bayesian_influence
from numerics.curvature.linear import hessian
from theory import stationary_law
from theory.symbolic import derivation
from validation.charts import Plot, Series, curves
from validation.experiments import two_weights
from validation.experiments.sampler_bias import RELATIVE_STEP, BiasSettings, quadratic_bias
from validation.experiments.toy import ToyExperiment
from validation.registry import Check, claim, numerics, theory

__all__: list[str] = []

_N_BETA = 100.0


def _chains(
    sampler: Sampler,
    gradient: Callable[[torch.Tensor], torch.Tensor],
    *,
    seed: int,
    chains: int = 2048,
    burn_in: int = 800,
    draws: int = 800,
) -> torch.Tensor:
    """Run the sampler's own update on a loss of one weight from 0, all chains at once; return shape (draws, chains)."""
    generator = torch.Generator().manual_seed(seed)
    w = [torch.zeros(1, chains, dtype=torch.float64)]
    rule = type(sampler).rule([sampler], [w[0].clone()])
    kept = torch.empty(draws, chains, dtype=torch.float64)
    for step in range(-burn_in, draws):
        if step >= 0:
            kept[step] = w[0][0]
        noise = torch.randn(w[0].shape, generator=generator, dtype=torch.float64)
        rule.move(w, [gradient(w[0]).clone()], [noise])
    return kept


def _bias(experiment: ToyExperiment) -> xr.Dataset:
    """Return what Figure E4 shows of a quadratic, at the stability constants where the bias is large."""
    return quadratic_bias(BiasSettings(stabilities=(0.01, 0.03, 0.1), decays=(0.0, 0.9), seed=experiment.settings.seed))


@claim(
    "sgld-law",
    "On a quadratic of curvature h SGLD of step eps samples a Gaussian of variance 1 / (h (1 - eps h / 4)), for "
    "every step "
    "below 4 / h.",
    source="ours (Euler step of the Langevin dynamics that paper Eq. 15 approximates)",
    compares=(theory("stationary law of the discretised chain"), theory("computer algebra"), numerics("1600 chains")),
    metric="variance over the predicted one",
)
def sgld_law(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Measure the variance at several steps."""
    yield Check(
        "computer algebra: remainder vanishes", float(derivation("sgld-variance").vanishes), low=1.0, why="an identity"
    )
    bias = _bias(experiment)
    shares, found, errors = (bias[name].values for name in ("relative_step", "sgld", "sgld_error"))
    for share, variance, error, predicted in zip(shares, found, errors, bias["discretised"].values, strict=True):
        yield Check(
            f"eps h = {share:g}: variance / predicted",
            float(variance / predicted),
            low=0.97,
            high=1.03,
            why="the prediction is exact; 3 % tells it from the posterior's at every step shown, 5 % and more away",
            error=float(error / predicted),
        )
    x = np.linspace(0.05, 3.5, 100)
    yield Plot(
        "Variance sampled over variance wanted",
        "step x curvature",
        "ratio",
        (
            Series("SGLD", shares, found, 2 * errors, style="points"),
            *curves(x, "dashes", predicted=1 / (1 - x / 4)),
        ),
    )


@claim(
    "stability-limit",
    "A Langevin step is stable if and only if step x (n_beta lambda + gamma) is below 4, and the samplers refuse "
    "what is "
    "not before the first step.",
    source="ours",
    compares=(theory("spectral radius |1 - eps h / 2|"), numerics("chains at 3.9 and 4.1, and the refusal")),
    metric="growth of the spread in 400 steps",
)
def stability_limit(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Run chains on both sides of the limit and ask for a refused one."""
    spreads = {}
    for share in (3.9, 4.1):
        sampler = SGLD(step_size=share / _N_BETA, n_beta=_N_BETA, localization=0.0)
        draws = _chains(sampler, lambda w: w, seed=experiment.settings.seed, chains=256, burn_in=0, draws=400)
        spreads[share] = draws.square().mean(1).sqrt().numpy() * np.sqrt(_N_BETA)
    inside = float(np.sqrt(stationary_law([[_N_BETA]], 3.9 / _N_BETA).covariance[0, 0] * _N_BETA))
    yield Check(
        "3.9: spread at the end / predicted",
        float(spreads[3.9][-1] / inside),
        low=0.8,
        high=1.2,
        why="256 chains know a spread to 4.4 %: three standard errors, and 5 % not yet reached",
    )
    growth = 1.05**399
    yield Check(
        "4.1: spread at the end / first one, over |1 - eps h / 2|^399",
        float(spreads[4.1][-1] / spreads[4.1][1] / growth),
        low=1.0,
        high=10.0,
        why="an unstable mode grows by that factor every step; noise that adds up makes it (1 - 1.05^-2)^(-1/2) = "
        "3.3 more",
    )
    refused = 0.0
    try:
        bayesian_influence(
            experiment.dataset,
            experiment.checkpoints.at([0.0]),
            SGLD(step_size=4.1 / 5e3, n_beta=1e3, localization=5e3),
            chains=1,
            draws=2,
        )
    except ValueError:
        refused = 1.0
    yield Check("step x gamma = 4.1 is refused", refused, low=1.0, why="before the first step")
    yield Plot(
        "Spread of the chains",
        "step",
        "in units of the posterior's",
        curves(np.arange(400), **{f"eps h = {share}": spread for share, spread in spreads.items()}),
        log="y",
    )


@claim(
    "printed-algorithm",
    "Algorithm 1 estimates the local posterior.",
    source="paper B, Algorithm 1, Eq. 15",
    compares=(
        theory("law p / G of an instantaneous preconditioner, by quadrature"),
        numerics("Algorithm 1 on L = w^2 / 2, n_beta = 100"),
    ),
    metric="variance over the posterior's",
    corrected="it leaves out the divergence of its preconditioner G, so where V follows the gradient faster than w "
    "moves it "
    "samples a law proportional to p / G; frozen after its adaptation, or with a large stability constant, it is "
    "unbiased",
)
def printed_algorithm(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare variances for several decay rates and stability constants with the exact limit."""
    bias = _bias(experiment)
    constants, limits = bias["stability"].values, bias["limit"].values
    widest = 1 / (1 - RELATIVE_STEP / 4)
    for decay in bias["decay"].values:
        for a, limit, ratio, error in zip(
            constants,
            limits,
            bias["algorithm_1"].sel(decay=decay).values,
            bias["algorithm_1_error"].sel(decay=decay).values,
            strict=True,
        ):
            if decay == 0:
                low, high = 0.93 * limit, 1.07 * widest * limit
                why = (
                    f"the exact limit {limit:.3f} of V that follows at once; the step widens by up to {widest - 1:.0%}"
                )
            else:
                low, high = 1.1, 1.07 * widest * limit
                why = f"V remembers ten steps: between the posterior's 1 and the limit {limit:.3f}"
            yield Check(
                f"b = {decay:g}, a = {a:g}: variance ratio",
                float(ratio),
                low=low,
                high=high,
                why=why,
                error=float(error),
            )
    frozen, frozen_error = bias["frozen"].values[-1], bias["frozen_error"].values[-1]
    yield Check(
        "a = 0.1, frozen half-way through the burn-in: variance ratio",
        float(frozen),
        low=0.97,
        high=1.03 * widest,
        why=f"1, up to the widening 1 / (1 - eps h / 4) < {widest:.3f}; 3 % for what chains started at rest have left",
        error=float(frozen_error),
    )
    yield Plot(
        "Variance sampled over variance wanted",
        "stability constant a",
        "ratio",
        (
            Series("Algorithm 1, b = 0", constants, bias["algorithm_1"].values[0], style="points"),
            Series("Algorithm 1, b = 0.9", constants, bias["algorithm_1"].values[1], style="points"),
            Series("exact limit", constants, limits, style="dashes"),
            Series("frozen", constants, bias["frozen"].values, style="points"),
        ),
        log="x",
    )


@claim(
    "printed-step",
    "The hyper-parameters n_beta = 1000, eps = 1e-3, gamma = 5e3 of Fig. 3, with a stability constant between 1e-4 "
    "and 1, "
    "sample the local posterior.",
    source="paper Fig. 3, C.2, Table 1",
    compares=(theory("step x localisation against 4"), numerics("Algorithm 1's update where the loss is flat")),
    metric="eps gamma / a; growth of the spread",
    corrected="with V of the mean loss eps gamma / a is at least 5 wherever the gradient vanishes, above the limit 4; "
    "steps below 4 a / gamma are stable, and this ledger uses 1e-4 with a = 1",
)
def printed_step(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Run the printed step in a direction in which the loss is flat, in both readings of the preconditioner."""
    seed = experiment.settings.seed
    lines = {}
    for reading in ("mean loss", "tempered"):
        sampler = RMSPropSGLD(step_size=1e-3, n_beta=1e3, localization=5e3, stability=1.0, preconditioner=reading)
        draws = _chains(sampler, torch.zeros_like, seed=seed, chains=64, burn_in=0, draws=60)
        spread = draws.square().mean(1).sqrt().numpy() * np.sqrt(5e3)
        lines[reading] = spread
        yield Check(
            f"{reading}: spread after 60 steps, in units of the posterior's",
            float(spread[-1]),
            low=1e6,
            why="every step multiplies by |1 - 5 / 2| = 1.5; 1.5^59 = 2e10 with both readings, for V is zero",
        )
    stable = RMSPropSGLD(step_size=1e-4, n_beta=1e3, localization=5e3, stability=1.0)
    spread = _chains(stable, torch.zeros_like, seed=seed, chains=2048, burn_in=50, draws=60).square().mean().sqrt()
    yield Check(
        "step 1e-4: spread, in units of the posterior's",
        float(spread) * np.sqrt(5e3),
        low=1.02,
        high=1.12,
        why="(1 - 0.5 / 4)^(-1/2) = 1.069; 122,880 draws of autocorrelation time 7 know it to 0.6 %",
    )
    yield Plot(
        "Spread of the chains where the loss is flat",
        "step",
        "in units of the posterior's",
        curves(np.arange(60), **{f"eps = 1e-3, V of the {reading}": line for reading, line in lines.items()}),
        log="y",
    )


@claim(
    "decay-rate-does-not-matter",
    "The Bayesian influence of Fig. 3 does not depend on the decay rate b between 0.8 and 0.99, nor on the stability "
    "constant a as long as step / a is kept.",
    source="paper C.2 (insensitivity to b and the stability constant)",
    compares=(
        numerics("Algorithm 1 with four decay rates"),
        numerics("three stability constants"),
        theory("kernel limit 1 / gamma / (1 - eps gamma / (4 a))"),
    ),
    metric="slope on the gradient kernel over its prediction",
)
def decay_rate_does_not_matter(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Measure the slope on the kernel for every setting at eleven checkpoints."""
    run = experiment.checkpoints.at(experiment.epochs[::10])
    kernel = experiment.kernel.isel(epoch=slice(None, None, 10)).values
    settings = [(b, 1.0) for b in (0.8, 0.9, 0.95, 0.99)] + [(0.9, a) for a in (3.0, 10.0)]
    samplers = [
        RMSPropSGLD(step_size=1e-4 * a, n_beta=1e3, localization=5e3, decay=b, stability=a) for b, a in settings
    ]
    bif = bayesian_influence(experiment.dataset, run, samplers, seed=experiment.settings.seed)
    covariance, error = bif["covariance"].values, bif["standard_error"].values
    predicted = kernel / 5e3 / (1 - 0.5 / 4)
    slopes = (covariance * predicted).sum((1, 2, 3)) / np.square(predicted).sum()
    # Entries of one checkpoint share their draws: their errors add up, those of different checkpoints do not.
    shared = (error * np.abs(predicted)).sum((2, 3))
    errors = np.sqrt(np.square(shared).sum(1)) / np.square(predicted).sum()
    curvature = float(experiment.hessian["max_abs_eigenvalue"].max()) * 1e3 / 5e3
    for (b, a), slope, spread in zip(settings, slopes, errors, strict=True):
        yield Check(
            f"b = {b:g}, a = {a:g}: slope over its prediction",
            float(slope),
            low=1 / (1 + curvature),
            high=1 / (1 - curvature),
            why=f"curvature changes the localisation by up to {curvature:.2f} of it, the same for every setting",
            error=float(spread),
        )
    yield Check(
        "largest difference between two decay rates",
        float(np.ptp(slopes[:4])),
        high=0.1,
        why="a tenth of the influence; chains of all settings have the same noise, so it does not enter",
    )
    yield Plot(
        "Slope on the kernel over its prediction",
        "setting",
        "slope",
        (
            Series(
                "Algorithm 1",
                np.array([f"b={b:g}\na={a:g}" for b, a in settings]),
                slopes,
                2 * errors,
                style="bars",
            ),
        ),
    )


@claim(
    "mala-is-exact",
    "Metropolis-adjusted chains sample the local posterior itself, on a loss that is far from quadratic; SGLD does "
    "so up to "
    "its step.",
    source="ours (reference for paper Algorithm 1)",
    compares=(theory("exact posterior of two weights by quadrature"), numerics("MALA and SGLD, 64 chains")),
    metric="Bayesian influence of three samples on each other, z-scores and slope",
)
def mala_is_exact(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Sample the posterior of a network of two weights, y = w2 w1 x."""
    exact = two_weights.exact_posterior()
    shown = []
    for name, sampler in (
        ("MALA", two_weights.EXACT),
        ("SGLD", SGLD(step_size=0.005, n_beta=two_weights.N_BETA, localization=two_weights.PULL)),
    ):
        bif = two_weights.sampled_influence(sampler, seed=experiment.settings.seed)
        found = bif["influence"].values
        error = bif["standard_error"].values * two_weights.N_BETA / len(two_weights.DATA)
        rows, columns = np.triu_indices(3)
        z = ((found - exact.influence) / error)[rows, columns]
        slope = float((found * exact.influence).sum() / np.square(exact.influence).sum())
        slope_error = float((error * np.abs(exact.influence)).sum() / np.square(exact.influence).sum())
        if name == "MALA":
            yield Check(
                "MALA: largest |z| of six entries", float(np.abs(z).max()), high=4.0, why="four standard errors"
            )
        yield Check(
            f"{name}: slope on the exact influence",
            slope,
            low=0.95,
            high=1.05 if name == "MALA" else 1.2,
            why="1 at any step; 5 % for its error"
            if name == "MALA"
            else "the step widens by 1 / (1 - eps h / 4): 15 % at curvatures of 100, which the tails reach",
            error=slope_error,
        )
        shown.append(Series(name, exact.influence.ravel(), found.ravel(), 2 * error.ravel(), style="points"))
    at = two_weights.network()
    curvature = np.linalg.eigvalsh(hessian(two_weights.DATA, at.w1[0], at.w2[0]).numpy())
    yield Check(
        "smallest curvature of the Gaussian limit, n_beta min eig H + gamma",
        float(two_weights.N_BETA * curvature[0] + two_weights.PULL),
        high=0.0,
        why="not positive: no Gaussian limit exists here, so the loss is far from quadratic on the posterior's scale",
    )
    line = np.sort(exact.influence.ravel())
    yield Plot(
        "Influence under a posterior that is not Gaussian",
        "exact, by quadrature",
        "sampled",
        (*shown, Series("equal", line, line, style="dashes")),
    )
