"""The paper's toy experiment: the semantic tree of eight items, and what is known of it beside the numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import numpy as np
import xarray as xr

from theory import hierarchical_dataset, hierarchical_structure
from theory.trajectories import labelled_array
from validation.experiment import Experiment, Settings

__all__ = ["GROUPS", "LEVEL_NAMES", "ToyExperiment", "ToySettings", "group_means"]

_INNER_NODES = ("living thing", "animal", "plant", "mammal", "bird", "tree", "flower")
LEVEL_NAMES = ("all items", "animals | plants", "mammals | birds,\ntrees | flowers", "within pairs")
GROUPS = {"plants": ("pine", "oak", "rose", "lily"), "birds": ("sparrow", "penguin"), "cat": ("cat",)}

ToySettings = Settings  # the defaults are the toy's


def group_means(influence: xr.DataArray, source: str = "dog") -> dict[str, xr.DataArray]:
    """Return the influence of `source` on each group of queries at one tree distance, averaged, nearest group last."""
    return {name: influence.sel(source=source, query=list(queries)).mean("query") for name, queries in GROUPS.items()}


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

    def _with(self, settings: Settings) -> Self:
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
