"""Claims about the Hessian along training and the damped classical influence (paper 2.2, C.4)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.linalg import eigvalsh

from numerics.curvature.linear import gauss_newton, hessian
from theory import Dataset
from validation.charts import Plot, Series, curves
from validation.expectations import delays, fit, lag, smooth, solved_kernel
from validation.experiments.toy import GROUPS, ToyExperiment, group_means, harm_epochs
from validation.registry import ORDER, ROUNDING, WORST, Check, claim, numerics, retraining, theory

__all__: list[str] = []


def _positive(matrix: np.ndarray) -> bool:
    """Return whether a symmetric matrix is positive definite, by Cholesky's factorisation."""
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


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
    tolerance = size**2 + size / 100
    for name, sign in (("max_abs_eigenvalue", 1), ("min_eigenvalue", -1)):
        yield Check(
            f"{name.replace('_', ' ')} at the start / (s_1 / N)",
            sign * float(found[name][0]) / (s[0] / n),
            low=1 - tolerance,
            high=1 + tolerance,
            why=f"at zero weights H = -[[0, E^T], [E, 0]] / N in every hidden unit; weights of norm {size:.3f} add "
            "their square, and E turns by their product",
            roomy=WORST,
        )
    yield Check(
        "negative eigenvalues at the start / (modes x hidden units)",
        float(found["negative_eigenvalues"][0]) / (len(s) * config.hidden),
        low=1.0,
        high=1.0,
        why="one for every mode and hidden unit",
    )
    ratio = found["min_eigenvalue"] / found["max_abs_eigenvalue"]
    left = np.linalg.norm(experiment.dataset.syx - experiment.solved_maps, 2, axis=(1, 2)) / n
    first, last = delays(experiment)
    rate = float(2 * s[0] / experiment.tau)
    deviation = -found["min_eigenvalue"].values / left - 1
    yield Check(
        "largest |min eigenvalue / (sigma_max(E) / N) + 1| over training, E of the exact solution",
        float(np.abs(deviation).max()),
        low=first * float(2 * s[-1] / experiment.tau) / 2,
        high=last * rate + size**2,
        why="a hidden unit without weights has H = -[[0, E^T], [E, 0]] / N; what is left falls by 2 s / tau an epoch, "
        "and "
        f"descent is {first:.1f} to {last:.1f} epochs late",
    )
    dense = np.array([0, 20, 40])
    for k in dense:
        matrix = hessian(experiment.dataset, experiment.checkpoints.w1[k], experiment.checkpoints.w2[k]).numpy()
        lowest = float(found["min_eigenvalue"][k])
        passes = [_positive(matrix - share * lowest * np.eye(len(matrix))) for share in (0.999, 1.001)]
        yield Check(
            f"epoch {experiment.epochs[k]:.0f}: Cholesky's factor of the dense H + lambda exists at 1.001 times -min "
            "eig and "
            "not at 0.999",
            float(passes == [False, True]),
            low=1.0,
            why="positive definite or not, without an eigenvalue",
        )
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
    expected = np.linalg.norm(experiment.dataset.syx - experiment.solved_maps, 2, axis=(1, 2)) / len(experiment.dataset)
    expected /= found["max_abs_eigenvalue"].values
    for c, share in shares.items():
        predicted = float((expected < c).mean())
        if c > 1:
            continue  # |min eig| <= max |eig| by definition
        yield Check(
            f"c = {c:g}: share of checkpoints",
            share,
            low=predicted - 1.01 / len(ratio),
            high=predicted + 1.01 / len(ratio),
            why=f"{predicted:.2f} by what the exact solution has left to learn, sigma_max(E) / N, over max |eig|; a "
            "checkpoint "
            "on either side",
            roomy="whole checkpoints",
        )
    constant = max(shares)
    for k in (0, 20, 40):
        matrix = hessian(experiment.dataset, experiment.checkpoints.w1[k], experiment.checkpoints.w2[k]).numpy()
        size = float(found["max_abs_eigenvalue"][k])
        for c, possible in ((constant, True), (1.001 * float(ratio[k]), True), (0.999 * float(ratio[k]), False)):
            yield Check(
                f"epoch {experiment.epochs[k]:.0f}, c = {c:.4g}: Cholesky's factor of the dense H + c max |eig| exists",
                float(_positive(matrix + c * size * np.eye(len(matrix)))),
                low=float(possible),
                high=float(possible),
                why="positive definite above |min eig| / max |eig|, and not below",
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
    compares=(
        theory("norm of the residual / N"),
        numerics("both matrices at five checkpoints"),
        numerics("the same by automatic differentiation"),
    ),
    metric="largest eigenvalue of the difference over |E| / N; difference from automatic differentiation",
)
def gauss_newton_is_hessian_late(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the two matrices in the hidden directions that carry weight."""
    data, run = experiment.dataset, experiment.checkpoints
    rows = np.arange(0, len(run), max(1, len(run) // 5))
    found, predicted, apart = [], [], []
    for k in rows:
        w1, w2 = run.w1[k][:6], run.w2[k][:, :6]  # any six units of the hidden layer show the difference
        error = data.syx - (w2 @ w1).numpy()
        found.append(np.linalg.norm((hessian(data, w1, w2) - gauss_newton(data, w1, w2)).numpy(), 2))
        predicted.append(np.linalg.norm(error, 2) / len(data))
        dense, linear = _by_autograd(data, w1, w2)
        for own, other in ((hessian(data, w1, w2), dense), (gauss_newton(data, w1, w2), linear)):
            apart.append(float((own - other).abs().max() / other.abs().max()))
    yield Check(
        "Hessian and Gauss-Newton matrix against automatic differentiation, largest relative difference",
        max(apart),
        high=1e-10,
        why="torch's Hessian of the mean loss, and J^T J / N with torch's Jacobian of the outputs; rounding",
        roomy=ROUNDING,
    )
    yield Check(
        "max |found / predicted - 1|",
        float(np.abs(np.array(found) / predicted - 1).max()),
        high=1e-10,
        why="H - G = -[[0, E^T], [E, 0]] / N in every hidden unit, with eigenvalues +- sigma(E) / N; rounding",
        roomy=ROUNDING,
    )
    epochs = run.epochs
    whole = np.linalg.norm(data.syx - run.maps.numpy(), 2, axis=(1, 2)) / len(data)
    yield Plot(
        "Distance of Hessian and Gauss-Newton matrix", "epoch", "|H - G|", curves(epochs, distance=whole), log="y"
    )


def _by_autograd(data: Dataset, w1: torch.Tensor, w2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Hessian and Gauss-Newton matrix of the mean of 1/2 |y - W2 W1 x|^2, weights in the order (W1, W2)."""
    inputs, targets = torch.tensor(data.inputs), torch.tensor(data.targets)
    flat = torch.cat([w1.flatten(), w2.flatten()])

    def outputs(weights: torch.Tensor) -> torch.Tensor:
        first, second = weights[: w1.numel()].reshape(w1.shape), weights[w1.numel() :].reshape(w2.shape)
        return inputs @ first.mT @ second.mT

    dense = torch.func.hessian(lambda w: (targets - outputs(w)).square().sum() / 2 / len(data))(flat)
    jacobian = torch.func.jacrev(lambda w: outputs(w).flatten())(flat)
    return dense, jacobian.mT @ jacobian / len(data)


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
        roomy=ORDER,
    )
    damped, means = group_means(influence.sel(damping=strongest)), group_means(-solved_kernel(experiment))
    for name in GROUPS:
        epochs = experiment.epochs.astype(float)
        noise = np.full(len(epochs), float(abs(damped[name]).max()))
        largest = experiment.hessian["max_abs_eigenvalue"].values * strongest * len(experiment.dataset)
        moved = lag(smooth(means[name]), epochs, damped[name].values * largest, noise, reach=300.0)
        first, last = delays(experiment)
        yield Check(
            f"{name}, c = {strongest:g}: later than the exact solution's kernel by (epochs)",
            moved.value,
            low=first - spacing / 4,
            high=last + spacing / 4,
            why="(H + lambda)^-1 = (1 - H / lambda + ...) / lambda tilts the kernel by at most 1 / c; a quarter of "
            "the spacing "
            f"of checkpoints; descent is {first:.1f} to {last:.1f} epochs late",
        )
        result = fit(means[name].values, damped[name].values * largest, noise)
        yield Check(
            f"{name}, c = {strongest:g}: size over that of -K / (N lambda)",
            result.value,
            low=1 - 1 / strongest,
            high=1 + 1 / strongest,
            why="1 up to H / lambda, at most 1 / c",
        )
    earliest = float(np.diff(retrained).min())
    yield Check(
        "leave-one-out: smallest gap between its peaks (epochs)",
        earliest,
        low=spacing,
        why="the same order",
        roomy=ORDER,
    )
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
