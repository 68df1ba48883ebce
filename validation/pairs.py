"""Every pair of measures worth comparing: what agreement is expected, why, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from numerics import gauss_newton_influence, hessian_influence
from validation.agreement import Agreement, agreement, without_self
from validation.experiments.base import Experiment
from validation.registry import Verdict, Way

__all__ = ["MATRIX", "MEASURES", "PAIRS", "Measure", "Pair", "PairResult", "compare", "correlations"]


@dataclass(frozen=True)
class Measure:
    """A way to measure influence on an experiment's data."""

    way: Way
    compute: Callable[[Experiment], xr.DataArray]


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
    general
        Whether the bounds hold for any whitened data, or describe the paper's toy model only.
    """

    reference: str
    measure: str
    expected: str
    why: str
    bounds: Mapping[str, tuple[float, float]]
    with_self: bool = False
    general: bool = False


@dataclass(frozen=True)
class PairResult:
    """A pair and the agreement found.

    Parameters
    ----------
    pair
        The pair.
    found
        The agreement, None where one of the measures is not defined for the data.
    bounded
        Whether the pair's bounds apply.
    problem
        Why there is no agreement.
    """

    pair: Pair
    found: Agreement | None
    bounded: bool = True
    problem: str = ""

    @property
    def verdict(self) -> Verdict:
        """Holds if every bounded field is within its bounds; reported if none is bounded."""
        if self.found is None or not self.bounded or not self.pair.bounds:
            return Verdict.REPORTED
        within = all(low <= getattr(self.found, field) <= high for field, (low, high) in self.pair.bounds.items())
        return Verdict.HOLDS if within else Verdict.FAILS


def _kernel_influence(experiment: Experiment) -> xr.DataArray:
    """Return -(n_beta / (N gamma)) K: what the Bayesian influence tends to at strong localisation."""
    sampler = experiment.settings.sampler
    return experiment.kernel * (-sampler.n_beta / (len(experiment.dataset) * sampler.localization))


def _kernel_over_window(experiment: Experiment) -> xr.DataArray:
    """Return the summed loss difference of a brief ablation if the kernel stayed as it is at the window's start."""
    settings = experiment.settings
    rate = 2 * settings.training.lr / experiment.dataset.targets.size
    return experiment.kernel * (-rate * settings.window * (settings.window - 1) / 2)


def _damped(name: str, constant: float) -> Callable[[Experiment], xr.DataArray]:
    def measure(experiment: Experiment) -> xr.DataArray:
        return getattr(experiment, name)["influence"].sel(damping=constant, drop=True)

    return measure


MEASURES: dict[str, Measure] = {
    "LOO retrained": Measure(Way.RETRAINING, lambda e: e.retrained),
    "LOO closed form": Measure(Way.THEORY, lambda e: e.closed_leave_one_out),
    "derivative retrained": Measure(Way.RETRAINING, lambda e: e.retrained_derivative),
    "weight 0.9 retrained": Measure(Way.RETRAINING, lambda e: e.slightly_ablated),
    "sample-weight": Measure(Way.THEORY, lambda e: e.sample_weight),
    "fixed-init": Measure(Way.THEORY, lambda e: e.closed_form("fixed-init", e.modes)),
    "spectral": Measure(Way.THEORY, lambda e: e.closed_form("spectral")),
    "paper-P1": Measure(Way.THEORY, lambda e: e.closed_form("paper-P1")),
    "paper-P2": Measure(Way.THEORY, lambda e: e.closed_form("paper-P2")),
    "BIF": Measure(Way.NUMERICS, lambda e: e.bayesian["influence"]),
    "kernel": Measure(Way.NUMERICS, _kernel_influence),
    "Hessian, damping gamma / n_beta": Measure(Way.NUMERICS, lambda e: e.posterior_damped(hessian_influence)),
    "Hessian c=0.1": Measure(Way.NUMERICS, _damped("hessian", 0.1)),
    "Gauss-Newton, damping gamma / n_beta": Measure(Way.NUMERICS, lambda e: e.posterior_damped(gauss_newton_influence)),
    "Gauss-Newton c=0.1": Measure(Way.NUMERICS, _damped("gauss_newton", 0.1)),
    "kernel over a window": Measure(Way.NUMERICS, _kernel_over_window),
    "brief ablation closed form": Measure(Way.THEORY, lambda e: e.closed_brief_ablation),
    "brief ablation": Measure(Way.RETRAINING, lambda e: e.briefly_ablated),
}

# The measures whose correlations are worth a table; the others are variants of these.
MATRIX = (
    "LOO closed form",
    "sample-weight",
    "paper-P1",
    "brief ablation closed form",
    "BIF",
    "kernel",
    "Hessian, damping gamma / n_beta",
    "Gauss-Newton, damping gamma / n_beta",
    "Hessian c=0.1",
    "LOO retrained",
    "derivative retrained",
    "weight 0.9 retrained",
    "brief ablation",
)

PAIRS: tuple[Pair, ...] = (
    Pair(
        "LOO retrained",
        "LOO closed form",
        "equal",
        "the closed form solves the same runs from the same weights; descent is Euler's method on it",
        {"pearson": (0.9995, 1.0), "worst_pearson": (0.9995, 1.0), "worst_slope_error": (0.0, 0.01)},
        with_self=True,
        general=True,
    ),
    Pair(
        "derivative retrained",
        "sample-weight",
        "equal up to decoupling",
        "the formula assumes decoupled modes; random weights couple them by a few per cent",
        {"pearson": (0.99, 1.0), "slope": (0.95, 1.05)},
        general=True,
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
        general=True,
    ),
    Pair(
        "kernel over a window",
        "brief ablation",
        "nearly equal",
        "both are the instantaneous influence; over a window the kernel drifts by 2 s D / tau = 0.65 at most, a third "
        "of that on average, and a correlation loses half its square",
        {"pearson": (0.976, 1.0)},
    ),
    Pair(
        "brief ablation",
        "brief ablation closed form",
        "equal",
        "the flow on every window, from the matrix solution; descent is 3 epochs late in stages of 300 or more: 1 %",
        {"pearson": (0.9995, 1.0), "slope": (0.98, 1.02)},
        with_self=True,
        general=True,
    ),
    Pair(
        "Hessian, damping gamma / n_beta",
        "BIF",
        "equal up to the step and noise",
        "the Gaussian limit of the local posterior; the step widens it by 1 / (1 - eps h / 4), 1.11 to 1.18 for the "
        "curvatures h = gamma + n_beta lambda = 4e3 to 6e3; noise 5 %",
        {"pearson": (0.98, 1.0), "slope": (1.05, 1.24)},
        with_self=True,
        general=True,
    ),
    Pair(
        "Gauss-Newton, damping gamma / n_beta",
        "BIF",
        "as with the Hessian",
        "the residual's part of the Hessian, which is left out, is at most 10 % of this damping",
        {"pearson": (0.98, 1.0), "slope": (0.95, 1.36)},
        with_self=True,
        general=True,
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


def compare(pair: Pair, experiment: Experiment, *, bounded: bool = True) -> PairResult:
    """Measure the agreement of one pair; a measure that is not defined for the data leaves its sentence."""
    try:
        reference, measure = (MEASURES[name].compute(experiment) for name in (pair.reference, pair.measure))
        if not pair.with_self:
            reference, measure = without_self(reference), without_self(measure)
        return PairResult(pair, agreement(reference, measure), bounded)
    except (ValueError, ArithmeticError) as error:
        return PairResult(pair, None, bounded, str(error))


def correlations(experiment: Experiment, names: Sequence[str]) -> xr.DataArray:
    """Return the Pearson correlation of every two measures over pairs of different samples and epochs.

    Parameters
    ----------
    experiment
        The data, measured.
    names
        Names in `MEASURES`; those not defined for the data are left out.

    Returns
    -------
    xarray.DataArray
        dims (measure, other), with each measure's way as a coordinate; NaN where there is no correlation.
    """
    computed: dict[str, xr.DataArray] = {}
    for name in names:
        try:
            computed[name] = without_self(MEASURES[name].compute(experiment))
        except (ValueError, ArithmeticError):
            continue
    values = np.eye(len(computed))
    for i, first in enumerate(computed.values()):
        for j, second in enumerate(computed.values()):
            if i < j:
                values[i, j] = values[j, i] = _pearson(first, second)
    labels = list(computed)
    ways = [str(MEASURES[name].way) for name in labels]
    table = xr.DataArray(values, {"measure": labels, "other": labels}, ("measure", "other"), "Pearson")
    return table.assign_coords(way=("measure", ways))


def _pearson(first: xr.DataArray, second: xr.DataArray) -> float:
    """Return the correlation, NaN where the two share no epoch or one does not vary."""
    try:
        return agreement(first, second).pearson
    except ValueError:
        return float("nan")
