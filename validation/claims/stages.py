"""Claims about stages: influence changes sign and peaks in the order in which the tree is learned (paper 3)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from theory import leave_one_out_trajectory, tree_distance
from validation.agreement import agreement, without_self
from validation.charts import Plot, Series, curves
from validation.expectations import (
    delays,
    fit,
    flow_derivative,
    gaussian_limit,
    lag,
    late,
    lost_growth,
    root_mean_error,
    smooth,
    solved_kernel,
)
from validation.experiments.toy import GROUPS, ToyExperiment, group_means, harm_epochs
from validation.registry import CAUCHY, ORDER, Check, Reading, claim, numerics, retraining, theory

__all__: list[str] = []

_CLOSED = {
    "Bayesian influence": "Gaussian limit",
    "sample-weight formula": "derivative of the flow",
    "leave-one-out": "exact solution",
}
_EVERY = 4  # one checkpoint of so many has its exact Gaussian limit
_AVERAGE = "a fit averages modes and epochs"
_SIGNS = "a sign is claimed; sizes are held against closed forms elsewhere"


def _sign_and_order(name: str, influence: xr.DataArray, error: float, why: str) -> Iterator[Check]:
    """Check that dog first helps and then harms plants, birds and cat by more than `error`, and harms in that order."""
    prefix = f"{name}: " if name else ""
    for group, mean in group_means(influence).items():
        harm = int(mean.idxmax("epoch"))
        earliest = float(mean.sel(epoch=slice(None, harm)).min())
        bounds: tuple[tuple[str, float, dict[str, Any]], ...] = (
            ("help", earliest, {"high": -error}),
            ("harm", float(mean.max()), {"low": error}),
        )
        for word, value, bound in bounds:
            before = ", before the harm" if word == "help" else ""
            yield Check(f"{prefix}strongest {word} to {group}{before}", value, why=why, roomy=_SIGNS, **bound)
    yield _order_check(influence, name=name)


def _order_check(influence: xr.DataArray, source: str = "dog", name: str = "") -> Check:
    peaks = harm_epochs(influence, source)
    return Check(
        f"{f'{name}: ' if name else ''}smallest gap between the epochs of strongest harm, "
        f"{', '.join(f'{p:.0f}' for p in peaks)}",
        float(np.diff(peaks).min()),
        low=float(np.diff(influence["epoch"]).min()),
        why="in the order plants, birds, cat, by at least one checkpoint",
        roomy=ORDER,
    )


def _peak_checks(
    name: str, measured: xr.DataArray, expected: xr.DataArray, low: float, high: float, why: str
) -> Iterator[Check]:
    """Compare by how many epochs a trajectory follows another in each group, with every entry equally certain."""
    for group, mean in group_means(measured).items():
        line = group_means(expected)[group]
        epochs = mean["epoch"].values.astype(float)
        found = lag(smooth(line), epochs, mean.values, np.full(len(epochs), float(abs(mean).max())), reach=150.0)
        yield Check(
            f"{name}: {group} later than in closed form by (epochs)",
            found.value,
            low=low,
            high=high,
            why=why,
            roomy=_AVERAGE,
        )


def _group_plot(
    title: str, influence: xr.DataArray, error: xr.DataArray | None = None, label: str = "influence"
) -> Plot:
    bands = group_means(error) if error is not None else {}
    return Plot(
        title,
        "epoch",
        label,
        tuple(
            Series(name, mean["epoch"].values, mean.values, bands[name].values * 2 if bands else None)
            for name, mean in group_means(influence).items()
        ),
        marks=tuple((float(epoch), "") for epoch in harm_epochs(influence)),
        zero=True,
    )


@claim(
    "stages-loo",
    "Leave-one-out shows influence that is not monotonic: dog first helps and then harms plants, birds and cat, "
    "most in "
    "the order of the hierarchy.",
    source="paper 3, Fig. 3 right, Fig. 8",
    compares=(theory("closed-form leave-one-out"), retraining("leave-one-out")),
    metric="extrema and their epochs",
)
def stages_loo(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Check signs and peak order of leave-one-out, retrained and in closed form."""
    solved = experiment.closed_leave_one_out
    delay = experiment.delay
    error = delay * float(abs(solved.sel(source="dog").differentiate("epoch")).max())
    why = f"beyond the lateness of descent, {delay:.1f} epochs times the steepest change of the closed form"
    yield from _sign_and_order("", experiment.retrained, error, why)
    first, last = delays(experiment)
    why = f"descent is {first:.2f} to {last:.2f} epochs late, and 0.2 more or less along a rise"
    yield from _peak_checks("retrained", experiment.retrained, solved, first - 0.2, last + 0.2, why)
    yield _group_plot("Leave dog out", experiment.retrained, label="loss difference")


_P1, _P2 = (f"printed formula, A from Q_jk, B from {second}" for second in ("Q_jk", "Q_kj"))


@claim(
    "stages-analytic",
    "The analytic influence has the sign changes and the order of leave-one-out: it helps first and then harms plants, "
    "birds and cat, most in that order.",
    source="paper 3, Fig. 3 centre, Eqs. 57-59",
    compares=(
        theory("printed formula, both readings of Eq. 51"),
        theory("sample-weight formula"),
        retraining("central difference at weights 1 +- 1e-3"),
    ),
    metric="extrema and their epochs, for every measure and group",
)
def stages_analytic(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Check signs and peak order of the closed forms and of the retrained derivative."""
    overlap = 1 / experiment.settings.training.hidden
    for name, measure in (
        ("sample-weight formula", experiment.sample_weight),
        ("retrained derivative", experiment.retrained_derivative),
        (_P1, experiment.closed_form("paper-P1")),
        (_P2, experiment.closed_form("paper-P2")),
    ):
        error = overlap * float(abs(without_self(measure)).max())
        why = "beyond 1 / h of the largest influence, the share in which modes of random weights overlap"
        yield from _sign_and_order(name, measure, error, why)
    yield _group_plot("Sample-weight formula, source dog", experiment.sample_weight)


@claim(
    "stages-bif",
    "The Bayesian influence of dog on plants, birds and cat changes sign, helpful first, and harms most in the "
    "order of the hierarchy.",
    source="paper 3, Fig. 3 left, Fig. 4a",
    compares=(
        theory("signs of the kernel from mode strengths"),
        theory("Gaussian limit at the posterior's mode"),
        numerics("Algorithm 1 at 101 checkpoints"),
    ),
    metric="slope on the Gaussian limit in each stage; shift that fits the whole trajectory; chi-square of the fits",
)
def stages_bif(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Check signs, times and peak order of the Bayesian influence against the exact Gaussian limit."""
    bif = experiment.bayesian
    scale = experiment.settings.sampler.n_beta / len(experiment.dataset)
    spacing = float(np.diff(experiment.epochs).max())
    limit = gaussian_limit(experiment, _EVERY)
    kernels = group_means(experiment.kernel_from_modes)
    peaks = []
    for name, queries in GROUPS.items():
        measured = bif["covariance"].sel(source="dog", query=list(queries)).mean("query")
        error = measured.copy(data=root_mean_error(bif, "dog", list(queries)))
        line = limit.sel(source="dog", query=list(queries)).mean("query")
        for word, window in zip(("help", "harm"), _first_help_then_harm(kernels[name]), strict=True):
            at = line["epoch"].values[np.isin(line["epoch"].values, window)]
            shape, found = line.sel(epoch=at).values, measured.sel(epoch=at).values
            result = fit(shape, found, error.sel(epoch=at).values)
            sign = 1 if word == "help" else -1
            yield Check(
                f"{word} to {name}, epochs {window[0]:.0f} to {window[-1]:.0f}: mean of the Gaussian limit, over its "
                "largest",
                sign * float(shape.sum() / np.abs(shape).sum()),
                low=0.5,
                why="of one sign through most of the stage that the closed form's kernel names",
            )
            yield Check(
                f"{word} to {name}: slope of the sampled covariance on the limit",
                result.value,
                low=0.0,
                why="positive where it has the sign of the limit; standard error of the sampler",
                error=result.error,
                roomy=_SIGNS,
            )
        epochs = line["epoch"].values.astype(float)
        found, spread = (a.sel(epoch=epochs).values for a in (measured, error))
        moved = lag(smooth(line), epochs, found, spread, reach=1200.0)
        yield Check(
            f"{name}: later than the Gaussian limit by (epochs)",
            moved.value,
            low=-spacing,
            high=spacing,
            why="a checkpoint on either side",
            error=moved.error,
        )
        whole = fit(line.values, found, spread)
        yield Check(
            f"{name}: slope on the Gaussian limit over the whole of training",
            whole.value,
            low=0.7,
            high=1.3,
            why="1; a tenth for V and terms beyond second order, and a fifth tells a lost factor of two from none",
            error=whole.error,
        )
        yield Check(
            f"{name}: chi-square of the fit over its degrees of freedom",
            whole.chi_square / whole.freedom,
            low=1 - whole.spread,
            high=1.1 + whole.spread,
            why=f"1 with three standard deviations, {whole.spread:.2f}; errors by batch means are 5 % too small at "
            "blocks of "
            "31 draws, with 7 draws of autocorrelation",
            roomy="close to its mean by luck where it is",
        )
        fine = np.arange(experiment.epochs[0], experiment.epochs[-1])
        peaks.append(float(fine[int(np.argmin(smooth(line)(fine)))] + moved.value))
    yield Check(
        f"smallest gap between the epochs of strongest harm, {', '.join(f'{p:.0f}' for p in peaks)}",
        float(np.diff(peaks).min()),
        low=spacing,
        why="in the order plants, birds, cat, by at least one checkpoint; peaks of the limit, moved by the fitted "
        "shift",
        roomy=ORDER,
    )
    yield _group_plot("Bayesian influence of dog", bif["influence"], bif["standard_error"] * scale)


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


@claim(
    "instantaneous-influence-from-modes",
    "The instantaneous influence is a function of the mode strengths: the gradient kernel is (r_i . r_j) x_i V G "
    "V^T x_j.",
    source="paper 3 (influence is a function of mode strength), formula ours",
    compares=(theory("kernel from logistic mode strengths"), numerics("gradients of the trained network")),
    metric="Pearson and slope over pairs of different samples and epochs; epochs of the strongest harm",
)
def instantaneous_influence_from_modes(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the kernel of decoupled modes with that of the network."""
    predicted = experiment.kernel_from_modes
    first, last = delays(experiment)
    least, middle, most = (without_self(solved_kernel(experiment, d)) for d in (first, (first + last) / 2, last))
    expected = agreement(middle, without_self(predicted))
    exact = agreement(middle, without_self(experiment.kernel))
    result = agreement(without_self(experiment.kernel), without_self(predicted))
    yield Check(
        "1 - Pearson of the network with the exact solution, as late as descent",
        1 - exact.pearson,
        high=2 * (1 - agreement(least, most).pearson) + lost_growth(experiment) ** 2,
        why=f"modes are late by {first:.2f} to {last:.2f} epochs and grow slower by s / (2 tau)",
        roomy=CAUCHY,
    )
    yield Check(
        "slope of the network on it",
        exact.slope,
        low=1 - lost_growth(experiment),
        high=1 + lost_growth(experiment),
        why="rates lower by s / (2 tau)",
        roomy="a rate moves the kernel in time, and hardly changes its size",
    )
    yield Check(
        "1 - Pearson of modes and network / that of modes and exact solution",
        (1 - result.pearson) / (1 - expected.pearson),
        low=0.5,
        high=2.0,
        why=f"modes of random weights overlap, which costs {1 - expected.pearson:.1e}, as much as the lateness of "
        "descent",
    )
    yield Check(
        "slope of the network on modes less that of the exact solution",
        result.slope - expected.slope,
        low=-lost_growth(experiment),
        high=lost_growth(experiment),
        why="rates lower by s / (2 tau)",
        roomy="a rate moves the kernel in time, and hardly changes its size",
    )
    solved = solved_kernel(experiment)
    why = f"descent is {first:.2f} to {last:.2f} epochs late, and 0.2 more or less along a rise"
    yield from _peak_checks("network's kernel", -experiment.kernel, -solved, first - 0.2, last + 0.2, why)
    explained = (1 + 3 * np.sqrt(2)) / experiment.settings.training.hidden
    shift = explained * experiment.tau / (2 * float(experiment.modes.values.min()))
    yield from _peak_checks(
        "exact solution, against modes: kernel",
        -solved,
        -predicted,
        -shift,
        shift,
        f"an overlap in h dimensions squares to 1 / h, give or take 2^(1/2) / h: {explained:.3f} with three of these, "
        "by which ln g0 may change, times tau / (2 s)",
    )
    pair = {"source": "dog", "query": "cat"}
    yield Plot(
        "Instantaneous influence of dog on cat",
        "epoch",
        "-K",
        (
            *curves(experiment.epochs, trained_network=-experiment.kernel.sel(pair)),
            *curves(experiment.epochs, "dashes", from_modes=-predicted.sel(pair)),
        ),
        zero=True,
    )


@claim(
    "class-decides-sign",
    "While animals part from plants, dog helps the samples of its own class and harms those of the other; later, while "
    "mammals part from birds, it harms the birds it helped before.",
    source="paper 3 (change of influence reflects stagewise learning)",
    compares=(
        theory("sample-weight formula; kernel from modes"),
        numerics("Bayesian influence"),
        retraining("leave-one-out"),
    ),
    metric="influence of dog in two stages of the exact solution",
)
def class_decides_sign(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Average influence over the two stages in which the distinctions go from 5 % to 40 %."""
    learned = experiment.learned(experiment.solved_maps)
    stages = {}
    for k, name in ((1, "animals part from plants"), (2, "mammals part from birds")):
        stages[name] = (learned[:, k] >= 0.05) & (learned[:, k] <= 0.4)
    measures = {
        "Bayesian influence": experiment.bayesian["influence"],
        "sample-weight formula": experiment.sample_weight,
        "leave-one-out": experiment.retrained,
    }
    first, second = stages.values()
    limit = gaussian_limit(experiment, _EVERY)
    n_beta, n = experiment.settings.sampler.n_beta, len(experiment.dataset)
    expected = {
        "Bayesian influence": -n_beta / n * limit,
        "sample-weight formula": flow_derivative(experiment),
        "leave-one-out": experiment.closed_leave_one_out,
    }
    for name, influence in measures.items():
        means, closed = group_means(influence), group_means(expected[name])
        scale = float(abs(influence.sel(source="dog").drop_sel(query="dog")).max())
        for quantity, group, stage, sign in (
            ("on cat, first stage", "cat", first, -1),
            ("on plants, first stage", "plants", first, 1),
            ("on birds, second stage", "birds", second, 1),
        ):
            value, error = float(means[group].values[stage].mean()) / scale, 0.0
            if name == "Bayesian influence":
                each = root_mean_error(experiment.bayesian, "dog", list(GROUPS[group]))[stage] * n_beta / n / scale
                error = float(np.sqrt(np.square(each).sum()) / stage.sum())
            line = smooth(closed[group])(experiment.epochs[stage].astype(float)).mean() / scale
            size = float(abs(line))
            yield Check(
                f"{name} {quantity}, over its closed form",
                sign * value / size,
                low=0.7,
                high=1.3,
                why=f"the sign that the paper names, times the size of the {_CLOSED[name]}, {size:.3f} of the largest; "
                "decoupled modes and terms beyond second order change it by up to a tenth, a lost factor of two by a "
                "half",
                error=error / size,
                roomy="a sign is claimed",
            )
    yield _group_plot("Sample-weight formula, source dog", experiment.sample_weight)


_SIGN, _SIZE = "the same in sign", "the same in size"


@claim(
    "printed-same-early",
    "The influence of dog on cat might be the same as that on penguin early on; they are distinguished later.",
    source="paper 3 ('When' matters)",
    compares=(
        theory("kernel from modes; sample-weight formula"),
        numerics("gradient kernel, the local Bayesian influence without noise"),
        retraining("leave-one-out"),
    ),
    metric="ratio of the two influences when 2 % of the root mode is learned; signs later",
    corrected="of the same sign, but in the ratio of shared features, 3 : 2, from the start; the signs part when "
    "mammals part from birds",
    readings=(Reading(_SIGN, right=True), Reading(_SIZE)),
)
def printed_same_early(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the two influences before any distinction is learned, and their signs after."""
    learned = experiment.learned(experiment.solved_maps)
    start = int(np.argmax(learned[:, 0] >= 0.02))
    first = int(np.argmax(learned[:, 0] >= 1e-3))
    g = experiment.mode_strengths["closed form"].values[start]
    share = float(g[2:4].max() / g[0])
    later = learned[:, 2] <= 0.2
    overlap = experiment.settings.training.hidden**-0.5
    shown: dict[str, np.ndarray] = {}
    predictions = {"gradient kernel": "kernel from modes", "leave-one-out": "sample-weight formula"}
    for name, influence in (
        ("kernel from modes", -experiment.kernel_from_modes),
        ("sample-weight formula", experiment.sample_weight),
        ("gradient kernel", -experiment.kernel),
        ("leave-one-out", experiment.retrained),
    ):
        cat, penguin = (influence.sel(source="dog", query=query).values[1:] for query in ("cat", "penguin"))
        shown[name] = cat / penguin
        ratio = float(shown[name][start - 1])
        if name == "kernel from modes":
            low, high = 1.5 * (1 - 4 * share), 1.5 * (1 + 4 * share) + 0.05
            why = (
                "(r_dog . r_cat) / (r_dog . r_penguin) is 3 / 2 while nothing is learned; mammals | birds has "
                f"{share:.3f} of the root's strength, which counts four times; 2 % of the root add 0.02 to the ratio"
            )
        elif name in predictions:
            predicted = float(shown[predictions[name]][start - 1])
            low, high = max(1.1, predicted * (1 - overlap)), predicted * (1 + overlap)
            why = f"{predicted:.2f} by the {predictions[name]}, to the overlap h^(-1/2) of modes; and not 1"
        else:
            low, high, why = 1.1, 2.0, "of the same sign and not the same"
        yield Check(
            f"{name}: cat over penguin, epoch {experiment.epochs[start]:.0f}",
            ratio,
            low=low,
            high=high,
            why=why,
            reading=_SIZE,
            roomy="of four ways to the ratio this one is the closest",
        )
        yield Check(
            f"{name}: checkpoints of opposite sign up to then, from a thousandth of the root on",
            float((np.sign(cat[first : start + 1]) != np.sign(penguin[first : start + 1])).sum()),
            high=0.0,
            why="the signs do not part before; while the root is within the random weights there is none to speak of",
            reading=_SIGN,
        )
        yield Check(
            f"{name}: checkpoints of opposite sign while mammals begin to part from birds",
            float(((np.sign(cat) != np.sign(penguin)) & later[1:]).sum()),
            low=5.0,
            why="dog still helps cat and already harms penguin, through half of that stage of ten checkpoints or more",
        )
    shown_from = start // 2
    early = experiment.epochs[shown_from : start + 5]
    yield Plot(
        "Dog's influence on cat over that on penguin",
        "epoch",
        "ratio",
        tuple(Series(name, early, ratio[shown_from - 1 : start + 4]) for name, ratio in shown.items()),
        marks=((float(experiment.epochs[start]), "2 % of the root"),),
    )


@claim(
    "specific-to-the-pair",
    "Influence over time is specific to the pair: dog has one trajectory on cat, another on birds and another on "
    "plants, and "
    "the same on two queries that stand in the same relation to it.",
    source="paper 3 ('When' matters)",
    compares=(theory("closed-form leave-one-out"), retraining("leave-one-out")),
    metric="Pearson between trajectories of two queries",
)
def specific_to_the_pair(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Correlate trajectories of dog on pairs of queries, at one distance in the tree and at two."""
    solved = late(experiment, partial(_left_out, experiment))[1].sel(source="dog")
    rows = experiment.retrained.sel(source="dog")
    growth = lost_growth(experiment)
    for first, second in (
        ("cat", "sparrow"),
        ("cat", "pine"),
        ("sparrow", "pine"),
        ("sparrow", "penguin"),
        ("pine", "lily"),
    ):
        found, expected = (float(xr.corr(a.sel(query=first), a.sel(query=second), dim="epoch")) for a in (rows, solved))
        alike = tree_distance()[0][[experiment.dataset.index(q) for q in (first, second)]]
        low, high = expected - 2 * growth, expected + 2 * growth
        same = alike[0] == alike[1]
        yield Check(
            f"{first} and {second}, at {'the same distance' if same else 'different distances'} from dog: Pearson",
            found,
            low=max(low, 0.97) if same else low,
            high=high if same else min(high, 0.9),
            why=f"{expected:.3f} in closed form; descent grows slower by s / (2 tau) in either; "
            f"{'1' if same else 'below 0.9'} where trajectories {'do not depend' if same else 'depend'} on the query",
            roomy=CAUCHY,
        )
    yield Plot(
        "Leave dog out, over the largest difference",
        "epoch",
        "loss difference",
        tuple(
            Series(q, experiment.epochs, (rows.sel(query=q) / abs(rows.sel(query=q)).max()).values)
            for q in ("cat", "sparrow", "penguin", "pine", "lily")
        ),
        zero=True,
    )


def _left_out(experiment: ToyExperiment, epochs: np.ndarray) -> xr.DataArray:
    w1, w2 = experiment.initial_weights
    return leave_one_out_trajectory(experiment.dataset, epochs, tau=experiment.tau, w1=w1, w2=w2, sources=["dog"])


@claim(
    "other-sources",
    "Perturbing any other sample shows the same picture: each harms queries most in the order of their distance in the "
    "tree, the farthest first.",
    source="paper 3, C.2, Figs. 7-8",
    compares=(
        theory("sample-weight formula"),
        numerics("gradient kernel, the local Bayesian influence without noise"),
        retraining("leave-one-out"),
    ),
    metric="epochs of the strongest harm by distance in the tree, for every source",
)
def other_sources(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Find the peaks for all eight sources."""
    spacing = float(np.diff(experiment.epochs).max())
    lines = []
    for name, influence in (
        ("sample-weight formula", experiment.sample_weight),
        ("gradient kernel", -experiment.kernel),
        ("leave-one-out", experiment.retrained),
    ):
        peaks = np.array([_peaks_by_distance(influence, i) for i in range(len(experiment.dataset))])
        gaps = np.diff(peaks, axis=1)
        yield Check(
            f"{name}: smallest gap over all sources (epochs)",
            float(gaps.min()),
            low=spacing,
            why="in order, by at least one checkpoint",
            roomy=ORDER,
        )
        lines.append((name, peaks))
    yield Plot(
        "Epoch of the strongest harm",
        "distance in the tree",
        "epoch",
        tuple(
            Series(name, 3 - np.arange(3) + 0.08 * (k - 1), peaks.mean(axis=0), np.ptp(peaks, axis=0) / 2, "points")
            for k, (name, peaks) in enumerate(lines)
        ),
    )


def _peaks_by_distance(influence: xr.DataArray, source: int) -> list[float]:
    """Return the epochs of the strongest harm by one source, averaged over queries at one distance, farthest first."""
    distance = tree_distance()[source]
    rows = influence.isel(source=source)
    return [float(rows.isel(query=np.flatnonzero(distance == d)).mean("query").idxmax("epoch")) for d in (3, 2, 1)]


@claim(
    "bif-is-not-loo",
    "The Bayesian influence has the stages of leave-one-out but is not the same quantity: it is instantaneous, and "
    "correlates with leave-one-out as the gradient kernel does.",
    source="paper Figs. 3 and 6, ours",
    compares=(
        theory("Gaussian limit of the posterior; closed-form leave-one-out"),
        numerics("Bayesian influence"),
        retraining("leave-one-out"),
    ),
    metric="Pearson of the trajectories of plants, birds and cat",
)
def bif_is_not_loo(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Correlate Bayesian influence and leave-one-out for every group of queries, measured and predicted."""
    pearson = partial(xr.corr, dim="epoch")
    limit = gaussian_limit(experiment, _EVERY)
    at = {"epoch": limit["epoch"].values}
    sampled = group_means(experiment.bayesian["influence"].sel(at))
    retrained, solved = (group_means(a.sel(at)) for a in (experiment.retrained, experiment.closed_leave_one_out))
    exact = group_means(-limit)
    found, expected = [], []
    for name in GROUPS:
        found.append(float(pearson(sampled[name], retrained[name])))
        expected.append(float(pearson(exact[name], solved[name])))
        noise = float(pearson(sampled[name], exact[name]))
        yield Check(
            f"{name}: Pearson, sampled and retrained, minus the same of the closed forms times what noise leaves",
            found[-1] - noise * expected[-1],
            low=-0.3,
            high=0.3,
            why=f"sampling noise attenuates a correlation by that with the Gaussian limit, {noise:.2f}; noise of its "
            "own "
            "correlates with anything by the square root of its share over the number of checkpoints",
            error=float(np.sqrt((1 - noise**2) / len(at["epoch"]))),
            roomy="the correlation of cat is the best known of three",
        )
        yield Check(
            f"{name}: Pearson of the closed forms",
            expected[-1],
            high=0.9,
            why="equal quantities would give 1",
        )
    yield Plot(
        "Correlation with leave-one-out",
        "query",
        "Pearson",
        (
            Series("sampled, retrained", np.array(list(GROUPS)), np.array(found), style="bars"),
            Series("closed forms", np.array(list(GROUPS)), np.array(expected), style="points"),
        ),
    )
