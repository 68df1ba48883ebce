"""Claims about accumulated influence: closed form, derivative, reweighting and leave-one-out (paper Eqs. 3, 57-59)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from numerics import TrainingConfig, gauss_newton_influence, hessian_influence, leave_one_out, tracin, train
from theory import Dataset, leave_group_out_trajectory, leave_one_out_trajectory
from validation.agreement import agreement, without_self
from validation.charts import Plot, Series, curves
from validation.expectations import delays, flow_derivative, late, lateness_of, lost_growth, solved_kernel
from validation.experiments.toy import ToyExperiment, harm_epochs
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

_SHARED = "what descent loses is lost by both of the two numbers alike"
_PAIR = {"source": "dog", "query": "cat"}


def _equal_to_retraining(
    experiment: ToyExperiment, retrained: xr.DataArray, solve: Callable[[np.ndarray], xr.DataArray]
) -> Iterator[Check]:
    """Compare retraining with a closed form as late as descent is; `solve` gives the closed form at any epochs."""
    least, most = late(experiment, solve)
    solved, middle = solve(experiment.epochs), (least + most) / 2
    result = agreement(retrained, middle)
    _, lost = lateness_of(least, most)
    yield Check(
        "1 - smallest Pearson of a pair, closed form as late as descent",
        1 - result.worst_pearson,
        high=lost,
        why="modes of descent are late by {:.2f} to {:.2f} epochs, in runs with and without the sample".format(
            *delays(experiment)
        ),
    )
    yield Check(
        "largest |slope - 1| of a pair",
        result.worst_slope_error,
        high=lost_growth(experiment),
        why="descent grows slower by s / (2 tau) of its rate, so differences of two runs change by as much at most",
        roomy="slow modes, which lose less, carry most of the influence",
    )
    apart, expected = ((a - solved).values.ravel() for a in (retrained, middle))
    first, last = delays(experiment)
    share = ((last - first) / 2 + 0.2) / ((last + first) / 2)
    yield Check(
        "delay of retraining behind the closed form over that of descent behind the flow, fitted over all pairs",
        float(apart @ expected / (expected @ expected)),
        low=1 - share,
        high=1 + share,
        why=f"ln(s / (8 g0)) / 4 epochs, {first:.2f} to {last:.2f}, which varies by 0.2 over a rise",
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


def _solved(experiment: ToyExperiment, epochs: np.ndarray, epsilon: float = -1.0) -> xr.DataArray:
    w1, w2 = experiment.initial_weights
    return leave_one_out_trajectory(experiment.dataset, epochs, tau=experiment.tau, w1=w1, w2=w2, epsilon=epsilon)


@claim(
    "closed-form-loo",
    "Leave-one-out in closed form, from the actual initial weights, equals retraining for every pair.",
    source="paper Eq. 3, closed form ours",
    compares=(theory("exact matrix solution without the sample"), retraining("leave-one-out, 8 x 8 pairs")),
    metric="Pearson and slope of every pair's trajectory",
)
def closed_form_loo(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare closed-form and retrained leave-one-out pair by pair."""
    yield from _equal_to_retraining(experiment, experiment.retrained, lambda epochs: _solved(experiment, epochs))
    solved = experiment.closed_leave_one_out
    yield _pair_plot(
        "Leave dog out, loss of cat", experiment.epochs, {"retrained": experiment.retrained}, {"closed form": solved}
    )


@claim(
    "closed-form-reweighting",
    "The flow from the actual initial weights predicts retraining at weight 0.9 for every pair.",
    source="paper C.6 (epsilon = -0.1)",
    compares=(
        theory("weighted flow from the initial weights, integrated by DOP853: no closed form is known"),
        theory("exact matrix solution where there is one, at weight 0"),
        retraining("every weight at 0.9, 8 x 8 pairs"),
    ),
    cost=Cost.FULL,
    metric="Pearson and slope of every pair's trajectory",
)
def closed_form_reweighting(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the weighted flow with retraining pair by pair."""
    retrained = experiment.slightly_ablated
    yield from _equal_to_retraining(experiment, retrained, lambda epochs: _solved(experiment, epochs, -0.1))
    solved = _solved(experiment, experiment.epochs, -0.1)
    nearly = _solved(experiment, experiment.epochs, -1 + 1e-9)  # no special case: integrated as at weight 0.9
    w1, w2 = experiment.initial_weights
    imbalance = float(np.linalg.norm(w1 @ w1.T - w2.T @ w2, 2))
    yield Check(
        "the same integration at weight 1e-9 against the exact matrix solution at 0, relative to the largest influence",
        float(abs(nearly - experiment.closed_leave_one_out).max() / abs(experiment.closed_leave_one_out).max()),
        high=imbalance,
        why=f"the matrix solution leaves out the imbalance of the layers, {imbalance:.1e}",
        roomy=WORST,
    )
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
    compares=(
        retraining("dog's row set to zero"),
        retraining("dog's weight set to zero"),
        retraining("dog removed: seven rows, rate times 7/8"),
        numerics("torch's linear layers, mean squared error and SGD on the masked rows"),
    ),
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
    rest = Dataset(data.inputs[1:], data.targets[1:], data.names[1:])
    removed = train(rest, replace(config, lr=config.lr * len(rest) / len(data)), w1=start1, w2=start2).checkpoints.maps
    half = 5
    plain = _torch_loop(masked, start1, start2, config.lr, round(experiment.epochs[half]))
    for name, other, here in (
        ("masked", a, b),
        ("removed", removed, b),
        (f"torch's own layers and optimiser, epoch {experiment.epochs[half]:.0f}", plain, b[half]),
    ):
        yield Check(
            f"{name} against weight zero: max |difference of the maps|",
            float((other - here).abs().max()),
            high=1e-9,
            why=f"the same sums in another order, {config.epochs} steps of rounding 1e-16 x growth e^12 at most",
            roomy=ROUNDING,
        )
    moved = (b[:, :, 0] - b[0, :, 0]).numpy()  # one-hot inputs: the first column is what dog sees
    growth = float(np.log(experiment.modes.values[0] / experiment.modes.initial_strengths[0]))
    yield Check(
        "growth of the map along dog's input / size of the start",
        float(np.linalg.norm(moved, axis=1).max() / np.linalg.norm(start1[:, 0])),
        high=float(np.sqrt(experiment.modes.values[0])),
        roomy=WORST,
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


def _torch_loop(data: Dataset, w1: np.ndarray, w2: np.ndarray, lr: float, epochs: int) -> torch.Tensor:
    """Return the map that torch's linear layers learn by its own mean squared error and optimiser."""
    first, second = (torch.nn.Linear(w.shape[1], w.shape[0], bias=False).double() for w in (w1, w2))
    layers = torch.nn.Sequential(first, second)
    inputs, targets = torch.tensor(data.inputs), torch.tensor(data.targets)
    with torch.no_grad():
        for layer, start in ((first, w1), (second, w2)):
            layer.weight.copy_(torch.tensor(start))
    optimiser = torch.optim.SGD(layers.parameters(), lr=lr)
    for _ in range(epochs):
        optimiser.zero_grad()
        torch.nn.functional.mse_loss(layers(inputs), targets).backward()
        optimiser.step()
    return second.weight.detach() @ first.weight.detach()


@claim(
    "small-weights-are-linear",
    "The influence is the limit of small changes of weight: the deviation of retraining from it is proportional to the "
    "change.",
    source="paper C.6 (epsilon near 0)",
    compares=(
        retraining("weights 1 +- 1e-3, central difference"),
        retraining("weights 0.99, 0.98 and 0.96"),
        theory("weighted flow at the same weights"),
    ),
    cost=Cost.FULL,
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
    flow = without_self(flow_derivative(experiment))
    expected = np.array(
        [
            np.sqrt(np.nansum((without_self(_solved(experiment, experiment.epochs, -c)) - flow).values ** 2))
            for c in changes
        ]
    ) / np.sqrt(np.nansum(flow.values**2))
    share = 4 * lost_growth(experiment)
    for c, found, predicted in zip(changes, apart, expected, strict=True):
        yield Check(
            f"deviation at weight {1 - c:g} / that of the weighted flow",
            float(found / predicted),
            low=1 - share,
            high=1 + share,
            why=f"{predicted:.4f} of the derivative; descent grows slower by s / (2 tau), which enters the second "
            "derivative twice, and each of two norms",
            roomy=_SHARED,
        )
    slopes = np.diff(np.log(apart)) / np.log(2)
    for c, slope, after in zip(changes, slopes, np.diff(expected / changes) / (expected / changes)[1:], strict=False):
        yield Check(
            f"slope between {c:g} and {2 * c:g}",
            float(slope),
            low=1 - share,
            high=1 + float(2 * after / np.log(2)) + share,
            why="1 for a limit; what the weighted flow has of the next order, doubled",
            roomy=_SHARED,
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
    tenth = (agreement(unrolled, without_self(experiment.reweighted(-0.01))).slope - 1) / 10
    yield Check(
        "weight 0.999: slope - 1",
        small.slope - 1,
        low=tenth - 2 * deviation**2 / 10,
        high=tenth + 2 * deviation**2 / 10,
        why=f"a tenth of that at 0.99, {tenth:.1e}; second order as above",
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
    flow = without_self(flow_derivative(experiment))
    linear = agreement(flow, without_self(experiment.closed_leave_one_out)).slope
    turn = float(np.sqrt(2 * (1 - agreement(flow, unrolled).pearson)))
    yield Check(
        "weight 0: slope",
        rows[1].slope,
        low=linear - turn,
        high=linear + turn,
        why=f"linear response would give 1, the closed forms {linear:.3f}; descent turns the derivative by {turn:.4f}",
        roomy=CAUCHY,
    )
    formula, expected = (agreement(a, without_self(experiment.sample_weight)) for a in (unrolled, flow))
    share = 2 * turn / float(np.sqrt(2 * (1 - expected.pearson)))
    yield Check(
        "sample-weight formula: 1 - Pearson / that with the derivative of the flow",
        (1 - formula.pearson) / (1 - expected.pearson),
        low=1 - share,
        high=1 + share,
        why=f"decoupled modes cost {1 - expected.pearson:.4f} against the flow from the same weights; descent turns "
        f"the derivative by {turn:.4f}",
        roomy=CAUCHY,
    )
    yield Check(
        "sample-weight formula: slope less that on the derivative of the flow",
        formula.slope - expected.slope,
        low=-turn / 10,
        high=turn / 10,
        why="a turn changes a slope by its product with the part that decoupling leaves out, less than a tenth",
        roomy=CAUCHY,
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
    corrected="a tenth of the weight is nearly linear response, of the sign and the stages of leave-one-out but 2.2 "
    "times its size and earlier; leaving the sample out has a closed form of its own (closed-form-loo)",
    readings=(
        Reading("as a number: size and epochs of the effect"),
        Reading("as a picture: signs and order", right=True),
    ),
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
    tenth = _solved(experiment, experiment.epochs, -0.1)
    solved = agreement(without_self(tenth), without_self(experiment.closed_leave_one_out)).slope
    pairs = ((tenth, experiment.slightly_ablated), (experiment.closed_leave_one_out, experiment.retrained))
    share = sum(float(np.sqrt(2 - 2 * agreement(without_self(a), without_self(b)).pearson)) for a, b in pairs)
    yield Check(
        "slope of leave-one-out on weight 0.9",
        ablated.slope,
        high=solved + share,
        low=solved - share,
        why="an approximation of the ablation would have slope 1; the closed form and the weighted flow give "
        f"{solved:.3f}"
        ", and descent changes either by the square root of what their correlation loses to it",
        reading="as a number: size and epochs of the effect",
        roomy=CAUCHY,
    )
    signs = agreement(without_self(experiment.slightly_ablated), without_self(experiment.retrained)).sign_agreement
    yield Check(
        "share of equal signs, weight 0.9 and leave-one-out",
        signs,
        low=0.5 + float(np.arcsin(ablated.pearson)) / np.pi,
        why="1/2 + arcsin(r) / pi for Gaussian numbers of the same correlation r; 1/2 for unrelated ones",
        reading="as a picture: signs and order",
    )
    orders = [harm_epochs(measure) for measure in (experiment.slightly_ablated, experiment.retrained)]
    yield Check(
        "smallest gap between the epochs of strongest harm to plants, birds, cat, of either",
        float(min(np.diff(order).min() for order in orders)),
        low=float(np.diff(experiment.epochs).max()),
        why="the same order, by one checkpoint or more",
        reading="as a picture: signs and order",
        roomy=ORDER,
    )
    harms = [
        float(measure.sel(_PAIR).idxmax("epoch")) for measure in (experiment.slightly_ablated, experiment.retrained)
    ]
    yield Check(
        "leave-one-out's strongest harm of dog to cat comes later by (epochs)",
        harms[1] - harms[0],
        low=2 * float(np.diff(experiment.epochs).max()),
        why="more than the spacing of checkpoints on either side",
        reading="as a number: size and epochs of the effect",
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

    def whole(epochs: np.ndarray) -> xr.DataArray:
        return leave_group_out_trajectory(
            data, epochs, tau=experiment.tau, w1=w1, w2=w2, groups={"mammals": group}
        ).drop_sel(query=group)

    least, most = (a.sel(source="mammals") for a in late(experiment, whole))
    yield Check(
        "closed form, as late as descent, against retraining",
        float(abs((least + most) / 2 - together).max()) / size,
        high=float(abs(most - least).max()) / size + lost_growth(experiment),
        why="modes are late by {:.2f} to {:.2f} epochs and grow slower by s / (2 tau)".format(*delays(experiment)),
    )
    members = experiment.closed_leave_one_out.sel(source=group).sum("source").drop_sel(query=group)
    expected = float(abs(members - solved.drop_sel(query=group)).max() / abs(solved.drop_sel(query=group)).max())
    yield Check(
        "sum of the members against the group",
        float(abs(apart - together).max()) / size,
        low=expected - 2 * lost_growth(experiment),
        high=expected + 2 * lost_growth(experiment),
        why=f"{expected:.3f} by the closed forms; descent grows slower by s / (2 tau) in both",
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
    coarse = tracin(data, experiment.checkpoints.at(experiment.epochs[::2]), lr=config.lr).sum("source").values
    blur = float(np.abs(coarse - traced.sum("source").values[::2]).max() / np.abs(change).max()) / 3
    yield Check(
        "largest |sum over sources - change of the loss| / largest change",
        float(np.abs(traced.sum("source").values - change).max() / np.abs(change).max()),
        high=blur + 2 * lost_growth(experiment),
        why=f"trapezoidal rule between checkpoints, {blur:.4f} by those twice as far apart; a step s / tau = "
        f"{2 * lost_growth(experiment):.4f} of the curvature's",
    )
    rate = 2 * config.lr / data.targets.size
    kernel = experiment.kernel_from_modes.values
    steps = np.diff(experiment.epochs)[:, None, None]
    integral = -rate * np.cumsum((kernel[1:] + kernel[:-1]) / 2 * steps, axis=0)
    predicted = traced.isel(epoch=slice(1, None)).copy(data=integral)
    later = traced.isel(epoch=slice(1, None))
    result = agreement(without_self(predicted), without_self(later))
    whole = solved_kernel(experiment, sum(delays(experiment)) / 2).values
    exact = later.copy(data=-rate * np.cumsum((whole[1:] + whole[:-1]) / 2 * steps, axis=0))
    expected = agreement(without_self(predicted), without_self(exact)).slope
    yield Check(
        "slope on the integral of the kernel from modes",
        result.slope,
        low=expected - 2 * lost_growth(experiment),
        high=expected + 2 * lost_growth(experiment),
        why=f"{expected:.4f} for the layers of the exact solution, as late as descent, in which modes overlap; twice "
        "s / (2 tau) in rates",
        roomy=_SHARED,
    )
    straight = agreement(without_self(exact), without_self(later))
    yield Check(
        "slope on the integral of the exact solution's kernel",
        straight.slope,
        low=1 - 2 * lost_growth(experiment),
        high=1 + 2 * lost_growth(experiment),
        why="the same trapezoidal rule on both; twice s / (2 tau) in rates",
        roomy=_SHARED,
    )
    for name, measure in (("derivative", experiment.retrained_derivative), ("leave-one-out", experiment.retrained)):
        pearson = agreement(without_self(measure), without_self(traced)).pearson
        closed = experiment.closed_leave_one_out if name == "leave-one-out" else flow_derivative(experiment)
        predicted_pearson = agreement(without_self(closed), without_self(exact)).pearson
        yield Check(
            f"Pearson with the {name}",
            pearson,
            low=predicted_pearson - 2 * lost_growth(experiment),
            high=min(predicted_pearson + 2 * lost_growth(experiment), 0.9),
            why=f"{predicted_pearson:.3f} by the closed forms, far from the 1 of equal quantities; s / (2 tau) in both",
        )
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

    def central(size: float) -> np.ndarray:
        up, down = (leave_one_out(data, config, epsilon=e).values[-1] for e in (size, -size))
        return np.asarray((up + down) / 2)

    retrained = central(step)
    second = float(np.abs(central(2 * step) - retrained).max()) / 3
    damping = 1e-7
    last = run.checkpoints.at([config.epochs])
    size = float(np.abs(predicted).max())
    left = abs(missing) * np.linalg.norm(residual, axis=1).max() * np.linalg.norm(inputs, axis=1).max() / size
    yield Check(
        "retrained derivative against the closed form",
        float(np.abs(retrained - predicted).max() / size),
        high=1.5 * second / size + 2 * float(left),
        why="a third of what the central difference changes when its step doubles, half again for higher orders; what "
        "descent has not yet learned",
    )
    shown = {}
    for name, influence in (("Hessian", hessian_influence), ("Gauss-Newton matrix", gauss_newton_influence)):
        once, twice = (influence(data, last, damping=d)["influence"].values[0, 0] for d in (damping, 2 * damping))
        shown[name] = once
        yield Check(
            f"damped {name} against the closed form",
            float(np.abs(once - predicted).max() / size),
            high=1.5 * float(np.abs(twice - once).max() / size) + 2 * float(left),
            why="what the influence changes when the damping doubles, half again; what descent has not yet learned",
        )
    curved = shown["Hessian"]
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
