"""Claims about what survives leaving the paper's settings: seed, learning rate, start, width, tree, sampler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from theory import Dataset, hierarchical_dataset, tree_distance
from validation.agreement import agreement, without_self
from validation.charts import Plot, Series, curves
from validation.experiments.base import Experiment
from validation.experiments.scaled_settings import settings_for
from validation.experiments.sweeps import SweepSettings, leave_one_out_sweeps
from validation.experiments.toy import ToyExperiment, harm_epochs
from validation.registry import Check, Cost, claim, numerics, retraining, theory

__all__: list[str] = []


def _slope(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Return the exponent of a power law, fitted in logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


@claim(
    "any-seed",
    "From any random start closed-form leave-one-out equals retraining, and the peaks come in the order of the "
    "hierarchy.",
    source="ours; paper 3 from one network",
    compares=(theory("exact matrix solution"), retraining("leave-one-out from eight random starts")),
    metric="Pearson and slope of the worst pair; gaps between peaks",
    cost=Cost.FULL,
)
def any_seed(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Repeat leave-one-out from eight random starts."""
    first = experiment.settings.training.seed
    worst, slopes, peaks = [], [], []
    for seed in range(first + 1, first + 9):
        variant = experiment.variant(seed=seed)
        result = agreement(variant.retrained, variant.closed_leave_one_out)
        worst.append(1 - result.worst_pearson)
        slopes.append(result.worst_slope_error)
        peaks.append(harm_epochs(variant.retrained))
    share = experiment.lateness
    yield Check(
        "largest 1 - Pearson of a pair",
        max(worst),
        high=1.5 * share**2,
        why=f"descent is late by {share:.3f} of the fastest rise; half its square each, half again for other starts",
    )
    yield Check("largest |slope - 1| of a pair", max(slopes), high=share, why="the same lateness at first order")
    gaps = np.diff(peaks, axis=1)
    spacing = float(np.diff(experiment.epochs).max())
    yield Check("smallest gap between peaks (epochs)", float(gaps.min()), low=spacing, why="one checkpoint or more")
    columns = np.array(peaks).T
    yield Plot(
        "Peaks of leave-one-out, source dog",
        "random start",
        "epoch",
        tuple(
            Series(name, np.arange(1, 9), column, style="points")
            for name, column in zip(("plants", "birds", "cat"), columns, strict=True)
        ),
    )


@claim(
    "any-learning-rate",
    "Learning rates from a quarter to twice the paper's give the same stages in units of tau, and the distance of "
    "descent "
    "from the flow is proportional to the rate.",
    source="ours (paper C.1: small learning rate)",
    compares=(
        theory("delay of Euler's method"),
        numerics("descent and flow at four rates"),
        retraining("leave-one-out"),
    ),
    metric="exponent of the distance; peaks in units of tau",
    cost=Cost.FULL,
)
def any_learning_rate(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Train at several rates for the same time in units of tau."""
    config = experiment.settings.training
    rates = np.array([0.25, 0.5, 1.0, 2.0]) * config.lr
    distances, peaks = [], []
    for rate in rates:
        factor = config.lr / rate
        variant = experiment.variant(
            lr=float(rate),
            epochs=round(config.epochs * factor),
            checkpoint_every=round(config.checkpoint_every * factor),
        )
        distances.append(float((variant.checkpoints.maps - variant.flow.maps).abs().max()))
        peaks.append(harm_epochs(variant.retrained) / variant.tau)
    exponent = _slope(rates, distances)
    yield Check(
        "exponent of max |descent - flow| in the rate",
        exponent,
        low=0.95,
        high=1.05,
        why="first order; the next is smaller by the lateness over the rise, 4 % at twice the rate",
    )
    spread = float(np.ptp(peaks, axis=0).max())
    spacing = config.checkpoint_every / experiment.tau
    yield Check(
        "largest spread of a peak over rates (tau)", spread, high=1.01 * spacing, why="the spacing of checkpoints"
    )
    yield Plot(
        "Distance of descent from the flow",
        "learning rate",
        "max |descent - flow|",
        (
            *curves(rates, "points", measured=distances),
            *curves(rates, "dashes", proportional=distances[0] * rates / rates[0]),
        ),
        log="xy",
    )


@claim(
    "any-size-of-the-start",
    "Initial weights from 1e-4 to 1e-2 give the same stages, only at other times; the matrix solution's error grows "
    "with the "
    "square of the size.",
    source="ours (paper C.1, C.6: small initialisation)",
    compares=(
        theory("exact matrix solution; half-rise times"),
        numerics("gradient flow by DOP853"),
        retraining("leave-one-out"),
    ),
    metric="exponent of the error; gaps between peaks",
    cost=Cost.FULL,
)
def any_size_of_the_start(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Train from several sizes of initial weights."""
    config = experiment.settings.training
    sizes = np.array([1e-4, 1e-3, 1e-2, 3e-2])
    errors, peaks, shifts = [], [], []
    for sigma in sizes:
        variant = experiment.variant(sigma=float(sigma), epochs=round(1.5 * config.epochs))
        errors.append(float(np.abs(variant.solved_maps - variant.flow.maps.numpy()).max()))
        peaks.append(harm_epochs(variant.retrained))
        shifts.append(float(np.log(variant.modes.initial_strengths[0])))
    exponent = _slope(sizes[1:], errors[1:])
    yield Check(
        "exponent of max |matrix solution - flow| in the size, 1e-3 to 3e-2",
        exponent,
        low=1.7,
        high=2.3,
        why="the imbalance h sigma^2 enters at first order; growth times depend on sigma logarithmically",
    )
    spacing = float(config.checkpoint_every)
    for sigma, row in zip(sizes[:3], peaks[:3], strict=True):
        yield Check(
            f"sigma = {sigma:g}: smallest gap between peaks (epochs)",
            float(np.diff(row).min()),
            low=spacing,
            why="one checkpoint or more",
        )
    s = float(experiment.modes.values[1])
    expected = experiment.tau / (2 * s) * (shifts[2] - shifts[1])
    yield Check(
        "shift of the plants' peak from 1e-3 to 1e-2 over tau / (2 s) ln of the ratio of g0",
        float((peaks[1][0] - peaks[2][0]) / expected),
        low=0.6,
        high=1.4,
        why="animals | plants is learned that much earlier; the peak lies before its half-rise, where the root also "
        "counts "
        "with its larger s (ratio 0.68); checkpoints are 100 of 1000 epochs",
    )
    yield Plot(
        "Error of the matrix solution",
        "size of the initial weights",
        "max |difference|",
        (
            *curves(sizes, "points", measured=errors),
            *curves(sizes, "dashes", square=errors[1] * (sizes / sizes[1]) ** 2),
        ),
        log="xy",
    )


@claim(
    "any-width",
    "From 8 to 400 hidden units closed-form leave-one-out equals retraining and the order of the peaks is the same; "
    "the "
    "decoupled formula gets better with width.",
    source="ours (paper C.1: 50 hidden units)",
    compares=(
        theory("matrix solution; sample-weight formula"),
        retraining("leave-one-out and derivative, four widths"),
    ),
    metric="worst slope; gaps between peaks; 1 - Pearson against 1 / h",
    cost=Cost.FULL,
)
def any_width(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Train networks of several widths."""
    widths = np.array([8, 20, 50, 400])
    apart, slopes, gaps = [], [], []
    for hidden in widths:
        variant = experiment.variant(hidden=int(hidden))
        result = agreement(variant.retrained, variant.closed_leave_one_out)
        slopes.append(result.worst_slope_error)
        gaps.append(float(np.diff(harm_epochs(variant.retrained)).min()))
        derivative = agreement(without_self(variant.retrained_derivative), without_self(variant.sample_weight))
        apart.append(1 - derivative.pearson)
    late = experiment.lateness
    for hidden, slope, gap, distance in zip(widths, slopes, gaps, apart, strict=True):
        yield Check(f"h = {hidden}: largest |slope - 1| of a pair", slope, high=late, why="the lateness of descent")
        yield Check(
            f"h = {hidden}: smallest gap between peaks (epochs)",
            gap,
            low=float(experiment.settings.training.checkpoint_every),
            why="one checkpoint or more",
        )
        yield Check(
            f"h = {hidden}: 1 - Pearson of the sample-weight formula",
            distance,
            high=float(1 / hidden),
            why="modes of random weights overlap by h^(-1/2)",
        )
    yield Plot(
        "Decoupled formula against the retrained derivative",
        "hidden units",
        "1 - Pearson",
        (*curves(widths, "points", measured=apart), *curves(widths, "dashes", one_over_h=1 / widths)),
        log="xy",
    )


@claim(
    "any-depth-of-tree",
    "Trees of two and four levels show the same: each sample harms others most in the order of their distance, and "
    "closed "
    "forms equal retraining.",
    source="ours (paper C.1: three levels)",
    compares=(theory("exact matrix solution"), retraining("leave-one-out on 4 and 16 items")),
    metric="gaps between peaks by distance in the tree; Pearson and slope of the worst pair",
    cost=Cost.FULL,
)
def any_depth_of_tree(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Leave every leaf out of smaller and larger trees."""
    series = []
    for levels in (2, 4):
        data = hierarchical_dataset(levels)
        other = Experiment(data, settings_for(data, seed=experiment.settings.seed))
        retrained = other.retrained
        result = agreement(retrained, other.closed_leave_one_out)
        late = other.lateness
        yield Check(
            f"{levels} levels: largest |slope - 1| of a pair",
            result.worst_slope_error,
            high=late,
            why="the lateness of descent",
        )
        distance = tree_distance(levels)
        peaks = np.array(
            [
                [
                    float(retrained.isel(source=i, query=np.flatnonzero(row == d)).mean("query").idxmax("epoch"))
                    for d in range(levels, 0, -1)
                ]
                for i, row in enumerate(distance)
            ]
        )
        yield Check(
            f"{levels} levels: smallest gap between peaks over all sources (epochs)",
            float(np.diff(peaks, axis=1).min()),
            low=float(np.diff(other.epochs).min()),
            why="the farthest first, by one checkpoint or more",
        )
        mean, half = peaks.mean(axis=0) / other.tau, np.ptp(peaks, axis=0) / 2 / other.tau
        series.append(Series(f"{levels} levels", np.arange(levels, 0, -1), mean, half, "points"))
    yield Plot("Epoch of the strongest harm", "distance in the tree", "epoch / tau", tuple(series))


@claim(
    "any-whitened-data",
    "Nothing rests on the tree: on random whitened inputs that overlap, with random targets, closed forms equal "
    "retraining "
    "and the Bayesian influence is the gradient kernel.",
    source="ours",
    compares=(
        theory("weighted flow from the initial weights"),
        numerics("Algorithm 1 and gradient kernel"),
        retraining("leave-one-out on 14 samples, 5 inputs, 6 outputs"),
    ),
    metric="Pearson and slope of the worst pair; slope on the kernel",
    cost=Cost.FULL,
)
def any_whitened_data(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Cross-check a random data set."""
    random = experiment.random("random whitened data")
    inputs = np.linalg.qr(random.normal(size=(14, 5)))[0]
    wanted = np.linalg.qr(random.normal(size=(6, 5)))[0] * [6.0, 4.0, 3.0, 2.0, 1.5]
    data = Dataset(inputs, inputs @ wanted.T + 0.1 * random.normal(size=(14, 6)))
    other = Experiment(data, settings_for(data, seed=experiment.settings.seed))
    result = agreement(other.retrained, other.closed_leave_one_out)
    late = other.lateness
    yield Check("largest |slope - 1| of a pair", result.worst_slope_error, high=late, why="lateness of descent")
    yield Check(
        "1 - smallest Pearson of a pair",
        1 - result.worst_pearson,
        high=2 * late**2,
        why="half its square each, doubled",
    )
    sampler = other.settings.sampler
    covariance = other.bayesian["covariance"]
    kernel = agreement(other.kernel, covariance)
    curvature = float(other.hessian["max_abs_eigenvalue"].max()) * sampler.n_beta / sampler.localization
    step = sampler.step_size * sampler.localization / sampler.stability
    yield Check(
        "slope of the covariance on K / gamma / (1 - eps gamma / 4 a)",
        kernel.slope * sampler.localization * (1 - step / 4),
        low=1 / (1 + curvature) - 0.05,
        high=1 / (1 - curvature) + 0.05,
        why=f"curvature adds up to {curvature:.2f} to the localisation, of either sign; sampling and V 5 %",
    )
    pair = {"source": data.names[0], "query": data.names[1]}
    yield Plot(
        "Leave sample 0 out, loss of sample 1",
        "epoch",
        "loss difference",
        (
            *curves(other.epochs, retrained=other.retrained.sel(pair)),
            *curves(other.epochs, "dashes", closed_form=other.closed_leave_one_out.sel(pair)),
        ),
        zero=True,
    )


# A part of the settings of Figure 6, at one checkpoint in five, and the step alone on a finer line.
_SWEEP = SweepSettings(
    step_sizes=(1e-7, 1e-6, 1e-5, 1e-4),
    localizations=(1e-2, 1.0, 1e2, 1e4, 1e5),
    chains=(4,),
    draws=(200,),
    side_draws=500,
    every=5,
    processes=False,
)
_DOUBLINGS = range(-6, 3)


@claim(
    "sweep-of-the-sampler",
    "The correlation of Bayesian influence with leave-one-out changes smoothly with the hyper-parameters and is "
    "highest at "
    "strong localisation.",
    source="paper C.2, Fig. 6 (which letters were high and low is lost in print)",
    compares=(
        theory("correlation of the kernel's closed form with closed-form leave-one-out"),
        numerics("Algorithm 1 at up to 89 settings and 21 checkpoints"),
        retraining("leave-one-out"),
    ),
    metric="Pearson over pairs of different samples and checkpoints",
    cost=Cost.FULL,
)
def sweep_of_the_sampler(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Sweep inverse temperature, localisation and step on a grid, and the step on a finer line."""
    base = experiment.settings.sampler
    settings = replace(
        _SWEEP,
        decays=(base.decay,),
        stabilities=(base.stability,),
        side_step_sizes=tuple(base.step_size * 2.0**k for k in _DOUBLINGS),
        seed=experiment.settings.seed,
    )
    sweeps = leave_one_out_sweeps(experiment, settings)
    found = sweeps["correlation"].squeeze(["chains", "draws"])
    best = found.max(["step_size", "n_beta"])
    yield Check(
        "localisation of the highest correlation",
        float(best.idxmax()),
        low=settings.localizations[-2],
        why="one of the two strongest of the sweep",
    )
    yield Check(
        "highest correlation at the strongest localisation less that at the weakest",
        float(best[-1] - best[0]),
        low=0.0,
        why="strong localisation is the better",
    )
    jumps = np.abs(sweeps["side_correlation"].squeeze().diff("side_step_size"))
    yield Check(
        "largest change when the step doubles",
        float(jumps.max()),
        high=0.2,
        why="smooth on the scale of a doubling: a fifth of the largest correlation there can be",
    )
    kernel = agreement(without_self(-experiment.kernel), without_self(experiment.retrained)).pearson
    yield Check("correlation of the gradient kernel with leave-one-out", kernel)
    yield Check("highest correlation of the sweep", float(found.max()))
    yield Plot(
        "Correlation with leave-one-out",
        "localisation",
        "Pearson",
        (
            *(
                Series(f"n_beta = {n_beta:g}, best step", line["localization"].values, line.values, style="points")
                for n_beta, line in ((n, found.sel(n_beta=n).max("step_size")) for n in settings.n_betas)
            ),
            Series("gradient kernel", np.array([1e-2, 1e5]), np.array([kernel, kernel]), style="dashes"),
        ),
        log="x",
    )
