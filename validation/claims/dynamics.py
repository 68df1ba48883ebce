"""Claims about learning dynamics: the closed forms predict the simulated network (paper C.1, Eqs. 21-35)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from numerics import gradient_flow
from theory import (
    hierarchical_structure,
    initial_mode_strength,
    linear_network_solution,
    mode_strength,
    tree_distance,
)
from validation.charts import Plot, Series, curves
from validation.expectations import delays
from validation.experiments.toy import ToyExperiment
from validation.registry import REFUTES, ROUNDING, WORST, Check, Reading, claim, numerics, theory

__all__: list[str] = []

_ROUNDING = 64 * np.finfo(float).eps


@claim(
    "singular-structure",
    "The semantic tree has rank 8, singular values with s^2 = 15, 7, 3, 3, 1, 1, 1, 1, one for each distinction, "
    "and two "
    "items share one feature for every level of the tree that they share.",
    source="paper C.1, Fig. 2a-b",
    compares=(theory("Haar wavelets of the tree"), numerics("LAPACK's SVD and products of the targets")),
    metric="largest absolute difference",
)
def singular_structure(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the exact structure with a numerical decomposition of the targets."""
    exact = hierarchical_structure()
    found = np.linalg.svd(experiment.dataset.targets, compute_uv=False)
    scale = float(exact.values[0])
    yield Check(
        "largest difference of singular values",
        float(np.abs(found - exact.values).max()),
        high=_ROUNDING * scale,
        why="LAPACK's backward error: 64 eps times the largest singular value",
        roomy=ROUNDING,
    )
    yield Check(
        "largest |s^2 - (15, 7, 3, 3, 1, 1, 1, 1)|",
        _spread(found),
        high=2 * scale**2 * _ROUNDING,
        why="twice",
        roomy=ROUNDING,
    )
    shared = 4 - tree_distance()
    yield Check(
        "largest difference of shared features from 4 - tree distance",
        float(np.abs(experiment.shared_features.values - shared).max()),
        high=0.0,
        why="whole numbers",
    )
    yield Plot(
        "Singular values of the targets",
        "mode",
        "s^2",
        (
            Series("numerical", np.arange(8), found**2, style="bars"),
            Series("exact", np.arange(8), exact.values**2, style="points"),
        ),
    )


def _spread(values: np.ndarray) -> float:
    return float(np.abs(values**2 - np.array([15, 7, 3, 3, 1, 1, 1, 1])).max())


@claim(
    "gradients",
    "Descent moves the layers along W2^T (Syx - W2 W1) and (Syx - W2 W1) W1^T, which is minus the gradient of the "
    "summed "
    "loss.",
    source="paper Eqs. 25-26",
    compares=(theory("products of layers and residual"), numerics("automatic differentiation of the losses")),
    metric="relative difference",
)
def gradients(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the printed directions with torch's gradients half-way through training."""
    data = experiment.dataset
    middle = len(experiment.epochs) // 4
    w1, w2 = (w[middle].clone().requires_grad_() for w in (experiment.checkpoints.w1, experiment.checkpoints.w2))
    loss = (torch.tensor(data.targets) - torch.tensor(data.inputs) @ w1.mT @ w2.mT).square().sum() / 2
    slopes = [slope.numpy() for slope in torch.autograd.grad(loss, (w1, w2))]
    a, b = w1.detach().numpy(), w2.detach().numpy()
    error = data.syx - b @ a
    for name, printed, slope in zip(("W1", "W2"), (b.T @ error, error @ a.T), slopes, strict=True):
        yield Check(
            f"|direction of {name} + gradient| / |gradient|",
            float(np.linalg.norm(printed + slope) / np.linalg.norm(slope)),
            high=_ROUNDING,
            why="products of 15 terms in double precision",
            roomy=ROUNDING,
        )
    yield Plot(
        f"Entries of W1 at epoch {experiment.epochs[middle]:.0f}",
        "printed direction",
        "minus the gradient",
        (Series("", (b.T @ error).ravel(), -slopes[0].ravel(), style="points"),),
    )


@claim(
    "losses-in-modes",
    "The loss of a sample is half the squared distance of its targets from the learned map in the basis of singular "
    "modes.",
    source="paper Eq. 23",
    compares=(theory("exact matrix solution from the initial weights"), numerics("losses of the trained network")),
    metric="largest absolute difference of losses",
)
def losses_in_modes(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare losses written in modes with those of the network, and losses of the solved map with both."""
    data, modes = experiment.dataset, experiment.modes
    maps = experiment.checkpoints.maps.numpy()
    direct = _losses(maps, data.inputs, data.targets)
    in_modes = modes.left.T @ maps @ modes.right
    projected = _losses(in_modes, data.inputs @ modes.right, data.targets @ modes.left)
    beyond = 0.5 * np.sum(((maps - modes.left @ (modes.left.T @ maps)) @ data.inputs.T) ** 2, axis=1)
    yield Check(
        "loss in modes + half the squared map outside the span of U, against losses of the same network",
        float(np.abs(projected + beyond - direct).max()),
        high=_ROUNDING * float(direct.max()),
        why="every target lies in the span of U, so that only the map can leave it; rounding",
        roomy=ROUNDING,
    )
    w1, w2 = experiment.checkpoints.w1.numpy(), experiment.checkpoints.w2.numpy()
    outside = float(np.linalg.norm(w2[0] - modes.left @ (modes.left.T @ w2[0]), 2))
    yield Check(
        "largest loss outside the span of U",
        float(beyond.max()),
        high=outside**2 * float(np.square(w1 @ data.inputs.T).sum(axis=1).max()) / 2,
        why=f"outside it the random W2 starts with norm {outside:.1e} and decays: at most |W2 outside|^2 |W1 x|^2 / 2",
        roomy=WORST,
    )
    solved = _losses(experiment.solved_maps, data.inputs, data.targets)
    first, last = delays(experiment)
    least, most = (_losses(_solved_later(experiment, delay), data.inputs, data.targets) for delay in (first, last))
    yield Check(
        "solved map, as late as the modes of descent are on average, against the trained network",
        float(np.abs((least + most) / 2 - direct).max()),
        high=float(np.abs(most - least).max()),
        why=f"descent is {first:.1f} to {last:.1f} epochs late, each mode in its own way",
    )
    yield Plot(
        "Loss of dog",
        "epoch",
        "loss",
        (
            *curves(experiment.epochs, trained_network=direct[:, 0]),
            *curves(experiment.epochs, "dashes", exact_solution=solved[:, 0]),
        ),
    )


def _solved_later(experiment: ToyExperiment, delay: float) -> np.ndarray:
    """Return the exact matrix solution `delay` epochs before every checkpoint."""
    epochs = np.maximum(experiment.epochs - delay, 0.0)
    return linear_network_solution(*experiment.initial_weights, experiment.dataset.syx, epochs, experiment.tau)


def _losses(maps: np.ndarray, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * np.sum((maps @ inputs.T - targets.T) ** 2, axis=1))


@claim(
    "residuals-in-modes",
    "In the modes the residual of a sample is G alpha - psi, and the gradient of its loss is that times alpha^T.",
    source="paper Eqs. 33-35",
    compares=(
        theory("G alpha - psi and its outer product with alpha"),
        numerics("residuals and automatic differentiation of every sample's loss"),
    ),
    metric="largest difference over the largest entry, all samples at six checkpoints",
)
def residuals_in_modes(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare both with torch's residuals and gradients of the losses by the map."""
    data, modes = experiment.dataset, experiment.modes
    alpha, psi = data.inputs @ modes.right, data.targets @ modes.left
    apart, slopes = [], []
    shown: tuple[np.ndarray, np.ndarray] = (np.zeros(0), np.zeros(0))
    for w in experiment.checkpoints.maps[::20]:
        full = w.clone().requires_grad_()
        residual = torch.tensor(data.inputs) @ full.mT - torch.tensor(data.targets)
        core = modes.left.T @ w.numpy() @ modes.right
        rho = alpha @ core.T - psi
        apart.append(float(np.abs(rho - residual.detach().numpy() @ modes.left).max() / np.abs(rho).max()))
        for p, one in enumerate(residual.square().sum(1) / 2):
            (gradient,) = torch.autograd.grad(one, full, retain_graph=True)
            projected = modes.left.T @ gradient.numpy() @ modes.right
            printed = np.outer(rho[p], alpha[p])
            slopes.append(float(np.abs(projected - printed).max() / np.abs(printed).max()))
            shown = (printed.ravel(), projected.ravel())
    for name, values in (("residuals", apart), ("gradients", slopes)):
        yield Check(
            f"{name}: largest relative difference",
            max(values),
            high=1e-10,
            why="rounding of maps of size four, over residuals that have fallen to some thousandths and gradients to "
            "less",
            roomy=ROUNDING,
        )
    yield Plot(
        "Gradient of lily's loss by the modes, at the end",
        "printed",
        "automatic",
        (Series("", *shown, style="points"),),
    )


@claim(
    "mode-strengths",
    "From its actual random weights the network learns each mode along the logistic curve of Eq. 30, from the initial "
    "strength |W1 v + W2^T u|^2 / 4 without the part it shares with faster modes.",
    source="paper Eq. 30, g0 ours",
    compares=(theory("logistic curves"), numerics("u^T W(t) v of the trained network")),
    metric="largest absolute difference of mode strengths",
)
def mode_strengths(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare decoupled modes with the simulated network."""
    modes = experiment.modes
    simulated = experiment.mode_strengths["simulation"].values
    w1, w2 = experiment.initial_weights
    whole = initial_mode_strength(w1, w2, modes.left, modes.right)
    # Of a random column in h dimensions k others explain k / h of the square, give or take (2 k)^(1/2) / h. A change of
    # ln g0 by d shifts a mode by d tau / (2 s) epochs, which is s d / 4 where it is steepest.
    k = np.array([np.sum(modes.values > value) for value in modes.values])
    explained = (k + 3 * np.sqrt(2 * k)) / len(w1)
    largest = -np.log1p(-explained)
    delay, late = experiment.delay, experiment.late_strength
    first_order, second_order = (float((modes.values * largest**power).max() / 4) for power in (1, 2))
    yield Check(
        "max |closed form - simulation|, g0 without the shared part",
        _worst(experiment, modes.initial_strengths),
        high=late + second_order,
        why=f"descent learns {delay:.1f} epochs late ({late:.1e}); second order in the shared part {second_order:.1e}",
    )
    yield Check(
        "the same with the whole g0 = |W1 v + W2^T u|^2 / 4",
        _worst(experiment, whole),
        high=late + first_order + second_order,
        why=f"counting the shared part makes modes early by up to {first_order:.1e} at first order",
    )
    closed = experiment.mode_strengths["closed form"].values
    yield Plot(
        "Modes are learned in stages",
        "epoch",
        "mode strength",
        (
            *(Series("", experiment.epochs, simulated[:, k], colour=0) for k in range(simulated.shape[1])),
            *(Series("", experiment.epochs, closed[:, k], style="dashes", colour=1) for k in range(closed.shape[1])),
            Series("trained network", experiment.epochs[:1], simulated[:1, 0], colour=0),
            Series("closed form", experiment.epochs[:1], closed[:1, 0], style="dashes", colour=1),
        ),
    )


def _worst(experiment: ToyExperiment, initial: np.ndarray) -> float:
    curve = mode_strength(experiment.epochs[:, None], experiment.modes.values, initial, experiment.tau)
    return float(np.abs(curve - experiment.mode_strengths["simulation"].values).max())


@claim(
    "printed-initial-strength",
    "The initial strength of a mode is u^T W2 W1 v at t = 0.",
    source="paper Eqs. 30, 32",
    compares=(theory("logistic curves"), numerics("u^T W(t) v of the trained network")),
    metric="largest absolute difference of mode strengths",
    corrected="g0 = |W1 v + W2^T u|^2 / 4, the strength of the combination of the two layers that grows; equal to the "
    "printed one where the layers are balanced and aligned",
    readings=(
        Reading("random weights of C.1, negative u^T W2 W1 v taken as 0"),
        Reading("random weights of C.1, |u^T W2 W1 v|"),
        Reading("weights that start balanced and aligned with the data (Eqs. 24, 28)", right=True),
    ),
)
def printed_initial_strength(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Start the logistic curves from the product of the layers."""
    modes, (w1, w2) = experiment.modes, experiment.initial_weights
    printed = np.einsum("ok,op,pk->k", modes.left, w2 @ w1, modes.right)
    for reading, start, name in (
        ("random weights of C.1, negative u^T W2 W1 v taken as 0", np.maximum(printed, 0.0), "negative g0 as 0"),
        ("random weights of C.1, |u^T W2 W1 v|", np.abs(printed), "absolute values"),
    ):
        yield Check(
            f"max |closed form - simulation| ({name})",
            _worst(experiment, start),
            low=float(modes.values.min()) / 4,
            why="a mode is shifted by tau / (2 s) ln of the ratio of strengths: s / 4 where it is steepest for a ratio "
            "of e, and a mode with g0 = 0 is never learned at all; the smallest s / 4 is 0.25",
            reading=reading,
            roomy=REFUTES,
        )
    root = np.sqrt(modes.initial_strengths)
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(len(root) + 2, len(root))))[0]
    a, b = (frame * root) @ modes.right.T, modes.left @ (root[:, None] * frame.T)
    flow = gradient_flow(experiment.dataset, a, b, experiment.epochs, tau=experiment.tau).maps.numpy()
    strengths = np.einsum("ok,top,pk->tk", modes.left, flow, modes.right)
    product = np.einsum("ok,op,pk->k", modes.left, b @ a, modes.right)
    curve = mode_strength(experiment.epochs[:, None], modes.values, product, experiment.tau)
    yield Check(
        "max |closed form - flow|, balanced aligned weights",
        float(np.abs(curve - strengths).max()),
        high=1e-7,
        why="exact; DOP853 at 1e-10 grows by s / g0 = 1e4 in the worst case and is 1e-7 of that in practice",
        reading="weights that start balanced and aligned with the data (Eqs. 24, 28)",
        roomy=ROUNDING,
    )
    yield Check(
        "modes with negative u^T W2 W1 v",
        float((printed < 0).sum()),
        low=1.0,
        why="a product of independent layers is symmetric about 0: no negative one among eight has probability 2^-8",
    )
    slowest = int(np.argmin(printed))
    curve = mode_strength(experiment.epochs, modes.values[slowest], max(printed[slowest], 0.0), experiment.tau)
    ours = mode_strength(experiment.epochs, modes.values[slowest], modes.initial_strengths[slowest], experiment.tau)
    simulated = experiment.mode_strengths["simulation"].values[:, slowest]
    yield Plot(
        f"Mode with u^T W2 W1 v = {printed[slowest]:.1e}",
        "epoch",
        "mode strength",
        (
            *curves(experiment.epochs, trained_network=simulated, as_printed=curve),
            *curves(experiment.epochs, "dashes", corrected=ours),
        ),
    )


@claim(
    "matrix-solution",
    "The exact matrix solution, fed the raw unbalanced weights, predicts the whole map along the gradient flow.",
    source="ours (after Fukumizu 1998, Braun et al. 2022)",
    compares=(theory("exact matrix solution"), numerics("gradient flow integrated by DOP853")),
    metric="largest absolute difference of the maps",
)
def matrix_solution(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the matrix solution with the integrated flow."""
    flow = experiment.flow.maps.numpy()
    error = np.abs(experiment.solved_maps - flow).max(axis=(1, 2))
    w1, w2 = experiment.initial_weights
    imbalance = float(np.linalg.norm(w2.T @ w2 - w1 @ w1.T, 2))
    yield Check(
        "max |matrix solution - flow|",
        float(error.max()),
        high=imbalance,
        why=f"the solution assumes balanced layers; the imbalance {imbalance:.1e} adds to the map at first order",
        roomy=WORST + "; its growth with the size of the start is held from both sides by any-size-of-the-start",
    )
    yield Plot("Error of the matrix solution", "epoch", "largest |difference|", curves(experiment.epochs, error=error))


@claim(
    "flow-is-descent",
    "Full-batch gradient descent at the paper's learning rate follows the gradient flow.",
    source="paper C.6 (continuous time)",
    compares=(theory("delay of Euler's method"), numerics("gradient descent"), numerics("gradient flow by DOP853")),
    metric="largest absolute difference of the maps",
)
def flow_is_descent(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare descent with the flow."""
    error = (experiment.checkpoints.maps - experiment.flow.maps).abs().amax((1, 2)).numpy()
    modes = experiment.modes
    delay, late = experiment.delay, experiment.late_strength
    bound = late * float(np.abs(np.outer(modes.left[:, 0], modes.right[:, 0])).max())
    yield Check(
        "max |descent - flow|",
        float(error.max()),
        low=bound / 2,
        high=2 * bound,
        why=f"Euler's first-order error: the fastest mode is {delay:.1f} epochs late, {bound:.1e} where it is "
        "steepest; "
        "slower modes overlap with it and add or subtract less than half of that each",
    )
    flow = experiment.flow.maps.numpy()
    speed = np.gradient(flow, experiment.epochs, axis=0)
    fitted = -float(((experiment.checkpoints.maps.numpy() - flow) * speed).sum() / np.square(speed).sum())
    own = np.log(modes.values / (8 * modes.initial_strengths)) / 4
    mean = float(modes.values**3 @ own / np.sum(modes.values**3))
    yield Check(
        "delay of descent behind the flow, fitted over all entries (epochs)",
        fitted,
        low=mean - 0.2,
        high=mean + 0.2,
        why=f"ln(s / (8 g0)) / 4 half-way up each mode, weighted by the integral of its squared speed, s^3 / (3 tau): "
        f"{mean:.2f} epochs; over a whole rise it varies by 0.2",
    )
    yield Plot("Descent against flow", "epoch", "largest |difference|", curves(experiment.epochs, error=error))


@claim(
    "balance-is-conserved",
    "Training preserves the balance of the layers, W1 W1^T - W2^T W2, so that nearly balanced layers stay so and both "
    "layers carry each mode in equal parts.",
    source="paper Eqs. 27-29",
    compares=(theory("conservation law of the flow"), numerics("trained network and integrated flow")),
    metric="relative change of the imbalance; W1^T W1 against the square root of W^T W",
)
def balance_is_conserved(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Follow the imbalance along descent and flow."""

    def imbalance(w1: torch.Tensor, w2: torch.Tensor) -> np.ndarray:
        return np.asarray((w1 @ w1.mT - w2.mT @ w2).numpy())

    descent = imbalance(experiment.checkpoints.w1, experiment.checkpoints.w2)
    flow = imbalance(experiment.flow.w1, experiment.flow.w2)
    start = np.linalg.norm(descent[0], 2)
    drift = [np.linalg.norm(path - path[0], 2, axis=(1, 2)) / start for path in (descent, flow)]
    yield Check(
        "flow: largest relative change",
        float(drift[1].max()),
        high=float(1e-7 / start),
        why="conserved exactly; DOP853 at 1e-10 accumulates over some hundred steps",
        roomy="the tolerance is on the weights; an error along the flow leaves the balance as it is",
    )
    s, g0 = experiment.modes.values[0], experiment.modes.initial_strengths[0]
    bound = float(s * np.log(s / g0) / experiment.tau)
    yield Check(
        "descent: largest relative change",
        float(drift[0].max()),
        high=bound,
        why="an epoch adds (W2^T E E^T W2 - W1 E^T E W1^T) / tau^2, in which balanced parts cancel: the imbalance "
        "times "
        f"s^2 / tau^2 during tau / (2 s) ln(s / g0) epochs of either layer, {bound:.1e}",
    )
    w1, maps = experiment.checkpoints.w1.numpy(), experiment.checkpoints.maps.numpy()
    gram = np.swapaxes(w1, 1, 2) @ w1
    difference = np.swapaxes(maps, 1, 2) @ maps - gram @ gram
    kept = np.swapaxes(w1, 1, 2) @ descent[0] @ w1
    yield Check(
        "max |W^T W - (W1^T W1)^2 + W1^T (imbalance at the start) W1| / (imbalance x s)",
        float(np.linalg.norm(difference + kept, 2, axis=(1, 2)).max() / (start * s)),
        high=float(drift[0].max()),
        why="an identity with the imbalance at the same time; |W1|^2 <= s times what that has changed, see above",
    )
    yield Check(
        "max |W^T W - (W1^T W1)^2| / s^2",
        float(np.linalg.norm(difference, 2, axis=(1, 2)).max() / s**2),
        high=float(start / s),
        why="so both layers carry each mode in equal parts, up to the imbalance over s",
    )
    yield Plot(
        "Change of the imbalance",
        "epoch",
        "relative to its start",
        (
            *curves(experiment.epochs, gradient_descent=drift[0]),
            *curves(experiment.epochs, "dashes", gradient_flow=drift[1]),
        ),
    )


@claim(
    "modes-align",
    "With small initial weights the network and the data share singular vectors while it learns: the coupling of modes "
    "falls as the weights shrink.",
    source="paper Eq. 24",
    compares=(theory("exact matrix solution"), numerics("networks trained from three sizes of initial weights")),
    metric="largest off-diagonal entry of U^T W(t) V",
)
def modes_align(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Measure the coupling of modes from initial weights of several sizes."""
    sizes = np.array([1e-2, 1e-3, 1e-4])
    found: list[float] = []
    solved: list[float] = []
    shares: list[float] = []
    for sigma in sizes:
        variant = experiment.variant(sigma=float(sigma), epochs=round(experiment.settings.training.epochs * 1.5))
        for maps, result in ((variant.checkpoints.maps.numpy(), found), (variant.solved_maps, solved)):
            core = variant.modes.left.T @ maps @ variant.modes.right
            result.append(float(np.abs(core - core * np.eye(core.shape[1])).max()))
        first, last = delays(variant)
        shares.append((last - first + 0.2) * 2 * float(variant.modes.values[0]) / variant.tau)
    hidden = experiment.settings.training.hidden
    for sigma, a, b, late in zip(sizes, found, solved, shares, strict=True):
        share = late + hidden * sigma**2
        yield Check(
            f"sigma = {sigma:g}: trained / solved",
            a / b,
            low=1 - share,
            high=1 + share,
            roomy="the delay of the fastest rise, and an entry mixes modes whose delays average",
            why=f"a common delay leaves a maximum over time as it is; modes differ in theirs, and along a rise by "
            f"0.2 epochs, {late:.1e} of the fastest one; imbalance h sigma^2",
        )
    s = np.unique(experiment.modes.values)[::-1]
    steps = (sizes[2] / sizes[0]) ** (1 - s[1:] / s[:-1])
    yield Check(
        "largest coupling at sigma = 1e-4 / at 1e-2",
        found[2] / found[0],
        low=float(steps.min()) / 2,
        high=2 * float(steps.max()),
        why="sigma^(1 - s_k / s_j) is what a slower mode has of a faster one's size when that is learned: "
        f"{steps.min():.2f} to {steps.max():.2f} for neighbouring levels; a factor 2 for the overlaps of random "
        "weights",
    )
    yield Plot(
        "Coupling of modes",
        "size of the initial weights",
        "largest off-diagonal entry",
        (*curves(sizes, "points", trained=found), *curves(sizes, "dashes", exact_solution=solved)),
        log="x",
    )


@claim(
    "learns-the-map",
    "Ten thousand epochs suffice: the network has learned W = C up to what the slowest mode still lacks.",
    source="paper C.1, Eq. 31",
    compares=(theory("logistic curve of the slowest mode"), numerics("the trained network's last checkpoint")),
    metric="missing mode strength at the end",
)
def learns_the_map(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare what is missing at the end with what the logistic curves leave."""
    modes, last = experiment.modes, float(experiment.epochs[-1])
    missing = np.linalg.norm(experiment.dataset.syx - experiment.checkpoints.maps[-1].numpy(), 2)
    predicted = float((modes.values - mode_strength(last, modes.values, modes.initial_strengths, experiment.tau)).max())
    shared = float(7 + 3 * np.sqrt(14)) / experiment.settings.training.hidden
    factor = float(np.exp(4 * modes.values.min() ** 2 * last / experiment.tau**2)) / (1 - shared)
    yield Check(
        "missing at the end / predicted",
        float(missing / predicted),
        low=1 / factor,
        high=factor,
        why="s - g = s^2 / g0 e^{-2st/tau}: g0 is known up to the part shared with seven other modes, "
        f"{shared:.2f} of it at most, and descent is late",
    )
    yield Check(
        "missing share of the largest singular value",
        float(missing / modes.values[0]),
        high=factor * predicted / float(modes.values[0]),
        why="the same in units of the largest: ten thousand epochs are enough for three digits",
    )
    left = experiment.dataset.syx - experiment.checkpoints.maps.numpy()
    yield Plot(
        "What is still to learn",
        "epoch",
        "|C - W|",
        curves(experiment.epochs, trained_network=np.linalg.norm(left, 2, axis=(1, 2))),
        log="y",
    )
