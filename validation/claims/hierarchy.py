"""Claims about the hierarchy: when each level is learned, and what that has to do with the peaks (paper 3, Fig. 4)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from numerics import branching_epochs, representation_embedding
from theory import half_rise_time
from validation.charts import Plot, Series
from validation.expectations import delays, flow_derivative, gaussian_limit, lag, root_mean_error, smooth
from validation.experiments.toy import BRANCHES, GROUPS, ToyExperiment, branch_contrast, group_means, harm_epochs
from validation.registry import ORDER, REFUTES, Check, Reading, claim, numerics, retraining, theory

__all__: list[str] = []

_OTHERS = (("pine", 4), ("sparrow", 2), ("cat", 1))  # one item at each distance from dog, and its row


def _crossing(epochs: np.ndarray, rising: np.ndarray, level: float) -> float:
    """Return the first epoch at which a rising line reaches a level, linear between checkpoints."""
    k = int(np.argmax(rising >= level))
    part = (level - rising[k - 1]) / (rising[k] - rising[k - 1])
    return float(epochs[k - 1] + part * (epochs[k] - epochs[k - 1]))


@claim(
    "levels-in-order",
    "The network learns broad distinctions before fine ones: animals and plants, then mammals and birds, then dog "
    "and cat.",
    source="paper 3 (setup), Fig. 2c, C.6",
    compares=(theory("exact matrix solution and half-rise times"), numerics("the trained network's map")),
    metric="epochs at which half of each distinction is learned",
)
def levels_in_order(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the epochs at which half of each distinction on dog's path is learned."""
    epochs = experiment.epochs
    trained, solved = (
        experiment.learned(maps) for maps in (experiment.checkpoints.maps.numpy(), experiment.solved_maps)
    )
    halves = np.array([[_crossing(epochs, line, 0.5) for line in shares.T] for shares in (trained, solved)])
    spacing = float(np.diff(epochs).max())
    first, last = delays(experiment)
    for name, late in zip(("all items", *BRANCHES), halves[0] - halves[1], strict=True):
        yield Check(
            f"{name}: half-way epoch of the trained network less the exact one",
            float(late),
            low=first - 0.2,
            high=last + 0.2,
            why=f"descent is {first:.2f} to {last:.2f} epochs late, 0.2 more or less for interpolation: both lines "
            "are cut "
            "alike",
            roomy="a distinction mixes modes, whose delays average",
        )
    yield Check(
        "smallest gap between half-way epochs",
        float(np.diff(halves[0]).min()),
        low=spacing,
        why="in order",
        roomy=ORDER,
    )
    s = np.unique(experiment.modes.values)[::-1]
    predicted = half_rise_time(s, experiment.mean_strength, experiment.tau)
    strengths = experiment.modes.initial_strengths
    widest = float(np.log(strengths.max() / strengths.min()))
    yield Check(
        "largest distance from tau / (2 s) ln(s / g0 - 1), mean g0, in units of tau / (2 s)",
        float((np.abs(halves[0] - predicted) * 2 * s / experiment.tau).max()),
        high=widest / 2,
        why=f"initial strengths differ by e^{widest:.1f} from weakest to strongest, so by half of that from their mean",
    )
    yield Plot(
        "Learned share of each distinction",
        "epoch",
        "share",
        tuple(
            Series(name, epochs, line, colour=k)
            for k, (name, line) in enumerate(zip(("all items", *BRANCHES), trained.T, strict=True))
        ),
        marks=tuple((float(epoch), "") for epoch in predicted),
    )


@claim(
    "peaks-mark-levels",
    "Peaks of influence mark developmental transitions: dog harms a query most when the previous distinction has been "
    "half learned and the one between them has not.",
    source="paper 3 (peaks occur when the model begins learning a new level), Fig. 4",
    compares=(
        theory("half-way epochs of the exact matrix solution; sample-weight formula"),
        numerics("Bayesian influence"),
        retraining("leave-one-out"),
    ),
    metric="learned share of the previous and of the next distinction at the peak",
)
def peaks_mark_levels(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Look up how much of each distinction has been learned at every peak."""
    learned = experiment.learned(experiment.solved_maps)
    measures = {
        "Bayesian influence": experiment.bayesian["influence"],
        "sample-weight formula": experiment.sample_weight,
        "leave-one-out": experiment.retrained,
    }
    epochs = experiment.epochs
    lines = []
    for name, influence in measures.items():
        peaks = harm_epochs(influence)
        before = [float(np.interp(peak, epochs, learned[:, k])) for k, peak in enumerate(peaks)]
        begun = [float(np.interp(peak, epochs, learned[:, k + 1])) for k, peak in enumerate(peaks)]
        yield Check(f"{name}: previous distinction, least learned share", min(before), low=0.5, why="more than half")
        yield Check(f"{name}: next distinction, most learned share", max(begun), high=0.5, why="less than half")
        lines.append((name, peaks, begun))
    yield Plot(
        "Learned share of the new distinction at the peak",
        "epoch of the peak",
        "share",
        (
            *(Series(name, peaks, np.array(begun), style="points") for name, peaks, begun in lines),
            *(Series("", epochs, learned[:, k + 1], colour=6) for k in range(3)),
        ),
    )


_SAME, _WITHIN = "at the same epoch, give or take two checkpoints", "in the stage in which the branch forms"


@claim(
    "highest-at-the-transition",
    "While mammals part from birds the influence between them is the highest.",
    source="paper 3 (that is, at the transition ...)",
    compares=(
        theory("exact matrix solution: when a distinction is learned; derivative of the flow"),
        numerics("gradient kernel, the local Bayesian influence without noise"),
        retraining("leave-one-out"),
    ),
    metric="epoch of the largest influence of dog on birds, with its sign and without",
    corrected="the strongest harm falls there, by every measure; the strongest influence of either sign is the help "
    "before",
    readings=(Reading("the strongest harm", right=True), Reading("the strongest influence of either sign")),
)
def highest_at_the_transition(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Find the largest influence of dog on birds and what the network has learned by then."""
    epochs = experiment.epochs
    learned = experiment.learned(experiment.solved_maps)
    lines = {
        "gradient kernel": -group_means(experiment.kernel)["birds"],
        "derivative of the flow": group_means(flow_derivative(experiment))["birds"],
        "leave-one-out": group_means(experiment.retrained)["birds"],
    }
    for name, line in lines.items():
        peak = float(line.idxmax("epoch"))
        for k, what, low, high in ((1, "animal | plant", 0.5, 1.0), (2, "mammal | bird", 0.0, 0.5)):
            yield Check(
                f"{name}: share of {what} learned at the strongest harm",
                float(np.interp(peak, epochs, learned[:, k])),
                low=low,
                high=high,
                why="more than half of the distinction before, and less of this one: it is being learned",
                reading="the strongest harm",
            )
        strongest = float(abs(line).idxmax("epoch"))
        if name != "gradient kernel":
            yield Check(
                f"{name}: strongest help over strongest harm",
                float(-line.min() / line.max()),
                low=1.0,
                why=f"the largest influence of either sign is a help, at epoch {strongest:.0f}",
                reading="the strongest influence of either sign",
            )
    yield Plot(
        "Influence of dog on birds, over its largest",
        "epoch",
        "share",
        tuple(Series(name, epochs, line.values / float(abs(line).max())) for name, line in lines.items()),
        zero=True,
    )


@claim(
    "branches-and-peaks",
    "The peaks in influence match the branching points of the multidimensional scaling of hidden representations.",
    source="paper 3, Fig. 4b",
    compares=(
        theory("g_k(t) (v_k . difference)^2 of the exact solution"),
        numerics("hidden representations of the trained network"),
        numerics("peaks of the Bayesian influence, by its Gaussian limit and the shift that fits the sampled one"),
    ),
    metric="branching epochs; distance of each peak from its branch",
    corrected="each peak falls after the branch before is half formed and before its own is, in the order of the "
    "branches; "
    "it leads the half formed branch by 470 to 1750 epochs, and misses the tenth formed one by up to 430",
    readings=(Reading(_WITHIN, right=True), Reading(_SAME)),
)
def branches_and_peaks(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare branching epochs of hidden representations with the peaks of influence."""
    half = branching_epochs(experiment.dataset, experiment.checkpoints, BRANCHES).values
    tenth = branching_epochs(experiment.dataset, experiment.checkpoints, BRANCHES, fraction=0.1).values
    solved = experiment.learned(experiment.solved_maps)[:, 1:]
    spacing = float(np.diff(experiment.epochs).max())
    predicted = np.array([_crossing(experiment.epochs, line, 0.5) for line in solved.T])
    overlap = experiment.settings.training.hidden**-0.5
    width = experiment.tau / (2 * np.unique(experiment.modes.values)[::-1][1:])
    yield Check(
        "largest distance of branching epochs from the exact solution's, in units of tau / (2 s)",
        float((np.abs(half - predicted) / width).max()),
        high=overlap**2 + float((delays(experiment)[1] / width).max()),
        why="a relative error d of a strength moves its half-way by 2 d tau / (2 s); overlaps h^(-1/2) enter squared "
        "lengths "
        "squared; lateness of descent",
    )
    yield Check(
        "smallest gap between branching epochs", float(np.diff(half).min()), low=spacing, why="in order", roomy=ORDER
    )
    limit, bif = gaussian_limit(experiment, 4), experiment.bayesian
    peaks, errors = [], []
    for queries in GROUPS.values():
        line = limit.sel(source="dog", query=list(queries)).mean("query")
        at = line["epoch"].values
        sampled = bif["covariance"].sel(source="dog", query=list(queries), epoch=at).mean("query").values
        spread = root_mean_error(bif.sel(epoch=at), "dog", list(queries))
        moved = lag(smooth(line), at.astype(float), sampled, spread, reach=1200.0)
        fine = np.arange(experiment.epochs[0], experiment.epochs[-1])
        peaks.append(float(fine[int(np.argmin(smooth(line)(fine)))]) + moved.value)
        errors.append(moved.error)
    for k, branch in enumerate(BRANCHES):
        yield Check(
            f"{branch}: epochs by which the peak leads the half formed branch, over the time from the branch before",
            float((half[k] - peaks[k]) / (half[k] - (half[k - 1] if k else 0.0))),
            low=0.0,
            high=1.0,
            why="between the two branches: the one before is half formed, its own is not",
            error=float(errors[k] / (half[k] - (half[k - 1] if k else 0.0))),
            reading=_WITHIN,
            roomy="an interval is claimed",
        )
    for word, formed in (("half", half), ("tenth", tenth)):
        yield Check(
            f"largest distance of a peak from its {word} formed branch (epochs)",
            float(np.abs(peaks - formed).max()),
            low=2 * spacing,
            why="two checkpoints, within which epochs would be called the same",
            error=max(errors),
            reading=_SAME,
            roomy=REFUTES,
        )
    hidden = experiment.checkpoints.w1.numpy() @ experiment.dataset.inputs.T
    apart = [np.sum((hidden @ branch_contrast(experiment.dataset.names, branch)) ** 2, axis=1) for branch in BRANCHES]
    yield Plot(
        "Squared distance of the two halves of each branch",
        "epoch",
        "share of its end",
        tuple(Series(name, experiment.epochs, line / line[-1]) for name, line in zip(BRANCHES, apart, strict=True)),
        marks=tuple((float(p), "") for p in peaks),
    )


@claim(
    "hidden-distances",
    "Hidden representations differentiate progressively: the squared distance of two items is the sum of g_k(t) "
    "(v_ki - "
    "v_kj)^2 over modes.",
    source="paper 3, Fig. 4b, after Saxe et al. 2019",
    compares=(theory("logistic mode strengths"), numerics("hidden layer of the trained network")),
    metric="largest difference over the largest squared distance",
)
def hidden_distances(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare squared distances of all pairs of items in the hidden layer."""
    data, modes = experiment.dataset, experiment.modes
    hidden = data.inputs @ np.swapaxes(experiment.checkpoints.w1.numpy(), 1, 2)
    apart = np.sum((hidden[:, :, None] - hidden[:, None]) ** 2, axis=-1)
    alpha = data.inputs @ modes.right
    g = experiment.mode_strengths["closed form"].values
    predicted = np.einsum("tk,ijk->tij", g, (alpha[:, None] - alpha) ** 2)
    overlap = experiment.settings.training.hidden**-0.5
    yield Check(
        "largest difference / largest squared distance",
        float(np.abs(apart - predicted).max() / apart.max()),
        high=overlap**2 + experiment.lateness,
        why=f"modes overlap by h^(-1/2) = {overlap:.2f} of their size in random weights, which enters squared "
        "distances "
        f"squared; descent is late by {experiment.lateness:.3f} of the fastest rise",
    )
    points = representation_embedding(data, experiment.checkpoints, dims=8).values
    scaled = np.sum((points[:, :, None] - points[:, None]) ** 2, axis=-1)
    centred = hidden - hidden.mean(axis=1, keepdims=True)
    axes = np.linalg.svd(centred[-1])[2][:8]  # eight items span seven directions at the end; the rest stays small
    beyond = np.linalg.norm(centred - centred @ axes.T @ axes, axis=-1).max()
    yield Check(
        "distances in the multidimensional scaling to 8 axes against the hidden layer's, largest difference",
        float(np.abs(scaled - apart).max() / apart.max()),
        high=float((2 * beyond) ** 2 / apart.max()),
        why=f"squared distances lose what is outside of the axes, squared: (2 x {beyond:.1e})^2",
    )
    yield Plot(
        "Squared distance from dog",
        "epoch",
        "squared distance",
        (
            *(Series(f"{q}", experiment.epochs, apart[:, 0, k], colour=i) for i, (q, k) in enumerate(_OTHERS)),
            *(
                Series("", experiment.epochs, predicted[:, 0, k], style="dashes", colour=i)
                for i, (_, k) in enumerate(_OTHERS)
            ),
        ),
    )
