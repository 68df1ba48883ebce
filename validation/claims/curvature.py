"""Claims about the Hessian along training and the damped classical influence (paper 2.2, C.4)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.linalg import eigvalsh

from numerics.curvature.linear import gauss_newton, hessian
from validation.charts import Plot, Series, curves
from validation.experiments.toy import GROUPS, ToyExperiment, harm_epochs
from validation.registry import Check, claim, numerics, retraining, theory

__all__: list[str] = []


def _spectrum_at_convergence(experiment: ToyExperiment) -> np.ndarray:
    """Return (s_a + s_b) / N over modes a of W1 and all output directions b: the Gauss-Newton matrix of W = C."""
    s = experiment.modes.values
    outputs = np.concatenate([s, np.zeros(experiment.dataset.n_outputs - len(s))])
    return np.sort((s[:, None] + outputs).ravel())[::-1] / len(experiment.dataset)


@claim(
    "singular-at-the-minimum",
    "At the minimum the Hessian is rank-deficient: its rank is the number of entries of the map, not of the weights.",
    source="paper 2.1, 2.2, C.4 (multiple zero eigenvalues)",
    compares=(theory("eigenvalues (s_a + s_b) / N"), numerics("eigenvalues of the 1150 x 1150 Hessian")),
    metric="largest difference of the leading eigenvalues; number of eigenvalues that are zero",
)
def singular_at_the_minimum(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the spectrum of the last checkpoint with that of W = C."""
    last = experiment.checkpoints
    found = eigvalsh(hessian(experiment.dataset, last.w1[-1], last.w2[-1]).numpy())[::-1]
    predicted = _spectrum_at_convergence(experiment)
    missing = float(np.linalg.norm(experiment.dataset.syx - last.maps[-1].numpy(), 2))
    n = len(experiment.dataset)
    tolerance = 3 * missing / n + 2 * experiment.settings.training.hidden * experiment.settings.training.sigma**2 / n
    yield Check(
        "largest difference of the 120 leading eigenvalues",
        float(np.abs(found[: len(predicted)] - predicted).max()),
        high=tolerance,
        why="what is left to learn enters both layers and the residual, |C - W| / N each; imbalance h sigma^2 / N",
    )
    yield Check(
        "largest of the other eigenvalues",
        float(np.abs(found[len(predicted) :]).max()),
        high=tolerance,
        why="zero at the minimum, of the size of the residual |C - W| / N before",
    )
    yield Check(
        "share of directions that leave the loss as it is",
        1 - len(predicted) / len(found),
        low=0.5,
        why="1150 weights make a map of 120 entries",
    )
    yield Plot(
        "Eigenvalues of the Hessian at the end",
        "rank",
        "eigenvalue",
        (
            Series("Hessian", np.arange(1, 301), np.maximum(found[:300], 1e-8)),
            Series("predicted", np.arange(1, 121), predicted, style="dashes"),
        ),
        log="y",
    )


@claim(
    "indefinite-hessian",
    "Before convergence the Hessian is not invertible in the sense the classical influence needs: it has negative "
    "eigenvalues at every checkpoint, at the start as large as the positive ones.",
    source="paper 2.2 (ill-defined at intermediate checkpoints), C.4",
    compares=(theory("eigenvalues +- s_k / N at zero weights"), numerics("Hessian of every checkpoint")),
    metric="extreme eigenvalues and number of negative ones",
)
def indefinite_hessian(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the first checkpoint with zero weights and report the others."""
    found = experiment.hessian
    s, n = experiment.modes.values, len(experiment.dataset)
    config = experiment.settings.training
    size = float(max(np.linalg.norm(w, 2) for w in experiment.initial_weights))
    tolerance = size**2 + size
    for name, sign in (("max_abs_eigenvalue", 1), ("min_eigenvalue", -1)):
        yield Check(
            f"{name.replace('_', ' ')} at the start / (s_1 / N)",
            sign * float(found[name][0]) / (s[0] / n),
            low=1 - tolerance,
            high=1 + tolerance,
            why=f"at zero weights H = -[[0, E^T], [E, 0]] / N in every hidden unit; weights of norm {size:.3f} add "
            "their "
            "square and turn E by less",
        )
    yield Check(
        "negative eigenvalues at the start / (modes x hidden units)",
        float(found["negative_eigenvalues"][0]) / (len(s) * config.hidden),
        low=1.0,
        high=1.0,
        why="one for every mode and hidden unit",
    )
    ratio = found["min_eigenvalue"] / found["max_abs_eigenvalue"]
    yield Check(
        "checkpoints with a negative eigenvalue beyond rounding",
        float((ratio < -1e-10).mean()),
        low=1.0,
        why="idle hidden units see -sigma(E) / N as long as anything is left to learn",
    )
    yield Plot(
        "Smallest eigenvalue over the largest absolute one",
        "epoch",
        "ratio",
        curves(experiment.epochs, ratio=ratio),
        zero=True,
    )


@claim(
    "damping-restores",
    "A suitable damping makes every eigenvalue positive: c times the largest absolute eigenvalue does at every "
    "checkpoint "
    "for c > 1, and for the smaller constants of the paper's range only late.",
    source="paper C.4, Eqs. 17, 20",
    compares=(theory("H + c max|eig| is positive for c > 1"), numerics("Hessian of every checkpoint")),
    metric="share of checkpoints with H + lambda positive definite",
)
def damping_restores(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Count the checkpoints at which the damped Hessian is positive definite."""
    found = experiment.hessian
    ratio = -(found["min_eigenvalue"] / found["max_abs_eigenvalue"]).values
    shares = {c: float((ratio < c).mean()) for c in experiment.settings.damping}
    largest, smallest = max(shares), min(shares)
    yield Check(f"c = {largest:g}", shares[largest], low=1.0, why="|min eig| <= max |eig| by definition")
    yield Check(
        f"c = {smallest:g}",
        shares[smallest],
        high=0.5,
        why="min / max is -1 at the start and falls with the residual, which is above 1e-3 until the last mode is "
        "learned",
    )
    constants = list(shares)
    yield Plot(
        "Where the damped Hessian is positive definite",
        "damping constant c",
        "share of checkpoints",
        curves(constants, "points", positive=[shares[c] for c in constants]),
        log="x",
    )


@claim(
    "gauss-newton-is-hessian-late",
    "The Gauss-Newton matrix is the Hessian of the linearised network: they differ by the residual, and agree at "
    "convergence.",
    source="paper C.4, Eqs. 18-19",
    compares=(theory("norm of the residual / N"), numerics("both matrices at every tenth checkpoint")),
    metric="largest eigenvalue of the difference over |E| / N",
)
def gauss_newton_is_hessian_late(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the two matrices in the hidden directions that carry weight."""
    data, run = experiment.dataset, experiment.checkpoints
    rows = np.arange(0, len(run), max(1, len(run) // 5))
    found, predicted = [], []
    for k in rows:
        w1, w2 = run.w1[k][:6], run.w2[k][:, :6]  # any six units of the hidden layer show the difference
        error = data.syx - (w2 @ w1).numpy()
        found.append(np.linalg.norm((hessian(data, w1, w2) - gauss_newton(data, w1, w2)).numpy(), 2))
        predicted.append(np.linalg.norm(error, 2) / len(data))
    yield Check(
        "max |found / predicted - 1|",
        float(np.abs(np.array(found) / predicted - 1).max()),
        high=1e-10,
        why="H - G = -[[0, E^T], [E, 0]] / N in every hidden unit, with eigenvalues +- sigma(E) / N; rounding",
    )
    epochs = run.epochs
    whole = np.linalg.norm(data.syx - run.maps.numpy(), 2, axis=(1, 2)) / len(data)
    yield Plot(
        "Distance of Hessian and Gauss-Newton matrix", "epoch", "|H - G|", curves(epochs, distance=whole), log="y"
    )


@claim(
    "classical-shows-stages",
    "The damped classical influence shows the stages too: with strong damping it changes sign and peaks in the "
    "order of "
    "the hierarchy.",
    source="paper 3, C.4, Figs. 9-10",
    compares=(
        theory("-K / (N lambda) in the limit of strong damping"),
        numerics("damped Hessian, c = 1e-3 to 10"),
        retraining("leave-one-out"),
    ),
    metric="epochs of the strongest harm of dog to plants, birds and cat",
)
def classical_shows_stages(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Find the peaks of the damped Hessian influence for every damping constant."""
    spacing = float(np.diff(experiment.epochs).max())
    strongest = max(experiment.settings.damping)
    influence = experiment.hessian["influence"]
    peaks = {c: harm_epochs(influence.sel(damping=c)) for c in experiment.settings.damping}
    kernel, retrained = harm_epochs(-experiment.kernel), harm_epochs(experiment.retrained)
    yield Check(
        f"c = {strongest:g}: smallest gap between the peaks (epochs)",
        float(np.diff(peaks[strongest]).min()),
        low=spacing,
        why="in the order plants, birds, cat, by at least one checkpoint",
    )
    yield Check(
        f"c = {strongest:g}: largest distance from the peaks of the gradient kernel (epochs)",
        float(np.abs(peaks[strongest] - kernel).max()),
        high=2 * spacing,
        why="(H + lambda)^-1 = (1 - H / lambda + ...) / lambda tilts the kernel by 1 / c; a checkpoint on either side",
    )
    earliest = float(np.diff(retrained).min())
    yield Check("leave-one-out: smallest gap between its peaks (epochs)", earliest, low=spacing, why="the same order")
    yield Check(
        f"weakest damping, c = {min(peaks):g}: largest distance from the peaks of the kernel (epochs)",
        float(np.abs(peaks[min(peaks)] - kernel).max()),
    )
    yield Plot(
        "Strongest harm of dog",
        "damping constant c",
        "epoch",
        tuple(
            Series(name, np.array(list(peaks)), np.array([p[k] for p in peaks.values()]), style="points")
            for k, name in enumerate(GROUPS)
        ),
        log="x",
    )
