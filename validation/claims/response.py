"""Claims about the response of the learned map to one sample: printed and exact (paper Eqs. 36-38, 57-58)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from numerics import gradient_flow
from theory import (
    Dataset,
    Modes,
    influence_trajectory,
    paper_svd_response,
    spectral_derivative,
    svd_response,
)
from validation.agreement import agreement, without_self
from validation.charts import Plot, Series, curves
from validation.claims.svd_response import COMBINATIONS, STEP, relative_difference
from validation.expectations import five_points, flow_derivative
from validation.experiments.map_response import map_response, strength_and_slope
from validation.experiments.toy import ToyExperiment
from validation.registry import CAUCHY, REFUTES, ROUNDING, Check, Reading, claim, numerics, retraining, theory

__all__: list[str] = []

_STRENGTH = 1e-3  # common initial strength of the aligned balanced weights


@claim(
    "printed-influence-on-the-map",
    "The learned map responds by dW = U (A G + G' dS + G B) V^T with the printed A and B.",
    source="paper Eqs. 50-51, 58",
    compares=(theory("printed and exact formula"), numerics("finite difference of U g(S) V^T through LAPACK's SVD")),
    metric="largest relative error of dW over time, source dog",
    corrected="dW = U [G1 o sym(Q) + G2 o skew(Q)] V^T, G1 = (g_j - g_k) / (s_j - s_k), G2 = (g_j + g_k) / (s_j + s_k)",
    readings=tuple(Reading(name) for name in COMBINATIONS),
)
def printed_influence_on_the_map(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare printed and exact responses of U g(S) V^T with a finite difference through LAPACK's SVD."""
    data = experiment.dataset
    c, change = data.syx, np.outer(data.targets[0], data.inputs[0])
    times = np.array([1000.0, 2000.0, 3000.0, 5000.0, 8000.0])
    spectral = map_response(experiment, "spectral", epochs=times).values
    errors: dict[str, list[float]] = {name: [] for name in ("exact", *COMBINATIONS)}
    uncertain = 0.0
    for t, exact in zip(times, spectral, strict=True):
        strength, slope = strength_and_slope(experiment, float(t))

        def learned(eps: float, strength: Callable[[np.ndarray], np.ndarray] = strength) -> np.ndarray:
            u, s, vt = np.linalg.svd(c + eps * change, full_matrices=False)
            return (u * strength(s)) @ vt

        reference, error = five_points(learned, STEP)
        uncertain = max(uncertain, error)
        errors["exact"].append(relative_difference(exact, reference))
        response = paper_svd_response(c, change, "P1")
        u, v, g = response.u, response.v, strength(response.s)
        middle = np.diag(slope(response.s) * response.ds)
        turned = {"Q_jk": (u.T @ response.du, response.dv.T @ v)}
        turned["Q_kj"] = (-turned["Q_jk"][0].T, -turned["Q_jk"][1].T)  # Q_jk / (s_k - s_j) with j and k exchanged
        for name, (first, second) in COMBINATIONS.items():
            printed = u @ (turned[first][0] * g + middle + g[:, None] * turned[second][1]) @ v.T
            errors[name].append(relative_difference(printed, reference))
    yield Check(
        "spectral derivative: largest relative error in dW",
        max(errors["exact"]),
        high=uncertain + 1e-12,
        why="a fifteenth of what the five-point difference changes when its step doubles; rounding of LAPACK's vectors",
    )
    for name in COMBINATIONS:
        yield Check(
            f"{name}: largest relative error in dW",
            max(errors[name]),
            low=5e-2,
            why="far above the error of the finite difference, so the deviation is the formula's own",
            reading=name,
            roomy=REFUTES,
        )
    yield Plot(
        "Error of dW, source dog",
        "epoch",
        "relative error",
        tuple(Series(name, times, np.array(line)) for name, line in errors.items()),
        log="y",
    )


_VECTORS, _MAP = "the singular vectors", "the learned map and its influence"


@claim(
    "near-degenerate",
    "Where singular values nearly coincide the response is ill-defined, and their blocks must be treated at once.",
    source="paper C.6, Eqs. 50-52",
    compares=(
        theory("response of the vectors; spectral derivative, which has no blocks"),
        numerics("finite difference of U g(S) V^T through LAPACK's SVD"),
    ),
    metric="size of the rotation against the gap; relative error of dW at every gap",
    corrected="the vectors turn by one over the gap, but what turns cancels in the map: its derivative has a limit, "
    "to which the "
    "spectral derivative goes without blocks",
    readings=(Reading(_VECTORS, right=True), Reading(_MAP)),
)
def near_degenerate(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Let two singular values approach each other."""
    random = experiment.random("nearly degenerate values")
    u, v = (np.linalg.qr(random.normal(size=(n, 3)))[0] for n in (5, 3))
    change = random.normal(size=(5, 3))
    gaps = np.array([1e-1, 1e-2, 1e-4, 1e-6])
    strength, slope = strength_and_slope(experiment, 1500.0)
    turned, errors, uncertain = [], [], []
    for gap in gaps:
        c = (u * [3.0, 2.0 + gap, 2.0]) @ v.T
        turned.append(float(np.abs(svd_response(c, change).du).max()))

        def learned(eps: float, c: np.ndarray = c) -> np.ndarray:
            left, s, right = np.linalg.svd(c + eps * change, full_matrices=False)
            return (left * strength(s)) @ right

        reference, error = five_points(learned, STEP)
        errors.append(relative_difference(spectral_derivative(c, change, strength, slope), reference))
        uncertain.append(error)
    exponent = float(np.polyfit(np.log(gaps[1:]), np.log(turned[1:]), 1)[0])
    yield Check(
        "exponent of the rotation in the gap",
        exponent,
        low=-1.02,
        high=-0.98,
        why="(s_k Q_jk + s_j Q_kj) / (s_k^2 - s_j^2): -1 up to the gap itself",
        reading=_VECTORS,
        roomy="the gap is a hundredth at most",
    )
    for gap, found, error in zip(gaps, errors, uncertain, strict=True):
        yield Check(
            f"gap {gap:g}: relative error of the spectral derivative of the map",
            found,
            high=error + 1e-12,
            why="a fifteenth of what the five-point difference changes when its step doubles; rounding of LAPACK's "
            "vectors",
            reading=_MAP,
            roomy=ROUNDING,
        )
    yield Plot(
        "Two values approach each other",
        "gap",
        "size",
        curves(gaps, rotation_of_vectors=turned, error_of_the_map=errors),
        log="xy",
    )


@claim(
    "derivative-of-the-flow",
    "The fixed-init and sample-weight formulas are the derivatives of the gradient flow from aligned balanced weights.",
    source="ours",
    compares=(theory("closed forms"), numerics("five-point differences of the flow integrated by DOP853")),
    metric="largest difference over the largest influence",
)
def derivative_of_the_flow(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare two formulas with finite differences of the flow from aligned balanced weights."""
    modes = _aligned(experiment)
    epochs = np.array([400.0, 1000.0, 2000.0, 4000.0])
    for formula in ("fixed-init", "sample-weight"):
        closed = influence_trajectory(experiment.dataset, epochs, tau=experiment.tau, g0=modes, formula=formula)
        worst, uncertain = 0.0, 0.0
        for source in (0, 3):
            reference, error = _flow_derivative(experiment, modes, source, epochs, only_targets=formula == "fixed-init")
            worst = max(worst, np.abs(closed.values[:, source] - reference).max() / np.abs(reference).max())
            uncertain = max(uncertain, error * float(np.linalg.norm(reference) / np.abs(reference).max()))
        yield Check(
            f"{formula}: max relative difference from the five-point derivative of the flow",
            float(worst),
            high=uncertain + 1e-13 / STEP,
            why="a fifteenth of what the difference changes when its step doubles; the flow's 1e-13 over the step",
            roomy=ROUNDING,
        )
    shown = influence_trajectory(experiment.dataset, epochs, tau=experiment.tau, g0=modes).values[:, 3]
    yield Plot(
        "Influence of penguin, t = 2000",
        "query",
        "influence",
        (
            Series("flow", np.arange(8), reference[2], style="bars"),
            Series("sample-weight formula", np.arange(8), shown[2], style="points"),
        ),
        zero=True,
    )


def _aligned(experiment: ToyExperiment) -> Modes:
    modes = experiment.modes
    return Modes(modes.left, modes.values, modes.right, np.full(len(modes.values), _STRENGTH))


def _flow_derivative(
    experiment: ToyExperiment, modes: Modes, source: int, epochs: np.ndarray, only_targets: bool
) -> tuple[np.ndarray, float]:
    """Differentiate the losses along the integrated flow by one sample's weight, or by its part in Y^T X only."""
    data = experiment.dataset
    root = np.sqrt(modes.initial_strengths)
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(len(root) + 2, len(root))))[0]
    w1, w2 = (frame * root) @ modes.right.T, modes.left @ (root[:, None] * frame.T)

    def losses(eps: float) -> np.ndarray:
        weights, targets = np.ones(len(data)), data.targets.copy()
        if only_targets:
            targets[source] *= 1 + eps  # changes Y^T X and leaves X^T X
        else:
            weights[source] += eps
        changed = Dataset(data.inputs, targets, data.names)
        flow = gradient_flow(changed, w1, w2, epochs, tau=experiment.tau, weights=weights, tolerance=1e-13)
        return np.asarray(0.5 * np.sum((flow.maps.numpy() @ data.inputs.T - data.targets.T) ** 2, axis=1))

    return five_points(losses, STEP)


@claim(
    "weights-follow-the-data",
    "The perturbed network at time t has the singular vectors of the perturbed data, U(eps) G(S(eps)) V(eps)^T, "
    "although "
    "its initial weights do not: what they withhold decays as e^{-(s_j + s_k) t / tau}.",
    source="paper Eq. 38, decay ours",
    compares=(theory("spectral and fixed-init formula"), numerics("finite differences of the flow, targets scaled")),
    metric="largest difference over the largest influence of the same epoch, sources dog and penguin",
)
def weights_follow_the_data(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the derivative whose initial weights follow the data with the one whose weights stay."""
    modes, tau = _aligned(experiment), experiment.tau
    epochs = np.array([200.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0])
    following = influence_trajectory(experiment.dataset, epochs, tau=tau, g0=_STRENGTH, formula="spectral").values
    staying = influence_trajectory(experiment.dataset, epochs, tau=tau, g0=modes, formula="fixed-init").values
    pairs = [_flow_derivative(experiment, modes, i, epochs, only_targets=True) for i in (0, 3)]
    flow = np.stack([pair[0] for pair in pairs], axis=1)
    size = np.abs(flow).max(axis=(1, 2))
    follow, stay = (np.abs(v[:, [0, 3]] - flow).max(axis=(1, 2)) / size for v in (following, staying))
    # the error of the difference is one of all epochs together; an epoch's own largest influence may be a smaller one
    error = max(pair[1] for pair in pairs) * float(np.linalg.norm(flow) / size.min())
    yield Check(
        "weights that stay: largest difference from the flow",
        float(stay.max()),
        high=error,
        why="a fifteenth of what the difference changes when its step doubles, over the smallest epoch's influence",
        roomy="errors of the largest epoch are counted against the smallest",
    )
    sums = modes.values[:, None] + modes.values
    skew = np.exp(-sums[~np.eye(len(sums), dtype=bool)][:, None] * epochs / tau)
    yield Check(
        "weights that follow: difference at the latest epoch",
        float(follow[-1]),
        high=float(skew[:, -1].max() + error),
        why=f"e^{{-2 s t / tau}} of the slowest pair of modes, {skew[:, -1].max():.0e}; error as above",
        roomy="every pair but the slowest has decayed further, and dog and penguin meet that one least",
    )
    yield Check(
        "weights that follow: difference at the earliest epoch",
        float(follow[0]),
        low=float(skew[:, 0].min()) / 10,
        why=f"between e^{{-(s_j + s_k) t / tau}} of the fastest and the slowest pair, {skew[:, 0].min():.2f} to "
        f"{skew[:, 0].max():.2f}, of a skew part that is a fraction of the whole",
    )
    yield Plot(
        "Difference from the flow",
        "epoch",
        "relative to the largest influence then",
        curves(epochs, weights_follow=follow, weights_stay=stay),
        log="y",
    )


_CORRELATION, _ALONE = "Eq. 36 alone: the correlation C = Y^T X", "Eqs. 36-38: the weight acts through C alone"


@claim(
    "printed-moment",
    "A sample's weight changes the input-output correlation C by y x^T, and acts on the learned map through it alone.",
    source="paper Eqs. 36-38",
    compares=(
        theory("sample-weight, fixed-init formula and weighted flow"),
        numerics("gradients of the weighted losses by automatic differentiation"),
        retraining("central difference at weights 1 +- 1e-3"),
    ),
    metric="parts of the gradient that the weight moves; Pearson over pairs and epochs against those expected",
    corrected="C does change by y x^T; X^T X changes by x x^T as well, so that dW gains -G(u) V^T (d X^T X) V in the "
    "driving force",
    readings=(Reading(_CORRELATION, right=True), Reading(_ALONE)),
)
def printed_moment(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Differentiate the driving force by a weight, and compare both formulas with the retrained derivative."""
    data = experiment.dataset
    inputs, targets = torch.tensor(data.inputs), torch.tensor(data.targets)
    weight = torch.ones(len(data), dtype=torch.float64, requires_grad=True)
    moved = []
    for at in (torch.zeros_like(torch.tensor(data.syx)), torch.tensor(experiment.solved_maps[20])):
        w = at.clone().requires_grad_()
        loss = (weight * (targets - inputs @ w.mT).square().sum(1)).sum() / 2
        (force,) = torch.autograd.grad(loss, w, create_graph=True)
        rows = [torch.autograd.grad(entry, weight, retain_graph=True)[0][0] for entry in -force.flatten()]
        moved.append(torch.stack(rows).reshape(w.shape).numpy())
    outer = np.outer(data.targets[0], data.inputs[0])
    yield Check(
        "d (driving force at W = 0) / d weight of dog against y x^T",
        float(np.abs(moved[0] - outer).max()),
        high=1e-12,
        why="at W = 0 the force is C; rounding",
        reading=_CORRELATION,
        roomy=ROUNDING,
    )
    part = experiment.solved_maps[20] @ np.outer(data.inputs[0], data.inputs[0])
    yield Check(
        f"the same at the map of epoch {experiment.epochs[20]:.0f}: its distance from y x^T over that of W x x^T",
        float(np.linalg.norm(moved[1] - outer) / np.linalg.norm(part)),
        low=1 - 1e-12,
        high=1 + 1e-12,
        why="0 if the weight acted through C alone; 1 by -W d(X^T X); rounding",
        reading=_ALONE,
        roomy=ROUNDING,
    )
    truth, expected = (without_self(a) for a in (experiment.retrained_derivative, flow_derivative(experiment)))
    only = experiment.closed_form("fixed-init", experiment.modes)
    late = agreement(expected, truth)
    for name, formula, reading in (
        ("sample-weight formula", experiment.sample_weight, ""),
        ("Syx-only formula", only, _ALONE),
    ):
        found, predicted = (1 - agreement(a, without_self(formula)).pearson for a in (truth, expected))
        share = 2 * float(np.sqrt((1 - late.pearson) / predicted))
        yield Check(
            f"{name}: 1 - Pearson with the retrained derivative / the same with the derivative of the flow",
            found / predicted,
            low=1 - share,
            high=1 + share,
            why=f"decoupled modes cost {predicted:.4f} against the flow from the same weights; descent turns the "
            f"derivative by an angle of which the correlation loses {1 - late.pearson:.1e}",
            reading=reading,
            roomy=CAUCHY,
        )
    wrong, right = (1 - agreement(expected, without_self(a)).pearson for a in (only, experiment.sample_weight))
    yield Check(
        "1 - Pearson of the Syx-only formula with the derivative of the flow / the same of the full one",
        wrong / right,
        low=2.0,
        why="it leaves out a term, so it is worse by more than decoupling explains",
        reading=_ALONE,
        roomy=REFUTES,
    )
    pair = {"source": "dog", "query": "cat"}
    yield Plot(
        "Influence of dog on cat",
        "epoch",
        "influence",
        (
            *curves(
                experiment.epochs,
                retrained_derivative=experiment.retrained_derivative.sel(pair),
                Y_and_X_change=experiment.sample_weight.sel(pair),
            ),
            *curves(experiment.epochs, "dashes", only_Y_changes=only.sel(pair)),
        ),
        zero=True,
    )
