"""Claims about stages: influence changes sign and peaks in the order in which the tree is learned (paper 3)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import xarray as xr

from theory import tree_distance
from validation.agreement import agreement, without_self
from validation.charts import Plot, Series, curves
from validation.experiments.toy import GROUPS, ToyExperiment, group_means, harm_epochs
from validation.registry import Check, claim, numerics, retraining, theory

__all__: list[str] = []


def _sign_and_order(influence: xr.DataArray, error: float, why: str) -> Iterator[Check]:
    """Check that dog first helps and then harms plants, birds and cat by more than `error`, and harms in that order."""
    for name, mean in group_means(influence).items():
        harm = int(mean.idxmax("epoch"))
        earliest = float(mean.sel(epoch=slice(None, harm)).min())
        yield Check(f"strongest help to {name}, before the harm", earliest, high=-error, why=why)
        yield Check(f"strongest harm to {name}", float(mean.max()), low=error, why=why)
    yield _order_check(influence)


def _order_check(influence: xr.DataArray, source: str = "dog") -> Check:
    peaks = harm_epochs(influence, source)
    return Check(
        f"smallest gap between the epochs of strongest harm, {', '.join(f'{p:.0f}' for p in peaks)}",
        float(np.diff(peaks).min()),
        low=float(np.diff(influence["epoch"]).min()),
        why="in the order plants, birds, cat, by at least one checkpoint",
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
    solved = experiment.closed_leave_one_out.sel(source="dog")
    delay = experiment.delay
    error = delay * float(abs(solved.differentiate("epoch")).max())
    why = f"beyond the lateness of descent, {delay:.1f} epochs times the steepest change of the closed form"
    yield from _sign_and_order(experiment.retrained, error, why)
    difference = np.abs(harm_epochs(experiment.retrained) - harm_epochs(experiment.closed_leave_one_out)).max()
    yield Check(
        "largest distance of the closed form's peaks (epochs)",
        float(difference),
        high=float(np.diff(experiment.epochs).max()),
        why="the spacing of checkpoints",
    )
    yield _group_plot("Leave dog out", experiment.retrained, label="loss difference")


@claim(
    "stages-analytic",
    "The analytic influence, as printed and in its exact forms, has the same sign changes and the same order.",
    source="paper 3, Fig. 3 centre, Eqs. 57-59",
    compares=(
        theory("printed formula, both readings"),
        theory("sample-weight formula"),
        retraining("central difference at weights 1 +- 1e-3"),
    ),
    metric="extrema and their epochs",
)
def stages_analytic(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Check signs and peak order of the closed forms and of the retrained derivative."""
    overlap = 1 / experiment.settings.training.hidden
    error = overlap * float(abs(without_self(experiment.sample_weight)).max())
    why = "beyond 1 / h of the largest influence, the share in which modes of random weights overlap"
    yield from _sign_and_order(experiment.sample_weight, error, why)
    for name, measure in (
        ("retrained derivative", experiment.retrained_derivative),
        ("printed, reading P1", experiment.closed_form("paper-P1")),
        ("printed, reading P2", experiment.closed_form("paper-P2")),
    ):
        check = _order_check(measure)
        yield Check(f"{name}: {check.quantity}", check.measured, low=check.low, why=check.why)
    yield _group_plot("Sample-weight formula, source dog", experiment.sample_weight)


@claim(
    "stages-bif",
    "The Bayesian influence of dog on plants, birds and cat changes sign, helpful first, and harms most in the "
    "order of "
    "the hierarchy.",
    source="paper 3, Fig. 3 left, Fig. 4a",
    compares=(theory("signs of the kernel from mode strengths"), numerics("Algorithm 1 at 101 checkpoints")),
    metric="slope on the exact kernel in each stage; epochs of the strongest harm",
)
def stages_bif(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Check signs and peak order of the Bayesian influence."""
    bif = experiment.bayesian
    scale = experiment.settings.sampler.n_beta / len(experiment.dataset)
    influence, error = group_means(bif["influence"]), group_means(bif["standard_error"] * scale)
    for name, kernel in group_means(experiment.kernel_from_modes).items():
        for word, window in zip(("help", "harm"), _first_help_then_harm(kernel), strict=True):
            measured = influence[name].sel(epoch=window)
            shape = -kernel.sel(epoch=window)
            slope, spread = _slope(shape, measured, error[name].sel(epoch=window))
            yield Check(
                f"{word} to {name}, epochs {int(window[0])} to {int(window[-1])}: slope on the kernel, times gamma N / "
                "n_beta",
                slope * experiment.settings.sampler.localization / scale,
                low=0.0,
                why=f"positive where the sampled influence {word}s as the closed form's kernel says",
                error=spread * experiment.settings.sampler.localization / scale,
            )
    yield _order_check(bif["influence"])
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


def _slope(shape: xr.DataArray, measured: xr.DataArray, error: xr.DataArray) -> tuple[float, float]:
    """Return the weighted least-squares slope of `measured` on `shape` and its standard error.

    Weights are the inverse squares of `error`, whose overall scale is estimated from the residuals.
    """
    weights = 1 / np.square(error)
    slope = float((weights * shape * measured).sum() / (weights * shape**2).sum())
    scale = float((weights * np.square(measured - slope * shape)).sum()) / (len(shape) - 1)
    return slope, float(np.sqrt(scale / float((weights * shape**2).sum())))


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
    result = agreement(without_self(experiment.kernel), without_self(predicted))
    overlap = experiment.settings.training.hidden**-0.5
    yield Check(
        "1 - Pearson",
        1 - result.pearson,
        high=overlap**2,
        why=f"modes overlap by h^(-1/2) = {overlap:.2f} of their size in random weights; half its square, in both "
        "factors",
    )
    yield Check("slope", result.slope, low=1 - overlap, high=1 + overlap, why="the same overlap at first order")
    yield Check(
        "largest distance of the peaks, dog on plants, birds, cat (epochs)",
        float(np.abs(harm_epochs(-experiment.kernel) - harm_epochs(-predicted)).max()),
        high=2 * float(np.diff(experiment.epochs).max()),
        why="a checkpoint on either side",
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
    why = "the sign that the paper names"
    first, second = stages.values()
    for name, influence in measures.items():
        means = group_means(influence)
        scale = float(abs(influence.sel(source="dog").drop_sel(query="dog")).max())
        error = 0.0
        if name == "Bayesian influence":
            n_beta = experiment.settings.sampler.n_beta
            spread = experiment.bayesian["standard_error"].sel(source="dog") * n_beta / len(experiment.dataset)
            error = float(spread.max()) / np.sqrt(min(first.sum(), second.sum())) / scale
        for quantity, group, stage, sign in (
            ("on cat, first stage", "cat", first, -1),
            ("on plants, first stage", "plants", first, 1),
            ("on birds, second stage", "birds", second, 1),
        ):
            value = float(means[group].values[stage].mean()) / scale
            bounds = {"high": 0.0} if sign < 0 else {"low": 0.0}
            yield Check(f"{name} {quantity}", value, why=why, error=error, **bounds)
    yield _group_plot("Sample-weight formula, source dog", experiment.sample_weight)


@claim(
    "printed-same-early",
    "The influence of dog on cat is the same as that on penguin early on.",
    source="paper 3 ('When' matters)",
    compares=(
        theory("kernel from modes; sample-weight formula"),
        numerics("gradient kernel, the local Bayesian influence without noise"),
        retraining("leave-one-out"),
    ),
    metric="ratio of the two influences when 2 % of the root mode is learned; signs later",
    corrected="of the same sign, but in the ratio of shared features, 3 : 2, from the start; the signs part when "
    "mammals "
    "part from birds",
)
def printed_same_early(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the two influences before any distinction is learned, and their signs after."""
    learned = experiment.learned(experiment.solved_maps)
    start = int(np.argmax(learned[:, 0] >= 0.02))
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
            f"{name}: cat over penguin, epoch {experiment.epochs[start]:.0f}", ratio, low=low, high=high, why=why
        )
        yield Check(
            f"{name}: checkpoints of opposite sign while mammals begin to part from birds",
            float(((np.sign(cat) != np.sign(penguin)) & later[1:]).sum()),
            low=2.0,
            why="dog still helps cat and already harms penguin; more than one checkpoint",
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
        theory("kernel from modes; closed-form leave-one-out"),
        numerics("Bayesian influence"),
        retraining("leave-one-out"),
    ),
    metric="Pearson of the trajectories of plants, birds and cat",
)
def bif_is_not_loo(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Correlate Bayesian influence and leave-one-out for every group of queries, measured and predicted."""
    pearson = partial(xr.corr, dim="epoch")
    sampled, retrained = group_means(experiment.bayesian["influence"]), group_means(experiment.retrained)
    kernel, solved = group_means(-experiment.kernel_from_modes), group_means(experiment.closed_leave_one_out)
    found, expected = [], []
    for name in GROUPS:
        found.append(float(pearson(sampled[name], retrained[name])))
        expected.append(float(pearson(kernel[name], solved[name])))
        noise = float(pearson(sampled[name], kernel[name]))
        yield Check(
            f"{name}: Pearson, sampled and retrained, minus the same of the closed forms over attenuation",
            found[-1] / noise - expected[-1],
            low=-0.15,
            high=0.15,
            why=f"sampling noise attenuates a correlation by that with the noiseless kernel, {noise:.2f}; modes "
            "overlap by "
            "h^(-1/2) = 0.14",
        )
        yield Check(f"{name}: Pearson of the closed forms", expected[-1], high=0.9, why="equal quantities would give 1")
    yield Plot(
        "Correlation with leave-one-out",
        "query",
        "Pearson",
        (
            Series("sampled, retrained", np.array(list(GROUPS)), np.array(found), style="bars"),
            Series("closed forms", np.array(list(GROUPS)), np.array(expected), style="points"),
        ),
    )
