"""Claims about leaving a sample out for a short while, and about when it matters that a sample is seen (paper C.5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from numerics import TrainingConfig, TrainingRun, train
from theory import brief_ablation_trajectory, exposure_kernel
from validation.agreement import agreement, without_self
from validation.bounds import decoupled_weights
from validation.charts import Plot, Series, curves
from validation.expectations import delays, lag, lost_growth, posterior_lead, root_mean_error, smooth, solved_kernel
from validation.experiments.exposure import exposure_influence
from validation.experiments.toy import GROUPS, ToyExperiment, group_means, harm_epochs
from validation.registry import (
    CAUCHY,
    ORDER,
    ROUNDING,
    WORST,
    Check,
    Cost,
    Reading,
    claim,
    numerics,
    retraining,
    theory,
)

__all__: list[str] = []


@claim(
    "brief-ablation-is-the-kernel",
    "Leaving a sample out briefly changes the summed loss by rate x D (D - 1) / 2 times the gradient kernel.",
    source="paper C.5, formula ours",
    compares=(
        theory("gradient kernel at the start of the window, constant over it"),
        numerics("gradients of the trained network"),
        retraining("windows of 100 epochs, one every 200"),
    ),
    metric="slope and Pearson over pairs and starts",
)
def brief_ablation_is_the_kernel(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the summed loss difference of brief ablation with the kernel at the start of the window."""
    settings = experiment.settings
    rate = 2 * settings.training.lr / experiment.dataset.targets.size
    predicted = -rate * settings.window * (settings.window - 1) / 2 * experiment.kernel
    result = agreement(without_self(predicted), without_self(experiment.briefly_ablated))
    drift = settings.window * experiment.modes.values[0] * 2 / experiment.tau
    why = (
        f"gradients change by 2 s D / tau = {drift:.2f} of themselves at most in the window, a third of that on average"
    )
    yield Check("slope", result.slope, low=1 - drift / 3, high=1 + drift / 3, why=why)
    yield Check(
        "1 - Pearson", 1 - result.pearson, high=(drift / 3) ** 2 / 2, why="half the square of that relative change"
    )
    pair = {"source": "dog", "query": "cat"}
    yield Plot(
        "Ablate dog for 100 epochs, loss of cat",
        "start of the window",
        "summed loss difference",
        (
            *curves(experiment.briefly_ablated["epoch"], "points", retrained=experiment.briefly_ablated.sel(pair)),
            *curves(experiment.epochs, kernel=predicted.sel(pair)),
        ),
        zero=True,
    )


@claim(
    "brief-ablation-closed-form",
    "The flow without the sample, started from the exact solution at every window, equals brief ablation by "
    "retraining.",
    source="ours",
    compares=(
        theory("matrix solution up to the window, then the flow in it, integrated by DOP853"),
        retraining("windows of 100 epochs"),
    ),
    metric="Pearson and slope over pairs and starts",
)
def brief_ablation_closed_form(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare every window's flow with its retraining."""
    window = experiment.settings.window
    solved = experiment.closed_brief_ablation
    starts = solved["epoch"].values
    line = smooth(solved)  # delays are a hundredth of the spacing of starts
    first, last = delays(experiment)
    least, middle, most = (solved.copy(data=line(starts - delay)) for delay in (first, (first + last) / 2, last))
    result = agreement(middle, experiment.briefly_ablated)
    yield Check(
        "1 - Pearson, closed form as late as descent",
        1 - result.pearson,
        high=2 * (1 - agreement(least, most).pearson) + lost_growth(experiment) ** 2,
        why=f"modes of descent are late by {first:.2f} to {last:.2f} epochs, in runs with and without the sample; "
        "rates "
        "lower by s / (2 tau)",
        roomy=CAUCHY,
    )
    yield Check(
        "slope, retraining on the closed form",
        result.slope,
        low=1 - lost_growth(experiment) - 1 / (4 * window),
        high=1 + lost_growth(experiment) + 1 / (4 * window),
        why="rates lower by s / (2 tau); an eighth of 2 / D, which a window one epoch longer or shorter would change",
        roomy="both runs of a window lose the same part of their rate",
    )
    pair = {"source": "dog", "query": "sparrow"}
    yield Plot(
        "Ablate dog for 100 epochs, loss of sparrow",
        "start of the window",
        "summed loss difference",
        (
            *curves(starts, "points", retrained=experiment.briefly_ablated.sel(pair)),
            *curves(starts, "dashes", closed_form=experiment.closed_brief_ablation.sel(pair)),
        ),
        zero=True,
    )


def _peak(line: xr.DataArray) -> float:
    """Return the epoch of the maximum of a cubic spline through a trajectory."""
    epochs = line["epoch"].values.astype(float)
    fine = np.arange(epochs[0], epochs[-1], 0.05)
    return float(fine[int(smooth(line)(fine).argmax())])


@claim(
    "critical-windows",
    "Leaving dog out briefly helps each query most when the Bayesian influence of dog on it peaks, and the more "
    "distant "
    "the query the earlier: plants, birds (sparrow), cat.",
    source="paper C.5, Fig. 11",
    compares=(
        theory("windows of the exact solution"),
        numerics("Bayesian influence at 101 checkpoints"),
        retraining("windows of 100 epochs"),
    ),
    metric="epochs of the strongest harm; shift that fits one trajectory to the other",
)
def critical_windows(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the epochs at which ablation helps most with the peaks of the sampled influence."""
    retrained = harm_epochs(experiment.briefly_ablated)
    spacing = float(np.diff(experiment.briefly_ablated["epoch"]).max())
    gap = float(np.diff(retrained).min())
    yield Check(
        "smallest gap between the critical windows (epochs)", gap, low=spacing, why="one start or more", roomy=ORDER
    )
    for name, measured, line in zip(
        GROUPS,
        group_means(experiment.briefly_ablated).values(),
        group_means(experiment.closed_brief_ablation).values(),
        strict=True,
    ):
        first, last = delays(experiment)
        apart = _peak(measured) - _peak(line)
        yield Check(
            f"{name}: critical window later than the exact solution's (epochs)",
            apart,
            low=first - 1,
            high=last + 1,
            why=f"descent is {first:.2f} to {last:.2f} epochs late; a cubic through the starts finds a peak to an "
            "epoch",
        )
    bayesian = experiment.bayesian
    window = experiment.settings.window
    # over a window the source acts at D / 3 on average, the query is read at 2 D / 3; the posterior is ahead
    expected = window / 2 - posterior_lead(experiment)
    ablated = group_means(experiment.briefly_ablated)
    shown = bayesian["epoch"].values <= float(experiment.briefly_ablated["epoch"].max())
    for name, queries in GROUPS.items():
        covariance = bayesian["covariance"].sel(source="dog", query=list(queries)).mean("query").values
        error = root_mean_error(bayesian, "dog", list(queries))
        epochs = bayesian["epoch"].values[shown].astype(float)
        found = lag(smooth(-ablated[name]), epochs, covariance[shown], error[shown], reach=1200.0)
        yield Check(
            f"{name}: Bayesian influence later than the critical window by (epochs)",
            found.value,
            low=expected - spacing / 2,
            high=expected + spacing / 2,
            why=f"{expected:.0f}: in a window the source acts at D / 3 and the query is read at 2 D / 3, and the "
            "posterior "
            f"is ahead of its checkpoint by n_beta O / (2 lr gamma) = {posterior_lead(experiment):.0f}; half the "
            "spacing "
            "of starts",
            error=found.error,
        )
    starts = experiment.briefly_ablated["epoch"]
    yield Plot(
        "Ablate dog for 100 epochs",
        "start of the window",
        "summed loss difference",
        curves(starts, **group_means(experiment.briefly_ablated)),
        marks=tuple((float(epoch), name) for epoch, name in zip(retrained, GROUPS, strict=True)),
        zero=True,
    )


_SIZES = (1e-3, 2e-4, 1e-4)
_STARTS = tuple(f"initial weights of size {sigma:g}" for sigma in _SIZES)


@claim(
    "printed-critical-epochs",
    "The integrated loss difference of cat is largest for windows around t = 6000 and most negative around t = 3000.",
    source="paper C.5, Fig. 11a",
    compares=(theory("windows of the exact solution, three sizes of the start"), retraining("windows of 100 epochs")),
    metric="epochs of the extrema",
    cost=Cost.FULL,
    corrected="about 4700 and 2100 with the initial weights of C.1, N(0, 1e-3^2), whatever the random start; 6000 and "
    "2600 "
    "with 2e-4, 6600 and 3000 with 1e-4: the printed epochs belong to a smaller start. The order is as printed",
    readings=tuple(Reading(name, right=sigma < 1e-3) for name, sigma in zip(_STARTS, _SIZES, strict=True)),
)
def printed_critical_epochs(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Find the extrema for several sizes of the initial weights, and from a second random start."""
    config, every = experiment.settings.training, float(experiment.settings.every)
    starts = np.arange(0.0, config.epochs - experiment.settings.window + 1, every)
    ends: dict[str, list[float]] = {"largest": [], "most negative": []}
    names = [*_STARTS, f"size {_SIZES[0]:g}, another seed"]
    for k, name in enumerate(names):
        sigma = _SIZES[k % len(_SIZES)]
        variant = experiment.variant(sigma=sigma, seed=config.seed + (k == len(_SIZES)))
        w1, w2 = variant.initial_weights
        line = brief_ablation_trajectory(
            experiment.dataset, starts, tau=experiment.tau, w1=w1, w2=w2, window=experiment.settings.window
        ).sel(source="dog", query="cat")
        for word, printed, place in (("largest", 6000, _peak(line)), ("most negative", 3000, _peak(-line))):
            ends[word].append(place)
            if k == len(_SIZES):
                yield Check(
                    f"{word}, another seed: distance from that of the first (epochs)",
                    abs(place - ends[word][0]),
                    high=every,
                    why="ln of the ratio of two random initial strengths times tau / (2 s), s = 1: two modes of fifty "
                    "hidden units differ by (2 / 50)^(1/2), a fifth of 600 epochs, in either of two layers",
                    roomy=WORST,
                )
                continue
            right = sigma < 1e-3
            near = 500.0 + every
            yield Check(
                f"{name}: {word}, distance from {printed} (epochs)",
                abs(place - printed),
                low=-np.inf if right else near,
                high=near if right else np.inf,
                why=f"{printed} is printed in thousands, give or take 500, and windows are {every:.0f} apart",
                reading=name,
                roomy="one of the two sizes meets each printed epoch, neither both",
            )
    measured = experiment.briefly_ablated.sel(source="dog", query="cat")
    first, last = delays(experiment)
    yield Check(
        "retrained maximum later than the exact solution's (epochs)",
        _peak(measured) - ends["largest"][0],
        low=first - 1,
        high=last + 1,
        why=f"descent is {first:.2f} to {last:.2f} epochs late; a cubic through the starts finds a peak to an epoch",
        reading=_STARTS[0],
    )
    labels = np.array([f"{sigma:g}" for sigma in _SIZES] + ["another\nseed"])
    yield Plot(
        "Extrema of the window for cat",
        "size of the initial weights",
        "epoch",
        (
            Series("strongest harm", labels, np.array(ends["largest"]), style="points"),
            Series("strongest help", labels, np.array(ends["most negative"]), style="points"),
            Series("", labels[[0, -1]], np.array([6000.0, 6000.0]), style="dashes", colour=0),
            Series("", labels[[0, -1]], np.array([3000.0, 3000.0]), style="dashes", colour=1),
        ),
    )


_PEAKS = {
    "leave-one-out, initial weights 1e-3": False,
    "leave-one-out, initial weights 2e-4": True,
    "leave-one-out, initial weights 1e-4": False,
    "gradient kernel, initial weights 1e-3": False,
    "gradient kernel, initial weights 2e-4": True,
    "gradient kernel, initial weights 1e-4": True,
}


@claim(
    "dog-on-cat-peaks",
    "The influence of dog on cat peaks around t = 6000 and is most negative around t = 3000.",
    source="paper C.5 (the influence of dog on cat makes a peak)",
    compares=(
        theory("closed-form leave-one-out, and kernel of the exact solution, for several sizes of the start"),
        numerics("gradient kernel of the trained network, the local Bayesian influence without noise"),
        retraining("leave-one-out"),
    ),
    metric="epochs of the extrema of the influence itself",
    corrected="with the initial weights of C.1 leave-one-out peaks at about 5200 and the Bayesian influence, which is "
    "the "
    "kernel 30 epochs on, at about 4600; with weights a fifth of that size leave-one-out, and with a fifth to a tenth "
    "the kernel, "
    "has its extrema near the printed epochs",
    readings=tuple(Reading(name, right=right) for name, right in _PEAKS.items()),
)
def dog_on_cat_peaks(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Find the extrema of leave-one-out and of the kernel for several sizes of the initial weights."""
    pair = {"source": "dog", "query": "cat"}
    near = 500.0 + experiment.settings.every
    shown: dict[str, xr.DataArray] = {}
    for reading, right in _PEAKS.items():
        name, sigma = reading.split(", initial weights ")
        variant = experiment.variant(sigma=float(sigma))
        measure = variant.closed_leave_one_out if name == "leave-one-out" else -solved_kernel(variant)
        shown[reading] = line = measure.sel(pair)
        apart = max(abs(_peak(line) - 6000), abs(_peak(-line) - 3000))
        yield Check(
            f"{reading}: larger distance of the extrema, {_peak(line):.0f} and {_peak(-line):.0f}, from 6000 and 3000 "
            "(epochs)",
            apart,
            low=-np.inf if right else near,
            high=near if right else np.inf,
            why=f"epochs printed in thousands, give or take 500, and windows {experiment.settings.every} apart",
            reading=reading,
        )
    first, last = delays(experiment)
    for name, measured, solved in (
        ("leave-one-out, retrained", experiment.retrained, shown["leave-one-out, initial weights 1e-3"]),
        ("gradient kernel of the network", -experiment.kernel, shown["gradient kernel, initial weights 1e-3"]),
    ):
        yield Check(
            f"{name}: peak later than in closed form (epochs)",
            _peak(measured.sel(pair)) - _peak(solved),
            low=first - 1,
            high=last + 1,
            why=f"descent is {first:.2f} to {last:.2f} epochs late; a cubic through the checkpoints finds a peak to "
            "an epoch",
            roomy="the cubic finds it better",
        )
    yield Plot(
        "Dog on cat, over the largest",
        "epoch",
        "influence",
        tuple(Series(name, line["epoch"].values, (line / abs(line).max()).values) for name, line in shown.items()),
        marks=((3000.0, ""), (6000.0, "printed")),
        zero=True,
    )


@claim(
    "when-matters",
    "The same sample helps or harms depending on when it is seen: what seeing dog at time u does to a later loss "
    "changes "
    "its sign with u, and adds up over u to the influence of dog's weight.",
    source="paper 3 ('When' matters), kernel ours",
    compares=(
        theory("exposure kernel"),
        theory("sample-weight formula"),
        retraining("dog left out for 20 epochs at u, trained on to t"),
    ),
    metric="relative difference of the integral; Pearson and slope over u; extrema over u",
)
def when_matters(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Integrate the exposure kernel over exposure times, look at its signs, and leave dog out at several times."""
    data, tau, modes = experiment.dataset, experiment.tau, experiment.modes
    epochs = np.array([2500.0, 3500.0])
    nodes, weights = np.polynomial.legendre.leggauss(60)
    worst = 0.0
    for t in epochs:
        kernel = exposure_kernel(data, [t], t * (1 + nodes) / 2, tau=tau, g0=modes).values[:, 0]
        direct = experiment.sample_weight.sel(epoch=t).values
        summed = np.einsum("u,uij->ij", weights * t / 2, kernel)
        worst = max(worst, float(np.abs(summed - direct).max() / np.abs(direct).max()))
    yield Check(
        "largest difference of the integral from the formula, relative",
        worst,
        high=1e-11,
        roomy=ROUNDING,
        why="60-point Gauss-Legendre on exponentials of rate 2 s t / tau <= 23 leaves less than rounding, which is "
        "1e-16 "
        "times the growth e^12 of a mode",
    )
    times = np.arange(100.0, epochs[-1] - 100, 200.0)
    line = exposure_kernel(data, epochs, times, tau=tau, g0=modes).sel(source="dog", query="sparrow").values.T
    start, window = decoupled_weights(experiment), 20
    found = np.array([_left_out_at(experiment, start, float(u), float(epochs[1]), window) for u in times])
    # Leaving dog out for D epochs changes the exponent 2 s t / tau of a mode by 2 s D / tau times dog's share of it, a
    # half at most; half of that is what the derivative leaves out. Descent is an epoch late: 2 s / tau.
    left_out = float(modes.values.max()) * (window / 2 + 2) / tau
    why = f"half of the change of a mode's exponent over the window, and descent's epoch of delay: {left_out:.3f}"
    for word, sign in (("help", -1), ("harm", 1)):
        share = float((sign * line[1]).max() / np.abs(line[1]).max())
        yield Check(
            f"strongest {word} of seeing dog, on sparrow at t = {epochs[1]:.0f}, retrained, over the strongest effect",
            float((sign * found).max() / np.abs(found).max()),
            low=share - left_out,
            high=share + left_out,
            why=f"{share:.2f} by the closed form, so both signs; {why}",
            roomy="a common factor cancels in the ratio",
        )
    yield Check(
        "retrained from decoupled weights: Pearson with the kernel over u",
        float(np.corrcoef(found, line[1])[0, 1]),
        low=1 - left_out**2,
        why=f"half the square of {left_out:.3f}, twice",
        roomy=WORST,
    )
    yield Check(
        "retrained from decoupled weights: slope on the kernel",
        float(found @ line[1] / (line[1] @ line[1])),
        low=1 - left_out,
        high=1 + left_out,
        why=why,
        roomy=WORST,
    )
    overlap = 1 / np.sqrt(experiment.settings.training.hidden)
    coupled = np.array(
        [_left_out_at(experiment, experiment.initial_weights, float(u), float(epochs[1]), window) for u in times]
    )
    yield Check(
        "retrained from the random weights of the run: Pearson with the kernel over u",
        float(np.corrcoef(coupled, line[1])[0, 1]),
        low=1 - overlap**2,
        why=f"modes overlap by h^(-1/2) = {overlap:.2f} of their size in random weights; half its square, twice",
        roomy=WORST,
    )
    yield Plot(
        "Seeing dog at time u, loss of sparrow at time t",
        "u",
        "influence per epoch",
        (
            *(
                Series(f"kernel, t = {t:.0f}", times[times < t], v[times < t])
                for t, v in zip(epochs, line, strict=True)
            ),
            Series(f"retrained, t = {epochs[1]:.0f}", times, found, style="points", colour=1),
        ),
        zero=True,
    )


def _left_out_at(
    experiment: ToyExperiment, initial: tuple[np.ndarray, np.ndarray], start: float, end: float, window: int
) -> float:
    """Return the change of sparrow's loss at `end` per epoch that dog is seen around `start`, by leaving it out."""
    data, config = experiment.dataset, experiment.settings.training
    dog, sparrow = data.index("dog"), data.index("sparrow")
    w1, w2 = initial
    run = train(data, _stretch(config, start - window / 2), w1=w1, w2=w2)
    losses = []
    for weight in (1.0, 0.0):
        weights = np.ones(len(data))
        weights[dog] = weight
        without = train(data, _stretch(config, window), weights=weights, **_last(run))
        rest = train(data, _stretch(config, end - start - window / 2), **_last(without))
        losses.append(float(rest.losses.values[-1, sparrow]))
    return (losses[0] - losses[1]) / window


def _stretch(config: TrainingConfig, epochs: float) -> TrainingConfig:
    return replace(config, epochs=round(epochs), checkpoint_every=round(epochs))


def _last(run: TrainingRun) -> dict[str, Any]:
    return {"w1": run.checkpoints.w1[-1].numpy(), "w2": run.checkpoints.w2[-1].numpy()}


@claim(
    "exposure-kernel-of-descent",
    "The kernel in closed form is the derivative of the run with respect to the weight at each epoch alone.",
    source="ours (empirical twin of the exposure kernel)",
    compares=(theory("exposure kernel"), numerics("derivative of descent, resolved by 100 epochs of exposure")),
    metric="Pearson and slope over exposures, epochs and pairs of different samples",
)
def exposure_kernel_of_descent(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the kernel, averaged over stretches of exposure, with the unrolled derivative."""
    both = exposure_influence(experiment, until=4500, every=1500).isel(epoch=slice(1, None))
    middles, epochs = both["exposure"].values, both["epoch"].values
    unequal = ~np.eye(len(experiment.dataset), dtype=bool)
    parts, kernel = (
        both[name].transpose("exposure", "epoch", "source", "query") for name in ("unrolled", "closed_form")
    )
    found, predicted = parts.values[..., unequal], kernel.values[..., unequal]
    overlap = experiment.settings.training.hidden**-0.5
    yield Check(
        "1 - Pearson",
        1 - float(np.corrcoef(found.ravel(), predicted.ravel())[0, 1]),
        high=overlap**2 / 2,
        why=f"modes overlap by h^(-1/2) = {overlap:.2f} of their size in random weights; half its square",
    )
    yield Check(
        "slope",
        float((found * predicted).sum() / np.square(predicted).sum()),
        low=1 - overlap**2,
        high=1 + overlap**2,
        why="overlaps have either sign in the 56 pairs, so that their square is left",
    )
    dog, sparrow = (experiment.dataset.index(name) for name in ("dog", "sparrow"))
    yield Plot(
        "Seeing dog at time u, loss of sparrow at time t",
        "u",
        "influence per epoch",
        tuple(
            Series(
                f"{name}, t = {t:.0f}",
                middles[middles < t],
                table[:, k, dog, sparrow][middles < t],
                style=style,
                colour=k,
            )
            for k, t in enumerate(epochs)
            for name, table, style in (
                ("descent", parts.values, "line"),
                ("kernel", kernel.values, "dashes"),
            )
        ),
        zero=True,
    )
