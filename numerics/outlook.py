"""What can be measured of a model before anything long is begun: by which way, for how long, in how much memory."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from numerics.curvature.classical_influence import gauss_newton_influence, gradient_kernel, hessian_influence
from numerics.curvature.operators import hessian_operator
from numerics.curvature.tracin import tracin
from numerics.learning_coefficients.estimate import estimate_learning_coefficient
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.evaluation import Ways, losses_for_weights, sample_gradients_in_dtype, ways_of
from numerics.models.module import TorchModel
from numerics.models.samples import Samples
from numerics.sampling.bayesian_influence import bayesian_influence
from numerics.sampling.samplers import SGLD
from numerics.training.descent import TrainingConfig
from numerics.training.retraining import leave_one_out
from numerics.training.train import train
from numerics.training.unrolled_influence import unrolled_influence
from theory import checks

__all__ = ["MeasureOutlook", "ModelOutlook", "check_model"]

_TRIED = 3  # samples on which every measure is tried
_TIMED = 64  # samples on which evaluations are timed
_TOGETHER = 4  # runs or chains that are timed in one batch
_REFUSALS = (ValueError, TypeError, ArithmeticError, RuntimeError, LookupError, AttributeError)


@dataclass(frozen=True)
class MeasureOutlook:
    """What to expect of one measure.

    Parameters
    ----------
    measure
        Name of the public function.
    works
        Whether it ran on a few samples.
    way
        How the module is evaluated in it.
    seconds, memory
        Estimate for the job asked about, CPU seconds of one core and bytes, within a factor of about 2; NaN where it
        does not work.
    reason
        Why it does not work; empty if it does.
    """

    measure: str
    works: bool
    way: str
    seconds: float
    memory: float
    reason: str


@dataclass(frozen=True)
class ModelOutlook:
    """What to expect of every measure of a model.

    Parameters
    ----------
    title
        The model, the samples and the job in words.
    rows
        A row for each measure.
    """

    title: str
    rows: tuple[MeasureOutlook, ...]

    def __getitem__(self, measure: str) -> MeasureOutlook:
        """Return the row of a measure."""
        for row in self.rows:
            if row.measure == measure:
                return row
        raise KeyError(f"no measure is called {measure!r}; there are {', '.join(row.measure for row in self.rows)}.")

    def __str__(self) -> str:
        """Return the table."""
        cells = [("measure", "way", "time", "memory", "")]
        for row in self.rows:
            amounts = (_duration(row.seconds), _size(row.memory)) if row.works else ("-", "-")
            cells.append((row.measure, row.way, *amounts, row.reason))
        widths = [max(len(line[k]) for line in cells) for k in range(4)]
        lines = [
            "  ".join([*(text.ljust(width) for text, width in zip(line, widths, strict=False)), line[4]]).rstrip()
            for line in cells
        ]
        return "\n".join([self.title, *lines])


def check_model(
    model: TorchModel,
    samples: Samples,
    *,
    checkpoints: int = 1,
    epochs: int = 1000,
    chains: int = 4,
    draws: int = 1000,
) -> ModelOutlook:
    """Try every measure on a few samples, and estimate what it takes for all of them.

    Parameters
    ----------
    model, samples
        The model, at the weights that it holds, and the training set.
    checkpoints
        Checkpoints at which influence would be measured.
    epochs
        Epochs of training and retraining.
    chains, draws
        Of the samplers, at each checkpoint.

    Returns
    -------
    ModelOutlook
        Prints as a table.

    Raises
    ------
    ValueError
        If the model cannot evaluate the samples, or a loss is not of its own sample alone: then no measure works.

    Examples
    --------
    >>> data = Samples(torch.randn(20, 3), torch.randn(20, 2))
    >>> outlook = check_model(TorchModel(torch.nn.Linear(3, 2)), data)
    >>> outlook["hessian_influence"].works, outlook["hessian_influence"].way
    (True, 'dense; weights by vmap, samples by vmap')
    """
    sizes = {"checkpoints": checkpoints, "epochs": epochs, "chains": chains, "draws": draws}
    for name, value in sizes.items():
        checks.integer(name, value, at_least=1)
    checks.instance("model", model, TorchModel, made_by="TorchModel(module, loss)")
    samples = Samples.of(samples)
    weights = model.initial()
    at = ModuleCheckpoints(np.array([0.0, 1.0]), model, torch.stack([weights, weights]))
    at.check_fits(samples)
    found = ways_of(model, weights, samples)
    ways = str(found)
    few = samples[: min(_TRIED, len(samples))]
    cost = _Costs.measured(model, weights, samples, found)
    n, d = len(samples), model.n_parameters
    number = weights.element_size()
    steps = checkpoints * chains * draws
    run = TrainingConfig(epochs=1, checkpoint_every=1, lr=1e-6)
    gentle = SGLD(step_size=1e-9, n_beta=float(n), localization=1.0)
    dense = d * d <= 2**24
    solves = d if dense else 300 * n
    curvature = checkpoints * (solves * cost.product + (10 * d**3 / 1e10 if dense else 0.0))
    room = 3 * d * d * 8.0 if dense else 40 * d * 8.0
    how = "dense" if dense else "matrix-free"
    jobs: list[tuple[str, str, Callable[[], object], float, float]] = [
        ("train", ways, lambda: train(few, run, model=model), epochs * cost.gradient, 4.0 * d * number),
        (
            "leave_one_out",
            ways,
            lambda: leave_one_out(few, run, model=model),
            epochs * (n + 1) * cost.together,
            4.0 * (n + 1) * d * number,
        ),
        (
            "unrolled_influence",
            ways,
            lambda: unrolled_influence(few, run, model=model),
            epochs * n * cost.product,
            4.0 * n * d * number,
        ),
        (
            "bayesian_influence",
            ways,
            lambda: bayesian_influence(few, at, gentle, chains=2, draws=4, dtype=weights.dtype),
            steps * cost.together,
            8.0 * chains * d * number + 32 * chains * checkpoints * n * n * 8.0,
        ),
        (
            "estimate_learning_coefficient",
            ways,
            lambda: estimate_learning_coefficient(few, at, gentle, chains=2, draws=4, burn_in=0, dtype=weights.dtype),
            steps * cost.together,
            8.0 * chains * d * number + steps * n * number,
        ),
        ("hessian_influence", f"{how}; {ways}", lambda: hessian_influence(few, at, damping=1.0), curvature, room),
        (
            "gauss_newton_influence",
            f"{how}; {ways}",
            lambda: gauss_newton_influence(few, at, damping=1.0),
            curvature,
            room,
        ),
        (
            "gradient_kernel",
            ways,
            lambda: gradient_kernel(few, at),
            checkpoints * n * cost.sample_gradient,
            2.0 * n * d * 8,
        ),
        ("tracin", ways, lambda: tracin(few, at, lr=1.0), checkpoints * n * cost.sample_gradient, 2.0 * n * d * 8),
    ]
    rows = tuple(_row(*job) for job in jobs)
    title = (
        f"{type(model.module).__name__}: {d} weights, {n} samples; {checkpoints} checkpoint(s), {epochs} epochs, "
        f"{chains} chains of {draws} draws; one core"
    )
    return ModelOutlook(title, rows)


def _row(measure: str, way: str, attempt: Callable[[], object], seconds: float, memory: float) -> MeasureOutlook:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a trial of four draws is not to be trusted, and nobody does
            attempt()
    except _REFUSALS as refusal:
        return MeasureOutlook(measure, False, way, float("nan"), float("nan"), str(refusal))
    return MeasureOutlook(measure, True, way, seconds, memory, "")


@dataclass(frozen=True)
class _Costs:
    """CPU seconds of a gradient of the mean loss, alone and among a few, of a sample's, and of a Hessian product."""

    gradient: float
    together: float
    sample_gradient: float
    product: float

    @classmethod
    def measured(cls, model: TorchModel, weights: torch.Tensor, samples: Samples, ways: Ways) -> _Costs:
        timed = samples[: min(_TIMED, len(samples))].like(weights)
        scale = len(samples) / len(timed)
        leaf = weights.clone().requires_grad_()

        def gradient(of: Samples) -> Callable[[], object]:
            return lambda: torch.autograd.grad(model.losses(leaf, of).mean(), leaf)

        slope = scale * _seconds(gradient(timed))
        several = torch.stack([weights] * _TOGETHER).requires_grad_()
        evaluate = losses_for_weights(model, timed, ways.weights)
        together = scale * _seconds(lambda: torch.autograd.grad(evaluate(several).mean(1).sum(), several)) / _TOGETHER
        try:
            operator = hessian_operator(model, weights, timed)
            direction = np.ones(len(weights))
            product = scale * _seconds(lambda: operator @ direction)
        except _REFUSALS:  # the rows of the curvature measures say so
            product = 3 * slope
        alone = _seconds(lambda: sample_gradients_in_dtype(model, weights, timed, ways.samples)) / len(timed)
        return cls(slope, together, alone, product)


def _seconds(call: Callable[[], object]) -> float:
    """Return the CPU time of a call after a first one, the least of three."""
    call()
    taken = []
    for _ in range(3):
        begin = time.process_time()
        call()
        taken.append(time.process_time() - begin)
    return max(min(taken), 1e-6)


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s"


def _size(size: float) -> str:
    for unit, power in (("GiB", 30), ("MiB", 20)):
        if size >= 2**power:
            return f"{size / 2**power:.1f} {unit}"
    return f"{size / 2**10:.0f} KiB"
