"""Every pair of measures worth comparing: what agreement is expected, why, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from numerics import gauss_newton_influence, hessian_influence
from validation.agreement import Agreement, agreement, without_self
from validation.bounds import (
    Bounds,
    aligned_derivative,
    brief_ablation_bounds,
    coupling_bounds,
    derivative_bounds,
    retraining_bounds,
    sampling_bounds,
)
from validation.experiments.base import Experiment
from validation.registry import Check, Verdict, Way

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
        Lowest and highest value allowed for fields of `Agreement` in the paper's toy model; without bounds the pair is
        only reported.
    with_self
        Whether the influence of a sample on itself counts. It is large and of one sign, so it raises correlations.
    derive
        How bounds follow from any whitened data, see `validation.bounds`; None for what holds of the toy model only.
    """

    reference: str
    measure: str
    expected: str
    why: str
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    with_self: bool = False
    derive: Callable[[Experiment], Bounds] | None = None

    @property
    def general(self) -> bool:
        """Whether bounds follow from any whitened data."""
        return self.derive is not None


@dataclass(frozen=True)
class PairResult:
    """A pair and the agreement found.

    Parameters
    ----------
    pair
        The pair.
    found
        The agreement, None where one of the measures is not defined for the data.
    checks
        What was held against a bound, and where the bound comes from; empty if the pair is only reported.
    problem
        Why there is no agreement.
    undecided
        Why agreement within the bounds would say nothing, if it would not.
    """

    pair: Pair
    found: Agreement | None
    checks: tuple[Check, ...] = ()
    problem: str = ""
    undecided: str = ""

    @property
    def verdict(self) -> Verdict:
        """Fails if a check does; inconclusive if what would hold could not fail; reported if nothing is bounded."""
        if any(check.verdict is Verdict.FAILS for check in self.checks):
            return Verdict.FAILS
        if self.undecided:
            return Verdict.INCONCLUSIVE
        return Verdict.HOLDS if self.checks else Verdict.REPORTED


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
    "derivative retrained, decoupled start": Measure(Way.RETRAINING, aligned_derivative),
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
        with_self=True,
        derive=retraining_bounds,
    ),
    Pair(
        "derivative retrained",
        "sample-weight",
        "equal up to decoupling",
        "the formula assumes decoupled modes; random weights couple them",
        derive=coupling_bounds,
    ),
    Pair(
        "derivative retrained, decoupled start",
        "sample-weight",
        "equal",
        "the formula where its assumption holds: every mode starts in a hidden direction of its own",
        with_self=True,
        derive=derivative_bounds,
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
        with_self=True,
        derive=sampling_bounds("kernel"),
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
        "the flow on every window, from the matrix solution; descent is Euler's method on it",
        with_self=True,
        derive=brief_ablation_bounds,
    ),
    Pair(
        "Hessian, damping gamma / n_beta",
        "BIF",
        "equal up to the step and noise",
        "the Gaussian limit of the local posterior; the step widens it by 1 / (1 - eps h / 4)",
        with_self=True,
        derive=sampling_bounds("hessian"),
    ),
    Pair(
        "Gauss-Newton, damping gamma / n_beta",
        "BIF",
        "as with the Hessian",
        "the residual's part of the Hessian, which is left out, is small against this damping",
        with_self=True,
        derive=sampling_bounds("gauss_newton"),
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


def compare(
    pair: Pair, experiment: Experiment, *, bounded: bool = True, measures: Mapping[str, Measure] | None = None
) -> PairResult:
    """Measure the agreement of one pair; a measure that is not defined for the data leaves its sentence.

    Parameters
    ----------
    pair
        The pair.
    experiment
        The data, measured.
    bounded
        Whether bounds that describe the toy model count; those derived from the data always do.
    measures
        The measures by name; `MEASURES` if not given.
    """
    known = MEASURES if measures is None else measures
    try:
        reference, measure = (known[name].compute(experiment) for name in (pair.reference, pair.measure))
        if not pair.with_self:
            reference, measure = without_self(reference), without_self(measure)
        found = agreement(reference, measure)
        if pair.derive is None:
            return PairResult(pair, found, _checks(pair.bounds, found, pair.why) if bounded else ())
        derived = pair.derive(experiment)
    except (ValueError, ArithmeticError) as error:
        undecided = "one of the two is not defined for these data" if pair.general else ""
        return PairResult(pair, None, (), str(error), undecided)
    checks = _checks(derived.fields, found, derived.why)
    if derived.tolerance is not None:
        checks += (_worst(reference, measure, derived.tolerance),)
    return PairResult(pair, found, checks, undecided=derived.undecided)


def _checks(bounds: Mapping[str, tuple[float, float]], found: Agreement, why: str) -> tuple[Check, ...]:
    return tuple(
        Check(name.replace("_", " "), getattr(found, name), low, high, why) for name, (low, high) in bounds.items()
    )


def _worst(reference: xr.DataArray, measure: xr.DataArray, tolerance: xr.DataArray) -> Check:
    """Return the check that no trajectory deviates by more than its own tolerance."""
    deviation = ((measure - reference) ** 2).mean("epoch") ** 0.5
    share = (deviation / tolerance).where(tolerance > 0, deviation.where(deviation == 0, np.inf))
    return Check(
        "largest deviation of a trajectory / its tolerance",
        float(share.max()),
        high=1.0,
        why="every trajectory by itself, root mean square over epochs",
    )


def correlations(
    experiment: Experiment, names: Sequence[str], *, measures: Mapping[str, Measure] | None = None
) -> xr.DataArray:
    """Return the Pearson correlation of every two measures over pairs of different samples and epochs.

    Parameters
    ----------
    experiment
        The data, measured.
    names
        Names of measures; those not defined for the data are left out.
    measures
        The measures by name; `MEASURES` if not given.

    Returns
    -------
    xarray.DataArray
        dims (measure, other), with each measure's way as a coordinate, and the number of epochs and trajectories behind
        every entry as the coordinates ``n_epochs`` and ``n_pairs``; NaN where there is no correlation.
    """
    known = MEASURES if measures is None else measures
    computed: dict[str, xr.DataArray] = {}
    for name in names:
        try:
            computed[name] = without_self(known[name].compute(experiment))
        except (ValueError, ArithmeticError):
            continue
    values = np.eye(len(computed))
    counts = np.zeros((2, *values.shape), int)
    for i, first in enumerate(computed.values()):
        for j, second in enumerate(computed.values()):
            if i <= j:
                found = _agreement(first, second)
                counts[:, i, j] = counts[:, j, i] = (0, 0) if found is None else (found.n_epochs, found.n_pairs)
                if i < j:
                    values[i, j] = values[j, i] = np.nan if found is None else found.pearson
    labels = list(computed)
    ways = [str(known[name].way) for name in labels]
    table = xr.DataArray(values, {"measure": labels, "other": labels}, ("measure", "other"), "Pearson")
    both = ("measure", "other")
    return table.assign_coords(way=("measure", ways), n_epochs=(both, counts[0]), n_pairs=(both, counts[1]))


def _agreement(first: xr.DataArray, second: xr.DataArray) -> Agreement | None:
    """Return the agreement, None where the two share no epoch or one does not vary."""
    try:
        return agreement(first, second)
    except ValueError:
        return None
