"""Claims about learning dynamics: the closed forms predict the simulated network (paper Eqs. 22-35)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from theory import initial_mode_strength, mode_strength
from validation.claims import Check, claim
from validation.toy import ToyExperiment

__all__: list[str] = []


def _euler_delay(experiment: ToyExperiment) -> tuple[float, float]:
    """Return by how many epochs descent learns the fastest mode late, and what that makes at its steepest point.

    Per epoch a layer grows by 1 + s / tau instead of e^{s / tau}: the mode is late by s / (2 tau) of its rise time
    tau / (2 s) ln(s / g0), and g is steepest, s^2 / (2 tau), half-way.
    """
    s, g0 = experiment.modes.values[0], experiment.modes.initial_strengths[0]
    delay = np.log(s / g0) / 4
    return float(delay), float(delay * s**2 / (2 * experiment.tau))


@claim(
    "mode-strengths",
    "From its actual random weights the network learns each mode along the logistic curve of Eq. 30, from the initial "
    "strength |W1 v + W2^T u|^2 / 4 without the part it shares with faster modes.",
    source="paper Eq. 30, g0 ours",
)
def mode_strengths(experiment: ToyExperiment) -> Iterator[Check]:
    """Compare decoupled modes with the simulated network."""
    modes, epochs = experiment.modes, experiment.epochs[:, None]
    simulated = experiment.mode_strengths["simulation"].values

    def worst(initial: np.ndarray) -> float:
        return float(np.abs(mode_strength(epochs, modes.values, initial, experiment.tau) - simulated).max())

    w1, w2 = experiment.initial_weights
    whole = initial_mode_strength(w1, w2, modes.left, modes.right)
    shared = np.log(whole / modes.initial_strengths)
    # A change of ln g0 by d shifts a mode by d tau / (2 s) epochs, which is s d / 4 where it is steepest.
    predicted = float((modes.values * shared).max() / 4)
    delay, late = _euler_delay(experiment)
    second_order = float((modes.values * shared**2).max() / 4)
    yield Check(
        "max |closed form - simulation|, g0 without the shared part",
        worst(modes.initial_strengths),
        high=late + second_order,
        why=f"descent learns {delay:.1f} epochs late ({late:.1e}); second order in the shared part {second_order:.1e}",
    )
    yield Check(
        "the same with the whole g0 = |W1 v + W2^T u|^2 / 4",
        worst(whole),
        low=predicted - late - second_order,
        high=predicted + late + second_order,
        why=f"counting the shared part makes modes early by {predicted:.1e} at first order; 3.7e-2 was seen",
    )
    printed = np.einsum("ok,op,pk->k", modes.left, w2 @ w1, modes.right)
    yield Check(
        "the same with g0 = u^T W2 W1 v (negative ones as 0), as Eq. 30 suggests",
        worst(np.maximum(printed, 0.0)),
        low=5e-2,
        why="the product of the layers also counts the combination that decays, and is negative for half of the modes",
    )


@claim(
    "matrix-solution",
    "The exact matrix solution, fed the raw unbalanced weights, predicts the whole map along the gradient flow.",
    source="ours (after Fukumizu 1998, Braun et al. 2022)",
)
def matrix_solution(experiment: ToyExperiment) -> Iterator[Check]:
    """Compare the matrix solution with the integrated flow."""
    error = np.abs(experiment.solved_maps - experiment.flow.maps.numpy()).max()
    yield Check(
        "max |matrix solution - flow|",
        float(error),
        high=1e-3,
        why="the solution assumes balanced layers; the imbalance is of order h sigma^2 = 5e-5 and enters linearly",
    )


@claim(
    "flow-is-descent",
    "Full-batch gradient descent at the paper's learning rate follows the gradient flow.",
    source="paper C.6 (continuous time)",
)
def flow_is_descent(experiment: ToyExperiment) -> Iterator[Check]:
    """Compare descent with the flow."""
    error = (experiment.checkpoints.maps - experiment.flow.maps).abs().max()
    modes = experiment.modes
    delay, late = _euler_delay(experiment)
    bound = late * np.abs(np.outer(modes.left[:, 0], modes.right[:, 0])).max()
    yield Check(
        "max |descent - flow|",
        float(error),
        high=5e-3,
        why=f"Euler's first-order error: the fastest mode is {delay:.1f} epochs late, {bound:.1e} where it is steepest",
    )
