"""Claims about the response of the learned map to one sample: printed and exact (paper Eqs. 36-38, 57-58)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from numerics import gradient_flow
from theory import Dataset, Modes, influence_trajectory, mode_strength
from validation.agreement import agreement, without_self
from validation.charts import Plot, Series, curves
from validation.claims.svd_response import STEP, five_points, relative_difference
from validation.experiments.map_response import FORMULAS, map_response
from validation.experiments.toy import ToyExperiment
from validation.registry import Check, claim, numerics, retraining, theory

__all__: list[str] = []

_STRENGTH = 1e-3  # common initial strength of the aligned balanced weights


@claim(
    "printed-influence-on-the-map",
    "The learned map responds by dW = U (A G + G' dS + G B) V^T with the printed A and B.",
    source="paper Eqs. 50-51, 58",
    compares=(theory("printed and exact formula"), numerics("finite difference of U g(S) V^T through LAPACK's SVD")),
    metric="largest relative error of dW over time, source dog",
    corrected="dW = U [G1 o sym(Q) + G2 o skew(Q)] V^T, G1 = (g_j - g_k) / (s_j - s_k), G2 = (g_j + g_k) / (s_j + s_k)",
)
def printed_influence_on_the_map(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare printed and exact responses of U g(S) V^T with a finite difference through LAPACK's SVD."""
    data = experiment.dataset
    c, change = data.syx, np.outer(data.targets[0], data.inputs[0])
    g0, tau = experiment.mean_strength, experiment.tau
    times = np.array([1000.0, 2000.0, 3000.0, 5000.0, 8000.0])
    found = {formula: map_response(experiment, formula, epochs=times).values for formula in FORMULAS}
    errors: dict[str, list[float]] = {formula: [] for formula in FORMULAS}
    for k, t in enumerate(times):

        def learned(eps: float, t: float = t) -> np.ndarray:
            u, s, vt = np.linalg.svd(c + eps * change, full_matrices=False)
            return (u * mode_strength(t, s, g0, tau)) @ vt

        reference = five_points(learned)
        for formula in FORMULAS:
            errors[formula].append(relative_difference(found[formula][k], reference))
    yield Check(
        "spectral derivative: largest relative error in dW",
        max(errors["spectral"]),
        high=1e-5,
        why="five-point truncation: (1e-3)^4 / 30 times (2 t / tau)^5 = 4e5 at the latest time; rounding 1e-13 / 1e-3",
    )
    for variant in ("P1", "P2"):
        yield Check(
            f"printed formula, reading {variant}: largest relative error in dW",
            max(errors[f"paper-{variant}"]),
            low=5e-2,
            why="far above the error of the finite difference (1e-5), so the deviation is the formula's own",
        )
    yield Plot(
        "Error of dW, source dog",
        "epoch",
        "relative error",
        curves(times, reading_P1=errors["paper-P1"], reading_P2=errors["paper-P2"], exact=errors["spectral"]),
        log="y",
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
        worst = 0.0
        for source in (0, 3):
            reference = _flow_derivative(experiment, modes, source, epochs, only_targets=formula == "fixed-init")
            worst = max(worst, np.abs(closed.values[:, source] - reference).max() / np.abs(reference).max())
        yield Check(
            f"{formula}: max relative difference from the five-point derivative of the flow",
            float(worst),
            high=1e-7,
            why="truncation (1e-3)^4 / 30 times a fifth derivative below (2 s t / tau)^5 = 1e6; flow 1e-13 / 1e-3",
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
) -> np.ndarray:
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

    return five_points(losses)


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
    flow = np.stack([_flow_derivative(experiment, modes, i, epochs, only_targets=True) for i in (0, 3)], axis=1)
    size = np.abs(flow).max(axis=(1, 2))
    follow, stay = (np.abs(v[:, [0, 3]] - flow).max(axis=(1, 2)) / size for v in (following, staying))
    fifth = (2 * modes.values[-1] * epochs[-1] / tau) ** 5 * float(modes.values[0] / modes.values[-1]) ** 5
    yield Check(
        "weights that stay: largest difference from the flow",
        float(stay.max()),
        high=STEP**4 / 30 * fifth,
        why="five-point truncation with a fifth derivative of (2 s t / tau)^5 at the latest epoch",
    )
    pairs = modes.values[:, None] + modes.values
    skew = np.exp(-pairs[~np.eye(len(pairs), dtype=bool)][:, None] * epochs / tau)
    yield Check(
        "weights that follow: difference at the latest epoch",
        float(follow[-1]),
        high=float(skew[:, -1].max() + STEP**4 / 30 * fifth),
        why=f"e^{{-2 s t / tau}} of the slowest pair of modes, {skew[:, -1].max():.0e}; truncation as above",
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


@claim(
    "printed-moment",
    "A sample's weight acts through the input-output correlation Y^T X alone.",
    source="paper Eq. 36",
    compares=(theory("sample-weight and fixed-init formula"), retraining("central difference at weights 1 +- 1e-3")),
    metric="Pearson over pairs and epochs; relative difference of the two formulas",
    corrected="it changes X^T X as well: dW gains -G(u) V^T (d X^T X) V in the driving force",
)
def printed_moment(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the full and the Syx-only formula with the retrained derivative."""
    truth = without_self(experiment.retrained_derivative)
    only = experiment.closed_form("fixed-init", experiment.modes)
    full = agreement(truth, without_self(experiment.sample_weight))
    partial = agreement(truth, without_self(only))
    yield Check(
        "1 - Pearson of the sample-weight formula",
        1 - full.pearson,
        high=1 / experiment.settings.training.hidden,
        why="the growing parts of two modes overlap by h^(-1/2) of their size in random weights; a relative error d "
        "lowers a correlation by d^2 / 2, and d may be twice that overlap's share in both layers: 1 / h",
    )
    yield Check(
        "1 - Pearson of the Syx-only formula / the same of the full one",
        (1 - partial.pearson) / (1 - full.pearson),
        low=2.0,
        why="it leaves out a term, so it is worse by more than decoupling explains",
    )
    relative = float(np.linalg.norm(only - experiment.sample_weight) / np.linalg.norm(experiment.sample_weight))
    yield Check("relative difference of the two formulas", relative, low=0.05, why="far above rounding")
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
