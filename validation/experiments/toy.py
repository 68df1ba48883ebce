"""The paper's toy experiment: the semantic tree of eight items, and what is known of it beside the numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np
import xarray as xr

from numerics import branching_epochs, representation_embedding
from theory import hierarchical_dataset, hierarchical_structure
from theory.trajectories import labelled_array, trajectory
from validation.experiments.base import Experiment, Settings

__all__ = [
    "BRANCHES",
    "GROUPS",
    "LEVEL_NAMES",
    "ToyExperiment",
    "ToySettings",
    "branch_contrast",
    "group_means",
    "harm_epochs",
]

_INNER_NODES = ("living thing", "animal", "plant", "mammal", "bird", "tree", "flower")
LEVEL_NAMES = ("all items", "animals | plants", "mammals | birds,\ntrees | flowers", "within pairs")
GROUPS = {"plants": ("pine", "oak", "rose", "lily"), "birds": ("sparrow", "penguin"), "cat": ("cat",)}
# The halves of each distinction on dog's path, coarsest first.
BRANCHES = {
    "animal | plant": (("dog", "cat", "sparrow", "penguin"), ("pine", "oak", "rose", "lily")),
    "mammal | bird": (("dog", "cat"), ("sparrow", "penguin")),
    "dog | cat": (("dog",), ("cat",)),
}

ToySettings = Settings  # the defaults are the toy's


def group_means(influence: xr.DataArray, source: str = "dog") -> dict[str, xr.DataArray]:
    """Return the influence of `source` on each group of queries at one tree distance, averaged, nearest group last."""
    return {name: influence.sel(source=source, query=list(queries)).mean("query") for name, queries in GROUPS.items()}


def harm_epochs(influence: xr.DataArray, source: str = "dog") -> np.ndarray:
    """Return the epochs at which `source` harms plants, birds and cat most."""
    return np.array([float(mean.idxmax("epoch")) for mean in group_means(influence, source).values()])


def branch_contrast(names: Sequence[str], branch: str) -> np.ndarray:
    """Return the weights whose sum over samples is the difference of the means of a branch's halves."""
    first, second = BRANCHES[branch]
    return np.array([(name in first) / len(first) - (name in second) / len(second) for name in names])


AnyToy = TypeVar("AnyToy", bound="ToyExperiment")


class ToyExperiment(Experiment):
    """Every measure of influence in the toy model, each computed once when first asked for.

    Parameters
    ----------
    settings
        See `Settings`.
    announce
        Called with a short phrase before each longer computation, for progress displays.

    Examples
    --------
    >>> ToyExperiment().dataset.names[:4]
    ('dog', 'cat', 'sparrow', 'penguin')
    """

    def __init__(self, settings: Settings | None = None, announce: Callable[[str], object] | None = None) -> None:
        super().__init__(hierarchical_dataset(), settings, announce)

    def with_settings(self: AnyToy, settings: Settings) -> AnyToy:
        """See `Experiment.with_settings`."""
        return type(self)(settings, self._announce)

    @property
    def features(self) -> xr.DataArray:
        """The targets Y, dims (item, feature), with the depth of each feature's node in the tree as a coordinate."""
        nodes = [*_INNER_NODES, *self.dataset.names]
        levels = np.floor(np.log2(np.arange(len(nodes)) + 1)).astype(int)
        table = labelled_array(self.dataset.targets, {"item": self.dataset.names, "feature": nodes}, "features")
        return table.assign_coords(depth=("feature", levels))

    @property
    def shared_features(self) -> xr.DataArray:
        """Number of features that two items share, Y Y^T, dims (item, other)."""
        shared = self.dataset.targets @ self.dataset.targets.T
        return labelled_array(shared, {"item": self.dataset.names, "other": self.dataset.names}, "shared features")

    @property
    def mode_strengths(self) -> xr.Dataset:
        """As `Experiment.strengths`, with the level of the tree that each mode distinguishes."""
        return self.strengths.assign_coords(level=("mode", hierarchical_structure().levels))

    @property
    def transitions(self) -> xr.DataArray:
        """As `Experiment.half_rise_times`, dims (mode), with the level of the tree that each mode distinguishes."""
        epochs = self.half_rise_times
        labelled = labelled_array(epochs, {"mode": range(len(epochs))}, "half-rise time", {"units": "epochs"})
        return labelled.assign_coords(level=("mode", hierarchical_structure().levels))

    def branching(self, fraction: float = 0.5) -> xr.DataArray:
        """Epochs at which the hidden representations of `BRANCHES` are that far apart, see `branching_epochs`."""
        return branching_epochs(self.dataset, self.checkpoints, BRANCHES, fraction=fraction)

    def embedding(self, dims: int = 2, leave_out: Sequence[str] = ()) -> xr.DataArray:
        """Hidden representations over training in few dimensions, of all samples but those left out."""
        shown = self.dataset.without(list(leave_out)) if leave_out else self.dataset
        return representation_embedding(shown, self.checkpoints, dims=dims)

    def learned(self, maps: np.ndarray) -> np.ndarray:
        """Return the learned share of the root and of each distinction on dog's path, shape (T, 4).

        Each is the projection of the maps (T, O, P) along the contrast of inputs, relative to that of the data.
        """
        data = self.dataset
        contrasts = [np.ones(len(data)) / len(data), *(branch_contrast(data.names, branch) for branch in BRANCHES)]
        shares = []
        for contrast in contrasts:
            wanted = data.targets.T @ contrast
            shares.append(np.einsum("o,toj,j->t", wanted, maps @ data.inputs.T, contrast) / (wanted @ wanted))
        return np.stack(shares, axis=1)

    @cached_property
    def kernel_from_modes(self) -> xr.DataArray:
        """The gradient kernel if the layers carried each mode in equal parts, W1^T W1 = V G V^T.

        Different one-hot inputs are orthogonal, so K_ij = (r_i . r_j) x_i^T V G V^T x_j with r = U (G alpha - psi).
        """
        data, modes = self.dataset, self.modes
        g = self.strengths["closed form"].values
        alpha, psi = data.inputs @ modes.right, data.targets @ modes.left
        residual = g[:, None] * alpha - psi
        values = np.einsum("tik,tjk->tij", residual, residual) * np.einsum("ik,tk,jk->tij", alpha, g, alpha)
        return trajectory(values, self.epochs, data.names, data.names, name="kernel")
