"""Claims about the local Bayesian influence: its limits, its existence and its noise (paper 2.2, B)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
import xarray as xr

from numerics import SGLD, Checkpoints, SamplerDiverged, bayesian_influence, hessian_influence, sample
from numerics.curvature.linear import hessian, per_sample_gradients
from theory import Dataset, gaussian_influence, quadratic_loss_covariance, stationary_law
from validation.agreement import agreement
from validation.charts import Plot, Series, curves
from validation.expectations import gaussian_limit, posterior_lead, solved_kernel
from validation.experiments.toy import ToyExperiment
from validation.registry import WORST, Check, Cost, claim, numerics, theory

__all__: list[str] = []

_EVERY = 4  # one checkpoint of so many has its exact Gaussian limit
_CHECKPOINTS = (500.0, 1500.0, 2000.0, 3000.0, 4500.0, 7000.0)


def _curvature(experiment: ToyExperiment) -> float:
    """Return n_beta max |eig H| / gamma, by what part the loss changes the localisation at most."""
    sampler = experiment.settings.sampler
    return float(experiment.hessian["max_abs_eigenvalue"].max()) * sampler.n_beta / sampler.localization


def _attenuation(measured: xr.DataArray, error: xr.DataArray) -> float:
    """Return the correlation that sampling noise alone leaves between an estimate and the exact value."""
    noise = float(np.square(error).mean())
    return float(np.sqrt(max(0.0, 1 - noise / float(measured.var()))))


@claim(
    "bif-is-the-kernel",
    "At the strong localisation used, the Bayesian influence is the instantaneous gradient kernel divided by the "
    "localisation, up to the sampler's discretisation.",
    source="ours",
    compares=(theory("K / gamma / (1 - eps gamma / 4)"), numerics("Algorithm 1 at 101 checkpoints")),
    metric="Pearson and slope over pairs and checkpoints",
)
def bif_is_the_kernel(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the sampled covariance with the gradient kernel over all pairs and checkpoints."""
    sampler = experiment.settings.sampler
    covariance, error = experiment.bayesian["covariance"], experiment.bayesian["standard_error"]
    predicted = 1 / sampler.localization / (1 - sampler.step_size * sampler.localization / 4)
    limit, lead = gaussian_limit(experiment, _EVERY), posterior_lead(experiment)
    for name, kernel in (
        ("", experiment.kernel),
        (f" {lead:.0f} epochs later", solved_kernel(experiment, -lead)),
    ):
        attenuation = _attenuation(covariance, error)
        expected = agreement(kernel, limit)
        found = agreement(kernel, covariance)
        yield Check(
            f"Pearson with the kernel{name} over that of noise and of the Gaussian limit",
            found.pearson / (attenuation * expected.pearson),
            low=1 - 1e-3,
            high=1 + 1e-3,
            why=f"noise of the stated errors leaves {attenuation:.4f}, the Gaussian limit correlates to "
            f"{expected.pearson:.4f}; a tenth of what noise costs for the uncertainty of errors, twice that of the "
            "limit's "
            "grid of epochs",
        )
        yield Check(
            f"slope on the kernel{name} / 1/gamma / (1 - eps gamma / 4), less that of the Gaussian limit",
            (found.slope - expected.slope) / predicted,
            low=-0.025,
            high=0.025,
            why="beyond the limit: V adds up to 1 % to the stability constant, the start of the chains takes 4 of "
            "1000 draws, "
            "noise 1 %",
            roomy="the three have either sign",
        )
        yield Check(
            f"slope of the Gaussian limit on the kernel{name} / 1/gamma / (1 - eps gamma / 4)",
            expected.slope / predicted,
            low=0.9,
            high=1.1,
            why="1 where the localisation is all there is; curvature adds up to a fifth of it, of either sign, and "
            "half of "
            "that on average",
        )
    chosen = np.random.default_rng(0).choice(covariance.size, 400, replace=False)
    x, y = experiment.kernel.values.ravel()[chosen] * predicted, covariance.values.ravel()[chosen]
    yield Plot(
        "400 of 6464 entries",
        "K / gamma / (1 - eps gamma / 4)",
        "sampled covariance",
        (Series("sampled", x, y, style="points"), Series("equal", np.sort(x), np.sort(x), style="dashes")),
    )


@claim(
    "bif-is-damped-hessian",
    "The Bayesian influence is the damped classical influence with damping gamma / n_beta wherever the local "
    "posterior is "
    "nearly Gaussian.",
    source="paper 2.2 (recovers the classical influence), C.4",
    compares=(
        theory("Gaussian limit at the posterior's mode, with its step and its second order"),
        numerics("damped Hessian"),
        numerics("Algorithm 1 at 101 checkpoints"),
    ),
    metric="Pearson and slope over pairs and checkpoints",
)
def bif_is_damped_hessian(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare sampled influence with the Hessian damped as the posterior is, and name what they differ by."""
    sampler = experiment.settings.sampler
    damped = experiment.posterior_damped(hessian_influence)
    sampled = experiment.bayesian["influence"]
    scale = sampler.n_beta / len(experiment.dataset)
    limit = -scale * gaussian_limit(experiment, _EVERY)
    found, expected = agreement(damped, sampled), agreement(damped, limit)
    straight = agreement(limit, sampled)
    shown = {"epoch": limit["epoch"].values}
    every, same = sampled, sampled.sel(shown)
    error = experiment.bayesian["standard_error"] * scale
    attenuation, here = _attenuation(every, error), _attenuation(same, error.sel(shown))
    yield Check(
        "Pearson with the Gaussian limit / what noise leaves",
        straight.pearson / here,
        low=1 - 1e-3,
        high=1 + 1e-3,
        why=f"noise of the stated errors leaves {here:.4f}, known to a tenth of what it costs and 5 % for batch means "
        "of 31 "
        "draws; terms beyond second order, (h + P + O) / gamma = 0.015 of a width, cost their square",
        roomy="what differs from seed to seed is the estimate of the noise",
    )
    yield Check(
        "slope on the Gaussian limit",
        straight.slope,
        low=0.975,
        high=1.025,
        why="1; V adds up to 1 % to the stability constant, the start of the chains takes 4 of 1000 draws, noise 1 %",
    )
    yield Check(
        "Pearson with the damped Hessian over that of noise and of the Gaussian limit",
        found.pearson / (attenuation * expected.pearson),
        low=1 - 1e-3,
        high=1 + 1e-3,
        why=f"the limit's own is {expected.pearson:.4f}: the posterior's mode is ahead by "
        f"{posterior_lead(experiment):.0f} "
        "epochs, where gradients are others, and losses have second-order terms",
    )
    yield Check(
        "slope on the damped Hessian less that of the Gaussian limit",
        found.slope - expected.slope,
        low=-0.025,
        high=0.025,
        why="as for the slope on the limit",
    )
    yield Check(
        "slope of the Gaussian limit on the damped Hessian, times 1 - eps gamma / 4",
        expected.slope * (1 - sampler.step_size * sampler.localization / 4),
        low=0.95,
        high=1.05,
        why="1 where the step widens all directions alike; gradients at the mode 30 epochs on, a trace of 1.5 %",
    )
    pair = {"source": "dog", "query": "cat"}
    yield Plot(
        "Influence of dog on cat",
        "epoch",
        "influence",
        (
            Series(
                "Bayesian",
                experiment.epochs,
                sampled.sel(pair).values,
                2 * scale * experiment.bayesian["standard_error"].sel(pair).values,
            ),
            *curves(experiment.epochs, "dashes", damped_Hessian=damped.sel(pair)),
        ),
        zero=True,
    )


@cache
def _gaussian_comparison(experiment: ToyExperiment) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sampled covariances, their standard errors and the exact ones of the Gaussian limit, (T, N, N) each.

    A network of 10 hidden units, so that Hessians of single losses fit: 230 weights.
    """
    small = experiment.variant(hidden=10)
    data, run = small.dataset, small.checkpoints.at(list(_CHECKPOINTS))
    sampler = SGLD(step_size=2.5e-5, n_beta=4e3, localization=2e4)
    bif = bayesian_influence(
        data, run, sampler, chains=8, draws=4000, burn_in=100, seed=experiment.settings.seed, dtype=torch.float64
    )
    exact = [_gaussian_limit(data, w1, w2, sampler) for w1, w2 in zip(run.w1, run.w2, strict=True)]
    return bif["covariance"].values, bif["standard_error"].values, np.stack(exact)


def _gaussian_limit(data: Dataset, w1: torch.Tensor, w2: torch.Tensor, sampler: SGLD) -> np.ndarray:
    """Return the covariance of losses of the quadratic expansion at the posterior's mode, found by Newton's method.

    The mode lies n_beta |grad L| / gamma away from the checkpoint, many standard deviations while the network learns.
    """
    anchor = torch.cat([w1.flatten(), w2.flatten()]).numpy()
    mode = anchor.copy()
    for _ in range(8):
        a, b = (torch.tensor(part) for part in np.split(mode, [w1.numel()]))
        a, b = a.reshape(w1.shape), b.reshape(w2.shape)
        gradients = per_sample_gradients(data, a, b).numpy()
        hessians = np.stack([hessian(_single(data, i), a, b).numpy() for i in range(len(data))])
        precision = sampler.n_beta * hessians.mean(axis=0) + sampler.localization * np.eye(len(mode))
        force = sampler.n_beta * gradients.mean(axis=0) + sampler.localization * (mode - anchor)
        mode = mode - np.linalg.solve(precision, force)
    law = stationary_law(precision, sampler.step_size)
    return quadratic_loss_covariance(gradients, hessians, law.covariance)


def _single(data: Dataset, row: int) -> Dataset:
    return Dataset(data.inputs[[row]], data.targets[[row]], (data.names[row],))


@claim(
    "bif-gaussian-limit",
    "Sampled Bayesian influence has the exact value of the Gaussian limit at the sampler's step, and its standard "
    "errors "
    "are honest: the deviations over all entries behave as standard normal.",
    source="ours (posterior of paper B, Gaussian at strong localisation)",
    compares=(theory("g Sigma g + tr(H Sigma H Sigma) / 2 at the step"), numerics("SGLD, 8 chains of 4000 draws")),
    metric="z-scores of 36 entries at six checkpoints",
)
def bif_gaussian_limit(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Standardise the deviations of the sampled covariances."""
    sampled, error, exact = _gaussian_comparison(experiment)
    rows, columns = np.triu_indices(sampled.shape[1])
    z = ((sampled - exact) / error)[:, rows, columns].ravel()
    independent = len(sampled) * sampled.shape[1]
    spread = 3 / np.sqrt(2 * independent)
    yield Check(
        "root mean square of the z-scores",
        float(np.sqrt(np.mean(z**2))),
        low=1 - spread,
        high=1 + spread,
        why=f"1 for honest errors; eight losses at six checkpoints are {independent} independent numbers, three "
        "standard "
        f"errors {spread:.2f}",
    )
    yield Check(
        "99th percentile of |z|",
        float(np.quantile(np.abs(z), 0.99)),
        low=2.58 * (1 - spread) - 0.5,
        high=2.58 * (1 + spread) + 0.5,
        why="2.58 for a normal law, with the spread above; two of 216 entries lie beyond",
    )
    slope = float((sampled * exact).sum() / np.square(exact).sum())
    # Entries of one checkpoint share their draws: their errors add up, those of different checkpoints do not.
    shared = (error * np.abs(exact)).sum(axis=(1, 2))
    yield Check(
        "slope on the exact values",
        slope,
        low=0.93,
        high=1.07,
        why="the step's own widening is 14 %, and half of it tells it from none; terms beyond second order are (h + "
        "P + O) "
        "/ gamma = 0.2 % and a small multiple",
        error=float(np.sqrt(np.square(shared).sum()) / np.square(exact).sum()),
    )
    yield Plot(
        "Sampled against exact covariances",
        "Gaussian limit",
        "sampled",
        (
            Series("sampled", exact.ravel(), sampled.ravel(), 2 * error.ravel(), style="points"),
            Series("equal", np.sort(exact.ravel()), np.sort(exact.ravel()), style="dashes"),
        ),
    )


@claim(
    "bif-exists-everywhere",
    "The Bayesian influence is well defined at any point of training; its Gaussian limit is not, unless the "
    "localisation "
    "exceeds n_beta times the most negative curvature.",
    source="paper 2.2 (well-defined at any point)",
    compares=(
        theory("condition gamma > -n_beta min eig H"),
        numerics("Hessian of every checkpoint"),
        numerics("SGLD with a localisation below the limit"),
    ),
    metric="margin of the localisation; finite draws below the limit",
)
def bif_exists_everywhere(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Check the condition at every checkpoint, and sample where it is broken."""
    sampler = experiment.settings.sampler
    needed = -sampler.n_beta * experiment.hessian["min_eigenvalue"]
    s, n = float(experiment.modes.values[0]), len(experiment.dataset)
    yield Check(
        "localisation used / largest needed for a Gaussian limit",
        sampler.localization / float(needed.max()),
        low=1.0,
        why="positive definite at every checkpoint",
        roomy="a condition that the setting meets by far",
    )
    size = float(max(np.linalg.norm(w, 2) for w in experiment.initial_weights))
    yield Check(
        "largest localisation needed / (n_beta s_1 / N)",
        float(needed.max()) / (sampler.n_beta * s / n),
        low=1 - size**2 - size / 100,
        high=1 + size**2 + size / 100,
        why=f"the Hessian at small weights has the eigenvalues +- s_k / N; weights of norm {size:.3f} add their "
        "square, and "
        "turn E by their product",
        roomy=WORST,
    )
    weak = SGLD(step_size=1e-4, n_beta=sampler.n_beta, localization=0.2 * float(needed.max()))
    start = experiment.checkpoints.at([0.0])
    w1, w2 = start.w1[0], start.w2[0]
    refused = 0.0
    try:
        gaussian_influence(
            per_sample_gradients(experiment.dataset, w1, w2).numpy(),
            hessian(experiment.dataset, w1, w2).numpy(),
            weak.n_beta,
            weak.localization,
        )
    except ValueError:
        refused = 1.0
    yield Check("Gaussian limit refused at a fifth of that", refused, low=1.0, why="the precision is indefinite")
    try:
        losses = sample(
            experiment.dataset, start, weak, chains=4, draws=2000, seed=experiment.settings.seed, dtype=torch.float64
        )
        finite = float(np.isfinite(losses).all())
    except SamplerDiverged:
        finite = 0.0
    yield Check(
        "SGLD there: draws are finite",
        finite,
        low=1.0,
        why="the loss grows as the fourth power of the weights, so the posterior exists",
    )
    yield Plot(
        "Localisation needed for a Gaussian limit",
        "epoch",
        "-n_beta min eig H",
        (
            *curves(experiment.epochs, needed=np.maximum(needed, 1e-3)),
            Series("used", experiment.epochs[[0, -1]], np.full(2, sampler.localization), style="dashes"),
        ),
        log="y",
    )


@claim(
    "normalised-is-steadier",
    "The normalised influence (Pearson correlation of losses) varies less than the covariance, from run to run and "
    "over "
    "training.",
    source="paper B (practical considerations)",
    compares=(theory("(1 - rho^2) / (1 + rho^2)^(1/2) for Gaussian losses"), numerics("twelve seeds of Algorithm 1")),
    cost=Cost.FULL,
    metric="ratio of the relative spreads over seeds; ratio of the ranges of sizes over training",
)
def normalised_is_steadier(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare relative spreads over seeds, measured and predicted."""
    run = experiment.checkpoints.at(list(_CHECKPOINTS))
    seeds = range(12)
    runs = [
        bayesian_influence(experiment.dataset, run, experiment.settings.sampler, draws=250, seed=100 + seed)
        for seed in seeds
    ]
    covariance, correlation = (np.stack([r[name].values for r in runs]) for name in ("covariance", "correlation"))
    rho = correlation.mean(axis=0)
    rows, columns = np.triu_indices(rho.shape[1], 1)
    clear = np.abs(rho[:, rows, columns]) > 0.3
    spread = [
        (a.std(axis=0, ddof=1) / np.abs(a.mean(axis=0)))[:, rows, columns][clear] for a in (correlation, covariance)
    ]
    ratio = spread[0] / spread[1]
    strength = np.abs(rho[:, rows, columns][clear])
    predicted = (1 - strength**2) / np.sqrt(1 + strength**2)
    independent = len(_CHECKPOINTS) * rho.shape[1]
    error = float(np.sqrt(2 / (2 * (len(seeds) - 1)) / independent))
    yield Check(
        "typical ratio of relative spreads, normalised over raw",
        float(np.exp(np.mean(np.log(ratio)))),
        high=1.0,
        why="below 1 where the normalised one is steadier, from run to run",
        error=error * float(np.exp(np.mean(np.log(ratio)))),
    )
    yield Check(
        "the same over its prediction",
        float(np.exp(np.mean(np.log(ratio / predicted)))),
        low=0.7,
        high=1.3,
        why=f"spreads over {len(seeds)} seeds are known to 21 % each, typical ones of {independent} losses to "
        f"{error:.0%}; losses are not quite Gaussian",
        error=error,
    )
    over = experiment.bayesian
    ranges = {}
    for name in ("correlation", "covariance"):
        sizes = np.abs(over[name].values[:, rows, columns])
        high, low = (np.quantile(sizes, q, axis=0) for q in (0.9, 0.5))
        ranges[name] = float(np.exp(np.mean(np.log(high / low))))
    yield Check(
        "over training: ninth decile over median of |influence|, typical pair, normalised over raw",
        ranges["correlation"] / ranges["covariance"],
        high=1.0,
        why="below 1 where the normalised one keeps its size better; the language models of the paper are another "
        "matter",
    )
    yield Plot(
        "Relative spread over seeds, normalised over raw",
        "|correlation|",
        "ratio",
        (
            Series("measured", strength, ratio, style="points"),
            Series("Gaussian losses", np.sort(strength), predicted[np.argsort(strength)], style="dashes"),
        ),
    )


@claim(
    "held-out-queries",
    "Losses of samples outside the training set can be queried: their Bayesian influence is the kernel of their own "
    "gradients.",
    source="paper B (independent data sources)",
    compares=(theory("K / gamma / (1 - eps gamma / 4)"), numerics("Algorithm 1 with two unseen items as queries")),
    cost=Cost.FULL,
    metric="slope over sources, queries and checkpoints",
)
def held_out_queries(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Query an item between dog and cat, and one between dog and pine."""
    data, sampler = experiment.dataset, experiment.settings.sampler
    inputs = np.array([[1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 1, 0, 0, 0]]) / np.sqrt(2)
    unseen = Dataset(inputs, np.sqrt(2) * inputs @ data.targets, ("hound", "chimera"))
    run: Checkpoints = experiment.checkpoints.at(list(_CHECKPOINTS))
    bif = bayesian_influence(data, run, sampler, queries=unseen, chains=8, draws=2000, seed=experiment.settings.seed)
    gradients = [per_sample_gradients(d, run.w1, run.w2) for d in (data, unseen)]
    kernel = (gradients[0] @ gradients[1].mT).numpy()
    predicted = kernel / sampler.localization / (1 - sampler.step_size * sampler.localization / 4)
    covariance, error = bif["covariance"].values, bif["standard_error"].values
    curvature = _curvature(experiment)
    yield Check(
        "slope",
        float((covariance * predicted).sum() / np.square(predicted).sum()),
        low=1 / (1 + curvature),
        high=1 / (1 - curvature),
        why=f"curvature changes the localisation by up to {curvature:.2f} of it, of either sign",
        error=float(np.sqrt((np.square(error) * np.square(predicted)).sum()) / np.square(predicted).sum()),
    )
    yield Plot(
        "Covariance with unseen items",
        "predicted",
        "sampled",
        (
            Series("sampled", predicted.ravel(), covariance.ravel(), 2 * error.ravel(), style="points"),
            Series("equal", np.sort(predicted.ravel()), np.sort(predicted.ravel()), style="dashes"),
        ),
    )
