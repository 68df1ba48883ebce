"""Claims about stagewise influence: sign flips, peaks in the order of the hierarchy, and what each measure means."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from validation.agreement import agreement, without_self
from validation.claims import Check, claim
from validation.toy import ToyExperiment

__all__ = ["GROUPS", "group_means"]

_FLOW_ERROR = "well beyond the error of descent as a flow, 4e-3 (see flow-is-descent)"

GROUPS = {"plants": ("pine", "oak", "rose", "lily"), "birds": ("sparrow", "penguin"), "cat": ("cat",)}


def group_means(influence: xr.DataArray, source: str = "dog") -> dict[str, xr.DataArray]:
    """Return the influence of `source` on each group of queries at one tree distance, averaged, nearest group last."""
    return {name: influence.sel(source=source, query=list(queries)).mean("query") for name, queries in GROUPS.items()}


def _peak_checks(influence: xr.DataArray, seen: dict[str, int]) -> Iterator[Check]:
    """Yield the epochs of the strongest harm by dog and their order."""
    peaks = []
    for name, mean in group_means(influence).items():
        peaks.append(int(mean.idxmax("epoch")))
        yield Check(f"epoch of the strongest harm to {name}", peaks[-1], why=f"about {seen[name]} was seen")
    yield Check(
        "smallest gap between the peaks of plants, birds and cat (epochs)",
        float(np.diff(peaks).min()),
        low=float(np.diff(influence["epoch"]).min()),
        why="in the order of the hierarchy, by at least one checkpoint",
    )


def _first_help_then_harm(kernel: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the epochs of help before the strongest harm, and of harm around it, by the sign of the kernel."""
    harm = kernel < 0
    peak = int(kernel.argmin("epoch"))
    after = np.arange(len(harm)) >= peak
    before_peak_help = np.flatnonzero(~harm.values[:peak])
    start = before_peak_help[-1] + 1 if len(before_peak_help) else 0
    ends = np.flatnonzero(~harm.values & after)
    end = ends[0] if len(ends) else len(harm)
    return kernel["epoch"][:start], kernel["epoch"][start:end]


def _slope_in_errors(shape: xr.DataArray, measured: xr.DataArray, error: xr.DataArray) -> float:
    """Return the weighted least-squares slope of `measured` on `shape` in units of its standard error.

    Weights are the inverse squares of `error`, whose overall scale is estimated from the residuals.
    """
    weights = 1 / np.square(error)
    slope = float((weights * shape * measured).sum() / (weights * shape**2).sum())
    scale = float((weights * np.square(measured - slope * shape)).sum()) / (len(shape) - 1)
    return slope / np.sqrt(scale / float((weights * shape**2).sum()))


@claim(
    "stages-bif",
    "The Bayesian influence of dog on cat, birds and plants changes sign, helpful first, and harms most in the order "
    "of the hierarchy: plants, birds, cat.",
    source="paper 3, Figs. 3 and 4",
    sampled=True,
)
def stages_bif(experiment: ToyExperiment) -> Iterator[Check]:
    """Check signs and peak order of the Bayesian influence."""
    bif = experiment.bayesian
    scale = experiment.settings.sampler.n_beta / len(experiment.dataset)
    influence, error = group_means(bif["influence"]), group_means(bif["standard_error"] * scale)
    for name, kernel in group_means(experiment.kernel).items():
        for word, sign, window in zip(("help", "harm"), (-1, 1), _first_help_then_harm(kernel), strict=True):
            yield Check(
                f"influence on {name}, epochs {int(window[0])} to {int(window[-1])}, in standard errors",
                sign
                * _slope_in_errors(
                    -kernel.sel(epoch=window), influence[name].sel(epoch=window), error[name].sel(epoch=window)
                ),
                low=4.0 if sign > 0 else -np.inf,
                high=-4.0 if sign < 0 else np.inf,
                why=f"{word}: slope on the exact gradient kernel, whose sign delimits the epochs, over its own error",
            )
    yield from _peak_checks(bif["influence"], {"plants": 2100, "birds": 3000, "cat": 4700})


@claim(
    "stages-loo",
    "Leave-one-out retraining shows the same sign changes and the same order.",
    source="paper 3, Fig. 3 right",
)
def stages_loo(experiment: ToyExperiment) -> Iterator[Check]:
    """Check signs and peak order of leave-one-out."""
    for name, mean in group_means(experiment.retrained).items():
        harm = int(mean.idxmax("epoch"))
        earliest = float(mean.sel(epoch=slice(None, harm)).min())
        yield Check(f"strongest help to {name}, before the harm", earliest, high=-1e-2, why=_FLOW_ERROR)
        yield Check(f"strongest harm to {name}", float(mean.max()), low=1e-2, why=_FLOW_ERROR)
    yield from _peak_checks(experiment.retrained, {"plants": 2200, "birds": 3100, "cat": 5200})


@claim(
    "closed-form-loo",
    "Leave-one-out in closed form, from the actual initial weights, equals retraining for every pair.",
    source="ours",
)
def closed_form_loo(experiment: ToyExperiment) -> Iterator[Check]:
    """Compare closed-form and retrained leave-one-out pair by pair."""
    result = agreement(experiment.retrained, experiment.closed_leave_one_out)
    yield Check(
        "smallest Pearson of a pair",
        result.worst_pearson,
        low=0.9995,
        why="the retrained run is Euler's discretisation of the flow, 4e-3 of its scale (see flow-is-descent)",
    )
    yield Check("largest |slope - 1| of a pair", result.worst_slope_error, high=0.01, why="the same delay, twice over")


@claim(
    "bif-is-the-kernel",
    "At the strong localisation used, the Bayesian influence is the instantaneous gradient kernel divided by the "
    "localisation, up to the sampler's discretisation.",
    source="ours",
    sampled=True,
)
def bif_is_the_kernel(experiment: ToyExperiment) -> Iterator[Check]:
    """Compare the sampled covariance with the gradient kernel over all pairs and checkpoints."""
    sampler = experiment.settings.sampler
    result = agreement(experiment.kernel, experiment.bayesian["covariance"])
    yield Check(
        "Pearson over all pairs and checkpoints", result.pearson, low=0.98, why="0.993 was seen; sampling noise remains"
    )
    predicted = 1 / sampler.localization / (1 - sampler.step_size * sampler.localization / 4)
    curvature = float(experiment.hessian["max_abs_eigenvalue"].max()) * sampler.n_beta / sampler.localization
    yield Check(
        "slope / predicted slope 1/gamma / (1 - eps gamma / 4)",
        result.slope / predicted,
        low=1 / (1 + curvature) - 0.05,
        high=1 / (1 - curvature) + 0.05,
        why=f"the loss adds up to n_beta max|eig H| / gamma = {curvature:.2f} to the localisation, of either sign; "
        "sampling and the start of the chains 5 %",
    )


@claim(
    "bif-is-not-loo",
    "The Bayesian influence has the stages of leave-one-out but is not the same quantity: their trajectories correlate "
    "moderately.",
    source="paper Fig. 3 and 6, ours",
    sampled=True,
)
def bif_is_not_loo(experiment: ToyExperiment) -> Iterator[Check]:
    """Report the correlation of Bayesian influence and leave-one-out for every group of queries."""
    sampled, retrained = group_means(experiment.bayesian["influence"]), group_means(experiment.retrained)
    for name in GROUPS:
        pearson = float(xr.corr(sampled[name], retrained[name], "epoch"))
        yield Check(f"Pearson for {name}", pearson, low=0.0, high=0.9, why="0.45 to 0.7 was seen per query")


@claim(
    "brief-ablation-is-the-kernel",
    "Leaving a sample out briefly changes the summed loss by rate x D (D - 1) / 2 times the gradient kernel.",
    source="paper C.5, ours",
)
def brief_ablation_is_the_kernel(experiment: ToyExperiment) -> Iterator[Check]:
    """Compare the summed loss difference of brief ablation with the kernel at the start of the window."""
    settings = experiment.settings
    rate = 2 * settings.training.lr / experiment.dataset.targets.size
    predicted = -rate * settings.window * (settings.window - 1) / 2 * experiment.kernel
    result = agreement(without_self(predicted), without_self(experiment.briefly_ablated))
    yield Check("Pearson over pairs and starts", result.pearson, low=0.99, why="0.997 was seen at D = 100")
    drift = settings.window * experiment.modes.values[0] * 2 / experiment.tau
    yield Check(
        "slope",
        result.slope,
        low=1 - drift,
        high=1 + drift,
        why=f"gradients change by a relative 2 s D / tau = {drift:.2f} at most during the window",
    )
