r"""How well two measures of influence can agree on given data: bounds derived from the data, one for each pair.

Let a measure differ from its reference a by an error e whose root of summed squares is at most E. Then

.. math:: |\text{slope} - 1| = \frac{|\langle a, e \rangle|}{\|a\|^2} \le \frac{E}{\|a\|}, \qquad
    \text{Pearson} \ge \cos \arcsin \frac{E}{\|a_c\|},

a_c being a less its mean, and every trajectory may differ by its own share of E. Where E is more than half of the
reference, a lost half of it would not show: the pair cannot decide anything, unless it is outside even of these bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Float

from numerics import TrustLevel, leave_one_out, timed_ablation, trust
from validation.agreement import without_self
from validation.experiments.base import Experiment, kept
from validation.local_law import LocalLaw, local_law

__all__ = [
    "Bounds",
    "aligned_derivative",
    "brief_ablation_bounds",
    "coupling_bounds",
    "decoupled_weights",
    "derivative_bounds",
    "retraining_bounds",
    "sampling_bounds",
]

_SECOND_ORDER = 1.25  # of the step's error in units of its first order, with a quarter to spare
_SIGMAS = 4.0  # one false alarm in 16,000
_BLIND = 0.5


@dataclass(frozen=True, eq=False)
class Bounds:
    """The agreement that given data allow.

    Parameters
    ----------
    fields
        Lowest and highest value of fields of `Agreement`.
    why
        Where they come from, with the numbers of these data.
    blur
        By what share of the expected slope the slope may be off.
    tolerance
        Largest root-mean-square deviation of every trajectory, dims (source, query); None if none is bounded.
    doubt
        Why the pair cannot decide, if it cannot.
    """

    fields: dict[str, tuple[float, float]]
    why: str
    blur: float
    tolerance: xr.DataArray | None = None
    doubt: str = ""

    @property
    def undecided(self) -> str:
        """A sentence if agreement within the bounds says nothing; empty if it does."""
        if self.doubt:
            return self.doubt
        if self.blur > _BLIND:
            return f"the tolerance is {self.blur:.2g} of the reference itself, so that agreement would say nothing"
        return ""


def _finer(experiment: Experiment) -> Experiment:
    """Return the experiment with half the learning rate: epochs of half the length."""
    training, settings = experiment.settings.training, experiment.settings
    halved = replace(
        training, lr=training.lr / 2, epochs=2 * training.epochs, checkpoint_every=2 * training.checkpoint_every
    )
    return experiment.with_settings(
        replace(settings, training=halved, window=2 * settings.window, every=2 * settings.every)
    )


def _of_step(coarse: xr.DataArray, fine: xr.DataArray) -> xr.DataArray:
    """Return the error of the step in `coarse`, twice what halving it changes, with a quarter to spare."""
    return 2 * _SECOND_ORDER * (coarse - fine.assign_coords(epoch=fine["epoch"] / 2))


def _late(experiment: Experiment) -> float:
    """Return the error of second order in the step as a share of that of first order: the lateness of descent."""
    return abs(experiment.lateness)


def _unbalanced(experiment: Experiment) -> float:
    """Return the relative error that unbalanced initial weights leave in the matrix solution, sigma^2 h / s."""
    training = experiment.settings.training
    return float(training.sigma**2 * training.hidden / experiment.modes.values[0])


def _deterministic(
    reference: xr.DataArray, error: xr.DataArray, floor: float, late: float, why: str, *more: xr.DataArray
) -> Bounds:
    """Return the bounds of a measure that differs from the reference by errors of these sizes.

    What is of higher order, the share `floor` of the reference and `late` of the first-order error, may fall on any
    trajectory, the smallest too.
    """
    typical = floor * _rms(reference) + late * max(_rms(part) for part in (error, *more))
    total = sum(_norm(part) for part in (error, *more)) + typical * np.sqrt(reference.size)
    blur = total / _norm(reference) if _norm(reference) > 0 else np.inf
    tolerance = sum(((part**2).mean("epoch") ** 0.5 for part in (error, *more)), start=xr.zeros_like(error[0]))
    return Bounds(
        _fields(_cosine(total, reference), float(1 - blur), float(1 + blur)),
        f"{why}: {blur:.2g} of the reference in all",
        float(blur),
        tolerance.drop_vars("epoch", errors="ignore") + typical,
    )


def _fields(pearson: float, low: float, high: float) -> dict[str, tuple[float, float]]:
    """Return bounds of the slope and, unless any correlation is possible, of Pearson's: it may not even exist then."""
    return ({"pearson": (pearson, 1.0)} if pearson > -1 else {}) | {"slope": (low, high)}


def _cosine(error: float, reference: xr.DataArray, angle: float = 0.0) -> float:
    spread = _norm(reference - reference.mean())
    share = error / spread if spread > 0 else np.inf
    return float(np.cos(min(np.pi, angle + np.arcsin(share)))) if share < 1 else -1.0


def _norm(values: xr.DataArray) -> float:
    return float(np.sqrt(np.square(values).sum()))


def _rms(values: xr.DataArray) -> float:
    return float(np.sqrt(np.square(values).mean()))


@kept
def _step_error_of_retraining(experiment: Experiment) -> xr.DataArray:
    fine = _finer(experiment)
    return _of_step(experiment.retrained, leave_one_out(fine.dataset, fine.settings.training))


@kept
def retraining_bounds(experiment: Experiment) -> Bounds:
    """Return the bounds of leave-one-out in closed form against retraining: descent is Euler's method on the flow."""
    error = _step_error_of_retraining(experiment)
    floor = _unbalanced(experiment)
    why = (
        f"halving the learning rate moves retraining by {_norm(error) / 2 / _SECOND_ORDER:.2g} (root of summed "
        f"squares), which is half of the step's error; unbalanced initial weights sigma^2 h / s = {floor:.1g}"
    )
    return _deterministic(experiment.retrained, error, floor, _late(experiment), why)


@kept
def brief_ablation_bounds(experiment: Experiment) -> Bounds:
    """Return the bounds of brief ablation in closed form: the same step, seen by windows.

    A sum over D epochs of what starts at zero and ends at f is an integral less f / 2, and half of a sum over 2 D half
    epochs one less f / 4. The closed form sums over whole epochs, so that only the integrals' difference is its error.
    """
    fine, settings = _finer(experiment), experiment.settings
    halved = timed_ablation(
        fine.dataset, fine.settings.training, window=fine.settings.window, every=fine.settings.every
    )
    longer = timed_ablation(experiment.dataset, settings.training, window=settings.window + 1, every=settings.every)
    reference = experiment.briefly_ablated
    last = longer - reference
    error = _of_step(reference.sel(epoch=last["epoch"]) + last / 4, halved / 2)
    floor = _unbalanced(experiment)
    why = (
        f"halving the learning rate moves brief ablation by {_norm(error) / 2 / _SECOND_ORDER:.2g}, which is half of "
        f"the step's error; unbalanced initial weights {floor:.1g}"
    )
    return _deterministic(reference, error, floor, _late(experiment), why)


def decoupled_weights(experiment: Experiment) -> tuple[np.ndarray, np.ndarray]:
    """Return W_1 and W_2 that carry every mode in a hidden direction of its own, with the run's initial strengths.

    Examples
    --------
    >>> from numerics import TrainingConfig
    >>> from theory import hierarchical_dataset
    >>> from validation import Settings
    >>> tree = Experiment(hierarchical_dataset(), Settings(training=TrainingConfig(epochs=300)))
    >>> w1, w2 = decoupled_weights(tree)
    >>> bool(np.allclose(w2 @ w1, (tree.modes.left * tree.modes.initial_strengths) @ tree.modes.right.T))
    True
    """
    modes, training = experiment.modes, experiment.settings.training
    carried = np.sqrt(modes.initial_strengths)[:, None]
    w1 = np.zeros((training.hidden, modes.right.shape[0]))
    w2 = np.zeros((modes.left.shape[0], training.hidden))
    w1[: len(carried)], w2[:, : len(carried)] = carried * modes.right.T, (modes.left.T * carried).T
    return w1, w2


def _derivative(experiment: Experiment) -> xr.DataArray:
    """Return the derivative of retraining from weights that carry every mode in a hidden direction of its own."""
    training, (w1, w2) = experiment.settings.training, decoupled_weights(experiment)
    up, down = (leave_one_out(experiment.dataset, training, epsilon=e, w1=w1, w2=w2) for e in (1e-3, -1e-3))
    return (up + down) / 2


@kept
def aligned_derivative(experiment: Experiment) -> xr.DataArray:
    """Return the derivative of weighted retraining from decoupled weights of the same initial strengths.

    The layers carry mode k in the hidden direction k, W_1 = G^{1/2} V^T and W_2 = U G^{1/2}, so that no mode sees
    another one: what the formulas for modes assume.

    Examples
    --------
    >>> from numerics import TrainingConfig
    >>> from theory import hierarchical_dataset
    >>> from validation import Settings
    >>> tree = Experiment(hierarchical_dataset(), Settings(training=TrainingConfig(epochs=300)))
    >>> aligned_derivative(tree).sizes
    Frozen({'epoch': 4, 'source': 8, 'query': 8})
    """
    return _derivative(experiment)


@kept
def _step_error_of_derivative(experiment: Experiment) -> xr.DataArray:
    fine = _finer(experiment)
    fine.__dict__["modes"] = experiment.modes  # the same initial weights, so that nothing is trained for them
    return _of_step(aligned_derivative(experiment), _derivative(fine))


@kept
def derivative_bounds(experiment: Experiment) -> Bounds:
    """Return the bounds of the sample-weight formula where its assumption holds: from decoupled weights."""
    error = _step_error_of_derivative(experiment)
    why = f"halving the learning rate moves the derivative by {_norm(error) / 2 / _SECOND_ORDER:.2g}, half its error"
    return _deterministic(aligned_derivative(experiment), error, _DIFFERENCE, _late(experiment), why)


# The central difference at weights 1 +- 1e-3 is off by 1e-6 / 6 times the third derivative. A mode is being learned
# while its exponent 2 s t / tau is near ln(s / g0) < 20, and a weight changes s by its share: three derivatives give
# the cube.
_DIFFERENCE = 1e-6 / 6 * 20**3


@kept
def coupling_bounds(experiment: Experiment) -> Bounds:
    """Return the bounds of the sample-weight formula against retraining from the actual weights.

    The formula assumes decoupled modes. What coupling does is measured, without the formula: retraining from the actual
    weights less retraining from decoupled ones of the same strengths.
    """
    reference = without_self(experiment.retrained_derivative)
    coupling = reference - without_self(aligned_derivative(experiment))
    step = without_self(_step_error_of_derivative(experiment))
    reference, coupling, step = (part.fillna(0.0) for part in (reference, coupling, step))
    share = _norm(coupling) / _norm(reference) if _norm(reference) > 0 else np.inf
    why = (
        f"coupling of the modes by the initial weights moves retraining by {share:.2g} of itself, measured from "
        "decoupled weights; and the step"
    )
    return _deterministic(reference, coupling, _DIFFERENCE, _late(experiment), why, step)


@kept
def _law(experiment: Experiment) -> LocalLaw:
    settings, run = experiment.settings, experiment.checkpoints
    return local_law(
        experiment.dataset,
        run.w1.numpy(),
        run.w2.numpy(),
        settings.sampler,
        draws=settings.draws,
        chains=settings.chains,
        burn_in=settings.burn_in,
    )


def sampling_bounds(reference: str) -> Callable[[Experiment], Bounds]:
    """Return the bounds of the Bayesian influence against "kernel", "hessian" or "gauss_newton".

    The covariance that the chains should give is known before they run (`local_law`), and so are the slope and the
    angle between it and the reference. Monte-Carlo noise adds to both, by the stated standard errors; entries of one
    checkpoint share their draws and may be off together, checkpoints are independent.
    """

    @kept
    def bounds(experiment: Experiment) -> Bounds:
        law, sampled = _law(experiment), experiment.bayesian
        against: Float[np.ndarray, "t n n"] = getattr(law, reference)
        error = np.nan_to_num(sampled["standard_error"].values)  # what never moves has neither covariance nor noise
        noise = np.square(error).sum(axis=(1, 2))
        sizes = np.square(against).sum(axis=(1, 2))
        slope = float((against * law.expected).sum() / sizes.sum())
        off_slope = _SIGMAS * float(np.sqrt((sizes * noise).sum())) / float(sizes.sum())
        off_slope += law.remainder * float(np.sqrt(np.square(law.expected).sum() / sizes.sum()))
        # A sum of squares of normal numbers has at most the variance that it has if they are one: twice its square.
        total = float(np.sqrt(noise.sum() + _SIGMAS * np.sqrt(2 * np.square(noise).sum())))
        total += law.remainder * float(np.sqrt(np.square(law.expected).sum()))
        expected = xr.DataArray(law.expected)
        between = np.corrcoef(against.ravel(), law.expected.ravel())[0, 1]
        lowest = _cosine(total, expected, float(np.arccos(np.clip(between, -1, 1))))
        why = (
            f"the law of these chains gives a slope of {slope:.3f} and a Pearson correlation of {between:.4f}, by "
            f"curvature (n_beta H / gamma up to {law.curvature:.2f}), step, second order of the losses and start of "
            f"the chains; {_SIGMAS:g} standard errors, and {law.remainder:.1%} for what it leaves out, move the slope "
            f"by {off_slope:.2g}"
        )
        level = trust(sampled, chains=experiment.settings.chains)
        return Bounds(
            _fields(lowest, slope - off_slope, slope + off_slope),
            why,
            off_slope / slope if slope > 0 else np.inf,
            doubt=f"the draws are {level}" if level.level is TrustLevel.UNUSABLE else "",
        )

    return bounds
