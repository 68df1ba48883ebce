"""Every pair of measures worth comparing: what agreement is expected, why, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from numerics import gauss_newton_influence, hessian_influence
from validation.agreement import Agreement, agreement, without_self
from validation.claims import Verdict
from validation.toy import ToyExperiment

__all__ = ["PAIRS", "Pair", "PairResult", "compare"]

Measure = Callable[[ToyExperiment], xr.DataArray]


@dataclass(frozen=True)
class Pair:
    """Two measures of influence and the agreement expected of them.

    Parameters
    ----------
    reference, measure
        Names in `MEASURES`.
    expected, why
        What should be found, in words.
    bounds
        Lowest and highest value allowed for fields of `Agreement`; without bounds the pair is only reported.
    with_self
        Whether the influence of a sample on itself counts. It is large and of one sign, so it raises correlations.
    """

    reference: str
    measure: str
    expected: str
    why: str
    bounds: Mapping[str, tuple[float, float]]
    with_self: bool = False


@dataclass(frozen=True)
class PairResult:
    """A pair, the agreement found, and the verdict."""

    pair: Pair
    found: Agreement

    @property
    def verdict(self) -> Verdict:
        """Holds if every bounded field is within its bounds; reported if none is bounded."""
        if not self.pair.bounds:
            return Verdict.REPORTED
        within = all(low <= getattr(self.found, field) <= high for field, (low, high) in self.pair.bounds.items())
        return Verdict.HOLDS if within else Verdict.FAILS


def _kernel_influence(experiment: ToyExperiment) -> xr.DataArray:
    """Return -(n_beta / (N gamma)) K: what the Bayesian influence tends to at strong localisation."""
    sampler = experiment.settings.sampler
    return experiment.kernel * (-sampler.n_beta / (len(experiment.dataset) * sampler.localization))


def _kernel_over_window(experiment: ToyExperiment) -> xr.DataArray:
    """Return the summed loss difference of a brief ablation if the kernel stayed as it is at the window's start."""
    settings = experiment.settings
    rate = 2 * settings.training.lr / experiment.dataset.targets.size
    return experiment.kernel * (-rate * settings.window * (settings.window - 1) / 2)


def _damped(name: str, constant: float) -> Measure:
    def measure(experiment: ToyExperiment) -> xr.DataArray:
        return getattr(experiment, name)["influence"].sel(damping=constant, drop=True)

    return measure


MEASURES: dict[str, Measure] = {
    "LOO retrained": lambda e: e.retrained,
    "LOO closed form": lambda e: e.closed_leave_one_out,
    "derivative retrained": lambda e: e.retrained_derivative,
    "weight 0.9 retrained": lambda e: e.slightly_ablated,
    "sample-weight": lambda e: e.sample_weight,
    "fixed-init": lambda e: e.closed_form("fixed-init", e.modes),
    "spectral": lambda e: e.closed_form("spectral"),
    "paper-P1": lambda e: e.closed_form("paper-P1"),
    "paper-P2": lambda e: e.closed_form("paper-P2"),
    "BIF": lambda e: e.bayesian["influence"],
    "kernel": _kernel_influence,
    "Hessian, damping gamma / n_beta": lambda e: e.posterior_damped(hessian_influence),
    "Hessian c=0.1": _damped("hessian", 0.1),
    "Gauss-Newton, damping gamma / n_beta": lambda e: e.posterior_damped(gauss_newton_influence),
    "Gauss-Newton c=0.1": _damped("gauss_newton", 0.1),
    "kernel over a window": _kernel_over_window,
    "brief ablation closed form": lambda e: e.closed_brief_ablation,
    "brief ablation": lambda e: e.briefly_ablated,
}

PAIRS: tuple[Pair, ...] = (
    Pair(
        "LOO retrained",
        "LOO closed form",
        "equal",
        "the closed form solves the same runs from the same weights; descent is Euler's method on it",
        {"pearson": (0.9995, 1.0), "worst_pearson": (0.9995, 1.0), "worst_slope_error": (0.0, 0.01)},
        with_self=True,
    ),
    Pair(
        "derivative retrained",
        "sample-weight",
        "equal up to decoupling",
        "the formula assumes decoupled modes; random weights couple them by a few per cent",
        {"pearson": (0.99, 1.0), "slope": (0.95, 1.05)},
    ),
    Pair(
        "derivative retrained",
        "fixed-init",
        "close, not equal",
        "it leaves out the change of X^T X",
        {"pearson": (0.9, 0.99)},
    ),
    Pair(
        "derivative retrained",
        "spectral",
        "close, not equal",
        "it leaves out the change of X^T X and lets the initial weights follow; one mean g0",
        {"pearson": (0.9, 0.99)},
    ),
    Pair("derivative retrained", "paper-P1", "close, not equal", "as spectral, with the printed rotations", {}),
    Pair("derivative retrained", "paper-P2", "close, not equal", "as spectral, with the printed rotations", {}),
    Pair(
        "spectral",
        "paper-P1",
        "differ (erratum)",
        "Eqs. 50-51 hold for symmetric Q only",
        {"relative_max_error": (0.05, np.inf)},
    ),
    Pair(
        "spectral",
        "paper-P2",
        "differ (erratum)",
        "Eqs. 50-51 hold for symmetric Q only",
        {"relative_max_error": (0.05, np.inf)},
    ),
    Pair(
        "derivative retrained",
        "weight 0.9 retrained",
        "nearly equal",
        "a tenth of the weight is nearly linear",
        {"pearson": (0.98, 1.0)},
    ),
    Pair(
        "derivative retrained",
        "LOO retrained",
        "differ",
        "the whole weight is far outside linear response",
        {"pearson": (0.0, 0.9)},
    ),
    Pair(
        "LOO retrained",
        "paper-P1",
        "alike in shape only",
        "the paper's Fig. 3, right against centre, at the derivative",
        {},
    ),
    Pair(
        "kernel",
        "BIF",
        "equal up to curvature and noise",
        "strong localisation: Cov = K / gamma, with the step's factor 1 / (1 - eps gamma / 4)",
        {"pearson": (0.98, 1.0)},
        with_self=True,
    ),
    Pair(
        "kernel over a window",
        "brief ablation",
        "nearly equal",
        "both are the instantaneous influence; the kernel at the window's start, summed as if it were constant",
        {"pearson": (0.99, 1.0)},
    ),
    Pair(
        "brief ablation",
        "brief ablation closed form",
        "equal",
        "the flow on every window, from the matrix solution; descent is 3 epochs late in stages of 300 or more: 1 %",
        {"pearson": (0.9995, 1.0), "slope": (0.98, 1.02)},
        with_self=True,
    ),
    Pair(
        "Hessian, damping gamma / n_beta",
        "BIF",
        "equal up to the step and noise",
        "the Gaussian limit of the local posterior; the step widens it by 1 / (1 - eps h / 4), 1.11 to 1.18 for the "
        "curvatures h = gamma + n_beta lambda = 4e3 to 6e3; noise 5 %",
        {"pearson": (0.98, 1.0), "slope": (1.05, 1.24)},
        with_self=True,
    ),
    Pair(
        "Gauss-Newton, damping gamma / n_beta",
        "BIF",
        "as with the Hessian",
        "the residual's part of the Hessian, which is left out, is at most 10 % of this damping",
        {"pearson": (0.98, 1.0), "slope": (0.95, 1.36)},
        with_self=True,
    ),
    Pair(
        "Hessian, damping gamma / n_beta",
        "Hessian c=0.1",
        "unlike",
        "the Hessian is indefinite for most of training: eigenvalues cancel the damping, and no posterior exists",
        {},
    ),
    Pair(
        "Gauss-Newton, damping gamma / n_beta",
        "Gauss-Newton c=0.1",
        "unlike",
        "weak damping favours the directions of small curvature",
        {},
    ),
    Pair(
        "LOO retrained",
        "BIF",
        "alike in stages",
        "instantaneous against accumulated influence",
        {"pearson": (0.2, 0.9)},
    ),
    Pair("sample-weight", "BIF", "alike in stages", "instantaneous against accumulated influence", {}),
)


def compare(pair: Pair, experiment: ToyExperiment) -> PairResult:
    """Measure the agreement of one pair."""
    reference, measure = MEASURES[pair.reference](experiment), MEASURES[pair.measure](experiment)
    if not pair.with_self:
        reference, measure = without_self(reference), without_self(measure)
    return PairResult(pair, agreement(reference, measure))
