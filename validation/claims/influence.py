"""Claims about accumulated influence: closed form, derivative, reweighting and leave-one-out (paper Eqs. 3, 57-59)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from numerics import TrainingConfig, gauss_newton_influence, hessian_influence, leave_one_out, tracin, train
from theory import Dataset, leave_group_out_trajectory, leave_one_out_trajectory
from validation.agreement import agreement, without_self
from validation.charts import Plot, Series, curves
from validation.experiments.toy import ToyExperiment
from validation.registry import Check, claim, numerics, retraining, theory

__all__: list[str] = []

_PAIR = {"source": "dog", "query": "cat"}


def _equal_to_retraining(experiment: ToyExperiment, retrained: xr.DataArray, solved: xr.DataArray) -> Iterator[Check]:
    result = agreement(retrained, solved)
    late = experiment.lateness
    yield Check(
        "1 - smallest Pearson of a pair",
        1 - result.worst_pearson,
        high=min(5e-4, late**2),
        why=f"both runs are late by {late:.3f} of the fastest rise, which costs a correlation half its square each",
    )
    yield Check(
        "largest |slope - 1| of a pair",
        result.worst_slope_error,
        high=min(1e-2, late),
        why="the same lateness, at first order at most",
    )


def _pair_plot(title: str, epochs: np.ndarray, solid: dict[str, xr.DataArray], dashed: dict[str, xr.DataArray]) -> Plot:
    return Plot(
        title,
        "epoch",
        "influence",
        (
            *curves(epochs, **{name: measure.sel(_PAIR) for name, measure in solid.items()}),
            *curves(epochs, "dashes", **{name: measure.sel(_PAIR) for name, measure in dashed.items()}),
        ),
        zero=True,
    )


@claim(
    "closed-form-loo",
    "Leave-one-out in closed form, from the actual initial weights, equals retraining for every pair.",
    source="paper Eq. 3, closed form ours",
    compares=(theory("exact matrix solution without the sample"), retraining("leave-one-out, 8 x 8 pairs")),
    metric="Pearson and slope of every pair's trajectory",
)
def closed_form_loo(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare closed-form and retrained leave-one-out pair by pair."""
    solved = experiment.closed_leave_one_out
    yield from _equal_to_retraining(experiment, experiment.retrained, solved)
    yield _pair_plot(
        "Leave dog out, loss of cat", experiment.epochs, {"retrained": experiment.retrained}, {"closed form": solved}
    )


@claim(
    "closed-form-reweighting",
    "The flow from the actual initial weights predicts retraining at weight 0.9 for every pair.",
    source="paper C.6 (epsilon = -0.1)",
    compares=(theory("weighted flow from the initial weights"), retraining("every weight at 0.9, 8 x 8 pairs")),
    metric="Pearson and slope of every pair's trajectory",
)
def closed_form_reweighting(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the weighted flow with retraining pair by pair."""
    w1, w2 = experiment.initial_weights
    solved = leave_one_out_trajectory(
        experiment.dataset, experiment.epochs, tau=experiment.tau, w1=w1, w2=w2, epsilon=-0.1
    )
    yield from _equal_to_retraining(experiment, experiment.slightly_ablated, solved)
    yield _pair_plot(
        "Dog at weight 0.9, loss of cat",
        experiment.epochs,
        {"retrained": experiment.slightly_ablated},
        {"closed form": solved},
    )


@claim(
    "masking-is-weight-zero",
    "Masking a sample's input and output is the same as giving it the weight zero.",
    source="paper C.3",
    compares=(retraining("dog's row set to zero"), retraining("dog's weight set to zero")),
    metric="largest absolute difference of the maps",
)
def masking_is_weight_zero(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Train once with dog masked and once with dog's weight zero."""
    data, config = experiment.dataset, experiment.settings.training
    kept = np.ones(len(data))
    kept[0] = 0.0
    masked = Dataset(data.inputs * kept[:, None], data.targets * kept[:, None], data.names)
    start1, start2 = experiment.initial_weights
    a = train(masked, config, w1=start1, w2=start2).checkpoints.maps
    b = train(data, config, weights=kept, w1=start1, w2=start2).checkpoints.maps
    yield Check(
        "max |difference of the maps|",
        float((a - b).abs().max()),
        high=1e-9,
        why=f"the same sums in another order, {config.epochs} steps of rounding 1e-16 x growth e^12 at most",
    )
    moved = (b[:, :, 0] - b[0, :, 0]).numpy()  # one-hot inputs: the first column is what dog sees
    growth = float(np.log(experiment.modes.values[0] / experiment.modes.initial_strengths[0]))
    yield Check(
        "growth of the map along dog's input / size of the start",
        float(np.linalg.norm(moved, axis=1).max() / np.linalg.norm(start1[:, 0])),
        high=float(np.sqrt(experiment.modes.values[0])),
        why="W1 x stays where it started and W2 grows to s^(1/2) at most, so the unseen input keeps the size of the "
        "start "
        f"while modes grow by e^{growth:.0f}",
    )
    columns = np.linalg.norm(b.numpy(), axis=1)
    yield Plot(
        "What the network without dog maps an item to",
        "epoch",
        "|W x|",
        curves(experiment.epochs, dog=np.maximum(columns[:, 0], 1e-8), cat=columns[:, 1]),
        log="y",
    )


@claim(
    "small-weights-are-linear",
    "The influence is the limit of small changes of weight: the deviation of retraining from it is proportional to the "
    "change.",
    source="paper C.6 (epsilon near 0)",
    compares=(
        retraining("weights 1 +- 1e-3, central difference"),
        retraining("weights 0.99, 0.98 and 0.96"),
        theory("first order in the change"),
    ),
    metric="logarithmic slope of the deviation against the change",
)
def small_weights_are_linear(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Measure how the deviation from the derivative grows with the change of weight."""
    truth = without_self(experiment.retrained_derivative)
    changes = np.array([0.01, 0.02, 0.04])
    size = float(np.sqrt(np.nansum(truth.values**2)))
    apart = np.array(
        [np.sqrt(np.nansum((without_self(experiment.reweighted(-c)) - truth).values ** 2)) / size for c in changes]
    )
    growth = float(np.log(experiment.modes.values / experiment.modes.initial_strengths).max())
    yield Check(
        f"deviation at weight {1 - changes[0]:g}",
        float(apart[0]),
        high=float(changes[0] * growth / 2),
        why=f"the change times half the largest exponent of growth, ln(s / g0) = {growth:.0f}, in which weights enter",
    )
    slopes = np.diff(np.log(apart)) / np.log(2)
    for c, slope in zip(changes, slopes, strict=False):
        yield Check(
            f"slope between {c:g} and {2 * c:g}",
            float(slope),
            low=1 - float(c * growth / 2),
            high=1 + float(c * growth / 2),
            why="second-order terms are to the first as that is to the derivative",
        )
    yield Plot(
        "Deviation from the derivative",
        "change of weight",
        "relative deviation",
        (
            *curves(changes, "points", retrained=apart),
            *curves(changes, "dashes", proportional=apart[0] * changes / 0.01),
        ),
        log="xy",
    )


@claim(
    "unrolled-is-the-derivative",
    "The derivative carried along the whole run of descent is the limit of reweighted retraining, and the "
    "sample-weight "
    "formula its closed form.",
    source="paper Eqs. 57-59 against C.3, ours",
    compares=(
        theory("sample-weight formula"),
        numerics("derivative of descent, forward mode"),
        retraining("weights 0.999, 0.9 and 0"),
    ),
    metric="relative difference, Pearson and slope over pairs and epochs",
)
def unrolled_is_the_derivative(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the unrolled derivative with retraining at three changes of weight and with the closed form."""
    unrolled = without_self(experiment.unrolled)
    size = float(abs(unrolled).max())
    deviation = float(abs(without_self(experiment.reweighted(-0.01)) - unrolled).max()) / size
    central = float(abs(without_self(experiment.retrained_derivative) - unrolled).max()) / size
    yield Check(
        "central difference at 1 +- 1e-3: largest difference, relative",
        central,
        high=10 * (deviation * 0.1) ** 2,
        why=f"second order: at weight 0.99 the first order is {deviation:.3f}, a tenth of that here, squared and up "
        "to ten "
        "times",
    )
    small = agreement(unrolled, without_self(experiment.reweighted(-1e-3)))
    yield Check(
        "weight 0.999: |slope - 1|", abs(small.slope - 1), high=0.2 * deviation, why="a tenth of that at 0.99, doubled"
    )
    rows = [agreement(unrolled, without_self(experiment.reweighted(e))) for e in (-0.1, -1.0)]
    apart = without_self(experiment.reweighted(-0.01)) - unrolled
    spread = float(np.sqrt(np.nansum(apart.values**2) / np.nansum(unrolled.values**2)))
    yield Check(
        "weight 0.9: 1 - Pearson",
        1 - rows[0].pearson,
        high=(10 * spread) ** 2,
        why=f"ten times the root mean square deviation at 0.99, {spread:.3f}; half its square, doubled for second "
        "order",
    )
    yield Check(
        "weight 0: slope",
        rows[1].slope,
        high=1 - 10 * deviation,
        why="linear response would give 1; the change is a hundred times that of 0.99",
    )
    formula = agreement(unrolled, without_self(experiment.sample_weight))
    hidden = experiment.settings.training.hidden
    yield Check(
        "sample-weight formula: 1 - Pearson",
        1 - formula.pearson,
        high=1 / hidden,
        why="modes of random weights overlap by h^(-1/2); a correlation loses half its square, twice",
    )
    yield Check(
        "sample-weight formula: slope",
        formula.slope,
        low=1 - hidden**-0.5,
        high=1 + hidden**-0.5,
        why="the same overlap at first order",
    )
    yield _pair_plot(
        "Dog on cat",
        experiment.epochs,
        {"unrolled": experiment.unrolled, "weight 0": experiment.retrained},
        {"sample-weight formula": experiment.sample_weight, "weight 0.9": experiment.slightly_ablated},
    )


@claim(
    "printed-downweighting",
    "Down-weighting by epsilon = -0.1 approximates the effect of the ablation.",
    source="paper C.6, last sentence; Fig. 3",
    compares=(retraining("weight 0.9, divided by -0.1"), retraining("weight 0"), retraining("derivative")),
    metric="slope and largest shift of the extrema between the trajectories",
    corrected="a tenth of the weight is nearly linear response; leaving the sample out is not, and has a closed "
    "form of "
    "its own (closed-form-loo)",
)
def printed_downweighting(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the derivative with retraining at weights 0.9 and 0."""
    derivative = without_self(experiment.retrained_derivative)
    near = agreement(derivative, without_self(experiment.slightly_ablated))
    ablated = agreement(without_self(experiment.slightly_ablated), without_self(experiment.retrained))
    deviation = float(
        np.sqrt(
            np.nansum((without_self(experiment.reweighted(-0.04)) - derivative).values ** 2)
            / np.nansum(derivative.values**2)
        )
    )
    yield Check(
        "1 - Pearson of weight 0.9 with the derivative",
        1 - near.pearson,
        high=(2.5 * deviation) ** 2,
        why=f"the deviation at weight 0.96, {deviation:.3f}, times 2.5; a correlation loses half its square, twice for "
        "second order",
    )
    yield Check(
        "slope of leave-one-out on weight 0.9",
        ablated.slope,
        high=0.8,
        why="an approximation of the ablation would have slope 1; correct to first order it would be within "
        f"10 x {deviation:.2f} / 4 of it",
    )
    harms = [
        float(measure.sel(_PAIR).idxmax("epoch")) for measure in (experiment.slightly_ablated, experiment.retrained)
    ]
    yield Check(
        "leave-one-out's strongest harm of dog to cat comes later by (epochs)",
        harms[1] - harms[0],
        low=2 * float(np.diff(experiment.epochs).max()),
        why="more than the spacing of checkpoints on either side",
    )
    yield _pair_plot(
        "Dog on cat",
        experiment.epochs,
        {"derivative": experiment.retrained_derivative, "weight 0.9": experiment.slightly_ablated},
        {"weight 0": experiment.retrained},
    )


@claim(
    "groups-are-not-sums",
    "Leaving out a group is predicted in closed form, and is not the sum of leaving out its members.",
    source="ours",
    compares=(
        theory("exact matrix solution without dog and cat"),
        retraining("weights of both zero"),
        retraining("sum of the two leave-one-outs"),
    ),
    metric="largest difference over the largest influence on other samples",
)
def groups_are_not_sums(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Leave the mammals out together and one by one."""
    data, group = experiment.dataset, ["dog", "cat"]
    weights = np.array([0.0 if name in group else 1.0 for name in data.names])
    w1, w2 = experiment.initial_weights
    changed = train(data, experiment.settings.training, weights=weights, w1=w1, w2=w2).losses
    baseline = train(data, experiment.settings.training, w1=w1, w2=w2).losses
    together = (baseline - changed).drop_sel(query=group)
    solved = leave_group_out_trajectory(
        data, experiment.epochs, tau=experiment.tau, w1=w1, w2=w2, groups={"mammals": group}
    ).sel(source="mammals")
    apart = experiment.retrained.sel(source=group).sum("source").drop_sel(query=group)
    size = float(abs(together).max())
    yield Check(
        "closed form against retraining",
        float(abs(solved.drop_sel(query=group) - together).max()) / size,
        high=2 * experiment.lateness,
        why="descent is late by this part of the fastest rise in both runs",
    )
    yield Check(
        "sum of the members against the group",
        float(abs(apart - together).max()) / size,
        low=0.1,
        why="far above the lateness of descent",
    )
    yield Plot(
        "Loss of sparrow without the mammals",
        "epoch",
        "loss difference",
        (
            *curves(experiment.epochs, both=together.sel(query="sparrow")),
            *curves(experiment.epochs, "dashes", closed_form=solved.sel(query="sparrow")),
            *curves(experiment.epochs, dog_plus_cat=apart.sel(query="sparrow")),
        ),
        zero=True,
    )


@claim(
    "tracin-adds-up",
    "The gradient kernel summed over training (TracIn) distributes each loss's decrease over the samples, and is "
    "neither the "
    "derivative nor leave-one-out, which also propagate what was learned.",
    source="ours (Pruthi et al. 2020)",
    compares=(
        theory("integral of the kernel from modes"),
        numerics("TracIn of the trained network"),
        retraining("leave-one-out and central difference"),
    ),
    metric="sum over sources against the change of the loss; Pearson over different samples",
)
def tracin_adds_up(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Sum TracIn over its sources, and compare it with the influences that retraining measures."""
    data, config = experiment.dataset, experiment.settings.training
    traced = tracin(data, experiment.checkpoints, lr=config.lr)
    losses = train(data, config).losses
    change = (losses - losses.isel(epoch=0)).values
    blur = (np.diff(experiment.epochs).max() * 2 * float(experiment.modes.values[0]) / experiment.tau) ** 2 / 12
    yield Check(
        "largest |sum over sources - change of the loss| / largest change",
        float(np.abs(traced.sum("source").values - change).max() / np.abs(change).max()),
        high=float(blur + experiment.lateness),
        why=f"trapezoidal rule between checkpoints, {blur:.3f}, and first order in the step, {experiment.lateness:.3f}",
    )
    rate = 2 * config.lr / data.targets.size
    kernel = experiment.kernel_from_modes.values
    steps = np.diff(experiment.epochs)[:, None, None]
    integral = -rate * np.cumsum((kernel[1:] + kernel[:-1]) / 2 * steps, axis=0)
    predicted = traced.isel(epoch=slice(1, None)).copy(data=integral)
    overlap = config.hidden**-0.5
    result = agreement(without_self(predicted), without_self(traced.isel(epoch=slice(1, None))))
    yield Check(
        "slope on the integral of the kernel from modes",
        result.slope,
        low=1 - overlap,
        high=1 + overlap,
        why="modes overlap by h^(-1/2) of their size in random weights",
    )
    for name, measure in (("derivative", experiment.retrained_derivative), ("leave-one-out", experiment.retrained)):
        pearson = agreement(without_self(measure), without_self(traced)).pearson
        yield Check(f"Pearson with the {name}", pearson, high=0.9, why="equal quantities would give 1")
    yield _pair_plot("Dog on cat", experiment.epochs, {"TracIn": traced, "leave-one-out": experiment.retrained}, {})


@claim(
    "classical-at-convergence",
    "In a regular problem at its minimum the classical influence -g_j H^-1 g_i / N is what retraining with a changed "
    "weight gives.",
    source="paper Eq. 1 (sign: of the derivative of the loss)",
    compares=(
        theory("closed form at t = infinity, -(r_i . r_j)(x_i . x_j)"),
        numerics("Hessian of the trained network, damping to 0"),
        retraining("central difference at weights 1 +- 1e-3"),
    ),
    metric="largest difference over the largest influence",
)
def classical_at_convergence(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Fit more noisy samples than the network can fit, to the end, and reweight each."""
    random = experiment.random("a regular problem")
    inputs = np.linalg.qr(random.normal(size=(12, 3)))[0]
    targets = inputs @ random.normal(size=(3, 3)) + 0.3 * random.normal(size=(12, 3))
    data = Dataset(inputs, targets)
    config = TrainingConfig(
        hidden=6, sigma=0.3, lr=0.5, epochs=6000, checkpoint_every=6000, seed=experiment.settings.seed
    )
    residual = inputs @ data.syx.T - targets
    predicted = -(residual @ residual.T) * (inputs @ inputs.T)
    run = train(data, config)
    missing = float((run.checkpoints.maps[-1].numpy() - data.syx).max())
    step = 1e-3
    up, down = (leave_one_out(data, config, epsilon=e).values[-1] for e in (step, -step))
    retrained = (up + down) / 2
    damping = 1e-7
    last = run.checkpoints.at([config.epochs])
    curved = hessian_influence(data, last, damping=damping)["influence"].values[0, 0]
    size = np.abs(predicted).max()
    singular = np.linalg.svd(data.syx, compute_uv=False)
    smallest = float(singular[-1]) / len(data)
    yield Check(
        "retrained derivative against the closed form",
        float(np.abs(retrained - predicted).max() / size),
        high=10 * step**2 + 1e3 * abs(missing),
        why="second order of the central difference, up to ten times; what descent has not yet learned",
    )
    yield Check(
        "damped Hessian against the closed form",
        float(np.abs(curved - predicted).max() / size),
        high=10 * damping / smallest + 1e3 * abs(missing),
        why=f"damping 1e-7 over the smallest curvature that a sample's gradient meets, s_min / N = {smallest:.2g}",
    )
    linear = gauss_newton_influence(data, last, damping=damping)["influence"].values[0, 0]
    yield Check(
        "damped Gauss-Newton matrix against the closed form",
        float(np.abs(linear - predicted).max() / size),
        high=10 * damping / smallest + 1e3 * abs(missing),
        why="equal to the Hessian where W has been learned",
    )
    yield Plot(
        "Influence of sample 0",
        "query",
        "influence",
        (
            Series("retrained", np.arange(12), retrained[0], style="bars"),
            Series("closed form", np.arange(12), predicted[0], style="points"),
            Series("Hessian", np.arange(12) + 0.25, curved[0], style="points"),
        ),
        zero=True,
    )
